//! One environment as its readers see it: where it stands, the newest changes encoded once, and snapshots.
//!
//! A task of its own follows the ledger, encodes each change and wakes the readers. Changes that were committed while it was at work become
//! one; nothing is ever held back for that. Readers of the kill lane are woken first.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use prost::Message as _;
use tokio::sync::watch;
use tonic::Status;

use crate::clock::Clock;
use crate::control::Ledger;
use crate::control::ledger::Head;
use crate::flag::{Delta, Position, Revision};
use crate::wire::replication::Basis;
use crate::wire::{frame, v1};

use super::ring::{Ahead, Entry, Ring, notices};
use super::snapshot::{Snapshot, Snapshots};

/// A change that takes more goes as a snapshot, in chunks: nothing longer than this stands in front of anything else.
pub const DELTA_BYTES: usize = 1 << 20;
/// Merged changes that are kept for other readers who are as far behind.
const MERGED: usize = 8;

/// The oldest state that may be sent to whoever holds this: never one from before it, unless the control plane itself has gone back.
pub fn not_before(held: Position, head: Position) -> Position {
    let revision = if held.epoch == head.epoch { held.revision.min(head.revision) } else { 0 };
    Position { revision, ..head }
}

pub struct Feed {
    environment: String,
    ledger: Arc<Ledger>,
    clock: Arc<dyn Clock>,
    ring: RwLock<Ring>,
    merged: Mutex<Vec<Merged>>,
    snapshots: Snapshots,
    head: watch::Sender<Published>,
    /// The same, woken only by changes with kills in them.
    kills: watch::Sender<Published>,
}

/// `None`: the environment is gone.
pub type Published = Option<Head>;

struct Merged {
    from: Position,
    to: Revision,
    frame: Bytes,
}

/// What a reader is sent next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    UpToDate,
    Frames(Bytes, Position),
    Snapshot { reason: String, least: Position },
}

impl Feed {
    /// `None` when there is no such environment. Must be called inside a runtime.
    pub fn open(ledger: &Arc<Ledger>, clock: &Arc<dyn Clock>, environment: &str) -> Option<Arc<Self>> {
        let source = ledger.head(environment)?;
        let head = *source.borrow();
        let mut ring = Ring::default();
        ring.restart(head.position.epoch);
        let feed = Arc::new(Self {
            environment: environment.to_owned(),
            ledger: ledger.clone(),
            clock: clock.clone(),
            ring: RwLock::new(ring),
            merged: Mutex::default(),
            snapshots: Snapshots::default(),
            head: watch::Sender::new(Some(head)),
            kills: watch::Sender::new(Some(head)),
        });
        tokio::spawn(follow_ledger(feed.clone(), source));
        Some(feed)
    }

    pub fn is_gone(&self) -> bool {
        self.head.borrow().is_none()
    }

    pub fn environment(&self) -> &str {
        &self.environment
    }

    pub fn head(&self) -> watch::Receiver<Published> {
        self.head.subscribe()
    }

    pub fn kill_head(&self) -> watch::Receiver<Published> {
        self.kills.subscribe()
    }

    /// What a sidecar that holds `basis` needs.
    pub fn first_step(&self, basis: Option<Basis>, head: Head) -> Step {
        let held = basis.map_or_else(Position::default, |basis| basis.position);
        let snapshot = |reason: String| Step::Snapshot { reason, least: not_before(held, head.position) };
        let Some(Basis { position, digest }) = basis else { return snapshot("nothing is held".into()) };
        if position.epoch == head.position.epoch && position.revision > head.position.revision {
            return snapshot(format!("{position} is held, ahead of {}", head.position));
        }
        if position == head.position && digest != head.digest {
            return snapshot(format!("digest {digest} is held at {position}, expected {}", head.digest));
        }
        self.step(position, head)
    }

    /// What brings a reader from `held` on towards `head`.
    pub fn step(&self, held: Position, head: Head) -> Step {
        let snapshot = |reason: String, least| Step::Snapshot { reason, least };
        let target = head.position;
        if held.epoch != target.epoch {
            return snapshot(
                format!("epoch {:x} is held, this is epoch {:x}", held.epoch, target.epoch),
                Position { revision: 0, ..target },
            );
        }
        if held.revision >= target.revision {
            return Step::UpToDate;
        }
        let ahead = self.ring.read().after(held.epoch, held.revision);
        match ahead {
            Ahead::Frames(frames, revision) => Step::Frames(frames, Position { revision, ..held }),
            Ahead::TooLong => snapshot("the change is longer than a message".into(), target),
            Ahead::Merge => self.merge(held, target),
        }
    }

