//! The floor of a fan-out: one thread that writes the same bytes to every connection, blocking, one after the other.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout};
use std::rc::Rc;

use anyhow::{Context as _, bail};
use tokio::task::JoinSet;

use crate::cli::bench::arrivals::{Arrivals, now_us};
use crate::cli::bench::process::Server;
use crate::cli::bench::socket::{Address, Socket};

/// Prints its port, takes `connections`, and then, for each line that it reads, writes `bytes` to all and prints when it began: Unix time
/// in microseconds.
pub fn serve(connections: usize, bytes: usize) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let mut streams: Vec<TcpStream> = listener.incoming().take(connections).collect::<Result<_, _>>()?;
    for stream in &streams {
        stream.set_nodelay(true)?;
    }
    let payload = vec![0; bytes];
    for line in std::io::stdin().lock().lines() {
        line?;
        let began_us = now_us();
        for stream in &mut streams {
            stream.write_all(&payload)?;
        }
        println!("{began_us}");
    }
    Ok(())
}

/// The process that writes, and its readers on this thread.
#[derive(Debug)]
pub struct FanOut {
    _server: Server,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    arrivals: Rc<Arrivals>,
    readers: JoinSet<anyhow::Result<()>>,
    writes: u64,
}

impl FanOut {
    pub async fn start(connections: usize, bytes: usize, core: Option<usize>, dir: &Path) -> anyhow::Result<Self> {
        let args = ["bench", "floor", "fan-out", "--connections", &connections.to_string(), "--bytes", &bytes.to_string()];
        let mut server = Server::start("fan-out", &args, core, dir)?;
        let (stdin, mut stdout) = server.talk()?;
        let address: SocketAddr = line(&mut stdout)?.parse().context("the fan-out did not say where it listens")?;
        let (arrivals, mut readers) = (Rc::new(Arrivals::default()), JoinSet::new());
        arrivals.expect(connections);
        for _ in 0..connections {
            let socket = Socket::connect(&Address::Tcp(address)).await?;
            readers.spawn_local(read(socket, bytes, Rc::clone(&arrivals)));
        }
        Ok(Self { _server: server, stdin, stdout, arrivals, readers, writes: 0 })
    }

    /// Writes once to all. Microseconds until the first and until the last reader had it.
    pub async fn write(&mut self) -> anyhow::Result<(i64, i64)> {
        self.writes += 1;
        self.stdin.write_all(b"\n")?;
        let arrivals = tokio::select! {
            arrivals = self.arrivals.wait(self.writes) => arrivals?,
            Some(ended) = self.readers.join_next() => ended?.and_then(|()| bail!("the fan-out closed a connection"))?,
        };
        let began_us: i64 = line(&mut self.stdout)?.parse().context("the fan-out did not say when it began")?;
        let (first, last) = arrivals.iter().fold((i64::MAX, i64::MIN), |(first, last), at| (first.min(*at), last.max(*at)));
        Ok((first - began_us, last - began_us))
    }
}

fn line(stdout: &mut BufReader<ChildStdout>) -> anyhow::Result<String> {
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

async fn read(socket: Socket, bytes: usize, arrivals: Rc<Arrivals>) -> anyhow::Result<()> {
    let (mut nothing, mut buffer, mut have, mut writes) = (Vec::new(), vec![0; bytes], 0, 0);
    loop {
        let read = socket.exchange(&mut nothing, &mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        have += read;
        if have >= bytes {
            have -= bytes;
            writes += 1;
            arrivals.arrived(writes, now_us());
        }
    }
}
