//! What comes from the gateway by AMQP: tokens, events, and what became of messages.

use fieldbridge::amqp::types::definitions::Role;
use fieldbridge::amqp::types::messaging::{Accepted, DeliveryState, Rejected, Released};
use fieldbridge::amqp::types::performatives::Disposition;

use super::super::super::amqp;
use super::super::super::wire::End as WireEnd;
use super::super::Said;
use super::{Kind, Plan, Serving};

impl Serving {
    pub(super) fn on_token(&mut self, channel: u16, id: u32, message: &[u8]) {
        let amqp::PutToken { id: to, audience, token } = amqp::put_token(message);
        let parts: Vec<&str> = audience.split("%2F").collect();
        let [host, "devices", device] = parts[..] else { panic!("a token is of a device, and not of {audience}") };
        let refusals = self.hub.faults.refusals;
        let end = self.hub.judge_token(self.wire.life, device, &token);
        if self.strikes("amqp: says nothing to a token", refusals / 2) {
            return;
        }
        let is_refused = self.strikes("amqp: refuses a token", refusals);
        let is_busy = self.strikes("amqp: is too busy for a token", refusals / 2);
        let status = match end {
            _ if is_busy => 503,
            Some(end) if !is_refused => {
                self.tokens.insert(device.to_owned(), (host.to_owned(), end));
                self.plans.push((end, Plan::TokenEnds(device.to_owned())));
                200
            }
            _ => 401,
        };
        // The answer may come before the hub says that it has the request.
        let is_late = self.hub.world.chance(500);
        if !is_late {
            self.answer(channel, &to, status);
        }
        self.say(channel, amqp::told(id, DeliveryState::Accepted(Accepted {})));
        if is_late {
            self.plan(0, 2_000, Plan::Answer(channel, to, status));
        }
    }

    pub(super) fn answer(&mut self, channel: u16, to: &str, status: i32) {
        let link = self.links.iter_mut().find(|((of, _), link)| *of == channel && link.kind == Kind::Answers);
        let Some((&(_, handle), link)) = link.filter(|(_, link)| !link.is_over && link.credit > 0) else { return };
        (link.credit, link.count) = (link.credit - 1, link.count.wrapping_add(1));
        let id = self.next_id(channel);
        self.given().entry(channel).or_default().push_back((id, None));
        let message = amqp::answer(to, status);
        let (_, frame) = amqp::transfers(channel + self.shift, self.ours(handle), id, &message, 1);
        self.wire.send(&frame);
    }

    pub(super) fn on_event(&mut self, channel: u16, id: u32, device: &str, message: &[u8]) {
        let (lost, event) = (self.hub.faults.lost_acks, amqp::event(message));
        self.hub.comes(&event);
        if self.strikes("amqp: an event is lost on its way", lost / 2) {
            return self.wire.cut(WireEnd::Reset);
        }
        let state = match self.hub.world.pick(0..3) {
            0 if self.strikes("amqp: rejects an event", lost / 2) => {
                DeliveryState::Rejected(Rejected { error: Some(amqp::error("amqp:resource-limit-exceeded")) })
            }
            1 if self.strikes("amqp: gives an event back", lost / 2) => DeliveryState::Released(Released {}),
            _ => {
                self.hub.has_event(device, event);
                if self.strikes("amqp: what is said of an event is lost", lost / 2) {
                    return self.wire.cut(WireEnd::Reset);
                }
                if self.strikes("amqp: says nothing of an event", lost / 6) {
                    return;
                }
                DeliveryState::Accepted(Accepted {})
            }
        };
        self.say(channel, amqp::told(id, state));
    }

    pub(super) fn on_disposition(&mut self, channel: u16, disposition: &Disposition) {
        let Disposition { role, first, last, state, .. } = disposition;
        if *role == Role::Sender {
            return;
        }
        let said = match state {
            Some(DeliveryState::Accepted(_)) => Said::Complete,
            Some(DeliveryState::Rejected(_)) => Said::Reject,
            Some(DeliveryState::Released(_)) => Said::Abandon,
            other => return self.hub.world.violate(format!("#{}: a disposition of {other:?}", self.number)),
        };
        let span = last.unwrap_or(*first).wrapping_sub(*first);
        for id in (0..=span).map(|after| first.wrapping_add(after)) {
            self.on_settled(channel, id, said);
        }
    }

    fn on_settled(&mut self, channel: u16, id: u32, said: Said) {
        let number = self.number;
        let lock = {
            let mut given = self.given();
            let queue = given.entry(channel).or_default();
            let Some(at) = queue.iter().position(|(given, _)| *given == id) else {
                return self.hub.world.violate(format!("G6: #{number} settles {id}, which it does not have"));
            };
            // What is no message has no place in their order.
            let is_first = queue[at].1.is_none() || queue.iter().take(at).all(|(_, lock)| lock.is_none());
            if !is_first && said != Said::Abandon {
                self.hub.world.violate(format!("G5: #{number} settles {id} out of order"));
            }
            queue.remove(at).and_then(|(_, lock)| lock)
        };
        let Some(lock) = lock else { return };
        if self.strikes("amqp: a disposition is lost with its connection", self.hub.faults.lost_acks / 2) {
            return self.wire.cut(WireEnd::Reset);
        }
        if self.strikes("amqp: a disposition comes too late for its lock", self.hub.faults.lost_acks / 2) {
            return;
        }
        self.hub.settle(lock, said);
    }
}
