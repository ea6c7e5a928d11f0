//! All evidence in memory. Applying the same reports in the same order makes the same book, which is how a restart makes it again.

use std::collections::{BTreeMap, HashMap};

use crate::flag::Revision;
use crate::wire::evidence::Report;

use super::FlagName;
use super::epoch::Epoch;
use super::flag::{FlagEvidence, Pushed};

/// Starts of sidecars whose numbers are remembered. Beyond it the one that was silent for longest is forgotten; should it report again, what
/// it had counted would count twice. A pod that restarts every minute takes two months to fill it.
pub const SENDERS: usize = 100_000;

#[derive(Debug, Default)]
pub struct Book {
    pub(super) flags: BTreeMap<FlagName, FlagEvidence>,
    pub(super) senders: HashMap<SenderName, Sender>,
    next_sender: u32,
    refused: Refused,
}

/// One start of a sidecar.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SenderName {
    pub(super) environment: String,
    pub(super) instance: String,
    pub(super) boot: [u8; 16],
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Sender {
    pub(super) number: u32,
    pub(super) seq: u64,
    pub(super) last_us: i64,
}

/// What was not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refused {
    /// Reports that were counted before.
    pub duplicates: u64,
    /// Epochs of a report that were too old, or had less than before.
    pub epochs: u64,
}

impl Book {
    /// False: it was counted before.
    pub(super) fn report(&mut self, report: &Report, at_us: i64) -> bool {
        let Report { environment, instance, boot, seq, epochs, .. } = report;
        let name = SenderName { environment: environment.clone(), instance: instance.clone(), boot: *boot };
        let sender = self.sender(name, at_us);
        if *seq <= sender.seq {
            self.refused.duplicates += 1;
            return false;
        }
        (sender.seq, sender.last_us) = (*seq, at_us);
        let number = sender.number;
        for epoch in epochs {
            let name = FlagName { environment: environment.clone(), key: epoch.flag.clone() };
            let is_whole = self.flags.entry(name).or_default().merge(number, epoch, at_us);
            self.refused.epochs += u64::from(!is_whole);
        }
        true
    }

    fn sender(&mut self, name: SenderName, at_us: i64) -> &mut Sender {
        if self.senders.len() >= SENDERS && !self.senders.contains_key(&name) {
            let silent = self.senders.iter().min_by_key(|(_, sender)| sender.last_us).map(|(name, _)| name.clone());
            if let Some(silent) = silent {
                self.senders.remove(&silent);
            }
        }
        let next = &mut self.next_sender;
        self.senders.entry(name).or_insert_with(|| {
            *next += 1;
            Sender { number: *next, seq: 0, last_us: at_us }
        })
    }

    pub(super) fn push(&mut self, flag: FlagName, metric: String, pushed: Pushed) -> bool {
        self.flags.entry(flag).or_default().push(metric, pushed)
    }

    pub(super) fn forget(&mut self, flag: &FlagName) {
        self.flags.remove(flag);
    }

    pub fn flag(&self, flag: &FlagName) -> Option<&FlagEvidence> {
        self.flags.get(flag)
    }

    pub(super) fn epoch(&self, flag: &FlagName, revision: Revision) -> Option<&Epoch> {
        self.flags.get(flag)?.epochs.get(&revision)
    }

    /// Flags of which something is known.
    pub fn names(&self) -> impl Iterator<Item = &FlagName> {
        self.flags.keys()
    }

    pub fn refused(&self) -> Refused {
        self.refused
    }

    /// Units of all flags and epochs, and about how many bytes all of it takes.
    pub fn size(&self) -> (usize, usize) {
        let units = self.flags.values().map(FlagEvidence::units).sum();
        let senders = self.senders.capacity() * (size_of::<(SenderName, Sender)>() + 80);
        (units, self.flags.values().map(FlagEvidence::bytes).sum::<usize>() + senders)
    }
}
