//! Points in a Modbus device's tables, and how a raw value lies in bits and registers.
//!
//! Invariants
//! - Packing and unpacking are exact inverses for every type and order: no value goes through a float on its way.
//! - A point that `Point::check` accepts fits one request of the protocol.

use super::bcd;
use crate::command::message::VALUE_ELEMENTS_MAX;
use crate::peripheral::exchange::Request;

/// Most bits that one request reads (Modbus Application Protocol V1.1b3, 6.1).
pub const BITS_READ_MAX: u16 = 2000;
/// Most coils that one request writes (6.11).
pub const BITS_WRITTEN_MAX: u16 = 1968;
/// Most registers that one request reads (6.3).
pub const WORDS_READ_MAX: u16 = 125;
/// Most registers that one request writes (6.12).
pub const WORDS_WRITTEN_MAX: u16 = 123;
const _: () =
    assert!(VALUE_ELEMENTS_MAX >= BITS_READ_MAX as usize, "a value must have room for all that a request moves");
/// Most registers that one request writes which reads as well (6.17).
pub const WORDS_WRITTEN_AND_READ_MAX: u16 = 121;
/// One past the highest protocol address (4.4).
const ADDRESSES: usize = 65_536;

/// A place in a Modbus table and how to read its registers.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Which table.
    pub table: Table,
    /// Protocol address, from 0.
    pub address: u16,
    /// How the raw value is encoded.
    pub kind: DataType,
    /// Number of array elements; for `string`, number of registers. `None` is a single value.
    pub count: Option<u16>,
    /// Which register of a value comes first. Text is a sequence of registers, not a value in them: it stays in order.
    pub word_order: Order,
    /// Which byte of a register comes first.
    pub byte_order: Order,
    /// engineering value = raw × scale + offset
    pub scale: f64,
    /// engineering value = raw × scale + offset
    pub offset: f64,
    /// The one bit of the register that is the value, 0 the least significant; it is a `bool` then.
    pub bit: Option<u8>,
    /// Where the power of ten stands by which the scale is multiplied.
    pub scale_register: Option<ScaleRegister>,
    /// What a text that is shorter than its registers is filled up with.
    pub pad: Pad,
    /// How the characters of a text are bytes.
    pub encoding: Encoding,
}

/// What stands behind a text in registers. Read, either is none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pad {
    /// Zero bytes.
    Nul,
    /// Spaces.
    Space,
}

impl Pad {
    fn byte(self) -> u8 {
        match self {
            Pad::Nul => 0,
            Pad::Space => b' ',
        }
    }
}

/// How the characters of a text are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8. Bytes that are none are read as ISO 8859-1: controllers that know no other have umlauts of that.
    Utf8,
    /// ISO 8859-1, one byte a character: U+0000 to U+00FF.
    Latin1,
}

impl Encoding {
    /// The bytes of a text; the error is the first character that it has none for.
    fn bytes(self, text: &str) -> Result<Vec<u8>, char> {
        match self {
            Encoding::Utf8 => Ok(text.as_bytes().to_vec()),
            Encoding::Latin1 => text.chars().map(|char| u8::try_from(char).map_err(|_| char)).collect(),
        }
    }

    /// The text of bytes: every byte is a character of ISO 8859-1.
    fn text(self, bytes: &[u8]) -> String {
        match (self, std::str::from_utf8(bytes)) {
            (Encoding::Utf8, Ok(text)) => text.to_owned(),
            _ => bytes.iter().map(|byte| char::from(*byte)).collect(),
        }
    }
}

/// A register whose signed 16 bits are a power of ten, in an order of its own, the most significant byte first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScaleRegister {
    /// Which table of registers.
    pub table: Table,
    /// Protocol address, from 0.
    pub address: u16,
}

/// The four Modbus tables (Modbus Application Protocol V1.1b3, 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Read-write bits.
    Coil,
    /// Read-only bits.
    Discrete,
    /// Read-write registers.
    Holding,
    /// Read-only registers.
    Input,
}

impl Table {
    /// Whether it is one of bits.
    pub(crate) fn is_bits(self) -> bool {
        matches!(self, Table::Coil | Table::Discrete)
    }

    /// Most bits or registers that one request reads or writes.
    pub(crate) fn most(self, write: bool) -> usize {
        usize::from(match (self.is_bits(), write) {
            (true, false) => BITS_READ_MAX,
            (true, true) => BITS_WRITTEN_MAX,
            (false, false) => WORDS_READ_MAX,
            (false, true) => WORDS_WRITTEN_MAX,
        })
    }
}

/// How a value lies in registers or bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    /// One bit; in a register, 0 or not 0.
    Bool,
    /// 16 bits, unsigned.
    U16,
    /// 16 bits, two's complement.
    I16,
    /// 32 bits, unsigned.
    U32,
    /// 32 bits, two's complement.
    I32,
    /// 64 bits, unsigned.
    U64,
    /// 64 bits, two's complement.
    I64,
    /// IEEE 754 single.
    F32,
    /// IEEE 754 double.
    F64,
    /// Four decimal digits in 16 bits.
    Bcd16,
    /// Eight decimal digits in 32 bits.
    Bcd32,
    /// Text, two bytes a register.
    String,
}

