//! A rollout as people write it: stages of traffic, gates between them, guards that kill. `rollout::step` carries it out.
//!
//! Reading is in `read/plan`, writing in `write/plan`; names are checked by [`super::compile`], and what it cannot say of a plan alone by
//! `rollout`. The statistics behind gates and guards are those of `rollout::statistics`.

mod metric;

use std::collections::{BTreeMap, BTreeSet};

use super::date::Instant;
use super::span::Span;

pub use metric::{Direction, Guard, GuardBound, Margin, Metric, MetricKind, Mode, OnFail};

/// How traffic moves from the baseline to the treatments.
///
/// It moves the shares of the flag's rolling split, which is the one that [`super::Flag::with_percent`] finds: rules before it keep serving
/// whom they serve, and nobody who has a treatment loses it when its share grows.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Variant of everybody who has no treatment, and what treatments are compared with.
    pub baseline: String,
    /// At least one; not the baseline.
    pub treatments: BTreeSet<String>,
    /// At least one, in order; shares never fall.
    pub stages: Vec<Stage>,
    /// How long the flag has to stay after the last stage before it may be archived. Absent: [`Plan::RETENTION`].
    pub retention: Option<Span>,
    /// After a kill, before a new attempt may start. Absent: [`Plan::COOL_DOWN`].
    pub cool_down: Option<Span>,
    /// Units (people, sessions) that the split deals in a day, for the planner.
    pub units_per_day: Option<u64>,
    pub alpha_on_retry: AlphaOnRetry,
}

/// How often the gates of another attempt may be wrong. Who tries until it passes is wrong more often than each attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AlphaOnRetry {
    /// As often as those of the first.
    #[default]
    Keep,
    /// Half as often as those of the attempt before it, so that all together are wrong at most twice as often as the first.
    Halve,
}

/// A share of the traffic, for as long as its gates need.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Absent: `stage-1` for the first, and so on.
    pub name: Option<String>,
    pub share: Share,
    pub start: Start,
    /// The least time at this share. Absent: none.
    pub bake: Option<Span>,
    /// From the start of the stage. Absent: twice the bake time, or none without one.
    pub deadline: Option<Span>,
    pub on_deadline: OnDeadline,
    /// All of them must open before the next stage begins, or after the last one before the rollout is complete.
    pub gates: Vec<Gate>,
}

/// Of the split's buckets, in ten-thousandths of a percent: 0 to 1,000,000.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Share {
    /// Of all treatments together, which share it equally.
    Percent(u32),
    /// By treatment; what is left is the baseline's.
    Weights(BTreeMap<String, u32>),
}

/// When a stage begins, once the gates of the one before it are open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Start {
    #[default]
    AtOnce,
    /// Not earlier than this after the rollout started.
    After(Span),
    /// Not earlier than this instant, RFC 3339 with an offset.
    At(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDeadline {
    /// A person decides.
    #[default]
    Pause,
    Rollback,
    /// Another span as long as the deadline.
    Extend,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Gate {
    Approval(Approval),
    /// Every one of these must pass.
    Metrics(Vec<Check>),
    /// The A/B step: one metric decides between continue, pause and roll back.
    Comparison(Check),
    SampleRatio(SampleRatio),
}

/// People who agree to what they have seen: an approval is bound to the hash of what is approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Actors who may. Empty: everybody.
    pub by: BTreeSet<String>,
    /// How many different ones must; at least 1.
    pub count: u32,
}

/// A metric of the flag, and what a gate asks of it. What is absent is as the metric says.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    pub metric: String,
    pub mode: Option<Mode>,
    pub margin: Option<Margin>,
    /// In each arm.
    pub min_units: Option<u64>,
    pub on_fail: Option<OnFail>,
}

/// Whether the arms have the people that the split dealt them, and whether these report outcomes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleRatio {
    /// Absent: [`Plan::SAMPLE_RATIO_ALPHA`].
    pub alpha: Option<f64>,
    /// Also: units without an outcome of any metric are as frequent in each arm, [`SampleRatio::HEARD_WITHIN`] after their first exposure or
    /// after the shortest lag of the flag's metrics, whichever is later. (A treatment that ends before it can report has no errors.)
    pub coverage: bool,
}

