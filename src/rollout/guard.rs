//! Guards: each second the new outcomes of those who have a treatment, against a bound or against those who have the baseline.
//!
//! The statistics are those of `statistics::Cusum`: what it costs to be wrong is one kill of a healthy flag in a hundred fortnights, shared
//! by all guards of the flag. A pod that decides alone shares it with all other pods, any of which may be wrong as well.
//!
//! An attributable guard has a second trigger, whose bound is what fails of the baseline: both have to fire. Where nobody has the baseline
//! any more, what was known of it last stays; where nothing ever was, the bound decides alone, for a guard that waits for a baseline that
//! may never come guards nothing.

use std::collections::BTreeMap;

use serde::Serialize;

use super::statistics::{BASELINE_CAP, Baseline, Cusum, Margin, Threshold, ln_threshold};
use crate::flag::{self, BUCKETS, CompiledFlag, Direction, Guard, GuardBound, Weight};

/// Ticks of a second in fourteen days.
pub const HORIZON_TICKS: u64 = 14 * 86_400;
/// Of one kill of a healthy flag within the horizon, by any of its guards.
pub const ALPHA_KILL: f64 = 0.01;

/// First outcomes of units since the revision was there, by variant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    pub outcomes: u64,
    pub failures: u64,
    /// Different units that failed within the last minute.
    pub failing_units: usize,
}

/// One guard at work.
#[derive(Debug, Clone, PartialEq)]
pub struct Watch {
    guard: Guard,
    direction: Direction,
    ln_threshold: f64,
    cusum: Cusum,
    /// Of an attributable guard: against what fails of the baseline.
    beside: Cusum,
    baseline: Baseline,
    /// Of treatments and baseline, at the tick before.
    before: [(u64, u64); 2],
    since: (u64, u64),
}

/// Why a flag is killed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fired {
    pub guard: String,
    pub metric: String,
    /// Of those who have a treatment, since the watch began.
    pub outcomes: u64,
    pub failures: u64,
    /// The share of failures that is allowed now.
    pub allowed: f64,
    pub ln_evidence: f64,
    pub ln_threshold: f64,
    pub failing_units: usize,
    /// Of an attributable guard.
    pub attributed: Option<Attributed>,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum Attributed {
    /// The flag's: it fails more than this share, which is the baseline's.
    Beside { baseline: f64, ln_evidence: f64 },
    /// Nothing is known of a baseline, and the bound decided alone.
    Alone,
}

impl Watch {
    /// `guards`: how many the flag has.
    pub fn new(guard: Guard, direction: Direction, guards: usize) -> Self {
        let ln_threshold = ln_threshold(HORIZON_TICKS, guards.max(1) as u64, ALPHA_KILL);
        let (cusum, beside, baseline) = (Cusum::default(), Cusum::default(), Baseline::default());
        Self { guard, direction, ln_threshold, cusum, beside, baseline, before: [(0, 0); 2], since: (0, 0) }
    }

    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Another revision counts from nothing; what the baseline was stays known, for a stage that has none.
    pub fn begin_revision(&mut self) {
        self.forget();
        self.before = [(0, 0); 2];
    }

    fn forget(&mut self) {
        (self.cusum, self.beside, self.since) = (Cusum::default(), Cusum::default(), (0, 0));
    }

    /// One second later. Counts that fell are those of a control plane that lost some: they begin anew.
    pub fn tick(&mut self, treated: &Counts, control: &Counts) -> Option<Fired> {
        self.tick_as_one_of(1, treated, control)
    }

