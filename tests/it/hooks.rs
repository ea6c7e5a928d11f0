//! Webhooks on the real control plane: an alert kills, every pod says so, and nothing that comes by a hook brings a flag back.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use yardarm::clock::{Clock, SystemClock};
use yardarm::control::audit::sha256;
use yardarm::control::hooks::{BODY_BYTES, Listen};
use yardarm::control::ledger::{Actor, Alert, AlertState, Command, Error, FLAG_HOOKS, HookName, MAX_AGE, NewHook, Verdict};
use yardarm::control::store::Memory;
use yardarm::control::{self, Running};
use yardarm::lifecycle::Shutdown;
use yardarm::wire::v1::admin_client::AdminClient;
use yardarm::wire::v1::*;

use crate::backup::{backup, restore_backup};
use crate::cli::{Dev, Scratch};
use crate::ledger::world::{ENVIRONMENT, World, flags, restore};
use crate::process::channel;
use crate::rig::{Sidecar, within};

const DEFAULT: &str = control::DEFAULT_ENVIRONMENT;

struct Control {
    running: Running,
    shutdown: Shutdown,
}

struct Hooked {
    admin: AdminClient<Channel>,
    listen: SocketAddr,
    path: String,
    token: String,
}

async fn start(data: &Path) -> Control {
    let args = control::Args {
        listen: "127.0.0.1:0".parse().unwrap(),
        webhooks: Listen(Some("127.0.0.1:0".parse().unwrap())),
        data: data.to_owned(),
        clock_ahead: None,
        ends_with_its_pods: false,
        log_changes: 100,
        log_days: 7,
        reflection: false,
        publish: control::publish::Args::default(),
    };
    let shutdown = Shutdown::new();
    let running = control::start(args, shutdown.clone()).await.unwrap();
    Control { running, shutdown }
}

impl Control {
    /// A flag `checkout`, which is on, and a hook of it.
    async fn hooked(&self) -> Hooked {
        let mut admin = AdminClient::new(channel(&self.running.grpc.to_string()));
        let document = "flags: { checkout: { variants: { on: true, off: false }, defaultVariant: on, offVariant: off } }";
        let document = document.as_bytes().to_vec();
        admin.apply(ApplyRequest { environment: DEFAULT.into(), document, dry_run: false, intent: intent() }).await.unwrap();
        let request = CreateHookRequest { environment: DEFAULT.into(), key: "checkout".into(), max_age_ms: 0, intent: intent() };
        let made = admin.create_hook(request).await.unwrap().into_inner();
        let listen = self.running.webhooks.unwrap();
        assert_eq!(made.listen, listen.to_string());
        Hooked { admin, listen, path: made.path, token: made.token }
    }

    /// The store is free when this returns.
    async fn stop(self) {
        let Self { running, shutdown } = self;
        shutdown.request();
        assert_eq!(shutdown.complete().await, []);
        let ledger = Arc::downgrade(&running.ledger);
        drop(running);
        crate::rig::until("the store is let go", || ledger.strong_count() == 0).await;
    }
}

impl Hooked {
    async fn post(&self, body: &str) -> (StatusCode, Json) {
        let response = send(self.listen, self.request(body)).await;
        let status = response.status();
        (status, serde_json::from_slice(response.body()).unwrap_or(Json::String(text(&response))))
    }

    fn request(&self, body: &str) -> Request<Full<Bytes>> {
        post(&self.path).header(header::AUTHORIZATION, format!("Bearer {}", self.token)).body(Full::from(body.to_owned())).unwrap()
    }

