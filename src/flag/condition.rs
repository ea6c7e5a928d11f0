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

use super::context::{Attribute, Attributes, Name, TARGETING_KEY, Tag};
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

/// The name of an attribute: where it begins in [`Conditions::text`], and its tag, which has its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NameSpan {
    pub(super) start: u32,
    pub(super) tag: Tag,
}

/// A piece of [`Conditions::lists`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct List {
    pub(super) start: u32,
    pub(super) end: u32,
}

#[derive(Debug)]
pub(super) struct Condition {
    /// Of the attribute that the operator looks at; the parts of a [`NameSpan`].
    tag: Tag,
    pub(super) operator: Operator,
    start: u32,
    pub(super) not: bool,
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
    /// The whole context is in a segment: index into [`Conditions::segments`].
    Segment(u16),
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

    pub(super) fn name(&self, NameSpan { start, tag }: NameSpan) -> Name<'_> {
        Name { tag, start, texts: &self.text }
    }

    /// As bytes, which are cut without a look for the borders of characters.
    #[inline]
    fn bytes(&self, list: List) -> impl Iterator<Item = &[u8]> {
        let text = self.text.as_bytes();
        self.lists[list.start as usize..list.end as usize].iter().map(|span| &text[span.start as usize..span.end as usize])
    }

    pub(super) fn texts(&self, list: List) -> impl Iterator<Item = &str> {
        self.lists[list.start as usize..list.end as usize].iter().map(|span| self.text(*span))
    }

    pub(super) fn segment(&self, index: u16) -> &CompiledSegment {
        &self.segments[usize::from(index)]
    }
}

/// The attribute of that name; the targeting key always comes from where the context keeps it.
#[inline(always)]
pub(super) fn read<'c, A: Attributes + ?Sized>(name: Name<'_>, context: &'c A) -> Option<Attribute<'c>> {
    const TAG: Tag = Tag::of(TARGETING_KEY);
    let is_key = name.tag() == TAG && name.as_str() == TARGETING_KEY;
    if is_key { context.targeting_key().map(Attribute::String) } else { context.named(name) }
}

impl Condition {
    pub(super) fn of_attribute(NameSpan { start, tag }: NameSpan, operator: Operator, not: bool) -> Self {
        Self { tag, operator, start, not }
    }

    pub(super) fn of_segment(index: u16, not: bool) -> Self {
        Self { tag: Tag::of(""), operator: Operator::Segment(index), start: 0, not }
    }

    pub(super) fn name(&self) -> NameSpan {
        NameSpan { start: self.start, tag: self.tag }
    }

    #[inline]
    pub(super) fn holds<A: Attributes + ?Sized>(&self, all: &Conditions, context: &A) -> bool {
        let outcome = match &self.operator {
            Operator::Segment(index) => all.segment(*index).has(context),
            operator => operator.holds(all, all.name(self.name()), context),
        };
        outcome != self.not
    }
}

impl Operator {
    #[inline(always)]
    fn holds<A: Attributes + ?Sized>(&self, all: &Conditions, name: Name<'_>, context: &A) -> bool {
        match read(name, context) {
            Some(Attribute::String(text)) => self.accepts_text(all, text),
            Some(Attribute::Number(number)) => self.accepts_number(number),
            Some(Attribute::Bool(value)) => self.accepts_bool(value),
            Some(Attribute::Object) => matches!(self, Self::Exists(true)),
            Some(Attribute::List) => match self {
                Self::Exists(expected) => *expected,
                _ => context.any_element(name.as_str(), &mut |element| self.accepts(all, element)),
            },
            None | Some(Attribute::Null) => matches!(self, Self::Exists(false)),
        }
    }

    /// An element of a list.
    fn accepts(&self, all: &Conditions, element: Attribute<'_>) -> bool {
        match element {
            Attribute::String(text) => self.accepts_text(all, text),
            Attribute::Number(number) => self.accepts_number(number),
            Attribute::Bool(value) => self.accepts_bool(value),
            Attribute::Null | Attribute::List | Attribute::Object => false,
        }
    }

    // One value each: false for every type that the operator does not ask for.

    fn accepts_bool(&self, value: bool) -> bool {
        match self {
            Self::EqualsBool(expected) => value == *expected,
            Self::In(members) => {
                if value {
                    members.yes
                } else {
                    members.no
                }
            }
            Self::Exists(expected) => *expected,
            _ => false,
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
            Self::Exists(expected) => *expected,
            _ => false,
        }
    }

    fn accepts_text(&self, all: &Conditions, text: &str) -> bool {
        match self {
            Self::EqualsText(expected) => text == all.text(*expected),
            Self::InFew(members) => all.bytes(*members).any(|member| is_equal(text.as_bytes(), member)),
            Self::In(members) => members.texts.contains(text),
            Self::StartsWith(starts) => all.bytes(*starts).any(|start| text.as_bytes().starts_with(start)),
            Self::EndsWith(ends) => all.bytes(*ends).any(|end| ends_with(text.as_bytes(), end)),
            Self::Contains(parts) => all.texts(*parts).any(|part| text.contains(part)),
            Self::Matches(pattern) => text.len() <= limits::REGEX_SUBJECT_BYTES && pattern.is_match(text),
            Self::Before(bound) => Instant::parse(text).is_some_and(|instant| instant < bound.instant),
            Self::After(bound) => Instant::parse(text).is_some_and(|instant| instant > bound.instant),
            Self::Semver(range) => Version::parse(text).is_some_and(|version| range.iter().all(|comparison| comparison.holds(version))),
            Self::Cidr(networks) => address(text).is_some_and(|address| networks.iter().any(|network| network.contains(&address))),
            Self::Exists(expected) => *expected,
            _ => false,
        }
    }
}

/// Texts of one length nearly always differ in their first byte, which is cheaper to see than to call a comparison.
#[inline]
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.first() == b.first() && a == b
}

/// The same of ends and their last byte.
#[inline]
fn ends_with(text: &[u8], end: &[u8]) -> bool {
    end.last().is_none_or(|last| text.last() == Some(last) && text.ends_with(end))
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
        let [Condition { operator: Operator::In(members), .. }] = &*conditions.all else { panic!("{conditions:?}") };
        assert_eq!(*members.numbers, [-7.0, 0.0, 1.0, 2.5, 300.0]);
        assert!(members.numbers.iter().all(|number| members.has_number(*number)));
        assert!(members.has_number(-0.0) && !members.has_number(f64::NAN) && !members.has_number(2.0));
    }

    #[test]
    fn two_conditions_fit_into_a_cache_line() {
        assert!(size_of::<Condition>() <= 32, "{}", size_of::<Condition>());
    }
}
