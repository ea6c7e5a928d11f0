//! What is counted of the sync service: flagd's two metrics of streams, and what becomes of the documents.

use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::flag::Obstacle;
use crate::sidecar::histogram::{Histogram, STREAMS};

/// How a stream ended, in flagd's words (flagd.md 1.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sidecar) enum Ended {
    NormalClose,
    DeadlineExceeded,
    ClientDisconnect,
    Error,
}

#[derive(Debug, Default)]
pub(in crate::sidecar) struct Counts {
    pub(in crate::sidecar) editions: AtomicU64,
    /// Of the largest document.
    pub(in crate::sidecar) document_bytes: AtomicUsize,
    pub(in crate::sidecar) sent: AtomicU64,
    /// In the last document of everything, by [`Obstacle`].
    pub(in crate::sidecar) left_out: [AtomicU64; Obstacle::ALL.len()],
    durations: [Durations; Ended::ALL.len()],
}

/// Of streams, which end seldom.
#[derive(Debug)]
struct Durations(Mutex<Histogram>);

impl Default for Durations {
    fn default() -> Self {
        Self(Mutex::new(Histogram::new(&STREAMS)))
    }
}

impl Ended {
    pub(in crate::sidecar) const ALL: [Self; 4] = [Self::NormalClose, Self::DeadlineExceeded, Self::ClientDisconnect, Self::Error];

    pub(in crate::sidecar) fn name(self) -> &'static str {
        match self {
            Self::NormalClose => "normal_close",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::ClientDisconnect => "client_disconnect",
            Self::Error => "error",
        }
    }
}

impl Counts {
    pub(in crate::sidecar) fn ended(&self, ended: Ended, after: Duration) {
        self.durations[ended as usize].0.lock().observe(after.as_secs_f64());
    }

    pub(in crate::sidecar) fn durations(&self, ended: Ended) -> MutexGuard<'_, Histogram> {
        self.durations[ended as usize].0.lock()
    }
}
