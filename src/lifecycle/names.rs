//! A set of names that somebody waits to become empty.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

#[derive(Debug)]
pub(super) struct Names {
    next: AtomicU64,
    open: watch::Sender<BTreeMap<u64, Cow<'static, str>>>,
}

impl Default for Names {
    fn default() -> Self {
        Self { next: AtomicU64::new(0), open: watch::Sender::new(BTreeMap::new()) }
    }
}

impl Names {
    pub(super) fn open(&self, name: Cow<'static, str>) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.send_modify(|open| {
            open.insert(id, name);
        });
        id
    }

    pub(super) fn close(&self, id: u64) {
        self.open.send_modify(|open| {
            open.remove(&id);
        });
    }

    /// Oldest first.
    pub(super) fn all(&self) -> Vec<Cow<'static, str>> {
        self.open.borrow().values().cloned().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.borrow().is_empty()
    }

    pub(super) async fn wait(&self) {
        let closed = self.open.subscribe().wait_for(BTreeMap::is_empty).await.is_err();
        debug_assert!(!closed, "the sender is borrowed for the whole wait");
    }
}
