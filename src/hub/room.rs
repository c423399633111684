//! Room for messages that wait: what the gateway keeps of what its hub has delivered is bounded in bytes, over all
//! identities.
//!
//! Invariants
//! - Each device has a share of its own, which no other can take (G11). Beyond it all draw on one common store.
//! - A device of which nothing waits gets room for one message, whatever is taken: so something always goes on.
//! - Room is given back by dropping [`Held`], wherever the message ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

/// What one device may keep whatever the others do, in bytes: the queue of a hub, 50 messages of an ordinary size.
const SHARE_BYTES: usize = 32 * 1024;
/// What all devices may keep together beyond their shares, in bytes.
const COMMON_BYTES: usize = 8 * 1024 * 1024;

/// What is taken of the common store.
#[derive(Debug, Default)]
pub(in crate::hub) struct Common {
    taken: AtomicUsize,
}

/// One device's room.
#[derive(Debug)]
pub struct Room {
    common: Arc<Common>,
    taken: Mutex<usize>,
    freed: Notify,
}

/// Room that is taken, until this is dropped.
#[derive(Debug)]
pub struct Held {
    room: Arc<Room>,
    bytes: usize,
}

impl Room {
    pub(in crate::hub) fn new(common: Arc<Common>) -> Arc<Room> {
        Arc::new(Room { common, taken: Mutex::new(0), freed: Notify::new() })
    }

    /// Takes room for a message of so many bytes. `None`: there is none now.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let mut taken = self.lock();
        let beyond = beyond_share(*taken + bytes) - beyond_share(*taken);
        if !self.common.take(beyond, *taken == 0) {
            return None;
        }
        *taken += bytes;
        drop(taken);
        Some(Held { room: self.clone(), bytes })
    }

    /// Takes room for a message that must be kept, as nobody would bring it again.
    pub fn hold_anyhow(self: &Arc<Self>, bytes: usize) -> Held {
        let mut taken = self.lock();
        let beyond = beyond_share(*taken + bytes) - beyond_share(*taken);
        self.common.take(beyond, true);
        *taken += bytes;
        drop(taken);
        Held { room: self.clone(), bytes }
    }

    /// Whether there would be room for so many bytes now.
    pub fn has(&self, bytes: usize) -> bool {
        let taken = *self.lock();
        let beyond = beyond_share(taken + bytes) - beyond_share(taken);
        taken == 0 || beyond == 0 || self.common.taken.load(Ordering::Relaxed) + beyond <= COMMON_BYTES
    }

    /// Waits until something of this device is given back. Cancel-safe; one task may wait.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    fn give_back(&self, bytes: usize) {
        let mut taken = self.lock();
        let beyond = beyond_share(*taken) - beyond_share(*taken - bytes);
        *taken -= bytes;
        self.common.taken.fetch_sub(beyond, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.taken.lock().expect("nobody panics while holding a room")
    }
}

impl Common {
    fn take(&self, bytes: usize, anyhow: bool) -> bool {
        let take = |taken: usize| Some(taken + bytes).filter(|taken| bytes == 0 || anyhow || *taken <= COMMON_BYTES);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.give_back(self.bytes);
        self.room.freed.notify_one();
    }
}

fn beyond_share(bytes: usize) -> usize {
    bytes.saturating_sub(SHARE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_keeps_much_leaves_the_others_their_shares() {
        let common = Arc::new(Common::default());
        let (greedy, modest) = (Room::new(common.clone()), Room::new(common.clone()));
        let mut held: Vec<Held> = std::iter::from_fn(|| greedy.hold(1024)).collect();
        assert_eq!(held.len() * 1024, SHARE_BYTES + COMMON_BYTES);
        let modest_ones: Vec<Held> = std::iter::from_fn(|| modest.hold(1024)).collect();
        assert_eq!(modest_ones.len() * 1024, SHARE_BYTES);
        assert!(!greedy.has(1024) && !modest.has(1024));
        held.pop();
        assert!(greedy.has(1024) && modest.has(1024), "what one gives back anybody may take");
        drop((held, modest_ones));
        assert_eq!((common.taken.load(Ordering::Relaxed), *greedy.lock(), *modest.lock()), (0, 0, 0));
    }

    #[test]
    fn whoever_keeps_nothing_gets_room_for_one_message_even_if_it_is_large() {
        let common = Arc::new(Common::default());
        let (greedy, late) = (Room::new(common.clone()), Room::new(common.clone()));
        let all = greedy.hold(SHARE_BYTES + COMMON_BYTES).unwrap();
        let large = late.hold(3 * SHARE_BYTES).expect("it keeps nothing yet");
        assert!(late.hold(1).is_none());
        drop(large);
        assert!(late.has(3 * SHARE_BYTES));
        drop(all);
        assert_eq!(common.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_taken_and_given_back_in_any_order_adds_up_to_nothing() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let common = Arc::new(Common::default());
        let rooms: Vec<_> = (0..5).map(|_| Room::new(common.clone())).collect();
        let mut held = Vec::new();
        for _ in 0..20_000 {
            if random.bool() && !held.is_empty() {
                held.swap_remove(random.usize(..held.len()));
            } else {
                let bytes = random.usize(..200_000);
                let room = random.choice(&rooms).unwrap();
                held.extend(if random.u8(..) == 0 { Some(room.hold_anyhow(bytes)) } else { room.hold(bytes) });
            }
            let beyond: usize = rooms.iter().map(|room| beyond_share(*room.lock())).sum();
            assert_eq!(common.taken.load(Ordering::Relaxed), beyond);
        }
        drop(held);
        assert_eq!(common.taken.load(Ordering::Relaxed), 0);
    }
}
