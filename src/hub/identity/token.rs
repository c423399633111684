//! An identity's tokens: with which key they are made, how long they count, when the next one is due.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::Identity;
use crate::config::Credential;
use crate::hub::account::Account;
use crate::hub::auth::sas;
use crate::hub::trouble::Trouble;
use crate::time::Timestamp;

/// The shortest and the longest wait before a token is shown again that the hub did not take.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How long a token counts.
#[derive(Clone, Copy)]
pub(super) struct TokenLife {
    /// When a new one is due.
    pub(super) renewal: Instant,
    /// When it expires.
    pub(super) end: Instant,
}

/// Which of an identity's keys its tokens are made with. Whichever works is kept until it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Which {
    #[default]
    First,
    Second,
}

impl Identity {
    /// A token that is made now, where the account needs one.
    pub(super) fn token(&self, account: &Account, which: Which, date: Timestamp) -> Option<(String, TokenLife)> {
        let Credential::Key(first) = &account.credential else { return None };
        let key = match which {
            Which::First => first,
            Which::Second => account.secondary.as_ref().unwrap_or(first),
        };
        let (hub, begun) = (&account.access.hub, Instant::now());
        let token = sas::device_token(&hub.host, &self.id, key, date, hub.token_lifetime);
        let renewal = begun + sas::renew_after(hub.token_lifetime, share_of(&self.id));
        Some((token, TokenLife { renewal, end: begun + hub.token_lifetime }))
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Which::First => "first",
            Which::Second => "second",
        })
    }
}

impl Which {
    /// Which key comes next, after a connection has ended so.
    pub(super) fn after(self, trouble: &Trouble, account: &Account) -> Which {
        match (trouble.is_refusal() && account.secondary.is_some(), self) {
            (true, Which::First) => Which::Second,
            (true, Which::Second) => Which::First,
            (false, which) => which,
        }
    }
}

/// How long to wait before a token is shown again that the hub did not take now, while the one before counts for
/// `left`. `None`: it counts no longer. Pure: `jitter` goes from 0 to 1.
pub(super) fn pause_before_renewal(left: Duration, jitter: f64) -> Option<Duration> {
    let pause = (left / 4).clamp(PAUSE_MIN, PAUSE_MAX);
    (!left.is_zero()).then(|| pause.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0))
}

/// A number from 0 to 1 that is an identity's own, and the same at every start.
fn share_of(device: &str) -> f64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, device.as_bytes());
    f64::from(digest.as_ref()[0]) / 255.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_again_several_times_while_the_one_before_counts_and_not_after() {
        for life in [10, 600, 3600 * 24] {
            let (mut left, mut shown) = (Duration::from_secs(life) / 5, 0);
            while let Some(pause) = pause_before_renewal(left, 1.0) {
                assert!(pause >= PAUSE_MIN && pause <= PAUSE_MAX, "{pause:?}");
                (left, shown) = (left.saturating_sub(pause), shown + 1);
            }
            assert!(shown >= 2, "of {life} s");
        }
        assert_eq!(pause_before_renewal(Duration::ZERO, 0.0), None);
    }
}
