//! Rollouts: the service that people ask, and the conductor that looks at them as time passes.

mod answers;
mod conductor;
mod evidence;
mod guards;

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::admin::{malformed, status};
use super::ledger::{Actor, Command, Error, Ledger};
use crate::rollout::{Event, State, forecast};
use crate::wire::admin::{Intent, Target, intent, limit, mutation, target};
use crate::wire::replication::Malformed;
use crate::wire::v1;
use crate::wire::v1::rollouts_server::RolloutsServer;

pub use conductor::Conductor;
pub use evidence::Reported;
pub use guards::Guards;

pub struct Rollouts {
    ledger: Arc<Ledger>,
    evidence: Arc<Reported>,
}

/// The service, for a tonic router.
pub fn service(ledger: Arc<Ledger>, evidence: Arc<Reported>) -> RolloutsServer<Rollouts> {
    RolloutsServer::new(Rollouts { ledger, evidence })
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl v1::rollouts_server::Rollouts for Rollouts {
    async fn get_rollout(&self, request: Request<v1::GetRolloutRequest>) -> Answer<v1::Rollout> {
        let v1::GetRolloutRequest { environment, key } = request.into_inner();
        let Target { environment, item } = target(environment, 0, key).map_err(malformed)?;
        let rollout = self.ledger.rollout(&environment, &item.key).map_err(status)?;
        let evidence = self.evidence.of(&environment, &rollout);
        Ok(Response::new(answers::rollout(rollout, evidence, self.ledger.now_us())))
    }

    async fn step_rollout(&self, request: Request<v1::StepRolloutRequest>) -> Answer<v1::MutationResponse> {
        let v1::StepRolloutRequest { environment, key, event, of, intent: by } = request.into_inner();
        let Intent { actor, reason, .. } = intent(by).map_err(malformed)?;
        let Target { environment, item } = target(environment, 0, key).map_err(malformed)?;
        let event = event_of(event, of, actor.clone(), reason.clone()).map_err(malformed)?;
        if let Event::Start { .. } = event {
            self.refuse_the_hopeless(&environment, &item.key)?;
        }
        let command = Command::Rollout { environment, flag: item.key, event };
        let committed = self.ledger.commit(&Actor::new(actor), &reason, command).await.map_err(status)?;
        Ok(Response::new(mutation(committed.position, committed.changed)))
    }

    async fn rollout_history(&self, request: Request<v1::RolloutHistoryRequest>) -> Answer<v1::RolloutHistoryResponse> {
        let v1::RolloutHistoryRequest { environment, key, limit: most } = request.into_inner();
        let Target { environment, item } = target(environment, 0, key).map_err(malformed)?;
        let decisions = self.ledger.decisions(&environment, &item.key, limit(most)).await.map_err(status)?;
        Ok(Response::new(v1::RolloutHistoryResponse { decisions: decisions.into_iter().map(answers::decision).collect() }))
    }
}

impl Rollouts {
    /// A gate that no number of people can open would hold the rollout for ever.
    fn refuse_the_hopeless(&self, environment: &str, flag: &str) -> Result<(), Status> {
        let rollout = self.ledger.rollout(environment, flag).map_err(status)?;
        match forecast(&rollout.plan, None).iter().find(|forecast| forecast.is_hopeless()) {
            None => Ok(()),
            Some(hopeless) => {
                let why = format!("{} of {} is {}", hopeless.metric, hopeless.stage, hopeless.outlook);
                Err(status(Error::RolloutRefused { flag: flag.to_owned(), why }))
            }
        }
    }
}

fn event_of(event: i32, of: String, by: String, reason: String) -> Result<Event, Malformed> {
    use v1::RolloutEvent as Asked;
    Ok(match Asked::try_from(event) {
        Ok(Asked::Start) => Event::Start { by, reason },
        Ok(Asked::Approve) if of.is_empty() => {
            return Err(Malformed { field: "of", problem: "is empty, expected the `approvable` of what was looked at".to_owned() });
        }
        Ok(Asked::Approve) => Event::Approve { by, of },
        Ok(Asked::Reject) => Event::Reject { by, reason },
        Ok(Asked::Pause) => Event::Pause { by, reason },
        Ok(Asked::Resume) => Event::Resume { by, reason },
        Ok(Asked::Advance) => Event::Advance { by, reason },
        Ok(Asked::Rollback) => Event::Rollback { by, reason },
        Ok(Asked::Abort) => Event::Abort { by, reason },
        Ok(Asked::Archive) => Event::Archive { by },
        Ok(Asked::Unspecified) | Err(_) => {
            return Err(Malformed { field: "event", problem: format!("{event} is no event, expected start, approve, …") });
        }
    })
}

/// Where it would be at this moment, without a change of anything.
fn looked_at(rollout: &super::ledger::Rollout, evidence: Option<&crate::rollout::Evidence>, now_us: i64) -> State {
    let event = Event::Tick { evidence: evidence.cloned() };
    let (looked_at, actions) = crate::rollout::step(&rollout.plan, rollout.state.clone(), event, now_us);
    // What the next look of the conductor will do is not done yet.
    match actions.is_empty() {
        true => looked_at,
        false => rollout.state.clone(),
    }
}
