//! One connection of a client, as a value: headers and frames go in, events come out; commands go in, bytes come out.
//! No I/O, no clock: times are arguments.
//!
//! Sources: AMQP 1.0 "Transport" 2.4 (connections), 2.5 (sessions), 2.6 (links), "Security" 5.3 (SASL).
//!
//! Invariants
//! - Whatever a peer sends ends in events or in one [`Wrong`], which ends the connection; it makes nothing grow beyond
//!   the sizes named here, what is to be sent to it included.
//! - Nothing is resumed: a link or a session that has ended is not made again under its name, and an engine is of one
//!   connection (G6).
//! - A session that is of one user is not touched by what happens on another.

mod counters;
mod link;
mod session;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use fe2o3_amqp_types::definitions::{self, ErrorCondition, Fields};
use fe2o3_amqp_types::performatives::{Close, Open, Performative};
use fe2o3_amqp_types::sasl::{SaslCode, SaslInit};
use serde_amqp::primitives::Symbol;

use crate::complaint::said;

use super::frame::{self, Body, Frame, Item, Protocol, Sasl, FRAME_MAX, FRAME_MIN};
use session::Session;

/// The largest delivery that is kept whole: four times what the hub takes from anybody.
pub const DELIVERY_MAX: usize = 1024 * 1024;

/// Most sessions of a connection.
pub const SESSIONS_MAX: u16 = 1024;

/// While so many bytes wait to be sent, nothing more is put behind them that can wait.
const OUT_MAX: usize = 256 * 1024;

/// A peer that has made so many bytes wait asks for answers that it does not take: what is ours stops at [`OUT_MAX`].
const OUT_END: usize = 4 * OUT_MAX;

/// Longest condition and description of an error that are kept, in bytes.
const CONDITION_MAX: usize = 80;
const DESCRIPTION_MAX: usize = 300;

/// How a connection is made.
pub struct Settings {
    /// A name that no other connection of this program has.
    pub container_id: String,
    /// The peer's name, whatever lies between.
    pub hostname: String,
    /// The SASL mechanisms that are asked for, if the peer offers them: the first that it does.
    pub mechanisms: &'static [&'static str],
    /// How long the peer may be silent, as it is told. What it then does is up to it: it is given up after half as long
    /// again.
    pub idle_timeout: Duration,
}

/// One of the connection's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u16);

/// One of a session's links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkId {
    /// The session that it is of.
    pub session: SessionId,
    handle: u32,
}

/// A link that is to be attached.
pub struct Attaching {
    /// Its name; no other attempt on this connection has it.
    pub name: String,
    /// Where its deliveries come from, or go to.
    pub address: String,
    /// What the peer is to call our end of it, if anything.
    pub local: Option<String>,
    /// Which way they go.
    pub direction: Direction,
    /// What the peer is told beside.
    pub properties: Option<Fields>,
}

/// Which way deliveries go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To us, so many of them at a time that are not settled.
    In(u32),
    /// The same, where the peer is asked to settle each as it sends it.
    InOnce(u32),
    /// To the peer; at most so many that wait, or whose end it has not told.
    Out(usize),
    /// The same, where each is settled as it is sent: nothing is told of what becomes of it. At most so many wait.
    OutOnce(usize),
}

/// Why the peer ended something. Both texts are as [`said`] leaves them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The condition's symbol, such as `amqp:not-found`.
    pub condition: String,
    /// What it says beside. Empty if nothing.
    pub description: String,
}

impl Problem {
    /// Of an error that the peer gave.
    pub fn of(error: &definitions::Error) -> Problem {
        let symbol: Symbol = match &error.condition {
            ErrorCondition::AmqpError(condition) => condition.into(),
            ErrorCondition::ConnectionError(condition) => condition.into(),
            ErrorCondition::SessionError(condition) => condition.into(),
            ErrorCondition::LinkError(condition) => condition.into(),
            ErrorCondition::Custom(symbol) => symbol.clone(),
        };
        let description = error.description.as_deref().unwrap_or_default();
        Problem { condition: said(&symbol.0, CONDITION_MAX), description: said(description, DESCRIPTION_MAX) }
    }
}

