//! The decisions: what a delivery leads to, and what to do next with a command, given what the ledger holds and what
//! the wire said. Pure: no I/O, no clock, no randomness. Guarantees G1 to G5 are decided in this file.
//!
//! Invariants
//! - A message whose row is final is settled again as the row says, and never executed (G2).
//! - [`Step::Send`] of a non-idempotent command is given out at most once in the life of its row, and only after
//!   [`Step::RecordExecuting`] was carried out (G3). There is one more for each of which nothing was sent, or that its
//!   own answer says was not begun, up to the route's attempts, and each stands in the record before it is sent.
//! - A command that must not be repeated and may have been executed by an earlier ledger's gateway is never begun
//!   (G15).
//! - Every [`Execution`] ends in [`Step::Finish`] after a bounded number of steps (G4, G8).

mod barred;
mod steps;

use std::time::Duration;

use serde_json::Value as Json;

pub use super::deadline::{age_at_receipt, Age, Deadline, Freshness};
use super::outcome::{Code, Fault, Outcome, State};
use crate::time::Timestamp;

/// When a message is completed at the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// After a final state is durable.
    AfterExecution,
    /// After `accepted` is durable.
    AfterAccept,
}

/// What the ledger knows of a delivered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    New,
    /// A row of this message, in this state.
    Row(State),
    /// Only rows with the same message id and another body.
    OtherBody,
}

/// Whether a message without a row can have been executed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// The ledger would know.
    Known,
    /// An earlier ledger, or this one after its backup, may have executed it (G15).
    Unknown,
    /// The same message stands in a row of another hub's, and one hub may have two names.
    Elsewhere,
}

/// A command that can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Whether repeating it is safe.
    pub idempotent: bool,
}

/// What a delivery leads to.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The record that completion stands on is durable already: complete it, run nothing.
    Complete,
    /// The record that it was refused is durable already: reject it, run nothing.
    Refuse,
    /// It can never be executed: record that, then complete it.
    Reject(Fault),
    /// It may have been executed already, and must not be repeated: record that it is in doubt, then complete it.
    Doubt(Fault),
    /// Record `accepted`, complete it, run it afterwards.
    Accept,
    /// Run it; complete it after the outcome is durable.
    Run,
    /// An earlier life of the daemon had begun it: find out, then complete it.
    Resume,
}

/// Decides what a delivery leads to. `order` is the checked order, or why there is none.
pub fn on_delivery(known: Known, past: Past, order: Result<Checked, Fault>, settle: Settle) -> Verdict {
    match known {
        Known::Row(state) if state.is_refusal() => Verdict::Refuse,
        Known::Row(state) if state.is_final() => Verdict::Complete,
        // The gateway owns an accepted command, whatever became of it: the hub need not keep it.
        Known::Row(State::Accepted) => Verdict::Complete,
        Known::Row(_) if settle == Settle::AfterAccept => Verdict::Complete,
        Known::Row(_) => Verdict::Resume,
        Known::OtherBody => Verdict::Reject(Fault::new(
            Code::MessageIdReused,
            "this message id came before with another body; give every message an id of its own",
        )),
        Known::New => match (order, past.doubt(), settle) {
            (Err(fault), ..) => Verdict::Reject(fault),
            (Ok(Checked { idempotent: false }), Some(fault), _) => Verdict::Doubt(fault),
            (Ok(_), _, Settle::AfterAccept) => Verdict::Accept,
            (Ok(_), _, Settle::AfterExecution) => Verdict::Run,
        },
    }
}

impl Past {
    /// Why a command that must not be repeated is not begun, if so.
    fn doubt(self) -> Option<Fault> {
        const THEN: &str = "look at the peripheral; if it was not done, send it again under another message id";
        let why = match self {
            Past::Known => return None,
            Past::Unknown => "this ledger is new or was restored, and an earlier one may have executed the command",
            Past::Elsewhere => {
                "the same message came from a hub of another name, and may have been executed: it may be the same hub"
            }
        };
        Some(Fault::new(Code::UnknownHistory, format!("{why}; {THEN}")))
    }
}

