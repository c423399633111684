//! Modbus RTU frames (Modbus over Serial Line V1.02, 2.5.1): unit, PDU and CRC.

use super::Shape;
use crate::bus::modbus::pdu::Found;

/// Longest RTU frame (2.5.1).
pub(in crate::bus) const FRAME_MAX: usize = 256;

/// What a frame has beside its PDU: the unit in front, the CRC behind.
const AROUND: usize = 3;

/// Length of the frame with a PDU of so many bytes.
pub(super) fn len(pdu: usize) -> usize {
    AROUND + pdu
}

/// What stands at the very start of `bytes`, and the length of its frame.
pub(super) fn find(shape: &Shape, bytes: &[u8]) -> Option<(Found, usize)> {
    let (unit, pdu) = bytes.split_first()?;
    if !shape.takes(*unit) {
        return None;
    }
    let (found, of_pdu) = shape.expected.find(pdu)?;
    // Where a frame ends that is longer than it should be, only its CRC says.
    let mut ends =
        (len(of_pdu)..=bytes.len().min(FRAME_MAX)).take_while(|end| shape.expected.may_end(len(of_pdu), *end));
    ends.find(|end| is_intact(&bytes[..*end])).map(|end| (found, end))
}

/// A PDU in a frame.
pub(in crate::bus) fn sealed(unit: u8, pdu: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(AROUND + pdu.len());
    frame.push(unit);
    frame.extend(pdu);
    frame.extend(crc(&frame).to_le_bytes());
    frame
}

/// Unit and PDU of a whole frame that is intact.
pub(in crate::bus) fn opened(frame: &[u8]) -> Option<(u8, &[u8])> {
    let [unit, pdu @ .., _, _] = frame else { return None };
    (!pdu.is_empty() && is_intact(frame)).then_some((*unit, pdu))
}

/// Whether a frame's last two bytes are the CRC of the others (low byte first; 2.5.1.2).
fn is_intact(frame: &[u8]) -> bool {
    match frame.split_last_chunk::<2>() {
        Some((content, sum)) => crc(content) == u16::from_le_bytes(*sum),
        None => false,
    }
}

fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |sum, &byte| {
        (0..8).fold(sum ^ u16::from(byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xA001 } else { sum >> 1 })
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::peripheral::exchange::Request;
    use crate::peripheral::quirks::Quirks;

    /// A frame with its CRC.
    pub(crate) fn sealed(content: &[u8]) -> Vec<u8> {
        let mut frame = content.to_vec();
        frame.extend(crc(content).to_le_bytes());
        frame
    }

    fn words(count: u16) -> Request {
        Request::ReadWords { holding: true, address: 0, count }
    }

    #[test]
    fn the_crc_is_the_one_of_the_specification() {
        // Modbus over Serial Line V1.02, appendix B: 02 07 gives 41 12.
        assert_eq!(sealed(&[2, 7]), [2, 7, 0x41, 0x12]);
        assert_eq!(sealed(&[1, 3, 8, 0x2B, 0, 2]), [1, 3, 8, 0x2B, 0, 2, 0xB6, 0x63]);
        assert!(!is_intact(&[2, 7, 0x41, 0x13]));
        assert!(!is_intact(&[2]));
        assert!(!is_intact(&[]));
    }

    #[test]
    fn an_answer_is_one_only_with_unit_function_length_and_crc() {
        let shape = Shape::of(7, &words(2), Quirks::NONE).unwrap();
        let good = sealed(&[7, 3, 4, 0, 1, 0, 2]);
        assert_eq!(find(&shape, &good), Some((Found::Answer, 9)));
        assert_eq!(find(&shape, &sealed(&[7, 0x83, 2])), Some((Found::Exception, 5)));
        for end in 0..good.len() {
            assert_eq!(find(&shape, &good[..end]), None, "cut after {end}");
        }
        for other in [
            sealed(&[8, 3, 4, 0, 1, 0, 2]),
            sealed(&[7, 4, 4, 0, 1, 0, 2]),
            sealed(&[7, 3, 2, 0, 1]),
            sealed(&[7, 0x84, 2]),
            [&good[..8], &[good[8] ^ 1]].concat(),
        ] {
            assert_eq!(find(&shape, &other), None, "{other:x?}");
        }
    }

    #[test]
    fn a_write_is_confirmed_only_by_its_own_echo() {
        let one = Request::WriteWords { address: 0x0102, words: vec![0x0304], multiple: false };
        let many = Request::WriteWords { address: 0x0102, words: vec![0; 3], multiple: false };
        let coil = Request::WriteBits { address: 5, bits: vec![true], multiple: false };
        let coils = Request::WriteBits { address: 5, bits: vec![true; 9], multiple: false };
        let table: [(_, &[u8]); 4] = [
            (one, &[9, 6, 1, 2, 3, 4]),
            (many, &[9, 16, 1, 2, 0, 3]),
            (coil, &[9, 5, 0, 5, 0xFF, 0]),
            (coils, &[9, 15, 0, 5, 0, 9]),
        ];
        for (request, content) in table {
            let shape = Shape::of(9, &request, Quirks::NONE).unwrap();
            assert_eq!(find(&shape, &sealed(content)), Some((Found::Answer, 8)));
            for i in 0..6 {
                let mut other = content.to_vec();
                other[i] ^= 1;
                assert_eq!(find(&shape, &sealed(&other)), None, "{other:x?}");
            }
        }
    }

    #[test]
    fn a_request_that_looks_like_its_own_answer_is_known() {
        let bits = |address, count| Request::ReadBits { coils: true, address, count };
        for request in [
            words(1),
            words(3),
            bits(0x0300, 16),
            bits(0x0300, 17),
            bits(0x03FF, 24),
            bits(0x03FF, 25),
            bits(0x0400, 24),
            Request::WriteBits { address: 5, bits: vec![false], multiple: false },
            Request::WriteWords { address: 5, words: vec![9], multiple: false },
        ] {
            let content = match &request {
                Request::ReadBits { address, count, .. } | Request::ReadWords { address, count, .. } => {
                    let function = if matches!(request, Request::ReadBits { .. }) { 1 } else { 3 };
                    [vec![9, function], address.to_be_bytes().to_vec(), count.to_be_bytes().to_vec()].concat()
                }
                Request::WriteBits { .. } => vec![9, 5, 0, 5, 0, 0],
                _ => vec![9, 6, 0, 5, 0, 9],
            };
            let found = find(&Shape::of(9, &request, Quirks::NONE).unwrap(), &sealed(&content));
            assert_eq!(found.is_some(), request.is_answered_by_itself(Quirks::NONE), "{request:?}");
        }
        for many in [
            Request::WriteBits { address: 5, bits: vec![true; 2], multiple: false },
            Request::WriteWords { address: 5, words: vec![9; 2], multiple: false },
        ] {
            assert!(!many.is_answered_by_itself(Quirks::NONE));
        }
    }

    #[test]
    fn what_no_frame_can_hold_has_no_shape() {
        assert!(Shape::of(1, &words(128), Quirks::NONE).is_none());
        assert!(Shape::of(1, &Request::ReadBits { coils: true, address: 0, count: 2048 }, Quirks::NONE).is_none());
        let line = Request::line(vec![], None, None);
        assert!(Shape::of(1, &line, Quirks::NONE).is_none());
    }
}
