//! The hubs: what each holds for each device, and how it speaks MQTT, written from the protocol and not from the
//! gateway.
//!
//! It delivers in order, redelivers what was not completed, under old and new packet ids, on the same connection when a
//! lock has run out and on the next one, and loses what can be lost on the way. What a guarantee excludes is noted as a
//! violation where it is seen: here, G1, G5 and G6.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fieldbridge::hub::dial::{Dial, Dialing};
use fieldbridge::hub::trouble::Trouble;
use fieldbridge::net::Stream;
use fieldbridge::time::Timestamp;
use tokio::sync::Notify;
use tokio::time::{sleep_until, Instant};

use super::ledger::Witness;
use super::mqtt::{self, Packet};
use super::scenario::{Faults, Message, HUBS};
use super::wire::{End, Wire};
use super::world::World;

/// Longest time that a message is locked for its receiver (IOTHUB.md, 1.8).
const LOCK: Duration = Duration::from_secs(60);

/// Longest time from delivery to completion on a sound line, behind as many commands as a schedule has.
const SOUND_MAX: Duration = Duration::from_secs(5);

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It waits for a connection.
    Queued,
    /// It was delivered on this connection, and is locked until then.
    Delivered(u64, Instant),
    /// It was completed.
    Completed,
    /// Its time ran out.
    Expired,
}

/// A message that was sent.
pub struct Sent {
    /// The message.
    pub message: Message,
    /// Where it stands.
    pub state: State,
    /// When the hub throws it away.
    pub expires_at: Timestamp,
    /// In which life of the process it was last delivered, and when first in that.
    delivered_at: Option<(u64, Instant)>,
    /// When the gateway had read it whole for the first time, in each life of the process.
    pub received: Vec<(u64, Instant)>,
}

/// A result event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its own id.
    pub id: String,
    /// The message's.
    pub correlation: Option<String>,
    /// What it says.
    pub body: String,
}

struct Inner {
    sent: Vec<Sent>,
    events: BTreeMap<String, Vec<Event>>,
    /// The connection of each device.
    connected: BTreeMap<String, (u64, Wire)>,
    /// The last token of each device: the life of the process that made it, and its expiry.
    tokens: BTreeMap<String, (u64, i64)>,
    /// Devices that have subscribed once: from then on the hub has a session of theirs.
    sessions: BTreeSet<(String, String)>,
    /// The last packet id of each device.
    packet_ids: BTreeMap<String, u16>,
    connections: u64,
    outage_until: Option<Instant>,
}

/// The hub of a world.
pub struct Hub {
    world: Arc<World>,
    witness: Arc<Witness>,
    faults: Faults,
    /// Rings when a message was sent.
    sent: Notify,
    inner: Mutex<Inner>,
}

/// What was delivered on a connection and not acknowledged, in order.
type Outstanding = Arc<Mutex<VecDeque<(u16, usize)>>>;

/// How a connection numbers its packets.
#[derive(Clone, Copy)]
enum Numbering {
    GoesOn,
    FromOne,
    FewIds,
}

