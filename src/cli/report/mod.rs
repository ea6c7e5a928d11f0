//! `yardarm report`: what the files of a decision log say. They are read line by line; no server is asked.

mod decisions;
mod distinct;
mod errors;
mod log;
mod users;

use super::exit::Outcome;
use super::output::Out;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Count the people on each variant of a flag
    Users(users::Args),
    /// Show where more outcomes and evaluations fail than a bound allows; exit code 1 when there is such a place
    Errors(errors::Args),
    /// Show what a person was served, and why; exit code 1 when the log has nothing of them
    Decisions(decisions::Args),
}

pub fn run(args: Args, out: &mut Out) -> Outcome {
    match args.command {
        Command::Users(args) => users::run(args, out),
        Command::Errors(args) => errors::run(args, out),
        Command::Decisions(args) => decisions::run(args, out),
    }
}
