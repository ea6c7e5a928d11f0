//! What changed since a reader last looked: a list with one place for each key, so that a slow reader finds the latest state of a key
//! once and costs nothing while it sleeps.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::clock::Micros;
use crate::flag::{Position, Revision};

/// Deleted keys that are remembered. A reader that was away for longer starts from a snapshot.
const TOMBSTONES: usize = 10_000;

/// A change that touches more keys than this is not listed key by key: every reader starts from a snapshot instead.
pub(super) const LISTED_AT_ONCE: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    Updated,
    Killed,
    Restored,
    Deleted,
    /// The flag is as it was; one that it has as a prerequisite, directly or not, is not.
    PrerequisiteChanged,
}

/// The latest state of a key that changed.
#[derive(Debug)]
pub struct Note {
    pub key: Arc<str>,
    pub deleted: bool,
    pub killed: bool,
    /// Revision that the flag is at, see [`super::Held::revision`].
    pub revision: Revision,
    /// Where the replica stood when the change became visible.
    pub position: Position,
    pub origin_time_us: Micros,
    pub definition: Bytes,
    /// Tags now and, since a flag can leave a selection by losing a tag, before.
    pub tags: Vec<Box<str>>,
    pub tags_before: Vec<Box<str>>,
    /// Encoded once, by whoever sends it first, for every reader: a slot for each way of telling it.
    pub frames: [OnceLock<Bytes>; FRAME_SLOTS],
    seq: u64,
    /// When the flag itself last changed, and when it was last killed or restored.
    direct_seq: u64,
    toggled_seq: u64,
}

pub const FRAME_SLOTS: usize = 8;

/// How far a reader has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    seq: u64,
    /// Kills up to here were handed out ahead of their turn.
    kills: u64,
}

#[derive(Debug)]
pub struct Changes {
    /// Kills first, then in the order of their last change.
    pub notes: Vec<(ChangeKind, Arc<Note>)>,
    pub cursor: Cursor,
    /// The list does not reach back to the cursor: start from a snapshot, at the new cursor.
    pub lost: bool,
    /// There was more than the limit.
    pub more: bool,
    /// A reader to whom nothing more is left has heard everything up to here. [`super::Replica::position`] may be ahead of what is listed.
    pub position: Position,
}

/// What the writer says of one key.
pub(super) struct Entry {
    pub key: Arc<str>,
    pub kind: ChangeKind,
    pub killed: bool,
    pub revision: Revision,
    pub definition: Bytes,
    pub tags: Vec<Box<str>>,
    pub tags_before: Vec<Box<str>>,
}

#[derive(Debug, Default)]
pub(super) struct ChangeList {
    head: u64,
    head_position: Position,
    /// Changes up to here are not listed any more.
    floor: u64,
    floor_position: Position,
    by_seq: BTreeMap<u64, Arc<Note>>,
    by_key: HashMap<Arc<str>, u64>,
    /// Flags that are killed, by the time of their kill.
    kills: BTreeMap<u64, Arc<str>>,
    tombstones: usize,
}

impl ChangeList {
    pub(super) fn head(&self) -> Cursor {
        Cursor { seq: self.head, kills: self.head }
    }

    /// The list speaks of another history than the one at `position`.
    pub(super) fn is_of_another_epoch(&self, position: Position) -> bool {
        self.floor_position.epoch != position.epoch
    }

    pub(super) fn record(&mut self, entries: Vec<Entry>, position: Position, origin_time_us: Micros) -> u64 {
        for entry in entries {
            self.record_one(entry, position, origin_time_us);
        }
        self.drop_old_tombstones();
        self.head_position = position;
        self.head
    }

    /// Everything may have changed.
    pub(super) fn forget(&mut self, position: Position) -> u64 {
        self.head += 1;
        *self = Self { head: self.head, head_position: position, floor: self.head, floor_position: position, ..Self::default() };
        self.head
    }

