//! How a stream is cut into replies: into lines, by what ends them, or into frames. Pure.

use std::borrow::Cow;
use std::time::Instant;

use super::frames::Frames;
use super::reply::Reply;
use super::splitter::{Place, Splitter, TextLine};
use crate::config::Cut;
use crate::peripheral::exchange::Request;

/// Cuts a stream as its bus says.
#[derive(Debug)]
pub(super) enum Cutter {
    Lines(Splitter),
    Frames(Box<Frames>),
}

impl Cutter {
    /// At a stream that may be in the middle of something.
    pub(super) fn new(cut: Cut) -> Cutter {
        match cut {
            Cut::Delimiter(delimiter) => Cutter::Lines(Splitter::new(delimiter)),
            Cut::Frame(frame) => Cutter::Frames(Box::new(Frames::new(frame))),
        }
    }

    /// Nothing yet of the reply to a request; `None` if it is no line.
    pub(super) fn reply_to<'a>(&self, request: &'a Request) -> Option<Reply<'a>> {
        match self {
            Cutter::Lines(lines) => Reply::to(request, lines.delimiter()),
            Cutter::Frames(frames) => Reply::framed(request, frames.frame()),
        }
    }

    /// What others of its kind have in common with a line: its text, or where a frame holds none, its length and how it
    /// begins. The number of its bytes in it is no beginning: frames of each kind have it.
    pub(super) fn likeness<'a>(&self, line: &'a TextLine) -> Cow<'a, str> {
        let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n');
        let first = match self {
            Cutter::Frames(frames) if !line.bytes.iter().all(is_text) => {
                let counts = frames.frame().counts_in_payload();
                (0..).zip(&line.bytes).find(|(at, _)| !counts.contains(at)).map(|(_, byte)| byte)
            }
            _ => None,
        };
        match first {
            // In letters, for two lines are alike whatever their numbers are.
            Some(first) => {
                let letters = format!("{first:03}:{:04}", line.bytes.len());
                Cow::Owned(letters.bytes().map(|digit| char::from(digit | 0x40)).collect())
            }
            None => Cow::Borrowed(&line.text),
        }
    }

    pub(super) fn restart(&mut self) {
        match self {
            Cutter::Lines(lines) => lines.restart(),
            Cutter::Frames(frames) => frames.restart(),
        }
    }

    pub(super) fn place(&self) -> Place {
        match self {
            Cutter::Lines(lines) => lines.place(),
            Cutter::Frames(frames) => frames.place(),
        }
    }

    pub(super) fn is_within(&self) -> bool {
        match self {
            Cutter::Lines(lines) => lines.is_within_a_line(),
            Cutter::Frames(frames) => frames.is_within(),
        }
    }

    pub(super) fn is_within_since(&self, place: Place) -> bool {
        match self {
            Cutter::Lines(lines) => lines.is_within_a_line_since(place),
            Cutter::Frames(frames) => frames.is_within_since(place),
        }
    }

    pub(super) fn is_overlong_since(&self, place: Place) -> bool {
        match self {
            Cutter::Lines(lines) => lines.is_overlong_since(place),
            Cutter::Frames(frames) => frames.is_overlong_since(place),
        }
    }

    /// What was wrong with what has ended last since this place.
    pub(super) fn flaw_since(&self, place: Place) -> Option<&str> {
        match self {
            Cutter::Lines(_) => None,
            Cutter::Frames(frames) => frames.flaw_since(place),
        }
    }

    /// What there is of what has not ended.
    pub(super) fn rest(&self) -> &[u8] {
        match self {
            Cutter::Lines(lines) => lines.rest(),
            Cutter::Frames(frames) => frames.rest(),
        }
    }

    pub(super) fn align(&mut self) {
        match self {
            Cutter::Lines(lines) => lines.align(),
            Cutter::Frames(frames) => frames.align(),
        }
    }

    /// When silence will have ended a frame.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        match self {
            Cutter::Lines(_) => None,
            Cutter::Frames(frames) => frames.ends_at(),
        }
    }

    /// What silence has ended by now.
    pub(super) fn tick(&mut self, now: Instant) -> Option<TextLine> {
        match self {
            Cutter::Lines(_) => None,
            Cutter::Frames(frames) => frames.tick(now),
        }
    }

    pub(super) fn feed(&mut self, bytes: &[u8], now: Instant) -> Vec<TextLine> {
        match self {
            Cutter::Lines(lines) => lines.feed(bytes),
            Cutter::Frames(frames) => frames.feed(bytes, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peripheral::frame::{Ends, Frame, Length};

    #[test]
    fn frames_of_bytes_are_alike_by_their_length_and_by_how_they_begin_behind_it() {
        let length = |at| Ends::Length(Length { at, size: 1, little: false, adds: 1 });
        let likeness = |ends, bytes: &[u8]| {
            let frame = Frame { start: vec![0xAA], end: vec![], ends, escape: None, checksum: None };
            let cutter = Cutter::new(Cut::Frame(frame));
            cutter.likeness(&TextLine::of(bytes.to_vec(), cutter.place(), true)).into_owned()
        };
        for (ends, one, other, are_alike) in [
            (length(1), [3, b'W', 0, 7], [3, b'W', 9, 9], true),
            (length(1), [3, b'W', 0, 7], [3, b'R', 0, 7], false),
            (length(2), [b'W', 3, 0, 7], [b'R', 3, 0, 7], false),
            (Ends::Fixed(5), [1, 3, 0, 7], [1, 9, 9, 9], true),
            (Ends::Fixed(5), [1, 3, 0, 7], [2, 3, 0, 7], false),
        ] {
            assert_eq!(likeness(ends, &one) == likeness(ends, &other), are_alike, "{ends:?} {one:?} {other:?}");
        }
        assert_ne!(likeness(length(1), &[2, b'W', 0]), likeness(length(1), &[3, b'W', 0, 7]));
    }
}
