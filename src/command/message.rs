//! A C2D message, free of its transport, and the order that stands in it.
//!
//! Invariants
//! - Any bytes give either an [`Order`] or a [`Fault`] that a person understands; nothing here panics.
//! - Sizes are bounded before anything is parsed.
//! - What is kept of a message while it waits, its [`Gist`], has no body, and no value that no command takes.
//! - How a message is read is decided by the [`Form`] that is in force when it comes; what tells it from another under
//!   the same id, its digest, is of the bytes as they came.

use std::time::Instant;

use ring::digest::{Context, SHA256};
use serde_json::Value as Json;

use super::encoding;
use super::envelope::Envelope;
use super::excerpt::truncated;
use super::outcome::{bounded, Code, Fault};
use crate::time::Timestamp;

/// Largest body: a C2D message is at most 64 KiB with its properties (IoT Hub quotas).
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest message id that is worked with. The hub allows 128 characters.
pub const MESSAGE_ID_BYTES_MAX: usize = 512;
/// Longest command name; longer ones can't be configured.
pub const COMMAND_BYTES_MAX: usize = 128;
/// Longest text in a value, all texts of a list together: more than any line or register takes.
pub const VALUE_TEXT_BYTES_MAX: usize = 4096;
/// Most elements of a value: more than any Modbus request writes.
pub const VALUE_ELEMENTS_MAX: usize = 2000;

/// A C2D message as any transport delivers it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// `$.mid`: opaque text, compared byte by byte.
    pub id: Option<String>,
    /// The application property `command`.
    pub command: Option<String>,
    /// `$.exp`: not to be executed from then on.
    pub expires_at: Option<Timestamp>,
    /// `$.exp` as it came, if it can't be read. The hub drops expired messages itself, so the message is run all the
    /// same.
    pub unread_expiry: Option<String>,
    /// The content encoding, as the sender named it.
    pub content_encoding: Option<String>,
    /// The sender's correlation id: opaque text.
    pub correlation_id: Option<String>,
    /// The message's number at the hub, where the transport tells it.
    pub sequence_number: Option<u64>,
    /// When the hub took it, where the transport tells it.
    pub enqueued_at: Option<Timestamp>,
    /// How often the hub has delivered it before, where the transport tells it.
    pub delivery_count: Option<u32>,
    /// When it had come whole, by the monotonic clock, where it may have waited since for who takes it.
    pub came: Option<Instant>,
    /// The body.
    pub body: Vec<u8>,
    /// Why the envelope itself can't be one of this device's messages, if so.
    pub malformed: Option<String>,
}

/// What tells two messages with the same id apart: SHA-256 over the `command` property and the body.
pub type Digest = [u8; 32];

/// A command with its value, as the message gave them.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Name of the command.
    pub command: String,
    /// Its value, if any.
    pub value: Option<Json>,
}

/// The form of a device's messages, by its configuration: where in them the command and its value stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// The command of messages that name none.
    pub default_command: Option<String>,
    /// The field of a JSON object that names the command.
    pub command_field: String,
    /// The field of a JSON object that has the value.
    pub value_field: String,
}

impl Default for Form {
    fn default() -> Self {
        Form { default_command: None, command_field: "command".into(), value_field: "value".into() }
    }
}

/// What is kept of a message: enough to judge and to run it, in little memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Gist {
    /// The id under which the ledger keeps it.
    pub id: Option<String>,
    /// Of what it asks for.
    pub digest: Digest,
    /// The command's name, as far as it can be told.
    pub command: Option<String>,
    /// Its value; a bounded piece of it, if there is a fault.
    pub value: Option<Json>,
    /// Why there is no order that could be run, if so.
    pub fault: Option<Fault>,
    /// `$.exp`: not to be executed from then on.
    pub expires_at: Option<Timestamp>,
    /// `$.exp` as it came, if it can't be read.
    pub unread_expiry: Option<String>,
    /// What it says of itself.
    pub envelope: Envelope,
}

impl Gist {
    /// Roughly the memory that it takes while it waits, in bytes, with what is kept beside it.
    pub fn weight(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let value = self.value.as_ref().map_or(0, weight);
        let fault = self.fault.as_ref().map_or(0, |fault| fault.message.len());
        let texts = [&self.id, &self.command, &self.unread_expiry, &self.envelope.correlation_id];
        BESIDE_BYTES + texts.into_iter().map(text).sum::<usize>() + value + fault
    }
}

/// What is kept of a waiting message beside its texts and its value: ticket, times, places in queues.
const BESIDE_BYTES: usize = 512;

/// What a field of an object may take: a map of one is as large as one of eleven.
const FIELD_BYTES: usize = 640;

