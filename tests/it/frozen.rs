//! A control plane that is frozen, not dead: its connections stand and its kernel answers for it.

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Streaming;
use yardarm::wire::v1::watch_flags_response::Event;
use yardarm::wire::v1::*;

use crate::process::Process;
use crate::rig::within;

/// The next sign of life of the watch, with the age of its data.
async fn beat(watch: &mut Streaming<WatchFlagsResponse>) -> u64 {
    loop {
        if let Some(Event::Heartbeat(beat)) = watch.message().await.unwrap().expect("a watch does not end").event {
            return beat.age_ms;
        }
    }
}

/// Reads signs of life until the data is of such an age.
async fn age(watch: &mut Streaming<WatchFlagsResponse>, what: &str, wanted: impl Fn(u64) -> bool) {
    within(what, async { while !wanted(beat(watch).await) {} }).await;
}

/// The value of the series whose line has this in it.
async fn metric(sidecar: &Process, series: &str) -> f64 {
    let mut stream = TcpStream::connect(sidecar.management()).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: sidecar\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let value = text.lines().find(|line| line.contains(series)).and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("`{series}` is not in\n{text}"))
}

#[tokio::test]
async fn sidecars_of_a_frozen_control_plane_say_their_age_and_connect_anew() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("control");
    let control = Process::start(&["control", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0", "--heartbeat-ms", "100"]);
    let sidecar = Process::sidecar(control.grpc(), &directory.path().join("pod"), "pod");
    let request = WatchFlagsRequest { heartbeat_ms: 100, ..WatchFlagsRequest::default() };
    let mut watch = within("a watch", sidecar.evaluation().watch_flags(request)).await.unwrap().into_inner();
    age(&mut watch, "fresh data", |age_ms| age_ms < 500).await;

    control.freeze();
    age(&mut watch, "the age of a second", |age_ms| age_ms >= 1_000).await;
    within("the silence is taken for a loss", async {
        while metric(&sidecar, "reconnects_total{reason=\"silent\"}").await < 1.0 {
            beat(&mut watch).await;
        }
    })
    .await;
    let request = EvaluateRequest { flag_key: "any".into(), ..EvaluateRequest::default() };
    within("an answer all the same", sidecar.evaluation().evaluate(request)).await.unwrap();

    control.signal(Signal::CONT);
    age(&mut watch, "fresh data again", |age_ms| age_ms < 500).await;
}
