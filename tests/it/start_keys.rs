//! Keys as flagd takes them, in `yardarm start`: real processes, asked over every protocol, followed by one another and scraped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;

use bytes::Bytes;
use prost::Message;
use prost_types::value::Kind;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tonic::Request;
use tonic::metadata::MetadataValue;
use yardarm::flag::limits::FLAGD_NAME_BYTES;
use yardarm::wire::flagd::sync::flag_sync_service_client::FlagSyncServiceClient;
use yardarm::wire::flagd::sync::{FetchAllFlagsRequest, SyncFlagsRequest};
use yardarm::wire::flagd::v1::service_client::ServiceClient as V1;
use yardarm::wire::flagd::v2::service_client::ServiceClient as V2;
use yardarm::wire::flagd::{schema, v1, v2};
use yardarm::wire::json::from_value;
use yardarm::wire::v1 as ours;

use crate::pod::{DEADLINE, person, question, soon};
use crate::process::{Process, channel};
use crate::start::{Logged, SOMEWHERE, get, start, until, uri};

const EVALUATE: &str = "/flagd.evaluation.v2.Service/ResolveString";

/// Not a name that anybody would choose, so that whatever makes something of it is found out.
const VARIANT: &str = "the \"1st\" \\ größe/%41\n";

fn keys() -> Vec<String> {
    let plain =
        ["a b", " ", "a/b", "/a", "a/", "a//b", "..", "../b", "a:b?c#d&e", "ümläut", "旗🏁", "\"quoted\"", "'", "back\\slash", "a%2Fb"];
    let more = ["%", "a+b", "{x}", "a=b,c", "\u{202e}", "<b>", "flags.a"];
    plain.iter().chain(&more).map(|key| (*key).to_owned()).chain([200, FLAGD_NAME_BYTES].map(|bytes| "k".repeat(bytes))).collect()
}

fn value(key: &str) -> String {
    format!("of {key}")
}

/// One flag of each key, with a value that no other has.
fn document(set: &str, value: impl Fn(&str) -> String) -> String {
    let flag = |key: &String| json!({ "state": "ENABLED", "variants": { VARIANT: value(key) }, "defaultVariant": VARIANT });
    let flags: serde_json::Map<_, _> = keys().iter().map(|key| (key.clone(), flag(key))).collect();
    json!({ "metadata": { "flagSetId": set, "": 1, "a \"b\"\n": true }, "flags": flags }).to_string()
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        fs::write(files.at("flags.json"), document("all", value)).unwrap();
        files
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn uri(&self) -> String {
        uri(&self.at("flags.json"))
    }
}

fn ready(args: &[&str]) -> Process {
    let process = start(args);
    until("it is ready", || get(process.management(), "/readyz").0 == 200);
    process
}

/// Every byte that is not plain is escaped, as clients do.
fn escaped(key: &str) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    key.bytes().map(|byte| if is_plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The status and the body of an answer by HTTP/1.1.
fn post(address: &str, path: &str, content_type: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {content_type}\r\n");
    stream.write_all(format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    let end = said.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(said[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = &said[end + 4..];
    (status, if head.to_lowercase().contains("transfer-encoding: chunked") { whole(body) } else { body.to_vec() })
}

/// What comes in chunks.
fn whole(mut chunks: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let end = chunks.windows(2).position(|window| window == b"\r\n").unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&chunks[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            return all;
        }
        all.extend_from_slice(&chunks[end + 2..end + 2 + length]);
        chunks = &chunks[end + 2 + length + 2..];
    }
}

/// Value, variant and reason, as each protocol says them.
type Said = (String, String, String);

async fn by_grpc(process: &Process, key: &str) -> Vec<Said> {
    let flag_key = || key.to_owned();
    let v2 = v2::ResolveStringRequest { flag_key: flag_key(), context: None };
    let v2 = soon(V2::new(channel(process.tcp())).resolve_string(v2)).await.unwrap().into_inner();
    let v1 = v1::ResolveStringRequest { flag_key: flag_key(), context: None };
    let v1 = soon(V1::new(channel(process.tcp())).resolve_string(v1)).await.unwrap().into_inner();
    let oldest = schema::ResolveStringRequest { flag_key: flag_key(), context: None };
    let oldest = schema::service_client::ServiceClient::new(channel(process.tcp())).resolve_string(oldest).await.unwrap().into_inner();
    vec![
        (v2.value.unwrap(), v2.variant.unwrap(), v2.reason),
        (v1.value, v1.variant, v1.reason),
        (oldest.value, oldest.variant, oldest.reason),
    ]
}

fn by_json(body: &[u8]) -> Said {
    let said: Json = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)));
    let text = |name: &str| said[name].as_str().unwrap_or_else(|| panic!("{said}")).to_owned();
    (text("value"), text("variant"), text("reason"))
}

