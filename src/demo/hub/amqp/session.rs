//! A session's end at the hub: numbers, windows, credit, and what is on its way. No I/O, and nothing of the hub's
//! rules.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::purpose::Purpose;
use crate::amqp::frame::{Body, Frame};
use crate::amqp::types::definitions::{Error, ErrorCondition, Handle, ReceiverSettleMode, Role, SenderSettleMode};
use crate::amqp::types::messaging::DeliveryState;
use crate::amqp::types::performatives::{Attach, Detach, Disposition, Flow, Performative, Transfer};
use crate::demo::hub::queue::LockToken;

/// Transfers that a client may send before it hears of more.
pub(super) const WINDOW: u32 = 5000;
/// Messages that a client may send on a link before it hears of more.
const CREDIT: u32 = 100;
/// What a transfer takes of a frame beside its payload.
const TRANSFER_BYTES: usize = 128;

pub(super) struct Link {
    /// Its number on the connection.
    pub number: u64,
    pub address: String,
    pub purpose: Purpose,
    /// How many more messages may go over it, whoever sends them.
    pub credit: u32,
    pub delivery_count: u32,
    /// How far whoever reads events here has come.
    pub place: u64,
    /// The client wants its credit back where there is nothing to send.
    pub drain: bool,
    /// What came of a message that has not ended.
    partial: Vec<u8>,
    partial_id: Option<u32>,
}

impl Link {
    pub fn new(number: u64, address: String, purpose: Purpose, place: u64) -> Self {
        let credit = if purpose.hub_sends() { 0 } else { CREDIT };
        let (delivery_count, drain, partial, partial_id) = (0, false, Vec::new(), None);
        Link { number, address, purpose, credit, delivery_count, place, drain, partial, partial_id }
    }
}

/// What is on its way to the client, unsettled.
#[derive(Debug, Clone)]
pub(super) enum Sent {
    /// An answer, or an event: nothing becomes of it.
    Answer,
    Message {
        device: String,
        token: LockToken,
    },
    Feedback(u64),
}

/// A message that came as a whole.
pub(super) struct Arrived {
    pub handle: u32,
    /// `None` where the client settled it.
    pub id: Option<u32>,
    pub bytes: Vec<u8>,
}

pub(super) struct Session {
    channel: u16,
    next_incoming: u32,
    next_outgoing: u32,
    /// Transfers that the client still takes.
    pub room: u32,
    next_delivery: u32,
    /// By the client's handles; the hub's are the same.
    pub links: BTreeMap<u32, Link>,
    pub sent: BTreeMap<u32, Sent>,
}

impl Session {
    pub fn new(channel: u16, next_incoming: u32, room: u32) -> Self {
        let (links, sent) = (BTreeMap::new(), BTreeMap::new());
        Session { channel, next_incoming, next_outgoing: 0, room, next_delivery: 0, links, sent }
    }

    pub fn frame(&self, performative: Performative) -> Frame {
        Frame::of(self.channel, performative)
    }

    /// Where the session stands, and a link in it.
    pub fn flow(&self, handle: Option<u32>) -> Frame {
        let link = handle.and_then(|handle| self.links.get(&handle));
        self.frame(Performative::Flow(Flow {
            next_incoming_id: Some(self.next_incoming),
            incoming_window: WINDOW,
            next_outgoing_id: self.next_outgoing,
            outgoing_window: WINDOW,
            handle: link.and(handle).map(Handle),
            delivery_count: link.map(|link| link.delivery_count),
            link_credit: link.map(|link| link.credit),
            available: None,
            drain: link.is_some_and(|link| link.drain),
            echo: false,
            properties: None,
        }))
    }

    /// Takes in what the client says of its windows and credit. A frame, where it asks for one.
    pub fn on_flow(&mut self, flow: &Flow) -> Option<Frame> {
        let seen = flow.next_incoming_id.unwrap_or(0);
        self.room = seen.wrapping_add(flow.incoming_window).wrapping_sub(self.next_outgoing);
        self.next_incoming = flow.next_outgoing_id;
        let handle = flow.handle.as_ref().map(|handle| handle.0);
        if let Some(link) = handle.and_then(|handle| self.links.get_mut(&handle)) {
            if link.purpose.hub_sends() {
                let given = flow.link_credit.unwrap_or(0);
                let left = flow.delivery_count.unwrap_or(0).wrapping_add(given).wrapping_sub(link.delivery_count);
                // More than was given: what went out before the client said it has used up all.
                link.credit = if left > given { 0 } else { left };
                link.drain = flow.drain;
            }
        }
        flow.echo.then(|| self.flow(handle))
    }

    /// Gives back the credit of a link that has nothing to send, if the client wants that.
    pub fn drained(&mut self, handle: u32) -> Option<Frame> {
        let link = self.links.get_mut(&handle).filter(|link| link.drain && link.credit > 0)?;
        link.delivery_count = link.delivery_count.wrapping_add(link.credit);
        link.credit = 0;
        Some(self.flow(Some(handle)))
    }

