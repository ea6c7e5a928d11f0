//! gRPC messages that were encoded once and are sent to many: a frame is shared `Bytes`, and a response body is a stream of frames.
//!
//! tonic's own codec encodes each message into a buffer of each stream; for a message that goes to every reader that is a copy and 8 KiB
//! of buffer a reader.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, header};
use http_body::Frame;
use prost::Message;
use tonic::Status;

/// Compression flag and length, in front of each message.
const PREFIX: usize = 5;

/// A message as it stands in a gRPC body. Several may be joined end to end.
pub fn encode(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut buffer = BytesMut::with_capacity(PREFIX + length);
    buffer.put_u8(0);
    // Nothing that is sent comes near 4 GiB: an environment is at most 32 MiB.
    buffer.put_u32(length as u32);
    message.encode_raw(&mut buffer);
    buffer.freeze()
}

/// The message of a frame that [`encode`] made; `bytes` fields share the frame's memory.
pub fn decode<M: Message + Default>(frame: &Bytes) -> Result<M, prost::DecodeError> {
    M::decode(frame.slice(PREFIX.min(frame.len())..))
}

/// A gRPC response that streams frames. The stream's first error is the status that it ends with; without one it ends with OK.
pub fn response<S>(frames: S) -> http::Response<tonic::body::Body>
where
    S: Stream<Item = Result<Bytes, Status>> + Send + 'static,
{
    let body = Body { frames: Some(Box::pin(frames)) };
    let mut response = http::Response::new(tonic::body::Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

struct Body<S> {
    /// `None` once the trailers were sent.
    frames: Option<Pin<Box<S>>>,
}

impl<S: Stream<Item = Result<Bytes, Status>>> http_body::Body for Body<S> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(frames) = self.frames.as_mut() else { return Poll::Ready(None) };
        let status = match ready!(frames.as_mut().poll_next(cx)) {
            Some(Ok(frame)) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.frames = None;
        let mut trailers = HeaderMap::with_capacity(3);
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_none()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::wire::v1;

    #[test]
    fn a_frame_decodes_to_the_message_and_shares_its_bytes() {
        let chunk = v1::SnapshotChunk { data: Bytes::from_static(&[7; 100]), ..Default::default() };
        let frame = encode(&chunk);
        assert_eq!(frame[0], 0);
        assert_eq!(u32::from_be_bytes([frame[1], frame[2], frame[3], frame[4]]) as usize, frame.len() - PREFIX);
        let back: v1::SnapshotChunk = decode(&frame).unwrap();
        assert_eq!(back, chunk);
        assert!(frame.as_ptr_range().contains(&back.data.as_ptr()), "the data was copied");
    }

    #[tokio::test]
    async fn an_error_ends_the_body_as_trailers() {
        let frames = stream::iter([Ok(Bytes::from_static(b"one")), Err(Status::unavailable("draining")), Ok(Bytes::from_static(b"never"))]);
        let collected = response(frames).into_body().collect().await.unwrap();
        let trailers = collected.trailers().unwrap().clone();
        assert_eq!((trailers["grpc-status"].as_bytes(), trailers["grpc-message"].as_bytes()), (&b"14"[..], &b"draining"[..]));
        assert_eq!(collected.to_bytes(), Bytes::from_static(b"one"));
    }
}
