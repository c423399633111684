//! Who has a bus, and who waits for it.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::link::Link;
use super::super::port::Page;
use super::super::wire::{Call, Request};
use super::super::{Ask, Grant};

/// How often a line is tried before a request, if it is lost or disturbed each time before it has shown anything.
pub(super) const TRIES_MAX: u32 = 3;

/// Who has the bus, and who waits for it, whatever the line is.
pub(super) struct Callers {
    pub(super) queue: mpsc::Receiver<Grant>,
    /// Who has the bus.
    pub(super) seat: Option<Held>,
    /// Turns that were set aside, in order.
    pub(super) parked: VecDeque<Held>,
    /// Nobody can come any more.
    pub(super) deserted: bool,
}

impl Callers {
    /// Whether nobody has the bus, and nobody will.
    pub(super) fn are_gone(&self) -> bool {
        self.deserted && self.seat.is_none() && self.parked.is_empty()
    }
}

/// A turn that was given.
pub(super) struct Held {
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) errand: u64,
    /// A read of the same unit that changes nothing, and how often the line was tried with it.
    pub(super) harmless: Option<Request>,
    pub(super) tries: u32,
    /// A request that waits for a late answer to come or to lapse.
    pub(super) waiting: Option<Ask>,
    /// Whether a request of it was sent: then others may not come between.
    pub(super) begun: bool,
}

impl Held {
    /// Whether the caller of its waiting request is gone.
    pub(super) fn is_abandoned(&self) -> bool {
        self.waiting.as_ref().is_some_and(|ask| ask.wish.is_abandoned())
    }

    /// What is asked before the request that waits, so that the line shows how it takes that.
    pub(super) fn first(&self, link: &impl Link) -> Option<Call> {
        let call = &self.waiting.as_ref()?.call;
        let request = self.harmless.clone().filter(|_| self.tries < TRIES_MAX && self.must_try(link, call))?;
        Some(Call { request, timeout: None, ..call.clone() })
    }

    /// Whether the line, as it is now, can't be asked this: it has not shown how it takes that, and could.
    pub(super) fn must_try(&self, link: &impl Link, call: &Call) -> bool {
        self.harmless.is_some() && link.is_to_be_tried(call)
    }
}

/// Until when a turn's request must wait.
pub(super) fn holds(link: &impl Link, page: &Page, held: &Held) -> Option<Instant> {
    let until = |call: &Call| link.held_until(call, held.errand);
    let own = until(&held.waiting.as_ref()?.call);
    own.max(held.first(link).and_then(|first| until(&first))).max(page.others_until())
}
