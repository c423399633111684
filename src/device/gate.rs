//! What stands between a command and the wire.

use std::future::pending;

use tokio::time::{sleep_until, Instant};

use super::{Context, Origin, Work};
use crate::bus::call::Permit;
use crate::command::decide::{Deadline, Freshness};
use crate::command::outcome::{Outcome, State};
use crate::device::run::{Gate, Go};

/// Lets a command pass while its deadline, who asked for it, the ledger and the daemon allow it.
pub(super) struct CommandGate<'a> {
    context: &'a Context,
    work: &'a mut Work,
    deadline: Deadline,
    /// A lock of its device bars it.
    heeds_locks: bool,
    /// It did not pass since the ledger can't take it.
    is_unrecordable: bool,
}

impl<'a> CommandGate<'a> {
    pub(super) fn new(
        context: &'a Context,
        work: &'a mut Work,
        deadline: Deadline,
        heeds_locks: bool,
    ) -> CommandGate<'a> {
        CommandGate { context, work, deadline, heeds_locks, is_unrecordable: false }
    }

    /// Whether the command did not pass since the ledger can't take it.
    pub(super) fn is_unrecordable(&self) -> bool {
        self.is_unrecordable
    }

    /// Returns when a lock bars the command. Cancel-safe.
    async fn is_barred(&self) {
        let mut locked = self.context.lockouts.subscribe();
        while self.locked_out().is_none() {
            if locked.changed().await.is_err() {
                return pending().await;
            }
        }
    }
}

impl Gate for CommandGate<'_> {
    fn may_go(&mut self) -> Go {
        if let Some(outcome) = self.work.origin.withdrawn() {
            return Go::End(outcome);
        }
        let freshness = self.work.judge(self.deadline, self.context.ledger.wall_clock());
        if freshness == Freshness::Expired {
            return Go::End(self.expired());
        }
        if let Some(outcome) = self.locked_out().or_else(|| self.work.superseded()) {
            return Go::End(outcome);
        }
        let forgotten = !self.work.is_recorded() && !self.work.is_wanted();
        self.is_unrecordable = !self.context.ledger.is_well();
        let stops = self.context.stop.is_cancelled() || self.is_unrecordable;
        // A clock that is doubted again tells no age: the command waits for it.
        if forgotten || stops || freshness == Freshness::Unknown {
            return Go::No;
        }
        Go::Yes
    }

    fn not_after(&self) -> Instant {
        self.work.not_after(self.deadline, self.context.ledger.wall_clock())
    }

    fn expired(&self) -> Outcome {
        self.work.expired(self.deadline)
    }

    async fn called_off(&self) {
        let look = self.work.next_look(self.deadline, self.context.ledger.wall_clock());
        tokio::select! {
            () = self.context.stop.cancelled() => {}
            () = self.work.origin.goes() => {}
            () = self.is_barred() => {}
            () = self.work.outdated.cancelled() => {}
            // One that has a row is the gateway's own.
            () = self.work.origin.dies(), if !self.work.is_recorded() => {}
            () = sleep_until(look) => {}
        }
    }

    async fn withdrawn(&self) {
        tokio::select! {
            () = self.work.origin.goes() => {}
            () = self.is_barred() => {}
            () = self.work.outdated.cancelled() => {}
        }
    }

    fn insists(&self) -> bool {
        matches!(self.work.origin, Origin::Operator(_))
    }

    fn waits_for_its_unit(&self) {
        self.context.show_held();
    }

    fn permit(&self) -> Permit {
        match self.heeds_locks {
            true => self.context.lockouts.permit(self.work.barred()),
            false => Permit::default(),
        }
    }

    fn locked_out(&self) -> Option<Outcome> {
        self.heeds_locks.then(|| self.context.lockouts.end_of(self.work.barred())).flatten()
    }

    async fn record_executing(&mut self) -> bool {
        let caller = self.work.origin.caller().cloned();
        // Who promises the end of a call may be giving it a row just now.
        let mut called = match &caller {
            Some(caller) => Some(caller.row().await),
            None => None,
        };
        let given = called.as_ref().and_then(|row| row.map(|(row, _)| row));
        match self.context.ledger.begin(self.work.row.or(given), self.work.new.clone()).await {
            Ok(row) => {
                self.work.row = Some(row);
                if let (Some(called), Some(caller)) = (&mut called, &caller) {
                    **called = Some((row, State::Executing));
                    caller.set_recorded(true);
                }
                // From here on it may have been on the wire, whatever happens: it can only be resolved, not begun
                // again.
                self.work.interrupted = Some(self.work.interrupted.unwrap_or(0) + 1);
                true
            }
            Err(error) => {
                tracing::debug!(device = %self.context.id, %error, "a command was not begun");
                self.is_unrecordable = true;
                false
            }
        }
    }
}
