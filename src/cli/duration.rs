//! Durations as people write and read them.

use std::time::Duration;

/// `5s`, `500ms`, `1m 30s`.
pub fn parse(text: &str) -> Result<Duration, String> {
    let expected = || format!("`{text}` is not a duration; expected a number with a unit, as 500ms, 5s or 1m30s");
    let signed: jiff::SignedDuration = text.trim().parse().map_err(|_| expected())?;
    Duration::try_from(signed).map_err(|_| expected())
}

/// Microseconds as `0.04 ms`, `4.1 ms`, `132 ms`, `1.3 s`.
pub fn micros(us: u64) -> String {
    let ms = us as f64 / 1_000.0;
    match us {
        0..1_000 => format!("{ms:.2} ms"),
        1_000..100_000 => format!("{ms:.1} ms"),
        100_000..1_000_000 => format!("{ms:.0} ms"),
        _ => format!("{:.1} s", ms / 1_000.0),
    }
}

/// A span of time to read at a glance: `320 ms`, `4 s`, `12 min`, `3 h`, `5 d`.
pub fn rough(span: Duration) -> String {
    match span.as_secs() {
        0 => format!("{} ms", span.as_millis()),
        secs @ 1..120 => format!("{secs} s"),
        secs @ 120..7_200 => format!("{} min", secs / 60),
        secs @ 7_200..172_800 => format!("{} h", secs / 3_600),
        secs => format!("{} d", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(parse("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("1m30s"), Ok(Duration::from_secs(90)));
    }

    #[test]
    fn a_number_without_a_unit_or_below_zero_is_refused_with_an_example() {
        for text in ["5", "-5s", "", "soon"] {
            assert!(parse(text).is_err_and(|message| message.contains("500ms")), "{text}");
        }
    }

    #[test]
    fn latencies_keep_the_digits_that_matter() {
        let shown: Vec<_> = [40, 1_234, 99_940, 132_400, 1_340_000, 12_345_678].into_iter().map(micros).collect();
        assert_eq!(shown, ["0.04 ms", "1.2 ms", "99.9 ms", "132 ms", "1.3 s", "12.3 s"]);
    }

    #[test]
    fn ages_are_told_in_one_unit() {
        let shown: Vec<_> = [5, 4_000, 750_000, 10_800_000, 432_000_000].into_iter().map(|ms| rough(Duration::from_millis(ms))).collect();
        assert_eq!(shown, ["5 ms", "4 s", "12 min", "3 h", "5 d"]);
    }
}
