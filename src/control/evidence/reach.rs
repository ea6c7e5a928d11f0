//! About how many people saw a variant, over all revisions. For people to read: a test that was fed with it would be wrong in half of all
//! healthy cases with a million people (statistics of rollouts count exactly).

use std::collections::BTreeMap;

use datasketches::hll::{HllSketch, HllType};

/// 2^14 registers: 0.8 % off at the usual deviation, 16 KiB of a variant that many saw.
const REGISTERS_LOG2: u8 = 14;
/// Variants of one flag, of all revisions.
const VARIANTS: usize = 1_000;

#[derive(Debug, Clone, Default)]
pub(super) struct Reach(BTreeMap<String, HllSketch>);

impl Reach {
    pub(super) fn saw(&mut self, variant: &str, unit: u64) {
        if let Some(sketch) = self.0.get_mut(variant) {
            return sketch.update(unit);
        }
        if self.0.len() < VARIANTS
            && let Ok(mut sketch) = HllSketch::new(REGISTERS_LOG2, HllType::Hll8)
        {
            sketch.update(unit);
            self.0.insert(variant.to_owned(), sketch);
        }
    }

    pub(super) fn estimates(&self) -> Vec<(String, f64)> {
        self.0.iter().map(|(variant, sketch)| (variant.clone(), sketch.estimate())).collect()
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.values().map(HllSketch::estimated_size).sum()
    }

    pub(super) fn encode(&self) -> BTreeMap<String, Vec<u8>> {
        self.0.iter().map(|(variant, sketch)| (variant.clone(), sketch.serialize())).collect()
    }

    /// `None`: it is damaged.
    pub(super) fn decode(encoded: BTreeMap<String, Vec<u8>>) -> Option<Self> {
        let sketches = encoded.into_iter().map(|(variant, bytes)| Some((variant, HllSketch::deserialize(&bytes).ok()?)));
        sketches.collect::<Option<_>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_thousand_people_are_told_within_three_percent_also_after_a_restart() {
        let mut reach = Reach::default();
        for _ in 0..2 {
            (0..100_000_u64).for_each(|unit| reach.saw("on", unit));
        }
        let again = Reach::decode(reach.encode()).unwrap();
        for reach in [&reach, &again] {
            let [(variant, people)] = &reach.estimates()[..] else { panic!("{reach:?}") };
            assert!(variant == "on" && (97_000.0..103_000.0).contains(people), "{people}");
        }
    }
}
