//! Cases as text: a command, what it is given, `----`, and what comes out. Each goes on where the one before it ended.
//!
//! With `YARDARM_REWRITE_CASES=1` what came out is written into the files, to be read before it is committed.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// What stands before a case, its command, its input and what should come out.
struct Case {
    preamble: String,
    command: String,
    input: String,
    expected: String,
}

pub fn run(path: &Path, mut answer: impl FnMut(&str, &str) -> String) {
    let cases = parse(&fs::read_to_string(path).unwrap());
    let file = path.display();
    assert!(!cases.is_empty(), "{file} has no case");
    let mut rewritten = String::new();
    let mut wrong = String::new();
    for Case { preamble, command, input, expected } in cases {
        let actual = answer(&command, &input);
        let separator = if input.is_empty() { "" } else { "\n" };
        _ = write!(rewritten, "{preamble}{command}\n{input}{separator}----\n{actual}\n");
        if actual != expected {
            _ = write!(wrong, "\n{file}: {command}\n{input}{separator}---- expected\n{expected}\n---- came out\n{actual}\n");
        }
    }
    if std::env::var_os("YARDARM_REWRITE_CASES").is_some() {
        fs::write(path, rewritten).unwrap();
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Lines that begin with `#` and empty ones stand between the cases; what comes out ends at an empty line.
fn parse(text: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut lines = text.lines().peekable();
    loop {
        let mut preamble = String::new();
        while let Some(line) = lines.next_if(|line| line.is_empty() || line.starts_with('#')) {
            _ = writeln!(preamble, "{line}");
        }
        let Some(command) = lines.next() else { return cases };
        let input: Vec<&str> = lines.by_ref().take_while(|line| *line != "----").collect();
        let expected: Vec<&str> = std::iter::from_fn(|| lines.next_if(|line| !line.is_empty())).collect();
        cases.push(Case { preamble, command: command.to_owned(), input: input.join("\n"), expected: expected.join("\n") });
    }
}
