//! Another percentage for the split that rolls out, the same people first.

use std::collections::BTreeMap;

use super::bucket::BUCKETS;
use super::document::{Flag, Serve, Split, Weight};
use super::problem::{Path, Problem, Problems};

impl Flag {
    /// The same flag, with `percent` of the traffic of its rolling split on the variants that are rolled out and the rest on its baseline.
    ///
    /// - The rolling split is the default split, else that of the last rule that has one. Rules before it stay as they are, and so do the
    ///   people that they serve.
    /// - Its baseline is the one that it names, else the flag's default variant; every other variant of it is rolled out. One takes the whole
    ///   percentage; several share it as they share now.
    ///
    /// Who has a rolled-out variant afterwards had it before, if the percentage is lower, and the reverse if it is higher (see `ranges`).
    /// Refused when there is no such split, no baseline in it, or when several variants have no share to keep.
    pub fn with_percent(&self, percent: f64) -> Result<Flag, Problems> {
        let mut problems = Problems::default();
        let path = Path::ROOT;
        let buckets = (percent * 10_000.0).round();
        if !(0.0..=f64::from(BUCKETS)).contains(&buckets) || buckets / 10_000.0 != percent {
            problems.found(path, format!("{percent} percent"), "0 to 100 percent with at most four decimals");
            return Err(problems);
        }
        let mut flag = self.clone();
        let default_variant = flag.default_variant.clone();
        let Some((split, place)) = flag.rolling_split_mut() else {
            problems.found(path, "no split", "a rule with a `split`, or a `defaultSplit`, whose percentage can be set");
            return Err(problems);
        };
        match weights(split, default_variant.as_deref(), buckets as u32) {
            Ok(weights) => split.weights = weights,
            Err((found, expected)) => {
                problems.push(Problem { path: place, line: None, found, expected: expected.to_owned(), hint: None });
                return Err(problems);
            }
        }
        Ok(flag)
    }

    /// The same flag, with these buckets for the treatments of its plan (see [`super::Plan::shares`]) and the rest for the baseline. `None`
    /// without a split.
    pub fn with_shares(&self, baseline: &str, shares: &BTreeMap<String, u32>) -> Option<Flag> {
        let mut flag = self.clone();
        let (split, _) = flag.rolling_split_mut()?;
        let given = shares.values().fold(0_u32, |sum, share| sum.saturating_add(*share)).min(BUCKETS);
        split.weights = shares.iter().map(|(name, share)| (name.clone(), Weight::Percent(*share))).collect();
        split.weights.insert(baseline.to_owned(), Weight::Percent(BUCKETS - given));
        split.baseline = Some(baseline.to_owned());
        Some(flag)
    }

    /// The split whose shares move, and where it is: the default split, else that of the last rule that has one.
    pub fn rolling_split(&self) -> Option<(&Split, String)> {
        if let Some(split) = &self.default_split {
            return Some((split, "defaultSplit".to_owned()));
        }
        self.rules.iter().enumerate().rev().find_map(|(index, rule)| match &rule.serve {
            Serve::Split(split) => Some((split, format!("rules[{index}].split"))),
            Serve::Variant(_) => None,
        })
    }

    fn rolling_split_mut(&mut self) -> Option<(&mut Split, String)> {
        if let Some(split) = &mut self.default_split {
            return Some((split, "defaultSplit".to_owned()));
        }
        self.rules.iter_mut().enumerate().rev().find_map(|(index, rule)| match &mut rule.serve {
            Serve::Split(split) => Some((split, format!("rules[{index}].split"))),
            Serve::Variant(_) => None,
        })
    }
}

type Weights = BTreeMap<String, Weight>;

fn weights(split: &Split, default_variant: Option<&str>, percent: u32) -> Result<Weights, (String, &'static str)> {
    let baseline = split.baseline.as_deref().or(default_variant).filter(|name| split.weights.contains_key(*name));
    let Some(baseline) = baseline else {
        return Err((
            "a split in which no variant is the baseline".to_owned(),
            "its `baseline`, or the flag's default variant, among the weights",
        ));
    };
    let rolled: Vec<(&String, u64)> = split
        .weights
        .iter()
        .filter(|(name, _)| *name != baseline)
        .map(|(name, weight)| match weight {
            Weight::Relative(share) => (name, *share),
            Weight::Percent(share) => (name, u64::from(*share)),
        })
        .collect();
    let mut shares = match rolled.as_slice() {
        [] => return Err((format!("a split of {baseline:?} alone"), "another variant, which is rolled out")),
        [(name, _)] => vec![((*name).clone(), percent)],
        several => proportional(several, percent).ok_or_else(|| {
            let names = several.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(", ");
            (
                format!("the variants {names}, all of them at 0"),
                "one variant that is rolled out, or shares to keep; set the weights in the document",
            )
        })?,
    };
    shares.push((baseline.to_owned(), BUCKETS - percent));
    Ok(shares.into_iter().map(|(name, share)| (name, Weight::Percent(share))).collect())
}

