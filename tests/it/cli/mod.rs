//! The command line as people and scripts use it: the executable, its output and its exit codes.

mod bench;
mod commands;
mod offline;
mod propagation;
mod refusals;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::process::{Process, command};

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

pub fn run(args: &[&str]) -> Ran {
    let output = command().args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Ran {
    /// What it printed, after a check that it ended with `code`.
    pub fn ended(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.stdout
    }

    /// The one line of JSON that it printed.
    pub fn json(self, code: i32) -> Json {
        let stdout = self.ended(code);
        assert_eq!(stdout.lines().count(), 1, "{stdout}");
        serde_json::from_str(&stdout).unwrap()
    }

    /// The one line with which it failed, after a check that it printed nothing else.
    pub fn refusal(self, code: i32) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (code, ""), "{self:?}");
        let line = self.stderr.strip_suffix('\n').unwrap();
        assert_eq!(line.lines().count(), 1, "{line}");
        line.strip_prefix("error: ").unwrap().to_owned()
    }
}

/// `yardarm dev` on free ports, and the options that lead to it.
pub struct Dev {
    pub process: Process,
    control: String,
    data: PathBuf,
    _folder: Option<TempDir>,
}

impl Dev {
    pub fn start() -> Self {
        Self::with_pods(1)
    }

    pub fn with_pods(pods: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut dev = Self::over(folder.path(), &["--pods", &pods.to_string()]);
        dev._folder = Some(folder);
        dev.wait_for_pods(pods);
        dev
    }

    pub fn over(data: &Path, more: &[&str]) -> Self {
        let process = Process::start(&[&["dev", "--port-base", "0", "--data", data.to_str().unwrap()], more].concat());
        let control = format!("http://{}", process.grpc());
        Self { process, control, data: data.to_owned(), _folder: None }
    }

    /// Until so many pods are connected and hold what there is.
    pub fn wait_for_pods(&self, pods: usize) {
        self.wait_for_pods_of("default", pods);
    }

    pub fn wait_for_pods_of(&self, environment: &str, pods: usize) {
        let mut child = command();
        child.args(["pods", "--watch", "-o", "json", "--control-plane", &self.control, "--env", environment]);
        let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
        let events = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| serde_json::from_str::<Json>(&line.unwrap()).unwrap());
        let mut current = BTreeSet::new();
        for event in events {
            let pod = &event["pod"];
            if pod["connected"] == true && pod["revision"] == event["head"]["revision"] {
                current.insert(pod["pod"].as_str().unwrap().to_owned());
            }
            if current.len() == pods {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(current.len(), pods, "the control plane ended the stream");
    }

    /// A command that asks the control plane.
    pub fn ask(&self, args: &[&str]) -> Ran {
        run(&[args, &["--control-plane", &self.control, "--actor", "ana"]].concat())
    }

    /// The same for a command that changes nothing, and so has no author.
    pub fn look(&self, args: &[&str]) -> Ran {
        run(&[args, &["--control-plane", &self.control]].concat())
    }

    pub fn eval(&self, args: &[&str]) -> Ran {
        run(&[&["eval"], args, &["--sidecar", self.process.tcp(), "--control-plane", &self.control]].concat())
    }

    pub fn control(&self) -> &str {
        &self.control
    }

    pub fn data(&self) -> &Path {
        &self.data
    }
}

/// Files of a test.
pub struct Scratch(TempDir);

impl Scratch {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}
