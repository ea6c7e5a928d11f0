//! The test of two arms: is the treatment proven to be good enough, proven to be worse than the margin, or neither yet?
//!
//! Margins are a linear contrast, `treatment - r * control` against `-delta`: relative and absolute ones are one formula and nothing is
//! divided by the baseline. The treatment's variance is the larger of its own and of what it would be at the margin: with its own alone, a
//! canary that has not failed yet looks certain, and a rare error passes in three of four cases.

use serde::{Deserialize, Serialize};

use super::arm::Arm;
use super::boundary::Boundary;
use super::display::{self, Interval};

/// Of a false pass, one-sided. Every required metric must pass, so that it is not divided among metrics.
pub const ALPHA_PASS: f64 = 0.05;
/// Of a false fail in a step, to be divided among metrics and variants: any of them may stop it.
pub const ALPHA_FAIL: f64 = 0.01;
/// In each arm, before anything is said: the bound is asymptotic.
pub const BURN_IN: u64 = 100;
/// In each arm, before a gate may pass.
pub const MIN_UNITS: u64 = 500;
/// Of the intervals that are shown.
const ALPHA_DISPLAY: f64 = 0.05;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Higher,
    Lower,
}

/// How much worse is still good enough. There is no default unit: "2 %" of a share of 10 % is 8 % or 9.8 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Margin {
    Relative(f64),
    Absolute(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Not proven to be worse than the margin, and no sign of being worse at all: for stages too small for more.
    NoHarm,
    /// Proven not to be worse than the margin.
    NonInferior,
    /// Proven to be better.
    Superior,
    /// Proven to be within the margin on both sides: an improvement beyond it fails too. This is the direction `none`.
    Equivalent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Pass,
    Fail,
    Wait,
}

impl Verdict {
    /// With what was said before in the same stage: a pass stays, and a fail wins over everything.
    pub fn after(self, before: Self) -> Self {
        match (before, self) {
            (Self::Fail, _) | (_, Self::Fail) => Self::Fail,
            (Self::Pass, _) | (_, Self::Pass) => Self::Pass,
            (Self::Wait, Self::Wait) => Self::Wait,
        }
    }
}

/// Why a gate says nothing yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Waiting {
    /// An arm has no units, or a ratio has nothing below its line.
    NoData,
    /// What was reported cannot be, or the gate itself makes no sense.
    Impossible { what: String },
    /// Every unit of both arms has the same value.
    ZeroVariance,
    /// Five percent below a negative number is above it.
    NegativeBaseline,
    /// Too few units in an arm to say anything.
    BurnIn { units: u64, needed: u64 },
    /// Good enough, of too few units.
    MinUnits { units: u64, needed: u64 },
    /// Between the bounds.
    Undecided,
}

/// One comparison: `treatment - r * control` against `-delta`, in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Contrast {
    pub direction: Direction,
    pub r: f64,
    pub delta: f64,
}

/// A contrast in numbers, before any bound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Of the treatment's units themselves, and what the margin would make of the control's.
    pub variance_own: f64,
    pub variance_at_margin: f64,
    pub variance_control: f64,
    pub psi: f64,
    pub se: f64,
    /// Positive is good, whatever the direction.
    pub z: f64,
}

/// A contrast with its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tested {
    pub contrast: Contrast,
    pub measured: Measured,
    pub critical_pass: f64,
    pub critical_fail: f64,
    /// Passes when it is above the margin, fails when the other is below it; both with the sign that makes more better.
    pub bound_pass: f64,
    pub bound_fail: f64,
    pub margin: f64,
    /// Anytime-valid, one-sided.
    pub p_pass: f64,
    pub p_fail: f64,
    pub verdict: Verdict,
}

/// What a metric has to show. `planned_units` is that of both arms together when the stage starts (`SampleSize::planned`), and stays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    pub direction: Direction,
    pub margin: Margin,
    pub mode: Mode,
    pub planned_units: f64,
    pub alpha_pass: f64,
    pub alpha_fail: f64,
    pub min_units: u64,
}

/// All that a gate says of two arms; with its inputs it can be computed again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    pub verdict: Verdict,
    /// Proven to be worse than the control, if not than the margin.
    pub warn: bool,
    /// Always there when the verdict is to wait.
    pub waiting: Option<Waiting>,
    pub treatment: Option<f64>,
    pub control: Option<f64>,
    /// One, or two of `Equivalent`: not too low, not too high. None when there is nothing to compute.
    pub tests: Vec<Tested>,
    pub difference: Option<Interval>,
    pub lift: Option<Interval>,
}

