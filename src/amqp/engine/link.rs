//! A link of a session: its credit, and its deliveries that are not settled.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes, BytesMut};
use fe2o3_amqp_types::definitions::{self, Fields, Handle, LinkError, ReceiverSettleMode, Role, SenderSettleMode};
use fe2o3_amqp_types::messaging::{Accepted, DeliveryState, Rejected, Released, Source, Target, TargetArchetype};
use fe2o3_amqp_types::performatives::{Attach, Detach, Disposition, Flow, Performative, Transfer};

use super::counters::Counters;
use super::DELIVERY_MAX;
use super::{wrong, Attaching, Delivery, Direction, Event, LinkId, Out, Outcome, Problem, SessionId, Settle, Wrong};
use crate::amqp::frame::{Body, Frame, Item};

/// Bytes of a frame beside the piece of a message in it: header, and a transfer with all that we say in one.
const TRANSFER_BYTES: usize = 96;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its session has not begun.
    Wanted,
    /// The peer has not answered.
    Attaching,
    /// The peer has answered that it will not attach it. It detaches it next.
    Refused,
    Attached,
    /// We have detached it, and the peer has not answered.
    Detaching,
    Gone,
}

/// One link.
pub(super) struct Link {
    handle: u32,
    name: String,
    address: String,
    local: Option<String>,
    properties: Option<Fields>,
    /// Whoever sends settles as it does.
    is_once: bool,
    state: State,
    /// The handle that the peer uses for it.
    peers: Option<u32>,
    credit: u32,
    /// Deliveries since the link was made, by the sender's count.
    count: u32,
    end: End,
}

enum End {
    Receiver(Receiver),
    Sender(Sender),
}

#[derive(Default)]
struct Receiver {
    /// Most deliveries that came and are not settled, and may come.
    window: u32,
    /// What came whole, and whether the peer has settled it already.
    unsettled: VecDeque<(u32, bool)>,
    partial: Option<Partial>,
    is_paused: bool,
    /// Credit that was taken back: the peer may have used it before it heard of that.
    taken_back: u32,
}

/// A delivery of which more is to come.
struct Partial {
    id: u32,
    is_settled: bool,
    payload: BytesMut,
    is_whole: bool,
}

impl Partial {
    /// With its last piece; one that comes in one piece is not copied.
    fn ended(mut self, last: Bytes) -> Delivery {
        let payload = match self.payload.is_empty() {
            true => last,
            false => {
                self.payload.extend_from_slice(&last);
                self.payload.freeze()
            }
        };
        Delivery { id: self.id, payload, is_whole: self.is_whole }
    }
}

/// What a piece of a delivery is to it.
enum Piece {
    /// With it the delivery is there, which the peer may have settled already.
    Last(Delivery, bool),
    MoreToCome,
    /// The peer has thought better of it.
    Aborted,
    /// It begins one for which there is no credit.
    NotAskedFor,
}

#[derive(Default)]
struct Sender {
    /// Messages that wait for credit, or for the peer to say what becomes of them.
    most: usize,
    waiting: VecDeque<Sending>,
    /// What is on the wire: the delivery's id, and what it was sent under.
    unsettled: VecDeque<(u32, u64)>,
    tags: u32,
}

struct Sending {
    number: u64,
    /// What has not been sent of it.
    rest: Bytes,
    /// Its id, once some of it was sent.
    begun: Option<u32>,
}

impl Link {
    pub(super) fn new(handle: u32, attaching: Attaching) -> Link {
        let Attaching { name, address, local, direction, properties } = attaching;
        let is_once = matches!(direction, Direction::InOnce(_) | Direction::OutOnce(_));
        let end = match direction {
            Direction::In(window) | Direction::InOnce(window) => {
                End::Receiver(Receiver { window, ..Receiver::default() })
            }
            Direction::Out(most) | Direction::OutOnce(most) => End::Sender(Sender { most, ..Sender::default() }),
        };
        let (state, peers, credit, count) = (State::Wanted, None, 0, 0);
        Link { handle, name, address, local, properties, is_once, state, peers, credit, count, end }
    }

    fn id(&self, session: SessionId) -> LinkId {
        LinkId { session, handle: self.handle }
    }

    fn role(&self) -> Role {
        match self.end {
            End::Receiver(_) => Role::Receiver,
            End::Sender(_) => Role::Sender,
        }
    }

    /// Whether both sides have ended it.
    pub(super) fn is_gone(&self) -> bool {
        self.state == State::Gone
    }

    /// Whether it is the one that the peer means.
    pub(super) fn is_peers(&self, handle: u32) -> bool {
        self.peers == Some(handle) && self.state != State::Gone
    }

