//! Whatever a peer says: it is refused with a reason, nobody panics, and everybody else is served.

use std::future::Future;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tonic::Code;
use yardarm::flag::{Delta, Item, ItemName, Kill, Position, Reason, State};
use yardarm::wire::replication::{Ack, Basis, FromSidecar, Hello, Identity, KillAck, Rejection, environment};
use yardarm::wire::v1;
use yardarm::wire::v1::follow_response::Message as Response;
use yardarm::wire::v1::welcome::Mode;

use crate::rig::raw::{self, Raw, hello};
use crate::rig::script::{Script, state};
use crate::rig::{Plane, Sidecar, panics, until, within};

fn said(message: v1::follow_request::Message) -> v1::FollowRequest {
    v1::FollowRequest { message: Some(message) }
}

/// How a stream ends that begins with these words.
async fn end_of(plane: &Plane, words: Vec<v1::FollowRequest>) -> (Code, String) {
    let mut client = raw::connect(plane.address).await;
    let mut words = words.into_iter();
    let status = match Raw::say(&mut client, words.next().unwrap()).await {
        Err(status) => status,
        Ok(mut stream) => {
            for word in words {
                stream.says.send(word).await.unwrap();
            }
            stream.end().await
        }
    };
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn each_way_to_break_the_protocol_has_a_status_that_says_what_is_wrong() {
    let plane = Plane::start().await;
    let good = || FromSidecar::Hello(hello("pod", None)).into();
    let with = |edit: fn(&mut v1::Hello)| {
        let mut hello = v1::Hello::from(hello("pod", None));
        edit(&mut hello);
        said(v1::follow_request::Message::Hello(hello))
    };
    let ack = |edit: fn(&mut v1::Ack)| {
        let mut ack = v1::Ack::from(Ack::default());
        edit(&mut ack);
        said(v1::follow_request::Message::Ack(ack))
    };
    let cases: Vec<(Vec<v1::FollowRequest>, Code, &str)> = vec![
        (vec![v1::FollowRequest { message: None }], Code::InvalidArgument, "message: is missing"),
        (vec![ack(|_| {})], Code::InvalidArgument, "the first message is Ack, expected Hello"),
        (vec![good(), good()], Code::InvalidArgument, "second Hello"),
        (vec![good(), v1::FollowRequest { message: None }], Code::InvalidArgument, "message: is missing"),
        (vec![with(|hello| hello.environment.clear())], Code::InvalidArgument, "environment: is missing"),
        (vec![with(|hello| hello.environment = "prodd".into())], Code::NotFound, "did you mean `prod`?"),
        (vec![with(|hello| hello.identity = None)], Code::InvalidArgument, "identity: is missing"),
        (vec![with(|hello| hello.identity.as_mut().unwrap().instance.clear())], Code::InvalidArgument, "instance: is empty"),
        (vec![with(|hello| hello.identity.as_mut().unwrap().pod = "p".repeat(300))], Code::InvalidArgument, "has 300 bytes, at most 253"),
        (vec![with(|hello| hello.identity.as_mut().unwrap().node = "a\x1b[2J".into())], Code::InvalidArgument, "control character"),
        (vec![with(|hello| hello.basis = Some(v1::Basis::default()))], Code::InvalidArgument, "basis.position: is missing"),
        (
            vec![with(|hello| hello.basis = Some(v1::Basis { position: Some(v1::Position::default()), digest: vec![0; 15] }))],
            Code::InvalidArgument,
            "digest: has 15 bytes, expected 16",
        ),
        (vec![with(|hello| hello.capabilities = vec![String::new(); 101])], Code::InvalidArgument, "101 entries, at most 100"),
        (vec![good(), ack(|ack| ack.position = None)], Code::InvalidArgument, "ack.position: is missing"),
        (vec![good(), ack(|ack| ack.digest = vec![1; 17])], Code::InvalidArgument, "17 bytes"),
        (vec![good(), ack(|ack| ack.rejected = vec![v1::Rejection::default(); 501])], Code::InvalidArgument, "501 entries, at most 500"),
        (vec![good(), ack(|ack| ack.rejected = vec![v1::Rejection::default()])], Code::InvalidArgument, "no item kind"),
        (vec![good(), ack(|ack| ack.kills = vec![v1::KillAck::default()])], Code::InvalidArgument, "flag_key: is empty"),
        (
            vec![good(), said(v1::follow_request::Message::Goodbye(v1::Goodbye { reason: "x".repeat(2 << 20) }))],
            Code::OutOfRange,
            "too large",
        ),
    ];
    for (words, code, text) in cases {
        let (found, message) = end_of(&plane, words).await;
        assert_eq!(found, code, "expected `{text}`, found `{message}`");
        assert!(message.contains(text), "expected `{text}`, found `{message}`");
    }
}

#[tokio::test]
async fn a_stream_that_ends_before_its_hello_is_told_so() {
    let plane = Plane::start().await;
    let mut client = raw::connect(plane.address).await;
    let status = within("an answer", client.follow(tokio_stream::empty())).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "the stream ended before its Hello"));
}

