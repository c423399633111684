//! Frames of a Modbus line: what stands around a PDU, in each of its two ways, and where in a stream of bytes an answer
//! stands. Pure.
//!
//! Invariants
//! - An answer is found wherever it begins, behind any garbage, and never before its last byte is there.
//! - A frame is an answer only if unit, function, length or echo, and checksum are those of the request, as far as the
//!   quirks of its unit leave them to be compared.

pub(in crate::bus) mod ascii;
pub(in crate::bus) mod rtu;

use std::time::Duration;

use crate::bus::debts::Looks;
use crate::bus::modbus::pdu::{Expected, Found, Pdu};
use crate::bus::port;
use crate::peripheral::exchange::Request;
use crate::peripheral::quirks::{Quirk, Quirks};

/// What the answer to a request looks like, as far as it is known beforehand and whatever stands around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bus) struct Shape {
    unit: u8,
    /// It may come under any unit.
    any_unit: bool,
    expected: Expected,
}

impl Shape {
    /// The shape of a Modbus request's answer; `None` for a line protocol.
    pub(in crate::bus) fn of(unit: u8, request: &Request, quirks: Quirks) -> Option<Shape> {
        let any_unit = quirks.has(Quirk::UnitId);
        Some(Shape { unit, any_unit, expected: Pdu::of(request)?.expected(quirks)? })
    }

    /// Whether it may come under this unit.
    fn takes(&self, unit: u8) -> bool {
        self.any_unit || self.unit == unit
    }

    fn shares_unit(&self, other: &Shape) -> bool {
        self.any_unit || other.takes(self.unit)
    }

    /// Whether an exception to the one could be an exception to the other.
    pub(in crate::bus) fn shares_exceptions(&self, other: &Shape) -> bool {
        self.shares_unit(other) && self.expected.function() == other.expected.function()
    }
}

impl Looks for Shape {
    fn could_be(&self, owed: &Shape) -> bool {
        self.shares_unit(owed) && self.expected.could_be(&owed.expected)
    }
}

/// How a line tells where a frame begins and ends, and whether it is intact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bus) enum Framing {
    /// Bytes with a CRC, and silence between frames.
    Rtu,
    /// Hexadecimal digits with an LRC, between a colon and CR LF.
    Ascii,
}

impl Framing {
    /// Longest frame, in bytes.
    pub(in crate::bus) fn frame_max(self) -> usize {
        match self {
            Framing::Rtu => rtu::FRAME_MAX,
            Framing::Ascii => ascii::FRAME_MAX,
        }
    }

    /// How far apart two characters of one frame may come; `None`: they come at once, by the line's own time.
    pub(in crate::bus) fn apart_max(self) -> Option<Duration> {
        match self {
            Framing::Rtu => None,
            Framing::Ascii => Some(ascii::APART_MAX),
        }
    }

    /// Length of the normal answer's frame, in bytes.
    pub(in crate::bus) fn len(self, shape: &Shape) -> usize {
        match self {
            Framing::Rtu => rtu::len(shape.expected.len()),
            Framing::Ascii => ascii::len(shape.expected.len()),
        }
    }

    /// What stands at the very start of `bytes`, and the length of its frame.
    pub(in crate::bus) fn find(self, shape: &Shape, bytes: &[u8]) -> Option<(Found, usize)> {
        match self {
            Framing::Rtu => rtu::find(shape, bytes),
            Framing::Ascii => ascii::find(shape, bytes),
        }
    }

    /// A PDU in a frame.
    pub(in crate::bus) fn sealed(self, unit: u8, pdu: &[u8]) -> Vec<u8> {
        match self {
            Framing::Rtu => rtu::sealed(unit, pdu),
            Framing::Ascii => ascii::sealed(unit, pdu),
        }
    }

    /// Unit and PDU of a whole frame that is intact.
    pub(in crate::bus) fn opened(self, frame: &[u8]) -> Option<(u8, Vec<u8>)> {
        match self {
            Framing::Rtu => rtu::opened(frame).map(|(unit, pdu)| (unit, pdu.to_vec())),
            Framing::Ascii => ascii::opened(frame),
        }
    }

    /// Whether `bytes` end in the beginning of a frame, of which more is to come.
    pub(in crate::bus) fn is_under_way(self, bytes: &[u8]) -> bool {
        match self {
            // Only silence would tell.
            Framing::Rtu => false,
            Framing::Ascii => ascii::is_under_way(bytes),
        }
    }

    /// Bytes as a person is shown them.
    pub(in crate::bus) fn shown(self, bytes: &[u8]) -> String {
        match self {
            Framing::Rtu => port::hex(bytes),
            Framing::Ascii => port::text(bytes),
        }
    }
}
