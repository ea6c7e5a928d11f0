//! Reports of evidence, checked: what comes in is hostile until proven otherwise.

use crate::flag::{Revision, limits};

use super::replication::{Malformed, environment, identity};
use super::v1;

/// The largest report: 20,000 unit records with some outcomes each.
pub const REPORT_BYTES: usize = 16 << 20;
/// Of one report.
const EPOCHS: usize = 8_192;
const UNITS: usize = 50_000;
const FAILING: usize = 16;
/// 2^53: beyond it a count is no exact number in JSON.
const MOST: u64 = 1 << 53;
/// A sum of outcomes that was reported may not be beyond this: squares of it are added up.
const LARGEST_SUM: f64 = 1e100;

/// What one sidecar counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub environment: String,
    pub instance: String,
    pub pod: String,
    /// Of one start of the sidecar.
    pub boot: [u8; 16],
    pub seq: u64,
    pub epochs: Vec<Epoch>,
}

/// Of a flag at a revision of its definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Epoch {
    pub flag: String,
    pub revision: Revision,
    pub life: u32,
    pub sampling_rate: f64,
    pub metrics: Vec<Metric>,
    pub variants: Vec<Variant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    pub name: String,
    pub shape: Shape,
}

/// How outcomes of one unit add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Share,
    Mean,
    Ratio,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    pub name: String,
    pub exposures: u64,
    pub counters: Vec<Counter>,
    pub units: Vec<Unit>,
}

/// Since the boot. Not more failures than outcomes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counter {
    /// Place among the metrics.
    pub metric: usize,
    pub n: u64,
    pub k: u64,
    pub n_raw: u64,
    pub k_raw: u64,
    pub failing: Vec<u64>,
}

/// What is new of a unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    pub hash: u64,
    pub first_ms: i64,
    pub is_apart: bool,
    pub outcomes: Vec<Outcome>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    pub metric: usize,
    pub x: f64,
    pub y: f64,
}

fn wrong<T>(field: &'static str, problem: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed { field, problem: problem.into() })
}

fn at_most(found: usize, most: usize, field: &'static str) -> Result<(), Malformed> {
    if found > most { wrong(field, format!("has {found} entries, at most {most} are allowed")) } else { Ok(()) }
}

fn name(text: String, field: &'static str) -> Result<String, Malformed> {
    match text.len() {
        1..=limits::KEY_BYTES => Ok(text),
        bytes => wrong(field, format!("has {bytes} bytes, expected 1 to {}", limits::KEY_BYTES)),
    }
}

impl TryFrom<v1::ReportRequest> for Report {
    type Error = Malformed;

    fn try_from(request: v1::ReportRequest) -> Result<Self, Malformed> {
        let v1::ReportRequest { environment: of, identity: from, boot, seq, epochs } = request;
        let from = identity(from)?;
        let boot = <[u8; 16]>::try_from(boot.as_slice());
        let Ok(boot) = boot else { return wrong("boot", "has not the 16 bytes of a random number") };
        if seq == 0 {
            return wrong("seq", "is 0, expected a number from 1");
        }
        at_most(epochs.len(), EPOCHS, "epochs")?;
        let units = epochs.iter().flat_map(|epoch| &epoch.variants).map(|variant| variant.units.len()).sum();
        at_most(units, UNITS, "epochs.variants.units")?;
        let epochs = epochs.into_iter().map(Epoch::try_from).collect::<Result<_, _>>()?;
        Ok(Self { environment: environment(of)?, instance: from.instance, pod: from.pod, boot, seq, epochs })
    }
}

impl TryFrom<v1::EpochEvidence> for Epoch {
    type Error = Malformed;

    fn try_from(evidence: v1::EpochEvidence) -> Result<Self, Malformed> {
        let v1::EpochEvidence { flag_key, revision, life, sampling_rate, metrics, variants } = evidence;
        if !limits::is_key(&flag_key) {
            return wrong("epochs.flag_key", "is no key of a flag");
        }
        if revision == 0 {
            return wrong("epochs.revision", "is 0, expected the number of a change");
        }
        if !(sampling_rate > 0.0 && sampling_rate <= 1.0) {
            return wrong("epochs.sampling_rate", format!("is {sampling_rate}, expected a share above 0 and up to 1"));
        }
        at_most(metrics.len(), limits::METRICS, "epochs.metrics")?;
        at_most(variants.len(), limits::VARIANTS, "epochs.variants")?;
        let metrics: Vec<_> = metrics.into_iter().map(Metric::try_from).collect::<Result<_, _>>()?;
        let variants = variants.into_iter().map(|variant| Variant::read(variant, &metrics)).collect::<Result<_, _>>()?;
        Ok(Self { flag: flag_key, revision, life, sampling_rate, metrics, variants })
    }
}

