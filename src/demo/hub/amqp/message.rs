//! Messages, section by section. On purpose not shared with the daemon: a mistake in one encoder would hide behind the
//! same mistake in the other.

use serde_amqp::primitives::{OrderedMap, Symbol};
use serde_amqp::serde::{Deserialize, Serialize};
use serde_amqp::Value;

use crate::amqp::frame::written;
use crate::amqp::shape;
use crate::amqp::types::messaging::annotations::OwnedKey;
use crate::amqp::types::messaging::{
    AmqpValue, ApplicationProperties, Data, Header, MessageAnnotations, MessageId, Properties,
};
use crate::amqp::types::primitives::SimpleValue;
use crate::demo::hub::feedback::Batch;
use crate::demo::hub::message::{Ack, Feedback};
use crate::demo::hub::method::MethodCall;
use crate::demo::hub::queue::{LockToken, Queued};
use crate::demo::hub::Options;

/// What direct methods and their answers are known by.
const METHOD_NAME: &str = "IoThub-methodname";
const METHOD_STATUS: &str = "IoThub-status";
/// What feedback says of its content.
const FEEDBACK: &str = "application/vnd.microsoft.iothub.feedback.json";

/// A message that came.
#[derive(Debug, Default)]
pub(super) struct Received {
    pub properties: Properties,
    pub application: Vec<(String, Option<String>)>,
    pub body: Vec<u8>,
}

impl Received {
    /// The value of an application property.
    pub fn application(&self, name: &str) -> Option<&str> {
        self.application.iter().find(|(n, _)| n == name).and_then(|(_, value)| value.as_deref())
    }

    /// The properties, under the names that they have over MQTT.
    pub fn as_telemetry(&self) -> Vec<(String, Option<String>)> {
        let p = &self.properties;
        let symbol = |symbol: &Option<Symbol>| symbol.as_ref().map(|symbol| symbol.0.clone());
        let known = [
            ("$.mid", p.message_id.as_ref().map(id_text)),
            ("$.cid", p.correlation_id.as_ref().map(id_text)),
            ("$.uid", p.user_id.as_ref().map(|id| String::from_utf8_lossy(id).into_owned())),
            ("$.to", p.to.clone()),
            ("$.ct", symbol(&p.content_type)),
            ("$.ce", symbol(&p.content_encoding)),
        ];
        let known = known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Some(value?))));
        known.chain(self.application.iter().cloned()).collect()
    }
}

