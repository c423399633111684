//! Where the lines of a stream of text begin and end, for as long as the port is open. Pure.
//!
//! Invariants
//! - Everything that comes goes through it, whether something was asked or not, in whatever pieces: so what is a line
//!   here was a line on the wire, and never the end of one.
//! - A line knows where it began. One whose beginning was not heard, or that was too long to be kept, is not whole.
//! - It keeps a bounded number of bytes.

/// Longest line that is kept whole, in bytes.
pub(in crate::bus) const LINE_BYTES_MAX: usize = 4096;

/// A place in the stream: so many bytes came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::bus) struct Place(pub(super) u64);

/// A line that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::bus) struct TextLine {
    /// Without its delimiter; bytes that are no UTF-8 are replaced.
    pub(in crate::bus) text: String,
    /// The same as it came.
    pub(in crate::bus) bytes: Vec<u8>,
    begun: Place,
    whole: bool,
    /// It may belong to what was said before it to the last question.
    pub(super) is_rest: bool,
}

impl TextLine {
    pub(super) fn of(bytes: Vec<u8>, begun: Place, whole: bool) -> TextLine {
        TextLine { text: String::from_utf8_lossy(&bytes).into_owned(), bytes, begun, whole, is_rest: false }
    }

    /// Whether its beginning was heard, and all of it kept.
    pub(in crate::bus) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Whether all of it was said after this place.
    pub(in crate::bus) fn is_since(&self, place: Place) -> bool {
        self.whole && self.begun >= place
    }
}

/// Cuts a stream into lines.
#[derive(Debug)]
pub(in crate::bus) struct Splitter {
    delimiter: Vec<u8>,
    /// Bytes that came in all.
    place: Place,
    /// Where the line that has not ended began.
    begun: Place,
    /// What there is of it.
    rest: Vec<u8>,
    /// Whether its beginning was heard.
    known: bool,
    /// Whether it is longer than what is kept.
    long: bool,
}

impl Splitter {
    /// At a stream that may be in the middle of a line.
    pub(in crate::bus) fn new(delimiter: Vec<u8>) -> Splitter {
        Splitter { delimiter, place: Place(0), begun: Place(0), rest: Vec::new(), known: false, long: false }
    }

    /// What ends a line.
    pub(in crate::bus) fn delimiter(&self) -> &[u8] {
        &self.delimiter
    }

    /// The stream is another one.
    pub(in crate::bus) fn restart(&mut self) {
        *self = Splitter::new(std::mem::take(&mut self.delimiter));
    }

    /// Where the next byte will stand.
    pub(in crate::bus) fn place(&self) -> Place {
        self.place
    }

    /// Whether a line has begun and not ended, as far as is known.
    pub(in crate::bus) fn is_within_a_line(&self) -> bool {
        !self.known || !self.rest.is_empty()
    }

    /// Whether a line has begun at this place or later, and not ended.
    pub(in crate::bus) fn is_within_a_line_since(&self, place: Place) -> bool {
        self.begun >= place && self.is_within_a_line()
    }

    /// Whether the line that has begun since this place is longer than any that is kept.
    pub(in crate::bus) fn is_overlong_since(&self, place: Place) -> bool {
        self.begun >= place && self.long
    }

    /// What there is of the line that has not ended.
    pub(in crate::bus) fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// What has begun will not be ended: the next byte begins a line.
    pub(in crate::bus) fn align(&mut self) {
        self.begun = self.place;
        self.rest.clear();
        self.known = true;
        self.long = false;
    }

    /// Takes what came, and gives the lines that it ends.
    pub(in crate::bus) fn feed(&mut self, bytes: &[u8]) -> Vec<TextLine> {
        let mut lines = Vec::new();
        for byte in bytes {
            self.place.0 += 1;
            self.rest.push(*byte);
            if let Some(line) = self.rest.strip_suffix(&self.delimiter[..]).filter(|_| !self.delimiter.is_empty()) {
                lines.push(TextLine::of(line.to_vec(), self.begun, self.known && !self.long));
                self.align();
            } else if self.rest.len() > LINE_BYTES_MAX + self.delimiter.len() {
                // What may be the beginning of the delimiter is kept.
                self.rest.drain(..=LINE_BYTES_MAX);
                self.long = true;
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[TextLine]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    fn aligned(delimiter: &[u8]) -> Splitter {
        let mut splitter = Splitter::new(delimiter.to_vec());
        splitter.align();
        splitter
    }

    #[test]
    fn lines_end_at_the_delimiter_wherever_the_pieces_end() {
        let stream = b"T\r\n\r\nOK\xFF\rx\r\nrest";
        for size in 1..=stream.len() {
            let mut splitter = aligned(b"\r\n");
            let lines: Vec<TextLine> = stream.chunks(size).flat_map(|piece| splitter.feed(piece)).collect();
            assert_eq!(texts(&lines), ["T", "", "OK\u{FFFD}\rx"]);
            assert_eq!((splitter.rest(), splitter.place()), (&b"rest"[..], Place(16)));
            assert!(splitter.is_within_a_line());
        }
    }

    #[test]
    fn a_line_that_had_begun_is_none_since() {
        let mut splitter = aligned(b"\n");
        splitter.feed(b"STATE NOT ");
        let asked = splitter.place();
        assert!(splitter.is_within_a_line() && !splitter.is_within_a_line_since(asked));
        let lines = splitter.feed(b"OK\nOK\nO");
        assert_eq!(texts(&lines), ["STATE NOT OK", "OK"]);
        assert_eq!(lines.iter().map(|line| line.is_since(asked)).collect::<Vec<_>>(), [false, true]);
        assert!(splitter.is_within_a_line_since(asked));
    }

    #[test]
    fn the_first_piece_of_a_stream_is_no_line_until_it_is_aligned() {
        let mut splitter = Splitter::new(b"\n".to_vec());
        assert!(splitter.is_within_a_line());
        let lines = splitter.feed(b"OK\nOK\n");
        assert_eq!(lines.iter().map(|line| line.is_since(Place(0))).collect::<Vec<_>>(), [false, true]);

        let mut splitter = Splitter::new(b"\n".to_vec());
        splitter.feed(b"W +00");
        splitter.align();
        let lines = splitter.feed(b"OK\n");
        assert_eq!(texts(&lines), ["OK"]);
        assert!(lines[0].is_since(Place(5)));
    }

    #[test]
    fn a_line_that_is_too_long_is_not_kept_and_not_whole() {
        let mut splitter = aligned(b";;");
        let most = "x".repeat(LINE_BYTES_MAX);
        let lines = splitter.feed(format!("{most};;").as_bytes());
        assert!(lines[0].is_since(Place(0)) && lines[0].text == most);

        let asked = splitter.place();
        for _ in 0..100 {
            splitter.feed(most.as_bytes());
            assert!(splitter.rest.len() <= LINE_BYTES_MAX + 2);
        }
        assert!(splitter.is_overlong_since(asked));
        let lines = splitter.feed(b";;OK;;");
        assert_eq!(lines.iter().map(|line| line.is_since(asked)).collect::<Vec<_>>(), [false, true]);
        assert!(!splitter.is_within_a_line());
    }
}
