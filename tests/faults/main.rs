//! The real process while everything around it goes wrong, and how large it becomes. Proves G1 to G11 and G16. These
//! tests mostly wait.
//!
//! - `chaos`, `kill`, `power_cut`, `watchdog`: the process, its network, its disk and its peripherals fail.
//! - `clock`, `network`: time and names are not what they should be.
//! - `load`, `memory`, `soak`: a whole site, in little memory, for long.
//! - `syscalls`: what the kernel was asked to do, and in which order.

#![allow(clippy::unwrap_used)] // clippy knows only functions that are marked as tests

#[path = "../support/mod.rs"]
mod support;

mod chaos;
mod clock;
mod kill;
mod load;
mod memory;
mod network;
mod power_cut;
mod soak;
mod syscalls;
#[cfg(feature = "proof")]
mod watchdog;
