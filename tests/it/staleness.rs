//! Flags that limit the age of their state: what readers are told when a limit is crossed, and what a sidecar serves that is cut off.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use yardarm::clock::ManualClock;
use yardarm::flag::{Context, Digest, Item, ItemName, Kill, Position, Reason, State};
use yardarm::replica::{ChangeKind, Cursor, Replica, Writer};
use yardarm::wire::v1::evaluation_client::EvaluationClient;
use yardarm::wire::v1::flag_change::Type;
use yardarm::wire::v1::watch_flags_request::Detail;
use yardarm::wire::v1::{self, ApplyRequest, Intent, WatchFlagsRequest};

use crate::pod::{evaluate, person, question, watch_keys};
use crate::process::{Process, channel};
use crate::rig::within;
use crate::watch::Watch;

const POSITION: Position = Position { epoch: 7, revision: 3 };
const MS: i64 = 1_000;
const START_US: i64 = 1_000_000_000;

fn careful() -> Json {
    json!({ "variants": { "on": true, "off": false }, "defaultVariant": "on", "maxStaleness": { "after": "5s", "serve": "off" } })
}

fn dependent() -> Json {
    json!({
        "variants": { "on": true, "off": false }, "defaultVariant": "on", "offVariant": "off",
        "prerequisites": [{ "flag": "careful", "variants": ["on"] }],
    })
}

fn plain() -> Json {
    json!({ "variants": { "on": true, "off": false }, "defaultVariant": "on" })
}

fn state(flags: &[(&str, Json)], killed: &[&str]) -> State {
    let item = |(key, definition): &(&str, Json)| {
        let definition = serde_json::to_vec(definition).unwrap().into();
        Item { name: ItemName::flag(*key), revision: 1, definition }
    };
    let items: Vec<_> = flags.iter().map(item).collect();
    let kill = |key: &&str| {
        let (flag_key, actor, reason) = ((*key).into(), "ana".into(), "smoke".into());
        Kill { flag_key, revision: 2, killed: true, actor, reason, at_us: 0 }
    };
    let kills: Vec<_> = killed.iter().map(kill).collect();
    State { position: POSITION, digest: Digest::of(&items, &kills), items, kills, origin_time_us: 0 }
}

struct World {
    clock: Arc<ManualClock>,
    replica: Replica,
    writer: Writer,
    cursor: Cursor,
}

impl World {
    fn holding(state: State) -> Self {
        let clock = Arc::new(ManualClock::at(START_US));
        let (replica, mut writer) = Replica::new(clock.clone());
        writer.apply_snapshot(state).unwrap();
        let cursor = replica.cursor();
        Self { clock, replica, writer, cursor }
    }

    /// What a watcher hears that has heard everything until now.
    fn heard(&mut self) -> Vec<(String, ChangeKind)> {
        let changes = self.replica.changes_after(self.cursor, 100);
        assert!(!changes.lost && !changes.more);
        self.cursor = changes.cursor;
        changes.notes.iter().map(|(kind, note)| (note.key.to_string(), *kind)).collect()
    }

    fn is_fresh(&mut self) {
        let digest = self.writer.digest();
        self.writer.confirm_fresh(POSITION, digest).unwrap();
    }

    fn serves(&self, key: &str) -> (String, Reason) {
        let flag = self.replica.with(key, |held| held.unwrap().flag.clone());
        let decision = flag.decide(&Context::new("user-1"), &self.replica.lookup());
        (decision.variant.unwrap().name.clone(), decision.reason)
    }
}

fn told(keys: &[(&str, ChangeKind)]) -> Vec<(String, ChangeKind)> {
    keys.iter().map(|(key, kind)| ((*key).to_owned(), *kind)).collect()
}

#[test]
fn readers_are_told_when_a_limit_is_crossed_and_when_the_state_is_fresh_again() {
    let flags = [("careful", careful()), ("dependent", dependent()), ("plain", plain())];
    let mut world = World::holding(state(&flags, &[]));
    let crossing = told(&[("careful", ChangeKind::Updated), ("dependent", ChangeKind::PrerequisiteChanged)]);
    assert_eq!(world.writer.age_is_told_in(), Some(Duration::from_millis(5_001)));
    world.clock.advance_us(5_000 * MS);
    world.writer.tell_of_age();
    assert_eq!((world.heard(), world.serves("careful")), (told(&[]), ("on".into(), Reason::Default)));

    world.clock.advance_us(MS);
    assert_eq!(world.writer.age_is_told_in(), Some(Duration::ZERO));
    world.writer.tell_of_age();
    assert_eq!((world.heard(), world.serves("careful")), (crossing.clone(), ("off".into(), Reason::Stale)));
    assert_eq!(world.serves("dependent"), ("off".into(), Reason::PrerequisiteFailed));
    assert_eq!(world.writer.age_is_told_in(), None, "once is enough");
    world.clock.advance_us(3_600_000 * MS);
    world.writer.tell_of_age();
    assert_eq!((world.heard(), world.serves("plain")), (told(&[]), ("on".into(), Reason::Static)));

    world.is_fresh();
    assert_eq!(world.writer.age_is_told_in(), Some(Duration::ZERO));
    world.writer.tell_of_age();
    assert_eq!((world.heard(), world.serves("careful")), (crossing, ("on".into(), Reason::Default)));
    assert_eq!(world.writer.age_is_told_in(), Some(Duration::from_millis(5_001)));
}

