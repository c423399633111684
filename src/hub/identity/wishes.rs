//! What comes and goes for a device's twin on a connection: requests when they are due, and set points to the device.

use std::sync::Arc;

use tokio::time::Instant;

use super::attached::Serving;
use super::outbox::Outbox;
use super::twin::Change;
use crate::command::twin::Wanted;
use crate::hub::transport::TwinWord;
use crate::hub::trouble::Trouble;
use crate::hub::twin::SetPoint;
use crate::time::Timestamp;

impl Serving<'_> {
    /// Whether set points are taken on this connection.
    fn takes_wishes(&self) -> bool {
        !self.account.desired.is_empty() && !self.held && !self.leaves
    }

    /// The hub lets the device in, and answers for its twin if the transport has that.
    pub(super) fn begin_twin(&mut self) {
        if self.attachment.has_twin() {
            self.twin.begin(self.takes_wishes(), self.renewed, Instant::now());
        } else {
            self.twin.is_not_there();
        }
    }

    /// When something is to be done about the twin, if something is.
    pub(super) fn twin_at(&mut self, outbox: &mut Outbox) -> Option<Instant> {
        let (identity, now) = (self.identity, Instant::now());
        self.twin.note((identity.stand)());
        let may_report = outbox.may_tell();
        if self.twin.wants_turn(now, may_report) {
            self.twin.take_turn(identity.shared.pace.twin_turn());
        }
        self.twin.due(may_report)
    }

    /// Wishes have ended: their result events go first.
    pub(super) async fn on_wishes_ended(&mut self, outbox: &mut Outbox) -> Result<(), Trouble> {
        let (ends, takes_wishes) = (self.identity.board.take_ends(), self.takes_wishes());
        self.twin.note_ends(ends, takes_wishes, Instant::now());
        outbox.look_again();
        match self.subscribed {
            true => outbox.publish_more(&mut *self.attachment).await,
            false => Ok(()),
        }
    }

    /// Does what is due.
    pub(super) async fn ask_for_twin(&mut self, outbox: &mut Outbox) -> Result<(), Trouble> {
        match self.twin.next(Instant::now(), outbox.may_tell(), fastrand::f64()) {
            Some(request) => self.attachment.ask_twin(request).await,
            None => Ok(()),
        }
    }

    /// The hub has said something of the twin.
    pub(super) fn on_twin(&mut self, word: TwinWord) {
        let (account, now) = (self.account.clone(), Instant::now());
        let changes = match word {
            TwinWord::Answer(answer) => self.twin.answered(answer, &account.desired, now, fastrand::f64()),
            TwinWord::Changed(body) => self.twin.changed(&body, &account.desired, now),
        };
        for change in changes {
            match change {
                Change::Withdrawn(name) => {
                    tracing::debug!(device = %self.identity.id, name, "nothing is desired under this name any more");
                    self.identity.board.withdraw(&name);
                }
                Change::Set(wanted, value) => self.pass_wish_on(wanted, value),
            }
        }
    }

    /// Passes a set point on. What finds no room is given back, and read again.
    fn pass_wish_on(&mut self, wanted: Wanted, value: serde_json::Value) {
        let identity = self.identity;
        let Some(command) = self.account.desired.get(&wanted.name) else { return };
        let gist = wanted.condense(command, value.clone(), self.twin.mark());
        let Some(wish) = identity.board.wish(wanted, value, &self.wishes) else { return };
        if !self.takes_wishes() {
            return;
        }
        let Some(room) = identity.room.hold(gist.weight()) else { return };
        identity.health.received.add();
        let hub: Arc<str> = self.account.access.hub.host.as_str().into();
        let (received, received_at) = (Instant::now(), Timestamp::now());
        let _ = identity.deliveries.offer_set_point(SetPoint { hub, gist, received_at, received, wish, room });
    }
}
