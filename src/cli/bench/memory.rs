//! Resident memory of a sidecar: idle, with flags, and for each watcher.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use tokio::task::LocalSet;

use super::flags;
use super::from_one;
use super::process::on_core;
use super::report::{Figure, Machine, Report, Row};
use super::socket::Address;
use super::watchers::Watchers;
use super::world::{Control, Sidecar, World, wait};
use crate::wire::v1::evaluation_client::EvaluationClient;
use crate::wire::v1::{EvaluateBatchRequest, FlagSelector};

/// The bars are in these, and not in MiB and KiB.
const MB: f64 = 1e6;
const KB: f64 = 1e3;
/// A sidecar gives back what a start leaves behind within seconds (`replica/follow/tidy.rs`).
const SETTLE: Duration = Duration::from_secs(12);

/// Flags that an application asks for.
const ASKED: usize = 100;
/// Of every flag of the largest environment.
const LARGEST_ANSWER: usize = 8 * 1024 * 1024;

/// Flags that are there while watchers are counted.
const FEW: usize = 10;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Flags that the sidecar holds
    #[arg(long, default_value_t = 10_000, value_parser = from_one())]
    flags: usize,

    /// Watchers: on connections of their own, and multiplexed on as few as a hundred a connection allow
    #[arg(long, default_value_t = 1000, value_parser = from_one())]
    watchers: usize,

    /// Where the servers keep their data [default: the directory of temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<Report> {
    let Args { flags, watchers, dir } = args;
    let world = World::create(dir.as_deref())?;
    let control = world.control()?;
    // Fresh processes everywhere: what one left in the allocator would hide what the next one takes.
    let idle = settled(world.sidecar("idle", &control, &[])?)?;
    // Watchers among few flags: what is left over from loading many could take them in unseen.
    control.apply_flags(FEW)?;
    let own = per_watcher(&world, &control, "own", watchers, 1)?;
    let multiplexed = per_watcher(&world, &control, "multiplexed", watchers, 100)?;
    control.apply_flags(flags)?;
    let synced = settled(world.sidecar("full", &control, &[])?)?;
    let restarted = settled(world.sidecar("full", &control, &[])?)?;
    let changed = after_changes(&world, &control)?;
    // What one application asks for, and what none does: a flag that nobody asked for is not compiled.
    let used = after_questions(&world, &control, (0..ASKED.min(flags)).map(flags::key).collect())?;
    let all_used = after_questions(&world, &control, Vec::new())?;

    let row = |what: &str, bytes: f64| Row { what: what.to_owned(), values: vec![("MB", bytes / MB)] };
    Ok(Report {
        benchmark: "memory",
        method: format!("VmRSS of a sidecar {} ms after it was ready", SETTLE.as_millis()),
        machine: Machine::look(world.cores),
        rows: vec![
            row("idle", idle),
            row(&format!("{flags} flags from the control plane"), synced),
            row(&format!("{flags} flags from disk"), restarted),
            row(&format!("{flags} flags after 200 changes"), changed),
            row(&format!("{flags} flags, {} of them asked for", ASKED.min(flags)), used),
            row(&format!("{flags} flags, all of them asked for"), all_used),
        ],
        figures: vec![
            Figure::new("idle", idle / MB, "MB", Some(15.0)),
            Figure::new(
                format!("{flags} realistic flags, in all"),
                [synced, restarted, changed, used].into_iter().fold(0.0, f64::max) / MB,
                "MB",
                Some(30.0),
            ),
            Figure::new("a watcher on its own connection", own / KB, "KB", Some(48.0)),
            Figure::new("a watcher among 100 on a connection", multiplexed / KB, "KB", Some(9.0)),
        ],
    })
}

fn settled(sidecar: Sidecar) -> anyhow::Result<f64> {
    std::thread::sleep(SETTLE);
    let bytes = sidecar.server.resident_bytes()?;
    sidecar.server.stop()?;
    Ok(bytes as f64)
}

fn after_changes(world: &World, control: &Control) -> anyhow::Result<f64> {
    let sidecar = world.sidecar("changed", control, &[])?;
    wait(async {
        let mut admin = control.admin().await?;
        for round in 0..200 {
            super::propagate::change(&mut admin, round).await?;
        }
        Ok(())
    })?;
    settled(sidecar)
}

/// All of them when none is named.
fn after_questions(world: &World, control: &Control, keys: Vec<String>) -> anyhow::Result<f64> {
    let sidecar = world.sidecar("asked", control, &[])?;
    wait(async {
        let mut client = EvaluationClient::connect(format!("http://{}", sidecar.tcp)).await?.max_decoding_message_size(LARGEST_ANSWER);
        let selector = Some(FlagSelector { keys, ..FlagSelector::default() });
        let answer = client.evaluate_batch(EvaluateBatchRequest { selector, context: None }).await?.into_inner();
        ensure!(!answer.decisions.is_empty(), "no flag was decided");
        Ok(())
    })?;
    settled(sidecar)
}

/// What one watcher adds once it has its snapshot, in bytes.
fn per_watcher(world: &World, control: &Control, pod: &str, count: usize, streams: usize) -> anyhow::Result<f64> {
    let room = ["--max-connections".to_owned(), (count + 100).to_string(), "--max-watchers".to_owned(), (count + 100).to_string()];
    let sidecar = world.sidecar(pod, control, &room)?;
    std::thread::sleep(SETTLE);
    let before = sidecar.server.resident_bytes()?;
    let after = on_core(world.client_core(), || {
        let addresses = [Address::Tcp(sidecar.tcp)];
        wait(LocalSet::new().run_until(async {
            let mut watchers = Watchers::open(&addresses, count, streams, 0, &flags::key(0)).await?;
            let mut admin = control.admin().await?;
            // Everything that a watcher ever needs is there once it has been told of a change, which each pod gets another of.
            let revision = super::propagate::change(&mut admin, streams).await?;
            watchers.everyone(revision).await?;
            sidecar.server.resident_bytes()
        }))
    })?;
    sidecar.server.stop()?;
    Ok(after.saturating_sub(before) as f64 / count as f64)
}
