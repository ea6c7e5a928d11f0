//! The rules of the house, as a test: which part of `src/` may import which, what a pure part may not touch, where nothing may panic.
//! Each breach is told with its file and line.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use source::Source;

/// Part -> the parts that it may name. A part may always name itself; a part that is not here does not exist.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("flag", &[]),
    ("rollout", &["flag"]),
    ("wire", &["flag", "rollout"]),
    ("replica", &["flag", "wire", "backoff", "clock"]),
    ("sidecar", &["flag", "rollout", "wire", "replica", "telemetry", "lifecycle", "backoff", "clock"]),
    ("sources", &["flag", "wire", "replica", "lifecycle", "backoff", "clock"]),
    ("control", &["flag", "rollout", "wire", "telemetry", "lifecycle", "backoff", "clock"]),
    ("telemetry", &["flag"]),
    ("lifecycle", &[]),
    ("backoff", &[]),
    ("clock", &[]),
    ("cli", &["flag", "rollout", "wire", "replica", "sidecar", "sources", "control", "telemetry", "lifecycle", "backoff", "clock"]),
    ("main", &["cli"]),
    ("lib", &[]),
];

/// Time, seeds and evidence come into these as arguments.
const PURE: &[&str] = &["flag", "rollout"];
const NOT_PURE: &[&str] = &["async", "await", "tokio", "rand", "RandomState", "TcpStream", "TcpListener", "UdpSocket", "ToSocketAddrs"];
const NOT_PURE_IN_STD: &[&str] = &["time", "fs", "env", "io", "thread", "process"];

/// Names that say nothing, so that everything ends up there. A setting lives beside what it sets.
const ATTICS: &[&str] = &["util", "utils", "common", "config", "settings", "helper", "helpers", "misc", "shared"];

const MOST_LINES: usize = 450;

/// File -> why it is one idea all the same.
const LONGER: &[(&str, &str)] = &[];

/// File -> how many, and why it cannot happen on input.
const MAY_PANIC: &[(&str, usize, &str)] = &[];

