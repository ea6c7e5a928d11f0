//! What in-process clients are promised on port 8015: flagd's sync service, asked by a client that is generated from its messages.

use std::collections::BTreeMap;
use std::time::Duration;

use prost_types::value::Kind;
use serde_json::{Value as Json, json};
use tokio_stream::StreamExt as _;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use yardarm::sidecar::{Listen, Serve};
use yardarm::wire::flagd::sync::flag_sync_service_client::FlagSyncServiceClient;
use yardarm::wire::flagd::sync::{FetchAllFlagsRequest, GetMetadataRequest, SyncFlagsRequest, SyncFlagsResponse};
use yardarm::wire::json::from_value;

use crate::management::metrics;
use crate::pod::{FLAGS, Pod, soon, unix_channel};

/// Each of a kind that flagd's format can say.
const SAID: &str = r#"
flags:
  rolled:
    state: ENABLED
    variants: { "on": true, "off": false }
    defaultVariant: "off"
    targeting: { if: [ { ends_with: [ { var: email }, "@example.com" ] }, "on", { fractional: [ ["on", 10], ["off", 90] ] } ] }
    metadata: { team: payments, version: 3, beta: true }
  targeted:
    variants: { a: x, b: "y" }
    killVariant: b
    targets: [ { variant: a, keys: [ana] } ]
"#;

async fn at(address: std::net::SocketAddr) -> FlagSyncServiceClient<Channel> {
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    FlagSyncServiceClient::new(channel).max_decoding_message_size(64 * 1024 * 1024)
}

async fn client(pod: &Pod) -> FlagSyncServiceClient<Channel> {
    at(pod.running.sync.unwrap()).await
}

fn selecting<T>(message: T, selector: &'static str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("flagd-selector", selector.parse().unwrap());
    request
}

struct Documents(Streaming<SyncFlagsResponse>);

impl Documents {
    async fn of(pod: &Pod) -> Self {
        Self(soon(client(pod).await.sync_flags(SyncFlagsRequest::default())).await.unwrap().into_inner())
    }

    async fn response(&mut self) -> SyncFlagsResponse {
        soon(self.0.next()).await.expect("the stream is open").unwrap()
    }

    /// The flags of the next document.
    async fn next(&mut self) -> Json {
        flags(&self.response().await.flag_configuration)
    }

    async fn end(mut self) -> Status {
        loop {
            match soon(self.0.next()).await {
                Some(Ok(_)) => {}
                Some(Err(status)) => return status,
                None => panic!("the stream ended with OK"),
            }
        }
    }
}

fn flags(document: &str) -> Json {
    let Json::Object(mut document) = serde_json::from_str(document).unwrap() else { panic!("{document}") };
    let flags = document.remove("flags").unwrap();
    assert!(document.is_empty(), "a document has flags and nothing else: {document:?}");
    flags
}

