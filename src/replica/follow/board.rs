//! What there is to tell the control plane. Only the newest word counts, so that a slow connection makes fewer words, not longer queues;
//! kills that came ahead of the log are told until the log has caught up.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::flag::Kill;
use crate::replica::{Applied, Rejected, Replica};
use crate::wire::replication::{Ack, KILL_ACKS, KillAck, REJECTIONS, Rejection, ResyncCause};

/// In one session; more than these say that the control plane and this sidecar will not agree soon.
const RESYNCS: u32 = 3;

pub struct Board {
    replica: Replica,
    words: Mutex<Words>,
    /// Wakes whoever speaks: the present session, and one that is about to find out that it is over.
    posted: watch::Sender<()>,
    given_up: Notify,
}

/// What one session says.
pub struct Voice {
    board: Arc<Board>,
    session: u64,
    posted: watch::Receiver<()>,
}

#[derive(Default)]
struct Words {
    session: u64,
    ack: Ack,
    /// Something was applied, or the control plane wants a sign of life.
    is_news: bool,
    resync: Option<ResyncCause>,
    /// Asked for in this session.
    resyncs: u32,
    /// Asked for and not come.
    wants_snapshot: bool,
}

/// What to say next.
#[derive(Debug, PartialEq, Eq)]
pub enum Word {
    Ack(Ack),
    Resync(ResyncCause),
}

impl Board {
    pub fn new(replica: Replica) -> Self {
        let position = replica.position();
        let ack = Ack { position, digest: replica.digest(), rejected: rejections(&replica.rejected()), ..Ack::default() };
        let words = Words { ack, ..Words::default() };
        Self { replica, words: Mutex::new(words), posted: watch::Sender::new(()), given_up: Notify::new() }
    }

    /// A new session, which knows nothing yet. The one before it falls silent.
    pub fn session_begins(self: &Arc<Self>) -> Voice {
        let mut words = self.words.lock();
        words.session += 1;
        (words.is_news, words.resync, words.resyncs) = (true, None, 0);
        let session = words.session;
        drop(words);
        self.posted.send_replace(());
        Voice { board: self.clone(), session, posted: self.posted.subscribe() }
    }

    pub fn applied(&self, applied: &Applied) {
        self.edit(|words| {
            words.ack.kills.retain(|kill| kill.revision > applied.position.revision);
            words.wants_snapshot = false;
            words.tell(applied);
        });
    }

    pub fn kill_applied(&self, kill: &Kill, applied: &Applied) {
        let ack = KillAck { flag_key: kill.flag_key.clone(), revision: kill.revision, applied_at_us: applied.applied_at_us };
        self.edit(|words| {
            words.ack.kills.retain(|known| known.flag_key != ack.flag_key);
            // The oldest go first: the log is about to tell of them.
            let excess = (words.ack.kills.len() + 1).saturating_sub(KILL_ACKS);
            words.ack.kills.drain(..excess);
            words.ack.kills.push(ack);
            words.tell(applied);
        });
    }

    /// A sign of life.
    pub fn alive(&self) {
        self.edit(|_| {});
    }

    pub fn resync(&self, cause: ResyncCause) {
        let mut words = self.words.lock();
        words.wants_snapshot = true;
        words.resyncs += 1;
        if words.resyncs > RESYNCS {
            self.given_up.notify_one();
        } else {
            words.resync = Some(cause);
            self.posted.send_replace(());
        }
    }

    pub fn wants_snapshot(&self) -> bool {
        self.words.lock().wants_snapshot
    }

    /// Returns when asking for snapshots has not helped in this session.
    pub async fn given_up(&self) {
        while self.words.lock().resyncs <= RESYNCS {
            self.given_up.notified().await;
        }
    }

    /// Where this sidecar stands.
    pub fn ack(&self) -> Ack {
        let ack = self.words.lock().ack.clone();
        Ack { age_ms: u64::try_from(self.replica.age().as_millis()).unwrap_or(u64::MAX), ..ack }
    }

    fn edit(&self, edit: impl FnOnce(&mut Words)) {
        let mut words = self.words.lock();
        edit(&mut words);
        words.is_news = true;
        self.posted.send_replace(());
    }
}

impl Voice {
    /// The next thing to say, when there is something; `None` when another session has begun.
    pub async fn next(&mut self) -> Option<Word> {
        loop {
            self.posted.mark_unchanged();
            {
                let mut words = self.board.words.lock();
                if words.session != self.session {
                    return None;
                }
                if let Some(cause) = words.resync.take() {
                    return Some(Word::Resync(cause));
                }
                if std::mem::take(&mut words.is_news) {
                    drop(words);
                    return Some(Word::Ack(self.board.ack()));
                }
            }
            self.posted.changed().await.ok()?;
        }
    }
}

