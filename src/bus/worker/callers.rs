//! Who has a bus, and who waits for it.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::{Ask, Grant};
use crate::bus::call::Call;
use crate::bus::link::Link;
use crate::bus::port::owed::Page;
use crate::peripheral::exchange::Request;

/// How often a line is tried before a request, if it is lost or disturbed each time before it has shown anything.
pub(in crate::bus) const TRIES_MAX: u32 = 3;

/// Who has the bus, and who waits for it, whatever the line is.
pub(in crate::bus) struct Callers {
    pub(in crate::bus) queue: mpsc::Receiver<Grant>,
    /// Who has the bus.
    pub(in crate::bus) holder: Option<Held>,
    /// Turns that were set aside, in order.
    pub(in crate::bus) parked: VecDeque<Held>,
    /// Nobody can come any more.
    pub(in crate::bus) deserted: bool,
}

impl Callers {
    /// Whether nobody has the bus, and nobody will.
    pub(in crate::bus) fn are_gone(&self) -> bool {
        self.deserted && self.holder.is_none() && self.parked.is_empty()
    }
}

/// A turn that was given.
pub(in crate::bus) struct Held {
    pub(in crate::bus) asks: mpsc::Receiver<Ask>,
    pub(in crate::bus) caller: u64,
    /// A read of the same unit that changes nothing, and how often the line was tried with it.
    pub(in crate::bus) harmless: Option<Request>,
    pub(in crate::bus) tries: u32,
    /// A request that waits for a late answer to come or to lapse.
    pub(in crate::bus) waiting: Option<Ask>,
    /// Whether a request of it was sent: then others may not come between.
    pub(in crate::bus) begun: bool,
}

impl Held {
    /// Whether the caller of its waiting request is gone.
    pub(in crate::bus) fn is_abandoned(&self) -> bool {
        self.waiting.as_ref().is_some_and(|ask| ask.wish.is_abandoned())
    }

    /// What is asked before the request that waits, so that the line shows how it takes that.
    pub(in crate::bus) fn first(&self, link: &impl Link) -> Option<Call> {
        let call = &self.waiting.as_ref()?.call;
        let request = self.harmless.clone().filter(|_| self.tries < TRIES_MAX && self.must_try(link, call))?;
        Some(Call { request, timeout: None, ..call.clone() })
    }

    /// Whether the line, as it is now, can't be asked this: it has not shown how it takes that, and could.
    pub(in crate::bus) fn must_try(&self, link: &impl Link, call: &Call) -> bool {
        self.harmless.is_some() && link.is_to_be_tried(call)
    }
}

/// Until when a turn's request must wait.
pub(in crate::bus) fn holds(link: &impl Link, page: &Page, held: &Held) -> Option<Instant> {
    let until = |call: &Call| link.held_until(call, held.caller);
    let own = until(&held.waiting.as_ref()?.call);
    own.max(held.first(link).and_then(|first| until(&first))).max(page.others_until())
}
