//! How far a revision has got among the pods of an environment.

use crate::clock::Micros;
use crate::flag::{ItemName, Position};
use crate::wire::fleet::{Latency, Propagation};
use crate::wire::replication::Rejection;

use super::member::{Answer, Member};

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub position: Position,
    /// A kill or restore of this flag, which may come ahead of the log.
    pub flag_key: Option<String>,
    /// What the revision changed, as far as the log still knows.
    pub items: Vec<ItemName>,
    /// `None` when the log does not know any more: then no latency is told.
    pub committed_us: Option<Micros>,
}

/// A pod that came after the commit is measured from its coming: before it there was nobody to tell.
pub fn progress<'m>(members: impl Iterator<Item = &'m Member>, target: &Target) -> Propagation {
    let mut progress = Propagation { revision: target.position.revision, ..Propagation::default() };
    let mut latencies: Vec<(u64, &str)> = Vec::new();
    for member in members {
        progress.pods += 1;
        let refused = member.rejected().iter().find(|rejection| target.is_refused_by(rejection));
        match answer(member, target) {
            Answer::Silent => progress.silent.push(member.name().to_owned()),
            _ if refused.is_some() => {
                progress.rejected.extend(refused.map(|rejection| (member.name().to_owned(), rejection.clone())));
            }
            Answer::Earlier => progress.applied += 1,
            Answer::At(at_us) => {
                progress.applied += 1;
                let asked_us = target.committed_us.map(|committed_us| committed_us.max(member.first_seen_us()));
                latencies.extend(asked_us.map(|asked_us| ((at_us - asked_us).max(0) as u64, member.name())));
            }
        }
    }
    progress.silent.sort();
    progress.rejected.sort_by(|(one, _), (other, _)| one.cmp(other));
    progress.done = progress.silent.is_empty();
    progress.latency = latency(latencies);
    progress
}

impl Target {
    /// A later version of an item that is refused as well says of the earlier one only what is held instead.
    fn is_refused_by(&self, Rejection { name, revision, held_revision, .. }: &Rejection) -> bool {
        let wanted = self.position.revision;
        *revision == wanted || (*revision > wanted && *held_revision < wanted && self.items.contains(name))
    }
}

fn answer(member: &Member, target: &Target) -> Answer {
    let by_log = member.has(target.position);
    let by_lane = target.flag_key.as_ref().map_or(Answer::Silent, |key| member.has_kill(key, target.position.revision));
    match (by_log, by_lane) {
        (Answer::At(one), Answer::At(other)) => Answer::At(one.min(other)),
        (Answer::Silent | Answer::Earlier, Answer::At(at_us)) => Answer::At(at_us),
        (by_log, _) => by_log,
    }
}

fn latency(mut latencies: Vec<(u64, &str)>) -> Option<Latency> {
    latencies.sort_unstable();
    let (slowest_us, slowest_pod) = *latencies.last()?;
    let at = |percent: usize| latencies[(latencies.len() * percent).div_ceil(100).max(1) - 1].0;
    Some(Latency { p50_us: at(50), p99_us: at(99), slowest_us, slowest_pod: slowest_pod.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fleet::roster::Roster;
    use crate::flag::Revision;
    use crate::wire::replication::{Ack, Identity, KillAck};

    fn at(revision: Revision) -> Position {
        Position { epoch: 1, revision }
    }

    fn ack(revision: Revision) -> Ack {
        Ack { position: at(revision), ..Ack::default() }
    }

    fn target(flag_key: Option<&str>) -> Target {
        Target { position: at(7), flag_key: flag_key.map(Into::into), items: vec![ItemName::flag("f")], committed_us: Some(100) }
    }

    /// Pods `pod-0`, `pod-1` ... that joined at 0, each acknowledging as told.
    fn roster(acks: &[Option<(Ack, Micros)>]) -> Roster {
        let mut roster = Roster::default();
        for (number, ack) in acks.iter().enumerate() {
            let name = format!("pod-{number}");
            let session = roster.join(Identity { instance: name.clone(), pod: name.clone(), ..Identity::default() }, None, 0);
            if let Some((ack, at_us)) = ack {
                roster.acked(&name, session, ack.clone(), *at_us);
            }
        }
        roster
    }

    #[test]
    fn percentiles_and_the_slowest_pod_by_name() {
        let acks: Vec<_> = (1..=100).map(|number| Some((ack(7), 100 + number * 10))).collect();
        let progress = progress(roster(&acks).members(), &target(None));
        let latency = Latency { p50_us: 500, p99_us: 990, slowest_us: 1000, slowest_pod: "pod-99".into() };
        assert_eq!((progress.applied, progress.done, progress.latency), (100, true, Some(latency)));
    }

    #[test]
    fn silent_pods_are_named_and_waited_for() {
        let roster = roster(&[Some((ack(7), 150)), Some((ack(6), 150)), None]);
        let progress = progress(roster.members(), &target(None));
        assert_eq!((progress.pods, progress.applied, progress.done), (3, 1, false));
        assert_eq!(progress.silent, ["pod-1", "pod-2"]);
    }

    #[test]
    fn a_kill_counts_when_it_came_ahead_of_the_log() {
        let kills = vec![KillAck { flag_key: "checkout".into(), revision: 7, applied_at_us: 0 }];
        let roster = roster(&[Some((Ack { kills, ..ack(3) }, 120))]);
        assert_eq!(progress(roster.members(), &target(Some("checkout"))).latency.unwrap().slowest_us, 20);
        assert_eq!(progress(roster.members(), &target(Some("search"))).applied, 0);
        assert_eq!(progress(roster.members(), &target(None)).applied, 0);
    }

    #[test]
    fn a_pod_that_refused_an_item_of_the_revision_is_named_and_not_counted_as_applied() {
        let rejection = |revision| Rejection { name: ItemName::flag("f"), revision, message: "regex".into(), held_revision: 2 };
        let rejects = |revision| Some((Ack { rejected: vec![rejection(revision)], ..ack(7) }, 120));
        let progress = progress(roster(&[rejects(7), rejects(4)]).members(), &target(None));
        assert_eq!((progress.applied, progress.done), (1, true));
        assert_eq!(progress.rejected, [("pod-0".into(), rejection(7))]);
    }

    #[test]
    fn a_pod_that_refused_a_later_version_too_did_not_apply_the_earlier_one() {
        let rejects = |key: &str, held_revision| {
            let rejection = Rejection { name: ItemName::flag(key), revision: 8, message: "regex".into(), held_revision };
            Some((Ack { rejected: vec![rejection], ..ack(8) }, 120))
        };
        let roster = roster(&[rejects("f", 2), rejects("f", 7), rejects("other", 2)]);
        let progress = progress(roster.members(), &target(None));
        assert_eq!((progress.applied, progress.rejected.len(), progress.rejected[0].0.as_str()), (2, 1, "pod-0"));
    }

    #[test]
    fn nobody_to_tell_is_done_at_once() {
        let progress = progress(std::iter::empty(), &target(None));
        assert!(progress.done && progress.latency.is_none());
    }

    #[test]
    fn a_commit_whose_time_is_forgotten_has_no_latency() {
        let roster = roster(&[Some((ack(7), 150))]);
        let progress = progress(roster.members(), &Target { committed_us: None, ..target(None) });
        assert_eq!((progress.applied, progress.latency), (1, None));
    }
}
