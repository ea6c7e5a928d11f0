//! What each gate of a plan can decide with the traffic at hand, said before the rollout starts.

use super::judge::{direction, margin, mode};
use super::plan::Plan;
use super::statistics::{self as statistics, Baselines, Feasibility, Undecidable};
use crate::flag::{BUCKETS, Metric, MetricKind};

const DAY_S: f64 = 86_400.0;

/// One gate of one stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// As the plan names it, and the share of all treatments in buckets.
    pub stage: String,
    pub buckets: u32,
    pub metric: String,
    pub outlook: Outlook,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Outlook {
    Known(Feasibility),
    /// No number of units decides it.
    Never(Undecidable),
    /// What is missing to say anything.
    Unknown(&'static str),
}

/// Of a first attempt, in the order of the stages and their gates. `units_per_day`: instead of the plan's own.
pub fn forecast(plan: &Plan, units_per_day: Option<f64>) -> Vec<Forecast> {
    let mut forecasts = Vec::new();
    let units_per_day = units_per_day.or(plan.document.units_per_day.map(|units| units as f64));
    for (index, stage) in plan.document.stages.iter().enumerate() {
        for check in stage.checks() {
            let Some(metric) = plan.metrics.get(&check.metric) else { continue };
            let outlook = match (stage.bake, units_per_day, baseline(metric), check.margin(metric)) {
                (_, _, None, _) if metric.kind.is_share() => Outlook::Unknown("the metric says not what it is `expected` to be"),
                (_, _, None, _) => Outlook::Unknown("only shares can be forecast: of a mean or a ratio the variance is not known"),
                (_, None, ..) => Outlook::Unknown("it is not known how many units there are in a day (`unitsPerDay`, --units-per-day)"),
                (None, ..) => Outlook::Unknown("the stage has no `bake` time"),
                (.., None) => Outlook::Unknown("the gate has no margin, and so nothing that is worth finding"),
                (Some(bake), Some(units_per_day), Some(baseline), Some(allowed)) => {
                    let days = bake.as_seconds() as f64 / DAY_S;
                    let share = f64::from(stage.percent()) / f64::from(BUCKETS);
                    let of = statistics::Stage { share, days, units_per_day };
                    match of.feasibility(baseline, direction(metric.direction), margin(allowed), mode(check.mode(metric))) {
                        Ok(feasible) => Outlook::Known(feasible),
                        Err(never) => Outlook::Never(never),
                    }
                }
            };
            let (stage, buckets) = (plan.document.name_of(index), stage.percent());
            forecasts.push(Forecast { stage, buckets, metric: check.metric.clone(), outlook });
        }
    }
    forecasts
}

fn baseline(metric: &Metric) -> Option<Baselines> {
    let expected = metric.expected?;
    matches!(metric.kind, MetricKind::Binomial | MetricKind::SlowShare { .. }).then_some(Baselines::Share(expected))
}

impl Forecast {
    /// A gate that can never open: a rollout with one is not started.
    pub fn is_hopeless(&self) -> bool {
        matches!(self.outlook, Outlook::Never(_))
    }

    /// A gate that has too few units to open in time.
    pub fn is_short(&self) -> bool {
        matches!(&self.outlook, Outlook::Known(feasible) if !feasible.decidable)
    }
}

impl std::fmt::Display for Outlook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Known(feasible) => feasible.fmt(f),
            Self::Never(why) => write!(f, "never decidable: {why}"),
            Self::Unknown(why) => write!(f, "not known: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::Document;

    fn outlooks(expected: &str, margin: &str, units_per_day: Option<f64>) -> Vec<String> {
        let text = format!(
            "flags: {{ f: {{ variants: {{ a: x, b: y }}, defaultSplit: {{ weights: {{ a: 1, b: 0 }} }},
            metrics: {{ m: {{ kind: binomial, direction: higher, margin: {margin}{expected} }} }},
            rollout: {{ baseline: a, treatments: [b], stages: [{{ percent: 50, bake: 7d, gates: [{{ comparison: m }}] }}, {{ percent: 100 }}] }} }} }}"
        );
        let plan = Plan::of(&Document::parse(&text).unwrap().flags["f"], |_| String::new()).unwrap();
        forecast(&plan, units_per_day).into_iter().map(|forecast| forecast.outlook.to_string()).collect()
    }

    #[test]
    fn five_hundred_sessions_certify_what_they_can() {
        let said = outlooks(", expected: 0.1", "{ absolute: 0.02 }", Some(1_000.0 / 7.0)).remove(0);
        assert!(said.starts_with("not decidable: 6956 treated units are needed, 500 expected; it takes 1988 units a day"), "{said}");
        assert!(said.contains("a margin of 0.053 (absolute)"), "{said}");
    }

    #[test]
    fn what_is_missing_is_said() {
        assert!(outlooks("", "{ absolute: 0.02 }", Some(1.0))[0].contains("`expected`"));
        assert!(outlooks(", expected: 0.1", "{ absolute: 0.02 }", None)[0].contains("--units-per-day"));
        assert!(outlooks(", expected: 0.0001", "{ relative: 0.05 }", Some(1e6))[0].starts_with("never decidable: a relative margin"));
    }
}
