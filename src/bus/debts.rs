//! Which answers may still come: the memory that keeps a late answer from being taken for another request's. Pure.
//!
//! A serial line carries no transaction id. After a timeout the peripheral *owes* an answer, and until that has come,
//! or so long that it can't come any more, a request whose answer would look the same is not sent.
//!
//! Invariants
//! - Every request is owed from its last byte on, and is paid by one answer: a retry that is answered leaves one owed.
//! - A late answer counts for the same question only: the same request of the same caller. The same request of another
//!   caller is another command, and may have to be confirmed for itself; and each look at what was written is a
//!   question of its own, and so is each of several requests of one command, even if they are the same. It is
//!   otherwise where what a peripheral says by itself has passed for the answer: there the same request, whoever asks
//!   it, is answered by what is said next, and may go; but not when somebody else has waited for longer, who would have
//!   to wait anew.
//! - What an earlier life of the daemon was owed is not known, so nothing is asked until that must have lapsed.
//! - A debt lapses after its window, so that a dead peripheral blocks nobody for ever.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::bus::call::Call;
use crate::peripheral::exchange::Request;

/// Debts of one line; more than this and every further question waits for the oldest to lapse.
pub(in crate::bus) const OWED_MAX: usize = 128;

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

/// A request and the caller who asked it.
#[derive(Debug, Clone)]
pub(in crate::bus) struct Question {
    caller: u64,
    unit: u8,
    look: u32,
    part: u32,
    request: Request,
}

impl Question {
    /// The question that a call puts.
    pub(in crate::bus) fn of(caller: u64, call: &Call) -> Question {
        Question { caller, unit: call.unit, look: call.look, part: call.part, request: call.request.clone() }
    }

    pub(in crate::bus) fn request(&self) -> &Request {
        &self.request
    }

    pub(in crate::bus) fn is(&self, other: &Question) -> bool {
        let of = |one: &Question| (one.caller, one.look, one.part);
        of(self) == of(other) && self.asks_the_same(other)
    }

    /// Whether both are one request, whoever asks.
    pub(in crate::bus) fn asks_the_same(&self, other: &Question) -> bool {
        self.unit == other.unit && same_request(&self.request, &other.request)
    }
}

fn same_request(a: &Request, b: &Request) -> bool {
    use Request::{Line, MaskWord, ReadBits, ReadWords, WriteAndReadWords, WriteBits, WriteWords};
    match (a, b) {
        (ReadBits { coils: a, address: b, count: c }, ReadBits { coils: x, address: y, count: z })
        | (ReadWords { holding: a, address: b, count: c }, ReadWords { holding: x, address: y, count: z }) => {
            (a, b, c) == (x, y, z)
        }
        (WriteBits { address: a, bits: b, multiple: c }, WriteBits { address: x, bits: y, multiple: z }) => {
            (a, b, c) == (x, y, z)
        }
        (WriteWords { address: a, words: b, multiple: c }, WriteWords { address: x, words: y, multiple: z }) => {
            (a, b, c) == (x, y, z)
        }
        (MaskWord { address: a, and: b, or: c }, MaskWord { address: x, and: y, or: z }) => (a, b, c) == (x, y, z),
        (
            WriteAndReadWords { address: a, words: b, read_address: c, count: d },
            WriteAndReadWords { address: w, words: x, read_address: y, count: z },
        ) => (a, b, c, d) == (w, x, y, z),
        // Of a reply of several lines the first may be under way when it is asked for again.
        (Line { bytes: a, until: None, .. }, Line { bytes: x, until: None, .. }) => a == x,
        _ => false,
    }
}

/// What is known of an answer's looks beforehand.
pub(in crate::bus) trait Looks: PartialEq {
    /// Whether what is owed with the other's looks could be taken for an answer with these.
    fn could_be(&self, owed: &Self) -> bool {
        self == owed
    }
}

/// Nothing is known: any answer could be any.
impl Looks for () {}

/// The answers that one line owes. `S` is what is known of an answer's looks.
#[derive(Debug)]
pub(in crate::bus) struct Debts<S> {
    pub(in crate::bus) owed: VecDeque<Debt<S>>,
    /// For how long an answer is owed, if the bus says so.
    late_window: Option<Duration>,
    /// Until when answers may come to what somebody else asked. Nobody knows what that was.
    unknown_until: Option<Instant>,
}

