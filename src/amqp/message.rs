//! Messages ("Messaging", 3.2): read leniently, whoever wrote them, and written. Pure.
//!
//! Invariants
//! - Any bytes give what could be read of them, and a sentence if that is not all (G8).
//! - Text that is none becomes `%XX`: two ids must not become one by being unreadable.

use fe2o3_amqp_types::messaging::{AmqpValue, ApplicationProperties, Data, Properties};
use fe2o3_amqp_types::primitives::SimpleValue;
use serde_amqp::primitives::OrderedMap;
use serde_amqp::Value;

use super::frame::{written, FrameError};
use super::shape;

/// Most sections of a message that are looked at.
const SECTIONS_MAX: usize = 1024;

const HEADER: u64 = 0x70;
const DELIVERY_ANNOTATIONS: u64 = 0x71;
const MESSAGE_ANNOTATIONS: u64 = 0x72;
const PROPERTIES: u64 = 0x73;
const APPLICATION_PROPERTIES: u64 = 0x74;
const DATA: u64 = 0x75;
const SEQUENCE: u64 = 0x76;
const VALUE: u64 = 0x77;
const FOOTER: u64 = 0x78;

/// A message as it came.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// How often it was delivered before.
    pub delivery_count: Option<u32>,
    /// What the peer says of it.
    pub annotations: Vec<(String, Value)>,
    /// Its id: text, a number, a UUID or bytes.
    pub id: Option<Value>,
    /// Whom it is to.
    pub to: Option<Value>,
    /// What it answers to: text, a number, a UUID or bytes.
    pub correlation_id: Option<Value>,
    /// What its body is.
    pub content_type: Option<Value>,
    /// How its body is encoded.
    pub content_encoding: Option<Value>,
    /// From when on it is worth nothing.
    pub expires_at: Option<Value>,
    /// What its sender says of it.
    pub application: Vec<(String, Value)>,
    /// Its body: the data sections, joined; or a text or bytes in place of them.
    pub body: Vec<u8>,
}

impl Message {
    /// What the peer says of it under this name.
    pub fn annotation(&self, name: &str) -> Option<&Value> {
        value_of(&self.annotations, name)
    }

    /// What its sender says of it under this name: the first, if there are several.
    pub fn property(&self, name: &str) -> Option<&Value> {
        value_of(&self.application, name)
    }
}

fn value_of<'a>(pairs: &'a [(String, Value)], name: &str) -> Option<&'a Value> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Reads a message: what could be read, and what is wrong with the rest, if anything.
pub fn read(bytes: &[u8]) -> (Message, Option<String>) {
    let mut message = Message::default();
    let why = take_all(&mut message, bytes).err();
    (message, why)
}

fn take_all(message: &mut Message, mut bytes: &[u8]) -> Result<(), String> {
    for _ in 0..SECTIONS_MAX {
        if bytes.is_empty() {
            return Ok(());
        }
        let length = shape::length(bytes).map_err(|error| error.to_string())?;
        let (section, rest) = bytes.split_at(length);
        let code = shape::descriptor(section, named).ok_or("a section that is not known")?;
        let value: Value = serde_amqp::from_slice(section).map_err(|error| error.to_string())?;
        let Value::Described(described) = value else { return Err("a section without a descriptor".into()) };
        take(message, code, described.value)?;
        bytes = rest;
    }
    Err(format!("it has more than {SECTIONS_MAX} sections"))
}

fn named(name: &[u8]) -> Option<u64> {
    Some(match name {
        b"amqp:header:list" => HEADER,
        b"amqp:delivery-annotations:map" => DELIVERY_ANNOTATIONS,
        b"amqp:message-annotations:map" => MESSAGE_ANNOTATIONS,
        b"amqp:properties:list" => PROPERTIES,
        b"amqp:application-properties:map" => APPLICATION_PROPERTIES,
        b"amqp:data:binary" => DATA,
        b"amqp:amqp-sequence:list" => SEQUENCE,
        b"amqp:amqp-value:*" => VALUE,
        b"amqp:footer:map" => FOOTER,
        _ => return None,
    })
}

