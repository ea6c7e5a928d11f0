//! The answers of the evaluation service, written without an owned message in between.

use bytes::Bytes;

use crate::flag::{ErrorCode, Position, Reason};
use crate::wire::v1;

use super::value::{EncodedValue, put_delimited};

/// A `Decision` whose parts are borrowed from the question and from the flag that answered it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer<'a> {
    pub flag_key: &'a str,
    pub value: Option<EncodedValue<'a>>,
    /// Empty when the value is the caller's default.
    pub variant: &'a str,
    pub reason: Reason,
    pub rule: &'a str,
    pub bucket: Option<u32>,
    pub revision: u64,
    pub age_ms: u64,
    pub error: Option<ErrorCode>,
    pub message: &'a str,
}

/// A `Decision` of which all that is the same each time was written before, see [`Answer::constant`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prepared<'a> {
    pub constant: &'a [u8],
    pub bucket: Option<u32>,
    pub age_ms: u64,
}

/// A `Decision`, one way or the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reply<'a> {
    Prepared(Prepared<'a>),
    Whole(&'a Answer<'a>),
}

/// An `EvaluateResponse`, and by its shape also one element of an `EvaluateBatchResponse`.
#[derive(Debug, Clone, Copy)]
pub struct EvaluateResponse<'a> {
    reply: Reply<'a>,
    /// Of the reply, which is not worked out twice.
    len: usize,
}

/// The `error` of an `EvaluateStreamResponse`.
#[derive(Debug, Clone, Copy)]
pub struct StreamError<'a> {
    pub id: u64,
    /// `google.rpc.Code`.
    pub code: i32,
    pub message: &'a str,
}

/// An `EvaluateBatchResponse` under construction.
#[derive(Debug)]
pub struct BatchAnswer {
    position: Position,
    /// Room for the head of the frame, and the decisions.
    frame: Vec<u8>,
}

/// In front of each message of gRPC.
pub(super) const HEAD: usize = 5;

/// Of a flag with a short key and a boolean or a short text.
const USUAL_DECISION_BYTES: usize = 80;
const MOST_RESERVED: usize = 1_000;

/// A message of gRPC: a byte that says "not compressed", the length, the content.
pub fn write_message(out: &mut Vec<u8>, content_len: usize, content: impl FnOnce(&mut Vec<u8>)) {
    out.reserve(HEAD + content_len);
    out.push(0);
    out.extend_from_slice(&u32::try_from(content_len).unwrap_or(u32::MAX).to_be_bytes());
    let before = out.len();
    content(out);
    debug_assert_eq!(out.len() - before, content_len, "the length was written before the content");
}

impl Answer<'_> {
    pub fn len(&self) -> usize {
        self.constant_len() + varying_len(self.bucket, self.age_ms)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn put(&self, out: &mut Vec<u8>) {
        self.put_constant(out);
        put_varying(self.bucket, self.age_ms, out);
    }

    /// For [`Prepared`]: everything but the bucket and the age.
    pub fn constant(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.constant_len());
        self.put_constant(&mut out);
        out
    }

    pub fn constant_len(&self) -> usize {
        string_len(self.flag_key)
            + self.value.map_or(0, |value| delimited_len(value.len()))
            + string_len(self.variant)
            + scalar_len(self.reason_number())
            + string_len(self.rule)
            + scalar_len(self.revision)
            + scalar_len(self.error_number())
            + string_len(self.message)
    }

    fn put_constant(&self, out: &mut Vec<u8>) {
        put_string(out, 1, self.flag_key);
        if let Some(value) = self.value {
            put_key(out, 2, 2);
            put_varint(out, value.len() as u64);
            value.put(out);
        }
        put_string(out, 3, self.variant);
        put_scalar(out, 4, self.reason_number());
        put_string(out, 5, self.rule);
        put_scalar(out, 7, self.revision);
        put_scalar(out, 9, self.error_number());
        put_string(out, 10, self.message);
    }

    fn reason_number(&self) -> u64 {
        v1::Reason::from(self.reason) as u64
    }

    fn error_number(&self) -> u64 {
        self.error.map_or(0, |code| v1::ErrorCode::from(code) as u64)
    }
}

fn varying_len(bucket: Option<u32>, age_ms: u64) -> usize {
    // Presence is explicit: bucket 0 is written.
    bucket.map_or(0, |bucket| 1 + varint_len(bucket.into())) + scalar_len(age_ms)
}

