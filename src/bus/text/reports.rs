//! What an instrument has said by itself lately, so that the like of it is known when it comes behind a request. Pure.
//!
//! A line does not say whether it was asked for. When it came does:
//! - long after everything that was asked, where no answer is owed;
//! - still going on, when the rest of a reply would be over;
//! - behind a reply of which it can't be the rest: that comes each time, and once.
//!
//! Invariants
//! - What may be an answer that is owed shows nothing. A question that was not answered explains one line, however late
//!   it comes.
//! - An instrument that is asked all the time, whose lines behind an answer may be either, is now and then left a
//!   longer pause: the more seldom, the longer it has shown nothing in them.
//! - What was heard is remembered for [`REMEMBERED`] and no longer, and of so many shapes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::bus::debts::Question;

/// How long an instrument is known for what it has said by itself.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Shapes of reports, and of lines behind an answer, that are remembered: the last ones.
const SHAPES_MAX: usize = 8;

/// Lines that questions without an answer explain at most.
const EXPLAINED_MAX: u32 = 4;

/// Quiet times that one who goes on and on is waited for.
pub(super) const PATIENCE: u32 = 4;

/// The part of a quiet time in which a reply goes on in one go.
const IN_ONE_GO: u32 = 4;

/// So often a line must have come behind the answer to a question, and so often not.
const SOMETIMES: u32 = 2;

/// So often a line comes behind answers before a first longer pause.
const FIRST_PAUSE: u32 = 4;

/// What was heard unasked.
#[derive(Debug)]
pub(super) struct Reports {
    quiet: Duration,
    reports: VecDeque<Report>,
    tails: VecDeque<Tail>,
    /// Questions to which no answer has come.
    unanswered: u32,
    goes_on_until: Option<Instant>,
}

/// Something that an instrument says by itself.
#[derive(Debug)]
struct Report {
    shape: String,
    /// The last one.
    text: String,
    until: Instant,
}

/// A question, and the shape of the reply to it.
pub(super) type Answered = (Question, String);

/// A line that came behind an answer, or where there was none.
#[derive(Debug)]
struct Tail {
    shape: String,
    answer: Option<Answered>,
    /// The last one.
    text: String,
    /// It came behind the last exchange.
    is_here: bool,
    came: u32,
    /// After a silence.
    apart: u32,
    stayed_away: u32,
    until: Instant,
}

impl Reports {
    /// Nothing yet, of an instrument that has said everything after so long.
    pub(super) fn new(quiet: Duration) -> Reports {
        Reports { quiet, reports: VecDeque::new(), tails: VecDeque::new(), unanswered: 0, goes_on_until: None }
    }

    /// Its line was opened anew: whether it goes on there is not known.
    pub(super) fn opened(&mut self) {
        self.goes_on_until = None;
        self.tails.iter_mut().for_each(|tail| tail.is_here = false);
    }

    /// A question was not answered.
    pub(super) fn unanswered(&mut self) {
        self.unanswered = EXPLAINED_MAX.min(self.unanswered + 1);
    }

    /// A line came that nothing was asked for.
    pub(super) fn unasked(&mut self, line: &str, now: Instant) {
        if self.remember(line, now) {
            self.goes_on_until = Some(now + self.quiet * PATIENCE);
        }
    }

    /// `false`: a question without an answer explains it.
    fn remember(&mut self, line: &str, now: Instant) -> bool {
        if self.unanswered > 0 {
            self.unanswered -= 1;
            return false;
        }
        let shape = shape(line);
        self.reports.retain(|report| report.until > now && report.shape != shape);
        self.reports.push_back(Report { shape, text: line.to_owned(), until: now + REMEMBERED });
        if self.reports.len() > SHAPES_MAX {
            self.reports.pop_front();
        }
        true
    }

    /// A line came behind an answer, or where there was none, and after a silence. It may be the rest of a reply.
    pub(super) fn behind(&mut self, answer: Option<&Answered>, line: &str, silence: Duration, now: Instant) {
        let shape = shape(line);
        self.tails.retain(|tail| tail.until > now);
        let known = self.tails.iter().position(|tail| tail.shape == shape && tail.is_behind(answer));
        let mut tail = known.and_then(|at| self.tails.remove(at)).unwrap_or_else(|| Tail::new(shape, answer, now));
        let is_again = std::mem::replace(&mut tail.is_here, true);
        line.clone_into(&mut tail.text);
        tail.until = now + REMEMBERED;
        if is_again && (silence >= self.quiet || self.is_like(line, |_| true, now)) {
            self.unasked(line, now);
        } else if !is_again {
            tail.came = tail.came.saturating_add(1);
            tail.apart = tail.apart.saturating_add(u32::from(silence >= self.quiet / IN_ONE_GO));
            if tail.apart >= SOMETIMES && tail.stayed_away >= SOMETIMES {
                self.remember(line, now);
                (tail.apart, tail.stayed_away) = (0, 0);
            }
        }
        self.tails.push_back(tail);
        if self.tails.len() > SHAPES_MAX {
            self.tails.pop_front();
        }
    }

