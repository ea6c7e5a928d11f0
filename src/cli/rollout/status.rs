//! `yardarm rollout status`: the timeline, the evidence against the margins, and what the gate waits for.

use std::collections::BTreeMap;

use owo_colors::OwoColorize as _;
use serde::Serialize;

use super::super::exit::{Exit, Failure, Outcome};
use super::super::output::Out;
use super::super::table::{Rows, alarming, doubtful, plain};
use super::super::view::{Position, clock, time};
use super::Target;
use crate::rollout::percent;
use crate::rollout::statistics::ALPHA_PASS;
use crate::wire::v1;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The flag
    key: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    flag: String,
    #[serde(flatten)]
    position: Position,
    phase: String,
    reason: String,
    attempt: u32,
    /// Of the gates of this attempt.
    alpha_pass: f64,
    stage: u32,
    started_at: Option<String>,
    stage_started_at: Option<String>,
    until: Option<String>,
    waiting: String,
    approvable: String,
    approvals: Vec<String>,
    baseline: String,
    /// Buckets of 1,000,000.
    shares: BTreeMap<String, u32>,
    exposed: BTreeMap<String, u64>,
    stages: Vec<Stage>,
    findings: Vec<Finding>,
    #[serde(skip)]
    clocks: [String; 2],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stage {
    name: String,
    percent: String,
    start: String,
    bake: String,
    deadline: String,
    gates: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    metric: String,
    treatment: String,
    mode: String,
    margin: String,
    verdict: String,
    treated: Option<f64>,
    control: Option<f64>,
    difference: Option<[f64; 2]>,
    units: u64,
    planned: u64,
    still_needed: u64,
}

pub async fn run(target: Target, args: Args, out: &mut Out) -> Outcome {
    let mut client = target.connect().await?;
    let status = Status::from(target.get(&mut client, &args.key).await?);
    out.answer(&status, print)?;
    Ok(Exit::Done)
}

fn print(out: &mut Out, status: &Status) -> Result<(), Failure> {
    let Status { flag, phase, reason, attempt, alpha_pass, shares, waiting, clocks: [started, until], .. } = status;
    let share = percent(shares.values().sum());
    let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let alpha = if *alpha_pass < ALPHA_PASS { format!(" with an alpha of {alpha_pass}") } else { String::new() };
    match attempt {
        0 => out.line(format!("{flag}: {phase}; start it with `yardarm rollout start {flag} --reason …`"))?,
        _ => out.line(format!("{flag}: {phase} at {share}, attempt {attempt}{alpha}, started {started}{why}").bold())?,
    }
    if status.until.is_some() {
        out.line(format!("it can be rolled back until {until}, and archived after it"))?;
    }
    if !waiting.is_empty() {
        out.line(format!("waits for: {waiting}"))?;
    }
    if !status.approvable.is_empty() && phase == "awaiting approval" {
        out.line(format!("approve with `yardarm rollout approve {flag} --of {} --reason …`", status.approvable))?;
    }
    timeline(out, status)?;
    evidence(out, status)
}

fn timeline(out: &mut Out, status: &Status) -> Result<(), Failure> {
    out.line("")?;
    let mut rows = Rows::under(["", "STAGE", "SHARE", "STARTS", "BAKES", "DEADLINE", "GATES"]);
    for (index, stage) in (0_u32..).zip(&status.stages) {
        let is_at = status.attempt > 0 && index == status.stage;
        let mark = match status.attempt > 0 && index < status.stage {
            true => "done",
            false if is_at => "-->",
            false => "",
        };
        let or = |text: &str, otherwise: &str| if text.is_empty() { otherwise.to_owned() } else { text.to_owned() };
        let Stage { name, percent, start, bake, deadline, gates } = stage;
        rows.row(
            [
                mark.to_owned(),
                name.clone(),
                percent.clone(),
                or(start, "at once"),
                or(bake, "-"),
                or(deadline, "-"),
                or(&gates.join(" and "), "-"),
            ],
            plain(),
        );
    }
    rows.print(out)
}

fn evidence(out: &mut Out, status: &Status) -> Result<(), Failure> {
    if status.findings.is_empty() {
        return Ok(());
    }
    out.line("")?;
    let mut rows = Rows::under(["METRIC", "VARIANT", "MODE", "MARGIN", "TREATED", "CONTROL", "DIFFERENCE", "UNITS", "NEEDED", "VERDICT"]);
    for finding in &status.findings {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
        let difference = finding.difference.map_or_else(|| "-".to_owned(), |[low, high]| format!("{low:+.4} to {high:+.4}"));
        let style = match finding.verdict.as_str() {
            "pass" => plain(),
            "fail" => alarming(),
            _ => doubtful(),
        };
        let Finding { metric, treatment, mode, margin, verdict, treated, control, units, still_needed, .. } = finding;
        rows.row(
            [
                metric.clone(),
                treatment.clone(),
                mode.clone(),
                margin.clone(),
                number(*treated),
                number(*control),
                difference,
                units.to_string(),
                still_needed.to_string(),
                verdict.clone(),
            ],
            style,
        );
    }
    rows.print(out)
}

impl From<v1::Rollout> for Status {
    fn from(rollout: v1::Rollout) -> Self {
        let clocks = [clock(rollout.started_at), clock(rollout.until)];
        let v1::Rollout { position, key, phase, reason, attempt, alpha_pass, stages, stage, started_at, stage_started_at, until, .. } =
            rollout;
        Self {
            flag: key,
            position: position.into(),
            phase,
            reason,
            attempt,
            alpha_pass,
            stage,
            started_at: time(started_at),
            stage_started_at: time(stage_started_at),
            until: time(until),
            waiting: rollout.waiting,
            approvable: rollout.approvable,
            approvals: rollout.approvals,
            baseline: rollout.baseline,
            shares: rollout.shares.into_iter().collect(),
            exposed: rollout.exposed.into_iter().collect(),
            stages: stages.into_iter().map(Stage::from).collect(),
            findings: rollout.findings.into_iter().map(Finding::from).collect(),
            clocks,
        }
    }
}

impl From<v1::RolloutStage> for Stage {
    fn from(stage: v1::RolloutStage) -> Self {
        let v1::RolloutStage { name, buckets, start, bake, deadline, gates } = stage;
        Self { name, percent: percent(buckets), start, bake, deadline, gates }
    }
}

impl From<v1::RolloutFinding> for Finding {
    fn from(finding: v1::RolloutFinding) -> Self {
        let v1::RolloutFinding { metric, treatment, mode, margin, verdict, treated, control, units, planned, .. } = finding;
        let still_needed = if verdict == "wait" { planned.saturating_sub(units) } else { 0 };
        let difference = finding.difference_low.zip(finding.difference_high).map(|(low, high)| [low, high]);
        Self { metric, treatment, mode, margin, verdict, treated, control, difference, units, planned, still_needed }
    }
}
