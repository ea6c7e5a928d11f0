//! The sending side of one sidecar's stream: welcome, what it lacks, then every change. It is asked for a frame when the connection can
//! take one, looks where the environment is at that moment, and answers from what was encoded for all.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use crate::control::ledger::Head;
use crate::flag::Position;
use crate::lifecycle::Phase as ShutdownPhase;
use crate::wire::replication::Hello;
use crate::wire::{frame, v1};

use super::feed::{Feed, Published, Step, not_before};
use super::gate::Window;
use super::hear::{Signal, Signals};
use super::snapshot::Snapshot;
use super::{Admission, Hub, unknown_environment};

/// Between two snapshots that one sidecar asks for.
const RESYNC_EVERY: Duration = Duration::from_secs(1);
/// How often a session that waits for a place looks whether a sender has stalled.
const SLOT_CHECKED_EVERY: Duration = Duration::from_millis(500);

pub struct Session {
    hub: Arc<Hub>,
    admission: Admission,
    feed: Arc<Feed>,
    head: watch::Receiver<Published>,
    signals: Arc<Signals>,
    hearing: AbortHandle,
    /// Who, for the log.
    name: String,
    accepts_lz4: bool,
    /// What the sidecar holds once it has taken everything that was sent.
    cursor: Position,
    beat: Instant,
    resync_not_before: Instant,
    phase: Phase,
}

enum Phase {
    Welcome { first: Step, head: Head },
    Send(Bytes, Position),
    Live,
    Fetch { least: Position },
    Snapshot { snapshot: Arc<Snapshot>, index: usize },
    Leaving,
    Over,
}

impl Session {
    pub fn new(hub: Arc<Hub>, admission: Admission, feed: Arc<Feed>, hello: &Hello, signals: Arc<Signals>, hearing: AbortHandle) -> Self {
        let mut head = feed.head();
        let now = Instant::now();
        let phase = match *head.borrow_and_update() {
            Some(head) => Phase::Welcome { first: feed.first_step(hello.basis, head), head },
            // The first look finds the environment gone.
            None => Phase::Live,
        };
        let cursor = hello.basis.map_or_else(Position::default, |basis| basis.position);
        let identity = &hello.identity;
        let name = if identity.pod.is_empty() { identity.instance.clone() } else { identity.pod.clone() };
        let (accepts_lz4, beat) = (hello.accepts_lz4, hub.next_beat());
        Self { hub, admission, feed, head, signals, hearing, name, accepts_lz4, cursor, beat, resync_not_before: now, phase }
    }

    pub fn into_frames(self) -> impl Stream<Item = Result<Bytes, Status>> + Send {
        stream::unfold(self, |mut session| async move { Some((session.next().await?, session)) })
    }

