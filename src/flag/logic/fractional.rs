//! flagd's `fractional`: a share of people for each variant, by the exact arithmetic of flagd.md 2.3.
//!
//! `(hash * total) >> 32` is where somebody stands among weights that add up to `total`. Version 2 hashes a text as it is, and without a unit
//! the key of the flag and the targeting key as one text; version 3 hashes deterministic CBOR, of any unit or of the list of the two keys.
//! Version 1 hashes as 2 does, and stands among percentages: the hash with a sign, its size in parts of the largest one.

use serde_json::Value as Json;
use smallvec::SmallVec;

use super::super::document::FractionalVersion;
use super::cbor::{self, Bytes};
use super::evaluate::{Run, Scope, Spent};
use super::murmur::murmur3_32;
use super::program::{Buckets, Fractional, Node};
use super::value::{Buffer, Value};

/// Of one weight, and of all of a `fractional` together.
const LARGEST_WEIGHT: u32 = i32::MAX as u32;

type Dealt<'v> = SmallVec<[(Value<'v>, u32); 8]>;

/// A bucket: variant and weight. `None`: it is none, and the whole `fractional` is null.
pub(super) fn bucket_of<'v>(value: &Value<'v>) -> Option<(Value<'v>, u32)> {
    let Value::List(parts) = value else { return None };
    of_parts(parts.get(0).as_ref(), parts.get(1).as_ref())
}

fn of_parts<'v>(variant: Option<&Value<'v>>, weight: Option<&Value<'v>>) -> Option<(Value<'v>, u32)> {
    let variant = variant.filter(|variant| !matches!(variant, Value::List(_) | Value::Object(_)))?;
    let weight = match weight {
        None | Some(Value::Null) => 1.0,
        Some(Value::Number(weight)) => *weight,
        Some(_) => return None,
    };
    let is_allowed = weight.fract() == 0.0 && weight <= f64::from(LARGEST_WEIGHT);
    // A weight that is computed, such as of a ramp by the time, may be less than nothing before its time.
    is_allowed.then(|| (variant.clone(), weight.max(0.0) as u32))
}

