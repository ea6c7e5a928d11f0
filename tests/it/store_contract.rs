//! One contract for every store: what the ledger relies on.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use yardarm::control::store::{Batch, Edit, Embedded, Entry, Error, FILE_NAME, Memory, Order, Range, Store, scan};

/// Makes a new, empty store.
type Make = fn() -> Opened;

/// The store, and what has to live as long.
struct Opened {
    store: Arc<dyn Store>,
    _dir: Option<tempfile::TempDir>,
}

fn memory() -> Opened {
    Opened { store: Arc::new(Memory::new()), _dir: None }
}

fn embedded() -> Opened {
    let dir = tempfile::tempdir().unwrap();
    Opened { store: Arc::new(Embedded::open(dir.path()).unwrap()), _dir: Some(dir) }
}

macro_rules! contract {
    ($($promise:ident),+ $(,)?) => {
        mod memory_store {
            $(#[tokio::test] async fn $promise() { super::$promise(super::memory).await; })+
        }
        mod embedded_store {
            $(#[tokio::test] async fn $promise() { super::$promise(super::embedded).await; })+
        }
    };
}

contract![
    a_new_store_is_empty_at_version_zero,
    a_batch_is_seen_whole,
    a_commit_at_another_version_changes_nothing,
    only_one_of_many_writers_at_a_version_wins,
    a_view_does_not_move,
    ranges_are_ordered_bounded_and_cut_off,
    a_scan_reads_past_the_page,
    edits_take_effect_in_their_order,
    an_empty_batch_counts,
    a_large_batch_is_one_version,
    random_batches_leave_what_a_map_would_hold,
];

fn put(entries: &[(&str, &str)]) -> Batch {
    let mut batch = Batch::default();
    entries.iter().for_each(|(key, value)| batch.put(*key, value.as_bytes().to_vec()));
    batch
}

fn all() -> Range {
    Range { from: String::new(), to: "~".into() }
}

async fn keys(store: &dyn Store, range: Range, order: Order, limit: usize) -> Vec<String> {
    let view = store.view().await.unwrap();
    view.range(range, order, limit).await.unwrap().into_iter().map(|entry| entry.key).collect()
}

async fn a_new_store_is_empty_at_version_zero(make: Make) {
    let opened = make();
    let view = opened.store.view().await.unwrap();
    assert_eq!(view.version(), 0);
    assert_eq!(view.get("a").await.unwrap(), None);
    assert_eq!(view.range(all(), Order::Ascending, 10).await.unwrap(), []);
}

async fn a_batch_is_seen_whole(make: Make) {
    let Opened { store, .. } = &make();
    assert_eq!(store.commit(0, put(&[("a", "1"), ("b", "2")])).await.unwrap(), 1);
    let view = store.view().await.unwrap();
    assert_eq!(view.version(), 1);
    assert_eq!(view.get("a").await.unwrap(), Some(Bytes::from("1")));
    assert_eq!(view.get("b").await.unwrap(), Some(Bytes::from("2")));
}

async fn a_commit_at_another_version_changes_nothing(make: Make) {
    let Opened { store, .. } = &make();
    store.commit(0, put(&[("a", "1")])).await.unwrap();
    for wrong in [0, 2, u64::MAX] {
        let refused = store.commit(wrong, put(&[("a", "9"), ("b", "9")])).await;
        assert!(matches!(refused, Err(Error::Conflict { expected, found: 1 }) if expected == wrong), "{refused:?}");
    }
    let view = store.view().await.unwrap();
    assert_eq!(view.version(), 1);
    assert_eq!(view.get("a").await.unwrap(), Some(Bytes::from("1")));
    assert_eq!(view.get("b").await.unwrap(), None);
}

async fn only_one_of_many_writers_at_a_version_wins(make: Make) {
    let opened = make();
    for version in 0..5 {
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let store = Arc::clone(&opened.store);
                tokio::spawn(async move { store.commit(version, put(&[("winner", &writer.to_string())])).await })
            })
            .collect();
        let mut winners = 0;
        for writer in writers {
            match writer.await.unwrap() {
                Ok(reached) => {
                    assert_eq!(reached, version + 1);
                    winners += 1;
                }
                Err(Error::Conflict { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(winners, 1);
    }
}

async fn a_view_does_not_move(make: Make) {
    let Opened { store, .. } = &make();
    store.commit(0, put(&[("a", "1"), ("b", "1")])).await.unwrap();
    let before = store.view().await.unwrap();
    let mut batch = put(&[("a", "2"), ("c", "2")]);
    batch.delete("b");
    store.commit(1, batch).await.unwrap();
    assert_eq!(before.version(), 1);
    assert_eq!(before.get("a").await.unwrap(), Some(Bytes::from("1")));
    let seen: Vec<_> = before.range(all(), Order::Ascending, 10).await.unwrap().into_iter().map(|entry| entry.key).collect();
    assert_eq!(seen, ["a", "b"]);
    assert_eq!(keys(store.as_ref(), all(), Order::Ascending, 10).await, ["a", "c"]);
}

async fn ranges_are_ordered_bounded_and_cut_off(make: Make) {
    let Opened { store, .. } = &make();
    let entries = ["env/a/flag/x", "env/a/flag/y", "env/a-b/flag/x", "env/b/flag/x", "env/a/flag", "env/a/flag0"];
    store.commit(0, put(&entries.map(|key| (key, "")))).await.unwrap();
    let store = store.as_ref();
    assert_eq!(keys(store, Range::under("env/a/flag/"), Order::Ascending, 10).await, ["env/a/flag/x", "env/a/flag/y"]);
    assert_eq!(keys(store, Range::under("env/a/flag/"), Order::Descending, 10).await, ["env/a/flag/y", "env/a/flag/x"]);
    assert_eq!(keys(store, Range::under("env/a/flag/"), Order::Descending, 1).await, ["env/a/flag/y"]);
    assert_eq!(keys(store, Range::under("env/a/flag/").after("env/a/flag/x"), Order::Ascending, 9).await, ["env/a/flag/y"]);
    assert_eq!(keys(store, Range { from: "b".into(), to: "a".into() }, Order::Ascending, 9).await, [""; 0]);
    assert_eq!(keys(store, Range { from: "a".into(), to: "a".into() }, Order::Descending, 9).await, [""; 0]);
}

async fn a_scan_reads_past_the_page(make: Make) {
    let Opened { store, .. } = &make();
    let names: Vec<String> = (0..1500).map(|n| format!("n/{n:05}")).collect();
    let mut batch = put(&[("m", "")]);
    names.iter().for_each(|name| batch.put(name, Bytes::new()));
    store.commit(0, batch).await.unwrap();
    let view = store.view().await.unwrap();
    let mut seen = Vec::new();
    scan(view.as_ref(), Range::under("n/"), |Entry { key, .. }| {
        seen.push(key);
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(seen, names);
}

async fn edits_take_effect_in_their_order(make: Make) {
    let Opened { store, .. } = &make();
    store.commit(0, put(&[("d/1", "old"), ("d/2", "old"), ("e", "old")])).await.unwrap();
    let mut batch = put(&[("d/3", "gone"), ("e", "first")]);
    batch.delete_range(Range::under("d/"));
    batch.put("d/1", "new");
    batch.put("e", "second");
    batch.delete("absent");
    store.commit(1, batch).await.unwrap();
    let view = store.view().await.unwrap();
    assert_eq!(view.range(Range::under("d/"), Order::Ascending, 9).await.unwrap(), [Entry { key: "d/1".into(), value: "new".into() }]);
    assert_eq!(view.get("e").await.unwrap(), Some(Bytes::from("second")));
}

async fn an_empty_batch_counts(make: Make) {
    let Opened { store, .. } = &make();
    assert_eq!(store.commit(0, Batch::default()).await.unwrap(), 1);
    assert_eq!(store.view().await.unwrap().version(), 1);
}

async fn a_large_batch_is_one_version(make: Make) {
    let Opened { store, .. } = &make();
    let mut batch = Batch::default();
    (0..10_000).for_each(|n| batch.put(format!("flag/{n:05}"), vec![b'x'; 1024]));
    batch.put("big", vec![b'y'; 8 << 20]);
    assert_eq!(store.commit(0, batch).await.unwrap(), 1);
    let view = store.view().await.unwrap();
    assert_eq!(view.get("flag/09999").await.unwrap().unwrap().len(), 1024);
    assert_eq!(view.get("big").await.unwrap().unwrap().len(), 8 << 20);
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let key = "[a-c]/[a-c]{1,2}";
    let edit = prop_oneof![
        4 => (key, proptest::collection::vec(any::<u8>(), 0..4)).prop_map(|(key, value)| Edit::Put(key, value.into())),
        2 => key.prop_map(Edit::Delete),
        1 => (key, key).prop_map(|(from, to)| Edit::DeleteRange(Range { from, to })),
    ];
    proptest::collection::vec(edit, 0..12)
}

async fn random_batches_leave_what_a_map_would_hold(make: Make) {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(32));
    let strategy = proptest::collection::vec(edits(), 1..6);
    for _ in 0..runner.config().cases {
        let batches = strategy.new_tree(&mut runner).unwrap().current();
        let Opened { store, _dir } = make();
        let mut map = BTreeMap::new();
        for (version, edits) in batches.iter().enumerate() {
            for edit in edits {
                match edit.clone() {
                    Edit::Put(key, value) => drop(map.insert(key, value)),
                    Edit::Delete(key) => drop(map.remove(&key)),
                    Edit::DeleteRange(range) => map.retain(|key, _| !(range.from <= *key && *key < range.to)),
                }
            }
            store.commit(version as u64, Batch { edits: edits.clone() }).await.unwrap();
        }
        let held = store.view().await.unwrap().range(all(), Order::Ascending, usize::MAX).await.unwrap();
        let expected: Vec<_> = map.into_iter().map(|(key, value)| Entry { key, value }).collect();
        assert_eq!(held, expected, "{batches:?}");
    }
}

#[tokio::test]
async fn a_second_process_is_told_that_the_directory_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let first = Embedded::open(dir.path()).unwrap();
    match Embedded::open(dir.path()) {
        Err(Error::Locked { path }) => assert_eq!(path, dir.path().join(FILE_NAME)),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("two writers hold one file"),
    }
    drop(first);
    assert!(Embedded::open(dir.path()).is_ok());
}

#[tokio::test]
async fn a_reopened_store_finds_what_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    Embedded::open(dir.path()).unwrap().commit(0, put(&[("a", "1")])).await.unwrap();
    let store = Embedded::open(dir.path()).unwrap();
    let view = store.view().await.unwrap();
    assert_eq!((view.version(), view.get("a").await.unwrap()), (1, Some(Bytes::from("1"))));
}

#[test]
fn a_file_that_is_no_store_is_called_damaged() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FILE_NAME), vec![b'z'; 64 << 10]).unwrap();
    match Embedded::open(dir.path()) {
        Err(Error::Corrupt { problem }) => assert!(problem.contains(FILE_NAME), "{problem}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened garbage"),
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    match Embedded::open(&file) {
        Err(Error::Unavailable { problem }) => assert!(problem.contains(file.to_str().unwrap()), "{problem}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened a store in a file"),
    }
}