impl TryFrom<v1::MetricName> for Metric {
    type Error = Malformed;

    fn try_from(metric: v1::MetricName) -> Result<Self, Malformed> {
        let shape = match metric.shape() {
            v1::MetricShape::Share => Shape::Share,
            v1::MetricShape::Mean => Shape::Mean,
            v1::MetricShape::Ratio => Shape::Ratio,
            v1::MetricShape::Unspecified => return wrong("epochs.metrics.shape", "is missing or unknown"),
        };
        Ok(Self { name: name(metric.name, "epochs.metrics.name")?, shape })
    }
}

impl Variant {
    fn read(evidence: v1::VariantEvidence, metrics: &[Metric]) -> Result<Self, Malformed> {
        let v1::VariantEvidence { variant, exposures, counters, units } = evidence;
        if exposures > MOST {
            return wrong("epochs.variants.exposures", format!("is {exposures}, at most 2^53 is possible"));
        }
        at_most(counters.len(), metrics.len(), "epochs.variants.counters")?;
        let name = name(variant, "epochs.variants.variant")?;
        let counters = counters.into_iter().map(|counter| Counter::read(counter, metrics)).collect::<Result<_, _>>()?;
        let units = units.into_iter().map(|unit| Unit::read(unit, metrics)).collect::<Result<_, _>>()?;
        Ok(Self { name, exposures, counters, units })
    }
}

fn metric(number: u32, metrics: &[Metric], field: &'static str) -> Result<usize, Malformed> {
    match usize::try_from(number) {
        Ok(metric) if metric < metrics.len() => Ok(metric),
        _ => wrong(field, format!("is {number}, but there are {} metrics", metrics.len())),
    }
}

impl Counter {
    fn read(counter: v1::CounterEvidence, metrics: &[Metric]) -> Result<Self, Malformed> {
        let v1::CounterEvidence { metric: number, n, k, n_raw, k_raw, failing } = counter;
        at_most(failing.len(), FAILING, "epochs.variants.counters.failing")?;
        if k > n || k_raw > n_raw || n > n_raw || n_raw > MOST {
            let counts = format!("n {n}, k {k}, n_raw {n_raw} and k_raw {k_raw}");
            return wrong("epochs.variants.counters", format!("{counts} cannot be: expected k <= n <= n_raw and k_raw <= n_raw"));
        }
        Ok(Self { metric: metric(number, metrics, "epochs.variants.counters.metric")?, n, k, n_raw, k_raw, failing })
    }
}

impl Unit {
    pub fn read(record: v1::UnitRecord, metrics: &[Metric]) -> Result<Self, Malformed> {
        let v1::UnitRecord { unit, first_exposure_ms, outcomes, apart } = record;
        at_most(outcomes.len(), metrics.len(), "epochs.variants.units.outcomes")?;
        let outcome = |v1::UnitOutcome { metric: number, x, y }: v1::UnitOutcome| {
            // NaN is in no range.
            let is_sum = |sum: f64| (-LARGEST_SUM..=LARGEST_SUM).contains(&sum);
            if !is_sum(x) || !is_sum(y) || y < 0.0 {
                return wrong("epochs.variants.units.outcomes", format!("x {x} and y {y} cannot be"));
            }
            Ok(Outcome { metric: metric(number, metrics, "epochs.variants.units.outcomes.metric")?, x, y })
        };
        let outcomes = outcomes.into_iter().map(outcome).collect::<Result<_, _>>()?;
        Ok(Self { hash: unit, first_ms: first_exposure_ms, is_apart: apart, outcomes })
    }
}

