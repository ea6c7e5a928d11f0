//! A kill is a level: it gets through, and nothing that happens afterwards loses it.

use std::sync::atomic::Ordering;

use yardarm::control::ledger::Retention;
use yardarm::flag::{Item, ItemName, Kill, Position, Reason};
use yardarm::replica::follow::Lane;
use yardarm::wire::v1;
use yardarm::wire::v1::follow_response::Message;
use yardarm::wire::v1::welcome::Mode;

use crate::rig::proxy::Proxy;
use crate::rig::raw::{self, Raw, hello, notice, urgent};
use crate::rig::script::{Script, state};
use crate::rig::{ENVIRONMENT, Plan, Plane, Sidecar, bulky, flag, identity, is_killed, until, within};

fn on() -> Option<(String, Reason)> {
    Some(("on".into(), Reason::Static))
}

#[tokio::test]
async fn a_kill_reaches_every_sidecar_and_a_restore_brings_the_flag_back() {
    let plane = Plane::start().await;
    plane.put("checkout").await;
    let mut sidecars = Vec::new();
    for number in 0..20 {
        sidecars.push(Sidecar::start(&format!("pod-{number}"), plane.address).await);
    }
    for sidecar in &sidecars {
        sidecar.is_at(plane.head()).await;
    }
    for _ in 0..3 {
        plane.kill("checkout").await;
        for sidecar in &sidecars {
            sidecar.sees_killed("checkout").await;
        }
        plane.restore("checkout").await;
        for sidecar in &sidecars {
            sidecar.sees("the flag is back", |_| sidecar.serves("checkout") == on()).await;
        }
    }
}

/// The log is stuck behind a snapshot that nobody reads; the lane is on the same connection.
#[tokio::test]
async fn a_kill_overtakes_a_snapshot_that_fills_the_stream_window() {
    let plane = Plane::start().await;
    plane.put("checkout").await;
    plane.apply(&bulky(40, 2_000_000)).await;
    let mut client = raw::connect(plane.address).await;
    let mut stream = Raw::open(&mut client, hello("pod", None)).await.unwrap();
    assert_eq!(stream.welcome().await.mode(), Mode::Snapshot);
    let mut lane = urgent(&mut client, identity("pod")).await.unwrap();
    let position = plane.kill("checkout").await;
    let kill = notice(&mut lane).await;
    assert_eq!((kill.flag_key.as_str(), kill.revision, kill.killed), ("checkout", position.revision, true));
    let (_, bytes) = stream.reach(position).await;
    assert!(bytes > 1_000_000, "the snapshot was still to come: {bytes} bytes");
}

#[tokio::test]
async fn the_lane_begins_with_every_kill_that_stands_and_then_shows_that_it_lives() {
    let plane = Plane::start().await;
    for key in ["a", "b", "c"] {
        plane.put(key).await;
        plane.kill(key).await;
    }
    plane.restore("b").await;
    let mut client = raw::connect(plane.address).await;
    let mut lane = urgent(&mut client, identity("pod")).await.unwrap();
    let mut standing = [notice(&mut lane).await.flag_key, notice(&mut lane).await.flag_key];
    standing.sort();
    assert_eq!(standing, ["a", "c"]);
    for _ in 0..2 {
        let alive = within("a sign of life", lane.message()).await.unwrap().unwrap();
        assert_eq!((alive.kill, alive.epoch), (None, plane.head().epoch));
    }
    let position = plane.restore("a").await;
    let restored = notice(&mut lane).await;
    assert_eq!((restored.flag_key.as_str(), restored.killed, restored.revision), ("a", false, position.revision));
}

#[tokio::test]
async fn changes_without_a_kill_do_not_use_the_lane() {
    let plane = Plane::start().await;
    plane.put("a").await;
    let mut client = raw::connect(plane.address).await;
    let mut lane = urgent(&mut client, identity("pod")).await.unwrap();
    for note in 0..20 {
        plane.apply(&flag("a", &format!("edit {note}"))).await;
    }
    plane.kill("a").await;
    assert_eq!(notice(&mut lane).await.flag_key, "a");
}

