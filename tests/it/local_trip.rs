//! The local trip, with real processes: while the control plane is gone the guards of a pod decide there, and when it is back everybody
//! hears of what they did, unless somebody has decided otherwise meanwhile.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use yardarm::wire::v1::evidence_client::EvidenceClient;
use yardarm::wire::v1::flag_change::Type;
use yardarm::wire::v1::report_trip_response::Outcome as Answer;
use yardarm::wire::v1::tracking_client::TrackingClient;
use yardarm::wire::v1::*;

use crate::pod::{evaluate, person, question, watch_keys};
use crate::process::{Process, channel};
use crate::rig::within;
use crate::watch::Watch;

const ENVIRONMENT: &str = "default";

/// Two flags of which a guard allows 5 % to fail, each with an event of its own.
const DOCUMENT: &str = r#"
flags:
  checkout:
    variants: { "off": false, "on": true }
    defaultVariant: "on"
    killVariant: "off"
    metrics: { errors: { kind: binomial, direction: lower } }
    guard: [{ metric: errors, above: 0.05 }]
  search:
    variants: { "off": false, "on": true }
    defaultVariant: "on"
    killVariant: "off"
    metrics: { timeouts: { kind: binomial, direction: lower } }
    guard: [{ metric: timeouts, above: 0.05 }]
"#;

/// Three of them without a word are the time after which a pod decides alone.
const HEARTBEAT_MS: u32 = 100;

struct World {
    directory: tempfile::TempDir,
    address: String,
}

impl World {
    /// A control plane with the flags, and a place for a sidecar.
    async fn new() -> (Self, Process) {
        Self::with_heartbeat(HEARTBEAT_MS).await
    }

    async fn with_heartbeat(heartbeat_ms: u32) -> (Self, Process) {
        let directory = tempfile::tempdir().unwrap();
        let control = control(directory.path(), "127.0.0.1:0", heartbeat_ms);
        let address = control.grpc().to_owned();
        apply(&control, DOCUMENT).await;
        (Self { directory, address }, control)
    }

    fn control(&self) -> Process {
        control(self.directory.path(), &self.address, HEARTBEAT_MS)
    }

    fn sidecar(&self) -> Process {
        Process::sidecar(&self.address, &self.directory.path().join("pod"), "shop-1")
    }

    /// A sidecar that has heard of the flags and of how many pods there are.
    async fn connected_sidecar(&self) -> Process {
        let sidecar = self.sidecar();
        becomes(&sidecar, "connected", 1).await;
        becomes(&sidecar, "flags", 2).await;
        becomes(&sidecar, "environment_pods", 1).await;
        sidecar
    }

    /// A pod whose checkout fails while the control plane is gone, once its trip is on disk.
    async fn tripped(&self, control: Process) -> Process {
        let sidecar = self.connected_sidecar().await;
        control.kill_9();
        fail_until_killed(&sidecar).await;
        assert_eq!(metric(&sidecar, "tripped_flags").await, 1);
        saved(&self.directory.path().join("pod")).await;
        sidecar
    }
}

fn control(directory: &Path, listen: &str, heartbeat_ms: u32) -> Process {
    let (data, heartbeat_ms) = (directory.join("control"), heartbeat_ms.to_string());
    Process::start(&["control", "--data", data.to_str().unwrap(), "--listen", listen, "--heartbeat-ms", &heartbeat_ms])
}

fn intent() -> Option<Intent> {
    Some(Intent { actor: "ana".into(), reason: "a test".into(), expect_revision: None })
}

async fn apply(control: &Process, document: &str) -> u64 {
    let (environment, document) = (ENVIRONMENT.into(), document.into());
    let answer = control.admin().apply(ApplyRequest { environment, document, dry_run: false, intent: intent() }).await.unwrap();
    answer.into_inner().position.unwrap().revision
}

async fn restore(control: &Process) {
    let request = RestoreFlagRequest { environment: ENVIRONMENT.into(), key: "checkout".into(), percent: None, intent: intent() };
    control.admin().restore_flag(request).await.unwrap();
}

/// Kills in the audit log: who and why.
async fn kills(control: &Process) -> Vec<(String, String)> {
    let request = ListAuditRequest { environment: ENVIRONMENT.into(), ..ListAuditRequest::default() };
    let entries = control.admin().list_audit(request).await.unwrap().into_inner().entries;
    entries.into_iter().filter(|entry| entry.action == "kill").map(|entry| (entry.actor, entry.reason)).collect()
}

/// Looks again and again until the answer is there.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let looking = async {
        loop {
            ticks.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    within(what, looking).await
}

