//! Whose turn it is to write: one at a time, in the order of arrival, and a kill ahead of everybody who waits.
//!
//! A fair mutex would do for the order, but a kill would then stand behind every apply that came before it.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    is_taken: bool,
    urgent: VecDeque<oneshot::Sender<Turn>>,
    others: VecDeque<oneshot::Sender<Turn>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    Urgent,
    Normal,
}

/// Holds everybody else back while it lives.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    /// False once somebody else has been let in by it.
    is_held: bool,
}

impl Turns {
    pub(super) async fn take(self: &Arc<Self>, urgency: Urgency) -> Turn {
        loop {
            let waiting = {
                let mut queue = self.0.lock();
                if !queue.is_taken {
                    queue.is_taken = true;
                    return Turn { turns: Arc::clone(self), is_held: true };
                }
                let (sender, waiting) = oneshot::channel();
                match urgency {
                    Urgency::Urgent => queue.urgent.push_back(sender),
                    Urgency::Normal => queue.others.push_back(sender),
                }
                waiting
            };
            // A sender is dropped only with a turn inside; should that ever change, queue again rather than fail.
            if let Ok(turn) = waiting.await {
                return turn;
            }
        }
    }

    pub(super) fn waiting(&self) -> usize {
        let queue = self.0.lock();
        queue.urgent.len() + queue.others.len()
    }

    fn pass_on(self: &Arc<Self>) {
        loop {
            let next = {
                let mut queue = self.0.lock();
                let next = queue.urgent.pop_front().or_else(|| queue.others.pop_front());
                queue.is_taken = next.is_some();
                next
            };
            let Some(next) = next else { return };
            match next.send(Turn { turns: Arc::clone(self), is_held: true }) {
                Ok(()) => return,
                // That one has given up waiting.
                Err(mut turn) => turn.is_held = false,
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_held {
            self.turns.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Queues up in this order behind a turn that is held, and says who came when.
    async fn order_of(queue: &[(&'static str, Urgency)]) -> Vec<&'static str> {
        let turns = Arc::new(Turns::default());
        let held = turns.take(Urgency::Normal).await;
        let came = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (waiting, (name, urgency)) in queue.iter().enumerate() {
            let (turns, came, name, urgency) = (Arc::clone(&turns), Arc::clone(&came), *name, *urgency);
            tasks.push(tokio::spawn({
                let turns = Arc::clone(&turns);
                async move {
                    let _turn = turns.take(urgency).await;
                    came.lock().push(name);
                }
            }));
            while turns.waiting() <= waiting {
                tokio::task::yield_now().await;
            }
        }
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        came.lock().clone()
    }

    #[tokio::test]
    async fn turns_are_given_in_the_order_of_arrival() {
        use Urgency::Normal;
        assert_eq!(order_of(&[("a", Normal), ("b", Normal), ("c", Normal)]).await, ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn a_kill_goes_ahead_of_everybody_who_waits() {
        use Urgency::{Normal, Urgent};
        let queue = [("apply 1", Normal), ("apply 2", Normal), ("kill 1", Urgent), ("kill 2", Urgent)];
        assert_eq!(order_of(&queue).await, ["kill 1", "kill 2", "apply 1", "apply 2"]);
    }

    #[tokio::test]
    async fn who_gave_up_waiting_holds_nobody_back() {
        let turns = Arc::new(Turns::default());
        let held = turns.take(Urgency::Normal).await;
        for _ in 0..3 {
            let gone = tokio::spawn({
                let turns = Arc::clone(&turns);
                async move { drop(turns.take(Urgency::Normal).await) }
            });
            while turns.waiting() == 0 {
                tokio::task::yield_now().await;
            }
            gone.abort();
            assert!(gone.await.unwrap_err().is_cancelled());
        }
        drop(held);
        drop(turns.take(Urgency::Normal).await);
        assert!(!turns.0.lock().is_taken);
    }
}
