//! The flag as Eppo has it: an allocation for each rule.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use eppo_core::eval::get_assignment;
use eppo_core::ufc::{AssignmentValue, UniversalFlagConfig};
use eppo_core::{AttributeValue, Attributes, Configuration, SdkMetadata, Str};
use serde_json::{Value as Json, json};

use crate::flag::Context;
use crate::{NUMBER, flags};

pub struct Eppo {
    configuration: Configuration,
    key: String,
    users: Vec<(Str, Arc<Attributes>)>,
    now: DateTime<Utc>,
}

impl Eppo {
    pub fn new(key: &str, users: &[Context]) -> Self {
        let metadata = SdkMetadata { name: "peers", version: "0" };
        let flags = UniversalFlagConfig::from_json(metadata, state(key).to_string().into_bytes()).expect("a configuration of Eppo");
        let configuration = Configuration::from_server_response(flags, None);
        Self { configuration, key: key.to_owned(), users: users.iter().map(asked).collect(), now: Utc::now() }
    }

    pub fn is_on(&self, user: usize) -> bool {
        let (subject, attributes) = &self.users[user];
        let key = std::hint::black_box(self.key.as_str());
        let assignment = get_assignment(Some(&self.configuration), key, subject, attributes, None, self.now);
        matches!(assignment.expect("a flag that is there"), Some(assignment) if matches!(assignment.value, AssignmentValue::Boolean(true)))
    }
}

fn state(key: &str) -> Json {
    const SHARDS: u64 = 10_000;
    let rules = flags::definition(NUMBER)["rules"].clone();
    let (when, weights) = (&rules[1]["when"], &rules[2]["split"]["weights"]);
    let boundary = weights["on"].as_u64().unwrap_or_default() * SHARDS / 100;
    let condition = |attribute: &str, operator: &str, value: Json| json!({ "attribute": attribute, "operator": operator, "value": value });
    let everybody = json!([{ "variationKey": "on", "shards": [] }]);
    let share = |variation: &str, start: u64, end: u64| json!({ "variationKey": variation, "shards": [{ "salt": key, "ranges": [{ "start": start, "end": end }] }] });
    // Nothing is logged, which spares it the event.
    let allocation = |name: &str, conditions: Json, splits: Json| json!({ "key": name, "rules": [{ "conditions": conditions }], "splits": splits, "doLog": false });
    json!({
        "createdAt": "2026-11-21T00:00:00.000Z",
        "format": "SERVER",
        "environment": { "name": "bench" },
        "flags": { key: {
            "key": key,
            "enabled": true,
            "variationType": "BOOLEAN",
            "variations": { "on": { "key": "on", "value": true }, "off": { "key": "off", "value": false } },
            "totalShards": SHARDS,
            "allocations": [
                // There is no `ends with`.
                allocation("internal", json!([condition("email", "MATCHES", json!("@example\\.(com|org)$"))]), everybody.clone()),
                allocation("large-plans", json!([
                    condition("plan", "ONE_OF", when[0]["in"].clone()),
                    condition("country", "ONE_OF", when[1]["in"].clone()),
                    condition("seats", "GT", when[2]["greaterThan"].clone()),
                ]), everybody),
                allocation(
                    "rollout",
                    json!([condition("appVersion", "GTE", json!("2.3.0"))]),
                    json!([share("on", 0, boundary), share("off", boundary, SHARDS)]),
                ),
            ],
        } },
    })
}

fn asked(context: &Context) -> (Str, Arc<Attributes>) {
    let value = |value: &Json| match value {
        Json::Number(number) => AttributeValue::from(number.as_f64().unwrap_or_default()),
        other => AttributeValue::from(other.as_str().unwrap_or_default()),
    };
    let attributes = context.attributes.iter().map(|(name, json)| (Str::from(name.as_str()), value(json))).collect();
    (Str::from(context.targeting_key.as_deref().unwrap_or_default()), Arc::new(attributes))
}
