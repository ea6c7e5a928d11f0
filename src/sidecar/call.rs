//! A call on its way to its answer.
//!
//! The message of a unary call nearly always came with its headers. It is then answered on the spot, and what hyper moves into a task of
//! its own is the finished answer: the state of an `async fn` that could wait at every step is 5 KB, and is copied ten times on that way.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use tonic::{Code, Status};

use crate::telemetry::evaluation::{self, Evaluation};

use super::body::Body;
use super::grpc::{Only, contained, refuse, respond};
use super::pod::Desk;
use super::request_body::RequestBody;

/// The future of a call.
pub(super) enum Call {
    Answered(Option<Response<Body>>),
    Waiting(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl Future for Call {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Answered(answer) => Poll::Ready(Ok(answer.take().unwrap_or_else(|| refuse(Status::internal("asked twice"))))),
            Self::Waiting(answer) => answer.as_mut().poll(cx).map(Ok),
        }
    }
}

impl Call {
    pub(super) fn answered(response: Response<Body>) -> Self {
        Self::Answered(Some(response))
    }

    pub(super) fn waiting(answer: impl Future<Output = Response<Body>> + Send + 'static) -> Self {
        Self::Waiting(Box::pin(answer))
    }

    /// The same call with another answer.
    pub(super) fn map(self, change: impl FnOnce(Response<Body>) -> Response<Body> + Send + 'static) -> Self {
        match self {
            Self::Answered(answer) => Self::Answered(answer.map(change)),
            Self::Waiting(answer) => Self::waiting(async move { change(answer.await) }),
        }
    }

    /// Reads the message, answers it with one message, and keeps the trace of a sampled call. `method` is fully qualified.
    pub(super) fn unary<A>(desk: &Arc<Desk>, request: Request<RequestBody>, method: &str, limit: usize, answer: A) -> Self
    where
        A: FnOnce(&Desk, &[u8], Option<&Evaluation>) -> Result<Bytes, Status> + Send + 'static,
    {
        let span = evaluation::sampled(method, request.headers());
        let mut only = Only::new(request.into_body(), limit);
        match only.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(message) => Self::answered(finish(desk, message, span, answer)),
            // Asked again by its own task, which the body then wakes.
            Poll::Pending => {
                let desk = Arc::clone(desk);
                Self::waiting(async move {
                    let message = only.wait(&desk.pod.shutdown).await;
                    finish(&desk, message, span, answer)
                })
            }
        }
    }
}

fn finish<A>(desk: &Desk, message: Result<Bytes, Status>, span: Option<Evaluation>, answer: A) -> Response<Body>
where
    A: FnOnce(&Desk, &[u8], Option<&Evaluation>) -> Result<Bytes, Status>,
{
    let answered = message.and_then(|message| contained(|| answer(desk, &message, span.as_ref())));
    if let Some(span) = span {
        span.end(answered.as_ref().map_or_else(Status::code, |_| Code::Ok));
    }
    match answered {
        Ok(message) => respond(Body::Message(message)),
        Err(status) => refuse(status),
    }
}
