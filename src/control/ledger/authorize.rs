//! Who may do what. Every command passes here before anything else is looked at.
//!
//! There are no tokens yet, so that whoever reaches the port may do everything; what is already demanded is that every change has an
//! author, and that a kill and its end have a reason. Permissions by actor, action and environment will be decided in this function.

use super::command::{Actor, Command};
use super::error::Error;

/// Bytes of an actor's name.
pub const ACTOR_BYTES: usize = 256;
/// Bytes of a reason.
pub const REASON_BYTES: usize = 4096;

pub(super) fn authorize(actor: &Actor, reason: &str, command: &Command) -> Result<(), Error> {
    authorize_actor(actor, reason)?;
    if reason.trim().is_empty() && matches!(command, Command::Kill { .. } | Command::Trip { .. } | Command::Restore { .. }) {
        return malformed("intent.reason", "is empty, expected why the flag is killed or restored".into());
    }
    if reason.trim().is_empty() && matches!(command, Command::Rollout { event, .. } if event.by().is_some()) {
        return malformed("intent.reason", "is empty, expected why this is done to the rollout".into());
    }
    Ok(())
}

/// What is asked of whoever changes anything.
pub(super) fn authorize_actor(actor: &Actor, reason: &str) -> Result<(), Error> {
    match actor.name.len() {
        0 => return malformed("intent.actor", "is empty, expected the name of whoever makes the change".into()),
        1..=ACTOR_BYTES => {}
        bytes => return malformed("intent.actor", format!("has {bytes} bytes, expected at most {ACTOR_BYTES}")),
    }
    if actor.name.chars().any(char::is_control) {
        return malformed("intent.actor", "has a control character in it".into());
    }
    if reason.len() > REASON_BYTES {
        return malformed("intent.reason", format!("has {} bytes, expected at most {REASON_BYTES}", reason.len()));
    }
    Ok(())
}

fn malformed(field: &'static str, problem: String) -> Result<(), Error> {
    Err(Error::Malformed { field, problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kill() -> Command {
        Command::Kill { environment: "prod".into(), flag: "a".into() }
    }

    #[test]
    fn a_change_without_an_author_is_refused() {
        for name in ["", "ana\n", &"a".repeat(ACTOR_BYTES + 1)] {
            assert!(
                matches!(authorize(&Actor::new(name), "why", &kill()), Err(Error::Malformed { field: "intent.actor", .. })),
                "{name:?}"
            );
        }
        assert!(authorize(&Actor::new("ana"), "why", &kill()).is_ok());
    }

    #[test]
    fn a_kill_needs_a_reason_and_an_apply_does_not() {
        let apply = Command::Apply { environment: "prod".into(), document: String::new(), expect: None };
        assert!(matches!(authorize(&Actor::new("ana"), " ", &kill()), Err(Error::Malformed { field: "intent.reason", .. })));
        assert!(authorize(&Actor::new("ana"), "", &apply).is_ok());
        let long = "x".repeat(REASON_BYTES + 1);
        assert!(matches!(authorize(&Actor::new("ana"), &long, &apply), Err(Error::Malformed { field: "intent.reason", .. })));
    }
}
