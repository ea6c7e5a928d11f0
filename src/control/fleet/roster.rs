//! Who follows an environment and what each of them holds. Time is an argument.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Micros;
use crate::wire::replication::{Ack, Basis, Identity};

use super::member::Member;
use super::remembered::Remembered;

/// How long a sidecar that was lost without a goodbye is missed.
pub const REMEMBERED: Duration = Duration::from_secs(600);
/// A loss that is not older says nothing yet: who polls is seen only now and then.
const JUST_LOST: Duration = Duration::from_secs(60);
/// Lost sidecars that are remembered; beyond it the one that was lost first is forgotten early.
const LOST: usize = 50_000;

#[derive(Debug, Default)]
pub struct Roster {
    members: HashMap<Arc<str>, Member>,
    /// Processes of each pod that has a name: one, or two while one takes over from the other.
    by_pod: HashMap<PodName, Vec<Arc<str>>>,
    sessions: u64,
    /// Counts what a viewer would see.
    version: u64,
    /// Counts who comes, goes and is forgotten.
    comings_and_goings: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PodName {
    namespace: String,
    pod: String,
    node: String,
}

impl Roster {
    /// A stream begins. Its session takes the place of an earlier one of the same process.
    pub fn join(&mut self, identity: Identity, basis: Option<Basis>, now_us: Micros) -> u64 {
        let instance = self.meet(identity, now_us);
        self.sessions += 1;
        self.comings_and_goings += 1;
        let session = self.sessions;
        self.change(&instance, |member| {
            member.session = Some(session);
            if let Some(Basis { position, .. }) = basis {
                member.holds(position, now_us);
            }
            true
        });
        self.bound_the_lost();
        session
    }

    pub fn acked(&mut self, instance: &str, session: u64, ack: Ack, now_us: Micros) {
        self.change(instance, |member| member.session == Some(session) && member.acked(ack, now_us));
    }

    /// A sidecar without a stream asked, and said what it holds.
    pub fn polled(&mut self, identity: Identity, basis: Option<Basis>, ack: Option<Ack>, now_us: Micros) {
        let instance = self.meet(identity, now_us);
        self.change(&instance, |member| {
            let moved = basis.is_some_and(|Basis { position, .. }| member.holds(position, now_us));
            ack.is_some_and(|ack| member.acked(ack, now_us)) || moved
        });
        self.bound_the_lost();
    }

    /// A stream ended. After a goodbye the sidecar is not missed, nor when another process of its pod has come.
    pub fn left(&mut self, instance: &str, session: u64, goodbye: bool) {
        let Some(member) = self.members.get_mut(instance).filter(|member| member.session == Some(session)) else { return };
        member.session = None;
        self.comings_and_goings += 1;
        let pod = pod_name(&member.identity);
        self.change(instance, |_| true);
        let successor = pod.as_ref().is_some_and(|pod| self.processes(pod).any(|member| member.session.is_some()));
        if goodbye || successor {
            self.forget(instance);
        }
        self.bound_the_lost();
    }

    /// Forgets who has been lost for too long.
    pub fn sweep(&mut self, now_us: Micros) {
        let remembered_us = REMEMBERED.as_micros() as Micros;
        let is_over = |member: &&Member| member.session.is_none() && now_us.saturating_sub(member.missed_since_us()) >= remembered_us;
        let over: Vec<_> = self.members.values().filter(is_over).map(|member| member.identity.clone()).collect();
        for identity in over {
            self.forget(&identity.instance);
        }
        self.bound_the_lost();
    }

    /// Misses a sidecar that the process before this one knew, as if it had just been lost. It says nothing until it comes back.
    pub fn recall(&mut self, Remembered { identity, last_seen_us, missed_since_us }: Remembered, now_us: Micros) {
        let instance: Arc<str> = identity.instance.as_str().into();
        if self.members.contains_key(&instance) {
            return;
        }
        if let Some(pod) = pod_name(&identity) {
            self.by_pod.entry(pod).or_default().push(instance.clone());
        }
        self.version += 1;
        self.comings_and_goings += 1;
        let member = Member::recalled(identity, last_seen_us.min(now_us), missed_since_us.unwrap_or(now_us).min(now_us), self.version);
        self.members.insert(instance, member);
        self.bound_the_lost();
    }

