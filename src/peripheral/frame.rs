//! Frames of a serial line: what stands around a payload, both ways. Pure.
//!
//! Invariants
//! - What leaves [`Frame::seal`] is one frame: nothing in a payload ends it, or begins another.
//! - What leaves [`Frame::open`] stood in a whole frame with the right checksum.

use std::time::Duration;

use super::checksum::{Checksum, Spelling};

/// Longest frame, in bytes on the line.
pub const FRAME_BYTES_MAX: usize = 4096;

/// How the frames of a line are made.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// What every frame begins with; may be empty.
    pub start: Vec<u8>,
    /// What every frame ends with; may be empty.
    pub end: Vec<u8>,
    /// How the last byte is known.
    pub ends: Ends,
    /// Stands before a `start`, an `end` and itself, each of which is one byte then, within the payload. Or `start` and
    /// `end` are the escape and another byte each, and it stands before itself alone.
    pub escape: Option<u8>,
    /// Stands between the payload and `end`.
    pub checksum: Option<Checksum>,
}

/// How the last byte of a frame is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ends {
    /// By its `end`.
    AtItsEnd,
    /// Every frame is so long on the line, in bytes.
    Fixed(usize),
    /// The frame says how long it is.
    Length(Length),
    /// So long a silence follows.
    Idle(Duration),
}

/// The field of a frame that says how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    /// Bytes of the frame before it.
    pub at: usize,
    /// Its own bytes, 1 or 2.
    pub size: usize,
    /// The lower of two bytes is the first.
    pub little: bool,
    /// What is to be added for the length of the whole frame on the line.
    pub adds: i64,
}

impl Length {
    /// How long a frame is that begins so, on the line; `None`: not enough of it is known.
    pub fn of(&self, begun: &[u8]) -> Option<i64> {
        let field = begun.get(self.at..self.at + self.size)?;
        let add = |sum: i64, byte: &u8| sum << 8 | i64::from(*byte);
        let value = if self.little { field.iter().rev().fold(0, add) } else { field.iter().fold(0, add) };
        Some(value + self.adds)
    }
}

impl Frame {
    /// The bytes of a payload, by their places in it, that say how long the frame is.
    pub fn counts_in_payload(&self) -> std::ops::Range<usize> {
        match self.ends {
            Ends::Length(Length { at, size, .. }) => {
                let [from, to] = [at, at + size].map(|place| place.saturating_sub(self.start.len()));
                from..to
            }
            Ends::AtItsEnd | Ends::Fixed(_) | Ends::Idle(_) => 0..0,
        }
    }

    /// Bytes of the checksum on the line.
    pub fn sum_size(&self) -> usize {
        self.checksum.map_or(0, |checksum| checksum.size())
    }

    /// The shortest that a frame can be on the line, in bytes.
    pub fn least(&self) -> usize {
        let field = match self.ends {
            Ends::Length(length) => length.at + length.size - self.start.len().min(length.at),
            _ => 0,
        };
        self.start.len() + field + self.sum_size() + self.end.len()
    }

    /// Whether a checksum may hold any byte, so that it may look like an end.
    pub fn sums_are_binary(&self) -> bool {
        self.checksum.is_some_and(|checksum| checksum.spelling != Spelling::Hex)
    }

    fn sum(&self, payload: &[u8]) -> Vec<u8> {
        self.checksum.map_or_else(Vec::new, |checksum| checksum.of(&self.start, payload))
    }

    /// The escape, where `start` and `end` begin with it.
    pub fn doubled(&self) -> Option<u8> {
        self.escape.filter(|escape| [&self.start, &self.end].iter().any(|mark| mark.len() == 2 && mark[0] == *escape))
    }

    /// The bytes that an escape stands before.
    fn is_special(&self, byte: u8) -> bool {
        self.escape == Some(byte) || self.start == [byte] || self.end == [byte]
    }

