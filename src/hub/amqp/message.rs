//! Messages to and from the hub by AMQP. Pure.
//!
//! Sources: "Communicate with your IoT hub by using the AMQP Protocol" (Microsoft) for names and addresses, its SDKs
//! for the types on the wire.
//!
//! Invariants
//! - Any bytes give a [`Message`]; what can't be understood is named in `malformed`, with what could be read (G8).

use crate::amqp::types::messaging::{MessageId, Properties};

use crate::amqp::frame::FrameError;
use crate::amqp::message::{self, number, text, Body};
use crate::amqp::Value;
use crate::command::excerpt::truncated;
use crate::command::Message;
use crate::complaint::said;
use crate::hub::properties::{parse_expiry, percent_encoded};
use crate::ledger::row::Event;
use crate::time::Timestamp;

/// Where a device's messages come from.
pub fn devicebound(device: &str) -> String {
    format!("/devices/{}/messages/devicebound", percent_encoded(device))
}

/// Where a device's events go.
pub fn events(device: &str) -> String {
    format!("/devices/{}/messages/events", percent_encoded(device))
}

/// What a device's token is of.
pub fn audience(host: &str, device: &str) -> String {
    percent_encoded(&format!("{host}/devices/{device}"))
}

/// Reads a C2D message. `is_whole`: no end of it was left out.
pub fn c2d(payload: &[u8], is_whole: bool) -> Message {
    let (read, why) = message::read(payload);
    let why = if is_whole { why } else { Some("it is larger than any message of a hub".into()) };
    let (expires_at, unread_expiry) = match read.expires_at.as_ref().map_or(Ok(None), time) {
        Ok(at) => (at, None),
        Err(unread) => (None, Some(unread)),
    };
    let said = |value: Option<&Value>| value.and_then(text).filter(|text| !text.is_empty());
    let told_count = read.annotation("iothub-deliverycount").and_then(number).and_then(|count| count.try_into().ok());
    Message {
        id: said(read.id.as_ref()),
        // An empty name is none: the body may have one.
        command: said(read.property("command")),
        expires_at,
        unread_expiry,
        content_encoding: said(read.content_encoding.as_ref()),
        correlation_id: said(read.correlation_id.as_ref()),
        sequence_number: read.annotation("x-opt-sequence-number").and_then(number),
        enqueued_at: read.annotation("iothub-enqueuedtime").and_then(|value| time(value).ok().flatten()),
        delivery_count: read.delivery_count.max(told_count),
        came: None,
        malformed: why.map(|why| format!("the message can't be read: {why}")),
        body: read.body,
    }
}

/// Reads a time: AMQP's own, milliseconds since 1970, or RFC 3339. 0 and nothing are none.
///
/// # Errors
/// What can't be read, as it came.
fn time(value: &Value) -> Result<Option<Timestamp>, String> {
    let at = match value {
        Value::String(at) => return parse_expiry(at),
        Value::Timestamp(at) => Some(at.milliseconds()),
        other => number(other).and_then(|at| i64::try_from(at).ok()),
    };
    let at = at.ok_or_else(|| truncated(&text(value).unwrap_or_default(), 60).to_owned())?;
    Ok(Some(Timestamp(at)).filter(|at| at.0 != 0))
}

/// Writes an event.
///
/// # Errors
/// It has no encoding.
pub fn event(event: &Event) -> Result<Vec<u8>, FrameError> {
    let properties = Properties {
        message_id: Some(MessageId::String(event.id.clone())),
        correlation_id: event.message_id.clone().map(MessageId::String),
        content_type: Some("application/json".into()),
        content_encoding: Some("utf-8".into()),
        ..Properties::default()
    };
    message::write(&properties, &[("fieldbridge", event.kind.as_str())], Body::Data(event.body.as_bytes()))
}

/// Where answers to tokens go.
pub(super) const REPLY_TO: &str = "cbs";

/// Writes the request that shows a token, which is a secret.
///
/// # Errors
/// It has no encoding.
pub(super) fn put_token(id: &str, of: &str, token: &str) -> Result<Vec<u8>, FrameError> {
    let properties = Properties {
        message_id: Some(MessageId::String(id.to_owned())),
        to: Some("$cbs".to_owned()),
        reply_to: Some(REPLY_TO.to_owned()),
        ..Properties::default()
    };
    let application = [("operation", "put-token"), ("type", "servicebus.windows.net:sastoken"), ("name", of)];
    message::write(&properties, &application, Body::Text(token))
}

/// What the hub says to a token.
pub(super) struct Answer {
    /// The id of the request.
    pub(super) to: String,
    /// As in HTTP.
    pub(super) status: u32,
    /// What it says beside, in bounded length.
    pub(super) description: String,
}

/// Reads what the hub says to a token, if that is what it is.
pub(super) fn read_answer(payload: &[u8]) -> Option<Answer> {
    let (read, _) = message::read(payload);
    let to = read.correlation_id.as_ref().and_then(text)?;
    let status = read.property("status-code").and_then(number)?.try_into().ok()?;
    let description = read.property("status-description").and_then(text).unwrap_or_default();
    Some(Answer { to, status, description: said(&description, 200) })
}

