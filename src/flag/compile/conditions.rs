//! Conditions of the document to conditions that can be asked.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use regex::{Regex, RegexBuilder};

use super::super::condition::{Bound, Condition, Conditions, List, Members, NameSpan, Operator, Span};
use super::super::context::Tag;
use super::super::date::Instant;
use super::super::document::{self, Scalar};
use super::super::keys::KeySet;
use super::super::limits;
use super::super::node::quoted;
use super::super::problem::{Path, Problems, did_you_mean};
use super::super::segment::{CompiledSegment, Segments};
use super::super::version::Comparison;

/// Up to so many texts are compared one by one; a table would not be quicker.
const FEW: usize = 8;
/// A regular expression counts as the first of these, in bytes, into which it compiles: how large it is the crate does not tell.
const REGEX_SIZES: [usize; 4] = [4 << 10, 16 << 10, 64 << 10, limits::REGEX_COMPILED_BYTES];

/// Collects the conditions of one flag or segment, and the texts that it is made of.
pub(in super::super) struct Compiler<'c> {
    known: &'c Segments,
    problems: &'c mut Problems,
    text: String,
    lists: Vec<Span>,
    all: Vec<Condition>,
    names: Vec<NameSpan>,
    segments: Vec<Arc<CompiledSegment>>,
    cost: usize,
    regexes: usize,
    regex_bytes: usize,
}

impl<'c> Compiler<'c> {
    pub(in super::super) fn new(known: &'c Segments, problems: &'c mut Problems) -> Self {
        let (text, lists, all) = (String::with_capacity(256), Vec::with_capacity(8), Vec::with_capacity(8));
        Self { known, problems, text, lists, all, names: Vec::new(), segments: Vec::new(), cost: 0, regexes: 0, regex_bytes: 0 }
    }

    /// What was collected, and how many conditions one question may ask at most.
    pub(in super::super) fn finish(self) -> (Conditions, usize) {
        let Self { text, lists, all, segments, cost, .. } = self;
        (Conditions { text: text.into(), lists: lists.into(), all: all.into(), segments: segments.into() }, cost)
    }

    pub(in super::super) fn problems(&mut self) -> &mut Problems {
        self.problems
    }

    /// Texts of a document fit into 4 GiB by far.
    pub(in super::super) fn text(&mut self, text: &str) -> Span {
        let start = self.text.len() as u32;
        self.text.push_str(text);
        Span { start, end: self.text.len() as u32 }
    }

    /// The name of an attribute, each kept once.
    pub(in super::super) fn name(&mut self, name: &str, path: Path<'_>) -> NameSpan {
        if name.is_empty() || name.len() > limits::KEY_BYTES {
            self.problems.found(path, quoted(name), format!("the name of an attribute, of 1 to {} bytes", limits::KEY_BYTES));
        }
        let tag = Tag::of(name);
        let known = self.names.iter().find(|known| known.tag == tag && self.text[known.start as usize..].starts_with(name));
        known.copied().unwrap_or_else(|| {
            let name = NameSpan { start: self.text(name).start, tag };
            self.names.push(name);
            name
        })
    }

    /// Adds conditions and returns where they end. What cannot be compiled is left out, with a problem.
    pub(in super::super) fn conditions(&mut self, when: &[document::Condition], path: Path<'_>) -> u32 {
        if when.len() > limits::CONDITIONS {
            self.problems.found(path, format!("{} conditions", when.len()), format!("at most {}", limits::CONDITIONS));
        }
        self.cost = self.cost.saturating_add(when.len());
        for (index, condition) in when.iter().enumerate() {
            let compiled = match &condition.test {
                document::Test::Segment(key) => {
                    self.segment(key, path.index(index).key("segment")).map(|index| Condition::of_segment(index, condition.not))
                }
                document::Test::Attribute { attribute, operator } => {
                    let name = self.name(attribute, path.index(index).key("attribute"));
                    let operator = self.operator(operator, path.index(index));
                    operator.map(|operator| Condition::of_attribute(name, operator, condition.not))
                }
            };
            self.all.extend(compiled);
        }
        self.all.len() as u32
    }