    pub async fn snapshot(&self, least: Position, lz4: bool) -> Result<Option<Arc<Snapshot>>, Status> {
        self.snapshots.get(&self.ledger, &self.environment, least, lz4).await
    }

    /// One delta from `held` to the head, as a message of its own; `None` when it takes a snapshot.
    pub fn delta(&self, held: Position, head: Head) -> Option<v1::Delta> {
        let delta = self.ledger.delta(&self.environment, held.revision, head.position.revision).ok().flatten()?;
        let delta = v1::Delta::from(delta);
        (held.epoch == head.position.epoch && delta.epoch == held.epoch && delta.encoded_len() <= DELTA_BYTES).then_some(delta)
    }

    /// Notices for a reader of the kill lane that has seen everything up to `seen`, or nothing yet: then every kill that stands.
    pub fn kills_after(&self, seen: Option<Position>, head: Head) -> Bytes {
        let Position { epoch, .. } = head.position;
        let kills = match seen.filter(|seen| seen.epoch == epoch) {
            Some(seen) => match self.ring.read().kills_after(epoch, seen.revision) {
                Some(notices) => return notices,
                None => self.ledger.kills_after(&self.environment, seen.revision),
            },
            None => self.ledger.kills(&self.environment),
        };
        notices(epoch, &kills, self.clock.now_us())
    }

    fn merge(&self, held: Position, head: Position) -> Step {
        let to = head.revision;
        let arrived = Position { revision: to, ..held };
        let mut merged = self.merged.lock();
        if let Some(found) = merged.iter().find(|merged| (merged.from, merged.to) == (held, to)) {
            return Step::Frames(found.frame.clone(), arrived);
        }
        let delta = match self.ledger.delta(&self.environment, held.revision, to) {
            Ok(Some(delta)) if delta.epoch == held.epoch => delta,
            Ok(_) => return Step::Snapshot { reason: format!("the log does not reach back to {held}"), least: held },
            Err(error) => return Step::Snapshot { reason: format!("the log cannot be read: {error}"), least: held },
        };
        match encode(delta) {
            Some(frame) => {
                if merged.len() == MERGED {
                    merged.remove(0);
                }
                merged.push(Merged { from: held, to, frame: frame.clone() });
                Step::Frames(frame, arrived)
            }
            None => Step::Snapshot { reason: "what is missing is longer than a message".into(), least: head },
        }
    }

    fn advance(&self, head: Head) {
        let before = self.head.borrow().map(|before| before.position);
        let from = before.filter(|before| before.epoch == head.position.epoch);
        if from.is_some_and(|from| from.revision >= head.position.revision) {
            return;
        }
        let delta = from.and_then(|from| self.ledger.delta(&self.environment, from.revision, head.position.revision).ok().flatten());
        // A store that was restored between the two questions answers for another epoch.
        let delta = delta.filter(|delta| delta.epoch == head.position.epoch);
        let has_kills = delta.as_ref().is_none_or(|delta| !delta.kills.is_empty());
        self.merged.lock().clear();
        match delta {
            Some(delta) => {
                let kills = notices(delta.epoch, &delta.kills, self.clock.now_us());
                let (prev_revision, revision) = (delta.prev_revision, delta.revision);
                self.ring.write().push(Entry { prev_revision, revision, kills, delta: encode(delta) });
            }
            None => self.ring.write().restart(head.position.epoch),
        }
        if has_kills {
            self.kills.send_replace(Some(head));
        }
        self.head.send_replace(Some(head));
    }
}

/// `None`: too long for a message.
fn encode(delta: Delta) -> Option<Bytes> {
    let response = v1::FollowResponse { message: Some(v1::follow_response::Message::Delta(delta.into())) };
    (response.encoded_len() <= DELTA_BYTES).then(|| frame::encode(&response))
}

async fn follow_ledger(feed: Arc<Feed>, mut source: watch::Receiver<Head>) {
    loop {
        let head = *source.borrow_and_update();
        feed.advance(head);
        if source.changed().await.is_err() {
            tracing::info!(environment = feed.environment, "the environment is gone: its sidecars are told so");
            feed.kills.send_replace(None);
            feed.head.send_replace(None);
            return;
        }
    }
}