    async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        loop {
            // The welcome comes first, whatever the sidecar says meanwhile.
            if !matches!(self.phase, Phase::Welcome { .. } | Phase::Leaving | Phase::Over) {
                match self.signals.take() {
                    Some(Signal::End(status)) => return self.end(status),
                    Some(Signal::Resync(cause)) => self.resync(cause),
                    None => {}
                }
            }
            let sent = match std::mem::replace(&mut self.phase, Phase::Live) {
                Phase::Welcome { first, head } => Some(self.welcome(first, head)),
                Phase::Send(bytes, arrived) => {
                    self.cursor = arrived;
                    Some(bytes)
                }
                Phase::Live => match self.live().await {
                    Ok(sent) => sent,
                    Err(status) => return self.end(status),
                },
                Phase::Fetch { least } => match self.fetch(least).await {
                    Ok(sent) => sent,
                    Err(status) => return self.end(status),
                },
                Phase::Snapshot { snapshot, index } => self.send_chunk(snapshot, index).await,
                Phase::Leaving => {
                    tokio::select! {
                        () = self.hub.shutdown.begun(ShutdownPhase::Drain) => {}
                        () = self.signals.raised() => {}
                    }
                    return self.end(Status::unavailable("the control plane is shutting down"));
                }
                Phase::Over => return None,
            };
            if let Some(bytes) = sent {
                return Some(Ok(bytes));
            }
        }
    }

    fn welcome(&mut self, first: Step, head: Head) -> Bytes {
        let (mode, reason, phase) = match first {
            Step::UpToDate => (v1::welcome::Mode::UpToDate, String::new(), Phase::Live),
            Step::Frames(bytes, arrived) => (v1::welcome::Mode::Delta, String::new(), Phase::Send(bytes, arrived)),
            Step::Snapshot { reason, least } => (v1::welcome::Mode::Snapshot, reason, Phase::Fetch { least }),
        };
        self.phase = phase;
        let session_id = self.admission.id.to_string();
        let (head, heartbeat_ms, mode) = (Some(head.position.into()), self.hub.args.heartbeat_ms, mode.into());
        let pods = self.hub.pods(self.feed.environment());
        respond(v1::follow_response::Message::Welcome(v1::Welcome { session_id, head, heartbeat_ms, mode, reason, pods }))
    }

    fn resync(&mut self, cause: crate::wire::replication::ResyncCause) {
        let (pod, environment, position) = (&self.name, self.feed.environment(), self.cursor);
        tracing::warn!(pod, environment, %position, ?cause, "a sidecar asks for a snapshot");
        // What it holds may be damaged, and is still no reason to take a kill back that it has.
        let least = self.head.borrow().map_or(self.cursor, |head| not_before(self.cursor, head.position));
        self.phase = Phase::Fetch { least };
    }

    /// Caught up, or one step away from it.
    async fn live(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(head) = *self.head.borrow_and_update() else { return Err(self.gone()) };
        match self.feed.step(self.cursor, head) {
            Step::Frames(bytes, arrived) => {
                self.cursor = arrived;
                return Ok(Some(bytes));
            }
            Step::Snapshot { reason, least } => {
                let (pod, environment, position) = (&self.name, self.feed.environment(), self.cursor);
                tracing::info!(pod, environment, %position, reason, "a sidecar is sent a snapshot");
                self.phase = Phase::Fetch { least };
                return Ok(None);
            }
            Step::UpToDate => {}
        }
        tokio::select! {
            biased;
            () = self.signals.raised() => Ok(None),
            _ = self.head.changed() => Ok(None),
            () = self.hub.shutdown.requested() => Ok(Some(self.go_away())),
            () = sleep_until(self.beat) => Ok(Some(self.heartbeat(Some(head)))),
        }
    }

    /// Waits for a place among the senders, with signs of life meanwhile.
    async fn fetch(&mut self, least: Position) -> Result<Option<Bytes>, Status> {
        self.phase = Phase::Fetch { least };
        let now = Instant::now();
        let due = if now < self.resync_not_before {
            self.resync_not_before
        } else if self.admission.may_send_snapshot() {
            let snapshot = self.feed.snapshot(least, self.accepts_lz4).await?.ok_or_else(|| self.gone())?;
            self.resync_not_before = Instant::now() + RESYNC_EVERY;
            self.phase = Phase::Snapshot { snapshot, index: 0 };
            return Ok(None);
        } else {
            now + SLOT_CHECKED_EVERY
        };
        self.wait_for_place(due).await
    }

    async fn send_chunk(&mut self, snapshot: Arc<Snapshot>, index: usize) -> Option<Bytes> {
        if !self.admission.may_send_snapshot() {
            // It stalled, and somebody else has its place now.
            self.phase = Phase::Snapshot { snapshot, index };
            return self.wait_for_place(Instant::now() + SLOT_CHECKED_EVERY).await.ok().flatten();
        }
        let chunk = snapshot.frames.get(index).cloned();
        match index + 1 < snapshot.frames.len() {
            true => self.phase = Phase::Snapshot { snapshot, index: index + 1 },
            false => {
                self.cursor = snapshot.position;
                self.admission.snapshot_sent();
            }
        }
        chunk
    }

    async fn wait_for_place(&mut self, due: Instant) -> Result<Option<Bytes>, Status> {
        tokio::select! {
            biased;
            () = self.signals.raised() => Ok(None),
            () = self.hub.shutdown.requested() => Ok(Some(self.go_away())),
            () = sleep_until(self.beat) => Ok(Some(self.heartbeat(None))),
            () = self.hub.slot_released.notified() => Ok(None),
            () = sleep_until(due) => Ok(None),
        }
    }

    /// With a head, when everything up to it was sent; without one it says no more than that the control plane lives.
    fn heartbeat(&mut self, head: Option<Head>) -> Bytes {
        self.beat = self.hub.next_beat();
        respond(v1::follow_response::Message::Heartbeat(heartbeat(head, &self.hub, self.feed.environment())))
    }

    fn go_away(&mut self) -> Bytes {
        self.phase = Phase::Leaving;
        go_away(self.hub.everybody(), "the control plane is shutting down")
    }

    fn gone(&self) -> Status {
        unknown_environment(&self.hub.ledger, self.feed.environment())
    }

    fn end(&mut self, status: Status) -> Option<Result<Bytes, Status>> {
        self.phase = Phase::Over;
        match status.code() {
            tonic::Code::Ok => None,
            _ => Some(Err(status)),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.hearing.abort();
    }
}

pub fn heartbeat(head: Option<Head>, hub: &Hub, environment: &str) -> v1::Heartbeat {
    let digest = head.map_or_else(Vec::new, |head| head.digest.to_bytes().to_vec());
    let (server_time_us, pods) = (hub.clock.now_us(), hub.pods(environment));
    v1::Heartbeat { head: head.map(|head| head.position.into()), digest, server_time_us, pods }
}

pub fn go_away(Window { min, max }: Window, reason: &str) -> Bytes {
    let milliseconds = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    let (retry_after_min_ms, retry_after_max_ms) = (milliseconds(min), milliseconds(max));
    respond(v1::follow_response::Message::GoAway(v1::GoAway { reason: reason.to_owned(), retry_after_min_ms, retry_after_max_ms }))
}

fn respond(message: v1::follow_response::Message) -> Bytes {
    frame::encode(&v1::FollowResponse { message: Some(message) })
}
