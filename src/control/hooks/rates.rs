//! How often one hook is listened to: a burst, and then one request in a second. A monitor that storms costs a look at the store for each
//! request and nothing more, and does not keep another hook waiting.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::control::ledger::HookName;

/// Requests at once, and the time that each takes to be forgotten.
const BURST: i64 = 20;
const EACH_US: i64 = 1_000_000;
/// Hooks are few; those that have been quiet are forgotten beyond this many.
const KEPT: usize = 1_000;

/// For each hook the time at which all that came is forgotten. Only hooks whose token was right are here.
#[derive(Default)]
pub(super) struct Rates(Mutex<HashMap<String, i64>>);

impl Rates {
    pub(super) fn admit(&self, HookName { environment, flag, id }: &HookName, now_us: i64) -> bool {
        let mut rates = self.0.lock();
        if rates.len() >= KEPT {
            rates.retain(|_, free_us| *free_us > now_us);
        }
        let free_us = rates.entry(format!("{environment}/{flag}/{id}")).or_insert(now_us);
        let next_us = (*free_us).max(now_us) + EACH_US;
        let is_admitted = next_us - now_us <= BURST * EACH_US;
        if is_admitted {
            *free_us = next_us;
        }
        is_admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(id: &str) -> HookName {
        HookName { environment: "prod".into(), flag: "checkout".into(), id: id.into() }
    }

    #[test]
    fn a_burst_is_heard_and_then_one_in_a_second() {
        let rates = Rates::default();
        assert!((0..BURST).all(|_| rates.admit(&hook("a"), 7)));
        assert!(!rates.admit(&hook("a"), 7));
        assert!(rates.admit(&hook("b"), 7), "another hook is not kept waiting");
        assert!(!rates.admit(&hook("a"), 6 + EACH_US));
        assert!(rates.admit(&hook("a"), 7 + EACH_US));
        assert!(!rates.admit(&hook("a"), 7 + EACH_US), "what was refused was not counted, and what was admitted was");
    }

    #[test]
    fn quiet_hooks_are_forgotten() {
        let rates = Rates::default();
        (0..KEPT).for_each(|number| assert!(rates.admit(&hook(&number.to_string()), 0)));
        assert!(rates.admit(&hook("late"), EACH_US));
        assert_eq!(rates.0.lock().len(), 1);
    }
}
