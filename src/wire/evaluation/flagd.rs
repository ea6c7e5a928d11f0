//! flagd's evaluation service, which it serves under three names (flagd.md 1.2): the same messages, but for what is absent when there is
//! nothing to serve. Field numbers, reasons and metadata are flagd's.

use bytes::Bytes;
use serde_json::{Map, Value as Json};

use crate::flag::{Reason, ValueType};

use super::answer::{Answer, put_key, put_string, put_varint, write_message};
use super::context::Context;
use super::metadata;
use super::question::Question;
use super::reader::{Key, Reader, delimited};
use super::selection::Scope;
use super::value::{EncodedValue, put_delimited};
use super::{Malformed, Refused};

// Of a `Resolve…Request`; the context of a `ResolveAllRequest` has the number of the key.
const FLAG_KEY: Key = delimited(1);
const CONTEXT: Key = delimited(2);
const CONTEXT_OF_ALL: Key = delimited(1);
/// In the metadata of a flag: the set that it is in.
pub(super) const SET: &str = "flagSetId";
/// Of a `google.protobuf.Value`.
const OBJECT: Key = delimited(5);

/// The name that a client asks under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    V2,
    V1,
    /// What v1 was called before; its `AnyFlag` has no metadata.
    Schema,
}

/// The type in the name of a `Resolve…` method. Integers and floats are one type to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    Boolean,
    String,
    Float,
    Int,
    Object,
}

/// What a flag's definition says to flagd's clients alone.
#[derive(Debug, Default, PartialEq)]
pub struct Definition {
    /// Empty of most flags.
    metadata: Map<String, Json>,
    source: Option<Box<str>>,
    /// It says what a kill serves, or what is measured to kill it: it is to be stopped one day, and no client may keep its value.
    is_armed: bool,
}

impl Definition {
    /// `canonical`: as the flag is held.
    pub fn of(canonical: &[u8]) -> Self {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Parts {
            #[serde(default)]
            metadata: Map<String, Json>,
            #[serde(default)]
            source: Option<Box<str>>,
            #[serde(default)]
            kind: Option<String>,
            kill_variant: Option<serde::de::IgnoredAny>,
            guard: Option<serde::de::IgnoredAny>,
            rollout: Option<serde::de::IgnoredAny>,
        }
        // It has been compiled from these bytes.
        let Ok(Parts { metadata, source, kind, kill_variant, guard, rollout }) = serde_json::from_slice(canonical) else {
            return Self::default();
        };
        let is_armed = kill_variant.or(guard).or(rollout).is_some() || kind.as_deref() == Some("kill-switch");
        Self { metadata, source, is_armed }
    }

    /// The set that the flag says it is in; empty: in none. `None`: it does not say.
    pub fn set(&self) -> Option<&str> {
        self.metadata.get(SET)?.as_str()
    }

    pub fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// What the flag says about itself, its set included.
    pub fn metadata(&self) -> &Map<String, Json> {
        &self.metadata
    }
}

impl Type {
    pub fn value_type(self) -> ValueType {
        match self {
            Self::Boolean => ValueType::Bool,
            Self::String => ValueType::String,
            Self::Float | Self::Int => ValueType::Number,
            Self::Object => ValueType::Object,
        }
    }
}

/// A `Resolve…Request`, as the question of any type.
pub fn read_question(message: &[u8]) -> Result<Question<'_>, Refused> {
    let mut question = Question::default();
    let mut context_bytes = 0;
    let mut reader = Reader::new(message);
    while let Some(key) = reader.key()? {
        match key {
            FLAG_KEY => question.flag_key = reader.text()?,
            CONTEXT => {
                let context = reader.bytes()?;
                context_bytes += context.len();
                question.context.merge_struct(context, context_bytes)?;
            }
            _ => reader.skip(key, 2)?,
        }
    }
    Ok(question)
}

/// A `ResolveAllRequest`.
pub fn read_question_of_all(message: &[u8]) -> Result<Context<'_>, Refused> {
    let mut context = Context::default();
    let mut context_bytes = 0;
    let mut reader = Reader::new(message);
    while let Some(key) = reader.key()? {
        match key {
            CONTEXT_OF_ALL => {
                let part = reader.bytes()?;
                context_bytes += part.len();
                context.merge_struct(part, context_bytes)?;
            }
            _ => reader.skip(key, 1)?,
        }
    }
    Ok(context)
}

