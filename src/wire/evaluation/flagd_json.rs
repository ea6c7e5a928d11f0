//! flagd's messages in JSON, as Connect sends them: by protobuf's rules, with what is not set written out (flagd.md 1.2). Clients of v1 read
//! `value` without asking whether it is there.

use prost::Message as _;
use serde_json::{Map, Value as Json, json};

use crate::flag::Value;
use crate::wire::json::from_value;

use super::Malformed;
use super::flagd::{Service, Type};
use super::ofrep::put_json;
use super::reader::{Key, Reader, delimited, double, varint};
use super::value::{put_delimited, struct_message};

/// A `Resolve…Request`, or a `ResolveAllRequest` when no flag is asked for, as the message that it stands for. Unknown fields are passed by.
///
/// # Errors
/// What is wrong with it.
pub fn request(body: &[u8], is_for_all: bool) -> Result<Vec<u8>, String> {
    let fields: Json = match body.trim_ascii() {
        b"" => Json::Object(Map::new()),
        body => serde_json::from_slice(body).map_err(|error| format!("the body is no JSON: {error}"))?,
    };
    let Json::Object(fields) = fields else { return Err("the body is no JSON object".to_owned()) };
    // protobuf's JSON takes a field by its name in the schema too.
    let named = |name: &str, original: &str| fields.get(name).or_else(|| fields.get(original)).filter(|value| !value.is_null());
    let mut message = Vec::new();
    if !is_for_all {
        match named("flagKey", "flag_key") {
            Some(Json::String(key)) => put_delimited(&mut message, 1, key.as_bytes()),
            None => {}
            Some(_) => return Err("`flagKey` is no text".to_owned()),
        }
    }
    match named("context", "context") {
        Some(Json::Object(context)) => put_delimited(&mut message, if is_for_all { 1 } else { 2 }, &struct_message(context)),
        None => {}
        Some(_) => return Err("`context` is no object".to_owned()),
    }
    Ok(message)
}

// Of a `Resolve…Response`.
const BOOL: Key = varint(1);
const DOUBLE: Key = double(1);
const BYTES: Key = delimited(1);
const REASON: Key = delimited(2);
const VARIANT: Key = delimited(3);
const METADATA: Key = delimited(4);

/// A `Resolve…Response` that we have written.
pub fn resolved(message: &[u8], of: Type, service: Service) -> Json {
    resolved_fields(message, of, service).unwrap_or_default().into()
}

fn resolved_fields(message: &[u8], of: Type, service: Service) -> Result<Map<String, Json>, Malformed> {
    let mut said = Map::new();
    if service != Service::V2 {
        said.insert("value".to_owned(), zero(of));
        said.insert("variant".to_owned(), "".into());
    }
    said.insert("reason".to_owned(), "".into());
    said.insert("metadata".to_owned(), Json::Null);
    let mut reader = Reader::new(message);
    while let Some(key) = reader.key()? {
        let (name, value) = match key {
            BOOL if of == Type::Boolean => ("value", Json::from(reader.varint()? != 0)),
            // 64 bits are a text in protobuf's JSON.
            BOOL => ("value", reader.varint()?.cast_signed().to_string().into()),
            DOUBLE => ("value", number(reader.double()?)),
            BYTES if of == Type::Object => ("value", object(reader.bytes()?)),
            BYTES => ("value", reader.text()?.into()),
            REASON => ("reason", reader.text()?.into()),
            VARIANT => ("variant", reader.text()?.into()),
            METADATA => ("metadata", object(reader.bytes()?)),
            _ => {
                reader.skip(key, 4)?;
                continue;
            }
        };
        said.insert(name.to_owned(), value);
    }
    Ok(said)
}

fn zero(of: Type) -> Json {
    match of {
        Type::Boolean => false.into(),
        Type::String => "".into(),
        Type::Float => 0.into(),
        Type::Int => "0".into(),
        Type::Object => Json::Null,
    }
}

/// What [`super::flagd::one_of_all`] wrote, as a member of an object.
pub fn one_of_all(flag: &[u8], service: Service) -> Vec<u8> {
    let (mut member, mut reader) = (Vec::with_capacity(192), Reader::new(flag));
    if let Ok(Some(FLAGS)) = reader.key()
        && let Ok((name, flag)) = reader.bytes().and_then(|flag| entry(flag, service))
    {
        put_json(&mut member, &name);
        member.push(b':');
        put_json(&mut member, &flag);
    }
    member
}

// Of a `ResolveAllResponse`, of an entry of its map, and of an `AnyFlag`.
const FLAGS: Key = delimited(1);
#[cfg(test)]
const SET_METADATA: Key = delimited(2);
const NAME: Key = delimited(1);
const FLAG: Key = delimited(2);
const FLAG_REASON: Key = delimited(1);
const FLAG_VARIANT: Key = delimited(2);
const FLAG_BOOL: Key = varint(3);
const FLAG_STRING: Key = delimited(4);
const FLAG_DOUBLE: Key = double(5);
const FLAG_OBJECT: Key = delimited(6);
const FLAG_METADATA: Key = delimited(7);

/// A `ResolveAllResponse` as a whole, which [`super::AllResolved`] writes flag by flag.
#[cfg(test)]
pub(super) fn all_resolved(message: &[u8], service: Service) -> Json {
    all_fields(message, service).unwrap_or_default().into()
}

