//! Which messages of a device the hub may keep locked after a link has ended. Pure, but for the lock around it.
//!
//! No document says whether what a link has brought, and was not settled when it ended, is free at once or stays locked
//! for its minute. So the next link shows it: as long as the oldest of them comes first, it is free, and nobody waits.
//! A message that comes before one of them is out of turn, and then all of them are waited for.
//!
//! Invariants
//! - No message is run before one with a lower number that an earlier link brought, and that may be locked still (G5).
//!   What comes when nobody has the link any more counts, too, and its deadline counts from then (G13).
//! - One that an earlier link brought, and that has not come again, may have been on its way when the link after it
//!   ended: it may be locked anew then, until a later one comes in turn, which shows that the hub has it no more.
//! - What is kept of a device is no more than [`WINDOW_MAX`] numbers for each of its links within the time of a lock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::command::Message;
use crate::hub::lock::{self, Recipient};
use crate::hub::transport::{self, NoteLate};
use crate::hub::WINDOW_MAX;

/// What ended links have left, by device.
#[derive(Debug, Default)]
pub(super) struct Left(Mutex<HashMap<Recipient, Rest>>);

/// What links of one device have left.
#[derive(Debug, Default, Clone)]
struct Rest {
    /// Until when each may be locked, by its number at the hub.
    numbers: BTreeMap<u64, Instant>,
    /// One came out of turn: the hub keeps them locked.
    are_locked: bool,
}

impl Left {
    /// Until when the next link has to wait. `by_amqp`: it is one that would show whether anything is locked.
    pub(super) fn until(&self, recipient: &Recipient, by_amqp: bool) -> Option<Instant> {
        let all = self.lock();
        let rest = all.get(recipient).filter(|rest| rest.are_locked || !by_amqp)?;
        rest.numbers.values().max().copied().filter(|until| *until > Instant::now())
    }

