//! A client's connection: what the hub answers to each frame, and what it sends by itself. No I/O; the time is an
//! argument.
//!
//! - A link without permission is attached and detached right after: that an attach is answered permits nothing.
//! - A device's link whose name was there before on the connection would resume that one, and no link is resumed.
//! - What is sent or settled on a link that the hub has detached is passed over: the client could not know.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::events;
use super::message::{self, Received};
use super::purpose::Purpose;
use super::rules::Shown;
use super::session::{answer_attach, error, not_found, Arrived, Link, Sent, Session, WINDOW};
use crate::amqp::frame::{Body, Frame, FRAME_MAX, FRAME_MIN};
use crate::amqp::types::definitions::{Error, Handle, Role};
use crate::amqp::types::messaging::{Accepted, DeliveryState, Rejected, TargetArchetype};
use crate::amqp::types::performatives::{
    Attach, Begin, ChannelMax, Close, Disposition, Flow, MaxFrameSize, Open, Performative, Transfer,
};
use crate::demo::hub::side::{Which, STOLEN, UNAUTHORIZED};
use crate::demo::hub::state::{Now, State, Who};
use crate::demo::hub::wire::{Effect, End, Settlement, Wire};
use crate::demo::hub::Fault;

/// The client has to say something within this time; it is told to at the start (milliseconds).
pub(super) const IDLE_MILLIS: u32 = 240_000;
/// Most sessions on a connection: one for each of as many devices as may show a token on it.
const SESSIONS_MAX: usize = 1024;
/// The highest handle in a session. The greatest possible one, which may be left out, one of the vendor's SDKs misses.
const HANDLE_MAX: u32 = 8191;
/// Most answers to tokens that wait for credit.
const ANSWERS_MAX: usize = 4096;

/// How a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// When everything is written.
    After(End),
    /// When half of the last frame is written.
    InFrame,
}

pub(super) struct Peer {
    number: u64,
    thumbprints: Vec<String>,
    /// The largest frame that the client takes.
    pub frame_max: usize,
    /// The client wants to hear something within this time (milliseconds).
    pub idle: Option<u32>,
    is_open: bool,
    sessions: BTreeMap<u16, Session>,
    last_link: u64,
    /// The names of devices' links, those that are gone too.
    names: BTreeSet<String>,
    /// Links to devices' messages: by the device, the session's channel and the handle.
    receivers: BTreeMap<String, (u16, u32)>,
    /// Links to devices' methods, likewise.
    callers: BTreeMap<String, (u16, u32)>,
    /// Links on which there may be something to send, for each device whose messages go over one; and the others that
    /// the hub sends on, which are few.
    due: BTreeSet<(u16, u32)>,
    others: BTreeSet<(u16, u32)>,
    answers: VecDeque<Vec<u8>>,
    facts: VecDeque<Vec<u8>>,
    pub ending: Option<Ending>,
    out: Vec<Frame>,
}

impl Peer {
    pub fn new(number: u64, thumbprints: Vec<String>) -> Self {
        Peer {
            number,
            thumbprints,
            frame_max: FRAME_MIN,
            idle: None,
            is_open: false,
            sessions: BTreeMap::new(),
            last_link: 0,
            names: BTreeSet::new(),
            receivers: BTreeMap::new(),
            callers: BTreeMap::new(),
            due: BTreeSet::new(),
            others: BTreeSet::new(),
            answers: VecDeque::new(),
            facts: VecDeque::new(),
            ending: None,
            out: Vec::new(),
        }
    }

    fn who(&self, device: &str) -> Who {
        Who { device: device.to_owned(), connection: self.number }
    }

