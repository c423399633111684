//! What the peripherals have done and said, and to what: the one witness of G12. It is kept by value, for every message
//! has one of its own.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::alarms::{Alarm, Answers};
use super::fates::Meaning;
use super::ledger::Row;
use super::request::Request;
use super::scenario::{Asks, Message};
use super::sequences::{Sequence, Written};

/// Something that a peripheral has done.
#[derive(Debug, Clone)]
pub struct Effect {
    /// The command's value.
    pub value: u16,
    /// The register, where it is one of several.
    pub address: Option<u16>,
    /// The life of the process that had it done.
    pub life: u64,
    /// When.
    pub at: Instant,
}

/// What was last to be heard of a write that is read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Last {
    /// Nothing, or the line failed since.
    #[default]
    Nothing,
    /// It was written.
    Written,
    /// Somebody asked what stands there.
    Asked,
    /// Somebody was told that it stands there, in time, and has read that.
    Shown,
}

/// What was said to one command.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// The first byte of a request for it was written, in which life of the process, and when.
    pub asked: Vec<(u64, Instant)>,
    /// It was asked when nobody could know yet what the instrument says by itself.
    pub overheard: bool,
    /// That it was done.
    pub confirmed: bool,
    /// That it is not done, or that this is not known.
    pub refused: bool,
    /// A read-back showed its value.
    pub shown: bool,
    /// See there.
    pub last: Last,
    /// Readings that it was given, as they were written.
    pub readings: Vec<String>,
}

/// What an instrument reports by itself, which commands' patterns take for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reports {
    /// What would confirm a command.
    Weights,
    /// What would refuse one.
    States,
}

/// A register of a unit on a line.
pub type Place = (String, u8, u16);

/// Everything.
#[derive(Debug, Default)]
pub struct Record {
    /// What was done, in order.
    pub effects: Vec<Effect>,
    /// By value.
    pub told: BTreeMap<u16, Told>,
    /// What a register was said to hold, and when that was asked.
    pub readings: BTreeMap<Place, Vec<(Instant, u16)>>,
    /// Registers that were not shown.
    pub withheld: BTreeSet<Place>,
    /// Weights that were said, and when the first byte of the line arrived.
    pub weights: Vec<(Instant, String)>,
    /// What was last written to a register, done or not.
    pub written: BTreeMap<Place, u16>,
    /// What it reports is an event: so it is known for what it is from the beginning.
    pub reports_are_events: bool,
    /// What the instrument reports.
    pub reports: Option<Reports>,
    /// The requests of each unit of a line, in order. An instrument has none: 0.
    pub requests: BTreeMap<(String, u8), Vec<Heard>>,
    /// Their number so far.
    heard: usize,
    /// Somebody was answered under another's transaction.
    pub is_crossed: bool,
    /// Something that is no answer came where others were waited for, and may have been heard as one of theirs.
    pub is_disturbed: bool,
    /// What the instrument has said that is an event.
    pub alarms: Vec<Alarm>,
    /// What it has said as an answer.
    pub answers: Answers,
}

/// A request that a peripheral has heard.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Its number among all.
    pub number: usize,
    /// In which life of the process, and when its last byte was written.
    pub life: u64,
    pub written: Instant,
    /// When the connection was made, or the line opened, that it came on.
    pub opened: Instant,
    /// The configuration that was in force is the so-manieth. `None`: on a line that was open when it was taken up, it
    /// may be the one before.
    pub under: Option<usize>,
    /// What it writes, and the register that it names.
    pub asks: Option<Asks>,
    pub value: u16,
    pub address: u16,
    pub sequence: Option<Written>,
    /// It was done.
    pub is_done: bool,
    /// Nobody says anything to it.
    pub is_mute: bool,
    /// An answer went out in time.
    is_answered: bool,
    /// It counts among those in a row that were answered or not.
    counts: bool,
    /// When the first answer of whatever kind went out.
    pub said_at: Option<Instant>,
    /// When it was confirmed.
    pub confirmed_at: Option<Instant>,
    /// It was refused.
    pub is_refused: bool,
    /// What it was told that stands there.
    pub told: Option<u16>,
}

impl Heard {
    /// Whether an answer to it went out in time.
    pub fn is_in_time(&self) -> bool {
        self.is_answered
    }

    /// A request that a unit hears, on a line that was opened then.
    pub fn new(request: &Request, (life, opened): (u64, Instant), under: Option<usize>) -> Heard {
        Heard {
            number: 0,
            life,
            written: request.written,
            opened,
            under,
            asks: request.asks,
            value: request.value,
            address: request.address(),
            sequence: request.sequence,
            is_done: false,
            is_mute: false,
            is_answered: false,
            counts: true,
            said_at: None,
            confirmed_at: None,
            is_refused: false,
            told: None,
        }
    }
}

