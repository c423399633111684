//! A device's commands, one after the other: from the hub's delivery over the ledger to the bus and back.
//!
//! Two tasks for each device. The *intake* takes deliveries from the link; with `settle = "after-accept"` it records
//! and completes them there and then. The *executor* runs commands in the order of receipt (G5).
//!
//! ```text
//! link --delivery--> intake --job--> executor --turn--> bus
//!   ^                  |              |
//!   '---- ticket.complete(receipt) ---'   a receipt exists only after a commit
//! ```
//!
//! Invariants
//! - A delivery whose connection is gone before its command began is forgotten here, at once: the hub still has it, and
//!   will deliver it again.
//! - What ran is never forgotten: its outcome is offered to the ledger until it is durable, or until the process ends.
//! - A command is judged and run by one configuration: the one in force when that begins. It may be judged by one and
//!   run by the next.
//! - A deadline counts from the first receipt (G13), which outlives connections in [`Receipts`]. A command that waits,
//!   for its turn or for its bus, is told that it came too late when that is so; its acknowledgement waits in the
//!   session for those before it (G5). It is not told so past another under its own message id, whose end decides what
//!   becomes of it.
//! - Queues are bounded. A full one holds up the intake; if the link's queue is full too, the rest is left with the
//!   hub.

mod caller;
mod calls;
mod conclude;
pub mod events;
mod gate;
mod inbox;
mod intervals;
pub mod lockout;
mod operator;
mod origin;
mod probe;
pub mod queue;
mod receipts;
pub mod run;
mod waiting;
mod wishes;
mod work;

use std::future::Future;
use std::pin::{pin, Pin};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::sync::{watch, Notify};
use tokio::time::{sleep, sleep_until, Instant};
use tokio_util::sync::CancellationToken;

use crate::bus::BusHandle;
use crate::command::decide::{self, Checked, Deadline, Execution, Freshness, Known, Verdict};
use crate::command::outcome::{Code, Fault, Outcome, State};
use crate::config::{Device, Settle};
use crate::device::run::{Plan, Ran};
use crate::health::{DeviceHealth, Pending};
use crate::hub::{Ticket, WINDOW_MAX};
use crate::ledger::row::{RowId, Source, Unfinished};
use crate::ledger::{Ledger, LedgerError};
use crate::proof::crash::{self, Point};
use gate::CommandGate;
use origin::Origin;
use probe::Stirs;
use waiting::{InHand, Outdated, Waiting};
use work::Work;

pub use inbox::{channels, Arrival, Inbox};
pub use intervals::Intervals;
pub use lockout::{Lock, Lockouts};
pub use operator::Order;
pub use origin::{Operator, Told};
pub use receipts::Receipts;

/// Commands that wait for their turn in an executor.
const QUEUE_MAX: usize = WINDOW_MAX;
/// How often the age of a command from an earlier life is judged anew while the clock stands before its receipt.
const CLOCK_PERIOD: Duration = Duration::from_secs(1);

/// What a device is at present, by the configuration.
pub struct Assignment {
    /// Its settings and commands.
    pub device: Arc<Device>,
    /// Its bus.
    pub bus: BusHandle,
    /// A digest of what is configured for it.
    pub configuration: Arc<str>,
}

/// What the intake and the executor of a device share.
#[derive(Clone)]
pub struct Context {
    /// The device's id.
    pub id: String,
    /// What it is at present.
    pub assignment: watch::Receiver<Arc<Assignment>>,
    /// The ledger.
    pub ledger: Ledger,
    /// What is known of it.
    pub health: Arc<DeviceHealth>,
    /// When messages came first.
    pub receipts: Arc<Receipts>,
    /// Which devices are locked.
    pub lockouts: Arc<Lockouts>,
    /// When commands were done that must not follow one another too soon.
    pub intervals: Arc<Intervals>,
    /// Whether its messages are to stay at the hub, since its unit is away.
    pub held: Arc<watch::Sender<bool>>,
    /// Rung when there is a new result event.
    pub event_bell: Arc<Notify>,
    /// Rung when a connection has ended.
    pub ended: Arc<Notify>,
    /// Ends intake and executor after the command in hand.
    pub stop: CancellationToken,
}

