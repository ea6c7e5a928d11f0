//! What the control plane knows of its sidecars, through the functions that the Admin service calls.

use std::collections::BTreeMap;

use tokio_stream::StreamExt as _;
use tonic::Code;
use yardarm::control::fleet::{PodEvents, await_applied, list_pods, watch_pods};
use yardarm::flag::{ItemName, Position};
use yardarm::wire::replication::{Ack, FromSidecar, KillAck, Rejection};
use yardarm::wire::v1;

use crate::rig::proxy::Proxy;
use crate::rig::raw::{self, Raw, hello};
use crate::rig::{ENVIRONMENT, Plane, Sidecar, until, within};

fn pods(plane: &Plane) -> BTreeMap<String, v1::Pod> {
    let request = v1::ListPodsRequest { environment: ENVIRONMENT.into() };
    let pods = list_pods(&plane.ledger, &plane.fleet, request).unwrap().pods;
    pods.into_iter().map(|pod| (pod.identity.clone().unwrap().pod, pod)).collect()
}

/// The last message of a wait for a revision.
async fn wait_for(plane: &Plane, revision: u64, flag_key: &str, timeout_ms: u32) -> v1::Propagation {
    let (environment, flag_key) = (ENVIRONMENT.into(), flag_key.to_owned());
    let request = v1::AwaitAppliedRequest { environment, revision, flag_key, timeout_ms };
    let mut progress = await_applied(&plane.ledger, &plane.fleet, request).unwrap();
    loop {
        let step = within("progress", progress.next()).await.expect("the last message says that it is the last").unwrap();
        if step.done {
            assert!(within("the end", progress.next()).await.is_none());
            return step;
        }
    }
}

async fn synced(plane: &Plane, pods: usize) -> Vec<Sidecar> {
    let mut sidecars = Vec::new();
    for number in 0..pods {
        sidecars.push(Sidecar::start(&format!("pod-{number}"), plane.address).await);
    }
    for sidecar in &sidecars {
        sidecar.is_at(plane.head()).await;
    }
    let known = wait_for(plane, plane.head().revision, "", 60_000).await;
    assert_eq!(known.applied as usize, pods);
    sidecars
}

#[tokio::test]
async fn a_wait_ends_with_every_pod_and_how_long_it_took() {
    let plane = Plane::start().await;
    plane.put("checkout").await;
    let _sidecars = synced(&plane, 12).await;
    let position = plane.kill("checkout").await;
    let done = wait_for(&plane, position.revision, "checkout", 60_000).await;
    assert_eq!((done.revision, done.pods, done.applied), (position.revision, 12, 12));
    assert!(done.silent.is_empty() && done.rejected.is_empty());
    assert!(0 < done.p50_us && done.p50_us <= done.p99_us && done.p99_us <= done.slowest_us, "{done:?}");
    assert!(done.slowest_pod.starts_with("pod-"), "{done:?}");
}

#[tokio::test]
async fn silent_pods_are_named_when_the_time_is_up() {
    let plane = Plane::start().await;
    plane.put("checkout").await;
    let _sidecars = synced(&plane, 2).await;
    let network = Proxy::to(plane.address).await;
    let behind_the_network = Sidecar::start("stuck", network.address).await;
    behind_the_network.is_at(plane.head()).await;
    until("all three are known", || pods(&plane).values().filter(|pod| pod.position.is_some()).count() == 3).await;
    network.stall();
    let position = plane.kill("checkout").await;
    let done = wait_for(&plane, position.revision, "checkout", 700).await;
    assert_eq!((done.pods, done.applied, done.silent), (3, 2, vec!["stuck".to_owned()]));
    network.mend();
    let done = wait_for(&plane, position.revision, "checkout", 60_000).await;
    assert_eq!((done.applied, done.silent.len()), (3, 0));
}

#[tokio::test]
async fn a_lost_pod_is_missed_and_a_pod_that_said_goodbye_is_not() {
    let plane = Plane::start().await;
    plane.put("checkout").await;
    let mut sidecars = synced(&plane, 3).await;
    sidecars.pop().unwrap().crash().await;
    sidecars.pop().unwrap().stop().await;
    until("both ends are noticed", || {
        let pods = pods(&plane);
        pods.len() == 2 && !pods["pod-2"].connected
    })
    .await;
    assert!(pods(&plane)["pod-0"].connected);
    let position = plane.kill("checkout").await;
    let done = wait_for(&plane, position.revision, "checkout", 500).await;
    assert_eq!((done.pods, done.applied, done.silent), (2, 1, vec!["pod-2".to_owned()]));
}

#[tokio::test]
async fn a_restarted_pod_takes_the_place_of_its_last_process() {
    let plane = Plane::start().await;
    plane.put("checkout").await;
    let mut sidecars = synced(&plane, 1).await;
    sidecars.pop().unwrap().crash().await;
    let again = Sidecar::start("pod-0", plane.address).await;
    again.is_at(plane.head()).await;
    until("one pod is left", || pods(&plane).len() == 1 && pods(&plane)["pod-0"].connected).await;
    let request = v1::ListPodsRequest { environment: ENVIRONMENT.into() };
    assert_eq!(list_pods(&plane.ledger, &plane.fleet, request).unwrap().pods.len(), 1);
}

