//! Rollouts on paper: the engine's step on the state as it is when the turn comes, with the definition that serves it, in one change.
//!
//! Whoever of two control planes comes second decides again on what the first one left: neither advances twice.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::environment::Environment;
use super::error::Error;
use super::plan::{Basis, Definition, Draft, RolloutEdit, Upsert};
use super::{Found, Ledger, found, unknown_item};
use crate::control::audit::{Action as Audited, sha256};
use crate::control::hex;
use crate::control::store::Order;
use crate::control::stored::{self, Decision};
use crate::flag::{Flag, Item, ItemKind, ItemName, Position, Problem, Problems, Revision};
use crate::rollout::{Action, Event, Phase, Plan, State, percent, step};

/// A flag's rollout as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    pub position: Position,
    pub found: Found,
    pub flag: Flag,
    pub plan: Plan,
    /// As it was left by the last event that changed it.
    pub state: State,
}

/// A decision, and the revision that it made.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    pub revision: Revision,
    pub decision: Decision,
}

/// A step that is not yet a change.
pub(super) struct Rolled {
    edit: RolloutEdit,
    /// When other shares are to be served.
    pub definition: Option<Definition>,
}

impl Ledger {
    pub fn rollout(&self, environment: &str, flag: &str) -> Result<Rollout, Error> {
        self.look(environment, |state| {
            let item = ItemName::flag(flag);
            let found = found(state, &item).ok_or_else(|| unknown_item(environment, state, &item))?;
            let (parsed, plan) = plan_of(flag, &found.item)?;
            let rollout = state.rollouts.get(flag).cloned().unwrap_or_default();
            Ok(Rollout { position: state.head.position, found, flag: parsed, plan, state: rollout })
        })
    }

    /// Flags whose rollout moves with time, in every environment.
    pub fn moving_rollouts(&self) -> Vec<(String, String)> {
        let environments: Vec<_> = self.environments.read().iter().map(|(name, shared)| (name.clone(), Arc::clone(shared))).collect();
        let mut moving = Vec::new();
        for (name, shared) in environments {
            let state = shared.state.read();
            let flags = state.rollouts.iter().filter(|(_, rollout)| rollout.phase.moves());
            moving.extend(flags.map(|(flag, _)| (name.clone(), flag.clone())));
        }
        moving
    }

    /// What outcomes of the flag are counted under now: the newest change of its definition or of a segment that it reads. `None`: there is
    /// no such flag.
    pub fn evidence_revision(&self, environment: &str, flag: &str) -> Option<Revision> {
        self.read(environment, |state| evidence_revision(state, flag))?
    }

    /// Newest first.
    pub async fn decisions(&self, environment: &str, flag: &str, limit: usize) -> Result<Vec<Decided>, Error> {
        let item = ItemName::flag(flag);
        self.look(environment, |state| state.items.get(&item).map(|_| ()).ok_or_else(|| unknown_item(environment, state, &item)))?;
        let view = self.store.view().await?;
        let entries = view.range(stored::decisions(environment, flag), Order::Descending, limit).await?;
        let decided = |entry: crate::control::store::Entry| {
            Ok(Decided { revision: stored::number(&entry.key).unwrap_or_default(), decision: Decision::decode(&entry.value)? })
        };
        entries.into_iter().map(decided).collect()
    }

    pub(super) async fn roll(&self, environment: &str, flag: &str, event: &Event) -> Result<Draft, Error> {
        let now_us = self.clock.now_us();
        let (rolled, basis, seen, revision) = self.look(environment, |state| {
            let item = ItemName::flag(flag);
            let held = state.items.get(&item).ok_or_else(|| unknown_item(environment, state, &item))?;
            let rolled = rolled(state, held, event.clone(), now_us)?;
            let definitions: Vec<Definition> = rolled.iter().flat_map(|rolled| rolled.definition.clone()).collect();
            Ok((rolled, Basis::gather(state, &definitions, &[]), state.head.position, held.revision))
        })?;
        let detail = rolled.as_ref().map(|rolled| rolled.sentence(event)).unwrap_or_default();
        let mut draft = self.define(basis, environment, Audited::Rollout, &detail, None).await?;
        match rolled {
            Some(rolled) => rolled.into_draft(&mut draft),
            None => draft.stands = revision,
        }
        draft.seen = Some(seen);
        Ok(draft)
    }
}

