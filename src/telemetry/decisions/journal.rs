//! What one answering thread has noted and nobody has fetched yet.
//!
//! Only its thread writes to a journal, and the task that writes the log takes it away whole: noting is a copy of a few texts into memory
//! that is there already. When it is full, further events are dropped and counted.

use crate::flag::{ErrorCode, Reason, Revision, limits};

use super::line::Evaluation;

/// Of one thread, between two rounds.
pub const MOST_EVENTS: usize = 16 * 1024;
/// Flag keys, variants, rules and targeting keys of them, in bytes. With [`MOST_EVENTS`] a journal is 3 MB at most, and there are two a
/// thread: one is written to while the other is read.
pub const MOST_TEXT_BYTES: usize = 2 * 1024 * 1024;

#[derive(Debug, Default)]
pub struct Journal {
    events: Vec<Event>,
    texts: String,
    lost: u64,
    /// What stands of it: the rest belongs to answers that were not given yet.
    kept: Mark,
    now_us: i64,
    /// Nothing is written to the log at present, so nothing is noted.
    pub is_paused: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    events: usize,
    texts: usize,
    lost: u64,
}

/// The texts lie one behind the other: flag, variant, rule, targeting key.
#[derive(Debug, Clone, Copy)]
struct Event {
    time_us: i64,
    revision: Revision,
    bucket: Option<u32>,
    flag: u32,
    variant: Option<u32>,
    rule: Option<u32>,
    key: Option<u32>,
    reason: Reason,
    error: Option<ErrorCode>,
    enabled: bool,
}

impl Journal {
    /// What is noted next happens at this time.
    pub fn begin(&mut self, now_us: i64) {
        self.now_us = now_us;
    }

    #[inline]
    pub fn note(&mut self, seen: &Evaluation<'_>) {
        let Evaluation { time_us: _, flag, variant, enabled, key, rule, bucket, revision, reason, error } = *seen;
        // No flag has a longer key, in flagd's place neither, and a caller may ask for anything.
        let flag = &flag[..flag.floor_char_boundary(limits::FLAGD_NAME_BYTES)];
        let len = |text: Option<&str>| text.map_or(0, str::len);
        let more = flag.len() + len(variant) + len(rule) + len(key);
        if self.is_paused || self.events.len() >= MOST_EVENTS || self.texts.len() + more > MOST_TEXT_BYTES {
            self.lost += 1;
            return;
        }
        let mut put = |text: &str| {
            self.texts.push_str(text);
            text.len() as u32
        };
        let (flag, variant, rule, key) = (put(flag), variant.map(&mut put), rule.map(&mut put), key.map(&mut put));
        self.events.push(Event { time_us: self.now_us, revision, bucket, flag, variant, rule, key, reason, error, enabled });
    }

    /// The answers that were noted are given.
    pub fn keep(&mut self) {
        self.kept = Mark { events: self.events.len(), texts: self.texts.len(), lost: self.lost };
    }

    /// They are not: a batch that met a change is decided again.
    pub fn forget(&mut self) {
        let Mark { events, texts, lost } = self.kept;
        self.events.truncate(events);
        self.texts.truncate(texts);
        self.lost = lost;
    }

    /// Takes all that stands, and leaves `empty` to write on.
    pub fn take(&mut self, empty: Self) -> Self {
        self.forget();
        std::mem::replace(self, empty)
    }

    /// For the next time that it is to be `empty`: the memory stays.
    pub fn clear(&mut self) {
        self.kept = Mark::default();
        self.forget();
    }

    pub fn is_empty(&self) -> bool {
        self.kept.events == 0 && self.kept.lost == 0
    }

    /// Events that found no room, or a pause.
    pub fn lost(&self) -> u64 {
        self.kept.lost
    }

    pub fn len(&self) -> usize {
        self.kept.events
    }

    pub fn iter(&self) -> impl Iterator<Item = Evaluation<'_>> {
        let mut rest = &*self.texts;
        self.events.iter().map(move |event| {
            let Event { time_us, revision, bucket, flag, variant, rule, key, reason, error, enabled } = *event;
            let mut text = |len: u32| {
                let (text, behind) = rest.split_at(len as usize);
                rest = behind;
                text
            };
            let (flag, variant, rule, key) = (text(flag), variant.map(&mut text), rule.map(&mut text), key.map(&mut text));
            Evaluation { time_us, flag, variant, enabled, key, rule, bucket, revision, reason, error }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen<'a>(flag: &'a str, key: Option<&'a str>) -> Evaluation<'a> {
        Evaluation {
            time_us: 5,
            flag,
            variant: Some("on"),
            enabled: true,
            key,
            rule: None,
            bucket: Some(7),
            revision: 3,
            reason: Reason::Split,
            error: None,
        }
    }

    #[test]
    fn what_was_noted_comes_out_as_it_went_in() {
        let mut journal = Journal::default();
        journal.begin(5);
        let bare = Evaluation { variant: None, rule: Some(""), bucket: None, error: Some(ErrorCode::TypeMismatch), ..seen("b", None) };
        for one in [seen("a", Some("ana")), bare, seen("", Some("")), seen("ä", Some("ö"))] {
            journal.note(&one);
        }
        journal.keep();
        let taken = journal.take(Journal::default());
        assert_eq!(taken.iter().collect::<Vec<_>>(), [seen("a", Some("ana")), bare, seen("", Some("")), seen("ä", Some("ö"))]);
        assert!(journal.is_empty());
    }

    #[test]
    fn what_was_not_answered_is_not_taken() {
        let mut journal = Journal::default();
        journal.begin(5);
        journal.note(&seen("a", None));
        journal.keep();
        journal.note(&seen("b", None));
        journal.forget();
        journal.note(&seen("c", None));
        let taken = journal.take(Journal::default());
        assert_eq!(taken.iter().map(|seen| seen.flag).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_full_journal_drops_and_counts_by_events_and_by_bytes() {
        let mut journal = Journal::default();
        (0..MOST_EVENTS + 10).for_each(|_| journal.note(&seen("a", Some("ana"))));
        journal.keep();
        assert_eq!((journal.len(), journal.lost()), (MOST_EVENTS, 10));
        journal.clear();
        assert!(journal.is_empty());

        let long = "k".repeat(MOST_TEXT_BYTES / 2);
        (0..3).for_each(|_| journal.note(&seen("a", Some(&long))));
        journal.keep();
        assert_eq!((journal.len(), journal.lost()), (1, 2));
    }

    #[test]
    fn while_it_is_paused_events_are_only_counted() {
        let mut journal = Journal { is_paused: true, ..Journal::default() };
        journal.note(&seen("a", None));
        journal.keep();
        assert_eq!((journal.len(), journal.lost()), (0, 1));
    }

    #[test]
    fn the_key_of_an_unknown_flag_is_cut_to_what_a_key_may_be() {
        let mut journal = Journal::default();
        journal.note(&seen(&"ä".repeat(1_000), None));
        journal.keep();
        assert_eq!(journal.iter().next().unwrap().flag.len(), limits::FLAGD_NAME_BYTES);
    }
}
