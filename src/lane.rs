//! A device's commands, one after the other: from the hub's delivery over the ledger to the bus and back.
//!
//! Two tasks for each device. The *intake* takes deliveries from the link; with `settle = "after-accept"` it records
//! and completes them there and then. The *lane* runs commands in the order of receipt (G5).
//!
//! ```text
//! link --delivery--> intake --job--> lane --turn--> bus
//!   ^                  |              |
//!   '---- ticket.complete(receipt) ---'   a receipt exists only after a commit
//! ```
//!
//! Invariants
//! - A delivery whose connection is gone before its command began is forgotten here: the hub still has it, and will
//!   deliver it again.
//! - What ran is never forgotten: its outcome is offered to the ledger until it is durable, or until the process ends.
//! - A command is judged and run by one configuration: the one in force when that begins. It may be judged by one and
//!   run by the next.
//! - Queues are bounded. A full one holds up the intake; if the link's queue is full too, its connection is dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch, Notify};
use tokio::time::{sleep, Instant};
use tokio_util::sync::CancellationToken;

use crate::belief::Belief;
use crate::bus::BusHandle;
use crate::clock::Timestamp;
use crate::command::decide::{self, Age, Deadline, Execution, Freshness, Known, Verdict};
use crate::command::message::Order;
use crate::command::outcome::{Code, Fault, Outcome, State};
use crate::config::{Device, Settle};
use crate::crash::{self, Point};
use crate::health::{DeviceHealth, Pending};
use crate::hub::session::WINDOW_MAX;
use crate::hub::{Delivery, Ticket};
use crate::ledger::row::{RowId, Source, Unfinished};
use crate::ledger::{Finish, Ledger, LedgerError, NewRow, Receipt};
use crate::quiet::COMMANDS;
use crate::runner::{Gate, Go, Plan, Ran};

/// Commands that wait for their turn in a lane.
const QUEUE_MAX: usize = WINDOW_MAX;
/// How often the age of a command from an earlier life is judged anew while the clock stands before its receipt.
const CLOCK_PERIOD: Duration = Duration::from_secs(1);
/// How long a stop waits for a ledger that can't be written to take an outcome.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// What a device is at present, by the configuration.
pub struct Assignment {
    /// Its settings and commands.
    pub device: Arc<Device>,
    /// Its bus.
    pub bus: BusHandle,
}

/// What the intake and the lane of a device share.
#[derive(Clone)]
pub struct Station {
    /// The device's id.
    pub id: String,
    /// What it is at present.
    pub assignment: watch::Receiver<Arc<Assignment>>,
    /// The ledger.
    pub ledger: Ledger,
    /// What is known of it.
    pub health: Arc<DeviceHealth>,
    /// Rung when there is a new result event.
    pub event_bell: Arc<Notify>,
    /// Ends intake and lane after the command in hand.
    pub stop: CancellationToken,
}

/// Something for the lane to do.
pub enum Job {
    /// A delivery that is judged when its turn comes.
    Delivery(Box<Delivery>, Pending, Unjudged),
    /// A command that is to be run.
    Work(Box<Work>, Pending),
}

/// Kept by a delivery for as long as the lane has not judged it, and run it.
pub type Unjudged = Arc<()>;

/// A command that is to be run.
pub struct Work {
    /// Its row, if it has one.
    row: Option<RowId>,
    /// What settles it at the hub, unless that was done.
    ticket: Option<Ticket>,
    new: NewRow,
    received: Instant,
    /// It is of an earlier life of the daemon; its age is not known by the monotonic clock.
    earlier_life: bool,
    /// It was `executing` when the daemon died, after so many attempts.
    interrupted: Option<u32>,
}

/// The two ends of a device's station: where its link delivers, and the tasks.
pub fn channels() -> (mpsc::Sender<Delivery>, mpsc::Receiver<Delivery>, mpsc::Sender<Job>, mpsc::Receiver<Job>) {
    let (deliveries, inbox) = mpsc::channel(WINDOW_MAX);
    let (offer, jobs) = mpsc::channel(QUEUE_MAX);
    (deliveries, inbox, offer, jobs)
}

