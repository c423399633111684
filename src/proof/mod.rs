//! What the proof of the guarantees needs inside of the program: places to crash at, and bytes as a source of choices.
//! A release has none of it: there a crash point is nothing.

pub mod crash;

#[cfg(any(test, feature = "proof"))]
pub mod bytes;
