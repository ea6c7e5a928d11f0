//! Memory is given back after something large was read or written.
//!
//! mimalloc gives back what was freed a second ago or earlier, but only when the next large block is freed; and a sidecar at rest frees
//! none. What a state of 10,000 flags was read from would stay for good: several megabytes, in every pod.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// More than the second of the allocator, and than what a blocking thread lives on for, whose memory is free when it ends (`cli/roles.rs`).
const AFTER: Duration = Duration::from_secs(3);
/// More than what the allocator keeps for the thread that freed it. It is never written to, and takes no memory.
const LARGE: usize = 4 * 1024 * 1024;

pub struct Tidy {
    due: Option<Instant>,
}

impl Tidy {
    /// A start reads the state from disk.
    pub fn after_start() -> Self {
        Self { due: Some(Instant::now() + AFTER) }
    }

    /// Something large was read or written just now.
    pub fn put_off(&mut self) {
        self.due = Some(Instant::now() + AFTER);
    }

    /// Gives memory back when it is time to. Never returns when nothing large was read since. May be dropped and called again.
    pub async fn turn(&mut self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
        self.due = None;
        // Not seen to be used, it would not be allocated.
        drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a turn ends without any waiting.
    async fn is_time(tidy: &mut Tidy) -> bool {
        tokio::select! {
            biased;
            () = tidy.turn() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn memory_is_given_back_once_after_the_last_large_read() {
        let mut tidy = Tidy { due: Some(Instant::now()) };
        tidy.put_off();
        assert!(!is_time(&mut tidy).await, "something large was read just now");
        assert!(tidy.due.is_some_and(|due| due > Instant::now()), "a turn that was dropped comes again");
        tidy.due = Some(Instant::now());
        tidy.turn().await;
        assert_eq!(tidy.due, None, "it is done once");
        assert!(!is_time(&mut tidy).await, "nothing large was read since");
    }
}