impl Station {
    /// Takes deliveries until it is stopped.
    pub async fn run_intake(self, mut inbox: mpsc::Receiver<Delivery>, lane: mpsc::Sender<Job>) {
        let unjudged = Unjudged::default();
        loop {
            let delivery = tokio::select! {
                () = self.stop.cancelled() => return,
                delivery = inbox.recv() => match delivery {
                    Some(delivery) => delivery,
                    None => return self.stop.cancelled().await,
                },
            };
            let pending = self.health.pend();
            // After a change of `settle` some may wait to be judged: none is accepted past them (G5).
            let waits = Arc::strong_count(&unjudged) > 1;
            let job = match self.present().device.settle {
                Settle::AfterAccept if !waits => match self.admit(delivery).await {
                    Some(work) => Job::Work(Box::new(work), pending),
                    None => continue,
                },
                Settle::AfterAccept | Settle::AfterExecution => {
                    Job::Delivery(Box::new(delivery), pending, unjudged.clone())
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = lane.send(job) => {}
            }
        }
    }

    /// Runs what an earlier life of the daemon left, then what the intake sends, until it is stopped.
    pub async fn run_lane(self, left: Vec<Unfinished>, mut jobs: mpsc::Receiver<Job>) {
        let started = Instant::now();
        let left: Vec<_> = left.into_iter().map(|left| (Work::left(left, started), self.health.pend())).collect();
        for (work, _pending) in left {
            crash::point(Point::LeftTaken);
            self.work(work).await;
            if self.stop.is_cancelled() {
                return;
            }
        }
        loop {
            let job = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                job = jobs.recv() => match job {
                    Some(job) => job,
                    None => return self.stop.cancelled().await,
                },
            };
            match job {
                Job::Delivery(delivery, _pending, _unjudged) => {
                    if let Some(work) = self.admit(*delivery).await {
                        self.work(work).await;
                    }
                }
                Job::Work(work, _pending) => self.work(*work).await,
            }
        }
    }

    fn present(&self) -> Arc<Assignment> {
        self.assignment.borrow().clone()
    }

    /// Judges a delivery, and settles it unless it is to be run.
    async fn admit(&self, delivery: Delivery) -> Option<Work> {
        let device = self.present().device.clone();
        let Delivery { hub, message, received_at, received, ticket } = delivery;
        if !ticket.is_live() {
            return None;
        }
        if let Some(expiry) = &message.unread_expiry {
            tracing::warn!(device = %self.id, expiry, "a message's expiry can't be read, and is left to the hub");
        }
        let order = message.order();
        let checked = order.as_ref().map_err(Fault::clone).and_then(|order| check(&device, order, message.ledger_id()));
        let (command, value) = match order {
            Ok(order) => (Some(order.command), order.value),
            Err(_) => (message.claimed_command(), None),
        };
        let new = NewRow {
            hub: hub.to_string(),
            source: Source::Hub,
            device: self.id.clone(),
            message_id: message.ledger_id().map(str::to_owned),
            digest: message.digest(),
            command,
            value,
            received_at,
            expires_at: message.expires_at,
        };
        crash::point(Point::BeforeLookup);
        let lookup = match self.ledger.lookup(&hub, &new.device, new.message_id.as_deref(), new.digest).await {
            Ok(lookup) => lookup,
            Err(error) => return self.leave(Some(ticket), &error),
        };
        crash::point(Point::LookedUp);
        let mut work =
            Work { row: lookup.row, ticket: Some(ticket), new, received, earlier_life: false, interrupted: None };
        match (decide::on_delivery(lookup.known, checked, device.settle), lookup.row) {
            (Verdict::Complete, Some(row)) => {
                self.health.duplicates.add();
                tracing::debug!(device = %self.id, message_id = work.message_id(), "delivered again: completed, not run");
                crash::point(Point::DuplicateKnown);
                work.complete(self.ledger.delivered_again(row));
                None
            }
            (Verdict::Reject(fault), _) => {
                // A reused id has a row of another message: this one gets its own.
                work.row = None;
                self.conclude(work, Outcome::ended(State::Rejected, fault), 0).await;
                None
            }
            // One before it may have been given back meanwhile: this one must not overtake it.
            (Verdict::Accept, _) if !work.is_wanted() || !self.ledger.is_well() => {
                self.give_back(work.ticket);
                None
            }
            (Verdict::Accept, _) => match self.accept(&work).await {
                Ok((row, receipt)) => {
                    crash::point(Point::AcceptKnown);
                    work.row = Some(row);
                    work.complete(receipt);
                    Some(work)
                }
                Err(error) => self.leave(work.ticket, &error),
            },
            (Verdict::Resume, Some(_)) => {
                work.interrupted = Some(1);
                Some(work)
            }
            (Verdict::Run, _) => Some(work),
            (Verdict::Complete | Verdict::Resume, None) => {
                unreachable!("{:?} without a row", Known::New)
            }
        }
    }

