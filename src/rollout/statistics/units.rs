//! Units of a stage, each counted once however many pods saw it: its first exposure, its successes within the time that the metric takes.
//!
//! Records merge like sets: in any order, and as often as they come. Times are of one clock unit, milliseconds or seconds, which the caller
//! chooses.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::{Deserialize, Serialize};

use super::arm::Arm;

/// Of one stage. The sampling rate keeps it at half of this if the plan expected the right number; what comes beyond it is refused.
pub const UNITS: usize = 2_000_000;
/// Units that are expected in the sample.
const EXPECTED_UNITS: f64 = 1_000_000.0;
/// Kept of a unit, the earliest: one within the time is enough.
pub const EVENTS_OF_A_UNIT: usize = 16;

/// The share of units that a stage looks at, chosen when it starts and never changed within: a sample that grows, with which a test may be
/// looked at each second.
pub fn sampling_rate(expected_units: f64) -> f64 {
    if expected_units > EXPECTED_UNITS { EXPECTED_UNITS / expected_units } else { 1.0 }
}

/// What one sidecar knows of a unit, or all of them together. `variant` is the place in the stage's list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Record {
    exposure: Option<Exposure>,
    /// Distinct and sorted.
    events: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Exposure {
    first: u64,
    variant: Seen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Seen {
    In(u16),
    /// Crossover: it says nothing of any variant.
    InSeveral,
}

/// By the hash of the unit, whose salt must not be that of the assignment: else the sample is of certain buckets only.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Units {
    records: BTreeMap<u64, Record>,
    refused: u64,
}

/// Those whose time is over at a watermark.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cohort {
    /// (units, successes) by variant.
    pub variants: Vec<(u64, u64)>,
    /// Exposed too late to be counted yet.
    pub immature: u64,
    /// Seen in more than one variant, and counted in none.
    pub crossover: u64,
}

impl Record {
    pub fn exposed(at: u64, variant: u16) -> Self {
        Self { exposure: Some(Exposure { first: at, variant: Seen::In(variant) }), events: Vec::new() }
    }

    pub fn succeeded(at: u64) -> Self {
        Self { exposure: None, events: vec![at] }
    }

    pub fn merge(&mut self, other: &Self) {
        self.exposure = match (self.exposure, other.exposure) {
            (Some(one), Some(another)) => Some(Exposure {
                first: one.first.min(another.first),
                variant: if one.variant == another.variant { one.variant } else { Seen::InSeveral },
            }),
            (one, another) => one.or(another),
        };
        self.events.extend_from_slice(&other.events);
        self.events.sort_unstable();
        self.events.dedup();
        self.events.truncate(EVENTS_OF_A_UNIT);
    }

    fn succeeds(&self, first: u64, end: u64) -> bool {
        self.events.iter().any(|event| (first..end).contains(event))
    }
}

impl Units {
    /// False when the stage is full and the unit is not among those that it has.
    pub fn merge(&mut self, unit: u64, record: &Record) -> bool {
        let is_full = self.records.len() >= UNITS;
        match self.records.entry(unit) {
            Entry::Occupied(mut known) => known.get_mut().merge(record),
            Entry::Vacant(_) if is_full => {
                self.refused = self.refused.saturating_add(1);
                return false;
            }
            Entry::Vacant(place) => place.insert(Record::default()).merge(record),
        }
        true
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Records of units that were too many.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Counts the units that were exposed `lag` before the watermark, the time up to which the metric's source is complete, with a success
    /// within `lag` of their first exposure. A variant that is not among the first `variants` is not counted.
    pub fn cohort(&self, variants: u16, lag: u64, watermark: u64) -> Cohort {
        let mut cohort = Cohort { variants: vec![(0, 0); usize::from(variants)], ..Cohort::default() };
        for record in self.records.values() {
            let Some(Exposure { first, variant }) = record.exposure else { continue };
            let Seen::In(variant) = variant else {
                cohort.crossover += 1;
                continue;
            };
            let end = first.saturating_add(lag);
            if end > watermark {
                cohort.immature += 1;
            } else if let Some((n, k)) = cohort.variants.get_mut(usize::from(variant)) {
                *n += 1;
                *k += u64::from(record.succeeds(first, end));
            }
        }
        cohort
    }
}

impl Cohort {
    pub fn arm(&self, variant: u16) -> Option<Arm> {
        self.variants.get(usize::from(variant)).map(|(n, k)| Arm::Binomial { n: *n, k: *k })
    }

    /// Among all units that were exposed.
    pub fn crossover_share(&self) -> f64 {
        let counted: u64 = self.variants.iter().map(|(n, _)| n).sum();
        let exposed = counted.saturating_add(self.immature).saturating_add(self.crossover);
        if exposed == 0 { 0.0 } else { self.crossover as f64 / exposed as f64 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    type Sent = Vec<(u64, Record)>;

    fn records() -> impl Strategy<Value = Sent> {
        let record = prop_oneof![
            (0..50u64, 0..2u16).prop_map(|(at, variant)| Record::exposed(at, variant)),
            (0..50u64).prop_map(Record::succeeded),
        ];
        vec((0..4u64, record), 0..120)
    }

    fn all(records: &[(u64, Record)]) -> Units {
        let mut units = Units::default();
        records.iter().for_each(|(unit, record)| assert!(units.merge(*unit, record)));
        units
    }

    /// Records, and the same with some of them twice, in another order.
    fn delivered() -> impl Strategy<Value = (Sent, Sent)> {
        records().prop_flat_map(|records| {
            let again = proptest::sample::subsequence(records.clone(), 0..=records.len());
            let twice = again.prop_map({
                let records = records.clone();
                move |again| [records.as_slice(), &again].concat()
            });
            (Just(records), twice.prop_shuffle())
        })
    }

    proptest! {
        #[test]
        fn records_count_once_in_any_order((sent, delivered) in delivered()) {
            prop_assert_eq!(all(&sent), all(&delivered));
        }

        #[test]
        fn merging_what_was_merged_is_merging_all(first in records(), second in records()) {
            let mut together = all(&first);
            all(&second).records.iter().for_each(|(unit, record)| assert!(together.merge(*unit, record)));
            prop_assert_eq!(together, all(&[first, second].concat()));
        }
    }

    #[test]
    fn an_event_too_many_leaves_the_earliest() {
        let mut record = Record::exposed(10, 0);
        (0..100).rev().for_each(|at| record.merge(&Record::succeeded(at)));
        assert_eq!(record.events, (0..EVENTS_OF_A_UNIT as u64).collect::<Vec<_>>());
    }

    #[test]
    fn a_lag_at_the_end_of_time_is_never_over() {
        let units = all(&[(1, Record::exposed(5, 0))]);
        assert_eq!(units.cohort(1, u64::MAX, u64::MAX - 1).immature, 1);
        assert_eq!(units.cohort(1, 0, 5).variants, [(1, 0)]);
        assert_eq!(units.cohort(0, 0, 5).variants, []);
    }

    #[test]
    fn the_sample_of_a_large_stage_is_as_large_as_expected() {
        assert_eq!([0.0, 1e6, 4e6, f64::NAN].map(sampling_rate), [1.0, 1.0, 0.25, 1.0]);
    }
}
