//! `yardarm rollout history`: what was decided, when, by whom, and from what.

use serde::Serialize;
use serde_json::Value as Json;

use super::super::exit::{Exit, Failure, Outcome};
use super::super::output::Out;
use super::super::status;
use super::super::table::{Rows, plain};
use super::super::view::{clock, definition, time};
use super::Target;
use crate::rollout::percent;
use crate::wire::v1;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The flag
    key: String,
    /// At most this many, newest first
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    decisions: Vec<Decision>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Decision {
    revision: u64,
    at: Option<String>,
    event: String,
    by: String,
    phase_before: String,
    phase: String,
    percent: String,
    attempt: u32,
    stage: u32,
    /// Everything that it was made from.
    record: Json,
    #[serde(skip)]
    clock: String,
}

pub async fn run(target: Target, args: Args, out: &mut Out) -> Outcome {
    let request = v1::RolloutHistoryRequest { environment: target.environment.name.clone(), key: args.key, limit: args.limit };
    let answer = target.connect().await?.rollout_history(target.control.ask(request)).await.map_err(status::of_control)?;
    let decisions = answer.into_inner().decisions.into_iter().map(Decision::try_from).collect::<Result<_, _>>()?;
    out.answer(&Listed { decisions }, print)?;
    Ok(Exit::Done)
}

fn print(out: &mut Out, listed: &Listed) -> Result<(), Failure> {
    if listed.decisions.is_empty() {
        return out.line("the rollout was never started");
    }
    let mut rows = Rows::under(["REVISION", "AT", "EVENT", "BY", "ATTEMPT", "STAGE", "SHARE", "PHASE"]);
    for Decision { revision, clock, event, by, attempt, stage, percent, phase, .. } in &listed.decisions {
        let by = if by.is_empty() { "conductor" } else { by };
        rows.row(
            [
                revision.to_string(),
                clock.clone(),
                event.clone(),
                by.to_owned(),
                attempt.to_string(),
                (stage + 1).to_string(),
                percent.clone(),
                phase.clone(),
            ],
            plain(),
        );
    }
    rows.print(out)
}

impl TryFrom<v1::RolloutDecision> for Decision {
    type Error = Failure;

    fn try_from(decision: v1::RolloutDecision) -> Result<Self, Failure> {
        let v1::RolloutDecision { revision, at, event, by, phase_before, phase, buckets, attempt, stage, record } = decision;
        let record = self::definition(&record)?;
        Ok(Self {
            revision,
            at: time(at),
            event,
            by,
            phase_before,
            phase,
            percent: percent(buckets),
            attempt,
            stage,
            record,
            clock: clock(at),
        })
    }
}
