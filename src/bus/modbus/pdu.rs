//! Modbus PDUs, function by function: what is asked and what is answered, without unit, transaction or checksum (Modbus
//! Application Protocol V1.1b3, section 6; sections and pages below are of that). Pure.
//!
//! Invariants
//! - What is encoded is within the limits of its function.
//! - What is taken for an answer is one in full: function, amount, and the echo of what was written where. Less is
//!   enough only of a peripheral whose quirks say so.

use crate::peripheral::exchange::{Answer, Request};
use crate::peripheral::quirks::{Quirk, Quirks};
use crate::peripheral::registers::{
    BITS_READ_MAX, BITS_WRITTEN_MAX, WORDS_READ_MAX, WORDS_WRITTEN_AND_READ_MAX, WORDS_WRITTEN_MAX,
};

/// Set in the function of an exception (section 7).
const EXCEPTION: u8 = 0x80;

/// A function with what it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bus) enum Pdu<'a> {
    /// Function 1 (6.1): 1 to 2000 coils.
    ReadCoils { address: u16, count: u16 },
    /// Function 2 (6.2): 1 to 2000 discrete inputs.
    ReadDiscreteInputs { address: u16, count: u16 },
    /// Function 3 (6.3): 1 to 125 holding registers.
    ReadHoldingRegisters { address: u16, count: u16 },
    /// Function 4 (6.4): 1 to 125 input registers.
    ReadInputRegisters { address: u16, count: u16 },
    /// Function 5 (6.5).
    WriteSingleCoil { address: u16, on: bool },
    /// Function 6 (6.6).
    WriteSingleRegister { address: u16, word: u16 },
    /// Function 15 (6.11): 1 to 1968 coils.
    WriteMultipleCoils { address: u16, bits: &'a [bool] },
    /// Function 16 (6.12): 1 to 123 registers.
    WriteMultipleRegisters { address: u16, words: &'a [u16] },
    /// Function 22 (6.16): the register becomes `(it & and) | (or & !and)`.
    MaskWriteRegister { address: u16, and: u16, or: u16 },
    /// Function 23 (6.17): 1 to 121 registers are written, and then 1 to 125 are read.
    ReadWriteMultipleRegisters { read_address: u16, count: u16, address: u16, words: &'a [u16] },
}

/// What a unit said to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::bus) enum Said {
    /// What it has.
    Bits(Vec<bool>),
    /// What it has.
    Words(Vec<u16>),
    /// It has written.
    Written,
    /// It refuses, or may, by this code (section 7).
    Exception(u8),
}

impl<'a> Pdu<'a> {
    /// A request's, if it is one of Modbus.
    pub(in crate::bus) fn of(request: &'a Request) -> Option<Pdu<'a>> {
        Some(match *request {
            Request::ReadBits { coils: true, address, count } => Pdu::ReadCoils { address, count },
            Request::ReadBits { coils: false, address, count } => Pdu::ReadDiscreteInputs { address, count },
            Request::ReadWords { holding: true, address, count } => Pdu::ReadHoldingRegisters { address, count },
            Request::ReadWords { holding: false, address, count } => Pdu::ReadInputRegisters { address, count },
            Request::WriteBits { address, ref bits, multiple } => match bits[..] {
                [on] if !multiple => Pdu::WriteSingleCoil { address, on },
                _ => Pdu::WriteMultipleCoils { address, bits },
            },
            Request::WriteWords { address, ref words, multiple } => match words[..] {
                [word] if !multiple => Pdu::WriteSingleRegister { address, word },
                _ => Pdu::WriteMultipleRegisters { address, words },
            },
            Request::MaskWord { address, and, or } => Pdu::MaskWriteRegister { address, and, or },
            Request::WriteAndReadWords { address, ref words, read_address, count } => {
                Pdu::ReadWriteMultipleRegisters { read_address, count, address, words }
            }
            Request::Line { .. } => return None,
        })
    }

    /// The number of the function.
    pub(in crate::bus) fn function(&self) -> u8 {
        match self {
            Pdu::ReadCoils { .. } => 1,
            Pdu::ReadDiscreteInputs { .. } => 2,
            Pdu::ReadHoldingRegisters { .. } => 3,
            Pdu::ReadInputRegisters { .. } => 4,
            Pdu::WriteSingleCoil { .. } => 5,
            Pdu::WriteSingleRegister { .. } => 6,
            Pdu::WriteMultipleCoils { .. } => 15,
            Pdu::WriteMultipleRegisters { .. } => 16,
            Pdu::MaskWriteRegister { .. } => 22,
            Pdu::ReadWriteMultipleRegisters { .. } => 23,
        }
    }

    /// The bytes of the request. `None`: one request can't ask so much.
    pub(in crate::bus) fn encode(&self) -> Option<Vec<u8>> {
        let fields = |first: u16, second: u16| {
            let (first, second) = (first.to_be_bytes(), second.to_be_bytes());
            vec![self.function(), first[0], first[1], second[0], second[1]]
        };
        let asked = |address: u16, count: u16, most: u16| (1..=most).contains(&count).then(|| fields(address, count));
        let bytes_of = |words: &[u16]| -> Vec<u8> { words.iter().flat_map(|word| word.to_be_bytes()).collect() };
        let counted = |address: u16, count: usize, most: u16, data: Vec<u8>| {
            let mut bytes = asked(address, u16::try_from(count).ok()?, most)?;
            bytes.push(u8::try_from(data.len()).ok()?);
            bytes.extend(data);
            Some(bytes)
        };
        match *self {
            Pdu::ReadCoils { address, count } | Pdu::ReadDiscreteInputs { address, count } => {
                asked(address, count, BITS_READ_MAX)
            }
            Pdu::ReadHoldingRegisters { address, count } | Pdu::ReadInputRegisters { address, count } => {
                asked(address, count, WORDS_READ_MAX)
            }
            Pdu::WriteMultipleCoils { address, bits } => counted(address, bits.len(), BITS_WRITTEN_MAX, packed(bits)),
            Pdu::WriteMultipleRegisters { address, words } => {
                counted(address, words.len(), WORDS_WRITTEN_MAX, bytes_of(words))
            }
            Pdu::ReadWriteMultipleRegisters { read_address, count, address, words } => {
                let read = asked(read_address, count, WORDS_READ_MAX)?;
                let write = counted(address, words.len(), WORDS_WRITTEN_AND_READ_MAX, bytes_of(words))?;
                Some([&read[..], &write[1..]].concat())
            }
            Pdu::WriteSingleCoil { .. } | Pdu::WriteSingleRegister { .. } | Pdu::MaskWriteRegister { .. } => {
                Some(self.expected(Quirks::NONE)?.head().to_vec())
            }
        }
    }

    /// What the answer looks like, as far as it is known beforehand. `None`: one request can't ask so much.
    pub(in crate::bus) fn expected(&self, quirks: Quirks) -> Option<Expected> {
        let may_go_on = quirks.has(Quirk::Length);
        let data = |bytes: usize| {
            let count = u8::try_from(bytes).ok()?;
            Some(Expected { may_go_on, ..Expected::new(&[self.function(), count], 2 + bytes) })
        };
        let echo = |fields: &[u16]| {
            let bytes: Vec<u8> = fields.iter().flat_map(|field| field.to_be_bytes()).collect();
            let all = [&[self.function()], &bytes[..]].concat();
            let head = if quirks.has(Quirk::Echo) { &all[..1] } else { &all[..] };
            Some(Expected { may_go_on, ..Expected::new(head, all.len()) })
        };
        match *self {
            Pdu::ReadCoils { count, .. } | Pdu::ReadDiscreteInputs { count, .. } => data(count.div_ceil(8).into()),
            Pdu::ReadHoldingRegisters { count, .. }
            | Pdu::ReadInputRegisters { count, .. }
            | Pdu::ReadWriteMultipleRegisters { count, .. } => data(usize::from(count) * 2),
            Pdu::WriteSingleCoil { address, on } => echo(&[address, if on { 0xFF00 } else { 0 }]),
            Pdu::WriteSingleRegister { address, word } => echo(&[address, word]),
            Pdu::WriteMultipleCoils { address, bits } => echo(&[address, u16::try_from(bits.len()).ok()?]),
            Pdu::WriteMultipleRegisters { address, words } => echo(&[address, u16::try_from(words.len()).ok()?]),
            Pdu::MaskWriteRegister { address, and, or } => echo(&[address, and, or]),
        }
    }

    /// What an answer says.
    ///
    /// # Errors
    /// The end of a sentence that begins with the answer: it is none to this request.
    pub(in crate::bus) fn understand(&self, answer: &[u8], quirks: Quirks) -> Result<Said, String> {
        let may_go_on = quirks.has(Quirk::Length);
        let [function, body @ ..] = answer else { return Err("is empty".into()) };
        if *function == self.function() | EXCEPTION {
            return match body {
                [code] => Ok(Said::Exception(*code)),
                [code, ..] if may_go_on => Ok(Said::Exception(*code)),
                _ => Err("is longer or shorter than an exception".into()),
            };
        }
        if *function != self.function() {
            return Err("is of another function".into());
        }
        match *self {
            Pdu::ReadCoils { count, .. } | Pdu::ReadDiscreteInputs { count, .. } => {
                // Bits come in whole bytes; what stands behind the last one asked for has no meaning.
                let (count, data) = (usize::from(count), counted(body, may_go_on)?);
                if data.len() != count.div_ceil(8) {
                    return Err(format!("holds {} bits for the {count} asked for", data.len() * 8));
                }
                Ok(Said::Bits((0..count).map(|at| data[at / 8] >> (at % 8) & 1 == 1).collect()))
            }
            Pdu::ReadHoldingRegisters { count, .. }
            | Pdu::ReadInputRegisters { count, .. }
            | Pdu::ReadWriteMultipleRegisters { count, .. } => {
                let data = counted(body, may_go_on)?;
                if data.len() != usize::from(count) * 2 {
                    return Err(format!("holds {} bytes for the {count} registers asked for", data.len()));
                }
                Ok(Said::Words(data.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()))
            }
            // Its function was compared, and its length is the frame's business.
            _ if quirks.has(Quirk::Echo) => Ok(Said::Written),
            _ => match self.expected(quirks) {
                Some(expected) if expected.is(answer) => Ok(Said::Written),
                _ => Err("confirms another write than the one it was sent".into()),
            },
        }
    }

    /// Whether this is an exception without its code.
    pub(in crate::bus) fn is_cut_exception(&self, answer: &[u8]) -> bool {
        *answer == [self.function() | EXCEPTION]
    }
}

impl Request {
    /// Whether the answer to it can consist of its own bytes, so that an adapter's echo looks like it: one coil or one
    /// register that is written (functions 5, 6 and 22), and three bytes of bits whose count stands where the address
    /// does; and several registers that are written and read where the address that is read stands for their count.
    /// Where quirks make an answer of less, there are more.
    pub fn is_answered_by_itself(&self, quirks: Quirks) -> bool {
        let of = |pdu: Pdu| Some((pdu.encode()?, pdu.expected(quirks)?));
        Pdu::of(self).and_then(of).is_some_and(|(asked, answer)| answer.is(&asked))
    }
}

impl Said {
    /// The content of an answer, or the code of an exception.
    pub(in crate::bus) fn answer(self) -> Result<Answer, u8> {
        match self {
            Said::Bits(bits) => Ok(Answer::Bits(bits)),
            Said::Words(words) => Ok(Answer::Words(words)),
            Said::Written => Ok(Answer::Written),
            Said::Exception(code) => Err(code),
        }
    }
}

/// Coils in bytes, the first in the lowest bit (6.11).
fn packed(bits: &[bool]) -> Vec<u8> {
    let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, on| byte << 1 | u8::from(*on));
    bits.chunks(8).map(byte).collect()
}

/// The bytes that the first one counts. Whether more `may_go_on` behind them.
fn counted(body: &[u8], may_go_on: bool) -> Result<&[u8], String> {
    match body {
        [count, data @ ..] if usize::from(*count) == data.len() => Ok(data),
        [count, data @ ..] if may_go_on && usize::from(*count) < data.len() => Ok(&data[..usize::from(*count)]),
        _ => Err("is longer or shorter than it says".into()),
    }
}

/// How an answer begins and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bus) struct Expected {
    head: [u8; 7],
    head_len: usize,
    len: usize,
    /// Whether more may stand behind it.
    may_go_on: bool,
}