/// Something for the executor to do.
pub struct Job {
    work: Work,
    /// What the ledger knows of it was looked up, and it is to be run.
    judged: bool,
    /// Its deadline does not end it: it waits for its turn.
    patient: bool,
    /// Its place in the order of receipt, once it waits.
    number: u64,
    _unjudged: Option<Unjudged>,
    _pending: Pending,
}

/// Kept by a delivery for as long as the executor has not judged it, and run it.
type Unjudged = Arc<()>;

impl Context {
    /// Takes deliveries until it is stopped.
    pub async fn run_intake(&self, mut inbox: queue::Receiver<Arrival>, executor: queue::Sender<Job>) {
        let unjudged = Unjudged::default();
        loop {
            let arrival = tokio::select! {
                () = self.stop.cancelled() => return,
                arrival = inbox.recv() => match arrival {
                    Some(arrival) => arrival,
                    None => return self.stop.cancelled().await,
                },
            };
            // While nothing comes, which is most of the time, it takes no memory.
            Box::pin(self.take_in(arrival, &unjudged, &executor)).await;
        }
    }

    /// Takes what has come, and hands it to the executor unless it is at its end.
    async fn take_in(&self, arrival: Arrival, unjudged: &Unjudged, executor: &queue::Sender<Job>) {
        let pending = self.health.pend();
        let Some(work) = self.receive(arrival) else { return };
        // Calls and set points wait to be judged, as nothing is settled with them, and after a change of `settle`
        // others may: none is accepted past them (G5).
        let waits = work.origin.is_told_its_end() || Arc::strong_count(unjudged) > 1;
        let job = match self.present().device.settle {
            Settle::AfterAccept if !waits => match self.judge(work).await {
                Some(work) => Job::new(work, None, pending),
                None => return,
            },
            Settle::AfterAccept | Settle::AfterExecution => Job::new(work, Some(unjudged.clone()), pending),
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            _ = executor.send(job) => {}
        }
    }

