//! An identity's tokens: with which key they are made, how long they count, when the next one is due.

use std::fmt;

use tokio::time::Instant;

use super::Identity;
use crate::config::Credential;
use crate::hub::account::Account;
use crate::hub::auth::sas;
use crate::hub::trouble::Trouble;
use crate::time::Timestamp;

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

/// A number from 0 to 1 that is an identity's own, and the same at every start.
fn share_of(device: &str) -> f64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, device.as_bytes());
    f64::from(digest.as_ref()[0]) / 255.0
}
