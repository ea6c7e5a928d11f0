//! What a change says to readers: of the flags that were replaced, and of those that depend on them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::flag::Revision;

use super::changes::{ChangeKind, Entry, LISTED_AT_ONCE};
use super::map::Held;

/// What to tell of a flag that was replaced; nothing when it is the same.
pub(super) fn entry(key: Arc<str>, before: Option<Held>, after: Held) -> Option<Entry> {
    let was_killed = before.as_ref().is_some_and(|held| held.flag.is_killed());
    let kind = match (was_killed, after.flag.is_killed()) {
        (false, true) => ChangeKind::Killed,
        (true, false) => ChangeKind::Restored,
        _ if before.as_ref().is_some_and(|held| held.revision == after.revision && held.definition == after.definition) => return None,
        _ => ChangeKind::Updated,
    };
    let is_new = before.is_none();
    let tags_before = before.map_or_else(Vec::new, |held| held.flag.tags().to_vec());
    Some(Entry { is_new, ..told(key, kind, after, tags_before) })
}

pub(super) fn deleted(key: Arc<str>, before: Held, revision: Revision) -> Entry {
    let tags_before = before.flag.tags().to_vec();
    Entry {
        key,
        kind: ChangeKind::Deleted,
        killed: false,
        revision,
        definition: Bytes::new(),
        tags: Vec::new(),
        tags_before,
        is_new: false,
    }
}

/// Readers of values must hear of a flag whose prerequisite changed. `None` when there are more of them than can be listed.
pub(super) fn dependents<'a>(
    changed: impl Iterator<Item = &'a Arc<str>>,
    of: &HashMap<String, HashSet<Arc<str>>>,
    held: impl Fn(&str) -> Option<Held>,
) -> Option<Vec<Entry>> {
    if of.is_empty() {
        return Some(Vec::new());
    }
    let mut next: Vec<Arc<str>> = changed.cloned().collect();
    let mut seen: HashSet<Arc<str>> = next.iter().cloned().collect();
    let mut entries = Vec::new();
    while let Some(key) = next.pop() {
        for dependent in of.get(&*key).into_iter().flatten() {
            if seen.insert(dependent.clone())
                && let Some(held) = held(dependent)
            {
                if entries.len() == LISTED_AT_ONCE {
                    return None;
                }
                entries.push(told(dependent.clone(), ChangeKind::PrerequisiteChanged, held, Vec::new()));
                next.push(dependent.clone());
            }
        }
    }
    Some(entries)
}

/// Of a flag that is as it was, and whose answers are not: the state has become too old for it, or is young again.
pub(super) fn aged(key: Arc<str>, held: Held) -> Entry {
    let tags_before = held.flag.tags().to_vec();
    told(key, ChangeKind::Updated, held, tags_before)
}

fn told(key: Arc<str>, kind: ChangeKind, held: Held, tags_before: Vec<Box<str>>) -> Entry {
    let Held { flag, revision, definition, .. } = held;
    Entry { key, kind, killed: flag.is_killed(), revision, definition, tags: flag.tags().to_vec(), tags_before, is_new: false }
}