fn take(message: &mut Message, code: u64, value: Value) -> Result<(), String> {
    match (code, value) {
        (HEADER, Value::List(fields)) => {
            message.delivery_count = fields.get(4).and_then(number).and_then(|count| count.try_into().ok());
        }
        (PROPERTIES, Value::List(fields)) => {
            let mut fields = fields.into_iter().map(|field| Some(field).filter(|field| *field != Value::Null));
            let mut field = |skipped: usize| fields.nth(skipped).flatten();
            message.id = field(0);
            message.to = field(1);
            message.correlation_id = field(2);
            message.content_type = field(0);
            message.content_encoding = field(0);
            message.expires_at = field(0);
        }
        (MESSAGE_ANNOTATIONS, Value::Map(map)) => message.annotations = pairs(map),
        (APPLICATION_PROPERTIES, Value::Map(map)) => message.application = pairs(map),
        (DATA, Value::Binary(data)) => message.body.extend_from_slice(&data),
        (VALUE, Value::Binary(data)) => message.body = data.into_vec(),
        (VALUE, Value::String(text)) => message.body = text.into_bytes(),
        (VALUE, Value::Null) => {}
        (VALUE, other) => message.body = text(&other).ok_or("its body is a value that is not text")?.into_bytes(),
        (SEQUENCE, _) => return Err("its body is a list, where bytes or text are expected".into()),
        (DELIVERY_ANNOTATIONS | FOOTER, _) => {}
        (HEADER | PROPERTIES | MESSAGE_ANNOTATIONS | APPLICATION_PROPERTIES | DATA, _) => {
            return Err("a section that is of another type than it must be".into());
        }
        _ => return Err("a section that is not known".into()),
    }
    Ok(())
}

fn pairs(map: OrderedMap<Value, Value>) -> Vec<(String, Value)> {
    map.into_inner().into_iter().filter_map(|(key, value)| Some((text(&key)?, value))).collect()
}

/// A value that is not negative.
pub fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Ubyte(number) => Some((*number).into()),
        Value::Ushort(number) => Some((*number).into()),
        Value::Uint(number) => Some((*number).into()),
        Value::Ulong(number) => Some(*number),
        Value::Byte(number) => (*number).try_into().ok(),
        Value::Short(number) => (*number).try_into().ok(),
        Value::Int(number) => (*number).try_into().ok(),
        Value::Long(number) => (*number).try_into().ok(),
        _ => None,
    }
}

/// A value as text: what is text, a UUID in its usual form, a number in decimal, bytes as text where they are some.
pub fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) => text.clone(),
        Value::Symbol(symbol) => symbol.0.clone(),
        Value::Uuid(uuid) => hyphenated(uuid.as_inner()),
        Value::Binary(bytes) => readable(bytes),
        Value::Bool(flag) => flag.to_string(),
        Value::Char(char) => char.to_string(),
        Value::Byte(number) => number.to_string(),
        Value::Short(number) => number.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Long(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        other => number(other)?.to_string(),
    })
}

fn hyphenated(uuid: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in uuid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn readable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("%{byte:02X}")));
    }
    text
}

