//! From the store into memory: at the start, and whenever the store may hold more than the memory does.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::environment::Environment;
use super::error::Error;
use super::log::{Entry, Log};
use super::plan::Definition;
use super::{Ledger, Shared, Tail};
use crate::control::audit::ChainHead;
use crate::control::store::{self, View, scan};
use crate::control::stored::{self, HeadRecord, LogRecord, decode_item, decode_kill, decode_rollout};
use crate::flag::{Digest, Item, ItemKind, ItemName, Kill, Segments};

impl Ledger {
    /// Takes over what others committed. The caller has the turn, or nobody else knows the ledger yet.
    pub(super) async fn refresh(&self) -> Result<(), Error> {
        let view = self.store.view().await?;
        let chain = check(view.as_ref()).await?;
        let heads = heads(view.as_ref()).await?;
        for (name, record) in &heads {
            let is_known = self.read(name, |state| state.head == record.head).unwrap_or(false);
            if !is_known {
                self.install(name, load(view.as_ref(), name, record).await?);
            }
        }
        self.environments.write().retain(|name, _| heads.contains_key(name));
        *self.tail.lock() = Tail { version: view.version(), chain, is_doubtful: false };
        Ok(())
    }

    /// Puts an environment in the place of what was known of it, and tells its followers.
    pub(super) fn install(&self, name: &str, environment: Environment) {
        let head = environment.head;
        match self.shared(name) {
            Some(shared) => {
                *shared.state.write() = environment;
                shared.head.send_replace(head);
            }
            None => {
                let shared = Shared { state: RwLock::new(environment), head: watch::Sender::new(head) };
                self.environments.write().insert(name.to_owned(), Arc::new(shared));
            }
        }
    }
}

/// That the store is one of ours, and where its audit chain ends.
pub(super) async fn check(view: &dyn View) -> Result<ChainHead, Error> {
    if view.version() == 0 {
        return Ok(ChainHead::NONE);
    }
    match view.get(stored::FORMAT).await? {
        Some(format) if format == stored::FORMAT_NOW => {}
        Some(format) => {
            let (found, expected) = (String::from_utf8_lossy(&format), stored::FORMAT_NOW);
            return Err(
                store::Error::corrupt(format!("its layout is number {found}, this version of yardarm reads number {expected}")).into()
            );
        }
        None => return Err(store::Error::corrupt("it does not say which layout it has").into()),
    }
    match view.get(stored::AUDIT_HEAD).await? {
        Some(head) => Ok(ChainHead::decode(&head)?),
        None => Err(store::Error::corrupt("it does not say where its audit chain ends").into()),
    }
}

pub(super) async fn heads(view: &dyn View) -> Result<BTreeMap<String, HeadRecord>, store::Error> {
    let mut heads = BTreeMap::new();
    scan(view, stored::environments(), |entry| {
        heads.insert(stored::last_part(&entry.key).to_owned(), HeadRecord::decode(&entry.value)?);
        Ok(())
    })
    .await?;
    Ok(heads)
}

pub(super) async fn load(view: &dyn View, name: &str, record: &HeadRecord) -> Result<Environment, store::Error> {
    let mut items = BTreeMap::new();
    for kind in [ItemKind::Segment, ItemKind::Flag] {
        scan(view, stored::items(name, kind), |entry| {
            let name = ItemName { kind, key: stored::last_part(&entry.key).to_owned() };
            items.insert(name.clone(), Arc::new(decode_item(name, &entry.value)?));
            Ok(())
        })
        .await?;
    }
    let mut kills = BTreeMap::new();
    scan(view, stored::kills(name), |entry| {
        let kill = decode_kill(&entry.value)?;
        kills.insert(kill.flag_key.clone(), kill);
        Ok(())
    })
    .await?;
    let mut rollouts = BTreeMap::new();
    scan(view, stored::rollouts(name), |entry| {
        rollouts.insert(stored::last_part(&entry.key).to_owned(), decode_rollout(&entry.value)?);
        Ok(())
    })
    .await?;
    let log = load_log(view, name, record).await?;
    check_digest(name, record, &items, &kills)?;
    let (name, head) = (name.to_owned(), record.head);
    let index = spawn_blocking(move || index(&name, items)).await;
    let indexed = index.map_err(|problem| store::Error::Unavailable { problem: format!("reading the definitions: {problem}") })?;
    Ok(Environment { head, kills, rollouts, log, ..indexed })
}

async fn load_log(view: &dyn View, name: &str, record: &HeadRecord) -> Result<Log, store::Error> {
    let mut log = Log::after(record.floor);
    scan(view, stored::logs(name), |entry| {
        let next = log.newest() + 1;
        match stored::number(&entry.key) {
            // A commit deletes what is below the floor that it sets.
            Some(revision) if revision == next => log.push(Entry::from(LogRecord::decode(&entry.value)?)),
            _ => return Err(store::Error::corrupt(format!("change log of `{name}`: found {}, expected revision {next}", entry.key))),
        }
        Ok(())
    })
    .await?;
    let (found, expected) = (log.newest(), record.head.position.revision);
    if found != expected {
        return Err(store::Error::corrupt(format!("change log of `{name}`: it ends at revision {found}, expected {expected}")));
    }
    Ok(log)
}

fn check_digest(
    name: &str,
    record: &HeadRecord,
    items: &BTreeMap<ItemName, Arc<Item>>,
    kills: &BTreeMap<String, Kill>,
) -> Result<(), store::Error> {
    let (found, expected) = (Digest::of(items.values().map(Arc::as_ref), kills.values()), record.head.digest);
    if found == expected {
        return Ok(());
    }
    let position = record.head.position;
    Err(store::Error::corrupt(format!("`{name}` at {position}: the digest of what it holds is {found}, expected {expected}")))
}

/// Who refers to whom. A definition that this version cannot read is kept and served as it is; it can be replaced, deleted and killed.
fn index(environment: &str, items: BTreeMap<ItemName, Arc<Item>>) -> Environment {
    let mut indexed = Environment::empty(0);
    let mut segments = BTreeMap::new();
    for item in items.values() {
        indexed.totals.add(item.name.kind, item.definition.len());
        match Definition::parse(&item.name, &item.definition) {
            Ok(definition) => {
                indexed.links.set(&item.name, definition.refers_to());
                segments.extend(definition.as_segment().map(|segment| (item.name.key.clone(), segment.clone())));
            }
            Err(problems) => tracing::error!(environment, item = %item.name, %problems, "a stored definition cannot be read"),
        }
    }
    let (compiled, problems) = Segments::compile(segments.iter().map(|(key, segment)| (key.as_str(), segment)));
    if !problems.is_empty() {
        tracing::error!(environment, %problems, "stored segments cannot be compiled");
    }
    Environment { items, segments: compiled, ..indexed }
}
