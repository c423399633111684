//! Modbus ASCII frames (Modbus over Serial Line V1.02, 2.5.2): a colon, unit, PDU and LRC as two hexadecimal digits a
//! byte, and CR LF.
//!
//! Digits are sent in upper case, as the specification has them, and taken in either: nothing else could be meant.

use std::time::Duration;

use super::Shape;
use crate::bus::modbus::pdu::Found;

/// Longest ASCII frame (2.5.2.1): 513 characters, with a PDU of 253 bytes.
pub(in crate::bus) const FRAME_MAX: usize = len(253);

/// How far apart two characters of one frame may come: what comes later is not of it (2.5.2.1).
pub(super) const APART_MAX: Duration = Duration::from_secs(1);

const BEGIN: &[u8] = b":";
const END: &[u8] = b"\r\n";

/// Digits of the longest frame.
const DIGITS_MAX: usize = FRAME_MAX - BEGIN.len() - END.len();

/// Length of the frame with a PDU of so many bytes: the unit is in front of that, and the LRC behind.
pub(super) const fn len(pdu: usize) -> usize {
    BEGIN.len() + 2 * (1 + pdu + 1) + END.len()
}

/// What stands at the very start of `bytes`, and the length of its frame.
pub(super) fn find(shape: &Shape, bytes: &[u8]) -> Option<(Found, usize)> {
    let (unit, pdu, len) = first(bytes)?;
    let (found, of_pdu) = shape.expected.find(&pdu)?;
    (shape.takes(unit) && shape.expected.may_end(of_pdu, pdu.len())).then_some((found, len))
}

/// A PDU in a frame.
pub(in crate::bus) fn sealed(unit: u8, pdu: &[u8]) -> Vec<u8> {
    let mut content = [&[unit], pdu].concat();
    content.push(lrc(&content));
    let digits: String = content.iter().map(|byte| format!("{byte:02X}")).collect();
    [BEGIN, digits.as_bytes(), END].concat()
}

/// Unit and PDU of a whole frame that is intact.
pub(super) fn opened(frame: &[u8]) -> Option<(u8, Vec<u8>)> {
    let (unit, pdu, len) = first(frame)?;
    (len == frame.len()).then_some((unit, pdu))
}

/// Whether `bytes` end in the beginning of a frame.
pub(super) fn is_under_way(bytes: &[u8]) -> bool {
    let Some(begin) = bytes.iter().rposition(|byte| BEGIN.contains(byte)) else { return false };
    let rest = &bytes[begin + BEGIN.len()..];
    let digits = rest.strip_suffix(&END[..1]).unwrap_or(rest);
    digits.len() <= DIGITS_MAX && digits.iter().all(u8::is_ascii_hexdigit)
}

/// Unit, PDU and length of the intact frame at the very start of `bytes`.
fn first(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let rest = bytes.strip_prefix(BEGIN)?;
    let digits = rest.iter().take(DIGITS_MAX + 1).position(|byte| !byte.is_ascii_hexdigit())?;
    let (digits, behind) = rest.split_at(digits);
    if !behind.starts_with(END) || digits.len() % 2 != 0 {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let content: Vec<u8> = digits.chunks(2).map(byte).collect::<Option<_>>()?;
    let (sum, content) = content.split_last()?;
    let [unit, pdu @ ..] = content else { return None };
    let is_intact = !pdu.is_empty() && lrc(content) == *sum;
    is_intact.then(|| (*unit, pdu.to_vec(), BEGIN.len() + digits.len() + END.len()))
}

/// The two's complement of the sum of all bytes (2.5.2.2).
fn lrc(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::peripheral::exchange::Request;
    use crate::peripheral::quirks::Quirks;

    /// The read of the specification's example for function 3 (Modbus Application Protocol V1.1b3, 6.3).
    fn shape() -> Shape {
        let request = Request::ReadWords { holding: true, address: 0x6B, count: 3 };
        Shape::of(0x11, &request, Quirks::NONE).unwrap()
    }

    fn answer() -> Vec<u8> {
        sealed(0x11, &[3, 6, 2, 0x2B, 0, 0, 0, 0x64])
    }

    #[test]
    fn the_specifications_examples_are_framed_as_it_says() {
        assert_eq!(sealed(0x11, &[3, 0, 0x6B, 0, 3]), b":1103006B00037E\r\n");
        assert_eq!(answer(), b":110306022B0000006455\r\n");
        assert_eq!(shape().expected.len(), 8);
        assert_eq!(len(8), answer().len());
        // Appendix B: a message ends in its LRC, the higher digit first, of 61 hex "6" and then "1".
        assert!(sealed(0x9F, &[]).ends_with(b"61\r\n"));
        assert_eq!(FRAME_MAX, 513);
        assert_eq!(sealed(1, &[0; 253]).len(), FRAME_MAX);
        assert_eq!(opened(&sealed(1, &[0; 253])), Some((1, vec![0; 253])));
        assert_eq!(opened(&sealed(1, &[0; 254])), None);
    }

    #[test]
    fn an_answer_is_one_only_with_unit_function_length_and_lrc() {
        let (shape, good) = (shape(), answer());
        assert_eq!(find(&shape, &good), Some((Found::Answer, good.len())));
        assert_eq!(find(&shape, &good.to_ascii_lowercase()), Some((Found::Answer, good.len())));
        assert_eq!(find(&shape, &sealed(0x11, &[0x83, 2])), Some((Found::Exception, 11)));
        assert_eq!(find(&shape, &[&good[..], b":11"].concat()), Some((Found::Answer, good.len())));
        for end in 0..good.len() {
            assert_eq!(find(&shape, &good[..end]), None, "cut after {end}");
        }
        for at in 0..good.len() {
            let mut other = good.clone();
            other[at] = if other[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(find(&shape, &other), None, "{}", other.escape_ascii());
        }
        for other in [
            sealed(0x12, &[3, 6, 2, 0x2B, 0, 0, 0, 0x64]),
            sealed(0x11, &[4, 6, 2, 0x2B, 0, 0, 0, 0x64]),
            sealed(0x11, &[3, 4, 2, 0x2B, 0, 0]),
            sealed(0x11, &[3, 6, 2, 0x2B, 0, 0, 0, 0x64, 0]),
            sealed(0x11, &[0x84, 2]),
            sealed(0x11, &[0x83, 2, 0]),
            sealed(0x11, &[]),
            b":\r\n".to_vec(),
            b":00\r\n".to_vec(),
            good[1..].to_vec(),
            [&good[..good.len() - 2], b"\n"].concat(),
            [&good[..good.len() - 2], b"\r\r\n"].concat(),
            [&good[..good.len() - 2], b"0\r\n"].concat(),
            [&good[..3], b" ", &good[3..]].concat(),
        ] {
            assert_eq!(find(&shape, &other), None, "{}", other.escape_ascii());
        }
    }

    #[test]
    fn a_frame_is_under_way_from_its_colon_to_its_last_character() {
        let good = answer();
        for end in 0..=good.len() {
            assert_eq!(is_under_way(&good[..end]), (1..good.len()).contains(&end), "cut after {end}");
        }
        assert!(is_under_way(b"x:07\r\n:0"));
        assert!(is_under_way(&good[..good.len() - 2].to_ascii_lowercase()));
        assert!(!is_under_way(b":07x0"));
        assert!(!is_under_way(b":07\r0"));
        assert!(!is_under_way(&[b":"[..].to_vec(), vec![b'0'; DIGITS_MAX + 1]].concat()));
    }
}
