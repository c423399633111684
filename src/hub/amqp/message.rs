//! Messages to and from the hub by AMQP. Pure.
//!
//! Sources: "Communicate with your IoT hub by using the AMQP Protocol" (Microsoft) for names and addresses, its SDKs
//! for the types on the wire.
//!
//! Invariants
//! - Any bytes give a [`Message`]; what can't be understood is named in `malformed`, with what could be read (G8).

use crate::amqp::types::messaging::{MessageId, Properties};
use crate::amqp::types::primitives::SimpleValue;

use crate::amqp::frame::FrameError;
use crate::amqp::message::{self, number, text, Body};
use crate::amqp::Value;
use crate::command::excerpt::truncated;
use crate::command::outcome::{Code, Fault};
use crate::command::{self, Message, Method};
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

/// Where calls of a device's methods come from, and where their answers go.
pub fn methods(device: &str) -> String {
    format!("/devices/{}/methods/devicebound", percent_encoded(device))
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

/// What a call names its method by, and an answer its status (IoT Hub's SDKs).
const METHOD_NAME: &str = "IoThub-methodname";
const METHOD_STATUS: &str = "IoThub-status";

/// Longest id of a call that is answered to, in bytes. The hub's have sixteen.
const CALL_ID_BYTES_MAX: usize = 128;

/// Reads a call of a direct method: the id that it is answered under, as [`answer`] takes it, and what is called.
/// `is_whole`: no end of it was left out.
///
/// # Errors
/// Why nobody can answer it.
pub fn called(payload: &[u8], is_whole: bool) -> Result<(Vec<u8>, Method), &'static str> {
    let (read, why) = message::read(payload);
    let id =
        read.correlation_id.as_ref().and_then(id_bytes).ok_or("it has no correlation id that can be answered to")?;
    let name = read.property(METHOD_NAME).and_then(text).filter(|name| !name.is_empty());
    let unread = match (is_whole, why) {
        (false, _) => Some(Fault::new(Code::TooLarge, "the call is larger than any of a hub")),
        (true, Some(why)) => Some(Fault::new(Code::BadValue, format!("the call can't be read: {why}"))),
        (true, None) => None,
    };
    Ok((id, Method { name: name.ok_or("it names no method")?, payload: read.body, unread }))
}

/// Writes the answer to a call with this id, which is said in the type that it came in.
///
/// # Errors
/// It has no encoding, or the id is none that [`called`] has given.
pub fn answer(id: &[u8], answer: &command::Answer) -> Result<Vec<u8>, FrameError> {
    let id = id_of(id).ok_or_else(|| FrameError::Malformed("an answer to no call".into()))?;
    let properties = Properties { correlation_id: Some(id), ..Properties::default() };
    let status = [(METHOD_STATUS, SimpleValue::Int(answer.status.into()))];
    message::write_values(&properties, status, Body::Data(answer.body.as_bytes()))
}

/// An id of any of the types that it may have ("Messaging", 3.2.11), as bytes of our own: its type, and what it is.
fn id_bytes(id: &Value) -> Option<Vec<u8>> {
    let (kind, id) = match id {
        Value::String(text) => (b's', text.as_bytes()),
        Value::Ulong(number) => (b'n', &number.to_be_bytes()[..]),
        Value::Uuid(uuid) => (b'u', &uuid.as_inner()[..]),
        Value::Binary(bytes) => (b'b', &bytes[..]),
        _ => return None,
    };
    (!id.is_empty() && id.len() <= CALL_ID_BYTES_MAX).then(|| [&[kind], id].concat())
}

fn id_of(bytes: &[u8]) -> Option<MessageId> {
    let (kind, id) = bytes.split_first()?;
    Some(match kind {
        b's' => MessageId::String(String::from_utf8(id.to_vec()).ok()?),
        b'n' => MessageId::Ulong(u64::from_be_bytes(id.try_into().ok()?)),
        b'u' => MessageId::Uuid(<[u8; 16]>::try_from(id).ok()?.into()),
        b'b' => MessageId::Binary(id.to_vec().into()),
        _ => return None,
    })
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

    fn call(id: Value, name: &str, body: &[u8]) -> Vec<u8> {
        let fields = [vec![Value::Null; 5], vec![id]].concat();
        let name = map(&[("IoThub-methodname", Value::String(name.into()))]);
        [section(0x73, &Value::List(fields)), section(0x74, &name), body.to_vec()].concat()
    }

    fn data(bytes: &[u8]) -> Vec<u8> {
        section(0x75, &Value::Binary(bytes.to_vec().into()))
    }

    #[test]
    fn a_call_is_answered_under_the_id_that_it_came_with_in_its_own_type() {
        for id in [
            Value::Uuid([7; 16].into()),
            Value::String("r-1 ü".into()),
            Value::Ulong(u64::MAX),
            Value::Binary(b"\xff\x00".to_vec().into()),
        ] {
            let (own, method) = called(&call(id.clone(), "set-speed", &data(b"42.5")), true).unwrap();
            assert_eq!(method, Method { name: "set-speed".into(), payload: b"42.5".to_vec(), unread: None });
            let said = command::Answer { status: 404, body: "{}".into() };
            let (read, why) = message::read(&answer(&own, &said).unwrap());
            assert_eq!((&read.correlation_id, why), (&Some(id), None));
            assert_eq!((read.property("IoThub-status"), &read.body[..]), (Some(&Value::Int(404)), &b"{}"[..]));
        }
        assert!(answer(b"x", &command::Answer { status: 200, body: "{}".into() }).is_err());
    }

    #[test]
    fn a_call_that_names_no_method_or_nobody_to_answer_to_can_not_be_answered() {
        let id = || Value::String("r-1".into());
        for (id, name) in
            [(Value::Null, "set"), (Value::Bool(true), "set"), (Value::String("".into()), "set"), (id(), "")]
        {
            assert!(called(&call(id, name, b""), true).is_err());
        }
        assert!(called(&call(Value::String("r".repeat(CALL_ID_BYTES_MAX + 1)), "set", b""), true).is_err());
        assert!(called(b"anything", true).is_err() && called(b"", true).is_err());
        assert_eq!(called(&call(id(), "set", b""), true).unwrap().1.payload, b"");
    }

    #[test]
    fn what_can_not_be_read_of_a_call_is_refused_and_not_done_as_far_as_it_could_be_read() {
        let id = || Value::String("r-1".into());
        let joined = called(&call(id(), "set", &[data(b"4"), data(b"2")].concat()), true).unwrap().1;
        assert_eq!((&joined.payload[..], joined.unread), (&b"42"[..], None));
        let cut = &call(id(), "set", &[data(b"4"), data(b"2")].concat());
        for (bytes, is_whole, code) in [
            (&cut[..cut.len() - 1], true, Code::BadValue),
            (&cut[..cut.len() - 1], false, Code::TooLarge),
            (&call(id(), "set", &section(0x76, &Value::List(vec![]))), true, Code::BadValue),
        ] {
            let gist = called(bytes, is_whole).unwrap().1.condense();
            assert_eq!((gist.value, gist.fault.map(|fault| fault.code)), (None, Some(code)));
        }
    }

    #[test]
    fn addresses_take_any_device_id() {
        assert_eq!(methods("pump 7#a"), "/devices/pump%207%23a/methods/devicebound");
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
