//! `Evaluate` and `EvaluateBatch`.

use std::sync::Arc;

use http::Request;

use crate::wire::evaluation::{BatchQuestion, EvaluateResponse, Question, Reply, write_message};

use super::call::Call;
use super::grpc::invalid;
use super::pod::Desk;
use super::request_body::RequestBody;

/// Far more than a context may have, so that one over its limit is read and refused by its name, and costs a stream no other question.
pub(super) const MAX_QUESTION_BYTES: usize = 1024 * 1024;

/// A context at its limit and every key of the largest environment.
const MAX_BATCH_QUESTION_BYTES: usize = 4 * 1024 * 1024;

pub(super) fn evaluate(desk: &Arc<Desk>, request: Request<RequestBody>) -> Call {
    let is_inspection = desk.pod.observer.as_ref().is_some_and(|observer| observer.is_inspection(request.headers()));
    Call::unary(desk, request, "yardarm.v1.Evaluation/Evaluate", MAX_QUESTION_BYTES, move |desk, message, span| {
        let question = Question::read(message).map_err(|refused| invalid(&refused))?;
        let mut out = Vec::new();
        let mut counts = desk.tally.batch();
        if is_inspection {
            counts.mute();
        }
        desk.answer(&question, desk.pod.age_ms(), span.is_some(), &mut counts, |reply| {
            let response = EvaluateResponse::new(reply);
            write_message(&mut out, response.len(), |out| response.put(out));
            if let (Some(span), Reply::Whole(answer)) = (span, reply) {
                span.decided(&desk.outcome(&question, answer));
            }
        });
        counts.count();
        Ok(out.into())
    })
}

pub(super) fn evaluate_batch(desk: &Arc<Desk>, request: Request<RequestBody>) -> Call {
    Call::unary(desk, request, "yardarm.v1.Evaluation/EvaluateBatch", MAX_BATCH_QUESTION_BYTES, |desk, message, _| {
        let question = BatchQuestion::read(message).map_err(|refused| invalid(&refused))?;
        desk.answer_batch(&question)
    })
}
