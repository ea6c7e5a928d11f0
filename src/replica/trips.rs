//! Trips: kills that this sidecar carries out for its own pod, because a guard fired while the control plane was out of reach.
//!
//! A trip is a level like a kill: it stands over reconnects, resyncs and restarts, until somebody has decided about the flag since. That is
//! a definition or a register that is newer than what was held when it happened, or the control plane's word that it is obsolete. Revisions
//! of another epoch say nothing about it: then only that word does.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::flag::{Position, Revision};
use crate::wire::trip::Trip;

use super::map::Trips;
use super::outcome::Applied;
use super::writer::Writer;

/// Of one sidecar. Beyond it nothing is tripped: when so many flags fail, it is not the flags.
pub const TRIPS: usize = 1_000;

impl Writer {
    /// Kills a flag for this pod alone. `None`: it is killed already, another definition is held than the one that failed, or there are
    /// [`TRIPS`] already.
    pub fn trip(&mut self, trip: Trip) -> Option<Applied> {
        self.vet_all();
        let key = trip.flag.clone();
        let held = self.current(&key).filter(|held| !held.flag.is_killed() && held.base_revision == trip.revision)?;
        if self.replica().tripped() >= TRIPS {
            return None;
        }
        let Position { epoch, revision } = self.position();
        // A restore may have come ahead of the log.
        let trip = Trip { held: Position { epoch, revision: revision.max(held.revision) }, ..trip };
        let at_us = trip.at_us;
        self.edit_trips(|trips| drop(trips.insert(key.clone(), trip)));
        if self.replica().tripped() == TRIPS {
            tracing::error!(flags = TRIPS, "so many flags are killed in this pod by their guards that no further one will be");
        }
        let refreshed = self.refresh(&key).into_iter().collect();
        Some(self.publish(refreshed, Vec::new(), at_us, false))
    }

    /// The control plane said that this trip is obsolete. `None`: it is over already.
    pub fn lift(&mut self, trip: &Trip) -> Option<Applied> {
        self.vet_all();
        if self.replica().0.trips.load().get(&trip.flag) != Some(trip) {
            return None;
        }
        self.edit_trips(|trips| drop(trips.remove(&trip.flag)));
        let refreshed = self.refresh(&trip.flag).into_iter().collect();
        Some(self.publish(refreshed, Vec::new(), self.origin_time_us, false))
    }

    /// Sidecars of the environment, as the control plane says.
    pub fn pods_are(&mut self, pods: u32) {
        self.replica().0.pods.store(pods, Ordering::Relaxed);
    }

    /// From disk, before the state that they stand above.
    pub(super) fn recall_trips(&mut self, trips: Vec<Trip>) {
        let trips: Trips = trips.into_iter().take(TRIPS).map(|trip| (trip.flag.clone(), trip)).collect();
        self.replica().0.trips.store(Arc::new(trips));
    }

    /// Whether a definition is killed by a trip, whose flag has a register of this revision.
    pub(super) fn is_tripped(&self, key: &str, base_revision: Revision, register: Revision) -> bool {
        let trips = self.replica().0.trips.load();
        trips.get(key).is_some_and(|trip| {
            let Trip { held, revision, .. } = trip;
            held.epoch != self.position().epoch || (base_revision <= *revision && register <= held.revision)
        })
    }

    /// What comes under this key again is another flag.
    pub(super) fn forget_trip(&mut self, key: &str) {
        if self.replica().0.trips.load().contains_key(key) {
            self.edit_trips(|trips| drop(trips.remove(key)));
        }
    }

    /// Forgets the trips above which something newer stands now.
    pub(super) fn settle_trips(&self) {
        let trips = self.replica().0.trips.load_full();
        if trips.is_empty() {
            return;
        }
        let is_over = |key: &String| {
            let register = self.registers.effective(key, self.position().epoch).map_or(0, |kill| kill.revision);
            self.current(key).is_some_and(|held| !self.is_tripped(key, held.base_revision, register))
        };
        let over: Vec<_> = trips.keys().filter(|key| is_over(key)).collect();
        if !over.is_empty() {
            self.edit_trips(|trips| over.iter().for_each(|key| drop(trips.remove(*key))));
            tracing::info!(flags = ?over, "what the control plane says of these flags takes the place of their local trips");
        }
    }

