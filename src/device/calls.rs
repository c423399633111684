//! What is special about a command that a direct method asks for: it waits in the same lane as messages, and only how
//! it is told of differs.
//!
//! Invariants
//! - An answer stands on what is durable: the end, or the row by which the gateway owns the command. Nothing else but
//!   that nothing was done is ever answered.
//! - A promise is kept: what it was made for has a row, which the next life of the daemon goes on with.
//! - A promise keeps nothing waiting: the command is run meanwhile.

use std::future::Future;
use std::pin::{pin, Pin};

use tokio::time::{sleep_until, Instant};

use super::caller::Caller;
use super::origin::Origin;
use super::run::Ran;
use super::{wait_for, Context, Job, Work};
use crate::command::decide::Known;
use crate::command::outcome::State;
use crate::command::Answer;
use crate::ledger::row::RowId;
use crate::ledger::{Lookup, NewRow};
use crate::proof::crash::{self, Point};

/// Why nothing was done of a call, and why the caller may call again.
const STOPPING: &str = "the gateway is stopping; nothing was done: call again, under the same message id";
const UNRECORDABLE: &str =
    "the ledger can't be used, so nothing is begun; nothing was done: call again, under the same message id";

impl Context {
    /// Runs a command, and promises its end to those who have called for it and can't be kept waiting.
    pub(super) async fn promising(&self, called: Option<(Caller, NewRow)>, run: impl Future<Output = Ran>) -> Ran {
        let Some((caller, new)) = called else { return run.await };
        let mut run = pin!(run);
        let mut ran = None;
        // It is not left in the middle: the end stands on the row that it makes.
        let mut promise: Option<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = None;
        loop {
            let due = caller.due().filter(|_| promise.is_none());
            match ran.take() {
                Some(ran) if promise.is_none() => return ran,
                before => ran = before,
            }
            tokio::select! {
                biased;
                end = &mut run, if ran.is_none() => ran = Some(end),
                () = wait_for(&mut promise) => promise = None,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && ran.is_none() => {
                    promise = Some(Box::pin(self.promise(&caller, &new)));
                }
                () = caller.is_joined() => {}
            }
        }
    }

    /// Promises the end of a command to those who have waited until now: it has a row, or gets one.
    async fn promise(&self, caller: &Caller, new: &NewRow) {
        let now = Instant::now();
        if !caller.is_due(now) {
            return;
        }
        let mut row = caller.row().await;
        let state = match *row {
            Some((_, state)) => state,
            None => {
                caller.set_recorded(true);
                match self.ledger.accept(new.clone()).await {
                    Ok((id, _)) => *row = Some((id, State::Accepted)),
                    Err(error) => {
                        tracing::debug!(device = %self.id, %error, "a call waits on: that it is under way can't be recorded");
                        caller.set_recorded(false);
                        return caller.postpone(now);
                    }
                }
                State::Accepted
            }
        };
        let told = caller.promise(now, &Answer::under_way(new.message_id.as_deref(), new.command.as_deref(), state));
        if told > 0 {
            tracing::debug!(device = %self.id, message_id = new.message_id, command = new.command, "a call is answered before its command is over");
        }
    }

    /// The same of one that waits for its turn: if it is the first of its id, once it is known that it is to be done.
    /// It comes back unless that is not so.
    pub(super) async fn promise_waiting(&self, job: Job, is_first: bool) -> Option<Job> {
        let Some(caller) = job.work.origin.caller().cloned() else { return Some(job) };
        if !is_first {
            self.promise_behind(&caller, &job.work.new).await;
            return Some(job);
        }
        let mut job = self.judged(job).await?;
        self.promise(&caller, &job.work.new).await;
        job.work.take_row().await;
        Some(job)
    }

    /// The same of one behind another of its id, whose row may be its own.
    async fn promise_behind(&self, caller: &Caller, new: &NewRow) {
        let now = Instant::now();
        match self.ledger.find(new).await {
            Ok(Lookup { known: Known::Row(state), .. }) if !state.is_final() => {
                let (id, command) = (new.message_id.as_deref(), new.command.as_deref());
                caller.promise(now, &Answer::under_way(id, command, state));
            }
            // Its turn is near, or the one before it will be recorded.
            _ => caller.postpone(now),
        }
    }

    /// Answers a call from the row that is known of it.
    pub(super) async fn answer_again(&self, mut work: Work, row: RowId) {
        self.health.duplicates.add();
        tracing::debug!(device = %self.id, message_id = work.message_id(), "called again: answered from the ledger, not run");
        crash::point(Point::DuplicateKnown);
        self.ledger.delivered_again(row);
        let record = match self.ledger.record(row).await {
            Ok(record) => record,
            Err(error) => return drop(self.leave(work, &error)),
        };
        let answer = match record.as_ref().and_then(|record| record.end()) {
            Some((outcome, event)) => Answer::ended(&outcome, event),
            None => {
                let state = record.map_or(State::Accepted, |record| record.state);
                Answer::under_way(work.message_id(), Some(work.command_name()), state)
            }
        };
        work.origin.answer(&answer);
    }

    /// Tells who has called for a command of which nothing was done, and nothing recorded.
    pub(super) fn turn_away(&self, work: &mut Work) {
        let why = if self.ledger.is_well() { STOPPING } else { UNRECORDABLE };
        let answer = Answer::not_taken(work.new.message_id.as_deref(), work.new.command.as_deref(), why);
        work.origin.answer(&answer);
    }

    /// Tells who has called for a command that the next life of the daemon goes on with, or does not begin.
    pub(super) fn leave_to_the_next_life(&self, mut work: Work) {
        if work.origin.caller().is_none() {
            return;
        }
        match work.row {
            None => self.turn_away(&mut work),
            Some(_) => {
                let state = if work.interrupted.is_some() { State::Executing } else { State::Accepted };
                let answer = Answer::under_way(work.message_id(), Some(work.command_name()), state);
                work.origin.answer(&answer);
            }
        }
    }
}

impl Work {
    /// Takes note of the row that it was given while it ran, or waited.
    pub(super) async fn take_row(&mut self) {
        if let Origin::Method(caller) = &self.origin {
            if let Some((row, _)) = *caller.row().await {
                self.row = Some(row);
            }
        }
    }

    /// Who has called for it, if somebody has, and what stands in its row: for who promises its end.
    pub(super) fn called(&self) -> Option<(Caller, NewRow)> {
        self.origin.caller().map(|caller| (caller.clone(), self.new.clone()))
    }
}
