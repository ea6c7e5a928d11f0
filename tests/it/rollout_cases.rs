//! Rollouts as text, in `tests/data/rollout/*.cases`: days and weeks of them, with the clock as a word of the command.
//!
//! `flag` reads a flag document with a rollout. Every other command is an event: `start`, `approve`, `reject`, `pause`, `resume`, `advance`,
//! `rollback`, `abort`, `archive`, `killed`, `restored`, `tick`, `evidence`; `at=2d` is the time since the first day, `by=ana` who,
//! `of=…` what was looked at (by itself: what is served), `percent=5` of a restore. Evidence has a line for each metric, `errors: new 3/600
//! old 9/900`, and may have `exposed: new 600 old 900`, `crossover: 10` and `due: new 3/600 old 5/900`, which is who was not
//! heard of; by itself every unit has an outcome.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;
use yardarm::flag::{Document, Flag, Segments, Span, compile};
use yardarm::rollout::statistics::Arm;
use yardarm::rollout::{Action, Due, Event, Evidence, Observed, Phase, Plan, State, percent, step};

use crate::cases;

#[test]
fn the_plan_that_people_write_on_paper_is_carried_out() {
    run("seed.cases");
}

#[test]
fn gates_open_hold_and_stop_by_the_evidence() {
    run("gates.cases");
}

#[test]
fn people_can_stop_it_take_it_back_and_begin_again() {
    run("people.cases");
}

#[test]
fn a_kill_ends_the_attempt_and_the_next_one_begins_with_the_same_people() {
    run("kills.cases");
}

/// The worked example of README, and `tests/data/rollout/template.cases` from the first day to the last.
#[test]
fn the_plan_that_is_shipped_as_a_template_is_carried_out() {
    run("template.cases");
}

fn run(file: &str) {
    let mut world = World::default();
    cases::run(&Path::new("tests/data/rollout").join(file), |command, input| world.run(command, input));
}

#[derive(Default)]
struct World {
    plan: Option<Plan>,
    state: State,
    now_us: i64,
}

impl World {
    fn run(&mut self, command: &str, input: &str) -> String {
        let mut words = command.split_whitespace();
        let verb = words.next().unwrap();
        let given: BTreeMap<&str, &str> = words.map(|word| word.split_once('=').unwrap()).collect();
        if verb == "flag" {
            *self = Self { plan: Some(plan(&flag(input))), ..Self::default() };
            return self.written(&[]);
        }
        if let Some(at) = given.get("at") {
            self.now_us = Span::parse(at).unwrap_or_else(|| panic!("{at}")).as_micros();
        }
        let event = self.event(verb, &given, input);
        let (state, actions) = step(self.plan.as_ref().unwrap(), self.state.clone(), event, self.now_us);
        self.state = state;
        self.written(&actions)
    }

    fn event(&self, verb: &str, given: &BTreeMap<&str, &str>, input: &str) -> Event {
        let by = (*given.get("by").unwrap_or(&"ana")).to_owned();
        let reason = if input.is_empty() { "because".to_owned() } else { input.to_owned() };
        match verb {
            "start" => Event::Start { by, reason },
            "approve" => Event::Approve { by, of: given.get("of").map_or_else(|| self.state.approvable(), |of| (*of).to_owned()) },
            "reject" => Event::Reject { by, reason },
            "pause" => Event::Pause { by, reason },
            "resume" => Event::Resume { by, reason },
            "advance" => Event::Advance { by, reason },
            "rollback" => Event::Rollback { by, reason },
            "abort" => Event::Abort { by, reason },
            "archive" => Event::Archive { by },
            "killed" => Event::Killed { by, reason },
            "restored" => {
                Event::Restored { by, buckets: given.get("percent").map(|percent| (percent.parse::<f64>().unwrap() * 10_000.0) as u32) }
            }
            "tick" => Event::Tick { evidence: None },
            "evidence" => Event::Tick { evidence: Some(evidence(input, self.now_us)) },
            other => panic!("no event is called {other}"),
        }
    }

