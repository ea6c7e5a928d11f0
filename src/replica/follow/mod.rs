//! Follows the control plane: what it says is applied, acknowledged and kept on disk; whatever becomes of it, what is held is served.
//!
//! Four tasks. One listens to the log, one to the kill lane, one asks now and then while there is no stream; all of them hand what they
//! hear to the fourth, the only one that changes the replica and the disk. They run on the runtime that [`Local::follow`] is called on,
//! which should not be the one that answers applications.

mod board;
mod link;
mod metrics;
mod owner;
mod poll;
mod saver;
mod snapshot;
mod stream;
mod tidy;
mod urgent;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Uri;
use rand::Rng as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::clock::Clock;
use crate::wire::replication::Identity;
use crate::wire::trip::Trip;

use super::disk::{self, Disk, Found, Generation, Guard, IfHeld, Suspected};
use super::{Replica, Writer};

pub use metrics::{BOUNDS_US, Ended, Histogram, Lane, Metrics};

use board::Board;
use link::Link;
use owner::{FromGuards, Owner};
use saver::Saver;

/// A control plane that is not heard for so many of its heartbeats is taken for lost.
const LOST_AFTER_HEARTBEATS: u32 = 3;
/// What is believed before the control plane has said it.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// For the goodbye to arrive and be answered.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// Between the streams and the owner: enough to overlap reading with applying, not enough to hide that the owner is busy.
const LOG_QUEUE: usize = 4;
const KILL_QUEUE: usize = 256;
const GUARD_QUEUE: usize = 16;
/// Looks whether a data directory is free that another process is about to leave.
const TRY_EVERY: Duration = Duration::from_millis(50);

/// Whom to follow, and as whom.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Addresses of the control plane, tried in turn; at least one.
    pub control_planes: Vec<Uri>,
    pub environment: String,
    pub identity: Identity,
    pub timing: Timing,
}

#[derive(Debug, Clone)]
pub struct Timing {
    /// Without a stream for this long, polls begin.
    pub poll_after: Duration,
    /// Between two polls, more or less a half.
    pub poll_every: Duration,
}

/// A replica with what was on disk in it, not yet following anybody.
pub struct Local {
    replica: Replica,
    writer: Writer,
    disk: Option<Disk>,
    guard: Option<Guard>,
    awaited: Option<Awaited>,
    metrics: Arc<Metrics>,
}

/// A data directory that another sidecar used.
struct Inheritance {
    disk: Disk,
    guard: Guard,
    last: Option<Generation>,
}

/// A data directory that another sidecar still uses.
struct Awaited {
    dir: PathBuf,
    version: String,
    environment: String,
}

/// Follows until it is told to leave. Dropping it is like the end of the process: no goodbye, and nothing more is written.
pub struct Follower {
    following: Arc<Following>,
    streams: JoinSet<()>,
    owner: JoinHandle<()>,
}

/// The connection to the control plane, for what else a sidecar has to tell it. Clones are the same.
#[derive(Clone)]
pub struct Uplink(Arc<Following>);

/// What the tasks share.
struct Following {
    settings: Settings,
    replica: Replica,
    link: Link,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    state: watch::Sender<LinkState>,
    started: Instant,
    guards: mpsc::Sender<FromGuards>,
    leaving: CancellationToken,
}

#[derive(Debug, Clone, Copy)]
struct LinkState {
    /// `None` while a stream is open.
    down_since: Option<Instant>,
    heartbeat: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { poll_after: Duration::from_secs(10), poll_every: Duration::from_secs(5) }
    }
}

/// Reads the last good state of an environment, so that a sidecar can serve before it has reached anybody. Without a directory nothing is
/// kept. Blocks for as long as the disk takes; `version` is that of the program.
pub fn load(data: Option<&Path>, version: &str, environment: &str, if_held: IfHeld, clock: Arc<dyn Clock>) -> Result<Local, disk::Error> {
    let (replica, writer) = Replica::new(clock);
    let mut local = Local { replica, writer, disk: None, guard: None, awaited: None, metrics: Arc::default() };
    let Some(dir) = data else { return Ok(local) };
    match Disk::open(dir, version, environment) {
        Ok((disk, guard, found)) => {
            (local.disk, local.guard) = (Some(disk), Some(guard));
            local.take(dir, found);
        }
        Err(disk::Error::Locked { .. }) if if_held == IfHeld::WaitForIt => {
            tracing::info!(dir = %dir.display(), "another sidecar uses the data directory: its state is served, and the directory kept once it has ended");
            local.take(dir, Disk::peek(dir, environment));
            local.awaited = Some(Awaited { dir: dir.to_owned(), version: version.to_owned(), environment: environment.to_owned() });
        }
        Err(error) => return Err(error),
    }
    Ok(local)
}

