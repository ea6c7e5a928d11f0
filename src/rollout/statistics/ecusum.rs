//! The trigger: finds that a failure rate has risen within seconds, and kills a healthy rollout in one of a hundred at most.
//!
//! It is change detection and no comparison of two arms: a test that adds up everything since the start is slow after days of health. Each
//! tick bets on four ways in which the rate could have risen, and forgets what it lost. If in every tick a failure is no more likely than
//! `p0`, the chance to fire in `h` ticks is at most `h / A` (Shiryaev and Roberts).

use serde::{Deserialize, Serialize};

use super::mixture::ln_mean_exp;

/// By how much the odds of a failure may have risen.
pub const ODDS: [f64; 4] = [1.5, 2.0, 4.0, 10.0];
/// That must have failed within the last minute, or one broken client could kill a rollout.
pub const DISTINCT_FAILING_UNITS: usize = 3;
/// Thresholds are held between this and one minus it: a single failure where none may be would decide alone.
const LEAST: f64 = 1e-6;

/// One bet for each of `ODDS`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Cusum {
    bets: [f64; ODDS.len()],
}

/// ln A: of so many ticks, with so many triggers that share `alpha`.
pub fn ln_threshold(horizon_ticks: u64, triggers: u64, alpha: f64) -> f64 {
    let threshold = (horizon_ticks.max(1) as f64).ln() + (triggers.max(1) as f64).ln() - alpha.ln();
    // With an alpha that makes no sense it never fires.
    if threshold.is_nan() || alpha >= 1.0 { f64::INFINITY } else { threshold }
}

impl Cusum {
    /// `failures` of `requests` in one tick, whose failure rate should be at most `p0`. False when the tick does not count: without a
    /// request, and when it cannot be.
    pub fn step(&mut self, requests: u64, failures: u64, p0: f64) -> bool {
        if requests == 0 || failures > requests || p0.is_nan() {
            return false;
        }
        let p0 = p0.clamp(LEAST, 1.0 - LEAST);
        let odds = p0 / (1.0 - p0);
        let (failed, fine) = (failures as f64, (requests - failures) as f64);
        for (bet, multiplier) in self.bets.iter_mut().zip(ODDS) {
            let p1 = odds * multiplier / (1.0 + odds * multiplier);
            let won = if failures > 0 { failed * (p1 / p0).ln() } else { 0.0 };
            *bet = bet.max(0.0) + won + fine * ((1.0 - p1) / (1.0 - p0)).ln();
        }
        true
    }

    /// Forgets what is more than it takes to fire. A trigger that fires and is not acted on would otherwise remember an incident for longer
    /// than it lasted.
    pub fn settle(&mut self, ln_threshold: f64) {
        // So much above it one bet fires alone.
        let most = ln_threshold + (ODDS.len() as f64).ln() + 1.0;
        self.bets.iter_mut().for_each(|bet| *bet = bet.min(most));
    }

    /// The evidence of a rise.
    pub fn ln_evidence(&self) -> f64 {
        ln_mean_exp(&self.bets)
    }

    /// `failing_units`: how many different ones failed within the last minute.
    pub fn fires(&self, ln_threshold: f64, failing_units: usize) -> bool {
        // The mean is never above the largest, and almost every tick ends there.
        self.bets.iter().any(|bet| *bet >= ln_threshold) && self.ln_evidence() >= ln_threshold && failing_units >= DISTINCT_FAILING_UNITS
    }

    pub fn bets(&self) -> [f64; ODDS.len()] {
        self.bets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_that_cannot_be_does_not_count() {
        let mut cusum = Cusum::default();
        assert!(!cusum.step(0, 0, 0.05));
        assert!(!cusum.step(3, 4, 0.05));
        assert!(!cusum.step(3, 1, f64::NAN));
        assert_eq!(cusum, Cusum::default());
        for p0 in [0.0, 1.0, -3.0, f64::INFINITY] {
            assert!(cusum.step(u64::MAX, u64::MAX, p0));
            assert!(cusum.ln_evidence().is_finite(), "{p0}");
        }
    }

    #[test]
    fn a_few_failing_units_never_fire() {
        let mut cusum = Cusum::default();
        cusum.step(20, 20, 0.05);
        let ln_a = ln_threshold(14 * 86_400, 1, 0.01);
        assert!(!cusum.fires(ln_a, DISTINCT_FAILING_UNITS - 1));
        assert!(cusum.fires(ln_a, DISTINCT_FAILING_UNITS));
    }

    #[test]
    fn what_is_settled_fires_and_soon_ceases_to() {
        let (mut cusum, ln_a) = (Cusum::default(), ln_threshold(14 * 86_400, 1, 0.01));
        cusum.step(100_000, 50_000, 0.05);
        cusum.settle(ln_a);
        assert!(cusum.fires(ln_a, DISTINCT_FAILING_UNITS));
        (0..10).for_each(|_| _ = cusum.step(20, 0, 0.05));
        assert!(!cusum.fires(ln_a, DISTINCT_FAILING_UNITS));
    }

    #[test]
    fn an_alpha_that_makes_no_sense_never_fires() {
        for alpha in [0.0, -0.1, f64::NAN, 1.0] {
            assert_eq!(ln_threshold(100, 1, alpha), f64::INFINITY, "{alpha}");
        }
    }
}