    fn segment(&mut self, key: &str, path: Path<'_>) -> Option<u16> {
        let Some(segment) = self.known.get(key) else {
            let hint = did_you_mean(key, self.known.keys());
            self.problems.hinted(path, format!("the unknown segment {}", quoted(key)), "a segment of this environment", hint);
            return None;
        };
        self.cost = self.cost.saturating_add(segment.cost);
        let index = match self.segments.iter().position(|known| known.key == segment.key) {
            Some(index) => index,
            None => {
                self.segments.push(Arc::clone(segment));
                self.segments.len() - 1
            }
        };
        u16::try_from(index).ok()
    }

    fn operator(&mut self, operator: &document::Operator, path: Path<'_>) -> Option<Operator> {
        Some(match operator {
            document::Operator::Equals(Scalar::Bool(value)) => Operator::EqualsBool(*value),
            document::Operator::Equals(Scalar::Number(value)) => Operator::EqualsNumber(*value),
            document::Operator::Equals(Scalar::String(value)) => Operator::EqualsText(self.text(value)),
            document::Operator::In(scalars) => self.members(scalars),
            document::Operator::StartsWith(texts) => Operator::StartsWith(self.list(texts)),
            document::Operator::EndsWith(texts) => Operator::EndsWith(self.list(texts)),
            document::Operator::Contains(texts) => Operator::Contains(self.list(texts)),
            document::Operator::Matches(pattern) => self.regex(pattern, path.key("matches"))?,
            document::Operator::LessThan(bound) => Operator::LessThan(*bound),
            document::Operator::AtMost(bound) => Operator::AtMost(*bound),
            document::Operator::GreaterThan(bound) => Operator::GreaterThan(*bound),
            document::Operator::AtLeast(bound) => Operator::AtLeast(*bound),
            document::Operator::Before(text) => Operator::Before(self.bound(text, path.key("before"))?),
            document::Operator::After(text) => Operator::After(self.bound(text, path.key("after"))?),
            document::Operator::Semver(range) => match Comparison::parse_range(range) {
                Ok(comparisons) => Operator::Semver(Box::new(comparisons)),
                Err(found) => {
                    let expected = "comparisons such as \">=2.3.0, <3.0.0\" (=, !=, <, <=, >, >=)";
                    self.problems.found(path.key("semver"), found, expected);
                    return None;
                }
            },
            document::Operator::Cidr(networks) => self.cidr(networks, path.key("cidr")),
            document::Operator::Exists(expected) => Operator::Exists(*expected),
        })
    }

