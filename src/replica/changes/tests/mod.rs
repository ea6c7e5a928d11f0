mod any_history;

use super::*;
use ChangeKind::{Deleted, Killed, PrerequisiteChanged, Restored, Updated};

fn entry(key: &str, kind: ChangeKind, killed: bool) -> Entry {
    let (tags, tags_before) = (Vec::new(), Vec::new());
    Entry { key: key.into(), kind, killed, revision: 0, definition: Bytes::new(), tags, tags_before, is_new: false }
}

fn at(revision: Revision) -> Moment {
    Moment { position: Position { epoch: 0, revision }, origin_time_us: 0 }
}

fn record(list: &mut ChangeList, entry: Entry, moment: Moment) {
    match entry.kind {
        PrerequisiteChanged => list.record(Vec::new(), Some(vec![entry]), moment),
        _ => list.record(vec![entry], Some(Vec::new()), moment),
    };
}

/// The first change is at revision 1.
fn list(changes: &[(&str, ChangeKind, bool)]) -> ChangeList {
    let mut list = ChangeList::default();
    for (number, (key, kind, killed)) in changes.iter().enumerate() {
        record(&mut list, entry(key, *kind, *killed), at(number as u64 + 1));
    }
    list
}

fn start() -> Cursor {
    ChangeList::default().head()
}

fn told(changes: &Changes) -> Vec<(&str, ChangeKind)> {
    changes.notes.iter().map(|(kind, note)| (&*note.key, *kind)).collect()
}

/// What a reader of keys hears that comes back with a revision.
fn told_after(list: &ChangeList, revision: Revision) -> Vec<(String, ChangeKind)> {
    let cursor = list.resume(at(revision).position).unwrap().without_prerequisites();
    let changes = list.after(cursor, 100);
    assert!(!changes.lost);
    told(&changes).into_iter().map(|(key, kind)| (key.to_owned(), kind)).collect()
}

#[test]
fn a_slow_reader_finds_the_latest_state_of_a_key_once() {
    let list = list(&[("a", Updated, false), ("b", Updated, false), ("a", Updated, false), ("a", Deleted, false)]);
    assert_eq!(told(&list.after(start(), 100)), [("b", Updated), ("a", Deleted)]);
}

#[test]
fn a_kill_is_first_in_line_whatever_the_limit() {
    let list = list(&[("a", Updated, false), ("b", Updated, false), ("c", Killed, true)]);
    let first = list.after(start(), 1);
    assert_eq!((told(&first), first.more), (vec![("c", Killed)], true));
    let rest = list.after(first.cursor, 100);
    assert_eq!((told(&rest), rest.more), (vec![("a", Updated), ("b", Updated)], false));
}

#[test]
fn many_kills_are_handed_out_a_few_at_a_time_and_all_of_them_before_anything_else() {
    let mut list = list(&[("a", Updated, false)]);
    let keys: Vec<_> = (0..100).map(|number| format!("k{number:02}")).collect();
    list.record(keys.iter().map(|key| entry(key, Killed, true)).collect(), Some(Vec::new()), at(2));
    let (mut cursor, mut heard) = (start(), Vec::new());
    loop {
        let changes = list.after(cursor, 1);
        assert!(changes.notes.len() <= KILLS_AT_ONCE);
        heard.extend(changes.notes.iter().map(|(_, note)| note.key.to_string()));
        cursor = changes.cursor;
        if !changes.more {
            break;
        }
    }
    assert_eq!(heard, [keys, vec!["a".to_owned()]].concat());
}

#[test]
fn a_killed_flag_that_was_edited_later_is_still_told_as_killed() {
    let list = list(&[("a", Killed, true), ("a", Updated, true)]);
    assert_eq!(told(&list.after(start(), 100)), [("a", Killed)]);
}

#[test]
fn a_restored_flag_that_was_edited_later_is_still_told_as_restored() {
    let list = list(&[("a", Restored, false), ("b", Updated, false), ("a", Updated, false)]);
    assert_eq!(told(&list.after(start(), 100)), [("a", Restored), ("b", Updated)]);
    // In its old place: a reader that got as far as `b` and comes back has heard of it.
    let first = list.after(start(), 1);
    assert_eq!(told(&first), [("a", Restored)]);
    assert_eq!(told_after(&list, 1), [("b".to_owned(), Updated), ("a".to_owned(), Updated)]);
}

