//! Evidence that outlives the process: acknowledged when it is on disk.
//!
//! It has a store of its own, `evidence.redb` beside `store.redb`. The ledger guards each commit by the version of its whole store; a second
//! writer there would make every change of a flag try again, at the very moment when a kill has to be quick. Apart, each store has one
//! writer, and the file of the flags does not grow with the traffic of the applications.
//!
//! One task writes. What comes while a commit is under way waits and goes into the next one together, so that a thousand sidecars that
//! report each second are a few commits.

use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::kept::{self, Event};
use super::{Book, Evidence, FlagName, Pushed};
use crate::clock::Clock;
use crate::control::store::{Batch, Embedded, Error, Order, Range, Store, Version, scan};
use crate::wire::evidence::Report;

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "evidence.redb";
/// Events of one commit.
const GROUP: usize = 1_024;
/// Encoded events that wait for a commit, in KiB; further ones wait in their calls.
const WAITING_KIB: u32 = 64 * 1024;
/// A log that is longer is written together into a checkpoint.
const LOG_BYTES: usize = 16 << 20;

pub struct Durable {
    book: Arc<RwLock<Book>>,
    clock: Arc<dyn Clock>,
    asks: mpsc::Sender<Ask>,
    room: Semaphore,
}

struct Ask {
    event: Event,
    encoded: Vec<u8>,
    answer: oneshot::Sender<Result<bool, Error>>,
}

impl Durable {
    /// In the data directory. Reads all that is there.
    pub async fn open(data_dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let dir = data_dir.to_owned();
        let opened = tokio::task::spawn_blocking(move || Embedded::open_file(&dir, FILE_NAME)).await;
        let store = opened.map_err(|problem| Error::Unavailable { problem: format!("the store's thread ended: {problem}") })??;
        Self::on(Arc::new(store), clock).await
    }

    /// On any store that nobody else writes.
    pub async fn on(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let view = store.view().await?;
        let mut book = Book::default();
        scan(&*view, Range::under("evidence/"), |entry| kept::load_flag(&mut book, entry)).await?;
        scan(&*view, Range::under("sender/"), |entry| kept::load_sender(&mut book, entry)).await?;
        // A flag is as it was written until the log changes it.
        book.flags.values_mut().for_each(|flag| flag.is_changed = false);
        let (mut log_bytes, mut entries) = (0, 0_u64);
        scan(&*view, kept::logs(), |entry| {
            log_bytes += entry.value.len();
            entries += 1;
            kept::replay(&mut book, entry)
        })
        .await?;
        let last = view.range(kept::logs(), Order::Descending, 1).await?.pop();
        let next = last.and_then(|entry| u64::from_str_radix(entry.key.rsplit('/').next()?, 16).ok()).map_or(0, |last| last + 1);
        tracing::info!(flags = book.flags.len(), sidecars = book.senders.len(), entries, log_bytes, "evidence is read");
        let book = Arc::new(RwLock::new(book));
        let (asks, asked) = mpsc::channel(GROUP);
        let writer = Writer { store, version: view.version(), book: Arc::clone(&book), clock: Arc::clone(&clock), next, log_bytes };
        tokio::spawn(writer.run(asked));
        Ok(Self { book, clock, asks, room: Semaphore::new(WAITING_KIB as usize) })
    }

    async fn write(&self, event: Event) -> Result<bool, Error> {
        let ended = || Error::Unavailable { problem: "evidence is no longer written: the process ends".to_owned() };
        let encoded = event.encode();
        let kib = u32::try_from(encoded.len() / 1024 + 1).unwrap_or(u32::MAX).min(WAITING_KIB);
        let _room = self.room.acquire_many(kib).await.map_err(|_| ended())?;
        let (answer, answered) = oneshot::channel();
        self.asks.send(Ask { event, encoded, answer }).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

#[tonic::async_trait]
impl Evidence for Durable {
    async fn accept(&self, report: Report) -> Result<bool, Error> {
        self.write(Event::Report(report)).await
    }

    async fn push(&self, flag: FlagName, metric: String, pushed: Pushed) -> Result<bool, Error> {
        self.write(Event::Push(flag, metric, pushed)).await
    }

    async fn forget(&self, flag: FlagName) -> Result<(), Error> {
        self.write(Event::Forget(flag)).await.map(drop)
    }

    fn book(&self) -> &RwLock<Book> {
        &self.book
    }

    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }
}

struct Writer {
    store: Arc<dyn Store>,
    version: Version,
    book: Arc<RwLock<Book>>,
    clock: Arc<dyn Clock>,
    /// Number of the next entry of the log.
    next: u64,
    log_bytes: usize,
}

impl Writer {
    async fn run(mut self, mut asked: mpsc::Receiver<Ask>) {
        let mut group = Vec::new();
        while asked.recv_many(&mut group, GROUP).await > 0 {
            self.write(std::mem::take(&mut group)).await;
            if self.log_bytes > LOG_BYTES {
                self.checkpoint().await;
            }
        }
    }

    async fn write(&mut self, group: Vec<Ask>) {
        let at_us = self.clock.now_us();
        let mut batch = Batch::default();
        for ask in &group {
            if let Event::Forget(flag) = &ask.event {
                batch.delete_range(kept::flag_range(flag));
            }
        }
        let (rest, encoded): (Vec<_>, Vec<_>) = group.into_iter().map(|Ask { event, encoded, answer }| ((event, answer), encoded)).unzip();
        let entry = kept::log_entry(at_us, &encoded);
        let bytes = entry.len();
        batch.put(kept::log(self.next), entry);
        let committed = self.commit(batch).await;
        match committed {
            Ok(()) => {
                self.next += 1;
                self.log_bytes += bytes;
                let mut book = self.book.write();
                for (event, answer) in rest {
                    // Whoever asked may have left.
                    let _ = answer.send(Ok(event.apply(&mut book, at_us)));
                }
            }
            Err(problem) => {
                tracing::error!(%problem, waiting = rest.len(), "evidence cannot be written; sidecars keep it and report it again");
                for (_, answer) in rest {
                    let _ = answer.send(Err(Error::Unavailable { problem: problem.to_string() }));
                }
            }
        }
    }

    /// When it is unknown whether the batch was taken, the version tells: nobody else writes here. Should not even that be known, the next
    /// batch has the same number in the log and takes the place of this one, whose events are reported again.
    async fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        let problem = match self.store.commit(self.version, batch).await {
            Ok(version) => {
                self.version = version;
                return Ok(());
            }
            Err(problem) => problem,
        };
        let found = self.store.view().await?.version();
        let is_taken = matches!(problem, Error::Unavailable { .. }) && found == self.version + 1;
        self.version = found;
        if is_taken { Ok(()) } else { Err(problem) }
    }

    async fn checkpoint(&mut self) {
        let book = Arc::clone(&self.book);
        let Ok(batch) = tokio::task::spawn_blocking(move || kept::checkpoint(&book.read())).await else { return };
        match self.commit(batch).await {
            Ok(()) => {
                tracing::info!(log_bytes = self.log_bytes, "evidence was written together");
                self.log_bytes = 0;
                self.book.write().flags.values_mut().for_each(|flag| flag.is_changed = false);
            }
            // The log has everything; it is tried again when the log has grown.
            Err(problem) => {
                tracing::error!(%problem, "evidence cannot be written together; the log goes on");
            }
        }
    }
}
