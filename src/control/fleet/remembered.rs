//! Who was here, on disk. After a restart the control plane misses those who are still on their way back; else it would call a kill done
//! that most pods have not heard of.
//!
//! One small JSON file, written under another name, synced and renamed. It says whom to miss and is no part of the truth: one that is
//! damaged or absent is none.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::clock::Micros;
use crate::lifecycle::{Hold, Shutdown};
use crate::wire::replication::{Identity, identity};
use crate::wire::v1;

use super::Fleet;

const FILE: &str = "pods.json";
const NEW: &str = "pods.new";
/// A herd that comes back is one write, not one for each.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// A sidecar that the control plane knew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    pub identity: Arc<Identity>,
    pub last_seen_us: Micros,
    /// `None`: it was there, and is missed from the restart on.
    pub missed_since_us: Option<Micros>,
}

/// By environment.
pub type Everybody = BTreeMap<String, Vec<Remembered>>;

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    environments: BTreeMap<String, Vec<Line>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    instance: String,
    pod: String,
    namespace: String,
    node: String,
    version: String,
    last_seen_us: Micros,
    missed_since_us: Option<Micros>,
}

/// Whom the process before this one knew. Blocks; says so when there is nobody to remember.
pub fn read(dir: &Path) -> Everybody {
    let path = dir.join(FILE);
    let shown = path.display().to_string();
    let json = match fs::read(&path) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::info!(path = shown, "no pods are remembered from before: none is missed until it has been seen");
            return Everybody::new();
        }
        Err(problem) => return none(&shown, &problem),
    };
    decode(&json).unwrap_or_else(|problem| none(&shown, &*problem))
}

fn none(path: &str, problem: &dyn std::fmt::Display) -> Everybody {
    tracing::warn!(path, %problem, "the pods of before cannot be read: one that does not come back is not missed");
    Everybody::new()
}

/// Keeps the file as the fleet is. Ends with the first phase of the shutdown, before the pods are sent away: they are to be missed.
pub async fn keep(fleet: Arc<Fleet>, dir: PathBuf, shutdown: Shutdown, _hold: Hold) {
    let mut changed = fleet.members_changed();
    let mut is_failing = false;
    loop {
        let is_last = tokio::select! {
            biased;
            () = shutdown.requested() => true,
            _ = changed.changed() => false,
        };
        let (everybody, into) = (fleet.everybody(), dir.clone());
        let written =
            tokio::task::spawn_blocking(move || write(&into, everybody)).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        match written {
            Ok(()) => is_failing = false,
            Err(problem) => {
                if !std::mem::replace(&mut is_failing, true) {
                    let dir = dir.display().to_string();
                    tracing::error!(dir, %problem, "cannot note which pods are here: after a restart one that does not come back is not missed");
                }
            }
        }
        if is_last {
            return;
        }
        tokio::select! {
            () = shutdown.requested() => {}
            () = sleep(AT_MOST_EVERY) => {}
        }
    }
}

fn write(dir: &Path, everybody: Everybody) -> io::Result<()> {
    let environments = everybody.into_iter().map(|(name, pods)| (name, pods.into_iter().map(Line::from).collect())).collect();
    let json = serde_json::to_vec(&Record { environments })?;
    let new = dir.join(NEW);
    let mut out = File::create(&new)?;
    out.write_all(&json)?;
    out.sync_all()?;
    fs::rename(&new, dir.join(FILE))
}

fn decode(json: &[u8]) -> Result<Everybody, Box<dyn std::error::Error>> {
    let Record { environments } = serde_json::from_slice(json)?;
    let pods = |lines: Vec<Line>| lines.into_iter().map(Remembered::try_from).collect::<Result<Vec<_>, _>>();
    Ok(environments
        .into_iter()
        .map(|(name, lines)| Ok((name, pods(lines)?)))
        .collect::<Result<_, crate::wire::replication::Malformed>>()?)
}

impl From<Remembered> for Line {
    fn from(Remembered { identity, last_seen_us, missed_since_us }: Remembered) -> Self {
        let Identity { instance, pod, namespace, node, version } = Identity::clone(&identity);
        Self { instance, pod, namespace, node, version, last_seen_us, missed_since_us }
    }
}

impl TryFrom<Line> for Remembered {
    type Error = crate::wire::replication::Malformed;

    fn try_from(line: Line) -> Result<Self, Self::Error> {
        let Line { instance, pod, namespace, node, version, last_seen_us, missed_since_us } = line;
        let identity = identity(Some(v1::Identity { instance, pod, namespace, node, version }))?;
        Ok(Self { identity: Arc::new(identity), last_seen_us, missed_since_us })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everybody() -> Everybody {
        let pod = |name: &str, missed_since_us| {
            let (instance, pod, namespace) = (format!("{name}-1"), name.to_owned(), "shop".to_owned());
            let identity = Identity { instance, pod, namespace, node: "node-1".into(), version: "0.1.0".into() };
            Remembered { identity: Arc::new(identity), last_seen_us: 7, missed_since_us }
        };
        BTreeMap::from([("prod".to_owned(), vec![pod("here", None), pod("lost", Some(9))]), ("test".to_owned(), Vec::new())])
    }

    #[test]
    fn who_was_here_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), Everybody::new()).unwrap();
        write(dir.path(), everybody()).unwrap();
        assert_eq!(read(dir.path()), everybody());
    }

    #[test]
    fn a_file_that_is_absent_torn_or_nonsense_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), Everybody::new());
        write(dir.path(), everybody()).unwrap();
        let whole = fs::read(dir.path().join(FILE)).unwrap();
        for torn in [&whole[..0], &whole[..whole.len() / 2], b"{\"environments\":{\"prod\":[{\"instance\":\"\"}]}}"] {
            fs::write(dir.path().join(FILE), torn).unwrap();
            assert_eq!(read(dir.path()), Everybody::new());
        }
        fs::remove_file(dir.path().join(FILE)).unwrap();
        fs::create_dir(dir.path().join(FILE)).unwrap();
        assert_eq!(read(dir.path()), Everybody::new());
    }
}
