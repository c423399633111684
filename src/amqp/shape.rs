//! The shape of encoded values ("Types", 1.2): where one ends, and that it can be decoded safely. Pure.
//!
//! Invariants
//! - What passes is nested at most [`DEPTH_MAX`] deep and holds no more elements than it has bytes: decoding it takes
//!   neither a deep stack nor much memory, whatever sent it (G8).

use std::ops::RangeInclusive;

/// How deep lists, maps, arrays and descriptions may stand in each other. A message of the hub's has four.
pub const DEPTH_MAX: usize = 16;

/// Most elements of an array whose elements take no bytes.
const EMPTY_ELEMENTS_MAX: usize = 1024;

const DESCRIBED: u8 = 0x00;

/// What a descriptor may be: ulong (0x44, 0x53, 0x80) or symbol (0xa3, 0xb3).
const DESCRIPTORS: [u8; 5] = [0x44, 0x53, 0x80, 0xa3, 0xb3];

/// The performatives' descriptors ("Transport", 2.7).
pub const PERFORMATIVES: RangeInclusive<u64> = 0x10..=0x18;

/// The SASL frames' descriptors ("Security", 5.3.3).
pub const SASL: RangeInclusive<u64> = 0x40..=0x44;

/// What is wrong with bytes that are no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misshapen {
    /// They end too early.
    #[error("a value is cut off")]
    Short,
    /// The size and the number of elements of a compound value don't go with what is in it.
    #[error("the size of a list, map or array is wrong")]
    Size,
    /// Compound values stand in each other too deep.
    #[error("values stand more than {DEPTH_MAX} deep in each other")]
    Deep,
    /// A descriptor is something else than a number or a symbol.
    #[error("a descriptor is neither a number nor a symbol")]
    Descriptor,
    /// The first byte of a value is not defined.
    #[error("{0:#04x} begins no value")]
    Code(u8),
}

/// How many bytes the value takes that `bytes` begin with, all that is in it included.
///
/// # Errors
/// It is no value, or one that must not be decoded.
pub fn length(bytes: &[u8]) -> Result<usize, Misshapen> {
    let mut rest = bytes;
    value(&mut rest, 0)?;
    Ok(bytes.len() - rest.len())
}

