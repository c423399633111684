//! What one life of the daemon leaves to the next, beside its rows.

use std::time::Duration;

use tokio::time::Instant;

use super::writer::{Ask, Kind};
use super::{note, store, Ledger, LedgerError, Locked};

impl Ledger {
    /// Whether the last daemon on this ledger stopped in order: then nothing of it is on a bus any more, and nothing
    /// that it has asked there can be answered.
    pub fn ended_well(&self) -> bool {
        self.ended_well
    }

    /// For how long peripherals may still answer daemons before this one, counted from its start; `None`: not at all.
    pub fn late_window_at_start(&self) -> Option<Duration> {
        (!self.ended_well).then_some(self.late_window_at_start)
    }

    /// Whether peripherals may still answer daemons before this one.
    pub fn is_in_earlier_late_window(&self) -> bool {
        self.late_window_at_start().is_some_and(|window| self.started.elapsed() < window)
    }

    /// Peripherals may owe answers for so long from now on, by a new configuration. It is durable soon, and before
    /// whatever is written after this.
    pub fn grow_late_window(&self, late_window: Duration) {
        if self.asks.try_send(note(move |db| store::grow_late_window(db, late_window))).is_ok() {
            let _ = self.asks.try_send(Ask::Tick);
        }
    }

    /// When this daemon began, and what the last one on this ledger may have left locked at the hub.
    pub fn locked_since(&self) -> Option<(Instant, Locked)> {
        (self.locked != Locked::Nothing).then_some((self.started, self.locked))
    }

    /// By which transports the daemon before this one reached devices, as it was noted last.
    pub fn ways_at_start(&self) -> Option<&[u8]> {
        self.ways_at_start.as_deref()
    }

    /// Notes by which transports devices are reached. On return that is durable.
    ///
    /// # Errors
    /// The ledger can't be written.
    pub async fn note_ways(&self, ways: Vec<u8>) -> Result<(), LedgerError> {
        self.ask(Kind::Write, move |db| store::set_ways(db, &ways)).await
    }
}
