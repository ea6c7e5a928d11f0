//! `SyncFlags`: the document at once, and again at each change of it. As a watch, a subscriber is a cursor and not a queue.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use tokio::time::{Instant, Sleep};
use tonic::Status;

use crate::sidecar::bell::Seat;
use crate::sidecar::body::{Body, Source, Step};
use crate::sidecar::grpc::{contained, draining, not_ready, refuse, respond};
use crate::sidecar::pod::{Desk, Place};
use crate::sidecar::request_body::RequestBody;
use crate::telemetry::rpc::{self, Rpc};
use crate::wire::evaluation::selection::Selection;

use super::counts::Ended;
use super::press::{FIRST_STATE_WITHIN, Press, View};
use super::{MAX_SUBSCRIBERS, read};

pub(super) async fn sync_flags(desk: Arc<Desk>, request: Request<RequestBody>) -> Response<Body> {
    let trace = rpc::server(request.uri().path().trim_start_matches('/'), request.headers());
    let started = read(&desk, request).await.and_then(|selection| Ok((selection, place(&desk)?)));
    match started {
        Ok((selection, place)) => respond(Body::Stream(Box::new(Subscriber::new(desk, &selection, place, trace)))),
        Err(status) => {
            trace.end(status.code());
            refuse(status)
        }
    }
}

fn place(desk: &Desk) -> Result<Place, Status> {
    let said = || Status::resource_exhausted(format!("{MAX_SUBSCRIBERS} subscribers follow the flags, which is the limit"));
    desk.pod.subscribers.take().ok_or_else(said)
}

struct Subscriber {
    desk: Arc<Desk>,
    view: Arc<View>,
    /// What the first edition must have seen.
    since: u64,
    /// Number of the last edition; 0: none.
    sent: u64,
    began: Instant,
    /// For a first state, then of the whole stream.
    timer: Pin<Box<Sleep>>,
    seat: Seat,
    _place: Place,
    trace: Option<Rpc>,
}

impl Subscriber {
    fn new(desk: Arc<Desk>, selection: &Selection, place: Place, trace: Rpc) -> Self {
        let press = &desk.pod.press;
        let (view, since, began) = (press.view(selection), press.now(), Instant::now());
        if view.as_of(since).is_none() {
            press.want();
        }
        let seat = desk.sync_bell.seat();
        let timer = Box::pin(tokio::time::sleep_until(began + FIRST_STATE_WITHIN));
        Self { desk, view, since, sent: 0, began, timer, seat, _place: place, trace: Some(trace) }
    }

    fn press(&self) -> &Press {
        &self.desk.pod.press
    }

    /// What there is to send now.
    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let edition = if self.sent == 0 { self.view.as_of(self.since) } else { self.view.latest() };
        let Some(edition) = edition.filter(|edition| edition.number != self.sent) else { return Ok(None) };
        let frame = edition.configuration()?.frame();
        self.sent = edition.number;
        self.press().counts.sent.fetch_add(1, Ordering::Relaxed);
        Ok(Some(frame))
    }

    fn end(&mut self, ended: Ended, status: Status) -> Poll<Step> {
        if let Some(trace) = self.trace.take() {
            trace.end(status.code());
            self.press().counts.ended(ended, self.began.elapsed());
        }
        Poll::Ready(Step::End(status))
    }

    /// When the stream ends by itself.
    fn due(&self) -> Option<Instant> {
        match self.sent {
            0 => Some(self.began + FIRST_STATE_WITHIN),
            _ => self.press().told().stream_deadline.and_then(|after| self.began.checked_add(after)),
        }
    }
}

impl Source for Subscriber {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        self.seat.wait(cx.waker());
        if self.desk.is_draining() {
            // UNAVAILABLE: after OK the JavaScript provider does not come back (flagd.md 1.11).
            return self.end(Ended::NormalClose, draining());
        }
        match contained(|| self.next()) {
            Ok(Some(frame)) => return Poll::Ready(Step::Messages(frame)),
            Ok(None) => {}
            Err(status) => return self.end(Ended::Error, status),
        }
        let Some(due) = self.due() else { return Poll::Pending };
        if self.timer.deadline() != due {
            self.timer.as_mut().reset(due);
        }
        ready!(self.timer.as_mut().poll(cx));
        match self.sent {
            // No document at all: an empty one would say that there are no flags.
            0 => self.end(Ended::Error, not_ready()),
            _ => self.end(Ended::DeadlineExceeded, Status::deadline_exceeded("the stream is as old as streams get here; ask again")),
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if self.trace.is_some() {
            self.press().counts.ended(Ended::ClientDisconnect, self.began.elapsed());
        }
    }
}
