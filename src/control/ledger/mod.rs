//! The only path to a write: parse, compile and validate first; commit the change, its entry in the change log and its audit record in one
//! transaction; and only when that is durable let the world see it.
//!
//! The state of every environment is held in memory and changed in place, so that a change of one flag costs the same among ten as among
//! ten thousand. Commands are carried out one at a time, in the order in which they came; a kill goes ahead of everything that waits. Two
//! control planes on one store are safe: the store's version guards each commit, and whoever comes second reads again.

mod alert;
mod authorize;
mod command;
mod commit;
mod draft;
mod environment;
mod error;
mod history;
mod hook;
mod links;
mod load;
mod log;
mod misread;
mod plan;
mod push;
mod restore;
mod rollout;
mod trip;
mod turn;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::audit::ChainHead;
use super::store::{self, Store};
use crate::clock::Clock;
use crate::flag::{Delta, Item, ItemKind, ItemName, Kill, Position, Revision, State};

pub use alert::{Alert, AlertState, Verdict};
pub use command::{Actor, Command, Committed, Head, ItemChange};
pub use error::{Conflicting, Error};
pub use history::{HistoryEntry, Replay};
pub use hook::{Alerted, FLAG_HOOKS, HookName, ListedHook, MAX_AGE, MIN_AGE, NewHook};
pub use log::Retention;
pub use push::PushedMetric;
pub use restore::Restored;
pub use rollout::{Decided, Rollout};

use environment::Environment;
use turn::Turns;

pub struct Ledger {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    retention: Retention,
    environments: RwLock<BTreeMap<String, Arc<Shared>>>,
    turns: Arc<Turns>,
    /// Changed only by whoever has the turn.
    tail: Mutex<Tail>,
}

/// An environment and those who follow it.
struct Shared {
    state: RwLock<Environment>,
    head: watch::Sender<Head>,
}

/// What the next commit continues.
#[derive(Debug, Clone, Copy)]
struct Tail {
    version: store::Version,
    chain: ChainHead,
    /// The store may hold more than the memory: another process wrote, or a commit ended in an error that says neither yes nor no.
    is_doubtful: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentInfo {
    pub name: String,
    pub position: Position,
    pub flags: usize,
    pub segments: usize,
}

/// A flag or segment as it is, or as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub item: Item,
    /// Set while the flag is killed; never of an earlier revision.
    pub kill: Option<Kill>,
}

