//! Which buckets a variant has, so that a ramp moves as few people as it can.
//!
//! One variant of a split is its remainder (the baseline); it has whatever the others leave. The others are laid out in the order of their
//! names, two to an interval, growing towards each other from its two ends:
//!
//! ```text
//! one or two others (one interval)        three or four others (two intervals)
//! |a→ →  .. remainder ..  ← ←b|           |a→ ..  ←c|d→ ..  ←b|
//! ```
//!
//! What holds, each tried below on thousands of splits:
//! 1. Whoever raises the share of one variant and gives it from the remainder never moves anybody out of that variant.
//! 2. As long as no two variants of an interval need more than the interval has, the buckets of a variant depend on its own share alone:
//!    whatever else is raised or lowered, even at once, moves nobody of it. With up to three variants in a split that is always so.
//! 3. Nobody leaves the remainder unless some other variant grows.
//! 4. With two variants the layout does not depend on which of them is the remainder.
//!
//! A variant that needs more than its interval has takes from the free middles of the others. No layout can keep law 2 for more than three
//! variants: any two of a, b, c could have one half each, and three sets cannot be each other's complements.

use super::bucket::BUCKETS;

/// Buckets below `end`, and not below the range before, belong to `variant`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) end: u32,
    pub(super) variant: u16,
}

/// A variant of the split and how many buckets it has. In the order of the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) variant: u16,
    pub(super) buckets: u32,
}

/// `remainder` is an index into `shares`, whose buckets sum up to [`BUCKETS`].
pub(super) fn lay_out(shares: &[Share], remainder: usize) -> Vec<Range> {
    let others: Vec<Share> = shares.iter().enumerate().filter(|(index, _)| *index != remainder).map(|(_, share)| *share).collect();
    let intervals = others.len().div_ceil(2).max(1);
    let mut places = places(intervals);
    if remainder == 0 {
        // So that of two variants the first always has the low buckets: a new default must not swap everybody.
        places.swap(0, 1);
    }

    let mut free: Vec<Interval> = (0..intervals).map(|index| Interval::of(index, intervals)).collect();
    let seat = |interval: usize, end: End| {
        places.iter().zip(&others).find(|(place, _)| **place == (interval, end)).map_or(0, |(_, share)| share.buckets)
    };
    let mut taken: Vec<(u32, u32, u16)> = Vec::with_capacity(2 * others.len());
    let mut needs: Vec<Share> = Vec::new();
    for (share, (interval, end)) in others.iter().zip(&places) {
        let granted = granted(share.buckets, seat(*interval, end.other()), *end, Interval::of(*interval, intervals).length());
        taken.push(free[*interval].take(granted, *end, share.variant));
        needs.push(Share { buckets: share.buckets - granted, ..*share });
    }
    for need in &mut needs {
        for middle in &mut free {
            let granted = need.buckets.min(middle.length());
            taken.push(middle.take(granted, End::Low, need.variant));
            need.buckets -= granted;
        }
    }
    fill(taken, shares[remainder].variant)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Low,
    High,
}

