//! The one task that changes the replica. Streams and polls hand it what they hear; kills are taken first.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use crate::clock::Micros;
use crate::flag::{Delta, Digest, Kill, Position, State};
use crate::replica::disk::{Generation, Guard, SURVIVED_AFTER, Suspect};
use crate::replica::{Applied, Resync, Writer};
use crate::wire::replication::ResyncCause;
use crate::wire::trip::Trip;

use super::Inheritance;
use super::board::Board;
use super::metrics::{Lane, Metrics, count};
use super::saver::{Saver, Turn};
use super::tidy::Tidy;

/// Flags that are compiled between two looks at the kill lane: half a millisecond.
const VETTED_AT_ONCE: usize = 64;

/// What the log says, from a stream or a poll.
#[derive(Debug)]
pub enum FromLog {
    /// A stream begins, of a control plane that is here: what is missing comes next.
    Begin {
        head: Position,
    },
    /// The stream ended.
    End,
    /// The answer to a poll that was asked for when this was held.
    Polled {
        held: Position,
        answer: Box<FromLog>,
    },
    /// The control plane compared what is held here with its own: it is the same.
    UpToDate(Position),
    Snapshot(State),
    /// A snapshot came that is none.
    Corrupt,
    Delta(Delta),
    Head(Position, Digest),
    /// Sidecars of the environment.
    Pods(u32),
}

/// A register from the kill lane.
#[derive(Debug)]
pub struct FromLane {
    pub epoch: u64,
    pub kill: Kill,
}

/// What the guards of this sidecar say.
#[derive(Debug)]
pub enum FromGuards {
    /// One fired while the control plane was out of reach.
    Trip(Trip),
    /// The control plane said that it is obsolete.
    Lift(Trip),
}

pub struct Owner {
    writer: Writer,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    saver: Saver,
    tidy: Tidy,
    guard: Option<Guard>,
    /// Refused until each of its definitions has been replaced.
    suspect: Option<Suspect>,
    /// Between a begin and an end. What a poll was answered meanwhile is old news, and says nothing to the stream.
    has_stream: bool,
    /// A snapshot was asked for: nothing else fits.
    awaits_snapshot: bool,
    /// The control plane knows less than is held, as after its store was replaced by an older copy: its snapshot counts all the same.
    went_back: bool,
    /// When everything that was applied has been lived with for long enough.
    survived_at: Option<Instant>,
}

impl Owner {
    pub fn new(writer: Writer, board: Arc<Board>, metrics: Arc<Metrics>, saver: Saver, guard: Option<Guard>) -> Self {
        let suspect = guard.as_ref().and_then(|guard| guard.refused().cloned());
        // What was loaded from disk may be what the process before this one did not survive.
        let survived_at = guard.as_ref().map(|_| Instant::now() + SURVIVED_AFTER);
        let tidy = Tidy::after_start();
        let (has_stream, awaits_snapshot, went_back) = (false, false, false);
        Self { writer, board, metrics, saver, tidy, guard, suspect, has_stream, awaits_snapshot, went_back, survived_at }
    }

    /// Runs until both ends are closed, then writes the state for the last time. What was loaded from disk is looked through in between:
    /// kills come first, everything else waits for it.
    pub async fn run(
        mut self,
        mut kills: mpsc::Receiver<FromLane>,
        mut guards: mpsc::Receiver<FromGuards>,
        mut log: mpsc::Receiver<FromLog>,
        inherited: oneshot::Receiver<Inheritance>,
    ) {
        let (mut kills_open, mut log_open, mut may_inherit) = (true, true, true);
        let mut inherited = std::pin::pin!(inherited);
        while kills_open || log_open {
            let aged = self.writer.age_is_told_in();
            if aged == Some(Duration::ZERO) {
                self.writer.tell_of_age();
                continue;
            }
            tokio::select! {
                biased;
                kill = kills.recv(), if kills_open => match kill {
                    Some(FromLane { epoch, kill }) => self.kill(epoch, kill),
                    None => kills_open = false,
                },
                () = sleep(aged.unwrap_or_default()), if aged.is_some() => {}
                () = std::future::ready(()), if !self.writer.is_vetted() => self.vet().await,
                Some(said) = guards.recv() => self.guard(said),
                found = inherited.as_mut(), if may_inherit => {
                    may_inherit = false;
                    if let Ok(inheritance) = found {
                        self.inherit(inheritance);
                    }
                }
                said = log.recv(), if log_open => match said {
                    Some(said) => self.hear(said),
                    None => log_open = false,
                },
                turn = self.saver.turn() => match turn {
                    Turn::Due => self.save(),
                    Turn::Written(written) => {
                        self.saver.written(written);
                        self.tidy.put_off();
                    }
                },
                () = self.tidy.turn() => {}
                () = sleep_until(self.survived_at.unwrap_or_else(Instant::now)), if self.survived_at.is_some() => self.survived(),
            }
        }
        if may_inherit && let Ok(inheritance) = inherited.await {
            self.inherit(inheritance);
        }
        self.survived();
        if self.writer.replica().is_usable() {
            let (saved, fresh_us, keep_other) = (self.writer.saved(), self.writer.replica().fresh_us(), self.suspect.is_some());
            self.saver.finish(saved, fresh_us, keep_other).await;
        }
    }

