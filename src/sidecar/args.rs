//! How a sidecar is set up.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::telemetry::decisions;

use super::serve::MAX_HEADER_BYTES;
use super::tls::Tls;

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub upstream: Upstream,
    #[command(flatten)]
    pub serve: Serve,
}

/// Where the state comes from, and who asks for it.
#[derive(Debug, Clone, clap::Args)]
pub struct Upstream {
    /// The control plane to follow
    #[arg(long = "control-plane", env = "YARDARM_CONTROL_PLANE", value_name = "URL", default_value = "http://127.0.0.1:8020")]
    pub control: String,

    /// The environment whose flags are served
    #[arg(
        short = 'e',
        long = "env",
        visible_alias = "environment",
        env = "YARDARM_ENVIRONMENT",
        value_name = "NAME",
        default_value = "default"
    )]
    pub environment: String,

    /// Directory of the last good state, from which a restart serves while the control plane is away; without it nothing is kept
    #[arg(long, env = "YARDARM_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Name of this pod, by which the control plane knows it; the host's name when it is not set
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub pod: Option<String>,

    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "")]
    pub namespace: String,

    #[arg(long, env = "NODE_NAME", value_name = "NAME", default_value = "")]
    pub node: String,
}

/// What is served, and to how many.
#[derive(Debug, Clone, clap::Args)]
pub struct Serve {
    /// Where applications ask for decisions
    #[arg(long, env = "YARDARM_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8013")]
    pub listen: SocketAddr,

    /// Serve the same on a Unix socket at this path, which costs applications a third less
    #[arg(long, env = "YARDARM_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Where /healthz, /readyz and /metrics are served, and POST /ofrep/v1/track
    #[arg(long, env = "YARDARM_MANAGEMENT", value_name = "ADDRESS", default_value = "127.0.0.1:8014")]
    pub management: SocketAddr,

    /// Where OpenFeature's remote evaluation protocol (OFREP) is served over HTTP; empty: nowhere
    #[arg(long, env = "YARDARM_OFREP", value_name = "ADDRESS", default_value = "127.0.0.1:8016")]
    pub ofrep: Listen,

    /// Where flags are served as flagd documents, for in-process providers and for flagd; empty: nowhere
    #[arg(long, env = "YARDARM_SYNC", value_name = "ADDRESS", default_value = "127.0.0.1:8015")]
    pub sync: Listen,

    /// Serve the same documents on a Unix socket at this path
    #[arg(long, env = "YARDARM_SYNC_SOCKET", value_name = "PATH")]
    pub sync_socket: Option<PathBuf>,

    /// Answer GetMetadata of the sync service; false is flagd's --disable-sync-metadata
    #[arg(long, env = "YARDARM_SYNC_METADATA", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub sync_metadata: bool,

    /// Attributes that every context of flagd's clients and of OFREP has, whatever it says itself, as KEY=VALUE with commas between them;
    /// in-process clients are told to add them
    #[arg(long = "context-value", env = "YARDARM_CONTEXT_VALUE", value_name = "KEY=VALUE", value_parser = pairs, default_value = "")]
    pub context_values: BTreeMap<String, String>,

    /// The same from headers of a request, as HEADER=KEY; over everything else
    #[arg(long = "context-from-header", env = "YARDARM_CONTEXT_FROM_HEADER", value_name = "HEADER=KEY", value_parser = pairs, default_value = "")]
    pub context_headers: BTreeMap<String, String>,

    /// After this time an EventStream and a stream of documents end, so that their client comes back
    #[arg(skip)]
    pub stream_deadline: Option<Duration>,

    /// TLS of evaluation and of documents, by TCP alone
    #[arg(skip)]
    pub tls: Option<Tls>,

    /// Pages that may ask from a browser, by their origin, as https://shop.example; * for any
    #[arg(long = "cors-origin", env = "YARDARM_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub cors_origins: Vec<String>,

