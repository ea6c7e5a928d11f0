//! Evidence of one flag: its newest epochs, totals of older ones, who was reached, and what was pushed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::flag::Revision;
use crate::rollout::statistics::Arm;
use crate::wire::evidence;

use super::counters::Counts;
use super::epoch::Epoch;
use super::reach::Reach;

/// Revisions of one flag of which units are kept.
pub const EPOCHS_KEPT: usize = 8;
/// Older ones, of which totals are kept.
pub const TOTALS_KEPT: usize = 64;
/// Metrics of one flag that may be pushed, of all revisions.
const PUSHED: usize = 64;

#[derive(Debug, Clone, Default)]
pub struct FlagEvidence {
    pub(super) epochs: BTreeMap<Revision, Epoch>,
    pub(super) totals: BTreeMap<Revision, Summary>,
    pub(super) reach: Reach,
    pub(super) pushed: BTreeMap<String, Pushed>,
    /// Changed since it was written whole.
    pub(super) is_changed: bool,
}

/// Statistics of a metric that came from elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pushed {
    pub version: u64,
    /// They are complete up to here.
    pub watermark_us: i64,
    pub arms: BTreeMap<String, Arm>,
}

/// An epoch as people see it, and what is left of an old one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub revision: Revision,
    pub first_us: i64,
    pub last_us: i64,
    pub has_units: bool,
    pub crossover: u64,
    pub refused_units: u64,
    pub variants: Vec<VariantSummary>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariantSummary {
    pub variant: String,
    pub units: u64,
    pub metrics: Vec<MetricSummary>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricSummary {
    pub metric: String,
    pub counts: Counts,
    pub sums: Arm,
}

impl FlagEvidence {
    /// False: it is too old, or something in it cannot be.
    pub(super) fn merge(&mut self, sender: u32, reported: &evidence::Epoch, at_us: i64) -> bool {
        let revision = reported.revision;
        let is_known = self.epochs.contains_key(&revision);
        let is_late = self.epochs.len() >= EPOCHS_KEPT && self.epochs.first_key_value().is_some_and(|(oldest, _)| revision < *oldest);
        if !is_known && (is_late || self.totals.contains_key(&revision)) {
            return false;
        }
        self.is_changed = true;
        for variant in &reported.variants {
            variant.units.iter().for_each(|unit| self.reach.saw(&variant.name, unit.hash));
        }
        let epoch = self.epochs.entry(revision).or_insert_with(|| Epoch::new(reported.metrics.clone(), at_us));
        let is_whole = epoch.merge(sender, reported, at_us);
        while self.epochs.len() > EPOCHS_KEPT
            && let Some((revision, epoch)) = self.epochs.pop_first()
        {
            self.totals.insert(revision, Summary { has_units: false, ..summary(revision, &epoch) });
        }
        while self.totals.len() > TOTALS_KEPT {
            self.totals.pop_first();
        }
        is_whole
    }

    pub(super) fn push(&mut self, metric: String, pushed: Pushed) -> bool {
        let takes = self.takes(&metric, pushed.version);
        if takes {
            self.pushed.insert(metric, pushed);
            self.is_changed = true;
        }
        takes
    }

    /// Whether such a version would be pushed.
    pub(super) fn takes(&self, metric: &str, version: u64) -> bool {
        match self.pushed.get(metric) {
            Some(held) => held.version < version,
            None => self.pushed.len() < PUSHED,
        }
    }

    pub(super) fn pushed(&self, metric: &str) -> Option<&Pushed> {
        self.pushed.get(metric)
    }

    pub(super) fn all_pushed(&self) -> &BTreeMap<String, Pushed> {
        &self.pushed
    }

    pub(super) fn exposed(&self) -> Vec<(String, f64)> {
        self.reach.estimates()
    }

    pub(super) fn summaries(&self) -> Vec<Summary> {
        let epochs = self.epochs.iter().rev().map(|(revision, epoch)| summary(*revision, epoch));
        epochs.chain(self.totals.values().rev().cloned()).collect()
    }

    pub(super) fn bytes(&self) -> usize {
        self.epochs.values().map(|epoch| epoch.units.bytes()).sum::<usize>() + self.reach.bytes()
    }

    pub(super) fn units(&self) -> usize {
        self.epochs.values().map(|epoch| epoch.units.len()).sum()
    }
}

fn summary(revision: Revision, epoch: &Epoch) -> Summary {
    let arms = epoch.arms(i64::MAX);
    let variants = arms.variants.into_iter().enumerate().map(|(place, arm)| {
        let counts = |metric| epoch.counters.get(&(place, metric)).map(|counters| counters.total()).unwrap_or_default();
        let metrics = arm.metrics.into_iter().enumerate();
        let metrics = metrics.map(|(number, (metric, sums))| MetricSummary { metric, counts: counts(number), sums });
        VariantSummary { variant: arm.variant, units: arm.units, metrics: metrics.collect() }
    });
    Summary {
        revision,
        first_us: epoch.first_us,
        last_us: epoch.last_us,
        has_units: true,
        crossover: arms.crossover,
        refused_units: arms.refused,
        variants: variants.collect(),
    }
}
