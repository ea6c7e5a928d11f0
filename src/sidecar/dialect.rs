//! gRPC's messages and statuses in the words of other protocols: gRPC-Web and Connect, which need no trailers and go by HTTP/1.1 too.
//!
//! What is asked is answered as gRPC asks and answers; here it is only told apart and said differently. The frames of all three are the same
//! five bytes, so that the messages of a stream pass through as they are.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, header};
use http_body::{Body as _, Frame};
use serde_json::{Map, Value as Json, json};
use tonic::{Code, Status};

use crate::wire::evaluation::{Encoding, flagd_json};

use super::body::Body;
use super::requests::Meter;

/// What a request says that it is, and is to be answered as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Grpc,
    /// The binary form; the text form is spoken by no client of flagd, nor by flagd.
    GrpcWeb,
    /// A unary call, whose body is the message.
    Connect(Encoding),
    /// A call with a stream of answers.
    ConnectStream(Encoding),
}

impl Dialect {
    /// By the type of the content. `None`: none of them.
    #[inline]
    pub(super) fn of<B>(request: &Request<B>) -> Option<Self> {
        let content_type = request.headers().get(header::CONTENT_TYPE)?.as_bytes();
        let essence = content_type.split(|byte| *byte == b';').next()?.trim_ascii();
        match essence {
            b"application/grpc" => Some(Self::Grpc),
            b"application/grpc-web" | b"application/grpc-web+proto" => Some(Self::GrpcWeb),
            b"application/proto" => Some(Self::Connect(Encoding::Proto)),
            b"application/json" => Some(Self::Connect(Encoding::Json)),
            b"application/connect+proto" => Some(Self::ConnectStream(Encoding::Proto)),
            b"application/connect+json" => Some(Self::ConnectStream(Encoding::Json)),
            other => other.starts_with(b"application/grpc+").then_some(Self::Grpc),
        }
    }

    /// Of the answer.
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Grpc => "application/grpc",
            Self::GrpcWeb => "application/grpc-web+proto",
            Self::Connect(Encoding::Proto) => "application/proto",
            Self::Connect(Encoding::Json) => "application/json",
            Self::ConnectStream(Encoding::Proto) => "application/connect+proto",
            Self::ConnectStream(Encoding::Json) => "application/connect+json",
        })
    }
}

/// A body of gRPC, said in another dialect while it goes out.
pub(super) struct Translated {
    inner: Body,
    dialect: Dialect,
    /// Hears how it ends, which is nowhere else to be seen.
    meter: Option<Arc<Meter>>,
}

impl Translated {
    pub(super) fn into_body(inner: Body, dialect: Dialect) -> Body {
        Body::Translated(Box::new(Self { inner, dialect, meter: None }))
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)).transpose()? else { return Poll::Ready(None) };
        let bytes = match frame.into_data() {
            Ok(messages) => self.messages(messages),
            Err(frame) => {
                self.inner = Body::Empty;
                let trailers = frame.into_trailers().unwrap_or_default();
                self.meter.iter().for_each(|meter| meter.ends(&trailers));
                self.end(&trailers)
            }
        };
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    pub(super) fn measure(&mut self, meter: Arc<Meter>) {
        self.meter = Some(meter);
    }

    fn messages(&self, messages: Bytes) -> Bytes {
        match self.dialect {
            Dialect::ConnectStream(Encoding::Json) => in_json(&messages),
            _ => messages,
        }
    }

    /// What gRPC says in trailers, as the last frame.
    fn end(&self, trailers: &HeaderMap) -> Bytes {
        match self.dialect {
            Dialect::GrpcWeb => enveloped(WEB_TRAILERS, &web_trailers(trailers)),
            _ => {
                let status = Status::from_header_map(trailers).unwrap_or_else(|| Status::internal("the stream ended without a status"));
                end_of_stream(&status)
            }
        }
    }
}

const HEAD: usize = 5;

/// Of a frame that holds no message: how each protocol marks it.
const WEB_TRAILERS: u8 = 0x80;
const CONNECT_END: u8 = 0x02;

fn enveloped(flags: u8, content: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD + content.len());
    frame.put_u8(flags);
    frame.put_u32(u32::try_from(content.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(content);
    frame.freeze()
}

/// The messages in a piece of a body with frames, which holds whole ones. Frames that say how it ended are none.
pub(super) fn messages(mut piece: &[u8]) -> impl Iterator<Item = &[u8]> {
    let next = move || {
        let ([flags, length @ ..], rest) = piece.split_first_chunk::<HEAD>()?;
        let message;
        (message, piece) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        Some((*flags, message))
    };
    std::iter::from_fn(next).filter(|(flags, _)| flags & (WEB_TRAILERS | CONNECT_END) == 0).map(|(_, message)| message)
}

fn in_json(piece: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    messages(piece).for_each(|message| out.extend_from_slice(&enveloped(0, flagd_json::event(message).to_string().as_bytes())));
    out.freeze()
}

/// As a block of HTTP/1.1 headers.
fn web_trailers(trailers: &HeaderMap) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in trailers {
        block.extend_from_slice(name.as_str().as_bytes());
        block.extend_from_slice(b":");
        block.extend_from_slice(value.as_bytes());
        block.extend_from_slice(b"\r\n");
    }
    block
}