/// So much later than the ledger's epoch a message must have been enqueued, so that no earlier ledger can have seen it:
/// the hub's clock and the gateway's differ.
const ENQUEUED_AFTER: Duration = Duration::from_secs(300);

/// What can be said of the past of a message without a row. `distrusted`: the ledger does not know what an earlier one
/// did for its device. `enqueued` is when the hub took it, where the transport tells; `epoch` the first time that could
/// be believed after the ledger was made or restored. Before there was one, time proves nothing. `elsewhere`: the
/// message stands in a row of another hub's, by which a hub that was renamed lately can't be excluded.
pub fn past(distrusted: bool, enqueued: Option<Timestamp>, epoch: Option<Timestamp>, elsewhere: bool) -> Past {
    if elsewhere {
        return Past::Elsewhere;
    }
    let is_young = enqueued.zip(epoch).is_some_and(|(enqueued, epoch)| enqueued > epoch.plus(ENQUEUED_AFTER));
    match distrusted && !is_young {
        true => Past::Unknown,
        false => Past::Known,
    }
}

/// A hub keeps an unsettled message to itself for 60 s after the connection that it was delivered on; some more for its
/// own haste.
const LOCKS_LAPSE: Duration = Duration::from_secs(75);
/// A pause in deliveries.
const PAUSE: Duration = Duration::from_secs(5);

/// How much longer nothing may come on an MQTT connection, which CONNACK let in `connected` ago and on which a message
/// was last delivered or settled `quiet` ago, until that shows that the hub holds nothing of before: the first pause of
/// 5 s, with nothing unsettled, that lies 75 s or more after CONNACK. `None`: something is unsettled.
///
/// What a queue holds comes at once after the subscription, as far as the hub's window has room; what an earlier life
/// left unsettled comes when its lock has run out, or at once, which the hub's documents leave open. Both have happened
/// by then, whatever the hub does. MQTT can't be certain all the same:
/// - A hub that pauses for longer in the middle of its queue, as when it throttles or fails over, is taken for one that
///   has delivered all.
/// - A first CONNACK without a session is taken for an identity that never subscribed. A tool that connected under this
///   identity with a clean session, and so ended the session of an earlier gateway, gives the same answer.
/// - CONNACK with a session says only that somebody subscribed before: a first connection that was cut after CONNACK,
///   or a gateway that executed nothing, gives that too. Then the pause decides.
///
/// Transports that tell the enqueued time of a message need none of this.
pub fn until_nothing_is_left(connected: Duration, quiet: Duration, unsettled: usize) -> Option<Duration> {
    let lapse = (LOCKS_LAPSE + PAUSE).saturating_sub(connected);
    (unsettled == 0).then(|| lapse.max(PAUSE.saturating_sub(quiet)))
}

/// Refuses a non-idempotent command that can't be told from its own redelivery.
///
/// # Errors
/// [`Code::NoMessageId`]: it is one.
pub fn check_message_id(message_id: Option<&str>, idempotent: bool) -> Result<(), Fault> {
    if message_id.is_none() && !idempotent {
        return Err(Fault::new(
            Code::NoMessageId,
            "without a message id a redelivery can't be told from a new command, and this one must not be repeated; \
             set the message id",
        ));
    }
    Ok(())
}

/// What matters of a command for how it is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Whether repeating it is safe.
    pub idempotent: bool,
    /// How its effect is looked for, if it can be read back.
    pub verify: Option<Looks>,
    /// Attempts in all, where repeating is safe; at least 1.
    pub attempts_max: u32,
    /// How long is waited before another attempt.
    pub retry_pause: Duration,
}

/// When the effect of a command is looked for, counted from the end of the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looks {
    /// The first look.
    pub after: Duration,
    /// The last one, if nothing else is found before. One look is made in any case.
    pub within: Duration,
}

