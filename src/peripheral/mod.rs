//! What a device's commands mean on its bus: from an engineering value to a [`Request`], and from an
//! [`Answer`] back to an engineering value. Pure: no I/O, no clock.
//!
//! Invariants
//! - A request that leaves [`Command::prepare`] is complete and within the protocol's limits: nothing after it can
//!   find it malformed.
//! - A text value reaches a line only as the profile allows it: a value can't smuggle in a second command.

#[cfg(any(test, feature = "proof"))]
pub mod any_bytes;
mod bcd;
pub mod checksum;
mod events;
pub mod exception;
pub mod exchange;
mod first;
pub mod frame;
mod meaning;
mod names;
mod placeholder;
pub mod poll;
pub mod quirks;
pub mod read_back;
pub mod registers;
mod spelled;
mod text;
mod value;
mod wording;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

use crate::command::outcome::{Code, Fault};
pub use events::Events;
use exchange::{Answer, Request};
use first::First;
use frame::Frame;
pub use meaning::Meaning;
pub use names::Names;
pub use poll::{Poll, Reading, Report};
pub use read_back::{Found, Rule};
use registers::{DataType, Point, Raw, Table, Unfit, WORDS_WRITTEN_AND_READ_MAX};
pub use text::{Pattern, Template, PLACEHOLDER};
pub use wording::{Picture, Wording};

/// One configured command of a profile: the allow-list entry that a message's command name selects.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Its name in the configuration.
    pub name: String,
    /// What it does on the bus.
    pub action: Action,
    /// Whether repeating it is safe. Reads always are.
    pub idempotent: bool,
    /// How a write is read back and compared, if it is.
    pub read_back: Option<Rule>,
    /// A fixed value; the message then carries none.
    pub fixed: Option<Json>,
    /// Names for its values, which are then all that is written.
    pub names: Option<Names>,
    /// The bits of a register value that says that there is none.
    pub unavailable: Option<u64>,
    /// Numbers and truth are taken from text, too.
    pub numbers_as_text: bool,
    /// The function that writes.
    pub function: Function,
    /// Inclusive limits of the engineering value.
    pub range: Option<(f64, f64)>,
    /// What is sent stands in such a frame: its bus's.
    pub frame: Option<Arc<Frame>>,
    /// What ends a line on its bus, where that could be typed.
    pub delimiter: Option<Arc<str>>,
    /// Replaces the device's and the bus's `response_timeout`.
    pub timeout: Option<Duration>,
    /// The command must have reached the wire this long after its receipt.
    pub deadline: Duration,
    /// It is begun this long after the one before has ended, or later.
    pub min_interval: Duration,
    /// Of those that wait, only the newest is done.
    pub latest_wins: bool,
    /// The desired property of the device's twin whose values it sets.
    pub desired: Option<String>,
}

/// By which Modbus function a command writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// One coil or register by 5 or 6, several by 15 or 16.
    Usual,
    /// By 15 or 16, even if it is one.
    Multiple,
    /// One bit of a register by 22.
    Mask,
    /// Registers by 23, of which the answer is the first look at what was written: where [`Command::read_back`] says.
    WithReadBack,
}

/// What a command does on the bus.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Reads a point.
    Read(Point),
    /// Writes a point.
    Write(Point),
    /// Sends a line and understands the reply.
    Send(Box<Template>),
    /// Several writes in a row, at most [`STEPS_MAX`], between which nothing else comes on the bus.
    Steps(Vec<Command>),
}

/// Most writes of one command: it has its bus for as long as all of them take.
pub const STEPS_MAX: usize = 16;

impl Action {
    /// Sends a line and understands the reply.
    pub fn send(template: Template) -> Action {
        Action::Send(Box::new(template))
    }
}

/// A command with its value, ready for the wire.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// What is sent; or what is read first to make that of it.
    pub request: Request,
    /// For a write that is read back: the read whose answer must fit what was written.
    pub read_back: Option<Request>,
    /// For a write or a send with a value: the engineering value as it was really encoded. Until its scale is read, as
    /// it was asked for.
    pub written: Option<Json>,
    /// What the request reads first, if it is not the request proper.
    first: Option<First>,
    /// The power of ten that was read first.
    exponent: i8,
}

