//! `yardarm start` in the place of flagd: real processes with files, a web server and a sync service behind them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response as Answer};
use parking_lot::Mutex;
use prost_types::Struct;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use yardarm::wire::flagd::sync::flag_sync_service_client::FlagSyncServiceClient;
use yardarm::wire::flagd::sync::flag_sync_service_server::{FlagSyncService, FlagSyncServiceServer};
use yardarm::wire::flagd::sync::{
    FetchAllFlagsRequest, FetchAllFlagsResponse, GetMetadataRequest, GetMetadataResponse, SyncFlagsRequest, SyncFlagsResponse,
};
use yardarm::wire::flagd::v2::service_client::ServiceClient;
use yardarm::wire::flagd::v2::{EventStreamRequest, EventStreamResponse, ResolveStringRequest};
use yardarm::wire::flagd::{schema, v1};
use yardarm::wire::json::{from_value, to_struct};

use crate::pod::{DEADLINE, soon, unix_channel};
use crate::process::{PATIENCE, Process, channel, command};
use crate::telemetry::serve_next;

/// On the loopback, at ports that the system picks.
pub const SOMEWHERE: [&str; 10] = ["--bind-address", "127.0.0.1", "-p", "0", "-m", "0", "-r", "0", "-g", "0"];

pub fn start(args: &[&str]) -> Process {
    Process::start(&[&["start"][..], &SOMEWHERE, args].concat())
}

pub fn uri(path: &Path) -> String {
    format!("file:{}", path.display())
}

/// A document with one text flag that serves `value`.
pub fn flag(key: &str, value: &str) -> String {
    json!({ "flags": { key: { "state": "ENABLED", "variants": { "v": value }, "defaultVariant": "v" } } }).to_string()
}

fn in_set(set: &str, flags: &[(&str, &str)]) -> String {
    let flags: BTreeMap<_, _> =
        flags.iter().map(|(key, value)| (key, json!({ "state": "ENABLED", "variants": { "v": value }, "defaultVariant": "v" }))).collect();
    json!({ "metadata": { "flagSetId": set }, "flags": flags }).to_string()
}

fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(beside, path).unwrap();
}

struct Client(ServiceClient<Channel>);

impl Client {
    fn of(process: &Process) -> Self {
        Self(ServiceClient::new(channel(process.tcp())))
    }

    async fn resolve(&self, key: &str, selector: &'static str, context: Option<Struct>) -> Result<(String, Json), Code> {
        let mut request = Request::new(ResolveStringRequest { flag_key: key.to_owned(), context });
        if !selector.is_empty() {
            request.metadata_mut().insert("flagd-selector", MetadataValue::from_static(selector));
        }
        let said = self.0.clone().resolve_string(request).await.map_err(|status| status.code())?.into_inner();
        let metadata =
            said.metadata.map(|fields| from_value(&prost_types::Value { kind: Some(prost_types::value::Kind::StructValue(fields)) }));
        Ok((said.value.unwrap_or_default(), metadata.unwrap_or_default()))
    }

    /// What it serves; what it answers instead.
    async fn value(&self, key: &str) -> String {
        self.resolve(key, "", None).await.map_or_else(|code| format!("{code:?}"), |(value, _)| value)
    }

    async fn selected(&self, key: &str, selector: &'static str) -> String {
        self.resolve(key, selector, None).await.map_or_else(|code| format!("{code:?}"), |(value, _)| value)
    }

    async fn events(&self) -> Events {
        Events(soon(self.0.clone().event_stream(EventStreamRequest {})).await.unwrap().into_inner())
    }
}

struct Events(tonic::Streaming<EventStreamResponse>);

