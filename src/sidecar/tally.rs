//! What one thread has answered, counted by flag, variant and reason. What was counted before finds its place again without a look at a
//! text, and its answer with it (`prepared`).
//!
//! Only its thread counts in a tally; the scrape takes the counts away in one move, so that no thread ever waits for a merge.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use indexmap::IndexMap;
use metrohash::MetroHash64;
use parking_lot::{Mutex, MutexGuard};

use crate::flag::{Decision, ErrorCode, Reason};
use crate::replica::Held;
use crate::telemetry::decisions::{Evaluation, Journal};
use crate::wire::evaluation::Answer;

use super::evidence::{Exposure, Exposures};
use super::observe::Notes;
use super::prepared::{Outcome, Prepared};

/// Series of one flag. Further ones, of variants that came and went, are counted without the name of the variant.
const MAX_SERIES: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    counts: Counts,
    prepared: Prepared<Counter>,
    /// Of a [`Batch`]; kept for the next one.
    round: Round,
    /// `None`: nobody wants to know of single answers.
    notes: Option<Box<Notes>>,
    exposures: Exposures,
}

/// What is counted when a batch ends.
#[derive(Debug, Default)]
struct Round {
    /// Places in [`Book::prepared`].
    prepared: Vec<usize>,
    answered: Vec<Place>,
    failed: Vec<ErrorCode>,
    exposed: Vec<Exposure>,
}

/// Counts of an outcome that has not been added to its series.
#[derive(Debug)]
struct Counter {
    series: Place,
    count: u64,
}

/// Of a flag, and of a series in it.
type Place = (usize, usize);

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

/// Counts of what is answered together. They are taken back when it is not answered: a batch that met a change is decided again.
pub(super) struct Batch<'t>(MutexGuard<'t, Book>);

impl Tally {
    /// One that also notes each answer.
    pub(super) fn noting(notes: Notes) -> Self {
        Self(Mutex::new(Book { notes: Some(Box::new(notes)), ..Book::default() }))
    }

    /// Nobody else counts or takes before it is dropped.
    pub(super) fn batch(&self) -> Batch<'_> {
        let mut batch = Batch(self.0.lock());
        batch.forget();
        if let Some(notes) = &mut batch.0.notes {
            notes.begin();
        }
        if batch.0.prepared.is_full() {
            batch.0.settle();
        }
        batch
    }

    pub(super) fn take(&self) -> Counts {
        let mut book = self.0.lock();
        // Who was noted stays noted, and who wants to know goes on.
        let (notes, exposures) = (book.notes.take(), std::mem::take(&mut book.exposures));
        let mut taken = std::mem::replace(&mut *book, Book { notes, exposures, ..Book::default() });
        drop(book);
        taken.settle();
        taken.counts
    }

    /// For the collector.
    pub(super) fn with_exposures<R>(&self, with: impl FnOnce(&mut Exposures) -> R) -> R {
        with(&mut self.0.lock().exposures)
    }

    /// Takes what was noted, and leaves `empty` to write on.
    pub(super) fn take_journal(&self, empty: Journal) -> Option<Journal> {
        self.0.lock().notes.as_mut().map(|notes| notes.journal.take(empty))
    }
}

impl Batch<'_> {
    /// Here every answer to an application passes. It stands when the batch is counted.
    #[inline]
    pub(super) fn note<'a>(&mut self, seen: impl FnOnce() -> Evaluation<'a>) {
        if let Some(notes) = &mut self.0.notes
            && !notes.is_muted
        {
            notes.journal.note(&seen());
        }
    }

    /// Nothing of this batch is noted.
    pub(super) fn mute(&mut self) {
        if let Some(notes) = &mut self.0.notes {
            notes.is_muted = true;
        }
    }

    pub(super) fn answered(&mut self, answer: &Answer<'_>) {
        let flag_key = match answer.error {
            // A caller who loops over random keys makes no series.
            Some(ErrorCode::FlagNotFound | ErrorCode::ProviderNotReady) => "",
            Some(_) | None => answer.flag_key,
        };
        let Book { counts, round, .. } = &mut *self.0;
        round.answered.push(counts.place(flag_key, answer.variant, answer.reason));
        round.failed.extend(answer.error);
    }

    /// What is constant in the answer with this decision, worked out once for each form. `None`: it is too long to be kept, and was not
    /// counted.
    #[inline]
    pub(super) fn prepared(
        &mut self,
        held: &Held,
        decision: &Decision<'_>,
        form: u8,
        constant: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Option<&[u8]> {
        let Book { counts, prepared, round, .. } = &mut *self.0;
        let place = prepared.place(Outcome::of(held, decision, form), || {
            let variant = decision.variant.map_or("", |variant| &variant.name);
            let series = counts.place(held.flag.key(), variant, decision.reason);
            Some((Counter { series, count: 0 }, constant()?))
        })?;
        round.prepared.push(place);
        Some(&prepared.kept(place).1)
    }

    /// Somebody is served a flag of which something is measured.
    #[inline]
    pub(super) fn exposed(&mut self, held: &Held, decision: &Decision<'_>, targeting_key: Option<&str>) {
        let Book { exposures, round, .. } = &mut *self.0;
        // Without a key there is no unit whose outcome could be told.
        round.exposed.extend(targeting_key.and_then(|key| exposures.unknown(held, decision, key)));
    }

    pub(super) fn forget(&mut self) {
        let Round { prepared, answered, failed, exposed } = &mut self.0.round;
        prepared.clear();
        answered.clear();
        failed.clear();
        exposed.clear();
        if let Some(notes) = &mut self.0.notes {
            notes.journal.forget();
        }
    }

    pub(super) fn count(mut self) {
        let Book { counts, prepared, round, notes, exposures } = &mut *self.0;
        if let Some(notes) = notes {
            notes.journal.keep();
        }
        round.exposed.drain(..).for_each(|exposure| exposures.note(exposure));
        for &place in &round.prepared {
            prepared.kept(place).0.count += 1;
        }
        round.answered.iter().for_each(|place| counts.count(*place, 1));
        for &code in &round.failed {
            *counts.errors.entry(code).or_default() += 1;
        }
    }
}

