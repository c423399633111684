//! The only module that reads a clock. Everything that decides takes the time as an argument.
//!
//! Wall time is for people and for expiry dates that come from the cloud; a gateway without a clock chip may boot in
//! the past, so nothing that a guarantee rests on is measured with it. Ages are measured with the monotonic clock.

use std::time::{SystemTime, UNIX_EPOCH};

use super::stamp::Timestamp;

impl Timestamp {
    /// The present wall time.
    #[allow(clippy::disallowed_methods)]
    pub fn now() -> Self {
        #[cfg(feature = "proof")]
        if let Some(now) = crate::time::simulated::now() {
            return now;
        }
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
            Err(before) => Timestamp(-i64::try_from(before.duration().as_millis()).unwrap_or(0)),
        }
    }
}
