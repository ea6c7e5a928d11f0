//! `/metrics`, in OpenMetrics text. Everything is read when it is asked for; only what cannot be read afterwards is counted as it happens.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::flag::{Obstacle, Position};
use crate::replica::follow::{self, BOUNDS_US, Ended, Lane};
use crate::telemetry::decisions::{Counts, Lost};

use super::evidence::Stats;
use super::handshakes::Handshakes;
use super::impressions::Impressions;
use super::pod::{Desk, Pod, Sdk};
use super::requests::Requests;
use super::sync;
use super::tally;

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) struct Metrics {
    registry: Registry,
    /// What has flagd's names, which no dashboard of flagd's has to be changed for.
    flagds: Registry,
}

impl Metrics {
    /// In flagd's place its names are served too.
    pub(super) fn new(
        pod: Arc<Pod>,
        desks: Vec<Arc<Desk>>,
        following: Option<Arc<follow::Metrics>>,
        evidence: Arc<Stats>,
        is_stand_in: bool,
    ) -> Self {
        let mut registry = Registry::with_prefix("yardarm");
        registry.register("build", "The version that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        if let Some(observer) = &pod.observer {
            registry.register_collector(Box::new(Logged(Arc::clone(observer.counts()))));
        }
        let evaluations = Arc::new(Evaluations { pod: Arc::clone(&pod), desks: desks.clone(), total: Mutex::default() });
        let mut flagds = Registry::default();
        flagds.register_collector(Box::new(Synced(Arc::clone(&pod))));
        if is_stand_in {
            flagds.register_collector(Box::new(Impressions(Arc::clone(&evaluations))));
            flagds.register_collector(Box::new(Requests(desks.clone())));
        }
        if let Some(failures) = &pod.failed_handshakes {
            registry.register_collector(Box::new(Handshakes(Arc::clone(failures))));
        }
        registry.register_collector(Box::new(Documents(Arc::clone(&pod))));
        registry.register_collector(Box::new(Scrape { pod, desks, evaluations }));
        registry.register_collector(Box::new(Measured(evidence)));
        if let Some(following) = following {
            registry.register_collector(Box::new(Following(following)));
        }
        Self { registry, flagds }
    }

    pub(super) fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.flagds)?;
        encode_registry(&mut text, &self.registry)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

struct Scrape {
    pod: Arc<Pod>,
    desks: Vec<Arc<Desk>>,
    evaluations: Arc<Evaluations>,
}

/// Everything that was answered since the start.
pub(super) struct Evaluations {
    pod: Arc<Pod>,
    desks: Vec<Arc<Desk>>,
    total: Mutex<tally::Counts>,
}

impl Evaluations {
    pub(super) fn total(&self) -> MutexGuard<'_, tally::Counts> {
        let mut total = self.total.lock();
        for desk in &self.desks {
            total.merge(desk.tally.take());
        }
        total.retain_flags(|key| self.pod.replica.with(key, |held| held.is_some()));
        total
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Pod { replica, readiness, connections, watchers, lagged_watchers, .. } = &*self.pod;
        let Position { epoch, revision } = replica.position();
        let encoder = &mut encoder;
        gauge(encoder, "ready", "1 when the sidecar can serve", u64::from(readiness.is_ready()))?;
        gauge(encoder, "revision", "Revision of the environment that is held", revision)?;
        labelled(encoder, "epoch", "Epoch of the environment that is held, in hexadecimal", [("epoch", format!("{epoch:x}"))])?;
        let age = ConstGauge::new(replica.age().as_secs_f64());
        let help = "Seconds since the last proof that the newest state is held";
        age.encode(encoder.encode_descriptor("age_seconds", help, None, age.metric_type())?)?;
        gauge(encoder, "flags", "Flags that are held", replica.len() as u64)?;
        gauge(encoder, "rejected", "Definitions that the control plane sent and that are not served", replica.rejected().len() as u64)?;
        gauge(encoder, "tripped_flags", "Flags that are killed in this pod by a local trip now", replica.tripped() as u64)?;
        gauge(encoder, "environment_pods", "Sidecars of the environment, as the control plane last said", replica.pods().into())?;
        gauge(encoder, "connections", "Connections of applications", connections.taken() as u64)?;
        counter(encoder, "refused_connections", "Connections closed because the limit was reached", connections.refused())?;
        gauge(encoder, "watchers", "Open watches", watchers.taken() as u64)?;
        counter(encoder, "refused_watchers", "Watches refused because the limit was reached", watchers.refused())?;
        let lagged = lagged_watchers.load(Ordering::Relaxed);
        counter(encoder, "lagged_watchers", "Watches that fell so far behind that they started again from a snapshot", lagged)?;
        let help = "Requests of OpenFeature SDKs by the service that they asked";
        let mut family = encoder.encode_descriptor("sdk_requests", help, None, MetricType::Counter)?;
        for sdk in Sdk::ALL {
            let count = self.desks.iter().map(|desk| desk.sdk_requests.of(sdk)).sum::<u64>();
            ConstCounter::new(count).encode(family.encode_family(&[("service", sdk.name())])?)?;
        }
        self.encode_evaluations(encoder)
    }
}

