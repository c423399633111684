//! The news of one device on the wire: one at a time, so many in a while, behind every result event.
//!
//! Invariants
//! - One is on the wire at a time. What a connection leaves unacknowledged is published again on the next, under the
//!   same id; what is not taken [`TRIES_MAX`] times is lost.
//! - Who chatters uses up what is allowed to it, and nothing else: [`AT_ONCE`], then one each [`EACH`].

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::hub::news::News;
use crate::ledger::row::{Event, EventKind, NEWS_FROM};
use crate::time::until;

/// How many may be published in one go after a calm.
const AT_ONCE: u32 = 60;
/// How often one is, in the long run: 86,400 a day are a fifth of what a unit of the hub's smallest paid edition takes.
const EACH: Duration = Duration::from_secs(1);
/// How often one is published that the hub does not take, or that connections end with.
const TRIES_MAX: u32 = 3;

/// What is to be told of one device.
pub(super) struct Telling {
    device: String,
    news: Arc<News>,
    /// Begins the ids of this life's events, once there is one.
    life: Option<String>,
    told: i64,
    /// Taken, and not acknowledged.
    in_hand: Option<InHand>,
    /// What is allowed is used up until then, if nothing was published since [`AT_ONCE`] times [`EACH`] before.
    used_until: Option<Instant>,
    /// The last one that was told had lost others.
    has_lost: bool,
    /// The daemon stops: nothing is held back.
    hurries: bool,
}

struct InHand {
    event: Event,
    /// How many it says were lost before it.
    lost: u64,
    tries: u32,
    is_on_the_wire: bool,
}

impl Telling {
    pub(super) fn new(device: &str, news: Arc<News>) -> Telling {
        let (life, in_hand, used_until) = (None, None, None);
        Telling { device: device.to_owned(), news, life, told: 0, in_hand, used_until, has_lost: false, hurries: false }
    }

    /// Whether there is nothing to tell.
    pub(super) fn is_idle(&self) -> bool {
        self.in_hand.is_none() && !self.news.is_there()
    }

    /// Whether an event is one of these, by its number.
    pub(super) fn is_of(seq: i64) -> bool {
        seq >= NEWS_FROM
    }

    /// From now on nothing is held back: what is not told soon is lost.
    pub(super) fn hurry(&mut self) {
        self.hurries = true;
    }

    /// Waits until there may be something to publish. Cancel-safe.
    pub(super) async fn stirred(&self) {
        match &self.in_hand {
            Some(in_hand) if in_hand.is_on_the_wire => std::future::pending().await,
            Some(_) => {}
            None => {
                while !self.news.is_there() {
                    self.news.rung().await;
                }
                if let Some(at) = self.held_until(Instant::now()) {
                    until(at).await;
                }
            }
        }
    }

    /// The next one that is to be published now.
    pub(super) fn next(&mut self, now: Instant) -> Option<Event> {
        if self.in_hand.is_none() && self.held_until(now).is_none() {
            self.in_hand = self.take();
            if self.in_hand.is_some() {
                self.used_until = Some(self.used_until.map_or(now, |used| used.max(now)) + EACH);
            }
        }
        let in_hand = self.in_hand.as_mut().filter(|in_hand| !in_hand.is_on_the_wire)?;
        in_hand.tries += 1;
        in_hand.is_on_the_wire = true;
        Some(in_hand.event.clone())
    }

    /// Until when nothing new is published.
    fn held_until(&self, now: Instant) -> Option<Instant> {
        let free = self.used_until?.checked_sub(EACH * (AT_ONCE - 1))?;
        (free > now && !self.hurries).then_some(free)
    }

