//! The map of compiled flags and its writer, without a network.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use yardarm::clock::ManualClock;
use yardarm::flag::{Context, Delta, Digest, Item, ItemName, Kill, Position, Reason, State};
use yardarm::replica::{ChangeKind, Replica, Resync, Writer};

const EPOCH: u64 = 7;

/// What a control plane would hold: makes snapshots and deltas with true digests.
#[derive(Clone, Default)]
struct Upstream {
    items: Vec<Item>,
    kills: Vec<Kill>,
    revision: u64,
}

impl Upstream {
    fn put(&mut self, name: ItemName, definition: serde_json::Value) -> Delta {
        self.step(|state, revision| {
            let item = Item { name: name.clone(), revision, definition: serde_json::to_vec(&definition).unwrap().into() };
            state.items.retain(|held| held.name != name);
            state.items.push(item.clone());
            Delta { upserts: vec![item], ..Delta::default() }
        })
    }

    fn remove(&mut self, name: ItemName) -> Delta {
        self.step(|state, _| {
            state.items.retain(|held| held.name != name);
            state.kills.retain(|kill| kill.flag_key != name.key);
            Delta { removed: vec![name], ..Delta::default() }
        })
    }

    fn set_killed(&mut self, key: &str, killed: bool) -> Delta {
        self.step(|state, revision| {
            let kill = register(key, revision, killed);
            state.kills.retain(|kill| kill.flag_key != key);
            state.kills.extend(killed.then(|| kill.clone()));
            Delta { kills: vec![kill], ..Delta::default() }
        })
    }

    fn step(&mut self, edit: impl FnOnce(&mut Self, u64) -> Delta) -> Delta {
        let prev_revision = self.revision;
        self.revision += 1;
        let revision = self.revision;
        let delta = edit(self, revision);
        Delta { epoch: EPOCH, prev_revision, revision, digest: Digest::of(&self.items, &self.kills), ..delta }
    }

    fn state(&self) -> State {
        let digest = Digest::of(&self.items, &self.kills);
        State { position: self.position(), items: self.items.clone(), kills: self.kills.clone(), digest, origin_time_us: 0 }
    }

    fn position(&self) -> Position {
        Position { epoch: EPOCH, revision: self.revision }
    }
}

fn register(key: &str, revision: u64, killed: bool) -> Kill {
    Kill { flag_key: key.into(), revision, killed, actor: "ana".into(), reason: "smoke".into(), at_us: 0 }
}

fn checkout() -> serde_json::Value {
    json!({ "variants": { "on": true, "off": false }, "defaultVariant": "on" })
}

fn dependent_on(flag: &str) -> serde_json::Value {
    json!({
        "variants": { "on": true, "off": false }, "defaultVariant": "on", "offVariant": "off",
        "prerequisites": [{ "flag": flag, "variants": ["on"] }],
    })
}

fn synced(upstream: &Upstream) -> (Replica, Writer) {
    let (replica, mut writer) = Replica::new(Arc::new(ManualClock::at(1_000_000)));
    writer.apply_snapshot(upstream.state()).unwrap();
    (replica, writer)
}

fn serves(replica: &Replica, key: &str) -> Option<(String, Reason)> {
    let flag = replica.with(key, |held| held.map(|held| held.flag.clone()))?;
    let decision = flag.decide(&Context::new("user-1"), &replica.lookup());
    Some((decision.variant?.name.clone(), decision.reason))
}

fn is_killed(replica: &Replica, key: &str) -> bool {
    serves(replica, key).is_some_and(|(variant, reason)| variant == "off" && reason == Reason::Killed)
}

#[test]
fn nothing_is_usable_before_the_first_state() {
    let (replica, _writer) = Replica::new(Arc::new(ManualClock::default()));
    assert!(!replica.is_usable());
}

#[test]
fn a_delta_becomes_visible_with_its_revision() {
    let mut upstream = Upstream::default();
    let (replica, mut writer) = synced(&upstream);
    let applied = writer.apply_delta(upstream.put(ItemName::flag("checkout"), checkout())).unwrap();
    assert_eq!(applied.position, upstream.position());
    assert_eq!(serves(&replica, "checkout"), Some(("on".into(), Reason::Static)));
    assert_eq!(replica.with("checkout", |held| held.map(|held| held.revision)), Some(1));
}