/// The frame with which every stream of Connect ends.
pub(super) fn end_of_stream(status: &Status) -> Bytes {
    let mut end = Map::new();
    if status.code() != Code::Ok {
        end.insert("error".to_owned(), connect_error(status));
    }
    enveloped(CONNECT_END, Json::from(end).to_string().as_bytes())
}

/// Connect's JSON of a status.
pub(super) fn connect_error(status: &Status) -> Json {
    json!({ "code": connect_code(status.code()).0, "message": status.message() })
}

/// Connect's name of a code, and the HTTP status that a unary call has with it (connectrpc.com/docs/protocol, "Error codes").
pub(super) fn connect_code(code: Code) -> (&'static str, u16) {
    match code {
        Code::Ok => ("ok", 200),
        Code::Cancelled => ("canceled", 499),
        Code::Unknown => ("unknown", 500),
        Code::InvalidArgument => ("invalid_argument", 400),
        Code::DeadlineExceeded => ("deadline_exceeded", 504),
        Code::NotFound => ("not_found", 404),
        Code::AlreadyExists => ("already_exists", 409),
        Code::PermissionDenied => ("permission_denied", 403),
        Code::ResourceExhausted => ("resource_exhausted", 429),
        Code::FailedPrecondition => ("failed_precondition", 400),
        Code::Aborted => ("aborted", 409),
        Code::OutOfRange => ("out_of_range", 400),
        Code::Unimplemented => ("unimplemented", 501),
        Code::Internal => ("internal", 500),
        Code::Unavailable => ("unavailable", 503),
        Code::DataLoss => ("data_loss", 500),
        Code::Unauthenticated => ("unauthenticated", 401),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialect_is_known_by_the_type_of_the_content() {
        let of = |content_type: &'static str| Dialect::of(&Request::post("/").header(header::CONTENT_TYPE, content_type).body(()).unwrap());
        for (content_type, dialect) in [
            ("application/grpc", Dialect::Grpc),
            ("application/grpc+proto", Dialect::Grpc),
            ("application/grpc; charset=utf-8", Dialect::Grpc),
            ("application/grpc-web", Dialect::GrpcWeb),
            ("application/grpc-web+proto", Dialect::GrpcWeb),
            ("application/proto", Dialect::Connect(Encoding::Proto)),
            ("application/json", Dialect::Connect(Encoding::Json)),
            ("application/json;charset=utf-8", Dialect::Connect(Encoding::Json)),
            ("application/connect+proto", Dialect::ConnectStream(Encoding::Proto)),
            ("application/connect+json", Dialect::ConnectStream(Encoding::Json)),
        ] {
            assert_eq!(of(content_type), Some(dialect), "{content_type}");
        }
        for none in ["application/grpc-web-text", "application/grpcx", "text/plain", "application/xml", ""] {
            assert_eq!(of(none), None, "{none}");
        }
        assert_eq!(Dialect::of(&Request::new(())), None);
    }

    #[test]
    fn messages_are_told_from_the_frames_that_end_a_stream() {
        let piece =
            [enveloped(0, b"ab"), enveloped(0, b""), enveloped(CONNECT_END, b"{}"), enveloped(WEB_TRAILERS, b"grpc-status:0")].concat();
        assert_eq!(messages(&piece).collect::<Vec<_>>(), [&b"ab"[..], b""]);
        assert_eq!(messages(&piece[..3]).count(), 0);
    }

    #[test]
    fn a_stream_ends_with_its_error_or_with_nothing() {
        let (ok, gone) = (end_of_stream(&Status::ok("")), end_of_stream(&Status::unavailable("later")));
        assert_eq!((&ok[..HEAD], &ok[HEAD..]), (&[2, 0, 0, 0, 2][..], &b"{}"[..]));
        assert_eq!(gone[0], 2);
        let said: Json = serde_json::from_slice(&gone[HEAD..]).unwrap();
        assert_eq!(said, json!({ "error": { "code": "unavailable", "message": "later" } }));
    }

    #[test]
    fn trailers_are_a_block_of_lines() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("5"));
        trailers.insert("grpc-message", HeaderValue::from_static("Flag not found"));
        assert_eq!(web_trailers(&trailers), b"grpc-status:5\r\ngrpc-message:Flag not found\r\n");
    }
}
