//! Requests, as peripherals understand them, and the frames of their answers.

use tokio::time::Instant;

use super::bends::Bend;
use super::framing::{crc, Framing, Taken};
use super::scenario::Asks;
use super::sequences::{self, Written};
use super::world::World;

/// The registers that the commands write.
pub const SET: u16 = 10;
pub const SET_VERIFIED: u16 = 11;
pub const PULSE: u16 = 12;
pub const PULSE_VERIFIED: u16 = 13;
/// Where a peripheral shows what is in the verified ones, if it shows that elsewhere.
pub const SHOWN: [(u16, u16); 2] = [(40, SET_VERIFIED), (41, PULSE_VERIFIED)];
/// The first of the registers that are read.
pub const READ: u16 = 20;
/// Their number: what one holds is never what another does.
pub const READS: u16 = 4;

/// What speaks on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Rtu,
    Ascii,
    Text,
}

/// A request, as a peripheral understands it.
#[derive(Clone)]
pub struct Request {
    pub protocol: Protocol,
    /// When its first byte was written.
    pub written: Instant,
    transaction: [u8; 2],
    unit: u8,
    function: u8,
    address: u16,
    pub value: u16,
    /// What stands behind function and address, on the wire.
    words: Vec<u16>,
    /// What it is for. `None`: a Modbus request that reads.
    pub asks: Option<Asks>,
    /// What it writes of several things in a row.
    pub sequence: Option<Written>,
    /// The line, as it was heard.
    pub text: Vec<u8>,
    /// How its answer is bent.
    pub bend: Bend,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.protocol {
            Protocol::Text => write!(f, "{:?}", self.text.escape_ascii().to_string()),
            _ => write!(f, "unit {} function {} at {} with {:?}", self.unit, self.function, self.address, self.words),
        }
    }
}

/// The next whole request in what was heard, the last of it in bytes that were written then. An instrument takes
/// several commands in a line, as many do.
pub fn request(
    world: &World,
    (protocol, framing): (Protocol, Framing),
    heard: &mut Vec<u8>,
    written: Instant,
) -> Option<Request> {
    match protocol {
        Protocol::Text => loop {
            let Taken { payload, frame } = framing.take(heard)?;
            match payload.and_then(|payload| command(framing, &payload, &frame, written)) {
                Some(request) => return Some(request),
                None => world.violate(format!("G14: on the wire was {:?}", frame.escape_ascii().to_string())),
            }
        },
        Protocol::Rtu => {
            let content = content_len(*heard.get(1)?);
            let frame: Vec<u8> = (heard.len() >= content + 2).then(|| heard.drain(..content + 2).collect())?;
            assert_eq!(crc(&frame[..content]), frame[content..], "the gateway's own frames are intact");
            Some(Request::of(world, protocol, [0; 2], &frame[..content], written))
        }
        Protocol::Ascii => {
            let end = 1 + heard.iter().position(|byte| *byte == b'\n')?;
            let frame: Vec<u8> = heard.drain(..end).collect();
            let digits = std::str::from_utf8(&frame[1..end - 4]).expect("the gateway's own frames are of digits");
            let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("the same");
            let content: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
            assert_eq!(ascii(&content), frame, "the gateway's own frames are intact");
            Some(Request::of(world, protocol, [0; 2], &content, written))
        }
        Protocol::Tcp => {
            let len = 6 + content_len(*heard.get(7)?);
            let frame: Vec<u8> = (heard.len() >= len).then(|| heard.drain(..len).collect())?;
            Some(Request::of(world, protocol, [frame[0], frame[1]], &frame[6..], written))
        }
    }
}

/// Unit, function, address and one value; for one bit, two masks; where it is read as well, what and how much of it.
fn content_len(function: u8) -> usize {
    match function {
        22 => 8,
        23 => 13,
        _ => 6,
    }
}

/// What stands behind the function of a request that reads what it writes, as if it only wrote (Modbus Application
/// Protocol V1.1b3, 6.17: reading comes first in the frame, and last on the peripheral).
fn exchanged(world: &World, content: &[u8]) -> [u8; 4] {
    let (read, written) = content.split_at(4);
    if read != &written[..4] || written[2..5] != [0, 1, 2] {
        world.violate(format!("G12: what is written is not what is read: {content:02X?}"));
    }
    [written[0], written[1], written[5], written[6]]
}

fn command(framing: Framing, payload: &[u8], line: &[u8], written: Instant) -> Option<Request> {
    let (word, value) = match framing.in_bytes {
        true => in_bytes(framing, payload)?,
        false => in_words(payload)?,
    };
    let asks = match word {
        b'S' => Asks::Set,
        b'D' => Asks::Pulse,
        b'Q' => Asks::Ask,
        b'W' if value == 0 => Asks::Weigh,
        _ => return None,
    };
    let address = if asks == Asks::Pulse { PULSE } else { SET };
    Some(Request {
        protocol: Protocol::Text,
        written,
        transaction: [0; 2],
        unit: 0,
        function: 6,
        address,
        value,
        words: Vec::new(),
        asks: Some(asks),
        sequence: None,
        text: line.to_vec(),
        bend: Bend::default(),
    })
}

/// A letter and a value.
fn in_words(payload: &[u8]) -> Option<(u8, u16)> {
    let text = std::str::from_utf8(payload).ok()?.trim_end_matches(['\r', '\n', ';']);
    let (word, value) = if text == "W" { ("W", "0") } else { text.split_once(' ')? };
    let [letter] = word.as_bytes() else { return None };
    Some((*letter, value.parse().ok()?))
}

