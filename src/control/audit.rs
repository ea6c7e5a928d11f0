//! Who changed what, when and why: a chain of records in which each carries the hash of the one before it.
//!
//! A record is written in the same transaction as its change, so that there is neither a change without a record nor two orders. The
//! chain shows every alteration to whoever knows a later hash; somebody who can rewrite the whole store can also rewrite the whole chain,
//! which is why `audit --verify` prints the head hash: note it elsewhere. Records are never dropped.

mod record;
mod verify;

use sha2::{Digest as _, Sha256};

use crate::flag::{ItemName, Position};

pub use record::{kind_name, kind_of};
pub use verify::{Broken, Verdict, Verifier};

/// SHA-256.
pub type Hash = [u8; 32];

/// The hash that the first record carries as its predecessor's.
pub const GENESIS: Hash = [0; 32];

/// One change of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// 1, 2, 3 ... over all environments.
    pub seq: u64,
    /// Unix time, microseconds.
    pub at_us: i64,
    pub actor: String,
    pub action: Action,
    /// Empty when the whole store is meant.
    pub environment: String,
    pub position: Position,
    pub reason: String,
    /// What the action alone does not say: where a copy came from, what was reverted to. May be empty.
    pub detail: String,
    pub changes: Vec<Touched>,
    pub prev_hash: Hash,
    /// Over every field above, each with its length.
    pub hash: Hash,
}

/// An item that a change touched. The definitions are kept beside the chain and held by their hashes; a kill leaves both the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    pub item: ItemName,
    pub before: Option<Hash>,
    pub after: Option<Hash>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    CreateEnvironment,
    CopyEnvironment,
    Apply,
    Delete,
    Revert,
    Kill,
    Restore,
    RestoreBackup,
    Rollout,
    CreateHook,
    RevokeHook,
    /// An alert came by a hook while its flag was killed already.
    NoteAlert,
    /// Statistics of a metric came from elsewhere, and gates read them.
    PushMetric,
}

/// The newest record of a chain: what the next one continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainHead {
    pub seq: u64,
    pub hash: Hash,
}

/// A record before its place in the chain is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub at_us: i64,
    pub actor: String,
    pub action: Action,
    pub environment: String,
    pub position: Position,
    pub reason: String,
    pub detail: String,
    pub changes: Vec<Touched>,
}