fn by_http(process: &Process, key: &str) -> Vec<Said> {
    let question = v2::ResolveStringRequest { flag_key: key.to_owned(), context: None }.encode_to_vec();
    let (status, connect) = post(process.tcp(), EVALUATE, "application/json", json!({ "flagKey": key }).to_string().as_bytes());
    assert_eq!(status, 200, "{key}: {}", String::from_utf8_lossy(&connect));
    let (status, proto) = post(process.tcp(), EVALUATE, "application/proto", &question);
    assert_eq!(status, 200, "{key}");
    let framed = [&[0][..], &u32::try_from(question.len()).unwrap().to_be_bytes(), &question].concat();
    let (status, web) = post(process.tcp(), EVALUATE, "application/grpc-web+proto", &framed);
    assert_eq!(status, 200, "{key}");
    let length = u32::from_be_bytes(web[1..5].try_into().unwrap()) as usize;
    let of_message = |bytes: &[u8]| {
        let said = v2::ResolveStringResponse::decode(bytes).unwrap();
        (said.value.unwrap(), said.variant.unwrap(), said.reason)
    };
    let mut said = vec![by_json(&connect), of_message(&proto), of_message(&web[5..5 + length])];
    let path = format!("/ofrep/v1/evaluate/flags/{}", escaped(key));
    for at in [process.ofrep(), process.tcp()] {
        let (status, body) = post(at, &path, "application/json", b"{}");
        assert_eq!(status, 200, "{key}: {}", String::from_utf8_lossy(&body));
        assert_eq!(serde_json::from_slice::<Json>(&body).unwrap()["key"], key);
        said.push(by_json(&body));
    }
    said
}

async fn by_ours(process: &Process, key: &str) -> Said {
    let decision = soon(process.evaluation().evaluate(question(key, person("ana")))).await.unwrap().into_inner().decision.unwrap();
    assert_eq!(decision.flag_key, key);
    let Some(Kind::StringValue(value)) = decision.value.and_then(|value| value.kind) else { panic!("{key} is no text") };
    (value, decision.variant, "STATIC".to_owned())
}