#[test]
fn a_gap_is_refused_and_nothing_of_it_is_applied() {
    let mut upstream = Upstream::default();
    let (replica, mut writer) = synced(&upstream);
    upstream.put(ItemName::flag("missed"), checkout());
    let delta = upstream.put(ItemName::flag("checkout"), checkout());
    assert_eq!(writer.apply_delta(delta), Err(Resync::Gap { held: 0, found: 1 }));
    assert!(replica.is_empty());
}

#[test]
fn a_wrong_digest_is_refused_and_nothing_of_it_is_applied() {
    let mut upstream = Upstream::default();
    let (replica, mut writer) = synced(&upstream);
    let mut delta = upstream.put(ItemName::flag("checkout"), checkout());
    delta.digest = Digest::default();
    assert!(matches!(writer.apply_delta(delta), Err(Resync::DigestMismatch { revision: 1, .. })));
    assert!(replica.is_empty());
}

#[test]
fn another_epoch_is_refused_as_a_delta_and_taken_as_a_snapshot_even_at_a_lower_revision() {
    let mut upstream = Upstream::default();
    for _ in 0..5 {
        upstream.put(ItemName::flag("checkout"), checkout());
    }
    let (replica, mut writer) = synced(&upstream);
    let mut foreign = upstream.put(ItemName::flag("checkout"), checkout());
    foreign.epoch += 1;
    assert!(matches!(writer.apply_delta(foreign), Err(Resync::Epoch { .. })));
    let mut restored = Upstream::default();
    restored.put(ItemName::flag("checkout"), checkout());
    let mut state = restored.state();
    state.position.epoch += 1;
    writer.apply_snapshot(state).unwrap();
    assert_eq!(replica.position(), Position { epoch: EPOCH + 1, revision: 1 });
    assert_eq!(replica.with("checkout", |held| held.map(|held| held.revision)), Some(1));
}

#[test]
fn a_kill_overtakes_the_log_and_stands_when_the_log_arrives() {
    let mut upstream = Upstream::default();
    upstream.put(ItemName::flag("checkout"), checkout());
    let (replica, mut writer) = synced(&upstream);
    let edit = upstream.put(ItemName::flag("other"), checkout());
    let kill = upstream.set_killed("checkout", true);
    writer.apply_kill(EPOCH, kill.kills[0].clone()).unwrap();
    assert!(is_killed(&replica, "checkout"));
    assert_eq!(replica.position().revision, 1);
    writer.apply_delta(edit).unwrap();
    writer.apply_delta(kill).unwrap();
    assert!(is_killed(&replica, "checkout"));
    writer.confirm_fresh(upstream.position(), upstream.state().digest).unwrap();
}

#[test]
fn a_kill_that_came_ahead_survives_a_snapshot_of_an_older_revision() {
    let mut upstream = Upstream::default();
    upstream.put(ItemName::flag("checkout"), checkout());
    let (replica, mut writer) = synced(&upstream);
    let snapshot = upstream.state();
    writer.apply_kill(EPOCH, upstream.set_killed("checkout", true).kills[0].clone()).unwrap();
    writer.apply_snapshot(snapshot).unwrap();
    assert!(is_killed(&replica, "checkout"));
}

#[test]
fn a_kill_survives_a_resync_by_snapshot_and_a_restart_from_disk() {
    let mut upstream = Upstream::default();
    upstream.put(ItemName::flag("checkout"), checkout());
    let (_, mut writer) = synced(&upstream);
    writer.apply_kill(EPOCH, upstream.set_killed("checkout", true).kills[0].clone()).unwrap();
    let (replica, mut reborn) = Replica::new(Arc::new(ManualClock::at(2_000_000)));
    reborn.load(writer.state(), 1_500_000).unwrap();
    assert!(is_killed(&replica, "checkout"));
    assert_eq!(replica.age(), Duration::from_micros(500_000));
    reborn.apply_snapshot(upstream.state()).unwrap();
    assert!(is_killed(&replica, "checkout"));
}

/// What a watcher hears that had heard everything up to a position.
fn missed(replica: &Replica, position: Position) -> Vec<(String, ChangeKind)> {
    let changes = replica.changes_after(replica.resume(position).unwrap(), 100);
    assert!(!changes.lost);
    changes.notes.iter().map(|(kind, note)| (note.key.to_string(), *kind)).collect()
}

