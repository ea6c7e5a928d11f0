//! Rollouts: plans that gate, decide and stop by themselves. Pure: no clock, no I/O, no async, no randomness; time and evidence come in as
//! arguments.
//!
//! - [`step`]: the whole engine. `plan` is what it carries out, `state` where it is, what happens to it and what is to be done.
//! - `judge`: what the gates of a stage say of the evidence.
//! - `guard`: bounds that kill by themselves, looked at each second.
//! - `forecast`: what a plan can decide with the traffic at hand.
//! - [`statistics`]: gates, triggers, sample ratios, and what a stage can decide at all.

mod forecast;
mod guard;
mod judge;
mod plan;
mod state;
pub mod statistics;
mod step;

pub use forecast::{Forecast, Outlook, forecast};
pub use guard::{ALPHA_KILL, Attributed, Counts, Fired, HORIZON_TICKS, Watch, arms, arms_of, together};
pub use judge::{Finding, REPORT_INTERVAL_US, findings, planned};
pub use plan::{Plan, percent};
pub use state::{Action, Due, Event, Evidence, Micros, Observed, Phase, State};
pub use step::step;
