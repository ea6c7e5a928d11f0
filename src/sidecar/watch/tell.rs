//! How a change is told to a watcher.

use std::collections::HashMap;
use std::hash::Hasher as _;
use std::sync::Arc;

use bytes::Bytes;
use metrohash::MetroHash64;

use crate::flag::{CompiledFlag, ErrorCode, Reason, Revision};
use crate::replica::{ChangeKind, FRAME_SLOTS, Note};
use crate::sidecar::pod::Pod;
use crate::wire::evaluation::watch::{ChangeType, FlagState, change_frame, put_decision};
use crate::wire::evaluation::{Answer, Context};
use crate::wire::v1::watch_flags_request::Detail;

use super::ask::{Ask, Selection};

/// Of 4 MiB, which is what gRPC clients take by default. The rest is for what comes beside the values: a hundred decisions without one, and
/// the part of a snapshot that they are in.
const MAX_VALUES_BYTES: usize = (4 * 1024 - 128) * 1024;

/// What a watcher was told, as far as it has to be remembered to tell it the next thing right.
#[derive(Debug)]
pub(super) struct Told {
    /// For values: a hash of the answers of each flag, so that only a change of them makes a message.
    values: HashMap<Arc<str>, u64>,
    /// For tags: flags that are in the selection, so that the watcher hears when one leaves it; after a resume also those, while they
    /// exist, that the watcher was told are not.
    selected: HashMap<Arc<str>, bool>,
    /// What was told before this watch is not known.
    resumed: bool,
}

impl Told {
    pub(super) fn from_a_snapshot() -> Self {
        Self { values: HashMap::new(), selected: HashMap::new(), resumed: false }
    }

    pub(super) fn before() -> Self {
        Self { resumed: true, ..Self::from_a_snapshot() }
    }

    /// The frame of a change, or nothing when it does not concern the watcher.
    pub(super) fn change(&mut self, pod: &Pod, ask: &Ask, kind: ChangeKind, note: &Note) -> Option<Bytes> {
        if !ask.selection.names(&note.key) {
            return None;
        }
        let kind = if ask.selection.tags.is_empty() { kind } else { self.kind_for_tags(ask, kind, note)? };
        match ask.detail {
            Detail::Values => self.change_of_values(pod, ask, kind, note),
            detail => shared_frame(detail, kind, note),
        }
    }

    /// A flag that leaves the selection is as good as deleted.
    fn kind_for_tags(&mut self, ask: &Ask, kind: ChangeKind, note: &Note) -> Option<ChangeKind> {
        let Selection { tags, .. } = &ask.selection;
        if kind != ChangeKind::Deleted && ask.selection.has_tags(&note.tags) {
            self.selected.insert(note.key.clone(), true);
            return Some(kind);
        }
        let may_have_been_in = self.resumed && note.former_tags.may_have_been(tags);
        let was_in = self.selected.remove(&note.key).unwrap_or(may_have_been_in);
        // Told once that it left. Of flags that are gone, or that never were in, nothing is kept: they may come and go for ever.
        if may_have_been_in && kind != ChangeKind::Deleted {
            self.selected.insert(note.key.clone(), false);
        }
        was_in.then_some(ChangeKind::Deleted)
    }

    fn change_of_values(&mut self, pod: &Pod, ask: &Ask, kind: ChangeKind, note: &Note) -> Option<Bytes> {
        if kind == ChangeKind::Deleted {
            self.values.remove(&note.key);
            return shared_frame(Detail::Keys, kind, note);
        }
        let change = change_type(kind).unwrap_or(ChangeType::Updated);
        let (flag, revision) = pod.replica.with(&note.key, |held| held.map(|held| (held.flag.clone(), held.revision)))?;
        if flag.is_killed() != note.killed {
            // The values are those of a kill, or a restore, that comes next. Told now it would not be told as what it is.
            return None;
        }
        let (decisions, hash) = decide(pod, ask, &flag, revision);
        if self.values.insert(note.key.clone(), hash) == Some(hash) {
            return None;
        }
        let state = FlagState { key: &note.key, revision, killed: flag.is_killed(), definition: &[], decisions: &decisions };
        Some(change_frame(change, &state, note.resume_at(kind), note.origin_time_us))
    }

