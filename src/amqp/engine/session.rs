//! A session of a connection: its links, and how much may be on the wire.

use bytes::Bytes;
use fe2o3_amqp_types::definitions::{self, Role};
use fe2o3_amqp_types::performatives::{Attach, Begin, Detach, Disposition, End, Flow, Performative, Transfer};

use super::counters::{Counters, WINDOW};
use super::link::Link;
use super::{wrong, Attaching, Event, LinkId, Out, Problem, SessionId, Settle, Wrong};

/// Most links of a session.
const LINKS_MAX: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The peer has not answered. What is wanted waits.
    Beginning,
    Begun,
    /// We have ended it, and the peer has not answered.
    Ending,
}

/// One session.
pub(super) struct Session {
    id: SessionId,
    state: State,
    /// It is to be ended as soon as it has begun.
    end_wanted: bool,
    counters: Counters,
    links: Vec<Link>,
}

impl Session {
    pub(super) fn begin(id: SessionId, out: &mut Out) -> Session {
        let begin = Begin {
            remote_channel: None,
            next_outgoing_id: 0,
            incoming_window: WINDOW,
            outgoing_window: WINDOW,
            handle_max: (LINKS_MAX as u32 - 1).into(),
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        };
        out.say(id.0, Performative::Begin(begin));
        Session { id, state: State::Beginning, end_wanted: false, counters: Counters::new(), links: Vec::new() }
    }

    /// Whether the peer may answer.
    pub(super) fn may_begin(&self) -> bool {
        self.state == State::Beginning
    }

    pub(super) fn on_begin(&mut self, begin: &Begin, out: &mut Out) {
        self.state = State::Begun;
        self.counters.on_begin(begin);
        if self.end_wanted {
            return self.end(out);
        }
        for link in self.links.iter_mut().filter(|link| !link.is_gone()) {
            link.attach(self.id, out);
        }
    }

    /// The peer has ended it.
    pub(super) fn on_end(self, error: Option<&definitions::Error>, out: &mut Out) {
        if self.state != State::Ending {
            out.say(self.id.0, Performative::End(End { error: None }));
        }
        out.events.push_back(Event::Ended(self.id, error.map(Problem::of)));
    }

    pub(super) fn end(&mut self, out: &mut Out) {
        match self.state {
            State::Beginning => self.end_wanted = true,
            State::Begun => {
                for link in &mut self.links {
                    link.detach(self.id, out);
                }
                out.say(self.id.0, Performative::End(End { error: None }));
                self.state = State::Ending;
            }
            State::Ending => {}
        }
    }

    pub(super) fn detach(&mut self, handle: u32, out: &mut Out) -> bool {
        let link = self.links.get_mut(handle as usize).filter(|_| self.state != State::Ending);
        link.is_some_and(|link| link.detach(self.id, out))
    }

    pub(super) fn attach(&mut self, attaching: Attaching, out: &mut Out) -> Option<LinkId> {
        if self.end_wanted || self.state == State::Ending {
            return None;
        }
        // The place of one that both sides have ended is free again (OASIS AMQP 1.0, 2.6.2).
        let place = self.links.iter().position(Link::is_gone).unwrap_or(self.links.len());
        if place >= LINKS_MAX {
            return None;
        }
        let handle = place as u32;
        let mut link = Link::new(handle, attaching);
        if self.state == State::Begun {
            link.attach(self.id, out);
        }
        match self.links.get_mut(place) {
            Some(gone) => *gone = link,
            None => self.links.push(link),
        }
        Some(LinkId { session: self.id, handle })
    }

    pub(super) fn send(&mut self, handle: u32, number: u64, payload: Bytes, out: &mut Out) -> bool {
        let Some(link) = self.links.get_mut(handle as usize) else { return false };
        let is_taken = link.queue(number, payload);
        self.go_on(out);
        is_taken
    }

    pub(super) fn settle(&mut self, handle: u32, delivery: u32, how: Settle, out: &mut Out) {
        if let Some(link) = self.links.get_mut(handle as usize).filter(|_| self.state == State::Begun) {
            link.settle(self.id, delivery, how, &mut self.counters, out);
        }
    }

    pub(super) fn pause(&mut self, handle: u32, out: &mut Out) {
        if let Some(link) = self.links.get_mut(handle as usize).filter(|_| self.state != State::Ending) {
            link.pause(self.id, &mut self.counters, out);
        }
    }

