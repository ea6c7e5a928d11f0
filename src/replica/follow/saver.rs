//! When the state goes to disk: at most once a second, but a kill at once, and the next kill as soon as writing takes no more than a tenth
//! of the time: in a storm of kills, writing a large state over and over would stand in the way of the kills themselves. What changes while
//! a write runs goes with the next one. A disk that is full or broken stops nobody from serving; it is tried again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use crate::clock::Micros;
use crate::replica::Saved;
use crate::replica::disk::Disk;

use super::metrics::{Metrics, count};

const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// A pause after a write, in times that the write took.
const PAUSE_TIMES: u32 = 9;
const RETRY_AFTER: Duration = Duration::from_secs(5);

pub struct Saver {
    /// `None` without a data directory, and while a write runs.
    disk: Option<Disk>,
    running: Option<JoinHandle<(Disk, io::Result<()>)>>,
    due: Option<Instant>,
    not_before: Instant,
    /// The same for kills.
    kill_not_before: Instant,
    started: Instant,
    is_failing: bool,
    metrics: Arc<Metrics>,
}

/// What [`Saver::turn`] waited for.
pub enum Turn {
    /// Call [`Saver::start`] with the state as it is now.
    Due,
    Written(Result<(Disk, io::Result<()>), JoinError>),
}

impl Saver {
    pub fn new(disk: Option<Disk>, metrics: Arc<Metrics>) -> Self {
        let now = Instant::now();
        Self { disk, running: None, due: None, not_before: now, kill_not_before: now, started: now, is_failing: false, metrics }
    }

    /// There was no data directory until now.
    pub fn inherit(&mut self, disk: Disk) {
        self.disk = Some(disk);
    }

    pub fn changed(&mut self, at_once: bool) {
        if self.disk.is_none() && self.running.is_none() {
            return;
        }
        let due = if at_once { self.kill_not_before } else { self.not_before };
        self.due = Some(self.due.map_or(due, |already| already.min(due)));
    }

    /// Never returns when there is nothing to write. May be dropped and called again.
    pub async fn turn(&mut self) -> Turn {
        if let Some(running) = &mut self.running {
            return Turn::Written(running.await);
        }
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
        Turn::Due
    }

    pub fn start(&mut self, saved: Saved, fresh_us: Micros, keep_other: bool) {
        let Some(mut disk) = self.disk.take() else { return };
        self.due = None;
        self.started = Instant::now();
        self.not_before = self.started + AT_MOST_EVERY;
        self.running = Some(spawn_blocking(move || {
            let result = disk.save(saved, fresh_us, keep_other);
            (disk, result)
        }));
    }

    pub fn written(&mut self, written: Result<(Disk, io::Result<()>), JoinError>) {
        self.running = None;
        self.kill_not_before = self.not_before.min(Instant::now() + self.started.elapsed() * PAUSE_TIMES);
        let (disk, result) = match written {
            Ok(written) => written,
            // The runtime ends, and the process with it.
            Err(error) if error.is_cancelled() => return,
            Err(error) => {
                tracing::error!(%error, "writing the last good state failed for good: it is not written any more");
                return;
            }
        };
        let dir = disk.dir().display().to_string();
        self.disk = Some(disk);
        match result {
            Ok(()) => {
                count(&self.metrics.saves);
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!(dir, "the last good state is on disk again");
                }
            }
            Err(error) => {
                count(&self.metrics.save_failures);
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(dir, %error, "the last good state cannot be written: a restart would serve an older one; trying again");
                }
                self.not_before = Instant::now() + RETRY_AFTER;
                self.kill_not_before = self.not_before;
                self.due = Some(self.not_before);
            }
        }
    }

    /// Writes what is not written yet, for the last time.
    pub async fn finish(mut self, saved: Saved, fresh_us: Micros, keep_other: bool) {
        if self.running.is_some()
            && let Turn::Written(written) = self.turn().await
        {
            self.written(written);
        }
        self.start(saved, fresh_us, keep_other);
        if self.running.is_some()
            && let Turn::Written(written) = self.turn().await
        {
            self.written(written);
        }
    }
}