/// One answer that is owed.
#[derive(Debug)]
pub(in crate::bus) struct Debt<S> {
    pub(in crate::bus) question: Question,
    pub(in crate::bus) shape: S,
    pub(in crate::bus) until: Instant,
    /// What was taken for the answer may have been said unasked.
    is_doubted: bool,
}

impl<S> Default for Debts<S> {
    fn default() -> Self {
        Debts { owed: VecDeque::new(), late_window: None, unknown_until: None }
    }
}

impl<S> Debt<S> {
    /// Whether its answer is as good for this question.
    fn may_count_for(&self, question: &Question) -> bool {
        self.question.is(question) || self.is_doubted && self.question.asks_the_same(question)
    }
}

impl<S: Looks> Debts<S> {
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

    /// Whether an answer is owed that may come still. What has passed for one was said by itself, and so is more of it.
    pub(in crate::bus) fn owes(&self, now: Instant) -> bool {
        let is_owed = |debt: &Debt<S>| debt.until > now && !debt.is_doubted;
        self.owed.iter().any(is_owed) || self.unknown_until.is_some_and(|until| until > now)
    }

    /// What answers may come to: nothing that is known where an earlier life of the daemon may have asked.
    pub(in crate::bus) fn questions(&self, now: Instant) -> impl Iterator<Item = Option<&Question>> {
        let unknown = self.unknown_until.filter(|until| *until > now).map(|_| None);
        let known = self.owed.iter().filter(move |debt| debt.until > now).map(|debt| Some(&debt.question));
        known.chain(unknown)
    }

    /// A request was sent, and its answer can come until then.
    pub(in crate::bus) fn asked(&mut self, question: Question, shape: S, until: Instant, now: Instant) {
        self.owed.retain(|debt| debt.until > now);
        self.owed.push_back(Debt { question, shape, until, is_doubted: false });
    }

    /// Until when a question has to wait, because an owed answer would look like its own.
    pub(in crate::bus) fn held_until(&self, question: &Question, shape: &S, now: Instant) -> Option<Instant> {
        self.held(shape, now, |debt| debt.may_count_for(question))
    }

    /// The same where somebody else waits, and has for longer.
    pub(in crate::bus) fn held_behind_another(&self, question: &Question, shape: &S, now: Instant) -> Option<Instant> {
        self.held(shape, now, |debt| debt.question.is(question))
    }

    fn held(&self, shape: &S, now: Instant, may_count: impl Fn(&Debt<S>) -> bool) -> Option<Instant> {
        let alive = || self.owed.iter().filter(|debt| debt.until > now);
        let alike = alive().filter(|debt| shape.could_be(&debt.shape) && !may_count(debt));
        let full = alive().take(1).filter(|_| self.owed.len() >= OWED_MAX);
        let unknown = self.unknown_until.filter(|until| *until > now);
        alike.chain(full).map(|debt| debt.until).chain(unknown).max()
    }

    /// An answer of this shape came: the oldest debt of it is paid.
    pub(in crate::bus) fn paid(&mut self, shape: &S) {
        self.pay(|owed| owed == shape);
    }

    /// An answer of this shape came to the request that was sent last, or the peripheral said by itself what looks like
    /// one: the answer may come still. Whoever asks the same can't tell the two apart either, and need not wait.
    pub(in crate::bus) fn doubted(&mut self) {
        if let Some(last) = self.owed.back_mut() {
            last.is_doubted = true;
        }
    }

    pub(in crate::bus) fn pay(&mut self, is_paid: impl Fn(&S) -> bool) {
        if let Some(oldest) = self.owed.iter().position(|debt| is_paid(&debt.shape)) {
            self.owed.remove(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_owed_for_four_timeouts_within_limits_or_as_long_as_the_bus_says() {
        let debts = |window: Option<u64>| {
            let mut debts = Debts::<()>::default();
            debts.keep_for(window.map(Duration::from_millis));
            move |timeout: u64| debts.window(Duration::from_millis(timeout)).as_millis()
        };
        let table = [(100, 2_000), (500, 2_000), (1_000, 4_000), (2_000, 8_000), (3_000, 10_000), (9_000, 11_000)];
        for (timeout, owed) in table {
            assert_eq!(debts(None)(timeout), owed, "for a timeout of {timeout} ms");
            assert_eq!(debts(Some(30_000))(timeout), 30_000);
            assert_eq!(debts(Some(200))(timeout), u128::from(timeout.max(200)));
        }
        // A timeout that has no end has a window all the same.
        assert_eq!(window(Duration::MAX), Duration::MAX);
    }
}
