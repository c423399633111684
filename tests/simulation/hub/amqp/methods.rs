//! Direct methods over AMQP: a pair of links for each device, one that calls go out on and one that answers come on.
//! Either may end at any time, and with it what goes over the pair.

use std::collections::BTreeSet;

use fieldbridge::amqp::message::text;
use fieldbridge::amqp::types::definitions::Role;
use fieldbridge::amqp::types::performatives::{Attach, Performative, Transfer};
use tokio::time::Instant;

use super::super::super::amqp;
use super::super::super::scenario::Message;
use super::super::calls::{self, Answer};
use super::{address, Hub, Key, Kind, Link, Serving};

/// Which pair a link says that it is of.
pub(super) fn pair(attach: &Attach) -> Option<String> {
    attach.properties.as_ref()?.get("com.microsoft:channel-correlation-id").and_then(text)
}

/// The links that answers go out on, by what the gateway has written.
#[derive(Default)]
pub(super) struct Answers(BTreeSet<Key>);

impl Answers {
    /// Looks at each answer when the gateway writes it: what it stands on must be durable by then (G1).
    pub(super) fn look(&mut self, hub: &Hub, channel: u16, said: &Performative, payload: &[u8]) {
        match said {
            Performative::Attach(attach) => {
                let key = (channel, attach.handle.0);
                match attach.role == Role::Sender && address(attach).ends_with("/methods/devicebound") {
                    true => drop(self.0.insert(key)),
                    false => drop(self.0.remove(&key)),
                }
            }
            Performative::Transfer(transfer) if self.0.contains(&(channel, transfer.handle.0)) => match read(payload) {
                Some((request, answer)) => hub.expect_answered(request, &answer),
                None => hub.world.violate("an answer by AMQP that none can read".into()),
            },
            _ => {}
        }
    }
}

fn read(payload: &[u8]) -> Option<(u64, Answer)> {
    let (request, status, body) = amqp::answer_to_a_call(payload)?;
    Some((request, Answer { status, body }))
}

impl Serving {
    /// The number of a link that is attached: that of the other one of its pair, or a new one.
    pub(super) fn number_of(&self, pair: Option<&str>) -> u64 {
        let other = self.links.values().find(|link| pair.is_some() && link.pair.as_deref() == pair);
        other.map_or_else(|| self.hub.number(), |link| link.number)
    }

    /// Whoever attached last has a device's calls.
    pub(super) fn leave_calls_to_others(&mut self) {
        for key in self.keys_of(|kind| matches!(kind, Kind::Calls(_))) {
            let Some(Link { kind: Kind::Calls(device), number, .. }) = self.links.get(&key) else { continue };
            if !self.hub.is_called_over(device, *number) {
                self.detach(key, "amqp:link:stolen");
            }
        }
    }

    /// A session has ended, and with it its links.
    pub(super) fn end_calls(&self, channel: u16) {
        for ((_, _), link) in self.links.iter().filter(|((of, _), _)| *of == channel) {
            if let Kind::Calls(device) = &link.kind {
                self.hub.listens_no_more(device, link.number);
            }
        }
    }

    /// The next call, and when and where it is to be made.
    pub(super) fn next_call(&self) -> Option<(Instant, Key, u64, Message)> {
        let open = self.links.iter().filter(|(_, link)| matches!(link.kind, Kind::Calls(_)) && !link.is_over);
        let next = open.filter(|(_, link)| link.credit > 0).filter_map(|(key, link)| {
            let (request, message) = self.hub.next_call(link.number)?;
            Some((link.quiet_until, *key, request, message))
        });
        next.min_by_key(|(at, ..)| *at)
    }

    pub(super) fn call(&mut self, key: Key, request: u64, message: &Message) {
        let world = self.hub.world.clone();
        self.hub.call_is_sent(request);
        world.count("amqp: calls for a method");
        let id = self.next_id(key.0);
        // It is asked to settle them, and need not.
        let is_settled = !world.chance(200);
        if !is_settled {
            self.given().entry(key.0).or_default().push_back((id, None));
        }
        let Some(link) = self.links.get_mut(&key) else { return };
        (link.credit, link.count) = (link.credit - 1, link.count.wrapping_add(1));
        let payload = amqp::call(request, message.asks.command(), calls::payload(message).as_bytes());
        let frames = if world.chance(150) { 2 } else { 1 };
        let place = (key.0 + self.shift, self.ours(key.1));
        let (before, last) = amqp::pieces(place, (id, is_settled), &payload, frames);
        if !before.is_empty() {
            self.wire.send(&before);
        }
        self.wire.send_and_tell(&last, self.hub.on_called(message.value, self.wire.life));
    }

    pub(super) fn on_answer(&self, key: Key, transfer: &Transfer, message: &[u8]) {
        if transfer.settled != Some(true) {
            self.hub.world.violate(format!("#{}: an answer that is to be settled by the hub", self.number));
        }
        let Some((link, (request, answer))) = self.links.get(&key).zip(read(message)) else { return };
        self.hub.is_answered(link.number, request, answer);
    }
}
