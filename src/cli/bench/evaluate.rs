//! Unary, batch and stream evaluations at several depths, by TCP and by a Unix socket, each with the floors that it is compared with in
//! the same round.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::floor::{self, ping_pong};
use super::from_one;
use super::http2::Question;
use super::load::{Load, Outcome, Traffic, framed};
use super::process::{Server, on_core};
use super::questions::{self, BATCH, Method};
use super::report::{Figure, Machine, Report, Row};
use super::socket::Address;
use super::statistics::{Latency, median};
use super::world::{Sidecar, World};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What is asked; all when none is given
    #[arg(long = "method", value_enum)]
    methods: Vec<Method>,

    /// Connections x questions in flight on each, as in 8x8
    #[arg(long = "load", value_name = "CxN", value_parser = parse_depth, default_values = ["1x1", "1x64", "8x8", "64x1"], value_delimiter = ',')]
    depths: Vec<Depth>,

    /// Over which transport; both when none is given
    #[arg(long = "transport", value_enum)]
    transports: Vec<Transport>,

    /// Flags that the sidecar holds
    #[arg(long, default_value_t = 10_000, value_parser = from_one())]
    flags: usize,

    /// Of these, how many the questions go over: what one application asks for. With all of them, every answer comes from cold memory
    #[arg(long, default_value_t = 100, value_parser = from_one())]
    asked: usize,

    /// Times that everything is measured, one after the other
    #[arg(long, default_value_t = 5, value_parser = from_one())]
    rounds: usize,

    /// Milliseconds that each run is measured, after a fifth of that to warm up
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    milliseconds: u64,

    /// Where the servers keep their data [default: the directory of temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Depth {
    connections: usize,
    in_flight: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
enum Transport {
    Tcp,
    Socket,
}

/// One thing that is measured in every round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    who: Who,
    transport: Transport,
    depth: Depth,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    PingPong,
    Hello,
    Echo(Method),
    Yardarm(Method),
}

const ONE: Depth = Depth { connections: 1, in_flight: 1 };
const DEEP: Depth = Depth { connections: 1, in_flight: 64 };
const WIDE: Depth = Depth { connections: 8, in_flight: 8 };

/// What listens where, for one round after the other.
struct Scene {
    sidecar: Sidecar,
    ping_pong: (Server, floor::Listening),
    hello: (Server, floor::Listening),
    echo: (Server, floor::Listening),
    /// What one unary question and its answer have on the wire, so that the ping-pong carries as much.
    question_bytes: usize,
    answer_bytes: usize,
}

pub fn run(args: Args) -> anyhow::Result<Report> {
    let Args { methods, depths, transports, flags, asked, rounds, milliseconds, dir } = args;
    let methods = if methods.is_empty() { Method::ALL.to_vec() } else { methods };
    let asked = asked.min(flags);
    ensure!(
        asked >= BATCH || !methods.contains(&Method::Batch),
        "a batch asks for {BATCH} flags at once, and there are {asked}: give --flags and --asked {BATCH} or more, or other methods with --method"
    );
    let transports = if transports.is_empty() { vec![Transport::Tcp, Transport::Socket] } else { transports };
    let measured = Duration::from_millis(milliseconds);

    let world = World::create(dir.as_deref())?;
    let control = world.control()?;
    control.apply_flags(flags)?;
    let scene = Scene::set(&world, world.sidecar("pod-0", &control, &[])?)?;
    let runs = plan(&methods, &depths, &transports);
    let mut results: BTreeMap<Run, Vec<Outcome>> = BTreeMap::new();
    for _ in 0..rounds {
        for run in &runs {
            let outcome = on_core(world.client_core(), || scene.measure(*run, asked, measured)).with_context(|| run.name())?;
            results.entry(*run).or_default().push(outcome);
        }
    }
    Ok(Report {
        benchmark: "evaluate",
        method: format!("{flags} flags, {asked} of them asked for, medians of {rounds} interleaved rounds of {milliseconds} ms"),
        machine: Machine::look(world.cores),
        rows: runs.iter().filter_map(|run| row(*run, results.get(run)?)).collect(),
        figures: figures(&results),
    })
}