    async fn vet(&mut self) {
        if let Some(applied) = self.writer.vet(VETTED_AT_ONCE) {
            self.board.applied(&applied);
        }
        self.tidy.put_off();
        // Nothing else here takes as long without waiting for anybody.
        tokio::task::yield_now().await;
    }

    fn hear(&mut self, said: FromLog) {
        match said {
            FromLog::Begin { head } => {
                (self.has_stream, self.awaits_snapshot) = (true, false);
                self.went_back = is_before(head, self.writer.position());
            }
            FromLog::End => self.has_stream = false,
            FromLog::Polled { .. } if self.has_stream => {}
            FromLog::Polled { held, answer } => {
                self.went_back = matches!(&*answer, FromLog::Snapshot(state) if is_before(state.position, held));
                self.hear(*answer);
            }
            FromLog::Snapshot(state) => self.snapshot(state),
            FromLog::Corrupt => {
                count(&self.metrics.refused);
                self.ask_for_snapshot(ResyncCause::Corrupt);
            }
            // The snapshot that was asked for brings all that these would.
            FromLog::UpToDate(_) | FromLog::Delta(_) | FromLog::Head(..) if self.awaits_snapshot => {}
            FromLog::Pods(pods) => self.writer.pods_are(pods),
            FromLog::Delta(delta) => self.delta(delta),
            FromLog::UpToDate(head) => self.confirm(head, self.writer.digest()),
            FromLog::Head(head, digest) => self.confirm(head, digest),
        }
    }

    fn kill(&mut self, epoch: u64, kill: Kill) {
        let Some(applied) = self.writer.apply_kill(epoch, kill.clone()) else { return };
        count(&self.metrics.kills);
        self.propagated(Lane::Urgent, kill.at_us, &applied);
        self.board.kill_applied(&kill, &applied);
        self.saver.changed(true);
    }

    /// The data directory of a process that has ended. What that one wrote after it was looked at here is served too, unless this one has gone
    /// further: a kill or a trip that came when nobody could be heard any more must not be written over.
    fn inherit(&mut self, Inheritance { disk, guard, last }: Inheritance) {
        let held = self.writer.position();
        let is_news = |saved: &crate::replica::Saved| {
            let Position { epoch, revision } = saved.state.position;
            !self.writer.replica().is_usable() || epoch == held.epoch && revision >= held.revision
        };
        if let Some(Generation { saved, fresh_us, .. }) = last.filter(|last| is_news(&last.saved)) {
            let fresh_us = fresh_us.max(self.writer.replica().fresh_us());
            if let Err(reason) = self.writer.load(saved, fresh_us) {
                tracing::error!(%reason, "what the sidecar before this one wrote last does not fit together and is not served");
            }
        }
        self.saver.inherit(disk);
        self.guard = Some(guard);
        self.survived_at = Some(Instant::now() + SURVIVED_AFTER);
        if self.writer.replica().is_usable() {
            self.saver.changed(true);
        }
    }

    fn guard(&mut self, said: FromGuards) {
        let applied = match &said {
            // Whoever hears the control plane leaves it to decide.
            FromGuards::Trip(_) if self.has_stream => None,
            FromGuards::Trip(trip) => self.writer.trip(trip.clone()),
            FromGuards::Lift(trip) => self.writer.lift(trip),
        };
        if applied.is_none() {
            return;
        }
        self.saver.changed(true);
        match said {
            FromGuards::Trip(Trip { flag, revision, fired, .. }) => {
                count(&self.metrics.trips);
                tracing::warn!(flag, revision, reason = %fired, "the control plane is out of reach and a guard fired: the flag is killed in this pod");
            }
            FromGuards::Lift(Trip { flag, .. }) => tracing::info!(flag, "a local trip is obsolete: the flag is not killed any more"),
        }
    }

