//! The files of the log: one that is written to, rotated by size and age, and the older ones for as long as there is room.
//!
//! A write that fails costs the lines in it and nothing else: they are counted, the file ends with its last whole line, and a second later
//! it is tried again.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use jiff::tz::TimeZone;

pub const EXTENSION: &str = "ndjson";
const PREFIX: &str = "decisions-";
/// Taken by whoever writes here, for as long as the process lives.
const LOCK_FILE: &str = ".lock";
/// After a failure, until the next try.
const PAUSE_US: i64 = 1_000_000;
/// Of the end of a file, where its last line is looked for. No line is longer.
const LONGEST_LINE: u64 = 4 * 1024 * 1024;

#[derive(Debug, Clone, Copy)]
pub struct FileLimits {
    /// Of all files together.
    pub keep_bytes: u64,
    /// Of one file.
    pub rotate_bytes: u64,
    pub rotate_after_us: i64,
}

#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
    limits: FileLimits,
    current: Option<Current>,
    /// Held, not read.
    _lock: File,
    number: u32,
    /// Not before this time, after a failure.
    retry_us: Option<i64>,
}

#[derive(Debug)]
struct Current {
    file: File,
    path: PathBuf,
    inode: u64,
    began_us: i64,
    bytes: u64,
}

impl FileLimits {
    /// 64 MiB and an hour, and less when little is kept: what is thrown away is a quarter of it at most.
    pub fn keeping(keep_bytes: u64) -> Self {
        Self { keep_bytes, rotate_bytes: (64 * 1024 * 1024).min(keep_bytes / 4), rotate_after_us: 60 * 60 * 1_000_000 }
    }
}

/// Whether a file is one of the log, by its name.
pub fn is_of_the_log(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with(PREFIX) && path.extension().is_some_and(|extension| extension == EXTENSION)
}

impl Files {
    /// Makes the directory, and mends what a process that was killed left there.
    pub fn open(dir: &Path, limits: FileLimits, now_us: i64) -> Result<Self> {
        let name = dir.display();
        fs::create_dir_all(dir).with_context(|| format!("--decision-log {name}: cannot make the directory"))?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(LOCK_FILE));
        let lock = lock.with_context(|| format!("--decision-log {name}: cannot write there"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("--decision-log {name}: another sidecar writes there; give each a directory of its own")
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("--decision-log {name}: cannot be locked")),
        }
        let mut files = Self { dir: dir.to_owned(), limits, current: None, _lock: lock, number: 0, retry_us: None };
        files.begin(now_us).with_context(|| format!("--decision-log {name}: cannot write there"))?;
        Ok(files)
    }

    /// Whole lines.
    ///
    /// # Errors
    /// When none of them was written.
    pub fn append(&mut self, lines: &[u8], now_us: i64) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        if self.retry_us.is_some_and(|retry_us| now_us < retry_us) {
            return Err(io::Error::other("the last write failed a moment ago"));
        }
        let written = self.write(lines, now_us);
        self.retry_us = written.is_err().then(|| now_us.saturating_add(PAUSE_US));
        written
    }

    /// Of all files.
    pub fn bytes(&self) -> u64 {
        self.all().map_or(0, |files| files.iter().map(|(_, bytes)| bytes).sum())
    }

    fn write(&mut self, lines: &[u8], now_us: i64) -> io::Result<()> {
        if self.current.as_ref().is_none_or(|current| current.is_over(lines.len(), &self.limits, now_us) || current.is_gone()) {
            self.current = None;
            self.begin(now_us)?;
        }
        let Some(current) = &mut self.current else { return Err(io::Error::other("no file")) };
        if let Err(error) = current.file.write_all(lines) {
            // Half a line would be read as none, and the next one with it.
            let mended = current.file.set_len(current.bytes).and_then(|()| current.file.seek(SeekFrom::End(0)));
            if mended.is_err() {
                self.current = None;
            }
            return Err(error);
        }
        current.bytes += lines.len() as u64;
        Ok(())
    }

    /// Goes on with the newest file, if it is neither full nor old, or begins another one.
    fn begin(&mut self, now_us: i64) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        if let Some((newest, _)) = self.all()?.pop() {
            mend(&newest)?;
            let began_us = began_us(&newest).filter(|began_us| now_us.saturating_sub(*began_us) < self.limits.rotate_after_us);
            if let Some(began_us) = began_us {
                let current = Current::open(newest, began_us)?;
                if current.bytes < self.limits.rotate_bytes {
                    self.current = Some(current);
                    return Ok(());
                }
            }
        }
        self.prune()?;
        let path = self.new_name(now_us);
        self.current = Some(Current::open(path, now_us)?);
        Ok(())
    }

    /// A name behind every other one: two files of one second differ by their number.
    fn new_name(&mut self, now_us: i64) -> PathBuf {
        let at = jiff::Timestamp::from_microsecond(now_us).unwrap_or_default().to_zoned(TimeZone::UTC);
        loop {
            self.number = self.number % 999_999 + 1;
            let name = format!("{PREFIX}{}-{:06}.{EXTENSION}", at.strftime("%Y%m%dT%H%M%SZ"), self.number);
            let path = self.dir.join(name);
            if !path.exists() {
                return path;
            }
        }
    }

    /// Makes room for another whole file.
    fn prune(&self) -> io::Result<()> {
        let files = self.all()?;
        let mut total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
        let most = self.limits.keep_bytes.saturating_sub(self.limits.rotate_bytes);
        for (oldest, bytes) in files {
            if total <= most {
                break;
            }
            fs::remove_file(oldest)?;
            total -= bytes;
        }
        Ok(())
    }

    /// Oldest first.
    fn all(&self) -> io::Result<Vec<(PathBuf, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if is_of_the_log(&path)
                && let Ok(metadata) = fs::metadata(&path)
            {
                files.push((path, metadata.len()));
            }
        }
        files.sort();
        Ok(files)
    }
}

