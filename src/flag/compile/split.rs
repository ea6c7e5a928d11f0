//! Shares to ranges of buckets, exactly.

use super::super::bucket::{BUCKETS, Dealing, Murmur, Salt};
use super::super::compiled::Split;
use super::super::context::TARGETING_KEY;
use super::super::document::{self, FractionalVersion, Weight};
use super::super::limits;
use super::super::node::quoted;
use super::super::problem::{Path, Problems};
use super::super::ranges::{Share, lay_out};
use super::{Compiler, Names};

pub(super) fn split(
    flag_key: &str,
    names: &Names<'_>,
    split: &document::Split,
    default_variant: Option<u16>,
    path: Path<'_>,
    compiler: &mut Compiler<'_>,
) -> Option<Split> {
    let document::Split { by, salt, hash, weights, baseline } = split;
    let problems = compiler.problems();
    let explicit_baseline = names.optional(baseline, path.key("baseline"), problems);
    let place = path.key("weights");
    let known = weights.iter().filter_map(|(name, weight)| Some((name.as_str(), names.index(name, place.key(name), problems)?, *weight)));
    let known: Vec<(&str, u16, Weight)> = known.collect();
    if let Some(salt) = salt
        && (salt.is_empty() || salt.len() > limits::KEY_BYTES)
    {
        problems.found(path.key("salt"), quoted(salt), format!("text of 1 to {} bytes", limits::KEY_BYTES));
    }
    if *hash == document::Hash::Murmur3 && names.flag.fractional_version == FractionalVersion::V1 {
        problems.found(
            path.key("hash"),
            "`murmur3` with `fractionalVersion: 1`",
            "version 2 or 3: the first deals by percentages, not by buckets",
        );
    }
    let shares = (known.len() == weights.len()).then(|| shares(&known, place, problems))??;
    let by = match by.as_deref() {
        None | Some(TARGETING_KEY) => None,
        Some(attribute) => Some(compiler.name(attribute, path.key("by"))),
    };

    let preferred = [explicit_baseline, default_variant];
    let remainder = preferred.iter().flatten().find_map(|variant| shares.iter().position(|share| share.variant == *variant));
    let ranges = lay_out(&shares, remainder.unwrap_or(shares.len() - 1));
    Some(Split {
        by,
        dealing: dealing(flag_key, split, names.flag.fractional_version),
        ranges: ranges.into(),
        without_key: without_key(&shares, preferred),
    })
}

fn dealing(flag_key: &str, split: &document::Split, version: FractionalVersion) -> Dealing {
    let document::Split { by, salt, hash, .. } = split;
    let own = salt.as_deref().unwrap_or(flag_key);
    match hash {
        document::Hash::Metro => Dealing::Metro(Salt::new(own)),
        document::Hash::Murmur3 => {
            let is_by_key = by.as_deref().is_none_or(|by| by == TARGETING_KEY);
            Dealing::Murmur3(Murmur { version, salt: own.into(), is_implicit: is_by_key && salt.is_none() })
        }
    }
}

/// Whom has no key to bucket by is served what everybody is served, else the baseline, else the default variant. A variant of 0 % is served
/// to nobody, not to them either; when only such are left, the largest share is (of equal ones the first by name).
fn without_key(shares: &[Share], preferred: [Option<u16>; 2]) -> u16 {
    let everybody = shares.iter().find(|share| share.buckets == BUCKETS);
    let is_served = |variant: &u16| shares.iter().all(|share| share.variant != *variant || share.buckets > 0);
    let largest = || shares.iter().rev().max_by_key(|share| share.buckets).map_or(0, |share| share.variant);
    match everybody {
        Some(share) => share.variant,
        None => preferred.into_iter().flatten().find(is_served).unwrap_or_else(largest),
    }
}

