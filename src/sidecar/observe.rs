//! What single answers are noted for: the decision log. Each thread notes into memory of its own, and one task fetches and writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http::HeaderMap;

use crate::clock::{Clock as _, SystemClock};
use crate::flag::{Attributes as _, CompiledFlag, Decision, ErrorCode, Reason, Revision};
use crate::lifecycle::{Phase, Shutdown};
use crate::telemetry::decisions::{self, Counts, Evaluation, Exporter, Handle, Journal, Outcome, Writer};

use super::decide::Asked;
use super::pod::Desk;

/// Between two rounds when there is nothing to do, and when there is so much that a journal could become full before the next one.
const PAUSE: Duration = Duration::from_millis(100);
const SHORT_PAUSE: Duration = Duration::from_millis(10);
const MUCH: usize = decisions::MOST_EVENTS / 16;
/// What the end of the process waits for the collector, within the budget of its phase.
const EXPORT_WITHIN: Duration = Duration::from_secs(2);

/// The header that a question may say its purpose in, and the one that is told apart.
pub const PURPOSE: &str = "yardarm-purpose";
pub const INSPECTION: &str = "inspection";

/// What all threads share of the log.
#[derive(Debug)]
pub(super) struct Observer {
    handle: Handle,
    clock: SystemClock,
}

/// What one thread notes.
#[derive(Debug)]
pub(super) struct Notes {
    pub(super) journal: Journal,
    /// For one batch: its answers are looked at, not used.
    pub(super) is_muted: bool,
    clock: SystemClock,
}

/// Writes the log.
pub(super) struct Scribe {
    writer: Writer,
    exporter: Option<Exporter>,
    clock: SystemClock,
}

/// `None`: no log is wanted.
pub(super) fn start(args: &decisions::Args, place: decisions::Place) -> anyhow::Result<Option<(Observer, Scribe)>> {
    let clock = SystemClock::new();
    let opened = decisions::open(args, place, clock.now_us()).context("the decision log cannot be written")?;
    Ok(opened.map(|(writer, handle, exporter)| (Observer { handle, clock: clock.clone() }, Scribe { writer, exporter, clock })))
}

impl Observer {
    pub(super) fn notes(&self) -> Notes {
        Notes { journal: Journal::default(), is_muted: false, clock: self.clock.clone() }
    }

    /// A question of somebody who looks, such as `yardarm eval`: its answer goes to no application.
    pub(super) fn is_inspection(&self, headers: &HeaderMap) -> bool {
        headers.get(PURPOSE).is_some_and(|purpose| purpose == INSPECTION)
    }

    /// Never waits, and may be called by a thread that answers.
    pub(super) fn record_outcome(&self, outcome: &Outcome<'_>) {
        self.handle.record_outcome(outcome, self.clock.now_us());
    }

    pub(super) fn counts(&self) -> &Arc<Counts> {
        self.handle.counts()
    }
}

impl Notes {
    pub(super) fn begin(&mut self) {
        self.is_muted = false;
        self.journal.begin(self.clock.now_us());
    }
}

impl Scribe {
    /// Until the last answer is given; what was noted by then is written before the process goes.
    pub(super) fn write(self, desks: Vec<Arc<Desk>>, shutdown: &Shutdown) {
        let hold = shutdown.hold(Phase::Flush, "the decision log");
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            let Self { mut writer, exporter, clock } = self;
            let exporter = exporter.map(|exporter| tokio::spawn(exporter.run()));
            let mut spare: Vec<_> = desks.iter().map(|_| Journal::default()).collect();
            let mut pause = PAUSE;
            let mut is_last = false;
            while !is_last {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = shutdown.begun(Phase::Flush) => is_last = true,
                }
                let journals: Vec<_> = desks.iter().zip(spare).filter_map(|(desk, empty)| desk.tally.take_journal(empty)).collect();
                pause = if journals.iter().any(|journal| journal.len() > MUCH) { SHORT_PAUSE } else { PAUSE };
                // The disk may make it wait, which the runtime of replication must not.
                let clock = clock.clone();
                let round = tokio::task::spawn_blocking(move || round(writer, journals, &clock, is_last));
                let Ok(done) = round.await else {
                    tracing::error!("the decision log ends: writing it failed in a way that it must not");
                    return;
                };
                (writer, spare) = done;
            }
            // Its queue ends with the writer.
            drop(writer);
            if let Some(exporter) = exporter {
                match tokio::time::timeout(EXPORT_WITHIN, exporter).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => tracing::error!("the decision log was not sent to its end: sending it failed in a way that it must not"),
                    Err(_) => tracing::warn!("the collector did not take the end of the decision log in time"),
                }
            }
            drop(hold);
        });
    }
}

/// Gives the journals back empty.
fn round(mut writer: Writer, mut journals: Vec<Journal>, clock: &SystemClock, is_last: bool) -> (Writer, Vec<Journal>) {
    let began = Instant::now();
    writer.round(&journals, clock.now_us());
    if is_last {
        writer.flush(clock.now_us());
    }
    writer.spent(began.elapsed(), clock.now_us());
    for journal in &mut journals {
        journal.clear();
        journal.is_paused = writer.is_paused();
    }
    (writer, journals)
}

impl Asked<'_, '_> {
    pub(super) fn seen<'a>(&'a self, flag: &'a CompiledFlag, revision: Revision, decision: &Decision<'a>) -> Evaluation<'a> {
        let Decision { variant, reason, rule, bucket, key_missing: _, is_unreadable: _ } = *decision;
        Evaluation {
            time_us: 0,
            flag: flag.key(),
            variant: variant.map(|variant| &*variant.name),
            enabled: flag.is_enabled(variant),
            key: self.context.targeting_key(),
            rule,
            bucket,
            revision,
            reason,
            error: decision.error(),
        }
    }

    pub(super) fn seen_to_fail(&self, error: ErrorCode, revision: Revision) -> Evaluation<'_> {
        Evaluation {
            time_us: 0,
            flag: self.flag_key,
            variant: None,
            enabled: false,
            key: self.context.targeting_key(),
            rule: None,
            bucket: None,
            revision,
            reason: Reason::Error,
            error: Some(error),
        }
    }
}
