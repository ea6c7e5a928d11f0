//! Backup and restore of everything that the ledger holds.
//!
//! A restore is a change like any other: it is audited, committed in one transaction and published after it. What it does not do is to
//! take anybody back in time unnoticed:
//! - each environment gets a new epoch, so that every sidecar takes a snapshot, and a revision above all that were ever given to it;
//! - a kill that stands is kept when the backup has the flag: whoever stopped something did not ask for it to come back;
//! - the audit chain of the store goes on, and its new records name the newest record of the backup's chain. Only a store in which
//!   nothing was ever written but empty environments, or whose chain is the beginning of the backup's, takes over the backup's chain.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::authorize::authorize_actor;
use super::command::Actor;
use super::commit::{audit_draft, mint_epoch, write_change, write_record};
use super::environment::Environment;
use super::error::Error;
use super::history::verify;
use super::load::{check, heads, load};
use super::log::Log;
use super::plan::{Draft, KillEdit, RolloutEdit, Upsert};
use super::turn::Urgency;
use super::{Ledger, Tail};
use crate::control::audit::{Action, ChainHead, Record};
use crate::control::backup::{Reader, Writer};
use crate::control::hex;
use crate::control::store::{self, Batch, Entry, Memory, Order, Range, Store as _, View};
use crate::control::stored::{self, Version};
use crate::flag::{Item, ItemKind, ItemName, Kill, Position};

/// What a restore did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Of every environment.
    pub epoch: u64,
    pub environments: usize,
    /// Entries of the backup.
    pub records: usize,
    /// Kills that stood and are not in the backup.
    pub kills_kept: usize,
}

/// Bytes that are sent at once, about.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNKS_AHEAD: usize = 4;
const PAGE: usize = 256;

/// A backup that has proved to be whole and sound.
struct Backup {
    view: Arc<dyn View>,
    entries: Vec<Entry>,
    environments: BTreeMap<String, Environment>,
    chain: ChainHead,
}

/// An environment as the restore leaves it.
struct Outcome {
    name: String,
    environment: Environment,
    draft: Draft,
    /// Entries of the backup that replace what the store has of the environment.
    is_imported: bool,
}

impl Ledger {
    /// Everything that the store holds now, as [`crate::control::backup`] spells it.
    pub async fn backup(&self) -> Result<impl Stream<Item = Result<Bytes, Error>> + use<>, Error> {
        let view = self.store.view().await?;
        let (chunks, stream) = mpsc::channel(CHUNKS_AHEAD);
        tokio::spawn(async move {
            if let Err(problem) = write(view.as_ref(), &chunks).await {
                // Nobody listens any more when this fails.
                let _ = chunks.send(Err(problem.into())).await;
            }
        });
        Ok(ReceiverStream::new(stream))
    }

    /// Replaces everything by a backup. Dropping the future does not stop it.
    pub async fn restore_backup(self: &Arc<Self>, actor: &Actor, reason: &str, backup: Reader) -> Result<Restored, Error> {
        authorize_actor(actor, reason)?;
        let backup = Backup::read(backup).await.map_err(|problem| Error::BadBackup { problem })?;
        let (ledger, actor, reason) = (Arc::clone(self), actor.clone(), reason.to_owned());
        let restored = tokio::spawn(async move {
            let _turn = ledger.turns.take(Urgency::Normal).await;
            ledger.replace(&actor, &reason, backup).await
        });
        restored.await.map_err(|problem| Error::Aborted { problem: problem.to_string() })?
    }

