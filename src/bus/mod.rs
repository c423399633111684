//! The buses: one worker a bus, the sole owner of its port, reached by message.
//!
//! ```text
//! caller ── turn() ──► queue ──► lineup ──► worker ── exchange ──► frame ──► line
//!        ◄─ Wire ─────────────────────┘        ◄─ answer ─── sieve ◄──┘
//! ```
//!
//! [`call`] says what is asked and how that ends; `lineup` decides whose turn it is, and `turns` what is sent in it;
//! `breaker` decides when somebody is away, and [`presence`] keeps who is; `worker` runs the turns and keeps the port
//! open; `port` opens serial ports and connections, moves bytes, and keeps what a port owes, whatever the bus on it is
//! called; `debts` remembers which answers may still come. `modbus` and `text` each know one kind of framing and do
//! one exchange. `ears` tells what an instrument says by itself; [`tap`] keeps what goes over a line for whoever
//! watches it, and [`speech`] says what that is.
//!
//! Invariants
//! - An exchange runs in the worker, never in its caller: a caller that is dropped leaves no half-done exchange behind.
//! - [`call::Wire::NotSent`] is said only when not one byte of the request left.
//! - An answer that comes after its timeout is never taken for another request's.
//! - Every wait has an end: a timeout, the stop token, or the end of the turn's holder.

#[cfg(any(test, feature = "proof"))]
pub mod any_bytes;
mod breaker;
pub mod call;
mod counts;
mod debts;
mod ears;
mod lineup;
mod link;
mod modbus;
mod port;
pub mod presence;
pub mod speech;
pub mod tap;
mod text;
mod turns;
mod worker;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub use counts::RESULTS;
pub use ears::{Hearing, Overheard};
pub use lineup::Class;
pub use port::error::{Cause, NotOpened};
pub use port::owed::{Hardware, Owed};
pub use port::{Lines, Opener, Opening, Port, SystemLines};
pub use worker::Worker;

#[cfg(test)]
pub(crate) use modbus::frame::rtu::tests::sealed;

use crate::config;
use crate::health::meters::BusReadings;
use crate::health::pulse::Pulse;
use crate::health::snapshot::{self, BusState};
use crate::peripheral::exchange::Request;
use crate::peripheral::Events;
use crate::proof::crash::{self, Point};
use call::{at, Call, Permit, Wire};
use counts::Counts;
use ears::Ears;
use link::TOO_LATE;
use presence::{Party, Presence};
use tap::Tap;

/// Callers that wait in a bus's queue. When it is full, the next ones wait in front of it, in order of arrival:
/// [`BusHandle::turn`] takes longer, and nothing is lost.
const QUEUE_MAX: usize = 64;

/// Makes a bus: the handle for those who want turns on it, and the worker that the composition root runs.
pub fn new(name: &str, config: &config::Bus) -> (BusHandle, Worker) {
    let (asks, queue) = mpsc::channel(QUEUE_MAX);
    let (configure, configured) = watch::channel(config.clone());
    let (publish, status) = watch::channel(BusStatus {
        name: name.to_owned(),
        kind: config.kind.as_str(),
        state: BusState::Opening,
        last_error: None,
        cause: None,
    });
    let handle = BusHandle {
        queue: asks,
        status,
        config: Arc::new(configure),
        callers_so_far: Arc::default(),
        pulse: Arc::default(),
        tap: Tap::default(),
        counts: Arc::default(),
        ears: Ears::default(),
        presence: Presence::new(config),
    };
    let worker = Worker::new(configured, queue, publish, &handle);
    (handle, worker)
}

/// For how long a peripheral on a bus may owe an answer to a command with this timeout, where one that comes late could
/// be taken for another's.
pub fn late_window(config: &config::Bus, timeout: Duration) -> Duration {
    match config.kind {
        config::BusKind::ModbusTcp { .. } => Duration::ZERO,
        config::BusKind::ModbusRtu(_) | config::BusKind::ModbusAscii(_) | config::BusKind::Serial { .. } => {
            debts::window_of(config.late_window, link::bounded(timeout))
        }
    }
}

/// Access to a bus. Clones share its queue. When the last is gone, and the last turn over, its worker ends.
#[derive(Debug, Clone)]
pub struct BusHandle {
    queue: mpsc::Sender<Grant>,
    status: watch::Receiver<BusStatus>,
    config: Arc<watch::Sender<config::Bus>>,
    callers_so_far: Arc<AtomicU64>,
    pulse: Arc<Pulse>,
    tap: Tap,
    counts: Arc<Counts>,
    ears: Ears,
    presence: Presence,
}

/// All turns of one command. Between two of them the bus goes round.
#[derive(Debug, Clone)]
pub struct Caller<'a> {
    bus: &'a BusHandle,
    number: u64,
    of: Option<Arc<str>>,
    harmless: Option<Request>,
}