impl Hub {
    /// A hub that knows every device.
    pub fn new(world: &Arc<World>, witness: &Arc<Witness>, faults: Faults) -> Arc<Hub> {
        let inner = Inner {
            sent: Vec::new(),
            events: BTreeMap::new(),
            connected: BTreeMap::new(),
            tokens: BTreeMap::new(),
            sessions: BTreeSet::new(),
            packet_ids: BTreeMap::new(),
            connections: 0,
            outage_until: None,
        };
        let (world, witness) = (world.clone(), witness.clone());
        Arc::new(Hub { world, witness, faults, sent: Notify::new(), inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics while holding the hub")
    }

    /// The back end sends a message, which lives so long.
    pub fn send(&self, message: Message, life: Duration) {
        self.world.note(format_args!("sent {} {:?}", message.device, message));
        let expires_at = self.world.true_time().plus(life);
        self.lock().sent.push(Sent {
            message,
            state: State::Queued,
            expires_at,
            delivered_at: None,
            received: Vec::new(),
        });
        self.sent.notify_waiters();
    }

    /// Nobody reaches the hub until then.
    pub fn go_out(&self, until: Instant) {
        let mut inner = self.lock();
        inner.outage_until = Some(until);
        for (_, wire) in std::mem::take(&mut inner.connected).into_values() {
            wire.cut(End::Reset);
        }
    }

    fn is_received(&self, index: usize, life: u64) {
        let received = &mut self.lock().sent[index].received;
        if received.iter().all(|(earlier, _)| *earlier != life) {
            received.push((life, Instant::now()));
        }
    }

    /// Everything that was sent, and where it stands.
    pub fn look<T>(&self, look: impl FnOnce(&[Sent], &BTreeMap<String, Vec<Event>>) -> T) -> T {
        let inner = self.lock();
        look(&inner.sent, &inner.events)
    }

    /// Whether every message that the gateway can have has come to its end.
    pub fn is_empty(&self) -> bool {
        let is_over = |sent: &Sent| matches!(sent.state, State::Completed | State::Expired);
        self.lock().sent.iter().all(|sent| is_over(sent) || sent.message.hub != HUBS[0])
    }

    /// Serves one connection to its end.
    async fn serve(self: Arc<Self>, wire: Wire) {
        let mut reader = mqtt::Reader::new(wire.clone());
        let Some(Packet::Connect { client, host, password }) = reader.next().await else { return };
        let Some(token_end) = self.admit(&wire, &client, &host, &password).await else { return wire.cut(End::Closed) };
        let number = self.take_over(&client, &wire);
        let connection = Serving {
            numbering: match self.world.pick(0..3) {
                0 => Numbering::GoesOn,
                1 => Numbering::FromOne,
                _ => Numbering::FewIds,
            },
            last_id: 0,
            ends_at: self.end_of_a_connection(token_end),
            hub: self,
            wire,
            client,
            host,
            number,
            outstanding: Outstanding::default(),
            subscribed: false,
            quiet_until: Instant::now(),
        };
        connection.run(reader).await;
    }

    /// Answers CONNECT, and tells when the token expires. `None`: the client is not let in.
    async fn admit(&self, wire: &Wire, client: &str, host: &str, password: &str) -> Option<Instant> {
        let faults = self.faults;
        if self.world.strikes("hub: delays its CONNACK", faults.refusals) {
            tokio::time::sleep(self.world.time(1_000, 70_000)).await;
        }
        let expiry = mqtt::token_expiry(password);
        let now = self.world.true_time();
        let valid = expiry.is_some_and(|expiry| expiry > now.as_secs() && expiry < now.as_secs() + 90_000);
        // A connection may have been on its way for a minute when the clock was put right.
        if !valid && self.world.peace_for(Duration::from_secs(120)) {
            self.world.violate(format!("{client}: a token that expires at {expiry:?}, and it is {now}"));
        }
        let token = (wire.life, expiry.unwrap_or_default());
        match self.lock().tokens.insert(client.to_owned(), token) {
            Some((life, earlier)) if life == token.0 && token.1 > earlier + 200 => self.world.count("tokens renewed"),
            _ => {}
        }
        let code = match self.world.pick(0..3) {
            _ if !valid => 5,
            0 if self.world.strikes("hub: refuses as busy", faults.refusals) => 3,
            1 if self.world.strikes("hub: refuses the login", faults.refusals) => 5,
            2 if self.world.strikes("hub: closes instead of CONNACK", faults.refusals) => return None,
            _ => 0,
        };
        let has_session = self.lock().sessions.contains(&(host.to_owned(), client.to_owned()));
        wire.send(&mqtt::connack(has_session && code == 0, code));
        let left = u64::try_from(expiry? - now.as_secs()).unwrap_or(0);
        (code == 0).then(|| Instant::now() + Duration::from_secs(left))
    }

    fn take_over(&self, client: &str, wire: &Wire) -> u64 {
        let mut inner = self.lock();
        inner.connections += 1;
        let number = inner.connections;
        if let Some((_, old)) = inner.connected.insert(client.to_owned(), (number, wire.clone())) {
            old.cut(End::Reset);
        }
        for sent in inner.sent.iter_mut().filter(|sent| sent.message.device == client) {
            if matches!(sent.state, State::Delivered(..)) {
                sent.state = State::Queued;
            }
        }
        number
    }

    fn end_of_a_connection(&self, token_end: Instant) -> (Instant, &'static str) {
        let world = &self.world;
        if !world.faults_are_over() && world.chance(self.faults.cuts) {
            let after = match world.chance(300) {
                true => world.time(0, 1_000),
                false => world.time(0, 40_000),
            };
            let kinds = ["wire: reset", "wire: closed", "wire: half-open"];
            let at = Instant::now() + after;
            if at < token_end {
                return (at, kinds[world.pick(0..3) as usize]);
            }
        }
        (token_end, "hub: a token has expired")
    }
}

/// One connection.
struct Serving {
    hub: Arc<Hub>,
    wire: Wire,
    client: String,
    /// The hub that it is meant for.
    host: String,
    number: u64,
    numbering: Numbering,
    last_id: u16,
    ends_at: (Instant, &'static str),
    outstanding: Outstanding,
    subscribed: bool,
    /// Nothing is delivered before this.
    quiet_until: Instant,
}

/// Packet ids of a hub that makes do with few of them.
const FEW: usize = 60;

impl Serving {
    async fn run(mut self, mut reader: mqtt::Reader) {
        self.watch_acknowledgements();
        let mut half_open = false;
        loop {
            let ahead = self.hub.world.chance(100);
            let next = (self.subscribed || ahead) && !half_open;
            let next = if next { self.next_delivery() } else { None };
            let at = next.map(|(at, _)| at);
            let end = self.ends_at.0;
            tokio::select! {
                biased;
                () = sleep_until(end), if !half_open => {
                    self.hub.world.count(self.ends_at.1);
                    match self.ends_at.1 {
                        "wire: half-open" => {
                            self.wire.go_half_open();
                            half_open = true;
                        }
                        "wire: reset" => return self.wire.cut(End::Reset),
                        _ => return self.wire.cut(End::Closed),
                    }
                }
                packet = reader.next() => match packet {
                    Some(packet) => self.on_packet(packet).await,
                    None => return self.wire.cut(End::Closed),
                },
                () = at_or_never(at) => {
                    if let Some((_, message)) = next {
                        self.deliver(message);
                    }
                }
                () = self.hub.sent.notified() => {}
                () = tokio::time::sleep(Duration::from_secs(3600)) => {}
            }
            if self.wire.is_over() {
                return;
            }
        }
    }

    fn outstanding(&self) -> MutexGuard<'_, VecDeque<(u16, usize)>> {
        self.outstanding.lock().expect("nobody panics while holding it")
    }

    /// The next message to deliver, and when.
    fn next_delivery(&self) -> Option<(Instant, usize)> {
        let now = self.hub.world.true_time();
        let mut inner = self.hub.lock();
        let mut next = None;
        for (index, sent) in inner.sent.iter_mut().enumerate() {
            if sent.message.device != self.client
                || sent.message.hub != self.host
                || matches!(sent.state, State::Completed | State::Expired)
            {
                continue;
            }
            match sent.state {
                State::Delivered(connection, _) if connection == self.number => {}
                _ if sent.expires_at <= now => {
                    sent.state = State::Expired;
                    continue;
                }
                _ => {}
            }
            let at = match sent.state {
                State::Queued => Instant::now(),
                State::Delivered(_, until) => until,
                State::Completed | State::Expired => continue,
            };
            let is_sooner = next.is_none_or(|(sooner, _)| at < sooner);
            if is_sooner {
                next = Some((at, index));
            }
        }
        next.map(|(at, index)| (at.max(self.quiet_until), index))
    }

    fn deliver(&mut self, index: usize) {
        let world = self.hub.world.clone();
        self.quiet_until = Instant::now() + world.time(0, 60);
        let repeated = self.outstanding().iter().find(|(_, message)| *message == index).map(|(id, _)| *id);
        let was_delivered = matches!(self.hub.lock().sent[index].state, State::Delivered(..));
        let packet_id = match repeated {
            Some(id) if world.chance(500) => {
                world.count("hub: delivers again on the connection, same packet id");
                id
            }
            _ => {
                if was_delivered {
                    world.count("hub: delivers again on the connection, new packet id");
                }
                let id = self.packet_id();
                self.outstanding().push_back((id, index));
                id
            }
        };
        let lock = match self.hub.faults.short_locks && !world.faults_are_over() {
            true => world.time(200, 4_000),
            false => LOCK,
        };
        let mut inner = self.hub.lock();
        let sent = &mut inner.sent[index];
        sent.state = State::Delivered(self.number, Instant::now() + lock);
        match sent.delivered_at {
            Some((life, _)) if life == world.life() => {}
            _ => sent.delivered_at = Some((world.life(), Instant::now())),
        }
        let packet = mqtt::publish(&sent.message.topic(), packet_id, &sent.message.body, repeated == Some(packet_id));
        world.note(format_args!("{}#{} delivers no. {index} as {packet_id}", self.client, self.number));
        drop(inner);
        world.count("deliveries");
        // The wire is the hub's own.
        let (hub, life) = (Arc::downgrade(&self.hub), self.wire.life);
        self.wire.send_and_tell(&packet, move || {
            hub.upgrade().iter().for_each(|hub| hub.is_received(index, life));
        });
        if world.strikes("hub: a packet twice", self.hub.faults.repetitions) {
            // It may come after our PUBACK for the first has left.
            let (wire, after) = (self.wire.clone(), world.time(0, 2_000));
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                wire.send(&packet);
            });
        }
    }

