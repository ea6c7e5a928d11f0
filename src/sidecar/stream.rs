//! `EvaluateStream`: questions and answers without a call around each.
//!
//! Each question is answered where it lies when the connection can take more, so that no question waits in a queue of ours: a caller that
//! does not read its answers is stopped by HTTP/2's window.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Request;
use tonic::Status;

use crate::telemetry::evaluation::{self, Evaluation};
use crate::wire::evaluation::{EvaluateResponse, Question, Reply, StreamError, StreamQuestion};

use super::body::{Body, Source, Step};
use super::evaluate::MAX_QUESTION_BYTES;
use super::grpc::{Messages, contained, draining, invalid};
use super::pod::Desk;
use super::request_body::RequestBody;
use super::tally::Batch;

/// Answers that go out together.
const WRITE_BYTES: usize = 16 * 1024;

pub(super) fn evaluate_stream(desk: &Arc<Desk>, request: Request<RequestBody>) -> Body {
    let span = evaluation::sampled("yardarm.v1.Evaluation/EvaluateStream", request.headers());
    let shutdown = desk.pod.shutdown.clone();
    Body::Stream(Box::new(Answers {
        questions: Messages::new(request.into_body(), MAX_QUESTION_BYTES + 64),
        desk: Arc::clone(desk),
        out: Vec::new(),
        wrote: 0,
        end: None,
        give_way: false,
        drain: Box::pin(async move { shutdown.requested().await }),
        span,
    }))
}

struct Answers {
    questions: Messages,
    desk: Arc<Desk>,
    out: Vec<u8>,
    /// Bytes of the last write: the next one is about as long.
    wrote: usize,
    /// Nothing more comes; this is said after what is in `out`.
    end: Option<Status>,
    /// A full write went out, others are to have their turn.
    give_way: bool,
    drain: Pin<Box<dyn Future<Output = ()> + Send>>,
    span: Option<Evaluation>,
}

impl Source for Answers {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if std::mem::take(&mut self.give_way) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let desk = Arc::clone(&self.desk);
        let mut together = None;
        while self.end.is_none() {
            if self.out.len() >= WRITE_BYTES {
                self.give_way = true;
                break;
            }
            match self.questions.poll_front(cx) {
                Poll::Ready(Some(Ok(length))) => {
                    let together =
                        together.get_or_insert_with(|| Together { desk: &desk, counts: desk.tally.batch(), age_ms: desk.pod.age_ms() });
                    if self.out.is_empty() {
                        self.out.reserve(self.wrote);
                    }
                    if let Err(status) = together.answer(self.questions.front(length), &mut self.out, self.span.as_mut()) {
                        self.end = Some(status);
                    }
                    self.questions.pop(length);
                }
                Poll::Ready(Some(Err(status))) => self.end = Some(status),
                Poll::Ready(None) => self.end = Some(Status::ok("")),
                Poll::Pending if !self.out.is_empty() => break,
                Poll::Pending if self.drain.as_mut().poll(cx).is_ready() => self.end = Some(draining()),
                Poll::Pending => return Poll::Pending,
            }
        }
        if let Some(together) = together {
            together.counts.count();
        }
        if !self.out.is_empty() {
            return Poll::Ready(self.write());
        }
        let status = self.end.take().unwrap_or_else(draining);
        if let Some(span) = self.span.take() {
            span.end(status.code());
        }
        Poll::Ready(Step::End(status))
    }
}

impl Answers {
    fn write(&mut self) -> Step {
        self.wrote = self.out.len();
        Step::Messages(std::mem::take(&mut self.out).into())
    }
}

/// Questions that are answered in one go.
struct Together<'d> {
    desk: &'d Desk,
    counts: Batch<'d>,
    age_ms: u64,
}

impl Together<'_> {
    /// # Errors
    /// When not even the id can be read.
    fn answer(&mut self, message: &[u8], out: &mut Vec<u8>, mut span: Option<&mut Evaluation>) -> Result<(), Status> {
        let StreamQuestion { id, question } = StreamQuestion::read(message).map_err(|refused| invalid(&refused))?;
        let mut asked = Question::default();
        let answered = match asked.fill(question) {
            Err(refused) => Err(invalid(&refused)),
            Ok(()) => {
                let Self { desk, counts, age_ms } = self;
                let before = out.len();
                contained(|| {
                    desk.answer(&asked, *age_ms, span.is_some(), counts, |reply| {
                        EvaluateResponse::new(reply).write_to_stream(id, out);
                        if let (Some(span), Reply::Whole(answer)) = (span.as_mut(), reply) {
                            span.decided_one_of_many(&desk.outcome(&asked, answer));
                        }
                    });
                    Ok(())
                })
                // Half an answer is none.
                .inspect_err(|_| out.truncate(before))
            }
        };
        if let Err(status) = answered {
            StreamError { id, code: status.code() as i32, message: status.message() }.write_to_stream(out);
        }
        Ok(())
    }
}
