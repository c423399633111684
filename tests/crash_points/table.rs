//! The crash table: what a crash at a point leaves behind of the command that it strikes, and what any crash must lead
//! to, given what it left behind.

use fieldbridge::proof::crash::Point;

use crate::cases::{Kind, Settle};

/// How much of a command is durable. The order is the order of its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durable {
    Nothing,
    Accepted,
    Executing,
    Final,
}

/// What the slave has seen of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Untouched,
    /// Other things go on at the same time.
    Maybe,
    Touched,
}

/// What a crash leaves behind of the first command: at least, at most, and on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    pub least: Durable,
    pub most: Durable,
    pub wire: Wire,
}

/// Where in a command's life a point stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The first start, before there is a command.
    Creation,
    /// A start on what an earlier life left, before anything is done about it.
    Opening,
    /// A start on what an earlier life left, while that is resolved.
    Beside,
    /// Received, and nothing is durable.
    Received,
    /// `accepted` is durable, and nothing follows.
    Accepted,
    /// It waits for its turn, or has it, and nothing more is durable than before.
    Turn,
    /// It may be put on the wire, and is not yet.
    Begun,
    /// It is on the wire, and its outcome is not durable.
    OnTheWire,
    /// An interrupted command is looked for on the peripheral.
    Resolving,
    /// Its outcome is durable.
    Recorded,
    /// What is durable is being completed.
    Settling,
    /// It was delivered again, and is known.
    Redelivered,
    /// The disk is full, and nothing of it was recorded.
    DiskFull,
    /// The disk was full, and has room again.
    DiskFree,
    /// A stop that waits for it, or a new configuration beside it.
    StopAsked,
    /// A stop that need not wait for it any more.
    Stopping,
    /// A call of a direct method (tests/hub/methods.rs).
    Calls,
    /// What polls have read, on its way to the hub (tests/hub/telemetry.rs).
    Telemetry,
    /// A tool that copies or replaces the ledger while no daemon runs (tests/ledger/life.rs).
    Tools,
}

impl Phase {
    /// Whether no message leads there.
    pub fn is_of_others(self) -> bool {
        matches!(self, Phase::Calls | Phase::Telemetry | Phase::Tools)
    }
}

/// Where a point stands. A new point must be placed here.
pub fn phase(point: Point) -> Phase {
    use Point::*;
    match point {
        ReplacementComplete | ReplacementPlanned | PartMovedAside | ReplacementNamed | BackupCopied | RestoreCopied => {
            Phase::Tools
        }
        CallPassedOn | AnswerTaken | AnswerWritten => Phase::Calls,
        TelemetryPublished | TelemetryAcknowledged | TelemetryUncommitted | TelemetryCommitted => Phase::Telemetry,
        LedgerBegun | MigrationUncommitted | MigrationCommitted | LedgerComplete | LedgerSynced | LedgerNamed
        | LedgerMade | BallastWritten => Phase::Creation,
        LockHeld | LedgerOpened | LogMoved | LedgerProven | LifeBegun | BallastLaid | UnfinishedRead | BeforeReady => {
            Phase::Opening
        }
        PruneUncommitted | PruneCommitted | BeforeConnect | LoginSent | LoginAccepted | SubscriptionGranted => {
            Phase::Beside
        }
        PublishRead | DeliveryPassedOn | BeforeLookup | LookedUp | BeforeAccept | AcceptUncommitted => Phase::Received,
        AcceptCommitted | AcceptKnown => Phase::Accepted,
        TurnHeld | LineClear | BeforeExecuting | ExecutingUncommitted => Phase::Turn,
        ExecutingCommitted | ExecutingKnown | BeforeExchange | BeforeFirstByte | RequestHalfWritten | FirstRead => {
            Phase::Begun
        }
        RequestWritten | ExchangeEnded | AttemptEnded | BetweenSteps | BetweenAttempts | BeforeReadBack
        | ReadBackEnded | BeforeOutcome | OutcomeWithoutEvent | OutcomeUncommitted => Phase::OnTheWire,
        LeftTaken | BeforeReadBackAgain => Phase::Resolving,
        OutcomeCommitted | OutcomeKnown => Phase::Recorded,
        EventRead
        | EventPublished
        | EventAcknowledged
        | EventRemovalAsked
        | EventRemovalUncommitted
        | EventRemovalCommitted => Phase::Recorded,
        SettlementQueued | SettlementTaken | PubackQueued | PubackWritten => Phase::Settling,
        DuplicateKnown | DuplicateUncommitted | DuplicateCommitted => Phase::Redelivered,
        BallastGivenUp => Phase::DiskFull,
        BallastRegained => Phase::DiskFree,
        StopAsked | ConfigurationRead | ConfigurationTakenUp => Phase::StopAsked,
        ExecutorsEnded | GoodbyeSaid | LinksEnded | BusesEnded | EndedWellUncommitted | EndedWellCommitted
        | LogEmptied | LedgerClosed => Phase::Stopping,
    }
}

