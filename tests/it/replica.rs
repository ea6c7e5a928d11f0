//! The map of compiled flags and its writer, without a network.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use yardarm::clock::ManualClock;
use yardarm::flag::{Context, Delta, Digest, Item, ItemKind, ItemName, Kill, Position, Reason, State, limits};
use yardarm::replica::{ChangeKind, Replica, Resync, Saved, Writer};
use yardarm::wire::v1;

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
fn a_kill_that_the_log_brought_survives_a_snapshot_of_an_older_revision() {
    let mut upstream = Upstream::default();
    upstream.put(ItemName::flag("checkout"), checkout());
    let (replica, mut writer) = synced(&upstream);
    let snapshot = upstream.state();
    let kill = upstream.set_killed("checkout", true);
    writer.apply_delta(kill.clone()).unwrap();
    writer.apply_snapshot(snapshot).unwrap();
    assert!(is_killed(&replica, "checkout"));
    let (reborn, mut after_a_restart) = Replica::new(Arc::new(ManualClock::at(2_000_000)));
    after_a_restart.load(writer.state(), 0).unwrap();
    assert!(is_killed(&reborn, "checkout"));
    writer.apply_delta(kill).unwrap();
    assert!(is_killed(&replica, "checkout"));
    writer.apply_delta(upstream.set_killed("checkout", false)).unwrap();
    assert!(!is_killed(&replica, "checkout"));
}

