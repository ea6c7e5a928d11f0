//! Which sidecars follow each environment, what each of them holds, and since when that is known here.
//!
//! Streams report to it through a [`Presence`]; people ask it through the Admin service. What each of them holds is not durable: a control
//! plane that was restarted learns it anew from the sidecars as they come back. Who was here is (see [`keep`]), so that those who have
//! not come back yet are missed.

mod member;
mod progress;
mod remembered;
mod roster;
mod rpc;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::wire::fleet::Pod;
use crate::wire::replication::{Ack, Basis, Identity};

pub use remembered::{Everybody, keep, read};
pub use roster::REMEMBERED;
pub use rpc::{PodEvents, Propagations, await_applied, list_pods, watch_pods};

use remembered::Remembered;
use roster::Roster;

pub struct Fleet {
    clock: Arc<dyn Clock>,
    environments: RwLock<HashMap<String, Arc<Squad>>>,
    /// Wakes when somebody comes or goes.
    members: watch::Sender<()>,
}

/// The sidecars of one environment.
struct Squad {
    roster: Mutex<Roster>,
    /// Version of the roster.
    changed: watch::Sender<u64>,
    /// That of the fleet.
    members: watch::Sender<()>,
}

/// A sidecar with an open stream. Dropping it without a goodbye is a loss.
pub struct Presence {
    squad: Arc<Squad>,
    clock: Arc<dyn Clock>,
    instance: String,
    session: u64,
    goodbye: bool,
}

impl Fleet {
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, environments: RwLock::default(), members: watch::Sender::new(()) })
    }

    /// The caller has made sure that the environment exists.
    pub fn join(&self, environment: &str, identity: Identity, basis: Option<Basis>) -> Presence {
        let (squad, clock, instance) = (self.squad(environment), self.clock.clone(), identity.instance.clone());
        let session = squad.edit(|roster| roster.join(identity, basis, clock.now_us()));
        Presence { squad, clock, instance, session, goodbye: false }
    }

    /// A sidecar asked without a stream.
    pub fn polled(&self, environment: &str, identity: Identity, basis: Option<Basis>, ack: Option<Ack>) {
        let now_us = self.clock.now_us();
        self.squad(environment).edit(|roster| roster.polled(identity, basis, ack, now_us));
    }

    /// Connected and remembered sidecars, by name.
    pub fn pods(&self, environment: &str) -> Vec<Pod> {
        let now_us = self.clock.now_us();
        let mut pods: Vec<_> = self.squad(environment).edit(|roster| {
            roster.sweep(now_us);
            roster.members().map(|member| member.view(now_us)).collect()
        });
        pods.sort_by(|one: &Pod, other| name(one).cmp(&name(other)));
        pods
    }

    pub fn count(&self, environment: &str) -> usize {
        self.environments.read().get(environment).map_or(0, |squad| squad.roster.lock().len())
    }

    /// Misses whom the process before this one knew, each in an environment that there is.
    pub fn recall(&self, environment: &str, pods: Vec<Remembered>) {
        let now_us = self.clock.now_us();
        self.squad(environment).edit(|roster| pods.into_iter().for_each(|pod| roster.recall(pod, now_us)));
    }

    fn everybody(&self) -> Everybody {
        let now_us = self.clock.now_us();
        let squads: Vec<_> = self.environments.read().iter().map(|(name, squad)| (name.clone(), squad.clone())).collect();
        squads.into_iter().map(|(name, squad)| (name, squad.roster.lock().remembered(now_us))).collect()
    }

    fn members_changed(&self) -> watch::Receiver<()> {
        self.members.subscribe()
    }

    fn squad(&self, environment: &str) -> Arc<Squad> {
        if let Some(squad) = self.environments.read().get(environment) {
            return squad.clone();
        }
        let new = || Arc::new(Squad { roster: Mutex::default(), changed: watch::Sender::new(0), members: self.members.clone() });
        self.environments.write().entry(environment.to_owned()).or_insert_with(new).clone()
    }
}

fn name(pod: &Pod) -> (&str, &str, &str) {
    (&pod.identity.namespace, &pod.identity.pod, &pod.identity.instance)
}

impl Squad {
    fn edit<R>(&self, edit: impl FnOnce(&mut Roster) -> R) -> R {
        let mut roster = self.roster.lock();
        let members = roster.comings_and_goings();
        let result = edit(&mut roster);
        let (version, came_or_went) = (roster.version(), roster.comings_and_goings() != members);
        drop(roster);
        if came_or_went {
            self.members.send_replace(());
        }
        self.changed.send_if_modified(|known| {
            let newer = version > *known;
            *known = version.max(*known);
            newer
        });
        result
    }
}

impl Presence {
    pub fn acked(&self, ack: Ack) {
        let now_us = self.clock.now_us();
        self.squad.edit(|roster| roster.acked(&self.instance, self.session, ack, now_us));
    }

    /// The sidecar leaves on purpose.
    pub fn goodbye(mut self) {
        self.goodbye = true;
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.squad.edit(|roster| roster.left(&self.instance, self.session, self.goodbye));
    }
}