impl Book {
    /// Adds up what was counted beside the prepared answers, and forgets these.
    fn settle(&mut self) {
        for Counter { series, count } in std::mem::take(&mut self.prepared).all() {
            self.counts.count(*series, *count);
        }
    }
}

impl Counts {
    fn add(&mut self, flag_key: &str, variant: &str, reason: Reason, count: u64) {
        let place = self.place(flag_key, variant, reason);
        self.count(place, count);
    }

    fn count(&mut self, (flag, series): Place, count: u64) {
        if let Some((_, held)) = self.flags.get_index_mut(flag) {
            held[series].count += count;
        }
    }

    /// Where it is counted: of the flag, and of the series in it.
    fn place(&mut self, flag_key: &str, variant: &str, reason: Reason) -> Place {
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

    fn answer<'a>(flag_key: &'a str, variant: &'a str, reason: Reason, error: Option<ErrorCode>) -> Answer<'a> {
        Answer { flag_key, value: None, variant, reason, rule: "", bucket: None, revision: 1, age_ms: 0, error, message: "" }
    }

    fn count(tally: &Tally, flag_key: &str, variant: &str, reason: Reason) {
        let mut batch = tally.batch();
        batch.answered(&answer(flag_key, variant, reason, None));
        batch.count();
    }

    fn fail(tally: &Tally, flag_key: &str, code: ErrorCode) {
        let mut batch = tally.batch();
        batch.answered(&answer(flag_key, "", Reason::Error, Some(code)));
        batch.count();
    }

    #[test]
    fn counts_are_taken_once_and_add_up() {
        let tally = Tally::default();
        count(&tally, "a", "on", Reason::Split);
        count(&tally, "a", "on", Reason::Split);
        count(&tally, "a", "off", Reason::Split);
        let mut total = tally.take();
        count(&tally, "a", "on", Reason::Split);
        fail(&tally, "nobody-knows", ErrorCode::FlagNotFound);
        fail(&tally, "a", ErrorCode::TypeMismatch);
        total.merge(tally.take());
        let on = total.flags["a"].iter().find(|series| &*series.variant == "on").unwrap();
        assert_eq!(on.count, 3);
        assert_eq!((total.errors[&ErrorCode::FlagNotFound], total.errors[&ErrorCode::TypeMismatch]), (1, 1));
        assert_eq!(total.flags.keys().map(|key| &**key).collect::<Vec<_>>(), ["a", ""]);
        assert!(tally.take().flags.is_empty());
    }

    #[test]
    fn of_a_batch_that_is_decided_again_only_the_answer_is_counted() {
        let tally = Tally::default();
        let mut batch = tally.batch();
        batch.answered(&answer("a", "on", Reason::Split, None));
        batch.answered(&answer("b", "", Reason::Error, Some(ErrorCode::FlagNotFound)));
        batch.forget();
        batch.answered(&answer("a", "off", Reason::Killed, None));
        batch.answered(&answer("b", "", Reason::Error, Some(ErrorCode::FlagNotFound)));
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
            count(&tally, "a", &format!("v{number}"), Reason::Default);
        }
        let counts = tally.take();
        assert!(counts.flags["a"].len() <= MAX_SERIES + Reason::ALL.len());
        assert_eq!(counts.flags["a"].iter().map(|series| series.count).sum::<u64>(), 10_000);
    }

    #[test]
    fn a_flag_that_is_gone_leaves_the_output_and_unknown_ones_stay_together() {
        let tally = Tally::default();
        count(&tally, "gone", "on", Reason::Default);
        fail(&tally, "nobody-knows", ErrorCode::FlagNotFound);
        let mut counts = tally.take();
        counts.retain_flags(|_| false);
        assert_eq!(counts.flags.keys().map(|key| &**key).collect::<Vec<_>>(), [""]);
    }
}
