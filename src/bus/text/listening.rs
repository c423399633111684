//! What is known of a line of text between two exchanges: what was heard, when, and from when on a question may go out
//! without its answer being mistaken. Pure.
//!
//! When nothing has come for the *quiet* time, an instrument has said what it had to say. That is as long as it may
//! take to answer at all (the bus's `response_timeout`, within 250 ms and 1 s), or as the silence that ends its frames,
//! if that is longer, and twenty characters at the line's speed, for what adapters and drivers collect before they pass
//! it on.
//!
//! Invariants
//! - When an exchange ends, its rest belongs to nobody: another question waits until the line has been quiet. A
//!   repetition of the same caller doesn't, as what comes to either answers both, unless something has come since: that
//!   was the late answer, and what follows is its rest.
//! - A line that was opened is quiet first: whoever was asked before, or begins anew with it, has said everything.
//! - No question goes out in the middle of a line. One that was not ended when the line fell quiet never will be, and
//!   what comes next begins a line.
//! - Both waits are bounded: an instrument that reports all the time has one quiet time after an exchange; where it is
//!   not known to do that, what goes on and on is waited for four times as long.
//! - What the instrument says by itself is told by when a line began, and kept in [`Reports`].
//! - A line that could answer the last question belongs to its rest, unless a silence came before it.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use crate::bus::debts::Question;
use crate::bus::port::timing::Timing;
use crate::bus::text::cutter::Cutter;
use crate::bus::text::reply::Reply;
use crate::bus::text::reports::{Reports, When, PATIENCE};
use crate::bus::text::splitter::{Place, TextLine};
use crate::config::Cut;
use crate::peripheral::exchange::Request;
use crate::peripheral::frame::{Ends, Frame};

/// Least and most that an instrument is believed to pause within what it says.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

/// Characters that may be under way and not heard yet.
const UNDER_WAY: usize = 20;

/// An exchange that was begun or has ended.
#[derive(Debug)]
struct Last {
    question: Question,
    ended: Instant,
    answered: bool,
    /// The silence that is kept after it.
    turnaround: Duration,
    /// It has woken the instrument, and whatever is said to that is its answer.
    woke: bool,
}

/// How a line began.
#[derive(Debug, Clone, Copy)]
struct Beginning {
    at: Instant,
    /// The silence before it.
    silence: Duration,
    /// Nothing was being asked, and no answer owed.
    unasked: bool,
}

/// What was heard on a line since it was opened.
#[derive(Debug)]
pub(in crate::bus) struct Listening {
    cutter: Cutter,
    quiet: Duration,
    /// What ends a frame, if it is silence.
    silence: Duration,
    turnaround: Duration,
    opened: Instant,
    /// When the last byte came, or the line was opened.
    heard: Instant,
    /// How the line that has not ended began.
    begun: Beginning,
    /// The last exchange.
    last: Option<Last>,
    /// From where on an answer to what is being asked is looked for.
    asked: Option<Place>,
    reports: Reports,
}

impl Beginning {
    /// In one go with what came before it, whatever that was.
    fn among_others(now: Instant) -> Beginning {
        Beginning { at: now, silence: Duration::ZERO, unasked: false }
    }
}

impl Listening {
    /// To a line as if it were opened now.
    pub(in crate::bus) fn new(
        cut: impl Into<Cut>,
        timing: Timing,
        timeout: Duration,
        turnaround: Duration,
        now: Instant,
    ) -> Listening {
        let cut = cut.into();
        let silence = match &cut {
            Cut::Frame(Frame { ends: Ends::Idle(silence), .. }) => *silence,
            _ => Duration::ZERO,
        };
        let quiet = timeout.clamp(PAUSE.0, PAUSE.1).max(silence) + timing.on_wire(UNDER_WAY);
        Listening {
            cutter: Cutter::new(cut),
            quiet,
            silence,
            turnaround,
            opened: now,
            heard: now,
            begun: Beginning::among_others(now),
            last: None,
            asked: None,
            reports: Reports::new(quiet),
        }
    }

    /// The line was opened, perhaps again: nobody knows where in a line it is. What was asked last is not forgotten,
    /// nor what was said unasked.
    pub(in crate::bus) fn opened(&mut self, now: Instant) {
        self.cutter.restart();
        self.reports.opened();
        (self.opened, self.heard, self.begun) = (now, now, Beginning::among_others(now));
        self.asked = None;
    }