/// Each run of ours with its floors around it.
fn plan(methods: &[Method], depths: &[Depth], transports: &[Transport]) -> Vec<Run> {
    let mut runs = Vec::new();
    for &transport in transports {
        for &depth in depths {
            if depth == ONE {
                runs.push(Run { who: Who::PingPong, transport, depth });
            }
            runs.push(Run { who: Who::Hello, transport, depth });
            for &method in methods {
                runs.push(Run { who: Who::Echo(method), transport, depth });
                runs.push(Run { who: Who::Yardarm(method), transport, depth });
            }
        }
    }
    runs
}

impl Scene {
    fn set(world: &World, sidecar: Sidecar) -> anyhow::Result<Self> {
        // Frame headers, seven bytes of header block; an answer has status, data and trailers.
        let question_bytes = 9 + 7 + 9 + framed(&prost::Message::encode_to_vec(&questions::request(0, 0))).len();
        let answer_bytes = 100;
        let sizes = ["--question-bytes".to_owned(), question_bytes.to_string(), "--answer-bytes".to_owned(), answer_bytes.to_string()];
        let start = |name: &str, options: &[String]| floor::start(name, options, world.server_core(), &world.dir);
        Ok(Self {
            sidecar,
            ping_pong: start("ping-pong", &sizes)?,
            hello: start("hello", &[])?,
            echo: start("echo", &[])?,
            question_bytes,
            answer_bytes,
        })
    }

    fn measure(&self, run: Run, asked: usize, measured: Duration) -> anyhow::Result<Outcome> {
        let Run { who, transport, depth: Depth { connections, in_flight } } = run;
        let warm_up = measured / 5;
        let (server, addresses) = match who {
            Who::PingPong => (&self.ping_pong.0, self.ping_pong.1.addresses()),
            Who::Hello => (&self.hello.0, self.hello.1.addresses()),
            Who::Echo(_) => (&self.echo.0, self.echo.1.addresses()),
            Who::Yardarm(_) => (&self.sidecar.server, self.sidecar.addresses()),
        };
        let [tcp, unix] = addresses;
        let address = match transport {
            Transport::Tcp => tcp,
            Transport::Socket => unix,
        };
        let load = |question, traffic| Load { address: address.clone(), question, traffic, connections, in_flight, warm_up, measured };
        match who {
            Who::PingPong => self.ping(&address, warm_up, measured),
            Who::Hello => load(Question::Hello, Traffic::Hello).run(|| server.cpu()),
            Who::Echo(method) | Who::Yardarm(method) => load(method.question(), method.traffic(asked)).run(|| server.cpu()),
        }
    }

    fn ping(&self, address: &Address, warm_up: Duration, measured: Duration) -> anyhow::Result<Outcome> {
        let cpu = self.ping_pong.0.cpu()?;
        let (latency, answers) = ping_pong::ask(address, self.question_bytes, self.answer_bytes, warm_up, measured)?;
        // The warm-up counts too: it is the same work.
        let all = answers as f64 * (warm_up + measured).as_secs_f64() / measured.as_secs_f64();
        let cpu_us = self.ping_pong.0.cpu()?.saturating_sub(cpu).as_secs_f64() * 1e6 / all;
        Ok(Outcome { per_second: answers as f64 / measured.as_secs_f64(), latency, cpu_us })
    }
}

fn row(run: Run, outcomes: &[Outcome]) -> Option<Row> {
    let of = |figure: fn(&Outcome) -> f64| median(outcomes.iter().map(figure));
    let Latency { p50_us, p99_us, p999_us, .. } = Latency::median(&outcomes.iter().map(|outcome| outcome.latency).collect::<Vec<_>>())?;
    let values = vec![
        ("answers/s", of(|outcome| outcome.per_second)?),
        ("CPU us", of(|outcome| outcome.cpu_us)?),
        ("p50 us", p50_us),
        ("p99 us", p99_us),
        ("p99.9 us", p999_us),
    ];
    Some(Row { what: run.name(), values })
}

