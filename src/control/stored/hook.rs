//! A hook of a flag: what its token hashes to, and which alerts it has acted on. The token itself is kept nowhere.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::codec::{from_json, to_json};
use crate::control::audit::Hash;
use crate::control::hex;
use crate::control::store::Error;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    pub id: String,
    /// SHA-256 of the token: it is 256 random bits, so that nothing slower is needed.
    pub token: Hash,
    /// An alert that began longer ago than this does not kill.
    pub max_age_us: i64,
    pub created_us: i64,
    /// Who made it, and why.
    pub actor: String,
    pub reason: String,
    /// In the order in which they came.
    pub seen: Vec<Seen>,
}

/// An alert that the hook has acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub alert: Identity,
    /// When it came.
    pub at_us: i64,
}

/// Half of a SHA-256: what an alert is known by.
pub type Identity = [u8; 16];

const SEEN_BYTES: usize = size_of::<Identity>() + size_of::<i64>();

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    id: String,
    token: String,
    max_age_us: i64,
    created_us: i64,
    actor: String,
    reason: String,
}

impl Hook {
    /// Length of the header, four bytes; the header, JSON; 24 bytes for each alert that was seen.
    pub fn encode(&self) -> Bytes {
        let Self { id, token, max_age_us, created_us, actor, reason, seen } = self;
        let (id, token, actor, reason) = (id.clone(), hex::encode(token), actor.clone(), reason.clone());
        let header = to_json(&Header { id, token, max_age_us: *max_age_us, created_us: *created_us, actor, reason });
        let mut bytes = BytesMut::with_capacity(4 + header.len() + seen.len() * SEEN_BYTES);
        // An actor and a reason are bounded, far below 4 GiB.
        bytes.put_u32(header.len() as u32);
        bytes.put_slice(&header);
        for Seen { alert, at_us } in seen {
            bytes.put_slice(alert);
            bytes.put_i64(*at_us);
        }
        bytes.freeze()
    }

    pub fn decode(mut bytes: Bytes) -> Result<Self, Error> {
        let length = bytes.try_get_u32().map_err(|_| damaged("its length is cut off"))? as usize;
        if bytes.len() < length {
            return Err(damaged("its header is cut off"));
        }
        let header = bytes.split_to(length);
        let Header { id, token, max_age_us, created_us, actor, reason } = from_json(&header, "hook")?;
        let token = hex::decode(&token).ok_or_else(|| damaged("the hash of its token is none"))?;
        if !bytes.len().is_multiple_of(SEEN_BYTES) {
            return Err(damaged("an alert that it has seen is cut off"));
        }
        let mut seen = Vec::with_capacity(bytes.len() / SEEN_BYTES);
        while bytes.has_remaining() {
            let mut alert = Identity::default();
            bytes.copy_to_slice(&mut alert);
            seen.push(Seen { alert, at_us: bytes.get_i64() });
        }
        Ok(Self { id, token, max_age_us, created_us, actor, reason, seen })
    }
}

fn damaged(problem: &str) -> Error {
    Error::corrupt(format!("hook: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(alerts: u8) -> Hook {
        let seen = (0..alerts).map(|number| Seen { alert: [number; 16], at_us: -i64::from(number) }).collect();
        let (id, actor, reason) = ("0123456789ab".to_owned(), "ana".to_owned(), "pages".to_owned());
        Hook { id, token: [7; 32], max_age_us: 3_600_000_000, created_us: 5, actor, reason, seen }
    }

    #[test]
    fn a_hook_survives_the_store() {
        for alerts in [0, 1, 3] {
            assert_eq!(Hook::decode(hook(alerts).encode()).unwrap(), hook(alerts));
        }
    }

    #[test]
    fn a_hook_that_is_cut_off_is_damage() {
        let bytes = hook(1).encode();
        let whole = hook(0).encode().len();
        for length in (0..bytes.len()).filter(|length| *length != whole) {
            assert!(Hook::decode(bytes.slice(..length)).is_err(), "{length} bytes");
        }
    }
}
