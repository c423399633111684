//! What stands around what the instrument says and hears: the end of a line, or a frame with its checksum; and whether
//! it speaks in words or in bytes. Written apart from the code under test.

use super::manners::{Manner, Manners};
use super::world::World;

/// How its bytes are parted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parts {
    /// In lines.
    Lines,
    /// In lines that end with CR, behind the sum of their bytes in two digits.
    Summed,
    /// In frames from STX to ETX, the exclusive or of the bytes between in two digits before the latter.
    Marked,
    /// The same with a CRC in two bytes, and DLE before each byte that is STX, ETX or DLE.
    Escaped,
    /// In frames that begin with AA and the number of bytes that follow, CRC left out.
    Counted,
}

const STX: u8 = 2;
const ETX: u8 = 3;
const DLE: u8 = 0x10;
const BEGIN: u8 = 0xAA;

/// A frame that was heard, and what stands in it if it is intact.
pub struct Taken {
    pub payload: Option<Vec<u8>>,
    pub frame: Vec<u8>,
}

/// How the instrument of a schedule speaks.
#[derive(Debug, Clone, Copy)]
pub struct Framing {
    parts: Parts,
    /// Commands and readings are bytes, not text.
    pub in_bytes: bool,
}

impl Framing {
    /// By dice of its own. An answer of several lines is one of lines.
    pub fn of(world: &World, manners: &Manners) -> Framing {
        let lines = Framing { parts: Parts::Lines, in_bytes: false };
        if !manners.have(Manner::Frames) || manners.have(Manner::SeveralLines) {
            return lines;
        }
        let mut dice = world.dice("framing");
        let (name, parts, in_bytes) = match dice.u8(..5) {
            0 => ("instrument: a sum at the end of a line", Parts::Summed, false),
            1 => ("instrument: frames", Parts::Marked, false),
            2 => ("instrument: frames with an escape", Parts::Escaped, false),
            3 => ("instrument: frames with an escape, of bytes", Parts::Escaped, true),
            _ => ("instrument: frames that say how long they are", Parts::Counted, true),
        };
        world.count(name);
        Framing { parts, in_bytes }
    }

    /// Whether these are lines of text with nothing around them.
    pub fn is_plain(&self) -> bool {
        self.parts == Parts::Lines
    }

