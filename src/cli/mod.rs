//! The command line: one file for each group of commands, each with its own arguments.

mod audit;
mod backup;
#[cfg(feature = "control")]
pub mod bench;
mod completion;
mod connect;
mod context;
mod decision;
#[cfg(feature = "control")]
mod dev;
mod diff;
mod documents;
mod duration;
mod environments;
mod eval;
mod evidence;
mod exit;
mod flag;
mod healthcheck;
mod hook;
mod kill;
mod later;
mod output;
mod pods;
mod ready;
mod replace;
mod replay;
mod report;
mod roles;
mod rollout;
mod start;
mod status;
mod table;
mod view;
mod watch;

use std::future::Future;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

use exit::{EXIT_CODES, Failure, Outcome};
use later::Later;
use output::{Format, Out};

/// Feature flags whose kill switch is acknowledged by every pod.
#[derive(Debug, clap::Parser)]
#[command(name = "yardarm", version, after_help = EXIT_CODES)]
struct Cli {
    /// Text for people, or one JSON value per line for programs
    #[arg(short, long, value_name = "FORMAT", env = "YARDARM_OUTPUT", default_value = "text", global = true)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run everything in one process: control plane, sidecars and sample flags
    #[cfg(feature = "control")]
    Dev(Later<dev::Args>),
    /// Run the control plane: it keeps the flags and tells every sidecar
    #[cfg(feature = "control")]
    Control(Later<roles::ControlArgs>),
    /// Run a sidecar: it answers applications from memory
    Sidecar(Later<Box<roles::SidecarArgs>>),
    /// Run in the place of flagd: flags from files, web servers and sync services, on its ports
    Start(Later<Box<start::Args>>),
    /// Ask a sidecar or a control plane whether it is well, as the probe of a container
    Healthcheck(Later<healthcheck::Args>),
    /// Ask a sidecar what a context is served, and explain it rule by rule
    Eval(Later<eval::Args>),
    /// List, show, change and check flags
    Flag(Later<flag::Args>),
    /// Print every change of flags as a sidecar sees it
    Watch(Later<watch::Args>),
    /// Stop a flag everywhere: it serves its kill variant, whatever its rules say
    Kill(Later<kill::KillArgs>),
    /// End the kill of a flag
    Restore(Later<kill::RestoreArgs>),
    /// Move a flag's traffic by a plan: start, look, approve, stop, take back
    Rollout(Later<rollout::Args>),
    /// URLs that kill a flag when an alert fires
    Hook(Later<hook::Args>),
    /// Show which pod holds which revision, how old it is there, and what was rejected
    Pods(Later<pods::Args>),
    /// Show who was served what, and what became of them
    Evidence(Later<evidence::Args>),
    /// Show who changed what and why, or check that the record is whole
    Audit(Later<audit::Args>),
    /// Read decision logs: people on each variant, error rates, what a person was served and why
    Report(Later<report::Args>),
    /// List, create and copy environments
    Env(Later<environments::Args>),
    /// Write everything that the control plane holds to a file
    Backup(Later<backup::Args>),
    /// Replace everything that the control plane holds with a backup
    RestoreBackup(Later<backup::RestoreArgs>),
    /// Measure what Yardarm costs on this machine, beside its floors
    #[cfg(feature = "control")]
    Bench(Later<bench::Args>),
    /// Print the completion script of a shell
    Completion(Later<completion::Args>),
}

/// Reads the arguments, runs the command and says how it ended.
pub fn run() -> ExitCode {
    let Cli { output: format, command } = match Cli::from_arg_matches(&command().get_matches_from(start::spelled(std::env::args_os()))) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let out = &mut Out::new(format);
    let outcome = match command {
        Command::Sidecar(Later(args)) => roles::sidecar(*args, out),
        Command::Start(Later(args)) => start::run(*args, out),
        command => carry_out(command, out),
    };
    output::end(outcome, format)
}

/// By itself, so that a sidecar is not resident with what every other command does.
#[inline(never)]
fn carry_out(command: Command, out: &mut Out) -> Outcome {
    match command {
        #[cfg(feature = "control")]
        Command::Dev(Later(args)) => dev::run(args, out),
        #[cfg(feature = "control")]
        Command::Control(Later(args)) => roles::control(args, out),
        Command::Sidecar(Later(args)) => roles::sidecar(*args, out),
        Command::Start(Later(args)) => start::run(*args, out),
        Command::Healthcheck(Later(args)) => ask(healthcheck::run(args, out)),
        Command::Eval(Later(args)) => ask(eval::run(args, out)),
        Command::Flag(Later(args)) => ask(flag::run(args, out)),
        Command::Watch(Later(args)) => ask(watch::run(args, out)),
        Command::Kill(Later(args)) => ask(kill::kill(args, out)),
        Command::Restore(Later(args)) => ask(kill::restore(args, out)),
        Command::Rollout(Later(args)) => ask(rollout::run(args, out)),
        Command::Hook(Later(args)) => ask(hook::run(args, out)),
        Command::Pods(Later(args)) => ask(pods::run(args, out)),
        Command::Evidence(Later(args)) => ask(evidence::run(args, out)),
        Command::Audit(Later(args)) => ask(audit::run(args, out)),
        Command::Report(Later(args)) => report::run(args, out),
        Command::Env(Later(args)) => ask(environments::run(args, out)),
        Command::Backup(Later(args)) => ask(backup::run(args, out)),
        Command::RestoreBackup(Later(args)) => ask(backup::restore(args, out)),
        #[cfg(feature = "control")]
        Command::Bench(Later(args)) => bench::run(args, out),
        Command::Completion(Later(args)) => completion::run(args, out),
    }
}

/// The whole command line.
fn command() -> clap::Command {
    let command = Cli::command();
    #[cfg(feature = "control")]
    let command = command.mut_subcommand("dev", |dev| dev.defer(dev::declare));
    command
}

/// One thread is enough for a command that asks and prints.
fn ask(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::unable(format!("cannot start: {error}")))?.block_on(work)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// clap has this check too, but not in a release build, and the tests are built as what is shipped.
    #[test]
    fn no_two_arguments_of_a_command_have_one_name() {
        let mut cli = command();
        cli.build();
        let mut commands = vec![cli];
        while let Some(command) = commands.pop() {
            let mut seen = BTreeSet::new();
            for arg in command.get_arguments() {
                let names = arg.get_long_and_visible_aliases().into_iter().flatten().map(|long| format!("--{long}"));
                let shorts = arg.get_short_and_visible_aliases().into_iter().flatten().map(|short| format!("-{short}"));
                for name in names.chain(shorts).chain([format!("id {}", arg.get_id())]) {
                    assert!(seen.insert(name.clone()), "`yardarm {}` has {name} twice", command.get_name());
                }
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }
}
