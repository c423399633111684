//! The rules of MQTT: what the hub answers to each packet. No I/O; the time is an argument.
//!
//! - Whatever the hub does not like ends the connection, never in an error packet: MQTT 3.1.1 has none.
//! - A connection acts only while it is its device's link. One that was kicked or cut finds nothing to do and ends.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rumqttc::{Connect, Packet, PubAck, Publish, QoS, SubAck, Subscribe, SubscribeReasonCode, UnsubAck, Unsubscribe};

use super::auth::{self, Proof};
use super::device::{Delivery, Line, Link};
use super::message::Status;
use super::options::{Fault, Kick, Late, OutOfOrder};
use super::state::{Now, State, Who, D2C_BYTES_MAX};
use super::topic::{answered_method, c2d_filter, c2d_topic, d2c_properties, desired_topic, method_topic};
use super::wire::{Effect, End, Wire};
use super::Cut;
use crate::time::Timestamp;

/// Most subscriptions of a device.
const SUBSCRIPTIONS_MAX: usize = 5;

/// What a connection's task has to do.
#[derive(Debug)]
pub(super) enum Step {
    Write(Bytes),
    Close,
}

impl State {
    /// Decides on a CONNECT: the connection's line and the CONNACK, or the refusing CONNACK.
    pub fn connect(
        &mut self,
        who: &Who,
        connect: &Connect,
        thumbprints: &[String],
        now: Now,
    ) -> Result<(Arc<Line>, Bytes), Option<Bytes>> {
        let id = &who.device;
        let token_expires = self.admit_connect(id, connect, thumbprints, now).map_err(|(code, reason)| {
            self.log(who, Wire::Refused { code, reason });
            Some(Bytes::copy_from_slice(&[0x20, 2, 0, code]))
        })?;
        let device = self.devices.get_mut(id).expect("admitted devices exist");
        if device.take_fault(Fault::CutBeforeConnack) {
            self.log(who, Wire::Closed { end: End::Fault });
            return Err(None);
        }
        self.end(id, End::Kicked, Cut::Fin, now);
        let device = self.devices.get_mut(id).expect("admitted devices exist");
        let link = Link::new(who.connection, connect.clean_session, token_expires);
        let line = link.line.clone();
        let (session_present, discarded) = device.attach(link);
        self.discard(id, discarded, now.wall);
        self.log(who, Wire::Connected { clean_session: connect.clean_session, session_present });
        let connack = Bytes::copy_from_slice(&[0x20, 2, u8::from(session_present), 0]);
        Ok((line, connack))
    }

    fn admit_connect(
        &mut self,
        id: &str,
        connect: &Connect,
        thumbprints: &[String],
        now: Now,
    ) -> Result<Option<Timestamp>, (u8, String)> {
        if let Some((until, code)) = self.refusal {
            if now.mono < until {
                return Err((code, "everything is refused for a while".into()));
            }
        }
        let (user_name, password) = match &connect.login {
            Some(login) => (login.username.as_str(), login.password.as_str()),
            None => ("", ""),
        };
        let refused = |reason| (5, reason);
        if self.devices.get_mut(id).is_some_and(|device| device.take_fault(Fault::RefuseToken)) {
            return Err(refused("a fault".to_owned()));
        }
        auth::check_user_name(user_name, id, &self.options.host).map_err(refused)?;
        self.admit(id, &Proof { token: password, thumbprints }, now).map_err(refused)
    }

