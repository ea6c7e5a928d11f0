//! Word of the kernel about files of a few directories (inotify): a change is known in microseconds, where a poll would find it in seconds.

use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use tokio::io::unix::AsyncFd;

/// Events that are read at once. More wait in the kernel.
const BUFFER_BYTES: usize = 4096;

pub(super) struct Watch(AsyncFd<OwnedFd>);

/// What happened in a directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Happened {
    /// A file of this name was written and closed, or put there whole, or is gone.
    To(OsString),
    /// Something else; it may have been anything.
    Else,
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        #[expect(deprecated, reason = "it is unsound for a type that lends out a descriptor which is not its own; this one owns it")]
        AsyncFd::new(fd).map(Self)
    }

    /// A directory that is watched already stays so.
    pub(super) fn add(&self, directory: &Path) -> io::Result<()> {
        // Not each write: a file that is half written would be read.
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        inotify::add_watch(self.0.get_ref(), directory, flags)?;
        Ok(())
    }

    /// Waits until something happened.
    pub(super) async fn next(&self) -> io::Result<Vec<Happened>> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|inner| read(inner.get_ref())) {
                Ok(read) => return read,
                Err(_would_block) => {}
            }
        }
    }
}

fn read(fd: &OwnedFd) -> io::Result<Vec<Happened>> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
    let mut reader = Reader::new(fd, &mut buffer);
    let mut happened = Vec::new();
    loop {
        let event = reader.next()?;
        // One that was only created is empty, or still being written; a link is whole at once and is looked at like everything else.
        let is_whole = event.events().intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO | ReadFlags::DELETE | ReadFlags::MOVED_FROM);
        happened.push(match event.file_name() {
            Some(name) if is_whole => Happened::To(std::ffi::OsStr::from_bytes(name.to_bytes()).to_owned()),
            Some(_) | None => Happened::Else,
        });
        if reader.is_buffer_empty() {
            return Ok(happened);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn what_is_written_moved_and_removed_is_told_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::new().unwrap();
        watch.add(dir.path()).unwrap();
        watch.add(dir.path()).unwrap();
        let path = dir.path().join("a.json");
        fs::write(&path, "{}").unwrap();
        fs::write(dir.path().join("b"), "{}").unwrap();
        fs::rename(dir.path().join("b"), &path).unwrap();
        fs::remove_file(&path).unwrap();
        let mut told = Vec::new();
        while told.iter().filter(|happened| **happened == Happened::To("a.json".into())).count() < 3 {
            told.extend(watch.next().await.unwrap());
        }
        assert!(told.contains(&Happened::To("b".into())));
        assert!(watch.add(&dir.path().join("nowhere")).is_err());
    }
}
