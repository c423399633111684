//! Whether a part of the daemon still moves: what systemd's watchdog is fed by.
//!
//! A part says how long it may take until it is heard of again: at each turn of its loop, which comes by at least every
//! [`TICK`], and before anything that takes longer. One that is not heard of in time is stuck.
//!
//! Invariant: only the part itself moves its pulse, in the place that is to be shown to be alive.

use std::future::Future;
use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{sleep, Instant};

/// How often a loop comes by that has nothing else to do.
pub const TICK: Duration = Duration::from_secs(10);
/// How long one turn of a loop may take, its tick included.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A part's sign of life.
#[derive(Debug)]
pub struct Pulse {
    /// When it must be heard of again; `None`: it has not begun, or has ended in order.
    due: Mutex<Option<Instant>>,
}

impl Default for Pulse {
    fn default() -> Self {
        Pulse { due: Mutex::new(None) }
    }
}

impl Pulse {
    /// The part moves, and will be heard of again after this time and [`PATIENCE`] at the latest.
    pub fn allow(&self, time: Duration) {
        self.set(Some(Instant::now() + time + PATIENCE));
    }

    /// The part has ended in order.
    pub fn rest(&self) {
        self.set(None);
    }

    /// Waits for what may rightly take any time, and is heard of meanwhile.
    pub async fn during<T>(&self, wait: impl Future<Output = T>) -> T {
        let mut wait = pin!(wait);
        loop {
            self.allow(Duration::ZERO);
            tokio::select! {
                biased;
                done = &mut wait => return done,
                () = sleep(TICK) => {}
            }
        }
    }

    /// For how long it should have been heard of, if it is stuck.
    pub fn overdue(&self) -> Option<Duration> {
        let due = *self.due.lock().expect("nobody panics while holding a pulse");
        due.filter(|due| *due < Instant::now()).map(|due| due.elapsed())
    }

    fn set(&self, due: Option<Instant>) {
        *self.due.lock().expect("nobody panics while holding a pulse") = due;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_is_stuck_when_it_is_not_heard_of_in_time() {
        let pulse = Pulse::default();
        sleep(2 * PATIENCE).await;
        assert_eq!(pulse.overdue(), None, "it has not begun");
        pulse.allow(TICK);
        sleep(TICK + PATIENCE).await;
        assert_eq!(pulse.overdue(), None);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(pulse.overdue(), Some(Duration::from_secs(1)));
        pulse.rest();
        assert_eq!(pulse.overdue(), None, "it has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_wait_is_heard_of_and_a_part_that_is_not_polled_is_not() {
        let pulse = Pulse::default();
        let mut wait = Box::pin(pulse.during(std::future::pending::<()>()));
        tokio::time::timeout(10 * PATIENCE, &mut wait).await.unwrap_err();
        assert_eq!(pulse.overdue(), None);
        sleep(PATIENCE + Duration::from_secs(1)).await;
        assert!(pulse.overdue().is_some(), "nobody has polled it since");
    }
}
