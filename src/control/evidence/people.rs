//! What the Admin service answers about evidence, and takes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Mutex;
use tonic::Status;

use super::flag::{MetricSummary, VariantSummary};
use super::{Evidence, FlagName, Pushed, Summary};
use crate::control::ledger::{self, Actor, Ledger, PushedMetric};
use crate::flag::{Flag, MetricKind, limits};
use crate::rollout::statistics::Arm;
use crate::wire::admin::timestamp;
use crate::wire::replication::Malformed;
use crate::wire::v1;

pub fn get_evidence(evidence: &dyn Evidence, flag: &FlagName) -> v1::GetEvidenceResponse {
    let book = evidence.book().read();
    let Some(known) = book.flag(flag) else { return v1::GetEvidenceResponse::default() };
    let pushed = known.all_pushed().iter().map(|(metric, Pushed { version, watermark_us, arms })| v1::PushedMetric {
        metric: metric.clone(),
        version: *version,
        watermark: Some(timestamp(*watermark_us)),
        arms: arms.iter().map(|(variant, sums)| v1::PushedArm { variant: variant.clone(), statistics: Some((*sums).into()) }).collect(),
    });
    v1::GetEvidenceResponse {
        epochs: known.summaries().into_iter().map(Into::into).collect(),
        pushed: pushed.collect(),
        reach: known.exposed().into_iter().map(|(variant, people)| v1::VariantReach { variant, people }).collect(),
    }
}

/// Takes metrics from elsewhere, one at a time.
///
/// Evidence and the audit chain are two stores, and there is no transaction over both. The audit entry is written first: what gates read
/// has always been noted. A push that fails after it was noted is noted again when it is sent again.
#[derive(Clone)]
pub struct Pushes {
    ledger: Arc<Ledger>,
    evidence: Arc<dyn Evidence>,
    turn: Arc<Mutex<()>>,
}

impl Pushes {
    pub fn new(ledger: Arc<Ledger>, evidence: Arc<dyn Evidence>) -> Self {
        Self { ledger, evidence, turn: Arc::default() }
    }

    /// False: this version or a later one was there, and nothing was noted. Dropping the future does not stop it.
    pub async fn push(&self, actor: Actor, reason: String, definition: &Flag, request: v1::PushMetricRequest) -> Result<bool, PushError> {
        let (named, arms) = read(definition, request)?;
        let pushes = self.clone();
        let pushed = tokio::spawn(async move { pushes.note_and_push(actor, reason, named, arms).await });
        pushed.await.map_err(|problem| PushError::Ledger(ledger::Error::Aborted { problem: problem.to_string() }))?
    }

    async fn note_and_push(&self, actor: Actor, reason: String, named: PushedMetric, arms: Arms) -> Result<bool, PushError> {
        let _turn = self.turn.lock().await;
        let flag = FlagName { environment: named.environment.clone(), key: named.flag.clone() };
        let is_taken = self.evidence.takes(&flag, &named.metric, named.version);
        if is_taken {
            self.ledger.note_push(&actor, &reason, &named).await.map_err(PushError::Ledger)?;
            let PushedMetric { metric, version, watermark_us, .. } = named.clone();
            let taken = self.evidence.push(flag, metric, Pushed { version, watermark_us, arms }).await;
            taken.map_err(|problem| PushError::Store(Status::unavailable(problem.to_string())))?;
        }
        let PushedMetric { environment, flag, metric, version, .. } = named;
        tracing::info!(actor = actor.name, environment, flag, metric, version, is_taken, "a metric was pushed");
        Ok(is_taken)
    }
}

type Arms = BTreeMap<String, Arm>;