impl Direction {
    fn sign(self) -> f64 {
        match self {
            Self::Higher => 1.0,
            Self::Lower => -1.0,
        }
    }
}

impl Contrast {
    pub fn new(direction: Direction, margin: Margin) -> Self {
        match margin {
            Margin::Relative(share) => Self { direction, r: 1.0 - direction.sign() * share, delta: 0.0 },
            Margin::Absolute(delta) => Self { direction, r: 1.0, delta },
        }
    }

    /// Against no difference at all.
    pub fn none(direction: Direction) -> Self {
        Self { direction, r: 1.0, delta: 0.0 }
    }

    /// -1 where less is better, so that what is multiplied by it is better when it is more.
    pub(super) fn sign(&self) -> f64 {
        self.direction.sign()
    }

    /// `None` without data. A standard error of zero makes z zero.
    pub fn measure(&self, treatment: &Arm, control: &Arm) -> Option<Measured> {
        let Self { direction, r, delta } = *self;
        let (x1, x0) = (treatment.estimate()?, control.estimate()?);
        let (variance_own, variance_control) = (treatment.variance()?, control.variance()?);
        let variance_at_margin = match treatment {
            Arm::Binomial { .. } => {
                let share = (r * control.share_plus_one() - direction.sign() * delta).clamp(0.0, 1.0);
                share * (1.0 - share)
            }
            Arm::Mean { .. } | Arm::Ratio { .. } => r * r * variance_control,
        };
        let (n1, n0) = (treatment.units() as f64, control.units() as f64);
        let psi = x1 - r * x0;
        let se = (variance_own.max(variance_at_margin) / n1 + r * r * variance_control / n0).sqrt();
        let z = if se > 0.0 { (direction.sign() * psi + delta) / se } else { 0.0 };
        (treatment.is_like(control) && [psi, se, z, variance_at_margin].into_iter().all(f64::is_finite)).then_some(Measured {
            variance_own,
            variance_at_margin,
            variance_control,
            psi,
            se,
            z,
        })
    }
}

impl Gate {
    /// With the defaults of everything that the metric does not declare.
    pub fn new(direction: Direction, margin: Margin, mode: Mode, planned_units: f64) -> Self {
        Self { direction, margin, mode, planned_units, alpha_pass: ALPHA_PASS, alpha_fail: ALPHA_FAIL, min_units: MIN_UNITS }
    }

    /// What is compared: one contrast, or two of `Equivalent`.
    pub fn contrasts(&self) -> Vec<Contrast> {
        match self.mode {
            Mode::NoHarm | Mode::NonInferior => vec![Contrast::new(self.direction, self.margin)],
            Mode::Superior => vec![Contrast::none(self.direction)],
            Mode::Equivalent => vec![Contrast::new(Direction::Higher, self.margin), Contrast::new(Direction::Lower, self.margin)],
        }
    }

    pub fn judge(&self, treatment: &Arm, control: &Arm) -> Judgement {
        let tests: Vec<Tested> = match self.impossible(treatment, control) {
            None => self.contrasts().into_iter().filter_map(|contrast| self.test(contrast, treatment, control)).collect(),
            Some(_) => Vec::new(),
        };
        let cannot = self.cannot_say(treatment, control, &tests);
        let (verdict, waiting) = match cannot {
            Some(waiting) => (Verdict::Wait, Some(waiting)),
            None => self.verdict(treatment, control, &tests),
        };
        let silent = matches!(waiting, Some(Waiting::NoData | Waiting::Impossible { .. } | Waiting::ZeroVariance | Waiting::BurnIn { .. }));
        let (difference, lift) = match tests.is_empty() {
            true => (None, None),
            false => display::intervals(treatment, control, ALPHA_DISPLAY, self.planned_units),
        };
        Judgement {
            verdict,
            warn: !silent && self.warns(treatment, control),
            waiting,
            treatment: treatment.estimate(),
            control: control.estimate(),
            tests,
            difference,
            lift,
        }
    }