    fn packet_id(&mut self) -> u16 {
        let mut inner = self.hub.lock();
        let last = inner.packet_ids.entry(self.client.clone()).or_default();
        if let Numbering::FromOne | Numbering::FewIds = self.numbering {
            *last = self.last_id;
        }
        let taken: Vec<u16> = self.outstanding().iter().map(|(id, _)| *id).collect();
        loop {
            *last = match self.numbering {
                // Where all of the few are taken, it has others.
                Numbering::FewIds if taken.len() < FEW => *last % (FEW as u16) + 1,
                _ => last.checked_add(1).unwrap_or(1),
            };
            if !taken.contains(last) {
                break;
            }
        }
        self.last_id = *last;
        *last
    }

    /// Looks at each PUBACK when the gateway writes it: what it stands on must be durable by then (G1).
    fn watch_acknowledgements(&self) {
        let mut splitter = mqtt::Splitter::default();
        // The wire is the hub's own.
        let (hub, outstanding) = (Arc::downgrade(&self.hub), self.outstanding.clone());
        self.wire.overhear(move |bytes| {
            let Some(hub) = hub.upgrade() else { return };
            for packet in splitter.take(bytes) {
                let Packet::PubAck(id) = packet else { continue };
                let delivered = outstanding.lock().expect("nobody panics while holding it");
                let found = delivered.iter().find(|(outstanding, _)| *outstanding == id);
                if let Some((_, index)) = found {
                    let message = hub.lock().sent[*index].message.clone();
                    hub.witness.expect_settled(&message);
                }
            }
        });
    }

