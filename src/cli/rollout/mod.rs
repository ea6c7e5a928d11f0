//! `yardarm rollout`: plans that move a flag's traffic, and what people do to them.

mod history;
mod plan;
mod status;

use serde::Serialize;
use tonic::transport::Channel;

use super::connect::{Author, ControlPlane, Environment, open};
use super::exit::{Exit, Failure, Outcome};
use super::output::Out;
use super::view::Position;
use crate::flag;
use crate::wire::v1;
use crate::wire::v1::rollouts_client::RolloutsClient;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Target {
    #[command(flatten)]
    control: ControlPlane,
    #[command(flatten)]
    environment: Environment,
    #[command(flatten)]
    author: Author,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what each gate can decide with the traffic at hand; exit code 1 when one cannot
    Plan(plan::Args),
    /// Start the rollout of a flag
    Start(Step),
    /// Show the timeline, the evidence against the margins, and what it waits for
    Status(status::Args),
    /// Agree to what is served now
    Approve(Approve),
    /// Do not agree: it pauses
    Reject(Step),
    /// Leave the traffic as it is until `resume`
    Pause(Step),
    /// Go on after a pause; deadlines count anew
    Resume(Step),
    /// Go to the next stage, whatever the gates say
    Advance(Step),
    /// Give everybody the baseline
    Rollback(Step),
    /// End the attempt and leave the traffic where it is
    Abort(Step),
    /// End it for good, once the retention is over
    Archive(Step),
    /// Print the templates that Yardarm brings along, as a document; they are named by `rollout` of a flag
    Templates,
    /// Show every decision, newest first; with `--output json` all that it was made from
    History(history::Args),
}

#[derive(Debug, clap::Args)]
struct Step {
    /// The flag
    key: String,
    /// Why, for the audit log
    #[arg(long)]
    reason: String,
}

#[derive(Debug, clap::Args)]
struct Approve {
    #[command(flatten)]
    step: Step,
    /// What was looked at, as `status` prints it [default: what is served now]
    #[arg(long, value_name = "PLAN/ATTEMPT/STAGE")]
    of: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    event: String,
    flag: String,
    environment: String,
    #[serde(flatten)]
    position: Position,
    phase: String,
    percent: String,
    waiting: String,
}

type Client = RolloutsClient<Channel>;

pub async fn run(args: Args, out: &mut Out) -> Outcome {
    let Args { target, command } = args;
    use v1::RolloutEvent as Event;
    match command {
        Command::Plan(args) => plan::run(target, args, out).await,
        Command::Status(args) => status::run(target, args, out).await,
        Command::Templates => templates(out),
        Command::History(args) => history::run(target, args, out).await,
        Command::Start(step) => {
            plan::warn(&target, &step.key, out).await?;
            target.step(Event::Start, step, None, out).await
        }
        Command::Approve(Approve { step, of }) => target.step(Event::Approve, step, of, out).await,
        Command::Reject(step) => target.step(Event::Reject, step, None, out).await,
        Command::Pause(step) => target.step(Event::Pause, step, None, out).await,
        Command::Resume(step) => target.step(Event::Resume, step, None, out).await,
        Command::Advance(step) => target.step(Event::Advance, step, None, out).await,
        Command::Rollback(step) => target.step(Event::Rollback, step, None, out).await,
        Command::Abort(step) => target.step(Event::Abort, step, None, out).await,
        Command::Archive(step) => target.step(Event::Archive, step, None, out).await,
    }
}

fn templates(out: &mut Out) -> Outcome {
    if out.is_json() {
        let document: Result<serde_json::Value, _> = serde_yaml_ng::from_str(flag::TEMPLATES);
        out.json(&document.map_err(|error| Failure::unable(format!("the templates have no form as JSON: {error}")))?)?;
    } else {
        out.line(flag::TEMPLATES.trim_end())?;
    }
    Ok(Exit::Done)
}

impl Target {
    async fn connect(&self) -> Result<Client, Failure> {
        let url = &self.control.url;
        let channel = open(url).await.map_err(|why| Failure::unable(format!("cannot reach the control plane at {url}: {why}")))?;
        Ok(RolloutsClient::new(channel))
    }

    async fn get(&self, client: &mut Client, key: &str) -> Result<v1::Rollout, Failure> {
        let request = v1::GetRolloutRequest { environment: self.environment.name.clone(), key: key.to_owned() };
        Ok(client.get_rollout(self.control.ask(request)).await.map_err(super::status::of_control)?.into_inner())
    }

    async fn step(&self, event: v1::RolloutEvent, step: Step, of: Option<String>, out: &mut Out) -> Outcome {
        let Step { key, reason } = step;
        let mut client = self.connect().await?;
        let of = match (event, of) {
            (_, Some(of)) => of,
            (v1::RolloutEvent::Approve, None) => self.get(&mut client, &key).await?.approvable,
            _ => String::new(),
        };
        let request = v1::StepRolloutRequest {
            environment: self.environment.name.clone(),
            key: key.clone(),
            event: event.into(),
            of,
            intent: Some(self.author.intends(reason, None)),
        };
        let answer = client.step_rollout(self.control.ask(request)).await.map_err(super::status::of_change)?.into_inner();
        let now = self.get(&mut client, &key).await?;
        let done = Done {
            event: event.as_str_name().trim_start_matches("ROLLOUT_EVENT_").to_lowercase(),
            flag: key,
            environment: self.environment.name.clone(),
            position: answer.position.into(),
            percent: percent(&now),
            phase: now.phase,
            waiting: now.waiting,
        };
        out.answer(&done, |out, done| {
            let Done { event, flag, position, phase, percent, waiting, .. } = done;
            let waiting = if waiting.is_empty() { String::new() } else { format!(": {waiting}") };
            out.line(format!("{event} {flag} at revision {}: {percent}, {phase}{waiting}", position.revision))
        })?;
        Ok(Exit::Done)
    }
}

/// Of all treatments together: `10 %`.
fn percent(rollout: &v1::Rollout) -> String {
    crate::rollout::percent(rollout.shares.values().sum())
}