/// A delivery that came.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its number on its session.
    pub id: u32,
    /// The message, joined from the frames that it came in; of one that is too large, its beginning.
    pub payload: Bytes,
    /// Whether that is all of it.
    pub is_whole: bool,
}

/// What is to become of a delivery that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// It was taken.
    Accept,
    /// It can't be taken by anybody.
    Reject,
    /// It is given back.
    Release,
    /// The peer is told nothing, and finds out by itself; there is room for another.
    Forget,
}

/// What became of a delivery that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The peer has it.
    Accepted,
    /// The peer doesn't take it.
    Rejected(Option<Problem>),
    /// The peer doesn't take it now.
    Released,
    /// The peer settled it, and did not say how.
    Untold,
}

/// What happens on a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// It is open, and has room for so many sessions.
    Opened {
        /// Most sessions, those included that there are.
        sessions: usize,
    },
    /// A link is attached. That is no permission: it may be detached right after.
    Attached(LinkId),
    /// A delivery came on a link. It may have ended meanwhile, at our wish: nothing can be said of the delivery then,
    /// and the peer may keep it locked.
    Delivered(LinkId, Delivery),
    /// What became of the delivery that was sent under this number.
    Sent(LinkId, u64, Outcome),
    /// The peer has detached a link.
    Detached(LinkId, Option<Problem>),
    /// A session has ended, and its links with it: the peer has ended it, or has answered to that we did.
    Ended(SessionId, Option<Problem>),
    /// The peer has closed the connection, or has answered to that we did.
    Closed(Option<Problem>),
}

/// Why a connection can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// SASL: the peer lets nobody in with what was shown.
    #[error("SASL with {asked} ends with that {why}")]
    Refused {
        /// What was asked for.
        asked: String,
        /// What it says.
        why: String,
    },
    /// What came is not AMQP, or not what may come now.
    #[error("{0}")]
    Protocol(String),
    /// Nothing came for longer than the peer was told.
    #[error("nothing came for {} s", .0.as_secs())]
    Silent(Duration),
}

fn wrong<T>(why: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong::Protocol(why.into()))
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    SaslHeader,
    Mechanisms,
    Outcome,
    Header,
    Opening,
    Open,
    /// We have closed it, and the peer has not answered.
    Closing,
    Closed,
}

/// What all sessions write to.
struct Out {
    bytes: BytesMut,
    frame_max: usize,
    events: VecDeque<Event>,
    /// Messages wait for room, and for nothing else.
    is_held_up: bool,
    /// What could not be sent; the connection can't go on.
    failure: Option<String>,
}

impl Out {
    fn has_room(&self) -> bool {
        self.bytes.len() < OUT_MAX
    }

    fn put(&mut self, item: &Item) {
        if let Err(error) = frame::encode(item, self.frame_max, &mut self.bytes) {
            self.failure.get_or_insert(format!("what is to be sent can't be: {error}"));
        }
    }

    fn say(&mut self, channel: u16, performative: Performative) {
        self.put(&Item::Frame(Frame::of(channel, performative)));
    }
}

/// One connection.
pub struct Engine {
    settings: Settings,
    phase: Phase,
    out: Out,
    /// By their channels.
    sessions: Vec<Option<Session>>,
    /// Our channel by the peer's.
    channels: HashMap<u16, u16>,
    sessions_max: u16,
    /// How often something must be sent.
    beat: Option<Duration>,
    heard: Instant,
    sent: Instant,
}

impl Engine {
    /// A connection on a stream that has just been made.
    pub fn new(settings: Settings, now: Instant) -> Engine {
        let out = Out {
            bytes: BytesMut::new(),
            frame_max: FRAME_MAX,
            events: VecDeque::new(),
            is_held_up: false,
            failure: None,
        };
        let mut engine = Engine {
            settings,
            phase: Phase::SaslHeader,
            out,
            sessions: Vec::new(),
            channels: HashMap::new(),
            sessions_max: 0,
            beat: None,
            heard: now,
            sent: now,
        };
        engine.out.put(&Item::Header(Protocol::Sasl));
        engine
    }