fn weight(value: &Json) -> usize {
    let inner = match value {
        Json::String(text) => text.len(),
        Json::Array(elements) => elements.iter().map(weight).sum(),
        Json::Object(fields) => fields.iter().map(|(name, value)| FIELD_BYTES + name.len() + weight(value)).sum(),
        _ => 0,
    };
    size_of::<Json>() + inner
}

/// Whether any command could take a value of this shape and size.
pub(super) fn check_shape(value: &Json) -> Result<(), Fault> {
    let bad = |message: String| Err(Fault::new(Code::BadValue, message));
    let elements = match value {
        Json::Object(_) => return bad("expected one value or a list of values, got an object".into()),
        Json::Array(elements) => elements.as_slice(),
        one => std::slice::from_ref(one),
    };
    if elements.len() > VALUE_ELEMENTS_MAX {
        let count = elements.len();
        return bad(format!("a list of {count} values; no command takes more than {VALUE_ELEMENTS_MAX}"));
    }
    let mut bytes = 0;
    for element in elements {
        match element {
            Json::Array(_) | Json::Object(_) => return bad("expected a list of single values, got one of lists".into()),
            Json::String(text) => bytes += text.len(),
            Json::Null | Json::Bool(_) | Json::Number(_) => {}
        }
    }
    if bytes > VALUE_TEXT_BYTES_MAX {
        return bad(format!("a text of {bytes} bytes; no command takes more than {VALUE_TEXT_BYTES_MAX}"));
    }
    Ok(())
}

impl Message {
    /// What is kept of the message, which is of this form. Its body goes.
    pub fn condense(self, form: &Form) -> Gist {
        let digest = self.digest();
        let (command, value, fault) = match self.order(form) {
            Ok(Order { command, value }) => match value.as_ref().map_or(Ok(()), check_shape) {
                Ok(()) => (Some(command), value.map(shrunk), None),
                Err(fault) => (Some(command), value.map(bounded), Some(fault)),
            },
            Err(fault) => (self.claimed_command(), None, Some(fault)),
        };
        let id = self.ledger_id().map(str::to_owned);
        let envelope = self.envelope();
        let (expires_at, unread_expiry) = (self.expires_at, self.unread_expiry);
        Gist { id, digest, command, value, fault, expires_at, unread_expiry, envelope }
    }

    /// What the message says of itself, of bounded size. A number that the ledger could not keep is none of a hub's.
    fn envelope(&self) -> Envelope {
        let correlation_id = self.correlation_id.as_deref().map(|id| truncated(id, MESSAGE_ID_BYTES_MAX).to_owned());
        Envelope {
            correlation_id,
            sequence_number: self.sequence_number.filter(|number| i64::try_from(*number).is_ok()),
            enqueued_at: self.enqueued_at,
            delivery_count: self.delivery_count,
        }
    }

    /// The digest of what the message asks for.
    pub fn digest(&self) -> Digest {
        let mut context = Context::new(&SHA256);
        // The length in front keeps ("a", "bc") and ("ab", "c") apart; absent and empty are different too.
        match &self.command {
            Some(command) => {
                context.update(&(command.len() as u64).to_be_bytes());
                context.update(command.as_bytes());
            }
            None => context.update(&u64::MAX.to_be_bytes()),
        }
        context.update(&self.body);
        let mut digest = Digest::default();
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }

    /// The id under which the ledger keeps the message. One that is too long is cut, and told apart by its digest.
    pub fn ledger_id(&self) -> Option<&str> {
        self.id.as_deref().map(|id| truncated(id, MESSAGE_ID_BYTES_MAX))
    }

    /// The name to report of a message that has no order: what its property says.
    pub fn claimed_command(&self) -> Option<String> {
        self.command.as_deref().map(|name| truncated(name, COMMAND_BYTES_MAX).to_owned())
    }

    /// The order in this message, which is of this form.
    ///
    /// # Errors
    /// `too-large`, `unknown-command` or `bad-value`, with what was found.
    pub fn order(&self, form: &Form) -> Result<Order, Fault> {
        self.check_envelope()?;
        match &self.command {
            Some(name) => {
                let command = checked_name(name)?;
                let body = self.content().map_err(|why| Fault::new(Code::BadValue, why))?;
                Ok(Order { command, value: body.and_then(|body| body.value(form)) })
            }
            None => self.order_in_body(form),
        }
    }

    /// What the body holds, if it holds anything.
    fn content(&self) -> Result<Option<Content>, String> {
        if self.body.is_empty() {
            return Ok(None);
        }
        let text = encoding::text(&self.body, self.content_encoding.as_deref())?;
        Ok(match serde_json::from_str::<Json>(&text) {
            _ if text.is_empty() => None,
            Ok(json) => Some(Content::Json(json)),
            Err(error) => Some(Content::Text(text.into_owned(), error)),
        })
    }

