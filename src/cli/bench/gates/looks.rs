//! Gates whose treatment is exactly at the margin, looked at a thousand times: a pass is false, and so is a fail.

use super::draw::{binomial, runs};
use super::{Found, share};
use crate::rollout::statistics::{
    ALPHA_PASS, Arm, BURN_IN, Baselines, Contrast, Direction, Gate, Margin, Mode, POWER, Verdict, sample_size,
};

const LOOKS: u32 = 1000;
/// At the last look so many times the planned units are there.
const PLANS: f64 = 10.0;

/// What, share of the treatment, baseline, direction, margin.
const CASES: [(&str, f64, f64, Direction, Margin); 8] = [
    ("errors 0.05 % + 0.2 points, 1/99", 0.01, 0.0005, Direction::Lower, Margin::Absolute(0.002)),
    ("errors 0.2 % + 0.5 points, 1/99", 0.01, 0.002, Direction::Lower, Margin::Absolute(0.005)),
    ("errors 0.2 % + 0.5 points, 10/90", 0.10, 0.002, Direction::Lower, Margin::Absolute(0.005)),
    ("errors 0.05 % + 0.2 points, 50/50", 0.50, 0.0005, Direction::Lower, Margin::Absolute(0.002)),
    ("compliance 98 % - 5 %, 1/99", 0.01, 0.98, Direction::Higher, Margin::Relative(0.05)),
    ("compliance 98 % - 5 %, 50/50", 0.50, 0.98, Direction::Higher, Margin::Relative(0.05)),
    ("conversion 10 % - 2 points, 1/99", 0.01, 0.10, Direction::Higher, Margin::Absolute(0.02)),
    ("conversion 10 % - 2 points, 50/50", 0.50, 0.10, Direction::Higher, Margin::Absolute(0.02)),
];

pub fn play(count: usize, seed: u64, found: &mut Found) {
    let (mut most_passes, mut most_fails) = (0.0f64, 0.0f64);
    for (what, treated, baseline, direction, margin) in CASES {
        let contrast = Contrast::new(direction, margin);
        let control_per_treatment = (1.0 - treated) / treated;
        let Ok(size) = sample_size(Baselines::Share(baseline), contrast, control_per_treatment, ALPHA_PASS, POWER) else { continue };
        // No `min_units` to hide behind: a pass from the burn-in on counts.
        let gate = Gate { min_units: BURN_IN, ..Gate::new(direction, margin, Mode::NonInferior, size.planned) };
        let at_margin = contrast.r * baseline
            + match direction {
                Direction::Higher => -contrast.delta,
                Direction::Lower => contrast.delta,
            };
        let each = size.planned * PLANS / f64::from(LOOKS);
        let played = runs(count, seed, what, |rng| {
            let (mut one, mut zero, mut verdicts) = ((0u64, 0u64), (0u64, 0u64), (false, false));
            for look in 1..=LOOKS {
                let due = |share: f64| (each * share * f64::from(look)).round() as u64;
                for (arm, share, rate) in [(&mut one, treated, at_margin), (&mut zero, 1.0 - treated, baseline)] {
                    let more = due(share).saturating_sub(arm.0);
                    *arm = (arm.0 + more, arm.1 + binomial(rng, more, rate));
                }
                let arm = |(n, k)| Arm::Binomial { n, k };
                match gate.judge(&arm(one), &arm(zero)).verdict {
                    Verdict::Pass => verdicts.0 = true,
                    Verdict::Fail => verdicts.1 = true,
                    Verdict::Wait => {}
                }
            }
            verdicts
        });
        let (passes, fails) = (share(&played, |run| run.0), share(&played, |run| run.1));
        (most_passes, most_fails) = (most_passes.max(passes), most_fails.max(fails));
        found.row(what, vec![("false pass", passes), ("false fail", fails)]);
    }
    found.figure(format!("G1 false pass at the margin, {LOOKS} looks, worst of {} cases", CASES.len()), most_passes, "share", 0.05);
    found.figure("G2 false fail at the margin, the same", most_fails, "share", 0.01);
}