    /// What was done with each alert.
    async fn outcomes(&self, body: &Json) -> Vec<String> {
        let (status, answer) = self.post(&body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer["alerts"].as_array().unwrap().iter().map(|alert| alert["outcome"].as_str().unwrap().to_owned()).collect()
    }

    async fn is_killed(&mut self) -> bool {
        let request = GetFlagRequest { environment: DEFAULT.into(), key: "checkout".into(), revision: 0 };
        self.admin.get_flag(request).await.unwrap().into_inner().flag.unwrap().kill.is_some()
    }

    async fn restore(&mut self) {
        let request = RestoreFlagRequest { environment: DEFAULT.into(), key: "checkout".into(), percent: None, intent: intent() };
        self.admin.restore_flag(request).await.unwrap();
    }
}

fn post(path: &str) -> http::request::Builder {
    Request::post(path).header(header::HOST, "hooks").header(header::CONTENT_TYPE, "application/json")
}

async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Response<Bytes> {
    within("an answer", async {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    })
    .await
}

fn text(response: &Response<Bytes>) -> String {
    String::from_utf8(response.body().to_vec()).unwrap()
}

fn intent() -> Option<Intent> {
    Some(Intent { actor: "ana".into(), reason: "because".into(), expect_revision: None })
}

/// RFC 3339, so many seconds before now.
fn ago(seconds: i64) -> String {
    jiff::Timestamp::from_microsecond(SystemClock::new().now_us() - seconds * 1_000_000).unwrap().to_string()
}

/// An alert as Alertmanager sends it in its group.
fn alert(status: &str, fingerprint: &str, started: &str) -> Json {
    let labels = json!({ "alertname": "ErrorRate", "job": "checkout" });
    let annotations = json!({ "summary": "5xx above 4 %" });
    json!({ "status": status, "labels": labels, "annotations": annotations, "startsAt": started, "fingerprint": fingerprint })
}

fn group(alerts: &[Json]) -> Json {
    json!({ "version": "4", "status": "firing", "receiver": "yardarm", "alerts": alerts })
}

#[tokio::test]
async fn an_alert_kills_and_every_pod_acknowledges() {
    let dir = tempfile::tempdir().unwrap();
    let control = start(dir.path()).await;
    let mut hooked = control.hooked().await;
    let sidecars = [sidecar("pod-1", &control).await, sidecar("pod-2", &control).await];
    for sidecar in &sidecars {
        sidecar.sees("the flag is there", |replica| replica.with("checkout", |held| held.is_some())).await;
    }
    let (status, answer) = hooked.post(&group(&[alert("firing", "f1", &ago(30))]).to_string()).await;
    assert_eq!((status, &answer["alerts"][0]["outcome"]), (StatusCode::OK, &json!("killed")), "{answer}");
    let revision = answer["killedAt"].as_u64().unwrap();
    let request = AwaitAppliedRequest { environment: DEFAULT.into(), revision, flag_key: "checkout".into(), timeout_ms: 30_000 };
    let mut progress = hooked.admin.await_applied(request).await.unwrap().into_inner();
    let last = loop {
        let told = within("the pods acknowledge", progress.next()).await.unwrap().unwrap();
        if told.done {
            break told;
        }
    };
    assert_eq!((last.pods, last.applied, last.silent), (2, 2, Vec::new()));
    for sidecar in &sidecars {
        sidecar.sees_killed("checkout").await;
    }
    let request = ListAuditRequest { environment: DEFAULT.into(), flag_key: "checkout".into(), limit: 1, before_seq: 0 };
    let entry = hooked.admin.list_audit(request).await.unwrap().into_inner().entries.remove(0);
    assert_eq!((entry.action.as_str(), entry.reason.as_str()), ("kill", "alert ErrorRate: 5xx above 4 %"));
    assert_eq!(entry.actor, format!("hook:{}", hooked.path.rsplit('/').next().unwrap()));
    for part in ["job=\"checkout\"", "fingerprint f1", "since 20"] {
        assert!(entry.detail.contains(part), "{}", entry.detail);
    }
    assert!(hooked.admin.verify_audit(VerifyAuditRequest {}).await.unwrap().into_inner().intact);
}

async fn sidecar(pod: &str, control: &Control) -> Sidecar {
    let settings = yardarm::replica::follow::Settings {
        control_planes: vec![format!("http://{}", control.running.grpc).parse().unwrap()],
        environment: DEFAULT.into(),
        identity: crate::rig::identity(pod),
        timing: yardarm::replica::follow::Timing::default(),
    };
    Sidecar::following(settings, None).await
}

#[tokio::test]
async fn what_does_not_fire_does_not_kill() {
    let dir = tempfile::tempdir().unwrap();
    let control = start(dir.path()).await;
    let mut hooked = control.hooked().await;
    let alerts = group(&[alert("resolved", "f1", &ago(30)), alert("firing", "f2", &ago(3_700))]);
    assert_eq!(hooked.outcomes(&alerts).await, ["ignored-resolved", "ignored-too-old"]);
    assert_eq!(hooked.outcomes(&json!({ "id": "i-1", "at": ago(5), "status": "resolved" })).await, ["ignored-resolved"]);
    assert_eq!(hooked.outcomes(&group(&[])).await, [""; 0]);
    assert!(!hooked.is_killed().await);
    assert_eq!(hooked.outcomes(&json!({ "id": "i-1", "at": ago(5) })).await, ["killed"]);
    assert!(hooked.is_killed().await);
    assert_eq!(hooked.outcomes(&json!({ "id": "i-2", "at": ago(1) })).await, ["already-killed"]);
    assert_eq!(hooked.outcomes(&json!({ "id": "i-1", "at": ago(5), "status": "resolved" })).await, ["ignored-resolved"]);
    assert!(hooked.is_killed().await, "what is resolved does not restore");
}

#[tokio::test]
async fn an_alert_does_not_kill_what_was_restored_after_it_began_not_even_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let control = start(dir.path()).await;
    let mut hooked = control.hooked().await;
    // One began before the restore; the clock of the other goes ahead, so that only the memory of the hook knows it.
    let alerts = group(&[alert("firing", "f1", &ago(30)), alert("firing", "f2", &ago(-600))]);
    assert_eq!(hooked.outcomes(&alerts).await, ["killed", "killed"]);
    hooked.restore().await;
    let again = [alert("firing", "f1", &ago(10)), alerts["alerts"][0].clone(), alerts["alerts"][1].clone()];
    let again = group(&again);
    let ignored = ["ignored-before-restore", "ignored-replay", "ignored-replay"];
    assert_eq!(hooked.outcomes(&again).await, ignored);
    assert!(!hooked.is_killed().await);

