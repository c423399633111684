//! What a message asks for and what comes of it: parsing, decisions and outcomes, all pure.

pub mod decide;
pub mod message;
pub mod outcome;
#[cfg(any(test, feature = "proof"))]
pub mod properties;

pub use message::{Message, Order};
pub use outcome::{Code, Fault, Outcome, State};
