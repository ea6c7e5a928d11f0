//! What clients are promised on port 8013 that speak no gRPC: Connect and gRPC-Web, by HTTP/1.1 and HTTP/2, and browsers among them.

use std::net::SocketAddr;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use serde_json::{Value as Json, json};
use tokio::net::TcpStream;
use tonic::{Code, Status};
use yardarm::sidecar::Serve;
use yardarm::wire::flagd::{schema, v1, v2};
use yardarm::wire::json::to_struct;
use yardarm::wire::v1 as ours;

use crate::management::metrics;
use crate::pod::{FLAGS, Pod, soon};

#[derive(Debug, Clone, Copy)]
enum Http {
    One,
    Two,
}

const BOTH: [Http; 2] = [Http::One, Http::Two];

/// An answer whose body is still coming.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Incoming,
    held: BytesMut,
}

fn post(at: SocketAddr, path: &str, content_type: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::post(format!("http://{at}{path}")).header(header::HOST, at.to_string());
    request.header(header::CONTENT_TYPE, content_type).body(Full::new(body.into())).unwrap()
}

async fn send(http: Http, at: SocketAddr, mut request: Request<Full<Bytes>>) -> Answer {
    let stream = TokioIo::new(soon(TcpStream::connect(at)).await.unwrap());
    let response = match http {
        Http::One => {
            *request.uri_mut() = request.uri().path().parse().unwrap();
            let (mut sender, connection) = soon(hyper::client::conn::http1::handshake(stream)).await.unwrap();
            tokio::spawn(connection);
            soon(sender.send_request(request)).await
        }
        Http::Two => {
            request.headers_mut().remove(header::HOST);
            let (mut sender, connection) = soon(hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)).await.unwrap();
            tokio::spawn(connection);
            soon(sender.send_request(request)).await
        }
    };
    let (head, body) = response.unwrap().into_parts();
    Answer { status: head.status.as_u16(), headers: head.headers, body, held: BytesMut::new() }
}

impl Answer {
    fn content_type(&self) -> &str {
        self.headers[header::CONTENT_TYPE].to_str().unwrap()
    }

    async fn whole(self) -> Bytes {
        soon(self.body.collect()).await.unwrap().to_bytes()
    }

    async fn json(self, status: u16) -> Json {
        assert_eq!((self.status, self.content_type()), (status, "application/json"));
        serde_json::from_slice(&self.whole().await).unwrap()
    }

    /// The next frame of a stream: what marks it, and what it holds.
    async fn frame(&mut self) -> (u8, Bytes) {
        loop {
            if let Some(([flags, length @ ..], rest)) = self.held.split_first_chunk::<5>() {
                let (flags, length) = (*flags, u32::from_be_bytes(*length) as usize);
                if rest.len() >= length {
                    self.held.advance(5);
                    return (flags, self.held.split_to(length).freeze());
                }
            }
            let frame = soon(self.body.frame()).await.expect("the stream goes on").unwrap();
            self.held.extend_from_slice(&frame.into_data().expect("there are no trailers"));
        }
    }

    async fn ended(mut self) {
        assert!(self.held.is_empty() && soon(self.body.frame()).await.is_none());
    }
}

fn path(service: &str, method: &str) -> String {
    format!("/{service}/{method}")
}

const V2: &str = "flagd.evaluation.v2.Service";
const V1: &str = "flagd.evaluation.v1.Service";
const SCHEMA: &str = "schema.v1.Service";

async fn json(http: Http, pod: &Pod, service: &str, method: &str, body: &Json) -> Answer {
    send(http, pod.running.tcp, post(pod.running.tcp, &path(service, method), "application/json", body.to_string())).await
}

fn for_ana(key: &str) -> Json {
    json!({ "flagKey": key, "context": { "targetingKey": "ana" } })
}

