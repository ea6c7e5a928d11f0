//! The audit chain shows every alteration of the store.

use std::sync::Arc;

use yardarm::control::audit::Verdict;
use yardarm::control::ledger::{Command, Retention};
use yardarm::control::store::{Batch, Memory, Order, Range, Store as _};
use yardarm::flag::ItemName;

use crate::ledger::world::*;

/// A history with every kind of change in it.
async fn history(store: Arc<Memory>) -> World {
    let world = World::on(store, Retention::default()).await;
    world.apply("segments: { s: { included: [u] } }").await;
    world.apply(&flags(&[("a", "on"), ("b", "on")])).await;
    world.kill("a").await;
    world.commit(restore("a", None)).await.unwrap();
    world.apply(&flags(&[("a", "off")])).await;
    world.commit(revert(ItemName::flag("a"), 3)).await.unwrap();
    world.commit(delete(ItemName::flag("b"))).await.unwrap();
    world.commit(Command::CopyEnvironment { from: ENVIRONMENT.into(), to: "staging".into() }).await.unwrap();
    world
}

async fn entries(store: &Memory, range: Range) -> Vec<(String, Vec<u8>)> {
    let entries = store.view().await.unwrap().range(range, Order::Ascending, usize::MAX).await.unwrap();
    entries.into_iter().map(|entry| (entry.key, entry.value.to_vec())).collect()
}

/// What the ledger says of a copy of the store in which one entry is different; `None`: is missing.
async fn verdict_with(all: &[(String, Vec<u8>)], key: &str, value: Option<Vec<u8>>, world: &World) -> Verdict {
    let mut batch = Batch::default();
    all.iter().for_each(|(key, value)| batch.put(key.clone(), value.clone()));
    let store = Arc::new(Memory::new());
    store.commit(0, batch).await.unwrap();
    let ledger = yardarm::control::Ledger::open(store.clone(), world.clock.clone()).await.unwrap();
    let mut batch = Batch::default();
    match value {
        Some(value) => batch.put(key, value),
        None => batch.delete(key),
    }
    store.commit(1, batch).await.unwrap();
    ledger.verify_audit().await.unwrap()
}

#[tokio::test]
async fn an_untouched_history_is_intact() {
    let store = Arc::new(Memory::new());
    let world = history(store.clone()).await;
    let verdict = world.ledger.verify_audit().await.unwrap();
    assert_eq!((verdict.entries, verdict.broken), (9, None));
    let newest = world.ledger.audit(None, 1, |_| true).await.unwrap().remove(0);
    assert_eq!(verdict.head_hash, newest.hash);
}

#[tokio::test]
async fn any_altered_record_is_found_where_it_is() {
    let store = Arc::new(Memory::new());
    let world = history(store.clone()).await;
    let all = entries(&store, Range::all()).await;
    for (index, (key, value)) in entries(&store, Range::under("audit/")).await.into_iter().enumerate() {
        let seq = index as u64 + 1;
        // Every seventh byte, another one in each record.
        for at in (index % 7..value.len()).step_by(7) {
            let mut altered = value.clone();
            altered[at] ^= 1;
            let broken = verdict_with(&all, &key, Some(altered), &world).await.broken.expect("an alteration is found");
            assert_eq!(broken.seq, seq, "byte {at}: {}", broken.problem);
        }
        let broken = verdict_with(&all, &key, None, &world).await.broken.expect("a gap is found");
        assert_eq!(broken.seq, seq);
    }
}

#[tokio::test]
async fn an_altered_definition_of_the_past_is_found() {
    let store = Arc::new(Memory::new());
    let world = history(store.clone()).await;
    let all = entries(&store, Range::all()).await;
    let mut altered = 0;
    for (key, mut value) in entries(&store, Range::under("env/prod/version/")).await {
        // The definition stands at the end. Versions of kills and deletions have none.
        if !value.ends_with(b"}}") || value.windows(22).any(|window| window == b"\"has_definition\":false}") {
            continue;
        }
        let at = value.len() - 3;
        value[at] ^= 1;
        let verdict = verdict_with(&all, &key, Some(value), &world).await;
        assert!(verdict.broken.is_some_and(|broken| broken.problem.contains("was altered")), "{key}");
        altered += 1;
    }
    assert!(altered >= 4, "{altered}");
}

