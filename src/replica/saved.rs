//! What a restart needs: everything that was received, and of what is rejected the version that is served in its place. Without that
//! version a restart would take the flag away from everybody who asks this sidecar, and a kill of it would find nothing to kill.

use std::collections::HashSet;

use crate::clock::Micros;
use crate::flag::{Item, ItemKind, ItemName, State};
use crate::wire::trip::Trip;

use super::outcome::{Applied, Resync};
use super::received::{check_state, digest_of_log};
use super::writer::{Edits, Writer};

/// A state, and what it takes to serve it as it was served.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Saved {
    /// Everything that was received. Kills that are ahead of the log are in it, with their revisions.
    pub state: State,
    /// Of what is rejected: the last good version, with the revision that it is served at.
    pub served: Vec<Item>,
    /// What this sidecar has killed by itself, and nobody has decided about since.
    pub trips: Vec<Trip>,
    /// See [`super::Replica::pods`].
    pub pods: u32,
}

impl From<State> for Saved {
    fn from(state: State) -> Self {
        Self { state, ..Self::default() }
    }
}

impl Writer {
    /// What the disk is to keep.
    pub fn saved(&self) -> Saved {
        let served = self.rejected.keys().filter_map(|name| self.last_good(name)).collect();
        Saved { state: self.state(), served, trips: self.replica().trips(), pods: self.replica().pods() }
    }

    fn last_good(&self, name: &ItemName) -> Option<Item> {
        let (revision, definition) = match name.kind {
            ItemKind::Flag => self.replica().with(&name.key, |held| held.map(|held| (held.base_revision, held.definition.clone())))?,
            ItemKind::Segment => self.segments.last_good(&name.key)?,
        };
        Some(Item { name: name.clone(), revision, definition })
    }

    /// Takes the whole state from disk; `fresh_us` is the time of the last proof of freshness before it was written. Of many flags none
    /// is compiled yet: they are served at once, and [`Writer::vet`] finds out which of them do not compile.
    ///
    /// What had been rejected goes the way that it went before: the last good version first, then the one that was received, which is
    /// rejected by name again, unless this program understands it.
    pub fn load(&mut self, saved: impl Into<Saved>, fresh_us: Micros) -> Result<Applied, Resync> {
        let Saved { mut state, mut served, trips, pods } = saved.into();
        self.recall_trips(trips);
        self.pods_are(pods);
        if served.is_empty() {
            return self.replace(state, fresh_us, true);
        }
        let names: HashSet<_> = served.iter().map(|item| item.name.clone()).collect();
        let (received, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut state.items).into_iter().partition(|item| names.contains(&item.name));
        if received.is_empty() {
            return self.replace(State { items: rest, ..state }, fresh_us, true);
        }
        let (position, digest, origin_time_us) = (state.position, state.digest, state.origin_time_us);
        check_state(position, digest, received.iter().chain(&rest), &state.kills)?;
        let names: HashSet<_> = received.iter().map(|item| &item.name).collect();
        served.retain(|item| names.contains(&item.name));
        let (segments, flags): (Vec<_>, Vec<_>) = served.into_iter().partition(|item| item.name.kind == ItemKind::Segment);

        state.items = rest;
        state.items.extend(segments);
        state.digest = digest_of_log(position, &state.items, &state.kills);
        self.replace(state, fresh_us, true)?;
        if received.iter().any(|item| item.name.kind == ItemKind::Segment) {
            // One that is understood now changes flags that nobody has looked at yet.
            self.vet_all();
        }
        let edits = |upserts| Edits { upserts, removed: Vec::new(), kills: Vec::new(), whole: false, from_disk: false };
        // They are from before whatever is refused, also where their revisions are those of a segment.
        let refused = std::mem::take(&mut self.refused);
        self.apply(position, digest, origin_time_us, fresh_us, edits(flags));
        self.refused = refused;
        Ok(self.apply(position, digest, origin_time_us, fresh_us, edits(received)))
    }
}