impl Caller<'_> {
    /// On behalf of a device: the devices take turns.
    pub fn on_behalf_of(self, device: Arc<str>) -> Self {
        Caller { of: Some(device), ..self }
    }

    /// A read of the same unit that changes nothing: by its answer a line shows, where that matters, whether it echoes
    /// what is sent.
    pub fn with_harmless(self, harmless: Option<Request>) -> Self {
        Caller { harmless, ..self }
    }

    /// Waits for the bus, as a command of its device, or else behind the commands. Dropping the future gives the place
    /// up.
    ///
    /// # Errors
    /// The worker has ended: nothing will be sent any more.
    pub async fn turn(&self) -> Result<Turn, Closed> {
        self.turn_as(if self.of.is_some() { Class::Command } else { Class::Look }).await
    }

    /// The same among those of a class.
    ///
    /// # Errors
    /// The worker has ended: nothing will be sent any more.
    pub async fn turn_as(&self, class: Class) -> Result<Turn, Closed> {
        let (turn, granted) = oneshot::channel();
        let (of, harmless) = (self.of.clone(), self.harmless.clone());
        let grant = Grant { caller: self.number, class, of, harmless, turn };
        let asked = Instant::now();
        self.bus.queue.send(grant).await.map_err(|_| Closed)?;
        let turn = granted.await.map_err(|_| Closed)?;
        self.bus.counts.waited(asked.elapsed());
        Ok(turn)
    }
}

impl BusHandle {
    /// Waits for the bus, behind the commands that do. Dropping the future gives the place up.
    ///
    /// # Errors
    /// The worker has ended: nothing will be sent any more.
    pub async fn turn(&self) -> Result<Turn, Closed> {
        self.caller().turn().await
    }

    /// A caller for one command. Only to the same caller may a late answer to one request answer its repetition.
    pub fn caller(&self) -> Caller<'_> {
        Caller { bus: self, number: self.callers_so_far.fetch_add(1, Ordering::Relaxed), of: None, harmless: None }
    }

    /// Attempts after the first, where repeating is safe.
    pub fn retries(&self) -> u32 {
        self.config.borrow().retries
    }

    /// How long is waited before another attempt.
    pub fn retry_pause(&self) -> Duration {
        self.config.borrow().retry_pause
    }

    /// Where it can be watched what goes over its line.
    pub fn tap(&self) -> &Tap {
        &self.tap
    }

    /// Hears for a device what its instrument says by itself, for as long as what this gives is kept, in the place of
    /// whoever did before. `tell` is called by the bus's worker, and must not wait. A bus of Modbus tells nothing.
    pub fn listen(
        &self,
        device: &str,
        events: &Events,
        tell: impl Fn(Overheard<'_>) + Send + Sync + 'static,
    ) -> Hearing {
        self.ears.add(device, events.clone(), Arc::new(tell))
    }

    /// Who on it is there.
    pub fn presence(&self) -> &Presence {
        &self.presence
    }

    /// Who is asked, of a device on it.
    pub fn party(&self, device: &config::Device) -> Party {
        Party::of(&self.config.borrow().kind, device.unit, &device.id.as_str().into())
    }

    /// What it runs with.
    pub fn settings(&self) -> config::Bus {
        self.config.borrow().clone()
    }

    /// The bus is to run with other settings from now on, after the turn in hand: it is closed, and opened with
    /// them. Whoever waits for it goes on waiting. With the settings that it has already, nothing happens.
    pub fn configure(&self, config: &config::Bus) {
        self.config.send_if_modified(|present| {
            let changed = present != config;
            present.clone_from(config);
            changed
        });
    }

    /// Whether its worker moves.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// What the bus looks like once it is known whether its line can be opened.
    pub async fn tried(&self) -> BusStatus {
        let is_known = |status: &BusStatus| status.state != BusState::Opening || status.last_error.is_some();
        match self.status.clone().wait_for(is_known).await {
            Ok(status) => status.clone(),
            Err(_) => self.status(),
        }
    }

    /// As `status` shows it.
    pub fn snapshot(&self) -> snapshot::Bus {
        let is_text = matches!(self.config.borrow().kind, config::BusKind::Serial { .. });
        let units = if is_text { Vec::new() } else { self.counts.units() };
        let (exchanges, timeouts) = self.counts.sums();
        snapshot::Bus { units, exchanges, timeouts, ..self.status().snapshot() }
    }

    /// What was counted of it, for whoever watches it over months.
    pub fn readings(&self) -> BusReadings {
        self.counts.reading(self.config.borrow().kind.is_modbus())
    }

    /// What the bus looks like now.
    pub fn status(&self) -> BusStatus {
        self.status.borrow().clone()
    }
}

/// The bus, held by one caller. Dropping it gives the bus to the next.
#[derive(Debug)]
pub struct Turn {
    asks: mpsc::Sender<Ask>,
    /// Whether the line owed other answers when the last exchange had ended.
    owes: bool,
}

