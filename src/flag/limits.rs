//! What a flag, a segment, an environment and a context may at most be. Enforced when a change is committed and again where it is applied.

/// Canonical JSON of one flag, in bytes.
pub const FLAG_BYTES: usize = 256 * 1024;
/// Canonical JSON of one segment, in bytes: room for [`SEGMENT_KEYS`] keys of 80 bytes.
pub const SEGMENT_BYTES: usize = 8 * 1024 * 1024;
/// Keys that one segment includes and excludes, together.
pub const SEGMENT_KEYS: usize = 100_000;
/// Canonical JSON of every flag and segment of an environment, in bytes.
pub const ENVIRONMENT_BYTES: usize = 32 * 1024 * 1024;
/// A flag as flagd's engines read it, with its segments and prerequisites written out, in bytes.
pub const TRANSLATED_BYTES: usize = 1024 * 1024;
pub const ENVIRONMENT_FLAGS: usize = 20_000;
pub const ENVIRONMENT_SEGMENTS: usize = 20_000;
/// A document that is parsed, in bytes: an environment as indented text.
pub const DOCUMENT_BYTES: usize = 2 * ENVIRONMENT_BYTES;

/// Keys of flags and segments are `[A-Za-z0-9._-]{1,128}`; names of variants, rules and tags are as long at most.
pub const KEY_BYTES: usize = 128;
/// The same of flagd's documents, which `yardarm start` serves as they are ([`super::Naming`]).
pub const FLAGD_NAME_BYTES: usize = 1024;
pub const RULES: usize = 1_000;
/// Conditions of one rule or segment.
pub const CONDITIONS: usize = 100;
/// Conditions that one question to a segment may ask, those of the segments within it counted each time that they are read.
pub const SEGMENT_COST: usize = 1_000;
/// Conditions that one decision may ask, those of segments counted each time that they are read.
pub const FLAG_COST: usize = 20_000;
pub const VARIANTS: usize = 1_000;
pub const TAGS: usize = 64;
pub const PREREQUISITES: usize = 16;
/// Seconds after which a state may at the earliest and at the latest be too old for a flag.
pub const STALE_AFTER_S: std::ops::RangeInclusive<u64> = 1..=30 * 24 * 3_600;
pub const REGEX_BYTES: usize = 1024;
/// What a regular expression may take when it is compiled, in bytes. A small pattern can ask for much: `\pL{1,100}`.
pub const REGEX_COMPILED_BYTES: usize = 256 * 1024;
/// Regular expressions of one flag or one segment.
pub const REGEXES: usize = 100;
/// What all of them may take together when they are compiled, in bytes.
pub const REGEXES_COMPILED_BYTES: usize = 4 * 1024 * 1024;
/// A longer text never matches a regular expression.
pub const REGEX_SUBJECT_BYTES: usize = 8 * 1024;
/// Levels of an object value, of segments within segments, of prerequisites of prerequisites.
pub const NESTING: usize = 16;
/// Flags that one decision may ask for its prerequisites, counted each time that one is asked.
pub const PREREQUISITE_DECISIONS: u32 = 1_000;

/// Levels of objects and lists of `targeting`; one operator has two.
pub const TARGETING_NESTING: usize = 64;
/// Operators and operands of one `targeting`; a list without an operator in it is one operand.
pub const TARGETING_OPERATIONS: usize = 2_000;
/// Levels of operators over lists (`map`, `filter`, `reduce`, `all`, `some`, `none`) within one another.
pub const TARGETING_ITERATIONS: usize = 2;
/// Steps of one evaluation of `targeting`: an operation, an operand, an element of a list that is gone through, 64 bytes of a text that is read.
pub const TARGETING_STEPS: usize = 10_000;

/// Templates of one document.
pub const TEMPLATES: usize = 100;
/// About what one template takes when it is read, in bytes.
pub const TEMPLATE_BYTES: usize = 64 * 1024;
/// Stages of a rollout.
pub const STAGES: usize = 50;
/// Gates of one stage.
pub const GATES: usize = 16;
/// Metrics of one flag.
pub const METRICS: usize = 32;
/// Guards of one flag.
pub const GUARDS: usize = 16;
/// Approvals that one gate may ask for.
pub const APPROVALS: u32 = 16;

/// A context, encoded, in bytes.
pub const CONTEXT_BYTES: usize = 64 * 1024;
/// Top-level attributes of a context.
pub const CONTEXT_ATTRIBUTES: usize = 256;
/// Levels of an attribute's value.
pub const CONTEXT_NESTING: usize = 16;

/// Every problem of a document is reported, up to this many.
pub const PROBLEMS: usize = 1_000;

/// Whether `key` may name a flag or a segment: `[A-Za-z0-9._-]{1,128}`.
pub fn is_key(key: &str) -> bool {
    (1..=KEY_BYTES).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}
