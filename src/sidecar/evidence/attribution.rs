//! Who was served what, and what became of them. Pure: time comes in, and nothing here waits.
//!
//! An entry is a unit and a flag: the variant that it was served last, of which revision, and what of its outcomes was not reported yet.

use std::collections::{HashMap, VecDeque};

use crate::clock::Micros;
use crate::flag::{CompiledFlag, MetricKind, Watched};
use crate::wire::v1;

use super::epochs::{Epoch, Epochs, Life, WINDOW_US};
use super::exposures::{Exposure, NOT_MEASURED};
use super::keys::{Keys, Recent};

/// An outcome belongs to what its unit was served last within this time, if memory lasts.
pub(super) const ATTRIBUTION_US: Micros = 7 * 24 * 3600 * 1_000_000;
/// Records that wait for the control plane after their entry was forgotten. The oldest go, and are counted.
const PENDING: usize = 100_000;
/// Units of one report; the others come with the next ones.
const RECORDS: usize = 20_000;

/// One outcome that was checked.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::sidecar) struct Outcome {
    pub(in crate::sidecar) event: String,
    pub(in crate::sidecar) unit: u64,
    /// The targeting key that the unit is the hash of.
    pub(in crate::sidecar) person: String,
    pub(in crate::sidecar) value: f64,
    pub(in crate::sidecar) weight: f64,
    /// `None`: it is never taken for a repetition.
    pub(in crate::sidecar) key: Option<u64>,
    /// `None`: now.
    pub(in crate::sidecar) at_us: Option<Micros>,
}

/// What became of the outcomes of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::sidecar) struct Tracked {
    pub(in crate::sidecar) attributed: u32,
    pub(in crate::sidecar) unattributed: u32,
    pub(in crate::sidecar) duplicates: u32,
}

/// An outcome and what it was attributed to, for the decision log.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) flag: CompiledFlag,
    pub(super) variant: u16,
    pub(super) metric: Box<str>,
    pub(super) value: f64,
    pub(super) is_failure: bool,
    pub(super) person: String,
}

/// A unit and the number of a flag.
type Place = (u64, u32);

#[derive(Debug)]
struct Entry {
    life: Life,
    variant: u16,
    /// False since a kill or an off variant was served.
    is_served: bool,
    /// It waits in `changed`.
    is_changed: bool,
    dealt: bool,
    first_us: Micros,
    last_us: Micros,
    /// In the order of the metrics; none before the first outcome.
    sums: Box<[Sum]>,
}

/// Of one metric.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    /// Since the last report.
    x: f64,
    y: f64,
    is_changed: bool,
    /// Beginning of the window of the guards.
    window_us: Option<Micros>,
}

/// One record, on its way.
#[derive(Debug)]
struct Pending {
    life: Life,
    variant: u16,
    record: v1::UnitRecord,
}

#[derive(Debug)]
pub(super) struct Attribution {
    epochs: Epochs,
    entries: Recent<Place, Entry>,
    keys: Keys,
    changed: Vec<Place>,
    out: Outgoing,
    /// `None`: nobody logs outcomes.
    told: Option<Vec<Told>>,
}

/// Records that the next report takes.
#[derive(Debug, Default)]
struct Outgoing {
    pending: VecDeque<Pending>,
    dropped: u64,
    /// Bytes of the sums of entries.
    sums: usize,
}

/// How much is remembered.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    pub(super) epochs: usize,
    pub(super) units: usize,
    pub(super) bytes: usize,
    pub(super) pending: usize,
    pub(super) dropped_records: u64,
}

impl Attribution {
    /// `units`: the most that are remembered, each counted once for each flag that it was served.
    pub(super) fn new(units: usize) -> Self {
        Self {
            epochs: Epochs::default(),
            entries: Recent::new(units),
            keys: Keys::new(units.saturating_mul(2)),
            changed: Vec::new(),
            out: Outgoing::default(),
            told: None,
        }
    }

