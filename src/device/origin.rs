//! Who asked for a command, for how long that counts, and how its end is told to them.
//!
//! Invariants
//! - Who asked is told of the end once, and only after it is durable: a message is settled at the hub, a call and a
//!   person are answered, what is desired is acknowledged. A person is told before if the ledger can't take the end,
//!   and that it can't.

use std::future::pending;

use serde_json::Value as Json;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::caller::Caller;
use crate::command::outcome::{Code, Fault, Outcome, State};
use crate::command::Answer;
use crate::hub::twin::Wish;
use crate::hub::Ticket;
use crate::ledger::Receipt;

/// Who asked for a command.
pub(super) enum Origin {
    /// A message of the hub. What settles it, unless that was done, or an earlier life of the daemon took it.
    Message(Option<Ticket>),
    /// Direct methods of the hub: the same one, called for once or several times.
    Method(Caller),
    /// A desired property of the device's twin.
    Twin(Wish),
    /// A person at this machine.
    Operator(Operator),
}

/// A person who waits for the end of a command.
pub struct Operator {
    /// The user's number.
    pub(super) uid: u32,
    /// What is asked for is to be done also if the device is locked.
    overrides: bool,
    /// Cancelled when nobody waits any more.
    gone: CancellationToken,
    /// Where the end is told, until something is.
    answer: Option<oneshot::Sender<Told>>,
}

/// What a person is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// How the command ended, in the form of a result event.
    Ended(Json),
    /// The ledger could not take what was to be recorded.
    Unrecorded(String),
}

impl Origin {
    /// Whether it still counts: a message whose connection is gone comes again, a caller hears nothing on one that is
    /// gone, and a person may go away.
    pub(super) fn is_live(&self) -> bool {
        match self {
            Origin::Message(ticket) => ticket.as_ref().is_some_and(Ticket::is_live),
            Origin::Method(caller) => caller.is_live(),
            Origin::Twin(wish) => wish.is_live(),
            Origin::Operator(operator) => !operator.gone.is_cancelled(),
        }
    }

    /// Whether it is a message that the hub still wants to be told the end of.
    pub(super) fn is_to_be_settled(&self) -> bool {
        matches!(self, Origin::Message(Some(ticket)) if ticket.is_live())
    }

    /// Whether it is told how it ended, and the hub keeps nothing of it meanwhile.
    pub(super) fn is_told_its_end(&self) -> bool {
        matches!(self, Origin::Method(_) | Origin::Twin(_))
    }

    /// Whether it is to be done also if its device is locked.
    pub(super) fn overrides(&self) -> bool {
        matches!(self, Origin::Operator(Operator { overrides: true, .. }))
    }

    /// The end of a command that nobody wants any more, and nobody will bring again.
    pub(super) fn withdrawn(&self) -> Option<Outcome> {
        let why = "whoever asked for it went away before it was sent; nothing was done";
        let outcome = || Outcome::ended(State::Expired, Fault::new(Code::Expired, why));
        match self {
            Origin::Operator(operator) => operator.gone.is_cancelled().then(outcome),
            Origin::Twin(_) => self.replaced(),
            Origin::Message(_) | Origin::Method(_) => None,
        }
    }

    /// The end of what is desired no more, or otherwise.
    pub(super) fn replaced(&self) -> Option<Outcome> {
        let Origin::Twin(wish) = self else { return None };
        let why =
            "the desired property was changed or removed before this value was sent, and only what is desired is \
                   done; nothing was sent";
        wish.is_outdated().then(|| Outcome::ended(State::Expired, Fault::new(Code::Superseded, why)))
    }

    /// Returns when [`Origin::withdrawn`] has something to say. Cancel-safe.
    pub(super) async fn goes(&self) {
        match self {
            Origin::Message(_) | Origin::Method(_) => pending().await,
            Origin::Twin(wish) => wish.is_replaced().await,
            Origin::Operator(operator) => operator.gone.cancelled().await,
        }
    }

    /// Returns when the connection of a message, or of a call, has ended. Cancel-safe.
    pub(super) async fn dies(&self) {
        match self {
            Origin::Message(Some(ticket)) => ticket.dies().await,
            Origin::Method(caller) => caller.dies().await,
            Origin::Twin(wish) => wish.dies().await,
            Origin::Message(None) | Origin::Operator(_) => pending().await,
        }
    }

