//! Which answers may still come: the memory that keeps a late answer from being taken for another request's. Pure.
//!
//! A serial line carries no transaction id. After a timeout the peripheral *owes* an answer, and until that has come,
//! or so long that it can't come any more, a request whose answer would look the same is not sent.
//!
//! Invariants
//! - Every request is owed from its last byte on, and is paid by one answer: a retry that is answered leaves one owed.
//! - A late answer counts for the same question only: the same request in the same errand. The same request of another
//!   errand is another command, and may have to be confirmed for itself; and each look at what was written is a question
//!   of its own.
//! - What an earlier life of the daemon was owed is not known, so nothing is asked until that must have lapsed.
//! - A debt lapses after its window, so that a dead peripheral blocks nobody for ever.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::bus::call::{Call, Request};
use crate::bus::modbus::frame::{Found, Shape};

/// Debts of one line; more than this and every further question waits for the oldest to lapse.
const OWED_MAX: usize = 128;

/// No late answer is given up sooner.
const SHORTEST: Duration = Duration::from_secs(2);

/// How long after a request with this timeout its answer may still come, where nobody says for how long: four timeouts,
/// at least 2 s, at most 10 s; and never less than 2 s behind a timeout that is itself long.
pub(in crate::bus) fn window(timeout: Duration) -> Duration {
    const LONGEST: Duration = Duration::from_secs(10);
    timeout.saturating_mul(4).max(SHORTEST).min(LONGEST.max(timeout.saturating_add(SHORTEST)))
}

/// The same on a bus with this `late_window`, if it has one. An answer that is waited for is never too late.
pub(in crate::bus) fn window_of(late_window: Option<Duration>, timeout: Duration) -> Duration {
    late_window.map_or_else(|| window(timeout), |given| given.max(timeout))
}

/// A request and the errand on which it was asked.
#[derive(Debug, Clone)]
pub(in crate::bus) struct Question {
    errand: u64,
    unit: u8,
    look: u32,
    request: Request,
}

impl Question {
    /// The question that a call puts.
    pub(in crate::bus) fn of(errand: u64, call: &Call) -> Question {
        Question { errand, unit: call.unit, look: call.look, request: call.request.clone() }
    }

    pub(in crate::bus) fn is(&self, other: &Question) -> bool {
        (self.errand, self.unit, self.look) == (other.errand, other.unit, other.look)
            && same_request(&self.request, &other.request)
    }
}

fn same_request(a: &Request, b: &Request) -> bool {
    use Request::{Line, ReadBits, ReadWords, WriteBits, WriteWords};
    match (a, b) {
        (ReadBits { coils: a, address: b, count: c }, ReadBits { coils: x, address: y, count: z })
        | (ReadWords { holding: a, address: b, count: c }, ReadWords { holding: x, address: y, count: z }) => {
            (a, b, c) == (x, y, z)
        }
        (WriteBits { address: a, bits: b }, WriteBits { address: x, bits: y }) => (a, b) == (x, y),
        (WriteWords { address: a, words: b }, WriteWords { address: x, words: y }) => (a, b) == (x, y),
        // Of a reply of several lines the first may be under way when it is asked for again.
        (Line { bytes: a, until: None, .. }, Line { bytes: x, until: None, .. }) => a == x,
        _ => false,
    }
}

/// The answers that one line owes. `S` is what is known of an answer's looks.
#[derive(Debug)]
pub(in crate::bus) struct Debts<S> {
    owed: VecDeque<Debt<S>>,
    /// For how long an answer is owed, if the bus says so.
    late_window: Option<Duration>,
    /// Until when answers may come to what somebody else asked. Nobody knows what that was.
    unknown_until: Option<Instant>,
}

#[derive(Debug)]
struct Debt<S> {
    question: Question,
    shape: S,
    until: Instant,
}

impl<S> Default for Debts<S> {
    fn default() -> Self {
        Debts { owed: VecDeque::new(), late_window: None, unknown_until: None }
    }
}

