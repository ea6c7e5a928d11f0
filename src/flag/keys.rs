//! A set of texts, lean enough for 100,000 targeting keys: one text of all, where each ends, and a table of where to look.

use super::metro::metro64;

/// Up to so many keys a search by halves is as quick as the table.
const NO_TABLE: usize = 8;
/// Longest search in a table. Keys that were chosen to collide get no table and are searched by halves, which nobody can make slow.
const LONGEST_PROBE: usize = 64;

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct KeySet {
    text: Box<str>,
    ends: Box<[u32]>,
    /// Index of a key plus one, 0 where free; as long as a power of two, at most two thirds full. Empty: none.
    table: Box<[u32]>,
}

impl KeySet {
    /// `sorted`, each once; its texts together are shorter than 4 GiB (a document is).
    pub(super) fn of<'k>(sorted: impl IntoIterator<Item = &'k str>) -> Self {
        let mut text = String::new();
        let mut ends = Vec::new();
        for key in sorted {
            text.push_str(key);
            ends.push(text.len() as u32);
        }
        let mut set = Self { text: text.into(), ends: ends.into(), table: Box::default() };
        if set.len() > NO_TABLE {
            set.table = set.table().unwrap_or_default();
        }
        set
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// Its place in the order of the keys.
    pub(super) fn find(&self, key: &str) -> Option<usize> {
        if self.table.is_empty() {
            return self.find_by_halves(key);
        }
        let mask = self.table.len() - 1;
        let mut slot = metro64(key.as_bytes()) as usize & mask;
        loop {
            match self.table[slot] as usize {
                0 => return None,
                found if self.key(found - 1) == key => return Some(found - 1),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|index| self.key(index))
    }

    fn key(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.text[start..self.ends[index] as usize]
    }

    fn find_by_halves(&self, key: &str) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            match self.key(middle).cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn table(&self) -> Option<Box<[u32]>> {
        let mut table = vec![0_u32; (self.len() + self.len() / 2).next_power_of_two()];
        let mask = table.len() - 1;
        for index in 0..self.len() {
            let home = metro64(self.key(index).as_bytes()) as usize;
            let free = (0..LONGEST_PROBE).map(|step| (home + step) & mask).find(|slot| table[*slot] == 0)?;
            table[free] = index as u32 + 1;
        }
        Some(table.into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_set_has_its_keys_and_no_others() {
        for size in [0, 1, 2, 8, 9, 1_000, 100_000] {
            let keys: BTreeSet<String> = (0..size).map(|index| format!("user-{index}")).collect();
            let set = KeySet::of(keys.iter().map(String::as_str));
            assert_eq!(set.len(), size);
            for (index, key) in keys.iter().enumerate().step_by(1 + size / 500) {
                assert_eq!(set.find(key), Some(index));
            }
            for other in ["", "user-", "user-x", "user-1000000"] {
                assert_eq!(set.find(other), None, "{other} in {size}");
            }
        }
    }

    #[test]
    fn a_set_of_a_hundred_thousand_keys_takes_less_than_28_bytes_a_key() {
        let keys: BTreeSet<String> = (0..100_000).map(|index| format!("user-{index:06}")).collect();
        let set = KeySet::of(keys.iter().map(String::as_str));
        let bytes = set.text.len() + 4 * (set.ends.len() + set.table.len());
        assert!(bytes < 28 * 100_000, "{bytes} bytes");
    }

    #[test]
    fn without_a_table_the_answers_are_the_same() {
        let keys: BTreeSet<String> = (0..1_000).map(|index| format!("user-{index}")).collect();
        let mut set = KeySet::of(keys.iter().map(String::as_str));
        set.table = Box::default();
        assert!((0..1_000).all(|index| set.contains(&format!("user-{index}"))));
        assert!(!set.contains("user-1000"));
    }
}