#[test]
fn the_house_keeps_its_rules() {
    let sources: Vec<Source> =
        rust_files(Path::new("src")).iter().map(|path| Source::read(path, &fs::read_to_string(path).unwrap())).collect();
    assert!(sources.len() > 20, "only {} files were found: the check runs in the wrong directory", sources.len());
    let broken = breaches(&sources);
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

fn breaches(sources: &[Source]) -> Vec<String> {
    let for_tests: BTreeSet<&[String]> = sources.iter().flat_map(|source| &source.test_modules).map(Vec::as_slice).collect();
    let mut broken = Vec::new();
    for source in sources {
        let only_for_tests = (1..=source.module.len()).any(|length| for_tests.contains(&source.module[..length]));
        arrows(source, &mut broken);
        purity(source, only_for_tests, &mut broken);
        panics(source, only_for_tests, &mut broken);
        waits(source, only_for_tests, &mut broken);
        shape(source, &mut broken);
    }
    broken
}

fn arrows(source: &Source, broken: &mut Vec<String>) {
    let map: BTreeMap<_, _> = MAY_NAME.iter().copied().collect();
    let (path, part) = (&source.path, source.part());
    let Some(allowed) = map.get(part) else {
        broken.push(format!("{path}:1: `{part}` is no part of the house; see MAY_NAME in tests/it/architecture.rs"));
        return;
    };
    for named in source.parts_named() {
        if named.name == "*" {
            broken.push(format!("{path}:{}: `{part}` names every part at once", named.line));
        } else if named.name != part && map.contains_key(named.name) && !allowed.contains(&named.name) {
            broken.push(format!("{path}:{}: `{part}` may not name `{}`", named.line, named.name));
        }
    }
}

fn purity(source: &Source, only_for_tests: bool, broken: &mut Vec<String>) {
    if only_for_tests || !PURE.contains(&source.part()) {
        return;
    }
    let (path, part) = (&source.path, source.part());
    let mut breach = |line: usize, name: &str| broken.push(format!("{path}:{line}: `{part}` is pure and may not use `{name}`"));
    for (at, token) in source.tokens.iter().enumerate().filter(|(_, token)| !token.in_test) {
        if NOT_PURE.contains(&token.text.as_str()) {
            breach(token.line, &token.text);
        }
        if source.is(at, &["::", "now", "("]) {
            breach(token.line, "now()");
        }
        if source.is(at, &["std", "::"]) {
            let named = source.heads(at + 2);
            named.iter().filter(|named| NOT_PURE_IN_STD.contains(&named.name)).for_each(|named| breach(named.line, named.name));
        }
    }
}

fn panics(source: &Source, only_for_tests: bool, broken: &mut Vec<String>) {
    let path = &source.path;
    let mut found = Vec::new();
    for (at, token) in source.tokens.iter().enumerate().filter(|(_, token)| !token.in_test && !only_for_tests) {
        let called = at > 0 && source.is(at - 1, &["."]) && source.is(at + 1, &["("]);
        // A method of ours may have the name, but then it takes no message.
        let with_message = source.is(at + 2, &["\""]) || source.is(at + 2, &["&"]);
        let invoked = source.is(at + 1, &["!"]);
        match token.text.as_str() {
            name @ "unwrap" if called => found.push((token.line, name)),
            name @ "expect" if called && with_message => found.push((token.line, name)),
            name @ ("panic" | "unreachable" | "todo" | "unimplemented") if invoked => found.push((token.line, name)),
            _ => {}
        }
    }
    let allowed = MAY_PANIC.iter().find(|(file, ..)| file == path).map_or(0, |(_, count, _)| *count);
    if found.len() > allowed {
        broken.extend(found.iter().map(|(line, name)| format!("{path}:{line}: `{name}` may panic; {allowed} are allowed in this file")));
    } else if found.len() < allowed {
        broken.push(format!("{path}:1: MAY_PANIC allows {allowed}, but only {} are left", found.len()));
    }
}

/// A test that sleeps is slow on a good day and wrong on a bad one.
fn waits(source: &Source, only_for_tests: bool, broken: &mut Vec<String>) {
    for (at, token) in source.tokens.iter().enumerate() {
        if (token.in_test || only_for_tests) && source.is(at, &["sleep", "("]) {
            broken.push(format!("{}:{}: a test sleeps; wait for the event, with a deadline", source.path, token.line));
        }
        if source.is(at, &["#", "[", "ignore"]) {
            broken.push(format!("{}:{}: a test that is ignored proves nothing", source.path, token.line));
        }
    }
}

fn shape(source: &Source, broken: &mut Vec<String>) {
    let path = &source.path;
    if let Some(attic) = source.module.iter().find(|name| ATTICS.contains(&name.as_str())) {
        broken.push(format!("{path}:1: `{attic}` is an attic; name the module after what it does"));
    }
    let is_longer = LONGER.iter().any(|(file, _)| file == path);
    if source.lines > MOST_LINES && !is_longer {
        broken.push(format!("{path}:{MOST_LINES}: {} lines; a file carries one idea in {MOST_LINES} at most", source.lines));
    }
    if source.lines <= MOST_LINES && is_longer {
        broken.push(format!("{path}:1: LONGER allows it more than {MOST_LINES} lines, but it has {}", source.lines));
    }
}

/// Sorted, so that the report is the same everywhere.
fn rust_files(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => rust_files(&path),
            false => BTreeSet::from([path.to_string_lossy().into_owned()]),
        })
        .filter(|path| path.ends_with(".rs"))
        .collect()
}

