//! What a hostile or a careless caller cannot do to a pod.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use yardarm::sidecar::{Limits, Serve};
use yardarm::wire::v1::{
    Context, EvaluateBatchRequest, EvaluateRequest, EvaluateStreamRequest, FlagSelector, WatchFlagsRequest, evaluate_stream_response,
};

use crate::http2::{self, Raw};
use crate::pod::{FLAGS, Pod, evaluate, person, question, soon, watch_keys};

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.into())) }
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(text("end"), |inner, level| {
        let kind = if level % 2 == 0 {
            Kind::ListValue(ListValue { values: vec![inner] })
        } else {
            Kind::StructValue(Struct { fields: [("in".to_owned(), inner)].into() })
        };
        Value { kind: Some(kind) }
    })
}

fn context(attributes: impl IntoIterator<Item = (String, Value)>) -> Context {
    Context { targeting_key: "ana".into(), attributes: Some(Struct { fields: attributes.into_iter().collect() }) }
}

fn violated(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    (status.code(), details.bad_request().map_or_else(String::new, |bad| bad.field_violations[0].field.clone()))
}

#[tokio::test]
async fn a_context_over_a_limit_is_refused_with_the_field_by_every_method() {
    let pod = Pod::start(FLAGS).await;
    let mut client = pod.client().await;
    let many = |count: usize| context((0..count).map(|n| (format!("a{n}"), text("x"))));
    let cases = [
        (context([("big".into(), text(&"x".repeat(65 * 1024)))]), "context"),
        (context([("far".into(), text(&"x".repeat(900 * 1024)))]), "context"),
        (many(257), "context.attributes"),
        (context([("deep".into(), nested(17))]), "context.attributes.deep"),
    ];
    for (context, field) in cases {
        let expected = (Code::InvalidArgument, field.to_owned());
        assert_eq!(violated(&client.evaluate(question("greeting", context.clone())).await.unwrap_err()), expected);
        let batch = EvaluateBatchRequest { selector: None, context: Some(context.clone()) };
        assert_eq!(violated(&client.evaluate_batch(batch).await.unwrap_err()), expected);
        let watch = WatchFlagsRequest { detail: 2, contexts: vec![context.clone()], ..watch_keys(&[]) };
        assert_eq!(violated(&client.watch_flags(watch).await.unwrap_err()), expected);
        // On a stream it is this question that fails, and those around it are answered.
        let answers = on_a_stream(&pod, [person("ana"), context, person("ana")]).await.unwrap();
        let [before, error, after] = answers.as_slice() else { panic!("{answers:?}") };
        assert_eq!((before.as_str(), after.as_str()), ("0 short", "2 short"));
        assert!(error.starts_with(&format!("1 code 3 {field} ")), "{error}");
    }
    // At the limit it is taken.
    for context in [many(256), context([("deep".into(), nested(16))]), context([("big".into(), text(&"x".repeat(65_000)))])] {
        assert_eq!(evaluate(&mut client, question("greeting", context)).await.variant, "short");
    }
}

/// What a stream answers to the question for `greeting` of each context, with its id.
async fn on_a_stream(pod: &Pod, contexts: impl IntoIterator<Item = Context>) -> Result<Vec<String>, Status> {
    let request = |(id, context)| EvaluateStreamRequest { id, request: Some(question("greeting", context)) };
    let requests: Vec<_> = (0..).zip(contexts).map(request).collect();
    let mut answers = pod.client().await.evaluate_stream(tokio_stream::iter(requests)).await?.into_inner();
    let mut heard = Vec::new();
    while let Some(answer) = soon(answers.message()).await? {
        heard.push(match answer.result.unwrap() {
            evaluate_stream_response::Result::Decision(decision) => format!("{} {}", answer.id, decision.variant),
            evaluate_stream_response::Result::Error(error) => format!("{} code {} {}", answer.id, error.code, error.message),
        });
    }
    Ok(heard)
}

