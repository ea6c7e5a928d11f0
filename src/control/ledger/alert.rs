//! What an alert does to the flag of its hook. Pure: the clock, the hook and the state of the flag come in as arguments.
//!
//! An alert kills at most once, and never what somebody has restored since it began. So neither a copy of an old request nor a monitor that
//! repeats itself can stop what people have brought back: only an alert that begins anew does.

use std::collections::{BTreeMap, HashSet};

use crate::control::audit::sha256;
use crate::control::stored::{Hook, Identity, Seen};

/// An alert, whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    pub name: String,
    /// What its sender knows it by, the same as long as it lasts.
    pub fingerprint: String,
    /// When it began: Unix time, microseconds.
    pub began_us: i64,
    pub state: AlertState,
    pub labels: BTreeMap<String, String>,
    pub summary: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertState {
    Firing,
    Resolved,
    /// The sender could not look, which says nothing about the flag.
    NoData,
    /// Somebody tries whether the way is open.
    Test,
}

/// What was done with an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Killed,
    AlreadyKilled,
    Resolved,
    NoData,
    Test,
    /// The hook has acted on it before.
    Replay,
    TooOld,
    BeforeRestore,
}

/// What the hook and the flag are like when alerts come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation<'h> {
    pub hook: &'h Hook,
    pub is_killed: bool,
    pub restored_us: Option<i64>,
    pub now_us: i64,
}

/// Alerts that a hook remembers, and for how long.
const SEEN: usize = 1_000;
pub(super) const SEEN_FOR_US: i64 = 7 * 24 * 3_600 * 1_000_000;
/// Bytes of the evidence in the audit log, and of the reason that goes to every pod.
const EVIDENCE_BYTES: usize = 2 << 10;
const REASON_BYTES: usize = 300;

impl Verdict {
    pub const ALL: [Self; 8] =
        [Self::Killed, Self::AlreadyKilled, Self::Resolved, Self::NoData, Self::Test, Self::Replay, Self::TooOld, Self::BeforeRestore];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::AlreadyKilled => "already-killed",
            Self::Resolved => "ignored-resolved",
            Self::NoData => "ignored-no-data",
            Self::Test => "ignored-test",
            Self::Replay => "ignored-replay",
            Self::TooOld => "ignored-too-old",
            Self::BeforeRestore => "ignored-before-restore",
        }
    }

    /// It stands for a kill, so that it is remembered.
    pub fn is_acted_on(self) -> bool {
        matches!(self, Self::Killed | Self::AlreadyKilled)
    }
}

impl Alert {
    pub(super) fn identity(&self) -> Identity {
        let hash = sha256(format!("yardarm-alert {} {}", self.began_us, self.fingerprint).as_bytes());
        let mut identity = Identity::default();
        identity.copy_from_slice(&hash[..size_of::<Identity>()]);
        identity
    }

    /// Why the flag is killed, in a line.
    pub(super) fn reason(&self) -> String {
        let summary = if self.summary.is_empty() { String::new() } else { format!(": {}", self.summary) };
        bounded(&format!("alert {}{summary}", self.name), REASON_BYTES)
    }

    /// What is known of it, for the audit log; `further` alerts came with it.
    pub(super) fn evidence(&self, hook: &str, further: usize) -> String {
        let Self { name, fingerprint, began_us, labels, summary, .. } = self;
        let since = jiff::Timestamp::from_microsecond(*began_us).map(|at| format!(" since {at}")).unwrap_or_default();
        let more = if further == 0 { String::new() } else { format!(", with {further} more") };
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
        let text = format!("hook {hook}: alert {name}{since}{more}, fingerprint {fingerprint}, {{{}}} {summary}", labels.join(", "));
        bounded(text.trim_end(), EVIDENCE_BYTES)
    }
}

/// The verdict on each alert, in order.
pub(super) fn judge(alerts: &[Alert], situation: Situation<'_>) -> Vec<Verdict> {
    let Situation { hook, is_killed, restored_us, now_us } = situation;
    let mut seen: HashSet<Identity> = hook.seen.iter().map(|seen| seen.alert).collect();
    let mut verdict = |alert: &Alert| match alert.state {
        AlertState::Resolved => Verdict::Resolved,
        AlertState::NoData => Verdict::NoData,
        AlertState::Test => Verdict::Test,
        AlertState::Firing if seen.contains(&alert.identity()) => Verdict::Replay,
        AlertState::Firing if now_us.saturating_sub(alert.began_us) > hook.max_age_us => Verdict::TooOld,
        AlertState::Firing if restored_us.is_some_and(|restored_us| alert.began_us <= restored_us) => Verdict::BeforeRestore,
        AlertState::Firing => {
            seen.insert(alert.identity());
            if is_killed { Verdict::AlreadyKilled } else { Verdict::Killed }
        }
    };
    alerts.iter().map(&mut verdict).collect()
}

/// What the hook remembers after them: the newest.
pub(super) fn remember(hook: &Hook, acted_on: impl Iterator<Item = Identity>, now_us: i64) -> Vec<Seen> {
    let kept = hook.seen.iter().copied().filter(|seen| now_us.saturating_sub(seen.at_us) <= SEEN_FOR_US);
    let mut seen: Vec<Seen> = kept.chain(acted_on.map(|alert| Seen { alert, at_us: now_us })).collect();
    seen.drain(..seen.len().saturating_sub(SEEN));
    seen
}

