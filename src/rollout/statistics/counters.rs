//! Cumulative counts of many sidecars, each report counted once: they come late, twice and in any order, and a sidecar that restarts begins
//! at zero.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Of one stage: so many starts of sidecars report to it. What more of them report is refused, so that a stage has a largest size.
pub const ACCUMULATORS: usize = 65_536;

/// By instance and by its start.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Counters {
    instances: BTreeMap<String, BTreeMap<String, Accumulator>>,
}

/// The latest report of one start of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Accumulator {
    seq: u64,
    n: u64,
    k: u64,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    Counted,
    /// This one or a later one was counted before.
    Duplicate,
    /// Less than the same start had counted before: it is not counted, and somebody should look.
    Regression,
    /// More successes than there were trials.
    Impossible,
    /// There are `ACCUMULATORS` already.
    Full,
}

impl Counters {
    /// `k` of `n` since `boot`, the start of the instance that reports. `seq` rises with each report.
    pub fn report(&mut self, instance: &str, boot: &str, seq: u64, n: u64, k: u64) -> Noted {
        if k > n {
            return Noted::Impossible;
        }
        let report = Accumulator { seq, n, k };
        if let Some(known) = self.instances.get_mut(instance).and_then(|boots| boots.get_mut(boot)) {
            if seq <= known.seq {
                return Noted::Duplicate;
            }
            if n < known.n || k < known.k {
                return Noted::Regression;
            }
            *known = report;
            return Noted::Counted;
        }
        if self.accumulators() >= ACCUMULATORS {
            return Noted::Full;
        }
        self.instances.entry(instance.to_owned()).or_default().insert(boot.to_owned(), report);
        Noted::Counted
    }

    /// (n, k) of all starts of all instances.
    pub fn total(&self) -> (u64, u64) {
        let all = self.instances.values().flat_map(BTreeMap::values);
        all.fold((0u64, 0u64), |(n, k), one| (n.saturating_add(one.n), k.saturating_add(one.k)))
    }

    fn accumulators(&self) -> usize {
        self.instances.values().map(BTreeMap::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_successes_than_trials_are_not_counted() {
        let mut counters = Counters::default();
        assert_eq!(counters.report("a", "1", 1, 2, 3), Noted::Impossible);
        assert_eq!(counters.total(), (0, 0));
    }

    #[test]
    fn a_stage_has_a_largest_size() {
        let mut counters = Counters::default();
        let boots = (0..ACCUMULATORS).map(|boot| (boot.to_string(), Accumulator { seq: 1, n: 1, k: 0 })).collect();
        counters.instances.insert("a".to_owned(), boots);
        assert_eq!(counters.report("b", "1", 1, 9, 9), Noted::Full);
        assert_eq!(counters.report("a", "0", 2, 5, 1), Noted::Counted);
        assert_eq!(counters.total(), (ACCUMULATORS as u64 + 4, 1));
    }
}