fn keys(flags: &Json) -> Vec<&str> {
    flags.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn the_first_document_is_what_flagd_would_send() {
    let pod = Pod::start(SAID).await;
    let first = Documents::of(&pod).await.response().await;
    assert_eq!(
        flags(&first.flag_configuration),
        json!({
            "rolled": {
                "state": "ENABLED",
                "defaultVariant": "off",
                "variants": { "on": true, "off": false },
                "targeting": { "if": [
                    { "ends_with": [ { "var": "email" }, "@example.com" ] },
                    "on",
                    { "fractional": [ ["on", 10], ["off", 90] ] },
                ] },
                "source": "test",
                "metadata": { "team": "payments", "version": 3, "beta": true },
            },
            "targeted": {
                "state": "ENABLED",
                "defaultVariant": "",
                "variants": { "a": "x", "b": "y" },
                "targeting": { "if": [ { "in": [ { "var": "targetingKey" }, ["ana"] ] }, "a" ] },
                "source": "test",
            },
        })
    );
    assert_eq!(first.sync_context.unwrap().fields.len(), 0, "there, and empty");
    let fetched = client(&pod).await.fetch_all_flags(FetchAllFlagsRequest::default()).await.unwrap().into_inner();
    assert_eq!(fetched.flag_configuration, first.flag_configuration);
}

#[tokio::test]
async fn a_change_is_a_document_and_what_changes_nothing_is_none() {
    let mut pod = Pod::start(SAID).await;
    let mut documents = Documents::of(&pod).await;
    documents.next().await;
    pod.hand().resync();
    // Of a flag that cannot be sent nothing is seen either.
    pod.apply(
        r#"flags: { unsaid: { variants: { a: x }, defaultVariant: a, rules: [ { when: [ { attribute: b, matches: c } ], serve: a } ] } }"#,
    );
    pod.apply("flags: { new: { variants: { a: x }, defaultVariant: a } }");
    assert_eq!(keys(&documents.next().await), ["new", "rolled", "targeted"]);
    pod.delete("new");
    assert_eq!(keys(&documents.next().await), ["rolled", "targeted"]);
}

#[tokio::test]
async fn a_burst_of_changes_is_few_documents_and_the_last_is_the_truth() {
    let mut pod = Pod::start(SAID).await;
    let mut documents = Documents::of(&pod).await;
    documents.next().await;
    for number in 0..500 {
        pod.apply(&format!("flags: {{ counted: {{ variants: {{ a: {number} }}, defaultVariant: a }} }}"));
    }
    let mut heard = 0;
    loop {
        heard += 1;
        if documents.next().await["counted"]["variants"]["a"] == 499 {
            break;
        }
    }
    assert!(heard < 100, "{heard} documents for 500 changes");
}

#[tokio::test]
async fn a_kill_is_sent_at_once_as_a_default_for_everybody_and_a_restored_flag_has_its_rules_again() {
    let mut pod = Pod::start(SAID).await;
    let mut documents = Documents::of(&pod).await;
    let before = documents.next().await;
    pod.hand().announce_kill("targeted");
    let killed = documents.next().await;
    assert_eq!(
        killed["targeted"],
        json!({ "state": "ENABLED", "defaultVariant": "b", "variants": { "a": "x", "b": "y" }, "source": "test" })
    );
    assert_eq!(killed["rolled"], before["rolled"]);
    pod.kill("targeted");
    pod.restore("targeted");
    assert_eq!(documents.next().await, before);
}

#[tokio::test]
async fn a_prerequisite_is_written_out_and_its_kill_changes_who_depends_on_it() {
    let mut pod = Pod::start(SAID).await;
    pod.apply(
        r#"
flags:
  depends:
    variants: { "on": true, "off": false }
    defaultVariant: "on"
    offVariant: "off"
    prerequisites: [ { flag: targeted, variants: [a] } ]
"#,
    );
    let mut documents = Documents::of(&pod).await;
    let first = documents.next().await;
    let is_ana = json!({ "if": [ { "in": [ { "var": "targetingKey" }, ["ana"] ] }, "a" ] });
    assert_eq!(first["depends"]["targeting"], json!({ "if": [ { "!": [ { "in": [is_ana, ["a"]] } ] }, "off" ] }));
    pod.kill("targeted");
    let killed = documents.next().await;
    assert_eq!((&killed["depends"]["defaultVariant"], &killed["depends"]["targeting"]), (&json!("off"), &Json::Null));
}

#[tokio::test]
async fn what_cannot_be_said_is_left_out_by_name_and_never_sent_with_another_meaning() {
    let pod = Pod::start(FLAGS).await;
    let document = Documents::of(&pod).await.next().await;
    assert_eq!(keys(&document), ["greeting", "legacy_api", "limit", "sales_email"]);
    assert_eq!(document["legacy_api"]["state"], "DISABLED");
    let metrics = metrics(&pod).await;
    for line in [r#"yardarm_sync_left_out{reason="metro_split"} 2"#, r#"yardarm_sync_left_out{reason="regex"} 0"#] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let said = client(&pod).await.get_metadata(GetMetadataRequest {}).await.unwrap().into_inner().metadata.unwrap();
    assert_eq!(from_value(&said.fields["yardarm.leftOut"]), "needs_checkout,new_checkout_flow");
}

#[tokio::test]
async fn a_selector_scopes_documents_and_the_header_goes_before_the_field() {
    let mut pod = Pod::start(SAID).await;
    pod.apply("flags: { paid: { variants: { a: x }, defaultVariant: a, metadata: { flagSetId: payments } } }");
    let mut client = client(&pod).await;
    let field = |selector: &str| FetchAllFlagsRequest { selector: selector.into(), ..FetchAllFlagsRequest::default() };
    for (request, expected) in [
        (Request::new(field("flagSetId=payments")), vec!["paid"]),
        (selecting(field("flagSetId=nobody"), "flagSetId=payments"), vec!["paid"]),
        (Request::new(field("flagSetId=nobody")), vec![]),
        (Request::new(field("source=test")), vec!["paid", "rolled", "targeted"]),
        (Request::new(field("")), vec!["paid", "rolled", "targeted"]),
    ] {
        let fetched = client.fetch_all_flags(request).await.unwrap().into_inner();
        assert_eq!(keys(&flags(&fetched.flag_configuration)), expected);
    }
    let wrong = client.fetch_all_flags(field("region=eu")).await.unwrap_err();
    assert!(wrong.code() == Code::InvalidArgument && wrong.message().contains("region"), "{wrong}");
    assert_eq!(client.sync_flags(selecting(SyncFlagsRequest::default(), "a=b")).await.unwrap_err().code(), Code::InvalidArgument);

    let stream = client.sync_flags(selecting(SyncFlagsRequest::default(), "flagSetId=payments")).await.unwrap();
    let mut documents = Documents(stream.into_inner());
    assert_eq!(keys(&documents.next().await), ["paid"]);
    pod.kill("targeted");
    pod.apply("flags: { paid: { variants: { a: z }, defaultVariant: a, metadata: { flagSetId: payments } } }");
    assert_eq!(documents.next().await["paid"]["variants"], json!({ "a": "z" }), "a change of another set is no document");
}

#[tokio::test]
async fn what_every_context_is_to_have_is_told_in_both_places_and_metadata_can_be_switched_off() {
    let context_values = BTreeMap::from([("region".to_owned(), "eu".to_owned())]);
    for sync_metadata in [true, false] {
        let args = Serve { context_values: context_values.clone(), sync_metadata, threads: Some(1), ..Serve::default() };
        let pod = Pod::start_with(&args, SAID).await;
        let context = Documents::of(&pod).await.response().await.sync_context.unwrap();
        assert_eq!(context.fields["region"].kind, Some(Kind::StringValue("eu".into())));
        let said = client(&pod).await.get_metadata(GetMetadataRequest {}).await;
        match sync_metadata {
            true => assert_eq!(said.unwrap().into_inner().metadata.unwrap(), context),
            false => assert_eq!(said.unwrap_err().code(), Code::Unimplemented),
        }
    }
}

#[tokio::test]
async fn metadata_are_there_before_any_state_and_documents_wait_for_one() {
    let mut pod = Pod::start_empty(&Serve { threads: Some(1), ..Serve::default() }).await;
    let said = client(&pod).await.get_metadata(GetMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(said.metadata.unwrap().fields.len(), 0, "present, and empty");
    let mut documents = Documents::of(&pod).await;
    pod.apply(SAID);
    assert_eq!(keys(&documents.next().await), ["rolled", "targeted"]);
}

#[tokio::test]
async fn without_a_state_a_stream_ends_and_says_so_instead_of_no_flags() {
    let pod = Pod::start_empty(&Serve { threads: Some(1), ..Serve::default() }).await;
    let ended = Documents::of(&pod).await.end().await;
    assert!(ended.code() == Code::Unavailable && ended.message().contains("any flags"), "{ended}");
}

#[tokio::test]
async fn a_drained_stream_ends_unavailable_and_an_old_one_with_its_deadline() {
    let pod = Pod::start(SAID).await;
    let documents = Documents::of(&pod).await;
    pod.shutdown.request();
    assert_eq!(documents.end().await.code(), Code::Unavailable);
    assert_eq!(pod.stop().await, []);

    let args = Serve { stream_deadline: Some(Duration::from_millis(300)), threads: Some(1), ..Serve::default() };
    let pod = Pod::start_with(&args, SAID).await;
    assert_eq!(Documents::of(&pod).await.end().await.code(), Code::DeadlineExceeded);
    let metrics = metrics(&pod).await;
    let line = r#"feature_flag_flagd_sync_stream_duration_seconds_count{reason="deadline_exceeded"} 1"#;
    assert!(metrics.contains(line), "{line} is not in\n{metrics}");
}

#[tokio::test]
async fn many_subscribers_get_one_document_that_was_made_once() {
    let mut pod = Pod::start(SAID).await;
    let mut all = Vec::new();
    for _ in 0..50 {
        all.push(Documents::of(&pod).await);
    }
    for documents in &mut all {
        documents.next().await;
    }
    pod.kill("targeted");
    for documents in &mut all {
        assert_eq!(documents.next().await["targeted"]["defaultVariant"], "b");
    }
    let metrics = metrics(&pod).await;
    for line in ["yardarm_sync_documents_total 2", "yardarm_sync_documents_sent_total 100", "feature_flag_flagd_sync_active_streams 50"] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn subscribers_and_requests_have_limits() {
    let pod = Pod::start(SAID).await;
    let mut client = client(&pod).await;
    let mut open = Vec::new();
    for _ in 0..1_024 {
        open.push(client.sync_flags(SyncFlagsRequest::default()).await.unwrap());
    }
    let refused = client.sync_flags(SyncFlagsRequest::default()).await.unwrap_err();
    assert!(refused.code() == Code::ResourceExhausted && refused.message().contains("1024"), "{refused}");
    let long = SyncFlagsRequest { provider_id: "x".repeat(20_000), ..SyncFlagsRequest::default() };
    assert_eq!(client.sync_flags(long).await.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn documents_are_served_behind_their_own_door_alone() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sync.sock");
    let args = Serve { sync: Listen(None), sync_socket: Some(socket.clone()), threads: Some(1), ..Serve::default() };
    let pod = Pod::start_with(&args, SAID).await;
    assert_eq!((pod.running.sync, pod.running.sync_uds.as_ref()), (None, Some(&socket)));
    let at_evaluation = at(pod.running.tcp).await.fetch_all_flags(FetchAllFlagsRequest::default()).await.unwrap_err();
    assert_eq!(at_evaluation.code(), Code::Unimplemented);
    let fetched = FlagSyncServiceClient::new(unix_channel(&socket).await).fetch_all_flags(FetchAllFlagsRequest::default()).await;
    assert_eq!(keys(&flags(&fetched.unwrap().into_inner().flag_configuration)), ["rolled", "targeted"]);
}
