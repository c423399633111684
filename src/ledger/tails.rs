//! The newest result events, handed over to the outboxes without a look into the file.
//!
//! Invariants
//! - What a tail answers is what the file would: every event of its device after the one asked for.
//! - Memory is bounded: what finds no room is read from the file.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::row::Event;

/// Events of a device that are kept at most: as many as are on their way to the hub at a time.
const EVENTS_MAX: usize = 16;
/// Bytes of their bodies at most.
const BYTES_MAX: usize = 8 * 1024;

/// The newest events of every device that publishes.
#[derive(Debug, Default)]
pub(super) struct Tails(Mutex<HashMap<String, Tail>>);

#[derive(Debug, Default)]
struct Tail {
    /// Every event after this one is here. `None`: not known yet.
    whole_after: Option<i64>,
    /// The newest that found no room.
    lost: i64,
    events: VecDeque<Event>,
    bytes: usize,
}

impl Tails {
    fn tails(&self) -> MutexGuard<'_, HashMap<String, Tail>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device's events after one, if they are all known here. If not, those that are committed from now on are kept.
    pub(super) fn after(&self, device: &str, after: i64, limit: usize) -> Option<Vec<Event>> {
        let mut tails = self.tails();
        let Some(tail) = tails.get_mut(device) else {
            tails.insert(device.to_owned(), Tail::default());
            return None;
        };
        if tail.whole_after.is_none_or(|whole| after < whole) {
            return None;
        }
        tail.whole_after(after);
        Some(tail.events.iter().take(limit).cloned().collect())
    }

    /// The file was asked after [`Tails::after`] had no answer, and its last event of a device is this one.
    pub(super) fn end_of_file(&self, device: &str, last: i64) {
        if let Some(tail) = self.tails().get_mut(device) {
            tail.whole_after(last.max(tail.lost));
        }
    }

    /// The hub has an event: it is not handed over again.
    pub(super) fn forget(&self, seq: i64) {
        for tail in self.tails().values_mut() {
            if let Ok(at) = tail.events.binary_search_by_key(&seq, |event| event.seq) {
                if let Some(event) = tail.events.remove(at) {
                    tail.bytes -= event.body.len();
                }
                return;
            }
        }
    }

    /// An event is committed. They come in the order of their numbers.
    pub(super) fn add(&self, device: &str, event: Event) {
        let mut tails = self.tails();
        // Nobody publishes for a device that has not asked; what is known from the file is not kept again.
        let Some(tail) = tails.get_mut(device) else { return };
        if tail.whole_after.is_some_and(|whole| event.seq <= whole) {
            return;
        }
        tail.bytes += event.body.len();
        tail.events.push_back(event);
        while tail.events.len() > EVENTS_MAX || tail.bytes > BYTES_MAX {
            let Some(oldest) = tail.events.pop_front() else { break };
            tail.bytes -= oldest.body.len();
            tail.lost = oldest.seq;
            tail.whole_after = tail.whole_after.map(|whole| whole.max(oldest.seq));
        }
    }
}

impl Tail {
    fn whole_after(&mut self, seq: i64) {
        while self.events.front().is_some_and(|event| event.seq <= seq) {
            let Some(event) = self.events.pop_front() else { break };
            self.bytes -= event.body.len();
        }
        self.whole_after = Some(seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::row::EventKind;

    fn event(seq: i64, bytes: usize) -> Event {
        Event { kind: EventKind::Result, seq, id: format!("e-{seq}"), message_id: None, body: "x".repeat(bytes) }
    }

    /// A file of events beside the tails, as the outbox asks them.
    fn ask(tails: &Tails, file: &[Event], after: i64) -> (Vec<i64>, bool) {
        let numbers = |events: Vec<Event>| events.into_iter().map(|event| event.seq).collect();
        if let Some(found) = tails.after("pump", after, 4) {
            return (numbers(found), true);
        }
        let found: Vec<Event> = file.iter().filter(|event| event.seq > after).take(4).cloned().collect();
        if found.len() < 4 {
            tails.end_of_file("pump", found.last().map_or(after, |event| event.seq));
        }
        (numbers(found), false)
    }

    #[test]
    fn what_is_committed_is_handed_over_without_the_file() {
        let tails = Tails::default();
        let mut file = vec![event(1, 10)];
        assert_eq!(ask(&tails, &file, 0), (vec![1], false));
        assert_eq!(ask(&tails, &file, 1), (vec![], true));
        file.push(event(3, 10));
        tails.add("pump", event(3, 10));
        tails.add("valve", event(4, 10));
        assert_eq!(ask(&tails, &file, 1), (vec![3], true));
        assert_eq!(ask(&tails, &file, 3), (vec![], true));
        assert_eq!(ask(&tails, &file, 0), (vec![1, 3], false), "another connection begins anew");
    }

    #[test]
    fn what_the_hub_has_is_not_handed_over_again() {
        let tails = Tails::default();
        assert_eq!(ask(&tails, &[], 0), (vec![], false));
        tails.add("pump", event(1, 10));
        tails.add("pump", event(2, 10));
        tails.forget(1);
        assert_eq!(ask(&tails, &[], 0), (vec![2], true));
    }

    #[test]
    fn an_event_that_comes_while_the_file_is_read_is_neither_lost_nor_doubled() {
        let tails = Tails::default();
        assert_eq!(tails.after("pump", 0, 4), None);
        tails.add("pump", event(1, 10));
        tails.add("pump", event(2, 10));
        tails.end_of_file("pump", 1);
        assert_eq!(ask(&tails, &[], 1), (vec![2], true));
        tails.end_of_file("pump", 3);
        tails.add("pump", event(3, 10));
        assert_eq!(ask(&tails, &[], 3), (vec![], true), "the file had it before it was told of here");
    }

    #[test]
    fn what_the_tails_and_the_file_say_is_what_the_file_says_whatever_finds_room() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (tails, mut file, mut cursor) = (Tails::default(), Vec::new(), 0);
        let mut answered = 0;
        for seq in 1..20_000 {
            let new = event(seq, random.usize(0..3000));
            file.push(new.clone());
            tails.add("pump", new);
            if random.u8(..) < 100 {
                continue;
            }
            if random.u8(..) == 0 {
                cursor = 0;
            }
            let (found, in_memory) = ask(&tails, &file, cursor);
            let expected: Vec<i64> = (cursor + 1..=seq).take(4).collect();
            assert_eq!(found, expected, "after {cursor} of {seq}");
            answered += u32::from(in_memory);
            cursor = if random.bool() { seq } else { *found.last().unwrap_or(&cursor) };
        }
        assert!(answered > 1000, "{answered}");
    }
}
