//! Definitions that are not even compiled, because no process that applied them lived for long.

use std::ops::RangeInclusive;

use crate::flag::{Item, Revision};

use super::writer::Writer;

pub(super) const MESSAGE: &str =
    "refused: the sidecar was restarted again and again soon after it had applied this revision; it takes the next one";

/// An epoch and revisions in it.
#[derive(Debug, Default)]
pub(super) struct Refused(Option<(u64, RangeInclusive<Revision>)>);

impl Refused {
    /// What may be compiled, and what is refused.
    pub(super) fn split(&self, epoch: u64, items: Vec<Item>) -> (Vec<Item>, Vec<Item>) {
        match &self.0 {
            Some((of, revisions)) if *of == epoch => items.into_iter().partition(|item| !revisions.contains(&item.revision)),
            _ => (items, Vec::new()),
        }
    }
}

impl Writer {
    /// From now on every definition of these revisions is rejected by name, and what is held of it stays.
    pub fn refuse(&mut self, epoch: u64, revisions: RangeInclusive<Revision>) {
        self.refused = Refused(Some((epoch, revisions)));
    }

    pub fn refuse_nothing(&mut self) {
        self.refused = Refused::default();
    }
}