    /// The next thing that a connection has to do unasked.
    pub fn next_step(&mut self, who: &Who, now: Now) -> Option<Step> {
        let (options, kick) = (self.options.clone(), self.kick);
        let Some(device) = self.own_device(who) else { return Some(Step::Close) };
        let link = device.link.as_mut().expect("own_device has a link");
        if kick == Some(Kick::AfterConnack) || (kick == Some(Kick::AfterSuback) && link.has_subscribed) {
            self.end_own(who, End::Cut, now);
            return Some(Step::Close);
        }
        if let Some(bytes) = link.injected.pop_front() {
            return Some(Step::Write(bytes.into()));
        }
        if let Some((version, patch)) = link.desired.pop_front() {
            let topic = desired_topic(version);
            return Some(Step::Write(publish_bytes(topic.as_bytes(), None, false, patch.as_bytes())));
        }
        if link.hears_methods && self.has_call(&who.device) {
            let (request, call) = self.next_call(who, now)?;
            let topic = method_topic(&call.name, request);
            return Some(Step::Write(publish_bytes(topic.as_bytes(), None, false, &call.body())));
        }
        let device = self.own_device(who)?;
        if !device.has_deliverable(now.mono, &options) {
            return None;
        }
        if device.take_fault(Fault::CutBeforePublish) {
            self.end_own(who, End::Fault, now);
            return Some(Step::Close);
        }
        let Delivery { seq, pkid, dup } = device.deliver(now.mono, &options)?;
        let queued = device.queue.get(seq).expect("a delivery is of a queued message");
        let topic = c2d_topic(&who.device, &queued.message, queued.expires, &options.bag);
        let message_id = queued.message.message_id.clone();
        let mut bytes = publish_bytes(&topic, pkid, dup, &queued.message.body);
        let half = device.take_fault(Fault::CutInFrame);
        if half {
            bytes.truncate(bytes.len() / 2);
        }
        let cut = half || device.take_fault(Fault::CutAfterPublish);
        // With QoS 0 the hub completes on sending.
        let done = if pkid.is_none() { device.queue.take(seq) } else { None };
        let pkid = pkid.unwrap_or(0);
        self.log(who, Wire::Publish { pkid, seq, message_id, dup });
        if let Some(queued) = done {
            self.settle(&who.device, queued, Status::Success, now.wall);
        }
        if cut {
            self.end_own(who, End::Fault, now);
        }
        Some(Step::Write(bytes))
    }

    /// What the hub answers to a packet.
    pub fn received(&mut self, who: &Who, packet: Packet, now: Now) -> Option<Step> {
        if self.own_device(who).is_none() {
            return Some(Step::Close);
        }
        match packet {
            Packet::Publish(publish) => self.on_publish(who, publish, now),
            Packet::PubAck(puback) => self.on_puback(who, puback.pkid, now),
            Packet::Subscribe(subscribe) => self.on_subscribe(who, subscribe, now),
            Packet::Unsubscribe(unsubscribe) => Some(self.on_unsubscribe(who, unsubscribe, now)),
            Packet::PingReq => {
                self.log(who, Wire::Ping);
                Some(write(Packet::PingResp))
            }
            Packet::Disconnect => {
                self.end_own(who, End::Disconnect, now);
                Some(Step::Close)
            }
            _ => self.violation(who, "an unexpected packet", now),
        }
    }

    pub fn violation(&mut self, who: &Who, what: &'static str, now: Now) -> Option<Step> {
        self.end_own(who, End::Violation(what), now);
        Some(Step::Close)
    }

    fn on_subscribe(&mut self, who: &Who, subscribe: Subscribe, now: Now) -> Option<Step> {
        let own = c2d_filter(&who.device);
        let device = self.own_device(who)?;
        let (mut granted, mut discarded) = (Vec::new(), Vec::new());
        for filter in &subscribe.filters {
            if filter.path != own && !filter.path.starts_with("$iothub/") {
                return self.violation(who, "a subscription to a foreign topic", now);
            }
            // QoS 2 is granted as 1.
            let qos = match filter.qos {
                QoS::AtMostOnce => QoS::AtMostOnce,
                _ => QoS::AtLeastOnce,
            };
            discarded.append(&mut device.subscribe(&filter.path, qos));
            device.link.iter_mut().for_each(|link| link.has_subscribed = true);
            granted.push((filter.path.clone(), qos));
        }
        if device.filters.len() > SUBSCRIPTIONS_MAX {
            device.filters.retain(|filter, _| !granted.iter().any(|(new, _)| new == filter));
            return self.violation(who, "a sixth subscription", now);
        }
        self.discard(&who.device, discarded, now.wall);
        for (filter, qos) in &granted {
            self.log(who, Wire::Subscribed { filter: filter.clone(), qos: *qos as u8 });
        }
        let codes = granted.into_iter().map(|(_, qos)| SubscribeReasonCode::Success(qos));
        Some(write(Packet::SubAck(SubAck::new(subscribe.pkid, codes.collect()))))
    }

    fn on_unsubscribe(&mut self, who: &Who, unsubscribe: Unsubscribe, now: Now) -> Step {
        for filter in unsubscribe.topics {
            let discarded = self.own_device(who).map(|device| device.unsubscribe(&filter));
            self.discard(&who.device, discarded.unwrap_or_default(), now.wall);
            self.log(who, Wire::Unsubscribed { filter });
        }
        write(Packet::UnsubAck(UnsubAck::new(unsubscribe.pkid)))
    }