/// The descriptor of the described value that `bytes` begin with, if it is a number, and one of the symbols that
/// `named` knows a number for.
pub fn descriptor(bytes: &[u8], named: impl Fn(&[u8]) -> Option<u64>) -> Option<u64> {
    match *bytes {
        [DESCRIBED, 0x44, ..] => Some(0),
        [DESCRIBED, 0x53, code, ..] => Some(code.into()),
        [DESCRIBED, 0x80, ..] => Some(u64::from_be_bytes(*bytes[2..].first_chunk()?)),
        [DESCRIBED, 0xa3, length, ref rest @ ..] => named(rest.get(..length.into())?),
        [DESCRIBED, 0xb3, ref rest @ ..] => {
            let (length, rest) = rest.split_first_chunk()?;
            named(rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?)
        }
        _ => None,
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Misshapen> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(Misshapen::Short)?;
    *bytes = rest;
    Ok(taken)
}

fn byte(bytes: &mut &[u8]) -> Result<u8, Misshapen> {
    Ok(take(bytes, 1)?[0])
}

/// A size or a number of elements, of one byte or of four.
fn number(bytes: &mut &[u8], is_wide: bool) -> Result<usize, Misshapen> {
    let taken = take(bytes, if is_wide { 4 } else { 1 })?;
    Ok(taken.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

/// Goes over a value.
fn value(bytes: &mut &[u8], depth: usize) -> Result<(), Misshapen> {
    let (code, described) = constructor(bytes, depth)?;
    payload(bytes, code, depth + described)
}

/// Goes over what stands before a value's bytes: its code, and how many descriptions there are around it.
fn constructor(bytes: &mut &[u8], depth: usize) -> Result<(u8, usize), Misshapen> {
    let mut described = 0;
    loop {
        if depth + described > DEPTH_MAX {
            return Err(Misshapen::Deep);
        }
        match byte(bytes)? {
            DESCRIBED => {
                let code = byte(bytes)?;
                if !DESCRIPTORS.contains(&code) {
                    return Err(Misshapen::Descriptor);
                }
                payload(bytes, code, depth)?;
                described += 1;
            }
            code => return Ok((code, described)),
        }
    }
}

/// Goes over a value's bytes after its code: the upper half of the code says how many there are (1.2.1).
fn payload(bytes: &mut &[u8], code: u8, depth: usize) -> Result<(), Misshapen> {
    let is_wide = code & 0x10 != 0;
    let length = match code >> 4 {
        0x4 => 0,
        0x5 => 1,
        0x6 => 2,
        0x7 => 4,
        0x8 => 8,
        0x9 => 16,
        0xa | 0xb => number(bytes, is_wide)?,
        0xc | 0xd => return compound(bytes, code, depth),
        0xe | 0xf => return array(bytes, is_wide, depth),
        _ => return Err(Misshapen::Code(code)),
    };
    take(bytes, length).map(drop)
}

fn compound(bytes: &mut &[u8], code: u8, depth: usize) -> Result<(), Misshapen> {
    let is_wide = code & 0x10 != 0;
    let is_map = code & 0x0f == 1;
    let size = number(bytes, is_wide)?;
    let mut body = take(bytes, size)?;
    let count = number(&mut body, is_wide)?;
    if is_map && count % 2 != 0 {
        return Err(Misshapen::Size);
    }
    for _ in 0..count {
        value(&mut body, depth + 1)?;
    }
    if body.is_empty() {
        Ok(())
    } else {
        Err(Misshapen::Size)
    }
}

fn array(bytes: &mut &[u8], is_wide: bool, depth: usize) -> Result<(), Misshapen> {
    let size = number(bytes, is_wide)?;
    let mut body = take(bytes, size)?;
    let count = number(&mut body, is_wide)?;
    // One without elements may have no code for them.
    if count == 0 && body.is_empty() {
        return Ok(());
    }
    let (code, described) = constructor(&mut body, depth + 1)?;
    if count > body.len().max(EMPTY_ELEMENTS_MAX) {
        return Err(Misshapen::Size);
    }
    for _ in 0..count {
        payload(&mut body, code, depth + 1 + described)?;
    }
    if body.is_empty() {
        Ok(())
    } else {
        Err(Misshapen::Size)
    }
}

#[cfg(test)]
mod tests {
    use serde_amqp::primitives::{Array, Symbol};
    use serde_amqp::{to_vec, Value};

    use super::*;

    #[test]
    fn the_length_of_whatever_the_library_encodes_is_told() {
        let text = "x".repeat(300);
        for encoded in [
            to_vec(&Value::Null).unwrap(),
            to_vec(&true).unwrap(),
            to_vec(&7_u64).unwrap(),
            to_vec(&text).unwrap(),
            to_vec(&Symbol::from("amqp:not-found")).unwrap(),
            to_vec(&vec![1_i64, 2, 300]).unwrap(),
            to_vec(&vec![text.clone(), text.clone()]).unwrap(),
            to_vec(&Array::from(vec![Symbol::from("a"), Symbol::from("bcd")])).unwrap(),
            to_vec(&Array::<Symbol>::from(vec![])).unwrap(),
            to_vec(&std::collections::BTreeMap::from([("a", 1_u32), ("b", 2)])).unwrap(),
        ] {
            let mut longer = encoded.clone();
            longer.extend([1, 2, 3]);
            assert_eq!(length(&longer), Ok(encoded.len()), "{}", encoded.escape_ascii());
            for end in 0..encoded.len() {
                assert!(length(&encoded[..end]).is_err(), "{}", encoded[..end].escape_ascii());
            }
        }
    }

    #[test]
    fn what_would_take_much_to_decode_is_no_value() {
        let described = [[DESCRIBED, 0x44].repeat(DEPTH_MAX + 1), vec![0x40]].concat();
        assert_eq!(length(&described), Err(Misshapen::Deep));
        assert_eq!(length(&[DESCRIBED, DESCRIBED, 0x44, 0x40, 0x40]), Err(Misshapen::Descriptor));
        let mut lists = vec![0x45];
        for _ in 0..=DEPTH_MAX {
            let head = [&[0xd0][..], &(lists.len() as u32 + 4).to_be_bytes(), &[0, 0, 0, 1]].concat();
            lists = [head, lists].concat();
        }
        assert_eq!(length(&lists), Err(Misshapen::Deep));
        let nothings = [0xf0, 0, 0, 0, 5, 0x7f, 0xff, 0xff, 0xff, 0x40];
        assert_eq!(length(&nothings), Err(Misshapen::Size));
        assert_eq!(length(&[0xd0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]), Err(Misshapen::Short));
        assert_eq!(length(&[0xc1, 2, 1, 0x40]), Err(Misshapen::Size), "a key without a value");
        assert_eq!(length(&[0xc0, 3, 1, 0x40, 0x40]), Err(Misshapen::Size), "more in it than it counts");
        assert_eq!(length(&[0x20]), Err(Misshapen::Code(0x20)));
    }
}
