//! The call of a direct method, free of its transport: the command that it asks for, and what is answered to it. Pure.
//!
//! Source: "Understand and invoke direct methods from IoT Hub" (Microsoft) for sizes and statuses: a payload and an
//! answer are JSON of at most 128 KB each.
//!
//! Invariants
//! - Any bytes give a [`Gist`] as a message's do: an order, or a fault that a person understands.
//! - Two calls under one id have the same digest if they ask for the same command and the same value as JSON, however
//!   that is written; no message has the digest of a call.
//! - An answer says what the ledger has, or that it has nothing ([`Answer::not_taken`]).

use ring::digest::{Context, SHA256};
use serde_json::{json, Map, Number, Value as Json};

use super::envelope::Envelope;
use super::excerpt::truncated;
use super::message::{check_shape, shrunk, Digest, Gist, COMMAND_BYTES_MAX, MESSAGE_ID_BYTES_MAX};
use super::outcome::{bounded, Code, Fault, Outcome, State};

/// Largest payload of a call, and largest body of an answer.
pub const PAYLOAD_BYTES_MAX: usize = 128 * 1024;
/// Whole numbers up to this one are told apart as binary64 (IEEE 754).
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// A call as any transport brings it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Method {
    /// The method's name, which is a command's.
    pub name: String,
    /// What came with it: JSON, or nothing.
    pub payload: Vec<u8>,
    /// Why the rest of it could not be read, by the transport that brought it.
    pub unread: Option<Fault>,
}

/// What a payload says.
struct Asked {
    id: Option<String>,
    value: Option<Json>,
    fault: Option<Fault>,
}

impl Method {
    /// What is kept of the call. Its payload goes.
    pub fn condense(self) -> Gist {
        let Asked { id, value, fault } = self.asked();
        let fault = fault.or_else(|| value.as_ref().and_then(|value| check_shape(value).err()));
        let digest = self.digest(value.as_ref());
        let value = match fault {
            Some(_) => value.map(bounded),
            None => value.map(shrunk),
        };
        let (id, is_cut) = match id {
            Some(id) if id.len() > MESSAGE_ID_BYTES_MAX => {
                (Some(truncated(&id, MESSAGE_ID_BYTES_MAX).to_owned()), true)
            }
            id => (id, false),
        };
        let fault = fault.or_else(|| is_cut.then(too_long));
        let command = Some(truncated(&self.name, COMMAND_BYTES_MAX).to_owned());
        let envelope = Envelope::default();
        Gist { id, digest, command, value, fault, expires_at: None, unread_expiry: None, envelope }
    }

    /// An object of `messageId` and `value`, or one of them, and nothing else is the envelope; anything else is the
    /// value. An object of nothing is no value: so calls `az iot hub invoke-device-method` where no payload is named.
    fn asked(&self) -> Asked {
        let bad = |code, why: String| Asked { id: None, value: None, fault: Some(Fault::new(code, why)) };
        if let Some(fault) = &self.unread {
            return bad(fault.code, fault.message.clone());
        }
        if self.payload.len() > PAYLOAD_BYTES_MAX {
            let bytes = self.payload.len();
            return bad(
                Code::TooLarge,
                format!("the payload has {bytes} bytes; a call has at most {PAYLOAD_BYTES_MAX}"),
            );
        }
        if self.name.len() > COMMAND_BYTES_MAX {
            let (bytes, begins) = (self.name.len(), truncated(&self.name, 40));
            return bad(
                Code::UnknownCommand,
                format!("no command has a name of {bytes} bytes; it begins with {begins:?}"),
            );
        }
        if self.payload.is_empty() {
            return Asked { id: None, value: None, fault: None };
        }
        match serde_json::from_slice::<Json>(&self.payload) {
            Err(error) => bad(Code::BadValue, format!("the payload is not JSON ({error})")),
            Ok(Json::Object(fields)) if is_envelope(&fields) => enveloped(fields),
            Ok(value) => Asked { id: None, value: some(value), fault: None },
        }
    }

    /// The digest of what the call asks for.
    fn digest(&self, value: Option<&Json>) -> Digest {
        let mut context = Context::new(&SHA256);
        // A message's begins with the length of a name, or with the largest number.
        context.update(&(u64::MAX - 1).to_be_bytes());
        context.update(&(self.name.len() as u64).to_be_bytes());
        context.update(self.name.as_bytes());
        match value {
            Some(value) => context.update(normal(value).to_string().as_bytes()),
            // What can't be read is told apart by its bytes.
            None if serde_json::from_slice::<Json>(&self.payload).is_err() => context.update(&self.payload),
            None => {}
        }
        let mut digest = Digest::default();
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }
}

fn is_envelope(fields: &Map<String, Json>) -> bool {
    fields.keys().all(|name| name == "messageId" || name == "value")
}

