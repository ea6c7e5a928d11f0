//! Whether a trip of a sidecar that was out of reach still means anything when it is told here.

use super::environment::Environment;
use super::error::Error;
use super::rollout::evidence_revision;
use crate::flag::{Flag, ItemName, Position, Revision};

/// What the sidecar had before it when a guard fired.
#[derive(Debug, Clone)]
pub(super) struct Tripped {
    pub(super) guard: String,
    pub(super) revision: Revision,
    pub(super) held: Position,
}

impl Tripped {
    /// Refuses the trip when somebody has decided about the flag since, or when nobody can tell. What failed goes on to fail in that case,
    /// and the guards here see it with all other pods.
    pub(super) fn check(&self, state: &Environment, flag: &str) -> Result<(), Error> {
        match self.obsolete(state, flag) {
            Some(why) => Err(Error::TripObsolete { flag: flag.to_owned(), why }),
            None => Ok(()),
        }
    }

    fn obsolete(&self, state: &Environment, flag: &str) -> Option<String> {
        let Self { guard, revision, held } = self;
        let Some(newest) = evidence_revision(state, flag) else { return Some("the flag is gone".to_owned()) };
        if held.epoch != state.head.position.epoch {
            return Some(format!("epoch {:x} is over, this is epoch {:x}", held.epoch, state.head.position.epoch));
        }
        if newest != *revision {
            return Some(format!("revision {revision} failed, and the flag is at revision {newest}"));
        }
        let definition = state.items.get(&ItemName::flag(flag)).and_then(|item| Flag::from_json(&item.definition).ok());
        if !definition.is_some_and(|flag| flag.guard.iter().any(|known| known.name == *guard)) {
            return Some(format!("the flag has no guard {guard:?}"));
        }
        // Whoever killed it has done what the trip asks for.
        if state.kills.contains_key(flag) {
            return None;
        }
        match state.log.kills_after(held.revision) {
            Some(registers) => {
                let restored = registers.into_iter().find(|register| register.flag_key == flag)?;
                Some(format!("the flag was restored at revision {}", restored.revision))
            }
            None => {
                Some(format!("the log does not reach back to revision {}: whether the flag was restored since is not known", held.revision))
            }
        }
    }
}
