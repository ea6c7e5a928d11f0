//! What makes a rollout one that cannot be carried out: names that lead nowhere, shares that fall, gates that could never open.

use std::collections::{BTreeMap, BTreeSet};

use super::super::bucket::BUCKETS;
use super::super::document::{Flag, Weight};
use super::super::limits;
use super::super::node::quoted;
use super::super::plan::{
    Approval, Check, Direction, Gate, Guard, GuardBound, Margin, Metric, MetricKind, Mode, Plan, Share, Stage, Start,
};
use super::super::problem::{Path, Problems, did_you_mean};
use super::Names;

pub(super) fn measures(flag: &Flag, problems: &mut Problems) {
    let path = Path::ROOT;
    for (count, most, place) in [(flag.metrics.len(), limits::METRICS, "metrics"), (flag.guard.len(), limits::GUARDS, "guard")] {
        if count > most {
            problems.found(path.key(place), format!("{count} {place}"), format!("at most {most}"));
        }
    }
    let list = path.key("metrics");
    for (name, metric) in &flag.metrics {
        self::metric(name, metric, list.key(name), problems);
    }
    let list = path.key("guard");
    let mut seen = BTreeSet::new();
    for (index, guard) in flag.guard.iter().enumerate() {
        // It is the actor of the kill.
        if !(1..=limits::KEY_BYTES).contains(&guard.name.len()) || guard.name.chars().any(char::is_control) {
            let expected = format!("a name of 1 to {} bytes without control characters", limits::KEY_BYTES);
            problems.found(list.index(index).key("name"), quoted(&guard.name), expected);
        }
        if !seen.insert(&guard.name) {
            problems.found(
                list.index(index),
                format!("{} a second time", quoted(&guard.name)),
                "each name once; give one of them a `name`",
            );
        }
        self::guard(flag, guard, list.index(index), problems);
    }
}

fn metric(name: &str, metric: &Metric, path: Path<'_>, problems: &mut Problems) {
    for (text, place) in [(name, path), (metric.event(name), path.key("event"))] {
        if text.is_empty() || text.len() > limits::KEY_BYTES {
            problems.found(place, quoted(text), format!("a name of 1 to {} bytes", limits::KEY_BYTES));
        }
    }
    if let (Direction::None, Some(mode @ (Mode::Superior | Mode::NoHarm | Mode::NonInferior))) = (metric.direction, metric.mode) {
        problems.found(path.key("mode"), format!("{} without a direction", mode.as_str()), "`equivalent`, or a direction that is better");
    }
    let is_share = |value: &f64| (0.0..=1.0).contains(value);
    if metric.kind.is_share()
        && let Some(expected) = metric.expected.filter(|value| !is_share(value))
    {
        problems.found(path.key("expected"), expected.to_string(), "a share from 0 to 1");
    }
    if let Some(Margin::Absolute(amount)) = metric.margin.filter(|_| metric.kind.is_share()) {
        share_margin(amount, path.key("margin"), problems);
    }
}

fn share_margin(amount: f64, path: Path<'_>, problems: &mut Problems) {
    if amount >= 1.0 {
        problems.found(path.key("absolute"), amount.to_string(), "below 1 for a share: 0.02 is two points");
    }
}

fn guard(flag: &Flag, guard: &Guard, path: Path<'_>, problems: &mut Problems) {
    let place = path.key("metric");
    let Some(metric) = metric_of(flag, &guard.metric, place, problems) else { return };
    if !metric.kind.is_share() {
        problems.found(
            place,
            format!("a metric of kind {}", metric.kind.as_str()),
            "one of which each unit fails or does not: binomial or slow_share",
        );
    }
    let slow = matches!(metric.kind, MetricKind::SlowShare { .. });
    let fits = match guard.bound {
        GuardBound::Above(_) => metric.direction == Direction::Lower,
        GuardBound::Below(_) => metric.direction == Direction::Higher && !slow,
        GuardBound::Worse(_) => metric.direction != Direction::None,
    };
    if !fits {
        let key = match guard.bound {
            GuardBound::Above(_) => "above",
            GuardBound::Below(_) => "below",
            GuardBound::Worse(_) => "worse",
        };
        let found = format!("`{key}` of a metric whose direction is {}", metric.direction.as_str());
        problems.found(path, found, "`above` where lower is better, `below` where higher is");
    }
    if matches!(guard.bound, GuardBound::Worse(_)) && flag.rollout.is_none() {
        problems.found(path.key("worse"), "no rollout, and so no baseline", "`above` or `below`, or a `rollout` with a baseline");
    }
}