    let Hooked { path, token, .. } = hooked;
    control.stop().await;
    let control = start(dir.path()).await;
    let admin = AdminClient::new(channel(&control.running.grpc.to_string()));
    let mut hooked = Hooked { admin, listen: control.running.webhooks.unwrap(), path, token };
    assert_eq!(hooked.outcomes(&again).await, ignored);
    assert!(!hooked.is_killed().await);
    assert_eq!(hooked.outcomes(&group(&[alert("firing", "f1", &ago(-1))])).await, ["killed"], "one that begins anew kills");
    assert!(hooked.is_killed().await);
}

#[tokio::test]
async fn who_does_not_know_the_token_learns_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let control = start(dir.path()).await;
    let mut hooked = control.hooked().await;
    let body = json!({ "id": "i-1", "at": ago(5) }).to_string();
    let wrong = "0".repeat(64);
    let id = hooked.path.rsplit('/').next().unwrap();
    let stranger = format!("/hooks/v1/{DEFAULT}/search/{id}/{}", hooked.token);
    let upper = format!("{}/{}", hooked.path, hooked.token.to_uppercase());
    let paths = [
        format!("{}/{wrong}", hooked.path),
        hooked.path.clone(),
        format!("{}/", hooked.path),
        format!("/hooks/v1/{DEFAULT}/checkout/000000000000/{}", hooked.token),
        format!("/hooks/v1/{DEFAULT}/checkout%2Fx/{id}/{}", hooked.token),
        format!("/hooks/v1/nowhere/checkout/{id}/{}", hooked.token),
        stranger,
        upper,
    ];
    for path in &paths {
        let response = send(hooked.listen, post(path).body(Full::from(body.clone())).unwrap()).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        assert!(["", "not found\n"].contains(&text(&response).as_str()), "{path}: {}", text(&response));
    }
    for scheme in ["Basic", "Token"] {
        let request = post(&hooked.path).header(header::AUTHORIZATION, format!("{scheme} {}", hooked.token));
        let response = send(hooked.listen, request.body(Full::from(body.clone())).unwrap()).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{scheme}");
    }
    assert!(!hooked.is_killed().await);
    let with_path = post(&format!("{}/{}", hooked.path, hooked.token)).body(Full::from(body)).unwrap();
    assert_eq!(send(hooked.listen, with_path).await.status(), StatusCode::OK);
    assert!(hooked.is_killed().await);
}

