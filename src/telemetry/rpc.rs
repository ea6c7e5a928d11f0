//! Spans of RPCs, named by OpenTelemetry's conventions for RPC (semantic conventions 1.42).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::Either;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::field::Empty;
use tracing::{Instrument as _, Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::caller::{self, Caller};
use super::{TARGET, is_on};

/// One call from its start to its status. Dropped without a status it was given up by the caller, and the span says CANCELLED. Where
/// nothing is traced it is empty and costs nothing.
#[derive(Debug)]
#[must_use = "a call that is dropped at once counts as cancelled"]
pub struct Rpc {
    /// `None` once the status is known.
    span: Option<Span>,
}

/// The span of a call that we answer. `method` is fully qualified: `yardarm.v1.Admin/Kill`. A caller that does not trace gets a span of
/// its own; one that chose not to sample this call gets none.
pub fn server(method: &str, headers: &HeaderMap) -> Rpc {
    if !is_on() {
        return Rpc::untraced();
    }
    match Caller::read(headers) {
        Caller::Unsampled => Rpc::untraced(),
        Caller::Silent => Rpc::start(method, None),
        Caller::Sampled(parent) => Rpc::start(method, Some(parent)),
    }
}

/// The span of a call that we make, as a child of the current one; its context is written into the metadata of the call.
pub fn client(method: &str, headers: &mut HeaderMap) -> Rpc {
    if !is_on() {
        return Rpc::untraced();
    }
    let span = info_span!(
        target: TARGET, "rpc", otel.name = method, otel.kind = "client", rpc.system.name = "grpc", rpc.method = method,
        rpc.response.status_code = Empty, "error.type" = Empty, otel.status_code = Empty, otel.status_description = Empty,
    );
    caller::inject_span(&span, headers);
    Rpc { span: Some(span) }
}

impl Rpc {
    pub(super) fn untraced() -> Self {
        Self { span: Some(Span::none()) }
    }

    pub(super) fn start(method: &str, parent: Option<opentelemetry::Context>) -> Self {
        let span = info_span!(
            target: TARGET, parent: None, "rpc", otel.name = method, otel.kind = "server", rpc.system.name = "grpc", rpc.method = method,
            rpc.response.status_code = Empty, "error.type" = Empty, otel.status_code = Empty, otel.status_description = Empty,
        );
        if let Some(parent) = parent {
            // Fails only for a span that has started or is disabled; this one was made a line ago, and disabled it is not exported.
            let _ = span.set_parent(parent);
        }
        Self { span: Some(span) }
    }

    pub fn is_traced(&self) -> bool {
        self.span.as_ref().is_some_and(|span| !span.is_disabled())
    }

    /// To run work inside the call, so that the calls that it makes become children.
    pub fn span(&self) -> Span {
        self.span.clone().unwrap_or_else(Span::none)
    }

    /// Runs a unary handler inside the call and takes the status from its answer.
    pub async fn run<T>(self, handler: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let answer = handler.instrument(self.span()).await;
        match &answer {
            Ok(_) => self.end(Code::Ok),
            Err(status) => self.end(status.code()),
        }
        answer
    }

    pub fn end(mut self, code: Code) {
        self.close(code);
    }

    pub(super) fn close(&mut self, code: Code) {
        let Some(span) = self.span.take() else { return };
        span.record("rpc.response.status_code", name(code));
        if is_fault(code) {
            span.record("error.type", name(code));
            span.record("otel.status_code", "ERROR");
            span.record("otel.status_description", name(code));
        }
    }
}

impl Drop for Rpc {
    fn drop(&mut self) {
        self.close(Code::Cancelled);
    }
}

/// Traces every call of the services that it wraps, streams until their last message. For services of which each call is worth a span:
/// the control plane's. The evaluate path asks [`super::evaluation`] instead.
#[derive(Debug, Clone, Copy, Default)]
pub struct TraceLayer;

#[derive(Debug, Clone)]
pub struct Trace<S>(S);

impl<S> Layer<S> for TraceLayer {
    type Service = Trace<S>;

    fn layer(&self, inner: S) -> Trace<S> {
        Trace(inner)
    }
}

impl<S: tonic::server::NamedService> tonic::server::NamedService for Trace<S> {
    const NAME: &'static str = S::NAME;
}

type Traced<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S, B> Service<Request<B>> for Trace<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Traced<S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let rpc = server(request.uri().path().trim_start_matches('/'), request.headers());
        if !rpc.is_traced() {
            return Either::Left(self.0.call(request));
        }
        let answer = rpc.span().in_scope(|| self.0.call(request)).instrument(rpc.span());
        Either::Right(Box::pin(async move {
            let (parts, body) = match answer.await {
                Ok(response) => response.into_parts(),
                Err(error) => {
                    rpc.end(Code::Unknown);
                    return Err(error);
                }
            };
            // A call that fails before its first message has its status in the headers and no trailers.
            let body = match Status::from_header_map(&parts.headers) {
                Some(status) => {
                    rpc.end(status.code());
                    body
                }
                None => Body::new(UntilTrailers { body, rpc: Some(rpc) }),
            };
            Ok(Response::from_parts(parts, body))
        }))
    }
}

/// Ends the span of a call with the status in the trailers of its answer.
struct UntilTrailers {
    body: Body,
    rpc: Option<Rpc>,
}

impl http_body::Body for UntilTrailers {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let code = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().map(|trailers| Status::from_header_map(trailers).map_or(Code::Unknown, |s| s.code())),
            Some(Err(status)) => Some(status.code()),
            None => Some(Code::Unknown),
        };
        if let Some((code, rpc)) = code.and_then(|code| Some((code, self.rpc.take()?))) {
            rpc.end(code);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What counts as an error on the span of a server: the codes that are the server's own fault. A NOT_FOUND is an answer.
fn is_fault(code: Code) -> bool {
    matches!(code, Code::Unknown | Code::DeadlineExceeded | Code::Unimplemented | Code::Internal | Code::Unavailable | Code::DataLoss)
}

/// As gRPC's specification writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
