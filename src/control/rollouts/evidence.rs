//! What was reported of a flag in its present stage, as gates read it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::control::evidence::{self, FlagName};
use crate::control::ledger::{Ledger, Rollout};
use crate::flag::Revision;
use crate::rollout::{Evidence, Micros, Observed, REPORT_INTERVAL_US};

/// Reads what sidecars reported, and what a warehouse pushed.
pub struct Reported {
    ledger: Arc<Ledger>,
    evidence: Arc<dyn evidence::Evidence>,
    /// Going over all units of a stage is not done each second: their reports do not come more often than this is renewed.
    looked_at: Mutex<BTreeMap<FlagName, Look>>,
}

struct Look {
    revision: Revision,
    at_us: Micros,
    evidence: Option<Evidence>,
}

impl Reported {
    pub fn new(ledger: Arc<Ledger>, evidence: Arc<dyn evidence::Evidence>) -> Self {
        Self { ledger, evidence, looked_at: Mutex::default() }
    }

    /// `None`: nothing was reported of it.
    pub fn of(&self, environment: &str, rollout: &Rollout) -> Option<Evidence> {
        let flag = FlagName { environment: environment.to_owned(), key: rollout.found.item.name.key.clone() };
        let revision = self.ledger.evidence_revision(environment, &flag.key)?;
        let now_us = self.ledger.now_us();
        if let Some(look) = self.looked_at.lock().get(&flag)
            && look.revision == revision
            && (0..REPORT_INTERVAL_US).contains(&(now_us - look.at_us))
        {
            return look.evidence.clone();
        }
        let evidence = self.read(&flag, revision, rollout);
        self.looked_at.lock().insert(flag, Look { revision, at_us: now_us, evidence: evidence.clone() });
        evidence
    }

    fn read(&self, flag: &FlagName, revision: Revision, rollout: &Rollout) -> Option<Evidence> {
        let reported_us = self.evidence.summaries(flag).iter().find(|summary| summary.revision == revision).map(|summary| summary.last_us);
        let everybody = self.evidence.arms(flag, revision, i64::MAX);
        let mut evidence = Evidence::default();
        if let Some(arms) = &everybody {
            evidence.exposed = arms.variants.iter().map(|variant| (variant.variant.clone(), variant.units)).collect();
            evidence.crossover = arms.crossover;
        }
        if let Some(wait) = rollout.plan.heard_within().filter(|_| rollout.plan.asks_for_coverage(rollout.state.stage))
            && let Some(watermark_us) = reported_us
        {
            evidence.due = self.evidence.due(flag, revision, watermark_us.saturating_sub(wait.as_micros()).div_euclid(1_000));
        }
        for (name, metric) in &rollout.plan.metrics {
            // Of a warehouse only what it knows of this stage.
            let pushed = self.evidence.pushed(flag, name).filter(|pushed| pushed.watermark_us >= rollout.state.stage_started_us);
            if let Some(pushed) = pushed {
                let observed = Observed { arms: pushed.arms, watermark_us: pushed.watermark_us, ..Observed::default() };
                evidence.metrics.insert(name.clone(), observed);
                continue;
            }
            let Some(watermark_us) = reported_us else { continue };
            let lag_us = metric.lag.map_or(0, |lag| lag.as_micros());
            let until_ms = watermark_us.saturating_sub(lag_us).div_euclid(1_000);
            let Some(arms) = self.evidence.arms(flag, revision, until_ms) else { continue };
            let immature = arms.immature;
            let of_metric = |variant: evidence::Exposed| {
                let arm = variant.metrics.into_iter().find(|(metric, _)| metric == name).map(|(_, arm)| arm)?;
                Some((variant.variant, arm))
            };
            let arms = arms.variants.into_iter().filter_map(of_metric).collect();
            evidence.metrics.insert(name.clone(), Observed { arms, immature, watermark_us });
        }
        (everybody.is_some() || !evidence.metrics.is_empty()).then_some(evidence)
    }
}
