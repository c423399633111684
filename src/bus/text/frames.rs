//! Where the frames of a stream begin and end, for as long as the port is open. Pure.
//!
//! Invariants
//! - What comes before a start is nobody's.
//! - A frame that is not made as the bus says, or whose checksum is wrong, is none: it is only told.
//! - A frame knows where it began. One that began before its beginning could be known is not whole.
//! - It keeps a bounded number of bytes.

use std::time::Instant;

use super::splitter::{Place, TextLine};
use crate::peripheral::frame::{Ends, Frame, FRAME_BYTES_MAX};

/// Cuts a stream into frames.
#[derive(Debug)]
pub(in crate::bus) struct Frames {
    frame: Frame,
    /// Bytes that came in all.
    place: u64,
    /// What there is of the frame that has not ended: the last bytes that came. If there is a start, it begins so.
    rest: Vec<u8>,
    /// Whether a frame may begin with the first of them.
    known: bool,
    /// Where more began than is kept of one.
    long: Option<u64>,
    /// The last byte was an escape.
    escaped: bool,
    /// When the last byte came.
    heard: Option<Instant>,
    /// What was wrong last, and where it ended.
    flaw: Option<(u64, String)>,
    /// How often the next start was looked for within what was no frame.
    looked: u32,
}

/// So often the next start is looked for within what was no frame; behind that, only silence tells where one begins.
const LOOKS_MAX: u32 = 16;

impl Frames {
    /// At a stream that may be in the middle of a frame.
    pub(in crate::bus) fn new(frame: Frame) -> Frames {
        // Where a start stands within no payload, it says for itself where a frame begins.
        let known = Frames::shows_its_start(&frame);
        let (rest, long, heard, flaw) = (Vec::new(), None, None, None);
        Frames { frame, place: 0, rest, known, long, escaped: false, heard, flaw, looked: 0 }
    }

    fn shows_its_start(frame: &Frame) -> bool {
        frame.ends == Ends::AtItsEnd && !frame.start.is_empty()
    }

    pub(in crate::bus) fn frame(&self) -> &Frame {
        &self.frame
    }

    /// The stream is another one.
    pub(in crate::bus) fn restart(&mut self) {
        *self = Frames::new(self.frame.clone());
    }

    /// Where the next byte will stand.
    pub(in crate::bus) fn place(&self) -> Place {
        Place(self.place)
    }

    /// Where the first of the bytes that are kept stands.
    fn base(&self) -> u64 {
        self.place - self.rest.len() as u64
    }

    /// Whether a frame has begun and not ended, as far as is known.
    pub(in crate::bus) fn is_within(&self) -> bool {
        !self.known || !self.rest.is_empty() || self.long.is_some()
    }

    /// Whether a frame has begun at this place or later, and not ended.
    pub(in crate::bus) fn is_within_since(&self, place: Place) -> bool {
        Place(self.long.unwrap_or_else(|| self.base())) >= place && self.is_within()
    }

    /// Whether what has begun since this place is longer than any frame that is kept.
    pub(in crate::bus) fn is_overlong_since(&self, place: Place) -> bool {
        self.long.is_some_and(|begun| Place(begun) >= place)
    }

    /// What was wrong with what has ended last since this place.
    pub(in crate::bus) fn flaw_since(&self, place: Place) -> Option<&str> {
        self.flaw.as_ref().filter(|(ended, _)| Place(*ended) > place).map(|(_, flaw)| flaw.as_str())
    }

    /// What there is of the frame that has not ended.
    pub(in crate::bus) fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// What has begun will not be ended: the next byte may begin a frame.
    pub(in crate::bus) fn align(&mut self) {
        self.rest.clear();
        (self.known, self.long, self.escaped, self.looked) = (true, None, false, 0);
    }

    /// When silence will have ended a frame, if nothing comes until then.
    pub(in crate::bus) fn ends_at(&self) -> Option<Instant> {
        let Ends::Idle(silence) = self.frame.ends else { return None };
        self.heard.filter(|_| !self.rest.is_empty()).map(|heard| heard + silence)
    }

