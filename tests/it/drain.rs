//! Connections that are idle, half open or stuck are closed in time, and never keep a shutdown waiting.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tonic::Code;
use yardarm::sidecar::{Limits, Serve};
use yardarm::wire::v1::{EvaluateStreamRequest, WatchFlagsRequest};

use crate::http2::{self, Raw};
use crate::pod::{FLAGS, Pod, evaluate, person, question, soon, watch_keys};

fn impatient() -> Serve {
    let limits = Limits { first_bytes_ms: 100, ..Limits::default() };
    Serve { threads: Some(2), limits, ..Serve::default() }
}

#[tokio::test]
async fn a_connection_that_never_says_what_it_speaks_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pod.sock");
    let pod = Pod::start_with(&Serve { socket: Some(path.clone()), ..impatient() }, FLAGS).await;
    Raw::silent(pod.running.tcp).await.closed().await;
    let mut half = Raw::silent(pod.running.tcp).await;
    half.send(&http2::PREFACE[..10]).await;
    half.closed().await;
    let mut unix = UnixStream::connect(&path).await.unwrap();
    unix.write_all(&http2::PREFACE[..23]).await.unwrap();
    closed(unix).await;
    let mut management = TcpStream::connect(pod.running.management).await.unwrap();
    management.write_all(b"GET /healthz HTTP/1.1\r\nHost: p").await.unwrap();
    closed(management).await;
}

#[tokio::test]
async fn a_connection_that_is_idle_between_calls_stays() {
    let pod = Pod::start_with(&impatient(), FLAGS).await;
    let mut client = pod.client().await;
    assert_eq!(evaluate(&mut client, question("greeting", person("ana"))).await.variant, "short");
    let raw = Raw::greeted(pod.running.tcp).await;
    // The deadline of the first bytes passes: a later silent connection is closed by it.
    Raw::silent(pod.running.tcp).await.closed().await;
    let mut raw = raw;
    raw.frame(6, 0, 0, b"anybody?").await;
    while raw.next().await.expect("still open").payload != b"anybody?" {}
    assert_eq!(evaluate(&mut client, question("greeting", person("ana"))).await.variant, "short");
}

#[tokio::test]
async fn a_peer_that_is_stuck_in_the_middle_of_a_frame_is_found_out_by_pings() {
    let limits = Limits { keep_alive_ms: 100, ..Limits::default() };
    let pod = Pod::start_with(&Serve { threads: Some(1), limits, ..Serve::default() }, FLAGS).await;
    let mut stuck = Raw::greeted(pod.running.tcp).await;
    let frame = http2::frame(http2::HEADERS, http2::END_HEADERS, 1, &http2::call("/yardarm.v1.Evaluation/Evaluate"));
    stuck.send(&frame[..frame.len() / 2]).await;
    stuck.closed().await;
}

/// Reads until the end, whether it is orderly or not.
async fn closed(mut stream: impl AsyncRead + Unpin) {
    let mut rest = Vec::new();
    match soon(stream.read_to_end(&mut rest)).await {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

#[tokio::test]
async fn nothing_that_a_peer_leaves_half_done_keeps_the_shutdown_waiting() {
    let pod = Pod::start(FLAGS).await;
    let (tcp, management) = (pod.running.tcp, pod.running.management);
    // Silent; half a preface; idle; half a header block; a call without its message; half an HTTP/1 header.
    let silent = Raw::silent(tcp).await;
    let mut half_open = Raw::silent(tcp).await;
    half_open.send(&http2::PREFACE[..10]).await;
    let idle = Raw::greeted(tcp).await;
    let mut half_header = Raw::greeted(tcp).await;
    half_header.frame(http2::HEADERS, 0, 1, &http2::call("/yardarm.v1.Evaluation/Evaluate")).await;
    let mut half_call = Raw::greeted(tcp).await;
    half_call.frame(http2::HEADERS, http2::END_HEADERS, 1, &http2::call("/yardarm.v1.Evaluation/Evaluate")).await;
    let mut half_request = TcpStream::connect(management).await.unwrap();
    half_request.write_all(b"GET /metrics HTTP/1.1\r\nHo").await.unwrap();
    // And those that are in the middle of their work.
    let mut client = pod.client().await;
    let mut watch = client.watch_flags(WatchFlagsRequest { heartbeat_ms: 100, ..watch_keys(&[]) }).await.unwrap().into_inner();
    assert!(soon(watch.message()).await.unwrap().is_some());
    let (questions, asked) = tokio::sync::mpsc::channel(4);
    let mut answers = client.evaluate_stream(tokio_stream::wrappers::ReceiverStream::new(asked)).await.unwrap().into_inner();
    questions.send(EvaluateStreamRequest { id: 1, request: Some(question("greeting", person("ana"))) }).await.unwrap();
    assert_eq!(soon(answers.message()).await.unwrap().unwrap().id, 1);

    let stopping = tokio::spawn(async move { tokio::time::timeout(Duration::from_secs(9), pod.stop()).await });
    silent.closed().await;
    half_open.closed().await;
    idle.closed().await;
    half_header.closed().await;
    half_call.closed().await;
    closed(half_request).await;
    for status in [soon(watch.message()).await.unwrap_err(), soon(answers.message()).await.unwrap_err()] {
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }
    assert!(soon(stopping).await.unwrap().is_ok(), "the shutdown took longer than its phases may");
}

#[tokio::test]
async fn clients_that_behave_are_gone_before_the_drain_is_over() {
    let pod = Pod::start(FLAGS).await;
    let mut client = pod.client().await;
    let mut watch = client.watch_flags(watch_keys(&[])).await.unwrap().into_inner();
    assert!(soon(watch.message()).await.unwrap().is_some());
    evaluate(&mut client, question("greeting", person("ana"))).await;
    let stopping = tokio::spawn(pod.stop());
    assert_eq!(soon(watch.message()).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(soon(stopping).await.unwrap(), [], "somebody was overdue");
}
