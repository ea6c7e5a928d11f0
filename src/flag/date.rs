//! Instants out of RFC 3339 text, without an allocation even when it is none. (jiff's errors allocate; it is the oracle of our tests.)

/// Seconds since 1970 and nanoseconds, UTC: ordered as instants are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Instant {
    pub(super) second: i64,
    pub(super) nanosecond: u32,
}

impl Instant {
    /// `2026-11-21T09:00:00Z`, `2026-11-21 09:00:00.5+01:00`. Date, time and offset are all there; of the fraction nine digits count.
    /// A leap second (`:60`) is the second before it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (&[y0, y1, y2, y3, b'-', mo0, mo1, b'-', d0, d1, b'T' | b't' | b' ', h0, h1, b':', mi0, mi1, b':', s0, s1], rest) =
            bytes.split_first_chunk::<19>()?
        else {
            return None;
        };
        let year = number(&[y0, y1, y2, y3])?;
        let (month, day) = (number(&[mo0, mo1])?, number(&[d0, d1])?);
        let (hour, minute, second) = (number(&[h0, h1])?, number(&[mi0, mi1])?, number(&[s0, s1])?);
        if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let (nanosecond, rest) = fraction(rest)?;
        let offset = offset(rest)?;
        let second = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second.min(59) - offset;
        Some(Self { second, nanosecond })
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

fn fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let Some(text) = text.strip_prefix(b".") else { return Some((0, text)) };
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if length == 0 {
        return None;
    }
    let (digits, rest) = text.split_at(length);
    let nanosecond = (0..9).fold(0, |sum, place| sum * 10 + digits.get(place).map_or(0, |digit| u32::from(digit - b'0')));
    Some((nanosecond, rest))
}

/// In seconds to the east.
fn offset(text: &[u8]) -> Option<i64> {
    match *text {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (number(&[h0, h1])?, number(&[m0, m1])?);
            let seconds = hours * 3_600 + minutes * 60;
            (hours <= 23 && minutes <= 59).then_some(if sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 of the proleptic Gregorian calendar, years counted from March so that the leap day comes last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn jiff(text: &str) -> Option<Instant> {
        let nanosecond = text.parse::<jiff::Timestamp>().ok()?.as_nanosecond();
        Some(Instant { second: nanosecond.div_euclid(1_000_000_000) as i64, nanosecond: nanosecond.rem_euclid(1_000_000_000) as u32 })
    }

    #[test]
    fn dates_are_instants_whatever_their_offset() {
        let instant = Instant::parse("2026-11-21T09:00:00Z").unwrap();
        assert_eq!(instant, Instant { second: 1_795_251_600, nanosecond: 0 });
        assert_eq!(Instant::parse("2026-11-21T10:00:00+01:00"), Some(instant));
        assert_eq!(Instant::parse("2026-11-21 03:30:00.000-05:30"), Some(instant));
        assert!(Instant::parse("2026-11-21T09:00:00.000000001Z").unwrap() > instant);
        assert_eq!(Instant::parse("1969-12-31T23:59:59Z").unwrap().second, -1);
    }

    #[test]
    fn what_lacks_a_part_is_no_date() {
        for text in [
            "",
            "2026-11-21",
            "2026-11-21T09:00Z",
            "2026-11-21T09:00:00",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T09:00:00.Z",
            "2026-11-21T09:00:00+0100",
            "2026-11-21T09:00:00Zulu",
            "1795251600",
        ] {
            assert_eq!(Instant::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn instants_are_those_of_jiff(year in 0..=9998_u32, month in 0..=13_u32, day in 0..=32_u32, hour in 0..=24_u32, minute in 0..=60_u32,
                                      second in 0..60_u32, fraction in "(\\.[0-9]{1,9})?", offset in "Z|[+-](0[0-9]|1[0-9]|2[0-3]):[0-5][0-9]") {
            let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{offset}");
            prop_assert_eq!(Instant::parse(&text), jiff(&text));
        }
    }
}
