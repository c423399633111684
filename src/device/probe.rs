//! A unit that is away and that no command waits for is tried with a read of its device's own, so that it is known when
//! it is back.
//!
//! Invariants
//! - A command that comes meanwhile is the attempt in its place, unless the read is on its way already.
//! - Nothing is written, and nothing of what is read is kept.

use std::future::pending;
use std::sync::Arc;

use tokio::select;
use tokio::sync::watch;
use tokio::time::sleep;

use super::{queue, Assignment, Context, Job, CLOCK_PERIOD};
use crate::bus::call::Call;
use crate::bus::Class;
use crate::device::run::harmless;

impl Context {
    /// Returns when the device's unit is away, and to be tried with a read. Cancel-safe.
    pub(super) async fn is_to_be_tried(&self, assigned: &mut watch::Receiver<Arc<Assignment>>) {
        loop {
            let present = assigned.borrow_and_update().clone();
            let tried = async {
                match harmless(&present.device) {
                    Some(_) => {
                        let party = present.bus.party(&present.device);
                        present.bus.presence().is_to_be_tried(&party).await;
                    }
                    None => pending().await,
                }
            };
            select! {
                () = tried => return,
                // Without a configuration, the device is about to end.
                changed = assigned.changed() => if changed.is_err() { pending().await },
            }
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
