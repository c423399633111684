//! The hubs: what each holds for each device. How it speaks the protocols by which it can be reached is in the files
//! beside, written from the protocols and not from the gateway.
//!
//! It delivers in order, redelivers what was not completed, on the same connection when a lock has run out and on the
//! next one, and loses what can be lost on the way. What a guarantee excludes is noted as a violation where it is seen:
//! here, G1, G5 and G6.

mod amqp;
mod calls;
mod https;
mod mqtt;
mod news;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fieldbridge::hub::dial::{Dial, Dialing};
use fieldbridge::hub::trouble::Trouble;
use fieldbridge::net::Stream;
use fieldbridge::time::Timestamp;
use tokio::sync::Notify;
use tokio::time::{sleep_until, Instant};

use super::ledger::Witness;
use super::manners::Manner;
use super::scenario::{Faults, Message, Over, Scenario, HUBS};
use super::tunnel;
use super::wire::{End, Wire};
use super::world::World;
pub use calls::Answer;
pub use news::News;

/// Longest time that a message is locked for its receiver (IOTHUB.md, 1.8).
const LOCK: Duration = Duration::from_secs(60);

/// Longest time from delivery to completion on a sound line, behind as many commands as a schedule has.
const SOUND_MAX: Duration = Duration::from_secs(5);

/// A message that was given back so often is thrown away (IOTHUB.md, 2).
const DELIVERIES_MAX: u32 = 10;

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It waits for a connection.
    Queued,
    /// It was delivered under this lock, or on this connection of MQTT's, and is locked until then.
    Delivered(u64, Instant),
    /// It was completed.
    Completed,
    /// It was refused.
    Rejected,
    /// It was given back too often.
    GivenUp,
    /// Its time ran out.
    Expired,
}

impl State {
    /// Whether it is not to be delivered any more.
    pub fn is_over(self) -> bool {
        !matches!(self, State::Queued | State::Delivered(..))
    }
}

/// What a receiver says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Complete,
    Reject,
    Abandon,
}

