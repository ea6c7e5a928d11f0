//! What evidence proves, at whatever moment somebody looks at it. Three primitives carry everything:
//!
//! - `boundary`: a bound on a z value that holds at all looks together; `gate` tests two arms (`arm`) with it, `display` draws intervals.
//! - `mixture`: exact tests and intervals of counts: sample ratio, missing outcomes, one share, rates of events.
//! - `ecusum`: a trigger that finds a change within seconds and stays silent through weeks of health; `baseline` is its moving threshold.
//!
//! Around them: `decision` makes one decision of all verdicts, `planner` says beforehand what a stage can decide, `fixed` is the test at a
//! planned size for those who want it, `counters` and `units` count each report and each unit once.
//!
//! Every function is total: what is not a number, or cannot be, makes no decision and no panic.

mod arm;
mod baseline;
mod boundary;
mod counters;
mod decision;
mod display;
mod ecusum;
mod fixed;
mod gate;
mod mixture;
mod planner;
mod units;

pub use arm::Arm;
pub use baseline::{BASELINE_CAP, Baseline, LEAST_REQUESTS, Threshold};
pub use boundary::Boundary;
pub use counters::{ACCUMULATORS, Counters, Noted};
pub use decision::{CROSSOVER, Decided, Decision, Evaluated, OnDeadline, OnFail, Reason, Situation, decide};
pub use display::{Interval, difference, lift};
pub use ecusum::{Cusum, DISTINCT_FAILING_UNITS, ODDS, ln_threshold};
pub use fixed::{ChiSquare, Fixed, FixedResult, ProportionTest, WelchTest, chi_square, non_inferiority, two_proportions, welch};
pub use gate::{
    ALPHA_FAIL, ALPHA_PASS, BURN_IN, Contrast, Direction, Gate, Judgement, MIN_UNITS, Margin, Measured, Mode, Tested, Verdict, Waiting,
};
pub use mixture::{
    ALPHA_SAMPLE_RATIO, CONCENTRATIONS, SampleRatio, coverage, dirichlet, proportion_interval, rate_ratio_interval, sample_ratio,
};
pub use planner::{
    BUDGET, Baselines, Feasibility, LEAST_RELATIVE_SHARE, POWER, SampleSize, Stage, Undecidable, certifiable, detectable, sample_size,
};
pub use units::{Cohort, EVENTS_OF_A_UNIT, Record, UNITS, Units, sampling_rate};
