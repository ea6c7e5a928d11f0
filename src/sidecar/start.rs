//! Starts a sidecar and says where it listens.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context as _;
use http::Uri;
use tokio::net::TcpListener;

use crate::clock::SystemClock;
use crate::lifecycle::{Phase, Readiness, Shutdown, Token};
use crate::replica::Replica;
use crate::replica::disk::IfHeld;
use crate::replica::follow::{self, Follower, Settings, Timing};
use crate::telemetry::decisions;
use crate::wire::replication::Identity;

use super::context::Contexts;
use super::cors::Cors;
use super::evidence::{self, Evidence};
use super::listen::{self, Take};
use super::management;
use super::metrics::Metrics;
use super::observe;
use super::pod::{Desk, Places, Pod};
use super::route::{Door, Others, Router};
use super::serve::{Listener, MAX_STREAMS, Protocol, Socket, accept};
use super::sync::{MAX_CONNECTIONS, MAX_SUBSCRIBERS, Press, Told};
use super::tls::Tls;
use super::workers::Workers;
use super::{Args, Serve, Upstream, health};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Applications of one pod keep few connections of HTTP/1.1; each may hold a body in memory.
const MAX_OFREP_CONNECTIONS: usize = 256;

/// Requests that one connection of the sync service may have open: more than there may be subscribers, so that one too many is told so.
const MAX_SYNC_STREAMS: u32 = 2048;

/// Requests that one connection may have open there.
const MAX_OFREP_STREAMS: u32 = 128;

/// What runs, and where it was bound.
#[derive(Debug)]
pub struct Running {
    pub tcp: SocketAddr,
    pub uds: Option<PathBuf>,
    pub management: SocketAddr,
    /// `None`: OFREP is not served.
    pub ofrep: Option<SocketAddr>,
    /// `None`: documents are not served, or on a socket alone.
    pub sync: Option<SocketAddr>,
    pub sync_uds: Option<PathBuf>,
}

/// The flags that a pod serves.
pub struct Flags {
    pub replica: Replica,
    pub environment: String,
    /// Of whoever keeps the replica up to date, for `/metrics`.
    pub following: Option<Arc<follow::Metrics>>,
}

/// What is done as flagd does it, by a process that stands in its place.
#[derive(Debug, Clone, Default)]
pub struct StandIn {
    /// Waits for what flags come from too.
    pub readiness: Readiness,
}

/// Loads the last good state, binds, follows the control plane, and returns once the addresses are bound. It ends with `shutdown`.
///
/// Threads that answer are its own; replication and management run on the runtime of the caller.
pub async fn start(args: Args, shutdown: Shutdown) -> anyhow::Result<Running> {
    let Args { upstream, serve: args } = args;
    let settings = settings(&upstream)?;
    let log = decisions::Place {
        pod: settings.identity.pod.clone(),
        environment: upstream.environment.clone(),
        salt_file: salt_file(&args, upstream.data.as_deref()),
    };
    let (data, environment) = (upstream.data.clone(), upstream.environment.clone());
    let if_held = if args.hand_over { IfHeld::WaitForIt } else { IfHeld::Refuse };
    let load = move || follow::load(data.as_deref(), VERSION, &environment, if_held, Arc::new(SystemClock::new()));
    let local = tokio::task::spawn_blocking(load).await.context("reading the last good state")??;
    let workers = Workers::start(args.threads).context("cannot start the threads that answer")?;
    let following = Some(Arc::clone(local.metrics()));
    let flags = Flags { replica: local.replica().clone(), environment: upstream.environment, following };
    let (environment, identity) = (settings.environment.clone(), settings.identity.clone());
    let (running, evidence, follower) = if args.hand_over && is_served(args.listen).await {
        // From here on connections come here too, and the other process still knows the flags.
        let follower = local.follow(settings);
        tokio::select! {
            () = until_usable(follower.replica()) => {}
            () = shutdown.requested() => {}
        }
        let (running, evidence) = serve_logging(&args, flags, &workers, shutdown.clone(), log, None).await?;
        (running, evidence, follower)
    } else {
        let (running, evidence) = serve_logging(&args, flags, &workers, shutdown.clone(), log, None).await?;
        (running, evidence, local.follow(settings))
    };
    let guards = evidence::guard(evidence.clone(), follower.uplink(), environment.clone(), identity.clone(), shutdown.clone());
    tokio::spawn(guards);
    let flush = shutdown.hold(Phase::Flush, "reports of evidence");
    tokio::spawn(evidence::report(evidence, follower.uplink(), environment, identity, shutdown.clone(), flush));
    end_with(follower, &shutdown);
    Ok(running)
}

fn settings(upstream: &Upstream) -> anyhow::Result<Settings> {
    let Upstream { control, environment, data: _, pod, namespace, node } = upstream;
    let parse = |url: &str| {
        let uri = url.trim().parse::<Uri>().ok().filter(|uri| uri.scheme_str() == Some("http") && uri.authority().is_some());
        uri.with_context(|| {
            format!("--control-plane `{url}` is no address of a control plane: expected http://HOST:PORT, several with commas")
        })
    };
    let pod = pod.clone().unwrap_or_else(host_name);
    Ok(Settings {
        control_planes: control.split(',').map(parse).collect::<anyhow::Result<_>>()?,
        environment: environment.clone(),
        identity: Identity {
            instance: format!("{:032x}", rand::random::<u128>()),
            pod,
            namespace: namespace.clone(),
            node: node.clone(),
            version: VERSION.to_owned(),
        },
        timing: Timing::default(),
    })
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "unnamed".to_owned(), |name| name.trim().to_owned())
}

