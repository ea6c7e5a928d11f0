//! Versions by SemVer 2.0 precedence, borrowed from the text. (The `semver` crate allocates for a pre-release of more than eight bytes, and
//! its `VersionReq` lets a pre-release match only where the requirement names one; it is the oracle of our tests.)

use std::cmp::Ordering;
use std::fmt;

use smallvec::SmallVec;

/// Build metadata is dropped; it has no precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version<'t> {
    numbers: [u64; 3],
    pre: &'t str,
}

/// One of the comparisons of a range such as `>=2.3.0, <3.0.0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Comparison {
    operator: Operator,
    numbers: [u64; 3],
    pre: Box<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// Longer ones first, so that `<=` is not read as `<`.
const OPERATORS: [(&str, Operator); 6] = [
    ("!=", Operator::NotEqual),
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("<", Operator::Less),
    (">", Operator::Greater),
    ("=", Operator::Equal),
];

impl<'t> Version<'t> {
    /// `1.2.3`, `1.2.3-rc.1+build`, and with a leading `v` or parts missing: `v1.2`, `2-rc.1`. Leading zeros are no number.
    pub(super) fn parse(text: &'t str) -> Option<Self> {
        if let Some(numbers) = plain(text.as_bytes()) {
            return Some(Self { numbers, pre: "" });
        }
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
        if build.is_some_and(|build| !build.split('.').all(is_identifier)) || pre.is_some_and(|pre| !pre.split('.').all(is_pre_identifier))
        {
            return None;
        }
        let mut numbers = [0; 3];
        let mut parts = core.split('.');
        for (index, number) in numbers.iter_mut().enumerate() {
            match parts.next() {
                Some(part) => *number = numeric(part)?,
                None if index > 0 => break,
                None => return None,
            }
        }
        parts.next().is_none().then_some(Self { numbers, pre: pre.unwrap_or_default() })
    }
}

impl Version<'_> {
    /// flagd's `sem_ver` (flagd.md 2.2): `^` is the same major version, `~` the same major and minor. `None`: no operator of it.
    pub(super) fn holds(self, operator: &str, other: Version<'_>) -> Option<bool> {
        let ordering = precedence(self, other);
        Some(match operator {
            "=" => ordering.is_eq(),
            "!=" => ordering.is_ne(),
            "<" => ordering.is_lt(),
            "<=" => ordering.is_le(),
            ">" => ordering.is_gt(),
            ">=" => ordering.is_ge(),
            "^" => self.numbers[0] == other.numbers[0],
            "~" => self.numbers[..2] == other.numbers[..2],
            _ => return None,
        })
    }
}

/// Three numbers of up to nine digits, which nearly all versions are; `None`: it has to be looked at more closely.
#[inline]
fn plain(text: &[u8]) -> Option<[u64; 3]> {
    let (major, rest) = plain_number(text)?;
    let (minor, rest) = plain_number(rest.strip_prefix(b".")?)?;
    let (patch, rest) = plain_number(rest.strip_prefix(b".")?)?;
    rest.is_empty().then_some([major.into(), minor.into(), patch.into()])
}

