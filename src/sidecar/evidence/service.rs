//! `Track` of the Tracking service.

use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::sidecar::grpc::draining;
use crate::wire::v1;
use crate::wire::v1::tracking_server::TrackingServer;

use super::attribution::Tracked;
use super::collector::Evidence;
use super::outcome::{Violation, outcomes};

/// A thousand outcomes with what their applications add to the contexts.
const CALL_BYTES: usize = 4 << 20;

struct Tracking(Evidence);

pub(in crate::sidecar) fn service(evidence: Evidence) -> TrackingServer<impl v1::tracking_server::Tracking> {
    TrackingServer::new(Tracking(evidence)).max_decoding_message_size(CALL_BYTES)
}

#[tonic::async_trait]
impl v1::tracking_server::Tracking for Tracking {
    async fn track(&self, request: Request<v1::TrackRequest>) -> Result<Response<v1::TrackResponse>, Status> {
        let outcomes = outcomes(request.get_ref()).map_err(|violations| invalid(&violations))?;
        let Tracked { attributed, unattributed, duplicates } = self.0.track(outcomes).await.ok_or_else(draining)?;
        Ok(Response::new(v1::TrackResponse { attributed, unattributed, duplicates }))
    }
}

fn invalid(violations: &[Violation]) -> Status {
    let fields = violations.iter().map(|Violation { field, description }| FieldViolation::new(field, description));
    let first = violations.first().map_or_else(String::new, |Violation { field, description }| format!("{field} {description}"));
    let message = match violations.len() {
        0 | 1 => first,
        count => format!("{first}; {} more fields are wrong", count - 1),
    };
    Status::with_error_details(Code::InvalidArgument, message, ErrorDetails::with_bad_request(fields.collect::<Vec<_>>()))
}