    fn take(&mut self) -> Option<InHand> {
        let (body, lost) = self.news.take()?;
        if lost > 0 && !self.has_lost {
            tracing::warn!(
                device = %self.device,
                lost,
                "its peripheral says more by itself than is published, or what may be an answer; does `events` match more \
                 than is wanted?"
            );
        }
        self.has_lost = lost > 0;
        self.told += 1;
        let life = self.life.get_or_insert_with(|| format!("{:032x}", fastrand::u128(..)));
        let (id, seq) = (format!("{life}-{}", self.told), NEWS_FROM + self.told);
        let event = Event { kind: EventKind::News, seq, id, message_id: None, body };
        Some(InHand { event, lost, tries: 0, is_on_the_wire: false })
    }

    /// The hub has it.
    pub(super) fn acknowledged(&mut self) {
        self.in_hand = None;
    }

    /// It is published again, unless that was tried often enough.
    pub(super) fn again(&mut self) {
        let Some(in_hand) = &mut self.in_hand else { return };
        in_hand.is_on_the_wire = false;
        if in_hand.tries >= TRIES_MAX {
            self.give_up();
        }
    }

    /// The hub does not take it.
    pub(super) fn give_up(&mut self) {
        if let Some(InHand { lost, .. }) = self.in_hand.take() {
            tracing::debug!(device = %self.device, "the hub does not take what its peripheral has said: it is lost");
            self.news.lose_taken(lost);
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        let left = self.news.count() + usize::from(self.in_hand.is_some());
        // Whoever tells this device's news after this one says so.
        if let Some(InHand { lost, .. }) = self.in_hand.take() {
            self.news.lose_taken(lost);
        }
        if left > 0 {
            tracing::warn!(device = %self.device, left, "what its peripheral has said by itself is lost: the hub was not reached in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    fn telling() -> (Telling, Arc<News>) {
        let news = Arc::new(News::default());
        (Telling::new("d", news.clone()), news)
    }

    fn put(news: &News, count: usize) {
        (0..count).for_each(|_| news.put(Map::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_told_at_once_and_then_one_each_second() {
        let (mut telling, news) = telling();
        let began = Instant::now();
        let mut times = Vec::new();
        for _ in 0..AT_ONCE + 5 {
            put(&news, 1);
            telling.stirred().await;
            times.push(began.elapsed().as_secs());
            let event = telling.next(Instant::now()).unwrap();
            assert!(telling.next(Instant::now()).is_none(), "one at a time");
            assert!(Telling::is_of(event.seq));
            telling.acknowledged();
        }
        assert!(times[..60].iter().all(|time| *time == 0), "{times:?}");
        assert_eq!(times[60..], [1, 2, 3, 4, 5]);
        put(&news, 1);
        telling.hurry();
        assert!(telling.next(Instant::now()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_that_is_not_taken_says_of_others_is_said_by_the_next() {
        let (mut telling, news) = telling();
        (0..3).for_each(|_| news.pass_over());
        put(&news, 2);
        assert_eq!(telling.next(Instant::now()).unwrap().body, r#"{"dropped":3}"#);
        telling.give_up();
        assert_eq!(telling.next(Instant::now()).unwrap().body, r#"{"dropped":4}"#);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_in_hand_at_the_end_is_said_to_be_lost_by_whoever_tells_the_next() {
        let (mut telling, news) = telling();
        (0..3).for_each(|_| news.pass_over());
        put(&news, 1);
        assert!(telling.next(Instant::now()).is_some());
        drop(telling);
        put(&news, 1);
        let mut next = Telling::new("d", news);
        assert_eq!(next.next(Instant::now()).unwrap().body, r#"{"dropped":4}"#);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_is_told_again_under_its_id_and_given_up_after_so_many_tries() {
        let (mut telling, news) = telling();
        put(&news, 1);
        let ids: Vec<String> = (0..TRIES_MAX)
            .map(|_| {
                let event = telling.next(Instant::now()).unwrap();
                telling.again();
                event.id
            })
            .collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert!(telling.next(Instant::now()).is_none() && telling.is_idle());
        put(&news, 1);
        let next = telling.next(Instant::now()).unwrap();
        assert_eq!(next.body, r#"{"dropped":1}"#);
        assert_ne!(next.id, ids[0]);
    }
}