impl From<&Report> for v1::ReportRequest {
    fn from(report: &Report) -> Self {
        let Report { environment, instance, pod, boot, seq, epochs } = report;
        let identity = v1::Identity { instance: instance.clone(), pod: pod.clone(), ..Default::default() };
        Self {
            environment: environment.clone(),
            identity: Some(identity),
            boot: boot.to_vec(),
            seq: *seq,
            epochs: epochs.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Epoch> for v1::EpochEvidence {
    fn from(epoch: &Epoch) -> Self {
        let Epoch { flag, revision, life, sampling_rate, metrics, variants } = epoch;
        Self {
            flag_key: flag.clone(),
            revision: *revision,
            life: *life,
            sampling_rate: *sampling_rate,
            metrics: metrics.iter().map(Into::into).collect(),
            variants: variants.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Metric> for v1::MetricName {
    fn from(Metric { name, shape }: &Metric) -> Self {
        let shape = match shape {
            Shape::Share => v1::MetricShape::Share,
            Shape::Mean => v1::MetricShape::Mean,
            Shape::Ratio => v1::MetricShape::Ratio,
        };
        Self { name: name.clone(), shape: shape.into() }
    }
}

/// A place in a list that has been found to be short.
fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

impl From<&Variant> for v1::VariantEvidence {
    fn from(Variant { name, exposures, counters, units }: &Variant) -> Self {
        let counters = counters.iter().map(|Counter { metric, n, k, n_raw, k_raw, failing }| v1::CounterEvidence {
            metric: number(*metric),
            n: *n,
            k: *k,
            n_raw: *n_raw,
            k_raw: *k_raw,
            failing: failing.clone(),
        });
        let (variant, counters) = (name.clone(), counters.collect());
        Self { variant, exposures: *exposures, counters, units: units.iter().map(Into::into).collect() }
    }
}

impl From<&Unit> for v1::UnitRecord {
    fn from(Unit { hash, first_ms, is_apart, outcomes }: &Unit) -> Self {
        let outcomes = outcomes.iter().map(|Outcome { metric, x, y }| v1::UnitOutcome { metric: number(*metric), x: *x, y: *y });
        Self { unit: *hash, first_exposure_ms: *first_ms, outcomes: outcomes.collect(), apart: *is_apart }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> v1::ReportRequest {
        let counters = vec![v1::CounterEvidence { metric: 0, n: 2, k: 1, n_raw: 3, k_raw: 1, failing: vec![7] }];
        let outcomes = vec![v1::UnitOutcome { metric: 0, x: 1.0, y: 0.0 }];
        let units = vec![v1::UnitRecord { unit: 7, first_exposure_ms: 5, outcomes, apart: false }];
        let variants = vec![v1::VariantEvidence { variant: "on".into(), exposures: 1, counters, units }];
        let metrics = vec![v1::MetricName { name: "errors".into(), shape: v1::MetricShape::Share.into() }];
        let epochs = vec![v1::EpochEvidence { flag_key: "a".into(), revision: 2, life: 0, sampling_rate: 1.0, metrics, variants }];
        let identity = Some(v1::Identity { instance: "i".into(), ..Default::default() });
        v1::ReportRequest { environment: "prod".into(), identity, boot: vec![1; 16], seq: 1, epochs }
    }

    #[test]
    fn a_report_is_the_same_after_it_was_written() {
        let read = Report::try_from(report()).unwrap();
        assert_eq!(Report::try_from(v1::ReportRequest::from(&read)).unwrap(), read);
    }

    #[test]
    fn a_report_that_cannot_be_honest_is_refused_by_its_field() {
        assert!(Report::try_from(report()).is_ok());
        type Spoil = fn(&mut v1::ReportRequest);
        let cases: &[(&str, Spoil)] = &[
            ("environment", |report| report.environment.clear()),
            ("identity", |report| report.identity = None),
            ("boot", |report| report.boot = vec![1; 15]),
            ("seq", |report| report.seq = 0),
            ("epochs.flag_key", |report| report.epochs[0].flag_key = "a/b".into()),
            ("epochs.revision", |report| report.epochs[0].revision = 0),
            ("epochs.sampling_rate", |report| report.epochs[0].sampling_rate = f64::NAN),
            ("epochs.metrics.shape", |report| report.epochs[0].metrics[0].shape = 0),
            ("epochs.variants.variant", |report| report.epochs[0].variants[0].variant.clear()),
            ("epochs.variants.counters", |report| report.epochs[0].variants[0].counters[0].k = 3),
            ("epochs.variants.counters.metric", |report| report.epochs[0].variants[0].counters[0].metric = 1),
            ("epochs.variants.counters.failing", |report| report.epochs[0].variants[0].counters[0].failing = vec![0; 17]),
            ("epochs.variants.units.outcomes", |report| report.epochs[0].variants[0].units[0].outcomes[0].x = f64::INFINITY),
            ("epochs.variants.units.outcomes.metric", |report| report.epochs[0].variants[0].units[0].outcomes[0].metric = 9),
        ];
        for (field, spoil) in cases {
            let mut spoilt = report();
            spoil(&mut spoilt);
            assert_eq!(Report::try_from(spoilt).unwrap_err().field, *field);
        }
    }
}
