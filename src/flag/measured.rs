//! What a sidecar has to know of a flag's metrics and guards, to count outcomes without reading the document again.

use std::collections::BTreeSet;

use super::document::Flag;
use super::plan::{Direction, Guard, MetricKind};

/// Of a flag that has metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// By name.
    pub metrics: Box<[Watched]>,
    pub guards: Box<[Guard]>,
    /// Of the plan; `None` without one.
    pub baseline: Option<Box<str>>,
    /// Of the plan, sorted; without one every variant but the one that a kill serves counts as a treatment.
    pub treatments: Box<[Box<str>]>,
}

/// A metric, and the event that applications report for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Watched {
    pub name: Box<str>,
    pub event: Box<str>,
    pub kind: MetricKind,
    pub direction: Direction,
    /// From the first exposure until an outcome no longer counts; 0: no end.
    pub lag_s: u64,
}

impl Measured {
    pub(super) fn of(flag: &Flag) -> Option<Self> {
        if flag.metrics.is_empty() {
            return None;
        }
        let metrics = flag.metrics.iter().map(|(name, metric)| Watched {
            name: name.as_str().into(),
            event: metric.event(name).into(),
            kind: metric.kind,
            direction: metric.direction,
            lag_s: metric.lag.map_or(0, |lag| lag.as_seconds()),
        });
        let treatments: BTreeSet<&str> = flag.rollout.iter().flat_map(|plan| &plan.treatments).map(String::as_str).collect();
        Some(Self {
            metrics: metrics.collect(),
            guards: flag.guard.iter().cloned().collect(),
            baseline: flag.rollout.as_ref().map(|plan| plan.baseline.as_str().into()),
            treatments: treatments.into_iter().map(Into::into).collect(),
        })
    }

    /// Metrics that applications report by this event.
    pub fn watching(&self, event: &str) -> impl Iterator<Item = &Watched> {
        self.metrics.iter().filter(move |metric| *metric.event == *event)
    }
}

impl Watched {
    /// Whether this value is a failure; `None` where a unit can neither fail nor not.
    pub fn is_failure(&self, value: f64) -> Option<bool> {
        match (self.kind, self.direction) {
            (MetricKind::Binomial, Direction::Higher) => Some(value == 0.0),
            (MetricKind::Binomial, _) => Some(value != 0.0),
            (MetricKind::SlowShare { above }, _) => Some(value > above),
            (MetricKind::Mean { .. } | MetricKind::Ratio, _) => None,
        }
    }

    /// What a unit counts with: 0 or 1 of a share, a mean within its clip.
    pub fn counted(&self, value: f64) -> f64 {
        match self.kind {
            MetricKind::Binomial => f64::from(u8::from(value != 0.0)),
            MetricKind::SlowShare { above } => f64::from(u8::from(value > above)),
            MetricKind::Mean { clip: [least, most] } => value.clamp(least, most),
            MetricKind::Ratio => value.max(0.0),
        }
    }
}
