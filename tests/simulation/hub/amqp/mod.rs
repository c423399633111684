//! How a hub speaks AMQP: devices with tokens of their own share a connection, each with links of its own, of which the
//! hub ends any at any time.
//!
//! Its numbers are not the client's: it has channels, handles and counts of its own, some of them about to run over.

mod came;
mod methods;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fieldbridge::amqp::frame::{Body, Frame, Item, Protocol, Sasl};
use fieldbridge::amqp::types::definitions::{Handle, Role};
use fieldbridge::amqp::types::messaging::{DeliveryState, TargetArchetype};
use fieldbridge::amqp::types::performatives::{Attach, Begin, Close, Detach, Disposition, End, Open, Performative};
use fieldbridge::amqp::types::performatives::{Flow, Transfer};
use fieldbridge::amqp::types::sasl::{SaslCode, SaslMechanisms, SaslOutcome};
use tokio::time::{sleep, Instant};

use super::super::amqp::{self, Telling};
use super::super::scenario::Over;
use super::super::wire::{End as WireEnd, Wire};
use super::{at_or_never, cut, Hub};

/// The gateway wants to hear something each 120 s.
const HEARTBEAT: Duration = Duration::from_secs(50);
/// And is to be heard as often.
const IDLE_MS: u32 = 240_000;

/// Serves one connection to its end.
pub(super) async fn serve(hub: Arc<Hub>, wire: Wire) {
    let world = hub.world.clone();
    let wraps = world.chance(300);
    let mut serving = Serving {
        number: hub.number(),
        shift: if world.chance(300) { 7 } else { 0 },
        first: if wraps { u32::MAX - 2 } else { 0 },
        ends_at: hub.end_of_a_connection(),
        hub,
        wire: wire.clone(),
        tokens: BTreeMap::new(),
        sessions: BTreeMap::new(),
        links: BTreeMap::new(),
        given: Arc::default(),
        plans: Vec::new(),
        is_silent: false,
    };
    serving.watch_dispositions();
    serving.run(amqp::Reader::new(wire)).await;
    serving.unlock(|_| true);
}

/// What was delivered on each channel and not settled, in order: its number there, and its lock, if it is a message.
type Given = BTreeMap<u16, VecDeque<(u32, Option<u64>)>>;

/// A link, by the client's channel and handle.
type Key = (u16, u32);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Tokens,
    Answers,
    Messages(String),
    Events(String),
    Calls(String),
    CallAnswers(String),
}

struct Link {
    kind: Kind,
    /// Among all links; those of a pair have one.
    number: u64,
    /// Which pair it says that it is of.
    pair: Option<String>,
    /// How many messages went or came on it, and how many more may.
    count: u32,
    credit: u32,
    /// Of a message that comes: its number and what came.
    partial: (u32, Vec<u8>),
    /// Nothing is delivered before this.
    quiet_until: Instant,
    /// The hub has ended it.
    is_over: bool,
}

struct Session {
    transfers: u32,
    deliveries: u32,
    /// The hub has ended it.
    is_over: bool,
}

/// What is to be done at its time.
enum Plan {
    Heartbeat,
    Answer(u16, String, i32),
    Grant(Key),
    Detach(Key, &'static str, &'static str),
    End(u16),
    Close,
    TokenEnds(String),
}

