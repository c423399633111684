//! When each message came first, in this life of the daemon: what a deadline counts from (G13). A connection that is
//! cut, a reload that takes a device away and brings it back, and a redelivery change nothing about that.
//!
//! Invariants
//! - Memory is bounded: [`RECEIPTS_MAX`] messages for the whole gateway. The oldest are forgotten, which is logged.
//! - A message is forgotten when its row is final, as the ledger knows it then, and when the hub can't have it any
//!   more.
//! - What has a row is known by that as well: whoever finds the row again in the same life, when a reload brings its
//!   device back, goes by the monotonic clock and not by the row's.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ring::digest::{Context, SHA256};
use tokio::time::Instant;

use crate::command::decide;
use crate::command::message::{Digest, Gist};
use crate::command::Envelope;
use crate::hub::FirstReceipts;
use crate::ledger::row::RowId;
use crate::time::Timestamp;

/// Messages whose first receipt is remembered: a thousand identities with a full queue of 50 at the hub each. They take
/// 12 MB at most.
const RECEIPTS_MAX: usize = 65_536;
/// No message lives longer at the hub than two days; an hour more for its clock and ours.
const LIFE_MAX: Duration = Duration::from_secs(49 * 3600);

/// Which message it is: a digest of its hub and device, of its id, and of what it asks for. A message without an id is
/// told from others by its expiry as well, and by its number at the hub where the transport tells it, which a
/// redelivery does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    digest: [u8; 16],
    number: Option<u64>,
}

impl Key {
    pub(super) fn of(hub: &str, device: &str, gist: &Gist) -> Key {
        let signs = (gist.expires_at, gist.envelope.sequence_number);
        Key::new([hub, device], gist.id.as_deref(), &gist.digest, signs)
    }

    fn new(to: [&str; 2], id: Option<&str>, digest: &Digest, signs: (Option<Timestamp>, Option<u64>)) -> Key {
        let mut context = Context::new(&SHA256);
        // Lengths keep the parts apart.
        for part in [Some(to[0]), Some(to[1]), id] {
            context.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
            context.update(part.unwrap_or_default().as_bytes());
        }
        context.update(digest);
        let (expires_at, number) = signs;
        if id.is_none() {
            context.update(&expires_at.map_or(i64::MIN, |at| at.0).to_be_bytes());
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&context.finish().as_ref()[..16]);
        Key { digest, number: number.filter(|_| id.is_none()) }
    }

    /// Whether it may be the same. What came by MQTT has no number, and may come again by another transport.
    fn may_be(&self, other: Key) -> bool {
        let one = self.number.zip(other.number);
        self.digest == other.digest && one.is_none_or(|(one, other)| one == other)
    }
}

/// When a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    /// By the monotonic clock.
    pub(super) at: Instant,
    /// By the wall clock of then.
    pub(super) wall: Timestamp,
}

/// The first receipts of a gateway.
#[derive(Debug, Default)]
pub struct Receipts(Mutex<Memory>);

#[derive(Debug)]
struct Memory {
    /// When this life of the daemon began.
    began: Instant,
    next: u64,
    /// By the digest, several only where they have no id.
    known: HashMap<[u8; 16], Vec<First>>,
    /// In the order of receipt.
    order: BTreeMap<u64, [u8; 16]>,
    /// Those that have a row which is not final.
    rows: HashMap<RowId, Key>,
}

/// A message's first receipt, with its place in the order of all.
#[derive(Debug)]
struct First {
    place: u64,
    key: Key,
    received: Received,
    row: Option<RowId>,
}

impl Default for Memory {
    fn default() -> Self {
        Memory { began: Instant::now(), next: 0, known: HashMap::new(), order: BTreeMap::new(), rows: HashMap::new() }
    }
}

/// Those of one device.
pub(super) struct Own {
    pub(super) device: String,
    pub(super) receipts: Arc<Receipts>,
}

impl FirstReceipts for Own {
    fn of(&self, hub: &str, gist: &Gist, at: Instant, wall: Timestamp) -> (Instant, Timestamp) {
        let first = self.receipts.first(Key::of(hub, &self.device, gist), Received { at, wall }, &gist.envelope);
        (first.at, first.wall)
    }
}

