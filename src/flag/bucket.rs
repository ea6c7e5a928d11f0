//! Where somebody stands: a bucket from 0 to 999,999, out of a salt and a key. Integer arithmetic only.
//!
//! By `metro`, unless the split says otherwise:
//! `bucket = metrohash64(salt ++ 0xFF ++ key, seed 0) mod 1,000,000`, salt and key as UTF-8. The byte 0xFF is in no UTF-8 text, so that
//! no other salt and key spell the same bytes (`ab` + `c`, `a` + `bc`). Vectors are in `tests/data/flag/buckets.txt`; they never change, because
//! a new number for somebody is another prompt, price or checkout for them.
//!
//! By `murmur3` it is the place among weights of 1,000,000 that flagd's `fractional` gives: for the targeting key without a salt what
//! `fractional` hashes without a unit, and else the unit `/salt/key/`, a text. The strokes keep salt and key apart, and white space at their ends in:
//! flagd's daemon trims what `cat` puts together.

use std::fmt;

use super::context::Attribute;
use super::document::FractionalVersion;
use super::logic::{hash_of_joined, hash_of_keys};
use super::metro::Prefix;

pub const BUCKETS: u32 = 1_000_000;

const SEPARATOR: u8 = 0xFF;

/// A salt, hashed up to where the key begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Salt {
    hashed: Prefix,
    /// For explanations.
    text: Box<str>,
}

impl Salt {
    pub(super) fn new(salt: &str) -> Self {
        let mut prefix = salt.as_bytes().to_vec();
        prefix.push(SEPARATOR);
        Self { hashed: Prefix::new(&prefix), text: salt.into() }
    }

    #[inline]
    pub(super) fn bucket(&self, key: &[u8]) -> u32 {
        (self.hashed.metro64(key) % u64::from(BUCKETS)) as u32
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

/// The bucket of `key` in a split with this salt.
pub fn bucket(salt: &str, key: &str) -> u32 {
    Salt::new(salt).bucket(key.as_bytes())
}

/// How a split deals people.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Dealing {
    Metro(Salt),
    Murmur3(Murmur),
}

/// As flagd's `fractional` does.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Murmur {
    pub(super) version: FractionalVersion,
    /// The key of the flag, if there is none of its own.
    pub(super) salt: Box<str>,
    /// Without a unit: by the two keys.
    pub(super) is_implicit: bool,
}

impl Dealing {
    /// The bucket of whom the attribute names.
    pub(super) fn bucket_of(&self, attribute: Attribute<'_>) -> Option<u32> {
        match (self, attribute) {
            (Self::Metro(salt), attribute) => bucket_of(salt, attribute),
            (Self::Murmur3(murmur), Attribute::String(key)) if !key.is_empty() => Some(murmur.bucket(key)),
            (Self::Murmur3(_), _) => None,
        }
    }
}

impl Murmur {
    fn bucket(&self, key: &str) -> u32 {
        let Self { version, salt, is_implicit } = self;
        let hash = if *is_implicit { hash_of_keys(*version, salt, key) } else { hash_of_joined(*version, &["/", salt, "/", key, "/"]) };
        ((u64::from(hash) * u64::from(BUCKETS)) >> 32) as u32
    }
}

impl fmt::Display for Dealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metro(salt) => write!(f, "salt {:?}", salt.as_str()),
            Self::Murmur3(Murmur { salt, version, .. }) => write!(f, "salt {salt:?} by murmur3 (fractional version {})", version.number()),
        }
    }
}

/// The bucket of whom the attribute names: text that is not empty, or a whole number up to 2^53 - 1 by its decimal digits.
fn bucket_of(salt: &Salt, attribute: Attribute<'_>) -> Option<u32> {
    match attribute {
        Attribute::String("") => None,
        Attribute::String(text) => Some(salt.bucket(text.as_bytes())),
        Attribute::Number(number) if number.fract() == 0.0 && number.abs() <= super::value::EXACT_INTEGERS => {
            let mut buffer = [0; 20];
            Some(salt.bucket(digits(number as i64, &mut buffer)))
        }
        Attribute::Null | Attribute::Bool(_) | Attribute::Number(_) | Attribute::List | Attribute::Object => None,
    }
}

/// Decimal digits without an allocation.
fn digits(number: i64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut start = buffer.len();
    let mut rest = number.unsigned_abs();
    loop {
        start -= 1;
        buffer[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        start -= 1;
        buffer[start] = b'-';
    }
    &buffer[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_is_the_person_of_its_digits() {
        let salt = Salt::new("checkout");
        for number in [0_i64, 1, -1, 42, 9_007_199_254_740_991, -9_007_199_254_740_991] {
            assert_eq!(bucket_of(&salt, Attribute::Number(number as f64)), Some(bucket("checkout", &number.to_string())));
        }
        assert_eq!(bucket_of(&salt, Attribute::Number(-0.0)), Some(bucket("checkout", "0")));
    }

    #[test]
    fn what_is_no_key_has_no_bucket() {
        let salt = Salt::new("checkout");
        for attribute in [
            Attribute::Null,
            Attribute::Bool(true),
            Attribute::Number(0.5),
            Attribute::Number(f64::NAN),
            Attribute::Number(1e18),
            Attribute::String(""),
            Attribute::List,
            Attribute::Object,
        ] {
            assert_eq!(bucket_of(&salt, attribute), None, "{attribute:?}");
        }
    }

    #[test]
    fn buckets_are_those_of_an_independent_implementation() {
        let vectors = include_str!("../../tests/data/flag/buckets.txt").lines().filter(|line| !line.starts_with('#'));
        let mut count = 0;
        for line in vectors {
            let [salt, key, expected] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line:?} has not three parts") };
            assert_eq!(bucket(salt, key).to_string(), expected, "salt {salt:?}, key {key:?}");
            count += 1;
        }
        assert_eq!(count, 139);
    }

    #[test]
    fn salt_and_key_do_not_run_into_each_other() {
        assert_ne!(bucket("ab", "c"), bucket("a", "bc"));
    }
}
