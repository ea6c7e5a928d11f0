//! Medians and percentiles. Every sample is kept: a run has at most a few hundred thousand.

use std::time::Duration;

use serde::Serialize;

/// Latencies of one run, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

impl Latency {
    /// `None` without samples.
    pub fn of(mut samples: Vec<Duration>) -> Option<Self> {
        samples.sort_unstable();
        let at = |share| nearest_rank(&samples, share).map(|sample| sample.as_nanos() as f64 / 1e3);
        Some(Self { p50_us: at(0.5)?, p99_us: at(0.99)?, p999_us: at(0.999)?, max_us: at(1.0)? })
    }

    /// Of several runs: the median of each figure by itself.
    pub fn median(runs: &[Self]) -> Option<Self> {
        let of = |figure: fn(&Self) -> f64| median(runs.iter().map(figure));
        Some(Self {
            p50_us: of(|run| run.p50_us)?,
            p99_us: of(|run| run.p99_us)?,
            p999_us: of(|run| run.p999_us)?,
            max_us: of(|run| run.max_us)?,
        })
    }
}

/// The middle, or the mean of the two in the middle; `None` of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some((low + high) / 2.0)
}

/// The smallest sample that is at least as large as this share of all.
fn nearest_rank<T: Copy>(sorted: &[T], share: f64) -> Option<T> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_sample_that_was_seen() {
        let latency = Latency::of((1..=1000).rev().map(Duration::from_micros).collect()).unwrap();
        assert_eq!(latency, Latency { p50_us: 500.0, p99_us: 990.0, p999_us: 999.0, max_us: 1000.0 });
        assert_eq!(Latency::of(vec![Duration::from_micros(7)]).map(|one| (one.p50_us, one.max_us)), Some((7.0, 7.0)));
        assert_eq!(Latency::of(Vec::new()), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median([4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([]), None);
    }
}
