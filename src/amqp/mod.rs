//! AMQP 1.0 (OASIS, ISO/IEC 19464), as far as IoT Hub uses it: frames, and the state of one connection. It knows
//! nothing of the hub, does no I/O and reads no clock, and serves either end.
//!
//! The encoding and the types are those of two libraries; which of two frames may follow the other, what is settled and
//! what a delivery is belongs to us (docs/DECISIONS.md).

pub mod engine;
pub mod frame;
pub mod message;
pub mod shape;

#[cfg(any(test, feature = "proof"))]
pub mod any_bytes;

pub use fe2o3_amqp_types as types;
pub use serde_amqp::{primitives, Value};