/// The same in bytes.
fn in_bytes(framing: Framing, payload: &[u8]) -> Option<(u8, u16)> {
    match framing.uncounted(payload)? {
        [letter, high, low] if *letter != b'W' => Some((*letter, u16::from_be_bytes([*high, *low]))),
        [b'W'] => Some((b'W', 0)),
        _ => None,
    }
}

impl Request {
    fn of(world: &World, protocol: Protocol, transaction: [u8; 2], bytes: &[u8], written: Instant) -> Request {
        let exchanged = (bytes[1] == 23).then(|| exchanged(world, &bytes[2..]));
        let mut words = exchanged
            .as_ref()
            .map_or(&bytes[2..], |four| &four[..])
            .chunks(2)
            .map(|word| u16::from_be_bytes([word[0], word[1]]));
        let (unit, function, address) = (bytes[0], bytes[1], words.next().unwrap_or_default());
        let words: Vec<u16> = words.collect();
        let sequence = sequences::written(function, address, &words).unwrap_or_else(|why| {
            world.violate(format!("G12: on the wire was what nobody can have made: {why}"));
            None
        });
        let value = sequence.map_or(words[0], |written| written.number);
        let asks = match (function, address) {
            _ if sequence.is_some() => sequence.map(|written| Asks::Row(written.sequence)),
            (6, SET) => Some(Asks::Set),
            (6, SET_VERIFIED) => Some(Asks::SetVerified),
            (6, PULSE) => Some(Asks::Pulse),
            (6, PULSE_VERIFIED) => Some(Asks::PulseVerified),
            (3 | 4, _) | (_, 50..) => None,
            other => panic!("no command has {other:?}"),
        };
        let (text, bend) = (Vec::new(), Bend::default());
        Request { protocol, written, transaction, unit, function, address, value, words, asks, sequence, text, bend }
    }

    /// The register that it is about, wherever that shows.
    pub fn place(&self, line: &str) -> (String, u8, u16) {
        (line.to_owned(), self.unit, self.shown().unwrap_or(self.address))
    }

    /// The register whose content shows in the one that it asks for, if it is such a one.
    pub fn shown(&self) -> Option<u16> {
        SHOWN.into_iter().find(|(at, _)| *at == self.address).map(|(_, of)| of)
    }

    /// The register that it names.
    pub fn address(&self) -> u16 {
        self.address
    }

    /// Whether it writes a register and is answered with what stands there.
    pub fn exchanges(&self) -> bool {
        self.function == 23
    }

    /// Whether it reads a register where it was written.
    pub fn looks_where_it_was_written(&self) -> bool {
        self.asks.is_none() && matches!(self.address, SET_VERIFIED | PULSE_VERIFIED)
    }

    /// Which of the registers that are only read it asks for.
    pub fn reading(&self) -> Option<u16> {
        (self.function == 3 && (READ..READ + READS).contains(&self.address)).then(|| self.address - READ)
    }

    /// The frame that confirms, where this value stands.
    pub fn confirmation(&self, stands: u16) -> Vec<u8> {
        let [high, low] = self.address.to_be_bytes();
        let [stands_high, stands_low] = stands.to_be_bytes();
        match self.function {
            3 | 4 | 23 => self.framed(&[self.unit, self.function, 2, stands_high, stands_low]),
            function => {
                let echoed = self.words.iter().map(|word| if self.bend.echoes_else { !word } else { *word });
                let content: Vec<u8> = echoed.flat_map(u16::to_be_bytes).collect();
                self.framed(&[&[self.unit, function, high, low], &content[..]].concat())
            }
        }
    }

    /// The frame that says no.
    pub fn refusal(&self, code: u8) -> Vec<u8> {
        self.framed(&[self.unit, self.function | 0x80, code])
    }

    fn framed(&self, bytes: &[u8]) -> Vec<u8> {
        let Bend { transaction, unit, more, miscounts, .. } = self.bend;
        let mut content = bytes.to_vec();
        content[0] = unit.unwrap_or(content[0]);
        // Not what would stand there if the frame were over: that one would be whole.
        let first = !crc(&content)[0];
        content.extend((0..more).map(|at| first.wrapping_add(at.wrapping_mul(7))));
        match self.protocol {
            Protocol::Rtu => [&content[..], &crc(&content)].concat(),
            Protocol::Ascii => ascii(&content),
            Protocol::Tcp | Protocol::Text => {
                let [high, low] = (u16::from_be_bytes(self.transaction) ^ transaction).to_be_bytes();
                let counted = match (miscounts, bytes[1] & 0x80 != 0) {
                    (false, _) => content.len(),
                    // An exception without its code, and more than there is.
                    (true, true) => content.len() - 1,
                    (true, false) => content.len() + 1,
                };
                [&[high, low, 0, 0, 0, counted as u8], &content[..]].concat()
            }
        }
    }
}

/// Modbus over Serial Line V1.02, 2.5.2: digits between a colon and CR LF, behind them the sum that makes all nothing.
fn ascii(content: &[u8]) -> Vec<u8> {
    let sum = content.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    let digits: String = content.iter().chain(&[sum]).map(|byte| format!("{byte:02X}")).collect();
    format!(":{digits}\r\n").into_bytes()
}
