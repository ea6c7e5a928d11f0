//! Watchers and changes against servers that somebody else started, for `instructions.sh`: it runs the sidecar under callgrind.

use std::net::SocketAddr;

use tokio::task::LocalSet;

use super::flags;
use super::from_one;
use super::propagate::change;
use super::socket::Address;
use super::watchers::Watchers;
use super::world::{admin, wait};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the sidecar listens
    #[arg(long)]
    sidecar: SocketAddr,

    /// The control plane that it follows; it holds the realistic flags
    #[arg(long, value_name = "URL")]
    control: String,

    #[arg(long, default_value_t = 100, value_parser = from_one())]
    watchers: usize,

    /// Changes, each made when every watcher has heard of the one before
    #[arg(long, default_value_t = 10, value_parser = from_one())]
    changes: usize,
}

/// How many changes were delivered to watchers.
pub fn run(args: Args) -> anyhow::Result<usize> {
    let Args { sidecar, control, watchers, changes } = args;
    wait(LocalSet::new().run_until(async {
        let mut admin = admin(&control).await?;
        let mut open = Watchers::open(&[Address::Tcp(sidecar)], watchers, 1, 0, &flags::key(0)).await?;
        for round in 0..changes {
            let revision = change(&mut admin, round).await?;
            open.everyone(revision).await?;
        }
        Ok(watchers * changes)
    }))
}
