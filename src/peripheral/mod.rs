//! What a device's commands mean on its bus: from an engineering value to a [`Request`], and from an
//! [`Answer`] back to an engineering value. Pure: no I/O, no clock.
//!
//! Invariants
//! - A request that leaves [`Command::prepare`] is complete and within the protocol's limits: nothing after it can
//!   find it malformed.
//! - A text value never reaches a line with a control character in it: a value can't smuggle in a second command.

pub mod registers;

use std::time::Duration;

use regex_lite::Regex;
use serde_json::Value as Json;

use crate::bus::wire::{Answer, Request};
use crate::command::outcome::Fault;
use registers::Point;

/// One configured command of a profile: the allow-list entry that a message's command name selects.
#[derive(Debug, Clone)]
pub struct Command {
    /// Its name in the configuration.
    pub name: String,
    /// What it does on the bus.
    pub action: Action,
    /// Whether repeating it is safe. Reads always are.
    pub idempotent: bool,
    /// Whether a write is read back and compared.
    pub verify: bool,
    /// A fixed value; the message then carries none.
    pub fixed: Option<Json>,
    /// Inclusive limits of the engineering value.
    pub range: Option<(f64, f64)>,
    /// Replaces the bus's `response_timeout`.
    pub timeout: Option<Duration>,
    /// The command must have reached the wire this long after its receipt.
    pub deadline: Duration,
}

/// What a command does on the bus.
#[derive(Debug, Clone)]
pub enum Action {
    /// Reads a point.
    Read(Point),
    /// Writes a point.
    Write(Point),
    /// Sends a line and understands the reply.
    Send(Template),
}

/// A line-protocol command.
#[derive(Debug, Clone)]
pub struct Template {
    /// What is sent; `{value}` stands for the message's value.
    pub send: String,
    /// The reply that confirms.
    pub expect: Option<Regex>,
    /// The reply that refuses.
    pub refuse: Option<Regex>,
}

/// A command with its value, ready for the wire.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// What is sent.
    pub request: Request,
    /// For a write with `verify`: the read whose answer must equal what was written.
    pub read_back: Option<Request>,
    /// For a write or a send with a value: the engineering value as it was really encoded.
    pub written: Option<Json>,
}