/// What each planted file must be told, as `line: words`; a file that keeps the rules is told nothing.
#[test]
fn a_breach_is_found_wherever_it_hides() {
    let long = "\n".repeat(451);
    let planted: &[(&str, &str, &[&str])] = &[
        ("src/flag/a.rs", "use crate::wire::x;", &["1: `flag` may not name `wire`"]),
        ("src/flag/a.rs", "use crate::{\n    flag::b,\n    wire::{c, d},\n};", &["3: `flag` may not name `wire`"]),
        ("src/sidecar/a.rs", "fn f() {\n    let x = crate::control::y();\n}", &["2: `sidecar` may not name `control`"]),
        ("src/control/a.rs", "pub use crate::{wire, sidecar as other};", &["1: `control` may not name `sidecar`"]),
        ("src/wire/mod.rs", "use super::replica::x;", &["1: `wire` may not name `replica`"]),
        ("src/wire/a.rs", "use super::super::replica;", &["1: `wire` may not name `replica`"]),
        ("src/wire/a.rs", "use super::replica;", &[]),
        ("src/wire/a.rs", "mod tests {\n    use super::super::super::replica;\n}", &["2: `wire` may not name `replica`"]),
        ("src/telemetry/a.rs", "use crate::*;", &["1: `telemetry` names every part at once"]),
        ("src/main.rs", "fn main() {\n    yardarm::control::start();\n}", &["2: `main` may not name `control`"]),
        ("src/replica/a.rs", "// crate::control\n/* crate::sidecar */ const A: &str = \"crate::control\";", &[]),
        (
            "src/replica/a.rs",
            "const A: &str = r#\"\"crate::control\"#; pub(crate) fn r#type(c: char) -> bool { c == '\"' || c == '\\'' }",
            &[],
        ),
        ("src/replica/a.rs", "const Q: char = '\"';\nuse crate::control;", &["2: `replica` may not name `control`"]),
        ("src/cellar/a.rs", "", &["1: `cellar` is no part of the house"]),
        ("src/flag/a.rs", "async fn f() {}", &["1: `flag` is pure and may not use `async`"]),
        ("src/flag/a.rs", "use std::{\n    fmt,\n    time::Instant,\n};", &["3: `flag` is pure and may not use `time`"]),
        (
            "src/flag/a.rs",
            "use std::fs;\nfn f() { rand::random() }",
            &["1: `flag` is pure and may not use `fs`", "2: `flag` is pure and may not use `rand`"],
        ),
        ("src/flag/a.rs", "#[cfg(test)]\nmod tests {\n    use std::fs;\n}\nuse std::env;", &["5: `flag` is pure and may not use `env`"]),
        ("src/flag/a.rs", "fn f() { Timestamp::now() }\nuse std::net::IpAddr;", &["1: `flag` is pure and may not use `now()`"]),
        ("src/wire/a.rs", "use std::fs;", &[]),
        (
            "src/wire/a.rs",
            "fn f() {\n    x\n        .unwrap();\n    y.expect(\"z\");\n}",
            &["3: `unwrap` may panic", "4: `expect` may panic"],
        ),
        (
            "src/wire/a.rs",
            "fn f() { x.unwrap_or(1); expect(\"2\"); y.expect(3); }\nfn g() { panic!(\"unwrap()\") }",
            &["2: `panic` may panic"],
        ),
        ("src/wire/a.rs", "#[cfg(not(test))]\nfn f() { x.unwrap() }", &["2: `unwrap` may panic"]),
        ("src/wire/a.rs", "#[cfg(test)]\nimpl A {\n    fn f() { x.unwrap() }\n}\nfn g() { todo!() }", &["5: `todo` may panic"]),
        ("src/wire/a.rs", "#[cfg(test)]\nuse a::{b, c};\nfn g() { unreachable!() }", &["3: `unreachable` may panic"]),
        (
            "src/wire/a.rs",
            "#[cfg(test)]\nmod tests {\n    fn f() { sleep(x) }\n    #[test]\n    #[ignore]\n    fn g() {}\n}",
            &["3: a test sleeps", "5: a test that is ignored"],
        ),
        ("src/wire/a.rs", "async fn f() { sleep(x).await }", &[]),
        ("src/wire/util.rs", "", &["1: `util` is an attic"]),
        ("src/control/config/mod.rs", "", &["1: `config` is an attic"]),
        ("src/wire/a.rs", &long, &["450: 451 lines"]),
    ];
    for (path, text, expected) in planted {
        let told = breaches(&[Source::read(path, text)]);
        let expected: Vec<_> = expected.iter().map(|words| format!("{path}:{words}")).collect();
        let as_expected = told.len() == expected.len() && told.iter().zip(&expected).all(|(told, expected)| told.starts_with(expected));
        assert!(as_expected, "{text}\nwas told {told:#?}\ninstead of {expected:#?}");
    }
}

#[test]
fn a_file_that_another_declares_for_tests_may_panic() {
    let declares = Source::read("src/wire/mod.rs", "#[cfg(test)]\nmod samples;\nmod real;");
    let samples = Source::read("src/wire/samples.rs", "fn f() { x.unwrap() }");
    let real = Source::read("src/wire/real.rs", "fn f() { x.unwrap() }");
    let told = breaches(&[declares, samples, real]);
    assert!(told.len() == 1 && told[0].starts_with("src/wire/real.rs:1: `unwrap`"), "{told:#?}");
}
