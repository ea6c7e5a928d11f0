//! What a stage can decide, said before it starts: 500 sessions of each variant at a conversion of 10 % certify no more than "not 5.3 points
//! worse", and whoever asks for 2 % of 5 % needs half a million of each.

use std::fmt;

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};
use thiserror::Error;

use super::arm::Arm;
use super::boundary::Boundary;
use super::gate::{ALPHA_FAIL, ALPHA_PASS, Contrast, Direction, Margin, Mode};
use super::mixture::bisect;

/// Of a pass when there is no true effect.
pub const POWER: f64 = 0.8;
/// A stage should have so many times the units of a test that looks once: looking at each moment has its price.
pub const BUDGET: f64 = 2.5;
/// Below this share a relative margin is a wish.
pub const LEAST_RELATIVE_SHARE: f64 = 0.001;

/// What a metric is without the change, as far as anybody knows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Baselines {
    Share(f64),
    /// Of units; that of a ratio has the variance of its clusters.
    Mean {
        mean: f64,
        variance: f64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SampleSize {
    /// Units of the treatment, for one look.
    pub exact: f64,
    pub treatment: u64,
    /// Of both arms, for `Gate::planned_units`.
    pub planned: f64,
    /// Units of the treatment that the stage should have.
    pub budget: u64,
}

/// A stage as the plan has it. `share` of the units is in the treatment, all others are the control.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    pub share: f64,
    pub days: f64,
    pub units_per_day: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Feasibility {
    pub size: SampleSize,
    /// What the stage will have.
    pub treatment: u64,
    pub control: u64,
    /// The budget fits into the stage.
    pub decidable: bool,
    pub units_per_day_needed: f64,
    /// What such a stage can honestly ask for.
    pub mode: Mode,
    /// The smallest loss, absolute, that the stage can rule out when the arms are equal.
    pub certifies: Option<f64>,
    /// The smallest loss, absolute, that it finds with a probability of `POWER`.
    pub detects: Option<f64>,
}

/// A gate that no number of units decides.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Undecidable {
    #[error("{what} is {found}; expected {expected}")]
    Senseless { what: &'static str, found: f64, expected: &'static str },
    #[error(
        "a relative margin of a baseline of {share} cannot be decided; expected a baseline of {LEAST_RELATIVE_SHARE} or more. Give the margin as `absolute`"
    )]
    TooRare { share: f64 },
    #[error("a margin of nothing leaves no room for chance; expected more than 0")]
    NoMargin,
}

/// How many units decide a contrast when there is no true effect. `control_per_treatment` is 99 at 1 %, 1 at 50 %.
pub fn sample_size(
    baseline: Baselines,
    contrast: Contrast,
    control_per_treatment: f64,
    alpha: f64,
    power: f64,
) -> Result<SampleSize, Undecidable> {
    let Contrast { r, delta, .. } = contrast;
    baseline.check()?;
    let at_margin = r * baseline.value() - contrast.sign() * delta;
    let distance = (baseline.value() - r * baseline.value()).abs() + delta;
    let variance_at_margin = match baseline {
        Baselines::Share(_) => Bernoulli(at_margin.clamp(0.0, 1.0)).variance(),
        Baselines::Mean { variance, .. } => r * r * variance,
    };
    size(baseline, variance_at_margin, r, distance, control_per_treatment, alpha, power)
}

