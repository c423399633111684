//! A device at the hub: its subscription, its queue, what is in flight on its connection. No I/O, no clock.
//!
//! - MQTT's subscription belongs to the device, not to a connection: it survives, and so does the queue, until
//!   UNSUBSCRIBE or a clean session.
//! - AMQP and HTTPS know no subscription: once a device has used either, its messages are kept.
//! - Over MQTT a lock that runs out makes the message deliverable again as [`Redelivery`] says, and its PUBACK late
//!   ([`super::Late`]). A message is never given up there before it expires.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use rumqttc::QoS;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::message::Seq;
use super::queue::{Queue, Queued};
use super::topic::{c2d_filter, DESIRED_FILTER, METHODS_FILTER, TWIN_FILTER};
use super::twin::Twin;
use super::wire::Effect;
use super::{Auth, Fault, OutOfOrder, PacketIds, Redelivery};
use crate::demo::hub::Options;
use crate::time::Timestamp;

/// How the hub's state reaches a connection's task.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// There may be something to do.
    pub wake: Notify,
    /// The connection is over.
    pub cut: CancellationToken,
    /// It ends with a reset.
    pub reset: AtomicBool,
    /// Nothing passes any more, and the socket stays open.
    pub frozen: AtomicBool,
}

/// A device's present connection.
#[derive(Debug)]
pub(super) struct Link {
    pub connection: u64,
    pub line: Arc<Line>,
    pub clean: bool,
    pub token_expires: Option<Timestamp>,
    /// SUBSCRIBE came on this connection.
    pub has_subscribed: bool,
    /// It listens for direct methods.
    pub hears_methods: bool,
    /// It hears the answers to its requests for its twin.
    pub hears_twin: bool,
    /// It hears of what is desired.
    pub hears_desired: bool,
    /// Of what it is to hear next: the version, and the patch.
    pub desired: VecDeque<(u64, String)>,
    calls: u64,
    /// Bytes to send as they are.
    pub injected: VecDeque<Vec<u8>>,
    in_flight: VecDeque<(u16, Seq)>,
    /// Packet ids of earlier deliveries on this connection whose messages were sent again under another one.
    outdated: BTreeSet<u16>,
    last_pkid: u16,
}

impl Link {
    pub fn new(connection: u64, clean: bool, token_expires: Option<Timestamp>) -> Self {
        Link {
            connection,
            line: Arc::default(),
            clean,
            token_expires,
            has_subscribed: false,
            hears_methods: false,
            hears_twin: false,
            hears_desired: false,
            desired: VecDeque::new(),
            calls: 0,
            injected: VecDeque::new(),
            in_flight: VecDeque::new(),
            outdated: BTreeSet::new(),
            last_pkid: 0,
        }
    }

    /// It listens for what comes under this filter, or does so no more.
    fn hear(&mut self, filter: &str, listens: bool) {
        match filter {
            METHODS_FILTER => self.hears_methods = listens,
            TWIN_FILTER => self.hears_twin = listens,
            DESIRED_FILTER => self.hears_desired = listens,
            _ => {}
        }
    }

    fn next_pkid(&mut self, seq: Seq, scheme: PacketIds) -> u16 {
        let is_free = |pkid: &u16| !self.in_flight.iter().any(|(used, _)| used == pkid);
        let pkid = match scheme {
            PacketIds::Sequence => (seq & 0x3FFF) as u16 + 1,
            PacketIds::LowestFree => (1..=u16::MAX).find(is_free).expect("the window is smaller than the id space"),
            PacketIds::PerConnection => {
                let after = (1..=u16::MAX).map(|step| self.last_pkid.wrapping_add(step));
                after.filter(|pkid| *pkid != 0).find(is_free).expect("the window is smaller than the id space")
            }
        };
        self.last_pkid = pkid;
        pkid
    }
}

