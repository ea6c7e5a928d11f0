//! What each command does.

use yardarm::control::ledger::{Actor, Command, Error};
use yardarm::flag::{Digest, ItemName};

use super::world::*;

#[tokio::test]
async fn every_change_is_the_next_revision_and_the_digest_is_that_of_the_state() {
    let world = World::new().await;
    assert_eq!(world.revision(), 1, "the environment was created");
    assert_eq!(world.apply(&flags(&[("a", "on"), ("b", "off")])).await, 2);
    assert_eq!(world.kill("a").await, 3);
    world.commit(restore("a", None)).await.unwrap();
    world.commit(delete(ItemName::flag("b"))).await.unwrap();
    let state = world.ledger.state(ENVIRONMENT).unwrap();
    assert_eq!((state.position.revision, state.items.len(), state.kills.len()), (5, 1, 0));
    assert_eq!(state.digest, Digest::of(&state.items, &state.kills));
    assert_eq!(world.ledger.head(ENVIRONMENT).unwrap().borrow().digest, state.digest);
}

#[tokio::test]
async fn a_document_that_changes_nothing_is_no_change() {
    let world = World::new().await;
    let revision = world.apply(&flags(&[("a", "on"), ("b", "off")])).await;
    world.apply(&flags(&[("c", "on")])).await;
    let again = world.commit(apply(&flags(&[("b", "off"), ("a", "on")]))).await.unwrap();
    assert_eq!((again.changed, again.position.revision, again.changes.len()), (false, revision, 0));
    assert_eq!(world.revision(), 3);
}