    fn snapshot(&mut self, state: State) {
        let is_wanted = std::mem::take(&mut self.went_back) || self.awaits_snapshot;
        if is_before(state.position, self.writer.position()) && !is_wanted {
            // It was encoded before what has come another way since, maybe before a kill.
            self.board.alive();
            return;
        }
        self.about_to_apply(state.position);
        match self.writer.apply_snapshot(state) {
            Ok(applied) => {
                count(&self.metrics.snapshots);
                self.tidy.put_off();
                self.awaits_snapshot = false;
                self.applied(&applied, true);
            }
            Err(resync) => self.misfit(&resync),
        }
    }

    fn delta(&mut self, mut delta: Delta) {
        let held = self.writer.position();
        if delta.epoch == held.epoch {
            if delta.revision <= held.revision {
                // A poll was faster than the stream.
                return;
            }
            // It holds the latest state of all that changed since before what is held: it fits from here just as well.
            delta.prev_revision = delta.prev_revision.max(held.revision);
        }
        self.about_to_apply(Position { epoch: delta.epoch, revision: delta.revision });
        let (has_kills, origin_time_us) = (!delta.kills.is_empty(), delta.origin_time_us);
        match self.writer.apply_delta(delta) {
            Ok(applied) => {
                count(&self.metrics.deltas);
                self.propagated(Lane::Log, origin_time_us, &applied);
                self.applied(&applied, has_kills);
            }
            Err(resync) => self.misfit(&resync),
        }
    }

    fn confirm(&mut self, head: Position, digest: Digest) {
        match self.writer.confirm_fresh(head, digest) {
            Ok(()) => self.board.alive(),
            Err(resync) => self.misfit(&resync),
        }
    }

    fn applied(&mut self, applied: &Applied, at_once: bool) {
        self.board.applied(applied);
        self.forgive(applied);
        self.saver.changed(at_once);
    }

    fn forgive(&mut self, applied: &Applied) {
        let Some(suspect) = &self.suspect else { return };
        let is_left = |revision| suspect.revisions().contains(&revision);
        let Position { epoch, revision } = applied.position;
        if epoch == suspect.epoch && (revision < suspect.to || applied.rejected.iter().any(|rejected| is_left(rejected.revision))) {
            return;
        }
        tracing::info!(position = %applied.position, "the changes that no process survived are replaced: nothing is refused any more");
        self.suspect = None;
        self.writer.refuse_nothing();
        if let Some(guard) = &mut self.guard
            && let Err(error) = guard.forgive()
        {
            tracing::warn!(%error, "cannot note that nothing is refused any more");
        }
    }

    fn propagated(&self, lane: Lane, origin_time_us: Micros, applied: &Applied) {
        let took_us = applied.applied_at_us.saturating_sub(origin_time_us).max(0) as u64;
        self.metrics.propagation(lane).record(Duration::from_micros(took_us));
    }

    fn misfit(&mut self, resync: &Resync) {
        let (counter, cause): (&AtomicU64, _) = match resync {
            Resync::Gap { .. } | Resync::Behind { .. } => (&self.metrics.gaps, ResyncCause::Gap),
            Resync::DigestMismatch { .. } => (&self.metrics.digest_mismatches, ResyncCause::DigestMismatch),
            Resync::Epoch { .. } => (&self.metrics.epoch_changes, ResyncCause::Epoch),
            Resync::TooLarge { .. } => (&self.metrics.refused, ResyncCause::Corrupt),
        };
        count(counter);
        let position = self.writer.position();
        tracing::warn!(%position, reason = %resync, "what the control plane sent does not fit: asking for a snapshot, serving what is held");
        self.ask_for_snapshot(cause);
    }

    fn ask_for_snapshot(&mut self, cause: ResyncCause) {
        self.awaits_snapshot = true;
        self.board.resync(cause);
    }

    fn about_to_apply(&mut self, next: Position) {
        let Some(guard) = &mut self.guard else { return };
        if let Err(error) = guard.applying(self.writer.position(), next) {
            tracing::warn!(%error, "cannot note which revision is being applied: should it end the process, nobody will know");
        }
        self.survived_at = Some(Instant::now() + SURVIVED_AFTER);
    }

