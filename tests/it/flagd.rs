//! What flagd's providers are promised on port 8013: its three services, asked by clients that are generated from its messages.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use serde_json::{Value as Json, json};
use tokio_stream::StreamExt as _;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use yardarm::sidecar::{Limits, Serve};
use yardarm::telemetry::decisions;
use yardarm::wire::flagd::{schema, v1, v2};
use yardarm::wire::json::{from_value, to_struct};
use yardarm::wire::v1::tracking_client::TrackingClient;
use yardarm::wire::v1::{TrackRequest, TrackResponse};

use crate::evidence::{DOCUMENT, outcome};
use crate::management::metrics;
use crate::pod::{FLAGS, Pod, soon};
use crate::watch::flag;

/// What the flags of most tests lack.
const MORE: &str = r#"
flags:
  nothing_by_default:
    variants: { a: x, b: "y" }
    rules: [ { name: beta, when: [ { attribute: plan, in: [beta] } ], serve: b } ]
  off_has_a_variant:
    state: DISABLED
    variants: { "on": true, "off": false }
    defaultVariant: "on"
    offVariant: "off"
  armed:
    variants: { "on": true, "off": false }
    defaultVariant: "on"
    killVariant: "off"
  described:
    metadata: { team: payments, version: 3, rule: "its own" }
    variants: { big: 9007199254740991, negative: -2.75 }
    defaultVariant: negative
"#;

fn context(context: &Json) -> Option<Struct> {
    Some(to_struct(context.as_object().unwrap()))
}

fn ana() -> Option<Struct> {
    context(&json!({ "targetingKey": "ana" }))
}

fn read(fields: Option<Struct>) -> Json {
    fields.map_or(Json::Null, |fields| from_value(&Value { kind: Some(Kind::StructValue(fields)) }))
}

async fn v2(pod: &Pod) -> v2::service_client::ServiceClient<Channel> {
    v2::service_client::ServiceClient::new(pod.channel().await)
}

async fn v1(pod: &Pod) -> v1::service_client::ServiceClient<Channel> {
    v1::service_client::ServiceClient::new(pod.channel().await)
}

async fn schema(pod: &Pod) -> schema::service_client::ServiceClient<Channel> {
    schema::service_client::ServiceClient::new(pod.channel().await)
}

async fn with_more() -> Pod {
    let mut pod = Pod::start(FLAGS).await;
    pod.apply(MORE);
    pod
}

async fn boolean(pod: &Pod, flag_key: &str) -> v2::ResolveBooleanResponse {
    let request = v2::ResolveBooleanRequest { flag_key: flag_key.into(), context: ana() };
    v2(pod).await.resolve_boolean(request).await.unwrap().into_inner()
}

/// Each type asked under one name, with what is answered as `value reason variant`.
macro_rules! every_type {
    ($client:expr, $messages:ident, $variant:expr) => {{
        let mut client = $client;
        let (mut heard, variant) = (Vec::new(), $variant);
        let request = $messages::ResolveBooleanRequest { flag_key: "new_checkout_flow".into(), context: ana() };
        let said = client.resolve_boolean(request).await.unwrap().into_inner();
        heard.push(format!("{:?} {} {}", said.value, said.reason, variant(said.variant)));
        let request = $messages::ResolveStringRequest { flag_key: "greeting".into(), context: ana() };
        let said = client.resolve_string(request).await.unwrap().into_inner();
        heard.push(format!("{:?} {} {}", said.value, said.reason, variant(said.variant)));
        let request = $messages::ResolveFloatRequest { flag_key: "limit".into(), context: ana() };
        let said = client.resolve_float(request).await.unwrap().into_inner();
        heard.push(format!("{:?} {} {}", said.value, said.reason, variant(said.variant)));
        let request = $messages::ResolveIntRequest { flag_key: "limit".into(), context: ana() };
        let said = client.resolve_int(request).await.unwrap().into_inner();
        heard.push(format!("{:?} {} {}", said.value, said.reason, variant(said.variant)));
        let request = $messages::ResolveObjectRequest { flag_key: "sales_email".into(), context: ana() };
        let said = client.resolve_object(request).await.unwrap().into_inner();
        heard.push(format!("{} {} {}", read(said.value), said.reason, variant(said.variant)));
        heard
    }};
}