#[test]
fn a_watcher_that_resumes_where_the_log_did_not_move_hears_of_the_crossing() {
    let mut world = World::holding(state(&[("careful", careful())], &[]));
    world.clock.advance_us(6_000 * MS);
    world.writer.tell_of_age();
    world.cursor = world.replica.resume(POSITION).unwrap();
    assert_eq!(world.heard(), told(&[("careful", ChangeKind::Updated)]));
}

#[test]
fn a_killed_flag_has_the_same_answer_at_any_age_and_a_flag_without_a_limit_asks_no_clock() {
    let mut world = World::holding(state(&[("careful", careful())], &["careful"]));
    world.clock.advance_us(6_000 * MS);
    world.writer.tell_of_age();
    assert_eq!((world.heard(), world.serves("careful")), (told(&[]), ("off".into(), Reason::Killed)));
    assert_eq!(World::holding(state(&[("plain", plain())], &[])).writer.age_is_told_in(), None);
}

#[test]
fn a_limit_that_is_taken_away_is_not_told_of() {
    let mut world = World::holding(state(&[("careful", careful()), ("other", careful())], &[]));
    let mut changed = state(&[("careful", plain())], &[]);
    changed.items[0].revision = 3;
    changed.digest = Digest::of(&changed.items, &changed.kills);
    world.writer.apply_snapshot(changed).unwrap();
    assert_eq!(world.writer.age_is_told_in(), None);
}

#[test]
fn among_many_flags_that_were_loaded_from_disk_the_one_with_a_limit_is_told_of() {
    let keys: Vec<_> = (0..1_500).map(|number| format!("plain-{number}")).collect();
    let mut flags: Vec<_> = keys.iter().map(|key| (key.as_str(), plain())).collect();
    flags.push(("careful", careful()));
    let clock = Arc::new(ManualClock::at(START_US));
    let (replica, mut writer) = Replica::new(clock.clone());
    writer.load(state(&flags, &[]), START_US - 1_000 * MS).unwrap();
    writer.vet(usize::MAX);
    assert!(writer.is_vetted());
    let cursor = replica.cursor();
    assert_eq!(writer.age_is_told_in(), Some(Duration::from_millis(4_001)));
    clock.advance_us(4_001 * MS);
    writer.tell_of_age();
    let mut world = World { clock, replica, writer, cursor };
    assert_eq!((world.heard(), world.serves("careful")), (told(&[("careful", ChangeKind::Updated)]), ("off".into(), Reason::Stale)));
}

/// The answers for `user-1`, many times over: what is prepared for an answer must not outlive it.
async fn answers(client: &mut EvaluationClient<tonic::transport::Channel>, variant: &str, reason: v1::Reason) {
    for _ in 0..20 {
        let decision = evaluate(client, question("careful", person("user-1"))).await;
        assert_eq!((decision.variant.as_str(), decision.reason()), (variant, reason));
    }
}

async fn told_of(watch: &mut Watch) {
    assert_eq!(watch.next().await, ("careful".to_owned(), Type::Updated));
}

/// Variant and reason of the decision that comes with a change.
async fn told_values(watch: &mut Watch) -> (String, v1::Reason) {
    let decision = watch.change().await.flag.unwrap().decisions.remove(0);
    (decision.variant.clone(), decision.reason())
}

#[tokio::test]
async fn a_sidecar_that_is_cut_off_serves_the_stale_variant_until_it_is_fresh_again() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("control");
    let start = |listen: &str| Process::start(&["control", "--data", data.to_str().unwrap(), "--listen", listen, "--heartbeat-ms", "100"]);
    let control = start("127.0.0.1:0");
    let address = control.grpc().to_owned();
    let document = br#"{ "flags": {
        "careful": { "variants": { "on": true, "off": false }, "defaultVariant": "on", "maxStaleness": { "after": "5s", "serve": "off" } },
        "plain": { "variants": { "on": true, "off": false }, "defaultVariant": "on" }
    } }"#;
    let intent = Some(Intent { actor: "ana".into(), reason: "a test".into(), expect_revision: None });
    let apply = ApplyRequest { environment: "default".into(), document: document.to_vec(), dry_run: false, intent };
    control.admin().apply(apply).await.unwrap();
    let sidecar = Process::sidecar(&address, &directory.path().join("pod"), "pod");
    let mut client = EvaluationClient::new(channel(sidecar.tcp()));
    let open = async |request: WatchFlagsRequest| Watch(sidecar.evaluation().watch_flags(request).await.unwrap().into_inner());
    let mut keys = open(watch_keys(&["careful", "plain"])).await;
    let (detail, contexts) = (Detail::Values.into(), vec![person("user-1")]);
    let mut values = open(WatchFlagsRequest { detail, contexts, ..watch_keys(&["careful", "plain"]) }).await;
    for watch in [&mut keys, &mut values] {
        assert_eq!(watch.snapshot().await.1.len(), 2);
    }
    answers(&mut client, "on", v1::Reason::Default).await;

    control.kill_9();
    within("the crossing is told", told_of(&mut keys)).await;
    assert_eq!(told_values(&mut values).await, ("off".into(), v1::Reason::Stale));
    answers(&mut client, "off", v1::Reason::Stale).await;
    let plain = evaluate(&mut client, question("plain", person("user-1"))).await;
    assert_eq!((plain.variant.as_str(), plain.reason()), ("on", v1::Reason::Static));
    assert!(plain.age_ms > 5_000, "{} ms", plain.age_ms);

    let _control = start(&address);
    within("it is told that it is fresh again", told_of(&mut keys)).await;
    assert_eq!(told_values(&mut values).await, ("on".into(), v1::Reason::Default));
    answers(&mut client, "on", v1::Reason::Default).await;
}
