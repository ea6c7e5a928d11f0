//! The metrics of `yardarm start` under flagd's names, as a dashboard that was made for flagd finds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::json;
use tempfile::TempDir;
use yardarm::wire::flagd::sync::FetchAllFlagsRequest;
use yardarm::wire::flagd::sync::flag_sync_service_client::FlagSyncServiceClient;
use yardarm::wire::flagd::v2::service_client::ServiceClient;
use yardarm::wire::flagd::v2::{EventStreamRequest, ResolveStringRequest};

use crate::pod::{DEADLINE, soon};
use crate::process::{Process, channel};
use crate::start::{get, start, until, uri};

const V1: &str = "flagd.evaluation.v1.Service";
const V2: &str = "flagd.evaluation.v2.Service";

type Labels = BTreeMap<String, String>;

/// One scrape.
struct Scrape(Vec<(String, Labels, f64)>);

impl Scrape {
    fn of(process: &Process) -> Self {
        let (status, text) = get(process.management(), "/metrics");
        assert_eq!(status, 200);
        Self(text.lines().filter(|line| !line.starts_with('#')).map(series).collect())
    }

    /// Of the series with these labels, all others being what they may.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |of: &Labels| labels.iter().all(|(label, value)| of.get(*label).map_or("", String::as_str) == *value);
        self.0.iter().filter(|(known, of, _)| known == name && has(of)).map(|(.., value)| value).sum()
    }
}

fn series(line: &str) -> (String, Labels, f64) {
    let (head, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = head.split_once('{').unwrap_or((head, "}"));
    let labels = labels.strip_suffix('}').unwrap();
    // None of the values here has a comma or an escape in it.
    let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
    (name.to_owned(), pairs.map(|(label, value)| (label.to_owned(), value.trim_matches('"').to_owned())).collect(), value.parse().unwrap())
}

struct Served {
    process: Process,
    _dir: TempDir,
}

fn served() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("flags.json");
    let flag = json!({ "state": "ENABLED", "variants": { "v": "x" }, "defaultVariant": "v" });
    fs::write(&path, json!({ "flags": { "a": flag } }).to_string()).unwrap();
    let process = start(&["-f", &uri(&path)]);
    until("it is ready", || get(process.management(), "/readyz").0 == 200);
    Served { process, _dir: dir }
}

/// By HTTP/1.1; the status of the answer.
fn post(address: &str, path: &str, content_type: &str, body: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    )
    .unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap().parse().unwrap()
}

