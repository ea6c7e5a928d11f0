//! Values of variants, scalars, and shares.

use serde_json::{Map, Number, Value as Json};

use super::super::document::{Scalar, Weight};
use super::super::limits;
use super::super::node::{Node, quoted};
use super::super::problem::{Path, Problems};
use super::super::value::{EXACT_INTEGERS, number_to_json};
use super::super::{Value, ValueType};
use super::fields::entries;

/// Decimals of a weight, as a factor.
const TEN_THOUSAND: f64 = 10_000.0;
/// Up to which a weight in ten-thousandths is exact in a `f64`, with room for the sum of all.
const LARGEST_WEIGHT: f64 = 1e9;

pub(super) fn value(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Value> {
    match node {
        Node::Bool(value) => Some(Value::Bool(*value)),
        Node::Number(value) => exact(value, path, problems).map(Value::Number),
        Node::String(value) => Some(Value::String(value.clone().into_owned())),
        Node::Map(_) => match json(node, 1, path, problems)? {
            Json::Object(fields) => Some(Value::Object(fields)),
            _ => None,
        },
        Node::Null | Node::List(_) => {
            problems.found(path, node.to_string(), "true or false, a number, text or an object");
            None
        }
    }
}

pub(super) fn scalar(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Scalar> {
    match node {
        Node::Bool(value) => Some(Scalar::Bool(*value)),
        Node::Number(value) => exact(value, path, problems).map(Scalar::Number),
        Node::String(value) => Some(Scalar::String(value.clone().into_owned())),
        Node::Null | Node::List(_) | Node::Map(_) => {
            problems.found(path, node.to_string(), "text, a number, true or false");
            None
        }
    }
}

/// A number as a double, refused where a double would not be the number that was written.
pub(super) fn exact(number: &Number, path: Path<'_>, problems: &mut Problems) -> Option<f64> {
    match number.as_f64() {
        // -0 becomes 0, so that equal documents are written equally.
        Some(value) if value.abs() <= EXACT_INTEGERS => Some(value + 0.0),
        _ => {
            let hint = Some("write it as text if every digit matters".to_owned());
            problems.hinted(path, number.to_string(), "a number between -9007199254740991 and 9007199254740991 (2^53 - 1)", hint);
            None
        }
    }
}

/// Anything, with numbers in their one canonical spelling and at most [`limits::NESTING`] levels, counted from `level`.
pub(super) fn json(node: &Node<'_>, level: usize, path: Path<'_>, problems: &mut Problems) -> Option<Json> {
    nested(node, level, limits::NESTING, path, problems)
}

/// The same of `targeting` and its fragments, which go deeper.
pub(super) fn logic(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Json> {
    nested(node, 1, limits::TARGETING_NESTING, path, problems)
}

fn nested(node: &Node<'_>, level: usize, most: usize, path: Path<'_>, problems: &mut Problems) -> Option<Json> {
    if level > most && matches!(node, Node::List(_) | Node::Map(_)) {
        problems.found(path, format!("a value at level {level}"), format!("at most {most} levels"));
        return None;
    }
    Some(match node {
        Node::Null => Json::Null,
        Node::Bool(value) => Json::Bool(*value),
        Node::Number(value) => number_to_json(exact(value, path, problems)?),
        Node::String(value) => Json::String(value.clone().into_owned()),
        Node::List(elements) => {
            let read = |(index, element)| nested(element, level + 1, most, path.index(index), problems);
            Json::Array(elements.iter().enumerate().filter_map(read).collect())
        }
        Node::Map(_) => {
            let entries = entries(node, "a value", path, problems)?;
            let mut map = Map::new();
            for (key, node) in entries {
                if let Some(value) = nested(node, level + 1, most, path.key(key), problems) {
                    map.insert(key.clone().into_owned(), value);
                }
            }
            Json::Object(map)
        }
    })
}

pub(super) fn weight(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Weight> {
    const EXPECTED: &str = "a number such as 1 or 2.5, or a percentage such as \"12.5%\", with at most four decimals";
    let read = match node {
        Node::Number(number) => number.as_f64().and_then(ten_thousandths).map(Weight::Relative),
        Node::String(text) => match text.strip_suffix('%').map(percent_of) {
            Some(Some(percent)) => Some(Weight::Percent(percent)),
            Some(None) => {
                problems.found(path, quoted(text), "a percentage from 0% to 100% with at most four decimals");
                return None;
            }
            None => None,
        },
        _ => None,
    };
    if read.is_none() {
        problems.found(path, node.to_string(), EXPECTED);
    }
    read
}

/// Ten-thousandths of a number that has no more than four decimals.
fn ten_thousandths(number: f64) -> Option<u64> {
    let scaled = (number * TEN_THOUSAND).round();
    let is_exact = scaled / TEN_THOUSAND == number;
    (is_exact && (0.0..=LARGEST_WEIGHT * TEN_THOUSAND).contains(&scaled)).then_some(scaled as u64)
}

/// `12.5` to 125,000 ten-thousandths, read digit by digit.
fn percent_of(text: &str) -> Option<u32> {
    let (whole, decimals) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 3 || decimals.len() > 4 || !digits(whole) || !digits(decimals) {
        return None;
    }
    let decimals = format!("{decimals:0<4}");
    let ten_thousandths = whole.parse::<u32>().ok()? * 10_000 + decimals.parse::<u32>().ok()?;
    (ten_thousandths <= 1_000_000).then_some(ten_thousandths)
}

/// The type that all variants have, or a problem for each that has another than the first.
pub(super) fn one_type<'v>(variants: impl IntoIterator<Item = (&'v String, &'v Value)>, path: Path<'_>, problems: &mut Problems) {
    let mut first: Option<(&str, ValueType)> = None;
    for (name, value) in variants {
        match first {
            None => first = Some((name, value.kind())),
            Some((_, kind)) if kind == value.kind() => {}
            Some((first, kind)) => problems.found(
                path.key(name),
                format!("a {}", value.kind()),
                format!("a {kind} as in {first:?}: all variants have one type"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_have_up_to_four_decimals_exactly() {
        for (text, expected) in
            [("0", Some(0)), ("100", Some(1_000_000)), ("12.5", Some(125_000)), ("0.0001", Some(1)), ("99.9999", Some(999_999))]
        {
            assert_eq!(percent_of(text), expected, "{text}");
        }
        for text in ["", ".5", "-1", "100.0001", "101", "1.23456", "1e1", "+5", "5 %"] {
            assert_eq!(percent_of(text), None, "{text}");
        }
    }

    #[test]
    fn weights_are_exact_to_four_decimals() {
        for (number, expected) in
            [(1.0, Some(10_000)), (0.1, Some(1_000)), (33.3333, Some(333_333)), (0.00001, None), (-1.0, None), (1e12, None)]
        {
            assert_eq!(ten_thousandths(number), expected, "{number}");
        }
    }
}