/// Most or least significant first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Most significant first, as in the Modbus specification.
    Big,
    /// Least significant first.
    Little,
}

/// One value as the device keeps it, before scale and offset.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Raw {
    /// `bool`
    Bool(bool),
    /// All integer types: an `i128` holds every one of them exactly.
    Int(i128),
    /// `f32`
    F32(f32),
    /// `f64`
    F64(f64),
}

/// Why a text can't stand in a point's registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// The point's encoding has no such character.
    Character(char),
    /// It takes more bytes than there is room for.
    Length { room: usize, takes: usize },
}

impl DataType {
    /// Registers that one value takes; for text, one register of it.
    pub(crate) fn words(self) -> usize {
        match self {
            DataType::Bool | DataType::U16 | DataType::I16 | DataType::Bcd16 | DataType::String => 1,
            DataType::U32 | DataType::I32 | DataType::Bcd32 | DataType::F32 => 2,
            DataType::U64 | DataType::I64 | DataType::F64 => 4,
        }
    }

    /// Smallest and largest raw value of an integer type.
    pub(super) fn limits(self) -> Option<(i128, i128)> {
        match self {
            DataType::U16 => Some((0, u16::MAX.into())),
            DataType::I16 => Some((i16::MIN.into(), i16::MAX.into())),
            DataType::U32 => Some((0, u32::MAX.into())),
            DataType::I32 => Some((i32::MIN.into(), i32::MAX.into())),
            DataType::U64 => Some((0, u64::MAX.into())),
            DataType::I64 => Some((i64::MIN.into(), i64::MAX.into())),
            DataType::Bcd16 => Some((0, 9_999)),
            DataType::Bcd32 => Some((0, 99_999_999)),
            DataType::Bool | DataType::F32 | DataType::F64 | DataType::String => None,
        }
    }

    /// Whether it is one of decimal digits.
    pub(super) fn is_bcd(self) -> bool {
        matches!(self, DataType::Bcd16 | DataType::Bcd32)
    }
}

impl Point {
    /// A single value, the most significant byte first, as it is.
    pub fn new(table: Table, address: u16, kind: DataType) -> Point {
        Point {
            table,
            address,
            kind,
            count: None,
            word_order: Order::Big,
            byte_order: Order::Big,
            scale: 1.0,
            offset: 0.0,
            bit: None,
            scale_register: None,
            pad: Pad::Nul,
            encoding: Encoding::Utf8,
        }
    }

    /// Whether the point lies in a table of bits.
    pub(super) fn is_bits(&self) -> bool {
        self.table.is_bits()
    }

    /// Bits or registers from the first to the last.
    pub(crate) fn span(&self) -> usize {
        let each = if self.is_bits() { 1 } else { self.kind.words() };
        self.count.map_or(1, usize::from) * each
    }

    /// What makes the point impossible to read, or to write if that is meant, as the end of a sentence.
    pub(super) fn check(&self, write: bool) -> Result<(), String> {
        let most = self.table.most(write);
        let span = self.span();
        if write && matches!(self.table, Table::Discrete | Table::Input) {
            return Err("the table is read-only".into());
        }
        if self.is_bits() && self.kind != DataType::Bool {
            return Err("a table of bits holds nothing but bool".into());
        }
        if self.bit.is_some_and(|bit| bit > 15) || self.bit.is_some() && !self.is_one_bit_of_a_register() {
            return Err("one bit of a register is a single bool, from 0 to 15".into());
        }
        let is_number = !self.is_bits() && !matches!(self.kind, DataType::Bool | DataType::String);
        if self.scale_register.is_some() && !is_number {
            return Err("a scale register is for numbers".into());
        }
        if span == 0 || span > most {
            return Err(format!("one request carries 1 to {most} of them, not {span}"));
        }
        if usize::from(self.address) + span > ADDRESSES {
            return Err("it reaches past address 65535".into());
        }
        Ok(())
    }

    fn is_one_bit_of_a_register(&self) -> bool {
        !self.is_bits() && self.kind == DataType::Bool && self.count.is_none()
    }

    /// The one bit of the register that is the value, if it is one.
    pub(super) fn mask(&self) -> Option<u16> {
        let bit = 1_u16.checked_shl(self.bit?.into())?;
        Some(match self.byte_order {
            Order::Big => bit,
            Order::Little => bit.swap_bytes(),
        })
    }

    /// The request that reads the point. It must have passed `Point::check`.
    pub fn read(&self) -> Request {
        let address = self.address;
        let count = u16::try_from(self.span()).unwrap_or(u16::MAX);
        match self.table {
            Table::Coil | Table::Discrete => Request::ReadBits { coils: self.table == Table::Coil, address, count },
            Table::Holding | Table::Input => {
                Request::ReadWords { holding: self.table == Table::Holding, address, count }
            }
        }
    }