    /// One second of one of so many pods, each of which decides by what it sees itself.
    pub fn tick_as_one_of(&mut self, pods: u64, treated: &Counts, control: &Counts) -> Option<Fired> {
        let (n, k) = self.advance(treated, control);
        let allowed = self.allowed()?;
        if !self.cusum.step(n, k, allowed) {
            return None;
        }
        self.since = (self.since.0 + n, self.since.1 + k);
        let ln_threshold = self.ln_threshold + (pods.max(1) as f64).ln();
        let attributed = if self.guard.attributable { Some(self.attribute(n, k, ln_threshold, treated.failing_units)?) } else { None };
        self.cusum.fires(ln_threshold, treated.failing_units).then(|| Fired {
            guard: self.guard.name.clone(),
            metric: self.guard.metric.clone(),
            outcomes: self.since.0,
            failures: self.since.1,
            allowed,
            ln_evidence: self.cusum.ln_evidence(),
            ln_threshold,
            failing_units: treated.failing_units,
            attributed,
        })
    }

    /// `None`: the baseline fails as much.
    fn attribute(&mut self, n: u64, k: u64, ln_threshold: f64, failing_units: usize) -> Option<Attributed> {
        self.cusum.settle(ln_threshold);
        let Some(baseline) = self.baseline.failure_rate() else { return Some(Attributed::Alone) };
        self.beside.step(n, k, baseline);
        self.beside.settle(ln_threshold);
        let fires = self.beside.fires(ln_threshold, failing_units);
        fires.then(|| Attributed::Beside { baseline, ln_evidence: self.beside.ln_evidence() })
    }

    /// One second in which somebody else decides: what is normal becomes known, and nothing counts against the flag.
    pub fn observe(&mut self, treated: &Counts, control: &Counts) {
        self.advance(treated, control);
        self.forget();
    }

    /// What is new of the treatments; what is new of the baseline is noted.
    fn advance(&mut self, treated: &Counts, control: &Counts) -> (u64, u64) {
        let treated_now = (treated.outcomes, treated.failures);
        let control_now = (control.outcomes, control.failures);
        let [(n, k), (control_n, control_k)] = [new(self.before[0], treated_now), new(self.before[1], control_now)];
        self.before = [treated_now, control_now];
        if control_n > 0 {
            self.baseline.observe(control_n, control_k);
        }
        (n, k)
    }

    /// The share of failures that is allowed; `None` as long as there is no baseline to compare with.
    fn allowed(&self) -> Option<f64> {
        let worse = |margin| self.baseline.threshold(margin).map(|Threshold { p0, .. }| p0);
        match (self.guard.bound, self.direction) {
            (GuardBound::Above(share), _) => Some(share),
            (GuardBound::Below(share), _) => Some(1.0 - share),
            (GuardBound::Worse(flag::Margin::Absolute(amount)), _) => worse(Margin::Absolute(amount)),
            // Of success, when more is better; of failure, when less is.
            (GuardBound::Worse(flag::Margin::Relative(share)), Direction::Lower) => {
                worse(Margin::Absolute(0.0)).map(|failing| (failing * (1.0 + share)).min(BASELINE_CAP))
            }
            (GuardBound::Worse(flag::Margin::Relative(share)), _) => worse(Margin::Relative(share)),
        }
    }
}

fn new(before: (u64, u64), now: (u64, u64)) -> (u64, u64) {
    match (now.0.checked_sub(before.0), now.1.checked_sub(before.1)) {
        (Some(n), Some(k)) => (n, k.min(n)),
        _ => (0, 0),
    }
}

/// Of several variants together.
pub fn together<'c>(counts: impl Iterator<Item = &'c Counts>) -> Counts {
    counts.fold(Counts::default(), |sum, counts| Counts {
        outcomes: sum.outcomes.saturating_add(counts.outcomes),
        failures: sum.failures.saturating_add(counts.failures),
        failing_units: sum.failing_units + counts.failing_units,
    })
}

/// Who counts as treated and who as baseline. Without a plan everybody is treated who does not have what a kill would serve.
pub fn arms(flag: &flag::Flag, counts: &BTreeMap<String, Counts>) -> [Counts; 2] {
    match &flag.rollout {
        Some(plan) => compared(plan.treatments.iter().map(String::as_str), &plan.baseline, counts),
        None => all_but(flag.served_by_a_kill(), counts),
    }
}