    /// Asks the peer for it.
    pub(super) fn attach(&mut self, session: SessionId, out: &mut Out) {
        let theirs = std::mem::take(&mut self.address);
        let (source, target) = match self.end {
            End::Receiver(_) => (Some(theirs), self.local.take()),
            End::Sender(_) => (self.local.take(), Some(theirs)),
        };
        let source = Source { address: source, ..Source::default() };
        let target = Target { address: target, ..Target::default() };
        let attach = Attach {
            name: self.name.clone(),
            handle: Handle(self.handle),
            role: self.role(),
            snd_settle_mode: if self.is_once { SenderSettleMode::Settled } else { SenderSettleMode::Unsettled },
            rcv_settle_mode: ReceiverSettleMode::First,
            source: Some(Box::new(source)),
            target: Some(Box::new(TargetArchetype::Target(target))),
            unsettled: None,
            incomplete_unsettled: false,
            initial_delivery_count: matches!(self.end, End::Sender(_)).then_some(0),
            max_message_size: matches!(self.end, End::Receiver(_)).then_some(DELIVERY_MAX as u64),
            offered_capabilities: None,
            desired_capabilities: None,
            properties: self.properties.take(),
        };
        out.say(session.0, Performative::Attach(attach));
        self.state = State::Attaching;
    }

    /// Whether the peer may answer with this.
    pub(super) fn may_be_attached(&self, attach: &Attach) -> bool {
        self.peers.is_none()
            && matches!(self.state, State::Attaching | State::Detaching)
            && self.name == attach.name
            && self.role() != attach.role
    }

    pub(super) fn on_attach(&mut self, session: SessionId, attach: &Attach, counters: &mut Counters, out: &mut Out) {
        self.peers = Some(attach.handle.0);
        if self.state == State::Detaching {
            return;
        }
        // A peer that refuses a link answers without what it was asked for, and detaches it (2.6.3).
        let is_granted = match &self.end {
            End::Receiver(_) => attach.source.is_some(),
            End::Sender(_) => attach.target.is_some(),
        };
        self.state = if is_granted { State::Attached } else { State::Refused };
        if !is_granted {
            return;
        }
        if let End::Receiver(_) = self.end {
            self.count = attach.initial_delivery_count.unwrap_or_default();
        }
        out.events.push_back(Event::Attached(self.id(session)));
        self.grant(session, counters, out);
    }

    /// Lets as many more come as there is room for. Not for each delivery, where there are many.
    fn grant(&mut self, session: SessionId, counters: &mut Counters, out: &mut Out) {
        if let End::Receiver(Receiver { window, .. }) = self.end {
            self.grant_for(window / 4, session, counters, out);
        }
    }

    /// The same, if there is room for at least so many.
    fn grant_for(&mut self, least: u32, session: SessionId, counters: &mut Counters, out: &mut Out) {
        let End::Receiver(receiver) = &mut self.end else { return };
        let taken = receiver.unsettled.len() + usize::from(receiver.partial.is_some());
        let wanted = receiver.window.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
        let missing = wanted.saturating_sub(self.credit);
        if self.state == State::Attached && !receiver.is_paused && missing > 0 && missing >= least {
            // Whatever is on its way on the credit before counts against this one.
            receiver.taken_back = 0;
            self.credit = wanted;
            self.tell_flow(session, counters, out);
        }
    }

    /// Takes back what credit is left.
    pub(super) fn pause(&mut self, session: SessionId, counters: &mut Counters, out: &mut Out) {
        let End::Receiver(receiver) = &mut self.end else { return };
        receiver.is_paused = true;
        if self.state == State::Attached && self.credit > 0 {
            receiver.taken_back = std::mem::take(&mut self.credit);
            self.tell_flow(session, counters, out);
        }
    }

    /// Gives credit again.
    pub(super) fn resume(&mut self, session: SessionId, counters: &mut Counters, out: &mut Out) {
        let End::Receiver(receiver) = &mut self.end else { return };
        if std::mem::take(&mut receiver.is_paused) {
            self.grant_for(1, session, counters, out);
        }
    }

    fn tell_flow(&self, session: SessionId, counters: &mut Counters, out: &mut Out) {
        let flow = Flow {
            handle: Some(Handle(self.handle)),
            delivery_count: Some(self.count),
            link_credit: Some(self.credit),
            ..counters.flow()
        };
        out.say(session.0, Performative::Flow(flow));
    }

    pub(super) fn on_flow(&mut self, flow: &Flow) {
        if let (End::Sender(_), Some(credit)) = (&self.end, flow.link_credit) {
            // A peer that has not heard of any delivery counts from ours (2.6.7).
            let end = flow.delivery_count.unwrap_or_default().wrapping_add(credit);
            // One that is behind what was sent leaves none.
            self.credit = end.wrapping_sub(self.count);
            if self.credit > credit {
                self.credit = 0;
            }
        }
    }