    /// The state of a flag for a snapshot, given to `take`.
    pub(super) fn state(&mut self, pod: &Pod, ask: &Ask, key: &Arc<str>, take: impl FnOnce(&FlagState<'_>)) {
        let held = pod.replica.with(key, |held| held.map(|held| (held.flag.clone(), held.revision, held.definition.clone())));
        let Some((flag, revision, definition)) = held.filter(|(flag, ..)| ask.selection.tags.iter().all(|tag| flag.has_tag(tag))) else {
            return;
        };
        if !ask.selection.tags.is_empty() {
            self.selected.insert(Arc::clone(key), true);
        }
        let definition = if ask.detail == Detail::Definitions { &definition[..] } else { &[] };
        let mut decisions = Vec::new();
        if ask.detail == Detail::Values {
            let (decided, hash) = decide(pod, ask, &flag, revision);
            self.values.insert(Arc::clone(key), hash);
            decisions = decided;
        }
        take(&FlagState { key, revision, killed: flag.is_killed(), definition, decisions: &decisions });
    }
}

/// The decisions for all contexts, and a hash of what a watcher of values wants to hear about.
fn decide(pod: &Pod, ask: &Ask, flag: &CompiledFlag, revision: Revision) -> (Vec<u8>, u64) {
    let mut decisions = Vec::new();
    let mut hasher = MetroHash64::default();
    for context in &ask.contexts {
        // It was read once before the watch began.
        let context = Context::read(context).unwrap_or_default();
        pod.decide_for_watch(flag, revision, &context, |answer| {
            hash_value(answer, &mut hasher);
            let fits = decisions.len() + answer.len() <= MAX_VALUES_BYTES;
            put_decision(&mut decisions, &if fits { *answer } else { without_value(answer) });
        });
    }
    (decisions, hasher.finish())
}

/// Encoded once for every watcher with the same detail.
fn shared_frame(detail: Detail, kind: ChangeKind, note: &Note) -> Option<Bytes> {
    let change = change_type(kind)?;
    let gone = kind == ChangeKind::Deleted;
    let with_definition = detail == Detail::Definitions && !gone;
    let slot = (change as usize - 1) * 2 + usize::from(with_definition);
    let frame = note.frames[slot % FRAME_SLOTS].get_or_init(|| {
        let definition = if with_definition { &note.definition[..] } else { &[] };
        let state = FlagState { key: &note.key, revision: note.revision, killed: note.killed && !gone, definition, decisions: &[] };
        change_frame(change, &state, note.resume_at(kind), note.origin_time_us)
    });
    Some(frame.clone())
}

/// A change of a prerequisite concerns values only.
fn change_type(kind: ChangeKind) -> Option<ChangeType> {
    match kind {
        ChangeKind::Updated => Some(ChangeType::Updated),
        ChangeKind::Killed => Some(ChangeType::Killed),
        ChangeKind::Restored => Some(ChangeType::Restored),
        ChangeKind::Deleted => Some(ChangeType::Deleted),
        ChangeKind::PrerequisiteChanged => None,
    }
}

/// Of a flag whose values for all contexts are more than a message can carry: the decision, and in place of the value how to get it.
fn without_value<'a>(answer: &Answer<'a>) -> Answer<'a> {
    let message = "the values for all contexts are more than a message can carry: watch with fewer contexts, or ask Evaluate for this one";
    Answer { value: None, reason: Reason::Error, error: Some(ErrorCode::General), message, ..*answer }
}

fn hash_value(answer: &Answer<'_>, hasher: &mut MetroHash64) {
    let mut value = Vec::new();
    if let Some(encoded) = answer.value {
        encoded.put(&mut value);
    }
    for part in [answer.variant.as_bytes(), &value] {
        hasher.write(&(part.len() as u64).to_le_bytes());
        hasher.write(part);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use crate::clock::ManualClock;
    use crate::flag::{Delta, Digest, Item, ItemName, Position};
    use crate::replica::{Replica, Writer};
    use crate::wire::v1::{FlagSelector, WatchFlagsRequest};

    use super::*;

    /// A flag that is created with a tag, and deleted again.
    fn preview(writer: &mut Writer, number: u64, tag: &str) {
        let key = format!("preview-{number}");
        let definition = format!(r#"{{"tags":["{tag}"],"variants":{{"a":1}},"defaultVariant":"a"}}"#).into();
        let item = Item { name: ItemName::flag(&key), revision: 2 * number + 1, definition };
        let digest = Digest::of([&item], []);
        let at = |revision| Delta { prev_revision: revision - 1, revision, ..Delta::default() };
        writer.apply_delta(Delta { upserts: vec![item], digest, ..at(2 * number + 1) }).unwrap();
        writer.apply_delta(Delta { removed: vec![ItemName::flag(&key)], ..at(2 * number + 2) }).unwrap();
    }

    #[test]
    fn a_watch_by_tags_remembers_nothing_of_flags_that_come_and_go() {
        let selector = FlagSelector { tags: vec!["core".into()], ..FlagSelector::default() };
        let ask = Ask::read(&WatchFlagsRequest { selector: Some(selector), ..Default::default() }.encode_to_vec()).unwrap();
        for mut told in [Told::from_a_snapshot(), Told::before()] {
            let (replica, mut writer) = Replica::new(Arc::new(ManualClock::default()));
            let mut cursor = replica.resume(Position::default()).unwrap();
            for number in 0..200 {
                preview(&mut writer, number, if number % 2 == 0 { "core" } else { "web" });
                let changes = replica.changes_after(cursor, 100);
                cursor = changes.cursor;
                for (kind, note) in &changes.notes {
                    told.kind_for_tags(&ask, *kind, note);
                }
            }
            assert_eq!(told.selected.len(), 0);
        }
    }
}