/// The same of a flag as a sidecar has it.
pub fn arms_of(flag: &CompiledFlag, counts: &BTreeMap<String, Counts>) -> [Counts; 2] {
    match flag.measured().and_then(|measured| Some((measured, measured.baseline.as_deref()?))) {
        Some((measured, baseline)) => compared(measured.treatments.iter().map(|name| &**name), baseline, counts),
        None => all_but(flag.kill_variant().map(|variant| variant.name.as_str()), counts),
    }
}

fn compared<'v>(treatments: impl Iterator<Item = &'v str>, baseline: &str, counts: &BTreeMap<String, Counts>) -> [Counts; 2] {
    [together(treatments.filter_map(|name| counts.get(name))), together(counts.get(baseline).into_iter())]
}

fn all_but(safe: Option<&str>, counts: &BTreeMap<String, Counts>) -> [Counts; 2] {
    let treated = counts.iter().filter(|(name, _)| Some(name.as_str()) != safe);
    [together(treated.map(|(_, counts)| counts)), Counts::default()]
}

impl std::fmt::Display for Fired {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { guard, metric, outcomes, failures, allowed, ln_evidence, ln_threshold, failing_units, attributed } = self;
        let share = |share: f64| Weight::Percent((share * f64::from(BUCKETS)).round() as u32);
        write!(f, "guard {guard}: {metric} failed {failures} of {outcomes} times where {} are allowed", share(*allowed))?;
        match attributed {
            None => {}
            Some(Attributed::Alone) => f.write_str(" and no baseline is known")?,
            Some(Attributed::Beside { baseline, .. }) => write!(f, " and {} of the baseline fail", share(*baseline))?,
        }
        write!(f, " ({failing_units} units within a minute; evidence e^{ln_evidence:.1}")?;
        if let Some(Attributed::Beside { ln_evidence, .. }) = attributed {
            write!(f, ", against the baseline e^{ln_evidence:.1}")?;
        }
        write!(f, ", bound e^{ln_threshold:.1})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(bound: GuardBound) -> Guard {
        Guard { name: "errors".into(), metric: "errors".into(), bound, attributable: false }
    }

    fn attributable() -> Watch {
        Watch::new(Guard { attributable: true, ..guard(GuardBound::Above(0.05)) }, Direction::Lower, 1)
    }

    /// The second at which it fires when so many of 20 outcomes fail in each.
    fn fires_at(watch: &mut Watch, failures: u64, control_failures: u64) -> Option<u64> {
        (1..600).find(|second| {
            let counts = |k: u64| Counts { outcomes: 20 * second, failures: k * second, failing_units: 20 };
            watch.tick(&counts(failures), &counts(control_failures)).is_some()
        })
    }

    #[test]
    fn half_of_all_failing_is_found_within_seconds_and_health_is_left_alone() {
        let watch = |bound| Watch::new(guard(bound), Direction::Lower, 1);
        assert_eq!(fires_at(&mut watch(GuardBound::Above(0.05)), 10, 0), Some(2));
        assert_eq!(fires_at(&mut watch(GuardBound::Above(0.05)), 1, 0), None);
    }

    #[test]
    fn an_incident_that_everybody_shares_kills_nobody() {
        let worse = || GuardBound::Worse(flag::Margin::Relative(0.1));
        assert_eq!(fires_at(&mut Watch::new(guard(worse()), Direction::Higher, 1), 15, 15), None);
        assert!(fires_at(&mut Watch::new(guard(worse()), Direction::Higher, 1), 10, 1).is_some_and(|second| second < 20));
        assert!(fires_at(&mut Watch::new(guard(worse()), Direction::Lower, 1), 10, 1).is_some_and(|second| second < 20));
    }

