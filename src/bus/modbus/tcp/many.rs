//! A Modbus TCP connection on which several requests are under way at once, each told by its transaction (Modbus
//! Messaging on TCP/IP V1.0b, 3.1.3).
//!
//! Invariants
//! - An answer is that of the request with its transaction. No transaction is used again while it is under way, nor
//!   soon after it was given up: what comes late is known by it, and heard by nobody.
//! - What comes under a transaction that nobody has asked under is nobody's answer. Whoever waits in vain is told.
//! - A connection on which nothing was heard while an answer was missing, or of which an answer was wrong, gets no new
//!   request: it is replaced when nothing is under way on it any more. So is one on which more was left unanswered than
//!   is remembered, as long as that may still be answered.
//! - What ends the connection ends each request on it, and none is sent again here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;
use tracing::debug;

use super::{framed, judged, Answering, Broken, WRITE_TIMEOUT};
use crate::bus::call::{at, Call, Wire};
use crate::bus::debts;
use crate::bus::link::{bounded, Ended, Link, Lost, TOO_LATE};
use crate::bus::modbus::pdu::Pdu;
use crate::bus::port::error::NotOpened;
use crate::bus::port::{self, Lines, CONNECT_TIMEOUT};
use crate::net::Stream;

/// Transactions that were given up, and are still known.
const LATE_MAX: usize = 64;

/// A server that is asked several things at once.
pub(in crate::bus) struct Many {
    address: String,
    timeout: Duration,
    connection: Option<Box<dyn Stream>>,
    lines: Arc<dyn Lines>,
    /// The transaction of the next request, as with one at a time.
    transaction: u16,
    under_way: Vec<UnderWay>,
    /// Transactions that may be answered late, on this connection or the next, and until when that is likely.
    late: VecDeque<(u16, Instant)>,
    /// The frame that is being read.
    answer: Answering,
    heard: Instant,
    /// Nothing new is asked on this connection.
    is_retired: bool,
    ended: VecDeque<Done>,
}

/// A request that is under way.
struct UnderWay {
    /// Whose it is.
    key: u64,
    transaction: u16,
    call: Call,
    frame: Vec<u8>,
    timeout: Duration,
    sent: Instant,
    deadline: Instant,
    /// What came meanwhile that is nobody's answer.
    stray: Option<Vec<u8>>,
}

/// A request that has ended.
#[derive(Debug)]
pub(in crate::bus) struct Done {
    /// Whose it was.
    pub(in crate::bus) key: u64,
    pub(in crate::bus) call: Call,
    pub(in crate::bus) ended: Ended,
    pub(in crate::bus) took: Duration,
}

/// What became of a request that was to be sent.
#[derive(Debug)]
pub(in crate::bus) enum Sent {
    /// It is under way, or has ended already: see what has.
    Begun,
    /// Nothing of it was sent.
    Not(String),
    /// The same, since the connection turned out to have ended.
    Lost(String),
}

impl Many {
    /// A server that is not connected yet.
    pub(in crate::bus) fn new(address: String, timeout: Duration, lines: Arc<dyn Lines>) -> Many {
        Many {
            address,
            timeout,
            connection: None,
            lines,
            transaction: fastrand::u16(..),
            under_way: Vec::new(),
            late: VecDeque::new(),
            answer: Answering::default(),
            heard: Instant::now(),
            is_retired: false,
            ended: VecDeque::new(),
        }
    }

    /// How many requests are under way.
    pub(in crate::bus) fn count(&self) -> usize {
        self.under_way.len()
    }

    /// Whether something new may be asked: on this connection, or on one that is made for it.
    pub(in crate::bus) fn takes_more(&self) -> bool {
        self.connection.is_none() || !self.is_retired
    }

    /// What has ended since this was asked last, in order.
    pub(in crate::bus) fn take_ended(&mut self) -> Option<Done> {
        self.ended.pop_front()
    }