pub fn sha256(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

impl ChainHead {
    /// Of a chain without records.
    pub const NONE: Self = Self { seq: 0, hash: GENESIS };

    pub fn append(self, draft: Draft) -> Record {
        let Draft { at_us, actor, action, environment, position, reason, detail, changes } = draft;
        let (seq, prev_hash) = (self.seq + 1, self.hash);
        let mut record = Record { seq, at_us, actor, action, environment, position, reason, detail, changes, prev_hash, hash: GENESIS };
        record.hash = record.expected_hash();
        record
    }
}

impl Record {
    pub fn head(&self) -> ChainHead {
        ChainHead { seq: self.seq, hash: self.hash }
    }

    /// SHA-256 over the hashes of the definitions before the change; `None` when there were none.
    pub fn before_hash(&self) -> Option<Hash> {
        combined(self.changes.iter().map(|touched| touched.before))
    }

    /// SHA-256 over the hashes of the definitions after the change; `None` when there are none.
    pub fn after_hash(&self) -> Option<Hash> {
        combined(self.changes.iter().map(|touched| touched.after))
    }

    pub fn expected_hash(&self) -> Hash {
        let Self { seq, at_us, actor, action, environment, position, reason, detail, changes, prev_hash, hash: _ } = self;
        let mut fields = Fields(Sha256::new());
        fields.add(b"yardarm-audit-v1");
        fields.add(&seq.to_le_bytes());
        fields.add(&at_us.to_le_bytes());
        fields.add(actor.as_bytes());
        fields.add(action.as_str().as_bytes());
        fields.add(environment.as_bytes());
        fields.add(&position.epoch.to_le_bytes());
        fields.add(&position.revision.to_le_bytes());
        fields.add(reason.as_bytes());
        fields.add(detail.as_bytes());
        fields.add(&(changes.len() as u64).to_le_bytes());
        for Touched { item, before, after } in changes {
            fields.add(item.to_string().as_bytes());
            fields.add(before.as_ref().map_or(&[], Hash::as_slice));
            fields.add(after.as_ref().map_or(&[], Hash::as_slice));
        }
        fields.add(prev_hash);
        fields.0.finalize().into()
    }
}

/// Lengths go before what they measure, so that no two records spell the same bytes.
struct Fields(Sha256);

impl Fields {
    fn add(&mut self, field: &[u8]) {
        self.0.update((field.len() as u64).to_le_bytes());
        self.0.update(field);
    }
}

fn combined(hashes: impl Iterator<Item = Option<Hash>>) -> Option<Hash> {
    let hashes: Vec<Hash> = hashes.flatten().collect();
    (!hashes.is_empty()).then(|| sha256(&hashes.concat()))
}

impl Action {
    pub const ALL: [Self; 13] = [
        Self::CreateEnvironment,
        Self::CopyEnvironment,
        Self::Apply,
        Self::Delete,
        Self::Revert,
        Self::Kill,
        Self::Restore,
        Self::RestoreBackup,
        Self::Rollout,
        Self::CreateHook,
        Self::RevokeHook,
        Self::NoteAlert,
        Self::PushMetric,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateEnvironment => "create-environment",
            Self::CopyEnvironment => "copy-environment",
            Self::Apply => "apply",
            Self::Delete => "delete",
            Self::Revert => "revert",
            Self::Kill => "kill",
            Self::Restore => "restore",
            Self::RestoreBackup => "restore-backup",
            Self::Rollout => "rollout",
            Self::CreateHook => "create-hook",
            Self::RevokeHook => "revoke-hook",
            Self::NoteAlert => "note-alert",
            Self::PushMetric => "push-metric",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn draft(reason: &str) -> Draft {
        Draft {
            at_us: 1_700_000_000_000_000,
            actor: "ana".into(),
            action: Action::Apply,
            environment: "prod".into(),
            position: Position { epoch: 7, revision: 3 },
            reason: reason.into(),
            detail: "from staging".into(),
            changes: vec![Touched { item: ItemName::flag("checkout"), before: None, after: Some(sha256(b"{}")) }],
        }
    }

    #[test]
    fn a_record_carries_the_hash_of_the_one_before_it() {
        let first = ChainHead::NONE.append(draft("a"));
        let second = first.head().append(draft("b"));
        assert_eq!((first.seq, first.prev_hash), (1, GENESIS));
        assert_eq!((second.seq, second.prev_hash), (2, first.hash));
    }

    #[test]
    fn every_field_is_under_the_hash() {
        let record = ChainHead::NONE.append(draft("why"));
        let mut altered = vec![record.clone(); 12];
        altered[0].seq += 1;
        altered[1].at_us += 1;
        altered[2].actor.push('x');
        altered[3].action = Action::Kill;
        altered[4].environment.clear();
        altered[5].position.epoch += 1;
        altered[6].position.revision += 1;
        altered[7].reason.push('x');
        altered[8].changes[0].before = Some(GENESIS);
        altered[9].changes[0].item = ItemName::segment("checkout");
        altered[10].prev_hash[31] ^= 1;
        altered[11].detail.clear();
        for altered in altered {
            assert_ne!(altered.expected_hash(), record.hash, "{altered:?}");
        }
    }

    #[test]
    fn text_cannot_move_from_one_field_to_the_next() {
        let one = ChainHead::NONE.append(Draft { actor: "ab".into(), environment: "c".into(), ..draft("") });
        let two = ChainHead::NONE.append(Draft { actor: "a".into(), environment: "bc".into(), ..draft("") });
        assert_ne!(one.hash, two.hash);
    }

    #[test]
    fn action_names_lead_back() {
        for action in Action::ALL {
            assert_eq!(Action::parse(action.as_str()), Some(action));
        }
    }
}
