//! One environment in memory. A change is sealed first, on paper; it is applied when it is durable.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::command::{Head, ItemChange};
use super::links::Links;
use super::log::{Content, Entry, Log, Retention};
use super::plan::{Draft, KillEdit, RolloutEdit, Upsert};
use crate::control::stored::LogRecord;
use crate::flag::{Digest, Item, ItemKind, ItemName, Kill, Position, Segments};
use crate::rollout::State;

#[derive(Debug, Clone)]
pub(super) struct Environment {
    pub head: Head,
    /// Shared, so that the whole can be copied in a short look.
    pub items: BTreeMap<ItemName, Arc<Item>>,
    /// Those that stand.
    pub kills: BTreeMap<String, Kill>,
    /// Those that were ever started.
    pub rollouts: BTreeMap<String, State>,
    pub log: Log,
    pub links: Links,
    pub segments: Segments,
    pub totals: Totals,
}

/// What the limits of an environment count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub flags: usize,
    pub segments: usize,
    /// Of all definitions.
    pub bytes: usize,
}

/// A draft with its revision: all that will be written and applied.
#[derive(Debug)]
pub(super) struct Change {
    pub head: Head,
    /// Of the log, with this change in it.
    pub floor: u64,
    pub upserts: Vec<Arc<Item>>,
    pub removed: Vec<ItemName>,
    pub kills: Vec<Kill>,
    pub rollouts: Vec<RolloutEdit>,
    /// Each touched item once; with a kill, before and after are the same.
    pub touched: Vec<Touched>,
    pub links: Vec<(ItemName, Vec<ItemName>)>,
    pub segments: Option<Segments>,
}

#[derive(Debug)]
pub(super) struct Touched {
    pub name: ItemName,
    pub before: Option<Arc<Item>>,
    pub after: Option<Arc<Item>>,
}

impl Environment {
    pub(super) fn empty(epoch: u64) -> Self {
        Self {
            head: Head { position: Position { epoch, revision: 0 }, ..Head::default() },
            items: BTreeMap::new(),
            kills: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            log: Log::default(),
            links: Links::default(),
            segments: Segments::default(),
            totals: Totals::default(),
        }
    }

    pub(super) fn kills_newest_first(&self) -> Vec<Kill> {
        let mut kills: Vec<_> = self.kills.values().cloned().collect();
        kills.sort_by_key(|kill| std::cmp::Reverse(kill.revision));
        kills
    }

    pub(super) fn keys(&self, kind: ItemKind) -> impl Iterator<Item = &str> {
        self.items.keys().filter(move |name| name.kind == kind).map(|name| name.key.as_str())
    }

    pub(super) fn definition(&self, name: &ItemName) -> Option<&Bytes> {
        self.items.get(name).map(|item| &item.definition)
    }

    /// Gives a draft, made for this very state, its revision. `actor` and `reason` go into the kills that it sets.
    pub(super) fn seal(&self, draft: &Draft, actor: &str, reason: &str, now_us: i64, retention: Retention) -> Change {
        let revision = self.head.position.revision + 1;
        // A clock that was set back must not make a newer change look older.
        let at_us = now_us.max(self.head.origin_time_us);
        let upserts: Vec<Arc<Item>> = draft
            .upserts
            .iter()
            .map(|Upsert { name, definition, .. }| Arc::new(Item { name: name.clone(), revision, definition: definition.clone() }))
            .collect();
        let by = |flag: &str, killed| Kill {
            flag_key: flag.to_owned(),
            revision,
            killed,
            actor: actor.to_owned(),
            reason: reason.to_owned(),
            at_us,
        };
        let mut kills: Vec<Kill> = draft
            .kills
            .iter()
            .map(|edit| match edit {
                KillEdit::Set(flag) => by(flag, true),
                KillEdit::Lift(flag) => by(flag, false),
                KillEdit::Carry(kill) => Kill { revision, ..kill.clone() },
            })
            .collect();
        // Whoever holds the register of a removed flag has to drop it.
        let orphans = draft.removed.iter().filter(|name| name.kind == ItemKind::Flag && self.kills.contains_key(&name.key));
        kills.extend(orphans.map(|name| by(&name.key, false)));

        let digest = self.digest_after(&upserts, &draft.removed, &kills);
        let touched = self.touched(&upserts, &draft.removed, &kills, &draft.rollouts);
        let head = Head { position: Position { revision, ..self.head.position }, digest, origin_time_us: at_us };
        let mut change = Change {
            head,
            floor: 0,
            upserts,
            removed: draft.removed.clone(),
            kills,
            rollouts: draft.rollouts.clone(),
            touched,
            links: draft.upserts.iter().map(|upsert| (upsert.name.clone(), upsert.refers_to.clone())).collect(),
            segments: draft.segments.clone(),
        };
        change.floor = self.log.floor_with(&change.log_record(), at_us, retention);
        change
    }

