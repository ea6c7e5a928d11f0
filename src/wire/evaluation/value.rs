//! A variant's value as an encoded `google.protobuf.Value`.

use bytes::Bytes;
use serde_json::Value as Json;

use crate::flag::Value;

use super::answer::{put_key, put_varint, varint_len};

/// Bytes of a `google.protobuf.Value`. Scalars are written where they are needed; objects are worth keeping, see [`encode_value`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EncodedValue<'a> {
    Bool(bool),
    Number(f64),
    String(&'a str),
    /// The whole message.
    Raw(&'a [u8]),
}

/// Encodes once what is answered often.
pub fn encode_value(value: &Value) -> Bytes {
    let mut out = Vec::new();
    match value {
        Value::Bool(value) => EncodedValue::Bool(*value).put(&mut out),
        Value::Number(value) => EncodedValue::Number(*value).put(&mut out),
        Value::String(value) => EncodedValue::String(value).put(&mut out),
        Value::Object(fields) => put_delimited(&mut out, 5, &struct_message(fields)),
    }
    out.into()
}

impl EncodedValue<'_> {
    pub(super) fn len(self) -> usize {
        match self {
            Self::Bool(_) => 2,
            Self::Number(_) => 9,
            Self::String(value) => 1 + varint_len(value.len() as u64) + value.len(),
            Self::Raw(message) => message.len(),
        }
    }

    pub fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(value) => out.extend_from_slice(&[4 << 3, u8::from(value)]),
            Self::Number(value) => {
                out.push(2 << 3 | 1);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Self::String(value) => put_delimited(out, 3, value.as_bytes()),
            Self::Raw(message) => out.extend_from_slice(message),
        }
    }
}

/// A `google.protobuf.Struct`.
pub fn struct_message(fields: &serde_json::Map<String, Json>) -> Vec<u8> {
    let (mut message, mut entry) = (Vec::new(), Vec::new());
    for (name, value) in fields {
        entry.clear();
        put_delimited(&mut entry, 1, name.as_bytes());
        put_delimited(&mut entry, 2, &value_message(value));
        put_delimited(&mut message, 1, &entry);
    }
    message
}

/// Recursion ends with the document: it was parsed under a limit of nesting.
pub(super) fn value_message(json: &Json) -> Vec<u8> {
    let mut message = Vec::new();
    match json {
        Json::Null => message.extend_from_slice(&[1 << 3, 0]),
        Json::Bool(value) => EncodedValue::Bool(*value).put(&mut message),
        Json::Number(value) => EncodedValue::Number(value.as_f64().unwrap_or(f64::NAN)).put(&mut message),
        Json::String(value) => EncodedValue::String(value).put(&mut message),
        Json::Array(elements) => {
            let mut list = Vec::new();
            for element in elements {
                put_delimited(&mut list, 1, &value_message(element));
            }
            put_delimited(&mut message, 6, &list);
        }
        Json::Object(fields) => put_delimited(&mut message, 5, &struct_message(fields)),
    }
    message
}

pub(super) fn put_delimited(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    put_key(out, number, 2);
    put_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}