    /// The rest of an answer is over, or is no longer waited for although the instrument goes on.
    pub(super) fn over(&mut self, answer: Option<&Answered>, goes_on: bool, now: Instant) {
        let mut last = None;
        for tail in &mut self.tails {
            if std::mem::take(&mut tail.is_here) {
                last = Some(tail.text.clone());
            } else if tail.is_behind(answer) {
                tail.stayed_away = tail.stayed_away.saturating_add(1);
            }
        }
        if let Some(line) = last.filter(|_| goes_on) {
            self.unasked(&line, now);
        }
    }

    /// Whether what came just now would show by a longer pause what it is.
    pub(super) fn wants_a_pause(&self) -> bool {
        let is_due = |tail: &Tail| tail.is_here && tail.came >= FIRST_PAUSE && tail.came.is_power_of_two();
        self.tails.iter().any(is_due)
    }

    /// Whether it says something all the time.
    pub(super) fn goes_on(&self, now: Instant) -> bool {
        self.goes_on_until.is_some_and(|until| now < until)
    }

    /// Whether a line is the like of what the instrument says by itself, as far as that would be an answer too.
    pub(super) fn is_like(&self, line: &str, is_answer: impl Fn(&str) -> bool, now: Instant) -> bool {
        let shape = shape(line);
        let mut alive = self.reports.iter().filter(|report| report.until > now);
        alive.any(|report| report.shape == shape && is_answer(&report.text))
    }
}

impl Tail {
    fn new(shape: String, answer: Option<&Answered>, now: Instant) -> Tail {
        let (text, answer) = (String::new(), answer.cloned());
        Tail { shape, answer, text, is_here: false, came: 0, apart: 0, stayed_away: 0, until: now }
    }

    fn is_behind(&self, answer: Option<&Answered>) -> bool {
        match (&self.answer, answer) {
            (Some(own), Some(answer)) => own.0.asks_the_same(&answer.0) && own.1 == answer.1,
            (own, answer) => own.is_none() && answer.is_none(),
        }
    }
}

