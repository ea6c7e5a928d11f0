//! The way out: batches of spans to an OTLP collector, from a runtime of its own, so that an export never delays an answer.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracer, SdkTracerProvider, SpanData, SpanExporter};
use tokio::runtime::Runtime;

/// How long the end of the process waits for the last batch.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);
/// How long one batch may take.
const EXPORT_WITHIN: Duration = Duration::from_secs(5);

/// A running exporter.
#[derive(Debug)]
pub(super) struct Export {
    provider: SdkTracerProvider,
    runtime: Option<Runtime>,
}

impl Export {
    pub(super) fn start(endpoint: &str) -> Result<Self> {
        check("--otlp-endpoint", endpoint)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("telemetry")
            .enable_all()
            .build()
            .context("the runtime of the span exporter did not start")?;
        let inside = runtime.enter();
        let exporter = OtlpExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_WITHIN)
            .build()
            .with_context(|| format!("--otlp-endpoint {}: no exporter can be made for it", redacted(endpoint)))?;
        drop(inside);
        let exporter = Watched { exporter, endpoint: redacted(endpoint).into_owned(), failing: AtomicBool::new(false) };
        let processor = BatchSpanProcessor::builder(exporter).build();
        let provider = SdkTracerProvider::builder().with_resource(resource(None)).with_span_processor(processor).build();
        Ok(Self { provider, runtime: Some(runtime) })
    }

    pub(super) fn tracer(&self) -> SdkTracer {
        self.provider.tracer("yardarm")
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_WITHIN) {
            tracing::warn!(%error, "the last spans were not exported");
        }
        // Not a plain drop, which would wait without a bound and must not happen inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Takes what stands before the `@` out of a URL.
pub fn redacted(url: &str) -> Cow<'_, str> {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let end = url[authority..].find(['/', '?', '#']).map_or(url.len(), |at| authority + at);
    match url[authority..end].rfind('@') {
        Some(at) => format!("{}***{}", &url[..authority], &url[authority + at..]).into(),
        None => url.into(),
    }
}

/// Whether spans or logs can be sent there; `option` is the one that named it.
pub(super) fn check(option: &str, endpoint: &str) -> Result<()> {
    let shown = redacted(endpoint);
    if shown != endpoint {
        bail!("{option} {shown} carries credentials; set OTEL_EXPORTER_OTLP_HEADERS=authorization=… instead");
    }
    if endpoint.starts_with("https://") {
        bail!("{option} {shown}: TLS to a collector is not built in; send to a collector on this node by http://");
    }
    if !endpoint.starts_with("http://") {
        bail!("{option} {shown} is no URL; say http://HOST:PORT, such as http://127.0.0.1:4317");
    }
    Ok(())
}

/// OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over what we know ourselves.
pub(super) fn resource(more: Option<KeyValue>) -> Resource {
    let resource = Resource::builder_empty()
        .with_service_name("yardarm")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attributes(more)
        .with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())]);
    match std::env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => resource.with_service_name(name).build(),
        _ => resource.build(),
    }
}

/// Says once that spans are lost, and once that they arrive again: the SDK itself drops them in silence.
#[derive(Debug)]
struct Watched {
    exporter: OtlpExporter,
    /// Without credentials.
    endpoint: String,
    failing: AtomicBool,
}

impl SpanExporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        let failed_before = self.failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !failed_before => {
                tracing::warn!(endpoint = self.endpoint, lost_spans = spans, %error, "spans are lost: the collector did not take them");
            }
            Ok(()) if failed_before => tracing::info!(endpoint = self.endpoint, "the collector takes spans again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn userinfo_never_shows() {
        assert_eq!(redacted("http://ana:s3cret@collector:4317"), "http://***@collector:4317");
        assert_eq!(redacted("http://s3cret@collector:4317/path"), "http://***@collector:4317/path");
        assert_eq!(redacted("http://ana:p@ss@collector:4317"), "http://***@collector:4317");
        assert_eq!(redacted("ana:s3cret@collector:4317"), "***@collector:4317");
        assert_eq!(redacted("http://collector:4317/?by=ana@example.org"), "http://collector:4317/?by=ana@example.org");
        assert_eq!(redacted(""), "");
    }

    #[test]
    fn an_endpoint_that_cannot_work_is_refused_with_the_way_out_and_without_the_secret() {
        for (endpoint, way_out) in [
            ("http://ana:s3cret@collector:4317", "OTEL_EXPORTER_OTLP_HEADERS"),
            ("https://collector:4317", "http://"),
            ("collector:4317", "http://HOST:PORT"),
            ("", "http://HOST:PORT"),
        ] {
            let error = format!("{:#}", check("--otlp-endpoint", endpoint).unwrap_err());
            assert!(error.contains(way_out) && !error.contains("s3cret"), "{error}");
        }
        check("--otlp-endpoint", "http://127.0.0.1:4317").unwrap();
    }
}