/// A device's link to its messages on an AMQP connection.
#[derive(Debug)]
pub(super) struct Receiver {
    pub connection: u64,
    /// The link's number on that connection.
    pub link: u64,
    pub line: Arc<Line>,
}

/// A message on its way to the device.
#[derive(Debug)]
pub(super) struct Delivery {
    pub seq: Seq,
    /// `None` with QoS 0.
    pub pkid: Option<u16>,
    pub dup: bool,
}

#[derive(Debug)]
pub(super) struct Device {
    pub auth: Auth,
    pub enabled: bool,
    pub link: Option<Link>,
    pub faults: Vec<Fault>,
    pub filters: BTreeMap<String, QoS>,
    pub queue: Queue,
    /// Its link over AMQP.
    pub receiver: Option<Receiver>,
    pub twin: Twin,
    /// Its link for direct methods over AMQP.
    pub method_link: Option<Receiver>,
    /// Calls that went over AMQP.
    calls: u64,
    /// It has used AMQP or HTTPS.
    pub is_kept: bool,
    c2d_filter: String,
    has_session: bool,
}

impl Device {
    pub fn new(id: &str, auth: Auth) -> Self {
        Device {
            auth,
            enabled: true,
            link: None,
            faults: Vec::new(),
            filters: BTreeMap::new(),
            queue: Queue::default(),
            receiver: None,
            twin: Twin::new(),
            method_link: None,
            calls: 0,
            is_kept: false,
            c2d_filter: c2d_filter(id),
            has_session: false,
        }
    }

    /// How its present connection is reached.
    pub fn line(&self) -> Option<&Arc<Line>> {
        let receiver = self.receiver.as_ref().map(|receiver| &receiver.line);
        self.link.as_ref().map(|link| &link.line).or(receiver)
    }

    /// Whether messages are kept for the device.
    pub fn keeps(&self, options: &Options) -> bool {
        self.is_kept || options.keeps_from_start || self.is_subscribed()
    }

    /// Whether it has subscribed to its messages over MQTT.
    pub fn is_subscribed(&self) -> bool {
        self.filters.contains_key(&self.c2d_filter)
    }

    /// Whether it is there for direct methods.
    pub fn hears_methods(&self) -> bool {
        self.method_link.is_some() || self.link.as_ref().is_some_and(|link| link.hears_methods)
    }

    /// The number of the next call on its present connection.
    pub fn number_call(&mut self) -> u64 {
        let calls = match &mut self.link {
            Some(link) => &mut link.calls,
            None => &mut self.calls,
        };
        *calls += 1;
        *calls
    }

    /// Starts a connection and says whether there was a session. A clean one discards what was there.
    pub fn attach(&mut self, link: Link) -> (bool, Vec<Queued>) {
        let session_present = self.has_session && !link.clean;
        self.has_session = !link.clean;
        let discarded = if link.clean { self.end_session() } else { vec![] };
        self.link = Some(link);
        (session_present, discarded)
    }

    /// Ends the present connection. What was in flight is free again, unless locks outlive their connection.
    pub fn detach(&mut self, options: &Options) -> Vec<Queued> {
        let Some(link) = self.link.take() else { return vec![] };
        if !options.lock_outlives_connection {
            self.queue.unlock(link.connection);
        }
        if link.clean {
            self.end_session()
        } else {
            vec![]
        }
    }

    fn end_session(&mut self) -> Vec<Queued> {
        self.filters.clear();
        self.queue.drain()
    }

    /// Subscribes to the device's messages. What was kept for it before is not for this subscription.
    pub fn subscribe(&mut self, filter: &str, qos: QoS) -> Vec<Queued> {
        let is_first = filter == self.c2d_filter && !self.is_subscribed();
        self.filters.insert(filter.to_owned(), qos);
        self.link.iter_mut().for_each(|link| link.hear(filter, true));
        if is_first {
            self.queue.drain()
        } else {
            vec![]
        }
    }

