//! Spans of time as documents write them: `90s`, `30m`, `24h`, `14d`, `2w`, or several together: `1h30m`.

use std::fmt;

/// Whole seconds, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(u64);

/// The longest: ten years.
const MOST_SECONDS: u64 = 10 * 366 * 86_400;
const UNITS: [(char, u64); 5] = [('w', 7 * 86_400), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

impl Span {
    pub const EXPECTED: &str = "a span of time such as 90s, 30m, 24h, 14d or 1h30m, from 1s to 10 years";

    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds)
    }

    pub const fn days(days: u64) -> Self {
        Self(days * 86_400)
    }

    pub fn as_seconds(self) -> u64 {
        self.0
    }

    pub fn as_micros(self) -> i64 {
        i64::try_from(self.0.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
    }

    /// Each unit at most once, the longer before the shorter.
    pub fn parse(text: &str) -> Option<Self> {
        let (mut rest, mut seconds, mut units) = (text, 0_u64, UNITS.as_slice());
        while !rest.is_empty() {
            let end = rest.find(|letter: char| !letter.is_ascii_digit())?;
            let number: u64 = rest[..end].parse().ok()?;
            let letter = rest[end..].chars().next()?;
            let place = units.iter().position(|(unit, _)| *unit == letter)?;
            seconds = seconds.checked_add(number.checked_mul(units[place].1)?)?;
            (rest, units) = (&rest[end + letter.len_utf8()..], &units[place + 1..]);
        }
        (1..=MOST_SECONDS).contains(&seconds).then_some(Self(seconds))
    }
}

/// The shortest spelling without weeks, because nobody counts months in them: `14d`, `1h30m`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        for (letter, seconds) in UNITS.into_iter().skip(1) {
            if rest >= seconds {
                write!(f, "{}{letter}", rest / seconds)?;
                rest %= seconds;
            }
        }
        if self.0 == 0 { f.write_str("0s") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_with_their_units() {
        let read = |text| Span::parse(text).map(Span::as_seconds);
        assert_eq!(read("90s"), Some(90));
        assert_eq!(read("1h30m"), Some(5_400));
        assert_eq!(read("2w"), Some(14 * 86_400));
        for text in ["", "5", "0s", "-1d", "1.5h", "30m1h", "1h1h", "d", "1 h", "99999d", "184467440737095516150s"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for text in ["1s", "1m1s", "24h", "36h", "14d", "3653d"] {
            let span = Span::parse(text).unwrap();
            assert_eq!(Span::parse(&span.to_string()), Some(span), "{text} is written as {span}");
        }
        assert_eq!(Span::seconds(129_600).to_string(), "1d12h");
    }
}
