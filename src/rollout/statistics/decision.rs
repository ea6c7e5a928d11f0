//! One decision of everything that is known of a stage: a table whose rows are tried in order.
//!
//! Undecided at the deadline is a pause, for a person to look: it is neither shipped nor reverted by default. Nothing passes on data that is
//! missing.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::gate::{Mode, Verdict};

/// The share of units that may have been seen in more than one variant.
pub const CROSSOVER: f64 = 0.01;

/// Everything that the table looks at; stored with the decision, so that it can be made again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Situation {
    pub trigger_fired: bool,
    /// Of units by variant, or of outcomes that are missing.
    pub sample_ratio_alarm: bool,
    pub crossover_share: f64,
    pub elapsed_s: u64,
    pub min_elapsed_s: u64,
    pub deadline_s: u64,
    pub on_deadline: OnDeadline,
    /// By arm.
    pub units: Vec<u64>,
    pub min_units: u64,
    pub metrics: BTreeMap<String, Evaluated>,
    pub manual_gate: bool,
    pub approved: bool,
}

/// A metric as its gate left it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    pub verdict: Verdict,
    pub warn: bool,
    pub mode: Mode,
    pub on_fail: OnFail,
    /// Of a metric that is not required only a fail counts, and a warning.
    pub required: bool,
    /// There is data, and it is not older than three intervals of its reports.
    pub fresh: bool,
    /// Enough units have had the time that the metric takes.
    pub mature: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFail {
    Rollback,
    Pause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDeadline {
    #[default]
    Pause,
    Rollback,
    /// Waits on.
    Extend,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Rollback,
    Pause,
    Wait,
    AwaitApproval,
    Advance,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    GuardrailTrigger,
    SampleRatio,
    Crossover,
    MetricFailed { metrics: Vec<String> },
    NoData { metrics: Vec<String> },
    MinElapsed,
    MinUnits,
    Immature { metrics: Vec<String> },
    Warning { metrics: Vec<String> },
    Undecided { metrics: Vec<String> },
    ManualGate,
    AllGatesPassed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    pub decision: Decision,
    #[serde(flatten)]
    pub reason: Reason,
}

/// The table: the first row that applies decides.
pub fn decide(situation: &Situation) -> Decided {
    let Situation { trigger_fired, sample_ratio_alarm, crossover_share, elapsed_s, min_elapsed_s, deadline_s, .. } = situation;
    let decided = |decision, reason| Decided { decision, reason };
    let until_deadline = |reason| {
        let decision = match (elapsed_s >= deadline_s, situation.on_deadline) {
            (false, _) | (true, OnDeadline::Extend) => Decision::Wait,
            (true, OnDeadline::Pause) => Decision::Pause,
            (true, OnDeadline::Rollback) => Decision::Rollback,
        };
        Decided { decision, reason }
    };
    if *trigger_fired {
        return decided(Decision::Rollback, Reason::GuardrailTrigger);
    }
    if *sample_ratio_alarm {
        return decided(Decision::Pause, Reason::SampleRatio);
    }
    // What is no number is no low share either.
    if crossover_share.is_nan() || *crossover_share > CROSSOVER {
        return decided(Decision::Pause, Reason::Crossover);
    }
    for (on_fail, decision) in [(OnFail::Rollback, Decision::Rollback), (OnFail::Pause, Decision::Pause)] {
        let failed = situation.metrics_that(|metric| metric.verdict == Verdict::Fail && metric.on_fail == on_fail);
        if !failed.is_empty() {
            return decided(decision, Reason::MetricFailed { metrics: failed });
        }
    }
    let missing = situation.metrics_that(|metric| metric.required && !metric.fresh);
    if !missing.is_empty() {
        return until_deadline(Reason::NoData { metrics: missing });
    }
    if elapsed_s < min_elapsed_s {
        return decided(Decision::Wait, Reason::MinElapsed);
    }
    if situation.units.iter().any(|units| *units < situation.min_units) {
        return until_deadline(Reason::MinUnits);
    }
    let immature = situation.metrics_that(|metric| metric.required && !metric.mature);
    if !immature.is_empty() {
        return until_deadline(Reason::Immature { metrics: immature });
    }
    let warning = situation.metrics_that(|metric| metric.mode == Mode::NoHarm && metric.warn && metric.verdict != Verdict::Pass);
    if !warning.is_empty() {
        return decided(Decision::Pause, Reason::Warning { metrics: warning });
    }
    let undecided = situation.metrics_that(|metric| metric.required && metric.mode != Mode::NoHarm && metric.verdict != Verdict::Pass);
    if !undecided.is_empty() {
        return until_deadline(Reason::Undecided { metrics: undecided });
    }
    if situation.manual_gate && !situation.approved {
        return decided(Decision::AwaitApproval, Reason::ManualGate);
    }
    decided(Decision::Advance, Reason::AllGatesPassed)
}

impl Situation {
    fn metrics_that(&self, apply: impl Fn(&Evaluated) -> bool) -> Vec<String> {
        self.metrics.iter().filter(|(_, metric)| apply(metric)).map(|(name, _)| name.clone()).collect()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |metrics: &[String]| metrics.join(", ");
        match self {
            Self::GuardrailTrigger => write!(f, "a trigger fired"),
            Self::SampleRatio => write!(f, "units or outcomes are missing in a variant, so nothing that was measured can be trusted"),
            Self::Crossover => write!(f, "more than {} % of the units were in several variants", CROSSOVER * 100.0),
            Self::MetricFailed { metrics } => write!(f, "worse than the margin: {}", list(metrics)),
            Self::NoData { metrics } => write!(f, "no recent data of {}", list(metrics)),
            Self::MinElapsed => write!(f, "the stage is younger than its shortest time"),
            Self::MinUnits => write!(f, "too few units in a variant"),
            Self::Immature { metrics } => write!(f, "too early for {}", list(metrics)),
            Self::Warning { metrics } => write!(f, "worse than the control: {}", list(metrics)),
            Self::Undecided { metrics } => write!(f, "inconclusive: {}", list(metrics)),
            Self::ManualGate => write!(f, "waits for approval"),
            Self::AllGatesPassed => write!(f, "all gates passed"),
        }
    }
}