    pub(super) fn after(&self, cursor: Cursor, limit: usize) -> Changes {
        if cursor.seq < self.floor {
            return Changes { notes: Vec::new(), cursor: self.head(), lost: true, more: false, position: self.head_position };
        }
        let mut notes: Vec<_> = self
            .kills
            .range(cursor.kills + 1..)
            .filter_map(|(_, key)| self.by_seq.get(self.by_key.get(key)?))
            .map(|note| (ChangeKind::Killed, note.clone()))
            .collect();
        let kills = self.head;
        let mut seq = cursor.seq;
        let mut more = false;
        for (at, note) in self.by_seq.range(cursor.seq + 1..) {
            if notes.len() >= limit {
                more = true;
                break;
            }
            seq = *at;
            let handed_out = note.killed && note.toggled_seq > cursor.kills;
            match note.kind_since(cursor) {
                _ if handed_out => {}
                Some(kind) => notes.push((kind, note.clone())),
                None => {}
            }
        }
        let seq = if more { seq } else { self.head };
        Changes { notes, cursor: Cursor { seq, kills }, lost: false, more, position: self.head_position }
    }

    /// Where a reader that had seen everything up to `position` goes on; `None` when that is not known any more.
    pub(super) fn resume(&self, position: Position) -> Option<Cursor> {
        if position.epoch != self.floor_position.epoch || position.revision < self.floor_position.revision {
            return None;
        }
        // A kill that came ahead of the log counts by its own revision.
        let missed = |note: &Note| note.position.revision.max(note.revision) > position.revision;
        let seq = self.by_seq.iter().find(|(_, note)| missed(note)).map_or(self.head, |(seq, _)| seq - 1);
        Some(Cursor { seq, kills: seq })
    }

    fn record_one(&mut self, entry: Entry, position: Position, origin_time_us: Micros) {
        let Entry { key, kind, killed, revision, definition, tags, mut tags_before } = entry;
        self.head += 1;
        let seq = self.head;
        let before = self.by_key.insert(key.clone(), seq).and_then(|seq| self.by_seq.remove(&seq));
        let (mut direct_seq, mut toggled_seq) = before.as_ref().map_or((0, 0), |note| (note.direct_seq, note.toggled_seq));
        if let Some(before) = before {
            self.tombstones -= usize::from(before.deleted);
            self.kills.remove(&before.toggled_seq);
            for tag in before.tags.iter().chain(&before.tags_before) {
                if !tags_before.contains(tag) {
                    tags_before.push(tag.clone());
                }
            }
        }
        if kind != ChangeKind::PrerequisiteChanged {
            direct_seq = seq;
        }
        if matches!(kind, ChangeKind::Killed | ChangeKind::Restored) {
            toggled_seq = seq;
        }
        let deleted = kind == ChangeKind::Deleted;
        if killed && !deleted && toggled_seq > 0 {
            self.kills.insert(toggled_seq, key.clone());
        }
        self.tombstones += usize::from(deleted);
        let frames = Default::default();
        let note = Note {
            key,
            deleted,
            killed,
            revision,
            position,
            origin_time_us,
            definition,
            tags,
            tags_before,
            frames,
            seq,
            direct_seq,
            toggled_seq,
        };
        self.by_seq.insert(seq, Arc::new(note));
    }

    fn drop_old_tombstones(&mut self) {
        while self.tombstones > TOMBSTONES {
            let Some((seq, note)) = self.by_seq.iter().find(|(_, note)| note.deleted).map(|(seq, note)| (*seq, note.clone())) else {
                return;
            };
            self.by_seq.remove(&seq);
            self.by_key.remove(&note.key);
            self.tombstones -= 1;
            self.floor = self.floor.max(seq);
            self.floor_position = note.position;
        }
    }
}