/// What to do next with a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Make `executing` durable before the next step.
    RecordExecuting,
    /// One attempt on the wire.
    Send,
    /// Wait this long without holding the bus, then go on with [`Execution::again`].
    AgainAfter(Duration),
    /// Read back what was written, and compare.
    ReadBack,
    /// Wait this long without holding the bus, then read back.
    ReadBackAfter(Duration),
    /// Make this outcome durable; nothing follows.
    Finish(Outcome),
}

/// What one attempt on the wire came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Attempt {
    /// The peripheral confirmed.
    Confirmed(Option<Json>),
    /// It confirmed, and what was written shows where it is to show.
    Shown(Option<Json>),
    /// It refused: a definite no.
    Refused(Fault),
    /// Nothing was sent.
    NotSent(Fault),
    /// A gateway has it, and no way to the peripheral.
    NoPath(Fault),
    /// The peripheral says that it was too busy to begin.
    Busy {
        /// What it said.
        fault: Fault,
        /// Whether that can have been said of no other request.
        certain: bool,
    },
    /// Something was sent, and what it did is not known.
    Unclear(Fault),
    /// The peripheral has begun, and does not say what came of it.
    Unconfirmed(Fault),
    /// It went to all units of a line, and none of them says anything to that.
    Broadcast(Fault),
    /// Of several writes in a row one was not done, and some before it were.
    Broken {
        /// What kept it.
        fault: Fault,
        /// Whether that may be otherwise the next time.
        may_repeat: bool,
    },
    /// Of several writes in a row one is not known to be done, and it can't be found out whether all are.
    Lost {
        /// What is known of it.
        fault: Fault,
        /// Whether it is over, so that it can be sent again.
        may_repeat: bool,
    },
}

/// What reading back came to.
#[derive(Debug, Clone, PartialEq)]
pub enum ReadBack {
    /// What was written stands there.
    Same,
    /// Another value stands there; the sentence says which.
    Other(String),
    /// It could not be read.
    Unknown(Fault),
}

/// How long an interrupted command's effect is looked for before it is called in doubt: after a power cut the
/// peripherals may start more slowly than the gateway.
pub const RESOLVE_PATIENCE: Duration = Duration::from_secs(30);
const RESOLVE_PAUSE: Duration = Duration::from_secs(1);
/// How long a peripheral may take to carry out what it was sent before the crash: a read-back on a new connection can
/// overtake that.
pub const TAKE_UP_PATIENCE: Duration = Duration::from_secs(2);

/// First and longest pause between two looks: each takes a turn on the bus.
const LOOK_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Looks for the effect of one attempt: more than fit into the longest `within`.
const LOOKS_MAX: u32 = 1000;

/// Why the read-back is done.
#[derive(Debug, Clone, PartialEq)]
enum Purpose {
    /// The peripheral confirmed with this value; the route asks for proof.
    Proof(Option<Json>),
    /// An attempt ended unclear, for this reason.
    Doubt(Fault),
    /// It went to all units, and only what they show can confirm it.
    Broadcast(Fault),
    /// The daemon died while the command was on its way.
    Interrupted,
}

/// One command on its way, from the first step to its outcome.
#[derive(Debug, Clone)]
pub struct Execution {
    route: Route,
    /// `executing` is recorded first, although repeating is safe.
    on_the_record: bool,
    attempts: u32,
    looks: u32,
    purpose: Option<Purpose>,
    /// Why an earlier attempt may have taken effect, or is known to have had another one, if so.
    doubt: Option<Fault>,
    /// How it ends if it is not tried once more, although it could be.
    last: Option<Outcome>,
    /// The last attempt was not sent, or not begun as the peripheral itself says, and there may be another.
    not_begun: Option<Fault>,
}

impl Execution {
    /// A command that was never on the wire.
    pub fn new(route: Route) -> Self {
        assert!(route.attempts_max >= 1, "a command gets at least one attempt");
        let (purpose, doubt, last, not_begun) = (None, None, None, None);
        Execution { route, on_the_record: false, attempts: 0, looks: 0, purpose, doubt, last, not_begun }
    }