    /// Lets the hub forget a message: what it stands on is durable.
    pub(super) fn complete(&mut self, receipt: Receipt) {
        if let Some(ticket) = self.take_ticket() {
            ticket.complete(receipt);
        }
    }

    /// Lets the hub forget a message that is refused, and its sender know that, where the transport can.
    pub(super) fn reject(&mut self, receipt: Receipt) {
        if let Some(ticket) = self.take_ticket() {
            ticket.reject(receipt);
        }
    }

    /// Tells a durable end: `event` is what a caller or a person is told of it.
    pub(super) fn conclude(&mut self, end: &Outcome, receipt: Receipt, event: impl FnOnce() -> Json) {
        match self {
            Origin::Operator(operator) => operator.tell(|| Told::Ended(event())),
            Origin::Method(caller) => caller.tell(&Answer::ended(end, event())),
            Origin::Twin(wish) => wish.tell(end),
            message if end.state.is_refusal() => message.reject(receipt),
            message => message.complete(receipt),
        }
    }

    /// What settles a message, which is its holder's now.
    pub(super) fn take_ticket(&mut self) -> Option<Ticket> {
        match self {
            Origin::Message(ticket) => ticket.take(),
            Origin::Method(_) | Origin::Twin(_) | Origin::Operator(_) => None,
        }
    }

    /// The person, if one asked.
    pub(super) fn operator(&mut self) -> Option<&mut Operator> {
        match self {
            Origin::Message(_) | Origin::Method(_) | Origin::Twin(_) => None,
            Origin::Operator(operator) => Some(operator),
        }
    }

    /// Those who have called for it, if it is a method's.
    pub(super) fn caller(&self) -> Option<&Caller> {
        match self {
            Origin::Method(caller) => Some(caller),
            Origin::Message(_) | Origin::Twin(_) | Origin::Operator(_) => None,
        }
    }

    /// What is desired, if it is that.
    pub(super) fn wish(&mut self) -> Option<&mut Wish> {
        match self {
            Origin::Twin(wish) => Some(wish),
            Origin::Message(_) | Origin::Method(_) | Origin::Operator(_) => None,
        }
    }

    /// Answers those who have called for it, if it is a method's.
    pub(super) fn answer(&mut self, answer: &Answer) {
        if let Some(caller) = self.caller() {
            caller.tell(answer);
        }
    }
}

impl Operator {
    /// Somebody who waits at `answer`, until `gone` is cancelled.
    pub fn new(uid: u32, gone: CancellationToken, answer: oneshot::Sender<Told>) -> Operator {
        Operator { uid, overrides: false, gone, answer: Some(answer) }
    }

    /// Whether what is asked for is to be done also if the device is locked.
    #[must_use]
    pub fn overriding(self, overrides: bool) -> Operator {
        Operator { overrides, ..self }
    }

    /// Whoever has been told, or has gone, does not want to know.
    pub(super) fn tell(&mut self, told: impl FnOnce() -> Told) {
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(told());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Settled, Settlement, Settlements};
    use crate::ledger::row::RowId;
    use crate::ledger::Ledger;

    #[tokio::test]
    async fn what_is_refused_is_rejected_at_the_hub_and_every_other_end_completed() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("ledger.db"), "hub.example", &[]).unwrap();
        let receipt = || ledger.delivered_again(RowId::of(1));
        for end in State::ALL.into_iter().filter(|state| state.is_final()) {
            let (settlements, mut settled) = Settlements::new(1);
            let mut origin = Origin::Message(Some(Ticket::new(7, settlements)));
            let outcome = Outcome { state: end, value: None, fault: None };
            origin.conclude(&outcome, receipt(), || unreachable!("nobody but the hub is told"));
            let expected = match end {
                State::Rejected | State::Expired => Settlement::Reject(7),
                _ => Settlement::Complete(7),
            };
            assert_eq!(settled.try_recv(), Ok(Settled { settlement: expected, row: Some(RowId::of(1)) }), "{end}");
            // What was settled when it was accepted is not settled again.
            origin.conclude(&outcome, receipt(), || unreachable!("nobody but the hub is told"));
            assert!(settled.try_recv().is_err() && !origin.is_live());
        }
        ledger.close().await;
    }
}
