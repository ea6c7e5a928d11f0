//! `WatchFlags`: a cursor into the list of changes, not a queue.
//!
//! A watcher is polled only when its connection can take more. It then asks for what changed since its cursor and gets the latest state of
//! each key, kills first: one that did not read for an hour has cost nothing meanwhile and hears of each key once.

mod ask;
mod tell;

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use tokio::time::{Instant, Sleep};
use tonic::Status;

use crate::flag::Position;
use crate::replica::{ChangeKind, Changes, Cursor, Note};
use crate::telemetry::rpc::{self, Rpc};
use crate::wire::evaluation::watch::{SnapshotPart, heartbeat_frame};

use super::bell::Seat;
use super::body::{Body, Source, Step};
use super::grpc::{Only, contained, draining, invalid, refuse, respond};
use super::pod::{Desk, Place};
use super::request_body::RequestBody;

use ask::Ask;
use tell::Told;

/// A hundred contexts at their limit do not fit, ten thousand keys do.
const MAX_REQUEST_BYTES: usize = 1024 * 1024;

/// Bytes that are written together. A kill that comes meanwhile waits behind no more than this.
const WRITE_BYTES: usize = 16 * 1024;

/// Changes that are taken from the list together; until they are told they are held by reference.
const TAKE: usize = 32;

/// No more is taken while so many wait to be told: at least the first `TAKE` of them are kills then.
const MAX_PENDING: usize = 2 * TAKE;

pub(super) async fn watch_flags(desk: Arc<Desk>, request: Request<RequestBody>) -> Response<Body> {
    let trace = rpc::server("yardarm.v1.Evaluation/WatchFlags", request.headers());
    let started = match Only::new(request.into_body(), MAX_REQUEST_BYTES).wait(&desk.pod.shutdown).await {
        Ok(message) => contained(|| Watch::start(desk, &message)),
        Err(status) => Err(status),
    };
    match started {
        Ok(watch) => respond(Body::Stream(Box::new(Watch { trace: Some(trace), ..watch }))),
        Err(status) => {
            trace.end(status.code());
            refuse(status)
        }
    }
}

struct Watch {
    desk: Arc<Desk>,
    ask: Ask,
    told: Told,
    phase: Phase,
    cursor: Cursor,
    /// Everything up to here is told, or in `pending`.
    position: Position,
    /// Taken from the list and not told yet.
    pending: VecDeque<(ChangeKind, Arc<Note>)>,
    heartbeat: Pin<Box<Sleep>>,
    heartbeat_waits: bool,
    /// Of the bell, when the list had nothing more.
    heard: Option<u64>,
    seat: Seat,
    _place: Place,
    trace: Option<Rpc>,
}

enum Phase {
    /// The replica has no state yet.
    Waiting,
    Listing(Listing),
    Live,
}

/// A snapshot that is being told. What it lists is read when it is told, so that a slow reader gets what is true then.
struct Listing {
    /// Everything that is told is at least as new.
    position: Position,
    keys: std::vec::IntoIter<Arc<str>>,
}

impl Watch {
    fn start(desk: Arc<Desk>, message: &[u8]) -> Result<Self, Status> {
        let ask = Ask::read(message).map_err(|refused| invalid(&refused))?;
        let watchers = &desk.pod.watchers;
        let place = watchers.take().ok_or_else(|| {
            Status::resource_exhausted(format!("{} watches are open, which is the limit (--max-watchers)", watchers.limit()))
        })?;
        let replica = &desk.pod.replica;
        let mut heartbeat = ask.heartbeat;
        let mut told = Told::from_a_snapshot();
        let (phase, cursor) = match ask.resume.and_then(|position| replica.resume(position)) {
            Some(cursor) => {
                // Says that the watch goes on where it was.
                heartbeat = Duration::ZERO;
                told = Told::before();
                (Phase::Live, cursor)
            }
            None => {
                let cursor = replica.cursor();
                (if replica.is_usable() { list(&desk, &ask) } else { Phase::Waiting }, cursor)
            }
        };
        let cursor = ask.reads(cursor);
        let position = ask.resume.unwrap_or_default();
        let seat = desk.bell.seat();
        let heartbeat = Box::pin(tokio::time::sleep(heartbeat));
        Ok(Self {
            desk,
            ask,
            told,
            phase,
            cursor,
            position,
            pending: VecDeque::new(),
            heartbeat,
            heartbeat_waits: false,
            heard: None,
            seat,
            _place: place,
            trace: None,
        })
    }

    /// Starts from a snapshot and goes on at `cursor`. Subscribed first, listed after: what changes meanwhile is told as a change once more.
    fn restart(&mut self, cursor: Cursor) {
        self.told = Told::from_a_snapshot();
        self.heard = None;
        // A snapshot says that a flag is killed, not that it was killed just now: that is still told, and first.
        self.pending.retain(|(kind, _)| *kind == ChangeKind::Killed);
        self.cursor = cursor;
        self.phase = list(&self.desk, &self.ask);
    }