    fn digest_after(&self, upserts: &[Arc<Item>], removed: &[ItemName], kills: &[Kill]) -> Digest {
        let mut digest = self.head.digest;
        let replaced = upserts.iter().map(|item| &item.name).chain(removed).filter_map(|name| self.items.get(name));
        replaced.for_each(|item| digest.remove_item(item));
        upserts.iter().for_each(|item| digest.add_item(item));
        kills.iter().filter_map(|kill| self.kills.get(&kill.flag_key)).for_each(|kill| digest.remove_kill(kill));
        kills.iter().for_each(|kill| digest.add_kill(kill));
        digest
    }

    fn touched(&self, upserts: &[Arc<Item>], removed: &[ItemName], kills: &[Kill], rollouts: &[RolloutEdit]) -> Vec<Touched> {
        let mut touched = BTreeMap::new();
        for key in kills.iter().map(|kill| &kill.flag_key).chain(rollouts.iter().map(|edit| &edit.flag)) {
            let name = ItemName::flag(key);
            let item = self.items.get(&name).cloned();
            touched.insert(name, item);
        }
        touched.extend(removed.iter().map(|name| (name.clone(), None)));
        touched.extend(upserts.iter().map(|item| (item.name.clone(), Some(item.clone()))));
        let with_before = |(name, after)| Touched { before: self.items.get(&name).cloned(), name, after };
        touched.into_iter().map(with_before).collect()
    }

    pub(super) fn apply(&mut self, change: Change) {
        let record = change.log_record();
        let Change { head, floor, upserts, removed, kills, rollouts, touched: _, links, segments } = change;
        let mut items: Vec<_> = upserts.iter().map(|item| (item.name.clone(), Content::Is(item.clone()))).collect();
        items.extend(removed.iter().map(|name| (name.clone(), Content::Removed)));
        self.log.push(Entry { at_us: record.at_us, digest: record.digest, items, kills: kills.clone() });
        self.log.drop_to(floor);

        for item in upserts {
            self.totals.add(item.name.kind, item.definition.len());
            if let Some(before) = self.items.insert(item.name.clone(), item) {
                self.totals.take_away(before.name.kind, before.definition.len());
            }
        }
        for RolloutEdit { flag, state, decision: _ } in rollouts {
            match state {
                Some(state) => drop(self.rollouts.insert(flag, state)),
                None => drop(self.rollouts.remove(&flag)),
            }
        }
        for name in removed {
            self.links.remove(&name);
            if let Some(before) = self.items.remove(&name) {
                self.totals.take_away(before.name.kind, before.definition.len());
            }
        }
        for kill in kills {
            match kill.killed {
                true => drop(self.kills.insert(kill.flag_key.clone(), kill)),
                false => drop(self.kills.remove(&kill.flag_key)),
            }
        }
        links.into_iter().for_each(|(item, refers_to)| self.links.set(&item, refers_to));
        if let Some(segments) = segments {
            self.segments = segments;
        }
        self.head = head;
    }
}

impl Change {
    pub(super) fn log_record(&self) -> LogRecord {
        LogRecord {
            at_us: self.head.origin_time_us,
            digest: self.head.digest,
            upserts: self.upserts.iter().map(|item| item.name.clone()).collect(),
            removed: self.removed.clone(),
            kills: self.kills.clone(),
        }
    }

    pub(super) fn item_changes(&self) -> Vec<ItemChange> {
        self.touched.iter().map(Touched::item_change).collect()
    }
}

impl Touched {
    fn item_change(&self) -> ItemChange {
        let definition = |item: &Option<Arc<Item>>| item.as_ref().map(|item| item.definition.clone());
        ItemChange { item: self.name.clone(), before: definition(&self.before), after: definition(&self.after) }
    }
}

impl Totals {
    pub(super) fn add(&mut self, kind: ItemKind, bytes: usize) {
        *self.count(kind) += 1;
        self.bytes += bytes;
    }

    pub(super) fn take_away(&mut self, kind: ItemKind, bytes: usize) {
        *self.count(kind) -= 1;
        self.bytes -= bytes;
    }

    fn count(&mut self, kind: ItemKind) -> &mut usize {
        match kind {
            ItemKind::Flag => &mut self.flags,
            ItemKind::Segment => &mut self.segments,
        }
    }
}
