//! What the proof of the guarantees needs inside of the program: places to crash at, and bytes as a source of choices.
//! A release has none of it: there a crash point is nothing.

pub mod crash;

#[cfg(any(test, feature = "proof"))]
pub mod bytes;

/// How long a hub is taken to keep a message locked that it has handed out by HTTPS: 60 s ("Send cloud-to-device
/// messages", Microsoft), and some for the way. With the feature a test whose hub is quicker says so, in milliseconds,
/// by the environment variable `FIELDBRIDGE_LOCK_MS`.
#[cfg(feature = "https")]
pub fn lock_time() -> std::time::Duration {
    const LOCK: std::time::Duration = std::time::Duration::from_secs(65);
    #[cfg(feature = "proof")]
    const VARIABLE: &str = "FIELDBRIDGE_LOCK_MS";
    #[cfg(feature = "proof")]
    if let Some(told) = std::env::var(VARIABLE).ok().and_then(|millis| millis.parse().ok()) {
        return std::time::Duration::from_millis(told);
    }
    LOCK
}
