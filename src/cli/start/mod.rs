//! `yardarm start`: in the place of flagd, with its command line, its ports and its log lines (flagd.md 1.1). Flags come from files, web servers
//! and sync services, and there is no control plane.

mod options;
mod resolve;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use super::exit::{Failure, Outcome};
use super::output::Out;
use super::ready::{self, Addresses};
use super::roles::{end, host, unstartable};
use crate::clock::SystemClock;
use crate::flag::{Assumed, Naming};
use crate::lifecycle::{Readiness, Shutdown};
use crate::replica::Replica;
use crate::sidecar::{self, Flags, Running, Serve, StandIn, Workers};
use crate::sources;

pub use options::Args;
pub use options::spelled;
use resolve::Settings;

/// Its flags are of no environment: a flag's set is what it says, or none.
const ENVIRONMENT: &str = "";

/// By itself, so that a sidecar is not resident with it.
#[inline(never)]
pub fn run(args: Args, out: &mut Out) -> Outcome {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let settings = Settings::of(args, home.as_deref())?;
    let telemetry = settings.telemetry.clone();
    host(Some(2), &telemetry, async |shutdown| start(settings, shutdown, out).await)
}

async fn start(settings: Settings, shutdown: Shutdown, out: &mut Out) -> Outcome {
    let Settings { sources, serve, fractional_version, ready, telemetry: _, config, ignored } = settings;
    if let Some(config) = config {
        tracing::info!("using config file: {}", config.display());
    }
    for option in ignored {
        tracing::warn!("{option}");
    }
    if sources.is_empty() {
        tracing::warn!("there is no source of flags; name one with --uri or --sources");
    }
    let (replica, writer) = Replica::named(Naming::Flagds, Arc::new(SystemClock::new()));
    let stand_in = StandIn { readiness: Readiness::new() };
    let readiness = stand_in.readiness.clone();
    sources::start(sources, writer, Assumed { fractional_version }, &readiness, &shutdown);
    let workers =
        Workers::start(serve.threads).map_err(|error| Failure::unable(format!("cannot start the threads that answer: {error}")))?;
    if serve.hand_over && sidecar::is_served(serve.listen).await {
        // From here on connections come here too, and the other process still knows the flags.
        tokio::select! {
            () = readiness.wait() => {}
            () = shutdown.requested() => {}
        }
    }
    let flags = Flags { replica, environment: ENVIRONMENT.to_owned(), following: None };
    let served = sidecar::serve_in_place_of_flagd(&serve, flags, &workers, shutdown.clone(), stand_in).await;
    let running = served.map_err(|error| named(unstartable(error)))?;
    announce(&running, &serve);
    let Running { tcp, uds, management, ofrep, sync, .. } = running;
    let addresses = Addresses::here(None, None, vec![ready::Sidecar { pod: None, tcp, socket: uds, management, ofrep, sync }]);
    let _announced = ready.announce(&addresses)?;
    out.answer(&addresses, |out, _| out.line(format!("yardarm {} in place of flagd, on {tcp}", env!("CARGO_PKG_VERSION"))))?;
    end(&shutdown).await
}

/// In flagd's words: there are programs that wait for these lines.
fn announce(running: &Running, serve: &Serve) {
    let Running { tcp, uds, management, ofrep, sync, sync_uds } = running;
    tracing::info!("metrics and probes listening at {}", management.port());
    if let Some(sync) = sync {
        tracing::info!("starting flag sync service on port {}", sync.port());
    }
    if let Some(path) = sync_uds {
        tracing::info!("starting flag sync service at {}", path.display());
    }
    if let Some(ofrep) = ofrep {
        tracing::info!("ofrep service listening at {}", ofrep.port());
    }
    if let Some(path) = uds {
        tracing::info!("Flag IResolver listening at {}", path.display());
    }
    // Of flagd one of the two is served; here the port is served too.
    tracing::info!("Flag IResolver listening at {tcp}");
    if serve.tls.is_some() {
        tracing::info!("evaluation and flag sync are served over TLS on their ports");
    }
    if !serve.context_values.is_empty() {
        let names: Vec<_> = serve.context_values.keys().map(String::as_str).collect();
        tracing::info!("each context has {}", names.join(", "));
    }
}

/// flagd's names of the options in place of a sidecar's.
fn named(failure: Failure) -> Failure {
    let names = [
        ("--listen", "--port"),
        ("--management", "--management-port"),
        ("--ofrep", "--ofrep-port"),
        ("--sync-socket", "--sync-socket-path"),
        ("--sync", "--sync-port"),
        ("--socket", "--socket-path"),
    ];
    let is_named = |option: &&(&str, &str)| failure.message.split(|c: char| c.is_whitespace() || c == ';').any(|word| word == option.0);
    match names.iter().find(is_named) {
        Some((ours, flagds)) => Failure { message: failure.message.replace(ours, flagds), ..failure },
        None => failure,
    }
}

/// All interfaces, as flagd: `[::]`, which takes IPv4 too, or 0.0.0.0 where there is no IPv6.
fn anywhere() -> IpAddr {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))) {
        Ok(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Err(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}
