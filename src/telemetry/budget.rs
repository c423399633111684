//! How many messages may be sent a day. Pure: times are arguments.
//!
//! A hub counts messages in units of 4 KiB ("IoT Hub quotas and throttling", Microsoft), of bodies and properties
//! together.
//!
//! Invariants
//! - In no 24 hours more than the day's messages are sent, however they are spread: an hour's worth may be saved up,
//!   and what is sent beyond that is counted out evenly.
//! - A daemon begins with nothing saved up: restarts make no messages.

use std::time::{Duration, Instant};

/// Bytes that a hub counts as one message.
pub const UNIT_BYTES: usize = 4096;
/// The part of a day that may be saved up.
const SAVED: f64 = 1.0 / 24.0;
const DAY: f64 = 86_400.0;

/// As how many messages a hub counts one of so many bytes.
pub fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES).max(1)).unwrap_or(u32::MAX)
}

/// What may be sent still.
#[derive(Debug)]
pub(super) struct Budget {
    /// Messages a day; 0: any number.
    daily: f64,
    saved: f64,
    counted: Instant,
}

impl Budget {
    pub(super) fn new(daily: u32, now: Instant) -> Budget {
        // The first one goes at once.
        Budget { daily: daily.into(), saved: 1.0, counted: now }
    }

    /// From now on so many a day are sent.
    pub(super) fn change(&mut self, daily: u32) {
        self.daily = daily.into();
        self.saved = self.saved.min(self.most());
    }

    fn most(&self) -> f64 {
        (self.daily * SAVED).max(1.0)
    }

    /// Messages a second.
    fn rate(&self) -> f64 {
        (self.daily - self.most()).max(self.daily / 2.0) / DAY
    }

    /// When a message may be sent that counts as so many; `None`: now.
    pub(super) fn held_until(&mut self, units: u32, now: Instant) -> Option<Instant> {
        if self.daily == 0.0 {
            return None;
        }
        let passed = now.saturating_duration_since(self.counted).as_secs_f64();
        self.saved = (self.saved + passed * self.rate()).min(self.most());
        self.counted = self.counted.max(now);
        // What counts as more than can be saved up goes when all is.
        let missing = f64::from(units).min(self.most()) - self.saved;
        // A rounding of the clock is no reason to wait once more.
        (missing > 1e-6).then(|| now + Duration::from_secs_f64((missing / self.rate()).min(DAY)))
    }

    /// One was sent that counts as so many.
    pub(super) fn spend(&mut self, units: u32) {
        if self.daily > 0.0 {
            self.saved -= f64::from(units);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_day_has_more_messages_than_it_may_and_a_busy_one_nearly_as_many() {
        for daily in [24, 1_000, 100_000] {
            let begun = Instant::now();
            let (mut budget, mut sent, mut now) = (Budget::new(daily, begun), 0, begun);
            while now < begun + Duration::from_secs(86_400) {
                match budget.held_until(1, now) {
                    None => {
                        budget.spend(1);
                        sent += 1;
                    }
                    Some(at) => {
                        assert!(at > now);
                        now = at;
                    }
                }
            }
            assert!(sent <= daily && sent >= daily * 9 / 10, "{sent} of {daily}");
        }
    }

    #[test]
    fn after_a_calm_an_hours_worth_goes_at_once_and_no_more() {
        let begun = Instant::now();
        let mut budget = Budget::new(2_400, begun);
        let later = begun + Duration::from_secs(86_400);
        let mut sent = 0;
        while budget.held_until(1, later).is_none() {
            budget.spend(1);
            sent += 1;
        }
        assert_eq!(sent, 100);
    }

    #[test]
    fn without_a_limit_nothing_waits_and_a_large_message_counts_as_several() {
        let now = Instant::now();
        let mut free = Budget::new(0, now);
        (0..1_000).for_each(|_| free.spend(1));
        assert_eq!(free.held_until(64, now), None);
        assert_eq!([units(0), units(1), units(4096), units(4097), units(256 << 10)], [1, 1, 1, 2, 64]);
        free.change(1_000);
        assert_eq!(free.held_until(1, now), None, "what was sent without a limit is not counted");
        let mut small = Budget::new(24, now);
        assert_eq!(small.held_until(64, now), None, "one that is larger than all that can be saved up goes, too");
    }
}