    #[test]
    fn an_attributable_guard_kills_for_what_the_flag_does_and_not_for_what_everybody_suffers() {
        for (failures, control_failures) in [(10, 0), (20, 0), (10, 1)] {
            let without = fires_at(&mut Watch::new(guard(GuardBound::Above(0.05)), Direction::Lower, 1), failures, control_failures);
            assert_eq!(fires_at(&mut attributable(), failures, control_failures), without, "{failures} and {control_failures} of 20");
            assert!(without.is_some_and(|second| second <= 2));
        }
        for everybody in [2, 15, 20] {
            assert!(fires_at(&mut Watch::new(guard(GuardBound::Above(0.05)), Direction::Lower, 1), everybody, everybody).is_some());
            assert_eq!(fires_at(&mut attributable(), everybody, everybody), None, "{everybody} of 20 on both sides");
        }
        // Worse than the baseline, and still within the bound.
        assert_eq!(fires_at(&mut attributable(), 1, 0), None);
    }

    #[test]
    fn a_shared_incident_that_is_over_is_not_held_against_the_flag() {
        let (mut watch, [mut treated, mut control]) = (attributable(), [(0, 0), (0, 0)]);
        let mut second = |failures: u64, control_failures: u64| {
            for (sum, failures) in [(&mut treated, failures), (&mut control, control_failures)] {
                *sum = (sum.0 + 20, sum.1 + failures);
            }
            let counts = |(outcomes, failures)| Counts { outcomes, failures, failing_units: 20 };
            watch.tick(&counts(treated), &counts(control))
        };
        let shared = [(0, 0); 60].into_iter().chain([(20, 20); 600]).chain([(0, 0); 30]);
        assert!(shared.into_iter().all(|(failures, control_failures)| second(failures, control_failures).is_none()));
        // What fails in an hour's average is what everybody suffered: the flag has to do worse than that.
        assert!((0..600).all(|_| second(1, 0).is_none()), "as many as the bound allows");
        let fired = (1..30).find_map(|at| second(20, 0).map(|fired| (at, fired)));
        let (at, fired) = fired.unwrap();
        assert!(at <= 10, "after {at} s");
        assert!(matches!(fired.attributed, Some(Attributed::Beside { .. })));
    }

    #[test]
    fn an_attributable_guard_without_a_concurrent_baseline_compares_with_the_last_one_or_decides_alone() {
        let counts = |outcomes, failures| Counts { outcomes, failures, failing_units: 20 };
        let mut watch = attributable();
        let alone = watch.tick(&counts(20, 20), &Counts::default()).unwrap();
        assert_eq!(alone.attributed, Some(Attributed::Alone));
        assert!(alone.to_string().contains("where 5% are allowed and no baseline is known (20 units"), "{alone}");
        // A stage of everybody: the revision has no baseline, and what was normal stays known.
        for (of_baseline, kills) in [(2, true), (98, false)] {
            let mut watch = attributable();
            assert_eq!(watch.tick(&counts(0, 0), &counts(100, of_baseline)), None);
            watch.begin_revision();
            let fired = (1..10).find_map(|second| watch.tick(&counts(20 * second, 20 * second), &Counts::default()));
            assert_eq!(fired.is_some(), kills, "{of_baseline} of 100 failed before");
        }
    }

    #[test]
    fn without_a_baseline_nothing_is_worse_than_it() {
        let mut watch = Watch::new(guard(GuardBound::Worse(flag::Margin::Absolute(0.1))), Direction::Lower, 1);
        let failing = Counts { outcomes: 1_000, failures: 1_000, failing_units: 100 };
        assert_eq!(watch.tick(&failing, &Counts::default()), None);
    }

    #[test]
    fn counts_that_fell_begin_anew() {
        let mut watch = Watch::new(guard(GuardBound::Above(0.05)), Direction::Lower, 1);
        watch.tick(&Counts { outcomes: 1_000, failures: 10, failing_units: 9 }, &Counts::default());
        assert_eq!(watch.tick(&Counts { outcomes: 5, failures: 5, failing_units: 9 }, &Counts::default()), None);
        assert_eq!(new((1_000, 10), (5, 5)), (0, 0));
    }