impl Note {
    /// Sequence number of the change, local to this replica.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// What happened to the key since the cursor, told as one thing.
    fn kind_since(&self, cursor: Cursor) -> Option<ChangeKind> {
        let told_early = self.killed && self.toggled_seq <= cursor.kills;
        if self.deleted {
            return Some(ChangeKind::Deleted);
        }
        if self.toggled_seq > cursor.seq && !told_early {
            return Some(if self.killed { ChangeKind::Killed } else { ChangeKind::Restored });
        }
        let told_up_to = if told_early { cursor.seq.max(self.toggled_seq) } else { cursor.seq };
        if self.direct_seq > told_up_to {
            return Some(ChangeKind::Updated);
        }
        (self.seq > told_up_to).then_some(ChangeKind::PrerequisiteChanged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, kind: ChangeKind, killed: bool) -> Entry {
        let (tags, tags_before) = (Vec::new(), Vec::new());
        Entry { key: key.into(), kind, killed, revision: 0, definition: Bytes::new(), tags, tags_before }
    }

    fn list(changes: &[(&str, ChangeKind, bool)]) -> ChangeList {
        let mut list = ChangeList::default();
        for (number, (key, kind, killed)) in changes.iter().enumerate() {
            list.record(vec![entry(key, *kind, *killed)], Position { epoch: 0, revision: number as u64 + 1 }, 0);
        }
        list
    }

    fn told(changes: &Changes) -> Vec<(&str, ChangeKind)> {
        changes.notes.iter().map(|(kind, note)| (&*note.key, *kind)).collect()
    }

    const START: Cursor = Cursor { seq: 0, kills: 0 };
    use ChangeKind::{Deleted, Killed, PrerequisiteChanged, Restored, Updated};

    #[test]
    fn a_slow_reader_finds_the_latest_state_of_a_key_once() {
        let list = list(&[("a", Updated, false), ("b", Updated, false), ("a", Updated, false), ("a", Deleted, false)]);
        assert_eq!(told(&list.after(START, 100)), [("b", Updated), ("a", Deleted)]);
    }

    #[test]
    fn a_kill_is_first_in_line_whatever_the_limit() {
        let list = list(&[("a", Updated, false), ("b", Updated, false), ("c", Killed, true)]);
        let first = list.after(START, 1);
        assert_eq!((told(&first), first.more), (vec![("c", Killed)], true));
        let rest = list.after(first.cursor, 100);
        assert_eq!((told(&rest), rest.more), (vec![("a", Updated), ("b", Updated)], false));
    }

    #[test]
    fn a_killed_flag_that_was_edited_later_is_still_told_as_killed() {
        let list = list(&[("a", Killed, true), ("a", Updated, true)]);
        assert_eq!(told(&list.after(START, 100)), [("a", Killed)]);
    }

    #[test]
    fn an_edit_after_a_kill_that_was_told_is_an_update() {
        let mut list = list(&[("a", Killed, true)]);
        let seen = list.after(START, 100).cursor;
        list.record(vec![entry("a", Updated, true)], Position::default(), 0);
        assert_eq!(told(&list.after(seen, 100)), [("a", Updated)]);
    }

    #[test]
    fn kill_then_restore_is_told_as_a_restore() {
        let list = list(&[("a", Killed, true), ("a", Restored, false)]);
        assert_eq!(told(&list.after(START, 100)), [("a", Restored)]);
    }

    #[test]
    fn a_changed_prerequisite_does_not_hide_a_change_of_the_flag() {
        let list = list(&[("a", Updated, false), ("a", PrerequisiteChanged, false)]);
        assert_eq!(told(&list.after(START, 100)), [("a", Updated)]);
        assert_eq!(told(&list.after(Cursor { seq: 1, kills: 1 }, 100)), [("a", PrerequisiteChanged)]);
    }

    #[test]
    fn a_reader_resumes_after_the_revision_that_it_saw() {
        let list = list(&[("a", Updated, false), ("b", Updated, false), ("c", Updated, false)]);
        let cursor = list.resume(Position { epoch: 0, revision: 2 }).unwrap();
        assert_eq!(told(&list.after(cursor, 100)), [("c", Updated)]);
        assert_eq!(list.resume(Position { epoch: 1, revision: 2 }), None);
    }

    #[test]
    fn a_reader_that_slept_through_a_resync_starts_from_a_snapshot() {
        let mut list = list(&[("a", Updated, false)]);
        let cursor = list.head();
        list.forget(Position { epoch: 0, revision: 9 });
        let changes = list.after(cursor, 100);
        assert!(changes.lost);
        assert!(!list.after(changes.cursor, 100).lost);
        assert_eq!(list.resume(Position { epoch: 0, revision: 8 }), None);
    }

    #[test]
    fn tombstones_are_bounded() {
        let mut list = ChangeList::default();
        for number in 0..TOMBSTONES + 5 {
            list.record(vec![entry(&number.to_string(), Deleted, false)], Position { epoch: 0, revision: number as u64 + 1 }, 0);
        }
        assert_eq!(list.by_seq.len(), TOMBSTONES);
        assert!(list.after(START, 1).lost);
    }
}
