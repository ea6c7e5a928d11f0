//! Spans as a collector sees them. The test holds the other end of the wire: OTLP's own trace service.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Parser as _;
use http::HeaderMap;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{Layer as _, Service};
use tracing::Subscriber;
use yardarm::flag::{ErrorCode, Reason};
use yardarm::telemetry::{self, evaluation, rpc};
use yardarm::wire::v1;

use crate::process::Process;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
/// Longer than any bound that telemetry promises; reached only when a test fails.
const DEADLINE: Duration = Duration::from_secs(20);

struct Collector {
    address: SocketAddr,
    received: mpsc::Receiver<ExportTraceServiceRequest>,
}

struct Taking(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Taking {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> Self {
        let (sender, received) = mpsc::channel(16);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                connections.spawn(serve_next(&listener, TraceServiceServer::new(Taking(sender.clone()))).await);
            }
        });
        Self { address, received }
    }

    fn subscriber(&self, more: &[&str]) -> (impl Subscriber + Send + Sync + use<>, telemetry::Guard) {
        let endpoint = format!("http://{}", self.address);
        subscriber(&[&["--otlp-endpoint", &endpoint], more].concat())
    }

    /// Every span that has arrived once the guard is gone: dropping it exports what waits.
    async fn spans_after(mut self, guard: telemetry::Guard) -> Vec<Span> {
        tokio::task::spawn_blocking(|| drop(guard)).await.unwrap();
        let mut spans = Vec::new();
        while let Ok(request) = self.received.try_recv() {
            spans.extend(request.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans));
        }
        spans
    }
}

/// Accepts a connection; the future that comes back serves it until the client is gone.
pub async fn serve_next<S>(listener: &TcpListener, service: S) -> impl Future<Output = ()> + use<S>
where
    S: Service<http::Request<Incoming>, Response = http::Response<Body>, Future: Send> + Clone + Send + 'static,
    S::Error: std::error::Error + Send + Sync,
{
    let (socket, _) = listener.accept().await.unwrap();
    async move {
        let http2 = auto::Builder::new(TokioExecutor::new()).http2_only();
        let _ = http2.serve_connection(TokioIo::new(socket), TowerToHyperService::new(service)).await;
    }
}

#[derive(Debug, clap::Parser)]
struct Cli {
    #[command(flatten)]
    telemetry: telemetry::Args,
}

fn args(more: &[&str]) -> telemetry::Args {
    Cli::try_parse_from([&["yardarm"], more].concat()).unwrap().telemetry
}

fn subscriber(more: &[&str]) -> (impl Subscriber + Send + Sync + use<>, telemetry::Guard) {
    telemetry::subscriber(&args(&[&["--log-level", "off"], more].concat())).unwrap()
}

fn metadata(flags: &str) -> HeaderMap {
    let mut request = Request::new(());
    request.metadata_mut().insert("traceparent", format!("00-{TRACE}-{PARENT}-{flags}").parse().unwrap());
    request.metadata_mut().insert("tracestate", "vendor=kept".parse().unwrap());
    request.metadata().clone().into_headers()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text<'s>(attributes: &'s [KeyValue], key: &str) -> Option<&'s str> {
    match attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()? {
        AnyValue { value: Some(Value::StringValue(text)), .. } => Some(text),
        other => panic!("{key} is {other:?}, not a string"),
    }
}

fn one(spans: Vec<Span>) -> Span {
    let [span] = <[Span; 1]>::try_from(spans).unwrap_or_else(|spans| panic!("{} spans instead of one: {spans:#?}", spans.len()));
    span
}

