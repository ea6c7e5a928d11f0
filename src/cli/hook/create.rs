//! `yardarm hook create`.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::Target;
use super::receivers::{alertmanager, grafana};
use crate::cli::connect::Author;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::output::Out;
use crate::cli::{duration, status};
use crate::wire::v1;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The flag that the hook kills
    key: String,
    /// Why, for the audit log
    #[arg(long)]
    reason: String,
    /// An alert that began longer ago than this does not kill: 1m to 168h
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration::parse)]
    max_age: Duration,
    /// Where your alerting reaches the webhooks, as https://flags.example.com [default: where the control plane listens for them]
    #[arg(long = "url", value_name = "URL")]
    reached_at: Option<String>,
    #[command(flatten)]
    author: Author,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    environment: String,
    flag: String,
    id: String,
    /// Takes the token as `Authorization: Bearer TOKEN`.
    url: String,
    token: String,
    /// Takes it as it is.
    url_with_token: String,
    max_age_ms: u64,
    is_served: bool,
}

pub async fn run(target: Target, args: Args, out: &mut Out) -> Outcome {
    let Target { control, environment } = target;
    let Args { key, reason, max_age, reached_at, author } = args;
    // Zero would stand for the default.
    let max_age_ms = u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX).max(1);
    let intent = Some(author.intends(reason, None));
    let request = v1::CreateHookRequest { environment: environment.name.clone(), key: key.clone(), max_age_ms, intent };
    let answer = control.connect().await?.create_hook(control.ask(request)).await.map_err(status::of_change)?.into_inner();
    let v1::CreateHookResponse { hook, token, path, listen } = answer;
    let is_served = reached_at.is_some() || !listen.is_empty();
    let url = format!("{}{path}", reached_at.map_or_else(|| base(&listen, &control.url), |url| url.trim_end_matches('/').to_owned()));
    let v1::Hook { id, max_age_ms, .. } = hook.unwrap_or_default();
    let url_with_token = format!("{url}/{token}");
    let created = Created { environment: environment.name, flag: key, id, url, token, url_with_token, max_age_ms, is_served };
    out.answer(&created, print)?;
    Ok(Exit::Done)
}

/// An address that stands for every one of a machine is reached where the control plane is.
fn base(listen: &str, control_plane: &str) -> String {
    let Ok(address) = listen.parse::<SocketAddr>() else { return "http://127.0.0.1:8021".to_owned() };
    if !address.ip().is_unspecified() {
        return format!("http://{address}");
    }
    let rest = control_plane.split_once("://").map_or(control_plane, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    format!("http://{}:{}", if host.is_empty() { "127.0.0.1" } else { host }, address.port())
}

fn print(out: &mut Out, created: &Created) -> Result<(), Failure> {
    let Created { environment, flag, id, url, token, url_with_token, max_age_ms, is_served } = created;
    let age = duration::rough(Duration::from_millis(*max_age_ms));
    out.line(format!("created hook {id}: it kills {flag} of environment {environment} when an alert fires that began at most {age} ago"))?;
    out.line(format!("  url    {url}"))?;
    out.line(format!("  token  {token}"))?;
    out.line("the token is shown this once. Whoever has it can kill the flag; nobody can restore it with it")?;
    if !is_served {
        out.note("this control plane takes no webhooks: start it with --webhooks 127.0.0.1:8021, or say --url");
    }
    out.line("\nAlertmanager, under receivers:")?;
    out.bytes(alertmanager(flag, url, token).as_bytes())?;
    out.line("\nGrafana alerting, as a file under provisioning/alerting:")?;
    out.bytes(grafana(flag, url, token).as_bytes())?;
    out.line("\nanything else, once for each alert:")?;
    out.line(format!(
        "curl -H 'Content-Type: application/json' -d '{{\"id\": \"incident-1\", \"at\": \"'$(date -u +%Y-%m-%dT%H:%M:%SZ)'\"}}' {url_with_token}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_stands_for_all_is_that_of_the_control_plane() {
        assert_eq!(base("127.0.0.1:8021", "http://flags:8020"), "http://127.0.0.1:8021");
        assert_eq!(base("0.0.0.0:8021", "http://flags:8020"), "http://flags:8021");
        assert_eq!(base("[::]:8021", "http://[fd00::1]:8020/"), "http://[fd00::1]:8021");
        assert_eq!(base("", "http://flags:8020"), "http://127.0.0.1:8021");
    }
}
