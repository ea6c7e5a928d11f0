//! The flag as Unleash has it: a strategy for each rule.

use std::collections::HashMap;

use serde_json::{Value as Json, json};
use unleash_types::client_features::{ClientFeatures, Context as Asked};
use unleash_yggdrasil::{EngineState, UpdateMessage};

use crate::flag::Context;
use crate::{NUMBER, flags};

pub struct Yggdrasil {
    engine: EngineState,
    key: String,
    users: Vec<Asked>,
}

impl Yggdrasil {
    pub fn new(key: &str, users: &[Context]) -> Self {
        let engine = EngineState::default();
        let state: ClientFeatures = serde_json::from_value(state(key)).expect("a state of Unleash");
        let warnings = engine.take_state(UpdateMessage::FullResponse(state));
        assert!(warnings.as_ref().is_none_or(Vec::is_empty), "yggdrasil does not take the flag as it is meant");
        Self { engine, key: key.to_owned(), users: users.iter().map(asked).collect() }
    }

    pub fn is_enabled(&self, user: usize) -> bool {
        self.engine.is_enabled(std::hint::black_box(&self.key), &self.users[user], &None)
    }
}

fn state(key: &str) -> Json {
    let rules = flags::definition(NUMBER)["rules"].clone();
    let (email, when, weights) = (&rules[0]["when"][0]["endsWith"], &rules[1]["when"], &rules[2]["split"]["weights"]);
    let constraint = |name: &str, operator: &str, values: &Json| json!({ "contextName": name, "operator": operator, "values": values });
    let single = |name: &str, operator: &str, value: String| json!({ "contextName": name, "operator": operator, "value": value });
    json!({
        "version": 2,
        "features": [{
            "name": key,
            "enabled": true,
            "strategies": [
                { "name": "default", "parameters": {}, "constraints": [constraint("email", "STR_ENDS_WITH", email)] },
                { "name": "default", "parameters": {}, "constraints": [
                    constraint("plan", "IN", &when[0]["in"]),
                    constraint("country", "IN", &when[1]["in"]),
                    single("seats", "NUM_GT", when[2]["greaterThan"].to_string()),
                ] },
                {
                    "name": "flexibleRollout",
                    "parameters": { "rollout": weights["on"].to_string(), "stickiness": "userId", "groupId": key },
                    // There is no `at least` for versions.
                    "constraints": [single("appVersion", "SEMVER_GT", "2.2.99".to_owned())],
                },
            ],
        }],
    })
}

/// Every property is text there.
fn asked(context: &Context) -> Asked {
    let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let properties: HashMap<String, String> = context.attributes.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    Asked { user_id: context.targeting_key.clone(), properties: Some(properties), ..Asked::default() }
}
