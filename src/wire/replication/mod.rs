//! Replication messages to and from `flag::state`. What comes in is hostile until proven otherwise.

use crate::flag::limits::ENVIRONMENT_SEGMENTS;
use crate::flag::{Delta, Digest, Item, ItemKind, ItemName, Kill, Position, State};

use super::v1;

mod session;

pub use session::{
    Ack, Basis, FROM_SIDECAR_BYTES, FromSidecar, Hello, Identity, KILL_ACKS, KillAck, MESSAGE_BYTES, NAME_BYTES, REJECTIONS, Rejection,
    ResyncCause, environment, identity, message,
};

/// A message that no honest peer sends: which field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Malformed {
    pub field: &'static str,
    pub problem: String,
}

fn malformed(field: &'static str, problem: impl Into<String>) -> Malformed {
    Malformed { field, problem: problem.into() }
}

impl From<Position> for v1::Position {
    fn from(Position { epoch, revision }: Position) -> Self {
        Self { epoch, revision }
    }
}

impl From<v1::Position> for Position {
    fn from(v1::Position { epoch, revision }: v1::Position) -> Self {
        Self { epoch, revision }
    }
}

impl From<ItemKind> for v1::ItemKind {
    fn from(kind: ItemKind) -> Self {
        match kind {
            ItemKind::Flag => Self::Flag,
            ItemKind::Segment => Self::Segment,
        }
    }
}

fn item_kind(kind: i32, field: &'static str) -> Result<ItemKind, Malformed> {
    match v1::ItemKind::try_from(kind) {
        Ok(v1::ItemKind::Flag) => Ok(ItemKind::Flag),
        Ok(v1::ItemKind::Segment) => Ok(ItemKind::Segment),
        Ok(v1::ItemKind::Unspecified) | Err(_) => Err(malformed(field, format!("{kind} is no item kind"))),
    }
}

fn key(key: String, field: &'static str) -> Result<String, Malformed> {
    if key.is_empty() { Err(malformed(field, "is empty")) } else { Ok(key) }
}

pub fn digest(bytes: &[u8]) -> Result<Digest, Malformed> {
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| malformed("digest", format!("has {} bytes, expected 16", bytes.len())))?;
    Ok(Digest::from_bytes(bytes))
}

impl From<Item> for v1::Item {
    fn from(Item { name: ItemName { kind, key }, revision, definition }: Item) -> Self {
        Self { kind: v1::ItemKind::from(kind).into(), key, revision, definition }
    }
}

impl TryFrom<v1::Item> for Item {
    type Error = Malformed;

    fn try_from(v1::Item { kind, key: name, revision, definition }: v1::Item) -> Result<Self, Malformed> {
        let kind = item_kind(kind, "item.kind")?;
        Ok(Self { name: ItemName { kind, key: key(name, "item.key")? }, revision, definition })
    }
}

impl From<ItemName> for v1::ItemName {
    fn from(ItemName { kind, key }: ItemName) -> Self {
        Self { kind: v1::ItemKind::from(kind).into(), key }
    }
}

impl TryFrom<v1::ItemName> for ItemName {
    type Error = Malformed;

    fn try_from(v1::ItemName { kind, key: name }: v1::ItemName) -> Result<Self, Malformed> {
        Ok(Self { kind: item_kind(kind, "removed.kind")?, key: key(name, "removed.key")? })
    }
}

impl From<Kill> for v1::KillRegister {
    fn from(Kill { flag_key, revision, killed, actor, reason, at_us }: Kill) -> Self {
        Self { flag_key, revision, killed, actor, reason, at_us }
    }
}

impl TryFrom<v1::KillRegister> for Kill {
    type Error = Malformed;

    fn try_from(register: v1::KillRegister) -> Result<Self, Malformed> {
        let v1::KillRegister { flag_key, revision, killed, actor, reason, at_us } = register;
        Ok(Self { flag_key: key(flag_key, "kill.flag_key")?, revision, killed, actor, reason, at_us })
    }
}

impl From<State> for v1::State {
    fn from(State { position, items, kills, digest, origin_time_us }: State) -> Self {
        Self {
            position: Some(position.into()),
            items: items.into_iter().map(Into::into).collect(),
            kills: kills.into_iter().map(Into::into).collect(),
            digest: digest.to_bytes().to_vec(),
            origin_time_us,
        }
    }
}

impl TryFrom<v1::State> for State {
    type Error = Malformed;

    fn try_from(state: v1::State) -> Result<Self, Malformed> {
        let v1::State { position, items, kills, digest: sum, origin_time_us } = state;
        let segments = items.iter().filter(|item| item.kind == i32::from(v1::ItemKind::Segment)).count();
        if segments > ENVIRONMENT_SEGMENTS {
            return Err(malformed("state.items", format!("has {segments} segments, at most {ENVIRONMENT_SEGMENTS} are allowed")));
        }
        Ok(Self {
            position: position.ok_or_else(|| malformed("state.position", "is missing"))?.into(),
            items: items.into_iter().map(Item::try_from).collect::<Result<_, _>>()?,
            kills: kills.into_iter().map(Kill::try_from).collect::<Result<_, _>>()?,
            digest: digest(&sum)?,
            origin_time_us,
        })
    }
}

impl From<Delta> for v1::Delta {
    fn from(delta: Delta) -> Self {
        let Delta { epoch, prev_revision, revision, upserts, removed, kills, digest, origin_time_us } = delta;
        Self {
            epoch,
            prev_revision,
            revision,
            upserts: upserts.into_iter().map(Into::into).collect(),
            removed: removed.into_iter().map(Into::into).collect(),
            kills: kills.into_iter().map(Into::into).collect(),
            digest: digest.to_bytes().to_vec(),
            origin_time_us,
        }
    }
}

impl TryFrom<v1::Delta> for Delta {
    type Error = Malformed;

    fn try_from(delta: v1::Delta) -> Result<Self, Malformed> {
        let v1::Delta { epoch, prev_revision, revision, upserts, removed, kills, digest: sum, origin_time_us } = delta;
        if revision <= prev_revision {
            return Err(malformed("delta.revision", format!("{revision} does not follow {prev_revision}")));
        }
        Ok(Self {
            epoch,
            prev_revision,
            revision,
            upserts: upserts.into_iter().map(Item::try_from).collect::<Result<_, _>>()?,
            removed: removed.into_iter().map(ItemName::try_from).collect::<Result<_, _>>()?,
            kills: kills.into_iter().map(Kill::try_from).collect::<Result<_, _>>()?,
            digest: digest(&sum)?,
            origin_time_us,
        })
    }
}
