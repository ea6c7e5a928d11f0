//! The store in one file, by redb: copy on write, one fdatasync a commit, readers never wait for the writer.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use redb::{Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable, TableDefinition, WriteTransaction};
use tokio::task::spawn_blocking;

use super::{Batch, Edit, Entry, Error, Order, Range, Store, Version, View};

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "store.redb";

const ENTRIES: TableDefinition<&str, &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const VERSION: &str = "version";

/// Pages that redb keeps in memory, bytes. The ledger holds its own copy of what is read often.
const CACHE_BYTES: usize = 16 << 20;

pub struct Embedded {
    file: Arc<StoreFile>,
}

/// redb refuses every use of a database after an input/output error, so that one full disk would last until the process is restarted.
/// The file is therefore opened anew when that is the answer.
struct StoreFile {
    path: PathBuf,
    open: Box<Open>,
    database: RwLock<Option<Arc<Database>>>,
}

type Open = dyn Fn() -> Result<Database, DatabaseError> + Send + Sync;

struct Snapshot {
    version: Version,
    /// Keeps the database open for as long as somebody reads from it.
    transaction: Arc<redb::ReadTransaction>,
}

impl Embedded {
    /// Opens or creates the store in the data directory, which is created as well. Blocks: after a crash it reads the whole file.
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        Self::open_file(data_dir, FILE_NAME)
    }

    /// Another store in the same directory.
    pub fn open_file(data_dir: &Path, name: &str) -> Result<Self, Error> {
        let unusable = |problem: io::Error| Error::Unavailable {
            problem: format!("data directory {}: {problem}{}", data_dir.display(), what_to_do(&problem)),
        };
        std::fs::create_dir_all(data_dir).map_err(unusable)?;
        let path = data_dir.join(name);
        let is_new = !path.exists();
        let open = {
            let path = path.clone();
            move || Database::builder().set_cache_size(CACHE_BYTES).create(&path)
        };
        let store = Self::on(path, open)?;
        if is_new {
            // A power cut must not take away the name of a file whose content is durable.
            File::open(data_dir).and_then(|dir| dir.sync_all()).map_err(unusable)?;
        }
        Ok(store)
    }

    /// The store on another medium than a file, of which tests make one that fails. `path` names it in errors; `open` is called again
    /// after an input/output error.
    pub fn on(path: PathBuf, open: impl Fn() -> Result<Database, DatabaseError> + Send + Sync + 'static) -> Result<Self, Error> {
        let database = opened(&path, &open)?;
        let database = RwLock::new(Some(Arc::new(database)));
        Ok(Self { file: Arc::new(StoreFile { path, open: Box::new(open), database }) })
    }
}

fn opened(path: &Path, open: &Open) -> Result<Database, Error> {
    let database = open().map_err(|problem| match problem {
        DatabaseError::DatabaseAlreadyOpen => Error::Locked { path: path.to_owned() },
        DatabaseError::Storage(redb::StorageError::Io(problem)) if problem.kind() == io::ErrorKind::InvalidData => {
            Error::corrupt(format!("{}: {problem}", path.display()))
        }
        DatabaseError::Storage(redb::StorageError::Io(problem)) => {
            Error::Unavailable { problem: format!("{}: {problem}{}", path.display(), what_to_do(&problem)) }
        }
        other => at(path, other.into()),
    })?;
    // Tables exist from here on, so that reading needs no case for their absence.
    let transaction = database.begin_write().map_err(|problem| at(path, problem.into()))?;
    transaction.open_table(ENTRIES).map_err(|problem| at(path, problem.into()))?;
    transaction.open_table(META).map_err(|problem| at(path, problem.into()))?;
    transaction.commit().map_err(|problem| at(path, problem.into()))?;
    Ok(database)
}

/// The end of the sentence about a place that is not going to get better by itself. A process that ran as root leaves a store that only root
/// may open, in a directory that others may well write to.
fn what_to_do(problem: &io::Error) -> &'static str {
    match problem.kind() {
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::NotFound
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::AlreadyExists => "; give this user access to it, or choose another directory with --data",
        _ => "",
    }
}

/// Sorts what redb says.
fn at(path: &Path, problem: redb::Error) -> Error {
    let text = format!("{}: {problem}", path.display());
    match problem {
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableDoesNotExist(_) => Error::Corrupt { problem: text },
        _ => Error::Unavailable { problem: text },
    }
}

#[tonic::async_trait]
impl Store for Embedded {
    async fn commit(&self, expect: Version, batch: Batch) -> Result<Version, Error> {
        let file = Arc::clone(&self.file);
        off_the_async_threads(move || file.with(|database| commit(database, expect, &batch))).await
    }

    async fn view(&self) -> Result<Arc<dyn View>, Error> {
        let file = Arc::clone(&self.file);
        let snapshot = off_the_async_threads(move || file.with(snapshot)).await?;
        Ok(Arc::new(snapshot))
    }
}

/// The work itself goes on when the caller stops waiting: a commit is never cut in half.
async fn off_the_async_threads<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(problem) => Err(Error::Unavailable { problem: format!("the store's thread ended: {problem}") }),
    }
}