#[test]
fn a_kill_ahead_of_the_log_is_heard_by_a_watcher_that_resumes_after_a_restart_from_disk_with_what_depends_on_it() {
    let mut upstream = Upstream::default();
    upstream.put(ItemName::flag("checkout"), checkout());
    upstream.put(ItemName::flag("long_dead"), checkout());
    upstream.put(ItemName::flag("dependent"), dependent_on("checkout"));
    upstream.set_killed("long_dead", true);
    let (_, mut writer) = synced(&upstream);
    let position = upstream.position();
    let kill = upstream.set_killed("checkout", true);
    writer.apply_kill(EPOCH, kill.kills[0].clone()).unwrap();
    let (replica, mut reborn) = Replica::new(Arc::new(ManualClock::at(2_000_000)));
    reborn.load(writer.state(), 1_500_000).unwrap();
    let expected = [("checkout".to_owned(), ChangeKind::Killed), ("dependent".to_owned(), ChangeKind::PrerequisiteChanged)];
    assert_eq!(missed(&replica, position), expected);
    reborn.apply_delta(kill).unwrap();
    assert_eq!(missed(&replica, position), expected);
    assert_eq!(missed(&replica, upstream.position()), []);
}

#[test]
fn a_kill_of_another_epoch_and_that_it_is_void_are_heard_by_a_watcher_that_resumes_where_the_log_did_not_move() {
    let mut upstream = Upstream::default();
    upstream.put(ItemName::flag("checkout"), checkout());
    let (replica, mut writer) = synced(&upstream);
    writer.apply_kill(EPOCH + 1, register("checkout", 1, true)).unwrap();
    assert_eq!(missed(&replica, upstream.position()), [("checkout".to_owned(), ChangeKind::Killed)]);
    writer.confirm_fresh(upstream.position(), upstream.state().digest).unwrap();
    assert_eq!(missed(&replica, upstream.position()), [("checkout".to_owned(), ChangeKind::Restored)]);
}

#[test]
fn a_late_notice_of_an_old_kill_does_not_undo_a_restore() {
    let mut upstream = Upstream::default();
    upstream.put(ItemName::flag("checkout"), checkout());
    let (replica, mut writer) = synced(&upstream);
    let kill = upstream.set_killed("checkout", true);
    let restore = upstream.set_killed("checkout", false);
    writer.apply_delta(kill.clone()).unwrap();
    writer.apply_kill(EPOCH, restore.kills[0].clone()).unwrap();
    assert_eq!(writer.apply_kill(EPOCH, kill.kills[0].clone()), None);
    assert!(!is_killed(&replica, "checkout"));
}

#[test]
fn a_kill_of_a_flag_that_has_not_arrived_yet_waits_for_it() {
    let mut upstream = Upstream::default();
    let (replica, mut writer) = synced(&upstream);
    let put = upstream.put(ItemName::flag("checkout"), checkout());
    writer.apply_kill(EPOCH, upstream.set_killed("checkout", true).kills[0].clone()).unwrap();
    writer.apply_delta(put).unwrap();
    assert!(is_killed(&replica, "checkout"));
}

#[test]
fn a_kill_of_another_epoch_holds_until_the_epoch_is_settled() {
    let mut upstream = Upstream::default();
    upstream.put(ItemName::flag("checkout"), checkout());
    let (replica, mut writer) = synced(&upstream);
    writer.apply_kill(EPOCH + 1, register("checkout", 1, true)).unwrap();
    assert!(is_killed(&replica, "checkout"));
    writer.confirm_fresh(upstream.position(), upstream.state().digest).unwrap();
    assert!(!is_killed(&replica, "checkout"));
}

#[test]
fn a_flag_that_does_not_compile_keeps_its_last_good_version_and_stops_nobody() {
    let mut upstream = Upstream::default();
    upstream.put(ItemName::flag("checkout"), checkout());
    let (replica, mut writer) = synced(&upstream);
    writer.apply_delta(upstream.put(ItemName::flag("checkout"), json!({ "variants": "of a later version" }))).unwrap();
    let applied = writer.apply_delta(upstream.put(ItemName::flag("other"), checkout())).unwrap();
    assert_eq!(serves(&replica, "checkout"), Some(("on".into(), Reason::Static)));
    assert_eq!(serves(&replica, "other"), Some(("on".into(), Reason::Static)));
    let rejected: Vec<_> =
        applied.rejected.iter().map(|rejected| (rejected.name.key.as_str(), rejected.revision, rejected.held_revision)).collect();
    assert_eq!(rejected, [("checkout", 2, 1)]);
    writer.apply_delta(upstream.put(ItemName::flag("checkout"), checkout())).unwrap();
    assert!(replica.rejected().is_empty());
}

