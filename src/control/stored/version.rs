//! One version of an item: which definition it had from this revision on, and who made it so. Versions are never dropped, so that a
//! decision can be replayed and a flag reverted however long ago it was.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::codec::{from_json, to_json};
use crate::control::audit::Action;
use crate::control::store::Error;
use crate::flag::Revision;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Number of the audit record; the fields that it shares with it are here too, because a backup can bring versions whose chain
    /// stayed behind.
    pub seq: u64,
    pub at_us: i64,
    pub actor: String,
    pub action: Action,
    pub reason: String,
    /// Revision of the version that holds the definition before; `None`: there was no such item.
    pub before: Option<Revision>,
    /// Revision of the version that holds the definition now: this one, or an older one when only the kill changed. `None`: removed.
    pub after: Option<Revision>,
    /// The definition, when `after` is this version.
    pub definition: Option<Bytes>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    seq: u64,
    at_us: i64,
    actor: String,
    action: String,
    reason: String,
    before: Option<Revision>,
    after: Option<Revision>,
    has_definition: bool,
}

impl Version {
    /// Length of the header, four bytes; the header, JSON; the definition as it is.
    pub fn encode(&self) -> Bytes {
        let Self { seq, at_us, actor, action, reason, before, after, definition } = self;
        let header = to_json(&Header {
            seq: *seq,
            at_us: *at_us,
            actor: actor.clone(),
            action: action.as_str().to_owned(),
            reason: reason.clone(),
            before: *before,
            after: *after,
            has_definition: definition.is_some(),
        });
        let body: &[u8] = definition.as_deref().unwrap_or_default();
        let mut bytes = BytesMut::with_capacity(4 + header.len() + body.len());
        // An actor and a reason are bounded, far below 4 GiB.
        bytes.put_u32(header.len() as u32);
        bytes.put_slice(&header);
        bytes.put_slice(body);
        bytes.freeze()
    }

    pub fn decode(mut bytes: Bytes) -> Result<Self, Error> {
        let length = bytes.try_get_u32().map_err(|_| damaged("its length is cut off"))? as usize;
        if bytes.len() < length {
            return Err(damaged("its header is cut off"));
        }
        let header = bytes.split_to(length);
        let Header { seq, at_us, actor, action, reason, before, after, has_definition } = from_json(&header, "version of an item")?;
        let action = Action::parse(&action).ok_or_else(|| damaged("its action has no name"))?;
        let definition = match (has_definition, bytes.is_empty()) {
            (true, _) => Some(bytes),
            (false, true) => None,
            (false, false) => return Err(damaged("something follows its header")),
        };
        Ok(Self { seq, at_us, actor, action, reason, before, after, definition })
    }
}

fn damaged(problem: &str) -> Error {
    Error::corrupt(format!("version of an item: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(definition: Option<Bytes>) -> Version {
        let (actor, reason) = ("ana".to_owned(), "why".to_owned());
        Version { seq: 4, at_us: 5, actor, action: Action::Apply, reason, before: None, after: Some(3), definition }
    }

    #[test]
    fn a_version_survives_the_store() {
        for definition in [None, Some(Bytes::from_static(b"{}"))] {
            assert_eq!(Version::decode(version(definition.clone()).encode()).unwrap(), version(definition));
        }
    }

    #[test]
    fn a_version_that_is_cut_off_is_damage() {
        let bytes = version(None).encode();
        for length in 0..bytes.len() {
            assert!(Version::decode(bytes.slice(..length)).is_err(), "{length} bytes");
        }
    }
}