#[tokio::test]
async fn a_kill_counts_as_applied_before_the_log_has_it() {
    let plane = Plane::start().await;
    let before = plane.put("checkout").await;
    let mut client = raw::connect(plane.address).await;
    let mut stream = Raw::open(&mut client, hello("pod", None)).await.unwrap();
    stream.welcome().await;
    stream.ack(Ack { position: before, ..Ack::default() }).await;
    let position = plane.kill("checkout").await;
    let kills = vec![KillAck { flag_key: "checkout".into(), revision: position.revision, applied_at_us: 1 }];
    stream.ack(Ack { position: before, kills, ..Ack::default() }).await;
    assert_eq!(wait_for(&plane, position.revision, "checkout", 60_000).await.applied, 1);
    assert_eq!(wait_for(&plane, position.revision, "", 200).await.silent, ["pod"]);
}

#[tokio::test]
async fn a_pod_that_refuses_an_item_is_named_with_the_reason() {
    let plane = Plane::start().await;
    let position = plane.put("checkout").await;
    let mut client = raw::connect(plane.address).await;
    let mut stream = Raw::open(&mut client, hello("old-pod", None)).await.unwrap();
    stream.welcome().await;
    let message = "regex: look-around is not supported".to_owned();
    let rejection = Rejection { name: ItemName::flag("checkout"), revision: position.revision, message, held_revision: 0 };
    stream.ack(Ack { position, rejected: vec![rejection], ..Ack::default() }).await;
    let done = wait_for(&plane, position.revision, "", 60_000).await;
    assert_eq!((done.pods, done.applied, done.silent.len()), (1, 0, 0));
    let named = done.rejected[0].clone();
    assert_eq!((named.pod.as_str(), named.rejection.unwrap().message.as_str()), ("old-pod", "regex: look-around is not supported"));
    assert_eq!(pods(&plane)["old-pod"].rejected.len(), 1);
}

#[tokio::test]
async fn a_wait_for_what_is_not_there_is_refused() {
    let plane = Plane::start().await;
    let head = plane.put("checkout").await;
    let ask = |environment: &str, revision, timeout_ms| {
        let (environment, flag_key) = (environment.to_owned(), String::new());
        let request = v1::AwaitAppliedRequest { environment, revision, flag_key, timeout_ms };
        await_applied(&plane.ledger, &plane.fleet, request).err().map(|status| (status.code(), status.message().to_owned()))
    };
    let (code, message) = ask("prd", 1, 0).unwrap();
    assert_eq!(code, Code::NotFound);
    assert!(message.contains("`prd`") && message.contains("`prod`"), "{message}");
    for (revision, timeout_ms) in [(0, 0), (head.revision + 1, 0), (head.revision, 600_001)] {
        assert_eq!(ask(ENVIRONMENT, revision, timeout_ms).unwrap().0, Code::InvalidArgument, "{revision} {timeout_ms}");
    }
}

async fn next(events: &mut PodEvents) -> v1::PodEvent {
    within("an event", events.next()).await.unwrap().unwrap()
}

fn name(event: &v1::PodEvent) -> Option<String> {
    Some(event.pod.clone()?.identity?.pod)
}

#[tokio::test]
async fn a_watcher_sees_the_whole_view_and_then_each_pod_that_changed() {
    let plane = Plane::start().await;
    plane.put("checkout").await;
    let mut sidecars = synced(&plane, 2).await;
    let request = v1::ListPodsRequest { environment: ENVIRONMENT.into() };
    let mut events = watch_pods(&plane.ledger, &plane.fleet, request).unwrap();
    let first = [next(&mut events).await, next(&mut events).await, next(&mut events).await];
    assert_eq!(first.each_ref().map(name), [Some("pod-0".into()), Some("pod-1".into()), None]);
    assert_eq!(first.map(|event| event.synced), [false, false, true]);

    let position = plane.put("search").await;
    let mut arrived = BTreeMap::new();
    while arrived.len() < 2 {
        let event = next(&mut events).await;
        let pod = event.pod.clone().unwrap();
        if pod.position.map(Position::from) == Some(position) {
            arrived.insert(name(&event), ());
        }
    }
    sidecars.remove(0).stop().await;
    loop {
        let event = next(&mut events).await;
        if event.gone {
            assert_eq!(name(&event), Some("pod-0".into()));
            break;
        }
    }
}

#[tokio::test]
async fn the_view_says_how_old_the_data_of_a_pod_is() {
    let plane = Plane::start().await;
    let position = plane.put("checkout").await;
    let mut client = raw::connect(plane.address).await;
    let mut stream = Raw::open(&mut client, hello("pod", None)).await.unwrap();
    stream.welcome().await;
    stream.ack(Ack { position, applied_at_us: 5_000_000, age_ms: 7_000, ..Ack::default() }).await;
    until("the word has arrived", || pods(&plane)["pod"].position.is_some()).await;
    let pod = pods(&plane).remove("pod").unwrap();
    assert!(pod.age_ms >= 7_000, "{pod:?}");
    assert_eq!(pod.applied_at.unwrap().seconds, 5);
    stream.says.send(FromSidecar::Goodbye { reason: "done".into() }.into()).await.unwrap();
    assert_eq!(stream.end().await.code(), Code::Ok);
    until("it is not missed", || pods(&plane).is_empty()).await;
}
