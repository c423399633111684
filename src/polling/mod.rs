//! The polls of one bus: what is due is asked of the bus behind everything else, and what is news goes into the store
//! of telemetry. `plan` says what is asked together, `schedule` when; `latest` has what each came to last.
//!
//! Invariants
//! - At most so many askings wait for the bus as it does at once: the queue of the bus stays free for commands. Each
//!   has the bus for one exchange.
//! - A poll is asked once; what it came to, or why to nothing, stands in its sample. It writes nothing.
//! - Who is away is left alone, but for the attempts that anybody may make; a lock bars no poll.
//! - Nobody waits for the store.

pub mod latest;
mod plan;
mod schedule;

use std::sync::Arc;

use tokio::select;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bus::call::{Call, Wire};
use crate::bus::{BusHandle, Class};
use crate::command::outcome::Code;
use crate::config::Device;
use crate::device::run::harmless;
use crate::ledger::Ledger;
use crate::peripheral::exchange::{Answer, Refusal, Request};
use crate::peripheral::{exception, Command, Prepared, Reading};
use crate::telemetry::{Sample, Store};
use crate::time::{until, Timestamp};
use latest::Latest;
use schedule::{Due, Heard, Parting, Schedule};

/// Devices of a bus that are polled, or not.
pub type Polled = Arc<Vec<Arc<Device>>>;

/// Polls on one bus.
pub struct Poller {
    /// The bus.
    pub bus: BusHandle,
    /// Its devices at present.
    pub devices: watch::Receiver<Polled>,
    /// Where what is news goes.
    pub store: Store,
    /// Where all that is read is looked up.
    pub latest: Latest,
    /// Knows whether the clock is believed.
    pub ledger: Ledger,
}

/// How an asking ended.
struct Ended {
    due: Due,
    /// `None`: the bus is gone.
    came_to: Option<CameTo>,
}

/// What it came to.
struct CameTo {
    readings: Vec<(String, Reading)>,
    heard: Heard,
}

impl Poller {
    /// Polls until it is stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        let (mut schedule, mut under_way) = (Schedule::default(), JoinSet::new());
        self.take_up(&mut schedule);
        loop {
            let most = self.bus.settings().max_in_flight;
            let due_at = schedule.due_at().filter(|_| under_way.len() < most).map(Instant::from_std);
            select! {
                biased;
                () = stop.cancelled() => return,
                changed = self.devices.changed() => match changed {
                    Ok(()) => self.take_up(&mut schedule),
                    Err(_) => return stop.cancelled().await,
                },
                Some(ended) = under_way.join_next() => match ended {
                    Ok(Ended { due, came_to: Some(came_to) }) => self.take(&mut schedule, &due, came_to),
                    // The bus is gone, and this one is about to be stopped.
                    Ok(Ended { came_to: None, .. }) => return stop.cancelled().await,
                    Err(error) => tracing::error!(%error, "a poll has ended badly"),
                },
                () = until(due_at.unwrap_or_else(Instant::now)), if due_at.is_some() => {
                    if let Some(due) = schedule.begin(Instant::now().into_std()) {
                        under_way.spawn(ask(self.bus.clone(), due));
                    }
                }
            }
        }
    }

    fn take_up(&mut self, schedule: &mut Schedule) {
        let devices = self.devices.borrow_and_update().clone();
        schedule.take_up(&devices, Instant::now().into_std());
        self.latest.take_up(&devices);
    }

    /// Takes in what an asking came to.
    fn take(&self, schedule: &mut Schedule, due: &Due, came_to: CameTo) {
        let now = Instant::now().into_std();
        let CameTo { readings, heard } = came_to;
        if let Some(parting) = schedule.ended(due, heard, now) {
            let names: Vec<&str> = due.asking.polls.iter().map(|(name, _)| name.as_str()).collect();
            let (device, polls) = (&due.device.id, names.join(", "));
            match parting {
                Parting::ForNow => tracing::debug!(%device, %polls, "these polls are tried apart"),
                Parting::ForGood => {
                    tracing::info!(%device, %polls, "these polls can't be read together: each is asked alone from now on");
                }
            }
            // What each comes to is told.
            return;
        }
        self.latest.note(&due.device, &readings, now);
        let news = schedule.news(due, readings, now);
        if news.is_empty() {
            return;
        }
        let believed = self.ledger.wall_clock().now();
        let (at, clock_ok) = (believed.unwrap_or_else(|_| Timestamp::now()), believed.is_ok());
        let device: Arc<str> = due.device.id.as_str().into();
        self.store.add(&device, &Sample { at, clock_ok, readings: news });
    }
}

/// Asks what is due.
async fn ask(bus: BusHandle, due: Due) -> Ended {
    let came_to = match due.asking.span {
        Some(span) => together(&bus, &due, span.read()).await,
        None => alone(&bus, &due).await,
    };
    Ended { due, came_to }
}

