//! What following the control plane costs and how it goes, as plain counters for whoever exports them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Why a stream ended, or why there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// No connection.
    Unreachable,
    /// The control plane said no, with a status.
    Refused,
    /// It closed the stream, or the connection broke.
    Closed,
    /// Nothing was heard for three heartbeats.
    Silent,
    /// It asked to come back later.
    GoAway,
    /// It said something that it must not say.
    Protocol,
    /// Snapshot after snapshot did not fit.
    Resyncs,
}

impl Ended {
    pub const ALL: [Self; 7] = [Self::Unreachable, Self::Refused, Self::Closed, Self::Silent, Self::GoAway, Self::Protocol, Self::Resyncs];

    /// As a metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Closed => "closed",
            Self::Silent => "silent",
            Self::GoAway => "go_away",
            Self::Protocol => "protocol",
            Self::Resyncs => "resyncs",
        }
    }
}

/// How a change came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Log,
    Urgent,
}

impl Lane {
    pub const ALL: [Self; 2] = [Self::Log, Self::Urgent];

    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Urgent => "urgent",
        }
    }
}

/// Counts since the start; `connected` says whether a stream is open now.
#[derive(Debug, Default)]
pub struct Metrics {
    pub connected: AtomicBool,
    reconnects: [AtomicU64; Ended::ALL.len()],
    pub gaps: AtomicU64,
    pub digest_mismatches: AtomicU64,
    pub epoch_changes: AtomicU64,
    /// Messages that no honest control plane sends, and states over the limits.
    pub refused: AtomicU64,
    pub snapshots: AtomicU64,
    pub deltas: AtomicU64,
    pub kills: AtomicU64,
    /// Flags that were killed here while the control plane was out of reach.
    pub trips: AtomicU64,
    pub polls: AtomicU64,
    pub poll_failures: AtomicU64,
    pub saves: AtomicU64,
    pub save_failures: AtomicU64,
    /// State files that were damaged when the process started.
    pub damaged_files: AtomicU64,
    propagation: [Histogram; Lane::ALL.len()],
}

impl Metrics {
    pub fn reconnects(&self, ended: Ended) -> u64 {
        self.reconnects[ended as usize].load(Ordering::Relaxed)
    }

    /// From the commit, by the control plane's clock, until readers saw it, by this one's. Clocks that differ by more show as zero.
    pub fn propagation(&self, lane: Lane) -> &Histogram {
        &self.propagation[lane as usize]
    }

    pub(super) fn reconnect(&self, ended: Ended) {
        count(&self.reconnects[ended as usize]);
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Upper bounds of the buckets, microseconds; above the last one there is one more bucket.
pub const BOUNDS_US: [u64; 16] = [
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    10_000_000,
    60_000_000,
    600_000_000,
];

#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub(super) fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        count(&self.buckets[bucket]);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// How many were at most as long as each bound, and then all.
    pub fn cumulative(&self) -> [u64; BOUNDS_US.len() + 1] {
        let mut total = 0;
        self.buckets.each_ref().map(|bucket| {
            total += bucket.load(Ordering::Relaxed);
            total
        })
    }

    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_in_its_own_bucket() {
        let histogram = Histogram::default();
        for us in [0, 250, 251, 600_000_000, 600_000_001] {
            histogram.record(Duration::from_micros(us));
        }
        let cumulative = histogram.cumulative();
        assert_eq!((cumulative[0], cumulative[1], cumulative[14], cumulative[15], cumulative[16]), (2, 3, 3, 4, 5));
        assert_eq!(histogram.sum(), Duration::from_micros(1_200_000_502));
    }

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        let metrics = Metrics::default();
        for (times, ended) in Ended::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| metrics.reconnect(ended));
        }
        assert_eq!(Ended::ALL.map(|ended| metrics.reconnects(ended)), [0, 1, 2, 3, 4, 5, 6]);
    }
}
