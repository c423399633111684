//! What is run: points, kinds of routes, ways to settle, buses; and what a route can't reach.

use std::fmt;
use std::time::Duration;

use fieldbridge::proof::crash::Point;

use crate::support::transports::By;
use crate::table::{phase, Phase};

/// A kind of bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wiring {
    Tcp,
    Rtu,
    Text,
}

/// What a command is to its peripheral.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Idempotent.
    Set,
    /// Idempotent, and read back.
    SetVerified,
    /// Idempotent, and the first attempt is done and not answered.
    SetRetried,
    /// Not idempotent.
    Pulse,
    /// Not idempotent, and read back.
    PulseVerified,
    /// Not idempotent, and a scale is read before it is written.
    Scaled,
    /// Not idempotent, and followed by another write in a row.
    Steps,
    /// No command of the configuration's: never executable.
    Unknown,
}

/// Of those that ask several things in a row, what differs: once they have the bus.
pub const IN_A_ROW: [Kind; 2] = [Kind::Scaled, Kind::Steps];

/// The others that are executed.
pub const KINDS: [Kind; 5] = [Kind::Set, Kind::SetVerified, Kind::SetRetried, Kind::Pulse, Kind::PulseVerified];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Settle {
    AfterExecution,
    AfterAccept,
}

/// What ends one life of the daemon.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    pub point: Point,
    /// The how manieth time that it is reached.
    pub nth: u32,
    /// Whether the point must strike; `None`: it may.
    pub strikes: Option<bool>,
}

/// One case: two commands of a kind, and lives of the daemon that end early, but for the last.
pub struct Case {
    pub by: By,
    pub wiring: Wiring,
    pub kind: Kind,
    pub settle: Settle,
    pub lives: Vec<Life>,
    /// How long the slave takes to take a write request up.
    pub take_up: Duration,
    /// The ledger is not there yet, or does not know yet that nothing was before it (G15).
    pub is_new: bool,
}

impl Kind {
    pub fn is_idempotent(self) -> bool {
        matches!(self, Kind::Set | Kind::SetVerified | Kind::SetRetried)
    }

    pub fn is_verified(self) -> bool {
        matches!(self, Kind::SetVerified | Kind::PulseVerified)
    }

    /// Nothing can be read back in lines of text, and that instrument answers always.
    pub fn runs_on(self, wiring: Wiring) -> bool {
        wiring != Wiring::Text || matches!(self, Kind::Set | Kind::Pulse)
    }

    pub fn command(self) -> &'static str {
        match self {
            Kind::Set => "set",
            Kind::SetVerified => "set-verified",
            Kind::SetRetried => "set-retried",
            Kind::Pulse => "pulse",
            Kind::PulseVerified => "pulse-verified",
            Kind::Scaled => "scaled",
            Kind::Steps => "steps",
            Kind::Unknown => "no-such-command",
        }
    }
}

impl Settle {
    pub fn word(self) -> &'static str {
        match self {
            Settle::AfterExecution => "after-execution",
            Settle::AfterAccept => "after-accept",
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {} {}:", self.by, self.wiring, self.kind.command(), self.settle.word())?;
        self.lives.iter().try_for_each(|life| write!(f, " {}:{}", life.point.name(), life.nth))
    }
}

impl Case {
    /// The point that the case is about.
    pub fn point(&self) -> Point {
        self.lives.last().expect("a case has a point").point
    }

    pub fn is_reachable(&self) -> bool {
        self.lives.last().is_some_and(|life| life.strikes == Some(true))
    }
}

/// Why a point can't be reached by such a command, if it can't.
pub fn unreachable(by: By, point: Point, kind: Kind, settle: Settle) -> Option<&'static str> {
    let is_to_be_accepted = settle == Settle::AfterAccept;
    match point {
        Point::LoginSent if by == By::Https => Some("each request shows its token"),
        Point::PubackQueued | Point::PubackWritten | Point::GoodbyeSaid if by == By::Amqp => {
            Some("what an identity has to say is written among what others on its connection have")
        }
        Point::BeforeAccept | Point::AcceptUncommitted | Point::AcceptCommitted | Point::AcceptKnown => {
            (!is_to_be_accepted).then_some("after-execution writes no `accepted`")
        }
        Point::BeforeExecuting | Point::ExecutingUncommitted | Point::ExecutingCommitted | Point::ExecutingKnown => {
            kind.is_idempotent().then_some("what may be repeated needs no `executing`")
        }
        Point::FirstRead => (kind != Kind::Scaled).then_some("nothing is read before it is written"),
        Point::BetweenSteps => (kind != Kind::Steps).then_some("it is one write"),
        Point::BetweenAttempts => (kind != Kind::SetRetried).then_some("every first attempt is answered"),
        Point::BeforeReadBack | Point::ReadBackEnded => (!kind.is_verified()).then_some("nothing is read back"),
        Point::BeforeReadBackAgain => {
            (kind != Kind::PulseVerified).then_some("only what may not be repeated is read back after a crash")
        }
        Point::LeftTaken => (kind.is_idempotent() && !is_to_be_accepted)
            .then_some("what may be repeated has no row before its outcome: the hub has it still"),
        _ => None,
    }
}

