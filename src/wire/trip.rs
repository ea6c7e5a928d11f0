//! A flag that a sidecar killed in its own pod: on its disk, and on its way to the control plane.

use crate::flag::{Position, Revision, limits};
use crate::rollout::{Attributed, Fired};

use super::replication::{Malformed, environment, identity};
use super::v1;

/// What happened in a pod while the control plane was out of reach.
#[derive(Debug, Clone, PartialEq)]
pub struct Trip {
    pub flag: String,
    /// What the pod held: what was decided later stands above it.
    pub held: Position,
    /// Of the definition that outcomes were counted of.
    pub revision: Revision,
    /// Unix time, microseconds, sidecar's clock.
    pub at_us: i64,
    pub fired: Fired,
}

/// A trip, and whose it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Tripped {
    pub environment: String,
    pub pod: String,
    pub trip: Trip,
}

fn wrong<T>(field: &'static str, problem: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed { field, problem: problem.into() })
}

fn key(text: String, field: &'static str) -> Result<String, Malformed> {
    if limits::is_key(&text) { Ok(text) } else { wrong(field, "is no key") }
}

fn name(text: String, field: &'static str) -> Result<String, Malformed> {
    match text.len() {
        1..=limits::KEY_BYTES => Ok(text),
        bytes => wrong(field, format!("has {bytes} bytes, expected 1 to {}", limits::KEY_BYTES)),
    }
}

impl TryFrom<v1::Trip> for Trip {
    type Error = Malformed;

    fn try_from(trip: v1::Trip) -> Result<Self, Malformed> {
        let v1::Trip { flag_key, held, revision, at_us, guard, metric, outcomes, failures, allowed, .. } = trip;
        let v1::Trip { evidence, bound, failing_units, attribution, .. } = trip;
        let Some(held) = held else { return wrong("trip.held", "is missing") };
        if revision == 0 {
            return wrong("trip.revision", "is 0, expected the number of a change");
        }
        if failures > outcomes {
            return wrong("trip.failures", format!("is {failures} of {outcomes} outcomes"));
        }
        if !(0.0..=1.0).contains(&allowed) {
            return wrong("trip.allowed", format!("is {allowed}, expected a share"));
        }
        // NaN is none of them.
        if !(evidence.is_finite() && bound.is_finite() && evidence >= bound) {
            return wrong("trip.evidence", format!("is {evidence}, expected at least the bound, which is {bound}"));
        }
        let fired = Fired {
            guard: name(guard, "trip.guard")?,
            metric: name(metric, "trip.metric")?,
            outcomes,
            failures,
            allowed,
            ln_evidence: evidence,
            ln_threshold: bound,
            failing_units: usize::try_from(failing_units).unwrap_or(usize::MAX),
            attributed: attribution.map(|attribution| attributed(attribution, bound)).transpose()?,
        };
        Ok(Self { flag: key(flag_key, "trip.flag_key")?, held: held.into(), revision, at_us, fired })
    }
}

fn attributed(v1::TripAttribution { baseline, evidence }: v1::TripAttribution, bound: f64) -> Result<Attributed, Malformed> {
    let Some(baseline) = baseline else { return Ok(Attributed::Alone) };
    if !(0.0..=1.0).contains(&baseline) {
        return wrong("trip.attribution.baseline", format!("is {baseline}, expected a share"));
    }
    if !(evidence.is_finite() && evidence >= bound) {
        return wrong("trip.attribution.evidence", format!("is {evidence}, expected at least the bound, which is {bound}"));
    }
    Ok(Attributed::Beside { baseline, ln_evidence: evidence })
}

impl From<Attributed> for v1::TripAttribution {
    fn from(attributed: Attributed) -> Self {
        match attributed {
            Attributed::Beside { baseline, ln_evidence } => Self { baseline: Some(baseline), evidence: ln_evidence },
            Attributed::Alone => Self::default(),
        }
    }
}

impl From<Trip> for v1::Trip {
    fn from(Trip { flag, held, revision, at_us, fired }: Trip) -> Self {
        let Fired { guard, metric, outcomes, failures, allowed, ln_evidence, ln_threshold, failing_units, attributed } = fired;
        Self {
            flag_key: flag,
            held: Some(held.into()),
            revision,
            at_us,
            guard,
            metric,
            outcomes,
            failures,
            allowed,
            evidence: ln_evidence,
            bound: ln_threshold,
            failing_units: u32::try_from(failing_units).unwrap_or(u32::MAX),
            attribution: attributed.map(Into::into),
        }
    }
}

