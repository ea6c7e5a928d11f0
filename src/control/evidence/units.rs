//! Units of an epoch, each counted once however many pods saw it: by the hash of its key, exactly.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::rollout::statistics::Arm;
use crate::wire::evidence::{Metric, Outcome, Shape, Unit};

/// Of one epoch: 24 bytes each, 16 more for each metric, and what a hash map leaves free. Units beyond are refused and counted.
pub const UNITS: usize = 1_000_000;

/// Seen in several variants: it says nothing of any.
pub(super) const CROSSOVER: u16 = u16::MAX;

#[derive(Debug, Clone, Default)]
pub(super) struct Units {
    known: HashMap<u64, Known>,
    /// x and y of each metric of each unit; y of a share or a mean is 1 when there was an outcome, and counts for nothing else.
    sums: Vec<[f64; 2]>,
    pub(super) crossover: u64,
    pub(super) refused: u64,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    first_ms: i64,
    /// Of its sums, in steps of as many as there are metrics.
    place: u32,
    variant: u16,
}

impl Units {
    /// A report counts once, so that what it adds is added once.
    pub(super) fn merge(&mut self, unit: &Unit, variant: u16, metrics: &[Metric], most: usize) {
        let count = self.known.len();
        let known = match self.known.entry(unit.hash) {
            Entry::Vacant(_) if count >= most => {
                self.refused += 1;
                return;
            }
            Entry::Vacant(free) => {
                self.sums.resize(self.sums.len() + metrics.len(), [0.0; 2]);
                self.crossover += u64::from(variant == CROSSOVER);
                free.insert(Known { first_ms: unit.first_ms, place: count as u32, variant })
            }
            Entry::Occupied(held) => held.into_mut(),
        };
        known.first_ms = known.first_ms.min(unit.first_ms);
        if known.variant != variant && known.variant != CROSSOVER {
            known.variant = CROSSOVER;
            self.crossover += 1;
        }
        let from = known.place as usize * metrics.len();
        for Outcome { metric, x, y } in &unit.outcomes {
            let (Some(sum), Some(Metric { shape, .. })) = (self.sums.get_mut(from + metric), metrics.get(*metric)) else { continue };
            match shape {
                Shape::Share => *sum = [sum[0].max(*x), 1.0],
                Shape::Mean => *sum = [sum[0] + x, 1.0],
                Shape::Ratio => *sum = [sum[0] + x, sum[1] + y],
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.known.capacity() * (size_of::<(u64, Known)>() + 1) + self.sums.capacity() * size_of::<[f64; 2]>()
    }

    /// By variant: how many units were first exposed by then, and how many of these had no outcome at all.
    pub(super) fn silent(&self, variants: usize, metrics: usize, exposed_until_ms: i64) -> Vec<[u64; 2]> {
        let mut arms = vec![[0; 2]; variants];
        for known in self.known.values().filter(|known| known.variant != CROSSOVER && known.first_ms <= exposed_until_ms) {
            let from = known.place as usize * metrics;
            let is_silent = self.sums.get(from..from + metrics).unwrap_or_default().iter().all(|sum| *sum == [0.0; 2]);
            if let Some([units, silent]) = arms.get_mut(usize::from(known.variant)) {
                *units += 1;
                *silent += u64::from(is_silent);
            }
        }
        arms
    }

    /// By variant: how many units were first exposed by then, and of each metric its sums; and how many came later. Means of an epoch have one
    /// origin, which may move from one look to the next.
    pub(super) fn arms(&self, variants: usize, metrics: &[Metric], exposed_until_ms: i64) -> (Vec<(u64, Vec<Arm>)>, u64) {
        let mut immature = 0;
        let mut taken = Vec::with_capacity(self.known.len());
        for known in self.known.values().filter(|known| known.variant != CROSSOVER) {
            if known.first_ms > exposed_until_ms {
                immature += 1;
            } else {
                let from = known.place as usize * metrics.len();
                taken.push((usize::from(known.variant), self.sums.get(from..from + metrics.len()).unwrap_or_default()));
            }
        }
        let of = |place: usize| taken.iter().filter_map(move |(_, sums)| sums.get(place)).map(|[x, _]| x).sum::<f64>();
        let none = |(place, metric): (usize, &Metric)| match metric.shape {
            Shape::Share => Arm::Binomial { n: 0, k: 0 },
            // About zero the variance of large values would cancel out.
            Shape::Mean => Arm::Mean { n: 0, sum: 0.0, sum_sq: 0.0, origin: of(place) / (taken.len().max(1) as f64) },
            Shape::Ratio => Arm::Ratio { m: 0, sx: 0.0, sy: 0.0, sxx: 0.0, syy: 0.0, sxy: 0.0 },
        };
        let empty: Vec<Arm> = metrics.iter().enumerate().map(none).collect();
        let mut arms = vec![(0, empty); variants];
        for (variant, sums) in taken {
            if let Some((units, totals)) = arms.get_mut(variant) {
                *units += 1;
                totals.iter_mut().zip(sums).for_each(|(total, sum)| add(total, *sum));
            }
        }
        (arms, immature)
    }

    /// Each unit as one record that makes it again.
    pub(super) fn records(&self, metrics: usize) -> impl Iterator<Item = (u16, Unit)> {
        self.known.iter().map(move |(hash, known)| {
            let from = known.place as usize * metrics;
            let sums = self.sums.get(from..from + metrics).unwrap_or_default().iter().enumerate();
            let outcomes = sums.filter(|(_, sum)| **sum != [0.0; 2]).map(|(metric, [x, y])| Outcome { metric, x: *x, y: *y });
            (known.variant, Unit { hash: *hash, first_ms: known.first_ms, is_apart: false, outcomes: outcomes.collect() })
        })
    }
}

/// One unit more.
fn add(arm: &mut Arm, [x, y]: [f64; 2]) {
    match arm {
        Arm::Binomial { n, k } => {
            *n += 1;
            *k += u64::from(x > 0.0);
        }
        Arm::Mean { n, sum, sum_sq, origin } => {
            let x = x - *origin;
            *n += 1;
            *sum += x;
            *sum_sq += x * x;
        }
        Arm::Ratio { m, sx, sy, sxx, syy, sxy } => {
            *m += 1;
            (*sx, *sy, *sxx, *syy, *sxy) = (*sx + x, *sy + y, *sxx + x * x, *syy + y * y, *sxy + x * y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> [Metric; 3] {
        [("paid", Shape::Share), ("revenue", Shape::Mean), ("errors", Shape::Ratio)]
            .map(|(name, shape)| Metric { name: name.to_owned(), shape })
    }

    fn unit(hash: u64, first_ms: i64, outcomes: &[(usize, f64, f64)]) -> Unit {
        let outcomes = outcomes.iter().map(|(metric, x, y)| Outcome { metric: *metric, x: *x, y: *y }).collect();
        Unit { hash, first_ms, is_apart: false, outcomes }
    }

    #[test]
    fn two_pods_that_saw_one_unit_count_it_once() {
        let mut units = Units::default();
        units.merge(&unit(1, 20, &[(0, 1.0, 0.0), (1, 5.0, 0.0), (2, 1.0, 4.0)]), 0, &metrics(), 10);
        units.merge(&unit(1, 10, &[(0, 1.0, 0.0), (1, 7.0, 0.0), (2, 1.0, 6.0)]), 0, &metrics(), 10);
        units.merge(&unit(2, 30, &[]), 0, &metrics(), 10);
        let (arms, immature) = units.arms(1, &metrics(), i64::MAX);
        let (count, sums) = &arms[0];
        assert_eq!((*count, immature, sums[0]), (2, 0, Arm::Binomial { n: 2, k: 1 }));
        assert_eq!((sums[1].estimate(), sums[2].estimate()), (Some(6.0), Some(0.2)));
        let Arm::Mean { n, sum, sum_sq, origin } = sums[1] else { panic!("{sums:?}") };
        assert_eq!((n, sum, sum_sq, origin), (2, 0.0, 72.0, 6.0));
        let (arms, immature) = units.arms(1, &metrics(), 29);
        assert_eq!((arms[0].0, immature), (1, 1), "its first exposure was the earlier one");
    }

    #[test]
    fn a_unit_of_two_variants_is_crossover_and_counts_in_none() {
        let mut units = Units::default();
        for variant in [0, 1, 0] {
            units.merge(&unit(1, 0, &[(0, 1.0, 0.0)]), variant, &metrics(), 10);
        }
        assert_eq!((units.crossover, units.arms(2, &metrics(), i64::MAX).0.iter().map(|(count, _)| *count).sum::<u64>()), (1, 0));
    }

    #[test]
    fn who_had_an_outcome_of_nothing_was_heard_of_and_who_had_none_was_not() {
        let mut units = Units::default();
        units.merge(&unit(1, 0, &[(0, 0.0, 0.0)]), 0, &metrics(), 10);
        units.merge(&unit(2, 0, &[(1, 0.0, 0.0)]), 1, &metrics(), 10);
        units.merge(&unit(3, 0, &[(2, 0.0, 1.0)]), 1, &metrics(), 10);
        (4..7).for_each(|hash| units.merge(&unit(hash, hash as i64, &[]), 1, &metrics(), 10));
        let mut again = Units::default();
        units.records(3).for_each(|(variant, unit)| again.merge(&unit, variant, &metrics(), 10));
        for units in [units, again] {
            assert_eq!(units.silent(2, 3, i64::MAX), [[1, 0], [5, 3]]);
            assert_eq!(units.silent(2, 3, 4), [[1, 0], [3, 1]], "two of them have time left");
        }
    }

    #[test]
    fn units_beyond_the_limit_are_refused_and_those_within_go_on() {
        let mut units = Units::default();
        (0..1_000_000).for_each(|hash| units.merge(&unit(hash, 0, &[]), 0, &metrics()[..1], 1_000));
        units.merge(&unit(5, 0, &[(0, 1.0, 0.0)]), 0, &metrics()[..1], 1_000);
        assert_eq!((units.len(), units.refused), (1_000, 999_000));
        assert_eq!(units.arms(1, &metrics()[..1], i64::MAX).0[0].1, [Arm::Binomial { n: 1_000, k: 1 }]);
        assert!(units.bytes() < 1_000 * 128, "{} bytes", units.bytes());
    }

    #[test]
    fn records_make_the_same_units_again() {
        let mut units = Units::default();
        for hash in 0..100 {
            units.merge(
                &unit(hash, hash as i64, &[(0, 1.0, 0.0), (1, hash as f64, 0.0), (2, 1.0, 2.0)]),
                (hash % 2) as u16,
                &metrics(),
                1_000,
            );
        }
        units.merge(&unit(3, 1, &[]), 0, &metrics(), 1_000);
        let mut again = Units::default();
        units.records(3).for_each(|(variant, unit)| again.merge(&unit, variant, &metrics(), 1_000));
        // Arm are added in another order, which the last digits show.
        let rounded = |units: &Units, until_ms| {
            let (arms, immature) = units.arms(2, &metrics(), until_ms);
            let digits = |sums: &Arm| sums.estimate().map(|estimate| (estimate * 1e9).round());
            let arms: Vec<_> = arms.iter().map(|(count, sums)| (*count, sums.iter().map(digits).collect::<Vec<_>>())).collect();
            (arms, immature)
        };
        for until_ms in [i64::MAX, 50] {
            assert_eq!(rounded(&again, until_ms), rounded(&units, until_ms));
        }
        assert_eq!((again.crossover, units.crossover), (1, 1));
    }
}
