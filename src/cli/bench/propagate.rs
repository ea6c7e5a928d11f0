//! From a commit to every pod and every watcher: how long, and what it costs.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use prost_types::Timestamp;
use tokio::task::LocalSet;
use tonic::transport::Channel;

use super::arrivals::now_us;
use super::flags;
use super::floor::fan_out::FanOut;
use super::from_one;
use super::process::on_core;
use super::report::{Figure, Machine, Report, Row};
use super::socket::Address;
use super::statistics::{Latency, median};
use super::watchers::Watchers;
use super::world::{Control, Sidecar, World, apply, wait};
use crate::control::DEFAULT_ENVIRONMENT;
use crate::wire::v1::admin_client::AdminClient;
use crate::wire::v1::{Intent, KillFlagRequest, ListPodsRequest, Position, RestoreFlagRequest};

/// The flag that is changed over and over.
const FLAG: usize = 0;
/// What a small commit of the store writes before it asks for the disk.
const COMMIT_BYTES: usize = 16 * 1024;
/// Between two rounds, so that acknowledgements and the disk's writes of one are not measured in the next.
const PAUSE: Duration = Duration::from_millis(5);
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Sidecars that follow the control plane
    #[arg(long, default_value_t = 1, value_parser = from_one())]
    pods: usize,

    /// Watchers that are measured, spread over the pods; several counts are measured one after the other
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000], value_parser = from_one())]
    watchers: Vec<usize>,

    /// Besides these, so many per cent of their number that stop reading
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=99))]
    stalled: u8,

    /// Watches on one connection
    #[arg(long, default_value_t = 1, value_parser = from_one())]
    streams: usize,

    /// Flags that the environment holds
    #[arg(long, default_value_t = 10_000, value_parser = from_one())]
    flags: usize,

    /// Changes that are measured, and kills
    #[arg(long, default_value_t = 30, value_parser = from_one())]
    rounds: usize,

    /// Where the servers keep their data [default: the directory of temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What a round found; times in microseconds.
#[derive(Debug, Default)]
struct Rounds {
    /// One entry a round and pod: from the call until readers of the pod see the change.
    visible: Vec<f64>,
    committed_to_visible: Vec<f64>,
    fsync: Vec<f64>,
    first: Vec<f64>,
    last: Vec<f64>,
    floor_first: Vec<f64>,
    floor_last: Vec<f64>,
    kill_to_last: Vec<f64>,
    cpu_of_delivery: Vec<f64>,
    stream_bytes: f64,
    change_bytes: usize,
}

pub fn run(args: Args) -> anyhow::Result<Report> {
    let Args { pods, watchers, stalled, streams, flags, rounds, dir } = args;
    let world = World::create(dir.as_deref())?;
    let control = world.control()?;
    control.apply_flags(flags)?;
    let mut report = Report {
        benchmark: "propagate",
        method: format!(
            "{pods} pods, {flags} flags, {streams} watches a connection, {stalled} % more that have stopped reading, {rounds} rounds of one \
             change, one kill, one restore and one floor"
        ),
        machine: Machine::look(world.cores),
        rows: Vec::new(),
        figures: Vec::new(),
    };
    for count in watchers {
        let found = on_core(world.client_core(), || {
            measure(&world, &control, &Sizes { pods, count, stalled: count * usize::from(stalled) / 100, streams, rounds })
        })
        .with_context(|| format!("{count} watchers"))?;
        let own_connections = streams == 1;
        describe(&mut report, count, pods, own_connections, found)?;
    }
    Ok(report)
}

struct Sizes {
    pods: usize,
    count: usize,
    stalled: usize,
    streams: usize,
    rounds: usize,
}

fn measure(world: &World, control: &Control, sizes: &Sizes) -> anyhow::Result<Rounds> {
    // Fresh processes: what an earlier group left in the allocator would count as memory of this one, or hide it.
    let most = (sizes.count + sizes.stalled + 100).to_string();
    let room = ["--max-connections".to_owned(), most.clone(), "--max-watchers".to_owned(), most];
    let sidecars =
        (0..sizes.pods).map(|pod| world.sidecar(&format!("pod-{}-{pod}", sizes.count), control, &room)).collect::<Result<Vec<_>, _>>()?;
    let work = LocalSet::new();
    let found = wait(work.run_until(rounds(world, control, &sidecars, sizes)))?;
    sidecars.into_iter().try_for_each(|sidecar| sidecar.server.stop())?;
    Ok(found)
}

