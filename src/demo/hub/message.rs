//! What passes through the hub: messages to devices, telemetry from them, feedback to the sender.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{json, Value as Json};

use crate::time::Timestamp;

/// A message's number at the hub, in the order of sending. MQTT does not show it to the device.
pub type Seq = u64;

/// Which outcomes the sender wants to hear of (`iothub-ack`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ack {
    /// None.
    #[default]
    None,
    /// Completion.
    Positive,
    /// Every other end.
    Negative,
    /// Every end.
    Full,
}

impl Ack {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Ack::None => "none",
            Ack::Positive => "positive",
            Ack::Negative => "negative",
            Ack::Full => "full",
        }
    }

    pub(super) fn wants(self, status: Status) -> bool {
        match self {
            Ack::None => false,
            Ack::Positive => status == Status::Success,
            Ack::Negative => status != Status::Success,
            Ack::Full => true,
        }
    }
}

/// A cloud-to-device message as its sender gives it.
#[derive(Debug, Clone, Default)]
pub struct C2d {
    /// `$.mid`; the hub does not make one up.
    pub message_id: Option<String>,
    /// `$.cid`
    pub correlation_id: Option<String>,
    /// `$.uid`
    pub user_id: Option<String>,
    /// `$.ct`
    pub content_type: Option<String>,
    /// `$.ce`
    pub content_encoding: Option<String>,
    /// Application properties, in order. Null (`None`) and the empty text look different on the wire.
    pub properties: Vec<(String, Option<String>)>,
    /// The body; may be empty.
    pub body: Vec<u8>,
    /// Feedback wanted.
    pub ack: Ack,
    /// Its life, sent along as `$.exp`; without it the hub's default, which is not.
    pub ttl: Option<Duration>,
    /// The property bag to put into the topic, as it is, in place of an encoding of the above.
    pub bag: Option<String>,
    /// The topic, as it is: any bytes, for topics that no hub would send.
    pub topic: Option<Vec<u8>>,
}

impl C2d {
    /// A message with an id and a body.
    pub fn new(message_id: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        C2d { message_id: Some(message_id.into()), body: body.into(), ..C2d::default() }
    }

    /// The same with one more application property.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push((name.into(), Some(value.into())));
        self
    }

    /// The same with feedback wanted.
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// The same with a life of its own.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// The size that counts against the limit: the body, system property values, application property names and values.
    pub(super) fn size(&self) -> usize {
        let system =
            [&self.message_id, &self.correlation_id, &self.user_id, &self.content_type, &self.content_encoding];
        let system = system.into_iter().flatten().map(String::len).sum::<usize>();
        let application = self.properties.iter();
        let application = application.map(|(n, v)| n.len() + v.as_ref().map_or(0, String::len));
        self.body.len() + system + application.sum::<usize>()
    }
}

/// Why the hub did not take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// 404001 DeviceNotFound.
    #[error("the hub has no such device")]
    UnknownDevice,
    /// 403004 DeviceMaximumQueueDepthExceeded.
    #[error("the device's queue is full")]
    QueueFull,
    /// More than 64 KiB.
    #[error("the message has {0} bytes and may have 65536")]
    TooLarge(usize),
    /// More than 48 hours.
    #[error("a message may live 48 hours")]
    TtlTooLong,
    /// What the hub does with such properties is not known; MQTT can't carry them.
    #[error("the properties do not fit into a topic")]
    TopicTooLong,
}

/// How a message ended, as feedback says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Status {
    /// Completed by the device.
    Success,
    /// Its life ended in the queue.
    Expired,
    /// Abandoned too often; can't happen over MQTT.
    DeliveryCountExceeded,
    /// Rejected by the device, which MQTT can't, or discarded by the hub.
    Rejected,
    /// Removed by [`SimHub::purge`](super::SimHub::purge).
    Purged,
}

/// A feedback record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    /// The message's id, where it has one.
    pub original_message_id: Option<String>,
    /// How it ended.
    pub status: Status,
    /// The device it was for.
    pub device: String,
    /// When it ended.
    pub at: Timestamp,
}

impl Feedback {
    /// As it stands in a batch of the hub's.
    pub fn to_json(&self) -> Json {
        json!({
            "originalMessageId": self.original_message_id,
            "enqueuedTimeUtc": self.at.to_string(),
            "statusCode": self.status,
            "description": self.status,
            "deviceId": self.device,
            "deviceGenerationId": "1",
        })
    }
}

/// A device-to-cloud message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct D2c {
    /// The device that published it.
    pub device: String,
    /// The connection it came on.
    pub connection: u64,
    /// All properties, decoded, system properties (`$.…`) among them, in order.
    pub properties: Vec<(String, Option<String>)>,
    /// The body.
    pub body: Vec<u8>,
    /// When it was stored.
    pub at: Timestamp,
}

impl D2c {
    /// The value of a property; system properties by `$.cid` and the like.
    pub fn property(&self, name: &str) -> Option<&str> {
        let found = self.properties.iter().find(|(n, _)| n == name);
        found.and_then(|(_, v)| v.as_deref())
    }

    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or(Json::Null)
    }
    /// As the simulator's command line prints it; a body that is no UTF-8 is shown with replacement characters.
    pub fn to_json(&self) -> Json {
        json!({
            "deviceId": self.device,
            "connection": self.connection,
            "properties": self.properties.iter().cloned().collect::<BTreeMap<_, _>>(),
            "body": String::from_utf8_lossy(&self.body),
            "enqueuedTimeUtc": self.at.to_string(),
        })
    }
}
