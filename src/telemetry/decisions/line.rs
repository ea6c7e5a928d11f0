//! The two kinds of lines: an evaluation, and an outcome that was told later. README documents them for whoever reads the files.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::flag::{ErrorCode, Reason, Revision};

/// One answer to an application.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation<'a> {
    pub time_us: i64,
    pub flag: &'a str,
    /// `None` when the caller's default was served.
    pub variant: Option<&'a str>,
    /// See [`crate::flag::CompiledFlag::is_enabled`].
    pub enabled: bool,
    /// The targeting key as it came.
    pub key: Option<&'a str>,
    pub rule: Option<&'a str>,
    pub bucket: Option<u32>,
    pub revision: Revision,
    pub reason: Reason,
    pub error: Option<ErrorCode>,
}

/// What became of somebody who was served a variant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome<'a> {
    pub flag: &'a str,
    pub variant: Option<&'a str>,
    pub enabled: bool,
    /// The targeting key as it came.
    pub key: Option<&'a str>,
    pub metric: &'a str,
    pub value: f64,
    pub error: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EvaluationLine<'a> {
    pub time: String,
    pub kind: &'static str,
    pub flag: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<&'a str>,
    pub enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<u32>,
    pub revision: Revision,
    pub reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<&'static str>,
    pub pod: &'a str,
    pub environment: &'a str,
    pub rate: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutcomeLine<'a> {
    pub time: String,
    pub kind: &'static str,
    pub flag: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<&'a str>,
    pub enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'a str>,
    pub metric: &'a str,
    pub value: f64,
    pub error: bool,
    pub pod: &'a str,
    pub environment: &'a str,
}

/// Either kind, as it is read back. What a later version adds is passed over.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line<'a> {
    #[serde(borrow)]
    pub time: Cow<'a, str>,
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub flag: Cow<'a, str>,
    #[serde(borrow)]
    pub variant: Option<Cow<'a, str>>,
    pub enabled: bool,
    #[serde(borrow)]
    pub key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub path: Option<Cow<'a, str>>,
    pub bucket: Option<u32>,
    pub revision: Option<Revision>,
    #[serde(borrow)]
    pub reason: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub error_code: Option<Cow<'a, str>>,
    #[serde(default)]
    pub error: bool,
    #[serde(borrow)]
    pub pod: Cow<'a, str>,
    #[serde(borrow)]
    pub environment: Cow<'a, str>,
}

impl Line<'_> {
    pub const EVALUATION: &'static str = "evaluation";
    pub const OUTCOME: &'static str = "outcome";

    pub fn is_evaluation(&self) -> bool {
        self.kind == Self::EVALUATION
    }

    pub fn is_outcome(&self) -> bool {
        self.kind == Self::OUTCOME
    }
}

impl<'a> Evaluation<'a> {
    /// The rule by its name, or the part of the flag that decided where no rule did.
    pub fn path(&self) -> Option<&'a str> {
        match self.reason {
            _ if self.rule.is_some() => self.rule,
            Reason::Killed => Some("kill"),
            Reason::Disabled => Some("disabled"),
            Reason::Stale => Some("stale"),
            Reason::PrerequisiteFailed => Some("prerequisite"),
            Reason::TargetingMatch => Some("target"),
            Reason::Static | Reason::Default | Reason::Split => Some("default"),
            Reason::Error => None,
        }
    }

    /// `person` stands for the targeting key.
    pub fn line<'l>(&'l self, person: Option<&'l str>, pod: &'l str, environment: &'l str, rate: f64) -> EvaluationLine<'l> {
        EvaluationLine {
            time: time(self.time_us),
            kind: Line::EVALUATION,
            flag: self.flag,
            variant: self.variant,
            enabled: self.enabled,
            key: person,
            path: self.path(),
            bucket: self.bucket,
            revision: self.revision,
            reason: self.reason.as_str(),
            error_code: self.error.map(ErrorCode::as_str),
            pod,
            environment,
            rate,
        }
    }
}

/// RFC 3339 in UTC, to the microsecond.
pub(super) fn time(us: i64) -> String {
    format!("{:.6}", jiff::Timestamp::from_microsecond(us).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(reason: Reason, rule: Option<&str>) -> Evaluation<'_> {
        Evaluation {
            time_us: 1_795_224_612_250_000,
            flag: "checkout",
            variant: Some("on"),
            enabled: true,
            key: Some("ana"),
            rule,
            bucket: Some(12),
            revision: 7,
            reason,
            error: None,
        }
    }

    #[test]
    fn an_evaluation_is_one_line_that_can_be_read_back() {
        let seen = seen(Reason::Split, Some("rollout"));
        let line = serde_json::to_string(&seen.line(Some("5eed"), "pod-1", "prod", 0.5)).unwrap();
        assert_eq!(
            line,
            r#"{"time":"2026-11-21T01:30:12.250000Z","kind":"evaluation","flag":"checkout","variant":"on","enabled":true,"key":"5eed","path":"rollout","bucket":12,"revision":7,"reason":"SPLIT","pod":"pod-1","environment":"prod","rate":0.5}"#
        );
        let read: Line<'_> = serde_json::from_str(&line).unwrap();
        assert!(read.is_evaluation() && read.key.as_deref() == Some("5eed") && read.revision == Some(7) && !read.error);
    }

    #[test]
    fn whatever_a_flag_is_called_its_line_is_one_and_says_so() {
        for flag in ["a b", "a/b", "\"quoted\"", "back\\slash", "ümläut", "a%2Fb", "\u{2028}"] {
            let seen = Evaluation { flag, variant: Some("two\nlines"), ..seen(Reason::Static, None) };
            let line = serde_json::to_string(&seen.line(None, "pod-1", "", 1.0)).unwrap();
            assert_eq!(line.lines().count(), 1, "{line}");
            let read: Line<'_> = serde_json::from_str(&line).unwrap();
            assert_eq!((&*read.flag, read.variant.as_deref()), (flag, Some("two\nlines")));
        }
    }

    #[test]
    fn where_no_rule_decided_the_path_says_what_did() {
        for (reason, path) in [
            (Reason::Static, Some("default")),
            (Reason::Default, Some("default")),
            (Reason::Split, Some("default")),
            (Reason::TargetingMatch, Some("target")),
            (Reason::Disabled, Some("disabled")),
            (Reason::PrerequisiteFailed, Some("prerequisite")),
            (Reason::Stale, Some("stale")),
            (Reason::Killed, Some("kill")),
            (Reason::Error, None),
        ] {
            assert_eq!(seen(reason, None).path(), path, "{reason:?}");
        }
        assert_eq!(seen(Reason::TargetingMatch, Some("beta")).path(), Some("beta"));
    }
}
