//! `yardarm healthcheck`: the probe of a container that has no shell and no curl.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::connect::open;
use super::duration;
use super::exit::{Exit, Failure, Outcome, innermost};
use super::output::Out;

/// Exits with 0 when healthy and with 1 when not: Docker keeps 2 for itself, so a probe that finds nobody says 1 too.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The sidecar's management address
    #[arg(long, value_name = "ADDRESS", env = "YARDARM_MANAGEMENT", default_value = "127.0.0.1:8014")]
    management: String,
    /// What to ask there: /readyz (a usable state is held) or /healthz (the process answers)
    #[arg(long, value_name = "PATH", default_value = "/readyz")]
    path: String,
    /// Ask the gRPC health service at this address instead, a control plane's or a sidecar's
    #[arg(long, value_name = "URL", conflicts_with_all = ["management", "path"])]
    grpc: Option<String>,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration::parse)]
    timeout: Duration,
}

pub async fn run(args: Args, out: &mut Out) -> Outcome {
    let Args { management, path, grpc, timeout: patience } = args;
    let asked = async {
        match &grpc {
            Some(address) => ask_grpc(address).await,
            None => ask_http(&management, &path).await,
        }
    };
    let whom = grpc.as_ref().unwrap_or(&management);
    let healthy = match timeout(patience, asked).await {
        Ok(answer) => answer,
        Err(_) => Err("no answer in time".to_owned()),
    };
    healthy.map_err(|why| Failure::problem(format!("{whom} is not healthy: {why}")))?;
    out.answer(&serde_json::json!({ "healthy": true }), |out, _| out.line(format!("{whom} is healthy")))?;
    Ok(Exit::Done)
}

/// One request on one connection, which is less than an HTTP client would bring.
async fn ask_http(address: &str, path: &str) -> Result<(), String> {
    let address = address.trim_start_matches("http://");
    let told = |error: std::io::Error| innermost(&error);
    let mut stream = TcpStream::connect(address).await.map_err(told)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(told)?;
    let mut answer = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut answer).await.map_err(told)?;
    let answer = String::from_utf8_lossy(&answer);
    match answer.split_ascii_whitespace().nth(1) {
        Some("200") => Ok(()),
        Some(status) => Err(format!("{path} answered {status} {}", answer.split("\r\n\r\n").nth(1).unwrap_or_default().trim())),
        None => Err(format!("{path} did not answer in HTTP")),
    }
}

async fn ask_grpc(address: &str) -> Result<(), String> {
    let mut client = HealthClient::new(open(address).await?);
    let answer = client.check(HealthCheckRequest { service: String::new() }).await.map_err(|status| status.message().to_owned())?;
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        other => Err(other.as_str_name().to_lowercase().replace('_', " ")),
    }
}
