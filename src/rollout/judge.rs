//! What the gates of a stage say of the evidence: each metric against its margin, the sample ratio, and the one decision of all that.

use std::collections::BTreeMap;

use super::plan::Plan;
use super::state::{Evidence, Micros, Observed, State};
use super::statistics::{
    self as statistics, Arm, Baselines, Contrast, Decided, Evaluated, Judgement, POWER, SampleRatio, Situation, Verdict, Waiting, coverage,
    decide, sample_ratio, sample_size,
};
use super::step::span;
use crate::flag::{self, BUCKETS, Check, Gate, Metric};

/// Reports of units come this often; three of them missing is stale.
pub const REPORT_INTERVAL_US: Micros = 10_000_000;
/// Of a stage without a deadline.
const NEVER: u64 = u64::MAX;

/// The decision, what of it stays in the state, and what it waits for in words.
pub(super) struct Judged {
    pub decided: Decided,
    pub verdicts: BTreeMap<String, Verdict>,
    pub sample_ratio: SampleRatio,
    pub coverage: SampleRatio,
    pub needs: String,
}

/// One metric of one treatment against its margin, for whoever looks on.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    pub metric: String,
    pub treatment: String,
    pub mode: flag::Mode,
    pub margin: Option<flag::Margin>,
    pub judgement: Judgement,
    /// Units of the treatment that the gate was planned with, and has.
    pub planned: u64,
    pub units: u64,
}

pub(super) fn judge(plan: &Plan, state: &State, evidence: Option<&Evidence>, approved: bool, now: Micros) -> Judged {
    let situation = situation(plan, state, evidence, approved, now);
    let (situation, verdicts, sample_ratio, coverage) = situation;
    let decided = decide(&situation);
    let needs = words(plan, state, &decided, &situation, evidence, now);
    Judged { decided, verdicts, sample_ratio, coverage, needs }
}

type Known = (Situation, BTreeMap<String, Verdict>, SampleRatio, SampleRatio);

fn situation(plan: &Plan, state: &State, evidence: Option<&Evidence>, approved: bool, now: Micros) -> Known {
    let stage = plan.stage(state.stage);
    let elapsed_us = now.saturating_sub(state.stage_started_us).max(0);
    let seconds = |span: Option<flag::Span>| span.map(|span| span.as_seconds());
    let deadline_s = stage.and_then(|stage| seconds(stage.deadline())).map_or(NEVER, |deadline| {
        // Put off by hand or by `extend`: it counts from where it was put off to.
        deadline.saturating_mul(u64::from(state.extended) + 1)
    });
    let findings = findings(plan, state, evidence);
    let mut verdicts = state.verdicts.clone();
    let mut metrics = BTreeMap::new();
    let mut units = Vec::new();
    let mut min_units = 0;
    for (check, metric) in checks(plan, state) {
        let of: Vec<&Finding> = findings.iter().filter(|finding| finding.metric == check.metric).collect();
        let now_is = together(of.iter().map(|finding| finding.judgement.verdict));
        let verdict = now_is.after(verdicts.get(&check.metric).copied().unwrap_or(Verdict::Wait));
        verdicts.insert(check.metric.clone(), verdict);
        let observed = evidence.and_then(|evidence| evidence.metrics.get(&check.metric));
        let lag = metric.lag.map_or(0, |lag| lag.as_micros());
        let has_data = observed.is_some_and(|observed| observed.arms.values().any(|arm| arm.units() > 0));
        let is_mature = observed.is_some_and(|observed| observed.watermark_us >= state.stage_started_us.saturating_add(lag));
        metrics.insert(
            check.metric.clone(),
            Evaluated {
                verdict,
                warn: of.iter().any(|finding| finding.judgement.warn),
                mode: mode(check.mode(metric)),
                on_fail: match check.on_fail(metric) {
                    flag::OnFail::Rollback => statistics::OnFail::Rollback,
                    flag::OnFail::Pause => statistics::OnFail::Pause,
                },
                required: true,
                fresh: has_data && observed.is_some_and(|observed| is_fresh(observed, now)),
                mature: lag == 0 || is_mature,
            },
        );
        min_units = min_units.max(check.min_units(metric));
        let arms = observed.map(|observed| &observed.arms);
        let of_arm = |name: &String| arms.and_then(|arms| arms.get(name)).map_or(0, Arm::units);
        units.extend(state.shares.keys().chain([&plan.document.baseline]).map(of_arm));
    }
    let (ratio, ratio_alarm) = ratio(plan, state, evidence);
    let (missing, missing_alarm) = missing(plan, state, evidence);
    let exposed: u64 = evidence.map_or(0, |evidence| evidence.exposed.values().sum());
    let crossover = evidence.map_or(0, |evidence| evidence.crossover);
    let manual_gate = stage.is_some_and(|stage| stage.gates.iter().any(|gate| matches!(gate, Gate::Approval(_))));
    let situation = Situation {
        trigger_fired: false,
        sample_ratio_alarm: ratio_alarm || missing_alarm,
        crossover_share: if exposed + crossover == 0 { 0.0 } else { crossover as f64 / (exposed + crossover) as f64 },
        elapsed_s: u64::try_from(elapsed_us / 1_000_000).unwrap_or_default(),
        min_elapsed_s: stage.and_then(|stage| seconds(stage.bake)).unwrap_or_default(),
        deadline_s,
        on_deadline: match stage.map(|stage| stage.on_deadline).unwrap_or_default() {
            flag::OnDeadline::Pause => statistics::OnDeadline::Pause,
            flag::OnDeadline::Rollback => statistics::OnDeadline::Rollback,
            flag::OnDeadline::Extend => statistics::OnDeadline::Extend,
        },
        units,
        min_units,
        metrics,
        manual_gate,
        approved,
    };
    (situation, verdicts, ratio, missing)
}

