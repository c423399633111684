//! What an instrument has said by itself lately, so that the like of it is known when it comes behind a request. Pure.
//!
//! A line does not say whether it was asked for. When it came does, if it is not the first of its kind: who takes a
//! late answer or a banner for a report has true answers count for nothing. So a line is a report
//! - if its like has come twice by itself, long after an exchange, with a silence before it and when no answer was
//!   owed;
//! - if its like is said again and again, for longer than the rest of a reply lasts.
//!
//! Invariants
//! - What may be an answer that is owed shows nothing, nor what comes in one go with it: a question that was not
//!   answered explains all of that, for so long.
//! - The rest of a reply shows nothing, however often it comes.
//! - What was heard is remembered for [`REMEMBERED`] and no longer, and of so many shapes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long an instrument is known for what it has said by itself.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Shapes of lines that are remembered: reports before others, and of these the last ones.
const SHAPES_MAX: usize = 16;

/// Questions without an answer that explain what comes late.
const UNANSWERED_MAX: usize = 32;

/// How long a question without an answer explains what comes: a busy instrument may work off what it was sent.
const EXPLAINS: Duration = Duration::from_secs(15);

/// Quiet times that one who goes on and on is waited for.
pub(super) const PATIENCE: u32 = 4;

/// So often the like of a line is said in one calm, and for so many quiet times, by one who says it again and again: a
/// handful of answers at once is none.
const STREAM: (u32, u32) = (3, 2);

/// What was heard unasked.
#[derive(Debug)]
pub(super) struct Reports {
    quiet: Duration,
    shapes: VecDeque<Heard>,
    /// When questions were given up to which no answer has come.
    unanswered: VecDeque<Instant>,
    /// What goes on until then is explained by one of them.
    explained_until: Option<Instant>,
    goes_on_until: Option<Instant>,
}

/// Lines of one shape.
#[derive(Debug)]
struct Heard {
    shape: String,
    /// How often it came since the last question, and when first.
    here: u32,
    first: Instant,
    /// When it came by itself, after a silence, the last time.
    apart: Option<Instant>,
    /// Until then it is known for a report.
    report_until: Option<Instant>,
}

/// When a line began.
#[derive(Debug, Clone, Copy)]
pub(super) struct When {
    /// The rest of a reply is over by then, and what is said at an opening.
    pub(super) is_late: bool,
    /// Something was asked since the line was opened: what comes now is not said for the opening.
    pub(super) behind_a_question: bool,
    /// The silence before it.
    pub(super) silence: Duration,
}

impl Reports {
    /// Nothing yet, of an instrument that has said everything after so long.
    pub(super) fn new(quiet: Duration) -> Reports {
        let (shapes, unanswered) = (VecDeque::new(), VecDeque::new());
        Reports { quiet, shapes, unanswered, explained_until: None, goes_on_until: None }
    }

    /// Its line was opened anew: whether it goes on there is not known.
    pub(super) fn opened(&mut self) {
        (self.explained_until, self.goes_on_until) = (None, None);
        self.shapes.iter_mut().for_each(|heard| heard.here = 0);
    }

    /// A question was not answered.
    pub(super) fn unanswered(&mut self, now: Instant) {
        self.unanswered.push_back(now);
        if self.unanswered.len() > UNANSWERED_MAX {
            self.unanswered.pop_front();
        }
    }

    /// A question was answered, so whatever was asked before it was answered too, or never will be.
    pub(super) fn answered(&mut self) {
        self.unanswered.clear();
    }

    /// A line came that nothing was asked for, while no answer was owed.
    pub(super) fn heard(&mut self, line: &str, when: When, now: Instant) {
        if self.is_explained(when.silence, now) {
            return;
        }
        let mut heard = self.take(shape(line)).unwrap_or_else(|shape| Heard::new(shape, now));
        if heard.here == 0 {
            heard.first = now;
        }
        heard.here = heard.here.saturating_add(1);
        if when.is_late {
            let is_lately = |at: Instant| now < at + REMEMBERED;
            let is_apart = when.behind_a_question && when.silence >= self.quiet;
            if is_apart && heard.apart.replace(now).is_some_and(is_lately) || heard.is_a_stream(self.quiet, now) {
                heard.report_until = Some(now + REMEMBERED);
            }
        }
        if heard.is_report(now) {
            self.goes_on_until = Some(now + self.quiet * PATIENCE);
        }
        self.keep(heard, now);
    }

