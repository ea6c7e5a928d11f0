//! Who may send a snapshot now. A reader that does not read must not keep the place from one that would: a place without progress can be
//! taken over, and whoever lost it waits for another. Time is an argument.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// A sender that sent nothing for this long may be taken over.
pub const STALLED_AFTER: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Slots {
    limit: usize,
    /// Session -> when it last sent something.
    senders: HashMap<u64, Instant>,
}

impl Slots {
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), senders: HashMap::new() }
    }

    /// Takes a place or keeps the one that the session has; false when there is none for it.
    pub fn take(&mut self, session: u64, now: Instant) -> bool {
        if !self.senders.contains_key(&session) && self.senders.len() >= self.limit {
            let stalled = self.senders.iter().min_by_key(|(_, sent)| **sent).map(|(session, sent)| (*session, *sent));
            match stalled {
                Some((session, sent)) if now.duration_since(sent) >= STALLED_AFTER => self.senders.remove(&session),
                _ => return false,
            };
        }
        self.senders.insert(session, now);
        true
    }

    pub fn release(&mut self, session: u64) {
        self.senders.remove(&session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_send_at_a_time() {
        let (mut slots, now) = (Slots::new(2), Instant::now());
        assert!(slots.take(1, now) && slots.take(2, now));
        assert!(!slots.take(3, now));
        assert!(slots.take(1, now), "who has a place keeps it");
        slots.release(2);
        assert!(slots.take(3, now));
    }

    #[test]
    fn a_stalled_sender_loses_its_place_and_a_slow_one_keeps_it() {
        let (mut slots, start) = (Slots::new(2), Instant::now());
        let later = start + STALLED_AFTER;
        assert!(slots.take(1, start) && slots.take(2, start));
        assert!(slots.take(1, later - Duration::from_millis(1)));
        assert!(slots.take(3, later), "2 sent nothing");
        assert!(!slots.take(2, later), "and has to wait now");
        assert!(!slots.take(4, later), "1 was slow, not stalled");
    }
}
