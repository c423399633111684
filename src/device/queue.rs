//! A bounded queue with one taker, whose waiting things can be looked through: what nobody wants any more leaves it at
//! once, and not only when its turn comes.
//!
//! Invariants
//! - What is taken is taken in the order in which it was put in.
//! - [`Receiver::recv`] may be cancelled at any await, and takes nothing then.
//! - Nothing is dropped while the queue is locked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

/// A queue in which `most` things may wait.
pub fn bounded<T>(most: usize) -> (Sender<T>, Receiver<T>) {
    let waiting = Mutex::new(Waiting { things: VecDeque::new(), senders: 1, is_open: true });
    let queue = Arc::new(Queue { waiting, most, filled: Notify::new(), freed: Notify::new() });
    (Sender(queue.clone()), Receiver(queue))
}

/// Puts things into a queue.
pub struct Sender<T>(Arc<Queue<T>>);

/// Takes things out of a queue.
pub struct Receiver<T>(Arc<Queue<T>>);

/// Why a thing was not put into a queue; it comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused<T> {
    /// As many wait as may.
    Full(T),
    /// Nobody takes any more.
    Closed(T),
}

struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    most: usize,
    /// Something came, or the last sender has gone.
    filled: Notify,
    /// There is room again, or nobody takes any more.
    freed: Notify,
}

struct Waiting<T> {
    things: VecDeque<T>,
    senders: usize,
    is_open: bool,
}

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().expect("nobody panics while holding a queue")
    }

    fn put(&self, thing: T) -> Result<(), Refused<T>> {
        let mut waiting = self.lock();
        if !waiting.is_open {
            return Err(Refused::Closed(thing));
        }
        if waiting.things.len() >= self.most {
            return Err(Refused::Full(thing));
        }
        waiting.things.push_back(thing);
        self.filled.notify_one();
        Ok(())
    }

    fn retain(&self, mut is_wanted: impl FnMut(&T) -> bool) -> usize {
        let mut waiting = self.lock();
        let things = std::mem::take(&mut waiting.things);
        let (wanted, unwanted): (VecDeque<T>, Vec<T>) =
            things.into_iter().fold((VecDeque::new(), Vec::new()), |(mut wanted, mut unwanted), thing| {
                match is_wanted(&thing) {
                    true => wanted.push_back(thing),
                    false => unwanted.push(thing),
                }
                (wanted, unwanted)
            });
        waiting.things = wanted;
        drop(waiting);
        if !unwanted.is_empty() {
            self.freed.notify_one();
        }
        unwanted.len()
    }
}

impl<T> Sender<T> {
    /// Puts something in, if there is room.
    ///
    /// # Errors
    /// It comes back.
    pub fn try_send(&self, thing: T) -> Result<(), Refused<T>> {
        self.0.put(thing)
    }

    /// Puts something in as soon as there is room. One task at a time may wait so.
    ///
    /// # Errors
    /// It comes back: nobody takes any more.
    pub async fn send(&self, thing: T) -> Result<(), T> {
        let mut thing = thing;
        loop {
            match self.0.put(thing) {
                Ok(()) => return Ok(()),
                Err(Refused::Closed(thing)) => return Err(thing),
                Err(Refused::Full(back)) => thing = back,
            }
            self.0.freed.notified().await;
        }
    }

    /// Takes out and drops what is not wanted, and says how many that were. What waits is looked at in order, and must
    /// not be put in or taken out meanwhile by `is_wanted`.
    pub fn retain(&self, is_wanted: impl FnMut(&T) -> bool) -> usize {
        self.0.retain(is_wanted)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.senders -= 1;
        if waiting.senders == 0 {
            self.0.filled.notify_one();
        }
    }
}

impl<T> Receiver<T> {
    /// Returns when there is something to take, or every sender has gone. Cancel-safe.
    pub async fn filled(&self) {
        loop {
            {
                let waiting = self.0.lock();
                if !waiting.things.is_empty() || waiting.senders == 0 {
                    // Who is called for the taking is called once more.
                    self.0.filled.notify_one();
                    return;
                }
            }
            self.0.filled.notified().await;
        }
    }

    /// The next thing, as soon as there is one. `None`: nothing waits, and every sender has gone.
    pub async fn recv(&mut self) -> Option<T> {
        loop {
            {
                let mut waiting = self.0.lock();
                if let Some(thing) = waiting.things.pop_front() {
                    self.0.freed.notify_one();
                    return Some(thing);
                }
                if waiting.senders == 0 {
                    return None;
                }
            }
            self.0.filled.notified().await;
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let left = {
            let mut waiting = self.0.lock();
            waiting.is_open = false;
            std::mem::take(&mut waiting.things)
        };
        self.0.freed.notify_one();
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn things_come_out_in_the_order_in_which_they_were_put_in() {
        let (sender, mut receiver) = bounded(3);
        for thing in 1..=3 {
            assert_eq!(sender.try_send(thing), Ok(()));
        }
        assert_eq!(sender.try_send(4), Err(Refused::Full(4)));
        assert_eq!((receiver.recv().await, receiver.recv().await), (Some(1), Some(2)));
        drop(sender);
        assert_eq!((receiver.recv().await, receiver.recv().await), (Some(3), None));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_wanted_makes_room_for_who_waits() {
        let (sender, mut receiver) = bounded(2);
        assert_eq!((sender.try_send(1), sender.try_send(2)), (Ok(()), Ok(())));
        let waits = tokio::spawn({
            let sender = sender.clone();
            async move { sender.send(3).await }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        assert_eq!(sender.retain(|thing| *thing != 1), 1);
        assert_eq!(waits.await.unwrap(), Ok(()));
        assert_eq!((receiver.recv().await, receiver.recv().await), (Some(2), Some(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_hears_that_the_other_side_has_gone() {
        let (sender, receiver) = bounded(1);
        sender.try_send(1).unwrap();
        let waits = tokio::spawn({
            let sender = sender.clone();
            async move { sender.send(2).await }
        });
        tokio::task::yield_now().await;
        drop(receiver);
        assert_eq!(waits.await.unwrap(), Err(2));
        assert_eq!(sender.try_send(3), Err(Refused::Closed(3)));

        let (sender, mut receiver) = bounded::<u8>(1);
        let waits = tokio::spawn(async move { receiver.recv().await });
        tokio::task::yield_now().await;
        drop(sender);
        assert_eq!(waits.await.unwrap(), None);
    }
}