#[cfg(test)]
mod tests {
    use crate::amqp::frame::written;
    use crate::amqp::primitives::{OrderedMap, Symbol, Timestamp as AmqpTimestamp};

    use super::*;
    use crate::ledger::row::EventKind;

    fn section(code: u8, value: &Value) -> Vec<u8> {
        [vec![0, 0x53, code], written(value).unwrap()].concat()
    }

    fn map(pairs: &[(&str, Value)]) -> Value {
        let mut map = OrderedMap::new();
        for (name, value) in pairs {
            map.insert(Value::Symbol(Symbol::from(*name)), value.clone());
        }
        Value::Map(map)
    }

    #[test]
    fn a_message_is_read_with_all_that_the_hub_says_of_it() {
        let text = |text: &str| Value::String(text.into());
        let expiry = Value::Timestamp(AmqpTimestamp::from_milliseconds(1_800_000_000_000));
        let properties = Value::List(vec![
            text("m-1"),
            Value::Null,
            text("/devices/d/messages/devicebound"),
            Value::Null,
            Value::Null,
            Value::Binary(b"corr".to_vec().into()),
            Value::Symbol(Symbol::from("application/json")),
            Value::Symbol(Symbol::from("utf-16")),
            expiry,
        ]);
        let annotations = map(&[
            ("x-opt-sequence-number", Value::Long(77)),
            ("iothub-enqueuedtime", Value::Timestamp(AmqpTimestamp::from_milliseconds(1_700_000_000_001))),
            ("iothub-deliverycount", Value::Ubyte(3)),
        ]);
        let application = map(&[("iothub-ack", text("full")), ("command", text("set"))]);
        let data = Value::Binary(b"12.5".to_vec().into());
        let payload = [
            section(0x72, &annotations),
            section(0x73, &properties),
            section(0x74, &application),
            section(0x75, &data),
        ];
        let message = c2d(&payload.concat(), true);
        let expected = Message {
            id: Some("m-1".into()),
            command: Some("set".into()),
            expires_at: Some(Timestamp(1_800_000_000_000)),
            content_encoding: Some("utf-16".into()),
            correlation_id: Some("corr".into()),
            sequence_number: Some(77),
            enqueued_at: Some(Timestamp(1_700_000_000_001)),
            delivery_count: Some(3),
            body: b"12.5".to_vec(),
            ..Message::default()
        };
        assert_eq!(message, expected);
    }

    #[test]
    fn what_can_not_be_read_is_a_message_still_and_says_so() {
        let properties = section(0x73, &Value::List(vec![Value::String("m".into())]));
        let message = c2d(&[&properties[..], b"\xff\xff"].concat(), true);
        assert_eq!(message.id.as_deref(), Some("m"));
        assert!(message.malformed.unwrap().contains("can't be read"));
        assert!(c2d(&properties, false).malformed.unwrap().contains("larger"));
        assert!(c2d(b"", true).malformed.is_none());
        let mut fields = vec![Value::Null; 8];
        fields.push(Value::String("soon".into()));
        let message = c2d(&section(0x73, &Value::List(fields)), true);
        assert_eq!((message.expires_at, message.unread_expiry.as_deref()), (None, Some("soon")));
    }

    #[test]
    fn a_result_event_is_correlated_by_the_message_id() {
        let event = Event {
            kind: EventKind::Result,
            seq: 1,
            id: "e-1".into(),
            message_id: Some("My Message/ID&".into()),
            body: "{}".into(),
        };
        let (read, why) = message::read(&super::event(&event).unwrap());
        let shown = |value: Option<&Value>| value.and_then(text);
        assert_eq!((shown(read.id.as_ref()).as_deref(), why), (Some("e-1"), None));
        assert_eq!(shown(read.correlation_id.as_ref()).as_deref(), Some("My Message/ID&"));
        assert_eq!(shown(read.content_type.as_ref()).as_deref(), Some("application/json"));
        assert_eq!(shown(read.content_encoding.as_ref()).as_deref(), Some("utf-8"));
        assert_eq!(shown(read.property("fieldbridge")).as_deref(), Some("command-result"));
        assert_eq!(read.body, b"{}");
        let event = Event { message_id: None, ..event };
        assert_eq!(message::read(&super::event(&event).unwrap()).0.correlation_id, None);
    }

    #[test]
    fn addresses_take_any_device_id() {
        assert_eq!(devicebound("pump 7#a"), "/devices/pump%207%23a/messages/devicebound");
        assert_eq!(events("d"), "/devices/d/messages/events");
        assert_eq!(audience("h.azure-devices.net", "d%"), "h.azure-devices.net%2Fdevices%2Fd%25");
    }

    #[test]
    fn an_answer_to_a_token_never_repeats_it() {
        let properties =
            section(0x73, &Value::List([vec![Value::Null; 5], vec![Value::String("put-token-1".into())]].concat()));
        let why = "bad\r\nSharedAccessSignature sr=h&sig=secret";
        let said = map(&[("status-code", Value::Int(401)), ("status-description", Value::String(why.into()))]);
        let answer = read_answer(&[properties, section(0x74, &said)].concat()).unwrap();
        assert_eq!((answer.to.as_str(), answer.status, answer.description.as_str()), ("put-token-1", 401, "bad"));
        assert!(read_answer(b"anything").is_none());
    }
}
