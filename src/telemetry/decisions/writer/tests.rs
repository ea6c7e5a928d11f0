//! Rounds over real files.

use std::fs;
use std::path::Path;

use serde_json::Value as Json;

use super::*;
use crate::flag::{ErrorCode, Reason};

const NOW: i64 = 1_795_224_612_000_000;

fn log(dir: &Path, more: Args) -> (Writer, Handle) {
    let args = Args { dir: Some(dir.to_owned()), salt: Some("0123456789abcdef".to_owned()), ..more };
    let place = Place { pod: "pod-1".to_owned(), environment: "prod".to_owned(), salt_file: None };
    let (writer, handle, _) = open(&args, place, NOW).unwrap().unwrap();
    (writer, handle)
}

fn journal(events: impl IntoIterator<Item = (u64, Option<ErrorCode>)>) -> Journal {
    let mut journal = Journal::default();
    journal.begin(NOW);
    for (revision, error) in events {
        journal.note(&Evaluation {
            time_us: NOW,
            flag: "checkout",
            variant: error.is_none().then_some("on"),
            enabled: error.is_none(),
            key: Some("ana"),
            rule: None,
            bucket: None,
            revision,
            reason: if error.is_none() { Reason::Static } else { Reason::Error },
            error,
        });
    }
    journal.keep();
    journal
}

fn lines(dir: &Path) -> Vec<Json> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let text: String = files
        .iter()
        .filter(|path| crate::telemetry::decisions::is_of_the_log(path))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn count(count: &std::sync::atomic::AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

#[test]
fn every_event_is_accounted_for() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, handle) = log(dir.path(), Args { sample: vec!["checkout=0".parse().unwrap()], ..Args::default() });
    let failed = Some(ErrorCode::TypeMismatch);
    writer.round(&[journal([(1, None), (1, None), (2, None)]), journal([(1, failed), (1, failed)])], NOW);
    let counts = handle.counts();
    writer.flush(NOW);
    assert_eq!((count(&counts.received), count(&counts.duplicates), count(&counts.sampled_out)), (5, 2, 1));
    assert_eq!(count(&counts.written), 2);
    let kept: Vec<_> = lines(dir.path()).iter().map(|line| (line["revision"].as_u64(), line["errorCode"].clone())).collect();
    assert_eq!(kept, [(Some(1), Json::Null), (Some(1), Json::from("TYPE_MISMATCH"))]);
    assert_eq!(count(&counts.file_bytes), fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum::<u64>());
}

#[test]
fn an_outcome_is_a_line_of_its_own_kind() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, handle) = log(dir.path(), Args::default());
    let outcome =
        Outcome { flag: "checkout", variant: Some("on"), enabled: true, key: Some("ana"), metric: "conversion", value: 1.5, error: true };
    handle.record_outcome(&outcome, NOW);
    writer.round(&[journal([(1, None)])], NOW);
    writer.flush(NOW);
    let lines = lines(dir.path());
    let [evaluation, outcome] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(evaluation["key"], outcome["key"], "the same person has another name");
    assert_eq!(
        outcome,
        &serde_json::json!({
            "time": "2026-11-21T01:30:12.000000Z", "kind": "outcome", "flag": "checkout", "variant": "on", "enabled": true,
            "key": evaluation["key"], "metric": "conversion", "value": 1.5, "error": true, "pod": "pod-1", "environment": "prod",
        })
    );
}

#[test]
fn outcomes_beyond_the_queue_are_dropped_and_counted_and_nobody_waits() {
    let dir = tempfile::tempdir().unwrap();
    let (_writer, handle) = log(dir.path(), Args::default());
    let outcome = Outcome { flag: "a", variant: None, enabled: false, key: None, metric: "m", value: 0.0, error: false };
    (0..MOST_OUTCOMES + 3).for_each(|_| handle.record_outcome(&outcome, NOW));
    assert_eq!(handle.counts().lost(Lost::Buffer), 3);
}

#[test]
fn the_limit_turns_into_steps_and_calm_turns_them_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, handle) = log(dir.path(), Args::default());
    let counts = handle.counts();
    let failed = Some(ErrorCode::TypeMismatch);
    let mut now = NOW;
    let second = |writer: &mut Writer, journals: &[Journal], now: &mut i64| {
        writer.round(journals, *now);
        *now += SECOND_US;
        writer.spent(Duration::ZERO, *now);
    };
    for (flood, expected) in [(0_u64, 1), (1, 2), (2, 3)] {
        second(&mut writer, &[journal((0..12_000).map(|number| (flood * 12_000 + number, failed)))], &mut now);
        assert_eq!(counts.step(), expected);
    }
    assert_eq!(counts.lost(Lost::Limit), 3 * 2_000);
    assert!(writer.is_paused());
    let paused = {
        let mut journal = Journal::default();
        journal.is_paused = true;
        journal.note(&Evaluation { error: None, ..journal_event() });
        journal.keep();
        journal
    };
    second(&mut writer, &[paused], &mut now);
    assert_eq!((count(&counts.held_back), counts.lost(Lost::Buffer)), (1, 0), "what is paused is held back, not lost");
    (0..40).for_each(|_| second(&mut writer, &[], &mut now));
    assert_eq!(counts.step(), 0);
    writer.flush(now);
    assert_eq!(count(&counts.written), 30_000);
    assert_eq!(lines(dir.path()).len(), 30_000);
}

fn journal_event() -> Evaluation<'static> {
    Evaluation {
        time_us: NOW,
        flag: "a",
        variant: None,
        enabled: false,
        key: None,
        rule: None,
        bucket: None,
        revision: 1,
        reason: Reason::Static,
        error: None,
    }
}

#[test]
fn a_directory_in_the_way_of_which_something_is_loses_lines_and_counts_them() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("log");
    let (mut writer, handle) = log(&dir, Args::default());
    fs::remove_dir_all(&dir).unwrap();
    fs::write(&dir, "in the way").unwrap();
    writer.round(&[journal([(1, None), (2, None)])], NOW);
    writer.flush(NOW);
    assert_eq!(handle.counts().lost(Lost::Disk), 2);
    fs::remove_file(&dir).unwrap();
    writer.round(&[journal([(3, None)])], NOW + SECOND_US);
    writer.flush(NOW + SECOND_US);
    assert_eq!((handle.counts().lost(Lost::Disk), count(&handle.counts().written)), (2, 1));
    assert_eq!(lines(&dir)[0]["revision"], 3);
}

#[test]
fn lines_wait_for_a_second_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _handle) = log(dir.path(), Args::default());
    writer.round(&[journal([(1, None)])], NOW + 1);
    assert_eq!(lines(dir.path()).len(), 0);
    writer.round(&[], NOW + SECOND_US);
    assert_eq!(lines(dir.path()).len(), 1);
}

#[test]
fn without_a_directory_and_a_collector_there_is_no_log() {
    let place = Place { pod: String::new(), environment: String::new(), salt_file: None };
    assert!(open(&Args::default(), place, NOW).unwrap().is_none());
}

#[test]
fn the_dice_fall_evenly() {
    let below = (0..100_000).filter(|number| mixed(*number) < u64::MAX / 10).count();
    assert!((9_500..10_500).contains(&below), "{below}");
}