/// Bodies that are no gRPC at all.
#[tokio::test]
async fn bytes_that_are_no_messages_are_refused() {
    let plane = Plane::start().await;
    let framed = |flag: u8, length: u32, rest: &[u8]| {
        let mut body = BytesMut::new();
        body.put_u8(flag);
        body.put_u32(length);
        body.put_slice(rest);
        body.freeze()
    };
    let bodies = [
        Bytes::new(),
        Bytes::from_static(b"\0"),
        framed(0, u32::MAX, b"tiny"),
        framed(1, 4, b"gzip"),
        framed(7, 0, b""),
        framed(0, 4, b"\xff\xff\xff\xff"),
        framed(0, 10, b"short"),
        Bytes::from(vec![0xff; 100_000]),
    ];
    let stream = TokioIo::new(TcpStream::connect(plane.address).await.unwrap());
    let (mut send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    for method in ["Follow", "Urgent", "Fetch", "Nothing", ""] {
        for body in &bodies {
            let request = http::Request::post(format!("http://{}/yardarm.v1.Replication/{method}", plane.address))
                .header("content-type", "application/grpc")
                .body(Full::new(body.clone()))
                .unwrap();
            let response = within("an answer", send.send_request(request)).await.unwrap();
            let headers = response.headers().clone();
            let trailers = within("its end", response.into_body().collect()).await.unwrap().trailers().cloned().unwrap_or_default();
            let status = headers.get("grpc-status").or_else(|| trailers.get("grpc-status")).cloned();
            assert!(status.is_some_and(|status| status != "0"), "{method} {body:?}: {headers:?} {trailers:?}");
        }
    }
    assert_eq!(panics(), [""; 0]);
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("prod".to_owned()),
        Just("checkout".to_owned()),
        Just("x".repeat(254)),
        Just("\0\n\x1b]".to_owned()),
        any::<String>(),
    ]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(2), Just(u64::MAX), Just(u64::MAX - 1), any::<u64>()]
}

fn digest() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![3 => vec(any::<u8>(), 16), 1 => vec(any::<u8>(), 0..40)]
}

fn position() -> impl Strategy<Value = Option<v1::Position>> {
    weighted(0.8, (number(), number()).prop_map(|(epoch, revision)| v1::Position { epoch, revision }))
}

fn identity() -> impl Strategy<Value = Option<v1::Identity>> {
    weighted(
        0.8,
        (text(), text(), text(), text(), text()).prop_map(|(instance, pod, namespace, node, version)| v1::Identity {
            instance,
            pod,
            namespace,
            node,
            version,
        }),
    )
}

fn basis() -> impl Strategy<Value = Option<v1::Basis>> {
    weighted(0.7, (position(), digest()).prop_map(|(position, digest)| v1::Basis { position, digest }))
}

fn rejection() -> impl Strategy<Value = v1::Rejection> {
    (-1..4_i32, text(), number(), text(), number()).prop_map(|(kind, key, revision, message, held_revision)| v1::Rejection {
        kind,
        key,
        revision,
        message,
        held_revision,
    })
}

fn kill_ack() -> impl Strategy<Value = v1::KillAck> {
    (text(), number(), any::<i64>()).prop_map(|(flag_key, revision, applied_at_us)| v1::KillAck { flag_key, revision, applied_at_us })
}

fn ack() -> BoxedStrategy<v1::Ack> {
    (position(), digest(), any::<i64>(), vec(rejection(), 0..4), vec(kill_ack(), 0..4), number())
        .prop_map(|(position, digest, applied_at_us, rejected, kills, age_ms)| v1::Ack {
            position,
            digest,
            applied_at_us,
            rejected,
            kills,
            age_ms,
        })
        .boxed()
}

