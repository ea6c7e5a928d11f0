//! Answers as they go out, kept under what they were decided from.
//!
//! A flag answers with few variants, each for few reasons: of a decision only the bucket and the age differ from time to time. What is the
//! same is encoded and counted under one place, which is found without a look at a text.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::flag::{Decision, Reason};
use crate::replica::Held;

/// Of one thread, about 200 bytes each: three outcomes of each of 10,000 flags, should somebody ask for all of them all the time.
const MOST: usize = 32 * 1024;
/// A longer answer, which is one with an object in it, is encoded each time: then the encoding is not what costs.
pub(super) const LONGEST: usize = 512;
/// The same for an OpenFeature SDK, to which an object is not sent as it is held: it is taken apart and written anew, which costs far more.
pub(super) const LONGEST_FOR_SDKS: usize = 4 * 1024;
/// Of all that is kept; usual answers come to `MOST` before.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// `T` is kept beside the bytes.
#[derive(Debug)]
pub(super) struct Prepared<T> {
    places: HashMap<Outcome, usize, BuildHasherDefault<OutcomeHasher>>,
    kept: Vec<(T, Box<[u8]>)>,
    bytes: usize,
}

/// What decides all that is constant in an answer: which flag as it is held, which of its variants, by which of its rules, and why; and in
/// which form it goes out.
///
/// Variants and rules are told apart by where they lie in memory. That is enough, because what is held does not change under its number, and
/// numbers do not come again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    held: u64,
    variant: usize,
    /// Address and length: a name without letters lies where the next one begins.
    rule: (usize, usize),
    reason: Reason,
    /// See `decide::Manner::number`.
    form: u8,
}

impl Outcome {
    #[inline]
    pub(super) fn of(held: &Held, decision: &Decision<'_>, form: u8) -> Self {
        Self {
            held: held.number(),
            variant: decision.variant.map_or(0, |variant| std::ptr::from_ref(variant).addr()),
            rule: decision.rule.map_or((0, 0), |rule| (rule.as_ptr().addr(), rule.len())),
            reason: decision.reason,
            form,
        }
    }
}

impl<T> Default for Prepared<T> {
    fn default() -> Self {
        Self { places: HashMap::default(), kept: Vec::new(), bytes: 0 }
    }
}

impl<T> Prepared<T> {
    /// Where it is kept, for [`Prepared::kept`]; nowhere, when there is no room.
    #[inline]
    pub(super) fn place(&mut self, outcome: Outcome, prepare: impl FnOnce() -> Option<(T, Vec<u8>)>) -> Option<usize> {
        match self.places.entry(outcome) {
            Entry::Occupied(found) => Some(*found.get()),
            Entry::Vacant(free) => {
                if self.bytes >= MOST_BYTES {
                    return None;
                }
                let (with, constant) = prepare()?;
                self.bytes += constant.len();
                self.kept.push((with, constant.into()));
                Some(*free.insert(self.kept.len() - 1))
            }
        }
    }

    #[inline]
    pub(super) fn kept(&mut self, place: usize) -> &mut (T, Box<[u8]>) {
        &mut self.kept[place]
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &T> {
        self.kept.iter().map(|(with, _)| with)
    }

    /// Time to begin anew.
    pub(super) fn is_full(&self) -> bool {
        self.kept.len() >= MOST || self.bytes >= MOST_BYTES
    }
}

impl Hash for Outcome {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
        let of_held = self.held.wrapping_mul(MIX);
        let of_rest =
            (self.variant as u64).rotate_left(20) ^ (self.rule.0 as u64) ^ (u64::from(self.form) << 48) ^ ((self.reason as u64) << 56);
        let mixed = (of_held ^ of_rest).wrapping_mul(MIX);
        state.write_u64(mixed ^ mixed >> 32);
    }
}

/// [`Outcome`] mixes its parts itself: nobody outside chooses them.
#[derive(Debug, Default)]
pub(super) struct OutcomeHasher(u64);

impl Hasher for OutcomeHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[inline]
    fn write_u64(&mut self, mixed: u64) {
        self.0 = mixed;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(held: u64, reason: Reason) -> Outcome {
        Outcome { held, variant: 0x7f00_1000, rule: (0, 0), reason, form: 0 }
    }

    #[test]
    fn what_was_prepared_is_found_and_not_prepared_again() {
        let mut prepared = Prepared::default();
        let first = prepared.place(outcome(1, Reason::Split), || Some((7, vec![1]))).unwrap();
        let again = prepared.place(outcome(1, Reason::Split), || panic!("prepared twice")).unwrap();
        assert_eq!((first, prepared.kept(again)), (again, &mut (7, [1].into())));
        let split = || outcome(1, Reason::Split);
        for other in [
            outcome(2, Reason::Split),
            outcome(1, Reason::Killed),
            Outcome { variant: 0x7f00_2000, ..split() },
            Outcome { rule: (0, 1), ..split() },
            Outcome { form: 1, ..split() },
        ] {
            assert!(prepared.place(other, || None).is_none(), "another outcome's answer was given");
        }
        assert_eq!(prepared.all().collect::<Vec<_>>(), [&7]);
    }

    #[test]
    fn forty_thousand_outcomes_are_too_many() {
        let mut prepared = Prepared::default();
        for held in 0..40_000 {
            prepared.place(outcome(held, Reason::Static), || Some(((), vec![0])));
        }
        assert!(prepared.is_full());
    }

    #[test]
    fn what_is_kept_has_no_more_than_16_mib() {
        let mut prepared = Prepared::default();
        let taken = (0..20_000).filter(|held| prepared.place(outcome(*held, Reason::Static), || Some(((), vec![0; 1024]))).is_some());
        assert_eq!(taken.count(), 16 * 1024);
        assert!(prepared.is_full());
        assert!(prepared.place(outcome(0, Reason::Static), || None).is_some(), "what is kept is found");
    }
}
