//! Tells every sidecar: the Replication service.
//!
//! A session is a cursor into what was encoded once for all: it is asked for its next frame only when the connection can take one, so that
//! a reader that does not read costs two frames and delays nobody. What it missed meanwhile comes as one change, each key in its latest
//! state.

mod feed;
mod fetch;
mod gate;
mod hear;
mod ring;
mod service;
mod session;
mod slots;
mod snapshot;
mod urgent;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng as _;
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Status;

use crate::clock::Clock;
use crate::lifecycle::Shutdown;

use super::{Fleet, Ledger};

pub use service::Publish;

use feed::Feed;
use gate::{Gate, Window, spread};
use slots::Slots;

/// How sidecars are told.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Milliseconds between two signs of life to each sidecar, more or less a fifth; a sidecar that hears nothing for three of them connects anew
    #[arg(long, value_name = "MS", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(20..=60_000))]
    pub heartbeat_ms: u32,

    /// Sidecars that may connect per second; the others are told when to come back
    #[arg(long, value_name = "SESSIONS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    pub sessions_per_second: u32,

    /// Sidecars that may be connected at a time
    #[arg(long, value_name = "SESSIONS", default_value_t = 50_000)]
    pub max_sessions: usize,

    /// Sidecars that are sent a snapshot at a time
    #[arg(long, value_name = "SESSIONS", default_value_t = 64)]
    pub snapshot_senders: usize,
}

/// What all sessions have in common.
struct Hub {
    ledger: Arc<Ledger>,
    fleet: Arc<Fleet>,
    clock: Arc<dyn Clock>,
    args: Args,
    shutdown: Shutdown,
    feeds: Mutex<HashMap<String, Arc<Feed>>>,
    gate: Mutex<Gate>,
    slots: Mutex<Slots>,
    slot_released: Notify,
    sessions: AtomicUsize,
    session_ids: AtomicU64,
}

impl Default for Args {
    fn default() -> Self {
        Self { heartbeat_ms: 5_000, sessions_per_second: 500, max_sessions: 50_000, snapshot_senders: 64 }
    }
}

/// The service, for a tonic router or any other HTTP/2 server. With `shutdown` every sidecar is told when to come back.
pub fn service(ledger: Arc<Ledger>, fleet: Arc<Fleet>, clock: Arc<dyn Clock>, args: Args, shutdown: Shutdown) -> Publish {
    let gate = Mutex::new(Gate::new(args.sessions_per_second, clock.now_us()));
    let slots = Mutex::new(Slots::new(args.snapshot_senders));
    let (feeds, slot_released, sessions, session_ids) = Default::default();
    Publish::of(Hub { ledger, fleet, clock, args, shutdown, feeds, gate, slots, slot_released, sessions, session_ids })
}

/// NOT_FOUND, with the name that was probably meant.
pub fn unknown_environment(ledger: &Ledger, name: &str) -> Status {
    let environments = ledger.environments();
    let alike = |known: &str| strsim::jaro_winkler(known, name);
    let nearest = environments.iter().map(|known| known.name.as_str()).max_by(|one, other| alike(one).total_cmp(&alike(other)));
    let hint = match nearest {
        Some(known) if alike(known) > 0.7 => format!("; did you mean `{known}`?"),
        Some(known) if environments.len() == 1 => format!("; there is only `{known}`"),
        _ => String::new(),
    };
    Status::not_found(format!("there is no environment `{name}`{hint}"))
}

impl Hub {
    fn feed(&self, environment: &str) -> Result<Arc<Feed>, Status> {
        let mut feeds = self.feeds.lock();
        if let Some(feed) = feeds.get(environment) {
            if !feed.is_gone() {
                return Ok(feed.clone());
            }
            feeds.remove(environment);
        }
        let feed = Feed::open(&self.ledger, &self.clock, environment).ok_or_else(|| unknown_environment(&self.ledger, environment))?;
        feeds.insert(environment.to_owned(), feed.clone());
        Ok(feed)
    }

    /// Counts a session for as long as the answer lives, or says when to come back.
    fn admit(self: &Arc<Self>) -> Result<Admission, (Window, &'static str)> {
        if self.shutdown.is_requested() {
            return Err((self.everybody(), "the control plane is shutting down"));
        }
        if self.sessions.load(Ordering::Relaxed) >= self.args.max_sessions {
            return Err((self.everybody(), "too many sidecars are connected"));
        }
        self.gate.lock().admit(self.clock.now_us()).map_err(|window| (window, "too many sidecars connect at a time"))?;
        self.sessions.fetch_add(1, Ordering::Relaxed);
        Ok(Admission { hub: self.clone(), id: self.session_ids.fetch_add(1, Ordering::Relaxed) })
    }

    /// A window for all who are connected now.
    fn everybody(&self) -> Window {
        spread(self.sessions.load(Ordering::Relaxed) as u64, self.args.sessions_per_second)
    }

    /// Sidecars of an environment, those that are missed included.
    fn pods(&self, environment: &str) -> u32 {
        u32::try_from(self.fleet.count(environment)).unwrap_or(u32::MAX)
    }

    /// When the next sign of life is due: spread, so that sessions that began together do not beat together.
    fn next_beat(&self) -> Instant {
        let share = rand::rng().random_range(0.8..=1.2);
        Instant::now() + Duration::from_millis(self.args.heartbeat_ms.into()).mul_f64(share)
    }
}

/// One connected sidecar.
struct Admission {
    hub: Arc<Hub>,
    id: u64,
}

impl Admission {
    /// Takes or keeps a place among the senders of snapshots.
    fn may_send_snapshot(&self) -> bool {
        self.hub.slots.lock().take(self.id, Instant::now())
    }

    fn snapshot_sent(&self) {
        self.hub.slots.lock().release(self.id);
        self.hub.slot_released.notify_one();
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.hub.sessions.fetch_sub(1, Ordering::Relaxed);
        self.snapshot_sent();
    }
}
