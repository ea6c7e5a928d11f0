//! What became of the events of the decision log, for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

use super::pressure::Step;

/// Every event that was received ends in exactly one of `duplicates`, `sampled_out`, `held_back`, one of `lost` before the sinks, or in the
/// sinks.
#[derive(Debug, Default)]
pub struct Counts {
    pub received: AtomicU64,
    pub duplicates: AtomicU64,
    pub sampled_out: AtomicU64,
    /// Left out by the step that was on.
    pub held_back: AtomicU64,
    pub written: AtomicU64,
    pub exported: AtomicU64,
    lost: [AtomicU64; Lost::ALL.len()],
    step: AtomicU64,
    /// Of all files of the directory.
    pub file_bytes: AtomicU64,
}

/// Where an event was lost that should have been kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The buffer of the answering thread, or the queue of outcomes, was full.
    Buffer,
    /// More lines in a second than may be written.
    Limit,
    /// The disk did not take it.
    Disk,
    /// The collector did not take it, or not fast enough.
    Otlp,
}

impl Lost {
    pub const ALL: [Self; 4] = [Self::Buffer, Self::Limit, Self::Disk, Self::Otlp];

    pub fn name(self) -> &'static str {
        match self {
            Self::Buffer => "buffer",
            Self::Limit => "limit",
            Self::Disk => "disk",
            Self::Otlp => "otlp",
        }
    }
}

impl Counts {
    pub fn lose(&self, lost: Lost, events: u64) {
        self.lost[lost as usize].fetch_add(events, Ordering::Relaxed);
    }

    pub fn lost(&self, lost: Lost) -> u64 {
        self.lost[lost as usize].load(Ordering::Relaxed)
    }

    pub(super) fn set_step(&self, step: Step) {
        self.step.store(step as u64, Ordering::Relaxed);
    }

    /// See [`Step`]: 0 is everything, 3 is counters only.
    pub fn step(&self) -> u64 {
        self.step.load(Ordering::Relaxed)
    }
}