struct Serving {
    hub: Arc<Hub>,
    wire: Wire,
    number: u64,
    /// How far the hub's channels and handles are from the client's.
    shift: u16,
    /// Where its counts begin.
    first: u32,
    ends_at: Option<(Instant, &'static str)>,
    /// The hub that a device's token is for, and when the token ends.
    tokens: BTreeMap<String, (String, Instant)>,
    sessions: BTreeMap<u16, Session>,
    links: BTreeMap<Key, Link>,
    given: Arc<Mutex<Given>>,
    plans: Vec<(Instant, Plan)>,
    /// It does nothing any more.
    is_silent: bool,
}

impl Serving {
    async fn run(&mut self, mut reader: amqp::Reader) {
        loop {
            let next = if self.is_silent { None } else { self.next_delivery() };
            let called = if self.is_silent { None } else { self.next_call() };
            let planned = self.plans.iter().map(|(at, _)| *at).min();
            tokio::select! {
                biased;
                () = at_or_never(self.ends_at.map(|(at, _)| at)) => {
                    let (_, how) = self.ends_at.take().expect("it was waited for");
                    self.hub.world.count(how);
                    self.is_silent = cut(&self.wire, how);
                }
                item = reader.next() => match item {
                    Some(item) => self.on_item(item).await,
                    None => return self.wire.cut(WireEnd::Closed),
                },
                () = at_or_never(planned) => self.carry_out(),
                () = at_or_never(next.as_ref().map(|(at, ..)| *at)) => {
                    if let Some((_, key, index)) = next {
                        self.deliver(key, index);
                    }
                }
                () = at_or_never(called.as_ref().map(|(at, ..)| *at)) => {
                    if let Some((_, key, request, message)) = called {
                        self.call(key, request, &message);
                    }
                }
                () = self.hub.sent.notified() => {}
                () = sleep(Duration::from_secs(3600)) => {}
            }
            if self.wire.is_over() {
                return;
            }
            self.leave_to_others();
        }
    }

    fn strikes(&self, fault: &'static str, permille: u64) -> bool {
        self.hub.world.strikes(fault, permille)
    }

    fn given(&self) -> MutexGuard<'_, Given> {
        self.given.lock().expect("nobody panics while holding it")
    }

    fn say(&self, channel: u16, performative: Performative) {
        self.wire.send(&amqp::frame(channel + self.shift, performative, b""));
    }

    fn ours(&self, handle: u32) -> u32 {
        handle + u32::from(self.shift)
    }

    fn plan(&mut self, from_ms: u64, to_ms: u64, plan: Plan) {
        let at = Instant::now() + self.hub.world.time(from_ms, to_ms);
        self.plans.push((at, plan));
    }

    fn carry_out(&mut self) {
        let at = self.plans.iter().map(|(at, _)| *at).min();
        let due = self.plans.iter().position(|(planned, _)| Some(*planned) == at);
        let Some((_, plan)) = due.map(|due| self.plans.remove(due)) else { return };
        if self.is_silent {
            return;
        }
        match plan {
            Plan::Heartbeat => {
                self.wire.send(&amqp::bytes(&Item::Frame(Frame::heartbeat())));
                self.plans.push((Instant::now() + HEARTBEAT, Plan::Heartbeat));
            }
            Plan::Answer(channel, to, status) => self.answer(channel, &to, status),
            Plan::Grant(key) => self.grant(key),
            Plan::Detach(key, fault, condition) => {
                if self.links.get(&key).is_some_and(|link| !link.is_over) && !self.hub.world.faults_are_over() {
                    self.hub.world.count(fault);
                    self.detach(key, condition);
                }
            }
            Plan::End(channel) => self.end_session(channel),
            Plan::Close => {
                if self.strikes("amqp: closes with an error", 1000) {
                    let error = Some(amqp::error("amqp:connection:forced"));
                    self.wire.send(&amqp::frame(0, Performative::Close(Close { error }), b""));
                    self.is_silent = true;
                }
            }
            Plan::TokenEnds(device) => {
                if self.tokens.get(&device).is_some_and(|(_, end)| *end <= Instant::now()) {
                    self.hub.world.count("hub: a token has expired");
                    self.tokens.remove(&device);
                    for key in self.keys_of(|kind| kind.is_of(&device)) {
                        self.detach(key, "amqp:unauthorized-access");
                    }
                }
            }
        }
    }

    fn keys_of(&self, is_wanted: impl Fn(&Kind) -> bool) -> Vec<Key> {
        let wanted = self.links.iter().filter(|(_, link)| is_wanted(&link.kind) && !link.is_over);
        wanted.map(|(key, _)| *key).collect()
    }

    /// Whoever attached last has a device's messages.
    fn leave_to_others(&mut self) {
        for key in self.keys_of(|kind| matches!(kind, Kind::Messages(_))) {
            let Some(Link { kind: Kind::Messages(device), number, .. }) = self.links.get(&key) else { continue };
            if self.hub.lock().links.get(device) != Some(number) {
                self.detach(key, "amqp:link:stolen");
            }
        }
        self.leave_calls_to_others();
    }

