//! What kubelet, Prometheus and gRPC health checks are told.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use yardarm::flag::{Delta, Digest, Item, ItemName, Position};
use yardarm::lifecycle::Shutdown;
use yardarm::sidecar::{self, Flags, Running, Serve, Workers};
use yardarm::wire::v1::{EvaluateBatchRequest, FlagSelector};

use crate::pod::{FLAGS, Pod, evaluate, person, question, soon, watch_keys};
use crate::process::channel;
use crate::rig::script::{Script, state};
use crate::rig::{Sidecar, until};

/// Status and body.
async fn get(pod: &Pod, path: &str) -> (u16, String) {
    get_from(&pod.running, path).await
}

async fn get_from(running: &Running, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(running.management).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    // Chunked bodies are not undone: lines of the text stay lines.
    (status, body.to_owned())
}

pub async fn metrics(pod: &Pod) -> String {
    let (status, body) = get(pod, "/metrics").await;
    assert_eq!(status, 200);
    body
}

async fn health(pod: &Pod, service: &str) -> ServingStatus {
    let mut client = HealthClient::new(pod.channel().await);
    client.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner().status()
}

#[tokio::test]
async fn ready_only_with_a_state_and_not_while_draining() {
    let mut pod = Pod::start_empty(&Serve { threads: Some(1), ..Serve::default() }).await;
    assert_eq!(get(&pod, "/healthz").await.0, 200);
    let (status, body) = get(&pod, "/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("flag state"), "{body}");
    for service in ["", "readiness", "startup", "yardarm.v1.Evaluation"] {
        assert_eq!(health(&pod, service).await, ServingStatus::NotServing, "{service}");
    }
    assert_eq!(health(&pod, "liveness").await, ServingStatus::Serving);
    let mut watch = HealthClient::new(pod.channel().await);
    let mut watch = watch.watch(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner();
    assert_eq!(soon(watch.message()).await.unwrap().unwrap().status(), ServingStatus::NotServing);

    pod.apply(FLAGS);
    assert_eq!(soon(watch.message()).await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert_eq!(get(&pod, "/readyz").await.0, 200);
    for service in ["", "readiness", "startup", "yardarm.v1.Evaluation"] {
        assert_eq!(health(&pod, service).await, ServingStatus::Serving, "{service}");
    }
    // A connection that was open before can ask while the sidecar drains.
    let hold = pod.shutdown.hold(yardarm::lifecycle::Phase::Drain, "the test");
    pod.shutdown.request();
    let (status, body) = get(&pod, "/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("shutting down"), "{body}");
    assert_eq!(get(&pod, "/healthz").await.0, 200);
    drop(hold);
    // The watch of a health check does not keep the sidecar from leaving.
    assert_eq!(pod.stop().await, []);
}

#[tokio::test]
async fn in_flagds_place_8014_is_serving_before_there_are_flags_and_until_the_process_drains() {
    let pod = Pod::in_place_of_flagd(&Serve { threads: Some(1), ..Serve::default() }).await;
    let mut management = HealthClient::new(channel(&pod.running.management.to_string()));
    let ask = |service: &str| HealthCheckRequest { service: service.into() };
    let mut watch = management.watch(ask("")).await.unwrap().into_inner();
    assert_eq!(soon(watch.message()).await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert_eq!(get(&pod, "/readyz").await.0, 412);
    // Our names, and the port of evaluation, say what they always say.
    for service in ["readiness", "startup", "yardarm.v1.Evaluation"] {
        assert_eq!(management.check(ask(service)).await.unwrap().into_inner().status(), ServingStatus::NotServing, "{service}");
        assert_eq!(health(&pod, service).await, ServingStatus::NotServing, "{service}");
    }
    assert_eq!(health(&pod, "").await, ServingStatus::NotServing);
    // It has never had a flag when it is told to end.
    let hold = pod.shutdown.hold(yardarm::lifecycle::Phase::Drain, "the test");
    pod.shutdown.request();
    assert_eq!(soon(watch.message()).await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(management.check(ask("")).await.unwrap().into_inner().status(), ServingStatus::NotServing);
    drop(hold);
    assert_eq!(pod.stop().await, []);
}

#[tokio::test]
async fn metrics_count_evaluations_by_flag_variant_and_reason_and_unknown_flags_together() {
    let pod = Pod::start(FLAGS).await;
    let mut client = pod.client().await;
    for _ in 0..3 {
        evaluate(&mut client, question("greeting", person("ana"))).await;
    }
    let mut other_connection = pod.client().await;
    evaluate(&mut other_connection, question("new_checkout_flow", person("ana"))).await;
    for number in 0..1000 {
        evaluate(&mut client, question(&format!("random-{number}"), person("ana"))).await;
    }
    client.evaluate_batch(EvaluateBatchRequest { selector: None, context: Some(person("ana")) }).await.unwrap();
    let unknown = FlagSelector { keys: vec!["random-0".into(), "random-1".into()], ..FlagSelector::default() };
    client.evaluate_batch(EvaluateBatchRequest { selector: Some(unknown), context: Some(person("ana")) }).await.unwrap();
    let first = metrics(&pod).await;
    for line in [
        r#"yardarm_evaluations_total{flag="greeting",variant="short",reason="STATIC"} 4"#,
        r#"yardarm_evaluations_total{flag="new_checkout_flow",variant="on",reason="TARGETING_MATCH"} 2"#,
        r#"yardarm_evaluations_total{flag="legacy_api",variant="",reason="DISABLED"} 1"#,
        r#"yardarm_evaluations_total{flag="",variant="",reason="ERROR"} 1002"#,
        r#"yardarm_evaluation_errors_total{error="FLAG_NOT_FOUND"} 1002"#,
    ] {
        assert!(first.contains(line), "{line} is not in\n{first}");
    }
    assert!(!first.contains("random-"));
    evaluate(&mut client, question("greeting", person("ana"))).await;
    assert!(metrics(&pod).await.contains(r#"flag="greeting",variant="short",reason="STATIC"} 5"#));
}

#[tokio::test]
async fn a_flag_that_is_deleted_leaves_the_metrics() {
    let mut pod = Pod::start(FLAGS).await;
    evaluate(&mut pod.client().await, question("greeting", person("ana"))).await;
    assert!(metrics(&pod).await.contains("greeting"));
    pod.delete("greeting");
    assert!(!metrics(&pod).await.contains("greeting"));
}

#[tokio::test]
async fn metrics_say_where_the_pod_stands_and_who_is_there() {
    let mut pod = Pod::start(FLAGS).await;
    pod.kill("greeting");
    let mut client = pod.client().await;
    let mut watch = client.watch_flags(watch_keys(&[])).await.unwrap().into_inner();
    assert!(soon(watch.message()).await.unwrap().is_some());
    let text = metrics(&pod).await;
    for line in [
        "yardarm_revision 2",
        r#"yardarm_epoch_info{epoch="abc"} 1"#,
        "yardarm_flags 6",
        "yardarm_watchers 1",
        "yardarm_connections 1",
        "yardarm_rejected 0",
        "yardarm_ready 1",
        "yardarm_lagged_watchers_total 0",
        "yardarm_build_info{version=",
        "yardarm_age_seconds ",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn metrics_say_how_following_the_control_plane_goes() {
    let mut script = Script::start().await;
    let sidecar = Sidecar::start("pod", script.address).await;
    let _lane = script.lane().await;
    let mut follow = script.follow().await;
    let at = |revision| Position { epoch: 9, revision };
    let item = |key: &str, revision, variant: &str| {
        let definition = format!(r#"{{"variants":{{"on":true,"off":false}},"defaultVariant":"{variant}"}}"#);
        Item { name: ItemName::flag(key), revision, definition: definition.into() }
    };
    let (a, b) = (item("a", 1, "on"), item("b", 2, "nowhere"));
    follow.welcome_with(state(at(1), vec![a.clone()], Vec::new())).await;
    follow.acked(at(1)).await;
    let delta = |revision, upserts: &[Item], all: &[&Item]| {
        let digest = Digest::of(all.iter().copied(), []);
        let origin_time_us = 1;
        Delta { epoch: 9, prev_revision: revision - 1, revision, upserts: upserts.to_vec(), digest, origin_time_us, ..Delta::default() }
    };
    // One that does not compile, one after a gap, one whose digest is wrong.
    follow.delta(delta(2, std::slice::from_ref(&b), &[&a, &b])).await;
    follow.acked(at(2)).await;
    follow.delta(delta(4, &[], &[&a, &b])).await;
    follow.resync().await;
    follow.snapshot(state(at(4), vec![a.clone(), b.clone()], Vec::new())).await;
    follow.acked(at(4)).await;
    follow.delta(delta(5, &[item("c", 5, "on")], &[&a, &b])).await;
    follow.resync().await;

    let flags = Flags { replica: sidecar.replica.clone(), environment: "test".into(), following: Some(sidecar.metrics().clone()) };
    let (shutdown, serve) = (Shutdown::new(), Serve { threads: Some(1), ..Serve::default() });
    let running = sidecar::serve(&serve, flags, &Workers::start(Some(1)).unwrap(), shutdown.clone()).await.unwrap();
    let metrics = sidecar.metrics().clone();
    until("the change is measured", || metrics.propagation(yardarm::replica::follow::Lane::Log).cumulative().last() >= Some(&1)).await;
    let (status, text) = get_from(&running, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "yardarm_connected 1",
        "yardarm_gaps_total 1",
        "yardarm_digest_mismatches_total 1",
        "yardarm_rejected 1",
        "yardarm_deltas_total 1",
        "yardarm_snapshots_total 2",
        r#"yardarm_reconnects_total{reason="closed"} 0"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    // Prometheus makes no quantile of a histogram without this bucket, and it has all that were measured.
    let number = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    for lane in ["log", "urgent"] {
        let of_lane = |start: &str| -> Vec<&str> {
            let lane = format!(r#"lane="{lane}""#);
            text.lines().filter(|line| line.starts_with(&format!("yardarm_propagation_seconds_{start}")) && line.contains(&lane)).collect()
        };
        let buckets = of_lane("bucket");
        assert!(buckets.last().is_some_and(|last| last.contains(r#"le="+Inf""#)), "{buckets:#?}");
        assert!(buckets.is_sorted_by_key(|line| number(line)), "{buckets:#?}");
        let count = number(of_lane("count")[0]);
        assert_eq!(number(buckets[buckets.len() - 1]), count);
        assert_eq!((count >= 1.0, number(of_lane("sum")[0]) > 0.0), (lane == "log", lane == "log"), "{text}");
    }
    shutdown.request();
    soon(shutdown.complete()).await;
}

#[tokio::test]
async fn reflection_lists_what_is_served_here_and_can_be_switched_off() {
    let ask = || ServerReflectionRequest { host: String::new(), message_request: Some(MessageRequest::ListServices(String::new())) };
    let pod = Pod::start(FLAGS).await;
    let mut client = ServerReflectionClient::new(pod.channel().await);
    let mut answers = client.server_reflection_info(tokio_stream::once(ask())).await.unwrap().into_inner();
    let MessageResponse::ListServicesResponse(services) = answers.message().await.unwrap().unwrap().message_response.unwrap() else {
        panic!("no list of services");
    };
    let mut names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    names.sort();
    let flagd = ["flagd.evaluation.v1.Service", "flagd.evaluation.v2.Service"];
    let ours = ["grpc.health.v1.Health", "schema.v1.Service", "yardarm.v1.Evaluation", "yardarm.v1.Tracking"];
    assert_eq!(names, [&flagd[..], &ours].concat());

    let pod = Pod::start_with(&Serve { threads: Some(1), reflection: false, ..Serve::default() }, FLAGS).await;
    let mut client = ServerReflectionClient::new(pod.channel().await);
    let refused = client.server_reflection_info(tokio_stream::once(ask())).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unimplemented);
}
