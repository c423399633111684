//! The seam between an identity and the protocol that it is reached by.
//!
//! An identity decides: when to connect, by what it shows itself, what becomes of a delivery, which event goes next. A
//! transport carries that out, and keeps to itself what only its protocol knows: packet ids, subscriptions, pings. It
//! is reached in two steps, since the first one (look-up, TCP, TLS) takes one of few places, and the second may wait
//! long while the hub throttles.
//!
//! Invariants
//! - Whatever belongs to an attachment ends with it: a settlement, an answer or an acknowledgement reaches no other one
//!   (G6).
//! - Deliveries are numbered from 1 on in the order in which they came, and are completed at the hub in that order
//!   (G5).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::time::Instant;

use super::account::Account;
use super::call::{Answered, CallId};
use super::trouble::Trouble;
use super::Settlement;
use crate::command::{Message, Method};
use crate::config::{Hub, Settle};
use crate::ledger::row::Event;

/// What a transport is about to have done.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What attachments have left at the hub, for the next daemon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rest {
    /// Nothing is locked.
    #[default]
    Nothing,
    /// What is held for a connection goes to the next by the same protocol at once: one by another waits.
    ForOthers,
    /// Something may be: the next daemon waits as after a crash.
    Doubtful,
    /// Something is, also for a transport that does not wait after a crash.
    Locked,
}

/// The daemon before this one has crashed, or has left something locked when it stopped.
#[derive(Debug, Clone, Copy)]
pub struct Crash {
    /// When this one began.
    pub begun: Instant,
    /// Devices may have been reached by other transports before.
    pub by_others: bool,
    /// It has stopped in order, and has left no more than [`Rest::ForOthers`].
    pub for_others: bool,
}

/// A protocol by which identities are reached.
pub trait Transport: Send + Sync {
    /// What attachments have left that the hub may keep locked.
    fn rest(&self) -> Rest {
        Rest::Nothing
    }

    /// The daemon before this one has not ended in order, and may have reached this device by this transport: it may
    /// have left something locked.
    fn note_crash(&self, _account: &Account, _device: &str, _crash: Crash) {}

    /// Whether an account's connection is no other's, so that it takes one of the places that there are. Where it is
    /// shared, the transport sees to it that there is a place for it.
    fn has_own_connection(&self, _account: &Account) -> bool {
        true
    }

    /// Reaches the hub for an identity, which has not shown itself yet.
    ///
    /// # Errors
    /// What kept it from that.
    fn reach<'a>(&'a self, account: &'a Account) -> Pending<'a, Result<Box<dyn Reached>, Trouble>>;

    /// Until when the hub may keep messages locked that an ended attachment of this device has left, so that one behind
    /// them would come before them (G5). `None`: it hands them out again at once.
    fn locked_until(&self, _account: &Account, _device: &str) -> Option<Instant> {
        None
    }
}

/// The hub is reached.
pub trait Reached: Send {
    /// Shows the identity, and is let in.
    ///
    /// # Errors
    /// The hub does not let it in, or is gone.
    fn attach<'a>(self: Box<Self>, entry: Entry<'a>) -> Pending<'a, Result<Box<dyn Attachment>, Trouble>>;
}

/// Notes when a message came that comes when nobody takes anything of its attachment any more: its deadline counts from
/// then (G13).
pub type NoteLate = Arc<dyn Fn(Message) + Send + Sync>;

/// As whom an identity is let in.
pub struct Entry<'a> {
    /// The hub.
    pub hub: &'a Hub,
    /// The device's id.
    pub device: &'a str,
    /// A SAS token; none where TLS has shown a certificate.
    pub token: Option<String>,
    /// Whether the hub keeps what waits for the device when the attachment ends. If not, that is lost.
    pub is_to_stay: bool,
    /// Whether changes of what is desired are to be told, where there is a twin.
    pub hears_desired: bool,
    /// Whether the device's messages are wanted. If not, none is to be taken out of its queue, as after
    /// [`Attachment::take_no_more`].
    pub wants_messages: bool,
    /// When the device's messages are completed: a transport that asks for so many at a time goes by it.
    pub settle: Settle,
    /// Whom to tell of what comes later than anybody takes it.
    pub note_late: NoteLate,
}

/// One attachment of an identity, from its entry to its end.
pub trait Attachment: Send {
    /// Whether the hub may have known the device from before. If not, no message has waited for it, and no earlier
    /// gateway has subscribed as it. A transport without sessions can't tell, and says yes.
    fn was_known(&self) -> bool;

