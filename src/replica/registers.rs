//! Kill registers: those that the log has brought, and those that came ahead of it by the kill lane.

use std::collections::HashMap;

use crate::flag::limits::ENVIRONMENT_FLAGS;
use crate::flag::{Digest, Kill, Position};

#[derive(Debug, Default)]
pub(super) struct Registers {
    log: HashMap<String, Kill>,
    /// With the epoch that they were announced in.
    ahead: HashMap<String, (u64, Kill)>,
}

impl Registers {
    /// The register that counts for a flag.
    pub(super) fn effective(&self, key: &str, own_epoch: u64) -> Option<&Kill> {
        match (self.ahead.get(key), self.log.get(key)) {
            (Some((epoch, ahead)), Some(log)) if *epoch == own_epoch => Some(if log.revision > ahead.revision { log } else { ahead }),
            // Whether the other epoch is the newer one is not known yet: a kill of either side stands.
            (Some((epoch, _)), Some(log)) if *epoch != own_epoch && log.killed => Some(log),
            (Some((_, ahead)), _) => Some(ahead),
            (None, log) => log,
        }
    }

    /// Notes a register from the kill lane; false when it says nothing new.
    ///
    /// From another epoch only a kill is taken, never a restore: until the snapshot comes that ends the doubt, off is the safe side.
    pub(super) fn announce(&mut self, epoch: u64, kill: Kill, held: Position) -> bool {
        let known = self.ahead.get(&kill.flag_key).filter(|(known, _)| *known == epoch).map_or(0, |(_, known)| known.revision);
        let known = if epoch == held.epoch { known.max(held.revision) } else { known };
        let doubtful = epoch != held.epoch && !kill.killed;
        // Nobody but a faulty control plane announces more kills than an environment can have flags.
        let full = self.ahead.len() >= ENVIRONMENT_FLAGS && !self.ahead.contains_key(&kill.flag_key);
        if kill.revision <= known || doubtful || full {
            return false;
        }
        self.ahead.insert(kill.flag_key.clone(), (epoch, kill));
        true
    }

    /// The log brought a register. Of a restored one nobody asks for more than its revision.
    pub(super) fn set(&mut self, kill: Kill) {
        let kill = if kill.killed { kill } else { Kill { actor: String::new(), reason: String::new(), ..kill } };
        self.log.insert(kill.flag_key.clone(), kill);
    }

    /// The register of a deleted flag goes with it.
    pub(super) fn forget(&mut self, key: &str) {
        self.log.remove(key);
    }

    /// The log is replaced as a whole by its state at `position`: answers the keys of the registers that it had. Kills of the same epoch
    /// that are newer than the state are ahead of the log from here on. A step back undoes no kill; a restore may be undone by one,
    /// because off is the safe side.
    pub(super) fn clear_log(&mut self, own_epoch: u64, position: Position) -> Vec<String> {
        let log = std::mem::take(&mut self.log);
        let keys = log.keys().cloned().collect();
        if own_epoch == position.epoch {
            for (key, kill) in log.into_iter().filter(|(_, kill)| kill.killed && kill.revision > position.revision) {
                let ahead = self.ahead.get(&key).is_some_and(|(epoch, ahead)| *epoch == own_epoch && ahead.revision >= kill.revision);
                if !ahead {
                    self.ahead.insert(key, (own_epoch, kill));
                }
            }
        }
        keys
    }

    /// What the log has reached is not ahead of it any more.
    pub(super) fn catch_up(&mut self, position: Position) {
        self.ahead.retain(|_, (epoch, kill)| *epoch != position.epoch || kill.revision > position.revision);
    }

    /// `epoch` is the one that counts: drops what other epochs announced and answers the keys.
    pub(super) fn settle(&mut self, epoch: u64) -> Vec<String> {
        let void: Vec<_> = self.ahead.iter().filter(|(_, (announced, _))| *announced != epoch).map(|(key, _)| key.clone()).collect();
        for key in &void {
            self.ahead.remove(key);
        }
        void
    }

    pub(super) fn keys_ahead(&self) -> impl Iterator<Item = &String> {
        self.ahead.keys()
    }

    /// Everything that must outlive a restart: standing kills of the log, and of this epoch ahead of it.
    pub(super) fn standing(&self, own_epoch: u64) -> Vec<Kill> {
        let ahead = self.ahead.values().filter(|(epoch, _)| *epoch == own_epoch).map(|(_, kill)| kill);
        self.log.values().chain(ahead).filter(|kill| kill.killed).cloned().collect()
    }

    /// Part of the digest of the log's state.
    pub(super) fn digest_of(&self, key: &str) -> Digest {
        self.log.get(key).map_or(Digest::default(), Digest::of_kill)
    }
}

#[cfg(test)]
mod tests {
    use crate::flag::Revision;

    use super::*;

    fn register(revision: Revision, killed: bool) -> Kill {
        Kill { flag_key: "f".into(), revision, killed, actor: String::new(), reason: String::new(), at_us: 0 }
    }

    const HELD: Position = Position { epoch: 1, revision: 5 };

    fn killed(registers: &Registers) -> bool {
        registers.effective("f", HELD.epoch).is_some_and(|kill| kill.killed)
    }

    #[test]
    fn the_highest_revision_wins_whatever_the_order_of_arrival() {
        let mut registers = Registers::default();
        assert!(registers.announce(1, register(8, false), HELD));
        assert!(!registers.announce(1, register(7, true), HELD));
        assert!(!killed(&registers));
    }

    #[test]
    fn what_the_log_has_passed_is_no_news() {
        assert!(!Registers::default().announce(1, register(5, true), HELD));
    }

    #[test]
    fn a_register_ahead_of_the_log_counts_until_the_log_gets_there() {
        let mut registers = Registers::default();
        registers.announce(1, register(7, true), HELD);
        registers.catch_up(Position { epoch: 1, revision: 6 });
        assert!(killed(&registers));
        registers.catch_up(Position { epoch: 1, revision: 7 });
        assert!(!killed(&registers));
    }

    #[test]
    fn another_epoch_may_kill_but_not_restore_until_it_is_settled() {
        let mut registers = Registers::default();
        registers.set(register(4, true));
        assert!(!registers.announce(2, register(9, false), HELD));
        assert!(killed(&registers));
        registers.set(register(4, false));
        assert!(registers.announce(2, register(1, true), HELD));
        assert!(killed(&registers));
        assert_eq!(registers.settle(1), ["f"]);
        assert!(!killed(&registers));
    }

    #[test]
    fn a_step_back_of_the_log_undoes_no_kill_until_the_log_is_there_again() {
        let back_to = |epoch, revision| {
            let mut registers = Registers::default();
            registers.set(register(5, true));
            let position = Position { epoch, revision };
            assert_eq!(registers.clear_log(1, position), ["f"]);
            registers.catch_up(position);
            registers
        };
        assert!(killed(&back_to(1, 4)));
        let mut registers = back_to(1, 4);
        registers.catch_up(HELD);
        assert!(!killed(&registers), "the log has reached it and says nothing of it");
        assert!(!killed(&back_to(1, 5)));
        assert!(back_to(2, 4).effective("f", 2).is_none(), "of another history");
    }
}