impl Receipts {
    /// When a message that came at `received` came first. One that an earlier life of the daemon has given back came
    /// before this one began (see [`decide::age_at_receipt`]).
    pub(super) fn first(&self, key: Key, received: Received, envelope: &Envelope) -> Received {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.forget_the_old(received.at);
        if let Some(first) = memory.find(key) {
            first.key.number = first.key.number.or(key.number);
            return first.received;
        }
        if memory.order.len() >= RECEIPTS_MAX {
            memory.forget_the_oldest();
            tracing::warn!(
                "more than {RECEIPTS_MAX} messages are under way: when the oldest of them came is forgotten, and its \
                 deadline begins anew if the hub delivers it again"
            );
        }
        let life = received.at.saturating_duration_since(memory.began);
        let age = decide::age_at_receipt(envelope, received.wall, life);
        let received = Received { at: received.at.checked_sub(age).unwrap_or(received.at), ..received };
        let place = memory.next;
        memory.next += 1;
        memory.known.entry(key.digest).or_insert_with(|| Vec::with_capacity(1)).push(First {
            place,
            key,
            received,
            row: None,
        });
        memory.order.insert(place, key.digest);
        received
    }

    /// A message has a row from now on.
    pub(super) fn stands_in(&self, key: Key, row: RowId) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = memory.find(key) {
            first.row = Some(row);
            memory.rows.insert(row, key);
        }
    }

    /// When the message of a row came first, if that was in this life of the daemon, and under which key it is known.
    pub(super) fn of_row(&self, row: RowId) -> Option<(Key, Received)> {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = *memory.rows.get(&row)?;
        memory.find(key).map(|first| (key, first.received))
    }

    /// A message's row is final.
    pub(super) fn forget(&self, key: Key) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = memory.find(key).map(|first| first.place) {
            memory.remove(place);
        }
    }
}

impl Memory {
    /// The first receipt of this message: of the one with its number, or else of one that may be it.
    fn find(&mut self, key: Key) -> Option<&mut First> {
        let known = self.known.get_mut(&key.digest)?;
        let place = known.iter().position(|first| first.key == key);
        let place = place.or_else(|| known.iter().position(|first| first.key.may_be(key)))?;
        known.get_mut(place)
    }

    fn remove(&mut self, place: u64) {
        let Some(digest) = self.order.remove(&place) else { return };
        if let Entry::Occupied(mut known) = self.known.entry(digest) {
            for first in known.get_mut().extract_if(.., |first| first.place == place) {
                if let Some(row) = first.row {
                    self.rows.remove(&row);
                }
            }
            if known.get().is_empty() {
                known.remove();
            }
        }
    }

    fn forget_the_old(&mut self, now: Instant) {
        while let Some((place, digest)) = self.order.first_key_value() {
            let first = self.known.get(digest).and_then(|known| known.iter().find(|first| first.place == *place));
            let is_old = |first: &First| now.saturating_duration_since(first.received.at) > LIFE_MAX;
            if !first.is_none_or(is_old) {
                return;
            }
            self.remove(*place);
        }
    }