    /// Begin while another sidecar still serves on these addresses, and take them over when that one is told to end: no request fails in
    /// between. Both must have been started so, by one user
    #[arg(long, env = "YARDARM_HAND_OVER")]
    pub hand_over: bool,

    /// Threads that answer; one for each core that is granted when it is not set
    #[arg(long, env = "YARDARM_THREADS", value_name = "THREADS")]
    pub threads: Option<usize>,

    /// Answer gRPC reflection, which lists every method and message
    #[arg(long, env = "YARDARM_REFLECTION", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub reflection: bool,

    #[command(flatten)]
    pub limits: Limits,

    #[command(flatten)]
    pub decisions: decisions::Args,
}

/// An address to listen on, or none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listen(pub Option<SocketAddr>);

#[derive(Debug, Clone, clap::Args)]
pub struct Limits {
    /// Connections at one time; further ones are closed at once
    #[arg(long, env = "YARDARM_MAX_CONNECTIONS", value_name = "CONNECTIONS", default_value_t = 4096)]
    pub max_connections: usize,

    /// Watches at one time; further ones end with RESOURCE_EXHAUSTED
    #[arg(long, env = "YARDARM_MAX_WATCHERS", value_name = "WATCHES", default_value_t = 10_000)]
    pub max_watchers: usize,

    /// Units (people, sessions) whose outcomes are attributed to what they were served, each counted once for each flag with metrics; those
    /// that were not heard of for longest are forgotten first. About 130 bytes each, and 40 for each metric
    #[arg(long, env = "YARDARM_MAX_TRACKED_UNITS", value_name = "UNITS", default_value_t = super::evidence::UNITS)]
    pub max_tracked_units: usize,

    /// Milliseconds within which a new connection must have said that it speaks HTTP
    #[arg(long, env = "YARDARM_FIRST_BYTES_MS", value_name = "MS", default_value_t = 5000, hide = true)]
    pub first_bytes_ms: u64,

    /// Milliseconds between HTTP/2 pings by which peers that are gone or stuck are found out; they have half as long to answer
    #[arg(long, env = "YARDARM_KEEP_ALIVE_MS", value_name = "MS", default_value_t = 30_000, hide = true)]
    pub keep_alive_ms: u64,

    /// Bytes of the body of one question of flagd's clients or of OFREP; without it each has a limit of its own
    #[arg(skip)]
    pub max_request_body: Option<usize>,

    /// Bytes of the headers of a request
    #[arg(skip = MAX_HEADER_BYTES)]
    pub max_request_header: u32,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => Ok(Self(None)),
            address => address
                .parse()
                .map(|address| Self(Some(address)))
                .map_err(|_| format!("`{address}` is no address; expected IP:PORT, as 127.0.0.1:8016, or nothing for nowhere")),
        }
    }
}

/// `a=1,b=2`, as flagd reads it; the later of two with one name counts.
pub fn pairs(text: &str) -> Result<BTreeMap<String, String>, String> {
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("found `{pair}`, expected NAME=VALUE, several with commas")),
    };
    text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect()
}

impl Default for Serve {
    /// As on the command line, but on ports that the system picks.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            socket: None,
            management: SocketAddr::from(([127, 0, 0, 1], 0)),
            ofrep: Listen(Some(SocketAddr::from(([127, 0, 0, 1], 0)))),
            sync: Listen(Some(SocketAddr::from(([127, 0, 0, 1], 0)))),
            sync_socket: None,
            sync_metadata: true,
            context_values: BTreeMap::new(),
            context_headers: BTreeMap::new(),
            stream_deadline: None,
            tls: None,
            cors_origins: Vec::new(),
            hand_over: false,
            threads: None,
            reflection: true,
            limits: Limits::default(),
            decisions: decisions::Args::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_watchers: 10_000,
            max_tracked_units: super::evidence::UNITS,
            first_bytes_ms: 5000,
            keep_alive_ms: 30_000,
            max_request_body: None,
            max_request_header: MAX_HEADER_BYTES,
        }
    }
}
