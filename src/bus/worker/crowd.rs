//! The worker of a bus on which several requests may be under way at once.
//!
//! Invariants
//! - A turn has its unit to itself, from its first request to its end: no two requests of one unit are under way, and
//!   nothing comes between two of one turn to the same unit. Turns of other units go on beside it.
//! - Turns are given in order, so many at a time as requests may be under way. One whose unit is another's waits.
//! - New settings are taken up when the turns that were given have ended; no other is given before.
//! - After the stop nothing is begun, and what is under way comes to its end.

use std::collections::HashMap;
use std::future::{poll_fn, Future as _};
use std::pin::pin;
use std::task::{Context, Poll};

use tokio::select;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, Instant};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{stopped, word, Ask, Callers, Grant, Turn, Wish, Working, BACKOFF, OPENING_MAX};
use crate::bus::call::{at, Call, Wire};
use crate::bus::link::{bounded, Ended, Link, Lost, TOO_LATE};
use crate::bus::modbus::tcp::many::{Done, Many, Sent};
use crate::bus::turns::Given;
use crate::health::pulse;
use crate::proof::crash::{self, Part, Point};

/// A turn that was given.
struct Lane {
    key: u64,
    asks: mpsc::Receiver<Ask>,
    /// What was asked for, and not begun.
    waiting: Option<Ask>,
    /// Who waits for the end of what is under way.
    under_way: Option<oneshot::Sender<(Wire, bool)>>,
    /// The unit that it has to itself.
    unit: Option<u8>,
    /// What waits was tried on a connection that had ended.
    was_lost: bool,
    /// Its holder has gone.
    is_over: bool,
}

/// The turns that were given, in order.
#[derive(Default)]
struct Lanes {
    all: Vec<Lane>,
    so_far: u64,
    /// Until when units are to be left alone.
    quiet: HashMap<u8, Instant>,
}

/// What is not known to have come yet.
#[derive(Clone, Copy)]
struct Awaits {
    stop: bool,
    settings: bool,
}

enum Event {
    /// A caller is next, or nobody can come any more.
    Next(Option<Box<Grant>>),
    /// The holder of a turn asks, or is gone.
    Asked(u64, Option<Box<Ask>>),
    /// What a holder asked for is not wanted any more.
    Abandoned(u64),
    /// Something was heard, or the connection has ended.
    Heard(Option<Lost>),
    Open,
    Idle,
    /// It is time to look again.
    Due,
}

impl Lane {
    /// What its holder does. Cancel-safe.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        match &mut self.waiting {
            None if self.under_way.is_none() => {
                self.asks.poll_recv(cx).map(|asked| Event::Asked(self.key, asked.map(Box::new)))
            }
            None => Poll::Pending,
            Some(ask) => pin!(ask.wish.abandoned()).poll(cx).map(|()| Event::Abandoned(self.key)),
        }
    }
}

impl Lanes {
    fn add(&mut self, asks: mpsc::Receiver<Ask>, waiting: Option<Ask>) {
        self.so_far += 1;
        let (key, under_way, unit) = (self.so_far, None, None);
        self.all.push(Lane { key, asks, waiting, under_way, unit, was_lost: false, is_over: false });
    }

    fn of(turns: Vec<Given<mpsc::Receiver<Ask>, Ask>>) -> Lanes {
        let mut lanes = Lanes::default();
        turns.into_iter().for_each(|turn| lanes.add(turn.key, turn.waiting));
        lanes
    }

    fn get(&mut self, key: u64) -> Option<&mut Lane> {
        self.all.iter_mut().find(|lane| lane.key == key)
    }

    /// A turn ends with its holder, once nothing of it is under way.
    fn drop_over(&mut self) -> bool {
        let before = self.all.len();
        self.all.retain(|lane| !lane.is_over || lane.under_way.is_some());
        self.all.len() < before
    }

    /// Whether the unit of what waits is nobody else's.
    fn is_free(&self, lane: &Lane, unit: u8) -> bool {
        self.all.iter().all(|other| other.key == lane.key || other.unit != Some(unit))
    }

    /// From when on each may go whose unit is nobody else's.
    fn ready(&self, not_before: Option<Instant>) -> impl Iterator<Item = (u64, Option<Instant>)> + '_ {
        let waiting = self.all.iter().filter_map(|lane| Some((lane, lane.waiting.as_ref()?.call.unit)));
        let free = waiting.filter(move |(lane, unit)| self.is_free(lane, *unit));
        free.map(move |(lane, unit)| (lane.key, self.quiet.get(&unit).copied().max(not_before)))
    }
}