/// Ratios of what was measured in the same round, as the median over the rounds.
fn figures(results: &BTreeMap<Run, Vec<Outcome>>) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut ratio = |what: String, of: Run, to: Run, figure: fn(&Outcome) -> f64, share: f64, bar: Option<f64>| {
        let rounds = results.get(&of).zip(results.get(&to));
        let ratios = rounds.map(|(of, to)| of.iter().zip(to).map(|(of, to)| share * figure(of) / figure(to)).collect::<Vec<_>>());
        if let Some(value) = ratios.and_then(median) {
            figures.push(Figure::new(what, value, "ratio", bar));
        }
    };
    let p50 = |outcome: &Outcome| outcome.latency.p50_us;
    let cpu = |outcome: &Outcome| outcome.cpu_us;
    for transport in [Transport::Tcp, Transport::Socket] {
        let at = |who, depth| Run { who, transport, depth };
        let unary = |depth| at(Who::Yardarm(Method::Unary), depth);
        let name = transport.name();
        // The bars are those of TCP; a Unix socket has a faster floor and the same server behind it.
        let bar = |bar| (transport == Transport::Tcp).then_some(bar);
        ratio(format!("unary p50 at 1 in flight / blocking ping-pong p50, {name}"), unary(ONE), at(Who::PingPong, ONE), p50, 1.0, bar(1.8));
        ratio(format!("unary CPU / hyper HTTP/2 hello CPU at 8x8, {name}"), unary(WIDE), at(Who::Hello, WIDE), cpu, 1.0, bar(2.0));
        ratio(format!("unary CPU / tonic echo CPU at 8x8, {name}"), unary(WIDE), at(Who::Echo(Method::Unary), WIDE), cpu, 1.0, None);
        ratio(format!("stream CPU / unary CPU at 1x64, {name}"), at(Who::Yardarm(Method::Stream), DEEP), unary(DEEP), cpu, 1.0, bar(0.25));
        let batch = at(Who::Yardarm(Method::Batch), DEEP);
        ratio(
            format!("batch of {BATCH}, CPU per flag / unary CPU at 1x64, {name}"),
            batch,
            unary(DEEP),
            cpu,
            1.0 / BATCH as f64,
            bar(0.08),
        );
    }
    figures
}

impl Run {
    fn name(self) -> String {
        let Self { who, transport, depth: Depth { connections, in_flight } } = self;
        let who = match who {
            Who::PingPong => "blocking ping-pong".to_owned(),
            Who::Hello => "hyper HTTP/2 hello".to_owned(),
            Who::Echo(method) => format!("tonic echo, {}", method.name()),
            Who::Yardarm(method) => format!("Yardarm, {}", method.name()),
        };
        format!("{who}, {connections}x{in_flight}, {}", transport.name())
    }
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Socket => "Unix socket",
        }
    }
}

fn parse_depth(text: &str) -> Result<Depth, String> {
    let depth = text
        .split_once('x')
        .and_then(|(connections, in_flight)| Some(Depth { connections: connections.parse().ok()?, in_flight: in_flight.parse().ok()? }));
    depth
        .filter(|depth| depth.connections > 0 && depth.in_flight > 0)
        .ok_or_else(|| format!("`{text}` is no load: expected CONNECTIONSxIN_FLIGHT, for example 8x8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_two_counts_from_one() {
        assert_eq!(parse_depth("8x64"), Ok(Depth { connections: 8, in_flight: 64 }));
        for wrong in ["", "8", "0x1", "1x0", "x", "-1x2", "8x8x8"] {
            assert!(parse_depth(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_default_plan_feeds_every_bar() {
        let outcome = Outcome { per_second: 1.0, latency: Latency { p50_us: 1.0, p99_us: 1.0, p999_us: 1.0, max_us: 1.0 }, cpu_us: 1.0 };
        let runs = plan(&Method::ALL, &[ONE, DEEP, WIDE], &[Transport::Tcp]);
        let results = runs.into_iter().map(|run| (run, vec![outcome])).collect();
        let bars: Vec<_> = figures(&results).into_iter().filter_map(|figure| figure.bar).collect();
        assert_eq!(bars, [1.8, 2.0, 0.25, 0.08]);
    }
}
