//! What an evaluation answers.

use super::Value;

/// OpenFeature's resolution reasons (specification, appendix on types), and the two that it lacks: `PrerequisiteFailed` and `Killed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    Static,
    TargetingMatch,
    Split,
    Default,
    Disabled,
    PrerequisiteFailed,
    Killed,
    /// The state is older than the flag allows.
    Stale,
    Error,
}

/// OpenFeature's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    FlagNotFound,
    TypeMismatch,
    TargetingKeyMissing,
    InvalidContext,
    ProviderNotReady,
    ParseError,
    General,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    pub name: String,
    pub value: Value,
}

/// The answer for one context, borrowed from the flag that gave it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision<'f> {
    /// `None`: the caller's default. A disabled flag, or one whose prerequisite failed, without an off variant answers so, a flag without a
    /// default, and one whose `targeting` gave something else than the name of a variant.
    pub variant: Option<&'f Variant>,
    pub reason: Reason,
    /// Name of the rule that decided.
    pub rule: Option<&'f str>,
    /// Bucket of the split that decided, 0 .. 999,999. `None` in a split too when the attribute to bucket by is absent.
    pub bucket: Option<u32>,
    /// The split had no key to bucket by and served its baseline.
    pub key_missing: bool,
    /// `targeting` could not be read, and the flag is served all the same, with an error.
    pub is_unreadable: bool,
}

impl Decision<'_> {
    /// What is wrong when the reason is [`Reason::Error`]: `targeting` gave something else than the name of a variant, or took more steps than
    /// one evaluation has; in that case there is a variant all the same.
    pub fn error(&self) -> Option<ErrorCode> {
        match self.reason {
            Reason::Error if self.is_unreadable => Some(ErrorCode::ParseError),
            Reason::Error => Some(ErrorCode::General),
            _ => None,
        }
    }
}

impl Reason {
    pub const ALL: [Self; 9] = [
        Self::Static,
        Self::TargetingMatch,
        Self::Split,
        Self::Default,
        Self::Disabled,
        Self::PrerequisiteFailed,
        Self::Killed,
        Self::Stale,
        Self::Error,
    ];

    /// As OpenFeature writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Static => "STATIC",
            Self::TargetingMatch => "TARGETING_MATCH",
            Self::Split => "SPLIT",
            Self::Default => "DEFAULT",
            Self::Disabled => "DISABLED",
            Self::PrerequisiteFailed => "PREREQUISITE_FAILED",
            Self::Killed => "KILLED",
            Self::Stale => "STALE",
            Self::Error => "ERROR",
        }
    }
}

impl ErrorCode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FlagNotFound => "FLAG_NOT_FOUND",
            Self::TypeMismatch => "TYPE_MISMATCH",
            Self::TargetingKeyMissing => "TARGETING_KEY_MISSING",
            Self::InvalidContext => "INVALID_CONTEXT",
            Self::ProviderNotReady => "PROVIDER_NOT_READY",
            Self::ParseError => "PARSE_ERROR",
            Self::General => "GENERAL",
        }
    }
}