/// Beside the last good state: whoever may read the log cannot look people up in it for that alone.
fn salt_file(args: &Serve, data: Option<&Path>) -> Option<PathBuf> {
    let decisions::Args { salt_file, dir, .. } = &args.decisions;
    salt_file.clone().or_else(|| data.or(dir.as_deref()).map(|directory| directory.join(decisions::SALT_FILE)))
}

/// Replication ends when answers are no longer given, and what came last is written before the process goes.
fn end_with(mut follower: Follower, shutdown: &Shutdown) {
    let (streams, flush) = (shutdown.hold(Phase::StopReplication, "replication"), shutdown.hold(Phase::Flush, "the last good state"));
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        shutdown.begun(Phase::StopReplication).await;
        follower.leave().await;
        drop(streams);
        follower.finish().await;
        drop(flush);
    });
}

/// Serves flags that somebody else keeps up to date. Several pods of one process may share their `workers`. Outcomes are attributed, and
/// reported to nobody.
pub async fn serve(args: &Serve, flags: Flags, workers: &Workers, shutdown: Shutdown) -> anyhow::Result<Running> {
    let log = decisions::Place { pod: host_name(), environment: flags.environment.clone(), salt_file: salt_file(args, None) };
    serve_logging(args, flags, workers, shutdown, log, None).await.map(|(running, _)| running)
}

/// The same with flagd's manners: 412 until it is ready, and flagd's names among the metrics.
pub async fn serve_in_place_of_flagd(
    args: &Serve,
    flags: Flags,
    workers: &Workers,
    shutdown: Shutdown,
    stand_in: StandIn,
) -> anyhow::Result<Running> {
    let log = decisions::Place { pod: host_name(), environment: flags.environment.clone(), salt_file: salt_file(args, None) };
    serve_logging(args, flags, workers, shutdown, log, Some(stand_in)).await.map(|(running, _)| running)
}

async fn serve_logging(
    args: &Serve,
    flags: Flags,
    workers: &Workers,
    shutdown: Shutdown,
    log: decisions::Place,
    stand_in: Option<StandIn>,
) -> anyhow::Result<(Running, Evidence)> {
    let Serve { listen, socket, management, ofrep, sync, sync_socket, cors_origins, hand_over, reflection, limits, decisions, .. } = args;
    let contexts = Contexts::of(args)?;
    let Flags { replica, environment, following } = flags;
    // Bound first: what cannot be had is said before anything runs.
    let home = workers.get(0).runtime().clone();
    let entered = home.enter();
    let take = if *hand_over { Take::Over } else { Take::Alone };
    let tcp = listen::tcp(*listen, "--listen", take)?;
    let unix = socket.as_deref().map(|path| listen::unix(path, "--socket", take)).transpose()?;
    let sync = sync.0.map(|address| listen::tcp(address, "--sync", take)).transpose()?;
    let sync_unix = sync_socket.as_deref().map(|path| listen::unix(path, "--sync-socket", take)).transpose()?;
    let ofrep = ofrep.0.map(|address| listen::tcp(address, "--ofrep", take)).transpose()?;
    drop(entered);
    let http = listen::tcp(*management, "--management", take)?;
    let (observer, scribe) = observe::start(decisions, log)?.unzip();
    let at = |listener: &Option<TcpListener>| listener.as_ref().map(TcpListener::local_addr).transpose();
    let running = Running {
        tcp: tcp.local_addr()?,
        uds: socket.clone(),
        management: http.local_addr()?,
        ofrep: at(&ofrep)?,
        sync: at(&sync)?,
        sync_uds: sync_socket.clone(),
    };

    let is_stand_in = stand_in.is_some();
    let StandIn { readiness } = stand_in.unwrap_or_default();
    tokio::spawn(usable(replica.clone(), readiness.token("flag state")));
    let press = Arc::new(Press::new(replica.clone(), environment.clone(), told(args)));
    let pod = Arc::new(Pod {
        replica,
        environment,
        shutdown: shutdown.clone(),
        readiness: readiness.clone(),
        connections: Places::new(limits.max_connections),
        watchers: Places::new(limits.max_watchers),
        lagged_watchers: AtomicU64::new(0),
        contexts,
        stream_deadline: args.stream_deadline,
        press: Arc::clone(&press),
        subscribers: Places::new(MAX_SUBSCRIBERS),
        observer,
        failed_handshakes: args.tls.as_ref().map(Tls::failures),
        cors: Cors::of(cors_origins),
        salt: rand::random(),
    });
    let desks: Vec<_> = (0..workers.count()).map(|_| Desk::of(&pod, is_stand_in)).collect();
    if let Some(scribe) = scribe {
        scribe.write(desks.clone(), &shutdown);
    }
    let evidence = Evidence::collect(desks.clone(), limits.max_tracked_units, shutdown.clone());
    let metrics = Arc::new(Metrics::new(Arc::clone(&pod), desks.clone(), following, Arc::clone(evidence.stats()), is_stand_in));
    let reporter = health::reporter().await;
    let others = Arc::new(health::services(&reporter, evidence.clone(), *reflection));

    let probed = if is_stand_in { health::flagds().await } else { reporter.clone() };
    for (number, desk) in desks.iter().enumerate() {
        workers.get(number).runtime().spawn(Arc::clone(desk).ring());
    }
    let enter = |door, protocol, places: &Arc<Places>| {
        let (pod, others) = (Arc::clone(&pod), Arc::clone(&others));
        Arc::new(Entrance { pod, desks: desks.clone(), others, door, protocol, places: Arc::clone(places), workers: workers.clone() })
    };
    if let Some(ofrep) = ofrep {
        let places = Places::new(MAX_OFREP_CONNECTIONS);
        home.spawn(enter(Door::Ofrep, Protocol::new(limits, MAX_OFREP_STREAMS), &places).accept(Listener::Tcp(ofrep)));
    }
    let sync: Vec<_> = sync.map(Listener::Tcp).into_iter().chain(sync_unix.map(Listener::Unix)).collect();
    if !sync.is_empty() {
        tokio::spawn(press.run(shutdown.clone()));
        let entrance = enter(Door::Sync, Protocol::new(limits, MAX_SYNC_STREAMS).over(args.tls.clone()), &Places::new(MAX_CONNECTIONS));
        sync.into_iter().for_each(|listener| _ = home.spawn(Arc::clone(&entrance).accept(listener)));
    }
    let entrance = enter(Door::Evaluation, Protocol::new(limits, MAX_STREAMS).over(args.tls.clone()), &pod.connections);
    for listener in std::iter::once(Listener::Tcp(tcp)).chain(unix.map(Listener::Unix)) {
        home.spawn(Arc::clone(&entrance).accept(listener));
    }
    if is_stand_in {
        tokio::spawn(health::report(probed.clone(), readiness.clone(), shutdown.clone()));
    }
    tokio::spawn(health::report(reporter, readiness, shutdown));
    let first_bytes = Duration::from_millis(limits.first_bytes_ms);
    tokio::spawn(management::serve(Listener::Tcp(http), pod, metrics, evidence.clone(), first_bytes, probed, is_stand_in));
    Ok((running, evidence))
}