fn size(
    baseline: Baselines,
    other_variance: f64,
    r: f64,
    distance: f64,
    control_per_treatment: f64,
    alpha: f64,
    power: f64,
) -> Result<SampleSize, Undecidable> {
    within("alpha", alpha, alpha > 0.0 && alpha < 0.5, "more than 0 and less than 0.5")?;
    within("power", power, power > 0.5 && power < 1.0, "more than 0.5 and less than 1")?;
    let positive = control_per_treatment > 0.0 && control_per_treatment.is_finite();
    within("the control's units for each of the treatment", control_per_treatment, positive, "more than 0")?;
    if distance.is_nan() || distance <= 0.0 {
        return Err(Undecidable::NoMargin);
    }
    let normal = Normal::standard();
    let z = normal.inverse_cdf(1.0 - alpha) + normal.inverse_cdf(power);
    let variance = baseline.variance();
    let exact = z * z * (variance.max(other_variance) + r * r * variance / control_per_treatment) / (distance * distance);
    within("the number of units needed", exact, exact.is_finite(), "a finite one: a larger margin")?;
    let treatment = exact.ceil().max(1.0);
    Ok(SampleSize {
        exact,
        treatment: treatment as u64,
        planned: treatment * (1.0 + control_per_treatment),
        budget: (BUDGET * exact).ceil() as u64,
    })
}

/// The smallest loss, absolute, that so many units rule out when both arms are equal.
pub fn certifiable(baseline: Baselines, direction: Direction, treatment: u64, control: u64, alpha: f64) -> Option<f64> {
    baseline.check().ok()?;
    let units = treatment as f64 + control as f64;
    let critical = Boundary::one_sided(alpha, units).critical(units);
    let (one, zero) = (baseline.arm(treatment, 0.0), baseline.arm(control, 0.0));
    let passes = |delta: f64| {
        let contrast = Contrast::new(direction, Margin::Absolute(delta));
        contrast.measure(&one, &zero).is_some_and(|measured| measured.z > critical)
    };
    smallest(baseline, passes)
}

/// The smallest loss, absolute, that so many units find in `power` of all cases, by the sign that a metric in `no_harm` pauses at.
pub fn detectable(baseline: Baselines, direction: Direction, treatment: u64, control: u64, alpha: f64, power: f64) -> Option<f64> {
    baseline.check().ok()?;
    let units = treatment as f64 + control as f64;
    let reserve = Normal::standard().inverse_cdf(if power > 0.0 && power < 1.0 { power } else { return None });
    let critical = Boundary::one_sided(alpha, units).critical(units) + reserve;
    let (contrast, zero) = (Contrast::none(direction), baseline.arm(control, 0.0));
    let found = |loss: f64| {
        let one = baseline.arm(treatment, -contrast.sign() * loss);
        contrast.measure(&one, &zero).is_some_and(|measured| measured.z < -critical)
    };
    smallest(baseline, found)
}

fn smallest(baseline: Baselines, enough: impl Fn(f64) -> bool) -> Option<f64> {
    let most = match baseline {
        Baselines::Share(_) => 1.0,
        // Nobody can tell a loss of a thousand standard deviations from a broken metric.
        Baselines::Mean { variance, .. } => 1e3 * variance.sqrt(),
    };
    enough(most).then(|| bisect(0.0, most, enough))
}

impl Stage {
    /// Whether the stage is long enough, and what it can say in any case. In `superior` the margin is the gain that is worth finding. Both
    /// sides of `equivalent` must pass, so that each gets half of what may go wrong.
    pub fn feasibility(&self, baseline: Baselines, direction: Direction, margin: Margin, mode: Mode) -> Result<Feasibility, Undecidable> {
        let Self { share, days, units_per_day } = *self;
        within(
            "the share of the treatment",
            share,
            share > 0.0 && share < 1.0,
            "more than 0 and less than 1; at 100 % there is no control",
        )?;
        within("the length of the stage in days", days, days > 0.0 && days.is_finite(), "more than 0")?;
        within("the number of units a day", units_per_day, units_per_day > 0.0 && units_per_day.is_finite(), "more than 0")?;
        baseline.check()?;
        if let (Baselines::Share(rare), Margin::Relative(_)) = (baseline, margin)
            && rare < LEAST_RELATIVE_SHARE
        {
            return Err(Undecidable::TooRare { share: rare });
        }
        let control_per_treatment = (1.0 - share) / share;
        let of = |direction, power| sample_size(baseline, Contrast::new(direction, margin), control_per_treatment, ALPHA_PASS, power);
        let size = match mode {
            Mode::NoHarm | Mode::NonInferior => of(direction, POWER)?,
            Mode::Superior => self.superior(baseline, direction, margin)?,
            Mode::Equivalent => {
                let (low, high) = (of(Direction::Higher, (1.0 + POWER) / 2.0)?, of(Direction::Lower, (1.0 + POWER) / 2.0)?);
                if low.exact > high.exact { low } else { high }
            }
        };
        let units = days * units_per_day;
        let (treatment, control) = ((units * share) as u64, (units * (1.0 - share)) as u64);
        let decidable = treatment >= size.budget;
        Ok(Feasibility {
            size,
            treatment,
            control,
            decidable,
            units_per_day_needed: BUDGET * size.exact / (days * share),
            mode: if decidable { mode } else { Mode::NoHarm },
            certifies: certifiable(baseline, direction, treatment, control, ALPHA_PASS),
            detects: detectable(baseline, direction, treatment, control, ALPHA_FAIL, POWER),
        })
    }

