//! Every definition as it came from the control plane, also those that could not be compiled: the digest and the limits are over this.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::flag::limits::{ENVIRONMENT_BYTES, ENVIRONMENT_FLAGS, ENVIRONMENT_SEGMENTS};
use crate::flag::{Digest, Item, ItemKind, ItemName, Kill, Position, Revision};

use super::outcome::Resync;

#[derive(Debug, Default)]
pub(super) struct Received {
    flags: Items,
    segments: Items,
    bytes: usize,
    /// Whatever comes next is news, even if it looks the same.
    distrusted: bool,
}

/// By key, which the map of flags shares.
type Items = HashMap<Arc<str>, Entry>;

#[derive(Debug)]
struct Entry {
    revision: Revision,
    definition: Bytes,
}

impl Received {
    /// Notes what came; false when it is what is held already.
    pub(super) fn insert(&mut self, item: &Item) -> bool {
        let Item { name: ItemName { kind, key }, revision, definition } = item;
        let (revision, definition, distrusted) = (*revision, definition.clone(), self.distrusted);
        self.bytes += definition.len();
        let items = self.items_mut(*kind);
        let Some(held) = items.get_mut(key.as_str()) else {
            items.insert(key.as_str().into(), Entry { revision, definition });
            return true;
        };
        let is_news = distrusted || held.revision != revision || held.definition != definition;
        let freed = std::mem::replace(held, Entry { revision, definition }).definition.len();
        self.bytes -= freed;
        is_news
    }

    pub(super) fn remove(&mut self, ItemName { kind, key }: &ItemName) {
        if let Some(before) = self.items_mut(*kind).remove(key.as_str()) {
            self.bytes -= before.definition.len();
        }
    }

    pub(super) fn distrust(&mut self, distrusted: bool) {
        self.distrusted = distrusted;
    }

    pub(super) fn items(&self) -> impl Iterator<Item = Item> {
        let of = |kind, items| Items::iter(items).map(move |(key, entry)| item(kind, key, entry));
        of(ItemKind::Segment, &self.segments).chain(of(ItemKind::Flag, &self.flags))
    }

    /// Keys of all flags.
    pub(super) fn flags(&self) -> impl Iterator<Item = &Arc<str>> {
        self.flags.keys()
    }

    pub(super) fn flag(&self, key: &str) -> Option<Item> {
        self.flags.get(key).map(|entry| item(ItemKind::Flag, key, entry))
    }

    pub(super) fn segment(&self, key: &str) -> Option<Item> {
        self.segments.get(key).map(|entry| item(ItemKind::Segment, key, entry))
    }

    /// The key of a flag as it is kept here.
    pub(super) fn key_of_flag(&self, key: &str) -> Arc<str> {
        self.flags.get_key_value(key).map_or_else(|| key.into(), |(key, _)| key.clone())
    }

    /// Names that are held and not among `items`.
    pub(super) fn missing_from(&self, items: &[Item]) -> Vec<ItemName> {
        let names: HashSet<_> = items.iter().map(|item| (item.name.kind, item.name.key.as_str())).collect();
        let held = [(ItemKind::Segment, &self.segments), (ItemKind::Flag, &self.flags)].into_iter();
        let held = held.flat_map(|(kind, items)| items.keys().map(move |key| (kind, &**key)));
        held.filter(|name| !names.contains(name)).map(|(kind, key)| ItemName { kind, key: key.to_owned() }).collect()
    }

    /// The digest after an edit, from the one before it.
    pub(super) fn digest_after(&self, digest: Digest, upserts: &[Item], removed: &[ItemName]) -> Digest {
        let held = |ItemName { kind, key }: &ItemName| {
            let entry = self.items_of(*kind).get(key.as_str());
            entry.map_or(Digest::default(), |entry| Digest::of_definition(*kind, key, entry.revision, &entry.definition))
        };
        let digest = upserts.iter().fold(digest, |digest, item| digest.minus(held(&item.name)).plus(Digest::of_item(item)));
        removed.iter().fold(digest, |digest, name| digest.minus(held(name)))
    }

    /// Whether the environment stays within its limits after an edit.
    pub(super) fn check_size(&self, upserts: &[Item], removed: &[ItemName]) -> Result<(), Resync> {
        let held = |ItemName { kind, key }: &ItemName| self.items_of(*kind).get(key.as_str());
        let size = |name: &ItemName| held(name).map_or(0, |entry| entry.definition.len());
        let added: usize = upserts.iter().map(|item| item.definition.len()).sum();
        let freed: usize = upserts.iter().map(|item| &item.name).chain(removed).map(size).sum();
        let after = |kind: ItemKind| {
            let new = upserts.iter().filter(|item| item.name.kind == kind && held(&item.name).is_none()).count();
            let gone = removed.iter().filter(|name| name.kind == kind && held(name).is_some()).count();
            (self.items_of(kind).len() + new).saturating_sub(gone)
        };
        within_limits(after(ItemKind::Flag), after(ItemKind::Segment), (self.bytes + added).saturating_sub(freed))
    }

    fn items_of(&self, kind: ItemKind) -> &Items {
        match kind {
            ItemKind::Segment => &self.segments,
            ItemKind::Flag => &self.flags,
        }
    }

    fn items_mut(&mut self, kind: ItemKind) -> &mut Items {
        match kind {
            ItemKind::Segment => &mut self.segments,
            ItemKind::Flag => &mut self.flags,
        }
    }
}

fn item(kind: ItemKind, key: &str, Entry { revision, definition }: &Entry) -> Item {
    Item { name: ItemName { kind, key: key.to_owned() }, revision: *revision, definition: definition.clone() }
}

/// Whether a whole state is what its digest says, and within the limits.
pub(super) fn check_state<'s>(
    position: Position,
    digest: Digest,
    items: impl IntoIterator<Item = &'s Item> + Clone,
    kills: &'s [Kill],
) -> Result<(), Resync> {
    let held = digest_of_log(position, items.clone(), kills);
    if held != digest {
        return Err(Resync::DigestMismatch { revision: position.revision, held, found: digest });
    }
    let (mut flags, mut segments, mut bytes) = (0, 0, 0);
    for item in items {
        match item.name.kind {
            ItemKind::Flag => flags += 1,
            ItemKind::Segment => segments += 1,
        }
        bytes += item.definition.len();
    }
    within_limits(flags, segments, bytes)
}

/// A kill beyond the position of a state was ahead of the log when the state was written to disk, and is not in its digest.
pub(super) fn digest_of_log<'s>(position: Position, items: impl IntoIterator<Item = &'s Item>, kills: &'s [Kill]) -> Digest {
    Digest::of(items, kills.iter().filter(|kill| kill.revision <= position.revision))
}

pub(super) fn within_limits(flags: usize, segments: usize, bytes: usize) -> Result<(), Resync> {
    if flags > ENVIRONMENT_FLAGS {
        return Err(Resync::TooLarge { what: "flags", found: flags, limit: ENVIRONMENT_FLAGS });
    }
    if segments > ENVIRONMENT_SEGMENTS {
        return Err(Resync::TooLarge { what: "segments", found: segments, limit: ENVIRONMENT_SEGMENTS });
    }
    if bytes > ENVIRONMENT_BYTES {
        return Err(Resync::TooLarge { what: "bytes", found: bytes, limit: ENVIRONMENT_BYTES });
    }
    Ok(())
}
