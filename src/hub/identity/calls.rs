//! Calls of direct methods on a connection: taken in beside messages, in their order, or answered at once.
//!
//! Invariants
//! - What can't be taken now is answered now: a call waits in no queue that is full.

use std::sync::Arc;

use tokio::time::Instant;

use super::attached::Serving;
use crate::command::message::Gist;
use crate::command::{Answer, Method};
use crate::hub::call::{Answered, Call, CallId};
use crate::hub::trouble::Trouble;
use crate::proof::crash::{self, Point};
use crate::time::Timestamp;

/// Why a call is not taken, where the device has too many in hand.
const TOO_MANY: &str =
    "too many commands wait for this device; nothing was done: call again, under the same message id";
/// The same while the daemon or its device stops.
const STOPPING: &str = "the gateway is stopping; nothing was done: call again, under the same message id";

impl Serving<'_> {
    /// Takes a call in, or tells its caller that it can't be taken now.
    pub(super) async fn on_call(&mut self, call: CallId, method: Method) -> Result<(), Trouble> {
        self.identity.health.received.add();
        let gist = method.condense();
        let (id, command) = (gist.id.clone(), gist.command.clone());
        let Err(why) = self.pass_on(call.clone(), gist) else {
            crash::point(Point::CallPassedOn);
            return Ok(());
        };
        tracing::debug!(device = %self.identity.id, message_id = id, command, why, "a call is not taken");
        let answer = Answer::not_taken(id.as_deref(), command.as_deref(), why);
        self.on_answered(Answered { call, answer }).await
    }

    /// Passes a call on, or says why not.
    fn pass_on(&self, call: CallId, gist: Gist) -> Result<(), &'static str> {
        if self.leaves {
            return Err(STOPPING);
        }
        let reply = self.answers.reply(call).ok_or(TOO_MANY)?;
        let room = self.identity.room.hold(gist.weight()).ok_or(TOO_MANY)?;
        let hub: Arc<str> = self.account.access.hub.host.as_str().into();
        let (received, received_at) = (Instant::now(), Timestamp::now());
        let call = Call { hub, gist, received_at, received, reply, room };
        self.identity.deliveries.offer_call(call).map_err(|_| TOO_MANY)
    }

    /// Tells the hub an answer.
    pub(super) async fn on_answered(&mut self, answered: Answered) -> Result<(), Trouble> {
        self.identity.health.pulse.allow(std::time::Duration::ZERO);
        crash::point(Point::AnswerTaken);
        self.worked = true;
        let status = answered.answer.status_word();
        self.attachment.answer(answered).await?;
        self.identity.health.calls.add(status);
        crash::point(Point::AnswerWritten);
        Ok(())
    }
}
