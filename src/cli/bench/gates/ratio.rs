//! The sample ratio: alarms in health, and how many units a loss takes to be seen.

use super::draw::{binomial, runs};
use super::{Found, quantile, share};
use crate::rollout::statistics::{ALPHA_SAMPLE_RATIO, SampleRatio, sample_ratio};

const LOOKS: u64 = 1000;

/// What, share of the treatment, share of its units that are lost, the median that is expected.
const LOSSES: [(&str, f64, f64, f64); 5] = [
    ("50/50, one arm silent", 0.5, 1.0, 25.0),
    ("50/50, a tenth lost", 0.5, 0.1, 6_450.0),
    ("50/50, a twentieth lost", 0.5, 0.05, 25_100.0),
    ("10/90, a tenth lost", 0.1, 0.1, 18_000.0),
    ("1/99, the canary silent", 0.01, 1.0, 850.0),
];

pub fn play(count: usize, seed: u64, found: &mut Found) {
    let mut most = 0.0f64;
    for treated in [0.5, 0.1, 0.01] {
        let what = format!("sample ratio in health, {LOOKS} looks, share {treated}");
        let played = runs(count, seed, &what, |rng| units_until_alarm(rng, treated, treated, 100, LOOKS));
        let alarms = share(&played, Option::is_some);
        most = most.max(alarms);
        found.row(what, vec![("alarms", alarms)]);
    }
    found.figure("G9 sample ratio alarms in health, alpha 0.001", most, "share", 0.0035);
    for (what, treated, lost, median) in LOSSES {
        let left = treated * (1.0 - lost);
        let step = (median / 250.0f64).ceil() as u64;
        let played = runs(count, seed, what, |rng| units_until_alarm(rng, treated, left / (left + 1.0 - treated), step, 5000));
        found.figure(format!("G10 units until the alarm, {what}, median"), quantile(&played, 0.5), "units", median);
    }
}

/// The number of units, of both arms, at the look that alarms; a look each `step` units.
fn units_until_alarm(rng: &mut rand::rngs::StdRng, planned: f64, real: f64, step: u64, looks: u64) -> Option<u64> {
    let (mut stage, mut treated) = (SampleRatio::default(), 0);
    (1..=looks)
        .find(|look| {
            treated += binomial(rng, step, real);
            stage.look(sample_ratio(&[treated, look * step - treated], &[planned, 1.0 - planned]));
            stage.alarms(ALPHA_SAMPLE_RATIO)
        })
        .map(|look| look * step)
}
