//! Feedback on its way to the back end: one queue for the whole hub, a batch a message. No I/O.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::message::Feedback;

/// Batches that are kept; the oldest goes for a new one, as its life would have ended.
const BATCHES_MAX: usize = 4096;

#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub number: u64,
    pub records: Vec<Feedback>,
    /// How often it was given back.
    pub deliveries: u32,
    /// For which connection, and until when.
    lock: Option<(u64, Instant)>,
}

#[derive(Debug, Default)]
pub(super) struct Batches {
    queue: VecDeque<Batch>,
    last: u64,
}

impl Batches {
    pub fn push(&mut self, records: Vec<Feedback>) {
        if self.queue.len() == BATCHES_MAX {
            self.queue.pop_front();
        }
        self.last += 1;
        self.queue.push_back(Batch { number: self.last, records, deliveries: 0, lock: None });
    }

    pub fn has_free(&self, now: Instant) -> bool {
        self.queue.iter().any(|batch| batch.is_free(now))
    }

    pub fn len(&self) -> usize {
        self.queue.iter().map(|batch| batch.records.len()).sum()
    }

    /// The oldest batch that nobody has, locked for a connection.
    pub fn next(&mut self, connection: u64, now: Instant, until: Instant) -> Option<Batch> {
        let batch = self.queue.iter_mut().find(|batch| batch.is_free(now))?;
        batch.lock = Some((connection, until));
        Some(batch.clone())
    }

    /// Settles a batch that a connection has, and says whether it had it. One that is given back for the last of
    /// `most` times is lost.
    pub fn settle(&mut self, connection: u64, number: u64, is_done: bool, most: u32, now: Instant) -> bool {
        let Some(index) = self.queue.iter().position(|batch| batch.number == number) else { return false };
        let batch = &mut self.queue[index];
        let holds = batch.lock.is_some_and(|(of, until)| of == connection && now < until);
        if !holds {
            return false;
        }
        batch.lock = None;
        batch.deliveries += u32::from(!is_done);
        if is_done || batch.deliveries >= most {
            self.queue.remove(index);
        }
        true
    }

    /// A connection is gone, and has none any more.
    pub fn unlock(&mut self, connection: u64) {
        for batch in &mut self.queue {
            batch.lock = batch.lock.filter(|(of, _)| *of != connection);
        }
    }
}

impl Batch {
    fn is_free(&self, now: Instant) -> bool {
        self.lock.is_none_or(|(_, until)| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_batch_that_is_given_back_too_often_is_lost_and_one_whose_lock_runs_out_is_not() {
        let (now, lock) = (Instant::now(), Duration::from_secs(60));
        let mut batches = Batches::default();
        batches.push(Vec::new());
        for round in 0..5u32 {
            let later = now + 2 * lock * round;
            assert_eq!(batches.next(1, later, later + lock).map(|batch| batch.deliveries), Some(0));
        }
        let mut later = now + 20 * lock;
        for given_back in 0..3 {
            assert_eq!(batches.next(1, later, later + lock).map(|batch| batch.deliveries), Some(given_back));
            assert!(!batches.settle(2, 1, false, 3, later), "it is another connection's");
            assert!(batches.settle(1, 1, false, 3, later));
            later += lock;
        }
        assert!(batches.next(1, later, later + lock).is_none());
    }
}
