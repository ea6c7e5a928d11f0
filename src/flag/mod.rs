//! What a flag is and what it answers. Pure: no clock, no I/O, no async, no randomness.
//!
//! ```text
//! text -> node, yaml -> read -> document -> compile -> compiled -> decide, explain
//!                                 |  ^                  (condition, segment, keys, ranges, bucket, metro)
//!                              write ramp
//! ```
//! - `document`: the types that people write; `read` and `write` take them from and to text, `schema` describes them.
//! - `compile`: the only place where a flag can be refused. `environment`: what no flag can say of itself alone.
//! - `decide`: total, and without an allocation but for some of `logic`. `explain`: the same in words.
//! - `logic`: flagd's `targeting`, which a flag may have instead of rules. `flagd`: what a flag means, said in flagd's format.
//! - `plan`: a rollout as people write it, and what is measured of it; `template`: one with parameters, filled in where a document is read.
//! - `problem`: what is wrong with a document; `lines`: where in the text that is.
//! - `naming`: what flags and their variants may be called, here and in flagd's documents.
//! - `overridden`: where a flag is held whose key another has.
//! - `state`: an environment as it is stored and replicated, and its digest.

mod bucket;
mod compile;
mod compiled;
mod condition;
mod context;
mod date;
mod decide;
mod decision;
mod describe;
mod document;
mod environment;
mod explain;
mod flagd;
mod keys;
pub mod limits;
mod lines;
mod logic;
mod measured;
mod metro;
mod naming;
mod node;
pub mod overridden;
mod plan;
mod problem;
mod ramp;
mod ranges;
mod read;
mod schema;
mod segment;
mod span;
mod state;
mod template;
mod value;
mod version;
mod write;
mod yaml;

pub use bucket::{BUCKETS, bucket};
pub use compile::{compile, compile_named};
pub use compiled::{CompiledFlag, Prerequisite as CompiledPrerequisite};
pub use context::{Attribute, Attributes, Context, Name, TARGETING_KEY, Tag};
pub use decide::{Lookup, NoFlags, NoFlagsAt};
pub use decision::{Decision, ErrorCode, Reason, Variant};
pub use document::{
    Condition, Document, Flag, FlagState, FractionalVersion, Hash, Kind, Lifetime, MaxStaleness, Metadata, Operator, Prerequisite, Rule,
    Scalar, Segment, Serve, Split, Target, Test, Weight,
};
pub use environment::{check_environment, check_environment_size};
pub use explain::{Asked, Explanation, Step};
pub use flagd::{Obstacle, Translation, translate};
pub use measured::{Measured, Watched};
pub use metro::metro64;
pub use naming::Naming;
pub use plan::{
    AlphaOnRetry, Approval, Check, Direction, Gate, Guard, GuardBound, Margin, Metric, MetricKind, Mode, OnDeadline, OnFail, Plan,
    SampleRatio, Share, Stage, Start,
};
pub use problem::{Problem, Problems};
pub use read::{Assumed, Tolerated};
pub use schema::{SCHEMA, schema};
pub use segment::Segments;
pub use span::Span;
pub use state::{Delta, Digest, Item, ItemKind, ItemName, Kill, Position, Revision, State};
pub use template::{TEMPLATES, Templates};
pub use value::{Value, ValueType};

/// The sample flags: `deploy/samples/flags.yaml`, a document that explains itself.
pub const SAMPLES: &str = include_str!("../../deploy/samples/flags.yaml");
