//! What is counted and timed for whoever watches a gateway over months: tallies by a word, and how long something took.
//!
//! Invariants
//! - Counting takes no memory that grows with what is counted: the words are the program's own.
//! - Nothing that is counted ever gets less while the program runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of a distribution's classes, in seconds; one more class takes what is longer. From a flush of a good
/// disk to a command that waits a minute for its line.
pub const BOUNDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// How many of something, by a word.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<&'static str, u64>>);

impl Tally {
    /// One more under this word.
    pub fn add(&self, word: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(word).or_default() += 1;
    }

    /// As it is now.
    pub fn reading(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How long something took, each time.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One for each class.
    classes: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

impl Histogram {
    /// It took so long, once more.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let class = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX / 2);
        self.microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }

    /// As it is now.
    pub fn reading(&self) -> Distribution {
        let counts = std::array::from_fn(|class| self.classes[class].load(Ordering::Relaxed));
        Distribution { counts, sum: Duration::from_micros(self.microseconds.load(Ordering::Relaxed)) }
    }
}

/// What a [`Histogram`] has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Distribution {
    /// In each class, the last of which has no upper bound.
    pub counts: [u64; BOUNDS.len() + 1],
    /// How long all of them took together.
    pub sum: Duration,
}

/// What the parts of a daemon have counted, beside what its snapshot shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Readings {
    /// Of each device, by its id.
    pub devices: BTreeMap<String, DeviceReadings>,
    /// Of each bus, by its name.
    pub buses: BTreeMap<String, BusReadings>,
    /// From a message's first receipt to its settlement.
    pub completion: Distribution,
    /// Commits of the ledger, each with its flush.
    pub commits: Distribution,
}

/// What was counted of one device since it is served.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeviceReadings {
    /// Commands that ended, by their final state.
    pub ends: BTreeMap<&'static str, u64>,
    /// Attempts to connect to the hub, by what came of them.
    pub connects: BTreeMap<&'static str, u64>,
    /// Calls of direct methods that were answered, by the answer's status.
    pub calls: BTreeMap<&'static str, u64>,
    /// Commands in doubt that nobody has dealt with, when that was last counted.
    pub in_doubt_open: u64,
}

/// What was counted of one bus since it runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BusReadings {
    /// Exchanges, by unit and by what came of them. On a line of text the unit is empty.
    pub exchanges: BTreeMap<(String, &'static str), u64>,
    /// How long commands and looks waited for their turn.
    pub waits: Distribution,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_counted_in_the_class_whose_bound_it_does_not_pass() {
        let histogram = Histogram::default();
        for millis in [0, 1, 2, 60_000, 60_001] {
            histogram.observe(Duration::from_millis(millis));
        }
        let Distribution { counts, sum } = histogram.reading();
        assert_eq!((counts[0], counts[1], counts[14], counts[15]), (2, 1, 1, 1));
        assert_eq!(sum, Duration::from_millis(120_004));
        assert!(BOUNDS.is_sorted());
    }

    #[test]
    fn a_tally_counts_by_its_words() {
        let tally = Tally::default();
        ["ok", "tls", "ok"].into_iter().for_each(|word| tally.add(word));
        assert_eq!(tally.reading(), BTreeMap::from([("ok", 2), ("tls", 1)]));
    }
}