impl Command {
    /// How long after its receipt a command must have reached the wire, where nothing else is said.
    pub const DEADLINE: Duration = Duration::from_secs(30);

    /// A command of which nothing is said but what it does.
    pub fn new(name: impl Into<String>, action: Action) -> Command {
        Command {
            name: name.into(),
            action,
            idempotent: false,
            read_back: None,
            fixed: None,
            names: None,
            unavailable: None,
            function: Function::Usual,
            numbers_as_text: false,
            range: None,
            frame: None,
            delimiter: None,
            timeout: None,
            deadline: Command::DEADLINE,
            min_interval: Duration::ZERO,
            latest_wins: false,
            desired: None,
        }
    }

    /// Turns the message's value into a request. `null` counts as no value. A command of several steps has none for
    /// all of them: see [`Command::parts`].
    ///
    /// # Errors
    /// The faults are [`Code::BadValue`] and [`Code::OutOfRange`]; their messages say what would have been right.
    pub fn prepare(&self, value: Option<&Json>) -> Result<Prepared, Fault> {
        let meant = value.filter(|value| !value.is_null()).map(|value| self.meant(value));
        let value = meant.as_deref();
        match &self.action {
            Action::Read(point) => {
                self.takes_none(value)?;
                checked(point, false)?;
                Ok(match point.scale_register {
                    Some(place) => Prepared { first: Some(First::Scale(None)), ..self.alone(place.read()) },
                    None => self.alone(point.read()),
                })
            }
            Action::Write(point) => {
                checked(point, true)?;
                self.check_exchange(point)?;
                self.prepare_write(point, &self.resolved(self.needs_one(value)?)?)
            }
            Action::Send(template) => self.fill(template, value),
            Action::Steps(_) => Err(Fault::new(
                Code::BadValue,
                format!("{} has several steps, each with a value of its own", self.name),
            )),
        }
    }

