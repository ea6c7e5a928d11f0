//! The newest changes of an environment in memory: what a reader that resumes is told.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::control::stored::LogRecord;
use crate::flag::{Delta, Digest, Item, ItemName, Kill, Revision};

/// How much of the log is kept: whichever limit is reached first drops the oldest change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    pub changes: usize,
    pub age: Duration,
}

/// Items that the kept changes may touch, together: bounds the memory that many large changes take.
const TOUCHED_ITEMS: usize = 1_000_000;
/// Definitions that are held beside the state because they have been replaced since, bytes. They serve only a reader that asks for a
/// revision that is no longer the newest.
const REPLACED_BYTES: usize = 64 << 20;
/// Changes that one commit drops at most, so that a kill after a quiet week does not wait for ten thousand deletions.
const DROPPED_AT_ONCE: u64 = 256;

impl Default for Retention {
    fn default() -> Self {
        Self { changes: 10_000, age: Duration::from_secs(7 * 24 * 3600) }
    }
}

/// Changes `floor + 1` to `floor + entries.len()`.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    floor: Revision,
    entries: VecDeque<Entry>,
    touched: usize,
    /// Bytes of the definitions in `entries`, and how many entries at the old end have none any more.
    definition_bytes: usize,
    stripped: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub at_us: i64,
    pub digest: Digest,
    pub items: Vec<(ItemName, Content)>,
    pub kills: Vec<Kill>,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Is(Arc<Item>),
    /// Changed at the revision of the entry; the definition is no longer held here.
    Changed,
    Removed,
}

impl Log {
    /// A log that begins after `floor`.
    pub(super) fn after(floor: Revision) -> Self {
        Self { floor, ..Self::default() }
    }

    pub(super) fn floor(&self) -> Revision {
        self.floor
    }

    pub(super) fn newest(&self) -> Revision {
        self.floor + self.entries.len() as u64
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.touched += entry.items.len();
        self.definition_bytes += entry.definition_bytes();
        self.entries.push_back(entry);
        while self.definition_bytes > REPLACED_BYTES && self.stripped < self.entries.len() {
            let entry = &mut self.entries[self.stripped];
            self.definition_bytes -= entry.definition_bytes();
            entry.strip();
            self.stripped += 1;
        }
    }

    /// The floor that the limits ask for once `change`, made at `now_us`, is in the log too.
    pub(super) fn floor_with(&self, change: &LogRecord, now_us: i64, retention: Retention) -> Revision {
        let age_us = i64::try_from(retention.age.as_micros()).unwrap_or(i64::MAX);
        let mut kept = self.entries.len() + 1;
        let mut touched = self.touched + change.upserts.len() + change.removed.len();
        let mut floor = self.floor;
        for entry in &self.entries {
            let is_old = now_us.saturating_sub(entry.at_us) > age_us;
            let is_too_much = kept > retention.changes.max(1) || touched > TOUCHED_ITEMS;
            if !(is_old || is_too_much) || floor - self.floor == DROPPED_AT_ONCE {
                break;
            }
            kept -= 1;
            touched -= entry.items.len();
            floor += 1;
        }
        floor
    }

    /// Drops every change up to `floor`.
    pub(super) fn drop_to(&mut self, floor: Revision) {
        while self.floor < floor {
            let Some(entry) = self.entries.pop_front() else { break };
            self.touched -= entry.items.len();
            self.definition_bytes -= entry.definition_bytes();
            self.stripped = self.stripped.saturating_sub(1);
            self.floor += 1;
        }
    }

    /// `None` when the log does not hold all that happened between the two, or not any more as it was at `to`. `current` finds an item
    /// as it is now.
    pub(super) fn delta<'a>(
        &'a self,
        epoch: u64,
        from: Revision,
        to: Revision,
        current: impl Fn(&ItemName) -> Option<&'a Arc<Item>>,
    ) -> Option<Delta> {
        let entries = self.entries.range(self.places(from, to)?);
        let last = self.entry(to)?;
        let (mut items, mut kills) = (BTreeMap::new(), BTreeMap::new());
        for (revision, entry) in (from + 1..).zip(entries) {
            items.extend(entry.items.iter().map(|(name, content)| (name, (revision, content))));
            kills.extend(entry.kills.iter().map(|kill| (kill.flag_key.as_str(), kill)));
        }
        let (mut upserts, mut removed) = (Vec::new(), Vec::new());
        for (name, (revision, content)) in items {
            match content {
                Content::Is(item) => upserts.push(Item::clone(item)),
                Content::Changed => upserts.push(Item::clone(current(name).filter(|item| item.revision == revision)?)),
                Content::Removed => removed.push(name.clone()),
            }
        }
        let kills = kills.into_values().cloned().collect();
        let (digest, origin_time_us) = (last.digest, last.at_us);
        Some(Delta { epoch, prev_revision: from, revision: to, upserts, removed, kills, digest, origin_time_us })
    }

    /// The newest register of each flag that was killed or restored after `after`, newest first; `None` below the floor.
    pub(super) fn kills_after(&self, after: Revision) -> Option<Vec<Kill>> {
        let entries = self.entries.range(self.places(after, self.newest().max(after))?);
        let newest: BTreeMap<_, _> = entries.flat_map(|entry| &entry.kills).map(|kill| (kill.flag_key.as_str(), kill)).collect();
        let mut kills: Vec<_> = newest.into_values().cloned().collect();
        kills.sort_by_key(|kill| std::cmp::Reverse(kill.revision));
        Some(kills)
    }

    fn entry(&self, revision: Revision) -> Option<&Entry> {
        self.entries.get(usize::try_from(revision.checked_sub(self.floor + 1)?).ok()?)
    }

    /// Where the changes after `from` up to `to` are.
    fn places(&self, from: Revision, to: Revision) -> Option<Range<usize>> {
        if from < self.floor || to < from || to > self.newest() {
            return None;
        }
        Some(usize::try_from(from - self.floor).ok()?..usize::try_from(to - self.floor).ok()?)
    }
}