    fn forget_the_oldest(&mut self) {
        if let Some(place) = self.order.keys().next().copied() {
            self.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: Digest = [7; 32];
    const NONE: (Option<Timestamp>, Option<u64>) = (None, None);

    fn received(second: u64, base: Instant) -> Received {
        Received { at: base + Duration::from_secs(second), wall: Timestamp(second as i64 * 1000) }
    }

    fn named(id: usize) -> Key {
        Key::new(["hub", "pump"], Some(&id.to_string()), &DIGEST, NONE)
    }

    #[test]
    fn a_message_that_comes_again_came_first_when_it_came_first_until_its_row_is_final() {
        let (receipts, base) = (Receipts::default(), Instant::now());
        assert_eq!(receipts.first(named(1), received(0, base), &Envelope::default()), received(0, base));
        assert_eq!(receipts.first(named(2), received(1, base), &Envelope::default()), received(1, base));
        assert_eq!(receipts.first(named(1), received(9, base), &Envelope::default()), received(0, base));
        receipts.forget(named(1));
        assert_eq!(receipts.first(named(1), received(10, base), &Envelope::default()), received(10, base));
        assert_eq!(receipts.first(named(2), received(11, base), &Envelope::default()), received(1, base));
    }

    #[test]
    fn whoever_finds_its_row_again_in_this_life_knows_when_it_came_until_that_is_final() {
        let (receipts, base) = (Receipts::default(), Instant::now());
        let row = RowId::of(7);
        assert_eq!(receipts.of_row(row), None);
        receipts.stands_in(named(1), row);
        assert_eq!(receipts.of_row(row), None, "it came in another life");
        receipts.first(named(1), received(3, base), &Envelope::default());
        receipts.stands_in(named(1), row);
        assert_eq!(receipts.of_row(row), Some((named(1), received(3, base))));
        receipts.forget(named(1));
        assert_eq!(receipts.of_row(row), None);
        assert!(receipts.0.lock().unwrap().rows.is_empty(), "nothing is left of it");
    }

    #[test]
    fn one_that_an_earlier_life_has_given_back_came_before_this_one_began_and_after_the_hub_took_it() {
        let (receipts, base) = (Receipts::default(), Instant::now());
        let (now, at) = (received(100, base), |second| received(second, base).at);
        let told = |count, second: i64| Envelope {
            delivery_count: Some(count),
            enqueued_at: Some(Timestamp(second * 1000)),
            ..Envelope::default()
        };
        let first = |id, envelope: &Envelope| receipts.first(named(id), now, envelope);
        assert_eq!(first(1, &told(0, -900)), now, "it has waited at the hub, and comes for the first time");
        assert_eq!(first(2, &told(1, 40)), Received { at: at(40), ..now });
        let before = first(3, &told(2, -900));
        assert!(before.at <= at(0) && before.wall == now.wall, "{before:?}");
        assert_eq!(first(4, &Envelope { enqueued_at: None, ..told(1, 0) }), now);
        assert_eq!(first(5, &told(1, 200)), now, "the hub's clock is ahead");
        // What is known counts more than what is told.
        assert_eq!(receipts.first(named(1), received(200, base), &told(1, -900)), now);
    }

    #[test]
    fn messages_are_told_apart_by_device_id_and_body_and_without_an_id_by_their_expiry_too() {
        let at = |ms| Some(Timestamp(ms));
        let keys = [
            Key::new(["hub", "pump"], Some("m"), &DIGEST, NONE),
            Key::new(["hub", "pum"], Some("pm"), &DIGEST, NONE),
            Key::new(["hubp", "ump"], Some("m"), &DIGEST, NONE),
            Key::new(["hub", "pump"], Some(""), &DIGEST, NONE),
            Key::new(["hub", "pump"], None, &DIGEST, NONE),
            Key::new(["hub", "pump"], None, &DIGEST, (at(1), None)),
            Key::new(["hub", "pump"], None, &DIGEST, (at(2), None)),
            Key::new(["hub", "pump"], None, &DIGEST, (None, Some(1))),
            Key::new(["hub", "pump"], None, &DIGEST, (None, Some(2))),
            Key::new(["hub", "pump"], Some("m"), &[8; 32], NONE),
        ];
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[i + 1..].contains(key), "{i}");
        }
        assert_eq!(Key::new(["hub", "pump"], Some("m"), &DIGEST, (at(1), None)), keys[0]);
    }

    #[test]
    fn without_an_id_a_message_is_known_again_by_a_transport_that_tells_no_number_or_tells_one_first() {
        let (receipts, base) = (Receipts::default(), Instant::now());
        let numbered = |number| Key::new(["hub", "pump"], None, &DIGEST, (None, number));
        let first = |number, second| receipts.first(numbered(number), received(second, base), &Envelope::default());
        assert_eq!(first(Some(1), 0), received(0, base));
        assert_eq!(first(Some(2), 1), received(1, base));
        assert_eq!(first(None, 2), received(0, base), "by MQTT, after another transport");
        receipts.forget(numbered(None));
        assert_eq!(first(Some(2), 3), received(1, base));
        receipts.forget(numbered(Some(2)));
        assert_eq!(first(None, 4), received(4, base));
        assert_eq!(first(Some(3), 5), received(4, base), "by another transport, after MQTT");
        assert_eq!(first(Some(4), 6), received(6, base));
        assert_eq!(first(Some(3), 7), received(4, base));
    }

    #[test]
    fn memory_is_bounded_the_oldest_are_forgotten_first_and_what_the_hub_can_t_have_any_more() {
        let (receipts, base) = (Receipts::default(), Instant::now());
        for id in 0..RECEIPTS_MAX {
            receipts.first(named(id), received(0, base), &Envelope::default());
        }
        receipts.first(named(RECEIPTS_MAX), received(1, base), &Envelope::default());
        assert_eq!(receipts.first(named(1), received(2, base), &Envelope::default()), received(0, base));
        assert_eq!(receipts.first(named(0), received(2, base), &Envelope::default()), received(2, base), "the oldest");
        let length = |receipts: &Receipts| {
            let memory = receipts.0.lock().unwrap();
            assert_eq!(memory.known.values().map(Vec::len).sum::<usize>(), memory.order.len());
            memory.order.len()
        };
        assert_eq!(length(&receipts), RECEIPTS_MAX);
        let late = LIFE_MAX.as_secs() + 2;
        receipts.first(named(0), received(late, base), &Envelope::default());
        assert_eq!(length(&receipts), 1);
    }
}
