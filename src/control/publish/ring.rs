//! The newest changes of an environment, each encoded once. A reader is a cursor into it, not a queue.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::flag::{Kill, Revision};
use crate::wire::{frame, v1};

/// Bounds of the ring. A reader that falls off gets one merged change from the log instead.
const ENTRIES: usize = 1024;
const BYTES: usize = 8 << 20;
/// As many changes are sent one after the other; a reader that is further behind gets them merged, each key in its latest state.
const AT_ONCE: usize = 4;

#[derive(Debug, Default)]
pub struct Ring {
    epoch: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub prev_revision: Revision,
    pub revision: Revision,
    /// A `FollowResponse`; `None`: too long for one message.
    pub delta: Option<Bytes>,
    /// `KillNotice`s, end to end; empty when the change has none.
    pub kills: Bytes,
}

/// What brings a cursor on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ahead {
    Frames(Bytes, Revision),
    /// Too far behind, or not at a change of the ring: merge what is missing.
    Merge,
    /// The next change does not fit into a message.
    TooLong,
}

impl Ring {
    /// Empties the ring: what was in it does not lead to where the environment is now.
    pub fn restart(&mut self, epoch: u64) {
        *self = Self { epoch, ..Self::default() };
    }

    pub fn push(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        while self.entries.len() > ENTRIES || self.bytes > BYTES {
            let Some(dropped) = self.entries.pop_front() else { break };
            self.bytes -= dropped.bytes();
        }
    }

    /// For a cursor that is behind the newest change.
    pub fn after(&self, epoch: u64, revision: Revision) -> Ahead {
        let at = self.entries.partition_point(|entry| entry.prev_revision < revision);
        let next = || self.entries.range(at..);
        match self.entries.get(at) {
            Some(entry) if entry.prev_revision == revision && epoch == self.epoch => {}
            _ => return Ahead::Merge,
        }
        if next().len() > AT_ONCE {
            return Ahead::Merge;
        }
        let frames: Vec<_> = next().map_while(|entry| entry.delta.clone()).collect();
        match frames.len() {
            0 => Ahead::TooLong,
            count => Ahead::Frames(join(frames), self.entries[at + count - 1].revision),
        }
    }

    /// Kills and restores after a revision; `None` when the ring does not reach back so far.
    pub fn kills_after(&self, epoch: u64, revision: Revision) -> Option<Bytes> {
        let first = self.entries.front()?;
        if epoch != self.epoch || first.prev_revision > revision {
            return None;
        }
        let at = self.entries.partition_point(|entry| entry.revision <= revision);
        let notices: Vec<_> = self.entries.range(at..).map(|entry| entry.kills.clone()).filter(|kills| !kills.is_empty()).collect();
        Some(join(notices))
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        self.delta.as_ref().map_or(0, Bytes::len) + self.kills.len()
    }
}

/// A single one is shared, not copied.
fn join(mut frames: Vec<Bytes>) -> Bytes {
    if frames.len() <= 1 {
        return frames.pop().unwrap_or_default();
    }
    let mut joined = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
    frames.iter().for_each(|frame| joined.extend_from_slice(frame));
    joined.freeze()
}

/// Notices of the kill lane, end to end.
pub fn notices(epoch: u64, kills: &[Kill], now_us: i64) -> Bytes {
    let notice = |kill: &Kill| v1::KillNotice { epoch, kill: Some(kill.clone().into()), server_time_us: now_us };
    join(kills.iter().map(|kill| frame::encode(&notice(kill))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(revision: Revision, text: &'static str) -> Entry {
        let delta = Some(Bytes::from_static(text.as_bytes()));
        Entry { prev_revision: revision - 1, revision, delta, kills: Bytes::new() }
    }

    fn ring(texts: &[&'static str]) -> Ring {
        let mut ring = Ring::default();
        ring.restart(1);
        texts.iter().zip(1..).for_each(|(text, revision)| ring.push(entry(revision, text)));
        ring
    }

    #[test]
    fn everybody_gets_the_same_bytes() {
        let ring = ring(&["a", "b"]);
        let frames = || match ring.after(1, 1) {
            Ahead::Frames(bytes, 2) => bytes,
            other => panic!("{other:?}"),
        };
        assert_eq!(frames().as_ptr(), frames().as_ptr());
        assert_eq!(frames(), "b");
    }

    #[test]
    fn a_few_changes_come_in_order_and_many_are_merged() {
        assert_eq!(ring(&["a", "b", "c"]).after(1, 0), Ahead::Frames(Bytes::from_static(b"abc"), 3));
        assert_eq!(ring(&["a", "b", "c", "d", "e"]).after(1, 0), Ahead::Merge);
    }

    #[test]
    fn a_cursor_between_two_changes_or_of_another_epoch_is_merged() {
        let mut ring = ring(&["a"]);
        ring.push(Entry { prev_revision: 1, revision: 4, ..entry(4, "b") });
        assert_eq!(ring.after(1, 2), Ahead::Merge);
        assert_eq!(ring.after(2, 1), Ahead::Merge);
        assert_eq!(ring.after(1, 1), Ahead::Frames(Bytes::from_static(b"b"), 4));
    }

    #[test]
    fn what_does_not_fit_into_a_message_is_said_to_be_so() {
        let mut ring = ring(&["a"]);
        ring.push(Entry { delta: None, ..entry(2, "") });
        assert_eq!(ring.after(1, 0), Ahead::Frames(Bytes::from_static(b"a"), 1));
        assert_eq!(ring.after(1, 1), Ahead::TooLong);
    }

    #[test]
    fn the_ring_is_bounded_by_number_and_by_bytes() {
        let mut ring = Ring::default();
        (1..=3000).for_each(|revision| ring.push(entry(revision, "x")));
        assert_eq!(ring.entries.len(), ENTRIES);
        let large = Bytes::from(vec![0; 1 << 20]);
        (3001..=3020).for_each(|revision| ring.push(Entry { delta: Some(large.clone()), ..entry(revision, "") }));
        assert!(ring.bytes <= BYTES && ring.entries.len() <= 8, "{} bytes in {} entries", ring.bytes, ring.entries.len());
    }

    #[test]
    fn kills_are_found_from_any_revision_that_the_ring_reaches() {
        let mut ring = ring(&["a", "b", "c"]);
        ring.push(Entry { kills: Bytes::from_static(b"k4"), ..entry(4, "d") });
        ring.push(Entry { kills: Bytes::from_static(b"k5"), ..entry(5, "e") });
        assert_eq!(ring.kills_after(1, 0), Some(Bytes::from_static(b"k4k5")));
        assert_eq!(ring.kills_after(1, 4), Some(Bytes::from_static(b"k5")));
        assert_eq!(ring.kills_after(1, 5), Some(Bytes::new()));
        ring.entries.pop_front();
        assert_eq!(ring.kills_after(1, 0), None);
        assert_eq!(ring.kills_after(2, 5), None);
    }
}
