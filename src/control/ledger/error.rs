//! Why a command was not carried out, sorted by what the caller does next.

use crate::control::store;
use crate::flag::{ItemName, Problems, Revision};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Mend the argument.
    #[error("{field}: {problem}")]
    Malformed { field: &'static str, problem: String },
    /// Mend the document: every problem that was found.
    #[error("{} in the flags and segments:\n{_0}", count(.0.len()))]
    Invalid(#[from] Problems),
    #[error("there is no environment `{name}`{}", did_you_mean(.nearest))]
    UnknownEnvironment { name: String, nearest: Option<String> },
    #[error("there is no {item} in `{environment}`{}", did_you_mean(.nearest))]
    UnknownItem { environment: String, item: ItemName, nearest: Option<String> },
    #[error("{item} has no definition at revision {revision} of `{environment}`")]
    UnknownRevision { environment: String, item: ItemName, revision: Revision },
    #[error("flag {flag} of `{environment}` has no hook `{id}`")]
    UnknownHook { environment: String, flag: String, id: String },
    #[error("there is an environment `{name}` already")]
    EnvironmentExists { name: String },
    /// Look at what changed, decide again.
    #[error("changed after revision {expected}: {}", list(.changed))]
    Conflict { expected: Revision, changed: Vec<Conflicting> },
    /// Change the users first.
    #[error("{item} is in use by {}", list(.users))]
    InUse { item: ItemName, users: Vec<ItemName> },
    /// A percentage was given for a flag that is not killed.
    #[error("flag {flag} is not killed, so it cannot be restored at {percent} %: change its split with an apply")]
    NotKilled { flag: String, percent: f64 },
    /// Nothing is left to do: somebody has decided about the flag since.
    #[error("the trip of {flag} is obsolete: {why}")]
    TripObsolete { flag: String, why: String },
    #[error("flag {flag} has no rollout; give it a `rollout` in its document")]
    NoRollout { flag: String },
    /// The rollout is not where this could happen.
    #[error("the rollout of {flag}: {why}")]
    RolloutRefused { flag: String, why: String },
    /// Not a backup, torn, or altered. Nothing was replaced.
    #[error("the backup was refused and nothing was replaced: {problem}")]
    BadBackup { problem: String },
    /// A bug of ours. The command was not carried out, or it is told by the state that it was.
    #[error("the command was given up: {problem}")]
    Aborted { problem: String },
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// What stands in the way of a write that expected an earlier revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflicting {
    pub item: ItemName,
    pub revision: Revision,
    pub actor: String,
    /// Unix time, microseconds.
    pub at_us: i64,
}

impl std::fmt::Display for Conflicting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { item, revision, actor, at_us } = self;
        match jiff::Timestamp::from_microsecond(*at_us) {
            Ok(at) => write!(f, "{item} by {actor} at revision {revision}, {at:.0}"),
            Err(_) => write!(f, "{item} by {actor} at revision {revision}"),
        }
    }
}

/// The known name that was probably meant.
pub(super) fn nearest<'k>(found: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    let allowed = 1 + found.len() / 3;
    known
        .into_iter()
        .filter(|name| name.len().abs_diff(found.len()) <= allowed)
        .map(|name| (strsim::osa_distance(found, name), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name.to_owned())
}

fn count(problems: usize) -> String {
    if problems == 1 { "1 problem".to_owned() } else { format!("{problems} problems") }
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// How many are named before "and N more".
const NAMED: usize = 20;

fn list<T: std::fmt::Display>(things: &[T]) -> String {
    let named: Vec<_> = things.iter().take(NAMED).map(T::to_string).collect();
    match things.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
