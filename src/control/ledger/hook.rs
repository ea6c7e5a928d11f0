//! Hooks: URLs that kill one flag. A hook is made and revoked here, and an alert that came by one is judged and carried out here.
//!
//! Making or revoking a hook changes no flag: it has its audit record and no revision, so that no sidecar hears of it. A kill is a change
//! like any other, ahead of all that waits, and what the hook remembers is written with it in one transaction. There is no way from here
//! to a restore.

use std::sync::Arc;
use std::time::Duration;

use super::alert::{Alert, Situation, Verdict, judge, remember};
use super::authorize::authorize_actor;
use super::command::Actor;
use super::commit::{ATTEMPTS, audit_draft, batch, write_record};
use super::draft;
use super::environment::Environment;
use super::error::Error;
use super::plan::Draft;
use super::turn::Urgency;
use super::{Ledger, Tail};
use crate::control::audit::{self, Action, Hash, Record, sha256};
use crate::control::store::{self, Batch, Order, View, scan};
use crate::control::stored::{self, Hook};
use crate::flag::{ItemName, Position, limits};

/// Hooks of one flag.
pub const FLAG_HOOKS: usize = 20;
/// Bounds of how old an alert may be; what a hook has seen is forgotten after the longer one.
pub const MIN_AGE: Duration = Duration::from_secs(60);
pub const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3_600);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookName {
    pub environment: String,
    pub flag: String,
    pub id: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHook {
    pub name: HookName,
    /// SHA-256 of the token.
    pub token: Hash,
    pub max_age: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedHook {
    pub flag: String,
    pub hook: Hook,
}

/// What came of a request with alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alerted {
    pub verdicts: Vec<Verdict>,
    /// Of the kill, when there was one to carry out.
    pub killed_at: Option<Position>,
}

pub(super) enum Edit {
    Create { hook: NewHook, actor: Actor, reason: String },
    Revoke { hook: HookName, actor: Actor, reason: String },
    Alert { hook: HookName, alerts: Vec<Alert> },
    Note(Noted),
}

/// A record that changes nothing, about a flag.
pub(super) struct Noted {
    pub(super) environment: String,
    pub(super) flag: ItemName,
    pub(super) actor: Actor,
    pub(super) reason: String,
    pub(super) action: Action,
    pub(super) detail: String,
}

/// What an edit comes to; it writes nothing when there is nothing to do.
struct Step {
    write: Option<Write>,
    verdicts: Vec<Verdict>,
}

struct Write {
    environment: String,
    actor: Actor,
    reason: String,
    what: What,
    /// What changes of the hook.
    batch: Batch,
}

enum What {
    Kill(Draft),
    /// Changes no flag, and only has its record.
    Note {
        flag: ItemName,
        action: Action,
        detail: String,
    },
}

impl Ledger {
    pub async fn create_hook(self: &Arc<Self>, actor: &Actor, reason: &str, hook: NewHook) -> Result<(), Error> {
        authorize_hook(actor, reason)?;
        if !(MIN_AGE..=MAX_AGE).contains(&hook.max_age) {
            let problem = format!("is {:?}, expected one minute to seven days", hook.max_age);
            return Err(Error::Malformed { field: "max_age_ms", problem });
        }
        if !limits::is_key(&hook.name.id) {
            return Err(Error::Malformed { field: "id", problem: "is no key".to_owned() });
        }
        let edit = Edit::Create { hook, actor: actor.clone(), reason: reason.to_owned() };
        self.edit(Urgency::Normal, edit).await.map(drop)
    }

    pub async fn revoke_hook(self: &Arc<Self>, actor: &Actor, reason: &str, hook: HookName) -> Result<(), Error> {
        authorize_hook(actor, reason)?;
        let edit = Edit::Revoke { hook, actor: actor.clone(), reason: reason.to_owned() };
        self.edit(Urgency::Normal, edit).await.map(drop)
    }

    /// By flag and id; of one flag when it is named.
    pub async fn hooks(&self, environment: &str, flag: Option<&str>) -> Result<Vec<ListedHook>, Error> {
        let range = match flag {
            Some(flag) => {
                self.get(environment, &ItemName::flag(flag))?;
                stored::hooks(environment, flag)
            }
            None => {
                self.shared(environment).ok_or_else(|| self.unknown_environment(environment))?;
                stored::all_hooks(environment)
            }
        };
        let mut hooks = Vec::new();
        scan(self.store.view().await?.as_ref(), range, |entry| {
            let flag = stored::flag_of_hook(&entry.key).to_owned();
            hooks.push(ListedHook { flag, hook: Hook::decode(entry.value)? });
            Ok(())
        })
        .await?;
        Ok(hooks)
    }

    pub async fn hook(&self, name: &HookName) -> Result<Option<Hook>, Error> {
        Ok(hook(self.store.view().await?.as_ref(), name).await?)
    }

    /// Carries out what alerts ask for. Dropping the future does not stop it.
    pub async fn alert(self: &Arc<Self>, hook: HookName, alerts: Vec<Alert>) -> Result<Alerted, Error> {
        // What is only a repetition does not wait for a turn, and holds up nobody.
        let view = self.store.view().await?;
        let (_, verdicts) = self.judge(view.as_ref(), &hook, &alerts).await?;
        match verdicts.iter().any(|verdict| verdict.is_acted_on()) {
            true => self.edit(Urgency::Urgent, Edit::Alert { hook, alerts }).await,
            false => Ok(Alerted { verdicts, killed_at: None }),
        }
    }

    pub(super) async fn edit(self: &Arc<Self>, urgency: Urgency, edit: Edit) -> Result<Alerted, Error> {
        let ledger = Arc::clone(self);
        let edited = tokio::spawn(async move {
            let _turn = ledger.turns.take(urgency).await;
            ledger.carry_out_edit(&edit).await
        });
        edited.await.map_err(|problem| Error::Aborted { problem: problem.to_string() })?
    }

    /// The caller has the turn.
    async fn carry_out_edit(self: &Arc<Self>, edit: &Edit) -> Result<Alerted, Error> {
        for _ in 0..ATTEMPTS {
            if self.tail.lock().is_doubtful {
                self.refresh().await?;
            }
            let tail = *self.tail.lock();
            let view = self.store.view().await?;
            if view.version() != tail.version {
                self.tail.lock().is_doubtful = true;
                continue;
            }
            let Step { write, verdicts } = self.step(view.as_ref(), edit).await?;
            let Some(write) = write else { return Ok(Alerted { verdicts, killed_at: None }) };
            match self.write(tail, write).await {
                Ok(killed_at) => return Ok(Alerted { verdicts, killed_at }),
                Err(store::Error::Conflict { .. }) => self.tail.lock().is_doubtful = true,
                Err(problem @ store::Error::Unavailable { .. }) => {
                    self.tail.lock().is_doubtful = true;
                    self.settle_later();
                    return Err(problem.into());
                }
                Err(other) => return Err(other.into()),
            }
        }
        let problem = format!("other control planes were faster {ATTEMPTS} times");
        Err(store::Error::Unavailable { problem }.into())
    }

    /// Commits, and publishes what was a kill.
    async fn write(&self, tail: Tail, write: Write) -> Result<Option<Position>, store::Error> {
        let Write { environment, actor, reason, what, batch: edits } = write;
        match what {
            What::Kill(draft) => {
                let (_, change) = self.seal(&draft, &actor, &reason);
                let record = tail.chain.append(audit_draft(&draft, &change, &actor, &reason));
                let mut whole = batch(&tail, &environment, None, self.floor(&draft), &change, &record);
                whole.edits.extend(edits.edits);
                self.take(tail, whole, &record).await?;
                Ok(Some(self.publish(&environment, None, change).position))
            }
            What::Note { flag, action, detail } => {
                let (position, at_us, hash) = self.stand_of(&environment, &flag);
                let changes = vec![audit::Touched { item: flag, before: hash, after: hash }];
                let actor = actor.name;
                let record = tail.chain.append(audit::Draft { at_us, actor, action, environment, position, reason, detail, changes });
                let mut whole = edits;
                write_record(&mut whole, &record);
                self.take(tail, whole, &record).await?;
                Ok(None)
            }
        }
    }

    async fn take(&self, tail: Tail, batch: Batch, record: &Record) -> Result<(), store::Error> {
        let version = self.store.commit(tail.version, batch).await?;
        *self.tail.lock() = Tail { version, chain: record.head(), is_doubtful: false };
        Ok(())
    }

    /// Where a record stands that has no revision of its own, when, and beside which definition.
    fn stand_of(&self, environment: &str, flag: &ItemName) -> (Position, i64, Option<Hash>) {
        let look = |state: &Environment| (state.head, state.definition(flag).map(|definition| sha256(definition)));
        let (head, hash) = self.read(environment, look).unwrap_or_default();
        (head.position, self.clock.now_us().max(head.origin_time_us), hash)
    }

    async fn step(&self, view: &dyn View, edit: &Edit) -> Result<Step, Error> {
        match edit {
            Edit::Note(Noted { environment, flag, actor, reason, action, detail }) => {
                let what = What::Note { flag: flag.clone(), action: *action, detail: detail.clone() };
                let (environment, actor, reason) = (environment.clone(), actor.clone(), reason.clone());
                let write = Write { environment, actor, reason, what, batch: Batch::default() };
                Ok(Step { write: Some(write), verdicts: Vec::new() })
            }
            Edit::Create { hook, actor, reason } => self.create(view, hook, actor, reason).await,
            Edit::Revoke { hook: name, actor, reason } => {
                self.known(view, name).await?;
                let mut batch = Batch::default();
                batch.delete(key(name));
                Ok(Step::note(name, actor.clone(), reason.clone(), Action::RevokeHook, format!("hook {}", name.id), batch))
            }
            Edit::Alert { hook: name, alerts } => {
                let (mut hook, verdicts) = self.judge(view, name, alerts).await?;
                let mut acted_on = alerts.iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_acted_on()).map(|(alert, _)| alert);
                let further = acted_on.clone().count().saturating_sub(1);
                hook.seen = remember(&hook, acted_on.clone().map(Alert::identity), self.clock.now_us());
                let Some(first) = acted_on.next() else { return Ok(Step { write: None, verdicts }) };
                let mut batch = Batch::default();
                batch.put(key(name), hook.encode());
                let (actor, reason, detail) = (Actor::new(format!("hook:{}", name.id)), first.reason(), first.evidence(&name.id, further));
                if !verdicts.contains(&Verdict::Killed) {
                    return Ok(Step { verdicts, ..Step::note(name, actor, reason, Action::NoteAlert, detail, batch) });
                }
                let environment = name.environment.clone();
                let drafted = self.read(&environment, |state| draft::kill(state, &environment, &name.flag));
                let draft = drafted.ok_or_else(|| self.unknown_environment(&environment))??;
                let what = What::Kill(Draft { detail, ..draft });
                Ok(Step { write: Some(Write { environment, actor, reason, what, batch }), verdicts })
            }
        }
    }

    async fn create(&self, view: &dyn View, new: &NewHook, actor: &Actor, reason: &str) -> Result<Step, Error> {
        let NewHook { name, token, max_age } = new;
        self.get(&name.environment, &ItemName::flag(&name.flag))?;
        let there = view.range(stored::hooks(&name.environment, &name.flag), Order::Ascending, FLAG_HOOKS).await?.len();
        if there >= FLAG_HOOKS {
            let problem = format!("flag {} has {there} hooks, which is the most that a flag may have; revoke one", name.flag);
            return Err(Error::Malformed { field: "key", problem });
        }
        let hook = Hook {
            id: name.id.clone(),
            token: *token,
            max_age_us: i64::try_from(max_age.as_micros()).unwrap_or(i64::MAX),
            created_us: self.clock.now_us(),
            actor: actor.name.clone(),
            reason: reason.to_owned(),
            seen: Vec::new(),
        };
        let mut batch = Batch::default();
        batch.put(key(name), hook.encode());
        Ok(Step::note(name, actor.clone(), reason.to_owned(), Action::CreateHook, format!("hook {}", name.id), batch))
    }

    async fn judge(&self, view: &dyn View, name: &HookName, alerts: &[Alert]) -> Result<(Hook, Vec<Verdict>), Error> {
        let hook = self.known(view, name).await?;
        let restored_us = restored_us(view, name).await?;
        let is_killed = self.read(&name.environment, |state| state.kills.contains_key(&name.flag)).unwrap_or_default();
        let verdicts = judge(alerts, Situation { hook: &hook, is_killed, restored_us, now_us: self.clock.now_us() });
        Ok((hook, verdicts))
    }

    async fn known(&self, view: &dyn View, name: &HookName) -> Result<Hook, Error> {
        let HookName { environment, flag, id } = name;
        let unknown = || Error::UnknownHook { environment: environment.clone(), flag: flag.clone(), id: id.clone() };
        hook(view, name).await?.ok_or_else(unknown)
    }
}