    /// The registers of one value.
    pub(super) fn pack(&self, raw: Raw) -> Vec<u16> {
        let words = self.kind.words();
        let bytes = match raw {
            Raw::Bool(on) => u16::from(on).to_be_bytes().to_vec(),
            Raw::Int(int) if self.kind.is_bcd() => bcd::coded(int).to_be_bytes()[16 - 2 * words..].to_vec(),
            // Two's complement: the low bytes of a wider integer are the narrower one.
            Raw::Int(int) => int.to_be_bytes()[16 - 2 * words..].to_vec(),
            Raw::F32(float) => float.to_be_bytes().to_vec(),
            Raw::F64(float) => float.to_be_bytes().to_vec(),
        };
        let mut words = self.to_words(&bytes);
        if self.word_order == Order::Little {
            words.reverse();
        }
        words
    }

    /// The values in registers; there are [`Point::span`] of these. `None` for each that holds the bits of
    /// `unavailable`. The error is a sentence about what is no value.
    pub(super) fn unpack(&self, words: &[u16], unavailable: Option<u64>) -> Result<Vec<Option<Raw>>, String> {
        let width = self.kind.words();
        let raw = |(at, words): (usize, &[u16])| {
            let bits = self.bits(words);
            if unavailable == Some(bits) {
                return Ok(None);
            }
            let no_digits = || self.no_digits(usize::from(self.address) + at * width, words);
            self.raw(bits).map(Some).ok_or_else(no_digits)
        };
        words.chunks_exact(width).enumerate().map(raw).collect()
    }

    /// The registers of one value as one number, the most significant bit first.
    pub(super) fn bits(&self, words: &[u16]) -> u64 {
        let mut words = words.to_vec();
        if self.word_order == Order::Little {
            words.reverse();
        }
        self.to_bytes(&words).iter().fold(0, |bits, &byte| bits << 8 | u64::from(byte))
    }

    /// The value of these bits; `None` where they are to be decimal digits and are not.
    fn raw(&self, unsigned: u64) -> Option<Raw> {
        Some(match self.kind {
            DataType::Bool => Raw::Bool(self.bit.map_or(unsigned != 0, |bit| unsigned >> bit & 1 == 1)),
            DataType::U16 | DataType::U32 | DataType::U64 | DataType::String => Raw::Int(unsigned.into()),
            // The casts keep the low bits and give them their sign: that is the type's meaning.
            DataType::I16 => Raw::Int((unsigned as i16).into()),
            DataType::I32 => Raw::Int((unsigned as i32).into()),
            DataType::I64 => Raw::Int((unsigned as i64).into()),
            DataType::F32 => Raw::F32(f32::from_bits(unsigned as u32)),
            DataType::F64 => Raw::F64(f64::from_bits(unsigned)),
            DataType::Bcd16 | DataType::Bcd32 => Raw::Int(bcd::number(unsigned)?),
        })
    }

    /// What is said of registers that hold something else than decimal digits.
    fn no_digits(&self, address: usize, words: &[u16]) -> String {
        let held: Vec<String> = words.iter().map(|word| format!("0x{word:04X}")).collect();
        let (held, last) = (held.join(" "), address + words.len() - 1);
        let registers = match words {
            [_] => format!("the register at address {address} holds"),
            _ => format!("the registers at addresses {address} to {last} hold"),
        };
        format!("{registers} {held}, where each four bits are to be a digit from 0 to 9: check the type and the order")
    }

    /// Registers of a text, filled up to the point's length.
    pub(super) fn pack_text(&self, text: &str) -> Result<Vec<u16>, Unfit> {
        let (room, mut bytes) = (self.span() * 2, self.encoding.bytes(text).map_err(Unfit::Character)?);
        if bytes.len() > room {
            return Err(Unfit::Length { room, takes: bytes.len() });
        }
        bytes.resize(room, self.pad.byte());
        Ok(self.to_words(&bytes))
    }

    /// The text in registers, up to its first zero byte, as what stands behind that is the remains of a longer one,
    /// and without the spaces that fill it up.
    pub(super) fn unpack_text(&self, words: &[u16]) -> String {
        let bytes = self.to_bytes(words);
        let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        self.encoding.text(text).trim_end_matches(' ').to_owned()
    }

    fn to_words(&self, bytes: &[u8]) -> Vec<u16> {
        let word = match self.byte_order {
            Order::Big => u16::from_be_bytes,
            Order::Little => u16::from_le_bytes,
        };
        bytes.chunks_exact(2).map(|pair| word([pair[0], pair[1]])).collect()
    }

    fn to_bytes(&self, words: &[u16]) -> Vec<u8> {
        let bytes = match self.byte_order {
            Order::Big => u16::to_be_bytes,
            Order::Little => u16::to_le_bytes,
        };
        words.iter().flat_map(|&word| bytes(word)).collect()
    }
}
