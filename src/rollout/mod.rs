//! How a rollout is judged. Pure: no clock, no I/O, no async, no randomness; time and evidence come in as arguments.
//!
//! - `statistics`: gates, triggers, sample ratios, and what a stage can decide at all.

pub mod statistics;
