//! The bodies of answers. Bytes that many watchers get are shared, not copied, down to the socket.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::{Code, Status};

use super::dialect::Translated;
use super::grpc::{draining, ok_trailers, trailers};
use super::requests::Meter;

/// Where the messages of a streamed answer come from. It is polled only when the connection can take more, so that it needs no queue.
pub(super) trait Source: Send {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step>;
}

pub(super) enum Step {
    /// One or more whole gRPC messages.
    Messages(Bytes),
    End(Status),
}

#[derive(Default)]
pub(super) enum Body {
    /// Nothing, or nothing more.
    #[default]
    Empty,
    /// One gRPC message, then OK.
    Message(Bytes),
    /// Then this.
    Trailers(HeaderMap),
    Stream(Box<dyn Source>),
    /// Of a protocol without frames and statuses: nothing comes after it.
    Plain(Bytes),
    /// Of one that has neither and goes on: it just ends.
    Text(Box<dyn Source>),
    /// In the words of another protocol.
    Translated(Box<Translated>),
    /// Of a request that is measured.
    Metered(Box<(Body, Arc<Meter>)>),
    /// Of a generated service; it ends with the sidecar, because nothing else ends the watch of a health check.
    Generated(Box<Generated>),
}

pub(super) struct Generated {
    inner: tonic::body::Body,
    drain: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Body {
    pub(super) fn generated(inner: tonic::body::Body, drain: impl Future<Output = ()> + Send + 'static) -> Self {
        Self::Generated(Box::new(Generated { inner, drain: Box::pin(drain) }))
    }
}

impl Body {
    pub(super) fn metered(mut self, meter: Arc<Meter>) -> Self {
        if let Self::Translated(translated) = &mut self {
            translated.measure(Arc::clone(&meter));
        }
        Self::Metered(Box::new((self, meter)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let next = match &mut *self {
            Self::Empty => return Poll::Ready(None),
            Self::Message(message) => {
                let message = std::mem::take(message);
                *self = Self::Trailers(ok_trailers());
                return Poll::Ready(Some(Ok(Frame::data(message))));
            }
            Self::Trailers(trailers) => {
                let trailers = std::mem::take(trailers);
                *self = Self::Empty;
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            Self::Stream(source) => match std::task::ready!(source.poll_step(cx)) {
                Step::Messages(messages) => return Poll::Ready(Some(Ok(Frame::data(messages)))),
                Step::End(status) => status,
            },
            Self::Plain(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                return Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))));
            }
            Self::Text(source) => {
                let Step::Messages(text) = std::task::ready!(source.poll_step(cx)) else {
                    *self = Self::Empty;
                    return Poll::Ready(None);
                };
                return Poll::Ready(Some(Ok(Frame::data(text))));
            }
            Self::Translated(translated) => return translated.poll_frame(cx),
            Self::Metered(metered) => {
                let (inner, meter) = &mut **metered;
                let polled = Pin::new(inner).poll_frame(cx);
                if let Poll::Ready(Some(Ok(frame))) = &polled {
                    frame.data_ref().into_iter().for_each(|data| meter.wrote(data));
                    frame.trailers_ref().into_iter().for_each(|trailers| meter.ends(trailers));
                }
                return polled;
            }
            Self::Generated(generated) => {
                let polled = Pin::new(&mut generated.inner).poll_frame(cx);
                if polled.is_ready() || generated.drain.as_mut().poll(cx).is_pending() {
                    return polled;
                }
                draining()
            }
        };
        let end = if next.code() == Code::Ok { ok_trailers() } else { trailers(&next) };
        *self = Self::Empty;
        Poll::Ready(Some(Ok(Frame::trailers(end))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Generated(generated) => generated.inner.is_end_stream(),
            Self::Plain(bytes) => bytes.is_empty(),
            Self::Translated(translated) => translated.is_end_stream(),
            Self::Metered(metered) => metered.0.is_end_stream(),
            Self::Message(_) | Self::Trailers(_) | Self::Stream(_) | Self::Text(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Metered(metered) => metered.0.size_hint(),
            _ => SizeHint::default(),
        }
    }
}
