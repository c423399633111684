//! The hub's side: one session for each identity, from which [`Delivery`]s and [`Call`]s come, and to which settlements
//! and answers go.
//!
//! What the rest of the gateway sees of the hub is in this file. [`identity`] decides when to connect and what to send,
//! [`transport`] is the seam below it; [`mqtt`] and its neighbours are the transports that there are.
//!
//! Invariants
//! - A [`Ticket`] belongs to the connection that delivered its message. When that connection ends, its queue of
//!   settlements goes with it, so a settlement that comes too late reaches nothing (G6).
//! - Completing takes a [`Receipt`], which only the ledger makes, after a commit (G1).
//! - No body leaves this module: what waits is a message's [`Gist`], in room that is bounded for the whole gateway.

pub mod account;
#[cfg(feature = "amqp")]
pub mod amqp;
#[cfg(any(test, feature = "proof"))]
pub mod any_bytes;
pub mod auth;
pub mod call;
pub mod dial;
#[cfg(feature = "https")]
pub mod https;
pub mod identity;
pub mod in_order;
mod left;
pub mod lock;
pub mod mqtt;
pub mod news;
pub mod pace;
pub mod properties;
pub mod room;
pub mod transport;
pub mod transports;
pub mod trouble;
pub mod twin;
pub mod way;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::command::message::Gist;
use crate::ledger::row::RowId;
use crate::ledger::Receipt;
use crate::proof::crash::{self, Point};
use crate::time::Timestamp;
pub use call::Call;
use room::Held;
pub use twin::SetPoint;

/// A ledger that takes longer to answer a connection hangs; the connection can't be kept alive meanwhile.
const LEDGER_PATIENCE: Duration = Duration::from_secs(10);

/// Most deliveries of a connection that are not settled: the hub's queue of a device holds 50.
pub const WINDOW_MAX: usize = 128;

/// A message that the hub has delivered, and the right to settle it.
#[derive(Debug)]
pub struct Delivery {
    /// Host name of the hub, lower case.
    pub hub: Arc<str>,
    /// The message, without its body.
    pub gist: Gist,
    /// When it came first, by the wall clock.
    pub received_at: Timestamp,
    /// When it came first, by the monotonic clock.
    pub received: Instant,
    /// Settles it.
    pub ticket: Ticket,
    /// Its place among what the gateway keeps: to be held for as long as it waits or runs.
    pub room: Held,
}

/// Where a link's deliveries go.
pub trait Intake: Send + Sync {
    /// When its messages came first.
    fn receipts(&self) -> Arc<dyn FirstReceipts>;

    /// Takes a delivery. It must not wait.
    ///
    /// # Errors
    /// As many wait as may. It comes back.
    fn offer(&self, delivery: Delivery) -> Result<(), Box<Delivery>>;

    /// Takes a call, behind what was offered before. It must not wait.
    ///
    /// # Errors
    /// As many wait as may. It comes back.
    fn offer_call(&self, call: Call) -> Result<(), Box<Call>>;

    /// Takes a set point, behind what was offered before. It must not wait.
    ///
    /// # Errors
    /// As many wait as may. It comes back.
    fn offer_set_point(&self, set_point: SetPoint) -> Result<(), Box<SetPoint>>;

    /// A connection has ended: drops what waits and came on it, as the hub will deliver it again, nobody waits for
    /// the answer to a call, and what is desired is read again.
    fn forget(&self);
}

/// When the messages of a device came first.
pub trait FirstReceipts: Send + Sync {
    /// When a message that came at `at` came first in this life of the daemon: by the monotonic clock, and by the wall
    /// clock of then. Asked for each that comes, whether it is offered or left with the hub.
    fn of(&self, hub: &str, gist: &Gist, at: Instant, wall: Timestamp) -> (Instant, Timestamp);
}

/// The right to settle one delivery, once, on the connection that it came on.
#[derive(Debug)]
pub struct Ticket {
    number: u64,
    /// `None`: the hub knows of nothing to settle.
    settlements: Option<Settlements>,
}

/// Where the tickets of one connection are settled.
#[derive(Debug, Clone)]
pub struct Settlements {
    queue: mpsc::Sender<Settled>,
    /// A delivery was given back: the connection is about to be dropped, and what came behind it comes again.
    given_back: Arc<AtomicBool>,
}

/// What is to become of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// The hub may forget the delivery with this number.
    Complete(u64),
    /// The same, and it will never be carried out. Not every transport can say so.
    Reject(u64),
    /// The hub is to keep the delivery with this number.
    Abandon(u64),
    /// The same, and it is not to hear of that, as it would count it.
    Leave(u64),
}

/// A settlement, with what it stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// What is to become of the delivery.
    pub settlement: Settlement,
    /// The row that says so.
    pub row: Option<RowId>,
}

impl Settlements {
    /// For a new connection, with room for `most` deliveries that are not settled.
    pub fn new(most: usize) -> (Settlements, mpsc::Receiver<Settled>) {
        let (queue, settled) = mpsc::channel(most);
        (Settlements { queue, given_back: Arc::default() }, settled)
    }

    fn are_open(&self) -> bool {
        !self.queue.is_closed() && !self.given_back.load(Ordering::Relaxed)
    }
}

impl Ticket {
    /// A ticket for a connection's delivery number `number`.
    pub fn new(number: u64, settlements: Settlements) -> Self {
        Ticket { number, settlements: Some(settlements) }
    }

    /// A ticket for a message that the hub forgot when it delivered it. It is live for ever: nobody would bring the
    /// message again.
    pub fn of_the_only_delivery() -> Self {
        Ticket { number: 0, settlements: None }
    }

    /// Whether the connection that delivered the message still stands.
    pub fn is_live(&self) -> bool {
        self.settlements.as_ref().is_none_or(Settlements::are_open)
    }

    /// Returns when that connection has ended. Cancel-safe.
    pub async fn dies(&self) {
        match &self.settlements {
            Some(settlements) => settlements.queue.closed().await,
            None => std::future::pending().await,
        }
    }

    /// Lets the hub forget the message: what it stands on is durable. If the connection is gone, the hub will deliver
    /// the message again, and the ledger will know it.
    pub fn complete(self, stands_on: Receipt) {
        self.settle(Settlement::Complete(self.number), Some(stands_on.row()));
        crash::point(Point::SettlementQueued);
    }

    /// The same, where the message is refused: by those transports that can, its sender is told.
    pub fn reject(self, stands_on: Receipt) {
        self.settle(Settlement::Reject(self.number), Some(stands_on.row()));
        crash::point(Point::SettlementQueued);
    }

    /// Leaves the message with the hub, which will deliver it again.
    pub fn abandon(self) {
        self.give_back(Settlement::Abandon(self.number));
    }

    /// The same of a message that can't be recorded: the hub is told nothing, and delivers it again when its lock runs
    /// out, which it does not count.
    pub fn leave(self) {
        self.give_back(Settlement::Leave(self.number));
    }

    fn give_back(&self, how: Settlement) {
        if let Some(settlements) = &self.settlements {
            settlements.given_back.store(true, Ordering::Relaxed);
        }
        self.settle(how, None);
    }

    fn settle(&self, settlement: Settlement, row: Option<RowId>) {
        // The queue has a place for every delivery of its connection that is not settled, so it is never full; closed
        // means that the connection is gone, and with it the delivery.
        if let Some(settlements) = &self.settlements {
            let _ = settlements.queue.try_send(Settled { settlement, row });
        }
    }
}