async fn asked_one_by_one(process: &Process, value: impl Fn(&str) -> String) {
    for key in keys() {
        let expected = (value(&key), VARIANT.to_owned(), "STATIC".to_owned());
        let mut said = by_grpc(process, &key).await;
        said.extend(by_http(process, &key));
        said.push(by_ours(process, &key).await);
        assert_eq!(said.len(), 9, "three services by gRPC, Connect in two forms, gRPC-Web, OFREP on two ports, and ours");
        assert!(said.iter().all(|said| *said == expected), "{key:?}: {said:#?}\ninstead of {expected:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_of_any_key_is_answered_alike_by_every_protocol() {
    let files = Files::new();
    let process = ready(&["-f", &files.uri()]);
    asked_one_by_one(&process, value).await;
    // A slash in the path of OFREP need not be escaped.
    let (status, body) = post(process.ofrep(), "/ofrep/v1/evaluate/flags/a/b", "application/json", b"{}");
    assert_eq!((status, by_json(&body).0), (200, value("a/b")));
    // What is escaped twice is another key, and nothing is made of dots.
    let (status, body) = post(process.ofrep(), "/ofrep/v1/evaluate/flags/a%252Fb", "application/json", b"{}");
    assert_eq!((status, by_json(&body).0), (200, value("a%2Fb")));
    let (status, body) = post(process.ofrep(), "/ofrep/v1/evaluate/flags/../b", "application/json", b"{}");
    assert_eq!((status, by_json(&body).0), (200, value("../b")));
    assert!(process.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_flags_their_changes_and_their_document_have_the_same_keys() {
    let files = Files::new();
    let process = ready(&["-f", &files.uri()]);
    let expected: BTreeSet<String> = keys().into_iter().collect();

    let all = soon(V1::new(channel(process.tcp())).resolve_all(v1::ResolveAllRequest { context: None })).await.unwrap().into_inner();
    assert_eq!(all.flags.into_keys().collect::<BTreeSet<_>>(), expected);
    let (status, body) = post(process.tcp(), "/flagd.evaluation.v1.Service/ResolveAll", "application/json", b"{}");
    let all: Json = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, all["flags"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>()), (200, expected.clone()));
    let (status, body) = post(process.ofrep(), "/ofrep/v1/evaluate/flags", "application/json", b"{}");
    let all: Json = serde_json::from_slice(&body).unwrap();
    let of_all = all["flags"].as_array().unwrap().iter().map(|flag| flag["key"].as_str().unwrap().to_owned());
    assert_eq!((status, of_all.collect::<BTreeSet<_>>()), (200, expected.clone()));
    let batch = ours::EvaluateBatchRequest { selector: None, context: Some(person("ana")) };
    let batch = soon(process.evaluation().evaluate_batch(batch)).await.unwrap().into_inner();
    assert_eq!(batch.decisions.into_iter().map(|decision| decision.flag_key).collect::<BTreeSet<_>>(), expected);

    let document = soon(FlagSyncServiceClient::new(channel(process.sync())).fetch_all_flags(FetchAllFlagsRequest::default())).await;
    let document: Json = serde_json::from_str(&document.unwrap().into_inner().flag_configuration).unwrap();
    assert_eq!(document["flags"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>(), expected);
    assert_eq!(document["flags"]["\"quoted\""]["variants"][VARIANT], value("\"quoted\""));
    assert_eq!(document["flags"]["a/b"]["metadata"]["a \"b\"\n"], true);

    let mut events = soon(V2::new(channel(process.tcp())).event_stream(v2::EventStreamRequest {})).await.unwrap().into_inner();
    let mut documents =
        soon(FlagSyncServiceClient::new(channel(process.sync())).sync_flags(SyncFlagsRequest::default())).await.unwrap().into_inner();
    soon(documents.message()).await.unwrap().unwrap();
    fs::write(files.at("flags.json"), self::document("all", |key| format!("now {}", value(key)))).unwrap();
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    while !expected.iter().all(|key| told.get(key).is_some_and(|value| value.starts_with("now "))) {
        let said = soon(documents.message()).await.unwrap().unwrap().flag_configuration;
        let said: Json = serde_json::from_str(&said).unwrap();
        let of_flag = |(key, flag): (&String, &Json)| (key.clone(), flag["variants"][VARIANT].as_str().unwrap().to_owned());
        told = said["flags"].as_object().unwrap().iter().map(of_flag).collect();
    }
    // A stream begins with an event that names all, so that it is the next one that tells the change.
    for number in 0..2 {
        let named = loop {
            let event = soon(events.message()).await.unwrap().unwrap();
            if event.r#type == "configuration_change" {
                let data = prost_types::Value { kind: event.data.map(Kind::StructValue) };
                break from_value(&data)["flags"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
            }
        };
        assert_eq!(named, expected, "event {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_of_any_key_comes_from_a_sync_service_and_a_web_server_too() {
    let files = Files::new();
    let upstream = ready(&["-f", &files.uri()]);
    asked_one_by_one(&ready(&["-f", &format!("grpc://{}", upstream.sync())]), value).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let text = Bytes::from(document("all", value));
    let router = axum::Router::new().route("/flags.json", axum::routing::get(async move || text.clone()));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    asked_one_by_one(&ready(&["-f", &format!("http://{address}/flags.json")]), value).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_several_sets_may_be_any_too() {
    let files = Files::new();
    fs::write(files.at("late.json"), document("late \"set\"", |key| format!("late {}", value(key)))).unwrap();
    let process = ready(&["-f", &files.uri(), "-f", &uri(&files.at("late.json"))]);
    asked_one_by_one(&process, |key| format!("late {}", value(key))).await;
    for key in keys() {
        for (selector, expected) in [("flagSetId=all", value(&key)), ("flagSetId=late \"set\"", format!("late {}", value(&key)))] {
            let mut request = Request::new(v2::ResolveStringRequest { flag_key: key.clone(), context: None });
            request.metadata_mut().insert("flagd-selector", MetadataValue::try_from(selector).unwrap());
            let said = soon(V2::new(channel(process.tcp())).resolve_string(request)).await.unwrap().into_inner();
            assert_eq!(said.value, Some(expected), "{key:?} of {selector}");
        }
    }
}

/// The labels of a line of `/metrics` by the rules of its format: in a value there are `\\`, `\"` and `\n`, and no other escape.
fn labels(line: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = line.split_once('{').unwrap().1;
    while !rest.starts_with('}') {
        let (name, value) = rest.split_once("=\"").unwrap();
        let (mut read, mut characters) = (String::new(), value.chars());
        loop {
            match characters.next().unwrap() {
                '"' => break,
                '\\' => read.push(match characters.next().unwrap() {
                    'n' => '\n',
                    plain @ ('\\' | '"') => plain,
                    other => panic!("\\{other} in {line}"),
                }),
                plain => read.push(plain),
            }
        }
        labels.insert(name.to_owned(), read);
        rest = characters.as_str();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    labels
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scraper_reads_every_key_out_of_the_metrics() {
    let files = Files::new();
    let process = ready(&["-f", &files.uri()]);
    for key in keys() {
        by_ours(&process, &key).await;
    }
    let (_, page) = get(process.management(), "/metrics");
    for (family, flag, variant) in [
        ("yardarm_evaluations_total{", "flag", "variant"),
        ("feature_flag_flagd_impression_total{", "feature_flag_key", "feature_flag_result_variant"),
    ] {
        let series: Vec<_> = page.lines().filter(|line| line.starts_with(family)).map(|line| (labels(line), line)).collect();
        for (labels, line) in &series {
            assert_eq!(labels[variant], VARIANT, "{line}");
            assert!(line.ends_with("} 1"), "{line}");
        }
        let counted: BTreeSet<_> = series.iter().map(|(labels, _)| labels[flag].clone()).collect();
        assert_eq!(counted, keys().into_iter().collect(), "{page}");
    }
    // No key has made a line of its own.
    let is_line = |line: &str| ["yardarm_", "feature_flag_", "# "].iter().any(|begin| line.starts_with(begin));
    assert!(page.lines().all(is_line), "{page}");
}

#[test]
fn a_key_that_cannot_be_is_told_in_one_line_and_the_others_are_served() {
    let files = Files::new();
    let flag = json!({ "state": "ENABLED", "variants": { "v": "x" }, "defaultVariant": "v" });
    let long = "l".repeat(FLAGD_NAME_BYTES + 1);
    let flags = json!({ "flags": { "two\nlines": flag, "\u{1b}[2J": flag, "nul\0": flag, "": flag, long: flag, "a b": flag } });
    fs::write(files.at("flags.json"), flags.to_string()).unwrap();
    let logged = Logged::start(&[&SOMEWHERE[..], &["-f", &files.uri()]].concat(), &[]);
    let ofrep = format!("127.0.0.1:{}", logged.port("ofrep service listening at "));
    for key in [r"two\nlines", r"\u{1b}[2J", r"nul\0", "llll", r#"found """#] {
        let line = logged.line(key);
        assert!(line.contains("expected a key of 1 to 1024 bytes without control characters"), "{line}");
    }
    logged.line("flags of the source are served");
    let ask = |key: &str| {
        let (status, body) = post(&ofrep, &format!("/ofrep/v1/evaluate/flags/{}", escaped(key)), "application/json", b"{}");
        (status, serde_json::from_slice::<Json>(&body).unwrap())
    };
    assert_eq!(ask("a b").1["value"], "x");
    for key in ["two\nlines", "\u{1b}[2J", "nul\0", &"l".repeat(FLAGD_NAME_BYTES + 1)] {
        let (status, said) = ask(key);
        assert_eq!((status, said["errorCode"].as_str()), (404, Some("FLAG_NOT_FOUND")), "{key:?}: {said}");
        assert_eq!(said["key"], key);
    }
}

/// In a map of flags the flag of an overridden set has a name of its own, which begins with a NUL.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_takes_the_place_of_no_flag() {
    let files = Files::new();
    let flag = |value: &str| json!({ "state": "ENABLED", "variants": { "v": value }, "defaultVariant": "v" });
    let early = json!({ "metadata": { "flagSetId": "early" }, "flags": { "a": flag("early") } });
    let late = json!({ "metadata": { "flagSetId": "late" }, "flags": { "a": flag("late"), "\0a\0early": flag("forged") } });
    fs::write(files.at("flags.json"), early.to_string()).unwrap();
    fs::write(files.at("late.json"), late.to_string()).unwrap();
    let process = ready(&["-f", &files.uri(), "-f", &uri(&files.at("late.json"))]);
    let asked = async |key: &str, selector: &str| {
        let mut request = Request::new(v2::ResolveStringRequest { flag_key: key.to_owned(), context: None });
        request.metadata_mut().insert("flagd-selector", MetadataValue::try_from(selector).unwrap());
        soon(V2::new(channel(process.tcp())).resolve_string(request))
            .await
            .map_or_else(|status| format!("{:?}", status.code()), |said| said.into_inner().value.unwrap_or_default())
    };
    assert_eq!(asked("a", "flagSetId=early").await, "early");
    assert_eq!(asked("a", "flagSetId=late").await, "late");
    assert_eq!(asked("\0a\0early", "flagSetId=late").await, "NotFound");
    let document = soon(FlagSyncServiceClient::new(channel(process.sync())).fetch_all_flags(FetchAllFlagsRequest::default())).await;
    let document: Json = serde_json::from_str(&document.unwrap().into_inner().flag_configuration).unwrap();
    assert_eq!(document["flags"].as_object().unwrap().keys().collect::<Vec<_>>(), ["a"]);
    // And none goes with it.
    let without = json!({ "metadata": { "flagSetId": "late" }, "flags": { "a": flag("late"), "b": flag("new") } });
    fs::write(files.at("late.json"), without.to_string()).unwrap();
    soon(async { while asked("b", "flagSetId=late").await != "new" {} }).await;
    assert_eq!(asked("a", "flagSetId=early").await, "early");
}
