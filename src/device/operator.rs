//! A person's command: it has a row of its own (source `local`, with the user), no message id and no result event, and
//! it waits for its bus beside the hub's commands.
//!
//! Invariants
//! - Nothing is begun that the ledger could not take (G9). `accepted` stands in it before the command waits for its
//!   bus, `executing` before its first byte leaves, repeatable or not: nobody delivers it again after a crash, so that
//!   is what is known of it then.
//! - A command whose operator goes away before its first byte has left is not sent. One that has begun goes on to its
//!   outcome, and its row to its end, whoever is there, and whatever becomes of its device meanwhile.

use std::sync::Arc;

use serde_json::Value as Json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::origin::{Operator, Origin, Told};
use super::{Assignment, Context, Work};
use crate::command::excerpt::truncated;
use crate::command::message::{Message, COMMAND_BYTES_MAX};
use crate::command::outcome::{bounded, Code, Fault, Outcome, State};
use crate::command::Envelope;
use crate::device::run::Plan;
use crate::ledger::row::Source;
use crate::ledger::NewRow;
use crate::log::throttle::EACH;
use crate::time::Timestamp;

/// What a person asks for.
pub struct Order {
    /// Who asks.
    pub operator: Operator,
    /// The user's name, for the record.
    pub user: String,
    /// Name of the command.
    pub command: String,
    /// Its value.
    pub value: Option<Json>,
}

impl Context {
    /// The same device as it is now, whatever a reload makes of it: no command of it is begun any more from `stop` on.
    pub fn as_it_is(&self, stop: CancellationToken) -> Context {
        let (_, assignment) = watch::channel(self.present());
        Context { assignment, stop, ..self.clone() }
    }

    /// What the device is at present.
    pub fn present(&self) -> Arc<Assignment> {
        self.assignment.borrow().clone()
    }

    /// Runs a person's command, tells its end, and returns when its row is at its end. `hub` is the one that is
    /// configured.
    pub async fn execute(self, hub: String, order: Order) {
        let Order { operator, user, command, value } = order;
        let present = self.present();
        let refused = Plan::new(&present.device, &command, value.as_ref()).err();
        let body = value.as_ref().map(Json::to_string).unwrap_or_default().into_bytes();
        let digest = Message { command: Some(command.clone()), body, ..Message::default() }.digest();
        let new = NewRow {
            hub,
            source: Source::Local { user },
            device: self.id.clone(),
            message_id: None,
            digest,
            command: Some(truncated(&command, COMMAND_BYTES_MAX).to_owned()),
            value: if refused.is_some() { value.map(bounded) } else { value },
            received_at: self.ledger.wall_clock().now().unwrap_or(Timestamp::UNKNOWN),
            expires_at: None,
            envelope: Envelope::default(),
        };
        let mut work = Work::new(Origin::Operator(operator), new, None);
        if let Some(fault) = refused {
            return self.conclude(work, Outcome::ended(State::Rejected, fault), 0).await;
        }
        if let Some(lock) = self.lockouts.shown(&self.id).filter(|_| work.origin.overrides()) {
            tracing::warn!(target: EACH, device = %self.id, command, ?lock, "a command goes past the lock of its device");
        }
        match self.ledger.accept(work.new.clone()).await {
            Ok((row, _)) => work.row = Some(row),
            Err(error) => {
                let told = || Told::Unrecorded(format!("nothing was sent: {error}"));
                return work.origin.operator().into_iter().for_each(|operator| operator.tell(told));
            }
        }
        self.work(work).await;
    }

    /// Ends a person's command that can't be begun now: a person does not wait until it can.
    pub(super) async fn send_away(&self, mut work: Work) {
        let why = match self.ledger.is_well() {
            true => "the daemon is stopping; nothing was sent",
            false => "the ledger can't be written; nothing was sent",
        };
        if let Some(operator) = work.origin.operator().filter(|_| !self.ledger.is_well()) {
            operator.tell(|| Told::Unrecorded(why.into()));
        }
        self.conclude(work, Outcome::ended(State::Failed, Fault::new(Code::BusUnavailable, why)), 0).await;
    }
}
