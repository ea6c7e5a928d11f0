//! What a watcher asked for, checked.

use std::time::Duration;

use prost::Message as _;

use crate::flag::{Position, overridden};
use crate::replica::Cursor;
use crate::wire::SELECTOR_NAMES;
use crate::wire::evaluation::{Context, Malformed, Refused};
use crate::wire::v1::watch_flags_request::Detail;
use crate::wire::v1::{FlagSelector, WatchFlagsRequest};

const MAX_CONTEXTS: usize = 100;
const DEFAULT_HEARTBEAT_MS: u32 = 5000;
const MIN_HEARTBEAT_MS: u32 = 100;
const MAX_HEARTBEAT_MS: u32 = 60_000;

#[derive(Debug)]
pub(super) struct Ask {
    pub(super) selection: Selection,
    pub(super) detail: Detail,
    /// Encoded, and known to be readable and within the limits. Reading one again costs less than keeping it unfolded for days.
    pub(super) contexts: Vec<Vec<u8>>,
    pub(super) resume: Option<Position>,
    pub(super) heartbeat: Duration,
}

/// Which flags: a flag must match each kind that is given.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Sorted.
    pub(super) keys: Vec<String>,
    pub(super) prefix: String,
    pub(super) tags: Vec<String>,
}

impl Ask {
    pub(super) fn read(message: &[u8]) -> Result<Self, Refused> {
        let request = WatchFlagsRequest::decode(message).map_err(|_| Malformed("it is no WatchFlagsRequest"))?;
        let WatchFlagsRequest { selector, detail, contexts, resume, heartbeat_ms } = request;
        let detail = Detail::try_from(detail).map_err(|_| fault("detail", format!("{detail} is no detail")))?;
        let wanted = if detail == Detail::Values { 1..=MAX_CONTEXTS } else { 0..=0 };
        if !wanted.contains(&contexts.len()) {
            let expected = if detail == Detail::Values { "1 to 100" } else { "none, because values are not asked for" };
            return Err(fault("contexts", format!("has {}, expected {expected}", contexts.len())));
        }
        let heartbeat_ms = if heartbeat_ms == 0 { DEFAULT_HEARTBEAT_MS } else { heartbeat_ms };
        if !(MIN_HEARTBEAT_MS..=MAX_HEARTBEAT_MS).contains(&heartbeat_ms) {
            return Err(fault("heartbeat_ms", format!("is {heartbeat_ms}, expected {MIN_HEARTBEAT_MS} to {MAX_HEARTBEAT_MS}, or 0")));
        }
        let selector = selector.unwrap_or_default();
        let names = selector.keys.len() + selector.tags.len();
        if names > SELECTOR_NAMES {
            return Err(fault("selector", format!("names {names} keys and tags, expected at most {SELECTOR_NAMES}")));
        }
        let contexts: Vec<_> = contexts.iter().map(prost::Message::encode_to_vec).collect();
        for context in &contexts {
            Context::read(context)?;
        }
        Ok(Self {
            selection: selector.into(),
            detail,
            contexts,
            resume: resume.map(Position::from),
            heartbeat: Duration::from_millis(heartbeat_ms.into()),
        })
    }

    /// What a prerequisite changes in a flag that depends on it is its values, and only whoever asked for values reads of that.
    pub(super) fn reads(&self, from: Cursor) -> Cursor {
        if self.detail == Detail::Values { from } else { from.without_prerequisites() }
    }
}

impl From<FlagSelector> for Selection {
    fn from(FlagSelector { mut keys, prefix, tags }: FlagSelector) -> Self {
        keys.sort_unstable();
        keys.dedup();
        keys.shrink_to_fit();
        Self { keys, prefix, tags }
    }
}

impl Selection {
    /// Whatever its tags are.
    pub(super) fn names(&self, key: &str) -> bool {
        !overridden::is_place(key)
            && key.starts_with(&self.prefix)
            && (self.keys.is_empty() || self.keys.binary_search_by(|held| held.as_str().cmp(key)).is_ok())
    }

    pub(super) fn has_tags(&self, tags: &[Box<str>]) -> bool {
        self.tags.iter().all(|tag| tags.iter().any(|held| **held == **tag))
    }
}

fn fault(field: &str, description: String) -> Refused {
    Refused::OverLimit { field: field.to_owned(), description }
}

#[cfg(test)]
mod tests {
    use crate::wire::v1;

    use super::*;

    fn read(request: &WatchFlagsRequest) -> Result<Ask, Refused> {
        Ask::read(&request.encode_to_vec())
    }

    fn field(request: &WatchFlagsRequest) -> String {
        match read(request).unwrap_err() {
            Refused::OverLimit { field, .. } => field,
            malformed @ Refused::Malformed(_) => malformed.to_string(),
        }
    }

    #[test]
    fn what_cannot_be_served_is_named() {
        let values = WatchFlagsRequest { detail: Detail::Values.into(), ..Default::default() };
        assert_eq!(field(&values), "contexts");
        assert_eq!(field(&WatchFlagsRequest { contexts: vec![v1::Context::default(); 101], ..values.clone() }), "contexts");
        assert_eq!(field(&WatchFlagsRequest { contexts: vec![v1::Context::default()], ..Default::default() }), "contexts");
        assert_eq!(field(&WatchFlagsRequest { detail: 9, ..Default::default() }), "detail");
        assert_eq!(field(&WatchFlagsRequest { heartbeat_ms: 99, ..Default::default() }), "heartbeat_ms");
        let keys = vec!["key".to_owned(); SELECTOR_NAMES];
        let selector = FlagSelector { keys, ..FlagSelector::default() };
        assert!(read(&WatchFlagsRequest { selector: Some(selector.clone()), ..Default::default() }).is_ok());
        let selector = FlagSelector { tags: vec!["tag".to_owned()], ..selector };
        assert_eq!(field(&WatchFlagsRequest { selector: Some(selector), ..Default::default() }), "selector");
        let large = v1::Context { targeting_key: "x".repeat(65 * 1024), attributes: None };
        assert_eq!(field(&WatchFlagsRequest { contexts: vec![large], ..values }), "context");
    }

    #[test]
    fn kinds_of_a_selector_must_all_match() {
        let selection = Selection::from(FlagSelector {
            keys: vec!["pay-b".into(), "pay-a".into(), "ship-a".into()],
            prefix: "pay-".into(),
            tags: vec!["core".into()],
        });
        assert!(selection.names("pay-a") && selection.names("pay-b"));
        assert!(!selection.names("ship-a") && !selection.names("pay-c"));
        assert!(selection.has_tags(&["core".into(), "x".into()]) && !selection.has_tags(&[]));
        assert!(Selection::default().names("anything") && Selection::default().has_tags(&[]));
    }
}
