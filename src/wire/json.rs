//! JSON as `google.protobuf.Value` and back. A number is a double there, so integers beyond 2^53 lose their last digits.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::{Map, Value as Json};

use super::v1;
use crate::flag::Context;

pub fn to_value(json: &Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(value) => value.as_f64().map_or(Kind::NullValue(0), Kind::NumberValue),
        Json::String(value) => Kind::StringValue(value.clone()),
        Json::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(to_value).collect() }),
        Json::Object(fields) => Kind::StructValue(to_struct(fields)),
    };
    Value { kind: Some(kind) }
}

pub fn to_struct(fields: &Map<String, Json>) -> Struct {
    Struct { fields: fields.iter().map(|(name, value)| (name.clone(), to_value(value))).collect() }
}

/// Whole numbers come back without a fraction. What JSON has no word for (NaN, infinity, nothing at all) is null.
pub fn from_value(value: &Value) -> Json {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(*value),
        Some(Kind::NumberValue(value)) => crate::flag::Value::Number(*value).to_json(),
        Some(Kind::StringValue(value)) => Json::String(value.clone()),
        Some(Kind::ListValue(list)) => list.values.iter().map(from_value).collect(),
        Some(Kind::StructValue(fields)) => {
            Json::Object(fields.fields.iter().map(|(name, value)| (name.clone(), from_value(value))).collect())
        }
    }
}

impl From<&Context> for v1::Context {
    fn from(context: &Context) -> Self {
        let Context { targeting_key, attributes } = context;
        Self { targeting_key: targeting_key.clone().unwrap_or_default(), attributes: Some(to_struct(attributes)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            (-1_000_000_i64..1_000_000).prop_map(Json::from),
            "[a-z]{0,6}".prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                proptest::collection::btree_map("[a-z]{1,4}", inner, 0..4).prop_map(|fields| fields.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_comes_back_as_it_went(json in any_json()) {
            prop_assert_eq!(from_value(&to_value(&json)), json);
        }
    }

    #[test]
    fn what_json_has_no_word_for_is_null() {
        for kind in [None, Some(Kind::NumberValue(f64::NAN)), Some(Kind::NumberValue(f64::INFINITY))] {
            assert_eq!(from_value(&Value { kind }), Json::Null);
        }
    }

    #[test]
    fn a_context_keeps_its_key_and_its_attributes() {
        let message = v1::Context::from(&Context::new("user-1").with("plan", "beta").with("seats", 5));
        assert_eq!(message.targeting_key, "user-1");
        let attributes = Value { kind: message.attributes.map(Kind::StructValue) };
        assert_eq!(from_value(&attributes), json!({ "plan": "beta", "seats": 5 }));
    }
}
