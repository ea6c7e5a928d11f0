//! Exact tests and intervals of counts, at every look: bets against "as it should be", by a mixture over how it could be otherwise.

use serde::{Deserialize, Serialize};
use statrs::function::beta::ln_beta;
use statrs::function::gamma::ln_gamma;

use super::display::Interval;

/// Of a false alarm in a stage. An alarm pauses a rollout and says that nothing measured can be trusted.
pub const ALPHA_SAMPLE_RATIO: f64 = 0.001;
/// Of the mixture: 10 finds an arm that is silent after a few units, 1000 one that loses a tenth.
pub const CONCENTRATIONS: [f64; 2] = [10.0, 1000.0];
/// Jeffreys' prior of a share.
const PRIOR: (f64, f64) = (0.5, 0.5);
/// What cannot be by chance; a number, so that it can be stored.
const CERTAIN: f64 = f64::MAX;

/// Logarithm of the winnings against `allocation`, with a Dirichlet prior: above ln(1 / alpha) the counts do not come from it. `None` when
/// these are not counts of that allocation at all. Weights are shares of any whole; an arm without a weight must have no unit.
pub fn dirichlet(prior: &[f64], counts: &[u64], allocation: &[f64]) -> Option<f64> {
    let whole: f64 = allocation.iter().sum();
    let fits = prior.len() == counts.len() && counts.len() == allocation.len() && whole > 0.0 && whole.is_finite();
    if !fits || allocation.iter().any(|weight| *weight < 0.0) {
        return None;
    }
    let (mut ln_e, mut priors, mut units) = (0.0, 0.0, 0.0);
    for ((prior, count), weight) in prior.iter().zip(counts).zip(allocation) {
        let count = *count as f64;
        if *weight == 0.0 {
            if count > 0.0 {
                return Some(CERTAIN);
            }
            continue;
        }
        if !(*prior > 0.0 && prior.is_finite()) {
            return None;
        }
        ln_e += ln_gamma(prior + count) - ln_gamma(*prior) - count * (weight / whole).ln();
        priors += prior;
        units += count;
    }
    ln_e += ln_gamma(priors) - ln_gamma(priors + units);
    ln_e.is_finite().then_some(ln_e)
}

/// The same with the mixture of both `CONCENTRATIONS`: what looks at units by variant uses.
pub fn sample_ratio(counts: &[u64], allocation: &[f64]) -> Option<f64> {
    let whole: f64 = allocation.iter().sum();
    let mut each = [0.0; CONCENTRATIONS.len()];
    for (ln_e, concentration) in each.iter_mut().zip(CONCENTRATIONS) {
        let prior: Vec<f64> = allocation.iter().map(|weight| concentration * weight / whole).collect();
        *ln_e = dirichlet(&prior, counts, allocation)?;
    }
    Some(ln_mean_exp(&each))
}

/// Whether units without an outcome are as frequent in every variant: the treatment that crashes before it reports has no errors. Of the
/// units that were exposed long enough ago to have one.
pub fn coverage(missing: &[u64], exposed: &[u64]) -> Option<f64> {
    if missing.len() != exposed.len() || missing.iter().zip(exposed).any(|(missing, exposed)| missing > exposed) {
        return None;
    }
    let shares: Vec<f64> = exposed.iter().map(|exposed| *exposed as f64).collect();
    sample_ratio(missing, &shares)
}

/// The strongest evidence of a stage so far: an alarm stays.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct SampleRatio {
    highest_ln_e: f64,
}

impl SampleRatio {
    /// What `sample_ratio` or `coverage` says now.
    pub fn look(&mut self, ln_e: Option<f64>) {
        self.highest_ln_e = self.highest_ln_e.max(ln_e.unwrap_or(0.0));
    }

    /// Anytime-valid.
    pub fn p_value(&self) -> f64 {
        (-self.highest_ln_e).exp().min(1.0)
    }

    pub fn alarms(&self, alpha: f64) -> bool {
        self.highest_ln_e >= -alpha.ln()
    }
}

/// The shares that `k` of `n` do not contradict. For a gate without a control ("at least 95 %"). `None` of what cannot be.
pub fn proportion_interval(k: u64, n: u64, alpha: f64) -> Option<Interval> {
    interval_with_prior(k, n, alpha, PRIOR)
}