async fn rounds(world: &World, control: &Control, sidecars: &[Sidecar], sizes: &Sizes) -> anyhow::Result<Rounds> {
    let mut found = Rounds::default();
    let &Sizes { count, stalled, streams, .. } = sizes;
    let addresses: Vec<_> = sidecars.iter().map(|sidecar| Address::Tcp(sidecar.tcp)).collect();

    let before = resident_bytes(sidecars)?;
    let mut watchers = Watchers::open(&addresses, count, streams, stalled, &flags::key(FLAG)).await?;
    found.stream_bytes = resident_bytes(sidecars)?.saturating_sub(before) as f64 / (watchers.reading + stalled) as f64;

    let mut admin = control.admin().await?;
    // Not measured: it warms up, and says how large a change is. Stalled watchers are stuck after a few of them.
    for round in 0..10 {
        let revision = change(&mut admin, round).await?;
        watchers.everyone(revision).await?;
    }
    found.change_bytes = watchers.change()?.1;
    let mut floor = FanOut::start(count, found.change_bytes, world.server_core(), &world.dir).await?;
    let disk = File::create(world.dir.join("fsync")).context("cannot write into the directory of the benchmark")?;
    for round in 0..sizes.rounds {
        one_change(&mut found, &mut admin, &mut watchers, sidecars, round).await?;
        tokio::time::sleep(PAUSE).await;
        let (first, last) = floor.write().await?;
        found.floor_first.push(first as f64);
        found.floor_last.push(last as f64);
        found.fsync.push(fsync(&disk)?);
        one_kill(&mut found, &mut admin, &mut watchers).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(found)
}

async fn one_change(
    found: &mut Rounds,
    admin: &mut AdminClient<Channel>,
    watchers: &mut Watchers,
    sidecars: &[Sidecar],
    round: usize,
) -> anyhow::Result<()> {
    let cpu = cpu(sidecars)?;
    let called_us = now_us();
    let revision = change(admin, round).await?;
    let arrivals = watchers.everyone(revision).await?;
    let spent = self::cpu(sidecars)?.saturating_sub(cpu);
    found.cpu_of_delivery.push(spent.as_secs_f64() * 1e6 / arrivals.len() as f64);

    let (change, _) = watchers.change()?;
    let origin_us = change.origin_time.as_ref().map_or(0, micros);
    let applied = applied(admin, sidecars, revision).await?;
    found.visible.extend(applied.iter().map(|at| (at - called_us) as f64));
    found.committed_to_visible.extend(applied.iter().map(|at| (at - origin_us) as f64));
    let visible_us = applied.into_iter().min().context("there are no pods")?;
    found.first.push((arrivals.iter().min().unwrap_or(&0) - visible_us) as f64);
    found.last.push((arrivals.iter().max().unwrap_or(&0) - visible_us) as f64);
    Ok(())
}

async fn one_kill(found: &mut Rounds, admin: &mut AdminClient<Channel>, watchers: &mut Watchers) -> anyhow::Result<()> {
    let called_us = now_us();
    let revision = kill(admin).await?;
    let arrivals = watchers.everyone(revision).await?;
    found.kill_to_last.push((arrivals.iter().max().unwrap_or(&0) - called_us) as f64);
    tokio::time::sleep(PAUSE).await;
    let revision = restore(admin).await?;
    watchers.everyone(revision).await?;
    Ok(())
}

/// Commits another weight of the split; its revision.
pub async fn change(admin: &mut AdminClient<Channel>, round: usize) -> anyhow::Result<u64> {
    let mut definition = flags::definition(FLAG);
    definition["description"] = format!("Change {round} of the benchmark").into();
    definition["rules"][2]["split"]["weights"]["on"] = (1 + round % 90).into();
    let document = serde_json::json!({ "flags": { flags::key(FLAG): definition } });
    let response = apply(admin, document).await?;
    ensure!(response.changed, "a change changed nothing");
    Ok(revision(response.position))
}

fn revision(position: Option<Position>) -> u64 {
    position.map_or(0, |position| position.revision)
}

fn intent() -> Option<Intent> {
    Some(Intent { actor: "bench".to_owned(), reason: "measure".to_owned(), expect_revision: None })
}

async fn kill(admin: &mut AdminClient<Channel>) -> anyhow::Result<u64> {
    let request = KillFlagRequest { environment: DEFAULT_ENVIRONMENT.to_owned(), key: flags::key(FLAG), intent: intent() };
    Ok(revision(admin.kill_flag(request).await?.into_inner().position))
}

async fn restore(admin: &mut AdminClient<Channel>) -> anyhow::Result<u64> {
    let request =
        RestoreFlagRequest { environment: DEFAULT_ENVIRONMENT.to_owned(), key: flags::key(FLAG), percent: None, intent: intent() };
    Ok(revision(admin.restore_flag(request).await?.into_inner().position))
}

/// When each pod says that the revision became visible to its readers.
async fn applied(admin: &mut AdminClient<Channel>, sidecars: &[Sidecar], revision: u64) -> anyhow::Result<Vec<i64>> {
    let asked = Instant::now();
    loop {
        let pods = admin.list_pods(ListPodsRequest { environment: DEFAULT_ENVIRONMENT.to_owned() }).await?.into_inner().pods;
        let at = |sidecar: &Sidecar| {
            let pod = pods.iter().find(|pod| pod.connected && pod.identity.as_ref().is_some_and(|identity| identity.pod == sidecar.pod))?;
            let holds = pod.position.is_some_and(|position| position.revision >= revision);
            pod.applied_at.as_ref().filter(|_| holds).map(micros)
        };
        if let Some(applied) = sidecars.iter().map(at).collect() {
            return Ok(applied);
        }
        if asked.elapsed() > ACKNOWLEDGED_WITHIN {
            bail!("not every pod has acknowledged revision {revision} within {} s", ACKNOWLEDGED_WITHIN.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What the disk takes to make a small commit durable, in microseconds.
fn fsync(disk: &File) -> anyhow::Result<f64> {
    let page = vec![now_us() as u8; COMMIT_BYTES];
    let started = Instant::now();
    disk.write_all_at(&page, 0)?;
    disk.sync_data()?;
    Ok(started.elapsed().as_secs_f64() * 1e6)
}

fn describe(report: &mut Report, count: usize, pods: usize, own_connections: bool, found: Rounds) -> anyhow::Result<()> {
    let Rounds { visible, committed_to_visible, fsync, first, last, floor_first, floor_last, kill_to_last, .. } = &found;
    let ratio = median(last.iter().zip(floor_last).map(|(last, floor)| last / floor)).context("nothing was measured")?;
    for (what, samples) in [
        (format!("{count} watchers: call -> visible on a pod"), visible),
        (format!("{count} watchers: commit stamped -> visible on a pod"), committed_to_visible),
        ("16 KiB write and fdatasync".to_owned(), fsync),
        (format!("{count} watchers: visible -> first watcher"), first),
        (format!("{count} watchers: visible -> last watcher"), last),
        (format!("write() loop to {count}: first"), floor_first),
        (format!("write() loop to {count}: last"), floor_last),
        (format!("{count} watchers: kill called -> last watcher"), kill_to_last),
    ] {
        report.rows.push(row(what, samples)?);
    }
    if pods == 1 {
        let beyond = median(visible.iter().copied()).unwrap_or_default() - median(fsync.iter().copied()).unwrap_or_default();
        report.figures.push(Figure::new("call -> visible on a sidecar, p50 beyond fdatasync", beyond / 1e3, "ms", Some(2.0)));
    }
    let bar = |bar: f64| (pods == 1 && own_connections).then_some(bar);
    report.figures.push(Figure::new(format!("last of {count} watchers / write() loop to as many"), ratio, "ratio", bar(1.5)));
    let cpu = median(found.cpu_of_delivery.iter().copied()).unwrap_or_default();
    report.figures.push(Figure::new(format!("CPU per delivery to {count} watchers"), cpu, "us", None));
    report.figures.push(Figure::new(format!("memory per stream of {count} watchers"), found.stream_bytes / 1e3, "KB", None));
    report.figures.push(Figure::new("bytes of a change on the wire to a watcher", found.change_bytes as f64, "B", None));
    Ok(())
}

fn row(what: String, samples: &[f64]) -> anyhow::Result<Row> {
    // The clocks of two processes may differ by less than one measures, and then a time can come out below zero.
    let samples = samples.iter().map(|us| Duration::from_secs_f64(us.max(0.0) / 1e6)).collect();
    let Latency { p50_us, p99_us, max_us, .. } = Latency::of(samples).context("nothing was measured")?;
    Ok(Row { what, values: vec![("p50 us", p50_us), ("p99 us", p99_us), ("last us", max_us)] })
}

fn micros(at: &Timestamp) -> i64 {
    at.seconds * 1_000_000 + i64::from(at.nanos) / 1000
}

fn cpu(sidecars: &[Sidecar]) -> anyhow::Result<Duration> {
    sidecars.iter().map(|sidecar| sidecar.server.cpu()).sum()
}

fn resident_bytes(sidecars: &[Sidecar]) -> anyhow::Result<u64> {
    sidecars.iter().map(|sidecar| sidecar.server.resident_bytes()).sum()
}
