//! A file that is there whole or not at all, and that never takes the place of what is no file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

/// Links that lead to links, as many as Linux follows.
const LINKS: usize = 40;

/// What is being written under a name.
///
/// - A file, or nothing yet: written beside its place, which it takes in one step with [`Replacement::finish`]; before that, the older file
///   stands. A link keeps its name, and what it leads to is replaced.
/// - A pipe, a device, a descriptor that is open already (`/dev/stdout`): written through, because a rename would take it away from everybody
///   else. As root that is the whole machine's /dev/null.
#[must_use = "the older file stands until this is finished"]
pub struct Replacement {
    file: File,
    /// `None` for what is written through, and once the place is taken.
    place: Option<Place>,
}

struct Place {
    path: PathBuf,
    partial: PathBuf,
}

impl Replacement {
    pub fn of(path: &Path) -> io::Result<Self> {
        match path.to_str() {
            // Opened by name a file would be written over from its start, and by us once more through the descriptor that we hold.
            Some("/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1") => return Self::through(io::stdout().as_fd().try_clone_to_owned()?),
            Some("/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2") => return Self::through(io::stderr().as_fd().try_clone_to_owned()?),
            _ => {}
        }
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Self::through(File::options().write(true).open(path)?);
        }
        let path = followed(path)?;
        let partial = beside(&path);
        Ok(Self { file: File::create(&partial)?, place: Some(Place { path, partial }) })
    }

    fn through(file: impl Into<File>) -> io::Result<Self> {
        Ok(Self { file: file.into(), place: None })
    }

    /// Makes it durable and lets it take its place; where that is, unless it was written through.
    pub fn finish(mut self) -> io::Result<Option<PathBuf>> {
        let Some(Place { path, partial }) = &self.place else {
            return match self.file.sync_all() {
                // A pipe has nothing to make durable.
                Err(error) if error.kind() != io::ErrorKind::InvalidInput => Err(error),
                _ => Ok(None),
            };
        };
        self.file.sync_all()?;
        fs::rename(partial, path)?;
        Ok(self.place.take().map(|place| place.path))
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(Place { partial, .. }) = &self.place {
            // The failure that kept it from being finished is the one that matters; a left-over partial file is only untidy.
            let _ = fs::remove_file(partial);
        }
    }
}

/// Where a link leads in the end, whether something is there or not: `fs::canonicalize` wants it to be there.
fn followed(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        if !fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink()) {
            return Ok(path);
        }
        let target = fs::read_link(&path)?;
        // A relative one counts from the folder of the link.
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    Err(io::Error::other("too many links lead to links"))
}

/// A name in the same folder, so that a rename is one step.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(path: &Path, text: &str) -> io::Result<Option<PathBuf>> {
        let mut replacement = Replacement::of(path)?;
        replacement.write_all(text.as_bytes())?;
        replacement.finish()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_older_file_stands_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "old").unwrap();
        let mut broken_off = Replacement::of(&path).unwrap();
        broken_off.write_all(b"ne").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        drop(broken_off);
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names(folder.path())), ("old", vec!["file".to_owned()]));
        assert_eq!(write(&path, "new").unwrap(), Some(path.clone()));
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names(folder.path())), ("new", vec!["file".to_owned()]));
    }

    #[test]
    fn a_link_keeps_its_name_and_what_it_leads_to_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (below, link, far) = (folder.path().join("below"), folder.path().join("link"), folder.path().join("far"));
        fs::create_dir(&below).unwrap();
        symlink("below/file", &link).unwrap();
        symlink("link", &far).unwrap();
        // What is not there yet is made where the link leads.
        for (path, text) in [(&link, "first"), (&link, "second"), (&far, "third")] {
            assert_eq!(write(path, text).unwrap(), Some(below.join("file")));
            assert_eq!(fs::read_to_string(below.join("file")).unwrap(), text);
        }
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("below/file"));
        assert_eq!((names(folder.path()).len(), names(&below)), (3, vec!["file".to_owned()]));
    }

    #[test]
    fn links_in_a_circle_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        symlink("link", &link).unwrap();
        assert!(write(&link, "x").is_err());
        assert_eq!(names(folder.path()), ["link"]);
    }

    #[test]
    fn a_folder_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write(folder.path(), "x").is_err());
        assert_eq!(names(folder.path()), [""; 0]);
    }
}