#[test]
fn an_edit_after_a_kill_that_was_told_is_an_update() {
    let mut list = list(&[("a", Killed, true)]);
    let seen = list.after(start(), 100).cursor;
    record(&mut list, entry("a", Updated, true), at(2));
    assert_eq!(told(&list.after(seen, 100)), [("a", Updated)]);
}

#[test]
fn kill_then_restore_is_told_as_a_restore() {
    let list = list(&[("a", Killed, true), ("a", Restored, false)]);
    assert_eq!(told(&list.after(start(), 100)), [("a", Restored)]);
}

#[test]
fn a_flag_under_the_key_of_a_deleted_one_was_never_restored() {
    let list = list(&[("a", Killed, true), ("a", Restored, false), ("a", Deleted, false), ("a", Updated, false)]);
    assert_eq!(told(&list.after(start(), 100)), [("a", Updated)]);
}

#[test]
fn a_changed_prerequisite_does_not_hide_a_change_of_the_flag() {
    let list = list(&[("a", Updated, false), ("a", PrerequisiteChanged, false)]);
    assert_eq!(told(&list.after(start(), 100)), [("a", Updated), ("a", PrerequisiteChanged)]);
    let cursor = list.resume(at(1).position).unwrap();
    assert_eq!(told(&list.after(cursor, 100)), [("a", PrerequisiteChanged)]);
    assert_eq!(told(&list.after(cursor.without_prerequisites(), 100)), []);
}

#[test]
fn more_dependents_than_can_be_listed_concern_only_readers_of_prerequisites_and_the_kill_comes_first() {
    let mut list = list(&[("a", Updated, false)]);
    let seen = list.after(start(), 100).cursor;
    list.record(vec![entry("base", Killed, true)], None, at(2));
    for (cursor, lost) in [(seen, true), (seen.without_prerequisites(), false)] {
        let changes = list.after(cursor, 100);
        assert_eq!((told(&changes), changes.lost), (vec![("base", Killed)], lost));
        let next = list.after(changes.cursor, 100);
        assert_eq!((told(&next), next.lost), (vec![], false));
    }
    assert_eq!(told_after(&list, 1), [("base".to_owned(), Killed)]);
}

#[test]
fn a_reader_resumes_after_the_revision_that_it_saw() {
    let list = list(&[("a", Updated, false), ("b", Updated, false), ("c", Updated, false)]);
    assert_eq!(told_after(&list, 2), [("c".to_owned(), Updated)]);
    assert_eq!(list.resume(Position { epoch: 1, revision: 2 }), None);
}

#[test]
fn a_resumed_reader_hears_of_a_kill_and_of_an_update_before_a_prerequisite_changed() {
    for (kind, killed) in [(Killed, true), (Updated, false)] {
        let list = list(&[("z", Updated, false), ("a", kind, killed), ("base", Updated, false), ("a", PrerequisiteChanged, killed)]);
        assert_eq!(told_after(&list, 1), [("a".to_owned(), kind), ("base".to_owned(), Updated)]);
    }
}

#[test]
fn a_resumed_reader_hears_of_a_kill_before_an_edit_as_a_kill_and_first() {
    let list = list(&[("z", Updated, false), ("a", Killed, true), ("z", Updated, false), ("a", Updated, true)]);
    assert_eq!(told_after(&list, 1), [("a".to_owned(), Killed), ("z".to_owned(), Updated)]);
    assert_eq!(told_after(&list, 2), [("z".to_owned(), Updated), ("a".to_owned(), Updated)]);
}

#[test]
fn what_changes_where_the_log_does_not_move_is_missed_by_whoever_was_told_of_that_position() {
    let mut list = list(&[("a", Updated, false)]);
    record(&mut list, Entry { revision: 2, ..entry("a", Killed, true) }, at(1));
    assert_eq!(told_after(&list, 1), [("a".to_owned(), Killed)]);
    // The kill was of another epoch and is void.
    record(&mut list, entry("a", Restored, false), at(1));
    assert_eq!(told_after(&list, 1), [("a".to_owned(), Restored)]);
    list.record(Vec::new(), Some(Vec::new()), at(2));
    assert_eq!(told_after(&list, 2), []);
}

