//! The manners of the field: what peripherals, senders, operators and hands in the cabinet do without anything being
//! broken. Each has dice of its own, so that schedules differ in which of them they meet.

use std::sync::OnceLock;

use super::world::World;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// An instrument says something more behind its answer.
    Tails,
    /// An instrument reports by itself.
    Streams,
    /// An instrument repeats each command before it answers.
    Repeats,
    /// An instrument's bytes come one by one, at the line's speed.
    Trickles,
    /// An instrument says what it is doing before it answers.
    Prefaces,
    /// Half lines come while nobody has asked.
    Fragments,
    /// Readings that look like numbers and are none.
    OddReadings,
    /// Values that carry a second command.
    Smuggling,
    /// Answers come as late as they can, whatever became of the asker meanwhile.
    LateAnswers,
    /// An RTU adapter hears itself.
    LineEchoes,
    /// A peripheral shows a written value after a while.
    SlowValues,
    /// Deadlines that are shorter than what there is to wait for.
    TightDeadlines,
    /// Likewise on the instrument's line.
    Pauses,
    /// A reload gives a line to a bus of another name.
    Moves,
    /// The gateway is at another hub for a while, whose messages have the same ids.
    OtherHub,
    /// The gateway begins again with an empty ledger, for its card is a new one.
    LostLedger,
}

use Manner::*;

/// All of them, with the chance in a thousand that a schedule has one.
const ALL: [(Manner, u64); 16] = [
    (Tails, 250),
    (Streams, 150),
    (Repeats, 150),
    (Trickles, 150),
    (Prefaces, 150),
    (Fragments, 150),
    (OddReadings, 200),
    (Smuggling, 150),
    (LateAnswers, 250),
    (LineEchoes, 120),
    (SlowValues, 200),
    (TightDeadlines, 300),
    (Pauses, 300),
    (Moves, 250),
    (OtherHub, 150),
    (LostLedger, 150),
];

/// Those that the gateway can't stand yet. `FIELDBRIDGE_MANNERS=all` has them too, or
/// `FIELDBRIDGE_MANNERS=Tails,Streams`
/// some of them.
const AWAITED: &[Manner] = &[
    // A splitter of lines that listens while nothing is asked.
    Tails,
    Streams,
    Fragments,
    // Captured numbers that are numbers.
    OddReadings,
    // Text values only where a `pattern` allows them.
    Smuggling,
    // A last look at the deadline behind an instrument's turnaround.
    Pauses,
    // Schedules of these that were called violations are not understood yet: of 1,500 some end G12 or G13.
    LateAnswers,
    LineEchoes,
    SlowValues,
    TightDeadlines,
];

/// What must have happened in a run, where a manner is on.
pub const STRIKES: [(Manner, &str); 16] = [
    (Tails, "instrument: says more behind its answer"),
    (Streams, "instrument: reports by itself"),
    (Repeats, "instrument: repeats the command"),
    (Trickles, "instrument: bytes at the line's speed"),
    (Prefaces, "instrument: says what it is doing first"),
    (Fragments, "instrument: half a line"),
    (OddReadings, "instrument: a reading that only looks like a number"),
    (Smuggling, "sender: a value with a command in it"),
    (LateAnswers, "slave: answers as late as it can"),
    (LineEchoes, "line: an adapter that hears itself"),
    (SlowValues, "slave: shows a written value after a while"),
    (TightDeadlines, "sender: hardly any time"),
    (Pauses, "instrument: hardly any time behind a pause"),
    (Moves, "reloads: a line gets a bus of another name"),
    (OtherHub, "reloads: another hub"),
    (LostLedger, "ledger: replaced by none"),
];

/// Whether schedules may have it.
pub fn is_on(manner: Manner) -> bool {
    static WANTED: OnceLock<String> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| std::env::var("FIELDBRIDGE_MANNERS").unwrap_or_default());
    let is_wanted = || wanted == "all" || wanted.split(',').any(|name| name == format!("{manner:?}"));
    !AWAITED.contains(&manner) || is_wanted()
}

/// Those of one schedule.
#[derive(Debug, Clone, Default)]
pub struct Manners(Vec<Manner>);

impl Manners {
    /// By the dice.
    pub fn of(world: &World) -> Manners {
        let chosen = ALL.into_iter().filter(|(_, permille)| world.chance(*permille));
        Manners(chosen.map(|(manner, _)| manner).filter(|manner| is_on(*manner)).collect())
    }

    /// Whether it is among them.
    pub fn have(&self, manner: Manner) -> bool {
        self.0.contains(&manner)
    }

    /// Whether there are none.
    pub fn are_none(&self) -> bool {
        self.0.is_empty()
    }
}
