//! When each of many readers got what was written once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::sync::Notify;

use crate::clock::{Clock as _, SystemClock};

/// How long the last of them may take before the benchmark gives up.
const ARRIVES_WITHIN: Duration = Duration::from_secs(60);

/// Unix time in microseconds: what is compared here was taken in different processes of one machine.
pub fn now_us() -> i64 {
    SystemClock::new().now_us()
}

/// Each thing that is written has a number; the readers say when they have it, somebody waits for all of them.
#[derive(Debug, Default)]
pub struct Arrivals {
    readers: Cell<usize>,
    at_us: RefCell<BTreeMap<u64, Vec<i64>>>,
    all: Notify,
}

impl Arrivals {
    /// Everything is to come to this many.
    pub fn expect(&self, readers: usize) {
        self.readers.set(readers);
    }

    pub fn arrived(&self, number: u64, at_us: i64) {
        let mut all = self.at_us.borrow_mut();
        let arrivals = all.entry(number).or_default();
        arrivals.push(at_us);
        if arrivals.len() == self.readers.get() {
            self.all.notify_one();
        }
    }

    /// When each reader had it, once the last one has.
    ///
    /// # Errors
    /// When somebody waits too long for it, or heard of something that was waited for before once more.
    pub async fn wait(&self, number: u64) -> anyhow::Result<Vec<i64>> {
        let have = || self.at_us.borrow().get(&number).map_or(0, Vec::len);
        while have() < self.readers.get() {
            let waited = tokio::time::timeout(ARRIVES_WITHIN, self.all.notified()).await;
            waited.with_context(|| {
                let (missing, readers) = (self.readers.get() - have(), self.readers.get());
                format!("{missing} of {readers} readers have not heard of {number} within {} s", ARRIVES_WITHIN.as_secs())
            })?;
        }
        let mut all = self.at_us.borrow_mut();
        if let Some((earlier, again)) = all.first_key_value().filter(|(earlier, _)| **earlier < number) {
            bail!("{} readers heard of {earlier} though all had heard of it before", again.len());
        }
        Ok(all.remove(&number).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn something_has_arrived_when_the_last_reader_has_it() {
        let arrivals = Arrivals::default();
        arrivals.expect(2);
        arrivals.arrived(1, 7);
        tokio::select! {
            biased;
            _ = arrivals.wait(1) => panic!("one reader is missing"),
            () = std::future::ready(()) => {}
        }
        arrivals.arrived(1, 9);
        arrivals.arrived(2, 11);
        assert_eq!(arrivals.wait(1).await.unwrap(), [7, 9]);
        arrivals.arrived(2, 12);
        assert_eq!(arrivals.wait(2).await.unwrap(), [11, 12]);
    }

    #[tokio::test]
    async fn to_hear_of_a_thing_twice_is_told() {
        let arrivals = Arrivals::default();
        arrivals.expect(1);
        arrivals.arrived(1, 7);
        arrivals.wait(1).await.unwrap();
        arrivals.arrived(1, 8);
        arrivals.arrived(2, 9);
        let error = arrivals.wait(2).await.unwrap_err();
        assert!(error.to_string().starts_with("1 readers heard of 1"), "{error}");
    }
}
