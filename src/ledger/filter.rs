//! What tells, without a look into the file, that a message id was never seen.
//!
//! A Bloom filter over device and message id: most messages are new, and are known to be so at once. Where it says
//! "perhaps", the file is asked.
//!
//! Invariants
//! - An id that stands in a row is never called new: every id is added before its row is written, and is known here
//!   until that is over; nothing is called new before every row that was there is added.
//! - Its memory is bounded. Past that it says "perhaps" more often.

use std::collections::hash_map::DefaultHasher;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Bits for each id. With six of them set, one new id in 250 is looked up in vain once the filter is full.
const BITS: u64 = 12;
/// Bits that an id sets.
const PROBES: u64 = 6;
/// Least and most ids that a filter is laid out for: 96 KiB and 24 MiB.
const IDS: (u64, u64) = (1 << 16, 1 << 24);

/// The filter that is asked, and the one that is to replace it.
#[derive(Debug, Default)]
pub(super) struct Filter {
    generations: RwLock<Generations>,
    /// Ids whose rows are being written: whoever reads all rows now does not see them.
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    last: u64,
    ids: BTreeMap<u64, (String, String)>,
}

/// A row is being written, until this is dropped.
#[derive(Debug)]
pub(super) struct Writes {
    filter: Arc<Filter>,
    number: u64,
}

impl Drop for Writes {
    fn drop(&mut self) {
        self.filter.under_way.lock().unwrap_or_else(PoisonError::into_inner).ids.remove(&self.number);
    }
}

#[derive(Debug, Default)]
struct Generations {
    /// Complete.
    asked: Option<Arc<Bits>>,
    /// Every row is being added to it.
    next: Option<Arc<Bits>>,
}

/// The bits of one layout.
#[derive(Debug)]
pub(super) struct Bits {
    words: Box<[AtomicU64]>,
    added: AtomicU64,
    room: u64,
    is_dense: AtomicBool,
}

impl Filter {
    /// An id is about to stand in a row. The answer is kept until that is committed, or is known not to be.
    pub(super) fn writes(self: &Arc<Self>, device: &str, message_id: &str) -> Writes {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.last += 1;
        let number = under_way.last;
        under_way.ids.insert(number, (device.to_owned(), message_id.to_owned()));
        drop(under_way);
        self.add(device, message_id);
        Writes { filter: self.clone(), number }
    }

    fn add(&self, device: &str, message_id: &str) {
        let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
        for bits in [&generations.asked, &generations.next].into_iter().flatten() {
            bits.add(device, message_id);
        }
    }

    /// Whether no row can have this id.
    pub(super) fn is_new(&self, device: &str, message_id: &str) -> bool {
        let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
        generations.asked.as_ref().is_some_and(|bits| !bits.may_have(device, message_id))
    }

    /// Whether it is to be made anew: there is none yet, or it was laid out for fewer.
    pub(super) fn is_wanted(&self) -> bool {
        let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
        let is_dense = |bits: &Arc<Bits>| bits.is_dense.load(Ordering::Relaxed);
        generations.next.is_none() && generations.asked.as_ref().is_none_or(is_dense)
    }

    /// Begins to make it anew, for a ledger of so many rows. Ids that come from now on are added to it.
    pub(super) fn begin(&self, rows: u64) -> Arc<Bits> {
        let next = Arc::new(Bits::new(rows));
        self.generations.write().unwrap_or_else(PoisonError::into_inner).next = Some(next.clone());
        // Those that came before the line above were not added to it, and may be committed after all rows were read.
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.ids.values().for_each(|(device, message_id)| next.add(device, message_id));
        next
    }

    /// Every row that was there at [`Filter::begin`] was added.
    pub(super) fn is_complete(&self) {
        let mut generations = self.generations.write().unwrap_or_else(PoisonError::into_inner);
        generations.asked = generations.next.take();
    }

    /// What was begun comes to nothing.
    pub(super) fn give_up(&self) {
        self.generations.write().unwrap_or_else(PoisonError::into_inner).next = None;
    }

    /// Its memory, bytes.
    pub(super) fn bytes(&self) -> usize {
        let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
        [&generations.asked, &generations.next].into_iter().flatten().map(|bits| bits.words.len() * 8).sum()
    }
}

impl Bits {
    /// For half as many rows again, so that it is seldom made anew.
    fn new(rows: u64) -> Bits {
        let room = (rows + rows / 2).clamp(IDS.0, IDS.1);
        let words = (room * BITS).div_ceil(64);
        Bits {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            added: AtomicU64::new(0),
            room,
            is_dense: AtomicBool::new(false),
        }
    }

