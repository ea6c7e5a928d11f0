//! A ledger under test, its clock, and a store that can be made to wait and to fail.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;
use yardarm::clock::{Clock, ManualClock};
use yardarm::control::Ledger;
use yardarm::control::ledger::{Actor, Command, Committed, Error, Retention};
use yardarm::control::store::{self, Batch, Memory, Store, Version, View};
use yardarm::flag::{ItemName, Revision};

pub const ENVIRONMENT: &str = "prod";
/// What a test waits for comes within this, or never.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The first instant of the manual clock: 2026-11-21.
pub const START_US: i64 = 1_795_219_200_000_000;

/// A ledger with one environment, which creation left at revision 1.
#[derive(Clone)]
pub struct World {
    pub ledger: Arc<Ledger>,
    pub clock: Arc<ManualClock>,
    pub store: Arc<dyn Store>,
}

impl World {
    pub async fn new() -> Self {
        Self::on(Arc::new(Memory::new()), Retention::default()).await
    }

    pub async fn on(store: Arc<dyn Store>, retention: Retention) -> Self {
        let world = Self::open(store, retention).await;
        world.commit(Command::CreateEnvironment { name: ENVIRONMENT.into() }).await.unwrap();
        world
    }

    pub async fn open(store: Arc<dyn Store>, retention: Retention) -> Self {
        let clock = Arc::new(ManualClock::at(START_US));
        let ledger = Ledger::open_with(Arc::clone(&store), Arc::clone(&clock) as Arc<dyn Clock>, retention).await.unwrap();
        Self { ledger, clock, store }
    }

    /// The same store, as a process that starts finds it.
    pub async fn reopened(&self) -> Self {
        Self::open(Arc::clone(&self.store), Retention::default()).await
    }

    pub async fn commit(&self, command: Command) -> Result<Committed, Error> {
        self.commit_as("ana", command).await
    }

    pub async fn commit_as(&self, actor: &str, command: Command) -> Result<Committed, Error> {
        timeout(PATIENCE, self.ledger.commit(&Actor::new(actor), "because", command)).await.expect("a commit ends")
    }

    /// Flags and segments in YAML's flow style, without the outer braces. Answers the revision.
    pub async fn apply(&self, document: &str) -> Revision {
        self.commit(apply(document)).await.unwrap().position.revision
    }

    pub async fn kill(&self, flag: &str) -> Revision {
        self.commit(kill(flag)).await.unwrap().position.revision
    }

    pub fn revision(&self) -> Revision {
        self.ledger.head(ENVIRONMENT).unwrap().borrow().position.revision
    }

    /// Canonical JSON of a flag as it is.
    pub fn definition(&self, flag: &str) -> String {
        let (_, found) = self.ledger.get(ENVIRONMENT, &ItemName::flag(flag)).unwrap();
        String::from_utf8(found.item.definition.to_vec()).unwrap()
    }

    pub fn is_killed(&self, flag: &str) -> bool {
        self.ledger.get(ENVIRONMENT, &ItemName::flag(flag)).unwrap().1.kill.is_some()
    }
}

pub fn apply(document: &str) -> Command {
    Command::Apply { environment: ENVIRONMENT.into(), document: format!("{{ {document} }}"), expect: None }
}

pub fn apply_expecting(document: &str, expect: Revision) -> Command {
    Command::Apply { environment: ENVIRONMENT.into(), document: format!("{{ {document} }}"), expect: Some(expect) }
}

pub fn kill(flag: &str) -> Command {
    Command::Kill { environment: ENVIRONMENT.into(), flag: flag.into() }
}

pub fn restore(flag: &str, percent: Option<f64>) -> Command {
    Command::Restore { environment: ENVIRONMENT.into(), flag: flag.into(), percent, expect: None }
}

pub fn delete(item: ItemName) -> Command {
    Command::Delete { environment: ENVIRONMENT.into(), item, expect: None }
}

pub fn revert(item: ItemName, to: Revision) -> Command {
    Command::Revert { environment: ENVIRONMENT.into(), item, to, expect: None }
}

/// A boolean flag; `more` are further fields.
pub fn flag(key: &str, default: &str, more: &str) -> String {
    format!("{key}: {{ variants: {{ on: true, off: false }}, defaultVariant: {default}, {more} }}")
}

pub fn flags(list: &[(&str, &str)]) -> String {
    let flags: Vec<_> = list.iter().map(|(key, default)| flag(key, default, "")).collect();
    format!("flags: {{ {} }}", flags.join(", "))
}

/// A store in memory whose commits wait while it is closed, and fail when told to.
pub struct Gate {
    inner: Memory,
    open: watch::Sender<bool>,
    /// Commits that have come to the gate.
    arrived: watch::Sender<usize>,
    failures: Mutex<Vec<Failure>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing is written, and the writer is told so.
    BeforeWriting,
    /// All is written, and the answer is lost.
    AfterWriting,
}

impl Gate {
    pub fn new() -> Arc<Self> {
        let (open, arrived) = (watch::Sender::new(true), watch::Sender::new(0));
        Arc::new(Self { inner: Memory::new(), open, arrived, failures: Mutex::default() })
    }

    pub fn close(&self) {
        self.arrived.send_replace(0);
        self.open.send_replace(false);
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until a commit stands before the closed gate.
    pub async fn reached(&self) {
        timeout(PATIENCE, self.arrived.subscribe().wait_for(|arrived| *arrived > 0)).await.expect("a commit comes").unwrap();
    }

    pub fn fail_next(&self, failure: Failure) {
        self.failures.lock().push(failure);
    }
}

#[tonic::async_trait]
impl Store for Gate {
    async fn commit(&self, expect: Version, batch: Batch) -> Result<Version, store::Error> {
        self.arrived.send_modify(|arrived| *arrived += 1);
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        let failure = self.failures.lock().pop();
        let lost = || store::Error::Unavailable { problem: "the disk is gone".into() };
        match failure {
            None => self.inner.commit(expect, batch).await,
            Some(Failure::BeforeWriting) => Err(lost()),
            Some(Failure::AfterWriting) => {
                self.inner.commit(expect, batch).await?;
                Err(lost())
            }
        }
    }

    async fn view(&self) -> Result<Arc<dyn View>, store::Error> {
        self.inner.view().await
    }
}