fn metric_of<'f>(flag: &'f Flag, name: &str, path: Path<'_>, problems: &mut Problems) -> Option<&'f Metric> {
    let metric = flag.metrics.get(name);
    if metric.is_none() {
        let known = flag.metrics.keys().map(|name| quoted(name)).take(10).collect::<Vec<_>>().join(", ");
        let expected = if known.is_empty() {
            "one of the flag's `metrics`, which has none".to_owned()
        } else {
            format!("a metric of this flag ({known})")
        };
        problems.hinted(
            path,
            format!("the unknown metric {}", quoted(name)),
            expected,
            did_you_mean(name, flag.metrics.keys().map(String::as_str)),
        );
    }
    metric
}

pub(super) fn rollout(names: &Names<'_>, flag: &Flag, plan: &Plan, problems: &mut Problems) {
    let path = Path::ROOT.key("rollout");
    names.index(&plan.baseline, path.key("baseline"), problems);
    let list = path.key("treatments");
    for (index, treatment) in plan.treatments.iter().enumerate() {
        if *treatment == plan.baseline {
            problems.found(list.index(index), format!("the baseline {}", quoted(treatment)), "a variant that is compared with it");
        } else {
            names.index(treatment, list.index(index), problems);
        }
    }
    split(flag, plan, path, problems);
    if plan.stages.len() > limits::STAGES {
        problems.found(path.key("stages"), format!("{} stages", plan.stages.len()), format!("at most {}", limits::STAGES));
    }
    let list = path.key("stages");
    let (mut seen, mut before, mut earliest) = (BTreeSet::new(), BTreeMap::new(), None);
    for (index, stage) in plan.stages.iter().enumerate() {
        let place = list.index(index);
        if !seen.insert(plan.name_of(index)) {
            problems.found(place.key("name"), format!("{} a second time", quoted(&plan.name_of(index))), "each name once");
        }
        if let Start::After(after) = stage.start {
            if earliest.is_some_and(|earliest| after < earliest) {
                problems.found(place.key("start"), format!("a start after {after}"), "not before the start of the stage before it");
            }
            earliest = Some(after);
        }
        shares(plan, stage, &mut before, place, problems);
        times(flag, stage, place, problems);
        if stage.percent() == BUCKETS && stage.checks().next().is_some() {
            problems.found(
                place.key("gates"),
                "a gate of metrics where everybody has a treatment",
                "it before the last stage: nobody is left to compare with",
            );
        }
        gates(flag, stage, place, problems);
    }
    if let Some(last) = plan.stages.last()
        && last.percent() != BUCKETS
    {
        let place = list.index(plan.stages.len() - 1);
        problems.found(
            place,
            format!("a last stage at {}", Weight::Percent(last.percent())),
            "100 % for the treatments: the rollout ends there",
        );
    }
}

/// The one whose shares move.
fn split(flag: &Flag, plan: &Plan, path: Path<'_>, problems: &mut Problems) {
    let Some((split, _)) = flag.rolling_split() else {
        problems.found(path, "a flag without a split", "a rule with a `split`, or a `defaultSplit`, whose shares the rollout moves");
        return;
    };
    for name in split.weights.keys().filter(|name| **name != plan.baseline && !plan.treatments.contains(*name)) {
        problems.found(
            path.key("treatments"),
            format!("no {}, which the split deals", quoted(name)),
            "every variant of the split that is rolled out among `treatments` or as `baseline`",
        );
    }
}

