//! A sidecar gives its addresses, its socket and its data over to the next one while clients ask, with real processes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use yardarm::wire::v1::{EvaluateRequest, Reason};

use crate::main_job::{apply, kill};
use crate::pod::unix_channel;
use crate::process::{PATIENCE, Process};

const DOCUMENT: &str = r#"
flags:
  checkout:
    variants: { "on": true, "off": false }
    defaultVariant: "on"
    killVariant: "off"
"#;

fn sidecar(control: &str, data: &Path, listen: &str) -> Process {
    let (control, socket) = (format!("http://{control}"), data.with_extension("sock"));
    Process::start(&[
        "sidecar",
        "--hand-over",
        "--pod",
        "pod",
        "--threads",
        "1",
        "--control-plane",
        &control,
        "--data",
        data.to_str().unwrap(),
        "--listen",
        listen,
        "--socket",
        socket.to_str().unwrap(),
        "--management",
        "127.0.0.1:0",
        "--ofrep",
        "127.0.0.1:0",
        "--sync",
        "127.0.0.1:0",
    ])
}

fn question() -> EvaluateRequest {
    EvaluateRequest { flag_key: "checkout".into(), ..EvaluateRequest::default() }
}

async fn reason(process: &Process) -> Reason {
    process.evaluation().evaluate(question()).await.unwrap().into_inner().decision.unwrap().reason()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sidecar_gives_way_to_the_next_and_no_connection_fails_twice() {
    let directory = tempfile::tempdir().unwrap();
    let control = Process::control(&directory.path().join("control"));
    apply(&control, DOCUMENT).await;
    let data = directory.path().join("pod");
    let mut sidecar_now = sidecar(control.grpc(), &data, "127.0.0.1:0");
    let address = sidecar_now.tcp().to_owned();
    assert_eq!(reason_in_time(&sidecar_now, Reason::Static).await, Reason::Static);

    let done = Arc::new(AtomicBool::new(false));
    let askers: Vec<_> = (0..3)
        .map(|_| {
            let (mut client, done) = (sidecar_now.evaluation(), Arc::clone(&done));
            tokio::spawn(async move {
                let (mut answered, mut failed) = (0_u64, Vec::new());
                while !done.load(Ordering::Relaxed) {
                    match client.evaluate(question()).await {
                        Ok(_) => answered += 1,
                        Err(status) => failed.push(status),
                    }
                }
                (answered, failed)
            })
        })
        .collect();
    let handed_over = 3;
    for _ in 0..handed_over {
        let next = sidecar(control.grpc(), &data, &address);
        assert_eq!(next.tcp(), address);
        assert!(std::mem::replace(&mut sidecar_now, next).stop().success());
        // The socket at the path is that of the next one.
        let mut client = yardarm::wire::v1::evaluation_client::EvaluationClient::new(unix_channel(&data.with_extension("sock")).await);
        assert_eq!(client.evaluate(question()).await.unwrap().into_inner().decision.unwrap().reason(), Reason::Static);
    }
    done.store(true, Ordering::Relaxed);
    for asker in askers {
        let (answered, failed) = asker.await.unwrap();
        assert!(answered > 0 && failed.len() <= handed_over, "{answered} answered, failed: {failed:?}");
    }

    // It follows, and what it hears is in the directory that the one before it kept: it serves without a control plane after a crash.
    kill(&control, "checkout").await;
    assert_eq!(reason_in_time(&sidecar_now, Reason::Killed).await, Reason::Killed);
    assert!(sidecar_now.stop().success());
    let dead = control.grpc().to_owned();
    control.kill_9();
    let last = sidecar(&dead, &data, &address);
    assert_eq!(reason(&last).await, Reason::Killed);
}

/// What is answered once it is this, or in the end.
async fn reason_in_time(process: &Process, wanted: Reason) -> Reason {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = reason(process).await;
        if found == wanted || Instant::now() > end {
            return found;
        }
    }
}
