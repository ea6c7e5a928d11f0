//! `yardarm pods`: who holds which revision, how old it is there, and what was rejected.

use std::collections::HashMap;
use std::time::Duration;

use owo_colors::{OwoColorize as _, Style};
use serde::Serialize;
use tokio_stream::StreamExt as _;

use super::connect::{ControlPlane, Environment};
use super::duration::rough;
use super::exit::{Exit, Failure, Outcome};
use super::output::Out;
use super::status;
use super::table::{Rows, alarming, doubtful, plain};
use super::view::{Position, since, time};
use crate::wire::v1;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    control: ControlPlane,
    #[command(flatten)]
    environment: Environment,
    /// Stay, and print a line for each pod that changes
    #[arg(short, long)]
    watch: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    head: Position,
    pods: Vec<Pod>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    pod: String,
    namespace: String,
    node: String,
    version: String,
    instance: String,
    connected: bool,
    #[serde(flatten)]
    position: Position,
    /// How old the data is, as the pod said in its last report.
    age_ms: u64,
    applied_at: Option<String>,
    last_seen: Option<String>,
    rejected: Vec<Rejected>,
    #[serde(skip)]
    silent_for: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rejected {
    kind: &'static str,
    key: String,
    revision: u64,
    held_revision: u64,
    message: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    head: Position,
    pod: &'a Pod,
    gone: bool,
}

/// How a pod stands to the head of its environment.
enum Standing {
    Current,
    Behind(u64),
    OtherEpoch,
    Rejects(usize),
    Silent,
}

pub async fn run(args: Args, out: &mut Out) -> Outcome {
    let Args { control, environment, watch } = args;
    let mut admin = control.connect().await?;
    let request = v1::ListPodsRequest { environment: environment.name };
    if watch {
        let events = admin.watch_pods(request).await.map_err(status::of_control)?.into_inner();
        return follow(events, out).await;
    }
    let v1::ListPodsResponse { head, pods } = admin.list_pods(control.ask(request)).await.map_err(status::of_control)?.into_inner();
    out.answer(&Listed { head: head.into(), pods: pods.into_iter().map(Pod::from).collect() }, print)?;
    Ok(Exit::Done)
}

fn print(out: &mut Out, listed: &Listed) -> Result<(), Failure> {
    let Listed { head, pods } = listed;
    if pods.is_empty() {
        return out
            .line(format!("no sidecar follows this environment (head revision {}); start one with `yardarm sidecar`", head.revision));
    }
    let mut rows = Rows::under(["POD", "NODE", "VERSION", "REVISION", "AGE", "STATUS"]);
    for pod in pods {
        let standing = pod.standing(*head);
        let age = rough(Duration::from_millis(pod.age_ms));
        let node = if pod.node.is_empty() { "-" } else { &pod.node };
        let cells = [pod.pod.clone(), node.to_owned(), pod.version.clone(), pod.position.revision.to_string(), age, standing.words(pod)];
        rows.row(cells, standing.style());
    }
    rows.print(out)?;
    for pod in pods {
        for Rejected { kind, key, revision, held_revision, message } in &pod.rejected {
            out.line(format!("{} rejected {kind} {key} at revision {revision} and holds {held_revision}: {message}", pod.pod).red())?;
        }
    }
    Ok(())
}

async fn follow(mut events: tonic::Streaming<v1::PodEvent>, out: &mut Out) -> Outcome {
    let mut first = Listed { head: None.into(), pods: Vec::new() };
    let mut synced = out.is_json();
    let mut last_lines = HashMap::new();
    while let Some(event) = events.next().await {
        let event = event.map_err(status::of_control)?;
        let (head, complete, gone) = (Position::from(event.head), event.synced, event.gone);
        let pod = event.pod.map(Pod::from);
        match pod {
            Some(pod) if out.is_json() => out.json(&Event { head, pod: &pod, gone })?,
            Some(pod) if !synced => first.pods.push(pod),
            // The age of the data changes with every report; a line is worth printing when anything else does.
            Some(pod) => {
                let standing = pod.standing(head);
                let line = match gone {
                    true => format!("{}  gone", pod.pod),
                    false => format!("{}  revision {}  {}", pod.pod, pod.position.revision, standing.words(&pod)),
                };
                if last_lines.insert(pod.instance, line.clone()).as_ref() != Some(&line) {
                    out.line(format!("{:.3}  {line}", jiff::Timestamp::now()).style(standing.style()))?;
                }
            }
            None => {}
        }
        if complete && !synced {
            synced = true;
            first.head = head;
            print(out, &first)?;
        }
    }
    Err(Failure::unable("the control plane ended the stream; look again with `yardarm pods --watch`"))
}

impl Pod {
    fn standing(&self, head: Position) -> Standing {
        match self.position {
            _ if !self.connected => Standing::Silent,
            _ if !self.rejected.is_empty() => Standing::Rejects(self.rejected.len()),
            Position { epoch, .. } if epoch != head.epoch => Standing::OtherEpoch,
            Position { revision, .. } if revision < head.revision => Standing::Behind(head.revision - revision),
            _ => Standing::Current,
        }
    }
}

impl Standing {
    fn words(&self, pod: &Pod) -> String {
        match self {
            Self::Current => "current".to_owned(),
            Self::Behind(1) => "1 revision behind".to_owned(),
            Self::Behind(count) => format!("{count} revisions behind"),
            Self::OtherEpoch => "holds an older epoch".to_owned(),
            Self::Rejects(count) => format!("{count} rejected"),
            Self::Silent => format!("silent for {}", pod.silent_for.map_or_else(|| "ever".to_owned(), rough)),
        }
    }

    fn style(&self) -> Style {
        match self {
            Self::Current => plain(),
            Self::Behind(_) | Self::OtherEpoch => doubtful(),
            Self::Rejects(_) | Self::Silent => alarming(),
        }
    }
}

impl From<v1::Pod> for Pod {
    fn from(pod: v1::Pod) -> Self {
        let v1::Pod { identity, connected, position, applied_at, last_seen, age_ms, rejected } = pod;
        let v1::Identity { instance, pod, namespace, node, version } = identity.unwrap_or_default();
        Self {
            pod,
            namespace,
            node,
            version,
            instance,
            connected,
            position: position.into(),
            age_ms,
            applied_at: time(applied_at),
            last_seen: time(last_seen),
            rejected: rejected.into_iter().map(Rejected::from).collect(),
            silent_for: since(last_seen),
        }
    }
}

impl From<v1::Rejection> for Rejected {
    fn from(rejection: v1::Rejection) -> Self {
        let kind = super::view::kind(rejection.kind());
        let v1::Rejection { key, revision, message, held_revision, .. } = rejection;
        Self { kind, key, revision, held_revision, message }
    }
}
