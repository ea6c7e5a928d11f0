//! What was: versions of items, the audit log, and whether it is intact.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::command::ItemChange;
use super::environment::Environment;
use super::error::Error;
use super::plan::Definition;
use super::{Found, Ledger, found, unknown_item};
use crate::control::audit::{self, Action, Record, Verdict, Verifier, sha256};
use crate::control::store::{self, Order, View};
use crate::control::stored::{self, Version};
use crate::flag::{Item, ItemKind, ItemName, Position, Revision};

/// One change of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    pub revision: Revision,
    /// Unix time, microseconds.
    pub at_us: i64,
    pub actor: String,
    pub action: Action,
    pub reason: String,
    pub before: Option<Bytes>,
    pub after: Option<Bytes>,
}

/// A flag with everything that its decisions depend on, at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    pub position: Position,
    pub flag: Found,
    /// Segments that it or its prerequisites read, directly or not.
    pub segments: Vec<Item>,
    /// Flags that it has as prerequisites, directly or not.
    pub prerequisites: Vec<Found>,
}

/// Versions that are read at once when a change is looked for.
const PAGE: usize = 64;

impl Ledger {
    /// An item as it was at a revision.
    pub async fn get_at(&self, environment: &str, item: &ItemName, revision: Revision) -> Result<Item, Error> {
        let newest = self.read(environment, |state| state.head.position.revision).ok_or_else(|| self.unknown_environment(environment))?;
        if revision > newest {
            return Err(self.no_such_revision(environment, item, revision));
        }
        let view = self.store.view().await?;
        let mut range = stored::versions(environment, item);
        range.to = stored::version(environment, item, revision.saturating_add(1));
        let Some(newest) = view.range(range, Order::Descending, 1).await?.pop() else {
            let is_known = self.read(environment, |state| state.items.contains_key(item)).unwrap_or(false);
            return Err(match is_known {
                true => self.no_such_revision(environment, item, revision),
                false => self
                    .read(environment, |state| unknown_item(environment, state, item))
                    .unwrap_or_else(|| self.unknown_environment(environment)),
            });
        };
        let Some(after) = Version::decode(newest.value)?.after else {
            return Err(self.no_such_revision(environment, item, revision));
        };
        match definition(view.as_ref(), environment, item, after).await? {
            Some(definition) => Ok(Item { name: item.clone(), revision: after, definition }),
            None => Err(self.no_such_revision(environment, item, revision)),
        }
    }

    /// A flag as it is, or as it was at a revision, with all that it refers to.
    pub async fn replay(&self, environment: &str, flag: &str, at: Option<Revision>) -> Result<Replay, Error> {
        match at {
            None => {
                let replay = self.read(environment, |state| replay_now(environment, state, flag));
                replay.ok_or_else(|| self.unknown_environment(environment))?
            }
            Some(at) => self.replay_at(environment, flag, at).await,
        }
    }

    async fn replay_at(&self, environment: &str, flag: &str, revision: Revision) -> Result<Replay, Error> {
        let name = ItemName::flag(flag);
        let item = self.get_at(environment, &name, revision).await?;
        let epoch = self.read(environment, |state| state.head.position.epoch).unwrap_or_default();
        let mut open = Definition::parse(&name, &item.definition)?.refers_to();
        let (mut seen, mut segments, mut prerequisites) = (BTreeSet::from([name]), Vec::new(), Vec::new());
        while let Some(name) = open.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let item = self.get_at(environment, &name, revision).await?;
            open.extend(Definition::parse(&name, &item.definition)?.refers_to());
            match name.kind {
                ItemKind::Segment => segments.push(item),
                ItemKind::Flag => prerequisites.push(Found { item, kill: None }),
            }
        }
        segments.sort_by(|one, other| one.name.cmp(&other.name));
        prerequisites.sort_by(|one, other| one.item.name.cmp(&other.item.name));
        Ok(Replay { position: Position { epoch, revision }, flag: Found { item, kill: None }, segments, prerequisites })
    }

    /// Changes of one item, newest first; also of one that is no more.
    pub async fn history(&self, environment: &str, item: &ItemName, limit: usize) -> Result<Vec<HistoryEntry>, Error> {
        let is_known = self.read(environment, |state| state.items.contains_key(item));
        let is_known = is_known.ok_or_else(|| self.unknown_environment(environment))?;
        let view = self.store.view().await?;
        let mut entries = Vec::new();
        for entry in view.range(stored::versions(environment, item), Order::Descending, limit).await? {
            let revision = stored::number(&entry.key).unwrap_or_default();
            let Version { at_us, actor, action, reason, before, after, definition: own, .. } = Version::decode(entry.value)?;
            let before = match before {
                Some(before) => definition(view.as_ref(), environment, item, before).await?,
                None => None,
            };
            let after = match (own, after) {
                (Some(own), _) => Some(own),
                // Only the kill changed.
                (None, Some(_)) => before.clone(),
                (None, None) => None,
            };
            entries.push(HistoryEntry { revision, at_us, actor, action, reason, before, after });
        }
        match (is_known, entries.is_empty()) {
            (false, true) => {
                let unknown = self.read(environment, |state| unknown_item(environment, state, item));
                Err(unknown.unwrap_or_else(|| self.unknown_environment(environment)))
            }
            _ => Ok(entries),
        }
    }

    /// Refuses a name that no environment has or ever had: one that a restored backup did not have is gone, and its records are there.
    pub async fn ensure_known(&self, environment: &str) -> Result<(), Error> {
        if self.shared(environment).is_some() || !self.audit(None, 1, |record| record.environment == environment).await?.is_empty() {
            return Ok(());
        }
        Err(self.unknown_environment(environment))
    }

    /// Audit records before `before_seq`, newest first, that `select` takes.
    pub async fn audit(
        &self,
        before_seq: Option<u64>,
        limit: usize,
        select: impl Fn(&Record) -> bool + Send + Sync,
    ) -> Result<Vec<Record>, Error> {
        let view = self.store.view().await?;
        let mut range = stored::audits();
        if let Some(before) = before_seq {
            range.to = stored::audit(before);
        }
        let mut records = Vec::new();
        loop {
            let page = view.range(range.clone(), Order::Descending, PAGE).await?;
            let Some(oldest) = page.last() else { return Ok(records) };
            range.to = oldest.key.clone();
            for entry in page {
                let record = Record::decode(&entry.value)?;
                if select(&record) {
                    records.push(record);
                }
                if records.len() >= limit {
                    return Ok(records);
                }
            }
        }
    }

    /// What a record changed, with the definitions before and after as far as they are still kept. Where they are more than `most` bytes
    /// together there are none at all.
    pub async fn item_changes(&self, record: &Record, most: usize) -> Result<Vec<ItemChange>, Error> {
        let view = self.store.view().await?;
        let (mut changes, mut bytes) = (Vec::new(), 0);
        for touched in &record.changes {
            let item = touched.item.clone();
            let (before, after) = match bytes > most {
                true => (None, None),
                false => definitions_of(view.as_ref(), record, &item).await?,
            };
            bytes += before.as_ref().map_or(0, Bytes::len) + after.as_ref().map_or(0, Bytes::len);
            changes.push(ItemChange { item, before, after });
        }
        if bytes > most {
            changes.iter_mut().for_each(|change| (change.before, change.after) = (None, None));
        }
        Ok(changes)
    }

    /// Walks along the whole audit chain, and compares the definitions that the records name with those that are kept.
    pub async fn verify_audit(&self) -> Result<Verdict, Error> {
        let view = self.store.view().await?;
        Ok(verify(view.as_ref()).await?)
    }

    fn no_such_revision(&self, environment: &str, item: &ItemName, revision: Revision) -> Error {
        Error::UnknownRevision { environment: environment.to_owned(), item: item.clone(), revision }
    }
}

