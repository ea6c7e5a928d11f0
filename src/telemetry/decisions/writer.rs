//! Rounds of the task that writes the log: what the journals hold goes through the sieve and becomes lines and events.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::Result;

use super::args::Args;
use super::counts::{Counts, Lost};
use super::files::{FileLimits, Files};
use super::journal::Journal;
use super::line::{Evaluation, Line, Outcome, OutcomeLine, time};
use super::otlp::{self, Exporter, Queue};
use super::person::{Persons, Salt};
use super::pressure::{Load, Pressure, Step};
use super::sieve::{Sieve, Verdict};

/// Outcomes that wait for the next round; further ones are dropped and counted.
const MOST_OUTCOMES: usize = 16 * 1024;
/// Lines wait for each other up to here, or a second.
const WRITE_BYTES: usize = 64 * 1024;
const SECOND_US: i64 = 1_000_000;

/// Whose log it is, and where its salt lies.
#[derive(Debug, Clone)]
pub struct Place {
    pub pod: String,
    pub environment: String,
    /// `None`: people have other names after each start.
    pub salt_file: Option<PathBuf>,
}

/// For whoever has an outcome to tell. Clones tell the same log.
#[derive(Debug, Clone)]
pub struct Handle {
    outcomes: SyncSender<Told>,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Told {
    time_us: i64,
    flag: Box<str>,
    variant: Option<Box<str>>,
    enabled: bool,
    key: Option<Box<str>>,
    metric: Box<str>,
    value: f64,
    error: bool,
}

#[derive(Debug)]
pub struct Writer {
    place: Place,
    persons: Persons,
    sieve: Sieve,
    pressure: Pressure,
    outcomes: Receiver<Told>,
    sinks: Sinks,
    counts: Arc<Counts>,
    /// When this second began, what was lost before it, and what of it was spent with writing.
    second_us: i64,
    lost_before: u64,
    busy: Duration,
    rounds: u64,
}

#[derive(Debug)]
struct Sinks {
    files: Option<Files>,
    queue: Option<Queue>,
    /// Lines that are not written yet.
    lines: Vec<u8>,
    waiting: u64,
    written_us: i64,
    is_failing: bool,
}

/// Opens the files and makes the exporter, whose task has to be run. `None`: no log is wanted. Call it within a runtime.
pub fn open(args: &Args, place: Place, now_us: i64) -> Result<Option<(Writer, Handle, Option<Exporter>)>> {
    let Args { dir, otlp, keys, salt, salt_file: _, sample, keep } = args;
    if !args.is_on() {
        return Ok(None);
    }
    let files = dir.as_deref().map(|dir| Files::open(dir, FileLimits::keeping(*keep), now_us)).transpose()?;
    let salt = match (salt, &place.salt_file) {
        (Some(salt), _) => Salt::new(salt.clone()),
        (None, Some(path)) => Salt::kept_in(path)?,
        (None, None) => {
            tracing::warn!("the decision log names people anew at each start: give --decision-log-salt or --data");
            Salt::random()
        }
    };
    let counts = Arc::<Counts>::default();
    let (queue, exporter) = otlp.as_deref().map(|endpoint| otlp::connect(endpoint, &place.pod, &counts)).transpose()?.unzip();
    let (sender, outcomes) = sync_channel(MOST_OUTCOMES);
    let handle = Handle { outcomes: sender, counts: Arc::clone(&counts) };
    let sinks = Sinks { files, queue, lines: Vec::new(), waiting: 0, written_us: now_us, is_failing: false };
    let writer = Writer {
        persons: Persons::new(*keys, &salt, &place.environment),
        place,
        sieve: Sieve::new(sample),
        pressure: Pressure::default(),
        outcomes,
        sinks,
        counts,
        second_us: now_us,
        lost_before: 0,
        busy: Duration::ZERO,
        rounds: 0,
    };
    Ok(Some((writer, handle, exporter)))
}

impl Handle {
    /// Never waits: what finds no room is dropped and counted.
    pub fn record_outcome(&self, outcome: &Outcome<'_>, time_us: i64) {
        let Outcome { flag, variant, enabled, key, metric, value, error } = *outcome;
        let told = Told {
            time_us,
            flag: flag.into(),
            variant: variant.map(Into::into),
            enabled,
            key: key.map(Into::into),
            metric: metric.into(),
            value,
            error,
        };
        if self.outcomes.try_send(told).is_err() {
            self.counts.received.fetch_add(1, Ordering::Relaxed);
            self.counts.lose(Lost::Buffer, 1);
        }
    }

    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }
}

impl Writer {
    /// Takes in what the threads noted since the last round.
    pub fn round(&mut self, journals: &[Journal], now_us: i64) {
        self.rounds += 1;
        for journal in journals {
            self.counts.received.fetch_add(journal.len() as u64 + journal.lost(), Ordering::Relaxed);
            match journal.is_paused {
                true => drop(self.counts.held_back.fetch_add(journal.lost(), Ordering::Relaxed)),
                false => self.counts.lose(Lost::Buffer, journal.lost()),
            }
            for (number, seen) in journal.iter().enumerate() {
                self.take_in(&seen, now_us, number as u64);
            }
        }
        // A bounded number: those who tell outcomes could go on for ever.
        for _ in 0..MOST_OUTCOMES {
            let Ok(told) = self.outcomes.try_recv() else { break };
            self.take_in_outcome(&told, now_us);
        }
        if self.sinks.lines.len() >= WRITE_BYTES || now_us.saturating_sub(self.sinks.written_us) >= SECOND_US {
            self.flush(now_us);
        }
    }