fn is_fresh(observed: &Observed, now: Micros) -> bool {
    observed.watermark_us >= now.saturating_sub(3 * REPORT_INTERVAL_US)
}

fn checks<'p>(plan: &'p Plan, state: &State) -> impl Iterator<Item = (&'p Check, &'p Metric)> {
    let stage = plan.stage(state.stage);
    stage.into_iter().flat_map(|stage| stage.checks()).filter_map(|check| Some((check, plan.metrics.get(&check.metric)?)))
}

/// Every gate of the stage, for each treatment.
pub fn findings(plan: &Plan, state: &State, evidence: Option<&Evidence>) -> Vec<Finding> {
    let count = checks(plan, state).count().max(1) as f64;
    let treatments = state.shares.len().max(1) as f64;
    let mut findings = Vec::new();
    for (check, metric) in checks(plan, state) {
        for (treatment, share) in &state.shares {
            let nothing = || nothing(metric);
            let arms = evidence.and_then(|evidence| evidence.metrics.get(&check.metric)).map(|observed| &observed.arms);
            let arm = |name: &str| arms.and_then(|arms| arms.get(name)).copied().unwrap_or_else(nothing);
            let (treated, control) = (arm(treatment), arm(&plan.document.baseline));
            let planned = planned(check, metric, *share, state.buckets(), plan.alpha_pass(state.attempt));
            let gate = statistics::Gate {
                direction: direction(metric.direction),
                margin: check.margin(metric).map_or(statistics::Margin::Absolute(0.0), margin),
                mode: mode(check.mode(metric)),
                planned_units: planned.1,
                alpha_pass: plan.alpha_pass(state.attempt) / treatments,
                alpha_fail: plan.alpha_fail(state.attempt) / (count * treatments),
                min_units: check.min_units(metric),
            };
            findings.push(Finding {
                metric: check.metric.clone(),
                treatment: treatment.clone(),
                mode: check.mode(metric),
                margin: check.margin(metric),
                judgement: gate.judge(&treated, &control),
                planned: planned.0,
                units: treated.units(),
            });
        }
    }
    findings
}

fn nothing(metric: &Metric) -> Arm {
    match metric.kind {
        flag::MetricKind::Binomial | flag::MetricKind::SlowShare { .. } => Arm::Binomial { n: 0, k: 0 },
        flag::MetricKind::Mean { clip } => Arm::Mean { n: 0, sum: 0.0, sum_sq: 0.0, origin: clip[0] },
        flag::MetricKind::Ratio => Arm::Ratio { m: 0, sx: 0.0, sy: 0.0, sxx: 0.0, syy: 0.0, sxy: 0.0 },
    }
}

/// Units of the treatment, and of both arms, that the gate is planned with. It follows from the plan and the attempt alone, so that it
/// stays as it is while the stage lasts. Without an expected baseline it is planned with the fewest units that may pass.
pub fn planned(check: &Check, metric: &Metric, share: u32, all: u32, alpha_pass: f64) -> (u64, f64) {
    let control = f64::from(BUCKETS.saturating_sub(all)).max(1.0) / f64::from(share.max(1));
    let least = check.min_units(metric);
    let fallback = (least, least as f64 * (1.0 + control));
    let Some(expected) = metric.expected.filter(|_| metric.kind.is_share()) else { return fallback };
    let contrast = match (check.mode(metric), check.margin(metric)) {
        (flag::Mode::Superior, _) | (_, None) => return fallback,
        (_, Some(allowed)) => Contrast::new(direction(metric.direction), margin(allowed)),
    };
    sample_size(Baselines::Share(expected), contrast, control, alpha_pass, POWER).map_or(fallback, |size| (size.treatment, size.planned))
}

pub(super) fn direction(direction: flag::Direction) -> statistics::Direction {
    match direction {
        flag::Direction::Lower => statistics::Direction::Lower,
        // Of `equivalent`, which is the only mode without a direction, both are tested.
        flag::Direction::Higher | flag::Direction::None => statistics::Direction::Higher,
    }
}

