//! The threshold of a trigger that compares with the control ("success drops by more than 10 %"): it moves with the control's failures.
//!
//! A threshold that was measured yesterday kills in every shared outage; this one rises with it. It is the largest of three windows, so that
//! it is neither late in a shared incident nor low by chance.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::gate::Margin;

/// Below this many requests of the control a window says nothing.
pub const LEAST_REQUESTS: u64 = 20;
/// No threshold is above it: a control that fails as a whole must not switch the trigger off.
pub const BASELINE_CAP: f64 = 0.95;
/// The middle window.
const TICKS: usize = 10;
/// The long window: what is so many ticks old weighs 1/e.
const LONG_TICKS: f64 = 3600.0;

/// What the control has done lately. One `observe` a tick (a second), before the treatment's own tick is judged.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Baseline {
    /// (requests, failures), the latest last.
    ticks: VecDeque<(u64, u64)>,
    long_requests: f64,
    long_failures: f64,
    frozen: Option<f64>,
}

/// The failure rate that the treatment may have.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    pub p0: f64,
    /// Of the last stage that had a control.
    pub frozen: bool,
}

impl Baseline {
    /// A tick of the control. Of a frozen baseline nothing changes.
    pub fn observe(&mut self, requests: u64, failures: u64) {
        if failures > requests || self.frozen.is_some() {
            return;
        }
        if self.ticks.len() >= TICKS {
            self.ticks.pop_front();
        }
        self.ticks.push_back((requests, failures));
        let keep = (-1.0 / LONG_TICKS).exp();
        self.long_requests = self.long_requests * keep + requests as f64;
        self.long_failures = self.long_failures * keep + failures as f64;
    }

    /// At 100 % nobody is left to compare with: what was known last stays. False when nothing was known.
    pub fn freeze(&mut self) -> bool {
        self.frozen = self.frozen.or(self.failure_rate());
        self.frozen.is_some()
    }

    /// `None` until the control has had enough requests: then there is nothing to compare with, and the trigger takes no step.
    pub fn threshold(&self, drop: Margin) -> Option<Threshold> {
        let failing = self.failure_rate()?;
        let p0 = match drop {
            Margin::Relative(share) => 1.0 - (1.0 - share) * (1.0 - failing),
            Margin::Absolute(points) => failing + points,
        };
        (p0 >= 0.0).then(|| Threshold { p0: p0.min(BASELINE_CAP), frozen: self.frozen.is_some() })
    }

    /// The largest of the windows, as it is: of whom everybody fails nobody can be worse. `None` until the control has had enough requests.
    pub fn failure_rate(&self) -> Option<f64> {
        if self.frozen.is_some() {
            return self.frozen;
        }
        let now = self.ticks.back().copied().unwrap_or_default();
        let lately = self.ticks.iter().fold((0u64, 0u64), |(n, k), (more, failed)| (n.saturating_add(*more), k.saturating_add(*failed)));
        let windows = [(now.0 as f64, now.1 as f64), (lately.0 as f64, lately.1 as f64), (self.long_requests, self.long_failures)];
        let enough = windows.into_iter().filter(|(requests, _)| *requests >= LEAST_REQUESTS as f64);
        enough.map(|(requests, failures)| failures / requests).reduce(f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DROP: Margin = Margin::Relative(0.1);

    fn p0(baseline: &Baseline) -> Option<f64> {
        baseline.threshold(DROP).map(|threshold| threshold.p0)
    }

    #[test]
    fn a_control_without_requests_is_no_baseline() {
        let mut baseline = Baseline::default();
        assert_eq!(p0(&baseline), None);
        assert!(!baseline.freeze());
        baseline.observe(LEAST_REQUESTS - 1, 0);
        assert_eq!(p0(&baseline), None);
        baseline.observe(LEAST_REQUESTS, 0);
        assert!((p0(&baseline).unwrap() - 0.1).abs() < 1e-12);
    }

    #[test]
    fn a_shared_incident_raises_the_threshold_in_its_first_tick() {
        let mut baseline = Baseline::default();
        (0..3600).for_each(|_| baseline.observe(100, 3));
        assert!((p0(&baseline).unwrap() - 0.127).abs() < 1e-9);
        baseline.observe(100, 40);
        assert!((p0(&baseline).unwrap() - (1.0 - 0.9 * 0.6)).abs() < 1e-9);
        (0..TICKS - 1).for_each(|_| baseline.observe(100, 3));
        // Still among the last ten seconds, then only in the last hour.
        assert!((p0(&baseline).unwrap() - (1.0 - 0.9 * (1.0 - 0.067))).abs() < 1e-9);
        baseline.observe(100, 3);
        assert!((0.127..0.1275).contains(&p0(&baseline).unwrap()));
    }

    #[test]
    fn a_control_that_fails_as_a_whole_leaves_the_trigger_on() {
        let mut baseline = Baseline::default();
        baseline.observe(100, 100);
        assert_eq!(p0(&baseline), Some(BASELINE_CAP));
        assert_eq!(baseline.threshold(Margin::Absolute(0.1)).unwrap().p0, BASELINE_CAP);
        assert_eq!(baseline.threshold(Margin::Absolute(f64::NAN)), None);
    }

    #[test]
    fn at_the_end_the_last_baseline_stays() {
        let mut baseline = Baseline::default();
        baseline.observe(100, 3);
        assert!(baseline.freeze());
        baseline.observe(100, 90);
        assert_eq!(baseline.threshold(DROP), Some(Threshold { p0: 1.0 - 0.9 * 0.97, frozen: true }));
    }
}
