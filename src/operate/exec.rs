//! `exec`: a configured command, run now for a person at the site, through the daemon's bus like any other.
//!
//! It has a row of its own (source `local`, with the user), and no message id and no result event: the person is
//! answered.
//!
//! Invariants
//! - Nothing is begun that the ledger could not take (G9). `accepted` stands in it before the command waits for its
//!   bus, `executing` before its first byte leaves, repeatable or not: nobody delivers it again after a crash, so that
//!   is what is known of it then.
//! - A command whose operator goes away before its first byte has left is not sent. One that has begun goes on to its
//!   outcome, and its row to its end, whoever is there.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::sync::oneshot;
use tokio::time::{sleep, sleep_until, Instant};
use tokio_util::sync::CancellationToken;

use crate::command::decide::{Age, Deadline, Execution, Freshness};
use crate::command::excerpt::truncated;
use crate::command::message::{Message, COMMAND_BYTES_MAX};
use crate::command::outcome::{bounded, in_short, Code, Fault, Outcome, Report, State};
use crate::device::run::{Gate, Go, Plan, Ran};
use crate::device::Assignment;
use crate::ledger::row::Source;
use crate::ledger::{Finish, Ledger, LedgerError, NewRow};
use crate::log::throttle::EACH;
use crate::operate::admin::{Operator, Reply};
use crate::time::Timestamp;

/// How long a stop waits for a ledger that can't be written to take an outcome.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// What an operator asks for.
pub struct Order {
    /// Who asks.
    pub operator: Operator,
    /// Name of the command.
    pub command: String,
    /// Its value.
    pub value: Option<Json>,
}

/// Where it is carried out.
pub struct Site {
    /// The device and its bus.
    pub present: Arc<Assignment>,
    /// Host name of the hub that is configured, lower case.
    pub hub: String,
    /// The ledger.
    pub ledger: Ledger,
    /// No command is begun any more.
    pub stop: CancellationToken,
}

impl Site {
    /// Runs a command, tells its result in the form of a result event, and returns when its row is at its end.
    pub async fn execute(self, order: Order, reply: oneshot::Sender<Reply>) {
        let user = user(order.operator.uid).await;
        let device = &self.present.device;
        let planned = Plan::new(device, &order.command, order.value.as_ref());
        let value = match planned {
            Ok(_) => order.value.clone(),
            Err(_) => order.value.clone().map(bounded),
        };
        let body = order.value.as_ref().map(Json::to_string).unwrap_or_default().into_bytes();
        let digest = Message { command: Some(order.command.clone()), body, ..Message::default() }.digest();
        let new = NewRow {
            hub: self.hub.clone(),
            source: Source::Local { user },
            device: device.id.clone(),
            message_id: None,
            digest,
            command: Some(truncated(&order.command, COMMAND_BYTES_MAX).to_owned()),
            value,
            received_at: self.ledger.wall_clock().now().unwrap_or(Timestamp::UNKNOWN),
            expires_at: None,
        };
        let mut account = Account { site: &self, new, row: None, uid: order.operator.uid, reply: Some(reply) };
        match planned {
            Err(fault) => account.close(Outcome::ended(State::Rejected, fault), 0).await,
            Ok(plan) => account.run(&plan, &order.operator.gone).await,
        }
    }
}

/// A command on its way: its row, and who is told of it.
struct Account<'a> {
    site: &'a Site,
    new: NewRow,
    row: Option<crate::ledger::row::RowId>,
    uid: u32,
    reply: Option<oneshot::Sender<Reply>>,
}

