//! The one task that knows who was served what. It takes the notes of all threads before it looks at an outcome: whoever was answered before
//! the outcome was reported is known by then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use crate::clock::{Clock as _, SystemClock};
use crate::lifecycle::Shutdown;
use crate::replica::Held;
use crate::sidecar::pod::Desk;
use crate::telemetry::decisions;
use crate::wire::trip::Trip;
use crate::wire::v1;

use super::attribution::{Attribution, Outcome, Size, Told, Tracked};
use super::exposures::{Exposure, Taken};
use super::guards::{Guards, Serving};

/// Calls that wait for the collector; further ones wait in their connections.
const QUEUE: usize = 64;
const TICK: Duration = Duration::from_secs(1);

/// A hand on the collector. Clones are the same.
#[derive(Debug, Clone)]
pub(in crate::sidecar) struct Evidence {
    asks: mpsc::Sender<Ask>,
    stats: Arc<Stats>,
}

/// For `/metrics`.
#[derive(Debug, Default)]
pub(in crate::sidecar) struct Stats {
    /// Bytes of the tables of the threads, and of the collector.
    pub(in crate::sidecar) exposure_bytes: AtomicU64,
    pub(in crate::sidecar) attribution_bytes: AtomicU64,
    pub(in crate::sidecar) units: AtomicU64,
    pub(in crate::sidecar) epochs: AtomicU64,
    pub(in crate::sidecar) pending_records: AtomicU64,
    pub(in crate::sidecar) dropped_records: AtomicU64,
    pub(in crate::sidecar) dropped_exposures: AtomicU64,
    pub(in crate::sidecar) exposures: AtomicU64,
    pub(in crate::sidecar) attributed: AtomicU64,
    pub(in crate::sidecar) unattributed: AtomicU64,
    pub(in crate::sidecar) duplicates: AtomicU64,
    pub(in crate::sidecar) reports: AtomicU64,
    pub(in crate::sidecar) report_failures: AtomicU64,
    pub(in crate::sidecar) refused_reports: AtomicU64,
}

enum Ask {
    Track(Vec<Outcome>, oneshot::Sender<Tracked>),
    Report { with_units: bool, answer: oneshot::Sender<Option<Changes>> },
    Guards { pods: Option<u32>, answer: oneshot::Sender<Vec<Trip>> },
}

/// What a report is made of.
pub(super) struct Changes {
    pub(super) epochs: Vec<v1::EpochEvidence>,
    /// Another report would not be empty.
    pub(super) has_more: bool,
}

impl Evidence {
    /// Starts the collector on the runtime of the caller. It ends when the shutdown has flushed, or with its last hand.
    pub(in crate::sidecar) fn collect(desks: Vec<Arc<Desk>>, units: usize, shutdown: Shutdown) -> Self {
        let (asks, asked) = mpsc::channel(QUEUE);
        let (wake, stats) = (Arc::new(Notify::new()), Arc::new(Stats::default()));
        for desk in &desks {
            desk.tally.with_exposures(|exposures| exposures.serve(Arc::clone(&wake)));
        }
        let mut attribution = Attribution::new(units);
        if desks.first().is_some_and(|desk| desk.pod.observer.is_some()) {
            attribution.tell();
        }
        let (guards, clock) = (Guards::default(), SystemClock::new());
        let collector = Collector { desks, wake, attribution, guards, spare: Vec::new(), stats: Arc::clone(&stats), clock };
        tokio::spawn(collector.run(asked, shutdown));
        Self { asks, stats }
    }

    /// `None`: the sidecar has ended.
    pub(super) async fn track(&self, outcomes: Vec<Outcome>) -> Option<Tracked> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(Ask::Track(outcomes, answer)).await.ok()?;
        answered.await.ok()
    }

    pub(super) async fn changes(&self, with_units: bool) -> Option<Changes> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(Ask::Report { with_units, answer }).await.ok()?;
        answered.await.ok().flatten()
    }

    /// A second of the guards, see [`Guards::tick`]. `None`: the sidecar has ended.
    pub(super) async fn guards(&self, pods: Option<u32>) -> Option<Vec<Trip>> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(Ask::Guards { pods, answer }).await.ok()?;
        answered.await.ok()
    }

    pub(in crate::sidecar) fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }
}

