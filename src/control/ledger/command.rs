//! What can be asked of the ledger, and what it answers.

use bytes::Bytes;

use crate::flag::{Digest, ItemName, Position, Revision};
use crate::rollout::Event;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// 1 to 256 bytes without control characters.
    pub name: String,
}

/// One change. `expect`: the revision that the writer saw; a key that the change touches and that somebody changed after it is a
/// conflict. Without it the last writer wins.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    CreateEnvironment {
        name: String,
    },
    /// Everything that `from` holds, standing kills included: a copy never runs what its original has stopped.
    CopyEnvironment {
        from: String,
        to: String,
    },
    /// Every flag and segment of the document (YAML or JSON); what it does not name is left alone.
    Apply {
        environment: String,
        document: String,
        expect: Option<Revision>,
    },
    /// A killed flag's kill goes with it. Refused while another flag or segment refers to the item.
    Delete {
        environment: String,
        item: ItemName,
        expect: Option<Revision>,
    },
    /// The definition that the item had at `to`. Kills stand.
    Revert {
        environment: String,
        item: ItemName,
        to: Revision,
        expect: Option<Revision>,
    },
    /// Idempotent, and ahead of every other command that waits.
    Kill {
        environment: String,
        flag: String,
    },
    /// The kill that a sidecar asks for which was out of reach when a guard of the flag fired. Refused when somebody has decided about the
    /// flag since.
    Trip {
        environment: String,
        flag: String,
        guard: String,
        /// Of the definition that failed, as for evidence.
        revision: Revision,
        /// What the sidecar held when it happened.
        held: Position,
    },
    /// Ends a kill; with `percent`, the flag comes back with its split at that share, in the same change.
    Restore {
        environment: String,
        flag: String,
        percent: Option<f64>,
        expect: Option<Revision>,
    },
    /// What happens to the flag's rollout, decided by [`crate::rollout::step`] on the state as it is when the turn comes. A tick that
    /// changes nothing is no change.
    Rollout {
        environment: String,
        flag: String,
        event: Event,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Of this change; when nothing had to be done, of the change that stands.
    pub position: Position,
    pub changed: bool,
    pub changes: Vec<ItemChange>,
}

/// An item before and after a change. A kill leaves both the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemChange {
    pub item: ItemName,
    /// Canonical JSON; `None`: there was no such item.
    pub before: Option<Bytes>,
    /// Canonical JSON; `None`: there is none any more.
    pub after: Option<Bytes>,
}

/// Where an environment is. It moves only after the change is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    pub position: Position,
    pub digest: Digest,
    /// When the newest change was committed: Unix time, microseconds.
    pub origin_time_us: i64,
}

impl Actor {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}
