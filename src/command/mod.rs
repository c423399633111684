//! What a message asks for and what comes of it: parsing, decisions and outcomes, all pure.

#[cfg(any(test, feature = "proof"))]
pub mod any_bytes;
mod deadline;
pub mod decide;
pub mod encoding;
pub mod envelope;
pub mod excerpt;
pub mod message;
pub mod method;
pub mod newest;
pub mod outcome;
pub mod twin;

pub use envelope::Envelope;
pub use message::{Form, Message, Order};
pub use method::{Answer, Method, STATUSES};
pub use outcome::{Code, Fault, Outcome, State};
