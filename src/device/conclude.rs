//! The end of a command, whoever asked for it: recorded, then told.
//!
//! Invariants
//! - Nobody is told of an end that is not durable; who waits for an answer is told when it can't be made so.

use std::time::Duration;

use serde_json::Value as Json;
use tokio::time::sleep;

use super::origin::Origin;
use super::{Context, Work};
use crate::command::outcome::{in_short, Outcome, Report, State};
use crate::ledger::{Finish, LedgerError, Receipt};
use crate::log::throttle::{COMMANDS, EACH};
use crate::time::Timestamp;

/// How long a stop waits for a ledger that can't be written to take an outcome.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

impl Context {
    /// Makes an outcome durable, tells who asked for the command, and has the event published.
    pub(super) async fn conclude(&self, mut work: Work, outcome: Outcome, attempts: u32) {
        let finished_at = Timestamp::now();
        let finish = Finish { row: work.row, new: work.new.clone(), outcome: outcome.clone(), attempts, finished_at };
        let uid = work.origin.operator().map(|operator| operator.uid);
        let Some(receipt) = self.record(finish, &mut work.origin).await else { return };
        self.forget(&work);
        let origin = std::mem::replace(&mut work.origin, Origin::Message(None));
        origin.conclude(outcome.state, receipt, || event(&work, &outcome, attempts, finished_at));
        match uid {
            Some(uid) => self.log_for_operator(&work, &outcome, attempts, uid),
            None => {
                self.event_bell.notify_one();
                self.count(outcome.state, attempts);
                self.log(&work, &outcome, attempts);
            }
        }
    }

    /// Offers an outcome to the ledger until it is durable. `None`: the process is about to end without that.
    async fn record(&self, finish: Finish, origin: &mut Origin) -> Option<Receipt> {
        loop {
            let error = match self.ledger.finish(finish.clone()).await {
                Ok(receipt) => return Some(receipt),
                Err(error) => error,
            };
            let left = std::mem::replace(origin, Origin::Message(None));
            *origin = left.unrecorded(|| {
                format!("the command ended ({}), but that can't be recorded yet: {error}", end_of(&finish.outcome))
            });
            let (LedgerError::Full(why) | LedgerError::Locked(why)) = error else { return None };
            let (message_id, command) = (&finish.new.message_id, &finish.new.command);
            tracing::warn!(device = %self.id, message_id, command, why, "an outcome waits for the ledger");
            tokio::select! {
                () = self.ledger.well() => {}
                () = async { self.stop.cancelled().await; sleep(STOP_PATIENCE).await } => return None,
            }
        }
    }

    fn count(&self, state: State, attempts: u32) {
        if attempts > 0 {
            self.health.executed.add();
        }
        if state == State::InDoubt {
            self.health.in_doubt.add();
        }
    }

    fn log(&self, work: &Work, outcome: &Outcome, attempts: u32) {
        let (device, message_id, command) = (&self.id, work.message_id(), work.command_name());
        let (state, code) = (outcome.state, outcome.fault.as_ref().map(|fault| fault.code.as_str()));
        let elapsed_ms = work.received.elapsed().as_millis() as u64;
        let requested = work.new.value.as_ref().map(in_short);
        match state {
            State::InDoubt => {
                tracing::warn!(%device, message_id, command, requested, %state, code, attempts, elapsed_ms, "command finished");
            }
            State::Succeeded => {
                tracing::info!(target: COMMANDS, %device, message_id, command, requested, %state, attempts, elapsed_ms, "command finished");
            }
            _ => {
                tracing::info!(%device, message_id, command, requested, %state, code, attempts, elapsed_ms, "command finished")
            }
        }
    }

    fn log_for_operator(&self, work: &Work, outcome: &Outcome, attempts: u32, uid: u32) {
        let (device, command, user) = (&self.id, work.new.command.as_deref(), work.new.source.user());
        let (state, code) = (outcome.state, outcome.fault.as_ref().map(|fault| fault.code.as_str()));
        let requested = work.new.value.as_ref().map(in_short);
        tracing::info!(target: EACH, %device, user, uid, command, requested, %state, code, attempts, "executed for a local operator");
    }
}

/// How a command ended, in the form of a result event.
fn event(work: &Work, outcome: &Outcome, attempts: u32, finished_at: Timestamp) -> Json {
    let report = Report {
        message_id: work.message_id(),
        command: work.new.command.as_deref(),
        requested: work.new.value.as_ref(),
        attempts,
        received_at: work.new.received_at,
        finished_at,
    };
    report.to_event(outcome)
}

fn end_of(outcome: &Outcome) -> String {
    match &outcome.fault {
        Some(fault) => format!("{}: {}", outcome.state, fault.message),
        None => outcome.state.to_string(),
    }
}
