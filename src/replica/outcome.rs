//! What becomes of a change: it is applied, with or without what is rejected of it, or nothing of it is.

use std::sync::Arc;

use crate::clock::Micros;
use crate::flag::{Digest, ItemName, Position, Revision};

/// A definition that the control plane sent and that this replica cannot serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub name: ItemName,
    pub revision: Revision,
    pub message: String,
    /// Revision of the version that is served instead; 0 when there is none.
    pub held_revision: Revision,
}

/// A change became visible to readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub position: Position,
    pub digest: Digest,
    pub applied_at_us: Micros,
    /// Every definition that is rejected now, not only by this change.
    pub rejected: Arc<[Rejected]>,
}

/// Why a change was not applied. Nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Resync {
    #[error("gap: the change follows revision {found}, this replica is at {held}")]
    Gap { held: Revision, found: Revision },
    #[error("digest mismatch at revision {revision}: {found} was announced, {held} is held")]
    DigestMismatch { revision: Revision, held: Digest, found: Digest },
    #[error("epoch {found:x} is not epoch {held:x}: the store was restored or replaced")]
    Epoch { held: u64, found: u64 },
    #[error("behind: the control plane is at revision {head}, this replica at {held}")]
    Behind { held: Revision, head: Revision },
    /// A resync would bring the same again.
    #[error("the environment would have {found} {what}, at most {limit} are allowed")]
    TooLarge { what: &'static str, found: usize, limit: usize },
}
