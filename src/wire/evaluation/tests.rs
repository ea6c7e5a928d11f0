//! What is read and written by hand must be what the generated messages read and write.

use proptest::prelude::*;
use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::json;

use super::watch::{ChangeType, FlagState, SnapshotPart, change_frame, heartbeat_frame, put_decision};
use super::*;
use crate::flag::{self, Attribute, Attributes as _, Position};
use crate::wire::flagd::{v1 as flagd_v1, v2 as flagd_v2};
use crate::wire::v1;

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(None),
        Just(Some(Kind::NullValue(0))),
        any::<bool>().prop_map(|value| Some(Kind::BoolValue(value))),
        (-1e9..1e9).prop_map(|value| Some(Kind::NumberValue(value))),
        ".{0,20}".prop_map(|value| Some(Kind::StringValue(value))),
    ];
    leaf.prop_map(|kind| Value { kind }).prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| Kind::ListValue(ListValue { values })),
            prop::collection::btree_map("[a-c.]{0,3}", inner, 0..4).prop_map(|fields| Kind::StructValue(Struct { fields })),
        ]
        .prop_map(|kind| Value { kind: Some(kind) })
    })
}

fn any_context() -> impl Strategy<Value = v1::Context> {
    let attributes = prop::collection::btree_map("[a-c.]{0,3}", any_value(), 0..8);
    ("[a-z]{0,4}", prop::option::of(attributes))
        .prop_map(|(targeting_key, fields)| v1::Context { targeting_key, attributes: fields.map(|fields| Struct { fields }) })
}

fn json_of(value: &Value) -> serde_json::Value {
    match value.kind.as_ref() {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => json!(value),
        Some(Kind::NumberValue(value)) => json!(value),
        Some(Kind::StringValue(value)) => json!(value),
        Some(Kind::ListValue(list)) => list.values.iter().map(json_of).collect(),
        Some(Kind::StructValue(object)) => object.fields.iter().map(|(name, value)| (name.clone(), json_of(value))).collect(),
    }
}

fn owned(context: &v1::Context) -> flag::Context {
    let fields = context.attributes.iter().flat_map(|attributes| &attributes.fields);
    let attributes = fields.map(|(name, value)| (name.clone(), json_of(value))).collect();
    flag::Context { targeting_key: Some(context.targeting_key.clone()), attributes }
}

fn elements(context: &impl flag::Attributes, path: &str) -> Vec<String> {
    let mut seen = Vec::new();
    context.any_element(path, &mut |element| {
        seen.push(format!("{element:?}"));
        false
    });
    seen
}

#[test]
fn a_field_number_beyond_those_of_protobuf_is_refused() {
    let key_of_33_bits = [0x80, 0x80, 0x80, 0x80, 0x10, 0];
    assert!(v1::Context::decode(&key_of_33_bits[..]).is_err() && Context::read(&key_of_33_bits).is_err());
}

