//! A store that ends with the process.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Batch, Edit, Entry, Error, Order, Range, Store, Version, View};

/// Clones are the same store.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<Arc<Held>>>);

/// Views share it; a commit copies it first only while one of them lives.
#[derive(Debug, Clone, Default)]
struct Held {
    version: Version,
    entries: BTreeMap<String, Bytes>,
}

impl Memory {
    pub fn new() -> Self {
        Self::default()
    }

    /// As if one batch had put them there.
    pub fn holding(entries: &[Entry]) -> Self {
        let entries = entries.iter().map(|Entry { key, value }| (key.clone(), value.clone())).collect();
        Self(Arc::new(Mutex::new(Arc::new(Held { version: 1, entries }))))
    }
}

#[tonic::async_trait]
impl Store for Memory {
    async fn commit(&self, expect: Version, batch: Batch) -> Result<Version, Error> {
        let mut shared = self.0.lock();
        if shared.version != expect {
            return Err(Error::Conflict { expected: expect, found: shared.version });
        }
        let held = Arc::make_mut(&mut shared);
        batch.edits.into_iter().for_each(|edit| held.apply(edit));
        held.version += 1;
        Ok(held.version)
    }

    async fn view(&self) -> Result<Arc<dyn View>, Error> {
        Ok(Arc::clone(&self.0.lock()) as Arc<dyn View>)
    }
}

impl Held {
    fn apply(&mut self, edit: Edit) {
        match edit {
            Edit::Put(key, value) => {
                self.entries.insert(key, value);
            }
            Edit::Delete(key) => {
                self.entries.remove(&key);
            }
            Edit::DeleteRange(range) => self.entries.retain(|key, _| !range.contains(key)),
        }
    }
}

#[tonic::async_trait]
impl View for Held {
    fn version(&self) -> Version {
        self.version
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, Error> {
        Ok(self.entries.get(key).cloned())
    }

    async fn range(&self, Range { from, to }: Range, order: Order, limit: usize) -> Result<Vec<Entry>, Error> {
        if from >= to {
            return Ok(Vec::new());
        }
        let entry = |(key, value): (&String, &Bytes)| Entry { key: key.clone(), value: value.clone() };
        let entries = self.entries.range(from..to);
        Ok(match order {
            Order::Ascending => entries.take(limit).map(entry).collect(),
            Order::Descending => entries.rev().take(limit).map(entry).collect(),
        })
    }
}
