//! The Device Provisioning Service: which hub a device belongs to, and the keys of devices that enrol as a group.
//!
//! [`registration`] knows what is asked and what answers mean, [`turns`] when; both decide without I/O. `client` asks,
//! over HTTPS alone, which passes where the hub's other protocols do; [`book`] remembers.
//!
//! Invariants
//! - What was assigned is remembered over restarts: without the service, devices connect as before.
//! - The key of a group, which makes the keys of all its devices, is never on a gateway. It is used by
//!   `fieldbridge derive-keys`, on the PC of whoever has it.

#[cfg(any(test, feature = "proof"))]
pub mod any_bytes;
pub mod book;
#[cfg(feature = "https")]
pub mod client;
pub mod group;
pub mod registration;
pub mod turns;