proptest! {
    #[test]
    fn a_context_in_place_has_the_attributes_of_an_owned_one(context in any_context(), path in "[a-c.]{0,5}") {
        let bytes = context.encode_to_vec();
        let (read, owned) = (Context::read(&bytes).unwrap(), owned(&context));
        for path in [path.as_str(), "targetingKey", "a", "b", "a.b", "a.b.c"] {
            prop_assert_eq!(read.attribute(path), owned.attribute(path), "{}", path);
            prop_assert_eq!(elements(&read, path), elements(&owned, path), "{}", path);
        }
    }

    #[test]
    fn what_is_not_a_message_to_the_generated_code_is_none_here(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        if Context::read(&bytes).is_ok() {
            prop_assert!(v1::Context::decode(&bytes[..]).is_ok());
        }
        if Question::read(&bytes).is_ok() {
            prop_assert!(v1::EvaluateRequest::decode(&bytes[..]).is_ok());
        }
        if flagd::read_question(&bytes).is_ok() {
            prop_assert!(flagd_v2::ResolveObjectRequest::decode(&bytes[..]).is_ok());
        }
        if flagd::read_question_of_all(&bytes).is_ok() {
            prop_assert!(flagd_v1::ResolveAllRequest::decode(&bytes[..]).is_ok());
        }
    }

    #[test]
    fn a_question_of_flagd_in_place_is_the_generated_one(context in any_context(), key in ".{0,10}") {
        let mut fields = context.attributes.clone().unwrap_or_default();
        fields.fields.insert("targetingKey".into(), Value { kind: Some(Kind::StringValue(context.targeting_key.clone())) });
        let one = flagd_v2::ResolveObjectRequest { flag_key: key, context: Some(fields.clone()) };
        let all = flagd_v1::ResolveAllRequest { context: Some(fields) };
        let (one_bytes, all_bytes, owned) = (one.encode_to_vec(), all.encode_to_vec(), owned(&context));
        let question = flagd::read_question(&one_bytes).unwrap();
        prop_assert_eq!(question.flag_key, &one.flag_key);
        for read in [question.context, flagd::read_question_of_all(&all_bytes).unwrap()] {
            prop_assert_eq!(read.targeting_key(), owned.targeting_key());
            for path in ["targetingKey", "a", "b", "a.b", "a.b.c"] {
                prop_assert_eq!(read.attribute(path), owned.attribute(path), "{}", path);
            }
        }
    }

    #[test]
    fn a_question_in_place_is_the_generated_one(context in any_context(), key in ".{0,10}", default in prop::option::of(any_value()), kind in 0..6) {
        let request = v1::EvaluateRequest { flag_key: key, context: Some(context), default_value: default, r#type: kind };
        let bytes = request.encode_to_vec();
        let question = Question::read(&bytes).unwrap();
        prop_assert_eq!(question.flag_key, &request.flag_key);
        prop_assert_eq!(question.default_value.map(|value| Value::decode(value).unwrap()), request.default_value.clone());
        let stream = v1::EvaluateStreamRequest { id: u64::MAX, request: Some(request.clone()) }.encode_to_vec();
        let stream = StreamQuestion::read(&stream).unwrap();
        prop_assert_eq!((stream.id, Question::read(stream.question).unwrap().flag_key), (u64::MAX, request.flag_key.as_str()));
    }

    #[test]
    fn an_object_is_written_as_the_generated_code_reads_it(value in any_value()) {
        if let serde_json::Value::Object(fields) = json_of(&value) {
            let encoded = encode_value(&flag::Value::Object(fields.clone()));
            prop_assert_eq!(json_of(&Value::decode(encoded).unwrap()), serde_json::Value::Object(fields));
        }
    }

    #[test]
    fn an_answer_is_written_as_the_generated_code_reads_it(
        texts in prop::collection::vec(".{0,300}", 4), bucket in prop::option::of(any::<u32>()), revision in any::<u64>(),
        age_ms in any::<u64>(), reason in 0..8_usize, id in any::<u64>(),
    ) {
        let answer = Answer {
            flag_key: &texts[0], value: Some(EncodedValue::String(&texts[1])), variant: &texts[2], reason: Reason::ALL[reason],
            rule: &texts[3], bucket, revision, age_ms, error: Some(ErrorCode::General), message: &texts[1],
        };
        let expected = v1::Decision {
            flag_key: texts[0].clone(), value: Some(Value { kind: Some(Kind::StringValue(texts[1].clone())) }), variant: texts[2].clone(),
            reason: v1::Reason::from(Reason::ALL[reason]).into(), rule: texts[3].clone(), bucket, revision, age_ms,
            error_code: v1::ErrorCode::General.into(), error_message: texts[1].clone(),
        };
        let mut out = Vec::new();
        answer.put(&mut out);
        prop_assert_eq!(out.len(), answer.len());
        prop_assert_eq!(&v1::Decision::decode(&out[..]).unwrap(), &expected);
        let mut stream = Vec::new();
        EvaluateResponse::new(Reply::Whole(&answer)).write_to_stream(id, &mut stream);
        let decoded = v1::EvaluateStreamResponse::decode(content(&stream)).unwrap();
        let result = Some(v1::evaluate_stream_response::Result::Decision(expected.clone()));
        prop_assert_eq!(decoded, v1::EvaluateStreamResponse { id, result });
        let mut batch = BatchAnswer::new(Position { epoch: 1, revision }, 1);
        batch.push(Reply::Whole(&answer));
        let decoded = v1::EvaluateBatchResponse::decode(content(&batch.into_frame())).unwrap();
        prop_assert_eq!(decoded, v1::EvaluateBatchResponse { decisions: vec![expected], position: Some(v1::Position { epoch: 1, revision }) });
    }
}

/// What is in a gRPC frame, which must be exactly one.
fn content(frame: &[u8]) -> &[u8] {
    let (head, content) = frame.split_at(5);
    assert_eq!((head[0], u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize), (0, content.len()));
    content
}

fn event(frame: &[u8]) -> v1::watch_flags_response::Event {
    v1::WatchFlagsResponse::decode(content(frame)).unwrap().event.unwrap()
}

#[test]
fn events_of_a_watch_are_written_as_the_generated_code_reads_them() {
    let position = Position { epoch: 9, revision: 8 };
    let answer = Answer {
        flag_key: "f",
        value: Some(EncodedValue::Bool(false)),
        variant: "off",
        reason: Reason::Killed,
        rule: "",
        bucket: Some(0),
        revision: 7,
        age_ms: 0,
        error: None,
        message: "",
    };
    let mut decisions = Vec::new();
    put_decision(&mut decisions, &answer);
    let state = FlagState { key: "f", revision: 7, killed: true, definition: b"{}", decisions: &decisions };
    let decision = v1::Decision {
        flag_key: "f".into(),
        value: Some(Value { kind: Some(Kind::BoolValue(false)) }),
        variant: "off".into(),
        reason: v1::Reason::Killed.into(),
        bucket: Some(0),
        revision: 7,
        ..v1::Decision::default()
    };
    let expected = v1::FlagState { key: "f".into(), revision: 7, killed: true, definition: "{}".into(), decisions: vec![decision] };

    let change = change_frame(ChangeType::Killed, &state, Some(position), -1);
    let origin_time = Some(prost_types::Timestamp { seconds: -1, nanos: 999_999_000 });
    let told =
        v1::FlagChange { r#type: ChangeType::Killed.into(), flag: Some(expected.clone()), position: Some(position.into()), origin_time };
    assert_eq!(event(&change), v1::watch_flags_response::Event::Change(told));

    let beat = v1::WatchHeartbeat { position: Some(position.into()), age_ms: 5 };
    assert_eq!(event(&heartbeat_frame(position, 5)), v1::watch_flags_response::Event::Heartbeat(beat));

    let mut part = SnapshotPart::default();
    part.push(&state);
    let snapshot = v1::WatchSnapshot { position: None, flags: vec![expected.clone()], last: false };
    assert_eq!(event(&part.into_frame(None)), v1::watch_flags_response::Event::Snapshot(snapshot));
    let mut part = SnapshotPart::default();
    part.push(&state);
    part.push(&state);
    let snapshot = v1::WatchSnapshot { position: Some(position.into()), flags: vec![expected.clone(), expected], last: true };
    assert_eq!(event(&part.into_frame(Some(position))), v1::watch_flags_response::Event::Snapshot(snapshot));
}

#[test]
fn of_two_entries_with_one_name_the_later_counts_and_occurrences_add_up() {
    let entry = |name: &str, value: bool| {
        let fields = [(name.to_owned(), Value { kind: Some(Kind::BoolValue(value)) })].into();
        v1::Context { targeting_key: String::new(), attributes: Some(Struct { fields }) }.encode_to_vec()
    };
    let bytes = [entry("a", false), entry("b", true), entry("a", true)].concat();
    let context = Context::read(&bytes).unwrap();
    assert_eq!(context.attribute("a"), Some(Attribute::Bool(true)));
    assert_eq!(context.attribute("b"), Some(Attribute::Bool(true)));
}
