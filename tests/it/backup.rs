//! What was saved comes back, into any store, and nothing else does.

use std::sync::Arc;

use futures_util::StreamExt as _;
use yardarm::control::backup::Reader;
use yardarm::control::ledger::{Actor, Command, Error, Restored, Retention};
use yardarm::control::store::{Embedded, Memory};
use yardarm::flag::{Digest, ItemName, State};

use crate::ledger::world::*;

pub async fn backup(world: &World) -> Vec<u8> {
    let mut chunks = std::pin::pin!(world.ledger.backup().await.unwrap());
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        bytes.extend(chunk.unwrap());
    }
    bytes
}

pub async fn restore_backup(world: &World, bytes: &[u8]) -> Result<Restored, Error> {
    let mut reader = Reader::default();
    for chunk in bytes.chunks(1000) {
        reader.push(chunk).map_err(|problem| Error::BadBackup { problem })?;
    }
    world.ledger.restore_backup(&Actor::new("ana"), "disaster", reader).await
}

async fn filled() -> World {
    let world = World::new().await;
    world.apply("segments: { s: { included: [u] } }").await;
    world.apply(&flags(&[("a", "on"), ("b", "on")])).await;
    world.kill("b").await;
    world.apply(&flags(&[("a", "off")])).await;
    world.commit(Command::CopyEnvironment { from: ENVIRONMENT.into(), to: "staging".into() }).await.unwrap();
    world
}

/// What people see of a state: neither where it is nor when each part of it changed.
fn content(state: &State) -> (Vec<(String, Vec<u8>)>, Vec<String>) {
    let items = state.items.iter().map(|item| (item.name.to_string(), item.definition.to_vec())).collect();
    (items, state.kills.iter().map(|kill| kill.flag_key.clone()).collect())
}

fn is_sound(world: &World, environment: &str) -> State {
    let state = world.ledger.state(environment).unwrap();
    assert_eq!(state.digest, Digest::of(&state.items, &state.kills));
    state
}

#[tokio::test]
async fn a_new_store_takes_over_everything_with_its_history_and_audit_chain() {
    let old = filled().await;
    let saved = backup(&old).await;
    let dir = tempfile::tempdir().unwrap();
    let stores: [Arc<dyn yardarm::control::store::Store>; 2] = [Arc::new(Memory::new()), Arc::new(Embedded::open(dir.path()).unwrap())];
    for store in stores {
        // A control plane that was started once has an empty environment already.
        let new = World::open(store, Retention::default()).await;
        new.commit(Command::CreateEnvironment { name: "default".into() }).await.unwrap();
        let restored = restore_backup(&new, &saved).await.unwrap();
        assert_eq!((restored.environments, restored.kills_kept), (2, 0));
        for environment in [ENVIRONMENT, "staging"] {
            let (before, after) = (old.ledger.state(environment).unwrap(), is_sound(&new, environment));
            assert_eq!((&after.items, &after.kills), (&before.items, &before.kills));
            assert_eq!(after.position.epoch, restored.epoch);
            assert_ne!(after.position.epoch, before.position.epoch);
            assert!(after.position.revision > before.position.revision);
        }
        assert!(new.ledger.state("default").is_none(), "everything is replaced");
        let verdict = new.ledger.verify_audit().await.unwrap();
        assert_eq!((verdict.entries, verdict.broken), (6 + 3, None), "6 of the old store, and one for each environment that changed");
        let history = new.ledger.history(ENVIRONMENT, &ItemName::flag("a"), 10).await.unwrap();
        assert_eq!(history.len(), 2);
        new.commit(revert(ItemName::flag("a"), 3)).await.unwrap();
        new.commit(delete(ItemName::flag("b"))).await.unwrap();
        let after = new.reopened().await;
        assert_eq!(after.ledger.state(ENVIRONMENT), new.ledger.state(ENVIRONMENT));
        assert_eq!(after.ledger.verify_audit().await.unwrap().broken, None);
    }
}