    pub(super) fn expose(&mut self, exposure: &Exposure) {
        let Exposure { flag, revision, unit, variant, dealt, at_us, .. } = exposure;
        let Some(epoch) = self.epochs.of(flag, *revision, *at_us) else { return };
        let (life, place) = (epoch.life, (*unit, epoch.flag_number));
        match self.entries.get(place, &mut |(unit, _), entry| self.out.leave(unit, entry)) {
            // Another thread was slower to tell.
            Some(entry) if *at_us < entry.last_us => return,
            Some(entry) if *variant == NOT_MEASURED => {
                entry.is_served = false;
                return;
            }
            Some(entry) if entry.life == life && entry.variant == *variant => {
                (entry.is_served, entry.last_us) = (true, *at_us);
                return;
            }
            Some(entry) => {
                self.out.record(*unit, entry);
                self.out.sums -= std::mem::size_of_val(&*entry.sums);
            }
            None if *variant == NOT_MEASURED => return,
            None => {}
        }
        if let Some(epoch) = self.epochs.get(life) {
            epoch.exposed(*variant);
        }
        let entry = Entry {
            life,
            variant: *variant,
            is_served: true,
            is_changed: true,
            dealt: *dealt,
            first_us: *at_us,
            last_us: *at_us,
            sums: Box::default(),
        };
        self.entries.insert(place, entry, &mut |(unit, _), entry| self.out.leave(unit, entry));
        self.changed.push(place);
    }

    pub(super) fn track(&mut self, outcomes: &[Outcome], now_us: Micros) -> Tracked {
        let mut tracked = Tracked::default();
        for outcome in outcomes {
            if outcome.key.is_some_and(|key| self.keys.has(key)) {
                tracked.duplicates += 1;
            } else if self.attribute(outcome, now_us) {
                outcome.key.into_iter().for_each(|key| self.keys.insert(key));
                tracked.attributed += 1;
            } else {
                tracked.unattributed += 1;
            }
        }
        tracked
    }

    /// From now on [`Attribution::told`] has what was attributed.
    pub(super) fn tell(&mut self) {
        self.told = Some(Vec::new());
    }

    pub(super) fn told(&mut self) -> impl Iterator<Item = Told> {
        self.told.as_mut().into_iter().flat_map(|told| told.drain(..))
    }

    fn attribute(&mut self, outcome: &Outcome, now_us: Micros) -> bool {
        let mut is_attributed = false;
        for flag in self.epochs.watching(&outcome.event) {
            let place = (outcome.unit, flag);
            let Some(entry) = self.entries.get(place, &mut |(unit, _), entry| self.out.leave(unit, entry)) else { continue };
            let at_us = outcome.at_us.unwrap_or(now_us).min(now_us);
            // Clocks of applications and their texts may be no finer than a millisecond.
            let is_after = at_us / 1_000 >= entry.first_us / 1_000;
            let Some(epoch) = self.epochs.get(entry.life).filter(|_| entry.is_served && is_after) else { continue };
            if now_us - entry.last_us > ATTRIBUTION_US {
                continue;
            }
            let watched: Vec<(usize, Watched)> =
                epoch.metrics().iter().cloned().enumerate().filter(|(_, metric)| *metric.event == *outcome.event).collect();
            if entry.sums.is_empty() && !watched.is_empty() {
                entry.sums = vec![Sum::default(); epoch.metrics().len()].into();
                self.out.sums += std::mem::size_of_val(&*entry.sums);
            }
            for (number, metric) in &watched {
                let Some(sum) = entry.sums.get_mut(*number) else { continue };
                let is_first = sum.window_us.is_none_or(|began| now_us - began >= WINDOW_US);
                if is_first {
                    sum.window_us = Some(now_us);
                }
                let is_failure = metric.is_failure(outcome.value);
                epoch.outcome(entry.variant, *number, outcome.unit, is_first, is_failure, now_us);
                if let Some(told) = &mut self.told {
                    told.push(Told {
                        flag: epoch.flag.clone(),
                        variant: entry.variant,
                        metric: metric.name.clone(),
                        value: outcome.value,
                        is_failure: is_failure.unwrap_or(false),
                        person: outcome.person.clone(),
                    });
                }
                is_attributed = true;
                let lag_us = i64::try_from(metric.lag_s).unwrap_or(i64::MAX).saturating_mul(1_000_000);
                if lag_us > 0 && at_us - entry.first_us >= lag_us {
                    continue;
                }
                sum.add(metric, outcome);
                if !std::mem::replace(&mut entry.is_changed, true) {
                    self.changed.push(place);
                }
            }
        }
        is_attributed
    }