    fn verdict(&self, treatment: &Arm, control: &Arm, tests: &[Tested]) -> (Verdict, Option<Waiting>) {
        let fewest = treatment.units().min(control.units());
        if tests.iter().any(|test| test.verdict == Verdict::Fail) {
            (Verdict::Fail, None)
        } else if tests.iter().any(|test| test.verdict == Verdict::Wait) {
            (Verdict::Wait, Some(Waiting::Undecided))
        } else if fewest < self.min_units {
            (Verdict::Wait, Some(Waiting::MinUnits { units: fewest, needed: self.min_units }))
        } else {
            (Verdict::Pass, None)
        }
    }

    fn cannot_say(&self, treatment: &Arm, control: &Arm, tests: &[Tested]) -> Option<Waiting> {
        let fewest = treatment.units().min(control.units());
        if let Some(what) = self.impossible(treatment, control) {
            Some(Waiting::Impossible { what })
        } else if tests.is_empty() || tests.len() < self.contrasts().len() {
            Some(Waiting::NoData)
        } else if fewest < BURN_IN {
            Some(Waiting::BurnIn { units: fewest, needed: BURN_IN })
        } else if tests.iter().any(|test| test.measured.se == 0.0) {
            Some(Waiting::ZeroVariance)
        } else if matches!(self.margin, Margin::Relative(_)) && self.mode != Mode::Superior && control.estimate().is_some_and(|x0| x0 < 0.0)
        {
            Some(Waiting::NegativeBaseline)
        } else {
            None
        }
    }

    fn impossible(&self, treatment: &Arm, control: &Arm) -> Option<String> {
        let (Margin::Relative(margin) | Margin::Absolute(margin)) = self.margin;
        for (arm, which) in [(treatment, "treatment"), (control, "control")] {
            if !arm.is_possible() {
                return Some(format!("the {which} is {arm:?}, which no units can have brought about"));
            }
        }
        if !treatment.is_like(control) {
            return Some("the treatment and the control are not statistics of the same kind".to_owned());
        }
        if !margin.is_finite() || margin < 0.0 {
            return Some(format!("a margin of {margin}; it is expected to be 0 or more"));
        }
        if !Boundary::one_sided(self.alpha_pass, self.planned_units).makes_sense() {
            let Self { alpha_pass, planned_units, .. } = self;
            return Some(format!(
                "an alpha of {alpha_pass} with {planned_units} planned units; expected one between 0 and 0.5, and more than 0"
            ));
        }
        if !Boundary::one_sided(self.alpha_fail, self.planned_units).makes_sense() {
            return Some(format!("an alpha of {} to fail; expected one between 0 and 0.5", self.alpha_fail));
        }
        None
    }

    fn test(&self, contrast: Contrast, treatment: &Arm, control: &Arm) -> Option<Tested> {
        let measured = contrast.measure(treatment, control)?;
        let units = treatment.units() as f64 + control.units() as f64;
        let (pass, fail) = self.boundaries();
        let (critical_pass, critical_fail) = (pass.critical(units), fail.critical(units));
        let Measured { psi, se, z, .. } = measured;
        let verdict = match z {
            _ if z < -critical_fail => Verdict::Fail,
            _ if z > critical_pass => Verdict::Pass,
            _ => Verdict::Wait,
        };
        let tested = Tested {
            contrast,
            measured,
            critical_pass,
            critical_fail,
            bound_pass: contrast.sign() * psi - critical_pass * se,
            bound_fail: contrast.sign() * psi + critical_fail * se,
            margin: -contrast.delta,
            p_pass: pass.p_value(z, units),
            p_fail: fail.p_value(-z, units),
            verdict,
        };
        [critical_pass, critical_fail, tested.bound_pass, tested.bound_fail].into_iter().all(f64::is_finite).then_some(tested)
    }

    /// Proven to be worse than the control. Of `Equivalent` nothing is worse.
    fn warns(&self, treatment: &Arm, control: &Arm) -> bool {
        let units = treatment.units() as f64 + control.units() as f64;
        let (_, fail) = self.boundaries();
        self.mode != Mode::Equivalent
            && Contrast::none(self.direction).measure(treatment, control).is_some_and(|measured| measured.z < -fail.critical(units))
    }

    fn boundaries(&self) -> (Boundary, Boundary) {
        (Boundary::one_sided(self.alpha_pass, self.planned_units), Boundary::one_sided(self.alpha_fail, self.planned_units))
    }
}
