//! Cumulative counts of many sidecars, each outcome once: reports come late, twice and in any order, and a sidecar that restarts begins at 0.

use std::collections::HashMap;

use crate::wire::evidence::Counter;

/// Starts of sidecars that may report to one metric of one variant. What more of them report is refused, so that an epoch has a largest size.
pub const ACCUMULATORS: usize = 65_536;
/// For so long a unit counts as one that failed lately.
const FAILING_US: i64 = 60_000_000;
/// Units that failed lately, of one metric of one variant. A guard asks whether there are three.
const FAILING: usize = 1_024;

/// One start of a sidecar, and which of its countings.
pub(super) type Source = (u32, u32);

#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    by_source: HashMap<Source, Counts>,
    total: Counts,
    /// Unit -> time of its latest failure that was reported.
    failing: HashMap<u64, i64>,
    pub(super) regressions: u64,
}

/// First outcomes of units within the window of the sidecars, and all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    pub n: u64,
    pub k: u64,
    pub n_raw: u64,
    pub k_raw: u64,
}

impl Counts {
    fn each(self, other: Self, with: fn(u64, u64) -> u64) -> Self {
        let Self { n, k, n_raw, k_raw } = other;
        Self { n: with(self.n, n), k: with(self.k, k), n_raw: with(self.n_raw, n_raw), k_raw: with(self.k_raw, k_raw) }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    fn falls_below(self, other: Self) -> bool {
        self.n < other.n || self.k < other.k || self.n_raw < other.n_raw || self.k_raw < other.k_raw
    }
}

impl Counters {
    /// The caller has refused reports that it had before. False: less than before of the same source, or one source too many.
    pub(super) fn report(&mut self, source: Source, counter: &Counter, at_us: i64) -> bool {
        let Counter { n, k, n_raw, k_raw, failing, .. } = counter;
        let counts = Counts { n: *n, k: *k, n_raw: *n_raw, k_raw: *k_raw };
        let before = self.by_source.get(&source).copied();
        let is_full = before.is_none() && self.by_source.len() >= ACCUMULATORS;
        if is_full || before.is_some_and(|before| counts.falls_below(before)) {
            self.regressions += 1;
            return false;
        }
        self.total = self.total.each(before.unwrap_or_default(), u64::saturating_sub).plus(counts);
        self.by_source.insert(source, counts);
        self.failing.retain(|_, failed_us| at_us - *failed_us < FAILING_US);
        for unit in failing {
            if self.failing.len() < FAILING || self.failing.contains_key(unit) {
                self.failing.insert(*unit, at_us);
            }
        }
        true
    }

    pub(super) fn total(&self) -> Counts {
        self.total
    }

    pub(super) fn failing(&self, now_us: i64) -> Vec<u64> {
        let lately = self.failing.iter().filter(|(_, failed_us)| now_us - **failed_us < FAILING_US);
        lately.map(|(unit, _)| *unit).collect()
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = (Source, Counts)> {
        self.by_source.iter().map(|(source, counts)| (*source, *counts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(n: u64, k: u64) -> Counter {
        Counter { metric: 0, n, k, n_raw: n, k_raw: k, failing: Vec::new() }
    }

    #[test]
    fn a_restart_begins_anew_and_a_regression_is_dropped_and_told() {
        let mut counters = Counters::default();
        for (source, n, k) in [((1, 0), 10, 1), ((1, 0), 25, 2), ((2, 0), 5, 0), ((3, 0), 3, 1), ((3, 0), 8, 1), ((1, 0), 30, 2)] {
            assert!(counters.report(source, &counter(n, k), 0));
        }
        assert_eq!((counters.total.n, counters.total.k, counters.regressions), (43, 3, 0));
        assert!(!counters.report((1, 0), &counter(29, 2), 0));
        assert_eq!((counters.total.n, counters.regressions), (43, 1));
    }

    #[test]
    fn units_that_failed_are_forgotten_after_a_minute() {
        let mut counters = Counters::default();
        counters.report((1, 0), &Counter { failing: vec![7, 8], ..counter(2, 2) }, 0);
        counters.report((1, 0), &Counter { failing: vec![8], ..counter(3, 3) }, 30_000_000);
        let mut lately = counters.failing(40_000_000);
        lately.sort_unstable();
        assert_eq!(lately, [7, 8]);
        assert_eq!(counters.failing(61_000_000), [8]);
        assert!(counters.failing(90_000_000).is_empty());
    }

    #[test]
    fn sources_beyond_the_limit_are_refused() {
        let mut counters = Counters::default();
        (0..ACCUMULATORS as u32).for_each(|number| assert!(counters.report((number, 0), &counter(1, 0), 0)));
        assert!(!counters.report((u32::MAX, 0), &counter(1, 0), 0));
        assert!(counters.report((0, 0), &counter(2, 0), 0));
        assert_eq!(counters.total.n, ACCUMULATORS as u64 + 1);
    }
}
