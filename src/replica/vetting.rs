//! Looking through what was loaded from disk: it is served first, and a restart is waited for.

use std::sync::Arc;

use super::apply::{self, Body, Compiled, may_be_cold};
use super::changes::Moment;
use super::outcome::Applied;
use super::writer::{Refreshed, Writer};

/// What was loaded from disk and is served, each flag compiled when somebody asks for it, before anybody has looked at all of it.
#[derive(Default)]
pub(super) struct Unvetted {
    pub(super) keys: Vec<Arc<str>>,
    /// Killed or restored meanwhile. Which flags depend on them is told when it is known.
    pub(super) toggled: Vec<Arc<str>>,
}

impl Writer {
    /// Nothing is left for [`Writer::vet`]. Every change begins with it.
    pub fn is_vetted(&self) -> bool {
        self.unvetted.keys.is_empty()
    }

    /// Compiles up to so many of the flags that were loaded. Readers see no difference; what is answered is what the control plane must
    /// be told in the end, when some were rejected.
    pub fn vet(&mut self, at_most: usize) -> Option<Applied> {
        let rest = self.unvetted.keys.len().saturating_sub(at_most);
        let some = self.unvetted.keys.split_off(rest);
        if some.is_empty() {
            return None;
        }
        some.into_iter().for_each(|key| self.vet_one(&key));
        if rest > 0 {
            return None;
        }
        self.unvetted.keys = Vec::new();
        self.replica().0.segments.store(Arc::default());
        let toggled = std::mem::take(&mut self.unvetted.toggled);
        if !toggled.is_empty() {
            let dependents = self.dependents_of(toggled.iter());
            let moment = Moment { position: self.position(), origin_time_us: self.origin_time_us };
            let head = self.replica().0.changes.write().record(Vec::new(), dependents, moment);
            self.replica().0.changed.send_replace(head);
        }
        (!self.rejected.is_empty()).then(|| self.publish(Vec::new(), Vec::new(), self.origin_time_us, true))
    }

    fn vet_one(&mut self, key: &Arc<str>) {
        let Some(item) = self.received.flag(key) else { return };
        match apply::compile_definition(self.replica().0.naming, key, &item.definition, self.segments.served().compiled()) {
            Ok(flag) if may_be_cold(&flag, &item.definition) => {}
            Ok(flag) => {
                let refreshed = self.take(Compiled { item, result: Ok(Body::Flag(Box::new(flag))) });
                if let (Some(Refreshed { slot, .. }), Some(mut place)) = (refreshed, self.replica().0.flags.get_mut(key)) {
                    *place = slot;
                }
            }
            // Nobody has been served it.
            Err(message) => {
                self.replica().0.flags.remove(key);
                self.replica().0.keys.write().remove(key);
                self.reject(item.name, item.revision, message);
            }
        }
    }

    pub(super) fn vet_all(&mut self) {
        self.vet(usize::MAX);
    }
}
