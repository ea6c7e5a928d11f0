//! A plan with all that it takes to carry it out.

use std::collections::BTreeMap;

use crate::flag::{self, BUCKETS, Flag, Guard, Metric, Stage};

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

    /// Nobody has a treatment.
    pub fn nothing(&self) -> BTreeMap<String, u32> {
        self.document.treatments.iter().map(|treatment| (treatment.clone(), 0)).collect()
    }

    /// So many buckets for all treatments together, in the proportions of the stage that it falls into, which is answered too: the last one
    /// whose share is not above it, else the first.
    pub fn shares_of(&self, buckets: u32) -> (usize, BTreeMap<String, u32>) {
        let stages = &self.document.stages;
        let index = stages.iter().rposition(|stage| stage.percent() <= buckets).unwrap_or(0);
        let shares = self.shares(index);
        let total: u64 = shares.values().map(|share| u64::from(*share)).sum();
        if total == 0 {
            let first = shares.keys().next().cloned();
            let only = |name: &String| if Some(name) == first.as_ref() { buckets } else { 0 };
            return (index, shares.keys().map(|name| (name.clone(), only(name))).collect());
        }
        let mut given = 0;
        let mut scaled: BTreeMap<String, u32> = BTreeMap::new();
        for (name, share) in &shares {
            let part = u32::try_from(u64::from(*share) * u64::from(buckets) / total).unwrap_or(BUCKETS);
            given += part;
            scaled.insert(name.clone(), part);
        }
        if let Some(first) = scaled.values_mut().find(|share| **share > 0 || buckets > 0) {
            *first += buckets.saturating_sub(given);
        }
        (index, scaled)
    }
}

/// Buckets as a percentage: `10 %`, `0.5 %`.
pub fn percent(buckets: u32) -> String {
    flag::Weight::Percent(buckets).to_string().replace('%', " %")
}