    /// What there is to say now.
    fn next(&mut self) -> Option<Bytes> {
        if matches!(self.phase, Phase::Waiting) && self.desk.pod.replica.is_usable() {
            self.restart(self.ask.reads(self.desk.pod.replica.cursor()));
        }
        if matches!(self.phase, Phase::Waiting) {
            return None;
        }
        self.changes().or_else(|| self.part())
    }

    /// Up to about `WRITE_BYTES` of changes. A single one is shared with the other watchers, several are joined: a client that is slow
    /// closes its connection when it holds many small frames (performance.md, trap 1).
    fn changes(&mut self) -> Option<Bytes> {
        if !self.pending.is_empty() {
            self.take_changes();
        }
        let first = self.next_change()?;
        if self.pending.is_empty() {
            return Some(first);
        }
        let mut joined = BytesMut::from(&first[..]);
        while joined.len() < WRITE_BYTES {
            let Some(frame) = self.next_change() else { break };
            joined.extend_from_slice(&frame);
        }
        Some(joined.freeze())
    }

    fn next_change(&mut self) -> Option<Bytes> {
        loop {
            while let Some((kind, note)) = self.pending.pop_front() {
                if let Some(frame) = self.told.change(&self.desk.pod, &self.ask, kind, &note) {
                    return Some(frame);
                }
            }
            self.take_changes();
            if self.pending.is_empty() {
                return None;
            }
        }
    }

    /// Takes changes from the list. Kills that came since the last look go in front of what was taken before; while a snapshot is told,
    /// only they are taken: they do not wait for the rest of it, and the rest of it is read when it is told.
    fn take_changes(&mut self) {
        let rung = Some(self.desk.bell.rung());
        if self.heard == rung || self.pending.len() >= MAX_PENDING {
            return;
        }
        let only_kills = !self.pending.is_empty() || matches!(self.phase, Phase::Listing(_));
        let Changes { notes, cursor, lost, more, position } =
            self.desk.pod.replica.changes_after(self.cursor, if only_kills { 0 } else { TAKE });
        if lost {
            self.desk.pod.lagged_watchers.fetch_add(1, Ordering::Relaxed);
            self.restart(cursor);
        } else {
            self.cursor = cursor;
            if !more {
                (self.position, self.heard) = (position, rung);
            }
        }
        for (kind, note) in notes.into_iter().rev() {
            // An older state of the same key must not be told after the newer one.
            self.pending.retain(|(_, held)| held.key != note.key);
            self.pending.push_front((kind, note));
        }
    }

    /// The next part of a snapshot.
    fn part(&mut self) -> Option<Bytes> {
        let Phase::Listing(listing) = &mut self.phase else { return None };
        let mut part = SnapshotPart::default();
        while part.len() < WRITE_BYTES {
            let Some(key) = listing.keys.next() else { break };
            self.told.state(&self.desk.pod, &self.ask, &key, |state| part.push(state));
        }
        let last = listing.keys.as_slice().is_empty();
        // Nobody may go on after half of a snapshot.
        let frame = part.into_frame(last.then_some(listing.position));
        if last {
            self.phase = Phase::Live;
        }
        Some(frame)
    }
}

fn list(desk: &Desk, ask: &Ask) -> Phase {
    let (position, keys) = desk.pod.replica.batch(|view| {
        let keys = match ask.selection.keys.as_slice() {
            [] => view.keys(&ask.selection.prefix),
            keys => keys.iter().filter(|key| ask.selection.names(key)).map(|key| Arc::from(key.as_str())).collect(),
        };
        (view.position(), keys)
    });
    Phase::Listing(Listing { position, keys: keys.into_iter() })
}

impl Source for Watch {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        self.seat.wait(cx.waker());
        if self.desk.is_draining() {
            return self.end(draining());
        }
        match contained(|| Ok(self.next())) {
            Ok(Some(messages)) => return Poll::Ready(Step::Messages(messages)),
            Ok(None) => {}
            Err(status) => return self.end(status),
        }
        // Polled, it waits with this task's waker; until it is due there is no need to poll it again.
        if self.heartbeat_waits && !self.heartbeat.is_elapsed() {
            return Poll::Pending;
        }
        self.heartbeat_waits = self.heartbeat.as_mut().poll(cx).is_pending();
        if self.heartbeat_waits {
            return Poll::Pending;
        }
        let next = Instant::now() + self.ask.heartbeat;
        self.heartbeat.as_mut().reset(next);
        Poll::Ready(Step::Messages(heartbeat_frame(self.position, self.desk.pod.age_ms())))
    }
}

impl Watch {
    fn end(&mut self, status: Status) -> Poll<Step> {
        if let Some(trace) = self.trace.take() {
            trace.end(status.code());
        }
        Poll::Ready(Step::End(status))
    }
}
