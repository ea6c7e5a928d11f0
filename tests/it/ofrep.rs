//! What OFREP's providers are promised on port 8016, by HTTP/1.1 and by HTTP/2.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use yardarm::sidecar::{Limits, Listen, Serve};
use yardarm::wire::v1::tracking_client::TrackingClient;
use yardarm::wire::v1::{TrackRequest, TrackResponse};

use crate::evidence::{DOCUMENT, outcome};
use crate::management::metrics;
use crate::pod::{FLAGS, Pod, soon};

const FLAGS_PATH: &str = "/ofrep/v1/evaluate/flags";

struct Said {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Said {
    async fn of(response: Response<hyper::body::Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = String::from_utf8(soon(body.collect()).await.unwrap().to_bytes().into()).unwrap();
        Self { status: head.status.as_u16(), headers: head.headers, body }
    }

    fn json(&self) -> Json {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json");
        serde_json::from_str(&self.body).unwrap()
    }

    fn is(&self, status: u16, expected: Json) {
        assert_eq!((self.status, self.json()), (status, expected));
    }

    fn tag(&self) -> &str {
        self.headers[header::ETAG].to_str().unwrap()
    }
}

fn at(pod: &Pod) -> SocketAddr {
    pod.running.ofrep.unwrap()
}

fn request(path: &str, body: &str) -> Request<Full<Bytes>> {
    Request::post(path).header(header::HOST, "pod").body(Full::from(body.to_owned())).unwrap()
}

async fn send(pod: &Pod, request: Request<Full<Bytes>>) -> Said {
    let stream = TcpStream::connect(at(pod)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    Said::of(soon(sender.send_request(request)).await.unwrap()).await
}

async fn send_by_http2(pod: &Pod, path: &str, body: &str) -> Said {
    let stream = TcpStream::connect(at(pod)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://pod{path}")).body(Full::<Bytes>::from(body.to_owned())).unwrap();
    Said::of(soon(sender.send_request(request)).await.unwrap()).await
}

async fn one(pod: &Pod, key: &str, body: &Json) -> Said {
    send(pod, request(&format!("{FLAGS_PATH}/{key}"), &body.to_string())).await
}

async fn all(pod: &Pod, body: &Json) -> Said {
    send(pod, request(FLAGS_PATH, &body.to_string())).await
}

async fn known(pod: &Pod, body: &Json, tags: &str) -> Said {
    let mut request = request(FLAGS_PATH, &body.to_string());
    request.headers_mut().insert(header::IF_NONE_MATCH, tags.parse().unwrap());
    send(pod, request).await
}

fn ana() -> Json {
    json!({ "context": { "targetingKey": "ana" } })
}

#[tokio::test]
async fn one_flag_is_answered_with_value_variant_reason_and_metadata_by_both_versions_of_http() {
    let pod = Pod::start(FLAGS).await;
    let metadata = json!({ "flagSetId": "test", "revision": "1" });
    let object = json!({ "deep": { "er": true }, "prompt": "sales-email-007", "stop": ["a", "b"], "temperature": 0.5, "version": "2.2.1" });
    for (key, value, variant, reason) in [
        ("new_checkout_flow", json!(true), "on", "TARGETING_MATCH"),
        ("greeting", json!("Hi"), "short", "STATIC"),
        ("limit", json!(10.5), "low", "STATIC"),
        ("sales_email", object, "old", "DEFAULT"),
    ] {
        let expected = json!({ "key": key, "value": value, "variant": variant, "reason": reason, "metadata": metadata });
        one(&pod, key, &ana()).await.is(200, expected.clone());
        send_by_http2(&pod, &format!("{FLAGS_PATH}/{key}"), &ana().to_string()).await.is(200, expected);
    }
    // A whole number has no fraction in JSON.
    let raised = Pod::start("flags: { limit: { variants: { high: 100 }, defaultVariant: high } }").await;
    assert!(one(&raised, "limit", &ana()).await.body.contains(r#""value":100,"#));
}

#[tokio::test]
async fn the_context_decides_as_everywhere() {
    let mut pod = Pod::start(FLAGS).await;
    let beta = json!({ "context": { "cohort": "beta" } });
    assert_eq!(one(&pod, "sales_email", &beta).await.json()["variant"], "new");
    let split = one(&pod, "new_checkout_flow", &json!({ "context": { "targetingKey": "user-6" } })).await.json();
    assert_eq!((&split["variant"], &split["reason"]), (&json!("on"), &json!("TARGETING_MATCH")));
    assert_eq!(split["metadata"], json!({ "flagSetId": "test", "revision": "1", "rule": "rollout", "reason": "SPLIT" }));
    pod.kill("new_checkout_flow");
    let killed = one(&pod, "new_checkout_flow", &ana()).await.json();
    assert_eq!(
        (&killed["value"], &killed["reason"], &killed["metadata"]["reason"]),
        (&json!(false), &json!("TARGETING_MATCH"), &json!("KILLED"))
    );
}

#[tokio::test]
async fn a_body_may_be_empty_and_a_context_that_is_no_object_is_ignored() {
    let pod = Pod::start(FLAGS).await;
    for body in ["", "{}", r#"{"context":[]}"#, r#"{"context":"ana"}"#, r#"{"context":null}"#] {
        let said = send(&pod, request(&format!("{FLAGS_PATH}/greeting"), body)).await;
        assert_eq!((said.status, &said.json()["value"]), (200, &json!("Hi")), "{body}");
    }
}

#[tokio::test]
async fn a_disabled_flag_has_no_value_so_that_the_callers_default_counts() {
    let pod = Pod::start(FLAGS).await;
    let expected = json!({ "key": "legacy_api", "reason": "DISABLED", "metadata": { "flagSetId": "test", "revision": "1" } });
    one(&pod, "legacy_api", &ana()).await.is(200, expected);
}

#[tokio::test]
async fn errors_are_those_of_the_protocol_in_the_words_of_flagd() {
    let pod = Pod::start(FLAGS).await;
    let set = json!({ "flagSetId": "test" });
    let not_found =
        json!({ "key": "nowhere", "errorCode": "FLAG_NOT_FOUND", "errorDetails": "flag `nowhere` does not exist", "metadata": set });
    one(&pod, "nowhere", &ana()).await.is(404, not_found);
    for body in ["{", "[]", "nonsense"] {
        let said = send(&pod, request(&format!("{FLAGS_PATH}/greeting"), body)).await;
        let told = said.json();
        assert_eq!((said.status, &told["key"], &told["errorCode"]), (400, &json!("greeting"), &json!("PARSE_ERROR")), "{body}");
        let said = send(&pod, request(FLAGS_PATH, body)).await;
        assert_eq!((said.status, &said.json()["errorCode"]), (400, &json!("PARSE_ERROR")), "{body}");
    }
    let large = json!({ "context": { "far": "x".repeat(70_000) } });
    let said = one(&pod, "greeting", &large).await;
    assert_eq!((said.status, &said.json()["errorCode"]), (400, &json!("INVALID_CONTEXT")));
    assert!(said.body.contains("at most 65536"), "{}", said.body);
    assert_eq!(all(&pod, &large).await.json()["errorCode"], "INVALID_CONTEXT");
}

#[tokio::test]
async fn what_is_no_evaluation_is_refused_by_its_status() {
    let pod = Pod::start(FLAGS).await;
    for path in ["/", "/ofrep/v1/configuration", "/ofrep/v1/evaluate/flagsx", "/healthz"] {
        assert_eq!(send(&pod, request(path, "{}")).await.status, 404, "{path}");
    }
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let mut asked = request(FLAGS_PATH, "");
        *asked.method_mut() = method.clone();
        let said = send(&pod, asked).await;
        assert_eq!((said.status, said.headers[header::ALLOW].to_str().unwrap()), (405, "POST"), "{method}");
    }
}

#[tokio::test]
async fn a_selector_means_this_environment_or_nothing_and_a_wrong_one_is_refused() {
    let pod = Pod::start(FLAGS).await;
    let selecting = async |path: &str, selector: &str| {
        let mut request = request(path, "");
        request.headers_mut().insert("Flagd-Selector", selector.parse().unwrap());
        send(&pod, request).await
    };
    let greeting = format!("{FLAGS_PATH}/greeting");
    assert_eq!(selecting(&greeting, "flagSetId=test").await.status, 200);
    assert_eq!(selecting(&greeting, "flagSetId=other").await.status, 404);
    assert_eq!(selecting(FLAGS_PATH, "other").await.json()["flags"], json!([]));
    for path in [&greeting, FLAGS_PATH] {
        let said = selecting(path, "region=eu").await;
        assert_eq!((said.status, &said.json()["errorCode"]), (400, &json!("GENERAL")));
    }
}

#[tokio::test]
async fn all_flags_come_at_once_with_a_tag_by_which_nothing_is_sent_twice() {
    let mut pod = Pod::start(FLAGS).await;
    let first = all(&pod, &ana()).await;
    let told = first.json();
    assert_eq!((first.status, &told["metadata"]), (200, &json!({ "flagSetId": "test" })));
    let keys: Vec<_> = told["flags"].as_array().unwrap().iter().map(|flag| flag["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["greeting", "legacy_api", "limit", "needs_checkout", "new_checkout_flow", "sales_email"]);
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(told["flags"][index], one(&pod, key, &ana()).await.json(), "alone it is answered as among all");
    }
    let tag = first.tag().to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 10, "{tag}");
    for tags in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
        let again = known(&pod, &ana(), &tags).await;
        assert_eq!((again.status, again.body.as_str(), again.tag()), (304, "", tag.as_str()), "{tags}");
    }
    // Another person, or another state of a flag, has another tag.
    let other = known(&pod, &json!({ "context": { "targetingKey": "user-1" } }), &tag).await;
    assert_eq!(other.status, 200);
    assert_ne!(other.tag(), tag);
    pod.kill("new_checkout_flow");
    let changed = known(&pod, &ana(), &tag).await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.tag(), tag);
    // The path of one flag without a flag is that of all.
    assert_eq!(send(&pod, request(&format!("{FLAGS_PATH}/"), &ana().to_string())).await.body, changed.body);
    assert_eq!(send_by_http2(&pod, FLAGS_PATH, &ana().to_string()).await.body, changed.body);
}

#[tokio::test]
async fn without_a_state_a_client_is_told_when_to_ask_again() {
    let pod = Pod::start_empty(&Serve { threads: Some(1), ..Serve::default() }).await;
    for said in [one(&pod, "greeting", &ana()).await, all(&pod, &ana()).await] {
        assert_eq!((said.status, &said.json()["errorCode"]), (503, &json!("PROVIDER_NOT_READY")));
        assert_eq!(said.headers[header::RETRY_AFTER], "1");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_its_length_is_said_or_not() {
    let pod = Pod::start(FLAGS).await;
    let mut stream = TcpStream::connect(at(&pod)).await.unwrap();
    let head = format!("POST {FLAGS_PATH}/greeting HTTP/1.1\r\nHost: pod\r\nContent-Length: 10000000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let _ = soon(stream.read_to_end(&mut said)).await;
    assert!(said.starts_with(b"HTTP/1.1 413 "), "{}", String::from_utf8_lossy(&said));

    let stream = TcpStream::connect(at(&pod)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let frames = (0..258).map(|_| Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(vec![b' '; 1024]))));
    let body = StreamBody::new(tokio_stream::iter(frames));
    let asked = Request::post(format!("{FLAGS_PATH}/greeting")).header(header::HOST, "pod").body(body).unwrap();
    assert_eq!(soon(sender.send_request(asked)).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    // At its limit a context is taken, whatever it is written with.
    let escaped = format!(r#"{{"context":{{"far":"{}"}}}}"#, r"\u0041".repeat(40_000));
    assert_eq!(send(&pod, request(&format!("{FLAGS_PATH}/greeting"), &escaped)).await.status, 200);
}

#[tokio::test]
async fn all_flags_that_are_more_than_16_mib_are_refused_with_a_word_on_how_to_ask_and_counted_for_nobody() {
    let value = "x".repeat(200_000);
    let flags: String = (10..96).map(|n| format!("  f{n}: {{ variants: {{ v: {value} }}, defaultVariant: v }}\n")).collect();
    let few = "  few: { variants: { v: x }, defaultVariant: v, metadata: { flagSetId: few } }\n";
    let pod = Pod::start(&format!("flags:\n{few}{flags}")).await;
    let refused = all(&pod, &ana()).await;
    assert_eq!((refused.status, &refused.json()["errorCode"]), (500, &json!("GENERAL")));
    let details = refused.json()["errorDetails"].as_str().unwrap().to_owned();
    // The 84th is the first that does not fit: f10, ..., f93.
    for word in ["16777216", "`f93`", "Flagd-Selector"] {
        assert!(details.contains(word), "{word} is not in {details}");
    }
    assert!(!metrics(&pod).await.contains(r#"flag="f10""#), "what was not answered was counted");
    let mut selected = request(FLAGS_PATH, &ana().to_string());
    selected.headers_mut().insert("flagd-selector", "flagSetId=few".parse().unwrap());
    let said = send(&pod, selected).await;
    assert_eq!((said.status, said.json()["flags"].as_array().unwrap().len()), (200, 1));
    assert!(metrics(&pod).await.contains(r#"flag="few""#));
}

#[tokio::test]
async fn a_header_over_the_limit_is_refused_with_431() {
    let pod = Pod::start(FLAGS).await;
    let mut stream = TcpStream::connect(at(&pod)).await.unwrap();
    let head = format!("POST {FLAGS_PATH}/greeting HTTP/1.1\r\nHost: pod\r\nFar: {}\r\n\r\n", "x".repeat(20_000));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let _ = soon(stream.read_to_end(&mut said)).await;
    assert!(said.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&said));
    assert_eq!(one(&pod, "greeting", &ana()).await.status, 200);
}

/// Reads until the server has closed, in whatever way.
async fn closed(mut stream: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let _ = soon(stream.read_to_end(&mut said)).await;
    said
}

#[tokio::test]
async fn a_connection_that_is_silent_or_stuck_in_a_header_is_closed() {
    let limits = Limits { first_bytes_ms: 100, keep_alive_ms: 200, ..Limits::default() };
    let pod = Pod::start_with(&Serve { threads: Some(1), limits, ..Serve::default() }, FLAGS).await;
    assert!(closed(TcpStream::connect(at(&pod)).await.unwrap()).await.is_empty());
    for half in ["POST /ofr", "POST /ofrep/v1/evaluate/flags HTTP/1.1\r\nHost: p", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
        let mut stream = TcpStream::connect(at(&pod)).await.unwrap();
        stream.write_all(half.as_bytes()).await.unwrap();
        closed(stream).await;
    }
    assert_eq!(one(&pod, "greeting", &ana()).await.status, 200);
}

#[tokio::test]
async fn nothing_that_is_left_half_done_keeps_the_shutdown_waiting() {
    let pod = Pod::start(FLAGS).await;
    let silent = TcpStream::connect(at(&pod)).await.unwrap();
    let mut half_header = TcpStream::connect(at(&pod)).await.unwrap();
    half_header.write_all(b"POST /ofrep/v1/evaluate/flags HTTP/1.1\r\nHost: p").await.unwrap();
    let mut half_body = TcpStream::connect(at(&pod)).await.unwrap();
    let head = format!("POST {FLAGS_PATH} HTTP/1.1\r\nHost: pod\r\nContent-Length: 100\r\n\r\n{{");
    half_body.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(one(&pod, "greeting", &ana()).await.status, 200);
    let stopping = tokio::spawn(async move { tokio::time::timeout(Duration::from_secs(9), pod.stop()).await });
    for stream in [silent, half_header, half_body] {
        closed(stream).await;
    }
    assert!(soon(stopping).await.unwrap().is_ok(), "the shutdown took longer than its phases may");
}

#[tokio::test]
async fn a_connection_that_is_kept_open_is_closed_between_requests_when_the_sidecar_leaves() {
    let pod = Pod::start(FLAGS).await;
    let mut stream = TcpStream::connect(at(&pod)).await.unwrap();
    let head = format!("POST {FLAGS_PATH}/greeting HTTP/1.1\r\nHost: pod\r\nContent-Length: 0\r\n\r\n");
    for _ in 0..2 {
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut said = [0; 12];
        soon(stream.read_exact(&mut said)).await.unwrap();
        assert_eq!(&said, b"HTTP/1.1 200");
        let mut rest = Vec::new();
        while !rest.ends_with(b"\"short\"}") {
            rest.push(soon(stream.read_u8()).await.unwrap());
        }
    }
    let stopping = tokio::spawn(pod.stop());
    assert!(closed(stream).await.is_empty());
    assert_eq!(soon(stopping).await.unwrap(), [], "somebody was overdue");
}

#[tokio::test]
async fn ofrep_may_be_served_nowhere() {
    let pod = Pod::start_with(&Serve { threads: Some(1), ofrep: Listen(None), ..Serve::default() }, FLAGS).await;
    assert_eq!(pod.running.ofrep, None);
    assert_eq!(pod.stop().await, []);
}

#[tokio::test]
async fn who_is_served_by_ofrep_is_counted_and_attributed() {
    let pod = Pod::start(DOCUMENT).await;
    one(&pod, "checkout", &ana()).await;
    all(&pod, &json!({ "context": { "targetingKey": "bob" } })).await;
    let outcomes = vec![outcome("errors", "ana"), outcome("errors", "bob"), outcome("errors", "eve")];
    let tracked = TrackingClient::new(pod.channel().await).track(TrackRequest { outcomes }).await.unwrap().into_inner();
    assert_eq!(tracked, TrackResponse { attributed: 2, unattributed: 1, duplicates: 0 });
    let text = metrics(&pod).await;
    assert!(text.contains(r#"yardarm_sdk_requests_total{service="ofrep.v1"} 2"#), "{text}");
    let counted = text.lines().filter(|line| line.starts_with(r#"yardarm_evaluations_total{flag="checkout""#));
    assert_eq!(counted.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>(), 2, "{text}");
}

/// An event stream over HTTP/1.1, as a browser has it.
struct Stream {
    body: hyper::body::Incoming,
    held: String,
}

impl Stream {
    async fn open(pod: &Pod, path: &str, last: Option<&str>) -> Self {
        let mut request = Request::get(path).header(header::HOST, "pod");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let stream = TcpStream::connect(at(pod)).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let response = soon(sender.send_request(request.body(Full::<Bytes>::default()).unwrap())).await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()[header::CONTENT_TYPE]), (200, &"text/event-stream".parse().unwrap()));
        let mut stream = Self { body: response.into_body(), held: String::new() };
        assert_eq!(stream.block().await.unwrap(), "retry: 1000");
        stream
    }

    /// Up to an empty line; `None` at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.held.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.held = rest;
                return Some(block);
            }
            let frame = soon(self.body.frame()).await?.unwrap();
            self.held.push_str(std::str::from_utf8(frame.data_ref().expect("no trailers")).unwrap());
        }
    }

    /// The id of the next event.
    async fn event(&mut self) -> String {
        let block = self.block().await.expect("an event");
        let lines: Vec<_> = block.lines().collect();
        let [id, "event: message", data] = lines[..] else { panic!("{block}") };
        let id = id.strip_prefix("id: ").unwrap();
        let data: Json = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data, json!({ "type": "refetchEvaluation", "etag": id }));
        id.to_owned()
    }
}

#[tokio::test]
async fn a_client_hears_when_to_fetch_again_and_where_it_hears_it() {
    let mut pod = Pod::start(FLAGS).await;
    let said = all(&pod, &json!({})).await;
    let streams = said.json()["eventStreams"].clone();
    assert_eq!(streams, json!([{ "type": "sse", "endpoint": { "requestUri": "/ofrep/v1/sse" }, "inactivityDelaySec": 120 }]));
    let mut stream = Stream::open(&pod, "/ofrep/v1/sse", None).await;
    // What changed since the client fetched would not reach it otherwise.
    let first = stream.event().await;
    let fetch = async |pod: &Pod, tag: &str| {
        let mut request = request(&format!("{FLAGS_PATH}?flagConfigEtag={tag}"), "{}");
        request.headers_mut().insert(header::IF_NONE_MATCH, said.tag().parse().unwrap());
        send(pod, request).await.status
    };
    assert_eq!(fetch(&pod, &first).await, 304);
    pod.kill("new_checkout_flow");
    let second = stream.event().await;
    assert_ne!(first, second);
    pod.restore("new_checkout_flow");
    let third = stream.event().await;
    // The answer is as it was but for its revision; who names another state than this one gets it whole, whatever it holds.
    assert_eq!((fetch(&pod, &third).await, fetch(&pod, &second).await), (200, 200));
    let mut again = Stream::open(&pod, "/ofrep/v1/sse", Some(&second)).await;
    assert_eq!(again.event().await, third);
    // Who knows it already hears nothing until something changes.
    let mut informed = Stream::open(&pod, "/ofrep/v1/sse", Some(&third)).await;
    pod.kill("new_checkout_flow");
    let fourth = informed.event().await;
    assert_eq!((again.event().await, stream.event().await), (fourth.clone(), fourth));
    pod.stop().await;
    for mut stream in [stream, again, informed] {
        assert_eq!(stream.block().await, None);
    }
}

#[tokio::test]
async fn a_stream_of_a_selection_is_silent_about_other_flags() {
    let set = |name: &str, variant: &str| {
        format!("flags: {{ of_{name}: {{ variants: {{ a: 1, b: 2 }}, defaultVariant: {variant}, metadata: {{ flagSetId: {name} }} }} }}")
    };
    let mut pod = Pod::start(FLAGS).await;
    pod.apply(&set("web", "a"));
    let mut request = request(FLAGS_PATH, "{}");
    request.headers_mut().insert("flagd-selector", "flagSetId=web".parse().unwrap());
    let said = send(&pod, request).await.json();
    let path = said["eventStreams"][0]["endpoint"]["requestUri"].as_str().unwrap().to_owned();
    assert_eq!(path, "/ofrep/v1/sse/flagSetId%3Dweb");
    let mut stream = Stream::open(&pod, &path, None).await;
    let mut everything = Stream::open(&pod, "/ofrep/v1/sse", None).await;
    let (first, _) = (stream.event().await, everything.event().await);
    pod.kill("greeting");
    everything.event().await;
    pod.apply(&set("web", "b"));
    // Had the kill been told, this would be it, and the next wait would find another.
    let second = stream.event().await;
    assert_ne!(first, second);
    everything.event().await;
    let mut informed = Stream::open(&pod, &path, Some(&second)).await;
    pod.apply(&set("web", "a"));
    assert_eq!(informed.event().await, stream.event().await);
}

#[tokio::test]
async fn a_stream_that_cannot_be_had_says_why() {
    let limits = Limits { max_watchers: 1, ..Limits::default() };
    let pod = Pod::start_with(&Serve { limits, ..Serve::default() }, FLAGS).await;
    let get = async |path: &str| {
        let request = Request::get(path).header(header::HOST, "pod").body(Full::<Bytes>::default()).unwrap();
        send(&pod, request).await
    };
    assert_eq!(get("/ofrep/v1/sse/region%3Deu").await.status, 400);
    let posted = send(&pod, request("/ofrep/v1/sse", "")).await;
    assert_eq!((posted.status, &posted.headers[header::ALLOW]), (405, &"GET".parse().unwrap()));
    let _open = Stream::open(&pod, "/ofrep/v1/sse", None).await;
    let full = get("/ofrep/v1/sse").await;
    assert_eq!((full.status, &full.headers[header::RETRY_AFTER]), (429, &"1".parse().unwrap()));
    assert!(full.body.contains("--max-watchers"), "{}", full.body);
}
