//! The one realistic flag that every benchmark uses: three rules over five attributes, the last of them a split; about 600 bytes of JSON.

use serde_json::{Value as Json, json};

use crate::flag::Context;

const COUNTRIES: [&str; 8] = ["DE", "FR", "US", "GB", "NL", "ES", "IT", "PL"];
const PLANS: [&str; 4] = ["free", "pro", "team", "enterprise"];

/// Key of the flag with this number.
pub fn key(number: usize) -> String {
    format!("service-{:02}.feature-{number:05}", number % 40)
}

/// The flag with this number, as people write it. Numbers differ in names, values and weights, not in shape.
pub fn definition(number: usize) -> Json {
    json!({
        "description": format!("Routes checkout requests of cohort {number} to the new pricing path"),
        "owner": format!("team-{}", number % 17),
        "tags": [format!("service-{:02}", number % 40)],
        "variants": { "on": true, "off": false },
        "defaultVariant": "off",
        "rules": [
            {
                "name": "internal",
                "when": [{ "attribute": "email", "endsWith": ["@example.com", "@example.org"] }],
                "serve": "on"
            },
            {
                "name": "large-plans",
                "when": [
                    { "attribute": "plan", "in": [PLANS[number % 4], PLANS[(number + 1) % 4]] },
                    { "attribute": "country", "in": [COUNTRIES[number % 8], COUNTRIES[(number + 3) % 8], COUNTRIES[(number + 5) % 8]] },
                    { "attribute": "seats", "greaterThan": 10_000 + number % 100 }
                ],
                "serve": "on"
            },
            {
                "name": "rollout",
                "when": [{ "attribute": "appVersion", "semver": ">=2.3.0" }],
                "split": { "by": "targetingKey", "weights": { "on": 1 + number % 99, "off": 99 - number % 99 } }
            }
        ]
    })
}

/// A flag document of the flags 0 .. count, as JSON.
pub fn document(count: usize) -> Json {
    let flags: serde_json::Map<String, Json> = (0..count).map(|number| (key(number), definition(number))).collect();
    json!({ "flags": flags })
}

/// A user who passes the first two rules by and reaches the split: every condition is looked at.
pub fn context(user: usize) -> Context {
    Context::new(format!("user-{user:08}"))
        .with("email", format!("user-{user}@customer.net"))
        .with("plan", PLANS[user % 4])
        .with("country", COUNTRIES[user % 8])
        .with("seats", 10 + user % 500)
        .with("appVersion", "2.4.1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::{Document, NoFlags, Reason, Segments, compile};

    #[test]
    fn every_realistic_flag_compiles_and_every_user_reaches_its_split() {
        let document = Document::parse(&document(200).to_string()).unwrap();
        assert_eq!(document.flags.len(), 200);
        for (number, (key, flag)) in document.flags.iter().enumerate() {
            let bytes = flag.to_canonical_json().len();
            assert!((500..=900).contains(&bytes), "{key} has {bytes} bytes");
            let compiled = compile(key, flag, &Segments::none()).unwrap();
            let decision = compiled.decide(&context(number), &NoFlags);
            assert_eq!((decision.reason, decision.rule), (Reason::Split, Some("rollout")));
        }
    }
}