#[cfg(test)]
fn all_fields(message: &[u8], service: Service) -> Result<Map<String, Json>, Malformed> {
    let (mut flags, mut metadata) = (Map::new(), Json::Null);
    let mut reader = Reader::new(message);
    while let Some(key) = reader.key()? {
        match key {
            FLAGS => {
                let (name, flag) = entry(reader.bytes()?, service)?;
                flags.insert(name, flag);
            }
            SET_METADATA => metadata = object(reader.bytes()?),
            _ => reader.skip(key, 2)?,
        }
    }
    let mut said = Map::from_iter([("flags".to_owned(), Json::from(flags))]);
    if service != Service::Schema {
        said.insert("metadata".to_owned(), metadata);
    }
    Ok(said)
}

fn entry(message: &[u8], service: Service) -> Result<(String, Json), Malformed> {
    let (mut name, mut flag) = (String::new(), Json::Null);
    let mut reader = Reader::new(message);
    while let Some(key) = reader.key()? {
        match key {
            NAME => name = reader.text()?.to_owned(),
            FLAG => flag = any_flag(reader.bytes()?, service)?,
            _ => reader.skip(key, 2)?,
        }
    }
    Ok((name, flag))
}

fn any_flag(message: &[u8], service: Service) -> Result<Json, Malformed> {
    let mut said = Map::from_iter([("reason".to_owned(), "".into()), ("variant".to_owned(), "".into())]);
    if service != Service::Schema {
        said.insert("metadata".to_owned(), Json::Null);
    }
    let mut reader = Reader::new(message);
    while let Some(key) = reader.key()? {
        let (name, value) = match key {
            FLAG_REASON => ("reason", reader.text()?.into()),
            FLAG_VARIANT => ("variant", reader.text()?.into()),
            FLAG_BOOL => ("boolValue", (reader.varint()? != 0).into()),
            FLAG_STRING => ("stringValue", reader.text()?.into()),
            FLAG_DOUBLE => ("doubleValue", number(reader.double()?)),
            FLAG_OBJECT => ("objectValue", object(reader.bytes()?)),
            FLAG_METADATA => ("metadata", object(reader.bytes()?)),
            _ => {
                reader.skip(key, 7)?;
                continue;
            }
        };
        said.insert(name.to_owned(), value);
    }
    Ok(said.into())
}

/// An `EventStreamResponse` that we have written.
pub fn event(message: &[u8]) -> Json {
    event_fields(message).unwrap_or_default()
}

fn event_fields(message: &[u8]) -> Result<Json, Malformed> {
    // Of an event that has none, flagd sends an empty one.
    let (mut name, mut data) = ("", Json::Object(Map::new()));
    let mut reader = Reader::new(message);
    while let Some(key) = reader.key()? {
        match key {
            NAME => name = reader.text()?,
            FLAG => data = object(reader.bytes()?),
            _ => reader.skip(key, 2)?,
        }
    }
    Ok(json!({ "type": name, "data": data }))
}

/// Of an encoded `Struct`.
fn object(message: &[u8]) -> Json {
    prost_types::Struct::decode(message)
        .map_or(Json::Null, |fields| from_value(&prost_types::Value { kind: Some(prost_types::value::Kind::StructValue(fields)) }))
}

fn number(value: f64) -> Json {
    Value::Number(value).to_json()
}

#[cfg(test)]
mod tests {
    use super::super::context::Context;
    use super::super::flagd::{Became, Event, read_question, read_question_of_all};
    use crate::flag::Attributes as _;

    use super::*;

    #[test]
    fn a_request_is_the_message_that_it_stands_for() {
        let body = br#"{"flagKey":"a","context":{"targetingKey":"ana","seats":5},"unknown":[1]}"#;
        let message = request(body, false).unwrap();
        let question = read_question(&message).unwrap();
        assert_eq!((question.flag_key, question.context.targeting_key()), ("a", Some("ana")));
        let message = request(body, true).unwrap();
        let context: Context<'_> = read_question_of_all(&message).unwrap();
        assert_eq!(context.targeting_key(), Some("ana"));
        assert_eq!(request(br#"{"flag_key":"a","context":null}"#, false).unwrap(), request(br#"{"flagKey":"a"}"#, false).unwrap());
        assert!(request(b" ", false).unwrap().is_empty());
    }

    #[test]
    fn a_body_that_is_no_request_says_what_is_wrong() {
        for (body, expected) in [("{", "no JSON"), ("[]", "object"), (r#"{"flagKey":1}"#, "flagKey"), (r#"{"context":"x"}"#, "context")] {
            let wrong = request(body.as_bytes(), false).unwrap_err();
            assert!(wrong.contains(expected), "{body}: {wrong}");
        }
    }

    #[test]
    fn what_is_not_set_is_written_out_but_where_v2_says_that_it_is_absent() {
        let empty = |of, service| resolved(&[], of, service);
        assert_eq!(empty(Type::Int, Service::V1), json!({ "value": "0", "reason": "", "variant": "", "metadata": null }));
        assert_eq!(empty(Type::Object, Service::Schema), json!({ "value": null, "reason": "", "variant": "", "metadata": null }));
        assert_eq!(empty(Type::Boolean, Service::V2), json!({ "reason": "", "metadata": null }));
        assert_eq!(all_resolved(&[], Service::V1), json!({ "flags": {}, "metadata": null }));
        assert_eq!(all_resolved(&[], Service::Schema), json!({ "flags": {} }));
    }

    #[test]
    fn an_event_has_its_keys() {
        let frame = Event::Change(&[("a", Became::Updated), ("b", Became::Deleted)]).frame();
        let said = json!({ "type": "configuration_change", "data": { "flags": { "a": { "type": "update" }, "b": { "type": "delete" } } } });
        assert_eq!(event(&frame[5..]), said);
        assert_eq!(event(&Event::Ready.frame()[5..]), json!({ "type": "provider_ready", "data": {} }));
        assert_eq!(event(&Event::Shutdown.frame()[5..]), json!({ "type": "provider_shutdown", "data": {} }));
    }
}
