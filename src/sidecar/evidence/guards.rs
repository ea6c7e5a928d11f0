//! The guards of flags over the counters of this pod, by the same statistics as in the control plane: what is normal is learnt all the time, and
//! while the control plane is out of reach they decide. Pure: time comes in.
//!
//! A pod sees a part of the traffic, and any of all pods may be wrong: it needs as much more evidence as there are pods. What counts against
//! a flag is only what failed since the control plane is out of reach.

use std::collections::HashMap;

use crate::clock::Micros;
use crate::flag::{CompiledFlag, Position, Revision};
use crate::rollout::{Watch, arms_of};
use crate::wire::trip::Trip;

use super::epochs::{Epoch, Epochs};

#[derive(Debug, Default)]
pub(super) struct Guards(HashMap<Box<str>, Guarded>);

/// A flag that has guards.
#[derive(Debug)]
struct Guarded {
    flag: CompiledFlag,
    revision: Revision,
    /// With the place of its metric.
    watches: Vec<(usize, Watch)>,
}

/// A flag as it is served now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Serving {
    /// Of the definition.
    pub(super) revision: Revision,
    pub(super) is_killed: bool,
}

impl Guards {
    /// One second. `pods`: how many decide like this one; `None` while the control plane decides. The trips are of the flags whose guards
    /// fired, one of each.
    pub(super) fn tick(
        &mut self,
        epochs: &Epochs,
        serving: impl Fn(&str) -> Option<Serving>,
        pods: Option<u32>,
        now_us: Micros,
    ) -> Vec<Trip> {
        self.0.retain(|key, _| serving(key).is_some());
        let mut trips = Vec::new();
        for epoch in epochs.guarded() {
            let Some(Serving { revision, is_killed }) = serving(epoch.flag.key()) else { continue };
            // Of an older definition somebody may still be told; what is served now is what can be tripped.
            if epoch.revision == revision {
                trips.extend(self.watch(epoch).tick(epoch, pods.filter(|_| !is_killed), now_us));
            }
        }
        trips
    }

    /// Guards that stay as they are keep what they know of the baseline.
    fn watch(&mut self, epoch: &Epoch) -> &mut Guarded {
        let guarded = self.0.entry(epoch.flag.key().into()).or_insert_with(|| Guarded::new(epoch));
        if guarded.revision != epoch.revision {
            if guarded.flag.measured() == epoch.flag.measured() {
                (guarded.flag, guarded.revision) = (epoch.flag.clone(), epoch.revision);
                guarded.watches.iter_mut().for_each(|(_, watch)| watch.begin_revision());
            } else {
                *guarded = Guarded::new(epoch);
            }
        }
        guarded
    }
}

impl Guarded {
    fn new(epoch: &Epoch) -> Self {
        let (flag, revision) = (epoch.flag.clone(), epoch.revision);
        let guards = flag.measured().map(|measured| &*measured.guards).unwrap_or_default();
        let watch = |guard: &crate::flag::Guard| {
            let place = epoch.metrics().iter().position(|metric| *metric.name == *guard.metric)?;
            Some((place, Watch::new(guard.clone(), epoch.metrics()[place].direction, guards.len())))
        };
        let watches = guards.iter().filter_map(watch).collect();
        Self { flag, revision, watches }
    }

