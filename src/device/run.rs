//! Carries out the steps of one command on its bus. What the steps are is decided in [`crate::command::decide`].
//!
//! Invariants
//! - Before the first byte of a command leaves, its gate was asked, while the bus was already held: the answer is not
//!   stale. It is asked again after `executing` is durable and after every pause, until a byte has left, and what the
//!   line itself waits for ends when the gate calls the command off: a deadline holds for the first byte (G13).
//! - A command that is called off while it waits, for whatever, ends then, and not when its turn comes.
//! - Between two attempts, and two units that are read back, the bus goes round: a sick peripheral costs its neighbours
//!   one attempt at a time (G11). When it is away, there are only those that are to find out whether it is back.

mod attempt;
mod away;
mod look;

use serde_json::Value as Json;
use tokio::time::{sleep, Instant};

use crate::bus::call::{Call, Permit, Wire};
use crate::bus::{BusHandle, Turn};
use crate::command::decide::{Attempt, Execution, Looks, Route, Step};
use crate::command::outcome::{Code, Fault, Outcome};
use crate::config::Device;
use crate::peripheral::exchange::{Refusal, Request};
use crate::peripheral::registers::Point;
use crate::peripheral::{exception, Action, Command, Prepared};
use crate::proof::crash;
use crate::time::Timestamp;
use attempt::Sent;
use away::Asking;

/// A command with its value, and where it goes.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// The device.
    pub device: &'a Device,
    /// The command.
    pub command: &'a Command,
    /// What is asked in a row, one or more.
    pub parts: Vec<Part<'a>>,
}

/// One of several writes in a row, or all there is of a command.
#[derive(Debug, Clone)]
pub struct Part<'a> {
    /// What it does.
    pub command: &'a Command,
    /// Ready for the wire.
    pub prepared: Prepared,
}

/// Whether a command may go on the wire.
#[derive(Debug, Clone, PartialEq)]
pub enum Go {
    /// It may.
    Yes,
    /// It may not, and this is its outcome.
    End(Outcome),
    /// Not now, and nothing is to be recorded.
    No,
}

/// What stands between a command and the wire.
pub trait Gate {
    /// Asked when the bus is held and nothing was sent.
    fn may_go(&mut self) -> Go;

    /// From when on [`Gate::may_go`] says that it is too late, as far as the monotonic clock tells.
    fn not_after(&self) -> Instant;

    /// The outcome of a command that was not sent in time.
    fn expired(&self) -> Outcome;

    /// Returns when [`Gate::may_go`] may say something else than yes: a command that waits is looked at then. Not in a
    /// row without a pause, if it says yes all the same. Cancel-safe.
    fn called_off(&self) -> impl std::future::Future<Output = ()> + Send;

    /// Returns when nobody wants the command any more, or nobody may: then [`Gate::may_go`] says its end, recorded or
    /// not. Cancel-safe.
    fn withdrawn(&self) -> impl std::future::Future<Output = ()> + Send;

    /// Whether a person waits for the command, who wants to know: it is tried also if its unit is away.
    fn insists(&self) -> bool {
        false
    }

    /// The command is about to wait until its unit is back, or may be tried.
    fn waits_for_its_unit(&self) {}

    /// Leave for one exchange, which a lock takes back.
    fn permit(&self) -> Permit;

    /// The first byte of one of its requests has left, at this time by the wall clock.
    fn has_left(&mut self, at: Timestamp);

    /// How the command would have ended if a lock had barred it from the beginning, if one bars it now.
    fn locked_out(&self) -> Option<Outcome>;

    /// Makes `executing` durable. `false`: it could not be, and nothing may be sent.
    fn record_executing(&mut self) -> impl std::future::Future<Output = bool> + Send;
}

/// How a command's run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ran {
    /// With this outcome, after so many attempts.
    Finished(Outcome, u32),
    /// Before anything was recorded or sent.
    NotNow,
    /// The bus has ended after so many attempts, of which one may have reached the wire.
    Interrupted(u32),
}

