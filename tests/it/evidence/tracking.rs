//! What applications are told that report outcomes, by gRPC and by HTTP.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_types::StatusExt as _;
use yardarm::wire::v1::tracking_client::TrackingClient;
use yardarm::wire::v1::{self, TrackRequest};

use super::{DOCUMENT, outcome};
use crate::pod::{Pod, evaluate, person, question, soon};

async fn ask(pod: &Pod, keys: &[&str]) {
    let mut client = pod.client().await;
    for key in keys {
        evaluate(&mut client, question("checkout", person(key))).await;
    }
}

async fn track(pod: &Pod, outcomes: Vec<v1::Outcome>) -> Result<v1::TrackResponse, tonic::Status> {
    TrackingClient::new(pod.channel().await).track(TrackRequest { outcomes }).await.map(tonic::Response::into_inner)
}

/// Status and body.
async fn post(pod: &Pod, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(pod.running.management).await.unwrap();
    let head = format!(
        "POST /ofrep/v1/track HTTP/1.1\r\nHost: pod\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // One that is refused for its length is not read to its end.
    let _ = stream.write_all(body.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn metric(pod: &Pod, name: &str) -> u64 {
    let mut stream = TcpStream::connect(pod.running.management).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    soon(stream.read_to_string(&mut text)).await.unwrap();
    let line =
        text.lines().find_map(|line| line.strip_prefix(&format!("yardarm_{name} "))).unwrap_or_else(|| panic!("{name} is not in {text}"));
    line.trim().parse().unwrap()
}

#[tokio::test]
async fn each_outcome_is_attributed_or_not_or_a_duplicate() {
    let pod = Pod::start(DOCUMENT).await;
    ask(&pod, &["ana", "bob"]).await;
    let keyed = v1::Outcome { idempotency_key: "order-1".into(), ..outcome("paid", "ana") };
    let outcomes = vec![outcome("errors", "ana"), outcome("errors", "eve"), outcome("nobody-watches", "bob"), keyed.clone(), keyed.clone()];
    let answer = track(&pod, outcomes).await.unwrap();
    assert_eq!(answer, v1::TrackResponse { attributed: 2, unattributed: 2, duplicates: 1 });
    assert_eq!(track(&pod, vec![keyed]).await.unwrap().duplicates, 1);
    assert_eq!((metric(&pod, "attributed_outcomes_total").await, metric(&pod, "tracked_units").await), (2, 2));
    assert!(metric(&pod, "exposure_bytes").await > 0 && metric(&pod, "attribution_bytes").await > 0);
}

#[tokio::test]
async fn whoever_is_asked_in_a_batch_or_on_a_stream_is_exposed_too() {
    let pod = Pod::start(DOCUMENT).await;
    let mut client = pod.client().await;
    let selector = Some(v1::FlagSelector { keys: vec!["checkout".into()], ..Default::default() });
    client.evaluate_batch(v1::EvaluateBatchRequest { selector, context: Some(person("ana")) }).await.unwrap();
    let asked = v1::EvaluateStreamRequest { id: 1, request: Some(question("checkout", person("bob"))) };
    let mut answers = client.evaluate_stream(tokio_stream::once(asked)).await.unwrap().into_inner();
    soon(answers.message()).await.unwrap().unwrap();
    let answer = track(&pod, vec![outcome("errors", "ana"), outcome("errors", "bob")]).await.unwrap();
    assert_eq!(answer.attributed, 2);
}

#[tokio::test]
async fn what_a_killed_flag_serves_is_not_measured() {
    let mut pod = Pod::start(DOCUMENT).await;
    ask(&pod, &["ana"]).await;
    pod.kill("checkout");
    ask(&pod, &["ana", "bob"]).await;
    let answer = track(&pod, vec![outcome("errors", "ana"), outcome("errors", "bob")]).await.unwrap();
    assert_eq!((answer.attributed, answer.unattributed), (0, 2));
}

#[tokio::test]
async fn a_flag_without_metrics_leaves_nothing_in_memory() {
    let pod = Pod::start(crate::pod::FLAGS).await;
    let mut client = pod.client().await;
    evaluate(&mut client, question("new_checkout_flow", person("ana"))).await;
    track(&pod, vec![outcome("errors", "ana")]).await.unwrap();
    assert_eq!((metric(&pod, "exposure_bytes").await, metric(&pod, "tracked_units").await), (0, 0));
}

#[tokio::test]
async fn outcomes_beyond_the_limits_are_refused_by_their_fields() {
    let pod = Pod::start(DOCUMENT).await;
    let refused = track(&pod, vec![outcome("errors", "ana"); 1_001]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.get_details_bad_request().unwrap().field_violations[0].field, "outcomes");
    let wrong = vec![outcome("errors", "ana"), v1::Outcome { value: Some(f64::NAN), ..outcome("", "ana") }];
    let refused = track(&pod, wrong).await.unwrap_err();
    let fields: Vec<_> = refused.get_details_bad_request().unwrap().field_violations.into_iter().map(|violation| violation.field).collect();
    assert_eq!(fields, ["outcomes[1].event", "outcomes[1].value"]);
    assert_eq!(track(&pod, vec![outcome("errors", "ana"); 1_000]).await.unwrap().unattributed, 1_000);
}

#[tokio::test]
async fn http_takes_what_openfeature_tracks_and_names_what_is_wrong() {
    let pod = Pod::start(DOCUMENT).await;
    ask(&pod, &["ana"]).await;
    let good = r#"{"trackingEventName":"paid","context":{"targetingKey":"ana","plan":"pro"},"details":{"value":12.5,"idempotencyKey":"1","currency":"EUR"}}"#;
    assert_eq!(post(&pod, good).await, (200, r#"{"attributed":true,"duplicate":false}"#.to_owned()));
    assert_eq!(post(&pod, good).await, (200, r#"{"attributed":false,"duplicate":true}"#.to_owned()));
    let (status, body) = post(&pod, r#"{"trackingEventName":"paid","context":{"targetingKey":7}}"#).await;
    assert_eq!(status, 400);
    assert!(body.contains(r#""path":"context.targetingKey""#) && body.contains("is a number, expected a string"), "{body}");
    assert_eq!(post(&pod, &"x".repeat(200_000)).await.0, 413);
}
