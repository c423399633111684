//! The Device Provisioning Service: which hub a device belongs to, and the keys of devices that enrol as a group.
//!
//! Invariant: the key of a group, which makes the keys of all its devices, is never on a gateway. It is used by
//! `fieldbridge derive-keys`, on the PC of whoever has it.

pub mod group;
