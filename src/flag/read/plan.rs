//! Rollouts: plans, stages and gates.

use std::collections::BTreeMap;

use super::super::date::Instant;
use super::super::document::Weight;
use super::super::node::{Node, quoted};
use super::super::plan::{AlphaOnRetry, Approval, Check, Gate, Mode, OnDeadline, OnFail, Plan, SampleRatio, Share, Stage, Start};
use super::super::problem::{Path, Problems};
use super::super::span::Span;
use super::fields::{Fields, text};
use super::metric::{margin, number, whole};
use super::{choice, required, value};

pub(in super::super) const PLAN: &[&str] = &["alphaOnRetry", "baseline", "coolDown", "retention", "stages", "treatments", "unitsPerDay"];
pub(in super::super) const STAGE: &[&str] = &["bake", "deadline", "gates", "name", "onDeadline", "percent", "start", "weights"];
pub(in super::super) const START: &[&str] = &["after", "at"];
pub(in super::super) const GATE: &[&str] = &["approval", "comparison", "metrics", "sampleRatio"];
pub(in super::super) const APPROVAL: &[&str] = &["by", "count"];
pub(in super::super) const CHECK: &[&str] = &["margin", "metric", "minUnits", "mode", "onFail"];
pub(in super::super) const SAMPLE_RATIO: &[&str] = &["alpha", "coverage"];