/// Where earlier lives end, so that the point can be reached or has something to spoil.
fn earlier(point: Point, kind: Kind, settle: Settle) -> &'static [Point] {
    match phase(point) {
        Phase::Opening | Phase::Beside | Phase::Resolving => &[Point::RequestWritten],
        Phase::Redelivered if kind == Kind::Unknown => &[Point::OutcomeKnown],
        Phase::Redelivered => match settle {
            Settle::AfterExecution => &[Point::OutcomeKnown],
            Settle::AfterAccept => &[Point::AcceptKnown],
        },
        _ => &[],
    }
}

/// Whether a message that is never executable comes by the point.
fn is_passed_by_the_unknown(point: Point) -> bool {
    let is_for_executable = matches!(point, Point::BeforeAccept | Point::AcceptUncommitted);
    match phase(point) {
        Phase::Received => !is_for_executable,
        Phase::OnTheWire => {
            matches!(point, Point::BeforeOutcome | Point::OutcomeWithoutEvent | Point::OutcomeUncommitted)
        }
        Phase::Recorded | Phase::Settling | Phase::Redelivered => true,
        _ => false,
    }
}

/// Every point, for every kind of route and way to settle, and where the bus matters, on every bus that has it.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for wiring in [Wiring::Text, Wiring::Rtu, Wiring::Tcp] {
        for &point in Point::ALL.iter().filter(|point| !phase(**point).is_of_others()) {
            let on_the_bus = matches!(phase(point), Phase::Turn | Phase::Begun | Phase::OnTheWire);
            if wiring != Wiring::Tcp && !on_the_bus {
                continue;
            }
            // Before there is a ledger there is no command whose kind could matter.
            let kinds = if phase(point) == Phase::Creation { &KINDS[..1] } else { &KINDS[..] };
            for &kind in kinds.iter().filter(|kind| kind.runs_on(wiring)) {
                for settle in [Settle::AfterExecution, Settle::AfterAccept] {
                    let reachable = unreachable(By::Mqtt, point, kind, settle).is_none();
                    // That it can't be reached does not depend on the bus.
                    if reachable || wiring == Wiring::Tcp {
                        cases.push(case(By::Mqtt, wiring, kind, settle, point));
                    }
                }
            }
        }
    }
    for &point in Point::ALL.iter().filter(|point| is_passed_by_the_unknown(**point)) {
        for settle in [Settle::AfterExecution, Settle::AfterAccept] {
            cases.push(case(By::Mqtt, Wiring::Tcp, Kind::Unknown, settle, point));
        }
    }
    cases
}

/// Whether only a command that asks several things in a row comes by the point.
pub fn is_in_a_row(point: Point) -> bool {
    matches!(point, Point::FirstRead | Point::BetweenSteps)
}

/// The points from the turn to the outcome, for commands that ask several things in it.
pub fn in_a_row() -> Vec<Case> {
    let on_the_bus = |point: &Point| matches!(phase(*point), Phase::Begun | Phase::OnTheWire);
    let points = Point::ALL.iter().copied().filter(on_the_bus);
    let kinds = points.flat_map(|point| IN_A_ROW.map(|kind| (point, kind)));
    let wirings = kinds.flat_map(|(point, kind)| [Wiring::Rtu, Wiring::Tcp].map(|wiring| (point, kind, wiring)));
    let settles = [Settle::AfterExecution, Settle::AfterAccept];
    let cases =
        wirings.flat_map(|(point, kind, wiring)| settles.map(|settle| case(By::Mqtt, wiring, kind, settle, point)));
    cases.collect()
}

/// Whether what goes on at a point is the transport's, or is owed to it.
fn is_of_the_transport(point: Point) -> bool {
    let is_pruning = matches!(point, Point::PruneUncommitted | Point::PruneCommitted);
    match phase(point) {
        Phase::Beside => !is_pruning,
        Phase::Received | Phase::Accepted | Phase::Recorded | Phase::Settling | Phase::Redelivered => true,
        Phase::StopAsked | Phase::Stopping => true,
        // Of what is the same whatever comes from the hub, the one place that most leads on from.
        _ => point == Point::RequestWritten,
    }
}

