//! Which events become lines: each once in a window, sampled by flag and by step; first exposures and errors always, up to a hard limit.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use super::args::Share;
use super::line::Evaluation;
use super::pressure::Step;
use super::seen::Seen;

/// The same person with the same answer for the same reason at the same revision is one event in this time.
pub const WINDOW_US: i64 = 10 * 60 * 1_000_000;
/// Lines of a pod, whatever they are: about 3 MB.
pub const MOST_LINES_A_SECOND: u32 = 10_000;

const SECOND_US: i64 = 1_000_000;

#[derive(Debug)]
pub struct Sieve {
    events: Seen,
    exposures: Seen,
    shares: HashMap<String, f64>,
    hasher: RandomState,
    second: i64,
    lines: u32,
    most_lines: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// At this rate: it stands for `1 / rate` events.
    Keep {
        rate: f64,
    },
    Duplicate,
    /// By the rate of its flag.
    SampledOut,
    /// By the step that is on.
    HeldBack,
    OverLimit,
}

impl Sieve {
    pub fn new(shares: &[Share]) -> Self {
        Self::with_limits(shares, Seen::default(), MOST_LINES_A_SECOND)
    }

    pub fn with_limits(shares: &[Share], events: Seen, most_lines: u32) -> Self {
        let shares = shares.iter().map(|share| (share.flag.clone(), share.rate)).collect();
        Self { events, exposures: Seen::default(), shares, hasher: RandomState::new(), second: 0, lines: 0, most_lines }
    }

    /// `dice` decides what is sampled: any number, all alike.
    pub fn judge(&mut self, seen: &Evaluation<'_>, step: Step, now_us: i64, dice: u64) -> Verdict {
        let Evaluation { flag, variant, key, reason, error, revision, .. } = *seen;
        if step == Step::CountersOnly {
            return Verdict::HeldBack;
        }
        let exposure = self.hasher.hash_one((flag, variant, key));
        let event = self.hasher.hash_one((exposure, reason, error, revision));
        if self.events.has(event, now_us, WINDOW_US) {
            return Verdict::Duplicate;
        }
        // Somebody who was served a variant; an event without a person is nobody's first.
        let is_first = key.is_some() && variant.is_some() && !self.exposures.has(exposure, now_us, i64::MAX);
        let of_flag = self.shares.get(flag).copied().unwrap_or(1.0);
        let rate = if is_first || error.is_some() { 1.0 } else { of_flag * step.rate() };
        if !is_below(dice, rate) {
            self.events.mark(event, now_us);
            return if is_below(dice, of_flag) { Verdict::HeldBack } else { Verdict::SampledOut };
        }
        // What finds no room is not marked: it is the first again when it comes the next time.
        if !self.has_room(now_us) {
            return Verdict::OverLimit;
        }
        self.events.mark(event, now_us);
        if is_first {
            self.exposures.mark(exposure, now_us);
        }
        Verdict::Keep { rate }
    }

    /// Outcomes are never sampled: a share of them would bend the error rate.
    pub fn judge_outcome(&mut self, step: Step, now_us: i64) -> Verdict {
        match step {
            Step::CountersOnly => Verdict::HeldBack,
            _ if self.has_room(now_us) => Verdict::Keep { rate: 1.0 },
            _ => Verdict::OverLimit,
        }
    }

    fn has_room(&mut self, now_us: i64) -> bool {
        let second = now_us.div_euclid(SECOND_US);
        if second != self.second {
            (self.second, self.lines) = (second, 0);
        }
        self.lines = self.lines.saturating_add(1);
        self.lines <= self.most_lines
    }
}

