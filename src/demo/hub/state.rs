//! The hub's rules that are the same for every protocol: who has what in its queue, what becomes of it, what happens
//! with time. No I/O; the time is an argument.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::auth::{self, Proof};
use super::device::Device;
use super::feedback::{Batch, Batches};
use super::message::{C2d, D2c, Feedback, SendError, Seq, Status};
use super::method::Calls;
use super::provisioning::service::Service;
use super::queue::{Held, LockToken, Queued};
use super::side::{Side, STOLEN, UNAUTHORIZED};
use super::topic::c2d_topic;
use super::wire::{Effect, End, Ring, Settlement, Wire, WireEvent};
use super::{Auth, Cut, Discarded, Fault, Kick, Options};
use crate::time::Timestamp;

/// A C2D message's limit.
const C2D_BYTES_MAX: usize = 64 * 1024;
/// A D2C message's limit.
pub(super) const D2C_BYTES_MAX: usize = 256 * 1024;
/// The longest life of a message.
const TTL_MAX: Duration = Duration::from_secs(48 * 3600);
/// Records in a batch of feedback.
const FEEDBACK_BATCH: usize = 64;

/// The properties of telemetry, as [`D2c`] has them.
pub(super) type Properties = Vec<(String, Option<String>)>;

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

#[derive(Debug)]
pub(super) struct State {
    pub options: Arc<Options>,
    pub devices: BTreeMap<String, Device>,
    pub wire: Ring<WireEvent>,
    pub telemetry: Ring<D2c>,
    pub feedback: Ring<Feedback>,
    feedback_waiting: Vec<Feedback>,
    feedback_at: Instant,
    /// Feedback that the back end has not taken yet.
    pub batches: Batches,
    /// Direct methods under way.
    pub calls: Calls,
    /// AMQP connections.
    pub sides: BTreeMap<u64, Side>,
    /// The provisioning service.
    pub service: Service,
    /// Shared access policies: names and keys.
    pub policies: BTreeMap<String, Vec<u8>>,
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
            batches: Batches::default(),
            calls: Calls::default(),
            sides: BTreeMap::new(),
            service: Service::default(),
            policies: BTreeMap::from([("service".to_owned(), new_key())]),
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

    pub fn log(&mut self, who: &Who, what: Wire) {
        let Who { device, connection } = who.clone();
        self.wire.push(WireEvent { at: Instant::now(), connection, device, what });
    }

    pub fn settle(&mut self, device: &str, queued: Queued, status: Status, now: Timestamp) {
        if queued.message.ack.wants(status) {
            let device = device.to_owned();
            let original_message_id = queued.message.message_id;
            let record = Feedback { original_message_id, status, device, at: now };
            self.feedback_waiting.push(record);
        }
        self.release_feedback(Instant::now());
    }

    pub fn discard(&mut self, device: &str, queued: Vec<Queued>, now: Timestamp) {
        if self.options.discarded == Discarded::Rejected {
            queued.into_iter().for_each(|q| self.settle(device, q, Status::Rejected, now));
        }
    }

    fn release_feedback(&mut self, now: Instant) {
        let is_due = now.duration_since(self.feedback_at) >= self.options.feedback_interval;
        if self.feedback_waiting.len() >= FEEDBACK_BATCH || is_due {
            self.feedback_at = now;
            let batch = std::mem::take(&mut self.feedback_waiting);
            if !batch.is_empty() {
                batch.iter().for_each(|record| self.feedback.push(record.clone()));
                self.batches.push(batch);
                self.wake_listeners();
            }
        }
    }

    /// The oldest batch of feedback that nobody has, locked for a connection.
    pub fn next_feedback(&mut self, connection: u64, now: Now) -> Option<Batch> {
        self.batches.next(connection, now.mono, now.mono + self.options.lock)
    }

    /// Settles a batch that a connection has, and says whether it had it.
    pub fn settle_feedback(&mut self, connection: u64, number: u64, is_done: bool, now: Now) -> bool {
        let most = self.options.feedback_max_delivery_count;
        let held = self.batches.settle(connection, number, is_done, most, now.mono);
        self.wake_listeners();
        held
    }

