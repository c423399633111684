//! The manners of the field: what peripherals, senders, operators and hands in the cabinet do without anything being
//! broken. Each has dice of its own, so that schedules differ in which of them they meet.

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
    /// The gateway begins again with a ledger from a backup.
    RestoredLedger,
    /// An instrument answers in several lines, of which the last says that it is.
    SeveralLines,
    /// What was written shows in another register, nearly, and after a while.
    ShowsElsewhere,
    /// MQTT and AMQP go through WebSockets.
    WebSockets,
    /// A proxy stands between the gateway and the hub.
    Proxy,
    /// A device is taken out of the configuration while its messages wait, which are given back to the hub.
    TakenAway,
    /// What an AMQP link has brought and was not settled stays locked when the link ends.
    LocksOutlive,
    /// Another configuration waits longer or shorter for peripherals, from one life to the next, or while it runs.
    OtherPatience,
    /// By MQTT the hub pauses before its first message, and between them.
    Throttles,
    /// The hub forgets sessions of MQTT's.
    LostSessions,
    /// The serial line speaks Modbus ASCII.
    Ascii,
    /// The instrument speaks in frames, of text or of bytes.
    Frames,
    /// Modbus peripherals bend the protocol.
    Quirks,
    /// A peripheral is away for a while, and comes back.
    Leaves,
    /// Messages ask for several things in a row.
    Sequences,
    /// Several requests are under way at once on the network's connection.
    SideBySide,
    /// What an instrument says by itself is an event of its device.
    Alarms,
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

/// Those that came later: they are drawn with other dice, so that the schedules of a seed without them stay as they
/// are.
const LATER: [(Manner, u64); 10] = [
    (RestoredLedger, 130),
    (SeveralLines, 200),
    (ShowsElsewhere, 250),
    (WebSockets, 150),
    (Proxy, 120),
    (TakenAway, 150),
    (LocksOutlive, 400),
    (OtherPatience, 300),
    (Throttles, 300),
    (LostSessions, 200),
];

/// And those that came later still, with dice of theirs.
const NEWEST: [(Manner, u64); 3] = [(Ascii, 250), (Frames, 300), (Quirks, 250)];

/// And those after these, likewise.
const LAST: [(Manner, u64); 1] = [(Leaves, 350)];

/// And those after these.
const SINCE: [(Manner, u64); 3] = [(Sequences, 350), (SideBySide, 200), (Alarms, 250)];

/// What must have happened in a run.
pub const STRIKES: [&str; 87] = [
    "instrument: says more behind its answer",
    "instrument: reports by itself",
    "instrument: repeats the command",
    "instrument: bytes at the line's speed",
    "instrument: says what it is doing first",
    "instrument: half a line",
    "instrument: a reading that only looks like a number",
    "sender: a value with a command in it",
    "slave: answers as late as it can",
    "line: an adapter that hears itself",
    "slave: shows a written value after a while",
    "sender: hardly any time",
    "instrument: hardly any time behind a pause",
    "reloads: a line gets a bus of another name",
    "reloads: another hub",
    "ledger: replaced by none",
    "ledger: a backup is taken",
    "ledger: replaced by a backup",
    "ledger: a backup's place is taken by the next life",
    "judged: a command that a backup had as accepted",
    "instrument: an answer of several lines",
    "instrument: the last line of an answer never comes",
    "slave: shows a value in another place",
    "slave: shows a value nearly",
    "websocket: opened",
    "websocket: refused",
    "websocket: a ping",
    "websocket: a message in two frames",
    "websocket: cut within a frame",
    "proxy: asked",
    "proxy: asks who that is",
    "proxy: has no way",
    "proxy: a page",
    "proxy: says nothing",
    "proxy: goes before it answers",
    "proxy: dies",
    "reloads: a device is taken away while its messages wait",
    "amqp: a message is given back",
    "amqp: detaches the link behind a message",
    "amqp: a lock outlives its link",
    "amqp: a message past one that is locked",
    "crash: while an answer is owed",
    "slave: answers at the end of its window",
    "reloads: less patience, while an answer is owed",
    "lives: less patience, while an answer is owed",
    "hub: a pause before the first message",
    "hub: a pause between messages",
    "hub: a pause that looks like an empty queue",
    "hub: a session is lost",
    "line: Modbus ASCII",
    "instrument: a sum at the end of a line",
    "instrument: frames",
    "instrument: frames with an escape",
    "instrument: frames with an escape, of bytes",
    "instrument: frames that say how long they are",
    "instrument: a frame with a wrong bit",
    "judged: what was said in a frame",
    "slave: another transaction id",
    "slave: another unit id",
    "slave: a wrong length",
    "slave: a write is answered by other content",
    "slave: bends what nobody has named",
    "slave: is away for a while",
    "ended: unreachable",
    "judged: who is called away was silent",
    "instrument: an alarm",
    "instrument: an alarm before its answer",
    "instrument: an alarm behind its answer",
    "instrument: a burst of alarms",
    "judged: an event of an instrument's",
    "judged: events that were dropped, and that was said",
    "judged: no alarm is lost that can be no answer",
    "judged: an event behind the results",
    "judged: a write that is made of a reading",
    "judged: a step behind another",
    "judged: what succeeded in a row",
    "judged: in doubt, and done in part",
    "judged: requests side by side",
    "judged: an answer overtakes another",
    "slave: a scale that is none",
    "slave: answers late in a row",
    "slave: mute at the last step",
    "instrument: answers late what is an event",
    "instrument: an alarm as it hears a command",
    "slave: answers under another's transaction",
    "slave: says an answer again, behind others",
    "judged: who is away is tried again",
];

/// Those of one schedule.
#[derive(Debug, Clone, Default)]
pub struct Manners(Vec<Manner>);

impl Manners {
    /// By the dice.
    pub fn of(world: &World) -> Manners {
        let mut dice = world.dice("manners");
        let chosen = ALL.into_iter().filter(|(_, permille)| world.chance(*permille));
        let later = LATER.into_iter().filter(|(_, permille)| dice.u64(..1000) < *permille);
        let mut dice = world.dice("protocols");
        let newest = NEWEST.into_iter().filter(|(_, permille)| dice.u64(..1000) < *permille);
        let mut dice = world.dice("absent manners");
        let last = LAST.into_iter().filter(|(_, permille)| dice.u64(..1000) < *permille);
        let mut dice = world.dice("manners in a row");
        let since = SINCE.into_iter().filter(|(_, permille)| dice.u64(..1000) < *permille);
        Manners(chosen.chain(later).chain(newest).chain(last).chain(since).map(|(manner, _)| manner).collect())
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
