//! What sidecars ask: that a report is taken.

use std::collections::BTreeSet;
use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::Evidence;
use crate::control::Ledger;
use crate::flag::ItemKind;
use crate::wire::evidence::{REPORT_BYTES, Report};
use crate::wire::v1;
use crate::wire::v1::evidence_server::EvidenceServer;

pub struct Reports {
    evidence: Arc<dyn Evidence>,
    ledger: Arc<Ledger>,
}

pub fn service(evidence: Arc<dyn Evidence>, ledger: Arc<Ledger>) -> EvidenceServer<Reports> {
    EvidenceServer::new(Reports { evidence, ledger }).max_decoding_message_size(REPORT_BYTES)
}

#[tonic::async_trait]
impl v1::evidence_server::Evidence for Reports {
    async fn report(&self, request: Request<v1::ReportRequest>) -> Result<Response<v1::ReportResponse>, Status> {
        let mut report = Report::try_from(request.into_inner()).map_err(|problem| Status::invalid_argument(problem.to_string()))?;
        self.leave_out_strangers(&mut report)?;
        let counted = match report.epochs.is_empty() {
            true => true,
            false => self.evidence.accept(report).await.map_err(|problem| Status::unavailable(problem.to_string()))?,
        };
        Ok(Response::new(v1::ReportResponse { counted }))
    }
}

impl Reports {
    /// Flags that are gone, and revisions that are yet to come.
    fn leave_out_strangers(&self, report: &mut Report) -> Result<(), Status> {
        let asked: BTreeSet<&str> = report.epochs.iter().map(|epoch| &*epoch.flag).collect();
        let found = self.ledger.list(&report.environment, ItemKind::Flag, |item| asked.contains(&*item.name.key));
        // The sidecar tries again: an environment may be restored from a backup at this moment.
        let (position, found) = found.map_err(|problem| Status::not_found(problem.to_string()))?;
        let known: BTreeSet<String> = found.into_iter().map(|found| found.item.name.key).collect();
        report.epochs.retain(|epoch| known.contains(&epoch.flag) && epoch.revision <= position.revision);
        Ok(())
    }
}