async fn metric(sidecar: &Process, name: &str) -> u64 {
    let mut stream = TcpStream::connect(sidecar.management()).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    within("the metrics", stream.read_to_string(&mut text)).await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("yardarm_{name} ")));
    line.unwrap_or_else(|| panic!("{name} is not in {text}")).trim().parse().unwrap()
}

async fn becomes(sidecar: &Process, name: &str, value: u64) {
    until(&format!("{name} is {value}"), async || (metric(sidecar, name).await == value).then_some(())).await;
}

/// Until the trip is in one of the files of the last good state: a text that nothing else in them has.
async fn saved(data: &Path) {
    let trip = b"\x0a\x08checkout\x12";
    let has_trip = |name: &str| std::fs::read(data.join(name)).is_ok_and(|file| file.windows(trip.len()).any(|part| part == trip));
    until("the trip is on disk", async || ["state.0", "state.1"].into_iter().any(has_trip).then_some(())).await;
}

async fn serves(sidecar: &Process, flag: &str) -> (String, Reason) {
    let decision = evaluate(&mut sidecar.evaluation(), question(flag, person("somebody"))).await;
    (decision.variant.clone(), decision.reason())
}

fn killed() -> (String, Reason) {
    ("off".into(), Reason::Killed)
}

fn by_its_rules() -> (String, Reason) {
    ("on".into(), Reason::Static)
}

