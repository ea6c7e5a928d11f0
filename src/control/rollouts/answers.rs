//! Rollouts as they are told.

use super::looked_at;
use crate::control::ledger::{Decided, Rollout};
use crate::control::stored::Decision;
use crate::flag::{Approval, Check, Gate, Margin, Metric, Mode, Stage, Start};
use crate::rollout::statistics::Verdict;
use crate::rollout::{Evidence, Finding, Phase, Plan, findings};
use crate::wire::admin::timestamp;
use crate::wire::v1;

pub(super) fn rollout(rollout: Rollout, evidence: Option<Evidence>, now_us: i64) -> v1::Rollout {
    let state = looked_at(&rollout, evidence.as_ref(), now_us);
    let Rollout { position, found, plan, .. } = &rollout;
    let started = (state.attempt > 0).then(|| timestamp(state.started_us));
    let (reason, until) = match &state.phase {
        Phase::Paused { reason } | Phase::RolledBack { reason } | Phase::Killed { reason } => (reason.clone(), None),
        Phase::Completed { until_us } => (String::new(), Some(timestamp(*until_us))),
        Phase::Draft | Phase::Running | Phase::AwaitingApproval | Phase::Archived => (String::new(), None),
    };
    let findings = findings(plan, &state, evidence.as_ref()).into_iter().map(finding).collect();
    v1::Rollout {
        position: Some((*position).into()),
        key: found.item.name.key.clone(),
        phase: state.phase.as_str().to_owned(),
        reason,
        attempt: state.attempt,
        alpha_pass: plan.alpha_pass(state.attempt),
        stages: plan.document.stages.iter().enumerate().map(|(index, one)| stage(plan, index, one)).collect(),
        stage: u32::try_from(state.stage).unwrap_or_default(),
        started_at: started,
        stage_started_at: (state.attempt > 0).then(|| timestamp(state.stage_started_us)),
        until,
        approvable: if state.phase.moves() { state.approvable() } else { String::new() },
        shares: state.shares.into_iter().collect(),
        baseline: plan.document.baseline.clone(),
        waiting: state.waiting,
        approvals: state.approvals.into_iter().collect(),
        findings,
        exposed: evidence.map(|evidence| evidence.exposed.into_iter().collect()).unwrap_or_default(),
        definition: found.item.definition.to_vec(),
    }
}

fn stage(plan: &Plan, index: usize, stage: &Stage) -> v1::RolloutStage {
    let span = |span: Option<crate::flag::Span>| span.map(|span| span.to_string()).unwrap_or_default();
    v1::RolloutStage {
        name: plan.document.name_of(index),
        buckets: stage.percent(),
        start: match &stage.start {
            Start::AtOnce => String::new(),
            Start::After(after) => format!("{after} after the start"),
            Start::At(instant) => instant.clone(),
        },
        bake: span(stage.bake),
        deadline: span(stage.deadline()),
        gates: stage.gates.iter().map(|one| gate(plan, one)).collect(),
    }
}

fn gate(plan: &Plan, gate: &Gate) -> String {
    match gate {
        Gate::Approval(Approval { by, count }) => {
            let who = if by.is_empty() { "anybody".to_owned() } else { by.iter().map(String::as_str).collect::<Vec<_>>().join(", ") };
            format!("{count} approval{} by {who}", if *count == 1 { "" } else { "s" })
        }
        Gate::Metrics(checks) => checks.iter().map(|one| check(plan, one)).collect::<Vec<_>>().join("; "),
        Gate::Comparison(one) => format!("comparison: {}", check(plan, one)),
        Gate::SampleRatio(ratio) => if ratio.coverage { "sample ratio and coverage" } else { "sample ratio" }.to_owned(),
    }
}

fn check(plan: &Plan, check: &Check) -> String {
    let Some(metric) = plan.metrics.get(&check.metric) else { return check.metric.clone() };
    format!("{} {}{}", check.metric, check.mode(metric).as_str(), allowed(check, metric))
}

fn allowed(check: &Check, metric: &Metric) -> String {
    check
        .margin(metric)
        .filter(|_| check.mode(metric) != Mode::Superior)
        .map(|margin| format!(" within {}", words(margin)))
        .unwrap_or_default()
}

fn words(margin: Margin) -> String {
    match margin {
        Margin::Relative(share) => format!("{} % of the baseline", share * 100.0),
        Margin::Absolute(amount) => amount.to_string(),
    }
}

fn finding(finding: Finding) -> v1::RolloutFinding {
    let Finding { metric, treatment, mode, margin, judgement, planned, units } = finding;
    v1::RolloutFinding {
        metric,
        treatment,
        mode: mode.as_str().to_owned(),
        margin: margin.map(words).unwrap_or_default(),
        verdict: match judgement.verdict {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Wait => "wait",
        }
        .to_owned(),
        treated: judgement.treatment,
        control: judgement.control,
        units,
        planned,
        difference_low: judgement.difference.map(|interval| interval.low),
        difference_high: judgement.difference.map(|interval| interval.high),
    }
}

pub(super) fn decision(decided: Decided) -> v1::RolloutDecision {
    let Decided { revision, decision } = decided;
    let record = decision.encode();
    let Decision { at_us, definition: _, event, before, after, actions: _ } = decision;
    v1::RolloutDecision {
        revision,
        at: Some(timestamp(at_us)),
        event: event.as_str().to_owned(),
        by: event.by().unwrap_or_default().to_owned(),
        phase_before: before.phase.as_str().to_owned(),
        phase: after.phase.as_str().to_owned(),
        buckets: after.buckets(),
        attempt: after.attempt,
        stage: u32::try_from(after.stage).unwrap_or_default(),
        record,
    }
}
