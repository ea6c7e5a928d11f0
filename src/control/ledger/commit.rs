//! The write path: a turn, one transaction, and what the world sees after it.

use std::sync::Arc;

use rand::Rng as _;

use super::authorize::authorize;
use super::command::{Actor, Command, Committed};
use super::draft::Request;
use super::environment::{Change, Environment};
use super::error::Error;
use super::plan::{Draft, RolloutEdit};
use super::turn::Urgency;
use super::{Ledger, Tail};
use crate::backoff::Backoff;
use crate::control::audit::{self, Record, sha256};
use crate::control::store::{self, Batch, Range};
use crate::control::stored::{self, HeadRecord, Version, encode_item, encode_kill, encode_rollout};
use crate::flag::{Item, ItemKind, Position};

/// How often a command is decided again because another process changed the store meanwhile.
pub(super) const ATTEMPTS: usize = 16;

impl Ledger {
    /// Carries out a command. When this answers, the change is durable and published. Dropping the future does not stop the command.
    pub async fn commit(self: &Arc<Self>, actor: &Actor, reason: &str, command: Command) -> Result<Committed, Error> {
        authorize(actor, reason, &command)?;
        let request = self.prepare(command, &actor.name, reason).await?;
        let mut draft = self.draft(&request).await;
        // Before an answer that no commit will check: is it true of the store, or only of what this process knows of it? A store that
        // does not answer does not turn the answer into another one.
        if draft.as_ref().map_or(true, Draft::is_nothing) && self.catch_up().await.unwrap_or(false) {
            draft = self.draft(&request).await;
        }
        let draft = draft?;
        if let Some(stands) = stands(&draft) {
            return Ok(stands);
        }
        let (ledger, actor, reason) = (Arc::clone(self), actor.clone(), reason.to_owned());
        // A task of its own: a caller that goes away must not leave a change that is durable and not published.
        let carried_out = tokio::spawn(async move {
            let _turn = ledger.turns.take(request.urgency()).await;
            ledger.carry_out(&actor, &reason, &request, draft).await
        });
        carried_out.await.map_err(|problem| Error::Aborted { problem: problem.to_string() })?
    }

    /// What a command would do now, or every reason for which it would be refused. The position is that of the state that it was compared
    /// with: give its revision as `expect`, and the command does this or nothing.
    pub async fn plan(&self, command: Command) -> Result<Committed, Error> {
        let request = self.prepare(command, "", "").await?;
        loop {
            let draft = self.draft(&request).await?;
            if let Some(planned) = self.on_paper(&draft) {
                return Ok(planned);
            }
        }
    }

    /// `None` when the environment has moved since the draft.
    fn on_paper(&self, draft: &Draft) -> Option<Committed> {
        let seal = |state: &Environment| state.seal(draft, "", "", 0, self.retention).item_changes();
        let (position, changes) = match draft.seen {
            Some(seen) => {
                let changes = self.read(&draft.environment, |state| (state.head.position == seen).then(|| seal(state)))??;
                (seen, changes)
            }
            None => (Position::default(), seal(&Environment::empty(0))),
        };
        Some(Committed { position, changed: !draft.is_nothing(), changes })
    }

