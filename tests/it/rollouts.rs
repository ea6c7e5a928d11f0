//! Rollouts over the ledger, the evidence and the conductor, by a clock that tests move: weeks pass in milliseconds.

use std::collections::BTreeMap;
use std::sync::Arc;

use yardarm::clock::{Clock, ManualClock};
use yardarm::control::Ledger;
use yardarm::control::evidence::{Evidence as _, Memory as Reports};
use yardarm::control::ledger::{Actor, Command, Committed, Error};
use yardarm::control::rollouts::{Conductor, Guards, Reported};
use yardarm::control::store::{Memory, Store};
use yardarm::flag::{BUCKETS, Flag, ItemName, Weight};
use yardarm::rollout::{Event, Phase, Plan, State, percent, step};
use yardarm::wire::evidence::{Counter, Epoch, Metric, Outcome, Report, Shape, Unit, Variant};

const ENVIRONMENT: &str = "prod";
const FLAG: &str = "sales_email";
const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

const SEED: &str = "
flags:
  sales_email:
    variants: { v2.2.1: { version: 2.2.1 }, v2.3.0: { version: 2.3.0 } }
    defaultVariant: v2.2.1
    killVariant: v2.2.1
    rules:
      - { when: [{ attribute: cohort, in: [internal] }], serve: v2.3.0 }
      - { split: { weights: { v2.3.0: 0, v2.2.1: 100 } } }
    metrics:
      errors: { kind: binomial, direction: lower, margin: { absolute: 0.01 }, expected: 0.01, minUnits: 200 }
    guard: [{ metric: errors, above: 0.05 }]
    rollout:
      baseline: v2.2.1
      treatments: [v2.3.0]
      stages:
        - { name: canary, percent: 1, gates: [{ approval: { by: [ana] } }] }
        - { name: early, percent: 10, start: { after: 2d }, bake: 4d, gates: [{ metrics: [errors] }] }
        - { name: half, percent: 50, start: { after: 6d }, bake: 7d, gates: [{ comparison: errors }, { sampleRatio: {} }] }
        - { name: all, percent: 100 }
";

struct World {
    clock: Arc<ManualClock>,
    ledger: Arc<Ledger>,
    reports: Arc<Reports>,
    conductor: Conductor,
    /// Of the one sidecar.
    seq: u64,
}

