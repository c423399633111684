//! AMQP 1.0, over streams of TLS or WebSockets: many identities on one connection.
//!
//! `pool` has the connections, `connection` drives one over a `wire`, a `handle` is what an identity has of it, `cbs`
//! shows tokens on it, `attachment` is one identity's part of it, `calls` its links for direct methods, [`message`]
//! reads and writes messages. What AMQP itself is, is in [`crate::amqp`].

#[cfg(any(test, feature = "proof"))]
pub mod any_bytes;
mod attachment;
mod calls;
pub(crate) mod cbs;
mod connection;
mod handle;
mod locked;
pub mod message;
mod pool;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

pub use cbs::IDENTITIES_MAX;
pub use pool::Amqp;