    /// Takes a transfer; a message once it has come as a whole.
    pub fn on_transfer(&mut self, transfer: &Transfer, payload: &Bytes) -> Result<Option<Arrived>, &'static str> {
        self.next_incoming = self.next_incoming.wrapping_add(1);
        let handle = transfer.handle.0;
        // A link that the hub has detached meanwhile.
        let Some(link) = self.links.get_mut(&handle) else { return Ok(None) };
        if link.purpose.hub_sends() {
            return Err("a transfer on a link that the hub sends on");
        }
        let id = match (link.partial_id, transfer.delivery_id) {
            (Some(id), _) => id,
            (None, Some(id)) => id,
            (None, None) => return Err("a transfer without a delivery id"),
        };
        link.partial_id = Some(id);
        link.partial.extend_from_slice(payload);
        if link.partial.len() > 2 * crate::demo::hub::state::D2C_BYTES_MAX {
            return Err("a message that is too large");
        } else if transfer.more {
            return Ok(None);
        }
        link.partial_id = None;
        let bytes = std::mem::take(&mut link.partial);
        if transfer.aborted {
            return Ok(None);
        }
        link.credit = link.credit.saturating_sub(1);
        link.delivery_count = link.delivery_count.wrapping_add(1);
        let is_settled = transfer.settled.unwrap_or(false);
        Ok(Some(Arrived { handle, id: (!is_settled).then_some(id), bytes }))
    }

    /// Lets the client send more on a link, once it has used up half of what it had.
    pub fn more_credit(&mut self, handle: u32) -> Option<Frame> {
        let link = self.links.get_mut(&handle).filter(|link| link.credit <= CREDIT / 2)?;
        link.credit = CREDIT;
        Some(self.flow(Some(handle)))
    }

    /// Whether a message may go over a link.
    pub fn may_send(&self, handle: u32) -> bool {
        self.room > 0 && self.links.get(&handle).is_some_and(|link| link.credit > 0)
    }

    /// A message as the transfers that it takes, in frames of at most so many bytes.
    pub fn send(&mut self, handle: u32, tag: &[u8], bytes: Vec<u8>, sent: Sent, frame_max: usize) -> Vec<Frame> {
        let id = self.next_delivery;
        self.next_delivery = id.wrapping_add(1);
        if let Some(link) = self.links.get_mut(&handle) {
            link.credit = link.credit.saturating_sub(1);
            link.delivery_count = link.delivery_count.wrapping_add(1);
        }
        let is_settled = matches!(sent, Sent::Answer);
        if !is_settled {
            self.sent.insert(id, sent);
        }
        let payload = Bytes::from(bytes);
        let part = frame_max.saturating_sub(TRANSFER_BYTES).max(1);
        let count = payload.len().div_ceil(part).max(1);
        let mut frames = Vec::new();
        for index in 0..count {
            let is_first = index == 0;
            let payload = payload.slice(index * part..payload.len().min((index + 1) * part));
            let transfer = Transfer {
                handle: Handle(handle),
                delivery_id: is_first.then_some(id),
                delivery_tag: is_first.then(|| tag.to_vec().into()),
                message_format: is_first.then_some(0),
                settled: Some(is_settled),
                more: index + 1 < count,
                rcv_settle_mode: None,
                state: None,
                resume: false,
                aborted: false,
                batchable: false,
            };
            let body = Body::Performative(Performative::Transfer(transfer));
            frames.push(Frame { channel: self.channel, body, payload });
            self.next_outgoing = self.next_outgoing.wrapping_add(1);
            self.room = self.room.saturating_sub(1);
        }
        frames
    }

    /// Says what became of a delivery, and that it is over.
    pub fn disposition(&self, role: Role, id: u32, state: DeliveryState) -> Frame {
        let (last, settled, batchable) = (None, true, false);
        self.frame(Performative::Disposition(Disposition {
            role,
            first: id,
            last,
            settled,
            state: Some(state),
            batchable,
        }))
    }

    /// Ends a link.
    pub fn detach(&self, handle: u32, error: Option<Error>) -> Frame {
        self.frame(Performative::Detach(Detach { handle: Handle(handle), closed: true, error }))
    }
}

/// The hub's side of a link; one that is refused has no terminus there.
pub(super) fn answer_attach(attach: Attach, hub_sends: bool, is_refused: bool) -> Attach {
    let source = attach.source.filter(|_| !(is_refused && hub_sends));
    let target = attach.target.filter(|_| !is_refused || hub_sends);
    Attach {
        name: attach.name,
        handle: attach.handle,
        role: if hub_sends { Role::Sender } else { Role::Receiver },
        snd_settle_mode: SenderSettleMode::Mixed,
        rcv_settle_mode: ReceiverSettleMode::First,
        source,
        target,
        unsettled: None,
        incomplete_unsettled: false,
        initial_delivery_count: hub_sends.then_some(0),
        max_message_size: Some(if hub_sends { 65_536 } else { 262_144 }),
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    }
}

pub(super) fn not_found() -> Error {
    error("amqp:not-found", "ErrorCode:ArgumentInvalid;there is nothing at this address")
}

/// An error of the hub's.
pub(super) fn error(condition: &str, description: &str) -> Error {
    Error::new(ErrorCondition::Custom(condition.into()), Some(description.to_owned()), None)
}