    /// What happened since the last call.
    pub fn event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    /// Deliveries that came on a session, and have not been told of: of one whose end does not wait for its turn.
    pub fn deliveries_of(&mut self, session: SessionId) -> Vec<(LinkId, Delivery)> {
        let is_its = |event: &Event| matches!(event, Event::Delivered(link, _) if link.session == session);
        let (its, others) = self.out.events.drain(..).partition::<VecDeque<_>, _>(is_its);
        self.out.events = others;
        let delivery = |event| match event {
            Event::Delivered(link, delivery) => Some((link, delivery)),
            _ => None,
        };
        its.into_iter().filter_map(delivery).collect()
    }

    /// What is to be sent: to be taken out from its front.
    pub fn bytes(&mut self) -> &mut BytesMut {
        &mut self.out.bytes
    }

    /// Whether more may be asked of it: not as much waits to be sent as may.
    pub fn has_room(&self) -> bool {
        self.out.has_room()
    }

    /// Something was sent. Messages that waited for room go next.
    pub fn sent(&mut self, now: Instant) {
        self.sent = now;
        if self.phase == Phase::Open && self.out.has_room() && std::mem::take(&mut self.out.is_held_up) {
            for session in self.sessions.iter_mut().flatten() {
                session.go_on(&mut self.out);
            }
        }
    }

    /// Whether the connection is over, and nothing is to be heard any more.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// When [`Engine::on_time`] is due.
    pub fn due(&self) -> Instant {
        let patience = self.heard + self.patience();
        // What waits to be sent is a sign of life in itself.
        let beat = self.beat.filter(|_| self.out.bytes.is_empty());
        beat.map_or(patience, |beat| patience.min(self.sent + beat))
    }

    fn patience(&self) -> Duration {
        self.settings.idle_timeout * 3 / 2
    }

    /// Looks at the time.
    ///
    /// # Errors
    /// The peer is silent for too long.
    pub fn on_time(&mut self, now: Instant) -> Result<(), Wrong> {
        if now >= self.heard + self.patience() {
            return Err(Wrong::Silent(self.patience()));
        }
        if self.beat.is_some_and(|beat| now >= self.sent + beat) && self.out.bytes.is_empty() {
            self.out.put(&Item::Frame(Frame::heartbeat()));
            self.sent = now;
        }
        Ok(())
    }

    /// Takes what came.
    ///
    /// # Errors
    /// The connection can't go on. What may be said to the peer of that is written still.
    pub fn receive(&mut self, item: Item, now: Instant) -> Result<(), Wrong> {
        self.heard = now;
        let taken = self.take(item);
        let taken = taken.and_then(|()| match self.out.failure.take() {
            Some(failure) => wrong(failure),
            None if self.out.bytes.len() > OUT_END => wrong("it asks for more answers than it takes"),
            None => Ok(()),
        });
        if let Err(Wrong::Protocol(why)) = &taken {
            self.give_up(why);
        }
        taken
    }

    /// What was received can't be read: says so to the peer.
    pub fn give_up(&mut self, why: &str) {
        if self.phase == Phase::Open {
            let condition = definitions::ConnectionError::FramingError;
            self.close(Some(definitions::Error::new(condition, Some(why.to_owned()), None)));
        }
        self.phase = Phase::Closed;
    }

    fn take(&mut self, item: Item) -> Result<(), Wrong> {
        match (self.phase, item) {
            (Phase::SaslHeader, Item::Header(Protocol::Sasl)) => {
                self.phase = Phase::Mechanisms;
                Ok(())
            }
            (Phase::Header, Item::Header(Protocol::Amqp)) => {
                self.phase = Phase::Opening;
                Ok(())
            }
            (_, Item::Header(_)) => wrong("a protocol header that does not belong here"),
            (Phase::Mechanisms | Phase::Outcome, Item::Frame(Frame { body: Body::Sasl(sasl), .. })) => {
                self.on_sasl(sasl)
            }
            (Phase::Opening | Phase::Open | Phase::Closing, Item::Frame(Frame { channel, body, payload })) => {
                match body {
                    Body::Heartbeat => Ok(()),
                    Body::Sasl(_) => wrong("a SASL frame after SASL"),
                    Body::Performative(performative) => self.on_performative(channel, performative, payload),
                }
            }
            (Phase::Closed, _) => Ok(()),
            (_, Item::Frame(_)) => wrong("a frame before its time"),
        }
    }

