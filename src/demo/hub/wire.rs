//! The wire log: what happened on which connection, in order.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::{json, Value as Json};
use tokio::time::Instant;

use super::message::Seq;

/// What a PUBACK did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It completed its message.
    Completed,
    /// Its message's lock had ended.
    Late,
    /// This connection has no such packet in flight, or over AMQP no such delivery: a client that sends one may
    /// complete what it never handled. Over HTTPS no such lock was ever given out, by which nothing can be completed.
    Unknown,
    /// Its lock was given to another device.
    Foreign,
    /// It overtook an older one, and that is not accepted.
    OutOfOrder,
    /// It was lost on purpose.
    Lost,
    /// It rejected its message; not over MQTT.
    Rejected,
    /// It gave its message back; not over MQTT.
    Abandoned,
}

/// What a receiver does with a message over AMQP and HTTPS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Settlement {
    /// It is done with (AMQP: accepted).
    Complete,
    /// It is not wanted (AMQP: rejected).
    Reject,
    /// It is to come again (AMQP: released).
    Abandon,
}

impl From<Settlement> for Effect {
    fn from(settlement: Settlement) -> Self {
        match settlement {
            Settlement::Complete => Effect::Completed,
            Settlement::Reject => Effect::Rejected,
            Settlement::Abandon => Effect::Abandoned,
        }
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The client said DISCONNECT.
    Disconnect,
    /// The client was gone without a word.
    Gone,
    /// A test cut it.
    Cut,
    /// A [`Fault`](super::Fault) cut it.
    Fault,
    /// Another connection with the same client id came.
    Kicked,
    /// Nothing was heard for 1.5 times the keep-alive.
    KeepAlive,
    /// Its token expired.
    TokenExpired,
    /// The client did what the hub does not allow.
    Violation(&'static str),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Wire {
    /// CONNACK 0.
    Connected {
        /// As CONNECT had it.
        clean_session: bool,
        /// As CONNACK had it.
        session_present: bool,
    },
    /// Any other CONNACK.
    Refused {
        /// Its code.
        code: u8,
        /// What the hub would never say.
        reason: String,
    },
    /// SUBSCRIBE, one entry for each filter.
    Subscribed {
        /// The filter.
        filter: String,
        /// What was granted.
        qos: u8,
    },
    /// UNSUBSCRIBE.
    Unsubscribed {
        /// The filter.
        filter: String,
    },
    /// A delivery to the device.
    Publish {
        /// The packet id; 0 with QoS 0.
        pkid: u16,
        /// The message.
        seq: Seq,
        /// Its id.
        message_id: Option<String>,
        /// As on the wire.
        dup: bool,
    },
    /// A PUBACK from the device.
    Puback {
        /// The packet id.
        pkid: u16,
        /// The message, where one was in flight.
        seq: Option<Seq>,
        /// What it did.
        effect: Effect,
    },
    /// Telemetry from the device.
    Telemetry {
        /// The packet id; 0 with QoS 0.
        pkid: u16,
        /// Whether it was stored.
        stored: bool,
    },
    /// A direct method went to the device.
    Called {
        /// Its number on the connection.
        request: u64,
        /// Its name.
        method: String,
    },
    /// The device's answer to one.
    Answered {
        /// Which; `None` where the device's words are no number.
        request: Option<u64>,
        /// What the device made of it.
        status: i32,
        /// Whether the call was waiting for it.
        known: bool,
    },
    /// A request of the device for its twin was answered, or its answer lost.
    Twin {
        /// What was asked for.
        what: String,
        /// The status.
        status: u16,
    },
    /// PINGREQ.
    Ping,
    /// A request over HTTPS was answered.
    Request {
        /// The method and the path, without lock tokens and the query.
        what: String,
        /// The status.
        status: u16,
    },
    /// A token was shown on an AMQP connection, or the connection's credentials in SASL.
    Token {
        /// What the hub answered: 200, or 401.
        status: u16,
        /// Where it is 401, what the hub would never say.
        reason: String,
    },
    /// An AMQP link was attached and stays.
    Attached {
        /// The hub's address at its end.
        address: String,
    },
    /// An AMQP link is gone.
    Detached {
        /// The hub's address at its end.
        address: String,
        /// The condition with which the hub ended it; `None` where the client did.
        condition: Option<String>,
    },
    /// A delivery to the device, over AMQP or HTTPS.
    Delivered {
        /// The message.
        seq: Seq,
        /// Its id.
        message_id: Option<String>,
        /// How often it was abandoned before.
        deliveries: u32,
    },
    /// A receiver settled a message, over AMQP or HTTPS.
    Settled {
        /// The message, where its lock was known.
        seq: Option<Seq>,
        /// What it wanted.
        settlement: Settlement,
        /// What that did.
        effect: Effect,
    },
    /// The end of the connection.
    Closed {
        /// Why.
        end: End,
    },
}

/// One line of the wire log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireEvent {
    /// When.
    pub at: Instant,
    /// The connection's number, counted from 1 over all devices.
    pub connection: u64,
    /// The device, or what the client called itself.
    pub device: String,
    /// What.
    pub what: Wire,
}

impl WireEvent {
    /// As the simulator's command line prints it.
    pub fn to_json(&self) -> Json {
        json!({"connection": self.connection, "deviceId": self.device, "what": self.what})
    }
}

/// The most records of a kind that are kept. Older ones go, so that a hub may run for days.
const KEPT: usize = 1 << 16;

/// Records, the newest [`KEPT`] of them, numbered from 0 over all that ever were.
#[derive(Debug)]
pub(super) struct Ring<T> {
    records: VecDeque<T>,
    /// How many went before the first of them.
    gone: u64,
}

impl<T> Ring<T> {
    pub fn new() -> Self {
        Ring { records: VecDeque::new(), gone: 0 }
    }

    pub fn push(&mut self, record: T) {
        if self.records.len() == KEPT {
            self.records.pop_front();
            self.gone += 1;
        }
        self.records.push_back(record);
    }

    pub fn take(&mut self) -> Vec<T> {
        self.gone = self.end();
        self.records.drain(..).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.records.iter()
    }

    /// The number that the next record will have.
    pub fn end(&self) -> u64 {
        self.gone + self.records.len() as u64
    }

    /// The records from this number on that are still there, each with its own.
    pub fn from(&self, number: u64) -> impl Iterator<Item = (u64, &T)> {
        let skipped = usize::try_from(number.saturating_sub(self.gone)).unwrap_or(usize::MAX);
        let rest = self.records.range(skipped.min(self.records.len())..);
        (number.max(self.gone)..).zip(rest)
    }
}