    async fn replace(self: &Arc<Self>, actor: &Actor, reason: &str, backup: Backup) -> Result<Restored, Error> {
        if self.tail.lock().is_doubtful {
            self.refresh().await?;
        }
        let tail = *self.tail.lock();
        let live: BTreeMap<String, Environment> =
            self.environments.read().iter().map(|(name, shared)| (name.clone(), shared.state.read().clone())).collect();
        let adopts = is_untouched(&live, tail.chain) || backup.continues(tail.chain).await?;
        let previous = live.values().chain(backup.environments.values()).map(|state| state.head.position.epoch as u32).max();
        let epoch = mint_epoch(u64::from(previous.unwrap_or_default()));
        let records = backup.entries.len();
        let detail = format!("backup with audit record {} {}", backup.chain.seq, hex::encode(&backup.chain.hash));

        let mut batch = Batch::default();
        batch.put(stored::FORMAT, stored::FORMAT_NOW);
        let mut chain = tail.chain;
        if adopts {
            batch.delete_range(stored::audits());
            backup.copy(&stored::audits(), &mut batch);
            chain = backup.chain;
            batch.put(stored::AUDIT_HEAD, chain.encode());
        }
        let outcomes: Vec<Outcome> =
            backup.environments.iter().map(|(name, state)| outcome(name, state, live.get(name), adopts, epoch, &detail)).collect();
        let gone = live.iter().filter(|(name, _)| !backup.environments.contains_key(*name));
        for (name, state) in gone {
            let draft =
                Draft { removed: state.items.keys().cloned().collect(), detail: detail.clone(), ..Draft::of(name, Action::RestoreBackup) };
            let change = state.seal(&draft, &actor.name, reason, self.clock.now_us(), self.retention);
            let record = chain.append(audit_draft(&draft, &change, actor, reason));
            batch.delete(stored::environment(name));
            batch.delete_range(stored::content(name));
            write_record(&mut batch, &record);
            chain = record.head();
        }
        let mut installed = Vec::new();
        for Outcome { name, mut environment, draft, is_imported } in outcomes {
            if is_imported {
                batch.delete_range(stored::content(&name));
                backup.copy_content(&name, adopts, &mut batch)?;
            }
            batch.delete_range(stored::logs(&name));
            let change = environment.seal(&draft, &actor.name, reason, self.clock.now_us(), self.retention);
            let record = chain.append(audit_draft(&draft, &change, actor, reason));
            write_change(&mut batch, &name, environment.log.floor(), &change, &record);
            write_record(&mut batch, &record);
            chain = record.head();
            environment.apply(change);
            installed.push((name, environment));
        }
        match self.store.commit(tail.version, batch).await {
            Ok(version) => *self.tail.lock() = Tail { version, chain, is_doubtful: false },
            Err(problem) => {
                self.tail.lock().is_doubtful = true;
                self.settle_later();
                return Err(problem.into());
            }
        }
        let environments = installed.len();
        let kills_kept = backup.environments.iter().map(|(name, state)| live.get(name).map_or(0, |live| kept(live, state).count())).sum();
        self.environments.write().retain(|name, _| backup.environments.contains_key(name));
        installed.into_iter().for_each(|(name, environment)| self.install(&name, environment));
        Ok(Restored { epoch, environments, records, kills_kept })
    }
}

async fn write(view: &dyn View, chunks: &mpsc::Sender<Result<Bytes, Error>>) -> Result<(), store::Error> {
    let mut writer = Writer::default();
    let mut rest = Range::all();
    loop {
        let page = view.range(rest.clone(), Order::Ascending, PAGE).await?;
        let Some(last) = page.last() else { break };
        rest = rest.after(&last.key);
        for entry in &page {
            writer.push(entry);
            if writer.pending() >= CHUNK_BYTES && chunks.send(Ok(writer.take())).await.is_err() {
                return Ok(());
            }
        }
    }
    // Nobody listens any more when this fails.
    let _ = chunks.send(Ok(writer.finish())).await;
    Ok(())
}

impl Backup {
    /// Reads it as if it were the store: whatever the ledger could not start from is refused.
    async fn read(reader: Reader) -> Result<Self, String> {
        let entries = tokio::task::spawn_blocking(|| reader.finish()).await.map_err(|problem| problem.to_string())??;
        let said = |problem: Error| problem.to_string();
        let view = Memory::holding(&entries).view().await.map_err(|problem| said(problem.into()))?;
        let chain = check(view.as_ref()).await.map_err(said)?;
        let mut environments = BTreeMap::new();
        for (name, record) in heads(view.as_ref()).await.map_err(|problem| said(problem.into()))? {
            let environment = load(view.as_ref(), &name, &record).await.map_err(|problem| said(problem.into()))?;
            environments.insert(name, environment);
        }
        if let Some(stray) = entries.iter().find(|entry| !stored::is_ours(&entry.key, |name| environments.contains_key(name))) {
            return Err(format!("it has an entry {:?} that belongs to nothing", stray.key));
        }
        let verdict = verify(view.as_ref()).await.map_err(|problem| said(problem.into()))?;
        match verdict.broken {
            Some(broken) => Err(format!("its audit record {} {}", broken.seq, broken.problem)),
            None => Ok(Self { view, entries, environments, chain }),
        }
    }

