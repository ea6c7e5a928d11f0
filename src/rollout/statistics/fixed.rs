//! The option `test: fixed`: one look at the planned size, as textbooks have it. Before that nothing is said, and afterwards nothing changes.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ChiSquared, ContinuousCDF, Normal, StudentsT};

use super::arm::Arm;
use super::display::Interval;
use super::gate::Contrast;
use super::mixture::bisect;

/// Of Student's t at 2.5 %: with one degree of freedom it is 12.7.
const LARGEST_CRITICAL: f64 = 1e6;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WelchTest {
    pub t: f64,
    pub df: f64,
    /// Two-sided.
    pub p: f64,
    /// 95 % of the difference.
    pub interval: Interval,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ProportionTest {
    pub z: f64,
    pub p: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ChiSquare {
    pub statistic: f64,
    pub p: f64,
}

/// One-sided, with `alpha` and the units of each arm that were planned.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Fixed {
    pub contrast: Contrast,
    pub alpha: f64,
    pub planned_treatment: u64,
    pub planned_control: u64,
}

/// To be kept: whoever computes it again with more units has looked twice.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FixedResult {
    pub statistic: f64,
    pub p: f64,
    pub passes: bool,
}

impl Fixed {
    /// `None` until both arms have their units, and of what cannot be. Means by Welch's t, all else by z.
    pub fn judge(&self, treatment: &Arm, control: &Arm) -> Option<FixedResult> {
        let Self { contrast, alpha, planned_treatment, planned_control } = *self;
        if treatment.units() < planned_treatment || control.units() < planned_control || !treatment.is_like(control) {
            return None;
        }
        let spread = |arm: &Arm| match arm {
            Arm::Binomial { .. } => arm.estimate().map(|share| share * (1.0 - share)),
            Arm::Mean { .. } | Arm::Ratio { .. } => arm.variance(),
        };
        let error1 = spread(treatment)? / treatment.units() as f64;
        let error0 = contrast.r * contrast.r * spread(control)? / control.units() as f64;
        let psi = treatment.estimate()? - contrast.r * control.estimate()?;
        let statistic = (contrast.sign() * psi + contrast.delta) / (error1 + error0).sqrt();
        if !statistic.is_finite() {
            return None;
        }
        let p = match treatment {
            Arm::Mean { .. } => StudentsT::new(0.0, 1.0, freedom(error1, error0, treatment, control)).ok()?.sf(statistic),
            Arm::Binomial { .. } | Arm::Ratio { .. } => normal_above(statistic),
        };
        Some(FixedResult { statistic, p, passes: p < alpha })
    }
}

/// Two means, with variances that may differ.
pub fn welch(treatment: &Arm, control: &Arm) -> Option<WelchTest> {
    if !matches!((treatment, control), (Arm::Mean { .. }, Arm::Mean { .. })) {
        return None;
    }
    let error = |arm: &Arm| arm.variance().map(|variance| variance / arm.units() as f64);
    let (error1, error0) = (error(treatment)?, error(control)?);
    let (difference, se) = (treatment.estimate()? - control.estimate()?, (error1 + error0).sqrt());
    let (t, df) = (difference / se, freedom(error1, error0, treatment, control));
    if !t.is_finite() || !df.is_finite() {
        return None;
    }
    let distribution = StudentsT::new(0.0, 1.0, df).ok()?;
    // statrs' own inverse does not end for some degrees of freedom.
    let half = bisect(0.0, LARGEST_CRITICAL, |t| distribution.sf(t) < 0.025) * se;
    Some(WelchTest {
        t,
        df,
        p: (2.0 * distribution.sf(t.abs())).min(1.0),
        interval: Interval { low: difference - half, high: difference + half },
    })
}

