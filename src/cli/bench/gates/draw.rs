//! Chance, from a seed: each run has its own, so that a run is the same on however many cores.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use statrs::function::factorial::ln_binomial;

/// Plays `count` runs on every core and returns them in order. `case` keeps the chance of different cases apart.
pub fn runs<T: Send>(count: usize, seed: u64, case: &str, play: impl Fn(&mut StdRng) -> T + Sync) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let of_case = seed ^ crate::flag::metro64(case.as_bytes());
    let of_run = |run: usize| play(&mut StdRng::seed_from_u64(of_case.wrapping_add((run as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15))));
    let each = count.div_ceil(cores).max(1);
    std::thread::scope(|scope| {
        let of_run = &of_run;
        let threads: Vec<_> = (0..count)
            .step_by(each)
            .map(|first| scope.spawn(move || (first..(first + each).min(count)).map(of_run).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// Successes of `n`, exactly: inversion, from zero when few are expected, else from the middle outwards.
pub fn binomial(rng: &mut StdRng, n: u64, p: f64) -> u64 {
    if n == 0 || p <= 0.0 {
        return 0;
    }
    if p > 0.5 {
        return n - binomial(rng, n, 1.0 - p);
    }
    let (trials, odds, mut left) = (n as f64, p / (1.0 - p), rng.random::<f64>());
    let start = if trials * p < 10.0 { 0 } else { ((trials + 1.0) * p) as u64 };
    let chance = match start {
        0 => (trials * (-p).ln_1p()).exp(),
        _ => (ln_binomial(n, start) + start as f64 * p.ln() + (trials - start as f64) * (-p).ln_1p()).exp(),
    };
    left -= chance;
    let ((mut low, mut chance_low), (mut high, mut chance_high)) = ((start, chance), (start, chance));
    while left > 0.0 && (low > 0 || high < n) {
        if high < n {
            chance_high *= odds * (n - high) as f64 / (high + 1) as f64;
            high += 1;
            left -= chance_high;
            if left <= 0.0 {
                return high;
            }
        }
        if low > 0 {
            chance_low *= low as f64 / (odds * (n - low + 1) as f64);
            low -= 1;
            left -= chance_low;
            if left <= 0.0 {
                return low;
            }
        }
        // What rounding leaves over at both ends.
        if chance_low.max(chance_high) < 1e-300 {
            break;
        }
    }
    start
}

/// How many come in a tick of which `rate` are expected: of a thousand times as many who might.
pub fn arrivals(rng: &mut StdRng, rate: f64) -> u64 {
    binomial(rng, (rate * 1000.0).round() as u64, 0.001)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successes_have_the_mean_and_the_spread_of_their_chance() {
        for (n, p) in [(20u64, 0.05), (40, 0.7), (5_000, 0.01), (4_000, 0.5), (200_000, 0.98)] {
            let draws = runs(20_000, 7, "a", |rng| binomial(rng, n, p) as f64);
            let count = draws.len() as f64;
            let mean = draws.iter().sum::<f64>() / count;
            let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / count;
            let (expected, spread) = (n as f64 * p, n as f64 * p * (1.0 - p));
            assert!((mean - expected).abs() < 5.0 * (spread / count).sqrt(), "{n} {p}: {mean}");
            assert!((variance / spread - 1.0).abs() < 0.06, "{n} {p}: {variance}");
        }
    }

    #[test]
    fn the_ends_are_certain() {
        let mut rng = StdRng::seed_from_u64(1);
        assert_eq!([binomial(&mut rng, 0, 0.5), binomial(&mut rng, 9, 0.0), binomial(&mut rng, 9, 1.0)], [0, 0, 9]);
    }

    #[test]
    fn a_seed_plays_the_same_runs() {
        let play = |seed| runs(50, seed, "a", |rng| binomial(rng, 1000, 0.3));
        assert_eq!(play(1), play(1));
        assert_ne!(play(1), play(2));
    }
}