/// People come, are served both flags, and what they do with checkout fails, until it is killed. What they do with search does not fail.
async fn fail_until_killed(sidecar: &Process) {
    let (mut evaluation, mut tracking) = (sidecar.evaluation(), TrackingClient::new(channel(sidecar.tcp())));
    let mut number = 0;
    until("checkout is killed", async || {
        number += 1;
        let key = format!("user-{number}");
        let outcome = |event: &str, value| {
            let (event, context) = (event.into(), Some(person(&key)));
            Outcome { event, context, value: Some(value), ..Outcome::default() }
        };
        evaluate(&mut evaluation, question("search", person(&key))).await;
        let decision = evaluate(&mut evaluation, question("checkout", person(&key))).await;
        let outcomes = vec![outcome("errors", 1.0), outcome("timeouts", 0.0)];
        tracking.track(TrackRequest { outcomes }).await.unwrap();
        (decision.reason() == Reason::Killed).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flag_that_fails_while_the_control_plane_is_gone_is_killed_in_its_pod_and_for_everybody_once_it_is_back() {
    let (world, control) = World::new().await;
    let sidecar = world.connected_sidecar().await;
    let mut watch = Watch(sidecar.evaluation().watch_flags(watch_keys(&["checkout", "search"])).await.unwrap().into_inner());
    watch.snapshot().await;
    control.kill_9();
    fail_until_killed(&sidecar).await;
    assert_eq!((serves(&sidecar, "checkout").await, serves(&sidecar, "search").await), (killed(), by_its_rules()));
    assert_eq!(within("watchers are told", watch.next()).await, ("checkout".to_owned(), Type::Killed));
    assert_eq!((metric(&sidecar, "local_trips_total").await, metric(&sidecar, "tripped_flags").await), (1, 1));

    // The pod dies as well, and comes back before the control plane.
    saved(&world.directory.path().join("pod")).await;
    sidecar.kill_9();
    let sidecar = world.sidecar();
    assert_eq!((serves(&sidecar, "checkout").await, serves(&sidecar, "search").await), (killed(), by_its_rules()));
    assert_eq!((metric(&sidecar, "local_trips_total").await, metric(&sidecar, "tripped_flags").await), (0, 1));

    let control = world.control();
    let kill = until("the kill is in the audit log", async || kills(&control).await.pop()).await;
    assert_eq!(kill.0, "guard:errors");
    assert!(kill.1.starts_with("guard errors: errors failed ") && kill.1.contains("where 5% are allowed"), "{}", kill.1);
    assert!(kill.1.ends_with("(tripped locally by pod shop-1 while the control plane was out of reach)"), "{}", kill.1);
    becomes(&sidecar, "tripped_flags", 0).await;
    assert_eq!(serves(&sidecar, "checkout").await, killed(), "the kill took the place of the trip");

    restore(&control).await;
    until("it serves by its rules", async || (serves(&sidecar, "checkout").await == by_its_rules()).then_some(())).await;
    assert_eq!(kills(&control).await.len(), 1);
    assert_eq!(metric(&sidecar, "local_trips_total").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_hears_the_control_plane_leaves_the_kill_to_it() {
    // A machine under load may be silent for as long as three short heartbeats.
    let (world, control) = World::with_heartbeat(5_000).await;
    let sidecar = world.connected_sidecar().await;
    fail_until_killed(&sidecar).await;
    let kills = kills(&control).await;
    assert!(kills.len() == 1 && !kills[0].1.contains("locally"), "{kills:?}");
    assert_eq!((metric(&sidecar, "local_trips_total").await, metric(&sidecar, "tripped_flags").await), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trip_of_another_history_is_obsolete_and_is_lifted_and_kills_nobody() {
    let (world, control) = World::new().await;
    let mut backup = control.admin().backup(BackupRequest {}).await.unwrap().into_inner();
    let mut chunks = Vec::new();
    while let Some(chunk) = backup.message().await.unwrap() {
        chunks.push(BackupChunk { intent: chunks.is_empty().then(intent).flatten(), ..chunk });
    }
    world.tripped(control).await.kill_9();
    let control = world.control();
    control.admin().restore_backup(tokio_stream::iter(chunks)).await.unwrap();

    let sidecar = world.sidecar();
    until("the trip is lifted", async || (serves(&sidecar, "checkout").await == by_its_rules()).then_some(())).await;
    assert_eq!((kills(&control).await, metric(&sidecar, "tripped_flags").await), (vec![], 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flag_that_was_changed_meanwhile_is_served_as_it_is_now() {
    let (world, control) = World::new().await;
    world.tripped(control).await.kill_9();
    let control = world.control();
    apply(&control, &DOCUMENT.replacen("killVariant: \"off\"", "killVariant: \"off\"\n    owner: shop", 1)).await;
    let sidecar = world.sidecar();
    until("the trip is over", async || (serves(&sidecar, "checkout").await == by_its_rules()).then_some(())).await;
    assert_eq!((kills(&control).await, metric(&sidecar, "tripped_flags").await), (vec![], 0));
}

fn told(flag: &str, held: Position, revision: u64) -> ReportTripRequest {
    let identity = Some(Identity { instance: "one".into(), pod: "shop-1".into(), ..Identity::default() });
    let trip = Trip {
        flag_key: flag.into(),
        held: Some(held),
        revision,
        at_us: 1,
        guard: "errors".into(),
        metric: "errors".into(),
        outcomes: 40,
        failures: 38,
        allowed: 0.05,
        evidence: 66.5,
        bound: 18.6,
        failing_units: 12,
        attribution: None,
    };
    ReportTripRequest { environment: ENVIRONMENT.into(), identity, trip: Some(trip) }
}

#[tokio::test]
async fn a_trip_that_is_told_twice_kills_once_and_one_from_before_a_decision_kills_nobody() {
    let (_world, control) = World::new().await;
    let mut client = EvidenceClient::new(channel(control.grpc()));
    let mut tell = async |request: ReportTripRequest| {
        let answer = client.report_trip(request).await?.into_inner();
        Ok::<_, tonic::Status>((answer.outcome(), answer.why))
    };
    let listed = control.admin().list_flags(ListFlagsRequest { environment: ENVIRONMENT.into(), selector: None }).await.unwrap();
    let held = listed.into_inner().position.unwrap();
    let Position { epoch, revision } = held;

    for (request, why) in [
        (told("nobody", held, revision), "the flag is gone"),
        (told("checkout", Position { epoch: epoch ^ 1, revision }, revision), "epoch "),
        (told("checkout", held, revision - 1), "failed, and the flag is at revision"),
        (told("search", held, revision), "has no guard \"errors\""),
        (told("checkout", Position { epoch, revision: revision + 9 }, revision), "the log does not reach back to revision"),
    ] {
        let (answer, told) = tell(request).await.unwrap();
        assert!(answer == Answer::Obsolete && told.contains(why), "{answer:?}: {told:?}, expected {why:?}");
    }
    assert_eq!(kills(&control).await, []);

    for _ in 0..2 {
        assert_eq!(tell(told("checkout", held, revision)).await.unwrap(), (Answer::Killed, String::new()));
    }
    assert_eq!(kills(&control).await.len(), 1);
    restore(&control).await;
    let (answer, why) = tell(told("checkout", held, revision)).await.unwrap();
    assert!(answer == Answer::Obsolete && why.contains("restored at revision"), "{answer:?}: {why}");
    assert_eq!(kills(&control).await.len(), 1);

    let malformed = ReportTripRequest { trip: None, ..told("checkout", held, revision) };
    assert_eq!(tell(malformed).await.unwrap_err().code(), Code::InvalidArgument);
}
