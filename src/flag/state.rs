//! The state of an environment as it is stored and replicated: definitions, kill registers, and a digest over both.

use std::fmt;
use std::hash::Hasher as _;

use bytes::Bytes;
use metrohash::MetroHash128;

/// A count of changes of an environment; each change is the next number.
pub type Revision = u64;

/// A place in the history of an environment. Revisions of two epochs cannot be compared: a restored store has a new epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Position {
    pub epoch: u64,
    pub revision: Revision,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKind {
    /// Before flags, so that whoever applies a list in order has the segments first.
    Segment,
    Flag,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemName {
    pub kind: ItemKind,
    pub key: String,
}

/// One definition: canonical JSON of a flag or segment, and the revision of its last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub name: ItemName,
    pub revision: Revision,
    pub definition: Bytes,
}

/// Whether a flag is killed, as a register: the writer with the highest revision wins, so that it may be applied ahead of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    pub flag_key: String,
    pub revision: Revision,
    /// False: restored.
    pub killed: bool,
    pub actor: String,
    pub reason: String,
    /// Unix time, microseconds, control plane's clock.
    pub at_us: i64,
}

/// Everything that an environment holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    pub position: Position,
    pub items: Vec<Item>,
    /// Standing kills only.
    pub kills: Vec<Kill>,
    pub digest: Digest,
    /// When the newest change was committed: Unix time, microseconds, control plane's clock.
    pub origin_time_us: i64,
}

/// Takes a holder of `prev_revision` to `revision` in one step: removals first, each flag with its kill register, then upserts, then
/// registers. A flag that was deleted and created again between the two comes as an upsert and a register that says restored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delta {
    pub epoch: u64,
    pub prev_revision: Revision,
    pub revision: Revision,
    pub upserts: Vec<Item>,
    pub removed: Vec<ItemName>,
    pub kills: Vec<Kill>,
    /// Of the state after this delta.
    pub digest: Digest,
    pub origin_time_us: i64,
}

/// Sum, modulo 2^128, of a hash of each item and of each standing kill: it does not depend on the order, and one change costs one
/// subtraction and one addition. It finds faults of transport and of ours; against an attacker it proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Digest(u128);

impl Digest {
    pub fn add_item(&mut self, item: &Item) {
        *self = self.plus(Self::of_item(item));
    }

    pub fn remove_item(&mut self, item: &Item) {
        *self = self.minus(Self::of_item(item));
    }

    /// Restored registers do not count.
    pub fn add_kill(&mut self, kill: &Kill) {
        if kill.killed {
            self.0 = self.0.wrapping_add(kill_hash(kill));
        }
    }

    pub fn remove_kill(&mut self, kill: &Kill) {
        if kill.killed {
            self.0 = self.0.wrapping_sub(kill_hash(kill));
        }
    }

    /// Of this item alone.
    pub fn of_item(Item { name: ItemName { kind, key }, revision, definition }: &Item) -> Self {
        Self::of_definition(*kind, key, *revision, definition)
    }

    /// Of the item that has these parts.
    pub fn of_definition(kind: ItemKind, key: &str, revision: Revision, definition: &[u8]) -> Self {
        let kind = match kind {
            ItemKind::Segment => 1,
            ItemKind::Flag => 2,
        };
        Self(hash(kind, key, revision, definition))
    }

    /// Of this register alone; nothing for a restored one.
    pub fn of_kill(kill: &Kill) -> Self {
        Self(if kill.killed { kill_hash(kill) } else { 0 })
    }

    pub fn plus(self, part: Self) -> Self {
        Self(self.0.wrapping_add(part.0))
    }

    pub fn minus(self, part: Self) -> Self {
        Self(self.0.wrapping_sub(part.0))
    }

    pub fn of<'a>(items: impl IntoIterator<Item = &'a Item>, kills: impl IntoIterator<Item = &'a Kill>) -> Self {
        let mut digest = Self::default();
        items.into_iter().for_each(|item| digest.add_item(item));
        kills.into_iter().for_each(|kill| digest.add_kill(kill));
        digest
    }

    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

fn kill_hash(kill: &Kill) -> u128 {
    hash(3, &kill.flag_key, kill.revision, &[])
}

/// Lengths are written before what they measure, so that no two different items spell the same bytes.
fn hash(kind: u8, key: &str, revision: Revision, content: &[u8]) -> u128 {
    let mut hasher = MetroHash128::with_seed(0);
    hasher.write(&[kind]);
    hasher.write(&revision.to_le_bytes());
    hasher.write(&(key.len() as u64).to_le_bytes());
    hasher.write(key.as_bytes());
    hasher.write(&(content.len() as u64).to_le_bytes());
    hasher.write(content);
    let (low, high) = hasher.finish128();
    u128::from(high) << 64 | u128::from(low)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}/{}", self.epoch, self.revision)
    }
}

impl ItemName {
    pub fn flag(key: impl Into<String>) -> Self {
        Self { kind: ItemKind::Flag, key: key.into() }
    }

    pub fn segment(key: impl Into<String>) -> Self {
        Self { kind: ItemKind::Segment, key: key.into() }
    }
}

impl fmt::Display for ItemName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ItemKind::Flag => write!(f, "flag {}", self.key),
            ItemKind::Segment => write!(f, "segment {}", self.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(key: &str, revision: Revision, definition: &'static str) -> Item {
        Item { name: ItemName::flag(key), revision, definition: Bytes::from_static(definition.as_bytes()) }
    }

    #[test]
    fn the_digest_does_not_depend_on_the_order() {
        let (a, b) = (item("a", 1, "{}"), item("b", 2, "{}"));
        assert_eq!(Digest::of([&a, &b], []), Digest::of([&b, &a], []));
    }

    #[test]
    fn what_was_added_can_be_taken_away() {
        let (a, b) = (item("a", 1, "{}"), item("b", 2, "{}"));
        let mut digest = Digest::of([&a, &b], []);
        digest.remove_item(&a);
        assert_eq!(digest, Digest::of([&b], []));
    }

    #[test]
    fn the_digest_sees_key_revision_definition_and_kind() {
        let base = Digest::of([&item("a", 1, "{}")], []);
        assert_ne!(base, Digest::of([&item("b", 1, "{}")], []));
        assert_ne!(base, Digest::of([&item("a", 2, "{}")], []));
        assert_ne!(base, Digest::of([&item("a", 1, "{ }")], []));
        let segment = Item { name: ItemName::segment("a"), ..item("a", 1, "{}") };
        assert_ne!(base, Digest::of([&segment], []));
    }
}
