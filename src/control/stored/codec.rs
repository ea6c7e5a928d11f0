//! Spellings of the small records.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::control::audit::{kind_name, kind_of};
use crate::control::hex;
use crate::control::ledger::Head;
use crate::control::store::Error;
use crate::flag::{Digest, Item, ItemName, Kill, Position, Revision};

/// Where an environment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadRecord {
    pub head: Head,
    /// The log holds every change after this revision.
    pub floor: Revision,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredHead {
    epoch: u64,
    revision: Revision,
    floor: Revision,
    digest: String,
    origin_time_us: i64,
}

impl HeadRecord {
    pub fn encode(&self) -> Vec<u8> {
        let Head { position, digest, origin_time_us } = self.head;
        to_json(&StoredHead {
            epoch: position.epoch,
            revision: position.revision,
            floor: self.floor,
            digest: hex::encode(&digest.to_bytes()),
            origin_time_us,
        })
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let StoredHead { epoch, revision, floor, digest, origin_time_us } = from_json(bytes, "head of an environment")?;
        let digest = hex::decode(&digest).ok_or_else(|| Error::corrupt("head of an environment: its digest is none"))?;
        let position = Position { epoch, revision };
        Ok(Self { head: Head { position, digest: Digest::from_bytes(digest), origin_time_us }, floor })
    }
}

/// What one change touched. The definitions are found under the items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    pub at_us: i64,
    /// Of the state after the change.
    pub digest: Digest,
    pub upserts: Vec<ItemName>,
    pub removed: Vec<ItemName>,
    pub kills: Vec<Kill>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredLog {
    at_us: i64,
    digest: String,
    upserts: Vec<(String, String)>,
    removed: Vec<(String, String)>,
    kills: Vec<StoredKill>,
}

impl LogRecord {
    pub fn encode(&self) -> Vec<u8> {
        let names = |names: &[ItemName]| names.iter().map(|name| (kind_name(name.kind).to_owned(), name.key.clone())).collect();
        to_json(&StoredLog {
            at_us: self.at_us,
            digest: hex::encode(&self.digest.to_bytes()),
            upserts: names(&self.upserts),
            removed: names(&self.removed),
            kills: self.kills.iter().map(StoredKill::from).collect(),
        })
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let StoredLog { at_us, digest, upserts, removed, kills } = from_json(bytes, "change log")?;
        let digest = hex::decode(&digest).ok_or_else(|| Error::corrupt("change log: a digest is none"))?;
        Ok(Self {
            at_us,
            digest: Digest::from_bytes(digest),
            upserts: names(upserts)?,
            removed: names(removed)?,
            kills: kills.into_iter().map(Kill::from).collect(),
        })
    }
}

fn names(stored: Vec<(String, String)>) -> Result<Vec<ItemName>, Error> {
    let name = |(kind, key): (String, String)| match kind_of(&kind) {
        Some(kind) => Ok(ItemName { kind, key }),
        None => Err(Error::corrupt(format!("change log: no kind of item is called `{kind}`"))),
    };
    stored.into_iter().map(name).collect()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKill {
    flag: String,
    revision: Revision,
    killed: bool,
    actor: String,
    reason: String,
    at_us: i64,
}

impl From<&Kill> for StoredKill {
    fn from(Kill { flag_key, revision, killed, actor, reason, at_us }: &Kill) -> Self {
        Self { flag: flag_key.clone(), revision: *revision, killed: *killed, actor: actor.clone(), reason: reason.clone(), at_us: *at_us }
    }
}

impl From<StoredKill> for Kill {
    fn from(StoredKill { flag, revision, killed, actor, reason, at_us }: StoredKill) -> Self {
        Self { flag_key: flag, revision, killed, actor, reason, at_us }
    }
}

pub fn encode_kill(kill: &Kill) -> Vec<u8> {
    to_json(&StoredKill::from(kill))
}

pub fn decode_kill(bytes: &[u8]) -> Result<Kill, Error> {
    from_json::<StoredKill>(bytes, "kill").map(Kill::from)
}

/// The revision, eight bytes, and then the definition as it is.
pub fn encode_item(item: &Item) -> Bytes {
    let mut bytes = BytesMut::with_capacity(8 + item.definition.len());
    bytes.put_u64(item.revision);
    bytes.put_slice(&item.definition);
    bytes.freeze()
}

pub fn decode_item(name: ItemName, bytes: &Bytes) -> Result<Item, Error> {
    match bytes.first_chunk() {
        Some(revision) => Ok(Item { name, revision: u64::from_be_bytes(*revision), definition: bytes.slice(8..) }),
        None => Err(Error::corrupt(format!("{name}: its record has {} bytes, expected at least 8", bytes.len()))),
    }
}

pub(super) fn from_json<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|problem| Error::corrupt(format!("{what}: {problem}")))
}

/// Only maps with keys that are no text cannot be spelt in JSON, and there are none.
pub(super) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kill() -> Kill {
        Kill { flag_key: "a".into(), revision: 9, killed: true, actor: "ana".into(), reason: "\"why\"".into(), at_us: -1 }
    }

    #[test]
    fn records_survive_the_store() {
        let digest = Digest::of([], [&kill()]);
        let position = Position { epoch: u64::MAX, revision: 9 };
        let head = HeadRecord { head: Head { position, digest, origin_time_us: 5 }, floor: 3 };
        assert_eq!(HeadRecord::decode(&head.encode()).unwrap(), head);

        let (upserts, removed) = (vec![ItemName::flag("a"), ItemName::segment("a")], vec![ItemName::flag("b")]);
        let log = LogRecord { at_us: 7, digest, upserts, removed, kills: vec![kill()] };
        assert_eq!(LogRecord::decode(&log.encode()).unwrap(), log);

        assert_eq!(decode_kill(&encode_kill(&kill())).unwrap(), kill());

        let item = Item { name: ItemName::flag("a"), revision: u64::MAX - 1, definition: Bytes::from_static(b"{}") };
        assert_eq!(decode_item(ItemName::flag("a"), &encode_item(&item)).unwrap(), item);
    }

    #[test]
    fn half_a_record_is_damage() {
        assert!(decode_item(ItemName::flag("a"), &Bytes::from_static(&[0; 7])).is_err());
        assert!(HeadRecord::decode(b"{").is_err());
        assert!(LogRecord::decode(br#"{"at_us":1,"digest":"00","upserts":[],"removed":[],"kills":[]}"#).is_err());
    }
}
