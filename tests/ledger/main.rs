//! The ledger, and what is decided by it. Proves G1 to G4, G7 to G10, G15 and G16 as far as they are the ledger's.
//!
//! - `decisions`: what a row and the wire lead to, exhaustively.
//! - `on_disk`, `model`, `life`, `migration`, `scale`: the library's ledger on a real disk.
//! - `proven`, `full_disk`, `read_only`, `card`: the built daemon's, on disks that are small, sick or slow.

#![allow(clippy::unwrap_used)] // clippy knows only functions that are marked as tests

#[path = "../support/mod.rs"]
mod support;

mod card;
mod decisions;
mod full_disk;
#[cfg(feature = "proof")]
mod life;
#[cfg(feature = "proof")]
mod migration;
mod model;
mod on_disk;
mod proven;
mod read_only;
mod scale;
