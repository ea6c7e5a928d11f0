//! The last good state on disk: what a sidecar serves when it starts and the control plane does not answer.
//!
//! Two files are written in turn, each first under another name, synced, and then renamed over the older of the two: whatever happens
//! meanwhile, one whole generation is there. Each has a checksum over everything in it; one that is damaged is not believed, and the other
//! is served.

mod format;
mod guard;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::clock::Micros;
use crate::replica::Saved;

pub use format::{Damage, Generation};
pub use guard::{Guard, RESTARTS, SURVIVED_AFTER, Suspect};

use format::Header;

const SLOTS: [&str; 2] = ["state.0", "state.1"];
const NEW: &str = "state.new";
const LOCK: &str = "lock";

/// The data directory of one sidecar, for as long as it runs.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    /// Whose states these are.
    environment: String,
    /// Number of the newest file.
    number: u64,
    /// Where the next file goes: over the older or the damaged one.
    slot: usize,
    _lock: File,
}

/// What was found at start.
#[derive(Debug, Default)]
pub struct Found {
    /// `None`: start empty.
    pub generation: Option<Generation>,
    /// Files that were not believed.
    pub damaged: Vec<(PathBuf, Damage)>,
    /// Files of another environment, and which: what they hold is nobody's business here.
    pub foreign: Vec<(PathBuf, String)>,
    /// Changes that no process lived with for long.
    pub suspected: Option<Suspected>,
}

/// The generation that was found is from before these changes.
#[derive(Debug, PartialEq)]
pub struct Suspected {
    /// Definitions of these revisions are to be refused.
    pub suspect: Suspect,
    /// The newest state, which holds them or what came after them.
    pub newest: Option<Generation>,
}

/// What to do about a directory that another sidecar uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfHeld {
    Refuse,
    /// That one is about to end: read what is there, and keep the directory from then on.
    WaitForIt,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use {} as data directory: {error}; give a directory that this user may write to", dir.display())]
    Unusable { dir: PathBuf, error: io::Error },
    #[error("another sidecar uses the data directory {}; give each sidecar its own", dir.display())]
    Locked { dir: PathBuf },
}

