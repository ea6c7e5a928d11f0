//! Connect (connectrpc.com/docs/protocol) for flagd's services: what its provider for Go and those in browsers speak, by HTTP/1.1 and HTTP/2.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use tonic::{Code, Status};

use crate::telemetry::evaluation;
use crate::wire::evaluation::{Encoding, flagd_json};

use super::body::Body;
use super::call::Call;
use super::dialect::{Dialect, Translated, connect_code, connect_error, end_of_stream};
use super::flagd::{Asking, Called, MAX_QUESTION_BYTES, Method};
use super::grpc::contained;
use super::pod::Desk;
use super::request_body::RequestBody;
use super::requests::Failed;
use super::whole::{self, NotWhole};

/// In front of the one message of an answer.
const FRAME_HEAD: usize = 5;

/// In seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

pub(super) fn call(desk: &Arc<Desk>, called: Called, dialect: Dialect, request: Request<RequestBody>) -> Call {
    let desk = Arc::clone(desk);
    match (called.method, dialect) {
        (Method::EventStream, Dialect::ConnectStream(_)) => Call::waiting(events(desk, called, dialect, request)),
        (Method::Resolve(_) | Method::ResolveAll, Dialect::Connect(encoding)) => Call::waiting(unary(desk, called, encoding, request)),
        // Who asks for a stream by a call without one is not understood, and neither is the reverse.
        (method, _) => Call::answered(wrong_type(method)),
    }
}

fn wrong_type(method: Method) -> Response<Body> {
    let taken = match method {
        Method::EventStream => HeaderValue::from_static("application/connect+proto, application/connect+json, application/grpc"),
        Method::Resolve(_) | Method::ResolveAll => HeaderValue::from_static("application/proto, application/json, application/grpc"),
    };
    let mut response = Response::new(Body::Plain(Bytes::new()));
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response.headers_mut().insert(ACCEPT_POST, taken);
    response
}

async fn events(desk: Arc<Desk>, called: Called, dialect: Dialect, request: Request<RequestBody>) -> Response<Body> {
    let opened = match open(&desk, called, request.headers(), "connect-content-encoding") {
        Ok(asking) => called.events(desk, asking, request).await,
        Err(status) => Err(status),
    };
    // A stream has always begun well; how it ends is in its last frame.
    let mut response = match opened {
        Ok(events) => Response::new(Translated::into_body(events, dialect)),
        Err(status) => {
            let mut response = Response::new(Body::Plain(end_of_stream(&status)));
            response.extensions_mut().insert(Failed(status.code()));
            response
        }
    };
    response.headers_mut().insert(header::CONTENT_TYPE, dialect.content_type());
    response
}

async fn unary(desk: Arc<Desk>, called: Called, encoding: Encoding, request: Request<RequestBody>) -> Response<Body> {
    let span = evaluation::sampled(request.uri().path().trim_start_matches('/'), request.headers());
    let (head, body) = request.into_parts();
    let message = match open(&desk, called, &head.headers, header::CONTENT_ENCODING.as_str()) {
        Ok(asking) => read(&desk, body, &head.headers, called, encoding).await.map(|message| (asking, message)),
        Err(status) => Err(status),
    };
    let answered = message.and_then(|(asking, message)| contained(|| called.answer(&desk, &asking, encoding, &message, span.as_ref())));
    if let Some(span) = span {
        span.end(answered.as_ref().map_or_else(Status::code, |_| Code::Ok));
    }
    match answered {
        Ok(message) => said(encoding, message),
        Err(status) => failed(&status),
    }
}

/// What the header says, before anything is read.
fn open(desk: &Desk, called: Called, headers: &HeaderMap, encoding: &str) -> Result<Asking, Status> {
    if headers.get(encoding).is_some_and(|encoding| encoding != "identity") {
        return Err(Status::unimplemented(format!("the message is compressed; this server takes {encoding} identity only")));
    }
    called.asking(desk, headers)
}

async fn read(desk: &Desk, body: RequestBody, headers: &HeaderMap, called: Called, encoding: Encoding) -> Result<Bytes, Status> {
    let most = desk.pod.contexts.max_body.unwrap_or(MAX_QUESTION_BYTES);
    let body = whole::read(body, headers, most).await.map_err(|wrong| match wrong {
        NotWhole::TooLarge(_) => Status::resource_exhausted(wrong.to_string()),
        NotWhole::Late => Status::deadline_exceeded(wrong.to_string()),
        NotWhole::Broken(_) => Status::cancelled(wrong.to_string()),
    })?;
    match encoding {
        Encoding::Proto => Ok(body),
        Encoding::Json => {
            flagd_json::request(&body, called.method == Method::ResolveAll).map(Bytes::from).map_err(Status::invalid_argument)
        }
    }
}

fn said(encoding: Encoding, message: Bytes) -> Response<Body> {
    let body = match encoding {
        Encoding::Proto => message.slice(FRAME_HEAD.min(message.len())..),
        Encoding::Json => message,
    };
    let mut response = Response::new(Body::Plain(body));
    response.headers_mut().insert(header::CONTENT_TYPE, Dialect::Connect(encoding).content_type());
    response
}

/// Of a unary call: always in JSON, whatever was asked in.
pub(super) fn failed(status: &Status) -> Response<Body> {
    let mut response = Response::new(Body::Plain(connect_error(status).to_string().into()));
    let code = StatusCode::from_u16(connect_code(status.code()).1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.status_mut() = code;
    response.extensions_mut().insert(Failed(status.code()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if status.code() == Code::Unavailable {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}
