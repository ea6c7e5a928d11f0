//! A decision as it is printed.

use owo_colors::OwoColorize as _;
use serde::Serialize;
use serde_json::Value as Json;

use crate::flag::{self, Explanation};
use crate::wire::{json, v1};

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    pub flag: String,
    /// `None`: there is no variant to serve and the caller gave no default.
    pub value: Option<Json>,
    pub variant: Option<String>,
    pub reason: &'static str,
    pub rule: Option<String>,
    pub bucket: Option<u32>,
    /// Nothing when it was decided from files.
    pub revision: Option<u64>,
    pub age_ms: Option<u64>,
    pub error_code: Option<&'static str>,
    pub error: Option<String>,
}

impl Decision {
    /// `true (variant on), SPLIT by rule rollout, bucket 12345`
    pub fn sentence(&self) -> String {
        let Self { flag: _, value, variant, reason, rule, bucket, revision: _, age_ms: _, error_code: _, error } = self;
        let value = value.as_ref().map_or_else(|| "the caller's default".to_owned(), Json::to_string);
        let variant = variant.as_ref().map(|variant| format!(" (variant {variant})")).unwrap_or_default();
        let rule = rule.as_ref().map(|rule| format!(" by rule {rule}")).unwrap_or_default();
        let bucket = bucket.map(|bucket| format!(", bucket {bucket}")).unwrap_or_default();
        let error = error.as_ref().map(|error| format!(": {}", error.red())).unwrap_or_default();
        format!("{}{variant}, {reason}{rule}{bucket}{error}", value.bold())
    }

    /// Whether an explanation tells of this decision.
    pub fn agrees_with(&self, explanation: &Explanation) -> bool {
        let Explanation { variant, reason, rule, bucket, .. } = explanation;
        (&self.variant, self.reason, &self.rule, self.bucket) == (variant, *reason, rule, *bucket)
    }

    /// A decision that was made here and not by a sidecar.
    pub fn made_here(flag: &str, decision: &flag::Decision<'_>) -> Self {
        Self {
            flag: flag.to_owned(),
            value: decision.variant.map(|variant| variant.value.to_json()),
            variant: decision.variant.map(|variant| variant.name.clone()),
            reason: decision.reason.as_str(),
            rule: decision.rule.map(str::to_owned),
            bucket: decision.bucket,
            revision: None,
            age_ms: None,
            error_code: decision.error().map(flag::ErrorCode::as_str),
            error: None,
        }
    }
}

impl From<v1::Decision> for Decision {
    fn from(decision: v1::Decision) -> Self {
        let (reason, error_code) = (decision.reason().as_str_name(), decision.error_code());
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            reason: reason.strip_prefix("REASON_").unwrap_or(reason),
            error_code: (error_code != v1::ErrorCode::Unspecified).then(|| {
                let name = error_code.as_str_name();
                name.strip_prefix("ERROR_CODE_").unwrap_or(name)
            }),
            flag: decision.flag_key,
            value: decision.value.as_ref().map(json::from_value),
            variant: some(decision.variant),
            rule: some(decision.rule),
            bucket: decision.bucket,
            revision: Some(decision.revision),
            age_ms: Some(decision.age_ms),
            error: some(decision.error_message),
        }
    }
}
