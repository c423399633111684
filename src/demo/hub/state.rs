//! The hub's rules: what it answers to each packet, and what it does by itself. No I/O; the time is an argument.
//!
//! - Whatever the hub does not like ends the connection, never in an error packet: MQTT 3.1.1 has none.
//! - A connection acts only while it is its device's link. One that was kicked or cut finds nothing to do and ends.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc::{Connect, Packet, PubAck, Publish, QoS, SubAck, Subscribe, SubscribeReasonCode, UnsubAck, Unsubscribe};
use tokio::time::Instant;

use super::auth::{self, Shown};
use super::device::{Delivery, Device, Line, Link, Queued};
use super::message::{C2d, D2c, Feedback, SendError, Seq, Status};
use super::topic::{c2d_filter, c2d_topic, d2c_properties};
use super::wire::{Effect, End, Ring, Wire, WireEvent};
use super::{Auth, Cut, Discarded, Fault, Kick, Late, Options, OutOfOrder};
use crate::time::Timestamp;

/// A C2D message's limit.
const C2D_BYTES_MAX: usize = 64 * 1024;
/// A D2C message's limit.
const D2C_BYTES_MAX: usize = 256 * 1024;
/// The longest life of a message.
const TTL_MAX: Duration = Duration::from_secs(48 * 3600);
/// Most subscriptions of a device.
const SUBSCRIPTIONS_MAX: usize = 5;
/// Records in a batch of feedback.
const FEEDBACK_BATCH: usize = 64;

/// The time, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub wall: Timestamp,
    pub mono: Instant,
}

impl Now {
    pub fn read() -> Self {
        Now { wall: Timestamp::now(), mono: Instant::now() }
    }
}

/// Which connection of which device.
#[derive(Debug, Clone)]
pub(super) struct Who {
    pub device: String,
    pub connection: u64,
}

/// What a connection's task has to do.
#[derive(Debug)]
pub(super) enum Step {
    Write(Bytes),
    Close,
}

#[derive(Debug)]
pub(super) struct State {
    pub options: Arc<Options>,
    pub devices: BTreeMap<String, Device>,
    pub wire: Ring<WireEvent>,
    pub telemetry: Ring<D2c>,
    pub feedback: Ring<Feedback>,
    feedback_waiting: Vec<Feedback>,
    feedback_at: Instant,
    /// Until when every CONNECT is refused, and with which code.
    pub refusal: Option<(Instant, u8)>,
    pub kick: Option<Kick>,
    pub connack_delay: Duration,
    /// Delay of CONNACK and PUBACK.
    pub throttle: Duration,
    pub stall_handshakes: bool,
    last_seq: Seq,
    last_connection: u64,
}

impl State {
    pub fn new(options: Options) -> Self {
        assert!((1..=50).contains(&options.window), "the window has 1 to 50 places");
        State {
            options: Arc::new(options),
            devices: BTreeMap::new(),
            wire: Ring::new(),
            telemetry: Ring::new(),
            feedback: Ring::new(),
            feedback_waiting: Vec::new(),
            feedback_at: Instant::now(),
            refusal: None,
            kick: None,
            connack_delay: Duration::ZERO,
            throttle: Duration::ZERO,
            stall_handshakes: false,
            last_seq: 0,
            last_connection: 0,
        }
    }

    pub fn next_connection(&mut self) -> u64 {
        self.last_connection += 1;
        self.last_connection
    }

    fn log(&mut self, who: &Who, what: Wire) {
        let Who { device, connection } = who.clone();
        self.wire.push(WireEvent { at: Instant::now(), connection, device, what });
    }

    fn settle(&mut self, device: &str, queued: Queued, status: Status, now: Timestamp) {
        if queued.message.ack.wants(status) {
            let device = device.to_owned();
            let original_message_id = queued.message.message_id;
            let record = Feedback { original_message_id, status, device, at: now };
            self.feedback_waiting.push(record);
        }
        self.release_feedback(Instant::now());
    }

    fn discard(&mut self, device: &str, queued: Vec<Queued>, now: Timestamp) {
        if self.options.discarded == Discarded::Rejected {
            queued.into_iter().for_each(|q| self.settle(device, q, Status::Rejected, now));
        }
    }

    fn release_feedback(&mut self, now: Instant) {
        let is_due = now.duration_since(self.feedback_at) >= self.options.feedback_interval;
        if self.feedback_waiting.len() >= FEEDBACK_BATCH || is_due {
            self.feedback_at = now;
            self.feedback_waiting.drain(..).for_each(|record| self.feedback.push(record));
        }
    }

