//! Who was served what, what became of them, and how the control plane hears of both.
//!
//! ```text
//! Evaluate -> exposures (a table for each thread) --\
//! Track, POST /ofrep/v1/track -> outcome ------------> collector -> attribution -> reporter -> control plane
//!                                                                       \-> guards -> trips -> the replica's writer, control plane
//! ```
//! What can be lost: of a process that is killed, at most a second of counters and ten seconds of unit records, and what the control plane
//! has not acknowledged. One that is asked to end reports all of it first. While the control plane is away, counters go on and up to 100,000
//! records wait beside those of the units in memory.

mod attribution;
mod collector;
mod epochs;
mod exposures;
mod guards;
mod http;
mod keys;
mod outcome;
mod reporter;
mod seen;
mod service;
mod trips;

pub(super) use collector::{Evidence, Stats};
pub(super) use exposures::{Exposure, Exposures};
pub(super) use http::{BODY_BYTES, track as track_http};
pub(super) use reporter::report;
pub(super) use service::service;
pub(super) use trips::guard;

/// Units that a pod remembers by default, each counted once for each flag: about 130 bytes, and 40 for each metric of a unit that had an
/// outcome.
pub const UNITS: usize = 100_000;

/// Of units whose records are sent. The plan of a larger rollout will set it when an epoch begins; it never changes within one.
const SAMPLING_RATE: f64 = 1.0;

fn is_sampled(unit: u64) -> bool {
    // Exact where it matters: a rate of 1 takes every unit.
    SAMPLING_RATE >= 1.0 || (unit as f64) < SAMPLING_RATE * u64::MAX as f64
}
