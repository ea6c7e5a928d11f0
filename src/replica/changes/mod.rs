//! What changed since a reader last looked: a list with a place for each key, so that a slow reader finds the latest state of a key once
//! and costs nothing while it sleeps.
//!
//! A key keeps the place of its last change and that of its last kill or restore, and what only its prerequisites changed is listed apart:
//! a later change of another sort never hides an earlier one from a reader that has not got there. Places are ordered by revision, so that
//! a reader that comes back with a revision finds everything that it may not have heard behind [`Place::after`] it.

mod note;
#[cfg(test)]
mod tests;

use std::collections::btree_map::Range;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Micros;
use crate::flag::{Position, Revision, metro64};

use note::Place;
pub use note::{ChangeKind, FRAME_SLOTS, FormerTags, Note};

/// Deleted keys that are remembered. A reader that was away for longer starts from a snapshot.
const TOMBSTONES: usize = 10_000;

/// A change that touches more keys than this is not listed key by key: every reader starts from a snapshot instead.
pub(super) const LISTED_AT_ONCE: usize = 1_000;

/// Kills that are handed out together, whatever the limit of the reader.
const KILLS_AT_ONCE: usize = 32;

/// How far a reader has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Of the list, see [`ChangeList::forget`].
    history: u64,
    place: Place,
    /// Kills up to here were handed out ahead of their turn.
    kills: Place,
    /// Changes of prerequisites are told too.
    prerequisites: bool,
}

#[derive(Debug)]
pub struct Changes {
    /// Kills first, then in the order of their last change.
    pub notes: Vec<(ChangeKind, Arc<Note>)>,
    pub cursor: Cursor,
    /// The list does not reach back to the cursor: tell the kills that are in `notes`, and start from a snapshot, at the new cursor.
    pub lost: bool,
    /// There was more than the limit.
    pub more: bool,
    /// A reader to whom nothing more is left has heard everything up to here. [`super::Replica::position`] may be ahead of what is listed.
    pub position: Position,
}

/// What the writer says of one key.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: Arc<str>,
    pub kind: ChangeKind,
    pub killed: bool,
    pub revision: Revision,
    pub definition: Bytes,
    pub tags: Vec<Box<str>>,
    pub tags_before: Vec<Box<str>>,
    /// There was no flag of this key.
    pub is_new: bool,
}

/// When a change became visible: where the replica stood, and when the control plane had committed it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moment {
    pub position: Position,
    pub origin_time_us: Micros,
}

#[derive(Debug, Default)]
pub(super) struct ChangeList {
    history: u64,
    /// Where this history began. Kills of before keep their number and come before it.
    began: Place,
    head: Place,
    head_position: Position,
    /// Changes up to here are not listed any more.
    floor: Place,
    /// Changes of prerequisites up to here are not.
    prerequisites_floor: Place,
    by_key: HashMap<Arc<str>, Arc<Note>>,
    /// The same notes in order, at each of their places.
    by_place: BTreeMap<Place, Arc<Note>>,
    /// Those of all flags that are killed, by the place of the kill.
    kills: BTreeMap<Place, Arc<Note>>,
    tombstones: BTreeSet<Place>,
    /// Flags of which a prerequisite changed since they last changed themselves.
    by_prerequisite: BTreeMap<Place, Arc<Note>>,
    prerequisite_places: HashMap<Arc<str>, Place>,
}

impl ChangeList {
    pub(super) fn head(&self) -> Cursor {
        Cursor { history: self.history, place: self.head, kills: self.head, prerequisites: true }
    }

    /// Whether the list can go on at `position`. Not in another epoch, and not when the replica went back.
    pub(super) fn reaches(&self, position: Position) -> bool {
        self.head_position.epoch == position.epoch && self.head_position.revision <= position.revision
    }

    /// `dependents`: flags of which a prerequisite changed; `None` when there are too many to be listed.
    pub(super) fn record(&mut self, entries: Vec<Entry>, dependents: Option<Vec<Entry>>, moment: Moment) -> u64 {
        let Position { revision, .. } = moment.position;
        // The kill lane, or a kill that turned out to be void, changes flags where the log does not move: who was told of this position
        // may have been told before the change.
        let revision = if moment.position == self.head_position { revision.saturating_add(1) } else { revision };
        for entry in entries {
            let place = self.next_place(revision);
            self.record_one(entry, place, moment);
        }
        self.record_prerequisites(dependents, revision, moment);
        self.drop_old_tombstones();
        self.head_position = moment.position;
        self.head.number
    }