#[tokio::test]
async fn every_type_is_answered_under_every_name() {
    let pod = Pod::start(FLAGS).await;
    let object = r#"{"deep":{"er":true},"prompt":"sales-email-007","stop":["a","b"],"temperature":0.5,"version":"2.2.1"}"#;
    let object = format!("{object} DEFAULT old");
    let plain = ["true TARGETING_MATCH on", "\"Hi\" STATIC short", "10.5 STATIC low", "10 STATIC low", &object];
    assert_eq!(every_type!(v1(&pod).await, v1, |variant: String| variant), plain);
    assert_eq!(every_type!(schema(&pod).await, schema, |variant: String| variant), plain);
    let present = ["Some(true) TARGETING_MATCH on", "Some(\"Hi\") STATIC short", "Some(10.5) STATIC low", "Some(10) STATIC low", &object];
    assert_eq!(every_type!(v2(&pod).await, v2, |variant: Option<String>| variant.unwrap()), present);
    let metrics = metrics(&pod).await;
    for service in ["flagd.evaluation.v2.Service", "flagd.evaluation.v1.Service", "schema.v1.Service"] {
        let line = format!(r#"yardarm_sdk_requests_total{{service="{service}"}} 5"#);
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_zero_is_a_value_and_not_its_absence() {
    let mut pod = Pod::start(FLAGS).await;
    pod.apply("flags: { zero: { variants: { zero: 0 }, defaultVariant: zero }, empty: { variants: { none: '' }, defaultVariant: none } }");
    pod.kill("new_checkout_flow");
    let mut client = v2(&pod).await;
    assert_eq!(boolean(&pod, "new_checkout_flow").await.value, Some(false));
    let int = client.resolve_int(v2::ResolveIntRequest { flag_key: "zero".into(), context: None }).await.unwrap().into_inner();
    assert_eq!((int.value, int.variant.as_deref()), (Some(0), Some("zero")));
    let float = client.resolve_float(v2::ResolveFloatRequest { flag_key: "zero".into(), context: None }).await.unwrap().into_inner();
    assert_eq!(float.value, Some(0.0));
    let text = client.resolve_string(v2::ResolveStringRequest { flag_key: "empty".into(), context: None }).await.unwrap().into_inner();
    assert_eq!(text.value.as_deref(), Some(""));
}

#[tokio::test]
async fn an_integer_is_the_number_without_its_fraction() {
    let mut pod = with_more().await;
    let mut client = v2(&pod).await;
    let request = || v2::ResolveIntRequest { flag_key: "described".into(), context: None };
    assert_eq!(client.resolve_int(request()).await.unwrap().into_inner().value, Some(-2));
    pod.apply(&MORE.replace("defaultVariant: negative", "defaultVariant: big"));
    assert_eq!(client.resolve_int(request()).await.unwrap().into_inner().value, Some(9_007_199_254_740_991));
}

fn failure<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.unwrap_err();
    (status.code(), status.message().to_owned())
}

fn said(code: Code, message: &str) -> (Code, String) {
    (code, message.to_owned())
}

#[tokio::test]
async fn errors_have_the_codes_and_the_messages_of_flagd() {
    let pod = with_more().await;
    let (mut two, mut one, mut old) = (v2(&pod).await, v1(&pod).await, schema(&pod).await);
    let not_found = said(Code::NotFound, "Flag not found");
    let key = || "nowhere".to_owned();
    assert_eq!(failure(two.resolve_boolean(v2::ResolveBooleanRequest { flag_key: key(), context: ana() }).await), not_found);
    assert_eq!(failure(one.resolve_string(v1::ResolveStringRequest { flag_key: key(), context: ana() }).await), not_found);
    assert_eq!(failure(old.resolve_object(schema::ResolveObjectRequest { flag_key: key(), context: ana() }).await), not_found);
    let mismatch = said(Code::InvalidArgument, "Type mismatch error");
    for flag_key in ["greeting", "limit", "sales_email"].map(str::to_owned) {
        assert_eq!(failure(two.resolve_boolean(v2::ResolveBooleanRequest { flag_key, context: ana() }).await), mismatch);
    }
    for flag_key in ["new_checkout_flow", "limit", "sales_email"].map(str::to_owned) {
        assert_eq!(failure(one.resolve_string(v1::ResolveStringRequest { flag_key, context: ana() }).await), mismatch);
    }
    for flag_key in ["new_checkout_flow", "greeting", "sales_email"].map(str::to_owned) {
        assert_eq!(failure(two.resolve_float(v2::ResolveFloatRequest { flag_key: flag_key.clone(), context: ana() }).await), mismatch);
        assert_eq!(failure(two.resolve_int(v2::ResolveIntRequest { flag_key, context: ana() }).await), mismatch);
    }
    for flag_key in ["new_checkout_flow", "greeting", "limit"].map(str::to_owned) {
        assert_eq!(failure(old.resolve_object(schema::ResolveObjectRequest { flag_key, context: ana() }).await), mismatch);
    }
}

#[tokio::test]
async fn a_context_over_a_limit_is_an_error_of_parsing_that_says_which() {
    let pod = Pod::start(FLAGS).await;
    let many: serde_json::Map<_, _> = (0..257).map(|number| (format!("a{number}"), Json::from(1))).collect();
    let deep = (0..20).fold(json!(1), |inner, _| json!([inner]));
    for (wrong, named) in [
        (json!({ "far": "x".repeat(70_000) }), "context has"),
        (Json::from(many), "context.attributes has 257"),
        (json!({ "deep": deep }), "context.attributes.deep is nested"),
    ] {
        let request = v2::ResolveStringRequest { flag_key: "greeting".into(), context: context(&wrong) };
        let (code, message) = failure(v2(&pod).await.resolve_string(request).await);
        assert_eq!(code, Code::DataLoss);
        assert!(message.starts_with("Error parsing input or configuration: ") && message.contains(named), "{message}");
        let request = v1::ResolveAllRequest { context: context(&wrong) };
        assert_eq!(failure(v1(&pod).await.resolve_all(request).await).0, Code::DataLoss);
    }
}

#[tokio::test]
async fn without_a_state_a_client_is_told_to_ask_again_and_not_that_there_are_no_flags() {
    let pod = Pod::start_empty(&Serve { threads: Some(1), ..Serve::default() }).await;
    let request = v2::ResolveStringRequest { flag_key: "greeting".into(), context: ana() };
    assert_eq!(failure(v2(&pod).await.resolve_string(request).await).0, Code::Unavailable);
    assert_eq!(failure(v1(&pod).await.resolve_all(v1::ResolveAllRequest { context: None }).await).0, Code::Unavailable);
}

fn selecting<T>(message: T, selector: &'static str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("flagd-selector", MetadataValue::from_static(selector));
    request
}

#[tokio::test]
async fn a_selector_means_this_environment_or_nothing_and_a_wrong_one_is_refused() {
    let pod = Pod::start(FLAGS).await;
    let mut client = v2(&pod).await;
    let question = || v2::ResolveStringRequest { flag_key: "greeting".into(), context: ana() };
    for here in ["flagSetId=test", "source=test", "test", ""] {
        assert_eq!(client.resolve_string(selecting(question(), here)).await.unwrap().into_inner().value.as_deref(), Some("Hi"), "{here}");
    }
    for elsewhere in ["flagSetId=other", "./flags.json", "flagSetId="] {
        assert_eq!(failure(client.resolve_string(selecting(question(), elsewhere)).await).0, Code::NotFound, "{elsewhere}");
        let all = v1(&pod).await.resolve_all(selecting(v1::ResolveAllRequest { context: None }, elsewhere)).await.unwrap();
        assert!(all.into_inner().flags.is_empty(), "{elsewhere}");
    }
    assert_eq!(failure(client.resolve_string(selecting(question(), "region=eu")).await).0, Code::InvalidArgument);
    assert_eq!(failure(client.event_stream(selecting(v2::EventStreamRequest {}, "region=eu")).await).0, Code::InvalidArgument);
}

/// Flags of two sets and of none; one of them says where it was read.
const SETS: &str = r#"
flags:
  pay: { variants: { a: x }, defaultVariant: a, metadata: { flagSetId: payments }, source: a.json }
  ship: { variants: { a: y }, defaultVariant: a, metadata: { flagSetId: shipping } }
  plain: { variants: { a: z }, defaultVariant: a, metadata: { flagSetId: "" } }
  ours: { variants: { a: o }, defaultVariant: a }
"#;

#[tokio::test]
async fn a_selector_takes_the_flags_that_say_they_are_of_the_set_or_of_the_source() {
    let pod = Pod::start(SETS).await;
    for (selector, taken, reflected) in [
        ("flagSetId=payments", vec!["pay"], json!({ "flagSetId": "payments" })),
        ("flagSetId=", vec!["plain"], json!({})),
        ("flagSetId=test", vec!["ours"], json!({ "flagSetId": "test" })),
        ("source=a.json", vec!["pay"], json!({ "flagSetId": "test", "source": "a.json" })),
        ("test", vec!["ours", "plain", "ship"], json!({ "flagSetId": "test", "source": "test" })),
        ("", vec!["ours", "pay", "plain", "ship"], json!({ "flagSetId": "test" })),
    ] {
        let all = v1(&pod).await.resolve_all(selecting(v1::ResolveAllRequest { context: None }, selector)).await.unwrap().into_inner();
        let keys: Vec<_> = all.flags.into_keys().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        assert_eq!((keys, read(all.metadata)), (taken.iter().map(|key| (*key).to_owned()).collect(), reflected), "{selector}");
        for key in ["ours", "pay", "plain", "ship"] {
            let request = v2::ResolveStringRequest { flag_key: key.into(), context: None };
            let answered = v2(&pod).await.resolve_string(selecting(request, selector)).await;
            assert_eq!(answered.is_ok(), taken.contains(&key), "{key} for {selector}");
        }
    }
    let request = v2::ResolveStringRequest { flag_key: "pay".into(), context: None };
    let pay = v2(&pod).await.resolve_string(selecting(request, "source=a.json")).await.unwrap().into_inner();
    assert_eq!(read(pay.metadata), json!({ "flagSetId": "payments", "source": "a.json", "revision": "1" }));
    let request = v2::ResolveStringRequest { flag_key: "plain".into(), context: None };
    let plain = v2(&pod).await.resolve_string(request).await.unwrap().into_inner();
    assert_eq!(read(plain.metadata), json!({ "revision": "1" }), "an empty set is not told");
}

#[tokio::test]
async fn a_stream_of_a_set_hears_which_flags_enter_change_and_leave_it() {
    let mut pod = Pod::start(SETS).await;
    let stream = v2(&pod).await.event_stream(selecting(v2::EventStreamRequest {}, "flagSetId=payments")).await.unwrap();
    let mut events = Events(stream.into_inner());
    assert_eq!(events.next().await.0, "provider_ready");
    assert_eq!(events.change().await, told(&[("pay", "update")]));
    let of = |key: &str, set: &str, value: &str| {
        format!("flags: {{ {key}: {{ variants: {{ a: {value} }}, defaultVariant: a, metadata: {{ flagSetId: {set} }} }} }}")
    };
    pod.apply(&of("ship", "shipping", "other"));
    pod.apply(&of("ship", "payments", "other"));
    assert_eq!(events.change().await, told(&[("ship", "write")]));
    pod.apply(&of("pay", "payments", "new"));
    assert_eq!(events.change().await, told(&[("pay", "update")]));
    pod.apply(&of("pay", "shipping", "new"));
    assert_eq!(events.change().await, told(&[("pay", "delete")]));
    pod.delete("ship");
    assert_eq!(events.change().await, told(&[("ship", "delete")]));
}

#[tokio::test]
async fn a_split_and_a_kill_are_told_as_targeting_with_the_reason_in_the_metadata() {
    let mut pod = Pod::start(FLAGS).await;
    let request =
        v2::ResolveBooleanRequest { flag_key: "new_checkout_flow".into(), context: context(&json!({ "targetingKey": "user-6" })) };
    let split = v2(&pod).await.resolve_boolean(request).await.unwrap().into_inner();
    assert_eq!((split.value, split.variant.as_deref(), split.reason.as_str()), (Some(true), Some("on"), "TARGETING_MATCH"));
    let expected = json!({ "flagSetId": "test", "revision": "1", "rule": "rollout", "reason": "SPLIT" });
    assert_eq!(read(split.metadata), expected);
    pod.kill("new_checkout_flow");
    let killed = boolean(&pod, "new_checkout_flow").await;
    assert_eq!((killed.value, killed.variant.as_deref(), killed.reason.as_str()), (Some(false), Some("off"), "TARGETING_MATCH"));
    assert_eq!(read(killed.metadata), json!({ "flagSetId": "test", "revision": "2", "reason": "KILLED" }));
    let depends = boolean(&pod, "needs_checkout").await;
    assert_eq!((depends.value, depends.reason.as_str()), (Some(false), "TARGETING_MATCH"));
    assert_eq!(read(depends.metadata)["reason"], "PREREQUISITE_FAILED");
}

#[tokio::test]
async fn a_flag_that_is_meant_to_be_killed_is_never_static_because_clients_keep_what_is() {
    let pod = with_more().await;
    let armed = boolean(&pod, "armed").await;
    assert_eq!((armed.value, armed.variant.as_deref(), armed.reason.as_str()), (Some(true), Some("on"), "DEFAULT"));
    assert_eq!(read(armed.metadata)["reason"], "STATIC");
}

#[tokio::test]
async fn a_killed_flag_that_was_static_is_not_any_more() {
    let mut pod = Pod::start(FLAGS).await;
    let reason = async |pod: &Pod| {
        let request = v2::ResolveStringRequest { flag_key: "greeting".into(), context: None };
        v2(pod).await.resolve_string(request).await.unwrap().into_inner().reason
    };
    assert_eq!(reason(&pod).await, "STATIC");
    pod.kill("greeting");
    assert_eq!(reason(&pod).await, "TARGETING_MATCH");
    pod.restore("greeting");
    assert_eq!(reason(&pod).await, "STATIC");
}

#[tokio::test]
async fn a_disabled_flag_is_no_error_and_v1_gets_the_zero_of_its_type() {
    let pod = with_more().await;
    let disabled = boolean(&pod, "legacy_api").await;
    assert_eq!((disabled.value, disabled.variant, disabled.reason.as_str()), (None, None, "DISABLED"));
    let request = v1::ResolveBooleanRequest { flag_key: "legacy_api".into(), context: ana() };
    let old = v1(&pod).await.resolve_boolean(request).await.unwrap().into_inner();
    assert_eq!((old.value, old.variant.as_str(), old.reason.as_str()), (false, "", "DISABLED"));
    let off = boolean(&pod, "off_has_a_variant").await;
    assert_eq!((off.value, off.variant.as_deref(), off.reason.as_str()), (Some(false), Some("off"), "DISABLED"));
}

#[tokio::test]
async fn without_a_default_variant_v2_is_told_to_use_its_own_and_v1_that_there_is_no_flag() {
    let pod = with_more().await;
    let key = || "nothing_by_default".to_owned();
    let request = v2::ResolveStringRequest { flag_key: key(), context: ana() };
    let unset = v2(&pod).await.resolve_string(request).await.unwrap().into_inner();
    assert_eq!((unset.value, unset.variant, unset.reason.as_str()), (None, None, "DEFAULT"));
    let not_found = said(Code::NotFound, "Flag not found");
    let request = v1::ResolveStringRequest { flag_key: key(), context: ana() };
    assert_eq!(failure(v1(&pod).await.resolve_string(request).await), not_found);
    let request = schema::ResolveStringRequest { flag_key: key(), context: ana() };
    assert_eq!(failure(schema(&pod).await.resolve_string(request).await), not_found);
    let beta = v1::ResolveStringRequest { flag_key: key(), context: context(&json!({ "plan": "beta" })) };
    assert_eq!(v1(&pod).await.resolve_string(beta).await.unwrap().into_inner().value, "y");
}

#[tokio::test]
async fn metadata_says_set_revision_and_rule_and_the_flags_own_win() {
    let pod = with_more().await;
    let request = v2::ResolveFloatRequest { flag_key: "described".into(), context: None };
    let described = v2(&pod).await.resolve_float(request).await.unwrap().into_inner();
    let expected = json!({ "flagSetId": "test", "revision": "2", "rule": "its own", "team": "payments", "version": 3 });
    assert_eq!((described.value, read(described.metadata)), (Some(-2.75), expected));
}

#[tokio::test]
async fn the_targeting_key_and_the_attributes_come_out_of_one_struct() {
    let pod = Pod::start(FLAGS).await;
    let variant = async |asked: Option<Struct>, flag_key: &str| {
        let request = v2::ResolveObjectRequest { flag_key: flag_key.into(), context: asked };
        v2(&pod).await.resolve_object(request).await.unwrap().into_inner().variant.unwrap()
    };
    assert_eq!(variant(context(&json!({ "cohort": "beta" })), "sales_email").await, "new");
    assert_eq!(variant(context(&json!({ "cohort": "other", "targetingKey": "ana" })), "sales_email").await, "old");
    assert_eq!(variant(None, "sales_email").await, "old");
    // What Python sends without a key; a split then serves its baseline.
    for nobody in [json!({ "targetingKey": null }), json!({ "targetingKey": "" }), json!({ "targetingKey": 7 }), json!({})] {
        let request = v2::ResolveBooleanRequest { flag_key: "new_checkout_flow".into(), context: context(&nobody) };
        assert_eq!(v2(&pod).await.resolve_boolean(request).await.unwrap().into_inner().variant.as_deref(), Some("off"), "{nobody}");
    }
}

#[tokio::test]
async fn resolve_all_answers_every_flag_with_its_type() {
    let pod = with_more().await;
    let all = v1(&pod).await.resolve_all(v1::ResolveAllRequest { context: ana() }).await.unwrap().into_inner();
    assert_eq!(read(all.metadata), json!({ "flagSetId": "test" }));
    use v1::any_flag::Value as Any;
    let told: BTreeMap<_, _> = all.flags.iter().map(|(key, flag)| (key.as_str(), flag)).collect();
    // Without a value and a default there is nothing to say of `nothing_by_default`.
    let expected = "armed described greeting legacy_api limit needs_checkout new_checkout_flow off_has_a_variant sales_email";
    assert_eq!(told.keys().copied().collect::<Vec<_>>().join(" "), expected);
    let brief = |key: &str| (told[key].reason.as_str(), told[key].variant.as_str(), told[key].value.clone().unwrap());
    assert_eq!(brief("new_checkout_flow"), ("TARGETING_MATCH", "on", Any::BoolValue(true)));
    assert_eq!(brief("greeting"), ("STATIC", "short", Any::StringValue("Hi".into())));
    assert_eq!(brief("limit"), ("STATIC", "low", Any::DoubleValue(10.5)));
    assert_eq!(brief("legacy_api"), ("DISABLED", "", Any::BoolValue(false)));
    let (.., Any::ObjectValue(object)) = brief("sales_email") else { panic!("{:?}", told["sales_email"]) };
    assert_eq!(read(Some(object))["version"], "2.2.1");
    assert_eq!(read(told["described"].metadata.clone())["team"], "payments");

    let old = schema(&pod).await.resolve_all(schema::ResolveAllRequest { context: ana() }).await.unwrap().into_inner();
    assert_eq!((old.flags.len(), old.flags["greeting"].reason.as_str()), (9, "STATIC"));
    // v2 has no such method.
    let mut raw = tonic::client::Grpc::new(pod.channel().await);
    raw.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/flagd.evaluation.v2.Service/ResolveAll");
    let codec = tonic_prost::ProstCodec::<v1::ResolveAllRequest, v1::ResolveAllResponse>::default();
    let answered = raw.unary(Request::new(v1::ResolveAllRequest::default()), path, codec).await;
    assert_eq!(failure(answered).0, Code::Unimplemented);
}

#[tokio::test]
async fn who_is_served_through_flagds_names_is_counted_logged_and_attributed() {
    let dir = tempfile::tempdir().unwrap();
    let decisions = decisions::Args { dir: Some(dir.path().to_owned()), ..decisions::Args::default() };
    let pod = Pod::start_with(&Serve { threads: Some(2), decisions, ..Serve::default() }, DOCUMENT).await;
    let asked = |key: &str| context(&json!({ "targetingKey": key }));
    let request = v2::ResolveBooleanRequest { flag_key: "checkout".into(), context: asked("ana") };
    v2(&pod).await.resolve_boolean(request).await.unwrap();
    v1(&pod).await.resolve_all(v1::ResolveAllRequest { context: asked("bob") }).await.unwrap();
    let mut looked = Request::new(v2::ResolveBooleanRequest { flag_key: "checkout".into(), context: asked("somebody who looks") });
    looked.metadata_mut().insert("yardarm-purpose", MetadataValue::from_static("inspection"));
    v2(&pod).await.resolve_boolean(looked).await.unwrap();
    let outcomes = vec![outcome("errors", "ana"), outcome("errors", "bob"), outcome("errors", "eve")];
    let tracked = TrackingClient::new(pod.channel().await).track(TrackRequest { outcomes }).await.unwrap().into_inner();
    assert_eq!(tracked, TrackResponse { attributed: 2, unattributed: 1, duplicates: 0 });
    let text = metrics(&pod).await;
    let counted = text.lines().filter(|line| line.starts_with(r#"yardarm_evaluations_total{flag="checkout""#));
    assert_eq!(counted.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>(), 3, "{text}");
    assert_eq!(pod.stop().await, []);
    let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let logged: String = files.filter(|path| decisions::is_of_the_log(path)).map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let served = |line: &&str| line.contains(r#""kind":"evaluation""#) && line.contains(r#""flag":"checkout""#);
    assert_eq!(logged.lines().filter(served).count(), 2, "{logged}");
}

/// Events as their names, with the keys of a change.
struct Events(tonic::Streaming<v2::EventStreamResponse>);

impl Events {
    /// When the first event was heard.
    async fn open(pod: &Pod) -> Self {
        let mut events = Self::begin(v2(pod).await).await;
        // Go's provider gives up when another is the first that it hears.
        assert_eq!(events.next().await, ("provider_ready".to_owned(), Json::Null));
        assert!(events.change().await.values().all(|kind| kind == "update"));
        events
    }

    async fn begin(mut client: v2::service_client::ServiceClient<Channel>) -> Self {
        Self(soon(client.event_stream(v2::EventStreamRequest {})).await.unwrap().into_inner())
    }

    async fn next(&mut self) -> (String, Json) {
        let event = soon(self.0.message()).await.unwrap().expect("it never ends with OK");
        (event.r#type, read(event.data))
    }

    /// Keys of the next change, each with what became of it.
    async fn change(&mut self) -> BTreeMap<String, String> {
        let (name, data) = self.next().await;
        assert_eq!(name, "configuration_change", "{data}");
        let flags = data["flags"].as_object().unwrap();
        flags.iter().map(|(key, told)| (key.clone(), told["type"].as_str().unwrap().to_owned())).collect()
    }
}

fn told(flags: &[(&str, &str)]) -> BTreeMap<String, String> {
    flags.iter().map(|(key, kind)| ((*key).to_owned(), (*kind).to_owned())).collect()
}

#[tokio::test]
async fn a_stream_says_ready_at_once_and_then_which_flags_changed() {
    let mut pod = Pod::start(FLAGS).await;
    let mut events = Events::open(&pod).await;
    pod.apply(&flag("greeting", "b"));
    assert_eq!(events.change().await, told(&[("greeting", "update")]));
    pod.delete("limit");
    assert_eq!(events.change().await, told(&[("limit", "delete")]));
    pod.apply("flags: { one: { variants: { a: 1 }, defaultVariant: a }, two: { variants: { a: 1 }, defaultVariant: a } }");
    assert_eq!(events.change().await, told(&[("one", "write"), ("two", "write")]));
    // Its own state is what it was, and what it serves may not be.
    pod.kill("new_checkout_flow");
    let mut heard = events.change().await;
    if heard.len() == 1 {
        heard.extend(events.change().await);
    }
    assert_eq!(heard, told(&[("needs_checkout", "update"), ("new_checkout_flow", "update")]));
}

#[tokio::test]
async fn whoever_comes_again_is_told_of_every_flag_because_what_it_kept_may_be_old() {
    let mut pod = Pod::start(FLAGS).await;
    drop(Events::open(&pod).await);
    pod.kill("greeting");
    let mut again = Events::begin(v2(&pod).await).await;
    assert_eq!(again.next().await.0, "provider_ready");
    let named = again.change().await;
    assert_eq!(named.get("greeting").map(String::as_str), Some("update"), "{named:?}");
    assert!(named.contains_key("limit") && named.contains_key("new_checkout_flow"), "{named:?}");
}

#[tokio::test]
async fn the_stream_is_the_same_under_every_name() {
    let mut pod = Pod::start(FLAGS).await;
    let mut one = v1(&pod).await.event_stream(v1::EventStreamRequest {}).await.unwrap().into_inner();
    let mut old = schema(&pod).await.event_stream(schema::EventStreamRequest {}).await.unwrap().into_inner();
    for name in ["provider_ready", "configuration_change"] {
        assert_eq!(soon(one.message()).await.unwrap().unwrap().r#type, name);
        assert_eq!(soon(old.message()).await.unwrap().unwrap().r#type, name);
    }
    pod.kill("greeting");
    let expected = json!({ "flags": { "greeting": { "type": "update" } } });
    assert_eq!(read(soon(one.message()).await.unwrap().unwrap().data), expected);
    assert_eq!(read(soon(old.message()).await.unwrap().unwrap().data), expected);
}

#[tokio::test]
async fn a_client_is_ready_when_there_is_a_state() {
    let mut pod = Pod::start_empty(&Serve { threads: Some(1), ..Serve::default() }).await;
    let mut events = Events::begin(v2(&pod).await).await;
    assert!(tokio::time::timeout(Duration::from_millis(200), events.0.message()).await.is_err(), "there is nothing to be ready for");
    pod.apply(FLAGS);
    assert_eq!(events.next().await.0, "provider_ready");
    assert!(events.change().await.contains_key("greeting"), "all of them, once");
    pod.apply(&flag("greeting", "b"));
    assert_eq!(events.change().await, told(&[("greeting", "update")]));
}

#[tokio::test]
async fn a_kill_is_told_at_once_while_other_changes_keep_their_pace() {
    let mut pod = Pod::start(FLAGS).await;
    let mut events = Events::open(&pod).await;
    let began = Instant::now();
    pod.apply(&flag("busy", "a"));
    events.change().await;
    pod.apply(&flag("busy", "b"));
    pod.kill("greeting");
    let in_time = began.elapsed() < Duration::from_millis(50);
    let mut first = events.change().await;
    // On a machine that stood still the change had its time before the kill.
    if !in_time && !first.contains_key("greeting") {
        first = events.change().await;
    }
    assert_eq!(first.get("greeting").map(String::as_str), Some("update"), "{first:?}");
    // A kill by its own lane, ahead of the log.
    pod.hand().announce_kill("limit");
    let mut heard = events.change().await;
    while !heard.contains_key("limit") {
        heard = events.change().await;
    }
    let request = v2::ResolveFloatRequest { flag_key: "limit".into(), context: None };
    let killed = v2(&pod).await.resolve_float(request).await.unwrap().into_inner();
    assert_eq!(read(killed.metadata)["reason"], "KILLED", "what is announced is what is served");
}

#[tokio::test]
async fn a_burst_of_changes_is_few_events_and_loses_no_key() {
    let mut pod = Pod::start(FLAGS).await;
    let mut events = Events::open(&pod).await;
    let started = Instant::now();
    for number in 0..2_000 {
        pod.apply(&flag(&format!("busy-{}", number % 40), if number % 3 == 0 { "a" } else { "b" }));
    }
    pod.apply(&flag("mark", "a"));
    let took = started.elapsed();
    let mut heard = BTreeMap::new();
    let mut count = 0;
    while !heard.contains_key("mark") {
        heard.extend(events.change().await);
        count += 1;
    }
    assert_eq!(heard.len(), 41);
    // One each 50 ms, the first, and the last.
    assert!(count <= took.as_millis() / 50 + 3, "{count} events in {took:?}");
}

#[tokio::test]
async fn a_reader_that_sleeps_hears_of_each_flag_once_when_it_wakes() {
    let mut pod = Pod::start(FLAGS).await;
    // Its window is full after a few events, each of which has many keys.
    let endpoint = Endpoint::from_shared(format!("http://{}", pod.running.tcp)).unwrap();
    let channel = endpoint.initial_stream_window_size(65_535).connect().await.unwrap();
    let mut sleeper = Events::begin(v2::service_client::ServiceClient::new(channel)).await;
    assert_eq!(sleeper.next().await.0, "provider_ready");
    let mut reader = Events::open(&pod).await;
    let many = |variant: &str| {
        let flags: String =
            (0..500).map(|n| format!("  flag-{n:0100}: {{ variants: {{ a: 1, b: 2 }}, defaultVariant: {variant} }}\n")).collect();
        format!("flags:\n{flags}")
    };
    let rounds = 40;
    for round in 0..rounds {
        pod.apply(&many(if round % 2 == 0 { "a" } else { "b" }));
        // One that reads hears of every round.
        while reader.change().await.len() < 500 {}
    }
    pod.apply(&flag("mark", "a"));
    let mut events = 0;
    let mut bytes = 0;
    loop {
        let (name, data) = sleeper.next().await;
        assert_eq!(name, "configuration_change");
        events += 1;
        bytes += data.to_string().len();
        if data["flags"].get("mark").is_some() {
            break;
        }
    }
    assert!(events < rounds, "{events} events and {bytes} bytes waited for a client that did not read");
}

#[tokio::test]
async fn a_stream_that_is_silent_says_after_twenty_seconds_that_it_is_still_there() {
    let pod = Pod::start(FLAGS).await;
    let mut events = Events::open(&pod).await;
    let started = Instant::now();
    let event = tokio::time::timeout(Duration::from_secs(40), events.0.message()).await.unwrap().unwrap().unwrap();
    assert_eq!((event.r#type.as_str(), event.data), ("keep_alive", None));
    assert!(started.elapsed() >= Duration::from_secs(19), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_stream_ends_with_a_goodbye_and_then_unavailable() {
    let pod = Pod::start(FLAGS).await;
    let mut events = Events::open(&pod).await;
    let stopping = tokio::spawn(pod.stop());
    assert_eq!(events.next().await, ("provider_shutdown".to_owned(), json!({})));
    assert_eq!(soon(events.0.next()).await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert_eq!(soon(stopping).await.unwrap(), [], "somebody was overdue");
}

#[tokio::test]
async fn a_stream_of_another_set_is_ready_and_hears_nothing() {
    let mut pod = Pod::start(FLAGS).await;
    let stream = v2(&pod).await.event_stream(selecting(v2::EventStreamRequest {}, "flagSetId=other")).await.unwrap();
    let mut other = Events(stream.into_inner());
    assert_eq!(other.next().await.0, "provider_ready");
    let mut events = Events::open(&pod).await;
    pod.kill("greeting");
    events.change().await;
    let stopping = tokio::spawn(pod.stop());
    assert_eq!(other.next().await.0, "provider_shutdown");
    soon(stopping).await.unwrap();
}

#[tokio::test]
async fn streams_take_places_of_watches_and_give_them_back() {
    let limits = Limits { max_watchers: 1, ..Limits::default() };
    let pod = Pod::start_with(&Serve { threads: Some(1), limits, ..Serve::default() }, FLAGS).await;
    let first = Events::open(&pod).await;
    let (code, message) = failure(v2(&pod).await.event_stream(v2::EventStreamRequest {}).await);
    assert_eq!(code, Code::ResourceExhausted);
    assert!(message.contains("--max-watchers"), "{message}");
    drop(first);
    let again = async {
        while v2(&pod).await.event_stream(v2::EventStreamRequest {}).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon(again).await;
}
