//! One message of telemetry: what was read, or that something is missing. Pure.

use std::sync::Arc;

use serde_json::{json, Map, Value as Json};

use crate::time::Timestamp;

/// The first number of a batch among all that is published: results of commands never come so far, and what
/// peripherals say by themselves begins beyond.
pub const FROM: i64 = 1 << 61;

/// What a message tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What was read.
    Samples,
    /// That something which was read is lost.
    Gap,
}

/// A time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) at: Timestamp,
    /// Whether the clock that has shown it was believed.
    pub(super) clock_ok: bool,
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Its number; grows.
    pub number: i64,
    /// The id under which it is published, however often.
    pub id: String,
    /// What it tells.
    pub kind: Kind,
    /// The device.
    pub device: Arc<str>,
    /// The body, JSON.
    pub body: String,
    /// What it holds, and what is missing if it is lost.
    pub holds: Gap,
    /// How often a connection has ended badly with it.
    pub(super) tries: u32,
    /// Whether it stands in the file.
    pub(super) is_stored: bool,
}

/// Samples, and from when to when they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gap {
    /// How many.
    pub samples: u64,
    /// The earliest time among them, ms since 1970.
    pub first: i64,
    /// The latest.
    pub last: i64,
}

impl Batch {
    /// Whether it tells of a crash, of which nobody knows what it has lost.
    pub(super) fn is_of_a_crash(&self) -> bool {
        self.kind == Kind::Gap && self.holds.samples == 0
    }
}

impl Gap {
    /// One sample.
    pub fn of(at: Timestamp) -> Gap {
        Gap { samples: 1, first: at.0, last: at.0 }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Gap) -> Gap {
        match (self.samples, other.samples) {
            (0, _) => other,
            (_, 0) => self,
            (some, more) => Gap {
                samples: some.saturating_add(more),
                first: self.first.min(other.first),
                last: self.last.max(other.last),
            },
        }
    }

    /// The body of the event that tells of it.
    pub fn body(self) -> String {
        let [from, until] = [self.first, self.last].map(|at| Timestamp(at).to_string());
        json!({ "gap": { "from": from, "until": until, "samples": self.samples } }).to_string()
    }
}

/// The body of the event that tells that a life has ended without a word before then: what was not told of before that
/// may be lost.
pub(super) fn body_of_a_crash(until: Shown) -> String {
    let mut gap = Map::new();
    gap.insert("from".into(), Json::Null);
    gap.insert("until".into(), until.at.to_string().into());
    gap.insert("samples".into(), Json::Null);
    if !until.clock_ok {
        gap.insert("clockOk".into(), false.into());
    }
    json!({ "gap": gap }).to_string()
}

/// A batch while it is collected.
#[derive(Debug, Default)]
pub(super) struct Open {
    elements: String,
    pub(super) holds: Gap,
}

impl Open {
    /// Bytes of the body as it is.
    fn bytes(&self) -> usize {
        self.elements.len() + 2
    }

    /// Whether another element fits into a body of so many bytes.
    pub(super) fn has_room(&self, element: &str, most: usize) -> bool {
        self.bytes() + element.len() < most
    }

    pub(super) fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    pub(super) fn push(&mut self, element: &str, at: Timestamp) {
        if !self.elements.is_empty() {
            self.elements.push(',');
        }
        self.elements.push_str(element);
        self.holds = self.holds.and(Gap::of(at));
    }

    pub(super) fn body(self) -> String {
        format!("[{}]", self.elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_covers_all_that_is_missing_and_says_how_much() {
        let gap = Gap::of(Timestamp(5_000)).and(Gap::of(Timestamp(1_000))).and(Gap::default());
        assert_eq!(gap, Gap { samples: 2, first: 1_000, last: 5_000 });
        assert_eq!(
            gap.body(),
            r#"{"gap":{"from":"1970-01-01T00:00:01.000Z","samples":2,"until":"1970-01-01T00:00:05.000Z"}}"#
        );
    }

    #[test]
    fn the_word_of_a_crash_says_if_its_time_is_of_a_clock_that_was_not_believed() {
        let told = |clock_ok| body_of_a_crash(Shown { at: Timestamp(1_000), clock_ok });
        assert_eq!(told(true), r#"{"gap":{"from":null,"samples":null,"until":"1970-01-01T00:00:01.000Z"}}"#);
        assert_eq!(
            told(false),
            r#"{"gap":{"clockOk":false,"from":null,"samples":null,"until":"1970-01-01T00:00:01.000Z"}}"#
        );
    }

    #[test]
    fn a_body_is_an_array_that_is_no_longer_than_it_may_be() {
        let mut open = Open::default();
        let mut count = 0;
        while open.has_room("{\"a\":1}", 50) {
            open.push("{\"a\":1}", Timestamp(count));
            count += 1;
        }
        assert_eq!((count, open.holds.samples), (6, 6));
        let body = open.body();
        assert!(body.len() <= 50, "{body}");
        assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&body).unwrap().len(), 6);
    }
}