#[tokio::test]
async fn what_a_document_does_not_name_is_left_alone() {
    let world = World::new().await;
    world.apply(&flags(&[("a", "on"), ("b", "off")])).await;
    let before = world.definition("a");
    let changed = world.commit(apply(&flags(&[("b", "on")]))).await.unwrap();
    assert_eq!(changed.changes.iter().map(|change| change.item.key.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(world.definition("a"), before);
}

#[tokio::test]
async fn a_kill_is_idempotent_and_answers_the_one_that_stands() {
    let world = World::new().await;
    world.apply(&flags(&[("a", "on"), ("b", "on")])).await;
    let first = world.commit(kill("a")).await.unwrap();
    world.apply(&flags(&[("b", "off")])).await;
    let second = world.commit_as("ben", kill("a")).await.unwrap();
    assert_eq!((first.changed, second.changed), (true, false));
    assert_eq!(second.position, first.position);
    assert_eq!(world.ledger.kills(ENVIRONMENT)[0].actor, "ana");
}

#[tokio::test]
async fn a_kill_stands_whatever_is_applied() {
    let world = World::new().await;
    world.apply(&flags(&[("a", "on")])).await;
    world.kill("a").await;
    world.apply(&flags(&[("a", "off")])).await;
    world.commit(revert(ItemName::flag("a"), 2)).await.unwrap();
    assert!(world.is_killed("a"));
}

#[tokio::test]
async fn a_kill_needs_nothing_but_key_actor_and_reason() {
    let world = World::new().await;
    world.apply(&flags(&[("a", "on")])).await;
    for (actor, reason, field) in [("", "why", "intent.actor"), ("ana", "", "intent.reason"), ("ana", " \n", "intent.reason")] {
        match world.ledger.commit(&Actor::new(actor), reason, kill("a")).await {
            Err(Error::Malformed { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{other:?}"),
        }
    }
    world.ledger.commit(&Actor::new("ana"), "why", kill("a")).await.unwrap();
}

#[tokio::test]
async fn an_unknown_name_is_answered_with_the_nearest() {
    let world = World::new().await;
    world.apply(&flags(&[("checkout", "on"), ("search", "on")])).await;
    let refused = world.commit(kill("chekout")).await.unwrap_err();
    assert_eq!(refused.to_string(), "there is no flag chekout in `prod`; did you mean `checkout`?");
    let refused = world.commit(delete(ItemName::flag("payments"))).await.unwrap_err();
    assert_eq!(refused.to_string(), "there is no flag payments in `prod`");
    let refused = world.commit(Command::Kill { environment: "prdo".into(), flag: "checkout".into() }).await.unwrap_err();
    assert_eq!(refused.to_string(), "there is no environment `prdo`; did you mean `prod`?");
}

const RAMP: &str =
    "flags: { ramp: { variants: { on: true, off: false }, defaultVariant: off, rules: [ { split: { weights: { on: 50, off: 50 } } } ] } }";

#[tokio::test]
async fn a_restore_with_a_percentage_is_one_change() {
    let world = World::new().await;
    world.apply(RAMP).await;
    let killed = world.kill("ramp").await;
    let restored = world.commit(restore("ramp", Some(5.0))).await.unwrap();
    assert_eq!(restored.position.revision, killed + 1);
    assert!(!world.is_killed("ramp"));
    assert!(world.definition("ramp").contains('5'), "{}", world.definition("ramp"));
    let delta = world.ledger.delta(ENVIRONMENT, killed, killed + 1).unwrap().unwrap();
    assert_eq!((delta.upserts.len(), delta.kills.len(), delta.kills[0].killed), (1, 1, false));
}

#[tokio::test]
async fn a_restore_of_what_is_not_killed_never_moves_a_percentage() {
    let world = World::new().await;
    world.apply(RAMP).await;
    world.kill("ramp").await;
    let restored = world.commit(restore("ramp", Some(5.0))).await.unwrap();
    for percent in [None, Some(5.0)] {
        let again = world.commit(restore("ramp", percent)).await.unwrap();
        assert_eq!((again.changed, again.position), (false, restored.position), "{percent:?}");
    }
    assert!(matches!(world.commit(restore("ramp", Some(50.0))).await, Err(Error::NotKilled { .. })));
    for percent in [-1.0, 100.1, f64::NAN, f64::INFINITY] {
        assert!(matches!(world.commit(restore("ramp", Some(percent))).await, Err(Error::Invalid(_))), "{percent}");
    }
}

#[tokio::test]
async fn every_problem_comes_back_at_once_and_nothing_is_changed() {
    let world = World::new().await;
    world.apply(&flags(&[("checkout", "on")])).await;
    let document = "
        segments: { inner: { when: [ { segment: nowhere } ] } },
        flags: {
            a: { variants: { on: true }, defaultVariant: onn },
            b: { variants: { on: true }, defaultVariant: on, rules: [ { when: [ { segment: bta } ], serve: on } ] },
            c: { variants: { on: true }, defaultVariant: on, prerequisites: [ { flag: chekout, variants: [on] } ] },
            d: { variants: { on: true }, defaultVariant: on }
        }";
    let Err(Error::Invalid(problems)) = world.commit(apply(document)).await else { panic!("a broken document was taken") };
    let told = problems.to_string();
    for expected in ["segments.inner", "flags.a.defaultVariant", "flags.b.rules[0]", "did you mean \"checkout\"?"] {
        assert!(told.contains(expected), "{expected} is missing in:\n{told}");
    }
    assert_eq!(world.revision(), 2);
    assert!(world.ledger.get(ENVIRONMENT, &ItemName::flag("d")).is_err());
}

#[tokio::test]
async fn a_cycle_through_a_flag_that_is_not_in_the_document_is_found() {
    let world = World::new().await;
    let needs = |key: &str| format!("prerequisites: [ {{ flag: {key}, variants: [on] }} ]");
    world.apply(&format!("flags: {{ {}, {} }}", flag("a", "on", ""), flag("b", "on", &needs("a")))).await;
    let refused = world.commit(apply(&format!("flags: {{ {} }}", flag("a", "on", &needs("b"))))).await.unwrap_err();
    assert!(refused.to_string().contains("cycle"), "{refused}");
}

#[tokio::test]
async fn a_variant_that_another_flag_relies_on_cannot_be_taken_away() {
    let world = World::new().await;
    let needs = "prerequisites: [ { flag: a, variants: [on] } ]";
    world.apply(&format!("flags: {{ {}, {} }}", flag("a", "on", ""), flag("b", "on", needs))).await;
    let refused = world.commit(apply("flags: { a: { variants: { yes: true }, defaultVariant: yes } }")).await.unwrap_err();
    assert!(refused.to_string().contains("flags.b.prerequisites[0]"), "{refused}");
}

#[tokio::test]
async fn a_segment_that_breaks_a_flag_that_reads_it_is_refused() {
    let world = World::new().await;
    let conditions = |count: usize| vec!["{ attribute: plan, equals: beta }"; count].join(", ");
    let segment = |count: usize| format!("segments: {{ beta: {{ when: [ {} ] }} }}", conditions(count));
    // 250 rules with 100 conditions each are more than a flag may ask.
    let rules = vec!["{ when: [ { segment: beta } ], serve: on }"; 250].join(", ");
    world.apply(&format!("{}, flags: {{ {} }}", segment(1), flag("a", "off", &format!("rules: [ {rules} ]")))).await;
    let refused = world.commit(apply(&segment(100))).await.unwrap_err();
    assert!(refused.to_string().contains("flags.a"), "{refused}");
    world.apply(&segment(2)).await;
}

#[tokio::test]
async fn what_is_referred_to_cannot_be_deleted() {
    let world = World::new().await;
    let document = format!(
        "segments: {{ inner: {{ included: [u] }}, outer: {{ when: [ {{ segment: inner }} ] }} }}, flags: {{ {}, {}, {} }}",
        flag("a", "on", ""),
        flag("b", "on", "prerequisites: [ { flag: a, variants: [on] } ]"),
        flag("c", "on", "rules: [ { when: [ { segment: outer } ], serve: on } ]")
    );
    world.apply(&document).await;
    let used = [
        (ItemName::flag("a"), "flag a is in use by flag b"),
        (ItemName::segment("inner"), "segment inner is in use by segment outer"),
        (ItemName::segment("outer"), "segment outer is in use by flag c"),
    ];
    for (item, told) in used {
        assert_eq!(world.commit(delete(item)).await.unwrap_err().to_string(), told);
    }
    for item in [ItemName::flag("b"), ItemName::flag("a"), ItemName::flag("c"), ItemName::segment("outer"), ItemName::segment("inner")] {
        world.commit(delete(item)).await.unwrap();
    }
    assert_eq!(world.ledger.state(ENVIRONMENT).unwrap().digest, Digest::default());
    let reads = flag("d", "on", "rules: [ { when: [ { segment: outer } ], serve: on } ]");
    assert!(matches!(world.commit(apply(&format!("flags: {{ {reads} }}"))).await, Err(Error::Invalid(_))), "outer is gone");
}

#[tokio::test]
async fn the_kill_of_a_deleted_flag_goes_with_it_and_everybody_is_told() {
    let world = World::new().await;
    world.apply(&flags(&[("a", "on")])).await;
    let killed = world.kill("a").await;
    let deleted = world.commit(delete(ItemName::flag("a"))).await.unwrap().position.revision;
    let delta = world.ledger.delta(ENVIRONMENT, killed, deleted).unwrap().unwrap();
    assert_eq!((delta.removed.len(), delta.kills.len(), delta.kills[0].killed), (1, 1, false));
    world.apply(&flags(&[("a", "on")])).await;
    assert!(!world.is_killed("a"));
}

#[tokio::test]
async fn a_revert_brings_back_the_definition_of_a_revision() {
    let world = World::new().await;
    let first = world.apply(&flags(&[("a", "on")])).await;
    let original = world.definition("a");
    let second = world.apply(&flags(&[("a", "off")])).await;
    let killed = world.kill("a").await;
    world.commit(restore("a", None)).await.unwrap();
    let reverted = world.commit(revert(ItemName::flag("a"), first)).await.unwrap();
    assert_eq!((reverted.position.revision, world.definition("a")), (6, original.clone()));
    world.commit(revert(ItemName::flag("a"), killed)).await.unwrap();
    assert_ne!(world.definition("a"), original, "at the revision of the kill the definition was the second");

    world.commit(delete(ItemName::flag("a"))).await.unwrap();
    assert!(matches!(world.commit(revert(ItemName::flag("a"), 8)).await, Err(Error::UnknownRevision { .. })), "deleted at 8");
    assert!(matches!(
        world.commit(revert(ItemName::flag("a"), 1)).await,
        Err(Error::UnknownRevision { .. }) | Err(Error::UnknownItem { .. })
    ));
    assert!(matches!(world.commit(revert(ItemName::flag("a"), 99)).await, Err(Error::UnknownRevision { .. })));
    world.commit(revert(ItemName::flag("a"), second)).await.unwrap();
    assert_ne!(world.definition("a"), original);
}

#[tokio::test]
async fn a_revert_to_what_no_longer_compiles_is_refused() {
    let world = World::new().await;
    let reads = flag("a", "on", "rules: [ { when: [ { segment: s } ], serve: on } ]");
    let first = world.apply(&format!("segments: {{ s: {{ included: [u] }} }}, flags: {{ {reads} }}")).await;
    world.apply(&flags(&[("a", "on")])).await;
    world.commit(delete(ItemName::segment("s"))).await.unwrap();
    assert!(matches!(world.commit(revert(ItemName::flag("a"), first)).await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn the_history_of_an_item_names_every_change() {
    let world = World::new().await;
    world.apply("segments: { s: { included: [u] } }").await;
    world.apply(&flags(&[("a", "on")])).await;
    world.apply(&flags(&[("a", "off"), ("b", "on")])).await;
    world.kill("a").await;
    world.commit_as("ben", restore("a", None)).await.unwrap();
    world.commit(delete(ItemName::flag("a"))).await.unwrap();
    let history = world.ledger.history(ENVIRONMENT, &ItemName::flag("a"), 10).await.unwrap();
    let told: Vec<_> = history.iter().map(|entry| (entry.revision, entry.action.as_str(), entry.actor.as_str())).collect();
    assert_eq!(told, [(7, "delete", "ana"), (6, "restore", "ben"), (5, "kill", "ana"), (4, "apply", "ana"), (3, "apply", "ana")]);
    assert_eq!((&history[0].after, &history[4].before), (&None, &None));
    assert_eq!((&history[2].before, &history[2].after), (&history[3].after, &history[3].after), "a kill leaves the definition");
    assert_ne!(history[3].before, history[3].after);
    assert_eq!(world.ledger.history(ENVIRONMENT, &ItemName::flag("a"), 2).await.unwrap().len(), 2);
    assert_eq!(world.ledger.history(ENVIRONMENT, &ItemName::segment("s"), 2).await.unwrap().len(), 1);
    assert!(matches!(world.ledger.history(ENVIRONMENT, &ItemName::flag("x"), 2).await, Err(Error::UnknownItem { .. })));
}

#[tokio::test]
async fn a_flag_is_replayed_with_the_segments_and_prerequisites_of_its_revision() {
    let world = World::new().await;
    let reads = "rules: [ { when: [ { segment: outer } ], serve: on } ], prerequisites: [ { flag: b, variants: [on] } ]";
    let segments = |key: &str| format!("segments: {{ inner: {{ included: [{key}] }}, outer: {{ when: [ {{ segment: inner }} ] }} }}");
    let first = world.apply(&format!("{}, flags: {{ {}, {} }}", segments("u1"), flag("a", "off", reads), flag("b", "on", ""))).await;
    world.apply(&format!("{}, flags: {{ {} }}", segments("u2"), flag("b", "off", ""))).await;
    let told = |replay: &yardarm::control::ledger::Replay| {
        let segments: Vec<_> = replay.segments.iter().map(|item| String::from_utf8_lossy(&item.definition).into_owned()).collect();
        (segments.join(" "), String::from_utf8_lossy(&replay.prerequisites[0].item.definition).into_owned())
    };
    let (then, now) =
        (world.ledger.replay(ENVIRONMENT, "a", Some(first)).await.unwrap(), world.ledger.replay(ENVIRONMENT, "a", None).await.unwrap());
    assert_eq!((then.segments.len(), then.prerequisites.len(), now.segments.len(), now.prerequisites.len()), (2, 1, 2, 1));
    assert!(told(&then).0.contains("u1") && !told(&then).0.contains("u2"), "{:?}", told(&then));
    assert!(told(&now).0.contains("u2") && !told(&now).0.contains("u1"), "{:?}", told(&now));
    assert_ne!(told(&then).1, told(&now).1);
}

#[tokio::test]
async fn environments_are_closed_worlds() {
    let world = World::new().await;
    world.apply(&flags(&[("a", "on")])).await;
    world.kill("a").await;
    let copied = world.commit(Command::CopyEnvironment { from: ENVIRONMENT.into(), to: "staging".into() }).await.unwrap();
    world.commit(Command::CreateEnvironment { name: "empty".into() }).await.unwrap();
    assert_eq!(copied.position.revision, 1);
    assert!(world.ledger.get("staging", &ItemName::flag("a")).unwrap().1.kill.is_some(), "a copy never runs what its original has stopped");
    world.commit(Command::Restore { environment: "staging".into(), flag: "a".into(), percent: None, expect: None }).await.unwrap();
    assert!(world.is_killed("a"));
    let told: Vec<_> = world.ledger.environments().into_iter().map(|info| (info.name, info.position.revision, info.flags)).collect();
    assert_eq!(told, [("empty".to_owned(), 1, 0), ("prod".to_owned(), 3, 1), ("staging".to_owned(), 2, 1)]);
    let epochs: std::collections::BTreeSet<_> = world.ledger.environments().into_iter().map(|info| info.position.epoch).collect();
    assert_eq!(epochs.len(), 3);
    let staging = world.ledger.state("staging").unwrap();
    assert_eq!(staging.digest, Digest::of(&staging.items, &staging.kills));
}

#[tokio::test]
async fn an_environment_is_made_once_and_has_a_name() {
    let world = World::new().await;
    for command in [
        Command::CreateEnvironment { name: ENVIRONMENT.into() },
        Command::CopyEnvironment { from: ENVIRONMENT.into(), to: ENVIRONMENT.into() },
    ] {
        assert!(matches!(world.commit(command).await, Err(Error::EnvironmentExists { .. })));
    }
    for name in ["", "a/b", "a b", "é", &"x".repeat(129)] {
        assert!(matches!(world.commit(Command::CreateEnvironment { name: name.into() }).await, Err(Error::Malformed { .. })), "{name:?}");
    }
}

#[tokio::test]
async fn a_plan_says_what_would_change_and_changes_nothing() {
    let world = World::new().await;
    world.apply(&flags(&[("a", "on")])).await;
    let planned = world.ledger.plan(apply(&flags(&[("a", "off"), ("b", "on")]))).await.unwrap();
    assert_eq!((planned.position.revision, planned.changed, planned.changes.len()), (2, true, 2));
    assert!(planned.changes[0].before.is_some() && planned.changes[1].before.is_none());
    assert_eq!(world.revision(), 2);
    let nothing = world.ledger.plan(apply(&flags(&[("a", "on")]))).await.unwrap();
    assert_eq!((nothing.changed, nothing.changes.len()), (false, 0));
    assert!(world.ledger.plan(kill("x")).await.is_err());
}
