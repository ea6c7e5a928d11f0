//! `EventStream`: by it flagd's clients know that they may ask, and drop what they keep of a flag that changed (flagd.md 1.4, 1.11).
//!
//! As a watch it is a cursor and not a queue. Everything that changed since the cursor is one event, and the next one comes a little later:
//! there are clients that lose events when many come at once. A kill does not wait.
//!
//! A stream begins with one event that names every flag, which flagd has not: clients keep values from one stream to the next (Python's over a
//! break of ten seconds, and it makes one every ten minutes), and a kill between the two would never reach them. It comes after
//! the one that says that the client may ask: Go's provider gives up when that is not the first that it hears.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::time::{Instant, Sleep};
use tonic::Status;

use crate::flag::overridden;
use crate::replica::{ChangeKind, Changes, Cursor, Note};
use crate::sidecar::bell::Seat;
use crate::sidecar::body::{Body, Source, Step};
use crate::sidecar::grpc::{Only, contained, draining};
use crate::sidecar::pod::{Desk, Place};
use crate::sidecar::request_body::RequestBody;
use crate::telemetry::rpc::{self, Rpc};
use crate::wire::evaluation::flagd::{Became, Event};

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

pub(in crate::sidecar) async fn event_stream(
    desk: Arc<Desk>,
    asking: Asking,
    deadline: Option<Duration>,
    request: Request<RequestBody>,
) -> Result<Body, Status> {
    let trace = rpc::server(request.uri().path().trim_start_matches('/'), request.headers());
    let started = Only::new(request.into_body(), MAX_REQUEST_BYTES).wait(&desk.pod.shutdown).await;
    match started.and_then(|_| place(&desk)) {
        Ok(place) => Ok(Body::Stream(Box::new(Events::new(desk, asking, deadline, place, trace)))),
        Err(status) => {
            trace.end(status.code());
            Err(status)
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
    /// Of a selection: the keys that the client sees, so that it hears when one enters or leaves.
    seen: BTreeSet<Arc<str>>,
    /// Of the bell, when the list had nothing more.
    heard: Option<u64>,
    /// Changes wait for their time.
    is_held_back: bool,
    next_change: Instant,
    keep_alive: Instant,
    /// When the client has to come again.
    end: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    said_goodbye: bool,
    seat: Seat,
    _place: Place,
    trace: Option<Rpc>,
}

impl Events {
    fn new(desk: Arc<Desk>, asking: Asking, deadline: Option<Duration>, place: Place, trace: Rpc) -> Self {
        let now = Instant::now();
        let (seat, keep_alive) = (desk.bell.seat(), now + KEEP_ALIVE);
        Self {
            desk,
            asking,
            cursor: None,
            owes_everything: true,
            seen: BTreeSet::new(),
            heard: None,
            is_held_back: false,
            next_change: now,
            keep_alive,
            end: deadline.map(|deadline| now + deadline),
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
        if std::mem::take(&mut self.owes_everything)
            && let Some(event) = self.everything()
        {
            return Some(event);
        }
        let rung = Some(self.desk.bell.rung());
        if self.heard == rung && !self.is_held_back {
            return None;
        }
        let waits = Instant::now() < self.next_change;
        let mut news = News { cursor, flags: BTreeMap::new(), is_lost: false };
        let is_all = news.take(&self.desk, if waits { 0 } else { TAKE });
        self.cursor = Some(news.cursor);
        match self.asking.selection.is_all() {
            true => news.flags.retain(|place, _| !overridden::is_place(place)),
            false => self.select(&mut news),
        }
        self.is_held_back = !is_all;
        if is_all {
            self.heard = rung;
        }
        if news.flags.is_empty() {
            return None;
        }
        self.next_change = Instant::now() + PACE;
        let flags: Vec<_> = news.flags.iter().map(|(key, became)| (&**key, *became)).collect();
        Some(Event::Change(&flags).frame())
    }

    /// A change of every flag, if there is one.
    fn everything(&mut self) -> Option<Bytes> {
        let keys = self.keys();
        let flags: Vec<_> = keys.iter().map(|key| (&**key, Became::Updated)).collect();
        let event = (!flags.is_empty()).then(|| Event::Change(&flags).frame());
        if !self.asking.selection.is_all() {
            self.seen = keys.into_iter().collect();
        }
        event
    }

    /// Of every flag that is selected now.
    fn keys(&self) -> Vec<Arc<str>> {
        let places = self.desk.pod.replica.batch(|view| view.selected(self.asking.scope(&self.desk)));
        let key = |place: Arc<str>| if overridden::is_place(&place) { overridden::key(&place).into() } else { place };
        places.into_iter().map(key).collect()
    }

    /// Leaves what the client sees, and says what became of it there.
    fn select(&mut self, news: &mut News) {
        let scope = self.asking.scope(&self.desk);
        let places = std::mem::take(&mut news.flags);
        let mut keys: BTreeSet<Arc<str>> = places.into_keys().map(|place| overridden::key(&place).into()).collect();
        if news.is_lost {
            keys.extend(self.seen.iter().cloned());
        }
        for key in keys {
            let is_taken = self.desk.pod.replica.batch(|view| view.place(&key, scope).is_some());
            let became = match (self.seen.contains(&key), is_taken) {
                (false, false) => continue,
                (false, true) => Became::Written,
                (true, true) => Became::Updated,
                (true, false) => Became::Deleted,
            };
            match became {
                Became::Deleted => _ = self.seen.remove(&key),
                Became::Written | Became::Updated => _ = self.seen.insert(key.clone()),
            }
            news.flags.insert(key, became);
        }
    }

    fn close(&mut self, status: Status) -> Poll<Step> {
        if let Some(trace) = self.trace.take() {
            trace.end(status.code());
        }
        Poll::Ready(Step::End(status))
    }
}

/// What changed since the cursor, each flag once.
struct News {
    cursor: Cursor,
    /// By where they are held.
    flags: BTreeMap<Arc<str>, Became>,
    /// Everything may have changed, also what is not named.
    is_lost: bool,
}

impl News {
    /// Kills, and other changes unless the limit is 0. Says whether nothing is left.
    fn take(&mut self, desk: &Desk, limit: usize) -> bool {
        loop {
            let Changes { notes, cursor, lost, more, .. } = desk.pod.replica.changes_after(self.cursor, limit);
            let before = std::mem::replace(&mut self.cursor, cursor);
            let is_last = !more || limit == 0 && notes.is_empty();
            self.flags.extend(notes.into_iter().map(|(kind, note)| (note.key.clone(), became(kind, &note, before))));
            if lost {
                // Everything may have changed.
                desk.pod.lagged_watchers.fetch_add(1, Ordering::Relaxed);
                let places = desk.pod.replica.batch(|view| view.all());
                self.flags.extend(places.into_iter().map(|place| (place, Became::Updated)));
                self.is_lost = true;
            }
            if is_last {
                return !more;
            }
        }
    }
}

fn became(kind: ChangeKind, note: &Note, before: Cursor) -> Became {
    match kind {
        ChangeKind::Deleted => Became::Deleted,
        _ if note.is_new_to(before) => Became::Written,
        _ => Became::Updated,
    }
}

impl Source for Events {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        self.seat.wait(cx.waker());
        if self.desk.is_draining() {
            // Then UNAVAILABLE: after OK the JavaScript provider does not come back (flagd.md 1.11).
            let said_goodbye = std::mem::replace(&mut self.said_goodbye, true);
            return if said_goodbye { self.close(draining()) } else { Poll::Ready(Step::Messages(Event::Shutdown.frame())) };
        }
        loop {
            match contained(|| Ok(self.next())) {
                Ok(Some(event)) => {
                    self.keep_alive = Instant::now() + KEEP_ALIVE;
                    return Poll::Ready(Step::Messages(event));
                }
                Ok(None) => {}
                Err(status) => return self.close(status),
            }
            if self.end.is_some_and(|end| end <= Instant::now()) {
                return self.close(Status::deadline_exceeded("the stream has been open for as long as it may be (--stream-deadline)"));
            }
            let due = if self.is_held_back { self.next_change } else { self.keep_alive };
            let due = self.end.map_or(due, |end| end.min(due));
            if self.timer.deadline() != due {
                self.timer.as_mut().reset(due);
            }
            ready!(self.timer.as_mut().poll(cx));
            if !self.is_held_back && self.keep_alive <= Instant::now() {
                self.keep_alive = Instant::now() + KEEP_ALIVE;
                return Poll::Ready(Step::Messages(Event::KeepAlive.frame()));
            }
        }
    }
}
