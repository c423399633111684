//! What the hub's state knows of AMQP connections: whose tokens were shown on them, and what they are told to do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::device::Line;
use crate::time::Timestamp;

pub(super) const UNAUTHORIZED: &str = "amqp:unauthorized-access";
pub(super) const STOLEN: &str = "amqp:link:stolen";

/// Which links of a connection are meant.
#[derive(Debug, Clone)]
pub(super) enum Which {
    /// That with this number.
    Link(u64),
    /// Those that have this address at the hub's end.
    Address(String),
}

/// Links that are to be detached, and with which condition.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub which: Which,
    pub condition: String,
}

/// What the back end may do on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Right {
    /// Send to devices, and receive feedback.
    Serve,
    /// Read what devices have sent.
    Read,
}

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub line: Arc<Line>,
    /// Until when each device's token counts.
    pub tokens: BTreeMap<String, Timestamp>,
    /// Until when the back end may do what.
    pub rights: BTreeMap<Right, Timestamp>,
    pub orders: VecDeque<Order>,
    /// Devices that may have something to receive.
    pub due: BTreeSet<String>,
    /// A token is over.
    pub has_expired: bool,
    /// Bytes to send as they are.
    pub injected: VecDeque<Vec<u8>>,
    /// Feedback or events go over it.
    pub listens: bool,
}
