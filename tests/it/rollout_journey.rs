//! A plan from its first day to the end of its retention, with real processes: a control plane whose clock is moved, two sidecars, and
//! people who ask them and tell what became of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use tokio::time::timeout;
use yardarm::wire::v1::rollouts_client::RolloutsClient;
use yardarm::wire::v1::tracking_client::TrackingClient;
use yardarm::wire::v1::*;

use crate::pod::{person, question};
use crate::process::{PATIENCE, Process, channel};
use crate::rig::within;

const ENVIRONMENT: &str = "default";
const FLAG: &str = "sales_email";
const DAY: u64 = 86_400;
/// People of whom each sidecar sees every second one, and both of them every tenth.
const PEOPLE: usize = 20_000;
/// Outcomes of one call.
const OUTCOMES: usize = 1_000;

/// The shipped template. The margin of success is wide, so that a machine for tests has enough people.
const DOCUMENT: &str = "
flags:
  sales_email:
    variants: { v2.2.1: { version: 2.2.1 }, v2.3.0: { version: 2.3.0 } }
    defaultVariant: v2.2.1
    rules: [{ split: { weights: { v2.3.0: 0, v2.2.1: 100 } } }]
    rollout: { template: fourteen-days, with: { approvers: [ana], successMargin: 0.05 } }
";

struct World {
    directory: tempfile::TempDir,
    control: Option<Process>,
    address: String,
    pods: Vec<Process>,
    /// The control plane's clock is ahead by as many seconds.
    ahead: u64,
}

