//! The flag document as people write it. A superset of flagd's definition format.
//!
//! Reading is in `read`, canonical writing in `write`, the JSON Schema in `schema`. Names of variants and segments are checked by
//! [`super::compile`]; these types only promise that each part has the right shape.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::{Guard, Metric, Plan, Value};

/// Flags and segments by key.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Document {
    pub flags: BTreeMap<String, Flag>,
    pub segments: BTreeMap<String, Segment>,
    /// flagd's: strings, numbers and booleans about the set. `flagSetId` is its identity there.
    pub metadata: Metadata,
    /// flagd's `$evaluators`: fragments for `targeting`. Kept as they are; where a flag refers to one, it has been written out.
    pub evaluators: serde_json::Map<String, Json>,
}

/// Strings, numbers and booleans by name.
pub type Metadata = BTreeMap<String, Scalar>;

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Flag {
    pub description: Option<String>,
    pub owner: Option<String>,
    pub tags: BTreeSet<String>,
    pub kind: Option<Kind>,
    /// How long the flag is expected to be in the code. Absent: [`Kind::lifetime`].
    pub expected_lifetime: Option<Lifetime>,
    pub state: FlagState,
    /// At least one; all of one type.
    pub variants: BTreeMap<String, Value>,
    /// Served when no rule matches. Absent, and no `default_split`: the caller's default.
    pub default_variant: Option<String>,
    /// Instead of a default variant for everybody. The default variant, if there is one too, is then its baseline.
    pub default_split: Option<Split>,
    /// Served when the flag is disabled or a prerequisite fails. Absent: the caller's default.
    pub off_variant: Option<String>,
    /// Served while the flag is killed. Absent: `off_variant`, else the variant whose value is `false`, else `default_variant`.
    pub kill_variant: Option<String>,
    /// Served while the sidecar cannot prove that its state is young enough. Absent: whatever its age, the flag answers as ever.
    pub max_staleness: Option<MaxStaleness>,
    pub prerequisites: Vec<Prerequisite>,
    pub targets: Vec<Target>,
    pub rules: Vec<Rule>,
    /// flagd's JsonLogic, instead of rules; its references to `$evaluators` written out. `{}` is none, but `null` is a rule that gives nothing,
    /// as in flagd: the reason is then `DEFAULT`.
    pub targeting: Option<Json>,
    /// Of `fractional` in `targeting`. A key of its own, because no metadata may change whom a flag serves; and of the flag, not of a process, so
    /// that no upgrade deals anybody anew.
    pub fractional_version: FractionalVersion,
    /// What is measured of the flag, by name.
    pub metrics: BTreeMap<String, Metric>,
    /// Bounds that kill the flag by themselves.
    pub guard: Vec<Guard>,
    /// How its traffic moves, once the rollout is started.
    pub rollout: Option<Plan>,
    pub metadata: Metadata,
    /// Where the definition was read, for flagd's clients, who may ask by it. `yardarm start` notes it; flagd's sync sends it.
    pub source: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlagState {
    #[default]
    Enabled,
    Disabled,
}

/// What a flag is for, which says how long it should live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Release,
    Experiment,
    Operational,
    KillSwitch,
    Permission,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaxStaleness {
    /// Seconds since the last proof that the state is the newest.
    pub after_s: u64,
    pub serve: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    Days(u32),
    Permanent,
}

/// Another flag must serve one of these variants to the same context, for whatever reason it does so.
#[derive(Debug, Clone, PartialEq)]
pub struct Prerequisite {
    pub flag: String,
    /// At least one.
    pub variants: BTreeSet<String>,
}

/// These targeting keys get this variant, before any rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub variant: String,
    pub keys: BTreeSet<String>,
}

/// The first rule whose conditions all hold decides. No conditions: it always does.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Absent: `rule-1` for the first, and so on.
    pub name: Option<String>,
    pub description: Option<String>,
    pub when: Vec<Condition>,
    pub serve: Serve,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Serve {
    Variant(String),
    Split(Split),
}

/// The arithmetic of flagd's `fractional`, which was changed twice (flagd.md 2.3): what it hashes, and where that stands among the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FractionalVersion {
    /// What version 2 hashes, among percentages. flagd before 0.15.
    V1,
    /// A text, or the key of the flag and the targeting key as one. flagd 0.15 and 0.16.
    V2,
    /// Canonical CBOR of any value.
    #[default]
    V3,
}

/// Shares of traffic by variant. How people are dealt is told in `ranges`; how a bucket is computed, in `bucket`.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// Attribute to bucket by. Absent: the targeting key.
    ///
    /// A string counts as its bytes; a whole number up to 2^53 - 1 as its decimal digits, so that `42` and `"42"` are the same person.
    /// Anything else (absent, null, empty, a boolean, a fraction, a list, an object) is no key: the baseline is served. With the hash
    /// `murmur3` a number is none either: the engines of flagd write numbers differently.
    pub by: Option<String>,
    /// Absent: the flag's key, so that two flags are independent. Two splits of one salt deal the same people first.
    pub salt: Option<String>,
    pub hash: Hash,
    pub weights: BTreeMap<String, Weight>,
    /// Served to whom has no key to bucket by, and the variant that gives and takes when others grow and shrink.
    /// Absent: the flag's default variant.
    pub baseline: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hash {
    /// MetroHash64.
    #[default]
    Metro,
    /// That of flagd's `fractional`, by the flag's `fractionalVersion`: whoever evaluates by flagd's format deals the same people.
    Murmur3,
}

