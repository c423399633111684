//! The states of a command, how it can end, and the result event that tells the back end.
//!
//! The words here are an interface: they stand in the ledger, in result events and in `--json`.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{json, Map, Value as Json};

use super::envelope::Envelope;
use super::excerpt::truncated;
use crate::time::Timestamp;

/// The states of a command in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The gateway has it; nothing was put on the wire.
    Accepted,
    /// An attempt may have reached the wire.
    Executing,
    /// The peripheral confirmed.
    Succeeded,
    /// Every attempt ended in a definite error; nothing is in doubt.
    Failed,
    /// Never executable.
    Rejected,
    /// Its deadline passed before it reached the wire.
    Expired,
    /// A non-idempotent command, or one that nobody confirms, may or may not have taken effect.
    InDoubt,
}

impl State {
    /// Every state, in the order of a command's life.
    pub const ALL: [State; 7] = [
        State::Accepted,
        State::Executing,
        State::Succeeded,
        State::Failed,
        State::Rejected,
        State::Expired,
        State::InDoubt,
    ];

    /// The word that stands for it everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Accepted => "accepted",
            State::Executing => "executing",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Rejected => "rejected",
            State::Expired => "expired",
            State::InDoubt => "in_doubt",
        }
    }

    /// The state with this name.
    pub fn from_name(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|s| s.as_str() == name)
    }

    /// Whether nothing more happens to a command in this state.
    pub fn is_final(self) -> bool {
        !matches!(self, State::Accepted | State::Executing)
    }

    /// Whether a message that ends so is rejected at the hub, and not completed: nothing of it was done, nor will be.
    pub fn is_refusal(self) -> bool {
        matches!(self, State::Rejected | State::Expired)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a command did not succeed, as a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The device has no command of this name.
    UnknownCommand,
    /// The value is missing, superfluous or of the wrong kind.
    BadValue,
    /// The value is outside of the command's range or of its type.
    OutOfRange,
    /// A non-idempotent command came without a message id.
    NoMessageId,
    /// The message id was used before, with another body.
    MessageIdReused,
    /// The message is larger than the hub allows.
    TooLarge,
    /// No answer in time.
    Timeout,
    /// A Modbus exception.
    Exception,
    /// A reply that matched `refuse`.
    Refused,
    /// An answer that is not this request's.
    BadReply,
    /// Nothing could be sent.
    BusUnavailable,
    /// Read back, and another value stands there.
    VerifyMismatch,
    /// The deadline passed first.
    Expired,
    /// The daemon died while the command was on its way.
    Interrupted,
    /// An earlier ledger may have executed it.
    UnknownHistory,
    /// It went to all units of a line, and nobody confirms that.
    Unconfirmed,
    /// Somebody works on the machine, and has locked its device.
    LockedOut,
    /// A newer command of the same name came first.
    Superseded,
    /// Who was to be asked is away, and nothing was sent.
    Unreachable,
}

impl Code {
    /// Every code.
    pub const ALL: [Code; 19] = [
        Code::UnknownCommand,
        Code::BadValue,
        Code::OutOfRange,
        Code::NoMessageId,
        Code::MessageIdReused,
        Code::TooLarge,
        Code::Timeout,
        Code::Exception,
        Code::Refused,
        Code::BadReply,
        Code::BusUnavailable,
        Code::VerifyMismatch,
        Code::Expired,
        Code::Interrupted,
        Code::UnknownHistory,
        Code::Unconfirmed,
        Code::LockedOut,
        Code::Superseded,
        Code::Unreachable,
    ];

    /// The word that stands for it everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::UnknownCommand => "unknown-command",
            Code::BadValue => "bad-value",
            Code::OutOfRange => "out-of-range",
            Code::NoMessageId => "no-message-id",
            Code::MessageIdReused => "message-id-reused",
            Code::TooLarge => "too-large",
            Code::Timeout => "timeout",
            Code::Exception => "exception",
            Code::Refused => "refused",
            Code::BadReply => "bad-reply",
            Code::BusUnavailable => "bus-unavailable",
            Code::VerifyMismatch => "verify-mismatch",
            Code::Expired => "expired",
            Code::Interrupted => "interrupted",
            Code::UnknownHistory => "unknown-history",
            Code::Unconfirmed => "unconfirmed",
            Code::LockedOut => "locked-out",
            Code::Superseded => "superseded",
            Code::Unreachable => "unreachable",
        }
    }

    /// The code with this name.
    pub fn from_name(name: &str) -> Option<Code> {
        Code::ALL.into_iter().find(|c| c.as_str() == name)
    }
}

/// Why a command did not succeed: a code for programs, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The code.
    pub code: Code,
    /// The sentence.
    pub message: String,
    /// The Modbus exception code, where one was received.
    pub modbus_exception: Option<u8>,
}

impl Fault {
    /// A fault without a Modbus exception.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Fault { code, message: message.into(), modbus_exception: None }
    }

    /// As it stands in result events and in `--json`.
    pub fn to_json(&self) -> Json {
        let mut error = json!({ "code": self.code.as_str(), "message": self.message });
        if let Some(exception) = self.modbus_exception {
            error["modbusException"] = exception.into();
        }
        error
    }
}

/// Longest value, bytes of JSON, that is kept and told of a command that can't be executed.
const REQUESTED_BYTES_MAX: usize = 1024;
/// So much is left of a longer one, and of any in a line of the log.
const BEGINNING_BYTES_MAX: usize = 256;

/// The value that was asked for, as it is kept of a command that can't be executed. A long one is cut to a text: its
/// beginning, and its length in bytes. What can be executed is as long as its command allows, and kept whole.
pub fn bounded(requested: Json) -> Json {
    match requested.to_string().len() {
        ..=REQUESTED_BYTES_MAX => requested,
        _ => in_short(&requested).into(),
    }
}

