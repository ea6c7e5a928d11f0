//! Every definition as it came from the control plane, also those that could not be compiled: the digest and the limits are over this.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::flag::limits::{ENVIRONMENT_BYTES, ENVIRONMENT_FLAGS, ENVIRONMENT_SEGMENTS};
use crate::flag::{Digest, Item, ItemKind, ItemName, Revision};

use super::writer::Resync;

#[derive(Debug, Default)]
pub(super) struct Received {
    items: HashMap<ItemName, Entry>,
    bytes: usize,
    flags: usize,
}

#[derive(Debug)]
struct Entry {
    revision: Revision,
    digest: Digest,
    definition: Bytes,
}

impl Received {
    /// Notes what came; false when it is what is held already.
    pub(super) fn insert(&mut self, item: &Item) -> bool {
        let digest = Digest::of_item(item);
        let entry = Entry { revision: item.revision, digest, definition: item.definition.clone() };
        self.bytes += item.definition.len();
        match self.items.insert(item.name.clone(), entry) {
            Some(before) => {
                self.bytes -= before.definition.len();
                before.digest != digest
            }
            None => {
                self.flags += usize::from(item.name.kind == ItemKind::Flag);
                true
            }
        }
    }

    pub(super) fn remove(&mut self, name: &ItemName) {
        if let Some(before) = self.items.remove(name) {
            self.bytes -= before.definition.len();
            self.flags -= usize::from(name.kind == ItemKind::Flag);
        }
    }

    /// Whatever comes next is news.
    pub(super) fn distrust(&mut self) {
        self.items.values_mut().for_each(|entry| entry.digest = Digest::default());
    }

    pub(super) fn items(&self) -> impl Iterator<Item = Item> {
        self.items.iter().map(|(name, entry)| Item { name: name.clone(), revision: entry.revision, definition: entry.definition.clone() })
    }

    pub(super) fn flags(&self) -> impl Iterator<Item = &ItemName> {
        self.items.keys().filter(|name| name.kind == ItemKind::Flag)
    }

    pub(super) fn get(&self, name: &ItemName) -> Option<Item> {
        self.items.get(name).map(|entry| Item { name: name.clone(), revision: entry.revision, definition: entry.definition.clone() })
    }

    /// Names that are held and not among `items`.
    pub(super) fn missing_from(&self, items: &[Item]) -> Vec<ItemName> {
        let names: HashSet<_> = items.iter().map(|item| &item.name).collect();
        self.items.keys().filter(|name| !names.contains(name)).cloned().collect()
    }

    /// The digest after an edit, from the one before it.
    pub(super) fn digest_after(&self, digest: Digest, upserts: &[Item], removed: &[ItemName]) -> Digest {
        let held = |name: &ItemName| self.items.get(name).map_or(Digest::default(), |entry| entry.digest);
        let digest = upserts.iter().fold(digest, |digest, item| digest.minus(held(&item.name)).plus(Digest::of_item(item)));
        removed.iter().fold(digest, |digest, name| digest.minus(held(name)))
    }

    /// Whether the environment stays within its limits after an edit.
    pub(super) fn check_size(&self, upserts: &[Item], removed: &[ItemName]) -> Result<(), Resync> {
        let size = |name: &ItemName| self.items.get(name).map_or(0, |entry| entry.definition.len());
        let added: usize = upserts.iter().map(|item| item.definition.len()).sum();
        let freed: usize = upserts.iter().map(|item| &item.name).chain(removed).map(size).sum();
        let after = |kind: ItemKind, held: usize| {
            let new = upserts.iter().filter(|item| item.name.kind == kind && !self.items.contains_key(&item.name)).count();
            let gone = removed.iter().filter(|name| name.kind == kind && self.items.contains_key(name)).count();
            (held + new).saturating_sub(gone)
        };
        let segments = after(ItemKind::Segment, self.items.len() - self.flags);
        if segments > ENVIRONMENT_SEGMENTS {
            return Err(Resync::TooLarge { what: "segments", found: segments, limit: ENVIRONMENT_SEGMENTS });
        }
        within_limits(after(ItemKind::Flag, self.flags), (self.bytes + added).saturating_sub(freed))
    }
}

pub(super) fn within_limits(flags: usize, bytes: usize) -> Result<(), Resync> {
    if flags > ENVIRONMENT_FLAGS {
        return Err(Resync::TooLarge { what: "flags", found: flags, limit: ENVIRONMENT_FLAGS });
    }
    if bytes > ENVIRONMENT_BYTES {
        return Err(Resync::TooLarge { what: "bytes", found: bytes, limit: ENVIRONMENT_BYTES });
    }
    Ok(())
}