    /// How long the last round took. Once a second the step is thought over.
    pub fn spent(&mut self, busy: Duration, now_us: i64) {
        self.busy += busy;
        let passed_us = now_us.saturating_sub(self.second_us);
        if passed_us < SECOND_US {
            return;
        }
        let lost: u64 = [Lost::Buffer, Lost::Limit].into_iter().map(|lost| self.counts.lost(lost)).sum();
        let load = Load { lost: lost - self.lost_before, busy: self.busy.as_secs_f64() / (passed_us as f64 / 1e6) };
        (self.second_us, self.lost_before, self.busy) = (now_us, lost, Duration::ZERO);
        if let Some(step) = self.pressure.after(load) {
            self.counts.set_step(step);
            tracing::warn!(keeps = step.name(), lost = load.lost, busy = load.busy, "the decision log keeps more or less than before");
        }
    }

    /// Whether threads need not note anything.
    pub fn is_paused(&self) -> bool {
        self.pressure.step() == Step::CountersOnly
    }

    /// Writes the lines that wait.
    pub fn flush(&mut self, now_us: i64) {
        let Sinks { files, queue: _, lines, waiting, written_us, is_failing } = &mut self.sinks;
        *written_us = now_us;
        let Some(files) = files else { return };
        let events = std::mem::take(waiting);
        if events > 0 {
            let written = files.append(lines, now_us);
            lines.clear();
            let failed_before = std::mem::replace(is_failing, written.is_err());
            match written {
                Ok(()) => {
                    self.counts.written.fetch_add(events, Ordering::Relaxed);
                    if failed_before {
                        tracing::info!("the decision log is written again");
                    }
                }
                Err(error) => {
                    self.counts.lose(Lost::Disk, events);
                    if !failed_before {
                        tracing::error!(%error, "the decision log loses lines: its directory does not take them");
                    }
                }
            }
        }
        self.counts.file_bytes.store(files.bytes(), Ordering::Relaxed);
    }

    fn take_in(&mut self, seen: &Evaluation<'_>, now_us: i64, number: u64) {
        let dice = mixed(self.rounds << 32 ^ number ^ now_us.unsigned_abs().rotate_left(20));
        let verdict = self.sieve.judge(seen, self.pressure.step(), now_us, dice);
        let Some(rate) = self.rate(verdict) else { return };
        let person = seen.key.and_then(|key| self.persons.name(key));
        let Place { pod, environment, .. } = &self.place;
        if self.sinks.files.is_some() {
            self.sinks.line(&seen.line(person.as_deref(), pod, environment, rate));
        }
        if let Some(queue) = &self.sinks.queue {
            queue.push(seen, person, environment, rate);
        }
    }

    /// Outcomes go into the files only: the conventions for feature flags have no event for them.
    fn take_in_outcome(&mut self, told: &Told, now_us: i64) {
        self.counts.received.fetch_add(1, Ordering::Relaxed);
        let verdict = self.sieve.judge_outcome(self.pressure.step(), now_us);
        if self.rate(verdict).is_none() || self.sinks.files.is_none() {
            return;
        }
        let person: Option<Cow<'_, str>> = told.key.as_deref().and_then(|key| self.persons.name(key));
        let Place { pod, environment, .. } = &self.place;
        self.sinks.line(&OutcomeLine {
            time: time(told.time_us),
            kind: Line::OUTCOME,
            flag: &told.flag,
            variant: told.variant.as_deref(),
            enabled: told.enabled,
            key: person.as_deref(),
            metric: &told.metric,
            value: told.value,
            error: told.error,
            pod,
            environment,
        });
    }

    /// `None`, and counted, when it is not kept.
    fn rate(&self, verdict: Verdict) -> Option<f64> {
        match verdict {
            Verdict::Keep { rate } => return Some(rate),
            Verdict::Duplicate => drop(self.counts.duplicates.fetch_add(1, Ordering::Relaxed)),
            Verdict::SampledOut => drop(self.counts.sampled_out.fetch_add(1, Ordering::Relaxed)),
            Verdict::HeldBack => drop(self.counts.held_back.fetch_add(1, Ordering::Relaxed)),
            Verdict::OverLimit => self.counts.lose(Lost::Limit, 1),
        }
        None
    }
}

impl Sinks {
    fn line(&mut self, line: &impl serde::Serialize) {
        let before = self.lines.len();
        match serde_json::to_writer(&mut self.lines, line) {
            Ok(()) => {
                self.lines.push(b'\n');
                self.waiting += 1;
            }
            // Nothing that a line is made of has no form as JSON.
            Err(_) => self.lines.truncate(before),
        }
    }
}

/// SplitMix64: the bits of a counter, well shaken.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}