impl World {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::at(1_700_000_000 * SECOND));
        let mut world = Self::on(Arc::new(Memory::new()), clock).await;
        world.commit("yardarm", Command::CreateEnvironment { name: ENVIRONMENT.into() }).await.unwrap();
        world.apply(SEED).await.unwrap();
        world.conductor.tick().await;
        world
    }

    async fn on(store: Arc<dyn Store>, clock: Arc<ManualClock>) -> Self {
        let ledger = Ledger::open(store, Arc::clone(&clock) as Arc<dyn Clock>).await.unwrap();
        let reports = Arc::new(Reports::new(Arc::clone(&clock) as Arc<dyn Clock>));
        let reported = Arc::new(Reported::new(Arc::clone(&ledger), reports.clone()));
        let guards = Guards::new(Arc::clone(&ledger), reports.clone());
        let conductor = Conductor::new(Arc::clone(&ledger), reported, guards);
        Self { clock, ledger, reports, conductor, seq: 0 }
    }

    async fn commit(&self, actor: &str, command: Command) -> Result<Committed, Error> {
        self.ledger.commit(&Actor::new(actor), "because", command).await
    }

    async fn apply(&self, document: &str) -> Result<Committed, Error> {
        let command = Command::Apply { environment: ENVIRONMENT.into(), document: document.to_owned(), expect: None };
        self.commit("ana", command).await
    }

    async fn event(&self, event: Event) -> Result<Committed, Error> {
        self.commit("ana", Command::Rollout { environment: ENVIRONMENT.into(), flag: FLAG.into(), event }).await
    }

    async fn start(&self) {
        self.event(Event::Start { by: "ana".into(), reason: "because".into() }).await.unwrap();
    }

    async fn approve(&self) -> Result<Committed, Error> {
        self.event(Event::Approve { by: "ana".into(), of: self.state().approvable() }).await
    }

    async fn restore(&self, percent: Option<f64>) -> Committed {
        let (environment, flag) = (ENVIRONMENT.into(), FLAG.into());
        self.commit("ana", Command::Restore { environment, flag, percent, expect: None }).await.unwrap()
    }

    /// Time passes, and the conductor looks.
    async fn after(&mut self, us: i64) -> State {
        self.clock.advance_us(us);
        self.conductor.tick().await;
        self.state()
    }

    fn state(&self) -> State {
        self.ledger.rollout(ENVIRONMENT, FLAG).unwrap().state
    }

    /// What the split serves: the shares of its variants, as the document has them.
    fn served(&self) -> String {
        let (_, found) = self.ledger.get(ENVIRONMENT, &ItemName::flag(FLAG)).unwrap();
        let flag = Flag::from_json(&found.item.definition).unwrap();
        let (split, _) = flag.rolling_split().unwrap();
        let shares: Vec<_> = split.weights.iter().map(|(name, share)| format!("{name}={share}")).collect();
        shares.join(" ")
    }

    fn is_killed(&self) -> bool {
        self.ledger.get(ENVIRONMENT, &ItemName::flag(FLAG)).unwrap().1.kill.is_some()
    }

    /// A sidecar reports units of each variant, the first `failed` of which had an error, in the proportions of the split.
    async fn report(&mut self, treated: (u64, u64), control: (u64, u64)) {
        let revision = self.ledger.evidence_revision(ENVIRONMENT, FLAG).unwrap();
        let now_ms = self.clock.now_us() / 1_000;
        self.seq += 1;
        let variant = |name: &str, (failed, units): (u64, u64), salt: u64| {
            let outcome = |at: u64| Outcome { metric: 0, x: if at < failed { 1.0 } else { 0.0 }, y: 0.0 };
            let unit = |at: u64| Unit { hash: salt + at, first_ms: now_ms, is_apart: false, outcomes: vec![outcome(at)] };
            let failing = (0..failed.min(16)).map(|at| salt + at).collect();
            let counter = Counter { metric: 0, n: units, k: failed, n_raw: units, k_raw: failed, failing };
            Variant { name: name.into(), exposures: units, counters: vec![counter], units: (0..units).map(unit).collect() }
        };
        let variants = vec![variant("v2.3.0", treated, 0), variant("v2.2.1", control, 1 << 40)];
        let metrics = vec![Metric { name: "errors".into(), shape: Shape::Share }];
        let epoch = Epoch { flag: FLAG.into(), revision, life: revision as u32, sampling_rate: 1.0, metrics, variants };
        let (instance, pod) = ("a".to_owned(), "pod".to_owned());
        let report = Report { environment: ENVIRONMENT.into(), instance, pod, boot: [1; 16], seq: self.seq, epochs: vec![epoch] };
        assert!(self.reports.accept(report).await.unwrap());
    }
}

