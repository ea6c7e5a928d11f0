//! Rollouts as they are stored: where each is, and every decision with all that it was made from.

use serde::{Deserialize, Serialize};

use super::codec::{from_json, to_json};
use crate::control::store::Error;
use crate::flag::Revision;
use crate::rollout::{Action, Event, State};

/// One step of the engine. With the definition at its revision it can be made again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Unix time, microseconds: the `now` of the step.
    pub at_us: i64,
    /// Revision of the definition whose plan was carried out.
    pub definition: Revision,
    pub event: Event,
    pub before: State,
    pub after: State,
    pub actions: Vec<Action>,
}

pub fn encode_rollout(state: &State) -> Vec<u8> {
    to_json(state)
}

pub fn decode_rollout(bytes: &[u8]) -> Result<State, Error> {
    from_json(bytes, "rollout")
}

impl Decision {
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        from_json(bytes, "decision of a rollout")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::Phase;

    #[test]
    fn a_decision_survives_the_store() {
        let after = State { phase: Phase::Paused { reason: "why".into() }, attempt: 2, plan: "ab".into(), ..State::default() };
        let event = Event::Pause { by: "ana".into(), reason: "why".into() };
        let actions = vec![Action::Notify { message: "paused".into() }];
        let decision = Decision { at_us: -5, definition: 7, event, before: State::default(), after: after.clone(), actions };
        assert_eq!(Decision::decode(&decision.encode()).unwrap(), decision);
        assert_eq!(decode_rollout(&encode_rollout(&after)).unwrap(), after);
        assert!(decode_rollout(b"{}").is_err());
    }
}