/// Why this was served, in flagd's words only: its clients act on them (flagd.md 1.6, 1.11). A client keeps what is STATIC until it hears
/// otherwise, and one of them does not listen. KILLED is no word of theirs; all of them take TARGETING_MATCH as it is, and none keeps it.
/// What the reason was stands in the metadata then.
pub fn reason(answer: &Answer<'_>, definition: &Definition) -> &'static str {
    match answer.reason {
        Reason::Error => "ERROR",
        Reason::Disabled => "DISABLED",
        // Without a variant this is the word for "the default in your code".
        _ if answer.value.is_none() => "DEFAULT",
        Reason::Default => "DEFAULT",
        Reason::Static if definition.is_armed => "DEFAULT",
        Reason::Static => "STATIC",
        Reason::TargetingMatch | Reason::Split | Reason::PrerequisiteFailed | Reason::Killed | Reason::Stale => "TARGETING_MATCH",
    }
}

/// The same for what is counted, where the answer is not at hand.
pub fn counted(reason: Reason) -> &'static str {
    match reason {
        Reason::Error => "ERROR",
        Reason::Disabled => "DISABLED",
        Reason::Default => "DEFAULT",
        Reason::Static => "STATIC",
        Reason::TargetingMatch | Reason::Split | Reason::PrerequisiteFailed | Reason::Killed | Reason::Stale => "TARGETING_MATCH",
    }
}

/// A `Resolve…Response` with its frame. The answer is of that type, or has no value.
pub fn resolved(answer: &Answer<'_>, of: Type, definition: &Definition, scope: Scope<'_>) -> Vec<u8> {
    let mut message = Vec::with_capacity(128);
    match (answer.value, of) {
        (Some(EncodedValue::Bool(value)), _) => put_bool(&mut message, 1, value),
        (Some(EncodedValue::Number(value)), Type::Int) => {
            put_key(&mut message, 1, 0);
            put_varint(&mut message, truncated(value).cast_unsigned());
        }
        (Some(EncodedValue::Number(value)), _) => put_double(&mut message, 1, value),
        (Some(EncodedValue::String(value)), _) => put_delimited(&mut message, 1, value.as_bytes()),
        (Some(EncodedValue::Raw(value)), _) => put_delimited(&mut message, 1, fields_of(value).unwrap_or_default()),
        (None, _) => {}
    }
    put_string(&mut message, 2, reason(answer, definition));
    put_string(&mut message, 3, answer.variant);
    put_delimited(&mut message, 4, &metadata::message(answer, definition, scope));
    framed(&message)
}

/// flagd cuts the fraction off (flagd.md 1.6); what does not fit is the nearest that does.
fn truncated(value: f64) -> i64 {
    value as i64
}

/// A flag of a `ResolveAllResponse`, with its key in the map. `of`: the type of the flag, which a value of zero has when there is none
/// (flagd.md 1.6).
pub fn one_of_all(answer: &Answer<'_>, of: ValueType, service: Service, definition: &Definition, scope: Scope<'_>) -> Vec<u8> {
    let mut flag = Vec::with_capacity(128);
    put_string(&mut flag, 1, reason(answer, definition));
    put_string(&mut flag, 2, answer.variant);
    match (answer.value, of) {
        (Some(EncodedValue::Bool(value)), _) => put_bool(&mut flag, 3, value),
        (Some(EncodedValue::String(value)), _) => put_delimited(&mut flag, 4, value.as_bytes()),
        (Some(EncodedValue::Number(value)), _) => put_double(&mut flag, 5, value),
        (Some(EncodedValue::Raw(value)), _) => put_delimited(&mut flag, 6, fields_of(value).unwrap_or_default()),
        (None, ValueType::Bool) => put_bool(&mut flag, 3, false),
        (None, ValueType::String) => put_delimited(&mut flag, 4, &[]),
        (None, ValueType::Number) => put_double(&mut flag, 5, 0.0),
        (None, ValueType::Object) => put_delimited(&mut flag, 6, &[]),
    }
    if service != Service::Schema {
        put_delimited(&mut flag, 7, &metadata::message(answer, definition, scope));
    }
    entry(answer.flag_key, &flag)
}

/// An `EventStreamResponse` with its frame (flagd.md 1.4).
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    Ready,
    KeepAlive,
    Shutdown,
    Change(&'a [(&'a str, Became)]),
}

/// What became of a flag, for those who see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    Written,
    Updated,
    Deleted,
}

impl Event<'_> {
    pub fn frame(self) -> Bytes {
        let mut message = Vec::new();
        let (name, data) = match self {
            Self::Ready => ("provider_ready", None),
            Self::KeepAlive => ("keep_alive", None),
            Self::Shutdown => ("provider_shutdown", Some(Vec::new())),
            Self::Change(flags) => ("configuration_change", Some(entry("flags", &object(&changed(flags))))),
        };
        put_string(&mut message, 1, name);
        if let Some(data) = data {
            put_delimited(&mut message, 2, &data);
        }
        framed(&message).into()
    }
}

