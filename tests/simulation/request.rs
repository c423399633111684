//! Requests, as peripherals understand them, and the frames of their answers.

use tokio::time::Instant;

use super::scenario::Asks;
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
    /// What it is for. `None`: a Modbus request that reads.
    pub asks: Option<Asks>,
    /// The line, as it was heard.
    pub text: Vec<u8>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.protocol {
            Protocol::Text => write!(f, "{:?}", String::from_utf8_lossy(&self.text)),
            _ => write!(f, "unit {} function {} at {} with {}", self.unit, self.function, self.address, self.value),
        }
    }
}

/// The next whole request in what was heard, the last of it in bytes that were written then. An instrument takes
/// several commands in a line, as many do.
pub fn request(world: &World, protocol: Protocol, heard: &mut Vec<u8>, written: Instant) -> Option<Request> {
    match protocol {
        Protocol::Text => loop {
            let end = heard.iter().position(|byte| matches!(byte, b'\n' | b';'))?;
            let line: Vec<u8> = heard.drain(..=end).collect();
            match command(&line, written) {
                Some(request) => return Some(request),
                None => world.violate(format!("G14: on the wire was {:?}", String::from_utf8_lossy(&line))),
            }
        },
        // Every request of these commands has six bytes: unit, function, address, value.
        Protocol::Rtu => {
            let frame: Vec<u8> = (heard.len() >= 8).then(|| heard.drain(..8).collect())?;
            assert_eq!(crc(&frame[..6]), frame[6..], "the gateway's own frames are intact");
            Some(Request::of(protocol, [0; 2], &frame[..6], written))
        }
        Protocol::Tcp => {
            let frame: Vec<u8> = (heard.len() >= 12).then(|| heard.drain(..12).collect())?;
            Some(Request::of(protocol, [frame[0], frame[1]], &frame[6..], written))
        }
    }
}

fn command(line: &[u8], written: Instant) -> Option<Request> {
    let text = std::str::from_utf8(line).ok()?.trim_end_matches(['\r', '\n', ';']);
    let (word, value) = if text == "W" { ("W", "0") } else { text.split_once(' ')? };
    let asks = match word {
        "S" => Asks::Set,
        "D" => Asks::Pulse,
        "Q" => Asks::Ask,
        "W" if text == "W" => Asks::Weigh,
        _ => return None,
    };
    let value = value.parse().ok()?;
    let address = if asks == Asks::Pulse { PULSE } else { SET };
    Some(Request {
        protocol: Protocol::Text,
        written,
        transaction: [0; 2],
        unit: 0,
        function: 6,
        address,
        value,
        asks: Some(asks),
        text: line.to_vec(),
    })
}

impl Request {
    fn of(protocol: Protocol, transaction: [u8; 2], bytes: &[u8], written: Instant) -> Request {
        let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let (unit, function, address, value) = (bytes[0], bytes[1], number(2), number(4));
        let asks = match (function, address) {
            (6, SET) => Some(Asks::Set),
            (6, SET_VERIFIED) => Some(Asks::SetVerified),
            (6, PULSE) => Some(Asks::Pulse),
            (6, PULSE_VERIFIED) => Some(Asks::PulseVerified),
            (3 | 4, _) => None,
            other => panic!("no command has {other:?}"),
        };
        Request { protocol, written, transaction, unit, function, address, value, asks, text: Vec::new() }
    }

    /// The register that it is about, wherever that shows.
    pub fn place(&self, line: &str) -> (String, u8, u16) {
        (line.to_owned(), self.unit, self.shown().unwrap_or(self.address))
    }

    /// The register whose content shows in the one that it asks for, if it is such a one.
    pub fn shown(&self) -> Option<u16> {
        SHOWN.into_iter().find(|(at, _)| *at == self.address).map(|(_, of)| of)
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
        let [value_high, value_low] = self.value.to_be_bytes();
        let [stands_high, stands_low] = stands.to_be_bytes();
        match self.function {
            3 | 4 => self.framed(&[self.unit, self.function, 2, stands_high, stands_low]),
            _ => self.framed(&[self.unit, 6, high, low, value_high, value_low]),
        }
    }

    /// The frame that says no.
    pub fn refusal(&self, code: u8) -> Vec<u8> {
        self.framed(&[self.unit, self.function | 0x80, code])
    }

    fn framed(&self, bytes: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        if self.protocol == Protocol::Tcp {
            frame.extend([self.transaction[0], self.transaction[1], 0, 0, 0, bytes.len() as u8]);
        }
        frame.extend(bytes);
        if self.protocol == Protocol::Rtu {
            frame.extend(crc(bytes));
        }
        frame
    }
}

/// Modbus over Serial Line V1.02, 6.2.2, low byte first.
fn crc(bytes: &[u8]) -> [u8; 2] {
    let mut crc = 0xffff_u16;
    for byte in bytes {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 };
        }
    }
    crc.to_le_bytes()
}