impl<'a> Plan<'a> {
    /// Looks up a command of a device and prepares its value.
    ///
    /// # Errors
    /// `unknown-command`, `bad-value` or `out-of-range`.
    pub fn new(device: &'a Device, name: &str, value: Option<&Json>) -> Result<Plan<'a>, Fault> {
        let command = device.commands.get(name).ok_or_else(|| {
            let known: Vec<&str> = device.commands.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let message = format!("{} has no command {name:?}; it has {known}", device.id);
            Fault::new(Code::UnknownCommand, message)
        })?;
        let parts = command.parts(value)?.into_iter().map(|(command, prepared)| Part { command, prepared }).collect();
        Ok(Plan { device, command, parts })
    }

    /// What matters of the command for how it is run.
    pub fn route(&self, bus: &BusHandle) -> Route {
        let rules = || self.parts.iter().filter_map(|part| part.command.read_back.as_ref());
        let after = rules().map(|rule| rule.after).max();
        let within = rules().map(|rule| rule.within).max();
        Route {
            idempotent: self.command.idempotent,
            verify: after.zip(within).map(|(after, within)| Looks { after, within }),
            attempts_max: self.device.patience.retries.unwrap_or_else(|| bus.retries()) + 1,
            retry_pause: bus.retry_pause(),
        }
    }

    /// The same for a command of which nobody remembers how far it came: what is read back must show all of it.
    pub fn route_after_a_crash(&self, bus: &BusHandle) -> Route {
        let route = self.route(bus);
        let shows_all = self.parts.iter().all(|part| part.command.read_back.is_some());
        Route { verify: route.verify.filter(|_| shows_all), ..route }
    }

    /// The value that the message asks to be written, as it was written.
    fn written(&self, sent: &Sent) -> Option<Json> {
        let of = self.parts.len();
        let mut parts = self.parts.iter().zip(&sent.made);
        parts.find(|(part, _)| of == 1 || part.command.fixed.is_none()).and_then(|(_, made)| made.written.clone())
    }

    /// Runs the command to its outcome.
    pub async fn run(&self, bus: &BusHandle, mut execution: Execution, gate: &mut impl Gate) -> Ran {
        let (mut looked_since, mut looks) = (Instant::now(), 0);
        let mut asking = Asking::of(self, bus);
        let mut turn: Option<Turn> = None;
        let mut sent = Sent::nothing(&self.parts);
        let mut progress = Progress::Untouched;
        let mut step = execution.begin();
        loop {
            turn = match self.turn_for(&step, &execution, turn, &mut asking, gate, (progress, &sent)).await {
                Ok(turn) => turn,
                Err(ran) => return ran,
            };
            let was_recorded = matches!(step, Step::RecordExecuting);
            step = match (step, &mut turn) {
                (Step::Finish(outcome), _) => return Ran::Finished(outcome, execution.attempts()),
                (Step::RecordExecuting, _) => match gate.record_executing().await {
                    true => {
                        progress = Progress::Recorded;
                        execution.recorded()
                    }
                    false => return called_off(Ran::NotNow, &execution, &Step::RecordExecuting),
                },
                (Step::Send, Some(held)) => {
                    let (attempt, left) = match self.attempt(held, gate, progress, &mut sent).await {
                        Ok(ended) => ended,
                        Err(ran) => return called_off(ran, &execution, &Step::Send),
                    };
                    looked_since = Instant::now();
                    asking.has_asked();
                    if asking.is_away() {
                        execution.make_no_more();
                    }
                    progress = progress.after(&attempt, left);
                    execution.attempted(attempt)
                }
                (Step::AgainAfter(pause), _) => {
                    turn = None;
                    match unless_called_off(gate, progress, sleep(pause)).await {
                        Ok(()) => execution.again(),
                        Err(ran) => return called_off(ran, &execution, &Step::AgainAfter(pause)),
                    }
                }
                (Step::ReadBack, held @ Some(_)) => {
                    looks += 1;
                    let result = self.read_back(&sent, held, &asking, looks).await;
                    execution.read_back(result, self.written(&sent), looked_since.elapsed())
                }
                (Step::ReadBackAfter(pause), _) => {
                    turn = None;
                    crash::point(crash::Point::BeforeReadBackAgain);
                    sleep(pause).await;
                    Step::ReadBack
                }
                (Step::Send | Step::ReadBack, None) => unreachable!("a turn was taken above"),
            };
            // What was recorded or written is followed up at once; a repetition waits for the others on the bus.
            if !was_recorded && !matches!(step, Step::ReadBack) {
                turn = None;
            }
            if matches!(step, Step::Send) && execution.attempts() > 1 {
                crash::point(crash::Point::BetweenAttempts);
            }
        }
    }

    /// The turn that a step needs, if it needs one, or how the run ends without.
    async fn turn_for(
        &self,
        step: &Step,
        execution: &Execution,
        turn: Option<Turn>,
        asking: &mut Asking<'_>,
        gate: &mut impl Gate,
        (progress, sent): (Progress, &Sent),
    ) -> Result<Option<Turn>, Ran> {
        if matches!(step, Step::RecordExecuting | Step::Send) && progress != Progress::OnTheWire {
            let held = self.wait_to_send(asking, turn, gate, (progress, sent)).await;
            return held.map(Some).map_err(|ran| called_off(ran, execution, step));
        }
        match turn {
            None if matches!(step, Step::Send | Step::ReadBack) => {
                let attempts = begun(execution, step);
                let granted = asking.turn_at_once().await.map_err(|_| Ran::Interrupted(attempts))?;
                match matches!(step, Step::Send) && asking.is_away() && !gate.insists() {
                    true => Err(Ran::Finished(execution.not_repeated(self.unreachable(asking.bus)), attempts)),
                    false => Ok(Some(granted)),
                }
            }
            turn => Ok(turn),
        }
    }

    /// Waits for the bus, and until the line is clear, for a command of which nothing has left yet. The gate is asked
    /// last of all, and whenever it calls the command off meanwhile; and then whether the unit is away.
    async fn wait_to_send(
        &self,
        asking: &mut Asking<'_>,
        mut turn: Option<Turn>,
        gate: &mut impl Gate,
        (progress, sent): (Progress, &Sent),
    ) -> Result<Turn, Ran> {
        loop {
            let mut held = match turn.take() {
                Some(held) => held,
                None => self.turn_to_ask(asking, gate, progress).await?,
            };
            // What is recorded was cleared for the line just before, and nobody came between.
            if progress == Progress::Untouched {
                crash::point(crash::Point::TurnHeld);
                unless_called_off(gate, progress, held.clear(&self.first_call(sent))).await?;
                crash::point(crash::Point::LineClear);
            }
            ask(gate, progress)?;
            if !asking.has_lapsed() {
                return Ok(held);
            }
        }
    }

    fn call(&self, request: Request) -> Call {
        let Device { unit, patience, quirks, .. } = *self.device;
        let of = Some(self.device.id.as_str().into());
        Call { of, patience, quirks, ..Call::new(unit, request) }
    }

    /// What an exchange came to. `owes`: the line owes an answer to something else.
    fn ended(&self, part: &Part, prepared: &Prepared, wire: Wire, owes: bool) -> Attempt {
        match wire {
            Wire::Answered(answer) => match part.command.interpret(prepared, &answer) {
                Ok(value) if part.command.is_shown_by(prepared, &answer) => Attempt::Shown(value),
                Ok(value) => Attempt::Confirmed(value),
                Err(why) => Attempt::Unclear(Fault::new(Code::BadReply, why)),
            },
            Wire::Refused(refusal) => refused(refusal, owes),
            Wire::NotSent(why) => Attempt::NotSent(Fault::new(Code::BusUnavailable, why)),
            Wire::NoAnswer(why) => Attempt::Unclear(Fault::new(Code::Timeout, why)),
            Wire::BadReply(why) => Attempt::Unclear(Fault::new(Code::BadReply, why)),
            Wire::Broadcast => Attempt::Broadcast(Fault::new(Code::Unconfirmed, SENT_TO_ALL)),
        }
    }
}

/// A read of a device's unit that changes nothing, as its profile has one: whose answer shows whether the line echoes,
/// and whether the unit is there.
pub fn harmless(device: &Device) -> Option<Request> {
    let polls = || device.polls.values().map(|poll| &poll.command);
    let commands = || device.commands.values().flat_map(Command::each).chain(polls());
    let reads = commands().filter_map(|command| match &command.action {
        Action::Read(point) => Some(point),
        _ => None,
    });
    let read_backs = commands().filter_map(|command| Some(&command.read_back.as_ref()?.point));
    let mut requests = reads.chain(read_backs).map(Point::read);
    requests.find(|request| !device.broadcast && !request.is_answered_by_itself(device.quirks))
}

/// Why a broadcast is not confirmed.
const SENT_TO_ALL: &str = "it was sent to all units of the line, and nobody confirms that";

/// How far a command has come on its way to the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing was recorded, and nothing sent.
    Untouched,
    /// `executing` is durable. It is not left undone for a stop: only its deadline ends it before the wire.
    Recorded,
    /// A byte of it may have left.
    OnTheWire,
}

