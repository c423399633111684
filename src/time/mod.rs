//! Time: what a point of it is, the only clock that is read, and whether that clock can be believed.

mod clock;
#[cfg(feature = "proof")]
pub mod simulated;
mod stamp;
pub mod trust;

pub use stamp::{Timestamp, EARLIEST_BELIEVABLE};