#[tokio::test]
async fn a_store_goes_back_to_its_backup_in_one_audited_change() {
    let world = filled().await;
    let (saved, before) = (backup(&world).await, world.ledger.state(ENVIRONMENT).unwrap());
    world.apply(&flags(&[("a", "on"), ("new", "on")])).await;
    world.commit(delete(ItemName::segment("s"))).await.unwrap();
    world.commit(Command::CreateEnvironment { name: "later".into() }).await.unwrap();
    let mut head = world.ledger.head(ENVIRONMENT).unwrap();
    head.mark_unchanged();
    let gone = world.ledger.head("later").unwrap();
    let newest = world.revision();

    let restored = restore_backup(&world, &saved).await.unwrap();
    let after = is_sound(&world, ENVIRONMENT);
    assert_eq!(content(&after), content(&before));
    assert_eq!((after.position.epoch, after.position.revision), (restored.epoch, newest + 1));
    assert!(head.has_changed().unwrap() && head.borrow().position == after.position);
    assert!(gone.has_changed().is_err() && world.ledger.state("later").is_none());
    assert!(world.ledger.delta(ENVIRONMENT, newest - 1, newest + 1).unwrap().is_none(), "nobody resumes across an epoch");

    let records = world.ledger.audit(None, 3, |_| true).await.unwrap();
    assert!(records.iter().all(|record| record.action.as_str() == "restore-backup" && record.reason == "disaster"));
    let of_prod = records.iter().find(|record| record.environment == ENVIRONMENT).unwrap();
    let touched: Vec<_> = of_prod.changes.iter().map(|touched| touched.item.to_string()).collect();
    assert_eq!(touched, ["segment s", "flag a", "flag new"], "only what is different, each with its hashes");
    assert_eq!(world.ledger.verify_audit().await.unwrap().broken, None);
    let history = world.ledger.history(ENVIRONMENT, &ItemName::flag("a"), 10).await.unwrap();
    assert_eq!(history.iter().map(|entry| entry.action.as_str()).collect::<Vec<_>>(), ["restore-backup", "apply", "apply", "apply"]);

    world.commit(revert(ItemName::flag("a"), 6)).await.expect("what the restore replaced is not lost");
    world.apply(&format!("flags: {{ {} }}", flag("reads", "on", "rules: [ { when: [ { segment: s } ], serve: on } ]"))).await;
    let reopened = world.reopened().await;
    assert_eq!(reopened.ledger.state(ENVIRONMENT), world.ledger.state(ENVIRONMENT));
}

#[tokio::test]
async fn a_restore_does_not_bring_back_what_was_stopped_since() {
    let world = filled().await;
    let saved = backup(&world).await;
    world.kill("a").await;
    world.apply(&flags(&[("new", "on")])).await;
    world.kill("new").await;
    world.commit(restore("b", None)).await.unwrap();
    let restored = restore_backup(&world, &saved).await.unwrap();
    assert_eq!(restored.kills_kept, 1);
    let after = is_sound(&world, ENVIRONMENT);
    assert_eq!(content(&after).1, ["a", "b"], "a was killed after the backup, b is killed in it, new is gone");
}

#[tokio::test]
async fn a_backup_of_another_store_does_not_rewrite_the_audit_chain() {
    let (other, world) = (filled().await, World::new().await);
    world.apply(&flags(&[("mine", "on")])).await;
    let before = world.ledger.audit(None, 100, |_| true).await.unwrap();
    restore_backup(&world, &backup(&other).await).await.unwrap();
    let after = world.ledger.audit(None, 100, |_| true).await.unwrap();
    assert_eq!(&after[after.len() - before.len()..], before);
    assert_eq!(world.ledger.verify_audit().await.unwrap().broken, None);
    assert_eq!(content(&is_sound(&world, ENVIRONMENT)), content(&other.ledger.state(ENVIRONMENT).unwrap()));
    let theirs = other.ledger.verify_audit().await.unwrap();
    let hash: String = theirs.head_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(after[0].detail.ends_with(&format!("audit record {} {hash}", theirs.entries)), "{}", after[0].detail);
}

