//! OFREP's JSON (protocol 0.3.0, and what flagd makes of it: flagd.md 1.9).

use prost::Message as _;
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::flag::{ErrorCode, Value};
use crate::wire::json;

use super::Refused;
use super::answer::Answer;
use super::context::Context;
use super::flagd::{self, Definition};
use super::metadata;
use super::selection::Scope;
use super::value::{EncodedValue, struct_message};

/// The context of a request, in the form in which all contexts are read.
#[derive(Debug, Default)]
pub struct Asked(Vec<u8>);

impl Asked {
    /// An empty body is a context without anything, and so is a context that is no object, as with flagd.
    ///
    /// # Errors
    /// What is wrong with the body.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        match serde_json::from_slice(body) {
            Ok(Json::Object(body)) => match body.get("context") {
                Some(Json::Object(context)) => Ok(Self(struct_message(context))),
                Some(_) | None => Ok(Self::default()),
            },
            Ok(_) => Err("the body is no JSON object".to_owned()),
            Err(error) => Err(format!("the body is no JSON: {error}")),
        }
    }

    /// # Errors
    /// When it is over a limit.
    pub fn context(&self) -> Result<Context<'_>, Refused> {
        Context::read_struct(&self.0)
    }
}

/// What is said of one flag: a success, or an error with its code.
pub fn evaluated(answer: &Answer<'_>, definition: &Definition, scope: Scope<'_>) -> Vec<u8> {
    if let Some(code) = answer.error {
        return failed(answer.flag_key, code, &details(answer, code), scope).to_string().into_bytes();
    }
    let mut said = Vec::with_capacity(192);
    said.extend_from_slice(br#"{"key":"#);
    put_json(&mut said, answer.flag_key);
    said.extend_from_slice(br#","metadata":"#);
    metadata::put_text(&mut said, answer, definition, scope);
    said.extend_from_slice(br#","reason":"#);
    put_json(&mut said, flagd::reason(answer, definition));
    // Without a value the default in the code of the caller is to be used.
    if let Some(value) = answer.value {
        said.extend_from_slice(br#","value":"#);
        put_value(&mut said, value);
        said.extend_from_slice(br#","variant":"#);
        put_json(&mut said, answer.variant);
    }
    said.push(b'}');
    said
}

/// In the words of flagd where it has some.
fn details(answer: &Answer<'_>, code: ErrorCode) -> String {
    match code {
        ErrorCode::FlagNotFound => not_found(answer.flag_key),
        _ => answer.message.to_owned(),
    }
}

pub fn not_found(flag_key: &str) -> String {
    let shown: String = flag_key.chars().take(crate::flag::limits::FLAGD_NAME_BYTES).collect();
    format!("flag `{shown}` does not exist")
}

pub fn failed(flag_key: &str, code: ErrorCode, details: &str, scope: Scope<'_>) -> Json {
    json!({ "key": flag_key, "errorCode": code.as_str(), "errorDetails": details, "metadata": scope.metadata() })
}

/// Beside the flags.
pub fn metadata_of_all(scope: Scope<'_>) -> Json {
    scope.metadata().into()
}

fn put_value(out: &mut Vec<u8>, value: EncodedValue<'_>) {
    match value {
        EncodedValue::Bool(value) => put_json(out, &value),
        EncodedValue::Number(value) => put_json(out, &Value::Number(value).to_json()),
        EncodedValue::String(value) => put_json(out, value),
        // We have encoded it.
        EncodedValue::Raw(value) => {
            put_json(out, &prost_types::Value::decode(value).map_or(Json::Null, |value| json::from_value(&value)));
        }
    }
}

/// Into memory, which does not fail.
pub(super) fn put_json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    _ = serde_json::to_writer(out, value);
}

#[cfg(test)]
mod tests {
    use crate::flag::{Attribute, Attributes as _};

    use super::*;

    #[test]
    fn a_body_without_a_context_asks_for_nobody() {
        for body in ["", " \n", "{}", r#"{"context":null}"#, r#"{"context":[1]}"#, r#"{"other":1}"#] {
            let asked = Asked::read(body.as_bytes()).unwrap();
            assert_eq!(asked.context().unwrap().targeting_key(), None, "{body}");
        }
        for body in ["{", "[]", "7", "\u{feff}{}"] {
            assert!(Asked::read(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_context_keeps_its_key_and_its_attributes() {
        let asked = Asked::read(br#"{"context":{"targetingKey":"ana","seats":5,"a":{"b":"c"}}}"#).unwrap();
        let context = asked.context().unwrap();
        assert_eq!(context.targeting_key(), Some("ana"));
        assert_eq!((context.attribute("seats"), context.attribute("a.b")), (Some(Attribute::Number(5.0)), Some(Attribute::String("c"))));
        // flagd's clients send null where there is no key.
        let nobody = Asked::read(br#"{"context":{"targetingKey":null}}"#).unwrap();
        assert_eq!(nobody.context().unwrap().targeting_key(), None);
    }
}
