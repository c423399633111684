//! Whether the ledger knows enough: a new one knows that it knows nothing (G15).
//!
//! Invariants
//! - A device is trusted only after that is durable, or because the ledger is.
//! - The epoch is never earlier than the first believable time that this ledger has seen: what was sent after it, no
//!   earlier ledger can have executed.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::store::Standing;
use crate::time::Timestamp;

/// After so many seconds in service since its epoch a ledger has outlived all that the hub held then: the longest life
/// of a message is 48 h, and an hour is for clocks that differ.
const OUTLIVED: i64 = 49 * 3600;

/// What is known of it, in memory.
#[derive(Debug)]
pub(super) struct Trust {
    distrusted: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    epoch: Option<(Timestamp, i64)>,
    trusted: HashSet<(String, String)>,
}

impl Trust {
    pub(super) fn new(standing: Standing) -> Trust {
        let trusted = standing.trusted.into_iter().collect();
        Trust { distrusted: standing.distrusted, inner: Mutex::new(Inner { epoch: standing.epoch, trusted }) }
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

    /// The epoch of a distrusted ledger, and whether it begins with this call: at the first time that is believed.
    pub(super) fn epoch(&self, now: impl FnOnce() -> Option<Timestamp>, age: i64) -> Option<(Timestamp, bool)> {
        if !self.distrusted {
            return None;
        }
        let mut inner = self.inner();
        if let Some((epoch, _)) = inner.epoch {
            return Some((epoch, false));
        }
        let now = now()?;
        inner.epoch = Some((now, age));
        Some((now, true))
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
        assert_eq!(trust.epoch(|| Some(Timestamp(9)), 200), Some((Timestamp(5), false)));
        assert!(trust.distrusts("h", "d", 100 + OUTLIVED - 1));
        assert!(!trust.distrusts("h", "d", 100 + OUTLIVED));
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
