//! What is counted of each flag at each revision of its definition: exposures, and outcomes for the guards.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::clock::Micros;
use crate::flag::{CompiledFlag, Measured, MetricKind, Revision, Watched};
use crate::rollout::Counts;
use crate::wire::v1;

/// Flags and revisions that are counted at one time; those that nobody was served for longest go first. One that comes back is counted from 0
/// under another `life`, so that the control plane adds it to what it had.
pub(super) const EPOCHS: usize = 4_096;
/// Of one unit the first outcome within this time counts for the guards: what one person does again and again is one person's trouble.
pub(super) const WINDOW_US: Micros = 60_000_000;
/// Units that failed, of one report.
const FAILING: usize = 16;
/// For the guards of this pod.
const FAILED_LATELY_US: Micros = 60_000_000;

/// Number of an epoch, never given twice.
pub(super) type Life = u32;

#[derive(Debug, Default)]
pub(super) struct Epochs {
    by_life: HashMap<Life, Epoch>,
    by_flag: HashMap<Box<str>, Known>,
    /// Event -> numbers of the flags that watch it.
    by_event: HashMap<Box<str>, BTreeSet<u32>>,
    /// Of flags that have guards.
    guarded: Vec<Life>,
    next_life: Life,
    next_flag: u32,
}

#[derive(Debug)]
struct Known {
    number: u32,
    lives: Vec<(Revision, Life)>,
}

#[derive(Debug)]
pub(super) struct Epoch {
    pub(super) flag: CompiledFlag,
    pub(super) revision: Revision,
    pub(super) life: Life,
    /// Of the flag, whatever its revision.
    pub(super) flag_number: u32,
    /// In the order of the flag's variants.
    variants: Box<[Counted]>,
    used_us: Micros,
    is_changed: bool,
}

#[derive(Debug, Clone, Default)]
struct Counted {
    exposures: u64,
    /// In the order of the metrics.
    counters: Box<[Counter]>,
}

/// Since the start.
#[derive(Debug, Clone, Default)]
struct Counter {
    n: u64,
    k: u64,
    n_raw: u64,
    k_raw: u64,
    failing: Vec<u64>,
    /// Of a flag that has guards: the newest [`FAILING`] units that failed, and when each did last.
    lately: Vec<(u64, Micros)>,
}

impl Epochs {
    /// The epoch of a flag, which is made when it is new. A flag without metrics has none.
    pub(super) fn of(&mut self, flag: &CompiledFlag, revision: Revision, now_us: Micros) -> Option<&mut Epoch> {
        let measured = flag.measured()?;
        let known = self.by_flag.get(flag.key()).and_then(|known| known.lives.iter().find(|(held, _)| *held == revision));
        let life = match known {
            Some((_, life)) => *life,
            None => self.begin(flag, measured, revision, now_us),
        };
        let epoch = self.by_life.get_mut(&life)?;
        epoch.used_us = epoch.used_us.max(now_us);
        Some(epoch)
    }

    pub(super) fn get(&mut self, life: Life) -> Option<&mut Epoch> {
        self.by_life.get_mut(&life)
    }

    /// Numbers of the flags that have watched it.
    pub(super) fn watching(&self, event: &str) -> Vec<u32> {
        self.by_event.get(event).map(|flags| flags.iter().copied().collect()).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.by_life.len()
    }

    fn begin(&mut self, flag: &CompiledFlag, measured: &Measured, revision: Revision, now_us: Micros) -> Life {
        if self.by_life.len() >= EPOCHS {
            self.forget_oldest();
        }
        let life = self.next_life;
        self.next_life = life.wrapping_add(1);
        let next_flag = &mut self.next_flag;
        let known = self.by_flag.entry(flag.key().into()).or_insert_with(|| {
            *next_flag += 1;
            Known { number: *next_flag, lives: Vec::new() }
        });
        known.lives.push((revision, life));
        for metric in &measured.metrics {
            self.by_event.entry(metric.event.clone()).or_default().insert(known.number);
        }
        let counted = Counted { exposures: 0, counters: vec![Counter::default(); measured.metrics.len()].into() };
        let variants = vec![counted; flag.variants().len()].into();
        let flag_number = known.number;
        if !measured.guards.is_empty() {
            self.guarded.push(life);
        }
        self.by_life.insert(life, Epoch { flag: flag.clone(), revision, life, flag_number, variants, used_us: now_us, is_changed: false });
        life
    }

    /// An eighth of them, so that it is not done at each one that comes.
    fn forget_oldest(&mut self) {
        let mut used: Vec<_> = self.by_life.values().map(|epoch| (epoch.used_us, epoch.life)).collect();
        used.sort_unstable();
        for (_, life) in used.into_iter().take(EPOCHS / 8) {
            self.by_life.remove(&life);
        }
        let by_life = &self.by_life;
        self.guarded.retain(|life| by_life.contains_key(life));
        self.by_flag.retain(|_, known| {
            known.lives.retain(|(_, life)| by_life.contains_key(life));
            !known.lives.is_empty()
        });
        let numbers: BTreeSet<u32> = self.by_flag.values().map(|known| known.number).collect();
        self.by_event.retain(|_, flags| {
            flags.retain(|flag| numbers.contains(flag));
            !flags.is_empty()
        });
    }

