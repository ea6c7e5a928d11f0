//! `POST /ofrep/v1/track`: OpenFeature's tracking API for applications that speak HTTP.
//!
//! OFREP has no tracking yet; the names are those of OpenFeature's specification (tracking event name, evaluation context, tracking event
//! details with `value` and fields of one's own).

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::attribution::Tracked;
use super::collector::Evidence;
use super::outcome::{Fields, Said};

/// Of a body: a context at its limit, and the event around it.
pub(in crate::sidecar) const BODY_BYTES: usize = 128 * 1024;

const FIELDS: Fields = Fields {
    event: "trackingEventName",
    targeting_key: "context.targetingKey",
    value: "details.value",
    weight: "details.weight",
    idempotency_key: "details.idempotencyKey",
};

pub(in crate::sidecar) async fn track(evidence: Evidence, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let details = format!("the body has more than {BODY_BYTES} bytes");
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, "", &details);
        }
        Err(rejection) => return refuse(rejection.status(), "", &rejection.body_text()),
    };
    let outcome = match read(&body) {
        Ok(outcome) => outcome,
        Err((path, details)) => return refuse(StatusCode::BAD_REQUEST, &path, &details),
    };
    match evidence.track(vec![outcome]).await {
        Some(Tracked { attributed, duplicates, .. }) => {
            Json(json!({ "attributed": attributed > 0, "duplicate": duplicates > 0 })).into_response()
        }
        None => refuse(StatusCode::SERVICE_UNAVAILABLE, "", "this sidecar is shutting down; report it again"),
    }
}

fn refuse(status: StatusCode, path: &str, details: &str) -> Response {
    let code = if status == StatusCode::BAD_REQUEST { "PARSE_ERROR" } else { "GENERAL" };
    let mut body = json!({ "errorCode": code, "errorDetails": details });
    if !path.is_empty() {
        body = json!({ "errorCode": code, "path": path, "errorDetails": format!("{path} {details}") });
    }
    (status, Json(body)).into_response()
}

/// Or the path of what is wrong, and what is.
fn read(body: &[u8]) -> Result<super::attribution::Outcome, (String, String)> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let document = Value::deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    let document = document.map_err(|error| (String::new(), format!("the body is no JSON: {error}")))?;
    let Value::Object(document) = &document else { return Err((String::new(), "the body is no JSON object".to_owned())) };
    let nothing = Map::new();
    let context = object(document, "context")?.unwrap_or(&nothing);
    let details = object(document, "details")?.unwrap_or(&nothing);
    let said = Said {
        event: text(document, "trackingEventName", FIELDS.event)?,
        targeting_key: text(context, "targetingKey", FIELDS.targeting_key)?,
        value: number(details, "value", FIELDS.value)?,
        weight: number(details, "weight", FIELDS.weight)?,
        idempotency_key: text(details, "idempotencyKey", FIELDS.idempotency_key)?,
        at_us: None,
    };
    let mut wrong = None;
    let outcome = said.check(&FIELDS, &mut |field, description| {
        wrong.get_or_insert((field.to_owned(), description));
    });
    wrong.map_or(Ok(outcome), Err)
}

type Object = Map<String, Value>;

fn object<'v>(of: &'v Object, name: &str) -> Result<Option<&'v Object>, (String, String)> {
    match of.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(other) => Err(unexpected(name, other, "an object")),
    }
}

/// Empty when it is absent.
fn text<'v>(of: &'v Object, name: &str, path: &str) -> Result<&'v str, (String, String)> {
    match of.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(unexpected(path, other, "a string")),
    }
}

fn number(of: &Object, name: &str, path: &str) -> Result<Option<f64>, (String, String)> {
    match of.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => Ok(number.as_f64()),
        Some(other) => Err(unexpected(path, other, "a number")),
    }
}

fn unexpected(path: &str, found: &Value, expected: &str) -> (String, String) {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    (path.to_owned(), format!("is {found}, expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_its_path() {
        let path = |body: &str| read(body.as_bytes()).unwrap_err().0;
        assert_eq!(path("{"), "");
        assert_eq!(path("[]"), "");
        assert_eq!(path(r#"{"context":{"targetingKey":"ana"}}"#), "trackingEventName");
        assert_eq!(path(r#"{"trackingEventName":1,"context":{"targetingKey":"ana"}}"#), "trackingEventName");
        assert_eq!(path(r#"{"trackingEventName":"paid","context":[]}"#), "context");
        assert_eq!(path(r#"{"trackingEventName":"paid","context":{}}"#), "context.targetingKey");
        let with =
            |details: &str| path(&format!(r#"{{"trackingEventName":"paid","context":{{"targetingKey":"ana"}},"details":{details}}}"#));
        assert_eq!(with("7"), "details");
        assert_eq!(with(r#"{"value":"1"}"#), "details.value");
        assert_eq!(with(r#"{"weight":-1}"#), "details.weight");
        assert_eq!(with(r#"{"idempotencyKey":1}"#), "details.idempotencyKey");
    }

    #[test]
    fn fields_of_ones_own_are_let_by() {
        let body =
            r#"{"trackingEventName":"paid","context":{"targetingKey":"ana","plan":"pro"},"details":{"value":99.5,"currency":"EUR"}}"#;
        let outcome = read(body.as_bytes()).unwrap();
        assert_eq!((outcome.event.as_str(), outcome.value, outcome.weight, outcome.key), ("paid", 99.5, 1.0, None));
    }
}
