//! A flag in the map: compiled, or to be compiled when somebody first asks for it.
//!
//! An environment may have ten thousand flags, and an application asks for a hundred of them. Compiled, the others would be half of a
//! sidecar's memory, and compiling them before the first answer most of its start. What is left cold compiles in microseconds, and the
//! writer has compiled it before (or is about to, after a start from disk), so that it was refused by name where it had to be.

use std::sync::OnceLock;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::flag::{Naming, Revision};

use super::apply::compile_definition;
use super::map::Held;
use super::segments::Served;

pub(super) enum Slot {
    Ready(Held),
    Cold(Cold),
}

pub(super) struct Cold {
    definition: Bytes,
    revision: Revision,
    killed: bool,
    kill_revision: Revision,
    /// `None`: it does not compile, which the writer tells.
    held: OnceLock<Option<Box<Held>>>,
}

impl Cold {
    /// `revision` is the definition's own. `kill_revision` is 0 when it was neither killed nor restored.
    pub(super) fn new(definition: Bytes, revision: Revision, killed: bool, kill_revision: Revision) -> Self {
        Self { definition, revision, killed, kill_revision, held: OnceLock::new() }
    }

    fn compile(&self, naming: Naming, key: &str, segments: &Served) -> Option<Box<Held>> {
        let Self { definition, revision, killed, kill_revision, held: _ } = self;
        let flag = compile_definition(naming, key, definition, segments.compiled()).ok()?.with_kill(*killed);
        let base_revision = segments.newest_read_by(&flag).max(*revision);
        let revision = base_revision.max(*kill_revision);
        Some(Box::new(Held::new(flag, revision, definition.clone(), base_revision)))
    }
}

impl Slot {
    /// Whoever asks first compiles; who asks meanwhile waits for that.
    #[inline]
    pub(super) fn held(&self, naming: Naming, key: &str, segments: &ArcSwap<Served>) -> Option<&Held> {
        match self {
            Self::Ready(held) => Some(held),
            Self::Cold(cold) => cold.held.get_or_init(|| cold.compile(naming, key, &segments.load())).as_deref(),
        }
    }

    pub(super) fn is_killed(&self) -> bool {
        match self {
            Self::Ready(held) => held.flag.is_killed(),
            Self::Cold(cold) => cold.killed,
        }
    }

    /// The one allocation that everybody shares for as long as the flag is not changed.
    pub(super) fn definition(&self) -> &Bytes {
        match self {
            Self::Ready(held) => &held.definition,
            Self::Cold(cold) => &cold.definition,
        }
    }

    /// `None` for a cold one, even if it was asked for.
    pub(super) fn ready(&self) -> Option<&Held> {
        match self {
            Self::Ready(held) => Some(held),
            Self::Cold(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cold(definition: &'static str, killed: bool) -> Slot {
        Slot::Cold(Cold::new(Bytes::from_static(definition.as_bytes()), 3, killed, if killed { 5 } else { 0 }))
    }

    #[test]
    fn a_cold_flag_is_what_it_would_be_compiled() {
        let segments = ArcSwap::default();
        let slot = cold(r#"{"defaultVariant":"on","variants":{"off":false,"on":true}}"#, true);
        let held = slot.held(Naming::Ours, "a", &segments).unwrap();
        assert_eq!((held.flag.key(), held.flag.is_killed(), held.revision, held.base_revision), ("a", true, 5, 3));
        assert!(std::ptr::eq(held, slot.held(Naming::Ours, "a", &segments).unwrap()), "it was compiled twice");
        assert!(slot.ready().is_none());
    }

    #[test]
    fn a_cold_flag_that_does_not_compile_is_none() {
        assert!(cold(r#"{"variants":{}}"#, false).held(Naming::Ours, "a", &ArcSwap::default()).is_none());
    }

    #[test]
    fn a_cold_flag_takes_no_more_room_in_the_map_than_a_compiled_one() {
        assert!(size_of::<Slot>() <= size_of::<Held>() + 8, "{} bytes", size_of::<Slot>());
    }
}
