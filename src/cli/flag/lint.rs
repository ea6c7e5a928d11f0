//! `yardarm flag lint` and `yardarm flag schema`: documents without a control plane.

use std::path::PathBuf;

use owo_colors::OwoColorize as _;
use serde::Serialize;

use crate::cli::documents::{Documents, Located};
use crate::cli::exit::{Exit, Outcome};
use crate::cli::output::{Out, count};
use crate::flag::{self, Document};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Flag documents, YAML or JSON; several are read as one. `-` is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    files: usize,
    flags: usize,
    segments: usize,
    problems: Vec<Located>,
}

pub fn run(args: Args, out: &mut Out) -> Outcome {
    let Args { files } = args;
    let documents = Documents::read(&files)?;
    let Document { flags, segments, .. } = &documents.joined;
    let report = Report { files: files.len(), flags: flags.len(), segments: segments.len(), problems: documents.check() };
    out.answer(&report, |out, Report { files: _, flags, segments, problems }| {
        problems.iter().try_for_each(|problem| out.line(problem))?;
        match problems.len() {
            0 => out.line(format!("no problems in {} and {}", count(*flags, "flag"), count(*segments, "segment")).green()),
            some => out.line(count(some, "problem").red()),
        }
    })?;
    Ok(if report.problems.is_empty() { Exit::Done } else { Exit::Problem })
}

/// The JSON Schema as it is shipped, or on one line.
pub fn schema(out: &mut Out) -> Outcome {
    out.answer(&flag::schema(), |out, _| out.line(flag::SCHEMA.trim_end()))?;
    Ok(Exit::Done)
}