    fn superior(&self, baseline: Baselines, direction: Direction, margin: Margin) -> Result<SampleSize, Undecidable> {
        let gain = match margin {
            Margin::Relative(share) => share * baseline.value().abs(),
            Margin::Absolute(gain) => gain,
        };
        let better = match baseline {
            Baselines::Share(share) => {
                let improved = share + Contrast::none(direction).sign() * gain;
                Bernoulli(improved.clamp(0.0, 1.0)).variance()
            }
            Baselines::Mean { variance, .. } => variance,
        };
        size(baseline, better, 1.0, gain, (1.0 - self.share) / self.share, ALPHA_PASS, POWER)
    }
}

struct Bernoulli(f64);

impl Bernoulli {
    fn variance(&self) -> f64 {
        self.0 * (1.0 - self.0)
    }
}

impl Baselines {
    fn value(self) -> f64 {
        match self {
            Self::Share(share) => share,
            Self::Mean { mean, .. } => mean,
        }
    }

    fn variance(self) -> f64 {
        match self {
            Self::Share(share) => Bernoulli(share).variance(),
            Self::Mean { variance, .. } => variance,
        }
    }

    fn check(self) -> Result<(), Undecidable> {
        match self {
            Self::Share(share) => within("the baseline", share, (0.0..=1.0).contains(&share), "a share between 0 and 1"),
            Self::Mean { mean, variance } => {
                within("the baseline", mean, mean.is_finite(), "a number")?;
                within("the variance of the baseline", variance, variance > 0.0 && variance.is_finite(), "more than 0")
            }
        }
    }

    /// So many units that behave exactly like this, moved by `shift`.
    fn arm(self, units: u64, shift: f64) -> Arm {
        let n = units as f64;
        match self {
            Self::Share(share) => Arm::Binomial { n: units, k: ((share + shift).clamp(0.0, 1.0) * n).round() as u64 },
            Self::Mean { mean, variance } => Arm::Mean { n: units, sum: 0.0, sum_sq: variance * (n - 1.0).max(0.0), origin: mean + shift },
        }
    }
}

fn within(what: &'static str, found: f64, fits: bool, expected: &'static str) -> Result<(), Undecidable> {
    if fits { Ok(()) } else { Err(Undecidable::Senseless { what, found, expected }) }
}

impl fmt::Display for Feasibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, treatment, decidable, units_per_day_needed, certifies, detects, .. } = self;
        if *decidable {
            return write!(f, "decidable: {} treated units are needed, {treatment} expected", size.budget);
        }
        write!(
            f,
            "not decidable: {} treated units are needed, {treatment} expected; it takes {:.0} units a day",
            size.budget,
            units_per_day_needed.ceil()
        )?;
        if let Some(certifies) = certifies {
            write!(f, ", or a margin of {certifies:.3} (absolute)")?;
        }
        match detects {
            Some(detects) => write!(f, "; `no_harm` finds a loss of {detects:.3}"),
            None => write!(f, "; no loss would be found at all"),
        }
    }
}