    /// Gives the frame that silence has ended by now.
    pub(in crate::bus) fn tick(&mut self, now: Instant) -> Option<TextLine> {
        self.ends_at().filter(|at| *at <= now)?;
        let found = (0..self.rest.len()).filter(|at| self.rest[*at..].starts_with(&self.frame.start));
        // Without a start there is one place to begin.
        let found: Vec<usize> = found.take(if self.frame.start.is_empty() { 1 } else { LOOKS_MAX as usize }).collect();
        let line = found.into_iter().find_map(|at| self.opened(at, self.rest.len()));
        self.align();
        line
    }

    /// Takes what came, and gives the frames that it ends. A silence that was not waited for ends none: what is read
    /// later may have lain there while the gateway was held up, and half a frame must not pass for a whole one.
    pub(in crate::bus) fn feed(&mut self, bytes: &[u8], now: Instant) -> Vec<TextLine> {
        let mut frames = Vec::new();
        for byte in bytes {
            self.place += 1;
            self.rest.push(*byte);
            self.heard = Some(now);
            let doubled = self.frame.doubled();
            if doubled.is_none() {
                self.begin();
            }
            match (self.frame.ends, doubled) {
                (_, Some(escape)) => frames.extend(self.doubled_end(*byte, escape)),
                (Ends::AtItsEnd, None) if self.frame.escape.is_some() => frames.extend(self.escaped_end(*byte)),
                (Ends::AtItsEnd, None) => frames.extend(self.end()),
                (Ends::Fixed(_) | Ends::Length(_), None) => frames.extend(self.counted()),
                (Ends::Idle(_), None) => {}
            }
            if self.rest.len() > FRAME_BYTES_MAX {
                self.long.get_or_insert(self.place - self.rest.len() as u64);
                self.rest.clear();
                self.known = Frames::shows_its_start(&self.frame);
            }
        }
        frames
    }

    /// Drops what comes before a start.
    fn begin(&mut self) {
        let start = &self.frame.start;
        let may_begin = |at: &usize| self.rest[*at..].starts_with(start) || start.starts_with(&self.rest[*at..]);
        let at = (0..self.rest.len()).find(may_begin).unwrap_or(self.rest.len());
        if at > 0 {
            self.rest.drain(..at);
            self.escaped = false;
        }
    }

    /// Looks whether a frame has ended, where a payload holds neither a start nor an end. A checksum may: so a frame
    /// that ends too soon may end with the next byte.
    fn end(&mut self) -> Option<TextLine> {
        let Frame { start, end, .. } = &self.frame;
        let sum_at = self.rest.strip_suffix(&end[..])?.len().checked_sub(self.frame.sum_size())?;
        let body = &self.rest[..sum_at];
        let last = |mark: &[u8]| {
            let is_mark = |at: &usize| body[*at..].starts_with(mark);
            (!mark.is_empty()).then(|| (0..body.len()).rev().find(is_mark)).flatten()
        };
        let behind = last(end).map_or(0, |at| at + end.len());
        // Without a start a frame begins behind the end of the last, even if that was none.
        let begun = if start.is_empty() { Some(behind) } else { last(start).filter(|at| *at >= behind) };
        let may_end_later = self.frame.sums_are_binary();
        let frame = begun.and_then(|begun| self.opened(begun, self.rest.len()));
        if frame.is_some() || !may_end_later {
            self.align();
        }
        frame
    }

    /// The same where what stands within a payload is escaped.
    fn escaped_end(&mut self, byte: u8) -> Option<TextLine> {
        let is_escaped = std::mem::replace(&mut self.escaped, false);
        if is_escaped {
            return None;
        }
        self.escaped = Some(byte) == self.frame.escape;
        if self.frame.start == [byte] {
            self.rest.drain(..self.rest.len() - 1);
            self.long = None;
        }
        if self.frame.end != [byte] {
            return None;
        }
        let frame = self.opened(0, self.rest.len());
        self.align();
        frame
    }

    /// The same where a start or an end is an escape and another byte, and an escape within a payload is two of them.
    fn doubled_end(&mut self, byte: u8, escape: u8) -> Option<TextLine> {
        let begun = self.rest.len() > self.frame.start.len();
        let is_escaped = std::mem::replace(&mut self.escaped, false);
        self.escaped = !is_escaped && byte == escape;
        let is = |mark: &[u8]| is_escaped && mark == [escape, byte];
        if is(&self.frame.start) {
            self.rest = self.frame.start.clone();
            self.long = None;
        } else if is(&self.frame.end) && (begun || self.long.is_some()) {
            let frame = self.opened(0, self.rest.len());
            self.align();
            return frame;
        } else if !begun {
            // What comes before a start is nobody's; an escape may begin one.
            self.rest.clear();
            self.rest.extend(self.escaped.then_some(escape));
        }
        None
    }

