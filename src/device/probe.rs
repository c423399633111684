//! A unit that is away and that no command waits for is tried with a read of its device's own, so that it is known when
//! it is back. Meanwhile the device's messages may stay at the hub (`on_unreachable = "mirror"`).
//!
//! Invariants
//! - A command that comes meanwhile is the attempt in its place, unless the read is on its way already.
//! - Nothing is written, and nothing of what is read is kept.

use std::future::pending;
use std::sync::Arc;

use tokio::select;
use tokio::sync::watch;
use tokio::time::{sleep, Instant};

use super::{queue, Assignment, Context, Job, CLOCK_PERIOD};
use crate::bus::call::Call;
use crate::bus::presence::Standing;
use crate::bus::Class;
use crate::config::{Device, OnUnreachable};
use crate::device::run::harmless;

/// Why a device's unit is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stirs {
    /// It is away, and to be tried with a read.
    IsToBeTried,
    /// It may be otherwise than before whether the device's messages are to stay at the hub.
    IsOtherwise,
}

/// Whether a device's messages are to stay at the hub, as things stand with its unit. Where no read can show that the
/// unit is back, a command is to, as soon as it may be tried.
fn is_held(device: &Device, standing: Standing) -> bool {
    let is_due = standing.tried_at.is_some_and(|at| at <= Instant::now());
    let is_for_a_command = harmless(device).is_none() && is_due;
    device.on_unreachable == OnUnreachable::Mirror && standing.away_since.is_some() && !is_for_a_command
}

impl Context {
    /// Says whether the device's messages are to stay at the hub. Asked for while nothing of a command has begun.
    pub(super) fn show_held(&self) {
        let present = self.present();
        let standing = present.bus.presence().standing(&present.bus.party(&present.device));
        let held = is_held(&present.device, standing);
        self.held.send_if_modified(|said| std::mem::replace(said, held) != held);
    }

    /// Returns when the device's unit is to be looked at. Cancel-safe.
    pub(super) async fn unit_stirs(&self, assigned: &mut watch::Receiver<Arc<Assignment>>) -> Stirs {
        let present = assigned.borrow_and_update().clone();
        let (device, presence) = (&present.device, present.bus.presence());
        let party = present.bus.party(device);
        let has_read = harmless(device).is_some();
        let said = *self.held.borrow();
        let is_otherwise = |standing: Standing| match is_held(device, standing) == said {
            false => Some(Instant::now()),
            true => standing.tried_at.filter(|_| !has_read && said),
        };
        select! {
            biased;
            () = presence.comes_to(&party, is_otherwise) => Stirs::IsOtherwise,
            () = presence.is_to_be_tried(&party), if has_read => Stirs::IsToBeTried,
            changed = assigned.changed() => match changed {
                Ok(()) => Stirs::IsOtherwise,
                // Without a configuration, the device is about to end.
                Err(_) => pending().await,
            },
        }
    }

    /// Tries the unit once, if nobody else does.
    pub(super) async fn try_unit(&self, jobs: &queue::Receiver<Job>) {
        let present = self.present();
        let (device, bus) = (&present.device, &present.bus);
        let Some(request) = harmless(device) else { return };
        let Some(_pass) = bus.presence().pass(&bus.party(device)) else { return };
        let name: Arc<str> = device.id.as_str().into();
        let caller = bus.caller().on_behalf_of(name.clone());
        let mut turn = select! {
            biased;
            () = self.stop.cancelled() => return,
            // A command tries it as well, and has more to say.
            () = jobs.filled() => return,
            turn = caller.turn_as(Class::Look) => match turn {
                Ok(turn) => turn,
                Err(_) => return self.without_a_bus(jobs).await,
            },
        };
        let (patience, quirks) = (device.patience, device.quirks);
        let call = Call { of: Some(name), patience, quirks, ..Call::new(device.unit, request) };
        select! {
            biased;
            // The worker ends what is on the line.
            () = self.stop.cancelled() => {}
            _ = turn.exchange(&call) => {}
        }
    }

    /// The bus has ended, and the device is about to have another.
    async fn without_a_bus(&self, jobs: &queue::Receiver<Job>) {
        select! {
            () = self.stop.cancelled() => {}
            () = jobs.filled() => {}
            () = sleep(CLOCK_PERIOD) => {}
        }
    }
}