impl Scrape {
    fn encode_evaluations(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let total = self.evaluations.total();
        let help = "Evaluations by flag, variant and reason; unknown flags have no name, and the caller's default has no variant";
        let mut family = encoder.encode_descriptor("evaluations", help, None, MetricType::Counter)?;
        for (flag, series) in &total.flags {
            for one in series {
                let labels = [("flag", &**flag), ("variant", &*one.variant), ("reason", one.reason.as_str())];
                ConstCounter::new(one.count).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Evaluations that were answered with an error code and the caller's default";
        let mut family = encoder.encode_descriptor("evaluation_errors", help, None, MetricType::Counter)?;
        for (code, count) in &total.errors {
            ConstCounter::new(*count).encode(family.encode_family(&[("error", code.as_str())])?)?;
        }
        Ok(())
    }
}

/// Streams of documents, by flagd's names. Neither selectors nor names of providers are labels: a client could make up any number of them.
struct Synced(Arc<Pod>);

impl Collector for Synced {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Pod { press, subscribers, .. } = &*self.0;
        let encoder = &mut encoder;
        gauge(encoder, "feature_flag_flagd_sync_active_streams", "Open streams of documents", subscribers.taken() as u64)?;
        let help = "Seconds that a stream of documents was open, by what ended it";
        let mut family = encoder.encode_descriptor("feature_flag_flagd_sync_stream_duration_seconds", help, None, MetricType::Histogram)?;
        for ended in sync::Ended::ALL {
            press.counts.durations(ended).encode(family.encode_family(&[("reason", ended.name())])?)?;
        }
        Ok(())
    }
}

/// What in-process clients are sent.
struct Documents(Arc<Pod>);

impl Collector for Documents {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Pod { press, subscribers, .. } = &*self.0;
        let sync::Counts { editions, document_bytes, sent, left_out, .. } = &press.counts;
        let encoder = &mut encoder;
        counter(encoder, "sync_documents", "Documents that were made for in-process clients", editions.load(Ordering::Relaxed))?;
        counter(encoder, "sync_documents_sent", "Documents that were sent to subscribers", sent.load(Ordering::Relaxed))?;
        gauge(encoder, "sync_document_bytes", "Bytes of the largest of these documents", document_bytes.load(Ordering::Relaxed) as u64)?;
        counter(encoder, "refused_subscribers", "Subscribers refused because the limit was reached", subscribers.refused())?;
        let help = "Flags that are in no document, because flagd's format cannot say what they mean, by what stands in the way";
        let mut family = encoder.encode_descriptor("sync_left_out", help, None, MetricType::Gauge)?;
        for (obstacle, count) in Obstacle::ALL.into_iter().zip(left_out) {
            ConstGauge::new(count.load(Ordering::Relaxed)).encode(family.encode_family(&[("reason", obstacle.name())])?)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Synced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Synced")
    }
}

impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Documents")
    }
}

/// What becomes of the events of the decision log.
#[derive(Debug)]
struct Logged(Arc<Counts>);

impl Collector for Logged {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Counts { received, duplicates, sampled_out, held_back, written, exported, file_bytes, .. } = &*self.0;
        let encoder = &mut encoder;
        for (name, help, count) in [
            ("received", "Evaluations and outcomes that came to the decision log", received),
            ("deduplicated", "Of these, evaluations that were the same as one shortly before", duplicates),
            ("sampled_out", "Of these, evaluations left out by the rate of their flag", sampled_out),
            ("held_back", "Of these, events left out by the step that was on", held_back),
            ("written", "Lines written to files", written),
            ("exported", "Events that the OTLP collector took", exported),
        ] {
            counter(encoder, &format!("decision_log_{name}"), help, count.load(Ordering::Relaxed))?;
        }
        let help = "Events that should have been kept and were lost: a full buffer, the limit of lines, the disk, the collector";
        let mut family = encoder.encode_descriptor("decision_log_lost", help, None, MetricType::Counter)?;
        for lost in Lost::ALL {
            ConstCounter::new(self.0.lost(lost)).encode(family.encode_family(&[("where", lost.name())])?)?;
        }
        let help = "What the decision log keeps: 0 everything, 1 a tenth, 2 first exposures and errors, 3 nothing";
        gauge(encoder, "decision_log_step", help, self.0.step())?;
        gauge(encoder, "decision_log_bytes", "Bytes in the files of the decision log", file_bytes.load(Ordering::Relaxed))
    }
}

/// What is measured of flags, and what it takes.
#[derive(Debug)]
struct Measured(Arc<Stats>);