#[tokio::test]
async fn a_tail_that_was_cut_off_is_found() {
    let store = Arc::new(Memory::new());
    let world = history(store.clone()).await;
    let all = entries(&store, Range::all()).await;
    let verdict = verdict_with(&all, &format!("audit/{:016x}", 9), None, &world).await;
    assert_eq!((verdict.entries, verdict.broken.unwrap().seq), (8, 9));
}

#[tokio::test]
async fn a_record_says_who_what_when_why_and_between_which_definitions() {
    let world = history(Arc::new(Memory::new())).await;
    let records = world.ledger.audit(None, 100, |_| true).await.unwrap();
    let told: Vec<_> = records.iter().map(|record| (record.seq, record.action.as_str(), record.detail.as_str())).collect();
    let epoch = world.ledger.head(ENVIRONMENT).unwrap().borrow().position.epoch;
    let copied = format!("from prod at {epoch:x}/8");
    assert_eq!(
        told,
        [
            (9, "copy-environment", copied.as_str()),
            (8, "delete", ""),
            (7, "revert", "to revision 3"),
            (6, "apply", ""),
            (5, "restore", ""),
            (4, "kill", ""),
            (3, "apply", ""),
            (2, "apply", ""),
            (1, "create-environment", "")
        ]
    );
    let apply = &records[3];
    assert_eq!((apply.actor.as_str(), apply.reason.as_str(), apply.environment.as_str()), ("ana", "because", ENVIRONMENT));
    assert_eq!((apply.at_us, apply.position.revision), (START_US, 6));
    let [change] = &world.ledger.item_changes(apply, usize::MAX).await.unwrap()[..] else { panic!("one flag was applied") };
    let (before, after) = (change.before.clone(), change.after.clone());
    let bytes = before.as_ref().unwrap().len() + after.as_ref().unwrap().len();
    for (most, is_told) in [(bytes, true), (bytes - 1, false), (0, false)] {
        assert_eq!(world.ledger.item_changes(apply, most).await.unwrap()[0].before.is_some(), is_told, "{most} of {bytes} bytes");
    }
    assert_ne!(before, after);
    assert_eq!(apply.changes[0].before, Some(yardarm::control::audit::sha256(&before.unwrap())));
    assert_eq!(apply.changes[0].after, Some(yardarm::control::audit::sha256(&after.unwrap())));
    let kill = &records[5];
    assert_eq!(kill.changes[0].before, kill.changes[0].after);
}

#[tokio::test]
async fn the_log_is_read_backwards_in_pages_and_by_choice() {
    let world = World::new().await;
    for n in 0..150 {
        world.apply(&flags(&[(if n % 2 == 0 { "even" } else { "odd" }, if n % 4 < 2 { "on" } else { "off" })])).await;
    }
    let seqs = |records: Vec<yardarm::control::audit::Record>| records.into_iter().map(|record| record.seq).collect::<Vec<_>>();
    let all = seqs(world.ledger.audit(None, 1000, |_| true).await.unwrap());
    assert_eq!(all, (1..=151).rev().collect::<Vec<_>>());
    assert_eq!(seqs(world.ledger.audit(Some(100), 3, |_| true).await.unwrap()), [99, 98, 97]);
    let odd = world.ledger.audit(None, 1000, |record| record.changes.iter().any(|touched| touched.item.key == "odd")).await.unwrap();
    assert_eq!(odd.len(), 75);
    assert_eq!(seqs(world.ledger.audit(Some(1), 3, |_| true).await.unwrap()), [0; 0]);
}
