//! Conditions and attributes in words.

use super::condition::{Condition, Conditions, List, Operator};
use super::context::Attribute;
use super::node::quoted;

/// How many members of a long list are shown.
const SHOWN: usize = 5;

/// `cohort in "beta", "internal"`, `not (plan equals "free")`, `in segment beta-users`.
pub(super) fn condition_in_words(condition: &Condition, all: &Conditions) -> String {
    let words = match &condition.operator {
        Operator::Segment(_) => operator_in_words(&condition.operator, all),
        operator => format!("{} {}", all.name(condition.name()).as_str(), operator_in_words(operator, all)),
    };
    if condition.not { format!("not ({words})") } else { words }
}

/// `300 s`, `0.25 s`: to the millisecond, because one decides.
pub(super) fn span_in_words(ms: u64) -> String {
    format!("{} s", ms as f64 / 1_000.0)
}

/// `is absent`, `is "pro"`, `is 42`.
pub(super) fn attribute_in_words(attribute: Option<Attribute<'_>>) -> String {
    match attribute {
        None => "is absent".to_owned(),
        Some(Attribute::Null) => "is null".to_owned(),
        Some(Attribute::Bool(value)) => format!("is {value}"),
        Some(Attribute::Number(value)) => format!("is {value}"),
        Some(Attribute::String(text)) => format!("is {}", quoted(text)),
        Some(Attribute::List) => "is a list".to_owned(),
        Some(Attribute::Object) => "is an object".to_owned(),
    }
}

fn operator_in_words(operator: &Operator, all: &Conditions) -> String {
    match operator {
        Operator::EqualsBool(value) => format!("equals {value}"),
        Operator::EqualsNumber(value) => format!("equals {value}"),
        Operator::EqualsText(value) => format!("equals {}", quoted(all.text(*value))),
        Operator::InFew(texts) => format!("in {}", any_of(*texts, all)),
        Operator::In(members) => {
            let texts = members.texts.iter().map(quoted);
            let numbers = members.numbers.iter().map(f64::to_string);
            let bools =
                [(members.yes, "true"), (members.no, "false")].into_iter().filter(|(is_in, _)| *is_in).map(|(_, name)| name.to_owned());
            format!("in {}", some_of(texts.chain(numbers).chain(bools)))
        }
        Operator::StartsWith(texts) => format!("starts with {}", any_of(*texts, all)),
        Operator::EndsWith(texts) => format!("ends with {}", any_of(*texts, all)),
        Operator::Contains(texts) => format!("contains {}", any_of(*texts, all)),
        Operator::Matches(regex) => format!("matches /{}/", regex.as_str()),
        Operator::LessThan(bound) => format!("< {bound}"),
        Operator::AtMost(bound) => format!("<= {bound}"),
        Operator::GreaterThan(bound) => format!("> {bound}"),
        Operator::AtLeast(bound) => format!(">= {bound}"),
        Operator::Before(bound) => format!("before {}", bound.text),
        Operator::After(bound) => format!("after {}", bound.text),
        Operator::Semver(range) => format!("satisfies {}", some_of(range.iter().map(ToString::to_string))),
        Operator::Cidr(networks) => format!("in network {}", some_of(networks.iter().map(ToString::to_string))),
        Operator::Exists(true) => "exists".to_owned(),
        Operator::Exists(false) => "does not exist".to_owned(),
        Operator::Segment(index) => format!("in segment {}", all.segment(*index).key),
    }
}

fn any_of(texts: List, all: &Conditions) -> String {
    some_of(all.texts(texts).map(quoted))
}

fn some_of(members: impl Iterator<Item = String>) -> String {
    let mut members: Vec<String> = members.collect();
    match members.len().saturating_sub(SHOWN) {
        0 if members.is_empty() => "nothing".to_owned(),
        0 => members.join(", "),
        more => {
            members.truncate(SHOWN);
            format!("{} and {more} more", members.join(", "))
        }
    }
}
