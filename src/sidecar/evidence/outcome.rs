//! Outcomes as they come in, checked. What is wrong is told by the path of the field; the first hundred of all that is.

use crate::clock::Micros;
use crate::flag::metro64;
use crate::wire::v1;

use super::attribution::Outcome;
use super::exposures::unit_hash;

/// Of one call.
pub(super) const OUTCOMES: usize = 1_000;
/// Of the name of an event, and of an idempotency key.
const NAME_BYTES: usize = 128;
/// Of a targeting key, as of a context.
const TARGETING_KEY_BYTES: usize = crate::flag::limits::CONTEXT_BYTES;
/// Fields that are named in one answer.
const VIOLATIONS: usize = 100;

/// Where, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) field: String,
    pub(super) description: String,
}

/// An outcome as one of the protocols says it.
#[derive(Debug, Default)]
pub(super) struct Said<'a> {
    pub(super) event: &'a str,
    pub(super) targeting_key: &'a str,
    pub(super) value: Option<f64>,
    pub(super) weight: Option<f64>,
    pub(super) idempotency_key: &'a str,
    pub(super) at_us: Option<Micros>,
}

/// What the fields are called in the protocol.
pub(super) struct Fields {
    pub(super) event: &'static str,
    pub(super) targeting_key: &'static str,
    pub(super) value: &'static str,
    pub(super) weight: &'static str,
    pub(super) idempotency_key: &'static str,
}

const GRPC: Fields =
    Fields { event: "event", targeting_key: "context.targeting_key", value: "value", weight: "weight", idempotency_key: "idempotency_key" };

impl Said<'_> {
    pub(super) fn check(&self, fields: &Fields, wrong: &mut impl FnMut(&'static str, String)) -> Outcome {
        let Self { event, targeting_key, value, weight, idempotency_key, at_us } = self;
        let mut bounded = |field, text: &str, least: usize, most: usize| {
            if text.len() < least {
                wrong(field, "is missing".to_owned());
            } else if text.len() > most {
                wrong(field, format!("has {} bytes, at most {most} are allowed", text.len()));
            }
        };
        bounded(fields.event, event, 1, NAME_BYTES);
        bounded(fields.targeting_key, targeting_key, 1, TARGETING_KEY_BYTES);
        bounded(fields.idempotency_key, idempotency_key, 0, NAME_BYTES);
        if let Some(value) = value.filter(|value| !value.is_finite()) {
            wrong(fields.value, format!("is {value}, expected a finite number"));
        }
        if let Some(weight) = weight.filter(|weight| !weight.is_finite() || *weight < 0.0) {
            wrong(fields.weight, format!("is {weight}, expected a finite number that is 0 or more"));
        }
        let unit = unit_hash(targeting_key);
        // One key of two people, or of two events, is two keys.
        let key = || metro64(idempotency_key.as_bytes()) ^ metro64(event.as_bytes()).rotate_left(17) ^ unit.rotate_left(34);
        Outcome {
            event: (*event).to_owned(),
            unit,
            person: (*targeting_key).to_owned(),
            value: value.unwrap_or(1.0),
            weight: weight.unwrap_or(1.0),
            key: (!idempotency_key.is_empty()).then(key),
            at_us: *at_us,
        }
    }
}

pub(super) fn outcomes(request: &v1::TrackRequest) -> Result<Vec<Outcome>, Vec<Violation>> {
    let v1::TrackRequest { outcomes } = request;
    if outcomes.len() > OUTCOMES {
        let description = format!("has {} outcomes, at most {OUTCOMES} are taken at once", outcomes.len());
        return Err(vec![Violation { field: "outcomes".to_owned(), description }]);
    }
    let mut violations = Vec::new();
    let checked = outcomes.iter().enumerate().map(|(number, outcome)| {
        let mut wrong = |field: &str, description: String| {
            if violations.len() < VIOLATIONS {
                violations.push(Violation { field: format!("outcomes[{number}].{field}"), description });
            }
        };
        let v1::Outcome { event, context, value, weight, idempotency_key, time } = outcome;
        let at_us = time.as_ref().map(|time| {
            micros(time).unwrap_or_else(|| {
                wrong("time", format!("{} s and {} ns are no time", time.seconds, time.nanos));
                0
            })
        });
        let targeting_key = context.as_ref().map_or("", |context| &context.targeting_key);
        let said = Said { event, targeting_key, value: *value, weight: *weight, idempotency_key, at_us };
        said.check(&GRPC, &mut |field, description| wrong(field, description))
    });
    let checked = checked.collect();
    if violations.is_empty() { Ok(checked) } else { Err(violations) }
}

fn micros(prost_types::Timestamp { seconds, nanos }: &prost_types::Timestamp) -> Option<Micros> {
    let nanos = Some(*nanos).filter(|nanos| (0..1_000_000_000).contains(nanos))?;
    seconds.checked_mul(1_000_000)?.checked_add(i64::from(nanos) / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(event: &str, key: &str) -> v1::Outcome {
        let context = Some(v1::Context { targeting_key: key.to_owned(), attributes: None });
        v1::Outcome { event: event.to_owned(), context, ..Default::default() }
    }

    #[test]
    fn every_field_that_is_wrong_is_named() {
        let good = outcome("paid", "ana");
        let many = v1::Outcome {
            event: "e".repeat(129),
            context: None,
            value: Some(f64::NAN),
            weight: Some(-1.0),
            idempotency_key: "k".repeat(129),
            time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }),
        };
        let wrong = outcomes(&v1::TrackRequest { outcomes: vec![good.clone(), many] }).unwrap_err();
        let fields: Vec<_> = wrong.iter().map(|violation| violation.field.as_str()).collect();
        let expected = ["time", "event", "context.targeting_key", "idempotency_key", "value", "weight"];
        assert_eq!(fields, expected.map(|field| format!("outcomes[1].{field}")));
        assert!(outcomes(&v1::TrackRequest { outcomes: vec![good] }).is_ok());
    }

    #[test]
    fn a_thousand_outcomes_are_taken_and_one_more_is_not() {
        let request = |count| v1::TrackRequest { outcomes: vec![outcome("paid", "ana"); count] };
        assert_eq!(outcomes(&request(OUTCOMES)).unwrap().len(), OUTCOMES);
        assert_eq!(outcomes(&request(OUTCOMES + 1)).unwrap_err()[0].field, "outcomes");
    }

    #[test]
    fn one_idempotency_key_of_two_people_is_two() {
        let mut of = ["ana", "bob"].map(|key| v1::Outcome { idempotency_key: "1".to_owned(), ..outcome("paid", key) }).to_vec();
        of.push(v1::Outcome { idempotency_key: "1".to_owned(), ..outcome("left", "ana") });
        of.push(of[0].clone());
        let keys: Vec<_> = outcomes(&v1::TrackRequest { outcomes: of }).unwrap().into_iter().map(|outcome| outcome.key.unwrap()).collect();
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[0] == keys[3], "{keys:?}");
    }
}