/// The body of a message that is written.
pub enum Body<'a> {
    /// One data section.
    Data(&'a [u8]),
    /// A text as a value.
    Text(&'a str),
}

/// Writes a message.
///
/// # Errors
/// Something of it has no encoding.
pub fn write(properties: &Properties, application: &[(&str, &str)], body: Body) -> Result<Vec<u8>, FrameError> {
    let texts = application.iter().map(|(name, value)| (*name, SimpleValue::String((*value).to_owned())));
    write_values(properties, texts, body)
}

/// The same, with application properties that need be no texts.
///
/// # Errors
/// Something of it has no encoding.
pub fn write_values<'a>(
    properties: &Properties,
    application: impl IntoIterator<Item = (&'a str, SimpleValue)>,
    body: Body,
) -> Result<Vec<u8>, FrameError> {
    let mut bytes = written(properties)?;
    let mut map = OrderedMap::new();
    for (name, value) in application {
        map.insert(name.to_owned(), value);
    }
    if !map.is_empty() {
        bytes.extend(written(&ApplicationProperties(map))?);
    }
    bytes.extend(match body {
        Body::Data(data) => written(&Data(data.to_vec().into()))?,
        Body::Text(text) => written(&AmqpValue(text.to_owned()))?,
    });
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use fe2o3_amqp_types::messaging::MessageId;
    use serde_amqp::primitives::{Symbol, Timestamp, Uuid};

    use super::*;

    fn section(code: u8, value: &Value) -> Vec<u8> {
        [vec![0, 0x53, code], written(value).unwrap()].concat()
    }

    fn properties(fields: Vec<Value>) -> Vec<u8> {
        section(0x73, &Value::List(fields))
    }

    #[test]
    fn what_is_written_is_read() {
        let properties = Properties {
            message_id: Some(MessageId::String("m".into())),
            correlation_id: Some(MessageId::String("c".into())),
            content_type: Some(Symbol::from("application/json")),
            content_encoding: Some(Symbol::from("utf-8")),
            absolute_expiry_time: Some(Timestamp::from_milliseconds(1_700_000_000_000)),
            to: Some("$cbs".to_owned()),
            ..Properties::default()
        };
        let bytes = write(&properties, &[("a", "1"), ("b", "2")], Body::Data(b"\xff\x00body")).unwrap();
        let (message, why) = read(&bytes);
        assert_eq!(why, None);
        let shown = |value: &Option<Value>| value.as_ref().and_then(text);
        assert_eq!((shown(&message.id).as_deref(), shown(&message.correlation_id).as_deref()), (Some("m"), Some("c")));
        assert_eq!(shown(&message.to).as_deref(), Some("$cbs"));
        assert_eq!(shown(&message.content_type).as_deref(), Some("application/json"));
        assert_eq!(shown(&message.content_encoding).as_deref(), Some("utf-8"));
        assert_eq!(message.expires_at, Some(Value::Timestamp(Timestamp::from_milliseconds(1_700_000_000_000))));
        assert_eq!(message.property("b").and_then(text).as_deref(), Some("2"));
        assert_eq!(message.body, b"\xff\x00body");
        let (message, why) = read(&write(&properties, &[], Body::Text("token")).unwrap());
        assert_eq!((&message.body[..], why), (&b"token"[..], None));
    }

    #[test]
    fn an_id_of_any_type_is_text_of_its_own() {
        let uuid = *b"\x02\x09\xaf\xa7\x1a\xb2\x4c\x3d\x8e\x5f\x00\x01\x02\x03\x04\xff";
        for (id, expected) in [
            (Value::String("Ab c".into()), "Ab c"),
            (Value::Uuid(Uuid::from(uuid)), "0209afa7-1ab2-4c3d-8e5f-0001020304ff"),
            (Value::Ulong(u64::MAX), "18446744073709551615"),
            (Value::Binary(b"m-1".to_vec().into()), "m-1"),
            (Value::Binary(b"a\xff\xfeb".to_vec().into()), "a%FF%FEb"),
        ] {
            let (message, why) = read(&properties(vec![id]));
            assert_eq!((message.id.as_ref().and_then(text).as_deref(), why), (Some(expected), None));
        }
        assert_eq!(read(&properties(vec![Value::Null])).0.id, None);
    }

    #[test]
    fn data_sections_are_joined_and_other_bodies_understood() {
        let data = |bytes: &[u8]| section(0x75, &Value::Binary(bytes.to_vec().into()));
        assert_eq!(read(&[data(b"a"), data(b""), data(b"bc")].concat()).0.body, b"abc");
        assert_eq!(read(&section(0x77, &Value::String("on".into()))).0.body, b"on");
        assert_eq!(read(&section(0x77, &Value::Binary(b"\x01".to_vec().into()))).0.body, b"\x01");
        assert_eq!(read(&section(0x77, &Value::Long(-7))).0.body, b"-7");
        let (message, why) = read(&section(0x77, &Value::List(vec![])));
        assert!(message.body.is_empty() && why.is_some());
    }

    #[test]
    fn what_can_be_read_is_kept_when_the_rest_can_not() {
        let good = properties(vec![Value::String("m".into())]);
        for bad in [vec![0x00], vec![0x00, 0x53, 0x7f, 0x40], vec![0x40], section(0x74, &Value::Null), vec![0xff]] {
            let (message, why) = read(&[good.clone(), bad].concat());
            assert_eq!(message.id.as_ref().and_then(text).as_deref(), Some("m"));
            assert!(why.is_some_and(|why| !why.is_empty()));
        }
        let (_, why) = read(&section(0x75, &Value::Binary(vec![].into())).repeat(SECTIONS_MAX + 1));
        assert!(why.unwrap().contains("sections"));
    }

    #[test]
    fn an_annotation_and_the_delivery_count_are_found() {
        let mut map = OrderedMap::new();
        map.insert(Value::Symbol(Symbol::from("x-opt-sequence-number")), Value::Long(9));
        let header = Value::List(vec![Value::Null, Value::Null, Value::Null, Value::Null, Value::Uint(2)]);
        let (message, why) = read(&[section(0x70, &header), section(0x72, &Value::Map(map))].concat());
        assert_eq!((message.delivery_count, why), (Some(2), None));
        assert_eq!(message.annotation("x-opt-sequence-number").and_then(number), Some(9));
    }
}