impl Record {
    /// What was said to a command, to be added to.
    pub fn of(&mut self, value: u16) -> &mut Told {
        self.told.entry(value).or_default()
    }

    /// A request for a command was written.
    pub fn asked(&mut self, value: u16, life: u64, at: Instant) {
        let asked = &mut self.of(value).asked;
        if asked.iter().all(|(earlier, _)| *earlier != life) {
            asked.push((life, at));
        }
    }

    /// A peripheral has heard a request.
    pub fn heard(&mut self, line: &str, unit: u8, heard: Heard) {
        self.heard += 1;
        let heard = Heard { number: self.heard, ..heard };
        self.requests.entry((line.to_owned(), unit)).or_default().push(heard);
    }

    /// What a peripheral has heard that was written then: the last, if the same instant has seen a line fail and the
    /// next request on the one that was opened for it.
    pub fn heard_at(&mut self, line: &str, unit: u8, written: Instant) -> impl Iterator<Item = &mut Heard> {
        let heard = self.requests.get_mut(&(line.to_owned(), unit)).into_iter().flatten().rev();
        heard.filter(move |heard| heard.written == written).take(1)
    }

    /// Whether a request that a unit hears is the last of a command's that ends with the write that it began with.
    pub fn ends_as_it_began(&self, line: &str, unit: u8, request: &Request) -> bool {
        let last = self.requests.get(&(line.to_owned(), unit)).and_then(|heard| heard.last());
        let is_behind = |last: &Heard, written: Written| {
            let is_of_it =
                last.sequence.is_some_and(|one| one.sequence == written.sequence && one.part != written.part);
            is_of_it && last.value == written.number && last.confirmed_at.is_some()
        };
        let written = request.sequence.filter(|written| written.sequence == Sequence::Steps);
        let written = written.filter(|written| written.part == written.sequence.parts()[0]);
        written.zip(last).is_some_and(|(written, last)| is_behind(last, written))
    }

    /// A peripheral has answered a request: in time, or late.
    pub fn answered(&mut self, line: &str, unit: u8, written: Instant, in_time: bool, meaning: &Meaning) {
        for heard in self.heard_at(line, unit, written) {
            heard.is_answered |= in_time;
            let now = Instant::now();
            heard.said_at.get_or_insert(now);
            match meaning {
                Meaning::Yes => drop(heard.confirmed_at.get_or_insert(now)),
                Meaning::No => heard.is_refused = true,
                Meaning::Stands(told) => heard.told = Some(*told),
                _ => {}
            }
        }
    }

    /// The longest that a peripheral was silent in one life: requests in a row without an answer in time.
    pub fn silence(&self, line: &str, unit: u8) -> usize {
        let (mut longest, mut row, mut of) = (0, 0, 0);
        let all = self.requests.get(&(line.to_owned(), unit)).into_iter().flatten();
        for heard in all.filter(|heard| heard.counts) {
            row = if heard.is_answered || heard.life != of { usize::from(!heard.is_answered) } else { row + 1 };
            of = heard.life;
            longest = longest.max(row);
        }
        longest
    }

    /// Whether nobody could know better than that a command has ended so: a report that would end it so may have come
    /// when it was asked, and the instrument had not been heard to report long enough.
    pub fn excuses(&self, message: &Message, row: &Row) -> bool {
        let is_overheard = self.told.get(&message.value).is_some_and(|told| told.overheard);
        let is_taken_for_a_reply = match (self.reports, row.state.as_str()) {
            (Some(Reports::Weights), "succeeded") => true,
            (Some(Reports::States), "failed") => row.error.as_deref() == Some("refused"),
            _ => false,
        };
        let is_known = self.reports_are_events;
        !is_known && is_overheard && is_taken_for_a_reply && matches!(message.asks, Asks::Set | Asks::Pulse)
    }

    /// The line has failed: who wanted to look may not have been able to.
    pub fn line_failed(&mut self, line: &str) {
        let Record { told, written, requests, .. } = self;
        // What was said last may not have come through.
        for (_, heard) in requests.iter_mut().filter(|((on, _), _)| on == line) {
            // Nobody has waited for its answer to the end.
            heard.last_mut().into_iter().for_each(|last| last.is_mute = false);
            let last = heard.iter_mut().rfind(|heard| heard.counts);
            last.filter(|last| last.is_answered).into_iter().for_each(|last| last.counts = false);
        }
        for (_, value) in written.iter().filter(|((on, ..), _)| on == line) {
            if let Some(told) = told.get_mut(value).filter(|told| told.last != Last::Shown) {
                told.last = Last::Nothing;
            }
        }
    }
}