impl Ledger {
    /// Reads everything that the store holds.
    pub async fn open(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Arc<Self>, Error> {
        Self::open_with(store, clock, Retention::default()).await
    }

    pub async fn open_with(store: Arc<dyn Store>, clock: Arc<dyn Clock>, retention: Retention) -> Result<Arc<Self>, Error> {
        let (environments, turns) = (RwLock::default(), Arc::new(Turns::default()));
        let tail = Mutex::new(Tail { version: 0, chain: ChainHead::NONE, is_doubtful: true });
        let ledger = Arc::new(Self { store, clock, retention, environments, turns, tail });
        ledger.refresh().await?;
        Ok(ledger)
    }

    /// By name.
    pub fn environments(&self) -> Vec<EnvironmentInfo> {
        let info = |(name, shared): (&String, &Arc<Shared>)| {
            let state = shared.state.read();
            let (flags, segments) = (state.totals.flags, state.totals.segments);
            EnvironmentInfo { name: name.clone(), position: state.head.position, flags, segments }
        };
        self.environments.read().iter().map(info).collect()
    }

    /// Follows an environment. The channel closes when the environment is gone: a restored backup did not have it.
    pub fn head(&self, environment: &str) -> Option<watch::Receiver<Head>> {
        self.shared(environment).map(|shared| shared.head.subscribe())
    }

    /// Everything that the environment holds. The definitions are shared, not copied.
    pub fn state(&self, environment: &str) -> Option<State> {
        let look = |state: &Environment| {
            let items: Vec<Arc<Item>> = state.items.values().cloned().collect();
            (state.head, items, state.kills.values().cloned().collect())
        };
        let (Head { position, digest, origin_time_us }, items, kills) = self.read(environment, look)?;
        // Copied after the look, which holds up the next change.
        let items = items.into_iter().map(Arc::unwrap_or_clone).collect();
        Some(State { position, items, kills, digest, origin_time_us })
    }

    /// One step from `from` to the later `to`, both of the present epoch: the latest state of every key that changed between them. `None`
    /// when there is no such step: the log does not reach back to `from` or not on to `to`, or it no longer knows what was at `to`.
    /// The reader then needs a snapshot.
    pub fn delta(&self, environment: &str, from: Revision, to: Revision) -> Result<Option<Delta>, Error> {
        let delta = |state: &Environment| state.log.delta(state.head.position.epoch, from, to, |name| state.items.get(name));
        self.read(environment, delta).ok_or_else(|| self.unknown_environment(environment))
    }

    /// Kills that stand, newest first.
    pub fn kills(&self, environment: &str) -> Vec<Kill> {
        self.read(environment, Environment::kills_newest_first).unwrap_or_default()
    }

    /// The newest register, killed or restored, of each flag whose register was written after `after`, newest first. When the log does
    /// not reach back to `after`: the kills that stand.
    pub fn kills_after(&self, environment: &str, after: Revision) -> Vec<Kill> {
        let kills = |state: &Environment| state.log.kills_after(after).unwrap_or_else(|| state.kills_newest_first());
        self.read(environment, kills).unwrap_or_default()
    }

    /// An item as it is.
    pub fn get(&self, environment: &str, item: &ItemName) -> Result<(Position, Found), Error> {
        let found =
            |state: &Environment| Ok((state.head.position, found(state, item).ok_or_else(|| unknown_item(environment, state, item))?));
        self.read(environment, found).ok_or_else(|| self.unknown_environment(environment))?
    }

    /// All items of a kind that `select` takes, by key.
    pub fn list(&self, environment: &str, kind: ItemKind, select: impl Fn(&Item) -> bool) -> Result<(Position, Vec<Found>), Error> {
        let look = |state: &Environment| {
            let items = state.items.values().filter(|item| item.name.kind == kind && select(item));
            let items: Vec<_> = items.map(|item| (Arc::clone(item), kill_of(state, &item.name))).collect();
            (state.head.position, items)
        };
        let (position, items) = self.read(environment, look).ok_or_else(|| self.unknown_environment(environment))?;
        let found = |(item, kill)| Found { item: Arc::unwrap_or_clone(item), kill };
        Ok((position, items.into_iter().map(found).collect()))
    }

    /// By the ledger's clock: Unix time, microseconds.
    pub fn now_us(&self) -> i64 {
        self.clock.now_us()
    }

    /// Commands that wait for their turn.
    pub fn waiting(&self) -> usize {
        self.turns.waiting()
    }

    fn shared(&self, environment: &str) -> Option<Arc<Shared>> {
        self.environments.read().get(environment).cloned()
    }

    fn read<T>(&self, environment: &str, look: impl FnOnce(&Environment) -> T) -> Option<T> {
        self.shared(environment).map(|shared| look(&shared.state.read()))
    }

    fn unknown_environment(&self, name: &str) -> Error {
        let known = self.environments.read();
        Error::UnknownEnvironment { name: name.to_owned(), nearest: error::nearest(name, known.keys().map(String::as_str)) }
    }
}

fn found(state: &Environment, name: &ItemName) -> Option<Found> {
    let item = Item::clone(state.items.get(name)?);
    Some(Found { item, kill: kill_of(state, name) })
}

fn kill_of(state: &Environment, name: &ItemName) -> Option<Kill> {
    (name.kind == ItemKind::Flag).then(|| state.kills.get(&name.key).cloned()).flatten()
}

fn unknown_item(environment: &str, state: &Environment, item: &ItemName) -> Error {
    let nearest = error::nearest(&item.key, state.keys(item.kind));
    Error::UnknownItem { environment: environment.to_owned(), item: item.clone(), nearest }
}