pub(super) fn margin(margin: flag::Margin) -> statistics::Margin {
    match margin {
        flag::Margin::Relative(share) => statistics::Margin::Relative(share),
        flag::Margin::Absolute(amount) => statistics::Margin::Absolute(amount),
    }
}

pub(super) fn mode(mode: flag::Mode) -> statistics::Mode {
    match mode {
        flag::Mode::NoHarm => statistics::Mode::NoHarm,
        flag::Mode::NonInferior => statistics::Mode::NonInferior,
        flag::Mode::Superior => statistics::Mode::Superior,
        flag::Mode::Equivalent => statistics::Mode::Equivalent,
    }
}

/// Of all treatments: one that fails is enough to fail, and all have to pass.
fn together(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    let all: Vec<Verdict> = verdicts.collect();
    match () {
        () if all.contains(&Verdict::Fail) => Verdict::Fail,
        () if all.is_empty() || all.contains(&Verdict::Wait) => Verdict::Wait,
        () => Verdict::Pass,
    }
}

fn alpha(plan: &Plan, state: &State) -> (f64, bool) {
    let gates = plan.stage(state.stage).map(|stage| stage.gates.as_slice()).unwrap_or_default();
    let gate = gates.iter().find_map(|gate| if let Gate::SampleRatio(ratio) = gate { Some(ratio) } else { None });
    let usual = flag::Plan::SAMPLE_RATIO_ALPHA;
    gate.map_or((usual, false), |ratio| (ratio.alpha.unwrap_or(usual), ratio.coverage))
}

/// Looked at in every stage: people who are missing in one arm make every comparison a lie.
fn ratio(plan: &Plan, state: &State, evidence: Option<&Evidence>) -> (SampleRatio, bool) {
    let mut ratio = state.sample_ratio;
    if let Some(evidence) = evidence {
        let rest = BUCKETS.saturating_sub(state.buckets());
        let arms = state.shares.iter().map(|(name, share)| (name, *share)).chain([(&plan.document.baseline, rest)]);
        let arms: Vec<_> = arms.filter(|(_, share)| *share > 0).collect();
        let counts: Vec<u64> = arms.iter().map(|(name, _)| evidence.exposed.get(*name).copied().unwrap_or_default()).collect();
        let allocation: Vec<f64> = arms.iter().map(|(_, share)| f64::from(*share) / f64::from(BUCKETS)).collect();
        if arms.len() > 1 {
            ratio.look(sample_ratio(&counts, &allocation));
        }
    }
    (ratio, ratio.alarms(alpha(plan, state).0))
}

/// Only where a gate asks for it. A treatment that ends before it can report has no errors: it has nobody who was heard of.
fn missing(plan: &Plan, state: &State, evidence: Option<&Evidence>) -> (SampleRatio, bool) {
    let mut missing = state.coverage;
    let (alpha, asked) = alpha(plan, state);
    if !asked {
        return (missing, false);
    }
    if let Some(evidence) = evidence {
        let arms = state.shares.iter().filter(|(_, share)| **share > 0).map(|(name, _)| name).chain([&plan.document.baseline]);
        let due = arms.filter_map(|name| evidence.due.get(name)).filter(|due| due.units > 0);
        let (units, silent): (Vec<u64>, Vec<u64>) = due.map(|due| (due.units, due.silent)).unzip();
        if units.len() > 1 {
            missing.look(coverage(&silent, &units));
        }
    }
    (missing, missing.alarms(alpha))
}

/// What it waits for, or why it stops: the table's reason, and numbers where there are some.
fn words(plan: &Plan, state: &State, decided: &Decided, situation: &Situation, evidence: Option<&Evidence>, now: Micros) -> String {
    let mut text = decided.reason.to_string();
    if matches!(decided.reason, statistics::Reason::MinElapsed) {
        let ends =
            state.stage_started_us.saturating_add(i64::try_from(situation.min_elapsed_s).unwrap_or(i64::MAX).saturating_mul(1_000_000));
        return format!("at least {} more at this share", span(ends.saturating_sub(now)));
    }
    for finding in findings(plan, state, evidence) {
        let Judgement { verdict, waiting, treatment, control, .. } = &finding.judgement;
        let (Some(treatment), Some(control)) = (treatment, control) else { continue };
        let what = match (verdict, waiting) {
            (Verdict::Fail, _) => "is worse than the margin".to_owned(),
            (Verdict::Pass, _) => continue,
            (_, Some(Waiting::BurnIn { units, needed } | Waiting::MinUnits { units, needed })) => format!("has {units} of {needed} units"),
            _ => format!("has {} of about {} units", finding.units, finding.planned.max(finding.units)),
        };
        text.push_str(&format!("; {} of {} {what} ({treatment:.4} against {control:.4})", finding.metric, finding.treatment));
    }
    text
}
