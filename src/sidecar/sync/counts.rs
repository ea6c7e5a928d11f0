//! What is counted of the sync service: flagd's two metrics of streams, and what becomes of the documents.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::flag::Obstacle;

/// How a stream ended, in flagd's words (flagd.md 1.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sidecar) enum Ended {
    NormalClose,
    DeadlineExceeded,
    ClientDisconnect,
    Error,
}

/// Upper bounds of the lengths of streams, in seconds. Providers cut theirs after ten minutes.
pub(in crate::sidecar) const BOUNDS_S: [u64; 8] = [1, 10, 60, 300, 600, 1_800, 3_600, 86_400];

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

#[derive(Debug, Default)]
pub(in crate::sidecar) struct Durations {
    /// The last is of all longer ones.
    buckets: [AtomicU64; BOUNDS_S.len() + 1],
    sum_ms: AtomicU64,
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
        let Durations { buckets, sum_ms } = &self.durations[ended as usize];
        let bucket = BOUNDS_S.iter().position(|bound| after <= Duration::from_secs(*bound)).unwrap_or(BOUNDS_S.len());
        buckets[bucket].fetch_add(1, Ordering::Relaxed);
        sum_ms.fetch_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(in crate::sidecar) fn durations(&self, ended: Ended) -> &Durations {
        &self.durations[ended as usize]
    }
}

impl Durations {
    /// Upper bound in seconds and count of each bucket.
    pub(in crate::sidecar) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS_S.iter().map(|bound| *bound as f64).chain([f64::INFINITY]);
        bounds.zip(self.buckets.iter().map(|count| count.load(Ordering::Relaxed))).collect()
    }

    pub(in crate::sidecar) fn sum_s(&self) -> f64 {
        self.sum_ms.load(Ordering::Relaxed) as f64 / 1_000.0
    }
}