    fn detach(&mut self, key: Key, condition: &'static str) {
        let Some(link) = self.links.get_mut(&key) else { return };
        link.is_over = true;
        let error = Some(amqp::error(condition));
        let detach = Detach { handle: Handle(self.ours(key.1)), closed: true, error };
        self.say(key.0, Performative::Detach(detach));
        self.unlock_of(key);
    }

    /// A link has ended: what came on it can be delivered elsewhere.
    fn unlock_of(&self, key: Key) {
        match &self.links[&key] {
            Link { kind: Kind::Messages(_), .. } => self.unlock(|channel| channel == key.0),
            Link { kind: Kind::Calls(device), number, .. } => self.hub.listens_no_more(device, *number),
            _ => {}
        }
    }

    fn end_session(&mut self, channel: u16) {
        let is_there = self.sessions.get(&channel).is_some_and(|session| !session.is_over);
        if !is_there || !self.strikes("amqp: ends a session", 1000) {
            return;
        }
        let error = Some(amqp::error("amqp:internal-error"));
        self.say(channel, Performative::End(End { error }));
        self.end_calls(channel);
        self.sessions.entry(channel).and_modify(|session| session.is_over = true);
        self.links.iter_mut().filter(|((of, _), _)| *of == channel).for_each(|(_, link)| link.is_over = true);
        self.unlock(|of| of == channel);
    }

    /// What was delivered on these channels can be delivered elsewhere, at once or when it is locked no more.
    fn unlock(&self, on: impl Fn(u16) -> bool) {
        let locks = self.locks(on);
        self.hub.unlock(locks);
    }

    fn locks(&self, on: impl Fn(u16) -> bool) -> Vec<u64> {
        let given = self.given();
        let all = given.iter().filter(|(channel, _)| on(**channel));
        all.flat_map(|(_, given)| given.iter().filter_map(|(_, lock)| *lock)).collect()
    }

    /// The next message, and when and where it is to be delivered.
    fn next_delivery(&self) -> Option<(Instant, Key, usize)> {
        let next = self.links.iter().filter_map(|(key, link)| {
            let Kind::Messages(device) = &link.kind else { return None };
            let (host, _) = self.tokens.get(device).filter(|_| link.credit > 0 && !link.is_over)?;
            let (at, index) = self.hub.next_for(device, host, None)?;
            Some((at.max(link.quiet_until), *key, index))
        });
        next.min_by_key(|(at, ..)| *at)
    }

    fn deliver(&mut self, key: Key, index: usize) {
        let world = self.hub.world.clone();
        self.hub.note_overtaking(index, &self.locks(|channel| channel == key.0));
        let (lock, again) = self.hub.lock_out(index, self.wire.life, Over::Amqp);
        if again {
            world.count("amqp: delivers again when a lock has run out");
        }
        let payload = {
            let inner = self.hub.lock();
            let sent = &inner.sent[index];
            amqp::to_device(&Telling {
                device: &sent.message.device,
                id: sent.message.id.as_deref(),
                body: &sent.message.body,
                sequence: index as u64 + 1,
                given_back: sent.given_back,
                enqueued_at: sent.enqueued_at,
                expires_at: sent.message.expires_at(),
            })
        };
        let quiet_until = Instant::now() + world.time(0, 60);
        let id = self.next_id(key.0);
        let Some(link) = self.links.get_mut(&key) else { return };
        (link.credit, link.count, link.quiet_until) = (link.credit - 1, link.count.wrapping_add(1), quiet_until);
        self.given().entry(key.0).or_default().push_back((id, Some(lock)));
        world.note(format_args!("#{} delivers no. {index} as {id} under {lock}", self.number));
        let frames = if world.chance(150) { 2 + world.pick(0..4) as usize } else { 1 };
        let (before, last) = amqp::transfers(key.0 + self.shift, self.ours(key.1), id, &payload, frames);
        if !before.is_empty() {
            world.count("amqp: a message in several frames");
            self.wire.send(&before);
        }
        self.wire.send_and_tell(&last, self.hub.on_read(lock));
        if self.hub.keeps_locks && world.chance(200) {
            self.plan(0, 80, Plan::Detach(key, "amqp: detaches the link behind a message", "amqp:internal-error"));
        }
    }