    fn check_envelope(&self) -> Result<(), Fault> {
        if let Some(why) = &self.malformed {
            return Err(Fault::new(Code::UnknownCommand, why.clone()));
        }
        if self.body.len() > BODY_BYTES_MAX {
            let message = format!("the body has {} bytes; a message has at most {BODY_BYTES_MAX}", self.body.len());
            return Err(Fault::new(Code::TooLarge, message));
        }
        for (id, what) in [(&self.id, "message id"), (&self.correlation_id, "correlation id")] {
            if let Some(id) = id.as_ref().filter(|id| id.len() > MESSAGE_ID_BYTES_MAX) {
                let message = format!("the {what} has {} bytes; the hub allows 128 characters", id.len());
                return Err(Fault::new(Code::TooLarge, message));
            }
        }
        Ok(())
    }

    /// Without the property `command`: the field of that name, or the command of messages that name none.
    fn order_in_body(&self, form: &Form) -> Result<Order, Fault> {
        let Form { default_command, command_field, value_field } = form;
        let no_command = |why: &str| Fault::new(Code::UnknownCommand, format!("the message names no command: {why}"));
        let content = match self.content() {
            Ok(content) => content,
            // Whatever else it says, it is the usual command's.
            Err(why) if default_command.is_some() => return Err(Fault::new(Code::BadValue, why)),
            Err(why) => return Err(no_command(&format!("it has no property `command`, and {why}"))),
        };
        if let Some(Content::Json(Json::Object(fields))) = &content {
            if fields.get(command_field).is_some_and(|name| !name.is_string()) {
                let why = format!("the field {command_field:?} of the body is not a text");
                return Err(Fault::new(Code::UnknownCommand, why));
            }
        }
        match (content, default_command) {
            (Some(Content::Json(Json::Object(mut fields))), default) => {
                let named = fields.remove(command_field).and_then(|name| name.as_str().map(checked_name));
                match (named, default) {
                    (Some(name), _) => Ok(Order { command: name?, value: fields.remove(value_field) }),
                    (None, Some(default)) => Ok(Order { command: default.clone(), value: fields.remove(value_field) }),
                    (None, None) => {
                        let why = format!("neither a property `command` nor a field {command_field:?} in its body");
                        Err(no_command(&why))
                    }
                }
            }
            (content, Some(default)) => {
                Ok(Order { command: default.clone(), value: content.and_then(|content| content.value(form)) })
            }
            (None, None) => Err(no_command("it has neither the property `command` nor a body")),
            (Some(Content::Text(_, error)), None) => {
                Err(no_command(&format!("it has no property `command`, and its body is not JSON ({error})")))
            }
            (Some(Content::Json(_)), None) => {
                Err(no_command("it has no property `command`, and its body is not a JSON object"))
            }
        }
    }
}

/// What a body holds.
enum Content {
    Json(Json),
    /// Text that is no JSON, for this reason.
    Text(String, serde_json::Error),
}

impl Content {
    /// The value where the command is named elsewhere: its field of a JSON object, or the whole body.
    fn value(self, form: &Form) -> Option<Json> {
        match self {
            Content::Json(Json::Object(mut fields)) => fields.remove(&form.value_field),
            Content::Json(other) => Some(other),
            Content::Text(text, _) => Some(Json::String(text)),
        }
    }
}

/// With no more memory than it needs.
pub(super) fn shrunk(mut value: Json) -> Json {
    if let Json::Array(elements) = &mut value {
        elements.shrink_to_fit();
    }
    value
}