/// A number of one to nine digits without a zero in front, and what follows it.
#[inline]
fn plain_number(text: &[u8]) -> Option<(u32, &[u8])> {
    let digit = |at: usize| text.get(at).map(|byte| u32::from(byte.wrapping_sub(b'0'))).filter(|digit| *digit < 10);
    let mut number = digit(0)?;
    let mut length = 1;
    while let Some(next) = digit(length) {
        if number == 0 || length == 9 {
            return None;
        }
        number = number * 10 + next;
        length += 1;
    }
    Some((number, &text[length..]))
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_pre_identifier(text: &str) -> bool {
    is_identifier(text) && (!text.bytes().all(|byte| byte.is_ascii_digit()) || text == "0" || !text.starts_with('0'))
}

fn numeric(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_number.then(|| text.parse().ok()).flatten()
}

fn precedence(a: Version<'_>, b: Version<'_>) -> Ordering {
    a.numbers.cmp(&b.numbers).then_with(|| match (a.pre, b.pre) {
        ("", "") => Ordering::Equal,
        ("", _) => Ordering::Greater,
        (_, "") => Ordering::Less,
        (a, b) => identifiers(a, b),
    })
}

fn identifiers(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let ordering = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => identifier(a, b),
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
}

/// Numbers, of any length, by value and before words; words by their bytes.
fn identifier(a: &str, b: &str) -> Ordering {
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match (is_number(a), is_number(b)) {
        (true, true) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.cmp(b),
    }
}

impl Comparison {
    /// What is wrong, as what was found, when the range is none.
    pub(super) fn parse_range(range: &str) -> Result<SmallVec<[Self; 2]>, String> {
        range.split(',').map(|comparison| Self::parse(comparison.trim())).collect()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (sign, operator) =
            OPERATORS.into_iter().find(|(sign, _)| text.starts_with(sign)).ok_or_else(|| format!("{text:?}, which has no operator"))?;
        let version = text[sign.len()..].trim();
        let Version { numbers, pre } = Version::parse(version).ok_or_else(|| format!("{version:?}, which is no version"))?;
        Ok(Self { operator, numbers, pre: pre.into() })
    }

    /// The sign and the version, in full.
    pub(super) fn parts(&self) -> (&'static str, String) {
        let sign = OPERATORS.iter().find(|(_, operator)| *operator == self.operator).map_or("", |(sign, _)| *sign);
        let [major, minor, patch] = self.numbers;
        let pre = if self.pre.is_empty() { String::new() } else { format!("-{}", self.pre) };
        (sign, format!("{major}.{minor}.{patch}{pre}"))
    }

    pub(super) fn holds(&self, version: Version<'_>) -> bool {
        let ordering = precedence(version, Version { numbers: self.numbers, pre: &self.pre });
        match self.operator {
            Operator::Equal => ordering.is_eq(),
            Operator::NotEqual => ordering.is_ne(),
            Operator::Less => ordering.is_lt(),
            Operator::AtMost => ordering.is_le(),
            Operator::Greater => ordering.is_gt(),
            Operator::AtLeast => ordering.is_ge(),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, version) = self.parts();
        write!(f, "{sign}{version}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn satisfies(range: &str, version: &str) -> bool {
        let version = Version::parse(version).unwrap();
        Comparison::parse_range(range).unwrap().iter().all(|comparison| comparison.holds(version))
    }

    #[test]
    fn a_pre_release_is_before_its_release_and_nothing_else_is_special_about_it() {
        for (range, version, expected) in [
            (">=2.3.0", "2.3.0", true),
            (">=2.3.0", "2.3.0-rc.1", false),
            (">=2.3.0", "2.4.0-rc.1", true),
            ("<3.0.0", "3.0.0-rc.1", true),
            (">=2.3.0, <3.0.0", "2.9.9", true),
            (">=2.3.0, <3.0.0", "3.0.0", false),
            ("=2.3.0", "2.3.0+build.7", true),
            ("=2.3", "v2.3.0", true),
            ("!=2.3.0", "2.3.1", true),
            (">1.0.0-alpha.9", "1.0.0-alpha.10", true),
            (">1.0.0-alpha.beta", "1.0.0-alpha.9", false),
        ] {
            assert_eq!(satisfies(range, version), expected, "{version} {range}");
        }
    }

    #[test]
    fn what_is_no_version_is_none() {
        for text in ["", "v", "1.2.3.4", "01.2.3", "1.2.x", "1.2.3-", "1.2.3-01", "1.2.3+", " 1.2.3", "99999999999999999999.0.0"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
        for range in ["", "1.2.3", "^1.2.3", "~1.2", ">=1.2.3 <2.0.0", ">="] {
            assert!(Comparison::parse_range(range).is_err(), "{range}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_the_semver_crate(a in "[0-3]\\.[0-3]\\.[0-3](-(0|[1-9][0-9]?|[a-c0-9]{0,2}[a-c])(\\.(0|[1-9]|[a-c-]{1,2})){0,2})?(\\+[a-c0-9]{1,3})?",
                                                 b in "[0-3]\\.[0-3]\\.[0-3](-(0|[1-9][0-9]?|[a-c0-9]{0,2}[a-c])(\\.(0|[1-9]|[a-c-]{1,2})){0,2})?") {
            let theirs = semver::Version::parse(&a).unwrap().cmp_precedence(&semver::Version::parse(&b).unwrap());
            prop_assert_eq!(precedence(Version::parse(&a).unwrap(), Version::parse(&b).unwrap()), theirs);
        }

        #[test]
        fn what_the_semver_crate_reads_we_read(text in "[0-9a-z.+-]{0,12}") {
            if semver::Version::parse(&text).is_ok() {
                prop_assert!(Version::parse(&text).is_some());
            }
        }
    }
}