/// Every point at which it matters by what the messages come, for a command that leaves its trace before it is begun,
/// and for what is refused.
pub fn over(by: By) -> Vec<Case> {
    let mut cases = Vec::new();
    for &point in Point::ALL.iter().filter(|point| is_of_the_transport(**point)) {
        for kind in [Kind::Pulse, Kind::Unknown] {
            if kind == Kind::Unknown && !is_passed_by_the_unknown(point) {
                continue;
            }
            cases.extend(
                [Settle::AfterExecution, Settle::AfterAccept].map(|settle| case(by, Wiring::Tcp, kind, settle, point)),
            );
        }
    }
    cases
}

fn case(by: By, wiring: Wiring, kind: Kind, settle: Settle, point: Point) -> Case {
    // The unknown comes by other points (`is_passed_by_the_unknown`), but not by other ways.
    let as_if = if kind == Kind::Unknown { Kind::Pulse } else { kind };
    let reachable = unreachable(by, point, as_if, settle).is_none();
    // The first exchange on such a line is the read that shows whether it echoes; its bytes are written as 4, 2, 1, 1.
    let nth = match point {
        // The read before the write has an end, too.
        Point::AttemptEnded if kind == Kind::Scaled => 2,
        Point::RequestWritten | Point::ExchangeEnded if kind == Kind::Scaled => 2,
        _ if wiring != Wiring::Rtu => 1,
        Point::BeforeFirstByte | Point::RequestWritten | Point::ExchangeEnded => 2,
        Point::RequestHalfWritten => 4,
        _ => 1,
    };
    let life = |point, strikes| Life { point, nth, strikes: Some(strikes) };
    let mut lives: Vec<_> = earlier(point, kind, settle).iter().map(|&point| life(point, true)).collect();
    lives.push(life(point, reachable));
    let is_new = is_creation(&lives);
    Case { by, wiring, kind, settle, lives, take_up: Duration::ZERO, is_new }
}

fn is_creation(lives: &[Life]) -> bool {
    lives.iter().any(|life| phase(life.point) == Phase::Creation)
}

/// A first installation dies while its first connections are made.
pub fn first_installations() -> Vec<Case> {
    let points = [Point::BeforeConnect, Point::LoginSent, Point::LoginAccepted, Point::SubscriptionGranted];
    let case = |by, point, settle| {
        let reachable = unreachable(by, point, Kind::Pulse, settle).is_none();
        let lives = vec![Life { point, nth: 1, strikes: Some(reachable) }];
        Case { by, wiring: Wiring::Tcp, kind: Kind::Pulse, settle, lives, take_up: Duration::ZERO, is_new: true }
    };
    let settles = [Settle::AfterExecution, Settle::AfterAccept];
    let of = |by| points.into_iter().flat_map(move |point| settles.map(|settle| case(by, point, settle)));
    By::ALL.into_iter().flat_map(of).collect()
}

/// A request is on its way to a slave that takes it up only after the next daemon has begun to look for its effect.
pub fn taken_up_late() -> Vec<Case> {
    let late = |settle| {
        let case = case(By::Mqtt, Wiring::Tcp, Kind::PulseVerified, settle, Point::RequestWritten);
        Case { take_up: Duration::from_millis(700), ..case }
    };
    [Settle::AfterExecution, Settle::AfterAccept].map(late).into()
}

/// A sample of two crashes in a row, each at any point, on any bus.
pub fn pairs(random: &mut fastrand::Rng, count: usize) -> Vec<Case> {
    // These need a slave that can't be read, or a full disk, which would spoil the other commands too.
    let is_ordinary = |point: &Point| {
        let spoils = matches!(point, Point::BeforeReadBackAgain | Point::BallastGivenUp | Point::BallastRegained);
        !spoils && !phase(*point).is_of_others()
    };
    let points: Vec<Point> = Point::ALL.iter().copied().filter(is_ordinary).collect();
    let case = |random: &mut fastrand::Rng| {
        let wiring = [Wiring::Tcp, Wiring::Tcp, Wiring::Tcp, Wiring::Rtu, Wiring::Text][random.usize(..5)];
        let kinds: Vec<Kind> = KINDS.into_iter().filter(|kind| kind.runs_on(wiring)).collect();
        let kind = kinds[random.usize(..kinds.len())];
        let settle = [Settle::AfterExecution, Settle::AfterAccept][random.usize(..2)];
        let reachable: Vec<Point> =
            points.iter().copied().filter(|point| unreachable(By::Mqtt, *point, kind, settle).is_none()).collect();
        let mut life = || {
            // Mostly the first time: the second often never comes.
            let (point, nth) = (reachable[random.usize(..reachable.len())], 1 + u32::from(random.u32(..5) == 0));
            Life { point, nth, strikes: None }
        };
        let lives = vec![life(), life()];
        let is_new = is_creation(&lives);
        Case { by: By::Mqtt, wiring, kind, settle, lives, take_up: Duration::ZERO, is_new }
    };
    std::iter::repeat_with(|| case(random)).take(count).collect()
}
