//! What a sidecar holds: the map of compiled flags that answers, its one writer, and how it follows the control plane.
//!
//! Readers go through [`Replica`], which is cheap to clone. Everything that changes goes through the one [`Writer`], which cannot be
//! cloned: that one task writes is a type, not a habit.

mod aging;
mod apply;
mod changes;
pub mod disk;
pub mod follow;
mod map;
mod news;
mod outcome;
mod received;
mod refused;
mod registers;
mod saved;
mod segments;
mod sheets;
mod slot;
mod trips;
mod vetting;
mod writer;

pub use changes::{ChangeKind, Changes, Cursor, FRAME_SLOTS, FormerTags, Note};
pub use map::{Held, Lookups, Replica, View};
pub use outcome::{Applied, Rejected, Resync};
pub use saved::Saved;
pub use sheets::{Sheet, Sheets};
pub use trips::TRIPS;
pub use writer::Writer;

use std::sync::Arc;

use crate::clock::Clock;
use crate::flag::Naming;

impl Replica {
    /// An empty replica, which is not usable until its writer has applied a state.
    pub fn new(clock: Arc<dyn Clock>) -> (Self, Writer) {
        Self::named(Naming::Ours, clock)
    }

    /// The same for flags whose names follow that rule.
    pub fn named(naming: Naming, clock: Arc<dyn Clock>) -> (Self, Writer) {
        let replica = Self::empty(naming, clock);
        let writer = Writer::of(replica.clone());
        (replica, writer)
    }
}
