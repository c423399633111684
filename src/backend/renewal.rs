//! When the back end's token is renewed. Pure: the time is an argument.
//!
//! Invariants
//! - A renewal that fails costs nothing while the token before it counts: it is tried again, with growing waits.
//! - One token is shown at a time.

use std::time::Instant;

use crate::hub::identity::backoff::Backoff;

/// How long a token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    /// When another one is due.
    pub renew_at: Instant,
    /// When it is over.
    pub expires_at: Instant,
}

/// The tokens of a connection.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    /// Of the one that the hub has taken.
    counts: Option<Life>,
    /// Of the one that the hub has not answered to.
    shown: Option<Life>,
    /// When the next one is due, after one that came to nothing.
    again_at: Option<Instant>,
    backoff: Backoff,
}

impl Renewal {
    /// Whether the hub has taken a token.
    pub fn is_let_in(&self) -> bool {
        self.counts.is_some()
    }

    /// When the next token is to be asked for. `None`: one is shown.
    pub fn due(&self) -> Option<Instant> {
        let counts = self.counts.filter(|_| self.shown.is_none())?;
        Some(self.again_at.unwrap_or(counts.renew_at))
    }

    /// A token was shown to the hub.
    pub fn shows(&mut self, life: Life) {
        self.shown = Some(life);
    }

    /// The hub has taken it.
    pub fn taken(&mut self) {
        self.counts = self.shown.take().or(self.counts);
        self.again_at = None;
        self.backoff.reset();
    }

    /// There was no token, or the hub has not taken it. Says whether the one before it counts until it is tried again.
    /// `jitter` goes from 0 to 1.
    pub fn failed(&mut self, now: Instant, jitter: f64) -> bool {
        self.shown = None;
        let again_at = now + self.backoff.next(jitter);
        self.again_at = Some(again_at);
        self.counts.is_some_and(|counts| again_at < counts.expires_at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn life(begin: Instant) -> Life {
        Life { renew_at: begin + Duration::from_secs(40), expires_at: begin + Duration::from_secs(60) }
    }

    #[test]
    fn a_first_token_that_is_not_taken_is_the_end() {
        let mut renewal = Renewal::default();
        let now = Instant::now();
        renewal.shows(life(now));
        assert!(!renewal.is_let_in() && renewal.due().is_none());
        assert!(!renewal.failed(now, 0.5));
    }

    #[test]
    fn a_renewal_that_fails_is_tried_again_for_as_long_as_the_token_before_it_counts() {
        let mut renewal = Renewal::default();
        let begin = Instant::now();
        renewal.shows(life(begin));
        renewal.taken();
        assert!(renewal.is_let_in());
        let mut now = renewal.due().unwrap();
        assert_eq!(now, life(begin).renew_at);
        let mut failures = 0;
        while renewal.failed(now, 1.0) {
            let next = renewal.due().unwrap();
            assert!(next > now && next < life(begin).expires_at);
            (now, failures) = (next, failures + 1);
        }
        assert!((3..20).contains(&failures), "{failures}");
    }

    #[test]
    fn after_a_renewal_that_succeeds_the_next_one_is_due_in_its_own_time() {
        let mut renewal = Renewal::default();
        let begin = Instant::now();
        renewal.shows(life(begin));
        renewal.taken();
        let late = begin + Duration::from_secs(50);
        assert!(renewal.failed(late, 0.0));
        renewal.shows(life(late));
        assert_eq!(renewal.due(), None, "one is shown");
        renewal.taken();
        assert_eq!(renewal.due(), Some(life(late).renew_at));
    }
}
