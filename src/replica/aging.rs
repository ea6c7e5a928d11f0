//! Flags that serve something else when the state is too old for them. Nothing comes from the control plane when that happens, which is the
//! point of it, so the writer watches the clock, and tells readers of each flag when it crosses its limit and when it is back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Micros;

use super::changes::LISTED_AT_ONCE;
use super::news;
use super::writer::Writer;

/// By limit: all flags with the same one cross it together, and there are few limits.
#[derive(Debug, Default)]
pub(super) struct Aging {
    by_limit_ms: BTreeMap<u64, HashSet<Arc<str>>>,
    limits_ms: HashMap<Arc<str>, u64>,
    /// Readers know the answers of a state of this age.
    told_ms: u64,
}

impl Aging {
    pub(super) fn note(&mut self, key: &Arc<str>, limit_ms: Option<u64>) {
        self.forget(key);
        if let Some(limit_ms) = limit_ms {
            self.by_limit_ms.entry(limit_ms).or_default().insert(key.clone());
            self.limits_ms.insert(key.clone(), limit_ms);
        }
    }

    pub(super) fn forget(&mut self, key: &str) {
        let Some(limit_ms) = self.limits_ms.remove(key) else { return };
        if let Some(keys) = self.by_limit_ms.get_mut(&limit_ms) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_limit_ms.remove(&limit_ms);
            }
        }
    }

    /// How long until somebody has to be told; `None`: never, as things are.
    fn due(&self, fresh_us: Micros, now_us: Micros) -> Option<Duration> {
        let age_ms = age_ms(fresh_us, now_us);
        // A limit that readers were told is crossed, and that is not.
        if self.by_limit_ms.range(..self.told_ms).next_back().is_some_and(|(limit_ms, _)| age_ms <= *limit_ms) {
            return Some(Duration::ZERO);
        }
        let (limit_ms, _) = self.by_limit_ms.range(self.told_ms..).next()?;
        let crossed_us = fresh_us.saturating_add_unsigned(limit_ms.saturating_add(1).saturating_mul(1_000));
        Some(Duration::from_micros(u64::try_from(crossed_us.saturating_sub(now_us)).unwrap_or_default()))
    }

    /// Flags whose limit lies between the age that readers know and this one.
    fn crossed(&mut self, age_ms: u64) -> Vec<Arc<str>> {
        let (young_ms, old_ms) = (self.told_ms.min(age_ms), self.told_ms.max(age_ms));
        self.told_ms = age_ms;
        self.by_limit_ms.range(young_ms..old_ms).flat_map(|(_, keys)| keys).cloned().collect()
    }
}

impl Writer {
    /// How long until [`Writer::tell_of_age`] has something to tell; `None`: never, as things are.
    pub fn age_is_told_in(&self) -> Option<Duration> {
        // Most environments have no such flag, and do not ask the clock.
        if self.aging.by_limit_ms.is_empty() {
            return None;
        }
        let replica = self.replica();
        self.aging.due(replica.fresh_us(), replica.0.clock.now_us())
    }

    /// Tells readers of the flags for which the state has become too old, or young again, since this was last called.
    pub fn tell_of_age(&mut self) {
        let crossed = self.aging.crossed(self.replica().age_ms());
        // A kill and a disabled flag stand above it: their answers are the same at any age.
        let answers = |key: Arc<str>| {
            let held = self.current(&key).filter(|held| !held.flag.is_killed() && !held.flag.is_disabled())?;
            Some(news::aged(key, held))
        };
        let entries: Vec<_> = crossed.into_iter().filter_map(answers).collect();
        if !entries.is_empty() {
            let listed = entries.len() <= LISTED_AT_ONCE;
            self.tell(entries, listed, self.origin_time_us);
        }
    }
}

fn age_ms(fresh_us: Micros, now_us: Micros) -> u64 {
    u64::try_from(now_us.saturating_sub(fresh_us)).unwrap_or_default() / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Micros = 1_000;

    fn aging() -> Aging {
        let mut aging = Aging::default();
        for (key, limit_ms) in [("a", 5), ("b", 5), ("c", 9), ("d", 9)] {
            aging.note(&key.into(), Some(limit_ms));
        }
        aging.note(&"d".into(), None);
        aging
    }

    fn crossed(aging: &mut Aging, age_ms: u64) -> Vec<String> {
        let mut keys: Vec<_> = aging.crossed(age_ms).iter().map(ToString::to_string).collect();
        keys.sort();
        keys
    }

    #[test]
    fn each_limit_is_told_once_when_it_is_crossed_and_once_when_the_state_is_young_again() {
        let mut aging = aging();
        assert_eq!(crossed(&mut aging, 5), [""; 0]);
        assert_eq!(crossed(&mut aging, 6), ["a", "b"]);
        assert_eq!(crossed(&mut aging, 9), [""; 0]);
        assert_eq!(crossed(&mut aging, 400), ["c"]);
        assert_eq!(crossed(&mut aging, 7), ["c"]);
        assert_eq!(crossed(&mut aging, 0), ["a", "b"]);
    }

    #[test]
    fn it_is_due_in_the_millisecond_in_which_an_answer_changes() {
        let mut aging = aging();
        let due_us = |aging: &Aging, now_us| aging.due(0, now_us).map(|due| due.as_micros());
        assert_eq!((due_us(&aging, 0), due_us(&aging, 6 * MS - 1), due_us(&aging, 20 * MS)), (Some(6_000), Some(1), Some(0)));
        assert_eq!(crossed(&mut aging, age_ms(0, 6 * MS - 1)), [""; 0]);
        assert_eq!(crossed(&mut aging, age_ms(0, 6 * MS)), ["a", "b"]);
        assert_eq!(due_us(&aging, 6 * MS), Some(4_000));
        assert_eq!(aging.due(6 * MS, 6 * MS), Some(Duration::ZERO), "it is young again");
        crossed(&mut aging, 400);
        assert_eq!(due_us(&aging, 400 * MS), None);
        assert_eq!(Aging::default().due(0, 0), None);
    }
}