    async fn accept(&self, work: &Work) -> Result<(RowId, Receipt), LedgerError> {
        crash::point(Point::BeforeAccept);
        self.ledger.accept(work.new.clone()).await
    }

    /// Runs a command and records its outcome.
    async fn work(&self, mut work: Work) {
        loop {
            let present = self.present();
            let plan = match Plan::new(&present.device, work.command_name(), work.new.value.as_ref()) {
                Ok(plan) => plan,
                // The configuration has changed since the command was accepted.
                Err(fault) => {
                    let outcome = match work.interrupted {
                        None => Outcome::ended(State::Rejected, fault),
                        Some(_) => Outcome::ended(State::InDoubt, Fault { code: Code::Interrupted, ..fault }),
                    };
                    let attempts = work.interrupted.unwrap_or(0);
                    return self.conclude(work, outcome, attempts).await;
                }
            };
            let deadline = Deadline { limit: plan.command.deadline, expires_at: work.new.expires_at };
            let route = plan.route(&present.bus);
            if !self.age_is_known(&work, deadline).await {
                return;
            }
            let execution = match work.interrupted {
                Some(attempts) => Execution::interrupted(route, attempts),
                None => Execution::new(route),
            };
            let mut gate = LaneGate { station: self, work: &mut work, deadline };
            match plan.run(&present.bus, execution, &mut gate).await {
                Ran::Finished(outcome, attempts) => return self.conclude(work, outcome, attempts).await,
                Ran::NotNow if work.row.is_none() => return self.give_back(work.ticket),
                Ran::NotNow => {}
            }
            // It is the gateway's own: it waits here until the ledger can be written, or for the daemon's next life.
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.ledger.well() => {}
            }
        }
    }

    /// Waits until the clock allows to judge a command of an earlier life. `false`: the daemon stops first.
    async fn age_is_known(&self, work: &Work, deadline: Deadline) -> bool {
        while deadline.judge(work.age(self.ledger.belief())) == Freshness::Unknown {
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = sleep(CLOCK_PERIOD) => {}
            }
        }
        true
    }

    /// Makes an outcome durable, completes the message, and has the event published.
    async fn conclude(&self, mut work: Work, outcome: Outcome, attempts: u32) {
        let state = outcome.state;
        let code = outcome.fault.as_ref().map(|fault| fault.code.as_str());
        let finish = Finish { row: work.row, new: work.new.clone(), outcome, attempts, finished_at: Timestamp::now() };
        crash::point(Point::BeforeOutcome);
        let Some(receipt) = self.record(finish).await else { return };
        crash::point(Point::OutcomeKnown);
        work.complete(receipt);
        self.event_bell.notify_one();
        if attempts > 0 {
            self.health.executed.add();
        }
        if state == State::InDoubt {
            self.health.in_doubt.add();
        }
        let (device, message_id, command) = (&self.id, work.message_id(), work.command_name());
        let elapsed_ms = work.received.elapsed().as_millis() as u64;
        match state {
            State::InDoubt => {
                tracing::warn!(%device, message_id, command, %state, code, attempts, elapsed_ms, "command finished");
            }
            State::Succeeded => {
                tracing::info!(target: COMMANDS, %device, message_id, command, %state, attempts, elapsed_ms, "command finished");
            }
            _ => tracing::info!(%device, message_id, command, %state, code, attempts, elapsed_ms, "command finished"),
        }
    }

    /// Offers an outcome to the ledger until it is durable. `None`: the process is about to end without that.
    async fn record(&self, finish: Finish) -> Option<Receipt> {
        loop {
            match self.ledger.finish(finish.clone()).await {
                Ok(receipt) => return Some(receipt),
                Err(LedgerError::Full(why) | LedgerError::Locked(why)) => {
                    tracing::warn!(device = %self.id, message_id = finish.new.message_id, why, "an outcome waits for the ledger");
                }
                Err(_) => return None,
            }
            tokio::select! {
                () = self.ledger.well() => {}
                () = async { self.stop.cancelled().await; sleep(STOP_PATIENCE).await } => return None,
            }
        }
    }

    fn leave(&self, ticket: Option<Ticket>, error: &LedgerError) -> Option<Work> {
        tracing::debug!(device = %self.id, %error, "a message is left with the hub");
        self.give_back(ticket);
        None
    }

    /// Nothing was begun, and the hub has the message still. A stop ends the connection anyway, after what is settled
    /// on it.
    fn give_back(&self, ticket: Option<Ticket>) {
        match ticket {
            Some(ticket) if !self.stop.is_cancelled() => ticket.abandon(),
            _ => {}
        }
    }
}

