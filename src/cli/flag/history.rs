//! `yardarm flag history`.

use owo_colors::OwoColorize as _;
use serde::Serialize;
use serde_json::Value as Json;

use super::{Item, Target};
use crate::cli::diff;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::output::Out;
use crate::cli::status;
use crate::cli::table::{Rows, plain};
use crate::cli::view::{Change, clock, definition, kind, time};
use crate::wire::v1;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    item: Item,
    /// At most this many entries, newest first
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Show what each change did to the definition
    #[arg(long)]
    diff: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct History {
    kind: &'static str,
    key: String,
    entries: Vec<Entry>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    revision: u64,
    at: Option<String>,
    actor: String,
    action: String,
    reason: String,
    before: Json,
    after: Json,
    #[serde(skip)]
    clock: String,
}

pub async fn run(target: Target, args: Args, out: &mut Out) -> Outcome {
    let Target { control, environment } = target;
    let Args { item, limit, diff } = args;
    let request = v1::FlagHistoryRequest { environment: environment.name, key: item.key.clone(), limit, kind: item.kind().into() };
    let answer = control.connect().await?.flag_history(control.ask(request)).await.map_err(status::of_control)?.into_inner();
    let entries = answer.entries.into_iter().map(Entry::try_from).collect::<Result<_, _>>()?;
    let history = History { kind: kind(item.kind()), key: item.key, entries };
    out.answer(&history, |out, history| if diff { print_changes(out, history) } else { print(out, history) })?;
    Ok(Exit::Done)
}

fn print(out: &mut Out, history: &History) -> Result<(), Failure> {
    let mut rows = Rows::under(["REVISION", "AT", "ACTOR", "ACTION", "REASON"]);
    for Entry { revision, clock, actor, action, reason, .. } in &history.entries {
        rows.row([revision.to_string(), clock.clone(), actor.clone(), action.clone(), reason.clone()], plain());
    }
    rows.print(out)
}

fn print_changes(out: &mut Out, history: &History) -> Result<(), Failure> {
    for Entry { revision, clock, actor, action, reason, before, after, .. } in &history.entries {
        out.line(format!("revision {revision}  {clock}  {actor}  {action}: {reason}").bold())?;
        if before != after {
            let change = Change { kind: history.kind, key: history.key.clone(), before: before.clone(), after: after.clone() };
            diff::print(&[change], out)?;
        }
    }
    Ok(())
}

impl TryFrom<v1::HistoryEntry> for Entry {
    type Error = Failure;

    fn try_from(entry: v1::HistoryEntry) -> Result<Self, Failure> {
        let v1::HistoryEntry { revision, at, actor, reason, action, before, after } = entry;
        let (before, after) = (definition(&before)?, definition(&after)?);
        Ok(Self { revision, at: time(at), actor, action, reason, before, after, clock: clock(at) })
    }
}