    /// What the hub answers to a frame.
    pub fn received(&mut self, state: &mut State, frame: Frame, now: Now) -> Vec<Frame> {
        let Frame { channel, body, payload } = frame;
        let performative = match body {
            Body::Heartbeat => return vec![],
            Body::Performative(performative) => performative,
            Body::Sasl(_) => return self.violated("a SASL frame after SASL"),
        };
        let done = match performative {
            Performative::Open(open) => self.on_open(state, open),
            _ if !self.is_open => Err("a frame before Open"),
            Performative::Begin(begin) => self.on_begin(channel, &begin),
            Performative::Attach(attach) => self.on_attach(state, channel, attach, now),
            Performative::Flow(flow) => self.on_flow(channel, &flow),
            Performative::Transfer(transfer) => self.on_transfer(state, channel, &transfer, &payload, now),
            Performative::Disposition(disposition) => {
                self.on_disposition(state, channel, &disposition, now);
                Ok(())
            }
            Performative::Detach(detach) => {
                self.on_detach(state, channel, detach.handle.0);
                Ok(())
            }
            Performative::End(_) => {
                self.on_end(state, channel);
                Ok(())
            }
            Performative::Close(_) => {
                self.out.push(Frame::of(0, Performative::Close(Close { error: None })));
                self.ending = Some(Ending::After(End::Disconnect));
                Ok(())
            }
        };
        match done {
            Ok(()) => std::mem::take(&mut self.out),
            Err(what) => self.violated(what),
        }
    }

    fn violated(&mut self, what: &'static str) -> Vec<Frame> {
        self.ending = Some(Ending::After(End::Violation(what)));
        self.out.push(Frame::of(0, Performative::Close(Close { error: Some(error("amqp:not-allowed", what)) })));
        std::mem::take(&mut self.out)
    }