/// A `Struct` of keys, each with a `Struct` that says what became of it.
fn changed(flags: &[(&str, Became)]) -> Vec<u8> {
    let told = |what: &str| {
        let mut text = Vec::new();
        EncodedValue::String(what).put(&mut text);
        object(&entry("type", &text))
    };
    let (write, update, delete) = (told("write"), told("update"), told("delete"));
    let mut message = Vec::new();
    for (key, became) in flags {
        let told = match became {
            Became::Written => &write,
            Became::Updated => &update,
            Became::Deleted => &delete,
        };
        message.extend(entry(key, told));
    }
    message
}

/// One entry of a map whose field is the first: a field of a `Struct` when the value is an encoded `Value`.
pub(super) fn entry(name: &str, value: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(name.len() + value.len() + 8);
    put_delimited(&mut content, 1, name.as_bytes());
    put_delimited(&mut content, 2, value);
    let mut entry = Vec::with_capacity(content.len() + 4);
    put_delimited(&mut entry, 1, &content);
    entry
}

/// A `Value` of an encoded `Struct`.
fn object(fields: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(fields.len() + 8);
    put_delimited(&mut value, 5, fields);
    value
}

/// The `Struct` in an encoded `Value` that is an object.
fn fields_of(value: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(value);
    while let Some(key) = reader.key()? {
        match key {
            OBJECT => return reader.bytes(),
            _ => reader.skip(key, 0)?,
        }
    }
    Ok(&[])
}

fn put_bool(out: &mut Vec<u8>, number: u32, value: bool) {
    put_key(out, number, 0);
    out.push(value.into());
}

fn put_double(out: &mut Vec<u8>, number: u32, value: f64) {
    put_key(out, number, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    write_message(&mut frame, message.len(), |out| out.extend_from_slice(message));
    frame
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::selection::Selection;
    use super::*;

    fn metadata(answer: &Answer<'_>, definition: &Definition, scope: Scope<'_>) -> Map<String, Json> {
        let mut text = Vec::new();
        super::metadata::put_text(&mut text, answer, definition, scope);
        serde_json::from_slice(&text).unwrap()
    }

    fn answer(reason: Reason, value: Option<EncodedValue<'_>>) -> Answer<'_> {
        let variant = if value.is_some() { "on" } else { "" };
        Answer { flag_key: "a", value, variant, reason, rule: "", bucket: None, revision: 7, age_ms: 0, error: None, message: "" }
    }

    #[test]
    fn every_reason_is_one_that_flagd_gives() {
        let (plain, armed) = (Definition::default(), Definition { is_armed: true, ..Definition::default() });
        for told in Reason::ALL {
            let said = reason(&answer(told, Some(EncodedValue::Bool(true))), &plain);
            assert!(["STATIC", "TARGETING_MATCH", "DEFAULT", "DISABLED", "ERROR"].contains(&said), "{told:?} is {said}");
            assert_eq!(said == "STATIC", told == Reason::Static);
            assert_ne!(reason(&answer(told, Some(EncodedValue::Bool(true))), &armed), "STATIC");
        }
        assert_eq!(reason(&answer(Reason::Killed, None), &plain), "DEFAULT");
        assert_eq!(reason(&answer(Reason::Disabled, None), &plain), "DISABLED");
    }

    #[test]
    fn metadata_has_what_flagd_lacks_a_word_for_and_the_flags_own_win() {
        let definition = Definition::of(br#"{"defaultVariant":"on","metadata":{"team":"pay","rule":"mine"},"variants":{"on":true}}"#);
        let killed = Answer { rule: "rollout", ..answer(Reason::Killed, Some(EncodedValue::Bool(true))) };
        let expected = json!({ "flagSetId": "prod", "revision": "7", "reason": "KILLED", "rule": "mine", "team": "pay" });
        let scope = Scope { selection: &Selection::All, environment: "prod" };
        assert_eq!(Json::from(metadata(&killed, &definition, scope)), expected);
    }

    #[test]
    fn a_flag_that_is_meant_to_be_killed_is_armed() {
        for armed in [r#""killVariant":"off""#, r#""guard":[]"#, r#""kind":"kill-switch""#, r#""rollout":{}"#] {
            assert!(Definition::of(format!("{{{armed}}}").as_bytes()).is_armed, "{armed}");
        }
        assert!(!Definition::of(br#"{"kind":"release","variants":{"a":{"killVariant":1}}}"#).is_armed);
    }

    #[test]
    fn a_number_becomes_the_nearest_integer_towards_zero_that_there_is() {
        for (number, expected) in [(3.99, 3), (-3.99, -3), (1e300, i64::MAX), (-1e300, i64::MIN), (0.0, 0)] {
            assert_eq!(truncated(number), expected);
        }
    }
}
