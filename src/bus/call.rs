//! What is asked of a bus, and how that ends. The cases of [`Wire`] are the rows of the table "What an exchange leads
//! to" in the contract: everything that a line can do ends in one of them.

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Patience;
use crate::peripheral::exchange::{Answer, Refusal, Request};
use crate::peripheral::quirks::Quirks;
use crate::time::{until, Timestamp};

/// How one exchange on a line ended. Reasons are sentences for the person on site.
#[derive(Debug, Clone, PartialEq)]
pub enum Wire {
    /// The peripheral answered this request.
    Answered(Answer),
    /// The peripheral, or a gateway before it, answered this request with a refusal.
    Refused(Refusal),
    /// Not one byte of the request left the gateway.
    NotSent(String),
    /// The request, or a part of it, was sent, and nothing came back in time.
    NoAnswer(String),
    /// The request was sent, and what came back is not its answer.
    BadReply(String),
    /// The request was sent to all units of a line, and none of them answers that.
    Broadcast,
}

/// A request with the place it goes to.
#[derive(Debug, Clone)]
pub struct Call {
    /// Modbus unit id; 0 on a line of Modbus is all units. Unused on a serial line.
    pub unit: u8,
    /// The device for which it is asked: who leaves that unanswered too often is away. `None`: for none, such as to
    /// find out who is there.
    pub of: Option<Arc<str>>,
    /// What is asked.
    pub request: Request,
    /// How long to wait for the answer; `None` takes the device's `response_timeout`, or else the bus's.
    pub timeout: Option<Duration>,
    /// What the device has of its own in the bus's place.
    pub patience: Patience,
    /// From when on it is not to be sent any more: waiting for the line may take a while.
    pub not_after: Option<Instant>,
    /// Leave to send it, for one exchange.
    pub permit: Permit,
    /// Which look of a command at what it has written, from 1; 0 for the command itself. A look is answered by its own
    /// answer only: a late one to the look before shows what stood there then.
    pub look: u32,
    /// Which of a command's requests it is, where it has several: of two that are the same each has its own answer.
    pub part: u32,
    /// What is understood although it bends the protocol.
    pub quirks: Quirks,
    /// The longest that the unit is ever waited for, where that is longer than the timeout: from it follows how late
    /// its answer may come.
    pub slowest: Option<Duration>,
}

impl Call {
    /// That may be sent whenever the line is free, with the bus's timeout.
    pub fn new(unit: u8, request: Request) -> Call {
        let (timeout, patience, not_after, quirks) = (None, Patience::default(), None, Quirks::NONE);
        let (permit, look, part, slowest) = (Permit::default(), 0, 0, None);
        let of = None;
        Call { unit, of, request, timeout, patience, not_after, permit, look, part, quirks, slowest }
    }

    /// How long to wait for the answer, if not as long as the bus says: a command's own time wins over its device's.
    pub(in crate::bus) fn own_timeout(&self) -> Option<Duration> {
        self.timeout.or(self.patience.response_timeout)
    }

    /// The silence to be kept after its exchange, if not the bus's.
    pub(in crate::bus) fn own_turnaround(&self) -> Option<Duration> {
        self.patience.turnaround
    }

    /// The timeout that its answer may be late by, if it is waited for so long.
    pub(in crate::bus) fn slowest(&self, timeout: Duration) -> Duration {
        self.slowest.map_or(timeout, |slowest| slowest.max(timeout))
    }

    /// Whether it is not to be sent any more.
    pub fn is_called_off(&self) -> bool {
        self.not_after.is_some_and(|limit| Instant::now() >= limit) || self.permit.is_taken_back()
    }

    /// Returns when it is not to be sent any more. Cancel-safe.
    pub async fn called_off(&self) {
        tokio::select! {
            biased;
            () = self.permit.0.taken_back.cancelled() => {}
            () = at(self.not_after) => {}
        }
    }
}

/// Leave to send a call, which whoever gave it can take back until it is used. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Permit(Arc<Given>);

#[derive(Debug, Default)]
struct Given {
    taken_back: CancellationToken,
    /// When the first byte has left. Locked while the line is offered it: it leaves before the permit is taken back, or
    /// not at all.
    used: Mutex<Option<Timestamp>>,
}

impl Permit {
    /// Takes it back: nothing of the call is sent, however far it has come. `false`: its first byte has left.
    pub fn take_back(&self) -> bool {
        let used = self.used();
        if used.is_none() {
            self.0.taken_back.cancel();
        }
        used.is_none()
    }

    /// When the first byte has left, by the wall clock, if one has.
    pub fn used_at(&self) -> Option<Timestamp> {
        *self.used()
    }

    fn is_taken_back(&self) -> bool {
        self.0.taken_back.is_cancelled()
    }

    /// Whether nobody else has it: its call is over.
    pub fn is_over(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// The same to ask something else first, for as long as this one is not taken back.
    pub(in crate::bus) fn to_try(&self) -> Permit {
        Permit(Arc::new(Given { taken_back: self.0.taken_back.child_token(), used: Mutex::default() }))
    }

    /// Offers the line the first byte, unless the permit is taken back. The writer must wait for that as well.
    pub(crate) fn offer<E>(&self, write: impl FnOnce() -> Poll<Result<usize, E>>) -> Poll<Result<usize, E>> {
        let mut used = self.used();
        if self.is_taken_back() {
            return Poll::Pending;
        }
        let written = write();
        if matches!(written, Poll::Ready(Ok(1..))) {
            used.get_or_insert_with(Timestamp::now);
        }
        written
    }

    fn used(&self) -> MutexGuard<'_, Option<Timestamp>> {
        // It is right, whoever panicked while holding it.
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a time, if there is one.
pub(in crate::bus) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => until(time).await,
        None => pending().await,
    }
}