impl Disk {
    /// Makes the directory when there is none, locks it and reads the newest generation that can be believed and is of this environment.
    pub fn open(dir: &Path, version: &str, environment: &str) -> Result<(Self, Guard, Found), Error> {
        let unusable = |error| Error::Unusable { dir: dir.to_owned(), error };
        fs::create_dir_all(dir).map_err(unusable)?;
        let lock = private().create(true).truncate(false).open(dir.join(LOCK)).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { dir: dir.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        let mut guard = Guard::open(dir, version).map_err(unusable)?;

        let mut found = Found::default();
        let mut slots = Vec::new();
        for (slot, name) in SLOTS.into_iter().enumerate() {
            let path = dir.join(name);
            match read_header(&path) {
                Some(Ok(header)) => slots.push(Slot { slot, path, header }),
                Some(Err(damage)) => found.damaged.push((path, damage)),
                None => {}
            }
        }
        slots.sort_by_key(|slot| std::cmp::Reverse(slot.header.number));
        let number = slots.first().map_or(0, |slot| slot.header.number);

        let (before, since): (Vec<_>, Vec<_>) = match guard.refused() {
            Some(suspect) => slots.into_iter().partition(|slot| !suspect.is_in(slot.header.position)),
            None => (slots, Vec::new()),
        };
        let mut generation = newest(&before, environment, &mut found);
        let after = newest(&since, environment, &mut found);
        match guard.refused().cloned() {
            Some(suspect) if generation.is_some() => {
                let newest = after.map(|(_, generation)| generation);
                found.suspected = Some(Suspected { suspect, newest });
            }
            Some(_) => {
                // Without an earlier version of anything, to refuse would be to serve nothing.
                guard.forgive().map_err(unusable)?;
                generation = after;
            }
            None => {}
        }
        // What is served from now on is the generation to keep.
        let slot = generation.as_ref().map_or(0, |(slot, _)| 1 - slot);
        found.generation = generation.map(|(_, generation)| generation);
        Ok((Self { dir: dir.to_owned(), environment: environment.to_owned(), number, slot, _lock: lock }, guard, found))
    }

    /// The newest generation in a directory that another sidecar writes to. Files are replaced as a whole, so that one is there at any time;
    /// nothing is changed.
    pub fn peek(dir: &Path, environment: &str) -> Found {
        let mut found = Found::default();
        let slots = SLOTS.into_iter().enumerate().filter_map(|(slot, name)| {
            let path = dir.join(name);
            Some(Slot { slot, header: read_header(&path)?.ok()?, path })
        });
        let mut slots: Vec<_> = slots.collect();
        slots.sort_by_key(|slot| std::cmp::Reverse(slot.header.number));
        found.generation = newest(&slots, environment, &mut found).map(|(_, generation)| generation);
        found
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The other generation, for when the one that was found is whole and does not fit together. What is written next goes over that one.
    pub fn fall_back(&mut self) -> Option<Generation> {
        let file = fs::read(self.dir.join(SLOTS[self.slot])).ok()?;
        let generation = format::decode(Bytes::from(file)).ok().filter(|generation| generation.is_of(&self.environment))?;
        self.slot = 1 - self.slot;
        Some(generation)
    }

    /// Writes a generation; when this returns, it is on the disk. Blocks for as long as the disk takes. It goes over the older of the two;
    /// with `keep_other` over the one that was written last, because the other is from before a suspected change.
    pub fn save(&mut self, saved: impl Into<Saved>, fresh_us: Micros, keep_other: bool) -> io::Result<()> {
        let number = self.number.saturating_add(1);
        let (environment, saved) = (self.environment.clone(), saved.into());
        let new = self.dir.join(NEW);
        let mut out = private().create(true).truncate(true).open(&new)?;
        format::write(Generation { number, environment, saved, fresh_us }, &mut out)?;
        out.sync_all()?;
        fs::rename(&new, self.dir.join(SLOTS[self.slot]))?;
        File::open(&self.dir)?.sync_all()?;
        self.number = number;
        if !keep_other {
            self.slot = 1 - self.slot;
        }
        Ok(())
    }
}

struct Slot {
    slot: usize,
    path: PathBuf,
    header: Header,
}

/// `None`: there is no such file.
fn read_header(path: &Path) -> Option<Result<Header, Damage>> {
    let mut begin = Vec::with_capacity(format::HEADER);
    let read = File::open(path).and_then(|file| file.take(format::HEADER as u64).read_to_end(&mut begin));
    match read {
        Ok(_) => Some(format::header(&begin)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(Damage::Unreadable(error.to_string()))),
    }
}

/// The first that can be believed, and its slot. What comes after it is not read: a restart is waited for.
fn newest(slots: &[Slot], environment: &str, found: &mut Found) -> Option<(usize, Generation)> {
    for Slot { slot, path, .. } in slots {
        let file = fs::read(path).map_err(|error| Damage::Unreadable(error.to_string()));
        match file.and_then(|file| format::decode(Bytes::from(file))) {
            Ok(generation) if generation.is_of(environment) => {
                return Some((*slot, generation));
            }
            Ok(Generation { environment, .. }) => found.foreign.push((path.clone(), environment)),
            Err(damage) => found.damaged.push((path.clone(), damage)),
        }
    }
    None
}

/// Flags may carry what is nobody else's business.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::{Digest, Item, ItemName, Position, Revision, State};

    fn state(revision: Revision) -> State {
        let item = Item { name: ItemName::flag("a"), revision, definition: Bytes::from_static(b"{}") };
        let digest = Digest::of([&item], []);
        State { position: Position { epoch: 1, revision }, items: vec![item], kills: Vec::new(), digest, origin_time_us: 0 }
    }

    fn open(dir: &Path) -> (Disk, Found) {
        let (disk, _, found) = Disk::open(dir, "1", "prod").unwrap();
        (disk, found)
    }

    fn held(found: &Found) -> Option<Revision> {
        found.generation.as_ref().map(|generation| generation.saved.state.position.revision)
    }

    #[test]
    fn the_newest_generation_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        for revision in 1..=5 {
            let (mut disk, found) = open(dir.path());
            assert_eq!(held(&found), (revision > 1).then_some(revision - 1));
            disk.save(state(revision), 0, false).unwrap();
        }
    }