struct Collector {
    desks: Vec<Arc<Desk>>,
    wake: Arc<Notify>,
    attribution: Attribution,
    guards: Guards,
    /// Empty, for the next thread to fill.
    spare: Vec<Exposure>,
    stats: Arc<Stats>,
    clock: SystemClock,
}

impl Collector {
    async fn run(mut self, mut asked: mpsc::Receiver<Ask>, shutdown: Shutdown) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let wake = Arc::clone(&self.wake);
        loop {
            tokio::select! {
                ask = asked.recv() => match ask {
                    Some(ask) => self.answer(ask),
                    None => return,
                },
                () = wake.notified() => self.gather(),
                _ = tick.tick() => self.gather(),
                () = shutdown.finished() => return,
            }
        }
    }

    fn answer(&mut self, ask: Ask) {
        self.gather();
        match ask {
            Ask::Track(outcomes, answer) => {
                let tracked = self.attribution.track(&outcomes, self.clock.now_us());
                self.log();
                let Tracked { attributed, unattributed, duplicates } = tracked;
                let Stats { attributed: a, unattributed: u, duplicates: d, .. } = &*self.stats;
                for (count, by) in [(a, attributed), (u, unattributed), (d, duplicates)] {
                    count.fetch_add(by.into(), Ordering::Relaxed);
                }
                // The caller may have left.
                let _ = answer.send(tracked);
            }
            Ask::Report { with_units, answer } => {
                let epochs = self.attribution.report(with_units);
                let has_more = self.attribution.has_more();
                let _ = answer.send(epochs.map(|epochs| Changes { epochs, has_more }));
            }
            Ask::Guards { pods, answer } => {
                let replica = self.desks.first().map(|desk| &desk.pod.replica);
                let serving = |key: &str| {
                    let of = |held: &Held| Serving { revision: held.base_revision(), is_killed: held.flag.is_killed() };
                    replica?.with(key, |held| held.map(of))
                };
                let _ = answer.send(self.guards.tick(self.attribution.epochs(), serving, pods, self.clock.now_us()));
            }
        }
    }

    /// Outcomes go into the decision log beside the evaluations that they are of.
    fn log(&mut self) {
        let Some(observer) = self.desks.first().and_then(|desk| desk.pod.observer.as_ref()) else { return };
        for Told { flag, variant, metric, value, is_failure, person } in self.attribution.told() {
            let served = flag.variants().get(usize::from(variant));
            observer.record_outcome(&decisions::Outcome {
                flag: flag.key(),
                variant: served.map(|variant| variant.name.as_str()),
                enabled: flag.is_enabled(served),
                key: Some(&person),
                metric: &metric,
                value,
                error: is_failure,
            });
        }
    }

    /// The notes of all threads, the earlier ones first: of two, the later one is what its unit was served last.
    fn gather(&mut self) {
        let now_us = self.clock.now_us();
        let (mut bytes, mut dropped) = (0, 0);
        let mut noted: Vec<Exposure> = Vec::new();
        for desk in &self.desks {
            let spare = std::mem::take(&mut self.spare);
            let Taken { exposures, dropped: of_thread, bytes: of_table } = desk.tally.with_exposures(|table| table.take(spare, now_us));
            bytes += of_table;
            dropped += of_thread;
            if noted.is_empty() {
                (noted, self.spare) = (exposures, noted);
            } else {
                noted.extend(exposures);
            }
        }
        noted.sort_by_key(|exposure| exposure.at_us);
        self.stats.exposures.fetch_add(noted.len() as u64, Ordering::Relaxed);
        noted.iter().for_each(|exposure| self.attribution.expose(exposure));
        noted.clear();
        if noted.capacity() > self.spare.capacity() {
            self.spare = noted;
        }
        let Size { epochs, units, bytes: attribution, pending, dropped_records } = self.attribution.size();
        let Stats { exposure_bytes, attribution_bytes, units: units_now, epochs: epochs_now, pending_records, .. } = &*self.stats;
        for (gauge, value) in [
            (exposure_bytes, bytes as u64),
            (attribution_bytes, attribution as u64),
            (units_now, units as u64),
            (epochs_now, epochs as u64),
            (pending_records, pending as u64),
            (&self.stats.dropped_records, dropped_records),
            (&self.stats.dropped_exposures, dropped),
        ] {
            gauge.store(value, Ordering::Relaxed);
        }
    }
}