fn checked_name(name: &str) -> Result<String, Fault> {
    if name.len() > COMMAND_BYTES_MAX {
        let message =
            format!("no command has a name of {} bytes; it begins with {:?}", name.len(), truncated(name, 40));
        return Err(Fault::new(Code::UnknownCommand, message));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(command: Option<&str>, body: &[u8]) -> Message {
        Message { command: command.map(str::to_owned), body: body.to_vec(), ..Message::default() }
    }

    #[test]
    fn the_body_alone_can_carry_the_command() {
        let order = message(None, br#"{"command":"set-speed","value":42.5,"note":1}"#).order(&Form::default()).unwrap();
        assert_eq!(order, Order { command: "set-speed".into(), value: Some(json!(42.5)) });
    }

    #[test]
    fn beside_the_property_any_body_is_the_value() {
        let cases: [(&[u8], Option<Json>); 7] = [
            (b"", None),
            (b"42.5", Some(json!(42.5))),
            (b"true", Some(json!(true))),
            (b"hello there", Some(json!("hello there"))),
            (br#"{"value":[1,2]}"#, Some(json!([1, 2]))),
            (b"{}", None),
            (br#""7""#, Some(json!("7"))),
        ];
        for (body, value) in cases {
            let order = message(Some("c"), body).order(&Form::default()).unwrap();
            assert_eq!(order.value, value, "body {:?}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_number_is_read_as_the_double_that_it_names_and_stays_the_same_when_it_is_kept_as_text() {
        for (text, number) in [("1.7976931348623157", 1.797_693_134_862_315_7), ("4.35", 4.35), ("1e23", 1e23)] {
            let read = message(Some("c"), text.as_bytes()).order(&Form::default()).unwrap().value.unwrap();
            assert_eq!(read.as_f64(), Some(number), "{text}");
            assert_eq!(serde_json::from_str::<Json>(&read.to_string()).unwrap(), read, "{text}");
        }
    }

    #[test]
    fn a_body_that_names_no_command_is_told_so() {
        for body in [&b""[..], b"42", b"[1]", b"not json", b"{}", br#"{"command":7}"#, b"\xff\xfe"] {
            assert_eq!(message(None, body).order(&Form::default()).unwrap_err().code, Code::UnknownCommand);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_a_bad_value() {
        assert_eq!(message(Some("c"), b"\xff\xfe").order(&Form::default()).unwrap_err().code, Code::BadValue);
        let form = Form { default_command: Some("c".into()), ..Form::default() };
        assert_eq!(message(None, b"\xff\xfe").order(&form).unwrap_err().code, Code::BadValue);
    }

    #[test]
    fn deep_nesting_ends_in_a_value_and_not_in_a_crash() {
        let body = "[".repeat(60_000);
        assert_eq!(
            message(Some("c"), body.as_bytes()).order(&Form::default()).unwrap().value,
            Some(Json::String(body))
        );
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(
            message(Some("c"), &vec![b'1'; BODY_BYTES_MAX + 1]).order(&Form::default()).unwrap_err().code,
            Code::TooLarge
        );
        let mut long = message(Some("c"), b"");
        long.id = Some("ä".repeat(MESSAGE_ID_BYTES_MAX));
        assert_eq!(long.order(&Form::default()).unwrap_err().code, Code::TooLarge);
        assert!(long.ledger_id().unwrap().len() <= MESSAGE_ID_BYTES_MAX);
        assert_eq!(
            message(Some(&"x".repeat(60_000)), b"").order(&Form::default()).unwrap_err().code,
            Code::UnknownCommand
        );
    }

    #[test]
    fn what_is_kept_of_a_message_is_small_and_enough_to_run_it() {
        let value = json!(vec![true; VALUE_ELEMENTS_MAX]);
        for (body, kept) in [
            (json!(42.5), Some(json!(42.5))),
            (json!("x".repeat(VALUE_TEXT_BYTES_MAX)), Some(json!("x".repeat(VALUE_TEXT_BYTES_MAX)))),
            (value.clone(), Some(value)),
            (json!(null), Some(json!(null))),
        ] {
            let message = message(Some("c"), body.to_string().as_bytes());
            let gist = message.clone().condense(&Form::default());
            assert_eq!((gist.value.clone(), gist.fault.clone()), (kept, None));
            assert_eq!((gist.digest, gist.command.as_deref()), (message.digest(), Some("c")));
            assert!(gist.weight() < 128 * 1024, "{}", gist.weight());
        }
        for body in [
            json!("x".repeat(VALUE_TEXT_BYTES_MAX + 1)),
            json!(vec![1; VALUE_ELEMENTS_MAX + 1]),
            json!(vec!["abcd"; VALUE_ELEMENTS_MAX]),
            json!([[1]]),
            json!([{ "a": 1 }]),
        ] {
            let gist = message(Some("c"), body.to_string().as_bytes()).condense(&Form::default());
            assert_eq!(gist.fault.as_ref().unwrap().code, Code::BadValue);
            assert_eq!(gist.command.as_deref(), Some("c"), "its name is known all the same");
            assert!(gist.weight() < 4096);
        }
        let text = String::from_utf8(vec![b'x'; 60_000]).unwrap();
        let inside =
            message(None, json!({ "command": "c", "value": text }).to_string().as_bytes()).condense(&Form::default());
        assert_eq!(inside.command.as_deref(), Some("c"));
        assert_eq!(inside.fault.unwrap().code, Code::BadValue);
    }

    #[test]
    fn the_digest_covers_the_property_and_the_body() {
        let digests = [
            message(None, b"abc").digest(),
            message(Some(""), b"abc").digest(),
            message(Some("a"), b"bc").digest(),
            message(Some("ab"), b"c").digest(),
        ];
        for (i, a) in digests.iter().enumerate() {
            for b in &digests[i + 1..] {
                assert_ne!(a, b);
            }
        }
    }
}
