//! MQTT 3.1.1: one connection for each identity. Nothing outside of it knows what a packet id is.

mod attachment;
pub mod connection;
mod ping;
pub mod session;
#[cfg(test)]
mod tests;
pub mod topic;

pub use attachment::Mqtt;