#[inline]
fn put_varying(bucket: Option<u32>, age_ms: u64, out: &mut Vec<u8>) {
    // A key and ten bytes each. The whole array is appended and cut off again: a copy of a known length is no call.
    let mut bytes = [0; 22];
    let mut len = 0;
    if let Some(bucket) = bucket {
        bytes[0] = 6 << 3;
        len = 1 + varint(bucket.into(), &mut bytes[1..]);
    }
    if age_ms != 0 {
        bytes[len] = 8 << 3;
        len += 1 + varint(age_ms, &mut bytes[len + 1..]);
    }
    let end = out.len() + len;
    out.extend_from_slice(&bytes);
    out.truncate(end);
}

/// Writes the number, and says in how many bytes.
#[inline]
fn varint(mut value: u64, out: &mut [u8]) -> usize {
    let mut len = 0;
    while value >= 0x80 {
        out[len] = value as u8 | 0x80;
        value >>= 7;
        len += 1;
    }
    out[len] = value as u8;
    len + 1
}

impl Reply<'_> {
    #[inline]
    fn len(self) -> usize {
        match self {
            Self::Prepared(Prepared { constant, bucket, age_ms }) => constant.len() + varying_len(bucket, age_ms),
            Self::Whole(answer) => answer.len(),
        }
    }

    #[inline]
    fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Prepared(Prepared { constant, bucket, age_ms }) => {
                out.extend_from_slice(constant);
                put_varying(bucket, age_ms, out);
            }
            Self::Whole(answer) => answer.put(out),
        }
    }
}

impl<'a> EvaluateResponse<'a> {
    pub fn new(reply: Reply<'a>) -> Self {
        Self { reply, len: reply.len() }
    }

    pub fn len(self) -> usize {
        delimited_len(self.len)
    }

    pub fn is_empty(self) -> bool {
        false
    }

    pub fn put(self, out: &mut Vec<u8>) {
        put_key(out, 1, 2);
        put_varint(out, self.len as u64);
        self.reply.put(out);
    }

    /// As an `EvaluateStreamResponse` with the frame around it.
    pub fn write_to_stream(self, id: u64, out: &mut Vec<u8>) {
        write_message(out, scalar_len(id) + self.len(), |out| {
            put_scalar(out, 1, id);
            put_key(out, 2, 2);
            put_varint(out, self.len as u64);
            self.reply.put(out);
        });
    }
}

impl BatchAnswer {
    /// For about so many decisions.
    pub fn new(position: Position, decisions: usize) -> Self {
        let mut frame = Vec::with_capacity(64 + decisions.min(MOST_RESERVED) * USUAL_DECISION_BYTES);
        frame.extend_from_slice(&[0; HEAD]);
        Self { position, frame }
    }

    pub fn push(&mut self, reply: Reply<'_>) {
        EvaluateResponse::new(reply).put(&mut self.frame);
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.frame.len() - HEAD
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// With the frame around it.
    pub fn into_frame(self) -> Bytes {
        let Self { position, mut frame } = self;
        put_delimited(&mut frame, 2, &position_message(position));
        with_head(frame).into()
    }
}

/// The length into the room that was left for it.
pub(super) fn with_head(mut frame: Vec<u8>) -> Vec<u8> {
    let len = u32::try_from(frame.len() - HEAD).unwrap_or(u32::MAX);
    frame[1..HEAD].copy_from_slice(&len.to_be_bytes());
    frame
}

impl StreamError<'_> {
    pub fn write_to_stream(self, out: &mut Vec<u8>) {
        let mut error = Vec::new();
        put_scalar(&mut error, 1, u64::from(self.code.unsigned_abs()));
        put_string(&mut error, 2, self.message);
        write_message(out, scalar_len(self.id) + delimited_len(error.len()), |out| {
            put_scalar(out, 1, self.id);
            put_delimited(out, 3, &error);
        });
    }
}

pub(super) fn position_message(Position { epoch, revision }: Position) -> Vec<u8> {
    let mut message = Vec::new();
    put_scalar(&mut message, 1, epoch);
    put_scalar(&mut message, 2, revision);
    message
}

#[inline]
pub(super) fn put_key(out: &mut Vec<u8>, number: u32, wire_type: u8) {
    put_varint(out, u64::from(number << 3) | u64::from(wire_type));
}

#[inline]
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
pub(super) fn varint_len(value: u64) -> usize {
    // Seven bits a byte; zero takes one.
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

// Every field number of these messages is below 16, so that its key is one byte.

fn delimited_len(content: usize) -> usize {
    1 + varint_len(content as u64) + content
}

fn string_len(content: &str) -> usize {
    if content.is_empty() { 0 } else { delimited_len(content.len()) }
}

fn scalar_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

pub(super) fn put_string(out: &mut Vec<u8>, number: u32, content: &str) {
    if !content.is_empty() {
        put_delimited(out, number, content.as_bytes());
    }
}

pub(super) fn put_scalar(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_key(out, number, 0);
        put_varint(out, value);
    }
}
