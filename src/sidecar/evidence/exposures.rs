//! Who was served what, on the way of an answer: noted by the thread that answers, taken away by the collector.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::clock::{Clock as _, Micros, SystemClock};
use crate::flag::{CompiledFlag, Decision, Reason, Revision, metro64};
use crate::replica::Held;

use super::seen::Seen;

/// Notes of one thread that wait for the collector, about 64 bytes each. It comes when half of them wait, and each second.
const OUTBOX: usize = 16_384;

/// What serves a unit, but not as a variant that is compared: a kill, or an off variant.
pub(super) const NOT_MEASURED: u16 = u16::MAX;

/// One unit and what it was served.
#[derive(Debug)]
pub(in crate::sidecar) struct Exposure {
    print: u64,
    pub(super) flag: CompiledFlag,
    /// Of the definition that decided.
    pub(super) revision: Revision,
    pub(super) unit: u64,
    /// In the order of the flag's variants, or [`NOT_MEASURED`].
    pub(super) variant: u16,
    /// By chance, and so comparable with the others: of a flag with a plan, only who was served by a split.
    pub(super) dealt: bool,
    pub(super) at_us: Micros,
}

/// Of one thread.
#[derive(Debug, Default)]
pub(in crate::sidecar) struct Exposures {
    seen: Seen,
    outbox: Vec<Exposure>,
    /// Seconds of the clock as the collector saw it last: no clock is read for a unit that is known.
    now_s: u32,
    clock: SystemClock,
    dropped: u64,
    collector: Option<Arc<Notify>>,
}

/// What the collector takes from a thread.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) exposures: Vec<Exposure>,
    /// Units that found the outbox full, since the start. They are noted when they ask again.
    pub(super) dropped: u64,
    pub(super) bytes: usize,
}

/// By which units are told apart, the same in every pod. The mixing keeps it independent of buckets, which come from the same hash of a
/// longer text: a sample by this hash takes as much of each bucket.
pub(in crate::sidecar) fn unit_hash(targeting_key: &str) -> u64 {
    let mut hash = metro64(targeting_key.as_bytes()) ^ 0x6A09_E667_F3BC_C908;
    hash = (hash ^ hash >> 33).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash = (hash ^ hash >> 33).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    hash ^ hash >> 33
}

#[cfg(test)]
impl Exposure {
    pub(super) fn of(flag: &CompiledFlag, revision: Revision, unit: u64, variant: u16, at_us: Micros) -> Self {
        Self { print: 1, flag: flag.clone(), revision, unit, variant, dealt: true, at_us }
    }
}

impl Exposures {
    /// Whose thread it is, and whom to wake when many wait.
    pub(super) fn serve(&mut self, collector: Arc<Notify>) {
        self.collector = Some(collector);
    }

    /// `None`: it was noted before, or nobody collects. Of a flag that is measured.
    #[inline]
    pub(in crate::sidecar) fn unknown(&self, held: &Held, decision: &Decision<'_>, targeting_key: &str) -> Option<Exposure> {
        let unit = unit_hash(targeting_key);
        let is_served = !matches!(decision.reason, Reason::Killed | Reason::Disabled | Reason::PrerequisiteFailed | Reason::Error);
        let index = || decision.variant.and_then(|served| held.flag.variants().iter().position(|variant| std::ptr::eq(variant, served)));
        let variant = if is_served { index().map_or(NOT_MEASURED, |index| index as u16) } else { NOT_MEASURED };
        // Never 0, which is a free place.
        let print = unit.wrapping_add(held.number().wrapping_mul(0x9E37_79B9_7F4A_7C15)).max(1);
        if self.seen.has(print, variant, self.now_s) || self.collector.is_none() {
            return None;
        }
        Some(self.exposure(held, decision, unit, variant, print))
    }

    #[cold]
    fn exposure(&self, held: &Held, decision: &Decision<'_>, unit: u64, variant: u16, print: u64) -> Exposure {
        let is_planned = held.flag.measured().is_some_and(|measured| measured.baseline.is_some());
        Exposure {
            print,
            flag: held.flag.clone(),
            revision: held.base_revision(),
            unit,
            variant,
            dealt: !is_planned || decision.bucket.is_some(),
            at_us: self.clock.now_us(),
        }
    }

    /// Once the answer is what the caller gets.
    pub(in crate::sidecar) fn note(&mut self, exposure: Exposure) {
        if self.outbox.len() >= OUTBOX {
            self.dropped += 1;
            return;
        }
        self.seen.note(exposure.print, exposure.variant, self.now_s);
        self.outbox.push(exposure);
        if self.outbox.len() == OUTBOX / 2
            && let Some(collector) = &self.collector
        {
            collector.notify_one();
        }
    }

    /// `spare` is filled next, so that nothing is allocated for what was once large enough.
    pub(super) fn take(&mut self, spare: Vec<Exposure>, now_us: Micros) -> Taken {
        self.now_s = (now_us / 1_000_000) as u32;
        let bytes = self.seen.bytes() + (self.outbox.capacity() + spare.capacity()) * size_of::<Exposure>();
        Taken { exposures: std::mem::replace(&mut self.outbox, spare), dropped: self.dropped, bytes }
    }
}
