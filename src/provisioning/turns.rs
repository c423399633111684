//! When a device is to be registered. Pure: the time and the jitter are arguments.
//!
//! Invariants
//! - A device that has a hub is registered again only after that has refused it several times in a row, and not again
//!   before `AGAIN_AFTER`: where the fault is the hub's or the key's, the service can't help.
//! - What fails is tried again after waits that grow, and never before the service wants it.

use std::time::Duration;

use tokio::time::Instant;

/// So many refusals in a row by its hub mean that a device may belong elsewhere.
pub const REFUSALS_SUSPICIOUS: u32 = 3;
/// How long after a registration the next one may be made of a device that has a hub.
const AGAIN_AFTER: Duration = Duration::from_secs(600);
/// The waits after a failure, before jitter; the last one is repeated.
const WAITS: [Duration; 6] = [
    Duration::from_secs(2),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(600),
];

/// How a device stands with the service.
#[derive(Debug, Default)]
pub struct Turns {
    failures: usize,
    /// Not before then.
    not_before: Option<Instant>,
    is_under_way: bool,
}

impl Turns {
    /// Whether the device is to be registered, if it had its turn now.
    pub fn wants(&self, has_hub: bool, refusals: u32) -> bool {
        !self.is_under_way && (!has_hub || refusals >= REFUSALS_SUSPICIOUS)
    }

    /// When that may be.
    pub fn due(&self, now: Instant) -> Instant {
        self.not_before.unwrap_or(now)
    }

    /// It is being registered.
    pub fn begin(&mut self) {
        self.is_under_way = true;
    }

    /// It is assigned. `jitter` goes from 0 to 1.
    pub fn succeeded(&mut self, now: Instant, jitter: f64) {
        let wait = AGAIN_AFTER.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 2.0);
        *self = Turns { failures: 0, not_before: Some(now + wait), is_under_way: false };
    }

    /// It is not. Tells how long is waited.
    pub fn failed(&mut self, now: Instant, jitter: f64, retry_after: Option<Duration>) -> Duration {
        let wait = WAITS[self.failures.min(WAITS.len() - 1)].mul_f64(0.5 + jitter.clamp(0.0, 1.0));
        let wait = wait.max(retry_after.unwrap_or_default());
        let failures = self.failures.saturating_add(1);
        *self = Turns { failures, not_before: Some(now + wait), is_under_way: false };
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_a_hub_is_registered_at_once_and_one_with_a_hub_after_refusals() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        assert!(turns.wants(false, 0) && turns.due(now) == now);
        assert!(!turns.wants(true, 2) && turns.wants(true, 3));
        turns.begin();
        assert!(!turns.wants(false, 9), "it is under way");
        turns.succeeded(now, 0.0);
        assert!(turns.wants(true, 3));
        assert_eq!(turns.due(now), now + AGAIN_AFTER, "and not before");
    }

    #[test]
    fn waits_grow_after_failures_and_are_never_shorter_than_the_service_wants() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..10 {
            turns.begin();
            waits.push(turns.failed(now, 1.0, None));
        }
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!((waits[0], waits[9]), (Duration::from_secs(3), Duration::from_secs(900)));
        let long = Duration::from_secs(3000);
        assert_eq!(turns.failed(now, 0.0, Some(long)), long);
        assert_eq!(turns.due(now), now + long);
        turns.succeeded(now, 1.0);
        assert_eq!(turns.failed(now, 0.0, None), Duration::from_secs(1), "it begins anew");
    }
}
