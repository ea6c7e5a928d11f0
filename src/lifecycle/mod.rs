//! How a process becomes ready and how it ends: named readiness tokens, and a shutdown in four ordered, bounded phases.

mod names;
mod owner;
mod readiness;
mod signals;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use names::Names;
pub use owner::when_owner_is_gone;
pub use readiness::{Readiness, Token};
pub use signals::shut_down_on_signals;

/// The phases of a shutdown, in their order. A phase begins when the one before it is over: nobody holds it any more, or its budget is
/// spent. Answers come from memory, so they go on while replication still runs, and the disk hears of the last change that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Close the listeners, turn `/readyz` to 503, tell every stream to go away.
    StopAccepting,
    /// Requests in flight are answered, streams end with UNAVAILABLE.
    Drain,
    /// The streams to or from the control plane end.
    StopReplication,
    /// What memory still owes the disk is written.
    Flush,
}

/// The longest that each phase may take.
#[derive(Debug, Clone, Copy)]
pub struct Budgets {
    pub stop_accepting: Duration,
    pub drain: Duration,
    pub stop_replication: Duration,
    pub flush: Duration,
}

/// Asks every part to end, in order. Clones are the same shutdown; [`Shutdown::child`] makes one that ends with this one, or alone.
#[derive(Debug, Clone)]
pub struct Shutdown(Arc<Ending>);

#[derive(Debug)]
struct Ending {
    parent: Option<Shutdown>,
    budgets: Budgets,
    phases: [Stage; 4],
    finished: CancellationToken,
}

#[derive(Debug, Default)]
struct Stage {
    begun: CancellationToken,
    holds: Names,
}

/// While it lives, its phase is not over. Give it to the task whose work the phase waits for.
#[derive(Debug)]
#[must_use = "the phase does not wait for a hold that was dropped"]
pub struct Hold {
    phase: Phase,
    /// One entry in this shutdown and one in each that it is a child of.
    entries: Vec<(Shutdown, u64)>,
}

/// Who still held a phase when its budget was spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdue {
    pub phase: Phase,
    pub held_by: Vec<Cow<'static, str>>,
}

impl Phase {
    pub const ALL: [Self; 4] = [Self::StopAccepting, Self::Drain, Self::StopReplication, Self::Flush];
}

impl Default for Budgets {
    /// 10 s in all, so that Kubernetes' default grace of 30 s is never reached.
    fn default() -> Self {
        Self {
            stop_accepting: Duration::from_secs(1),
            drain: Duration::from_secs(5),
            stop_replication: Duration::from_secs(1),
            flush: Duration::from_secs(3),
        }
    }
}

