//! Every section of the vectors, with the tolerances that they give.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;
use yardarm::rollout::statistics::{
    ALPHA_SAMPLE_RATIO, Arm, Baselines, Boundary, CONCENTRATIONS, Contrast, Counters, Cusum, Decision, Direction, Evaluated, Fixed, Gate,
    Interval, Margin, Mode, Noted, OnDeadline, Reason, Record, SampleRatio, Situation, Units, Verdict, certifiable, chi_square, decide,
    difference, dirichlet, lift, ln_threshold, non_inferiority, proportion_interval, rate_ratio_interval, sample_ratio, sample_size,
    two_proportions, welch,
};

static VECTORS: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(include_str!("../../data/statistics/statistics.json")).unwrap());

fn items(section: &str, expected: usize) -> &'static [Value] {
    let section = &VECTORS[section];
    let items = section.get("items").unwrap_or(section).as_array().unwrap();
    assert_eq!(items.len(), expected);
    items
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn count(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_f64().map(|float| float as u64)).unwrap_or_else(|| panic!("{value} is no count"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn counts(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(count).collect()
}

#[track_caller]
fn near(found: f64, expected: &Value) {
    within(found, number(expected), 1e-9 * number(expected).abs().max(1e-3));
}

#[track_caller]
fn within(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found} instead of {expected}, which may differ by {tolerance}");
}

fn direction(value: &Value) -> Direction {
    serde_json::from_value(value.clone()).unwrap()
}

/// The vectors write a margin as the contrast that it is.
fn margin(inputs: &Value) -> Margin {
    let (r, delta) = (number(&inputs["r"]), number(&inputs["delta"]));
    if r == 1.0 { Margin::Absolute(delta) } else { Margin::Relative((1.0 - r).abs()) }
}

fn share(inputs: &Value, n: &str, k: &str) -> Arm {
    Arm::Binomial { n: count(&inputs[n]), k: count(&inputs[k]) }
}

fn mean(value: &Value) -> Arm {
    Arm::Mean { n: count(&value["n"]), sum: number(&value["sum"]), sum_sq: number(&value["sum_sq"]), origin: 0.0 }
}

#[test]
fn boundaries() {
    for item in items("acs_boundary", 40) {
        let (alpha, planned, units) = (number(&item["alpha"]), number(&item["n_opt"]), number(&item["N"]));
        let (one, two) = (Boundary::one_sided(alpha, planned), Boundary::two_sided(alpha, planned));
        near(one.rho(), &item["rho_one"]);
        near(two.rho(), &item["rho_two"]);
        near(one.critical(units), &item["c_one"]);
        near(two.critical(units), &item["c_two"]);
    }
}

#[test]
fn anytime_p_values() {
    for item in items("acs_pvalue", 16) {
        let (alpha, planned) = (number(&item["alpha_for_rho"]), number(&item["n_opt"]));
        let (z, units) = (number(&item["z"]), number(&item["N"]));
        let two = Boundary::two_sided(alpha, planned);
        near(two.ln_e(z, units), &item["log_e_two"]);
        near(two.p_value(z, units), &item["p_two"]);
        near(Boundary::one_sided(alpha, planned).p_value(z, units), &item["p_one"]);
    }
}

#[test]
fn gates() {
    for item in items("gate", 9) {
        let (inputs, expected) = (&item["inputs"], &item["expected"]);
        let ratio = |arm: &Value| {
            let [_, sx, sy, sxx, syy, sxy] = numbers(arm)[..] else { panic!("{arm}") };
            Arm::Ratio { m: count(&arm[0]), sx, sy, sxx, syy, sxy }
        };
        let mean = |n: &str, sum: &str, sum_sq: &str| Arm::Mean {
            n: count(&inputs[n]),
            sum: number(&inputs[sum]),
            sum_sq: number(&inputs[sum_sq]),
            origin: 0.0,
        };
        let (treatment, control) = match item["kind"].as_str() {
            Some("binomial") => (share(inputs, "n1", "k1"), share(inputs, "n0", "k0")),
            Some("mean") => (mean("n1", "s1", "q1"), mean("n0", "s0", "q0")),
            _ => (ratio(&inputs["a1"]), ratio(&inputs["a0"])),
        };
        let gate = Gate {
            alpha_pass: number(&inputs["alpha_pass"]),
            alpha_fail: number(&inputs["alpha_fail"]),
            ..Gate::new(direction(&inputs["direction"]), margin(inputs), Mode::NonInferior, number(&inputs["n_opt"]))
        };
        let judgement = gate.judge(&treatment, &control);
        let tested = &judgement.tests[0];
        near(judgement.treatment.unwrap(), &expected["est1"]);
        near(judgement.control.unwrap(), &expected["est0"]);
        near(tested.measured.variance_own, &expected["var1_own"]);
        near(tested.measured.variance_at_margin, &expected["var1_null"]);
        near(tested.measured.variance_control, &expected["var0"]);
        near(tested.measured.psi, &expected["psi"]);
        near(tested.measured.se, &expected["se"]);
        near(tested.measured.z, &expected["z"]);
        near(tested.critical_pass, &expected["c_pass"]);
        near(tested.critical_fail, &expected["c_fail"]);
        near(tested.bound_pass, &expected["bound_pass"]);
        near(tested.bound_fail, &expected["bound_fail"]);
        near(tested.margin, &expected["margin"]);
        near(tested.p_pass, &expected["p_pass"]);
        assert_eq!(serde_json::to_value(judgement.verdict).unwrap(), expected["verdict"], "{}", item["id"]);
    }
}

/// A share and the square of its standard error as Wald has it: the vectors of intervals are of others' programs.
fn wald(n: u64, k: u64) -> (f64, f64) {
    let share = k as f64 / n as f64;
    (share, share * (1.0 - share) / n as f64)
}

#[test]
fn intervals_that_are_shown() {
    for item in items("display_cs", 2) {
        let of = |n: &str, k: &str| wald(count(&item[n]), count(&item[k]));
        let (one, zero) = (of("n1", "k1"), of("n0", "k0"));
        let critical =
            Boundary::two_sided(number(&item["alpha"]), number(&item["n_opt"])).critical(number(&item["n1"]) + number(&item["n0"]));
        near(critical, &item["c_two"]);
        let ends = |interval: Option<Interval>, expected: &Value| {
            near(interval.unwrap().low, &expected[0]);
            near(interval.unwrap().high, &expected[1]);
        };
        ends(difference(one, zero, critical), &item["cs"]);
        ends(lift(one, zero, critical), &item["fieller_lift_cs"]);
    }
}

#[test]
fn sample_ratios() {
    for item in items("srm", 9) {
        let (found, allocation) = (counts(&item["counts"]), numbers(&item["theta0"]));
        let tolerance = number(&item["tol_abs_log_e"]);
        for concentration in CONCENTRATIONS {
            let prior: Vec<f64> = allocation.iter().map(|share| share * concentration).collect();
            let expected = &item["log_e_by_concentration"][concentration.to_string()];
            within(dirichlet(&prior, &found, &allocation).unwrap(), number(expected), tolerance);
        }
        let ln_e = sample_ratio(&found, &allocation);
        within(ln_e.unwrap(), number(&item["log_e"]), tolerance);
        let mut stage = SampleRatio::default();
        stage.look(ln_e);
        within(stage.p_value(), number(&item["p_anytime"]), tolerance * number(&item["p_anytime"]));
        assert_eq!(Value::from(stage.alarms(ALPHA_SAMPLE_RATIO)), item["alert_alpha_0_001"], "{item}");
        let fixed = chi_square(&found, &allocation).unwrap();
        near(fixed.statistic, &item["chi2"]);
        within(fixed.p, number(&item["chi2_p_fixed_horizon"]), 1e-9 * number(&item["chi2_p_fixed_horizon"]));
    }
}

/// The crate has Jeffreys' prior; the other one of the vectors is checked where it can be given, in `mixture.rs`.
#[test]
fn exact_intervals_of_a_share() {
    let of_jeffreys: Vec<_> = items("binomial_cs_exact", 11).iter().filter(|item| numbers(&item["prior"]) == [0.5, 0.5]).collect();
    assert_eq!(of_jeffreys.len(), 6);
    for item in of_jeffreys {
        let interval = proportion_interval(count(&item["k"]), count(&item["n"]), number(&item["alpha"])).unwrap();
        within(interval.low, number(&item["lo"]), 1e-9);
        within(interval.high, number(&item["hi"]), 1e-9);
    }
}

#[test]
fn exact_intervals_of_a_ratio_of_rates() {
    for item in items("event_rate_ratio_exact", 3) {
        let (treatment, control) = (count(&item["k1"]), count(&item["k0"]));
        let interval = rate_ratio_interval(treatment, control, number(&item["alloc1"]), number(&item["alpha"])).unwrap();
        within(interval.low, number(&item["rate_ratio_cs"][0]), 1e-8);
        within(interval.high, number(&item["rate_ratio_cs"][1]), 1e-8);
    }
}

#[test]
fn triggers() {
    // The default horizon: 14 days of ticks of a second.
    let ln_a = ln_threshold(14 * 86_400, 1, 0.01);
    for item in items("ecusum", 3) {
        near(ln_a, &item["ln_A"]);
        let (mut cusum, mut fired) = (Cusum::default(), None);
        let ticks = item["batches_k_n"].as_array().unwrap();
        for (at, (batch, expected)) in ticks.iter().zip(item["ln_M"].as_array().unwrap()).enumerate() {
            let (failures, requests) = (count(&batch[0]), count(&batch[1]));
            assert_eq!(cusum.step(requests, failures, number(&item["p0"])), requests > 0);
            near(cusum.ln_evidence(), expected);
            fired = fired.or(cusum.fires(ln_a, 3).then_some(at as u64 + 1));
        }
        assert_eq!(fired, item["fires_at_tick"].as_u64(), "{}", item["id"]);
        cusum.bets().iter().zip(item["final_W"].as_array().unwrap()).for_each(|(bet, expected)| near(*bet, expected));
        let stored: Cusum = serde_json::from_str(&serde_json::to_string(&cusum).unwrap()).unwrap();
        assert_eq!(stored, cusum);
    }
}

#[test]
fn tests_at_a_fixed_horizon() {
    let items = items("fixed_horizon", 3);
    let test = welch(&mean(&items[0]["arm1"]), &mean(&items[0]["arm0"])).unwrap();
    let expected = &items[0]["expected"];
    near(test.t, &expected["t"]);
    near(test.df, &expected["df"]);
    near(test.p, &expected["p"]);
    near(test.interval.low, &expected["ci95"][0]);
    near(test.interval.high, &expected["ci95"][1]);
    for item in &items[1..] {
        let (treatment, control, expected) = (share(item, "n1", "k1"), share(item, "n0", "k0"), &item["expected"]);
        let pooled = two_proportions(&treatment, &control).unwrap();
        near(pooled.z, &expected["z_pooled"]);
        near(pooled.p, &expected["p_two_sided"]);
        let contrast = Contrast::new(Direction::Higher, Margin::Absolute(0.02));
        let test = non_inferiority(contrast, &treatment, &control).unwrap();
        near(test.z, &expected["z_noninf"]);
        within(test.p, number(&expected["p_noninf"]), 1e-9 * number(&expected["p_noninf"]));
        let (planned_treatment, planned_control) = (treatment.units(), control.units());
        let locked = Fixed { contrast, alpha: 0.05, planned_treatment, planned_control }.judge(&treatment, &control).unwrap();
        assert_eq!((locked.statistic, locked.passes), (test.z, test.p < 0.05));
    }
}

#[test]
fn sample_sizes() {
    for item in items("plan", 12) {
        let baseline = Baselines::Share(number(&item["p0"]));
        let contrast = Contrast::new(direction(&item["direction"]), margin(item));
        let kappa = number(&item["control_per_treatment"]);
        let size = sample_size(baseline, contrast, kappa, number(&item["alpha"]), number(&item["power"])).unwrap();
        near(size.exact, &item["n1"]);
        assert_eq!(size.treatment, count(&item["n1_ceil"]));
        near(size.planned, &item["n_opt"]);
    }
}

/// In points: what 500 units of each variant rule out at best.
#[test]
fn five_hundred_sessions_of_each_variant_certify_little() {
    for (share, direction, points) in [
        (0.05, Direction::Higher, 3.9),
        (0.10, Direction::Higher, 5.3),
        (0.50, Direction::Higher, 8.8),
        (0.95, Direction::Higher, 4.6),
        (0.98, Direction::Higher, 3.4),
        (0.02, Direction::Lower, 3.4),
    ] {
        let certified = certifiable(Baselines::Share(share), direction, 500, 500, 0.05).unwrap();
        within(certified * 100.0, points, 0.05);
    }
}

#[test]
fn figures_that_others_published() {
    let items = items("published", 13);
    let by = |id: &str| items.iter().find(|item| item["id"].as_str().is_some_and(|found| found.starts_with(id))).unwrap();
    let published = |id: &str| (number(&by(id)["published"]), number(&by(id)["tol"]));
    let check = |id: &str, found: f64| {
        let (expected, tolerance) = published(id);
        within(found, expected, tolerance);
    };
    let (two, one) = (Boundary::two_sided(0.05, 100.0), Boundary::one_sided(0.05, 100.0));
    check("confseq best_rho", two.rho().powi(-2));
    check("confseq normal_mixture_bound two-sided", two.critical(100.0) * 10.0);
    check("confseq normal_log_mixture two-sided", two.ln_e(1.0, 100.0));
    // Ours is the closed form, which is never below the exact one-sided mixture and hardly above it.
    let exact = by("confseq one-sided normal_mixture_bound exact");
    near(one.critical(100.0) * 10.0, &exact["closed_form"]);
    assert!(one.critical(100.0) * 10.0 > number(&exact["published"]));
    let (tau, exact) = (100.0 * one.rho().powi(2), published("confseq one-sided normal_log_mixture").0);
    let closed = (2.0 * (tau / (2.0 * (1.0 + tau))).exp_m1() / (1.0 + tau).sqrt()).ln();
    assert!(closed < exact && one.p_value(1.0, 100.0) == 1.0);

    let sequential = by("gbstats sequential one-sided");
    let (treatment, control) = (mean(&sequential["inputs"]["arm1"]), mean(&sequential["inputs"]["arm0"]));
    let estimated = |arm: &Arm| (arm.estimate().unwrap(), arm.variance().unwrap() / arm.units() as f64);
    let (x1, x0) = (estimated(&treatment), estimated(&control));
    let interval = difference(x1, x0, Boundary::one_sided(0.05, 5000.0).critical(6461.0)).unwrap();
    within(interval.low, number(&sequential["published"][0]), 1e-9);
    within(interval.high, number(&sequential["published"][1]), 1e-9);
    // GrowthBook shows lifts by the delta method: the boundary is the same.
    let relative = |x1: (f64, f64), x0: (f64, f64), planned: f64| {
        let (lift, error) = (x1.0 / x0.0 - 1.0, (x1.1 / x0.0.powi(2) + x0.1 * x1.0.powi(2) / x0.0.powi(4)).sqrt());
        let half = Boundary::two_sided(0.05, planned).critical(6461.0) * error;
        (lift - half, lift + half)
    };
    let (low, high) = relative(x1, x0, 1000.0);
    let expected = &by("gbstats sequential two-sided, relative, n_opt=1000")["published"];
    within(low, number(&expected[0]), 1e-5);
    within(high, number(&expected[1]), 1e-5);
    let (low, high) = relative(wald(3461, 2422), wald(3000, 1396), 5000.0);
    let expected = &by("gbstats sequential two-sided, relative, proportions")["published"]["cs"];
    within(low, number(&expected[0]), 1e-5);
    within(high, number(&expected[1]), 1e-5);

    let allocation = [0.1, 0.4, 0.5];
    let multinomial = dirichlet(&allocation.map(|share| share * 100.0), &[40, 129, 233], &allocation).unwrap();
    check("savvi Multinomial", (-multinomial).exp());
    let allocation = [0.1, 0.5, 0.4];
    let ssrm = dirichlet(&allocation.map(|share| share * 10_000.0), &[2, 1, 7], &allocation).unwrap();
    within(ssrm.exp(), number(&by("optimizely ssrm regression")["published_bayes_factor"]), 1e-9);
    check("optimizely ssrm time-aggregated", dirichlet(&[1.0, 1.0, 1.0], &[60, 63, 32], &[0.4, 0.4, 0.2]).unwrap());
    check("SRM chi-square 600/400", chi_square(&[600, 400], &[0.5, 0.5]).unwrap().p);
    check("SRM chi-square 821588", chi_square(&[821_588, 815_482], &[0.5, 0.5]).unwrap().p);
}

#[test]
fn decisions() {
    for item in items("decision", 14) {
        let inputs = &item["inputs"];
        let names = |field: &str| -> Vec<String> { serde_json::from_value(inputs[field].clone()).unwrap() };
        let (warn, immature) = (names("warn"), names("immature_metrics"));
        let metric = |name: &String, verdict: &Value| Evaluated {
            verdict: serde_json::from_value(verdict.clone()).unwrap(),
            warn: warn.contains(name),
            mode: serde_json::from_value(inputs["modes"][name].clone()).unwrap(),
            on_fail: serde_json::from_value(inputs["on_fail"][name].clone()).unwrap(),
            required: true,
            fresh: inputs["data"] == "fresh",
            mature: !immature.contains(name),
        };
        let metrics: BTreeMap<_, _> =
            inputs["verdicts"].as_object().unwrap().iter().map(|(name, verdict)| (name.clone(), metric(name, verdict))).collect();
        let flag = |field: &str| inputs[field].as_bool().unwrap();
        let situation = Situation {
            trigger_fired: flag("trigger_fired"),
            sample_ratio_alarm: flag("srm_alert"),
            crossover_share: number(&inputs["crossover_rate"]),
            elapsed_s: count(&inputs["elapsed_s"]),
            min_elapsed_s: count(&inputs["min_elapsed_s"]),
            deadline_s: count(&inputs["deadline_s"]),
            on_deadline: OnDeadline::Pause,
            units: counts(&inputs["units"]),
            min_units: count(&inputs["min_units"]),
            metrics,
            manual_gate: flag("manual_gate"),
            approved: flag("approved"),
        };
        let decided = decide(&situation);
        assert_eq!(serde_json::to_value(decided.decision).unwrap(), item["decision"], "{}", item["id"]);
        assert_eq!(in_the_words_of_the_vectors(&decided.reason), item["reason"].as_str().unwrap(), "{}", item["id"]);
        let stored: Situation = serde_json::from_str(&serde_json::to_string(&situation).unwrap()).unwrap();
        assert_eq!(decide(&stored), decided);
    }
}

fn in_the_words_of_the_vectors(reason: &Reason) -> String {
    match reason {
        Reason::GuardrailTrigger => "guardrail_trigger".to_owned(),
        Reason::SampleRatio => "srm".to_owned(),
        Reason::Crossover => "crossover".to_owned(),
        Reason::MetricFailed { metrics } => format!("metric_failed:{}", metrics.join(",")),
        Reason::NoData { .. } => "no_data".to_owned(),
        Reason::MinElapsed => "min_elapsed".to_owned(),
        Reason::MinUnits => "min_units".to_owned(),
        Reason::Immature { metrics } => format!("immature:{}", metrics.join(",")),
        Reason::Warning { metrics } => format!("warning:{}", metrics.join(",")),
        Reason::Undecided { metrics } => format!("undecided:{}", metrics.join(",")),
        Reason::ManualGate => "manual_gate".to_owned(),
        Reason::AllGatesPassed => "all_gates_passed".to_owned(),
    }
}

/// The rows of the table that the vectors have no case of.
#[test]
fn rows_of_the_table_without_a_vector() {
    let metric = Evaluated {
        verdict: Verdict::Pass,
        warn: false,
        mode: Mode::NonInferior,
        on_fail: yardarm::rollout::statistics::OnFail::Pause,
        required: true,
        fresh: true,
        mature: true,
    };
    let stage = Situation {
        trigger_fired: false,
        sample_ratio_alarm: false,
        crossover_share: 0.01,
        elapsed_s: 10,
        min_elapsed_s: 10,
        deadline_s: 20,
        on_deadline: OnDeadline::Pause,
        units: vec![500, 500],
        min_units: 500,
        metrics: BTreeMap::from([("a".to_owned(), metric.clone()), ("b".to_owned(), metric.clone())]),
        manual_gate: false,
        approved: false,
    };
    let decision = |change: &dyn Fn(&mut Situation)| {
        let mut situation = stage.clone();
        change(&mut situation);
        decide(&situation).decision
    };
    fn b(situation: &mut Situation) -> &mut Evaluated {
        situation.metrics.get_mut("b").unwrap()
    }
    assert_eq!(decision(&|_| ()), Decision::Advance);
    assert_eq!(decision(&|stage| stage.crossover_share = f64::NAN), Decision::Pause);
    assert_eq!(decision(&|stage| stage.elapsed_s = 9), Decision::Wait);
    assert_eq!(decision(&|stage| stage.manual_gate = true), Decision::AwaitApproval);
    assert_eq!(decision(&|stage| b(stage).fresh = false), Decision::Wait);
    assert_eq!(decision(&|stage| (b(stage).fresh, b(stage).required) = (false, false)), Decision::Advance);
    let undecided = |on_deadline, mode, warn| {
        decision(&|stage| {
            (stage.on_deadline, stage.elapsed_s) = (on_deadline, 20);
            (b(stage).verdict, b(stage).mode, b(stage).warn) = (Verdict::Wait, mode, warn);
        })
    };
    assert_eq!(undecided(OnDeadline::Pause, Mode::Superior, false), Decision::Pause);
    assert_eq!(undecided(OnDeadline::Rollback, Mode::Equivalent, false), Decision::Rollback);
    assert_eq!(undecided(OnDeadline::Extend, Mode::NonInferior, true), Decision::Wait);
    assert_eq!(undecided(OnDeadline::Extend, Mode::NoHarm, true), Decision::Pause);
    assert_eq!(undecided(OnDeadline::Extend, Mode::NoHarm, false), Decision::Advance);
    // One that rolls back wins over one that pauses, and not by its name.
    let failing = |situation: &mut Situation| {
        situation.metrics.values_mut().for_each(|metric| metric.verdict = Verdict::Fail);
        b(situation).on_fail = yardarm::rollout::statistics::OnFail::Rollback;
    };
    assert_eq!(decision(&failing), Decision::Rollback);
}

#[test]
fn counters() {
    for item in items("counters", 2) {
        let mut counters = Counters::default();
        let (mut duplicates, mut regressions) = (0, 0);
        for report in item["reports"].as_array().unwrap() {
            let name = |at: usize| report[at].as_str().unwrap();
            match counters.report(name(0), name(1), count(&report[2]), count(&report[3]), count(&report[4])) {
                Noted::Counted => {}
                Noted::Duplicate => duplicates += 1,
                Noted::Regression => regressions += 1,
                noted => panic!("{report} was {noted:?}"),
            }
        }
        assert_eq!(counters.total(), (count(&item["total"]["n"]), count(&item["total"]["k"])), "{}", item["id"]);
        assert_eq!((duplicates, regressions), (count(&item["duplicates"]), count(&item["regressions"])));
        let stored: Counters = serde_json::from_str(&serde_json::to_string(&counters).unwrap()).unwrap();
        assert_eq!(stored, counters);
    }
}

#[test]
fn cohorts_of_units() {
    let variants = ["T", "C"];
    for item in items("lag", 1) {
        let mut units = Units::default();
        for (hash, unit) in item["units"].as_array().unwrap().iter().enumerate() {
            for exposure in unit["exposures"].as_array().unwrap() {
                let variant = variants.iter().position(|variant| exposure[1] == **variant).unwrap();
                assert!(units.merge(hash as u64, &Record::exposed(count(&exposure[0]), variant as u16)));
            }
            counts(&unit["events"]).into_iter().for_each(|event| assert!(units.merge(hash as u64, &Record::succeeded(event))));
        }
        let (cohort, expected) = (units.cohort(2, count(&item["lag_s"]), count(&item["watermark"])), &item["expected"]);
        for (place, variant) in variants.into_iter().enumerate() {
            let (n, k) = (count(&expected[variant]["n"]), count(&expected[variant]["k"]));
            assert_eq!(cohort.arm(place as u16), Some(Arm::Binomial { n, k }), "{variant}");
        }
        assert_eq!((cohort.immature, cohort.crossover), (count(&expected["immature"]), count(&expected["crossover"])));
        let stored: Units = serde_json::from_str(&serde_json::to_string(&units).unwrap()).unwrap();
        assert_eq!(stored, units);
    }
}
