//! How much of the log is kept when there is too much of it: steps, one at a time, down at once and back up slowly.

/// Seconds without pressure before a step is taken back.
const CALM: u32 = 10;
/// The same after steps that had to be repeated at once.
const MOST_CALM: u32 = 320;
/// Share of a second that the writing may take before it is too much, and below which it is little.
const BUSY: f64 = 0.5;
const QUIET: f64 = 0.25;

/// What is kept, in the order in which it is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Step {
    /// Everything, as it is sampled by flag.
    #[default]
    Full,
    /// A tenth of it; first exposures, errors and outcomes whole.
    Tenth,
    /// First exposures, errors and outcomes.
    FirstAndErrors,
    /// Nothing; the counters of `/metrics` go on.
    CountersOnly,
}

/// Of one second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// Events that should have been kept and had no room.
    pub lost: u64,
    /// Share of the second that the writing took.
    pub busy: f64,
}

#[derive(Debug)]
pub struct Pressure {
    step: Step,
    /// Seconds in a row without pressure.
    calm: u32,
    needed: u32,
    /// Seconds since the last step back.
    since_back: Option<u32>,
}

impl Step {
    pub const ALL: [Self; 4] = [Self::Full, Self::Tenth, Self::FirstAndErrors, Self::CountersOnly];

    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "everything",
            Self::Tenth => "a tenth, first exposures and errors",
            Self::FirstAndErrors => "first exposures and errors",
            Self::CountersOnly => "counters only",
        }
    }

    /// Of what is neither a first exposure nor an error.
    pub fn rate(self) -> f64 {
        match self {
            Self::Full => 1.0,
            Self::Tenth => 0.1,
            Self::FirstAndErrors | Self::CountersOnly => 0.0,
        }
    }

    fn less(self) -> Self {
        Self::ALL.get(self as usize + 1).copied().unwrap_or(self)
    }

    fn more(self) -> Self {
        (self as usize).checked_sub(1).map_or(self, |before| Self::ALL[before])
    }
}

impl Default for Pressure {
    fn default() -> Self {
        Self { step: Step::Full, calm: 0, needed: CALM, since_back: None }
    }
}

impl Pressure {
    pub fn step(&self) -> Step {
        self.step
    }

    /// A second is over. Answers with the step that is on from now on, when it is another one.
    pub fn after(&mut self, load: Load) -> Option<Step> {
        let before = self.step;
        self.since_back = self.since_back.map(|seconds| seconds.saturating_add(1));
        if load.lost > 0 || load.busy > BUSY {
            self.calm = 0;
            self.step = self.step.less();
            if self.step != before && self.since_back.take().is_some_and(|seconds| seconds <= self.needed) {
                self.needed = (self.needed * 2).min(MOST_CALM);
            }
        } else if load.busy < QUIET {
            self.calm += 1;
            if self.calm >= self.needed && self.step > Step::Full {
                self.calm = 0;
                self.step = self.step.more();
                self.since_back = Some(0);
            } else if self.step == Step::Full && self.calm >= MOST_CALM {
                self.needed = CALM;
            }
        } else {
            self.calm = 0;
        }
        (self.step != before).then_some(self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALMLY: Load = Load { lost: 0, busy: 0.0 };
    const LOSING: Load = Load { lost: 1, busy: 0.0 };

    fn seconds_until_back(pressure: &mut Pressure) -> u32 {
        (1..10_000).find(|_| pressure.after(CALMLY).is_some()).unwrap()
    }

    #[test]
    fn each_second_of_pressure_gives_up_one_more_step_and_the_last_stays() {
        let mut pressure = Pressure::default();
        let taken: Vec<_> = (0..4).map(|_| pressure.after(LOSING)).collect();
        assert_eq!(taken, [Some(Step::Tenth), Some(Step::FirstAndErrors), Some(Step::CountersOnly), None]);
        assert_eq!(pressure.step(), Step::CountersOnly);
    }

    #[test]
    fn calm_brings_it_back_one_step_at_a_time() {
        let mut pressure = Pressure::default();
        pressure.after(LOSING);
        pressure.after(LOSING);
        assert_eq!(seconds_until_back(&mut pressure), CALM);
        assert_eq!(pressure.step(), Step::Tenth);
        assert_eq!(seconds_until_back(&mut pressure), CALM);
        assert_eq!(pressure.step(), Step::Full);
        assert_eq!(pressure.after(CALMLY), None);
    }

    #[test]
    fn a_writer_that_is_busy_is_pressure_and_one_in_between_is_neither() {
        let mut pressure = Pressure::default();
        assert_eq!(pressure.after(Load { lost: 0, busy: 0.6 }), Some(Step::Tenth));
        for _ in 0..1_000 {
            assert_eq!(pressure.after(Load { lost: 0, busy: 0.3 }), None);
        }
    }

    #[test]
    fn a_step_back_that_was_too_early_waits_twice_as_long_the_next_time_up_to_a_bound() {
        let mut pressure = Pressure::default();
        pressure.after(LOSING);
        let mut waited = Vec::new();
        for _ in 0..8 {
            waited.push(seconds_until_back(&mut pressure));
            pressure.after(LOSING);
        }
        assert_eq!(waited, [10, 20, 40, 80, 160, 320, 320, 320]);
    }

    #[test]
    fn after_a_long_calm_it_trusts_again() {
        let mut pressure = Pressure::default();
        pressure.after(LOSING);
        seconds_until_back(&mut pressure);
        pressure.after(LOSING);
        assert_eq!(seconds_until_back(&mut pressure), 2 * CALM);
        (0..MOST_CALM).for_each(|_| assert_eq!(pressure.after(CALMLY), None));
        pressure.after(LOSING);
        assert_eq!(seconds_until_back(&mut pressure), CALM);
    }

    #[test]
    fn each_step_keeps_less_than_the_one_before() {
        for pair in Step::ALL.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].rate() >= pair[1].rate());
        }
    }
}
