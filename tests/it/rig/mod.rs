//! A control plane, sidecars and the network between them, in one process, each of which can be ended as if by kill -9.

pub mod proxy;
pub mod raw;
pub mod script;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::spawn_blocking;
use yardarm::clock::{Clock, SystemClock};
use yardarm::control::ledger::{Actor, Command, Committed, Retention};
use yardarm::control::publish::{self, Args, Publish};
use yardarm::control::store::{Embedded, Memory, Store};
use yardarm::control::{Fleet, Ledger};
use yardarm::flag::{Context, Position, Reason};
use yardarm::lifecycle::Shutdown;
use yardarm::replica::Replica;
use yardarm::replica::disk::{Error, IfHeld};
use yardarm::replica::follow::{self, Follower, Settings, Timing};
use yardarm::wire::replication::Identity;

pub const ENVIRONMENT: &str = "prod";
const THREAD: &str = "rig-";
/// Nothing here takes longer on the slowest machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for an event; says what was waited for when it does not come.
pub async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(happened) => happened,
        Err(_) => panic!("not within {} s: {what}", DEADLINE.as_secs()),
    }
}

/// Messages of the panics that threads of control planes and sidecars had since the tests began. The tasks of these threads may panic
/// without anybody hearing of it.
pub fn panics() -> Vec<String> {
    static HEARD: OnceLock<Arc<Mutex<Vec<String>>>> = OnceLock::new();
    let heard = HEARD.get_or_init(|| {
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let (note, before) = (heard.clone(), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name().is_some_and(|name| name.starts_with(THREAD)) {
                note.lock().unwrap().push(panic.to_string());
            }
            before(panic);
        }));
        heard
    });
    heard.lock().unwrap().clone()
}

/// For what announces itself to nobody: counters, and files that another task writes.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "not within {} s: {what}", DEADLINE.as_secs());
        // Another thread does the work meanwhile, and this one does not spin.
        spawn_blocking(|| std::thread::park_timeout(Duration::from_millis(2))).await.unwrap();
    }
}

pub struct Plane {
    pub ledger: Arc<Ledger>,
    pub fleet: Arc<Fleet>,
    pub address: SocketAddr,
    pub shutdown: Shutdown,
    runtime: Option<Runtime>,
}

/// How a control plane of a test differs from a real one.
#[derive(Clone)]
pub struct Plan {
    /// Where it listens; port 0 for any.
    pub address: SocketAddr,
    /// A store in this directory; in memory without one.
    pub data: Option<PathBuf>,
    pub retention: Retention,
    pub args: Args,
}

impl Default for Plan {
    fn default() -> Self {
        let args = Args { heartbeat_ms: 200, ..Args::default() };
        Self { address: "127.0.0.1:0".parse().unwrap(), data: None, retention: Retention::default(), args }
    }
}

impl Plane {
    pub async fn start() -> Self {
        Self::with(Plan::default()).await
    }

    pub async fn with(plan: Plan) -> Self {
        Self::serving(plan, |publish| publish).await
    }

    /// `wrap` may stand between the network and the service.
    pub async fn serving<S: Grpc>(plan: Plan, wrap: impl FnOnce(Publish) -> S + Send + 'static) -> Self {
        let runtime = runtime("control-plane");
        let shutdown = Shutdown::new();
        let ending = shutdown.clone();
        let started = runtime.spawn(async move {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
            let store: Arc<dyn Store> = match &plan.data {
                Some(dir) => Arc::new(Embedded::open(dir).unwrap()),
                None => Arc::new(Memory::new()),
            };
            let ledger = Ledger::open_with(store, clock.clone(), plan.retention).await.unwrap();
            if ledger.head(ENVIRONMENT).is_none() {
                let command = Command::CreateEnvironment { name: ENVIRONMENT.into() };
                ledger.commit(&Actor::new("rig"), "a test", command).await.unwrap();
            }
            let fleet = Fleet::new(clock.clone());
            let listener = TcpListener::bind(plan.address).await.unwrap();
            let address = listener.local_addr().unwrap();
            let service = wrap(publish::service(ledger.clone(), fleet.clone(), clock, plan.args, ending));
            tokio::spawn(serve(listener, service));
            (ledger, fleet, address)
        });
        let (ledger, fleet, address) = started.await.unwrap();
        Self { ledger, fleet, address, shutdown, runtime: Some(runtime) }
    }

    pub async fn commit(&self, command: Command) -> Committed {
        self.ledger.commit(&Actor::new("ana"), "because", command).await.unwrap()
    }

    /// `on` is served.
    pub async fn put(&self, key: &str) -> Position {
        self.apply(&flag(key, "")).await
    }

    pub async fn apply(&self, document: &str) -> Position {
        let command = Command::Apply { environment: ENVIRONMENT.into(), document: document.to_owned(), expect: None };
        self.commit(command).await.position
    }

    pub async fn kill(&self, key: &str) -> Position {
        self.commit(Command::Kill { environment: ENVIRONMENT.into(), flag: key.into() }).await.position
    }

    pub async fn restore(&self, key: &str) -> Position {
        let (environment, flag) = (ENVIRONMENT.into(), key.into());
        self.commit(Command::Restore { environment, flag, percent: None, expect: None }).await.position
    }

    pub fn head(&self) -> Position {
        self.ledger.head(ENVIRONMENT).unwrap().borrow().position
    }

