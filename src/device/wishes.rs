//! What is special about a command that a device's twin desires: it waits in the same lane as messages, what was done
//! under its id is only acknowledged, and of one name only the newest is done ([`super::origin::Origin::replaced`]).

use super::{Context, Work};
use crate::command::decide::Known;
use crate::hub::twin::Facts;
use crate::ledger::row::RowId;
use crate::ledger::Lookup;
use crate::proof::crash::{self, Point};

impl Context {
    /// How things stand with the device, for its twin.
    pub fn facts(&self) -> Facts {
        let present = self.present();
        let standing = present.bus.presence().standing(&present.bus.party(&present.device));
        Facts { configuration: present.configuration.clone(), present: standing.present }
    }

    /// Acknowledges what is desired from the row that is known of it. Where that can't be read it is given back.
    pub(super) async fn acknowledge_again(&self, mut work: Work, row: RowId) {
        self.health.duplicates.add();
        tracing::debug!(device = %self.id, message_id = work.message_id(), "desired as before: acknowledged from the ledger, not done");
        crash::point(Point::DuplicateKnown);
        self.ledger.delivered_again(row);
        let record = match self.ledger.record(row).await {
            Ok(record) => record,
            Err(error) => return drop(self.leave(work, &error)),
        };
        if let (Some(wish), Some((outcome, _))) = (work.origin.wish(), record.and_then(|record| record.end())) {
            wish.tell(&outcome);
        }
    }
}

/// What is known of a command. The versions of a twin begin anew with its device, so that what stands under the same id
/// and asks for something else is of an earlier one.
pub(super) fn known(lookup: &Lookup, is_desired: bool) -> Known {
    match lookup.known {
        Known::OtherBody if is_desired => Known::New,
        known => known,
    }
}
