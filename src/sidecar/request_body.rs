//! The bodies of requests, as hyper reads them. What is measured of a request hangs on its body and on that of its answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::requests::Meter;

#[derive(Debug)]
pub(super) struct RequestBody {
    incoming: Incoming,
    /// `None`: nobody wants to know.
    meter: Option<Arc<Meter>>,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, meter: Option<Arc<Meter>>) -> Self {
        Self { incoming, meter }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if let (Some(meter), Poll::Ready(Some(Ok(frame)))) = (&self.meter, &polled) {
            meter.read(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
