//! A flag as it is held in memory and asked: one allocation shared by everybody who holds it, and whether it is killed.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use super::bucket::Dealing;
use super::condition::{Conditions, NameSpan, Operator, Span};
use super::decision::Variant;
use super::keys::KeySet;
use super::logic::Program;
use super::measured::Measured;
use super::ranges::Range;
use super::value::{Value, ValueType};

/// A flag, ready to decide. Cheap to clone: the kill lies beside what is shared, so that killing compiles nothing.
#[derive(Clone)]
pub struct CompiledFlag {
    pub(super) shared: Arc<Compiled>,
    pub(super) is_killed: bool,
}

/// Variants are named by their index, which is in the order of their names.
pub(super) struct Compiled {
    pub(super) key: Box<str>,
    pub(super) kind: ValueType,
    pub(super) is_disabled: bool,
    /// A default, and no rules, targeting, targets, prerequisites or limit of age: everybody gets the same for ever, for no reason of their own.
    pub(super) is_static: bool,
    pub(super) variants: Box<[Variant]>,
    pub(super) off_variant: Option<u16>,
    /// What a kill serves, with every fallback followed.
    pub(super) kill_variant: Option<u16>,
    pub(super) staleness: Option<Box<Staleness>>,
    pub(super) tags: Box<[Box<str>]>,
    pub(super) prerequisites: Box<[Prerequisite]>,
    pub(super) targets: Option<Box<Targets>>,
    pub(super) rules: Box<[Rule]>,
    /// Instead of rules.
    pub(super) targeting: Option<Box<Program>>,
    pub(super) default: Outcome,
    pub(super) default_variant: Option<u16>,
    /// Of all rules, one after the other.
    pub(super) conditions: Conditions,
    /// `None`: nothing is measured, and nobody has to note who was served.
    pub(super) measured: Option<Box<Measured>>,
}

/// What is served while the state is older than the flag allows.
#[derive(Debug)]
pub(super) struct Staleness {
    pub(super) after_ms: u64,
    pub(super) variant: u16,
}

impl Staleness {
    pub(super) fn is_reached(&self, age_ms: u64) -> bool {
        age_ms > self.after_ms
    }
}

/// Another flag must serve one of these variants to the same context.
#[derive(Debug)]
pub struct Prerequisite {
    pub(super) flag: Box<str>,
    pub(super) variants: Box<[Box<str>]>,
}

pub(super) struct Targets {
    pub(super) keys: KeySet,
    /// Of each key, in the order of the keys.
    pub(super) variants: Box<[u16]>,
}

pub(super) struct Rule {
    pub(super) name: Span,
    /// Its conditions begin where those of the rule before end.
    pub(super) conditions_end: u32,
    pub(super) outcome: Outcome,
}

pub(super) enum Outcome {
    Variant(u16),
    Split(Box<Split>),
    CallersDefault,
}

pub(super) struct Split {
    /// `None`: the targeting key.
    pub(super) by: Option<NameSpan>,
    pub(super) dealing: Dealing,
    pub(super) ranges: SmallVec<[Range; 4]>,
    /// Served to whom has no key to bucket by.
    pub(super) without_key: u16,
}

impl Outcome {
    pub(super) fn split(split: Split) -> Self {
        Self::Split(Box::new(split))
    }
}

impl Split {
    /// What it serves if it serves the same to everybody.
    pub(super) fn everybody(&self) -> Option<u16> {
        match self.ranges.as_slice() {
            [only] if only.variant == self.without_key => Some(only.variant),
            _ => None,
        }
    }
}

impl Compiled {
    /// Whether null of a `targeting` is the default variant.
    pub(super) fn is_default_plain(&self) -> bool {
        match self.default {
            Outcome::Variant(variant) => Some(variant) == self.default_variant,
            Outcome::CallersDefault => self.default_variant.is_none(),
            Outcome::Split(_) => false,
        }
    }
}

impl Prerequisite {
    pub fn flag(&self) -> &str {
        &self.flag
    }

    pub fn variants(&self) -> impl Iterator<Item = &str> {
        self.variants.iter().map(AsRef::as_ref)
    }
}

impl CompiledFlag {
    pub(super) fn new(compiled: Compiled) -> Self {
        Self { shared: Arc::new(compiled), is_killed: false }
    }

    pub fn key(&self) -> &str {
        &self.shared.key
    }

    /// The type of every variant.
    pub fn kind(&self) -> ValueType {
        self.shared.kind
    }

    /// Sorted.
    pub fn tags(&self) -> &[Box<str>] {
        &self.shared.tags
    }

    pub fn has_tag(&self, tag: &str) -> bool {
        self.shared.tags.iter().any(|known| **known == *tag)
    }

    /// Sorted by name.
    pub fn variants(&self) -> &[Variant] {
        &self.shared.variants
    }

    /// What is measured of the flag: `None` when nothing is.
    pub fn measured(&self) -> Option<&Measured> {
        self.shared.measured.as_deref()
    }

    pub fn is_disabled(&self) -> bool {
        self.shared.is_disabled
    }

    pub fn is_killed(&self) -> bool {
        self.is_killed
    }

    /// The same flag, killed or restored.
    pub fn with_kill(&self, is_killed: bool) -> Self {
        Self { shared: Arc::clone(&self.shared), is_killed }
    }

