//! Which control plane, which sidecar, and who asks.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use super::duration;
use super::exit::{Failure, innermost};
use crate::wire::v1::Intent;
use crate::wire::v1::admin_client::AdminClient;
use crate::wire::v1::evaluation_client::EvaluationClient;

/// Long enough for a far control plane; a dead one is told sooner, because a connection is refused and not awaited.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A flag document may be 32 MiB, and JSON in a protobuf message adds little to that.
const LARGEST_MESSAGE: usize = 64 * 1024 * 1024;

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Control plane")]
pub struct ControlPlane {
    /// Where the control plane listens: http://HOST:PORT or unix:/PATH
    #[arg(
        long = "control-plane",
        value_name = "URL",
        env = "YARDARM_CONTROL_PLANE",
        default_value = "http://127.0.0.1:8020",
        global = true
    )]
    pub url: String,
    /// How long to wait for each answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse, global = true)]
    pub timeout: Duration,
}

#[derive(Debug, Clone, clap::Args)]
pub struct Environment {
    /// The environment to work in
    #[arg(
        short = 'e',
        long = "env",
        visible_alias = "environment",
        value_name = "NAME",
        env = "YARDARM_ENVIRONMENT",
        default_value = "default",
        global = true
    )]
    pub name: String,
}

#[derive(Debug, Clone, clap::Args)]
pub struct Sidecar {
    /// Where the sidecar listens: HOST:PORT or unix:/PATH
    #[arg(long = "sidecar", value_name = "ADDRESS", env = "YARDARM_SIDECAR", default_value = "http://127.0.0.1:8013")]
    pub address: String,
}

/// Every change is written to the audit log with the one who made it.
#[derive(Debug, Clone, clap::Args)]
pub struct Author {
    /// Who makes the change, for the audit log [default: USER@HOST]
    #[arg(long, value_name = "NAME", env = "YARDARM_ACTOR", hide_env_values = true, global = true)]
    pub actor: Option<String>,
}

pub type Admin = AdminClient<Channel>;
pub type Evaluation = EvaluationClient<Channel>;

impl ControlPlane {
    pub async fn connect(&self) -> Result<Admin, Failure> {
        let channel = open(&self.url).await.map_err(|why| {
            Failure::unable(format!(
                "cannot reach the control plane at {}: {why}; start one with `yardarm dev` or `yardarm control`, or name another with --control-plane",
                self.url
            ))
        })?;
        Ok(AdminClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE).max_encoding_message_size(LARGEST_MESSAGE))
    }

    /// A call that is answered once. (A stream has no deadline: it ends when its work is done.)
    pub fn ask<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.timeout);
        request
    }
}

impl Sidecar {
    pub async fn connect(&self) -> Result<Evaluation, Failure> {
        let channel = open(&self.address).await.map_err(|why| {
            Failure::unable(format!(
                "cannot reach a sidecar at {}: {why}; start one with `yardarm dev` or `yardarm sidecar`, or name another with --sidecar",
                self.address
            ))
        })?;
        Ok(EvaluationClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE))
    }
}

impl Author {
    pub fn name(&self) -> String {
        self.actor.clone().unwrap_or_else(user_at_host)
    }

    pub fn intends(&self, reason: impl Into<String>, expect_revision: Option<u64>) -> Intent {
        Intent { actor: self.name(), reason: reason.into(), expect_revision }
    }
}

fn user_at_host() -> String {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let user = variable("USER").or_else(|| variable("LOGNAME")).unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{user}@{host}")
}

pub async fn open(address: &str) -> Result<Channel, String> {
    let url = match address {
        tls if tls.starts_with("https:") => return Err("TLS is not spoken yet; use http:// inside a trusted network".to_owned()),
        complete if complete.contains("://") || complete.starts_with("unix:") => complete.to_owned(),
        bare => format!("http://{bare}"),
    };
    let endpoint =
        Endpoint::from_shared(url).map_err(|_| "this is not an address; expected http://HOST:PORT, HOST:PORT or unix:/PATH".to_owned())?;
    endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true).connect().await.map_err(|error| innermost(&error))
}
