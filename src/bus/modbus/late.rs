//! What stands in the bytes of a Modbus line: the answer to what was asked, or one that was owed before. Pure.

use std::time::Instant;

use crate::bus::debts::{Debts, Question};
use crate::bus::modbus::frame::{Framing, Shape};
use crate::bus::modbus::pdu::Found;

/// What stood in the bytes of a Modbus line.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::bus) enum Sifted {
    /// The answer to the question, or an exception that can be nothing else: the whole frame.
    Own(Vec<u8>),
    /// A frame that was owed for another question.
    Owed {
        /// Its length.
        len: usize,
        /// The code of an exception that could have been the question's as well.
        ambiguous: Option<u8>,
    },
}

impl Debts<Shape> {
    /// Takes the first frame that means something out of `bytes`, with everything in front of it. Call it until it
    /// finds nothing.
    ///
    /// `own` is the question that is being asked, itself owed already.
    pub(in crate::bus) fn sift(
        &mut self,
        framing: Framing,
        bytes: &mut Vec<u8>,
        own: Option<(&Question, &Shape)>,
        now: Instant,
    ) -> Option<Sifted> {
        for at in 0..bytes.len() {
            let rest = &bytes[at..];
            if let Some((question, shape)) = own {
                if let Some((found, len)) = framing.find(shape, rest) {
                    let frame = rest[..len].to_vec();
                    bytes.drain(..at + len);
                    if self.is_own(question, shape, found, now) {
                        return Some(Sifted::Own(frame));
                    }
                    // Function and code.
                    let code = framing.opened(&frame).and_then(|(_, pdu)| pdu.get(1).copied());
                    return Some(Sifted::Owed { len, ambiguous: code });
                }
            }
            let owed = self.owed.iter().find_map(|debt| Some((debt.shape, framing.find(&debt.shape, rest)?)));
            if let Some((shape, (found, len))) = owed {
                bytes.drain(..at + len);
                match found {
                    Found::Answer => self.paid(&shape),
                    Found::Exception => self.pay(|owed| owed.shares_exceptions(&shape)),
                }
                return Some(Sifted::Owed { len, ambiguous: None });
            }
        }
        None
    }