    /// `10 %, running in stage-2, attempt 1: what it waits for`, and a line for each action.
    fn written(&self, actions: &[Action]) -> String {
        let State { phase, stage, attempt, waiting, .. } = &self.state;
        let name = self.plan.as_ref().unwrap().document.name_of(*stage);
        let mut text = format!("{}, {} in {name}, attempt {attempt}", percent(self.state.buckets()), phase.as_str());
        if let Phase::Paused { reason } | Phase::RolledBack { reason } | Phase::Killed { reason } = phase {
            _ = write!(text, ": {reason}");
        }
        if !waiting.is_empty() {
            _ = write!(text, ": {waiting}");
        }
        for action in actions {
            _ = match action {
                Action::Serve { shares } => {
                    let shares: Vec<_> = shares.iter().map(|(name, share)| format!("{name} to {}", percent(*share))).collect();
                    write!(text, "\n> serve {}", shares.join(", "))
                }
                Action::Notify { message } => write!(text, "\n> tell: {message}"),
                Action::Refuse { why } => write!(text, "\n> refuse: {why}"),
            };
        }
        text
    }
}

fn flag(text: &str) -> Flag {
    let document = Document::parse(text).unwrap_or_else(|problems| panic!("{problems}"));
    let (key, flag) = document.flags.first_key_value().unwrap();
    compile(key, flag, &Segments::none()).unwrap_or_else(|problems| panic!("{problems}"));
    flag.clone()
}

fn plan(flag: &Flag) -> Plan {
    Plan::of(flag, |_| "plan".to_owned()).unwrap()
}

fn evidence(input: &str, now_us: i64) -> Evidence {
    let mut evidence = Evidence::default();
    for line in input.lines() {
        let (name, rest) = line.split_once(": ").unwrap();
        let mut words = rest.split_whitespace();
        let pairs: Vec<(&str, &str)> = std::iter::from_fn(|| Some((words.next()?, words.next().unwrap_or_default()))).collect();
        match name {
            "exposed" => evidence.exposed = pairs.into_iter().map(|(name, count)| (name.to_owned(), count.parse().unwrap())).collect(),
            "due" => {
                let due = |counts: &str| {
                    let (silent, units) = counts.split_once('/').unwrap();
                    Due { units: units.parse().unwrap(), silent: silent.parse().unwrap() }
                };
                evidence.due = pairs.into_iter().map(|(name, counts)| (name.to_owned(), due(counts))).collect();
            }
            "crossover" => evidence.crossover = rest.parse().unwrap(),
            metric => {
                let mut observed = Observed { watermark_us: now_us, ..Observed::default() };
                for (variant, counts) in pairs {
                    let (k, n) = counts.split_once('/').unwrap();
                    observed.arms.insert(variant.to_owned(), Arm::Binomial { n: n.parse().unwrap(), k: k.parse().unwrap() });
                }
                evidence.metrics.insert(metric.to_owned(), observed);
            }
        }
    }
    if evidence.exposed.is_empty() {
        for (variant, arm) in evidence.metrics.values().flat_map(|observed| &observed.arms) {
            let exposed = evidence.exposed.entry(variant.clone()).or_default();
            *exposed = arm.units().max(*exposed);
        }
    }
    evidence
}

const LAWFUL: &str = "
flags:
  f:
    variants: { old: a, new: b, newer: c }
    defaultSplit: { weights: { old: 100, new: 0, newer: 0 } }
    metrics: { errors: { kind: binomial, direction: lower, margin: { absolute: 0.01 }, minUnits: 100 } }
    rollout:
      baseline: old
      treatments: [new, newer]
      stages:
        - { percent: 1, bake: 1d, gates: [{ approval: {} }] }
        - { weights: { new: 10, newer: 5 }, bake: 1d, gates: [{ metrics: [errors] }] }
        - { percent: 50, start: { after: 5d }, gates: [{ comparison: errors }, { approval: { by: [ana, bob], count: 2 } }] }
        - { percent: 100 }
