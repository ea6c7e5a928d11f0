//! OFREP's JSON (protocol 0.3.0, and what flagd makes of it: flagd.md 1.9).

use prost::Message as _;
use serde_json::{Map, Value as Json, json};

use crate::flag::{ErrorCode, Value};
use crate::wire::json;

use super::Refused;
use super::answer::Answer;
use super::context::Context;
use super::flagd::{self, Definition};
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
pub fn evaluated(answer: &Answer<'_>, definition: &Definition, scope: Scope<'_>) -> Json {
    if let Some(code) = answer.error {
        return failed(answer.flag_key, code, &details(answer, code), scope);
    }
    let mut said = Map::from_iter([
        ("key".to_owned(), answer.flag_key.into()),
        ("reason".to_owned(), flagd::reason(answer, definition).into()),
        ("metadata".to_owned(), flagd::metadata(answer, definition, scope).into()),
    ]);
    // Without a value the default in the code of the caller is to be used.
    if let Some(value) = answer.value {
        said.insert("value".to_owned(), value_of(value));
        said.insert("variant".to_owned(), answer.variant.into());
    }
    said.into()
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

fn value_of(value: EncodedValue<'_>) -> Json {
    match value {
        EncodedValue::Bool(value) => value.into(),
        EncodedValue::Number(value) => Value::Number(value).to_json(),
        EncodedValue::String(value) => value.into(),
        // We have encoded it.
        EncodedValue::Raw(value) => prost_types::Value::decode(value).map_or(Json::Null, |value| json::from_value(&value)),
    }
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
