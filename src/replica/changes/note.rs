//! The latest state of a key that changed, as all readers share it.

use std::cmp::Ordering;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::clock::Micros;
use crate::flag::limits::TAGS;
use crate::flag::{Position, Revision};

use super::Cursor;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    Updated,
    Killed,
    Restored,
    Deleted,
    /// The flag is as it was; one that it has as a prerequisite, directly or not, is not.
    PrerequisiteChanged,
}

#[derive(Debug)]
pub struct Note {
    pub key: Arc<str>,
    pub deleted: bool,
    pub killed: bool,
    /// Revision that the flag is at, see [`crate::replica::Held::revision`].
    pub revision: Revision,
    pub origin_time_us: Micros,
    pub definition: Bytes,
    pub tags: Vec<Box<str>>,
    pub former_tags: FormerTags,
    /// Encoded once, by whoever sends it first, for every reader: a slot for each way of telling it.
    pub frames: [OnceLock<Bytes>; FRAME_SLOTS],
    pub(super) epoch: u64,
    /// Of the last change.
    pub(super) changed: Place,
    /// Of the last kill or restore of this flag. A flag that comes under the key of a deleted one has none.
    pub(super) toggled: Option<Place>,
    /// Where it came into being, if that is listed.
    pub(super) created: Option<Place>,
}

pub const FRAME_SLOTS: usize = 8;

/// Where a change stands in the order of all changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Whoever was told that everything up to this revision had been sent was told the change. It never falls from one change to the next.
    pub(super) revision: Revision,
    /// Counts the changes of this replica.
    pub(super) number: u64,
}

/// Tags that a flag had before. A flag can leave a selection by losing a tag, and who slept through it must hear that it left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FormerTags {
    known: Vec<Box<str>>,
    /// There were too many: it may have had any.
    any: bool,
}

/// A pipeline that stamps a tag on each build must not grow the note of the flag for ever.
const FORMER_TAGS: usize = TAGS;

impl Note {
    /// Whether a reader from that cursor has not heard of the flag, as far as is known.
    pub fn is_new_to(&self, cursor: Cursor) -> bool {
        self.created.is_some_and(|created| created > cursor.place)
    }

    /// Where a reader that was told this may resume. Not at the revision of the change itself: it may have changed more flags, which come
    /// next. A kill overtakes changes that must not be skipped, so that nothing can be said; nor when a flag has only left a selection,
    /// which may be told in place of a kill.
    pub fn resume_at(&self, told_as: ChangeKind) -> Option<Position> {
        let place = match told_as {
            ChangeKind::Updated | ChangeKind::PrerequisiteChanged => self.changed,
            ChangeKind::Deleted => self.deleted.then_some(self.changed)?,
            ChangeKind::Restored => self.toggled?,
            ChangeKind::Killed => return None,
        };
        Some(Position { epoch: self.epoch, revision: place.revision.saturating_sub(1) })
    }

    /// What there is to tell in order, at one of the places of the key, to a reader from that cursor. A flag that was edited after it had
    /// been killed or restored has two: told at the first, it is told as it is now, edit included.
    pub(super) fn kind_at(&self, at: Place, cursor: Cursor) -> Option<ChangeKind> {
        if self.deleted {
            return Some(ChangeKind::Deleted);
        }
        match self.toggled {
            // Kills are told before anything is told in order.
            Some(toggled) if self.killed && (at == toggled || toggled > cursor.kills) => None,
            Some(toggled) if at == toggled => Some(ChangeKind::Restored),
            Some(toggled) if !self.killed && toggled > cursor.place => None,
            _ => Some(ChangeKind::Updated),
        }
    }
}

/// Compared as one number: each delivery to a watcher compares places a dozen times.
impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        let one = |place: &Self| u128::from(place.revision) << 64 | u128::from(place.number);
        one(self).cmp(&one(other))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Place {
    /// After every change that a reader at this revision was told.
    pub(super) fn after(revision: Revision) -> Self {
        Self { revision, number: u64::MAX }
    }
}

impl FormerTags {
    /// Whether the flag may once have had all of these.
    pub fn may_have_been(&self, tags: &[String]) -> bool {
        self.any || tags.iter().all(|tag| self.known.iter().any(|known| **known == **tag))
    }

    pub(super) fn add(&mut self, tags: &[Box<str>]) {
        for tag in tags {
            if !self.any && !self.known.contains(tag) {
                self.known.push(tag.clone());
                self.any = self.known.len() > FORMER_TAGS;
            }
        }
        if self.any {
            self.known = Vec::new();
        }
    }
}
