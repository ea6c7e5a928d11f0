//! Exponential back-off with full jitter: `rand(0, min(cap, base * 2^n))`.
//!
//! The jitter comes after the cap, else every client converges on the cap and knocks at the same moment; and the count starts again only
//! after the connection has been healthy for a while, else a server that drops each connection after a minute is never given rest.

use std::time::Duration;

use rand::Rng;

pub const BASE: Duration = Duration::from_millis(100);
pub const CAP: Duration = Duration::from_secs(15);
/// A connection that has held for this long counts as healthy.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait before the next try.
    pub fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let ceiling = ceiling(self.failures);
        self.failures = self.failures.saturating_add(1);
        rng.random_range(Duration::ZERO..=ceiling)
    }

    /// Tell how long the connection had held.
    pub fn held_for(&mut self, held: Duration) {
        if held >= HEALTHY_AFTER {
            self.failures = 0;
        }
    }
}

/// A point in a window that the server asked for. A window that is upside down is read as its larger end.
pub fn within(min: Duration, max: Duration, rng: &mut impl Rng) -> Duration {
    if min >= max { min } else { rng.random_range(min..=max) }
}

fn ceiling(failures: u32) -> Duration {
    2_u32.checked_pow(failures).and_then(|factor| BASE.checked_mul(factor)).map_or(CAP, |wait| wait.min(CAP))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        let ceilings: Vec<_> = (0..10).map(|n| ceiling(n).as_millis()).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000]);
        assert_eq!(ceiling(u32::MAX), CAP);
    }

    #[test]
    fn at_the_cap_clients_do_not_knock_together() {
        let mut rng = StdRng::seed_from_u64(7);
        let waits: Vec<_> = (0..1000).map(|_| Backoff { failures: 50 }.next(&mut rng)).collect();
        let early = waits.iter().filter(|wait| **wait < CAP / 2).count();
        assert!((400..600).contains(&early), "{early} of 1000 waits are in the first half");
    }

    #[test]
    fn only_a_connection_that_held_resets_the_count() {
        let mut backoff = Backoff { failures: 5 };
        backoff.held_for(HEALTHY_AFTER - Duration::from_secs(1));
        assert_eq!(backoff.failures, 5);
        backoff.held_for(HEALTHY_AFTER);
        assert_eq!(backoff.failures, 0);
    }
}
