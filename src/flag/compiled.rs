//! A flag as it is held in memory and asked: one allocation shared by everybody who holds it, and whether it is killed.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use super::bucket::Salt;
use super::condition::{Conditions, NameSpan, Operator, Span};
use super::decision::Variant;
use super::keys::KeySet;
use super::ranges::Range;
use super::value::ValueType;

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
    /// No rules, targets, prerequisites or limit of age: everybody gets the same for ever, for no reason of their own.
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
    pub(super) default: Outcome,
    /// Of all rules, one after the other.
    pub(super) conditions: Conditions,
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
    pub(super) salt: Salt,
    pub(super) ranges: SmallVec<[Range; 4]>,
    /// Served to whom has no key to bucket by.
    pub(super) without_key: u16,
}

impl Outcome {
    pub(super) fn split(split: Split) -> Self {
        Self::Split(Box::new(split))
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
    /// splits and conditions. A flag with prerequisites depends on other flags, one that limits
    /// its age on the time, and both count as flags that read the context.
    pub fn reads_context(&self) -> bool {
        let Compiled { is_disabled, staleness, prerequisites, targets, rules, default, .. } = &*self.shared;
        if self.is_killed || *is_disabled {
            return false;
        }
        let first = rules.first();
        let asks = first.is_some_and(|rule| rule.conditions_end > 0);
        let outcome = first.map_or(default, |rule| &rule.outcome);
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
