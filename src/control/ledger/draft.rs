//! From a command to a draft: what it would change in the environment as it stands.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::command::Command;
use super::environment::Environment;
use super::error::{Conflicting, Error};
use super::misread::every_problem;
use super::plan::{Basis, Definition, Draft, KillEdit, Upsert, definitions};
use super::trip::Tripped;
use super::turn::Urgency;
use super::{Ledger, rollout, unknown_item};
use crate::control::audit::Action;
use crate::control::store::Order;
use crate::control::stored::{self, Version};
use crate::flag::{Flag, Item, ItemKind, ItemName, Position, Revision, limits};
use crate::rollout::Event;

/// A command, read and looked up as far as the present state does not matter.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Create {
        name: String,
    },
    Copy {
        from: String,
        to: String,
    },
    Define {
        environment: String,
        definitions: Vec<Definition>,
        action: Action,
        detail: String,
        expect: Option<Revision>,
    },
    Delete {
        environment: String,
        item: ItemName,
        expect: Option<Revision>,
    },
    /// `tripped`: by a sidecar that was out of reach.
    Kill {
        environment: String,
        flag: String,
        by: String,
        reason: String,
        tripped: Option<Tripped>,
    },
    Restore {
        environment: String,
        flag: String,
        percent: Option<f64>,
        expect: Option<Revision>,
        by: String,
    },
    Rollout {
        environment: String,
        flag: String,
        event: Event,
    },
}

/// Bytes; parsed in well under a millisecond.
const SMALL_DOCUMENT: usize = 8 << 10;

impl Request {
    pub(super) fn urgency(&self) -> Urgency {
        match self {
            Self::Kill { .. } => Urgency::Urgent,
            _ => Urgency::Normal,
        }
    }
}

impl Ledger {
    /// `by` and `reason` go into what a kill or its end does to a rollout.
    pub(super) async fn prepare(&self, command: Command, by: &str, reason: &str) -> Result<Request, Error> {
        Ok(match command {
            Command::CreateEnvironment { name } => Request::Create { name: environment_name(name, "name")? },
            Command::CopyEnvironment { from, to } => Request::Copy { from, to: environment_name(to, "to")? },
            Command::Apply { environment, document, expect } => {
                let definitions = self.read_document(&environment, document).await?;
                Request::Define { environment, definitions, action: Action::Apply, detail: String::new(), expect }
            }
            Command::Delete { environment, item, expect } => Request::Delete { environment, item: checked(item)?, expect },
            Command::Revert { environment, item, to, expect } => {
                let found = self.get_at(&environment, &checked(item)?, to).await?;
                let definition = Definition::parse(&found.name, &found.definition)?;
                let detail = format!("to revision {to}");
                Request::Define { environment, definitions: vec![definition], action: Action::Revert, detail, expect }
            }
            Command::Kill { environment, flag } => {
                let (by, reason) = (by.to_owned(), reason.to_owned());
                Request::Kill { environment, flag: checked(ItemName::flag(flag))?.key, by, reason, tripped: None }
            }
            Command::Trip { environment, flag, guard, revision, held } => {
                let (by, reason, tripped) = (by.to_owned(), reason.to_owned(), Some(Tripped { guard, revision, held }));
                Request::Kill { environment, flag: checked(ItemName::flag(flag))?.key, by, reason, tripped }
            }
            Command::Restore { environment, flag, percent, expect } => {
                Request::Restore { environment, flag: checked(ItemName::flag(flag))?.key, percent, expect, by: by.to_owned() }
            }
            Command::Rollout { environment, flag, event } => {
                Request::Rollout { environment, flag: checked(ItemName::flag(flag))?.key, event }
            }
        })
    }

    async fn read_document(&self, environment: &str, document: String) -> Result<Vec<Definition>, Error> {
        let is_small = document.len() <= SMALL_DOCUMENT;
        let read = move || {
            let (definitions, problems) = definitions(&document);
            (document, definitions, problems)
        };
        let (document, definitions, problems) = off_the_async_threads(is_small, read).await?;
        if problems.is_empty() {
            return Ok(definitions);
        }
        let basis = self.look(environment, |state| Ok(Basis::gather(state, &definitions, &[])))?;
        let problems = off_the_async_threads(false, move || every_problem(&document, &problems, &definitions, basis)).await?;
        Err(problems.into())
    }

