//! A point of wall time, free of any clock.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

/// Earliest wall time that can be right: this release is not older (2026-11-01T00:00:00Z). Each release moves it on by
/// hand; the time of the build would make every build another program.
pub const EARLIEST_BELIEVABLE: Timestamp = Timestamp(1_793_491_200_000);

/// Wall time in milliseconds since 1970-01-01T00:00:00Z. Prints as RFC 3339 with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Stands for a time that nobody knows: the clock was not believed.
    pub const UNKNOWN: Timestamp = Timestamp(i64::MIN);

    /// The time, unless nobody knows it.
    pub fn known(self) -> Option<Timestamp> {
        (self != Timestamp::UNKNOWN).then_some(self)
    }

    /// Whole seconds since 1970.
    pub fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This time and a duration, saturating.
    pub fn plus(self, duration: Duration) -> Self {
        Timestamp(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// So much earlier.
    pub fn minus(self, duration: Duration) -> Self {
        Timestamp(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// So many seconds later, or earlier if they are less than none; saturating.
    pub fn plus_signed(self, seconds: i64) -> Self {
        Timestamp(self.0.saturating_add(seconds.saturating_mul(1000)))
    }

    /// Time from an earlier one to this; nothing if that is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // humantime covers the years 1970 to 9999; a clock outside of them is shown at the limit.
        let millis = u64::try_from(self.0).unwrap_or(0).min(253_402_300_799_999);
        let time = UNIX_EPOCH + Duration::from_millis(millis);
        humantime::format_rfc3339_millis(time).fmt(f)
    }
}
