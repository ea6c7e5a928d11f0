//! The engine: a state and an event to the next state and what is to be done. Nothing else moves a rollout.

use std::collections::BTreeMap;

use super::judge::{Judged, judge};
use super::plan::{Plan, percent};
use super::state::{Action, Event, Evidence, Micros, Phase, State};
use super::statistics::{Decision, SampleRatio};
use crate::flag::{BUCKETS, Gate, OnDeadline, Start};

/// The whole rollout engine. It is total: an event that cannot happen answers [`Action::Refuse`] and leaves the state as it was.
pub fn step(plan: &Plan, state: State, event: Event, now: Micros) -> (State, Vec<Action>) {
    let turn = Turn { plan, now, actions: Vec::new(), state: state.clone() };
    match turn.take(event) {
        Ok(turn) => (turn.state, turn.actions),
        Err(why) => (state, vec![Action::Refuse { why }]),
    }
}

struct Turn<'p> {
    plan: &'p Plan,
    now: Micros,
    state: State,
    actions: Vec<Action>,
}

type Taken<'p> = Result<Turn<'p>, String>;

impl<'p> Turn<'p> {
    fn take(self, event: Event) -> Taken<'p> {
        if self.state.phase.owns_the_split()
            && self.state.plan != self.plan.hash
            && !matches!(event, Event::Abort { .. } | Event::Killed { .. })
        {
            return Err("the plan is not the one that was started; abort the rollout and start it anew".to_owned());
        }
        match event {
            Event::Start { .. } => self.start(),
            Event::Approve { by, of } => self.approve(by, &of),
            Event::Reject { by, reason } => self.reject(&by, &reason),
            Event::Pause { by, reason } => self.pause(format!("by {by}: {reason}")),
            Event::Resume { .. } => self.resume(),
            Event::Advance { .. } => self.advance_by_hand(),
            Event::Rollback { by, reason } => self.roll_back_by_hand(format!("by {by}: {reason}")),
            Event::Abort { .. } => self.abort(),
            Event::Archive { .. } => self.archive(),
            Event::Killed { by, reason } => self.killed(format!("by {by}: {reason}")),
            Event::Restored { buckets, .. } => self.restored(buckets),
            Event::Tick { evidence } => Ok(self.tick(evidence.as_ref())),
        }
    }

    fn start(mut self) -> Taken<'p> {
        match &self.state.phase {
            Phase::Draft | Phase::RolledBack { .. } => {}
            Phase::Killed { .. } => return Err("the flag is killed; `restore` begins a new attempt".to_owned()),
            Phase::Archived => return Err("the rollout is archived".to_owned()),
            phase => return Err(format!("the rollout is {} already", phase.as_str())),
        }
        self.begin_attempt();
        let shares = self.plan.shares(0);
        self.enter(0, shares);
        self.wait_for_start();
        Ok(self.tick(None))
    }

    fn begin_attempt(&mut self) {
        self.state.attempt = self.state.attempt.saturating_add(1);
        self.state.plan = self.plan.hash.clone();
        self.state.started_us = self.now;
    }

    /// A first stage that may not begin yet serves nobody until it may.
    fn wait_for_start(&mut self) {
        if self.start_of(0) > self.now {
            let nothing = self.plan.nothing();
            self.serve(nothing);
        }
    }

    fn approve(mut self, by: String, of: &str) -> Taken<'p> {
        if !self.state.phase.moves() {
            return Err(format!("the rollout is {}, and waits for no approval", self.state.phase.as_str()));
        }
        let expected = self.state.approvable();
        if of != expected {
            return Err(format!("what was looked at is not what is served now: found {of}, expected {expected}"));
        }
        let approvals: Vec<_> = self.approval_gates().collect();
        if approvals.is_empty() {
            return Err(format!("{} has no gate of approval", self.plan.document.name_of(self.state.stage)));
        }
        if !approvals.iter().any(|approval| approval.by.is_empty() || approval.by.contains(&by)) {
            let who: Vec<&str> = approvals.iter().flat_map(|approval| &approval.by).map(String::as_str).collect();
            return Err(format!("{by} may not approve this; {} may", who.join(", ")));
        }
        if !self.state.approvals.insert(by.clone()) {
            return Err(format!("{by} has approved this already"));
        }
        // The other gates were open when it began to wait. Before that they are looked at with the next evidence, not without any.
        match self.state.phase {
            Phase::AwaitingApproval if self.is_approved() => return Ok(self.advance()),
            Phase::AwaitingApproval => self.state.waiting = self.approvers(),
            _ => {}
        }
        Ok(self)
    }

    fn approval_gates(&self) -> impl Iterator<Item = &'p crate::flag::Approval> + use<'p> {
        let gates = self.plan.stage(self.state.stage).map(|stage| stage.gates.as_slice()).unwrap_or_default();
        gates.iter().filter_map(|gate| if let Gate::Approval(approval) = gate { Some(approval) } else { None })
    }

    fn is_approved(&self) -> bool {
        self.approval_gates().all(|gate| {
            let who = self.state.approvals.iter().filter(|by| gate.by.is_empty() || gate.by.contains(*by));
            who.count() >= gate.count as usize
        })
    }

    fn reject(self, by: &str, reason: &str) -> Taken<'p> {
        if !self.state.phase.moves() {
            return Err(format!("the rollout is {}, and waits for no approval", self.state.phase.as_str()));
        }
        self.pause(format!("rejected by {by}: {reason}"))
    }

    fn pause(mut self, reason: String) -> Taken<'p> {
        if !self.state.phase.moves() {
            return Err(format!("the rollout is {}", self.state.phase.as_str()));
        }
        self.stop(Phase::Paused { reason });
        Ok(self)
    }

    /// The deadline counts anew: a person has just looked.
    fn resume(mut self) -> Taken<'p> {
        let Phase::Paused { .. } = self.state.phase else {
            return Err(format!("the rollout is {}, not paused", self.state.phase.as_str()));
        };
        self.state.phase = Phase::Running;
        self.state.extended = self.deadlines_passed();
        Ok(self.tick(None))
    }

    fn advance_by_hand(mut self) -> Taken<'p> {
        match self.state.phase {
            Phase::Running | Phase::AwaitingApproval | Phase::Paused { .. } => {
                self.go_on();
                Ok(self.tick(None))
            }
            _ => Err(format!("the rollout is {}", self.state.phase.as_str())),
        }
    }

    fn roll_back_by_hand(mut self, reason: String) -> Taken<'p> {
        match self.state.phase {
            Phase::Running | Phase::AwaitingApproval | Phase::Paused { .. } | Phase::Completed { .. } => {
                self.roll_back(reason);
                Ok(self)
            }
            _ => Err(format!("the rollout is {}", self.state.phase.as_str())),
        }
    }

    fn abort(mut self) -> Taken<'p> {
        match self.state.phase {
            Phase::Draft => Err("the rollout was not started".to_owned()),
            Phase::Archived => Err("the rollout is archived".to_owned()),
            _ => {
                self.state.phase = Phase::Draft;
                self.state.waiting.clear();
                Ok(self)
            }
        }
    }

    fn archive(mut self) -> Taken<'p> {
        match self.state.phase {
            Phase::Completed { until_us } if until_us <= self.now => {
                self.state.phase = Phase::Archived;
                Ok(self)
            }
            Phase::Completed { until_us } => {
                let days = (until_us - self.now).div_euclid(86_400_000_000) + 1;
                Err(format!("it can still be rolled back for {days} days, and is not archived before"))
            }
            _ => Err(format!("the rollout is {}, not completed", self.state.phase.as_str())),
        }
    }

    fn killed(mut self, reason: String) -> Taken<'p> {
        if self.state.phase.owns_the_split() {
            self.state.hold_until_us = self.now.saturating_add(self.plan.document.cool_down().as_micros());
            self.stop(Phase::Killed { reason });
        }
        Ok(self)
    }

    /// A new attempt with statistics of its own, the same people first.
    fn restored(mut self, buckets: Option<u32>) -> Taken<'p> {
        let Phase::Killed { .. } = self.state.phase else { return Ok(self) };
        let buckets = buckets.unwrap_or_else(|| self.state.buckets()).min(BUCKETS);
        let (stage, shares) = self.plan.shares_of(buckets);
        self.begin_attempt();
        self.enter(stage, shares);
        Ok(self.tick(None))
    }

    fn tick(mut self, evidence: Option<&Evidence>) -> Self {
        if !self.state.phase.moves() {
            return self;
        }
        let hold = self.state.hold_until_us.max(self.start_of(self.state.stage).min(self.first_start()));
        if hold > self.now {
            self.state.waiting = format!("{} begins in {}", self.name(), span(hold - self.now));
            return self;
        }
        if self.state.shares.values().all(|share| *share == 0) && self.state.stage == 0 {
            let shares = self.plan.shares(0);
            if shares.values().any(|share| *share > 0) {
                self.enter(0, shares);
            }
        }
        let Judged { decided, verdicts, sample_ratio, coverage, needs } =
            judge(self.plan, &self.state, evidence, self.is_approved(), self.now);
        (self.state.verdicts, self.state.sample_ratio, self.state.coverage) = (verdicts, sample_ratio, coverage);
        match decided.decision {
            Decision::Advance => return self.advance(),
            Decision::AwaitApproval => {
                self.state.phase = Phase::AwaitingApproval;
                self.state.waiting = self.approvers();
            }
            Decision::Wait => {
                self.put_off_deadline();
                self.state.phase = Phase::Running;
                self.state.waiting = needs;
            }
            Decision::Pause => self.stop(Phase::Paused { reason: needs }),
            Decision::Rollback => self.roll_back(needs),
        }
        self
    }

    /// Only the first stage can be entered before its time: the others are entered when it has come.
    fn first_start(&self) -> Micros {
        if self.state.stage == 0 { self.start_of(0) } else { Micros::MIN }
    }

    fn approvers(&self) -> String {
        let missing = self.approval_gates().map(|gate| {
            let have = self.state.approvals.iter().filter(|by| gate.by.is_empty() || gate.by.contains(*by)).count();
            let who =
                if gate.by.is_empty() { "anybody".to_owned() } else { gate.by.iter().map(String::as_str).collect::<Vec<_>>().join(", ") };
            format!("{} of {} approvals by {who}", have.min(gate.count as usize), gate.count)
        });
        missing.collect::<Vec<_>>().join("; ")
    }

    /// All gates are open; the next stage begins as soon as it may.
    fn advance(mut self) -> Self {
        let next = self.state.stage + 1;
        let start = self.start_of(next);
        if !self.plan.is_last(self.state.stage) && start > self.now {
            self.state.phase = Phase::Running;
            self.state.waiting = format!("all gates are open; {} begins in {}", self.plan.document.name_of(next), span(start - self.now));
            return self;
        }
        self.go_on();
        self.tick(None)
    }

    fn go_on(&mut self) {
        if self.plan.is_last(self.state.stage) {
            let until_us = self.now.saturating_add(self.plan.document.retention().as_micros());
            self.state.phase = Phase::Completed { until_us };
            self.state.waiting.clear();
            return;
        }
        let next = self.state.stage + 1;
        let shares = self.plan.shares(next);
        self.enter(next, shares);
    }

    fn enter(&mut self, stage: usize, shares: BTreeMap<String, u32>) {
        self.state.phase = Phase::Running;
        (self.state.stage, self.state.stage_started_us, self.state.extended) = (stage, self.now, 0);
        self.state.approvals.clear();
        self.state.verdicts.clear();
        (self.state.sample_ratio, self.state.coverage) = (SampleRatio::default(), SampleRatio::default());
        self.state.waiting.clear();
        self.serve(shares);
    }

    fn serve(&mut self, shares: BTreeMap<String, u32>) {
        self.actions.retain(|action| !matches!(action, Action::Serve { .. }));
        self.state.shares = shares.clone();
        self.actions.push(Action::Serve { shares });
    }

    fn stop(&mut self, phase: Phase) {
        let what = match &phase {
            Phase::Paused { reason } => format!("paused at {}: {reason}", percent(self.state.buckets())),
            Phase::RolledBack { reason } => format!("rolled back: {reason}"),
            Phase::Killed { reason } => format!("killed: {reason}"),
            phase => phase.as_str().to_owned(),
        };
        self.state.phase = phase;
        self.state.waiting.clear();
        self.actions.push(Action::Notify { message: what });
    }

    fn roll_back(&mut self, reason: String) {
        let nothing = self.plan.nothing();
        self.serve(nothing);
        self.stop(Phase::RolledBack { reason });
    }

    /// When a stage may begin at the earliest.
    fn start_of(&self, stage: usize) -> Micros {
        let Some(stage) = self.plan.stage(stage) else { return Micros::MIN };
        match &stage.start {
            Start::AtOnce => Micros::MIN,
            Start::After(after) => self.state.started_us.saturating_add(after.as_micros()),
            Start::At(_) => stage.start.instant_us().unwrap_or(Micros::MIN),
        }
    }

    /// How often the deadline of this stage would have passed by now.
    fn deadlines_passed(&self) -> u32 {
        let deadline = self.plan.stage(self.state.stage).and_then(|stage| stage.deadline());
        let Some(deadline) = deadline.map(|span| span.as_micros()).filter(|micros| *micros > 0) else { return 0 };
        let elapsed = self.now.saturating_sub(self.state.stage_started_us).max(0);
        u32::try_from(elapsed / deadline).unwrap_or(u32::MAX)
    }

    fn put_off_deadline(&mut self) {
        let extends = self.plan.stage(self.state.stage).is_some_and(|stage| stage.on_deadline == OnDeadline::Extend);
        if extends {
            self.state.extended = self.deadlines_passed();
        }
    }

    fn name(&self) -> String {
        self.plan.document.name_of(self.state.stage)
    }
}

/// Microseconds in two units at most: `2d 3h`, `4m 10s`.
pub(super) fn span(us: Micros) -> String {
    let seconds = us.max(0).div_euclid(1_000_000) + i64::from(us.rem_euclid(1_000_000) > 0);
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|(_, size)| seconds >= *size).unwrap_or(units.len() - 1);
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (unit, size) in units.iter().skip(first).take(2) {
        if rest / size > 0 || parts.is_empty() {
            parts.push(format!("{}{unit}", rest / size));
        }
        rest %= size;
    }
    parts.join(" ")
}