/// What the bytes of an answer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bus) enum Found {
    Answer,
    Exception,
}

impl Expected {
    fn new(begins: &[u8], len: usize) -> Expected {
        let mut head = [0; 7];
        head[..begins.len()].copy_from_slice(begins);
        Expected { head, head_len: begins.len(), len, may_go_on: false }
    }

    /// What it begins with: all of it, for the echo of a write.
    fn head(&self) -> &[u8] {
        &self.head[..self.head_len]
    }

    /// Its function.
    pub(in crate::bus) fn function(&self) -> u8 {
        self.head[0]
    }

    /// Length of the normal answer, in bytes.
    pub(in crate::bus) fn len(&self) -> usize {
        self.len
    }

    /// What stands at the start of `bytes`, if all of it is there, and its length.
    pub(in crate::bus) fn find(&self, bytes: &[u8]) -> Option<(Found, usize)> {
        if bytes.first()? == &(self.function() | EXCEPTION) {
            return (bytes.len() >= 2).then_some((Found::Exception, 2));
        }
        (bytes.len() >= self.len && bytes.starts_with(self.head())).then_some((Found::Answer, self.len))
    }

    /// Whether something whole is the answer, and no exception.
    fn is(&self, pdu: &[u8]) -> bool {
        self.find(pdu).is_some_and(|(found, len)| found == Found::Answer && self.may_end(len, pdu.len()))
    }

