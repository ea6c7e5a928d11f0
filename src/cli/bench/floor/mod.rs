//! What is measured beside Yardarm, in the same minute on the same cores: programs that do less, so that a figure is a ratio and not a
//! statement about this machine. Each is a child process of its own.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use serde::{Deserialize, Serialize};

use super::process::Server;
use super::socket::Address;
use super::world::said;
use crate::lifecycle::when_owner_is_gone;

pub mod echo;
pub mod fan_out;
mod hello;
pub mod ping_pong;

/// Which floor this process is.
#[derive(Debug, Subcommand)]
pub enum Floor {
    /// Blocking reads and writes of as many bytes as a question and its answer have
    PingPong {
        #[arg(long)]
        socket: PathBuf,
        #[arg(long)]
        question_bytes: usize,
        #[arg(long)]
        answer_bytes: usize,
    },
    /// hyper's HTTP/2 server that says "hello"
    Hello {
        #[arg(long)]
        socket: PathBuf,
    },
    /// A tonic server of our own messages that decides nothing
    Echo {
        #[arg(long)]
        socket: PathBuf,
    },
    /// A loop of blocking write() to every connection, each time that a line comes in
    FanOut {
        #[arg(long)]
        connections: usize,
        #[arg(long)]
        bytes: usize,
    },
}

/// Where a floor listens; its first line of output.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listening {
    pub tcp: SocketAddr,
    pub unix: PathBuf,
}

impl Listening {
    pub fn addresses(&self) -> [Address; 2] {
        [Address::Tcp(self.tcp), Address::Unix(self.unix.clone())]
    }
}

/// A port that the system picked and a Unix socket.
#[derive(Debug)]
pub struct Bound {
    tcp: TcpListener,
    unix: UnixListener,
    pub listening: Listening,
}

impl Bound {
    pub fn at(socket: PathBuf) -> anyhow::Result<Self> {
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let unix = UnixListener::bind(&socket).with_context(|| format!("cannot listen at {}", socket.display()))?;
        let listening = Listening { tcp: tcp.local_addr()?, unix: socket };
        Ok(Self { tcp, unix, listening })
    }

    /// The listeners as the runtime around wants them.
    fn for_tokio(self) -> anyhow::Result<(tokio::net::TcpListener, tokio::net::UnixListener)> {
        let Self { tcp, unix, listening: _ } = self;
        tcp.set_nonblocking(true)?;
        unix.set_nonblocking(true)?;
        Ok((tokio::net::TcpListener::from_std(tcp)?, tokio::net::UnixListener::from_std(unix)?))
    }
}

/// Serves until the process is ended, or until standard input is: the fan-out reads it, the others do nothing else with it.
pub fn serve(floor: Floor) -> anyhow::Result<()> {
    let bind = |socket| {
        let bound = Bound::at(socket)?;
        when_owner_is_gone(|| std::process::exit(0))?;
        println!("{}", serde_json::to_string(&bound.listening)?);
        anyhow::Ok(bound)
    };
    match floor {
        Floor::PingPong { socket, question_bytes, answer_bytes } => ping_pong::serve(bind(socket)?, question_bytes, answer_bytes),
        Floor::Hello { socket } => hello::serve(bind(socket)?),
        Floor::Echo { socket } => echo::serve(bind(socket)?),
        Floor::FanOut { connections, bytes } => fan_out::serve(connections, bytes),
    }
}

/// Starts one of the floors that listen to TCP and to a Unix socket.
pub fn start(name: &str, options: &[String], core: Option<usize>, dir: &Path) -> anyhow::Result<(Server, Listening)> {
    let socket = dir.join(format!("{name}.sock"));
    let mut args = ["bench", "floor", name, "--socket"].map(str::to_owned).to_vec();
    args.push(socket.display().to_string());
    args.extend_from_slice(options);
    let mut server = Server::start(name, &args, core, dir)?;
    let listening = said(&mut server)?;
    Ok((server, listening))
}
