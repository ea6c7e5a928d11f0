//! A file: read again when it is written, replaced by a rename, or swapped with a whole directory behind a link, as Kubernetes does with a
//! ConfigMap (`..data`). When it is gone, what it said is served until it is there again.
//!
//! The kernel tells of changes; a look each second is for what it cannot tell: a file system of another machine, and a directory that is not
//! there yet.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::flag::limits;

#[cfg(target_os = "linux")]
use super::watch::{Happened, Watch};
use super::{Desk, Report};

const LOOK: Duration = Duration::from_secs(1);

/// What tells one state of a file from another without reading it.
type Shape = (u64, u64, u64, i64, i64);

struct Followed<'d> {
    path: PathBuf,
    desk: &'d Desk,
    #[cfg(target_os = "linux")]
    watch: Option<Watch>,
    /// Of what was read last. `None`: it could not be.
    read: Option<Shape>,
    /// At the last look.
    seen: Option<Shape>,
    is_told: bool,
}

pub(super) async fn follow(path: PathBuf, desk: &Desk) {
    let mut followed = Followed {
        path,
        desk,
        #[cfg(target_os = "linux")]
        watch: Watch::new().inspect_err(|error| tracing::warn!(%error, "files cannot be watched; they are looked at each second")).ok(),
        read: None,
        seen: None,
        is_told: false,
    };
    // Watched first, read after: what changes between is told.
    followed.arm();
    if !followed.read(false).await {
        return;
    }
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_heard = tokio::select! {
            is_written = followed.is_written() => {
                followed.arm();
                !is_written || followed.read(false).await
            }
            _ = look.tick() => {
                followed.arm();
                !followed.is_changed() || followed.read(true).await
            }
        };
        if !is_heard {
            return;
        }
    }
}

impl Followed<'_> {
    /// Watches the directory in which the file is named, and that in which it lies.
    #[cfg(target_os = "linux")]
    fn arm(&self) {
        let Some(watch) = &self.watch else { return };
        let real = self.path.canonicalize().ok();
        for path in [Some(&self.path), real.as_ref()].into_iter().flatten() {
            // One that is not there is tried again at the next look.
            _ = watch.add(directory(path));
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn arm(&self) {}

    /// Waits until something happened, and says whether it may have been to the file.
    #[cfg(target_os = "linux")]
    async fn is_written(&self) -> bool {
        let Some(watch) = &self.watch else { return std::future::pending().await };
        match watch.next().await {
            Ok(happened) => {
                let names: Vec<OsString> = self.names();
                let is_named = |what: &Happened| matches!(what, Happened::To(name) if names.contains(name));
                // A link that leads elsewhere now has a name of its own.
                happened.iter().any(is_named) || self.shape().is_some_and(|shape| self.read != Some(shape) && is_settled(&happened))
            }
            // The looks go on.
            Err(_) => {
                tokio::time::sleep(LOOK).await;
                false
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    async fn is_written(&self) -> bool {
        std::future::pending().await
    }

    fn names(&self) -> Vec<OsString> {
        let real = self.path.canonicalize().ok();
        [Some(&self.path), real.as_ref()].into_iter().flatten().filter_map(|path| path.file_name()).map(ToOwned::to_owned).collect()
    }

    fn shape(&self) -> Option<Shape> {
        let found = std::fs::metadata(&self.path).ok()?;
        Some((found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
    }

    /// By a look: one that is being written is left alone until it looks the same twice.
    fn is_changed(&mut self) -> bool {
        let shape = self.shape();
        let is_still = std::mem::replace(&mut self.seen, shape) == shape;
        is_still && (shape != self.read || shape.is_none() && !self.is_told)
    }

    /// False when nobody listens any more. `is_settled`: nobody is writing.
    async fn read(&mut self, is_settled: bool) -> bool {
        let shape = self.shape();
        let report = match read(&self.path).await {
            // A writer begins so. Should it end so, a look tells it.
            Ok(text) if text.trim_ascii().is_empty() && self.read.is_some() && !is_settled => return true,
            Ok(text) if text.trim_ascii().is_empty() && self.read.is_some() => {
                (self.read, self.is_told) = (None, true);
                Report::Lost("the file is empty".to_owned())
            }
            Ok(text) => {
                self.read = shape;
                self.is_told = false;
                Report::Document(text)
            }
            Err(error) => {
                self.read = None;
                self.is_told = true;
                Report::Lost(error.to_string())
            }
        };
        self.desk.report(report).await
    }
}

/// Not in the middle of a swap.
#[cfg(target_os = "linux")]
fn is_settled(happened: &[Happened]) -> bool {
    happened.iter().any(|what| matches!(what, Happened::To(_)))
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Through a handle of its own, so that a file that grows meanwhile is not read without end.
async fn read(path: &Path) -> io::Result<String> {
    let path = path.to_owned();
    let read = move || {
        let mut text = String::new();
        let most = limits::DOCUMENT_BYTES as u64;
        std::fs::File::open(&path)?.take(most + 1).read_to_string(&mut text)?;
        if text.len() as u64 > most {
            return Err(io::Error::other(format!("found more than {most} bytes")));
        }
        Ok(text)
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}