    /// The whole frames that there are, where their length is known. Behind one that is none, the next start is looked
    /// for; without a start nobody knows where the next begins, until the line is quiet. What seemed to be a long frame
    /// may have hidden several.
    fn counted(&mut self) -> Vec<TextLine> {
        let mut frames = Vec::new();
        while !self.rest.is_empty() {
            let length = match self.frame.ends {
                Ends::Length(length) => length.of(&self.rest),
                Ends::Fixed(length) => Some(i64::try_from(length).unwrap_or(i64::MAX)),
                Ends::AtItsEnd | Ends::Idle(_) => None,
            };
            let Some(length) = length else { break };
            let length = usize::try_from(length).unwrap_or_default();
            if !(self.frame.least()..=FRAME_BYTES_MAX).contains(&length) {
                let why = format!("a frame whose length is {length}, which none can have");
                self.flaw = Some((self.place, why));
            } else if self.rest.len() < length {
                break;
            } else if let Some(frame) = self.opened(0, length) {
                let is_proven = self.frame.checksum.is_some() || !self.frame.end.is_empty();
                self.known |= is_proven;
                self.rest.drain(..length);
                (self.long, self.looked) = (None, 0);
                self.begin();
                frames.push(frame);
                continue;
            }
            self.looked += 1;
            if self.frame.start.is_empty() || self.looked > LOOKS_MAX {
                self.rest.clear();
                self.known = false;
                break;
            }
            self.rest.remove(0);
            self.begin();
        }
        frames
    }