impl Collector for Measured {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = &*self.0;
        let encoder = &mut encoder;
        for (name, help, value) in [
            ("exposure_bytes", "Memory of the tables by which exposures are counted once", &stats.exposure_bytes),
            (
                "attribution_bytes",
                "Memory of the attribution of outcomes, with idempotency keys and records that wait",
                &stats.attribution_bytes,
            ),
            ("tracked_units", "Units whose outcomes are attributed, each counted for each flag", &stats.units),
            ("tracked_epochs", "Flags and revisions that are measured", &stats.epochs),
            ("pending_records", "Unit records that the next reports take", &stats.pending_records),
        ] {
            gauge(encoder, name, help, value.load(Ordering::Relaxed))?;
        }
        for (name, help, count) in [
            ("exposures", "Exposures that were noted; a unit that keeps asking is noted each minute", &stats.exposures),
            ("dropped_exposures", "Exposures that found no room; the unit is noted when it asks again", &stats.dropped_exposures),
            ("dropped_records", "Unit records that were forgotten before the control plane took them", &stats.dropped_records),
            ("attributed_outcomes", "Outcomes that were attributed to what their unit was served", &stats.attributed),
            ("unattributed_outcomes", "Outcomes of units that were served nothing that watches them", &stats.unattributed),
            ("duplicate_outcomes", "Outcomes whose idempotency key had been seen", &stats.duplicates),
            ("evidence_reports", "Reports of evidence that the control plane acknowledged", &stats.reports),
            ("evidence_report_failures", "Times that a report had to be sent again", &stats.report_failures),
            ("refused_evidence_reports", "Reports that the control plane refused, which are lost", &stats.refused_reports),
        ] {
            counter(encoder, name, help, count.load(Ordering::Relaxed))?;
        }
        Ok(())
    }
}

/// How following the control plane goes.
#[derive(Debug)]
struct Following(Arc<follow::Metrics>);

impl Collector for Following {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let metrics = &*self.0;
        let encoder = &mut encoder;
        gauge(encoder, "connected", "1 while a stream to the control plane is open", metrics.connected.load(Ordering::Relaxed).into())?;
        for (name, help, count) in [
            ("gaps", "Changes that did not follow the revision that is held", &metrics.gaps),
            ("digest_mismatches", "Times that the state did not have the announced digest", &metrics.digest_mismatches),
            ("epoch_changes", "Times that the control plane's history was another one", &metrics.epoch_changes),
            ("refused_messages", "Messages of the control plane that cannot be honest", &metrics.refused),
            ("snapshots", "Snapshots applied", &metrics.snapshots),
            ("deltas", "Changes applied from the log", &metrics.deltas),
            ("kills", "Kills and restores applied from their own lane", &metrics.kills),
            ("local_trips", "Flags killed in this pod by their guards while the control plane was out of reach", &metrics.trips),
            ("polls", "Times that the state was asked for while no stream was open", &metrics.polls),
            ("poll_failures", "Polls without an answer", &metrics.poll_failures),
            ("saves", "Times that the last good state was written", &metrics.saves),
            ("save_failures", "Times that it could not be written", &metrics.save_failures),
            ("damaged_files", "State files that were damaged at the start", &metrics.damaged_files),
        ] {
            counter(encoder, name, help, count.load(Ordering::Relaxed))?;
        }
        let help = "Times that the stream to the control plane ended, by reason";
        let mut family = encoder.encode_descriptor("reconnects", help, None, MetricType::Counter)?;
        for ended in Ended::ALL {
            ConstCounter::new(metrics.reconnects(ended)).encode(family.encode_family(&[("reason", ended.name())])?)?;
        }
        let help = "Seconds from the commit of a change until it was visible to readers here, by lane";
        let mut family = encoder.encode_descriptor("propagation_seconds", help, None, MetricType::Histogram)?;
        for lane in Lane::ALL {
            let histogram = metrics.propagation(lane);
            let (buckets, count) = buckets(histogram.cumulative());
            let labels = [("lane", lane.name())];
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(histogram.sum().as_secs_f64(), count, &buckets, None)?;
        }
        Ok(())
    }
}

/// Upper bound in seconds and count of each bucket, and the count of all. The encoder adds them up again, and writes `+Inf` for infinity
/// only: without that bucket Prometheus has no quantiles.
fn buckets<const N: usize>(cumulative: [u64; N]) -> (Vec<(f64, u64)>, u64) {
    let bounds = BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
    let mut before = 0;
    let counts = cumulative.into_iter().map(|upto| upto - std::mem::replace(&mut before, upto));
    (bounds.zip(counts).collect(), cumulative.last().copied().unwrap_or_default())
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
}

fn labelled(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, labels: [(&'static str, String); 1]) -> fmt::Result {
    let info = Info::new(labels);
    info.encode(encoder.encode_descriptor(name, help, None, info.metric_type())?)
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").field("threads", &self.desks.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Evaluations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evaluations").field("threads", &self.desks.len()).finish_non_exhaustive()
    }
}
