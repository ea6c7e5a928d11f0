//! The launchpad of this suite: a process that starts, stops and changes what is under test, and the ports it serves on.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../launchpad.py");

/// What the launchpad said when it was ready. One for the whole run, as scenarios run one after the other.
static SAID: OnceLock<Value> = OnceLock::new();

/// Starts it; its end is the end of the child's standard input.
pub fn start(binary: &str, testbed: &Path, without: Option<&str>) -> Child {
    let mut child = Command::new("python3")
        .args([SCRIPT.as_ref(), binary.as_ref(), testbed])
        .args(without.map(|flag| format!("--without={flag}")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts the launchpad");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it was asked for")).read_line(&mut line).expect("the launchpad's output can be read");
    let said = serde_json::from_str(&line).unwrap_or_else(|error| panic!("the launchpad said {line:?}, not a line of JSON: {error}"));
    SAID.set(said).expect("a launchpad is started once");
    child
}

pub fn end(mut child: Child) {
    drop(child.stdin.take());
    let status = child.wait().expect("the launchpad can be waited for");
    assert!(status.success(), "the launchpad ended with {status}");
}

fn said(name: &str) -> &'static Value {
    &SAID.get().expect("the launchpad was started")[name]
}

pub fn port(name: &str) -> u16 {
    said(name).as_u64().and_then(|port| port.try_into().ok()).unwrap_or_else(|| panic!("the launchpad named no port {name}"))
}

pub fn path(name: &str) -> String {
    said(name).as_str().unwrap_or_else(|| panic!("the launchpad named no path {name}")).to_owned()
}

/// Gives a command and waits until it is done.
pub async fn order(command: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", port("launchpad"))).await.expect("the launchpad listens");
    stream.write_all(format!("POST {command} HTTP/1.1\r\nhost: launchpad\r\n\r\n").as_bytes()).await.expect("the launchpad reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("the launchpad answers");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{command}: {answer}");
}
