//! `yardarm flag list`.

use serde::Serialize;
use serde_json::Value as Json;

use super::Target;
use crate::cli::connect::ControlPlane;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::output::Out;
use crate::cli::status;
use crate::cli::table::{Rows, alarming, doubtful, plain};
use crate::cli::view::{Kill, Position, definition};
use crate::wire::v1;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these flags [default: all]
    keys: Vec<String>,
    /// Only flags whose key begins so
    #[arg(long)]
    prefix: Option<String>,
    /// Only flags with this tag; given several times, with all of them
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// List the segments instead
    #[arg(long, conflicts_with_all = ["keys", "prefix", "tags"])]
    segments: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedSegments {
    environment: String,
    #[serde(flatten)]
    position: Position,
    segments: Vec<Segment>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Segment {
    key: String,
    segment_revision: u64,
    definition: Json,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    environment: String,
    #[serde(flatten)]
    position: Position,
    flags: Vec<Flag>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Flag {
    key: String,
    flag_revision: u64,
    kill: Option<Kill>,
    definition: Json,
}

pub async fn run(target: Target, args: Args, out: &mut Out) -> Outcome {
    let Target { control, environment } = target;
    let Args { keys, prefix, tags, segments } = args;
    if segments {
        return list_segments(control, environment.name, out).await;
    }
    let selector = v1::FlagSelector { keys, prefix: prefix.unwrap_or_default(), tags };
    let request = v1::ListFlagsRequest { environment: environment.name.clone(), selector: Some(selector) };
    let answer = control.connect().await?.list_flags(control.ask(request)).await.map_err(status::of_control)?.into_inner();
    let flags = answer.flags.into_iter().map(Flag::try_from).collect::<Result<_, _>>()?;
    out.answer(&Listed { environment: environment.name, position: answer.position.into(), flags }, print)?;
    Ok(Exit::Done)
}

async fn list_segments(control: ControlPlane, environment: String, out: &mut Out) -> Outcome {
    let request = v1::ListSegmentsRequest { environment: environment.clone() };
    let answer = control.connect().await?.list_segments(control.ask(request)).await.map_err(status::of_control)?.into_inner();
    let segment =
        |item: v1::Item| Ok(Segment { definition: definition(&item.definition)?, key: item.key, segment_revision: item.revision });
    let segments = answer.segments.into_iter().map(segment).collect::<Result<_, Failure>>()?;
    out.answer(&ListedSegments { environment, position: answer.position.into(), segments }, |out, listed| {
        let mut rows = Rows::under(["KEY", "INCLUDED", "EXCLUDED", "CONDITIONS", "REVISION", "DESCRIPTION"]);
        for Segment { key, segment_revision, definition } in &listed.segments {
            let length = |name: &str| definition[name].as_array().map_or(0, Vec::len).to_string();
            let description = definition["description"].as_str().unwrap_or("-").to_owned();
            rows.row(
                [key.clone(), length("included"), length("excluded"), length("when"), segment_revision.to_string(), description],
                plain(),
            );
        }
        rows.print(out)
    })?;
    Ok(Exit::Done)
}

fn print(out: &mut Out, listed: &Listed) -> Result<(), Failure> {
    if listed.flags.is_empty() {
        return out.line(format!("no such flags in environment {}; add some with `yardarm flag apply -f FILE`", listed.environment));
    }
    let mut rows = Rows::under(["KEY", "STATE", "KIND", "VARIANTS", "REVISION", "OWNER", "TAGS"]);
    for flag in &listed.flags {
        let text = |name: &str| flag.definition[name].as_str().unwrap_or("-").to_owned();
        let names = |json: &Json| match json {
            Json::Object(fields) => fields.keys().cloned().collect::<Vec<_>>().join(", "),
            Json::Array(items) => items.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(", "),
            _ => "-".to_owned(),
        };
        let (state, style) = match (&flag.kill, flag.definition["state"].as_str()) {
            (Some(_), _) => ("KILLED", alarming()),
            (None, Some("DISABLED")) => ("disabled", doubtful()),
            (None, _) => ("enabled", plain()),
        };
        let Flag { key, flag_revision, definition, .. } = flag;
        let (variants, tags) = (names(&definition["variants"]), names(&definition["tags"]));
        rows.row([key.clone(), state.to_owned(), text("kind"), variants, flag_revision.to_string(), text("owner"), tags], style);
    }
    rows.print(out)
}

impl TryFrom<v1::FlagInfo> for Flag {
    type Error = Failure;

    fn try_from(info: v1::FlagInfo) -> Result<Self, Failure> {
        let v1::FlagInfo { key, revision, definition: bytes, kill } = info;
        Ok(Self { key, flag_revision: revision, kill: kill.map(Kill::from), definition: definition(&bytes)? })
    }
}
