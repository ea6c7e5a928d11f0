//! Time as an argument: a trait with the real clock and one that tests move by hand.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Unix time in microseconds.
pub type Micros = i64;

pub trait Clock: Send + Sync + 'static {
    fn now_us(&self) -> Micros;
}

/// The machine's clock, read once and then carried on by the monotonic one: it never jumps back while the process lives, so that an
/// age is never negative. A correction of the machine's clock after the start is not seen.
#[derive(Debug, Clone)]
pub struct SystemClock {
    started_us: Micros,
    started: Instant,
}

impl SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the time of the machine comes in")]
    pub fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started_us: since_epoch.as_micros() as Micros, started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now_us(&self) -> Micros {
        self.started_us + self.started.elapsed().as_micros() as Micros
    }
}

/// Ahead of the machine's clock, by more whenever it is told to: a plan of weeks is played in a minute.
#[derive(Debug, Default)]
pub struct AheadClock {
    system: SystemClock,
    ahead_us: AtomicI64,
}

impl AheadClock {
    /// Never back: what is less than before is passed over.
    pub fn be_ahead_us(&self, ahead_us: Micros) {
        self.ahead_us.fetch_max(ahead_us, Ordering::Relaxed);
    }
}

impl Clock for AheadClock {
    fn now_us(&self) -> Micros {
        self.system.now_us().saturating_add(self.ahead_us.load(Ordering::Relaxed))
    }
}

/// Stands still until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    pub fn at(now_us: Micros) -> Self {
        Self(AtomicI64::new(now_us))
    }

    pub fn advance_us(&self, by_us: Micros) {
        self.0.fetch_add(by_us, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_us(&self) -> Micros {
        self.0.load(Ordering::Relaxed)
    }
}
