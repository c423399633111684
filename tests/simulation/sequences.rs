//! Commands that ask for several things in a row: one bit of a register that is written over the others as they are
//! read, a bit that the peripheral itself changes, a value by a scale that stands at the peripheral, several writes.
//! How they are configured, and how a peripheral understands them; `rows` judges what was heard of them.
//!
//! What a write was made of is told from the write: each reading of a register with bits, and of a scale, is another
//! than the one before, and stands in what is written.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{json, Value as Json};

use super::manners::{Manner, Manners};
use super::scenario::{Asks, Happening, Message};
use super::world::World;

/// What one write of a sequence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A register of its own.
    Word(u16),
    /// The bit of the message's number, over the others as they were read.
    Bit(u16),
    /// The same by function 22: the peripheral keeps the others.
    Mask(u16),
    /// A value by the power of ten in the register behind it.
    Scaled(u16),
    /// A register that is written and read back in one exchange, by function 23.
    Exchanged(u16),
}

impl Part {
    /// The register that it writes.
    pub fn address(self) -> u16 {
        match self {
            Part::Word(at) | Part::Bit(at) | Part::Mask(at) | Part::Scaled(at) | Part::Exchanged(at) => at,
        }
    }

    /// The register that is read first.
    pub fn reads(self) -> Option<u16> {
        match self {
            Part::Word(_) | Part::Mask(_) | Part::Exchanged(_) => None,
            Part::Bit(at) => Some(at),
            Part::Scaled(at) => Some(at + 1),
        }
    }

    fn is_of(self, function: u8, address: u16) -> bool {
        let own = match self {
            Part::Mask(_) => 22,
            Part::Exchanged(_) => 23,
            _ => 6,
        };
        (own, self.address()) == (function, address)
    }
}

/// A command of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequence {
    Bit,
    BitOnce,
    MaskOnce,
    Scaled,
    /// The third write is the first one once more.
    Steps,
    StepsOnce,
    /// Each write is read back.
    StepsVerified,
    Exchange,
}

use Sequence::*;

/// All of them.
const ALL: [Sequence; 8] = [Bit, Scaled, Steps, BitOnce, MaskOnce, StepsOnce, StepsVerified, Exchange];

/// The bits that no command has: those of whoever else writes there.
const FOREIGN: u16 = 1 | 1 << 14 | 1 << 15;

/// What a value is with which nothing was multiplied yet: no power of ten of another one is among them.
const SCALED_FROM: u16 = 100;

/// No power of ten.
pub const NO_SCALE: u16 = 0x8000;

impl Sequence {
    /// The beginning of its commands' names.
    pub fn command(self) -> &'static str {
        match self {
            Bit => "bit",
            BitOnce => "bit-once",
            MaskOnce => "mask-once",
            Scaled => "scaled",
            Steps => "steps",
            StepsOnce => "steps-once",
            StepsVerified => "steps-verified",
            Exchange => "exchange",
        }
    }

    /// Whether it must not be done twice.
    pub fn once(self) -> bool {
        matches!(self, BitOnce | MaskOnce | StepsOnce | StepsVerified | Exchange)
    }

    /// Whether each write is read back.
    pub fn is_verified(self) -> bool {
        matches!(self, StepsVerified | Exchange)
    }

    /// Its writes.
    pub fn parts(self) -> &'static [Part] {
        match self {
            Bit => &[Part::Bit(50)],
            BitOnce => &[Part::Bit(51)],
            MaskOnce => &[Part::Mask(52)],
            Scaled => &[Part::Scaled(54)],
            Steps => &[Part::Word(60), Part::Word(61), Part::Word(60)],
            StepsOnce => &[Part::Word(62), Part::Bit(63), Part::Word(64)],
            StepsVerified => &[Part::Word(65), Part::Word(66)],
            Exchange => &[Part::Exchanged(70)],
        }
    }

    /// The value in a message with this number; `None`: the command has its own.
    fn value(self, number: u16) -> Option<u16> {
        match self {
            Bit | BitOnce | MaskOnce => None,
            Scaled => Some(SCALED_FROM + number),
            Steps | StepsOnce | StepsVerified | Exchange => Some(number),
        }
    }
}

/// A write of a sequence, as a peripheral understands it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub sequence: Sequence,
    pub part: Part,
    /// The message's number.
    pub number: u16,
    /// What the read before it must have said.
    pub made_of: Option<u16>,
}

impl Written {
    /// Chance in a thousand that it is answered late where such are: where a command ends with the write that it began
    /// with, rather that one than what stands between.
    pub fn often_late(&self) -> u64 {
        match (self.sequence, self.part == self.sequence.parts()[0]) {
            (Steps, true) => 700,
            (Steps, false) => 100,
            _ => 450,
        }
    }
}

/// What a write is for; `None`: for no sequence. Behind function and address come these words. An error: no command
/// writes that.
pub fn written(function: u8, address: u16, words: &[u16]) -> Result<Option<Written>, String> {
    let of = |sequence: Sequence| {
        let part = sequence.parts().iter().find(|part| part.is_of(function, address))?;
        Some((sequence, *part))
    };
    let Some((sequence, part)) = ALL.into_iter().find_map(of) else { return Ok(None) };
    let (number, made_of) = match (part, words) {
        (Part::Word(_) | Part::Exchanged(_), [value]) => Some((*value, None)),
        (Part::Bit(_), [word]) => one_bit(word & !FOREIGN).map(|number| (number, Some(word & FOREIGN))),
        (Part::Mask(_), [and, or]) => one_bit(*or).filter(|_| !and == *or).map(|number| (number, None)),
        (Part::Scaled(_), [value]) => unscaled(*value).map(|(value, by)| (value - SCALED_FROM, Some(by))),
        _ => None,
    }
    .ok_or_else(|| format!("no {sequence:?} writes {words:04X?} at {address}"))?;
    Ok(Some(Written { sequence, part, number, made_of }))
}

