//! Who waits for the end of a direct method.
//!
//! Invariants
//! - Each caller is answered once: with the end, when that is durable, or with a promise of it, when the command stands
//!   in the ledger and the end is not there in time.
//! - Whoever calls again under the same id while the command is under way waits for the same end: it is one command.
//! - One at a time writes the command's first row ([`Caller::row`]): who makes the promise, or who begins it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::CLOCK_PERIOD;
use crate::command::outcome::State;
use crate::command::Answer;
use crate::hub::call::{Reply, CALLS_MAX};
use crate::ledger::row::RowId;

/// Those who wait for one command, which may be run meanwhile.
#[derive(Clone)]
pub(super) struct Caller(Arc<Shared>);

struct Shared {
    waits: Mutex<Waits>,
    /// Somebody has called again.
    joined: Notify,
    /// It has a row, or is being given one.
    is_recorded: AtomicBool,
    row: tokio::sync::Mutex<Option<(RowId, State)>>,
}

struct Waits {
    replies: Vec<(Reply, Instant)>,
    is_over: bool,
}

impl Caller {
    /// One who waits, until then for the end itself.
    pub(super) fn new(reply: Reply, due: Instant) -> Caller {
        Caller(Arc::new(Shared {
            waits: Mutex::new(Waits { replies: vec![(reply, due)], is_over: false }),
            joined: Notify::new(),
            is_recorded: AtomicBool::new(false),
            row: tokio::sync::Mutex::new(None),
        }))
    }

    /// Those who wait for another call of the same wait for this one. `false`: it is over, and they are to be judged by
    /// what the ledger has.
    pub(super) fn join(&self, other: &Caller) -> bool {
        let mut waits = self.waits();
        if waits.is_over {
            return false;
        }
        waits.replies.retain(|(reply, _)| reply.is_live());
        waits.replies.append(&mut other.waits().replies);
        // Those who have waited longest have given up.
        let too_many = waits.replies.len().saturating_sub(CALLS_MAX);
        waits.replies.drain(..too_many);
        drop(waits);
        self.0.joined.notify_one();
        true
    }

    /// Whether an answer would reach anybody, as far as is known, or it stands in the ledger whoever waits.
    pub(super) fn is_live(&self) -> bool {
        self.is_recorded() || self.waits().replies.iter().any(|(reply, _)| reply.is_live())
    }

    /// Returns when no answer reaches anybody any more. Cancel-safe.
    pub(super) async fn dies(&self) {
        loop {
            let first = self.waits().replies.iter().find(|(reply, _)| reply.is_live()).map(|(reply, _)| reply.dies());
            match first {
                Some(first) => first.await,
                None => return,
            }
        }
    }

    /// Returns when somebody else waits, too. Cancel-safe.
    pub(super) async fn is_joined(&self) {
        self.0.joined.notified().await;
    }

    /// When the first of them is to be promised the end. `None`: nobody waits for that.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waits().replies.iter().map(|(_, due)| *due).min()
    }

    /// The end is told to everybody.
    pub(super) fn tell(&self, answer: &Answer) {
        let mut waits = self.waits();
        waits.is_over = true;
        for (reply, _) in waits.replies.drain(..) {
            reply.answer(answer.clone());
        }
    }

    /// The end is promised to those who have waited until now. Says to how many.
    pub(super) fn promise(&self, now: Instant, answer: &Answer) -> usize {
        let due: Vec<Reply> =
            self.waits().replies.extract_if(.., |(_, due)| *due <= now).map(|(reply, _)| reply).collect();
        let live = due.into_iter().filter(Reply::is_live);
        live.map(|reply| reply.answer(answer.clone())).count()
    }

    /// Whether one of those who have waited until now would hear a promise. Those who would not are forgotten.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let mut waits = self.waits();
        waits.replies.retain(|(reply, due)| *due > now || reply.is_live());
        waits.replies.iter().any(|(_, due)| *due <= now)
    }

    /// The promise can't be made now, and is tried again soon.
    pub(super) fn postpone(&self, now: Instant) {
        for (_, due) in self.waits().replies.iter_mut().filter(|(_, due)| *due <= now) {
            *due = now + CLOCK_PERIOD;
        }
    }

    /// Whether it has a row that is not final, or is being given one.
    pub(super) fn is_recorded(&self) -> bool {
        self.0.is_recorded.load(Ordering::Acquire)
    }

    /// It is being given a row, or not after all.
    pub(super) fn set_recorded(&self, is_recorded: bool) {
        self.0.is_recorded.store(is_recorded, Ordering::Release);
    }

    /// Its row, and in which state that is. Who holds it may make it.
    pub(super) async fn row(&self) -> tokio::sync::MutexGuard<'_, Option<(RowId, State)>> {
        self.0.row.lock().await
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.0.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hub::call::{Answers, CallId};

    fn id(number: u8) -> CallId {
        CallId(Box::new([number]))
    }

    fn answer() -> Answer {
        Answer::under_way(Some("m"), Some("set"), State::Accepted)
    }

    #[tokio::test(start_paused = true)]
    async fn who_calls_again_waits_for_the_same_end_and_each_is_promised_it_in_its_own_time() {
        let (answers, mut answered) = Answers::new();
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let caller = Caller::new(answers.reply(id(1)).unwrap(), later(25));
        assert!(caller.join(&Caller::new(answers.reply(id(2)).unwrap(), later(40))));
        caller.is_joined().await;
        assert_eq!(caller.due(), Some(later(25)));
        assert!(!caller.is_due(later(24)) && caller.is_due(later(25)));
        caller.postpone(later(25));
        assert_eq!(caller.due(), Some(later(26)));
        assert_eq!(caller.promise(later(26), &answer()), 1);
        assert_eq!((answered.recv().await.unwrap().call, caller.due()), (id(1), Some(later(40))));
        caller.tell(&answer());
        assert_eq!((answered.recv().await.unwrap().call, caller.due()), (id(2), None));
        assert!(!caller.join(&Caller::new(answers.reply(id(3)).unwrap(), later(50))), "it is over");
    }

    #[tokio::test]
    async fn it_lives_for_as_long_as_somebody_would_hear_it_or_the_ledger_has_it() {
        let ((first, answered), (second, answered_too)) = (Answers::new(), Answers::new());
        let caller = Caller::new(first.reply(id(1)).unwrap(), Instant::now());
        drop(answered);
        assert!(!caller.is_live() && !caller.is_due(Instant::now()));
        caller.join(&Caller::new(second.reply(id(2)).unwrap(), Instant::now()));
        assert!(caller.is_live() && caller.is_due(Instant::now()));
        drop(answered_too);
        caller.dies().await;
        assert!(!caller.is_live());
        caller.set_recorded(true);
        assert!(caller.is_live());
        assert_eq!(caller.promise(Instant::now(), &answer()), 0);
    }
}