impl<S: PartialEq> Debts<S> {
    /// They are debts of a bus with this `late_window`.
    pub(in crate::bus) fn keep_for(&mut self, late_window: Option<Duration>) {
        self.late_window = late_window;
    }

    /// How long after a request with this timeout its answer may come.
    pub(in crate::bus) fn window(&self, timeout: Duration) -> Duration {
        window_of(self.late_window, timeout)
    }

    /// An earlier life of the daemon may have asked before, who knows what. Until then no answer can be told from one
    /// to that.
    pub(in crate::bus) fn suspect(&mut self, until: Instant) {
        self.unknown_until = self.unknown_until.max(Some(until));
    }

    /// Until when any answer may come to what was asked.
    pub(in crate::bus) fn all_until(&self) -> Option<Instant> {
        self.owed.iter().map(|debt| debt.until).chain(self.unknown_until).max()
    }

    /// A request was sent, and its answer can come until then.
    pub(in crate::bus) fn asked(&mut self, question: Question, shape: S, until: Instant, now: Instant) {
        self.owed.retain(|debt| debt.until > now);
        self.owed.push_back(Debt { question, shape, until });
    }

    /// Until when a question has to wait, because an owed answer would look like its own.
    pub(in crate::bus) fn held_until(&self, question: &Question, shape: &S, now: Instant) -> Option<Instant> {
        let alive = || self.owed.iter().filter(|debt| debt.until > now);
        let alike = alive().filter(|debt| debt.shape == *shape && !debt.question.is(question));
        let full = alive().take(1).filter(|_| self.owed.len() >= OWED_MAX);
        let unknown = self.unknown_until.filter(|until| *until > now);
        alike.chain(full).map(|debt| debt.until).chain(unknown).max()
    }

    /// An answer of this shape came: the oldest debt of it is paid.
    pub(in crate::bus) fn paid(&mut self, shape: &S) {
        self.pay(|owed| owed == shape);
    }

    fn pay(&mut self, is_paid: impl Fn(&S) -> bool) {
        if let Some(oldest) = self.owed.iter().position(|debt| is_paid(&debt.shape)) {
            self.owed.remove(oldest);
        }
    }
}

/// What stood in the bytes of a Modbus line.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::bus) enum Sifted {
    /// The answer to the question, or an exception that can be nothing else: the whole frame.
    Own(Vec<u8>),
    /// A frame that was owed for another question.
    Owed {
        /// Its length.
        len: usize,
        /// Whether it could have been the question's as well.
        ambiguous: bool,
    },
}

impl Debts<Shape> {
    /// Takes the first frame that means something out of `bytes`, with everything in front of it. Call it until it
    /// finds nothing.
    ///
    /// `own` is the question that is being asked, itself owed already.
    pub(in crate::bus) fn sift(
        &mut self,
        bytes: &mut Vec<u8>,
        own: Option<(&Question, &Shape)>,
        now: Instant,
    ) -> Option<Sifted> {
        for at in 0..bytes.len() {
            let rest = &bytes[at..];
            if let Some((question, shape)) = own {
                if let Some((found, len)) = shape.find(rest) {
                    let frame = rest[..len].to_vec();
                    bytes.drain(..at + len);
                    return Some(self.attribute(question, shape, found, frame, now));
                }
            }
            let owed = self.owed.iter().find_map(|debt| Some((debt.shape, debt.shape.find(rest)?)));
            if let Some((shape, (found, len))) = owed {
                bytes.drain(..at + len);
                match found {
                    Found::Answer => self.paid(&shape),
                    Found::Exception => self.pay(|owed| owed.shares_exceptions(&shape)),
                }
                return Some(Sifted::Owed { len, ambiguous: false });
            }
        }
        None
    }

