//! What holds of any evidence.

use proptest::prelude::*;
use yardarm::rollout::statistics::{
    Arm, Baseline, Baselines, Boundary, Contrast, Cusum, Direction, Gate, Judgement, Margin, Mode, Stage, Verdict, Waiting, coverage,
    ln_threshold, proportion_interval, sample_ratio, welch,
};

fn directions() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Higher), Just(Direction::Lower)]
}

fn modes() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::NoHarm), Just(Mode::NonInferior), Just(Mode::Superior), Just(Mode::Equivalent)]
}

fn margins() -> impl Strategy<Value = Margin> {
    prop_oneof![(0.0..0.5f64).prop_map(Margin::Relative), (0.0..0.2f64).prop_map(Margin::Absolute)]
}

/// Numbers as they come from outside, the worst among them.
fn anything() -> impl Strategy<Value = f64> {
    prop_oneof![3 => -1e6..1e6f64, 1 => any::<f64>(), 1 => Just(f64::NAN), 1 => Just(f64::INFINITY), 1 => Just(0.0)]
}

fn any_arm() -> impl Strategy<Value = Arm> {
    let count = || prop_oneof![0..2000u64, any::<u64>()];
    prop_oneof![
        (count(), count()).prop_map(|(n, k)| Arm::Binomial { n, k }),
        (0..2000u64).prop_map(|n| Arm::Binomial { n, k: n / 3 }),
        (count(), anything(), anything(), anything()).prop_map(|(n, sum, sum_sq, origin)| Arm::Mean { n, sum, sum_sq, origin }),
        (count(), anything(), anything(), anything(), anything(), anything()).prop_map(|(m, sx, sy, sxx, syy, sxy)| Arm::Ratio {
            m,
            sx,
            sy,
            sxx,
            syy,
            sxy
        }),
    ]
}