impl Progress {
    /// How far it has come when an attempt has ended of which something has left, or not. What the peripheral did not
    /// begin is as good as not sent, and stands in the ledger once more before another attempt.
    fn after(self, attempt: &Attempt, left: bool) -> Progress {
        match (self, attempt) {
            (Progress::OnTheWire, _) => Progress::OnTheWire,
            (_, Attempt::Busy { .. } | Attempt::NotSent(_)) => Progress::Untouched,
            (_, _) if left => Progress::OnTheWire,
            (before, _) => before,
        }
    }
}

/// Attempts that were begun before this step: the one that is about to be made does not count.
fn begun(execution: &Execution, step: &Step) -> u32 {
    execution.attempts() - u32::from(matches!(step, Step::Send))
}

/// The end of a command that was not let through, before this step.
fn called_off(ran: Ran, execution: &Execution, step: &Step) -> Ran {
    let attempts = begun(execution, step);
    match (ran, execution.given_up()) {
        (Ran::Finished(outcome, _), _) => Ran::Finished(execution.cut_short(outcome), attempts),
        (Ran::NotNow, Some(outcome)) => Ran::Finished(outcome, attempts),
        (ran, _) => ran,
    }
}

/// What an exchange came to, unless it was not sent and a lock bars it from being sent again.
fn unless_locked_out(gate: &impl Gate, wire: Wire) -> Result<Wire, Ran> {
    match (wire, gate.locked_out()) {
        (Wire::NotSent(_), Some(outcome)) => Err(Ran::Finished(outcome, 0)),
        (wire, _) => Ok(wire),
    }
}

