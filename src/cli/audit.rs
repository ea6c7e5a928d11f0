//! `yardarm audit`: who changed what and why, and whether the record itself was changed.

use owo_colors::OwoColorize as _;
use serde::Serialize;

use super::connect::{ControlPlane, Environment};
use super::diff;
use super::exit::{Exit, Failure, Outcome};
use super::output::Out;
use super::status;
use super::table::{Rows, plain};
use super::view::{Change, Position, clock, hex, time};
use crate::wire::v1;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    control: ControlPlane,
    #[command(flatten)]
    environment: Environment,
    /// Only entries that touch this flag
    #[arg(long, value_name = "KEY")]
    flag: Option<String>,
    /// At most this many entries, newest first
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Only entries older than this one, to read on where an earlier list ended
    #[arg(long, value_name = "SEQ", default_value_t = 0, hide_default_value = true)]
    before: u64,
    /// Show the definitions before and after
    #[arg(long)]
    diff: bool,
    /// Check the hash chain over every entry of every environment instead; exit code 1 when it is broken
    #[arg(long, conflicts_with_all = ["flag", "limit", "before", "diff"])]
    verify: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    entries: Vec<Entry>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    seq: u64,
    at: Option<String>,
    actor: String,
    action: String,
    environment: String,
    keys: Vec<String>,
    reason: String,
    detail: String,
    #[serde(flatten)]
    position: Position,
    before_hash: String,
    after_hash: String,
    prev_hash: String,
    hash: String,
    changes: Vec<Change>,
    #[serde(skip)]
    clock: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    intact: bool,
    entries: u64,
    broken_at: Option<u64>,
    problem: Option<String>,
    head_hash: String,
}

pub async fn run(args: Args, out: &mut Out) -> Outcome {
    let Args { control, environment, flag, limit, before, diff, verify } = args;
    if verify {
        return check(&control, out).await;
    }
    let request = v1::ListAuditRequest { environment: environment.name, flag_key: flag.unwrap_or_default(), limit, before_seq: before };
    let answer = control.connect().await?.list_audit(control.ask(request)).await.map_err(status::of_control)?;
    let entries = answer.into_inner().entries.into_iter().map(Entry::try_from).collect::<Result<_, _>>()?;
    out.answer(&Listed { entries }, |out, listed| if diff { print_changes(out, listed) } else { print(out, listed) })?;
    Ok(Exit::Done)
}

async fn check(control: &ControlPlane, out: &mut Out) -> Outcome {
    let answer = control.connect().await?.verify_audit(control.ask(v1::VerifyAuditRequest {})).await.map_err(status::of_control)?;
    let v1::VerifyAuditResponse { intact, entries, broken_at, problem, head_hash } = answer.into_inner();
    let broken = (!intact).then_some((broken_at, problem));
    let (broken_at, problem) = broken.unzip();
    out.answer(&Verified { intact, entries, broken_at, problem, head_hash: hex(&head_hash) }, |out, verified| {
        let Verified { intact: _, entries, broken_at, problem, head_hash } = verified;
        match (broken_at, problem) {
            (Some(seq), Some(problem)) => out.line(format!("the audit chain is broken at entry {seq} of {entries}: {problem}").red()),
            _ => out.line(format!("the audit chain is intact: {entries} entries, the newest has hash {head_hash}")),
        }
    })?;
    Ok(if intact { Exit::Done } else { Exit::Problem })
}

fn print(out: &mut Out, listed: &Listed) -> Result<(), Failure> {
    if listed.entries.is_empty() {
        return out.line("no entries");
    }
    let mut rows = Rows::under(["SEQ", "AT", "ACTOR", "ACTION", "REVISION", "KEYS", "REASON"]);
    for entry in &listed.entries {
        let Entry { seq, clock, actor, action, position, keys, reason, .. } = entry;
        let revision = position.revision.to_string();
        rows.row([seq.to_string(), clock.clone(), actor.clone(), action.clone(), revision, abridged(keys), reason.clone()], plain());
    }
    rows.print(out)
}

fn print_changes(out: &mut Out, listed: &Listed) -> Result<(), Failure> {
    for entry in &listed.entries {
        let Entry { seq, clock, actor, action, position, reason, changes, .. } = entry;
        out.line(format!("{seq}  {clock}  {actor}  {action} at revision {}: {reason}", position.revision).bold())?;
        diff::print(changes, out)?;
    }
    Ok(())
}

/// The first keys of a large change: a line of ten thousand keys is read by nobody.
fn abridged(keys: &[String]) -> String {
    const SHOWN: usize = 4;
    match keys.len() {
        0..=SHOWN => keys.join(", "),
        more => format!("{} and {} more", keys[..SHOWN].join(", "), more - SHOWN),
    }
}

impl TryFrom<v1::AuditEntry> for Entry {
    type Error = Failure;

    fn try_from(entry: v1::AuditEntry) -> Result<Self, Failure> {
        let v1::AuditEntry {
            seq,
            at,
            actor,
            action,
            environment,
            keys,
            reason,
            position,
            before_hash,
            after_hash,
            prev_hash,
            hash,
            changes,
            detail,
        } = entry;
        Ok(Self {
            seq,
            at: time(at),
            actor,
            action,
            environment,
            keys,
            reason,
            detail,
            position: position.into(),
            before_hash: hex(&before_hash),
            after_hash: hex(&after_hash),
            prev_hash: hex(&prev_hash),
            hash: hex(&hash),
            changes: changes.into_iter().map(Change::try_from).collect::<Result<_, _>>()?,
            clock: clock(at),
        })
    }
}
