//! What a benchmark leaves behind when it is ended in the middle: nothing.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::Scratch;
use crate::process::command;
use crate::rig::until;

/// A benchmark whose control plane and sidecar run; both need longer to be measured than this takes.
async fn running(dir: &str) -> (Child, String) {
    let mut child = command();
    let child = child.args(["bench", "memory", "--flags", "1", "--watchers", "1", "--dir", dir]).stdout(Stdio::null()).spawn().unwrap();
    let folder = format!("{dir}/yardarm-bench-{}", child.id());
    let socket = format!("{folder}/idle.sock");
    until("the sidecar of the benchmark serves", || UnixStream::connect(&socket).is_ok()).await;
    (child, folder)
}

#[tokio::test]
async fn a_benchmark_that_is_asked_to_end_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let (mut child, folder) = running(&scratch.path(".")).await;
    let sidecar = children(&child);
    assert_eq!(sidecar.len(), 2, "{sidecar:?}");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(!Path::new(&folder).exists());
    until("its servers are gone", || sidecar.iter().all(|pid| !lives(pid))).await;
}

#[tokio::test]
async fn a_benchmark_that_is_killed_takes_its_servers_with_it() {
    let scratch = Scratch::new();
    let (mut child, _) = running(&scratch.path(".")).await;
    let servers = children(&child);
    assert_eq!(servers.len(), 2, "{servers:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    until("its servers are gone", || servers.iter().all(|pid| !lives(pid))).await;
}

#[tokio::test]
async fn a_floor_ends_with_the_benchmark() {
    let scratch = Scratch::new();
    for floor in [&["hello"][..], &["echo"], &["ping-pong", "--question-bytes", "1", "--answer-bytes", "1"]] {
        let mut child = command();
        child.args([&["bench", "floor"], floor, &["--socket", &scratch.path(floor[0])]].concat());
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success(), "{floor:?}");
    }
}

/// Ids of the processes that this one started.
fn children(parent: &Child) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_child = |pid: &String| status(pid, "PPid:").is_some_and(|found| found == parent.id().to_string());
    processes.filter(is_child).collect()
}

/// A process that nobody has waited for yet has ended too.
fn lives(pid: &str) -> bool {
    status(pid, "State:").is_some_and(|state| !state.starts_with('Z'))
}

fn status(pid: &str, field: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(field)).map(|value| value.trim().to_owned())
}