    /// Waits until the hub has shown that it lets the device in, where the entry alone does not show that. It is asked
    /// of an attachment that is for nothing else, and takes no message.
    ///
    /// # Errors
    /// It does not.
    fn is_let_in(&mut self) -> Pending<'_, Result<(), Trouble>> {
        Box::pin(async { Ok(()) })
    }

    /// Asks for the device's messages, and for calls. [`Inbound::Ready`] says that they come.
    ///
    /// # Errors
    /// The attachment is over.
    fn receive(&mut self) -> Pending<'_, Result<(), Trouble>>;

    /// Asks for no more messages, as nobody would run them: where the hub hands out what it is asked for, each one
    /// would only be given back, which it counts. What is asked for already may come still.
    ///
    /// # Errors
    /// The attachment is over.
    fn take_no_more(&mut self) -> Pending<'_, Result<(), Trouble>> {
        Box::pin(async { Ok(()) })
    }

    /// What comes next. It may be dropped at any await, and nothing is half taken then.
    ///
    /// # Errors
    /// The attachment is over.
    fn next(&mut self) -> Pending<'_, Result<Inbound, Trouble>>;

    /// When [`Attachment::keep_alive`] is due.
    fn keep_alive_at(&self) -> Instant;

    /// Does what keeps the attachment alive.
    ///
    /// # Errors
    /// It is dead already.
    fn keep_alive(&mut self) -> Pending<'_, Result<(), Trouble>>;

    /// Tells the hub what became of deliveries. Completions whose turn has not come wait for those before them. Says
    /// whether the hub was told of any.
    ///
    /// # Errors
    /// The attachment is over; for a transport that knows no other way, also to leave deliveries with the hub.
    fn settle(&mut self, settlements: Vec<Settlement>) -> Pending<'_, Result<bool, Trouble>>;

    /// Answers a call that [`Inbound::Call`] has brought on this attachment. Whether the answer comes through, nobody
    /// tells: who has no answer calls again.
    ///
    /// # Errors
    /// The attachment is over.
    fn answer(&mut self, _answered: Answered) -> Pending<'_, Result<(), Trouble>> {
        Box::pin(async { Ok(()) })
    }

    /// Whether the device's twin can be asked for, once [`Inbound::Ready`] has come.
    fn has_twin(&self) -> bool {
        false
    }

    /// Asks for the device's twin, or reports to it. [`Inbound::Twin`] has the answer, if there is one.
    ///
    /// # Errors
    /// The attachment is over.
    fn ask_twin(&mut self, _request: TwinRequest) -> Pending<'_, Result<(), Trouble>> {
        Box::pin(async { Ok(()) })
    }

    /// Whether the hub can be told that a message is refused. If not, such a message is completed.
    fn can_reject(&self) -> bool {
        true
    }

    /// Sends a result event. [`Inbound::Published`] says that the hub has it, [`Inbound::EventRefused`] that it does
    /// not take it.
    ///
    /// # Errors
    /// The attachment is over.
    fn publish(&mut self, event: Event) -> Pending<'_, Result<(), Trouble>>;

    /// Whether each message says when the hub took it. One that is from before the ledger is told by that, and by
    /// nothing less; where none says so, a pause in what the hub sends by itself has to do (G15).
    fn tells_enqueued_time(&self) -> bool {
        false
    }

    /// Whether it is one connection, which a second client can end, and with which it is over. If not, there is
    /// somebody to take leave of whatever broke.
    fn is_one_connection(&self) -> bool {
        true
    }

    /// Whether a new token can be shown on this attachment. If not, one is made anew for it.
    fn takes_tokens(&self) -> bool {
        false
    }

    /// Shows a new token in place of the one before. If the hub does not take it now, [`Inbound::NotRenewed`] says so.
    ///
    /// # Errors
    /// The attachment is over: the hub refuses the token, or is gone.
    fn show(&mut self, _token: String) -> Pending<'_, Result<(), Trouble>> {
        Box::pin(async { Ok(()) })
    }

    /// Deliveries whose end the hub has not been told.
    fn unsettled(&self) -> usize;

    /// The number of the oldest of them.
    fn oldest(&self) -> Option<u64>;

    /// A message that came and was not given out by [`Attachment::next`]: asked for when the attachment has ended, as
    /// its deadline counts from when it came.
    fn left_behind(&mut self) -> Option<Message> {
        None
    }

    /// Nothing is given back any more: what can't be recorded comes again when its lock runs out, which the hub does
    /// not count. Where the end of a connection gives it back uncounted, there is nothing to be done.
    fn give_nothing_back(&mut self) {}

    /// Takes leave. Gives what has come meanwhile, as [`Attachment::left_behind`] does.
    fn detach(self: Box<Self>) -> Pending<'static, Vec<Message>>;
}

/// A request for a device's twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinRequest {
    /// By what its answer is known on its attachment.
    pub number: u64,
    /// What is to be merged into what the device reports, JSON. `None`: all of the twin is asked for.
    pub patch: Option<String>,
}

/// The answer to a request for a device's twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinAnswer {
    /// The request's number.
    pub number: u64,
    /// In the words of HTTP.
    pub status: u16,
    /// All of the twin, if that was asked for: as it came.
    pub body: Vec<u8>,
}

/// What the hub says of a device's twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TwinWord {
    /// An answer.
    Answer(TwinAnswer),
    /// What is desired has changed: the patch, as it came.
    Changed(Vec<u8>),
}

/// What the hub sends.
pub enum Inbound {
    /// The device's messages come from now on, and its events may go.
    Ready,
    /// A message.
    Delivery {
        /// Its number. `None`: the hub has forgotten it already, and can't be told anything of it.
        number: Option<u64>,
        /// The message.
        message: Message,
    },
    /// A call of a direct method. A transport that has none of these brings none.
    Call {
        /// By what [`Attachment::answer`] knows it.
        call: CallId,
        /// What is called.
        method: Method,
    },
    /// Something about the device's twin. A transport that has none brings none.
    Twin(TwinWord),
    /// A message that can't be taken on this attachment, which is to be ended: it comes again.
    Unclear {
        /// The message.
        message: Message,
        /// What is wrong.
        why: &'static str,
    },
    /// The hub has the event with this number of the ledger.
    Published(i64),
    /// The hub does not take an event, and takes others.
    EventRefused {
        /// Its number in the ledger.
        event: i64,
        /// What the hub says.
        why: String,
    },
    /// The hub takes no events at present, or not this one.
    EventPostponed {
        /// Its number in the ledger.
        event: i64,
        /// What the hub says.
        why: String,
        /// It may be for this event.
        is_suspect: bool,
    },
    /// The hub did not take the token that was shown last, for a reason that may pass. The one before counts still.
    NotRenewed(Trouble),
}