    pub(super) fn resume(&mut self, handle: u32, out: &mut Out) {
        if let Some(link) = self.links.get_mut(handle as usize).filter(|_| self.state == State::Begun) {
            link.resume(self.id, &mut self.counters, out);
        }
    }

    /// Sends of what waits as much as may be.
    pub(super) fn go_on(&mut self, out: &mut Out) {
        if self.state != State::Begun {
            return;
        }
        for link in &mut self.links {
            link.go_on(self.id, &mut self.counters, out);
        }
    }

    /// Takes what came on the session.
    pub(super) fn take(&mut self, performative: Performative, payload: Bytes, out: &mut Out) -> Result<(), Wrong> {
        // What was on its way when we ended it changes nothing any more; but what it brings may stay locked.
        if self.state == State::Ending {
            if let Performative::Transfer(transfer) = performative {
                self.on_late_transfer(&transfer, payload, out);
            }
            return Ok(());
        }
        match performative {
            Performative::Attach(attach) => self.on_attach(&attach, out),
            Performative::Flow(flow) => self.on_flow(&flow, out),
            Performative::Transfer(transfer) => self.on_transfer(&transfer, payload, out),
            Performative::Disposition(disposition) => {
                self.on_disposition(&disposition, out);
                Ok(())
            }
            Performative::Detach(detach) => self.on_detach(&detach, out),
            _ => wrong("a frame that is not of a session"),
        }
    }

    fn on_attach(&mut self, attach: &Attach, out: &mut Out) -> Result<(), Wrong> {
        let Some(link) = self.links.iter_mut().find(|link| link.may_be_attached(attach)) else {
            return wrong("an Attach of no link of ours");
        };
        link.on_attach(self.id, attach, &mut self.counters, out);
        Ok(())
    }

    fn on_flow(&mut self, flow: &Flow, out: &mut Out) -> Result<(), Wrong> {
        self.counters.on_flow(flow);
        if let Some(handle) = &flow.handle {
            let Some(link) = self.links.iter_mut().find(|link| link.is_peers(handle.0)) else {
                return wrong("a Flow of no link");
            };
            link.on_flow(flow);
        }
        self.go_on(out);
        if let Some(handle) = &flow.handle {
            let link = self.links.iter_mut().find(|link| link.is_peers(handle.0));
            link.expect("it was there just now").answer_flow(self.id, flow, &mut self.counters, out);
        } else if flow.echo {
            let flow = self.counters.flow();
            out.say(self.id.0, Performative::Flow(flow));
        }
        Ok(())
    }

    fn on_transfer(&mut self, transfer: &Transfer, payload: Bytes, out: &mut Out) -> Result<(), Wrong> {
        if self.counters.on_transfer().is_none() {
            return wrong("more transfers than a session takes");
        }
        if self.counters.is_to_be_told() {
            let flow = self.counters.flow();
            out.say(self.id.0, Performative::Flow(flow));
        }
        let Some(link) = self.links.iter_mut().find(|link| link.is_peers(transfer.handle.0)) else {
            return wrong("a Transfer of no link");
        };
        link.on_transfer(self.id, transfer, payload, &mut self.counters, out)
    }

    /// Takes what was on its way when the session or the connection was ended: no more than was asked for, and nothing
    /// is said of it.
    pub(super) fn on_late_transfer(&mut self, transfer: &Transfer, payload: Bytes, out: &mut Out) {
        let link = self.links.iter_mut().find(|link| link.is_peers(transfer.handle.0));
        if let (Some(link), Some(())) = (link, self.counters.on_transfer()) {
            link.on_late_transfer(self.id, transfer, payload, out);
        }
    }

    fn on_disposition(&mut self, disposition: &Disposition, out: &mut Out) {
        // What the sender of a delivery says of it changes nothing: we have its last word from us.
        if disposition.role == Role::Sender {
            return;
        }
        let last = disposition.last.unwrap_or(disposition.first);
        let span = last.wrapping_sub(disposition.first);
        let told = |id: u32| id.wrapping_sub(disposition.first) <= span;
        for link in &mut self.links {
            link.on_disposition(self.id, disposition, told, out);
        }
        self.go_on(out);
    }

    fn on_detach(&mut self, detach: &Detach, out: &mut Out) -> Result<(), Wrong> {
        let Some(link) = self.links.iter_mut().find(|link| link.is_peers(detach.handle.0)) else {
            return wrong("a Detach of no link");
        };
        link.on_detach(self.id, detach, out);
        Ok(())
    }
}