    /// What the next daemon is to know of it. A link that it makes can't show what was left, as it has forgotten it.
    pub(super) fn rest(&self) -> transport::Rest {
        let (all, now) = (self.lock(), Instant::now());
        let left = all.values().filter(|rest| rest.numbers.values().any(|until| *until > now));
        let of_each = left.map(|rest| match rest.are_locked {
            true => transport::Rest::Locked,
            false => transport::Rest::Doubtful,
        });
        of_each.max().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Recipient, Rest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the links of a device have brought and is not settled, up to the present one. When this is dropped the link has
/// ended, and has left it.
pub(super) struct Locked {
    left: Arc<Left>,
    recipient: Recipient,
    /// What earlier links have left and has not come again, and until when it is locked, or was; and what has come on
    /// this one.
    awaited: BTreeMap<u64, Instant>,
    here: BTreeSet<u64>,
    /// One came before its turn, so that all of them are to be waited for.
    is_out_of_turn: bool,
}

impl Locked {
    /// Of a link that is about to be made.
    pub(super) fn of(left: Arc<Left>, recipient: Recipient) -> Locked {
        let (awaited, here) = Default::default();
        let mut locked = Locked { left, recipient, awaited, here, is_out_of_turn: false };
        locked.take_over();
        locked
    }

    /// Takes over what is known of earlier links. More of it may come to be known while this one stands.
    fn take_over(&mut self) {
        let Rest { mut numbers, are_locked } = self.left.lock().remove(&self.recipient).unwrap_or_default();
        numbers.retain(|number, _| !self.here.contains(number));
        self.awaited.append(&mut numbers);
        let now = Instant::now();
        self.is_out_of_turn |= are_locked && self.awaited.values().any(|until| *until > now);
    }

    /// Whoever is to be told what comes on this link when it is nobody's any more.
    pub(super) fn late(&self, note: NoteLate) -> Late {
        Late { left: self.left.clone(), recipient: self.recipient.clone(), note }
    }

    /// A message with this number has come. `false`: one before it may be locked, and must come first.
    pub(super) fn came(&mut self, number: u64) -> bool {
        let now = Instant::now();
        self.take_over();
        self.awaited.remove(&number);
        self.here.insert(number);
        let is_in_turn = self.awaited.range(..number).all(|(_, until)| *until <= now);
        if is_in_turn {
            self.awaited = self.awaited.split_off(&number);
        }
        self.is_out_of_turn |= !is_in_turn;
        is_in_turn
    }

    /// Whether one came before its turn, so that all of them are waited for.
    pub(super) fn is_out_of_turn(&self) -> bool {
        self.is_out_of_turn
    }

    /// Nothing can come of the message with this number any more, whether the hub hears of its end or not.
    pub(super) fn ended(&mut self, number: u64) {
        self.here.remove(&number);
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.take_over();
        // However long ago they came, the hub may have sent them again right now, when their locks had run out.
        let until = Instant::now() + lock::time();
        let all = self.awaited.keys().chain(&self.here).copied().collect::<BTreeSet<u64>>();
        let numbers: BTreeMap<_, _> = all.into_iter().take(WINDOW_MAX).map(|number| (number, until)).collect();
        if !numbers.is_empty() {
            self.left.lock().insert(self.recipient.clone(), Rest { numbers, are_locked: self.is_out_of_turn });
        }
    }
}

/// What comes for a device on a link that is nobody's any more, as it was on its way when that ended.
pub(super) struct Late {
    left: Arc<Left>,
    recipient: Recipient,
    note: NoteLate,
}

impl Late {
    /// A message has come.
    pub(super) fn came(&self, message: Message) {
        if let Some(number) = message.sequence_number {
            let until = Instant::now() + lock::time();
            self.left.lock().entry(self.recipient.clone()).or_default().numbers.insert(number, until);
        }
        (self.note)(message);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn link(left: &Arc<Left>) -> Locked {
        Locked::of(left.clone(), recipient())
    }

    fn recipient() -> Recipient {
        Recipient::of("hub", "pump")
    }

    fn waits(left: &Left) -> u64 {
        left.until(&recipient(), true).map_or(0, |until| until.duration_since(Instant::now()).as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_hub_that_frees_what_a_link_leaves_is_never_waited_for() {
        let left = Arc::new(Left::default());
        let mut first = link(&left);
        assert!([7, 8, 9].iter().all(|number| first.came(*number)));
        first.ended(7);
        drop(first);
        assert_eq!(waits(&left), 0);
        let mut second = link(&left);
        assert!(second.came(8), "the oldest that was left");
        assert!(second.came(9) && second.came(10));
        (8..=10).for_each(|number| second.ended(number));
        drop(second);
        assert!(left.lock().is_empty(), "nothing is kept of what is settled");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_comes_before_one_that_was_left_is_out_of_turn_until_all_are_free() {
        let left = Arc::new(Left::default());
        let mut first = link(&left);
        assert!(first.came(7) && first.came(8));
        drop(first);
        tokio::time::advance(Duration::from_secs(5)).await;
        let mut second = link(&left);
        assert!(!second.came(9));
        drop(second);
        assert_eq!(waits(&left), 65, "for the one that came out of turn too");
        assert_eq!(left.rest(), transport::Rest::Locked);
        // The others are not forgotten by a link that brings nothing.
        drop(link(&left));
        assert_eq!(waits(&left), 65);
        let mut third = link(&left);
        assert!(!third.came(10));
        drop(third);
        tokio::time::advance(Duration::from_secs(65)).await;
        assert_eq!(waits(&left), 0);
        let mut fourth = link(&left);
        assert!([7, 8, 9, 10].iter().all(|number| fourth.came(*number)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_unsettled_for_longer_than_a_lock_may_be_locked_anew_when_its_link_ends() {
        let left = Arc::new(Left::default());
        let mut first = link(&left);
        assert!(first.came(7));
        tokio::time::advance(Duration::from_secs(70)).await;
        drop(first);
        let mut second = link(&left);
        assert!(!second.came(8));
        drop(second);
        assert_eq!(waits(&left), 65);
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_have_been_on_its_way_again_when_a_link_was_cut_is_not_overtaken() {
        let left = Arc::new(Left::default());
        let mut first = link(&left);
        assert!(first.came(7) && first.came(8));
        drop(first);
        tokio::time::advance(Duration::from_secs(70)).await;
        let mut second = link(&left);
        assert!(second.came(7));
        second.ended(7);
        // With it goes what it had sent behind that.
        drop(second);
        tokio::time::advance(Duration::from_secs(20)).await;
        let mut third = link(&left);
        assert!(!third.came(9));
        drop(third);
        assert_eq!(waits(&left), 65);
        tokio::time::advance(Duration::from_secs(65)).await;
        let mut fourth = link(&left);
        assert!(fourth.came(9), "the hub has thrown 8 away");
        fourth.ended(9);
        drop(fourth);
        assert!(left.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_hub_has_thrown_away_is_waited_for_no_longer_than_a_lock() {
        let left = Arc::new(Left::default());
        let mut first = link(&left);
        first.came(7);
        drop(first);
        let mut second = link(&left);
        assert!(second.came(3), "what comes from before it is in turn");
        tokio::time::advance(Duration::from_secs(65)).await;
        assert!(second.came(8));
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_when_its_link_had_ended_is_waited_for_by_the_link_that_stands_and_by_the_next() {
        let left = Arc::new(Left::default());
        let mut first = link(&left);
        let late = first.late(Arc::new(drop));
        let numbered = |number| Message { sequence_number: Some(number), ..Message::default() };
        assert!(first.came(7));
        first.ended(7);
        drop(first);
        late.came(numbered(8));
        let mut second = link(&left);
        late.came(numbered(9));
        assert!(second.came(8) && !second.came(10));
        late.came(numbered(11));
        drop(second);
        assert_eq!(waits(&left), 65);
        let mut third = link(&left);
        late.came(numbered(12));
        drop(late);
        assert!([8, 9, 10, 11, 12, 13].iter().all(|number| third.came(*number)));
        (8..=13).for_each(|number| third.ended(number));
        drop(third);
        assert!(left.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn another_protocol_waits_for_whatever_was_left() {
        let left = Arc::new(Left::default());
        let mut first = link(&left);
        first.came(7);
        drop(first);
        assert_eq!(left.until(&recipient(), true), None);
        assert_eq!(left.until(&recipient(), false), Some(Instant::now() + Duration::from_secs(65)));
        assert_eq!(left.until(&Recipient::of("hub", "valve"), false), None);
        assert_eq!(left.rest(), transport::Rest::Doubtful);
        tokio::time::advance(Duration::from_secs(65)).await;
        assert_eq!(left.rest(), transport::Rest::Nothing);
    }
}