    fn next_id(&mut self, channel: u16) -> u32 {
        let session = self.sessions.get_mut(&channel).expect("a link has a session");
        let id = session.deliveries;
        session.deliveries = id.wrapping_add(1);
        id
    }

    /// Looks at each disposition when the gateway writes it: what it stands on must be durable by then (G1).
    fn watch_dispositions(&self) {
        let (mut splitter, mut answers) = (amqp::Splitter::default(), methods::Answers::default());
        // The wire is the hub's own.
        let (hub, given) = (Arc::downgrade(&self.hub), self.given.clone());
        self.wire.overhear(move |bytes| {
            let Some(hub) = hub.upgrade() else { return };
            for item in splitter.take(bytes) {
                let Item::Frame(Frame { channel, body: Body::Performative(performative), payload }) = item else {
                    continue;
                };
                answers.look(&hub, channel, &performative, &payload);
                let Performative::Disposition(Disposition { first, last, state, role, .. }) = performative else {
                    continue;
                };
                let is_end = matches!(state, Some(DeliveryState::Accepted(_) | DeliveryState::Rejected(_)));
                if role == Role::Sender || !is_end {
                    continue;
                }
                let given = given.lock().expect("nobody panics while holding it");
                let told = given.get(&channel).into_iter().flatten().filter(|(id, _)| is_among(*id, first, last));
                told.filter_map(|(_, lock)| *lock).for_each(|lock| hub.expect_settled(lock));
            }
        });
    }

    async fn on_item(&mut self, item: Item) {
        if self.is_silent {
            return;
        }
        match item {
            Item::Header(protocol) => {
                self.wire.send(&amqp::bytes(&Item::Header(protocol)));
                if protocol == Protocol::Sasl {
                    let offered =
                        SaslMechanisms { sasl_server_mechanisms: vec!["PLAIN".into(), "ANONYMOUS".into()].into() };
                    self.wire.send(&amqp::bytes(&Item::Frame(Frame::sasl(Sasl::Mechanisms(offered)))));
                }
            }
            Item::Frame(Frame { body: Body::Sasl(_), .. }) => {
                let refuses = self.strikes("amqp: refuses by SASL", self.hub.faults.refusals / 2);
                let code = if refuses { SaslCode::SysTemp } else { SaslCode::Ok };
                let outcome = SaslOutcome { code, additional_data: None };
                self.wire.send(&amqp::bytes(&Item::Frame(Frame::sasl(Sasl::Outcome(outcome)))));
            }
            Item::Frame(Frame { body: Body::Heartbeat, .. }) => {}
            Item::Frame(Frame { channel, body: Body::Performative(performative), payload }) => match performative {
                Performative::Open(open) => self.on_open(open).await,
                Performative::Close(_) => {
                    self.wire.send(&amqp::frame(0, Performative::Close(Close { error: None }), b""));
                    self.is_silent = true;
                }
                Performative::Begin(begin) => self.on_begin(channel, begin),
                Performative::End(_) => self.on_end(channel),
                // What was on its way when the hub ended it.
                _ if self.sessions.get(&channel).is_none_or(|session| session.is_over) => {}
                Performative::Attach(attach) => self.on_attach(channel, attach),
                Performative::Detach(detach) => self.on_detach((channel, detach.handle.0)),
                Performative::Flow(flow) => self.on_flow(channel, &flow),
                Performative::Transfer(transfer) => self.on_transfer(channel, &transfer, &payload),
                Performative::Disposition(disposition) => self.on_disposition(channel, &disposition),
            },
        }
    }

    async fn on_open(&mut self, open: Open) {
        let refusals = self.hub.faults.refusals;
        if self.strikes("amqp: delays its Open", refusals) {
            sleep(self.hub.world.time(1_000, 70_000)).await;
        }
        if self.strikes("amqp: closes instead of Open", refusals / 2) {
            return self.wire.cut(WireEnd::Closed);
        }
        let answer = Open { container_id: "hub".into(), hostname: None, idle_time_out: Some(IDLE_MS), ..open };
        self.wire.send(&amqp::frame(0, Performative::Open(answer), b""));
        self.plans.push((Instant::now() + HEARTBEAT, Plan::Heartbeat));
        if self.hub.world.chance(self.hub.faults.cuts / 4) {
            self.plan(0, 40_000, Plan::Close);
        }
    }

