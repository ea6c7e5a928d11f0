//! `yardarm bench`: what Yardarm costs on this machine, measured beside its floors in the same run. `tests/bench/README.md` tells the
//! method and the figures.

use clap::Subcommand;
use clap::builder::RangedU64ValueParser;

use super::exit::{Exit, Failure, Outcome};
use super::output::Out;

mod arrivals;
mod evaluate;
mod evidence;
pub mod flags;
mod floor;
mod gates;
mod http2;
mod interrupted;
mod load;
mod memory;
mod process;
mod propagate;
mod questions;
mod report;
mod restart;
mod socket;
mod statistics;
mod watch;
mod watchers;
mod world;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,

    /// Exit with code 1 when a figure misses its bar, and with 2 when nothing that was measured has one
    #[arg(long, global = true)]
    check: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Rate, latency and CPU of unary, batch and stream evaluations, beside a ping-pong, hyper's hello and a tonic echo
    Evaluate(evaluate::Args),
    /// CPU of an evaluation of a flag with metrics, beside that of one without
    Evidence(evidence::Args),
    /// Time from a commit to every pod and watcher, beside a loop of write() to as many connections
    Propagate(propagate::Args),
    /// Time from the start of a sidecar to its first answer, with the control plane dead
    Restart(restart::Args),
    /// Memory of a sidecar: idle, with flags, for each watcher
    Memory(memory::Args),
    /// How often gates and triggers of rollouts are wrong, and how fast they are right, in rollouts played from a seed
    Gates(gates::Args),
    /// Open watchers on servers that run, make changes, and print how many deliveries that was
    Watch(watch::Args),
    /// Print a flag document of realistic flags: 3 rules, 5 attributes, a split, about 600 bytes each
    Flags {
        #[arg(long, default_value_t = 10_000)]
        count: usize,
    },
    /// Write the body of one call as it goes over the wire, for h2load: one question, a batch of 50 flags, or a stream of 1,000 questions
    Request {
        #[arg(long, value_enum, default_value_t = questions::Method::Unary)]
        method: questions::Method,
        /// Flags that are asked about; one question asks about the first
        #[arg(long, default_value_t = 100, value_parser = from_one())]
        flags: usize,
    },
    /// One of the floors, as a server (the benchmarks start them)
    #[command(hide = true)]
    Floor {
        #[command(subcommand)]
        floor: floor::Floor,
    },
}

/// A benchmark with an error in it has no result: a server that does not start or a wrong answer ends it.
pub fn run(args: Args, out: &mut Out) -> Outcome {
    let Args { command, check } = args;
    let report = match command {
        Command::Evaluate(args) => evaluate::run(args),
        Command::Evidence(args) => evidence::run(args),
        Command::Propagate(args) => propagate::run(args),
        Command::Restart(args) => restart::run(args),
        Command::Memory(args) => memory::run(args),
        Command::Gates(args) => gates::run(args),
        Command::Watch(args) => {
            let deliveries = watch::run(args).map_err(unable)?;
            out.line(format_args!("{deliveries}"))?;
            return Ok(Exit::Done);
        }
        Command::Flags { count } => {
            out.line(flags::document(count))?;
            return Ok(Exit::Done);
        }
        Command::Request { method, flags } => {
            out.bytes(&method.body(flags))?;
            return Ok(Exit::Done);
        }
        Command::Floor { floor } => return floor::serve(floor).map(|()| Exit::Done).map_err(unable),
    };
    report.map_err(unable)?.print(out, check)
}

/// Counts of what is measured: with none of it there is no figure.
fn from_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

fn unable(error: anyhow::Error) -> Failure {
    Failure::unable(format!("{error:#}"))
}