impl Rolled {
    pub(super) fn into_draft(self, draft: &mut Draft) {
        // The same shares again begin a new stage or attempt all the same: its evidence is told from that of before by the revision.
        if let Some(definition) = self.definition.filter(|_| draft.upserts.is_empty()) {
            draft.upserts.push(Upsert { refers_to: definition.refers_to(), name: definition.name, definition: definition.canonical });
        }
        draft.rollouts.push(self.edit);
    }

    /// For the audit record.
    fn sentence(&self, event: &Event) -> String {
        let Some(state) = &self.edit.state else { return event.as_str().to_owned() };
        format!(
            "{}: {} at {}, stage {}, attempt {}",
            event.as_str(),
            state.phase.as_str(),
            percent(state.buckets()),
            state.stage + 1,
            state.attempt
        )
    }
}

/// Of the environment as it stands, see [`Ledger::evidence_revision`].
pub(super) fn evidence_revision(state: &Environment, flag: &str) -> Option<Revision> {
    let flag = ItemName::flag(flag);
    let mut newest = state.items.get(&flag)?.revision;
    let (mut seen, mut open) = (BTreeSet::new(), vec![&flag]);
    while let Some(name) = open.pop() {
        for segment in state.links.of(name).iter().filter(|name| name.kind == ItemKind::Segment) {
            if seen.insert(segment) {
                newest = newest.max(state.items.get(segment).map_or(0, |item| item.revision));
                open.push(segment);
            }
        }
    }
    Some(newest)
}

/// `None`: nothing that has to be kept has changed.
fn rolled(state: &Environment, held: &Item, event: Event, now_us: i64) -> Result<Option<Rolled>, Error> {
    let key = &held.name.key;
    let (flag, plan) = plan_of(key, held)?;
    let before = state.rollouts.get(key).cloned().unwrap_or_default();
    if state.kills.contains_key(key) && matches!(event, Event::Start { .. }) {
        return Err(Error::RolloutRefused { flag: key.clone(), why: "the flag is killed; `restore` it first".to_owned() });
    }
    let (after, actions) = step(&plan, before.clone(), event.clone(), now_us);
    if let [Action::Refuse { why }] = actions.as_slice() {
        return Err(Error::RolloutRefused { flag: key.clone(), why: why.clone() });
    }
    if actions.is_empty() && kept_of(&before) == kept_of(&after) {
        return Ok(None);
    }
    let serves = actions.iter().any(|action| matches!(action, Action::Serve { .. }));
    let definition = serves.then(|| flag.with_shares(&plan.document.baseline, &after.shares)).flatten();
    let definition = definition.map(|flag| Definition::flag(key.clone(), flag));
    let decision = Decision { at_us: now_us, definition: held.revision, event, before, after: after.clone(), actions };
    let edit = RolloutEdit { flag: key.clone(), state: Some(after), decision: Some(decision) };
    Ok(Some(Rolled { edit, definition }))
}

/// What a restart must not forget. Words and running tests follow from the evidence, and change with every look.
fn kept_of(state: &State) -> State {
    State { waiting: String::new(), sample_ratio: Default::default(), coverage: Default::default(), ..state.clone() }
}

fn plan_of(key: &str, item: &Item) -> Result<(Flag, Plan), Error> {
    let flag = Flag::from_json(&item.definition)?;
    let plan = Plan::of(&flag, hash).ok_or_else(|| Error::NoRollout { flag: key.to_owned() })?;
    Ok((flag, plan))
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(&sha256(bytes)[..16])
}

