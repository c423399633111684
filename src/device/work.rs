//! A command on its way: what it is, and until when it may begin.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::caller::Caller;
use super::lockout::Barred;
use super::origin::Origin;
use super::receipts::{Key, Receipts};
use super::CLOCK_PERIOD;
use crate::command::decide::{self, Age, Checked, Deadline, Freshness, Known, Past, Settle, Verdict};
use crate::command::newest;
use crate::command::outcome::{Fault, Outcome, State};
use crate::config::Device;
use crate::hub::room::Held;
use crate::ledger::row::{RowId, Source, Unfinished};
use crate::ledger::NewRow;
use crate::peripheral::{Action, Command};
use crate::time::trust::WallClock;
use crate::time::Timestamp;

/// A command on its way.
pub(super) struct Work {
    /// Its row, if it has one.
    pub(super) row: Option<RowId>,
    /// Who asked for it.
    pub(super) origin: Origin,
    pub(super) new: NewRow,
    /// Why it can't be run, if that was plain when it came.
    pub(super) refused: Option<Fault>,
    /// When it came first; for a command of an earlier life of the daemon, when this one began.
    pub(super) received: Instant,
    /// Under which its first receipt is remembered.
    pub(super) key: Option<Key>,
    /// It is of an earlier life of the daemon; its age is not known by the monotonic clock.
    pub(super) earlier_life: bool,
    /// It was `executing` when the daemon died, after so many attempts.
    pub(super) interrupted: Option<u32>,
    /// When its first byte left in this life of the daemon, by the wall clock.
    pub(super) sent_at: Option<Timestamp>,
    /// A backup had it as accepted, and it may have been executed since.
    pub(super) restored: bool,
    /// Cancelled when a newer one is to be done in its place.
    pub(super) outdated: CancellationToken,
    /// Its place among what the gateway keeps.
    pub(super) _room: Option<Held>,
}

impl Work {
    /// A command that has just come, of which nothing is recorded or done.
    pub(super) fn new(origin: Origin, new: NewRow, refused: Option<Fault>) -> Work {
        Work {
            row: None,
            origin,
            new,
            refused,
            received: Instant::now(),
            key: None,
            earlier_life: false,
            interrupted: None,
            restored: false,
            sent_at: None,
            outdated: CancellationToken::new(),
            _room: None,
        }
    }

    /// A command that an earlier life of the daemon left, or an earlier stay of its device in this one's configuration;
    /// this one began at `started`.
    pub(super) fn left(left: Unfinished, started: Instant, receipts: &Receipts) -> Work {
        let known = receipts.of_row(left.row);
        Work {
            row: Some(left.row),
            origin: Origin::Message(None),
            refused: None,
            interrupted: (left.state == State::Executing).then_some(left.attempts),
            restored: left.restored,
            sent_at: None,
            new: NewRow {
                hub: left.hub,
                source: left.source,
                device: left.device,
                message_id: left.message_id,
                // The row has it already.
                digest: [0; 32],
                command: Some(left.command),
                value: left.value,
                received_at: left.received_at,
                expires_at: left.expires_at,
                envelope: left.envelope,
            },
            received: known.map_or(started, |(_, received)| received.at),
            key: known.map(|(key, _)| key),
            earlier_life: known.is_none(),
            outdated: CancellationToken::new(),
            _room: None,
        }
    }

    /// Whether whoever asked for it still waits: a message whose connection is gone is delivered again, and nobody
    /// hears the answer to a call.
    pub(super) fn is_wanted(&self) -> bool {
        self.origin.is_live()
    }

    /// Whether it has a row that is not final, or is being given one.
    pub(super) fn is_recorded(&self) -> bool {
        self.row.is_some() || self.origin.caller().is_some_and(Caller::is_recorded)
    }

    /// Whether it has a row that is not final, or will come to one: else it may be forgotten.
    pub(super) fn is_ours(&self) -> bool {
        self.row.is_some() || self.is_wanted()
    }

