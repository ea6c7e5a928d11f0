//! Everything that was reported of a flag at one revision of its definition.

use std::collections::BTreeMap;

use crate::rollout::Due;
use crate::rollout::statistics::Arm;
use crate::wire::evidence::{self, Metric, Variant};

use super::counters::{Counters, Counts, Source};
use super::units::{CROSSOVER, UNITS, Units};

#[derive(Debug, Clone)]
pub struct Epoch {
    /// As the first report had them; those of another list are found by their names.
    pub(super) metrics: Vec<Metric>,
    pub(super) variants: Vec<String>,
    /// By variant and metric.
    pub(super) counters: BTreeMap<(usize, usize), Counters>,
    pub(super) units: Units,
    pub(super) first_us: i64,
    pub(super) last_us: i64,
}

/// Of one variant and metric, what guards read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    pub variant: String,
    pub metric: String,
    pub counts: Counts,
    /// Units that failed in the last minute.
    pub failing: Vec<u64>,
}

/// What gates read.
#[derive(Debug, Clone, PartialEq)]
pub struct Arms {
    pub variants: Vec<Exposed>,
    /// Units that were exposed too late to count yet.
    pub immature: u64,
    /// Units that were seen in several variants, and count in none.
    pub crossover: u64,
    /// Units beyond the limit.
    pub refused: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Exposed {
    pub variant: String,
    /// Exposed, each once.
    pub units: u64,
    /// Over all of them: who had no outcome counts with 0.
    pub metrics: Vec<(String, Arm)>,
}

impl Epoch {
    pub(super) fn new(metrics: Vec<Metric>, at_us: i64) -> Self {
        let (variants, counters, units) = (Vec::new(), BTreeMap::new(), Units::default());
        Self { metrics, variants, counters, units, first_us: at_us, last_us: at_us }
    }

    /// False: something in it cannot be, and was left out.
    pub(super) fn merge(&mut self, sender: u32, reported: &evidence::Epoch, at_us: i64) -> bool {
        self.last_us = self.last_us.max(at_us);
        self.first_us = self.first_us.min(at_us);
        let own = |metric: usize| {
            let metric = reported.metrics.get(metric)?;
            self.metrics.iter().position(|own| own == metric)
        };
        let places: Vec<Option<usize>> = (0..reported.metrics.len()).map(own).collect();
        let mut is_whole = true;
        for Variant { name, counters, units, .. } in &reported.variants {
            let variant = self.variant(name);
            let source: Source = (sender, reported.life);
            for counter in counters {
                let Some(metric) = places.get(counter.metric).copied().flatten() else { continue };
                is_whole &= self.counters.entry((variant, metric)).or_default().report(source, counter, at_us);
            }
            // Who was not dealt its variant by chance cannot be compared.
            for unit in units.iter().filter(|unit| !unit.is_apart) {
                let outcome = |outcome: &evidence::Outcome| {
                    let metric = places.get(outcome.metric).copied().flatten()?;
                    Some(evidence::Outcome { metric, ..*outcome })
                };
                let unit = evidence::Unit { outcomes: unit.outcomes.iter().filter_map(outcome).collect(), ..*unit };
                self.units.merge(&unit, u16::try_from(variant).unwrap_or(CROSSOVER), &self.metrics, UNITS);
            }
        }
        is_whole
    }

    pub(super) fn variant(&mut self, name: &str) -> usize {
        self.variants.iter().position(|own| own == name).unwrap_or_else(|| {
            self.variants.push(name.to_owned());
            self.variants.len() - 1
        })
    }

    pub(super) fn counters(&self, now_us: i64) -> Vec<Counted> {
        let counted = |(&(variant, metric), counters): (&(usize, usize), &Counters)| {
            let (variant, metric) = (self.variants.get(variant)?.clone(), self.metrics.get(metric)?.name.clone());
            Some(Counted { variant, metric, counts: counters.total(), failing: counters.failing(now_us) })
        };
        self.counters.iter().filter_map(counted).collect()
    }

    /// By variant: units that were exposed by then, and those of them that had no outcome of any metric.
    pub(super) fn due(&self, exposed_until_ms: i64) -> BTreeMap<String, Due> {
        let due = self.units.silent(self.variants.len(), self.metrics.len(), exposed_until_ms);
        self.variants.iter().cloned().zip(due.into_iter().map(|[units, silent]| Due { units, silent })).collect()
    }

    pub(super) fn arms(&self, exposed_until_ms: i64) -> Arms {
        let (arms, immature) = self.units.arms(self.variants.len(), &self.metrics, exposed_until_ms);
        let name = |(metric, sums): (&Metric, Arm)| (metric.name.clone(), sums);
        let arm = |(variant, (units, sums)): (&String, (u64, Vec<Arm>))| Exposed {
            variant: variant.clone(),
            units,
            metrics: self.metrics.iter().zip(sums).map(name).collect(),
        };
        let variants = self.variants.iter().zip(arms).map(arm).collect();
        Arms { variants, immature, crossover: self.units.crossover, refused: self.units.refused }
    }
}
