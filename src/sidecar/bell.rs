//! Wakes the watchers of one thread.
//!
//! A change wakes one task in each thread, and that task wakes the watchers there: a wake-up from another thread costs a lock and a
//! queue, one at home is a push. It wakes them in groups and lets the connections write in between, so that the first watcher does not
//! wait for the last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

/// Watchers between two turns of everybody else. Larger groups share more writes, smaller ones bring the first watcher forward.
const GROUP: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Bell {
    seats: Mutex<Seats>,
    rung: AtomicU64,
}

#[derive(Debug, Default)]
struct Seats {
    /// By number of the seat; `None` is free, or not waiting.
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// A watcher's place. It must be used on the thread of its bell only.
#[derive(Debug)]
pub(super) struct Seat {
    bell: Arc<Bell>,
    number: usize,
}

impl Bell {
    pub(super) fn seat(self: &Arc<Self>) -> Seat {
        let mut seats = self.seats.lock();
        let number = seats.free.pop().unwrap_or_else(|| {
            seats.wakers.push(None);
            seats.wakers.len() - 1
        });
        Seat { bell: Arc::clone(self), number }
    }

    /// How often it was rung. Whoever has seen this number has seen what it was rung for.
    pub(super) fn rung(&self) -> u64 {
        self.rung.load(Ordering::Relaxed)
    }

    pub(super) async fn ring(&self) {
        self.rung.fetch_add(1, Ordering::Relaxed);
        let mut next = 0;
        while let Some(group) = self.take_group(next) {
            group.into_iter().for_each(Waker::wake);
            next += GROUP;
            tokio::task::yield_now().await;
        }
    }

    fn take_group(&self, from: usize) -> Option<Vec<Waker>> {
        let mut seats = self.seats.lock();
        let until = seats.wakers.len().min(from + GROUP);
        let group = seats.wakers.get_mut(from..until).filter(|group| !group.is_empty())?;
        Some(group.iter_mut().filter_map(Option::take).collect())
    }
}

impl Seat {
    /// To be called before the watcher looks whether there is something new: what comes after the look rings.
    pub(super) fn wait(&self, waker: &Waker) {
        let waiting = &mut self.bell.seats.lock().wakers[self.number];
        if !waiting.as_ref().is_some_and(|held| held.will_wake(waker)) {
            *waiting = Some(waker.clone());
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.bell.seats.lock();
        seats.wakers[self.number] = None;
        seats.free.push(self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn everybody_who_waits_is_woken_once() {
        let bell = Arc::new(Bell::default());
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let seats: Vec<_> = (0..3 * GROUP + 1).map(|_| bell.seat()).collect();
        seats.iter().for_each(|seat| seat.wait(&waker));
        bell.ring().await;
        bell.ring().await;
        assert_eq!(count.0.load(Ordering::Relaxed), seats.len());
    }

    #[tokio::test]
    async fn a_seat_that_was_left_is_used_again_and_rings_for_its_new_owner_only() {
        let bell = Arc::new(Bell::default());
        let (gone, here) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let seat = bell.seat();
        seat.wait(&Waker::from(Arc::clone(&gone)));
        drop(seat);
        let seat = bell.seat();
        seat.wait(&Waker::from(Arc::clone(&here)));
        bell.ring().await;
        assert_eq!((gone.0.load(Ordering::Relaxed), here.0.load(Ordering::Relaxed)), (0, 1));
        assert_eq!(bell.seats.lock().wakers.len(), 1);
    }
}
