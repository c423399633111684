//! What all identities of a gateway share: how the hub is reached, how often and how many at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{sleep_until, Instant};

use super::account::Account;
use super::lock;
use super::room::{Common, Room};
use super::transport::{Crash, Rest, Transport};
use crate::config::TransportKind;
use crate::handles::Places;

/// TLS handshakes at the same time: bounds their memory.
const HANDSHAKES_MAX: usize = 16;

/// Requests for twins in a second, over all identities: a hub takes 50 of all its devices.
const TWINS_RATE: u32 = 10;

/// How often connections to the hub are made, and how many are in the making, over all identities and transports.
pub struct Pace {
    next_connect: std::sync::Mutex<Instant>,
    next_twin: std::sync::Mutex<Instant>,
    handshakes: Semaphore,
}

impl Default for Pace {
    fn default() -> Pace {
        let now = Instant::now();
        let (next_connect, next_twin) = (now.into(), now.into());
        Pace { next_connect, next_twin, handshakes: Semaphore::new(HANDSHAKES_MAX) }
    }
}

/// Takes the next turn of those that come at most so often in a second, and says when it is.
fn take(next: &std::sync::Mutex<Instant>, rate: u32) -> Instant {
    let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
    let turn = (*next).max(Instant::now());
    *next = turn + Duration::from_secs(1) / rate;
    turn
}

impl Pace {
    /// Takes the next turn to connect, and says when it is: at most `rate` a second.
    pub(in crate::hub) fn turn(&self, rate: u32) -> Instant {
        take(&self.next_connect, rate)
    }

    /// Takes the next turn to ask for a twin, and says when it is.
    pub(in crate::hub) fn twin_turn(&self) -> Instant {
        take(&self.next_twin, TWINS_RATE)
    }

    /// Waits for a turn and a handshake. Nobody holds a handshake while it waits for its turn; and a turn that came
    /// when there was none is over, so that the rate is what was configured.
    pub(in crate::hub) async fn handshake(&self, rate: u32, mut has_turn: bool) -> SemaphorePermit<'_> {
        loop {
            if !has_turn {
                sleep_until(self.turn(rate)).await;
            }
            has_turn = false;
            if let Ok(permit) = self.handshakes.try_acquire() {
                return permit;
            }
            drop(self.handshakes.acquire().await.expect("the semaphore is never closed"));
        }
    }
}

/// What all identities of a gateway share, for as long as it runs.
pub struct Shared {
    /// How the hub is reached.
    pub(in crate::hub) transport: Arc<dyn Transport>,
    /// How often: the transport goes by it too, where it makes connections of its own accord.
    pub(in crate::hub) pace: Arc<Pace>,
    /// What the daemon before has left.
    crash: Option<Crash>,
    /// Places for connections, so that handles are left for the rest.
    pub(in crate::hub) places: Arc<Places>,
    /// What all devices may keep of waiting messages beyond their shares.
    common: Arc<Common>,
    /// Rings when a hub has refused a device again.
    refused: Notify,
    /// Why the hub can't be reached, as it was logged last, by the transport. It is the same for all its identities.
    unreachable: std::sync::Mutex<BTreeMap<TransportKind, String>>,
}

impl Shared {
    /// For identities that reach the hub in this way and at this pace, with as many connections at a time as there are
    /// places, after a life of the daemon that may have crashed.
    pub fn new(transport: Arc<dyn Transport>, pace: Arc<Pace>, places: Arc<Places>, crash: Option<Crash>) -> Self {
        Shared {
            transport,
            pace,
            crash,
            places,
            common: Arc::default(),
            refused: Notify::default(),
            unreachable: std::sync::Mutex::default(),
        }
    }

    /// From now on there may be so many connections at a time.
    pub fn set_connections_max(&self, most: usize) {
        self.places.set_most(most);
    }

    /// A device is configured as this daemon begins: what the one before may have left of it is waited for, whenever
    /// it comes to connecting, and by the next daemon too if this one ends before.
    pub fn begins_with(&self, account: &Account, device: &str) {
        if let Some(crash) = self.crash {
            self.transport.note_crash(account, device, crash);
        }
    }

    /// A device is configured that was not before: the same, but for that nothing is known of how it was reached.
    pub fn goes_on_with(&self, account: &Account, device: &str) {
        if let Some(crash) = self.crash {
            self.transport.note_crash(account, device, Crash { by_others: true, ..crash });
        }
    }

    /// What this daemon leaves that the hub may keep locked, or has found so and not waited for.
    pub fn rest(&self) -> Rest {
        let before = self.locked_for_all_until().map_or(Rest::Nothing, |_| Rest::Locked);
        before.max(self.transport.rest())
    }

    /// Until when the hub may keep messages of a device locked that would be overtaken (G5).
    pub fn locked_until(&self, account: &Account, device: &str) -> Option<Instant> {
        self.transport.locked_until(account, device).max(self.locked_for_all_until())
    }

    /// Until when any device may have messages locked for the transport that it is reached by now.
    fn locked_for_all_until(&self) -> Option<Instant> {
        let crash = self.crash.filter(|crash| crash.by_others && !crash.for_others);
        let until = crash.map(|crash| crash.begun + lock::time());
        until.filter(|until| *until > Instant::now())
    }

    /// A hub has refused a device again.
    pub(in crate::hub) fn tell_refused(&self) {
        self.refused.notify_one();
    }

    /// Waits until a hub has refused a device again, since this was asked last. For one who waits. Cancel-safe.
    pub async fn refused(&self) {
        self.refused.notified().await;
    }

    /// Room for one more device.
    pub fn room(&self) -> Arc<Room> {
        Room::new(self.common.clone())
    }

    /// Why the hub can't be reached by a transport, or that it can. Gives what was said of it before.
    pub(in crate::hub) fn replace_unreachable(&self, by: TransportKind, why: Option<&str>) -> Option<String> {
        let mut told = self.unreachable.lock().unwrap_or_else(PoisonError::into_inner);
        match why {
            Some(why) => told.insert(by, why.to_owned()),
            None => told.remove(&by),
        }
    }
}
