//! The main job, with real processes: a kill reaches every sidecar and every watcher, all say so, and nothing that happens afterwards
//! undoes it.

use tokio::time::timeout;
use tonic::Streaming;
use yardarm::wire::v1::flag_change::Type;
use yardarm::wire::v1::watch_flags_response::Event;
use yardarm::wire::v1::*;

use crate::process::{self, PATIENCE, Process};
use crate::rig::until;

const PODS: usize = 3;

const DOCUMENT: &str = r#"{ "flags": {
    "checkout": { "variants": { "on": true, "off": false }, "defaultVariant": "on" },
    "search": { "variants": { "on": true, "off": false }, "defaultVariant": "on" }
} }"#;

struct Pod {
    process: Process,
    watch: Streaming<WatchFlagsResponse>,
}

fn intent() -> Option<Intent> {
    Some(Intent { actor: "ana".into(), reason: "error rate".into(), expect_revision: None })
}

pub async fn apply(control: &Process, document: &str) {
    let (environment, document) = ("default".into(), document.as_bytes().to_vec());
    control.admin().apply(ApplyRequest { environment, document, dry_run: false, intent: intent() }).await.unwrap();
}

pub async fn kill(control: &Process, key: &str) -> u64 {
    let request = KillFlagRequest { environment: "default".into(), key: key.into(), intent: intent() };
    control.admin().kill_flag(request).await.unwrap().into_inner().position.unwrap().revision
}

/// The last word on who has a revision.
async fn propagation(control: &Process, revision: u64, key: &str) -> Propagation {
    let request = AwaitAppliedRequest { environment: "default".into(), revision, flag_key: key.into(), timeout_ms: 20_000 };
    let mut progress = control.admin().await_applied(request).await.unwrap().into_inner();
    loop {
        let message = timeout(PATIENCE, progress.message()).await.unwrap().unwrap().expect("the last message says done");
        if message.done {
            return message;
        }
    }
}

async fn all_connected(control: &Process, pods: usize) {
    let request = ListPodsRequest { environment: "default".into() };
    let mut events = control.admin().watch_pods(request).await.unwrap().into_inner();
    let mut connected = std::collections::HashSet::new();
    while connected.len() < pods {
        let event = timeout(PATIENCE, events.message()).await.expect("every sidecar comes back").unwrap().unwrap();
        let Some(pod) = event.pod else { continue };
        // Not by name: the process that a pod had before is gone when the new one has come.
        let process = pod.identity.unwrap().instance;
        if pod.connected && !event.gone {
            connected.insert(process)
        } else {
            connected.remove(&process)
        };
    }
}

async fn watch(process: &Process) -> Streaming<WatchFlagsResponse> {
    timeout(PATIENCE, process.evaluation().watch_flags(WatchFlagsRequest::default())).await.unwrap().unwrap().into_inner()
}

/// Reads on until the flag is told of as `wanted`; a first view counts as well.
async fn told(watch: &mut Streaming<WatchFlagsResponse>, key: &str, wanted: Type) {
    let reading = async {
        loop {
            let found = match watch.message().await.unwrap().expect("a watch does not end").event.unwrap() {
                Event::Snapshot(snapshot) => snapshot.flags.iter().any(|flag| flag.key == key && flag.killed == (wanted == Type::Killed)),
                Event::Change(change) => change.flag.as_ref().is_some_and(|flag| flag.key == key) && change.r#type() == wanted,
                Event::Heartbeat(_) => false,
            };
            if found {
                return;
            }
        }
    };
    timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("{key} was not told of as {wanted:?}"));
}

async fn reason(process: &Process, key: &str) -> Reason {
    let request = EvaluateRequest { flag_key: key.into(), ..EvaluateRequest::default() };
    let answer = timeout(PATIENCE, process.evaluation().evaluate(request)).await.unwrap().unwrap();
    answer.into_inner().decision.unwrap().reason()
}

async fn pods(control: &Process, directory: &std::path::Path) -> Vec<Pod> {
    let mut pods = Vec::new();
    for number in 0..PODS {
        let name = format!("pod-{number}");
        let process = Process::sidecar(control.grpc(), &directory.join(&name), &name);
        let mut watch = watch(&process).await;
        told(&mut watch, "checkout", Type::Updated).await;
        pods.push(Pod { process, watch });
    }
    pods
}

