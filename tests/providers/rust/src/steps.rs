//! The testbed's steps, for a provider that has no events.

use std::time::Duration;

use cucumber::gherkin::Step;
use cucumber::{given, then, when};
use tokio::time::{Instant, sleep};

use crate::answer::{Answer, same, typed};
use crate::launchpad;
use crate::suite::{Suite, attribute};

/// Reached only when a test fails.
const WAIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

#[given(regex = r#"^an option "([^"]+)" of type "[^"]+" with value "(.*)"$"#)]
async fn option(suite: &mut Suite, name: String, value: String) {
    suite.option(&name, &value);
}

#[given(regex = r"^a (stable|ssl|socket|syncpayload|metadata) flagd provider$")]
async fn provider(suite: &mut Suite, kind: String) {
    suite.connect(&kind).await;
}

#[given(regex = r#"^a (\w+)-flag with key "([^"]+)" and a default value "(.*)"$"#)]
async fn flag(suite: &mut Suite, kind: String, key: String, default: String) {
    suite.default = typed(&kind, &default);
    (suite.kind, suite.key) = (kind, key);
}

#[given(regex = r#"^a context containing a targeting key with value "(.*)"$"#)]
async fn targeting_key(suite: &mut Suite, key: String) {
    suite.context.targeting_key = Some(key);
}

#[given(regex = r#"^a context containing a key "([^"]*)", with type "(\w+)" and with value "(.*)"$"#)]
async fn context(suite: &mut Suite, key: String, kind: String, value: String) {
    suite.context.custom_fields.insert(key, attribute(typed(&kind, &value)));
}

#[given(regex = r#"^a context containing a nested property with outer key "([^"]+)" and inner key "([^"]+)", with value "(.*)"$"#)]
async fn nested(suite: &mut Suite, outer: String, key: String, value: String) {
    suite.context.custom_fields.insert(outer, attribute(serde_json::json!({ key: value })));
}

#[when("the flag was evaluated with details")]
async fn evaluated(suite: &mut Suite) {
    suite.answer = Some(suite.evaluate().await);
}

#[when("the flag was modified")]
async fn modified(_: &mut Suite) {
    launchpad::order("/change").await;
}

#[when(regex = r"^the connection is lost for (\d+)s$")]
async fn lost(_: &mut Suite, seconds: u64) {
    launchpad::order(&format!("/restart?seconds={seconds}")).await;
}

fn answer(suite: &Suite) -> &Answer {
    suite.answer.as_ref().expect("the flag was evaluated")
}

#[then(regex = r#"^the resolved details value should be "(.*)"$"#)]
async fn value(suite: &mut Suite, expected: String) {
    let (expected, answer) = (typed(&suite.kind, &expected), answer(suite));
    assert!(same(&answer.value, &expected), "expected {expected}, not {answer:?}");
}

/// Not of the testbed: ours, where it would wait for an event.
#[then(regex = r#"^the resolved details value becomes "(.*)"$"#)]
async fn becomes(suite: &mut Suite, expected: String) {
    let (expected, until) = (typed(&suite.kind, &expected), Instant::now() + WAIT);
    loop {
        let answer = suite.evaluate().await;
        if same(&answer.value, &expected) {
            break;
        }
        assert!(Instant::now() < until, "expected {expected} within {WAIT:?}, not {answer:?}");
        sleep(POLL).await;
    }
}

#[then(regex = r#"^the variant should be "(.*)"$"#)]
async fn variant(suite: &mut Suite, expected: String) {
    let answer = answer(suite);
    assert_eq!(answer.variant.as_ref(), Some(&expected), "{answer:?}");
}

#[then(regex = r#"^the reason should be "(.*)"$"#)]
async fn reason(suite: &mut Suite, expected: String) {
    let answer = answer(suite);
    assert_eq!(answer.reason, expected, "{answer:?}");
}

#[then(regex = r#"^the error-code should be "(.*)"$"#)]
async fn error(suite: &mut Suite, expected: String) {
    let answer = answer(suite);
    assert_eq!(answer.error.as_deref().unwrap_or_default(), expected, "{answer:?}");
}

#[then("the resolved metadata should contain")]
async fn metadata(suite: &mut Suite, step: &Step) {
    let (rows, answer) = (&step.table.as_ref().expect("the step has a table").rows[1..], answer(suite));
    assert_eq!(answer.metadata.len(), rows.len(), "{answer:?}");
    for row in rows {
        let expected = typed(&row[1], &row[2]);
        assert!(
            answer.metadata.get(&row[0]).is_some_and(|value| same(value, &expected)),
            "expected {} to be {expected}: {answer:?}",
            row[0]
        );
    }
}

#[then("the resolved metadata is empty")]
async fn no_metadata(suite: &mut Suite) {
    let answer = answer(suite);
    assert!(answer.metadata.is_empty(), "{answer:?}");
}