    /// The bits of an id: two hashes, one of which moves the other on.
    fn bits(&self, device: &str, message_id: &str) -> impl Iterator<Item = (usize, u64)> {
        let mut hasher = DefaultHasher::new();
        (device, message_id).hash(&mut hasher);
        let first = hasher.finish();
        hasher.write_u8(1);
        let step = hasher.finish() | 1;
        let bits = self.words.len() as u64 * 64;
        (0..PROBES).map(move |n| {
            let bit = first.wrapping_add(step.wrapping_mul(n)) % bits;
            ((bit / 64) as usize, 1 << (bit % 64))
        })
    }

    pub(super) fn add(&self, device: &str, message_id: &str) {
        for (word, bit) in self.bits(device, message_id) {
            self.words[word].fetch_or(bit, Ordering::AcqRel);
        }
        // At the limit of its memory nothing is gained by making it anew.
        if self.added.fetch_add(1, Ordering::Relaxed) >= self.room && self.room < IDS.1 {
            self.is_dense.store(true, Ordering::Relaxed);
        }
    }

    fn may_have(&self, device: &str, message_id: &str) -> bool {
        self.bits(device, message_id).all(|(word, bit)| self.words[word].load(Ordering::Acquire) & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(filter: &Filter, ids: std::ops::Range<u32>) {
        let bits = filter.begin(ids.len() as u64);
        ids.for_each(|n| bits.add("pump", &format!("m-{n}")));
        filter.is_complete();
    }

    #[test]
    fn nothing_is_called_new_before_every_row_was_added() {
        let filter = Filter::default();
        assert!(!filter.is_new("pump", "m-1"));
        let bits = filter.begin(10);
        assert!(!filter.is_new("pump", "m-1"));
        bits.add("pump", "m-0");
        filter.add("pump", "m-2");
        filter.is_complete();
        assert!(filter.is_new("pump", "m-1"));
        assert!(!filter.is_new("pump", "m-0"), "it was there");
        assert!(!filter.is_new("pump", "m-2"), "it came meanwhile");
        assert!(filter.is_new("valve", "m-2"), "another device's");
    }

    #[test]
    fn a_row_that_is_being_written_while_all_are_read_is_not_called_new() {
        let filter = Arc::new(Filter::default());
        let committed = filter.writes("pump", "m-1");
        drop(filter.writes("pump", "m-2"));
        filter.begin(10);
        drop(committed);
        filter.is_complete();
        assert!(!filter.is_new("pump", "m-1"));
        assert!(filter.is_new("pump", "m-2"), "whoever reads all rows sees it");
    }

    #[test]
    fn what_was_added_is_never_called_new_and_few_others_are_called_known() {
        let filter = Filter::default();
        filled(&filter, 0..100_000);
        assert!((0..100_000).all(|n| !filter.is_new("pump", &format!("m-{n}"))));
        let in_vain = (100_000..200_000).filter(|n| !filter.is_new("pump", &format!("m-{n}"))).count();
        assert!(in_vain < 1000, "{in_vain} of 100,000 new ids are looked up in vain");
    }

    #[test]
    fn one_that_was_laid_out_for_fewer_is_made_anew_and_forgets_nothing_meanwhile() {
        let filter = Filter::default();
        assert!(filter.is_wanted());
        filled(&filter, 0..10);
        assert!(!filter.is_wanted());
        (10..100_000).for_each(|n| filter.add("pump", &format!("m-{n}")));
        assert!(filter.is_wanted());
        let bits = filter.begin(100_000);
        assert!(!filter.is_wanted(), "one at a time");
        filter.add("pump", "late");
        assert!(!filter.is_new("pump", "m-9") && !filter.is_new("pump", "late"));
        (0..100_000).for_each(|n| bits.add("pump", &format!("m-{n}")));
        filter.is_complete();
        assert!(!filter.is_new("pump", "m-9") && !filter.is_new("pump", "late"));
        assert!(!filter.is_wanted());
    }

    #[test]
    fn its_memory_is_bounded() {
        for (rows, most) in [(0, 100 << 10), (5_000_000, 12 << 20), (1_000_000_000, 25 << 20)] {
            let filter = Filter::default();
            filter.begin(rows);
            assert!(filter.bytes() <= most, "{} bytes for {rows} rows", filter.bytes());
        }
    }
}
