//! The threads that answer.
//!
//! Each is a `current_thread` runtime: its queue answers everything that has arrived and then writes once, where a multi-thread runtime
//! writes after each answer and so doubles the CPU (performance.md 2). Nothing else runs here, so that no sync, scrape or export stands
//! in front of an answer.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// Clones are the same threads; several pods of one process may share them. The threads end when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Workers(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    workers: Vec<Worker>,
    stop: CancellationToken,
}

#[derive(Debug)]
pub(super) struct Worker {
    runtime: Handle,
    connections: AtomicUsize,
}

impl Workers {
    /// `None`: as many threads as the process may use cores.
    pub fn start(threads: Option<usize>) -> io::Result<Self> {
        let threads = threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZeroUsize::get)).max(1);
        let stop = CancellationToken::new();
        let workers = (0..threads).map(|number| Worker::start(number, stop.clone())).collect::<io::Result<_>>()?;
        Ok(Self(Arc::new(Pool { workers, stop })))
    }

    pub fn count(&self) -> usize {
        self.0.workers.len()
    }

    pub(super) fn get(&self, number: usize) -> &Worker {
        &self.0.workers[number]
    }

    /// Applications hold few connections for long. Handing each to the thread that has fewest keeps the threads level, where
    /// SO_REUSEPORT puts two connections on one of two threads half of the time, and for as long as they live.
    pub(super) fn least_loaded(&self) -> usize {
        let loads = self.0.workers.iter().map(|worker| worker.connections.load(Ordering::Relaxed)).enumerate();
        loads.min_by_key(|(_, load)| *load).map_or(0, |(number, _)| number)
    }

    /// Counts a connection of a worker for as long as the answer lives.
    pub(super) fn occupy(&self, number: usize) -> Occupied {
        self.get(number).connections.fetch_add(1, Ordering::Relaxed);
        Occupied { pool: Arc::clone(&self.0), number }
    }
}

pub(super) struct Occupied {
    pool: Arc<Pool>,
    number: usize,
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.pool.workers[self.number].connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Worker {
    fn start(number: usize, stop: CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new().name(format!("answers-{number}")).spawn(move || runtime.block_on(stop.cancelled_owned()))?;
        Ok(Self { runtime: handle, connections: AtomicUsize::new(0) })
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_to_the_thread_that_has_fewest() {
        let workers = Workers::start(Some(2)).unwrap();
        let first = workers.least_loaded();
        let held = workers.occupy(first);
        assert_ne!(workers.least_loaded(), first);
        let other = workers.occupy(workers.least_loaded());
        drop(held);
        assert_eq!(workers.least_loaded(), first);
        drop(other);
    }

    #[test]
    fn work_given_to_a_worker_runs_on_its_own_thread() {
        let workers = Workers::start(Some(1)).unwrap();
        let (said, heard) = std::sync::mpsc::channel();
        workers.get(0).runtime().spawn(async move { said.send(thread::current().name().map(str::to_owned)) });
        assert_eq!(heard.recv_timeout(std::time::Duration::from_secs(10)).unwrap().as_deref(), Some("answers-0"));
    }
}
