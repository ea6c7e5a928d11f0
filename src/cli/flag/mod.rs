//! `yardarm flag`: the flags of an environment, and the documents that they are written in.

mod apply;
mod get;
mod history;
mod lint;
mod list;
mod remove;

use super::connect::{ControlPlane, Environment};
use super::exit::Outcome;
use super::output::Out;
use crate::wire::v1::ItemKind;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

/// An environment of a control plane.
#[derive(Debug, clap::Args)]
struct Target {
    #[command(flatten)]
    control: ControlPlane,
    #[command(flatten)]
    environment: Environment,
}

/// A flag or a segment.
#[derive(Debug, clap::Args)]
struct Item {
    /// The flag
    key: String,
    /// It is a segment and not a flag
    #[arg(long)]
    segment: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the flags, or the segments
    List(list::Args),
    /// Print a flag as a document that `flag apply` takes
    Get(get::Args),
    /// Show what flag documents change, and change it
    Apply(apply::Args),
    /// Delete a flag or a segment
    Delete(remove::DeleteArgs),
    /// Show what a flag or a segment was, and who changed it
    History(history::Args),
    /// Check flag documents, without a control plane; exit code 1 when there are problems
    Lint(lint::Args),
    /// Print the JSON Schema of flag documents, for editors
    Schema,
    /// Bring back the definition that a flag or a segment had at a revision
    Revert(remove::RevertArgs),
}

pub async fn run(args: Args, out: &mut Out) -> Outcome {
    let Args { target, command } = args;
    match command {
        Command::List(args) => list::run(target, args, out).await,
        Command::Get(args) => get::run(target, args, out).await,
        Command::Apply(args) => apply::run(target, args, out).await,
        Command::Delete(args) => remove::delete(target, args, out).await,
        Command::History(args) => history::run(target, args, out).await,
        Command::Lint(args) => lint::run(args, out),
        Command::Schema => lint::schema(out),
        Command::Revert(args) => remove::revert(target, args, out).await,
    }
}

impl Item {
    fn kind(&self) -> ItemKind {
        if self.segment { ItemKind::Segment } else { ItemKind::Flag }
    }
}
