//! How many sidecars may come back at a time. After a restart of the control plane all of them knock at once; those who are not let in are
//! told when to knock again, spread so that the gate keeps up. Time is an argument.

use std::time::Duration;

use crate::clock::Micros;

/// When to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub min: Duration,
    pub max: Duration,
}

/// A token bucket that also counts whom it sent away.
#[derive(Debug)]
pub struct Gate {
    per_second: u32,
    /// Millionths of a token, so that nothing is lost between two quick knocks.
    tokens: u64,
    filled_us: Micros,
    sent_away: u64,
}

const TOKEN: u64 = 1_000_000;
/// Nobody who was sent away comes back before this.
const MIN: Duration = Duration::from_millis(500);
const MAX: Duration = Duration::from_secs(60);

impl Gate {
    pub fn new(per_second: u32, now_us: Micros) -> Self {
        let per_second = per_second.max(1);
        Self { per_second, tokens: u64::from(per_second) * TOKEN, filled_us: now_us, sent_away: 0 }
    }

    pub fn admit(&mut self, now_us: Micros) -> Result<(), Window> {
        let full = u64::from(self.per_second) * TOKEN;
        let elapsed_us = (now_us - self.filled_us).max(0) as u64;
        self.filled_us = self.filled_us.max(now_us);
        self.tokens = self.tokens.saturating_add(elapsed_us.saturating_mul(self.per_second.into())).min(full);
        if self.tokens == full {
            // The gate stood open for a while: the herd is over.
            self.sent_away = 0;
        }
        if self.tokens >= TOKEN {
            self.tokens -= TOKEN;
            return Ok(());
        }
        self.sent_away += 1;
        Err(spread(self.sent_away, self.per_second))
    }
}

/// A window in which so many sidecars arrive at the rate that the gate admits.
pub fn spread(sidecars: u64, per_second: u32) -> Window {
    let seconds = sidecars as f64 / f64::from(per_second.max(1));
    Window { min: MIN, max: (MIN * 2 + Duration::from_secs_f64(seconds.min(MAX.as_secs_f64()))).min(MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_the_rate_are_let_in_each_second() {
        let mut gate = Gate::new(500, 0);
        let admitted = |gate: &mut Gate, now_us| (0..10_000).filter(|_| gate.admit(now_us).is_ok()).count();
        assert_eq!(admitted(&mut gate, 0), 500);
        assert_eq!(admitted(&mut gate, 1_000_000), 500);
        assert_eq!(admitted(&mut gate, 1_100_000), 50);
        assert_eq!(admitted(&mut gate, 99_000_000), 500);
    }

    #[test]
    fn quick_knocks_do_not_lose_the_time_between_them() {
        let mut gate = Gate::new(10, 0);
        while gate.admit(0).is_ok() {}
        let admitted = (1..=1_000_000).step_by(100).filter(|now_us| gate.admit(*now_us).is_ok()).count();
        assert!((9..=10).contains(&admitted), "{admitted}");
    }

    #[test]
    fn the_window_grows_with_the_herd_and_is_bounded() {
        let mut gate = Gate::new(500, 0);
        let windows: Vec<_> = (0..5_500).filter_map(|_| gate.admit(0).err()).collect();
        assert_eq!(windows.first().map(|window| window.max.as_millis()), Some(1002));
        assert_eq!(windows.last().map(|window| window.max.as_millis()), Some(11_000));
        assert_eq!(spread(1_000_000, 500).max, MAX);
        assert!(windows.iter().all(|window| window.min < window.max));
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_admits_nobody_twice() {
        let mut gate = Gate::new(1, 1_000_000);
        assert!(gate.admit(1_000_000).is_ok());
        assert!(gate.admit(0).is_err());
        assert!(gate.admit(1_500_000).is_err());
        assert!(gate.admit(2_000_000).is_ok());
    }
}