/// A share: a number relative to the sum of its neighbours, or a percentage. Four decimals, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// In ten-thousandths.
    Relative(u64),
    /// In ten-thousandths of a percent, which is one bucket: 0 to 1,000,000.
    Percent(u32),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    pub test: Test,
    /// Turns the outcome round, whatever led to it: an absent attribute makes `not` hold.
    pub not: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// A name, or names joined by dots that lead through objects. `targetingKey` is the targeting key.
    ///
    /// An attribute that is absent or null makes the test false (only `exists: false` holds). A list holds if any of its elements does;
    /// an empty list is a list of none. An object is of the wrong type for every operator but `exists`.
    Attribute { attribute: String, operator: Operator },
    /// Whether the context is in the segment of this key.
    Segment(String),
}

/// What is asked of an attribute. An attribute of the wrong type makes each of these false; nothing is ever converted.
#[derive(Debug, Clone, PartialEq)]
pub enum Operator {
    /// The same type and the same value: `1` is not `"1"`, `true` is not `"true"`. Text is compared byte by byte.
    Equals(Scalar),
    /// Equal to one of these; `in: []` is equal to none.
    In(Vec<Scalar>),
    /// Text that starts with one of these.
    StartsWith(Vec<String>),
    /// Text that ends with one of these.
    EndsWith(Vec<String>),
    /// Text that has one of these in it. (For a list that has an element, ask `equals` or `in`.)
    Contains(Vec<String>),
    /// Text in which the regular expression (RE2 syntax, linear time) matches somewhere; `^` and `$` anchor it.
    /// Text longer than 8 KiB never matches.
    Matches(String),
    /// A number below this one. Text that spells a number is text.
    LessThan(f64),
    AtMost(f64),
    GreaterThan(f64),
    AtLeast(f64),
    /// RFC 3339 text with an offset (`2026-11-21T09:00:00Z`), strictly before this instant. Text that is no such date is of the wrong type.
    Before(String),
    After(String),
    /// A version that satisfies every comparison: `>=2.3.0, <3.0.0` (`=`, `!=`, `<`, `<=`, `>`, `>=`).
    ///
    /// The order is SemVer 2.0 precedence and nothing else: a pre-release is before its release, so `3.0.0-rc.1` satisfies `<3.0.0` and
    /// does not satisfy `>=3.0.0`. Build metadata is ignored. A leading `v` and missing parts are read (`v2.3` is `2.3.0`); text that is no
    /// version is of the wrong type.
    Semver(String),
    /// Text that is an IP address within one of these networks. An IPv4 address written as IPv6 (`::ffff:10.0.0.1`) is the IPv4 address,
    /// and a network of such addresses (`::ffff:10.0.0.0/104`) the IPv4 network.
    Cidr(Vec<String>),
    /// Whether the attribute is there and not null. An empty text or list is there.
    Exists(bool),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    Bool(bool),
    Number(f64),
    String(String),
}

/// A named set of contexts: those with an included key, and those for which all conditions hold and whose key is not excluded.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Segment {
    pub description: Option<String>,
    /// Targeting keys that are in, whatever the conditions say.
    pub included: BTreeSet<String>,
    /// Targeting keys that are out, whatever the conditions say. A key is not in both lists.
    pub excluded: BTreeSet<String>,
    /// No conditions: only the included keys are in.
    pub when: Vec<Condition>,
}

impl FlagState {
    pub const ALL: [Self; 2] = [Self::Enabled, Self::Disabled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "ENABLED",
            Self::Disabled => "DISABLED",
        }
    }
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Release, Self::Experiment, Self::Operational, Self::KillSwitch, Self::Permission];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Experiment => "experiment",
            Self::Operational => "operational",
            Self::KillSwitch => "kill-switch",
            Self::Permission => "permission",
        }
    }

    /// How long a flag of this kind is expected to live when it does not say so itself.
    pub fn lifetime(self) -> Lifetime {
        match self {
            Self::Release | Self::Experiment => Lifetime::Days(40),
            Self::Operational => Lifetime::Days(7),
            Self::KillSwitch | Self::Permission => Lifetime::Permanent,
        }
    }
}

impl FractionalVersion {
    pub const ALL: [Self; 3] = [Self::V1, Self::V2, Self::V3];

    pub fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

impl Hash {
    pub const ALL: [Self; 2] = [Self::Metro, Self::Murmur3];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metro => "metro",
            Self::Murmur3 => "murmur3",
        }
    }
}

impl Flag {
    pub(super) fn has_default(&self) -> bool {
        self.default_variant.is_some() || self.default_split.is_some()
    }

    /// The name of the variant that a kill serves: `killVariant`, else `offVariant`, else the variant whose value is false, else the default.
    pub fn served_by_a_kill(&self) -> Option<&str> {
        let is_false = |value: &Value| *value == Value::Bool(false);
        let false_variant = || self.variants.iter().find(|(_, value)| is_false(value)).map(|(name, _)| name.as_str());
        self.kill_variant.as_deref().or(self.off_variant.as_deref()).or_else(false_variant).or(self.default_variant.as_deref())
    }

    /// What the flag says, else what is usual for its kind; `None` when it has no kind either.
    pub fn lifetime(&self) -> Option<Lifetime> {
        self.expected_lifetime.or_else(|| self.kind.map(Kind::lifetime))
    }
}
