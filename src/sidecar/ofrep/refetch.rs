//! OFREP's event stream (protocol 0.3.0, ADR-0008): server-sent events that say nothing but that the evaluation has to be fetched again.
//!
//! A stream begins with such an event, unless the client says by `Last-Event-ID` that it knows: what changed between its fetch and its stream
//! would otherwise never reach it. It costs the client that is up to date a 304.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::json;
use tokio::time::{Instant, Sleep};
use tonic::Status;

use crate::flag::metro64;
use crate::sidecar::bell::Seat;
use crate::sidecar::body::{Body, Source, Step};
use crate::sidecar::flagd::Asking;
use crate::sidecar::pod::{Desk, Place};

use super::{Answer, RETRY_AFTER, refused};

/// After so much silence a comment, so that nobody in between closes the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Between two events: whoever hears one fetches everything.
const PACE: Duration = Duration::from_millis(50);

/// How long a client waits before it comes again, in milliseconds; browsers wait three seconds when nobody tells them.
const BEGIN: &[u8] = b"retry: 1000\n\n";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub(super) fn stream(desk: &Arc<Desk>, asking: Asking, headers: &HeaderMap) -> Answer {
    let watchers = &desk.pod.watchers;
    let Some(place) = watchers.take() else {
        let mut answer =
            refused(StatusCode::TOO_MANY_REQUESTS, &format!("{} watches are open, which is the limit (--max-watchers)", watchers.limit()));
        answer.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        return answer;
    };
    let known = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
    let mut answer = Response::new(Body::Text(Box::new(Refetch::new(Arc::clone(desk), asking, known, place))));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Also those that stand in between, nginx among them.
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    answer.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    answer
}

/// Of what a selection takes, as it is now: another one whenever any of its flags may be answered otherwise. Not the tag of an answer, which
/// depends on who asks.
pub(super) fn tag(desk: &Desk, asking: &Asking) -> String {
    let replica = &desk.pod.replica;
    let stamp = match asking.selection.is_all() {
        true => replica.cursor().stamp() ^ replica.position().epoch,
        false => replica.batch(|view| {
            let places = view.selected(asking.scope(desk));
            let of = |place: &Arc<str>| view.with(place, |held| held.map(|held| (held.number(), held.flag.has_prerequisites())));
            let flags: Vec<_> = places.iter().filter_map(of).collect();
            let mut numbers: Vec<u8> = flags.iter().flat_map(|(number, _)| number.to_le_bytes()).collect();
            if flags.iter().any(|(_, depends)| *depends) {
                // On flags that may be of another selection.
                numbers.extend(replica.cursor().stamp().to_le_bytes());
            }
            metro64(&numbers)
        }),
    };
    // Numbers begin anew with each process, and what they stand for does not.
    format!("{:016x}", stamp ^ desk.pod.salt)
}

struct Refetch {
    desk: Arc<Desk>,
    asking: Asking,
    has_begun: bool,
    /// What the client has been told of.
    known: Option<String>,
    /// Of the bell, when that was looked up.
    heard: Option<u64>,
    next_event: Instant,
    keep_alive: Instant,
    timer: Pin<Box<Sleep>>,
    seat: Seat,
    _place: Place,
}

impl Refetch {
    fn new(desk: Arc<Desk>, asking: Asking, known: Option<String>, place: Place) -> Self {
        let now = Instant::now();
        let (seat, keep_alive) = (desk.bell.seat(), now + KEEP_ALIVE);
        let timer = Box::pin(tokio::time::sleep_until(keep_alive));
        Self { desk, asking, has_begun: false, known, heard: None, next_event: now, keep_alive, timer, seat, _place: place }
    }

    /// A tag that the client has not been told.
    fn news(&mut self) -> Option<String> {
        let rung = Some(self.desk.bell.rung());
        if self.heard == rung || !self.desk.pod.replica.is_usable() {
            return None;
        }
        let tag = tag(&self.desk, &self.asking);
        if self.known.as_ref() == Some(&tag) {
            self.heard = rung;
            return None;
        }
        Some(tag)
    }

    fn event(&mut self, tag: String) -> Bytes {
        let data = json!({ "type": "refetchEvaluation", "etag": tag });
        let event = format!("id: {tag}\nevent: message\ndata: {data}\n\n");
        self.known = Some(tag);
        self.next_event = Instant::now() + PACE;
        event.into()
    }

    fn say(&mut self, said: Bytes) -> Poll<Step> {
        self.keep_alive = Instant::now() + KEEP_ALIVE;
        Poll::Ready(Step::Messages(said))
    }
}

impl Source for Refetch {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        self.seat.wait(cx.waker());
        if self.desk.is_draining() {
            return Poll::Ready(Step::End(Status::ok("")));
        }
        if !std::mem::replace(&mut self.has_begun, true) {
            return Poll::Ready(Step::Messages(Bytes::from_static(BEGIN)));
        }
        loop {
            let now = Instant::now();
            let until = match self.news() {
                Some(tag) if now >= self.next_event => {
                    let event = self.event(tag);
                    return self.say(event);
                }
                Some(_) => self.next_event,
                None if now >= self.keep_alive => return self.say(Bytes::from_static(b": still here\n\n")),
                None => self.keep_alive,
            };
            if self.timer.deadline() != until {
                self.timer.as_mut().reset(until);
            }
            ready!(self.timer.as_mut().poll(cx));
        }
    }
}
