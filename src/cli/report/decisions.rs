//! `yardarm report decisions`: what one person was served, and why.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::Serialize;

use super::log::{Logs, Read};
use crate::cli::exit::{Exit, Failure, Outcome, innermost};
use crate::cli::output::Out;
use crate::cli::table::{Rows, alarming, plain};
use crate::telemetry::decisions::{Keys, Line, Persons, SALT_FILE, Salt};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The flag
    key: String,
    /// The person: their targeting key
    #[arg(long, value_name = "KEY")]
    unit: String,
    /// At most this many, the newest
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// What the targeting keys of the log are hashed with, as the sidecar was told
    #[arg(long, env = "YARDARM_DECISION_LOG_SALT", hide_env_values = true, value_name = "SALT", conflicts_with = "salt_file")]
    salt: Option<String>,
    /// The same in a file [default: decision-log.salt in the directory of the log or above it]
    #[arg(long, env = "YARDARM_DECISION_LOG_SALT_FILE", value_name = "FILE")]
    salt_file: Option<PathBuf>,
    #[command(flatten)]
    logs: Logs,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    flag: String,
    unit: String,
    /// Newest first.
    decisions: Vec<Decision>,
    /// All of them, of which the newest are shown.
    found: u64,
    #[serde(flatten)]
    read: Read,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Decision {
    time: String,
    variant: Option<String>,
    enabled: bool,
    reason: Option<String>,
    path: Option<String>,
    bucket: Option<u32>,
    revision: Option<u64>,
    error_code: Option<String>,
    pod: String,
    environment: String,
}

/// What the person may be called in the log, by environment.
struct Names {
    unit: String,
    salts: Vec<Salt>,
    known: HashMap<String, Vec<String>>,
}

pub fn run(args: Args, out: &mut Out) -> Outcome {
    let Args { key, unit, limit, salt, salt_file, logs } = args;
    let mut names = Names { salts: salts(salt, salt_file, &logs)?, unit: unit.clone(), known: HashMap::new() };
    let limit = limit as usize;
    let (mut decisions, mut found) = (Vec::new(), 0);
    let read = logs.each(|line| {
        if line.is_evaluation() && line.flag == key && line.key.as_deref().is_some_and(|name| names.has(name, &line.environment)) {
            found += 1;
            decisions.push(Decision::of(line));
            if decisions.len() >= 2 * limit {
                keep_newest(&mut decisions, limit);
            }
        }
    })?;
    read.note(out);
    keep_newest(&mut decisions, limit);
    if decisions.is_empty() {
        let hint = match names.salts.is_empty() {
            true => "; if the log hashes keys, give its --salt or --salt-file: none was found",
            false => "",
        };
        return Err(Failure::problem(format!("the log has no decision of `{key}` for `{unit}` ({} lines were read){hint}", read.lines)));
    }
    out.answer(&Report { flag: key, unit, decisions, found, read }, print)?;
    Ok(Exit::Done)
}

/// The one that was given, or those that lie where `--data` and `--decision-log` put them.
fn salts(salt: Option<String>, file: Option<PathBuf>, logs: &Logs) -> Result<Vec<Salt>, Failure> {
    let read = |path: &PathBuf| Salt::read(path).map_err(|error| Failure::unable(format!("{error}: {}", innermost(error.as_ref()))));
    if let Some(salt) = salt {
        return Ok(vec![Salt::new(salt)]);
    }
    if let Some(file) = file {
        return Ok(vec![read(&file)?]);
    }
    let mut found = Vec::new();
    for dir in &logs.dirs {
        let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        let near = absolute.ancestors().take(3).map(|directory| directory.join(SALT_FILE));
        if let Some(path) = near.into_iter().find(|path| path.exists()) {
            found.push(read(&path)?);
        }
    }
    Ok(found)
}

fn keep_newest(decisions: &mut Vec<Decision>, limit: usize) {
    // RFC 3339 in UTC with as many digits each: the order of the texts is that of the times.
    decisions.sort_by(|one, other| other.time.cmp(&one.time));
    decisions.truncate(limit);
}

fn print(out: &mut Out, report: &Report) -> Result<(), Failure> {
    let Report { decisions, found, .. } = report;
    let mut rows = Rows::under(["TIME", "VARIANT", "ENABLED", "REASON", "PATH", "BUCKET", "REVISION", "POD"]);
    for decision in decisions {
        let Decision { time, variant, enabled, reason, path, bucket, revision, error_code, pod, environment: _ } = decision;
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let reason = error_code.as_ref().map_or_else(|| text(reason), |code| format!("{} {code}", text(reason)));
        let variant = variant.clone().unwrap_or_else(|| "(caller's default)".to_owned());
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let (bucket, revision) = (number(bucket.map(u64::from)), number(*revision));
        let style = if error_code.is_some() { alarming() } else { plain() };
        rows.row([time.clone(), variant, enabled.to_string(), reason, text(path), bucket, revision, pod.clone()], style);
    }
    rows.print(out)?;
    if *found > decisions.len() as u64 {
        out.note(format!("the newest {} of {found}; see more with --limit", decisions.len()));
    }
    Ok(())
}

impl Names {
    fn has(&mut self, name: &str, environment: &str) -> bool {
        if name == self.unit {
            return true;
        }
        if !self.known.contains_key(environment) {
            let hashed = self
                .salts
                .iter()
                .filter_map(|salt| Persons::new(Keys::Hashed, salt, environment).name(&self.unit).map(|name| name.into_owned()));
            self.known.insert(environment.to_owned(), hashed.collect());
        }
        self.known.get(environment).is_some_and(|known| known.iter().any(|known| known == name))
    }
}

impl Decision {
    fn of(line: &Line<'_>) -> Self {
        let owned = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(str::to_owned);
        Self {
            time: line.time.clone().into_owned(),
            variant: owned(&line.variant),
            enabled: line.enabled,
            reason: owned(&line.reason),
            path: owned(&line.path),
            bucket: line.bucket,
            revision: line.revision,
            error_code: owned(&line.error_code),
            pod: line.pod.clone().into_owned(),
            environment: line.environment.clone().into_owned(),
        }
    }
}
