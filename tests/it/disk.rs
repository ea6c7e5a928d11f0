//! The last good state of a sidecar that follows, is killed, and starts again.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use yardarm::clock::SystemClock;
use yardarm::flag::{Digest, Item, ItemName, Kill, Position, Reason, State};
use yardarm::replica::disk::{Disk, Error, IfHeld, RESTARTS};
use yardarm::replica::follow::{Local, load};
use yardarm::wire::v1::welcome::Mode;

use crate::rig::script::{Script, state};
use crate::rig::{DEADLINE, ENVIRONMENT, Plane, Sidecar, flag, is_killed, serves, until};

fn start(dir: &Path) -> Result<Local, Error> {
    load(Some(dir), "test", ENVIRONMENT, IfHeld::Refuse, Arc::new(SystemClock::new()))
}

/// Once the directory is free: a process that another test starts has a copy of its lock until it is another program.
fn restart(dir: &Path) -> Local {
    let begun = Instant::now();
    loop {
        match start(dir) {
            Err(Error::Locked { .. }) if begun.elapsed() < DEADLINE => std::thread::park_timeout(Duration::from_millis(2)),
            started => return started.unwrap(),
        }
    }
}

fn description(local: &Local, key: &str) -> Option<String> {
    description_in(local.replica(), key)
}

