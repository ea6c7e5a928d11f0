//! Documents to canonical JSON: keys sorted, nothing that is absent or as it is by default, numbers and shares in one spelling.
//!
//! Two documents that mean the same shape are written as the same bytes, which is what the store keeps, the wire carries and the digest sums.

mod plan;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};

use super::document::{
    Condition, Document, Flag, FlagState, FractionalVersion, Hash, Kind, Lifetime, MaxStaleness, Metadata, Operator, Prerequisite, Rule,
    Scalar, Segment, Serve, Split, Target, Test, Weight,
};
use super::value::number_to_json;

impl Document {
    pub fn to_json(&self) -> Json {
        let Self { flags, segments, metadata, evaluators } = self;
        Object::default()
            .put("flags", Json::Object(flags.iter().map(|(key, flag)| (key.clone(), flag.to_json())).collect()))
            .put_some("segments", map(segments, Segment::to_json))
            .put_some("metadata", metadata_to_json(metadata))
            .put_some("$evaluators", (!evaluators.is_empty()).then(|| Json::Object(evaluators.clone())))
            .finish()
    }
}

impl Flag {
    pub fn to_json(&self) -> Json {
        let Self {
            description,
            owner,
            tags,
            kind,
            expected_lifetime,
            state,
            variants,
            default_variant,
            default_split,
            off_variant,
            kill_variant,
            max_staleness,
            prerequisites,
            targets,
            rules,
            targeting,
            fractional_version,
            metrics,
            guard,
            rollout,
            metadata,
            source,
        } = self;
        Object::default()
            .put_some("description", text(description))
            .put_some("owner", text(owner))
            .put_some("tags", set(tags))
            .put_some("kind", kind.map(Kind::as_str).map(Json::from))
            .put_some("expectedLifetime", expected_lifetime.map(lifetime))
            .put_some("state", (*state != FlagState::default()).then(|| state.as_str().into()))
            .put_some("variants", map(variants, super::Value::to_json))
            .put_some("defaultVariant", text(default_variant))
            .put_some("defaultSplit", default_split.as_ref().map(split))
            .put_some("offVariant", text(off_variant))
            .put_some("killVariant", text(kill_variant))
            .put_some("maxStaleness", max_staleness.as_ref().map(staleness))
            .put_some("prerequisites", list(prerequisites, prerequisite))
            .put_some("targets", list(targets, target))
            .put_some("rules", list(rules, rule))
            .put_some("targeting", targeting.clone())
            .put_some(
                "fractionalVersion",
                (*fractional_version != FractionalVersion::default()).then(|| fractional_version.number().into()),
            )
            .put_some("metrics", map(metrics, plan::metric))
            .put_some("guard", list(guard, plan::guard))
            .put_some("rollout", rollout.as_ref().map(plan::plan))
            .put_some("metadata", metadata_to_json(metadata))
            .put_some("source", text(source))
            .finish()
    }

    /// What an approval of its rollout is bound to: the plan, what it measures, and what it serves.
    pub fn to_rollout_json(&self) -> Vec<u8> {
        let Self { variants, metrics, guard, rollout, .. } = self;
        let bound = Object::default()
            .put_some("variants", map(variants, super::Value::to_json))
            .put_some("metrics", map(metrics, plan::metric))
            .put_some("guard", list(guard, plan::guard))
            .put_some("rollout", rollout.as_ref().map(plan::plan));
        canonical(&bound.finish())
    }

    /// What the store, the wire and the digest carry. [`Flag::from_json`] reads it back to an equal flag.
    pub fn to_canonical_json(&self) -> Vec<u8> {
        canonical(&self.to_json())
    }
}

impl Segment {
    pub fn to_json(&self) -> Json {
        let Self { description, included, excluded, when } = self;
        Object::default()
            .put_some("description", text(description))
            .put_some("included", set(included))
            .put_some("excluded", set(excluded))
            .put_some("when", list(when, condition))
            .finish()
    }

    /// What the store, the wire and the digest carry. [`Segment::from_json`] reads it back to an equal segment.
    pub fn to_canonical_json(&self) -> Vec<u8> {
        canonical(&self.to_json())
    }
}

/// serde_json's map is sorted unless a crate somewhere asks for `preserve_order`; `the_keys_of_canonical_json_are_sorted` guards it.
fn canonical(json: &Json) -> Vec<u8> {
    json.to_string().into_bytes()
}

#[derive(Default)]
struct Object(Map<String, Json>);

