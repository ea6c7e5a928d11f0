//! The log, from commit to every sidecar, over real connections that are cut, stalled and refused.

use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tonic::Code;
use yardarm::control::ledger::Retention;
use yardarm::control::publish::{Args, Publish};
use yardarm::flag::{self, Delta, Digest, Item, ItemName, Kill, Position, Reason, limits};
use yardarm::replica::follow::Ended;
use yardarm::wire::replication::{Ack, Basis, FromSidecar, ResyncCause};
use yardarm::wire::v1;
use yardarm::wire::v1::follow_response::Message;
use yardarm::wire::v1::welcome::Mode;

use crate::rig::proxy::Proxy;
use crate::rig::raw::{self, Raw, hello};
use crate::rig::script::{Script, chunk, state};
use crate::rig::{ENVIRONMENT, Plan, Plane, Sidecar, bulky, flag, until, within};

fn on() -> Option<(String, Reason)> {
    Some(("on".into(), Reason::Static))
}

#[tokio::test]
async fn a_change_reaches_every_sidecar() {
    let plane = Plane::start().await;
    let mut sidecars = Vec::new();
    for number in 0..5 {
        sidecars.push(Sidecar::start(&format!("pod-{number}"), plane.address).await);
    }
    for key in ["a", "b", "c"] {
        let position = plane.put(key).await;
        for sidecar in &sidecars {
            sidecar.is_at(position).await;
            assert_eq!(sidecar.serves(key), on());
        }
    }
}

