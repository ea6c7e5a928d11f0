//! The write side. A change is checked and compiled first, outside any lock; then it becomes visible as one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clock::Micros;
use crate::flag::{Delta, Digest, Item, ItemKind, ItemName, Kill, Position, Revision, State};

use super::aging::Aging;
use super::apply::{self, Body, COLD_FROM, Compiled};
use super::changes::{Entry, LISTED_AT_ONCE, Moment};
use super::map::{Header, Held, Replica};
use super::news;
use super::outcome::{Applied, Rejected, Resync};
use super::received::{Received, check_state};
use super::refused::{self, Refused};
use super::registers::Registers;
use super::segments::Shelf;
use super::slot::{Cold, Slot};
use super::vetting::Unvetted;

/// The only way to change a [`Replica`].
pub struct Writer {
    replica: Replica,
    position: Position,
    digest: Digest,
    pub(super) origin_time_us: Micros,
    pub(super) received: Received,
    pub(super) segments: Shelf,
    pub(super) registers: Registers,
    pub(super) rejected: BTreeMap<ItemName, Rejected>,
    pub(super) refused: Refused,
    /// Prerequisite -> flags that have it.
    dependents: HashMap<String, HashSet<Arc<str>>>,
    pub(super) aging: Aging,
    pub(super) unvetted: Unvetted,
}

impl Writer {
    pub(super) fn of(replica: Replica) -> Self {
        Self {
            replica,
            position: Position::default(),
            digest: Digest::default(),
            origin_time_us: 0,
            received: Received::default(),
            segments: Shelf::default(),
            registers: Registers::default(),
            rejected: BTreeMap::new(),
            refused: Refused::default(),
            dependents: HashMap::new(),
            aging: Aging::default(),
            unvetted: Unvetted::default(),
        }
    }

    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Takes the whole state from the control plane, which is a proof of freshness.
    pub fn apply_snapshot(&mut self, state: State) -> Result<Applied, Resync> {
        let now_us = self.replica.0.clock.now_us();
        self.replace(state, now_us, false)
    }

    pub fn apply_delta(&mut self, delta: Delta) -> Result<Applied, Resync> {
        self.vet_all();
        let Delta { epoch, prev_revision, revision, upserts, removed, kills, digest, origin_time_us } = delta;
        if epoch != self.position.epoch {
            return Err(Resync::Epoch { held: self.position.epoch, found: epoch });
        }
        if prev_revision != self.position.revision {
            return Err(Resync::Gap { held: self.position.revision, found: prev_revision });
        }
        let expected = self.digest_after(&upserts, &removed, &kills);
        if expected != digest {
            return Err(Resync::DigestMismatch { revision, held: expected, found: digest });
        }
        self.received.check_size(&upserts, &removed)?;
        let edits = Edits { upserts, removed, kills, whole: false, from_disk: false };
        let now_us = self.replica.0.clock.now_us();
        Ok(self.apply(Position { epoch, revision }, digest, origin_time_us, now_us, edits))
    }

    /// Applies a register from the kill lane. `None` when it says nothing new.
    pub fn apply_kill(&mut self, epoch: u64, kill: Kill) -> Option<Applied> {
        let (key, origin_time_us) = (kill.flag_key.clone(), kill.at_us);
        if !self.registers.announce(epoch, kill, self.position) {
            return None;
        }
        if !self.is_vetted() {
            self.unvetted.toggled.push(key.as_str().into());
        }
        let refreshed = self.refresh(&key).into_iter().collect();
        Some(self.publish(refreshed, Vec::new(), origin_time_us, false))
    }

    /// The control plane said where it stands. When that is what is held, it is a proof of freshness; when it is less, it was said before
    /// what is held came another way, and proves nothing.
    pub fn confirm_fresh(&mut self, head: Position, digest: Digest) -> Result<(), Resync> {
        if head.epoch != self.position.epoch {
            return Err(Resync::Epoch { held: self.position.epoch, found: head.epoch });
        }
        if head.revision < self.position.revision {
            return Ok(());
        }
        if head.revision > self.position.revision {
            return Err(Resync::Behind { held: self.position.revision, head: head.revision });
        }
        if digest != self.digest {
            return Err(Resync::DigestMismatch { revision: head.revision, held: self.digest, found: digest });
        }
        self.replica.0.fresh_us.store(self.replica.0.clock.now_us(), Ordering::Relaxed);
        let void = self.registers.settle(self.position.epoch);
        if !void.is_empty() {
            let refreshed = void.iter().filter_map(|key| self.refresh(key)).collect();
            self.publish(refreshed, Vec::new(), self.origin_time_us, false);
        }
        Ok(())
    }

