//! The worker of one bus: it keeps the line open, gives turns, and does the exchanges.
//!
//! Invariants
//! - The worker alone touches the line. It ends when the stop token is cancelled, after the exchange in hand, or when
//!   nobody can ask for a turn any more, and closes the line; what it has not begun is answered with `NotSent`.
//! - New settings are taken up between two turns, on a line that is opened anew: what is asked in a row is asked of the
//!   same peripheral. Turns and their order stay.
//! - What was asked at a port, by this bus or another, is not forgotten while its units may still answer it: it stands
//!   in a book that all buses share, from before its first byte left.
//! - A call that is called off ends every wait before its first byte.
//! - A line that is closed because there is nothing to ask is in order: the next request opens it.
//! - Whose turn it is, and what is sent next, is decided in [`crate::bus::turns`].
//! - One log line a change of state; what a peer can cause at will is said at debug level and counted.

mod callers;
mod crowd;
mod rest;
mod told;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{stopped, Ask, BusHandle, BusStatus, Grant, Turn, Wish};
use crate::bus::call::{at, Call, Wire};
use crate::bus::counts::Counts;
use crate::bus::debts;
use crate::bus::ears::Ears;
use crate::bus::link::{bounded, Ended, Link, Lost, TOO_LATE};
use crate::bus::modbus::frame::Framing;
use crate::bus::modbus::line::ModbusLine;
use crate::bus::modbus::tcp::many::Many;
use crate::bus::modbus::tcp::Tcp;
use crate::bus::port::error::{Cause, NotOpened};
use crate::bus::port::owed::{Hardware, Owed, Page};
use crate::bus::port::{Lines, SystemLines};
use crate::bus::presence::Presence;
use crate::bus::tap::{Tap, TappedLines};
use crate::bus::text::Text;
use crate::bus::turns::{Due, Given, Leave, Manners};
use crate::config::{Bus, BusKind, Endpoint};
use crate::health::pulse::{self, Pulse};
use crate::health::snapshot::BusState;
use crate::proof::crash::{self, Part, Point};
use callers::Callers;

/// First and longest pause between attempts to open a line.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// A line that was open for so long is not one that flaps: its next loss starts with the shortest pause.
const STABLE: Duration = Duration::from_secs(5);

/// Longest that a line takes to be opened, or to be found not to.
const OPENING_MAX: Duration = Duration::from_secs(30);

/// Why a request was not sent then.
const NEVER_SHOWN: &str =
    "the line is disturbed, or lost, before it has shown whether what is sent comes back as an echo";

/// The worker of one bus, to be run by the composition root.
pub struct Worker {
    config: watch::Receiver<Bus>,
    queue: mpsc::Receiver<Grant>,
    status: watch::Sender<BusStatus>,
    /// Until when an earlier life of the daemon may be answered, if there may have been one.
    earlier_life: Option<Instant>,
    lines: Arc<dyn Lines>,
    owed: Owed,
    pulse: Arc<Pulse>,
    tap: Tap,
    counts: Arc<Counts>,
    ears: Ears,
    presence: Presence,
}

impl Worker {
    pub(in crate::bus) fn new(
        config: watch::Receiver<Bus>,
        queue: mpsc::Receiver<Grant>,
        status: watch::Sender<BusStatus>,
        handle: &BusHandle,
    ) -> Worker {
        let (lines, owed) = (Arc::new(SystemLines), Owed::default());
        let (pulse, tap, counts) = (handle.pulse.clone(), handle.tap.clone(), handle.counts.clone());
        let (ears, presence) = (handle.ears.clone(), handle.presence.clone());
        Worker { config, queue, status, earlier_life: None, lines, owed, pulse, tap, counts, ears, presence }
    }

    /// A line without transaction ids is not asked anything until answers to an earlier life of the daemon, which had
    /// ended by `ended`, can't come any more. They can for `late_window` by the configurations of before, and by the
    /// present one as long as commands with timeouts of up to `longest_timeout` may be answered.
    pub fn after_an_earlier_life(mut self, ended: Instant, longest_timeout: Duration, late_window: Duration) -> Worker {
        let present = debts::window_of(self.config.borrow().late_window, bounded(longest_timeout));
        self.earlier_life = Some(ended + present.max(bounded(late_window)));
        self
    }

    /// The bus shares this book of what is owed with the other buses of the daemon.
    pub fn sharing(mut self, owed: Owed) -> Worker {
        self.owed = owed;
        self
    }

