//! `exec`: a configured command, run now for a person at the site, through the daemon's bus like any other.
//!
//! It has no message id and no row: the person sees the result and decides. The ledger must be writable all the same
//! (G9), and the journal has a line of it.

use serde_json::Value as Json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admin::Reply;
use crate::bus::BusHandle;
use crate::clock::Timestamp;
use crate::command::decide::{Age, Deadline, Execution, Freshness};
use crate::command::outcome::{Code, Fault, Outcome, Report, State};
use crate::config::Device;
use crate::ledger::Ledger;
use crate::runner::{Gate, Go, Plan, Ran};

/// Runs a command and gives its result, in the form of a result event.
pub async fn execute(
    device: &Device,
    bus: &BusHandle,
    ledger: &Ledger,
    stop: &CancellationToken,
    name: &str,
    value: Option<&Json>,
) -> Reply {
    let received_at = Timestamp::now();
    let (outcome, attempts) = match Plan::new(device, name, value) {
        Err(fault) => (Outcome::ended(State::Rejected, fault), 0),
        Ok(plan) => {
            let deadline = Deadline { limit: plan.command.deadline, expires_at: None };
            let mut gate = LocalGate { ledger, stop, deadline, since: Instant::now() };
            match plan.run(bus, Execution::new(plan.route(bus)), &mut gate).await {
                Ran::Finished(outcome, attempts) => (outcome, attempts),
                Ran::NotNow => {
                    let why = "the daemon is stopping, or its ledger can't be written; nothing was sent";
                    (Outcome::ended(State::Failed, Fault::new(Code::BusUnavailable, why)), 0)
                }
            }
        }
    };
    tracing::info!(device = %device.id, command = name, state = %outcome.state, attempts, "executed for a local operator");
    let report = Report {
        message_id: None,
        command: Some(name),
        requested: value,
        attempts,
        received_at,
        finished_at: Timestamp::now(),
    };
    Reply::Ok(report.to_event(&outcome))
}

struct LocalGate<'a> {
    ledger: &'a Ledger,
    stop: &'a CancellationToken,
    deadline: Deadline,
    since: Instant,
}

impl Gate for LocalGate<'_> {
    fn may_go(&mut self) -> Go {
        let age = Age { monotonic: self.since.elapsed(), received_at: None, now: None };
        match self.deadline.judge(age) {
            Freshness::Expired => Go::End(self.deadline.expired()),
            _ if !self.ledger.is_well() || self.stop.is_cancelled() => Go::No,
            _ => Go::Yes,
        }
    }

    fn not_after(&self) -> Instant {
        self.since + self.deadline.limit
    }

    fn expired(&self) -> Outcome {
        self.deadline.expired()
    }

    async fn called_off(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep_until(self.not_after()) => {}
        }
    }

    async fn record_executing(&mut self) -> bool {
        self.ledger.is_well()
    }
}