#[tokio::test]
async fn a_bad_request_is_told_what_is_wrong_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let control = start(dir.path()).await;
    let mut hooked = control.hooked().await;
    let (status, told) = hooked.post(&group(&[alert("firing", "f1", &ago(1)), alert("firing", "f2", "soon")]).to_string()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(told.as_str().unwrap().starts_with("alerts[1].startsAt: found \"soon\", expected a time"), "{told}");
    assert_eq!(hooked.post("{").await.0, StatusCode::BAD_REQUEST);

    let padded = |bytes: usize| {
        let bare = json!({ "id": "i-1", "at": ago(5), "status": "resolved", "summary": "" }).to_string();
        bare.replace(r#""summary":"""#, &format!(r#""summary":"{}""#, "x".repeat(bytes - bare.len())))
    };
    assert_eq!(hooked.post(&padded(BODY_BYTES)).await.0, StatusCode::OK);
    assert_eq!(hooked.post(&padded(BODY_BYTES + 1)).await.0, StatusCode::PAYLOAD_TOO_LARGE);

    let mut request = hooked.request("{}");
    request.headers_mut().insert(header::CONTENT_TYPE, "text/plain".parse().unwrap());
    assert_eq!(send(hooked.listen, request).await.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let mut request = hooked.request("{}");
        *request.method_mut() = method;
        let response = send(hooked.listen, request).await;
        assert_eq!((response.status(), &response.headers()[header::ALLOW]), (StatusCode::METHOD_NOT_ALLOWED, &"POST".parse().unwrap()));
    }
    assert!(!hooked.is_killed().await);
}

#[tokio::test]
async fn a_storm_is_put_off_and_the_alerting_system_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let control = start(dir.path()).await;
    let hooked = control.hooked().await;
    let resolved = json!({ "id": "i-1", "at": ago(5), "status": "resolved" }).to_string();
    let refused = loop {
        let response = send(hooked.listen, hooked.request(&resolved)).await;
        if response.status() != StatusCode::OK {
            break response;
        }
    };
    assert_eq!((refused.status(), &refused.headers()[header::RETRY_AFTER]), (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap()));
    let metrics = text(&send(hooked.listen, Request::get("/metrics").header(header::HOST, "hooks").body(Full::default()).unwrap()).await);
    assert!(metrics.contains("yardarm_webhook_requests_total{answer=\"too-many\"} 1\n"), "{metrics}");
    assert!(!metrics.contains("checkout") && !metrics.contains(&hooked.token), "{metrics}");
}

#[tokio::test]
async fn half_a_header_does_not_keep_a_shutdown_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let control = start(dir.path()).await;
    let mut stream = TcpStream::connect(control.running.webhooks.unwrap()).await.unwrap();
    stream.write_all(b"POST /hooks/v1/a/b/c/d HTTP/1.1\r\nHos").await.unwrap();
    control.stop().await;
    let mut said = String::new();
    // A reset is as good as an end.
    let _ = within("the connection ends", stream.read_to_string(&mut said)).await;
    assert!(!said.contains("200"), "{said}");
}