    /// Turns the message's value into what is asked in a row.
    ///
    /// # Errors
    /// As those of [`Command::prepare`].
    pub fn parts<'a>(&'a self, value: Option<&Json>) -> Result<Vec<(&'a Command, Prepared)>, Fault> {
        let value = value.filter(|value| !value.is_null());
        let steps = self.each();
        if steps.iter().all(|step| step.fixed.is_some()) && matches!(self.action, Action::Steps(_)) {
            self.takes_none(value)?;
        }
        let part = |step: &'a Command| {
            // The message's value is for the one that has none of its own.
            let own = value.filter(|_| steps.len() == 1 || step.fixed.is_none());
            Ok((step, step.prepare(own)?))
        };
        steps.iter().map(part).collect()
    }

    /// What it does one after the other: itself, unless it has steps.
    pub fn each(&self) -> &[Command] {
        match &self.action {
            Action::Steps(steps) => steps,
            Action::Read(_) | Action::Write(_) | Action::Send(_) => std::slice::from_ref(self),
        }
    }

    /// Whether numbers and truth are taken from text, in each of its steps, too.
    #[must_use]
    pub fn taking_numbers_as_text(self, numbers_as_text: bool) -> Command {
        let action = match self.action {
            Action::Steps(steps) => {
                Action::Steps(steps.into_iter().map(|step| step.taking_numbers_as_text(numbers_as_text)).collect())
            }
            action => action,
        };
        Command { numbers_as_text, action, ..self }
    }

    fn prepare_write(&self, point: &Point, value: &Json) -> Result<Prepared, Fault> {
        if let Some(place) = point.scale_register {
            // Whether it fits is known when its scale is; whether it may be written is known now.
            for value in elements(point, value)? {
                value::is_allowed(value, self.range)?;
            }
            let (first, written) = (Some(First::Scale(Some(value.clone()))), Some(self.named(value.clone())));
            return Ok(Prepared { first, written, ..self.alone(place.read()) });
        }
        let (request, written) = self.encode(point, value)?;
        let written = Some(self.named(written));
        if self.reads_first() {
            let first = Some(First::Word(matches!(request, Request::MaskWord { or: 1.., .. })));
            return Ok(Prepared { first, written, ..self.alone(point.read()) });
        }
        Ok(Prepared { written, ..self.alone(request) })
    }

    /// A request before which nothing is read, and which writes no value.
    fn alone(&self, request: Request) -> Prepared {
        let read_back = self.read_back.as_ref().map(|rule| rule.point.read());
        Prepared { request, read_back, written: None, first: None, exponent: 0 }
    }

    /// Whether what a name of `values` stands for can be sent, or stand at the command's point.
    ///
    /// # Errors
    /// The end of a sentence that begins with the name.
    pub fn check_name(&self, name: &str) -> Result<(), String> {
        let is_never = if matches!(self.action, Action::Read(_)) { "is never read" } else { "can't be carried out" };
        let told = |fault: Fault| format!("{is_never}: {}", fault.message);
        let (Action::Read(point) | Action::Write(point)) = &self.action else {
            return self.prepare(Some(&name.into())).map(drop).map_err(told);
        };
        let meant = self.resolved(&name.into()).map_err(told)?;
        if point.scale_register.is_some() {
            return value::is_allowed(&meant, self.range).map_err(told);
        }
        let (_, held) = self.encode_one(point, &meant).map_err(told)?;
        if held.is_boolean() || value::same(&meant, &held) {
            return Ok(());
        }
        let [meant, held] = [&meant, &held].map(value::show);
        Err(format!("stands for {meant}, and the nearest that the point's type and scale hold is {held}"))
    }

    /// The engineering value in an answer: what a read found, what a write wrote, what a reply said.
    ///
    /// # Errors
    /// A sentence about an answer that isn't one to this command.
    pub fn interpret(&self, prepared: &Prepared, answer: &Answer) -> Result<Option<Json>, String> {
        let is_confirmed = match (&self.action, answer, &prepared.request) {
            (Action::Write(_), Answer::Written, _) => true,
            (Action::Write(_), Answer::Words(words), Request::WriteAndReadWords { count, .. }) => {
                words.len() == usize::from(*count)
            }
            _ => false,
        };
        if is_confirmed {
            return Ok(prepared.written.clone());
        }
        Ok(Some(self.named(self.decode(prepared, answer)?)))
    }

    fn decode(&self, prepared: &Prepared, answer: &Answer) -> Result<Json, String> {
        match (&self.action, answer) {
            (Action::Send(template), Answer::Line(text)) => meaning::meaning(text, template.result),
            (Action::Send(_), Answer::Value(value)) => Ok(value.clone()),
            (Action::Read(point), answer) => self.decoded(&point.by_power(prepared.exponent), answer),
            _ => Err(self.of_another_kind()),
        }
    }

    /// The engineering value of a point in the answer to its read.
    fn decoded(&self, point: &Point, answer: &Answer) -> Result<Json, String> {
        match answer {
            Answer::Bits(bits) if point.is_bits() => {
                expect_length(bits.len(), point.span())?;
                let values = bits.iter().map(|&on| Json::Bool(on)).collect();
                Ok(one_or_all(point, values))
            }
            Answer::Words(words) if !point.is_bits() => {
                expect_length(words.len(), point.span())?;
                if point.kind == DataType::String {
                    return Ok(point.unpack_text(words).into());
                }
                let raw = point.unpack(words, self.unavailable_at(point))?;
                let value = |raw: Option<Raw>| raw.map_or(Json::Null, |raw| value::decode(point, raw));
                Ok(one_or_all(point, raw.into_iter().map(value).collect()))
            }
            _ => Err(self.of_another_kind()),
        }
    }

    fn of_another_kind(&self) -> String {
        format!("the answer is of another kind than {} asks for", self.name)
    }

    fn takes_none(&self, value: Option<&Json>) -> Result<(), Fault> {
        match value {
            None => Ok(()),
            Some(value) => {
                Err(Fault::new(Code::BadValue, format!("{} takes no value, got {}", self.name, value::show(value))))
            }
        }
    }

    /// The fixed value, or else the message's.
    fn needs_one<'a>(&'a self, value: Option<&'a Json>) -> Result<&'a Json, Fault> {
        match (&self.fixed, value) {
            (Some(fixed), None) => Ok(fixed),
            (Some(fixed), Some(value)) if value::same(fixed, value) => Ok(fixed),
            (Some(fixed), Some(value)) => Err(Fault::new(
                Code::BadValue,
                format!(
                    "{} always writes {}: the message carries no value, got {}",
                    self.name,
                    value::show(fixed),
                    value::show(value)
                ),
            )),
            (None, Some(value)) => Ok(value),
            (None, None) => {
                Err(Fault::new(Code::BadValue, format!("{} needs a value, and the message carries none", self.name)))
            }
        }
    }

    fn encode(&self, point: &Point, value: &Json) -> Result<(Request, Json), Fault> {
        let address = point.address;
        if point.kind == DataType::String {
            let words = text_in(point, value)?;
            let written = point.unpack_text(&words).into();
            return Ok((self.write_words(address, words), written));
        }
        let mut raws = Vec::new();
        let mut written = Vec::new();
        for value in elements(point, value)? {
            let (raw, value) = self.encode_one(point, value)?;
            raws.push(raw);
            written.push(value);
        }
        let is_on = |raw: &Raw| *raw == Raw::Bool(true);
        let request = if let Some(mask) = point.mask() {
            Request::MaskWord { address, and: !mask, or: if raws.iter().all(is_on) { mask } else { 0 } }
        } else if point.is_bits() {
            let (bits, multiple) = (raws.iter().map(is_on).collect(), self.function == Function::Multiple);
            Request::WriteBits { address, bits, multiple }
        } else {
            self.write_words(address, raws.into_iter().flat_map(|raw| point.pack(raw)).collect())
        };
        Ok((request, one_or_all(point, written)))
    }

    fn write_words(&self, address: u16, words: Vec<u16>) -> Request {
        match (self.function, &self.read_back) {
            (Function::WithReadBack, Some(Rule { point, .. })) => {
                let count = u16::try_from(point.span()).unwrap_or(u16::MAX);
                Request::WriteAndReadWords { address, words, read_address: point.address, count }
            }
            (function, _) => {
                let multiple = matches!(function, Function::Multiple | Function::WithReadBack);
                Request::WriteWords { address, words, multiple }
            }
        }
    }

    /// Reports a write that one request can't carry together with its read-back.
    fn check_exchange(&self, point: &Point) -> Result<(), Fault> {
        let (Function::WithReadBack, Some(rule)) = (self.function, &self.read_back) else { return Ok(()) };
        let most = usize::from(WORDS_WRITTEN_AND_READ_MAX);
        let why = match rule.point.check(false) {
            Err(why) => why,
            Ok(()) if point.span() > most => format!("one request that reads as well writes 1 to {most} of them"),
            Ok(()) if rule.point.table != Table::Holding => "what is read with a write is holding registers".into(),
            Ok(()) => return Ok(()),
        };
        Err(Fault::new(Code::BadValue, format!("the command's point can't be used: {why}")))
    }

    fn encode_one(&self, point: &Point, value: &Json) -> Result<(Raw, Json), Fault> {
        let (raw, written) = value::encode(point, value, self.range)?;
        let is_taken = |bits: &u64| !point.is_bits() && point.bit.is_none() && point.bits(&point.pack(raw)) == *bits;
        match self.unavailable_at(point).filter(is_taken) {
            None => Ok((raw, written)),
            Some(bits) => {
                let why =
                    format!("{} would stand there as {bits:#X}, which says that there is no value", value::show(value));
                Err(Fault::new(Code::OutOfRange, why))
            }
        }
    }

    /// What says at a point that there is no value: it is known for values as wide as the command's own.
    fn unavailable_at(&self, point: &Point) -> Option<u64> {
        let (Action::Read(own) | Action::Write(own)) = &self.action else { return None };
        self.unavailable.filter(|_| own.kind.words() == point.kind.words())
    }

    /// What a value stands for.
    fn resolved(&self, value: &Json) -> Result<Json, Fault> {
        match &self.names {
            Some(names) => names.resolve(value),
            None => Ok(value.clone()),
        }
    }

    /// A value by its name, where it has one.
    fn named(&self, value: Json) -> Json {
        match &self.names {
            Some(names) => names.name(value),
            None => value,
        }
    }

    fn fill(&self, template: &Template, value: Option<&Json>) -> Result<Prepared, Fault> {
        let (payload, written) = if template.send.takes_value() {
            let value = self.needs_one(value)?;
            let meant = self.resolved(value)?;
            value::within_text(&meant, self.range)?;
            let own = self.fixed.is_some() || self.names.is_some();
            let (payload, held) = template.filled((&self.name, self.delimiter.as_deref()), &meant, own)?;
            // Where bytes hold a number only nearly, what they hold may have left the range.
            held.as_ref().map_or(Ok(()), |held| value::within_text(held, self.range))?;
            let written = match self.names {
                Some(_) => self.named(meant),
                None => held.unwrap_or_else(|| value.clone()),
            };
            (payload, Some(written))
        } else {
            self.takes_none(value)?;
            (template.send.filled(&Json::Null, "")?.0, None)
        };
        let request = Request::Line {
            bytes: self.sealed(payload)?,
            expect: template.expect.clone(),
            picture: template.picture.clone(),
            refuse: template.refuse.clone(),
            until: template.until.clone(),
            is_reading: self.idempotent && template.is_for_its_reply(),
        };
        Ok(Prepared { written, ..self.alone(request) })
    }

    /// A payload as it goes out.
    fn sealed(&self, payload: Vec<u8>) -> Result<Vec<u8>, Fault> {
        let Some(frame) = &self.frame else { return Ok(payload) };
        frame.seal(&payload).map_err(|why| Fault::new(Code::BadValue, format!("what {} sends {why}", self.name)))
    }
}

