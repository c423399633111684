//! Until when the hub keeps messages locked that attachments have left. Pure, but for the lock around it.
//!
//! Invariants
//! - Whatever the hub may have handed out and was not told the end of counts: what came and was not settled, and what
//!   may have been on its way. A message behind it is not asked for before its lock has run out (G5).
//! - One moment is kept for each device.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::hub::lock::Recipient;
use crate::hub::transport::Rest;

/// What is kept, by device.
#[derive(Debug, Default)]
pub struct Left(Mutex<HashMap<Recipient, Instant>>);

impl Left {
    /// An attachment of this device has ended, and has left something locked until then, or nothing.
    pub fn note(&self, recipient: &Recipient, locked_until: Option<Instant>) {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match locked_until {
            Some(until) => {
                let latest = left.entry(recipient.clone()).or_insert(until);
                *latest = until.max(*latest);
            }
            None => drop(left.remove(recipient)),
        }
    }

    /// Until when something of this device is locked, if it is.
    pub fn until(&self, recipient: &Recipient) -> Option<Instant> {
        let left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        left.get(recipient).copied().filter(|until| *until > Instant::now())
    }

    /// The same, which whoever asks takes over.
    pub fn take(&self, recipient: &Recipient) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(recipient)
    }

    /// What the next daemon is to know, to which something that is left means this.
    pub fn rest(&self, meaning: Rest) -> Rest {
        let left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match left.values().any(|until| *until > Instant::now()) {
            true => meaning,
            false => Rest::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_one_attachment_leaves_holds_until_its_lock_has_run_out_or_the_next_leaves_nothing() {
        let left = Left::default();
        let (pump, valve) = (Recipient::of("hub", "pump"), Recipient::of("hub", "valve"));
        let now = Instant::now();
        let (soon, later) = (now + Duration::from_secs(5), now + Duration::from_secs(65));
        left.note(&pump, Some(later));
        left.note(&pump, Some(soon));
        let rest = || left.rest(Rest::Doubtful);
        assert_eq!((left.until(&pump), left.until(&valve), rest()), (Some(later), None, Rest::Doubtful));
        tokio::time::advance(Duration::from_secs(65)).await;
        assert_eq!((left.until(&pump), rest()), (None, Rest::Nothing));
        left.note(&valve, Some(Instant::now() + Duration::from_secs(1)));
        left.note(&valve, None);
        assert_eq!(left.until(&valve), None);
    }
}
