//! Where a device's link delivers: messages, calls and set points, in one queue.

use std::sync::Arc;

use serde_json::Value as Json;
use tokio::sync::Notify;

use super::caller::Caller;
use super::origin::Origin;
use super::queue::{self, Refused};
use super::receipts::{Key, Own};
use super::work::Work;
use super::{check, Context, Job, Receipts};
use crate::command::message::Gist;
use crate::command::outcome::bounded;
use crate::hub::{Call, Delivery, FirstReceipts, Intake, SetPoint, WINDOW_MAX};
use crate::ledger::row::Source;
use crate::ledger::NewRow;
use crate::time::Timestamp;

/// What a link has brought.
pub enum Arrival {
    /// A message.
    Message(Delivery),
    /// A call of a direct method.
    Call(Call),
    /// A desired property of its twin.
    SetPoint(SetPoint),
}

impl Arrival {
    /// Whether the connection that brought it still stands.
    fn is_live(&self) -> bool {
        match self {
            Arrival::Message(delivery) => delivery.ticket.is_live(),
            Arrival::Call(call) => call.reply.is_live(),
            Arrival::SetPoint(set_point) => set_point.wish.is_live(),
        }
    }
}

/// Where a device's link delivers.
pub struct Inbox {
    receipts: Arc<Own>,
    arrivals: queue::Sender<Arrival>,
    jobs: queue::Sender<Job>,
    ended: Arc<Notify>,
}

impl Inbox {
    /// Rung when a connection has ended.
    pub fn ended(&self) -> Arc<Notify> {
        self.ended.clone()
    }
}

impl Intake for Inbox {
    fn receipts(&self) -> Arc<dyn FirstReceipts> {
        self.receipts.clone()
    }

    fn offer(&self, delivery: Delivery) -> Result<(), Box<Delivery>> {
        match self.arrivals.try_send(Arrival::Message(delivery)) {
            Err(Refused::Full(Arrival::Message(delivery))) => Err(Box::new(delivery)),
            // Nothing new is begun during a stop; the hub keeps the message.
            Ok(()) | Err(Refused::Closed(_) | Refused::Full(_)) => Ok(()),
        }
    }

    fn offer_call(&self, call: Call) -> Result<(), Box<Call>> {
        match self.arrivals.try_send(Arrival::Call(call)) {
            Err(Refused::Full(Arrival::Call(call)) | Refused::Closed(Arrival::Call(call))) => Err(Box::new(call)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn offer_set_point(&self, set_point: SetPoint) -> Result<(), Box<SetPoint>> {
        match self.arrivals.try_send(Arrival::SetPoint(set_point)) {
            Err(Refused::Full(Arrival::SetPoint(back)) | Refused::Closed(Arrival::SetPoint(back))) => {
                Err(Box::new(back))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn forget(&self) {
        self.arrivals.retain(Arrival::is_live);
        self.jobs.retain(|job| job.work.is_ours());
        self.ended.notify_one();
    }
}

/// The two ends of a device's context: where its link delivers, and the tasks.
pub fn channels(
    device: &str,
    receipts: &Arc<Receipts>,
) -> (Inbox, queue::Receiver<Arrival>, queue::Sender<Job>, queue::Receiver<Job>) {
    let (arrivals, inbox) = queue::bounded(WINDOW_MAX);
    // The executor takes what is offered at once, as far as it has room.
    let (offer, jobs) = queue::bounded(1);
    let receipts = Arc::new(Own { device: device.to_owned(), receipts: receipts.clone() });
    let intake = Inbox { receipts, arrivals, jobs: offer.clone(), ended: Arc::default() };
    (intake, inbox, offer, jobs)
}

impl Context {
    /// Takes what is to be known of what has come. A message whose connection is gone comes again, as does what is
    /// desired; who has called on one does not hear the answer.
    pub(super) fn receive(&self, arrival: Arrival) -> Option<Work> {
        if !arrival.is_live() {
            return None;
        }
        match arrival {
            Arrival::Message(delivery) => Some(self.receive_message(delivery)),
            Arrival::Call(call) => Some(self.receive_call(call)),
            Arrival::SetPoint(set_point) => Some(self.receive_set_point(set_point)),
        }
    }

    fn receive_message(&self, delivery: Delivery) -> Work {
        let Delivery { hub, gist, received_at, received, ticket, room } = delivery;
        let key = Key::of(&hub, &self.id, &gist);
        if let Some(expiry) = &gist.unread_expiry {
            tracing::warn!(device = %self.id, expiry, "a message's expiry can't be read, and is left to the hub");
        }
        let origin = Origin::Message(Some(ticket));
        let work = self.asked_for(&hub, gist, (Source::Hub, origin), received_at);
        Work { received, key: Some(key), _room: Some(room), ..work }
    }

    fn receive_call(&self, call: Call) -> Work {
        let Call { hub, gist, received_at, received, reply, room } = call;
        let origin = Origin::Method(Caller::new(reply, received + self.present().device.method_timeout));
        let work = self.asked_for(&hub, gist, (Source::Method, origin), received_at);
        Work { received, _room: Some(room), ..work }
    }

    fn receive_set_point(&self, set_point: SetPoint) -> Work {
        let SetPoint { hub, gist, received_at, received, wish, room } = set_point;
        let work = self.asked_for(&hub, gist, (Source::Twin, Origin::Twin(wish)), received_at);
        Work { received, _room: Some(room), ..work }
    }

    /// What is to be known of what the hub has brought.
    fn asked_for(&self, hub: &str, gist: Gist, (source, origin): (Source, Origin), received_at: Timestamp) -> Work {
        let judge = |name: &String| check(&self.present().device, name, gist.value.as_ref(), gist.id.as_deref()).err();
        let refused = gist.fault.or_else(|| gist.command.as_ref().and_then(judge));
        // What was asked for is told, and kept, also of what can't be done.
        let value: Option<Json> = if refused.is_some() { gist.value.map(bounded) } else { gist.value };
        let new = NewRow {
            hub: hub.to_owned(),
            source,
            device: self.id.clone(),
            message_id: gist.id,
            digest: gist.digest,
            command: gist.command,
            value,
            received_at,
            expires_at: gist.expires_at,
            envelope: gist.envelope,
        };
        Work::new(origin, new, refused)
    }
}