    /// The next question goes out. `goes_on`: in the middle of what is said, although every rest would be over.
    pub(super) fn asked(&mut self, goes_on: bool, now: Instant) {
        for heard in &mut self.shapes {
            if goes_on && heard.is_a_stream(self.quiet, now) {
                heard.report_until = Some(now + REMEMBERED);
                self.goes_on_until = Some(now + self.quiet * PATIENCE);
            }
            heard.here = 0;
        }
    }

    /// Whether it says something all the time.
    pub(super) fn goes_on(&self, now: Instant) -> bool {
        self.goes_on_until.is_some_and(|until| now < until)
    }

    /// Whether a line is the like of what the instrument says by itself.
    pub(super) fn is_like(&self, line: &str, now: Instant) -> bool {
        let shape = shape(line);
        self.shapes.iter().any(|heard| heard.shape == shape && heard.is_report(now))
    }

    /// Whether a question that was not answered explains a line: with all that comes in one go with the first.
    fn is_explained(&mut self, silence: Duration, now: Instant) -> bool {
        let goes_on = silence < self.quiet;
        if goes_on && self.explained_until.is_some_and(|until| now < until) {
            return true;
        }
        let explaining = self.unanswered.iter().position(|at| now < *at + EXPLAINS);
        self.unanswered.drain(..explaining.unwrap_or(self.unanswered.len()));
        let until = self.unanswered.pop_front().map(|at| (now + self.quiet * PATIENCE).min(at + EXPLAINS));
        self.explained_until = until;
        until.is_some()
    }

    fn take(&mut self, shape: String) -> Result<Heard, String> {
        let known = self.shapes.iter().position(|heard| heard.shape == shape);
        known.and_then(|at| self.shapes.remove(at)).ok_or(shape)
    }

    fn keep(&mut self, heard: Heard, now: Instant) {
        if self.shapes.len() == SHAPES_MAX {
            let least = self.shapes.iter().position(|heard| !heard.is_report(now)).unwrap_or(0);
            self.shapes.remove(least);
        }
        self.shapes.push_back(heard);
    }
}

impl Heard {
    fn new(shape: String, now: Instant) -> Heard {
        Heard { shape, here: 0, first: now, apart: None, report_until: None }
    }

    fn is_report(&self, now: Instant) -> bool {
        self.report_until.is_some_and(|until| now < until)
    }

    fn is_a_stream(&self, quiet: Duration, now: Instant) -> bool {
        self.here >= STREAM.0 && now >= self.first + quiet * STREAM.1
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

    const QUIET: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);
    /// By itself, in one go with what is before it, and in the rest of a reply.
    const APART: When = When { is_late: true, behind_a_question: true, silence: QUIET };
    const IN_ONE_GO: When = When { silence: Duration::ZERO, ..APART };
    const REST: When = When { is_late: false, ..APART };

