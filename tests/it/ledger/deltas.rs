//! What a follower is told is what there is.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use yardarm::control::ledger::{Command, Retention};
use yardarm::control::store::Memory;
use yardarm::flag::{Delta, Digest, Item, ItemName, Kill, State};

use super::world::*;

/// A follower that knows nothing but what it is told.
#[derive(Debug, Clone, PartialEq)]
struct Follower {
    items: BTreeMap<ItemName, Item>,
    kills: BTreeMap<String, Kill>,
}

impl Follower {
    fn of(state: &State) -> Self {
        let items = state.items.iter().map(|item| (item.name.clone(), item.clone())).collect();
        Self { items, kills: state.kills.iter().map(|kill| (kill.flag_key.clone(), kill.clone())).collect() }
    }

    fn take(&mut self, delta: &Delta) {
        for item in &delta.upserts {
            self.items.insert(item.name.clone(), item.clone());
        }
        for name in &delta.removed {
            self.items.remove(name);
        }
        for kill in &delta.kills {
            match kill.killed {
                true => drop(self.kills.insert(kill.flag_key.clone(), kill.clone())),
                false => drop(self.kills.remove(&kill.flag_key)),
            }
        }
    }

    fn digest(&self) -> Digest {
        Digest::of(self.items.values(), self.kills.values())
    }
}

const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const VARIANTS: [&str; 2] = ["on", "off"];

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let key = prop::sample::select(KEYS.to_vec());
    let pairs = prop::collection::btree_map(key.clone(), prop::sample::select(VARIANTS.to_vec()), 1..3);
    let command = prop_oneof![
        4 => pairs.prop_map(|pairs| apply(&flags(&pairs.into_iter().collect::<Vec<_>>()))),
        2 => key.clone().prop_map(kill),
        2 => key.clone().prop_map(|key| restore(key, None)),
        2 => key.clone().prop_map(|key| delete(ItemName::flag(key))),
        1 => (key.clone(), 1_u64..30).prop_map(|(key, to)| revert(ItemName::flag(key), to)),
        1 => key.prop_map(|key| apply(&format!("segments: {{ s: {{ included: [{key}] }} }}"))),
    ];
    prop::collection::vec(command, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_state_and_a_delta_from_it_are_the_later_state(commands in commands(), reopen in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            let mut states = vec![world.ledger.state(ENVIRONMENT).unwrap()];
            for command in commands {
                // Many are refused: unknown flags, revisions that are yet to come.
                let committed = world.commit(command).await;
                if committed.is_ok_and(|committed| committed.changed) {
                    states.push(world.ledger.state(ENVIRONMENT).unwrap());
                }
            }
            if reopen {
                world = world.reopened().await;
            }
            let head = states.len() - 1;
            for (earlier, from) in states.iter().enumerate() {
                for (later, to) in states.iter().enumerate().skip(earlier + 1) {
                    let delta = world.ledger.delta(ENVIRONMENT, from.position.revision, to.position.revision).unwrap();
                    // A restart keeps the names of what changed, and the definitions of what there is now.
                    let Some(delta) = delta else {
                        assert!(reopen && later < head, "{} to {} of {}", from.position, to.position, states[head].position);
                        continue;
                    };
                    let mut follower = Follower::of(from);
                    follower.take(&delta);
                    assert_eq!(follower, Follower::of(to), "{} to {}", from.position, to.position);
                    assert_eq!((delta.digest, follower.digest()), (to.digest, to.digest));
                    assert_eq!((delta.prev_revision, delta.revision), (from.position.revision, to.position.revision));
                    assert_eq!(delta.origin_time_us, to.origin_time_us);
                }
            }
            assert_eq!(world.ledger.verify_audit().await.unwrap().broken, None);
        });
    }
}

#[tokio::test]
async fn a_delta_has_the_latest_state_of_each_key_once() {
    let world = World::new().await;
    for default in ["on", "off", "on", "off"] {
        world.apply(&flags(&[("a", default)])).await;
    }
    world.kill("a").await;
    world.commit(restore("a", None)).await.unwrap();
    world.kill("a").await;
    let delta = world.ledger.delta(ENVIRONMENT, 1, world.revision()).unwrap().unwrap();
    assert_eq!((delta.upserts.len(), delta.kills.len()), (1, 1));
    assert_eq!((delta.upserts[0].revision, delta.kills[0].revision, delta.kills[0].killed), (5, 8, true));
}

#[tokio::test]
async fn what_came_and_went_between_is_told_as_gone() {
    let world = World::new().await;
    world.apply(&flags(&[("a", "on")])).await;
    world.commit(delete(ItemName::flag("a"))).await.unwrap();
    let delta = world.ledger.delta(ENVIRONMENT, 1, 3).unwrap().unwrap();
    assert_eq!((delta.upserts.len(), delta.removed), (0, vec![ItemName::flag("a")]));
}

#[tokio::test]
async fn registers_are_told_newest_first_and_below_the_floor_those_that_stand() {
    let retention = Retention { changes: 4, ..Retention::default() };
    let world = World::on(Arc::new(Memory::new()), retention).await;
    world.apply(&flags(&[("a", "on"), ("b", "on"), ("c", "on")])).await;
    world.kill("a").await;
    world.kill("b").await;
    world.kill("c").await;
    world.commit(restore("b", None)).await.unwrap();
    let told = |after| -> Vec<_> {
        let kills = world.ledger.kills_after(ENVIRONMENT, after);
        kills.into_iter().map(|kill| (kill.flag_key, kill.revision, kill.killed)).collect()
    };
    let (a, b, c) = (("a".to_owned(), 3, true), ("b".to_owned(), 6, false), ("c".to_owned(), 5, true));
    assert_eq!(told(2), [b.clone(), c.clone(), a.clone()]);
    assert_eq!(told(5), [b]);
    assert_eq!(told(6), []);
    assert_eq!(told(1), [c.clone(), a.clone()], "below the floor");
    assert_eq!(told(99), [c, a], "ahead of the head");
}

#[tokio::test]
async fn there_is_no_delta_of_an_unknown_environment() {
    let world = World::new().await;
    assert!(world.ledger.delta("nowhere", 1, 2).is_err());
    assert!(world.ledger.state("nowhere").is_none() && world.ledger.head("nowhere").is_none());
}
