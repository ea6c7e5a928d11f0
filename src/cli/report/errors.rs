//! `yardarm report errors`: the error rate of each flag and variant, where it is above a bound. Counted as the view `logs` counts: outcomes,
//! and evaluations that failed.

use std::collections::BTreeMap;

use serde::Serialize;

use super::log::{Logs, Read};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::output::Out;
use crate::cli::table::{Rows, alarming};

/// Callers may ask for flags that do not exist, each under another name.
const MOST_GROUPS: usize = 100_000;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this flag
    key: Option<String>,
    /// Show what is above this share of errors, 0 to 1
    #[arg(long, value_name = "RATE", default_value_t = 0.01, value_parser = share)]
    above: f64,
    #[command(flatten)]
    logs: Logs,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    above: f64,
    rates: Vec<Rate>,
    /// Lines of further flags than can be told apart.
    left_out: u64,
    #[serde(flatten)]
    read: Read,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rate {
    flag: String,
    variant: Option<String>,
    enabled: bool,
    total: u64,
    errors: u64,
    error_rate: f64,
    /// Of `total`; without any, the rate is that of evaluations that failed, which is 1.
    outcomes: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counted {
    total: u64,
    errors: u64,
    outcomes: u64,
}

pub fn run(args: Args, out: &mut Out) -> Outcome {
    let Args { key, above, logs } = args;
    let mut groups: BTreeMap<(String, Option<String>, bool), Counted> = BTreeMap::new();
    let mut left_out = 0;
    let read = logs.each(|line| {
        let has_failed = line.is_evaluation() && line.error_code.is_some();
        if !(line.is_outcome() || has_failed) || key.as_ref().is_some_and(|key| *key != line.flag) {
            return;
        }
        let group = (line.flag.clone().into_owned(), line.variant.as_deref().map(str::to_owned), line.enabled);
        if groups.len() >= MOST_GROUPS && !groups.contains_key(&group) {
            left_out += 1;
            return;
        }
        let counted = groups.entry(group).or_default();
        counted.total += 1;
        counted.errors += u64::from(has_failed || line.error);
        counted.outcomes += u64::from(line.is_outcome());
    })?;
    read.note(out);
    let rates = groups.into_iter().map(|((flag, variant, enabled), Counted { total, errors, outcomes })| Rate {
        flag,
        variant,
        enabled,
        total,
        errors,
        error_rate: errors as f64 / total as f64,
        outcomes,
    });
    let report = Report { above, rates: rates.filter(|rate| rate.error_rate > above).collect(), left_out, read };
    out.answer(&report, print)?;
    Ok(if report.rates.is_empty() { Exit::Done } else { Exit::Problem })
}

fn print(out: &mut Out, report: &Report) -> Result<(), Failure> {
    let Report { above, rates, left_out, read } = report;
    if rates.is_empty() {
        out.line(format!("no error rate is above {above} in {} lines", read.lines))?;
    } else {
        let mut rows = Rows::under(["FLAG", "VARIANT", "ENABLED", "ERROR RATE", "ERRORS", "OF", "OUTCOMES"]);
        for Rate { flag, variant, enabled, total, errors, error_rate, outcomes } in rates {
            let variant = variant.as_deref().unwrap_or("(caller's default)").to_owned();
            let rate = format!("{error_rate:.4}");
            let cells = [flag.clone(), variant, enabled.to_string(), rate, errors.to_string(), total.to_string(), outcomes.to_string()];
            rows.row(cells, alarming());
        }
        rows.print(out)?;
    }
    if *left_out > 0 {
        out.note(format!("{left_out} lines of further flags than {MOST_GROUPS} are left out: name a flag"));
    }
    Ok(())
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a rate is a number from 0 to 1".to_owned()),
    }
}
