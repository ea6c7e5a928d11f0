//! What sidecars ask: that a report is taken, and that a flag is killed for everybody which one of them has killed for itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::Evidence;
use crate::control::Ledger;
use crate::control::ledger::{Actor, Command, Error};
use crate::flag::ItemKind;
use crate::wire::evidence::{REPORT_BYTES, Report};
use crate::wire::trip::{Trip, Tripped};
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

    async fn report_trip(&self, request: Request<v1::ReportTripRequest>) -> Result<Response<v1::ReportTripResponse>, Status> {
        let tripped = Tripped::try_from(request.into_inner()).map_err(|problem| Status::invalid_argument(problem.to_string()))?;
        let (outcome, why) = match self.kill(&tripped).await {
            Ok(()) => (v1::report_trip_response::Outcome::Killed, String::new()),
            Err(Error::TripObsolete { why, .. }) => {
                let Tripped { environment, pod, trip } = &tripped;
                tracing::info!(environment, flag = trip.flag, pod, why, reason = %trip.fired, "a pod tripped a flag and the trip is obsolete");
                (v1::report_trip_response::Outcome::Obsolete, why)
            }
            // The sidecar comes back.
            Err(problem) => return Err(Status::unavailable(problem.to_string())),
        };
        Ok(Response::new(v1::ReportTripResponse { outcome: outcome.into(), why }))
    }
}

impl Reports {
    async fn kill(&self, tripped: &Tripped) -> Result<(), Error> {
        let Tripped { environment, pod, trip: Trip { flag, held, revision, at_us, fired } } = tripped;
        let (actor, guard) = (Actor::new(format!("guard:{}", fired.guard)), fired.guard.clone());
        let command = Command::Trip { environment: environment.clone(), flag: flag.clone(), guard, revision: *revision, held: *held };
        let committed = self.ledger.commit(&actor, &tripped.to_string(), command).await?;
        if committed.changed {
            let revision = committed.position.revision;
            tracing::warn!(environment, flag, pod, at_us, revision, reason = %fired, "a pod that was out of reach tripped a flag, which is killed");
        }
        Ok(())
    }

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