impl End {
    fn other(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Interval {
    low: u32,
    high: u32,
}

impl Interval {
    fn of(index: usize, count: usize) -> Self {
        let bound = |index: usize| (index as u64 * u64::from(BUCKETS) / count as u64) as u32;
        Self { low: bound(index), high: bound(index + 1) }
    }

    fn length(self) -> u32 {
        self.high - self.low
    }

    fn take(&mut self, buckets: u32, end: End, variant: u16) -> (u32, u32, u16) {
        match end {
            End::Low => {
                self.low += buckets;
                (self.low - buckets, self.low, variant)
            }
            End::High => {
                self.high -= buckets;
                (self.high, self.high + buckets, variant)
            }
        }
    }
}

/// Where the first other variant begins, the second, and so on. The first two have the outer ends, so that a third leaves them alone.
fn places(intervals: usize) -> Vec<(usize, End)> {
    let last = intervals - 1;
    let mut places = vec![(0, End::Low), (last, End::High)];
    if last > 0 {
        places.extend([(0, End::High), (last, End::Low)]);
    }
    places.extend((1..last).flat_map(|interval| [(interval, End::Low), (interval, End::High)]));
    places
}

/// Of its interval a variant has what its opposite leaves, and half of it in any case.
fn granted(wanted: u32, opposite: u32, end: End, length: u32) -> u32 {
    let half = match end {
        End::Low => length / 2,
        End::High => length - length / 2,
    };
    wanted.min(length - opposite.min(length - half))
}

/// Sorted and without gaps: the remainder has what nobody took.
fn fill(mut taken: Vec<(u32, u32, u16)>, remainder: u16) -> Vec<Range> {
    taken.retain(|(low, high, _)| low < high);
    taken.sort_unstable();
    taken.push((BUCKETS, BUCKETS, remainder));
    let mut ranges: Vec<Range> = Vec::with_capacity(2 * taken.len());
    let mut add = |end: u32, variant: u16| match ranges.last_mut() {
        Some(last) if last.variant == variant => last.end = end,
        Some(last) if last.end >= end => {}
        _ if end == 0 => {}
        _ => ranges.push(Range { end, variant }),
    };
    for (low, high, variant) in taken {
        add(low, remainder);
        add(high, variant);
    }
    ranges
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `a..20 b..100`: ends in percent.
    fn laid_out(percents: &[u32], remainder: usize) -> String {
        let shares: Vec<Share> =
            percents.iter().enumerate().map(|(index, percent)| Share { variant: index as u16, buckets: percent * 10_000 }).collect();
        let ranges = lay_out(&shares, remainder);
        let written = ranges.iter().map(|range| format!("{}..{}", char::from(b'a' + range.variant as u8), range.end as f64 / 10_000.0));
        written.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn layouts_read_as_they_are_drawn() {
        for (percents, remainder, expected) in [
            (&[100][..], 0, "a..100"),
            (&[20, 80], 1, "a..20 b..100"),
            (&[20, 80], 0, "a..20 b..100"),
            (&[0, 100], 1, "b..100"),
            (&[100, 0], 1, "a..100"),
            (&[10, 20, 70], 2, "a..10 c..80 b..100"),
            (&[70, 10, 20], 0, "c..20 a..90 b..100"),
            (&[10, 70, 20], 1, "a..10 b..80 c..100"),
            (&[10, 10, 10, 70], 3, "a..10 d..40 c..50 d..90 b..100"),
            (&[10, 10, 10, 10, 60], 4, "a..10 e..40 c..50 d..60 e..90 b..100"),
            // a needs more than half: it takes the middle of the other interval.
            (&[60, 10, 10, 20], 3, "a..40 c..50 a..70 d..90 b..100"),
            (&[10, 10, 10, 10, 10, 50], 5, "a..10 f..23.3333 c..33.3333 e..43.3333 f..66.6666 d..76.6666 f..90 b..100"),
        ] {
            assert_eq!(laid_out(percents, remainder), expected, "{percents:?}, remainder {remainder}");
        }
    }

    const MANY: u32 = 2_000;

    /// Shares in buckets, and which of them is the remainder.
    fn split() -> impl Strategy<Value = (Vec<u32>, usize)> {
        proptest::collection::vec(prop_oneof![1 => Just(0), 2 => 1..20_u32, 2 => 1..1_000_u32], 2..9)
            .prop_filter("somebody has a share", |weights| weights.iter().sum::<u32>() > 0)
            .prop_flat_map(|weights| (Just(to_buckets(&weights)), 0..weights.len()))
    }

    fn to_buckets(weights: &[u32]) -> Vec<u32> {
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut buckets: Vec<u32> = weights.iter().map(|weight| (u64::from(*weight) * u64::from(BUCKETS) / total) as u32).collect();
        let rest = BUCKETS - buckets.iter().sum::<u32>();
        let largest = (0..buckets.len()).max_by_key(|index| buckets[*index]).unwrap_or_default();
        buckets[largest] += rest;
        buckets
    }

    /// The buckets of each variant, as sorted ranges.
    fn owned(buckets: &[u32], remainder: usize) -> Vec<Vec<(u32, u32)>> {
        let shares: Vec<Share> =
            buckets.iter().enumerate().map(|(index, buckets)| Share { variant: index as u16, buckets: *buckets }).collect();
        let mut owned = vec![Vec::new(); buckets.len()];
        let mut start = 0;
        for Range { end, variant } in lay_out(&shares, remainder) {
            assert!(start < end, "an empty range");
            owned[usize::from(variant)].push((start, end));
            start = end;
        }
        assert_eq!(start, BUCKETS, "a gap at the end");
        owned
    }

    fn is_within(inner: &[(u32, u32)], outer: &[(u32, u32)]) -> bool {
        inner.iter().all(|(low, high)| outer.iter().any(|(outer_low, outer_high)| outer_low <= low && high <= outer_high))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: MANY, ..ProptestConfig::default() })]

        #[test]
        fn everybody_has_the_share_that_was_asked_for((buckets, remainder) in split()) {
            for (owned, asked) in owned(&buckets, remainder).iter().zip(&buckets) {
                prop_assert_eq!(owned.iter().map(|(low, high)| high - low).sum::<u32>(), *asked);
            }
        }

        #[test]
        fn raising_one_variant_moves_nobody_out_of_it((mut buckets, remainder) in split(), raised in any::<prop::sample::Index>(), by in 0.0..=1.0_f64) {
            let raised = raised.index(buckets.len());
            let before = owned(&buckets, remainder);
            if raised != remainder {
                let gain = (f64::from(buckets[remainder]) * by) as u32;
                buckets[raised] += gain;
                buckets[remainder] -= gain;
            }
            prop_assert!(is_within(&before[raised], &owned(&buckets, remainder)[raised]));
        }

        #[test]
        fn a_variant_depends_on_its_own_share_alone_while_intervals_suffice(mut shares in proptest::collection::vec(0.0..=1.0_f64, 1..8),
                                                                            others in proptest::collection::vec(0.0..=1.0_f64, 8),
                                                                            kept in any::<prop::sample::Index>()) {
            // Nobody needs more than half an interval.
            let most = f64::from(BUCKETS / (2 * shares.len().div_ceil(2) as u32));
            let kept = kept.index(shares.len());
            let lay = |shares: &[f64]| {
                let mut buckets: Vec<u32> = shares.iter().map(|share| (share * most) as u32).collect();
                buckets.push(BUCKETS - buckets.iter().sum::<u32>());
                owned(&buckets, shares.len()).swap_remove(kept)
            };
            let before = lay(&shares);
            shares.iter_mut().zip(others).enumerate().filter(|(index, _)| *index != kept).for_each(|(_, (share, other))| *share = other);
            prop_assert_eq!(lay(&shares), before);
        }

        #[test]
        fn of_three_variants_none_ever_depends_on_another(a in 0..=BUCKETS, b in 0..=BUCKETS, other in 0..=BUCKETS, remainder in 0..3_usize) {
            let lay = |a: u32, b: u32| {
                let mut buckets = vec![a, b.min(BUCKETS - a)];
                buckets.insert(remainder, BUCKETS - buckets.iter().sum::<u32>());
                owned(&buckets, remainder)
            };
            let first = usize::from(remainder == 0);
            prop_assert_eq!(&lay(a, b)[first], &lay(a, other)[first]);
        }

        #[test]
        fn nobody_leaves_the_remainder_while_nobody_else_grows((buckets, remainder) in split(), factors in proptest::collection::vec(0.0..=1.0_f64, 9)) {
            let mut lowered: Vec<u32> = buckets.iter().zip(factors).map(|(buckets, factor)| (f64::from(*buckets) * factor) as u32).collect();
            lowered[remainder] = 0;
            lowered[remainder] = BUCKETS - lowered.iter().sum::<u32>();
            prop_assert!(is_within(&owned(&buckets, remainder)[remainder], &owned(&lowered, remainder)[remainder]));
        }

        #[test]
        fn of_two_variants_it_does_not_matter_which_is_the_remainder(a in 0..=BUCKETS) {
            prop_assert_eq!(owned(&[a, BUCKETS - a], 0), owned(&[a, BUCKETS - a], 1));
        }
    }
}
