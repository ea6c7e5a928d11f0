//! The real executable, as a process of its own that can be frozen and killed.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::Value as Json;
use tonic::transport::{Channel, Endpoint};
use yardarm::wire::v1::admin_client::AdminClient;
use yardarm::wire::v1::evaluation_client::EvaluationClient;

/// What a test waits for comes within this, or never.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Process {
    child: Child,
    /// The ready line, see `yardarm control --help`.
    addresses: Json,
}

impl Process {
    /// Starts `yardarm ARGS` and waits until it says where it listens.
    pub fn start(args: &[&str]) -> Self {
        let mut child =
            command().args(args).args(["--ready-file", "/dev/stdout"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).find_map(|line| serde_json::from_str::<Json>(&line).ok().filter(Json::is_object));
        let Some(addresses) = ready else {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("yardarm {} ended before it was ready: {said}", args.join(" "));
        };
        // A pipe that nobody empties stops the process once it is full.
        std::thread::spawn(move || lines.for_each(drop));
        let mut errors = child.stderr.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        Self { child, addresses }
    }

    pub fn control(data: &Path) -> Self {
        Self::control_at(data, "127.0.0.1:0")
    }

    pub fn control_at(data: &Path, listen: &str) -> Self {
        Self::start(&["control", "--data", data.to_str().unwrap(), "--listen", listen])
    }

    pub fn sidecar(control: &str, data: &Path, pod: &str) -> Self {
        let control = format!("http://{control}");
        let place =
            ["--listen", "127.0.0.1:0", "--management", "127.0.0.1:0", "--ofrep", "127.0.0.1:0", "--sync", "127.0.0.1:0", "--threads", "1"];
        Self::start(&[&["sidecar", "--control-plane", &control, "--data", data.to_str().unwrap(), "--pod", pod][..], &place].concat())
    }

    /// Where the control plane listens.
    pub fn grpc(&self) -> &str {
        self.addresses["control"]["grpc"].as_str().unwrap()
    }

    /// Where the sidecar answers.
    pub fn tcp(&self) -> &str {
        self.addresses["sidecars"][0]["tcp"].as_str().unwrap()
    }

    pub fn management(&self) -> &str {
        self.addresses["sidecars"][0]["management"].as_str().unwrap()
    }

    pub fn ofrep(&self) -> &str {
        self.addresses["sidecars"][0]["ofrep"].as_str().unwrap()
    }

    pub fn sync(&self) -> &str {
        self.addresses["sidecars"][0]["sync"].as_str().unwrap()
    }

    pub fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(channel(self.grpc()))
    }

    pub fn evaluation(&self) -> EvaluationClient<Channel> {
        EvaluationClient::new(channel(self.tcp()))
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Stops every thread of it. The signal is taken by one of them in its own time, and the others run on until then: this returns when the
    /// last one stands.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let (_, status) = waitpid(Some(Pid::from_child(&self.child)), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped(), "{status:?}");
    }

    /// SIGTERM, and how it ended. One that does not end in time is killed and fails the test.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let (ended, end) = mpsc::channel();
        std::thread::scope(|scope| {
            let pid = Pid::from_child(&self.child);
            scope.spawn(|| ended.send(self.child.wait()));
            end.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                // Else the thread would wait for it for ever.
                kill_process(pid, Signal::KILL).unwrap();
                panic!("the process did not end within {PATIENCE:?} of SIGTERM");
            })
        })
        .unwrap()
    }

    /// `kill -9`, and the process is gone when this returns.
    pub fn kill_9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `yardarm`, without what the environment of the test says of its settings and colours.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_yardarm"));
    let is_ours = |name: &str| ["YARDARM_", "FLAGD_", "CLICOLOR", "NO_COLOR"].iter().any(|ours| name.starts_with(ours));
    let ours = std::env::vars_os().map(|(name, _)| name).filter(|name| is_ours(&name.to_string_lossy()));
    ours.for_each(|name| {
        command.env_remove(name);
    });
    command.stdin(Stdio::null());
    command
}

/// Connects when it is first used, and again after the other side was away.
pub fn channel(address: &str) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect_timeout(PATIENCE).connect_lazy()
}