#[tokio::test]
async fn fourteen_days_and_thirty_more_pass_and_each_decision_can_be_made_again() {
    let mut world = World::new().await;
    assert_eq!((world.state().phase, world.served().as_str()), (Phase::Draft, "v2.2.1=100 v2.3.0=0"));
    world.start().await;
    assert_eq!((world.state().phase, world.served().as_str()), (Phase::AwaitingApproval, "v2.2.1=99% v2.3.0=1%"));
    world.after(DAY).await;
    world.approve().await.unwrap();
    assert_eq!(world.state().stage, 0, "the next stage begins on the third day");
    assert_eq!(world.after(DAY + SECOND).await.stage, 1);
    assert_eq!(world.served(), "v2.2.1=90% v2.3.0=10%");

    world.after(4 * DAY).await;
    assert_eq!(world.state().stage, 1, "nothing was reported");
    world.report((20, 2_000), (180, 18_000)).await;
    assert_eq!(world.after(11 * SECOND).await.stage, 2);
    assert_eq!(world.served(), "v2.2.1=50% v2.3.0=50%");

    world.after(7 * DAY).await;
    assert_eq!(world.state().stage, 2, "what was reported in the stage before does not count in this one");
    world.report((60, 6_000), (60, 6_000)).await;
    let done = world.after(11 * SECOND).await;
    assert!(matches!(done.phase, Phase::Completed { .. }), "{done:?}");
    assert_eq!(world.served(), "v2.2.1=0% v2.3.0=100%");

    world.after(29 * DAY).await;
    let early = world.event(Event::Archive { by: "ana".into() }).await;
    assert!(matches!(early, Err(Error::RolloutRefused { .. })), "{early:?}");
    world.after(2 * DAY).await;
    world.event(Event::Archive { by: "ana".into() }).await.unwrap();
    assert_eq!(world.state().phase, Phase::Archived);

    let decisions = world.ledger.decisions(ENVIRONMENT, FLAG, 100).await.unwrap();
    assert!(decisions.len() >= 6, "{decisions:?}");
    for decided in decisions {
        let decision = decided.decision;
        let at = world.ledger.get_at(ENVIRONMENT, &ItemName::flag(FLAG), decision.definition).await.unwrap();
        let flag = Flag::from_json(&at.definition).unwrap();
        let plan = Plan::of(&flag, |_| decision.after.plan.clone()).unwrap();
        let again = step(&plan, decision.before.clone(), decision.event.clone(), decision.at_us);
        assert_eq!(again, (decision.after, decision.actions), "revision {}", decided.revision);
    }
}

#[tokio::test]
async fn a_guard_kills_with_its_evidence_in_the_audit_log_and_the_next_attempt_begins_small_and_anew() {
    let mut world = World::new().await;
    world.start().await;
    world.after(DAY).await;
    world.approve().await.unwrap();
    world.after(DAY + SECOND).await;
    world.report((0, 100), (10, 900)).await;
    world.after(SECOND).await;
    assert!(!world.is_killed());
    world.report((60, 200), (20, 1_800)).await;
    let state = world.after(SECOND).await;
    assert!(world.is_killed() && matches!(state.phase, Phase::Killed { .. }), "{state:?}");
    let audit = world.ledger.audit(None, 1, |_| true).await.unwrap().remove(0);
    assert_eq!(audit.actor, "guard:errors");
    assert!(audit.reason.contains("errors failed 60 of 200 times where 5% are allowed"), "{}", audit.reason);

    let before = world.ledger.evidence_revision(ENVIRONMENT, FLAG).unwrap();
    world.restore(Some(5.0)).await;
    let state = world.state();
    assert_eq!((state.attempt, state.stage, percent(state.buckets()).as_str()), (2, 0, "5 %"));
    assert!(!world.is_killed());
    assert_eq!(world.served(), "v2.2.1=95% v2.3.0=5%");
    assert!(world.ledger.evidence_revision(ENVIRONMENT, FLAG).unwrap() > before, "its statistics are its own");
    world.after(SECOND).await;
    assert!(!world.is_killed(), "what was counted before does not kill again");
}

#[tokio::test]
async fn two_control_planes_never_advance_twice() {
    let (store, clock) = (Arc::new(Memory::new()) as Arc<dyn Store>, Arc::new(ManualClock::at(1_700_000_000 * SECOND)));
    let mut one = World::on(Arc::clone(&store), Arc::clone(&clock)).await;
    one.commit("yardarm", Command::CreateEnvironment { name: ENVIRONMENT.into() }).await.unwrap();
    one.apply(SEED).await.unwrap();
    one.start().await;
    one.approve().await.unwrap();
    let mut two = World::on(store, Arc::clone(&clock)).await;
    clock.advance_us(2 * DAY + SECOND);
    tokio::join!(one.conductor.tick(), two.conductor.tick());
    let decisions = one.ledger.decisions(ENVIRONMENT, FLAG, 100).await.unwrap();
    let ticks = decisions.iter().filter(|decided| matches!(decided.decision.event, Event::Tick { .. })).count();
    assert_eq!((ticks, one.state().stage), (1, 1), "{decisions:?}");
}