/// The conversion saturates: a rate of 1 is every number.
fn is_below(dice: u64, rate: f64) -> bool {
    rate >= 1.0 || dice < (rate * 2_f64.powi(64)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::{ErrorCode, Reason};

    const NOW: i64 = 1_795_224_612_000_000;

    fn seen<'a>(flag: &'a str, key: &'a str) -> Evaluation<'a> {
        Evaluation {
            time_us: NOW,
            flag,
            variant: Some("on"),
            enabled: true,
            key: Some(key),
            rule: None,
            bucket: None,
            revision: 1,
            reason: Reason::Split,
            error: None,
        }
    }

    fn kept(rate: f64) -> Verdict {
        Verdict::Keep { rate }
    }

    #[test]
    fn the_same_answer_is_one_event_in_a_window_and_another_one_is_not() {
        let mut sieve = Sieve::new(&[]);
        let ana = seen("a", "ana");
        assert_eq!(sieve.judge(&ana, Step::Full, NOW, 0), kept(1.0));
        assert_eq!(sieve.judge(&ana, Step::Full, NOW + WINDOW_US - 1, 0), Verdict::Duplicate);
        assert_eq!(sieve.judge(&ana, Step::Full, NOW + WINDOW_US, 0), kept(1.0));
        let others = [
            seen("b", "ana"),
            seen("a", "bob"),
            Evaluation { variant: Some("off"), ..ana },
            Evaluation { reason: Reason::Killed, ..ana },
            Evaluation { revision: 2, ..ana },
            Evaluation { key: None, ..ana },
            Evaluation { error: Some(ErrorCode::TypeMismatch), ..ana },
        ];
        for other in others {
            assert_eq!(sieve.judge(&other, Step::Full, NOW, 0), kept(1.0), "{other:?}");
        }
        // Neither the bucket nor the time makes it another event.
        let again = Evaluation { bucket: Some(1), time_us: NOW + 1, rule: Some("r"), ..ana };
        assert_eq!(sieve.judge(&again, Step::Full, NOW + WINDOW_US, 0), Verdict::Duplicate);
    }

    #[test]
    fn a_flag_that_is_sampled_keeps_that_share_and_says_so() {
        let mut sieve = Sieve::new(&["a=0.25".parse().unwrap()]);
        let anonymous = |revision| Evaluation { key: None, revision, ..seen("a", "") };
        assert_eq!(sieve.judge(&anonymous(1), Step::Full, NOW, u64::MAX / 4 - 2_000), kept(0.25));
        assert_eq!(sieve.judge(&anonymous(2), Step::Full, NOW, u64::MAX / 4 + 2_000), Verdict::SampledOut);
        assert_eq!(sieve.judge(&Evaluation { flag: "b", ..anonymous(3) }, Step::Full, NOW, u64::MAX), kept(1.0));
    }

    #[test]
    fn first_exposures_and_errors_are_kept_whatever_the_rate() {
        let mut sieve = Sieve::new(&["a=0".parse().unwrap()]);
        for step in [Step::Full, Step::Tenth, Step::FirstAndErrors] {
            let key = step.name();
            let first = seen("a", key);
            assert_eq!(sieve.judge(&first, step, NOW, u64::MAX), kept(1.0));
            let later = Evaluation { revision: 2, ..first };
            assert_eq!(sieve.judge(&later, step, NOW, 0), Verdict::SampledOut, "no first exposure any more");
            let error = Evaluation { variant: None, error: Some(ErrorCode::TypeMismatch), ..first };
            assert_eq!(sieve.judge(&error, step, NOW, u64::MAX), kept(1.0));
        }
    }

    #[test]
    fn each_step_holds_back_more() {
        let verdicts = |step: Step| {
            let mut sieve = Sieve::new(&[]);
            let judge = |sieve: &mut Sieve, seen: &Evaluation<'_>, dice| sieve.judge(seen, step, NOW, dice);
            let first = judge(&mut sieve, &seen("a", "ana"), u64::MAX);
            let lucky = judge(&mut sieve, &Evaluation { revision: 2, ..seen("a", "ana") }, u64::MAX / 20);
            let unlucky = judge(&mut sieve, &Evaluation { revision: 3, ..seen("a", "ana") }, u64::MAX / 2);
            [first, lucky, unlucky]
        };
        let held = Verdict::HeldBack;
        assert_eq!(verdicts(Step::Full), [kept(1.0); 3]);
        assert_eq!(verdicts(Step::Tenth), [kept(1.0), kept(0.1), held]);
        assert_eq!(verdicts(Step::FirstAndErrors), [kept(1.0), held, held]);
        assert_eq!(verdicts(Step::CountersOnly), [held; 3]);
    }

    #[test]
    fn outcomes_are_kept_or_not_but_never_sampled() {
        let mut sieve = Sieve::new(&["a=0".parse().unwrap()]);
        for step in [Step::Full, Step::Tenth, Step::FirstAndErrors] {
            assert_eq!(sieve.judge_outcome(step, NOW), kept(1.0), "{step:?}");
        }
        assert_eq!(sieve.judge_outcome(Step::CountersOnly, NOW), Verdict::HeldBack);
    }

    #[test]
    fn the_hard_limit_holds_for_errors_too_and_ends_with_its_second() {
        let mut sieve = Sieve::with_limits(&[], Seen::default(), 2);
        let error = |revision| Evaluation { error: Some(ErrorCode::FlagNotFound), revision, ..seen("a", "ana") };
        let verdicts: Vec<_> = (0..3).map(|revision| sieve.judge(&error(revision), Step::Full, NOW, 0)).collect();
        assert_eq!(verdicts, [kept(1.0), kept(1.0), Verdict::OverLimit]);
        assert_eq!(sieve.judge_outcome(Step::Full, NOW), Verdict::OverLimit);
        assert_eq!(sieve.judge(&error(2), Step::Full, NOW + SECOND_US, 0), kept(1.0), "what found no room was taken for seen");
    }
}