    /// Everything may have changed, and every reader starts from a snapshot. Only kills stay listed: a snapshot says that a flag is killed,
    /// not that it was killed since a reader last looked.
    ///
    /// `dependents`: of the flags that are ahead of the log.
    pub(super) fn forget(&mut self, changed: Vec<Entry>, dependents: Option<Vec<Entry>>, moment: Moment) -> u64 {
        let Position { revision, .. } = moment.position;
        let kills = std::mem::take(&mut self.kills);
        let began = Place { revision, number: self.head.number + 1 };
        *self = Self {
            history: self.history + 1,
            began,
            head: began,
            head_position: moment.position,
            floor: began,
            prerequisites_floor: began,
            ..Self::default()
        };
        // Of what is ahead of the log, a reader that was told of this position may not have heard.
        let mut ahead = Vec::new();
        let mut changed: HashMap<_, _> = changed.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        for (Place { number, .. }, note) in kills {
            let entry = changed.remove(&note.key).unwrap_or_else(|| Entry::of_kill(&note));
            match entry.killed {
                true if entry.revision > revision => ahead.push(entry),
                true => self.record_one(Entry { kind: ChangeKind::Killed, ..entry }, Place { revision, number }, moment),
                false => {}
            }
        }
        for entry in changed.into_values().filter(|entry| entry.kind == ChangeKind::Killed) {
            match entry.revision > revision {
                true => ahead.push(entry),
                false => {
                    let place = self.next_place(revision);
                    self.record_one(entry, place, moment);
                }
            }
        }
        let revision = revision.saturating_add(1);
        for entry in ahead {
            let place = self.next_place(revision);
            self.record_one(Entry { kind: ChangeKind::Killed, ..entry }, place, moment);
        }
        self.record_prerequisites(dependents, revision, moment);
        self.head.number
    }

    pub(super) fn after(&self, cursor: Cursor, limit: usize) -> Changes {
        let cursor = match cursor.history == self.history {
            true => cursor,
            false => {
                let kills = Place { number: cursor.kills.number, ..self.began };
                Cursor { history: self.history, place: Place::default(), kills, ..cursor }
            }
        };
        let position = self.head_position;
        let mut kills = self.kills.range(beyond(cursor.kills));
        let mut notes: Vec<_> = kills.by_ref().take(KILLS_AT_ONCE).map(|(_, note)| (ChangeKind::Killed, note.clone())).collect();
        if kills.next().is_some() {
            let kills = notes.last().and_then(|(_, note)| note.toggled).unwrap_or(cursor.kills);
            return Changes { notes, cursor: Cursor { kills, ..cursor }, lost: false, more: true, position };
        }
        let head = Cursor { prerequisites: cursor.prerequisites, ..self.head() };
        if cursor.place < self.floor || cursor.prerequisites && cursor.place < self.prerequisites_floor {
            return Changes { notes, cursor: head, lost: true, more: false, position };
        }
        let mut place = cursor.place;
        for (at, kind, note) in self.in_order_after(cursor) {
            if notes.len() >= limit {
                return Changes { notes, cursor: Cursor { place, ..head }, lost: false, more: true, position };
            }
            place = at;
            if let Some(kind) = kind {
                notes.push((kind, note.clone()));
            }
        }
        Changes { notes, cursor: head, lost: false, more: false, position }
    }

    /// Where a reader that had seen everything up to `position` goes on; `None` when that is not known any more.
    pub(super) fn resume(&self, position: Position) -> Option<Cursor> {
        let place = Place::after(position.revision);
        if position.epoch != self.head_position.epoch || place < self.floor {
            return None;
        }
        // The reader may have been further than this replica is since a restart. What the replica then hears ahead of its log is not what
        // the reader has heard.
        let place = place.min(self.head);
        // The kills that it was told of must be known by their number, for the case that the list is forgotten before it reads.
        let last = self.by_place.range(..=place).next_back().map_or(self.began.number, |(last, _)| last.number);
        Some(Cursor { place, kills: Place { number: last, ..place }, ..self.head() })
    }

    fn in_order_after(&self, cursor: Cursor) -> impl Iterator<Item = (Place, Option<ChangeKind>, &Arc<Note>)> {
        let mut own = self.by_place.range(beyond(cursor.place)).peekable();
        let prerequisites = if cursor.prerequisites { self.by_prerequisite.range(beyond(cursor.place)) } else { Range::default() };
        let mut prerequisites = prerequisites.peekable();
        std::iter::from_fn(move || {
            let is_next = prerequisites.peek().is_some_and(|(place, _)| own.peek().is_none_or(|(own, _)| place < own));
            if is_next {
                return prerequisites.next().map(|(place, note)| (*place, Some(ChangeKind::PrerequisiteChanged), note));
            }
            own.next().map(|(place, note)| (*place, note.kind_at(*place, cursor), note))
        })
    }