    /// The frame of a payload.
    ///
    /// # Errors
    /// The rest of a sentence that begins with what is in the payload.
    pub fn seal(&self, payload: &[u8]) -> Result<Vec<u8>, String> {
        let sum = self.sum(payload);
        let body = match self.escape {
            Some(escape) => {
                let escaped = |byte: &u8| [escape, *byte][usize::from(!self.is_special(*byte))..].to_vec();
                payload.iter().chain(&sum).flat_map(escaped).collect()
            }
            None => {
                if self.ends == Ends::AtItsEnd {
                    self.check_clear(payload, &sum)?;
                }
                [payload, &sum].concat()
            }
        };
        let whole = [&self.start[..], &body, &self.end].concat();
        if whole.len() > FRAME_BYTES_MAX {
            return Err(format!("is longer than the {FRAME_BYTES_MAX} bytes that a frame may have"));
        }
        Ok(whole)
    }

    /// Whether nothing in a payload ends its frame, or begins another.
    fn check_clear(&self, payload: &[u8], sum: &[u8]) -> Result<(), String> {
        let first_of = |mark: &[u8], bytes: &[u8]| {
            (!mark.is_empty()).then(|| bytes.windows(mark.len()).position(|window| window == mark)).flatten()
        };
        // The end may begin with what the payload ends with.
        let behind = [payload, sum, &self.end].concat();
        let is_ended = first_of(&self.end, &behind).is_some_and(|at| at < payload.len());
        let is_begun = first_of(&self.start, payload).is_some();
        let [mark, name] = match (is_ended, is_begun) {
            (true, _) => [hex(&self.end), "ends".into()],
            (_, true) => [hex(&self.start), "begins".into()],
            _ => return Ok(()),
        };
        Err(format!("holds {mark}, which {name} a frame on this bus, and its frame has no escape"))
    }

    /// The payload of a frame as it stood on the line.
    ///
    /// # Errors
    /// What is wrong with it, as a part of a sentence.
    pub fn open(&self, whole: &[u8]) -> Result<Vec<u8>, String> {
        let body = whole.strip_prefix(&self.start[..]).ok_or("a frame that does not begin as they all do")?;
        let body = body.strip_suffix(&self.end[..]).ok_or("a frame that does not end as they all do")?;
        let body = match self.escape {
            Some(escape) => unescaped(body, escape, self.doubled().is_some())?,
            None => body.to_vec(),
        };
        let cut = body.len().checked_sub(self.sum_size()).ok_or("a frame that is too short for its checksum")?;
        let (payload, found) = body.split_at(cut);
        let right = self.sum(payload);
        if self.checksum.is_some_and(|checksum| !checksum.is_same(&right, found)) {
            return Err(format!("a frame with the checksum {} where {} is right", hex(found), hex(&right)));
        }
        Ok(payload.to_vec())
    }
}

/// What stands there without its escapes, which may stand before any byte, or `doubled`: before an escape only.
fn unescaped(body: &[u8], escape: u8, doubled: bool) -> Result<Vec<u8>, &'static str> {
    let flaw = match doubled {
        true => "a frame with an escape before something else than an escape",
        false => "a frame that is cut behind an escape",
    };
    let (mut plain, mut bytes) = (Vec::with_capacity(body.len()), body.iter());
    while let Some(byte) = bytes.next() {
        let is_escape = *byte == escape;
        let meant = if is_escape { bytes.next().filter(|next| !doubled || **next == escape) } else { Some(byte) };
        plain.push(*meant.ok_or(flaw)?);
    }
    Ok(plain)
}

