//! `yardarm flag delete` and `yardarm flag revert`.

use serde::Serialize;

use super::{Item, Target};
use crate::cli::connect::Author;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::output::{self, Out};
use crate::cli::status;
use crate::cli::view::{Position, kind};
use crate::wire::v1;

#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    item: Item,
    /// Why, for the audit log
    #[arg(long, default_value = "deleted from the command line")]
    reason: String,
    /// Delete without asking
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    author: Author,
}

#[derive(Debug, clap::Args)]
pub struct RevertArgs {
    #[command(flatten)]
    item: Item,
    /// The revision whose definition comes back; `yardarm flag history` lists them
    #[arg(long = "to", value_name = "REVISION")]
    to_revision: u64,
    /// Why, for the audit log
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    author: Author,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    action: &'static str,
    kind: &'static str,
    key: String,
    environment: String,
    #[serde(flatten)]
    position: Position,
    changed: bool,
}

pub async fn delete(target: Target, args: DeleteArgs, out: &mut Out) -> Outcome {
    let Target { control, environment } = target;
    let DeleteArgs { item, reason, yes, author } = args;
    let mut admin = control.connect().await?;
    let consequence = if item.segment { "" } else { ", so that callers get their own default" };
    let what = kind(item.kind());
    output::confirm(yes, &format!("Delete {what} {} from environment {}{consequence}?", item.key, environment.name))?;
    let request = v1::DeleteFlagRequest {
        environment: environment.name.clone(),
        key: item.key.clone(),
        intent: Some(author.intends(reason, None)),
        kind: item.kind().into(),
    };
    let answer = admin.delete_flag(control.ask(request)).await.map_err(status::of_change)?;
    done("deleted", item, environment.name, answer.into_inner(), out)
}

/// Asks nothing: a revert is one `flag revert` away from being undone, and its reason is asked for.
pub async fn revert(target: Target, args: RevertArgs, out: &mut Out) -> Outcome {
    let Target { control, environment } = target;
    let RevertArgs { item, to_revision, reason, author } = args;
    let request = v1::RevertFlagRequest {
        environment: environment.name.clone(),
        key: item.key.clone(),
        to_revision,
        intent: Some(author.intends(reason, None)),
        kind: item.kind().into(),
    };
    let answer = control.connect().await?.revert_flag(control.ask(request)).await.map_err(status::of_change)?;
    done("reverted", item, environment.name, answer.into_inner(), out)
}

fn done(action: &'static str, item: Item, environment: String, answer: v1::MutationResponse, out: &mut Out) -> Outcome {
    let (kind, position) = (kind(item.kind()), answer.position.into());
    out.answer(&Done { action, kind, key: item.key, environment, position, changed: answer.changed }, print)?;
    Ok(Exit::Done)
}

fn print(out: &mut Out, done: &Done) -> Result<(), Failure> {
    let Done { action, key, position, changed, .. } = done;
    match changed {
        true => out.line(format!("{action} {key} at revision {}", position.revision)),
        false => out.line(format!("nothing to do: {key} is so since revision {}", position.revision)),
    }
}