fn description_in(replica: &yardarm::replica::Replica, key: &str) -> Option<String> {
    let definition = replica.with(key, |held| held.map(|held| held.definition.clone()))?;
    let json: serde_json::Value = serde_json::from_slice(&definition).unwrap();
    Some(json["description"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_sidecar_that_ended_in_order_starts_where_it_was() {
    let (data, plane) = (tempfile::tempdir().unwrap(), Plane::start().await);
    plane.put("a").await;
    plane.put("killed").await;
    plane.kill("killed").await;
    let sidecar = Sidecar::with("pod", plane.address, Some(data.path())).await;
    sidecar.is_at(plane.head()).await;
    let (position, digest) = (plane.head(), sidecar.replica.digest());
    sidecar.stop().await;
    let local = restart(data.path());
    assert_eq!((local.replica().position(), local.replica().digest()), (position, digest));
    assert!(local.replica().is_usable() && is_killed(local.replica(), "killed"));
    assert!(serves(local.replica(), "a").is_some());
}

#[tokio::test]
async fn after_a_crash_it_serves_what_was_written_and_catches_up() {
    let (data, plane) = (tempfile::tempdir().unwrap(), Plane::start().await);
    plane.put("a").await;
    let sidecar = Sidecar::with("pod", plane.address, Some(data.path())).await;
    sidecar.is_at(plane.head()).await;
    until("the state is written", || sidecar.metrics().saves.load(Ordering::Relaxed) == 1).await;
    sidecar.crash().await;
    let missed = plane.put("b").await;
    let sidecar = Sidecar::with("pod", plane.address, Some(data.path())).await;
    assert!(sidecar.replica.is_usable());
    sidecar.is_at(missed).await;
    until("the change is counted", || sidecar.metrics().deltas.load(Ordering::Relaxed) == 1).await;
    assert_eq!(sidecar.metrics().snapshots.load(Ordering::Relaxed), 0, "only what was missed was sent");
}

#[tokio::test]
async fn a_damaged_generation_is_counted_and_the_one_before_it_is_served() {
    let (data, plane) = (tempfile::tempdir().unwrap(), Plane::start().await);
    for note in ["first", "second"] {
        plane.apply(&flag("a", note)).await;
        let sidecar = Sidecar::with("pod", plane.address, Some(data.path())).await;
        sidecar.sees(note, |replica| description_in(replica, "a").as_deref() == Some(note)).await;
        sidecar.stop().await;
    }
    let mut newest: Vec<_> = ["state.0", "state.1"].map(|slot| data.path().join(slot)).into_iter().filter(|path| path.exists()).collect();
    newest.sort_by_key(|path| fs::read(path).map(|file| u64::from_le_bytes(file[12..20].try_into().unwrap())).unwrap());
    assert_eq!(description(&restart(data.path()), "a").as_deref(), Some("second"));
    let mut file = fs::read(newest.last().unwrap()).unwrap();
    let middle = file.len() / 2;
    file[middle] ^= 1;
    fs::write(newest.last().unwrap(), file).unwrap();
    let local = restart(data.path());
    assert!(local.replica().is_usable());
    assert_eq!(local.metrics().damaged_files.load(Ordering::Relaxed), 1);
    drop(local);

    for path in &newest {
        fs::write(path, b"torn").unwrap();
    }
    let local = restart(data.path());
    assert_eq!((local.replica().is_usable(), local.metrics().damaged_files.load(Ordering::Relaxed)), (false, 2));
}

#[tokio::test]
async fn a_full_disk_stops_nobody_from_serving_and_is_tried_again() {
    let (data, plane) = (tempfile::tempdir().unwrap(), Plane::start().await);
    std::os::unix::fs::symlink("/dev/full", data.path().join("state.new")).unwrap();
    let sidecar = Sidecar::with("pod", plane.address, Some(data.path())).await;
    let position = plane.put("a").await;
    sidecar.is_at(position).await;
    until("the write fails", || sidecar.metrics().save_failures.load(Ordering::Relaxed) > 0).await;
    plane.kill("a").await;
    sidecar.sees_killed("a").await;
    fs::remove_file(data.path().join("state.new")).unwrap();
    until("the write is tried again", || sidecar.metrics().saves.load(Ordering::Relaxed) > 0).await;
    sidecar.crash().await;
    assert!(is_killed(restart(data.path()).replica(), "a"));
}

#[tokio::test]
async fn the_last_good_version_of_a_rejected_flag_outlives_a_restart_and_can_be_killed() {
    let (data, mut script) = (tempfile::tempdir().unwrap(), Script::start().await);
    let sidecar = Sidecar::with("pod", script.address, Some(data.path())).await;
    let mut follow = script.follow().await;
    let at = |revision| Position { epoch: 9, revision };
    let item = |revision, definition: &'static str| Item { name: ItemName::flag("a"), revision, definition: definition.into() };
    let good = item(1, r#"{"variants":{"on":true,"off":false},"defaultVariant":"on","offVariant":"off"}"#);
    follow.welcome_with(state(at(1), vec![good], Vec::new())).await;
    follow.acked(at(1)).await;
    let of_a_later_version = state(at(2), vec![item(2, r#"{"variants":7}"#)], Vec::new());
    follow.snapshot(of_a_later_version.clone()).await;
    let rejected = follow.acked(at(2)).await.rejected;
    assert_eq!(rejected.len(), 1);
    sidecar.stop().await;

    for _ in 0..2 {
        let local = restart(data.path());
        assert_eq!((local.replica().position(), local.replica().digest()), (at(2), of_a_later_version.digest));
        assert_eq!(serves(local.replica(), "a"), Some(("on".into(), Reason::Static)));
        drop(local);
        let sidecar = Sidecar::with("pod", script.address, Some(data.path())).await;
        let mut follow = script.follow().await;
        follow.welcome(at(2), Mode::UpToDate, 5_000).await;
        assert_eq!(follow.acked(at(2)).await.rejected, rejected, "it is still named");
        sidecar.stop().await;
    }

    let sidecar = Sidecar::with("pod", script.address, Some(data.path())).await;
    let kill = Kill { flag_key: "a".into(), revision: 3, killed: true, actor: String::new(), reason: String::new(), at_us: 0 };
    let follow = script.follow().await;
    follow.welcome(at(2), Mode::UpToDate, 5_000).await;
    follow.snapshot(state(at(3), vec![item(2, r#"{"variants":7}"#)], vec![kill])).await;
    sidecar.sees_killed("a").await;
}

#[test]
fn a_generation_that_is_whole_and_does_not_fit_together_gives_way_to_the_one_before_it() {
    let data = tempfile::tempdir().unwrap();
    let items = |revision| vec![Item { name: ItemName::flag("a"), revision, definition: flag_definition().into() }];
    let at = |revision| state(Position { epoch: 9, revision }, items(revision), Vec::new());
    let (mut disk, _, _) = Disk::open(data.path(), "test", ENVIRONMENT).unwrap();
    disk.save(at(1), 0, false).unwrap();
    disk.save(State { digest: Digest::default(), ..at(2) }, 0, false).unwrap();
    drop(disk);
    let local = restart(data.path());
    assert_eq!((local.replica().position(), serves(local.replica(), "a").is_some()), (at(1).position, true));
    drop(local);
    // What is written next goes over the misfit.
    let (mut disk, _, _) = Disk::open(data.path(), "test", ENVIRONMENT).unwrap();
    assert_eq!(disk.fall_back().unwrap().saved.state, at(1));
    disk.save(at(3), 0, false).unwrap();
    assert_eq!(disk.fall_back().unwrap().saved.state, at(1));
}

fn flag_definition() -> &'static str {
    r#"{"variants":{"on":true,"off":false},"defaultVariant":"on","offVariant":"off"}"#
}

#[tokio::test]
async fn the_state_of_another_environment_is_not_served() {
    let (data, plane) = (tempfile::tempdir().unwrap(), Plane::start().await);
    plane.put("a").await;
    let sidecar = Sidecar::with("pod", plane.address, Some(data.path())).await;
    sidecar.is_at(plane.head()).await;
    sidecar.stop().await;
    let other = load(Some(data.path()), "test", "staging", IfHeld::Refuse, Arc::new(SystemClock::new())).unwrap();
    assert_eq!((other.replica().is_usable(), serves(other.replica(), "a")), (false, None));
    drop(other);
    assert!(serves(restart(data.path()).replica(), "a").is_some());
}

#[tokio::test]
async fn two_sidecars_do_not_share_a_data_directory() {
    let (data, plane) = (tempfile::tempdir().unwrap(), Plane::start().await);
    let sidecar = Sidecar::with("pod", plane.address, Some(data.path())).await;
    assert!(matches!(start(data.path()), Err(Error::Locked { .. })));
    sidecar.crash().await;
    restart(data.path());
}

#[tokio::test]
async fn many_changes_in_a_second_are_few_writes() {
    let (data, plane) = (tempfile::tempdir().unwrap(), Plane::start().await);
    let sidecar = Sidecar::with("pod", plane.address, Some(data.path())).await;
    sidecar.is_at(plane.head()).await;
    let start = std::time::Instant::now();
    for number in 0..100 {
        plane.put(&format!("flag-{number}")).await;
    }
    sidecar.is_at(plane.head()).await;
    let writes = sidecar.metrics().saves.load(Ordering::Relaxed);
    // One for the snapshot, and one for each second that began.
    assert!(writes <= 2 + start.elapsed().as_secs(), "{writes} writes in {:?}", start.elapsed());
}

/// A flag whose new version ends every process that evaluates it, as far as the guard can tell.
#[tokio::test]
async fn a_change_that_no_process_survives_is_refused_by_name_until_it_is_replaced() {
    let (data, plane) = (tempfile::tempdir().unwrap(), Plane::start().await);
    plane.put("other").await;
    plane.apply(&flag("poison", "good")).await;
    let sidecar = Sidecar::with("pod", plane.address, Some(data.path())).await;
    sidecar.is_at(plane.head()).await;
    sidecar.stop().await;

    let poison = plane.apply(&flag("poison", "poison")).await;
    for _ in 0..RESTARTS {
        let sidecar = Sidecar::with("pod", plane.address, Some(data.path())).await;
        sidecar.is_at(poison).await;
        assert_eq!(description_in(&sidecar.replica, "poison").as_deref(), Some("poison"));
        until("the state is written", || sidecar.metrics().saves.load(Ordering::Relaxed) > 0 || on_its_own(&sidecar)).await;
        sidecar.crash().await;
    }

    for round in 0..2 {
        let sidecar = Sidecar::with("pod", plane.address, Some(data.path())).await;
        sidecar.is_at(poison).await;
        assert_eq!(description_in(&sidecar.replica, "poison").as_deref(), Some("good"), "in round {round}");
        until("it is named", || {
            let pods = plane.fleet.pods(ENVIRONMENT);
            let rejected = pods.iter().flat_map(|pod| pod.rejected.iter());
            rejected.map(|rejection| rejection.name.key.as_str()).eq(["poison"])
        })
        .await;
        let position = plane.apply(&flag("other", &format!("round {round}"))).await;
        sidecar.is_at(position).await;
        sidecar.stop().await;
        // What is awaited at the next start.
        assert!(position.revision > poison.revision);
        if round == 0 {
            let local = restart(data.path());
            assert_eq!(description(&local, "poison").as_deref(), Some("good"), "the version before it outlives restarts");
            assert_eq!(description(&local, "other").as_deref(), Some("round 0"), "and nothing else is held back");
            break;
        }
    }

    let fixed = plane.apply(&flag("poison", "fixed")).await;
    let sidecar = Sidecar::with("pod", plane.address, Some(data.path())).await;
    sidecar.is_at(fixed).await;
    assert_eq!(description_in(&sidecar.replica, "poison").as_deref(), Some("fixed"));
    assert_eq!(sidecar.replica.rejected().len(), 0);
}

/// Whether it came with the poison from disk, so that there is nothing to write.
fn on_its_own(sidecar: &Sidecar) -> bool {
    sidecar.metrics().deltas.load(Ordering::Relaxed) == 0
}