impl Account<'_> {
    async fn run(&mut self, plan: &Plan<'_>, gone: &CancellationToken) {
        let bus = &self.site.present.bus;
        match self.site.ledger.accept(self.new.clone()).await {
            Ok((row, _)) => self.row = Some(row),
            Err(error) => return self.tell(Reply::Unrecorded(format!("nothing was sent: {error}"))),
        }
        let deadline = Deadline { limit: plan.command.deadline, expires_at: None };
        let execution = Execution::on_the_record(plan.route(bus));
        let mut gate =
            OperatorGate { site: self.site, new: &self.new, row: self.row, gone, deadline, since: Instant::now() };
        let (outcome, attempts) = match plan.run(bus, execution, &mut gate).await {
            Ran::Finished(outcome, attempts) => (outcome, attempts),
            Ran::NotNow => {
                let why = match self.site.ledger.is_well() {
                    true => "the daemon is stopping; nothing was sent",
                    false => "the ledger can't be written; nothing was sent",
                };
                if !self.site.ledger.is_well() {
                    self.tell(Reply::Unrecorded(why.into()));
                }
                (Outcome::ended(State::Failed, Fault::new(Code::BusUnavailable, why)), 0)
            }
        };
        self.close(outcome, attempts).await;
    }

    /// Has the outcome recorded, and tells it.
    async fn close(&mut self, outcome: Outcome, attempts: u32) {
        let finished_at = Timestamp::now();
        let finish = Finish { row: self.row, new: self.new.clone(), outcome: outcome.clone(), attempts, finished_at };
        if !self.record(finish).await {
            return;
        }
        let (device, command, state) = (&self.new.device, self.new.command.as_deref(), outcome.state);
        let (user, requested) = (self.new.source.user(), self.new.value.as_ref().map(in_short));
        let code = outcome.fault.as_ref().map(|fault| fault.code.as_str());
        tracing::info!(target: EACH, %device, user, uid = self.uid, command, requested, %state, code, attempts, "executed for a local operator");
        let report = Report {
            message_id: None,
            command,
            requested: self.new.value.as_ref(),
            attempts,
            received_at: self.new.received_at,
            finished_at,
        };
        let event = report.to_event(&outcome);
        self.tell(Reply::Ok(event));
    }

    /// Offers an outcome to the ledger until it is durable. Whoever waits is told meanwhile what came of the command.
    /// `false`: the process is about to end without that.
    async fn record(&mut self, finish: Finish) -> bool {
        let Site { ledger, stop, .. } = self.site;
        loop {
            let error = match ledger.finish(finish.clone()).await {
                Ok(_) => return true,
                Err(error) => error,
            };
            let Finish { outcome, new, .. } = &finish;
            let end = match &outcome.fault {
                Some(fault) => format!("{}: {}", outcome.state, fault.message),
                None => outcome.state.to_string(),
            };
            tracing::warn!(device = %new.device, command = new.command, %error, "an operator's command ended ({end}), and waits for the ledger");
            self.tell(Reply::Unrecorded(format!("the command ended ({end}), but that can't be recorded yet: {error}")));
            if !matches!(error, LedgerError::Full(_) | LedgerError::Locked(_)) {
                return false;
            }
            tokio::select! {
                () = ledger.well() => {}
                () = async { stop.cancelled().await; sleep(STOP_PATIENCE).await } => return false,
            }
        }
    }

    /// Whoever has gone does not want to know.
    fn tell(&mut self, reply: Reply) {
        if let Some(waiting) = self.reply.take() {
            let _ = waiting.send(reply);
        }
    }
}

/// What stands between an operator's command and the wire.
struct OperatorGate<'a> {
    site: &'a Site,
    new: &'a NewRow,
    row: Option<crate::ledger::row::RowId>,
    gone: &'a CancellationToken,
    deadline: Deadline,
    since: Instant,
}

impl Gate for OperatorGate<'_> {
    fn may_go(&mut self) -> Go {
        let age = Age { monotonic: self.since.elapsed(), received_at: None, now: None };
        if self.gone.is_cancelled() {
            let why = "whoever asked for it went away before it was sent; nothing was done";
            return Go::End(Outcome::ended(State::Expired, Fault::new(Code::Expired, why)));
        }
        match self.deadline.judge(age) {
            Freshness::Expired => Go::End(self.deadline.expired()),
            _ if !self.site.ledger.is_well() || self.site.stop.is_cancelled() => Go::No,
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
            () = self.gone.cancelled() => {}
            () = self.site.stop.cancelled() => {}
            () = sleep_until(self.not_after()) => {}
        }
    }

    async fn record_executing(&mut self) -> bool {
        match self.site.ledger.begin(self.row, self.new.clone()).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(device = %self.new.device, %error, "an operator's command was not begun");
                false
            }
        }
    }
}

/// A user's name, or the number where it has none on this machine.
async fn user(uid: u32) -> String {
    // It is read on a thread that may wait.
    let read = move || name_of(uid, &std::fs::read_to_string("/etc/passwd").ok()?);
    let name = tokio::task::spawn_blocking(read).await.ok().flatten();
    name.unwrap_or_else(|| format!("uid {uid}"))
}

/// Looks a name up in passwd(5).
fn name_of(uid: u32, users: &str) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| truncated(name, NAME_BYTES_MAX).to_owned())
    })
}

/// Longest name of a user that is kept.
const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_called_by_the_name_in_passwd() {
        let users = "root:x:0:0::/root:/bin/sh\nbroken\nx::y\npi:x:1000:1000:,,,:/home/pi:/bin/bash\n";
        assert_eq!(name_of(1000, users).as_deref(), Some("pi"));
        assert_eq!(name_of(0, users).as_deref(), Some("root"));
        assert_eq!(name_of(1, users), None);
        assert_eq!(name_of(1, ""), None);
    }
}