impl Entry {
    fn definition_bytes(&self) -> usize {
        let bytes = |(_, content): &(ItemName, Content)| match content {
            Content::Is(item) => item.definition.len(),
            Content::Changed | Content::Removed => 0,
        };
        self.items.iter().map(bytes).sum()
    }

    fn strip(&mut self) {
        for (_, content) in &mut self.items {
            if matches!(content, Content::Is(_)) {
                *content = Content::Changed;
            }
        }
    }
}

impl From<LogRecord> for Entry {
    fn from(LogRecord { at_us, digest, upserts, removed, kills }: LogRecord) -> Self {
        let changed = upserts.into_iter().map(|name| (name, Content::Changed));
        let removed = removed.into_iter().map(|name| (name, Content::Removed));
        Self { at_us, digest, items: changed.chain(removed).collect(), kills }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn entry(at_us: i64, revision: Revision, keys: &[&str]) -> Entry {
        let item = |key: &&str| {
            let name = ItemName::flag(*key);
            (name.clone(), Content::Is(Arc::new(Item { name, revision, definition: Bytes::from_static(b"{}") })))
        };
        Entry { at_us, digest: Digest::default(), items: keys.iter().map(item).collect(), kills: Vec::new() }
    }

    fn log(length: u64) -> Log {
        let mut log = Log::after(5);
        (0..length).for_each(|n| log.push(entry(n as i64 * 1_000_000, 6 + n, &["a"])));
        log
    }

    fn change() -> LogRecord {
        let (upserts, removed, kills) = (vec![ItemName::flag("a")], Vec::new(), Vec::new());
        LogRecord { at_us: 0, digest: Digest::default(), upserts, removed, kills }
    }

    #[test]
    fn the_floor_follows_the_number_of_changes() {
        let retention = Retention { changes: 4, age: Duration::MAX };
        assert_eq!(log(3).floor_with(&change(), 0, retention), 5);
        assert_eq!(log(4).floor_with(&change(), 0, retention), 6);
        assert_eq!(log(9).floor_with(&change(), 0, retention), 11);
        assert_eq!(log(4).floor_with(&change(), 0, Retention { changes: 0, ..retention }), 9, "the newest change is always kept");
    }

    #[test]
    fn the_floor_follows_the_age_of_changes() {
        let retention = Retention { changes: 100, age: Duration::from_secs(2) };
        assert_eq!(log(4).floor_with(&change(), 2_000_000, retention), 5);
        assert_eq!(log(4).floor_with(&change(), 2_000_001, retention), 6);
        assert_eq!(log(4).floor_with(&change(), 60_000_000, retention), 9);
    }

    #[test]
    fn one_commit_does_not_drop_a_whole_week() {
        let retention = Retention { changes: 1_000_000, age: Duration::ZERO };
        assert_eq!(log(10_000).floor_with(&change(), i64::MAX, retention), 5 + DROPPED_AT_ONCE);
    }

    #[test]
    fn below_the_floor_and_ahead_of_the_head_there_is_no_delta() {
        let mut log = log(4);
        log.drop_to(7);
        assert_eq!((log.floor(), log.newest()), (7, 9));
        let delta = |from, to| log.delta(1, from, to, |_| None);
        assert!(delta(6, 9).is_none());
        assert!(delta(7, 10).is_none());
        assert!(delta(9, 8).is_none());
        assert!(delta(u64::MAX, u64::MAX).is_none());
        let delta = delta(7, 9).unwrap();
        assert_eq!((delta.prev_revision, delta.revision, delta.upserts.len(), delta.upserts[0].revision), (7, 9, 1, 9));
    }

    #[test]
    fn a_stripped_entry_answers_from_the_state_or_not_at_all() {
        let mut log = Log::after(0);
        let mut old = entry(0, 1, &["a", "b"]);
        old.strip();
        log.push(old);
        log.push(entry(0, 2, &["b"]));
        let a = Arc::new(Item { name: ItemName::flag("a"), revision: 1, definition: Bytes::from_static(b"{}") });
        let current = |name: &ItemName| (name.key == "a").then_some(&a);
        assert!(log.delta(1, 0, 1, current).is_none(), "what b was at 1 is not known any more");
        assert_eq!(log.delta(1, 0, 2, current).unwrap().upserts.len(), 2);
    }

    #[test]
    fn what_is_held_is_counted_right() {
        let mut log = log(10);
        assert_eq!((log.touched, log.definition_bytes), (10, 20));
        log.drop_to(15);
        assert_eq!((log.touched, log.definition_bytes, log.floor()), (0, 0, 15));
    }
}