/// Whether a command of which nothing has left may go.
fn ask(gate: &mut impl Gate, progress: Progress) -> Result<(), Ran> {
    match gate.may_go() {
        Go::Yes => Ok(()),
        Go::End(outcome) => Err(Ran::Finished(outcome, 0)),
        Go::No if progress == Progress::Recorded => Ok(()),
        Go::No => Err(Ran::NotNow),
    }
}

/// Waits for something, unless the gate ends that. What was waited for is dropped then.
async fn unless_called_off<T>(
    gate: &mut impl Gate,
    progress: Progress,
    wait: impl std::future::Future<Output = T>,
) -> Result<T, Ran> {
    tokio::pin!(wait);
    loop {
        tokio::select! {
            biased;
            done = &mut wait => return Ok(done),
            () = gate.called_off(), if progress == Progress::Untouched => ask(gate, progress)?,
            () = gate.withdrawn(), if progress == Progress::Recorded => ask(gate, progress)?,
            () = tokio::time::sleep_until(gate.not_after()), if progress == Progress::Recorded => {
                return Err(Ran::Finished(gate.expired(), 0));
            }
        }
    }
}

fn shown(value: &Option<Json>) -> String {
    value.as_ref().map_or_else(|| "nothing".to_owned(), Json::to_string)
}

/// What a refusal means. Four Modbus exceptions are none. After two of them it is not known what the peripheral did:
/// one says that it is at it, and is not to be asked once more; the other is a gateway's word for silence, and as good
/// as that. And by two it has done nothing yet.
fn refused(refusal: Refusal, owes: bool) -> Attempt {
    match refusal {
        Refusal::Text(text) => Attempt::Refused(Fault::new(Code::Refused, format!("the peripheral refused: {text}"))),
        Refusal::Exception(code) => {
            let message = format!("Modbus exception {code}: {}", exception::meaning(code));
            let fault = |kind| Fault { code: kind, message: message.clone(), modbus_exception: Some(code) };
            match code {
                exception::ACKNOWLEDGE => Attempt::Unconfirmed(fault(Code::Exception)),
                exception::NO_RESPONSE => Attempt::Unclear(fault(Code::Exception)),
                exception::BUSY => Attempt::Busy { fault: fault(Code::Exception), certain: !owes },
                exception::NO_PATH => Attempt::NoPath(fault(Code::BusUnavailable)),
                _ => Attempt::Refused(fault(Code::Exception)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