    /// What changed; `None` when nothing did. With the units, those that wait come up to a number that fits into a message.
    pub(super) fn report(&mut self, with_units: bool) -> Option<Vec<v1::EpochEvidence>> {
        let mut epochs = self.epochs.changed();
        if with_units {
            self.collect_records();
            let count = self.out.pending.len().min(RECORDS);
            let mut places = epochs.iter().enumerate().map(|(at, evidence)| (evidence.life, at)).collect();
            for Pending { life, variant, record } in self.out.pending.drain(..count) {
                if let Some(epoch) = self.epochs.get(life) {
                    add_record(&mut epochs, &mut places, epoch, variant, record);
                }
            }
        }
        (!epochs.is_empty()).then_some(epochs)
    }

    /// For the guards of this pod.
    pub(super) fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// More units wait than went into the last report.
    pub(super) fn has_more(&self) -> bool {
        !self.out.pending.is_empty()
    }

    fn collect_records(&mut self) {
        for place in std::mem::take(&mut self.changed) {
            if let Some(entry) = self.entries.peek(place) {
                self.out.record(place.0, entry);
            }
        }
    }

    pub(super) fn size(&self) -> Size {
        let records = self.out.pending.capacity() * size_of::<Pending>() + self.changed.capacity() * size_of::<Place>();
        Size {
            epochs: self.epochs.len(),
            units: self.entries.len(),
            bytes: self.entries.bytes() + self.keys.bytes() + records + self.out.sums,
            pending: self.out.pending.len(),
            dropped_records: self.out.dropped,
        }
    }
}

impl Sum {
    fn add(&mut self, metric: &Watched, outcome: &Outcome) {
        let value = metric.counted(outcome.value);
        match metric.kind {
            MetricKind::Binomial | MetricKind::SlowShare { .. } => self.x = self.x.max(value),
            MetricKind::Mean { .. } => self.x += value,
            MetricKind::Ratio => {
                self.x += value;
                self.y += outcome.weight;
            }
        }
        self.is_changed = true;
    }
}

impl Outgoing {
    fn leave(&mut self, unit: u64, mut entry: Entry) {
        self.record(unit, &mut entry);
        self.sums -= std::mem::size_of_val(&*entry.sums);
    }

    /// What is new of an entry.
    fn record(&mut self, unit: u64, entry: &mut Entry) {
        if !std::mem::take(&mut entry.is_changed) || !super::is_sampled(unit) {
            return;
        }
        let outcomes = entry.sums.iter_mut().zip(0..).filter(|(sum, _)| sum.is_changed).map(|(sum, metric)| {
            let Sum { x, y, .. } = *sum;
            (sum.x, sum.y, sum.is_changed) = (0.0, 0.0, false);
            v1::UnitOutcome { metric, x, y }
        });
        let record = v1::UnitRecord { unit, first_exposure_ms: entry.first_us / 1_000, outcomes: outcomes.collect(), apart: !entry.dealt };
        if self.pending.len() >= PENDING {
            self.pending.pop_front();
            self.dropped += 1;
        }
        self.pending.push_back(Pending { life: entry.life, variant: entry.variant, record });
    }
}

/// `places`: of the epochs in `out`.
fn add_record(out: &mut Vec<v1::EpochEvidence>, places: &mut HashMap<Life, usize>, epoch: &Epoch, variant: u16, record: v1::UnitRecord) {
    let Some(name) = epoch.flag.variants().get(usize::from(variant)).map(|variant| &variant.name) else { return };
    let at = *places.entry(epoch.life).or_insert_with(|| {
        out.push(epoch.heading());
        out.len() - 1
    });
    let variants = &mut out[at].variants;
    match variants.iter_mut().find(|evidence| evidence.variant == *name) {
        Some(evidence) => evidence.units.push(record),
        None => variants.push(v1::VariantEvidence { variant: name.clone(), units: vec![record], ..Default::default() }),
    }
}

#[cfg(test)]
mod tests;