    /// A frame that looks like the question's own. An answer is, because nothing that looks like it was owed when it
    /// was asked. An exception looks the same for every request of its function: while another is owed, it is taken
    /// for that one's, for a peripheral answers in order.
    fn attribute(&mut self, question: &Question, shape: &Shape, found: Found, frame: Vec<u8>, now: Instant) -> Sifted {
        if found == Found::Answer {
            self.paid(shape);
            return Sifted::Own(frame);
        }
        let ambiguous = self
            .owed
            .iter()
            .any(|debt| debt.until > now && debt.shape.shares_exceptions(shape) && !debt.question.is(question));
        self.pay(|owed| owed.shares_exceptions(shape));
        if ambiguous {
            return Sifted::Owed { len: frame.len(), ambiguous: true };
        }
        Sifted::Own(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::modbus::frame::tests::sealed;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn nothing_is_asked_while_an_earlier_life_may_be_answered() {
        let now = Instant::now();
        let mut debts = Debts::default();
        debts.suspect(now + window(SECOND));
        let (question, shape) = read(1, 7, 16, 2);
        assert_eq!(debts.held_until(&question, &shape, now), Some(now + 4 * SECOND));
        assert_eq!(debts.held_until(&question, &shape, now + 4 * SECOND), None);
    }

    #[test]
    fn an_answer_is_owed_for_four_timeouts_within_limits_or_as_long_as_the_bus_says() {
        let debts = |seconds: f64| {
            let mut debts = Debts::<()>::default();
            debts.keep_for(Some(Duration::from_secs_f64(seconds)));
            debts
        };
        for (timeout, owed) in [(0.1, 2.0), (0.5, 2.0), (2.0, 8.0), (3.0, 10.0), (9.0, 11.0)] {
            let timeout = Duration::from_secs_f64(timeout);
            assert_eq!(Debts::<()>::default().window(timeout), Duration::from_secs_f64(owed));
            assert_eq!(debts(30.0).window(timeout), 30 * SECOND);
            assert_eq!(debts(0.2).window(timeout), timeout.max(Duration::from_millis(200)));
        }
    }

    fn read(errand: u64, unit: u8, address: u16, count: u16) -> (Question, Shape) {
        let request = Request::ReadWords { holding: true, address, count };
        question(errand, unit, request)
    }

    fn write(errand: u64, unit: u8, address: u16, word: u16) -> (Question, Shape) {
        question(errand, unit, Request::WriteWords { address, words: vec![word] })
    }

    fn question(errand: u64, unit: u8, request: Request) -> (Question, Shape) {
        let shape = Shape::of(unit, &request).unwrap();
        (Question::of(errand, &Call { unit, request, timeout: None, not_after: None, look: 0 }), shape)
    }

    /// Debts in which one question was left unanswered, and the time until which.
    fn owing(question: &(Question, Shape)) -> (Debts<Shape>, Instant, Instant) {
        let now = Instant::now();
        let mut debts = Debts::default();
        debts.asked(question.0.clone(), question.1, now + SECOND, now);
        (debts, now, now + SECOND)
    }

    #[test]
    fn the_window_is_four_timeouts_within_bounds() {
        let table = [(100, 2_000), (500, 2_000), (1_000, 4_000), (5_000, 10_000), (30_000, 32_000)];
        for (timeout, expected) in table {
            let window = window(Duration::from_millis(timeout)).as_millis();
            assert_eq!(window, expected, "for a timeout of {timeout} ms");
        }
        window(Duration::MAX);
    }

    #[test]
    fn a_request_waits_exactly_for_those_whose_answer_would_look_like_its_own() {
        let first = read(1, 7, 100, 2);
        let (debts, now, until) = owing(&first);
        let table = [
            ("the same question again", read(1, 7, 100, 2), false),
            ("the same request of another command", read(2, 7, 100, 2), true),
            ("another address, as long", read(1, 7, 200, 2), true),
            ("another length", read(2, 7, 100, 3), false),
            ("another function", write(2, 7, 100, 2), false),
            ("another unit", read(2, 8, 100, 2), false),
        ];
        for (what, (question, shape), waits) in table {
            let expected = waits.then_some(until);
            assert_eq!(debts.held_until(&question, &shape, now), expected, "{what}");
            assert_eq!(debts.held_until(&question, &shape, until), None, "{what}, too late");
        }
    }

    #[test]
    fn a_write_waits_only_for_one_with_the_same_echo() {
        let (debts, now, until) = owing(&write(1, 7, 5, 42));
        for (question, expected) in
            [(write(2, 7, 5, 42), Some(until)), (write(2, 7, 5, 43), None), (write(2, 7, 6, 42), None)]
        {
            assert_eq!(debts.held_until(&question.0, &question.1, now), expected);
        }
    }

    #[test]
    fn a_late_answer_pays_and_frees_the_line() {
        let (mut debts, now, _) = owing(&read(1, 7, 100, 2));
        let (question, shape) = read(2, 7, 200, 2);
        let mut bytes = [&[0, 7, 3][..], &sealed(&[7, 3, 4, 1, 2, 3, 4]), &[9]].concat();
        let found = debts.sift(&mut bytes, None, now);
        assert_eq!(found, Some(Sifted::Owed { len: 9, ambiguous: false }));
        assert_eq!(bytes, [9]);
        assert_eq!(debts.held_until(&question, &shape, now), None);
        assert_eq!(debts.sift(&mut bytes, None, now), None);
    }

    #[test]
    fn a_retry_that_is_answered_leaves_one_answer_owed() {
        let first = read(1, 7, 100, 2);
        let (mut debts, now, until) = owing(&first);
        debts.asked(first.0.clone(), first.1, until + SECOND, now);
        let mut bytes = sealed(&[7, 3, 4, 1, 2, 3, 4]);
        let own = Some((&first.0, &first.1));
        assert!(matches!(debts.sift(&mut bytes, own, now), Some(Sifted::Own(_))));
        let next = read(2, 7, 200, 2);
        assert_eq!(debts.held_until(&next.0, &next.1, now), Some(until + SECOND));
    }

    #[test]
    fn the_owed_answer_is_skipped_and_the_own_one_found_behind_it() {
        let (mut debts, now, until) = owing(&read(1, 7, 100, 2));
        let own = read(2, 7, 100, 1);
        debts.asked(own.0.clone(), own.1, until, now);
        let answer = sealed(&[7, 3, 2, 0, 5]);
        let mut bytes = [sealed(&[7, 3, 4, 1, 2, 3, 4]), answer.clone()].concat();
        let asked = Some((&own.0, &own.1));
        let skipped = debts.sift(&mut bytes, asked, now);
        assert_eq!(skipped, Some(Sifted::Owed { len: 9, ambiguous: false }));
        assert_eq!(debts.sift(&mut bytes, asked, now), Some(Sifted::Own(answer)));
        assert!(debts.owed.is_empty());
    }

    #[test]
    fn an_exception_is_taken_for_the_older_request_of_its_function() {
        let (mut debts, now, until) = owing(&write(1, 7, 5, 42));
        let own = write(2, 7, 6, 1);
        debts.asked(own.0.clone(), own.1, until, now);
        let exception = sealed(&[7, 0x86, 2]);
        let mut bytes = [exception.clone(), exception.clone()].concat();
        let asked = Some((&own.0, &own.1));
        let first = debts.sift(&mut bytes, asked, now);
        assert_eq!(first, Some(Sifted::Owed { len: 5, ambiguous: true }));
        assert_eq!(debts.sift(&mut bytes, asked, now), Some(Sifted::Own(exception.clone())));

        // To a retry of the same question it is an answer, whichever of the two it answers.
        let (mut debts, now, _) = owing(&own);
        debts.asked(own.0.clone(), own.1, until, now);
        let mut bytes = exception.clone();
        assert_eq!(debts.sift(&mut bytes, asked, now), Some(Sifted::Own(exception)));
    }

    #[test]
    fn the_memory_is_bounded_and_says_so_by_waiting() {
        let now = Instant::now();
        let mut debts = Debts::default();
        for address in 0..OWED_MAX {
            let (question, shape) = write(1, 7, address as u16, 0);
            debts.asked(question, shape, now + SECOND, now);
        }
        let (question, shape) = read(2, 9, 0, 1);
        assert_eq!(debts.held_until(&question, &shape, now), Some(now + SECOND));
        debts.asked(question, shape, now + 3 * SECOND, now + 2 * SECOND);
        assert_eq!(debts.owed.len(), 1);
    }
}