    /// What the request changes now, or why it is refused.
    pub(super) async fn draft(&self, request: &Request) -> Result<Draft, Error> {
        match request {
            Request::Create { name } => {
                self.is_free(name)?;
                Ok(Draft::of(name, Action::CreateEnvironment))
            }
            Request::Copy { from, to } => {
                self.is_free(to)?;
                self.look(from, |state| Ok(copy(state, from, to)))
            }
            Request::Define { environment, definitions, action, detail, expect } => {
                let basis = self.look(environment, |state| {
                    let definitions = rollout::kept(state, definitions)?;
                    Ok(Basis::gather(state, &definitions, &[]))
                })?;
                self.define(basis, environment, *action, detail, *expect).await
            }
            Request::Delete { environment, item, expect } => {
                let now_us = self.clock.now_us();
                let (basis, ended) = self.look(environment, |state| {
                    let ended = rollout::ended(state, item, now_us)?;
                    Ok((delete(state, environment, item, *expect)?, ended))
                })?;
                let mut draft = self.define(basis, environment, Action::Delete, "", *expect).await?;
                draft.rollouts.extend(ended);
                Ok(draft)
            }
            Request::Kill { environment, flag, by, reason, tripped } => {
                let now_us = self.clock.now_us();
                self.look(environment, |state| {
                    if let Some(tripped) = tripped {
                        tripped.check(state, flag)?;
                    }
                    let mut draft = kill(state, environment, flag)?;
                    if !draft.kills.is_empty() {
                        draft.rollouts.extend(rollout::killed(state, flag, by, reason, now_us));
                    }
                    Ok(draft)
                })
            }
            Request::Restore { environment, flag, percent, expect, by } => self.restore(environment, flag, *percent, *expect, by).await,
            Request::Rollout { environment, flag, event } => self.roll(environment, flag, event).await,
        }
    }

    pub(super) async fn define(
        &self,
        basis: Basis,
        name: &str,
        action: Action,
        detail: &str,
        expect: Option<Revision>,
    ) -> Result<Draft, Error> {
        let (name, detail) = (name.to_owned(), detail.to_owned());
        let draft = off_the_async_threads(basis.is_small(), move || basis.check(name, action, detail)).await??;
        self.check_conflicts(&draft, expect).await?;
        Ok(draft)
    }

    async fn restore(&self, name: &str, flag: &str, percent: Option<f64>, expect: Option<Revision>, by: &str) -> Result<Draft, Error> {
        let item = ItemName::flag(flag);
        let now_us = self.clock.now_us();
        let (standing, basis, seen, revision, rolled) = self.look(name, |state| {
            let found = state.items.get(&item).ok_or_else(|| unknown_item(name, state, &item))?;
            let rolled = rollout::restored(state, found, percent, by, now_us)?;
            let definitions = match percent {
                _ if rolled.is_some() => rolled.iter().flat_map(|rolled| rolled.definition.clone()).collect(),
                Some(percent) => {
                    let ramped = Flag::from_json(&found.definition)?.with_percent(percent);
                    vec![Definition::flag(flag.to_owned(), ramped.map_err(|problems| problems.under(&format!("flags.{flag}")))?)]
                }
                None => Vec::new(),
            };
            let standing = state.kills.get(flag).cloned();
            Ok((standing, Basis::gather(state, &definitions, &[]), state.head.position, found.revision, rolled))
        })?;
        if let (Some(kill), Some(expected)) = (&standing, expect)
            && kill.revision > expected
        {
            let (revision, actor, at_us) = (kill.revision, kill.actor.clone(), kill.at_us);
            return Err(Error::Conflict { expected, changed: vec![Conflicting { item, revision, actor, at_us }] });
        }
        let detail = percent.map_or_else(String::new, |percent| format!("at {percent} %"));
        let mut draft = self.define(basis, name, Action::Restore, &detail, expect).await?;
        match (standing, percent) {
            (Some(_), _) => draft.kills.push(KillEdit::Lift(flag.to_owned())),
            // Asked again after an answer was lost: it is as it should be.
            (None, _) if draft.upserts.is_empty() => draft.stands = revision,
            (None, percent) => return Err(Error::NotKilled { flag: flag.to_owned(), percent: percent.unwrap_or_default() }),
        }
        if let Some(rolled) = rolled {
            rolled.into_draft(&mut draft);
        }
        draft.seen = Some(seen);
        Ok(draft)
    }

    pub(super) fn look<T>(&self, environment: &str, look: impl FnOnce(&Environment) -> Result<T, Error>) -> Result<T, Error> {
        self.read(environment, look).ok_or_else(|| self.unknown_environment(environment))?
    }

    fn is_free(&self, name: &str) -> Result<(), Error> {
        match self.shared(name) {
            Some(_) => Err(Error::EnvironmentExists { name: name.to_owned() }),
            None => Ok(()),
        }
    }