#[test]
fn a_head_from_before_what_is_held_proves_nothing_and_is_no_reason_for_a_resync() {
    let mut upstream = Upstream::default();
    upstream.put(ItemName::flag("checkout"), checkout());
    let before = upstream.state();
    upstream.put(ItemName::flag("checkout"), checkout());
    let clock = Arc::new(ManualClock::at(1_000_000));
    let (replica, mut writer) = Replica::new(clock.clone());
    writer.apply_snapshot(upstream.state()).unwrap();
    clock.advance_us(500_000);
    assert_eq!(writer.confirm_fresh(before.position, before.digest), Ok(()));
    assert_eq!(replica.age(), Duration::from_micros(500_000));
    upstream.put(ItemName::flag("checkout"), checkout());
    assert_eq!(writer.confirm_fresh(upstream.position(), upstream.state().digest), Err(Resync::Behind { held: 2, head: 3 }));
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

/// What a restart of this sidecar would serve.
fn restarted(writer: &Writer) -> (Replica, Writer) {
    let (replica, mut reborn) = Replica::new(Arc::new(ManualClock::at(2_000_000)));
    reborn.load(writer.saved(), 0).unwrap();
    assert_eq!((reborn.position(), reborn.digest()), (writer.position(), writer.digest()));
    (replica, reborn)
}

#[test]
fn the_last_good_version_of_a_rejected_flag_outlives_a_restart() {
    for mut upstream in [Upstream::default(), large()] {
        upstream.put(ItemName::flag("checkout"), checkout());
        let (_, mut writer) = synced(&upstream);
        writer.apply_delta(upstream.put(ItemName::flag("checkout"), json!({ "variants": "of a later version" }))).unwrap();
        let (_, again) = restarted(&writer);
        let (replica, mut reborn) = restarted(&again);
        assert_eq!(serves(&replica, "checkout"), Some(("on".into(), Reason::Static)));
        let rejected = replica.rejected();
        let rejected = rejected.iter().find(|rejected| rejected.name.key == "checkout").expect("it is named again");
        assert_eq!((rejected.revision, rejected.held_revision), (upstream.revision, upstream.revision - 1));
        reborn.apply_kill(EPOCH, register("checkout", upstream.revision + 1, true)).unwrap();
        assert!(is_killed(&replica, "checkout"));
        reborn.vet(usize::MAX);
        assert!(is_killed(&replica, "checkout"), "nobody who looks at it later takes it away");
        reborn.apply_delta(upstream.set_killed("checkout", true)).unwrap();
        assert!(is_killed(&restarted(&reborn).0, "checkout"));
        reborn.apply_delta(upstream.put(ItemName::flag("checkout"), checkout())).unwrap();
        assert!(replica.rejected().iter().all(|rejected| rejected.name.key != "checkout"));
        assert!(reborn.saved().served.is_empty());
    }
}

#[test]
fn the_last_good_version_of_a_rejected_segment_outlives_a_restart_with_the_flags_that_read_it() {
    let mut upstream = Upstream::default();
    let flag = json!({
        "variants": { "on": true, "off": false }, "defaultVariant": "off",
        "rules": [{ "name": "insiders", "when": [{ "segment": "insiders" }], "serve": "on" }],
    });
    upstream.put(ItemName::segment("insiders"), json!({ "included": ["user-1"] }));
    upstream.put(ItemName::flag("checkout"), flag);
    let (_, mut writer) = synced(&upstream);
    writer.apply_delta(upstream.put(ItemName::segment("insiders"), json!({ "included": "of a later version" }))).unwrap();
    let (replica, reborn) = restarted(&restarted(&writer).1);
    assert_eq!(serves(&replica, "checkout"), Some(("on".into(), Reason::TargetingMatch)));
    assert_eq!(replica.rejected(), writer.replica().rejected());
    assert_eq!(reborn.saved(), writer.saved());
}

/// As after an update of the sidecar.
#[test]
fn what_is_understood_after_a_restart_is_served_as_it_was_received() {
    let mut upstream = Upstream::default();
    upstream.put(ItemName::flag("checkout"), json!({ "variants": { "b": true }, "defaultVariant": "b" }));
    let old = Item { name: ItemName::flag("checkout"), revision: 0, definition: serde_json::to_vec(&checkout()).unwrap().into() };
    let gone = Item { name: ItemName::flag("gone"), ..old.clone() };
    let (replica, mut writer) = Replica::new(Arc::new(ManualClock::default()));
    writer.load(Saved { state: upstream.state(), served: vec![old.clone(), gone], ..Saved::default() }, 0).unwrap();
    assert_eq!((serves(&replica, "checkout").unwrap().0.as_str(), replica.rejected().len(), replica.len()), ("b", 0, 1));
    let lie = State { digest: Digest::default(), ..upstream.state() };
    let (empty, mut writer) = Replica::new(Arc::new(ManualClock::default()));
    assert!(writer.load(Saved { state: lie, served: vec![old], ..Saved::default() }, 0).is_err() && !empty.is_usable());
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

/// Each segment has one key in it, and one flag that reads it.
fn segments(upstream: &mut Upstream, segments: &[(&str, serde_json::Value)]) -> Delta {
    upstream.step(|state, revision| {
        let item =
            |name, definition: &serde_json::Value| Item { name, revision, definition: serde_json::to_vec(definition).unwrap().into() };
        let reader = |key: &str| {
            json!({ "variants": { "on": true, "off": false }, "defaultVariant": "off",
                "rules": [{ "name": "in", "when": [{ "segment": key }], "serve": "on" }] })
        };
        let pair = |(key, definition): &(&str, serde_json::Value)| {
            [item(ItemName::segment(*key), definition), item(ItemName::flag(*key), &reader(key))]
        };
        let upserts: Vec<_> = segments.iter().flat_map(pair).collect();
        state.items.retain(|held| upserts.iter().all(|item| item.name != held.name));
        state.items.extend(upserts.iter().cloned());
        Delta { upserts, ..Delta::default() }
    })
}

fn rejected_segments(replica: &Replica) -> Vec<String> {
    let rejected = replica.rejected();
    let segments = rejected.iter().filter(|rejected| rejected.name.kind == ItemKind::Segment);
    segments.map(|rejected| rejected.name.key.clone()).collect()
}

#[test]
fn a_segment_that_does_not_compile_rejects_only_those_that_read_it_and_they_come_with_it() {
    let plain = || json!({ "included": ["user-1"] });
    let reads = |key: &str| json!({ "when": [{ "segment": key }] });
    let of_a_later_version = || json!({ "included": "of a later version" });
    let mut upstream = Upstream::default();
    segments(&mut upstream, &[("a", of_a_later_version()), ("b", reads("a")), ("c", reads("b")), ("d", plain()), ("e", reads("d"))]);
    let on = |replica: &Replica, key: &str| serves(replica, key).is_some_and(|(variant, _)| variant == "on");

    // A new pod: nothing is held of any of them.
    let (replica, mut writer) = synced(&upstream);
    assert_eq!(rejected_segments(&replica), ["a", "b", "c"]);
    assert!(on(&replica, "d") && on(&replica, "e"));
    assert_eq!(serves(&replica, "b"), None);
    let message = replica.rejected().iter().find(|rejected| rejected.name == ItemName::segment("b")).unwrap().message.clone();
    assert!(message.contains("segments.b") && !message.contains("segments.c"), "{message}");

    writer.apply_delta(segments(&mut upstream, &[("a", plain())])).unwrap();
    assert!(replica.rejected().is_empty(), "{:?}", replica.rejected());
    assert!(["a", "b", "c", "d", "e"].iter().all(|key| on(&replica, key)));

    // From here on each has a last good version.
    let change =
        [("a", of_a_later_version()), ("b", json!({ "included": ["user-1", "user-2"], "when": [{ "segment": "a" }] })), ("d", plain())];
    writer.apply_delta(segments(&mut upstream, &change)).unwrap();
    assert_eq!(rejected_segments(&replica), ["a"], "the new b fits the last good a");
    let b = replica
        .with("b", |held| held.map(|held| held.flag.decide(&Context::new("user-2"), &replica.lookup()).variant.unwrap().name.clone()));
    assert_eq!(b.as_deref(), Some("on"));
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

fn many(name: impl Fn(String) -> ItemName, count: usize, definition: &'static str) -> Vec<Item> {
    (0..count).map(|number| Item { name: name(format!("i{number}")), revision: 1, definition: definition.into() }).collect()
}

const SMALL: &str = r#"{"variants":{"x":1}}"#;

#[test]
fn a_flag_too_many_is_refused_as_a_change_and_as_a_state() {
    let mut upstream = Upstream { items: many(ItemName::flag, limits::ENVIRONMENT_FLAGS, SMALL), revision: 1, ..Upstream::default() };
    let (replica, mut writer) = synced(&upstream);
    let too_many = upstream.put(ItemName::flag("checkout"), checkout());
    let refused = Resync::TooLarge { what: "flags", found: limits::ENVIRONMENT_FLAGS + 1, limit: limits::ENVIRONMENT_FLAGS };
    assert_eq!(writer.apply_delta(too_many).unwrap_err(), refused);
    assert_eq!(writer.apply_snapshot(upstream.state()).unwrap_err(), refused);
    assert_eq!((replica.len(), serves(&replica, "checkout")), (limits::ENVIRONMENT_FLAGS, None));
}

#[test]
fn a_segment_too_many_is_refused_as_a_change_and_as_a_state() {
    let mut upstream = Upstream { items: many(ItemName::segment, limits::ENVIRONMENT_SEGMENTS, "{}"), revision: 1, ..Upstream::default() };
    let (replica, mut writer) = synced(&upstream);
    assert!(State::try_from(v1::State::from(upstream.state())).is_ok());
    // One for another is not one more.
    let swap = upstream.step(|state, revision| {
        let gone = state.items.remove(0).name;
        let new = Item { name: ItemName::segment("new"), revision, definition: "{}".into() };
        state.items.push(new.clone());
        Delta { upserts: vec![new], removed: vec![gone], ..Delta::default() }
    });
    writer.apply_delta(swap).unwrap();

    let too_many = upstream.put(ItemName::segment("more"), json!({}));
    let (found, limit) = (limits::ENVIRONMENT_SEGMENTS + 1, limits::ENVIRONMENT_SEGMENTS);
    assert_eq!(writer.apply_delta(too_many).unwrap_err(), Resync::TooLarge { what: "segments", found, limit });
    let refused = State::try_from(v1::State::from(upstream.state())).unwrap_err();
    assert!(refused.to_string().contains(&format!("{found} segments, at most {limit}")), "{refused}");
    assert_eq!(replica.position().revision, upstream.revision - 1);
}

#[test]
fn a_flag_that_is_too_large_is_rejected_by_name() {
    let mut upstream = Upstream::default();
    upstream.put(ItemName::flag("checkout"), checkout());
    let (replica, mut writer) = synced(&upstream);
    let mut large = checkout();
    large["description"] = "x".repeat(limits::FLAG_BYTES).into();
    let applied = writer.apply_delta(upstream.put(ItemName::flag("checkout"), large)).unwrap();
    assert_eq!(applied.rejected.len(), 1);
    let message = &applied.rejected[0].message;
    assert!(message.contains(&limits::FLAG_BYTES.to_string()), "{message}");
    assert_eq!(serves(&replica, "checkout"), Some(("on".into(), Reason::Static)), "what was held is served");
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

/// An environment of which a sidecar keeps cold what it can: plain flags, and one each that is not plain.
fn large() -> Upstream {
    let mut upstream = Upstream::default();
    let segment = json!({ "when": [{ "attribute": "plan", "equals": "beta" }] });
    upstream.put(ItemName { kind: ItemKind::Segment, key: "beta".into() }, segment);
    upstream.step(|state, revision| {
        let item = |key: String, definition: &serde_json::Value| {
            let definition = serde_json::to_vec(definition).unwrap().into();
            Item { name: ItemName::flag(key), revision, definition }
        };
        let reader = json!({ "variants": { "on": true, "off": false }, "defaultVariant": "off",
            "rules": [{ "name": "beta", "when": [{ "segment": "beta" }], "serve": "on" }] });
        let dependent = json!({ "variants": { "on": true, "off": false }, "defaultVariant": "on", "offVariant": "off",
            "prerequisites": [{ "flag": "flag-7", "variants": ["on"] }] });
        let odd = [("reader", reader), ("dependent", dependent), ("broken", json!({ "variants": {} }))];
        let plain = (0..1_200).map(|number| item(format!("flag-{number}"), &checkout()));
        let upserts: Vec<_> = plain.chain(odd.iter().map(|(key, definition)| item((*key).to_owned(), definition))).collect();
        state.items.extend(upserts.iter().cloned());
        Delta { upserts, ..Delta::default() }
    });
    upstream
}

fn loaded(upstream: &Upstream) -> (Replica, Writer) {
    let (replica, mut writer) = Replica::new(Arc::new(ManualClock::at(1_000_000)));
    writer.load(upstream.state(), 0).unwrap();
    (replica, writer)
}

#[test]
fn a_large_state_from_disk_is_served_before_all_of_it_was_compiled() {
    let upstream = large();
    let (replica, writer) = loaded(&upstream);
    assert!(!writer.is_vetted() && replica.is_usable());
    assert_eq!(replica.position(), upstream.position());
    assert_eq!(serves(&replica, "flag-1199"), Some(("on".into(), Reason::Static)));
    assert_eq!(serves(&replica, "dependent"), Some(("on".into(), Reason::Default)));
    let beta = Context::new("user-1").with("plan", "beta");
    let reader = replica.with("reader", |held| held.map(|held| (held.flag.clone(), held.revision))).unwrap();
    assert_eq!(reader.0.decide(&beta, &replica.lookup()).rule, Some("beta"));
    assert_eq!(reader.1, 2);
    assert_eq!(serves(&replica, "broken"), None);
    assert_eq!(replica.batch(|view| view.keys("flag-").len()), 1_200);
}

#[test]
fn what_does_not_compile_of_a_large_state_from_disk_is_named_when_all_was_compiled() {
    let upstream = large();
    let (replica, mut writer) = loaded(&upstream);
    let mut vetted = None;
    while !writer.is_vetted() {
        vetted = writer.vet(100).or(vetted);
    }
    let rejected = vetted.expect("one was rejected").rejected;
    assert_eq!(rejected.iter().map(|rejected| rejected.name.key.as_str()).collect::<Vec<_>>(), ["broken"]);
    assert_eq!(replica.rejected(), rejected);
    assert_eq!(replica.len(), 1_202);
    assert_eq!(serves(&replica, "flag-0"), Some(("on".into(), Reason::Static)));
    assert_eq!(writer.vet(100), None);
}

#[test]
fn a_kill_does_not_wait_for_a_large_state_from_disk_and_its_dependents_hear_of_it() {
    let upstream = large();
    let (replica, mut writer) = loaded(&upstream);
    let cursor = replica.cursor();
    writer.apply_kill(EPOCH, register("flag-7", 3, true)).unwrap();
    assert!(!writer.is_vetted());
    assert!(is_killed(&replica, "flag-7"));
    assert_eq!(serves(&replica, "dependent"), Some(("off".into(), Reason::PrerequisiteFailed)));
    writer.vet(usize::MAX);
    let told: Vec<_> = replica.changes_after(cursor, 10).notes.iter().map(|(kind, note)| (note.key.to_string(), *kind)).collect();
    assert_eq!(told, [("flag-7".to_owned(), ChangeKind::Killed), ("dependent".to_owned(), ChangeKind::PrerequisiteChanged)]);
    assert!(is_killed(&replica, "flag-7"));
}

#[test]
fn changes_of_a_large_state_find_what_was_left_cold() {
    let mut upstream = large();
    for (replica, mut writer) in [loaded(&upstream), synced(&upstream)] {
        let mut upstream = upstream.clone();
        let cursor = replica.cursor();
        writer
            .apply_delta(upstream.put(ItemName::flag("flag-3"), json!({ "variants": { "b": true }, "defaultVariant": "b", "tags": ["t"] })))
            .unwrap();
        assert_eq!(serves(&replica, "flag-3"), Some(("b".into(), Reason::Static)));
        writer.apply_delta(upstream.set_killed("flag-4", true)).unwrap();
        assert!(is_killed(&replica, "flag-4"));
        writer.apply_delta(upstream.remove(ItemName::flag("flag-5"))).unwrap();
        assert_eq!(serves(&replica, "flag-5"), None);
        let told: Vec<_> = replica.changes_after(cursor, 10).notes.iter().map(|(kind, note)| (note.key.to_string(), *kind)).collect();
        let expected = [("flag-4", ChangeKind::Killed), ("flag-3", ChangeKind::Updated), ("flag-5", ChangeKind::Deleted)];
        assert_eq!(told, expected.map(|(key, kind)| (key.to_owned(), kind)));
        let changed = json!({ "when": [{ "attribute": "plan", "equals": "gold" }] });
        writer.apply_delta(upstream.put(ItemName { kind: ItemKind::Segment, key: "beta".into() }, changed)).unwrap();
        let revision = replica.with("reader", |held| held.map(|held| held.revision));
        assert_eq!(revision, Some(upstream.revision), "who reads a segment changes with it");
    }
    // A kill that stands when the state comes whole.
    upstream.set_killed("flag-9", true);
    for (replica, _) in [loaded(&upstream), synced(&upstream)] {
        assert!(is_killed(&replica, "flag-9"));
        assert_eq!(replica.with("flag-9", |held| held.map(|held| held.revision)), Some(upstream.revision));
    }
}