fn any_hello() -> BoxedStrategy<v1::Hello> {
    (text(), identity(), basis(), vec(text(), 0..3), any::<bool>())
        .prop_map(|(environment, identity, basis, capabilities, accepts_lz4)| v1::Hello {
            environment,
            identity,
            basis,
            capabilities,
            accepts_lz4,
        })
        .boxed()
}

fn request() -> BoxedStrategy<v1::FollowRequest> {
    use v1::follow_request::Message;
    let message = prop_oneof![
        2 => any_hello().prop_map(Message::Hello),
        3 => ack().prop_map(Message::Ack),
        1 => text().prop_map(|reason| Message::Goodbye(v1::Goodbye { reason })),
        2 => (-1..9_i32, basis()).prop_map(|(cause, held)| Message::Resync(v1::ResyncRequest { cause, held })),
    ];
    weighted(0.95, message).prop_map(|message| v1::FollowRequest { message }).boxed()
}

fn item() -> BoxedStrategy<v1::Item> {
    let definition = prop_oneof![
        Just(Bytes::from_static(br#"{"variants":{"on":true},"defaultVariant":"on"}"#)),
        Just(Bytes::from(vec![b'['; 100_000])),
        vec(any::<u8>(), 0..60).prop_map(Bytes::from),
    ];
    (-1..4_i32, text(), number(), definition)
        .prop_map(|(kind, key, revision, definition)| v1::Item { kind, key, revision, definition })
        .boxed()
}

fn register() -> impl Strategy<Value = v1::KillRegister> {
    (text(), number(), any::<bool>(), text(), text(), any::<i64>()).prop_map(|(flag_key, revision, killed, actor, reason, at_us)| {
        v1::KillRegister { flag_key, revision, killed, actor, reason, at_us }
    })
}

fn any_delta() -> BoxedStrategy<v1::Delta> {
    let name = (-1..4_i32, text()).prop_map(|(kind, key)| v1::ItemName { kind, key });
    (prop_oneof![Just(9), number()], number(), number(), vec(item(), 0..3), vec(name, 0..3), vec(register(), 0..3), digest(), any::<i64>())
        .prop_map(|(epoch, prev_revision, revision, upserts, removed, kills, digest, origin_time_us)| v1::Delta {
            epoch,
            prev_revision,
            revision,
            upserts,
            removed,
            kills,
            digest,
            origin_time_us,
        })
        .boxed()
}

fn any_chunk() -> BoxedStrategy<v1::SnapshotChunk> {
    let data = prop_oneof![vec(any::<u8>(), 0..80), vec(item(), 0..3).prop_map(body_of)];
    let small = || prop_oneof![Just(0_u32), Just(1), Just(2), Just(u32::MAX)];
    (position(), small(), small(), data, any::<bool>(), -1..3_i32, prop_oneof![0..200_u64, number()])
        .prop_map(|(position, index, count, data, is_sound, encoding, length)| {
            let (crc32, state_bytes) = if is_sound { (crc32fast::hash(&data), data.len() as u64) } else { (7, length) };
            v1::SnapshotChunk { position, index, count, data: data.into(), crc32, encoding, state_bytes }
        })
        .boxed()
}

fn body_of(items: Vec<v1::Item>) -> Vec<u8> {
    let position = Some(v1::Position { epoch: 9, revision: 2 });
    prost::Message::encode_to_vec(&v1::State { position, items, kills: Vec::new(), digest: vec![1; 16], origin_time_us: 0 })
}

fn response() -> BoxedStrategy<v1::FollowResponse> {
    let heartbeat = (position(), digest(), any::<i64>(), any::<u32>())
        .prop_map(|(head, digest, server_time_us, pods)| Response::Heartbeat(v1::Heartbeat { head, digest, server_time_us, pods }));
    let welcome = (text(), position(), any::<u32>(), -1..5_i32, text()).prop_map(|(session_id, head, heartbeat_ms, mode, reason)| {
        Response::Welcome(v1::Welcome { session_id, head, heartbeat_ms, mode, reason, pods: heartbeat_ms })
    });
    // Longer ones are waited for, which is what they ask.
    let go_away = (text(), 0..200_u32, 0..200_u32).prop_map(|(reason, retry_after_min_ms, retry_after_max_ms)| {
        Response::GoAway(v1::GoAway { reason, retry_after_min_ms, retry_after_max_ms })
    });
    let message = prop_oneof![
        4 => any_delta().prop_map(Response::Delta),
        4 => any_chunk().prop_map(Response::SnapshotChunk),
        3 => heartbeat,
        1 => welcome,
        1 => go_away,
    ];
    weighted(0.95, message).prop_map(|message| v1::FollowResponse { message }).boxed()
}

/// Runs an asynchronous check for each of some generated values.
fn for_each<T: std::fmt::Debug, F: Future<Output = ()>>(cases: u32, values: impl Strategy<Value = T>, check: impl Fn(T) -> F) {
    let runtime = Runtime::new().unwrap();
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&values, |value| {
            runtime.block_on(check(value));
            prop_assert_eq!(panics(), [""; 0]);
            Ok(())
        })
        .unwrap();
}

proptest! {
    #![proptest_config(Config { cases: 2_000, failure_persistence: None, ..Config::default() })]

    /// What was taken for sound is bounded, and comes back the same.
    #[test]
    fn no_message_of_a_sidecar_gets_by_its_limits(request in request()) {
        match FromSidecar::try_from(request) {
            Ok(FromSidecar::Hello(hello)) => {
                prop_assert!(names(&hello).iter().all(|name| name.len() <= 253 && !name.chars().any(char::is_control)));
                prop_assert!(!hello.identity.instance.is_empty() && !hello.environment.is_empty());
                prop_assert_eq!(Hello::try_from(v1::Hello::from(hello.clone())), Ok(hello));
            }
            Ok(FromSidecar::Ack(ack)) => {
                let messages = ack.rejected.iter().all(|Rejection { name, message, .. }| !name.key.is_empty() && message.len() <= 512);
                let kills = ack.kills.iter().all(|KillAck { flag_key, .. }| !flag_key.is_empty());
                prop_assert!(messages && kills);
                prop_assert_eq!(Ack::try_from(v1::Ack::from(ack.clone())), Ok(ack));
            }
            Ok(FromSidecar::Goodbye { reason }) => prop_assert!(reason.len() <= 512),
            Ok(FromSidecar::Resync(_)) | Err(_) => {}
        }
    }

    #[test]
    fn no_bytes_at_all_make_a_message_that_panics(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(message) = <v1::FollowRequest as prost::Message>::decode(&bytes[..]) {
            let _ = FromSidecar::try_from(message);
        }
        if let Ok(message) = <v1::Delta as prost::Message>::decode(&bytes[..]) {
            let _ = Delta::try_from(message);
        }
        if let Ok(message) = <v1::State as prost::Message>::decode(&bytes[..]) {
            let _ = State::try_from(message);
        }
        if let Ok(message) = <v1::KillRegister as prost::Message>::decode(&bytes[..]) {
            let _ = Kill::try_from(message);
        }
        let _ = environment(String::from_utf8_lossy(&bytes).into_owned());
    }
}

fn names(hello: &Hello) -> Vec<&String> {
    let Identity { instance, pod, namespace, node, version } = &hello.identity;
    let mut names = vec![&hello.environment, instance, pod, namespace, node, version];
    names.extend(&hello.capabilities);
    names
}

/// After any words of anybody, a sidecar that behaves is served, and a kill gets through.
#[test]
fn a_control_plane_that_hears_anything_goes_on_serving_the_others() {
    let runtime = Runtime::new().unwrap();
    let plane = runtime.block_on(async {
        let plane = Plane::start().await;
        plane.put("checkout").await;
        plane
    });
    let first = prop_oneof![1 => request(), 2 => Just(FromSidecar::Hello(hello("hostile", None)).into())];
    for_each(150, (first, vec(request(), 0..6)), |(first, words)| {
        let address = plane.address;
        async move {
            let mut client = raw::connect(address).await;
            let Ok(mut stream) = Raw::say(&mut client, first).await else { return };
            for word in words {
                // The stream may have ended already.
                let _ = stream.says.send(word).await;
            }
            drop(stream.says);
            within("the stream ends", async { while let Ok(Some(_)) = stream.hears.message().await {} }).await;
        }
    });
    for_each(100, (text(), identity(), basis(), weighted(0.5, ack())), |(environment, identity, basis, ack)| {
        let address = plane.address;
        async move {
            let mut client = raw::connect(address).await;
            let lane = v1::UrgentRequest { environment: environment.clone(), identity: identity.clone() };
            if let Ok(lane) = within("an answer", client.urgent(lane)).await {
                let _ = within("the first notice", lane.into_inner().message()).await;
            }
            let _ = within("an answer", client.fetch(v1::FetchRequest { environment, identity, basis, ack })).await;
        }
    });
    runtime.block_on(async {
        let sidecar = Sidecar::start("honest", plane.address).await;
        sidecar.is_at(plane.head()).await;
        plane.kill("checkout").await;
        sidecar.sees_killed("checkout").await;
    });
}

const HELD: Position = Position { epoch: 9, revision: 1 };

fn held() -> State {
    let definition = r#"{"variants":{"on":true,"off":false},"defaultVariant":"on"}"#.into();
    state(HELD, vec![Item { name: ItemName::flag("checkout"), revision: 1, definition }], Vec::new())
}

/// After any words of a control plane, a sidecar serves what it holds, and follows the next one that behaves.
#[test]
fn a_sidecar_that_hears_anything_goes_on_serving_what_it_holds() {
    for_each(100, vec(response(), 1..8), |responses| async move {
        let mut script = Script::start().await;
        let sidecar = Sidecar::start("pod", script.address).await;
        let mut follow = script.follow().await;
        follow.welcome_with(held()).await;
        follow.acked(HELD).await;
        for response in responses {
            follow.answer(response).await;
        }
        drop(follow);
        let mut follow = script.follow().await;
        assert_eq!(follow.hello.basis, Some(Basis { position: HELD, digest: held().digest }), "nothing of it was applied");
        assert_eq!(sidecar.serves("checkout"), Some(("on".into(), Reason::Static)));
        let next = state(Position { revision: 5, ..HELD }, held().items, Vec::new());
        follow.welcome_with(next.clone()).await;
        follow.acked(next.position).await;
    });
}

#[test]
fn a_sidecar_that_hears_anything_on_the_kill_lane_listens_on() {
    for_each(60, vec((number(), weighted(0.9, register())), 1..8), |notices| async move {
        let mut script = Script::start().await;
        let sidecar = Sidecar::start("pod", script.address).await;
        let mut follow = script.follow().await;
        let lane = script.lane().await;
        follow.welcome_with(held()).await;
        follow.acked(HELD).await;
        for (epoch, kill) in notices {
            lane.send(Ok(v1::KillNotice { epoch, kill, server_time_us: 0 })).await.unwrap();
        }
        let kill =
            Kill { flag_key: "checkout".into(), revision: u64::MAX, killed: true, actor: String::new(), reason: String::new(), at_us: 0 };
        lane.send(Ok(v1::KillNotice { epoch: 9, kill: Some(kill.into()), server_time_us: 0 })).await.unwrap();
        sidecar.sees_killed("checkout").await;
    });
}

#[test]
fn a_sidecar_that_is_polled_anything_goes_on_polling() {
    use v1::fetch_response::Answer;
    let answer = prop_oneof![
        any_delta().prop_map(Answer::Delta),
        vec(any_chunk(), 0..4).prop_map(|chunks| Answer::Snapshot(v1::Snapshot { chunks })),
        (position(), digest()).prop_map(|(head, digest)| Answer::NotModified(v1::Heartbeat { head, digest, server_time_us: 0, pods: 9 })),
    ];
    for_each(12, weighted(0.9, answer), |answer| async move {
        let script = Script::start().await;
        // Streams are accepted and never answered with a welcome, so that it polls.
        script.poll.send_replace(Some(v1::FetchResponse { answer }));
        let sidecar = Sidecar::start("pod", script.address).await;
        let asked = || {
            let metrics = sidecar.metrics();
            let read = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
            read(&metrics.polls) + read(&metrics.poll_failures)
        };
        until("it has polled", || asked() > 0).await;
        let chunks = vec![crate::rig::script::chunk(held())];
        script.poll.send_replace(Some(v1::FetchResponse { answer: Some(Answer::Snapshot(v1::Snapshot { chunks })) }));
        sidecar.is_at(HELD).await;
        assert_eq!(sidecar.serves("checkout"), Some(("on".into(), Reason::Static)));
    });
}

#[tokio::test]
async fn a_welcome_of_any_heartbeat_is_kept_within_reason() {
    for heartbeat_ms in [0, 1, u32::MAX] {
        let mut script = Script::start().await;
        let sidecar = Sidecar::start("pod", script.address).await;
        let follow = script.follow().await;
        follow.welcome(HELD, Mode::Snapshot, heartbeat_ms).await;
        follow.snapshot(held()).await;
        sidecar.is_at(HELD).await;
    }
}
