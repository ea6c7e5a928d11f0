//! What the control plane says of its sidecars.

use std::sync::Arc;

use crate::flag::{Position, Revision};

use super::replication::{Identity, Rejection};
use super::v1;

/// One sidecar, as the control plane knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub identity: Arc<Identity>,
    /// A stream from it is open.
    pub connected: bool,
    /// What it acknowledged last; `None` before the first time.
    pub position: Option<Position>,
    /// Since when readers see that: Unix time, microseconds, the sidecar's clock.
    pub applied_at_us: i64,
    /// The last word from it: Unix time, microseconds.
    pub last_seen_us: i64,
    /// How long ago it last proved that it holds the newest state.
    pub age_ms: u64,
    pub rejected: Arc<[Rejection]>,
}

/// How far a revision has got.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Propagation {
    pub revision: Revision,
    pub pods: usize,
    pub applied: usize,
    /// Of those that applied it while they were connected: commit to acknowledgement received. `None` before the first.
    pub latency: Option<Latency>,
    /// Pods that have not answered.
    pub silent: Vec<String>,
    /// Pods that refused an item of this revision.
    pub rejected: Vec<(String, Rejection)>,
    pub done: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latency {
    pub p50_us: u64,
    pub p99_us: u64,
    pub slowest_us: u64,
    pub slowest_pod: String,
}

/// A change of the view of an environment's pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodEvent {
    Changed {
        head: Position,
        pod: Pod,
    },
    Gone {
        head: Position,
        pod: Pod,
    },
    /// The first view is complete.
    Synced {
        head: Position,
    },
}

impl From<Pod> for v1::Pod {
    fn from(Pod { identity, connected, position, applied_at_us, last_seen_us, age_ms, rejected }: Pod) -> Self {
        Self {
            identity: Some(Identity::clone(&identity).into()),
            connected,
            position: position.map(Into::into),
            applied_at: position.map(|_| timestamp(applied_at_us)),
            last_seen: Some(timestamp(last_seen_us)),
            age_ms,
            rejected: rejected.iter().cloned().map(Into::into).collect(),
        }
    }
}

impl From<PodEvent> for v1::PodEvent {
    fn from(event: PodEvent) -> Self {
        let (head, pod, gone, synced) = match event {
            PodEvent::Changed { head, pod } => (head, Some(pod.into()), false, false),
            PodEvent::Gone { head, pod } => (head, Some(pod.into()), true, false),
            PodEvent::Synced { head } => (head, None, false, true),
        };
        Self { head: Some(head.into()), pod, gone, synced }
    }
}

impl From<Propagation> for v1::Propagation {
    fn from(Propagation { revision, pods, applied, latency, silent, rejected, done }: Propagation) -> Self {
        let rejected = rejected.into_iter().map(|(pod, rejection)| v1::PodRejection { pod, rejection: Some(rejection.into()) });
        let mut propagation = Self {
            revision,
            pods: u32::try_from(pods).unwrap_or(u32::MAX),
            applied: u32::try_from(applied).unwrap_or(u32::MAX),
            silent,
            rejected: rejected.collect(),
            done,
            ..Self::default()
        };
        if let Some(Latency { p50_us, p99_us, slowest_us, slowest_pod }) = latency {
            propagation = Self { p50_us, p99_us, slowest_us, slowest_pod, ..propagation };
        }
        propagation
    }
}

fn timestamp(us: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: us.div_euclid(1_000_000), nanos: us.rem_euclid(1_000_000) as i32 * 1000 }
}
