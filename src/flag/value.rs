//! The value of a variant, and its type.

use std::fmt;

use serde_json::Value as Json;

/// What a variant carries. All variants of a flag have the same [`ValueType`].
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Bool(bool),
    Number(f64),
    String(String),
    Object(serde_json::Map<String, Json>),
}

/// OpenFeature's flag value types, with integers and floats as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    Bool,
    Number,
    String,
    Object,
}

impl Value {
    pub fn kind(&self) -> ValueType {
        match self {
            Self::Bool(_) => ValueType::Bool,
            Self::Number(_) => ValueType::Number,
            Self::String(_) => ValueType::String,
            Self::Object(_) => ValueType::Object,
        }
    }

    /// The value as JSON; whole numbers come back without a fraction.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Bool(value) => Json::Bool(*value),
            Self::Number(value) => number_to_json(*value),
            Self::String(value) => Json::String(value.clone()),
            Self::Object(value) => Json::Object(value.clone()),
        }
    }
}

/// Largest magnitude up to which every integer has a `f64` of its own: 2^53 - 1. (2^53 is also what 2^53 + 1 becomes.)
pub(super) const EXACT_INTEGERS: f64 = 9_007_199_254_740_991.0;

/// Whole numbers without a fraction, so that `1.0` and `1` are written alike.
pub(super) fn number_to_json(value: f64) -> Json {
    if value.fract() == 0.0 && value.abs() <= EXACT_INTEGERS {
        Json::from(value as i64)
    } else {
        serde_json::Number::from_f64(value).map_or(Json::Null, Json::Number)
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "bool",
            Self::Number => "number",
            Self::String => "string",
            Self::Object => "object",
        })
    }
}