#[tokio::test]
async fn a_span_arrives_at_the_collector_with_the_callers_span_as_its_parent() {
    let collector = Collector::start().await;
    let (subscriber, guard) = collector.subscriber(&[]);
    tracing::subscriber::with_default(subscriber, || rpc::server("yardarm.v1.Admin/Kill", &metadata("01")).end(Code::Unavailable));
    let span = one(collector.spans_after(guard).await);
    assert_eq!((hex(&span.trace_id).as_str(), hex(&span.parent_span_id).as_str()), (TRACE, PARENT));
    assert_eq!(span.trace_state, "vendor=kept");
    assert_eq!((span.name.as_str(), span.kind()), ("yardarm.v1.Admin/Kill", SpanKind::Server));
    assert_eq!(text(&span.attributes, "rpc.system.name"), Some("grpc"));
    assert_eq!(text(&span.attributes, "rpc.method"), Some("yardarm.v1.Admin/Kill"));
    assert_eq!(text(&span.attributes, "rpc.response.status_code"), Some("UNAVAILABLE"));
    assert_eq!(text(&span.attributes, "error.type"), Some("UNAVAILABLE"));
    assert_eq!(span.status.unwrap().code(), StatusCode::Error);
}

#[tokio::test]
async fn a_call_that_the_caller_did_not_sample_has_no_span() {
    let collector = Collector::start().await;
    let (subscriber, guard) = collector.subscriber(&["--trace-sample", "1"]);
    tracing::subscriber::with_default(subscriber, || {
        rpc::server("yardarm.v1.Admin/Kill", &metadata("00")).end(Code::Ok);
        assert!(evaluation::sampled("yardarm.v1.Evaluation/Evaluate", &metadata("00")).is_none());
    });
    assert_eq!(collector.spans_after(guard).await, []);
}

#[tokio::test]
async fn a_call_that_goes_out_carries_the_trace_on() {
    let collector = Collector::start().await;
    let (subscriber, guard) = collector.subscriber(&[]);
    let (mut outgoing, mut injected) = (HeaderMap::new(), HeaderMap::new());
    tracing::subscriber::with_default(subscriber, || {
        let served = rpc::server("yardarm.v1.Admin/Kill", &metadata("01"));
        let called = served.span().in_scope(|| {
            telemetry::inject(&mut injected);
            rpc::client("yardarm.v1.Replication/Follow", &mut outgoing)
        });
        called.end(Code::Ok);
        served.end(Code::Ok);
    });
    let spans = collector.spans_after(guard).await;
    let [client, server] = spans.as_slice() else { panic!("{spans:#?}") };
    assert_eq!((client.kind(), server.kind()), (SpanKind::Client, SpanKind::Server));
    assert_eq!(client.parent_span_id, server.span_id);
    assert_eq!(outgoing["traceparent"], format!("00-{TRACE}-{}-01", hex(&client.span_id)));
    assert_eq!(injected["traceparent"], format!("00-{TRACE}-{}-01", hex(&server.span_id)));
    assert_eq!(outgoing["tracestate"], "vendor=kept");
}

#[tokio::test]
async fn a_call_that_the_caller_gave_up_says_cancelled() {
    let collector = Collector::start().await;
    let (subscriber, guard) = collector.subscriber(&[]);
    tracing::subscriber::with_default(subscriber, || drop(rpc::server("yardarm.v1.Evaluation/WatchFlags", &metadata("01"))));
    let span = one(collector.spans_after(guard).await);
    assert_eq!(text(&span.attributes, "rpc.response.status_code"), Some("CANCELLED"));
    assert_eq!(span.status.unwrap_or_default().code(), StatusCode::Unset);
}