/// Whole parts first, then one each to the largest remainders, of equal ones the first by name.
fn proportional(rolled: &[(&String, u64)], percent: u32) -> Option<Vec<(String, u32)>> {
    let total: u128 = rolled.iter().map(|(_, share)| u128::from(*share)).sum();
    if total == 0 {
        return None;
    }
    let exact = |share: u64| u128::from(share) * u128::from(percent);
    let mut shares: Vec<(String, u32)> = rolled.iter().map(|(name, share)| ((*name).clone(), (exact(*share) / total) as u32)).collect();
    let given: u32 = shares.iter().map(|(_, share)| share).sum();
    let mut order: Vec<usize> = (0..rolled.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(exact(rolled[*index].1) % total));
    for index in order.into_iter().take((percent - given) as usize) {
        shares[index].1 += 1;
    }
    Some(shares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::Document;

    fn ramped(flag: &str, percent: f64) -> String {
        let document = Document::parse(&format!("flags: {{ f: {flag} }}")).unwrap();
        match document.flags["f"].with_percent(percent) {
            Ok(flag) => flag
                .rules
                .last()
                .map_or_else(
                    || flag.default_split.clone(),
                    |rule| match &rule.serve {
                        Serve::Split(split) => Some(split.clone()),
                        Serve::Variant(_) => None,
                    },
                )
                .unwrap()
                .weights
                .iter()
                .map(|(name, weight)| format!("{name}={weight}"))
                .collect::<Vec<_>>()
                .join(" "),
            Err(problems) => problems.to_string(),
        }
    }

    const ON_OFF: &str = "variants: { on: true, off: false }, defaultVariant: off";

    #[test]
    fn the_variant_that_is_not_the_default_gets_the_percentage() {
        let flag = format!("{{ {ON_OFF}, rules: [{{ split: {{ weights: {{ on: 20, off: 80 }} }} }}] }}");
        assert_eq!(ramped(&flag, 5.0), "off=95% on=5%");
        assert_eq!(ramped(&flag, 0.0001), "off=99.9999% on=0.0001%");
        assert_eq!(ramped(&flag, 0.0), "off=100% on=0%");
    }

    #[test]
    fn the_default_split_is_the_one_that_rolls() {
        assert_eq!(ramped(&format!("{{ {ON_OFF}, defaultSplit: {{ weights: {{ on: 1, off: 3 }} }} }}"), 50.0), "off=50% on=50%");
    }

    #[test]
    fn several_variants_keep_their_shares() {
        let flag = "{ variants: { a: x, b: y, c: z }, defaultVariant: c, rules: [{ split: { weights: { a: 20, b: 40, c: 40 } } }] }";
        assert_eq!(ramped(flag, 6.0), "a=2% b=4% c=94%");
        assert_eq!(ramped(flag, 0.0001), "a=0% b=0.0001% c=99.9999%");
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        for (flag, percent, part) in [
            (format!("{{ {ON_OFF} }}"), 5.0, "no split"),
            (format!("{{ {ON_OFF}, defaultSplit: {{ weights: {{ on: 1, off: 1 }} }} }}"), 100.5, "100.5 percent"),
            (format!("{{ {ON_OFF}, defaultSplit: {{ weights: {{ on: 1, off: 1 }} }} }}"), 0.00001, "0.00001 percent"),
            (format!("{{ {ON_OFF}, defaultSplit: {{ weights: {{ on: 1, off: 1 }} }} }}"), f64::NAN, "NaN percent"),
            (format!("{{ {ON_OFF}, defaultSplit: {{ weights: {{ off: 1 }} }} }}"), 5.0, "alone"),
            ("{ variants: { a: x, b: y }, defaultSplit: { weights: { a: 1, b: 1 } } }".to_owned(), 5.0, "no variant is the baseline"),
            (
                "{ variants: { a: x, b: y, c: z }, defaultVariant: c, defaultSplit: { weights: { a: 0, b: 0, c: 1 } } }".to_owned(),
                5.0,
                "all of them at 0",
            ),
        ] {
            assert!(ramped(&flag, percent).contains(part), "{}", ramped(&flag, percent));
        }
    }
}