/// The value that was asked for in a line of the log: its JSON, or the beginning of that.
pub fn in_short(requested: &Json) -> String {
    let text = requested.to_string();
    match text.len() {
        ..=BEGINNING_BYTES_MAX => text,
        length => format!("{}… ({length} bytes)", truncated(&text, BEGINNING_BYTES_MAX)),
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// A final state.
    pub state: State,
    /// The value that was read or written, or the captured reply.
    pub value: Option<Json>,
    /// Why it did not succeed; present in every state but `succeeded`.
    pub fault: Option<Fault>,
}

impl Outcome {
    /// The peripheral confirmed.
    pub fn succeeded(value: Option<Json>) -> Self {
        Outcome { state: State::Succeeded, value, fault: None }
    }

    /// Any other end.
    pub fn ended(state: State, fault: Fault) -> Self {
        assert!(state.is_final() && state != State::Succeeded, "{state} needs no fault");
        Outcome { state, value: None, fault: Some(fault) }
    }

    /// Whether somebody has to look what was done. That nobody confirms a broadcast is its nature.
    pub fn is_open_doubt(&self) -> bool {
        let is_unconfirmed = self.fault.as_ref().is_some_and(|fault| fault.code == Code::Unconfirmed);
        self.state == State::InDoubt && !is_unconfirmed
    }
}

/// What a result event says of a command, outcome aside.
#[derive(Debug, Clone, PartialEq)]
pub struct Report<'a> {
    /// The C2D message's id.
    pub message_id: Option<&'a str>,
    /// The command's name as the message gave it.
    pub command: Option<&'a str>,
    /// The value that was asked for.
    pub requested: Option<&'a Json>,
    /// What the message says of itself.
    pub envelope: &'a Envelope,
    /// Exchanges that were begun.
    pub attempts: u32,
    /// When the message was first received.
    pub received_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
}

impl Report<'_> {
    /// The body of the result event.
    pub fn to_event(&self, outcome: &Outcome) -> Json {
        let mut event = Map::new();
        let Envelope { correlation_id, sequence_number, enqueued_at, delivery_count } = self.envelope;
        event.insert("messageId".into(), self.message_id.into());
        let told: [(&str, Option<Json>); 4] = [
            ("correlationId", correlation_id.as_deref().map(Json::from)),
            ("sequenceNumber", sequence_number.map(Json::from)),
            ("enqueuedAt", enqueued_at.map(|at| at.to_string().into())),
            ("deliveryCount", delivery_count.map(Json::from)),
        ];
        event.extend(told.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        event.insert("command".into(), self.command.into());
        event.insert("requested".into(), self.requested.cloned().unwrap_or_default());
        event.insert("status".into(), outcome.state.as_str().into());
        if let Some(value) = &outcome.value {
            event.insert("value".into(), value.clone());
        }
        event.insert("attempts".into(), self.attempts.into());
        event.insert("receivedAt".into(), self.received_at.known().map(|at| at.to_string()).into());
        event.insert("finishedAt".into(), self.finished_at.to_string().into());
        if let Some(fault) = &outcome.fault {
            event.insert("error".into(), fault.to_json());
        }
        Json::Object(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_of_its_message_what_the_sender_and_the_transport_have_told_and_no_more() {
        let event = |envelope: &Envelope| {
            let (received_at, finished_at) = (Timestamp(1_800_000_000_000), Timestamp(1_800_000_000_100));
            let (message_id, command, requested) = (Some("m-1"), Some("set"), Some(&json!(7)));
            let report = Report { message_id, command, requested, envelope, attempts: 1, received_at, finished_at };
            report.to_event(&Outcome::succeeded(Some(json!(7))))
        };
        let bare = json!({
            "messageId": "m-1", "command": "set", "requested": 7, "status": "succeeded", "value": 7, "attempts": 1,
            "receivedAt": "2027-01-15T08:00:00.000Z", "finishedAt": "2027-01-15T08:00:00.100Z",
        });
        assert_eq!(event(&Envelope::default()), bare);
        let told = event(&Envelope {
            correlation_id: Some("order 9".into()),
            sequence_number: Some(0),
            enqueued_at: Some(Timestamp(1_799_999_990_000)),
            delivery_count: Some(0),
        });
        let mut expected = bare;
        expected["correlationId"] = "order 9".into();
        expected["sequenceNumber"] = 0.into();
        expected["enqueuedAt"] = "2027-01-15T07:59:50.000Z".into();
        expected["deliveryCount"] = 0.into();
        assert_eq!(told, expected);
    }

    #[test]
    fn a_broadcast_that_nobody_confirms_is_in_doubt_and_no_open_doubt() {
        for code in Code::ALL {
            let ended = |state| Outcome::ended(state, Fault::new(code, "because"));
            assert_eq!(ended(State::InDoubt).is_open_doubt(), code != Code::Unconfirmed);
            assert!(!ended(State::Failed).is_open_doubt());
        }
    }

    #[test]
    fn a_long_value_that_was_asked_for_is_cut_to_its_beginning_and_its_length() {
        for short in [json!(null), json!(42.5), json!("on"), json!([1, 2]), "x".repeat(1000).into()] {
            assert_eq!(bounded(short.clone()), short);
        }
        let long = bounded("ä".repeat(30_000).into());
        let text = long.as_str().unwrap();
        assert!(text.len() < 300 && text.starts_with("\"ää") && text.ends_with("ä… (60002 bytes)"), "{text}");
        assert_eq!(in_short(&json!({"a": "b"})), r#"{"a":"b"}"#);
        assert!(in_short(&json!(vec![77; 1000])).ends_with("… (3001 bytes)"));
    }
}
