//! `yardarm completion SHELL`: the script that the shell sources.

use super::exit::{Exit, Outcome};
use super::output::Out;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell that will read the script
    shell: clap_complete::Shell,
}

pub fn run(args: Args, out: &mut Out) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "yardarm", &mut script);
    out.bytes(&script)?;
    Ok(Exit::Done)
}