/// Weights to buckets that sum up to [`BUCKETS`]: each its whole part, the rest to the largest remainders (of equal ones the first by name).
///
/// Raising one weight alone never takes a bucket from it: its own remainder grows or it has gained a bucket, and each other variant that
/// overtakes it with a new remainder has given up a bucket for that.
fn shares(weights: &[(&str, u16, Weight)], path: Path<'_>, problems: &mut Problems) -> Option<Vec<Share>> {
    let mut relative = 0_u128;
    let mut percent = 0_u128;
    let mut kinds = [false; 2];
    for (_, _, weight) in weights {
        match weight {
            Weight::Relative(share) => (relative, kinds[0]) = (relative + u128::from(*share), true),
            Weight::Percent(share) => (percent, kinds[1]) = (percent + u128::from(*share), true),
        }
    }
    let total = match kinds {
        [true, true] => {
            problems.found(path, "numbers and percentages", "one of them");
            return None;
        }
        [_, true] if percent != u128::from(BUCKETS) => {
            let sum = Weight::Percent(u32::try_from(percent).unwrap_or(u32::MAX));
            problems.found(path, format!("percentages that add up to {sum}"), "100%");
            return None;
        }
        [_, true] => percent,
        _ if relative == 0 => {
            problems.found(path, "no weight above 0", "at least one");
            return None;
        }
        _ => relative,
    };

    let mut shares = Vec::with_capacity(weights.len());
    let mut remainders = Vec::with_capacity(weights.len());
    for (index, (name, variant, weight)) in weights.iter().enumerate() {
        let weight = match weight {
            Weight::Relative(share) => u128::from(*share),
            Weight::Percent(share) => u128::from(*share),
        };
        let exact = weight * u128::from(BUCKETS);
        shares.push(Share { variant: *variant, buckets: (exact / total) as u32 });
        remainders.push((exact % total, std::cmp::Reverse(index)));
        if exact > 0 && exact < total {
            problems.found(path.key(name), "a share that is less than one of 1,000,000 buckets", "0, or at least 0.0001 % of all weights");
        }
    }
    let given: u32 = shares.iter().map(|share| share.buckets).sum();
    remainders.sort_unstable_by(|a, b| b.cmp(a));
    for (_, std::cmp::Reverse(index)) in remainders.into_iter().take((BUCKETS - given) as usize) {
        shares[index].buckets += 1;
    }
    Some(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(weights: &[u64]) -> Result<Vec<u32>, String> {
        let weights: Vec<_> = weights.iter().enumerate().map(|(index, weight)| ("v", index as u16, Weight::Relative(*weight))).collect();
        let mut problems = Problems::default();
        let shares = shares(&weights, Path::ROOT, &mut problems);
        problems.into_result(()).map_err(|problems| problems.to_string())?;
        Ok(shares.unwrap_or_default().iter().map(|share| share.buckets).collect())
    }

    #[test]
    fn shares_are_exact_and_sum_up() {
        assert_eq!(buckets(&[1, 99]), Ok(vec![10_000, 990_000]));
        assert_eq!(buckets(&[1, 1, 1]), Ok(vec![333_334, 333_333, 333_333]));
        assert_eq!(buckets(&[2, 1, 1, 2]), Ok(vec![333_333, 166_667, 166_667, 333_333]));
        assert_eq!(buckets(&[0, 7]), Ok(vec![0, 1_000_000]));
        assert_eq!(buckets(&[1, 999_999]), Ok(vec![1, 999_999]));
    }

    #[test]
    fn a_share_that_would_be_rounded_to_nobody_is_refused() {
        assert!(buckets(&[1, 1_000_000]).is_err());
        assert!(buckets(&[0, 0]).is_err());
    }

    #[test]
    fn without_a_key_nobody_gets_what_nobody_gets() {
        let shares = |buckets: [u32; 3]| [0, 1, 2].map(|index| Share { variant: index as u16, buckets: buckets[index] });
        assert_eq!(without_key(&shares([1_000_000, 0, 0]), [Some(1), None]), 0);
        assert_eq!(without_key(&shares([500_000, 500_000, 0]), [Some(1), Some(2)]), 1);
        assert_eq!(without_key(&shares([400_000, 600_000, 0]), [Some(2), None]), 1);
        assert_eq!(without_key(&shares([400_000, 600_000, 0]), [None, Some(9)]), 9);
    }
}