    /// Whether one of the items was changed after the revision that the writer saw, and by whom.
    async fn check_conflicts(&self, draft: &Draft, expect: Option<Revision>) -> Result<(), Error> {
        let (Some(expected), Some(seen)) = (expect, draft.seen) else { return Ok(()) };
        if seen.revision <= expected {
            return Ok(());
        }
        let touched: Vec<_> = draft.upserts.iter().map(|upsert| &upsert.name).chain(&draft.removed).collect();
        let suspects = self.look(&draft.environment, |state| {
            let revision = |name: &&ItemName| state.items.get(name).map(|item| item.revision);
            Ok(touched.into_iter().map(|name| (name, revision(&name))).collect::<Vec<_>>())
        })?;
        let view = self.store.view().await?;
        let mut changed = Vec::new();
        for (name, revision) in suspects {
            let mut range = stored::versions(&draft.environment, name);
            match revision {
                Some(revision) if revision <= expected => continue,
                Some(revision) => range.from = stored::version(&draft.environment, name, revision),
                // There is none: it may have been removed since.
                None => range.from = stored::version(&draft.environment, name, expected.saturating_add(1)),
            }
            let order = if revision.is_some() { Order::Ascending } else { Order::Descending };
            for entry in view.range(range, order, 1).await? {
                let revision = stored::number(&entry.key).unwrap_or_default();
                let Version { actor, at_us, .. } = Version::decode(entry.value)?;
                changed.push(Conflicting { item: name.clone(), revision, actor, at_us });
            }
        }
        if changed.is_empty() { Ok(()) } else { Err(Error::Conflict { expected, changed }) }
    }
}

impl Draft {
    pub(super) fn of(environment: &str, action: Action) -> Self {
        Self {
            environment: environment.to_owned(),
            action,
            detail: String::new(),
            seen: None,
            upserts: Vec::new(),
            removed: Vec::new(),
            kills: Vec::new(),
            rollouts: Vec::new(),
            segments: None,
            stands: 0,
        }
    }

    fn on(environment: &str, action: Action, seen: Position) -> Self {
        Self { seen: Some(seen), ..Self::of(environment, action) }
    }
}

fn copy(state: &Environment, from: &str, to: &str) -> Draft {
    let upsert = |(name, item): (&ItemName, &Arc<Item>)| {
        let (definition, refers_to) = (item.definition.clone(), state.links.of(name).to_vec());
        Upsert { name: name.clone(), definition, refers_to }
    };
    Draft {
        detail: format!("from {from} at {}", state.head.position),
        upserts: state.items.iter().map(upsert).collect(),
        kills: state.kills.values().cloned().map(KillEdit::Carry).collect(),
        segments: Some(state.segments.clone()),
        ..Draft::of(to, Action::CopyEnvironment)
    }
}

pub(super) fn kill(state: &Environment, environment: &str, flag: &str) -> Result<Draft, Error> {
    let draft = Draft::on(environment, Action::Kill, state.head.position);
    if let Some(standing) = state.kills.get(flag) {
        return Ok(Draft { stands: standing.revision, ..draft });
    }
    let item = ItemName::flag(flag);
    if !state.items.contains_key(&item) {
        return Err(unknown_item(environment, state, &item));
    }
    Ok(Draft { kills: vec![KillEdit::Set(flag.to_owned())], ..draft })
}

fn delete(state: &Environment, environment: &str, item: &ItemName, expect: Option<Revision>) -> Result<Basis, Error> {
    if !state.items.contains_key(item) {
        return Err(unknown_item(environment, state, item));
    }
    let users: BTreeSet<ItemName> = state.links.users(item).cloned().collect();
    if !users.is_empty() {
        return Err(Error::InUse { item: item.clone(), users: users.into_iter().collect() });
    }
    if let (ItemKind::Flag, Some(kill), Some(expected)) = (item.kind, state.kills.get(&item.key), expect)
        && kill.revision > expected
    {
        let (item, revision, actor, at_us) = (item.clone(), kill.revision, kill.actor.clone(), kill.at_us);
        return Err(Error::Conflict { expected, changed: vec![Conflicting { item, revision, actor, at_us }] });
    }
    Ok(Basis::gather(state, &[], std::slice::from_ref(item)))
}

fn environment_name(name: String, field: &'static str) -> Result<String, Error> {
    match limits::is_key(&name) {
        true => Ok(name),
        false => Err(Error::Malformed { field, problem: not_a_key(&name) }),
    }
}

fn checked(item: ItemName) -> Result<ItemName, Error> {
    match limits::is_key(&item.key) {
        true => Ok(item),
        false => Err(Error::Malformed { field: "key", problem: not_a_key(&item.key) }),
    }
}

fn not_a_key(found: &str) -> String {
    let shown: String = found.chars().take(40).collect();
    format!("found {shown:?}, expected 1 to {} letters, digits, dots, underscores and hyphens", limits::KEY_BYTES)
}

/// Small work is done on the spot: it takes less time than to hand it over.
async fn off_the_async_threads<T: Send + 'static>(is_small: bool, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    match is_small {
        true => Ok(work()),
        false => spawn_blocking(work).await.map_err(|problem| Error::Aborted { problem: problem.to_string() }),
    }
}