    fn record_one(&mut self, entry: Entry, place: Place, moment: Moment) {
        let before = self.take(&entry.key);
        if let Some(place) = self.prerequisite_places.remove(&entry.key) {
            self.by_prerequisite.remove(&place);
        }
        let mut former_tags = FormerTags::default();
        if let Some(before) = &before {
            former_tags = before.former_tags.clone();
            former_tags.add(&before.tags);
        }
        former_tags.add(&entry.tags_before);
        let toggled = match entry.kind {
            ChangeKind::Killed | ChangeKind::Restored => Some(place),
            // What comes under this key again is another flag, which was never restored.
            ChangeKind::Deleted => None,
            ChangeKind::Updated | ChangeKind::PrerequisiteChanged => before.as_ref().and_then(|before| before.toggled),
        };
        let created = match entry.is_new {
            true => Some(place),
            false => before.as_ref().and_then(|before| before.created),
        };
        let note = Arc::new(Note { former_tags, toggled, created, ..entry.into_note(place, moment) });
        for place in [Some(note.changed), note.toggled].into_iter().flatten() {
            self.by_place.insert(place, note.clone());
        }
        if let Some(toggled) = note.toggled.filter(|_| note.killed) {
            self.kills.insert(toggled, note.clone());
        }
        if note.deleted {
            self.tombstones.insert(place);
        }
        self.by_key.insert(note.key.clone(), note);
    }

    fn record_prerequisites(&mut self, entries: Option<Vec<Entry>>, revision: Revision, moment: Moment) {
        let Some(entries) = entries else {
            self.prerequisites_floor = self.next_place(revision);
            self.by_prerequisite.clear();
            self.prerequisite_places.clear();
            return;
        };
        for entry in entries {
            let place = self.next_place(revision);
            if let Some(before) = self.prerequisite_places.insert(entry.key.clone(), place) {
                self.by_prerequisite.remove(&before);
            }
            self.by_prerequisite.insert(place, Arc::new(entry.into_note(place, moment)));
        }
    }

    fn next_place(&mut self, revision: Revision) -> Place {
        self.head = Place { revision, number: self.head.number + 1 };
        self.head
    }

    /// Takes a key off the list.
    fn take(&mut self, key: &str) -> Option<Arc<Note>> {
        let note = self.by_key.remove(key)?;
        self.by_place.remove(&note.changed);
        self.tombstones.remove(&note.changed);
        if let Some(toggled) = note.toggled {
            self.by_place.remove(&toggled);
            self.kills.remove(&toggled);
        }
        Some(note)
    }

    fn drop_old_tombstones(&mut self) {
        while self.tombstones.len() > TOMBSTONES {
            let Some(place) = self.tombstones.pop_first() else { return };
            if let Some(note) = self.by_place.remove(&place) {
                self.by_key.remove(&note.key);
            }
            self.floor = self.floor.max(place);
        }
    }
}

fn beyond(place: Place) -> (Bound<Place>, Bound<Place>) {
    (Bound::Excluded(place), Bound::Unbounded)
}

impl Cursor {
    /// Differs from one change to the next.
    pub fn stamp(self) -> u64 {
        let Self { history, place: Place { revision, number }, .. } = self;
        metro64(&[history, revision, number].map(u64::to_le_bytes).concat())
    }

    /// For a reader whom only changes of the flags themselves concern: however many flags depend on one that changed, it hears of the one.
    pub fn without_prerequisites(self) -> Self {
        Self { prerequisites: false, ..self }
    }
}

impl Entry {
    fn of_kill(note: &Note) -> Self {
        Self {
            key: note.key.clone(),
            kind: ChangeKind::Killed,
            killed: true,
            revision: note.revision,
            definition: note.definition.clone(),
            tags: note.tags.clone(),
            tags_before: Vec::new(),
            is_new: false,
        }
    }

    fn into_note(self, changed: Place, moment: Moment) -> Note {
        let Self { key, kind, killed, revision, definition, tags, tags_before: _, is_new: _ } = self;
        let Moment { position: Position { epoch, .. }, origin_time_us } = moment;
        let (former_tags, frames) = Default::default();
        let deleted = kind == ChangeKind::Deleted;
        Note {
            key,
            deleted,
            killed,
            revision,
            origin_time_us,
            definition,
            tags,
            former_tags,
            frames,
            epoch,
            changed,
            toggled: None,
            created: None,
        }
    }
}
