//! A pod as its served APIs see it: the flags, and what is counted about serving them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::lifecycle::{Readiness, Shutdown};
use crate::replica::Replica;

use super::bell::Bell;
use super::context::Contexts;
use super::cors::Cors;
use super::handshakes::Failures;
use super::observe::Observer;
use super::requests::Table;
use super::sync::Press;
use super::tally::Tally;

/// Shared by all threads; nothing here is written on the way of an answer.
pub(super) struct Pod {
    pub(super) replica: Replica,
    pub(super) environment: String,
    pub(super) shutdown: Shutdown,
    pub(super) readiness: Readiness,
    pub(super) connections: Arc<Places>,
    pub(super) watchers: Arc<Places>,
    /// Watches that were away for so long that they had to start again from a snapshot.
    pub(super) lagged_watchers: AtomicU64,
    /// What is added to contexts of flagd's clients and of OFREP.
    pub(super) contexts: Contexts,
    /// See [`super::Serve::stream_deadline`].
    pub(super) stream_deadline: Option<Duration>,
    /// Where documents for in-process clients are made.
    pub(super) press: Arc<Press>,
    /// Of those documents.
    pub(super) subscribers: Arc<Places>,
    /// `None`: there is no decision log.
    pub(super) observer: Option<Observer>,
    /// `None`: nothing is served over TLS.
    pub(super) failed_handshakes: Option<Arc<Failures>>,
    pub(super) cors: Cors,
    /// Of this process alone.
    pub(super) salt: u64,
}

/// What one thread keeps for a pod.
pub(super) struct Desk {
    pub(super) pod: Arc<Pod>,
    pub(super) tally: Tally,
    /// Rings for watchers, at each change.
    pub(super) bell: Arc<Bell>,
    /// Rings for subscribers of documents, when there is a new one.
    pub(super) sync_bell: Arc<Bell>,
    /// Rings for connections, once.
    pub(super) farewell: Arc<Bell>,
    pub(super) sdk_requests: SdkRequests,
    /// `None`: nobody reads it.
    pub(super) requests: Option<Mutex<Table>>,
    draining: AtomicBool,
}

/// Requests of OpenFeature SDKs, by [`Sdk`].
#[derive(Debug, Default)]
pub(super) struct SdkRequests([AtomicU64; Sdk::ALL.len()]);

/// What an OpenFeature SDK asks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sdk {
    FlagdV2,
    FlagdV1,
    FlagdSchema,
    Ofrep,
}

/// A bounded number of something that comes and goes.
#[derive(Debug)]
pub(super) struct Places {
    limit: usize,
    taken: AtomicUsize,
    refused: AtomicU64,
}

/// Taken until it is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Places>);

impl Desk {
    /// `is_stand_in`: requests are measured as flagd measures them.
    pub(super) fn of(pod: &Arc<Pod>, is_stand_in: bool) -> Arc<Self> {
        Arc::new(Self {
            pod: Arc::clone(pod),
            tally: pod.observer.as_ref().map_or_else(Tally::default, |observer| Tally::noting(observer.notes())),
            bell: Arc::default(),
            sync_bell: Arc::default(),
            farewell: Arc::default(),
            sdk_requests: SdkRequests::default(),
            requests: is_stand_in.then(Mutex::default),
            draining: AtomicBool::new(false),
        })
    }

    /// Wakes the watchers of this thread at each change, and everybody when the shutdown begins.
    pub(super) async fn ring(self: Arc<Self>) {
        let (mut changed, mut printed) = (self.pod.replica.changed(), self.pod.press.printed());
        loop {
            tokio::select! {
                Ok(()) = changed.changed() => self.bell.ring().await,
                Ok(()) = printed.changed() => self.sync_bell.ring().await,
                () = self.pod.shutdown.requested() => break,
            }
        }
        self.draining.store(true, Ordering::Relaxed);
        self.bell.ring().await;
        self.sync_bell.ring().await;
        self.farewell.ring().await;
    }

    /// The shutdown has begun; whoever waits for one of the bells is woken after this has turned.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

impl Sdk {
    pub(super) const ALL: [Self; 4] = [Self::FlagdV2, Self::FlagdV1, Self::FlagdSchema, Self::Ofrep];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FlagdV2 => "flagd.evaluation.v2.Service",
            Self::FlagdV1 => "flagd.evaluation.v1.Service",
            Self::FlagdSchema => "schema.v1.Service",
            Self::Ofrep => "ofrep.v1",
        }
    }
}

impl SdkRequests {
    pub(super) fn count(&self, sdk: Sdk) {
        self.0[sdk as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn of(&self, sdk: Sdk) -> u64 {
        self.0[sdk as usize].load(Ordering::Relaxed)
    }
}

impl Places {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, taken: AtomicUsize::new(0), refused: AtomicU64::new(0) })
    }

    /// `None`, and counted, when all are taken.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        if self.taken.fetch_add(1, Ordering::Relaxed) < self.limit {
            return Some(Place(Arc::clone(self)));
        }
        self.taken.fetch_sub(1, Ordering::Relaxed);
        self.refused.fetch_add(1, Ordering::Relaxed);
        None
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let places = Places::new(1);
        let place = places.take();
        assert!(place.is_some() && places.take().is_none());
        assert_eq!((places.taken(), places.refused()), (1, 1));
        drop(place);
        assert!(places.take().is_some());
    }
}
