//! What came by webhooks, for `/metrics` of their port. No environment, flag or hook is named there: whoever may send may read it.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::control::ledger::Verdict;

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why a request was not carried out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Unknown,
    TooMany,
    NoJson,
    TooLarge,
    TooSlow,
    Malformed(String),
    Failed,
}

const ACCEPTED: usize = 0;
/// By their places in [`Counts::requests`].
const ANSWERS: [&str; 8] = ["accepted", "unknown", "too-many", "no-json", "too-large", "too-slow", "malformed", "failed"];

#[derive(Default)]
pub(super) struct Counts {
    requests: [AtomicU64; ANSWERS.len()],
    alerts: [AtomicU64; Verdict::ALL.len()],
}

impl Counts {
    pub(super) fn accepted(&self, verdicts: &[Verdict]) {
        self.requests[ACCEPTED].fetch_add(1, Ordering::Relaxed);
        for (count, verdict) in self.alerts.iter().zip(Verdict::ALL) {
            let came = verdicts.iter().filter(|came| **came == verdict).count() as u64;
            count.fetch_add(came, Ordering::Relaxed);
        }
    }

    pub(super) fn refused(&self, answer: &Answer) {
        let place = match answer {
            Answer::Unknown => 1,
            Answer::TooMany => 2,
            Answer::NoJson => 3,
            Answer::TooLarge => 4,
            Answer::TooSlow => 5,
            Answer::Malformed(_) => 6,
            Answer::Failed => 7,
        };
        self.requests[place].fetch_add(1, Ordering::Relaxed);
    }

    /// OpenMetrics text.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        let requests = ANSWERS.into_iter().zip(&self.requests);
        family(&mut text, "yardarm_webhook_requests", "Requests by what became of them", "answer", requests);
        let alerts = Verdict::ALL.into_iter().map(Verdict::as_str).zip(&self.alerts);
        family(&mut text, "yardarm_webhook_alerts", "Alerts by what was done with them", "outcome", alerts);
        text + "# EOF\n"
    }
}

fn family<'a>(text: &mut String, name: &str, help: &str, label: &str, counts: impl Iterator<Item = (&'static str, &'a AtomicU64)>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} counter");
    for (value, count) in counts {
        let _ = writeln!(text, "{name}_total{{{label}=\"{value}\"}} {}", count.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_and_every_verdict_has_a_series_of_its_own() {
        let counts = Counts::default();
        counts.accepted(&Verdict::ALL);
        let refused = [Answer::Unknown, Answer::TooMany, Answer::NoJson, Answer::TooLarge, Answer::TooSlow, Answer::Failed];
        refused.iter().chain([&Answer::Malformed(String::new())]).for_each(|answer| counts.refused(answer));
        let text = counts.render();
        assert_eq!(text.lines().filter(|line| line.ends_with(" 1")).count(), ANSWERS.len() + Verdict::ALL.len(), "{text}");
        assert!(text.contains("yardarm_webhook_alerts_total{outcome=\"killed\"} 1\n"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