#[tokio::test]
async fn a_kill_that_came_ahead_of_the_log_is_served_acknowledged_and_outlives_the_snapshot_of_before() {
    let (mut script, sidecar, lane) = scripted().await;
    let mut follow = script.follow().await;
    let before = state(at(3), vec![item("checkout", 1)], Vec::new());
    follow.welcome_with(before.clone()).await;
    follow.acked(at(3)).await;
    // The log is stuck: this is all that comes.
    send(&lane, register("checkout", 4, true)).await;
    let ack = loop {
        let ack = follow.ack().await;
        if !ack.kills.is_empty() {
            break ack;
        }
    };
    assert_eq!((ack.position, ack.kills[0].flag_key.as_str(), ack.kills[0].revision), (at(3), "checkout", 4));
    assert!(is_killed(&sidecar.replica, "checkout"));
    assert_eq!(sidecar.metrics().propagation(Lane::Urgent).cumulative().last(), Some(&1));
    // A snapshot that was encoded before the kill.
    follow.snapshot(before).await;
    follow.acked(at(3)).await;
    assert!(is_killed(&sidecar.replica, "checkout"), "a resync by snapshot lost the kill");
    let kills = vec![register("checkout", 4, true)];
    follow.snapshot(state(at(4), vec![item("checkout", 1)], kills)).await;
    assert_eq!(follow.acked(at(4)).await.kills, [], "the log has caught up");
    assert!(is_killed(&sidecar.replica, "checkout"));
}

#[tokio::test]
async fn an_old_register_does_not_undo_a_newer_one() {
    let (mut script, sidecar, lane) = scripted().await;
    let mut follow = script.follow().await;
    follow.welcome_with(state(at(3), vec![item("checkout", 1)], Vec::new())).await;
    follow.acked(at(3)).await;
    for kill in [register("checkout", 6, true), register("checkout", 5, false), register("checkout", 2, false)] {
        send(&lane, kill).await;
    }
    send(&lane, register("marker", 7, true)).await;
    while !follow.ack().await.kills.iter().any(|kill| kill.flag_key == "marker") {}
    assert!(is_killed(&sidecar.replica, "checkout"));
}

#[tokio::test]
async fn a_kill_survives_a_cut_a_snapshot_and_a_restart_of_the_control_plane() {
    let store = tempfile::tempdir().unwrap();
    // A log so short that whoever was away takes a snapshot.
    let retention = Retention { changes: 2, ..Retention::default() };
    let plan = Plan { data: Some(store.path().to_owned()), retention, ..Plan::default() };
    let plane = Plane::with(plan.clone()).await;
    plane.put("checkout").await;
    let network = Proxy::to(plane.address).await;
    let sidecar = Sidecar::start("pod", network.address).await;
    sidecar.is_at(plane.head()).await;
    plane.kill("checkout").await;
    sidecar.sees_killed("checkout").await;

    network.cut().await;
    let position = plane.put("after-the-cut").await;
    sidecar.is_at(position).await;
    assert!(is_killed(&sidecar.replica, "checkout"), "lost by a reconnect");

    network.close().await;
    for number in 0..8 {
        plane.put(&format!("missed-{number}")).await;
    }
    network.mend();
    sidecar.is_at(plane.head()).await;
    assert!(is_killed(&sidecar.replica, "checkout"), "lost by a snapshot");

    plane.crash().await;
    let plane = Plane::with(plan).await;
    network.lead_to(plane.address);
    network.cut().await;
    let position = plane.put("after-the-restart").await;
    sidecar.is_at(position).await;
    assert!(is_killed(&sidecar.replica, "checkout"), "lost by a restart of the control plane");
    assert!(plane.ledger.kills(ENVIRONMENT).iter().any(|kill| kill.flag_key == "checkout"));
}

#[tokio::test]
async fn a_kill_survives_a_restart_of_the_sidecar_while_the_control_plane_is_dead() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start().await;
    plane.put("checkout").await;
    let sidecar = Sidecar::with("pod", plane.address, Some(data.path())).await;
    sidecar.is_at(plane.head()).await;
    plane.kill("checkout").await;
    sidecar.sees_killed("checkout").await;
    let address = plane.address;
    until("the kill is on disk", || on_disk(data.path()).is_some_and(|kills| kills.contains(&"checkout".to_owned()))).await;
    plane.crash().await;
    sidecar.crash().await;

    let sidecar = Sidecar::with("pod", address, Some(data.path())).await;
    assert!(is_killed(&sidecar.replica, "checkout"), "and it serves before it has reached anybody");
    assert!(!sidecar.follower().is_connected());
}