/// What two lines have in common that differ in their numbers, and in how these are padded.
pub(super) fn shape(line: &str) -> String {
    let is_of_a_number = |char: char| char.is_ascii_digit() || char.is_whitespace() || "+-.,".contains(char);
    let (mut shape, mut rest) = (String::new(), line.trim());
    while let Some(first) = rest.chars().next() {
        let ends = |char: char| is_of_a_number(char) != is_of_a_number(first);
        let (run, behind) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
        shape.push_str(if run.contains(|char: char| char.is_ascii_digit()) { "0" } else { run });
        rest = behind;
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::call::Call;
    use crate::peripheral::exchange::Request;

    const QUIET: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);

    /// A question, and a reply to it.
    fn answer(text: &str, reply: &str) -> Answered {
        let request = Request::line(text.as_bytes().to_vec(), None, None);
        let question = Question::of(1, &Call { unit: 0, request, timeout: None, not_after: None, look: 0 });
        (question, shape(reply))
    }

    fn are_known(reports: &Reports, line: &str, now: Instant) -> bool {
        reports.is_like(line, |_| true, now)
    }

    #[test]
    fn lines_that_differ_in_their_numbers_have_one_shape() {
        let alike = [
            ["W +0012.5 kg", "W -1kg"],
            ["ST,GS,+  12.5kg", "ST,GS,-1,200.0kg"],
            ["12.5", "  -7 "],
            ["[12:00:01] DOOR 1", "[7:59:59] DOOR 22"],
        ];
        for [a, b] in alike {
            assert_eq!(shape(a), shape(b));
        }
        let unlike = [["OK", "READY"], ["STATE NOT OK", "OK"], ["W 1 kg", "W 1 lb"], ["ST,GS,1", "US,GS,1"], ["", "0"]];
        for [a, b] in unlike {
            assert_ne!(shape(a), shape(b));
        }
        assert_eq!(shape("+-., \u{fffd}\u{0}"), "+-., \u{fffd}\u{0}");
    }

    #[test]
    fn what_came_unasked_is_remembered_for_a_bounded_time_and_so_are_so_many_shapes() {
        let (mut reports, now) = (Reports::new(QUIET), Instant::now());
        reports.unasked("W 1 kg", now);
        assert!(reports.goes_on(now + 3 * QUIET) && !reports.goes_on(now + 4 * QUIET));
        assert!(are_known(&reports, "W 22 kg", now + REMEMBERED - MS));
        assert!(!are_known(&reports, "W 22 kg", now + REMEMBERED));
        assert!(!reports.is_like("W 22 kg", |report| report == "W 22 kg", now), "it is asked of the report itself");
        for letter in 'a'..='z' {
            reports.unasked(&letter.to_string(), now);
            reports.behind(None, &letter.to_string(), QUIET, now);
        }
        assert_eq!((reports.reports.len(), reports.tails.len()), (SHAPES_MAX, SHAPES_MAX));
        assert!(are_known(&reports, "z", now) && !are_known(&reports, "W 1 kg", now));
    }

    #[test]
    fn a_question_without_an_answer_explains_one_line() {
        let (mut reports, now) = (Reports::new(QUIET), Instant::now());
        for _ in 0..100 {
            reports.unanswered();
        }
        for _ in 0..EXPLAINED_MAX {
            reports.unasked("OK", now);
            assert!(!are_known(&reports, "OK", now) && !reports.goes_on(now));
        }
        reports.unasked("OK", now);
        assert!(are_known(&reports, "OK", now));
    }

    /// What comes behind the answer to a question, each after its silence, in one rest.
    fn rest(reports: &mut Reports, asked: &str, lines: &[(&str, Duration)], now: Instant) {
        let answer = answer(asked, if lines.is_empty() { "ERR" } else { "OK" });
        lines.iter().for_each(|(line, silence)| reports.behind(Some(&answer), line, *silence, now));
        reports.over(Some(&answer), false, now);
    }

    #[test]
    fn the_rest_of_a_reply_comes_each_time_and_in_one_go() {
        let (mut reports, now) = (Reports::new(QUIET), Instant::now());
        for round in 0..100 {
            rest(&mut reports, "A", &[("OK", 900 * MS)], now);
            rest(&mut reports, "B", &[("OK", 300 * MS), ("OK", 600 * MS), ("DONE", 1200 * MS)], now);
            // One that refuses has no rest, and one in one go may have one at times.
            rest(&mut reports, "A", &[], now);
            if round % 2 == 0 {
                reports.behind(Some(&answer("C", "7")), "OK", 100 * MS, now);
            }
            reports.over(Some(&answer("C", "7")), false, now);
        }
        assert!(!are_known(&reports, "OK", now) && !are_known(&reports, "DONE", now));
    }

    #[test]
    fn what_comes_behind_an_answer_only_sometimes_and_apart_from_it_is_no_rest_of_a_reply() {
        let (mut reports, now) = (Reports::new(QUIET), Instant::now());
        for comes in [true, false, false, true] {
            assert!(!are_known(&reports, "W 3", now));
            if comes {
                reports.behind(Some(&answer("A", "7")), "W 1", 300 * MS, now);
            }
            reports.over(Some(&answer("A", "8")), false, now);
        }
        assert!(are_known(&reports, "W 3", now) && !reports.goes_on(now));
    }

    #[test]
    fn what_comes_again_after_all_was_said_is_no_rest_of_a_reply() {
        let (mut reports, now) = (Reports::new(QUIET), Instant::now());
        rest(&mut reports, "A", &[("W 1", 50 * MS), ("W 2", QUIET - MS)], now);
        assert!(!are_known(&reports, "W 3", now));
        rest(&mut reports, "A", &[("W 1", 50 * MS), ("W 2", QUIET)], now);
        assert!(are_known(&reports, "W 3", now));
    }

    #[test]
    fn a_longer_pause_is_left_the_more_seldom_the_longer_nothing_has_shown() {
        let (mut reports, now) = (Reports::new(QUIET), Instant::now());
        let mut pauses = Vec::new();
        for round in 1..=100 {
            reports.behind(Some(&answer("A", "7")), "OK", MS, now);
            pauses.extend(reports.wants_a_pause().then_some(round));
            reports.over(Some(&answer("A", "7")), false, now);
            assert!(!reports.wants_a_pause());
        }
        assert_eq!(pauses, [4, 8, 16, 32, 64]);
    }

    #[test]
    fn what_is_said_twice_in_a_rest_is_still_a_report_if_it_was_one() {
        let (mut reports, now) = (Reports::new(QUIET), Instant::now());
        reports.unasked("W 1 kg", now);
        rest(&mut reports, "A", &[("W 1 kg", MS), ("W 2 kg", MS)], now + REMEMBERED / 2);
        assert!(are_known(&reports, "W 3 kg", now + REMEMBERED));
    }
}
