//! Conditions: one test each.

use super::super::document::{Condition, Operator, Scalar, Test};
use super::super::node::Node;
use super::super::problem::{Path, Problems};
use super::fields::{Fields, text};
use super::value::{exact, scalar};

const OPERATORS: &[&str] = &[
    "equals",
    "in",
    "startsWith",
    "endsWith",
    "contains",
    "matches",
    "lessThan",
    "atMost",
    "greaterThan",
    "atLeast",
    "before",
    "after",
    "semver",
    "cidr",
    "exists",
];
/// The operators, and what stands beside them.
pub(in super::super) const CONDITION: &[&str] = &[
    "attribute",
    "not",
    "segment",
    "equals",
    "in",
    "startsWith",
    "endsWith",
    "contains",
    "matches",
    "lessThan",
    "atMost",
    "greaterThan",
    "atLeast",
    "before",
    "after",
    "semver",
    "cidr",
    "exists",
];

pub(super) fn condition(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Condition> {
    let fields = Fields::of(node, "a condition", CONDITION, path, problems)?;
    let not = fields.bool("not", path, problems).unwrap_or(false);
    let operators = fields.present(OPERATORS);
    if fields.has_unknown() {
        return None;
    }
    let test = match (fields.get("segment"), fields.get("attribute"), operators.as_slice()) {
        (Some(key), None, []) => Test::Segment(text(key, "the key of a segment", path.key("segment"), problems)?),
        (None, Some(attribute), [name]) => {
            let attribute = text(attribute, "the name of an attribute", path.key("attribute"), problems);
            let operator = operator(name, fields.get(name)?, path.key(name), problems);
            Test::Attribute { attribute: attribute.filter(|attribute| named(attribute, path, problems))?, operator: operator? }
        }
        (None, None, []) => {
            problems.found(path, "a condition without a test", "an `attribute` with an operator, or a `segment`");
            return None;
        }
        (None, None, [name, ..]) => {
            problems.found(path, format!("`{name}` without an attribute"), "an `attribute` beside it");
            return None;
        }
        (None, Some(_), []) => {
            problems.found(path, "an attribute without an operator", format!("one of {}", OPERATORS.join(", ")));
            return None;
        }
        (None, Some(_), several) => {
            problems.found(
                path,
                format!("{} operators ({})", several.len(), several.join(", ")),
                "one; write a condition for each, all of them must hold",
            );
            return None;
        }
        (Some(_), ..) => {
            problems.found(
                path,
                "a segment beside an attribute or operator",
                "one test; write a condition for each, all of them must hold",
            );
            return None;
        }
    };
    Some(Condition { test, not })
}

fn named(attribute: &str, path: Path<'_>, problems: &mut Problems) -> bool {
    if attribute.is_empty() {
        problems.found(path.key("attribute"), "\"\"", "the name of an attribute, not empty");
    }
    !attribute.is_empty()
}

fn operator(name: &str, node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Operator> {
    let text_of = |problems: &mut Problems| text(node, "text", path, problems);
    Some(match name {
        "equals" => Operator::Equals(scalar(node, path, problems)?),
        "in" => Operator::In(scalars(node, path, problems)?),
        "startsWith" => Operator::StartsWith(texts(node, path, problems)?),
        "endsWith" => Operator::EndsWith(texts(node, path, problems)?),
        "contains" => Operator::Contains(texts(node, path, problems)?),
        "matches" => Operator::Matches(text_of(problems)?),
        "lessThan" => Operator::LessThan(number(node, path, problems)?),
        "atMost" => Operator::AtMost(number(node, path, problems)?),
        "greaterThan" => Operator::GreaterThan(number(node, path, problems)?),
        "atLeast" => Operator::AtLeast(number(node, path, problems)?),
        "before" => Operator::Before(text_of(problems)?),
        "after" => Operator::After(text_of(problems)?),
        "semver" => Operator::Semver(text_of(problems)?),
        "cidr" => Operator::Cidr(texts(node, path, problems)?),
        "exists" => match node {
            Node::Bool(expected) => Operator::Exists(*expected),
            node => {
                problems.found(path, node.to_string(), "true or false");
                return None;
            }
        },
        _ => return None,
    })
}

fn scalars(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Vec<Scalar>> {
    let Node::List(elements) = node else {
        problems.hinted(path, node.to_string(), "a list", Some("write `equals` to compare with one value".to_owned()));
        return None;
    };
    let read = |(index, element)| scalar(element, path.index(index), problems);
    Some(elements.iter().enumerate().filter_map(read).collect())
}

/// One text or a list of them, each not empty: every text starts with, ends with and contains the empty one, which nobody means.
fn texts(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Vec<String>> {
    let mut read = |node: &Node<'_>, path: Path<'_>| {
        let text = text(node, "text", path, problems)?;
        if text.is_empty() {
            problems.found(path, "\"\"", "text, not empty");
        }
        Some(text)
    };
    match node {
        Node::List(elements) => Some(elements.iter().enumerate().filter_map(|(index, element)| read(element, path.index(index))).collect()),
        node => read(node, path).map(|text| vec![text]),
    }
}

fn number(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<f64> {
    match node {
        Node::Number(number) => exact(number, path, problems),
        node => {
            let hint = matches!(node, Node::String(text) if text.parse::<f64>().is_ok()).then(|| "write it without quotes".to_owned());
            problems.hinted(path, node.to_string(), "a number", hint);
            None
        }
    }
}