#[test]
fn a_reader_that_was_further_than_this_replica_hears_what_comes_ahead_of_the_log() {
    let mut list = list(&[("a", Updated, false)]);
    let cursor = list.resume(at(5).position).unwrap();
    record(&mut list, Entry { revision: 6, ..entry("a", Killed, true) }, at(1));
    assert_eq!(told(&list.after(cursor, 100)), [("a", Killed)]);
}

#[test]
fn a_reader_that_slept_through_a_resync_starts_from_a_snapshot() {
    let mut list = list(&[("a", Updated, false)]);
    let cursor = list.head();
    list.forget(Vec::new(), Some(Vec::new()), at(9));
    let changes = list.after(cursor, 100);
    assert!(changes.lost);
    assert!(!list.after(changes.cursor, 100).lost);
    assert_eq!(list.resume(at(8).position), None);
}

#[test]
fn a_resync_hides_no_kill_from_whoever_slept_and_repeats_none_to_whoever_did_not() {
    let kills = [("told", Killed, true), ("missed", Killed, true), ("back", Killed, true)];
    let mut list = list(&kills);
    let resumed = list.resume(at(1).position).unwrap();
    let awake = list.head();
    let changed = vec![entry("new", Killed, true), entry("back", Restored, false), entry("missed", Updated, true)];
    // The new epoch began again at a lower revision.
    list.forget(changed, Some(Vec::new()), Moment { position: Position { epoch: 1, revision: 1 }, origin_time_us: 0 });
    let changes = list.after(resumed, 100);
    assert_eq!((told(&changes), changes.lost), (vec![("missed", Killed), ("new", Killed)], true));
    let changes = list.after(awake, 100);
    assert_eq!((told(&changes), changes.lost), (vec![("new", Killed)], true));
    assert_eq!(told(&list.after(changes.cursor, 100)), []);
}

#[test]
fn a_kill_that_is_ahead_of_a_state_is_missed_by_whoever_resumes_at_that_state() {
    let mut list = ChangeList::default();
    let ahead = Entry { revision: 8, ..entry("ahead", Killed, true) };
    list.forget(
        vec![ahead, entry("long_ago", Killed, true), entry("a", Updated, false)],
        Some(vec![entry("b", PrerequisiteChanged, false)]),
        at(7),
    );
    let cursor = list.resume(at(7).position).unwrap();
    assert_eq!(told(&list.after(cursor, 100)), [("ahead", Killed), ("b", PrerequisiteChanged)]);
}

#[test]
fn tombstones_are_bounded() {
    let mut list = ChangeList::default();
    for number in 0..TOMBSTONES + 5 {
        record(&mut list, entry(&number.to_string(), Deleted, false), at(number as u64 + 1));
    }
    assert_eq!((list.by_place.len(), list.by_key.len(), list.tombstones.len()), (TOMBSTONES, TOMBSTONES, TOMBSTONES));
    assert!(list.after(start(), 1).lost);
    assert_eq!(list.resume(at(4).position), None);
    assert!(list.resume(at(5).position).is_some());
}

#[test]
fn the_tags_that_a_flag_had_are_remembered_up_to_a_number_and_then_any_may_have_been_among_them() {
    let mut list = ChangeList::default();
    let tag = |number: usize| vec![format!("build-{number}").into_boxed_str()];
    for number in 1..2_000 {
        let entry = Entry { tags: tag(number), tags_before: tag(number - 1), ..entry("a", Updated, false) };
        record(&mut list, entry, at(number as u64));
        let former = &list.by_key["a"].former_tags;
        assert!(former.may_have_been(&["build-0".to_owned()]));
        assert_eq!(former.may_have_been(&["core".to_owned()]), number > 64);
    }
    assert!(format!("{:?}", list.by_key["a"].former_tags).len() < 100);
}
