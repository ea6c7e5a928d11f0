//! Starts the control plane and says where it listens.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic_health::ServingStatus;

use super::accept::connections;
use super::evidence::{self, Evidence};
use super::ledger::{Actor, Command, Retention};
use super::rollouts::{self, Conductor, Guards, Reported};
use super::routes::Routes;
use super::store::{Embedded, Store};
use super::{Fleet, Ledger, admin, fleet, hooks, publish};
use crate::clock::{AheadClock, Clock, Micros, SystemClock};
use crate::lifecycle::{Phase, Shutdown};
use crate::telemetry::rpc::TraceLayer;
use crate::wire::{DESCRIPTORS, v1};

/// The environment that a first start makes, and that every tool uses when none is named.
pub const DEFAULT_ENVIRONMENT: &str = "default";

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where sidecars and the command line reach the control plane
    #[arg(long, env = "YARDARM_LISTEN", default_value = "127.0.0.1:8020")]
    pub listen: SocketAddr,

    /// Where alerting systems reach the webhooks that kill flags, as 127.0.0.1:8021; empty: nowhere
    #[arg(long, env = "YARDARM_WEBHOOKS", value_name = "ADDRESS", default_value = "")]
    pub webhooks: hooks::Listen,

    /// Directory of the store; created when it is absent
    #[arg(long, env = "YARDARM_DATA", value_name = "DIR", default_value = ".yardarm")]
    pub data: PathBuf,

    /// Changes of each environment that a sidecar can resume from
    #[arg(long, value_name = "CHANGES", default_value_t = 10_000)]
    pub log_changes: usize,

    /// Days that a change can be resumed from
    #[arg(long, value_name = "DAYS", default_value_t = 7)]
    pub log_days: u32,

    /// Answer gRPC reflection, which lists every method and message
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub reflection: bool,

    /// To play a plan of weeks in minutes: the clock is ahead of the machine's by as many seconds as this file says, read ten times a second
    #[arg(long, value_name = "FILE", hide = true)]
    pub clock_ahead: Option<PathBuf>,

    /// The pods end with this process: a start after it misses none of them.
    #[arg(skip)]
    pub ends_with_its_pods: bool,

    #[command(flatten)]
    pub publish: publish::Args,
}

/// How often the file of `--clock-ahead` is read.
const CLOCK_LOOKED_AT_EVERY: Duration = Duration::from_millis(100);

/// What runs, and where it was bound.
pub struct Running {
    pub grpc: SocketAddr,
    pub webhooks: Option<SocketAddr>,
    pub ledger: Arc<Ledger>,
    pub fleet: Arc<Fleet>,
    pub evidence: Arc<dyn Evidence>,
}

/// A peer that does not answer a ping within this is gone: its streams are freed, and a sidecar behind a dead link is seen as such.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEPALIVE_WITHIN: Duration = Duration::from_secs(10);
/// A relay or a console multiplexes many streams over one connection.
const STREAMS: u32 = 100_000;
const HEADER_BYTES: u32 = 16 << 10;
/// Streams that a client may reset before they are answered (rapid reset), and resets that it may provoke.
const PENDING_RESETS: usize = 20;
const PROVOKED_RESETS: usize = 1_024;

