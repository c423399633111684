//! How long ago each command of a device was done, where the next one must wait for a while (`min_interval`).
//!
//! Invariants
//! - Who waits for its interval, or is done, has its command to itself: another one, whoever asks for it, waits.
//! - What an earlier life of the daemon has done counts as done when this one began: nobody knows better by a clock
//!   that is to be believed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::{sleep_until, Instant};

use super::run::{Gate, Plan, Ran};
use super::Context;
use crate::bus::BusHandle;
use crate::command::decide::Execution;
use crate::command::outcome::{Code, Outcome, State};

/// When a command was done last, for one at a time.
type Done = Arc<tokio::sync::Mutex<Instant>>;

/// When the commands of a gateway were done last. It outlives devices that leave and come back.
#[derive(Debug)]
pub struct Intervals {
    began: Instant,
    /// By device and command; only of commands that have an interval.
    done: Mutex<HashMap<(String, String), Done>>,
}

impl Default for Intervals {
    fn default() -> Self {
        Intervals { began: Instant::now(), done: Mutex::default() }
    }
}

impl Intervals {
    fn of(&self, device: &str, command: &str) -> Done {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let began = || Arc::new(tokio::sync::Mutex::new(self.began));
        done.entry((device.to_owned(), command.to_owned())).or_insert_with(began).clone()
    }
}

/// A command's turn among those of its name, if they have an interval.
struct Spaced(Option<OwnedMutexGuard<Instant>>);

impl Spaced {
    /// The command has run: the interval begins if something of it was sent.
    fn ends(self, ran: &Ran) {
        let was_sent = !matches!(ran, Ran::Finished(_, 0) | Ran::NotNow);
        if let Some(mut done) = self.0.filter(|_| was_sent) {
            *done = Instant::now();
        }
    }
}

impl Context {
    /// Runs a command, not too soon after the one of its name before.
    pub(super) async fn run_spaced(
        &self,
        plan: &Plan<'_>,
        bus: &BusHandle,
        execution: Execution,
        gate: &mut impl Gate,
    ) -> Ran {
        let spaced = match execution.attempts() {
            0 => self.spaced(plan, bus, gate).await,
            // It is only looked for.
            _ => Ok(Spaced(None)),
        };
        let spaced = match spaced {
            Ok(spaced) => spaced,
            Err(ran) => return ran,
        };
        let ran = plan.run(bus, execution, gate).await;
        spaced.ends(&ran);
        ran
    }

    /// Waits until a command may follow the one of its name before, unless the gate ends that.
    async fn spaced(&self, plan: &Plan<'_>, bus: &BusHandle, gate: &mut impl Gate) -> Result<Spaced, Ran> {
        let interval = plan.command.min_interval;
        if interval.is_zero() {
            return Ok(Spaced(None));
        }
        let done = self.intervals.of(&self.id, &plan.command.name);
        let wait = async {
            let done = done.lock_owned().await;
            sleep_until(*done + interval).await;
            Spaced(Some(done))
        };
        plan.unless_unreachable(bus, gate, wait).await.map_err(|ran| told(ran, interval))
    }
}

/// Says of a command that came too late what it waited for.
fn told(ran: Ran, interval: Duration) -> Ran {
    match ran {
        Ran::Finished(Outcome { state: State::Expired, value, fault: Some(mut fault) }, attempts)
            if fault.code == Code::Expired =>
        {
            let interval = humantime::format_duration(interval);
            fault.message = format!("{}; it had to wait for its min_interval of {interval}", fault.message);
            Ran::Finished(Outcome { state: State::Expired, value, fault: Some(fault) }, attempts)
        }
        ran => ran,
    }
}
