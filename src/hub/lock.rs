//! How long the hub keeps a message locked that it has handed out, and to whom.

use std::time::Duration;

use crate::proof;

/// 60 s ("Send cloud-to-device messages", Microsoft), and some for the way.
const LOCK: Duration = Duration::from_secs(65);

/// How long a message is taken to be locked, from when it came or may have come.
pub fn time() -> Duration {
    proof::lock_time().unwrap_or(LOCK)
}

/// How long a hub that has not heard of the end of a connection may be on its way to miss the keep-alive.
const NOTICE: Duration = Duration::from_secs(5);

/// How long the hub may hold messages for a connection of MQTT's whose end it may not have heard of: until it has not
/// heard from it for one and a half times the keep-alive ("Communicate with an IoT hub using the MQTT protocol",
/// Microsoft), and no less than a lock. Meanwhile it hands them out to nobody else, and new ones to nobody.
pub fn until_noticed(keepalive: Duration) -> Duration {
    proof::lock_time().unwrap_or_else(|| LOCK.max(keepalive * 3 / 2 + NOTICE))
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
