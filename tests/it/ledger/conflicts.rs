//! Optimistic concurrency, turns, and two control planes on one store.

use std::sync::Arc;

use yardarm::control::ledger::{Command, Conflicting, Error, Retention};
use yardarm::control::store::Memory;
use yardarm::flag::{Digest, ItemName};

use super::world::*;

#[tokio::test]
async fn a_conflict_says_which_key_who_when_and_at_which_revision() {
    let world = World::new().await;
    let seen = world.apply(&flags(&[("a", "on"), ("b", "on")])).await;
    world.clock.advance_us(5_000_000);
    let theirs = world.commit_as("ben", apply(&flags(&[("a", "off")]))).await.unwrap().position.revision;
    let refused = world.commit(apply_expecting("flags: { a: { variants: { x: 1 }, defaultVariant: x } }", seen)).await;
    let Err(Error::Conflict { expected, changed }) = refused else { panic!("{refused:?}") };
    let conflicting = Conflicting { item: ItemName::flag("a"), revision: theirs, actor: "ben".into(), at_us: START_US + 5_000_000 };
    assert_eq!((expected, changed), (seen, vec![conflicting]));
}

#[tokio::test]
async fn only_touched_keys_conflict() {
    let world = World::new().await;
    let seen = world.apply(&flags(&[("a", "on"), ("b", "on")])).await;
    world.apply(&flags(&[("a", "off")])).await;
    world.commit(apply_expecting(&flags(&[("b", "off")]), seen)).await.unwrap();
    world.commit(apply_expecting(&flags(&[("a", "off")]), seen)).await.expect("they made the very change that I want");
    world.commit(apply_expecting(&flags(&[("c", "off")]), seen)).await.expect("c is new to everybody");
}

#[tokio::test]
async fn a_key_that_was_deleted_meanwhile_conflicts() {
    let world = World::new().await;
    let seen = world.apply(&flags(&[("a", "on")])).await;
    world.commit(delete(ItemName::flag("a"))).await.unwrap();
    assert!(matches!(world.commit(apply_expecting(&flags(&[("a", "off")]), seen)).await, Err(Error::Conflict { .. })));
    let seen = world.revision();
    world.commit(apply_expecting(&flags(&[("a", "off")]), seen)).await.unwrap();
}

#[tokio::test]
async fn every_write_can_name_what_it_saw() {
    let world = World::new().await;
    let seen = world.apply(&flags(&[("a", "on")])).await;
    world.apply(&flags(&[("a", "off")])).await;
    let (environment, item, expect) = (ENVIRONMENT.to_owned(), ItemName::flag("a"), Some(seen));
    let late = [
        Command::Delete { environment: environment.clone(), item: item.clone(), expect },
        Command::Revert { environment: environment.clone(), item, to: seen, expect },
    ];
    for command in late {
        assert!(matches!(world.commit(command.clone()).await, Err(Error::Conflict { .. })), "{command:?}");
    }
    world.kill("a").await;
    let restore = Command::Restore { environment, flag: "a".into(), percent: None, expect: Some(3) };
    assert!(matches!(world.commit(restore).await, Err(Error::Conflict { .. })), "the writer has not seen the kill");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_commits_are_carried_out_one_after_the_other() {
    const WRITERS: usize = 64;
    let world = World::new().await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| {
            let world = world.clone();
            tokio::spawn(async move {
                world.apply(&flags(&[(&format!("f{n}"), "on"), ("shared", if n % 2 == 0 { "on" } else { "off" })])).await
            })
        })
        .collect();
    let mut revisions = Vec::new();
    for writer in writers {
        revisions.push(writer.await.unwrap());
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (2..2 + WRITERS as u64).collect::<Vec<_>>());
    let state = world.ledger.state(ENVIRONMENT).unwrap();
    assert_eq!((state.items.len(), state.digest), (WRITERS + 1, Digest::of(&state.items, &[])));
}

#[tokio::test]
async fn a_kill_waits_for_the_change_in_progress_and_for_no_other() {
    let gate = Gate::new();
    let world = World::on(gate.clone(), Retention::default()).await;
    world.apply(&flags(&[("a", "on")])).await;
    gate.close();
    let mut applies = Vec::new();
    for n in 0..5 {
        applies.push(tokio::spawn({
            let world = world.clone();
            async move { world.apply(&flags(&[(&format!("f{n}"), "on")])).await }
        }));
        if n == 0 {
            gate.reached().await;
        }
    }
    // The four behind the first are planned on other threads; let them all queue up.
    while applies.iter().any(|apply| apply.is_finished()) || world.ledger.waiting() < 4 {
        tokio::task::yield_now().await;
    }
    let kill = tokio::spawn({
        let world = world.clone();
        async move { world.kill("a").await }
    });
    while world.ledger.waiting() < 5 {
        tokio::task::yield_now().await;
    }
    gate.open();
    assert_eq!(kill.await.unwrap(), 4, "right after the one that was in progress");
    for apply in applies {
        apply.await.unwrap();
    }
    assert_eq!(world.revision(), 8);
}

#[tokio::test]
async fn two_control_planes_on_one_store_do_not_overwrite_each_other() {
    let store = Arc::new(Memory::new());
    let one = World::on(store.clone(), Retention::default()).await;
    let other = World::open(store, Retention::default()).await;
    one.apply(&flags(&[("a", "on")])).await;
    other.apply(&flags(&[("b", "on")])).await;
    one.kill("b").await;
    let refused = other.commit(apply_expecting(&flags(&[("a", "off")]), 1)).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    other.apply(&flags(&[("c", "on")])).await;
    assert!(other.is_killed("b"));
    one.apply(&flags(&[("d", "on")])).await;
    let (mine, theirs) = (one.ledger.state(ENVIRONMENT).unwrap(), other.ledger.state(ENVIRONMENT).unwrap());
    assert_eq!((mine.position.revision, theirs.position.revision), (6, 5));
    let delta = one.ledger.delta(ENVIRONMENT, 5, 6).unwrap().unwrap();
    assert_eq!(delta.upserts[0].name, ItemName::flag("d"));
    assert_eq!(one.ledger.verify_audit().await.unwrap().broken, None);
}