    /// A command that was never on the wire, and of which that is to be known after a crash although repeating is safe:
    /// nobody would deliver it again.
    pub fn on_the_record(route: Route) -> Self {
        Execution { on_the_record: true, ..Execution::new(route) }
    }

    /// A command that was `executing` when the daemon died, after `attempts` attempts.
    ///
    /// Only one that must not be repeated is ever recorded so: it was that when it began, whatever the configuration
    /// says by now (G3).
    pub fn interrupted(route: Route, attempts: u32) -> Self {
        let route = Route { idempotent: false, ..route };
        Execution { attempts, purpose: Some(Purpose::Interrupted), ..Execution::new(route) }
    }

    /// Attempts on the wire that were begun.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The end of a command that is not sent again, although nothing of it was begun. `None` where nothing stands in
    /// the ledger: the hub delivers it again.
    pub fn given_up(&self) -> Option<Outcome> {
        let is_recorded = !self.route.idempotent || self.on_the_record;
        self.not_begun.clone().filter(|_| is_recorded).map(|fault| Outcome::ended(State::Failed, fault))
    }

    /// The first step.
    pub fn begin(&mut self) -> Step {
        match (&self.purpose, self.route) {
            (Some(Purpose::Interrupted), Route { verify: Some(_), .. }) => Step::ReadBack,
            (Some(Purpose::Interrupted), Route { verify: None, .. }) => Step::Finish(interrupted(None)),
            (_, Route { idempotent: false, .. }) => Step::RecordExecuting,
            _ if self.on_the_record => Step::RecordExecuting,
            (_, Route { idempotent: true, .. }) => self.send(),
        }
    }

    /// `executing` is durable.
    pub fn recorded(&mut self) -> Step {
        let is_first = self.attempts == 0 || self.not_begun.is_some();
        assert!(is_first, "a command is recorded before an attempt of which nothing is begun");
        self.send()
    }

    /// An attempt has ended.
    pub fn attempted(&mut self, attempt: Attempt) -> Step {
        let Route { idempotent, verify, .. } = self.route;
        match (attempt, verify) {
            (Attempt::Confirmed(value), Some(looks)) => self.look_for(Purpose::Proof(value), looks),
            (Attempt::Confirmed(value), None) | (Attempt::Shown(value), _) => Step::Finish(Outcome::succeeded(value)),
            (Attempt::Refused(fault), _) => Step::Finish(Outcome::ended(State::Failed, fault)),
            (Attempt::Busy { fault, certain }, _) => self.begin_later(fault, idempotent || certain),
            // That nothing was sent this time says nothing of the times before.
            (Attempt::NotSent(fault), _) => self.begin_later(self.doubt.clone().unwrap_or(fault), true),
            (Attempt::NoPath(fault), _) => self.again_or(State::Failed, self.doubt.clone().unwrap_or(fault)),
            (Attempt::Unclear(fault) | Attempt::Unconfirmed(fault), Some(looks)) => {
                self.look_for(Purpose::Doubt(unclear(fault)), looks)
            }
            (Attempt::Unclear(fault), None) => self.again_or_in_doubt(unclear(fault)),
            // It is sent once, and whether it may be repeated or not, nobody says that it was done.
            (Attempt::Broadcast(fault), Some(looks)) => self.look_for(Purpose::Broadcast(fault), looks),
            (Attempt::Broadcast(fault), None) => Step::Finish(Outcome::ended(State::InDoubt, fault)),
            (Attempt::Broken { fault, may_repeat: true }, _) => {
                self.doubt = Some(fault.clone());
                self.again_or(State::Failed, fault)
            }
            (Attempt::Broken { fault, may_repeat: false }, _) => Step::Finish(Outcome::ended(State::Failed, fault)),
            (Attempt::Lost { fault, may_repeat: true }, _) => self.again_or_in_doubt(unclear(fault)),
            // It is being done already.
            (Attempt::Unconfirmed(fault), None) | (Attempt::Lost { fault, may_repeat: false }, _) => {
                Step::Finish(Outcome::ended(self.unclear_end(), unclear(fault)))
            }
        }
    }

