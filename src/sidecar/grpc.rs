//! gRPC on hyper's bodies: messages out of a request, a message and its status into an answer.
//!
//! The one message of a unary call nearly always lies in one DATA frame; it is read there, without a buffer in between.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Body as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::lifecycle::Shutdown;
use crate::wire::evaluation::Refused;

use super::body::Body;
use super::request_body::RequestBody;

/// A caller that has begun a unary call sends its message within this time, or frees what the call holds.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(10);

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The messages of a request, one after the other.
#[derive(Debug)]
pub(super) struct Messages {
    body: RequestBody,
    /// A DATA frame that is being read in place.
    frame: Bytes,
    /// A message of which a part has arrived. While it is not empty, `frame` is.
    partial: BytesMut,
    /// Of one message, in bytes. A longer one ends the call: it is not read, so that nobody can know what it is about.
    limit: usize,
}

/// The one message of a unary call.
#[derive(Debug)]
pub(super) struct Only {
    messages: Messages,
    /// It is there, and the call must end after it.
    message: Option<Bytes>,
}

impl Only {
    pub(super) fn new(body: RequestBody, limit: usize) -> Self {
        Self { messages: Messages::new(body, limit), message: None }
    }

    /// Nobody waits for it once the shutdown has begun.
    pub(super) async fn wait(mut self, shutdown: &Shutdown) -> Result<Bytes, Status> {
        tokio::select! {
            read = std::future::poll_fn(|cx| self.poll(cx)) => read,
            () = tokio::time::sleep(MESSAGE_DEADLINE) => Err(Status::deadline_exceeded("the message of this call did not arrive within 10 s")),
            () = shutdown.requested() => Err(draining()),
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        loop {
            match (ready!(self.messages.poll_next(cx)), self.message.is_some()) {
                (Some(Ok(message)), false) => self.message = Some(message),
                (Some(Ok(_)), true) => return Poll::Ready(Err(Status::internal("the call has two messages, expected one"))),
                (Some(Err(status)), _) => return Poll::Ready(Err(status)),
                (None, _) => return Poll::Ready(self.message.take().ok_or_else(|| Status::internal("the call has no message"))),
            }
        }
    }
}

impl Messages {
    pub(super) fn new(body: RequestBody, limit: usize) -> Self {
        Self { body, frame: Bytes::new(), partial: BytesMut::new(), limit }
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        let length = match ready!(self.poll_front(cx)) {
            Some(Ok(length)) => length,
            Some(Err(status)) => return Poll::Ready(Some(Err(status))),
            None => return Poll::Ready(None),
        };
        Poll::Ready(Some(Ok(if self.partial.is_empty() {
            self.frame.advance(HEAD);
            self.frame.split_to(length)
        } else {
            self.partial.advance(HEAD);
            self.partial.split_to(length).freeze()
        })))
    }

    /// Waits until the next message is whole, and says how long it is. It is read by [`Messages::front`] and then passed by with
    /// [`Messages::pop`]: of a stream with many messages in a frame, none needs a handle of its own, which is counted by atomics.
    pub(super) fn poll_front(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<usize, Status>>> {
        loop {
            if let Some(length) = self.whole()? {
                return Poll::Ready(Some(Ok(length)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.push(data);
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(Status::cancelled(format!("the call was broken off: {error}"))))),
                None if self.frame.is_empty() && self.partial.is_empty() => return Poll::Ready(None),
                None => {
                    self.frame.clear();
                    self.partial.clear();
                    return Poll::Ready(Some(Err(Status::internal("the call ends in the middle of a message"))));
                }
            }
        }
    }

    /// `length` is what [`Messages::poll_front`] said.
    pub(super) fn front(&self, length: usize) -> &[u8] {
        &self.held()[HEAD..HEAD + length]
    }

    pub(super) fn pop(&mut self, length: usize) {
        if self.partial.is_empty() { self.frame.advance(HEAD + length) } else { self.partial.advance(HEAD + length) }
    }

    fn held(&self) -> &[u8] {
        if self.partial.is_empty() { &self.frame } else { &self.partial }
    }

    fn push(&mut self, data: Bytes) {
        if self.frame.is_empty() && self.partial.is_empty() {
            self.frame = data;
        } else {
            self.partial.extend_from_slice(&self.frame);
            self.frame.clear();
            self.partial.extend_from_slice(&data);
        }
    }

    /// Length of the next message, if all of it is there.
    fn whole(&self) -> Result<Option<usize>, Status> {
        let Some(([compressed, length @ ..], rest)) = self.held().split_first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if *compressed != 0 {
            return Err(Status::unimplemented("the message is compressed; this server takes grpc-encoding identity only"));
        }
        if length > self.limit {
            return Err(Status::resource_exhausted(format!("the message has {length} bytes, at most {} are taken", self.limit)));
        }
        Ok((rest.len() >= length).then_some(length))
    }
}

/// In front of each message: whether it is compressed, and its length.
const HEAD: usize = 5;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// 200 with a body that ends in the status of the call.
pub(super) fn respond(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    response
}

/// The status alone.
pub(super) fn refuse(status: Status) -> Response<Body> {
    status.into_http()
}

pub(super) fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(Status::GRPC_STATUS, const { HeaderValue::from_static("0") });
    trailers
}

pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(3);
    if status.add_header(&mut trailers).is_err() {
        // Its message cannot be a header; the code can.
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from(status.code() as i32));
    }
    trailers
}

/// How every stream ends when the sidecar leaves: come back, elsewhere or later.
pub(super) fn draining() -> Status {
    let details = ErrorDetails::with_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::Unavailable, "this sidecar is shutting down; ask again", details)
}

/// There is no state yet, and nothing true can be said of all flags.
pub(super) fn not_ready() -> Status {
    let details = ErrorDetails::with_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::Unavailable, "the sidecar has not received any flags yet; ask again", details)
}

/// INVALID_ARGUMENT with the fields that are at fault.
pub(super) fn invalid(refused: &Refused) -> Status {
    match refused {
        Refused::Malformed(_) => Status::invalid_argument(refused.to_string()),
        Refused::OverLimit { field, description } => {
            let details = ErrorDetails::with_bad_request_violation(field.as_str(), description.as_str());
            Status::with_error_details(Code::InvalidArgument, refused.to_string(), details)
        }
    }
}

/// A panic in one answer must not take the pod's flags away: the caller gets INTERNAL, everybody else is served on.
pub(super) fn contained<T>(answer: impl FnOnce() -> Result<T, Status>) -> Result<T, Status> {
    // What the closure touches is read-only or is dropped with the failed answer.
    catch_unwind(AssertUnwindSafe(answer)).unwrap_or_else(|_| {
        tracing::error!("an answer panicked; the caller got INTERNAL, see the panic message above");
        Err(Status::internal("a bug in the sidecar broke this answer off; it is in the sidecar's log"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_one_answer_is_internal_for_that_answer() {
        let status = contained::<()>(|| panic!("a bug")).unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(contained(|| Ok(1)).unwrap(), 1);
    }

    #[test]
    fn a_drained_stream_says_when_to_come_back() {
        let trailers = trailers(&draining());
        let status = Status::from_header_map(&trailers).unwrap();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.get_error_details().retry_info().unwrap().retry_delay, Some(RETRY_AFTER));
    }
}