";

fn anything() -> impl Strategy<Value = Event> {
    let by = || prop_oneof![Just("ana".to_owned()), Just("bob".to_owned()), Just("eve".to_owned())];
    let reason = || Just("why".to_owned());
    prop_oneof![
        (by(), reason()).prop_map(|(by, reason)| Event::Start { by, reason }),
        (by(), 1..5_usize).prop_map(|(by, stage)| Event::Approve { by, of: format!("plan/1/{stage}") }),
        (by(), reason()).prop_map(|(by, reason)| Event::Reject { by, reason }),
        (by(), reason()).prop_map(|(by, reason)| Event::Pause { by, reason }),
        (by(), reason()).prop_map(|(by, reason)| Event::Resume { by, reason }),
        (by(), reason()).prop_map(|(by, reason)| Event::Advance { by, reason }),
        (by(), reason()).prop_map(|(by, reason)| Event::Rollback { by, reason }),
        (by(), reason()).prop_map(|(by, reason)| Event::Abort { by, reason }),
        by().prop_map(|by| Event::Archive { by }),
        (by(), reason()).prop_map(|(by, reason)| Event::Killed { by, reason }),
        (by(), proptest::option::of(0..=1_000_000_u32)).prop_map(|(by, buckets)| Event::Restored { by, buckets }),
        Just(Event::Tick { evidence: None }),
        (0..2_000_u64, 0..2_000_u64, 0..50_u64).prop_map(|(n, more, k)| {
            let text = format!("errors: old {}/{more} new {}/{n} newer {}/{n}", k.min(more), k.min(n), k.min(n));
            Event::Tick { evidence: Some(evidence(&text, i64::MAX / 2)) }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: shares never fall within an attempt unless it ends, they add up, a refusal changes nothing, and
    /// what is stored is read as the same.
    #[test]
    fn no_history_breaks_the_ramp(events in proptest::collection::vec((anything(), 0..200_000_000_000_i64), 1..60)) {
        let plan = plan(&flag(LAWFUL));
        let (mut state, mut now) = (State::default(), 0);
        for (event, wait) in events {
            now += wait;
            let (next, actions) = step(&plan, state.clone(), event, now);
            if let [Action::Refuse { .. }] = actions.as_slice() {
                prop_assert_eq!(&next, &state);
            }
            prop_assert!(next.buckets() <= 1_000_000);
            if next.attempt == state.attempt && next.phase != Phase::Draft && !matches!(next.phase, Phase::RolledBack { .. }) {
                for (name, share) in &next.shares {
                    prop_assert!(*share >= state.shares.get(name).copied().unwrap_or_default(), "{name} fell: {state:?} -> {next:?}");
                }
            }
            if next.shares != state.shares {
                prop_assert!(actions.contains(&Action::Serve { shares: next.shares.clone() }), "{actions:?}");
            }
            let text = serde_json::to_string(&next).unwrap();
            prop_assert_eq!(&serde_json::from_str::<State>(&text).unwrap(), &next);
            state = next;
        }
    }

    /// Time alone, asked twice, decides once: two control planes never advance twice.
    #[test]
    fn the_same_tick_twice_is_the_tick_once(n in 0..3_000_u64, days in 0..40_i64) {
        let plan = plan(&flag(LAWFUL));
        let (state, _) = step(&plan, State::default(), Event::Start { by: "ana".into(), reason: "why".into() }, 0);
        let now = days * 86_400_000_000;
        let event = Event::Tick { evidence: Some(evidence(&format!("errors: old 3/{n} new 3/{n} newer 3/{n}", n = n + 3), now)) };
        let (once, _) = step(&plan, state, event.clone(), now);
        let (twice, actions) = step(&plan, once.clone(), event, now);
        prop_assert_eq!(once.stage, twice.stage);
        prop_assert!(actions.is_empty(), "{actions:?}");
    }
}