#[tokio::test]
async fn a_torn_or_altered_backup_is_refused_before_anything_is_replaced() {
    let world = filled().await;
    let saved = backup(&world).await;
    world.apply(&flags(&[("a", "on")])).await;
    let before = (world.ledger.environments(), world.ledger.state(ENVIRONMENT), world.ledger.verify_audit().await.unwrap());
    let mut broken = vec![Vec::new(), b"flags: {}".to_vec()];
    broken.extend((0..saved.len()).step_by(97).map(|length| saved[..length].to_vec()));
    broken.extend((0..saved.len()).step_by(89).map(|at| {
        let mut altered = saved.clone();
        altered[at] ^= 4;
        altered
    }));
    for bytes in broken {
        assert!(matches!(restore_backup(&world, &bytes).await, Err(Error::BadBackup { .. })));
    }
    assert_eq!((world.ledger.environments(), world.ledger.state(ENVIRONMENT), world.ledger.verify_audit().await.unwrap()), before);
}

/// Somebody who knows the format can make the checksum fit; what is inside must still make sense.
#[tokio::test]
async fn a_backup_that_is_whole_and_makes_no_sense_is_refused() {
    use yardarm::control::backup::Writer;
    use yardarm::control::store::{Order, Range, Store as _};
    let store = Arc::new(Memory::new());
    let source = World::on(store.clone(), Retention::default()).await;
    source.apply(&flags(&[("a", "on")])).await;
    source.kill("a").await;
    let entries = store.view().await.unwrap().range(Range::all(), Order::Ascending, usize::MAX).await.unwrap();
    let world = World::new().await;
    for (index, entry) in entries.iter().enumerate() {
        // Versions of which no record speaks are harmless, and a missing one is only forgotten history.
        for value in [None, Some(&b"{}"[..]), Some(&b""[..])] {
            if value.is_none() && entry.key.contains("/version/") {
                continue;
            }
            let mut writer = Writer::default();
            for (at, entry) in entries.iter().enumerate() {
                match (at == index, value) {
                    (true, None) => {}
                    (true, Some(value)) => writer.push(&yardarm::control::store::Entry { key: entry.key.clone(), value: value.into() }),
                    (false, _) => writer.push(entry),
                }
            }
            let refused = restore_backup(&world, &writer.finish()).await;
            assert!(matches!(refused, Err(Error::BadBackup { .. })), "{} = {value:?}: {refused:?}", entry.key);
        }
    }
    assert_eq!(world.revision(), 1);
}

#[tokio::test]
async fn a_backup_is_a_single_moment() {
    let gate = Gate::new();
    let world = World::on(gate.clone(), Retention::default()).await;
    world.apply(&flags(&[("a", "on")])).await;
    let chunks = world.ledger.backup().await.unwrap();
    world.apply(&flags(&[("a", "off"), ("b", "on")])).await;
    let bytes: Vec<u8> = chunks.map(|chunk| chunk.unwrap().to_vec()).collect::<Vec<_>>().await.concat();
    let new = World::open(Arc::new(Memory::new()), Retention::default()).await;
    restore_backup(&new, &bytes).await.unwrap();
    assert_eq!(new.ledger.state(ENVIRONMENT).unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_restore_that_the_store_refuses_changes_nothing() {
    let gate = Gate::new();
    let world = World::on(gate.clone(), Retention::default()).await;
    world.apply(&flags(&[("a", "on")])).await;
    let saved = backup(&world).await;
    world.apply(&flags(&[("a", "off")])).await;
    let before = world.ledger.state(ENVIRONMENT);
    gate.fail_next(Failure::BeforeWriting);
    assert!(matches!(restore_backup(&world, &saved).await, Err(Error::Store(_))));
    assert_eq!(world.ledger.state(ENVIRONMENT), before);
    restore_backup(&world, &saved).await.unwrap();
}
