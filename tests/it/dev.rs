//! `yardarm dev` from the first start to the second, used through the command line.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::cli::{Dev, Scratch};
use crate::process::command;

const FLAG: &str = "new_checkout_flow";

#[test]
fn dev_is_started_used_stopped_and_started_again() {
    let scratch = Scratch::new();
    let data = scratch.path("data");
    let dev = Dev::over(Path::new(&data), &[]);
    dev.wait_for_pods(1);
    let people: Vec<_> = (0..40).map(|number| format!("user-{number}")).collect();
    let served = |dev: &Dev| -> Vec<String> {
        let variant = |key: &String| dev.eval(&[FLAG, "--key", key, "-o", "json"]).json(0)["decision"]["variant"].to_string();
        people.iter().map(variant).collect()
    };
    let before = served(&dev);
    let on = before.iter().filter(|variant| *variant == "\"on\"").count();
    assert!((1..20).contains(&on), "{on} of 40 are in the 20 %");
    dev.ask(&["kill", FLAG, "--reason", "first day", "--wait", "20s"]).ended(0);
    dev.ask(&["flag", "delete", "legacy_api", "--yes"]).ended(0);
    assert!(dev.process.stop().success());

    let dev = Dev::over(Path::new(&data), &[]);
    dev.wait_for_pods(1);
    assert!(served(&dev).iter().all(|variant| variant == "\"off\""), "the kill outlives the restart");
    let listed = dev.look(&["flag", "list", "-o", "json"]).json(0);
    assert_eq!(listed["flags"].as_array().unwrap().len(), 4, "the samples come at the first start only");
    dev.ask(&["restore", FLAG, "--reason", "second day", "--wait", "20s"]).ended(0);
    assert_eq!(served(&dev), before, "the same people are in again");
    assert!(dev.process.stop().success());
}

#[test]
fn dev_says_what_listens_where_and_three_commands_that_work() {
    let scratch = Scratch::new();
    let mut dev = command();
    dev.args(["dev", "--port-base", "0", "--pods", "2", "--data", &scratch.path("data")]);
    let mut dev = dev.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(dev.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said: Vec<_> = lines.by_ref().take(8).collect();
    let text = said.join("\n");
    assert!(
        said[0].starts_with("yardarm dev: environment default, store in ") && said[0].ends_with("sample flags applied at revision 2"),
        "{text}"
    );
    assert!(said[1].starts_with("  control plane  http://127.0.0.1:"), "{text}");
    for (line, pod) in said[2..4].iter().zip(["dev-1", "dev-2"]) {
        let parts = [pod, "127.0.0.1:", "unix:", ".sock", "management http://127.0.0.1:"];
        assert!(parts.iter().all(|part| line.contains(part)), "{text}");
    }
    let shell =
        |line: &str, more: &str| Command::new("sh").args(["-c", &format!("exec {line} {more}")]).stdout(Stdio::piped()).spawn().unwrap();
    let whole = |line: &str| String::from_utf8(shell(line, "").wait_with_output().unwrap().stdout).unwrap();
    assert!(whole(&said[5]).starts_with("new_checkout_flow = "), "{text}");
    let mut watch = shell(&said[6], "--changes 1");
    let mut seen = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(seen.next().unwrap(), "5 flags at revision 2");
    assert!(whole(&said[7]).starts_with("killed new_checkout_flow at revision 3: applied on "), "{text}");
    assert!(seen.any(|line| line.ends_with("KILLED  new_checkout_flow  revision 3")));
    assert!(watch.wait().unwrap().success());
    dev.kill().unwrap();
    dev.wait().unwrap();
}

#[test]
fn a_flag_file_is_applied_at_every_start() {
    let scratch = Scratch::new();
    let (data, file) = (scratch.path("data"), scratch.path("flags.yaml"));
    let start = |default: &str| {
        scratch.write("flags.yaml", &format!("flags: {{ mine: {{ variants: {{ a: x, b: y }}, defaultVariant: {default} }} }}"));
        let dev = Dev::over(Path::new(&data), &["--flags", &file, "--env", "trial"]);
        dev.wait_for_pods_of("trial", 1);
        dev
    };
    let served = |dev: &Dev| dev.eval(&["mine", "--env", "trial", "-o", "json"]).json(0)["decision"]["value"].clone();
    let dev = start("a");
    assert_eq!(served(&dev), json!("x"));
    assert_eq!(dev.look(&["flag", "list", "--env", "trial", "-o", "json"]).json(0)["flags"].as_array().unwrap().len(), 1, "no samples");
    assert!(dev.process.stop().success());
    let dev = start("b");
    assert_eq!(served(&dev), json!("y"));
    assert!(dev.process.stop().success());
}

#[test]
fn the_ready_file_is_there_while_it_serves_and_names_every_address() {
    let scratch = Scratch::new();
    let ready = scratch.path("ready.json");
    let mut dev = command();
    dev.args(["dev", "--port-base", "0", "--pods", "3", "-o", "json", "--data", &scratch.path("data"), "--ready-file", &ready]);
    let mut dev = dev.stdout(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(dev.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let told: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&ready).unwrap()).unwrap();
    assert_eq!(told, serde_json::from_str::<serde_json::Value>(&said).unwrap());
    assert_eq!((told["pid"].as_u64(), told["sidecars"].as_array().map(Vec::len)), (Some(dev.id().into()), Some(3)));
    let pid = rustix::process::Pid::from_child(&dev);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(dev.wait().unwrap().success());
    assert!(!Path::new(&ready).exists());
}