/// A message that was sent.
pub struct Sent {
    /// The message.
    pub message: Message,
    /// Where it stands.
    pub state: State,
    /// When the hub took it.
    enqueued_at: Timestamp,
    /// When the hub throws it away.
    pub expires_at: Timestamp,
    /// How often it was given back.
    given_back: u32,
    /// When it was completed or refused.
    settled_at: Option<Instant>,
    /// In which life of the process it was last delivered, and when first in that.
    delivered_at: Option<(u64, Instant)>,
    /// When the gateway had read it whole for the first time, in each life of the process.
    pub received: Vec<(u64, Instant)>,
    /// When it was first handed out by HTTPS, whether the gateway had it then or not.
    pub polled_at: Option<Instant>,
    /// Every receipt after the first of a life.
    pub redelivered: Vec<(u64, Instant)>,
    /// How often the hub has looked as if it held nothing of before, while it held this (docs/RELIABILITY.md, "What is
    /// not proven").
    pub concealed: usize,
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

/// A lock under which a message was handed out.
struct Lock {
    index: usize,
    /// The life of the process that it was handed out to.
    life: u64,
    /// By what.
    over: Over,
    /// The gateway has read the message.
    is_read: bool,
    /// What was said of the message under it.
    said: Option<Said>,
}

struct Inner {
    sent: Vec<Sent>,
    events: BTreeMap<String, Vec<Event>>,
    /// What instruments have said by themselves.
    news: News,
    calls: calls::Calls,
    /// Every connection that may stand.
    wires: Vec<Wire>,
    /// The connection of each device that speaks MQTT.
    connected: BTreeMap<String, (u64, Wire)>,
    /// The AMQP link of each device's messages, or the connection of MQTT's in its place.
    links: BTreeMap<String, u64>,
    locks: BTreeMap<u64, Lock>,
    /// The last token of each device: the life of the process that made it, and its expiry.
    tokens: BTreeMap<String, (u64, i64)>,
    /// Devices that have subscribed once: from then on the hub has a session of theirs.
    sessions: BTreeSet<(String, String)>,
    /// Lives of the process in which a device has subscribed at a hub.
    subscribed: BTreeSet<(String, String, u64)>,
    /// The last packet id of each device.
    packet_ids: BTreeMap<String, u16>,
    /// The last number of a connection, a link or a lock.
    last: u64,
    outage_until: Option<Instant>,
}

/// The hub of a world.
pub struct Hub {
    world: Arc<World>,
    witness: Arc<Witness>,
    faults: Faults,
    /// What an AMQP link leaves unsettled stays locked: no document says whether it does (IOTHUB.md, 1.8).
    keeps_locks: bool,
    throttles: bool,
    loses_sessions: bool,
    /// The gateway's ledger is neither lost nor replaced, and it stays at the hub.
    keeps_ledger: bool,
    /// Rings when a message was sent, or another can be delivered now.
    sent: Notify,
    /// Rings when a call was answered.
    sent_answer: Arc<Notify>,
    inner: Mutex<Inner>,
}

impl Hub {
    /// A hub that knows every device.
    pub fn new(world: &Arc<World>, witness: &Arc<Witness>, scenario: &Scenario) -> Arc<Hub> {
        let inner = Inner {
            sent: Vec::new(),
            events: BTreeMap::new(),
            news: News::default(),
            calls: calls::Calls::default(),
            wires: Vec::new(),
            connected: BTreeMap::new(),
            links: BTreeMap::new(),
            locks: BTreeMap::new(),
            tokens: BTreeMap::new(),
            sessions: BTreeSet::new(),
            subscribed: BTreeSet::new(),
            packet_ids: BTreeMap::new(),
            last: 0,
            outage_until: None,
        };
        let (world, witness, faults) = (world.clone(), witness.clone(), scenario.faults);
        let has = |manner| scenario.manners.have(manner);
        Arc::new(Hub {
            world,
            witness,
            faults,
            keeps_locks: has(Manner::LocksOutlive),
            throttles: has(Manner::Throttles),
            loses_sessions: has(Manner::LostSessions),
            keeps_ledger: !has(Manner::LostLedger) && !has(Manner::RestoredLedger) && !has(Manner::OtherHub),
            sent: Notify::new(),
            sent_answer: Arc::default(),
            inner: Mutex::new(inner),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics while holding the hub")
    }

    /// The back end sends a message, which lives so long.
    pub fn send(&self, message: Message, life: Duration) {
        self.world.note(format_args!("sent {} {:?}", message.device, message));
        let enqueued_at = self.world.true_time();
        // Somebody else may have had it before, and given it back.
        let before = message.over != Over::Mqtt && self.world.strikes("hub: it was given back before", 30);
        let given_back = if before { self.world.pick(1..DELIVERIES_MAX.into()) as u32 } else { 0 };
        self.lock().sent.push(Sent {
            message,
            state: State::Queued,
            enqueued_at,
            expires_at: enqueued_at.plus(life),
            given_back,
            settled_at: None,
            delivered_at: None,
            received: Vec::new(),
            polled_at: None,
            redelivered: Vec::new(),
            concealed: 0,
        });
        self.sent.notify_waiters();
    }

    /// Nobody reaches the hub until then.
    pub fn go_out(&self, until: Instant) {
        let mut inner = self.lock();
        inner.outage_until = Some(until);
        inner.connected.clear();
        for wire in std::mem::take(&mut inner.wires) {
            wire.cut(End::Reset);
        }
    }

    fn is_received(&self, index: usize, life: u64) {
        let Sent { received, redelivered, .. } = &mut self.lock().sent[index];
        match received.iter().any(|(earlier, _)| *earlier == life) {
            true => redelivered.push((life, Instant::now())),
            false => received.push((life, Instant::now())),
        }
    }

    /// Everything that was sent, and where it stands.
    pub fn look<T>(&self, look: impl FnOnce(&[Sent], &BTreeMap<String, Vec<Event>>) -> T) -> T {
        let inner = self.lock();
        look(&inner.sent, &inner.events)
    }

    /// Whether every message that the gateway can have has come to its end.
    pub fn is_empty(&self) -> bool {
        self.lock().sent.iter().all(|sent| sent.state.is_over() || sent.message.hub != HUBS[0])
    }

    /// Judges a token that a device shows now, and tells when it expires. `None`: it does not count.
    fn judge_token(&self, life: u64, device: &str, token: &str) -> Option<Instant> {
        let expiry = token_expiry(token);
        let now = self.world.true_time();
        let valid = expiry.is_some_and(|expiry| expiry > now.as_secs() && expiry < now.as_secs() + 90_000);
        // A connection may have been on its way for a minute when the clock was put right.
        if !valid && self.world.peace_for(Duration::from_secs(120)) {
            self.world.violate(format!("{device}: a token that expires at {expiry:?}, and it is {now}"));
        }
        let shown = (life, expiry.unwrap_or_default());
        match self.lock().tokens.insert(device.to_owned(), shown) {
            Some((life, earlier)) if life == shown.0 && shown.1 > earlier + 200 => self.world.count("tokens renewed"),
            _ => {}
        }
        let left = u64::try_from(expiry? - now.as_secs()).unwrap_or(0);
        valid.then(|| Instant::now() + Duration::from_secs(left))
    }

    fn number(&self) -> u64 {
        let mut inner = self.lock();
        inner.last += 1;
        inner.last
    }

    /// The next message for a device, and when. What it has on this connection of MQTT's does not expire on it.
    fn next_for(&self, device: &str, host: &str, connection: Option<u64>) -> Option<(Instant, usize)> {
        let (now, wall) = (Instant::now(), self.world.true_time());
        let mut inner = self.lock();
        let mut next = None;
        for (index, sent) in inner.sent.iter_mut().enumerate() {
            if sent.message.device != device || sent.message.hub != host || sent.state.is_over() {
                continue;
            }
            let at = match sent.state {
                State::Delivered(on, until) if Some(on) == connection => until,
                State::Delivered(_, until) if until > now => until,
                _ if sent.expires_at <= wall => {
                    sent.state = State::Expired;
                    continue;
                }
                _ => now,
            };
            let is_sooner = next.is_none_or(|(sooner, _)| at < sooner);
            if is_sooner {
                next = Some((at, index));
            }
        }
        next
    }

    /// Hands a message out, to the present life of the process. `number`: under what.
    fn hand_out(&self, index: usize, number: u64) {
        let world = &self.world;
        let lock = match self.faults.short_locks && !world.faults_are_over() {
            true => world.time(200, 4_000),
            false => LOCK,
        };
        let mut inner = self.lock();
        let sent = &mut inner.sent[index];
        sent.state = State::Delivered(number, Instant::now() + lock);
        match sent.delivered_at {
            Some((life, _)) if life == world.life() => {}
            _ => sent.delivered_at = Some((world.life(), Instant::now())),
        }
        world.count("deliveries");
    }

    /// The same, under a lock of its own. Says whether it was handed out before.
    fn lock_out(&self, index: usize, life: u64, over: Over) -> (u64, bool) {
        let number = self.number();
        let again = matches!(self.lock().sent[index].state, State::Delivered(..));
        self.hand_out(index, number);
        if over == Over::Https {
            self.lock().sent[index].polled_at.get_or_insert_with(Instant::now);
        }
        self.lock().locks.insert(number, Lock { index, life, over, is_read: false, said: None });
        (number, again)
    }

    /// What is to be done when the gateway has read the message that was handed out under a lock.
    fn on_read(self: &Arc<Self>, lock: u64) -> impl FnOnce() + Send + 'static {
        // The wire is the hub's own.
        let hub = Arc::downgrade(self);
        move || {
            let Some(hub) = hub.upgrade() else { return };
            let found = hub.lock().locks.get_mut(&lock).map(|lock| {
                lock.is_read = true;
                (lock.index, lock.life)
            });
            if let Some((index, life)) = found {
                hub.is_received(index, life);
            }
        }
    }

    /// The gateway is about to say that a message that it has under this lock is at its end (G1).
    fn expect_settled(&self, lock: u64) {
        let message = {
            let inner = self.lock();
            inner.locks.get(&lock).map(|lock| inner.sent[lock.index].message.clone())
        };
        if let Some(message) = message {
            self.witness.expect_settled(&message);
        }
    }

    /// Something is said of the message under a lock. `false`: the lock is lost.
    fn settle(&self, lock: u64, said: Said) -> bool {
        let world = &self.world;
        let mut inner = self.lock();
        let Some(Lock { index, over, said: told, .. }) = inner.locks.get_mut(&lock) else { return false };
        *told = Some(said);
        let (index, over) = (*index, *over);
        let sent = &mut inner.sent[index];
        if !matches!(sent.state, State::Delivered(of, until) if of == lock && until > Instant::now()) {
            world.count("hub: a lock had run out");
            return false;
        }
        match said {
            Said::Complete => self.complete(sent),
            Said::Reject => {
                sent.state = State::Rejected;
                sent.settled_at = Some(Instant::now());
                world.count("rejected");
            }
            Said::Abandon => {
                // By AMQP among the last words on a link that the gateway ends.
                world.count(match over {
                    Over::Https => "https: a message is given back",
                    _ => "amqp: a message is given back",
                });
                sent.given_back += 1;
                sent.state = State::Queued;
                if sent.given_back >= DELIVERIES_MAX {
                    sent.state = State::GivenUp;
                    world.violate(format!("{:?} was given back so often that the hub gave it up", sent.message));
                }
            }
        }
        world.note(format_args!("{:?} of no. {index} under {lock}", said));
        drop(inner);
        self.sent.notify_waiters();
        true
    }

    fn complete(&self, sent: &mut Sent) {
        sent.state = State::Completed;
        sent.settled_at = Some(Instant::now());
        self.world.count("completed");
        let took = sent.delivered_at.map(|(_, at)| at.elapsed()).unwrap_or_default();
        let is_sound = self.faults.dead_line.is_some_and(|dead| dead != sent.message.line);
        if is_sound && took > SOUND_MAX {
            self.world.violate(format!("G11: {:?} took {took:?} beside a dead line", sent.message));
        }
    }

    /// An AMQP link has ended. What is locked under one of these waits for a connection again, or for its time.
    fn unlock(&self, locks: impl IntoIterator<Item = u64>) {
        let (now, mut inner) = (Instant::now(), self.lock());
        for lock in locks {
            let Some(index) = inner.locks.get(&lock).map(|lock| lock.index) else { continue };
            match inner.sent[index].state {
                State::Delivered(of, until) if of == lock && until > now && self.keeps_locks => {
                    self.world.count("amqp: a lock outlives its link");
                }
                State::Delivered(of, _) if of == lock => inner.sent[index].state = State::Queued,
                _ => {}
            }
        }
        drop(inner);
        self.sent.notify_waiters();
    }

    /// Notes that a message is about to go to its device past an earlier one, which is locked and not one of these.
    fn note_overtaking(&self, index: usize, own: &[u64]) {
        let (now, inner) = (Instant::now(), self.lock());
        let Message { device, hub, .. } = &inner.sent[index].message;
        let is_passed = inner.sent[..index].iter().any(|one| {
            let is_locked = matches!(one.state, State::Delivered(of, until) if until > now && !own.contains(&of));
            is_locked && (&one.message.device, &one.message.hub) == (device, hub)
        });
        if is_passed {
            self.world.count("amqp: a message past one that is locked");
        }
    }

    /// A device has a new connection of MQTT's, or a new AMQP link, with this number. Whoever had its messages before
    /// has them no more; what is locked by HTTPS stays locked, and by AMQP what the end of its link has not unlocked.
    fn is_attached(&self, device: &str, number: u64) {
        let mut inner = self.lock();
        if let Some((_, old)) = inner.connected.remove(device) {
            old.cut(End::Reset);
        }
        inner.links.insert(device.to_owned(), number);
        let Inner { sent, locks, .. } = &mut *inner;
        for sent in sent.iter_mut().filter(|sent| sent.message.device == device) {
            if matches!(sent.state, State::Delivered(of, _) if !locks.contains_key(&of)) {
                sent.state = State::Queued;
            }
        }
        drop(inner);
        self.sent.notify_waiters();
    }

    fn has_event(&self, device: &str, event: Event) {
        self.world.note(format_args!("{device} event {event:?}"));
        if news::line(&event).is_some() {
            self.judge_news(device);
            return self.lock().news.had.push(event);
        }
        self.lock().events.entry(device.to_owned()).or_default().push(event);
    }

    /// When a connection is cut from outside, and how, if it is.
    fn end_of_a_connection(&self) -> Option<(Instant, &'static str)> {
        let world = &self.world;
        if world.faults_are_over() || !world.chance(self.faults.cuts) {
            return None;
        }
        let after = match world.chance(300) {
            true => world.time(0, 1_000),
            false => world.time(0, 40_000),
        };
        let kinds = ["wire: reset", "wire: closed", "wire: half-open"];
        Some((Instant::now() + after, kinds[world.pick(0..3) as usize]))
    }

    fn takes_connection(&self, wire: &Wire) {
        let mut inner = self.lock();
        inner.wires.retain(|wire| !wire.is_over());
        inner.wires.push(wire.clone());
    }
}

/// A wire is cut from outside. Whether it is half-open now.
fn cut(wire: &Wire, how: &'static str) -> bool {
    match how {
        "wire: half-open" => wire.go_half_open(),
        "wire: reset" => wire.cut(End::Reset),
        _ => wire.cut(End::Closed),
    }
    how == "wire: half-open"
}

/// When a SAS token expires, s since 1970.
fn token_expiry(token: &str) -> Option<i64> {
    let fields = token.strip_prefix("SharedAccessSignature ")?;
    fields.split('&').find_map(|field| field.strip_prefix("se="))?.parse().ok()
}

async fn at_or_never(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Serves what was connected to an address, to its end.
async fn serve(hub: Arc<Hub>, wire: Wire, mut address: String) {
    let (world, refusals) = (hub.world.clone(), hub.faults.refusals);
    if address == tunnel::PROXY {
        let Some(to) = tunnel::connect(&world, &wire, refusals).await else { return };
        if world.chance(hub.faults.cuts / 8) {
            tokio::spawn(hub.clone().proxy_dies(world.time(0, 20_000)));
        }
        address = to;
    }
    let protocol = match address.rsplit(':').next() {
        Some("8443") => "mqtt",
        Some("5443") => "AMQPWSB10",
        _ => "",
    };
    if !protocol.is_empty() && !tunnel::open(&world, &wire, refusals, protocol).await {
        return;
    }
    match address.rsplit(':').next() {
        Some("1883" | "8443") => mqtt::serve(hub, wire).await,
        Some("5672" | "5443") => amqp::serve(hub, wire).await,
        Some("80") => https::serve(hub, wire).await,
        _ => panic!("nobody listens at {address}"),
    }
}

impl Hub {
    /// A proxy that all connections go through dies after a while, and comes back at once.
    async fn proxy_dies(self: Arc<Self>, after: Duration) {
        tokio::time::sleep(after).await;
        if !self.world.faults_are_over() {
            self.world.count("proxy: dies");
            self.lock().wires.iter().for_each(|wire| wire.cut(End::Reset));
        }
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
            self.0.takes_connection(&wire);
            tokio::spawn(serve(self.0.clone(), wire.clone(), address.to_owned()));
            Ok(Box::new(wire.near()) as Box<dyn Stream>)
        })
    }
}
