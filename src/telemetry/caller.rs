//! Whose trace a request belongs to: W3C `traceparent` and `tracestate`, read from gRPC metadata and written into it.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// What the caller decided about the trace of its request.
#[derive(Debug)]
pub(super) enum Caller {
    /// It sent no trace context, or one that cannot be read.
    Silent,
    /// It traces, but not this request: a span of ours would have no parent.
    Unsampled,
    Sampled(Context),
}

static W3C: LazyLock<TraceContextPropagator> = LazyLock::new(TraceContextPropagator::new);

/// Writes the trace context of the current span into the metadata of a call that goes out. Outside of a span nothing is written.
pub fn inject(headers: &mut HeaderMap) {
    inject_span(&tracing::Span::current(), headers);
}

pub(super) fn inject_span(span: &tracing::Span, headers: &mut HeaderMap) {
    if !span.is_disabled() {
        W3C.inject_context(&span.context(), &mut Headers(headers));
    }
}

impl Caller {
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let context = W3C.extract_with_context(&Context::new(), &Headers(headers));
        let span = context.span();
        let found = span.span_context();
        match (found.is_valid(), found.is_sampled()) {
            (false, _) => Self::Silent,
            (true, false) => Self::Unsampled,
            (true, true) => Self::Sampled(context.clone()),
        }
    }
}

struct Headers<H>(H);

impl Extractor for Headers<&HeaderMap> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

impl Injector for Headers<&mut HeaderMap> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(key.as_bytes()), HeaderValue::from_str(&value)) {
            self.0.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(traceparent: &str) -> Caller {
        Caller::read(&HeaderMap::from_iter([(HeaderName::from_static("traceparent"), HeaderValue::from_str(traceparent).unwrap())]))
    }

    #[test]
    fn the_callers_decision_is_read_from_the_flags() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        assert!(matches!(read(&format!("00-{id}-01")), Caller::Sampled(_)));
        assert!(matches!(read(&format!("00-{id}-00")), Caller::Unsampled));
        assert!(matches!(Caller::read(&HeaderMap::new()), Caller::Silent));
    }

    #[test]
    fn a_context_that_cannot_be_read_counts_as_none() {
        let zero = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        for hostile in ["", "00", "zz-zz-zz-zz", zero.as_str(), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"] {
            assert!(matches!(read(hostile), Caller::Silent), "{hostile:?}");
        }
    }

    #[test]
    fn without_a_span_nothing_is_written() {
        let mut headers = HeaderMap::new();
        inject(&mut headers);
        assert!(headers.is_empty());
    }
}