impl Words {
    fn tell(&mut self, applied: &Applied) {
        let Applied { position, digest, applied_at_us, rejected } = applied;
        if self.ack.position.epoch != position.epoch {
            self.ack.kills.clear();
        }
        (self.ack.position, self.ack.digest, self.ack.applied_at_us) = (*position, *digest, *applied_at_us);
        self.ack.rejected = rejections(rejected);
    }
}

/// As many as fit into a message.
fn rejections(rejected: &[Rejected]) -> Vec<Rejection> {
    let rejection = |rejected: &Rejected| {
        let Rejected { name, revision, message, held_revision } = rejected.clone();
        Rejection { name, revision, message: crate::wire::replication::message(&message), held_revision }
    };
    rejected.iter().take(REJECTIONS).map(rejection).collect()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::clock::ManualClock;
    use crate::flag::{Digest, Position, Revision};

    fn board() -> Arc<Board> {
        Arc::new(Board::new(Replica::new(Arc::new(ManualClock::at(0))).0))
    }

    fn at(revision: Revision) -> Applied {
        let position = Position { epoch: 1, revision };
        Applied { position, digest: Digest::default(), applied_at_us: revision as i64, rejected: Arc::new([]) }
    }

    fn kill(flag_key: &str, revision: Revision) -> Kill {
        Kill { flag_key: flag_key.into(), revision, killed: true, actor: String::new(), reason: String::new(), at_us: 0 }
    }

    fn said(voice: &mut Voice) -> Option<Word> {
        voice.next().now_or_never().flatten()
    }

    fn ack(voice: &mut Voice) -> Option<Ack> {
        match said(voice)? {
            Word::Ack(ack) => Some(ack),
            Word::Resync(cause) => panic!("{cause:?}"),
        }
    }

    #[test]
    fn only_the_newest_word_is_said() {
        let board = board();
        board.applied(&at(1));
        let mut voice = board.session_begins();
        board.applied(&at(2));
        board.applied(&at(3));
        assert_eq!(ack(&mut voice).map(|ack| ack.position.revision), Some(3));
        assert_eq!(said(&mut voice), None);
    }

    #[test]
    fn a_kill_is_told_to_every_session_until_the_log_has_it() {
        let board = board();
        board.applied(&at(3));
        board.kill_applied(&kill("checkout", 5), &at(3));
        for _ in 0..2 {
            let mut voice = board.session_begins();
            assert_eq!(ack(&mut voice).unwrap().kills[0].revision, 5);
        }
        let mut voice = board.session_begins();
        board.applied(&at(5));
        assert_eq!(ack(&mut voice).unwrap().kills, []);
    }

    #[test]
    fn kills_are_told_once_for_each_flag_and_are_bounded() {
        let board = board();
        let mut voice = board.session_begins();
        for revision in 0..KILL_ACKS as u64 + 5 {
            board.kill_applied(&kill(&format!("flag-{}", revision / 2), revision), &at(0));
            board.kill_applied(&kill(&format!("other-{revision}"), revision), &at(0));
        }
        let kills = ack(&mut voice).unwrap().kills;
        assert_eq!((kills.len(), kills.last().map(|kill| kill.revision)), (KILL_ACKS, Some(KILL_ACKS as u64 + 4)));
    }

    #[test]
    fn a_session_that_is_over_takes_no_word_from_the_new_one() {
        let board = board();
        let mut old = board.session_begins();
        let mut new = board.session_begins();
        board.applied(&at(1));
        assert_eq!(old.next().now_or_never(), Some(None));
        assert!(ack(&mut new).is_some());
    }

    #[test]
    fn a_resync_goes_first_and_after_some_the_session_is_given_up() {
        let board = board();
        let mut voice = board.session_begins();
        for _ in 0..RESYNCS {
            board.applied(&at(1));
            board.resync(ResyncCause::Gap);
            assert_eq!(said(&mut voice), Some(Word::Resync(ResyncCause::Gap)));
            assert!(board.given_up().now_or_never().is_none());
        }
        board.resync(ResyncCause::Gap);
        assert!(board.given_up().now_or_never().is_some());
        assert!(board.wants_snapshot());
        board.session_begins();
        assert!(board.given_up().now_or_never().is_none());
        board.applied(&at(2));
        assert!(!board.wants_snapshot());
    }
}