    fn tick(&mut self, epoch: &Epoch, pods: Option<u32>, now_us: Micros) -> Option<Trip> {
        let mut first = None;
        for (metric, watch) in &mut self.watches {
            let [treated, control] = arms_of(&self.flag, &epoch.counts(*metric, now_us));
            let fired = match pods {
                Some(pods) => watch.tick_as_one_of(pods.into(), &treated, &control),
                None => {
                    watch.observe(&treated, &control);
                    None
                }
            };
            // Every watch takes its tick, whichever fires first.
            first = first.or(fired);
        }
        let (flag, revision) = (self.flag.key().to_owned(), self.revision);
        // What is held is known where it is changed.
        first.map(|fired| Trip { flag, held: Position::default(), revision, at_us: now_us, fired })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::{Document, Segments, compile};

    const SECOND: Micros = 1_000_000;

    struct World {
        epochs: Epochs,
        guards: Guards,
        flag: CompiledFlag,
        revision: Revision,
        is_killed: bool,
        units: u64,
        now_us: Micros,
    }

    fn flag(bound: &str) -> CompiledFlag {
        let text = format!(
            "flags:
  checkout:
    variants: {{ new: true, old: false }}
    defaultVariant: old
    rules: [{{ split: {{ weights: {{ new: 0, old: 100 }} }} }}]
    metrics: {{ errors: {{ kind: binomial, direction: lower }} }}
    guard: [{bound}]
    rollout: {{ baseline: old, treatments: [new], stages: [{{ percent: 100 }}] }}
"
        );
        let document = Document::parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
        compile("checkout", &document.flags["checkout"], &Segments::default()).unwrap()
    }

    impl World {
        fn new(bound: &str) -> Self {
            let (epochs, guards) = (Epochs::default(), Guards::default());
            Self { epochs, guards, flag: flag(bound), revision: 3, is_killed: false, units: 0, now_us: 0 }
        }

        /// Outcomes of so many units of each variant, and how many of them failed: (all, failed).
        fn outcomes(&mut self, new: (u64, u64), old: (u64, u64)) {
            for (variant, (all, failed)) in [(0, new), (1, old)] {
                for number in 0..all {
                    self.units += 1;
                    let epoch = self.epochs.of(&self.flag, self.revision, self.now_us).unwrap();
                    epoch.outcome(variant, 0, self.units, true, Some(number < failed), self.now_us);
                }
            }
        }

        fn tick(&mut self, pods: Option<u32>) -> Vec<Trip> {
            self.now_us += SECOND;
            let serving = Serving { revision: self.revision, is_killed: self.is_killed };
            self.guards.tick(&self.epochs, |_| Some(serving), pods, self.now_us)
        }
    }

    const ABOVE: &str = "{ metric: errors, above: 0.05 }";
    const WORSE: &str = "{ metric: errors, worse: { absolute: 0.1 } }";

    #[test]
    fn it_trips_once_of_a_flag_that_fails_and_not_of_a_healthy_one() {
        let mut world = World::new(ABOVE);
        world.outcomes((40, 2), (40, 2));
        assert_eq!(world.tick(Some(1)), []);
        world.outcomes((40, 38), (40, 2));
        let trips = world.tick(Some(1));
        assert_eq!(trips.len(), 1);
        let Trip { flag, revision, fired, .. } = &trips[0];
        assert_eq!((flag.as_str(), *revision, fired.outcomes, fired.failures, fired.failing_units), ("checkout", 3, 80, 40, 16));
    }

    #[test]
    fn it_never_trips_while_the_control_plane_is_in_reach_and_what_failed_then_does_not_count() {
        let mut world = World::new(ABOVE);
        for _ in 0..10 {
            world.outcomes((40, 40), (0, 0));
            assert_eq!(world.tick(None), []);
        }
        assert_eq!(world.tick(Some(1)), []);
        world.outcomes((2, 2), (0, 0));
        assert_eq!(world.tick(Some(1)), [], "two failures are few");
    }

    #[test]
    fn what_is_normal_is_learnt_while_the_control_plane_is_in_reach() {
        let mut world = World::new(WORSE);
        world.outcomes((20, 10), (40, 20));
        world.tick(None);
        world.outcomes((40, 20), (0, 0));
        assert_eq!(world.tick(Some(1)), [], "half of the others fail as well");
        world.outcomes((80, 80), (0, 0));
        assert_eq!(world.tick(Some(1))[0].fired.allowed, 0.6);
    }

    #[test]
    fn an_attributable_guard_trips_for_what_the_flag_does_and_not_for_what_everybody_suffers() {
        const ATTRIBUTABLE: &str = "{ metric: errors, above: 0.05, attributable: true }";
        let mut world = World::new(ATTRIBUTABLE);
        for _ in 0..10 {
            world.outcomes((40, 38), (40, 38));
            assert_eq!(world.tick(Some(1)), []);
        }
        let mut world = World::new(ATTRIBUTABLE);
        world.outcomes((40, 38), (40, 2));
        let told = world.tick(Some(1)).remove(0).fired.to_string();
        assert!(told.contains("where 5% are allowed and 5% of the baseline fail"), "{told}");
    }

    #[test]
    fn many_pods_need_more_evidence_than_one() {
        let first = |pods| {
            let mut world = World::new(ABOVE);
            (1..100).find(|_| {
                world.outcomes((1, 1), (0, 0));
                !world.tick(Some(pods)).is_empty()
            })
        };
        let (one, thousand) = (first(1).unwrap(), first(1_000).unwrap());
        assert!(one < thousand, "after {one} and {thousand} failures");
    }

    #[test]
    fn one_broken_client_trips_nothing_and_units_that_failed_a_minute_ago_are_forgotten() {
        let mut world = World::new(ABOVE);
        for _ in 0..100 {
            let epoch = world.epochs.of(&world.flag, 3, world.now_us).unwrap();
            epoch.outcome(0, 0, 7, true, Some(true), world.now_us);
            assert_eq!(world.tick(Some(1)), []);
        }
        world.outcomes((2, 2), (0, 0));
        world.now_us += 60 * SECOND;
        assert_eq!(world.tick(Some(1)), [], "three units, and not within a minute");
    }

    #[test]
    fn a_killed_flag_is_not_tripped_and_another_definition_begins_anew() {
        let mut world = World::new(ABOVE);
        world.is_killed = true;
        world.outcomes((40, 40), (0, 0));
        assert_eq!(world.tick(Some(1)), []);
        (world.is_killed, world.revision) = (false, 4);
        assert_eq!(world.tick(Some(1)), [], "what failed was another definition");
        world.outcomes((5, 5), (0, 0));
        assert_eq!(world.tick(Some(1)), []);
        world.outcomes((40, 40), (0, 0));
        let fired = world.tick(Some(1)).remove(0).fired;
        assert_eq!((fired.outcomes, fired.failures), (45, 45));
    }

    #[test]
    fn a_flag_without_guards_is_not_looked_at() {
        let mut world = World::new("");
        world.outcomes((40, 40), (0, 0));
        assert_eq!(world.tick(Some(1)), []);
        assert!(world.guards.0.is_empty() && world.epochs.guarded().next().is_none());
    }
}