    pub fn unlock_feedback(&mut self, connection: u64) {
        self.batches.unlock(connection);
        self.wake_listeners();
    }

    /// There may be feedback, or an event, for whoever listens.
    pub fn wake_listeners(&self) {
        self.sides.values().filter(|side| side.listens).for_each(|side| side.line.wake.notify_one());
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
        device.queue.push(self.last_seq, message, now.wall, expires);
        if device.keeps(&self.options) {
            self.wake(id);
        } else {
            let never = device.queue.drain();
            self.discard(id, never, now.wall);
        }
        Ok(self.last_seq)
    }

    /// Empties a device's queue.
    pub fn purge(&mut self, id: &str, now: Now) -> usize {
        let Some(device) = self.devices.get_mut(id) else { return 0 };
        let purged = device.queue.drain();
        let count = purged.len();
        purged.into_iter().for_each(|q| self.settle(id, q, Status::Purged, now.wall));
        count
    }

    pub fn wake(&mut self, id: &str) {
        let Some(device) = self.devices.get(id) else { return };
        device.link.iter().for_each(|link| link.line.wake.notify_one());
        for receiver in device.receiver.iter().chain(&device.method_link) {
            receiver.line.wake.notify_one();
            if let Some(side) = self.sides.get_mut(&receiver.connection) {
                side.due.insert(id.to_owned());
            }
        }
    }

    /// What happens with time: messages and tokens expire, locks run out, feedback is sent.
    pub fn tick(&mut self, now: Now) {
        let ids: Vec<String> = self.devices.keys().cloned().collect();
        for id in ids {
            let device = self.devices.get_mut(&id).expect("devices are never removed");
            let expired = device.queue.expire(now.wall);
            let token = device.link.as_ref().and_then(|link| link.token_expires);
            if token.is_some_and(|at| at.plus(self.options.token_grace) <= now.wall) {
                self.end(&id, End::TokenExpired, Cut::Fin, now);
            } else if device.has_deliverable(now.mono, &self.options)
                || (device.receiver.is_some() && device.queue.has_free(now.mono))
            {
                self.wake(&id);
            }
            expired.into_iter().for_each(|q| self.settle(&id, q, Status::Expired, now.wall));
        }
        self.release_feedback(now.mono);
        if self.batches.has_free(now.mono) {
            self.wake_listeners();
        }
        self.end_calls(now);
        self.tick_amqp(now);
    }

    /// Ends a device's present connection, and says whether there was one. On an AMQP connection with many devices,
    /// only what is the device's own ends, if the reason is.
    pub fn end(&mut self, id: &str, end: End, cut: Cut, now: Now) -> bool {
        let had_link = self.end_link(id, end.clone(), cut, now);
        let Some(receiver) = self.devices.get(id).and_then(|device| device.receiver.as_ref()) else { return had_link };
        let connection = receiver.connection;
        match end {
            End::Kicked => return self.order_detach(id, STOLEN),
            End::TokenExpired => {
                let Some(side) = self.sides.get_mut(&connection) else { return had_link };
                let shown = side.tokens.get_mut(id).map(|expires| *expires = Timestamp(0)).is_some();
                side.has_expired |= shown;
                side.line.wake.notify_one();
                return shown;
            }
            other => self.end_amqp(connection, &other, cut),
        }
        true
    }

    /// Ends what a device does at the hub, since it may no longer.
    pub fn shut_out(&mut self, id: &str, now: Now) {
        self.end_link(id, End::Cut, Cut::Fin, now);
        self.order_detach(id, UNAUTHORIZED);
    }

