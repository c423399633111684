//! A message to a device, as its sender gives it, and what the hub says of it.

use std::time::Duration;

use super::BackendError;
use crate::amqp::engine::{Outcome, Problem};
use crate::amqp::message::{write, Body};
use crate::amqp::primitives::{Binary, Symbol, Timestamp as Milliseconds};
use crate::amqp::types::messaging::{MessageId, Properties};
use crate::hub::amqp::message::devicebound;
use crate::time::Timestamp;

/// Longest life of a message: the hub keeps none longer.
pub const TTL_MAX: Duration = Duration::from_secs(48 * 3600);
/// Longest message id, in characters.
pub const ID_CHARS_MAX: usize = 128;
/// Largest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Which ends of a message its sender wants to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ack {
    /// None.
    #[default]
    None,
    /// That it was completed.
    Positive,
    /// Every other end.
    Negative,
    /// Every end.
    Full,
}

impl Ack {
    /// Its word in the property `iothub-ack`.
    pub fn as_str(self) -> &'static str {
        match self {
            Ack::None => "none",
            Ack::Positive => "positive",
            Ack::Negative => "negative",
            Ack::Full => "full",
        }
    }
}

/// A message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// The device's id.
    pub device: String,
    /// Its id: a device may execute another message of the same id never.
    pub message_id: String,
    /// The sender's correlation id: it comes back in the result event.
    pub correlation_id: Option<String>,
    /// Who sends it.
    pub user_id: Option<String>,
    /// How long it may wait for the device.
    pub ttl: Option<Duration>,
    /// What the sender wants to hear of its end.
    pub ack: Ack,
    /// The application properties.
    pub properties: Vec<(String, String)>,
    /// What its body is.
    pub content_type: Option<String>,
    /// How its body is encoded.
    pub content_encoding: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// A new message id: a random UUID (RFC 9562, version 4).
