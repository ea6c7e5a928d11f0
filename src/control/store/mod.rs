//! Where the control plane keeps what it knows: an ordered map of keys to bytes that changes by atomic, durable, guarded batches.
//!
//! The trait asks for what an embedded file and a cluster such as etcd can both give: one guard on the version of the whole store, one
//! small batch, ordered range reads from a consistent view. It does not assume that this process is the only writer: a commit that
//! finds the store elsewhere than expected is a [`Error::Conflict`], and its caller reads again. A back end whose transactions are
//! smaller than a batch has to stage it, because half a batch is never visible.

mod embedded;
mod memory;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

pub use embedded::{Embedded, FILE_NAME};
pub use memory::Memory;

/// How many batches the store has taken: 0 when it is new, one more with each.
pub type Version = u64;

#[tonic::async_trait]
pub trait Store: Send + Sync + 'static {
    /// Makes the whole batch durable if the store is at `expect`, and answers the version after it. On [`Error::Unavailable`] it is
    /// unknown whether the batch was taken; on any other error it was not.
    async fn commit(&self, expect: Version, batch: Batch) -> Result<Version, Error>;

    /// The store as it is now. Later commits do not show in the view.
    async fn view(&self) -> Result<Arc<dyn View>, Error>;
}

/// A consistent state of the store.
#[tonic::async_trait]
pub trait View: Send + Sync {
    fn version(&self) -> Version;

    async fn get(&self, key: &str) -> Result<Option<Bytes>, Error>;

    /// At most `limit` entries of the range, in the order of their keys or in the reverse one.
    async fn range(&self, range: Range, order: Order, limit: usize) -> Result<Vec<Entry>, Error>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Bytes,
}

/// Keys from `from` (included) up to `to` (excluded), by their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub from: String,
    pub to: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// Edits that take effect together, as if in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub edits: Vec<Edit>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    Put(String, Bytes),
    Delete(String),
    DeleteRange(Range),
}

/// Sorted by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Read again, decide again.
    #[error("the store is at version {found}, the write expected {expected}: another writer was first")]
    Conflict { expected: Version, found: Version },
    /// Try later.
    #[error("the store cannot be used now: {problem}")]
    Unavailable { problem: String },
    /// Stop the other process.
    #[error("{} is locked by another process; stop it, or use another data directory", path.display())]
    Locked { path: PathBuf },
    /// Restore a backup.
    #[error("the store is damaged: {problem}; restore a backup into a new data directory")]
    Corrupt { problem: String },
}

impl Error {
    pub(crate) fn corrupt(problem: impl Into<String>) -> Self {
        Self::Corrupt { problem: problem.into() }
    }
}

impl Batch {
    pub fn put(&mut self, key: impl Into<String>, value: impl Into<Bytes>) {
        self.edits.push(Edit::Put(key.into(), value.into()));
    }

    pub fn delete(&mut self, key: impl Into<String>) {
        self.edits.push(Edit::Delete(key.into()));
    }

    pub fn delete_range(&mut self, range: Range) {
        self.edits.push(Edit::DeleteRange(range));
    }
}

impl Range {
    pub fn all() -> Self {
        Self { from: String::new(), to: char::MAX.to_string() }
    }

    /// Every key that begins with `prefix`, which ends with a slash.
    pub fn under(prefix: impl Into<String>) -> Self {
        let from = prefix.into();
        debug_assert!(from.ends_with('/'), "{from} does not end with a slash");
        // The character after `/` is `0`.
        let to = format!("{}0", from.trim_end_matches('/'));
        Self { from, to }
    }

    pub fn contains(&self, key: &str) -> bool {
        self.from.as_str() <= key && key < self.to.as_str()
    }

    /// What is left of the range after `key`, in ascending order.
    pub fn after(&self, key: &str) -> Self {
        Self { from: format!("{key}\0"), to: self.to.clone() }
    }
}

/// How many entries [`scan`] reads at once.
const PAGE: usize = 512;

/// Reads a range to its end, a page at a time.
pub async fn scan(view: &dyn View, range: Range, mut each: impl FnMut(Entry) -> Result<(), Error> + Send) -> Result<(), Error> {
    let mut rest = range;
    loop {
        let page = view.range(rest.clone(), Order::Ascending, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        rest = rest.after(&last.key);
        let complete = page.len() < PAGE;
        page.into_iter().try_for_each(&mut each)?;
        if complete {
            return Ok(());
        }
    }
}
