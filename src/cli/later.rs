//! Arguments that are declared when their command runs, and not each time that any command does.

use clap::{ArgMatches, Args, Command, Error, FromArgMatches};

/// Arguments `T`, declared when their command was asked for. A sidecar runs for weeks beside what declares the arguments of every other
/// command, and what it executed once stays resident (0.4 MB of it).
#[derive(Debug)]
pub struct Later<T>(pub T);

/// What the command is for was said where it was listed, and stays.
pub fn declare<T: Args>(command: Command) -> Command {
    let about = command.get_about().cloned();
    let command = T::augment_args(command);
    match about {
        Some(about) => command.about(about),
        None => command,
    }
}

impl<T: Args> Args for Later<T> {
    fn augment_args(command: Command) -> Command {
        command.defer(declare::<T>)
    }

    fn augment_args_for_update(command: Command) -> Command {
        T::augment_args_for_update(command)
    }
}

impl<T: FromArgMatches> FromArgMatches for Later<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Later<T>, Error> {
        T::from_arg_matches(matches).map(Later)
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Later<T>, Error> {
        T::from_arg_matches_mut(matches).map(Later)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }
}
