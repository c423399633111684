//! The end of a command, whoever asked for it: recorded, then told.
//!
//! Invariants
//! - Nobody is told of an end that is not durable; who waits for an answer is told when it can't be made so.

use std::time::Duration;

use serde_json::Value as Json;
use tokio::time::sleep;

use super::origin::{Origin, Told};
use super::{Context, Work};
use crate::command::outcome::{in_short, Code, Outcome, Report, State};
use crate::ledger::{Finish, LedgerError, NewRow, Receipt};
use crate::log::events;
use crate::log::throttle::{COMMANDS, EACH};
use crate::time::Timestamp;

/// How long a stop waits for a ledger that can't be written to take an outcome.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

impl Context {
    /// Makes an outcome durable, tells who asked for the command, and has the event published.
    pub(super) async fn conclude(&self, mut work: Work, outcome: Outcome, attempts: u32) {
        let finished_at = Timestamp::now();
        let finish = Finish {
            row: work.row,
            new: work.new.clone(),
            outcome: outcome.clone(),
            attempts,
            sent_at: work.sent_at,
            finished_at,
        };
        let Some(receipt) = self.record(finish, &mut work.origin).await else { return };
        self.forget(&work);
        self.time(&work);
        self.health.states.add(outcome.state.as_str());
        let event = || event(&work.new, &outcome, attempts, finished_at);
        work.origin.conclude(&outcome, receipt, event);
        self.note_end(&work, &outcome);
        self.count(&outcome, attempts);
        match work.origin.operator().map(|operator| operator.uid) {
            Some(uid) => self.log_for_operator(&work, &outcome, attempts, uid),
            None => {
                self.event_bell.notify_one();
                self.log(&work, &outcome, attempts);
            }
        }
    }

    /// Offers an outcome to the ledger until it is durable. A person is told meanwhile what came of the command.
    /// `None`: the process is about to end without that.
    async fn record(&self, finish: Finish, origin: &mut Origin) -> Option<Receipt> {
        let (device, message_id, command) = (&self.id, &finish.new.message_id, &finish.new.command);
        loop {
            let error = match self.ledger.finish(finish.clone()).await {
                Ok(receipt) => return Some(receipt),
                Err(error) => error,
            };
            let why = match &error {
                LedgerError::Full(why) | LedgerError::Locked(why) => Some(why),
                _ => None,
            };
            match (origin.operator(), why) {
                (Some(operator), _) => {
                    let end = end_of(&finish.outcome);
                    tracing::warn!(%device, command, %error, "an operator's command ended ({end}), and waits for the ledger");
                    let told = format!("the command ended ({end}), but that can't be recorded yet: {error}");
                    operator.tell(|| Told::Unrecorded(told));
                }
                (None, Some(why)) => tracing::warn!(%device, message_id, why, "an outcome waits for the ledger"),
                (None, None) => {}
            }
            why?;
            tokio::select! {
                () = self.ledger.well() => {}
                () = async { self.stop.cancelled().await; sleep(STOP_PATIENCE).await } => return None,
            }
        }
    }

    /// How long a message has waited that is settled now.
    pub(super) fn time(&self, work: &Work) {
        if work.origin.is_to_be_settled() {
            self.health.completion.observe(work.received.elapsed());
        }
    }

    /// What it says of the peripheral.
    fn note_end(&self, work: &Work, outcome: &Outcome) {
        let command = work.new.command.as_deref().unwrap_or_default();
        match (outcome.state, &outcome.fault) {
            (State::Succeeded, _) => self.health.ends.done(command),
            (State::Failed | State::InDoubt, Some(fault)) if fault.code != Code::Unconfirmed => {
                self.health.ends.undone(command, outcome.state.as_str(), fault.code.as_str(), &fault.message);
            }
            _ => {}
        }
    }

    fn count(&self, outcome: &Outcome, attempts: u32) {
        if attempts > 0 {
            self.health.executed.add();
        }
        if outcome.is_open_doubt() {
            self.health.in_doubt.add();
        }
    }

    fn log(&self, work: &Work, outcome: &Outcome, attempts: u32) {
        let (device, message_id, command) = (&self.id, work.message_id(), work.command_name());
        let (state, code) = (outcome.state, outcome.fault.as_ref().map(|fault| fault.code.as_str()));
        let elapsed_ms = work.received.elapsed().as_millis() as u64;
        let requested = work.new.value.as_ref().map(in_short);
        match state {
            State::InDoubt if outcome.is_open_doubt() => {
                tracing::warn!(name: events::COMMAND_IN_DOUBT, %device, message_id, command, requested, %state, code, attempts, elapsed_ms, "command finished");
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
fn event(new: &NewRow, outcome: &Outcome, attempts: u32, finished_at: Timestamp) -> Json {
    let report = Report {
        message_id: new.message_id.as_deref(),
        command: new.command.as_deref(),
        requested: new.value.as_ref(),
        envelope: &new.envelope,
        attempts,
        received_at: new.received_at,
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
