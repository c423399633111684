//! What the running daemon knows of itself: counters and last errors, for `status`, the log and systemd.

pub mod ends;
pub mod meters;
pub mod pulse;
pub mod snapshot;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::health::meters::{DeviceReadings, Histogram, Tally};
use crate::health::pulse::Pulse;
pub use snapshot::LinkState;

/// A counter that many may raise.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often something was refused in a row.
#[derive(Debug, Default)]
pub struct Refusals(AtomicU32);

impl Refusals {
    /// One more.
    pub fn add(&self) {
        // One that would wrap round has been refused for long enough.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_add(1));
    }

    /// It was granted, or asked of somebody else.
    pub fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// How often.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One more of something for as long as this lives.
#[derive(Debug)]
pub struct Pending(Arc<DeviceHealth>);

/// What is known of one device.
#[derive(Debug)]
pub struct DeviceHealth {
    /// Its id.
    pub id: String,
    /// Deliveries from the hub.
    pub received: Counter,
    /// Commands that ended with an attempt on the wire behind them, whoever asked for them.
    pub executed: Counter,
    /// Deliveries of messages whose row was there already.
    pub duplicates: Counter,
    /// Commands that ended in doubt, so that somebody has to look.
    pub in_doubt: Counter,
    /// Commands that ended, by their final state.
    pub states: Tally,
    /// Attempts to connect, by what came of them.
    pub connects: Tally,
    /// Calls of direct methods that were answered, by the answer's status.
    pub calls: Tally,
    /// How often its hub has not let it in, as if it did not belong there, since it last did.
    pub refusals: Refusals,
    /// From a message's first receipt to its settlement; it is one for all devices.
    pub completion: Arc<Histogram>,
    /// Whether its link and its outbox move.
    pub pulse: Pulse,
    /// How its last commands ended.
    pub ends: ends::Ends,
    pending: AtomicU64,
    link: Mutex<(LinkState, Option<String>)>,
}

impl DeviceHealth {
    /// A device of which nothing is known yet.
    pub fn new(id: &str, completion: Arc<Histogram>) -> Self {
        DeviceHealth {
            id: id.to_owned(),
            received: Counter::default(),
            executed: Counter::default(),
            duplicates: Counter::default(),
            in_doubt: Counter::default(),
            states: Tally::default(),
            connects: Tally::default(),
            calls: Tally::default(),
            refusals: Refusals::default(),
            completion,
            pulse: Pulse::default(),
            ends: ends::Ends::default(),
            pending: AtomicU64::new(0),
            link: Mutex::new((LinkState::Waiting, None)),
        }
    }

    /// Counts one command as pending until the value is dropped.
    pub fn pend(self: &Arc<Self>) -> Pending {
        self.pending.fetch_add(1, Ordering::Relaxed);
        Pending(self.clone())
    }

    /// Where its session stands.
    pub fn link(&self) -> LinkState {
        self.lock().0
    }

    /// Its session has moved. An error is kept until the next connection stands; what it has waited for is none.
    pub fn set_link(&self, state: LinkState, error: Option<String>) {
        let mut link = self.lock();
        let has_waited = link.0 == LinkState::WaitingForLocks;
        link.0 = state;
        let is_well = matches!(state, LinkState::Connected | LinkState::Held);
        if is_well || error.is_some() || has_waited {
            link.1 = error;
        }
    }

    /// As it is now, on the bus and by the transport that it has at present.
    pub fn snapshot(&self, bus: &str, transport: &str) -> snapshot::Device {
        let (state, last_error) = self.lock().clone();
        snapshot::Device {
            id: self.id.clone(),
            bus: bus.to_owned(),
            transport: transport.to_owned(),
            hub: state,
            last_error,
            received: self.received.get(),
            executed: self.executed.get(),
            duplicates: self.duplicates.get(),
            in_doubt: self.in_doubt.get(),
            pending: self.pending.load(Ordering::Relaxed),
            calls: self.calls.reading().into_iter().map(|(status, count)| (status.to_owned(), count)).collect(),
            ..snapshot::Device::default()
        }
    }

    /// What was counted of it.
    pub fn readings(&self) -> DeviceReadings {
        let (ends, connects, calls) = (self.states.reading(), self.connects.reading(), self.calls.reading());
        DeviceReadings { ends, connects, calls, in_doubt_open: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, (LinkState, Option<String>)> {
        self.link.lock().expect("nobody panics while holding a link's state")
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}
