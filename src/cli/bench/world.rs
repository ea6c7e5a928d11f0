//! A control plane and sidecars as child processes, started as anybody starts them, with the realistic flags in them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tonic::transport::Channel;

use super::flags;
use super::interrupted::leave_nothing_behind;
use super::process::{Cores, Server};
use super::socket::Address;
use crate::control::DEFAULT_ENVIRONMENT;
use crate::wire::v1::admin_client::AdminClient;
use crate::wire::v1::{ApplyRequest, ApplyResponse, Intent};

const ANY_PORT: &str = "127.0.0.1:0";
const READY_WITHIN: Duration = Duration::from_secs(60);
const LARGEST_MESSAGE: usize = 64 * 1024 * 1024;

/// A directory that goes with the benchmark, its cores, and names for its children.
#[derive(Debug)]
pub struct World {
    pub dir: PathBuf,
    pub cores: Option<Cores>,
}

#[derive(Debug)]
pub struct Control {
    pub server: Server,
    pub url: String,
}

#[derive(Debug)]
pub struct Sidecar {
    pub server: Server,
    pub pod: String,
    pub tcp: SocketAddr,
    pub unix: PathBuf,
    /// What it was started with.
    pub args: Vec<String>,
}

impl World {
    /// Its directory lies in `parent`, or where temporary files lie.
    pub fn create(parent: Option<&Path>) -> anyhow::Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let dir = parent.join(format!("yardarm-bench-{}", std::process::id()));
        // Each watcher is a file here and one in the sidecar, which inherits this.
        raise_open_files()?;
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        leave_nothing_behind(dir.clone()).context("cannot listen for signals")?;
        Ok(Self { dir, cores: Cores::choose() })
    }

    pub fn server_core(&self) -> Option<usize> {
        self.cores.map(|cores| cores.server)
    }

    pub fn client_core(&self) -> Option<usize> {
        self.cores.map(|cores| cores.client)
    }

    /// Starts a control plane; an earlier one's data is found again.
    pub fn control(&self) -> anyhow::Result<Control> {
        let data = self.dir.join("control").display().to_string();
        let args = ["control", "--until-stdin-ends", "--output", "json", "--listen", ANY_PORT, "--data", &data];
        let mut server = Server::start("control", &args, self.client_core(), &self.dir)?;
        let addresses: Addresses = said(&mut server)?;
        let grpc = addresses.control.context("the control plane did not say where it listens")?.grpc;
        Ok(Control { server, url: format!("http://{grpc}") })
    }

    /// Starts a sidecar with more `options`, and waits until it serves.
    pub fn sidecar(&self, pod: &str, control: &Control, options: &[String]) -> anyhow::Result<Sidecar> {
        let (unix, data) = (self.dir.join(format!("{pod}.sock")), self.dir.join(pod));
        let mut args: Vec<String> = [
            ("--output", "json".to_owned()),
            ("--control-plane", control.url.clone()),
            ("--env", DEFAULT_ENVIRONMENT.to_owned()),
            ("--pod", pod.to_owned()),
            ("--data", data.display().to_string()),
            ("--listen", ANY_PORT.to_owned()),
            ("--management", ANY_PORT.to_owned()),
            ("--ofrep", ANY_PORT.to_owned()),
            ("--sync", ANY_PORT.to_owned()),
            ("--socket", unix.display().to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect();
        args.splice(0..0, ["sidecar", "--until-stdin-ends"].map(str::to_owned));
        args.extend_from_slice(options);
        let mut server = Server::start(pod, &args, self.server_core(), &self.dir)?;
        let addresses: Addresses = said(&mut server)?;
        let Listening { tcp, management } = addresses.sidecars.into_iter().next().context("the sidecar did not say where it listens")?;
        server.wait_until(READY_WITHIN, || is_ready(management).then_some(()))?;
        Ok(Sidecar { server, pod: pod.to_owned(), tcp, unix, args })
    }
}

/// What a role prints first with `--output json`, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Addresses {
    control: Option<ControlListening>,
    #[serde(default)]
    sidecars: Vec<Listening>,
}

#[derive(Debug, Deserialize)]
struct ControlListening {
    grpc: SocketAddr,
}

#[derive(Debug, Deserialize)]
struct Listening {
    tcp: SocketAddr,
    management: SocketAddr,
}

/// The first line of a server's output.
pub fn said<T: DeserializeOwned>(server: &mut Server) -> anyhow::Result<T> {
    let line = server.first_line()?;
    serde_json::from_str(&line).with_context(|| format!("a server said {line:?} and not where it listens"))
}

impl Drop for World {
    fn drop(&mut self) {
        // What cannot be removed lies where temporary files lie.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Control {
    pub async fn admin(&self) -> anyhow::Result<AdminClient<Channel>> {
        admin(&self.url).await
    }

    /// Commits the realistic flags 0 .. count.
    pub fn apply_flags(&self, count: usize) -> anyhow::Result<()> {
        wait(async { apply(&mut self.admin().await?, flags::document(count)).await.map(drop) })
    }
}

pub async fn admin(url: &str) -> anyhow::Result<AdminClient<Channel>> {
    let client = AdminClient::connect(url.to_owned()).await.with_context(|| format!("cannot reach the control plane at {url}"))?;
    Ok(client.max_decoding_message_size(LARGEST_MESSAGE).max_encoding_message_size(LARGEST_MESSAGE))
}

/// Commits the flags of a document.
pub async fn apply(admin: &mut AdminClient<Channel>, document: serde_json::Value) -> anyhow::Result<ApplyResponse> {
    let request = ApplyRequest {
        environment: DEFAULT_ENVIRONMENT.to_owned(),
        document: document.to_string().into_bytes(),
        dry_run: false,
        intent: Some(Intent { actor: "bench".to_owned(), reason: "measure".to_owned(), expect_revision: None }),
    };
    Ok(admin.apply(request).await?.into_inner())
}

impl Sidecar {
    pub fn addresses(&self) -> [Address; 2] {
        [Address::Tcp(self.tcp), Address::Unix(self.unix.clone())]
    }
}

/// As many open files as we may have.
fn raise_open_files() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).context("cannot raise the limit of open files")
}

/// Runs asynchronous work on this thread.
pub fn wait<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Whether `/readyz` answers 200.
fn is_ready(management: SocketAddr) -> bool {
    let ask = || -> std::io::Result<[u8; 12]> {
        let mut stream = TcpStream::connect(management)?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status)
    };
    ask().is_ok_and(|status| &status == b"HTTP/1.1 200")
}