/// Opens the store, serves Admin, Replication, health and reflection, and returns once the address is bound. It ends with `shutdown`.
pub async fn start(args: Args, shutdown: Shutdown) -> anyhow::Result<Running> {
    let Args { listen, webhooks, data, log_changes, log_days, reflection, clock_ahead, ends_with_its_pods, publish } = args;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let grpc = listener.local_addr()?;
    let webhook_listener = bind_webhooks(webhooks).await?;
    let webhooks = webhook_listener.as_ref().map(TcpListener::local_addr).transpose()?;
    let clock: Arc<dyn Clock> = match clock_ahead {
        Some(file) => ahead_by(file, shutdown.clone()).await,
        None => Arc::new(SystemClock::new()),
    };
    let retention = Retention { changes: log_changes, age: Duration::from_secs(u64::from(log_days) * 24 * 3600) };
    let dir = data.clone();
    let store: Arc<dyn Store> = Arc::new(tokio::task::spawn_blocking(move || Embedded::open(&dir)).await??);
    let ledger = Ledger::open_with(store, Arc::clone(&clock), retention).await?;
    if ledger.environments().is_empty() {
        let command = Command::CreateEnvironment { name: DEFAULT_ENVIRONMENT.to_owned() };
        ledger.commit(&Actor::new("yardarm"), "first start", command).await?;
    }
    let fleet = Fleet::new(Arc::clone(&clock));
    let evidence: Arc<dyn Evidence> = Arc::new(evidence::Durable::open(&data, Arc::clone(&clock)).await?);
    tokio::spawn(evidence::sweep(Arc::clone(&evidence), Arc::clone(&ledger), shutdown.clone()));
    if !ends_with_its_pods {
        remember_pods(&fleet, &ledger, data, &shutdown).await?;
    }

    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<v1::admin_server::AdminServer<admin::Admin>>().await;
    health.set_serving::<publish::Publish>().await;
    let reported = Arc::new(Reported::new(Arc::clone(&ledger), Arc::clone(&evidence)));
    let guards = Guards::new(Arc::clone(&ledger), Arc::clone(&evidence));
    tokio::spawn(Conductor::new(Arc::clone(&ledger), Arc::clone(&reported), guards).run(shutdown.clone()));
    let mut routes = Routes::default()
        .with(health_service)
        .with(admin::service(Arc::clone(&ledger), Arc::clone(&fleet), webhooks, Arc::clone(&evidence), shutdown.clone()))
        .with(rollouts::service(Arc::clone(&ledger), reported))
        .with(evidence::service(Arc::clone(&evidence), Arc::clone(&ledger)))
        .with(publish::service(Arc::clone(&ledger), Arc::clone(&fleet), Arc::clone(&clock), publish, shutdown.clone()));
    if reflection {
        routes = routes.with(tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS).build_v1()?);
    }
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_WITHIN))
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
        .http2_max_local_error_reset_streams(Some(PROVOKED_RESETS))
        .layer(TraceLayer);

    if let Some(listener) = webhook_listener {
        tokio::spawn(hooks::serve(listener, Arc::clone(&ledger), clock, shutdown.clone()));
    }
    let connections = connections(listener);
    let served = Arc::clone(&ledger);
    let drained = shutdown.hold(Phase::Drain, "the control plane's connections");
    tokio::spawn(async move {
        let _drained = drained;
        let stop = shutdown.clone();
        let stopping = async move {
            stop.requested().await;
            // Whoever asks from here on, on a connection that is still open, is told to go elsewhere.
            health.set_service_status("", ServingStatus::NotServing).await;
            health.set_not_serving::<v1::admin_server::AdminServer<admin::Admin>>().await;
            health.set_not_serving::<publish::Publish>().await;
        };
        let serving = server.serve_with_incoming_shutdown(routes, connections, stopping);
        tokio::select! {
            ended = serving => {
                if let Err(problem) = ended {
                    tracing::error!(%problem, %grpc, "the control plane stopped serving");
                }
            }
            // Whoever does not let go in time is cut off.
            () = shutdown.finished() => {}
        }
        drop(served);
    });
    tracing::info!(%grpc, webhooks = webhooks.map(tracing::field::display), environments = ledger.environments().len(), "control plane serves");
    Ok(Running { grpc, webhooks, ledger, fleet, evidence })
}

async fn bind_webhooks(hooks::Listen(address): hooks::Listen) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    TcpListener::bind(address).await.map(Some).with_context(|| format!("cannot listen for webhooks on {address}"))
}

/// Misses the pods of before until they come back, and notes who is here from now on.
async fn remember_pods(fleet: &Arc<Fleet>, ledger: &Ledger, data: PathBuf, shutdown: &Shutdown) -> anyhow::Result<()> {
    let dir = data.clone();
    let everybody = tokio::task::spawn_blocking(move || fleet::read(&dir)).await?;
    for (environment, pods) in everybody {
        if ledger.head(&environment).is_some() {
            tracing::info!(environment, pods = pods.len(), "these pods are missed until they come back or ten minutes are over");
            fleet.recall(&environment, pods);
        }
    }
    let hold = shutdown.hold(Phase::StopAccepting, "the list of pods");
    tokio::spawn(fleet::keep(Arc::clone(fleet), data, shutdown.clone(), hold));
    Ok(())
}

/// Ahead from the first reading on: what was decided before a restart was decided then.
async fn ahead_by(file: PathBuf, shutdown: Shutdown) -> Arc<AheadClock> {
    tracing::warn!(file = %file.display(), "the clock is ahead of the machine's by what this file says: plans are played, not carried out");
    let clock = Arc::new(AheadClock::default());
    clock.be_ahead_us(micros_in(&file).await);
    let moved = Arc::clone(&clock);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(CLOCK_LOOKED_AT_EVERY);
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                _ = ticks.tick() => moved.be_ahead_us(micros_in(&file).await),
            }
        }
    });
    clock
}

/// Nothing is 0: a file that is being written is read again soon.
async fn micros_in(file: &Path) -> Micros {
    let seconds = tokio::fs::read_to_string(file).await.ok().and_then(|text| text.trim().parse::<i64>().ok());
    seconds.unwrap_or(0).saturating_mul(1_000_000)
}
