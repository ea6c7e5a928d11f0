//! A whole plan, from its planner to its last decision: 1 % for 2 days, 10 % for 4, 50 % for 7, with three metrics and a look each half hour.

use std::collections::BTreeMap;

use rand::rngs::StdRng;

use super::draw::{binomial, runs};
use super::{Found, quantile, share};
use crate::rollout::statistics::{
    ALPHA_FAIL, ALPHA_SAMPLE_RATIO, Arm, Baselines, Decision, Direction, Evaluated, Gate, MIN_UNITS, Margin, Mode, OnDeadline, OnFail,
    SampleRatio, Situation, Stage, Verdict, decide, sample_ratio,
};

const LOOK_S: u64 = 1800;
const DAY_S: u64 = 86_400;
/// Share of the treatment, days, fewest units of each arm.
const STAGES: [(f64, u64, u64); 3] = [(0.01, 2, 200), (0.1, 4, 200), (0.5, 7, MIN_UNITS)];
const PLANNED_DAYS: f64 = 13.0;

/// Name, baseline, direction, margin.
const METRICS: [(&str, f64, Direction, Margin); 3] = [
    ("compliance", 0.98, Direction::Higher, Margin::Relative(0.05)),
    ("conversion", 0.10, Direction::Higher, Margin::Absolute(0.02)),
    ("error", 0.01, Direction::Lower, Margin::Absolute(0.01)),
];

#[derive(Debug, Clone, Copy)]
struct Played {
    end: Decision,
    treated: u64,
    elapsed_s: u64,
}

pub fn play(count: usize, seed: u64, found: &mut Found) {
    let healthy: Vec<Played> = truth(count, seed, 200_000.0, [0.98, 0.10, 0.01], "no effect, 200k sessions a day", found);
    let worse: Vec<Played> = truth(count, seed, 200_000.0, [0.88, 0.10, 0.01], "compliance 98 % -> 88 %, 200k sessions a day", found);
    truth(count, seed, 200_000.0, [0.98, 0.08, 0.01], "conversion 10 % -> 8 %, 200k sessions a day", found);
    truth(count, seed, 50_000.0, [0.98, 0.10, 0.01], "no effect, 50k sessions a day", found);
    let rollback = |played: &[Played]| share(played, |run| run.end == Decision::Rollback);
    let days = healthy.iter().map(|run| Some(run.elapsed_s.div_ceil(DAY_S))).collect::<Vec<_>>();
    found.figure("G11 seed plan, no effect: rolled back", rollback(&healthy), "share", 0.01);
    found.figure("G11 seed plan, no effect: not shipped", 1.0 - share(&healthy, |run| run.end == Decision::Advance), "share", 0.01);
    found.figure("G11 seed plan, no effect: days, median", quantile(&days, 0.5), "days", PLANNED_DAYS);
    found.figure("G11 seed plan, compliance 98 -> 88 %: not rolled back", 1.0 - rollback(&worse), "share", 0.0);
    let treated: Vec<Option<u64>> = worse.iter().map(|run| Some(run.treated)).collect();
    // The goal is about 541, from a simulation in numpy; a tenth more is within what a look each half hour does to it.
    found.figure("G11 the same: treated sessions, median", quantile(&treated, 0.5), "sessions", 595.0);
}

fn truth(count: usize, seed: u64, per_day: f64, rates: [f64; 3], what: &str, found: &mut Found) -> Vec<Played> {
    let played = runs(count, seed, what, |rng| plan(rng, per_day, rates));
    let of = |end: Decision| share(&played, |run| run.end == end);
    let median = |value: fn(&Played) -> u64| quantile(&played.iter().map(|run| Some(value(run))).collect::<Vec<_>>(), 0.5);
    found.row(
        what,
        vec![
            ("ships", of(Decision::Advance)),
            ("pauses", of(Decision::Pause)),
            ("rolls back", of(Decision::Rollback)),
            ("treated", median(|run| run.treated)),
            ("days", median(|run| run.elapsed_s) / DAY_S as f64),
        ],
    );
    played
}

fn plan(rng: &mut StdRng, per_day: f64, rates: [f64; 3]) -> Played {
    let mut played = Played { end: Decision::Advance, treated: 0, elapsed_s: 0 };
    for (share, days, min_units) in STAGES {
        let stage = Stage { share, days: days as f64, units_per_day: per_day };
        let of_stage = play_stage(rng, stage, min_units, rates);
        played = Played { end: of_stage.end, treated: played.treated + of_stage.treated, elapsed_s: played.elapsed_s + of_stage.elapsed_s };
        if of_stage.end != Decision::Advance {
            break;
        }
    }
    played
}

/// One stage, with statistics of its own, until it advances, pauses or is rolled back.
fn play_stage(rng: &mut StdRng, stage: Stage, min_units: u64, rates: [f64; 3]) -> Played {
    let gates = METRICS.map(|(_, baseline, direction, margin)| {
        let planned = stage.feasibility(Baselines::Share(baseline), direction, margin, Mode::NonInferior);
        let planned = planned.map_or(f64::NAN, |plan| plan.size.planned);
        Gate { alpha_fail: ALPHA_FAIL / METRICS.len() as f64, min_units, ..Gate::new(direction, margin, Mode::NonInferior, planned) }
    });
    let min_elapsed_s = stage.days as u64 * DAY_S;
    let each = (stage.units_per_day * LOOK_S as f64 / DAY_S as f64).round() as u64;
    let (mut units, mut successes, mut verdicts) = ([0u64; 2], [[0u64; 2]; 3], [Verdict::Wait; 3]);
    let mut ratio = SampleRatio::default();
    for look in 1.. {
        let treated = binomial(rng, each, stage.share);
        let more = [treated, each - treated];
        (units[0], units[1]) = (units[0] + more[0], units[1] + more[1]);
        ratio.look(sample_ratio(&units, &[stage.share, 1.0 - stage.share]));
        let mut metrics = BTreeMap::new();
        for (at, (name, baseline, ..)) in METRICS.into_iter().enumerate() {
            successes[at][0] += binomial(rng, more[0], rates[at]);
            successes[at][1] += binomial(rng, more[1], baseline);
            let arm = |arm: usize| Arm::Binomial { n: units[arm], k: successes[at][arm] };
            let judgement = gates[at].judge(&arm(0), &arm(1));
            verdicts[at] = judgement.verdict.after(verdicts[at]);
            let evaluated = Evaluated {
                verdict: verdicts[at],
                warn: judgement.warn,
                mode: Mode::NonInferior,
                on_fail: OnFail::Rollback,
                required: true,
                fresh: true,
                mature: true,
            };
            metrics.insert(name.to_owned(), evaluated);
        }
        let situation = Situation {
            trigger_fired: false,
            sample_ratio_alarm: ratio.alarms(ALPHA_SAMPLE_RATIO),
            crossover_share: 0.0,
            elapsed_s: look * LOOK_S,
            min_elapsed_s,
            deadline_s: 2 * min_elapsed_s,
            on_deadline: OnDeadline::Pause,
            units: units.to_vec(),
            min_units,
            metrics,
            manual_gate: false,
            approved: false,
        };
        let end = decide(&situation).decision;
        if end != Decision::Wait {
            return Played { end, treated: units[0], elapsed_s: situation.elapsed_s };
        }
    }
    Played { end: Decision::Wait, treated: units[0], elapsed_s: u64::MAX }
}