impl Step {
    fn note(name: &HookName, actor: Actor, reason: String, action: Action, detail: String, batch: Batch) -> Self {
        let (environment, flag) = (name.environment.clone(), ItemName::flag(&name.flag));
        let write = Write { environment, actor, reason, what: What::Note { flag, action, detail }, batch };
        Self { write: Some(write), verdicts: Vec::new() }
    }
}

fn key(HookName { environment, flag, id }: &HookName) -> String {
    stored::hook(environment, flag, id)
}

/// Names come from a URL: what is no key names nothing.
async fn hook(view: &dyn View, name: &HookName) -> Result<Option<Hook>, store::Error> {
    if ![&name.environment, &name.flag, &name.id].into_iter().all(|part| limits::is_key(part)) {
        return Ok(None);
    }
    view.get(&key(name)).await?.map(Hook::decode).transpose()
}

async fn restored_us(view: &dyn View, HookName { environment, flag, .. }: &HookName) -> Result<Option<i64>, store::Error> {
    let Some(text) = view.get(&stored::restored(environment, flag)).await? else { return Ok(None) };
    let time = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
    time.map(Some).ok_or_else(|| store::Error::corrupt(format!("the time at which flag {flag} was restored is none")))
}

/// A hook outlives whoever made it, so it says why it is there.
fn authorize_hook(actor: &Actor, reason: &str) -> Result<(), Error> {
    authorize_actor(actor, reason)?;
    match reason.trim().is_empty() {
        true => Err(Error::Malformed { field: "intent.reason", problem: "is empty, expected why the hook is made or revoked".to_owned() }),
        false => Ok(()),
    }
}