/// An id as text, whichever of its types it has.
pub(super) fn id_text(id: &MessageId) -> String {
    match id {
        MessageId::String(text) => text.clone(),
        MessageId::Ulong(number) => number.to_string(),
        MessageId::Uuid(uuid) => LockToken(*uuid.as_inner()).to_string(),
        MessageId::Binary(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn value_text(value: &SimpleValue) -> Option<String> {
    Some(match value {
        SimpleValue::Null => return None,
        SimpleValue::String(text) => text.clone(),
        SimpleValue::Symbol(symbol) => symbol.0.clone(),
        SimpleValue::Bool(value) => value.to_string(),
        SimpleValue::Ubyte(value) => value.to_string(),
        SimpleValue::Ushort(value) => value.to_string(),
        SimpleValue::Uint(value) => value.to_string(),
        SimpleValue::Ulong(value) => value.to_string(),
        SimpleValue::Byte(value) => value.to_string(),
        SimpleValue::Short(value) => value.to_string(),
        SimpleValue::Int(value) => value.to_string(),
        SimpleValue::Long(value) => value.to_string(),
        SimpleValue::Float(value) => value.to_string(),
        SimpleValue::Double(value) => value.to_string(),
        SimpleValue::Uuid(uuid) => LockToken(*uuid.as_inner()).to_string(),
        SimpleValue::Binary(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    })
}

fn named(name: &[u8]) -> Option<u64> {
    match name {
        b"amqp:properties:list" => Some(0x73),
        b"amqp:application-properties:map" => Some(0x74),
        b"amqp:data:binary" => Some(0x75),
        b"amqp:amqp-value:*" => Some(0x77),
        _ => None,
    }
}

/// Reads a message. The text of a value is its body; sections that the hub makes nothing of are passed over.
pub(super) fn decode(mut bytes: &[u8]) -> Result<Received, String> {
    fn read<'a, T: Deserialize<'a>>(section: &'a [u8]) -> Result<T, String> {
        serde_amqp::from_slice(section).map_err(|error| error.to_string())
    }
    let mut received = Received::default();
    while !bytes.is_empty() {
        let length = shape::length(bytes).map_err(|error| error.to_string())?;
        let (section, rest) = bytes.split_at(length);
        bytes = rest;
        match shape::descriptor(section, named) {
            Some(0x73) => received.properties = read(section)?,
            Some(0x74) => {
                let ApplicationProperties(map) = read(section)?;
                received.application = map.into_iter().map(|(name, value)| (name, value_text(&value))).collect();
            }
            Some(0x75) => received.body.extend_from_slice(&read::<Data>(section)?.0),
            Some(0x77) => match read::<AmqpValue<Value>>(section)?.0 {
                Value::String(text) => received.body = text.into_bytes(),
                Value::Binary(bytes) => received.body = bytes.into_vec(),
                _ => {}
            },
            _ => {}
        }
    }
    Ok(received)
}

pub(super) fn section(bytes: &mut Vec<u8>, value: &impl Serialize) {
    bytes.extend(written(value).expect("the hub's own messages can be written"));
}

/// An id as it goes out: as the type that one of the vendor's SDKs makes of what looks like a UUID, if so asked.
fn id(text: &str, options: &Options) -> MessageId {
    match LockToken::parse(text).filter(|_| options.uuid_message_ids && text.len() == 36) {
        Some(uuid) => MessageId::Uuid(uuid.0.into()),
        None => MessageId::String(text.to_owned()),
    }
}

/// A message to a device.
pub(super) fn delivery(device: &str, queued: &Queued, token: LockToken, options: &Options) -> Vec<u8> {
    let message = &queued.message;
    let mut bytes = Vec::new();
    section(&mut bytes, &Header { delivery_count: queued.deliveries, ..Header::default() });
    let seq = i64::try_from(queued.seq).expect("so many messages are never sent");
    let annotations = [
        ("x-opt-sequence-number", Value::Long(seq)),
        ("x-opt-lock-token", Value::Uuid(token.0.into())),
        ("iothub-enqueuedtime", Value::Timestamp(queued.enqueued.0.into())),
        ("iothub-deliverycount", Value::Uint(queued.deliveries)),
    ];
    let annotations: OrderedMap<OwnedKey, Value> =
        annotations.into_iter().map(|(name, value)| (OwnedKey::from(name), value)).collect();
    section(&mut bytes, &MessageAnnotations(annotations));
    let has_expiry = message.ttl.is_some() || options.bag.always_exp;
    let properties = Properties {
        message_id: message.message_id.as_deref().map(|text| id(text, options)),
        user_id: message.user_id.as_ref().map(|user| user.as_bytes().to_vec().into()),
        to: Some(format!("/devices/{device}/messages/devicebound")),
        correlation_id: message.correlation_id.as_deref().map(|text| id(text, options)),
        content_type: message.content_type.as_deref().map(Symbol::from),
        content_encoding: message.content_encoding.as_deref().map(Symbol::from),
        absolute_expiry_time: has_expiry.then(|| queued.expires.0.into()),
        ..Properties::default()
    };
    section(&mut bytes, &properties);
    let ack = (message.ack != Ack::None).then(|| ("iothub-ack".to_owned(), Some(message.ack.as_str().to_owned())));
    let application = ack.into_iter().chain(message.properties.iter().cloned());
    let simple = |value: Option<String>| value.map_or(SimpleValue::Null, SimpleValue::String);
    let application: OrderedMap<String, SimpleValue> = application.map(|(name, value)| (name, simple(value))).collect();
    if !application.is_empty() {
        section(&mut bytes, &ApplicationProperties(application));
    }
    section(&mut bytes, &Data(message.body.clone().into()));
    bytes
}

/// A direct method. Its id is a UUID, as the vendor's SDKs meet it: the connection, and the number on that.
pub(super) fn method(connection: u64, request: u64, call: &MethodCall) -> Vec<u8> {
    let mut bytes = Vec::new();
    let id = (u128::from(connection) << 64) | u128::from(request);
    let properties =
        Properties { correlation_id: Some(MessageId::Uuid(id.to_be_bytes().into())), ..Properties::default() };
    section(&mut bytes, &properties);
    let name = (METHOD_NAME.to_owned(), SimpleValue::String(call.name.clone()));
    section(&mut bytes, &ApplicationProperties([name].into_iter().collect()));
    section(&mut bytes, &Data(call.body().into()));
    bytes
}

/// The status of a device's answer to a direct method, and which it is of this connection. `None`: it has no status.
pub(super) fn method_answer(received: &Received, connection: u64) -> Option<(i32, Option<u64>)> {
    let status = received.application(METHOD_STATUS)?.parse().ok()?;
    let id = received.properties.correlation_id.as_ref().map(id_text);
    let id = id.and_then(|text| LockToken::parse(&text)).map(|token| u128::from_be_bytes(token.0));
    let own = id.filter(|id| id >> 64 == u128::from(connection));
    Some((status, own.map(|id| id as u64)))
}

/// A batch of feedback.
pub(super) fn feedback(host: &str, batch: &Batch) -> Vec<u8> {
    let mut bytes = Vec::new();
    section(&mut bytes, &Header { delivery_count: batch.deliveries, ..Header::default() });
    let properties = Properties {
        user_id: Some(host.as_bytes().to_vec().into()),
        content_type: Some(Symbol::from(FEEDBACK)),
        ..Properties::default()
    };
    section(&mut bytes, &properties);
    let list: serde_json::Value = batch.records.iter().map(Feedback::to_json).collect();
    section(&mut bytes, &Data(list.to_string().into_bytes().into()));
    bytes
}

/// The answer to a put-token.
pub(super) fn answer(request: &Properties, status: u16) -> Vec<u8> {
    let description = match status {
        200 => "OK",
        401 => "ErrorCode:IotHubUnauthorizedAccess;Unauthorized",
        _ => "ErrorCode:ServiceUnavailable;The service is not available",
    };
    reply(request, status, description, Value::Null)
}

/// The answer to a request.
pub(super) fn reply(request: &Properties, status: u16, description: &str, body: Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    let properties = Properties {
        to: request.reply_to.clone(),
        correlation_id: request.message_id.clone(),
        ..Properties::default()
    };
    section(&mut bytes, &properties);
    let application: OrderedMap<String, SimpleValue> = [
        ("status-code".to_owned(), SimpleValue::Int(status.into())),
        ("status-description".to_owned(), SimpleValue::String(description.to_owned())),
    ]
    .into_iter()
    .collect();
    section(&mut bytes, &ApplicationProperties(application));
    section(&mut bytes, &AmqpValue(body));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::hub::C2d;
    use crate::time::Timestamp;

    #[test]
    fn what_is_written_is_read_again() {
        let mut message = C2d::new("m 1", "body").ack(Ack::Full).property("command", "x");
        message.properties.push(("null".into(), None));
        let (enqueued, expires) = (Timestamp(1), Timestamp(2));
        let queued = Queued { seq: 7, message, enqueued, expires, deliveries: 1, lock: None, last_connection: None };
        let token = LockToken([7; 16]);
        let read = decode(&delivery("d", &queued, token, &Options::default())).unwrap();
        assert_eq!((read.body.as_slice(), read.properties.absolute_expiry_time), (&b"body"[..], None));
        assert_eq!(read.properties.message_id, Some(MessageId::String("m 1".into())));
        let pair = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
        let expected = [pair("iothub-ack", Some("full")), pair("command", Some("x")), pair("null", None)];
        assert_eq!(read.application, expected);
    }

    #[test]
    fn an_answer_to_a_method_is_known_by_the_id_that_it_came_with() {
        let read = decode(&method(7, 9, &MethodCall::new("reset", 1))).unwrap();
        assert_eq!((read.application(METHOD_NAME), &read.body[..]), (Some("reset"), &b"1"[..]));
        let mut answer = Received { properties: read.properties, ..Received::default() };
        assert_eq!(method_answer(&answer, 7), None);
        answer.application.push((METHOD_STATUS.into(), Some("200".into())));
        assert_eq!(method_answer(&answer, 7), Some((200, Some(9))));
        assert_eq!(method_answer(&answer, 8), Some((200, None)), "it is of another connection");
        answer.properties.correlation_id = Some(MessageId::String("00000000-0000-0007-0000-000000000009".into()));
        assert_eq!(method_answer(&answer, 7), Some((200, Some(9))));
    }

    #[test]
    fn an_id_that_looks_like_a_uuid_may_go_out_as_one() {
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        let uuid = id(text, &Options { uuid_message_ids: true, ..Options::default() });
        assert!(matches!(uuid, MessageId::Uuid(_)));
        assert_eq!(id_text(&uuid), text);
        assert_eq!(id(text, &Options::default()), MessageId::String(text.into()));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error() {
        assert!(decode(&[]).unwrap().body.is_empty());
        assert!(decode(&[0, 0x53, 0x75, 0xa0]).is_err());
        assert!(decode(b"HTTP/1.1").is_err());
    }
}