/// What becomes of a person who was served a variant.
type Fate = fn(usize, &str) -> [(&'static str, bool); 3];

/// One in a thousand has an error and one in fifty an answer in the wrong format, whatever they were served; one in ten buys.
fn healthy(person: usize, _: &str) -> [(&'static str, bool); 3] {
    [("errors", person.is_multiple_of(1_000)), ("format_compliance", person % 50 != 7), ("conversion", person % 10 == 3)]
}

/// The new version fails every second time.
fn broken(person: usize, variant: &str) -> [(&'static str, bool); 3] {
    let mut fate = healthy(person, variant);
    fate[0].1 |= variant == "v2.3.0" && (person / 7).is_multiple_of(2);
    fate
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ahead"), "0").unwrap();
        let mut world = Self { directory, control: None, address: "127.0.0.1:0".to_owned(), pods: Vec::new(), ahead: 0 };
        world.start();
        world.address = world.control().grpc().to_owned();
        let (environment, document) = (ENVIRONMENT.into(), DOCUMENT.into());
        let request = ApplyRequest { environment, document, dry_run: false, intent: intent() };
        world.control().admin().apply(request).await.unwrap();
        for name in ["pod-0", "pod-1"] {
            world.pods.push(Process::sidecar(&world.address, &world.path(name), name));
        }
        for pod in &world.pods {
            within("the flag", async { while evaluate(pod, vec![0]).await[&0].1 == Reason::Error {} }).await;
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start(&mut self) {
        let (data, ahead) = (self.path("control"), self.path("ahead"));
        let [data, ahead] = [&data, &ahead].map(|path| path.to_str().unwrap());
        let listen = self.address.clone();
        self.control = Some(Process::start(&["control", "--data", data, "--listen", &listen, "--clock-ahead", ahead]));
    }

    fn control(&self) -> &Process {
        self.control.as_ref().unwrap()
    }

    fn pass_days(&mut self, days: u64) {
        self.ahead += days * DAY;
        std::fs::write(self.path("next"), self.ahead.to_string()).unwrap();
        std::fs::rename(self.path("next"), self.path("ahead")).unwrap();
    }

    async fn step(&self, event: RolloutEvent) -> Result<(), tonic::Status> {
        let rollout = self.rollout().await;
        let of = if event == RolloutEvent::Approve { rollout.approvable } else { String::new() };
        let request = StepRolloutRequest { environment: ENVIRONMENT.into(), key: FLAG.into(), event: event.into(), of, intent: intent() };
        RolloutsClient::new(channel(self.control().grpc())).step_rollout(request).await.map(drop)
    }

    async fn rollout(&self) -> Rollout {
        let request = GetRolloutRequest { environment: ENVIRONMENT.into(), key: FLAG.into() };
        RolloutsClient::new(channel(self.control().grpc())).get_rollout(request).await.unwrap().into_inner()
    }

    /// People go on coming until the rollout is there. Whoever came before comes again.
    async fn live_until(&self, phase: &str, stage: &str, fate: Fate) -> Rollout {
        let reaching = async {
            for round in 0.. {
                let rollout = self.rollout().await;
                if rollout.phase == phase && rollout.stages[rollout.stage as usize].name == stage {
                    return rollout;
                }
                // All of them once, and then a few at a time, so that the evidence stays fresh.
                let people = if round == 0 { 0..PEOPLE } else { 0..PEOPLE / 50 };
                self.live(people, fate).await;
            }
            unreachable!("a rollout is looked at until it is there")
        };
        match timeout(PATIENCE * 2, reaching).await {
            Ok(rollout) => rollout,
            Err(_) => panic!("not {phase} in {stage}, but: {:#?}", self.rollout().await),
        }
    }

    /// People ask their sidecar, and it is told what became of them.
    async fn live(&self, people: Range<usize>, fate: Fate) {
        let of_pod = |number: usize| people.clone().filter(move |person| person % 2 == number || person % 10 == 5);
        tokio::join!(ask(&self.pods[0], of_pod(0).collect(), fate), ask(&self.pods[1], of_pod(1).collect(), fate));
    }

    /// Both pods come to serve the new version to so many of a thousand people, and to the same ones.
    async fn serves(&self, people: Range<usize>) {
        let treated = async |pod| {
            let served = evaluate(pod, (0..1_000).collect()).await.into_iter();
            served.filter(|(_, (variant, _))| variant == "v2.3.0").map(|(person, _)| person).collect::<Vec<_>>()
        };
        let settling = async {
            loop {
                let [one, other] = [treated(&self.pods[0]).await, treated(&self.pods[1]).await];
                if one == other && people.contains(&one.len()) {
                    return;
                }
            }
        };
        within(&format!("{people:?} of 1000 people are served the new version"), settling).await;
    }

    /// The kill of the guard, acknowledged by both pods, with what it saw.
    async fn is_killed_by_its_guard(&self) {
        let entries = self.control().admin().list_audit(ListAuditRequest { flag_key: FLAG.into(), ..Default::default() }).await.unwrap();
        let entries = entries.into_inner().entries;
        let kill = entries.iter().find(|entry| entry.action == "kill").unwrap();
        assert_eq!(kill.actor, "guard:errors");
        assert!(kill.reason.contains("errors failed") && kill.reason.contains("where 5% are allowed"), "{}", kill.reason);
        let revision = kill.position.unwrap().revision;
        let request = AwaitAppliedRequest { environment: ENVIRONMENT.into(), revision, flag_key: FLAG.into(), timeout_ms: 20_000 };
        let mut progress = self.control().admin().await_applied(request).await.unwrap().into_inner();
        let mut last = Propagation::default();
        while let Some(message) = within("everybody's answer", progress.message()).await.unwrap() {
            last = message;
        }
        assert_eq!((last.pods, last.applied, last.silent.len()), (2, 2, 0), "{last:?}");
        for pod in &self.pods {
            let served = evaluate(pod, (0..1_000).collect()).await;
            assert!(served.values().all(|served| *served == ("v2.2.1".to_owned(), Reason::Killed)), "{served:?}");
        }
    }

    /// Up to the second day of 10 %, in health.
    async fn at_ten_percent() -> Self {
        let mut world = Self::new().await;
        world.step(RolloutEvent::Start).await.unwrap();
        world.live_until("awaiting approval", "canary", healthy).await;
        world.step(RolloutEvent::Approve).await.unwrap();
        world.pass_days(2);
        world.live_until("running", "early", healthy).await;
        world.pass_days(1);
        world
    }
}

fn intent() -> Option<Intent> {
    Some(Intent { actor: "ana".into(), reason: "as planned".into(), expect_revision: None })
}

fn name(person: usize) -> String {
    format!("user-{person}")
}

/// What each of them is served, and why.
async fn evaluate(pod: &Process, people: Vec<usize>) -> BTreeMap<usize, (String, Reason)> {
    let asked =
        people.iter().map(|number| EvaluateStreamRequest { id: *number as u64, request: Some(question(FLAG, person(&name(*number)))) });
    let asked: Vec<_> = asked.collect();
    let mut answers = pod.evaluation().evaluate_stream(tokio_stream::iter(asked)).await.unwrap().into_inner();
    let mut served = BTreeMap::new();
    while served.len() < people.len() {
        let EvaluateStreamResponse { id, result } = within("an answer", answers.message()).await.unwrap().unwrap();
        let Some(evaluate_stream_response::Result::Decision(decision)) = result else { panic!("{result:?}") };
        let reason = decision.reason();
        served.insert(id as usize, (decision.variant, reason));
    }
    served
}

async fn ask(pod: &Process, people: Vec<usize>, fate: Fate) {
    let served = evaluate(pod, people).await;
    let outcomes = served.into_iter().flat_map(|(number, (variant, _))| {
        let outcome = move |(event, happened): (&str, bool)| Outcome {
            event: event.to_owned(),
            context: Some(person(&name(number))),
            value: Some(f64::from(happened)),
            ..Default::default()
        };
        fate(number, &variant).map(outcome)
    });
    let outcomes: Vec<_> = outcomes.collect();
    let mut tracking = TrackingClient::new(channel(pod.tcp()));
    for outcomes in outcomes.chunks(OUTCOMES) {
        tracking.track(TrackRequest { outcomes: outcomes.to_vec() }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_plan_goes_through_every_stage_to_the_end_of_its_retention() {
    let mut world = World::at_ten_percent().await;
    world.serves(70..130).await;

    world.pass_days(3);
    let rollout = world.live_until("running", "half", healthy).await;
    assert_eq!(rollout.shares.values().collect::<Vec<_>>(), [&500_000]);
    world.pass_days(7);
    let rollout = world.live_until("completed", "everybody", healthy).await;
    world.serves(1_000..1_001).await;
    let until = rollout.until.unwrap().seconds - rollout.stage_started_at.unwrap().seconds;
    assert_eq!(until, 30 * DAY as i64);

    world.pass_days(29);
    let early = world.step(RolloutEvent::Archive).await.unwrap_err();
    assert!(early.message().contains("can still be rolled back"), "{early:?}");
    world.pass_days(1);
    // The control plane reads its clock ten times a second.
    within("the end of the retention", async { while world.step(RolloutEvent::Archive).await.is_err() {} }).await;
    assert_eq!(world.rollout().await.phase, "archived");
    world.serves(1_000..1_001).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_regression_at_ten_percent_is_killed_and_both_pods_acknowledge() {
    let world = World::at_ten_percent().await;
    let rollout = world.live_until("killed", "early", broken).await;
    assert_eq!(rollout.attempt, 1);
    world.is_killed_by_its_guard().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_is_killed_in_between_comes_back_to_the_same_stage_and_kills_the_regression() {
    let mut world = World::at_ten_percent().await;
    let before = world.rollout().await;
    world.control.take().unwrap().kill_9();
    world.serves(70..130).await;

    world.start();
    let after = world.rollout().await;
    assert_eq!(
        (after.phase, after.stage, after.attempt, after.stage_started_at),
        (before.phase, before.stage, before.attempt, before.stage_started_at)
    );
    world.live_until("killed", "early", broken).await;
    world.is_killed_by_its_guard().await;
}