    /// Takes a message for a device.
    pub fn send(&mut self, id: &str, message: C2d, now: Now) -> Result<Seq, SendError> {
        let ttl = message.ttl.unwrap_or(self.options.default_ttl);
        let expires = now.wall.plus(ttl);
        let device = self.devices.get_mut(id).ok_or(SendError::UnknownDevice)?;
        let topic = c2d_topic(id, &message, expires, &self.options.bag);
        if message.size() > C2D_BYTES_MAX {
            return Err(SendError::TooLarge(message.size()));
        } else if topic.len() > usize::from(u16::MAX) {
            return Err(SendError::TopicTooLong);
        } else if ttl > TTL_MAX {
            return Err(SendError::TtlTooLong);
        } else if device.queue.len() >= self.options.queue_limit {
            return Err(SendError::QueueFull);
        }
        self.last_seq += 1;
        device.enqueue(self.last_seq, message, expires);
        if device.is_subscribed() {
            self.wake(id);
        } else {
            let never = device.queue.drain(..).collect();
            self.discard(id, never, now.wall);
        }
        Ok(self.last_seq)
    }

    /// Empties a device's queue.
    pub fn purge(&mut self, id: &str, now: Now) -> usize {
        let Some(device) = self.devices.get_mut(id) else { return 0 };
        let purged: Vec<Queued> = device.queue.drain(..).collect();
        let count = purged.len();
        purged.into_iter().for_each(|q| self.settle(id, q, Status::Purged, now.wall));
        count
    }

    pub fn wake(&self, id: &str) {
        if let Some(link) = self.devices.get(id).and_then(|device| device.link.as_ref()) {
            link.line.wake.notify_one();
        }
    }

    /// What happens with time: messages and tokens expire, locks run out, feedback is sent.
    pub fn tick(&mut self, now: Now) {
        let ids: Vec<String> = self.devices.keys().cloned().collect();
        for id in ids {
            let device = self.devices.get_mut(&id).expect("devices are never removed");
            let expired = device.expire(now.wall);
            let token = device.link.as_ref().and_then(|link| link.token_expires);
            if token.is_some_and(|at| at.plus(self.options.token_grace) <= now.wall) {
                self.end(&id, End::TokenExpired, Cut::Fin, now);
            } else if device.has_deliverable(now.mono, &self.options) {
                self.wake(&id);
            }
            expired.into_iter().for_each(|q| self.settle(&id, q, Status::Expired, now.wall));
        }
        self.release_feedback(now.mono);
    }

    /// Ends a device's present connection, and says whether there was one.
    pub fn end(&mut self, id: &str, end: End, cut: Cut, now: Now) -> bool {
        let Some(device) = self.devices.get_mut(id) else { return false };
        let Some(link) = device.link.as_ref() else { return false };
        link.line.reset.store(cut == Cut::Reset, Ordering::Relaxed);
        link.line.cut.cancel();
        let who = Who { device: id.to_owned(), connection: link.connection };
        let discarded = device.detach(&self.options);
        self.log(&who, Wire::Closed { end });
        self.discard(id, discarded, now.wall);
        true
    }

    /// Ends one connection, if it is still the device's.
    pub fn end_own(&mut self, who: &Who, end: End, now: Now) {
        if self.own_device(who).is_some() {
            self.end(&who.device, end, Cut::Fin, now);
        }
    }

    fn own_device(&mut self, who: &Who) -> Option<&mut Device> {
        let device = self.devices.get_mut(&who.device)?;
        let is_own = device.link.as_ref().is_some_and(|link| link.connection == who.connection);
        is_own.then_some(device)
    }

