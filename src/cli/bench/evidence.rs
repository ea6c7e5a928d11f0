//! What counting exposures costs: the same questions about flags with a metric and about flags without, in one sidecar.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use prost::Message as _;
use serde_json::{Map, Value as Json, json};

use super::flags;
use super::from_one;
use super::load::{Load, Outcome, Traffic};
use super::process::on_core;
use super::questions::{self, Method};
use super::report::{Figure, Machine, Report, Row};
use super::statistics::median;
use super::world::{World, apply, wait};
use crate::wire::v1::EvaluateRequest;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Flags of each kind
    #[arg(long, default_value_t = 100, value_parser = from_one())]
    flags: usize,

    /// Different users of the run in which nearly every question is a new exposure
    #[arg(long, default_value_t = 300_000, value_parser = from_one())]
    users: usize,

    /// Times that everything is measured, one after the other
    #[arg(long, default_value_t = 9, value_parser = from_one())]
    rounds: usize,

    /// Milliseconds that each run is measured, after a fifth of that to warm up
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    milliseconds: u64,

    /// Where the servers keep their data [default: the directory of temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Users of the run in which units come back, as people do.
const FEW_USERS: usize = 1_024;
const CONNECTIONS: usize = 8;
const IN_FLIGHT: usize = 8;
const BAR: f64 = 1.15;

fn key(number: usize, is_measured: bool) -> String {
    let key = flags::key(number);
    if is_measured { format!("measured.{key}") } else { key }
}

fn document(count: usize) -> Json {
    let mut document = Map::new();
    for number in 0..count {
        let mut definition = flags::definition(number);
        document.insert(key(number, false), definition.clone());
        definition["metrics"] = json!({ "errors": { "kind": "binomial", "direction": "lower" } });
        document.insert(key(number, true), definition);
    }
    json!({ "flags": document })
}

fn traffic(flags: usize, users: usize, is_measured: bool) -> Traffic {
    let message = |user: usize| {
        let flag = user * 7919 % flags;
        EvaluateRequest { flag_key: key(flag, is_measured), ..questions::request(flag, user) }.encode_to_vec()
    };
    Traffic::Calls { messages: (0..users).map(message).collect(), check: questions::check_unary }
}

pub fn run(args: Args) -> anyhow::Result<Report> {
    let Args { flags, users, rounds, milliseconds, dir } = args;
    let measured = Duration::from_millis(milliseconds);
    let world = World::create(dir.as_deref())?;
    let control = world.control()?;
    wait(async { apply(&mut control.admin().await?, document(flags)).await })?;
    let sidecar = world.sidecar("pod-0", &control, &[])?;
    let [address, _] = sidecar.addresses();
    let runs = [
        ("without metrics, units that come back", traffic(flags, FEW_USERS, false)),
        ("with exposure counting, units that come back", traffic(flags, FEW_USERS, true)),
        ("without metrics, new units", traffic(flags, users, false)),
        ("with exposure counting, new units", traffic(flags, users, true)),
    ];
    let mut outcomes: [Vec<Outcome>; 4] = Default::default();
    for _ in 0..rounds {
        for ((name, traffic), outcomes) in runs.iter().zip(&mut outcomes) {
            let load = Load {
                address: address.clone(),
                question: Method::Unary.question(),
                traffic: traffic.clone(),
                connections: CONNECTIONS,
                in_flight: IN_FLIGHT,
                warm_up: measured / 5,
                measured,
            };
            outcomes.push(on_core(world.client_core(), || load.run(|| sidecar.server.cpu())).with_context(|| (*name).to_owned())?);
        }
    }
    let of = |outcomes: &[Outcome], figure: fn(&Outcome) -> f64| median(outcomes.iter().map(figure)).unwrap_or_default();
    let row = |((name, _), outcomes): (&(&str, Traffic), &Vec<Outcome>)| Row {
        what: (*name).to_owned(),
        values: vec![
            ("answers/s", of(outcomes, |outcome| outcome.per_second)),
            ("CPU us", of(outcomes, |outcome| outcome.cpu_us)),
            ("p50 us", of(outcomes, |outcome| outcome.latency.p50_us)),
            ("p99 us", of(outcomes, |outcome| outcome.latency.p99_us)),
        ],
    };
    let ratio = |with: usize, without: usize| {
        median(outcomes[with].iter().zip(&outcomes[without]).map(|(with, without)| with.cpu_us / without.cpu_us))
    };
    let figure = |what, value: Option<f64>, bar| value.map(|value| Figure::new(what, value, "ratio", bar));
    let figures = [
        figure("Evaluate with exposure counting / without, CPU, units that come back", ratio(1, 0), Some(BAR)),
        figure("Evaluate with exposure counting / without, CPU, new units", ratio(3, 2), None),
    ];
    Ok(Report {
        benchmark: "evidence",
        method: format!(
            "{flags} flags of each kind, {CONNECTIONS}x{IN_FLIGHT} by TCP, {FEW_USERS} users that come back and {users} in turn, CPU of the whole sidecar, medians of {rounds} interleaved rounds of {milliseconds} ms"
        ),
        machine: Machine::look(world.cores),
        rows: runs.iter().zip(&outcomes).map(row).collect(),
        figures: figures.into_iter().flatten().collect(),
    })
}