impl SampleRatio {
    /// Applications report within this, if nothing keeps them from it.
    pub const HEARD_WITHIN: Span = Span::seconds(60);
}

impl Plan {
    pub const RETENTION: Span = Span::days(30);
    pub const COOL_DOWN: Span = Span::seconds(600);
    pub const SAMPLE_RATIO_ALPHA: f64 = 0.001;

    pub fn retention(&self) -> Span {
        self.retention.unwrap_or(Self::RETENTION)
    }

    pub fn cool_down(&self) -> Span {
        self.cool_down.unwrap_or(Self::COOL_DOWN)
    }

    /// The buckets of each treatment at a stage, of 1,000,000; of equal shares the first by name takes what is left over.
    pub fn shares(&self, stage: &Stage) -> BTreeMap<String, u32> {
        match &stage.share {
            Share::Weights(weights) => {
                self.treatments.iter().map(|name| (name.clone(), weights.get(name).copied().unwrap_or_default())).collect()
            }
            Share::Percent(percent) => {
                let count = u32::try_from(self.treatments.len()).unwrap_or(u32::MAX).max(1);
                let (each, rest) = (percent / count, percent % count);
                (0..).zip(&self.treatments).map(|(index, name)| (name.clone(), each + u32::from(index < rest))).collect()
            }
        }
    }

    pub fn name_of(&self, stage: usize) -> String {
        let given = self.stages.get(stage).and_then(|stage| stage.name.clone());
        given.unwrap_or_else(|| format!("stage-{}", stage + 1))
    }
}

impl Stage {
    /// `None`: it waits for as long as it takes.
    pub fn deadline(&self) -> Option<Span> {
        self.deadline.or_else(|| self.bake.map(|bake| Span::seconds(bake.as_seconds().saturating_mul(2))))
    }

    /// Of all treatments together.
    pub fn percent(&self) -> u32 {
        match &self.share {
            Share::Percent(percent) => *percent,
            Share::Weights(weights) => weights.values().fold(0, |sum, share| sum.saturating_add(*share)),
        }
    }

    /// Every metric that a gate of the stage asks for.
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        self.gates.iter().flat_map(|gate| match gate {
            Gate::Metrics(checks) => checks.as_slice(),
            Gate::Comparison(check) => std::slice::from_ref(check),
            Gate::Approval(_) | Gate::SampleRatio(_) => &[],
        })
    }
}

impl Check {
    pub fn mode(&self, metric: &Metric) -> Mode {
        let usual = if metric.direction == Direction::None { Mode::Equivalent } else { Mode::NonInferior };
        self.mode.or(metric.mode).unwrap_or(usual)
    }

    pub fn margin(&self, metric: &Metric) -> Option<Margin> {
        self.margin.or(metric.margin)
    }

    pub fn min_units(&self, metric: &Metric) -> u64 {
        self.min_units.or(metric.min_units).unwrap_or(Metric::MIN_UNITS)
    }

    pub fn on_fail(&self, metric: &Metric) -> OnFail {
        self.on_fail.or(metric.on_fail).unwrap_or(OnFail::Rollback)
    }
}

impl Start {
    /// Of [`Start::At`], Unix time in microseconds.
    pub fn instant_us(&self) -> Option<i64> {
        let Self::At(instant) = self else { return None };
        let Instant { second, nanosecond } = Instant::parse(instant)?;
        second.checked_mul(1_000_000)?.checked_add(i64::from(nanosecond / 1_000))
    }
}

impl AlphaOnRetry {
    pub const ALL: [Self; 2] = [Self::Keep, Self::Halve];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Halve => "halve",
        }
    }
}

impl OnDeadline {
    pub const ALL: [Self; 3] = [Self::Pause, Self::Rollback, Self::Extend];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Rollback => "rollback",
            Self::Extend => "extend",
        }
    }
}
