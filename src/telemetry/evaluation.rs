//! Spans of the sampled share of evaluations, named by OpenTelemetry's conventions for feature flags. Whether an evaluation gets a span
//! is decided before one is made.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use http::HeaderMap;
use opentelemetry::KeyValue;
use rand::Rng as _;
use sha2::{Digest as _, Sha256};
use tonic::Code;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::caller::Caller;
use super::is_on;
use super::rpc::Rpc;
use crate::flag::{ErrorCode, Reason, Revision, limits};

/// As many events as a span is exported with. They wait in memory until it ends, which of a stream may be days later.
const EVENTS: u64 = 128;

/// A sampled call that evaluates. Ends as CANCELLED when it is dropped without [`Evaluation::end`].
#[derive(Debug)]
pub struct Evaluation {
    rpc: Rpc,
    /// Evaluations that were one of many, whether they became an event or not.
    many: u64,
}

/// What was asked and what was answered.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    pub flag_key: &'a str,
    pub environment: &'a str,
    /// `None` when the caller's default was served.
    pub variant: Option<&'a str>,
    pub reason: Reason,
    pub error: Option<ErrorCode>,
    pub revision: Revision,
    pub targeting_key: Option<&'a str>,
}

/// How a span names the targeting key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ContextId {
    /// The first 16 hex digits of its SHA-256: the same person can be followed, not named.
    Hash,
    Plain,
    None,
}

/// `None`, nearly always: no collector, or the call is not in the sample. `method` as in [`super::rpc::server`].
#[inline]
pub fn sampled(method: &str, headers: &HeaderMap) -> Option<Evaluation> {
    if !is_on() {
        return None;
    }
    let parent = match Caller::read(headers) {
        Caller::Unsampled => return None,
        Caller::Silent if !is_admitted(rand::rng().random(), SHARE.load(Ordering::Relaxed)) => return None,
        Caller::Silent => None,
        Caller::Sampled(parent) => Some(parent),
    };
    Some(Evaluation { rpc: Rpc::start(method, parent), many: 0 })
}

impl Evaluation {
    /// The one flag that the call asked for.
    pub fn decided(&self, outcome: &Outcome<'_>) {
        let span = self.span();
        attributes(outcome).into_iter().for_each(|KeyValue { key, value, .. }| span.set_attribute(key, value));
    }

    /// One of the flags of a batch or of a stream. The first of them become events of the span, the others are counted on it.
    pub fn decided_one_of_many(&mut self, outcome: &Outcome<'_>) {
        self.many = self.many.saturating_add(1);
        if self.many <= EVENTS {
            self.span().add_event("feature_flag.evaluation", attributes(outcome));
        }
    }

    pub fn span(&self) -> Span {
        self.rpc.span()
    }

    pub fn end(mut self, code: Code) {
        self.close(code);
    }

    /// The second time there is no span any more, and nothing happens.
    fn close(&mut self, code: Code) {
        if self.many > EVENTS {
            let without_event = i64::try_from(self.many - EVENTS).unwrap_or(i64::MAX);
            self.span().set_attribute("yardarm.evaluations_without_event", without_event);
        }
        self.rpc.close(code);
    }
}

impl Drop for Evaluation {
    fn drop(&mut self) {
        self.close(Code::Cancelled);
    }
}

/// Of 2^64: calls without a caller's decision whose random number is below get a span. `u64::MAX` is all of them.
static SHARE: AtomicU64 = AtomicU64::new(0);
static CONTEXT_ID: AtomicU8 = AtomicU8::new(ContextId::Hash as u8);

pub(super) fn configure(share: f64, context_id: ContextId) {
    SHARE.store(threshold(share), Ordering::Relaxed);
    CONTEXT_ID.store(context_id as u8, Ordering::Relaxed);
}

pub(super) fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 (none) to 1 (all)".to_owned()),
    }
}

/// The conversion saturates: 1 becomes `u64::MAX`.
fn threshold(share: f64) -> u64 {
    (share * 2_f64.powi(64)) as u64
}

fn is_admitted(random: u64, threshold: u64) -> bool {
    random < threshold || threshold == u64::MAX
}

fn attributes(outcome: &Outcome<'_>) -> Vec<KeyValue> {
    let Outcome { flag_key, environment, variant, reason, error, revision, targeting_key } = *outcome;
    // No flag has a longer key, in flagd's place neither, and a caller may ask for anything.
    let flag_key = &flag_key[..flag_key.floor_char_boundary(limits::FLAGD_NAME_BYTES)];
    let mut attributes = vec![
        KeyValue::new("feature_flag.key", flag_key.to_owned()),
        KeyValue::new("feature_flag.provider.name", "yardarm"),
        KeyValue::new("feature_flag.set.id", environment.to_owned()),
        KeyValue::new("feature_flag.version", revision.to_string()),
        KeyValue::new("feature_flag.result.reason", reason.as_str().to_ascii_lowercase()),
    ];
    attributes.extend(variant.map(|variant| KeyValue::new("feature_flag.result.variant", variant.to_owned())));
    attributes.extend(error.map(|error| KeyValue::new("error.type", error.as_str().to_ascii_lowercase())));
    attributes.extend(targeting_key.and_then(context_id).map(|id| KeyValue::new("feature_flag.context.id", id)));
    attributes
}

fn context_id(targeting_key: &str) -> Option<String> {
    let mode = CONTEXT_ID.load(Ordering::Relaxed);
    if mode == ContextId::None as u8 {
        None
    } else if mode == ContextId::Plain as u8 {
        Some(targeting_key.to_owned())
    } else {
        Some(Sha256::digest(targeting_key.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_and_all_are_exact() {
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            assert!(!is_admitted(random, threshold(0.0)), "{random}");
            assert!(is_admitted(random, threshold(1.0)), "{random}");
        }
    }

    #[test]
    fn a_share_is_that_share_of_the_numbers() {
        let quarter = threshold(0.25);
        assert!(is_admitted(u64::MAX / 4 - 1024, quarter) && !is_admitted(u64::MAX / 4 + 1024, quarter));
    }

    #[test]
    fn a_share_outside_of_zero_to_one_is_refused() {
        assert_eq!(parse_share("0.5"), Ok(0.5));
        for wrong in ["-0.1", "1.1", "NaN", "inf", "half", ""] {
            assert!(parse_share(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn without_a_collector_nothing_is_sampled() {
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static("traceparent"),
            http::HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        )]);
        assert!(sampled("yardarm.v1.Evaluation/Evaluate", &headers).is_none());
    }
}
