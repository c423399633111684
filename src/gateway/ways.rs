//! By which transports devices are reached, as the ledger has it: after a crash a daemon whose configuration names
//! others waits for what those of before may have locked at the hub (G5).
//!
//! Invariants
//! - What the ledger names has locked nothing for another transport: while that may be, it names none.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::config::Config;
use crate::hub::transport::Crash;
use crate::hub::{lock, transports};
use crate::ledger::{Ledger, CHANGING};

/// The pause after a note that the ledger did not take.
const AGAIN: Duration = Duration::from_millis(200);

/// By which transports devices are reached, as a digest, and how long those before may keep something locked.
#[derive(Clone)]
struct Configured {
    ways: Vec<u8>,
    locks: Duration,
}

impl Configured {
    fn of(config: &Config) -> Configured {
        let ways = transports::ways(config.devices.values());
        Configured { ways, locks: lock::until_noticed(config.hub.keepalive) }
    }
}

/// How devices are reached in this life of the daemon.
pub(super) struct Ways {
    configured: watch::Sender<Configured>,
    /// They have not changed since what stands in the ledger was noted.
    is_noted: bool,
    crash: Option<Crash>,
}

impl Ways {
    /// Of a ledger that was opened with the ways of this configuration, and so has noted them unless they have to wait.
    pub(super) fn since_the_start(ledger: &Ledger, config: &Config) -> Ways {
        let configured = Configured::of(config);
        let by_others = ledger.ways_at_start().is_some_and(|before| before != configured.ways);
        let crash = ledger.locked_since().map(|begun| Crash { begun, by_others });
        let is_noted = !crash.is_some_and(|crash| crash.by_others);
        Ways { configured: watch::Sender::new(configured), is_noted, crash }
    }

    /// What the daemon before has left.
    pub(super) fn crash(&self) -> Option<Crash> {
        self.crash
    }

    /// The configuration is about to be taken up.
    pub(super) fn change(&self, config: &Config) {
        let configured = Configured::of(config);
        self.configured.send_if_modified(|present| {
            let is_other = present.ways != configured.ways;
            *present = configured;
            is_other
        });
    }

    /// For the task that notes them.
    pub(super) fn to_be_noted(&self) -> ToBeNoted {
        ToBeNoted { configured: self.configured.subscribe(), is_noted: self.is_noted }
    }
}

/// Ways, and whether they stand in the ledger.
pub(super) struct ToBeNoted {
    configured: watch::Receiver<Configured>,
    is_noted: bool,
}

impl ToBeNoted {
    /// Notes each change: that there is one at once, and what it is when nothing of before is locked any more.
    pub(super) async fn note(mut self, ledger: Ledger) {
        loop {
            while !self.is_noted {
                self.note_when_they_stand(&ledger).await;
            }
            if self.configured.changed().await.is_err() {
                return std::future::pending().await;
            }
            self.is_noted = false;
            // If that is lost, the configuration of the next daemon differs from what stands in the ledger; but not if
            // it is the one of before again.
            while ledger.note_ways(CHANGING.to_vec()).await.is_err() {
                sleep(AGAIN).await;
                ledger.well().await;
            }
        }
    }

    async fn note_when_they_stand(&mut self, ledger: &Ledger) {
        let Configured { ways, locks } = self.configured.borrow_and_update().clone();
        tokio::select! {
            () = sleep(locks) => {}
            Ok(()) = self.configured.changed() => return,
        }
        ledger.well().await;
        self.is_noted = ledger.note_ways(ways).await.is_ok();
    }
}
