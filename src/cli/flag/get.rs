//! `yardarm flag get`.

use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use super::Target;
use crate::cli::diff::yaml;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::output::Out;
use crate::cli::status;
use crate::cli::view::{Kill, Position, definition};
use crate::wire::v1;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The flag
    key: String,
    /// As it was at this revision [default: as it is]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    revision: u64,
    /// With the segments that it reads and the flags that it has as prerequisites, so that the document stands alone
    #[arg(long)]
    complete: bool,
}

/// `document` is what `flag apply` takes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    environment: String,
    #[serde(flatten)]
    position: Position,
    flag_revision: u64,
    kill: Option<Kill>,
    document: Json,
}

pub async fn run(target: Target, args: Args, out: &mut Out) -> Outcome {
    let Target { control, environment } = target;
    let Args { key, revision, complete } = args;
    let request = v1::GetFlagRequest { environment: environment.name.clone(), key, revision };
    let answer = control.connect().await?.get_flag(control.ask(request)).await.map_err(status::of_control)?.into_inner();
    let v1::GetFlagResponse { position, flag, segments, prerequisites } = answer;
    let flag = flag.ok_or_else(|| Failure::unable("the control plane answered without a flag; is it another version than this one?"))?;
    let (flag_revision, kill) = (flag.revision, flag.kill.clone().map(Kill::from));
    let (prerequisites, segments) = if complete { (prerequisites, segments) } else { Default::default() };
    let flags = [flag].into_iter().chain(prerequisites).map(|flag| Ok((flag.key, definition(&flag.definition)?)));
    let segments = segments.into_iter().map(|item| Ok((item.key, definition(&item.definition)?)));
    let mut document = json!({ "flags": flags.collect::<Result<Map<_, _>, Failure>>()? });
    let segments = segments.collect::<Result<Map<_, _>, Failure>>()?;
    if !segments.is_empty() {
        document["segments"] = segments.into();
    }
    out.answer(&Found { environment: environment.name, position: position.into(), flag_revision, kill, document }, print)?;
    Ok(Exit::Done)
}

/// YAML with what is not part of the document as comments, so that the whole output is a document.
fn print(out: &mut Out, found: &Found) -> Result<(), Failure> {
    let Found { environment, flag_revision, kill, document, .. } = found;
    out.line(format!("# environment {environment}, last changed at revision {flag_revision}"))?;
    if let Some(Kill { revision, actor, reason, .. }) = kill {
        let reason = reason.replace(['\n', '\r'], " ");
        out.line(format!("# KILLED at revision {revision} by {actor}: {reason}"))?;
    }
    out.line(yaml(document)?.trim_end())
}
