//! The events of a watch, each with its gRPC frame around it, so that one buffer serves every watcher.

use bytes::Bytes;

use crate::flag::{Position, Revision};
use crate::wire::v1;

use super::answer::{Answer, position_message, put_key, put_scalar, put_string, put_varint, write_message};
use super::value::put_delimited;

pub use v1::flag_change::Type as ChangeType;

/// A `FlagState`.
#[derive(Debug, Clone, Copy, Default)]
pub struct FlagState<'a> {
    pub key: &'a str,
    pub revision: Revision,
    pub killed: bool,
    /// Empty unless definitions were asked for.
    pub definition: &'a [u8],
    /// The `decisions` field as [`put_decision`] wrote it, empty unless values were asked for.
    pub decisions: &'a [u8],
}

/// A `WatchSnapshot` under construction.
#[derive(Debug, Default)]
pub struct SnapshotPart {
    flags: Vec<u8>,
}

/// One more element of [`FlagState::decisions`].
pub fn put_decision(decisions: &mut Vec<u8>, answer: &Answer<'_>) {
    put_key(decisions, 5, 2);
    put_varint(decisions, answer.len() as u64);
    answer.put(decisions);
}

/// A `WatchFlagsResponse` with a `FlagChange`. `origin_time_us` is Unix time in microseconds.
pub fn change_frame(change: ChangeType, flag: &FlagState<'_>, resume_at: Option<Position>, origin_time_us: i64) -> Bytes {
    let mut state = Vec::new();
    flag.put(&mut state);
    let mut event = Vec::with_capacity(state.len() + 64);
    put_scalar(&mut event, 1, change as u64);
    put_delimited(&mut event, 2, &state);
    if let Some(position) = resume_at {
        put_delimited(&mut event, 3, &position_message(position));
    }
    put_delimited(&mut event, 4, &timestamp_message(origin_time_us));
    response(2, &event)
}

pub fn heartbeat_frame(position: Position, age_ms: u64) -> Bytes {
    let mut event = Vec::new();
    put_delimited(&mut event, 1, &position_message(position));
    put_scalar(&mut event, 2, age_ms);
    response(3, &event)
}

impl SnapshotPart {
    pub fn push(&mut self, flag: &FlagState<'_>) {
        let mut state = Vec::new();
        flag.put(&mut state);
        put_delimited(&mut self.flags, 2, &state);
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.flags.len()
    }

    pub fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }

    /// `position`: in the last part.
    pub fn into_frame(self, position: Option<Position>) -> Bytes {
        let last = position.is_some();
        let mut event = Vec::with_capacity(self.flags.len() + 32);
        if let Some(position) = position {
            put_delimited(&mut event, 1, &position_message(position));
        }
        event.extend_from_slice(&self.flags);
        put_scalar(&mut event, 3, last.into());
        response(1, &event)
    }
}

impl FlagState<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        put_string(out, 1, self.key);
        put_scalar(out, 2, self.revision);
        put_scalar(out, 3, self.killed.into());
        if !self.definition.is_empty() {
            put_delimited(out, 4, self.definition);
        }
        out.extend_from_slice(self.decisions);
    }
}

/// A `google.protobuf.Timestamp`.
fn timestamp_message(micros: i64) -> Vec<u8> {
    let mut message = Vec::new();
    // Seconds may be negative; on the wire they are two's complement.
    put_scalar(&mut message, 1, micros.div_euclid(1_000_000) as u64);
    put_scalar(&mut message, 2, micros.rem_euclid(1_000_000) as u64 * 1000);
    message
}

fn response(event_number: u32, event: &[u8]) -> Bytes {
    let mut header = Vec::new();
    put_key(&mut header, event_number, 2);
    put_varint(&mut header, event.len() as u64);
    let mut out = Vec::new();
    write_message(&mut out, header.len() + event.len(), |out| {
        out.extend_from_slice(&header);
        out.extend_from_slice(event);
    });
    out.into()
}
