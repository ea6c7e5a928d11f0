//! What was seen before, in bounded memory: two generations, of which the older one is forgotten when the newer one is full.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// In one generation: what a table of 131,072 places takes before it grows. Two generations are 4.5 MB.
pub const MOST_SEEN: usize = 114_688;

/// When something was last marked, by a hash of it that nobody outside can choose.
#[derive(Debug, Default)]
pub struct Seen {
    new: HashMap<u64, i64, BuildHasherDefault<AsItIs>>,
    old: HashMap<u64, i64, BuildHasherDefault<AsItIs>>,
    most: Option<usize>,
}

impl Seen {
    pub fn with_most(most: usize) -> Self {
        Self { most: Some(most), ..Self::default() }
    }

    /// Whether it was marked within `window_us`.
    pub fn has(&mut self, hash: u64, now_us: i64, window_us: i64) -> bool {
        let marked_us = self.new.get(&hash).or_else(|| self.old.get(&hash)).copied();
        let has = marked_us.is_some_and(|marked_us| now_us.saturating_sub(marked_us) < window_us);
        // So that what is asked for all the time is not forgotten with its generation.
        if has && let Some(marked_us) = self.old.remove(&hash) {
            self.mark(hash, marked_us);
        }
        has
    }

    pub fn mark(&mut self, hash: u64, at_us: i64) {
        if self.new.len() >= self.most.unwrap_or(MOST_SEEN) && !self.new.contains_key(&hash) {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(hash, at_us);
    }

    pub fn len(&self) -> usize {
        self.new.len() + self.old.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What comes in is a hash already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Marks it when it was not there.
    fn is_new(seen: &mut Seen, hash: u64, now_us: i64, window_us: i64) -> bool {
        let is_new = !seen.has(hash, now_us, window_us);
        if is_new {
            seen.mark(hash, now_us);
        }
        is_new
    }

    #[test]
    fn it_is_new_once_in_a_window() {
        let mut seen = Seen::default();
        let answers = [0, 5, 9, 10, 11, 20].map(|now| is_new(&mut seen, 1, now, 10));
        assert_eq!(answers, [true, false, false, true, false, true]);
        assert!(is_new(&mut seen, 2, 20, 10));
    }

    #[test]
    fn a_clock_that_goes_back_makes_nothing_new() {
        let mut seen = Seen::default();
        assert!(is_new(&mut seen, 1, 100, 10));
        assert!(!is_new(&mut seen, 1, 50, 10));
    }

    #[test]
    fn memory_is_bounded_and_what_is_asked_for_all_the_time_is_remembered() {
        let mut seen = Seen::with_most(100);
        assert!(is_new(&mut seen, u64::MAX, 0, i64::MAX));
        for hash in 0..10_000 {
            assert!(is_new(&mut seen, hash, 1, i64::MAX));
            assert!(!is_new(&mut seen, u64::MAX, 1, i64::MAX), "forgotten after {hash}");
            assert!(seen.len() <= 200);
        }
        assert!(is_new(&mut seen, 0, 1, i64::MAX), "the oldest is forgotten");
    }

    #[test]
    fn a_full_table_takes_no_more_memory_than_is_said() {
        let mut seen = Seen::default();
        let held = allocation_counter::measure(|| (0..3 * MOST_SEEN as u64).for_each(|hash| assert!(is_new(&mut seen, hash, 1, i64::MAX))));
        assert_eq!(seen.len(), 2 * MOST_SEEN);
        assert!(held.bytes_current <= 2 * 2_250_000, "{} bytes", held.bytes_current);
    }
}