impl Local {
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Begins to follow. Must be called inside a runtime.
    pub fn follow(self, settings: Settings) -> Follower {
        let Self { replica, writer, disk, guard, awaited, metrics } = self;
        let board = Arc::new(Board::new(replica.clone()));
        let link = Link::new(&settings.control_planes, rand::rng().random_range(0..settings.control_planes.len().max(1)));
        let state = watch::Sender::new(LinkState { down_since: Some(Instant::now()), heartbeat: HEARTBEAT });
        let leaving = CancellationToken::new();
        let (guards, from_guards) = mpsc::channel(GUARD_QUEUE);
        let (board_of, metrics_of, started) = (board.clone(), metrics.clone(), Instant::now());
        let following =
            Arc::new(Following { settings, replica, link, board: board_of, metrics: metrics_of, state, started, guards, leaving });
        let (log, from_log) = mpsc::channel(LOG_QUEUE);
        let (kills, from_lane) = mpsc::channel(KILL_QUEUE);
        let owner = Owner::new(writer, board, metrics.clone(), Saver::new(disk, metrics), guard);
        let (inherit, inherited) = oneshot::channel();
        let owner = tokio::spawn(owner.run(from_lane, from_guards, from_log, inherited));
        let mut streams = JoinSet::new();
        if let Some(awaited) = awaited {
            streams.spawn(awaited.inherit(following.leaving.clone(), inherit));
        }
        streams.spawn(stream::run(following.clone(), log.clone()));
        streams.spawn(poll::run(following.clone(), log));
        streams.spawn(urgent::run(following.clone(), kills));
        Follower { following, streams, owner }
    }

    fn take(&mut self, dir: &Path, Found { generation, damaged, foreign, suspected }: Found) {
        self.metrics.damaged_files.store(damaged.len() as u64, Ordering::Relaxed);
        let dir = dir.display().to_string();
        for (path, damage) in &damaged {
            let path = path.display().to_string();
            tracing::error!(path, reason = %damage, "a state file is damaged and not believed");
        }
        for (path, environment) in &foreign {
            let path = path.display().to_string();
            tracing::warn!(path, environment, "a state file is of another environment: what it holds is not served");
        }
        let Some(generation) = generation else {
            if !damaged.is_empty() {
                tracing::error!(dir, "no state file can be believed: starting empty, not ready before the control plane answers");
            }
            return;
        };
        if !damaged.is_empty() {
            tracing::warn!(dir, position = %generation.saved.state.position, "serving the previous generation of the last good state");
        }
        let is_served = self.apply(&dir, generation);
        if !is_served
            && suspected.is_none()
            && let Some(other) = self.disk.as_mut().and_then(Disk::fall_back)
        {
            tracing::warn!(dir, position = %other.saved.state.position, "trying the previous generation of the last good state");
            self.apply(&dir, other);
        }
        if let Some(Suspected { suspect, newest }) = suspected {
            let (from, to) = (suspect.from, suspect.to);
            tracing::error!(from, to, "no process lived for long after it had applied these revisions: what they changed is refused");
            self.writer.refuse(suspect.epoch, suspect.revisions());
            if let Some(newest) = newest {
                self.apply(&dir, newest);
            }
        }
    }

    /// Whether it is served.
    fn apply(&mut self, dir: &str, Generation { saved, fresh_us, .. }: Generation) -> bool {
        match self.writer.load(saved, fresh_us) {
            Ok(applied) => {
                let (flags, age_s) = (self.replica.len(), self.replica.age().as_secs());
                tracing::info!(dir, position = %applied.position, flags, age_s, "serving the last good state");
            }
            Err(reason) => {
                tracing::error!(dir, %reason, "the last good state does not fit together and is not served");
                return false;
            }
        }
        true
    }
}

