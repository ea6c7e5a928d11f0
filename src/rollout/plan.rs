//! A plan with all that it takes to carry it out.

use std::collections::BTreeMap;

use super::statistics::{ALPHA_FAIL, ALPHA_PASS};
use crate::flag::{self, AlphaOnRetry, Flag, Gate, Guard, Metric, SampleRatio, Span, Stage};

/// A chance that is smaller than any that matters, and still one.
const MOST_HALVINGS: u32 = 60;

/// What is carried out, and bound by a hash: who approves one plan has not approved another.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub document: flag::Plan,
    pub metrics: BTreeMap<String, Metric>,
    pub guards: Vec<Guard>,
    /// Of [`Flag::to_rollout_json`], in hexadecimal.
    pub hash: String,
}

impl Plan {
    /// `None` when the flag has none.
    pub fn of(flag: &Flag, hash: impl FnOnce(&[u8]) -> String) -> Option<Self> {
        let document = flag.rollout.clone()?;
        let hash = hash(&flag.to_rollout_json());
        Some(Self { document, metrics: flag.metrics.clone(), guards: flag.guard.clone(), hash })
    }

    pub fn stage(&self, index: usize) -> Option<&Stage> {
        self.document.stages.get(index)
    }

    pub fn is_last(&self, index: usize) -> bool {
        index + 1 >= self.document.stages.len()
    }

    /// The buckets of each treatment at a stage.
    pub fn shares(&self, index: usize) -> BTreeMap<String, u32> {
        self.stage(index).map(|stage| self.document.shares(stage)).unwrap_or_default()
    }

    /// Of a gate of this attempt, before several treatments share it. Attempts count from 1.
    pub fn alpha_pass(&self, attempt: u32) -> f64 {
        ALPHA_PASS * self.alpha_factor(attempt)
    }

    /// Of all gates of a stage together.
    pub fn alpha_fail(&self, attempt: u32) -> f64 {
        ALPHA_FAIL * self.alpha_factor(attempt)
    }

    fn alpha_factor(&self, attempt: u32) -> f64 {
        let retries = attempt.saturating_sub(1).min(MOST_HALVINGS);
        match self.document.alpha_on_retry {
            AlphaOnRetry::Keep => 1.0,
            AlphaOnRetry::Halve => 1.0 / (1_u64 << retries) as f64,
        }
    }

    pub fn asks_for_coverage(&self, stage: usize) -> bool {
        let gates = self.stage(stage).map(|stage| stage.gates.as_slice()).unwrap_or_default();
        gates.iter().any(|gate| matches!(gate, Gate::SampleRatio(ratio) if ratio.coverage))
    }

    /// After a unit's first exposure, when some outcome of it should have come; `None` without a metric.
    pub fn heard_within(&self) -> Option<Span> {
        let lag = self.metrics.values().map(|metric| metric.lag.map_or(0, |lag| lag.as_seconds())).min()?;
        Some(Span::seconds(lag.max(SampleRatio::HEARD_WITHIN.as_seconds())))
    }

    /// Nobody has a treatment.
    pub fn nothing(&self) -> BTreeMap<String, u32> {
        self.document.treatments.iter().map(|treatment| (treatment.clone(), 0)).collect()
    }

    /// So many buckets for all treatments together, and the stage that they fall into: the last one whose share is not above it, else the
    /// first. Each treatment is between what it has there and what it has in the next stage, so that it loses nobody when that begins.
    pub fn shares_of(&self, buckets: u32) -> (usize, BTreeMap<String, u32>) {
        let stages = &self.document.stages;
        let reached = stages.iter().rposition(|stage| stage.percent() <= buckets);
        let index = reached.unwrap_or(0);
        let (low, high) = match reached {
            Some(index) if self.is_last(index) => return (index, self.shares(index)),
            Some(index) => (self.shares(index), self.shares(index + 1)),
            None => (self.nothing(), self.shares(0)),
        };
        let sum = |shares: &BTreeMap<String, u32>| shares.values().map(|share| u64::from(*share)).sum::<u64>();
        let (missing, room) = (u64::from(buckets).saturating_sub(sum(&low)), sum(&high).saturating_sub(sum(&low)));
        let mut left = missing.min(room);
        let mut shares = low.clone();
        // The whole parts first, and what is left of the division to the first that have room.
        for pass in 0..2 {
            for (name, share) in &mut shares {
                let most = u64::from(high.get(name).copied().unwrap_or_default());
                let own_room = most.saturating_sub(u64::from(low.get(name).copied().unwrap_or_default()));
                let part = if pass == 0 && room > 0 { missing.min(room) * own_room / room } else { left };
                let part = part.min(most.saturating_sub(u64::from(*share))).min(left);
                *share += u32::try_from(part).unwrap_or_default();
                left -= part;
            }
        }
        (index, shares)
    }
}

/// Buckets as a percentage: `10 %`, `0.5 %`.
pub fn percent(buckets: u32) -> String {
    flag::Weight::Percent(buckets).to_string().replace('%', " %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_attempt_may_be_wrong_half_as_often_where_the_plan_says_so() {
        let plan = |more: &str| {
            let text = format!(
                "flags: {{ f: {{ variants: {{ a: x, b: y }}, defaultSplit: {{ weights: {{ a: 1, b: 0 }} }},
                rollout: {{ baseline: a, treatments: [b], stages: [{{ percent: 100 }}]{more} }} }} }}"
            );
            Plan::of(&flag::Document::parse(&text).unwrap().flags["f"], |_| String::new()).unwrap()
        };
        let alphas = |plan: &Plan| [0, 1, 2, 3].map(|attempt| (plan.alpha_pass(attempt), plan.alpha_fail(attempt)));
        assert_eq!(alphas(&plan("")), [(0.05, 0.01); 4]);
        assert_eq!(alphas(&plan(", alphaOnRetry: keep")), [(0.05, 0.01); 4]);
        let halved = plan(", alphaOnRetry: halve");
        assert_eq!(alphas(&halved), [(0.05, 0.01), (0.05, 0.01), (0.025, 0.005), (0.0125, 0.0025)]);
        assert!(halved.alpha_fail(u32::MAX) > 0.0, "a gate that can never fail guards nothing");
    }
}