    async fn on_packet(&mut self, packet: Packet) {
        let world = self.hub.world.clone();
        match packet {
            Packet::Connect { .. } => world.violate(format!("{}: a second CONNECT", self.client)),
            Packet::Subscribe(id) => {
                self.subscribed = true;
                self.hub.lock().sessions.insert((self.host.clone(), self.client.clone()));
                self.wire.send(&mqtt::suback(id));
            }
            Packet::PubAck(id) => self.on_puback(id),
            Packet::Publish { topic, packet_id, body } => {
                if world.strikes("hub: an event is lost on its way", self.hub.faults.lost_acks) {
                    return self.wire.cut(End::Reset);
                }
                let event = mqtt::event(&topic, body);
                world.note(format_args!("{}#{} event {:?}", self.client, self.number, event));
                self.hub.lock().events.entry(self.client.clone()).or_default().push(event);
                if world.strikes("hub: an event's PUBACK is lost", self.hub.faults.lost_acks) {
                    return self.wire.cut(End::Reset);
                }
                self.wire.send(&mqtt::puback(packet_id));
            }
            Packet::Ping => self.wire.send(&mqtt::PINGRESP),
            Packet::Disconnect => self.wire.cut(End::Closed),
        }
    }

    fn on_puback(&mut self, id: u16) {
        let world = self.hub.world.clone();
        let position = self.outstanding().iter().position(|(outstanding, _)| *outstanding == id);
        let Some(position) = position else {
            return world.violate(format!(
                "G6: {}#{} acknowledges packet {id}, which is not outstanding on this connection",
                self.client, self.number
            ));
        };
        if position > 0 {
            world.violate(format!("G5: {}#{} acknowledges packet {id} out of order", self.client, self.number));
        }
        let Some((_, index)) = self.outstanding().remove(position) else { return };
        if world.strikes("hub: a PUBACK is lost", self.hub.faults.lost_acks) {
            // It comes again: when its lock has run out, or on the next connection.
            let mut inner = self.hub.lock();
            inner.sent[index].state = State::Delivered(self.number, Instant::now() + world.time(100, 5_000));
            return;
        }
        let mut inner = self.hub.lock();
        let sent = &mut inner.sent[index];
        if sent.state != State::Completed {
            sent.state = State::Completed;
            world.count("completed");
            let took = sent.delivered_at.map(|(_, at)| at.elapsed()).unwrap_or_default();
            let is_sound = self.hub.faults.dead_line.is_some_and(|dead| dead != sent.message.line);
            if is_sound && took > SOUND_MAX {
                world.violate(format!("G11: {:?} took {took:?} beside a dead line", sent.message));
            }
        }
        world.note(format_args!("{}#{} completes no. {index}", self.client, self.number));
    }
}

async fn at_or_never(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The way to the hub.
pub struct ToHub(pub Arc<Hub>);

impl Dial for ToHub {
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a> {
        Box::pin(async move {
            let (world, faults) = (&self.0.world, self.0.faults);
            tokio::time::sleep(world.time(1, 80)).await;
            let out = self.0.lock().outage_until.is_some_and(|until| Instant::now() < until);
            if out || world.strikes("wire: no connection to the hub", faults.refusals) {
                let error = "connection refused".into();
                return Err(Trouble::Unreachable { address: address.to_owned(), error });
            }
            let wire = Wire::new(world, (1, 40));
            world.count("connections");
            tokio::spawn(self.0.clone().serve(wire.clone()));
            Ok(Box::new(wire.near()) as Box<dyn Stream>)
        })
    }
}
