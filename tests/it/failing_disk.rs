//! The embedded store on a disk that refuses to write, and on one whose power goes.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use redb::{Database, StorageBackend};
use yardarm::control::ledger::{Error, Retention};
use yardarm::control::store::{self, Batch, Embedded, Store};

use crate::ledger::world::*;

/// What is on the platter, and what is only on its way there.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    durable: Vec<u8>,
    /// Written and not synced: where, and what.
    pending: Vec<(usize, Vec<u8>)>,
    current: Vec<u8>,
    is_full: bool,
    /// Power cuts so far. Whoever opened the disk before one writes no more.
    cuts: usize,
    syncs: usize,
}

#[derive(Debug)]
struct Medium {
    disk: Disk,
    cuts: usize,
}

impl Disk {
    fn open(&self) -> Embedded {
        let disk = self.clone();
        let open = move || {
            let cuts = disk.0.lock().cuts;
            Database::builder().create_with_backend(Medium { disk: disk.clone(), cuts })
        };
        Embedded::on(PathBuf::from("a disk of the test"), open).unwrap()
    }

    fn set_full(&self, is_full: bool) {
        self.0.lock().is_full = is_full;
    }

    /// What was synced stays; of the rest each write comes whole, torn or not at all.
    fn cut_the_power(&self, random: &mut StdRng) {
        let mut platter = self.0.lock();
        platter.cuts += 1;
        let mut left = std::mem::take(&mut platter.durable);
        for (at, mut bytes) in std::mem::take(&mut platter.pending) {
            match random.random_range(0..3) {
                0 => continue,
                1 => bytes.truncate(random.random_range(0..=bytes.len())),
                _ => {}
            }
            put(&mut left, at, &bytes);
        }
        platter.current = left.clone();
        platter.durable = left;
    }
}

fn put(platter: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if platter.len() < at + bytes.len() {
        platter.resize(at + bytes.len(), 0);
    }
    platter[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Medium {
    fn platter(&self) -> io::Result<parking_lot::MutexGuard<'_, Platter>> {
        let platter = self.disk.0.lock();
        if platter.cuts != self.cuts {
            return Err(io::Error::other("the power is gone"));
        }
        Ok(platter)
    }

    fn writable(&self) -> io::Result<parking_lot::MutexGuard<'_, Platter>> {
        let platter = self.platter()?;
        if platter.is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(platter) }
    }
}

impl StorageBackend for Medium {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter()?.current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (platter, at) = (self.platter()?, offset as usize);
        let found = platter.current.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut platter = self.writable()?;
        platter.current.resize(length as usize, 0);
        // The length is metadata of the file system, which fdatasync writes with the data; here it is durable at once.
        platter.durable.resize(length as usize, 0);
        platter.pending.retain(|(at, bytes)| at + bytes.len() <= length as usize);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.writable()?;
        platter.pending.clear();
        platter.durable = platter.current.clone();
        platter.syncs += 1;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.writable()?;
        put(&mut platter.current, offset as usize, data);
        platter.pending.push((offset as usize, data.to_vec()));
        Ok(())
    }
}

#[tokio::test]
async fn no_acknowledged_commit_is_lost_when_the_power_goes() {
    let (disk, mut random) = (Disk::default(), StdRng::seed_from_u64(7));
    let mut version = 0;
    for round in 0..60 {
        let store = Arc::new(disk.open());
        let view = store.view().await.unwrap();
        let found = view.version();
        assert!(found == version || found == version + 1, "round {round}: {version} was acknowledged, found {found}");
        if found > 0 {
            assert_eq!(view.get("newest").await.unwrap(), Some(Bytes::from(found.to_string())), "round {round}");
        }
        drop(view);
        version = found;
        let batch = |version: u64, size| {
            let mut batch = Batch::default();
            batch.put(format!("key/{version}"), vec![version as u8; size]);
            batch.put("newest", version.to_string());
            batch
        };
        for _ in 0..random.random_range(1..6) {
            version = store.commit(version, batch(version + 1, random.random_range(0..20_000))).await.unwrap();
        }
        // One more commit may be under way.
        let last = tokio::spawn({
            let (store, batch) = (Arc::clone(&store), batch(version + 1, 5_000));
            async move { store.commit(version, batch).await }
        });
        for _ in 0..random.random_range(0..4) {
            tokio::task::yield_now().await;
        }
        disk.cut_the_power(&mut random);
        version = last.await.unwrap().unwrap_or(version);
    }
    assert!(version > 100);
}

#[tokio::test]
async fn every_commit_is_synced_before_it_is_acknowledged() {
    let disk = Disk::default();
    let store = disk.open();
    for version in 0..20 {
        let before = disk.0.lock().syncs;
        let mut batch = Batch::default();
        batch.put("key", version.to_string());
        store.commit(version, batch).await.unwrap();
        let platter = disk.0.lock();
        assert!(platter.syncs > before && platter.pending.is_empty(), "version {version}");
    }
}

#[tokio::test]
async fn a_full_disk_fails_one_change_and_not_the_control_plane() {
    let disk = Disk::default();
    let world = World::on(Arc::new(disk.open()), Retention::default()).await;
    world.apply(&flags(&[("a", "on"), ("b", "on")])).await;
    disk.set_full(true);
    for _ in 0..3 {
        let refused = world.commit(kill("a")).await;
        assert!(matches!(refused, Err(Error::Store(store::Error::Unavailable { .. }))), "{refused:?}");
        assert!(!world.is_killed("a") && world.ledger.state(ENVIRONMENT).is_some(), "what is known is still told");
    }
    disk.set_full(false);
    assert_eq!(world.kill("a").await, 3);
    world.apply(&flags(&[("b", "off")])).await;
    assert_eq!(world.ledger.verify_audit().await.unwrap().broken, None);
    assert_eq!(world.reopened().await.ledger.state(ENVIRONMENT), world.ledger.state(ENVIRONMENT));
}