#[tokio::test]
async fn a_segment_at_its_limit_is_committed_replicated_and_asked() {
    const KEYS: usize = limits::SEGMENT_KEYS;
    let plane = Plane::start().await;
    let by_change = Sidecar::start("by-change", plane.address).await;
    by_change.is_at(plane.head()).await;
    let keys: Vec<_> = (0..KEYS).map(|number| format!(r#""user-{number}""#)).collect();
    let rules = r#"[{"when":[{"segment":"everybody"}],"serve":"on"}]"#;
    let asked = format!(r#"{{"variants":{{"on":true,"off":false}},"defaultVariant":"off","rules":{rules}}}"#);
    let segment = format!(r#"{{"included":[{}]}}"#, keys.join(","));
    let position = plane.apply(&format!(r#"{{"flags":{{"asked":{asked}}},"segments":{{"everybody":{segment}}}}}"#)).await;
    let by_snapshot = Sidecar::start("by-snapshot", plane.address).await;
    for sidecar in [&by_change, &by_snapshot] {
        sidecar.is_at(position).await;
        let held = sidecar.replica.with("asked", |held| held.map(|held| held.flag.clone())).unwrap();
        let asked = |key: String| held.decide(&flag::Context::new(key), &sidecar.replica.lookup()).variant.unwrap().name.clone();
        for (number, expected) in [(0, "on"), (KEYS / 2, "on"), (KEYS - 1, "on"), (KEYS, "off")] {
            assert_eq!(asked(format!("user-{number}")), expected, "user-{number}");
        }
    }
}

#[tokio::test]
async fn an_update_between_snapshot_and_subscribe_is_not_lost() {
    let plane = Plane::start().await;
    plane.apply(&bulky(100, 400_000)).await;
    let mut client = raw::connect(plane.address).await;
    let mut stream = Raw::open(&mut client, hello("pod", None)).await.unwrap();
    assert_eq!(stream.welcome().await.mode(), Mode::Snapshot);
    let Message::SnapshotChunk(first) = stream.news().await else { panic!("a chunk comes first") };
    assert!(first.count > 4, "the change is to come while chunks are on their way");
    let position = plane.put("late").await;
    let mut held = Position::from(first.position.unwrap());
    assert!(held.revision < position.revision);
    loop {
        match stream.news().await {
            Message::SnapshotChunk(_) => {}
            Message::Delta(delta) => {
                assert_eq!((delta.epoch, delta.prev_revision), (held.epoch, held.revision));
                held.revision = delta.revision;
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(held, position);
}

#[tokio::test]
async fn whatever_is_committed_while_sidecars_connect_all_of_them_end_in_the_same_state() {
    let plane = Plane::start().await;
    let mut sidecars = Vec::new();
    for number in 0..40 {
        plane.put(&format!("flag-{}", number % 7)).await;
        if number % 4 == 0 {
            sidecars.push(Sidecar::start(&format!("pod-{number}"), plane.address).await);
        }
    }
    let expected = plane.ledger.state(ENVIRONMENT).unwrap();
    for sidecar in &sidecars {
        sidecar.is_at(expected.position).await;
        assert_eq!(sidecar.replica.digest(), expected.digest);
        let metrics = sidecar.metrics();
        assert_eq!((metrics.gaps.load(Ordering::Relaxed), metrics.digest_mismatches.load(Ordering::Relaxed)), (0, 0));
    }
}

#[tokio::test]
async fn after_a_cut_only_what_was_missed_is_sent() {
    let plane = Plane::start().await;
    plane.put("before").await;
    let network = Proxy::to(plane.address).await;
    let sidecar = Sidecar::start("pod", network.address).await;
    sidecar.is_at(plane.head()).await;
    for round in 0..3 {
        network.close().await;
        let missed = plane.put(&format!("missed-{round}")).await;
        assert_eq!(sidecar.serves("before"), on(), "what is held is served");
        network.mend();
        sidecar.is_at(missed).await;
    }
    until("three changes are counted", || sidecar.metrics().deltas.load(Ordering::Relaxed) == 3).await;
    assert_eq!(sidecar.metrics().snapshots.load(Ordering::Relaxed), 1, "only the first time");
}

#[tokio::test]
async fn a_sidecar_that_missed_more_than_the_log_holds_takes_a_snapshot() {
    let retention = Retention { changes: 3, ..Retention::default() };
    let plane = Plane::with(Plan { retention, ..Plan::default() }).await;
    let network = Proxy::to(plane.address).await;
    let sidecar = Sidecar::start("pod", network.address).await;
    sidecar.is_at(plane.head()).await;
    network.close().await;
    for number in 0..10 {
        plane.put(&format!("flag-{number}")).await;
    }
    network.mend();
    sidecar.is_at(plane.head()).await;
    // A poll may be as quick as the new stream, and bring one too.
    until("a second snapshot is counted", || sidecar.metrics().snapshots.load(Ordering::Relaxed) >= 2).await;
    assert_eq!((sidecar.replica.len(), sidecar.metrics().deltas.load(Ordering::Relaxed)), (10, 0));
}

#[tokio::test]
async fn a_store_of_another_epoch_replaces_everything_even_when_its_revision_is_lower() {
    let plane = Plane::start().await;
    for key in ["only-in-the-old-one", "b", "c"] {
        plane.put(key).await;
    }
    let network = Proxy::to(plane.address).await;
    let sidecar = Sidecar::start("pod", network.address).await;
    sidecar.is_at(plane.head()).await;
    let other = Plane::start().await;
    let position = other.put("only-in-the-new-one").await;
    assert!(position.epoch != plane.head().epoch && position.revision < plane.head().revision);
    network.lead_to(other.address);
    network.cut().await;
    sidecar.is_at(position).await;
    assert_eq!((sidecar.serves("only-in-the-old-one"), sidecar.serves("only-in-the-new-one")), (None, on()));
}

#[tokio::test]
async fn a_change_that_is_longer_than_a_message_arrives_in_chunks() {
    let plane = Plane::start().await;
    let sidecar = Sidecar::start("pod", plane.address).await;
    sidecar.is_at(plane.head()).await;
    let position = plane.apply(&bulky(30, 3_000_000)).await;
    sidecar.is_at(position).await;
    assert_eq!(sidecar.replica.len(), 30);
    assert_eq!(sidecar.metrics().gaps.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_a_reader_missed_comes_as_one_change_with_the_latest_state_of_each_key() {
    let plane = Plane::start().await;
    let basis = plane.put("a").await;
    let digest = plane.ledger.state(ENVIRONMENT).unwrap().digest;
    for note in 0..50 {
        plane.apply(&flag("a", &format!("edit {note}"))).await;
    }
    let mut client = raw::connect(plane.address).await;
    let mut stream = Raw::open(&mut client, hello("pod", Some(Basis { position: basis, digest }))).await.unwrap();
    assert_eq!(stream.welcome().await.mode(), Mode::Delta);
    let Message::Delta(delta) = stream.news().await else { panic!("a change comes") };
    assert_eq!((delta.prev_revision, delta.revision, delta.upserts.len()), (basis.revision, plane.head().revision, 1));
}

#[tokio::test]
async fn a_sidecar_that_is_up_to_date_is_told_so_and_sent_nothing() {
    let plane = Plane::start().await;
    plane.put("a").await;
    let state = plane.ledger.state(ENVIRONMENT).unwrap();
    let basis = Basis { position: state.position, digest: state.digest };
    let mut client = raw::connect(plane.address).await;
    let mut stream = Raw::open(&mut client, hello("pod", Some(basis))).await.unwrap();
    assert_eq!(stream.welcome().await.mode(), Mode::UpToDate);
    let Message::Heartbeat(beat) = stream.next().await.unwrap() else { panic!("the next word is a sign of life") };
    assert_eq!((beat.head.map(Position::from), beat.digest), (Some(state.position), state.digest.to_bytes().to_vec()));
}

#[tokio::test]
async fn a_basis_that_cannot_be_true_is_answered_with_a_snapshot() {
    let plane = Plane::start().await;
    let position = plane.put("a").await;
    let state = plane.ledger.state(ENVIRONMENT).unwrap();
    let wrong = [
        ("digest", Basis { position, digest: Digest::default() }),
        ("ahead of the log", Basis { position: Position { revision: 99, ..position }, digest: state.digest }),
        ("another epoch", Basis { position: Position { epoch: position.epoch ^ 1, ..position }, digest: state.digest }),
    ];
    for (what, basis) in wrong {
        let mut client = raw::connect(plane.address).await;
        let mut stream = Raw::open(&mut client, hello("pod", Some(basis))).await.unwrap();
        assert_eq!(stream.welcome().await.mode(), Mode::Snapshot, "{what}");
        stream.reach(position).await;
    }
}

#[tokio::test]
async fn who_holds_a_kill_is_never_sent_a_snapshot_from_before_it() {
    for way in ["a wrong digest", "a resync", "a poll"] {
        let plane = Plane::start().await;
        plane.put("checkout").await;
        let mut client = raw::connect(plane.address).await;
        // Makes a snapshot that is good enough for others for a second.
        let mut first = Raw::open(&mut client, hello("first", None)).await.unwrap();
        first.welcome().await;
        first.reach(plane.head()).await;
        let position = plane.kill("checkout").await;
        first.reach(position).await;
        let held = Basis { position, digest: plane.ledger.state(ENVIRONMENT).unwrap().digest };
        let chunk = if way == "a poll" {
            let ack = Ack { position, digest: held.digest, ..Ack::default() };
            let identity = Some(crate::rig::identity("pod").into());
            let request = v1::FetchRequest { environment: ENVIRONMENT.into(), identity, basis: None, ack: Some(ack.into()) };
            match within("the poll is answered", client.fetch(request)).await.unwrap().into_inner().answer {
                Some(v1::fetch_response::Answer::Snapshot(snapshot)) => snapshot.chunks[0].clone(),
                other => panic!("{other:?}"),
            }
        } else {
            let wrong = Basis { digest: Digest::default(), ..held };
            let basis = if way == "a wrong digest" { wrong } else { held };
            let mut stream = Raw::open(&mut client, hello("pod", Some(basis))).await.unwrap();
            stream.welcome().await;
            if way == "a resync" {
                stream.says.send(FromSidecar::Resync(ResyncCause::Corrupt).into()).await.unwrap();
            }
            match stream.news().await {
                Message::SnapshotChunk(chunk) => chunk,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(chunk.position.map(Position::from), Some(position), "after {way}");
    }
}

#[tokio::test]
async fn a_snapshot_from_before_a_kill_that_nobody_asked_for_is_not_applied() {
    let (mut script, sidecar, held) = scripted().await;
    let mut follow = script.follow().await;
    let before = state(at(3), vec![item("a", 1)], Vec::new());
    follow.welcome_with(before.clone()).await;
    follow.acked(at(3)).await;
    let kill = Kill { flag_key: "a".into(), revision: 4, killed: true, actor: String::new(), reason: String::new(), at_us: 0 };
    let digest = Digest::of(&[item("a", 1)], [&kill]);
    let killed = Delta { prev_revision: 3, revision: 4, kills: vec![kill.clone()], digest, ..delta(&[]) };
    follow.delta(killed).await;
    follow.acked(at(4)).await;
    follow.snapshot(before).await;
    let digest = Digest::of(&[item("a", 1), item("b", 5)], [&kill]);
    follow.delta(Delta { prev_revision: 4, revision: 5, upserts: vec![item("b", 5)], digest, ..delta(&[]) }).await;
    follow.acked(at(5)).await;
    assert!(crate::rig::is_killed(&sidecar.replica, "a"));
    assert_eq!(sidecar.metrics().snapshots.load(Ordering::Relaxed), 1);
    drop(held);
}

/// Ten sidecars do not read at all while a thousand changes are made; everybody else gets each of them meanwhile.
#[tokio::test]
async fn stalled_readers_delay_nobody_and_cost_a_window_each() {
    const STALLED: usize = 10;
    const READERS: usize = 90;
    let plane = Plane::with(Plan { args: Args { heartbeat_ms: 60_000, ..Args::default() }, ..Plan::default() }).await;
    plane.apply(&bulky(40, 400_000)).await;
    let mut stalled = Vec::new();
    for number in 0..STALLED {
        let mut client = raw::connect(plane.address).await;
        stalled.push((Raw::open(&mut client, hello(&format!("stalled-{number}"), None)).await.unwrap(), client));
    }
    let mut readers = Vec::new();
    for number in 0..READERS {
        let mut client = raw::connect(plane.address).await;
        let mut stream = Raw::open(&mut client, hello(&format!("reader-{number}"), None)).await.unwrap();
        let head = plane.head();
        readers.push(tokio::spawn(async move {
            stream.welcome().await;
            stream.reach(head).await;
            stream
        }));
    }
    let mut caught_up = Vec::new();
    for reader in readers {
        caught_up.push(reader.await.unwrap());
    }
    for number in 0..1000 {
        plane.put(&format!("flag-{}", number % 3)).await;
    }
    let head = plane.head();
    let readers: Vec<_> = caught_up.into_iter().map(|mut stream| tokio::spawn(async move { stream.reach(head).await })).collect();
    for reader in readers {
        reader.await.unwrap();
    }
    // Not one byte was read by these until here.
    for (mut stream, _client) in stalled {
        stream.welcome().await;
        let (messages, bytes) = stream.reach(head).await;
        // The snapshot of before, and what changed since as one.
        assert!(messages < 40 && bytes < 500_000, "{messages} messages, {bytes} bytes");
    }
}

#[tokio::test]
async fn readers_that_stall_in_the_middle_of_a_snapshot_do_not_keep_others_from_theirs() {
    let args = Args { snapshot_senders: 2, heartbeat_ms: 200, ..Args::default() };
    let plane = Plane::with(Plan { args, ..Plan::default() }).await;
    plane.apply(&bulky(40, 600_000)).await;
    let mut stalled = Vec::new();
    for number in 0..2 {
        let mut client = raw::connect(plane.address).await;
        let mut stream = Raw::open(&mut client, hello(&format!("stalled-{number}"), None)).await.unwrap();
        stream.welcome().await;
        assert!(matches!(stream.news().await, Message::SnapshotChunk(_)));
        stalled.push((stream, client));
    }
    let sidecar = Sidecar::start("pod", plane.address).await;
    sidecar.is_at(plane.head()).await;
    for (stream, _) in &mut stalled {
        stream.reach(plane.head()).await;
    }
}

#[tokio::test]
async fn a_gap_is_noticed_and_mended_by_a_snapshot() {
    let (mut script, sidecar, held) = scripted().await;
    let mut follow = script.follow().await;
    follow.welcome_with(state(at(1), vec![item("a", 1)], Vec::new())).await;
    follow.acked(at(1)).await;
    follow.delta(Delta { prev_revision: 2, revision: 3, ..delta(&[item("a", 1), item("c", 3)]) }).await;
    assert_eq!(follow.resync().await, ResyncCause::Gap);
    assert_eq!(sidecar.replica.position(), at(1), "nothing of it was applied");
    follow.snapshot(state(at(3), vec![item("a", 1), item("c", 3)], Vec::new())).await;
    follow.acked(at(3)).await;
    assert_eq!((sidecar.serves("c"), sidecar.metrics().gaps.load(Ordering::Relaxed)), (on(), 1));
    drop(held);
}

#[tokio::test]
async fn a_wrong_digest_in_a_change_or_in_a_heartbeat_is_mended_by_a_snapshot() {
    let (mut script, sidecar, held) = scripted().await;
    let mut follow = script.follow().await;
    follow.welcome_with(state(at(1), vec![item("a", 1)], Vec::new())).await;
    follow.acked(at(1)).await;
    let wrong = Delta { prev_revision: 1, revision: 2, upserts: vec![item("b", 2)], ..delta(&[item("a", 1)]) };
    follow.delta(wrong).await;
    assert_eq!(follow.resync().await, ResyncCause::DigestMismatch);
    assert_eq!((sidecar.replica.position(), sidecar.serves("b")), (at(1), None));
    let good = state(at(2), vec![item("a", 1), item("b", 2)], Vec::new());
    follow.snapshot(good.clone()).await;
    follow.acked(at(2)).await;
    follow.heartbeat(at(2), Digest::default()).await;
    assert_eq!(follow.resync().await, ResyncCause::DigestMismatch);
    assert_eq!(sidecar.serves("b"), on(), "what is held is served meanwhile");
    follow.snapshot(good).await;
    follow.acked(at(2)).await;
    assert_eq!(sidecar.metrics().digest_mismatches.load(Ordering::Relaxed), 2);
    drop(held);
}

#[tokio::test]
async fn a_heartbeat_of_a_revision_that_never_came_is_a_gap() {
    let (mut script, _sidecar, held) = scripted().await;
    let mut follow = script.follow().await;
    follow.welcome_with(state(at(1), Vec::new(), Vec::new())).await;
    follow.acked(at(1)).await;
    follow.heartbeat(at(5), Digest::default()).await;
    assert_eq!(follow.resync().await, ResyncCause::Gap);
    drop(held);
}

#[tokio::test]
async fn a_damaged_chunk_is_asked_for_again() {
    let (mut script, sidecar, held) = scripted().await;
    let mut follow = script.follow().await;
    let good = state(at(1), vec![item("a", 1)], Vec::new());
    follow.welcome(at(1), Mode::Snapshot, 5_000).await;
    follow.say(Message::SnapshotChunk(v1::SnapshotChunk { crc32: 1, ..chunk(good.clone()) })).await;
    assert_eq!(follow.resync().await, ResyncCause::Corrupt);
    assert!(!sidecar.replica.is_usable());
    follow.snapshot(good).await;
    follow.acked(at(1)).await;
    drop(held);
}

#[tokio::test]
async fn a_control_plane_whose_snapshots_never_fit_is_left_and_tried_again() {
    let (mut script, sidecar, held) = scripted().await;
    let mut follow = script.follow().await;
    follow.welcome_with(state(at(1), vec![item("a", 1)], Vec::new())).await;
    follow.acked(at(1)).await;
    follow.heartbeat(at(1), Digest::default()).await;
    while follow.hear().await.is_some() {
        follow.snapshot(yardarm::flag::State { digest: Digest::default(), ..state(at(1), vec![item("a", 2)], Vec::new()) }).await;
    }
    assert_eq!(sidecar.metrics().reconnects(Ended::Resyncs), 1);
    let again = script.follow().await;
    assert_eq!(again.hello.basis.map(|basis| basis.position), Some(at(1)), "what was held is held still");
    assert_eq!(sidecar.serves("a"), on());
    drop(held);
}

#[tokio::test]
async fn a_change_that_overlaps_what_is_held_is_applied_and_one_that_is_old_is_not() {
    let (mut script, sidecar, held) = scripted().await;
    let mut follow = script.follow().await;
    follow.welcome_with(state(at(3), vec![item("a", 1)], Vec::new())).await;
    follow.acked(at(3)).await;
    follow.delta(Delta { prev_revision: 0, revision: 2, upserts: vec![item("old", 2)], ..delta(&[]) }).await;
    let overlapping = Delta { prev_revision: 1, revision: 5, upserts: vec![item("b", 5)], ..delta(&[item("a", 1), item("b", 5)]) };
    follow.delta(overlapping).await;
    follow.acked(at(5)).await;
    assert_eq!((sidecar.serves("old"), sidecar.serves("b")), (None, on()));
    assert_eq!(sidecar.metrics().gaps.load(Ordering::Relaxed), 0);
    drop(held);
}

#[tokio::test]
async fn a_flag_that_does_not_compile_is_named_and_takes_nobody_down() {
    let (mut script, sidecar, held) = scripted().await;
    let mut follow = script.follow().await;
    follow.welcome_with(state(at(1), vec![item("good", 1), item("bad", 1)], Vec::new())).await;
    assert_eq!(follow.acked(at(1)).await.rejected, []);
    let broken = Item { definition: r#"{"variants":7}"#.into(), ..item("bad", 2) };
    let upserts = vec![broken.clone(), item("new", 2)];
    follow.delta(Delta { prev_revision: 1, revision: 2, upserts, ..delta(&[item("good", 1), broken, item("new", 2)]) }).await;
    let ack = follow.acked(at(2)).await;
    let [rejection] = &ack.rejected[..] else { panic!("{:?}", ack.rejected) };
    assert_eq!((&rejection.name, rejection.revision, rejection.held_revision), (&ItemName::flag("bad"), 2, 1));
    assert!(!rejection.message.is_empty());
    for key in ["good", "bad", "new"] {
        assert_eq!(sidecar.serves(key), on(), "{key}");
    }
    let fixed = [item("good", 1), item("bad", 3), item("new", 2)];
    follow.delta(Delta { prev_revision: 2, revision: 3, upserts: vec![item("bad", 3)], ..delta(&fixed) }).await;
    assert_eq!(follow.acked(at(3)).await.rejected, []);
    drop(held);
}

#[tokio::test]
async fn silence_is_taken_for_a_loss_and_the_age_is_told() {
    let (mut script, sidecar, held) = scripted().await;
    let mut follow = script.follow().await;
    follow.welcome(at(1), Mode::Snapshot, 50).await;
    follow.snapshot(state(at(1), vec![item("a", 1)], Vec::new())).await;
    follow.acked(at(1)).await;
    let again = script.follow().await;
    assert_eq!(again.hello.basis.map(|basis| basis.position), Some(at(1)));
    assert_eq!(sidecar.metrics().reconnects(Ended::Silent), 1);
    assert!(sidecar.replica.age().as_millis() >= 150, "{:?}", sidecar.replica.age());
    assert_eq!(sidecar.serves("a"), on());
    drop((held, follow));
}

#[tokio::test]
async fn a_black_hole_is_noticed_and_left() {
    let plane = Plane::start().await;
    plane.put("a").await;
    let network = Proxy::to(plane.address).await;
    let sidecar = Sidecar::start("pod", network.address).await;
    sidecar.is_at(plane.head()).await;
    network.stall();
    until("the silence is noticed", || sidecar.metrics().reconnects(Ended::Silent) > 0).await;
    assert!(!sidecar.follower().is_connected());
    let missed = plane.put("b").await;
    network.mend();
    sidecar.is_at(missed).await;
}

#[tokio::test]
async fn no_status_is_permanent() {
    let plane = Plane::start().await;
    plane.put("a").await;
    for code in [Code::Unauthenticated, Code::PermissionDenied, Code::InvalidArgument, Code::Unimplemented, Code::NotFound, Code::Internal]
    {
        let refusing =
            Plane::serving(Plan::default(), move |publish| Refusing { publish, code, methods: &["Follow", "Urgent", "Fetch"] }).await;
        let network = Proxy::to(refusing.address).await;
        let sidecar = Sidecar::start("pod", network.address).await;
        until("it was refused", || sidecar.metrics().reconnects(Ended::Refused) > 1).await;
        network.lead_to(plane.address);
        network.cut().await;
        sidecar.is_at(plane.head()).await;
    }
}

#[tokio::test]
async fn polls_bring_what_streams_cannot() {
    let plane =
        Plane::serving(Plan::default(), |publish| Refusing { publish, code: Code::Unavailable, methods: &["Follow", "Urgent"] }).await;
    plane.put("first").await;
    let sidecar = Sidecar::start("pod", plane.address).await;
    sidecar.is_at(plane.head()).await;
    let position = plane.put("second").await;
    sidecar.is_at(position).await;
    plane.kill("first").await;
    sidecar.sees_killed("first").await;
    assert!(!sidecar.follower().is_connected());
    // Nothing changes any more, and each poll still proves that what is held is fresh.
    let polls = sidecar.metrics().polls.load(Ordering::Relaxed);
    until("two more polls", || sidecar.metrics().polls.load(Ordering::Relaxed) >= polls + 2).await;
    until("the control plane knows it", || plane.fleet.pods(ENVIRONMENT).iter().any(|pod| pod.position == Some(plane.head()))).await;
}

#[tokio::test]
async fn a_control_plane_that_ends_says_when_to_come_back() {
    let plane = Plane::start().await;
    plane.put("a").await;
    let network = Proxy::to(plane.address).await;
    let sidecar = Sidecar::start("pod", network.address).await;
    sidecar.is_at(plane.head()).await;
    let heir = Plane::start().await;
    let position = heir.put("b").await;
    network.lead_to(heir.address);
    let ending = plane.shutdown.clone();
    plane.shutdown.request();
    within("the control plane drains", ending.complete()).await;
    sidecar.is_at(position).await;
    assert_eq!((sidecar.metrics().reconnects(Ended::GoAway), sidecar.metrics().reconnects(Ended::Closed)), (1, 0));
}

#[tokio::test]
async fn who_comes_in_a_herd_is_told_when_to_come_back() {
    let args = Args { sessions_per_second: 2, heartbeat_ms: 200, ..Args::default() };
    let plane = Plane::with(Plan { args, ..Plan::default() }).await;
    let mut client = raw::connect(plane.address).await;
    let (mut admitted, mut windows) = (Vec::new(), Vec::new());
    for number in 0..20 {
        let mut stream = Raw::open(&mut client, hello(&format!("pod-{number}"), None)).await.unwrap();
        match stream.next().await.unwrap() {
            Message::Welcome(_) => admitted.push(stream),
            Message::GoAway(v1::GoAway { retry_after_min_ms, retry_after_max_ms, .. }) => {
                assert_eq!(stream.end().await.code(), Code::Unavailable);
                windows.push((retry_after_min_ms, retry_after_max_ms));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(admitted.len() >= 2 && windows.len() > 5, "{} admitted, {} sent away", admitted.len(), windows.len());
    assert!(windows.iter().all(|(min, max)| 0 < *min && min < max), "{windows:?}");
    assert!(windows.last().unwrap().1 > windows[0].1, "the herd is spread the more, the larger it is: {windows:?}");
    drop(admitted);
    let sidecar = Sidecar::start("late", plane.address).await;
    sidecar.is_at(plane.head()).await;
}

#[tokio::test]
async fn the_first_of_several_addresses_that_answers_is_followed() {
    let plane = Plane::start().await;
    let position = plane.put("a").await;
    let nobody = Proxy::to(plane.address).await;
    nobody.close().await;
    let addresses = [nobody.address, plane.address].map(|address| format!("http://{address}").parse().unwrap());
    let settings = yardarm::replica::follow::Settings {
        control_planes: addresses.to_vec(),
        environment: ENVIRONMENT.into(),
        identity: crate::rig::identity("pod"),
        timing: Default::default(),
    };
    let sidecar = Sidecar::following(settings, None).await;
    sidecar.is_at(position).await;
}

async fn scripted() -> (Script, Sidecar, crate::rig::script::Lane) {
    let mut script = Script::start().await;
    let sidecar = Sidecar::start("pod", script.address).await;
    // Held, so that the kill lane is open and quiet.
    let lane = script.lane().await;
    (script, sidecar, lane)
}

fn at(revision: u64) -> Position {
    Position { epoch: 9, revision }
}

fn item(key: &str, revision: u64) -> Item {
    let definition = r#"{"variants":{"on":true,"off":false},"defaultVariant":"on"}"#;
    Item { name: ItemName::flag(key), revision, definition: definition.into() }
}

/// The rest of a change after which the state is `items`.
fn delta(items: &[Item]) -> Delta {
    Delta { epoch: 9, digest: Digest::of(items, []), ..Delta::default() }
}

/// A control plane some of whose methods always fail.
#[derive(Clone)]
struct Refusing {
    publish: Publish,
    code: Code,
    methods: &'static [&'static str],
}

impl tower::Service<http::Request<hyper::body::Incoming>> for Refusing {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = <Publish as tower::Service<http::Request<hyper::body::Incoming>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<hyper::body::Incoming>) -> Self::Future {
        if self.methods.iter().any(|method| request.uri().path().ends_with(method)) {
            let refusal = tonic::Status::new(self.code, "refused by the test").into_http();
            return Box::pin(async { Ok(refusal) });
        }
        self.publish.call(request)
    }
}
