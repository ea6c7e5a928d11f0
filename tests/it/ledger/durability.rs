//! Durable first, published after it; what a restart finds; what a failing store does.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use yardarm::control::ledger::{Actor, Error, Retention};
use yardarm::control::store;
use yardarm::flag::ItemName;

use super::world::*;

#[tokio::test]
async fn nothing_is_seen_before_it_is_durable() {
    let gate = Gate::new();
    let world = World::on(gate.clone(), Retention::default()).await;
    world.apply(&flags(&[("a", "on")])).await;
    let (mut head, before) = (world.ledger.head(ENVIRONMENT).unwrap(), world.ledger.state(ENVIRONMENT).unwrap());
    head.mark_unchanged();
    gate.close();
    let kill = tokio::spawn({
        let world = world.clone();
        async move { world.kill("a").await }
    });
    gate.reached().await;
    assert!(!head.has_changed().unwrap() && !kill.is_finished());
    assert_eq!(world.ledger.state(ENVIRONMENT).unwrap(), before);
    assert_eq!((world.ledger.kills(ENVIRONMENT), world.ledger.delta(ENVIRONMENT, 2, 3).unwrap()), (vec![], None));
    gate.open();
    timeout(PATIENCE, head.changed()).await.unwrap().unwrap();
    assert_eq!(head.borrow().position.revision, 3);
    assert!(world.is_killed("a"), "who is told of a head finds its state");
    assert_eq!(kill.await.unwrap(), 3);
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_stop_its_change() {
    let gate = Gate::new();
    let world = World::on(gate.clone(), Retention::default()).await;
    world.apply(&flags(&[("a", "on")])).await;
    let mut head = world.ledger.head(ENVIRONMENT).unwrap();
    head.mark_unchanged();
    gate.close();
    let ledger = world.ledger.clone();
    let kill = tokio::spawn(async move { ledger.commit(&Actor::new("ana"), "why", kill("a")).await });
    gate.reached().await;
    kill.abort();
    assert!(kill.await.unwrap_err().is_cancelled());
    gate.open();
    timeout(PATIENCE, head.changed()).await.unwrap().unwrap();
    assert!(world.is_killed("a"));
    world.apply(&flags(&[("b", "on")])).await;
}

#[tokio::test]
async fn a_change_that_was_not_written_is_not_seen_and_the_next_one_works() {
    let gate = Gate::new();
    let world = World::on(gate.clone(), Retention::default()).await;
    world.apply(&flags(&[("a", "on")])).await;
    gate.fail_next(Failure::BeforeWriting);
    let refused = world.commit(kill("a")).await;
    assert!(matches!(refused, Err(Error::Store(store::Error::Unavailable { .. }))), "{refused:?}");
    assert!(!world.is_killed("a"));
    assert_eq!(world.kill("a").await, 3);
    assert_eq!(world.ledger.verify_audit().await.unwrap().entries, 3);
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_published_all_the_same() {
    let gate = Gate::new();
    let world = World::on(gate.clone(), Retention::default()).await;
    world.apply(&flags(&[("a", "on")])).await;
    let mut head = world.ledger.head(ENVIRONMENT).unwrap();
    head.mark_unchanged();
    gate.fail_next(Failure::AfterWriting);
    assert!(world.commit(kill("a")).await.is_err());
    timeout(PATIENCE, head.changed()).await.expect("the ledger finds out by itself").unwrap();
    assert!(world.is_killed("a"));
    let again = world.commit(kill("a")).await.unwrap();
    assert_eq!((again.changed, again.position.revision), (false, 3));
    let delta = world.ledger.delta(ENVIRONMENT, 2, 3).unwrap().unwrap();
    assert_eq!((delta.kills.len(), delta.digest), (1, head.borrow().digest));
}

#[tokio::test]
async fn every_change_has_its_audit_record_and_every_record_its_change() {
    let gate = Gate::new();
    let world = World::on(gate.clone(), Retention::default()).await;
    for n in 0..20 {
        match n % 4 {
            1 => gate.fail_next(Failure::BeforeWriting),
            2 => gate.fail_next(Failure::AfterWriting),
            _ => {}
        }
        // Some are told that they failed.
        let _ = world.commit(apply(&flags(&[(&format!("f{n}"), "on")]))).await;
    }
    world.apply(&flags(&[("last", "on")])).await;
    let records = world.ledger.audit(None, 100, |_| true).await.unwrap();
    let mut revisions: Vec<_> = records.iter().map(|record| record.position.revision).collect();
    revisions.reverse();
    assert_eq!(revisions, (1..=world.revision()).collect::<Vec<_>>());
    for record in &records {
        for touched in &record.changes {
            let history = world.ledger.history(ENVIRONMENT, &touched.item, 10).await.unwrap();
            assert!(history.iter().any(|entry| entry.revision == record.position.revision));
        }
    }
}

#[tokio::test]
async fn a_restart_finds_everything() {
    let world = World::new().await;
    world.apply("segments: { s: { included: [u] } }").await;
    world.apply(&flags(&[("a", "on"), ("b", "on")])).await;
    let reads = flag("c", "on", "rules: [ { when: [ { segment: s } ], serve: on } ], prerequisites: [ { flag: a, variants: [on] } ]");
    world.apply(&format!("flags: {{ {reads} }}")).await;
    world.kill("a").await;
    world.commit(delete(ItemName::flag("b"))).await.unwrap();
    let after = world.reopened().await;
    assert_eq!(after.ledger.state(ENVIRONMENT), world.ledger.state(ENVIRONMENT));
    assert_eq!(after.ledger.environments(), world.ledger.environments());
    for from in 0..6 {
        assert_eq!(after.ledger.delta(ENVIRONMENT, from, 6).unwrap(), world.ledger.delta(ENVIRONMENT, from, 6).unwrap(), "from {from}");
    }
    assert!(matches!(after.commit(delete(ItemName::flag("a"))).await, Err(Error::InUse { .. })), "it knows who refers to what");
    assert!(matches!(after.commit(delete(ItemName::segment("s"))).await, Err(Error::InUse { .. })));
    after.apply(&format!("flags: {{ {} }}", flag("d", "on", "rules: [ { when: [ { segment: s } ], serve: on } ]"))).await;
    assert_eq!(after.revision(), 7);
}

#[tokio::test]
async fn the_log_is_kept_for_as_many_changes_and_as_long_as_was_asked() {
    let retention = Retention { changes: 5, age: Duration::from_secs(60) };
    let world = World::on(Arc::new(store::Memory::new()), retention).await;
    for n in 0..10 {
        world.apply(&flags(&[(&format!("f{n}"), "on")])).await;
    }
    let from = |world: &World, from| world.ledger.delta(ENVIRONMENT, from, world.revision()).unwrap();
    assert!(from(&world, 5).is_none() && from(&world, 6).is_some(), "11 changes, the last 5 are kept");
    let after = world.reopened().await;
    assert!(from(&after, 5).is_none() && from(&after, 6).is_some(), "the floor is as durable as the rest");

    world.clock.advance_us(60_000_001);
    world.apply(&flags(&[("late", "on")])).await;
    assert!(from(&world, 10).is_none() && from(&world, 11).is_some(), "all but the new one are too old");
    assert!(world.ledger.history(ENVIRONMENT, &ItemName::flag("f0"), 1).await.is_ok(), "history is not the log");
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_turn_time_round() {
    let world = World::new().await;
    world.clock.advance_us(1_000_000);
    world.apply(&flags(&[("a", "on")])).await;
    world.clock.advance_us(-60_000_000);
    world.apply(&flags(&[("b", "on")])).await;
    assert_eq!(world.ledger.head(ENVIRONMENT).unwrap().borrow().origin_time_us, START_US + 1_000_000);
}

#[tokio::test]
async fn a_store_of_another_layout_or_without_sense_is_refused() {
    use yardarm::control::Ledger;
    use yardarm::control::store::{Batch, Memory, Store as _};
    let spoil: [(&str, Option<&str>, &str); 5] = [
        ("format", Some("2"), "layout is number 2"),
        ("format", None, "which layout"),
        ("audit-head", Some("{}"), "audit record"),
        ("environment/prod", Some("{}"), "head of an environment"),
        ("env/prod/flag/a", Some("12345678{}"), "digest"),
    ];
    for (key, value, told) in spoil {
        let store = Arc::new(Memory::new());
        let world = World::on(store.clone(), Retention::default()).await;
        world.apply(&flags(&[("a", "on")])).await;
        let mut batch = Batch::default();
        match value {
            Some(value) => batch.put(key, value.as_bytes().to_vec()),
            None => batch.delete(key),
        }
        store.commit(2, batch).await.unwrap();
        match Ledger::open(store, world.clock.clone()).await {
            Err(Error::Store(store::Error::Corrupt { problem })) => assert!(problem.contains(told), "{key}: {problem}"),
            Err(other) => panic!("{key}: {other}"),
            Ok(_) => panic!("{key}: opened"),
        }
    }
}