    #[test]
    fn a_pod_among_many_needs_as_much_more_evidence_as_there_are_pods() {
        let bound = |pods| {
            let mut watch = Watch::new(guard(GuardBound::Above(0.05)), Direction::Lower, 1);
            let failing = Counts { outcomes: 200, failures: 200, failing_units: 9 };
            watch.tick_as_one_of(pods, &failing, &Counts::default()).unwrap().ln_threshold
        };
        assert_eq!(bound(0), bound(1), "of nobody else is known");
        assert!((bound(800) - bound(1) - 800_f64.ln()).abs() < 1e-9);
        // Ten failures of ten decide for one pod, and not for a thousand.
        let fires = |pods| {
            let mut watch = Watch::new(guard(GuardBound::Above(0.05)), Direction::Lower, 1);
            watch.tick_as_one_of(pods, &Counts { outcomes: 11, failures: 11, failing_units: 9 }, &Counts::default()).is_some()
        };
        assert_eq!((fires(1), fires(1_000)), (true, false));
    }

    #[test]
    fn what_was_seen_while_somebody_else_decided_is_no_evidence_but_is_known_to_be_normal() {
        let counts = |outcomes, failures| Counts { outcomes, failures, failing_units: 9 };
        let mut watch = Watch::new(guard(GuardBound::Worse(flag::Margin::Absolute(0.1))), Direction::Lower, 1);
        (1..=20).for_each(|second| watch.observe(&counts(20 * second, 20 * second), &counts(20 * second, 0)));
        assert_eq!(watch.tick(&counts(400, 400), &counts(400, 0)), None);
        let fired = watch.tick(&counts(440, 440), &counts(400, 0)).unwrap();
        assert_eq!((fired.outcomes, fired.failures, fired.allowed), (40, 40, 0.1));
    }

    #[test]
    fn a_sidecar_compares_whom_the_control_plane_compares() {
        let flag = |more: &str| format!("variants: {{ a: 1, b: 2, c: 3 }}\n    defaultVariant: a\n    killVariant: b{more}");
        let plan = "\n    rules: [{ split: { weights: { a: 100, c: 0 } } }]\n    metrics: { errors: { kind: binomial, direction: lower } }\n    \
                    rollout: { baseline: a, treatments: [c], stages: [{ percent: 100 }] }";
        let counts = ["a", "b", "c"].map(|name| (name.to_owned(), Counts { outcomes: u64::from(name.as_bytes()[0]), ..Counts::default() }));
        for more in ["", plan] {
            let document = flag::Document::parse(&format!("flags:\n  f:\n    {}", flag(more))).unwrap();
            let compiled = flag::compile("f", &document.flags["f"], &flag::Segments::default()).unwrap();
            assert_eq!(arms_of(&compiled, &counts.clone().into()), arms(&document.flags["f"], &counts.clone().into()), "{more}");
        }
    }

    #[test]
    fn a_kill_says_what_it_saw() {
        let mut watch = Watch::new(guard(GuardBound::Above(0.05)), Direction::Lower, 1);
        let fired = watch.tick(&Counts { outcomes: 40, failures: 38, failing_units: 12 }, &Counts::default()).unwrap();
        assert!(fired.to_string().starts_with("guard errors: errors failed 38 of 40 times where 5% are allowed (12 units within a minute"));
        let fired = attributable()
            .tick(&Counts { outcomes: 40, failures: 38, failing_units: 12 }, &Counts { outcomes: 100, failures: 1, failing_units: 1 });
        let told = fired.unwrap().to_string();
        assert!(told.contains("where 5% are allowed and 1% of the baseline fail (12 units within a minute; evidence e^"), "{told}");
        assert!(told.contains(", against the baseline e^") && told.ends_with(", bound e^18.6)"), "{told}");
    }
}