/// A kill is never held up by a plan that cannot be read.
pub(super) fn killed(state: &Environment, flag: &str, by: &str, reason: &str, now_us: i64) -> Option<RolloutEdit> {
    state.rollouts.get(flag).filter(|rollout| rollout.phase.owns_the_split())?;
    let held = state.items.get(&ItemName::flag(flag))?;
    let event = Event::Killed { by: by.to_owned(), reason: reason.to_owned() };
    Some(rolled(state, held, event, now_us).ok()??.edit)
}

/// `None`: the rollout has nothing to do with it.
pub(super) fn restored(state: &Environment, held: &Item, percent: Option<f64>, by: &str, now_us: i64) -> Result<Option<Rolled>, Error> {
    let is_killed = state.rollouts.get(&held.name.key).is_some_and(|rollout| matches!(rollout.phase, Phase::Killed { .. }));
    if !is_killed || !state.kills.contains_key(&held.name.key) {
        return Ok(None);
    }
    // Whether the percentage makes sense, in the words that every restore has.
    if let Some(percent) = percent {
        let key = &held.name.key;
        Flag::from_json(&held.definition)?.with_percent(percent).map_err(|problems| problems.under(&format!("flags.{key}")))?;
    }
    let buckets = percent.map(|percent| (percent * 10_000.0).round() as u32);
    rolled(state, held, Event::Restored { by: by.to_owned(), buckets }, now_us)
}

/// A document that is applied again and again must not undo what the rollout has done: while one stands, the split is the rollout's, and
/// what it is about does not change.
pub(super) fn kept(state: &Environment, definitions: &[Definition]) -> Result<Vec<Definition>, Problems> {
    let mut problems = Problems::default();
    let keep = |definition: &Definition| {
        let (Some(flag), key) = (definition.as_flag(), &definition.name.key) else { return definition.clone() };
        let Some(rollout) = state.rollouts.get(key).filter(|rollout| rollout.phase.owns_the_split()) else { return definition.clone() };
        let plan = flag.rollout.as_ref().filter(|_| hash(&flag.to_rollout_json()) == rollout.plan);
        match plan.and_then(|plan| flag.with_shares(&plan.baseline, &rollout.shares)) {
            Some(kept) => Definition::flag(key.clone(), kept),
            None => {
                problems.push(Problem {
                    path: format!("flags.{key}.rollout"),
                    line: None,
                    found: format!(
                        "another plan, other metrics or variants than attempt {} of its rollout, which is {}, was started with",
                        rollout.attempt,
                        rollout.phase.as_str()
                    ),
                    expected: "the same until it ends".to_owned(),
                    hint: Some(format!("`yardarm rollout abort {key}` ends it and leaves the traffic where it is")),
                });
                definition.clone()
            }
        }
    };
    let kept = definitions.iter().map(keep).collect();
    problems.into_result(kept)
}

/// What a deletion does to the flag's rollout; refused while people are counted on to be able to take it back.
pub(super) fn ended(state: &Environment, item: &ItemName, now_us: i64) -> Result<Option<RolloutEdit>, Error> {
    if item.kind != ItemKind::Flag {
        return Ok(None);
    }
    let Some(rollout) = state.rollouts.get(&item.key) else { return Ok(None) };
    let is_over = match rollout.phase {
        Phase::Draft | Phase::Archived | Phase::RolledBack { .. } => true,
        Phase::Completed { until_us } => until_us <= now_us,
        _ => false,
    };
    if is_over {
        return Ok(Some(RolloutEdit { flag: item.key.clone(), state: None, decision: None }));
    }
    let why = format!("it is {}; abort it, or archive it when its retention is over, before the flag is deleted", rollout.phase.as_str());
    Err(Error::RolloutRefused { flag: item.key.clone(), why })
}
