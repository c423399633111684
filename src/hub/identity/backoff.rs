//! How long to wait before the next connection. Pure: the jitter is an argument.

use std::time::Duration;

/// The waits before jitter; the last one is repeated. The first is short: most drops are single.
const WAITS: [Duration; 7] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(30),
];

/// The waits of one identity.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: usize,
}

impl Backoff {
    /// The next wait: the step's wait, halved or up to half as long again by `jitter`, which goes from 0 to 1.
    pub fn next(&mut self, jitter: f64) -> Duration {
        let wait = WAITS[self.failures.min(WAITS.len() - 1)];
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(0.5 + jitter.clamp(0.0, 1.0))
    }

    /// The connection did what it is for: begin from the first wait.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_less_than_a_minute_and_begin_anew_after_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..20).map(|_| backoff.next(1.0)).collect();
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(waits[0], Duration::from_millis(300));
        assert_eq!(waits[19], Duration::from_secs(45));
        backoff.reset();
        assert_eq!(backoff.next(0.0), Duration::from_millis(100));
    }
}
