//! What a command prints: text for people, or one JSON value per line for programs.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;

use anstream::AutoStream;
use owo_colors::OwoColorize as _;
use serde::Serialize;
use serde_json::json;

use super::exit::{Exit, Failure, Outcome};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people. Colours only on a terminal, and not with NO_COLOR.
    #[default]
    Text,
    /// One JSON value per line: one line for an answer, a line for each event of a stream. Errors too, on standard error, but not wrong usage.
    Json,
}

/// Standard output in the format that was asked for.
pub struct Out {
    format: Format,
    stdout: AutoStream<io::Stdout>,
}

impl Out {
    pub fn new(format: Format) -> Self {
        Self { format, stdout: anstream::stdout() }
    }

    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// One answer: `view` as a line of JSON, or what `text` prints of it.
    pub fn answer<V: Serialize>(&mut self, view: &V, text: impl FnOnce(&mut Self, &V) -> Result<(), Failure>) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.json(view),
            Format::Text => text(self, view),
        }
    }

    pub fn json(&mut self, view: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(view).map_err(|error| Failure::unable(format!("this answer has no form as JSON: {error}")))?;
        self.line(line)
    }

    pub fn line(&mut self, line: impl Display) -> Result<(), Failure> {
        writeln!(self.stdout, "{line}").and_then(|()| self.stdout.flush()).map_err(closed)
    }

    /// Bytes as they are: backups, definitions, scripts.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut raw = io::stdout().lock();
        raw.write_all(bytes).and_then(|()| raw.flush()).map_err(closed)
    }

    /// A remark that is not part of the answer, on standard error.
    pub fn note(&self, line: impl Display) {
        // Nobody is left to be told that standard error is closed.
        let _ = writeln!(anstream::stderr(), "{line}");
    }
}

/// `1 flag`, `2 flags`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Goes on when `yes` was said on the command line or is answered on the terminal.
pub fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !asks(yes) {
        return Err(Failure::unable(format!("there is no terminal to ask on: say --yes to go on ({question})")));
    }
    match ask(question)? {
        true => Ok(()),
        false => Err(Failure::problem("declined; nothing was changed")),
    }
}

/// Whether [`confirm`] is going to ask.
pub fn asks(yes: bool) -> bool {
    !yes && io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks on the terminal; anything but yes is no.
fn ask(question: &str) -> Result<bool, Failure> {
    let unreadable =
        |error: io::Error| Failure::unable(format!("the answer could not be read: {error}; say --yes to go on without a question"));
    let mut stderr = anstream::stderr();
    write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush()).map_err(unreadable)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(unreadable)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Says how a command ended, where it is handled, and gives the code for the shell.
pub fn end(outcome: Outcome, format: Format) -> ExitCode {
    let failure = match outcome {
        Ok(exit) => return exit.into(),
        Err(failure) => failure,
    };
    let Failure { exit, message, details } = failure;
    let mut stderr = anstream::stderr();
    if message.is_empty() {
        return exit.into();
    }
    // Nobody is left to be told that standard error is closed.
    let _ = match format {
        Format::Json => writeln!(stderr, "{}", json!({ "error": message, "details": details, "exit": exit as u8 })),
        Format::Text => writeln!(stderr, "{} {message}", "error:".red().bold())
            .and_then(|()| details.iter().try_for_each(|line| writeln!(stderr, "  {line}"))),
    };
    exit.into()
}

/// `yardarm watch | head -3` ends quietly: the reader has what it wanted.
fn closed(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure { exit: Exit::Done, message: String::new(), details: Vec::new() },
        _ => Failure::unable(format!("cannot write to standard output: {error}")),
    }
}
