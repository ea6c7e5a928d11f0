//! One sidecar: what it acknowledged, and when its word arrived.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::clock::Micros;
use crate::flag::{Position, Revision};
use crate::wire::fleet::Pod;
use crate::wire::replication::{Ack, Identity, KillAck, Rejection};

/// Acknowledgements of each sidecar that are kept with their times.
pub(super) const ACKS: usize = 16;
/// Kills that are kept with their times after the sidecar has ceased to report them.
const KILLS: usize = 32;

#[derive(Debug)]
pub struct Member {
    pub(super) identity: Arc<Identity>,
    /// `None` while no stream is open.
    pub(super) session: Option<u64>,
    first_seen_us: Micros,
    pub(super) last_seen_us: Micros,
    /// Of one that this process has not seen yet: since when it is missed.
    recalled_us: Micros,
    position: Option<Position>,
    applied_at_us: Micros,
    age_ms: u64,
    rejected: Arc<[Rejection]>,
    /// Each position that was acknowledged, and when the word arrived here.
    acks: VecDeque<(Position, Micros)>,
    /// The newest position whose time is not kept any more.
    dropped: Option<Position>,
    kills: VecDeque<(String, Revision, Micros)>,
    pub(super) version: u64,
}

/// Whether a sidecar has a revision, and since when that is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Silent,
    At(Micros),
    /// So long ago that the time is not kept.
    Earlier,
}

impl Member {
    pub(super) fn new(now_us: Micros) -> Self {
        Self {
            identity: Arc::default(),
            session: None,
            first_seen_us: now_us,
            last_seen_us: now_us,
            recalled_us: now_us,
            position: None,
            applied_at_us: 0,
            age_ms: 0,
            rejected: Arc::new([]),
            acks: VecDeque::new(),
            dropped: None,
            kills: VecDeque::new(),
            version: 0,
        }
    }

    /// One that only the process before this one has seen.
    pub(super) fn recalled(identity: Arc<Identity>, last_seen_us: Micros, missed_since_us: Micros, version: u64) -> Self {
        Self { identity, last_seen_us, recalled_us: missed_since_us, version, ..Self::new(missed_since_us) }
    }

    /// Of one without a stream: when it was there for the last time, as far as this process can tell.
    pub(super) fn missed_since_us(&self) -> Micros {
        self.last_seen_us.max(self.recalled_us)
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        if self.identity.pod.is_empty() { &self.identity.instance } else { &self.identity.pod }
    }

    pub fn instance(&self) -> &str {
        &self.identity.instance
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn first_seen_us(&self) -> Micros {
        self.first_seen_us
    }

    pub fn rejected(&self) -> &[Rejection] {
        &self.rejected
    }

    pub fn view(&self, now_us: Micros) -> Pod {
        let since_ms = now_us.saturating_sub(self.last_seen_us).max(0) as u64 / 1000;
        Pod {
            identity: self.identity.clone(),
            connected: self.session.is_some(),
            position: self.position,
            applied_at_us: self.applied_at_us,
            last_seen_us: self.last_seen_us,
            age_ms: self.age_ms.saturating_add(since_ms),
            rejected: self.rejected.clone(),
        }
    }

    /// Whether it holds this position or a later one of the same epoch.
    pub fn has(&self, wanted: Position) -> Answer {
        let reaches = |at: &Position| at.epoch == wanted.epoch && at.revision >= wanted.revision;
        match self.position {
            Some(held) if reaches(&held) => {}
            _ => return Answer::Silent,
        }
        if self.dropped.as_ref().is_some_and(reaches) {
            return Answer::Earlier;
        }
        self.acks.iter().find(|(at, _)| reaches(at)).map_or(Answer::Earlier, |(_, at_us)| Answer::At(*at_us))
    }

    /// Whether the register of a flag came by the kill lane.
    pub fn has_kill(&self, flag_key: &str, revision: Revision) -> Answer {
        let found = self.kills.iter().find(|(key, at, _)| key == flag_key && *at >= revision);
        found.map_or(Answer::Silent, |(_, _, at_us)| Answer::At(*at_us))
    }

    /// Answers whether a viewer would see a difference.
    pub(super) fn acked(&mut self, ack: Ack, now_us: Micros) -> bool {
        let Ack { position, applied_at_us, rejected, kills, age_ms, .. } = ack;
        self.last_seen_us = now_us;
        self.age_ms = age_ms;
        self.applied_at_us = applied_at_us;
        let mut changed = self.holds(position, now_us);
        if *self.rejected != *rejected {
            self.rejected = rejected.into();
            changed = true;
        }
        self.note_kills(kills, now_us) || changed
    }

    /// A sidecar repeats them until the log has caught up; the first time counts. What it repeats is kept however much that is, else a
    /// pod that has said so once would be silent again.
    fn note_kills(&mut self, kills: Vec<KillAck>, now_us: Micros) -> bool {
        if kills.is_empty() {
            return false;
        }
        let known: HashSet<_> = self.kills.iter().map(|(key, revision, _)| (key.clone(), *revision)).collect();
        let told: HashSet<_> = kills.into_iter().map(|kill| (kill.flag_key, kill.revision)).collect();
        let mut excess = told.union(&known).count().saturating_sub(KILLS);
        self.kills.retain(|(key, revision, _)| {
            let goes = excess > 0 && !told.contains(&(key.clone(), *revision));
            excess -= usize::from(goes);
            !goes
        });
        let news = told.into_iter().filter(|kill| !known.contains(kill));
        let before = self.kills.len();
        self.kills.extend(news.map(|(key, revision)| (key, revision, now_us)));
        self.kills.len() > before
    }

    pub(super) fn holds(&mut self, position: Position, now_us: Micros) -> bool {
        let before = self.position.replace(position);
        if before == Some(position) {
            return false;
        }
        if before.is_some_and(|before| before.epoch != position.epoch) {
            self.acks.clear();
            self.kills.clear();
            self.dropped = None;
        }
        self.acks.push_back((position, now_us));
        if self.acks.len() > ACKS
            && let Some((dropped, _)) = self.acks.pop_front()
        {
            self.dropped = Some(dropped);
        }
        true
    }
}
