//! Looks at every rollout that moves, once a second, and lets the engine decide. What it decides is a command like anybody's: of two
//! conductors on one store the second finds nothing left to do.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::{Guards, Reported};
use crate::control::ledger::{Actor, Command, Error, Ledger};
use crate::lifecycle::Shutdown;
use crate::rollout::{self, Action, Event, step};

/// How often time passes for a rollout. Units are reported every ten seconds; what waits for a time or a person need not wait for them.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Who is in the audit log for what nobody asked for.
pub const ACTOR: &str = "conductor";

pub struct Conductor {
    ledger: Arc<Ledger>,
    evidence: Arc<Reported>,
    guards: Guards,
}

impl Conductor {
    pub fn new(ledger: Arc<Ledger>, evidence: Arc<Reported>, guards: Guards) -> Self {
        Self { ledger, evidence, guards }
    }

    /// Until the process is asked to end.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                _ = ticks.tick() => self.tick().await,
            }
        }
    }

    /// One second. Guards first: what they kill is not looked at as if it ran.
    pub async fn tick(&mut self) {
        self.guards.tick().await;
        self.look().await;
    }

    /// A flag whose look fails holds up no other.
    async fn look(&self) {
        for (environment, flag) in self.ledger.moving_rollouts() {
            if let Err(problem) = self.look_at(&environment, &flag).await {
                tracing::warn!(environment, flag, %problem, "a rollout could not be looked at; trying again");
            }
        }
    }

    async fn look_at(&self, environment: &str, flag: &str) -> Result<(), Error> {
        let rollout = self.ledger.rollout(environment, flag)?;
        let event = Event::Tick { evidence: self.evidence.of(environment, &rollout) };
        let (_, actions) = step(&rollout.plan, rollout.state.clone(), event.clone(), self.ledger.now_us());
        let reason = actions.iter().find_map(|action| if let Action::Notify { message } = action { Some(message.as_str()) } else { None });
        let reason = reason.unwrap_or("its gates are open").to_owned();
        let command = Command::Rollout { environment: environment.to_owned(), flag: flag.to_owned(), event };
        let committed = self.ledger.commit(&Actor::new(ACTOR), &reason, command).await?;
        if committed.changed {
            let now = self.ledger.rollout(environment, flag)?;
            let (phase, stage) = (now.state.phase.as_str(), now.state.stage + 1);
            let percent = rollout::percent(now.state.buckets());
            match reason.starts_with("its gates") {
                true => tracing::info!(environment, flag, phase, stage, percent, "a rollout went on"),
                false => tracing::warn!(
                    environment,
                    flag,
                    phase,
                    stage,
                    percent,
                    reason,
                    owner = now.flag.owner,
                    "a rollout stopped: a person has to look"
                ),
            }
        }
        Ok(())
    }
}