impl Events {
    async fn next(&mut self) -> (String, Json) {
        let event = soon(self.0.message()).await.unwrap().unwrap();
        let data = event.data.map(|fields| from_value(&prost_types::Value { kind: Some(prost_types::value::Kind::StructValue(fields)) }));
        (event.r#type, data.unwrap_or_default())
    }

    /// Waits until something is told of this flag, and says what.
    async fn of(&mut self, key: &str) -> String {
        loop {
            let (_, data) = self.next().await;
            if let Some(told) = data["flags"][key]["type"].as_str() {
                return told.to_owned();
            }
        }
    }
}

pub fn get(address: &str, path: &str) -> (u16, String) {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    (status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

pub fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "{what}");
        std::thread::yield_now();
    }
}

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_again_however_it_changes_and_its_last_word_stands_while_it_is_gone() {
    let dir = dir();
    let path = dir.path().join("flags.json");
    fs::write(&path, flag("a", "first")).unwrap();
    let process = start(&["-f", &uri(&path)]);
    let client = Client::of(&process);
    let mut events = client.events().await;
    assert_eq!((events.of("a").await.as_str(), client.value("a").await.as_str()), ("update", "first"));
    // In place.
    fs::write(&path, flag("a", "second")).unwrap();
    assert_eq!((events.of("a").await.as_str(), client.value("a").await.as_str()), ("update", "second"));
    // By a rename over it, twice, so that the first did not lose the watch.
    for value in ["third", "fourth"] {
        replace(&path, &flag("a", value));
        assert_eq!((events.of("a").await.as_str(), client.value("a").await.as_str()), ("update", value));
    }
    // What is no document changes nothing, and the next one counts.
    fs::write(&path, "{ \"flags\": ").unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, flag("b", "other")).unwrap();
    assert_eq!(events.of("b").await, "write");
    assert_eq!((client.value("a").await.as_str(), client.value("b").await.as_str()), ("NotFound", "other"));
    assert!(process.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_that_is_swapped_as_a_whole_directory_is_read_again() {
    let dir = dir();
    let mount = dir.path();
    let version = |number: u32, text: &str| {
        let to = mount.join(format!("..{number}"));
        fs::create_dir(&to).unwrap();
        fs::write(to.join("flags.yaml"), text).unwrap();
        symlink(format!("..{number}"), mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    };
    version(1, "flags: { a: { variants: { v: first }, defaultVariant: v } }");
    symlink("..data/flags.yaml", mount.join("flags.yaml")).unwrap();
    let process = start(&["-f", &uri(&mount.join("flags.yaml"))]);
    let client = Client::of(&process);
    let mut events = client.events().await;
    events.of("a").await;
    assert_eq!(client.value("a").await, "first");
    for (number, value) in [(2, "second"), (3, "third")] {
        version(number, &format!("flags: {{ a: {{ variants: {{ v: {value} }}, defaultVariant: v }} }}"));
        fs::remove_dir_all(mount.join(format!("..{}", number - 1))).unwrap();
        events.of("a").await;
        assert_eq!(client.value("a").await, value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_when_each_source_was_read_once_and_stays_so_when_one_goes() {
    let dir = dir();
    let (here, late) = (dir.path().join("here.json"), dir.path().join("late.json"));
    fs::write(&here, flag("a", "here")).unwrap();
    let process = start(&["-f", &uri(&here), "-f", &uri(&late)]);
    let client = Client::of(&process);
    let mut events = client.events().await;
    events.of("a").await;
    assert_eq!(get(process.management(), "/healthz").0, 200);
    // It is served a moment before that is noted.
    until("one of the two was read", || !get(process.management(), "/readyz").1.contains("here.json"));
    let (status, why) = get(process.management(), "/readyz");
    assert_eq!(status, 412);
    assert!(why.contains("late.json"), "{why}");
    let health = async |address: &str, service: &str| {
        let ask = HealthCheckRequest { service: service.to_owned() };
        HealthClient::new(channel(address)).check(ask).await.unwrap().into_inner().status()
    };
    // flagd's word there is of the process.
    assert_eq!(health(process.management(), "").await, ServingStatus::Serving);
    for (address, service) in [(process.management(), "readiness"), (process.tcp(), ""), (process.sync(), "")] {
        assert_eq!(health(address, service).await, ServingStatus::NotServing, "{address} {service}");
    }
    replace(&late, &flag("b", "late"));
    assert_eq!(events.of("b").await, "write");
    until("it is ready", || get(process.management(), "/readyz").0 == 200);
    for (address, service) in [(process.management(), ""), (process.management(), "readiness"), (process.tcp(), ""), (process.sync(), "")] {
        assert_eq!(health(address, service).await, ServingStatus::Serving, "{address} {service}");
    }
    fs::remove_file(&late).unwrap();
    replace(&here, &flag("a", "again"));
    events.of("a").await;
    assert_eq!((get(process.management(), "/readyz").0, client.value("b").await.as_str()), (200, "late"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_later_source_wins_and_what_it_deletes_comes_back_at_once() {
    let dir = dir();
    let (low, high) = (dir.path().join("low.json"), dir.path().join("high.json"));
    fs::write(&low, flag("a", "low")).unwrap();
    fs::write(&high, flag("a", "high")).unwrap();
    let process = start(&["-f", &format!("{},{}", uri(&low), uri(&high))]);
    let client = Client::of(&process);
    until("it is ready", || get(process.management(), "/readyz").0 == 200);
    let mut events = client.events().await;
    events.of("a").await;
    assert_eq!(client.value("a").await, "high");
    replace(&high, r#"{"flags":{}}"#);
    assert_eq!((events.of("a").await.as_str(), client.value("a").await.as_str()), ("update", "low"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_several_sets_is_served_from_the_last_and_from_each_to_whoever_selects_it() {
    let dir = dir();
    let (pay, ship) = (dir.path().join("pay.json"), dir.path().join("ship.json"));
    fs::write(&pay, in_set("pay", &[("a", "of pay"), ("only", "pay's")])).unwrap();
    fs::write(&ship, in_set("ship", &[("a", "of ship")])).unwrap();
    let config = dir.path().join("config.json");
    let source = |path: &Path| json!({ "uri": path.to_str().unwrap(), "provider": "file" });
    fs::write(&config, json!({ "sources": [source(&pay), source(&ship)] }).to_string()).unwrap();
    let process = start(&["--config", config.to_str().unwrap()]);
    until("it is ready", || get(process.management(), "/readyz").0 == 200);
    let client = Client::of(&process);
    assert_eq!(client.value("a").await, "of ship");
    assert_eq!(client.selected("a", "flagSetId=pay").await, "of pay");
    assert_eq!(client.selected("a", "flagSetId=ship").await, "of ship");
    assert_eq!(client.selected("only", "flagSetId=ship").await, "NotFound");
    assert_eq!(client.selected("a", "flagSetId=").await, "NotFound");
    assert_eq!(client.selected("a", "region=eu").await, "InvalidArgument");
    let mut by_source = Request::new(v1::ResolveAllRequest { context: None });
    by_source.metadata_mut().insert("flagd-selector", format!("source={}", pay.display()).parse().unwrap());
    let mut all = v1::service_client::ServiceClient::new(channel(process.tcp()));
    let flags = all.resolve_all(by_source).await.unwrap().into_inner().flags;
    assert_eq!(flags["a"].value, Some(v1::any_flag::Value::StringValue("of pay".into())));
    assert_eq!(flags.len(), 2);
    let everything = all.resolve_all(v1::ResolveAllRequest { context: None }).await.unwrap().into_inner().flags;
    assert_eq!(everything["a"].value, Some(v1::any_flag::Value::StringValue("of ship".into())));
    assert_eq!(everything.len(), 2);
    let (_, metadata) = client.resolve("a", "", None).await.unwrap();
    assert_eq!(metadata["flagSetId"], "ship");

    // A stream of the set that lost hears of its own flag, and one of no set does not.
    let mut request = Request::new(EventStreamRequest {});
    request.metadata_mut().insert("flagd-selector", MetadataValue::from_static("flagSetId=pay"));
    let mut of_pay = Events(client.0.clone().event_stream(request).await.unwrap().into_inner());
    let mut of_all = client.events().await;
    of_pay.of("a").await;
    of_all.of("a").await;
    replace(&pay, &in_set("pay", &[("a", "of pay, new"), ("only", "new")]));
    assert_eq!((of_pay.of("a").await.as_str(), client.selected("a", "flagSetId=pay").await.as_str()), ("update", "of pay, new"));
    let (_, told) = of_all.next().await;
    assert_eq!(told["flags"], json!({ "only": { "type": "update" } }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_that_cannot_be_served_leaves_the_others_and_keeps_its_last_good_definition() {
    let dir = dir();
    let path = dir.path().join("flags.json");
    let of = |a: Json, b: &str| json!({ "flags": { "a": a, "b": { "variants": { "v": b }, "defaultVariant": "v" } } }).to_string();
    fs::write(&path, of(json!({ "variants": { "v": "good" }, "defaultVariant": "v" }), "first")).unwrap();
    let process = start(&["-f", &uri(&path)]);
    let client = Client::of(&process);
    let mut events = client.events().await;
    events.of("b").await;
    for (wrong, b) in [
        (json!({ "variants": { "v": "x" }, "defaultVariant": "nowhere" }), "second"),
        (json!({ "variants": { "v": "x", "w": 7 }, "defaultVariant": "v" }), "third"),
        (json!({ "variants": { "v": "x" }, "defaultVariant": "v", "targeting": { "no_such_operator": [] } }), "fourth"),
    ] {
        replace(&path, &of(wrong, b));
        events.of("b").await;
        assert_eq!((client.value("a").await.as_str(), client.value("b").await.as_str()), ("good", b));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_that_was_never_good_is_an_error_of_parsing_and_not_unknown() {
    let dir = dir();
    let path = dir.path().join("flags.json");
    let flags = json!({ "flags": {
        "operator": { "variants": { "v": "x" }, "defaultVariant": "v", "targeting": { "no_such_operator": [] } },
        "mixed": { "variants": { "v": "x", "w": 7 }, "defaultVariant": "v" },
        "good": { "variants": { "v": "x" }, "defaultVariant": "v" }
    } });
    fs::write(&path, flags.to_string()).unwrap();
    let process = start(&["-f", &uri(&path)]);
    until("it is ready", || get(process.management(), "/readyz").0 == 200);
    let client = Client::of(&process);
    let answers = [client.value("operator").await, client.value("mixed").await, client.value("good").await, client.value("none").await];
    assert_eq!(answers, ["DataLoss", "DataLoss", "x", "NotFound"]);
    let answer = post(process.ofrep(), "/ofrep/v1/evaluate/flags/operator", "", "");
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("PARSE_ERROR"), "{answer}");
}

/// What the web server of a test says, and what it was asked.
#[derive(Default)]
struct Web {
    text: String,
    status: u16,
    asked: Vec<(Option<String>, Option<String>)>,
}

async fn serve_web(State(web): State<Arc<Mutex<Web>>>, headers: HeaderMap) -> Answer {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let mut web = web.lock();
    let tag = format!("\"{}\"", web.text.len());
    let known = text(header::IF_NONE_MATCH);
    web.asked.push((known.clone(), text(header::AUTHORIZATION)));
    match StatusCode::from_u16(web.status).unwrap() {
        StatusCode::OK if known.as_deref() == Some(&tag) => StatusCode::NOT_MODIFIED.into_response(),
        StatusCode::OK => ([(header::ETAG, tag)], web.text.clone()).into_response(),
        other => other.into_response(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_is_asked_again_with_its_tag_and_its_last_word_stands_while_it_fails() {
    let web = Arc::new(Mutex::new(Web { text: flag("a", "first"), status: 200, asked: Vec::new() }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().route("/flags.json", axum::routing::get(serve_web)).with_state(Arc::clone(&web));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let source = json!([{ "uri": format!("http://{address}/flags.json"), "provider": "http", "interval": 1, "bearerToken": "secret" }]);
    let process = start(&["-s", &source.to_string()]);
    let client = Client::of(&process);
    let mut events = client.events().await;
    events.of("a").await;
    assert_eq!(client.value("a").await, "first");
    let asked = |count: usize| until("the server is asked again", || web.lock().asked.len() >= count);
    asked(2);
    assert_eq!(web.lock().asked[0], (None, Some("Bearer secret".to_owned())));
    assert!(web.lock().asked[1].0.is_some(), "without the tag of what it knows");
    web.lock().status = 500;
    let before = web.lock().asked.len();
    asked(before + 2);
    assert_eq!(client.value("a").await, "first");
    *web.lock() = Web { text: flag("a", "the second"), status: 200, asked: Vec::new() };
    events.of("a").await;
    assert_eq!(client.value("a").await, "the second");
}

/// A request, and its header that selects.
type Asked = (SyncFlagsRequest, Option<String>);

/// A sync service that says what the test says, and keeps what it was asked.
#[derive(Clone)]
struct Peer {
    says: broadcast::Sender<Result<String, Status>>,
    first: Arc<Mutex<String>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

#[tonic::async_trait]
impl FlagSyncService for Peer {
    type SyncFlagsStream = ReceiverStream<Result<SyncFlagsResponse, Status>>;

    async fn sync_flags(&self, request: Request<SyncFlagsRequest>) -> Result<Response<Self::SyncFlagsStream>, Status> {
        let header = request.metadata().get("flagd-selector").map(|value| value.to_str().unwrap().to_owned());
        let mut says = self.says.subscribe();
        let (to, stream) = tokio::sync::mpsc::channel(4);
        let first = self.first.lock().clone();
        self.asked.lock().push((request.into_inner(), header));
        tokio::spawn(async move {
            let message = |text| SyncFlagsResponse { flag_configuration: text, sync_context: None };
            _ = to.send(Ok(message(first))).await;
            while let Ok(said) = says.recv().await {
                let ends = said.is_err();
                _ = to.send(said.map(message)).await;
                if ends {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn fetch_all_flags(&self, _: Request<FetchAllFlagsRequest>) -> Result<Response<FetchAllFlagsResponse>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn get_metadata(&self, _: Request<GetMetadataRequest>) -> Result<Response<GetMetadataResponse>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_service_is_followed_by_its_selector_and_asked_again_after_it_was_away() {
    let (says, _) = broadcast::channel(16);
    let peer = Peer { says, first: Arc::new(Mutex::new(flag("a", "first"))), asked: Arc::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = FlagSyncServiceServer::new(peer.clone());
    tokio::spawn(async move {
        loop {
            tokio::spawn(serve_next(&listener, server.clone()).await);
        }
    });
    let source = json!([{ "uri": address.to_string(), "provider": "grpc", "selector": "flagSetId=x", "providerID": "me" }]);
    let process = start(&["-s", &source.to_string()]);
    let client = Client::of(&process);
    let mut events = client.events().await;
    events.of("a").await;
    assert_eq!(client.value("a").await, "first");
    let (asked, header) = peer.asked.lock()[0].clone();
    assert_eq!((asked.provider_id.as_str(), asked.selector.as_str(), header.as_deref()), ("me", "flagSetId=x", Some("flagSetId=x")));
    peer.says.send(Ok(flag("a", "second"))).unwrap();
    events.of("a").await;
    assert_eq!(client.value("a").await, "second");
    *peer.first.lock() = flag("a", "third");
    peer.says.send(Err(Status::unavailable("going away"))).unwrap();
    events.of("a").await;
    assert_eq!((client.value("a").await.as_str(), peer.asked.lock().len()), ("third", 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_service_that_is_not_there_at_the_start_does_not_end_the_process() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let dir = dir();
    let path = dir.path().join("flags.json");
    fs::write(&path, flag("a", "of the file")).unwrap();
    let process = start(&["-f", &format!("grpc://{nobody}"), "-f", &uri(&path)]);
    let client = Client::of(&process);
    client.events().await.of("a").await;
    assert_eq!((client.value("a").await.as_str(), get(process.management(), "/readyz").0), ("of the file", 412));
    assert!(process.stop().success());
}

const BY_CONTEXT: &str = r#"{ "flags": { "who": { "state": "ENABLED", "variants": { "static": "s", "header": "h", "request": "r", "none": "n" },
    "defaultVariant": "none", "targeting": { "var": "who" } } } }"#;

#[tokio::test(flavor = "multi_thread")]
async fn headers_count_more_than_values_of_the_process_and_these_more_than_the_request() {
    let dir = dir();
    let path = dir.path().join("flags.json");
    fs::write(&path, BY_CONTEXT).unwrap();
    let process = start(&["-f", &uri(&path), "-X", "who=static", "-H", "X-Who=who"]);
    until("it is ready", || get(process.management(), "/readyz").0 == 200);
    let client = Client::of(&process);
    let said = || Some(to_struct(json!({ "who": "request" }).as_object().unwrap()));
    assert_eq!(client.resolve("who", "", said()).await.unwrap().0, "s");
    let mut request = Request::new(ResolveStringRequest { flag_key: "who".into(), context: said() });
    request.metadata_mut().insert("x-who", MetadataValue::from_static("header"));
    assert_eq!(client.0.clone().resolve_string(request).await.unwrap().into_inner().value.as_deref(), Some("h"));
    let mut request = Request::new(schema::ResolveStringRequest { flag_key: "who".into(), context: said() });
    request.metadata_mut().insert("x-who", MetadataValue::from_static("header"));
    let mut old = schema::service_client::ServiceClient::new(channel(process.tcp()));
    assert_eq!(old.resolve_string(request).await.unwrap().into_inner().value, "s", "the oldest name has no headers");
    let answer = post(process.ofrep(), "/ofrep/v1/evaluate/flags/who", "X-Who: header\r\n", r#"{"context":{"who":"request"}}"#);
    assert!(answer.contains(r#""value":"h""#), "{answer}");
    let plain = start(&["-f", &uri(&path)]);
    until("it is ready", || get(plain.management(), "/readyz").0 == 200);
    assert_eq!(Client::of(&plain).resolve("who", "", said()).await.unwrap().0, "r");
}

fn post(address: &str, path: &str, headers: &str, body: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = body.len();
    write!(stream, "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_their_limits_are_refused_and_streams_end_at_their_deadline() {
    let dir = dir();
    let path = dir.path().join("flags.json");
    fs::write(&path, flag("a", "x")).unwrap();
    let process = start(&["-f", &uri(&path), "-B", "200", "--stream-deadline", "300ms"]);
    until("it is ready", || get(process.management(), "/readyz").0 == 200);
    let client = Client::of(&process);
    let long = Some(to_struct(json!({ "long": "x".repeat(300) }).as_object().unwrap()));
    assert_eq!(client.resolve("a", "", long).await.unwrap_err(), Code::ResourceExhausted);
    let body = json!({ "context": { "long": "x".repeat(300) } }).to_string();
    assert!(post(process.ofrep(), "/ofrep/v1/evaluate/flags/a", "", &body).starts_with("HTTP/1.1 413"));
    let mut events = client.events().await;
    let ended = loop {
        match soon(events.0.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it never ends with OK"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::DeadlineExceeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn evaluations_are_counted_under_flagds_names() {
    let dir = dir();
    let path = dir.path().join("flags.json");
    fs::write(&path, flag("a", "x")).unwrap();
    let process = start(&["-f", &uri(&path)]);
    until("it is ready", || get(process.management(), "/readyz").0 == 200);
    let client = Client::of(&process);
    client.value("a").await;
    client.value("a").await;
    client.value("nowhere").await;
    let (_, text) = get(process.management(), "/metrics");
    let impression = r#"feature_flag_flagd_impression_total{feature_flag_key="a",feature_flag_result_variant="v",feature_flag_provider_name="flagd",feature_flag_reason="STATIC"} 2"#;
    assert!(text.contains(impression), "{text}");
    let unknown = r#"feature_flag_flagd_result_reason_total{ExceptionTypeKeyName="FLAG_NOT_FOUND",feature_flag_provider_name="flagd",feature_flag_reason="ERROR"} 1"#;
    assert!(text.contains(unknown), "{text}");
    assert!(!text.contains(r#"feature_flag_key="""#) && text.trim_end().ends_with("# EOF") && text.matches("# EOF").count() == 1);
}

/// A process whose log is read.
pub struct Logged {
    child: Child,
    lines: mpsc::Receiver<String>,
    /// Those that nobody has asked for yet: parts of the process speak in whatever order.
    passed: RefCell<Vec<String>>,
}

impl Logged {
    pub fn start(args: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = command();
        command.arg("start").args(args).envs(environment.iter().copied());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (to, lines) = mpsc::channel();
        let read = BufReader::new(child.stderr.take().unwrap()).lines();
        std::thread::spawn(move || read.map_while(Result::ok).for_each(|line| _ = to.send(line)));
        Self { child, lines, passed: RefCell::default() }
    }

    /// Reads on until a line has this, if none had it yet.
    pub fn line(&self, with: &str) -> String {
        let mut before = self.passed.borrow_mut();
        if let Some(at) = before.iter().position(|line| line.contains(with)) {
            return before.remove(at);
        }
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else { panic!("no line has `{with}`: {before:#?}") };
            if line.contains(with) {
                return line;
            }
            before.push(line);
        }
    }

    /// Asks it to end, and has every line that nobody has read.
    pub fn end(self) -> Vec<String> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let mut lines = self.passed.take();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => lines.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => return lines,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("the process does not end: {lines:#?}"),
            }
        }
    }

    pub fn port(&self, with: &str) -> u16 {
        let line = self.line(with);
        line.rsplit([' ', ':']).next().unwrap().parse().unwrap_or_else(|_| panic!("{line}"))
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        _ = kill_process(Pid::from_child(&self.child), Signal::KILL);
        _ = self.child.wait();
    }
}

#[test]
fn the_lines_that_programs_wait_for_say_the_ports_that_were_bound() {
    let dir = dir();
    let path = dir.path().join("flags.json");
    fs::write(&path, flag("a", "x")).unwrap();
    let logged = Logged::start(&[&SOMEWHERE[..], &["-f", &uri(&path)]].concat(), &[]);
    let management = logged.port("metrics and probes listening at ");
    let ofrep = logged.port("ofrep service listening at ");
    let evaluation = logged.port("Flag IResolver listening at 127.0.0.1:");
    assert_eq!(get(&format!("127.0.0.1:{management}"), "/healthz").0, 200);
    assert!([ofrep, evaluation].iter().all(|port| *port != 0));
    logged.line("flags of the source are served");
    until("it is ready", || get(&format!("127.0.0.1:{management}"), "/readyz").0 == 200);
}

#[tokio::test]
async fn a_document_over_what_clients_usually_take_is_sent_and_told_once_with_what_to_raise() {
    let dir = dir();
    let (path, socket) = (dir.path().join("flags.json"), dir.path().join("sync.sock"));
    let document = |last: &str| {
        let variants = json!({ "v": "x".repeat(200_000) });
        let flag = json!({ "state": "ENABLED", "variants": variants, "defaultVariant": "v" });
        let mut flags: BTreeMap<_, _> = (10..32).map(|n| (format!("f{n}"), flag.clone())).collect();
        flags.insert(last.to_owned(), flag);
        json!({ "flags": flags }).to_string()
    };
    fs::write(&path, document("first")).unwrap();
    let logged = Logged::start(&[&SOMEWHERE[..], &["-f", &uri(&path), "-e", socket.to_str().unwrap()]].concat(), &[]);
    logged.line("flags of the source are served");
    let mut client = FlagSyncServiceClient::new(unix_channel(&socket).await).max_decoding_message_size(64 << 20);
    let mut documents = soon(client.sync_flags(SyncFlagsRequest::default())).await.unwrap().into_inner();
    let mut said = soon(documents.message()).await.unwrap().unwrap().flag_configuration;
    assert!(said.len() > 4 << 20 && said.contains("first"));
    let line = logged.line("larger than what gRPC's libraries take");
    for word in ["WARN", &said.len().to_string(), "4194304", "grpc.max_receive_message_length"] {
        assert!(line.contains(word), "{word} is not in {line}");
    }
    replace(&path, &document("second"));
    while !said.contains("second") {
        said = soon(documents.message()).await.unwrap().unwrap().flag_configuration;
    }
    let rest = logged.end();
    assert!(!rest.iter().any(|line| line.contains("larger than")), "{rest:#?}");
}

#[test]
fn variables_count_more_than_the_file_and_options_more_than_variables() {
    let dir = dir();
    let config = dir.path().join("config.yaml");
    fs::write(&config, "log-format: console\nsources:\n  - { uri: from-the-file.json, provider: file }\n").unwrap();
    let config = config.to_str().unwrap();
    let file = Logged::start(&[&SOMEWHERE[..], &["--config", config]].concat(), &[]);
    assert!(file.line("the source cannot be read").contains("from-the-file.json"));
    let sources = r#"[{"uri":"from-the-variable.json","provider":"file"}]"#;
    let variables = [("FLAGD_LOG_FORMAT", "json"), ("FLAGD_SOURCES", sources)];
    let variable = Logged::start(&[&SOMEWHERE[..], &["--config", config]].concat(), &variables);
    let line = variable.line("the source cannot be read");
    assert_eq!(serde_json::from_str::<Json>(&line).unwrap()["source"], "from-the-variable.json");
    let sources = r#"[{"uri":"from-the-option.json","provider":"file"}]"#;
    let option = Logged::start(&[&SOMEWHERE[..], &["--config", config, "-s", sources, "-z", "console"]].concat(), &variables);
    let line = option.line("the source cannot be read");
    assert!(line.contains("from-the-option.json") && serde_json::from_str::<Json>(&line).is_err(), "{line}");
}

#[test]
fn without_a_named_file_the_one_in_the_home_directory_counts() {
    let dir = dir();
    let of_home = |name: &str| format!("sources: [{{ uri: {name}.json, provider: file }}]\n");
    fs::write(dir.path().join(".agent.yaml"), of_home("from-the-home")).unwrap();
    let named = dir.path().join("named.yaml");
    fs::write(&named, of_home("from-the-named")).unwrap();
    let home = [("HOME", dir.path().to_str().unwrap())];
    let usual = Logged::start(&SOMEWHERE, &home);
    assert!(usual.line("using config file").contains(".agent.yaml"));
    assert!(usual.line("the source cannot be read").contains("from-the-home.json"));
    let other = Logged::start(&[&SOMEWHERE[..], &["--config", named.to_str().unwrap()]].concat(), &home);
    assert!(other.line("using config file").contains("named.yaml"));
    assert!(other.line("the source cannot be read").contains("from-the-named.json"));
}

#[test]
fn what_is_not_served_is_refused_before_anything_starts() {
    for (args, named) in [
        (&["-t", "otel"][..], "--metrics-exporter is not supported"),
        (&["-f", "core.openfeature.dev/ns/flags"], "ConfigMap"),
        (&["-f", "gs://bucket/x.json"], "buckets are not read"),
        (&["-o", "https://collector:4317", "-A", "ca.pem"], "--otel-ca-path is not supported"),
        (&["-s", "{"], "--sources is no JSON"),
        (&["--config", "/nonexistent.json"], "/nonexistent.json"),
    ] {
        let output = command().arg("start").args(SOMEWHERE).args(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(named), "{args:?}: {said}");
    }
}

#[test]
fn a_port_that_is_taken_is_told_with_flagds_name_of_the_option() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = command().args(["start", "--bind-address", "127.0.0.1", "-p", "0", "-r", "0", "-m", &port]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&port) && said.contains("--management-port"), "{said}");
}

#[test]
fn it_is_ready_within_a_second_of_its_start() {
    let dir = dir();
    let path = dir.path().join("flags.json");
    fs::write(&path, flag("a", "x")).unwrap();
    let began = Instant::now();
    let process = start(&["-f", &uri(&path)]);
    until("it is ready", || get(process.management(), "/readyz").0 == 200);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
