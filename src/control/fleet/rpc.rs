//! What the Admin service answers about pods.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use crate::control::Ledger;
use crate::control::ledger;
use crate::flag::Position;
use crate::wire::fleet::{PodEvent, Propagation};
use crate::wire::v1;

use super::progress::{Target, progress};
use super::{Fleet, Squad, name};

pub type PodEvents = Pin<Box<dyn Stream<Item = Result<v1::PodEvent, Status>> + Send>>;
pub type Propagations = Pin<Box<dyn Stream<Item = Result<v1::Propagation, Status>> + Send>>;

/// Changes in quick succession are told as one.
const TOLD_EVERY: Duration = Duration::from_millis(20);
/// A pod that is forgotten changes the view without a word from anybody.
const SWEPT_EVERY: Duration = Duration::from_secs(5);
/// Silent pods that are named while the wait goes on.
const NAMED: usize = 10;
const DEFAULT_TIMEOUT_MS: u32 = 5_000;
const MAX_TIMEOUT_MS: u32 = 600_000;

pub fn list_pods(ledger: &Ledger, fleet: &Fleet, request: v1::ListPodsRequest) -> Result<v1::ListPodsResponse, Status> {
    let head = head(ledger, &request.environment)?;
    let position = head.borrow().position;
    let pods = fleet.pods(&request.environment).into_iter().map(Into::into).collect();
    Ok(v1::ListPodsResponse { head: Some(position.into()), pods })
}

/// The whole view first, then each pod that changed, in its latest state. A slow reader gets fewer messages, not older ones.
pub fn watch_pods(ledger: &Ledger, fleet: &Arc<Fleet>, request: v1::ListPodsRequest) -> Result<PodEvents, Status> {
    let head = head(ledger, &request.environment)?;
    let squad = fleet.squad(&request.environment);
    let viewer = Viewer { fleet: fleet.clone(), changed: squad.changed.subscribe(), squad, head, known: HashMap::new(), is_synced: false };
    let batches = stream::unfold((viewer, Vec::new()), |(mut viewer, mut ready): (Viewer, Vec<PodEvent>)| async move {
        while ready.is_empty() {
            ready = viewer.next().await?;
            // Taken from the back.
            ready.reverse();
        }
        let event = ready.pop()?;
        Some((Ok(event.into()), (viewer, ready)))
    });
    Ok(Box::pin(batches))
}

/// Progress of a revision until every pod has answered or the time is up.
pub fn await_applied(ledger: &Ledger, fleet: &Arc<Fleet>, request: v1::AwaitAppliedRequest) -> Result<Propagations, Status> {
    let v1::AwaitAppliedRequest { environment, revision, flag_key, timeout_ms } = request;
    let head = head(ledger, &environment)?;
    let Position { epoch, revision: newest } = head.borrow().position;
    if revision == 0 || revision > newest {
        return Err(Status::invalid_argument(format!("revision: {revision} is not in `{environment}`, which is at revision {newest}")));
    }
    if timeout_ms > MAX_TIMEOUT_MS {
        return Err(Status::invalid_argument(format!("timeout_ms: {timeout_ms} is more than {MAX_TIMEOUT_MS}")));
    }
    let timeout_ms = if timeout_ms == 0 { DEFAULT_TIMEOUT_MS } else { timeout_ms };
    let change = ledger.delta(&environment, revision - 1, revision).ok().flatten();
    let committed_us = change.as_ref().map(|change| change.origin_time_us);
    let items = change.into_iter().flat_map(|change| change.upserts).map(|item| item.name).collect();
    let flag_key = Some(flag_key).filter(|key| !key.is_empty());
    let target = Target { position: Position { epoch, revision }, flag_key, items, committed_us };
    let squad = fleet.squad(&environment);
    let deadline = Instant::now() + Duration::from_millis(timeout_ms.into());
    let waiter = Waiter { fleet: fleet.clone(), changed: squad.changed.subscribe(), squad, head, target, deadline, told: None };
    Ok(Box::pin(stream::unfold(Some(waiter), |waiter| async move {
        let mut waiter = waiter?;
        let told = waiter.next().await.map(v1::Propagation::from);
        let is_last = told.as_ref().map_or(true, |propagation| propagation.done);
        Some((told, (!is_last).then_some(waiter)))
    })))
}

