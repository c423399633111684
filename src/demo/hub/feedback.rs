//! Feedback on its way to the back end: one queue for the whole hub, a batch a message. No I/O.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::message::Feedback;
use super::state::{Now, State};

/// Batches that are kept; the oldest goes for a new one, as its life would have ended.
const BATCHES_MAX: usize = 4096;

#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub number: u64,
    pub records: Vec<Feedback>,
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
        self.queue.push_back(Batch { number: self.last, records, lock: None });
    }

    pub fn has_free(&self, now: Instant) -> bool {
        self.queue.iter().any(|batch| batch.is_free(now))
    }

    pub fn len(&self) -> usize {
        self.queue.iter().map(|batch| batch.records.len()).sum()
    }
}

impl Batch {
    fn is_free(&self, now: Instant) -> bool {
        self.lock.is_none_or(|(_, until)| until <= now)
    }
}

impl State {
    /// The oldest batch that nobody has, locked for a connection.
    pub fn next_feedback(&mut self, connection: u64, now: Now) -> Option<Batch> {
        let until = now.mono + self.options.lock;
        let batch = self.batches.queue.iter_mut().find(|batch| batch.is_free(now.mono))?;
        batch.lock = Some((connection, until));
        Some(batch.clone())
    }

    /// Settles a batch that a connection has, and says whether it had it.
    pub fn settle_feedback(&mut self, connection: u64, number: u64, is_done: bool, now: Now) -> bool {
        let queue = &mut self.batches.queue;
        let Some(index) = queue.iter().position(|batch| batch.number == number) else { return false };
        let holds = queue[index].lock.is_some_and(|(of, until)| of == connection && now.mono < until);
        if holds && is_done {
            queue.remove(index);
        } else if holds {
            queue[index].lock = None;
        }
        self.wake_listeners();
        holds
    }

    pub fn unlock_feedback(&mut self, connection: u64) {
        for batch in &mut self.batches.queue {
            batch.lock = batch.lock.filter(|(of, _)| *of != connection);
        }
        self.wake_listeners();
    }

    /// There may be feedback, or an event, for whoever listens.
    pub fn wake_listeners(&self) {
        self.sides.values().filter(|side| side.listens).for_each(|side| side.line.wake.notify_one());
    }
}