/// `definition`: the flag as it is now.
fn read(definition: &Flag, request: v1::PushMetricRequest) -> Result<(PushedMetric, Arms), PushError> {
    let v1::PushMetricRequest { environment, flag_key, metric, version, watermark, arms, intent: _ } = request;
    let kind = definition.metrics.get(&metric).map(|metric| metric.kind).ok_or_else(|| {
        let known: Vec<_> = definition.metrics.keys().map(String::as_str).collect();
        wrong("metric", format!("`{metric}` is no metric of {flag_key}, which has {}", list(&known)))
    })?;
    if version == 0 {
        return Err(wrong("version", "is 0, expected a number that rises with each push"));
    }
    let watermark = watermark.ok_or_else(|| wrong("watermark", "is missing, expected the time up to which the values are complete"))?;
    let watermark_us = watermark.seconds.checked_mul(1_000_000).and_then(|us| us.checked_add(i64::from(watermark.nanos) / 1_000));
    let watermark_us = watermark_us.ok_or_else(|| wrong("watermark", "is no time"))?;
    if arms.len() > limits::VARIANTS {
        return Err(wrong("arms", format!("has {} entries, at most {} are allowed", arms.len(), limits::VARIANTS)));
    }
    let mut by_variant = BTreeMap::new();
    for v1::PushedArm { variant, statistics } in arms {
        if !definition.variants.contains_key(&variant) {
            return Err(wrong("arms.variant", format!("`{variant}` is no variant of {flag_key}")));
        }
        let sums = sums(statistics).filter(|sums| fits(sums, kind)).ok_or_else(|| {
            wrong("arms.statistics", format!("of `{variant}` cannot be: expected sums of a metric of kind {}", kind.as_str()))
        })?;
        if by_variant.insert(variant.clone(), sums).is_some() {
            return Err(wrong("arms.variant", format!("`{variant}` is there twice")));
        }
    }
    Ok((PushedMetric { environment, flag: flag_key, metric, version, watermark_us }, by_variant))
}

/// Why a metric was not taken.
#[derive(Debug)]
pub enum PushError {
    Malformed(Malformed),
    Ledger(ledger::Error),
    Store(Status),
}

fn wrong(field: &'static str, problem: impl Into<String>) -> PushError {
    PushError::Malformed(Malformed { field, problem: problem.into() })
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn fits(sums: &Arm, kind: MetricKind) -> bool {
    let is_kind = match sums {
        Arm::Binomial { .. } => kind.is_share(),
        Arm::Mean { .. } => matches!(kind, MetricKind::Mean { .. }),
        Arm::Ratio { .. } => matches!(kind, MetricKind::Ratio),
    };
    is_kind && sums.is_possible()
}

fn sums(statistics: Option<v1::pushed_arm::Statistics>) -> Option<Arm> {
    use v1::pushed_arm::Statistics;
    Some(match statistics? {
        Statistics::Share(v1::ShareSums { n, k }) => Arm::Binomial { n, k },
        Statistics::Mean(v1::MeanSums { n, sum, sum_sq, origin }) => Arm::Mean { n, sum, sum_sq, origin },
        Statistics::Ratio(v1::RatioSums { m, sx, sy, sxx, syy, sxy }) => Arm::Ratio { m, sx, sy, sxx, syy, sxy },
    })
}

impl From<Arm> for v1::pushed_arm::Statistics {
    fn from(sums: Arm) -> Self {
        match sums {
            Arm::Binomial { n, k } => Self::Share(v1::ShareSums { n, k }),
            Arm::Mean { n, sum, sum_sq, origin } => Self::Mean(v1::MeanSums { n, sum, sum_sq, origin }),
            Arm::Ratio { m, sx, sy, sxx, syy, sxy } => Self::Ratio(v1::RatioSums { m, sx, sy, sxx, syy, sxy }),
        }
    }
}

impl From<Summary> for v1::EpochSummary {
    fn from(summary: Summary) -> Self {
        let Summary { revision, first_us, last_us, has_units, crossover, refused_units, variants } = summary;
        let metric = |MetricSummary { metric, counts, sums }| v1::MetricSummary {
            metric,
            n: counts.n,
            k: counts.k,
            n_raw: counts.n_raw,
            k_raw: counts.k_raw,
            estimate: sums.estimate(),
        };
        let variant = |VariantSummary { variant, units, metrics }| v1::VariantSummary {
            variant,
            units,
            metrics: metrics.into_iter().map(metric).collect(),
        };
        Self {
            revision,
            first: Some(timestamp(first_us)),
            last: Some(timestamp(last_us)),
            has_units,
            crossover,
            refused_units,
            variants: variants.into_iter().map(variant).collect(),
        }
    }
}