#[tokio::test]
async fn a_document_that_is_applied_again_takes_nothing_back_and_another_plan_is_refused() {
    let world = World::new().await;
    world.start().await;
    assert!(!world.apply(SEED).await.unwrap().changed, "the shares are the rollout's");
    assert_eq!(world.served(), "v2.2.1=99% v2.3.0=1%");
    world.apply(&SEED.replace("killVariant: v2.2.1", "killVariant: v2.2.1\n    owner: mail")).await.unwrap();
    assert_eq!(world.served(), "v2.2.1=99% v2.3.0=1%");
    let refused = world.apply(&SEED.replace("percent: 10,", "percent: 20,")).await.unwrap_err().to_string();
    assert!(refused.contains("flags.sales_email.rollout: found another plan") && refused.contains("rollout abort"), "{refused}");
    let delete = Command::Delete { environment: ENVIRONMENT.into(), item: ItemName::flag(FLAG), expect: None };
    assert!(matches!(world.commit("ana", delete.clone()).await, Err(Error::RolloutRefused { .. })));
    world.event(Event::Abort { by: "ana".into(), reason: "because".into() }).await.unwrap();
    assert_eq!(world.served(), "v2.2.1=99% v2.3.0=1%", "the traffic stays where it is");
    world.commit("ana", delete).await.unwrap();
}

#[tokio::test]
async fn what_a_rollout_is_survives_a_restart() {
    let (store, clock) = (Arc::new(Memory::new()) as Arc<dyn Store>, Arc::new(ManualClock::at(1_700_000_000 * SECOND)));
    let world = World::on(Arc::clone(&store), Arc::clone(&clock)).await;
    world.commit("yardarm", Command::CreateEnvironment { name: ENVIRONMENT.into() }).await.unwrap();
    world.apply(SEED).await.unwrap();
    world.start().await;
    let again = World::on(store, clock).await;
    assert_eq!(again.state(), world.state());
    assert_eq!(again.ledger.moving_rollouts(), [(ENVIRONMENT.to_owned(), FLAG.to_owned())]);
}

#[tokio::test]
async fn a_flag_without_a_rollout_and_an_event_without_a_reason_are_refused() {
    let world = World::new().await;
    world.apply("flags: { plain: { variants: { on: true } } }").await.unwrap();
    let start = Event::Start { by: "ana".into(), reason: String::new() };
    let command = |flag: &str| Command::Rollout { environment: ENVIRONMENT.into(), flag: flag.into(), event: start.clone() };
    assert!(matches!(world.commit("ana", command("plain")).await, Err(Error::NoRollout { .. })));
    assert!(matches!(world.commit("ana", command("nobody")).await, Err(Error::UnknownItem { .. })));
    let silent = world.ledger.commit(&Actor::new("ana"), " ", command(FLAG)).await;
    assert!(matches!(silent, Err(Error::Malformed { field: "intent.reason", .. })), "{silent:?}");
}

/// The weights of a stage are exact, so that what the timeline says is what the split serves.
#[test]
fn shares_of_a_stage_are_what_the_split_gets() {
    let flag = yardarm::flag::Document::parse(SEED).unwrap().flags[FLAG].clone();
    let shares: BTreeMap<String, u32> = [("v2.3.0".to_owned(), 123_456)].into();
    let served = flag.with_shares("v2.2.1", &shares).unwrap();
    let (split, _) = served.rolling_split().unwrap();
    assert_eq!(split.weights["v2.3.0"], Weight::Percent(123_456));
    assert_eq!(split.weights["v2.2.1"], Weight::Percent(BUCKETS - 123_456));
}
