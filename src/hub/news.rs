//! What a peripheral has said by itself, on its way from its bus to the hub. It waits in memory only: a command costs
//! no flush for it, and whoever chatters fills no disk. What waits when the daemon ends is lost.
//!
//! Invariants
//! - Nobody waits to leave something here: what finds no room is lost, and counted. The first things stay, for what
//!   began a cascade says more than its end.
//! - What was lost is told with the next that is published.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value as Json};
use tokio::sync::Notify;

/// Most that wait of one device, and bytes in their bodies.
const WAITING_MAX: (usize, usize) = (64, 32 * 1024);

/// The news of one device.
#[derive(Debug, Default)]
pub struct News {
    waiting: Mutex<Waiting>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    items: VecDeque<Item>,
    bytes: usize,
    /// How many were lost since the last was taken.
    lost: u64,
    /// How many came, and how many of them were lost.
    so_far: (u64, u64),
}

/// Something that was said.
#[derive(Debug, Clone, PartialEq)]
struct Item {
    said: Map<String, Json>,
    bytes: usize,
    /// How many were lost right before it.
    lost: u64,
}

impl News {
    /// Leaves what is to be told, or counts it as lost.
    pub fn put(&self, said: Map<String, Json>) {
        let bytes = said.iter().map(|(key, value)| key.len() + value.to_string().len()).sum();
        let mut waiting = self.waiting();
        waiting.so_far.0 += 1;
        if waiting.items.len() >= WAITING_MAX.0 || waiting.bytes + bytes > WAITING_MAX.1 {
            waiting.lose_one();
            return;
        }
        let lost = std::mem::take(&mut waiting.lost);
        waiting.bytes += bytes;
        waiting.items.push_back(Item { said, bytes, lost });
        drop(waiting);
        self.bell.notify_one();
    }

    /// Counts something that was heard as lost, as it is not to be told.
    pub fn pass_over(&self) {
        let mut waiting = self.waiting();
        waiting.so_far.0 += 1;
        waiting.lose_one();
    }

    /// How many were heard since the start, and how many of them were lost.
    pub fn so_far(&self) -> (u64, u64) {
        self.waiting().so_far
    }

    /// Counts one that was taken as lost, which would have told that so many were lost before it: the next one tells
    /// of all of them.
    pub(in crate::hub) fn lose_taken(&self, before: u64) {
        let mut waiting = self.waiting();
        let Waiting { items, lost, so_far, .. } = &mut *waiting;
        so_far.1 = so_far.1.saturating_add(1);
        let untold = items.front_mut().map_or(lost, |next| &mut next.lost);
        *untold = untold.saturating_add(before).saturating_add(1);
    }

    /// The body of the next event, and how many were lost before it.
    pub(in crate::hub) fn take(&self) -> Option<(String, u64)> {
        let mut waiting = self.waiting();
        let Item { mut said, bytes, lost } = waiting.items.pop_front()?;
        waiting.bytes -= bytes;
        drop(waiting);
        if lost > 0 {
            said.insert("dropped".into(), lost.into());
        }
        Some((Json::Object(said).to_string(), lost))
    }

    /// Whether something waits.
    pub(in crate::hub) fn is_there(&self) -> bool {
        !self.waiting().items.is_empty()
    }

    /// How many wait.
    pub(in crate::hub) fn count(&self) -> usize {
        self.waiting().items.len()
    }

    /// Returns when something was left, perhaps long ago.
    pub(in crate::hub) async fn rung(&self) {
        self.bell.notified().await;
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // What waits is right, whoever panicked while holding it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn lose_one(&mut self) {
        self.lost = self.lost.saturating_add(1);
        self.so_far.1 = self.so_far.1.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(text: &str) -> Map<String, Json> {
        Map::from_iter([("event".to_owned(), Json::from(text))])
    }

    fn taken(news: &News) -> Option<Json> {
        news.take().map(|(body, _)| serde_json::from_str(&body).unwrap())
    }

    #[test]
    fn what_finds_no_room_is_lost_and_the_next_that_finds_some_says_how_many() {
        let news = News::default();
        for n in 0..WAITING_MAX.0 + 5 {
            news.put(said(&n.to_string()));
        }
        assert_eq!(news.count(), WAITING_MAX.0);
        assert_eq!(taken(&news), Some(json!({ "event": "0" })));
        news.put(said("later"));
        for n in 1..WAITING_MAX.0 {
            assert_eq!(taken(&news), Some(json!({ "event": n.to_string() })));
        }
        assert_eq!(taken(&news), Some(json!({ "event": "later", "dropped": 5 })));
        assert_eq!((taken(&news), news.is_there()), (None, false));
        assert_eq!(news.so_far(), (WAITING_MAX.0 as u64 + 6, 5));
    }

    #[test]
    fn what_one_would_have_told_that_is_lost_itself_tells_the_next_one() {
        let news = News::default();
        news.pass_over();
        for text in ["first", "second", "third"] {
            news.put(said(text));
        }
        assert_eq!(taken(&news), Some(json!({ "event": "first", "dropped": 1 })));
        news.lose_taken(1);
        assert_eq!(taken(&news), Some(json!({ "event": "second", "dropped": 2 })));
        news.lose_taken(2);
        assert_eq!(taken(&news), Some(json!({ "event": "third", "dropped": 3 })));
        news.lose_taken(3);
        news.put(said("fourth"));
        assert_eq!(taken(&news), Some(json!({ "event": "fourth", "dropped": 4 })));
        assert_eq!(news.so_far(), (5, 4));
    }

    #[test]
    fn long_ones_are_bounded_by_their_bytes() {
        let news = News::default();
        (0..100).for_each(|_| news.put(said(&"x".repeat(4096))));
        assert_eq!(news.count(), 7);
        while taken(&news).is_some() {}
        news.pass_over();
        news.put(said("short"));
        assert_eq!(taken(&news), Some(json!({ "event": "short", "dropped": 94 })));
        assert_eq!(news.so_far(), (102, 94));
    }
}