/// The number of the one bit that is set.
fn one_bit(word: u16) -> Option<u16> {
    (word.count_ones() == 1).then(|| word.trailing_zeros() as u16)
}

/// A value, and the power of ten that it was divided by.
fn unscaled(raw: u16) -> Option<(u16, u16)> {
    let scales = [(1, 0), (10, -1), (100, -2)];
    let is_it =
        |(by, _): &(u16, i16)| raw.is_multiple_of(*by) && (SCALED_FROM..SCALED_FROM + 100).contains(&(raw / by));
    scales.into_iter().find(is_it).map(|(by, power)| (raw / by, power as u16))
}

/// Whether something is made of what a register says.
pub fn is_read_first(address: u16) -> bool {
    ALL.into_iter().flat_map(|sequence| sequence.parts()).any(|part| part.reads() == Some(address))
}

/// What a register says to whoever is about to write something that is made of it, when it is asked for the so-manieth
/// time. `None`: nothing is made of it.
pub fn told(world: &World, address: u16, time: u16) -> Option<u16> {
    let parts = ALL.into_iter().flat_map(|sequence| sequence.parts());
    let part = parts.into_iter().find(|part| part.reads() == Some(address))?;
    Some(match part {
        Part::Scaled(_) if world.strikes("slave: a scale that is none", 100) => NO_SCALE,
        Part::Scaled(_) => -((time % 3) as i16) as u16,
        _ => time & 1 | (time >> 1 & 3) << 14,
    })
}

/// By dice of its own: what some messages to Modbus devices ask for instead.
pub struct Turning(Option<fastrand::Rng>);

impl Turning {
    /// None, without the manner.
    pub fn of(world: &World, manners: &Manners) -> Turning {
        Turning(manners.have(Manner::Sequences).then(|| world.dice("sequences")))
    }

    /// Perhaps another message in this one's place.
    pub fn turn(&mut self, message: &mut Message) {
        let Some(dice) = &mut self.0 else { return };
        let (is_turned, sequence) = (dice.u8(..10) < 7, ALL[dice.usize(..11) % ALL.len()]);
        if !is_turned || message.line == "/dev/text" || message.asks == Asks::Nothing {
            return;
        }
        message.asks = Asks::Row(sequence);
        let command = format!("{}-{}", sequence.command(), message.value);
        let mut body = json!({ "command": command });
        if let Some(value) = sequence.value(message.value) {
            body["value"] = Json::from(value);
        }
        message.body = body.to_string().into_bytes();
    }
}

/// What messages ask for in a row, each once.
pub fn wanted(happenings: &[(Duration, Happening)]) -> Vec<(Sequence, u16)> {
    let mut rows = Vec::new();
    for (_, happening) in happenings {
        let Happening::Send(Message { asks: Asks::Row(sequence), value, .. }, _) = happening else { continue };
        if !rows.contains(&(*sequence, *value)) {
            rows.push((*sequence, *value));
        }
    }
    rows
}

/// The commands that such messages ask for, as a profile has them.
pub fn commands(wanted: &[(Sequence, u16)], deadline: &str, pulses: bool) -> String {
    let mut text = String::new();
    for (sequence, number) in wanted.iter().filter(|(sequence, _)| pulses || !sequence.once()) {
        let at = |address: u16| format!("table = \"holding\", address = {address}");
        let (name, once) = (sequence.command(), sequence.once());
        let _ = write!(
            text,
            "[profile.modbus.command.{name}-{number}]\ndeadline = \"{deadline}\"\nidempotent = {}\n",
            !once
        );
        let write = |part: Part| match part {
            Part::Word(address) => format!("write = {{ {} }}", at(address)),
            Part::Bit(address) => format!("write = {{ {}, bit = {number} }}", at(address)),
            Part::Mask(address) => format!("write = {{ {}, bit = {number} }}\nfunction = 22", at(address)),
            Part::Exchanged(address) => format!("write = {{ {} }}\nfunction = 23\nverify = true", at(address)),
            Part::Scaled(address) => {
                format!("write = {{ {}, scale_register = {{ address = {} }} }}", at(address), address + 1)
            }
        };
        let parts = sequence.parts();
        if let [part] = parts {
            let value = if sequence.value(*number).is_none() { "value = true\n" } else { "" };
            let _ = write!(text, "{}\n{value}", write(*part));
            continue;
        }
        let steps = parts.iter().enumerate().map(|(step, part)| {
            let value = match part {
                Part::Bit(_) => ", value = true".to_owned(),
                // One of them writes the message's.
                _ if step == own_step(*sequence) => String::new(),
                _ => format!(", value = {number}"),
            };
            let verify = if sequence.is_verified() { ", verify = true" } else { "" };
            format!("{{ {}{value}{verify} }}", write(*part))
        });
        let _ = writeln!(text, "steps = [{}]", steps.collect::<Vec<_>>().join(", "));
    }
    text
}

/// The step that writes the message's value.
fn own_step(sequence: Sequence) -> usize {
    match sequence {
        Steps | StepsVerified => 1,
        _ => 2,
    }
}
