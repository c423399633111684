//! What is asked of a bus, and how that ends. The five cases of [`Wire`] are the rows of the table "What an exchange
//! leads to" in the contract: everything that a line can do ends in one of them.

use std::time::Duration;

use tokio::time::Instant;

use crate::peripheral::exchange::{Answer, Refusal, Request};

/// How one exchange on a line ended. Reasons are sentences for the person on site.
#[derive(Debug, Clone, PartialEq)]
pub enum Wire {
    /// The peripheral answered this request.
    Answered(Answer),
    /// The peripheral, or a gateway before it, answered this request with a refusal.
    Refused(Refusal),
    /// Not one byte of the request left the gateway.
    NotSent(String),
    /// The request, or a part of it, was sent, and nothing came back in time.
    NoAnswer(String),
    /// The request was sent, and what came back is not its answer.
    BadReply(String),
}

/// A request with the place it goes to.
#[derive(Debug, Clone)]
pub struct Call {
    /// Modbus unit id; unused on a serial line.
    pub unit: u8,
    /// What is asked.
    pub request: Request,
    /// How long to wait for the answer; `None` takes the bus's `response_timeout`.
    pub timeout: Option<Duration>,
    /// From when on it is not to be sent any more: waiting for the line may take a while.
    pub not_after: Option<Instant>,
    /// Which look of a command at what it has written, from 1; 0 for the command itself. A look is answered by its own
    /// answer only: a late one to the look before shows what stood there then.
    pub look: u32,
}

impl Call {
    /// Whether it is not to be sent any more.
    pub fn is_too_late(&self) -> bool {
        self.not_after.is_some_and(|limit| Instant::now() >= limit)
    }
}
