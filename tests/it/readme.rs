//! README shows what the commands print: its tour is run, and its tables are those of the code.

use std::path::Path;

use regex::Regex;
use yardarm::flag::limits;

use crate::cli::{Dev, Scratch, run};

const README: &str = include_str!("../../README.md");

/// The blocks of a language, in order.
fn blocks(language: &str) -> Vec<&'static str> {
    let opening = format!("```{language}\n");
    README.split(opening.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// The commands of a block, each with what it is said to print.
fn commands(block: &'static str) -> Vec<(&'static str, String)> {
    let parts = format!("\n{block}");
    let parts: Vec<String> = parts.split("\n$ ").skip(1).map(str::to_owned).collect();
    let lines = block.lines().filter_map(|line| line.strip_prefix("$ "));
    lines.zip(parts).map(|(command, part)| (command, part.split_once('\n').map_or(String::new(), |(_, said)| said.to_owned()))).collect()
}

/// Without what differs from one run to the next: times, addresses, hashes, the width of columns.
fn steady(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, name) in [
        (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "AT"),
        (r"\b\d+(\.\d+)? (ms|s)\b", "TIME"),
        (r"127\.0\.0\.1:\d+", "ADDRESS"),
        (r"\b[0-9a-f]{64}\b", "HASH"),
        (r"(?m) +", " "),
    ] {
        text = Regex::new(pattern).unwrap().replace_all(&text, name).into_owned();
    }
    text.trim_end().to_owned()
}

#[test]
fn the_tour_prints_what_it_says() {
    let scratch = Scratch::new();
    let dev = Dev::over(Path::new(&scratch.path(".yardarm")), &["--actor", "ana"]);
    dev.wait_for_pods(1);
    let path = format!("{}:{}", Path::new(env!("CARGO_BIN_EXE_yardarm")).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let tour: Vec<_> = blocks("console").into_iter().skip(1).flat_map(commands).collect();
    assert!(tour.len() > 8, "only {} commands were found", tour.len());
    scratch.write("broken.yaml", blocks("yaml")[0]);
    for (line, said) in tour {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("{line} 2>&1")]).current_dir(scratch.path(".")).env("PATH", &path);
        shell.env("YARDARM_CONTROL_PLANE", dev.control()).env("YARDARM_SIDECAR", format!("http://{}", dev.process.tcp()));
        shell.env("YARDARM_ACTOR", "ana").env_remove("YARDARM_ENVIRONMENT").env_remove("YARDARM_OUTPUT");
        let output = shell.output().unwrap();
        let code = i32::from(line.contains("broken.yaml"));
        assert_eq!(output.status.code(), Some(code), "{line}: {output:?}");
        assert_eq!(steady(&String::from_utf8(output.stdout).unwrap()), steady(&said), "{line}");
    }
}

#[test]
fn the_exit_codes_are_those_of_help() {
    let help = run(&["--help"]).ended(0);
    let codes: Vec<_> = help.split("Exit codes:").nth(1).unwrap().lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(codes.len(), 4, "{help}");
    for line in codes {
        let (code, meaning) = line.split_once("  ").unwrap();
        assert!(README.contains(&format!("| {code} | {meaning}")), "{line}");
    }
}

#[test]
fn the_limits_are_those_of_the_code() {
    let kib = |bytes: usize| format!("{} KiB", bytes / 1024);
    let mib = |bytes: usize| format!("{} MiB", bytes / 1024 / 1024);
    let thousands = |number: usize| format!("{},{:03}", number / 1000, number % 1000);
    for row in [
        format!("| a flag | {}, {} rules, {} prerequisites |", kib(limits::FLAG_BYTES), thousands(limits::RULES), limits::PREREQUISITES),
        format!("| a segment | {}, {} keys |", mib(limits::SEGMENT_BYTES), thousands(limits::SEGMENT_KEYS)),
        format!(
            "| an environment | {}, {} flags, {} segments |",
            mib(limits::ENVIRONMENT_BYTES),
            thousands(limits::ENVIRONMENT_FLAGS),
            thousands(limits::ENVIRONMENT_SEGMENTS)
        ),
        format!(
            "| a key | {} of `A-Z a-z 0-9 . _ -`; of `yardarm start` {} bytes of any text |",
            limits::KEY_BYTES,
            thousands(limits::FLAGD_NAME_BYTES)
        ),
        format!("| a regular expression | {}, linear time |", kib(limits::REGEX_BYTES)),
        format!(
            "| the regular expressions of a flag, or of a segment | {}, together {} compiled |",
            limits::REGEXES,
            mib(limits::REGEXES_COMPILED_BYTES)
        ),
        format!("| nesting of segments, prerequisites and values | {} levels |", limits::NESTING),
        format!(
            "| a context | {}, {} attributes, {} levels |",
            kib(limits::CONTEXT_BYTES),
            limits::CONTEXT_ATTRIBUTES,
            limits::CONTEXT_NESTING
        ),
    ] {
        assert!(README.contains(&row), "README has no row {row}");
    }
}