    #[test]
    fn any_flipped_byte_falls_back_to_the_previous_generation_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, _) = open(dir.path());
        disk.save(state(1), 0, false).unwrap();
        disk.save(state(2), 0, false).unwrap();
        drop(disk);
        let newest = dir.path().join(SLOTS[1]);
        let file = fs::read(&newest).unwrap();
        for at in 0..file.len() {
            let mut flipped = file.clone();
            flipped[at] ^= 0xff;
            fs::write(&newest, &flipped).unwrap();
            let (_, found) = open(dir.path());
            assert_eq!(held(&found), Some(1), "byte {at}");
            assert_eq!(found.damaged.len(), 1, "byte {at}");
            assert_eq!(found.damaged[0].0, newest);
        }
        fs::write(&newest, &file).unwrap();
        assert_eq!(held(&open(dir.path()).1), Some(2));
    }

    #[test]
    fn a_state_of_another_environment_counts_as_none_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, _) = open(dir.path());
        disk.save(state(1), 0, false).unwrap();
        drop(disk);
        let (mut disk, _, found) = Disk::open(dir.path(), "1", "staging").unwrap();
        assert_eq!((held(&found), found.damaged.len()), (None, 0));
        assert_eq!(found.foreign, [(dir.path().join(SLOTS[0]), "prod".to_owned())]);
        disk.save(state(7), 0, false).unwrap();
        disk.save(state(8), 0, false).unwrap();
        drop(disk);
        let (_, found) = open(dir.path());
        assert_eq!((held(&found), found.foreign.len()), (None, 2), "and the way back is no other");
    }

    #[test]
    fn after_a_fallback_the_next_save_replaces_the_damaged_file() {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, _) = open(dir.path());
        disk.save(state(1), 0, false).unwrap();
        disk.save(state(2), 0, false).unwrap();
        drop(disk);
        fs::write(dir.path().join(SLOTS[1]), b"torn").unwrap();
        let (mut disk, _) = open(dir.path());
        disk.save(state(3), 0, false).unwrap();
        drop(disk);
        let (_, found) = open(dir.path());
        assert_eq!((held(&found), found.damaged.len()), (Some(3), 0));
    }

    #[test]
    fn two_damaged_generations_start_empty_and_say_so() {
        let dir = tempfile::tempdir().unwrap();
        for slot in SLOTS {
            fs::write(dir.path().join(slot), b"YARDARM\nnot a state").unwrap();
        }
        let (_, found) = open(dir.path());
        assert_eq!((held(&found), found.damaged.len()), (None, 2));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_damaged_and_no_reason_not_to_start() {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, _) = open(dir.path());
        disk.save(state(1), 0, false).unwrap();
        drop(disk);
        fs::create_dir(dir.path().join(SLOTS[1])).unwrap();
        let (_, found) = open(dir.path());
        assert_eq!(held(&found), Some(1));
        assert!(matches!(found.damaged[..], [(_, Damage::Unreadable(_))]), "{:?}", found.damaged);
    }

    #[test]
    fn a_write_that_was_cut_off_leaves_both_generations() {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, _) = open(dir.path());
        disk.save(state(1), 0, false).unwrap();
        disk.save(state(2), 0, false).unwrap();
        drop(disk);
        fs::write(dir.path().join(NEW), b"half a fi").unwrap();
        let (_, found) = open(dir.path());
        assert_eq!((held(&found), found.damaged.len()), (Some(2), 0));
    }

    #[test]
    fn a_full_disk_is_an_error_that_leaves_the_last_generation_and_the_next_save_works() {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, _) = open(dir.path());
        disk.save(state(1), 0, false).unwrap();
        std::os::unix::fs::symlink("/dev/full", dir.path().join(NEW)).unwrap();
        assert_eq!(disk.save(state(2), 0, false).unwrap_err().kind(), io::ErrorKind::StorageFull);
        fs::remove_file(dir.path().join(NEW)).unwrap();
        disk.save(state(3), 0, false).unwrap();
        drop(disk);
        assert_eq!(held(&open(dir.path()).1), Some(3));
    }

    #[test]
    fn two_sidecars_do_not_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path());
        let refusal = Disk::open(dir.path(), "1", "prod").unwrap_err();
        assert!(matches!(refusal, Error::Locked { .. }));
        assert!(refusal.to_string().contains(dir.path().to_str().unwrap()), "{refusal}");
        drop(first);
        open(dir.path());
    }

    #[test]
    fn a_directory_that_cannot_be_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let refusal = Disk::open(&file, "1", "prod").unwrap_err();
        assert!(matches!(refusal, Error::Unusable { .. }));
        assert!(refusal.to_string().contains(file.to_str().unwrap()), "{refusal}");
    }

    fn die_of(dir: &Path, revision: Revision) {
        for _ in 0..RESTARTS {
            let (mut disk, mut guard, found) = Disk::open(dir, "1", "prod").unwrap();
            let held = found.generation.map_or_else(Position::default, |generation| generation.saved.state.position);
            guard.applying(held, Position { epoch: 1, revision }).unwrap();
            if held.revision < revision {
                disk.save(state(revision), 0, false).unwrap();
            }
        }
    }

    #[test]
    fn a_change_that_no_process_survived_is_refused_and_the_state_before_it_served() {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, _) = open(dir.path());
        disk.save(state(1), 0, false).unwrap();
        drop(disk);
        die_of(dir.path(), 2);
        for later in 3..6 {
            let (mut disk, found) = open(dir.path());
            assert_eq!(held(&found), Some(1));
            let suspected = found.suspected.unwrap();
            assert_eq!(suspected.suspect, Suspect { epoch: 1, from: 2, to: 2 });
            assert_eq!(suspected.newest.unwrap().saved, state(later - 1).into(), "what came since is not lost");
            disk.save(state(later), 0, true).unwrap();
        }
    }

    #[test]
    fn without_an_earlier_state_nothing_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        die_of(dir.path(), 2);
        let (_, found) = open(dir.path());
        assert_eq!((held(&found), found.suspected), (Some(2), None));
    }
}
