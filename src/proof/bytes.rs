//! Bytes as a source of choices, and a runtime for what is asynchronous about them: what a property of any bytes is
//! written with.

use std::ops::RangeInclusive;

/// Bytes as a source of choices. When they run out, every further choice is the first.
pub(crate) struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Source(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    pub fn u64(&mut self) -> u64 {
        (0..4).fold(0, |number, _| number << 16 | u64::from(self.u16()))
    }

    pub fn flag(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// A number within a range of at most 65536 numbers.
    pub fn within(&mut self, range: RangeInclusive<usize>) -> usize {
        let width = range.end() - range.start() + 1;
        let number = if width <= 256 { usize::from(self.u8()) } else { usize::from(self.u16()) };
        range.start() + number % width
    }

    pub fn pick<'b, T>(&mut self, of: &'b [T]) -> &'b T {
        &of[self.within(0..=of.len() - 1)]
    }

    /// At most so many bytes.
    pub fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A piece of a length that the bytes choose.
    pub fn piece(&mut self, most: usize) -> &'a [u8] {
        let length = self.within(0..=most);
        self.take(length)
    }

    pub fn text(&mut self, most: usize) -> String {
        String::from_utf8_lossy(self.piece(most)).into_owned()
    }

    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }
}

/// Runs what is asynchronous in memory, on a clock that stands still until everything waits for it.
pub(crate) fn run<T>(what: impl std::future::Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime can be made").block_on(what)
}

/// A text with another one in it.
pub fn inserted(text: &str, at: usize, other: &str) -> String {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let (before, after) = text.split_at(at);
    [before, other, after].concat()
}