    fn session(&mut self, channel: u16) -> Result<&mut Session, &'static str> {
        self.sessions.get_mut(&channel).ok_or("a frame of no session")
    }

    fn on_open(&mut self, state: &State, open: Open) -> Result<(), &'static str> {
        if std::mem::replace(&mut self.is_open, true) {
            return Err("a second Open");
        }
        self.frame_max = (open.max_frame_size.0 as usize).clamp(FRAME_MIN, FRAME_MAX);
        self.idle = open.idle_time_out;
        self.out.push(Frame::of(
            0,
            Performative::Open(Open {
                container_id: state.options.host.clone(),
                hostname: None,
                max_frame_size: MaxFrameSize(u32::try_from(FRAME_MAX).expect("it fits")),
                channel_max: ChannelMax(8191),
                idle_time_out: Some(IDLE_MILLIS),
                outgoing_locales: None,
                incoming_locales: None,
                offered_capabilities: None,
                desired_capabilities: None,
                properties: None,
            }),
        ));
        Ok(())
    }

    fn on_begin(&mut self, channel: u16, begin: &Begin) -> Result<(), &'static str> {
        if self.sessions.contains_key(&channel) {
            return Err("a second Begin");
        } else if self.sessions.len() >= SESSIONS_MAX {
            return Err("too many sessions");
        }
        let session = Session::new(channel, begin.next_outgoing_id, begin.incoming_window);
        self.out.push(session.frame(Performative::Begin(Begin {
            remote_channel: Some(channel),
            next_outgoing_id: 0,
            incoming_window: WINDOW,
            outgoing_window: WINDOW,
            handle_max: Handle(HANDLE_MAX),
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        })));
        self.sessions.insert(channel, session);
        Ok(())
    }

    fn on_attach(&mut self, state: &mut State, channel: u16, attach: Attach, now: Now) -> Result<(), &'static str> {
        let hub_sends = attach.role == Role::Receiver;
        let address = match (hub_sends, &attach.source, attach.target.as_deref()) {
            (true, Some(source), _) => source.address.clone(),
            (false, _, Some(TargetArchetype::Target(target))) => target.address.clone(),
            _ => None,
        };
        let address = address.unwrap_or_default();
        let handle = attach.handle.0;
        let purpose = Purpose::of(&address, hub_sends);
        let place = events::start(attach.source.as_ref().and_then(|source| source.filter.as_ref()), &state.telemetry);
        let verdict = self.permit(state, purpose, &attach.name, now).and_then(|purpose| match (&purpose, place) {
            (Purpose::EventStream(_), None) => Err(error("com.microsoft:argument-error", "the filter can't be read")),
            _ => Ok(purpose),
        });
        let number = self.last_link + 1;
        self.last_link = number;
        let session = self.session(channel)?;
        if session.links.contains_key(&handle) {
            return Err("a handle in use");
        }
        let refused = verdict.as_ref().is_err_and(|error| error.condition == not_found().condition);
        let answer = answer_attach(attach, hub_sends, refused);
        let mut frames = vec![session.frame(Performative::Attach(answer))];
        match verdict {
            Err(error) => {
                frames.push(session.detach(handle, Some(error)));
                self.out.extend(frames);
            }
            Ok(purpose) => {
                let link = Link::new(number, address.clone(), purpose.clone(), place.unwrap_or(0));
                session.links.insert(handle, link);
                if !hub_sends {
                    frames.push(session.flow(Some(handle)));
                }
                self.out.extend(frames);
                let who = self.who(purpose.device().unwrap_or_default());
                match purpose {
                    Purpose::Devicebound(device) => {
                        state.attach_receiver(&who, number, now);
                        self.receivers.insert(device, (channel, handle));
                        self.due.insert((channel, handle));
                    }
                    Purpose::Methods(device) => {
                        state.attach_methods(&who, number);
                        self.callers.insert(device, (channel, handle));
                        self.due.insert((channel, handle));
                    }
                    Purpose::Feedback | Purpose::EventStream(_) => {
                        state.sides.entry(self.number).or_default().listens = true;
                        self.others.insert((channel, handle));
                    }
                    Purpose::TokenAnswers | Purpose::Facts => drop(self.others.insert((channel, handle))),
                    _ => {}
                }
                state.log(&who, Wire::Attached { address });
            }
        }
        Ok(())
    }

    fn permit(&mut self, state: &State, purpose: Option<Purpose>, name: &str, now: Now) -> Result<Purpose, Error> {
        let purpose = purpose.ok_or_else(not_found)?;
        let may = match purpose.device() {
            Some(id) => state.may_be(self.number, id, &self.thumbprints, now),
            None => purpose.right().is_none_or(|right| state.may(right, self.number, now)),
        };
        match may {
            true if purpose.device().is_some() && !self.names.insert(name.to_owned()) => {
                Err(error("amqp:not-allowed", "the name of a link that was here before, which is not resumed"))
            }
            true => Ok(purpose),
            false => Err(error(UNAUTHORIZED, "ErrorCode:IotHubUnauthorizedAccess;Unauthorized")),
        }
    }

    fn on_flow(&mut self, channel: u16, flow: &Flow) -> Result<(), &'static str> {
        let session = self.session(channel)?;
        let was_full = session.room == 0;
        let answer = session.on_flow(flow);
        self.out.extend(answer);
        self.due.extend(flow.handle.iter().map(|handle| (channel, handle.0)));
        if was_full {
            self.due.extend(self.receivers.values().filter(|(of, _)| *of == channel));
        }
        Ok(())
    }

    fn on_transfer(
        &mut self,
        state: &mut State,
        channel: u16,
        transfer: &Transfer,
        payload: &bytes::Bytes,
        now: Now,
    ) -> Result<(), &'static str> {
        let session = self.session(channel)?;
        let Some(Arrived { handle, id, bytes }) = session.on_transfer(transfer, payload)? else { return Ok(()) };
        let purpose = session.links.get(&handle).map(|link| link.purpose.clone());
        let purpose = purpose.expect("a message arrives on a link that is there");
        let outcome = match message::decode(&bytes) {
            Ok(received) => self.take(state, &purpose, &received, now),
            Err(why) => Some(rejected("amqp:decode-error", &why)),
        };
        // Where a fault ends the connection nothing is confirmed.
        let Some(outcome) = outcome else { return Ok(()) };
        let session = self.session(channel)?;
        let confirmed = id.map(|id| session.disposition(Role::Receiver, id, outcome));
        let credit = session.more_credit(handle);
        self.out.extend(confirmed.into_iter().chain(credit));
        Ok(())
    }

    /// Takes a message, and says what became of it.
    fn take(&mut self, state: &mut State, purpose: &Purpose, received: &Received, now: Now) -> Option<DeliveryState> {
        match purpose {
            Purpose::Tokens => {
                let token = String::from_utf8_lossy(&received.body);
                match state.show_token(self.number, &token, now) {
                    Shown::Answered(_) if self.answers.len() == ANSWERS_MAX => {
                        return Some(rejected("amqp:resource-limit-exceeded", "too many answers wait for credit"));
                    }
                    Shown::Answered(status) => self.answers.push_back(message::answer(&received.properties, status)),
                    Shown::Ignored => {}
                    Shown::Cut => {
                        self.ending = Some(Ending::After(End::Fault));
                        return None;
                    }
                }
            }
            Purpose::Events(device) => {
                let who = self.who(device);
                let fault = Fault::RejectTelemetry;
                if state.devices.get_mut(device).is_some_and(|device| device.take_fault(fault)) {
                    return Some(rejected("amqp:internal-error", "a fault"));
                }
                if !state.store(&who, 0, received.as_telemetry(), received.body.clone(), now) {
                    self.ending = Some(Ending::After(End::Fault));
                    return None;
                }
            }
            Purpose::MethodAnswers(device) => {
                let Some((status, request)) = message::method_answer(received, self.number) else {
                    return Some(rejected(
                        "com.microsoft:argument-error",
                        "ErrorCode:ArgumentInvalid;no IoThub-status",
                    ));
                };
                state.answer_call(&self.who(device), request, status, &received.body);
            }
            Purpose::Commands => {
                if let Err((condition, description)) = super::service::send(state, received, now) {
                    return Some(rejected(condition, &description));
                }
            }
            Purpose::Questions if self.facts.len() == ANSWERS_MAX => {
                return Some(rejected("amqp:resource-limit-exceeded", "too many answers wait for credit"));
            }
            Purpose::Questions => self.facts.push_back(events::described(state, received)),
            _ => {}
        }
        Some(DeliveryState::Accepted(Accepted {}))
    }

    fn on_disposition(&mut self, state: &mut State, channel: u16, disposition: &Disposition, now: Now) {
        let Some(session) = self.sessions.get_mut(&channel) else { return };
        if disposition.role != Role::Receiver {
            return;
        }
        let (first, last) = (disposition.first, disposition.last.unwrap_or(disposition.first));
        let ids: Vec<u32> = session.sent.range(first..=last.max(first)).map(|(id, _)| *id).collect();
        if let (true, Some(settlement)) = (ids.is_empty(), wanted(disposition.state.as_ref())) {
            // Whose it is nobody knows.
            state.log(&self.who(""), Wire::Settled { seq: None, settlement, effect: Effect::Unknown });
        }
        for id in ids {
            let Some(sent) = self.sessions.get_mut(&channel).and_then(|session| session.sent.remove(&id)) else {
                continue;
            };
            let (outcome, is_confirmed) = self.settle(state, sent, disposition.state.as_ref(), now);
            if is_confirmed && !disposition.settled {
                if let Some(session) = self.sessions.get(&channel) {
                    self.out.push(session.disposition(Role::Sender, id, outcome));
                }
            }
        }
    }

    /// Acts on a settlement: what the hub makes of it, and whether it says so.
    fn settle(
        &mut self,
        state: &mut State,
        sent: Sent,
        outcome: Option<&DeliveryState>,
        now: Now,
    ) -> (DeliveryState, bool) {
        let Some(settlement) = wanted(outcome) else { return (DeliveryState::Accepted(Accepted {}), false) };
        let echo = outcome.cloned().unwrap_or(DeliveryState::Accepted(Accepted {}));
        let lost = || rejected("com.microsoft:message-lock-lost", "ErrorCode:DeviceMessageLockLost");
        match sent {
            Sent::Answer => (echo, true),
            Sent::Feedback(number) => {
                let is_done = settlement == Settlement::Complete;
                let held = state.settle_feedback(self.number, number, is_done, now);
                (if held { echo } else { lost() }, true)
            }
            Sent::Message { device, token } => {
                let who = self.who(&device);
                let Some(held) = state.devices.get_mut(&device) else { return (lost(), true) };
                let cut = held.take_fault(Fault::LosePuback);
                if cut || held.take_fault(Fault::LoseSettlement) {
                    state.log(&who, Wire::Settled { seq: None, settlement, effect: Effect::Lost });
                    self.ending = cut.then_some(Ending::After(End::Fault));
                    return (echo, false);
                }
                let cut = held.take_fault(Fault::CutAfterSettlement);
                let cut = held.count_puback() || cut;
                let effect = state.dispose(&who, token, settlement, now);
                if cut {
                    self.ending = Some(Ending::After(End::Fault));
                }
                (if effect == Effect::from(settlement) { echo } else { lost() }, !cut)
            }
        }
    }

    fn on_detach(&mut self, state: &mut State, channel: u16, handle: u32) {
        let Some(session) = self.sessions.get_mut(&channel) else { return };
        // The answer to a detach of the hub's own finds no link any more.
        let Some(link) = session.links.remove(&handle) else { return };
        self.out.push(session.detach(handle, None));
        self.forget(state, &link, None);
    }

    fn on_end(&mut self, state: &mut State, channel: u16) {
        let Some(mut session) = self.sessions.remove(&channel) else { return };
        let end = crate::amqp::types::performatives::End { error: None };
        self.out.push(session.frame(Performative::End(end)));
        for link in std::mem::take(&mut session.links).into_values() {
            self.forget(state, &link, None);
        }
    }

    fn forget(&self, state: &mut State, link: &Link, condition: Option<String>) {
        let who = self.who(link.purpose.device().unwrap_or_default());
        match &link.purpose {
            Purpose::Devicebound(_) => state.detach_receiver(&who, link.number),
            Purpose::Methods(_) => state.detach_methods(&who, link.number),
            Purpose::Feedback => state.unlock_feedback(self.number),
            _ => {}
        }
        state.log(&who, Wire::Detached { address: link.address.clone(), condition });
    }

    /// What the hub does by itself: it detaches links, answers tokens, and sends what there is credit for.
    pub fn work(&mut self, state: &mut State, now: Now) -> Vec<Frame> {
        self.end_links(state, now);
        let woken = state.sides.get_mut(&self.number).map(|side| std::mem::take(&mut side.due)).unwrap_or_default();
        let mut places = std::mem::take(&mut self.due);
        places.extend(
            woken.iter().flat_map(|device| [&self.receivers, &self.callers].map(|of| of.get(device))).flatten(),
        );
        places.extend(&self.others);
        for (channel, handle) in places {
            let link = self.sessions.get(&channel).and_then(|session| session.links.get(&handle));
            let Some(link) = link.filter(|link| link.purpose.hub_sends()) else { continue };
            let (number, purpose) = (link.number, link.purpose.clone());
            while self.ending.is_none() && self.sessions.get(&channel).is_some_and(|s| s.may_send(handle)) {
                if !self.send_next(state, channel, handle, number, &purpose, now) {
                    break;
                }
            }
            let drained = self.sessions.get_mut(&channel).and_then(|session| session.drained(handle));
            self.out.extend(drained);
            if state.kick.is_some() && matches!(purpose, Purpose::Devicebound(_)) {
                self.ending = Some(Ending::After(End::Cut));
            }
        }
        std::mem::take(&mut self.out)
    }

    /// Detaches what was ordered, and whatever stood on a token that is over.
    fn end_links(&mut self, state: &mut State, now: Now) {
        let orders = state.sides.get_mut(&self.number).map(|side| std::mem::take(&mut side.orders));
        for order in orders.unwrap_or_default() {
            self.end_where(state, &order.condition, |link| match &order.which {
                Which::Link(number) => link.number == *number,
                Which::Address(address) => link.address == *address,
            });
        }
        let (devices, rights) = state.take_expired(self.number, now);
        self.end_where(state, UNAUTHORIZED, |link| {
            let is_over = |id: &str| devices.iter().any(|device| device == id);
            link.purpose.device().is_some_and(is_over)
                || link.purpose.right().is_some_and(|right| rights.contains(&right))
        });
    }

    fn end_where(&mut self, state: &mut State, condition: &str, is_meant: impl Fn(&Link) -> bool) {
        let description = match condition {
            UNAUTHORIZED => "ErrorCode:IotHubUnauthorizedAccess;Unauthorized",
            STOLEN => "ErrorCode:LinkCreationConflict;another link took the device's messages",
            _ => "ErrorCode:InternalError",
        };
        let mut over = Vec::new();
        for session in self.sessions.values_mut() {
            let handles = session.links.iter().filter(|(_, link)| is_meant(link)).map(|(handle, _)| *handle);
            for handle in handles.collect::<Vec<_>>() {
                over.extend(session.links.remove(&handle));
                self.out.push(session.detach(handle, Some(error(condition, description))));
            }
        }
        for link in over {
            self.forget(state, &link, Some(condition.to_owned()));
        }
    }

    /// Sends the next thing that is for a link, and says whether there was one.
    fn send_next(
        &mut self,
        state: &mut State,
        channel: u16,
        handle: u32,
        number: u64,
        purpose: &Purpose,
        now: Now,
    ) -> bool {
        let (tag, bytes, sent) = match purpose {
            Purpose::TokenAnswers => match self.answers.pop_front() {
                Some(bytes) => (number.to_be_bytes().to_vec(), bytes, Sent::Answer),
                None => return false,
            },
            Purpose::Facts => match self.facts.pop_front() {
                Some(bytes) => (number.to_be_bytes().to_vec(), bytes, Sent::Answer),
                None => return false,
            },
            Purpose::EventStream(partition) => match self.next_event(state, channel, handle, *partition) {
                Some((number, bytes)) => (number.to_be_bytes().to_vec(), bytes, Sent::Answer),
                None => return false,
            },
            Purpose::Feedback => match state.next_feedback(self.number, now) {
                Some(batch) => {
                    let bytes = message::feedback(&state.options.host, &batch);
                    (batch.number.to_be_bytes().to_vec(), bytes, Sent::Feedback(batch.number))
                }
                None => return false,
            },
            Purpose::Methods(id) => match state.next_amqp_call(&self.who(id), number, now) {
                Some((request, call)) => {
                    (number.to_be_bytes().to_vec(), message::method(self.number, request, &call), Sent::Answer)
                }
                None => return false,
            },
            Purpose::Devicebound(id) => match self.next_message(state, id, number, now) {
                Some(next) => next,
                None => return false,
            },
            _ => return false,
        };
        let frame_max = self.frame_max;
        let Ok(session) = self.session(channel) else { return false };
        let frames = session.send(handle, &tag, bytes, sent, frame_max);
        self.out.extend(frames);
        true
    }

    /// The next event of a partition; the reader's place is behind it then.
    fn next_event(&mut self, state: &State, channel: u16, handle: u32, partition: usize) -> Option<(u64, Vec<u8>)> {
        let link = self.sessions.get_mut(&channel)?.links.get_mut(&handle)?;
        let (number, event) = state.next_event(partition, link.place)?;
        link.place = number + 1;
        Some((number, events::message(number, event)))
    }

    fn next_message(&mut self, state: &mut State, id: &str, link: u64, now: Now) -> Option<(Vec<u8>, Vec<u8>, Sent)> {
        let who = self.who(id);
        if !state.is_receiver(&who, link) {
            return None;
        }
        let device = state.devices.get_mut(id).filter(|device| device.queue.has_free(now.mono))?;
        if device.take_fault(Fault::CutBeforePublish) {
            self.ending = Some(Ending::After(End::Fault));
            return None;
        }
        if device.take_fault(Fault::CutInFrame) {
            self.ending = Some(Ending::InFrame);
        } else if device.take_fault(Fault::CutAfterPublish) {
            self.ending = Some(Ending::After(End::Fault));
        }
        let (queued, token) = state.lock_next(&who, now)?;
        let bytes = message::delivery(id, &queued, token, &state.options);
        Some((token.0.to_vec(), bytes, Sent::Message { device: id.to_owned(), token }))
    }
}

/// What a receiver wants. Without an outcome nothing is settled; the lock will run out.
fn wanted(outcome: Option<&DeliveryState>) -> Option<Settlement> {
    match outcome? {
        DeliveryState::Accepted(_) => Some(Settlement::Complete),
        DeliveryState::Rejected(_) => Some(Settlement::Reject),
        DeliveryState::Received(_) => None,
        _ => Some(Settlement::Abandon),
    }
}

fn rejected(condition: &str, description: &str) -> DeliveryState {
    DeliveryState::Rejected(Rejected { error: Some(error(condition, description)) })
}