fn enveloped(mut fields: Map<String, Json>) -> Asked {
    let value = fields.remove("value").and_then(some);
    match fields.remove("messageId") {
        None | Some(Json::Null) => Asked { id: None, value, fault: None },
        Some(Json::String(id)) => Asked { id: Some(id).filter(|id| !id.is_empty()), value, fault: None },
        Some(_) => {
            let fault = Fault::new(Code::BadValue, "the field \"messageId\" of the payload is not a text");
            Asked { id: None, value, fault: Some(fault) }
        }
    }
}

/// Null is no value.
fn some(value: Json) -> Option<Json> {
    (!value.is_null()).then_some(value)
}

fn too_long() -> Fault {
    Fault::new(
        Code::TooLarge,
        format!("the message id has more than {MESSAGE_ID_BYTES_MAX} bytes; give it a shorter one"),
    )
}

/// The same value, written in one way: JSON has one kind of numbers, and no order of fields.
pub(super) fn normal(value: &Json) -> Json {
    match value {
        Json::Number(number) => Json::Number(normal_number(number)),
        Json::Array(elements) => elements.iter().map(normal).collect(),
        Json::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), normal(value))).collect(),
        other => other.clone(),
    }
}

fn normal_number(number: &Number) -> Number {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(float) if float.fract() == 0.0 && float.abs() <= WHOLE_MAX => Number::from(float as i64),
        _ => number.clone(),
    }
}

/// Whether two values are the same as JSON; null is none. One of them may be as it is kept of a command that can't be
/// executed, which of a long one is its beginning and its length.
pub fn is_same_value(one: Option<&Json>, other: Option<&Json>) -> bool {
    let (one, other) = (one.filter(|one| !one.is_null()), other.filter(|other| !other.is_null()));
    let kept = |value: Option<&Json>| value.cloned().map(bounded);
    let (plain, others) = (one.map(normal), other.map(normal));
    plain == others || plain == kept(other) || kept(one) == others
}

/// What is answered to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status, as the caller sees it.
    pub status: u16,
    /// JSON, of [`PAYLOAD_BYTES_MAX`] at most.
    pub body: String,
}

/// The statuses that answers have.
pub const STATUSES: [&str; 10] = ["200", "202", "400", "403", "404", "408", "409", "413", "500", "503"];

impl Answer {
    /// Its status, as one of [`STATUSES`].
    pub fn status_word(&self) -> &'static str {
        let own = self.status.to_string();
        STATUSES.into_iter().find(|word| *word == own).unwrap_or("500")
    }

    /// That the command has ended so, which is durable: `event` is its result event.
    pub fn ended(outcome: &Outcome, event: Json) -> Answer {
        Answer { status: status(outcome), body: fitting(event) }
    }

    /// That the command is not over, and that its end will be told, whatever happens: it stands in the ledger in this
    /// state.
    pub fn under_way(message_id: Option<&str>, command: Option<&str>, state: State) -> Answer {
        let body = json!({ "messageId": message_id, "command": command, "status": state.as_str() });
        Answer { status: 202, body: body.to_string() }
    }

    /// That nothing was done, and nothing recorded: the same call may be made again, under the same message id.
    pub fn not_taken(message_id: Option<&str>, command: Option<&str>, why: &str) -> Answer {
        let error = json!({ "code": NOT_TAKEN, "message": why });
        let body = json!({ "messageId": message_id, "command": command, "status": null, "error": error });
        Answer { status: 503, body: body.to_string() }
    }
}

/// The code of a call of which nothing was recorded. No row has it.
pub const NOT_TAKEN: &str = "not-taken";

/// The status that an end has for a caller, in the words of HTTP.
pub(super) fn status(outcome: &Outcome) -> u16 {
    let code = outcome.fault.as_ref().map(|fault| fault.code);
    match (outcome.state, code) {
        (State::Succeeded, _) => 200,
        (State::Accepted | State::Executing, _) => 202,
        (State::Expired, _) => 408,
        (State::Rejected, Some(Code::UnknownCommand)) => 404,
        (State::Rejected, Some(Code::LockedOut)) => 403,
        (State::Rejected, Some(Code::MessageIdReused)) => 409,
        (State::Rejected, Some(Code::TooLarge)) => 413,
        (State::Rejected, _) => 400,
        (State::Failed, Some(Code::BusUnavailable | Code::Unreachable)) => 503,
        (State::Failed | State::InDoubt, _) => 500,
    }
}

/// An event as the body of an answer. One that is too large says so in the place of its values, which the event has.
fn fitting(mut event: Json) -> String {
    let body = event.to_string();
    if body.len() <= PAYLOAD_BYTES_MAX {
        return body;
    }
    for name in ["value", "requested"] {
        if let Some(value) = event.get_mut(name) {
            *value = bounded(value.take());
        }
    }
    event.to_string()
}

#[cfg(test)]
mod tests;
