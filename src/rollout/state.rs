//! Where a rollout is, what happens to it, and what is to be done.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::statistics::{Arm, SampleRatio, Verdict};

/// Unix time, microseconds.
pub type Micros = i64;

/// Where a rollout is. All that [`super::step`] knows of the past.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    pub phase: Phase,
    /// Counts from 1; each has statistics of its own, and gates that may be wrong as often as [`crate::flag::AlphaOnRetry`] says.
    pub attempt: u32,
    /// Of the plan that was started.
    pub plan: String,
    pub started_us: Micros,
    /// Index of the stage.
    pub stage: usize,
    pub stage_started_us: Micros,
    /// Buckets of each treatment now.
    pub shares: BTreeMap<String, u32>,
    /// Actors who approved what is served now.
    pub approvals: BTreeSet<String>,
    /// Of each metric in this stage: a pass stays, and a fail wins.
    pub verdicts: BTreeMap<String, Verdict>,
    pub sample_ratio: SampleRatio,
    pub coverage: SampleRatio,
    /// Deadlines of this stage that were put off.
    pub extended: u32,
    /// After a kill nothing moves before this.
    pub hold_until_us: Micros,
    /// What it waits for, in words; empty when it waits for nothing.
    pub waiting: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Not started, or aborted: the shares are the document's.
    #[default]
    Draft,
    Running,
    /// All other gates are open.
    AwaitingApproval,
    /// Traffic stays as it is until a person decides.
    Paused {
        reason: String,
    },
    /// Everybody has the baseline.
    RolledBack {
        reason: String,
    },
    /// A kill stands above the flag.
    Killed {
        reason: String,
    },
    /// At the last share. The flag has to stay until then.
    Completed {
        until_us: Micros,
    },
    Archived,
}

/// What happens. `by` is an actor, and `reason` what they say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Start {
        by: String,
        reason: String,
    },
    /// `of`: the [`State::approvable`] that was looked at.
    Approve {
        by: String,
        of: String,
    },
    Reject {
        by: String,
        reason: String,
    },
    Pause {
        by: String,
        reason: String,
    },
    Resume {
        by: String,
        reason: String,
    },
    /// To the next stage, whatever the gates say.
    Advance {
        by: String,
        reason: String,
    },
    Rollback {
        by: String,
        reason: String,
    },
    /// Ends it and leaves the traffic where it is.
    Abort {
        by: String,
        reason: String,
    },
    Archive {
        by: String,
    },
    /// The flag was killed.
    Killed {
        by: String,
        reason: String,
    },
    /// The kill was lifted; with `buckets`, at that share of all treatments.
    Restored {
        by: String,
        buckets: Option<u32>,
    },
    /// Time passes. With evidence, gates are looked at.
    Tick {
        evidence: Option<Evidence>,
    },
}

/// What is to be done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Buckets for each treatment; the rest is the baseline's.
    Serve { shares: BTreeMap<String, u32> },
    /// Somebody has to look.
    Notify { message: String },
    /// The event cannot happen now. The state is as it was.
    Refuse { why: String },
}

/// What was measured of the flag in this stage: of the revision that it began with, and no other.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Units that the split dealt, by variant.
    pub exposed: BTreeMap<String, u64>,
    /// Units that were seen in more than one variant.
    pub crossover: u64,
    pub metrics: BTreeMap<String, Observed>,
    /// By variant, where a gate asks for it: units that were exposed long enough ago to have had some outcome.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub due: BTreeMap<String, Due>,
}

/// Units of one variant that should have been heard of by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Due {
    pub units: u64,
    /// Of these, without an outcome of any metric.
    pub silent: u64,
}

/// One metric.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// By variant: units whose outcome is complete.
    pub arms: BTreeMap<String, Arm>,
    /// Units that were exposed too late to be counted yet.
    pub immature: u64,
    /// Up to when the source is complete.
    pub watermark_us: Micros,
}

impl Phase {
    /// As commands and metrics name it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Running => "running",
            Self::AwaitingApproval => "awaiting approval",
            Self::Paused { .. } => "paused",
            Self::RolledBack { .. } => "rolled back",
            Self::Killed { .. } => "killed",
            Self::Completed { .. } => "completed",
            Self::Archived => "archived",
        }
    }

    /// Whether it decides what the flag's split serves.
    pub fn owns_the_split(&self) -> bool {
        !matches!(self, Self::Draft | Self::Archived)
    }

    /// Whether time and evidence move it.
    pub fn moves(&self) -> bool {
        matches!(self, Self::Running | Self::AwaitingApproval)
    }
}

impl State {
    /// What an approval agrees to: this plan at this stage of this attempt.
    pub fn approvable(&self) -> String {
        format!("{}/{}/{}", self.plan, self.attempt, self.stage + 1)
    }

    /// Of all treatments together.
    pub fn buckets(&self) -> u32 {
        self.shares.values().fold(0, |sum, share| sum.saturating_add(*share))
    }
}

impl Event {
    /// Who makes it happen; `None`: time.
    pub fn by(&self) -> Option<&str> {
        match self {
            Self::Start { by, .. }
            | Self::Approve { by, .. }
            | Self::Reject { by, .. }
            | Self::Pause { by, .. }
            | Self::Resume { by, .. }
            | Self::Advance { by, .. }
            | Self::Rollback { by, .. }
            | Self::Abort { by, .. }
            | Self::Archive { by }
            | Self::Killed { by, .. }
            | Self::Restored { by, .. } => Some(by),
            Self::Tick { .. } => None,
        }
    }

    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Approve { .. } => "approve",
            Self::Reject { .. } => "reject",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Advance { .. } => "advance",
            Self::Rollback { .. } => "rollback",
            Self::Abort { .. } => "abort",
            Self::Archive { .. } => "archive",
            Self::Killed { .. } => "killed",
            Self::Restored { .. } => "restored",
            Self::Tick { .. } => "tick",
        }
    }
}
