//! Evidence from the question to the table: sidecars, a control plane, and the network and the crashes between them.

mod kept;
mod service;
mod tracking;

use yardarm::wire::v1;

/// A flag with a split and one metric of each way to add up, on which two variants are compared.
pub const DOCUMENT: &str = r#"
flags:
  checkout:
    variants: { "off": false, "on": true }
    defaultVariant: "off"
    killVariant: "off"
    rules:
      - name: rollout
        split: { by: targetingKey, weights: { "on": 50, "off": 50 } }
    metrics:
      errors: { kind: binomial, direction: lower }
      revenue: { kind: mean, direction: higher, clip: [0, 1000], event: paid }
"#;

pub fn outcome(event: &str, key: &str) -> v1::Outcome {
    let context = Some(v1::Context { targeting_key: key.into(), attributes: None });
    v1::Outcome { event: event.into(), context, ..Default::default() }
}
