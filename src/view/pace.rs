//! How often those who look are answered. Pure: times are arguments.
//!
//! Invariants
//! - In the long run no more than one answer each [`EACH`] is begun, and after a calm [`BURST`] at once: what a flood
//!   costs is a small part of a core, however fast it asks.
//! - Nobody is refused for it: who comes too soon waits in the system's queue, in the order in which all came.

use std::time::{Duration, Instant};

/// From one answer to the next: 200 a second.
pub const EACH: Duration = Duration::from_millis(5);
/// Answers that are begun at once after a calm.
pub const BURST: u32 = 50;

/// What was begun so far.
#[derive(Debug)]
pub struct Pace {
    /// When all that was begun is paid for.
    paid: Instant,
}

impl Pace {
    /// One that has begun nothing.
    pub fn new(now: Instant) -> Pace {
        Pace { paid: now }
    }

    /// Begins one answer: how long that has to wait.
    pub fn begin(&mut self, now: Instant) -> Duration {
        let paid = self.paid.max(now);
        self.paid = paid + EACH;
        paid.saturating_duration_since(now + EACH * (BURST - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_a_flood_at_its_pace_however_fast_it_comes() {
        let begun = Instant::now();
        let (mut pace, mut now, mut count) = (Pace::new(begun), begun, 0);
        while now < begun + Duration::from_secs(10) {
            now += pace.begin(now);
            count += 1;
        }
        assert!((2_000..=2_000 + BURST + 1).contains(&count), "{count}");
        let calm = now + Duration::from_secs(60);
        assert!((0..BURST).all(|_| pace.begin(calm).is_zero()), "nothing is owed any more");
        assert_eq!(pace.begin(calm), EACH, "and no more was saved up in a minute than in a second");
    }

    #[test]
    fn who_looks_as_often_as_a_person_or_a_scraper_never_waits() {
        let (begun, mut pace) = (Instant::now(), Pace::new(Instant::now()));
        for n in 0..1_000 {
            assert!(pace.begin(begun + EACH * 2 * n).is_zero(), "{n}");
        }
    }
}