    fn on_puback(&mut self, who: &Who, pkid: u16, now: Now) -> Option<Step> {
        let options = self.options.clone();
        let device = self.own_device(who)?;
        if device.take_fault(Fault::LosePuback) {
            self.log(who, Wire::Puback { pkid, seq: None, effect: Effect::Lost });
            self.end_own(who, End::Fault, now);
            return Some(Step::Close);
        }
        let (effect, seq) = device.puback(pkid, now.mono, &options);
        let done = match (effect, seq) {
            (Effect::Completed, Some(seq)) => device.queue.take(seq),
            _ => None,
        };
        let cut = device.count_puback();
        self.log(who, Wire::Puback { pkid, seq, effect });
        if let Some(queued) = done {
            self.settle(&who.device, queued, Status::Success, now.wall);
        }
        if effect == Effect::OutOfOrder && options.out_of_order == OutOfOrder::Close {
            return self.violation(who, "a PUBACK out of order", now);
        } else if effect == Effect::Late && options.late == Late::Close {
            return self.violation(who, "a PUBACK for a lost lock", now);
        } else if cut {
            self.end_own(who, End::Fault, now);
            return Some(Step::Close);
        }
        None
    }

    fn on_publish(&mut self, who: &Who, publish: Publish, now: Now) -> Option<Step> {
        if publish.qos == QoS::ExactlyOnce {
            return self.violation(who, "a QoS 2 publish", now);
        } else if publish.size() > D2C_BYTES_MAX {
            return self.violation(who, "more than 256 KiB", now);
        } else if publish.topic.starts_with("$iothub/methods/") {
            return self.on_method_answer(who, &publish, now);
        } else if publish.topic.starts_with("$iothub/") {
            return self.on_twin_publish(who, &publish, now);
        }
        let Some(mut properties) = d2c_properties(&who.device, &publish.topic) else {
            return self.violation(who, "a publish to a foreign topic", now);
        };
        if publish.retain {
            properties.push(("mqtt-retain".into(), Some("true".into())));
        }
        if !self.store(who, publish.pkid, properties, publish.payload.to_vec(), now) {
            self.end_own(who, End::Fault, now);
            return Some(Step::Close);
        }
        (publish.pkid != 0).then(|| write(Packet::PubAck(PubAck::new(publish.pkid))))
    }

    fn on_twin_publish(&mut self, who: &Who, publish: &Publish, now: Now) -> Option<Step> {
        let Ok(answer) = self.on_twin_request(who, &publish.topic, &publish.payload, now) else {
            return self.violation(who, "a publish to a topic of the hub's that is no request", now);
        };
        let puback = (publish.pkid != 0).then(|| encode(&Packet::PubAck(PubAck::new(publish.pkid))));
        match (puback, answer) {
            (Some(puback), Some(Step::Write(answer))) => Some(Step::Write([puback, answer].concat().into())),
            (puback, answer) => puback.map(Step::Write).or(answer),
        }
    }

    fn on_method_answer(&mut self, who: &Who, publish: &Publish, now: Now) -> Option<Step> {
        let Some((status, request)) = answered_method(&publish.topic) else {
            return self.violation(who, "a publish to a topic of methods that is no answer", now);
        };
        self.answer_call(who, request, status, &publish.payload);
        (publish.pkid != 0).then(|| write(Packet::PubAck(PubAck::new(publish.pkid))))
    }
}

fn write(packet: Packet) -> Step {
    Step::Write(encode(&packet))
}

pub(super) fn encode(packet: &Packet) -> Bytes {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, usize::MAX).expect("the hub's own packets are well formed");
    bytes.freeze()
}

/// A PUBLISH, written by hand: rumqttc's type has text for a topic, and tests need other bytes too.
pub(super) fn publish_bytes(topic: &[u8], pkid: Option<u16>, dup: bool, body: &[u8]) -> Bytes {
    let topic_len = u16::try_from(topic.len()).expect("send refuses longer topics");
    let mut left = 2 + topic.len() + pkid.map_or(0, |_| 2) + body.len();
    let mut bytes = vec![0x30 | u8::from(dup) << 3 | u8::from(pkid.is_some()) << 1];
    while left > 127 {
        bytes.push((left & 127) as u8 | 128);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes.extend_from_slice(&topic_len.to_be_bytes());
    bytes.extend_from_slice(topic);
    bytes.extend(pkid.into_iter().flat_map(u16::to_be_bytes));
    bytes.extend_from_slice(body);
    bytes.into()
}
