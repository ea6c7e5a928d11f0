//! A kill ends with who has it, or with who has not said so.

use std::path::Path;

use rustix::process::Signal;
use serde_json::json;

use super::{Dev, Scratch, run};
use crate::process::Process;

const FLAG: &str = "new_checkout_flow";

/// The last line of a kill that every pod has confirmed, taken apart.
fn is_summary(line: &str, start: &str, pods: &str) -> bool {
    let Some(rest) = line.strip_prefix(&format!("{start}: applied on {pods} pods, p50 ")) else { return false };
    let mut parts = rest.split(", ");
    let is_time = |text: Option<&str>| {
        let (number, unit) = text.and_then(|text| text.split_once(' ')).unwrap_or_default();
        number.parse::<f64>().is_ok() && matches!(unit, "ms" | "s")
    };
    let p50 = is_time(parts.next());
    let p99 = is_time(parts.next().and_then(|part| part.strip_prefix("p99 ")));
    let (slowest, pod) = parts.next().and_then(|part| part.strip_prefix("slowest ")?.split_once(" (pod ")).unwrap_or_default();
    p50 && p99 && is_time(Some(slowest)) && pod.starts_with("dev-") && pod.ends_with(')') && parts.next().is_none()
}

#[test]
fn a_kill_ends_with_the_word_of_every_pod() {
    let dev = Dev::with_pods(3);
    let text = dev.ask(&["kill", FLAG, "--reason", "error rate", "--wait", "20s"]).ended(0);
    assert!(is_summary(text.trim_end(), "killed new_checkout_flow at revision 3", "3 of 3"), "{text}");

    let again = dev.ask(&["kill", FLAG, "--reason", "once more", "--wait", "20s"]);
    assert_eq!(again.stderr, "new_checkout_flow was killed already, at revision 3\n");
    assert!(is_summary(again.ended(0).trim_end(), "killed new_checkout_flow at revision 3", "3 of 3"));

    let restored = dev.ask(&["restore", FLAG, "--reason", "mended", "--percent", "5", "--wait", "20s"]).ended(0);
    assert!(is_summary(restored.trim_end(), "restored new_checkout_flow to 5 % at revision 4", "3 of 3"), "{restored}");
    let document = dev.look(&["flag", "get", FLAG, "-o", "json"]).json(0);
    assert_eq!(document["kill"], json!(null));
    assert_eq!(document["document"]["flags"][FLAG]["rules"][0]["split"]["weights"], json!({ "on": "5%", "off": "95%" }));
}

#[test]
fn a_kill_without_a_wait_says_the_revision_and_where_to_look() {
    let dev = Dev::start();
    let text = dev.ask(&["kill", FLAG, "--reason", "x"]).ended(0);
    assert!(text.starts_with("killed new_checkout_flow at revision 3; ") && text.contains("`yardarm pods`"), "{text}");
    let done = dev.ask(&["restore", FLAG, "--reason", "x", "-o", "json"]).json(0);
    assert_eq!(
        (&done["action"], &done["revision"], &done["changed"], &done["propagation"]),
        (&json!("restored"), &json!(4), &json!(true), &json!(null))
    );
    let standing = dev.ask(&["restore", FLAG, "--reason", "x"]).ended(0);
    assert!(standing.contains("is not killed"), "{standing}");
    // It was never restored, so there is no revision that every pod could confirm.
    assert_eq!(dev.ask(&["restore", FLAG, "--reason", "x", "--wait", "20s"]).ended(0), standing);
}

#[test]
fn a_pod_that_does_not_answer_in_time_is_named() {
    let (dev, scratch) = (Dev::start(), Scratch::new());
    let frozen = Process::sidecar(dev.process.grpc(), Path::new(&scratch.path("frozen")), "frozen-pod");
    dev.wait_for_pods(2);
    frozen.freeze();
    let text = dev.ask(&["kill", FLAG, "--reason", "x", "--wait", "300ms"]).ended(3);
    let lines: Vec<_> = text.lines().collect();
    assert!(is_summary(lines[0], "killed new_checkout_flow at revision 3", "1 of 2"), "{text}");
    assert_eq!(lines[1..], ["no answer in 300 ms from pod frozen-pod"], "{text}");
    let done = dev.ask(&["kill", FLAG, "--reason", "x", "--wait", "300ms", "-o", "json"]).json(3);
    assert_eq!((&done["propagation"]["silent"], &done["propagation"]["applied"]), (&json!(["frozen-pod"]), &json!(1)));
    frozen.signal(Signal::CONT);
    dev.ask(&["kill", FLAG, "--reason", "x", "--wait", "20s"]).ended(0);
}

#[test]
fn nobody_is_not_everybody() {
    let (scratch, samples) = (Scratch::new(), "deploy/samples/flags.yaml");
    let control = Process::control(Path::new(&scratch.path("data")));
    let url = format!("http://{}", control.grpc());
    run(&["flag", "apply", "-f", samples, "--yes", "--control-plane", &url]).ended(0);
    let ran = run(&["kill", FLAG, "--reason", "x", "--wait", "300ms", "--control-plane", &url]);
    assert!(ran.stderr.contains("no sidecar follows environment default"), "{ran:?}");
    assert_eq!(ran.ended(3), "killed new_checkout_flow at revision 3: applied on 0 of 0 pods\n");
}