/// Two shares, two-sided, with the variance of both together.
pub fn two_proportions(treatment: &Arm, control: &Arm) -> Option<ProportionTest> {
    let (Arm::Binomial { n, k }, Arm::Binomial { .. }) = (treatment.merge(control)?, treatment) else { return None };
    let together = k as f64 / n as f64;
    let each = 1.0 / treatment.units() as f64 + 1.0 / control.units() as f64;
    let z = (treatment.estimate()? - control.estimate()?) / (together * (1.0 - together) * each).sqrt();
    z.is_finite().then(|| ProportionTest { z, p: (2.0 * normal_above(z.abs())).min(1.0) })
}

/// Whether the treatment is less than the margin worse, one-sided.
pub fn non_inferiority(contrast: Contrast, treatment: &Arm, control: &Arm) -> Option<ProportionTest> {
    let fixed = Fixed { contrast, alpha: 0.0, planned_treatment: 0, planned_control: 0 };
    matches!(treatment, Arm::Binomial { .. })
        .then(|| fixed.judge(treatment, control))
        .flatten()
        .map(|result| ProportionTest { z: result.statistic, p: result.p })
}

/// Sample ratio at one look. Looked at again and again it is wrong in one healthy stage of forty; `sample_ratio` is not.
pub fn chi_square(counts: &[u64], allocation: &[f64]) -> Option<ChiSquare> {
    let (units, whole) = (counts.iter().map(|count| *count as f64).sum::<f64>(), allocation.iter().sum::<f64>());
    if counts.len() != allocation.len() || counts.len() < 2 || allocation.iter().any(|weight| *weight <= 0.0) {
        return None;
    }
    let cell = |(count, weight): (&u64, &f64)| {
        let expected = units * weight / whole;
        (*count as f64 - expected).powi(2) / expected
    };
    let statistic: f64 = counts.iter().zip(allocation).map(cell).sum();
    let distribution = ChiSquared::new(counts.len() as f64 - 1.0).ok()?;
    statistic.is_finite().then(|| ChiSquare { statistic, p: distribution.sf(statistic) })
}

/// Welch and Satterthwaite's.
fn freedom(error1: f64, error0: f64, treatment: &Arm, control: &Arm) -> f64 {
    let (n1, n0) = (treatment.units() as f64, control.units() as f64);
    (error1 + error0).powi(2) / (error1 * error1 / (n1 - 1.0) + error0 * error0 / (n0 - 1.0))
}

fn normal_above(z: f64) -> f64 {
    Normal::standard().sf(z)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::statistics::{Direction, Margin};

    #[test]
    fn nothing_is_said_before_the_planned_size() {
        let fixed = Fixed {
            contrast: Contrast::new(Direction::Higher, Margin::Absolute(0.02)),
            alpha: 0.05,
            planned_treatment: 500,
            planned_control: 600,
        };
        let arm = |n: u64| Arm::Binomial { n, k: n / 10 };
        assert_eq!(fixed.judge(&arm(499), &arm(600)), None);
        assert_eq!(fixed.judge(&arm(500), &arm(599)), None);
        assert!(fixed.judge(&arm(500), &arm(600)).is_some_and(|result| !result.passes));
        assert!(fixed.judge(&arm(5000), &arm(6000)).is_some_and(|result| result.passes));
    }

    #[test]
    fn what_cannot_be_tested_is_not() {
        let share = Arm::Binomial { n: 10, k: 0 };
        let mean = |n: u64, sum_sq: f64| Arm::Mean { n, sum: 10.0, sum_sq, origin: 0.0 };
        assert_eq!(two_proportions(&share, &share), None);
        assert_eq!(two_proportions(&mean(9, 20.0), &mean(9, 20.0)), None);
        assert_eq!(welch(&share, &share), None);
        assert_eq!(welch(&mean(1, 100.0), &mean(9, 20.0)), None);
        assert_eq!(welch(&mean(10, 10.0), &mean(10, 10.0)), None);
        assert_eq!(chi_square(&[1, 2], &[0.0, 1.0]), None);
        assert_eq!(chi_square(&[0, 0], &[0.5, 0.5]), None);
        assert_eq!(chi_square(&[1], &[1.0]), None);
    }
}