pub fn new_id() -> String {
    let random = fastrand::u128(..);
    let number = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{number:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

impl Outgoing {
    /// As it goes over AMQP.
    ///
    /// # Errors
    /// It is larger than the hub takes, or can't be written.
    pub(super) fn written(&self, now: Timestamp) -> Result<Vec<u8>, BackendError> {
        let properties = Properties {
            message_id: Some(MessageId::String(self.message_id.clone())),
            to: Some(devicebound(&self.device)),
            correlation_id: self.correlation_id.clone().map(MessageId::String),
            user_id: self.user_id.as_ref().map(|user| Binary::from(user.as_bytes().to_vec())),
            absolute_expiry_time: self.ttl.map(|ttl| Milliseconds::from_milliseconds(now.plus(ttl).0)),
            content_type: self.content_type.as_deref().map(Symbol::from),
            content_encoding: self.content_encoding.as_deref().map(Symbol::from),
            ..Properties::default()
        };
        let mut application: Vec<(&str, &str)> =
            self.properties.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if self.ack != Ack::None {
            application.push(("iothub-ack", self.ack.as_str()));
        }
        let bytes = write(&properties, &application, Body::Data(&self.body))
            .map_err(|error| BackendError::Refused(format!("the message can't be written: {error}")))?;
        match self.body.len() > MESSAGE_BYTES_MAX {
            true => Err(BackendError::Refused(format!(
                "the body has {} bytes, and a message to a device has at most {MESSAGE_BYTES_MAX}; send less",
                self.body.len()
            ))),
            false => Ok(bytes),
        }
    }

    /// What the hub's answer to it means.
    pub(super) fn judge(&self, outcome: Outcome) -> Result<(), BackendError> {
        let device = &self.device;
        let later = |why: String| {
            Err(BackendError::Unreachable(format!("the hub does not take the message now{why}; send it again later")))
        };
        let problem = match outcome {
            Outcome::Accepted | Outcome::Untold => return Ok(()),
            Outcome::Released => return later(String::new()),
            Outcome::Rejected(problem) => problem,
        };
        let Some(Problem { condition, description }) = problem else {
            return Err(BackendError::Refused("the hub does not take the message, and says nothing of why".into()));
        };
        let said = if description.is_empty() { String::new() } else { format!(" ({description})") };
        if is_passing(&condition) {
            return later(format!(": {condition}{said}"));
        }
        Err(BackendError::Refused(match condition.as_str() {
            "amqp:not-found" => format!("the hub has no device {device:?}{said}; check its id, capitals too"),
            "amqp:resource-limit-exceeded" => {
                format!(
                    "the queue of {device:?} is full{said}; it holds 50 messages: wait until the device has taken some"
                )
            }
            other => format!("the hub does not take the message: {other}{said}"),
        }))
    }
}

/// Whether a condition says only that the hub can't do it now.
fn is_passing(condition: &str) -> bool {
    let passing = ["com.microsoft:server-busy", "com.microsoft:timeout", "amqp:internal-error"];
    passing.contains(&condition) || condition.contains("throttled")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::message::{read, text};

    #[test]
    fn an_id_is_a_random_uuid() {
        let (one, other) = (new_id(), new_id());
        assert_ne!(one, other);
        let parts: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(&one[14..15], "4");
        assert!("89ab".contains(&one[19..20]), "{one}");
    }

    #[test]
    fn what_is_written_is_what_a_device_reads() {
        let outgoing = Outgoing {
            device: "pump 7".into(),
            message_id: "m-1".into(),
            correlation_id: Some("c".into()),
            user_id: Some("ops".into()),
            ttl: Some(Duration::from_secs(30)),
            ack: Ack::Full,
            properties: vec![("command".into(), "set".into())],
            content_type: Some("application/json".into()),
            body: b"12.5".to_vec(),
            ..Outgoing::default()
        };
        let (message, why) = read(&outgoing.written(Timestamp(1_000)).unwrap());
        assert_eq!(why, None);
        let shown = |value: Option<&crate::amqp::Value>| value.and_then(text);
        assert_eq!(shown(message.to.as_ref()).as_deref(), Some("/devices/pump%207/messages/devicebound"));
        assert_eq!(shown(message.id.as_ref()).as_deref(), Some("m-1"));
        assert_eq!(shown(message.correlation_id.as_ref()).as_deref(), Some("c"));
        assert_eq!(shown(message.property("command")).as_deref(), Some("set"));
        assert_eq!(shown(message.property("iothub-ack")).as_deref(), Some("full"));
        assert_eq!(message.expires_at, Some(crate::amqp::Value::Timestamp(Milliseconds::from_milliseconds(31_000))));
        assert_eq!(message.body, b"12.5");
        let large = Outgoing { body: vec![0; MESSAGE_BYTES_MAX + 1], ..outgoing };
        assert!(large.written(Timestamp(0)).unwrap_err().to_string().contains("65537"));
    }

    #[test]
    fn what_the_hub_does_not_take_says_why() {
        let outgoing = Outgoing { device: "d".into(), ..Outgoing::default() };
        let judged = |condition: &str, description: &str| {
            let problem = Problem { condition: condition.into(), description: description.into() };
            outgoing.judge(Outcome::Rejected(Some(problem))).unwrap_err()
        };
        let rejected = |condition: &str, description: &str| judged(condition, description).to_string();
        assert!(rejected("amqp:not-found", "").contains("no device \"d\""));
        assert!(rejected("amqp:resource-limit-exceeded", "403004").contains("full (403004)"));
        assert!(rejected("amqp:internal-error", "x").contains("amqp:internal-error (x)"));
        assert_eq!(outgoing.judge(Outcome::Accepted), Ok(()));
        assert!(matches!(judged("com.microsoft:argument-error", ""), BackendError::Refused(_)));
        // What passes is not the hub's no.
        let is_passing =
            |error: &BackendError| matches!(error, BackendError::Unreachable(why) if why.contains("later"));
        assert!(is_passing(&outgoing.judge(Outcome::Released).unwrap_err()));
        for condition in ["com.microsoft:server-busy", "amqp:internal-error", "com.microsoft:operation-throttled"] {
            assert!(is_passing(&judged(condition, "x")), "{condition}");
        }
    }
}