    /// Sends a request on the open connection.
    pub(in crate::bus) async fn send(&mut self, key: u64, call: &Call) -> Sent {
        let Some(encoded) = Pdu::of(&call.request).and_then(|pdu| pdu.encode()) else {
            return Sent::Not("this bus speaks Modbus, and the request is not one of Modbus".into());
        };
        // Before a byte of it is sent: what has come by now, the end of the connection too.
        port::catch_up().await;
        while let Some(read) =
            self.connection.as_mut().and_then(|stream| self.answer.read(&mut **stream).now_or_never())
        {
            self.heard_of(read);
        }
        if self.is_retired {
            self.close_if_drained();
        }
        let transaction = self.free_transaction();
        let Some(stream) = self.connection.as_mut() else {
            return Sent::Lost(format!("{}: the connection was closed from the other side", self.address));
        };
        let frame = framed(transaction, call.unit, &encoded);
        let timeout = call.own_timeout().map_or(self.timeout, bounded);
        let written = port::write_by(&mut **stream, &frame, timeout.min(WRITE_TIMEOUT), call).await;
        let (sent, call) = (Instant::now(), call.clone());
        match written {
            Err(cut) if cut.sent == 0 && call.is_called_off() => return Sent::Not(TOO_LATE.into()),
            Err(cut) if cut.sent == 0 => {
                self.give_up(Wire::NoAnswer, &format!("the connection {}", cut.why));
                return Sent::Lost(format!("{}: the connection {}", self.address, cut.why));
            }
            written => {
                let deadline = sent + timeout;
                self.under_way.push(UnderWay { key, transaction, call, frame, timeout, sent, deadline, stray: None });
                if let Err(cut) = written {
                    self.give_up(Wire::NoAnswer, &format!("the connection {}", cut.why));
                }
            }
        }
        Sent::Begun
    }

    /// A transaction that nothing is under way under, and nothing late.
    fn free_transaction(&mut self) -> u16 {
        loop {
            let next = self.transaction;
            self.transaction = next.wrapping_add(1);
            let is_used = self.under_way.iter().any(|asked| asked.transaction == next)
                || self.late.iter().any(|(late, _)| *late == next);
            if !is_used {
                return next;
            }
        }
    }

    /// Hears what comes, until something has ended or was nobody's. Cancel-safe.
    async fn hear(&mut self) {
        let deadline = self.under_way.iter().map(|asked| asked.deadline).min();
        let Some(stream) = self.connection.as_mut() else { return std::future::pending().await };
        tokio::select! {
            biased;
            read = self.answer.read(&mut **stream) => self.heard_of(read),
            () = at(deadline) => self.time_out(Instant::now()),
        }
        self.close_if_drained();
    }

    /// A frame has come, or the connection has ended.
    fn heard_of(&mut self, read: Result<(), Broken>) {
        if let Err(Broken { wire, why, .. }) = read {
            return self.give_up(wire, &why);
        }
        let Answering { frame, filled } = std::mem::take(&mut self.answer);
        let frame = &frame[..filled];
        let transaction = u16::from_be_bytes([frame[0], frame[1]]);
        self.heard = Instant::now();
        if let Some(at) = self.under_way.iter().position(|asked| asked.transaction == transaction) {
            let asked = self.under_way.remove(at);
            let wire = asked.judge(frame);
            self.is_retired |= matches!(wire, Wire::BadReply(_));
            self.end(asked, Ended::kept(wire));
        } else if let Some(at) = self.late.iter().position(|(late, _)| *late == transaction) {
            debug!(address = %self.address, transaction, "an answer came too late, and is nobody's");
            self.late.remove(at);
        } else if self.under_way.is_empty() {
            self.give_up(Wire::NoAnswer, "the other side speaks unasked");
        } else {
            self.under_way.iter_mut().for_each(|asked| asked.stray = Some(frame.to_vec()));
        }
    }

