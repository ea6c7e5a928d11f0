//! What is measured of a flag, and the guards that read it.

use super::super::span::Span;

/// One outcome of a unit: what applications report by `Track`, attributed to the variant that the unit was served.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    pub kind: MetricKind,
    pub direction: Direction,
    /// Name of the event that applications track. Absent: the metric's own name.
    pub event: Option<String>,
    /// What gates allow, where they do not say it themselves.
    pub margin: Option<Margin>,
    /// Absent: [`Mode::NonInferior`].
    pub mode: Option<Mode>,
    /// In each arm. Absent: [`Metric::MIN_UNITS`].
    pub min_units: Option<u64>,
    /// Absent: [`OnFail::Rollback`].
    pub on_fail: Option<OnFail>,
    /// From a unit's first exposure until its outcome counts as complete. Absent: none.
    pub lag: Option<Span>,
    /// What the baseline is expected to have, for the planner.
    pub expected: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MetricKind {
    /// 0 or 1, once for each unit.
    Binomial,
    /// A number, cut to `clip`, which has to be given: one unit of a billion must not decide.
    Mean { clip: [f64; 2] },
    /// A sum over a sum, both 0 or more: errors of requests.
    Ratio,
    /// The share of units for whom the value was above this: `p95 <= T` is `share above T <= 5 %`.
    SlowShare { above: f64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Higher,
    Lower,
    /// Neither more nor less than the margin allows.
    None,
}

/// There is no unit that goes without saying: "2 %" of a rate of 10 % is 0.2 points or 2.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Margin {
    /// Of the baseline: 0.05 is a twentieth of it.
    Relative(f64),
    /// In the metric's own unit: 0.02 of a rate is two points.
    Absolute(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Not proven worse than the margin.
    NoHarm,
    /// Proven not to be worse than the margin.
    NonInferior,
    /// Proven better.
    Superior,
    /// Proven to be within the margin on both sides.
    Equivalent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFail {
    Rollback,
    Pause,
}

/// A bound that kills the flag by itself, looked at each second.
#[derive(Debug, Clone, PartialEq)]
pub struct Guard {
    pub name: String,
    /// Of kind binomial or slow_share.
    pub metric: String,
    pub bound: GuardBound,
    /// Of [`GuardBound::Above`] and [`GuardBound::Below`]: kills only while the flag also fails more than its baseline does, so that what
    /// everybody suffers from kills nobody. By itself a guard kills whoever is to blame.
    pub attributable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GuardBound {
    /// Share, of a metric of which less is better: errors above 5 %.
    Above(f64),
    /// Share, of a metric of which more is better: compliance below 95 %.
    Below(f64),
    /// Than the concurrent baseline, by more than this.
    Worse(Margin),
}

impl Metric {
    pub const MIN_UNITS: u64 = 500;

    pub fn event<'m>(&'m self, name: &'m str) -> &'m str {
        self.event.as_deref().unwrap_or(name)
    }
}

impl MetricKind {
    /// `binomial`, `mean`, `ratio`, `slow_share`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Binomial => "binomial",
            Self::Mean { .. } => "mean",
            Self::Ratio => "ratio",
            Self::SlowShare { .. } => "slow_share",
        }
    }

    /// Whether each unit fails or does not.
    pub fn is_share(self) -> bool {
        matches!(self, Self::Binomial | Self::SlowShare { .. })
    }
}

impl Direction {
    pub const ALL: [Self; 3] = [Self::Higher, Self::Lower, Self::None];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Higher => "higher",
            Self::Lower => "lower",
            Self::None => "none",
        }
    }
}

impl Mode {
    pub const ALL: [Self; 4] = [Self::NoHarm, Self::NonInferior, Self::Superior, Self::Equivalent];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoHarm => "no_harm",
            Self::NonInferior => "non_inferior",
            Self::Superior => "superior",
            Self::Equivalent => "equivalent",
        }
    }
}

impl OnFail {
    pub const ALL: [Self; 2] = [Self::Rollback, Self::Pause];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Pause => "pause",
        }
    }
}
