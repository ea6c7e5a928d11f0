//! Any history of flags, read in any way by a reader that breaks off and comes back.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// One thing that happens to the flags or to the reader.
#[derive(Debug, Clone, Copy)]
enum Step {
    Change(usize, ChangeKind),
    /// By the kill lane: the log does not move.
    Ahead(usize, bool),
    TooManyDependents(usize),
    /// Too much at once to be listed; in another epoch, where it is.
    Mass {
        killed: usize,
        restored: usize,
        edited: usize,
        epoch: bool,
    },
    Restart,
    /// Takes up to `limit` changes and hears `heard` of them before the connection breaks, if that is fewer.
    Read {
        limit: usize,
        heard: usize,
    },
}

const KEYS: usize = 5;

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS;
    let kind = prop::sample::select(vec![Updated, Updated, Killed, Killed, Restored, Deleted, PrerequisiteChanged, PrerequisiteChanged]);
    prop_oneof![
        8 => (key.clone(), kind).prop_map(|(key, kind)| Step::Change(key, kind)),
        2 => (key.clone(), any::<bool>()).prop_map(|(key, killed)| Step::Ahead(key, killed)),
        1 => key.clone().prop_map(Step::TooManyDependents),
        1 => (key.clone(), key.clone(), key, any::<bool>())
            .prop_map(|(killed, restored, edited, epoch)| Step::Mass { killed, restored, edited, epoch }),
        1 => Just(Step::Restart),
        6 => (0..4_usize, 0..4_usize).prop_map(|(limit, heard)| Step::Read { limit, heard }),
    ]
}

/// Events are numbered, and the definition of a note is the number of the event that it tells.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Flag {
    /// Of its creation, its last change, its last kill, and the last change of a prerequisite.
    created: u64,
    changed: u64,
    killed_at: Option<u64>,
    depended: u64,
    revision: Revision,
}

#[derive(Default)]
struct World {
    list: ChangeList,
    flags: BTreeMap<String, Flag>,
    position: Position,
    events: u64,
}

impl World {
    fn moment(&self) -> Moment {
        Moment { position: self.position, origin_time_us: 0 }
    }

    fn entry(&self, key: &str, kind: ChangeKind) -> Entry {
        let Flag { killed_at, revision, .. } = self.flags.get(key).copied().unwrap_or_default();
        let definition = self.events.to_string().into();
        Entry { definition, revision, ..entry(key, kind, killed_at.is_some()) }
    }

    /// What the writer would say; `None` when it makes no sense for the flag as it is.
    fn change(&mut self, key: usize, kind: ChangeKind, revision: Revision) -> Option<Entry> {
        let key = format!("f{key}");
        let event = self.events + 1;
        let fresh = Flag { created: event, changed: event, revision, ..Flag::default() };
        let held = self.flags.get(&key).copied();
        match (kind, held) {
            (Updated, None) => self.flags.insert(key.clone(), fresh),
            (Updated, Some(held)) => self.flags.insert(key.clone(), Flag { changed: event, revision: revision.max(held.revision), ..held }),
            (Killed, Some(Flag { killed_at: Some(_), .. })) | (Restored, Some(Flag { killed_at: None, .. })) => return None,
            // A flag may be created killed.
            (Killed, held) => {
                self.flags.insert(key.clone(), Flag { changed: event, killed_at: Some(event), revision, ..held.unwrap_or(fresh) })
            }
            (Restored, Some(held)) => self.flags.insert(key.clone(), Flag { changed: event, killed_at: None, revision, ..held }),
            (Deleted, Some(_)) => self.flags.remove(&key),
            (PrerequisiteChanged, Some(held)) => self.flags.insert(key.clone(), Flag { depended: event, ..held }),
            (_, None) => return None,
        };
        self.events = event;
        Some(self.entry(&key, kind))
    }

    fn happen(&mut self, step: Step) {
        let next = self.position.revision + 1;
        match step {
            Step::Change(key, kind) => {
                if let Some(entry) = self.change(key, kind, next) {
                    self.position.revision = next;
                    let moment = self.moment();
                    record(&mut self.list, entry, moment);
                }
            }
            Step::Ahead(key, killed) => {
                if self.flags.contains_key(&format!("f{key}"))
                    && let Some(entry) = self.change(key, if killed { Killed } else { Restored }, next + 1)
                {
                    let moment = self.moment();
                    record(&mut self.list, entry, moment);
                }
            }
            Step::TooManyDependents(key) => {
                if let Some(entry) = self.change(key, Updated, next) {
                    self.position.revision = next;
                    self.flags.values_mut().for_each(|flag| flag.depended = self.events);
                    self.list.record(vec![entry], None, self.moment());
                }
            }
            Step::Mass { killed, restored, edited, epoch } => {
                self.position = Position { epoch: self.position.epoch + u64::from(epoch), revision: if epoch { 2 } else { next } };
                if epoch {
                    self.flags.values_mut().for_each(|flag| flag.revision = flag.revision.min(2));
                }
                let changes = [(killed, Killed), (restored, Restored), (edited, Updated)];
                let mut changed: BTreeMap<_, Entry> = BTreeMap::new();
                for (key, kind) in changes {
                    // The writer says one thing of a key.
                    if !changed.contains_key(&key)
                        && let Some(entry) = self.change(key, kind, self.position.revision)
                    {
                        changed.insert(key, entry);
                    }
                }
                self.list.forget(changed.into_values().collect(), Some(Vec::new()), self.moment());
            }
            Step::Restart => {
                // A state that is written has the kills that are ahead of its log, but no restores: those come again with the log.
                let restored = self.flags.values().filter(|flag| flag.killed_at.is_none()).map(|flag| flag.revision);
                self.position.revision = restored.fold(self.position.revision, Revision::max);
                let kind = |flag: &Flag| if flag.killed_at.is_some() { Killed } else { Updated };
                let entries = self.flags.iter().map(|(key, flag)| self.entry(key, kind(flag))).collect();
                self.list = ChangeList::default();
                self.list.forget(entries, Some(Vec::new()), self.moment());
            }
            Step::Read { .. } => {}
        }
    }
}

