//! `kill -9` of the real control plane, over and over: what was acknowledged is there, and the audit chain holds.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use yardarm::wire::v1::*;

use crate::process::Process;

const ROUNDS: usize = 200;
const WRITERS: usize = 3;

fn intent() -> Option<Intent> {
    Some(Intent { actor: "ana".into(), reason: "round".into(), expect_revision: None })
}

fn document(key: &str, round: usize, write: usize) -> Vec<u8> {
    let definition =
        format!(r#"{{ "variants": {{ "on": true, "off": false }}, "defaultVariant": "on", "description": "{round}.{write}" }}"#);
    format!(r#"{{ "flags": {{ "{key}": {definition} }} }}"#).into_bytes()
}

/// What a writer knows: the newest write that was acknowledged, and the one after it, whose fate is unknown.
#[derive(Debug, Clone, Default, PartialEq)]
struct Known {
    revision: u64,
    acknowledged: String,
    unanswered: Option<String>,
    killed: bool,
    kill_unanswered: bool,
}

/// Writes to a flag of its own until the control plane is gone.
async fn write(control: &Process, key: String, round: usize, mut known: Known) -> Known {
    let mut admin = control.admin();
    for write in 0.. {
        known.unanswered = Some(format!("{round}.{write}"));
        let request =
            ApplyRequest { environment: "default".into(), document: document(&key, round, write), dry_run: false, intent: intent() };
        let Ok(answer) = admin.apply(request).await else { return known };
        known.revision = answer.into_inner().position.unwrap().revision;
        known.acknowledged = known.unanswered.take().unwrap();
        if write % 4 != 3 {
            continue;
        }
        known.kill_unanswered = true;
        let (environment, key, intent) = ("default".to_owned(), key.clone(), intent());
        let answer = match known.killed {
            false => admin.kill_flag(KillFlagRequest { environment, key, intent }).await,
            true => admin.restore_flag(RestoreFlagRequest { environment, key, percent: None, intent }).await,
        };
        let Ok(answer) = answer else { return known };
        known.revision = answer.into_inner().position.unwrap().revision;
        known.killed = !known.killed;
        known.kill_unanswered = false;
    }
    known
}

/// Compares what the writers know with what a control plane that has just started says.
async fn check(control: &Process, known: &mut BTreeMap<String, Known>, round: usize) {
    let mut admin = control.admin();
    let verdict = admin.verify_audit(VerifyAuditRequest {}).await.unwrap().into_inner();
    assert!(verdict.intact, "round {round}: record {} {}", verdict.broken_at, verdict.problem);
    let listed = admin.list_flags(ListFlagsRequest { environment: "default".into(), selector: None }).await.unwrap().into_inner();
    let head = listed.position.unwrap().revision;
    let flags: BTreeMap<_, _> = listed.flags.into_iter().map(|flag| (flag.key.clone(), flag)).collect();
    for (key, known) in known {
        assert!(head >= known.revision, "round {round}: revision {} was acknowledged, the head is {head}", known.revision);
        let Some(flag) = flags.get(key) else {
            assert_eq!(known.acknowledged, "", "round {round}: {key} is gone");
            continue;
        };
        let definition: serde_json::Value = serde_json::from_slice(&flag.definition).unwrap();
        let found = definition["description"].as_str().unwrap();
        let may_be = [Some(known.acknowledged.as_str()), known.unanswered.as_deref()];
        assert!(may_be.contains(&Some(found)), "round {round}: {key} is {found}, expected {may_be:?}");
        let is_killed = flag.kill.is_some();
        assert!(is_killed == known.killed || known.kill_unanswered, "round {round}: {key} is killed: {is_killed}");
        *known = Known { revision: known.revision, acknowledged: found.to_owned(), killed: is_killed, ..Known::default() };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_change_is_lost_in_200_rounds_of_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut known: BTreeMap<String, Known> = (0..WRITERS).map(|n| (format!("flag-{n}"), Known::default())).collect();
    let mut control = start(dir.path());
    let (mut acknowledged, began) = (0, Instant::now());
    for round in 0..ROUNDS {
        let before = known.values().map(|known| known.revision).max().unwrap_or_default();
        let writers: Vec<_> = known.iter().map(|(key, known)| write(&control, key.clone(), round, known.clone())).collect();
        // The process is killed while it writes, a little later in each round: in the middle of anything.
        let moment = Duration::from_micros(4_000 + 40_000 * round as u64 / ROUNDS as u64);
        let results = {
            let writing = futures_util::future::join_all(writers);
            let mut writing = std::pin::pin!(writing);
            match tokio::time::timeout(moment, &mut writing).await {
                Ok(results) => results,
                Err(_) => {
                    control.signal(rustix::process::Signal::KILL);
                    writing.await
                }
            }
        };
        known = known.keys().cloned().zip(results).collect();
        acknowledged += known.values().map(|known| known.revision).max().unwrap_or_default() - before;
        drop(control);
        control = start(dir.path());
        check(&control, &mut known, round).await;
    }
    println!("{acknowledged} revisions acknowledged in {ROUNDS} rounds, {:.1?}", began.elapsed());
    assert!(acknowledged >= ROUNDS as u64, "only {acknowledged} revisions: the rounds were too short to prove anything");
}

fn start(data: &Path) -> Process {
    Process::control(data)
}
