//! Logs to standard error, spans to an OTLP collector when one is named, and the decision log ([`decisions`]).
//!
//! Spans are made by [`rpc`] and [`evaluation`] only, under one target that the log never shows, and only after it was decided that they
//! are wanted: without a collector the check is one relaxed load, and no layer stands in the way of a request.

mod caller;
pub mod decisions;
pub mod evaluation;
mod export;
pub mod rpc;

use std::io::{self, IsTerminal as _};

use anyhow::{Context as _, Result};
use tracing::{Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Layer, Registry, layer::SubscriberExt as _};

pub use caller::inject;
pub use export::redacted;

/// Settings of logs and traces.
#[derive(Clone, clap::Args)]
#[command(next_help_heading = "Telemetry")]
pub struct Args {
    /// How log lines are written, to standard error.
    #[arg(long, env = "YARDARM_LOG_FORMAT", default_value = "human")]
    pub log_format: LogFormat,
    /// What is logged: `warn`, `info`, or directives such as `info,yardarm::replica=warn`. `debug` and `trace` are not built in.
    #[arg(long, env = "YARDARM_LOG_LEVEL", default_value = "info", value_name = "FILTER")]
    pub log_level: String,
    /// Where spans are sent by OTLP over gRPC, such as `http://127.0.0.1:4317`. Without it no span is ever made. A token goes into
    /// OTEL_EXPORTER_OTLP_HEADERS, never into the URL.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Share of evaluations that get a span when the caller did not decide, 0 to 1. A caller that sampled its request always gets one.
    #[arg(long, env = "YARDARM_TRACE_SAMPLE", default_value_t = 0.01, value_name = "SHARE", value_parser = evaluation::parse_share)]
    pub trace_sample: f64,
    /// How a span names the targeting key of an evaluation.
    #[arg(long, env = "YARDARM_TRACE_CONTEXT_ID", default_value = "hash")]
    pub trace_context_id: evaluation::ContextId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Human,
    Json,
}

/// Sends the spans that still wait when it is dropped, for 2 s at most.
#[derive(Debug)]
#[must_use = "spans that wait for export are lost without it"]
pub struct Guard {
    _export: Option<export::Export>,
}

/// Target of every span that is exported. Nothing else is, and no log line shows them.
const TARGET: &str = "yardarm::trace";

/// Installs logs and traces for the whole process. Works outside of a runtime: the exporter brings its own.
pub fn init(args: &Args) -> Result<Guard> {
    let (subscriber, guard) = subscriber(args)?;
    tracing::subscriber::set_global_default(subscriber).context("telemetry was already installed in this process")?;
    Ok(guard)
}

/// What [`init`] installs, for a caller that wants it on one thread only.
pub fn subscriber(args: &Args) -> Result<(impl Subscriber + Send + Sync + use<>, Guard)> {
    let Args { log_format, log_level, otlp_endpoint, trace_sample, trace_context_id } = args;
    // Not `EnvFilter`: nobody filters by the fields of spans, and it brings regular expressions along.
    let filter = log_level
        .parse::<Targets>()
        .with_context(|| format!("--log-level {log_level:?} is no filter; say `warn`, `info` or `info,yardarm::replica=warn`"))?
        .with_target(TARGET, LevelFilter::OFF);
    let log = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let log = match log_format {
        LogFormat::Human => log.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => log.json().flatten_event(true).boxed(),
    };
    let mut layers = vec![log.with_filter(filter).boxed()];
    let mut export = None;
    if let Some(endpoint) = otlp_endpoint {
        let started = export::Export::start(endpoint)?;
        let spans = tracing_opentelemetry::layer()
            .with_tracer(started.tracer())
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false);
        layers.push(spans.with_filter(Targets::new().with_target(TARGET, LevelFilter::INFO)).boxed());
        export = Some(started);
        evaluation::configure(*trace_sample, *trace_context_id);
    }
    // A vector, not `with(Option)`: without a collector every span callsite is then known to be off for good.
    let subscriber = Registry::default().with(layers);
    Ok((subscriber, Guard { _export: export }))
}

/// Whether spans are exported at all.
fn is_on() -> bool {
    tracing::span_enabled!(target: TARGET, Level::INFO)
}

impl std::fmt::Debug for Args {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { log_format, log_level, otlp_endpoint, trace_sample, trace_context_id } = self;
        f.debug_struct("Args")
            .field("log_format", log_format)
            .field("log_level", log_level)
            .field("otlp_endpoint", &otlp_endpoint.as_deref().map(redacted))
            .field("trace_sample", trace_sample)
            .field("trace_context_id", trace_context_id)
            .finish()
    }
}
