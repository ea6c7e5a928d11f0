//! Admin messages to and from the domain. What comes in is hostile until proven otherwise.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::flag::{Item, ItemKind, ItemName, Kill, Position, Revision};

use super::replication::{Malformed, environment};
use super::{SELECTOR_NAMES, v1};

/// The largest message that goes either way: an environment of 32 MiB, and what gRPC adds.
pub const MESSAGE_BYTES: usize = 64 << 20;
/// Entries of a list that has no limit of its own, and the most that are ever answered.
const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1_000;

/// Who changes something, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    pub actor: String,
    pub reason: String,
    pub expect: Option<Revision>,
}

/// Which flags are listed. Each that is given must match; nothing given: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    pub keys: BTreeSet<String>,
    pub prefix: String,
    pub tags: BTreeSet<String>,
}

/// An item of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub environment: String,
    pub item: ItemName,
}

/// Which audit records are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditQuery {
    /// `None`: of all.
    pub environment: Option<String>,
    pub flag: Option<String>,
    pub limit: usize,
    pub before_seq: Option<u64>,
}

fn malformed<T>(field: &'static str, problem: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed { field, problem: problem.into() })
}

pub fn intent(intent: Option<v1::Intent>) -> Result<Intent, Malformed> {
    let Some(v1::Intent { actor, reason, expect_revision }) = intent else {
        return malformed("intent", "is missing, expected who makes the change and why");
    };
    if actor.is_empty() {
        return malformed("intent.actor", "is empty, expected the name of whoever makes the change");
    }
    Ok(Intent { actor, reason, expect: expect_revision })
}

/// `kind`: of [`v1::ItemKind`]; unspecified is a flag.
pub fn target(name: String, kind: i32, key: String) -> Result<Target, Malformed> {
    let kind = match v1::ItemKind::try_from(kind) {
        Ok(v1::ItemKind::Flag | v1::ItemKind::Unspecified) => ItemKind::Flag,
        Ok(v1::ItemKind::Segment) => ItemKind::Segment,
        Err(_) => return malformed("kind", format!("{kind} is no item kind")),
    };
    if key.is_empty() {
        return malformed("key", "is empty, expected the key of a flag or segment");
    }
    Ok(Target { environment: environment(name)?, item: ItemName { kind, key } })
}

pub fn selector(selector: Option<v1::FlagSelector>) -> Result<Selector, Malformed> {
    let v1::FlagSelector { keys, prefix, tags } = selector.unwrap_or_default();
    if keys.len() + tags.len() > SELECTOR_NAMES {
        return malformed("selector", format!("names {} keys and tags, expected at most {SELECTOR_NAMES}", keys.len() + tags.len()));
    }
    Ok(Selector { keys: keys.into_iter().collect(), prefix, tags: tags.into_iter().collect() })
}

impl Selector {
    pub fn takes_key(&self, key: &str) -> bool {
        (self.keys.is_empty() || self.keys.contains(key)) && key.starts_with(&self.prefix)
    }

    pub fn takes_tags(&self, tags: &BTreeSet<String>) -> bool {
        self.tags.is_subset(tags)
    }
}

/// A flag document is text.
pub fn document(bytes: Vec<u8>) -> Result<String, Malformed> {
    String::from_utf8(bytes).or_else(|problem| malformed("document", format!("is no UTF-8 text: {}", problem.utf8_error())))
}

pub fn revision(revision: u64, field: &'static str) -> Result<Revision, Malformed> {
    if revision == 0 { malformed(field, "is 0, expected the number of a change") } else { Ok(revision) }
}

pub fn limit(limit: u32) -> usize {
    let limit = if limit == 0 { DEFAULT_LIMIT } else { limit.min(MAX_LIMIT) };
    limit as usize
}

pub fn audit_query(request: v1::ListAuditRequest) -> AuditQuery {
    let v1::ListAuditRequest { environment, flag_key, limit: most, before_seq } = request;
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    AuditQuery {
        environment: given(environment),
        flag: given(flag_key),
        limit: limit(most),
        before_seq: (before_seq > 0).then_some(before_seq),
    }
}

/// `us`: Unix time in microseconds.
pub fn timestamp(us: i64) -> prost_types::Timestamp {
    let nanos = us.rem_euclid(1_000_000) * 1_000;
    prost_types::Timestamp { seconds: us.div_euclid(1_000_000), nanos: i32::try_from(nanos).unwrap_or_default() }
}

pub fn mutation(position: Position, changed: bool) -> v1::MutationResponse {
    v1::MutationResponse { position: Some(position.into()), changed }
}

pub fn flag_info(Item { name, revision, definition }: Item, kill: Option<Kill>) -> v1::FlagInfo {
    v1::FlagInfo { key: name.key, revision, definition, kill: kill.map(Into::into) }
}

pub fn item_change(ItemName { kind, key }: ItemName, before: Option<Bytes>, after: Option<Bytes>) -> v1::ItemChange {
    let json = |definition: Option<Bytes>| definition.unwrap_or_default().into();
    v1::ItemChange { kind: v1::ItemKind::from(kind).into(), key, before: json(before), after: json(after) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_without_an_author_is_malformed() {
        assert_eq!(intent(None).unwrap_err().field, "intent");
        assert_eq!(intent(Some(v1::Intent::default())).unwrap_err().field, "intent.actor");
        let given = v1::Intent { actor: "ana".into(), reason: String::new(), expect_revision: Some(0) };
        assert_eq!(intent(Some(given)).unwrap().expect, Some(0));
    }

    #[test]
    fn an_unspecified_kind_is_a_flag_and_an_unknown_one_is_nothing() {
        assert_eq!(target("prod".into(), 0, "a".into()).unwrap().item, ItemName::flag("a"));
        assert_eq!(target("prod".into(), 2, "a".into()).unwrap().item, ItemName::segment("a"));
        assert_eq!(target("prod".into(), 77, "a".into()).unwrap_err().field, "kind");
    }

    #[test]
    fn times_before_the_epoch_keep_their_fraction_positive() {
        assert_eq!(timestamp(-1), prost_types::Timestamp { seconds: -1, nanos: 999_999_000 });
        assert_eq!(timestamp(1_500_000), prost_types::Timestamp { seconds: 1, nanos: 500_000_000 });
    }
}
