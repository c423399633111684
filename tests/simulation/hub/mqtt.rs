//! How a hub speaks MQTT: under old and new packet ids, from before the subscription on, and once more what it has not
//! heard of.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{sleep_until, Instant};

use super::super::mqtt::{self, Packet};
use super::super::wire::{End, Wire};
use super::{at_or_never, calls, cut, Hub, State};

/// What was delivered on a connection and not acknowledged, in order.
type Outstanding = Arc<Mutex<VecDeque<(u16, usize)>>>;

/// How a connection numbers its packets.
#[derive(Clone, Copy)]
enum Numbering {
    GoesOn,
    FromOne,
    FewIds,
}

/// Serves one connection to its end.
pub(super) async fn serve(hub: Arc<Hub>, wire: Wire) {
    let mut reader = mqtt::Reader::new(wire.clone());
    let Some(Packet::Connect { client, host, password }) = reader.next().await else { return };
    let Some(token_end) = admit(&hub, &wire, &client, &host, &password).await else { return wire.cut(End::Closed) };
    let number = take_over(&hub, &client, &wire);
    let (now, is_throttled) = (Instant::now(), hub.throttles && hub.world.chance(500));
    let begins_late = is_throttled && hub.world.chance(500);
    let first_pause = if begins_late { hub.world.time(20_000, 79_000) } else { Duration::ZERO };
    if begins_late {
        hub.world.count("hub: a pause before the first message");
    }
    let connection = Serving {
        numbering: match hub.world.pick(0..3) {
            0 => Numbering::GoesOn,
            1 => Numbering::FromOne,
            _ => Numbering::FewIds,
        },
        last_id: 0,
        ends_at: match hub.end_of_a_connection() {
            Some(end) if end.0 < token_end => end,
            _ => (token_end, "hub: a token has expired"),
        },
        hub,
        wire,
        client,
        host,
        number,
        outstanding: Outstanding::default(),
        subscribed: false,
        quiet_until: now + first_pause,
        is_throttled,
        began: now,
        moved: now,
    };
    connection.run(reader).await;
}

/// Answers CONNECT, and tells when the token expires. `None`: the client is not let in.
async fn admit(hub: &Hub, wire: &Wire, client: &str, host: &str, password: &str) -> Option<Instant> {
    let (world, faults) = (&hub.world, hub.faults);
    if world.strikes("hub: delays its CONNACK", faults.refusals) {
        tokio::time::sleep(world.time(1_000, 70_000)).await;
    }
    let token_end = hub.judge_token(wire.life, client, password);
    let code = match world.pick(0..3) {
        _ if token_end.is_none() => 5,
        0 if world.strikes("hub: refuses as busy", faults.refusals) => 3,
        1 if world.strikes("hub: refuses the login", faults.refusals) => 5,
        2 if world.strikes("hub: closes instead of CONNACK", faults.refusals) => return None,
        _ => 0,
    };
    let has_session = hub.has_session(host, client, wire.life, code == 0);
    wire.send(&mqtt::connack(has_session && code == 0, code));
    token_end.filter(|_| code == 0)
}

fn take_over(hub: &Hub, client: &str, wire: &Wire) -> u64 {
    let number = hub.number();
    hub.is_attached(client, number);
    hub.lock().connected.insert(client.to_owned(), (number, wire.clone()));
    number
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
    /// There are pauses between messages.
    is_throttled: bool,
    began: Instant,
    /// When a message was last delivered or acknowledged.
    moved: Instant,
}

