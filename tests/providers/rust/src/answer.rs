//! What a provider answered, as the scenarios speak of it: the value as JSON, reasons and error codes by OpenFeature's names.

use std::collections::BTreeMap;

use open_feature::provider::ResolutionDetails;
use open_feature::{EvaluationError, EvaluationErrorCode, EvaluationReason, FlagMetadataValue, StructValue, Value};
use serde_json::{Value as Json, json};

#[derive(Debug)]
pub struct Answer {
    pub value: Json,
    pub variant: Option<String>,
    pub reason: String,
    pub error: Option<String>,
    pub metadata: BTreeMap<String, Json>,
}

impl Answer {
    /// As OpenFeature's client would give it: an error is the code's own default.
    pub fn new<T>(given: Result<ResolutionDetails<T>, EvaluationError>, default: Json, json: impl Fn(T) -> Json) -> Self {
        match given {
            Ok(details) => Self {
                value: json(details.value),
                variant: details.variant,
                reason: reason(details.reason),
                error: None,
                metadata: details
                    .flag_metadata
                    .into_iter()
                    .flat_map(|metadata| metadata.values)
                    .map(|(key, value)| (key, metadatum(value)))
                    .collect(),
            },
            Err(error) => Self {
                value: default,
                variant: None,
                reason: "ERROR".to_owned(),
                error: Some(code(&error.code)),
                metadata: BTreeMap::new(),
            },
        }
    }
}

fn reason(reason: Option<EvaluationReason>) -> String {
    match reason {
        Some(EvaluationReason::Other(name)) => name,
        Some(EvaluationReason::TargetingMatch) => "TARGETING_MATCH".to_owned(),
        Some(reason) => format!("{reason:?}").to_uppercase(),
        None => String::new(),
    }
}

fn code(code: &EvaluationErrorCode) -> String {
    match code {
        EvaluationErrorCode::FlagNotFound => "FLAG_NOT_FOUND",
        EvaluationErrorCode::ParseError => "PARSE_ERROR",
        EvaluationErrorCode::TypeMismatch => "TYPE_MISMATCH",
        EvaluationErrorCode::InvalidContext => "INVALID_CONTEXT",
        EvaluationErrorCode::TargetingKeyMissing => "TARGETING_KEY_MISSING",
        EvaluationErrorCode::ProviderNotReady => "PROVIDER_NOT_READY",
        EvaluationErrorCode::General(_) => "GENERAL",
    }
    .to_owned()
}

fn metadatum(value: FlagMetadataValue) -> Json {
    match value {
        FlagMetadataValue::Bool(value) => json!(value),
        FlagMetadataValue::Int(value) => json!(value),
        FlagMetadataValue::Float(value) => json!(value),
        FlagMetadataValue::String(value) => json!(value),
    }
}

pub fn object(value: StructValue) -> Json {
    Json::Object(value.fields.into_iter().map(|(key, value)| (key, any(value))).collect())
}

fn any(value: Value) -> Json {
    match value {
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::Float(value) => json!(value),
        Value::String(value) => json!(value),
        Value::Array(values) => Json::Array(values.into_iter().map(any).collect()),
        Value::Struct(value) => object(value),
    }
}

/// 100 and 100.0 are one number, wherever they are.
pub fn same(one: &Json, other: &Json) -> bool {
    match (one, other) {
        (Json::Number(one), Json::Number(other)) => one.as_f64() == other.as_f64(),
        (Json::Array(one), Json::Array(other)) => one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other)),
        (Json::Object(one), Json::Object(other)) => {
            one.len() == other.len() && one.iter().all(|(key, value)| other.get(key).is_some_and(|other| same(value, other)))
        }
        (one, other) => one == other,
    }
}

/// A cell of a scenario's table, or what stands in quotes in a step.
pub fn typed(kind: &str, text: &str) -> Json {
    match kind {
        "String" => Json::String(text.to_owned()),
        "Boolean" => Json::Bool(text.eq_ignore_ascii_case("true")),
        "Integer" => json!(text.parse::<i64>().unwrap_or_else(|error| panic!("{text:?} is no whole number: {error}"))),
        "Float" => json!(text.parse::<f64>().unwrap_or_else(|error| panic!("{text:?} is no number: {error}"))),
        "Object" => serde_json::from_str(text).unwrap_or_else(|error| panic!("{text:?} is no JSON: {error}")),
        kind => panic!("the testbed has no type {kind}"),
    }
}