    pub(super) fn answer_flow(&mut self, session: SessionId, flow: &Flow, counters: &mut Counters, out: &mut Out) {
        if self.state != State::Attached {
            return;
        }
        let drains = flow.drain && matches!(self.end, End::Sender(_));
        if drains {
            self.count = self.count.wrapping_add(self.credit);
            self.credit = 0;
        }
        if drains || flow.echo {
            self.tell_flow(session, counters, out);
        }
    }

    /// Takes a message to be sent.
    pub(super) fn queue(&mut self, number: u64, payload: Bytes) -> bool {
        let End::Sender(sender) = &mut self.end else { return false };
        let is_full = sender.waiting.len() + sender.unsettled.len() >= sender.most;
        if is_full || matches!(self.state, State::Detaching | State::Gone) {
            return false;
        }
        sender.waiting.push_back(Sending { number, rest: payload, begun: None });
        true
    }

    /// Sends of what waits as much as may be.
    pub(super) fn go_on(&mut self, session: SessionId, counters: &mut Counters, out: &mut Out) {
        let End::Sender(sender) = &mut self.end else { return };
        if self.state != State::Attached {
            return;
        }
        while let Some(sending) = sender.waiting.front_mut() {
            if !out.has_room() {
                out.is_held_up = true;
                return;
            }
            if sending.begun.is_none() && self.credit == 0 || counters.transfer().is_none() {
                return;
            }
            let (id, tag) = match sending.begun {
                Some(id) => (id, None),
                None => {
                    let id = counters.delivery();
                    self.credit -= 1;
                    self.count = self.count.wrapping_add(1);
                    sender.tags = sender.tags.wrapping_add(1);
                    if !self.is_once {
                        sender.unsettled.push_back((id, sending.number));
                    }
                    sending.begun = Some(id);
                    (id, Some(sender.tags.to_be_bytes().to_vec().into()))
                }
            };
            let piece = sending.rest.split_to(sending.rest.len().min(out.frame_max - TRANSFER_BYTES));
            let more = sending.rest.has_remaining();
            let transfer = Transfer {
                handle: Handle(self.handle),
                delivery_id: Some(id),
                message_format: tag.is_some().then_some(0),
                delivery_tag: tag,
                settled: Some(self.is_once),
                more,
                rcv_settle_mode: None,
                state: None,
                resume: false,
                aborted: false,
                batchable: false,
            };
            let body = Body::Performative(Performative::Transfer(transfer));
            out.put(&Item::Frame(Frame { channel: session.0, body, payload: piece }));
            if !more {
                sender.waiting.pop_front();
            }
        }
    }

    pub(super) fn on_disposition(
        &mut self,
        session: SessionId,
        disposition: &Disposition,
        told: impl Fn(u32) -> bool,
        out: &mut Out,
    ) {
        let id = self.id(session);
        let End::Sender(sender) = &mut self.end else { return };
        let outcome = match &disposition.state {
            Some(DeliveryState::Accepted(_)) => Outcome::Accepted,
            Some(DeliveryState::Rejected(Rejected { error })) => Outcome::Rejected(error.as_ref().map(Problem::of)),
            Some(DeliveryState::Released(_) | DeliveryState::Modified(_)) => Outcome::Released,
            Some(_) | None if disposition.settled => Outcome::Untold,
            Some(_) | None => return,
        };
        sender.unsettled.retain(|(delivery, number)| {
            let is_told = told(*delivery);
            if is_told {
                out.events.push_back(Event::Sent(id, *number, outcome.clone()));
                if !disposition.settled {
                    out.say(session.0, settled(Role::Sender, *delivery, None));
                }
            }
            !is_told
        });
    }

    pub(super) fn on_transfer(
        &mut self,
        session: SessionId,
        transfer: &Transfer,
        payload: Bytes,
        counters: &mut Counters,
        out: &mut Out,
    ) -> Result<(), Wrong> {
        if self.state != State::Attached {
            self.on_late_transfer(session, transfer, payload, out);
            return Ok(());
        }
        match self.piece(transfer, payload)? {
            Piece::Last(delivery, is_settled) => {
                let id = self.id(session);
                if let End::Receiver(receiver) = &mut self.end {
                    receiver.unsettled.push_back((delivery.id, is_settled));
                }
                out.events.push_back(Event::Delivered(id, delivery));
            }
            Piece::MoreToCome => {}
            Piece::Aborted => self.grant(session, counters, out),
            Piece::NotAskedFor => self.end_for_more_than_was_asked_for(session, out),
        }
        Ok(())
    }