    /// Decides on a CONNECT: the connection's line and the CONNACK, or the refusing CONNACK.
    pub fn connect(
        &mut self,
        who: &Who,
        connect: &Connect,
        thumbprints: &[String],
        now: Now,
    ) -> Result<(Arc<Line>, Bytes), Option<Bytes>> {
        let id = &who.device;
        let token_expires = self.admit(id, connect, thumbprints, now).map_err(|(code, reason)| {
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

    fn admit(
        &self,
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
        let device = self.devices.get(id).filter(|device| device.enabled);
        let device = device.ok_or((5, "no such device, or disabled".to_owned()))?;
        let (user_name, password) = match &connect.login {
            Some(login) => (login.username.as_str(), login.password.as_str()),
            None => ("", ""),
        };
        let shown = Shown { device: id, user_name, password, thumbprints };
        auth::check(&device.auth, &shown, &self.options, now.wall).map_err(|reason| (5, reason))
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
        if !device.has_deliverable(now.mono, &options) {
            return None;
        }
        if device.take_fault(Fault::CutBeforePublish) {
            self.end_own(who, End::Fault, now);
            return Some(Step::Close);
        }
        let Delivery { seq, pkid, dup } = device.deliver(now.mono, &options)?;
        let queued = device.queue.iter().find(|queued| queued.seq == seq);
        let queued = queued.expect("a delivery is of a queued message");
        let topic = c2d_topic(&who.device, &queued.message, queued.expires, &options.bag);
        let message_id = queued.message.message_id.clone();
        let bytes = publish_bytes(&topic, pkid, dup, &queued.message.body);
        let cut = device.take_fault(Fault::CutAfterPublish);
        // With QoS 0 the hub completes on sending.
        let done = if pkid.is_none() { device.take(seq) } else { None };
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
        let mut granted = Vec::new();
        for filter in &subscribe.filters {
            if filter.path != own && !filter.path.starts_with("$iothub/") {
                return self.violation(who, "a subscription to a foreign topic", now);
            }
            // QoS 2 is granted as 1.
            let qos = match filter.qos {
                QoS::AtMostOnce => QoS::AtMostOnce,
                _ => QoS::AtLeastOnce,
            };
            device.filters.insert(filter.path.clone(), qos);
            device.link.iter_mut().for_each(|link| link.has_subscribed = true);
            granted.push((filter.path.clone(), qos));
        }
        if device.filters.len() > SUBSCRIPTIONS_MAX {
            device.filters.retain(|filter, _| !granted.iter().any(|(new, _)| new == filter));
            return self.violation(who, "a sixth subscription", now);
        }
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
            (Effect::Completed, Some(seq)) => device.take(seq),
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
        } else if publish.topic.starts_with("$iothub/") {
            return Some(Step::Write(answer_twin(&publish)));
        }
        let Some(mut properties) = d2c_properties(&who.device, &publish.topic) else {
            return self.violation(who, "a publish to a foreign topic", now);
        };
        if publish.retain {
            properties.push(("mqtt-retain".into(), Some("true".into())));
        }
        let device = self.own_device(who)?;
        let lost = device.take_fault(Fault::CutBeforeTelemetry);
        let cut = lost || device.take_fault(Fault::CutAfterTelemetry);
        self.log(who, Wire::Telemetry { pkid: publish.pkid, stored: !lost });
        if !lost {
            let Who { device, connection } = who.clone();
            let body = publish.payload.to_vec();
            self.telemetry.push(D2c { device, connection, properties, body, at: now.wall });
        }
        if cut {
            self.end_own(who, End::Fault, now);
            return Some(Step::Close);
        }
        (publish.pkid != 0).then(|| write(Packet::PubAck(PubAck::new(publish.pkid))))
    }

    /// Adds a device, or changes how it proves who it is.
    pub fn add_device(&mut self, id: &str, auth: Auth) {
        match self.devices.get_mut(id) {
            Some(device) => device.auth = auth,
            None => drop(self.devices.insert(id.to_owned(), Device::new(id, auth))),
        }
    }
}

fn write(packet: Packet) -> Step {
    Step::Write(encode(&packet))
}

fn encode(packet: &Packet) -> Bytes {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, usize::MAX).expect("the hub's own packets are well formed");
    bytes.freeze()
}

/// PUBACK as needed, and an answer to requests for the device twin, on which the vendor's SDKs wait. Twins are not
/// modelled: this one is empty.
fn answer_twin(publish: &Publish) -> Bytes {
    let mut answer = BytesMut::new();
    if publish.pkid != 0 {
        answer.extend_from_slice(&encode(&Packet::PubAck(PubAck::new(publish.pkid))));
    }
    let (status, body, request) = match publish.topic.split_once("?$rid=") {
        Some(("$iothub/twin/GET/", id)) => {
            ("200", r#"{"desired":{"$version":1},"reported":{"$version":1}}"#, id.to_owned())
        }
        Some(("$iothub/twin/PATCH/properties/reported/", id)) => ("204", "", format!("{id}&$version=2")),
        _ => return answer.freeze(),
    };
    let topic = format!("$iothub/twin/res/{status}/?$rid={request}");
    answer.extend_from_slice(&publish_bytes(topic.as_bytes(), None, false, body.as_bytes()));
    answer.freeze()
}

/// A PUBLISH, written by hand: rumqttc's type has text for a topic, and tests need other bytes too.
fn publish_bytes(topic: &[u8], pkid: Option<u16>, dup: bool, body: &[u8]) -> Bytes {
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