    /// Whether what looks like the question's own is. An answer is, because nothing that looks like it was owed when it
    /// was asked. An exception looks the same for every request of its function: while another is owed, it is taken
    /// for that one's, for a peripheral answers in order.
    fn is_own(&mut self, question: &Question, shape: &Shape, found: Found, now: Instant) -> bool {
        if found == Found::Answer {
            self.paid(shape);
            return true;
        }
        let ambiguous = self
            .owed
            .iter()
            .any(|debt| debt.until > now && debt.shape.shares_exceptions(shape) && !debt.question.is(question));
        self.pay(|owed| owed.shares_exceptions(shape));
        !ambiguous
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bus::call::Call;
    use crate::bus::debts::{window, OWED_MAX};
    use crate::bus::modbus::frame::rtu::tests::sealed;
    use crate::peripheral::exchange::Request;
    use crate::peripheral::quirks::{Quirk, Quirks};

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

    fn read(caller: u64, unit: u8, address: u16, count: u16) -> (Question, Shape) {
        let request = Request::ReadWords { holding: true, address, count };
        question(caller, unit, request)
    }

    fn write(caller: u64, unit: u8, address: u16, word: u16) -> (Question, Shape) {
        question(caller, unit, Request::WriteWords { address, words: vec![word], multiple: false })
    }

    fn question(caller: u64, unit: u8, request: Request) -> (Question, Shape) {
        bent(caller, unit, request, Quirks::NONE)
    }

    fn bent(caller: u64, unit: u8, request: Request, quirks: Quirks) -> (Question, Shape) {
        let shape = Shape::of(unit, &request, quirks).unwrap();
        (Question::of(caller, &Call::new(unit, request)), shape)
    }

    /// Debts in which one question was left unanswered, and the time until which.
    fn owing(question: &(Question, Shape)) -> (Debts<Shape>, Instant, Instant) {
        let now = Instant::now();
        let mut debts = Debts::default();
        debts.asked(question.0.clone(), question.1, now + SECOND, now);
        (debts, now, now + SECOND)
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
    fn what_a_quirk_takes_for_an_answer_is_waited_for_before_it_could_be() {
        let (unit, length, echo) = (Quirk::UnitId, Quirk::Length, Quirk::Echo);
        let quirks = |given: &[Quirk]| given.iter().copied().collect::<Quirks>();
        let set = |unit, address, word, given: &[Quirk]| {
            let request = Request::WriteWords { address, words: vec![word], multiple: false };
            bent(2, unit, request, quirks(given))
        };
        let get = |unit, count, given: &[Quirk]| {
            bent(2, unit, Request::ReadWords { holding: true, address: 9, count }, quirks(given))
        };
        for (what, owed, asked, waits) in [
            ("another write", set(7, 5, 42, &[]), set(7, 6, 1, &[]), false),
            ("another write, whose echo is not compared", set(7, 5, 42, &[]), set(7, 6, 1, &[echo]), true),
            ("a write behind one whose echo may be any", set(7, 5, 42, &[echo]), set(7, 6, 1, &[]), true),
            ("a write of another unit", set(8, 5, 42, &[]), set(7, 6, 1, &[echo]), false),
            ("a read behind a write", set(7, 5, 42, &[echo]), get(7, 2, &[echo]), false),
            ("another unit, where any is taken", get(8, 2, &[]), get(7, 2, &[unit]), true),
            ("a unit that may answer as another", get(8, 2, &[unit]), get(7, 2, &[]), true),
            ("a read of another length", get(7, 3, &[length]), get(7, 2, &[length]), false),
        ] {
            let (mut debts, now) = (Debts::default(), Instant::now());
            debts.asked(owed.0, owed.1, now + SECOND, now);
            let other = Question::of(3, &Call::new(7, Request::line(vec![], None, None)));
            assert_eq!(debts.held_until(&other, &asked.1, now).is_some(), waits, "{what}");
        }
    }

    #[test]
    fn a_late_answer_pays_and_frees_the_line() {
        let (mut debts, now, _) = owing(&read(1, 7, 100, 2));
        let (question, shape) = read(2, 7, 200, 2);
        let mut bytes = [&[0, 7, 3][..], &sealed(&[7, 3, 4, 1, 2, 3, 4]), &[9]].concat();
        let found = debts.sift(Framing::Rtu, &mut bytes, None, now);
        assert_eq!(found, Some(Sifted::Owed { len: 9, ambiguous: None }));
        assert_eq!(bytes, [9]);
        assert_eq!(debts.held_until(&question, &shape, now), None);
        assert_eq!(debts.sift(Framing::Rtu, &mut bytes, None, now), None);
    }

    #[test]
    fn a_retry_that_is_answered_leaves_one_answer_owed() {
        let first = read(1, 7, 100, 2);
        let (mut debts, now, until) = owing(&first);
        debts.asked(first.0.clone(), first.1, until + SECOND, now);
        let mut bytes = sealed(&[7, 3, 4, 1, 2, 3, 4]);
        let own = Some((&first.0, &first.1));
        assert!(matches!(debts.sift(Framing::Rtu, &mut bytes, own, now), Some(Sifted::Own(_))));
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
        let skipped = debts.sift(Framing::Rtu, &mut bytes, asked, now);
        assert_eq!(skipped, Some(Sifted::Owed { len: 9, ambiguous: None }));
        assert_eq!(debts.sift(Framing::Rtu, &mut bytes, asked, now), Some(Sifted::Own(answer)));
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
        let first = debts.sift(Framing::Rtu, &mut bytes, asked, now);
        assert_eq!(first, Some(Sifted::Owed { len: 5, ambiguous: Some(2) }));
        assert_eq!(debts.sift(Framing::Rtu, &mut bytes, asked, now), Some(Sifted::Own(exception.clone())));

        // To a retry of the same question it is an answer, whichever of the two it answers.
        let (mut debts, now, _) = owing(&own);
        debts.asked(own.0.clone(), own.1, until, now);
        let mut bytes = exception.clone();
        assert_eq!(debts.sift(Framing::Rtu, &mut bytes, asked, now), Some(Sifted::Own(exception)));
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
