//! `yardarm evidence`: who was served what, and what became of them.

use serde::Serialize;

use super::connect::{ControlPlane, Environment};
use super::exit::{Exit, Failure, Outcome};
use super::output::Out;
use super::status;
use super::table::{Rows, doubtful, plain};
use super::view::{clock, time};
use crate::wire::v1;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Key of the flag
    key: String,
    #[command(flatten)]
    control: ControlPlane,
    #[command(flatten)]
    environment: Environment,
    /// Show every revision that is known, and not only the newest
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Evidence {
    flag: String,
    /// About how many people saw each variant, at any revision.
    reach: Vec<Reach>,
    epochs: Vec<Epoch>,
    pushed: Vec<Pushed>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reach {
    variant: String,
    people: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Epoch {
    revision: u64,
    first: Option<String>,
    last: Option<String>,
    has_units: bool,
    crossover: u64,
    refused_units: u64,
    variants: Vec<Variant>,
    #[serde(skip)]
    clock: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Variant {
    variant: String,
    units: u64,
    metrics: Vec<Metric>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metric {
    metric: String,
    /// First outcomes of people within a minute, and failures among them; then of all outcomes.
    n: u64,
    k: u64,
    n_raw: u64,
    k_raw: u64,
    /// Share of units, mean or ratio.
    estimate: Option<f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pushed {
    metric: String,
    version: u64,
    watermark: Option<String>,
    variants: Vec<String>,
    #[serde(skip)]
    clock: String,
}

pub async fn run(args: Args, out: &mut Out) -> Outcome {
    let Args { key, control, environment, all } = args;
    let request = v1::GetEvidenceRequest { environment: environment.name, flag_key: key.clone() };
    let answer = control.connect().await?.get_evidence(control.ask(request)).await.map_err(status::of_control)?.into_inner();
    let v1::GetEvidenceResponse { epochs, pushed, reach } = answer;
    let shown = if all { usize::MAX } else { 1 };
    let evidence = Evidence {
        flag: key,
        reach: reach.into_iter().map(|v1::VariantReach { variant, people }| Reach { variant, people }).collect(),
        epochs: epochs.into_iter().take(shown).map(Into::into).collect(),
        pushed: pushed.into_iter().map(Into::into).collect(),
    };
    out.answer(&evidence, print)?;
    Ok(Exit::Done)
}

fn print(out: &mut Out, evidence: &Evidence) -> Result<(), Failure> {
    let Evidence { flag, reach, epochs, pushed } = evidence;
    if epochs.is_empty() && pushed.is_empty() {
        return out.line(format!(
            "nothing is known of {flag}: it needs `metrics`, questions with a targeting key, and outcomes by Track (sidecars report within ten seconds)"
        ));
    }
    let mut rows = Rows::under(["REVISION", "VARIANT", "UNITS", "METRIC", "N", "FAILED", "RATE", "ESTIMATE", "UNTIL"]);
    for Epoch { revision, variants, clock, has_units, .. } in epochs {
        let style = if *has_units { plain() } else { doubtful() };
        for Variant { variant, units, metrics } in variants {
            let line = |[metric, n, k, rate, estimate]: [String; 5]| {
                [revision.to_string(), variant.clone(), units.to_string(), metric, n, k, rate, estimate, clock.clone()]
            };
            if metrics.is_empty() {
                rows.row(line(["-"; 5].map(str::to_owned)), style);
            }
            for Metric { metric, n, k, estimate, .. } in metrics {
                let rate = if *n == 0 { "-".to_owned() } else { format!("{:.2} %", 100.0 * *k as f64 / *n as f64) };
                let estimate = estimate.map_or_else(|| "-".to_owned(), |estimate| format!("{estimate:.4}"));
                rows.row(line([metric.clone(), n.to_string(), k.to_string(), rate, estimate]), style);
            }
        }
    }
    rows.print(out)?;
    for Epoch { revision, crossover, refused_units, .. } in epochs {
        if *crossover > 0 {
            out.line(format!("revision {revision}: {crossover} units were seen in several variants and count in none"))?;
        }
        if *refused_units > 0 {
            out.line(format!("revision {revision}: {refused_units} records were of units beyond the limit"))?;
        }
    }
    for Reach { variant, people } in reach {
        out.line(format!("about {people:.0} saw {variant}"))?;
    }
    for Pushed { metric, version, variants, clock, .. } in pushed {
        out.line(format!("{metric} was pushed for {}, version {version}, complete until {clock}", variants.join(", ")))?;
    }
    Ok(())
}

impl From<v1::EpochSummary> for Epoch {
    fn from(summary: v1::EpochSummary) -> Self {
        let v1::EpochSummary { revision, first, last, has_units, crossover, refused_units, variants } = summary;
        let metric = |v1::MetricSummary { metric, n, k, n_raw, k_raw, estimate }| Metric { metric, n, k, n_raw, k_raw, estimate };
        let variant = |v1::VariantSummary { variant, units, metrics }: v1::VariantSummary| Variant {
            variant,
            units,
            metrics: metrics.into_iter().map(metric).collect(),
        };
        Self {
            revision,
            first: time(first),
            last: time(last),
            has_units,
            crossover,
            refused_units,
            variants: variants.into_iter().map(variant).collect(),
            clock: clock(last),
        }
    }
}

impl From<v1::PushedMetric> for Pushed {
    fn from(pushed: v1::PushedMetric) -> Self {
        let v1::PushedMetric { metric, version, watermark, arms } = pushed;
        let variants = arms.into_iter().map(|arm| arm.variant).collect();
        Self { metric, version, watermark: time(watermark), variants, clock: clock(watermark) }
    }
}