#[tokio::test]
async fn a_revoked_hook_is_worth_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let control = start(dir.path()).await;
    let mut hooked = control.hooked().await;
    let list = ListHooksRequest { environment: DEFAULT.into(), key: String::new() };
    let listed = hooked.admin.list_hooks(list.clone()).await.unwrap().into_inner().hooks;
    assert_eq!((listed.len(), listed[0].flag_key.as_str(), listed[0].max_age_ms), (1, "checkout", 3_600_000));
    assert_eq!((listed[0].actor.as_str(), listed[0].reason.as_str()), ("ana", "because"));
    let id = listed[0].id.clone();
    let revoke = RevokeHookRequest { environment: DEFAULT.into(), key: "checkout".into(), id, intent: intent() };
    hooked.admin.revoke_hook(revoke.clone()).await.unwrap();
    assert_eq!(hooked.admin.revoke_hook(revoke).await.unwrap_err().code(), tonic::Code::NotFound);
    assert_eq!(hooked.post(&json!({ "id": "i-1", "at": ago(5) }).to_string()).await.0, StatusCode::NOT_FOUND);
    assert!(!hooked.is_killed().await);
    assert_eq!(hooked.admin.list_hooks(list).await.unwrap().into_inner().hooks, []);
}

const MINUTE_US: i64 = 60_000_000;

fn named(flag: &str) -> HookName {
    HookName { environment: ENVIRONMENT.into(), flag: flag.into(), id: "h1".into() }
}

async fn make(world: &World, name: HookName) -> Result<(), Error> {
    let hook = NewHook { name, token: sha256(b"token"), max_age: MAX_AGE };
    world.ledger.create_hook(&Actor::new("ana"), "pages", hook).await
}

fn firing(world: &World, fingerprint: &str) -> Alert {
    let (began_us, state) = (world.clock.now_us() - 1, AlertState::Firing);
    Alert { name: "A".into(), fingerprint: fingerprint.into(), began_us, state, labels: Default::default(), summary: String::new() }
}

async fn world() -> World {
    let world = World::new().await;
    world.apply(&flags(&[("a", "on"), ("b", "on")])).await;
    make(&world, named("a")).await.unwrap();
    make(&world, named("b")).await.unwrap();
    world
}

async fn hooks_of(world: &World, environment: &str) -> Vec<String> {
    world.ledger.hooks(environment, None).await.unwrap().into_iter().map(|listed| listed.flag).collect()
}

#[tokio::test]
async fn a_hook_goes_with_its_flag_and_is_not_copied_with_the_environment() {
    let world = world().await;
    world.commit(Command::CopyEnvironment { from: ENVIRONMENT.into(), to: "staging".into() }).await.unwrap();
    assert_eq!(hooks_of(&world, "staging").await, [""; 0]);
    world.commit(crate::ledger::world::delete(yardarm::flag::ItemName::flag("a"))).await.unwrap();
    assert_eq!(hooks_of(&world, ENVIRONMENT).await, ["b"]);
    world.apply(&flags(&[("a", "on")])).await;
    let alerts = vec![firing(&world, "f")];
    let refused = world.ledger.alert(named("a"), alerts).await.unwrap_err();
    assert!(matches!(refused, Error::UnknownHook { .. }), "a flag of the same name is another flag: {refused}");
}

#[tokio::test]
async fn hooks_come_with_a_backup_only_together_with_its_audit_chain() {
    let old = world().await;
    let saved = backup(&old).await;

    let new = World::new().await;
    restore_backup(&new, &saved).await.unwrap();
    assert_eq!(hooks_of(&new, ENVIRONMENT).await, ["a", "b"], "an empty store takes over everything");
    let killed = new.ledger.alert(named("a"), vec![firing(&new, "f")]).await.unwrap();
    assert_eq!(killed.verdicts, [Verdict::Killed]);

    old.ledger.revoke_hook(&Actor::new("bob"), "leaked", named("a")).await.unwrap();
    restore_backup(&old, &saved).await.unwrap();
    assert_eq!(hooks_of(&old, ENVIRONMENT).await, ["b"], "what was revoked after the backup stays revoked");

    let other = World::open(Arc::new(Memory::new()), Default::default()).await;
    for name in ["one", "two"] {
        other.commit(Command::CreateEnvironment { name: name.into() }).await.unwrap();
    }
    let command = Command::Apply { environment: "one".into(), document: format!("{{ {} }}", flags(&[("x", "on")])), expect: None };
    other.commit(command).await.unwrap();
    restore_backup(&other, &saved).await.unwrap();
    assert!(!other.is_killed("a"), "the flags are there");
    assert_eq!(hooks_of(&other, ENVIRONMENT).await, [""; 0], "in a store with a history of its own it may have been revoked");
}