/// What a use of the database can end in.
enum Failure {
    Conflict { expected: Version, found: Version },
    Redb(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(problem: E) -> Self {
        Self::Redb(problem.into())
    }
}

impl StoreFile {
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, Failure>) -> Result<T, Error> {
        let database = self.database()?;
        work(&database).map_err(|failure| match failure {
            Failure::Conflict { expected, found } => Error::Conflict { expected, found },
            Failure::Redb(problem) => {
                if matches!(problem, redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::DatabaseClosed) {
                    self.close(&database);
                }
                at(&self.path, problem)
            }
        })
    }

    fn database(&self) -> Result<Arc<Database>, Error> {
        if let Some(open) = &*self.database.read() {
            return Ok(Arc::clone(open));
        }
        let mut slot = self.database.write();
        if let Some(open) = &*slot {
            return Ok(Arc::clone(open));
        }
        let opened = match opened(&self.path, self.open.as_ref()) {
            Ok(opened) => Arc::new(opened),
            // The lock is our own: a view of the closed database is still being read.
            Err(Error::Locked { path }) => {
                return Err(Error::Unavailable { problem: format!("{} is being closed after an error", path.display()) });
            }
            Err(other) => return Err(other),
        };
        tracing::warn!(path = %self.path.display(), "opened the store again after an input/output error");
        Ok(Arc::clone(slot.insert(opened)))
    }

    fn close(&self, failed: &Arc<Database>) {
        let mut slot = self.database.write();
        if slot.as_ref().is_some_and(|open| Arc::ptr_eq(open, failed)) {
            *slot = None;
        }
    }
}

fn commit(database: &Database, expect: Version, batch: &Batch) -> Result<Version, Failure> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    let found = {
        let mut meta = transaction.open_table(META)?;
        let found = meta.get(VERSION)?.map_or(0, |version| version.value());
        if found == expect {
            meta.insert(VERSION, expect + 1)?;
        }
        found
    };
    if found != expect {
        transaction.abort()?;
        return Err(Failure::Conflict { expected: expect, found });
    }
    edit(&transaction, batch)?;
    transaction.commit()?;
    Ok(expect + 1)
}

fn edit(transaction: &WriteTransaction, batch: &Batch) -> Result<(), Failure> {
    let mut entries = transaction.open_table(ENTRIES)?;
    for edit in &batch.edits {
        match edit {
            Edit::Put(key, value) => {
                entries.insert(key.as_str(), value.as_ref())?;
            }
            Edit::Delete(key) => {
                entries.remove(key.as_str())?;
            }
            Edit::DeleteRange(Range { from, to }) => {
                if from < to {
                    entries.retain_in(from.as_str()..to.as_str(), |_, _| false)?;
                }
            }
        }
    }
    Ok(())
}

fn snapshot(database: &Database) -> Result<Snapshot, Failure> {
    let transaction = database.begin_read()?;
    let version = transaction.open_table(META)?.get(VERSION)?.map_or(0, |version| version.value());
    Ok(Snapshot { version, transaction: Arc::new(transaction) })
}

#[tonic::async_trait]
impl View for Snapshot {
    fn version(&self) -> Version {
        self.version
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, Error> {
        let (transaction, key) = (Arc::clone(&self.transaction), key.to_owned());
        off_the_async_threads(move || get(&transaction, &key).map_err(reading)).await
    }

    async fn range(&self, range: Range, order: Order, limit: usize) -> Result<Vec<Entry>, Error> {
        let transaction = Arc::clone(&self.transaction);
        off_the_async_threads(move || read(&transaction, &range, order, limit).map_err(reading)).await
    }
}

fn reading(problem: redb::Error) -> Error {
    at(Path::new(FILE_NAME), problem)
}

fn get(transaction: &redb::ReadTransaction, key: &str) -> Result<Option<Bytes>, redb::Error> {
    let found = transaction.open_table(ENTRIES)?.get(key)?;
    Ok(found.map(|value| Bytes::copy_from_slice(value.value())))
}

fn read(transaction: &redb::ReadTransaction, range: &Range, order: Order, limit: usize) -> Result<Vec<Entry>, redb::Error> {
    if range.from >= range.to {
        return Ok(Vec::new());
    }
    let mut entries = transaction.open_table(ENTRIES)?.range(range.from.as_str()..range.to.as_str())?;
    let mut found = Vec::new();
    while found.len() < limit {
        let next = match order {
            Order::Ascending => entries.next(),
            Order::Descending => entries.next_back(),
        };
        let Some(next) = next else { break };
        let (key, value) = next?;
        found.push(Entry { key: key.value().to_owned(), value: Bytes::copy_from_slice(value.value()) });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not by a file that may not be read: a test that runs as root may read all.
    #[test]
    fn a_store_that_may_not_be_opened_says_which_and_what_to_do() {
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem] {
            let open = move || Err(DatabaseError::Storage(redb::StorageError::Io(kind.into())));
            let told = Embedded::on(PathBuf::from("/data/store.redb"), open).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(told.contains("/data/store.redb") && told.contains(&kind.to_string()), "{told}");
            assert!(told.ends_with("give this user access to it, or choose another directory with --data"), "{told}");
        }
    }
}