    /// Takes what was on its way when the link was detached, or what it is of ended. Nothing is said of that any more;
    /// but the peer may keep locked what came whole.
    pub(super) fn on_late_transfer(&mut self, session: SessionId, transfer: &Transfer, payload: Bytes, out: &mut Out) {
        if let Ok(Piece::Last(delivery, _)) = self.piece(transfer, payload) {
            out.events.push_back(Event::Delivered(self.id(session), delivery));
        }
    }

    /// Takes a piece of a delivery.
    fn piece(&mut self, transfer: &Transfer, payload: Bytes) -> Result<Piece, Wrong> {
        let End::Receiver(receiver) = &mut self.end else { return wrong("a Transfer on a link that goes out") };
        let mut partial = match (receiver.partial.take(), transfer.delivery_id) {
            (Some(partial), None) => partial,
            (Some(partial), Some(id)) if id == partial.id => partial,
            (Some(_), Some(_)) => return wrong("a delivery in the middle of another one"),
            (None, None) => return wrong("a delivery without a number"),
            (None, Some(delivery)) => {
                let credit = match self.credit {
                    0 => &mut receiver.taken_back,
                    _ => &mut self.credit,
                };
                let Some(left) = credit.checked_sub(1) else { return Ok(Piece::NotAskedFor) };
                *credit = left;
                self.count = self.count.wrapping_add(1);
                Partial { id: delivery, is_settled: false, payload: BytesMut::new(), is_whole: true }
            }
        };
        partial.is_settled |= transfer.settled == Some(true);
        if transfer.aborted {
            return Ok(Piece::Aborted);
        }
        let taken = payload.len().min(DELIVERY_MAX - partial.payload.len());
        partial.is_whole &= taken == payload.len();
        if transfer.more {
            partial.payload.extend_from_slice(&payload[..taken]);
            receiver.partial = Some(partial);
            return Ok(Piece::MoreToCome);
        }
        let is_settled = partial.is_settled;
        Ok(Piece::Last(partial.ended(payload.slice(..taken)), is_settled))
    }

    fn end_for_more_than_was_asked_for(&mut self, session: SessionId, out: &mut Out) {
        let condition = LinkError::TransferLimitExceeded;
        let error = definitions::Error::new(condition, Some("more came than was asked for".into()), None);
        let problem = Problem::of(&error);
        self.detach_for(session, Some(error), out);
        out.events.push_back(Event::Detached(self.id(session), Some(problem)));
    }

    pub(super) fn settle(
        &mut self,
        session: SessionId,
        delivery: u32,
        how: Settle,
        counters: &mut Counters,
        out: &mut Out,
    ) {
        let End::Receiver(receiver) = &mut self.end else { return };
        let Some(at) = receiver.unsettled.iter().position(|(id, _)| *id == delivery) else { return };
        let (_, is_settled) = receiver.unsettled.remove(at).expect("it was found just now");
        if self.state != State::Attached {
            return;
        }
        let state = match how {
            Settle::Accept => Some(DeliveryState::Accepted(Accepted {})),
            Settle::Reject => Some(DeliveryState::Rejected(Rejected { error: None })),
            Settle::Release => Some(DeliveryState::Released(Released {})),
            Settle::Forget => None,
        };
        if let (Some(state), false) = (state, is_settled) {
            out.say(session.0, settled(Role::Receiver, delivery, Some(state)));
        }
        // Who gives one back is about to leave: another one in its place would be locked for nobody.
        if how != Settle::Release {
            self.grant(session, counters, out);
        }
    }

    /// `false`: it has ended before.
    pub(super) fn detach(&mut self, session: SessionId, out: &mut Out) -> bool {
        let had_ended = matches!(self.state, State::Detaching | State::Gone);
        match self.state {
            // The peer knows nothing of it.
            State::Wanted => self.state = State::Gone,
            _ => self.detach_for(session, None, out),
        }
        !had_ended
    }

    fn detach_for(&mut self, session: SessionId, error: Option<definitions::Error>, out: &mut Out) {
        if matches!(self.state, State::Attaching | State::Attached | State::Refused) {
            let detach = Detach { handle: Handle(self.handle), closed: true, error };
            out.say(session.0, Performative::Detach(detach));
            self.state = State::Detaching;
        }
    }

    pub(super) fn on_detach(&mut self, session: SessionId, detach: &Detach, out: &mut Out) {
        if self.state != State::Detaching {
            let answer = Detach { handle: Handle(self.handle), closed: detach.closed, error: None };
            out.say(session.0, Performative::Detach(answer));
            out.events.push_back(Event::Detached(self.id(session), detach.error.as_ref().map(Problem::of)));
        }
        self.state = State::Gone;
    }
}

/// Says of one delivery that it is settled, and how.
fn settled(role: Role, delivery: u32, state: Option<DeliveryState>) -> Performative {
    Performative::Disposition(Disposition { role, first: delivery, last: None, settled: true, state, batchable: false })
}
