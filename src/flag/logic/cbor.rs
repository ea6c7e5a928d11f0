//! Deterministic CBOR (RFC 8949, 4.2.1), which is what version 3 of `fractional` hashes (flagd.md 2.3): shortest integers and floats, the
//! keys of a map in the order of their encodings.

use serde_json::Value as Json;
use smallvec::SmallVec;

use super::value::{List, Value};

/// Room for most keys without an allocation.
pub(super) type Bytes = SmallVec<[u8; 128]>;

/// Major types.
const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const MAP: u8 = 5;

const TWO_TO_THE_63: f64 = 9_223_372_036_854_775_808.0;
const TWO_TO_THE_64: f64 = 18_446_744_073_709_551_616.0;

pub(super) fn list_of(length: usize, out: &mut Bytes) {
    head(LIST, length as u64, out);
}

pub(super) fn text(text: &str, out: &mut Bytes) {
    head(TEXT, text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// Several texts as one.
pub(super) fn joined(parts: &[&str], out: &mut Bytes) {
    head(TEXT, parts.iter().map(|part| part.len() as u64).sum(), out);
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}

pub(super) fn value(of: &Value<'_>, out: &mut Bytes) {
    match of {
        Value::Null => out.push(0xf6),
        Value::Bool(value) => out.push(if *value { 0xf5 } else { 0xf4 }),
        Value::Number(value) => number(*value, out),
        Value::Text(held) => text(held.as_str(), out),
        Value::List(List::Lent(elements)) => {
            list_of(elements.len(), out);
            elements.iter().for_each(|element| json(element, out));
        }
        Value::List(List::Made(elements)) => {
            list_of(elements.len(), out);
            elements.iter().for_each(|element| value(element, out));
        }
        Value::Object(fields) => {
            let mut fields: SmallVec<[(&String, &Json); 8]> = fields.iter().collect();
            // The length comes first in the encoding of a key, the longer the larger.
            fields.sort_unstable_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
            head(MAP, fields.len() as u64, out);
            for (key, field) in fields {
                text(key, out);
                json(field, out);
            }
        }
    }
}

fn json(json: &Json, out: &mut Bytes) {
    value(&Value::of(json), out);
}

/// A whole number is an integer, so that `1.0` and `1` are the same person; `-0` is `0`.
fn number(number: f64, out: &mut Bytes) {
    if number.fract() == 0.0 && (-TWO_TO_THE_63..TWO_TO_THE_64).contains(&number) {
        match number < 0.0 {
            true => head(NEGATIVE, (-1 - number as i128) as u64, out),
            false => head(UNSIGNED, number as u64, out),
        }
    } else if let Some(bits) = half(number) {
        out.push(0xf9);
        out.extend_from_slice(&bits.to_be_bytes());
    } else if f64::from(number as f32) == number {
        out.push(0xfa);
        out.extend_from_slice(&(number as f32).to_be_bytes());
    } else {
        out.push(0xfb);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// Bits of the half-precision float that is exactly `number`.
fn half(number: f64) -> Option<u16> {
    let bits = number.to_bits();
    let sign = ((bits >> 48) & 0x8000) as u16;
    if number.is_nan() {
        return Some(0x7e00);
    }
    if number.is_infinite() {
        return Some(sign | 0x7c00);
    }
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let fraction = bits & ((1 << 52) - 1);
    let (significand, shift, biased) = match exponent {
        -14..=15 => (fraction, 42, (exponent + 15) as u16),
        // Subnormal: a multiple of 2^-24, without the bit that goes without saying.
        -24..=-15 => (fraction | (1 << 52), 28 - exponent, 0),
        _ => return None,
    };
    let is_exact = significand & ((1 << shift) - 1) == 0;
    is_exact.then_some(sign | (biased << 10) | (significand >> shift) as u16)
}

/// The first byte of an item, and its length or value in as few bytes as hold it.
fn head(major: u8, argument: u64, out: &mut Bytes) {
    let major = major << 5;
    let bytes = argument.to_be_bytes();
    let (low, length) = match argument {
        0..24 => (argument as u8, 0),
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    out.push(major | low);
    out.extend_from_slice(&bytes[bytes.len() - length..]);
}