    fn on_sasl(&mut self, sasl: Sasl) -> Result<(), Wrong> {
        let refused = |why: String| Err(Wrong::Refused { asked: self.settings.mechanisms.join(" or "), why });
        match (self.phase, sasl) {
            (Phase::Mechanisms, Sasl::Mechanisms(offered)) => {
                let offered: Vec<&str> = offered.sasl_server_mechanisms.0.iter().map(Symbol::as_str).collect();
                let Some(mechanism) = self.settings.mechanisms.iter().find(|wanted| offered.contains(wanted)) else {
                    return refused(format!("it offers {}", said(&offered.join(", "), DESCRIPTION_MAX)));
                };
                let hostname = Some(self.settings.hostname.clone());
                let init = SaslInit { mechanism: (*mechanism).into(), initial_response: None, hostname };
                self.out.put(&Item::Frame(Frame::sasl(Sasl::Init(init))));
                self.phase = Phase::Outcome;
                Ok(())
            }
            (Phase::Outcome, Sasl::Outcome(outcome)) => match outcome.code {
                SaslCode::Ok => {
                    self.out.put(&Item::Header(Protocol::Amqp));
                    self.open();
                    self.phase = Phase::Header;
                    Ok(())
                }
                SaslCode::Auth => refused("what was shown is not valid".into()),
                SaslCode::Sys | SaslCode::SysPerm => refused("it has a fault of its own".into()),
                SaslCode::SysTemp => refused("it has a fault of its own, for now".into()),
            },
            _ => wrong("a SASL frame that does not belong here"),
        }
    }

    fn open(&mut self) {
        let open = Open {
            container_id: self.settings.container_id.clone(),
            hostname: Some(self.settings.hostname.clone()),
            max_frame_size: (FRAME_MAX as u32).into(),
            channel_max: (SESSIONS_MAX - 1).into(),
            idle_time_out: Some(u32::try_from(self.settings.idle_timeout.as_millis()).unwrap_or(u32::MAX)),
            outgoing_locales: None,
            incoming_locales: None,
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        };
        self.out.say(0, Performative::Open(open));
    }

    fn on_performative(&mut self, channel: u16, performative: Performative, payload: Bytes) -> Result<(), Wrong> {
        match performative {
            Performative::Open(open) if self.phase == Phase::Opening => self.on_open(&open),
            Performative::Open(_) => wrong("a second Open"),
            Performative::Close(close) => {
                if self.phase != Phase::Closing {
                    self.out.say(0, Performative::Close(Close { error: None }));
                }
                self.phase = Phase::Closed;
                self.out.events.push_back(Event::Closed(close.error.as_ref().map(Problem::of)));
                Ok(())
            }
            // Nothing matters any more but that it closes, and what comes before that.
            Performative::Transfer(transfer) if self.phase == Phase::Closing => {
                let own = self.channels.get(&channel);
                if let Some(session) = own.and_then(|own| self.sessions[usize::from(*own)].as_mut()) {
                    session.on_late_transfer(&transfer, payload, &mut self.out);
                }
                Ok(())
            }
            _ if self.phase == Phase::Closing => Ok(()),
            _ if self.phase == Phase::Opening => wrong("something before Open"),
            Performative::Begin(begin) => {
                let Some(own) = begin.remote_channel else { return wrong("a session that the peer begins") };
                let session = self.sessions.get_mut(usize::from(own)).and_then(Option::as_mut);
                let Some(session) = session.filter(|session| session.may_begin()) else {
                    return wrong("a Begin for no session of ours");
                };
                if self.channels.insert(channel, own).is_some() {
                    return wrong("a channel that is begun twice");
                }
                session.on_begin(&begin, &mut self.out);
                Ok(())
            }
            Performative::End(end) => {
                let Some(own) = self.channels.remove(&channel) else { return wrong("an End of no session") };
                let session = self.sessions[usize::from(own)].take().expect("a channel that is mapped has a session");
                session.on_end(end.error.as_ref(), &mut self.out);
                Ok(())
            }
            other => {
                let own = self.channels.get(&channel);
                let session = own.and_then(|own| self.sessions[usize::from(*own)].as_mut());
                let Some(session) = session else { return wrong("a frame of no session") };
                session.take(other, payload, &mut self.out)
            }
        }
    }

