//! How long the hub keeps a message locked that it has handed out.

use std::time::Duration;

use crate::proof;

/// 60 s ("Send cloud-to-device messages", Microsoft), and some for the way.
const LOCK: Duration = Duration::from_secs(65);

/// How long a message is taken to be locked, from when it came or may have come.
pub fn time() -> Duration {
    proof::lock_time().unwrap_or(LOCK)
}