    fn end_link(&mut self, id: &str, end: End, cut: Cut, now: Now) -> bool {
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

    pub fn own_device(&mut self, who: &Who) -> Option<&mut Device> {
        let device = self.devices.get_mut(&who.device)?;
        let is_own = device.link.as_ref().is_some_and(|link| link.connection == who.connection);
        is_own.then_some(device)
    }

    /// Adds a device, or changes how it proves who it is.
    pub fn add_device(&mut self, id: &str, auth: Auth) {
        match self.devices.get_mut(id) {
            Some(device) => device.auth = auth,
            None => drop(self.devices.insert(id.to_owned(), Device::new(id, auth))),
        }
    }

    /// Whether a device may do something with what it showed, and until when.
    pub fn admit(&self, id: &str, proof: &Proof<'_>, now: Now) -> Result<Option<Timestamp>, String> {
        let device = self.devices.get(id).filter(|device| device.enabled);
        let device = device.ok_or("no such device, or disabled")?;
        auth::check_proof(&device.auth, id, proof, &self.options, now.wall)
    }

    /// The next message of a device that nobody has locked, locked for this delivery. Its messages are kept from now
    /// on. Not for MQTT, which does this its own way.
    pub fn lock_next(&mut self, who: &Who, now: Now) -> Option<(Queued, LockToken)> {
        let until = now.mono + self.options.lock;
        let device = self.devices.get_mut(&who.device)?;
        device.is_kept = true;
        let (queued, token) = device.queue.lock_next(who.connection, now.mono, until)?;
        let queued = queued.clone();
        let message_id = queued.message.message_id.clone();
        self.log(who, Wire::Delivered { seq: queued.seq, message_id, deliveries: queued.deliveries });
        Some((queued, token))
    }

    /// Settles a message that was locked, and says what that did.
    pub fn dispose(&mut self, who: &Who, token: LockToken, settlement: Settlement, now: Now) -> Effect {
        let most = self.options.max_delivery_count;
        let Some(device) = self.devices.get(&who.device) else { return Effect::Unknown };
        let (seq, effect) = match device.queue.held(token, now.mono) {
            Held::No if self.devices.values().any(|device| device.queue.has_given(token)) => (None, Effect::Foreign),
            Held::No => (None, Effect::Unknown),
            Held::Late(seq) => (seq, Effect::Late),
            Held::Yes(seq) => (Some(seq), Effect::from(settlement)),
        };
        self.log(who, Wire::Settled { seq, settlement, effect });
        if let Some(seq) = seq.filter(|_| effect == Effect::from(settlement)) {
            self.end_lock(&who.device, seq, settlement, most, now);
        }
        effect
    }

    fn end_lock(&mut self, id: &str, seq: Seq, settlement: Settlement, most: u32, now: Now) {
        let device = self.devices.get_mut(id).expect("the device of a held message exists");
        let status = match settlement {
            Settlement::Complete => Status::Success,
            Settlement::Reject => Status::Rejected,
            Settlement::Abandon => {
                let queued = device.queue.get_mut(seq).expect("a held message is in the queue");
                queued.deliveries += 1;
                queued.lock = None;
                if queued.deliveries < most {
                    return self.wake(id);
                }
                Status::DeliveryCountExceeded
            }
        };
        let queued = device.queue.take(seq).expect("a held message is in the queue");
        self.settle(id, queued, status, now.wall);
    }

    /// Lets the locks of a device's messages run out.
    pub fn run_out(&mut self, id: &str, now: Now) {
        let Some(device) = self.devices.get_mut(id) else { return };
        device.queue.run_out(now.mono);
        self.wake(id);
    }

    /// Takes telemetry, with MQTT's packet id or 0, unless a fault loses it. `false`: the connection ends without an
    /// answer.
    pub fn store(&mut self, who: &Who, pkid: u16, properties: Properties, body: Vec<u8>, now: Now) -> bool {
        let Some(device) = self.devices.get_mut(&who.device) else { return false };
        let lost = device.take_fault(Fault::CutBeforeTelemetry);
        let cut = lost || device.take_fault(Fault::CutAfterTelemetry);
        self.log(who, Wire::Telemetry { pkid, stored: !lost });
        if !lost {
            let Who { device, connection } = who.clone();
            self.telemetry.push(D2c { device, connection, properties, body, at: now.wall });
            self.wake_listeners();
        }
        !cut
    }
}

/// A key, as the hub makes them for devices and policies.
pub(super) fn new_key() -> Vec<u8> {
    (0..32).map(|_| fastrand::u8(..)).collect()
}