impl Budgets {
    fn of(&self, phase: Phase) -> Duration {
        match phase {
            Phase::StopAccepting => self.stop_accepting,
            Phase::Drain => self.drain,
            Phase::StopReplication => self.stop_replication,
            Phase::Flush => self.flush,
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    pub fn new() -> Self {
        Self::with_budgets(Budgets::default())
    }

    pub fn with_budgets(budgets: Budgets) -> Self {
        Self(Arc::new(Ending { parent: None, budgets, phases: Default::default(), finished: CancellationToken::new() }))
    }

    /// A shutdown of a part: requested alone it ends that part only; whatever is requested of the parent reaches the child, and the
    /// parent's phases wait for the holds of its children too.
    pub fn child(&self) -> Self {
        let phases = Phase::ALL.map(|phase| Stage { begun: self.stage(phase).begun.child_token(), holds: Names::default() });
        let finished = self.0.finished.child_token();
        Self(Arc::new(Ending { parent: Some(self.clone()), budgets: self.0.budgets, phases, finished }))
    }

    /// Begins the first phase. The later ones begin only while somebody awaits [`Shutdown::complete`].
    pub fn request(&self) {
        self.stage(Phase::StopAccepting).begun.cancel();
    }

    pub fn is_requested(&self) -> bool {
        self.has_begun(Phase::StopAccepting)
    }

    pub async fn requested(&self) {
        self.begun(Phase::StopAccepting).await;
    }

    pub async fn begun(&self, phase: Phase) {
        self.stage(phase).begun.cancelled().await;
    }

    pub fn has_begun(&self, phase: Phase) -> bool {
        self.stage(phase).begun.is_cancelled()
    }

    /// Every phase is over. Whatever runs beyond this point is cut off.
    pub async fn finished(&self) {
        self.0.finished.cancelled().await;
    }

    /// Keeps a phase from being over, for as long as its budget lasts. `holder` names the work in the report of what was overdue.
    pub fn hold(&self, phase: Phase, holder: impl Into<Cow<'static, str>>) -> Hold {
        let holder = holder.into();
        let line = std::iter::successors(Some(self), |shutdown| shutdown.0.parent.as_ref());
        let entries = line.map(|shutdown| (shutdown.clone(), shutdown.stage(phase).holds.open(holder.clone()))).collect();
        Hold { phase, entries }
    }

    /// Waits for the request, then walks through the phases. Answers with what was overdue; empty when all ended in time.
    pub async fn complete(&self) -> Vec<Overdue> {
        self.requested().await;
        let mut overdue = Vec::new();
        for phase in Phase::ALL {
            let stage = self.stage(phase);
            stage.begun.cancel();
            if tokio::time::timeout(self.0.budgets.of(phase), stage.holds.wait()).await.is_err() {
                overdue.push(Overdue { phase, held_by: stage.holds.all() });
            }
        }
        self.0.finished.cancel();
        overdue
    }

    fn stage(&self, phase: Phase) -> &Stage {
        &self.0.phases[phase as usize]
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        for (shutdown, id) in &self.entries {
            shutdown.stage(self.phase).holds.close(*id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_patience() -> Shutdown {
        let none = Duration::ZERO;
        Shutdown::with_budgets(Budgets { stop_accepting: none, drain: none, stop_replication: none, flush: none })
    }

    #[tokio::test]
    async fn phases_begin_in_order_and_each_waits_for_its_holders() {
        let shutdown = Shutdown::new();
        let (said, mut heard) = tokio::sync::mpsc::channel(Phase::ALL.len());
        for phase in Phase::ALL.into_iter().rev() {
            let (shutdown, said, hold) = (shutdown.clone(), said.clone(), shutdown.hold(phase, format!("{phase:?}")));
            tokio::spawn(async move {
                shutdown.begun(phase).await;
                let later: Vec<_> = Phase::ALL.into_iter().filter(|other| *other > phase && shutdown.has_begun(*other)).collect();
                said.try_send((phase, later)).unwrap();
                drop(hold);
            });
        }
        drop(said);
        shutdown.request();
        assert_eq!(shutdown.complete().await, []);
        let mut order = Vec::new();
        while let Some((phase, begun_too_early)) = heard.recv().await {
            assert_eq!(begun_too_early, [], "{phase:?}");
            order.push(phase);
        }
        assert_eq!(order, Phase::ALL);
    }

    #[tokio::test]
    async fn a_holder_that_overruns_is_named_and_stops_nobody() {
        let shutdown = without_patience();
        let _stuck = shutdown.hold(Phase::Drain, "a stalled watcher");
        shutdown.request();
        let overdue = shutdown.complete().await;
        assert_eq!(overdue, [Overdue { phase: Phase::Drain, held_by: vec!["a stalled watcher".into()] }]);
        shutdown.finished().await;
        assert!(shutdown.has_begun(Phase::Flush));
    }

    #[tokio::test]
    async fn nothing_begins_before_the_request() {
        let shutdown = Shutdown::new();
        let completing = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.complete().await }
        });
        tokio::task::yield_now().await;
        assert!(!shutdown.is_requested() && !completing.is_finished());
        shutdown.request();
        assert_eq!(completing.await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_child_ends_alone_or_with_its_parent() {
        let parent = Shutdown::new();
        let (one, other) = (parent.child(), parent.child());
        one.request();
        assert_eq!(one.complete().await, []);
        assert!(!parent.is_requested() && !other.is_requested());
        parent.request();
        other.requested().await;
        assert_eq!(parent.complete().await, []);
        other.finished().await;
    }

    #[tokio::test]
    async fn a_parent_waits_for_the_holders_of_its_children() {
        let parent = without_patience();
        let child = parent.child();
        let hold = child.hold(Phase::Flush, "pod 3: last good state");
        parent.request();
        assert_eq!(parent.complete().await.len(), 1);
        drop(hold);
        assert_eq!(parent.complete().await, []);
    }
}