    /// The pause is over after which a command is tried once more.
    pub fn again(&mut self) -> Step {
        match self.route.idempotent {
            true => self.send(),
            false => Step::RecordExecuting,
        }
    }

    /// Reading back has ended, `elapsed` after the attempt has, or after the execution of an interrupted command began.
    /// `written` is the value that should stand there.
    pub fn read_back(&mut self, result: ReadBack, written: Option<Json>, elapsed: Duration) -> Step {
        let purpose = self.purpose.clone().expect("a read-back has a purpose");
        let looks = self.route.verify.expect("what is read back can be");
        self.looks += 1;
        match result {
            ReadBack::Same => Step::Finish(Outcome::succeeded(match purpose {
                Purpose::Proof(value) => value,
                Purpose::Doubt(_) | Purpose::Broadcast(_) | Purpose::Interrupted => written,
            })),
            ReadBack::Other(message) => {
                let patience = match purpose {
                    Purpose::Interrupted => looks.within.max(TAKE_UP_PATIENCE),
                    _ => looks.within,
                };
                if elapsed < patience && self.looks < LOOKS_MAX {
                    return self.look_again(patience - elapsed);
                }
                match purpose {
                    Purpose::Proof(_) => {
                        let fault = Fault::new(Code::VerifyMismatch, message);
                        self.doubt = Some(fault.clone());
                        self.again_or(State::Failed, fault)
                    }
                    Purpose::Doubt(fault) => {
                        let message = format!("{}; {message}", fault.message);
                        self.again_or_in_doubt(Fault { message, ..fault })
                    }
                    Purpose::Broadcast(fault) => not_shown(fault, &message),
                    Purpose::Interrupted => Step::Finish(interrupted(Some(&message))),
                }
            }
            ReadBack::Unknown(fault) => self.unread(purpose, fault, looks, elapsed),
        }
    }

    fn unread(&mut self, purpose: Purpose, fault: Fault, looks: Looks, elapsed: Duration) -> Step {
        let is_told_once = matches!(purpose, Purpose::Broadcast(_));
        let may_repeat = self.route.idempotent && self.attempts < self.route.attempts_max && !is_told_once;
        let patience = match purpose {
            Purpose::Interrupted => looks.within.max(RESOLVE_PATIENCE),
            // A peripheral that says nothing at all is rather told again than asked what it has done.
            Purpose::Doubt(_) if may_repeat => Duration::ZERO,
            _ => looks.within,
        };
        let few = !may_repeat && self.looks < self.route.attempts_max;
        if (elapsed < patience || few) && self.looks < LOOKS_MAX {
            return match purpose {
                Purpose::Interrupted => Step::ReadBackAfter(RESOLVE_PAUSE),
                _ => self.look_again(patience.saturating_sub(elapsed)),
            };
        }
        match purpose {
            Purpose::Interrupted => {
                Step::Finish(interrupted(Some(&format!("it could not be read back: {}", fault.message))))
            }
            Purpose::Doubt(first) => self.again_or_in_doubt(first),
            Purpose::Broadcast(first) => not_shown(first, &fault.message),
            // It was sent, and confirmed, whatever kept it from being read back.
            Purpose::Proof(_) => {
                let answered = matches!(fault.code, Code::Exception | Code::Refused | Code::BadReply);
                let code = if answered { Code::BadReply } else { Code::Timeout };
                let message = format!("confirmed, but it could not be read back: {}", fault.message);
                self.again_or_in_doubt(Fault { code, message, ..fault })
            }
        }
    }

    fn send(&mut self) -> Step {
        let not_begun = self.not_begun.take().is_some();
        assert!(
            self.route.idempotent || self.attempts == 0 || not_begun,
            "a non-idempotent command is sent once, unless nothing of it was begun"
        );
        self.attempts += 1;
        Step::Send
    }

