//! What is said of a flag beside its value (flagd.md 1.6): of its set, then ours, then its own, which win. It is written straight into the
//! form that a protocol has for it.

use serde_json::Value as Json;

use super::answer::Answer;
use super::flagd::{Definition, SET, entry, reason};
use super::ofrep::put_json;
use super::selection::{Scope, Selection};
use super::value::{EncodedValue, value_message};

#[derive(Debug, Clone, Copy)]
enum Said<'a> {
    Ours(&'a str),
    Own(&'a Json),
}

/// The set and the source are those of the flag, and not what was selected: a flag is selected by no other, and what is written for one
/// client may be kept for the next.
fn each(answer: &Answer<'_>, definition: &Definition, scope: Scope<'_>, mut say: impl FnMut(&str, Said<'_>)) {
    let own = definition.metadata();
    let mut ours = |name: &str, text: &str| {
        if !own.contains_key(name) {
            say(name, Said::Ours(text));
        }
    };
    if !scope.environment.is_empty() {
        ours(SET, scope.environment);
    }
    if let Selection::Source(_) = scope.selection {
        ours("source", definition.source().unwrap_or(scope.environment));
    }
    // Texts: a number is a double there, and a revision has 64 bits.
    ours("revision", &answer.revision.to_string());
    if !answer.rule.is_empty() {
        ours("rule", answer.rule);
    }
    if reason(answer, definition) != answer.reason.as_str() {
        ours("reason", answer.reason.as_str());
    }
    // Flags that are in no set may say so.
    let is_told = |name: &str, value: &Json| name != SET || value != "";
    own.iter().filter(|(name, value)| is_told(name, value)).for_each(|(name, value)| say(name, Said::Own(value)));
}

/// As a `google.protobuf.Struct`.
pub(super) fn message(answer: &Answer<'_>, definition: &Definition, scope: Scope<'_>) -> Vec<u8> {
    let mut message = Vec::with_capacity(64);
    each(answer, definition, scope, |name, said| {
        let mut value = Vec::new();
        match said {
            Said::Ours(text) => EncodedValue::String(text).put(&mut value),
            Said::Own(json) => value = value_message(json),
        }
        message.extend(entry(name, &value));
    });
    message
}

/// As JSON.
pub(super) fn put_text(out: &mut Vec<u8>, answer: &Answer<'_>, definition: &Definition, scope: Scope<'_>) {
    let mut before = b'{';
    each(answer, definition, scope, |name, said| {
        out.push(before);
        before = b',';
        put_json(out, name);
        out.push(b':');
        match said {
            Said::Ours(value) => put_json(out, value),
            Said::Own(value) => put_json(out, value),
        }
    });
    if before == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use serde_json::json;

    use super::*;
    use crate::flag::Reason;
    use crate::wire::json::from_value;

    /// What both forms say, which is the same.
    fn said(answer: &Answer<'_>, definition: &str, selector: &str, environment: &str) -> Json {
        let (definition, selection) = (Definition::of(definition.as_bytes()), Selection::parse(selector).unwrap());
        let scope = Scope { selection: &selection, environment };
        let fields = prost_types::Struct::decode(&*message(answer, &definition, scope)).unwrap();
        let message = from_value(&prost_types::Value { kind: Some(prost_types::value::Kind::StructValue(fields)) });
        let mut text = Vec::new();
        put_text(&mut text, answer, &definition, scope);
        assert_eq!(serde_json::from_slice::<Json>(&text).unwrap(), message);
        message
    }

    fn answer(reason: Reason, rule: &str) -> Answer<'_> {
        let value = Some(EncodedValue::Bool(true));
        Answer { flag_key: "a", value, variant: "on", reason, rule, bucket: None, revision: u64::MAX, age_ms: 0, error: None, message: "" }
    }

    #[test]
    fn what_is_ours_gives_way_to_what_the_flag_says() {
        let own = r#"{"metadata":{"team":"p\"ay","rule":"mine","weight":0.5,"reason":null,"deep":{"er":[true]}}}"#;
        let expected = json!({
            "flagSetId": "prod", "revision": u64::MAX.to_string(), "rule": "mine", "reason": null, "team": "p\"ay", "weight": 0.5,
            "deep": { "er": [true] }
        });
        assert_eq!(said(&answer(Reason::Killed, "rollout"), own, "", "prod"), expected);
        let plain = json!({ "revision": u64::MAX.to_string(), "rule": "rollout", "reason": "SPLIT" });
        assert_eq!(said(&answer(Reason::Split, "rollout"), "{}", "", ""), plain);
    }

    #[test]
    fn a_set_is_told_but_one_without_a_name_and_a_source_only_to_who_asks_by_it() {
        let revision = u64::MAX.to_string();
        for (own, selector, environment, expected) in [
            (r#"{"metadata":{"flagSetId":"pay"},"source":"a"}"#, "flagSetId=pay", "prod", json!({ "flagSetId": "pay" })),
            (r#"{"metadata":{"flagSetId":"pay"},"source":"a"}"#, "", "prod", json!({ "flagSetId": "pay" })),
            (r#"{"metadata":{"flagSetId":"pay"},"source":"a"}"#, "a", "prod", json!({ "flagSetId": "pay", "source": "a" })),
            (r#"{"metadata":{"source":"mine"},"source":"a"}"#, "a", "prod", json!({ "flagSetId": "prod", "source": "mine" })),
            (r#"{"metadata":{"flagSetId":""}}"#, "flagSetId=", "prod", json!({})),
            ("{}", "prod", "prod", json!({ "flagSetId": "prod", "source": "prod" })),
            ("{}", "flagSetId=prod", "prod", json!({ "flagSetId": "prod" })),
        ] {
            let mut expected = expected;
            expected["revision"] = revision.clone().into();
            assert_eq!(said(&answer(Reason::Static, ""), own, selector, environment), expected, "{own} {selector}");
        }
    }

    #[test]
    fn a_flag_that_has_said_everything_itself_and_nothing_of_a_set_is_still_json() {
        let all = r#"{"metadata":{"flagSetId":"","revision":1}}"#;
        assert_eq!(said(&answer(Reason::Static, ""), all, "", "prod"), json!({ "revision": 1 }));
    }
}