    /// Runs what an earlier life of the daemon left, then what the intake sends, until it is stopped.
    pub async fn run_executor(&self, left: Vec<Unfinished>, mut jobs: queue::Receiver<Job>) {
        let started = Instant::now();
        let mut waiting = Waiting::default();
        for left in left {
            waiting.push(Job::new(Work::left(left, started, &self.receipts), None, self.health.pend()));
        }
        let mut assigned = self.assignment.clone();
        loop {
            self.show_held();
            let job = tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    waiting.take_all().into_iter().for_each(|job| self.leave_to_the_next_life(job.work));
                    return;
                }
                Some(job) = async { waiting.next() } => job,
                job = jobs.recv() => match job {
                    Some(job) => job,
                    None => return self.stop.cancelled().await,
                },
                stirs = self.unit_stirs(&mut assigned) => {
                    if stirs == Stirs::IsToBeTried {
                        Box::pin(self.try_unit(&jobs)).await;
                    }
                    continue;
                }
            };
            // While nothing is to be run, which is most of the time, it takes no memory.
            Box::pin(self.run_beside(job, &mut waiting, &mut jobs)).await;
        }
    }

    /// Runs a command to its end. Those that wait for their turn meanwhile are told when their deadline passes.
    async fn run_beside(&self, job: Job, waiting: &mut Waiting, jobs: &mut queue::Receiver<Job>) {
        let mut in_hand = InHand::of(&job.work);
        let (mut assigned, mut locked) = (self.assignment.clone(), self.lockouts.subscribe());
        let mut run = pin!(self.run(job));
        let (mut running, mut has_begun) = (true, false);
        // One at a time. It is not left in the middle: who comes after it may be the same message.
        let mut ending: Option<Ending<'_>> = None;
        while running || ending.is_some() {
            if running && ending.is_none() {
                ending = self.look_through(waiting, &mut in_hand);
            }
            // Whether a newer one is to be done in its place is asked before it is begun.
            let is_held = !has_begun && in_hand.is_in_question && ending.is_some();
            has_begun |= !is_held;
            let look = match running && ending.is_none() {
                true => {
                    waiting.next_look(&in_hand.name, &assigned.borrow_and_update().device, self.ledger.wall_clock())
                }
                false => None,
            };
            tokio::select! {
                biased;
                () = &mut run, if running && !is_held => running = false,
                back = wait_for(&mut ending) => {
                    ending = None;
                    back.into_iter().for_each(|job| waiting.put_back(job));
                }
                Some(job) = jobs.recv(), if waiting.has_room() => {
                    let job = if running { in_hand.join(job) } else { Some(job) };
                    job.into_iter().for_each(|job| waiting.push(job));
                }
                Ok(()) = assigned.changed() => {}
                Ok(()) = locked.changed() => {}
                () = self.ended.notified() => waiting.forget(),
                () = sleep_until(look.unwrap_or_else(Instant::now)), if look.is_some() => {}
            }
        }
    }

    async fn run(&self, job: Job) {
        if job.work.earlier_life {
            crash::point(Point::LeftTaken);
        }
        let work = match job.judged {
            true => Some(job.work),
            false => self.judge(job.work).await,
        };
        if let Some(work) = work {
            self.work(work).await;
        }
    }

    /// How a command ends that waits for its turn, if it does not come to that.
    fn end_before_its_turn(&self, work: &Work, deadline: Deadline) -> Option<Outcome> {
        let is_late = work.judge(deadline, self.ledger.wall_clock()) == Freshness::Expired;
        is_late.then(|| deadline.expired()).or_else(|| self.locked_out(work)).or_else(|| work.superseded())
    }

    /// How a command ends that a lock bars, if one does.
    fn locked_out(&self, work: &Work) -> Option<Outcome> {
        let present = self.present();
        let heeds = present.device.commands.get(work.command_name()).is_some_and(|command| work.heeds_locks(command));
        heeds.then(|| self.lockouts.end_of(work.barred())).flatten()
    }

    /// What is to be done about those that wait, if there is something: one thing at a time.
    fn look_through(&self, waiting: &mut Waiting, in_hand: &mut InHand) -> Option<Ending<'_>> {
        let device = self.present().device.clone();
        let is_over = |work: &Work, deadline| self.end_before_its_turn(work, deadline).is_some();
        match waiting.take_outdated(in_hand, &device, is_over) {
            Some(Outdated::InHand) => {
                in_hand.outdated.cancel();
                self.look_through(waiting, in_hand)
            }
            Some(Outdated::Waiting(job)) => {
                job.work.outdated.cancel();
                Some(Box::pin(self.end_waiting(job)))
            }
            Some(Outdated::Unasked(job)) => Some(Box::pin(self.judged(job))),
            None => match waiting.take_over(&in_hand.name, &device, is_over) {
                Some(over) => Some(Box::pin(self.end_waiting(over))),
                None => {
                    let (due, is_first) = waiting.take_due(&in_hand.name, Instant::now())?;
                    Some(Box::pin(self.promise_waiting(due, is_first)))
                }
            },
        }
    }

    /// A command that waits, once it is known that it is to be done.
    async fn judged(&self, mut job: Job) -> Option<Job> {
        if !job.judged {
            job.work = self.judge(job.work).await?;
            job.judged = true;
        }
        Some(job)
    }

    /// Ends a command that waits for its turn, and does not come to that. Gives it back if that is not how it ends.
    async fn end_waiting(&self, job: Job) -> Option<Job> {
        let mut job = self.judged(job).await?;
        let deadline = job.work.deadline(&self.present().device);
        match deadline.and_then(|deadline| self.end_before_its_turn(&job.work, deadline)) {
            Some(outcome) => {
                self.conclude(job.work, outcome, 0).await;
                None
            }
            // An earlier life had begun it, or its configuration has changed: its turn will show.
            None => {
                job.patient = true;
                Some(job)
            }
        }
    }

    /// Asks the ledger what is known of a message, and settles it unless it is to be run.
    async fn judge(&self, mut work: Work) -> Option<Work> {
        if !work.is_wanted() {
            return None;
        }
        let device = self.present().device.clone();
        let new = &work.new;
        let checked = match work.refused.take() {
            Some(fault) => Err(fault),
            None => check(&device, work.command_name(), new.value.as_ref(), new.message_id.as_deref()),
        };
        let lookup = match self.ledger.find(new).await {
            Ok(lookup) => lookup,
            Err(error) => return self.leave(work, &error),
        };
        work.row = lookup.row;
        let distrusts = self.ledger.distrusts(&work.new.hub, &self.id);
        let enqueued_at = work.new.envelope.enqueued_at;
        let past = decide::past(distrusts, enqueued_at, self.ledger.epoch(), lookup.elsewhere.is_some());
        // With a call or a set point nothing is settled: what is told of it waits for its end.
        let settle = if work.origin.is_told_its_end() { Settle::AfterExecution } else { device.settle };
        let known = wishes::known(&lookup, work.origin.wish().is_some());
        let verdict = decide::on_delivery(known, past, checked, settle);
        let verdict = verdict.unless_barred(|| self.locked_out(&work).and_then(|outcome| outcome.fault));
        match (verdict, lookup.row) {
            (Verdict::Complete | Verdict::Refuse, Some(row)) if work.origin.caller().is_some() => {
                self.answer_again(work, row).await;
                None
            }
            (Verdict::Complete | Verdict::Refuse, Some(row)) if work.origin.wish().is_some() => {
                self.acknowledge_again(work, row).await;
                None
            }
            (verdict @ (Verdict::Complete | Verdict::Refuse), Some(row)) => {
                self.settle_again(work, (row, lookup.known), matches!(verdict, Verdict::Refuse));
                None
            }
            (Verdict::Reject(fault), _) => {
                // A reused id has a row of another message: this one gets its own.
                work.row = None;
                self.conclude(work, Outcome::ended(State::Rejected, fault), 0).await;
                None
            }
            (Verdict::Doubt(fault), _) => {
                self.conclude(work, Outcome::ended(State::InDoubt, fault), 0).await;
                None
            }
            // One before it may have been given back meanwhile: this one must not overtake it.
            (Verdict::Accept, _) if !work.is_wanted() || !self.ledger.is_well() => {
                self.leave_unsettled(work);
                None
            }
            (Verdict::Accept, _) => match self.ledger.accept(work.new.clone()).await {
                Ok((row, receipt)) => {
                    work.row = Some(row);
                    self.note_row(&work, row);
                    self.time(&work);
                    work.origin.complete(receipt);
                    Some(work)
                }
                Err(error) => self.leave(work, &error),
            },
            (Verdict::Resume, Some(_)) => {
                work.interrupted = Some(1);
                Some(work)
            }
            (Verdict::Run, _) => Some(work),
            (Verdict::Complete | Verdict::Refuse | Verdict::Resume, None) => {
                unreachable!("{:?} without a row", Known::New)
            }
        }
    }

    /// Settles a message as the row says that is final, or that it was accepted with.
    fn settle_again(&self, mut work: Work, (row, known): (RowId, Known), is_refused: bool) {
        self.health.duplicates.add();
        tracing::debug!(device = %self.id, message_id = work.message_id(), "delivered again: settled, not run");
        crash::point(Point::DuplicateKnown);
        match known {
            Known::Row(state) if !state.is_final() => self.note_row(&work, row),
            _ => self.forget(&work),
        }
        let receipt = self.ledger.delivered_again(row);
        self.time(&work);
        match is_refused {
            true => work.origin.reject(receipt),
            false => work.origin.complete(receipt),
        }
    }

    /// Runs a command and records its outcome.
    async fn work(&self, mut work: Work) {
        loop {
            let present = self.present();
            let plan = Plan::new(&present.device, work.command_name(), work.new.value.as_ref());
            let may_repeat = plan.as_ref().is_ok_and(|plan| plan.route(&present.bus).idempotent);
            if let Some(fault) = work.doubt(may_repeat) {
                return self.conclude(work, Outcome::ended(State::InDoubt, fault), 0).await;
            }
            let plan = match plan {
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
            let deadline = work.deadline_of(plan.command);
            let route = match work.interrupted {
                Some(_) => plan.route_after_a_crash(&present.bus),
                None => plan.route(&present.bus),
            };
            if let (Source::Local { .. }, true) = (&work.new.source, work.earlier_life) {
                if let Some(outcome) = decide::on_left_behind(route, work.interrupted.is_some()) {
                    let attempts = work.interrupted.unwrap_or(0);
                    return self.conclude(work, outcome, attempts).await;
                }
            }
            if !self.age_is_known(&work, deadline).await {
                return;
            }
            let execution = match (work.interrupted, &work.origin) {
                (Some(attempts), _) => Execution::interrupted(route, attempts),
                (None, Origin::Operator(_)) => Execution::on_the_record(route),
                (None, Origin::Message(_) | Origin::Method(_) | Origin::Twin(_)) => Execution::new(route),
            };
            let (heeds_locks, called) = (work.heeds_locks(plan.command), work.called());
            let mut gate = CommandGate::new(self, &mut work, deadline, heeds_locks);
            let ran = self.promising(called, self.run_spaced(&plan, &present.bus, execution, &mut gate)).await;
            let is_unrecordable = gate.is_unrecordable();
            work.take_row().await;
            match ran {
                Ran::Finished(outcome, attempts) => return self.conclude(work, outcome, attempts).await,
                Ran::NotNow if matches!(work.origin, Origin::Operator(_)) => return self.send_away(work).await,
                Ran::NotNow if is_unrecordable && work.row.is_none() => return self.leave_unsettled(work),
                // Nobody would bring it again: what may be repeated is begun anew.
                Ran::Interrupted(_) if may_repeat && work.origin.is_told_its_end() => {}
                Ran::NotNow | Ran::Interrupted(_) if work.row.is_none() => return self.give_back(work),
                Ran::NotNow => {}
                // It is not told to be undone, and goes on as one that an earlier life has left.
                Ran::Interrupted(attempts) => work.interrupted = Some(attempts),
            }
            // It is the gateway's own: it waits here until the ledger can be written, or for the daemon's next life.
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return self.leave_to_the_next_life(work),
                () = self.ledger.well() => {}
            }
        }
    }

    /// Waits until the clock allows to judge a command of an earlier life. `false`: the daemon stops first.
    async fn age_is_known(&self, work: &Work, deadline: Deadline) -> bool {
        while work.judge(deadline, self.ledger.wall_clock()) == Freshness::Unknown {
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = sleep(CLOCK_PERIOD) => {}
            }
        }
        true
    }

    /// It has a row that is not final.
    fn note_row(&self, work: &Work, row: RowId) {
        work.key.iter().for_each(|key| self.receipts.stands_in(*key, row));
    }

    /// Its row is final: whoever delivers it again is told so by the ledger.
    fn forget(&self, work: &Work) {
        work.key.iter().for_each(|key| self.receipts.forget(*key));
    }

    fn leave(&self, work: Work, error: &LedgerError) -> Option<Work> {
        tracing::debug!(device = %self.id, %error, "a message is left with the hub");
        self.leave_unsettled(work);
        None
    }

    /// Nothing was begun, and the hub has the message still.
    fn give_back(&self, work: Work) {
        self.still_wanted(work).into_iter().for_each(Ticket::abandon);
    }

    /// The same where that is so because the ledger can't take it: what the hub is told of it, it would count.
    fn leave_unsettled(&self, work: Work) {
        self.still_wanted(work).into_iter().for_each(Ticket::leave);
    }

    /// What settles a message. A stop ends the connection anyway, after what is settled on it. Who has called is told.
    fn still_wanted(&self, mut work: Work) -> Option<Ticket> {
        self.turn_away(&mut work);
        work.origin.take_ticket().filter(|_| !self.stop.is_cancelled())
    }
}

/// One that waits is judged, or ended. Comes back if it waits on.
type Ending<'a> = Pin<Box<dyn Future<Output = Option<Job>> + Send + 'a>>;

async fn wait_for<T>(work: &mut Option<Pin<Box<dyn Future<Output = T> + Send + '_>>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

/// Whether a command under this message id can be run at all.
fn check(device: &Device, command: &str, value: Option<&Json>, id: Option<&str>) -> Result<Checked, Fault> {
    let idempotent = Plan::new(device, command, value)?.command.idempotent;
    decide::check_message_id(id, idempotent).map(|()| Checked { idempotent })
}

impl Job {
    /// One that waits to be judged keeps a sign of that.
    fn new(work: Work, unjudged: Option<Unjudged>, pending: Pending) -> Job {
        let judged = unjudged.is_none();
        Job { work, judged, patient: false, number: 0, _unjudged: unjudged, _pending: pending }
    }
}