    /// A proof that is wanted at once follows the write in its turn; for anything else others have the bus first.
    fn look_for(&mut self, purpose: Purpose, looks: Looks) -> Step {
        let at_once = looks.after.is_zero() && matches!(purpose, Purpose::Proof(_));
        self.purpose = Some(purpose);
        self.looks = 0;
        match at_once {
            true => Step::ReadBack,
            false => Step::ReadBackAfter(looks.after),
        }
    }

    /// The next look, and one just when time is up.
    fn look_again(&self, left: Duration) -> Step {
        let pause = LOOK_PAUSE.0.saturating_mul(1 << self.looks.saturating_sub(1).min(4)).min(LOOK_PAUSE.1);
        Step::ReadBackAfter(if left.is_zero() { pause } else { pause.min(left) })
    }

    /// Another attempt where repeating is safe and one is left, else this end.
    fn again_or(&mut self, state: State, fault: Fault) -> Step {
        let end = Outcome::ended(state, fault);
        if self.route.idempotent && self.attempts < self.route.attempts_max {
            self.last = Some(end);
            return Step::AgainAfter(self.route.retry_pause);
        }
        Step::Finish(end)
    }

    /// Another attempt at what was not begun, where that is certain enough and one is left, else its end.
    fn begin_later(&mut self, fault: Fault, may_be: bool) -> Step {
        if !may_be || self.attempts >= self.route.attempts_max {
            return Step::Finish(Outcome::ended(State::Failed, fault));
        }
        self.not_begun = Some(fault);
        Step::AgainAfter(self.route.retry_pause)
    }

    /// Another attempt where repeating is safe and one is left, else the end of what may have been done.
    fn again_or_in_doubt(&mut self, fault: Fault) -> Step {
        self.doubt = Some(fault.clone());
        self.again_or(self.unclear_end(), fault)
    }

    /// How a command ends of which nobody knows what it has done: one that may be repeated is just not done.
    fn unclear_end(&self) -> State {
        match self.route.idempotent {
            true => State::Failed,
            false => State::InDoubt,
        }
    }
}

/// How an operator's command ends that an earlier life of the daemon left: nobody waits for it any more, so it is not
/// begun, and not repeated. `None`: its effect is looked for. `interrupted`: it was `executing`.
pub fn on_left_behind(route: Route, interrupted: bool) -> Option<Outcome> {
    match (interrupted, route) {
        (false, _) => {
            let why = "the gateway stopped before it was sent; nothing was done";
            Some(Outcome::ended(State::Expired, Fault::new(Code::Interrupted, why)))
        }
        (true, Route { idempotent: true, verify: None, .. }) => {
            let why =
                "the gateway stopped while the command was on its way; it may have been done, and can be repeated";
            Some(Outcome::ended(State::Failed, Fault::new(Code::Interrupted, why)))
        }
        (true, _) => None,
    }
}

fn interrupted(found: Option<&str>) -> Outcome {
    let mut message =
        "the gateway stopped while the command was on its way; look at the peripheral before sending it again"
            .to_owned();
    if let Some(found) = found {
        message = format!("{message} ({found})");
    }
    Outcome::ended(State::InDoubt, Fault::new(Code::Interrupted, message))
}

/// The end of a broadcast that does not show on all units that were to show it.
fn not_shown(fault: Fault, found: &str) -> Step {
    let message = format!("{}; {found}", fault.message);
    Step::Finish(Outcome::ended(State::InDoubt, Fault { message, ..fault }))
}

/// What is unclear is so by `timeout`, `bad-reply` or `exception`.
fn unclear(fault: Fault) -> Fault {
    match fault.code {
        Code::Timeout | Code::BadReply | Code::Exception => fault,
        // Something answered, but not what was asked for.
        Code::Refused => Fault { code: Code::BadReply, ..fault },
        _ => Fault { code: Code::Timeout, ..fault },
    }
}
