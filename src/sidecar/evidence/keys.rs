//! What was seen lately, in bounded room: two generations, of which the older one is forgotten when the younger one is full. What is used
//! stays.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Of keys that are hashes already.
#[derive(Debug, Default)]
pub(super) struct Mixed(u64);

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

type Map<K, V> = HashMap<K, V, BuildHasherDefault<Mixed>>;

/// At most `limit` values; those that were not asked for since longest go first.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    young: Map<K, V>,
    old: Map<K, V>,
    half: usize,
}

impl<K: Eq + Hash + Copy, V> Recent<K, V> {
    pub(super) fn new(limit: usize) -> Self {
        Self { young: Map::default(), old: Map::default(), half: (limit / 2).max(1) }
    }

    /// What falls out of memory is given to `leaves`.
    pub(super) fn get(&mut self, key: K, leaves: &mut impl FnMut(K, V)) -> Option<&mut V> {
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key)?;
            self.make_room(leaves);
            self.young.insert(key, value);
        }
        self.young.get_mut(&key)
    }

    /// Without counting as a use.
    pub(super) fn peek(&mut self, key: K) -> Option<&mut V> {
        self.young.get_mut(&key).or_else(|| self.old.get_mut(&key))
    }

    pub(super) fn insert(&mut self, key: K, value: V, leaves: &mut impl FnMut(K, V)) {
        self.old.remove(&key);
        if !self.young.contains_key(&key) {
            self.make_room(leaves);
        }
        self.young.insert(key, value);
    }

    fn make_room(&mut self, leaves: &mut impl FnMut(K, V)) {
        if self.young.len() >= self.half {
            let oldest = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            oldest.into_iter().for_each(|(key, value)| leaves(key, value));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Of the tables; what the values own beside them is not in it.
    pub(super) fn bytes(&self) -> usize {
        (self.young.capacity() + self.old.capacity()) * (size_of::<(K, V)>() + 1)
    }
}

/// Hashes of idempotency keys.
#[derive(Debug)]
pub(super) struct Keys {
    young: HashSet<u64, BuildHasherDefault<Mixed>>,
    old: HashSet<u64, BuildHasherDefault<Mixed>>,
    half: usize,
}

impl Keys {
    pub(super) fn new(limit: usize) -> Self {
        Self { young: HashSet::default(), old: HashSet::default(), half: (limit / 2).max(1) }
    }

    pub(super) fn has(&self, key: u64) -> bool {
        self.young.contains(&key) || self.old.contains(&key)
    }

    pub(super) fn insert(&mut self, key: u64) {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key);
    }

    pub(super) fn bytes(&self) -> usize {
        (self.young.capacity() + self.old.capacity()) * (size_of::<u64>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_units_leave_no_more_than_the_limit_and_each_that_goes_is_told() {
        let mut recent = Recent::new(1_000);
        let mut left = 0;
        for number in 0..1_000_000_u64 {
            recent.insert(number, number, &mut |_, _| left += 1);
            assert!(recent.len() <= 1_000);
        }
        assert_eq!(left + recent.len(), 1_000_000);
        assert!(recent.bytes() < 1_000 * 2 * 2 * 24, "{} bytes", recent.bytes());
    }

    #[test]
    fn what_is_used_stays() {
        let mut recent = Recent::new(10);
        recent.insert(0, "kept", &mut |_, _| {});
        for number in 1..1_000_u64 {
            recent.insert(number, "", &mut |_, _| {});
            assert_eq!(recent.get(0, &mut |_, _| {}), Some(&mut "kept"), "after {number}");
        }
        assert!(recent.peek(500).is_none());
    }

    #[test]
    fn a_key_is_remembered_for_as_long_as_there_is_room() {
        let mut keys = Keys::new(1_000);
        (0..1_000_000).for_each(|key| keys.insert(key));
        assert!(keys.has(999_999) && keys.has(999_600) && !keys.has(990_000));
        assert!(keys.bytes() < 1_000 * 2 * 2 * 9, "{} bytes", keys.bytes());
    }
}
