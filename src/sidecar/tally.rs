//! What one thread has answered, counted by flag, variant and reason.
//!
//! Only its thread counts in a tally; the scrape takes the counts away in one move, so that no thread ever waits for a merge.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use metrohash::MetroHash64;
use parking_lot::Mutex;

use crate::flag::{ErrorCode, Reason};

/// Series of one flag. Further ones, of variants that came and went, are counted without the name of the variant.
const MAX_SERIES: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counts>);

/// Evaluations by flag key; unknown flags under the empty key, so that a caller who loops over random keys makes no series.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) flags: HashMap<Box<str>, Vec<Series>, BuildHasherDefault<MetroHash64>>,
    pub(super) errors: HashMap<ErrorCode, u64>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Series {
    /// Empty for the caller's default.
    pub(super) variant: Box<str>,
    pub(super) reason: Reason,
    pub(super) count: u64,
}

impl Tally {
    pub(super) fn decided(&self, flag_key: &str, variant: &str, reason: Reason) {
        self.0.lock().add(flag_key, variant, reason, 1);
    }

    /// `flag_key` is empty for an unknown flag.
    pub(super) fn failed(&self, flag_key: &str, code: ErrorCode) {
        let mut counts = self.0.lock();
        counts.add(flag_key, "", Reason::Error, 1);
        *counts.errors.entry(code).or_default() += 1;
    }

    pub(super) fn take(&self) -> Counts {
        std::mem::take(&mut self.0.lock())
    }
}

impl Counts {
    fn add(&mut self, flag_key: &str, variant: &str, reason: Reason, count: u64) {
        if let Some(series) = self.flags.get_mut(flag_key) {
            add_series(series, variant, reason, count);
        } else {
            self.flags.insert(flag_key.into(), vec![Series { variant: variant.into(), reason, count }]);
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (flag_key, theirs) in other.flags {
            for Series { variant, reason, count } in theirs {
                self.add(&flag_key, &variant, reason, count);
            }
        }
        for (code, count) in other.errors {
            *self.errors.entry(code).or_default() += count;
        }
    }

    /// Flags that are gone leave the output.
    pub(super) fn retain_flags(&mut self, is_known: impl Fn(&str) -> bool) {
        self.flags.retain(|flag_key, _| flag_key.is_empty() || is_known(flag_key));
    }
}

fn add_series(series: &mut Vec<Series>, variant: &str, reason: Reason, count: u64) {
    if let Some(held) = series.iter_mut().find(|held| held.reason == reason && *held.variant == *variant) {
        held.count += count;
    } else if series.len() < MAX_SERIES || variant.is_empty() {
        series.push(Series { variant: variant.into(), reason, count });
    } else {
        add_series(series, "", reason, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_taken_once_and_add_up() {
        let tally = Tally::default();
        tally.decided("a", "on", Reason::Split);
        tally.decided("a", "on", Reason::Split);
        tally.decided("a", "off", Reason::Split);
        let mut total = tally.take();
        tally.decided("a", "on", Reason::Split);
        tally.failed("", ErrorCode::FlagNotFound);
        total.merge(tally.take());
        let on = total.flags["a"].iter().find(|series| &*series.variant == "on").unwrap();
        assert_eq!(on.count, 3);
        assert_eq!(total.errors[&ErrorCode::FlagNotFound], 1);
        assert!(tally.take().flags.is_empty());
    }

    #[test]
    fn variants_that_come_and_go_do_not_make_series_for_ever() {
        let tally = Tally::default();
        for number in 0..10_000 {
            tally.decided("a", &format!("v{number}"), Reason::Default);
        }
        let counts = tally.take();
        assert!(counts.flags["a"].len() <= MAX_SERIES + Reason::ALL.len());
        assert_eq!(counts.flags["a"].iter().map(|series| series.count).sum::<u64>(), 10_000);
    }

    #[test]
    fn a_flag_that_is_gone_leaves_the_output_and_unknown_ones_stay_together() {
        let tally = Tally::default();
        tally.decided("gone", "on", Reason::Default);
        tally.failed("", ErrorCode::FlagNotFound);
        let mut counts = tally.take();
        counts.retain_flags(|_| false);
        assert_eq!(counts.flags.keys().map(|key| &**key).collect::<Vec<_>>(), [""]);
    }
}