fn checked(point: &Point, write: bool) -> Result<(), Fault> {
    point.check(write).map_err(|why| Fault::new(Code::BadValue, format!("the command's point can't be used: {why}")))
}

fn expect_length(found: usize, expected: usize) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("the answer holds {found} bits or registers instead of {expected}"))
}

/// The elements of a value: itself, or the elements of its array.
fn elements<'a>(point: &Point, value: &'a Json) -> Result<Vec<&'a Json>, Fault> {
    match (point.count, value) {
        (None, Json::Array(_)) => Err(value::wrong("a single value", value)),
        (None, value) => Ok(vec![value]),
        (Some(count), Json::Array(all)) if all.len() == usize::from(count) => Ok(all.iter().collect()),
        (Some(count), Json::Array(all)) => {
            Err(Fault::new(Code::BadValue, format!("expected an array of {count} values, got {}", all.len())))
        }
        (Some(count), value) => Err(value::wrong(&format!("an array of {count} values"), value)),
    }
}

fn one_or_all(point: &Point, mut values: Vec<Json>) -> Json {
    match point.count {
        None if values.len() == 1 => values.remove(0),
        _ => values.into(),
    }
}

/// The registers of a text that fits the point.
fn text_in(point: &Point, value: &Json) -> Result<Vec<u16>, Fault> {
    let text = value.as_str().ok_or_else(|| value::wrong("a text", value))?;
    text::no_control(text)?;
    point.pack_text(text).map_err(|unfit| match unfit {
        Unfit::Length { room, takes } => {
            Fault::new(Code::OutOfRange, format!("expected a text of at most {room} bytes, got {takes}"))
        }
        Unfit::Character(char) => Fault::new(
            Code::BadValue,
            format!("expected characters that the point's encoding, Latin-1, has, and {char:?} is none"),
        ),
    })
}