#[tokio::test]
async fn an_evaluation_span_speaks_the_conventions_and_does_not_name_the_person() {
    let collector = Collector::start().await;
    let (subscriber, guard) = collector.subscriber(&[]);
    let outcome = evaluation::Outcome {
        flag_key: "new_checkout_flow",
        environment: "prod",
        variant: Some("on"),
        reason: Reason::TargetingMatch,
        error: None,
        revision: 7,
        targeting_key: Some("ana@example.org"),
    };
    let missing = evaluation::Outcome {
        flag_key: "typo",
        variant: None,
        reason: Reason::Error,
        error: Some(ErrorCode::FlagNotFound),
        targeting_key: None,
        ..outcome
    };
    tracing::subscriber::with_default(subscriber, || {
        let mut sampled = evaluation::sampled("yardarm.v1.Evaluation/Evaluate", &metadata("01")).unwrap();
        sampled.decided(&outcome);
        sampled.decided_one_of_many(&missing);
        sampled.end(Code::Ok);
    });
    let span = one(collector.spans_after(guard).await);
    assert_eq!(hex(&span.parent_span_id), PARENT);
    for (key, value) in [
        ("feature_flag.key", "new_checkout_flow"),
        ("feature_flag.set.id", "prod"),
        ("feature_flag.version", "7"),
        ("feature_flag.provider.name", "yardarm"),
        ("feature_flag.result.variant", "on"),
        ("feature_flag.result.reason", "targeting_match"),
        // printf 'ana@example.org' | sha256sum | cut -c1-16
        ("feature_flag.context.id", "86b9260a115ceac8"),
    ] {
        assert_eq!(text(&span.attributes, key), Some(value), "{key}");
    }
    let [event] = span.events.as_slice() else { panic!("{:#?}", span.events) };
    assert_eq!(event.name, "feature_flag.evaluation");
    assert_eq!(text(&event.attributes, "error.type"), Some("flag_not_found"));
    assert_eq!(text(&event.attributes, "feature_flag.result.variant"), None);
}

/// Events wait in memory until their span ends: of a stream that is asked for days, only the first may.
#[tokio::test]
async fn a_stream_of_many_evaluations_keeps_the_first_as_events_and_counts_the_others() {
    let collector = Collector::start().await;
    let (subscriber, guard) = collector.subscriber(&[]);
    let long = "k".repeat(100_000);
    let outcome = evaluation::Outcome {
        flag_key: &long,
        environment: "prod",
        variant: Some("on"),
        reason: Reason::Split,
        error: None,
        revision: 7,
        targeting_key: Some("ana"),
    };
    tracing::subscriber::with_default(subscriber, || {
        for ends in [true, false] {
            let mut sampled = evaluation::sampled("yardarm.v1.Evaluation/EvaluateStream", &metadata("01")).unwrap();
            (0..100).for_each(|_| sampled.decided_one_of_many(&outcome));
            let held = allocation_counter::measure(|| (0..10_000).for_each(|_| sampled.decided_one_of_many(&outcome)));
            assert!(held.bytes_current < 100_000, "{} bytes wait for the end of the span", held.bytes_current);
            if ends {
                sampled.end(Code::Ok);
            }
        }
    });
    let spans = collector.spans_after(guard).await;
    assert_eq!(spans.len(), 2);
    for span in spans {
        assert_eq!((span.events.len(), span.dropped_events_count), (128, 0));
        let counted = span.attributes.iter().find(|attribute| attribute.key == "yardarm.evaluations_without_event");
        assert_eq!(counted.unwrap().value.clone().unwrap().value, Some(Value::IntValue(10_100 - 128)));
    }
}

#[tokio::test]
async fn every_call_of_a_traced_service_is_a_span_with_the_status_that_the_client_saw() {
    let collector = Collector::start().await;
    let (subscriber, guard) = collector.subscriber(&[]);
    let default = tracing::subscriber::set_default(subscriber);
    let (health, service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let service = rpc::TraceLayer.layer(service);
    let serving = tokio::spawn(async move { serve_next(&listener, service).await.await });
    let mut client = HealthClient::new(Channel::from_shared(endpoint).unwrap().connect_lazy());

    let request = |service: &str| traced(HealthCheckRequest { service: service.to_owned() });
    client.check(request("")).await.unwrap();
    assert_eq!(client.check(request("nobody")).await.unwrap_err().code(), Code::NotFound);
    let mut watch = client.watch(request("")).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    drop((watch, client));
    serving.await.unwrap();
    drop(default);

    let spans = collector.spans_after(guard).await;
    let seen: Vec<_> = spans.iter().map(|span| (span.name.as_str(), text(&span.attributes, "rpc.response.status_code").unwrap())).collect();
    let check = "grpc.health.v1.Health/Check";
    assert_eq!(seen, [(check, "OK"), (check, "NOT_FOUND"), ("grpc.health.v1.Health/Watch", "CANCELLED")]);
    assert_eq!(spans[1].status.clone().unwrap_or_default().code(), StatusCode::Unset, "a NOT_FOUND is no fault of the server");
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE && hex(&span.parent_span_id) == PARENT));
}

