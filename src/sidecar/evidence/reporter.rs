//! Sends what the collector knows to the control plane: counters each second, unit records each ten. One report is on its way at a time, and
//! is sent again under its number until it is acknowledged; what comes meanwhile adds up in the collector, which is the queue.

use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message as _;
use tokio::time::{MissedTickBehavior, timeout};
use tonic::Code;
use tonic::transport::Channel;

use crate::backoff::Backoff;
use crate::lifecycle::{Hold, Phase, Shutdown};
use crate::replica::follow::Uplink;
use crate::wire::replication::Identity;
use crate::wire::v1;
use crate::wire::v1::evidence_client::EvidenceClient;

use super::collector::{Changes, Evidence};

const EVERY: Duration = Duration::from_secs(1);
/// Reports without unit records between two that have them.
const UNITS_EVERY: u64 = 10;
/// A report that is not answered by then is sent again.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

struct Reporter {
    evidence: Evidence,
    uplink: Uplink,
    environment: String,
    identity: Identity,
    boot: Vec<u8>,
    seq: u64,
}

/// Reports until the shutdown comes to its end; what is known then goes out first, as far as the phase lasts.
pub(in crate::sidecar) async fn report(
    evidence: Evidence,
    uplink: Uplink,
    environment: String,
    identity: Identity,
    shutdown: Shutdown,
    hold: Hold,
) {
    let boot = rand::random::<u128>().to_be_bytes().to_vec();
    let mut reporter = Reporter { evidence, uplink, environment, identity, boot, seq: 0 };
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut in_flight = None;
    for number in 1_u64.. {
        tokio::select! {
            _ = tick.tick() => {}
            () = shutdown.begun(Phase::StopReplication) => break,
        }
        let with_units = number.is_multiple_of(UNITS_EVERY);
        while let Some((report, has_more)) = reporter.compose(with_units).await {
            in_flight = Some(report);
            tokio::select! {
                () = reporter.deliver(&in_flight) => in_flight = None,
                // It goes out again below, under its number.
                () = shutdown.begun(Phase::StopReplication) => break,
            }
            if !has_more {
                break;
            }
        }
        if in_flight.is_some() {
            break;
        }
    }
    let flush = async {
        reporter.deliver(&in_flight).await;
        while let Some((report, _)) = reporter.compose(true).await {
            reporter.deliver(&Some(report)).await;
        }
    };
    tokio::select! {
        () = flush => tracing::info!("everything that was measured is with the control plane"),
        () = shutdown.finished() => tracing::warn!("the control plane did not take all that was measured before the end; the rest is lost"),
    }
    drop(hold);
}

impl Reporter {
    async fn compose(&mut self, with_units: bool) -> Option<(v1::ReportRequest, bool)> {
        let Changes { epochs, has_more } = self.evidence.changes(with_units).await?;
        self.seq += 1;
        let report = v1::ReportRequest {
            environment: self.environment.clone(),
            identity: Some(self.identity.clone().into()),
            boot: self.boot.clone(),
            seq: self.seq,
            epochs,
        };
        Some((report, with_units && has_more))
    }

    /// Until it is acknowledged, or refused for what it says.
    async fn deliver(&self, report: &Option<v1::ReportRequest>) {
        let Some(report) = report else { return };
        let stats = self.evidence.stats();
        let mut backoff = Backoff::default();
        let mut is_told = false;
        loop {
            let answer = timeout(ANSWER_WITHIN, self.client().report(report.clone())).await;
            let why = match answer {
                Ok(Ok(_)) => {
                    stats.reports.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Ok(Err(status)) if status.code() == Code::InvalidArgument => {
                    stats.refused_reports.fetch_add(1, Ordering::Relaxed);
                    let (seq, bytes) = (report.seq, report.encoded_len());
                    tracing::error!(seq, bytes, reason = status.message(), "the control plane refuses a report of evidence, which is lost");
                    return;
                }
                Ok(Err(status)) => status.message().to_owned(),
                Err(_) => "no answer in time".to_owned(),
            };
            stats.report_failures.fetch_add(1, Ordering::Relaxed);
            if !std::mem::replace(&mut is_told, true) {
                tracing::warn!(seq = report.seq, reason = %why, "a report of evidence was not acknowledged; it is sent again until it is");
            }
            let wait = backoff.next(&mut rand::rng());
            tokio::time::sleep(wait).await;
        }
    }

    /// On the connection that replication has now.
    fn client(&self) -> EvidenceClient<Channel> {
        EvidenceClient::new(self.uplink.channel())
    }
}