#[tokio::test]
async fn hooks_change_no_flag_and_are_in_the_audit_log() {
    let world = world().await;
    let revision = world.revision();
    make(&world, HookName { id: "h2".into(), ..named("a") }).await.unwrap();
    world.ledger.revoke_hook(&Actor::new("bob"), "old", named("a")).await.unwrap();
    assert_eq!(world.revision(), revision, "no sidecar hears of it");
    let records = world.ledger.audit(None, 2, |_| true).await.unwrap();
    let told: Vec<_> = records.iter().map(|record| (record.action.as_str(), record.actor.as_str(), record.detail.as_str())).collect();
    assert_eq!(told, [("revoke-hook", "bob", "hook h1"), ("create-hook", "ana", "hook h2")]);
    assert!(records.iter().all(|record| record.changes[0].item.key == "a"));
    assert!(world.ledger.verify_audit().await.unwrap().broken.is_none());
    // What was written without a revision does not stand in the way of what has one.
    assert_eq!(world.kill("a").await, revision + 1);
    let reopened = world.reopened().await;
    assert_eq!(hooks_of(&reopened, ENVIRONMENT).await, ["a", "b"]);
    assert_eq!(reopened.revision(), revision + 1);
}

#[tokio::test]
async fn an_alert_while_the_flag_is_killed_is_noted_and_kills_no_second_time() {
    let world = world().await;
    let revision = world.kill("a").await;
    world.clock.advance_us(MINUTE_US);
    let alert = firing(&world, "f");
    let alerted = world.ledger.alert(named("a"), vec![alert.clone()]).await.unwrap();
    assert_eq!((alerted.verdicts, alerted.killed_at, world.revision()), (vec![Verdict::AlreadyKilled], None, revision));
    let noted = world.ledger.audit(None, 1, |_| true).await.unwrap().remove(0);
    assert_eq!((noted.action.as_str(), noted.actor.as_str()), ("note-alert", "hook:h1"));
    world.commit(restore("a", None)).await.unwrap();
    let again = world.ledger.alert(named("a"), vec![alert]).await.unwrap();
    assert_eq!(again.verdicts, [Verdict::Replay]);
    assert!(!world.is_killed("a"));
}

#[tokio::test]
async fn the_hook_remembers_with_the_kill_or_not_at_all() {
    let gate = crate::ledger::world::Gate::new();
    let world = World::on(gate.clone(), Default::default()).await;
    world.apply(&flags(&[("a", "on")])).await;
    make(&world, named("a")).await.unwrap();
    let alert = firing(&world, "f");
    gate.fail_next(crate::ledger::world::Failure::BeforeWriting);
    assert!(matches!(world.ledger.alert(named("a"), vec![alert.clone()]).await, Err(Error::Store(_))));
    // It comes again, as after every 503.
    let alerted = world.ledger.alert(named("a"), vec![alert.clone()]).await.unwrap();
    assert_eq!(alerted.verdicts, [Verdict::Killed]);
    gate.fail_next(crate::ledger::world::Failure::AfterWriting);
    world.commit(restore("a", None)).await.unwrap_err();
    let again = world.ledger.alert(named("a"), vec![alert]).await.unwrap();
    assert_eq!(again.verdicts, [Verdict::Replay]);
}