async fn resolve(process: &Process, key: &str) {
    let request = ResolveStringRequest { flag_key: key.to_owned(), context: None };
    _ = soon(ServiceClient::new(channel(process.tcp())).resolve_string(request)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_counted_by_its_route_and_what_became_of_it() {
    let Served { process, _dir } = &served();
    let (tcp, ofrep) = (process.tcp(), process.ofrep());
    resolve(process, "a").await;
    resolve(process, "a").await;
    resolve(process, "none").await;
    let json = "application/json";
    assert_eq!(post(tcp, &format!("/{V1}/ResolveString"), json, br#"{"flagKey":"a"}"#), 200);
    assert_eq!(post(tcp, &format!("/{V1}/ResolveString"), json, br#"{"flagKey":"none"}"#), 404);
    assert_eq!(post(tcp, &format!("/{V1}/ResolveString"), "text/plain", b"a"), 415);
    assert_eq!(post(tcp, &format!("/{V1}/ResolveString"), "application/grpc-web+proto", b"\0\0\0\0\x03\x0a\x01a"), 200);
    assert_eq!(post(tcp, "/wp-admin/setup.php", json, b"{}"), 501);
    assert_eq!(post(ofrep, "/wp-admin/setup.php", json, b"{}"), 404);
    assert_eq!(post(ofrep, "/ofrep/v1/evaluate/flags/a", json, b"{}"), 200);
    assert_eq!(post(ofrep, "/ofrep/v1/evaluate/flags/none", json, b"{}"), 404);
    assert_eq!(post(tcp, "/ofrep/v1/evaluate/flags", json, b"{}"), 200);

    let by_http = |route: &str, status: &str| {
        let labels =
            [("http_route", route), ("http_response_status_code", status), ("http_request_method", "POST"), ("url_scheme", "http")];
        Scrape::of(process).sum("http_server_request_duration_seconds_count", &labels)
    };
    for (route, status, count) in [
        ("/flagd.evaluation.v2.Service/ResolveString", "200", 3.0),
        ("/flagd.evaluation.v1.Service/ResolveString", "200", 2.0),
        ("/flagd.evaluation.v1.Service/ResolveString", "404", 1.0),
        ("/flagd.evaluation.v1.Service/ResolveString", "415", 1.0),
        ("/ofrep/v1/evaluate/flags/{key}", "200", 1.0),
        ("/ofrep/v1/evaluate/flags/{key}", "404", 1.0),
        ("/ofrep/v1/evaluate/flags", "200", 1.0),
    ] {
        until(&format!("{route} {status}"), || by_http(route, status) == count);
    }
    let nowhere = || Scrape::of(process).sum("http_server_request_duration_seconds_count", &[("http_route", "")]);
    until("what is served nowhere has no route", || nowhere() == 2.0);

    let calls = |service: &str, system: &str, code: (&str, &str)| {
        let labels = [("rpc_service", service), ("rpc_method", "ResolveString"), ("rpc_system", system), code];
        Scrape::of(process).sum("rpc_server_duration_milliseconds_count", &labels)
    };
    for (service, system, code, count) in [
        (V2, "grpc", ("rpc_grpc_status_code", "0"), 2.0),
        (V2, "grpc", ("rpc_grpc_status_code", "5"), 1.0),
        (V1, "grpc_web", ("rpc_grpc_web_status_code", "0"), 1.0),
        (V1, "connect_rpc", ("rpc_connect_rpc_error_code", ""), 1.0),
        (V1, "connect_rpc", ("rpc_connect_rpc_error_code", "not_found"), 1.0),
    ] {
        until(&format!("{service} by {system}, {code:?}"), || calls(service, system, code) == count);
    }
    let reasons = |labels: &[(&str, &str)]| Scrape::of(process).sum("feature_flag_flagd_result_reason_total", labels);
    assert_eq!(reasons(&[("feature_flag_key", "a"), ("feature_flag_reason", "STATIC")]), 6.0);
    assert_eq!(reasons(&[("feature_flag_key", ""), ("feature_flag_reason", "ERROR"), ("ExceptionTypeKeyName", "FLAG_NOT_FOUND")]), 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_are_those_of_messages_and_of_bodies() {
    let Served { process, _dir } = &served();
    resolve(process, "a").await;
    let key = br#"{"flagKey":"a"}"#;
    assert_eq!(post(process.tcp(), &format!("/{V1}/ResolveString"), "application/json", key), 200);
    assert_eq!(post(process.ofrep(), "/ofrep/v1/evaluate/flags/a", "application/json", b"{}"), 200);
    let sum = |name: &str, label: (&str, &str)| Scrape::of(process).sum(name, &[label]);
    let (grpc, connect) = (("rpc_system", "grpc"), ("rpc_system", "connect_rpc"));
    until("three requests are over", || {
        let scrape = Scrape::of(process);
        scrape.sum("http_server_request_duration_seconds_count", &[]) == 3.0 && scrape.sum("http_server_active_requests", &[]) == 0.0
    });
    // The key alone: its number, its length, one letter.
    assert_eq!(sum("rpc_server_request_size_bytes_sum", grpc), 3.0);
    assert_eq!(sum("rpc_server_request_size_bytes_sum", connect), key.len() as f64);
    let (route, ofrep) = (("http_route", "/flagd.evaluation.v2.Service/ResolveString"), ("http_route", "/ofrep/v1/evaluate/flags/{key}"));
    assert_eq!(sum("http_server_request_body_size_bytes_sum", route), 3.0 + 5.0);
    assert_eq!(sum("http_server_request_body_size_bytes_sum", ofrep), 2.0);
    let framed = sum("http_server_response_body_size_bytes_sum", route);
    assert_eq!(sum("rpc_server_response_size_bytes_sum", grpc), framed - 5.0);
    assert!(framed > 20.0, "a value, a variant, a reason and a revision: {framed}");
    for name in ["rpc_server_requests_per_rpc_sum", "rpc_server_responses_per_rpc_sum"] {
        assert_eq!((sum(name, grpc), sum(name, connect)), (1.0, 1.0), "{name}");
    }
}

/// Streams end when their clients want, and that is no error.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_active_until_its_client_leaves_and_ends_well() {
    let Served { process, _dir } = &served();
    let active = |method: &str| {
        let route = format!("/{V2}/{method}");
        Scrape::of(process).sum("http_server_active_requests", &[("http_route", &route)])
    };
    let mut client = ServiceClient::new(channel(process.tcp()));
    let mut events = soon(client.event_stream(EventStreamRequest {})).await.unwrap().into_inner();
    assert_eq!(soon(events.message()).await.unwrap().unwrap().r#type, "provider_ready");
    assert_eq!(active("EventStream"), 1.0);
    drop(events);
    until("its client has left", || active("EventStream") == 0.0);
    let labels = [("rpc_method", "EventStream"), ("rpc_system", "grpc"), ("rpc_grpc_status_code", "0")];
    assert_eq!(Scrape::of(process).sum("rpc_server_duration_milliseconds_count", &labels), 1.0);
    // Ready, and the change that names every flag, in as many pieces as it was written in.
    assert!(Scrape::of(process).sum("rpc_server_responses_per_rpc_sum", &labels) >= 1.0);

    let mut sync = FlagSyncServiceClient::new(channel(process.sync()));
    soon(sync.fetch_all_flags(FetchAllFlagsRequest::default())).await.unwrap();
    let labels = [("rpc_service", "flagd.sync.v1.FlagSyncService"), ("rpc_method", "FetchAllFlags"), ("rpc_grpc_status_code", "0")];
    until("a call of the sync service is counted", || Scrape::of(process).sum("rpc_server_duration_milliseconds_count", &labels) == 1.0);
    assert_eq!(
        Scrape::of(process)
            .sum("http_server_request_duration_seconds_count", &[("http_route", "/flagd.sync.v1.FlagSyncService/FetchAllFlags")]),
        0.0
    );
}

/// What flagd 0.16.0 serves after the same requests, without the labels of its libraries (`otel_scope_*`, `network_*`, `server_*`).
const FLAGDS: [(&str, &[&str]); 13] = [
    (
        "feature_flag_flagd_impression_total",
        &["feature_flag_key", "feature_flag_provider_name", "feature_flag_reason", "feature_flag_result_variant"],
    ),
    ("feature_flag_flagd_result_reason_total", &["feature_flag_key", "feature_flag_provider_name", "feature_flag_reason"]),
    ("feature_flag_flagd_sync_active_streams", &[]),
    ("feature_flag_flagd_sync_stream_duration_seconds_bucket", &["le", "reason"]),
    ("http_server_active_requests", &["http_request_method", "http_route", "service_name", "url_scheme"]),
    ("http_server_request_body_size_bytes_bucket", &["http_request_method", "http_response_status_code", "le", "url_scheme"]),
    (
        "http_server_request_duration_seconds_bucket",
        &["http_request_method", "http_response_status_code", "http_route", "le", "service_name", "url_scheme"],
    ),
    (
        "http_server_response_body_size_bytes_bucket",
        &["http_request_method", "http_response_status_code", "http_route", "le", "service_name", "url_scheme"],
    ),
    ("rpc_server_duration_milliseconds_bucket", &["le", "rpc_grpc_status_code", "rpc_method", "rpc_service", "rpc_system"]),
    ("rpc_server_request_size_bytes_bucket", &["le", "rpc_method", "rpc_service", "rpc_system"]),
    ("rpc_server_requests_per_rpc_bucket", &["le", "rpc_grpc_status_code", "rpc_method", "rpc_service", "rpc_system"]),
    ("rpc_server_response_size_bytes_bucket", &["le", "rpc_method", "rpc_service", "rpc_system"]),
    ("rpc_server_responses_per_rpc_bucket", &["le", "rpc_grpc_status_code", "rpc_method", "rpc_service", "rpc_system"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn flagds_metrics_are_there_with_flagds_labels() {
    let Served { process, _dir } = &served();
    resolve(process, "a").await;
    until("the request is over", || Scrape::of(process).sum("http_server_request_duration_seconds_count", &[]) == 1.0);
    let Scrape(served) = Scrape::of(process);
    for (name, labels) in FLAGDS {
        let labels: BTreeSet<_> = labels.iter().copied().collect();
        let has = |of: &Labels| labels.iter().all(|label| of.contains_key(*label));
        assert!(served.iter().any(|(known, of, _)| known == name && has(of)), "{name} {labels:?}");
    }
    let bounds =
        |name: &str| -> Vec<&str> { served.iter().filter(|(known, ..)| known == name).map(|(_, of, _)| of["le"].as_str()).collect() };
    let seconds = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf"];
    assert_eq!(bounds("http_server_request_duration_seconds_bucket"), seconds);
    let streams = ["30.0", "60.0", "120.0", "300.0", "480.0", "600.0", "1200.0", "1800.0", "3600.0", "10800.0", "+Inf"];
    assert_eq!(bounds("feature_flag_flagd_sync_stream_duration_seconds_bucket"), streams.repeat(4), "one for each way to end");
    assert_eq!(bounds("rpc_server_duration_milliseconds_bucket").len(), 16);
    assert_eq!(bounds("http_server_response_body_size_bytes_bucket").len(), 9);
}