fn head(ledger: &Ledger, environment: &str) -> Result<watch::Receiver<ledger::Head>, Status> {
    ledger.head(environment).ok_or_else(|| super::super::publish::unknown_environment(ledger, environment))
}

struct Viewer {
    fleet: Arc<Fleet>,
    squad: Arc<Squad>,
    changed: watch::Receiver<u64>,
    head: watch::Receiver<ledger::Head>,
    /// What the reader was told: version of each process, and its last view.
    known: HashMap<String, (u64, crate::wire::fleet::Pod)>,
    is_synced: bool,
}

impl Viewer {
    /// `None` when the environment is gone.
    async fn next(&mut self) -> Option<Vec<PodEvent>> {
        if self.is_synced {
            let swept = sleep_until(Instant::now() + SWEPT_EVERY);
            tokio::select! {
                _ = self.changed.changed() => sleep_until(Instant::now() + TOLD_EVERY).await,
                closed = closed(&mut self.head) => return closed,
                () = swept => {}
            }
        }
        self.changed.mark_unchanged();
        let head = self.head.borrow().position;
        let mut events = self.differences(head);
        if !std::mem::replace(&mut self.is_synced, true) {
            events.push(PodEvent::Synced { head });
        }
        Some(events)
    }

    fn differences(&mut self, head: Position) -> Vec<PodEvent> {
        let now_us = self.fleet.clock.now_us();
        let mut events = Vec::new();
        let mut present = HashMap::new();
        self.squad.edit(|roster| {
            roster.sweep(now_us);
            for member in roster.members() {
                let (instance, version) = (member.instance(), member.version());
                match self.known.remove(instance) {
                    Some(known) if known.0 == version => {
                        present.insert(instance.to_owned(), known);
                    }
                    _ => {
                        let pod = member.view(now_us);
                        events.push(PodEvent::Changed { head, pod: pod.clone() });
                        present.insert(instance.to_owned(), (version, pod));
                    }
                }
            }
        });
        let gone = std::mem::replace(&mut self.known, present);
        events.extend(gone.into_values().map(|(_, pod)| PodEvent::Gone { head, pod }));
        events.sort_by(|one, other| event_name(one).cmp(&event_name(other)));
        events
    }
}

fn event_name(event: &PodEvent) -> Option<(&str, &str, &str)> {
    match event {
        PodEvent::Changed { pod, .. } | PodEvent::Gone { pod, .. } => Some(name(pod)),
        PodEvent::Synced { .. } => None,
    }
}

/// Ready when the environment is gone.
async fn closed<T>(head: &mut watch::Receiver<ledger::Head>) -> Option<T> {
    while head.changed().await.is_ok() {}
    None
}

struct Waiter {
    fleet: Arc<Fleet>,
    squad: Arc<Squad>,
    changed: watch::Receiver<u64>,
    head: watch::Receiver<ledger::Head>,
    target: Target,
    deadline: Instant,
    told: Option<Propagation>,
}

impl Waiter {
    /// The next message; its `done` says that it is the last.
    async fn next(&mut self) -> Result<Propagation, Status> {
        loop {
            if self.told.is_some() {
                let due = Instant::now() + TOLD_EVERY;
                tokio::select! {
                    _ = self.changed.changed() => sleep_until(due.min(self.deadline)).await,
                    _ = self.head.changed() => {}
                    () = sleep_until(self.deadline) => {}
                }
            }
            let epoch = self.head.borrow().position.epoch;
            if epoch != self.target.position.epoch || self.head.has_changed().is_err() {
                return Err(Status::aborted(
                    "the store was replaced while the revision was on its way: ask again for a revision of the new one",
                ));
            }
            self.changed.mark_unchanged();
            let now_us = self.fleet.clock.now_us();
            let mut progress = self.squad.edit(|roster| {
                roster.sweep(now_us);
                progress(roster.members(), &self.target)
            });
            progress.done |= Instant::now() >= self.deadline;
            if !progress.done {
                progress.silent.truncate(NAMED);
            }
            if progress.done || self.told.as_ref() != Some(&progress) {
                self.told = Some(progress.clone());
                return Ok(progress);
            }
        }
    }
}
