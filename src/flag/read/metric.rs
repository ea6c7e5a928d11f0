//! Metrics and the guards that read them.

use super::super::node::Node;
use super::super::plan::{Direction, Guard, GuardBound, Margin, Metric, MetricKind, Mode, OnFail};
use super::super::problem::{Path, Problems, did_you_mean};
use super::fields::Fields;
use super::plan::span;
use super::{choice, required, value};

pub(in super::super) const METRIC: &[&str] =
    &["above", "clip", "direction", "event", "expected", "kind", "lag", "margin", "minUnits", "mode", "onFail"];
pub(in super::super) const MARGIN: &[&str] = &["absolute", "relative"];
pub(in super::super) const GUARD: &[&str] = &["above", "attributable", "below", "metric", "name", "worse"];
pub(in super::super) const KINDS: [&str; 4] = ["binomial", "mean", "ratio", "slow_share"];

pub(super) fn metric(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Metric> {
    let fields = Fields::of(node, "a metric", METRIC, path, problems)?;
    let kind = kind(&fields, path, problems);
    let direction = choice(&fields, "direction", Direction::ALL, Direction::as_str, path, problems);
    if fields.get("direction").is_none() {
        problems.found(path, "a metric without `direction`", "`direction`: higher, lower or none");
    }
    Some(Metric {
        kind: kind?,
        direction: direction?,
        event: fields.text("event", path, problems),
        margin: fields.get("margin").and_then(|node| margin(node, path.key("margin"), problems)),
        mode: choice(&fields, "mode", Mode::ALL, Mode::as_str, path, problems),
        min_units: whole(&fields, "minUnits", path, problems),
        on_fail: choice(&fields, "onFail", OnFail::ALL, OnFail::as_str, path, problems),
        lag: span(&fields, "lag", path, problems),
        expected: number(&fields, "expected", path, problems),
    })
}

fn kind(fields: &Fields<'_, '_>, path: Path<'_>, problems: &mut Problems) -> Option<MetricKind> {
    let expected = || format!("one of {}", KINDS.join(", "));
    let Some(node) = fields.get("kind") else {
        problems.found(path, "a metric without `kind`", format!("`kind`, {}", expected()));
        return None;
    };
    let (clip, above) = (fields.get("clip"), number(fields, "above", path, problems));
    let kind = match node {
        Node::String(kind) if kind == "binomial" => MetricKind::Binomial,
        Node::String(kind) if kind == "ratio" => MetricKind::Ratio,
        Node::String(kind) if kind == "mean" => MetricKind::Mean { clip: clip_of(clip, path, problems)? },
        Node::String(kind) if kind == "slow_share" => {
            let Some(above) = above else {
                problems.found(path, "a slow_share without `above`", "`above`: the value from which on a unit counts as slow");
                return None;
            };
            MetricKind::SlowShare { above }
        }
        node => {
            let hint = if let Node::String(found) = node { did_you_mean(found, KINDS) } else { None };
            problems.hinted(path.key("kind"), node.to_string(), expected(), hint);
            return None;
        }
    };
    if clip.is_some() && !matches!(kind, MetricKind::Mean { .. }) {
        problems.found(path.key("clip"), format!("a clip for a {}", kind.as_str()), "`clip` only where the kind is mean");
    }
    if above.is_some() && !matches!(kind, MetricKind::SlowShare { .. }) {
        problems.found(path.key("above"), format!("a bound for a {}", kind.as_str()), "`above` only where the kind is slow_share");
    }
    Some(kind)
}

fn clip_of(node: Option<&Node<'_>>, path: Path<'_>, problems: &mut Problems) -> Option<[f64; 2]> {
    let expected = "`clip`: the least and the most that a unit may count, such as [0, 100]";
    let Some(node) = node else {
        problems.found(path, "a mean without `clip`", expected);
        return None;
    };
    let path = path.key("clip");
    let clip = match node {
        Node::List(bounds) => match bounds.as_slice() {
            [Node::Number(least), Node::Number(most)] => {
                Some([value::exact(least, path.index(0), problems)?, value::exact(most, path.index(1), problems)?])
            }
            _ => None,
        },
        _ => None,
    };
    let clip = clip.filter(|[least, most]| least < most);
    if clip.is_none() {
        problems.found(path, node.to_string(), expected);
    }
    clip
}

pub(super) fn margin(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Margin> {
    const EXPECTED: &str = "{ relative: 0.05 } or { absolute: 0.02 }, because a number alone does not say of what";
    if !matches!(node, Node::Map(_)) {
        problems.found(path, node.to_string(), EXPECTED);
        return None;
    }
    let fields = Fields::of(node, "a margin", MARGIN, path, problems)?;
    let (relative, absolute) = (number(&fields, "relative", path, problems), number(&fields, "absolute", path, problems));
    match (relative, absolute) {
        (Some(share), None) if share > 0.0 && share < 1.0 => Some(Margin::Relative(share)),
        (Some(share), None) => {
            problems.found(path.key("relative"), share.to_string(), "a share of the baseline above 0 and below 1: 0.05 is 5 %");
            None
        }
        (None, Some(amount)) if amount > 0.0 => Some(Margin::Absolute(amount)),
        (None, Some(amount)) => {
            problems.found(path.key("absolute"), amount.to_string(), "a number above 0, in the metric's own unit");
            None
        }
        _ => {
            problems.found(path, node.to_string(), EXPECTED);
            None
        }
    }
}

pub(super) fn guard(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Guard> {
    let fields = Fields::of(node, "a guard", GUARD, path, problems)?;
    let metric = required(&fields, "metric", "a guard", path, problems);
    let name = fields.text("name", path, problems).or_else(|| metric.clone());
    let bounds = fields.present(&["above", "below", "worse"]);
    let bound = match bounds.as_slice() {
        ["above"] => share(&fields, "above", path, problems).map(GuardBound::Above),
        ["below"] => share(&fields, "below", path, problems).map(GuardBound::Below),
        ["worse"] => fields.get("worse").and_then(|node| margin(node, path.key("worse"), problems)).map(GuardBound::Worse),
        several => {
            let found = if several.is_empty() { "a guard without a bound".to_owned() } else { several.join(" and ") };
            problems.found(path, found, "one of `above`, `below` (a share) and `worse` (a margin to the baseline)");
            None
        }
    };
    let attributable = fields.bool("attributable", path, problems).unwrap_or(false);
    if attributable && bounds.contains(&"worse") {
        let expected = "it with `above` or `below`: what is `worse` is compared with the baseline anyway";
        problems.found(path.key("attributable"), "`attributable` with `worse`", expected);
    }
    Some(Guard { name: name?, metric: metric?, bound: bound?, attributable })
}

fn share(fields: &Fields<'_, '_>, key: &str, path: Path<'_>, problems: &mut Problems) -> Option<f64> {
    let share = number(fields, key, path, problems)?;
    if share > 0.0 && share < 1.0 {
        return Some(share);
    }
    problems.found(path.key(key), share.to_string(), "a share above 0 and below 1: 0.05 is 5 %");
    None
}

pub(super) fn number(fields: &Fields<'_, '_>, key: &str, path: Path<'_>, problems: &mut Problems) -> Option<f64> {
    match fields.get(key)? {
        Node::Number(number) => value::exact(number, path.key(key), problems),
        node => {
            problems.found(path.key(key), node.to_string(), "a number");
            None
        }
    }
}

/// A whole number from 1 on.
pub(super) fn whole(fields: &Fields<'_, '_>, key: &str, path: Path<'_>, problems: &mut Problems) -> Option<u64> {
    let node = fields.get(key)?;
    let number = match node {
        Node::Number(number) => number.as_u64().filter(|number| *number > 0),
        _ => None,
    };
    if number.is_none() {
        problems.found(path.key(key), node.to_string(), "a whole number, 1 or more");
    }
    number
}