/// Whether an order under this message id can be run at all.
fn check(device: &Device, order: &Order, id: Option<&str>) -> Result<(), Fault> {
    let plan = Plan::new(device, &order.command, order.value.as_ref())?;
    decide::check_identity(id, plan.command.idempotent)
}

impl Work {
    /// A command that an earlier life of the daemon left; this one began at `started`.
    fn left(left: Unfinished, started: Instant) -> Work {
        Work {
            row: Some(left.row),
            ticket: None,
            interrupted: (left.state == State::Executing).then_some(left.attempts),
            new: NewRow {
                hub: left.hub,
                source: left.source,
                device: left.device,
                message_id: left.message_id,
                // The row has it already.
                digest: [0; 32],
                command: Some(left.command),
                value: left.value,
                received_at: left.received_at,
                expires_at: left.expires_at,
            },
            received: started,
            earlier_life: true,
        }
    }

    /// Whether the connection that brought it still stands, so that it won't be delivered again.
    fn is_wanted(&self) -> bool {
        self.ticket.as_ref().is_some_and(Ticket::is_live)
    }

    fn complete(&mut self, receipt: Receipt) {
        if let Some(ticket) = self.ticket.take() {
            ticket.complete(receipt);
        }
    }

    fn age(&self, clock: &Belief) -> Age {
        Age {
            monotonic: self.received.elapsed(),
            received_at: self.earlier_life.then_some(self.new.received_at),
            now: clock.now().ok(),
        }
    }

    fn message_id(&self) -> Option<&str> {
        self.new.message_id.as_deref()
    }

    fn command_name(&self) -> &str {
        self.new.command.as_deref().unwrap_or_default()
    }
}

/// What stands between a message's command and the wire.
struct LaneGate<'a> {
    station: &'a Station,
    work: &'a mut Work,
    deadline: Deadline,
}

impl Gate for LaneGate<'_> {
    fn may_go(&mut self) -> Go {
        if self.deadline.judge(self.work.age(self.station.ledger.belief())) == Freshness::Expired {
            return Go::End(self.deadline.expired());
        }
        let forgotten = self.work.row.is_none() && !self.work.is_wanted();
        if forgotten || self.station.stop.is_cancelled() || !self.station.ledger.is_well() {
            return Go::No;
        }
        Go::Yes
    }

    fn not_after(&self) -> Instant {
        let limit = self.work.received + self.deadline.limit;
        match (self.work.new.expires_at, self.station.ledger.belief().now()) {
            (Some(at), Ok(now)) => limit.min(Instant::now() + at.since(now)),
            _ => limit,
        }
    }

    async fn record_executing(&mut self) -> bool {
        crash::point(Point::BeforeExecuting);
        match self.station.ledger.begin(self.work.row, self.work.new.clone()).await {
            Ok(row) => {
                crash::point(Point::ExecutingKnown);
                self.work.row = Some(row);
                // From here on it may have been on the wire, whatever happens: it can only be resolved, not begun
                // again.
                self.work.interrupted = Some(1);
                true
            }
            Err(error) => {
                tracing::debug!(device = %self.station.id, %error, "a command was not begun");
                false
            }
        }
    }
}
