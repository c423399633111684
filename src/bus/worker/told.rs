//! What the worker says of the line and of who is on it: a log line a change of state.

use std::time::Duration;

use tracing::{info, warn};

use super::Working;
use crate::bus::breaker::{Change, Sign};
use crate::bus::call::Call;
use crate::bus::link::{Ended, Link};
use crate::bus::presence::{self, Party};
use crate::health::snapshot::BusState;

impl<L: Link> Working<'_, L> {
    /// Says what is wrong with an open line, when that is new, or has passed.
    pub(super) fn tell_trouble(&self) {
        let status = self.status.borrow().clone();
        let trouble = self.link.trouble();
        if !status.is_open() || status.last_error.as_deref() == trouble {
            return;
        }
        match trouble {
            Some(why) => warn!(bus = %self.name, reason = why, "something is wrong with the line"),
            None => info!(bus = %self.name, "nothing is wrong with the line any more"),
        }
        self.show(BusState::Open, trouble.map(str::to_owned), None);
    }

    /// Notes what an exchange has shown of who was asked.
    pub(super) fn note_presence(&self, call: &Call, ended: &Ended) {
        let party = match (self.configured.borrow().kind.is_modbus(), &call.of) {
            (true, _) => Party::Unit(call.unit),
            (false, Some(device)) => Party::Device(device.clone()),
            (false, None) => return,
        };
        let Some(sign) = presence::sign(call, ended).filter(|sign| *sign != Sign::NotSent || !call.is_called_off())
        else {
            return;
        };
        let Some((change, away_for)) = self.presence.ended(party.clone(), sign) else { return };
        let (bus, device) = (&self.name, call.of.as_deref());
        match (change, away_for) {
            (Change::Left, _) => {
                let unanswered = self.presence.standing(&party).unanswered;
                warn!(%bus, device, unit = unit_of(&party), unanswered, "a unit does not answer any more, and is away");
            }
            (Change::Back, away_for) => {
                let away_for = away_for.map(whole_seconds).map(humantime::format_duration).map(|text| text.to_string());
                info!(%bus, device, unit = unit_of(&party), away_for, "a unit answers again");
            }
        }
    }
}

/// The unit's id, of one that has one.
fn unit_of(party: &Party) -> Option<u8> {
    match party {
        Party::Unit(unit) => Some(*unit),
        Party::Device(_) => None,
    }
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}
