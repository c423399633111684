//! Whether the ledger knows enough: a new one knows that it knows nothing (G15).
//!
//! Invariants
//! - A device is trusted only after that is durable, or because the ledger is.
//! - The epoch is never earlier than the first confirmed time that this ledger has seen: what was sent after it, no
//!   earlier ledger can have executed. A clock that jumps ahead in the life in which it began was behind by then.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::store::Standing;
use crate::time::Timestamp;

/// After so many seconds in service since its epoch a ledger has outlived all that the hub held then: the longest life
/// of a message is 48 h, and an hour is for clocks that differ.
const OUTLIVED: i64 = 49 * 3600;

/// What a clock gains on the ledger's age by small steps, in ms. What is more is a jump.
const DRIFT: i64 = 60_000;

/// What is known of it, in memory.
#[derive(Debug)]
pub(super) struct Trust {
    distrusted: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    epoch: Option<(Timestamp, i64)>,
    /// It began in this life.
    began: bool,
    trusted: HashSet<(String, String)>,
}

impl Trust {
    pub(super) fn new(standing: Standing) -> Trust {
        let trusted = standing.trusted.into_iter().collect();
        Trust {
            distrusted: standing.distrusted,
            inner: Mutex::new(Inner { epoch: standing.epoch, began: false, trusted }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an earlier ledger may know of commands of a device that this one, at this age, does not know.
    pub(super) fn distrusts(&self, hub: &str, device: &str, age: i64) -> bool {
        if !self.distrusted {
            return false;
        }
        let inner = self.inner();
        let has_outlived = inner.epoch.is_some_and(|(_, then)| age - then >= OUTLIVED);
        !has_outlived && !inner.trusted.contains(&(hub.to_owned(), device.to_owned()))
    }

    /// The epoch of a distrusted ledger, and whether it is another one with this call: it begins at the first time that
    /// is confirmed, and moves with a clock that is put ahead afterwards.
    pub(super) fn epoch(&self, now: impl FnOnce() -> Option<Timestamp>, age: i64) -> Option<(Timestamp, bool)> {
        if !self.distrusted {
            return None;
        }
        let mut inner = self.inner();
        match inner.epoch {
            None => {
                let now = now()?;
                (inner.epoch, inner.began) = (Some((now, age)), true);
                Some((now, true))
            }
            Some((epoch, then)) => {
                let gained = |now: Timestamp| (now.0 - epoch.0) - (age - then) * 1000;
                let gained = inner.began.then(now).flatten().map_or(0, gained);
                let is_jump = gained > DRIFT;
                let epoch = if is_jump { Timestamp(epoch.0 + gained) } else { epoch };
                inner.epoch = Some((epoch, then));
                Some((epoch, is_jump))
            }
        }
    }

    /// The epoch and the age then, if there was one.
    pub(super) fn known_epoch(&self) -> Option<(Timestamp, i64)> {
        self.inner().epoch
    }

    pub(super) fn add(&self, device: (String, String)) {
        self.inner().trusted.insert(device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> Trust {
        Trust::new(Standing { distrusted: true, epoch: None, trusted: Vec::new() })
    }

    #[test]
    fn a_new_ledger_is_distrusted_until_49_hours_in_service_since_the_first_believable_time() {
        let trust = new();
        assert_eq!(trust.epoch(|| None, 10), None, "the clock is not believed");
        assert!(trust.distrusts("h", "d", 10 + 100 * OUTLIVED), "time proves nothing before the epoch");
        assert_eq!(trust.epoch(|| Some(Timestamp(5)), 100), Some((Timestamp(5), true)));
        assert_eq!(trust.epoch(|| Some(Timestamp(100_009)), 200), Some((Timestamp(5), false)));
        assert!(trust.distrusts("h", "d", 100 + OUTLIVED - 1));
        assert!(!trust.distrusts("h", "d", 100 + OUTLIVED));
    }

    #[test]
    fn a_clock_that_is_put_ahead_was_behind_when_the_epoch_began() {
        let trust = new();
        trust.epoch(|| Some(Timestamp(5)), 100);
        let small = Timestamp(5 + 10_000 + DRIFT);
        assert_eq!(trust.epoch(|| Some(small), 110), Some((Timestamp(5), false)), "a small step");
        let ahead = Timestamp(5 + 20_000 + 3_600_000);
        assert_eq!(trust.epoch(|| Some(ahead), 120), Some((Timestamp(5 + 3_600_000), true)));
        assert_eq!(trust.known_epoch(), Some((Timestamp(5 + 3_600_000), 100)));
        assert_eq!(trust.epoch(|| Some(Timestamp(5)), 130), Some((Timestamp(5 + 3_600_000), false)), "put back");
        assert_eq!(trust.epoch(|| None, 140), Some((Timestamp(5 + 3_600_000), false)), "not believed");
    }

    #[test]
    fn the_time_between_two_lives_moves_no_epoch() {
        let standing = Standing { distrusted: true, epoch: Some((Timestamp(5), 1)), trusted: Vec::new() };
        let trust = Trust::new(standing);
        assert_eq!(trust.epoch(|| Some(Timestamp(86_400_000)), 2), Some((Timestamp(5), false)));
    }

    #[test]
    fn trust_in_a_device_is_in_one_device_at_one_hub() {
        let trust = new();
        trust.add(("h".into(), "d".into()));
        assert!(!trust.distrusts("h", "d", 0));
        assert!(trust.distrusts("h", "e", 0));
        assert!(trust.distrusts("other", "d", 0));
    }

    #[test]
    fn a_ledger_that_was_migrated_is_trusted_and_has_no_epoch() {
        let trust = Trust::new(Standing { distrusted: false, epoch: None, trusted: Vec::new() });
        assert!(!trust.distrusts("h", "d", 0));
        assert_eq!(trust.epoch(|| Some(Timestamp(5)), 1), None);
    }
}
