//! Evidence of flags that are gone goes with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Evidence, FlagName};
use crate::control::Ledger;
use crate::flag::{ItemKind, Position};
use crate::lifecycle::Shutdown;

const EVERY: Duration = Duration::from_secs(1);

/// Looks after each change of an environment, a second later at most, until the shutdown.
pub async fn sweep(evidence: Arc<dyn Evidence>, ledger: Arc<Ledger>, shutdown: Shutdown) {
    // A report that was under way when its flag went is found by the count of flags.
    let mut seen: BTreeMap<String, (Position, usize)> = BTreeMap::new();
    loop {
        let mut flags: BTreeMap<String, Vec<FlagName>> = BTreeMap::new();
        evidence.book().read().names().for_each(|name| flags.entry(name.environment.clone()).or_default().push(name.clone()));
        for (environment, names) in flags {
            let Some(position) = ledger.head(&environment).map(|head| head.borrow().position) else { continue };
            let now = (position, names.len());
            if seen.insert(environment.clone(), now) == Some(now) {
                continue;
            }
            let Ok((_, found)) = ledger.list(&environment, ItemKind::Flag, |_| true) else { continue };
            let known: BTreeSet<String> = found.into_iter().map(|found| found.item.name.key).collect();
            for flag in names.into_iter().filter(|name| !known.contains(&name.key)) {
                tracing::info!(environment, flag = flag.key, "the evidence of a flag goes with it");
                if let Err(problem) = evidence.forget(flag).await {
                    tracing::warn!(%problem, environment, "evidence of a flag that is gone is still there; it is tried again");
                    seen.remove(&environment);
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shutdown.requested() => return,
        }
    }
}