#[tokio::test]
async fn every_type_is_answered_in_json_under_every_name_by_both_versions_of_http() {
    let pod = Pod::start(FLAGS).await;
    let object = json!({
        "prompt": "sales-email-007", "version": "2.2.1", "temperature": 0.5, "stop": ["a", "b"], "deep": { "er": true },
    });
    for http in BOTH {
        for service in [V2, V1, SCHEMA] {
            let mut heard = Vec::new();
            for (method, key) in [
                ("ResolveBoolean", "new_checkout_flow"),
                ("ResolveString", "greeting"),
                ("ResolveFloat", "limit"),
                ("ResolveInt", "limit"),
                ("ResolveObject", "sales_email"),
            ] {
                let said = json(http, &pod, service, method, &for_ana(key)).await.json(200).await;
                heard.push((said["value"].clone(), said["reason"].clone(), said["variant"].clone()));
                assert_eq!(said["metadata"]["flagSetId"], "test");
            }
            let expected = [
                (json!(true), json!("TARGETING_MATCH"), json!("on")),
                (json!("Hi"), json!("STATIC"), json!("short")),
                (json!(10.5), json!("STATIC"), json!("low")),
                // 64 bits are a text in protobuf's JSON.
                (json!("10"), json!("STATIC"), json!("low")),
                (object.clone(), json!("DEFAULT"), json!("old")),
            ];
            assert_eq!(heard, expected, "{service} by {http:?}");
        }
    }
    let metrics = metrics(&pod).await;
    assert!(metrics.contains(r#"yardarm_sdk_requests_total{service="flagd.evaluation.v2.Service"} 10"#), "{metrics}");
}

#[tokio::test]
async fn a_message_of_protobuf_is_answered_by_one_without_a_frame() {
    let pod = Pod::start(FLAGS).await;
    let at = pod.running.tcp;
    let context = Some(to_struct(json!({ "targetingKey": "ana" }).as_object().unwrap()));
    for http in BOTH {
        let question = v2::ResolveBooleanRequest { flag_key: "new_checkout_flow".into(), context: context.clone() };
        let answer = send(http, at, post(at, &path(V2, "ResolveBoolean"), "application/proto", question.encode_to_vec())).await;
        assert_eq!((answer.status, answer.content_type()), (200, "application/proto"));
        let said = v2::ResolveBooleanResponse::decode(answer.whole().await).unwrap();
        assert_eq!((said.value, said.variant.as_deref()), (Some(true), Some("on")));
        let all = v1::ResolveAllRequest { context: context.clone() };
        let answer = send(http, at, post(at, &path(V1, "ResolveAll"), "application/proto", all.encode_to_vec())).await;
        let said = v1::ResolveAllResponse::decode(answer.whole().await).unwrap();
        assert_eq!((said.flags.len(), said.flags["greeting"].variant.as_str()), (6, "short"));
        let old = schema::ResolveStringRequest { flag_key: "greeting".into(), context: None };
        let answer = send(http, at, post(at, &path(SCHEMA, "ResolveString"), "application/proto", old.encode_to_vec())).await;
        assert_eq!(schema::ResolveStringResponse::decode(answer.whole().await).unwrap().value, "Hi");
    }
}

#[tokio::test]
async fn all_flags_in_json_have_their_types_and_the_metadata_of_the_set() {
    let pod = Pod::start(FLAGS).await;
    let all = json(Http::One, &pod, V1, "ResolveAll", &json!({ "context": { "targetingKey": "ana" } })).await.json(200).await;
    assert_eq!(all["metadata"], json!({ "flagSetId": "test" }));
    let flags = all["flags"].as_object().unwrap();
    assert_eq!(flags.len(), 6);
    assert_eq!(flags["new_checkout_flow"]["boolValue"], true);
    assert_eq!(flags["greeting"]["stringValue"], "Hi");
    assert_eq!(flags["limit"]["doubleValue"], 10.5);
    assert_eq!(flags["sales_email"]["objectValue"]["version"], "2.2.1");
    assert_eq!(
        flags["legacy_api"],
        json!({ "reason": "DISABLED", "variant": "", "boolValue": false, "metadata": flags["legacy_api"]["metadata"] })
    );
    let old = json(Http::One, &pod, SCHEMA, "ResolveAll", &json!({})).await.json(200).await;
    assert_eq!(old["flags"]["greeting"], json!({ "reason": "STATIC", "variant": "short", "stringValue": "Hi" }));
    assert_eq!(old.get("metadata"), None);
}

#[tokio::test]
async fn an_error_is_a_status_of_http_with_a_code_and_a_message() {
    let mut pod = Pod::start(FLAGS).await;
    pod.apply("flags: { unsure: { variants: { a: x }, targeting: { var: [who] } } }");
    let resolve = async |method: &str, body: Json| json(Http::One, &pod, V2, method, &body).await;
    let not_found = json!({ "code": "not_found", "message": "Flag not found" });
    assert_eq!(resolve("ResolveBoolean", for_ana("nowhere")).await.json(404).await, not_found);
    let mismatch = json!({ "code": "invalid_argument", "message": "Type mismatch error" });
    assert_eq!(resolve("ResolveBoolean", for_ana("greeting")).await.json(400).await, mismatch);
    let unknown_variant = json!({ "flagKey": "unsure", "context": { "who": "b" } });
    assert_eq!(resolve("ResolveString", unknown_variant).await.json(500).await, json!({ "code": "internal", "message": "General error" }));
    let far = json!({ "flagKey": "greeting", "context": { "far": "x".repeat(70_000) } });
    assert_eq!(resolve("ResolveString", far).await.json(500).await["code"], "data_loss");
    let at = pod.running.tcp;
    for (body, expected) in [("{", "no JSON"), ("7", "no JSON object"), (r#"{"flagKey":[]}"#, "flagKey")] {
        let answer = send(Http::One, at, post(at, &path(V2, "ResolveString"), "application/json", body)).await;
        let said = answer.json(400).await;
        assert_eq!(said["code"], "invalid_argument");
        assert!(said["message"].as_str().unwrap().contains(expected), "{said}");
    }
    let broken = send(Http::One, at, post(at, &path(V2, "ResolveString"), "application/proto", &b"\x0a\xff"[..])).await;
    assert_eq!(broken.json(500).await["code"], "data_loss");
    let large = vec![b' '; 1024 * 1024 + 1];
    for http in BOTH {
        let answer = send(http, at, post(at, &path(V2, "ResolveString"), "application/json", large.clone())).await;
        assert_eq!(answer.json(429).await["code"], "resource_exhausted");
    }
    let mut compressed = post(at, &path(V2, "ResolveString"), "application/proto", &b"\x1f\x8b"[..]);
    compressed.headers_mut().insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
    assert_eq!(send(Http::One, at, compressed).await.json(501).await["code"], "unimplemented");
    let mut wrong = post(at, &path(V2, "ResolveString"), "application/json", for_ana("greeting").to_string());
    wrong.headers_mut().insert("flagd-selector", "region=eu".parse().unwrap());
    assert_eq!(send(Http::One, at, wrong).await.json(400).await["code"], "invalid_argument");
}

#[tokio::test]
async fn what_is_not_served_or_not_spoken_is_refused_by_name() {
    let pod = Pod::start(FLAGS).await;
    let at = pod.running.tcp;
    let status = async |http, request| send(http, at, request).await.status;
    let stream_as_unary = send(Http::One, at, post(at, &path(V2, "EventStream"), "application/json", "{}")).await;
    assert_eq!(stream_as_unary.status, 415);
    assert!(stream_as_unary.headers["accept-post"].to_str().unwrap().contains("application/connect+json"));
    assert_eq!(status(Http::One, post(at, &path(V2, "ResolveInt"), "application/connect+proto", "")).await, 415);
    assert_eq!(status(Http::One, post(at, &path(V2, "ResolveInt"), "application/grpc-web-text", "")).await, 415);
    assert_eq!(status(Http::One, post(at, &path(V2, "ResolveInt"), "text/plain", "")).await, 415);
    let nowhere = send(Http::One, at, post(at, "/yardarm.v1.Evaluation/Evaluate", "application/json", "{}")).await.json(501).await;
    assert!(nowhere["message"].as_str().unwrap().contains("gRPC-Web"), "{nowhere}");
    // gRPC itself needs trailers.
    assert_eq!(status(Http::One, post(at, &path(V2, "ResolveInt"), "application/grpc", &[0; 5][..])).await, 505);
    for http in BOTH {
        let get = Request::get(format!("http://{at}/")).header(header::HOST, "pod").body(Full::default()).unwrap();
        assert_eq!(status(http, get).await, StatusCode::METHOD_NOT_ALLOWED.as_u16());
    }
}

#[tokio::test]
async fn events_come_in_frames_and_the_last_one_says_why_there_are_no_more() {
    for http in BOTH {
        let mut pod = Pod::start(FLAGS).await;
        let at = pod.running.tcp;
        let request = |encoding: &str, message: &[u8]| {
            let mut framed = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
            framed.extend_from_slice(message);
            post(at, &path(V2, "EventStream"), &format!("application/connect+{encoding}"), framed)
        };
        let mut proto = send(http, at, request("proto", b"")).await;
        let mut in_json = send(http, at, request("json", b"{}")).await;
        assert_eq!((proto.status, proto.content_type()), (200, "application/connect+proto"));
        assert_eq!(in_json.headers[header::CONTENT_TYPE], "application/connect+json");
        let read = |(flags, message): (u8, Bytes)| {
            assert_eq!(flags, 0);
            v2::EventStreamResponse::decode(message).unwrap().r#type
        };
        let read_json = |(flags, message): (u8, Bytes)| {
            assert_eq!(flags, 0);
            serde_json::from_slice::<Json>(&message).unwrap()
        };
        assert_eq!(read(proto.frame().await), "provider_ready");
        assert_eq!(read_json(in_json.frame().await), json!({ "type": "provider_ready", "data": {} }));
        // Everything once, because a client may have kept something from an earlier stream.
        assert_eq!(read(proto.frame().await), "configuration_change");
        assert_eq!(read_json(in_json.frame().await)["data"]["flags"].as_object().unwrap().len(), 6);
        pod.kill("new_checkout_flow");
        assert_eq!(read(proto.frame().await), "configuration_change");
        let killed = read_json(in_json.frame().await);
        assert_eq!(killed["data"]["flags"].as_object().unwrap().keys().collect::<Vec<_>>(), ["needs_checkout", "new_checkout_flow"]);
        pod.stop().await;
        assert_eq!(read(proto.frame().await), "provider_shutdown");
        assert_eq!(read_json(in_json.frame().await)["type"], "provider_shutdown");
        for mut stream in [proto, in_json] {
            let (flags, end) = stream.frame().await;
            let end: Json = serde_json::from_slice(&end).unwrap();
            assert_eq!((flags, &end["error"]["code"]), (2, &json!("unavailable")));
            stream.ended().await;
        }
    }
}

#[tokio::test]
async fn a_stream_that_cannot_begin_ends_with_its_error() {
    let args = Serve { limits: yardarm::sidecar::Limits { max_watchers: 0, ..Default::default() }, ..Serve::default() };
    let pod = Pod::start_with(&args, FLAGS).await;
    let at = pod.running.tcp;
    let mut answer =
        send(Http::One, at, post(at, &path(V1, "EventStream"), "application/connect+json", &[0, 0, 0, 0, 2, b'{', b'}'][..])).await;
    let (flags, end) = answer.frame().await;
    let end: Json = serde_json::from_slice(&end).unwrap();
    assert_eq!((answer.status, flags, &end["error"]["code"]), (200, 2, &json!("resource_exhausted")));
    answer.ended().await;
}

fn framed(message: &impl prost::Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    framed
}

/// The status in the last frame of gRPC-Web, or in the header of an answer that is nothing else.
fn web_status(block: &[u8]) -> Status {
    let mut headers = HeaderMap::new();
    for line in std::str::from_utf8(block).unwrap().split_terminator("\r\n") {
        let (name, value) = line.split_once(':').unwrap();
        headers.insert(name.parse::<HeaderName>().unwrap(), value.trim().parse().unwrap());
    }
    Status::from_header_map(&headers).unwrap()
}

#[tokio::test]
async fn grpc_web_is_answered_with_its_status_in_the_last_frame() {
    let mut pod = Pod::start(FLAGS).await;
    let at = pod.running.tcp;
    for http in BOTH {
        let question = v2::ResolveStringRequest { flag_key: "greeting".into(), context: None };
        for content_type in ["application/grpc-web+proto", "application/grpc-web"] {
            let mut answer = send(http, at, post(at, &path(V2, "ResolveString"), content_type, framed(&question))).await;
            assert_eq!((answer.status, answer.content_type()), (200, "application/grpc-web+proto"));
            let (flags, message) = answer.frame().await;
            let said = v2::ResolveStringResponse::decode(message).unwrap();
            assert_eq!((flags, said.value.as_deref()), (0, Some("Hi")));
            let (flags, end) = answer.frame().await;
            assert_eq!((flags, web_status(&end).code()), (0x80, Code::Ok));
            answer.ended().await;
        }
        let nowhere = v2::ResolveStringRequest { flag_key: "nowhere".into(), context: None };
        let answer = send(http, at, post(at, &path(V2, "ResolveString"), "application/grpc-web+proto", framed(&nowhere))).await;
        let status = Status::from_header_map(&answer.headers).unwrap();
        assert_eq!((answer.status, status.code(), status.message()), (200, Code::NotFound, "Flag not found"));
        // Ours too, and what tonic serves.
        let question = ours::EvaluateRequest { flag_key: "greeting".into(), ..Default::default() };
        let mut answer = send(http, at, post(at, "/yardarm.v1.Evaluation/Evaluate", "application/grpc-web+proto", framed(&question))).await;
        let (_, message) = answer.frame().await;
        assert_eq!(ours::EvaluateResponse::decode(message).unwrap().decision.unwrap().variant, "short");
        let mut answer = send(http, at, post(at, "/grpc.health.v1.Health/Check", "application/grpc-web+proto", vec![0; 5])).await;
        assert_eq!(answer.frame().await, (0, Bytes::from_static(&[8, 1])));
        assert_eq!(web_status(&answer.frame().await.1).code(), Code::Ok);
    }
    let watch = ours::WatchFlagsRequest::default();
    let mut stream = send(Http::One, at, post(at, "/yardarm.v1.Evaluation/WatchFlags", "application/grpc-web+proto", framed(&watch))).await;
    assert_eq!(stream.frame().await.0, 0);
    pod.kill("new_checkout_flow");
    assert_eq!(stream.frame().await.0, 0);
    pod.stop().await;
    loop {
        let (flags, content) = stream.frame().await;
        if flags == 0x80 {
            assert_eq!(web_status(&content).code(), Code::Unavailable);
            break;
        }
    }
    stream.ended().await;
}

#[tokio::test]
async fn ofrep_is_served_here_too() {
    let pod = Pod::start(FLAGS).await;
    let at = pod.running.tcp;
    for http in BOTH {
        let one = send(http, at, post(at, "/ofrep/v1/evaluate/flags/greeting", "application/json", "{}")).await.json(200).await;
        assert_eq!((&one["value"], &one["reason"]), (&json!("Hi"), &json!("STATIC")));
        let all = send(http, at, post(at, "/ofrep/v1/evaluate/flags", "application/json", "")).await.json(200).await;
        assert_eq!(all["flags"].as_array().unwrap().len(), 6);
    }
    // And nothing else there.
    let ofrep = pod.running.ofrep.unwrap();
    let other = send(Http::One, ofrep, post(ofrep, &path(V2, "ResolveString"), "application/json", for_ana("greeting").to_string())).await;
    assert_eq!(other.status, 404);
}

#[tokio::test]
async fn a_page_may_ask_only_when_its_origin_is_named() {
    let args = Serve { cors_origins: vec!["https://shop.example".into()], ..Serve::default() };
    let pod = Pod::start_with(&args, FLAGS).await;
    for at in [pod.running.tcp, pod.running.ofrep.unwrap()] {
        for (origin, may) in [("https://shop.example", true), ("https://other.example", false)] {
            let mut preflight = post(at, "/ofrep/v1/evaluate/flags", "application/json", "");
            *preflight.method_mut() = Method::OPTIONS;
            let headers = preflight.headers_mut();
            headers.insert(header::ORIGIN, origin.parse().unwrap());
            headers.insert(header::ACCESS_CONTROL_REQUEST_METHOD, "POST".parse().unwrap());
            headers.insert(header::ACCESS_CONTROL_REQUEST_HEADERS, "content-type,x-user".parse().unwrap());
            let answer = send(Http::One, at, preflight).await;
            assert_eq!((answer.status, answer.headers.get("access-control-allow-headers").is_some()), (204, may));
            let mut request = post(at, "/ofrep/v1/evaluate/flags/greeting", "application/json", "{}");
            request.headers_mut().insert(header::ORIGIN, origin.parse().unwrap());
            let answer = send(Http::One, at, request).await;
            let told = answer.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).map(|origin| origin.to_str().unwrap());
            assert_eq!((answer.status, told), (200, may.then_some(origin)));
        }
    }
}
