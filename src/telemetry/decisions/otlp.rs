//! The log as OTLP events, named by OpenTelemetry's conventions for feature flags: `feature_flag.evaluation`.
//!
//! A queue stands between the files and the collector: one that is away or slow costs events, which are counted, and nobody's time.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{LogExporter as OtlpExporter, WithExportConfig as _};
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _, SdkLogRecord, SdkLogger, SdkLoggerProvider};
use tokio::sync::mpsc;

use super::counts::{Counts, Lost};
use super::line::Evaluation;
use crate::telemetry::export;

/// Events that wait for the collector, about 1 KB each.
const QUEUE: usize = 8_192;
const MOST_IN_A_BATCH: usize = 512;
const EXPORT_WITHIN: Duration = Duration::from_secs(5);
const EVENT: &str = "feature_flag.evaluation";

/// Where the writer puts events.
#[derive(Debug)]
pub(super) struct Queue {
    events: mpsc::Sender<SdkLogRecord>,
    logger: SdkLogger,
    counts: Arc<Counts>,
}

/// Sends what is in the queue, until the writer is gone.
#[derive(Debug)]
pub struct Exporter {
    events: mpsc::Receiver<SdkLogRecord>,
    exporter: OtlpExporter,
    counts: Arc<Counts>,
    endpoint: String,
}

/// Call it within a runtime.
pub(super) fn connect(endpoint: &str, pod: &str, counts: &Arc<Counts>) -> Result<(Queue, Exporter)> {
    const OPTION: &str = "--decision-log-otlp";
    export::check(OPTION, endpoint)?;
    let built = OtlpExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_WITHIN).build();
    let mut exporter = built.with_context(|| format!("{OPTION} {endpoint}: no exporter can be made for it"))?;
    exporter.set_resource(&export::resource(Some(KeyValue::new("service.instance.id", pod.to_owned()))));
    // It makes records and processes none.
    let logger = SdkLoggerProvider::builder().build().logger("yardarm");
    let (sender, events) = mpsc::channel(QUEUE);
    let queue = Queue { events: sender, logger, counts: Arc::clone(counts) };
    Ok((queue, Exporter { events, exporter, counts: Arc::clone(counts), endpoint: endpoint.to_owned() }))
}

impl Queue {
    pub(super) fn push(&self, seen: &Evaluation<'_>, person: Option<Cow<'_, str>>, environment: &str, rate: f64) {
        let mut record = self.logger.create_log_record();
        record.set_event_name(EVENT);
        record.set_severity_number(Severity::Info);
        let time = UNIX_EPOCH + Duration::from_micros(seen.time_us.unsigned_abs());
        record.set_timestamp(time);
        // A logger would set it; without it the record has no form on the wire.
        record.set_observed_timestamp(time);
        let mut put = |name: &'static str, value: AnyValue| record.add_attribute(name, value);
        put("feature_flag.key", seen.flag.to_owned().into());
        put("feature_flag.provider.name", "yardarm".into());
        put("feature_flag.set.id", environment.to_owned().into());
        put("feature_flag.version", seen.revision.to_string().into());
        put("feature_flag.result.reason", seen.reason.as_str().to_ascii_lowercase().into());
        if let Some(variant) = seen.variant {
            put("feature_flag.result.variant", variant.to_owned().into());
        }
        if let Some(error) = seen.error {
            put("error.type", error.as_str().to_ascii_lowercase().into());
        }
        if let Some(person) = person {
            put("feature_flag.context.id", person.into_owned().into());
        }
        // What the conventions have no name for.
        put("yardarm.enabled", seen.enabled.into());
        put("yardarm.rate", rate.into());
        if let Some(path) = seen.path() {
            put("yardarm.path", path.to_owned().into());
        }
        if let Some(bucket) = seen.bucket {
            put("yardarm.bucket", i64::from(bucket).into());
        }
        if self.events.try_send(record).is_err() {
            self.counts.lose(Lost::Otlp, 1);
        }
    }
}

impl Exporter {
    /// Ends when the writer is gone and what it left is sent.
    pub async fn run(mut self) {
        let scope = InstrumentationScope::builder("yardarm").with_version(env!("CARGO_PKG_VERSION")).build();
        let mut waiting = Vec::new();
        let mut failing = false;
        while self.events.recv_many(&mut waiting, MOST_IN_A_BATCH).await > 0 {
            let batch: Vec<_> = waiting.iter().map(|record| (record, &scope)).collect();
            let events = batch.len() as u64;
            let sent = self.exporter.export(LogBatch::new(&batch)).await;
            let (endpoint, failed_before) = (&self.endpoint, std::mem::replace(&mut failing, sent.is_err()));
            match sent {
                Ok(()) => {
                    self.counts.exported.fetch_add(events, Ordering::Relaxed);
                    if failed_before {
                        tracing::info!(endpoint, "the collector takes the decision log again");
                    }
                }
                Err(error) => {
                    self.counts.lose(Lost::Otlp, events);
                    if !failed_before {
                        tracing::warn!(endpoint, %error, "the decision log loses events: the collector did not take them");
                    }
                }
            }
            waiting.clear();
        }
    }
}