    /// Whether `chain` is the beginning of the backup's.
    async fn continues(&self, chain: ChainHead) -> Result<bool, store::Error> {
        let Some(record) = self.view.get(&stored::audit(chain.seq)).await? else { return Ok(false) };
        Ok(Record::decode(&record)?.head() == chain)
    }

    fn copy(&self, range: &Range, batch: &mut Batch) {
        let entries = self.entries.iter().filter(|entry| range.contains(&entry.key));
        entries.for_each(|entry| batch.put(entry.key.clone(), entry.value.clone()));
    }

    /// Versions whose records stay behind must not pass for versions of the store's own records. Hooks come only with their chain: one
    /// that was revoked after the backup must not be there again.
    fn copy_content(&self, name: &str, with_chain: bool, batch: &mut Batch) -> Result<(), store::Error> {
        let (content, versions, hooks) = (stored::content(name), stored::all_versions(name), stored::all_hooks(name));
        let is_taken = |key: &str| content.contains(key) && (with_chain || !hooks.contains(key));
        for Entry { key, value } in self.entries.iter().filter(|entry| is_taken(&entry.key)) {
            let value = match versions.contains(key) && !with_chain {
                true => Version { seq: 0, ..Version::decode(value.clone())? }.encode(),
                false => value.clone(),
            };
            batch.put(key.clone(), value);
        }
        Ok(())
    }
}

/// Nothing was ever written but empty environments: one record for each.
fn is_untouched(live: &BTreeMap<String, Environment>, chain: ChainHead) -> bool {
    chain.seq == live.len() as u64 && live.values().all(|state| state.items.is_empty())
}

fn outcome(name: &str, backup: &Environment, live: Option<&Environment>, adopts: bool, epoch: u64, detail: &str) -> Outcome {
    let newest = live.map_or(0, |state| state.head.position.revision).max(backup.head.position.revision);
    let (base, is_imported) = match live {
        Some(live) if !adopts => (live, false),
        _ => (backup, true),
    };
    let mut environment = base.clone();
    environment.head.position = Position { epoch, revision: newest };
    environment.log = Log::after(newest);
    let mut draft = Draft { detail: detail.to_owned(), ..Draft::of(name, Action::RestoreBackup) };
    if is_imported {
        draft.kills = live.into_iter().flat_map(|live| kept(live, backup)).cloned().map(KillEdit::Carry).collect();
        return Outcome { name: name.to_owned(), environment, draft, is_imported };
    }
    let is_changed = |(item, held): &(&ItemName, &Arc<Item>)| base.definition(item) != Some(&held.definition);
    let upsert = |(item, held): (&ItemName, &Arc<Item>)| {
        let (definition, refers_to) = (held.definition.clone(), backup.links.of(item).to_vec());
        Upsert { name: item.clone(), definition, refers_to }
    };
    draft.upserts = backup.items.iter().filter(is_changed).map(upsert).collect();
    draft.removed = base.items.keys().filter(|item| !backup.items.contains_key(*item)).cloned().collect();
    let missing = backup.kills.values().filter(|kill| !base.kills.contains_key(&kill.flag_key));
    draft.kills = missing.cloned().map(KillEdit::Carry).collect();
    // A rollout of a definition that is replaced has to be started anew.
    let replaced =
        draft.upserts.iter().map(|upsert| &upsert.name).chain(&draft.removed).filter(|name| base.rollouts.contains_key(&name.key));
    let ended = |name: &ItemName| RolloutEdit { flag: name.key.clone(), state: None, decision: None };
    draft.rollouts = replaced.filter(|name| name.kind == ItemKind::Flag).map(ended).collect();
    draft.segments = Some(backup.segments.clone());
    Outcome { name: name.to_owned(), environment, draft, is_imported }
}

/// Kills that stand and are not in the backup, of flags that are.
fn kept<'e>(live: &'e Environment, backup: &'e Environment) -> impl Iterator<Item = &'e Kill> {
    let is_flag = |key: &str| backup.items.contains_key(&ItemName::flag(key));
    live.kills.values().filter(move |kill| is_flag(&kill.flag_key) && !backup.kills.contains_key(&kill.flag_key))
}