    fn on_begin(&mut self, channel: u16, begin: Begin) {
        let session = Session { transfers: begin.next_outgoing_id, deliveries: self.first, is_over: false };
        self.sessions.insert(channel, session);
        let answer = Begin {
            remote_channel: Some(channel),
            next_outgoing_id: self.first,
            incoming_window: amqp::WINDOW,
            ..begin
        };
        self.say(channel, Performative::Begin(answer));
        if self.hub.world.chance(self.hub.faults.cuts / 8) {
            self.plan(0, 40_000, Plan::End(channel));
        }
    }

    fn on_end(&mut self, channel: u16) {
        self.unlock(|of| of == channel);
        self.end_calls(channel);
        self.links.retain(|(of, _), _| *of != channel);
        self.given().remove(&channel);
        if self.sessions.remove(&channel).is_some_and(|session| !session.is_over) {
            self.say(channel, Performative::End(End { error: None }));
        }
    }

    fn on_attach(&mut self, channel: u16, attach: Attach) {
        let (handle, is_receiver) = (attach.handle.0, attach.role == Role::Receiver);
        let (kind, pair) = (Kind::of(&address(&attach), is_receiver), methods::pair(&attach));
        let refuses = self.strikes("amqp: refuses a link", self.hub.faults.refusals / 2);
        let is_allowed = match &kind {
            Kind::Messages(device) | Kind::Events(device) | Kind::Calls(device) | Kind::CallAnswers(device) => {
                self.tokens.contains_key(device)
            }
            Kind::Tokens | Kind::Answers => true,
        };
        let role = if is_receiver { Role::Sender } else { Role::Receiver };
        let initial_delivery_count = is_receiver.then_some(self.first);
        let mut answer = Attach { role, initial_delivery_count, handle: Handle(self.ours(handle)), ..attach };
        if refuses {
            (answer.source, answer.target) =
                (answer.source.filter(|_| !is_receiver), answer.target.filter(|_| is_receiver));
        }
        self.say(channel, Performative::Attach(answer));
        let number = self.number_of(pair.as_deref());
        let link = Link {
            number,
            pair,
            count: if is_receiver { self.first } else { 0 },
            credit: 0,
            partial: (0, Vec::new()),
            quiet_until: Instant::now(),
            is_over: false,
            kind: kind.clone(),
        };
        let key = (channel, handle);
        self.links.insert(key, link);
        // An attach that is answered is no permission.
        match (is_allowed, refuses) {
            (false, _) => return self.detach(key, "amqp:unauthorized-access"),
            (_, true) => return self.detach(key, "com.microsoft:device-container-throttled"),
            _ => {}
        }
        match &kind {
            Kind::Messages(device) => self.hub.is_attached(device, number),
            Kind::Calls(device) => self.hub.listens_by_amqp(device, number, &self.wire),
            _ => {}
        }
        if !is_receiver {
            self.grant(key);
        }
        if self.hub.world.chance(self.hub.faults.cuts / 3) {
            let fault = match kind {
                Kind::Messages(_) => "amqp: detaches the link of messages",
                Kind::Events(_) => "amqp: detaches the link of events",
                Kind::Calls(_) | Kind::CallAnswers(_) => "amqp: detaches a link of calls",
                Kind::Tokens | Kind::Answers => "amqp: detaches $cbs",
            };
            let condition = ["amqp:internal-error", "com.microsoft:timeout", "amqp:link:detach-forced"];
            let condition = condition[self.hub.world.pick(0..3) as usize];
            self.plan(0, 40_000, Plan::Detach(key, fault, condition));
        }
    }

    fn on_detach(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(&key) else { return };
        if !std::mem::replace(&mut link.is_over, true) {
            let detach = Detach { handle: Handle(self.ours(key.1)), closed: true, error: None };
            self.say(key.0, Performative::Detach(detach));
            self.unlock_of(key);
        }
    }