impl Awaited {
    /// Until the directory is free, and then with what the other process wrote last: it may be news. Who leaves before looks once more: what it
    /// holds is to be there for the next one.
    async fn inherit(self, leaving: CancellationToken, to: oneshot::Sender<Inheritance>) {
        loop {
            let is_last = leaving.is_cancelled();
            match Disk::open(&self.dir, &self.version, &self.environment) {
                Ok((disk, guard, found)) => {
                    tracing::info!(dir = %self.dir.display(), "the data directory was taken over");
                    // An owner that has ended keeps nothing.
                    let _ = to.send(Inheritance { disk, guard, last: found.generation });
                    return;
                }
                Err(disk::Error::Locked { .. }) if !is_last => {}
                Err(error) => {
                    tracing::error!(%error, "the data directory cannot be taken over: nothing is kept on disk");
                    return;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(TRY_EVERY) => {}
                () = leaving.cancelled() => {}
            }
        }
    }
}

impl Uplink {
    /// As replication has it now; it is another one after that was lost.
    pub fn channel(&self) -> Channel {
        self.0.link.channel()
    }

    pub fn replica(&self) -> &Replica {
        &self.0.replica
    }

    /// No stream is open, and no word of the control plane came another way for as long as a stream may be silent.
    pub fn is_out_of_reach(&self) -> bool {
        let LinkState { down_since, heartbeat } = *self.0.state.borrow();
        // What was loaded from disk may be of yesterday, and the control plane a moment away.
        let silence = self.0.replica.age().min(self.0.started.elapsed());
        down_since.is_some() && silence >= heartbeat * LOST_AFTER_HEARTBEATS
    }

    /// Kills a flag for this pod, unless the control plane is back.
    pub async fn trip(&self, trip: Trip) {
        // An owner that has ended needs no word.
        let _ = self.0.guards.send(FromGuards::Trip(trip)).await;
    }

    /// The control plane said that the trip is obsolete.
    pub async fn lift(&self, trip: Trip) {
        let _ = self.0.guards.send(FromGuards::Lift(trip)).await;
    }
}

impl Follower {
    pub fn uplink(&self) -> Uplink {
        Uplink(Arc::clone(&self.following))
    }

    pub fn replica(&self) -> &Replica {
        &self.following.replica
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.following.metrics
    }

    /// Whether a stream is open; wakes when that changes.
    pub fn is_connected(&self) -> bool {
        self.following.state.borrow().down_since.is_none()
    }

    /// Returns once a stream is open.
    pub async fn connected(&self) {
        // The sender lives as long as this.
        let _ = self.following.state.subscribe().wait_for(|state| state.down_since.is_none()).await;
    }

    /// Says goodbye and ends the streams. What is held is still served. Takes about a second at most.
    pub async fn leave(&mut self) {
        self.following.leaving.cancel();
        while self.streams.join_next().await.is_some() {}
    }

    /// Leaves, and returns when everything that was applied is on disk.
    pub async fn finish(mut self) {
        self.leave().await;
        if let Err(error) = (&mut self.owner).await {
            tracing::error!(%error, "the task that applies changes failed: the last of them may not be on disk");
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.owner.abort();
    }
}

impl Following {
    fn up(&self, heartbeat: Duration) {
        self.metrics.connected.store(true, Ordering::Relaxed);
        self.state.send_replace(LinkState { down_since: None, heartbeat });
    }

    fn down(&self) {
        self.metrics.connected.store(false, Ordering::Relaxed);
        self.state.send_modify(|state| {
            state.down_since.get_or_insert_with(Instant::now);
        });
    }

    fn heartbeat(&self) -> Duration {
        self.state.borrow().heartbeat
    }

    /// Returns when the goodbye has had its time.
    async fn left(&self) {
        self.leaving.cancelled().await;
        tokio::time::sleep(GOODBYE_WITHIN).await;
    }
}

/// What the control plane says of its heartbeat, within reason.
fn heartbeat(ms: u32) -> Duration {
    const SHORTEST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_secs(60);
    if ms == 0 { HEARTBEAT } else { Duration::from_millis(ms.into()).clamp(SHORTEST, LONGEST) }
}
