//! What a sidecar was applying when its process died. A change that kills every process that applies it must not be served from disk for
//! ever: after three such restarts it is refused, and the state from before it is served.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::flag::{Position, Revision};

/// A process that lives this long after a change has survived it.
pub const SURVIVED_AFTER: Duration = Duration::from_secs(60);
/// So many restarts in a row of a process that did not survive what it had applied make that a suspect.
pub const RESTARTS: u32 = 3;

const FILE: &str = "applying.json";
/// The record is padded to this length and written over itself in one call: half a record can only be left by a machine that lost power.
const FILE_BYTES: usize = 512;

/// Changes that are refused, by the revision of each definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    pub epoch: u64,
    pub from: Revision,
    pub to: Revision,
}

impl Suspect {
    pub fn revisions(&self) -> RangeInclusive<Revision> {
        self.from..=self.to
    }

    /// Whether a state may hold a part of it.
    pub fn is_in(&self, position: Position) -> bool {
        position.epoch == self.epoch && position.revision >= self.from
    }
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The program that wrote this; another one may well survive.
    version: String,
    /// Applied, not yet survived.
    applying: Option<Suspect>,
    restarts: u32,
    refused: Option<Suspect>,
}

#[derive(Debug)]
pub struct Guard {
    file: File,
    record: Record,
}

impl Guard {
    /// Counts this start. An unreadable record counts as none: it is a guess at best, and the state files have checksums of their own.
    pub fn open(dir: &Path, version: &str) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(dir.join(FILE))?;
        let mut json = Vec::new();
        io::Read::read_to_end(&mut &file, &mut json)?;
        let found = serde_json::from_slice::<Record>(&json).ok();
        let mut record = found.filter(|record| record.version == version).unwrap_or_default();
        record.version = version.to_owned();
        if record.applying.is_some() {
            record.restarts += 1;
        }
        if record.restarts >= RESTARTS
            && let Some(suspect) = record.applying.take()
        {
            record.restarts = 0;
            record.refused = Some(suspect);
        }
        let guard = Self { file, record };
        guard.write()?;
        Ok(guard)
    }

    pub fn refused(&self) -> Option<&Suspect> {
        self.record.refused.as_ref()
    }

    /// Say so before a change that leads from `held` to `next` is applied.
    pub fn applying(&mut self, held: Position, next: Position) -> io::Result<()> {
        let from = if held.epoch == next.epoch { held.revision.saturating_add(1) } else { 0 };
        match &mut self.record.applying {
            Some(suspect) if suspect.epoch == next.epoch => suspect.to = suspect.to.max(next.revision),
            applying => *applying = Some(Suspect { epoch: next.epoch, from, to: next.revision }),
        }
        self.write()
    }

    /// The process has lived for [`SURVIVED_AFTER`] since the last change, or ends on purpose.
    pub fn survived(&mut self) -> io::Result<()> {
        if self.record.applying.is_none() {
            return Ok(());
        }
        (self.record.applying, self.record.restarts) = (None, 0);
        self.write()
    }

    /// None of the refused definitions is in the state any more.
    pub fn forgive(&mut self) -> io::Result<()> {
        self.record.refused = None;
        self.write()
    }

    /// Not synced to the disk: this outlives the process, and a machine that lost power proves nothing against a change.
    fn write(&self) -> io::Result<()> {
        let mut json = serde_json::to_vec(&self.record)?;
        json.resize(FILE_BYTES.max(json.len()), b' ');
        self.file.write_all_at(&json, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(revision: Revision) -> Position {
        Position { epoch: 1, revision }
    }

    fn start_and_apply(dir: &Path, revision: Revision) -> Guard {
        let mut guard = Guard::open(dir, "1").unwrap();
        guard.applying(at(revision - 1), at(revision)).unwrap();
        guard
    }

    #[test]
    fn a_change_that_three_restarts_did_not_survive_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for start in 0..RESTARTS {
            let mut guard = start_and_apply(dir.path(), 7);
            assert_eq!(guard.refused(), None, "at start {start}");
            guard.applying(at(7), at(9)).unwrap();
        }
        let guard = Guard::open(dir.path(), "1").unwrap();
        assert_eq!(guard.refused(), Some(&Suspect { epoch: 1, from: 7, to: 9 }));
    }

    #[test]
    fn of_another_epoch_everything_is_suspect() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..RESTARTS {
            Guard::open(dir.path(), "1").unwrap().applying(at(90), Position { epoch: 2, revision: 8 }).unwrap();
        }
        let guard = Guard::open(dir.path(), "1").unwrap();
        assert_eq!(guard.refused(), Some(&Suspect { epoch: 2, from: 0, to: 8 }));
    }

    #[test]
    fn a_process_that_survives_begins_the_count_anew() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..RESTARTS * 3 {
            start_and_apply(dir.path(), 7);
            let mut guard = Guard::open(dir.path(), "1").unwrap();
            assert_eq!(guard.refused(), None);
            guard.survived().unwrap();
        }
    }

    #[test]
    fn what_is_refused_stays_refused_until_it_is_forgiven_or_the_program_is_another() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..=RESTARTS {
            start_and_apply(dir.path(), 7);
        }
        let refused = Some(Suspect { epoch: 1, from: 7, to: 7 });
        Guard::open(dir.path(), "1").unwrap().survived().unwrap();
        assert_eq!(Guard::open(dir.path(), "1").unwrap().refused(), refused.as_ref());
        Guard::open(dir.path(), "1").unwrap().forgive().unwrap();
        assert_eq!(Guard::open(dir.path(), "1").unwrap().refused(), None);
    }

    #[test]
    fn another_version_of_the_program_is_given_its_own_three_tries() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..RESTARTS {
            start_and_apply(dir.path(), 7);
        }
        assert_eq!(Guard::open(dir.path(), "2").unwrap().refused(), None);
    }

    #[test]
    fn a_torn_record_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), b"{\"version\":\"1\",\"appl").unwrap();
        assert_eq!(Guard::open(dir.path(), "1").unwrap().refused(), None);
    }
}
