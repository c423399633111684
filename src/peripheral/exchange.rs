//! What goes to a peripheral and what comes back, free of any protocol library: between the meaning of registers and
//! replies and the line itself.

use serde_json::Value as Json;

use super::Picture;

/// One request as a peripheral understands it, complete and already checked.
#[derive(Debug, Clone)]
pub enum Request {
    /// Modbus functions 1 and 2.
    ReadBits {
        /// `true`: coils (function 1); `false`: discrete inputs (function 2).
        coils: bool,
        /// Protocol address, from 0.
        address: u16,
        /// 1 to [`BITS_READ_MAX`](super::registers::BITS_READ_MAX).
        count: u16,
    },
    /// Modbus functions 3 and 4.
    ReadWords {
        /// `true`: holding registers (function 3); `false`: input registers (function 4).
        holding: bool,
        /// Protocol address, from 0.
        address: u16,
        /// 1 to [`WORDS_READ_MAX`](super::registers::WORDS_READ_MAX).
        count: u16,
    },
    /// Modbus function 5 for one coil, 15 for up to [`BITS_WRITTEN_MAX`](super::registers::BITS_WRITTEN_MAX).
    WriteBits {
        /// Protocol address of the first coil, from 0.
        address: u16,
        /// The coils, in order of their addresses.
        bits: Vec<bool>,
        /// By function 15, even if it is one.
        multiple: bool,
    },
    /// Modbus function 6 for one register, 16 for up to [`WORDS_WRITTEN_MAX`](super::registers::WORDS_WRITTEN_MAX).
    WriteWords {
        /// Protocol address of the first register, from 0.
        address: u16,
        /// The registers, in order of their addresses.
        words: Vec<u16>,
        /// By function 16, even if it is one.
        multiple: bool,
    },
    /// Modbus function 22: the register becomes `(it & and) | (or & !and)`, at the peripheral's and at once.
    MaskWord {
        /// Protocol address, from 0.
        address: u16,
        /// The bits that stay.
        and: u16,
        /// What the others become.
        or: u16,
    },
    /// Modbus function 23: up to [`WORDS_WRITTEN_AND_READ_MAX`](super::registers::WORDS_WRITTEN_AND_READ_MAX) registers
    /// are written, and then holding registers are read.
    WriteAndReadWords {
        /// Protocol address of the first register that is written, from 0.
        address: u16,
        /// The registers that are written, in order of their addresses.
        words: Vec<u16>,
        /// Protocol address of the first register that is read, from 0.
        read_address: u16,
        /// Registers that are read: 1 to [`WORDS_READ_MAX`](super::registers::WORDS_READ_MAX).
        count: u16,
    },
    /// Bytes for a line protocol or in a frame, and how to understand its reply.
    Line {
        /// What is sent, terminator or frame included.
        bytes: Vec<u8>,
        /// The reply that confirms; without it any reply that is not refused confirms.
        expect: Option<regex_lite::Regex>,
        /// The same where it is no text; in place of `expect`.
        picture: Option<Picture>,
        /// The reply by which the peripheral says no.
        refuse: Option<regex_lite::Regex>,
        /// The last line of a reply that has several; without it a reply is one line.
        until: Option<regex_lite::Regex>,
        /// It is asked for what the reply says, and changes nothing: what the peripheral says by itself, if it is of
        /// the reply's form, is as good.
        is_reading: bool,
    },
}

impl Request {
    /// Whether it writes coils or registers.
    pub fn is_write(&self) -> bool {
        match self {
            Request::WriteBits { .. }
            | Request::WriteWords { .. }
            | Request::MaskWord { .. }
            | Request::WriteAndReadWords { .. } => true,
            Request::ReadBits { .. } | Request::ReadWords { .. } | Request::Line { .. } => false,
        }
    }

    /// A line that sets something in motion, and whose reply is one line.
    pub fn line(bytes: Vec<u8>, expect: Option<regex_lite::Regex>, refuse: Option<regex_lite::Regex>) -> Request {
        Request::Line { bytes, expect, picture: None, refuse, until: None, is_reading: false }
    }
}

/// The content of a valid answer to a [`Request`].
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// As many bits as were asked for.
    Bits(Vec<bool>),
    /// As many registers as were asked for.
    Words(Vec<u16>),
    /// A write was confirmed: its echo named the same address and value or count.
    Written,
    /// Group 1 of `expect` if there is one, else the whole reply, without its delimiter; several lines are joined by
    /// `\n`.
    Line(String),
    /// What stands in the place of a picture's value, or the bytes of the whole reply if it has none.
    Value(Json),
}

/// A definite "no" from the peripheral.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A Modbus exception code, as [`exception`](super::exception) lists them. Some leave open what was done.
    Exception(u8),
    /// The reply that matched `refuse`: its group 1 if there is one, else the whole reply.
    Text(String),
}