fn shares(plan: &Plan, stage: &Stage, before: &mut BTreeMap<String, u32>, path: Path<'_>, problems: &mut Problems) {
    if let Share::Weights(weights) = &stage.share {
        for name in weights.keys().filter(|name| !plan.treatments.contains(*name)) {
            let hint = did_you_mean(name, plan.treatments.iter().map(String::as_str));
            problems.hinted(path.key("weights"), quoted(name), "a treatment; what is left is the baseline's", hint);
        }
    }
    if stage.percent() > BUCKETS {
        problems.found(path.key("weights"), format!("{} in all", Weight::Percent(stage.percent())), "at most 100%");
    }
    let now = plan.shares(stage);
    for (name, share) in &now {
        let Some(earlier) = before.get(name).filter(|earlier| *earlier > share) else { continue };
        let found = format!("{} at {} after {}", quoted(name), Weight::Percent(*share), Weight::Percent(*earlier));
        problems.found(path, found, "a share that does not fall: a ramp takes a treatment from nobody");
    }
    *before = now;
}

fn times(flag: &Flag, stage: &Stage, path: Path<'_>, problems: &mut Problems) {
    if let (Some(bake), Some(deadline)) = (stage.bake, stage.deadline)
        && deadline < bake
    {
        problems.found(path.key("deadline"), deadline.to_string(), format!("not before the bake time of {bake} is over"));
    }
    for check in stage.checks() {
        let Some(lag) = flag.metrics.get(&check.metric).and_then(|metric| metric.lag) else { continue };
        if stage.bake.is_none_or(|bake| bake < lag) {
            let bake = stage.bake.map_or_else(|| "no bake time".to_owned(), |bake| format!("a bake time of {bake}"));
            let found = format!("{bake}, and {} whose outcomes come up to {lag} late", quoted(&check.metric));
            problems.found(path.key("bake"), found, format!("at least {lag}, so that somebody's outcome is complete"));
        }
    }
}

fn gates(flag: &Flag, stage: &Stage, path: Path<'_>, problems: &mut Problems) {
    let list = path.key("gates");
    if stage.gates.len() > limits::GATES {
        problems.found(list, format!("{} gates", stage.gates.len()), format!("at most {}", limits::GATES));
    }
    for (index, gate) in stage.gates.iter().enumerate() {
        let place = list.index(index);
        match gate {
            Gate::Approval(approval) => self::approval(approval, place.key("approval"), problems),
            Gate::Metrics(checks) => {
                let place = place.key("metrics");
                for (index, check) in checks.iter().enumerate() {
                    self::check(flag, check, place.index(index), problems);
                }
            }
            Gate::Comparison(check) => self::check(flag, check, place.key("comparison"), problems),
            Gate::SampleRatio(ratio) if ratio.coverage && flag.metrics.is_empty() => {
                problems.found(
                    place.key("sampleRatio").key("coverage"),
                    "coverage of a flag without a metric",
                    "a metric that applications report",
                );
            }
            Gate::SampleRatio(_) => {}
        }
    }
}

fn approval(Approval { by, count }: &Approval, path: Path<'_>, problems: &mut Problems) {
    if *count > limits::APPROVALS {
        problems.found(path.key("count"), count.to_string(), format!("at most {}", limits::APPROVALS));
    }
    if !by.is_empty() && *count as usize > by.len() {
        problems.found(path.key("count"), format!("{count} approvals by {} actors", by.len()), "no more than there are actors who may");
    }
}

fn check(flag: &Flag, check: &Check, path: Path<'_>, problems: &mut Problems) {
    let Some(metric) = metric_of(flag, &check.metric, path, problems) else { return };
    let mode = check.mode(metric);
    if check.margin(metric).is_none() && mode != Mode::Superior {
        let expected = "`margin`: { relative: … } or { absolute: … }, there or at the metric";
        problems.found(path, format!("{} without a margin", mode.as_str()), expected);
    }
    if metric.direction == Direction::None && mode != Mode::Equivalent {
        problems.found(path, format!("{} of a metric without a direction", mode.as_str()), "`equivalent`, or a direction that is better");
    }
    if let Some(Margin::Absolute(amount)) = check.margin.filter(|_| metric.kind.is_share()) {
        share_margin(amount, path.key("margin"), problems);
    }
}