async fn everybody_serves_the_kill(pods: &[Pod]) {
    for Pod { process, .. } in pods {
        assert_eq!(reason(process, "checkout").await, Reason::Killed);
        assert_eq!(reason(process, "search").await, Reason::Static);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_reaches_every_sidecar_and_every_watcher_and_outlives_control_plane_and_sidecars() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("control");
    let mut control = Process::control(&data);
    let address = control.grpc().to_owned();
    apply(&control, DOCUMENT).await;
    let mut pods = pods(&control, directory.path()).await;

    let revision = kill(&control, "checkout").await;
    let done = propagation(&control, revision, "checkout").await;
    assert_eq!((done.pods, done.applied, done.silent.len()), (3, 3, 0), "{done:?}");
    assert!(done.slowest_us > 0 && done.p50_us <= done.slowest_us, "{done:?}");
    for pod in &mut pods {
        told(&mut pod.watch, "checkout", Type::Killed).await;
    }
    everybody_serves_the_kill(&pods).await;

    // The control plane dies without a word and comes back.
    control.kill_9();
    everybody_serves_the_kill(&pods).await;
    control = Process::control_at(&data, &address);
    all_connected(&control, PODS).await;
    everybody_serves_the_kill(&pods).await;

    // A pod dies, and comes back while there is no control plane.
    control.kill_9();
    let Pod { process, watch: _ } = pods.remove(0);
    process.kill_9();
    let process = Process::sidecar(&address, &directory.path().join("pod-0"), "pod-0");
    let watch = watch(&process).await;
    pods.insert(0, Pod { process, watch });
    everybody_serves_the_kill(&pods).await;

    control = Process::control_at(&data, &address);
    all_connected(&control, PODS).await;
    everybody_serves_the_kill(&pods).await;
    let request = RestoreFlagRequest { environment: "default".into(), key: "checkout".into(), percent: None, intent: intent() };
    let restored = control.admin().restore_flag(request).await.unwrap().into_inner().position.unwrap();
    let done = propagation(&control, restored.revision, "checkout").await;
    assert_eq!((done.applied, done.silent.len()), (3, 0), "{done:?}");
    for pod in &mut pods {
        told(&mut pod.watch, "checkout", Type::Restored).await;
        assert_eq!(reason(&pod.process, "checkout").await, Reason::Static);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_survives_the_restore_of_a_backup_that_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let control = Process::control(&directory.path().join("control"));
    apply(&control, DOCUMENT).await;
    let mut pods = pods(&control, directory.path()).await;
    let before = kill(&control, "checkout").await;
    propagation(&control, before, "checkout").await;

    let mut backup = control.admin().backup(BackupRequest {}).await.unwrap().into_inner();
    let mut chunks = Vec::new();
    while let Some(chunk) = backup.message().await.unwrap() {
        chunks.push(BackupChunk { intent: chunks.is_empty().then(intent).flatten(), ..chunk });
    }
    control
        .admin()
        .restore_flag(RestoreFlagRequest { environment: "default".into(), key: "checkout".into(), percent: None, intent: intent() })
        .await
        .unwrap();
    for pod in &mut pods {
        told(&mut pod.watch, "checkout", Type::Restored).await;
    }
    control.admin().restore_backup(tokio_stream::iter(chunks)).await.unwrap();
    for pod in &mut pods {
        told(&mut pod.watch, "checkout", Type::Killed).await;
    }
    everybody_serves_the_kill(&pods).await;
}

/// `yardarm kill checkout --wait WAIT`: how it ended, and what it said.
async fn kill_and_wait(control: &Process, wait: &str) -> (Option<i32>, String) {
    let control = format!("http://{}", control.grpc());
    let mut kill = process::command();
    kill.args(["kill", "checkout", "--reason", "error rate", "--actor", "ana", "--wait", wait, "--control-plane", &control]);
    let output = tokio::task::spawn_blocking(move || kill.output()).await.unwrap().unwrap();
    (output.status.code(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_does_not_come_back_to_a_restarted_control_plane_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("control");
    let control = Process::control(&data);
    let address = control.grpc().to_owned();
    apply(&control, DOCUMENT).await;
    let [stays, goes] = ["stays", "goes"].map(|name| Process::sidecar(&address, &directory.path().join(name), name));
    all_connected(&control, 2).await;
    let remembered = || std::fs::read_to_string(data.join("pods.json")).unwrap_or_default();
    until("both pods are noted", || ["stays", "goes"].iter().all(|pod| remembered().contains(&format!("\"pod\":\"{pod}\"")))).await;

    control.kill_9();
    goes.kill_9();
    let control = Process::control_at(&data, &address);
    all_connected(&control, 1).await;
    let (code, said) = kill_and_wait(&control, "2s").await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("applied on 1 of 2 pods") && said.contains("no answer in 2 s from pod goes"), "{said}");

    // The same pod, another process: nobody is missed any more.
    let _back = Process::sidecar(&address, &directory.path().join("goes"), "goes");
    all_connected(&control, 2).await;
    let (code, said) = kill_and_wait(&control, "20s").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("applied on 2 of 2 pods"), "{said}");
    drop(stays);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_silent_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let control = Process::control(&directory.path().join("control"));
    apply(&control, DOCUMENT).await;
    let pods = pods(&control, directory.path()).await;
    pods[1].process.freeze();
    let revision = kill(&control, "checkout").await;
    let request = AwaitAppliedRequest { environment: "default".into(), revision, flag_key: "checkout".into(), timeout_ms: 1_500 };
    let mut progress = control.admin().await_applied(request).await.unwrap().into_inner();
    let mut last = Propagation::default();
    while let Some(message) = timeout(PATIENCE, progress.message()).await.unwrap().unwrap() {
        last = message;
    }
    assert_eq!((last.pods, last.applied, last.done), (3, 2, true), "{last:?}");
    assert_eq!(last.silent, ["pod-1"]);
    pods[1].process.signal(rustix::process::Signal::CONT);
    assert_eq!(propagation(&control, revision, "checkout").await.applied, 3);
}
