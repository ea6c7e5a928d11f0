//! Histograms of what flagd measures too: with its bounds, what is reckoned from their buckets stays comparable.

use std::fmt;

use prometheus_client::encoding::MetricEncoder;
use prometheus_client::encoding::NoLabelSet;

/// Upper bounds of buckets, ascending; the last bucket is of all beyond. The unit is the metric's.
#[derive(Debug, PartialEq)]
pub(super) struct Bounds(&'static [f64]);

/// Of the duration of a request, in seconds: what the libraries of Prometheus take when nobody names any.
pub(super) const SECONDS: Bounds = Bounds(&[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);

/// OpenTelemetry's own, for whatever has no better: milliseconds of calls, bytes and numbers of their messages.
pub(super) const PLAIN: Bounds =
    Bounds(&[0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1_000.0, 2_500.0, 5_000.0, 7_500.0, 10_000.0]);

/// Of the body of an answer.
pub(super) const BYTES: Bounds = Bounds(&[1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9]);

/// Of a stream of documents, in seconds. Providers cut theirs after ten minutes.
pub(super) const STREAMS: Bounds = Bounds(&[30.0, 60.0, 120.0, 300.0, 480.0, 600.0, 1_200.0, 1_800.0, 3_600.0, 10_800.0]);

const MOST: usize = 16;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Histogram {
    bounds: &'static Bounds,
    counts: [u64; MOST],
    sum: f64,
}

impl Histogram {
    pub(super) fn new(bounds: &'static Bounds) -> Self {
        const { assert!(SECONDS.0.len() < MOST && PLAIN.0.len() < MOST && BYTES.0.len() < MOST && STREAMS.0.len() < MOST) };
        Self { bounds, counts: [0; MOST], sum: 0.0 }
    }

    pub(super) fn observe(&mut self, value: f64) {
        let Bounds(bounds) = self.bounds;
        let bucket = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        self.counts[bucket] += 1;
        self.sum += value;
    }

    /// Of the same metric.
    pub(super) fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.sum += other.sum;
    }

    pub(super) fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = self.bounds.0.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.counts).collect();
        let count = self.counts.iter().sum();
        encoder.encode_histogram::<NoLabelSet>(self.sum, count, &buckets, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_where_it_is_not_above_the_bound() {
        let mut histogram = Histogram::new(&BYTES);
        [0.0, 100.0, 101.0, 1e9, 1e9 + 1.0].into_iter().for_each(|value| histogram.observe(value));
        assert_eq!(histogram.counts[..9], [2, 1, 0, 0, 0, 0, 0, 1, 1]);
        let mut other = Histogram::new(&BYTES);
        other.observe(50.0);
        other.add(&histogram);
        assert_eq!(other.counts[..9], [3, 1, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(other.sum, histogram.sum + 50.0);
    }
}
