//! Intervals for people: the difference of two arms and the lift in percent, true at every look like the gate itself.

use serde::{Deserialize, Serialize};

use super::arm::Arm;
use super::boundary::Boundary;

/// Ends included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

impl Interval {
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// Treatment minus control. Estimates come with the square of their standard error.
pub fn difference(treatment: (f64, f64), control: (f64, f64), critical: f64) -> Option<Interval> {
    let ((x1, error1), (x0, error0)) = (treatment, control);
    let half = critical * (error1 + error0).sqrt();
    let interval = Interval { low: x1 - x0 - half, high: x1 - x0 + half };
    (interval.low.is_finite() && interval.high.is_finite()).then_some(interval)
}

/// How much larger than the control, as a share of it, by Fieller: no division by a baseline that may be noise. `None` while the baseline
/// itself may be zero, because then every lift is possible.
pub fn lift(treatment: (f64, f64), control: (f64, f64), critical: f64) -> Option<Interval> {
    let ((x1, error1), (x0, error0)) = (treatment, control);
    let squared = critical * critical;
    let (a, half_b, c) = (x0 * x0 - squared * error0, x1 * x0, x1 * x1 - squared * error1);
    let root = (half_b * half_b - a * c).sqrt();
    let (low, high) = ((half_b - root) / a - 1.0, (half_b + root) / a - 1.0);
    (a > 0.0 && low.is_finite() && high.is_finite()).then_some(Interval { low, high })
}

/// Both, with the arms' own variances.
pub(super) fn intervals(treatment: &Arm, control: &Arm, alpha: f64, planned_units: f64) -> (Option<Interval>, Option<Interval>) {
    let estimated = |arm: &Arm| Some((arm.estimate()?, arm.variance()? / arm.units() as f64));
    let (Some(one), Some(zero)) = (estimated(treatment), estimated(control)) else { return (None, None) };
    let units = treatment.units() as f64 + control.units() as f64;
    let critical = Boundary::two_sided(alpha, planned_units).critical(units);
    (difference(one, zero, critical), lift(one, zero, critical))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_baseline_that_may_be_zero_has_no_lift() {
        assert_eq!(lift((0.1, 1e-4), (0.01, 1e-4), 3.0), None);
        assert_eq!(lift((0.1, 1e-4), (0.0, 0.0), 3.0), None);
        assert_eq!(lift((0.1, 1e-4), (0.1, 1e-4), f64::INFINITY), None);
        assert!(lift((0.1, 1e-6), (0.1, 1e-6), 3.0).unwrap().contains(0.0));
    }
}
