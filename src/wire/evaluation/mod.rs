//! Evaluation messages to and from the domain.
//!
//! Questions are read in place and answers are written straight into the send buffer: with owned messages half of the work of an answer
//! on a stream is allocating and copying strings that nobody reads. The messages of the generated code serve clients and tests.

mod all_resolved;
mod answer;
mod context;
pub mod flagd;
pub mod flagd_json;
mod form;
mod metadata;
pub mod ofrep;
mod question;
mod reader;
pub mod selection;
pub mod sync;
#[cfg(test)]
mod tests;
mod texts;
mod value;
pub mod watch;

use crate::flag::{ErrorCode, Reason, ValueType};

use super::v1;

pub use all_resolved::AllResolved;
pub use answer::{Answer, BatchAnswer, EvaluateResponse, Prepared, Reply, StreamError, write_message};
pub use context::Context;
pub use form::{Encoding, Form};
pub use question::{BatchQuestion, Question, Selector, StreamQuestion};
pub use value::{EncodedValue, encode_value, struct_message};

/// Why a request was not taken: the caller's fault, INVALID_ARGUMENT.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("not a valid protobuf message: {0}")]
    Malformed(#[from] Malformed),
    #[error("{field} {description}")]
    OverLimit { field: String, description: String },
}

/// What is wrong with the bytes. Apart from [`Refused`] and small, because every step of reading hands one back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

impl From<Reason> for v1::Reason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Static => Self::Static,
            Reason::TargetingMatch => Self::TargetingMatch,
            Reason::Split => Self::Split,
            Reason::Default => Self::Default,
            Reason::Disabled => Self::Disabled,
            Reason::PrerequisiteFailed => Self::PrerequisiteFailed,
            Reason::Killed => Self::Killed,
            Reason::Stale => Self::Stale,
            Reason::Error => Self::Error,
        }
    }
}

impl From<ErrorCode> for v1::ErrorCode {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::FlagNotFound => Self::FlagNotFound,
            ErrorCode::TypeMismatch => Self::TypeMismatch,
            ErrorCode::TargetingKeyMissing => Self::TargetingKeyMissing,
            ErrorCode::InvalidContext => Self::InvalidContext,
            ErrorCode::ProviderNotReady => Self::ProviderNotReady,
            ErrorCode::ParseError => Self::ParseError,
            ErrorCode::General => Self::General,
        }
    }
}

/// `None` for a type that this version does not know, and for "unspecified".
fn value_type(number: u64) -> Option<ValueType> {
    match i32::try_from(number).ok().and_then(|number| v1::ValueType::try_from(number).ok())? {
        v1::ValueType::Unspecified => None,
        v1::ValueType::Bool => Some(ValueType::Bool),
        v1::ValueType::String => Some(ValueType::String),
        v1::ValueType::Number => Some(ValueType::Number),
        v1::ValueType::Object => Some(ValueType::Object),
    }
}
