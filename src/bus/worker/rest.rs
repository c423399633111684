//! When a line that was opened may be asked, when it is closed since there is nothing to ask, and when it is opened all
//! the same.

use tokio::select;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{stopped, Working, BACKOFF};
use crate::bus::call::{Call, Wire};
use crate::bus::link::{bounded, Ended, Link, Lost, TOO_LATE};

impl<L: Link> Working<'_, L> {
    /// Waits until the open line may be asked: since its opening the bus's `connect_pause` has passed, and the port,
    /// which is known since then only, owes nothing to somebody else. What comes meanwhile is heard and discarded.
    pub(super) async fn settle(&mut self, call: &Call, stop: &CancellationToken) -> Result<(), Ended> {
        let pause = self.reopening.opened + bounded(self.configured.borrow().connect_pause);
        while let Some(until) = self.page.others_until().max(Some(pause)).filter(|until| *until > Instant::now()) {
            self.pulse.allow(until.duration_since(Instant::now()));
            let lost = select! {
                biased;
                () = stop.cancelled() => return Err(Ended::kept(stopped())),
                () = call.called_off() => return Err(Ended::not_sent(TOO_LATE)),
                () = crate::time::until(until) => None,
                lost = self.link.listen() => lost,
            };
            if let Some(lost) = lost {
                let why = match &lost {
                    Lost::Gone(why) => why.clone(),
                    Lost::Idle | Lost::Timeout { .. } => "the connection ended before anything was asked on it".into(),
                };
                self.lost(lost.clone());
                return Err(Ended { wire: Wire::NotSent(why), lost: Some(lost) });
            }
        }
        Ok(())
    }

    /// The holder has gone.
    pub(super) fn end_turn(&mut self) {
        self.callers.turns.end();
        self.reopening.idle = Instant::now();
        if self.configured.borrow().idle_close.is_some_and(|after| after.is_zero()) {
            self.rest_line();
        }
    }

    /// A line that was closed from the other side while nothing was asked is opened again after a while, if somebody
    /// wants to know what comes unasked.
    pub(super) fn stay_in_touch(&mut self) {
        let is_closed = !self.link.is_open() && self.reopening.next.is_none();
        if is_closed && self.link.is_listened_to() && self.configured.borrow().idle_close.is_none() {
            self.reopening.next = Some(Instant::now() + self.reopening.pause);
            self.reopening.pause = (self.reopening.pause * 2).min(BACKOFF.1);
        }
    }

    /// Closes the open line until somebody has something to ask. What is owed on it stays owed: a server may hand on
    /// over the next connection what was asked over this one.
    pub(super) fn rest_line(&mut self) {
        if self.link.is_open() {
            debug!(bus = %self.name, "there is nothing to ask: the bus is closed until there is");
            self.link.close();
            self.lost(Lost::Idle);
        }
    }
}