#[tokio::test]
async fn two_control_planes_on_one_store_act_on_an_alert_once() {
    let store = Arc::new(Memory::new());
    let one = World::on(store.clone(), Default::default()).await;
    one.apply(&flags(&[("a", "on")])).await;
    make(&one, named("a")).await.unwrap();
    let other = one.reopened().await;
    let alert = firing(&one, "f");
    assert_eq!(one.ledger.alert(named("a"), vec![alert.clone()]).await.unwrap().verdicts, [Verdict::Killed]);
    assert_eq!(other.ledger.alert(named("a"), vec![alert]).await.unwrap().verdicts, [Verdict::Replay]);
    let more = firing(&other, "g");
    let verdicts = other.ledger.alert(named("a"), vec![more]).await.unwrap().verdicts;
    assert_eq!(verdicts, [Verdict::AlreadyKilled], "it has read what the first one wrote");
}

#[tokio::test]
async fn what_a_hook_may_not_be_is_refused() {
    let world = world().await;
    let refused = async |name: HookName, reason: &str, max_age: Duration| {
        let hook = NewHook { name, token: [0; 32], max_age };
        world.ledger.create_hook(&Actor::new("ana"), reason, hook).await.unwrap_err().to_string()
    };
    assert!(refused(named("a"), " ", MAX_AGE).await.contains("intent.reason"));
    assert!(refused(named("a"), "why", MAX_AGE + Duration::from_millis(1)).await.contains("one minute to seven days"));
    assert!(refused(named("a"), "why", Duration::from_secs(59)).await.contains("one minute to seven days"));
    assert!(refused(named("aa"), "why", MAX_AGE).await.contains("did you mean `a`"));
    for number in 1..FLAG_HOOKS {
        make(&world, HookName { id: format!("more-{number}"), ..named("a") }).await.unwrap();
    }
    assert!(make(&world, HookName { id: "late".into(), ..named("a") }).await.unwrap_err().to_string().contains("revoke one"));
}

#[test]
fn the_command_line_makes_a_hook_that_works_as_it_is_printed() {
    let scratch = Scratch::new();
    let dev = Dev::over(Path::new(&scratch.path("data")), &[]);
    let flag = "new_checkout_flow";
    let made = dev.ask(&["hook", "create", flag, "--reason", "pages", "-o", "json"]).json(0);
    let (url, token) = (made["url"].as_str().unwrap(), made["token"].as_str().unwrap());
    assert_eq!((made["isServed"].as_bool(), token.len()), (Some(true), 64));
    let address: SocketAddr = url.strip_prefix("http://").unwrap().split('/').next().unwrap().parse().unwrap();
    let path = url.strip_prefix(&format!("http://{address}")).unwrap();
    let request = post(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
    let body = json!({ "id": "i-1", "at": ago(1) }).to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let response = runtime.block_on(send(address, request.body(Full::from(body)).unwrap()));
    assert_eq!(response.status(), StatusCode::OK);
    let listed = dev.look(&["hook", "list", flag, "-o", "json"]).json(0);
    let id = listed["hooks"][0]["id"].as_str().unwrap();
    assert!(listed["hooks"][0]["lastAlertAt"].is_string() && !listed.to_string().contains(token), "{listed}");
    let killed = dev.look(&["flag", "list", flag, "-o", "json"]).json(0);
    assert_eq!(killed["flags"][0]["kill"]["actor"], format!("hook:{id}"));

    let said = dev.ask(&["hook", "create", flag, "--reason", "pages", "--url", "https://flags.example.com/"]).ended(0);
    for part in ["https://flags.example.com/hooks/v1/default/new_checkout_flow/", "webhook_configs:", "contactPoints:", "curl -H"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(dev.ask(&["hook", "revoke", flag, id, "--reason", "old"]).ended(0), format!("revoked hook {id} of {flag}\n"));
    assert!(dev.ask(&["hook", "revoke", flag, id, "--reason", "old"]).refusal(1).contains("has no hook"));
    assert!(dev.process.stop().success());
}