    /// Every connection breaks, and nothing that runs is finished.
    pub async fn crash(mut self) {
        end(self.runtime.take()).await;
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A service over HTTP/2.
pub trait Grpc:
    tower::Service<Request<Incoming>, Response = Response<tonic::body::Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> Grpc for S where
    S: tower::Service<Request<Incoming>, Response = Response<tonic::body::Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

pub async fn serve(listener: TcpListener, service: impl Grpc) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
    }
}

/// A document with one flag; `note` makes another definition of it.
pub fn flag(key: &str, note: &str) -> String {
    format!(
        r#"{{"flags":{{"{key}":{{"description":"{note}","variants":{{"on":true,"off":false}},"defaultVariant":"on","offVariant":"off"}}}}}}"#
    )
}

/// Flags whose definitions do not compress: about `bytes` of them in all.
pub fn bulky(flags: usize, bytes: usize) -> String {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut noise = |length: usize| -> String {
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            format!("{seed:016x}")
        };
        (0..length.div_ceil(16)).map(|_| next()).collect()
    };
    let body: Vec<_> = (0..flags)
        .map(|number| {
            let text = noise(bytes / flags);
            format!(r#""bulky-{number}":{{"variants":{{"on":"{text}","off":""}},"defaultVariant":"on","offVariant":"off"}}"#)
        })
        .collect();
    format!(r#"{{"flags":{{{}}}}}"#, body.join(","))
}

pub struct Sidecar {
    pub replica: Replica,
    follower: Option<Follower>,
    runtime: Option<Runtime>,
}

pub fn identity(pod: &str) -> Identity {
    let instance = format!("{pod}-{:016x}", rand::random::<u64>());
    Identity { instance, pod: pod.into(), namespace: "shop".into(), node: "node-1".into(), version: "test".into() }
}

impl Sidecar {
    pub async fn start(pod: &str, control_plane: SocketAddr) -> Self {
        Self::with(pod, control_plane, None).await
    }

    pub async fn with(pod: &str, control_plane: SocketAddr, data: Option<&Path>) -> Self {
        let timing = Timing { poll_after: Duration::from_millis(300), poll_every: Duration::from_millis(200) };
        let address = format!("http://{control_plane}").parse().unwrap();
        let settings = Settings { control_planes: vec![address], environment: ENVIRONMENT.into(), identity: identity(pod), timing };
        Self::following(settings, data).await
    }

    pub async fn following(settings: Settings, data: Option<&Path>) -> Self {
        let runtime = runtime(&settings.identity.pod);
        let data = data.map(Path::to_owned);
        let following = runtime.spawn(async move {
            // A process that another test starts has a copy of the lock of the process before this one until it is another program.
            let loaded = Mutex::new(None);
            until("the data directory is free", || {
                let load = follow::load(data.as_deref(), "test", &settings.environment, IfHeld::Refuse, Arc::new(SystemClock::new()));
                let is_free = !matches!(load, Err(Error::Locked { .. }));
                *loaded.lock().unwrap() = Some(load);
                is_free
            })
            .await;
            let local = loaded.into_inner().unwrap().expect("it was tried").unwrap();
            let replica = local.replica().clone();
            (replica, local.follow(settings))
        });
        let (replica, follower) = following.await.unwrap();
        Self { replica, follower: Some(follower), runtime: Some(runtime) }
    }

    pub fn follower(&self) -> &Follower {
        self.follower.as_ref().unwrap()
    }

    pub fn metrics(&self) -> &Arc<follow::Metrics> {
        self.follower().metrics()
    }

    pub async fn is_at(&self, position: Position) {
        self.sees(&format!("position {position}"), |replica| replica.position() == position).await;
    }

    /// Waits until readers see something.
    pub async fn sees(&self, what: &str, condition: impl Fn(&Replica) -> bool) {
        within(what, async {
            let mut changed = self.replica.changed();
            while !condition(&self.replica) {
                changed.changed().await.unwrap();
            }
        })
        .await;
    }

    pub async fn sees_killed(&self, key: &str) {
        self.sees(&format!("`{key}` is killed"), |replica| is_killed(replica, key)).await;
    }

    pub fn serves(&self, key: &str) -> Option<(String, Reason)> {
        serves(&self.replica, key)
    }

    /// Says goodbye and writes what it owes the disk.
    pub async fn stop(mut self) {
        let follower = self.follower.take().unwrap();
        let finished = self.runtime.as_ref().unwrap().spawn(follower.finish());
        within("the sidecar ends", finished).await.unwrap();
        end(self.runtime.take()).await;
    }

    /// No goodbye, nothing more on disk.
    pub async fn crash(mut self) {
        drop(self.follower.take());
        end(self.runtime.take()).await;
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub fn serves(replica: &Replica, key: &str) -> Option<(String, Reason)> {
    let flag = replica.with(key, |held| held.map(|held| held.flag.clone()))?;
    let decision = flag.decide(&Context::new("user-1"), &replica.lookup());
    Some((decision.variant?.name.clone(), decision.reason))
}

pub fn is_killed(replica: &Replica, key: &str) -> bool {
    serves(replica, key) == Some(("off".into(), Reason::Killed))
}

fn runtime(name: &str) -> Runtime {
    panics();
    Builder::new_multi_thread().worker_threads(1).thread_name(format!("{THREAD}{name}")).enable_all().build().unwrap()
}

/// Returns when its threads are gone, and with them its locks and sockets.
async fn end(runtime: Option<Runtime>) {
    let runtime = runtime.unwrap();
    spawn_blocking(move || runtime.shutdown_timeout(DEADLINE)).await.unwrap();
}