impl Working<'_, Many> {
    /// Works until the stop, or until nobody is left: `None`. Or until there are new settings.
    pub(super) async fn work_side_by_side(mut self, most: usize, stop: &CancellationToken) -> Option<Callers> {
        let mut lanes = Lanes::of(self.callers.turns.take_all());
        loop {
            self.pulse.allow(OPENING_MAX);
            self.tell_ends(&mut lanes);
            if lanes.drop_over() {
                self.turn_has_ended(&lanes);
            }
            let ends = stop.is_cancelled() || self.callers.are_gone() && lanes.all.is_empty();
            let changes = self.configured.borrow().has_changed();
            match (ends, changes) {
                (true, _) if self.link.count() == 0 => break,
                (false, true) if lanes.all.is_empty() => return Some(self.hand_over()),
                _ => {}
            }
            if !ends && self.begin_one(&mut lanes, most, stop).await {
                continue;
            }
            let awaits = Awaits { stop: !ends, settings: !ends && !changes };
            let takes = awaits.settings && lanes.all.len() < most;
            if takes && self.give_a_lane(&mut lanes) {
                continue;
            }
            let takes = takes && !self.callers.deserted;
            match self.next_of_all(&mut lanes, awaits, takes, stop).await {
                Event::Next(None) => self.callers.deserted = true,
                Event::Next(Some(grant)) => self.callers.line_up(*grant),
                Event::Asked(key, asked) => Self::asked(&mut lanes, key, asked),
                Event::Abandoned(key) => lanes.get(key).into_iter().for_each(|lane| lane.waiting = None),
                Event::Heard(None) | Event::Due => {}
                Event::Heard(Some(lost)) => self.lost(lost),
                Event::Open => {
                    let _ = self.open(stop, None).await;
                }
                Event::Idle => self.rest_line(),
            }
        }
        for lane in &mut lanes.all {
            lane.asks.close();
            let rest = std::iter::from_fn(|| lane.asks.try_recv().ok());
            let left = lane.waiting.take().into_iter().chain(rest);
            left.for_each(|ask| told(ask.wish, stopped()));
        }
        self.leave();
        None
    }

    /// Gives a turn to who is next. `false`: nobody waits.
    fn give_a_lane(&mut self, lanes: &mut Lanes) -> bool {
        self.callers.take_in();
        let Some(grant) = self.callers.lineup.next() else { return false };
        Self::admit(lanes, grant);
        true
    }

    fn admit(lanes: &mut Lanes, grant: Grant) {
        // Room for one: a turn makes one exchange at a time.
        let (asks, receiver) = mpsc::channel(1);
        // A caller that gave up waiting is passed over.
        if grant.turn.send(Turn { asks, owes: true }).is_ok() {
            lanes.add(receiver, None);
        }
    }

    fn asked(lanes: &mut Lanes, key: u64, asked: Option<Box<Ask>>) {
        let Some(lane) = lanes.get(key) else { return };
        match asked {
            None => lane.is_over = true,
            Some(ask) => {
                // Who goes on to another unit gives the one before free.
                lane.unit = lane.unit.filter(|unit| *unit == ask.call.unit);
                lane.was_lost = false;
                lane.waiting = Some(*ask);
            }
        }
    }

    /// Begins what may be begun first. `false`: nothing may.
    async fn begin_one(&mut self, lanes: &mut Lanes, most: usize, stop: &CancellationToken) -> bool {
        if !self.link.takes_more() || self.link.count() >= most {
            return false;
        }
        let (now, not_before) = (Instant::now(), self.asked_from());
        let Some((key, _)) = lanes.ready(not_before).find(|(_, from)| from.is_none_or(|from| from <= now)) else {
            return false;
        };
        let Some(lane) = lanes.get(key) else { return false };
        let Some(Ask { call, at, wish }) = lane.waiting.take() else { return false };
        if wish.is_abandoned() {
            return true;
        }
        lane.unit = Some(call.unit);
        let reply = match wish {
            Wish::Clear(reply) => {
                let _ = reply.send(());
                return true;
            }
            Wish::Exchange(reply) => reply,
        };
        match self.begin(key, &call, at, stop).await {
            Sent::Begun => lane.under_way = Some(reply),
            // The connection turned out to have ended before it took a byte: once more, on a new one.
            Sent::Lost(_) if !lane.was_lost => {
                lane.was_lost = true;
                lane.waiting = Some(Ask { call, at, wish: Wish::Exchange(reply) });
            }
            Sent::Lost(why) | Sent::Not(why) => {
                self.note_presence(&call, &Ended::not_sent(why.clone()));
                let _ = reply.send((Wire::NotSent(why), false));
            }
        }
        true
    }

    /// Sends a request, on a connection that is made for it if need be.
    async fn begin(&mut self, key: u64, call: &Call, asked: Instant, stop: &CancellationToken) -> Sent {
        if !self.link.is_open() {
            match &self.reopening.failed {
                // It was tried just now, while the caller was asking.
                Some((at, why)) if *at > asked && at.elapsed() < BACKOFF.0 => return Sent::Not(why.clone()),
                _ => {}
            }
            if let Err(Wire::NotSent(why)) = self.open(stop, Some(call)).await {
                return Sent::Not(why);
            }
        }
        // Nothing else may be under way then: what comes meanwhile is nobody's.
        if let Err(Ended { wire: Wire::NotSent(why), lost }) = self.settle(call, stop).await {
            return if lost.is_some() { Sent::Lost(why) } else { Sent::Not(why) };
        }
        if call.is_called_off() {
            return Sent::Not(TOO_LATE.into());
        }
        crash::stick(Part::Bus).await;
        let sent = self.link.send(key, call).await;
        if let Sent::Lost(_) = sent {
            self.lost(Lost::Idle);
        }
        sent
    }

    /// From when on anything may be asked on the open connection.
    fn asked_from(&self) -> Option<Instant> {
        let pause = bounded(self.configured.borrow().connect_pause);
        (self.link.is_open() && self.link.count() > 0).then(|| self.reopening.opened + pause)
    }

    /// Answers what has ended.
    fn tell_ends(&mut self, lanes: &mut Lanes) {
        while let Some(Done { key, call, ended, took }) = self.link.take_ended() {
            crash::point(Point::ExchangeEnded);
            self.counts.ended(call.unit, &ended.wire, false, took);
            self.note_presence(&call, &ended);
            debug!(bus = %self.name, unit = call.unit, outcome = word(&ended.wire), "exchange");
            let turnaround = bounded(call.own_turnaround().unwrap_or(self.configured.borrow().turnaround));
            if !turnaround.is_zero() {
                lanes.quiet.insert(call.unit, Instant::now() + turnaround);
            }
            if let Some(reply) = lanes.get(key).and_then(|lane| lane.under_way.take()) {
                // A caller that is gone has no use for it.
                let _ = reply.send((ended.wire, false));
            }
        }
        if !self.link.is_open() && self.status.borrow().is_open() {
            self.lost(Lost::Idle);
        }
    }

    fn turn_has_ended(&mut self, lanes: &Lanes) {
        if lanes.all.is_empty() {
            self.end_turn();
        }
    }

    async fn next_of_all(&mut self, lanes: &mut Lanes, awaits: Awaits, takes: bool, stop: &CancellationToken) -> Event {
        let (now, listening) = (Instant::now(), self.link.is_open());
        let opening = self.reopening.next.filter(|_| !listening);
        let rests = listening && lanes.all.is_empty();
        let idle = self.configured.borrow().idle_close.filter(|_| rests).map(|after| self.reopening.idle + after);
        let waits = lanes.ready(self.asked_from()).filter_map(|(_, from)| from).filter(|from| *from > now).min();
        let holders = poll_fn(|cx| {
            let ready = lanes.all.iter_mut().find_map(|lane| match lane.poll(cx) {
                Poll::Ready(event) => Some(event),
                Poll::Pending => None,
            });
            ready.map_or(Poll::Pending, Poll::Ready)
        });
        let mut configured = self.configured.clone();
        select! {
            biased;
            () = stop.cancelled(), if awaits.stop => Event::Due,
            Ok(()) = configured.changed(), if awaits.settings => Event::Due,
            event = holders => event,
            lost = self.link.listen(), if listening => Event::Heard(lost),
            () = at(waits) => Event::Due,
            () = at(opening) => Event::Open,
            grant = self.callers.queue.recv(), if takes => Event::Next(grant.map(Box::new)),
            () = at(idle) => Event::Idle,
            () = sleep(pulse::TICK) => Event::Due,
        }
    }
}

/// Answers a wish. Dropping one to be cleared tells its caller that nothing comes any more.
fn told(wish: Wish, wire: Wire) {
    if let Wish::Exchange(reply) = wish {
        let _ = reply.send((wire, true));
    }
}