#[test]
fn a_changed_segment_reaches_the_flags_that_read_it_in_the_same_change() {
    let mut upstream = Upstream::default();
    let flag = json!({
        "variants": { "on": true, "off": false }, "defaultVariant": "off",
        "rules": [{ "name": "insiders", "when": [{ "segment": "insiders" }], "serve": "on" }],
    });
    upstream.put(ItemName::segment("insiders"), json!({ "included": ["user-2"] }));
    upstream.put(ItemName::flag("checkout"), flag);
    let (replica, mut writer) = synced(&upstream);
    assert_eq!(serves(&replica, "checkout"), Some(("off".into(), Reason::Default)));
    writer.apply_delta(upstream.put(ItemName::segment("insiders"), json!({ "included": ["user-1"] }))).unwrap();
    assert_eq!(serves(&replica, "checkout"), Some(("on".into(), Reason::TargetingMatch)));
    assert_eq!(replica.with("checkout", |held| held.map(|held| held.revision)), Some(3));
}

#[test]
fn a_removed_flag_is_gone_with_its_kill() {
    let mut upstream = Upstream::default();
    upstream.put(ItemName::flag("checkout"), checkout());
    upstream.set_killed("checkout", true);
    let (replica, mut writer) = synced(&upstream);
    writer.apply_delta(upstream.remove(ItemName::flag("checkout"))).unwrap();
    assert_eq!(serves(&replica, "checkout"), None);
    writer.apply_delta(upstream.put(ItemName::flag("checkout"), checkout())).unwrap();
    assert!(!is_killed(&replica, "checkout"));
}

#[test]
fn an_environment_over_its_limits_is_refused_whole() {
    let mut upstream = Upstream::default();
    upstream.put(ItemName::flag("checkout"), checkout());
    let (replica, mut writer) = synced(&upstream);
    for number in 0..140 {
        upstream.put(ItemName::segment(format!("s{number}")), json!({ "description": "x".repeat(250_000) }));
    }
    assert!(matches!(writer.apply_snapshot(upstream.state()), Err(Resync::TooLarge { what: "bytes", .. })));
    assert_eq!(serves(&replica, "checkout"), Some(("on".into(), Reason::Static)));
}

#[test]
fn watchers_hear_of_a_flag_whose_prerequisite_changed() {
    let mut upstream = Upstream::default();
    upstream.put(ItemName::flag("base"), checkout());
    upstream.put(ItemName::flag("dependent"), dependent_on("base"));
    let (replica, mut writer) = synced(&upstream);
    let cursor = replica.cursor();
    writer.apply_delta(upstream.set_killed("base", true)).unwrap();
    let told: Vec<_> = replica.changes_after(cursor, 10).notes.iter().map(|(kind, note)| (note.key.to_string(), *kind)).collect();
    assert_eq!(told, [("base".to_owned(), ChangeKind::Killed), ("dependent".to_owned(), ChangeKind::PrerequisiteChanged)]);
    assert_eq!(serves(&replica, "dependent"), Some(("off".into(), Reason::PrerequisiteFailed)));
}

#[test]
fn a_batch_never_sees_half_of_a_change() {
    let mut upstream = Upstream::default();
    let pair = |on: bool| json!({ "variants": { "on": true, "off": false }, "defaultVariant": if on { "on" } else { "off" } });
    upstream.put(ItemName::flag("left"), pair(true));
    upstream.put(ItemName::flag("right"), pair(true));
    let (replica, mut writer) = synced(&upstream);
    let reader = replica.clone();
    let reads = std::thread::spawn(move || {
        let variant = |view: &yardarm::replica::View<'_>, key: &str| {
            let flag = view.with(key, |held| held.map(|held| held.flag.clone()));
            flag.map(|flag| flag.decide(&Context::default(), &view.lookup()).variant.map(|variant| variant.name.clone()))
        };
        let mut rounds = 0_u32;
        loop {
            let (left, right, revision) = reader.batch(|view| (variant(view, "left"), variant(view, "right"), view.position().revision));
            assert_eq!(left, right, "at revision {revision}");
            rounds += 1;
            if revision > 2_000 {
                return rounds;
            }
        }
    });
    for round in 0..2_000 {
        let both = upstream.step(|state, revision| {
            for item in &mut state.items {
                item.revision = revision;
                item.definition = serde_json::to_vec(&pair(round % 2 == 1)).unwrap().into();
            }
            Delta { upserts: state.items.clone(), ..Delta::default() }
        });
        writer.apply_delta(both).unwrap();
    }
    assert!(reads.join().unwrap() > 0);
}
