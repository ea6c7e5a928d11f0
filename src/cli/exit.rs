//! What a command tells the shell, and the failure that ends one.

use std::fmt::Display;
use std::process::ExitCode;

/// The exit codes, the same for every command. `--help` prints them, README documents them, scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, and nothing is wrong.
    Done = 0,
    /// The command did its work and the answer is bad news: a document with problems, a broken audit chain, a change that was refused.
    Problem = 1,
    /// The work could not be done: wrong usage, a port that is taken, a file that cannot be read, nobody at the other end.
    Unable = 2,
    /// A change is committed, but not every pod has confirmed it in time.
    Incomplete = 3,
}

/// As `--help` prints them.
pub const EXIT_CODES: &str = "Exit codes:
  0  done
  1  a problem was found: the document does not lint, the audit chain is broken, the change was refused or declined
  2  could not be done: wrong usage, port taken, file not readable, control plane or sidecar not reachable
  3  committed, but not confirmed by every pod in time";

pub type Outcome = Result<Exit, Failure>;

/// Ends a command: one line that says what was found, what was expected and what to do next; details below it, if there are any.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
    pub details: Vec<String>,
}

impl Failure {
    pub fn problem(message: impl Display) -> Self {
        Self { exit: Exit::Problem, message: message.to_string(), details: Vec::new() }
    }

    pub fn unable(message: impl Display) -> Self {
        Self { exit: Exit::Unable, message: message.to_string(), details: Vec::new() }
    }

    pub fn with_details(mut self, details: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(details);
        self
    }
}

/// `connection refused` and not `transport error`: the last cause is the one that says what to do. The number that the system gives an
/// error helps nobody here.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let text = cause.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