    pub fn position(&self) -> Position {
        self.position
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Everything that was received. Kills that are ahead of the log are in it, with their revisions.
    pub fn state(&self) -> State {
        State {
            position: self.position,
            items: self.received.items().collect(),
            kills: self.registers.standing(self.position.epoch),
            digest: self.digest,
            origin_time_us: self.origin_time_us,
        }
    }

    pub(super) fn replace(&mut self, state: State, fresh_us: Micros, from_disk: bool) -> Result<Applied, Resync> {
        self.vet_all();
        let State { position, items, kills, digest, origin_time_us } = state;
        check_state(position, digest, &items, &kills)?;
        let (kills, ahead): (Vec<_>, Vec<_>) = kills.into_iter().partition(|kill| kill.revision <= position.revision);

        let removed = self.received.missing_from(&items);
        if position.epoch != self.position.epoch {
            // Revisions start anew, so that even an equal definition has another history.
            self.received.distrust(true);
        }
        for kill in ahead {
            self.registers.announce(position.epoch, kill, position);
        }
        let edits = Edits { upserts: items, removed, kills, whole: true, from_disk };
        Ok(self.apply(position, digest, origin_time_us, fresh_us, edits))
    }

    pub(super) fn apply(&mut self, position: Position, digest: Digest, origin_time_us: Micros, fresh_us: Micros, edits: Edits) -> Applied {
        let Edits { upserts, removed, kills, whole, from_disk } = edits;
        let mut touched: HashSet<String> = HashSet::new();

        if whole {
            touched.extend(self.registers.clear_log(self.position.epoch, position));
            touched.extend(self.registers.keys_ahead().cloned());
            self.registers.settle(position.epoch);
        }
        for name in &removed {
            self.forget(name);
        }
        for kill in kills {
            touched.insert(kill.flag_key.clone());
            self.registers.set(kill);
        }
        self.position = position;
        self.digest = digest;
        self.origin_time_us = origin_time_us;
        self.registers.catch_up(position);

        let news = upserts.into_iter().filter(|item| self.received.insert(item)).collect();
        self.received.distrust(false);
        let (news, refused) = self.refused.split(position.epoch, news);
        for item in refused {
            self.reject(item.name, item.revision, refused::MESSAGE.to_owned());
        }
        let (segments, mut jobs): (Vec<_>, Vec<_>) = news.into_iter().partition(|item| item.name.kind == ItemKind::Segment);
        let (gone_flags, gone_segments): (Vec<_>, Vec<_>) = removed.into_iter().partition(|name| name.kind == ItemKind::Flag);
        let changed_segments = self.change_segments(segments, gone_segments);
        jobs.extend(self.readers_of(&changed_segments, &jobs));
        // Straight into the list that is published: of an environment, each list in between would be megabytes that the allocator keeps.
        let mut refreshed: Vec<Refreshed> = Vec::with_capacity(jobs.len());
        let mut take = |writer: &mut Self, compiled: Compiled| {
            let Some(refresh) = writer.take(compiled) else { return };
            touched.remove(&*refresh.key);
            refreshed.push(refresh);
        };
        let unvetted = from_disk && jobs.len() >= COLD_FROM;
        if unvetted {
            self.replica.0.segments.store(Arc::new(self.segments.served().clone()));
            jobs.into_iter().for_each(|item| take(self, Compiled { item, result: Ok(Body::Cold) }));
        } else {
            let compiled = apply::compile_all(self.replica.0.naming, jobs, self.segments.served().compiled());
            compiled.into_iter().for_each(|compiled| take(self, compiled));
        }
        refreshed.extend(touched.iter().filter_map(|key| self.refresh(key)));
        if unvetted {
            self.unvetted.keys = refreshed.iter().map(|refreshed| refreshed.key.clone()).collect();
        }
        let gone = gone_flags.into_iter().map(|name| name.key).collect();
        self.replica.0.fresh_us.store(fresh_us, Ordering::Relaxed);
        self.publish(refreshed, gone, origin_time_us, true)
    }

    fn forget(&mut self, name: &ItemName) {
        self.received.remove(name);
        self.rejected.remove(name);
        if name.kind == ItemKind::Flag {
            self.registers.forget(&name.key);
            self.forget_trip(&name.key);
            self.depends_no_more(&name.key);
            self.aging.forget(&name.key);
        }
    }

    /// Flags that read one of these segments, or that could not be compiled and might be now, and are not compiled anyway.
    fn readers_of(&self, segments: &HashSet<String>, jobs: &[Item]) -> Vec<Item> {
        if segments.is_empty() {
            return Vec::new();
        }
        let jobs: HashSet<_> = jobs.iter().map(|item| item.name.key.as_str()).collect();
        // A cold one reads none.
        let reads = |key: &str| {
            let slot = self.replica.0.flags.get(key);
            let held = slot.as_ref().and_then(|slot| slot.ready());
            held.is_some_and(|held| segments.iter().any(|key| held.flag.reads_segment(key)))
        };
        let affected = |key: &&Arc<str>| !jobs.contains(&***key) && (self.rejected.contains_key(&ItemName::flag(&***key)) || reads(key));
        self.received.flags().filter(affected).filter_map(|key| self.received.flag(key)).collect()
    }

    /// A compiled flag becomes what is held; one that could not be compiled leaves what is held in place.
    pub(super) fn take(&mut self, compiled: Compiled) -> Option<Refreshed> {
        let Compiled { item: Item { name, revision, definition }, result } = compiled;
        let body = match result {
            Ok(body) => body,
            Err(message) => {
                self.reject(name, revision, message);
                return None;
            }
        };
        self.rejected.remove(&name);
        let key = self.received.key_of_flag(&name.key);
        self.depends_no_more(&key);
        let Body::Flag(flag) = body else {
            self.aging.forget(&key);
            let (killed, kill_revision) = self.register(&key, revision);
            return Some(Refreshed { key, slot: Slot::Cold(Cold::new(definition, revision, killed, kill_revision)) });
        };
        self.aging.note(&key, flag.max_age_ms());
        for prerequisite in flag.prerequisites() {
            self.dependents.entry(prerequisite.flag().to_owned()).or_default().insert(key.clone());
        }
        let base_revision = revision.max(self.segments.served().newest_read_by(&flag));
        Some(self.overlay(key, Held::new(*flag, base_revision, definition, base_revision)))
    }

    /// Takes the flag, as it is held, off the lists of its prerequisites. A cold one is on none.
    fn depends_no_more(&mut self, key: &str) {
        let Some(slot) = self.replica.0.flags.get(key) else { return };
        for prerequisite in slot.ready().iter().flat_map(|held| held.flag.prerequisites()) {
            if let Some(dependents) = self.dependents.get_mut(prerequisite.flag()) {
                dependents.remove(key);
            }
        }
    }

    pub(super) fn reject(&mut self, name: ItemName, revision: Revision, message: String) {
        let held_revision = match name.kind {
            ItemKind::Flag => self.current(&name.key).map_or(0, |held| held.revision),
            ItemKind::Segment => self.segments.served().revision(&name.key),
        };
        self.rejected.insert(name.clone(), Rejected { name, revision, message, held_revision });
    }

    pub(super) fn current(&self, key: &str) -> Option<Held> {
        self.replica.with(key, |held| held.cloned())
    }

    /// What is held, with the register as it is now.
    pub(super) fn refresh(&self, key: &str) -> Option<Refreshed> {
        self.current(key).map(|held| self.overlay(key.into(), held))
    }

    /// Whether the flag is killed, here alone or everywhere, and since which revision it is that or is restored everywhere; 0: it never
    /// was either.
    fn register(&self, key: &str, base_revision: Revision) -> (bool, Revision) {
        let register = self.registers.effective(key, self.position.epoch);
        let (killed, revision) = register.map_or((false, 0), |kill| (kill.killed, kill.revision));
        (killed || self.is_tripped(key, base_revision, revision), revision)
    }

    fn overlay(&self, key: Arc<str>, held: Held) -> Refreshed {
        let (killed, kill_revision) = self.register(&key, held.base_revision);
        let revision = held.base_revision.max(kill_revision);
        Refreshed { key, slot: Slot::Ready(held.with_kill(killed, revision)) }
    }

    /// Makes a change visible, whole, and tells the readers.
    pub(super) fn publish(&mut self, refreshed: Vec<Refreshed>, gone: Vec<String>, origin_time_us: Micros, usable: bool) -> Applied {
        let inner = self.replica.0.clone();
        let rejected: Arc<[Rejected]> = self.rejected.values().cloned().collect();
        // Of very many only kills are told one by one, and nothing that is cold is compiled only to be told.
        let listed = refreshed.len() + gone.len() <= LISTED_AT_ONCE;
        let is_told = |key: &str| listed || inner.flags.get(key).is_some_and(|slot| slot.is_killed());
        let mut entries = Vec::new();
        for key in gone.iter().filter(|key| is_told(key)) {
            entries.extend(self.current(key).map(|before| news::deleted(key.as_str().into(), before, self.position.revision)));
        }
        for Refreshed { key, slot } in refreshed.iter().filter(|one| one.slot.is_killed() || is_told(&one.key)) {
            let after = slot.held(inner.naming, key, &inner.segments).cloned();
            entries.extend(after.and_then(|after| news::entry(key.clone(), self.current(key), after)));
        }
        {
            let _turn = inner.turnstile.lock();
            inner.sequence.fetch_add(1, Ordering::AcqRel);
            for key in gone {
                if let Some((key, _)) = inner.flags.remove(key.as_str()) {
                    inner.keys.write().remove(&key);
                }
            }
            for Refreshed { key, slot } in refreshed {
                match inner.flags.get_mut(&key) {
                    Some(mut place) => *place = slot,
                    None => {
                        inner.flags.insert(key.clone(), slot);
                        inner.keys.write().insert(key);
                    }
                }
            }
            let usable = usable || inner.header.load().usable;
            let header = Header { position: self.position, digest: self.digest, usable, rejected: rejected.clone() };
            inner.header.store(Arc::new(header));
            inner.sequence.fetch_add(1, Ordering::Release);
        }
        let applied_at_us = inner.clock.now_us();
        self.tell(entries, listed, origin_time_us);
        self.settle_trips();
        Applied { position: self.position, digest: self.digest, applied_at_us, rejected }
    }

    /// Not `listed`: everything may have changed, and `entries` has what concerns kills.
    pub(super) fn tell(&self, entries: Vec<Entry>, listed: bool, origin_time_us: Micros) {
        let inner = &self.replica.0;
        let moment = Moment { position: self.position, origin_time_us };
        // Only this writer changes the list. What is listed is put together before anybody has to wait for it.
        let is_listed = listed && entries.len() <= LISTED_AT_ONCE && inner.changes.read().reaches(self.position);
        let head = if is_listed {
            let dependents = self.dependents_of(entries.iter().map(|entry| &entry.key));
            inner.changes.write().record(entries, dependents, moment)
        } else {
            let ahead = entries.iter().filter(|entry| entry.revision > self.position.revision);
            let dependents = self.dependents_of(ahead.map(|entry| &entry.key));
            inner.changes.write().forget(entries, dependents, moment)
        };
        inner.changed.send_replace(head);
    }

    pub(super) fn dependents_of<'a>(&self, changed: impl Iterator<Item = &'a Arc<str>>) -> Option<Vec<Entry>> {
        news::dependents(changed, &self.dependents, |key| self.current(key))
    }

    fn digest_after(&self, upserts: &[Item], removed: &[ItemName], kills: &[Kill]) -> Digest {
        let digest = self.received.digest_after(self.digest, upserts, removed);
        // The register of a deleted flag goes with it.
        let gone = removed.iter().filter(|name| name.kind == ItemKind::Flag).map(|name| name.key.as_str());
        let replaced: HashSet<_> = kills.iter().map(|kill| kill.flag_key.as_str()).chain(gone).collect();
        let digest = replaced.into_iter().fold(digest, |digest, key| digest.minus(self.registers.digest_of(key)));
        kills.iter().fold(digest, |digest, kill| digest.plus(Digest::of_kill(kill)))
    }
}

pub(super) struct Edits {
    pub(super) upserts: Vec<Item>,
    pub(super) removed: Vec<ItemName>,
    pub(super) kills: Vec<Kill>,
    /// This is everything: what is not in it is gone.
    pub(super) whole: bool,
    pub(super) from_disk: bool,
}

pub(super) struct Refreshed {
    pub(super) key: Arc<str>,
    pub(super) slot: Slot,
}
