//! `yardarm flag apply`: shows what a document changes, and changes it.

use std::path::PathBuf;

use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::Target;
use crate::cli::connect::{Admin, Author, ControlPlane};
use crate::cli::diff;
use crate::cli::documents::{Documents, Located};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::output::{self, Out, count};
use crate::cli::status;
use crate::cli::view::{Change, Position};
use crate::flag::{Problem, Problems};
use crate::wire::v1;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A flag document, YAML or JSON; given several times, all of them are one change. `-` is standard input
    #[arg(short, long = "file", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// Why, for the audit log
    #[arg(long, default_value = "applied from the command line")]
    reason: String,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    /// Apply without asking
    #[arg(short, long, conflicts_with = "dry_run")]
    yes: bool,
    #[command(flatten)]
    author: Author,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Applied {
    environment: String,
    #[serde(flatten)]
    position: Position,
    /// Whether this command changed anything.
    changed: bool,
    dry_run: bool,
    changes: Vec<Change>,
}

/// The document that is applied, and where it goes.
struct Plan<'a> {
    control: &'a ControlPlane,
    environment: &'a str,
    documents: &'a Documents,
    json: Vec<u8>,
    intent: v1::Intent,
}

pub async fn run(target: Target, args: Args, out: &mut Out) -> Outcome {
    let Target { control, environment } = target;
    let Args { files, reason, dry_run, yes, author } = args;
    let documents = Documents::read(&files)?;
    // Names may lead to what the environment holds already, so only the control plane can check those.
    let misread = documents.misread();
    if !misread.is_empty() {
        return Err(refused(misread));
    }
    let json = serde_json::to_vec(&documents.joined.to_json())
        .map_err(|error| Failure::unable(format!("this document has no form as JSON: {error}")))?;
    let intent = author.intends(reason, None);
    let plan = Plan { control: &control, environment: &environment.name, documents: &documents, json, intent };
    let mut admin = control.connect().await?;

    let (seen, changes) = plan.preview(&mut admin).await?;
    let mut applied = Applied { environment: environment.name.clone(), position: seen, changed: false, dry_run, changes };
    if !out.is_json() {
        diff::print(&applied.changes, out)?;
    }
    if dry_run || applied.changes.is_empty() {
        out.answer(&applied, print)?;
        return Ok(Exit::Done);
    }
    // Nobody says yes to what they have not seen. Standard output is for the program.
    if out.is_json() && output::asks(yes) {
        diff::lines(&applied.changes)?.into_iter().for_each(|line| out.note(line));
    }
    output::confirm(yes, &format!("Apply {} to environment {}?", count(applied.changes.len(), "change"), environment.name))?;
    // What is committed is what was shown: a change in between is a conflict.
    match plan.commit(&mut admin, seen.revision).await {
        Ok(answer) => {
            applied.position = answer.position.into();
            applied.changed = answer.changed;
        }
        Err(conflict) if status::is_conflict(&conflict) => return Err(plan.explain(&mut admin, conflict, out).await),
        Err(other) => return Err(plan.refusal(other, status::of_change)),
    }
    out.answer(&applied, print)?;
    Ok(Exit::Done)
}

impl Plan<'_> {
    fn request(&self, dry_run: bool, expect_revision: Option<u64>) -> tonic::Request<v1::ApplyRequest> {
        let intent = v1::Intent { expect_revision, ..self.intent.clone() };
        self.control.ask(v1::ApplyRequest {
            environment: self.environment.to_owned(),
            document: self.json.clone(),
            dry_run,
            intent: Some(intent),
        })
    }

    async fn preview(&self, admin: &mut Admin) -> Result<(Position, Vec<Change>), Failure> {
        let answer = admin.apply(self.request(true, None)).await.map_err(|status| self.refusal(status, status::of_control))?.into_inner();
        let changes = answer.changes.into_iter().map(Change::try_from).collect::<Result<_, _>>()?;
        Ok((answer.position.into(), changes))
    }

    async fn commit(&self, admin: &mut Admin, expect: u64) -> Result<v1::ApplyResponse, Status> {
        admin.apply(self.request(false, Some(expect))).await.map(tonic::Response::into_inner)
    }

    /// Problems that the control plane found, at their lines in the files; anything else as `other` tells it.
    fn refusal(&self, status: Status, other: fn(Status) -> Failure) -> Failure {
        let found = status.get_error_details();
        let violations = found.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
        let is_in_document = |field: &str| field.starts_with("flags.") || field.starts_with("segments.");
        if status.code() != Code::InvalidArgument || !violations.iter().any(|violation| is_in_document(&violation.field)) {
            return other(status);
        }
        let mut problems = Problems::default();
        for violation in violations {
            problems.push(Problem {
                path: violation.field.clone(),
                line: None,
                found: violation.description.clone(),
                expected: String::new(),
                hint: None,
            });
        }
        let lines = self.documents.locate(problems).into_iter().map(|Located { file, line, path, found, .. }| match line {
            Some(line) => format!("{file}:{line}: {path}: {found}"),
            None => format!("{file}: {path}: {found}"),
        });
        Failure::problem(format!("the control plane refused the document; nothing was changed ({})", status.message())).with_details(lines)
    }

    /// Somebody was faster: says what changed, and what applying would do now.
    async fn explain(&self, admin: &mut Admin, conflict: Status, out: &mut Out) -> Failure {
        let mut failure = status::of_control(conflict);
        failure.message = format!(
            "somebody else changed the same flags in the meantime, and nothing was applied: {}; look at the new difference and apply again",
            failure.message
        );
        if let Ok((_, changes)) = self.preview(admin).await
            && !out.is_json()
        {
            out.note("what it would change now:");
            if let Err(unprinted) = diff::print(&changes, out) {
                return unprinted;
            }
        }
        failure
    }
}

fn refused(problems: Vec<Located>) -> Failure {
    let lines: Vec<_> = problems.iter().map(Located::to_string).collect();
    Failure::problem("this is not a flag document; nothing was changed").with_details(lines)
}

fn print(out: &mut Out, applied: &Applied) -> Result<(), Failure> {
    let Applied { environment, position, changed, dry_run, changes } = applied;
    let (count, revision) = (count(changes.len(), "change"), position.revision);
    match (changes.is_empty(), dry_run, changed) {
        (true, ..) => out.line(format!("nothing to do: environment {environment} holds all of this at revision {revision}")),
        (false, true, _) => out.line(format!("{count} to environment {environment} at revision {revision}; nothing was applied")),
        (false, false, true) => out.line(format!("applied {count} to environment {environment} at revision {revision}")),
        (false, false, false) => {
            out.line(format!("nothing to do any more: environment {environment} got all of this by revision {revision}"))
        }
    }
}