    /// Lets more come.
    fn grant(&mut self, key: Key) {
        let most = self.hub.world.pick(1..20) as u32;
        let transfers = self.sessions.get(&key.0).map_or(0, |session| session.transfers);
        let Some(link) = self.links.get_mut(&key).filter(|link| !link.is_over) else { return };
        // Requests for tokens are never held up.
        link.credit = if link.kind == Kind::Tokens { 100 } else { most };
        let (count, credit) = (link.count, link.credit);
        self.say(key.0, amqp::credit(self.ours(key.1), count, credit, transfers));
    }

    fn on_flow(&mut self, channel: u16, flow: &Flow) {
        let Some(Handle(handle)) = flow.handle else { return };
        let Some(link) = self.links.get_mut(&(channel, handle)) else { return };
        let end = flow.delivery_count.unwrap_or(self.first).wrapping_add(flow.link_credit.unwrap_or_default());
        let left = end.wrapping_sub(link.count);
        link.credit = if left > flow.link_credit.unwrap_or_default() { 0 } else { left };
    }

    fn on_transfer(&mut self, channel: u16, transfer: &Transfer, payload: &[u8]) {
        self.sessions.entry(channel).and_modify(|session| session.transfers = session.transfers.wrapping_add(1));
        let key = (channel, transfer.handle.0);
        let Some(link) = self.links.get_mut(&key).filter(|link| !link.is_over) else { return };
        if link.partial.1.is_empty() {
            link.partial.0 = transfer.delivery_id.expect("the first frame of a message has its number");
            link.count = link.count.wrapping_add(1);
            match link.credit.checked_sub(1) {
                Some(left) => link.credit = left,
                None => self.hub.world.violate(format!("#{}: more came on {:?} than may", self.number, link.kind)),
            }
        }
        link.partial.1.extend(payload);
        if transfer.more {
            return;
        }
        let (id, message) = std::mem::take(&mut link.partial);
        let (is_spent, kind) = (link.credit == 0, link.kind.clone());
        match kind {
            Kind::Tokens => self.on_token(channel, id, &message),
            Kind::Events(device) => self.on_event(channel, id, &device, &message),
            Kind::CallAnswers(_) => self.on_answer(key, transfer, &message),
            other => panic!("nothing can be sent on {other:?}"),
        }
        match is_spent {
            true if self.strikes("amqp: lets events wait for credit", self.hub.faults.lost_acks) => {
                self.plan(1_000, 20_000, Plan::Grant(key));
            }
            true => self.grant(key),
            false => {}
        }
    }
}

impl Kind {
    fn of(address: &str, is_receiver: bool) -> Kind {
        let parts: Vec<&str> = address.trim_start_matches('/').split('/').collect();
        match (&parts[..], is_receiver) {
            (["$cbs"], true) => Kind::Answers,
            (["$cbs"], false) => Kind::Tokens,
            (["devices", device, "messages", "devicebound"], true) => Kind::Messages((*device).to_owned()),
            (["devices", device, "messages", "events"], false) => Kind::Events((*device).to_owned()),
            (["devices", device, "methods", "devicebound"], true) => Kind::Calls((*device).to_owned()),
            (["devices", device, "methods", "devicebound"], false) => Kind::CallAnswers((*device).to_owned()),
            _ => panic!("no link of a hub's has the address {address:?}"),
        }
    }

    fn is_of(&self, device: &str) -> bool {
        match self {
            Kind::Messages(of) | Kind::Events(of) | Kind::Calls(of) | Kind::CallAnswers(of) => of == device,
            Kind::Tokens | Kind::Answers => false,
        }
    }
}

/// What a link is to.
fn address(attach: &Attach) -> String {
    let address = match (&attach.source, attach.target.as_deref()) {
        (Some(source), _) if attach.role == Role::Receiver => source.address.clone(),
        (_, Some(TargetArchetype::Target(target))) => target.address.clone(),
        _ => None,
    };
    address.unwrap_or_default()
}

/// Whether a number is one of those from `first` to `last`, or `first` itself.
fn is_among(id: u32, first: u32, last: Option<u32>) -> bool {
    id.wrapping_sub(first) <= last.unwrap_or(first).wrapping_sub(first)
}
