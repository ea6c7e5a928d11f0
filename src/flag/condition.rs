//! Conditions, ready to be asked. Whether one holds is total and allocates nothing; only a regular expression takes scratch space, once for
//! each thread that uses it at the same time.
//!
//! All conditions of a flag lie side by side and all their texts in one: of 10,000 flags most are in no cache when they are asked, and then
//! each allocation that is followed costs as much as everything else together.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use ipnet::IpNet;
use regex::Regex;
use smallvec::SmallVec;

use super::context::{Attribute, Attributes, TARGETING_KEY};
use super::date::Instant;
use super::keys::KeySet;
use super::limits;
use super::segment::CompiledSegment;
use super::version::{Comparison, Version};

/// The conditions of a flag or segment, and the texts that they (and rules) are made of.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    pub(super) text: Box<str>,
    pub(super) lists: Box<[Span]>,
    pub(super) all: Box<[Condition]>,
    pub(super) segments: Box<[Arc<CompiledSegment>]>,
}

/// A piece of [`Conditions::text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

/// A piece of [`Conditions::lists`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct List {
    pub(super) start: u32,
    pub(super) end: u32,
}

#[derive(Debug)]
pub(super) struct Condition {
    pub(super) test: Test,
    pub(super) not: bool,
}

#[derive(Debug)]
pub(super) enum Test {
    /// The name of the attribute, and what is asked of it.
    Attribute(Span, Operator),
    /// Index into [`Conditions::segments`].
    Segment(u16),
}

/// Small, because many lie side by side; what is rare or large is boxed.
#[derive(Debug)]
pub(super) enum Operator {
    EqualsBool(bool),
    EqualsNumber(f64),
    EqualsText(Span),
    /// A handful of texts.
    InFew(List),
    In(Box<Members>),
    StartsWith(List),
    EndsWith(List),
    Contains(List),
    Matches(Box<Regex>),
    LessThan(f64),
    AtMost(f64),
    GreaterThan(f64),
    AtLeast(f64),
    Before(Box<Bound>),
    After(Box<Bound>),
    Semver(Box<SmallVec<[Comparison; 2]>>),
    Cidr(Box<SmallVec<[IpNet; 2]>>),
    Exists(bool),
}

#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) texts: KeySet,
    /// Sorted, each once.
    pub(super) numbers: Box<[f64]>,
    pub(super) yes: bool,
    pub(super) no: bool,
}

#[derive(Debug)]
pub(super) struct Bound {
    pub(super) instant: Instant,
    /// As it was written.
    pub(super) text: Box<str>,
}

impl Members {
    /// What is no number (NaN) is before none of them, and in no list.
    fn has_number(&self, number: f64) -> bool {
        self.numbers.binary_search_by(|held| held.partial_cmp(&number).unwrap_or(Ordering::Less)).is_ok()
    }
}

impl Conditions {
    /// Whether all conditions in `range` hold.
    #[inline]
    pub(super) fn hold<A: Attributes + ?Sized>(&self, range: Range<u32>, context: &A) -> bool {
        self.range(range).iter().all(|condition| condition.holds(self, context))
    }

    pub(super) fn range(&self, range: Range<u32>) -> &[Condition] {
        &self.all[range.start as usize..range.end as usize]
    }

    pub(super) fn text(&self, span: Span) -> &str {
        &self.text[span.start as usize..span.end as usize]
    }

    pub(super) fn texts(&self, list: List) -> impl Iterator<Item = &str> {
        self.lists[list.start as usize..list.end as usize].iter().map(|span| self.text(*span))
    }

    pub(super) fn segment(&self, index: u16) -> &CompiledSegment {
        &self.segments[usize::from(index)]
    }
}

/// The attribute of that name; the targeting key always comes from where the context keeps it.
#[inline]
pub(super) fn read<'c, A: Attributes + ?Sized>(name: &str, context: &'c A) -> Option<Attribute<'c>> {
    if name == TARGETING_KEY { context.targeting_key().map(Attribute::String) } else { context.attribute(name) }
}

impl Condition {
    #[inline]
    pub(super) fn holds<A: Attributes + ?Sized>(&self, all: &Conditions, context: &A) -> bool {
        let outcome = match &self.test {
            Test::Attribute(name, operator) => operator.holds(all, all.text(*name), context),
            Test::Segment(index) => all.segment(*index).has(context),
        };
        outcome != self.not
    }
}