impl Current {
    fn open(path: PathBuf, began_us: i64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let metadata = file.metadata()?;
        Ok(Self { file, path, inode: metadata.ino(), began_us, bytes: metadata.len() })
    }

    fn is_over(&self, more: usize, limits: &FileLimits, now_us: i64) -> bool {
        let is_full = self.bytes > 0 && self.bytes + more as u64 > limits.rotate_bytes;
        is_full || now_us.saturating_sub(self.began_us) >= limits.rotate_after_us
    }

    /// Somebody removed or moved it: what is written to it would be read by nobody.
    fn is_gone(&self) -> bool {
        fs::metadata(&self.path).map_or(true, |metadata| metadata.ino() != self.inode)
    }
}

/// When a file was begun, by its name.
fn began_us(path: &Path) -> Option<i64> {
    let stem = path.file_stem()?.to_str()?.strip_prefix(PREFIX)?;
    let (time, _) = stem.rsplit_once('-')?;
    let at = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", time).ok()?;
    Some(at.to_zoned(TimeZone::UTC).ok()?.timestamp().as_microsecond())
}

/// Cuts off a last line that was not written to its end.
fn mend(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(LONGEST_LINE);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    let whole = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1);
    if from + whole < length {
        file.set_len(from + whole)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_795_224_612_000_000;
    const SECOND: i64 = 1_000_000;
    const LIMITS: FileLimits = FileLimits { keep_bytes: 400, rotate_bytes: 100, rotate_after_us: 60 * SECOND };
    /// Ten bytes.
    const LINE: &[u8] = b"123456789\n";

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn dir(&self) -> PathBuf {
            self.0.path().join("log")
        }

        fn open(&self, now_us: i64) -> Files {
            Files::open(&self.dir(), LIMITS, now_us).unwrap()
        }

        fn files(&self) -> Vec<(String, String)> {
            let named = |path: PathBuf| {
                let text = fs::read_to_string(&path).unwrap();
                (path.file_name().unwrap().to_str().unwrap().to_owned(), text)
            };
            let all = fs::read_dir(self.dir()).unwrap().map(|entry| entry.unwrap().path());
            let mut files: Vec<_> = all.filter(|path| is_of_the_log(path)).map(named).collect();
            files.sort();
            files
        }
    }

    #[test]
    fn a_file_is_named_by_the_time_at_which_it_was_begun() {
        let place = Place::new();
        place.open(START).append(LINE, START).unwrap();
        assert_eq!(place.files(), [("decisions-20261121T013012Z-000001.ndjson".to_owned(), "123456789\n".to_owned())]);
        assert_eq!(began_us(Path::new("decisions-20261121T013012Z-000001.ndjson")), Some(START));
    }

    #[test]
    fn a_full_file_is_rotated_and_no_line_is_torn() {
        let place = Place::new();
        let mut files = place.open(START);
        (0..25).for_each(|_| files.append(LINE, START).unwrap());
        let lengths: Vec<_> = place.files().iter().map(|(_, text)| text.len()).collect();
        assert_eq!(lengths, [100, 100, 50]);
        assert_eq!(files.bytes(), 250);
    }

    #[test]
    fn an_old_file_is_rotated() {
        let place = Place::new();
        let mut files = place.open(START);
        files.append(LINE, START).unwrap();
        files.append(LINE, START + LIMITS.rotate_after_us - 1).unwrap();
        files.append(LINE, START + LIMITS.rotate_after_us).unwrap();
        assert_eq!(place.files().len(), 2);
    }

    #[test]
    fn the_oldest_files_go_before_there_is_too_much() {
        let place = Place::new();
        let mut files = place.open(START);
        for number in 0..200 {
            files.append(format!("{number:09}\n").as_bytes(), START + number * SECOND / 10).unwrap();
            assert!(files.bytes() <= LIMITS.keep_bytes, "{} after {number}", files.bytes());
        }
        let left: String = place.files().into_iter().map(|(_, text)| text).collect();
        assert!(left.ends_with("000000199\n") && left.len() > 200 && !left.contains("000000000\n"), "{left}");
    }

    #[test]
    fn after_a_restart_the_file_goes_on_and_half_a_line_at_its_end_is_cut_off() {
        let place = Place::new();
        place.open(START).append(LINE, START).unwrap();
        let (name, _) = place.files().remove(0);
        let mut torn = OpenOptions::new().append(true).open(place.dir().join(name)).unwrap();
        torn.write_all(b"{\"time\":\"2026-11").unwrap();
        place.open(START + SECOND).append(b"next\n", START + SECOND).unwrap();
        let texts: Vec<_> = place.files().into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["123456789\nnext\n"]);
    }

    #[test]
    fn after_a_long_pause_another_file_is_begun_and_the_old_one_is_mended_all_the_same() {
        let place = Place::new();
        place.open(START).append(LINE, START).unwrap();
        let (name, _) = place.files().remove(0);
        OpenOptions::new().append(true).open(place.dir().join(name)).unwrap().write_all(b"half").unwrap();
        place.open(START + LIMITS.rotate_after_us).append(b"next\n", START + LIMITS.rotate_after_us).unwrap();
        let texts: Vec<_> = place.files().into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["123456789\n", "next\n"]);
    }

    #[test]
    fn a_directory_that_vanishes_is_made_again() {
        let place = Place::new();
        let mut files = place.open(START);
        files.append(LINE, START).unwrap();
        fs::remove_dir_all(place.dir()).unwrap();
        files.append(b"next\n", START).unwrap();
        assert_eq!(place.files()[0].1, "next\n");
    }

    #[test]
    fn a_disk_that_takes_nothing_costs_those_lines_and_is_tried_again_a_second_later() {
        let place = Place::new();
        let mut files = place.open(START);
        files.append(LINE, START).unwrap();
        // Every write to /dev/full fails as on a full disk.
        let real = files.current.take();
        let full = PathBuf::from("/dev/full");
        let file = OpenOptions::new().write(true).open(&full).unwrap();
        let inode = file.metadata().unwrap().ino();
        files.current = Some(Current { file, path: full, inode, began_us: START, bytes: 0 });
        let error = files.append(LINE, START).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        files.current = real;
        assert!(files.append(LINE, START + SECOND - 1).is_err(), "tried again at once");
        files.append(b"next\n", START + SECOND).unwrap();
        assert_eq!(place.files()[0].1, "123456789\nnext\n");
    }

    #[test]
    fn a_file_where_the_directory_was_is_told_once_and_mended_by_its_removal() {
        let place = Place::new();
        let mut files = place.open(START);
        fs::remove_dir_all(place.dir()).unwrap();
        fs::write(place.dir(), "in the way").unwrap();
        assert!(files.append(LINE, START).is_err());
        fs::remove_file(place.dir()).unwrap();
        files.append(b"next\n", START + SECOND).unwrap();
        assert_eq!(place.files()[0].1, "next\n");
    }

    #[test]
    fn two_writers_of_one_directory_are_one_too_many() {
        let place = Place::new();
        let held = place.open(START);
        let error = Files::open(&place.dir(), LIMITS, START).unwrap_err().to_string();
        assert!(error.contains("another sidecar") && error.contains("of its own"), "{error}");
        drop(held);
        place.open(START);
    }

    #[test]
    fn a_directory_that_cannot_be_is_refused_with_its_option() {
        let error = Files::open(Path::new("/dev/null/log"), LIMITS, START).unwrap_err().to_string();
        assert!(error.contains("--decision-log /dev/null/log"), "{error}");
    }
}
