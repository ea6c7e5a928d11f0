//! `yardarm watch`: every change as the sidecar sees it.

use std::time::{Duration, Instant};

use owo_colors::{OwoColorize as _, Style};
use serde::Serialize;
use serde_json::Value as Json;
use tokio_stream::StreamExt as _;
use tonic::Streaming;

use super::connect::Sidecar;
use super::context;
use super::decision::Decision;
use super::duration::rough;
use super::exit::{Exit, Failure, Outcome};
use super::output::{Out, count};
use super::status;
use super::view::{Position, definition, time};
use crate::backoff::Backoff;
use crate::wire::v1;
use crate::wire::v1::watch_flags_response::Event as Message;

/// Data that is older than this is worth a line: a sidecar hears from its control plane every few seconds.
const STALE_AFTER: Duration = Duration::from_secs(15);

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    sidecar: Sidecar,
    /// Only these flags; they need not exist yet [default: all]
    keys: Vec<String>,
    /// Only flags whose key begins so
    #[arg(long)]
    prefix: Option<String>,
    /// Only flags with this tag; given several times, with all of them
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Show the definitions too
    #[arg(long)]
    definitions: bool,
    /// With --key or --attr, only changes of what this context is served
    #[command(flatten)]
    context: context::Args,
    /// End after this many changes
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    changes: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Event {
    Snapshot {
        #[serde(flatten)]
        position: Position,
        flags: Vec<Flag>,
    },
    Change {
        #[serde(rename = "type")]
        kind: &'static str,
        /// When the control plane committed it.
        origin_time: Option<String>,
        flag: Flag,
    },
    Heartbeat {
        #[serde(flatten)]
        position: Position,
        age_ms: u64,
    },
    /// The stream broke off and is taken up again.
    Disconnected { error: String },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Flag {
    key: String,
    /// Of its last change.
    flag_revision: u64,
    killed: bool,
    #[serde(skip_serializing_if = "Json::is_null")]
    definition: Json,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    decisions: Vec<Decision>,
}

/// What has come of the watch so far, over all its connections.
struct Progress {
    left: Option<u64>,
    position: Option<v1::Position>,
    /// Parts of a snapshot that is not complete.
    parts: Vec<Flag>,
    is_stale: bool,
}

pub async fn run(args: Args, out: &mut Out) -> Outcome {
    let Args { sidecar, keys, prefix, tags, definitions, context, changes } = args;
    let (detail, contexts) = match (context.is_given(), definitions) {
        (true, true) => return Err(Failure::unable("--definitions shows what flags are and --key what they serve; give one of them")),
        (true, false) => (v1::watch_flags_request::Detail::Values, vec![(&context.context()?).into()]),
        (false, true) => (v1::watch_flags_request::Detail::Definitions, Vec::new()),
        (false, false) => (v1::watch_flags_request::Detail::Keys, Vec::new()),
    };
    let selector = v1::FlagSelector { keys, prefix: prefix.unwrap_or_default(), tags };
    let mut request = v1::WatchFlagsRequest { selector: Some(selector), detail: detail.into(), contexts, resume: None, heartbeat_ms: 0 };
    let mut progress = Progress { left: changes, position: None, parts: Vec::new(), is_stale: false };
    let mut backoff = Backoff::default();
    // The first connection tells at once when the address or the request is wrong. A later one has worked before, and is taken up again.
    let mut events = Some(open(&sidecar, request.clone()).await?);
    loop {
        let opened_at = Instant::now();
        let failure = match events.take() {
            Some(stream) => match follow(stream, &mut progress, out).await? {
                Some(failure) => failure,
                None => return Ok(Exit::Done),
            },
            None => match open(&sidecar, request.clone()).await {
                Ok(stream) => {
                    events = Some(stream);
                    continue;
                }
                Err(failure) if failure.exit == Exit::Unable => failure,
                Err(refused) => return Err(refused),
            },
        };
        backoff.held_for(opened_at.elapsed());
        request.resume = progress.position;
        progress.parts.clear();
        disconnected(&failure, out)?;
        tokio::time::sleep(backoff.next(&mut rand::rng())).await;
    }
}

async fn open(sidecar: &Sidecar, request: v1::WatchFlagsRequest) -> Result<Streaming<v1::WatchFlagsResponse>, Failure> {
    let answer = sidecar.connect().await?.watch_flags(request).await.map_err(status::of_sidecar)?;
    Ok(answer.into_inner())
}

/// Prints events until the stream breaks off (with what) or enough changes have come.
async fn follow(mut stream: Streaming<v1::WatchFlagsResponse>, progress: &mut Progress, out: &mut Out) -> Result<Option<Failure>, Failure> {
    loop {
        let message = match stream.next().await {
            Some(Ok(message)) => message,
            Some(Err(status)) => match status::of_sidecar(status) {
                broken if broken.exit == Exit::Unable => return Ok(Some(broken)),
                refused => return Err(refused),
            },
            None => return Ok(Some(Failure::unable("the sidecar ended the stream"))),
        };
        let Some(event) = progress.take(message)? else { continue };
        progress.print(&event, out)?;
        if matches!(event, Event::Change { .. }) && progress.is_enough() {
            return Ok(None);
        }
    }
}

fn disconnected(failure: &Failure, out: &mut Out) -> Result<(), Failure> {
    match out.is_json() {
        true => out.json(&Event::Disconnected { error: failure.message.clone() }),
        false => {
            out.note(format!("{}; connecting again", failure.message).yellow());
            Ok(())
        }
    }
}

impl Progress {
    /// The event that a message completes, if it does.
    fn take(&mut self, message: v1::WatchFlagsResponse) -> Result<Option<Event>, Failure> {
        Ok(match message.event {
            None => None,
            Some(Message::Snapshot(part)) => {
                for flag in part.flags {
                    self.parts.push(Flag::try_from(flag)?);
                }
                if !part.last {
                    return Ok(None);
                }
                self.position = part.position;
                Some(Event::Snapshot { position: part.position.into(), flags: std::mem::take(&mut self.parts) })
            }
            Some(Message::Change(change)) => {
                // Not every change says where to go on: a kill overtakes others that must not be skipped.
                self.position = change.position.or(self.position);
                let name = change.r#type().as_str_name();
                let kind = name.strip_prefix("TYPE_").unwrap_or(name);
                let flag = change.flag.unwrap_or_default().try_into()?;
                Some(Event::Change { kind, origin_time: time(change.origin_time), flag })
            }
            Some(Message::Heartbeat(beat)) => {
                self.position = beat.position;
                Some(Event::Heartbeat { position: beat.position.into(), age_ms: beat.age_ms })
            }
        })
    }

    fn is_enough(&mut self) -> bool {
        self.left = self.left.map(|left| left.saturating_sub(1));
        self.left == Some(0)
    }

    fn print(&mut self, event: &Event, out: &mut Out) -> Result<(), Failure> {
        if out.is_json() {
            return out.json(event);
        }
        match event {
            Event::Snapshot { position, flags } => {
                out.line(format!("{} at revision {}", count(flags.len(), "flag"), position.revision).bold())?;
                flags.iter().try_for_each(|flag| flag.print(out))
            }
            Event::Change { kind, flag, .. } => flag.print_change(kind, out),
            Event::Heartbeat { age_ms, .. } => {
                let age = Duration::from_millis(*age_ms);
                let was_stale = std::mem::replace(&mut self.is_stale, age > STALE_AFTER);
                match (was_stale, self.is_stale) {
                    (false, true) => out.note(
                        format!("the sidecar has not heard from its control plane for {}; it serves what it holds", rough(age)).yellow(),
                    ),
                    (true, false) => out.note("the sidecar hears from its control plane again"),
                    _ => {}
                }
                Ok(())
            }
            Event::Disconnected { .. } => Ok(()),
        }
    }
}

impl Flag {
    /// What a flag is now, in a snapshot.
    fn print(&self, out: &mut Out) -> Result<(), Failure> {
        let killed = if self.killed { format!("  {}", "KILLED".red().bold()) } else { String::new() };
        out.line(format!("  {}  revision {}{killed}", self.key, self.flag_revision))?;
        self.print_details(out)
    }

    /// What happened to it.
    fn print_change(&self, kind: &str, out: &mut Out) -> Result<(), Failure> {
        let style = match kind {
            "KILLED" => Style::new().red().bold(),
            "RESTORED" => Style::new().green(),
            "DELETED" => Style::new().yellow(),
            _ => Style::new(),
        };
        let now = jiff::Timestamp::now();
        out.line(format!("{now:.3}  {}  {}  revision {}", kind.style(style), self.key, self.flag_revision))?;
        self.print_details(out)
    }

    fn print_details(&self, out: &mut Out) -> Result<(), Failure> {
        for decision in &self.decisions {
            out.line(format!("    {}", decision.sentence()))?;
        }
        super::diff::yaml(&self.definition)?.lines().try_for_each(|line| out.line(format!("    {line}").dimmed()))
    }
}

impl TryFrom<v1::FlagState> for Flag {
    type Error = Failure;

    fn try_from(state: v1::FlagState) -> Result<Self, Failure> {
        let v1::FlagState { key, revision, killed, definition: bytes, decisions } = state;
        let decisions = decisions.into_iter().map(Decision::from).collect();
        Ok(Self { key, flag_revision: revision, killed, definition: definition(&bytes)?, decisions })
    }
}