    fn nothing() -> (Reports, Instant) {
        (Reports::new(QUIET), Instant::now())
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
    fn what_comes_twice_by_itself_is_known_for_an_hour_and_what_comes_once_is_not() {
        let (mut reports, now) = nothing();
        reports.heard("W 1 kg", APART, now);
        assert!(!reports.is_like("W 3 kg", now) && !reports.goes_on(now));
        reports.heard("W 2 kg", APART, now + REMEMBERED);
        assert!(!reports.is_like("W 3 kg", now + REMEMBERED), "an hour later it is once again");
        let again = now + REMEMBERED + 60 * QUIET;
        reports.heard("W 3 kg", APART, again);
        assert!(reports.goes_on(again + 3 * QUIET) && !reports.goes_on(again + 4 * QUIET));
        assert!(reports.is_like("W 22 kg", again + REMEMBERED - MS) && !reports.is_like("W 22 lb", again));
        assert!(!reports.is_like("W 22 kg", again + REMEMBERED));
    }

    #[test]
    fn what_is_said_again_and_again_is_known_before_anything_was_asked_and_a_banner_is_not() {
        let at_the_opening = When { behind_a_question: false, ..APART };
        let (mut reports, now) = nothing();
        for opening in 0..20 {
            let at = now + opening * 60 * QUIET;
            reports.opened();
            reports.heard("READY", at_the_opening, at);
            reports.heard("READY", at_the_opening, at + 3 * QUIET);
        }
        assert!(!reports.is_like("READY", now));
        reports.heard("READY", at_the_opening, now + 1145 * QUIET);
        assert!(reports.is_like("READY", now + 1145 * QUIET));
    }

    #[test]
    fn the_rest_of_a_reply_shows_nothing_however_often_and_however_it_comes() {
        let (mut reports, mut now) = nothing();
        for round in 0..1000_u32 {
            reports.answered();
            for (line, silence) in [("OK", 300), ("OK", 900), (if round % 3 == 0 { "STABLE" } else { "MOVING" }, 700)] {
                reports.heard(line, When { silence: silence * MS, ..REST }, now);
            }
            // A long one goes on when it should be over, and ends as many others do.
            (0..40).for_each(|of| reports.heard(&format!("{} = {of}", "x".repeat(of)), IN_ONE_GO, now));
            reports.heard("DONE", IN_ONE_GO, now);
            // A line of another's comes right before the next question.
            reports.asked(round % 2 == 0, now);
            now += 5 * QUIET;
        }
        assert!(["OK", "STABLE", "MOVING", "DONE"].iter().all(|line| !reports.is_like(line, now)));
    }

    #[test]
    fn who_is_still_speaking_when_the_next_question_goes_out_reports_what_it_said_again_and_again() {
        for (lines, every, is_known) in [(10, 300, true), (3, 1000, true), (2, 2000, false), (30, 50, false)] {
            let (mut reports, now) = nothing();
            let mut at = now;
            for _ in 0..lines {
                reports.heard("W 1", When { silence: every * MS, ..REST }, at);
                at += every * MS;
            }
            reports.asked(true, at - every * MS);
            assert_eq!([reports.is_like("W 3", at), reports.goes_on(at)], [is_known; 2], "{lines} each {every} ms");
        }
    }

    #[test]
    fn an_answer_that_comes_late_is_explained_with_all_that_comes_in_one_go() {
        // A reply in three lines, and the answers to as many questions as were asked, at once or one after the other.
        for (questions, lines, pause) in [(1, &["", "OK", "END"][..], 0), (6, &["OK"; 6], 1), (6, &["OK"; 6], 1500)] {
            for _ in 0..2 {
                let (mut reports, now) = nothing();
                (0..questions).for_each(|_| reports.unanswered(now));
                for (at, line) in lines.iter().enumerate() {
                    let silence = if at == 0 { 5 * QUIET } else { pause * MS };
                    reports.heard(line, When { silence, ..APART }, now + 5 * QUIET + at as u32 * pause * MS);
                }
                assert!(reports.shapes.is_empty(), "{lines:?}, {pause} ms");
            }
        }
    }

    #[test]
    fn a_question_explains_what_comes_for_so_long_and_until_another_one_is_answered() {
        let (mut reports, now) = nothing();
        (0..100).for_each(|_| reports.unanswered(now));
        assert_eq!(reports.unanswered.len(), UNANSWERED_MAX);
        reports.answered();
        reports.unanswered(now);
        // One who streams is not explained for ever.
        let at = (0..200).map(|tenth| now + tenth * 100 * MS).inspect(|at| reports.heard("W 1", IN_ONE_GO, *at)).last();
        assert!(reports.is_like("W 2", at.unwrap()));
        reports.unanswered(now);
        reports.heard("DOOR", APART, now + EXPLAINS);
        reports.heard("DOOR", APART, now + EXPLAINS + 9 * QUIET);
        assert!(reports.is_like("DOOR", now + EXPLAINS + 9 * QUIET));
    }

    #[test]
    fn of_too_many_shapes_the_reports_are_kept() {
        let (mut reports, now) = nothing();
        (0..2).for_each(|_| reports.heard("W 1", APART, now));
        ('a'..='z').for_each(|letter| reports.heard(&letter.to_string(), APART, now));
        assert!(reports.is_like("W 2", now) && reports.shapes.len() == SHAPES_MAX);
        ('a'..='z').for_each(|letter| (0..2).for_each(|_| reports.heard(&letter.to_string(), APART, now)));
        assert!(reports.is_like("z", now) && !reports.is_like("W 2", now) && reports.shapes.len() == SHAPES_MAX);
    }
}
