//! Time: what a point of it is, the only clock that is read, and whether that clock can be believed.

pub mod alarm;
mod clock;
pub mod local;
#[cfg(feature = "proof")]
pub mod simulated;
mod stamp;
pub mod trust;

pub use stamp::{Timestamp, EARLIEST_BELIEVABLE};

use tokio::time::{sleep_until, Instant};

/// Waits until then. What is past is not waited for: tokio's timers end with the next millisecond, also for a moment
/// that has just passed, and a command would cost one more for each.
pub async fn until(moment: Instant) {
    if moment > Instant::now() {
        sleep_until(moment).await;
    }
}