    fn survived(&mut self) {
        self.survived_at = None;
        if let Some(guard) = &mut self.guard
            && let Err(error) = guard.survived()
        {
            tracing::warn!(%error, "cannot note that the newest revision was survived");
        }
    }

    fn save(&mut self) {
        let fresh_us = self.writer.replica().fresh_us();
        self.saver.start(self.writer.saved(), fresh_us, self.suspect.is_some());
    }
}

/// Of the same history, and earlier in it.
fn is_before(position: Position, held: Position) -> bool {
    position.epoch == held.epoch && position.revision < held.revision
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::clock::ManualClock;
    use crate::flag::{Item, ItemName, Revision};
    use crate::replica::Replica;

    fn owner() -> Owner {
        let (replica, writer) = Replica::new(Arc::new(ManualClock::at(0)));
        let metrics: Arc<Metrics> = Arc::default();
        Owner::new(writer, Arc::new(Board::new(replica)), metrics.clone(), Saver::new(None, metrics), None)
    }

    fn at(revision: Revision) -> Position {
        Position { epoch: 1, revision }
    }

    fn begin(revision: Revision) -> FromLog {
        FromLog::Begin { head: at(revision) }
    }

    fn snapshot(revision: Revision) -> FromLog {
        FromLog::Snapshot(State { position: at(revision), ..State::default() })
    }

    fn polled(held: Revision, answer: FromLog) -> FromLog {
        FromLog::Polled { held: at(held), answer: Box::new(answer) }
    }

    fn after(heard: Vec<FromLog>) -> Owner {
        let mut owner = owner();
        heard.into_iter().for_each(|said| owner.hear(said));
        owner
    }

    #[test]
    fn what_a_poll_was_answered_is_dropped_once_a_stream_has_begun() {
        let heard = || vec![polled(0, snapshot(8)), begin(10), snapshot(10), polled(8, snapshot(9)), polled(8, snapshot(11))];
        assert_eq!(after(heard()).writer.position(), at(10));
        let mut again = heard();
        again.extend([FromLog::End, polled(10, snapshot(11))]);
        assert_eq!(after(again).writer.position(), at(11));
    }

    #[test]
    fn a_poll_does_not_end_the_wait_of_a_stream_for_its_snapshot() {
        let owner = after(vec![begin(3), FromLog::Corrupt, polled(0, FromLog::Head(at(0), Digest::default()))]);
        assert!(owner.awaits_snapshot);
    }

    fn holding_a() -> FromLog {
        let definition = bytes::Bytes::from_static(br#"{"defaultVariant":"on","variants":{"off":false,"on":true}}"#);
        let items = vec![Item { name: ItemName::flag("a"), revision: 2, definition }];
        FromLog::Snapshot(State { position: at(3), digest: Digest::of(&items, []), items, ..State::default() })
    }

    #[test]
    fn a_connected_sidecar_never_trips_and_one_that_is_not_does() {
        let trip = || FromGuards::Trip(Trip::sample("a", Position::default(), 2));
        let mut owner = after(vec![begin(3), holding_a()]);
        owner.guard(trip());
        assert_eq!((owner.writer.replica().tripped(), owner.metrics.trips.load(Relaxed)), (0, 0));
        owner.hear(FromLog::End);
        owner.guard(trip());
        owner.guard(trip());
        assert_eq!((owner.writer.replica().tripped(), owner.metrics.trips.load(Relaxed)), (1, 1), "once is enough");
        let tripped = owner.writer.replica().trips().remove(0);
        owner.guard(FromGuards::Lift(tripped));
        assert_eq!(owner.writer.replica().tripped(), 0);
    }

    #[test]
    fn a_snapshot_from_before_what_is_held_is_taken_only_when_asked_for_or_when_the_control_plane_went_back() {
        let held = || vec![begin(10), snapshot(10)];
        let then = |more: Vec<FromLog>| after(held().into_iter().chain(more).collect()).writer.position().revision;
        assert_eq!(then(vec![snapshot(9)]), 10);
        assert_eq!(then(vec![FromLog::Corrupt, snapshot(9)]), 9);
        assert_eq!(then(vec![FromLog::End, begin(9), snapshot(9)]), 9);
        assert_eq!(then(vec![FromLog::End, begin(10), snapshot(9)]), 10);
        assert_eq!(then(vec![FromLog::End, polled(8, snapshot(9))]), 10, "asked for before the stream brought the rest");
        assert_eq!(then(vec![FromLog::End, polled(10, snapshot(9))]), 9);
    }
}