/// Bytes for a person.
pub fn hex(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::checksum::Kind;
    use super::*;

    fn frame(ends: Ends) -> Frame {
        let checksum = Checksum { kind: Kind::Xor8, spelling: Spelling::BigEndian, covers_start: false };
        Frame { start: vec![2], end: vec![3], ends, escape: None, checksum: Some(checksum) }
    }

    #[test]
    fn where_an_escape_is_doubled_one_before_another_byte_is_a_flaw() {
        let plain = Frame {
            start: vec![0x10, 2],
            end: vec![0x10, 3],
            escape: Some(0x10),
            checksum: None,
            ..frame(Ends::AtItsEnd)
        };
        let whole = |body: &[u8]| [&[0x10, 2][..], body, &[0x10, 3]].concat();
        assert_eq!(plain.open(&whole(&[0x41, 0x10, 0x10, 0x42])), Ok(vec![0x41, 0x10, 0x42]));
        for flawed in [&[0x10, 0x41][..], &[0x41, 0x10], &[0x10, 0x10, 0x10, 5]] {
            assert!(
                plain.open(&whole(flawed)).unwrap_err().contains("an escape before something else"),
                "{flawed:02X?}"
            );
        }
    }

    #[test]
    fn what_is_sealed_opens_as_it_was() {
        let escaped = Frame { escape: Some(0x10), ..frame(Ends::AtItsEnd) };
        for (frame, payload, whole) in [
            (frame(Ends::AtItsEnd), &b"AB"[..], &[2, b'A', b'B', 3, 3][..]),
            (frame(Ends::Fixed(5)), &[3, 2], &[2, 3, 2, 1, 3]),
            (escaped.clone(), &[1, 2, 0x10], &[2, 1, 0x10, 2, 0x10, 0x10, 0x13, 3]),
            // The checksum is within the payload's part of the frame.
            (escaped, &[1], &[2, 1, 1, 3]),
            (Frame { escape: Some(0x10), ..frame(Ends::AtItsEnd) }, &[0x13, 0x10], &[2, 0x13, 0x10, 0x10, 0x10, 3, 3]),
        ] {
            assert_eq!(frame.seal(payload).unwrap(), whole, "{payload:02X?}");
            assert_eq!(frame.open(whole).unwrap(), payload);
            let mut wrong = whole.to_vec();
            wrong[1] ^= 0x40;
            assert!(frame.open(&wrong).is_err());
        }
    }

    #[test]
    fn where_start_and_end_begin_with_the_escape_it_is_doubled_and_nothing_else() {
        let (start, end) = (vec![0x10, 2], vec![0x10, 3]);
        let doubled = Frame { start, end, escape: Some(0x10), checksum: None, ..frame(Ends::AtItsEnd) };
        for (payload, whole) in [
            (&b"A"[..], &[0x10, 2, b'A', 0x10, 3][..]),
            (&[0x10], &[0x10, 2, 0x10, 0x10, 0x10, 3]),
            (&[2, 0x10, 3], &[0x10, 2, 2, 0x10, 0x10, 3, 0x10, 3]),
        ] {
            assert_eq!(doubled.seal(payload).unwrap(), whole, "{payload:02X?}");
            assert_eq!(doubled.open(whole).unwrap(), payload);
        }
        assert!(doubled.open(&[0x10, 2, b'A', 0x10, 0x10, 3]).is_err(), "an escape that is doubled ends no frame");
    }

    #[test]
    fn a_payload_that_ends_its_frame_or_begins_another_is_refused() {
        for (payload, told) in [([1, 3, 4], "holds 03, which ends"), ([1, 2, 4], "holds 02, which begins")] {
            let why = frame(Ends::AtItsEnd).seal(&payload).unwrap_err();
            assert!(why.contains(told), "{why}");
        }
        let ended = |payload: &[u8]| {
            let plain = Frame { start: vec![], end: b"ab".to_vec(), checksum: None, ..frame(Ends::AtItsEnd) };
            plain.seal(payload)
        };
        assert_eq!(ended(b"xa").unwrap(), b"xaab");
        assert!(ended(b"xab").is_err());
        let doubled = Frame { start: vec![], end: b"aa".to_vec(), checksum: None, ..frame(Ends::AtItsEnd) };
        assert!(doubled.seal(b"xa").is_err(), "its end would come a byte too soon");
    }

    #[test]
    fn a_length_is_read_as_it_is_written() {
        let length = |size, little| Length { at: 1, size, little, adds: -2 };
        assert_eq!(length(1, false).of(&[0, 8, 9]), Some(6));
        assert_eq!(length(2, false).of(&[0, 1, 2]), Some(0x100));
        assert_eq!(length(2, true).of(&[0, 2, 1]), Some(0x100));
        assert_eq!(length(2, true).of(&[0, 2]), None);
    }
}