    /// Those that guards are looked at for.
    pub(super) fn guarded(&self) -> impl Iterator<Item = &Epoch> {
        self.guarded.iter().filter_map(|life| self.by_life.get(life))
    }

    /// Counters of every epoch that changed since the last time.
    pub(super) fn changed(&mut self) -> Vec<v1::EpochEvidence> {
        self.by_life.values_mut().filter_map(Epoch::take_changes).collect()
    }
}

impl Epoch {
    pub(super) fn metrics(&self) -> &[Watched] {
        self.flag.measured().map(|measured| &*measured.metrics).unwrap_or_default()
    }

    pub(super) fn exposed(&mut self, variant: u16) {
        if let Some(counted) = self.variants.get_mut(usize::from(variant)) {
            counted.exposures += 1;
            self.is_changed = true;
        }
    }

    /// What guards of a metric read, by variant.
    pub(super) fn counts(&self, metric: usize, now_us: Micros) -> BTreeMap<String, Counts> {
        let of = |counter: &Counter| {
            let failing = counter.lately.iter().filter(|(_, failed_us)| now_us - failed_us < FAILED_LATELY_US);
            Counts { outcomes: counter.n, failures: counter.k, failing_units: failing.count() }
        };
        let counted = self.variants.iter().zip(self.flag.variants());
        counted.filter_map(|(counted, variant)| Some((variant.name.clone(), of(counted.counters.get(metric)?)))).collect()
    }

    /// `is_first`: of its unit within [`WINDOW_US`]. `is_failure`: `None` of a metric that no guard can watch, and that is not counted here.
    pub(super) fn outcome(&mut self, variant: u16, metric: usize, unit: u64, is_first: bool, is_failure: Option<bool>, now_us: Micros) {
        let is_guarded = self.flag.measured().is_some_and(|measured| !measured.guards.is_empty());
        let counter = self.variants.get_mut(usize::from(variant)).and_then(|counted| counted.counters.get_mut(metric));
        let (Some(counter), Some(is_failure)) = (counter, is_failure) else { return };
        let failure = u64::from(is_failure);
        counter.n_raw += 1;
        counter.k_raw += failure;
        if is_first {
            counter.n += 1;
            counter.k += failure;
        }
        if is_failure && !counter.failing.contains(&unit) {
            if counter.failing.len() >= FAILING {
                counter.failing.remove(0);
            }
            counter.failing.push(unit);
        }
        if is_failure && is_guarded {
            counter.lately.retain(|(failed, _)| *failed != unit);
            if counter.lately.len() >= FAILING {
                counter.lately.remove(0);
            }
            counter.lately.push((unit, now_us));
        }
        self.is_changed = true;
    }

    /// Its name and its metrics.
    pub(super) fn heading(&self) -> v1::EpochEvidence {
        let metrics =
            self.metrics().iter().map(|metric| v1::MetricName { name: metric.name.to_string(), shape: shape(metric.kind).into() });
        v1::EpochEvidence {
            flag_key: self.flag.key().to_owned(),
            revision: self.revision,
            life: self.life,
            sampling_rate: super::SAMPLING_RATE,
            metrics: metrics.collect(),
            variants: Vec::new(),
        }
    }

    fn take_changes(&mut self) -> Option<v1::EpochEvidence> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        let mut evidence = self.heading();
        for (counted, variant) in self.variants.iter_mut().zip(self.flag.variants()) {
            let counters = counted.counters.iter_mut().zip(0..).filter(|(counter, _)| counter.n_raw > 0).map(|(counter, metric)| {
                let Counter { n, k, n_raw, k_raw, failing, .. } = counter;
                v1::CounterEvidence { metric, n: *n, k: *k, n_raw: *n_raw, k_raw: *k_raw, failing: std::mem::take(failing) }
            });
            let counters: Vec<_> = counters.collect();
            if counted.exposures > 0 || !counters.is_empty() {
                let (variant, exposures) = (variant.name.clone(), counted.exposures);
                evidence.variants.push(v1::VariantEvidence { variant, exposures, counters, units: Vec::new() });
            }
        }
        Some(evidence)
    }
}

fn shape(kind: MetricKind) -> v1::MetricShape {
    match kind {
        MetricKind::Binomial | MetricKind::SlowShare { .. } => v1::MetricShape::Share,
        MetricKind::Mean { .. } => v1::MetricShape::Mean,
        MetricKind::Ratio => v1::MetricShape::Ratio,
    }
}
