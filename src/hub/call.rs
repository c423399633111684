//! A direct method's call, and the right to answer it.
//!
//! A call is never queued at the hub and never comes again: its caller waits for as long as it has said, which nobody
//! tells the device, and may call again. So an answer that reaches nobody is no loss but the caller's, and its end
//! changes nothing about a command.
//!
//! Invariants
//! - A [`Reply`] belongs to the attachment that brought its call, and dies with it: an answer reaches no other one
//!   (G6).
//! - Calls of an attachment that wait for their answers are [`CALLS_MAX`] at most, and each has a place for it.

use std::sync::Arc;

use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::time::Instant;

use super::room::Held;
use crate::command::message::Gist;
use crate::command::Answer;
use crate::time::Timestamp;

/// Most calls of an attachment that are not answered. A hub lets a device have many more; who calls so often is told to
/// wait.
pub const CALLS_MAX: usize = 32;

/// By what a transport knows a call: opaque to everybody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallId(pub Box<[u8]>);

/// A call that the hub has passed on, and the right to answer it.
#[derive(Debug)]
pub struct Call {
    /// Host name of the hub, lower case.
    pub hub: Arc<str>,
    /// What it asks for, without its payload.
    pub gist: Gist,
    /// When it came, by the wall clock.
    pub received_at: Timestamp,
    /// When it came, by the monotonic clock.
    pub received: Instant,
    /// Answers it.
    pub reply: Reply,
    /// Its place among what the gateway keeps: to be held for as long as it waits or runs.
    pub room: Held,
}

/// The right to answer one call, once, on the attachment that it came on. Dropped, it leaves the caller to its
/// time-out.
#[derive(Debug)]
pub struct Reply {
    call: CallId,
    place: OwnedPermit<Answered>,
    attachment: mpsc::Sender<Answered>,
}

/// An answer on its way to the attachment of its call.
#[derive(Debug, PartialEq, Eq)]
pub struct Answered {
    /// Which call it is for.
    pub call: CallId,
    /// What it says.
    pub answer: Answer,
}

/// Where the calls of one attachment are answered.
#[derive(Debug, Clone)]
pub struct Answers(mpsc::Sender<Answered>);

impl Answers {
    /// For a new attachment.
    pub fn new() -> (Answers, mpsc::Receiver<Answered>) {
        let (answers, answered) = mpsc::channel(CALLS_MAX);
        (Answers(answers), answered)
    }

    /// The right to answer a call that came now. `None`: as many wait as may.
    pub fn reply(&self, call: CallId) -> Option<Reply> {
        let place = self.0.clone().try_reserve_owned().ok()?;
        Some(Reply { call, place, attachment: self.0.clone() })
    }

    /// Calls that wait for their answers, and answers that wait for their attachment.
    pub fn outstanding(&self) -> usize {
        self.0.max_capacity() - self.0.capacity()
    }
}

impl Reply {
    /// Whether the attachment that brought the call still stands. Whether its caller still waits, nobody tells.
    pub fn is_live(&self) -> bool {
        !self.attachment.is_closed()
    }

    /// Returns when that attachment has ended. Cancel-safe, and free of the reply.
    pub fn dies(&self) -> impl std::future::Future<Output = ()> + Send + 'static {
        let attachment = self.attachment.clone();
        async move { attachment.closed().await }
    }

    /// Answers the call. If the attachment is gone, nobody hears it.
    pub fn answer(self, answer: Answer) {
        self.place.send(Answered { call: self.call, answer });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> CallId {
        CallId(Box::new([number]))
    }

    #[tokio::test]
    async fn every_call_has_a_place_for_its_answer_and_no_more_are_taken_than_may_wait() {
        let (answers, mut answered) = Answers::new();
        let mut replies: Vec<Reply> = (0..CALLS_MAX as u8).map(|number| answers.reply(id(number)).unwrap()).collect();
        assert!(answers.reply(id(99)).is_none() && answers.outstanding() == CALLS_MAX);
        let answer = Answer::not_taken(None, None, "busy");
        replies.pop().unwrap().answer(answer.clone());
        assert!(answers.reply(id(99)).is_none(), "it has not reached its attachment");
        assert_eq!(answered.recv().await, Some(Answered { call: id(CALLS_MAX as u8 - 1), answer }));
        // One that is never answered frees its place, too.
        drop(replies.pop());
        assert!(answers.reply(id(98)).is_some() && answers.outstanding() == CALLS_MAX - 2);
    }

    #[tokio::test]
    async fn a_reply_dies_with_its_attachment() {
        let (answers, answered) = Answers::new();
        let reply = answers.reply(id(1)).unwrap();
        let dies = reply.dies();
        assert!(reply.is_live());
        drop(answered);
        dies.await;
        assert!(!reply.is_live() && answers.reply(id(2)).is_none());
        reply.answer(Answer::not_taken(None, None, "nobody hears it"));
    }
}
