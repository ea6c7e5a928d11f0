//! Messages of the control plane as they are printed: the names are those of the JSON output, so they are an interface.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value as Json;

use super::exit::Failure;
use crate::wire::v1;

/// A definition, a flag's or a segment's. `null` where there is none.
pub fn definition(bytes: &[u8]) -> Result<Json, Failure> {
    match bytes {
        [] => Ok(Json::Null),
        some => serde_json::from_slice(some)
            .map_err(|error| Failure::unable(format!("the control plane sent a definition that is not JSON: {error}"))),
    }
}

/// RFC 3339 in UTC, to the microsecond that the control plane knows.
pub fn time(at: Option<prost_types::Timestamp>) -> Option<String> {
    instant(at).map(|at| format!("{at:.6}"))
}

/// The same for people, to the second.
pub fn clock(at: Option<prost_types::Timestamp>) -> String {
    instant(at).map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"))
}

/// How long ago by this machine's clock; zero for what it thinks is still to come.
pub fn since(at: Option<prost_types::Timestamp>) -> Option<Duration> {
    Some(Duration::try_from(jiff::Timestamp::now().duration_since(instant(at)?)).unwrap_or_default())
}

fn instant(at: Option<prost_types::Timestamp>) -> Option<jiff::Timestamp> {
    let at = at?;
    jiff::Timestamp::new(at.seconds, at.nanos).ok()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    pub epoch: u64,
    pub revision: u64,
}

impl From<Option<v1::Position>> for Position {
    fn from(position: Option<v1::Position>) -> Self {
        let v1::Position { epoch, revision } = position.unwrap_or_default();
        Self { epoch, revision }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    pub kind: &'static str,
    pub key: String,
    pub before: Json,
    pub after: Json,
}

impl TryFrom<v1::ItemChange> for Change {
    type Error = Failure;

    fn try_from(change: v1::ItemChange) -> Result<Self, Failure> {
        Ok(Self { kind: kind(change.kind()), before: definition(&change.before)?, after: definition(&change.after)?, key: change.key })
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kill {
    pub revision: u64,
    pub actor: String,
    pub reason: String,
    pub at: Option<String>,
}

impl From<v1::KillRegister> for Kill {
    fn from(kill: v1::KillRegister) -> Self {
        let v1::KillRegister { flag_key: _, revision, killed: _, actor, reason, at_us } = kill;
        Self { revision, actor, reason, at: jiff::Timestamp::from_microsecond(at_us).ok().map(|at| format!("{at:.6}")) }
    }
}

pub fn kind(kind: v1::ItemKind) -> &'static str {
    match kind {
        v1::ItemKind::Segment => "segment",
        v1::ItemKind::Flag | v1::ItemKind::Unspecified => "flag",
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_in_rfc_3339() {
        let at = Some(prost_types::Timestamp { seconds: 1_795_224_612, nanos: 250_000_000 });
        assert_eq!(time(at), Some("2026-11-21T01:30:12.250000Z".to_owned()));
        assert_eq!(clock(at), "2026-11-21T01:30:12Z");
        assert_eq!((time(None), clock(None)), (None, "-".to_owned()));
    }

    #[test]
    fn a_time_that_is_still_to_come_is_no_time_ago() {
        let at = prost_types::Timestamp { seconds: jiff::Timestamp::now().as_second() + 3_600, nanos: 0 };
        assert_eq!(since(Some(at)), Some(Duration::ZERO));
    }
}