    /// The bus runs on one of these lines instead of the system's.
    pub fn on(mut self, lines: Arc<dyn Lines>) -> Worker {
        self.lines = lines;
        self
    }

    /// Works until `stop` is cancelled, then ends the exchange in hand and closes the line.
    ///
    /// Dropping the future instead leaves an exchange in the middle; its caller is told that it may have been sent.
    pub async fn run(self, stop: CancellationToken) {
        let Worker { config: mut configured, queue, status, earlier_life, lines, owed, .. } = self;
        let Worker { pulse, tap, counts, ears, presence, .. } = self;
        let lines: Arc<dyn Lines> = Arc::new(TappedLines::new(lines, tap));
        let mut callers = Callers::new(queue);
        loop {
            let config = configured.borrow_and_update().clone();
            status.send_modify(|status| status.kind = config.kind.as_str());
            presence.forget(&config);
            let (timeout, turnaround) = (bounded(config.response_timeout), bounded(config.turnaround));
            let most = config.max_in_flight;
            let shift = Shift {
                callers,
                status: &status,
                configured: configured.clone(),
                suspect: earlier_life,
                lines: lines.clone(),
                page: owed.page(),
                pulse: &pulse,
                counts: &counts,
                presence: &presence,
            };
            let end = match config.kind {
                BusKind::ModbusRtu(endpoint) => {
                    shift.on(ModbusLine::new(Framing::Rtu, endpoint, timeout, turnaround, &lines)).work(&stop).await
                }
                BusKind::ModbusAscii(endpoint) => {
                    shift.on(ModbusLine::new(Framing::Ascii, endpoint, timeout, turnaround, &lines)).work(&stop).await
                }
                BusKind::ModbusTcp { address } if most > 1 => {
                    shift.on(Many::new(address, timeout, lines.clone())).work_side_by_side(most, &stop).await
                }
                BusKind::ModbusTcp { address } => {
                    shift.on(Tcp::new(address, timeout, turnaround, lines.clone())).work(&stop).await
                }
                BusKind::Serial { endpoint, cut, .. } => {
                    let line = Text::new(endpoint, cut, timeout, turnaround, &lines);
                    shift.on(line.heard_by(ears.clone())).work(&stop).await
                }
            };
            let Some(left) = end else { return pulse.rest() };
            callers = left;
        }
    }
}

/// The line as it is now, with what others have asked at its port.
struct Present<'a, L> {
    link: &'a L,
    page: &'a Page,
}

impl<L: Link> Manners for Present<'_, L> {
    fn held_until(&self, call: &Call, caller: u64, gives_way: bool) -> Option<std::time::Instant> {
        self.link.held_until(call, caller, gives_way).max(self.page.others_until()).map(Instant::into_std)
    }

    fn is_to_be_tried(&self, call: &Call) -> bool {
        self.link.is_to_be_tried(call)
    }
}

/// The opening of the line.
struct Reopening {
    /// When it is tried next.
    next: Option<Instant>,
    pause: Duration,
    opened: Instant,
    /// Since when nobody has the open line.
    idle: Instant,
    /// The last failure, and when it was.
    failed: Option<(Instant, String)>,
}

/// What a worker's time on one line begins with.
struct Shift<'a> {
    callers: Callers,
    status: &'a watch::Sender<BusStatus>,
    configured: watch::Receiver<Bus>,
    /// Until when an earlier life's answers may come.
    suspect: Option<Instant>,
    lines: Arc<dyn Lines>,
    page: Page,
    pulse: &'a Pulse,
    counts: &'a Counts,
    presence: &'a Presence,
}

/// A worker at work on one line with one set of settings.
struct Working<'a, L> {
    link: L,
    callers: Callers,
    status: &'a watch::Sender<BusStatus>,
    configured: watch::Receiver<Bus>,
    name: String,
    reopening: Reopening,
    /// The longest silence that is kept after an exchange, as far as is known.
    rest: Duration,
    lines: Arc<dyn Lines>,
    page: Page,
    pulse: &'a Pulse,
    counts: &'a Counts,
    presence: &'a Presence,
}

enum Event {
    Stop,
    /// There are new settings.
    Configured,
    /// A caller has come.
    Came(Box<Grant>),
    /// Nobody can come any more.
    Deserted,
    /// The holder asks, or is gone.
    Asked(Option<Box<Ask>>),
    /// Something was heard, or the line was lost.
    Heard(Option<Lost>),
    /// It is time to open the line.
    Open,
    /// The line was open for long enough with nothing to ask.
    Idle,
    /// A wait is over, or was given up.
    Due,
}