impl Operator {
    #[inline]
    fn holds<A: Attributes + ?Sized>(&self, all: &Conditions, name: &str, context: &A) -> bool {
        match (read(name, context), self) {
            (None | Some(Attribute::Null), operator) => matches!(operator, Self::Exists(false)),
            (Some(_), Self::Exists(expected)) => *expected,
            (Some(Attribute::List), operator) => context.any_element(name, &mut |element| operator.accepts(all, element)),
            (Some(attribute), operator) => operator.accepts(all, attribute),
        }
    }

    /// One value: false for every type that the operator does not ask for.
    #[inline]
    fn accepts(&self, all: &Conditions, attribute: Attribute<'_>) -> bool {
        match (attribute, self) {
            (Attribute::String(text), operator) => operator.accepts_text(all, text),
            (Attribute::Number(number), operator) => operator.accepts_number(number),
            (Attribute::Bool(value), Self::EqualsBool(expected)) => value == *expected,
            (Attribute::Bool(true), Self::In(members)) => members.yes,
            (Attribute::Bool(false), Self::In(members)) => members.no,
            (Attribute::Null | Attribute::Bool(_) | Attribute::List | Attribute::Object, _) => false,
        }
    }

    fn accepts_number(&self, number: f64) -> bool {
        match self {
            Self::EqualsNumber(expected) => number == *expected,
            Self::In(members) => members.has_number(number),
            Self::LessThan(bound) => number < *bound,
            Self::AtMost(bound) => number <= *bound,
            Self::GreaterThan(bound) => number > *bound,
            Self::AtLeast(bound) => number >= *bound,
            _ => false,
        }
    }

    fn accepts_text(&self, all: &Conditions, text: &str) -> bool {
        match self {
            Self::EqualsText(expected) => text == all.text(*expected),
            Self::InFew(members) => all.texts(*members).any(|member| text == member),
            Self::In(members) => members.texts.contains(text),
            Self::StartsWith(starts) => all.texts(*starts).any(|start| text.starts_with(start)),
            Self::EndsWith(ends) => all.texts(*ends).any(|end| text.ends_with(end)),
            Self::Contains(parts) => all.texts(*parts).any(|part| text.contains(part)),
            Self::Matches(pattern) => text.len() <= limits::REGEX_SUBJECT_BYTES && pattern.is_match(text),
            Self::Before(bound) => Instant::parse(text).is_some_and(|instant| instant < bound.instant),
            Self::After(bound) => Instant::parse(text).is_some_and(|instant| instant > bound.instant),
            Self::Semver(range) => Version::parse(text).is_some_and(|version| range.iter().all(|comparison| comparison.holds(version))),
            Self::Cidr(networks) => address(text).is_some_and(|address| networks.iter().any(|network| network.contains(&address))),
            _ => false,
        }
    }
}

/// An IPv4 address that is written as IPv6 (`::ffff:10.0.0.1`) is the IPv4 address: dual-stack sockets report it so.
fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::super::compile::Compiler;
    use super::super::document::{self, Scalar};
    use super::super::problem::{Path, Problems};
    use super::super::segment::Segments;
    use super::*;

    /// Twenty thousand numbers fit into a flag, and are asked in each decision.
    #[test]
    fn numbers_of_a_list_are_searched_by_halves() {
        let numbers = [300.0, 1.0, 2.5, -7.0, 1.0, 0.0, -0.0].map(Scalar::Number).to_vec();
        let test = document::Test::Attribute { attribute: "n".into(), operator: document::Operator::In(numbers) };
        let (segments, mut problems) = (Segments::none(), Problems::default());
        let mut compiler = Compiler::new(&segments, &mut problems);
        compiler.conditions(&[document::Condition { test, not: false }], Path::ROOT);
        let (conditions, _) = compiler.finish();
        let [Condition { test: Test::Attribute(_, Operator::In(members)), .. }] = &*conditions.all else { panic!("{conditions:?}") };
        assert_eq!(*members.numbers, [-7.0, 0.0, 1.0, 2.5, 300.0]);
        assert!(members.numbers.iter().all(|number| members.has_number(*number)));
        assert!(members.has_number(-0.0) && !members.has_number(f64::NAN) && !members.has_number(2.0));
    }

    #[test]
    fn two_conditions_fit_into_a_cache_line() {
        assert!(size_of::<Condition>() <= 32, "{}", size_of::<Condition>());
    }
}
