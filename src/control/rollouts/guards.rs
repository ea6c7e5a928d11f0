//! The guards of every flag that has some, each second: what fires is an ordinary kill, with the evidence as its reason.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::control::evidence::{self, FlagName};
use crate::control::ledger::{Actor, Command, Error, Ledger};
use crate::flag::{Flag, ItemKind, Revision};
use crate::rollout::{Counts, Fired, Watch, arms};

pub struct Guards {
    ledger: Arc<Ledger>,
    evidence: Arc<dyn evidence::Evidence>,
    watched: HashMap<FlagName, Watched>,
    /// Up to where each environment was looked through for flags with guards.
    seen: HashMap<String, (u64, Revision)>,
}

struct Watched {
    flag: Flag,
    /// That outcomes are counted for.
    revision: Revision,
    watches: Vec<Watch>,
}

impl Guards {
    pub fn new(ledger: Arc<Ledger>, evidence: Arc<dyn evidence::Evidence>) -> Self {
        Self { ledger, evidence, watched: HashMap::new(), seen: HashMap::new() }
    }

    /// One tick of all of them.
    pub async fn tick(&mut self) {
        self.learn();
        let mut fired = Vec::new();
        for (name, watched) in &mut self.watched {
            let Some(revision) = self.ledger.evidence_revision(&name.environment, &name.key) else { continue };
            if revision != watched.revision {
                watched.revision = revision;
                watched.watches.iter_mut().for_each(Watch::begin_revision);
            }
            let counted = self.evidence.counters(name, revision);
            fired.extend(watched.tick(&counted).map(|fired| (name.clone(), fired)));
        }
        for (name, fired) in fired {
            if let Err(problem) = self.kill(&name, &fired).await {
                tracing::error!(environment = name.environment, flag = name.key, %problem, "a guard fired and the flag could not be killed; trying again");
            }
        }
    }

    /// Flags that changed since the last tick.
    fn learn(&mut self) {
        let environments = self.ledger.environments();
        self.seen.retain(|name, _| environments.iter().any(|environment| environment.name == *name));
        for environment in environments {
            let at = (environment.position.epoch, environment.position.revision);
            let seen = self.seen.insert(environment.name.clone(), at);
            if seen == Some(at) {
                continue;
            }
            let since = seen.filter(|(epoch, _)| *epoch == at.0).map_or(0, |(_, revision)| revision);
            self.watched.retain(|name, _| {
                name.environment != environment.name || self.ledger.evidence_revision(&name.environment, &name.key).is_some()
            });
            let changed = self.ledger.list(&environment.name, ItemKind::Flag, |item| item.revision > since);
            for found in changed.map(|(_, found)| found).unwrap_or_default() {
                let name = FlagName { environment: environment.name.clone(), key: found.item.name.key.clone() };
                match Flag::from_json(&found.item.definition) {
                    Ok(flag) if !flag.guard.is_empty() => self.watch(name, flag),
                    _ => drop(self.watched.remove(&name)),
                }
            }
        }
    }

    /// Guards that stay as they are keep what they know of the baseline.
    fn watch(&mut self, name: FlagName, flag: Flag) {
        let is_same = |watched: &Watched| watched.flag.guard == flag.guard && watched.flag.metrics == flag.metrics;
        if let Some(watched) = self.watched.get_mut(&name).filter(|watched| is_same(watched)) {
            watched.flag = flag;
            return;
        }
        let count = flag.guard.len();
        let watch = |guard: &crate::flag::Guard| Some(Watch::new(guard.clone(), flag.metrics.get(&guard.metric)?.direction, count));
        let watches = flag.guard.iter().filter_map(watch).collect();
        self.watched.insert(name, Watched { flag, revision: 0, watches });
    }

    async fn kill(&self, name: &FlagName, fired: &Fired) -> Result<(), Error> {
        let command = Command::Kill { environment: name.environment.clone(), flag: name.key.clone() };
        let committed = self.ledger.commit(&Actor::new(format!("guard:{}", fired.guard)), &fired.to_string(), command).await?;
        if committed.changed {
            let (environment, flag, revision) = (&name.environment, &name.key, committed.position.revision);
            tracing::warn!(environment, flag, revision, reason = %fired, "a guard killed a flag");
        }
        Ok(())
    }
}

impl Watched {
    fn tick(&mut self, counted: &[evidence::Counted]) -> Option<Fired> {
        let mut first = None;
        for watch in &mut self.watches {
            let of_metric = counted.iter().filter(|counted| counted.metric == watch.guard().metric);
            let by_variant: BTreeMap<String, Counts> = of_metric
                .map(|counted| {
                    let counts = Counts { outcomes: counted.counts.n, failures: counted.counts.k, failing_units: counted.failing.len() };
                    (counted.variant.clone(), counts)
                })
                .collect();
            let [treated, control] = arms(&self.flag, &by_variant);
            // Every watch takes its tick, whichever fires first.
            first = first.or(watch.tick(&treated, &control));
        }
        first
    }
}
