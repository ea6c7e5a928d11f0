//! What one thread has answered, counted by flag, variant and reason.
//!
//! Only its thread counts in a tally; the scrape takes the counts away in one move, so that no thread ever waits for a merge.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use indexmap::IndexMap;
use metrohash::MetroHash64;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use crate::flag::{ErrorCode, Reason};

/// Series of one flag. Further ones, of variants that came and went, are counted without the name of the variant.
const MAX_SERIES: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counts>);

/// Evaluations by flag key; unknown flags under the empty key, so that a caller who loops over random keys makes no series.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) flags: IndexMap<Box<str>, Vec<Series>, BuildHasherDefault<MetroHash64>>,
    pub(super) errors: HashMap<ErrorCode, u64>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Series {
    /// Empty for the caller's default.
    pub(super) variant: Box<str>,
    pub(super) reason: Reason,
    pub(super) count: u64,
}

/// Counts that are taken back when what they count is not answered: a batch that met a change is decided again.
pub(super) struct Batch<'t> {
    counts: MutexGuard<'t, Counts>,
    /// Places of flags and of their series.
    decided: SmallVec<[(usize, usize); 64]>,
    failed: Vec<ErrorCode>,
}

impl Tally {
    /// Nobody else counts or takes before it is dropped.
    pub(super) fn batch(&self) -> Batch<'_> {
        Batch { counts: self.0.lock(), decided: SmallVec::new(), failed: Vec::new() }
    }

    pub(super) fn decided(&self, flag_key: &str, variant: &str, reason: Reason) {
        self.0.lock().add(flag_key, variant, reason, 1);
    }

    /// `flag_key` is empty for an unknown flag.
    pub(super) fn failed(&self, flag_key: &str, code: ErrorCode) {
        self.0.lock().fail(flag_key, code);
    }

    pub(super) fn take(&self) -> Counts {
        std::mem::take(&mut self.0.lock())
    }
}

impl Batch<'_> {
    pub(super) fn decided(&mut self, flag_key: &str, variant: &str, reason: Reason) {
        let place = self.counts.place(flag_key, variant, reason);
        self.decided.push(place);
    }

    /// Of a flag that is not there.
    pub(super) fn failed(&mut self, code: ErrorCode) {
        self.failed.push(code);
    }

    pub(super) fn forget(&mut self) {
        self.decided.clear();
        self.failed.clear();
    }

    pub(super) fn count(mut self) {
        for (flag, series) in self.decided {
            if let Some((_, held)) = self.counts.flags.get_index_mut(flag) {
                held[series].count += 1;
            }
        }
        for code in self.failed {
            self.counts.fail("", code);
        }
    }
}

impl Counts {
    fn fail(&mut self, flag_key: &str, code: ErrorCode) {
        self.add(flag_key, "", Reason::Error, 1);
        *self.errors.entry(code).or_default() += 1;
    }

    fn add(&mut self, flag_key: &str, variant: &str, reason: Reason, count: u64) {
        let (flag, series) = self.place(flag_key, variant, reason);
        if let Some((_, held)) = self.flags.get_index_mut(flag) {
            held[series].count += count;
        }
    }

    /// Where it is counted: of the flag, and of the series in it.
    fn place(&mut self, flag_key: &str, variant: &str, reason: Reason) -> (usize, usize) {
        match self.flags.get_full_mut(flag_key) {
            Some((flag, _, series)) => (flag, series_of(series, variant, reason)),
            None => {
                let series = vec![Series { variant: variant.into(), reason, count: 0 }];
                (self.flags.insert_full(flag_key.into(), series).0, 0)
            }
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (flag_key, theirs) in other.flags {
            for Series { variant, reason, count } in theirs.into_iter().filter(|series| series.count > 0) {
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

fn series_of(series: &mut Vec<Series>, variant: &str, reason: Reason) -> usize {
    if let Some(held) = series.iter().position(|held| held.reason == reason && *held.variant == *variant) {
        return held;
    }
    if series.len() < MAX_SERIES || variant.is_empty() {
        series.push(Series { variant: variant.into(), reason, count: 0 });
        return series.len() - 1;
    }
    series_of(series, "", reason)
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
    fn of_a_batch_that_is_decided_again_only_the_answer_is_counted() {
        let tally = Tally::default();
        let mut batch = tally.batch();
        batch.decided("a", "on", Reason::Split);
        batch.failed(ErrorCode::FlagNotFound);
        batch.forget();
        batch.decided("a", "off", Reason::Killed);
        batch.failed(ErrorCode::FlagNotFound);
        batch.count();
        let mut total = Counts::default();
        total.merge(tally.take());
        let of = |key: &str| total.flags[key].iter().map(|one| (&*one.variant, one.reason, one.count)).collect::<Vec<_>>();
        assert_eq!(of("a"), [("off", Reason::Killed, 1)]);
        assert_eq!(of(""), [("", Reason::Error, 1)]);
        assert_eq!(total.errors[&ErrorCode::FlagNotFound], 1);
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