    /// What its deadline is, if it has one that ends it by the present configuration.
    pub(super) fn deadline(&self, device: &Device) -> Option<Deadline> {
        if !self.is_unbegun() {
            return None;
        }
        Some(self.deadline_of(device.commands.get(self.command_name())?))
    }

    pub(super) fn deadline_of(&self, command: &Command) -> Deadline {
        Deadline { limit: command.deadline, expires_at: self.new.expires_at }
    }

    /// Why it is not run, if it may have been executed by the gateway of an earlier ledger (G15). What `may_repeat` is
    /// run all the same (G4), unless nobody waits for it any more.
    pub(super) fn doubt(&self, may_repeat: bool) -> Option<Fault> {
        let idempotent = may_repeat && !matches!(self.new.source, Source::Local { .. });
        let past = if self.restored { Past::Unknown } else { Past::Known };
        match decide::on_delivery(Known::New, past, Ok(Checked { idempotent }), Settle::AfterAccept) {
            Verdict::Doubt(fault) => Some(fault),
            _ => None,
        }
    }

    /// How it ends if its deadline passes first.
    pub(super) fn expired(&self, deadline: Deadline) -> Outcome {
        let mut outcome = deadline.expired();
        if let (true, Some(fault)) = (self.restored, &mut outcome.fault) {
            fault.message.push_str(", as far as this ledger knows, which was restored from a backup");
        }
        outcome
    }

    pub(super) fn judge(&self, deadline: Deadline, clock: &WallClock) -> Freshness {
        deadline.judge(Age {
            monotonic: self.received.elapsed(),
            received_at: self.earlier_life.then_some(self.new.received_at),
            now: clock.now().ok(),
        })
    }

    /// From when on it is too late for it, as far as the monotonic clock tells.
    pub(super) fn not_after(&self, deadline: Deadline, clock: &WallClock) -> Instant {
        let limit = self.received + deadline.limit;
        let Ok(now) = clock.now() else { return limit };
        let by_the_row = self.earlier_life.then(|| self.new.received_at.plus(deadline.limit));
        let by_the_clock = [by_the_row, deadline.expires_at].into_iter().flatten().min();
        by_the_clock.map_or(limit, |at| limit.min(Instant::now() + at.since(now)))
    }

    /// When to look at its deadline next. A wall clock may be put right meanwhile: whatever goes by it is looked at
    /// again and again.
    pub(super) fn next_look(&self, deadline: Deadline, clock: &WallClock) -> Instant {
        let not_after = self.not_after(deadline, clock);
        match self.earlier_life || deadline.expires_at.is_some() {
            true => not_after.min(Instant::now() + CLOCK_PERIOD),
            false => not_after,
        }
    }

    /// How it ends if a newer one is to be done in its place.
    pub(super) fn superseded(&self) -> Option<Outcome> {
        let by_another = self.outdated.is_cancelled().then(|| newest::superseded(self.command_name()));
        by_another.or_else(|| self.origin.replaced())
    }

    /// Whether nothing can have begun of it, as far as is known.
    pub(super) fn is_unbegun(&self) -> bool {
        self.refused.is_none() && self.interrupted.is_none() && !self.restored
    }

    /// Whether a lock of its device bars it: whatever does more than to read, unless a person wants it all the same.
    pub(super) fn heeds_locks(&self, command: &Command) -> bool {
        !matches!(command.action, Action::Read(_)) && !self.origin.overrides()
    }

    /// What a lock goes by.
    pub(super) fn barred(&self) -> Barred<'_> {
        let left_of = self.earlier_life.then_some(self.new.received_at);
        Barred { device: &self.new.device, received: self.received, left_of }
    }

    pub(super) fn message_id(&self) -> Option<&str> {
        self.new.message_id.as_deref()
    }

    pub(super) fn command_name(&self) -> &str {
        self.new.command.as_deref().unwrap_or_default()
    }
}
