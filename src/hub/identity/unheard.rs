//! What the hub is told on one connection of the deliveries that the ledger has an end of. Pure.
//!
//! Invariant: as many are kept as deliveries may be unsettled on a connection.

use crate::hub::{Settled, Settlement};
use crate::ledger::row::RowId;

/// What the hub is to be told of a delivery, and hears in the order of receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Complete,
    Reject,
}

impl End {
    /// What was said of it, where a refusal can be said, or not.
    pub(super) fn word(self, can_reject: bool) -> &'static str {
        match self {
            End::Reject if can_reject => "rejected",
            End::Complete | End::Reject => "completed",
        }
    }
}

/// Ends that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Unheard(Vec<(u64, RowId, End)>);

impl Unheard {
    /// The hub is about to be told of one.
    pub(super) fn note(&mut self, settled: Settled) {
        let (number, end) = match settled.settlement {
            Settlement::Complete(number) => (number, End::Complete),
            Settlement::Reject(number) => (number, End::Reject),
            Settlement::Abandon(_) | Settlement::Leave(_) => return,
        };
        self.0.extend(settled.row.map(|row| (number, row, end)));
    }

    /// Those that it was told of, as the oldest of which it was not has this number.
    pub(super) fn heard(&mut self, oldest: Option<u64>) -> Vec<(RowId, End)> {
        let is_heard = |number: u64| oldest.is_none_or(|oldest| number < oldest);
        let heard = self.0.iter().filter(|(number, ..)| is_heard(*number)).map(|(_, row, end)| (*row, *end)).collect();
        self.0.retain(|(number, ..)| !is_heard(*number));
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_was_told_once_all_deliveries_before_it_were_settled() {
        let mut unheard = Unheard::default();
        let row = |number| Some(RowId::of(number));
        unheard.note(Settled { settlement: Settlement::Complete(2), row: row(12) });
        unheard.note(Settled { settlement: Settlement::Abandon(3), row: None });
        assert_eq!(unheard.heard(Some(1)), []);
        unheard.note(Settled { settlement: Settlement::Reject(1), row: row(11) });
        assert_eq!(unheard.heard(Some(3)), [(RowId::of(12), End::Complete), (RowId::of(11), End::Reject)]);
        unheard.note(Settled { settlement: Settlement::Complete(4), row: row(14) });
        assert_eq!(unheard.heard(None), [(RowId::of(14), End::Complete)]);
        assert_eq!(unheard.heard(None), []);
        assert_eq!([true, false].map(|can_reject| End::Reject.word(can_reject)), ["rejected", "completed"]);
    }
}
