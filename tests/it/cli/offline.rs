//! What works without anybody at the other end: lint, schema, eval of files, completion.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value as Json, json};

use super::{Scratch, run};

const SAMPLES: &str = "deploy/samples/flags.yaml";

const FAULTY: &str = "flags:
  checkout:
    variants: { on: true, off: false }
    defaultVarient: off
    offVariant: offf
    rules:
      - when: [ { segment: stafff } ]
        serve: onn
segments:
  staff: { included: [ana] }
";

#[test]
fn lint_tells_every_problem_with_file_line_path_found_expected_and_nearest() {
    let scratch = Scratch::new();
    let file = scratch.write("flags.yaml", FAULTY);
    let text = run(&["flag", "lint", &file]).ended(1);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert!(
        lines[0].starts_with(&format!("{file}:4: flags.checkout.defaultVarient: found an unknown key \"defaultVarient\", expected ")),
        "{text}"
    );
    assert!(lines[0].ends_with("did you mean \"defaultVariant\"?"), "{text}");
    assert!(
        lines[1].starts_with(&format!("{file}:5: flags.checkout.offVariant: ")) && lines[1].ends_with("did you mean \"off\"?"),
        "{text}"
    );
    assert!(lines[2].starts_with(&format!("{file}:7: ")) && lines[2].ends_with("did you mean \"staff\"?"), "{text}");
    assert!(lines[3].starts_with(&format!("{file}:8: ")) && lines[3].ends_with("did you mean \"on\"?"), "{text}");
    assert_eq!(lines[4], "4 problems");

    let report = run(&["flag", "lint", &file, "-o", "json"]).json(1);
    let problems = report["problems"].as_array().unwrap();
    let lines: Vec<_> = problems.iter().map(|problem| problem["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [4, 5, 7, 8]);
    for name in ["file", "path", "found", "expected", "hint"] {
        assert!(problems.iter().all(|problem| problem[name].is_string()), "{name} in {report}");
    }
}

#[test]
fn lint_reads_standard_input() {
    let mut child = crate::process::command();
    let mut child = child.args(["flag", "lint", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(FAULTY.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("<stdin>:4: "));
}

#[test]
fn the_samples_have_no_problem() {
    assert_eq!(run(&["flag", "lint", SAMPLES]).ended(0), "no problems in 5 flags and 1 segment\n");
    let report = run(&["flag", "lint", SAMPLES, "-o", "json"]).json(0);
    assert_eq!(report, json!({ "files": 1, "flags": 5, "segments": 1, "problems": [] }));
}

#[test]
fn the_schema_is_the_same_in_both_formats() {
    let text: Json = serde_json::from_str(&run(&["flag", "schema"]).ended(0)).unwrap();
    assert_eq!(run(&["flag", "schema", "-o", "json"]).json(0), text);
    assert!(text["$schema"].as_str().is_some_and(|draft| draft.contains("json-schema.org")), "{text}");
}

#[test]
fn a_file_is_evaluated_here_and_explained_rule_by_rule() {
    let text = run(&["eval", "sales_email_v2_3_0", "--key", "user-1", "--attr", "cohort=beta", "--file", SAMPLES]).ended(0);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "sales_email_v2_3_0 = {\"prompt\":\"sales-email-007\",\"version\":\"2.3.0\"} (variant v2.3.0), TARGETING_MATCH by rule internal-and-beta",
            "     targets: \"user-1\" is none of them",
            "  -> rule internal-and-beta: serves v2.3.0",
            "       yes cohort in \"internal\", \"beta\": cohort is \"beta\"",
        ]
    );
    let answer = run(&["eval", "sales_email_v2_3_0", "--key", "user-1", "--file", SAMPLES, "-o", "json"]).json(0);
    let (decision, explanation) = (&answer["decision"], &answer["explanation"]);
    assert_eq!((&decision["variant"], &decision["reason"], &decision["rule"]), (&json!("v2.2.1"), &json!("SPLIT"), &json!("rollout")));
    let steps: Vec<_> = explanation["steps"].as_array().unwrap().iter().map(|step| (&step["name"], step["decides"] == true)).collect();
    assert_eq!(steps, [(&json!("targets"), false), (&json!("rule internal-and-beta"), false), (&json!("rule rollout"), true)]);
    assert_eq!((&answer["sidecar"], &decision["revision"]), (&Json::Null, &Json::Null));
}

#[test]
fn attributes_are_text_or_json_as_they_are_written() {
    let scratch = Scratch::new();
    let file = scratch.write(
        "flags.yaml",
        "flags: { seats: { variants: { many: true, few: false }, defaultVariant: few, rules: [ { when: [ { attribute: seats, atLeast: 5 } ], serve: many } ] } }",
    );
    let served = |attribute: &str| {
        run(&["eval", "seats", "--attr", attribute, "--file", &file, "-o", "json"]).json(0)["decision"]["variant"].clone()
    };
    assert_eq!((served("seats:=7"), served("seats=7")), (json!("many"), json!("few")));
}

#[test]
fn a_flag_that_is_not_in_the_files_is_named_with_those_that_are() {
    let line = run(&["eval", "new_checkout", "--file", SAMPLES]).refusal(1);
    assert!(line.contains("`new_checkout`") && line.contains("new_checkout_flow"), "{line}");
    let scratch = Scratch::new();
    let empty = scratch.write("flags.yaml", "flags: {}");
    let line = run(&["eval", "new_checkout", "--file", &empty]).refusal(1);
    assert!(line.ends_with("they hold no flags"), "{line}");
}

#[test]
fn files_with_problems_are_not_evaluated() {
    let scratch = Scratch::new();
    let file = scratch.write("flags.yaml", FAULTY);
    let ran = run(&["eval", "checkout", "--file", &file]);
    assert_eq!(ran.stderr.lines().count(), 5, "{ran:?}");
    assert!(ran.stderr.contains(&format!("{file}:4: ")), "{ran:?}");
    ran.ended(1);
}

#[test]
fn no_escape_code_goes_into_a_pipe() {
    let scratch = Scratch::new();
    let file = scratch.write("flags.yaml", FAULTY);
    for args in
        [&["flag", "lint", &file][..], &["eval", "new_checkout_flow", "--file", SAMPLES], &["eval", "x", "--file", &file], &["--help"]]
    {
        let ran = run(args);
        assert!(!ran.stdout.contains('\u{1b}') && !ran.stderr.contains('\u{1b}'), "{args:?}: {ran:?}");
    }
}

#[test]
fn completion_scripts_parse_and_know_the_commands() {
    let scratch = Scratch::new();
    let bash = run(&["completion", "bash"]).ended(0);
    let checked = Command::new("bash").args(["-n", &scratch.write("yardarm.bash", &bash)]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completion", shell]).ended(0);
        assert!(["kill", "restore-backup", "control-plane"].iter().all(|name| script.contains(name)), "{shell}");
    }
}

#[test]
fn help_documents_the_exit_codes() {
    let help = run(&["--help"]).ended(0);
    let codes = help.split("Exit codes:").nth(1).unwrap();
    let listed: Vec<_> = codes.lines().filter_map(|line| line.trim().chars().next()).collect();
    assert_eq!(listed, ['0', '1', '2', '3']);
}
