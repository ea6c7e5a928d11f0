//! `yardarm env`: the closed worlds of flags.

use serde::Serialize;

use super::connect::{Author, ControlPlane};
use super::exit::{Exit, Failure, Outcome};
use super::output::Out;
use super::status;
use super::table::{Rows, plain};
use super::view::Position;
use crate::wire::v1;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    control: ControlPlane,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the environments
    List,
    /// Create an empty environment
    Create {
        name: String,
        /// Why, for the audit log
        #[arg(long, default_value = "created from the command line")]
        reason: String,
        #[command(flatten)]
        author: Author,
    },
    /// Create an environment with the flags, segments and kills of another one
    Copy {
        from: String,
        to: String,
        /// Why, for the audit log
        #[arg(long, default_value = "copied from the command line")]
        reason: String,
        #[command(flatten)]
        author: Author,
    },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    environments: Vec<Environment>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Environment {
    name: String,
    #[serde(flatten)]
    position: Position,
    flags: u32,
    segments: u32,
    pods: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    environment: String,
    copied_from: Option<String>,
    #[serde(flatten)]
    position: Position,
}

pub async fn run(args: Args, out: &mut Out) -> Outcome {
    let Args { control, command } = args;
    match command {
        Command::List => list(&control, out).await,
        Command::Create { name, reason, author } => {
            let request = v1::CreateEnvironmentRequest { name: name.clone(), intent: Some(author.intends(reason, None)) };
            let answer = control.connect().await?.create_environment(control.ask(request)).await.map_err(status::of_change)?;
            created(Created { environment: name, copied_from: None, position: answer.into_inner().position.into() }, out)
        }
        Command::Copy { from, to, reason, author } => {
            let request = v1::CopyEnvironmentRequest { from: from.clone(), to: to.clone(), intent: Some(author.intends(reason, None)) };
            let answer = control.connect().await?.copy_environment(control.ask(request)).await.map_err(status::of_change)?;
            created(Created { environment: to, copied_from: Some(from), position: answer.into_inner().position.into() }, out)
        }
    }
}

async fn list(control: &ControlPlane, out: &mut Out) -> Outcome {
    let answer =
        control.connect().await?.list_environments(control.ask(v1::ListEnvironmentsRequest {})).await.map_err(status::of_control)?;
    let environments = answer.into_inner().environments.into_iter().map(Environment::from).collect();
    out.answer(&Listed { environments }, print)?;
    Ok(Exit::Done)
}

fn print(out: &mut Out, listed: &Listed) -> Result<(), Failure> {
    if listed.environments.is_empty() {
        return out.line("no environment yet; create one with `yardarm env create NAME`");
    }
    let mut rows = Rows::under(["NAME", "REVISION", "FLAGS", "SEGMENTS", "PODS"]);
    for environment in &listed.environments {
        let Environment { name, position, flags, segments, pods } = environment;
        rows.row([name.clone(), position.revision.to_string(), flags.to_string(), segments.to_string(), pods.to_string()], plain());
    }
    rows.print(out)
}

fn created(created: Created, out: &mut Out) -> Outcome {
    out.answer(&created, |out, created| {
        let Created { environment, copied_from, position } = created;
        let origin = copied_from.as_ref().map(|from| format!(" as a copy of {from}")).unwrap_or_default();
        out.line(format!("created environment {environment}{origin} at revision {}", position.revision))
    })?;
    Ok(Exit::Done)
}

impl From<v1::Environment> for Environment {
    fn from(environment: v1::Environment) -> Self {
        let v1::Environment { name, position, flags, segments, pods } = environment;
        Self { name, position: position.into(), flags, segments, pods }
    }
}