impl<'r> Run<'r> {
    pub(super) fn fractional(&self, fractional: &'r Fractional, scope: Scope<'_, 'r>) -> Result<Value<'r>, Spent> {
        let Fractional { unit, buckets } = fractional;
        Ok(match buckets {
            Buckets::Void => Value::Null,
            Buckets::Fixed(fixed) => {
                self.spend(fixed.len())?;
                let dealt = fixed.iter().map(|(variant, weight): &(Json, u32)| (Value::of(variant), *weight));
                self.deal(unit.as_ref(), dealt, scope)?
            }
            Buckets::Spelled(spelled) => {
                let mut dealt = Dealt::new();
                for parts in spelled {
                    let parts = self.arguments(parts, scope)?;
                    match of_parts(parts.first(), parts.get(1)) {
                        Some(bucket) => dealt.push(bucket),
                        None => return Ok(Value::Null),
                    }
                }
                self.deal(unit.as_ref(), dealt.iter().cloned(), scope)?
            }
            Buckets::Computed(args) => {
                let operands = self.arguments(args, scope)?;
                let (unit, buckets) = match &operands[..] {
                    [Value::List(_), ..] | [] => (None, &operands[..]),
                    [unit, buckets @ ..] => (Some(unit), buckets),
                };
                let dealt: Option<Dealt<'r>> = buckets.iter().map(bucket_of).collect();
                self.pick(self.hash(unit), dealt.unwrap_or_default().iter().cloned())
            }
        })
    }

    fn deal(
        &self,
        unit: Option<&'r Node>,
        dealt: impl Iterator<Item = (Value<'r>, u32)> + Clone,
        scope: Scope<'_, 'r>,
    ) -> Result<Value<'r>, Spent> {
        let hash = match unit {
            None => self.hash(None),
            // The usual key of flagd's documentation. It need not be kept: only its hash is.
            Some(Node::Cat(args)) => {
                let mut text = Buffer::default();
                let text = self.cat(args, scope, &mut text)?;
                self.hash(Some(&Value::lent(text)))
            }
            Some(unit) => match self.value(unit, scope)? {
                // A list is a bucket, also where it comes out of the context.
                first @ Value::List(_) => {
                    let first = bucket_of(&first);
                    let hash = first.as_ref().and_then(|_| self.hash(None));
                    return Ok(self.pick(hash, first.into_iter().chain(dealt)));
                }
                unit => self.hash(Some(&unit)),
            },
        };
        Ok(self.pick(hash, dealt))
    }

    /// The hash of the unit, or of the key of the flag and the targeting key. `None`: there is nothing to hash.
    fn hash(&self, unit: Option<&Value<'_>>) -> Option<u32> {
        use FractionalVersion::{V1, V2, V3};
        let mut bytes = Bytes::new();
        match (self.fractional, unit) {
            (V1 | V2, Some(Value::Text(text))) => return Some(murmur3_32(text.as_str().as_bytes())),
            // flagd's daemon drops a null; the other engines of version 2 answered null.
            (V1 | V2, None | Some(Value::Null)) | (V3, None) => {
                return Some(hash_of_keys(self.fractional, self.flag_key, self.context.targeting_key()?));
            }
            (V1 | V2, Some(_)) | (V3, Some(Value::Null)) => return None,
            (V3, Some(unit)) => cbor::value(unit, &mut bytes),
        }
        Some(murmur3_32(&bytes))
    }

    /// Null without a hash, and of weights that add up to nothing or to too much.
    fn pick<'v>(&self, hash: Option<u32>, mut dealt: impl Iterator<Item = (Value<'v>, u32)> + Clone) -> Value<'v> {
        let Some(hash) = hash else { return Value::Null };
        let total: u64 = dealt.clone().map(|(_, weight)| u64::from(weight)).sum();
        if total == 0 || total > u64::from(LARGEST_WEIGHT) {
            return Value::Null;
        }
        let found = match self.fractional {
            FractionalVersion::V1 => {
                // In flagd's order, because it rounds.
                let place = f64::from(hash.cast_signed().unsigned_abs()) / f64::from(i32::MAX) * 100.0;
                let mut end = 0.0;
                dealt.find(|(_, weight)| {
                    end += 100.0 * f64::from(*weight) / total as f64;
                    place < end
                })
            }
            FractionalVersion::V2 | FractionalVersion::V3 => {
                let place = (u64::from(hash) * total) >> 32;
                let mut end = 0;
                dealt.find(|(_, weight)| {
                    end += u64::from(*weight);
                    place < end
                })
            }
        };
        found.map_or(Value::Null, |(variant, _)| variant)
    }
}

/// The hash where there is no unit.
pub(in super::super) fn hash_of_keys(version: FractionalVersion, flag_key: &str, targeting_key: &str) -> u32 {
    let mut bytes = Bytes::new();
    match version {
        FractionalVersion::V1 | FractionalVersion::V2 => {
            bytes.extend_from_slice(flag_key.as_bytes());
            bytes.extend_from_slice(targeting_key.as_bytes());
        }
        FractionalVersion::V3 => {
            cbor::list_of(2, &mut bytes);
            cbor::text(flag_key, &mut bytes);
            cbor::text(targeting_key, &mut bytes);
        }
    }
    murmur3_32(&bytes)
}

/// The hash of a text that is put together.
pub(in super::super) fn hash_of_joined(version: FractionalVersion, parts: &[&str]) -> u32 {
    let mut bytes = Bytes::new();
    match version {
        FractionalVersion::V1 | FractionalVersion::V2 => parts.iter().for_each(|part| bytes.extend_from_slice(part.as_bytes())),
        FractionalVersion::V3 => cbor::joined(parts, &mut bytes),
    }
    murmur3_32(&bytes)
}
