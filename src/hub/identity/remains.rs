//! Whether the hub still holds messages of before the ledger, as far as an attachment shows it (G15). What may be
//! concluded from what is decided in [`decide::until_nothing_is_left`].
//!
//! Invariants
//! - A pause is a guess: a hub that throttles makes one in the middle of its queue. Where each message says when the
//!   hub took it, nothing is concluded from one.

use std::time::Duration;

use tokio::time::{sleep, timeout, Instant};

use crate::command::decide;
use crate::hub::trouble::Trouble;
use crate::hub::LEDGER_PATIENCE;
use crate::ledger::Ledger;

/// The hub that has let the device in, in this life of the daemon.
#[derive(Debug, Default)]
pub(in crate::hub) struct Met(Option<String>);

impl Met {
    /// The hub has let it in. If it says the first time that it did not know the device, nobody has subscribed as
    /// this identity before: no earlier ledger knows of it. Later that says nothing: a session can be ended by
    /// others. `false`: the ledger could not be written.
    pub(in crate::hub) async fn hub(
        &mut self,
        ledger: &Ledger,
        hub: &str,
        device: &str,
        was_known: bool,
    ) -> Result<bool, Trouble> {
        if self.0.as_deref() == Some(hub) {
            return Ok(true);
        }
        if !was_known {
            let trusted = timeout(LEDGER_PATIENCE, ledger.trust_device(hub, device)).await;
            if trusted.map_err(|_| Trouble::LedgerSlow)?.is_err() {
                return Ok(false);
            }
        }
        self.0 = Some(hub.to_owned());
        Ok(true)
    }
}

/// What a connection has shown so far.
pub(in crate::hub) struct Remains {
    ledger: Ledger,
    hub: String,
    device: String,
    connected: Instant,
    /// When a message was last delivered or settled.
    moved: Instant,
    /// A pause says that the hub has nothing.
    goes_by_pauses: bool,
}

impl Remains {
    /// Of a connection that was let in at `connected`, on which messages say when the hub took them, or do not.
    pub(in crate::hub) fn new(
        ledger: &Ledger,
        hub: &str,
        device: &str,
        connected: Instant,
        tells_enqueued_time: bool,
    ) -> Remains {
        let (hub, device) = (hub.to_owned(), device.to_owned());
        let goes_by_pauses = !tells_enqueued_time;
        Remains { ledger: ledger.clone(), hub, device, connected, moved: connected, goes_by_pauses }
    }

    /// A message was delivered or settled.
    pub(in crate::hub) fn something_moved(&mut self) {
        self.moved = Instant::now();
    }

    /// Waits until the connection has shown that the hub holds nothing of before, with so many messages unsettled. For
    /// ever where that is known already. Cancel-safe.
    pub(in crate::hub) async fn are_gone(&self, unsettled: usize) {
        let left = decide::until_nothing_is_left(self.connected.elapsed(), self.moved.elapsed(), unsettled);
        match left.filter(|_| self.goes_by_pauses && self.ledger.distrusts(&self.hub, &self.device)) {
            Some(left) => sleep(left).await,
            None => std::future::pending().await,
        }
    }

    /// The device is to be trusted from now on. If the ledger can't be written, the connection ends of that.
    pub(in crate::hub) async fn trust(&self) -> Result<(), Trouble> {
        let trusted = timeout(LEDGER_PATIENCE, self.ledger.trust_device(&self.hub, &self.device)).await;
        match trusted.map_err(|_| Trouble::LedgerSlow)? {
            Ok(()) => {
                tracing::info!(device = %self.device, "the hub holds nothing of before this ledger: every command is executed from now on");
            }
            Err(error) => {
                tracing::debug!(device = %self.device, %error, "the ledger can't note that the hub holds nothing of before");
                // It is asked for again at once; whoever watches the ledger's health may come between.
                sleep(Duration::from_millis(200)).await;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_distrust_only_where_no_message_says_when_the_hub_took_it() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("ledger.db"), "hub.example", &[]).unwrap();
        assert!(ledger.distrusts("hub.example", "pump"), "it is new");
        for (tells_enqueued_time, after) in [(false, Some(80)), (true, None)] {
            let begun = Instant::now();
            let remains = Remains::new(&ledger, "hub.example", "pump", begun, tells_enqueued_time);
            let gone = timeout(Duration::from_secs(48 * 3600), remains.are_gone(0)).await;
            assert_eq!(gone.ok().map(|()| begun.elapsed().as_secs()), after);
        }
        ledger.close().await;
    }
}