/// What a crash at a point must leave behind of the first command, when it is the first one to reach that point.
pub fn left_at(point: Point, kind: Kind, settle: Settle, is_new: bool) -> Left {
    use Durable::{Accepted, Executing, Final, Nothing};
    let waiting = match settle {
        Settle::AfterExecution => Nothing,
        Settle::AfterAccept => Accepted,
    };
    // An idempotent command needs no record of being begun.
    let begun = if kind.is_idempotent() { waiting } else { Executing };
    // G1: whatever is completed stands on a record.
    let settled = match settle {
        Settle::AfterExecution => Final,
        Settle::AfterAccept => Accepted,
    };
    let settled_wire = if settled == Final { Wire::Touched } else { Wire::Maybe };
    let (least, most, wire) = match phase(point) {
        // It is recorded with its outcome, or not at all.
        Phase::Received | Phase::OnTheWire if kind == Kind::Unknown => (Nothing, Nothing, Wire::Untouched),
        _ if kind == Kind::Unknown => (Final, Final, Wire::Untouched),
        Phase::Creation | Phase::Received | Phase::Calls | Phase::Telemetry | Phase::Tools => {
            (Nothing, Nothing, Wire::Untouched)
        }
        Phase::Accepted => (Accepted, Accepted, Wire::Untouched),
        Phase::Turn => (waiting, waiting, Wire::Untouched),
        Phase::Begun => (begun, begun, Wire::Untouched),
        Phase::Opening | Phase::OnTheWire | Phase::Resolving | Phase::StopAsked => (begun, begun, Wire::Touched),
        // No message was sent before the first connection.
        Phase::Beside if is_new => (Nothing, Nothing, Wire::Untouched),
        Phase::Beside => (begun, Final, Wire::Touched),
        // Whichever record it needs next, that found no room; an idempotent command may need none before its outcome.
        Phase::DiskFull if kind.is_idempotent() => (Nothing, Nothing, Wire::Maybe),
        Phase::DiskFull => (Nothing, Nothing, Wire::Untouched),
        Phase::DiskFree => (Nothing, Final, Wire::Maybe),
        Phase::Recorded | Phase::Stopping => (Final, Final, Wire::Touched),
        Phase::Settling | Phase::Redelivered => (settled, Final, settled_wire),
    };
    Left { least, most, wire }
}

/// How a command must have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    pub state: &'static str,
    pub code: Option<&'static str>,
}

const SUCCEEDED: End = End { state: "succeeded", code: None };

/// How a command must have ended that once was durably `executing` at a crash, or not, and that the slave has done so
/// many times in the end.
///
/// The slave is sound, and only crashes disturb it: so what was not caught on the wire is done and confirmed, and what
/// was is read back, or in doubt. On a new ledger it is in doubt as well if the hub had made a session before the
/// ledger knew that there was none.
pub fn end_of(kind: Kind, caught: bool, done: usize, is_new: bool) -> End {
    match (kind, caught, done) {
        (Kind::Pulse | Kind::Scaled | Kind::Steps, true, 0 | 1) | (Kind::PulseVerified, true, 0) => {
            End { state: "in_doubt", code: Some("interrupted") }
        }
        (Kind::PulseVerified, true, 1) => SUCCEEDED,
        (Kind::Pulse | Kind::PulseVerified | Kind::Scaled | Kind::Steps, false, 1) => SUCCEEDED,
        (Kind::Pulse | Kind::PulseVerified | Kind::Scaled | Kind::Steps, false, 0) if is_new => {
            End { state: "in_doubt", code: Some("unknown-history") }
        }
        (Kind::Set | Kind::SetVerified | Kind::SetRetried, false, 1..) => SUCCEEDED,
        (Kind::Unknown, false, 0) => End { state: "rejected", code: Some("unknown-command") },
        _ => panic!("{} was done {done} times, caught while executing: {caught}", kind.command()),
    }
}