    /// Gives up what was not answered in time.
    fn time_out(&mut self, now: Instant) {
        while let Some(at) = self.under_way.iter().position(|asked| asked.deadline <= now) {
            let asked = self.under_way.remove(at);
            // Where nothing was heard at all, the connection may be dead; where a frame has begun, it may never end.
            let forgets = self.is_late(&asked, now);
            self.is_retired |= self.heard <= asked.sent || self.answer.filled > 0 || forgets;
            let is_its = self.answer.frame.starts_with(&asked.transaction.to_be_bytes()) && self.answer.filled >= 2;
            let lost = is_its.then_some(Lost::Timeout { heard: true });
            let wire = match (&asked.stray, Pdu::of(&asked.call.request)) {
                (Some(stray), _) => asked.judge(stray),
                (None, Some(pdu)) => {
                    let cut = if is_its { &self.answer } else { &Answering::default() };
                    Wire::NoAnswer(format!("{}: {}", self.address, cut.unfinished(&asked.call, &pdu, asked.timeout)))
                }
                (None, None) => Wire::NoAnswer(format!("{}: no answer came", self.address)),
            };
            self.end(asked, Ended { wire, lost });
        }
    }

    /// Remembers a transaction that was given up. Whether another is forgotten for it that may still be answered.
    fn is_late(&mut self, asked: &UnderWay, now: Instant) -> bool {
        let is_full = self.late.len() >= LATE_MAX;
        let forgotten = if is_full { self.late.pop_front() } else { None };
        self.late.push_back((asked.transaction, now + debts::window(asked.timeout)));
        forgotten.is_some_and(|(_, until)| until > now)
    }

    fn end(&mut self, asked: UnderWay, ended: Ended) {
        let UnderWay { key, call, sent, .. } = asked;
        self.ended.push_back(Done { key, call, ended, took: sent.elapsed() });
    }

    /// Closes the connection. Each request that is under way ends by that.
    fn give_up(&mut self, wire: fn(String) -> Wire, why: &str) {
        debug!(address = %self.address, reason = why, "a connection is given up");
        for asked in std::mem::take(&mut self.under_way) {
            self.is_late(&asked, Instant::now());
            let wire = wire(format!("{}: {why}", self.address));
            self.end(asked, Ended { wire, lost: Some(Lost::Idle) });
        }
        self.close();
    }

    /// Closes a connection that is to be replaced, once nothing is under way on it.
    fn close_if_drained(&mut self) {
        if self.is_retired && self.under_way.is_empty() {
            self.close();
        }
    }
}

impl UnderWay {
    /// What a whole frame comes to.
    fn judge(&self, frame: &[u8]) -> Wire {
        match Pdu::of(&self.call.request) {
            Some(pdu) => judged(&self.call, &pdu, &self.frame, frame),
            None => Wire::BadReply("what came answers no request of Modbus".into()),
        }
    }
}

impl Link for Many {
    async fn open(&mut self) -> Result<(), NotOpened> {
        self.connection = Some(self.lines.connect(&self.address, CONNECT_TIMEOUT).await?);
        (self.is_retired, self.answer, self.heard) = (false, Answering::default(), Instant::now());
        Ok(())
    }

    fn slack(&self) -> Duration {
        WRITE_TIMEOUT
    }

    fn close(&mut self) {
        self.connection = None;
        self.answer = Answering::default();
    }

    fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    async fn listen(&mut self) -> Option<Lost> {
        self.hear().await;
        (!self.is_open()).then_some(Lost::Idle)
    }

    fn held_until(&self, _: &Call, _: u64, _: bool) -> Option<Instant> {
        None
    }

    async fn exchange(&mut self, call: &Call, caller: u64) -> Ended {
        match self.send(caller, call).await {
            Sent::Not(why) => return Ended::not_sent(why),
            Sent::Lost(why) => return Ended { wire: Wire::NotSent(why), lost: Some(Lost::Idle) },
            Sent::Begun => {}
        }
        loop {
            match self.take_ended() {
                Some(done) => return done.ended,
                None => self.hear().await,
            }
        }
    }
}
