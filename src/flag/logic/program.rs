//! What a rule is compiled to: a tree in which nothing is left to look up but the context.

use serde_json::Value as Json;

use super::super::context::{Name, Tag};
use super::super::keys::KeySet;
use super::value::Value;

#[derive(Debug)]
pub(super) enum Node {
    Literal(Json),
    List(Box<[Node]>),
    Var(Box<Var>),
    /// A `var` whose path is computed.
    Computed(Box<Computed>),
    Missing(Args),
    MissingSome(Args),
    If(Box<[Node]>),
    And(Box<[Node]>),
    Or(Box<[Node]>),
    Not(Args),
    Truth(Args),
    Compare(Comparison, Args),
    Arithmetic(Arithmetic, Args),
    Cat(Args),
    Substr(Args),
    Merge(Args),
    In(Args),
    /// `in` a list that the rule spells out.
    InMembers(Box<(Node, Members)>),
    Each(Iteration, Box<[Node; 2]>),
    /// List, body, initial value.
    Reduce(Box<[Node; 3]>),
    Fractional(Box<Fractional>),
    SemVer(Args),
    StartsWith(Args),
    EndsWith(Args),
}

/// Arguments of an operator: a list, or one value that stands for a list of it alone. If that value is a list itself, it is the arguments.
#[derive(Debug)]
pub(super) enum Args {
    Listed(Box<[Node]>),
    Given(Box<Node>),
}

#[derive(Debug)]
pub(super) struct Var {
    pub(super) path: Path,
    pub(super) default: Option<Node>,
}

#[derive(Debug)]
pub(super) struct Computed {
    pub(super) path: Node,
    pub(super) default: Option<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Same,
    NotSame,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Sum,
    Difference,
    Product,
    Quotient,
    Remainder,
    Least,
    Largest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Iteration {
    Map,
    Filter,
    All,
    Some,
    None,
}

#[derive(Debug)]
pub(super) struct Fractional {
    /// `None`: by the key of the flag and the targeting key.
    pub(super) unit: Option<Node>,
    pub(super) buckets: Buckets,
}

#[derive(Debug)]
pub(super) enum Buckets {
    /// Every variant and weight is spelled out.
    Fixed(Box<[(Json, u32)]>),
    /// Variant and weight of each are spelled out, but have to be computed.
    Spelled(Box<[Args]>),
    /// To be computed; the unit may be among them.
    Computed(Args),
    /// Not what buckets may be, so that the result is null.
    Void,
}

/// The path of a `var`.
#[derive(Debug)]
pub(super) struct Path {
    /// Without empty names.
    text: Box<str>,
    tag: Tag,
    pub(super) leads: Leads,
    /// A leading dot: within an operator over a list, never an attribute of the context.
    pub(super) is_inner: bool,
}

/// What a path is of the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leads {
    /// To all of it.
    Everywhere,
    ToAttribute,
    /// To an attribute, or by a number to an element of a list.
    ToElement,
    /// `$flagd.flagKey`
    ToFlagKey,
    /// `$flagd.timestamp`
    ToTime,
    /// `$flagd`
    ToFlagd,
}

impl Path {
    pub(super) fn of(path: &str) -> Self {
        let text = path.split('.').filter(|name| !name.is_empty()).collect::<Vec<_>>().join(".");
        let leads = match text.as_str() {
            "" => Leads::Everywhere,
            "$flagd" => Leads::ToFlagd,
            "$flagd.flagKey" => Leads::ToFlagKey,
            "$flagd.timestamp" => Leads::ToTime,
            text if text.split('.').skip(1).any(|name| super::value::index(name).is_some()) => Leads::ToElement,
            _ => Leads::ToAttribute,
        };
        Self { tag: Tag::of(&text), leads, is_inner: path.starts_with('.'), text: text.into() }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn name(&self) -> Name<'_> {
        Name { tag: self.tag, start: 0, texts: &self.text }
    }
}

/// A list of scalars, ready to be searched.
#[derive(Debug, Default)]
pub(super) struct Members {
    texts: KeySet,
    /// Sorted, each once. Those that are written as text too.
    numbers: Box<[f64]>,
    yes: bool,
    no: bool,
    null: bool,
}

impl Members {
    /// `None` with a list or an object among them.
    pub(super) fn of(elements: &[Json]) -> Option<Self> {
        let mut members = Self::default();
        let (mut texts, mut numbers) = (Vec::new(), Vec::new());
        for element in elements {
            match element {
                Json::Null => members.null = true,
                Json::Bool(true) => members.yes = true,
                Json::Bool(false) => members.no = true,
                Json::Number(number) => numbers.extend(number.as_f64()),
                Json::String(text) => {
                    texts.push(text.as_str());
                    numbers.extend(text.parse::<f64>().ok().filter(|number| !number.is_nan()).map(|number| number + 0.0));
                }
                Json::Array(_) | Json::Object(_) => return None,
            }
        }
        texts.sort_unstable();
        texts.dedup();
        numbers.sort_unstable_by(f64::total_cmp);
        numbers.dedup();
        Some(Self { texts: KeySet::of(texts), numbers: numbers.into(), ..members })
    }

    pub(super) fn have(&self, value: &Value<'_>) -> bool {
        match value {
            Value::Null => self.null,
            Value::Bool(true) => self.yes,
            Value::Bool(false) => self.no,
            Value::Number(number) => self.numbers.binary_search_by(|held| held.total_cmp(&(number + 0.0))).is_ok(),
            Value::Text(text) => self.texts.contains(text.as_str()),
            Value::List(_) | Value::Object(_) => false,
        }
    }
}