/// Ready only with a state: from the control plane, or the last good one from disk.
async fn usable(replica: Replica, token: Token) {
    until_usable(&replica).await;
    token.done();
}

/// Whether somebody serves there, from whom it can be taken over. Without, nobody gains by waiting for flags before listening.
pub async fn is_served(address: SocketAddr) -> bool {
    address.port() != 0 && tokio::net::TcpStream::connect(address).await.is_ok()
}

/// Returns, or never: whoever waits holds the sender of the changes.
pub(super) async fn until_usable(replica: &Replica) {
    let mut changed = replica.changed();
    while !replica.is_usable() && changed.changed().await.is_ok() {}
}

/// What the sync service tells besides flags.
fn told(args: &Serve) -> Told {
    let Serve { context_values, sync_metadata, stream_deadline, .. } = args;
    let context = context_values.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    Told { context, has_metadata: *sync_metadata, stream_deadline: *stream_deadline }
}

/// Where connections come in and are given to the threads.
struct Entrance {
    pod: Arc<Pod>,
    /// By number of the thread.
    desks: Vec<Arc<Desk>>,
    others: Arc<Others>,
    door: Door,
    protocol: Protocol,
    places: Arc<Places>,
    workers: Workers,
}

impl Entrance {
    async fn accept(self: Arc<Self>, listener: Listener) {
        let shutdown = self.pod.shutdown.clone();
        // Shared by the connections: the shutdown drains until the last of them is gone.
        let hold = Arc::new(shutdown.hold(Phase::Drain, self.door.connections()));
        accept(listener, shutdown.requested(), |socket| {
            // Over the limit it is closed at once: waiting in the backlog would tell the peer nothing.
            let Some(place) = self.places.take() else { return };
            let number = self.workers.least_loaded();
            let occupied = self.workers.occupy(number);
            let (entrance, hold) = (Arc::clone(&self), Arc::clone(&hold));
            self.workers.get(number).runtime().spawn(async move {
                entrance.connection(socket, number).await;
                drop((place, occupied, hold));
            });
        })
        .await;
    }

    async fn connection(&self, socket: Socket, number: usize) {
        let router =
            Router { desk: Arc::clone(&self.desks[number]), others: Arc::clone(&self.others), door: self.door, is_encrypted: false };
        self.protocol.serve(socket, router).await;
    }
}

impl Door {
    /// What the shutdown waits for.
    fn connections(self) -> &'static str {
        match self {
            Self::Evaluation => "connections",
            Self::Sync => "sync connections",
            Self::Ofrep => "OFREP connections",
        }
    }
}