fn replay_now(environment: &str, state: &Environment, flag: &str) -> Result<Replay, Error> {
    let name = ItemName::flag(flag);
    let found_flag = found(state, &name).ok_or_else(|| unknown_item(environment, state, &name))?;
    let (mut segments, mut prerequisites) = (Vec::new(), Vec::new());
    for used in state.links.closure([name.clone()]).into_iter().filter(|used| *used != name).filter_map(|used| found(state, &used)) {
        match used.item.name.kind {
            ItemKind::Segment => segments.push(used.item),
            ItemKind::Flag => prerequisites.push(used),
        }
    }
    Ok(Replay { position: state.head.position, flag: found_flag, segments, prerequisites })
}

pub(super) async fn verify(view: &dyn View) -> Result<Verdict, store::Error> {
    let expected = match view.get(stored::AUDIT_HEAD).await? {
        Some(head) => audit::ChainHead::decode(&head)?,
        None => audit::ChainHead::NONE,
    };
    let mut verifier = Verifier::default();
    let mut rest = stored::audits();
    while !verifier.is_broken() {
        let page = view.range(rest.clone(), Order::Ascending, PAGE).await?;
        let Some(last) = page.last() else { break };
        rest = rest.after(&last.key);
        for entry in page {
            let Some(record) = verifier.next(&entry.value) else { break };
            if let Some(problem) = altered_definition(view, &record).await? {
                verifier.breaks_at(record.seq, problem);
            }
        }
    }
    Ok(verifier.finish(expected))
}

/// A definition that is kept under this record and is not the one that it names.
async fn altered_definition(view: &dyn View, record: &Record) -> Result<Option<String>, store::Error> {
    for touched in &record.changes {
        let version = match version_of(view, record, &touched.item).await {
            Ok(version) => version,
            Err(store::Error::Corrupt { problem }) => return Ok(Some(format!("{}: {problem}", touched.item))),
            Err(other) => return Err(other),
        };
        let Some(Version { definition: Some(definition), .. }) = version else { continue };
        if Some(sha256(&definition)) != touched.after {
            return Ok(Some(format!("the kept definition of {} at {} was altered", touched.item, record.position)));
        }
    }
    Ok(None)
}

async fn definitions_of(view: &dyn View, record: &Record, item: &ItemName) -> Result<(Option<Bytes>, Option<Bytes>), store::Error> {
    let Some(version) = version_of(view, record, item).await? else { return Ok((None, None)) };
    let mut found = [None, None];
    for (found, at) in found.iter_mut().zip([version.before, version.after]) {
        if let Some(at) = at {
            *found = definition(view, &record.environment, item, at).await?;
        }
    }
    let [before, after] = found;
    Ok((before, after))
}

/// The version that was written with this record. None when the environment was replaced since.
async fn version_of(view: &dyn View, record: &Record, item: &ItemName) -> Result<Option<Version>, store::Error> {
    let stored = view.get(&stored::version(&record.environment, item, record.position.revision)).await?;
    let version = stored.map(Version::decode).transpose()?;
    Ok(version.filter(|version| version.seq == record.seq))
}

async fn definition(view: &dyn View, environment: &str, item: &ItemName, at: Revision) -> Result<Option<Bytes>, store::Error> {
    let stored = view.get(&stored::version(environment, item, at)).await?;
    Ok(stored.map(Version::decode).transpose()?.and_then(|version| version.definition))
}
