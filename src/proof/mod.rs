//! What the proof of the guarantees needs inside of the program: places to crash at, and bytes as a source of choices.
//! A release has none of it: there a crash point is nothing.

pub mod crash;

#[cfg(any(test, feature = "proof"))]
pub mod bytes;

/// How long a hub keeps messages locked, where a test whose hub is quicker says so: in milliseconds, by the environment
/// variable `FIELDBRIDGE_LOCK_MS`.
pub fn lock_time() -> Option<std::time::Duration> {
    #[cfg(feature = "proof")]
    {
        const VARIABLE: &str = "FIELDBRIDGE_LOCK_MS";
        let told = std::env::var(VARIABLE).ok()?;
        told.parse().ok().map(std::time::Duration::from_millis)
    }
    #[cfg(not(feature = "proof"))]
    None
}
