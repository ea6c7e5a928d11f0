//! An audit record as it is stored: JSON with hashes in hexadecimal, one spelling only.

use serde::{Deserialize, Serialize};

use super::{Action, ChainHead, Hash, Record, Touched};
use crate::control::hex;
use crate::control::store::Error;
use crate::flag::{ItemKind, ItemName, Position};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    seq: u64,
    at_us: i64,
    actor: String,
    action: String,
    environment: String,
    epoch: u64,
    revision: u64,
    reason: String,
    detail: String,
    changes: Vec<StoredTouched>,
    prev_hash: String,
    hash: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredTouched {
    kind: String,
    key: String,
    before: Option<String>,
    after: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredHead {
    seq: u64,
    hash: String,
}

impl Record {
    pub fn encode(&self) -> Vec<u8> {
        let Self { seq, at_us, actor, action, environment, position, reason, detail, changes, prev_hash, hash } = self;
        let stored = Stored {
            seq: *seq,
            at_us: *at_us,
            actor: actor.clone(),
            action: action.as_str().to_owned(),
            environment: environment.clone(),
            epoch: position.epoch,
            revision: position.revision,
            reason: reason.clone(),
            detail: detail.clone(),
            changes: changes.iter().map(StoredTouched::from).collect(),
            prev_hash: hex::encode(prev_hash),
            hash: hex::encode(hash),
        };
        to_json(&stored)
    }

    /// Refuses every spelling but that of [`Record::encode`]: a byte that was altered without a change of meaning is altered all the same.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let stored: Stored = serde_json::from_slice(bytes).map_err(|problem| bad(problem.to_string()))?;
        let Stored { seq, at_us, actor, action, environment, epoch, revision, reason, detail, changes, prev_hash, hash } = stored;
        let record = Self {
            seq,
            at_us,
            actor,
            action: Action::parse(&action).ok_or_else(|| bad(format!("no action is called `{action}`")))?,
            environment,
            position: Position { epoch, revision },
            reason,
            detail,
            changes: changes.into_iter().map(Touched::try_from).collect::<Result<_, _>>()?,
            prev_hash: hash_of(&prev_hash)?,
            hash: hash_of(&hash)?,
        };
        if record.encode() != bytes {
            return Err(bad("it is spelt in another way than it was written"));
        }
        Ok(record)
    }
}

impl ChainHead {
    pub fn encode(&self) -> Vec<u8> {
        to_json(&StoredHead { seq: self.seq, hash: hex::encode(&self.hash) })
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let StoredHead { seq, hash } = serde_json::from_slice(bytes).map_err(|problem| bad(problem.to_string()))?;
        Ok(Self { seq, hash: hash_of(&hash)? })
    }
}

impl From<&Touched> for StoredTouched {
    fn from(Touched { item, before, after }: &Touched) -> Self {
        Self {
            kind: kind_name(item.kind).to_owned(),
            key: item.key.clone(),
            before: before.as_ref().map(|hash| hex::encode(hash)),
            after: after.as_ref().map(|hash| hex::encode(hash)),
        }
    }
}

impl TryFrom<StoredTouched> for Touched {
    type Error = Error;

    fn try_from(StoredTouched { kind, key, before, after }: StoredTouched) -> Result<Self, Error> {
        let kind = kind_of(&kind).ok_or_else(|| bad(format!("no kind of item is called `{kind}`")))?;
        let (before, after) = (before.as_deref().map(hash_of).transpose()?, after.as_deref().map(hash_of).transpose()?);
        Ok(Self { item: ItemName { kind, key }, before, after })
    }
}

/// How stored keys and records spell a kind.
pub fn kind_name(kind: ItemKind) -> &'static str {
    match kind {
        ItemKind::Flag => "flag",
        ItemKind::Segment => "segment",
    }
}

pub fn kind_of(name: &str) -> Option<ItemKind> {
    [ItemKind::Flag, ItemKind::Segment].into_iter().find(|kind| kind_name(*kind) == name)
}

fn hash_of(text: &str) -> Result<Hash, Error> {
    hex::decode(text).ok_or_else(|| bad(format!("`{text}` is no SHA-256")))
}

fn bad(problem: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("audit record: {problem}"))
}

/// Only maps with keys that are no text cannot be spelt in JSON, and there are none.
fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::tests::draft;
    use super::*;

    #[test]
    fn a_record_survives_the_store() {
        let record = ChainHead::NONE.append(draft("because \"quoted\"\n"));
        assert_eq!(Record::decode(&record.encode()).unwrap(), record);
        assert_eq!(ChainHead::decode(&record.head().encode()).unwrap(), record.head());
    }

    #[test]
    fn any_altered_byte_is_noticed() {
        let bytes = ChainHead::NONE.append(draft("why")).encode();
        for at in 0..bytes.len() {
            for flip in [1, 0x20, 0x80] {
                let mut altered = bytes.clone();
                altered[at] ^= flip;
                let noticed = Record::decode(&altered).map_or(true, |record| record.hash != record.expected_hash());
                assert!(noticed, "byte {at} ^ {flip}: {}", String::from_utf8_lossy(&altered));
            }
        }
    }
}
