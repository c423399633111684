//! The back end's half: sends commands to devices, and learns what became of them.
//!
//! [`Backend`] is the face of it for programs: [`Backend::connect`], then [`Backend::send`], [`Backend::wait_for`],
//! [`Backend::next_batch`]; examples/backend.rs shows it. [`method::call`] calls a direct method. `who` says by what
//! right, [`entra`] has tokens of Microsoft Entra, `connection` drives AMQP, `renewal` says when a token is due,
//! [`message`] is what is sent, [`feedback`] what comes back, `sentences` what is said of troubles. `command_line` has
//! the options of `fieldbridge send`, `call` and `feedback`, and `run` does what they say.
//!
//! Sources: "Send cloud-to-device messages" and "Communicate with your IoT hub by using the AMQP Protocol" (Microsoft),
//! and its SDK for services in Node.
//!
//! Invariants
//! - Feedback is one queue for the whole hub. Whoever waits for one record settles nothing until it ends, and then
//!   gives back what holds a record of somebody else's; but never so often that the hub would throw it away.
//! - No message, log line or `Debug` has a key or a token in it.

#[cfg(any(test, feature = "proof"))]
pub mod any_bytes;
pub mod command_line;
mod connection;
pub mod entra;
pub mod feedback;
pub mod message;
pub mod method;
mod renewal;
pub mod run;
mod sentences;
mod who;

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::timeout;

pub use connection::Backend;
pub use who::{Policy, Who};

use crate::config::{Proxy, TransportKind};

/// How long a message may take to be taken, the connection not counted.
const SEND_LIMIT: Duration = Duration::from_secs(60);

/// Where the hub is, and how it is reached.
#[derive(Debug, Clone)]
pub struct Place {
    /// [`TransportKind::Amqp`] or [`TransportKind::AmqpWs`]; direct methods go by HTTPS whatever stands here.
    pub transport: TransportKind,
    /// `HOST:PORT` to connect to in place of the hub's own.
    pub address: Option<String>,
    /// Trust anchors to use instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The proxy to go through.
    pub proxy: Option<Proxy>,
}

impl Default for Place {
    fn default() -> Place {
        Place { transport: TransportKind::Amqp, address: None, ca_file: None, proxy: None }
    }
}

/// Why something could not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// Nothing says by what right, or what does can't be used.
    #[error("{0}")]
    Nobody(String),
    /// The hub says no.
    #[error("{0}")]
    Refused(String),
    /// The hub can't be reached, or can't answer now.
    #[error("{0}")]
    Unreachable(String),
    /// Nobody knows whether the hub has the message: it may be sent again, under the same id.
    #[error("nobody knows whether the hub has the message: {0}")]
    Unknown(String),
}

/// What comes of something within a limit.
async fn within<T>(
    limit: Duration,
    work: impl std::future::Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        let seconds = limit.as_secs();
        Err(BackendError::Unreachable(format!(
            "the hub did not answer within {seconds} s; it may be throttling, try again"
        )))
    })
}