/// One line of at most so many bytes.
fn bounded(text: &str, bytes: usize) -> String {
    const CUT: &str = "…";
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > bytes {
        let mut end = bytes - CUT.len();
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push_str(CUT);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_US: i64 = 3_600_000_000;
    const NOW_US: i64 = 1_000 * HOUR_US;

    fn hook() -> Hook {
        let (id, actor, reason) = ("h".to_owned(), "ana".to_owned(), "pages".to_owned());
        Hook { id, token: [0; 32], max_age_us: HOUR_US, created_us: 0, actor, reason, seen: Vec::new() }
    }

    fn alert(fingerprint: &str, began_us: i64, state: AlertState) -> Alert {
        let (name, summary) = ("HighErrorRate".to_owned(), "5xx above 4 %".to_owned());
        let labels = BTreeMap::from([("job".to_owned(), "shop".to_owned())]);
        Alert { name, fingerprint: fingerprint.to_owned(), began_us, state, labels, summary }
    }

    fn firing(fingerprint: &str, ago_us: i64) -> Alert {
        alert(fingerprint, NOW_US - ago_us, AlertState::Firing)
    }

    fn situation(hook: &Hook) -> Situation<'_> {
        Situation { hook, is_killed: false, restored_us: None, now_us: NOW_US }
    }

    #[test]
    fn only_what_fires_kills() {
        for (state, verdict) in [
            (AlertState::Firing, Verdict::Killed),
            (AlertState::Resolved, Verdict::Resolved),
            (AlertState::NoData, Verdict::NoData),
            (AlertState::Test, Verdict::Test),
        ] {
            assert_eq!(judge(&[alert("a", NOW_US, state)], situation(&hook())), [verdict]);
        }
        let killed = hook();
        let killed = Situation { is_killed: true, ..situation(&killed) };
        assert_eq!(judge(&[firing("a", 0)], killed), [Verdict::AlreadyKilled]);
    }

    #[test]
    fn an_alert_is_acted_on_once_also_within_one_request() {
        let mut hook = hook();
        let alerts = [firing("a", 5), firing("a", 5), firing("a", 4), firing("b", 5)];
        let verdicts = judge(&alerts, situation(&hook));
        assert_eq!(verdicts, [Verdict::Killed, Verdict::Replay, Verdict::Killed, Verdict::Killed]);
        hook.seen = remember(&hook, alerts.iter().map(Alert::identity), NOW_US);
        assert_eq!(judge(&alerts, situation(&hook)), [Verdict::Replay; 4]);
    }

    #[test]
    fn an_alert_of_long_ago_or_of_before_the_restore_is_ignored() {
        let hook = hook();
        assert_eq!(judge(&[firing("a", HOUR_US), firing("b", HOUR_US + 1)], situation(&hook)), [Verdict::Killed, Verdict::TooOld]);
        let restored = Situation { restored_us: Some(NOW_US - 10), ..situation(&hook) };
        assert_eq!(judge(&[firing("a", 9), firing("b", 10)], restored), [Verdict::Killed, Verdict::BeforeRestore]);
        // A clock that goes ahead, and numbers at their ends.
        assert_eq!(judge(&[firing("a", -HOUR_US)], situation(&hook)), [Verdict::Killed]);
        assert_eq!(judge(&[alert("a", i64::MIN, AlertState::Firing)], situation(&hook)), [Verdict::TooOld]);
    }

    #[test]
    fn the_newest_thousand_of_seven_days_are_remembered() {
        let mut hook = hook();
        let many: Vec<_> = (0..SEEN + 5).map(|number| firing(&number.to_string(), 0)).collect();
        hook.seen = remember(&hook, many.iter().map(Alert::identity), NOW_US);
        assert_eq!(hook.seen.len(), SEEN);
        assert_eq!(judge(&many[4..6], situation(&hook)), [Verdict::Killed, Verdict::Replay]);
        assert_eq!(remember(&hook, std::iter::empty(), NOW_US + SEEN_FOR_US).len(), SEEN);
        assert_eq!(remember(&hook, std::iter::empty(), NOW_US + SEEN_FOR_US + 1), []);
    }

    #[test]
    fn reason_and_evidence_are_single_lines_within_their_bounds() {
        let mut alert = firing("f00d", 0);
        assert_eq!(alert.reason(), "alert HighErrorRate: 5xx above 4 %");
        let told = alert.evidence("h1", 2);
        for part in ["hook h1", "HighErrorRate", "since 1970-02-11T16:00:00Z", "with 2 more", "f00d", "job=\"shop\"", "5xx above 4 %"] {
            assert!(told.contains(part), "{told}");
        }
        alert.summary = "line\nö".repeat(1_000);
        for (text, most) in [(alert.reason(), REASON_BYTES), (alert.evidence("h1", 0), EVIDENCE_BYTES)] {
            assert!(text.len() <= most && text.len() > most - 4 && text.ends_with('…') && !text.contains('\n'), "{text}");
        }
    }
}