    /// Everybody, for a process after this one to miss.
    pub fn remembered(&self, now_us: Micros) -> Vec<Remembered> {
        let just_lost_us = JUST_LOST.as_micros() as Micros;
        let remembered = |member: &Member| {
            let missed_since_us = member.missed_since_us();
            let is_missed = member.session.is_none() && now_us.saturating_sub(missed_since_us) >= just_lost_us;
            let (identity, last_seen_us) = (member.identity.clone(), member.last_seen_us);
            Remembered { identity, last_seen_us, missed_since_us: is_missed.then_some(missed_since_us) }
        };
        self.members.values().map(remembered).collect()
    }

    pub fn comings_and_goings(&self) -> u64 {
        self.comings_and_goings
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Notes a process, and forgets those of the same pod that are lost: a container that was restarted is not missed.
    fn meet(&mut self, identity: Identity, now_us: Micros) -> Arc<str> {
        let instance: Arc<str> = identity.instance.as_str().into();
        if let Some(pod) = pod_name(&identity) {
            let is_lost = |member: &&Member| member.session.is_none() && *member.identity.instance != *instance;
            let before: Vec<_> = self.processes(&pod).filter(is_lost).map(|member| member.identity.clone()).collect();
            for identity in before {
                self.forget(&identity.instance);
            }
            let processes = self.by_pod.entry(pod).or_default();
            if !processes.contains(&instance) {
                processes.push(instance.clone());
            }
        }
        if !self.members.contains_key(&instance) {
            self.members.insert(instance.clone(), Member::new(now_us));
            self.version += 1;
            self.comings_and_goings += 1;
        }
        self.change(&instance, |member| {
            let renamed = *member.identity != identity;
            member.identity = Arc::new(identity);
            member.last_seen_us = now_us;
            renamed
        });
        instance
    }

    fn processes(&self, pod: &PodName) -> impl Iterator<Item = &Member> {
        self.by_pod.get(pod).into_iter().flatten().filter_map(|instance| self.members.get(instance))
    }

    /// `edit` answers whether a viewer would see a difference.
    fn change(&mut self, instance: &str, edit: impl FnOnce(&mut Member) -> bool) {
        if let Some(member) = self.members.get_mut(instance)
            && edit(member)
        {
            self.version += 1;
            member.version = self.version;
        }
    }

    fn forget(&mut self, instance: &str) {
        let Some(member) = self.members.remove(instance) else { return };
        self.version += 1;
        self.comings_and_goings += 1;
        let Some(pod) = pod_name(&member.identity) else { return };
        if let Some(processes) = self.by_pod.get_mut(&pod) {
            processes.retain(|process| **process != *instance);
            if processes.is_empty() {
                self.by_pod.remove(&pod);
            }
        }
    }

    /// A tenth goes at a time, so that a mass loss does not search everybody for each.
    fn bound_the_lost(&mut self) {
        if self.members.len() <= LOST {
            return;
        }
        let mut lost: Vec<_> = self.members.values().filter(|member| member.session.is_none()).collect();
        if lost.len() <= LOST {
            return;
        }
        lost.sort_by_key(|member| member.last_seen_us);
        let first: Vec<_> = lost.iter().take(LOST / 10).map(|member| member.identity.clone()).collect();
        for identity in first {
            self.forget(&identity.instance);
        }
    }
}

/// Without a name nobody can tell which processes are of one pod.
fn pod_name(Identity { pod, namespace, node, .. }: &Identity) -> Option<PodName> {
    (!pod.is_empty()).then(|| PodName { namespace: namespace.clone(), pod: pod.clone(), node: node.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fleet::member::{ACKS, Answer};
    use crate::flag::{Position, Revision};
    use crate::wire::replication::KillAck;

    const MINUTE_US: Micros = 60_000_000;

    fn identity(instance: &str, pod: &str) -> Identity {
        Identity { instance: instance.into(), pod: pod.into(), ..Identity::default() }
    }

    fn ack(revision: Revision) -> Ack {
        Ack { position: at(revision), ..Ack::default() }
    }

    fn at(revision: Revision) -> Position {
        Position { epoch: 1, revision }
    }

    fn only(roster: &Roster) -> &Member {
        roster.members().next().unwrap()
    }

    #[test]
    fn the_first_word_of_a_revision_is_the_time_that_counts() {
        let mut roster = Roster::default();
        let session = roster.join(identity("i", "p"), None, 0);
        for (revision, now_us) in [(5, 10), (5, 20), (7, 30)] {
            roster.acked("i", session, ack(revision), now_us);
        }
        let member = only(&roster);
        assert_eq!(member.has(at(4)), Answer::At(10));
        assert_eq!(member.has(at(6)), Answer::At(30));
        assert_eq!(member.has(at(8)), Answer::Silent);
        assert_eq!(member.has(Position { epoch: 2, revision: 1 }), Answer::Silent);
    }

    #[test]
    fn a_time_that_is_not_kept_is_not_made_up() {
        let mut roster = Roster::default();
        let session = roster.join(identity("i", "p"), None, 0);
        for revision in 1..=ACKS as u64 + 3 {
            roster.acked("i", session, ack(revision), revision as Micros);
        }
        assert_eq!(only(&roster).has(at(2)), Answer::Earlier);
        assert_eq!(only(&roster).has(at(5)), Answer::At(5));
    }

    #[test]
    fn a_kill_that_came_ahead_of_the_log_counts_from_its_first_word() {
        let mut roster = Roster::default();
        let session = roster.join(identity("i", "p"), None, 0);
        let kill = KillAck { flag_key: "checkout".into(), revision: 9, applied_at_us: 0 };
        for now_us in [10, 20] {
            roster.acked("i", session, Ack { kills: vec![kill.clone()], ..ack(5) }, now_us);
        }
        let member = only(&roster);
        assert_eq!(member.has(at(9)), Answer::Silent);
        assert_eq!(member.has_kill("checkout", 9), Answer::At(10));
        assert_eq!(member.has_kill("checkout", 10), Answer::Silent);
        assert_eq!(member.has_kill("search", 9), Answer::Silent);
    }

    #[test]
    fn of_a_storm_of_kills_none_is_forgotten_while_it_is_reported() {
        let mut roster = Roster::default();
        let session = roster.join(identity("i", "p"), None, 0);
        let kill = |revision: Revision| KillAck { flag_key: format!("flag-{revision}"), revision, applied_at_us: 0 };
        for now_us in [10, 20, 30] {
            roster.acked("i", session, Ack { kills: (1..=200).map(kill).collect(), ..ack(0) }, now_us);
            for revision in [1, 100, 200] {
                assert_eq!(only(&roster).has_kill(&format!("flag-{revision}"), revision), Answer::At(10));
            }
        }
        roster.acked("i", session, Ack { kills: vec![kill(201)], ..ack(200) }, 40);
        assert_eq!(only(&roster).has_kill("flag-201", 201), Answer::At(40));
        assert_eq!(
            (1..=200).filter(|revision| only(&roster).has_kill(&format!("flag-{revision}"), *revision) != Answer::Silent).count(),
            31
        );
    }

    #[test]
    fn a_goodbye_is_not_missed_and_a_loss_is_for_ten_minutes() {
        let mut roster = Roster::default();
        let polite = roster.join(identity("polite", "a"), None, 0);
        let lost = roster.join(identity("lost", "b"), None, 0);
        roster.left("polite", polite, true);
        roster.left("lost", lost, false);
        assert_eq!((only(&roster).name(), only(&roster).view(0).connected), ("b", false));
        roster.sweep(10 * MINUTE_US - 1);
        assert_eq!(roster.len(), 1);
        roster.sweep(10 * MINUTE_US);
        assert_eq!(roster.len(), 0);
    }

    #[test]
    fn who_was_known_before_a_restart_is_silent_and_missed_for_ten_minutes_from_then_on() {
        let mut before = Roster::default();
        before.join(identity("here", "a"), None, 5);
        let lost = before.join(identity("lost", "b"), None, 5);
        before.left("lost", lost, false);
        let remembered = before.remembered(9 * MINUTE_US);

        // An hour later.
        let mut after = Roster::default();
        let now_us = 60 * MINUTE_US;
        remembered.into_iter().for_each(|pod| after.recall(pod, now_us));
        after.sweep(now_us);
        assert_eq!(only(&after).name(), "a", "the other was lost for ten minutes even before");
        assert_eq!((after.len(), only(&after).view(now_us).connected, only(&after).has(at(1))), (1, false, Answer::Silent));
        after.sweep(now_us + 10 * MINUTE_US - 1);
        assert_eq!(after.len(), 1);
        assert_eq!(after.remembered(now_us + 5 * MINUTE_US)[0].missed_since_us, Some(now_us), "a second restart does not begin anew");
        after.sweep(now_us + 10 * MINUTE_US);
        assert_eq!((after.len(), after.by_pod.len()), (0, 0));
    }

    #[test]
    fn who_comes_back_after_a_restart_takes_its_place() {
        for instance in ["the same process", "a new process"] {
            let mut before = Roster::default();
            before.join(identity("the same process", "a"), None, 0);
            let mut after = Roster::default();
            before.remembered(0).into_iter().for_each(|pod| after.recall(pod, 1));
            let session = after.join(identity(instance, "a"), None, 2);
            after.acked(instance, session, ack(5), 3);
            assert_eq!((after.len(), only(&after).has(at(5))), (1, Answer::At(3)), "{instance}");
            after.sweep(60 * MINUTE_US);
            assert_eq!(after.len(), 1);
        }
    }

    #[test]
    fn the_end_of_an_old_session_does_not_lose_the_new_one() {
        let mut roster = Roster::default();
        let old = roster.join(identity("i", "p"), None, 0);
        let new = roster.join(identity("i", "p"), None, 1);
        roster.left("i", old, false);
        roster.acked("i", old, ack(9), 2);
        assert!(only(&roster).view(2).connected);
        assert_eq!(only(&roster).has(at(9)), Answer::Silent);
        roster.acked("i", new, ack(9), 3);
        assert_eq!(only(&roster).has(at(9)), Answer::At(3));
    }

    #[test]
    fn a_restarted_pod_takes_the_place_of_its_last_process_in_either_order() {
        for loss_is_seen_first in [true, false] {
            let mut roster = Roster::default();
            let before = roster.join(identity("before", "checkout-1"), None, 0);
            if loss_is_seen_first {
                roster.left("before", before, false);
            }
            roster.join(identity("after", "checkout-1"), None, 1);
            roster.left("before", before, false);
            assert_eq!(roster.members().map(Member::instance).collect::<Vec<_>>(), ["after"]);
        }
    }

    #[test]
    fn sidecars_without_a_name_are_never_taken_for_each_other() {
        let mut roster = Roster::default();
        let one = roster.join(identity("one", ""), None, 0);
        roster.left("one", one, false);
        roster.join(identity("two", ""), None, 0);
        assert_eq!(roster.len(), 2);
    }

    #[test]
    fn only_what_a_viewer_would_see_counts_as_a_change() {
        let mut roster = Roster::default();
        let session = roster.join(identity("i", "p"), None, 0);
        roster.acked("i", session, ack(5), 10);
        let version = roster.version();
        roster.acked("i", session, Ack { age_ms: 70, ..ack(5) }, 1_000_000);
        assert_eq!(roster.version(), version);
        assert_eq!(only(&roster).view(2_000_000).age_ms, 1070);
        roster.acked("i", session, ack(6), 30);
        assert!(only(&roster).version() > version);
    }

    #[test]
    fn the_lost_are_bounded_and_the_first_are_forgotten_first() {
        let mut roster = Roster::default();
        for number in 0..=LOST {
            let name = number.to_string();
            let session = roster.join(identity(&name, &name), None, number as Micros);
            roster.left(&name, session, false);
        }
        assert_eq!(roster.len(), LOST + 1 - LOST / 10);
        assert_eq!(roster.by_pod.len(), roster.len());
        assert!(!roster.members.contains_key("0") && roster.members.contains_key(LOST.to_string().as_str()));
    }
}