impl TryFrom<v1::ReportTripRequest> for Tripped {
    type Error = Malformed;

    fn try_from(request: v1::ReportTripRequest) -> Result<Self, Malformed> {
        let v1::ReportTripRequest { environment: of, identity: from, trip } = request;
        let from = identity(from)?;
        let Some(trip) = trip else { return wrong("trip", "is missing") };
        Ok(Self { environment: environment(of)?, pod: from.pod, trip: trip.try_into()? })
    }
}

impl std::fmt::Display for Tripped {
    /// As the reason of the kill.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { environment: _, pod, trip: Trip { fired, .. } } = self;
        write!(f, "{fired} (tripped locally by pod {pod} while the control plane was out of reach)")
    }
}

#[cfg(test)]
impl Trip {
    /// For tests: 38 of 40 failed where 5 % are allowed.
    pub fn sample(flag: &str, held: Position, revision: Revision) -> Self {
        let (guard, metric) = ("errors".to_owned(), "errors".to_owned());
        let (allowed, ln_evidence, ln_threshold) = (0.05, 66.5, 18.6);
        let (failing_units, attributed) = (12, None);
        let fired = Fired { guard, metric, outcomes: 40, failures: 38, allowed, ln_evidence, ln_threshold, failing_units, attributed };
        Self { flag: flag.to_owned(), held, revision, at_us: 9, fired }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trip() -> Trip {
        Trip::sample("checkout", Position { epoch: 7, revision: 5 }, 3)
    }

    fn report() -> v1::ReportTripRequest {
        let identity = Some(v1::Identity { instance: "i".into(), pod: "shop-1".into(), ..Default::default() });
        v1::ReportTripRequest { environment: "prod".into(), identity, trip: Some(trip().into()) }
    }

    #[test]
    fn a_trip_is_the_same_after_it_was_written_and_its_reason_names_the_pod() {
        let tripped = Tripped::try_from(report()).unwrap();
        assert_eq!(tripped.trip, trip());
        let reason = tripped.to_string();
        assert!(reason.starts_with("guard errors: errors failed 38 of 40 times where 5% are allowed"), "{reason}");
        assert!(reason.ends_with("(tripped locally by pod shop-1 while the control plane was out of reach)"), "{reason}");
    }

    #[test]
    fn what_a_trip_is_attributed_to_is_kept() {
        for attributed in [Attributed::Beside { baseline: 0.01, ln_evidence: 80.0 }, Attributed::Alone] {
            let mut trip = trip();
            trip.fired.attributed = Some(attributed);
            assert_eq!(Trip::try_from(v1::Trip::from(trip.clone())).unwrap(), trip);
        }
    }

    #[test]
    fn a_trip_that_cannot_be_honest_is_refused_by_its_field() {
        type Spoil = fn(&mut v1::Trip);
        let cases: &[(&str, Spoil)] = &[
            ("trip.flag_key", |trip| trip.flag_key = "a/b".into()),
            ("trip.held", |trip| trip.held = None),
            ("trip.revision", |trip| trip.revision = 0),
            ("trip.guard", |trip| trip.guard = "a".repeat(129)),
            ("trip.metric", |trip| trip.metric.clear()),
            ("trip.failures", |trip| trip.failures = 41),
            ("trip.allowed", |trip| trip.allowed = f64::NAN),
            ("trip.evidence", |trip| trip.evidence = 18.5),
            ("trip.evidence", |trip| trip.bound = f64::NAN),
            ("trip.attribution.baseline", |trip| trip.attribution = Some(v1::TripAttribution { baseline: Some(1.1), evidence: 80.0 })),
            ("trip.attribution.evidence", |trip| trip.attribution = Some(v1::TripAttribution { baseline: Some(0.1), evidence: 1.0 })),
        ];
        for (field, spoil) in cases {
            let mut spoilt = report();
            spoilt.trip.iter_mut().for_each(spoil);
            assert_eq!(Tripped::try_from(spoilt).unwrap_err().field, *field);
        }
        assert_eq!(Tripped::try_from(v1::ReportTripRequest { trip: None, ..report() }).unwrap_err().field, "trip");
        assert_eq!(Tripped::try_from(v1::ReportTripRequest { identity: None, ..report() }).unwrap_err().field, "identity");
    }
}
