//! `yardarm report users`: the different people on each variant.

use std::collections::BTreeMap;

use owo_colors::OwoColorize as _;
use serde::Serialize;

use super::distinct::{Distinct, MOST_EXACT, People};
use super::log::{Logs, Read};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::output::Out;
use crate::cli::table::{Rows, plain};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The flag
    key: String,
    #[command(flatten)]
    logs: Logs,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    flag: String,
    /// Whoever was served any variant.
    people: Number,
    /// Whoever was served an enabled one.
    enabled: Number,
    variants: Vec<Row>,
    /// Evaluations of nobody in particular: without a targeting key, or in a log that keeps none.
    without_key: u64,
    #[serde(flatten)]
    read: Read,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// `null`: the caller's default.
    variant: Option<String>,
    enabled: bool,
    #[serde(flatten)]
    people: Number,
    lines: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Number {
    count: u64,
    exact: bool,
    low: u64,
    high: u64,
}

#[derive(Default)]
struct Counted {
    people: Distinct,
    lines: u64,
}

pub fn run(args: Args, out: &mut Out) -> Outcome {
    let Args { key, logs } = args;
    let (mut all, mut enabled, mut without_key) = (Distinct::default(), Distinct::default(), 0);
    let mut variants: BTreeMap<(Option<String>, bool), Counted> = BTreeMap::new();
    let read = logs.each(|line| {
        if !line.is_evaluation() || line.flag != key {
            return;
        }
        let counted = variants.entry((line.variant.as_deref().map(str::to_owned), line.enabled)).or_default();
        counted.lines += 1;
        let Some(person) = &line.key else {
            without_key += 1;
            return;
        };
        counted.people.add(person);
        all.add(person);
        if line.enabled {
            enabled.add(person);
        }
    })?;
    read.note(out);
    if variants.is_empty() {
        return Err(Failure::problem(format!("the log has no evaluation of `{key}` ({} lines were read)", read.lines)));
    }
    let rows = variants.into_iter().map(|((variant, enabled), Counted { people, lines })| Row {
        variant,
        enabled,
        people: people.people().into(),
        lines,
    });
    let report =
        Report { flag: key, people: all.people().into(), enabled: enabled.people().into(), variants: rows.collect(), without_key, read };
    out.answer(&report, print)?;
    Ok(Exit::Done)
}

fn print(out: &mut Out, report: &Report) -> Result<(), Failure> {
    let Report { flag, people, enabled, variants, without_key, read: _ } = report;
    out.line(format!("{}: {people} people, {enabled} of them on an enabled variant", flag.bold()))?;
    let mut rows = Rows::under(["VARIANT", "ENABLED", "PEOPLE", "LINES"]);
    for Row { variant, enabled, people, lines } in variants {
        let variant = variant.as_deref().unwrap_or("(caller's default)").to_owned();
        rows.row([variant, enabled.to_string(), people.to_string(), lines.to_string()], plain());
    }
    rows.print(out)?;
    if *without_key > 0 {
        out.line(format!("{without_key} evaluations are of nobody in particular"))?;
    }
    let how = match people.exact {
        true => "every person was counted one by one: the numbers are exact".to_owned(),
        false => format!("beyond {MOST_EXACT} people a number is estimated (HyperLogLog), with the bounds of 95 of 100 cases"),
    };
    out.line(how.dimmed())
}

impl From<People> for Number {
    fn from(people: People) -> Self {
        let People { number, low, high } = people;
        Self { count: number, exact: people.is_exact(), low, high }
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        People { number: self.count, low: self.low, high: self.high }.fmt(f)
    }
}