    /// What is served while the flag is killed; `None`: the caller's default.
    pub fn kill_variant(&self) -> Option<&Variant> {
        self.variant(self.shared.kill_variant)
    }

    /// What is served while the flag is disabled or a prerequisite fails; `None`: the caller's default.
    pub fn off_variant(&self) -> Option<&Variant> {
        self.variant(self.shared.off_variant)
    }

    /// Whether a variant, or the caller's default for `None`, is the feature and not its absence. Of a boolean flag that is its value. Of any
    /// other flag everything is, except the off variant and what a kill serves, which without a variant of its own for that is the default
    /// variant: the baseline. The caller's default never is.
    pub fn is_enabled(&self, served: Option<&Variant>) -> bool {
        let Some(Variant { name, value }) = served else { return false };
        match value {
            Value::Bool(value) => *value,
            _ => [self.off_variant(), self.kill_variant()].into_iter().flatten().all(|absent| absent.name != *name),
        }
    }

    /// What is served when the state is older than [`CompiledFlag::max_age_ms`].
    pub fn stale_variant(&self) -> Option<&Variant> {
        self.variant(self.shared.staleness.as_ref().map(|staleness| staleness.variant))
    }

    /// The age of the state, in milliseconds, beyond which the flag serves its stale variant; `None`: it does not care.
    pub fn max_age_ms(&self) -> Option<u64> {
        self.shared.staleness.as_ref().map(|staleness| staleness.after_ms)
    }

    pub fn prerequisites(&self) -> &[Prerequisite] {
        &self.shared.prerequisites
    }

    pub fn has_prerequisites(&self) -> bool {
        !self.shared.prerequisites.is_empty()
    }

    /// It has no prerequisites and reads no segments.
    pub fn stands_alone(&self) -> bool {
        self.shared.prerequisites.is_empty() && self.shared.conditions.segments.is_empty()
    }

    /// A regular expression can take milliseconds to compile, where everything else takes microseconds.
    pub fn has_regex(&self) -> bool {
        self.shared.conditions.all.iter().any(|condition| matches!(condition.operator, Operator::Matches(_)))
    }

    /// Keys of the segments that this flag reads, directly or through other segments.
    pub fn segments(&self) -> BTreeSet<&str> {
        let mut keys = BTreeSet::new();
        self.shared.conditions.segments.iter().for_each(|segment| segment.collect_keys(&mut keys));
        keys
    }

    /// Whether a change of this segment can change what the flag decides.
    pub fn reads_segment(&self, key: &str) -> bool {
        !self.shared.conditions.segments.is_empty() && self.segments().contains(key)
    }

    /// False when everybody gets the same answer, so that it can be encoded once: a killed or disabled flag, or one without targets,
    /// splits, conditions and targeting that reads something. A flag with prerequisites depends on other flags, one that limits
    /// its age on the time, and both count as flags that read the context.
    pub fn reads_context(&self) -> bool {
        let Compiled { is_disabled, staleness, prerequisites, targets, rules, targeting, default, .. } = &*self.shared;
        if self.is_killed || *is_disabled {
            return false;
        }
        let first = rules.first();
        let asks = first.is_some_and(|rule| rule.conditions_end > 0);
        let outcome = first.map_or(default, |rule| &rule.outcome);
        let asks = asks || targeting.as_ref().is_some_and(|targeting| targeting.reads_context());
        staleness.is_some() || !prerequisites.is_empty() || targets.is_some() || asks || matches!(outcome, Outcome::Split(_))
    }

    pub(super) fn variant(&self, index: Option<u16>) -> Option<&Variant> {
        self.shared.variants.get(usize::from(index?))
    }
}

impl fmt::Debug for CompiledFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledFlag").field("key", &self.key()).field("is_killed", &self.is_killed).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::flag::{Document, Segments, compile};

    /// Of each variant, in the order of their names.
    fn enabled(flag: &str) -> Vec<(String, bool)> {
        let document = Document::parse(&format!("flags: {{ a: {flag} }}")).unwrap();
        let flag = compile("a", &document.flags["a"], &Segments::default()).unwrap();
        assert!(!flag.is_enabled(None), "the caller's default is not the feature");
        flag.variants().iter().map(|variant| (variant.name.clone(), flag.is_enabled(Some(variant)))).collect()
    }

    #[test]
    fn a_boolean_is_enabled_by_its_value_and_everything_else_by_not_being_off_killed_or_the_baseline() {
        for (flag, expected) in [
            // The names say the opposite.
            ("{ variants: { off: true, on: false }, defaultVariant: on }", vec![("off", true), ("on", false)]),
            ("{ variants: { off: true, on: false }, defaultVariant: on, killVariant: off }", vec![("off", true), ("on", false)]),
            ("{ variants: { a: x, b: y, c: z }, defaultVariant: a }", vec![("a", false), ("b", true), ("c", true)]),
            ("{ variants: { a: x, b: y, c: z }, defaultVariant: a, offVariant: b }", vec![("a", true), ("b", false), ("c", true)]),
            (
                "{ variants: { a: 1, b: 2, c: 3 }, defaultVariant: a, killVariant: c, offVariant: b }",
                vec![("a", true), ("b", false), ("c", false)],
            ),
        ] {
            let found = enabled(flag);
            assert_eq!(found.iter().map(|(name, is)| (name.as_str(), *is)).collect::<Vec<_>>(), expected, "{flag}");
        }
    }
}
