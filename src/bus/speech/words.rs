//! What a PDU says, in words, and how long the frames of a line are (Modbus Application Protocol V1.1b3, section 6).

use std::fmt::Write as _;

use crate::bus::port::hex;
use crate::peripheral::exception;

/// Set in the function of an exception (section 7).
const EXCEPTION: u8 = 0x80;

/// Length of the RTU frame of a request that begins so, if that is known by now.
pub(super) fn request_len(frame: &[u8]) -> Option<usize> {
    Some(match frame.get(1)? {
        1..=6 => 8,
        7 | 11 | 12 | 17 => 4,
        8 => 8,
        15 | 16 => 9 + usize::from(*frame.get(6)?),
        22 => 10,
        23 => 13 + usize::from(*frame.get(10)?),
        43 => 7,
        _ => return None,
    })
}

/// The same of an answer.
pub(super) fn answer_len(frame: &[u8]) -> Option<usize> {
    Some(match frame.get(1)? {
        1..=4 | 12 | 17 | 23 => 5 + usize::from(*frame.get(2)?),
        5 | 6 | 8 | 11 | 15 | 16 => 8,
        7 => 5,
        22 => 10,
        function if function & EXCEPTION != 0 => 5,
        _ => return None,
    })
}

/// What is asked.
pub(super) fn request(pdu: &[u8]) -> String {
    match *pdu {
        [function @ 1..=4, a, b, c, d] => format!("read {}", places(function, [a, b], [c, d])),
        [5, a, b, on, _] => format!("write coil {} = {}", word(a, b), u8::from(on == 0xFF)),
        [6, a, b, c, d] => format!("write holding {} = {}", word(a, b), word(c, d)),
        [function @ (15 | 16), a, b, c, d, _, ref data @ ..] => {
            let values = if function == 15 { bits(data, word(c, d).into()) } else { words(data) };
            format!("write {} = {values}", places(if function == 15 { 1 } else { 3 }, [a, b], [c, d]))
        }
        [22, a, b, c, d, e, f] => {
            format!("mask holding {} with and 0x{:04X}, or 0x{:04X}", word(a, b), word(c, d), word(e, f))
        }
        [23, ref read @ ..] if read.len() > 9 => {
            let written = places(3, [read[4], read[5]], [read[6], read[7]]);
            let shown = places(3, [read[0], read[1]], [read[2], read[3]]);
            format!("write {written} = {}, read {shown}", words(&read[9..]))
        }
        _ => unnamed(pdu),
    }
}

/// What is answered to a request.
pub(super) fn answer(pdu: &[u8], asked: Option<&[u8]>) -> String {
    let asked_places = || match asked {
        Some(&[function @ 1..=4, a, b, c, d]) => places(function, [a, b], [c, d]),
        Some(&[23, a, b, c, d, ..]) => places(3, [a, b], [c, d]),
        _ => String::new(),
    };
    match *pdu {
        [function, code] if function & EXCEPTION != 0 => {
            let meaning = exception::meaning(code);
            let name = meaning.split(';').next().unwrap_or_default();
            format!("refuses function {} by exception {code}: {name}", function & !EXCEPTION)
        }
        [function @ (1 | 2), _, ref data @ ..] => {
            let count = match asked {
                Some(&[_, _, _, c, d]) => usize::from(word(c, d)),
                _ => data.len() * 8,
            };
            equals(function, &asked_places(), &bits(data, count))
        }
        [function @ (3 | 4 | 23), _, ref data @ ..] => equals(function, &asked_places(), &words(data)),
        [5 | 6 | 22, ..] => format!("confirms: {}", request(pdu)),
        [function @ (15 | 16), a, b, c, d] => {
            format!("confirms: write {}", places(if function == 15 { 1 } else { 3 }, [a, b], [c, d]))
        }
        _ => unnamed(pdu),
    }
}

fn equals(function: u8, places: &str, values: &str) -> String {
    match places {
        "" => format!("has {} {values}", table(function)),
        places => format!("has {places} = {values}"),
    }
}

fn unnamed(pdu: &[u8]) -> String {
    match pdu {
        [function, data @ ..] => format!("function {function}: {}", hex(data)),
        [] => "nothing".into(),
    }
}

fn word(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

fn table(function: u8) -> &'static str {
    match function {
        1 => "coil",
        2 => "discrete",
        3 | 23 => "holding",
        _ => "input",
    }
}

/// A table with the addresses of those that are meant.
fn places(function: u8, address: [u8; 2], count: [u8; 2]) -> String {
    let (address, count) = (u16::from_be_bytes(address), u16::from_be_bytes(count));
    match count {
        1 => format!("{} {address}", table(function)),
        _ => format!("{} {address} to {}", table(function), u32::from(address) + u32::from(count.max(1)) - 1),
    }
}

fn words(data: &[u8]) -> String {
    data.chunks_exact(2).map(|pair| word(pair[0], pair[1]).to_string()).collect::<Vec<_>>().join(" ")
}

/// Bits, the first in the lowest place of the first byte (6.1).
fn bits(data: &[u8], count: usize) -> String {
    let mut text = String::new();
    for at in 0..count.min(data.len() * 8) {
        let _ = write!(text, "{}", data[at / 8] >> (at % 8) & 1);
    }
    text
}