/// A connection that is so old, and so long without a message, may be taken for one of a hub that holds none.
const SILENCE: (Duration, Duration) = (Duration::from_secs(79), Duration::from_millis(4_900));

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
                    self.note_silence();
                    half_open = cut(&self.wire, self.ends_at.1);
                    if !half_open {
                        return;
                    }
                }
                packet = reader.next() => match packet {
                    Some(packet) => self.on_packet(packet).await,
                    None => {
                        self.note_silence();
                        return self.wire.cut(End::Closed);
                    }
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
        let next = self.hub.next_for(&self.client, &self.host, Some(self.number));
        next.map(|(at, index)| (at.max(self.quiet_until), index))
    }

    fn deliver(&mut self, index: usize) {
        let world = self.hub.world.clone();
        self.note_silence();
        self.moved = Instant::now();
        self.quiet_until = self.moved + self.pause();
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
        self.hub.hand_out(index, self.number);
        let message = self.hub.lock().sent[index].message.clone();
        let packet = mqtt::publish(&message.topic(), packet_id, &message.body, repeated == Some(packet_id));
        world.note(format_args!("{}#{} delivers no. {index} as {packet_id}", self.client, self.number));
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

    /// A pause after a message.
    fn pause(&self) -> Duration {
        let world = &self.hub.world;
        if !self.is_throttled {
            return world.time(0, 60);
        }
        if world.chance(100) {
            return world.time(5_000, 12_000);
        }
        world.count("hub: a pause between messages");
        world.time(500, 4_600)
    }

    /// Nothing has moved since the last message: perhaps for so long that the hub seems to hold nothing.
    fn note_silence(&self) {
        let (age, silence) = SILENCE;
        if self.began.elapsed() >= age && self.moved.elapsed() >= silence {
            self.hub.conceals(&self.client, &self.host, "hub: a pause that looks like an empty queue");
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
                let id = match packet {
                    Packet::PubAck(id) => id,
                    Packet::Once { topic, body } => {
                        match calls::read(&topic, &body) {
                            Some((request, answer)) => hub.expect_answered(request, &answer),
                            None => hub.world.violate(format!("an answer that none can read: {topic}")),
                        }
                        continue;
                    }
                    _ => continue,
                };
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
            Packet::Subscribe(id, filters) => {
                self.subscribed = true;
                if filters.iter().any(|filter| filter == "$iothub/methods/POST/#") {
                    self.hub.listens(&self.client, self.number);
                }
                let (host, client) = (self.host.clone(), self.client.clone());
                let mut inner = self.hub.lock();
                inner.sessions.insert((host.clone(), client.clone()));
                inner.subscribed.insert((host, client, self.wire.life));
                drop(inner);
                self.wire.send(&mqtt::suback(id, filters.len()));
            }
            Packet::PubAck(id) => self.on_puback(id),
            Packet::Once { topic, body } => {
                if let Some((request, answer)) = calls::read(&topic, &body) {
                    self.hub.is_answered(self.number, request, answer);
                }
            }
            Packet::Publish { topic, packet_id, body } => {
                let event = mqtt::event(&topic, body);
                self.hub.comes(&event);
                if world.strikes("hub: an event is lost on its way", self.hub.faults.lost_acks) {
                    return self.wire.cut(End::Reset);
                }
                self.hub.has_event(&self.client, event);
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
        self.moved = Instant::now();
        if world.strikes("hub: a PUBACK is lost", self.hub.faults.lost_acks) {
            // It comes again: when its lock has run out, or on the next connection.
            let mut inner = self.hub.lock();
            inner.sent[index].state = State::Delivered(self.number, Instant::now() + world.time(100, 5_000));
            return;
        }
        let mut inner = self.hub.lock();
        let sent = &mut inner.sent[index];
        if sent.state != State::Completed {
            self.hub.complete(sent);
        }
        world.note(format_args!("{}#{} completes no. {index}", self.client, self.number));
    }
}

impl Hub {
    /// Whether the hub has a session of a device that it is about to let in, or not. If it has forgotten that before
    /// this life of the process subscribed, or if the device was only ever reached otherwise, it looks as if nobody
    /// ever had been there (docs/RELIABILITY.md, "What is not proven").
    fn has_session(&self, host: &str, client: &str, life: u64, lets_in: bool) -> bool {
        let session = (host.to_owned(), client.to_owned());
        let has_session = self.lock().sessions.contains(&session);
        if !lets_in {
            return has_session;
        }
        let is_lost = has_session && self.loses_sessions && self.world.strikes("hub: a session is lost", 200);
        if is_lost {
            self.lock().sessions.remove(&session);
        }
        if has_session && !is_lost {
            return true;
        }
        let (is_known, was_known) = {
            let inner = self.lock();
            let mut lives = inner.subscribed.iter().filter(|(at, of, _)| (at.as_str(), of.as_str()) == (host, client));
            (lives.clone().any(|(.., known)| *known == life), lives.next().is_some())
        };
        match (is_known, was_known) {
            (true, _) => {}
            (false, true) => self.conceals(client, host, "hub: a session that was lost before a new life"),
            (false, false) => {
                self.conceals(client, host, "hub: no session yet, of a device that was reached otherwise")
            }
        }
        false
    }

    /// The hub looks as if it held no message of before for this device, and may hold some that have been received.
    fn conceals(&self, device: &str, host: &str, how: &'static str) {
        let mut inner = self.lock();
        let own = |one: &&mut super::Sent| one.message.device == device && one.message.hub == host;
        let is_held = |one: &&mut super::Sent| !one.state.is_over() && !one.received.is_empty();
        let mut held = inner.sent.iter_mut().filter(own).filter(is_held).peekable();
        if held.peek().is_some() {
            self.world.count(how);
        }
        held.for_each(|one| one.concealed += 1);
    }
}
