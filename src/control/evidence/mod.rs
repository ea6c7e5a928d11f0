//! What sidecars report of exposures and outcomes, added up: what gates and guards read, and what people look at.
//!
//! ```text
//! service -> Evidence (trait) -> durable: log of reports, then -> book -> epoch -> counters, units, reach
//!                             -> memory:                      --^
//! ```
//! An epoch is a flag at one revision of its definition; which revisions are one stage of a rollout, only the control plane knows.
//!
//! Limits: a flag keeps its newest 8 revisions, of older ones totals, of up to 64; an epoch has up to 1,000,000 units. What comes beyond
//! is counted as refused.

mod book;
mod counters;
mod durable;
mod epoch;
mod flag;
mod kept;
mod people;
mod reach;
mod service;
mod sweep;
mod units;

use parking_lot::RwLock;

pub use book::{Book, Refused};
pub use counters::{ACCUMULATORS, Counts};
pub use durable::Durable;
pub use epoch::{Arms, Counted, Exposed};
pub use flag::{EPOCHS_KEPT, Pushed, Summary, TOTALS_KEPT};
pub use people::{PushError, Pushes, get_evidence};
pub use service::{Reports, service};
pub use sweep::sweep;
pub use units::UNITS;

use crate::clock::Clock;
use crate::control::store;
use crate::flag::Revision;
use crate::rollout::Due;
use crate::wire::evidence::Report;

use std::collections::BTreeMap;
use std::sync::Arc;

/// A flag of an environment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct FlagName {
    pub environment: String,
    pub key: String,
}

/// Where evidence is kept. What is read is a look at one moment, cheap enough for each second; only [`Evidence::arms`] goes over all units.
#[tonic::async_trait]
pub trait Evidence: Send + Sync + 'static {
    /// Durable, as far as this one is, when it returns. False: the report, or a later one of its sender, was counted before.
    async fn accept(&self, report: Report) -> Result<bool, store::Error>;

    /// Whether [`Evidence::push`] of this version would be taken now.
    fn takes(&self, flag: &FlagName, metric: &str, version: u64) -> bool {
        self.book().read().flag(flag).is_none_or(|flag| flag.takes(metric, version))
    }

    /// False: this version or a later one was there.
    async fn push(&self, flag: FlagName, metric: String, pushed: Pushed) -> Result<bool, store::Error>;

    /// Everything of a flag that is gone.
    async fn forget(&self, flag: FlagName) -> Result<(), store::Error>;

    fn book(&self) -> &RwLock<Book>;

    fn clock(&self) -> &dyn Clock;

    /// What guards read, by variant and metric.
    fn counters(&self, flag: &FlagName, revision: Revision) -> Vec<Counted> {
        let now_us = self.clock().now_us();
        self.book().read().epoch(flag, revision).map(|epoch| epoch.counters(now_us)).unwrap_or_default()
    }

    /// What gates read. Units count that were first exposed by `exposed_until_ms`: the watermark, less the lag of a metric. `None`: nothing
    /// was reported, or it is so long ago that only totals are left.
    fn arms(&self, flag: &FlagName, revision: Revision, exposed_until_ms: i64) -> Option<Arms> {
        self.book().read().epoch(flag, revision).map(|epoch| epoch.arms(exposed_until_ms))
    }

    /// By variant: units that were exposed by then, and those of them that had no outcome of any metric.
    fn due(&self, flag: &FlagName, revision: Revision, exposed_until_ms: i64) -> BTreeMap<String, Due> {
        self.book().read().epoch(flag, revision).map(|epoch| epoch.due(exposed_until_ms)).unwrap_or_default()
    }

    /// About how many people saw each variant at any revision, within about a percent. For display only.
    fn exposed(&self, flag: &FlagName) -> Vec<(String, f64)> {
        self.book().read().flag(flag).map(|flag| flag.exposed()).unwrap_or_default()
    }

    fn pushed(&self, flag: &FlagName, metric: &str) -> Option<Pushed> {
        self.book().read().flag(flag)?.pushed(metric).cloned()
    }

    /// For people: the newest revision first.
    fn summaries(&self, flag: &FlagName) -> Vec<Summary> {
        self.book().read().flag(flag).map(|flag| flag.summaries()).unwrap_or_default()
    }
}

/// Ends with the process.
pub struct Memory {
    book: RwLock<Book>,
    clock: Arc<dyn Clock>,
}

impl Memory {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { book: RwLock::default(), clock }
    }
}

#[tonic::async_trait]
impl Evidence for Memory {
    async fn accept(&self, report: Report) -> Result<bool, store::Error> {
        Ok(self.book.write().report(&report, self.clock.now_us()))
    }

    async fn push(&self, flag: FlagName, metric: String, pushed: Pushed) -> Result<bool, store::Error> {
        Ok(self.book.write().push(flag, metric, pushed))
    }

    async fn forget(&self, flag: FlagName) -> Result<(), store::Error> {
        self.book.write().forget(&flag);
        Ok(())
    }

    fn book(&self) -> &RwLock<Book> {
        &self.book
    }

    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }
}
