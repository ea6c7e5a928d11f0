//! A sidecar's decision made again from the control plane's definitions, to tell how it came about.

use std::collections::HashMap;

use super::connect::{Admin, ControlPlane};
use super::decision::Decision;
use super::exit::Failure;
use super::status;
use crate::clock::{Clock as _, SystemClock};
use crate::flag::{CompiledFlag, Context, Explanation, Flag, Lookup, Problems, Reason, Segment, Segments, compile};
use crate::wire::v1;

/// Flags by key, for prerequisites, as old as they were.
pub struct Flags {
    pub by_key: HashMap<String, CompiledFlag>,
    pub age_ms: u64,
}

/// A decision that a sidecar made at a revision.
pub struct Replay<'a> {
    pub control: &'a ControlPlane,
    pub environment: String,
    pub key: String,
    pub decision: &'a Decision,
    pub revision: u64,
}

impl Replay<'_> {
    pub async fn explain(self, context: &Context) -> Result<Explanation, Failure> {
        let mut admin = self.control.connect().await?;
        let now = self.definition(&mut admin, 0).await?;
        // Mostly nothing has changed since the sidecar decided, and then the flag, its kill and its prerequisites are those of now.
        let is_behind = newest(&now) > self.revision;
        let v1::GetFlagResponse { position: _, flag, segments, prerequisites } = match is_behind {
            true => self.definition(&mut admin, self.revision).await?,
            false => now,
        };
        // Kills are not kept by revision: what the sidecar says is all that is known of one then.
        let was_killed = is_behind && self.decision.reason == Reason::Killed.as_str();
        let segments = compiled_segments(&segments)?;
        let mut flags = HashMap::new();
        for info in flag.into_iter().chain(prerequisites) {
            let compiled = Flag::from_json(&info.definition).and_then(|flag| compile(&info.key, &flag, &segments));
            let is_killed = info.kill.is_some_and(|kill| kill.killed) || (was_killed && info.key == self.key);
            let compiled = compiled.map_err(|problems| unreadable("flag", &info.key, &problems))?.with_kill(is_killed);
            flags.insert(info.key, compiled);
        }
        let flags = Flags { by_key: flags, age_ms: self.decision.age_ms.unwrap_or_default() };
        let flag = flags.flag(&self.key).ok_or_else(|| Failure::unable("the control plane answered without the flag"))?;
        Ok(flag.explain(context, &flags))
    }

    async fn definition(&self, admin: &mut Admin, revision: u64) -> Result<v1::GetFlagResponse, Failure> {
        let request = v1::GetFlagRequest { environment: self.environment.clone(), key: self.key.clone(), revision };
        Ok(admin.get_flag(self.control.ask(request)).await.map_err(status::of_control)?.into_inner())
    }
}

/// The newest change of a flag, of its kill and of the segments that it reads.
fn newest(found: &v1::GetFlagResponse) -> u64 {
    let flag = found.flag.iter().flat_map(|flag| [flag.revision, flag.kill.as_ref().map_or(0, |kill| kill.revision)]);
    flag.chain(found.segments.iter().map(|segment| segment.revision)).max().unwrap_or_default()
}

fn compiled_segments(items: &[v1::Item]) -> Result<Segments, Failure> {
    let mut segments = Vec::new();
    for v1::Item { key, definition, .. } in items {
        segments.push((key.as_str(), Segment::from_json(definition).map_err(|problems| unreadable("segment", key, &problems))?));
    }
    Ok(Segments::compile(segments.iter().map(|(key, segment)| (*key, segment))).0)
}

fn unreadable(what: &str, key: &str, problems: &Problems) -> Failure {
    Failure::unable(format!("the control plane's {what} {key} cannot be read here: {problems}; is it another version than this one?"))
}

impl Lookup for Flags {
    fn flag(&self, key: &str) -> Option<CompiledFlag> {
        self.by_key.get(key).cloned()
    }

    fn age_ms(&self) -> u64 {
        self.age_ms
    }

    fn unix_s(&self) -> i64 {
        SystemClock::new().now_us().div_euclid(1_000_000)
    }
}
