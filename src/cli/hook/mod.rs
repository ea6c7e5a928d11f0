//! `yardarm hook`: URLs that kill one flag when an alert fires.

mod create;
mod list;
mod receivers;
mod revoke;

use super::connect::{ControlPlane, Environment};
use super::exit::Outcome;
use super::output::Out;

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

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a hook, and print its token this once, with what to paste into Alertmanager and Grafana
    Create(create::Args),
    /// List the hooks of a flag, or all
    List(list::Args),
    /// Take a hook away; its token is worth nothing from then on
    Revoke(revoke::Args),
}

pub async fn run(args: Args, out: &mut Out) -> Outcome {
    let Args { target, command } = args;
    match command {
        Command::Create(args) => create::run(target, args, out).await,
        Command::List(args) => list::run(target, args, out).await,
        Command::Revoke(args) => revoke::run(target, args, out).await,
    }
}