    /// Nothing yet of the reply to a request; `None` if it is no line.
    pub(in crate::bus) fn reply_to<'a>(&self, request: &'a Request) -> Option<Reply<'a>> {
        self.cutter.reply_to(request)
    }

    /// Takes what came, and gives the lines that it ends. `owes`: it may be an answer that is owed.
    pub(in crate::bus) fn feed(&mut self, bytes: &[u8], owes: bool, now: Instant) -> Vec<TextLine> {
        if bytes.is_empty() {
            return self.tick(now);
        }
        // What is nobody's answer has ended with the silence before this. What may be one was waited for, if it has.
        let mut lines = if self.asked.is_none() { self.tick(now) } else { Vec::new() };
        self.align(now);
        let unasked = self.asked.is_none() && !owes;
        if !self.cutter.is_within() {
            self.begun = Beginning { at: now, silence: now.saturating_duration_since(self.heard), unasked };
        }
        self.heard = now;
        for mut line in self.cutter.feed(bytes, now) {
            line.is_rest = self.is_within_the_rest();
            self.ended(&line, unasked, now);
            lines.push(line);
        }
        lines
    }

    /// Whether the line that has begun may belong to the rest of the last reply: no silence has ended that before.
    fn is_within_the_rest(&self) -> bool {
        let Some(last) = &self.last else { return false };
        let (Beginning { at, silence, .. }, limit) = (self.begun, last.ended + self.quiet * PATIENCE);
        at < last.ended + self.quiet || at < limit && silence < self.quiet
    }

    /// Gives what silence has ended by now, and nothing else tells from what comes.
    fn tick(&mut self, now: Instant) -> Vec<TextLine> {
        let mut line = self.cutter.tick(now);
        if let Some(line) = &mut line {
            line.is_rest = self.is_within_the_rest();
            self.ended(line, false, now);
        }
        line.into_iter().collect()
    }

    /// A line has ended, and the next begins in one go with it, unasked or not.
    fn ended(&mut self, line: &TextLine, unasked: bool, now: Instant) {
        if self.begun.unasked && line.is_whole() {
            self.note(&self.cutter.likeness(line), now);
        }
        self.begun = Beginning { unasked, ..Beginning::among_others(now) };
    }

    /// A line has ended that began while nothing was asked, and no answer owed.
    fn note(&mut self, line: &str, now: Instant) {
        let when = When {
            is_late: self.begun.at >= self.rest_is_over(),
            behind_a_question: self.last.as_ref().is_some_and(|last| last.ended >= self.opened),
            silence: self.begun.silence,
        };
        self.reports.heard(line, when, now);
    }

    /// From when on nothing is the rest of a reply any more, or what is said at an opening.
    fn rest_is_over(&self) -> Instant {
        let last = self.last.as_ref().map_or(self.opened, |last| self.opened.max(last.ended));
        last + self.quiet * PATIENCE
    }

    /// Whether a line is the like of what the instrument says by itself.
    pub(in crate::bus) fn may_be_a_report(&self, line: &str, now: Instant) -> bool {
        self.reports.is_like(line, now)
    }

    /// What a line has in common with the like of it.
    pub(in crate::bus) fn likeness<'a>(&self, line: &'a TextLine) -> Cow<'a, str> {
        self.cutter.likeness(line)
    }

    /// Drops what was begun and not ended, once the line is quiet. What may be the answer that is waited for is kept.
    fn align(&mut self, now: Instant) {
        let may_be_the_answer = self.asked.is_some_and(|place| self.cutter.is_within_since(place));
        if now >= self.heard + self.quiet && self.cutter.is_within() && !may_be_the_answer {
            self.cutter.align();
        }
    }

    /// When a question may go out; `None`: now.
    pub(in crate::bus) fn free_at(&self, question: &Question, now: Instant) -> Option<Instant> {
        let silent = self.heard + self.quiet;
        let reports = self.reports.goes_on(now);
        let rest = self.last.as_ref().map(|last| {
            let limit = last.ended + self.quiet * if reports { 1 } else { PATIENCE };
            let is_repetition = !last.answered && last.question.is(question);
            let may_answer_both = is_repetition && self.heard <= last.ended;
            let rest = if may_answer_both { last.ended } else { silent.max(last.ended + self.quiet).min(limit) };
            rest.max(last.ended + last.turnaround)
        });
        // Of what was asked before the line was opened the rest may come, or what a peripheral says that begins anew.
        let opened = silent.max(self.opened + self.quiet).min(self.opened + self.quiet * PATIENCE);
        let within = self.cutter.is_within() && !reports;
        let line = within.then(|| silent.min(self.begun.at + self.quiet * PATIENCE));
        rest.into_iter().chain(line).chain([opened]).max().filter(|at| *at > now)
    }

    /// A question goes out now. Its answer is whole, and begins here or later.
    pub(in crate::bus) fn ask(&mut self, now: Instant) -> Place {
        let goes_on = now < self.heard + self.quiet && now >= self.rest_is_over();
        self.reports.asked(goes_on, now);
        self.asked = None;
        self.tick(now);
        self.align(now);
        *self.asked.insert(self.cutter.place())
    }

    /// Nothing of the question was sent, nor will be.
    pub(in crate::bus) fn withdraw(&mut self) {
        self.asked = None;
    }

    /// The exchange has ended, and its answer came or not. `turnaround`: the silence to be kept, if not the bus's.
    pub(in crate::bus) fn end(
        &mut self,
        question: Question,
        answered: bool,
        turnaround: Option<Duration>,
        now: Instant,
    ) {
        self.asked = None;
        if !answered {
            self.reports.unanswered(now);
        }
        let turnaround = turnaround.unwrap_or(self.turnaround);
        self.last = Some(Last { question, ended: now, answered, turnaround, woke: false });
    }

    /// The exchange that has ended was there to wake the instrument.
    pub(in crate::bus) fn has_woken(&mut self) {
        self.last.iter_mut().for_each(|last| last.woke = true);
    }

    /// Whether a line belongs to the last question, as far as can be told: it is a part of its reply, or comes right
    /// behind that.
    pub(in crate::bus) fn explains(&self, line: &TextLine) -> bool {
        let last = self.last.as_ref().filter(|_| line.is_rest);
        last.is_some_and(|last| last.woke || self.could_answer(&last.question, line))
    }

    /// Whether a line could be a part of the answer to a question, by more than that it came.
    pub(in crate::bus) fn could_answer(&self, question: &Question, line: &TextLine) -> bool {
        self.reply_to(question.request()).is_none_or(|reply| reply.could_take(&line.bytes))
    }

    /// What answered the last question was no report: nothing that was asked before is answered any more.
    pub(in crate::bus) fn paid(&mut self) {
        self.reports.answered();
    }

    /// Whether an instrument may sleep that does so when nothing was said on its line, to it or by it, for so long. One
    /// that has not answered may, too.
    pub(in crate::bus) fn may_sleep(&self, after: Duration, now: Instant) -> bool {
        let answered = self.last.as_ref().filter(|last| last.answered && last.ended >= self.opened);
        answered.is_none_or(|last| now >= self.heard.max(last.ended) + after)
    }

    /// Until when the line that may be the answer is waited for, if one has begun before the deadline: as long as it
    /// goes on, and no longer than `most`, and the silence that ends it, beyond the deadline.
    pub(in crate::bus) fn ends_by(&self, asked: Place, deadline: Instant, most: Duration) -> Option<Instant> {
        let is_coming = self.cutter.is_within_since(asked) && self.begun.at < deadline;
        is_coming.then(|| (self.heard + self.quiet).min(deadline + most + self.silence))
    }

    /// Whether more has come in one line since this place than is kept of one.
    pub(in crate::bus) fn is_overlong_since(&self, asked: Place) -> bool {
        self.cutter.is_overlong_since(asked)
    }

    /// When silence will have ended what has begun, where it does.
    pub(in crate::bus) fn silence_ends_at(&self) -> Option<Instant> {
        self.cutter.ends_at()
    }

    /// What was wrong with what came last since this place.
    pub(in crate::bus) fn flaw_since(&self, asked: Place) -> Option<&str> {
        self.cutter.flaw_since(asked)
    }

    /// What there is of a line that has not ended, for a person.
    pub(in crate::bus) fn rest(&self) -> String {
        String::from_utf8_lossy(self.cutter.rest()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use regex_lite::Regex;

    use super::*;
    use crate::bus::call::Call;
    use crate::config::{Endpoint, LowLatency, Parity, SerialPort};

    const MS: Duration = Duration::from_millis(1);
    /// Twenty characters of 10 ms, and the pause of an instrument that answers within 500 ms.
    const QUIET: Duration = Duration::from_millis(700);

    fn listening(now: Instant) -> Listening {
        let port = SerialPort {
            path: "line".into(),
            baud: 1000,
            parity: Parity::None,
            data_bits: 8,
            stop_bits: 1,
            rs485: None,
            low_latency: LowLatency::IfPossible,
        };
        Listening::new(
            b"\n".to_vec(),
            Timing::of(&Endpoint::Serial(port)),
            Duration::from_millis(500),
            Duration::ZERO,
            now,
        )
    }

    fn question(caller: u64, text: &str) -> Question {
        let request = Request::line(text.as_bytes().to_vec(), None, None);
        Question::of(caller, &Call::new(0, request))
    }

    /// A line that was opened some time ago, and heard nothing.
    fn idle() -> (Listening, Instant) {
        let now = Instant::now();
        (listening(now), now + QUIET * PATIENCE)
    }

    /// From when on a question may go out, if these bytes come every 100 ms after `at`.
    fn free_among(line: &mut Listening, bytes: &[u8], next: &Question, mut at: Instant) -> Instant {
        while line.free_at(next, at).is_some() {
            at += 100 * MS;
            line.feed(bytes, false, at);
        }
        at
    }

    #[test]
    fn the_quiet_time_is_the_timeout_within_bounds_and_twenty_characters() {
        let port = SerialPort {
            path: "line".into(),
            baud: 9600,
            parity: Parity::None,
            data_bits: 8,
            stop_bits: 1,
            rs485: None,
            low_latency: LowLatency::IfPossible,
        };
        let timing = Timing::of(&Endpoint::Serial(port));
        for (timeout, quiet) in [(10, 270), (400, 420), (1_000, 1_020), (600_000, 1_020)] {
            let timeout = Duration::from_millis(timeout);
            let listening = Listening::new(b"\n".to_vec(), timing, timeout, Duration::ZERO, Instant::now());
            assert_eq!(listening.quiet.as_millis(), quiet, "{timeout:?}");
        }
    }

    #[test]
    fn a_line_that_was_opened_is_quiet_first_for_four_quiet_times_at_most() {
        let now = Instant::now();
        let mut line = listening(now);
        let next = question(1, "T");
        assert_eq!(line.free_at(&next, now), Some(now + QUIET));
        assert_eq!(line.free_at(&next, now + QUIET), None);
        // The rest of a reply to whoever had it open before, or a board that begins anew.
        line.feed(b"boot\n", false, now + MS);
        assert_eq!(line.free_at(&next, now + MS), Some(now + MS + QUIET));
        line.feed(b"OK ready\n", false, now + 400 * MS);
        assert_eq!(line.free_at(&next, now + 400 * MS), Some(now + 400 * MS + QUIET));
        let at = free_among(&mut line, b"W 1\n", &next, now + 400 * MS);
        assert_eq!(at, now + 4 * QUIET);
        // It is the same when it is opened again, whatever was asked before.
        line.ask(at);
        line.end(question(1, "V"), true, None, at);
        let again = at + 100 * QUIET;
        line.opened(again);
        line.feed(b"boot\n", false, again + MS);
        assert_eq!(line.free_at(&next, again + MS), Some(again + MS + QUIET));
    }

    #[test]
    fn another_question_waits_until_the_rest_of_the_last_reply_is_over() {
        let (mut line, now) = idle();
        line.ask(now);
        line.feed(b"1999.0\n", false, now + 10 * MS);
        line.end(question(1, "V"), true, None, now + 10 * MS);
        for next in [question(2, "D"), question(2, "V"), question(1, "D"), question(1, "V")] {
            assert_eq!(line.free_at(&next, now + 10 * MS), Some(now + 10 * MS + QUIET), "{next:?}");
        }
        line.feed(b"OK\n", false, now + 400 * MS);
        let next = question(2, "D");
        assert_eq!(line.free_at(&next, now + 400 * MS), Some(now + 400 * MS + QUIET));
        assert_eq!(line.free_at(&next, now + 400 * MS + QUIET), None);
    }

    #[test]
    fn a_repetition_waits_for_nothing_but_the_turnaround() {
        let (mut line, now) = idle();
        line.turnaround = 50 * MS;
        line.ask(now);
        line.end(question(1, "V"), false, None, now);
        assert_eq!(line.free_at(&question(1, "V"), now), Some(now + 50 * MS));
        assert_eq!(line.free_at(&question(1, "V"), now + 50 * MS), None);
        assert_eq!(line.free_at(&question(2, "V"), now), Some(now + QUIET));
    }

    #[test]
    fn a_repetition_does_not_take_the_rest_of_a_late_answer_for_its_own() {
        let (mut line, now) = idle();
        line.ask(now);
        line.end(question(1, "V"), false, None, now + 500 * MS);
        assert_eq!(line.free_at(&question(1, "V"), now + 500 * MS), None);
        line.feed(b"ERR busy\n", true, now + 600 * MS);
        assert_eq!(line.free_at(&question(1, "V"), now + 600 * MS), Some(now + 600 * MS + QUIET));
        line.feed(b"R 0.0\n", true, now + 627 * MS);
        assert_eq!(line.free_at(&question(1, "V"), now + 627 * MS), Some(now + 627 * MS + QUIET));
    }

    #[test]
    fn a_repetition_does_not_take_the_rest_of_a_first_reply_of_several_lines_for_its_own() {
        let (mut line, now) = idle();
        let several = |caller| {
            let until = Regex::new("^END").unwrap();
            let mut request = Request::line(b"INFO".to_vec(), None, None);
            if let Request::Line { until: last, .. } = &mut request {
                *last = Some(until);
            }
            Question::of(caller, &Call::new(0, request))
        };
        line.ask(now);
        line.feed(b"one\n", false, now + 10 * MS);
        line.end(several(1), false, None, now + 500 * MS);
        assert_eq!(line.free_at(&several(1), now + 500 * MS), Some(now + 500 * MS + QUIET));
        line.feed(b"two\n", false, now + 600 * MS);
        assert_eq!(line.free_at(&several(1), now + 600 * MS), Some(now + 600 * MS + QUIET));
    }

    #[test]
    fn silence_ends_a_frame_that_is_nobodys_and_an_answer_where_the_silence_was_waited_for() {
        let (idle, opened) = (20 * MS, Instant::now());
        let frame = Frame { start: vec![], end: vec![], ends: Ends::Idle(idle), escape: None, checksum: None };
        let (path, parity, rs485) = ("line".into(), Parity::None, None);
        let port = SerialPort {
            path,
            baud: 1000,
            parity,
            data_bits: 8,
            stop_bits: 1,
            rs485,
            low_latency: LowLatency::IfPossible,
        };
        let timing = Timing::of(&Endpoint::Serial(port));
        let mut line = Listening::new(Cut::Frame(frame), timing, 500 * MS, Duration::ZERO, opened);
        let texts = |lines: Vec<TextLine>| lines.into_iter().map(|line| line.text).collect::<Vec<_>>();
        let now = opened + QUIET * PATIENCE;
        assert!(line.feed(b"A", false, now).is_empty());
        assert_eq!(texts(line.feed(b"B", false, now + 300 * MS)), ["A"]);
        let now = now + 2 * QUIET;
        let asked = line.ask(now);
        assert!(line.feed(b"OK", false, now).is_empty());
        assert!(line.feed(b" NOT", false, now + 300 * MS).is_empty(), "the gateway was held up");
        assert_eq!(line.silence_ends_at(), Some(now + 300 * MS + idle));
        let lines = line.feed(b"", false, now + 300 * MS + idle);
        assert!(lines.len() == 1 && lines[0].text == "OK NOT" && lines[0].is_since(asked), "{lines:?}");
    }

    #[test]
    fn what_goes_on_and_on_is_waited_for_four_times_as_long_and_a_report_once() {
        let (mut line, now) = idle();
        let next = question(2, "D");
        line.ask(now);
        line.end(question(1, "V"), true, None, now);
        let at = free_among(&mut line, b"more\n", &next, now);
        assert_eq!(at, now + 4 * QUIET);
        // By now it is known to report: so one quiet time is enough the next time.
        line.ask(at);
        line.end(question(3, "V"), true, None, at);
        assert_eq!(free_among(&mut line, b"more\n", &next, at), at + QUIET);
    }

    /// The like of this line, that comes later, may be a report.
    fn is_known(line: &Listening, text: &str, now: Instant) -> bool {
        line.may_be_a_report(text, now)
    }

    #[test]
    fn a_line_that_began_unasked_with_nothing_owed_is_a_report_the_second_time_even_if_it_ends_in_an_exchange() {
        for (owes, is_report) in [(false, true), (true, false)] {
            let (mut line, mut now) = idle();
            for _ in 0..2 {
                assert!(!is_known(&line, "W 2 kg", now));
                line.ask(now);
                line.end(question(1, "T"), true, None, now);
                line.paid();
                now += 10 * QUIET;
                line.feed(b"W 1", owes, now);
                line.ask(now + MS);
                line.feed(b" kg\nOK\n", true, now + 2 * MS);
                line.end(question(1, "T"), true, None, now + 2 * MS);
            }
            assert_eq!([is_known(&line, "W 2 kg", now), is_known(&line, "OK", now)], [is_report, false]);
            // It is known through an opening, and a fragment is none.
            line.opened(now + QUIET);
            line.feed(b" kg\n kg\n", false, now + 10 * QUIET);
            assert_eq!(is_known(&line, "W 2 kg", now + 10 * QUIET), is_report);
        }
    }

    #[test]
    fn who_goes_on_when_every_rest_is_over_reports_though_it_is_asked_all_the_time() {
        let (mut line, now) = idle();
        line.ask(now);
        line.end(question(1, "V"), true, None, now);
        let at = (1..28).map(|tenth| now + tenth * 100 * MS).inspect(|at| drop(line.feed(b"W 1\n", false, *at))).last();
        assert!(!is_known(&line, "W 1", at.unwrap()), "it may be a long reply");
        line.ask(now + 4 * QUIET);
        assert!(is_known(&line, "W 1", now + 4 * QUIET));
    }

    #[test]
    fn a_fragment_is_waited_for_and_given_up_when_the_line_is_quiet() {
        let (mut line, now) = idle();
        line.feed(b"W +00", false, now);
        let next = question(1, "T");
        assert_eq!(line.free_at(&next, now + 100 * MS), Some(now + QUIET));
        let asked = line.ask(now + QUIET);
        let lines = line.feed(b"OK\n", false, now + QUIET + MS);
        assert!(lines[0].text == "OK" && lines[0].is_since(asked));

        // Its end, if it comes before that, is the end of an old line.
        let (mut line, now) = idle();
        line.feed(b"STATE NOT ", false, now);
        let asked = line.ask(now + 300 * MS);
        let lines = line.feed(b"OK\n", false, now + 600 * MS);
        assert!(lines[0].text == "STATE NOT OK" && !lines[0].is_since(asked));
    }

    #[test]
    fn a_line_without_end_does_not_hold_up_for_ever() {
        let (mut line, now) = idle();
        line.feed(b"x", false, now);
        assert_eq!(free_among(&mut line, b"x", &question(1, "T"), now), now + 4 * QUIET);
    }

    #[test]
    fn a_pause_within_a_reply_does_not_cut_it() {
        let (mut line, now) = idle();
        let asked = line.ask(now);
        line.feed(b"W +001", false, now + MS);
        let lines = line.feed(b"2.5\n", false, now + 3 * QUIET);
        assert!(lines[0].text == "W +0012.5" && lines[0].is_since(asked));
    }

    #[test]
    fn a_reply_that_began_in_time_may_end_and_another_line_may_not() {
        let (mut line, now) = idle();
        let (deadline, most) = (now + 100 * MS, Duration::from_secs(2));
        let asked = line.ask(now);
        assert_eq!(line.ends_by(asked, deadline, most), None);
        line.feed(b"chatter\nW", false, now + 50 * MS);
        assert_eq!(line.ends_by(asked, deadline, most), Some(now + 50 * MS + QUIET));
        line.feed(b" ", false, now + 1900 * MS);
        assert_eq!(line.ends_by(asked, deadline, most), Some(deadline + most));
        // It has ended, and the next one began too late.
        line.feed(b"1\nW", false, now + 1950 * MS);
        assert_eq!(line.ends_by(asked, deadline, most), None);
    }
}