    fn on_open(&mut self, open: &Open) -> Result<(), Wrong> {
        let peers = usize::try_from(open.max_frame_size.0).unwrap_or(usize::MAX);
        if peers < FRAME_MIN {
            return wrong("a largest frame of less than 512 bytes");
        }
        self.out.frame_max = FRAME_MAX.min(peers);
        self.sessions_max = open.channel_max.0.saturating_add(1).min(SESSIONS_MAX);
        // Twice as often as it must be, so that none is late.
        self.beat = open.idle_time_out.filter(|most| *most > 0).map(|most| Duration::from_millis(most.into()) / 2);
        self.phase = Phase::Open;
        self.out.events.push_back(Event::Opened { sessions: self.sessions_max.into() });
        Ok(())
    }

    /// Begins a session. `None`: there are as many as may be.
    pub fn begin(&mut self) -> Option<SessionId> {
        if self.phase != Phase::Open {
            return None;
        }
        let free = self.sessions.iter().position(Option::is_none).unwrap_or(self.sessions.len());
        let channel = u16::try_from(free).ok().filter(|channel| *channel < self.sessions_max)?;
        if free == self.sessions.len() {
            self.sessions.push(None);
        }
        self.sessions[free] = Some(Session::begin(SessionId(channel), &mut self.out));
        Some(SessionId(channel))
    }

    /// Attaches a link. `None`: its session has ended, or has as many links as may be.
    pub fn attach(&mut self, session: SessionId, attaching: Attaching) -> Option<LinkId> {
        let (session, out) = self.session(session)?;
        session.attach(attaching, out)
    }

    /// Sends a message on a link, once there is credit for it. [`Event::Sent`] says under this number what became of
    /// it.
    /// `false`: the link is not there any more, or as many wait as may.
    pub fn send(&mut self, link: LinkId, number: u64, payload: Bytes) -> bool {
        self.session(link.session).is_some_and(|(session, out)| session.send(link.handle, number, payload, out))
    }

    /// Says what becomes of a delivery that came. The peer may send another in its place. Whatever came on a link that
    /// is gone is not the peer's any more to be told of: nothing happens then.
    pub fn settle(&mut self, link: LinkId, delivery: u32, how: Settle) {
        if let Some((session, out)) = self.session(link.session) {
            session.settle(link.handle, delivery, how, out);
        }
    }

    /// Lets no more come on a link until [`Engine::resume`]. What is on its way already does come.
    pub fn pause(&mut self, link: LinkId) {
        if let Some((session, out)) = self.session(link.session) {
            session.pause(link.handle, out);
        }
    }

    /// Lets more come again, as much as there is room for, if the link was paused.
    pub fn resume(&mut self, link: LinkId) {
        if let Some((session, out)) = self.session(link.session) {
            session.resume(link.handle, out);
        }
    }

    /// Ends a link. Nothing is told of it any more, but for deliveries that were on their way. `false`: it had ended.
    pub fn detach(&mut self, link: LinkId) -> bool {
        self.session(link.session).is_some_and(|(session, out)| session.detach(link.handle, out))
    }

    /// Ends a session: its links are detached first. [`Event::Ended`] says when the peer has answered.
    pub fn end(&mut self, session: SessionId) {
        if let Some((session, out)) = self.session(session) {
            session.end(out);
        }
    }

    /// Closes the connection, for an error if there is one. [`Event::Closed`] says when the peer has answered.
    pub fn close(&mut self, error: Option<definitions::Error>) {
        match self.phase {
            Phase::Open | Phase::Opening => {
                self.out.say(0, Performative::Close(Close { error }));
                self.phase = Phase::Closing;
            }
            Phase::Closing => {}
            _ => self.phase = Phase::Closed,
        }
    }

    fn session(&mut self, session: SessionId) -> Option<(&mut Session, &mut Out)> {
        let is_open = self.phase == Phase::Open;
        let session = self.sessions.get_mut(usize::from(session.0)).and_then(Option::as_mut);
        session.filter(|_| is_open).map(|session| (session, &mut self.out))
    }
}