#[tokio::test]
async fn a_context_in_many_parts_is_measured_as_a_whole() {
    let pod = Pod::start(FLAGS).await;
    let raw = RawCalls::new(&pod).await;
    let part = context([("big".into(), text(&"x".repeat(40 * 1024)))]).encode_to_vec();
    let part = [&[2 << 3 | 2][..], &varint(part.len()), &part].concat();
    for method in ["Evaluate", "EvaluateBatch"] {
        assert!(raw.call(method, part.clone().into()).await.is_ok(), "{method}");
        for times in [2, 20] {
            let refused = raw.call(method, part.repeat(times).into()).await.unwrap_err();
            assert_eq!(violated(&refused), (Code::InvalidArgument, "context".to_owned()), "{method} with {times}");
        }
    }
}

#[tokio::test]
async fn a_question_that_is_too_large_to_be_read_ends_the_stream_and_says_so() {
    let pod = Pod::start(FLAGS).await;
    let far = context([("far".into(), text(&"x".repeat(2 << 20)))]);
    let refused = on_a_stream(&pod, [far, person("ana")]).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("at most"), "{}", refused.message());
}

#[tokio::test]
async fn a_default_value_that_is_too_deep_is_refused_with_the_field() {
    let pod = Pod::start(FLAGS).await;
    let request = EvaluateRequest { default_value: Some(nested(17)), ..question("nowhere", person("ana")) };
    let refused = pod.client().await.evaluate(request).await.unwrap_err();
    assert_eq!(violated(&refused), (Code::InvalidArgument, "default_value".to_owned()));
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_before_it_has_arrived() {
    let pod = Pod::start(FLAGS).await;
    let mut raw = Raw::greeted(pod.running.tcp).await;
    raw.frame(http2::HEADERS, http2::END_HEADERS, 1, &http2::call("/yardarm.v1.Evaluation/Evaluate")).await;
    // Four gigabytes are announced, and none of them sent.
    raw.frame(http2::DATA, 0, 1, &[0, 0xff, 0xff, 0xff, 0xff]).await;
    while raw.next().await.expect("an answer").kind != http2::HEADERS {}
    let mut client = pod.client().await;
    let refused = client.evaluate(question(&"k".repeat(2 << 20), person("ana"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_batch_that_is_more_than_an_answer_can_carry_says_so() {
    let value = "x".repeat(200_000);
    let flags: String = (0..25).map(|n| format!("  f{n}: {{ variants: {{ v: {value} }}, defaultVariant: v }}\n")).collect();
    let pod = Pod::start(&format!("flags:\n{flags}")).await;
    let mut client = pod.client().await;
    let all = EvaluateBatchRequest { selector: None, context: Some(person("ana")) };
    let refused = client.evaluate_batch(all).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("narrow"), "{}", refused.message());
    let selector = FlagSelector { prefix: "f1".into(), ..FlagSelector::default() };
    let some = EvaluateBatchRequest { selector: Some(selector), context: Some(person("ana")) };
    assert_eq!(client.evaluate_batch(some).await.unwrap().into_inner().decisions.len(), 11);
}

#[tokio::test]
async fn over_the_limit_of_connections_the_next_is_closed_until_one_ends() {
    let limits = Limits { max_connections: 2, ..Limits::default() };
    let pod = Pod::start_with(&Serve { threads: Some(2), limits, ..Serve::default() }, FLAGS).await;
    let first = Raw::greeted(pod.running.tcp).await;
    let _second = Raw::greeted(pod.running.tcp).await;
    Raw::silent(pod.running.tcp).await.closed().await;
    drop(first);
    soon(async {
        loop {
            let mut again = Raw::silent(pod.running.tcp).await;
            if tokio::io::AsyncWriteExt::write_all(&mut again.0, http2::PREFACE).await.is_ok() && again.next().await.is_some() {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn ten_thousand_watches_fit_on_one_connection() {
    let pod = Pod::start(FLAGS).await;
    let client = pod.client().await;
    let mut watches = Vec::new();
    for _ in 0..10_000 {
        watches.push(soon(client.clone().watch_flags(watch_keys(&["greeting"]))).await.unwrap().into_inner());
    }
    for watch in [0, 4999, 9999] {
        assert!(soon(watches[watch].message()).await.unwrap().is_some());
    }
    // And a question beside them is answered.
    assert_eq!(evaluate(&mut client.clone(), question("greeting", person("ana"))).await.variant, "short");
}

#[tokio::test]
async fn rapid_resets_cost_the_connection_and_nobody_else() {
    let pod = Pod::start(FLAGS).await;
    let mut client = pod.client().await;
    let block = http2::call("/yardarm.v1.Evaluation/Evaluate");
    let mut raw = Raw::greeted(pod.running.tcp).await;
    let mut flood = Vec::new();
    for stream in (1..20_000).step_by(2) {
        flood.extend(http2::frame(http2::HEADERS, http2::END_HEADERS, stream, &block));
        flood.extend(http2::frame(http2::RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    let flooding = tokio::spawn(async move {
        // The server hangs up in the middle of it.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut raw.0, &flood).await;
        let mut said_go_away = false;
        while let Some(frame) = raw.next().await {
            said_go_away |= frame.kind == http2::GOAWAY && frame.payload[4..8] == 11_u32.to_be_bytes();
        }
        said_go_away
    });
    assert!(soon(flooding).await.unwrap(), "the connection ended without ENHANCE_YOUR_CALM");
    assert_eq!(evaluate(&mut client, question("greeting", person("ana"))).await.variant, "short");
}

#[tokio::test]
async fn a_header_list_without_end_costs_the_connection_and_nobody_else() {
    let pod = Pod::start(FLAGS).await;
    let mut client = pod.client().await;
    let mut raw = Raw::greeted(pod.running.tcp).await;
    let mut flood = http2::frame(http2::HEADERS, 0, 1, &http2::call("/yardarm.v1.Evaluation/Evaluate"));
    let mut filler = vec![0, 1, b'x', 100];
    filler.extend([b'y'; 100]);
    for _ in 0..10_000 {
        flood.extend(http2::frame(http2::CONTINUATION, 0, 1, &filler.repeat(10)));
    }
    let flooding = tokio::spawn(async move {
        let _ = tokio::io::AsyncWriteExt::write_all(&mut raw.0, &flood).await;
        raw.closed().await;
    });
    soon(flooding).await.unwrap();
    assert_eq!(evaluate(&mut client, question("greeting", person("ana"))).await.variant, "short");
}

#[tokio::test]
async fn a_depth_bomb_is_refused_and_the_pod_goes_on() {
    // Lists within lists, written by hand, far beyond what any decoder follows.
    let mut bomb = Vec::new();
    for _ in 0..20_000 {
        let mut outer = Vec::with_capacity(bomb.len() + 12);
        for field in [1_u32 << 3 | 2, 6 << 3 | 2] {
            let mut next = Vec::new();
            prost::encoding::encode_varint(field.into(), &mut next);
            prost::encoding::encode_varint((if outer.is_empty() { bomb.len() } else { outer.len() }) as u64, &mut next);
            next.extend(if outer.is_empty() { &bomb } else { &outer });
            outer = next;
        }
        if outer.len() > 60_000 {
            break;
        }
        bomb = outer;
    }
    let entry = [&[1 << 3 | 2, 1, b'd', 2 << 3 | 2][..], &varint(bomb.len()), &bomb].concat();
    let attributes = [&[1 << 3 | 2][..], &varint(entry.len()), &entry].concat();
    let context = [&[2 << 3 | 2][..], &varint(attributes.len()), &attributes].concat();
    let request = [&[2 << 3 | 2][..], &varint(context.len()), &context].concat();
    let pod = Pod::start(FLAGS).await;
    let raw = RawCalls::new(&pod).await;
    for method in ["Evaluate", "EvaluateBatch"] {
        assert_eq!(raw.call(method, request.clone().into()).await.unwrap_err().code(), Code::InvalidArgument, "{method}");
    }
    assert_eq!(evaluate(&mut pod.client().await, question("greeting", person("ana"))).await.variant, "short");
}

fn varint(value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(value as u64, &mut bytes);
    bytes
}

#[tokio::test]
async fn compressed_and_unframed_messages_and_other_protocols_are_refused_politely() {
    let pod = Pod::start(FLAGS).await;
    let mut raw = Raw::greeted(pod.running.tcp).await;
    let block = http2::call("/yardarm.v1.Evaluation/Evaluate");
    for (stream, body) in [(1, &[1, 0, 0, 0, 0][..]), (3, &[0, 0, 0, 0, 9, 1]), (5, &[][..]), (7, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0])] {
        raw.frame(http2::HEADERS, http2::END_HEADERS, stream, &block).await;
        raw.frame(http2::DATA, http2::END_STREAM, stream, body).await;
    }
    let mut answered = Vec::new();
    while answered.len() < 4 {
        let frame = raw.next().await.expect("an answer");
        if frame.kind == http2::HEADERS {
            answered.push(frame.stream);
        }
    }
    let mut neither = Raw::silent(pod.running.tcp).await;
    neither.send(b"HELO pod\r\n\r\n").await;
    neither.closed().await;
    assert_eq!(evaluate(&mut pod.client().await, question("greeting", person("ana"))).await.variant, "short");
}

/// Calls whose messages are any bytes.
struct RawCalls(Grpc<Channel>);

#[derive(Clone, Copy, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }
}

impl RawCalls {
    async fn new(pod: &Pod) -> Self {
        Self(Grpc::new(pod.channel().await))
    }

    /// The first answer, or the status.
    async fn call(&self, method: &str, message: Bytes) -> Result<Option<Bytes>, Status> {
        let mut calls = self.0.clone();
        calls.ready().await.unwrap();
        let path = format!("/yardarm.v1.Evaluation/{method}").parse().unwrap();
        let request = tonic::Request::new(tokio_stream::once(message));
        soon(calls.streaming(request, path, Plain)).await?.into_inner().message().await
    }
}

/// Bytes that are nearly a message: a valid one with bytes changed, cut and repeated.
fn nearly(message: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = message.len();
    let edits = prop::collection::vec((0..length.max(1), any::<u8>()), 0..8);
    (edits, 0..=length, any::<bool>()).prop_map(move |(edits, cut, twice)| {
        let mut bytes = message.clone();
        for (at, byte) in edits {
            if let Some(slot) = bytes.get_mut(at) {
                *slot = byte;
            }
        }
        bytes.truncate(cut);
        if twice { bytes.repeat(2) } else { bytes }
    })
}

#[test]
fn hostile_messages_are_answered_or_refused_and_never_end_the_pod() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let pod = runtime.block_on(Pod::start(FLAGS));
    let calls = runtime.block_on(RawCalls::new(&pod));
    let honest = EvaluateRequest {
        default_value: Some(nested(3)),
        ..question("sales_email", context([("cohort".into(), text("beta")), ("deep".into(), nested(5)), ("n".into(), text("7"))]))
    };
    let batch = EvaluateBatchRequest {
        selector: Some(FlagSelector { keys: vec!["limit".into()], ..FlagSelector::default() }),
        context: honest.context.clone(),
    };
    let watch = WatchFlagsRequest { detail: 2, contexts: vec![honest.context.clone().unwrap()], ..watch_keys(&["limit"]) };
    let stream = EvaluateStreamRequest { id: 7, request: Some(honest.clone()) };
    let methods = [
        ("Evaluate", honest.encode_to_vec()),
        ("EvaluateBatch", batch.encode_to_vec()),
        ("EvaluateStream", stream.encode_to_vec()),
        ("WatchFlags", watch.encode_to_vec()),
    ];
    let any_message = (0..methods.len()).prop_flat_map(|method| {
        let bytes = prop_oneof![nearly(methods[method].1.clone()), prop::collection::vec(any::<u8>(), 0..200)];
        (Just(methods[method].0), bytes)
    });
    let mut runner = TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
    let verdict = runner.run(&any_message, |(method, bytes)| {
        let answer = runtime.block_on(calls.call(method, bytes.into()));
        match answer {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(TestCaseError::fail(format!("{method} ended with OK and no message"))),
            Err(status) if matches!(status.code(), Code::InvalidArgument | Code::ResourceExhausted) => Ok(()),
            Err(status) => Err(TestCaseError::fail(format!("{method}: {status}"))),
        }
    });
    verdict.unwrap();
    runtime.block_on(async {
        assert_eq!(evaluate(&mut pod.client().await, question("greeting", person("ana"))).await.variant, "short");
        assert_eq!(tokio::time::timeout(Duration::from_secs(30), pod.stop()).await.unwrap(), []);
    });
}
