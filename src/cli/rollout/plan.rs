//! `yardarm rollout plan`: what each gate can decide, before anybody has seen anything.

use std::path::PathBuf;

use serde::Serialize;

use super::super::connect::Admin;
use super::super::documents::Documents;
use super::super::exit::{Exit, Failure, Outcome};
use super::super::output::Out;
use super::super::status;
use super::super::table::{Rows, alarming, doubtful, plain};
use super::Target;
use crate::flag::Flag;
use crate::rollout::{Forecast, Outlook, Plan, forecast, percent};
use crate::wire::v1;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The flag
    key: String,
    /// Read it from these documents and not from the control plane
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Units (people, sessions) that the split deals in a day [default: the plan's `unitsPerDay`]
    #[arg(long, value_name = "UNITS", value_parser = clap::value_parser!(u64).range(1..))]
    units_per_day: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Planned {
    flag: String,
    gates: Vec<Gate>,
    decidable: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Gate {
    stage: String,
    percent: String,
    metric: String,
    /// `None`: not known.
    decidable: Option<bool>,
    outlook: String,
}

pub async fn run(target: Target, args: Args, out: &mut Out) -> Outcome {
    let Args { key, files, units_per_day } = args;
    let flag = match files.is_empty() {
        true => fetched(&target, &key).await?,
        false => {
            let documents = Documents::read(&files)?;
            let flag = documents.joined.flags.get(&key).cloned();
            flag.ok_or_else(|| Failure::problem(format!("there is no flag {key} in these documents")))?
        }
    };
    let planned = planned(&key, &flag, units_per_day)?;
    out.answer(&planned, print)?;
    Ok(if planned.decidable { Exit::Done } else { Exit::Problem })
}

/// What cannot be decided in time is said before a rollout starts, and does not hold it up: a person may wait longer.
pub async fn warn(target: &Target, key: &str, out: &mut Out) -> Result<(), Failure> {
    let Ok(planned) = planned(key, &fetched(target, key).await?, None) else { return Ok(()) };
    for gate in planned.gates.iter().filter(|gate| gate.decidable == Some(false)) {
        out.note(format!("{} at {}, {}: {}", gate.stage, gate.percent, gate.metric, gate.outlook));
    }
    Ok(())
}

async fn fetched(target: &Target, key: &str) -> Result<Flag, Failure> {
    let mut admin: Admin = target.control.connect().await?;
    let request = v1::GetFlagRequest { environment: target.environment.name.clone(), key: key.to_owned(), revision: 0 };
    let answer = admin.get_flag(target.control.ask(request)).await.map_err(status::of_control)?.into_inner();
    let definition = answer.flag.unwrap_or_default().definition;
    Flag::from_json(&definition).map_err(|problems| Failure::unable(format!("the definition of {key} cannot be read: {problems}")))
}

fn planned(key: &str, flag: &Flag, units_per_day: Option<u64>) -> Result<Planned, Failure> {
    let plan = Plan::of(flag, |_| String::new()).ok_or_else(|| Failure::problem(format!("flag {key} has no `rollout`")))?;
    let gates = forecast(&plan, units_per_day.map(|units| units as f64)).into_iter().map(|forecast| {
        let decidable = match &forecast.outlook {
            Outlook::Known(feasible) => Some(feasible.decidable),
            Outlook::Never(_) => Some(false),
            Outlook::Unknown(_) => None,
        };
        let Forecast { stage, buckets, metric, outlook } = forecast;
        Gate { stage, percent: percent(buckets), metric, decidable, outlook: outlook.to_string() }
    });
    let gates: Vec<Gate> = gates.collect();
    let decidable = gates.iter().all(|gate| gate.decidable != Some(false));
    Ok(Planned { flag: key.to_owned(), gates, decidable })
}

fn print(out: &mut Out, planned: &Planned) -> Result<(), Failure> {
    if planned.gates.is_empty() {
        return out.line(format!("no stage of {} has a gate with a metric", planned.flag));
    }
    let mut rows = Rows::under(["STAGE", "SHARE", "METRIC", "OUTLOOK"]);
    for Gate { stage, percent, metric, decidable, outlook } in &planned.gates {
        let style = match decidable {
            Some(true) => plain(),
            Some(false) => alarming(),
            None => doubtful(),
        };
        rows.row([stage.clone(), percent.clone(), metric.clone(), outlook.clone()], style);
    }
    rows.print(out)
}