    /// As a bus has it.
    pub fn keys(&self) -> &'static str {
        match self.parts {
            Parts::Lines => "delimiter = \"\\r\\n\"\n",
            Parts::Summed => "frame = { end = \"\\r\", checksum = { kind = \"sum8\", as = \"hex\" } }\n",
            Parts::Marked => "frame = { start = 0x02, end = 0x03, checksum = { kind = \"xor8\", as = \"hex\" } }\n",
            Parts::Escaped => {
                "frame = { start = 0x02, end = 0x03, escape = 0x10, \
                 checksum = { kind = \"crc16-modbus\", as = \"binary-le\" } }\n"
            }
            Parts::Counted => {
                "frame = { start = 0xAA, length = { at = 1, size = 1, adds = 4 }, \
                 checksum = { kind = \"crc16-modbus\", as = \"binary-le\", covers = \"frame\" } }\n"
            }
        }
    }

    /// The keys of a command that sends this letter, with the message's value if it has one, is confirmed by this
    /// pattern and refused by that: as words. In bytes the pattern gives way to the bytes that stand for it.
    pub fn command(&self, letter: char, has_value: bool, (expect, refuse): (&str, &str)) -> String {
        if !self.in_bytes {
            let (value, end) = (if has_value { " {value}" } else { "" }, if self.is_plain() { "\\r\\n" } else { "" });
            return format!("send = \"{letter}{value}{end}\"\nexpect = \"{expect}\"\nrefuse = \"{refuse}\"\n");
        }
        let value = if has_value { " {value:u16be}" } else { "" };
        let reply = match letter {
            'Q' => "52 {value:u16be}",
            'W' => "57 {value:u16be}",
            _ => "4F 4B",
        };
        // The number of bytes is of the payload.
        let is_counted = self.parts == Parts::Counted;
        let [sent, told] = match (is_counted, has_value, reply.len() > 5) {
            (false, ..) => ["", ""],
            (true, true, true) => ["03 ", "03 "],
            (true, true, false) => ["03 ", "02 "],
            (true, false, _) => ["01 ", "03 "],
        };
        let refuse = if is_counted { refuse.replace('^', "^.") } else { refuse.to_owned() };
        let letter = letter as u32;
        format!("send_hex = \"{sent}{letter:02X}{value}\"\nexpect_hex = \"{told}{reply}\"\nrefuse = \"{refuse}\"\n")
    }

    /// Lines, of which the last may have no end yet, as they go over the wire.
    pub fn put(&self, lines: &[u8]) -> Vec<u8> {
        if self.is_plain() {
            return lines.to_vec();
        }
        let mut bytes = Vec::new();
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            match line.strip_suffix(b"\r\n") {
                Some(line) => bytes.extend(self.sealed(&self.payload(line))),
                None => bytes.extend(self.begun(line)),
            }
        }
        bytes
    }

    /// The same where the first line has begun before anybody could hear it.
    pub fn put_rest(&self, lines: &[u8]) -> Vec<u8> {
        let end = lines.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let (Some(end), false) = (end, self.is_plain()) else { return lines.to_vec() };
        let whole = self.put(&[b"O", &lines[..end]].concat());
        let begin = 1 + self.begun(b"").len();
        [&whole[begin..], &self.put(&lines[end..])].concat()
    }

    /// What is said, as the instrument has it.
    fn payload(&self, line: &[u8]) -> Vec<u8> {
        let text = std::str::from_utf8(line).unwrap_or_default();
        let number = text.strip_prefix("R ").or_else(|| text.strip_prefix("W +")?.strip_suffix(" kg"));
        let number = number.and_then(|number| number.parse::<u16>().ok());
        let said = match number.filter(|_| self.in_bytes) {
            Some(number) => [&line[..1], &number.to_be_bytes()].concat(),
            None => line.to_vec(),
        };
        match self.parts {
            Parts::Counted => [&[said.len() as u8], &said[..]].concat(),
            _ => said,
        }
    }

    /// A payload without the number of its bytes, if that is right.
    pub fn uncounted<'a>(&self, payload: &'a [u8]) -> Option<&'a [u8]> {
        match (self.parts, payload.split_first()) {
            (Parts::Counted, Some((count, rest))) => (usize::from(*count) == rest.len()).then_some(rest),
            (Parts::Counted, None) => None,
            _ => Some(payload),
        }
    }

    /// The beginning of a frame.
    fn begun(&self, line: &[u8]) -> Vec<u8> {
        let start: &[u8] = match self.parts {
            Parts::Lines | Parts::Summed => &[],
            Parts::Marked | Parts::Escaped => &[STX],
            Parts::Counted => &[BEGIN, 5],
        };
        [start, line].concat()
    }

    fn sealed(&self, payload: &[u8]) -> Vec<u8> {
        match self.parts {
            Parts::Lines => [payload, b"\r\n"].concat(),
            Parts::Summed => [payload, self.sum(payload).as_slice(), b"\r"].concat(),
            Parts::Marked => [&[STX], payload, &self.sum(payload), &[ETX]].concat(),
            Parts::Escaped => {
                let mut bytes = vec![STX];
                for byte in payload.iter().chain(&self.sum(payload)) {
                    if matches!(*byte, STX | ETX | DLE) {
                        bytes.push(DLE);
                    }
                    bytes.push(*byte);
                }
                bytes.push(ETX);
                bytes
            }
            Parts::Counted => {
                let body = [&[BEGIN], payload].concat();
                [&body[..], &crc(&body)].concat()
            }
        }
    }

    fn sum(&self, payload: &[u8]) -> Vec<u8> {
        let sum = match self.parts {
            Parts::Summed => payload.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)),
            Parts::Marked => payload.iter().fold(0, |sum, byte| sum ^ byte),
            _ => return crc(payload).to_vec(),
        };
        format!("{sum:02X}").into_bytes()
    }

    /// The next whole frame of what was heard.
    pub fn take(&self, heard: &mut Vec<u8>) -> Option<Taken> {
        let len = match self.parts {
            Parts::Lines => 1 + heard.iter().position(|byte| matches!(byte, b'\n' | b';'))?,
            Parts::Summed => 1 + heard.iter().position(|byte| *byte == b'\r')?,
            Parts::Marked => 1 + heard.iter().position(|byte| *byte == ETX)?,
            Parts::Escaped => {
                let mut at = 0;
                while *heard.get(at)? != ETX {
                    at += if heard[at] == DLE { 2 } else { 1 };
                }
                at + 1
            }
            Parts::Counted => usize::from(*heard.get(1)?) + 4,
        };
        let frame: Vec<u8> = (heard.len() >= len).then(|| heard.drain(..len).collect())?;
        Some(Taken { payload: self.opened(&frame), frame })
    }

    /// What stands in a frame that is intact.
    fn opened(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let mut plain = Vec::new();
        let mut bytes = frame.iter();
        while let Some(byte) = bytes.next() {
            let is_escape = self.parts == Parts::Escaped && *byte == DLE;
            plain.push(*if is_escape { bytes.next()? } else { byte });
        }
        let payload = match self.parts {
            Parts::Lines => return Some(plain),
            Parts::Summed => plain.get(..plain.len().checked_sub(3)?)?,
            Parts::Marked | Parts::Escaped => plain.get(1..plain.len().checked_sub(3)?)?,
            Parts::Counted => plain.get(1..plain.len().checked_sub(2)?)?,
        };
        (self.sealed(payload) == frame).then(|| payload.to_vec())
    }

    /// Whether a bit may be flipped on the wire so that no other frame comes of it. Digits have two cases.
    pub fn may_flip(&self, bit: u32) -> bool {
        bit != 5 || !matches!(self.parts, Parts::Summed | Parts::Marked)
    }
}

/// Modbus over Serial Line V1.02, 6.2.2, low byte first.
pub fn crc(bytes: &[u8]) -> [u8; 2] {
    let mut crc = 0xffff_u16;
    for byte in bytes {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 };
        }
    }
    crc.to_le_bytes()
}