    /// Whether what was found with this length may be all of something that is so long.
    pub(in crate::bus) fn may_end(&self, found: usize, whole: usize) -> bool {
        found == whole || self.may_go_on && found < whole
    }

    /// How many bytes come at least behind these, if they are the beginning of an answer or of an exception.
    pub(in crate::bus) fn lacks(&self, bytes: &[u8]) -> Option<usize> {
        let Some(function) = bytes.first() else { return Some(1) };
        if *function == self.function() | EXCEPTION {
            return Some(2_usize.saturating_sub(bytes.len()));
        }
        let known = bytes.len().min(self.head_len);
        let begins = bytes[..known] == self.head[..known];
        let end = if known < self.head_len { self.head_len } else { self.len };
        begins.then(|| end.saturating_sub(bytes.len()))
    }

    /// Whether what is owed with the other's looks could be taken for this.
    pub(in crate::bus) fn could_be(&self, owed: &Expected) -> bool {
        let common = self.head_len.min(owed.head_len);
        let may_be_as_long = self.len == owed.len || self.may_go_on || owed.may_go_on;
        may_be_as_long && self.head[..common] == owed.head[..common]
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{duplex, AsyncReadExt as _};
    use tokio_modbus::client::{rtu, Client as _};
    use tokio_modbus::slave::SlaveContext as _;
    use tokio_modbus::{Request as Library, Slave};

    use super::*;

    /// The examples of the specification: request, its bytes, the answer's bytes, what they say.
    fn examples() -> Vec<(Pdu<'static>, &'static [u8], &'static [u8], Said)> {
        const COILS: &[bool] = &[true, false, true, true, false, false, true, true, true, false];
        // Coils 27 to 20, 35 to 28 and 38 to 36: 1100 1101, 0110 1011, 101.
        let coils = [&[1, 0, 1, 1, 0, 0, 1, 1][..], &[1, 1, 0, 1, 0, 1, 1, 0], &[1, 0, 1]].concat();
        // Inputs 204 to 197, 212 to 205 and 218 to 213: 1010 1100, 1101 1011, 11 0101.
        let inputs = [&[0, 0, 1, 1, 0, 1, 0, 1][..], &[1, 1, 0, 1, 1, 0, 1, 1], &[1, 0, 1, 0, 1, 1]].concat();
        let bits = |of: Vec<u8>| Said::Bits(of.into_iter().map(|bit| bit == 1).collect());
        vec![
            (
                Pdu::ReadCoils { address: 0x13, count: 0x13 },
                &[1, 0, 0x13, 0, 0x13],
                &[1, 3, 0xCD, 0x6B, 5],
                bits(coils),
            ),
            (
                Pdu::ReadDiscreteInputs { address: 0xC4, count: 0x16 },
                &[2, 0, 0xC4, 0, 0x16],
                &[2, 3, 0xAC, 0xDB, 0x35],
                bits(inputs),
            ),
            (
                Pdu::ReadHoldingRegisters { address: 0x6B, count: 3 },
                &[3, 0, 0x6B, 0, 3],
                &[3, 6, 2, 0x2B, 0, 0, 0, 0x64],
                Said::Words(vec![555, 0, 100]),
            ),
            (
                Pdu::ReadInputRegisters { address: 8, count: 1 },
                &[4, 0, 8, 0, 1],
                &[4, 2, 0, 0xA],
                Said::Words(vec![10]),
            ),
            (
                Pdu::WriteSingleCoil { address: 0xAC, on: true },
                &[5, 0, 0xAC, 0xFF, 0],
                &[5, 0, 0xAC, 0xFF, 0],
                Said::Written,
            ),
            (Pdu::WriteSingleRegister { address: 1, word: 3 }, &[6, 0, 1, 0, 3], &[6, 0, 1, 0, 3], Said::Written),
            (
                Pdu::WriteMultipleCoils { address: 0x13, bits: COILS },
                &[15, 0, 0x13, 0, 0xA, 2, 0xCD, 1],
                &[15, 0, 0x13, 0, 0xA],
                Said::Written,
            ),
            (
                Pdu::WriteMultipleRegisters { address: 1, words: &[0x000A, 0x0102] },
                &[16, 0, 1, 0, 2, 4, 0, 0xA, 1, 2],
                &[16, 0, 1, 0, 2],
                Said::Written,
            ),
            (
                Pdu::MaskWriteRegister { address: 4, and: 0xF2, or: 0x25 },
                &[22, 0, 4, 0, 0xF2, 0, 0x25],
                &[22, 0, 4, 0, 0xF2, 0, 0x25],
                Said::Written,
            ),
            (
                Pdu::ReadWriteMultipleRegisters { read_address: 3, count: 6, address: 14, words: &[255, 255, 255] },
                &[23, 0, 3, 0, 6, 0, 14, 0, 3, 6, 0, 255, 0, 255, 0, 255],
                &[23, 12, 0, 0xFE, 0xA, 0xCD, 0, 1, 0, 3, 0, 0xD, 0, 0xFF],
                Said::Words(vec![0xFE, 0xACD, 1, 3, 0xD, 0xFF]),
            ),
            (Pdu::ReadCoils { address: 0x4A1, count: 1 }, &[1, 4, 0xA1, 0, 1], &[0x81, 2], Said::Exception(2)),
        ]
    }

    #[test]
    fn the_examples_of_the_specification_are_encoded_and_understood() {
        for (pdu, asked, answered, said) in examples() {
            assert_eq!(pdu.encode().as_deref(), Some(asked), "{pdu:?}");
            assert_eq!(pdu.understand(answered, Quirks::NONE), Ok(said), "{pdu:?}");
            let expected = pdu.expected(Quirks::NONE).unwrap();
            let (found, len) = expected.find(&[answered, &[0; 3]].concat()).unwrap();
            assert_eq!((found == Found::Exception, len), (answered[0] >= EXCEPTION, answered.len()));
            assert_eq!(expected.find(&answered[..answered.len() - 1]), None, "{pdu:?}");
        }
    }

    #[test]
    fn one_coil_or_register_is_written_by_the_function_of_several_where_that_is_asked_for() {
        let coil = |multiple| Request::WriteBits { address: 0x13, bits: vec![true], multiple };
        let register = |multiple| Request::WriteWords { address: 1, words: vec![0x0A02], multiple };
        let table: [(Request, &[u8], &[u8]); 4] = [
            (coil(false), &[5, 0, 0x13, 0xFF, 0], &[5, 0, 0x13, 0xFF, 0]),
            (coil(true), &[15, 0, 0x13, 0, 1, 1, 1], &[15, 0, 0x13, 0, 1]),
            (register(false), &[6, 0, 1, 0xA, 2], &[6, 0, 1, 0xA, 2]),
            (register(true), &[16, 0, 1, 0, 1, 2, 0xA, 2], &[16, 0, 1, 0, 1]),
        ];
        for (request, asked, answered) in table {
            let pdu = Pdu::of(&request).unwrap();
            assert_eq!(pdu.encode().as_deref(), Some(asked), "{request:?}");
            assert_eq!(pdu.understand(answered, Quirks::NONE), Ok(Said::Written), "{request:?}");
            assert_eq!(request.is_answered_by_itself(Quirks::NONE), asked == answered, "{request:?}");
        }
    }

    #[test]
    fn what_is_cut_longer_or_of_another_kind_is_no_answer() {
        for (pdu, _, answered, said) in examples() {
            for end in 0..answered.len() {
                assert!(pdu.understand(&answered[..end], Quirks::NONE).is_err(), "{pdu:?}");
            }
            assert!(pdu.understand(&[answered, &[0]].concat(), Quirks::NONE).is_err(), "{pdu:?}");
            for (other, ..) in examples().into_iter().filter(|(other, ..)| other.function() != pdu.function()) {
                assert!(other.understand(answered, Quirks::NONE).is_err(), "{other:?} and the answer to {pdu:?}");
            }
            if said == Said::Written {
                for at in 1..answered.len() {
                    let mut another = answered.to_vec();
                    another[at] ^= 1;
                    assert!(pdu.understand(&another, Quirks::NONE).unwrap_err().contains("another write"), "{pdu:?}");
                }
            }
        }
        let read = Pdu::ReadHoldingRegisters { address: 2, count: 2 };
        assert!(read.understand(&[3, 2, 1, 2], Quirks::NONE).unwrap_err().contains("2 bytes for the 2 registers"));
    }

    #[test]
    fn what_one_request_can_not_ask_is_not_encoded() {
        for count in [0, 2001, u16::MAX] {
            assert_eq!(Pdu::ReadCoils { address: 0, count }.encode(), None);
            assert_eq!(Pdu::ReadInputRegisters { address: 0, count }.encode(), None);
        }
        assert!(Pdu::ReadDiscreteInputs { address: 0, count: 2000 }.encode().is_some());
        assert!(Pdu::ReadHoldingRegisters { address: 0, count: 125 }.encode().is_some());
        assert_eq!(Pdu::ReadHoldingRegisters { address: 0, count: 126 }.encode(), None);
        for (bits, fits) in [(0, false), (1968, true), (1969, false), (70_000, false)] {
            let bits = vec![true; bits];
            assert_eq!(Pdu::WriteMultipleCoils { address: 0, bits: &bits }.encode().is_some(), fits);
        }
        for (words, fits) in [(0, false), (123, true), (124, false)] {
            let words = vec![0; words];
            assert_eq!(Pdu::WriteMultipleRegisters { address: 0, words: &words }.encode().is_some(), fits);
        }
        for (written, count, fits) in [(121, 125, true), (122, 1, false), (0, 1, false), (1, 126, false), (1, 0, false)]
        {
            let pdu = Pdu::ReadWriteMultipleRegisters { read_address: 0, count, address: 0, words: &vec![0; written] };
            assert_eq!(pdu.encode().is_some(), fits, "{written} written, {count} read");
        }
    }

    /// The bytes that tokio-modbus makes of the same, in an RTU frame.
    async fn of_the_library(pdu: Pdu<'_>) -> Vec<u8> {
        let request = match pdu {
            Pdu::ReadCoils { address, count } => Library::ReadCoils(address, count),
            Pdu::ReadDiscreteInputs { address, count } => Library::ReadDiscreteInputs(address, count),
            Pdu::ReadHoldingRegisters { address, count } => Library::ReadHoldingRegisters(address, count),
            Pdu::ReadInputRegisters { address, count } => Library::ReadInputRegisters(address, count),
            Pdu::WriteSingleCoil { address, on } => Library::WriteSingleCoil(address, on),
            Pdu::WriteSingleRegister { address, word } => Library::WriteSingleRegister(address, word),
            Pdu::WriteMultipleCoils { address, bits } => Library::WriteMultipleCoils(address, bits.to_vec().into()),
            Pdu::WriteMultipleRegisters { address, words } => {
                Library::WriteMultipleRegisters(address, words.to_vec().into())
            }
            Pdu::MaskWriteRegister { address, and, or } => Library::MaskWriteRegister(address, and, or),
            Pdu::ReadWriteMultipleRegisters { read_address, count, address, words } => {
                Library::ReadWriteMultipleRegisters(read_address, count, address, words.to_vec().into())
            }
        };
        let (near, mut far) = duplex(512);
        let mut client = rtu::attach_slave(near, Slave(7));
        client.set_slave(Slave(7));
        let mut bytes = vec![0; 512];
        let len = tokio::select! {
            biased;
            ended = client.call(request) => panic!("nobody answered: {ended:?}"),
            len = far.read(&mut bytes) => len.unwrap(),
        };
        bytes[..len].to_vec()
    }

    #[tokio::test]
    async fn tokio_modbus_makes_the_same_bytes() {
        for (pdu, ..) in examples() {
            let frame = of_the_library(pdu).await;
            assert_eq!(pdu.encode().as_deref(), Some(&frame[1..frame.len() - 2]), "{pdu:?}");
        }
    }
}
