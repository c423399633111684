//! What becomes of a command whose unit is away: it fails, or it waits, or it is the one attempt that is made at the
//! unit from time to time.
//!
//! Invariants
//! - Whether the unit is away is looked at last of all, with the bus in hand, when nothing else ends the command.
//! - Who makes the one attempt has leave for it from before it waits for the bus until the attempt has ended.
//! - What a person asks for goes to whoever is away, too: once.

use std::future::{pending, Future};
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::time::Instant;

use super::{ask, harmless, unless_called_off, Gate, Plan, Progress, Ran};
use crate::bus::presence::{Party, Pass};
use crate::bus::{BusHandle, Caller, Class, Closed, Turn};
use crate::command::outcome::{Code, Fault, Outcome, State};
use crate::config::OnUnreachable;

/// A command's way to its unit.
pub(super) struct Asking<'a> {
    pub(super) bus: &'a BusHandle,
    caller: Caller<'a>,
    party: Party,
    /// Leave to ask the unit. A person needs none.
    pass: Option<Pass>,
}

impl<'a> Asking<'a> {
    /// That of a plan on its bus.
    pub(super) fn of(plan: &Plan<'_>, bus: &'a BusHandle) -> Asking<'a> {
        let device: Arc<str> = plan.device.id.as_str().into();
        let caller = bus.caller().on_behalf_of(device).with_harmless(harmless(plan.device));
        Asking { bus, caller, party: bus.party(plan.device), pass: None }
    }

    /// Whether the unit is away.
    pub(super) fn is_away(&self) -> bool {
        self.bus.presence().is_away(&self.party)
    }

    /// Whether the leave to ask does not count any more, for who was there is away. It is given back then.
    pub(super) fn has_lapsed(&mut self) -> bool {
        self.pass.take_if(|pass| pass.has_lapsed()).is_some()
    }

    /// The attempt has ended: the next one needs leave of its own.
    pub(super) fn has_asked(&mut self) {
        self.pass = None;
    }

    /// Waits for the bus, for a command of which something was sent. Who is away may be silent again: that can wait.
    pub(super) async fn turn_at_once(&self) -> Result<Turn, Closed> {
        self.caller.turn_as(if self.is_away() { Class::Look } else { Class::Command }).await
    }

    /// Waits for the bus. `None`: the unit is away, and was not before.
    async fn turn(&self) -> Option<Result<Turn, Closed>> {
        let is_one_attempt = self.pass.as_ref().is_some_and(Pass::is_for_one_attempt);
        let class = if is_one_attempt { Class::Look } else { Class::Command };
        let lapses = async {
            match &self.pass {
                Some(pass) => pass.lapses().await,
                None => pending().await,
            }
        };
        select! {
            biased;
            turn = self.caller.turn_as(class) => Some(turn),
            () = lapses => None,
        }
    }
}

impl Plan<'_> {
    /// Waits for leave to ask the unit, and then for the bus, for a command of which nothing was sent.
    pub(super) async fn turn_to_ask(
        &self,
        asking: &mut Asking<'_>,
        gate: &mut impl Gate,
        progress: Progress,
    ) -> Result<Turn, Ran> {
        loop {
            if asking.pass.is_none() && !gate.insists() {
                asking.pass = Some(self.pass(asking, gate, progress).await?);
            }
            match unless_called_off(gate, progress, asking.turn()).await? {
                Some(turn) => return turn.map_err(|_| Ran::NotNow),
                None => asking.pass = None,
            }
        }
    }

    /// Leave to ask the unit. Whatever else ends the command comes before that its unit is away.
    async fn pass(&self, asking: &Asking<'_>, gate: &mut impl Gate, progress: Progress) -> Result<Pass, Ran> {
        let presence = asking.bus.presence();
        loop {
            if let Some(pass) = presence.pass(&asking.party) {
                return Ok(pass);
            }
            ask(gate, progress)?;
            match self.device.on_unreachable {
                OnUnreachable::Fail => return Err(Ran::Finished(self.unreachable(asking.bus), 0)),
                OnUnreachable::Hold | OnUnreachable::Mirror => {
                    gate.waits_for_its_unit();
                    let back = unless_called_off(gate, progress, presence.may_be_asked(&asking.party)).await;
                    back.map_err(|ran| self.held(ran, asking.bus))?;
                }
            }
        }
    }

    /// Waits for something else before a command may begin, unless it fails meanwhile since its unit is away.
    pub(in crate::device) async fn unless_unreachable<T>(
        &self,
        bus: &BusHandle,
        gate: &mut impl Gate,
        wait: impl Future<Output = T>,
    ) -> Result<T, Ran> {
        let fails = self.device.on_unreachable == OnUnreachable::Fail && !gate.insists();
        let party = bus.party(self.device);
        let barred = async {
            match fails {
                true => bus.presence().is_barred(&party).await,
                false => pending().await,
            }
        };
        let waited = async {
            select! {
                biased;
                done = wait => Some(done),
                () = barred => None,
            }
        };
        if let Some(done) = unless_called_off(gate, Progress::Untouched, waited).await? {
            return Ok(done);
        }
        ask(gate, Progress::Untouched)?;
        Err(Ran::Finished(self.unreachable(bus), 0))
    }

    /// The end of a command that is not sent since its unit is away.
    pub(super) fn unreachable(&self, bus: &BusHandle) -> Outcome {
        let message = format!("{}; nothing was sent", self.away(bus));
        Outcome::ended(State::Failed, Fault::new(Code::Unreachable, message))
    }

    /// Who is away, for how long, what to look at, and when it is tried again.
    fn away(&self, bus: &BusHandle) -> String {
        let party = bus.party(self.device);
        let standing = bus.presence().standing(&party);
        let name = &bus.status().name;
        let who = match &party {
            Party::Unit(unit) => format!("unit {unit} on bus {name:?}"),
            Party::Device(device) => format!("the peripheral of device {device:?} on bus {name:?}"),
        };
        let look_at = match party {
            Party::Unit(_) => "its power, its cable and its unit id",
            Party::Device(_) => "its power and its cable",
        };
        let ago = standing.away_since.map_or(Duration::ZERO, |since| since.elapsed());
        let next = match standing.tried_at {
            Some(at) => format!("in {}", in_seconds(at.saturating_duration_since(Instant::now()))),
            None => "at this moment".to_owned(),
        };
        let unanswered = standing.unanswered;
        format!(
            "{who} has been away for {}: it has not answered its last {unanswered} requests; check {look_at}; it is \
             tried again {next}",
            in_seconds(ago)
        )
    }

    /// Says of a command that came too late what it waited for.
    fn held(&self, ran: Ran, bus: &BusHandle) -> Ran {
        match ran {
            Ran::Finished(Outcome { state: State::Expired, value, fault: Some(mut fault) }, attempts)
                if fault.code == Code::Expired =>
            {
                fault.message = format!("{}; {}", fault.message, self.away(bus));
                Ran::Finished(Outcome { state: State::Expired, value, fault: Some(fault) }, attempts)
            }
            ran => ran,
        }
    }
}

/// By the second, and never nothing.
fn in_seconds(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(duration.as_secs().max(1)))
}