#[tokio::test]
async fn a_sidecar_that_was_away_hears_of_a_kill_by_the_lane_before_it_has_the_log() {
    let (mut script, sidecar, lane) = scripted().await;
    let follow = script.follow().await;
    follow.welcome(at(9), Mode::Snapshot, 5_000).await;
    send(&lane, register("checkout", 8, true)).await;
    // The flag comes later, and is never served alive.
    until("the kill is noted", || sidecar.metrics().kills.load(Ordering::Relaxed) == 1).await;
    assert!(!sidecar.replica.is_usable());
    let mut changed = sidecar.replica.changed();
    follow.snapshot(state(at(7), vec![item("checkout", 1)], Vec::new())).await;
    within("the snapshot is applied", changed.wait_for(|_| sidecar.replica.is_usable())).await.unwrap();
    assert!(is_killed(&sidecar.replica, "checkout"));
}

#[tokio::test]
async fn the_lane_connects_anew_on_its_own() {
    let (mut script, sidecar, lane) = scripted().await;
    let mut follow = script.follow().await;
    follow.welcome_with(state(at(3), vec![item("checkout", 1)], Vec::new())).await;
    follow.acked(at(3)).await;
    drop(lane);
    let lane = script.lane().await;
    send(&lane, register("checkout", 4, true)).await;
    sidecar.sees_killed("checkout").await;
    assert!(sidecar.follower().is_connected(), "the log was not disturbed");
    assert!(script.follows.try_recv().is_err());
}

#[tokio::test]
async fn a_restore_of_another_epoch_is_not_believed_but_a_kill_is() {
    let (mut script, sidecar, lane) = scripted().await;
    let mut follow = script.follow().await;
    let kills = vec![register("killed", 2, true)];
    follow.welcome_with(state(at(3), vec![item("checkout", 1), item("killed", 1)], kills)).await;
    follow.acked(at(3)).await;
    for (flag, killed) in [("killed", false), ("checkout", true)] {
        let kill = Some(register(flag, 99, killed).into());
        lane.send(Ok(v1::KillNotice { epoch: 8, kill, server_time_us: 0 })).await.unwrap();
    }
    sidecar.sees_killed("checkout").await;
    assert!(is_killed(&sidecar.replica, "killed"));
    // What counts is the snapshot of the epoch that is followed.
    follow.say(Message::SnapshotChunk(crate::rig::script::chunk(state(at(5), vec![item("checkout", 1)], Vec::new())))).await;
    sidecar.is_at(at(5)).await;
    assert_eq!(sidecar.serves("checkout"), on());
}

/// Keys of the kills in the newest state on disk, when it can be read at this moment.
fn on_disk(dir: &std::path::Path) -> Option<Vec<String>> {
    let copy = tempfile::tempdir().unwrap();
    for slot in ["state.0", "state.1"] {
        let _ = std::fs::copy(dir.join(slot), copy.path().join(slot));
    }
    let (_, _, found) = yardarm::replica::disk::Disk::open(copy.path(), "test", ENVIRONMENT).unwrap();
    Some(found.generation?.saved.state.kills.into_iter().map(|kill| kill.flag_key).collect())
}

async fn scripted() -> (Script, Sidecar, crate::rig::script::Lane) {
    let mut script = Script::start().await;
    let sidecar = Sidecar::start("pod", script.address).await;
    let lane = script.lane().await;
    (script, sidecar, lane)
}

async fn send(lane: &crate::rig::script::Lane, kill: Kill) {
    lane.send(Ok(v1::KillNotice { epoch: 9, kill: Some(kill.into()), server_time_us: 0 })).await.unwrap();
}

fn at(revision: u64) -> Position {
    Position { epoch: 9, revision }
}

fn register(flag: &str, revision: u64, killed: bool) -> Kill {
    Kill { flag_key: flag.into(), revision, killed, actor: "ana".into(), reason: "errors".into(), at_us: 0 }
}

fn item(key: &str, revision: u64) -> Item {
    let definition = r#"{"variants":{"on":true,"off":false},"defaultVariant":"on"}"#;
    Item { name: ItemName::flag(key), revision, definition: definition.into() }
}
