//! Every command against a real control plane and a real sidecar, as text and as JSON.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::{Value as Json, json};

use super::{Dev, Scratch, run};
use crate::process::command;

const FLAG: &str = "new_checkout_flow";

fn keys(list: &Json) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|flag| flag["key"].as_str().unwrap()).collect()
}

#[test]
fn flags_are_listed_and_selected() {
    let dev = Dev::start();
    let text = dev.look(&["flag", "list"]).ended(0);
    let columns: Vec<_> = text.lines().map(|line| line.split_whitespace().take(3).collect::<Vec<_>>()).collect();
    assert_eq!(columns[0], ["KEY", "STATE", "KIND"]);
    assert_eq!(columns[3], ["legacy_api", "disabled", "operational"]);
    let list = |args: &[&str]| dev.look(&[&["flag", "list", "-o", "json"], args].concat()).json(0);
    let all = list(&[]);
    assert_eq!(keys(&all["flags"]), ["ai_recommendations", "beta_dashboard", "legacy_api", FLAG, "sales_email_v2_3_0"]);
    assert_eq!((&all["environment"], &all["flags"][3]["definition"]["owner"]), (&json!("default"), &json!("payments")));
    assert_eq!(keys(&list(&["--tag", "ai"])["flags"]), ["ai_recommendations", "sales_email_v2_3_0"]);
    assert_eq!(keys(&list(&["--prefix", "beta"])["flags"]), ["beta_dashboard"]);
    assert_eq!(keys(&list(&[FLAG, "nope"])["flags"]), [FLAG]);
    assert_eq!(keys(&list(&["--segments"])["segments"]), ["beta-users"]);
    assert!(dev.look(&["flag", "list", "--segments"]).ended(0).lines().nth(1).unwrap().starts_with("beta-users "));
}

#[test]
fn what_get_prints_is_a_document_that_apply_takes() {
    let (dev, scratch) = (Dev::start(), Scratch::new());
    dev.ask(&["kill", FLAG, "--reason", "broken"]).ended(0);
    let text = dev.look(&["flag", "get", FLAG]).ended(0);
    assert!(text.contains("# KILLED at revision 3 by ana: broken"), "{text}");
    let file = scratch.write("flag.yaml", &text);
    let unchanged = dev.ask(&["flag", "apply", "-f", &file, "--yes"]).ended(0);
    assert!(unchanged.starts_with("nothing to do: environment default holds all of this"), "{unchanged}");

    let complete = scratch.write("complete.yaml", &dev.look(&["flag", "get", "beta_dashboard", "--complete"]).ended(0));
    run(&["flag", "lint", &complete]).ended(0);
    let found = dev.look(&["flag", "get", FLAG, "--output", "json"]).json(0);
    assert_eq!((&found["kill"]["reason"], &found["flagRevision"]), (&json!("broken"), &json!(2)));
    assert_eq!(found["document"]["flags"][FLAG]["kind"], "release");
}

#[test]
fn apply_shows_what_it_changes_and_asks_first() {
    let (dev, scratch) = (Dev::start(), Scratch::new());
    let text = dev.look(&["flag", "get", FLAG]).ended(0).replace("owner: payments", "owner: shop");
    let one = scratch.write("one.yaml", &text);
    let two = scratch.write("two.yaml", "flags: { fresh: { variants: { on: true }, defaultVariant: on } }");
    let files = ["-f", &one, "-f", &two];
    let diff = dev.ask(&[&["flag", "apply", "--dry-run"], &files[..]].concat()).ended(0);
    for line in ["~ flag new_checkout_flow", "  - owner: payments", "  + owner: shop", "+ flag fresh", "  + defaultVariant: on"] {
        assert!(diff.lines().any(|shown| shown == line), "{line}: {diff}");
    }
    assert!(diff.ends_with("2 changes to environment default at revision 2; nothing was applied\n"), "{diff}");

    let unasked = dev.ask(&[&["flag", "apply"], &files[..]].concat());
    assert!(unasked.stderr.contains("there is no terminal to ask on: say --yes"), "{unasked:?}");
    unasked.ended(2);
    let applied = dev.ask(&[&["flag", "apply", "--yes", "-o", "json"], &files[..]].concat()).json(0);
    assert_eq!((&applied["changed"], &applied["revision"], &applied["dryRun"]), (&json!(true), &json!(3), &json!(false)));
    let changes = applied["changes"].as_array().unwrap();
    let shown: Vec<_> = changes.iter().map(|change| (change["key"].as_str().unwrap(), change["before"].is_null())).collect();
    assert_eq!(shown, [("fresh", true), (FLAG, false)]);
    let again = dev.ask(&[&["flag", "apply", "--yes", "-o", "json"], &files[..]].concat()).json(0);
    assert_eq!((&again["changed"], &again["changes"]), (&json!(false), &json!([])));
}