pub(super) fn plan(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Plan> {
    let fields = Fields::of(node, "a rollout", PLAN, path, problems)?;
    let baseline = required(&fields, "baseline", "a rollout", path, problems);
    let treatments = fields.set("treatments", "the name of a variant", path, problems);
    if treatments.is_empty() && !matches!(fields.get("treatments"), Some(Node::List(list)) if !list.is_empty()) {
        problems.found(path.key("treatments"), "no variant", "a list of the variants that are rolled out, at least one");
    }
    let stages = fields.list("stages", "stages", path, problems, stage);
    if !matches!(fields.get("stages"), Some(Node::List(list)) if !list.is_empty()) {
        problems.found(path.key("stages"), "no stage", "a list of stages, at least one");
    }
    Some(Plan {
        baseline: baseline?,
        treatments,
        stages,
        retention: span(&fields, "retention", path, problems),
        cool_down: span(&fields, "coolDown", path, problems),
        units_per_day: whole(&fields, "unitsPerDay", path, problems),
        alpha_on_retry: choice(&fields, "alphaOnRetry", AlphaOnRetry::ALL, AlphaOnRetry::as_str, path, problems).unwrap_or_default(),
    })
}

/// A [`Span`], or a problem.
pub(super) fn span(fields: &Fields<'_, '_>, key: &str, path: Path<'_>, problems: &mut Problems) -> Option<Span> {
    let node = fields.get(key)?;
    span_of(node, path.key(key), problems)
}

fn span_of(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Span> {
    let found = text(node, Span::EXPECTED, path, problems)?;
    let span = Span::parse(&found);
    if span.is_none() {
        problems.found(path, quoted(&found), Span::EXPECTED);
    }
    span
}

fn stage(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Stage> {
    let fields = Fields::of(node, "a stage", STAGE, path, problems)?;
    let share = match (fields.get("percent"), fields.get("weights")) {
        (Some(node), None) => percent(node, path.key("percent"), problems).map(Share::Percent),
        (None, Some(_)) => Some(Share::Weights(weights(&fields, path, problems))),
        (None, None) => {
            problems.found(path, "a stage without a share", "`percent` of the traffic, or `weights` by treatment");
            None
        }
        (Some(_), Some(_)) => {
            problems.found(path, "`percent` and `weights`", "one of them");
            None
        }
    };
    let stage = Stage {
        name: fields.text("name", path, problems),
        share: share.clone().unwrap_or(Share::Percent(0)),
        start: fields.get("start").and_then(|node| start(node, path.key("start"), problems)).unwrap_or_default(),
        bake: span(&fields, "bake", path, problems),
        deadline: span(&fields, "deadline", path, problems),
        on_deadline: choice(&fields, "onDeadline", OnDeadline::ALL, OnDeadline::as_str, path, problems).unwrap_or_default(),
        gates: fields.list("gates", "gates", path, problems, gate),
    };
    share.map(|_| stage)
}

/// `10`, `12.5` or `"12.5%"`.
fn percent(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<u32> {
    let buckets = match value::weight(node, path, problems)? {
        Weight::Relative(ten_thousandths) => u32::try_from(ten_thousandths).ok().filter(|buckets| *buckets <= super::super::BUCKETS),
        Weight::Percent(buckets) => Some(buckets),
    };
    if buckets.is_none() {
        problems.found(path, node.to_string(), "a percentage from 0 to 100 with at most four decimals");
    }
    buckets
}

fn weights(fields: &Fields<'_, '_>, path: Path<'_>, problems: &mut Problems) -> BTreeMap<String, u32> {
    fields.map("weights", "percentages by treatment", path, problems, |_, node, path, problems| percent(node, path, problems))
}

fn start(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Start> {
    let fields = Fields::of(node, "a start", START, path, problems)?;
    match (fields.get("after"), fields.get("at")) {
        (Some(node), None) => span_of(node, path.key("after"), problems).map(Start::After),
        (None, Some(node)) => {
            const EXPECTED: &str = "a date and time with an offset, such as 2026-11-21T09:00:00Z";
            let path = path.key("at");
            let found = text(node, EXPECTED, path, problems)?;
            if Instant::parse(&found).is_none() {
                problems.found(path, quoted(&found), EXPECTED);
                return None;
            }
            Some(Start::At(found))
        }
        _ => {
            problems.found(path, node.to_string(), "`after` a span of time, or `at` a time");
            None
        }
    }
}

fn gate(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Gate> {
    let fields = Fields::of(node, "a gate", GATE, path, problems)?;
    let present = fields.present(GATE);
    let [kind] = present.as_slice() else {
        let found = if present.is_empty() { "a gate of no kind".to_owned() } else { format!("{} in one gate", present.join(" and ")) };
        problems.found(path, found, format!("one of {}", GATE.join(", ")));
        return None;
    };
    let (node, place) = (fields.get(kind)?, path.key(kind));
    match *kind {
        "approval" => approval(node, place, problems).map(Gate::Approval),
        "metrics" => {
            let checks = fields.list("metrics", "metrics", path, problems, check);
            if matches!(node, Node::List(list) if list.is_empty()) {
                problems.found(place, "a gate without a metric", "at least one metric of this flag");
            }
            Some(Gate::Metrics(checks))
        }
        "comparison" => check(node, place, problems).map(Gate::Comparison),
        _ => sample_ratio(node, place, problems).map(Gate::SampleRatio),
    }
}

fn approval(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Approval> {
    let fields = Fields::of(node, "an approval", APPROVAL, path, problems)?;
    let count = whole(&fields, "count", path, problems);
    let count = match count.map(u32::try_from) {
        None => 1,
        Some(Ok(count)) => count,
        Some(Err(_)) => u32::MAX,
    };
    Some(Approval { by: fields.set("by", "an actor", path, problems), count })
}

/// The name of a metric, or an object with more to say of it.
fn check(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Check> {
    if let Node::String(metric) = node {
        return Some(Check { metric: metric.clone().into_owned(), mode: None, margin: None, min_units: None, on_fail: None });
    }
    let fields = Fields::of(node, "a check", CHECK, path, problems)?;
    let metric = required(&fields, "metric", "a check", path, problems);
    Some(Check {
        mode: choice(&fields, "mode", Mode::ALL, Mode::as_str, path, problems),
        margin: fields.get("margin").and_then(|node| margin(node, path.key("margin"), problems)),
        min_units: whole(&fields, "minUnits", path, problems),
        on_fail: choice(&fields, "onFail", OnFail::ALL, OnFail::as_str, path, problems),
        metric: metric?,
    })
}

fn sample_ratio(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<SampleRatio> {
    let fields = Fields::of(node, "a sample ratio", SAMPLE_RATIO, path, problems)?;
    let alpha = number(&fields, "alpha", path, problems);
    if let Some(alpha) = alpha.filter(|alpha| !(*alpha > 0.0 && *alpha < 0.5)) {
        problems.found(path.key("alpha"), alpha.to_string(), "a probability above 0 and below 0.5");
    }
    Some(SampleRatio { alpha, coverage: fields.bool("coverage", path, problems).unwrap_or(false) })
}
