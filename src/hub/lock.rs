//! How long the hub keeps a message locked that it has handed out, and to whom.

use std::time::Duration;

use crate::proof;

/// 60 s ("Send cloud-to-device messages", Microsoft), and some for the way.
const LOCK: Duration = Duration::from_secs(65);

/// How long a message is taken to be locked, from when it came or may have come.
pub fn time() -> Duration {
    proof::lock_time().unwrap_or(LOCK)
}

/// To whom messages are handed out: a device at a hub.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Recipient {
    hub: String,
    device: String,
}

impl Recipient {
    /// The device of this id at the hub of this host name.
    pub fn of(hub: &str, device: &str) -> Recipient {
        Recipient { hub: hub.to_owned(), device: device.to_owned() }
    }
}