fn interval_with_prior(k: u64, n: u64, alpha: f64, (a, b): (f64, f64)) -> Option<Interval> {
    if k > n || !(alpha > 0.0 && alpha < 1.0) {
        return None;
    }
    let (good, bad) = (k as f64, (n - k) as f64);
    let constant = ln_beta(a + good, b + bad) - ln_beta(a, b);
    // No success says nothing of ln p, and 0 times minus infinity is not a number.
    let times_ln = |times: f64, share: f64| if times == 0.0 { 0.0 } else { times * share.ln() };
    let contradicts = |share: f64| constant - times_ln(good, share) - times_ln(bad, 1.0 - share) >= -alpha.ln();
    let middle = if n == 0 { 0.5 } else { good / (good + bad) };
    let low = if k == 0 { 0.0 } else { bisect(0.0, middle, |share| !contradicts(share)) };
    let high = if k == n { 1.0 } else { bisect(middle, 1.0, contradicts) };
    Some(Interval { low, high })
}

/// Where `above` becomes true between `low`, where it is false, and `high`.
pub(super) fn bisect(mut low: f64, mut high: f64, above: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..200 {
        let middle = low + (high - low) / 2.0;
        if above(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

/// How many times the control's rate the treatment's rate of events is, when nobody counts what did not happen (crashes, tickets).
/// `share` is that of the treatment in the exposure. The upper end may be infinite.
pub fn rate_ratio_interval(treatment: u64, control: u64, share: f64, alpha: f64) -> Option<Interval> {
    if !(share > 0.0 && share < 1.0) {
        return None;
    }
    let theta = proportion_interval(treatment, treatment.checked_add(control)?, alpha)?;
    let ratio = |theta: f64| theta / (1.0 - theta) / (share / (1.0 - share));
    Some(Interval { low: ratio(theta.low), high: ratio(theta.high) })
}

/// ln of the mean of exp: of bets that are placed side by side.
pub(super) fn ln_mean_exp(values: &[f64]) -> f64 {
    let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = values.iter().map(|value| (value - highest).exp()).sum();
    highest + (sum / values.len() as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exact_interval_is_that_of_the_vectors_with_either_prior() {
        let vectors: serde_json::Value = serde_json::from_str(include_str!("../../../tests/data/statistics/statistics.json")).unwrap();
        let items = vectors["binomial_cs_exact"]["items"].as_array().unwrap();
        assert_eq!(items.len(), 11);
        for item in items {
            let prior = (item["prior"][0].as_f64().unwrap(), item["prior"][1].as_f64().unwrap());
            let (k, n) = (item["k"].as_u64().unwrap(), item["n"].as_u64().unwrap());
            let interval = interval_with_prior(k, n, item["alpha"].as_f64().unwrap(), prior).unwrap();
            assert!((interval.low - item["lo"].as_f64().unwrap()).abs() <= 1e-9, "{item}: {interval:?}");
            assert!((interval.high - item["hi"].as_f64().unwrap()).abs() <= 1e-9, "{item}: {interval:?}");
        }
    }

    #[test]
    fn what_is_no_count_of_an_allocation_is_no_evidence() {
        assert_eq!(sample_ratio(&[1, 2], &[1.0]), None);
        assert_eq!(sample_ratio(&[], &[]), None);
        assert_eq!(sample_ratio(&[1, 2], &[0.0, 0.0]), None);
        assert_eq!(sample_ratio(&[1, 2], &[-1.0, 2.0]), None);
        assert_eq!(sample_ratio(&[1, 2], &[f64::NAN, 2.0]), None);
        assert_eq!(sample_ratio(&[1, 2], &[f64::INFINITY, 2.0]), None);
        assert_eq!(coverage(&[4, 0], &[3, 3]), None);
        assert_eq!(sample_ratio(&[0, 0], &[0.5, 0.5]).map(|ln_e| ln_e.abs() < 1e-12), Some(true));
    }

    #[test]
    fn a_unit_where_none_may_be_is_certain_evidence() {
        assert_eq!(sample_ratio(&[1, 20], &[0.0, 1.0]), Some(CERTAIN));
        assert!(sample_ratio(&[0, 20], &[0.0, 1.0]).is_some_and(|ln_e| ln_e.abs() < 1e-9));
    }

    #[test]
    fn an_alarm_stays() {
        let mut stage = SampleRatio::default();
        assert!(!stage.alarms(ALPHA_SAMPLE_RATIO) && stage.p_value() == 1.0);
        stage.look(sample_ratio(&[1, 24], &[0.5, 0.5]));
        stage.look(sample_ratio(&[500, 500], &[0.5, 0.5]));
        stage.look(None);
        assert!(stage.alarms(ALPHA_SAMPLE_RATIO));
        assert!(stage.p_value() < 0.001);
    }

    #[test]
    fn a_treatment_that_crashes_before_it_reports_is_found() {
        let equal = coverage(&[20, 1980], &[1000, 99_000]).unwrap();
        let silent = coverage(&[60, 1980], &[1000, 99_000]).unwrap();
        assert!(equal < 0.0 && silent > -ALPHA_SAMPLE_RATIO.ln(), "{equal} {silent}");
    }
}