    /// The frame that stands there in what is kept, if it is one.
    fn opened(&mut self, from: usize, to: usize) -> Option<TextLine> {
        match self.frame.open(&self.rest[from..to]) {
            Ok(payload) => {
                let begun = Place(self.base() + from as u64);
                // Behind a frame that began at another's end, nothing is unknown any more.
                let whole = (self.known || from > 0) && self.long.is_none();
                Some(TextLine::of(payload, begun, whole))
            }
            Err(flaw) => {
                self.flaw = Some((self.place, flaw));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::peripheral::checksum::{Checksum, Kind, Spelling};
    use crate::peripheral::frame::Length;

    fn checksum(spelling: Spelling) -> Option<Checksum> {
        Some(Checksum { kind: Kind::Xor8, spelling, covers_start: false })
    }

    /// STX, a payload and ETX, with a BCC in hexadecimal digits.
    fn digits() -> Frame {
        let (start, end) = (vec![2], vec![3]);
        Frame { start, end, ends: Ends::AtItsEnd, escape: None, checksum: checksum(Spelling::Hex) }
    }

    /// STX, a length, the rest of a payload, and a BCC.
    fn counted() -> Frame {
        let ends = Ends::Length(Length { at: 1, size: 1, little: false, adds: 2 });
        Frame { start: vec![2], end: vec![], ends, escape: None, checksum: checksum(Spelling::BigEndian) }
    }

    fn aligned(frame: Frame) -> Frames {
        let mut frames = Frames::new(frame);
        frames.align();
        frames
    }

    fn cut(frames: &mut Frames, bytes: &[u8]) -> Vec<(Vec<u8>, bool)> {
        let lines = frames.feed(bytes, Instant::now());
        lines.into_iter().map(|line| (line.bytes.clone(), line.is_since(Place(0)))).collect()
    }

    fn whole(payload: &[u8]) -> (Vec<u8>, bool) {
        (payload.to_vec(), true)
    }

    #[test]
    fn frames_are_found_wherever_the_pieces_end_and_whatever_stands_between_them() {
        let escaped = Frame { escape: Some(0x10), checksum: checksum(Spelling::BigEndian), ..digits() };
        let binary = Frame { checksum: checksum(Spelling::BigEndian), ..digits() };
        let module = Frame { start: vec![], end: b"\r".to_vec(), ..digits() };
        let fixed = Frame { ends: Ends::Fixed(5), ..binary.clone() };
        let doubled = Frame { start: vec![0x10, 2], end: vec![0x10, 3], ..escaped.clone() };
        for (frame, payloads) in [
            (digits(), [&b"AB"[..], b"C", b""]),
            // A checksum that is an end, or a start.
            (binary, [b"AB", b"AC", b"x"]),
            (module, [b"!01", b">+1", b"?"]),
            (escaped, [&[2, 3, 0x10], &[1, 3], &[0x13, 0x10]]),
            (doubled, [&[2, 0x10, 3], &[0x10, 0x10], &[0x10, 2, 3]]),
            (counted(), [&[3, 2, 9], &[1], &[2, 2]]),
            (fixed, [b"\x02\x03", b"\x03\x03", b"AB"]),
        ] {
            let noise: &[u8] = if frame.start.is_empty() { b"" } else { b"\0x" };
            let mut stream = Vec::new();
            for payload in payloads {
                stream.extend(noise);
                stream.extend(frame.seal(payload).unwrap());
            }
            for size in 1..=stream.len() {
                let mut frames = aligned(frame.clone());
                let found: Vec<_> = stream.chunks(size).flat_map(|piece| cut(&mut frames, piece)).collect();
                assert_eq!(found, payloads.map(whole), "{frame:?} in pieces of {size}");
                assert!(!frames.is_within(), "{frame:?}");
            }
        }
    }

    #[test]
    fn a_frame_with_a_wrong_checksum_is_none_and_is_told() {
        for frame in [digits(), counted(), Frame { start: vec![], end: b"\r".to_vec(), ..digits() }] {
            let payload: &[u8] = if matches!(frame.ends, Ends::Length(_)) { &[3, 7, 7] } else { b"AB" };
            let sealed = frame.seal(payload).unwrap();
            for at in frame.start.len()..sealed.len() - frame.end.len() {
                let mut frames = aligned(frame.clone());
                let mut broken = sealed.clone();
                broken[at] ^= 1;
                assert_eq!(cut(&mut frames, &broken), [], "{broken:02X?}");
                assert!(at < 2 || frames.flaw_since(Place(0)).is_some_and(|flaw| flaw.contains("checksum")));
                assert_eq!(frames.flaw_since(frames.place()), None, "it was before");
                frames.align();
                assert_eq!(cut(&mut frames, &sealed), [whole(payload)]);
            }
        }
    }

    #[test]
    fn noise_that_looks_like_a_start_neither_makes_a_frame_nor_hides_one_that_begins_so() {
        let mut frames = aligned(digits());
        let sealed = digits().seal(b"OK").unwrap();
        assert_eq!(cut(&mut frames, &[b"\x02x", &sealed[..]].concat()), [whole(b"OK")]);
        // A length that none can have, and a frame that is shorter than what follows it.
        let sealed = counted().seal(&[3, 7, 7]).unwrap();
        for noise in [&[2, 0][..], &[2, 1]] {
            let mut frames = aligned(counted());
            assert_eq!(cut(&mut frames, &[noise, &sealed[..]].concat()), [whole(&[3, 7, 7])], "{noise:?}");
        }
    }

    #[test]
    fn what_seemed_to_be_a_long_frame_hides_none_of_those_within_it() {
        let sealed = counted().seal(&[3, 7, 7]).unwrap();
        // As long as four of them are with it, and half of a fifth.
        let noise = [2, 4 * sealed.len() as u8 + 2];
        let stream = [&noise[..], &sealed.repeat(5)].concat();
        let mut frames = aligned(counted());
        assert_eq!(cut(&mut frames, &stream), vec![whole(&[3, 7, 7]); 5]);
        assert!(!frames.is_within());
    }

    #[test]
    fn what_had_begun_is_no_frame_since() {
        for frame in [digits(), counted()] {
            let payload: &[u8] = if matches!(frame.ends, Ends::Length(_)) { &[3, 7, 7] } else { b"AB" };
            let sealed = frame.seal(payload).unwrap();
            for at in 1..sealed.len() {
                let mut frames = aligned(frame.clone());
                frames.feed(&sealed[..at], Instant::now());
                let asked = frames.place();
                assert!(frames.is_within() && !frames.is_within_since(asked));
                let found = frames.feed(&[&sealed[at..], &sealed[..]].concat(), Instant::now());
                assert_eq!(found.iter().map(|line| line.is_since(asked)).collect::<Vec<_>>(), [false, true]);
            }
        }
    }

    #[test]
    fn what_is_doubled_in_a_payload_neither_begins_nor_ends_a_frame() {
        let doubled =
            Frame { start: vec![0x10, 2], end: vec![0x10, 3], escape: Some(0x10), checksum: None, ..digits() };
        let payload = [b'x', 0x10, 2, 0x10, 3, b'y'];
        let sealed = doubled.seal(&payload).unwrap();
        // Whoever begins to listen in the middle of it hears none, and the next one.
        for at in 1..sealed.len() {
            let mut frames = Frames::new(doubled.clone());
            let cut = cut(&mut frames, &[&sealed[at..], b"zz", &sealed[..]].concat());
            // Between the two bytes of a doubled escape nobody can tell.
            let is_between = sealed[at - 1..=at] == [0x10, 0x10];
            assert!(cut == [whole(&payload)] || is_between, "from {at}: {cut:02X?}");
            assert!(cut.last() == Some(&whole(&payload)), "from {at}: {cut:02X?}");
        }
        // A frame that is begun anew.
        let mut frames = aligned(doubled.clone());
        assert_eq!(cut(&mut frames, &[&sealed[..3], &sealed[..]].concat()), [whole(&payload)]);
    }

    #[test]
    fn a_count_says_nothing_until_it_is_known_where_it_begins() {
        let plain = Frame { start: vec![], end: vec![], checksum: None, ends: Ends::Fixed(4), ..digits() };
        let mut frames = Frames::new(plain);
        let found = cut(&mut frames, b"341234123412");
        assert!(found.len() == 3 && found.iter().all(|(_, whole)| !whole), "{found:?}");
        frames.align();
        assert_eq!(cut(&mut frames, b"1234"), [whole(b"1234")]);
    }

    #[test]
    fn silence_ends_a_frame_that_nothing_else_ends() {
        let idle = Duration::from_millis(20);
        let frame = Frame { end: vec![], ends: Ends::Idle(idle), checksum: checksum(Spelling::BigEndian), ..digits() };
        let (mut frames, now) = (aligned(frame.clone()), Instant::now());
        let sealed = frame.seal(b"AB").unwrap();
        assert!(frames.feed(&sealed[..2], now).is_empty());
        let later = now + idle / 2;
        assert!(frames.feed(&sealed[2..], later).is_empty());
        assert_eq!(frames.ends_at(), Some(later + idle));
        assert!(frames.tick(later + idle / 2).is_none());
        assert_eq!(frames.tick(later + idle).unwrap().bytes, b"AB");
        assert!(frames.ends_at().is_none() && !frames.is_within());
        // Noise before the start.
        frames.feed(&[b"x\x02", &sealed[..]].concat(), later);
        assert_eq!(frames.tick(later + idle).unwrap().bytes, b"AB");
    }

    #[test]
    fn half_a_frame_is_none_where_the_gateway_was_held_up_before_it_read_the_rest() {
        let idle = Duration::from_millis(20);
        let plain = Frame { start: vec![], end: vec![], ends: Ends::Idle(idle), escape: None, checksum: None };
        let (mut frames, now) = (aligned(plain), Instant::now());
        frames.feed(b"OK", now);
        let later = now + 10 * idle;
        assert!(frames.feed(b" NOT", later).is_empty());
        assert_eq!(frames.tick(later + idle).unwrap().bytes, b"OK NOT");
    }

    #[test]
    fn what_never_ends_takes_no_more_than_a_frame() {
        for (frame, noise) in [(digits(), b'x'), (counted(), 2), (Frame { ends: Ends::Fixed(4000), ..digits() }, 2)] {
            let mut frames = aligned(frame.clone());
            for _ in 0..20 {
                frames.feed(&[&[2][..], &[noise; 1000]].concat(), Instant::now());
                assert!(frames.rest.len() <= FRAME_BYTES_MAX);
            }
            assert!(frames.is_within());
            frames.align();
            let payload: &[u8] = if matches!(frame.ends, Ends::Length(_)) { &[3, 7, 7] } else { b"AB" };
            let payload = if matches!(frame.ends, Ends::Fixed(_)) { &[7; 3996] } else { payload };
            assert_eq!(cut(&mut frames, &frame.seal(payload).unwrap()), [whole(payload)]);
        }
    }
}
