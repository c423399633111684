//! Crash points: named places between two steps that are durable, or that somebody outside can see.
//!
//! With the feature `proof` the process ends at the point that the environment variable `FIELDBRIDGE_CRASH_AT` names
//! (`name` or `name:n`, the n-th time that it is reached), as if somebody had pulled the plug on it. Without the
//! feature nothing of this is in the program.
//!
//! Invariants
//! - [`Point`] is the only list: what is not in it can't be struck, and the tests go through all of it.
//! - Nothing of the process runs after a struck point, in no thread: no destructor, no flush, no answer.
//!
//! With the feature a [`Part`] can be made to stick as well: the one that `FIELDBRIDGE_STICK_AT` names waits for ever.

/// A part of the daemon that the watchdog watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A connection to the hub.
    Session,
    /// The publishing of result events.
    Outbox,
    /// A bus, in the middle of an exchange.
    Bus,
    /// The ledger's thread, once a command is begun.
    Ledger,
}

/// Makes the list, and what the tests want to know of it.
macro_rules! points {
    ($($(#[doc = $between:literal])+ $point:ident = $name:literal,)+) => {
        /// A place where the process may be made to end.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Point {
            $($(#[doc = $between])+ $point,)+
        }

        #[cfg(feature = "proof")]
        impl Point {
            /// Every point, in the order of a command's life.
            pub const ALL: &[Point] = &[$(Point::$point,)+];

            /// Its name in `FIELDBRIDGE_CRASH_AT`.
            pub fn name(self) -> &'static str {
                match self { $(Point::$point => $name,)+ }
            }

            /// Between which two steps it stands.
            pub fn between(self) -> &'static str {
                match self { $(Point::$point => concat!($($between),+).trim_ascii(),)+ }
            }
        }
    };
}

points! {
    /// The ledger's lock is held; it is not known yet whether there is a ledger.
    LockHeld = "lock-held",
    /// A new ledger's file is begun under its temporary name; it has no tables.
    LedgerBegun = "ledger-begun",
    /// A ledger that replaces another is complete under its temporary name; nothing says that it is to replace it.
    ReplacementComplete = "replacement-complete",
    /// The plan to replace a ledger is on the disk; nothing was moved.
    ReplacementPlanned = "replacement-planned",
    /// A part of a ledger that is replaced is moved aside; the new one does not have its name.
    PartMovedAside = "part-moved-aside",
    /// A ledger that replaces another has its name; the plan is there still.
    ReplacementNamed = "replacement-named",
    /// A backup is copied under a temporary name; it is not proven.
    BackupCopied = "backup-copied",
    /// A backup is copied to where the ledger lies; it is not changed yet.
    RestoreCopied = "restore-copied",
    /// A migration has run; it is not committed.
    MigrationUncommitted = "migration-uncommitted",
    /// A migration is committed; nothing that stands on it is.
    MigrationCommitted = "migration-committed",
    /// A new ledger is complete under its temporary name; its file is not synced.
    LedgerComplete = "ledger-complete",
    /// A new ledger is synced; it does not have its name.
    LedgerSynced = "ledger-synced",
    /// A new ledger has its name; its folder is not synced.
    LedgerNamed = "ledger-named",
    /// A new ledger's name is synced; it is not opened for use.
    LedgerMade = "ledger-made",
    /// The ledger is open and ours; its log is not moved into the file.
    LedgerOpened = "ledger-opened",
    /// The ledger's log is moved into the file; the file is not checked.
    LogMoved = "log-moved",
    /// The ledger is proven; it does not say that a daemon runs on it.
    LedgerProven = "ledger-proven",
    /// The ledger says that a daemon runs on it; its ballast is not looked for.
    LifeBegun = "life-begun",
    /// The ballast has its blocks and the room beside it; the room is not given back.
    BallastWritten = "ballast-written",
    /// The ballast lies there; nothing was read from the ledger.
    BallastLaid = "ballast-laid",
    /// What an earlier life left is read; no bus is open.
    UnfinishedRead = "unfinished-read",
    /// Everything is set up; nobody was told, and nothing has begun to run.
    BeforeReady = "before-ready",
    /// Old rows are deleted; that is not committed.
    PruneUncommitted = "prune-uncommitted",
    /// A window of old rows is gone; the next one is not.
    PruneCommitted = "prune-committed",
    /// A command of an earlier life is taken up; nothing was done about it.
    LeftTaken = "left-taken",
    /// An identity is about to connect; the hub knows nothing of it.
    BeforeConnect = "before-connect",
    /// CONNECT is written; CONNACK has not come.
    LoginSent = "login-sent",
    /// CONNACK has come; SUBSCRIBE is not written.
    LoginAccepted = "login-accepted",
    /// SUBACK has come; no event that waits was published.
    SubscriptionGranted = "subscription-granted",
    /// A PUBLISH was read; nobody was given it.
    PublishRead = "publish-read",
    /// A delivery was passed on to its device; nobody has looked at it.
    DeliveryPassedOn = "delivery-passed-on",
    /// A call was passed on to its device; nobody has looked at it.
    CallPassedOn = "call-passed-on",
    /// A call's end is durable, and its answer on its way; it is not written.
    AnswerTaken = "answer-taken",
    /// A call's answer is written.
    AnswerWritten = "answer-written",
    /// A delivery is about to be judged; the ledger was not asked.
    BeforeLookup = "before-lookup",
    /// The ledger has said what it knows of a message; nothing was decided.
    LookedUp = "looked-up",
    /// A message is known to be recorded; neither its completion nor its count is under way.
    DuplicateKnown = "duplicate-known",
    /// A further delivery is counted; that is not committed.
    DuplicateUncommitted = "duplicate-uncommitted",
    /// The count of a further delivery is committed; nothing follows from it.
    DuplicateCommitted = "duplicate-committed",
    /// The disk is full, and the ballast is given up; what found no room was not tried again.
    BallastGivenUp = "ballast-given-up",
    /// The ballast lies there again; no commit has shown that there is room beside it.
    BallastRegained = "ballast-regained",
    /// A message is to be accepted; the ledger was not asked to.
    BeforeAccept = "before-accept",
    /// `accepted` is written; it is not committed.
    AcceptUncommitted = "accept-uncommitted",
    /// `accepted` is committed; the intake does not know.
    AcceptCommitted = "accept-committed",
    /// The intake knows that `accepted` is durable; the message is not completed.
    AcceptKnown = "accept-known",
    /// A command has the bus; whether the line is clear for it was not asked.
    TurnHeld = "turn-held",
    /// The line is clear for a command; it was not judged whether it may still go.
    LineClear = "line-clear",
    /// A command may go; the ledger was not asked for `executing`.
    BeforeExecuting = "before-executing",
    /// `executing` is written; it is not committed.
    ExecutingUncommitted = "executing-uncommitted",
    /// `executing` is committed; the executor does not know.
    ExecutingCommitted = "executing-committed",
    /// The executor knows that `executing` is durable; its bus was not asked to send.
    ExecutingKnown = "executing-known",
    /// A command is about to be handed to its bus.
    BeforeExchange = "before-exchange",
    /// The bus has everything to send a request; no byte of one is written.
    BeforeFirstByte = "before-first-byte",
    /// The first half of a request is written; the rest is not.
    RequestHalfWritten = "request-half-written",
    /// A request is written whole; nothing was read.
    RequestWritten = "request-written",
    /// What a write is made of was read; nothing of the write is sent.
    FirstRead = "first-read",
    /// One of several writes in a row is done; the next one was not asked for.
    BetweenSteps = "between-steps",
    /// An exchange has ended on the line; its caller does not know.
    ExchangeEnded = "exchange-ended",
    /// The end of an attempt is known; what follows from it was not decided.
    AttemptEnded = "attempt-ended",
    /// An attempt is to be repeated; the bus was given back meanwhile.
    BetweenAttempts = "between-attempts",
    /// What was written is to be read back; that was not asked for.
    BeforeReadBack = "before-read-back",
    /// The end of a read-back is known; what follows from it was not decided.
    ReadBackEnded = "read-back-ended",
    /// An interrupted command was not found by reading back, or could not be read; it is tried again after a pause.
    BeforeReadBackAgain = "before-read-back-again",
    /// A command has its outcome; the ledger does not.
    BeforeOutcome = "before-outcome",
    /// The outcome's row is written; its event is not, and nothing is committed.
    OutcomeWithoutEvent = "outcome-without-event",
    /// Outcome and event are written; they are not committed.
    OutcomeUncommitted = "outcome-uncommitted",
    /// Outcome and event are committed; the executor does not know.
    OutcomeCommitted = "outcome-committed",
    /// The executor knows that the outcome is durable; nothing is settled.
    OutcomeKnown = "outcome-known",
    /// A settlement is on its way to the link; the link has not taken it.
    SettlementQueued = "settlement-queued",
    /// The link has taken settlements; no PUBACK is made of them.
    SettlementTaken = "settlement-taken",
    /// PUBACKs stand in the connection's buffer; they are not written.
    PubackQueued = "puback-queued",
    /// PUBACKs are written; nothing further was done.
    PubackWritten = "puback-written",
    /// An event is read from the ledger; it is not published.
    EventRead = "event-read",
    /// An event is published; that is not noted.
    EventPublished = "event-published",
    /// The hub has acknowledged an event; its removal was not asked for.
    EventAcknowledged = "event-acknowledged",
    /// The removal of an event was asked for; it waits for a commit.
    EventRemovalAsked = "event-removal-asked",
    /// An event is removed; that is not committed.
    EventRemovalUncommitted = "event-removal-uncommitted",
    /// The removal of an event is committed; nothing follows from it.
    EventRemovalCommitted = "event-removal-committed",
    /// A batch of telemetry is published; that is not noted.
    TelemetryPublished = "telemetry-published",
    /// The hub has acknowledged a batch of telemetry; its store does not know.
    TelemetryAcknowledged = "telemetry-acknowledged",
    /// Batches are written into the store of telemetry, and taken out; that is not committed.
    TelemetryUncommitted = "telemetry-uncommitted",
    /// What was written into the store of telemetry and taken out is committed; nothing follows from it.
    TelemetryCommitted = "telemetry-committed",
    /// A new configuration was read; nothing of it is taken up.
    ConfigurationRead = "configuration-read",
    /// A new configuration is in force; who asked for it was not told.
    ConfigurationTakenUp = "configuration-taken-up",
    /// A stop was asked for; nobody was told.
    StopAsked = "stop-asked",
    /// The executors have ended; the links have been told to, and have not ended.
    ExecutorsEnded = "executors-ended",
    /// A link has said goodbye to the hub; its connection is not closed.
    GoodbyeSaid = "goodbye-said",
    /// The links have ended; the buses have not been told to.
    LinksEnded = "links-ended",
    /// The buses have ended; the ledger does not say that all went well.
    BusesEnded = "buses-ended",
    /// The ledger is to say that all went well; that is not committed.
    EndedWellUncommitted = "ended-well-uncommitted",
    /// The ledger says that all went well; its log is not emptied.
    EndedWellCommitted = "ended-well-committed",
    /// The log is emptied for the last time; the ledger is not closed.
    LogEmptied = "log-emptied",
    /// The ledger is closed; the process has not ended.
    LedgerClosed = "ledger-closed",
}

#[cfg(not(feature = "proof"))]
mod points {
    use super::{Part, Point};

    /// Nothing.
    #[inline(always)]
    pub fn point(_: Point) {}

    /// Nothing.
    #[inline(always)]
    pub async fn stick(_: Part) {}

    /// Nothing.
    #[inline(always)]
    pub fn stick_thread(_: Part) {}

    /// Nothing.
    #[inline(always)]
    pub fn in_transaction(_: Point, _: Point) {}

    /// Nothing.
    #[inline(always)]
    pub fn committed() {}

    /// Nothing.
    #[inline(always)]
    pub fn rolled_back() {}

    /// All of it.
    #[inline(always)]
    pub fn piece(bytes: &[u8]) -> &[u8] {
        bytes
    }
}

#[cfg(feature = "proof")]
mod points {
    use std::cell::RefCell;
    use std::io::Write as _;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::OnceLock;

    use rustix::process::{getpid, kill_process, Signal};

    use super::{Part, Point};

    /// Names the part that is to stick.
    const STICKS: &str = "FIELDBRIDGE_STICK_AT";

    /// Names the point, and how often it is to be reached.
    const VARIABLE: &str = "FIELDBRIDGE_CRASH_AT";

    struct Trap {
        point: Point,
        /// How often the point is still to be reached.
        left: AtomicU32,
    }

    thread_local! {
        /// What is reached as soon as this thread's transaction is committed.
        static AFTER_COMMIT: RefCell<Vec<Point>> = const { RefCell::new(Vec::new()) };
    }

    fn trap() -> Option<&'static Trap> {
        static TRAP: OnceLock<Option<Trap>> = OnceLock::new();
        let read = || {
            let text = std::env::var(VARIABLE).ok()?;
            let (name, times) = text.split_once(':').unwrap_or((&text, "1"));
            let point = Point::ALL.iter().find(|point| point.name() == name);
            let point = *point.unwrap_or_else(|| panic!("{VARIABLE}: no point is called {name:?}"));
            let times = times.parse().unwrap_or_else(|_| panic!("{VARIABLE}: {times:?} is not a number of times"));
            Some(Trap { point, left: AtomicU32::new(times) })
        };
        TRAP.get_or_init(read).as_ref()
    }

    /// Ends the process here if it is told to.
    pub fn point(here: Point) {
        let Some(trap) = trap().filter(|trap| trap.point == here) else { return };
        if trap.left.fetch_sub(1, Ordering::Relaxed) != 1 {
            return;
        }
        // One write, so that no line of the log comes between.
        let _ = std::io::stderr().write_all(format!("crash point {} is struck\n", here.name()).as_bytes());
        // The system ends every thread of a process that kills itself before this call returns.
        let killed = kill_process(getpid(), Signal::KILL);
        unreachable!("a process outlives its SIGKILL: {killed:?}");
    }

    fn sticks(part: Part) -> bool {
        static STUCK: OnceLock<Option<String>> = OnceLock::new();
        let name = STUCK.get_or_init(|| std::env::var(STICKS).ok());
        name.as_ref().is_some_and(|name| *name == format!("{part:?}").to_lowercase())
    }

    /// Waits here for ever if it is told to.
    pub async fn stick(part: Part) {
        if sticks(part) {
            std::future::pending().await
        }
    }

    /// The same with this thread.
    pub fn stick_thread(part: Part) {
        while sticks(part) {
            std::thread::park();
        }
    }

    /// Ends the process here, or once this thread's transaction is committed, if it is told to.
    pub fn in_transaction(uncommitted: Point, committed: Point) {
        point(uncommitted);
        AFTER_COMMIT.with_borrow_mut(|waiting| waiting.push(committed));
    }

    /// This thread's transaction is committed.
    pub fn committed() {
        AFTER_COMMIT.take().into_iter().for_each(point);
    }

    /// This thread's transaction came to nothing.
    pub fn rolled_back() {
        AFTER_COMMIT.take();
    }

    /// The first half of a request's bytes if its writing is to be struck in the middle, else all of them.
    pub fn piece(bytes: &[u8]) -> &[u8] {
        match trap() {
            Some(trap) if trap.point == Point::RequestHalfWritten => &bytes[..bytes.len().div_ceil(2)],
            _ => bytes,
        }
    }
}

pub use points::{committed, in_transaction, piece, point, rolled_back, stick, stick_thread};