/// Reads what lies side by side, and gives each poll its part.
async fn together(bus: &BusHandle, due: &Due, request: Request) -> Option<CameTo> {
    let answer = exchange(bus, &due.device, request).await?;
    let reading = |(name, from): &(String, usize)| {
        let read = || -> Reading {
            let poll = due.device.polls.get(name).ok_or(Code::BadReply)?;
            let answer = answer.as_ref().map_err(Refused::code)?;
            let own = plan::part(answer, *from, plan::length(poll)).ok_or(Code::BadReply)?;
            let prepared = poll.command.prepare(None).map_err(|fault| fault.code)?;
            interpreted(&poll.command, &prepared, &own)
        };
        (name.clone(), read())
    };
    Some(CameTo { readings: due.asking.polls.iter().map(reading).collect(), heard: heard(&answer) })
}

/// Asks one poll by its own request, and by a second one where the first only reads its scale.
async fn alone(bus: &BusHandle, due: &Due) -> Option<CameTo> {
    let (name, _) = due.asking.polls.first()?;
    let told = |reading, heard| Some(CameTo { readings: vec![(name.clone(), reading)], heard });
    let command = &due.device.polls.get(name)?.command;
    let mut prepared = match command.prepare(None) {
        Ok(prepared) => prepared,
        Err(fault) => return told(Err(fault.code), Heard::Nothing),
    };
    let mut answer = exchange(bus, &due.device, prepared.request.clone()).await?;
    if prepared.is_first() {
        let follow = |first| command.follow(&prepared, first).map_err(|fault| fault.code);
        match answer.as_ref().map_err(Refused::code).and_then(follow) {
            Ok(next) => prepared = next,
            Err(code) => return told(Err(code), heard(&answer)),
        }
        answer = exchange(bus, &due.device, prepared.request.clone()).await?;
    }
    let reading = match answer.as_ref() {
        Ok(answer) => interpreted(command, &prepared, answer),
        Err(refused) => Err(refused.code()),
    };
    told(reading, heard(&answer))
}

/// What an answer, or that there is none, says of the request.
fn heard(answer: &Result<Answer, Refused>) -> Heard {
    match answer {
        Ok(_) => Heard::Well,
        Err(Refused::Exception(exception::ILLEGAL_ADDRESS | exception::ILLEGAL_VALUE)) => Heard::ForItsExtent,
        Err(Refused::Exception(_) | Refused::For(Code::Timeout | Code::BadReply | Code::Refused)) => Heard::Badly,
        Err(Refused::For(_)) => Heard::Nothing,
    }
}

fn interpreted(command: &Command, prepared: &Prepared, answer: &Answer) -> Reading {
    command.interpret(prepared, answer).map(Option::unwrap_or_default).map_err(|_| Code::BadReply)
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refused {
    Exception(u8),
    For(Code),
}

impl Refused {
    fn code(&self) -> Code {
        match self {
            Refused::Exception(exception::NO_PATH) => Code::BusUnavailable,
            Refused::Exception(_) => Code::Exception,
            Refused::For(code) => *code,
        }
    }
}

/// One exchange, in a turn of its own. `None`: the bus is gone.
async fn exchange(bus: &BusHandle, device: &Device, request: Request) -> Option<Result<Answer, Refused>> {
    let unreachable = || Some(Err(Refused::For(Code::Unreachable)));
    let (party, presence) = (bus.party(device), bus.presence());
    // Where a read can show that it is back, that is tried elsewhere, by a command before all.
    if presence.is_away(&party) && harmless(device).is_some() {
        return unreachable();
    }
    let Some(pass) = presence.pass(&party) else { return unreachable() };
    let name: Arc<str> = device.id.as_str().into();
    let caller = bus.caller().on_behalf_of(name.clone());
    let mut turn = select! {
        biased;
        turn = caller.turn_as(Class::Poll) => turn.ok()?,
        () = pass.lapses() => return unreachable(),
    };
    if pass.has_lapsed() {
        return unreachable();
    }
    let (patience, quirks) = (device.patience, device.quirks);
    let call = Call { of: Some(name), patience, quirks, ..Call::new(device.unit, request) };
    Some(match turn.exchange(&call).await {
        Wire::Answered(answer) => Ok(answer),
        Wire::Refused(Refusal::Exception(code)) => Err(Refused::Exception(code)),
        Wire::Refused(Refusal::Text(_)) => Err(Refused::For(Code::Refused)),
        Wire::NotSent(_) => Err(Refused::For(Code::BusUnavailable)),
        Wire::NoAnswer(_) => Err(Refused::For(Code::Timeout)),
        Wire::BadReply(_) => Err(Refused::For(Code::BadReply)),
        Wire::Broadcast => Err(Refused::For(Code::Unconfirmed)),
    })
}