    /// Ends a subscription; with that for messages the queue goes.
    pub fn unsubscribe(&mut self, filter: &str) -> Vec<Queued> {
        self.filters.remove(filter);
        self.link.iter_mut().for_each(|link| link.hear(filter, false));
        if filter != self.c2d_filter {
            vec![]
        } else {
            self.queue.drain()
        }
    }

    fn next(&self, now: Instant, options: &Options) -> Option<Seq> {
        let link = self.link.as_ref()?;
        if !self.is_subscribed() || link.in_flight.len() >= options.window {
            return None;
        }
        let mut free = self.queue.iter().filter(|queued| {
            let may_go = match (queued.last_connection, options.redelivery) {
                (None, _) | (Some(_), Redelivery::SameConnection) => true,
                (Some(last), Redelivery::OnReconnect) => last != link.connection,
                (Some(_), Redelivery::Never) => false,
            };
            !queued.is_locked(now) && may_go
        });
        free.next().map(|queued| queued.seq)
    }

    pub fn has_deliverable(&self, now: Instant, options: &Options) -> bool {
        self.next(now, options).is_some()
    }

    /// The next message that may go out, locked for this delivery.
    pub fn deliver(&mut self, now: Instant, options: &Options) -> Option<Delivery> {
        let seq = self.next(now, options)?;
        let queued = self.queue.get_mut(seq)?;
        let link = self.link.as_mut().expect("only a connected device has something deliverable");
        let dup = options.dup && queued.last_connection.is_some();
        queued.lock(link.connection, now + options.lock);
        if self.filters.get(&self.c2d_filter) == Some(&QoS::AtMostOnce) {
            return Some(Delivery { seq, pkid: None, dup });
        }
        let earlier = link.in_flight.iter().position(|(_, s)| *s == seq);
        let earlier = earlier.and_then(|index| link.in_flight.remove(index));
        let pkid = link.next_pkid(seq, options.packet_ids);
        link.outdated.extend(earlier.map(|(pkid, _)| pkid));
        link.outdated.remove(&pkid);
        link.in_flight.push_back((pkid, seq));
        Some(Delivery { seq, pkid: Some(pkid), dup })
    }

    /// What a PUBACK does, and which message it was for.
    pub fn puback(&mut self, pkid: u16, now: Instant, options: &Options) -> (Effect, Option<Seq>) {
        let Some(link) = self.link.as_mut() else { return (Effect::Unknown, None) };
        let Some(index) = link.in_flight.iter().position(|(used, _)| *used == pkid) else {
            let is_outdated = link.outdated.remove(&pkid);
            return (if is_outdated { Effect::Late } else { Effect::Unknown }, None);
        };
        let (_, seq) = link.in_flight[index];
        if index > 0 && options.out_of_order != OutOfOrder::Accept {
            return (Effect::OutOfOrder, Some(seq));
        }
        link.in_flight.remove(index);
        let connection = link.connection;
        let is_own = |lock: super::queue::Lock| lock.connection == connection && now < lock.until;
        let holds = self.queue.get(seq).and_then(|queued| queued.lock).is_some_and(is_own);
        (if holds { Effect::Completed } else { Effect::Late }, Some(seq))
    }

    /// Whether a fault of this kind was waiting; it happens once.
    pub fn take_fault(&mut self, fault: Fault) -> bool {
        let index = self.faults.iter().position(|waiting| *waiting == fault);
        index.map(|index| self.faults.remove(index)).is_some()
    }

    /// Counts a PUBACK against [`Fault::CutAfterPubacks`], and says whether it was the last.
    pub fn count_puback(&mut self) -> bool {
        let counts = |fault: &&mut Fault| matches!(fault, Fault::CutAfterPubacks(_));
        let Some(Fault::CutAfterPubacks(left)) = self.faults.iter_mut().find(counts) else {
            return false;
        };
        *left = left.saturating_sub(1);
        self.take_fault(Fault::CutAfterPubacks(0))
    }
}