    async fn carry_out(self: &Arc<Self>, actor: &Actor, reason: &str, request: &Request, mut draft: Draft) -> Result<Committed, Error> {
        for _ in 0..ATTEMPTS {
            if self.tail.lock().is_doubtful {
                self.refresh().await?;
            }
            if !self.is_current(&draft) {
                draft = self.draft(request).await?;
                if let Some(stands) = stands(&draft) {
                    return Ok(stands);
                }
            }
            let tail = *self.tail.lock();
            let (environment, change) = self.seal(&draft, actor, reason);
            let record = tail.chain.append(audit_draft(&draft, &change, actor, reason));
            let batch = batch(&tail, &draft.environment, environment.as_ref(), self.floor(&draft), &change, &record);
            match self.store.commit(tail.version, batch).await {
                Ok(version) => {
                    *self.tail.lock() = Tail { version, chain: record.head(), is_doubtful: false };
                    return Ok(self.publish(&draft.environment, environment, change));
                }
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

    /// Takes over what another process wrote, and says whether there was anything.
    async fn catch_up(&self) -> Result<bool, Error> {
        if self.store.view().await?.version() == self.tail.lock().version {
            return Ok(false);
        }
        let _turn = self.turns.take(Urgency::Normal).await;
        self.refresh().await?;
        Ok(true)
    }

    /// Whether the draft still fits what is held.
    fn is_current(&self, draft: &Draft) -> bool {
        self.read(&draft.environment, |state| state.head.position) == draft.seen
    }

    /// The new environment, if the draft makes one, and the change.
    pub(super) fn seal(&self, draft: &Draft, actor: &Actor, reason: &str) -> (Option<Environment>, Change) {
        let now_us = self.clock.now_us();
        let seal = |state: &Environment| state.seal(draft, &actor.name, reason, now_us, self.retention);
        match self.shared(&draft.environment) {
            Some(shared) => (None, seal(&shared.state.read())),
            None => {
                let environment = Environment::empty(mint_epoch(0));
                let change = seal(&environment);
                (Some(environment), change)
            }
        }
    }

    pub(super) fn floor(&self, draft: &Draft) -> u64 {
        self.read(&draft.environment, |state| state.log.floor()).unwrap_or_default()
    }

    /// The change is durable: from here on it is seen.
    pub(super) fn publish(&self, name: &str, created: Option<Environment>, change: Change) -> Committed {
        let (head, changes) = (change.head, change.item_changes());
        match (created, self.shared(name)) {
            (None, Some(shared)) => {
                shared.state.write().apply(change);
                shared.head.send_replace(head);
            }
            (created, _) => {
                let mut environment = created.unwrap_or_else(|| Environment::empty(head.position.epoch));
                environment.apply(change);
                self.install(name, environment);
            }
        }
        Committed { position: head.position, changed: true, changes }
    }

    /// Finds out, as soon as the store answers again, whether a commit that ended in an error took effect, and publishes it if so.
    pub(super) fn settle_later(self: &Arc<Self>) {
        let ledger = Arc::clone(self);
        tokio::spawn(async move {
            let mut backoff = Backoff::default();
            loop {
                {
                    let _turn = ledger.turns.take(Urgency::Normal).await;
                    if !ledger.tail.lock().is_doubtful {
                        return;
                    }
                    match ledger.refresh().await {
                        Ok(()) => return,
                        Err(problem) => tracing::warn!(%problem, "the store does not say yet what became of a commit"),
                    }
                }
                let wait = backoff.next(&mut rand::rng());
                tokio::time::sleep(wait).await;
            }
        });
    }
}

/// The answer to a command that has nothing to do.
fn stands(draft: &Draft) -> Option<Committed> {
    let seen = draft.seen.filter(|_| draft.is_nothing())?;
    let position = Position { revision: draft.stands, ..seen };
    Some(Committed { position, changed: false, changes: Vec::new() })
}

/// High half random, so that two histories never share an epoch; low half counting, so that a person sees which is the later one.
pub(super) fn mint_epoch(previous: u64) -> u64 {
    let high: u32 = rand::rng().random_range(1..=u32::MAX);
    u64::from(high) << 32 | u64::from((previous as u32).wrapping_add(1))
}

pub(super) fn audit_draft(draft: &Draft, change: &Change, actor: &Actor, reason: &str) -> audit::Draft {
    let hash = |item: &Option<Arc<Item>>| item.as_ref().map(|item| sha256(&item.definition));
    let touched = change.touched.iter().map(|touched| audit::Touched {
        item: touched.name.clone(),
        before: hash(&touched.before),
        after: hash(&touched.after),
    });
    audit::Draft {
        at_us: change.head.origin_time_us,
        actor: actor.name.clone(),
        action: draft.action,
        environment: draft.environment.clone(),
        position: change.head.position,
        reason: reason.to_owned(),
        detail: draft.detail.clone(),
        changes: touched.collect(),
    }
}

/// The change with everything that belongs to it.
pub(super) fn batch(tail: &Tail, name: &str, created: Option<&Environment>, floor: u64, change: &Change, record: &Record) -> Batch {
    let mut batch = Batch::default();
    if tail.version == 0 {
        batch.put(stored::FORMAT, stored::FORMAT_NOW);
    }
    if created.is_some() {
        // What an environment of that name left behind, long ago, is not its history.
        batch.delete_range(stored::content(name));
    }
    write_change(&mut batch, name, floor, change, record);
    write_record(&mut batch, record);
    batch
}

pub(super) fn write_record(batch: &mut Batch, record: &Record) {
    batch.put(stored::audit(record.seq), record.encode());
    batch.put(stored::AUDIT_HEAD, record.head().encode());
}

pub(super) fn write_change(batch: &mut Batch, name: &str, floor: u64, change: &Change, record: &Record) {
    let revision = change.head.position.revision;
    for item in &change.upserts {
        batch.put(stored::item(name, &item.name), encode_item(item));
    }
    for item in &change.removed {
        batch.delete(stored::item(name, item));
    }
    for kill in &change.kills {
        let key = stored::kill(name, &kill.flag_key);
        match kill.killed {
            true => batch.put(key, encode_kill(kill)),
            false => batch.delete(key),
        }
        if !kill.killed {
            // An alert that began before this does not kill again.
            batch.put(stored::restored(name, &kill.flag_key), change.head.origin_time_us.to_string());
        }
    }
    for flag in change.removed.iter().filter(|item| item.kind == ItemKind::Flag) {
        batch.delete_range(stored::hooks(name, &flag.key));
        batch.delete(stored::restored(name, &flag.key));
    }
    for RolloutEdit { flag, state, decision } in &change.rollouts {
        let key = stored::rollout(name, flag);
        match state {
            Some(state) => batch.put(key, encode_rollout(state)),
            None => batch.delete(key),
        }
        if let Some(decision) = decision {
            batch.put(stored::decision(name, flag, revision), decision.encode());
        }
    }
    for touched in &change.touched {
        let Record { seq, at_us, actor, action, reason, .. } = record;
        let version = Version {
            seq: *seq,
            at_us: *at_us,
            actor: actor.clone(),
            action: *action,
            reason: reason.clone(),
            before: touched.before.as_ref().map(|item| item.revision),
            after: touched.after.as_ref().map(|item| item.revision),
            definition: touched.after.as_ref().filter(|item| item.revision == revision).map(|item| item.definition.clone()),
        };
        batch.put(stored::version(name, &touched.name, revision), version.encode());
    }
    batch.put(stored::log(name, revision), change.log_record().encode());
    if change.floor > floor {
        batch.delete_range(Range { from: stored::log(name, floor + 1), to: stored::log(name, change.floor + 1) });
    }
    batch.put(stored::environment(name), HeadRecord { head: change.head, floor: change.floor }.encode());
}
