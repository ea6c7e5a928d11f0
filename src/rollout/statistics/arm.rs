//! What is kept of one arm: counts and sums, from which everything is computed and which add up.

use serde::{Deserialize, Serialize};

/// Sufficient statistics of the units of one variant, each unit once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Arm {
    /// `k` of `n` units.
    Binomial { n: u64, k: u64 },
    /// Sums of `x - origin` and its square: about an origin that is declared, because about zero the variance of large values cancels out.
    Mean { n: u64, sum: f64, sum_sq: f64, origin: f64 },
    /// The sum of x over the sum of y of `m` units: errors over requests with the user as unit, because the requests of one user are alike.
    Ratio { m: u64, sx: f64, sy: f64, sxx: f64, syy: f64, sxy: f64 },
}

impl Arm {
    pub fn units(&self) -> u64 {
        match *self {
            Self::Binomial { n, .. } | Self::Mean { n, .. } => n,
            Self::Ratio { m, .. } => m,
        }
    }

    /// False of what no units can have brought about: more successes than units, sums that are no numbers, squares below zero.
    pub fn is_possible(&self) -> bool {
        match *self {
            Self::Binomial { n, k } => k <= n,
            Self::Mean { n, sum, sum_sq, origin } => {
                let finite = [sum, sum_sq, origin].into_iter().all(f64::is_finite);
                finite && sum_sq >= 0.0 && (n > 0 || (sum == 0.0 && sum_sq == 0.0))
            }
            Self::Ratio { m, sx, sy, sxx, syy, sxy } => {
                let sums = [sx, sy, sxx, syy, sxy];
                sums.into_iter().all(|sum| sum.is_finite() && sum >= 0.0) && (m > 0 || sums == [0.0; 5])
            }
        }
    }

    /// The share, the mean or the ratio; `None` without data.
    pub fn estimate(&self) -> Option<f64> {
        let estimate = match *self {
            Self::Binomial { n, k } => k as f64 / n as f64,
            Self::Mean { n, sum, origin, .. } => origin + sum / n as f64,
            Self::Ratio { sx, sy, .. } => sx / sy,
        };
        (self.is_possible() && estimate.is_finite()).then_some(estimate)
    }

    /// Variance of one unit. A share gets one success and one failure more than it had: with none of 500 it would be certain of itself.
    pub fn variance(&self) -> Option<f64> {
        let variance = match *self {
            Self::Binomial { .. } => {
                let share = self.share_plus_one();
                share * (1.0 - share)
            }
            Self::Mean { n, sum, sum_sq, .. } => central(n as f64, sum, sum, sum_sq).max(0.0),
            Self::Ratio { m, sx, sy, sxx, syy, sxy } => {
                let (m, ratio) = (m as f64, sx / sy);
                let (x, y, both) = (central(m, sx, sx, sxx), central(m, sy, sy, syy), central(m, sx, sy, sxy));
                ((x - 2.0 * ratio * both + ratio * ratio * y) / (sy / m).powi(2)).max(0.0)
            }
        };
        let enough = matches!(self, Self::Binomial { .. }) || self.units() > 1;
        (self.estimate().is_some() && enough && variance.is_finite()).then_some(variance)
    }

    /// (k + 1) / (n + 2) of a share, else the estimate.
    pub(super) fn share_plus_one(&self) -> f64 {
        match *self {
            Self::Binomial { n, k } => (k as f64 + 1.0) / (n as f64 + 2.0),
            Self::Mean { .. } | Self::Ratio { .. } => self.estimate().unwrap_or(f64::NAN),
        }
    }

    /// Both together; `None` when they are of different kinds or sums about different origins.
    pub fn merge(&self, other: &Self) -> Option<Self> {
        match (*self, *other) {
            (Self::Binomial { n, k }, Self::Binomial { n: more, k: good }) => {
                Some(Self::Binomial { n: n.saturating_add(more), k: k.saturating_add(good) })
            }
            (Self::Mean { n, sum, sum_sq, origin }, Self::Mean { n: more, sum: s, sum_sq: q, origin: other }) if origin == other => {
                Some(Self::Mean { n: n.saturating_add(more), sum: sum + s, sum_sq: sum_sq + q, origin })
            }
            (Self::Ratio { m, sx, sy, sxx, syy, sxy }, Self::Ratio { m: more, sx: x, sy: y, sxx: xx, syy: yy, sxy: xy }) => {
                Some(Self::Ratio { m: m.saturating_add(more), sx: sx + x, sy: sy + y, sxx: sxx + xx, syy: syy + yy, sxy: sxy + xy })
            }
            _ => None,
        }
    }

    pub(super) fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// Sample covariance of n pairs from their sums and the sum of their products; that of a thing with itself is its variance.
fn central(n: f64, sum: f64, other: f64, products: f64) -> f64 {
    (products - sum * other / n) / (n - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_about_its_origin_keeps_the_digits_that_matter() {
        let values = [1e9 + 1.0, 1e9 + 2.0, 1e9 + 3.0];
        let sums = |origin: f64| Arm::Mean {
            n: 3,
            sum: values.iter().map(|value| value - origin).sum(),
            sum_sq: values.iter().map(|value| (value - origin).powi(2)).sum(),
            origin,
        };
        assert_eq!(sums(1e9).variance(), Some(1.0));
        assert_eq!(sums(1e9).estimate(), Some(1e9 + 2.0));
        assert_ne!(sums(0.0).variance(), Some(1.0));
    }

    #[test]
    fn what_cannot_be_has_no_estimate() {
        for arm in [
            Arm::Binomial { n: 3, k: 4 },
            Arm::Binomial { n: 0, k: 0 },
            Arm::Mean { n: 9, sum: f64::NAN, sum_sq: 1.0, origin: 0.0 },
            Arm::Mean { n: 9, sum: 1.0, sum_sq: f64::INFINITY, origin: 0.0 },
            Arm::Mean { n: 9, sum: 1.0, sum_sq: -1.0, origin: 0.0 },
            Arm::Ratio { m: 9, sx: 1.0, sy: 0.0, sxx: 1.0, syy: 0.0, sxy: 0.0 },
            Arm::Ratio { m: 9, sx: -1.0, sy: 1.0, sxx: 1.0, syy: 1.0, sxy: 1.0 },
        ] {
            assert_eq!((arm.estimate(), arm.variance()), (None, None), "{arm:?}");
        }
    }

    #[test]
    fn arms_of_different_kinds_do_not_add_up() {
        let share = Arm::Binomial { n: 3, k: 1 };
        let mean = |origin| Arm::Mean { n: 1, sum: 1.0, sum_sq: 1.0, origin };
        assert_eq!(share.merge(&mean(0.0)), None);
        assert_eq!(mean(0.0).merge(&mean(1.0)), None);
        assert_eq!(share.merge(&share), Some(Arm::Binomial { n: 6, k: 2 }));
    }
}