impl Object {
    fn put(mut self, key: &str, value: impl Into<Json>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    fn put_some(self, key: &str, value: Option<Json>) -> Self {
        match value {
            Some(value) => self.put(key, value),
            None => self,
        }
    }

    fn finish(self) -> Json {
        Json::Object(self.0)
    }
}

fn text(text: &Option<String>) -> Option<Json> {
    text.clone().map(Json::String)
}

fn set(set: &BTreeSet<String>) -> Option<Json> {
    (!set.is_empty()).then(|| set.iter().cloned().collect())
}

fn list<T>(list: &[T], write: fn(&T) -> Json) -> Option<Json> {
    (!list.is_empty()).then(|| list.iter().map(write).collect())
}

fn map<T>(map: &BTreeMap<String, T>, write: fn(&T) -> Json) -> Option<Json> {
    (!map.is_empty()).then(|| map.iter().map(|(key, value)| (key.clone(), write(value))).collect())
}

fn metadata_to_json(metadata: &Metadata) -> Option<Json> {
    map(metadata, scalar)
}

fn lifetime(lifetime: Lifetime) -> Json {
    match lifetime {
        Lifetime::Days(days) => format!("{days}d").into(),
        Lifetime::Permanent => "permanent".into(),
    }
}

fn staleness(limit: &MaxStaleness) -> Json {
    Object::default().put("after", limit.after()).put("serve", limit.serve.as_str()).finish()
}

fn prerequisite(Prerequisite { flag, variants }: &Prerequisite) -> Json {
    Object::default().put("flag", flag.as_str()).put_some("variants", set(variants)).finish()
}

fn target(Target { variant, keys }: &Target) -> Json {
    Object::default().put("variant", variant.as_str()).put_some("keys", set(keys)).finish()
}

fn rule(Rule { name, description, when, serve }: &Rule) -> Json {
    let rule =
        Object::default().put_some("name", text(name)).put_some("description", text(description)).put_some("when", list(when, condition));
    match serve {
        Serve::Variant(variant) => rule.put("serve", variant.as_str()),
        Serve::Split(to) => rule.put("split", split(to)),
    }
    .finish()
}

fn split(Split { by, salt, hash, weights, baseline }: &Split) -> Json {
    Object::default()
        .put_some("by", text(by))
        .put_some("salt", text(salt))
        .put_some("hash", (*hash != Hash::default()).then(|| hash.as_str().into()))
        .put("weights", Json::Object(weights.iter().map(|(variant, share)| (variant.clone(), weight(share))).collect()))
        .put_some("baseline", text(baseline))
        .finish()
}

/// Shares keep the manner in which they were written, so that a person recognizes their own document.
fn weight(weight: &Weight) -> Json {
    match weight {
        Weight::Relative(ten_thousandths) => number_to_json(*ten_thousandths as f64 / 10_000.0),
        Weight::Percent(_) => weight.to_string().into(),
    }
}

pub(super) fn condition(Condition { test, not }: &Condition) -> Json {
    let written = match test {
        Test::Segment(key) => Object::default().put("segment", key.as_str()),
        Test::Attribute { attribute, operator: asked } => {
            let (name, operand) = operator(asked);
            Object::default().put("attribute", attribute.as_str()).put(name, operand)
        }
    };
    written.put_some("not", not.then_some(Json::Bool(true))).finish()
}

fn operator(operator: &Operator) -> (&'static str, Json) {
    match operator {
        Operator::Equals(operand) => ("equals", scalar(operand)),
        Operator::In(operands) => ("in", operands.iter().map(scalar).collect()),
        Operator::StartsWith(texts) => ("startsWith", one_or_more(texts)),
        Operator::EndsWith(texts) => ("endsWith", one_or_more(texts)),
        Operator::Contains(texts) => ("contains", one_or_more(texts)),
        Operator::Matches(pattern) => ("matches", pattern.as_str().into()),
        Operator::LessThan(bound) => ("lessThan", number_to_json(*bound)),
        Operator::AtMost(bound) => ("atMost", number_to_json(*bound)),
        Operator::GreaterThan(bound) => ("greaterThan", number_to_json(*bound)),
        Operator::AtLeast(bound) => ("atLeast", number_to_json(*bound)),
        Operator::Before(instant) => ("before", instant.as_str().into()),
        Operator::After(instant) => ("after", instant.as_str().into()),
        Operator::Semver(range) => ("semver", range.as_str().into()),
        Operator::Cidr(networks) => ("cidr", one_or_more(networks)),
        Operator::Exists(expected) => ("exists", (*expected).into()),
    }
}

/// A list of one is written as that one.
fn one_or_more(texts: &[String]) -> Json {
    match texts {
        [one] => one.as_str().into(),
        texts => texts.to_vec().into(),
    }
}

pub(super) fn scalar(scalar: &Scalar) -> Json {
    match scalar {
        Scalar::Bool(value) => (*value).into(),
        Scalar::Number(value) => number_to_json(*value),
        Scalar::String(value) => value.as_str().into(),
    }
}

impl MaxStaleness {
    pub(super) const UNITS: [(&str, u64); 4] = [("d", 24 * 3_600), ("h", 3_600), ("m", 60), ("s", 1)];

    /// In the largest unit of which it is a whole number.
    pub fn after(&self) -> String {
        let whole = Self::UNITS.into_iter().find(|(_, factor)| self.after_s > 0 && self.after_s.is_multiple_of(*factor));
        let (unit, factor) = whole.unwrap_or(("s", 1));
        format!("{}{unit}", self.after_s / factor)
    }
}

impl std::fmt::Display for Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (ten_thousandths, unit) = match self {
            Self::Relative(share) => (*share, ""),
            Self::Percent(share) => (u64::from(*share), "%"),
        };
        let (whole, decimals) = (ten_thousandths / 10_000, ten_thousandths % 10_000);
        match decimals {
            0 => write!(f, "{whole}{unit}"),
            _ => write!(f, "{whole}.{}{unit}", format!("{decimals:04}").trim_end_matches('0')),
        }
    }
}