/// Knows of the flags what it was told, and believes in kills and restores only as such.
struct Reader {
    known: BTreeMap<String, Flag>,
    cursor: Cursor,
    resume: Position,
    prerequisites: bool,
}

impl Reader {
    fn fresh(world: &World, prerequisites: bool) -> Self {
        let head = world.list.head();
        let cursor = if prerequisites { head } else { head.without_prerequisites() };
        Self { known: world.flags.clone(), cursor, resume: world.position, prerequisites }
    }

    fn hear(&mut self, world: &World, kind: ChangeKind, note: &Note) {
        let key = note.key.to_string();
        let event: u64 = std::str::from_utf8(&note.definition).unwrap().parse().unwrap();
        let now = world.flags.get(&key).copied().unwrap_or_default();
        let known = self.known.entry(key.clone()).or_default();
        if known.created != now.created {
            *known = Flag { created: now.created, ..Flag::default() };
        }
        match kind {
            Deleted => drop(self.known.remove(&key)),
            Killed => (known.changed, known.killed_at) = (event, Some(event)),
            Restored => (known.changed, known.killed_at) = (event, None),
            Updated => known.changed = event,
            PrerequisiteChanged => {}
        }
        if let Some(known) = self.known.get_mut(&key) {
            known.depended = known.depended.max(event);
        }
        self.resume = note.resume_at(kind).unwrap_or(self.resume);
    }

    fn read(&mut self, world: &World, limit: usize, heard: usize) -> bool {
        let Changes { notes, cursor, lost, more, position } = world.list.after(self.cursor, limit);
        assert!(notes.iter().is_sorted_by_key(|(kind, _)| *kind != Killed), "kills are first");
        let breaks = heard < notes.len();
        for (kind, note) in notes.iter().take(heard) {
            self.hear(world, *kind, note);
        }
        self.cursor = cursor;
        match (breaks, lost) {
            (true, _) => {
                match world.list.resume(self.resume) {
                    Some(cursor) if self.prerequisites => self.cursor = cursor,
                    Some(cursor) => self.cursor = cursor.without_prerequisites(),
                    None => *self = Self::fresh(world, self.prerequisites),
                }
                true
            }
            (false, true) => {
                self.kills_are_known(world);
                *self = Self { cursor: self.cursor, ..Self::fresh(world, self.prerequisites) };
                true
            }
            (false, false) => {
                if !more {
                    self.resume = position;
                }
                more
            }
        }
    }

    fn kills_are_known(&self, world: &World) {
        for (key, flag) in &world.flags {
            let heard = self.known.get(key).and_then(|known| known.killed_at);
            assert!(flag.killed_at.is_none_or(|at| heard >= Some(at)), "{key}: {flag:?} was not heard as killed");
        }
    }

    fn knows_everything(&self, world: &World) {
        self.kills_are_known(world);
        assert_eq!(self.known.keys().collect::<Vec<_>>(), world.flags.keys().collect::<Vec<_>>());
        for (key, flag) in &world.flags {
            let known = &self.known[key];
            assert!(known.changed >= flag.changed && known.killed_at.is_some() == flag.killed_at.is_some(), "{key}: {flag:?}, {known:?}");
            let hears = !self.prerequisites || known.depended.max(known.changed) >= flag.depended;
            assert!(hears, "{key}: {flag:?}, {known:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_reader_that_breaks_off_and_resumes_anywhere_misses_nothing(
        steps in prop::collection::vec(step(), 1..60),
        prerequisites in any::<bool>(),
    ) {
        let mut world = World::default();
        world.happen(Step::Mass { killed: 0, restored: 1, edited: 2, epoch: true });
        let mut reader = Reader::fresh(&world, prerequisites);
        for step in steps {
            world.happen(step);
            match step {
                Step::Read { limit, heard } => drop(reader.read(&world, limit, heard)),
                // The connection broke with the process.
                Step::Restart => match world.list.resume(reader.resume) {
                    Some(cursor) => reader.cursor = if prerequisites { cursor } else { cursor.without_prerequisites() },
                    None => reader = Reader::fresh(&world, prerequisites),
                },
                _ => {}
            }
        }
        for _ in 0..100 {
            if !reader.read(&world, 3, usize::MAX) {
                break;
            }
        }
        reader.knows_everything(&world);
    }
}