impl Turn {
    /// Puts one request on the line and waits for its end. Several exchanges may be made while the turn is held, with
    /// other work between them.
    ///
    /// It ends at the call's `not_after` if nothing has left by then, whatever the worker waits for. Dropping the
    /// future takes the call's permit back: what has not begun is not sent, and what has is ended by the worker.
    pub async fn exchange(&mut self, call: &Call) -> Wire {
        crash::point(if call.look == 0 { Point::BeforeExchange } else { Point::BeforeReadBack });
        let wire = self.put(call).await;
        crash::point(if call.look == 0 { Point::AttemptEnded } else { Point::ReadBackEnded });
        wire
    }

    async fn put(&mut self, call: &Call) -> Wire {
        let (reply, mut answer) = oneshot::channel();
        if !self.ask(call, Wish::Exchange(reply)).await {
            return stopped();
        }
        // A worker that stops in order answers NotSent to what it won't begin. No answer at all means that it was
        // torn down, perhaps in the middle of the exchange.
        let torn_down = || Wire::NoAnswer("the bus was shut down in the middle of the exchange".into());
        let _until_the_end = TakenBackOnDrop(&call.permit);
        let answered = select! {
            biased;
            answered = &mut answer => answered,
            () = at(call.not_after) => match call.permit.take_back() {
                true => return Wire::NotSent(TOO_LATE.into()),
                false => answer.await,
            }
        };
        let (wire, owes) = answered.unwrap_or_else(|_| (torn_down(), true));
        self.owes = owes;
        wire
    }

    /// Whether the line still owed an answer to something when the last exchange had ended.
    pub fn owes(&self) -> bool {
        self.owes
    }

    /// Waits until no late answer can be taken for this call's, so that its exchange, if it is the next, goes out at
    /// once. Others have the bus meanwhile. Dropping the future ends what the worker does for it.
    pub async fn clear(&mut self, call: &Call) {
        let (reply, cleared) = oneshot::channel();
        let call = Call { permit: Permit::default(), ..call.clone() };
        let _until_the_end = TakenBackOnDrop(&call.permit);
        if self.ask(&call, Wish::Clear(reply)).await {
            // An error means that the worker stops, which the next exchange is told.
            let _ = cleared.await;
        }
    }

    /// `false`: the worker has ended.
    async fn ask(&mut self, call: &Call, wish: Wish) -> bool {
        self.asks.send(Ask { call: call.clone(), at: Instant::now(), wish }).await.is_ok()
    }
}

/// Takes a permit back when whoever gave it is gone.
struct TakenBackOnDrop<'a>(&'a Permit);

impl Drop for TakenBackOnDrop<'_> {
    fn drop(&mut self) {
        self.0.take_back();
    }
}

fn stopped() -> Wire {
    Wire::NotSent("the gateway is stopping".into())
}

/// The bus's worker has ended: nothing will be sent any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bus is shut down")
    }
}

impl std::error::Error for Closed {}

/// A bus as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusStatus {
    /// Its name in the configuration.
    pub name: String,
    /// `modbus-rtu`, `modbus-ascii`, `modbus-tcp` or `serial`.
    pub kind: &'static str,
    /// Whether requests can go out.
    pub state: BusState,
    /// Why it can't be opened or was lost; of an open one, what is wrong with the line.
    pub last_error: Option<String>,
    /// Why it can't be opened, for whoever decides by it.
    pub cause: Option<Cause>,
}

impl BusStatus {
    /// Whether requests can go out at once.
    pub fn is_open(&self) -> bool {
        self.state == BusState::Open
    }

    /// As a snapshot has it, but for what is counted.
    fn snapshot(&self) -> snapshot::Bus {
        let BusStatus { name, kind, state, last_error, cause } = self.clone();
        snapshot::Bus { name, kind: kind.to_owned(), state, last_error, cause, ..snapshot::Bus::default() }
    }
}

/// What a waiting caller leaves in the queue.
#[derive(Debug)]
struct Grant {
    caller: u64,
    class: Class,
    /// The device whose command it is.
    of: Option<Arc<str>>,
    harmless: Option<Request>,
    turn: oneshot::Sender<Turn>,
}

/// What the holder of a turn asks for.
#[derive(Debug)]
struct Ask {
    call: Call,
    at: Instant,
    wish: Wish,
}

/// What is wished for a call, and who waits for it.
#[derive(Debug)]
enum Wish {
    /// To be told its end, and whether the line owes other answers then.
    Exchange(oneshot::Sender<(Wire, bool)>),
    /// To be told when its exchange may go out.
    Clear(oneshot::Sender<()>),
}

impl Wish {
    /// Whether nobody waits for it any more.
    fn is_abandoned(&self) -> bool {
        match self {
            Wish::Exchange(reply) => reply.is_closed(),
            Wish::Clear(reply) => reply.is_closed(),
        }
    }

    /// Returns when nobody waits for it any more. Cancel-safe.
    async fn abandoned(&mut self) {
        match self {
            Wish::Exchange(reply) => reply.closed().await,
            Wish::Clear(reply) => reply.closed().await,
        }
    }
}