/// The whole way: an application that traces asks `yardarm dev`, and the collector has the spans of both parts once `dev` has ended.
#[tokio::test]
async fn the_executable_exports_the_spans_of_its_calls_when_it_ends() {
    let mut collector = Collector::start().await;
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let endpoint = format!("http://{}", collector.address);
    let data = data.path().to_str().unwrap().to_owned();
    let start = move || Process::start(&["dev", "--port-base", "0", "--data", &data, "--otlp-endpoint", &endpoint]);
    let dev = tokio::task::spawn_blocking(start).await.unwrap();

    dev.admin().list_environments(traced(v1::ListEnvironmentsRequest {})).await.unwrap();
    let question = v1::EvaluateRequest { flag_key: "no_such_flag".to_owned(), ..Default::default() };
    dev.evaluation().evaluate(traced(question)).await.unwrap();
    assert!(tokio::task::spawn_blocking(|| dev.stop()).await.unwrap().success());

    let mut spans = Vec::new();
    while let Ok(request) = collector.received.try_recv() {
        for resource in request.resource_spans {
            assert_eq!(text(&resource.resource.unwrap().attributes, "service.name"), Some("yardarm"));
            spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    let ours: Vec<_> = spans.iter().filter(|span| hex(&span.parent_span_id) == PARENT && hex(&span.trace_id) == TRACE).collect();
    let named = |name: &str| *ours.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} among {spans:#?}"));
    named("yardarm.v1.Admin/ListEnvironments");
    let evaluation = named("yardarm.v1.Evaluation/Evaluate");
    assert_eq!(text(&evaluation.attributes, "feature_flag.key"), Some("no_such_flag"));
    assert_eq!(text(&evaluation.attributes, "error.type"), Some("flag_not_found"));
}

fn traced<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().as_mut().extend(metadata("01"));
    request
}

#[tokio::test]
async fn a_collector_that_never_answers_does_not_hold_up_the_end() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let (subscriber, guard) = subscriber(&["--otlp-endpoint", &endpoint]);
    tracing::subscriber::with_default(subscriber, || rpc::server("yardarm.v1.Admin/Kill", &metadata("01")).end(Code::Ok));
    let started = Instant::now();
    tokio::time::timeout(DEADLINE, tokio::task::spawn_blocking(|| drop(guard))).await.expect("the flush is bounded").unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "the span was not even tried: the silent listener cannot have taken it");
}

#[test]
fn a_secret_in_the_endpoint_is_neither_used_nor_shown() {
    let args = args(&["--otlp-endpoint", "http://ana:s3cret@127.0.0.1:4317"]);
    assert!(!format!("{args:?}").contains("s3cret"), "{args:?}");
    let error = telemetry::subscriber(&args).err().map(|error| format!("{error:#}")).unwrap();
    assert!(error.contains("***@127.0.0.1:4317") && !error.contains("s3cret"), "{error}");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    assert!(Cli::try_parse_from(["yardarm", "--trace-sample", "2"]).is_err());
    let error = telemetry::subscriber(&args(&["--log-level", "yardarm=loud"])).err().map(|error| format!("{error:#}")).unwrap();
    assert!(error.contains("--log-level") && error.contains("info"), "{error}");
}