impl<'a> Shift<'a> {
    fn on<L: Link>(self, mut link: L) -> Working<'a, L> {
        let Shift { callers, status, configured, suspect, lines, page, pulse, counts, presence } = self;
        link.take_up(&configured.borrow());
        if let Some(until) = suspect {
            link.suspect(until);
        }
        let name = status.borrow().name.clone();
        let now = Instant::now();
        let reopening = Reopening { next: Some(now), pause: BACKOFF.0, opened: now, idle: now, failed: None };
        let rest = bounded(configured.borrow().turnaround);
        let mut working =
            Working { link, callers, status, configured, name, reopening, rest, lines, page, pulse, counts, presence };
        working.find_port();
        working
    }
}

impl<L: Link> Working<'_, L> {
    /// Works until the stop, or until nobody is left: `None`. Or until there are new settings.
    async fn work(mut self, stop: &CancellationToken) -> Option<Callers> {
        while !stop.is_cancelled() && !self.callers.are_gone() {
            self.pulse.allow(OPENING_MAX);
            self.stay_in_touch();
            if !self.callers.turns.has_begun() && self.configured.borrow().has_changed() {
                return Some(self.hand_over());
            }
            let due = self.callers.turns.due(&Present { link: &self.link, page: &self.page });
            match due {
                Some(Due::First(call)) => {
                    // What it says is of no interest; the link has heard what it wanted to know.
                    self.exchange(&call, Instant::now(), stop).await;
                    continue;
                }
                Some(Due::Ask(ask)) => {
                    self.serve(ask, stop).await;
                    continue;
                }
                None => {}
            }
            if self.callers.turns.is_free() && !self.is_to_be_opened() && self.give_a_turn() {
                continue;
            }
            match self.next(stop).await {
                Event::Stop | Event::Configured => {}
                Event::Came(grant) => self.callers.line_up(*grant),
                Event::Deserted => self.callers.deserted = true,
                Event::Asked(Some(ask)) => self.callers.turns.ask(*ask),
                Event::Asked(None) => self.end_turn(),
                Event::Heard(None) | Event::Due => {}
                Event::Heard(Some(lost)) => self.lost(lost),
                Event::Open => {
                    let _ = self.open(stop, None).await;
                }
                Event::Idle => self.rest_line(),
            }
        }
        self.leave();
        None
    }

    /// Closes the line for the sake of its new settings.
    fn hand_over(mut self) -> Callers {
        info!(bus = %self.name, "the configuration has changed: the bus is closed, and opened anew");
        self.link.close();
        self.show(BusState::Opening, None, None);
        self.callers
    }

    /// Notes what the port is, and that what its units may still answer is owed there.
    fn find_port(&mut self) {
        match self.link.endpoint() {
            None => return,
            Some(Endpoint::Tcp(address)) => {
                self.page.is_at(Hardware::Address(address.clone()));
                self.lines.peer(address).into_iter().for_each(|peer| self.page.is_at(peer));
            }
            Some(Endpoint::Serial(port)) => {
                self.page.is_at(Hardware::Path(port.path.clone()));
                self.lines.hardware(&port.path).into_iter().for_each(|hardware| self.page.is_at(hardware));
            }
        }
        self.page.note(self.link.owed_until());
        self.page.others_until().into_iter().for_each(|until| self.link.shared_until(until));
    }

    async fn next(&mut self, stop: &CancellationToken) -> Event {
        let Callers { queue, turns, deserted, .. } = &mut self.callers;
        let due = turns.due_at(&Present { link: &self.link, page: &self.page }).map(Instant::from_std);
        let opening = self.reopening.next.filter(|_| !self.link.is_open());
        let (free, listening) = (turns.is_free() && !*deserted, self.link.is_open());
        let idle_close = self.configured.borrow().idle_close.filter(|_| listening && turns.is_empty());
        let idle = idle_close.map(|after| self.reopening.idle + after);
        let mut configured = self.configured.clone();
        let is_between_turns = !turns.has_begun();
        let holder = turns.holder();
        let held = holder.is_some();
        select! {
            biased;
            () = stop.cancelled() => Event::Stop,
            Ok(()) = configured.changed(), if is_between_turns => Event::Configured,
            event = of_the(holder), if held => event,
            () = at(due) => Event::Due,
            () = at(opening) => Event::Open,
            grant = queue.recv(), if free => grant.map_or(Event::Deserted, |grant| Event::Came(Box::new(grant))),
            // Before what is heard: a line on which something is always said is idle all the same.
            () = at(idle) => Event::Idle,
            lost = self.link.listen(), if listening => Event::Heard(lost),
            () = sleep(pulse::TICK) => Event::Due,
        }
    }

    /// Whether it is time to open the line. That goes before anybody's turn: an opening that one after the other calls
    /// off would never come to its end.
    fn is_to_be_opened(&self) -> bool {
        !self.link.is_open() && self.reopening.next.is_some_and(|next| next <= Instant::now())
    }

    /// Gives the free bus to who is next. `false`: nobody waits.
    fn give_a_turn(&mut self) -> bool {
        self.callers.take_in();
        let Some(Grant { caller, harmless, turn, .. }) = self.callers.lineup.next() else { return false };
        // Room for one: a turn makes one exchange at a time.
        let (asks, receiver) = mpsc::channel(1);
        // A caller that gave up waiting is passed over.
        if turn.send(Turn { asks, owes: true }).is_ok() {
            self.callers.turns.give(receiver, caller, harmless);
        }
        true
    }

    /// Does one exchange and answers it.
    async fn serve(&mut self, ask: Ask, stop: &CancellationToken) {
        // A caller that is gone has no use for its answer; the line needed the end of its exchange.
        match ask.wish {
            Wish::Clear(reply) => {
                let _ = reply.send(());
            }
            Wish::Exchange(reply) => {
                let ended = self.exchange(&ask.call, ask.at, stop).await;
                let Some(wire) = ended else {
                    return self.callers.turns.ask(Ask { wish: Wish::Exchange(reply), ..ask });
                };
                let owes = self.link.owed_until().is_some_and(|until| until > Instant::now());
                let _ = reply.send((wire, owes));
            }
        }
    }

    /// Does one exchange for the holder of the turn. `None`: the line was opened anew, and must be tried first.
    async fn exchange(&mut self, call: &Call, asked: Instant, stop: &CancellationToken) -> Option<Wire> {
        let caller = self.callers.turns.begin()?;
        let mut took = Duration::ZERO;
        let mut ended = self.attempt(call, asked, caller, stop, &mut took).await?;
        if let Ended { wire: Wire::NotSent(_), lost: Some(_) } = ended {
            // The line turned out to be closed before it took a byte: once more, on a new one.
            ended = self.attempt(call, asked, caller, stop, &mut took).await?;
        }
        crash::point(Point::ExchangeEnded);
        self.note_presence(call, &ended);
        let wire = ended.wire;
        self.counts.ended(call.unit, &wire, self.link.has_garbled(), took);
        debug!(bus = %self.name, unit = call.unit, outcome = word(&wire), "exchange");
        Some(wire)
    }

    /// One exchange, on a line that is opened for it if need be, and how long it took there. `None`: the line must be
    /// tried first.
    async fn attempt(
        &mut self,
        call: &Call,
        asked: Instant,
        caller: u64,
        stop: &CancellationToken,
        took: &mut Duration,
    ) -> Option<Ended> {
        if !self.link.is_open() {
            match &self.reopening.failed {
                // It was tried just now, while the caller was asking.
                Some((at, why)) if *at > asked && at.elapsed() < BACKOFF.0 => {
                    return Some(Ended::not_sent(why.clone()));
                }
                _ => {}
            }
            if let Err(wire) = self.open(stop, Some(call)).await {
                return Some(Ended::kept(wire));
            }
        }
        if let Err(ended) = self.settle(call, stop).await {
            return Some(ended);
        }
        let leave = self.callers.turns.leave(call, &Present { link: &self.link, page: &self.page });
        match leave {
            Leave::Given => {}
            Leave::Denied => return Some(Ended::not_sent(NEVER_SHOWN)),
            Leave::AfterATry => return None,
        }
        if call.is_called_off() {
            return Some(Ended::not_sent(TOO_LATE));
        }
        let settings = self.configured.borrow().clone();
        let timeout = bounded(call.own_timeout().unwrap_or(settings.response_timeout));
        let longest = timeout + self.rest + self.link.slack();
        self.rest = self.rest.max(bounded(call.own_turnaround().unwrap_or_default()));
        self.pulse.allow(longest);
        if self.link.endpoint().is_some() {
            // Even if this worker is torn down in the middle of it.
            let owed_until =
                Instant::now() + longest + debts::window_of(settings.late_window, bounded(call.slowest(timeout)));
            self.page.note(self.link.owed_until().max(Some(owed_until)));
        }
        crash::stick(Part::Bus).await;
        let begun = Instant::now();
        let ended = self.link.exchange(call, caller).await;
        *took = begun.elapsed();
        if self.link.endpoint().is_some() {
            self.page.note(self.link.owed_until());
        }
        if let Some(lost) = ended.lost.clone() {
            self.lost(lost);
        }
        self.tell_trouble();
        Some(ended)
    }

    /// Tries once to open the line, for as long as the call that wants it is not called off.
    async fn open(&mut self, stop: &CancellationToken, call: Option<&Call>) -> Result<(), Wire> {
        let called_off = async {
            match call {
                Some(call) => call.called_off().await,
                None => pending().await,
            }
        };
        let opened = select! {
            biased;
            () = stop.cancelled() => return Err(stopped()),
            () = called_off => {
                // Whoever comes next finds it open, or why it isn't.
                self.reopening.next.get_or_insert_with(Instant::now);
                return Err(Wire::NotSent(TOO_LATE.into()));
            }
            opened = self.link.open() => opened,
        };
        let now = Instant::now();
        match opened {
            Ok(()) => {
                // After a connection that merely idled, an opened one is no news.
                match self.status.borrow().state {
                    BusState::Closed => debug!(bus = %self.name, "bus open"),
                    _ => info!(bus = %self.name, "bus open"),
                }
                self.reopening.next = None;
                (self.reopening.opened, self.reopening.idle) = (now, now);
                self.find_port();
                self.show(BusState::Open, None, None);
                Ok(())
            }
            Err(NotOpened { cause, why }) => {
                self.reopening.failed = Some((now, why.clone()));
                self.out_of_order(&why, Some(cause), "bus can't be opened", now);
                Err(Wire::NotSent(why))
            }
        }
    }

    fn lost(&mut self, lost: Lost) {
        let now = Instant::now();
        if now.duration_since(self.reopening.opened) >= STABLE {
            self.reopening.pause = BACKOFF.0;
        }
        match lost {
            Lost::Idle | Lost::Timeout { .. } => {
                self.reopening.next = None;
                self.show(BusState::Closed, None, None);
            }
            Lost::Gone(why) => {
                self.out_of_order(&why, None, "bus lost", now);
            }
        }
    }

    fn out_of_order(&mut self, why: &str, cause: Option<Cause>, what: &str, now: Instant) {
        if self.status.borrow().last_error.as_deref() == Some(why) {
            debug!(bus = %self.name, reason = why, "{what}");
        } else {
            warn!(bus = %self.name, reason = why, "{what}");
        }
        self.reopening.next = Some(now + self.reopening.pause);
        self.reopening.pause = (self.reopening.pause * 2).min(BACKOFF.1);
        self.show(BusState::Opening, Some(why.to_owned()), cause);
    }

    fn show(&self, state: BusState, last_error: Option<String>, cause: Option<Cause>) {
        self.status.send_modify(|status| {
            status.state = state;
            status.last_error = last_error;
            status.cause = cause;
        });
    }

    /// Closes the line and answers what was not begun.
    fn leave(mut self) {
        self.link.close();
        self.show(BusState::Closed, None, None);
        for turn in self.callers.turns.all() {
            turn.key.close();
            let rest = std::iter::from_fn(|| turn.key.try_recv().ok());
            for ask in turn.waiting.take().into_iter().chain(rest) {
                // Dropping a wish to be cleared tells its caller that nothing comes any more.
                if let Wish::Exchange(reply) = ask.wish {
                    let _ = reply.send((stopped(), true));
                }
            }
        }
        info!(bus = %self.name, "bus closed");
    }
}

/// What the holder of the turn does next.
async fn of_the(holder: Option<&mut Given<mpsc::Receiver<Ask>, Ask>>) -> Event {
    let Some(turn) = holder else { return pending().await };
    match &mut turn.waiting {
        None => Event::Asked(turn.key.recv().await.map(Box::new)),
        Some(ask) => {
            ask.wish.abandoned().await;
            Event::Due
        }
    }
}

/// An exchange's end without what it carried: a log holds no payloads.
fn word(wire: &Wire) -> &'static str {
    match wire {
        Wire::Answered(_) => "answered",
        Wire::Refused(_) => "refused",
        Wire::NotSent(_) => "not sent",
        Wire::NoAnswer(_) => "no answer",
        Wire::BadReply(_) => "bad reply",
        Wire::Broadcast => "broadcast",
    }
}

#[cfg(test)]
mod tests;
