//! How long a pod is without flags when its sidecar restarts while the control plane is dead: from the start of the process to the first
//! good answer, from what lies on disk.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use prost::Message as _;

use super::from_one;
use super::http2::{Connection, Event, Window};
use super::load::{framed, unframed};
use super::process::{Server, on_core};
use super::questions::{self, Method};
use super::report::{Figure, Machine, Report, Row};
use super::socket::{Address, Socket};
use super::statistics::Latency;
use super::world::{World, wait};
use crate::wire::v1::EvaluateResponse;

const SERVES_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Flags that the sidecar holds
    #[arg(long, default_value_t = 10_000, value_parser = from_one())]
    flags: usize,

    /// Restarts
    #[arg(long, default_value_t = 10, value_parser = from_one())]
    rounds: usize,

    /// Where the servers keep their data [default: the directory of temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<Report> {
    let Args { flags, rounds, dir } = args;
    let world = World::create(dir.as_deref())?;
    let control = world.control()?;
    control.apply_flags(flags)?;
    let sidecar = world.sidecar("pod-0", &control, &[])?;
    let (unix, args) = (sidecar.unix.clone(), sidecar.args.clone());
    sidecar.server.stop()?;
    control.server.kill()?;

    let (mut by_stop, mut by_kill) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let (server, took) = on_core(world.client_core(), || first_answer(&world, &args, &unix, flags))?;
        // Half of them end in order, half as after an out-of-memory kill.
        if round % 2 == 0 {
            server.stop()?;
            by_stop.push(took);
        } else {
            server.kill()?;
            by_kill.push(took);
        }
    }
    let program = program_start(&world)?;
    let all = Latency::of([by_stop, by_kill].concat()).context("there were no rounds")?;
    let row = |what: &str, Latency { p50_us, max_us, .. }: Latency| Row {
        what: what.to_owned(),
        values: vec![("p50 ms", p50_us / 1e3), ("slowest ms", max_us / 1e3)],
    };
    Ok(Report {
        benchmark: "restart",
        method: format!("{flags} flags on disk, nobody at the control plane's address, {rounds} restarts"),
        machine: Machine::look(world.cores),
        rows: vec![row("process start -> first good answer", all), row("process start -> end of `yardarm --version`", program)],
        figures: vec![Figure::new(format!("serving {flags} flags from disk, p50"), all.p50_us / 1e3, "ms", Some(50.0))],
    })
}

/// Starts the sidecar and asks until it answers.
fn first_answer(world: &World, args: &[String], unix: &Path, flags: usize) -> anyhow::Result<(Server, Duration)> {
    let started = Instant::now();
    let mut server = Server::start("pod-0", args, world.server_core(), &world.dir)?;
    let address = Address::Unix(unix.to_path_buf());
    let took = server.wait_until(SERVES_WITHIN, || wait(ask(&address, flags - 1)).ok().map(|()| started.elapsed()))?;
    Ok((server, took))
}

/// One question about the last flag; fails while nobody listens.
async fn ask(address: &Address, flag: usize) -> anyhow::Result<()> {
    let socket = Socket::connect(address).await?;
    let mut connection = Connection::new(&Method::Unary.question(), Window::Wide);
    connection.ask(&framed(&questions::request(flag, 0).encode_to_vec())).context("a fresh connection has no room for one question")?;
    let (mut buffer, mut answer, mut done) = (vec![0; 4096], Vec::new(), false);
    while !done {
        let read = socket.exchange(&mut connection.outbox, &mut buffer).await?;
        if read == 0 {
            bail!("the sidecar hung up");
        }
        connection.received(&buffer[..read], |event| match event {
            Event::Data { bytes, .. } => answer.extend_from_slice(bytes),
            Event::End { .. } => done = true,
        })?;
    }
    let (message, _) = unframed(&answer).context("the call failed")?;
    questions::check_decision(EvaluateResponse::decode(message)?.decision)
}

/// What any start of this executable takes: the loader, the allocator, the arguments.
fn program_start(world: &World) -> anyhow::Result<Latency> {
    let once = |_| -> anyhow::Result<Duration> {
        let started = Instant::now();
        let mut server = Server::start("version", &["--version"], world.server_core(), &world.dir)?;
        server.first_line()?;
        Ok(started.elapsed())
    };
    Latency::of((0..10).map(once).collect::<Result<_, _>>()?).context("nothing was started")
}
