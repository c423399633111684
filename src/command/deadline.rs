//! How long a command may wait before it reaches the wire (G13). Pure: what time it is is told.

use std::time::Duration;

use super::envelope::Envelope;
use super::outcome::{Code, Fault, Outcome, State};
use crate::time::Timestamp;

/// When a command must have reached the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// The command's own limit, counted from receipt.
    pub limit: Duration,
    /// The message's expiry.
    pub expires_at: Option<Timestamp>,
}

/// What is known of a command's age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age {
    /// Time since receipt by the monotonic clock; for a command of an earlier life of the daemon, since start.
    pub monotonic: Duration,
    /// When an earlier life of the daemon received it, by the wall clock of then.
    pub received_at: Option<Timestamp>,
    /// The wall clock now, if it can be believed.
    pub now: Option<Timestamp>,
}

/// How long a message that comes now has been with this gateway already, at least, if this life of the daemon, which
/// has lasted for `life`, does not know when it came first. A deadline counts from the first receipt (G13).
///
/// What the hub has delivered before, and this life does not know, an earlier life has given back: it came before this
/// one began, and after the hub took it. Where the transport does not tell both, or the hub has not delivered it
/// before, it came now. The hub's count does not rise when a lock runs out: a message that an earlier life took and did
/// not settle, and that has no row, comes as a new one, as it does on MQTT.
pub fn age_at_receipt(envelope: &Envelope, now: Timestamp, life: Duration) -> Duration {
    match (envelope.delivery_count, envelope.enqueued_at) {
        (Some(1..), Some(enqueued_at)) => now.since(enqueued_at).min(life),
        _ => Duration::ZERO,
    }
}

/// Whether a command may still go on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It may.
    Fresh,
    /// Its deadline has passed.
    Expired,
    /// The wall clock can't be believed, or stands before its receipt: its age is not known until the clock is right.
    Unknown,
}

impl Deadline {
    /// Judges the age of a command. The wall clock alone never makes a command younger.
    pub fn judge(&self, age: Age) -> Freshness {
        let past_expiry = self.expires_at.zip(age.now).is_some_and(|(at, now)| now >= at);
        if age.monotonic >= self.limit || past_expiry {
            return Freshness::Expired;
        }
        match (age.received_at, age.now) {
            (None, _) => Freshness::Fresh,
            (Some(_), None) => Freshness::Unknown,
            (Some(received_at), Some(now)) if now < received_at => Freshness::Unknown,
            (Some(received_at), Some(now)) if now >= received_at.plus(self.limit) => Freshness::Expired,
            (Some(_), Some(_)) => Freshness::Fresh,
        }
    }

    /// The outcome of a command that came too late.
    pub fn expired(&self) -> Outcome {
        let limit = humantime::format_duration(self.limit);
        let message = match self.expires_at {
            Some(at) => format!("it did not reach the wire within {limit} of its receipt or before its expiry {at}"),
            None => format!("it did not reach the wire within {limit} of its receipt"),
        };
        Outcome::ended(State::Expired, Fault::new(Code::Expired, message))
    }
}