    fn list<'t>(&mut self, texts: impl IntoIterator<Item = &'t String>) -> List {
        let start = self.lists.len() as u32;
        for text in texts {
            let span = self.text(text);
            self.lists.push(span);
        }
        List { start, end: self.lists.len() as u32 }
    }

    fn members(&mut self, scalars: &[Scalar]) -> Operator {
        let text_of = |scalar: &Scalar| matches!(scalar, Scalar::String(_));
        if scalars.len() <= FEW && scalars.iter().all(text_of) {
            let texts = scalars.iter().filter_map(|scalar| if let Scalar::String(text) = scalar { Some(text) } else { None });
            return Operator::InFew(self.list(texts));
        }
        let mut members = Members::default();
        let mut texts = BTreeSet::new();
        let mut numbers: Vec<f64> = Vec::new();
        for scalar in scalars {
            match scalar {
                Scalar::Bool(true) => members.yes = true,
                Scalar::Bool(false) => members.no = true,
                Scalar::Number(number) => numbers.push(*number),
                Scalar::String(text) => _ = texts.insert(text.as_str()),
            }
        }
        numbers.sort_unstable_by(f64::total_cmp);
        numbers.dedup();
        Operator::In(Box::new(Members { texts: KeySet::of(texts), numbers: numbers.into(), ..members }))
    }

    /// The `regex` crate is linear in the text; what a pattern may ask for when it is compiled is bounded here.
    fn regex(&mut self, pattern: &str, path: Path<'_>) -> Option<Operator> {
        if pattern.len() > limits::REGEX_BYTES {
            self.problems.found(path, format!("a pattern of {} bytes", pattern.len()), format!("at most {} bytes", limits::REGEX_BYTES));
            return None;
        }
        let (most, most_bytes) = (limits::REGEXES, limits::REGEXES_COMPILED_BYTES);
        self.regexes += 1;
        // Said once; those after it are not even tried.
        if self.regexes > most || self.regex_bytes > most_bytes {
            if self.regexes == most + 1 && self.regex_bytes <= most_bytes {
                self.problems.found(path, format!("more than {most} regular expressions together"), format!("at most {most}"));
            }
            return None;
        }
        match sized_regex(pattern) {
            Ok((_, size)) if self.regex_bytes + size > most_bytes => {
                self.regex_bytes += size;
                let found = format!("regular expressions that together take more than {most_bytes} bytes when they are compiled");
                self.problems.found(path, found, "fewer or smaller ones");
                None
            }
            Ok((regex, size)) => {
                self.regex_bytes += size;
                Some(Operator::Matches(Box::new(regex)))
            }
            Err(regex::Error::CompiledTooBig(most)) => {
                let found = format!("{}, which takes more than {most} bytes when it is compiled", quoted(pattern));
                self.problems.found(path, found, "a smaller pattern");
                None
            }
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                let expected = "a regular expression (RE2 syntax: no look-around, no back-references)";
                self.problems.found(path, format!("{}, {reason}", quoted(pattern)), expected);
                None
            }
        }
    }

    fn bound(&mut self, text: &str, path: Path<'_>) -> Option<Box<Bound>> {
        let Some(instant) = Instant::parse(text) else {
            self.problems.found(path, quoted(text), "a date, time and offset such as 2026-11-21T09:00:00Z");
            return None;
        };
        Some(Box::new(Bound { instant, text: text.into() }))
    }

    fn cidr(&mut self, networks: &[String], path: Path<'_>) -> Operator {
        let read = |(index, text): (usize, &String)| {
            let place = if networks.len() == 1 { path } else { path.index(index) };
            let refused = |hint| self.problems.hinted(place, quoted(text), "a network such as 10.0.0.0/8, or an address", hint);
            network(text).map_err(refused).ok()
        };
        Operator::Cidr(Box::new(networks.iter().enumerate().filter_map(read).collect()))
    }
}

/// The expression, and what it counts as.
fn sized_regex(pattern: &str) -> Result<(Regex, usize), regex::Error> {
    let build = |size| RegexBuilder::new(pattern).size_limit(size).dfa_size_limit(limits::REGEX_COMPILED_BYTES).build();
    let [small @ .., largest] = REGEX_SIZES;
    let fits = |size| match build(size) {
        Err(regex::Error::CompiledTooBig(_)) => None,
        built => Some(built.map(|regex| (regex, size))),
    };
    small.into_iter().find_map(fits).unwrap_or_else(|| Ok((build(largest)?, largest)))
}

/// A network, or an address as the network of itself. `Err`: a hint. Host bits are a slip of the pen more often than not.
fn network(text: &str) -> Result<IpNet, Option<String>> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address.to_canonical()),
        Err(_) => text.parse::<IpNet>().map_err(|_| None)?,
    };
    let truncated = network.trunc();
    if truncated == network { Ok(canonical(network)) } else { Err(Some(format!("did you mean \"{truncated}\"?"))) }
}

/// A network of IPv4 addresses that are written as IPv6 (`::ffff:10.0.0.0/104`) is the IPv4 network, as such an address is the address.
fn canonical(network: IpNet) -> IpNet {
    /// Bits in front of the IPv4 address.
    const MAPPED: u8 = 96;
    match (network.addr().to_canonical(), network.prefix_len().checked_sub(MAPPED)) {
        (address @ IpAddr::V4(_), Some(length)) => IpNet::new(address, length).unwrap_or(network),
        _ => network,
    }
}
