//! HTTPS, by polling: the hub's REST interface for devices.
//!
//! Sources: the REST reference of IoT Hub (Microsoft), and what the vendor's device clients for it send and read:
//! azure-iot-device-http and azure-iot-http-base for Node, the ones in C and C#, and the extension of `az`. None of
//! them decodes the value of a header.
//!
//! `message` and `book` are pure: a message from an answer, and which delivery is settled next. `answers` says what a
//! status means, `client` asks, over connections that come and go, and `attachment` decides what is asked next.

mod answers;
#[cfg(any(test, feature = "proof"))]
pub mod any_bytes;
mod attachment;
mod book;
mod client;
mod message;
#[cfg(test)]
mod tests;

pub use attachment::Https;
