//! The decision log: who was served what, and why, as lines in files and as OTLP logs.
//!
//! ```text
//! answering threads -> Journal (one a thread) \                           /-> Files: decisions-*.ndjson
//!                                              Writer: Sieve -> a line ->
//! outcomes -> Handle (a bounded queue) -------/   dedup, sample           \-> OTLP: feature_flag.evaluation
//! ```
//! A thread that answers only notes; everything else is done in rounds by one task. What is too much is left out in steps ([`Step`]) and
//! every event that is left out is counted ([`Counts`]). The counters of `/metrics` are exact whatever becomes of the log.

mod args;
mod counts;
mod files;
mod journal;
mod line;
mod otlp;
mod person;
mod pressure;
mod seen;
mod sieve;
mod writer;

pub use args::{Args, Keys, Share};
pub use counts::{Counts, Lost};
pub use files::{EXTENSION, FileLimits, Files, is_of_the_log};
pub use journal::{Journal, MOST_EVENTS, MOST_TEXT_BYTES};
pub use line::{Evaluation, EvaluationLine, Line, Outcome, OutcomeLine};
pub use otlp::Exporter;
pub use person::{Persons, SALT_FILE, Salt};
pub use pressure::{Load, Pressure, Step};
pub use seen::{MOST_SEEN, Seen};
pub use sieve::{MOST_LINES_A_SECOND, Sieve, Verdict, WINDOW_US};
pub use writer::{Handle, Place, Writer, open};
