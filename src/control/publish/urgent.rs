//! The kill lane: every kill that stands, then each kill and restore at once, and signs of life between them.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use crate::flag::Position;
use crate::lifecycle::Phase;
use crate::wire::{frame, v1};

use super::feed::{Feed, Published};
use super::{Hub, unknown_environment};

pub struct Lane {
    hub: Arc<Hub>,
    feed: Arc<Feed>,
    head: watch::Receiver<Published>,
    /// Everything up to here was sent.
    seen: Option<Position>,
    beat: Instant,
    is_over: bool,
}

impl Lane {
    pub fn new(hub: Arc<Hub>, feed: Arc<Feed>) -> Self {
        let (head, beat) = (feed.kill_head(), hub.next_beat());
        Self { hub, feed, head, seen: None, beat, is_over: false }
    }

    pub fn into_frames(self) -> impl Stream<Item = Result<Bytes, Status>> + Send {
        stream::unfold(self, |mut lane| async move { Some((lane.next().await?, lane)) })
    }

    async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        if self.is_over {
            return None;
        }
        loop {
            let Some(head) = *self.head.borrow_and_update() else {
                self.is_over = true;
                return Some(Err(unknown_environment(&self.hub.ledger, self.feed.environment())));
            };
            let is_first = self.seen.is_none();
            // Where the environment was when it was looked up, so that what comes meanwhile is sent again and not lost.
            let notices = self.feed.kills_after(self.seen.replace(head.position), head);
            if !notices.is_empty() {
                return Some(Ok(notices));
            }
            if is_first {
                return Some(Ok(self.alive(head.position.epoch)));
            }
            tokio::select! {
                biased;
                _ = self.head.changed() => {}
                () = self.hub.shutdown.begun(Phase::Drain) => {
                    self.is_over = true;
                    return Some(Err(Status::unavailable("the control plane is shutting down")));
                }
                () = sleep_until(self.beat) => return Some(Ok(self.alive(head.position.epoch))),
            }
        }
    }

    fn alive(&mut self, epoch: u64) -> Bytes {
        self.beat = self.hub.next_beat();
        frame::encode(&v1::KillNotice { epoch, kill: None, server_time_us: self.hub.clock.now_us() })
    }
}