    fn edit_trips(&self, edit: impl FnOnce(&mut Trips)) {
        let mut trips = Trips::clone(&self.replica().0.trips.load());
        edit(&mut trips);
        self.replica().0.trips.store(Arc::new(trips));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::flag::{Delta, Digest, Item, ItemName, Kill, State};
    use crate::replica::{ChangeKind, Cursor, Replica};

    const EPOCH: u64 = 7;

    struct World {
        replica: Replica,
        writer: Writer,
        cursor: Cursor,
        items: Vec<Item>,
        kills: Vec<Kill>,
    }

    fn item(key: &str, revision: Revision) -> Item {
        let definition = format!(r#"{{"defaultVariant":"on","description":"{revision}","variants":{{"off":false,"on":true}}}}"#);
        Item { name: ItemName::flag(key), revision, definition: definition.into() }
    }

    fn register(revision: Revision, killed: bool) -> Kill {
        Kill { flag_key: "a".into(), revision, killed, actor: "ana".into(), reason: "smoke".into(), at_us: 0 }
    }

    fn trip(key: &str, revision: Revision) -> Trip {
        Trip::sample(key, Position::default(), revision)
    }

    impl World {
        /// Flags `a` and `b` of revision 3, at revision 5.
        fn new() -> Self {
            let (replica, writer) = Replica::new(Arc::new(ManualClock::at(0)));
            let cursor = replica.cursor();
            let mut world = Self { replica, writer, cursor, items: vec![item("a", 3), item("b", 3)], kills: Vec::new() };
            world.resync(5);
            world.heard();
            world
        }

        fn state(&self, epoch: u64, revision: Revision) -> State {
            let (items, kills) = (self.items.clone(), self.kills.iter().filter(|kill| kill.killed).cloned().collect::<Vec<_>>());
            let digest = Digest::of(&items, &self.kills);
            State { position: Position { epoch, revision }, items, kills, digest, origin_time_us: 0 }
        }

        fn resync(&mut self, revision: Revision) {
            let state = self.state(EPOCH, revision);
            self.writer.apply_snapshot(state).unwrap();
        }

        fn delta(&mut self, revision: Revision, upserts: Vec<Item>, kills: Vec<Kill>) {
            for item in &upserts {
                self.items.retain(|held| held.name != item.name);
                self.items.push(item.clone());
            }
            for kill in &kills {
                self.kills = vec![kill.clone()];
            }
            let digest = Digest::of(&self.items, &self.kills);
            let (prev_revision, removed) = (self.writer.position().revision, Vec::new());
            let delta = Delta { epoch: EPOCH, prev_revision, revision, upserts, removed, kills, digest, origin_time_us: 0 };
            self.writer.apply_delta(delta).unwrap();
        }

        fn is_killed(&self, key: &str) -> bool {
            self.replica.with(key, |held| held.unwrap().flag.is_killed())
        }

        fn heard(&mut self) -> Vec<(String, ChangeKind)> {
            let changes = self.replica.changes_after(self.cursor, 100);
            self.cursor = changes.cursor;
            changes.notes.iter().map(|(kind, note)| (note.key.to_string(), *kind)).collect()
        }
    }

    #[test]
    fn a_trip_kills_one_flag_here_and_watchers_hear_of_a_kill() {
        let mut world = World::new();
        world.writer.trip(trip("a", 3)).unwrap();
        assert_eq!((world.is_killed("a"), world.is_killed("b"), world.replica.tripped()), (true, false, 1));
        assert_eq!(world.heard(), [("a".to_owned(), ChangeKind::Killed)]);
        assert_eq!(world.replica.trips()[0].held, Position { epoch: EPOCH, revision: 5 });
        assert!(world.writer.trip(trip("a", 3)).is_none(), "one is enough");
        assert!(world.writer.trip(trip("b", 2)).is_none(), "another definition is held than the one that failed");
        assert!(world.writer.trip(trip("nobody", 3)).is_none());
    }

    #[test]
    fn a_trip_stands_over_changes_of_others_resyncs_and_signs_of_life() {
        let mut world = World::new();
        world.writer.trip(trip("a", 3)).unwrap();
        world.heard();
        world.delta(6, vec![item("b", 6)], Vec::new());
        world.resync(7);
        let digest = world.writer.digest();
        world.writer.confirm_fresh(Position { epoch: EPOCH, revision: 7 }, digest).unwrap();
        assert!(world.is_killed("a"));
        assert!(!world.heard().iter().any(|(key, kind)| key == "a" && *kind == ChangeKind::Restored));
    }

    #[test]
    fn a_trip_stands_after_a_restart_also_among_flags_that_nobody_has_compiled_yet() {
        for others in [0, 1_500] {
            let mut world = World::new();
            world.items.extend((0..others).map(|number| item(&format!("other-{number}"), 3)));
            world.resync(6);
            world.writer.trip(trip("a", 3)).unwrap();
            world.writer.pods_are(812);
            let (replica, mut writer) = Replica::new(Arc::new(ManualClock::at(0)));
            writer.load(world.writer.saved(), 0).unwrap();
            let is_killed = || replica.with("a", |held| held.unwrap().flag.is_killed());
            assert!(is_killed(), "at once");
            writer.vet(usize::MAX);
            assert!(is_killed(), "and after a look at all of them");
            assert_eq!((replica.trips(), replica.pods()), (world.replica.trips(), 812));
        }
    }

    #[test]
    fn a_kill_for_everybody_takes_the_place_of_the_trip_and_its_end_ends_both() {
        let mut world = World::new();
        world.writer.trip(trip("a", 3)).unwrap();
        world.heard();
        world.writer.apply_kill(EPOCH, register(6, true)).unwrap();
        assert_eq!((world.is_killed("a"), world.replica.tripped()), (true, 0));
        assert_eq!(world.heard().iter().filter(|(_, kind)| *kind == ChangeKind::Restored).count(), 0);
        world.delta(7, Vec::new(), vec![register(7, false)]);
        assert!(!world.is_killed("a"));
        assert_eq!(world.heard(), [("a".to_owned(), ChangeKind::Restored)]);
    }

    #[test]
    fn a_restore_or_a_definition_since_the_trip_ends_it() {
        let restored = (Vec::new(), vec![register(6, false)]);
        let redefined = (vec![item("a", 6)], Vec::new());
        for (upserts, kills) in [restored, redefined] {
            let mut world = World::new();
            world.writer.trip(trip("a", 3)).unwrap();
            world.delta(6, upserts, kills);
            assert_eq!((world.is_killed("a"), world.replica.tripped()), (false, 0));
        }
    }

    #[test]
    fn a_flag_that_is_gone_takes_its_trip_with_it() {
        let mut world = World::new();
        world.writer.trip(trip("a", 3)).unwrap();
        world.items.retain(|item| item.name.key != "a");
        world.resync(6);
        assert_eq!(world.replica.tripped(), 0);
        world.items.push(item("a", 7));
        world.resync(7);
        assert!(!world.is_killed("a"));
    }

    #[test]
    fn in_another_epoch_only_the_word_of_the_control_plane_ends_it() {
        let mut world = World::new();
        world.writer.trip(trip("a", 3)).unwrap();
        world.items = vec![item("a", 9), item("b", 9)];
        let state = world.state(EPOCH + 1, 9);
        world.writer.apply_snapshot(state).unwrap();
        assert!(world.is_killed("a"));
        world.heard();
        let tripped = world.replica.trips().remove(0);
        assert!(world.writer.lift(&Trip { at_us: 1, ..tripped.clone() }).is_none(), "another one");
        world.writer.lift(&tripped).unwrap();
        assert_eq!((world.is_killed("a"), world.replica.tripped()), (false, 0));
        assert_eq!(world.heard(), [("a".to_owned(), ChangeKind::Restored)]);
        assert!(world.writer.lift(&tripped).is_none());
    }

    #[test]
    fn beyond_the_limit_nothing_is_tripped() {
        let mut world = World::new();
        world.items = (0..=TRIPS).map(|number| item(&format!("flag-{number}"), 6)).collect();
        world.resync(6);
        let tripped = (0..=TRIPS).filter(|number| world.writer.trip(trip(&format!("flag-{number}"), 6)).is_some()).count();
        assert_eq!((tripped, world.replica.tripped()), (TRIPS, TRIPS));
    }
}
