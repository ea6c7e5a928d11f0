//! `EventStream`: by it flagd's clients know that they may ask, and drop what they keep of a flag that changed (flagd.md 1.4, 1.11).
//!
//! As a watch it is a cursor and not a queue. Everything that changed since the cursor is one event, and the next one comes a little later:
//! there are clients that lose events when many come at once. A kill does not wait.
//!
//! A stream begins with one event that names every flag, which flagd has not: clients keep values from one stream to the next (Python's over a
//! break of ten seconds, and it makes one every ten minutes), and a kill between the two would never reach them.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};
use tonic::Status;

use crate::replica::{ChangeKind, Changes, Cursor};
use crate::sidecar::bell::Seat;
use crate::sidecar::body::{Body, Source, Step};
use crate::sidecar::grpc::{Only, contained, draining, refuse, respond};
use crate::sidecar::pod::{Desk, Place};
use crate::telemetry::rpc::{self, Rpc};
use crate::wire::evaluation::flagd::Event;

use super::Asking;

/// An `EventStreamRequest` has no fields.
const MAX_REQUEST_BYTES: usize = 1024;

/// After so much silence flagd says that it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Between two events of changes, unless there is a kill among them. The Java provider keeps five events that it has not dealt with and
/// loses further ones.
const PACE: Duration = Duration::from_millis(50);

/// Changes that are taken from the list under one lock.
const TAKE: usize = 256;

pub(super) async fn event_stream(desk: Arc<Desk>, asking: Asking, request: Request<Incoming>) -> Response<Body> {
    let trace = rpc::server(request.uri().path().trim_start_matches('/'), request.headers());
    let started = Only::new(request.into_body(), MAX_REQUEST_BYTES).wait(&desk.pod.shutdown).await;
    match started.and_then(|_| place(&desk)) {
        Ok(place) => respond(Body::Stream(Box::new(Events::new(desk, asking, place, trace)))),
        Err(status) => {
            trace.end(status.code());
            refuse(status)
        }
    }
}

fn place(desk: &Desk) -> Result<Place, Status> {
    let watchers = &desk.pod.watchers;
    watchers
        .take()
        .ok_or_else(|| Status::resource_exhausted(format!("{} watches are open, which is the limit (--max-watchers)", watchers.limit())))
}

struct Events {
    desk: Arc<Desk>,
    asking: Asking,
    /// `None`: there was no state yet, and the client was not told that it may ask.
    cursor: Option<Cursor>,
    /// The client was not told yet that what it kept from an earlier stream may be old.
    owes_everything: bool,
    /// Of the bell, when the list had nothing more.
    heard: Option<u64>,
    /// Changes wait for their time.
    is_held_back: bool,
    next_change: Instant,
    keep_alive: Instant,
    timer: Pin<Box<Sleep>>,
    said_goodbye: bool,
    seat: Seat,
    _place: Place,
    trace: Option<Rpc>,
}

impl Events {
    fn new(desk: Arc<Desk>, asking: Asking, place: Place, trace: Rpc) -> Self {
        let now = Instant::now();
        let (seat, keep_alive) = (desk.bell.seat(), now + KEEP_ALIVE);
        Self {
            desk,
            asking,
            cursor: None,
            owes_everything: true,
            heard: None,
            is_held_back: false,
            next_change: now,
            keep_alive,
            timer: Box::pin(tokio::time::sleep_until(keep_alive)),
            said_goodbye: false,
            seat,
            _place: place,
            trace: Some(trace),
        }
    }

    /// What there is to say now.
    fn next(&mut self) -> Option<Bytes> {
        let replica = &self.desk.pod.replica;
        let Some(cursor) = self.cursor else {
            if !replica.is_usable() {
                return None;
            }
            // What is held now is what the client asks for from here on.
            self.cursor = Some(replica.cursor());
            return Some(Event::Ready.frame());
        };
        if self.asking.is_selected && std::mem::take(&mut self.owes_everything) {
            let keys = replica.batch(|view| view.keys(""));
            if !keys.is_empty() {
                let flags: Vec<_> = keys.iter().map(|key| (&**key, false)).collect();
                return Some(Event::Change(&flags).frame());
            }
        }
        let rung = Some(self.desk.bell.rung());
        if !self.asking.is_selected || self.heard == rung && !self.is_held_back {
            return None;
        }
        let waits = Instant::now() < self.next_change;
        let mut news = News { cursor, flags: BTreeMap::new() };
        let is_all = news.take(&self.desk, if waits { 0 } else { TAKE });
        self.cursor = Some(news.cursor);
        self.is_held_back = !is_all;
        if is_all {
            self.heard = rung;
        }
        if news.flags.is_empty() {
            return None;
        }
        self.next_change = Instant::now() + PACE;
        let flags: Vec<_> = news.flags.iter().map(|(key, is_deleted)| (&**key, *is_deleted)).collect();
        Some(Event::Change(&flags).frame())
    }

    fn end(&mut self, status: Status) -> Poll<Step> {
        if let Some(trace) = self.trace.take() {
            trace.end(status.code());
        }
        Poll::Ready(Step::End(status))
    }
}

/// What changed since the cursor, each flag once.
struct News {
    cursor: Cursor,
    /// And whether it was deleted.
    flags: BTreeMap<Arc<str>, bool>,
}

impl News {
    /// Kills, and other changes unless the limit is 0. Says whether nothing is left.
    fn take(&mut self, desk: &Desk, limit: usize) -> bool {
        loop {
            let Changes { notes, cursor, lost, more, .. } = desk.pod.replica.changes_after(self.cursor, limit);
            self.cursor = cursor;
            let is_last = !more || limit == 0 && notes.is_empty();
            self.flags.extend(notes.into_iter().map(|(kind, note)| (note.key.clone(), kind == ChangeKind::Deleted)));
            if lost {
                // Everything may have changed.
                desk.pod.lagged_watchers.fetch_add(1, Ordering::Relaxed);
                let keys = desk.pod.replica.batch(|view| view.keys(""));
                self.flags.extend(keys.into_iter().map(|key| (key, false)));
            }
            if is_last {
                return !more;
            }
        }
    }
}

impl Source for Events {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        self.seat.wait(cx.waker());
        if self.desk.is_draining() {
            // Then UNAVAILABLE: after OK the JavaScript provider does not come back (flagd.md 1.11).
            let said_goodbye = std::mem::replace(&mut self.said_goodbye, true);
            return if said_goodbye { self.end(draining()) } else { Poll::Ready(Step::Messages(Event::Shutdown.frame())) };
        }
        loop {
            match contained(|| Ok(self.next())) {
                Ok(Some(event)) => {
                    self.keep_alive = Instant::now() + KEEP_ALIVE;
                    return Poll::Ready(Step::Messages(event));
                }
                Ok(None) => {}
                Err(status) => return self.end(status),
            }
            let due = if self.is_held_back { self.next_change } else { self.keep_alive };
            if self.timer.deadline() != due {
                self.timer.as_mut().reset(due);
            }
            ready!(self.timer.as_mut().poll(cx));
            if !self.is_held_back {
                self.keep_alive = Instant::now() + KEEP_ALIVE;
                return Poll::Ready(Step::Messages(Event::KeepAlive.frame()));
            }
        }
    }
}