fn whole_arm() -> impl Strategy<Value = Arm> {
    let value = || (0..100u32).prop_map(f64::from);
    prop_oneof![
        (0..3000u64, 0..3000u64).prop_map(|(a, b)| Arm::Binomial { n: a.max(b), k: a.min(b) }),
        (0..3000u64, value(), value()).prop_map(|(n, sum, sum_sq)| Arm::Mean { n, sum, sum_sq, origin: 7.0 }),
        (0..3000u64, value(), value(), value()).prop_map(|(m, x, y, xy)| Arm::Ratio { m, sx: x, sy: y, sxx: x, syy: y, sxy: xy }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Where bounds are, and away from 0 and 1: there the variance with one more success and one more failure may grow faster than the
    /// difference, and a better result be less certain.
    #[test]
    fn more_successes_never_lower_z(
        n1 in 100..5000u64, n0 in 1..5000u64, k1 in 0.1..0.9f64, k0 in any::<prop::sample::Index>(),
        direction in directions(), margin in margins(),
    ) {
        let (k1, control) = ((n1 as f64 * k1) as u64, Arm::Binomial { n: n0, k: k0.index(n0 as usize + 1) as u64 });
        let contrast = Contrast::new(direction, margin);
        let z = |k| contrast.measure(&Arm::Binomial { n: n1, k }, &control).unwrap().z.clamp(-5.0, 5.0);
        let (worse, better) = match direction {
            Direction::Higher => (z(k1), z(k1 + 1)),
            Direction::Lower => (z(k1 + 1), z(k1)),
        };
        prop_assert!(better >= worse, "{} after {}", better, worse);
    }

    #[test]
    fn merging_is_commutative(a in whole_arm(), b in whole_arm()) {
        prop_assert_eq!(a.merge(&b), b.merge(&a));
        prop_assert_eq!(a.merge(&b).map(|both| both.units()), a.merge(&b).map(|_| a.units() + b.units()));
    }

    #[test]
    fn a_trigger_never_fires_without_a_failure(ticks in prop::collection::vec((0..5000u64, 0.0..1.0f64), 0..200)) {
        let mut cusum = Cusum::default();
        for (requests, p0) in ticks {
            cusum.step(requests, 0, p0);
            prop_assert!(cusum.ln_evidence() <= 1e-9);
            prop_assert!(!cusum.fires(ln_threshold(1, 1, 0.5), usize::MAX));
        }
    }

    #[test]
    fn more_failures_are_never_less_evidence(n in 1..1000u64, k in any::<prop::sample::Index>(), p0 in 0.001..0.9f64) {
        let evidence = |k| {
            let mut cusum = Cusum::default();
            cusum.step(n, k, p0);
            cusum.ln_evidence()
        };
        let k = k.index(n as usize) as u64;
        prop_assert!(evidence(k + 1) >= evidence(k));
    }

    #[test]
    fn bounds_shrink_with_more_units(n in 100..20_000u64, of_ten in 1..10u64, planned in 500.0..50_000.0f64) {
        let gate = Gate::new(Direction::Higher, Margin::Absolute(0.02), Mode::NonInferior, planned);
        let width = |n: u64| {
            let arm = Arm::Binomial { n: 10 * n, k: of_ten * n };
            let tested = gate.judge(&arm, &arm).tests[0];
            tested.bound_fail - tested.bound_pass
        };
        prop_assert!(width(2 * n) < width(n));
        let exact = |n: u64| proportion_interval(of_ten * n, 10 * n, 0.05).map(|interval| interval.high - interval.low);
        prop_assert!(exact(2 * n) < exact(n));
    }

    #[test]
    fn a_stricter_alpha_asks_for_more(units in 1.0..1e7f64, planned in 100.0..1e6f64, alpha in 0.001..0.2f64) {
        prop_assert!(Boundary::one_sided(alpha / 2.0, planned).critical(units) > 0.0);
        prop_assert!(Boundary::two_sided(alpha, planned).critical(planned) > Boundary::one_sided(alpha, planned).critical(planned));
        prop_assert!(Boundary::one_sided(alpha / 2.0, planned).critical(planned) > Boundary::one_sided(alpha, planned).critical(planned));
    }

    #[test]
    fn no_input_is_a_panic_and_every_judgement_can_be_stored(
        arms in (any_arm(), any_arm()), direction in directions(), mode in modes(), numbers in prop::array::uniform4(anything()), relative in any::<bool>(),
    ) {
        let (treatment, control) = arms;
        let [margin, planned_units, alpha_pass, alpha_fail] = numbers;
        let sane = Gate::new(direction, Margin::Absolute(0.02), mode, 1000.0);
        let margin = if relative { Margin::Relative(margin) } else { Margin::Absolute(margin) };
        let wild = Gate { margin, planned_units, alpha_pass, alpha_fail, ..sane.clone() };
        for gate in [sane, wild] {
            let judgement = gate.judge(&treatment, &control);
            prop_assert_eq!(judgement.verdict == Verdict::Wait, judgement.waiting.is_some());
            let stored: Judgement = serde_json::from_str(&serde_json::to_string(&judgement).unwrap()).unwrap();
            prop_assert_eq!(stored, judgement);
        }
        welch(&treatment, &control);
        let (n, k) = (treatment.units(), control.units());
        proportion_interval(k, n, numbers[0]);
        sample_ratio(&[n, k], &numbers[..2]);
        coverage(&[k, 3], &[n, 5]);
        let mut baseline = Baseline::default();
        baseline.observe(n, k);
        if let Some(threshold) = baseline.threshold(margin) {
            Cusum::default().step(n, k, threshold.p0);
        }
        let stage = Stage { share: numbers[0], days: numbers[1], units_per_day: numbers[2] };
        let other = Stage { share: 0.1, days: 3.0, units_per_day: 1e4 };
        for stage in [stage, other] {
            for baseline in [Baselines::Share(numbers[3]), Baselines::Mean { mean: numbers[0], variance: numbers[1] }] {
                let _ = stage.feasibility(baseline, direction, margin, mode);
            }
        }
    }
}

/// Why a gate waits, in the order in which it is asked.
#[test]
fn a_gate_says_why_it_waits() {
    let gate = Gate::new(Direction::Higher, Margin::Relative(0.05), Mode::NonInferior, 1000.0);
    let share = |n: u64| Arm::Binomial { n, k: n };
    let mean = |n: u64, value: f64| Arm::Mean { n, sum: 0.0, sum_sq: 0.0, origin: value };
    let why = |treatment: Arm, control: Arm| gate.judge(&treatment, &control).waiting;
    assert_eq!(why(share(0), share(900)), Some(Waiting::NoData));
    assert_eq!(why(Arm::Ratio { m: 3, sx: 0.0, sy: 0.0, sxx: 0.0, syy: 0.0, sxy: 0.0 }, share(9)).map(|_| ()), Some(()));
    assert!(matches!(why(Arm::Binomial { n: 1, k: 2 }, share(900)), Some(Waiting::Impossible { .. })));
    assert!(matches!(why(share(900), mean(900, 1.0)), Some(Waiting::Impossible { .. })));
    assert_eq!(why(share(99), share(900)), Some(Waiting::BurnIn { units: 99, needed: 100 }));
    assert_eq!(why(share(499), share(900)), Some(Waiting::MinUnits { units: 499, needed: 500 }));
    assert_eq!(why(share(500), share(900)), None);
    assert_eq!(why(mean(900, 1.0), mean(900, 1.0)), Some(Waiting::ZeroVariance));
    let spread = |value: f64| Arm::Mean { n: 900, sum: 0.0, sum_sq: 899.0, origin: value };
    assert_eq!(why(spread(-9.0), spread(-9.0)), Some(Waiting::NegativeBaseline));
    assert_eq!(why(spread(0.5), spread(0.5)), Some(Waiting::Undecided));
}

/// "Within 5 % of baseline": too low fails, and so does too high.
#[test]
fn an_equivalent_metric_may_not_improve_either() {
    let gate = Gate::new(Direction::Higher, Margin::Relative(0.05), Mode::Equivalent, 20_000.0);
    let arm = |k: u64| Arm::Binomial { n: 10_000, k };
    let judged = |k: u64| gate.judge(&arm(k), &arm(8000));
    assert_eq!(judged(8000).verdict, Verdict::Pass);
    assert_eq!(judged(8000).tests.len(), 2);
    assert_eq!(judged(7000).verdict, Verdict::Fail);
    assert_eq!(judged(9000).verdict, Verdict::Fail);
    assert!(!judged(7000).warn);
}

#[test]
fn a_loss_within_the_margin_is_a_warning() {
    let gate = Gate::new(Direction::Higher, Margin::Absolute(0.05), Mode::NoHarm, 40_000.0);
    let judgement = gate.judge(&Arm::Binomial { n: 20_000, k: 1700 }, &Arm::Binomial { n: 20_000, k: 2000 });
    assert!(judgement.warn && judgement.verdict == Verdict::Pass, "{judgement:?}");
    assert!(judgement.difference.unwrap().high < 0.0 && judgement.lift.unwrap().high < 0.0);
}

#[test]
fn a_pass_stays_and_a_fail_wins() {
    use Verdict::{Fail, Pass, Wait};
    for (before, now, expected) in [(Pass, Wait, Pass), (Wait, Pass, Pass), (Pass, Fail, Fail), (Fail, Pass, Fail), (Wait, Wait, Wait)] {
        assert_eq!(now.after(before), expected, "{before:?} then {now:?}");
    }
}

/// The seed's table: sessions a day for a stage of 1 % in 2 days, 10 % in 4, 50 % in 7.
#[test]
fn a_stage_says_beforehand_what_it_needs() {
    let stages = [(0.01, 2.0), (0.1, 4.0), (0.5, 7.0)];
    let needed = |baseline: f64, direction, margin| {
        stages.map(|(share, days)| {
            let stage = Stage { share, days, units_per_day: 50_000.0 };
            stage.feasibility(Baselines::Share(baseline), direction, margin, Mode::NonInferior).unwrap().units_per_day_needed
        })
    };
    let close = |found: [f64; 3], expected: [f64; 3]| {
        let fits = found.iter().zip(expected).all(|(found, expected)| (found / expected - 1.0).abs() < 0.05);
        assert!(fits, "{found:?} instead of {expected:?}");
    };
    close(needed(0.98, Direction::Higher, Margin::Relative(0.05)), [21e3, 1.1e3, 0.15e3]);
    close(needed(0.01, Direction::Lower, Margin::Absolute(0.01)), [152e3, 8e3, 1.3e3]);
    close(needed(0.10, Direction::Higher, Margin::Absolute(0.02)), [176e3, 9.7e3, 2e3]);
    close(needed(0.10, Direction::Higher, Margin::Relative(0.05)), [2.8e6, 153e3, 30e3]);
    close(needed(0.05, Direction::Higher, Margin::Relative(0.02)), [37e6, 2e6, 411e3]);
}

#[test]
fn a_stage_that_is_too_small_says_so() {
    let stage = Stage { share: 0.01, days: 2.0, units_per_day: 50_000.0 };
    let of = |share, margin| stage.feasibility(Baselines::Share(share), Direction::Higher, margin, Mode::NonInferior);
    let small = of(0.1, Margin::Absolute(0.02)).unwrap();
    assert!(!small.decidable && small.mode == Mode::NoHarm && small.treatment == 1000, "{small:?}");
    assert!(small.to_string().starts_with("not decidable: 3513 treated units are needed, 1000 expected"), "{small}");
    let large = of(0.98, Margin::Relative(0.05)).unwrap();
    assert!(large.decidable && large.mode == Mode::NonInferior, "{large}");
    let refused = |share, margin| of(share, margin).unwrap_err().to_string();
    assert!(refused(0.0005, Margin::Relative(0.05)).contains("`absolute`"));
    assert!(refused(0.1, Margin::Absolute(0.0)).contains("no room for chance"));
    assert!(refused(1.1, Margin::Absolute(0.02)).contains("1.1"));
    let everyone = Stage { share: 1.0, ..stage };
    let refused = everyone.feasibility(Baselines::Share(0.1), Direction::Higher, Margin::Absolute(0.02), Mode::NonInferior);
    assert!(refused.unwrap_err().to_string().contains("there is no control"));
}

/// The loss that a stage is said to find is found in four of five cases: counted over what binomial chance makes of it.
#[test]
fn a_loss_that_is_said_to_be_found_is_beyond_the_bound_by_its_reserve() {
    let stage = Stage { share: 0.5, days: 1.0, units_per_day: 10_000.0 };
    let plan = stage.feasibility(Baselines::Share(0.1), Direction::Higher, Margin::Absolute(0.02), Mode::NoHarm).unwrap();
    let (loss, gate) = (plan.detects.unwrap(), Gate::new(Direction::Higher, Margin::Absolute(0.02), Mode::NoHarm, 10_000.0));
    let arm = |share: f64| Arm::Binomial { n: 5000, k: (share * 5000.0).round() as u64 };
    assert!(gate.judge(&arm(0.1 - loss), &arm(0.1)).warn);
    assert!(!gate.judge(&arm(0.1 - 0.7 * loss), &arm(0.1)).warn);
}