#[test]
fn what_the_control_plane_refuses_is_told_at_its_line() {
    let (dev, scratch) = (Dev::start(), Scratch::new());
    let text =
        "flags:\n  a:\n    variants: { on: true }\n    defaultVariant: on\n    prerequisites: [ { flag: new_checkout, variants: [on] } ]\n";
    let file = scratch.write("flags.yaml", text);
    let ran = dev.ask(&["flag", "apply", "-f", &file, "--yes"]);
    assert!(ran.stderr.contains(&format!("{file}:5: flags.a.prerequisites[0]")) && ran.stderr.contains(FLAG), "{ran:?}");
    ran.ended(1);
    assert_eq!(keys(&dev.look(&["flag", "list", "a", "-o", "json"]).json(0)["flags"]), [""; 0]);
}

#[test]
fn a_flag_has_a_history_and_can_go_back() {
    let (dev, scratch) = (Dev::start(), Scratch::new());
    let text = dev.look(&["flag", "get", FLAG]).ended(0).replace("owner: payments", "owner: shop");
    let file = scratch.write("flag.yaml", &text);
    dev.ask(&["flag", "apply", "-f", &file, "--yes", "--reason", "moved"]).ended(0);
    let reverted = dev.ask(&["flag", "revert", FLAG, "--to", "2", "--reason", "too early"]).ended(0);
    assert_eq!(reverted, "reverted new_checkout_flow at revision 4\n");

    let history = dev.look(&["flag", "history", FLAG, "-o", "json"]).json(0);
    let entries: Vec<_> = history["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (&entry["revision"], &entry["reason"], &entry["after"]["owner"]))
        .collect();
    assert_eq!(entries[0], (&json!(4), &json!("too early"), &json!("payments")));
    assert_eq!(entries[1], (&json!(3), &json!("moved"), &json!("shop")));
    let table = dev.look(&["flag", "history", FLAG]).ended(0);
    assert!(table.lines().nth(2).is_some_and(|line| line.starts_with("3 ") && line.contains("ana") && line.ends_with("moved")), "{table}");
    let diff = dev.look(&["flag", "history", FLAG, "--diff", "--limit", "1"]).ended(0);
    assert!(diff.contains("  - owner: shop\n  + owner: payments\n"), "{diff}");

    let unknown = dev.ask(&["flag", "revert", FLAG, "--to", "99", "--reason", "x"]).refusal(1);
    assert!(unknown.contains("revision 99"), "{unknown}");
}

#[test]
fn a_flag_in_use_is_not_deleted_and_another_is() {
    let (dev, scratch) = (Dev::start(), Scratch::new());
    let file = scratch.write(
        "flags.yaml",
        "flags: { a: { variants: { on: true }, defaultVariant: on, prerequisites: [ { flag: new_checkout_flow, variants: [on] } ] } }",
    );
    dev.ask(&["flag", "apply", "-f", &file, "--yes"]).ended(0);
    let used = dev.ask(&["flag", "delete", FLAG, "--yes"]);
    assert!(used.stderr.contains("flag a"), "{used:?}");
    used.ended(1);
    assert_eq!(dev.ask(&["flag", "delete", "a", "--yes"]).ended(0), "deleted a at revision 4\n");
    assert!(dev.ask(&["flag", "delete", FLAG]).stderr.contains("--yes"));
    let segment = dev.ask(&["flag", "delete", "beta-users", "--segment", "--yes"]);
    assert!(segment.stderr.contains("beta_dashboard"), "{segment:?}");
    segment.ended(1);
    let unknown = dev.ask(&["flag", "delete", "new_checkout_flw", "--yes"]).refusal(1);
    assert!(unknown.contains("did you mean `new_checkout_flow`?"), "{unknown}");
}

#[test]
fn the_answer_of_eval_is_the_sidecars_and_the_explanation_agrees() {
    let dev = Dev::start();
    let answer = dev.eval(&["beta_dashboard", "--key", "user-1", "-a", "plan=beta", "-o", "json"]).json(0);
    assert_eq!((&answer["decision"]["value"], &answer["decision"]["revision"], &answer["remark"]), (&json!("v2"), &json!(2), &Json::Null));
    assert_eq!(answer["explanation"]["steps"][0]["conditions"][0]["within"][0]["found"], "plan is \"beta\"");

    dev.ask(&["kill", "beta_dashboard", "--reason", "x", "--wait", "20s"]).ended(0);
    let text = dev.eval(&["beta_dashboard", "--key", "user-1", "-a", "plan=beta"]).ended(0);
    assert!(text.starts_with("beta_dashboard = \"v1\" (variant old), KILLED\n") && text.contains("-> kill: "), "{text}");
    let unknown = dev.eval(&["nope", "-o", "json"]).json(1);
    assert_eq!((&unknown["decision"]["errorCode"], &unknown["decision"]["reason"]), (&json!("FLAG_NOT_FOUND"), &json!("ERROR")));
}

#[test]
fn eval_says_when_the_control_plane_tells_another_story() {
    let (dev, other, scratch) = (Dev::start(), Dev::start(), Scratch::new());
    let file = scratch.write("flags.yaml", "flags: { beta_dashboard: { variants: { new: v2, old: v1 }, defaultVariant: new } }");
    other.ask(&["flag", "apply", "-f", &file, "--yes"]).ended(0);
    // Back to a revision that both have, so that only the definition differs.
    let ask =
        |control: &str| run(&["eval", "beta_dashboard", "--sidecar", dev.process.tcp(), "--control-plane", control, "-o", "json"]).json(0);
    let answer = ask(other.control());
    assert_eq!(answer["decision"]["variant"], "old");
    assert_eq!(answer["remark"], Json::Null, "at revision 2 both hold the samples");
    dev.ask(&["kill", "beta_dashboard", "--reason", "x", "--wait", "20s"]).ended(0);
    let answer = ask(other.control());
    assert_eq!((&answer["decision"]["reason"], &answer["explanation"]["variant"]), (&json!("KILLED"), &json!("new")));
    assert!(answer["remark"].as_str().unwrap().contains("decides otherwise (new for STATIC)"), "{answer}");

    let alone = ask("http://127.0.0.1:1");
    assert_eq!(alone["explanation"], Json::Null);
    assert!(alone["remark"].as_str().unwrap().starts_with("no explanation: cannot reach the control plane"), "{alone}");
}

#[test]
fn a_watch_tells_what_stands_and_then_each_change() {
    let dev = Dev::start();
    let watch = |args: &[&str]| {
        let mut child = command();
        child.args([&["watch", "--sidecar", dev.process.tcp(), "--changes", "1"], args].concat());
        let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let first = lines.next().unwrap();
        (child, first, lines)
    };
    let (mut json_child, first, json_lines) = watch(&[FLAG, "--output", "json"]);
    let first: Json = serde_json::from_str(&first).unwrap();
    assert_eq!((&first["event"], &first["revision"], keys(&first["flags"])), (&json!("snapshot"), &json!(2), vec![FLAG]));
    let (mut text_child, first, text_lines) = watch(&["--tag", "checkout"]);
    assert_eq!(first, "1 flag at revision 2");

    dev.ask(&["kill", FLAG, "--reason", "x"]).ended(0);
    let events: Vec<Json> = json_lines.map(|line| serde_json::from_str(&line).unwrap()).collect();
    let change = events.iter().find(|event| event["event"] == "change").unwrap();
    assert_eq!((&change["type"], &change["flag"]["key"], &change["flag"]["killed"]), (&json!("KILLED"), &json!(FLAG), &json!(true)));
    assert!(change["originTime"].is_string() && change["flag"]["flagRevision"] == 3, "{change}");
    let texts: Vec<_> = text_lines.collect();
    assert!(texts.last().unwrap().ends_with("KILLED  new_checkout_flow  revision 3"), "{texts:?}");
    for child in [&mut json_child, &mut text_child] {
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_watch_for_somebody_tells_only_what_changes_for_them() {
    let dev = Dev::start();
    let mut child = command();
    child.args(["watch", "--sidecar", dev.process.tcp(), "--key", "user-1", "--changes", "1", "-o", "json"]);
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| serde_json::from_str::<Json>(&line.unwrap()).unwrap());
    let snapshot = lines.next().unwrap();
    let served = |flag: &Json| flag["decisions"][0]["variant"].clone();
    let at = keys(&snapshot["flags"]).iter().position(|key| *key == "ai_recommendations").unwrap();
    assert_eq!(served(&snapshot["flags"][at]), "on");
    // user-1 is not a beta user and is served `old` before and after; ai_recommendations is theirs.
    dev.ask(&["kill", "beta_dashboard", "--reason", "x", "--wait", "20s"]).ended(0);
    dev.ask(&["kill", "ai_recommendations", "--reason", "x"]).ended(0);
    let change = lines.find(|event| event["event"] == "change").unwrap();
    assert_eq!((&change["flag"]["key"], served(&change["flag"])), (&json!("ai_recommendations"), json!("off")));
    assert!(child.wait().unwrap().success());
}

#[test]
fn pods_say_what_they_hold() {
    let dev = Dev::with_pods(2);
    let text = dev.look(&["pods"]).ended(0);
    let rows: Vec<_> = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(
        rows.iter().map(|row| (row[0], row[3], *row.last().unwrap())).collect::<Vec<_>>(),
        [("dev-1", "2", "current"), ("dev-2", "2", "current")]
    );
    let listed = dev.look(&["pods", "-o", "json"]).json(0);
    assert_eq!(listed["head"]["revision"], 2);
    for pod in listed["pods"].as_array().unwrap() {
        assert_eq!((&pod["connected"], &pod["revision"], &pod["rejected"]), (&json!(true), &json!(2), &json!([])), "{pod}");
    }

    let mut child = command();
    let mut child = child.args(["pods", "--watch", "-o", "json", "--control-plane", dev.control()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let pods: Vec<Json> = lines.by_ref().take(2).map(|line| serde_json::from_str(&line).unwrap()).collect();
    assert!(pods.iter().all(|event| event["gone"] == false && event["pod"]["revision"] == 2), "{pods:?}");
    dev.ask(&["kill", FLAG, "--reason", "x"]).ended(0);
    assert!(lines.map(|line| serde_json::from_str::<Json>(&line).unwrap()).any(|event| event["pod"]["revision"] == 3));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_audit_tells_who_did_what_and_why_and_that_it_is_whole() {
    let dev = Dev::start();
    dev.ask(&["kill", FLAG, "--reason", "error rate"]).ended(0);
    let text = dev.look(&["audit"]).ended(0);
    let newest = text.lines().nth(1).unwrap();
    assert!(["ana", "kill", FLAG, "error rate"].iter().all(|part| newest.contains(part)), "{text}");
    let listed = dev.look(&["audit", "--flag", FLAG, "--limit", "1", "-o", "json"]).json(0);
    let entry = &listed["entries"][0];
    assert_eq!(
        (&entry["actor"], &entry["action"], &entry["reason"], &entry["revision"]),
        (&json!("ana"), &json!("kill"), &json!("error rate"), &json!(3))
    );
    assert_eq!(listed["entries"].as_array().unwrap().len(), 1);
    let older = dev.look(&["audit", "--before", &entry["seq"].to_string(), "-o", "json"]).json(0);
    assert_eq!(older["entries"].as_array().unwrap().len(), 2);
    assert!(dev.look(&["audit", "--diff"]).ended(0).contains("+ flag new_checkout_flow"));

    let verified = dev.look(&["audit", "--verify", "-o", "json"]).json(0);
    assert_eq!((&verified["intact"], &verified["entries"], &verified["headHash"]), (&json!(true), &json!(3), &entry["hash"]));
    assert!(dev.look(&["audit", "--verify"]).ended(0).starts_with("the audit chain is intact: 3 entries"));
}

#[test]
fn environments_are_created_copied_and_listed() {
    let dev = Dev::start();
    assert_eq!(dev.ask(&["env", "create", "staging"]).ended(0), "created environment staging at revision 1\n");
    let copied = dev.ask(&["env", "copy", "default", "prod", "-o", "json"]).json(0);
    assert_eq!((&copied["environment"], &copied["copiedFrom"]), (&json!("prod"), &json!("default")));
    let listed = dev.look(&["env", "list", "-o", "json"]).json(0);
    let shown: Vec<_> = listed["environments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| (found["name"].as_str().unwrap(), found["flags"].as_u64().unwrap()))
        .collect();
    assert_eq!(shown, [("default", 5), ("prod", 5), ("staging", 0)]);
    assert_eq!(dev.look(&["env", "list"]).ended(0).lines().count(), 4);
    assert!(dev.ask(&["env", "create", "prod"]).refusal(1).contains("`prod` already"));
    for command in [&["flag", "list"][..], &["audit"], &["audit", "--flag", FLAG]] {
        let unknown = dev.look(&[command, &["--env", "prodd"]].concat()).refusal(1);
        assert!(unknown.contains("did you mean `prod`?"), "{unknown}");
    }
    assert_eq!(dev.look(&["audit", "--env", "staging", "--flag", FLAG]).ended(0), "no entries\n");
}

#[test]
fn a_backup_brings_back_what_was_deleted_and_a_torn_one_changes_nothing() {
    let (dev, scratch) = (Dev::start(), Scratch::new());
    let file = scratch.path("backup");
    let written = dev.look(&["backup", &file, "-o", "json"]).json(0);
    assert_eq!(written["bytes"].as_u64().unwrap(), std::fs::metadata(&file).unwrap().len());
    dev.ask(&["flag", "delete", FLAG, "--yes"]).ended(0);

    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let torn = dev.ask(&["restore-backup", &file, "--yes"]).refusal(1);
    assert!(torn.contains("nothing was replaced"), "{torn}");
    assert!(dev.ask(&["restore-backup", &file]).stderr.contains("--yes"));
    assert_eq!(keys(&dev.look(&["flag", "list", FLAG, "-o", "json"]).json(0)["flags"]), [""; 0]);

    std::fs::write(&file, &whole).unwrap();
    let restored = dev.ask(&["restore-backup", &file, "--yes", "-o", "json"]).json(0);
    assert_eq!(restored["environments"], 1);
    assert_eq!(keys(&dev.look(&["flag", "list", FLAG, "-o", "json"]).json(0)["flags"]), [FLAG]);
    assert_eq!(std::fs::read_dir(std::path::Path::new(&file).parent().unwrap()).unwrap().count(), 1, "no partial file is left");
}

#[test]
fn a_backup_takes_the_place_of_files_only() {
    let (dev, scratch) = (Dev::start(), Scratch::new());
    let (file, link, pipe) = (scratch.path("monday"), scratch.path("latest"), scratch.path("pipe"));
    std::os::unix::fs::symlink("monday", &link).unwrap();
    dev.look(&["backup", &link]).ended(0);
    assert_eq!(std::fs::read_link(&link).unwrap(), std::path::Path::new("monday"));
    let whole = std::fs::read(&file).unwrap();
    assert!(whole.len() > 1_000, "{}", whole.len());

    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::read(pipe).unwrap()
    });
    let written = dev.look(&["backup", &pipe, "-o", "json"]).json(0);
    assert_eq!(written["bytes"].as_u64(), Some(whole.len() as u64));
    assert_eq!(reader.join().unwrap().len(), whole.len());
    assert!(!std::fs::symlink_metadata(&pipe).unwrap().is_file(), "the pipe is still one");
    assert_eq!(std::fs::read_dir(scratch.path(".")).unwrap().count(), 3, "no partial file is left");
    for name in ["-", "/dev/stdout"] {
        let output = command().args(["backup", name, "--control-plane", dev.control()]).output().unwrap();
        assert!(output.status.success() && output.stdout.len() == whole.len(), "{name}: {output:?}");
    }
}

#[test]
fn a_malformed_argument_is_told_once() {
    let dev = Dev::start();
    for args in [&["kill", FLAG, "--reason", ""][..], &["env", "create", "a b"], &["flag", "revert", FLAG, "--to", "0", "--reason", "x"]] {
        dev.ask(args).refusal(1);
    }
}

#[test]
fn a_restore_that_has_nothing_to_ramp_names_the_flag() {
    let dev = Dev::start();
    dev.ask(&["kill", "ai_recommendations", "--reason", "x"]).ended(0);
    let ran = dev.ask(&["restore", "ai_recommendations", "--reason", "x", "--percent", "5"]);
    assert!(ran.stderr.contains("flags.ai_recommendations: found no split"), "{ran:?}");
    ran.ended(1);
}

#[test]
fn a_backup_that_cannot_be_written_leaves_the_older_one() {
    let dev = Dev::start();
    let line = dev.look(&["backup", "/nonexistent/backup"]).refusal(2);
    assert!(line.contains("/nonexistent/backup"), "{line}");
}

#[test]
fn probes_ask_for_readiness_liveness_and_grpc_health() {
    let dev = Dev::start();
    let management = dev.process.management();
    for args in [
        &["--management", management][..],
        &["--management", management, "--path", "/healthz"],
        &["--grpc", dev.control()],
        &["--grpc", dev.process.tcp()],
    ] {
        assert_eq!(run(&[&["healthcheck", "-o", "json"], args].concat()).json(0), json!({ "healthy": true }));
    }
    assert!(run(&["healthcheck", "--management", management, "--path", "/nope"]).refusal(1).contains("404"));
    // No control plane is there and nothing is held: it lives, and is not ready.
    let scratch = Scratch::new();
    let empty = crate::process::Process::sidecar("127.0.0.1:1", std::path::Path::new(&scratch.path("data")), "empty");
    assert!(run(&["healthcheck", "--management", empty.management()]).refusal(1).contains("/readyz answered 503"));
    run(&["healthcheck", "--management", empty.management(), "--path", "/healthz"]).ended(0);
}
