//! What the lines that follow a command say to it. Pure.
//!
//! Invariants
//! - A line is looked at for what refuses first, then for what confirms. One that does neither is passed over.
//! - The command itself, come back as an echo, says nothing: who repeats it may be a wire.
//! - With `until` the reply is every line up to the one that matches it, and `expect` is tried on all of it.
//! - What the instrument may have said by itself confirms no command and refuses nothing. Where it is asked for a
//!   reading, it has given one by that.
//! - Behind an event that the command takes for its reply nothing confirms or refuses it either: if it was the reply,
//!   that is what an instrument says behind one.

use std::collections::VecDeque;

use regex_lite::Regex;

use crate::bus::call::Wire;
use crate::bus::text::splitter::Splitter;
use crate::peripheral::exchange::{Answer, Refusal, Request};
use crate::peripheral::frame::Frame;
use crate::peripheral::Picture;

/// Most bytes of a reply of several lines.
const REPLY_BYTES_MAX: usize = 4096;

/// Longest piece of a reply that a message to a person repeats, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// Signs that an instrument puts in front of what is typed.
const PROMPTS: [char; 4] = ['>', '#', '$', ':'];

/// What of a command may come back.
#[derive(Debug, PartialEq)]
enum Echo {
    /// A line, whatever stands around it.
    Line(String),
    /// A frame with this payload.
    Frame(Vec<u8>),
}

impl Echo {
    /// Whether a line is it, as it came and as a text.
    fn is(&self, bytes: &[u8], line: &str) -> bool {
        match self {
            Echo::Line(text) => text == bare(line),
            Echo::Frame(payload) => payload == bytes,
        }
    }
}

/// What has come of a reply.
#[derive(Debug)]
pub(in crate::bus) struct Reply<'a> {
    expect: Option<&'a Regex>,
    refuse: Option<&'a Regex>,
    until: Option<&'a Regex>,
    is_reading: bool,
    /// The expected reply where it is no text.
    picture: Option<&'a Picture>,
    /// What of the command may still come back.
    echoes: VecDeque<Echo>,
    /// The lines of a reply that has several, and whether they count as said to the command.
    lines: Vec<(String, bool)>,
    /// The last line that was passed over.
    passed: Option<String>,
    echoed: bool,
    /// Something that was taken for it may have been said unasked.
    doubted: bool,
    /// Something that was not taken for it for that reason.
    overheard: bool,
    /// Whether all lines that were passed over were events.
    events_only: bool,
    /// An event said what ends the reply: what follows may be the rest of it.
    may_be_over: bool,
}

impl<'a> Reply<'a> {
    /// Nothing yet of the reply to a line, on a bus whose lines end so; `None` if the request is none.
    pub(in crate::bus) fn to(request: &'a Request, delimiter: &[u8]) -> Option<Reply<'a>> {
        let Request::Line { bytes, .. } = request else { return None };
        // As the splitter cuts what comes back, and as terminals do.
        let mut splitter = Splitter::new(delimiter.to_vec());
        splitter.align();
        let mut sent: Vec<String> = splitter.feed(bytes).into_iter().map(|line| line.text).collect();
        sent.push(String::from_utf8_lossy(splitter.rest()).into_owned());
        let echoes = sent.iter().flat_map(|line| line.split(['\r', '\n'])).map(bare).filter(|line| !line.is_empty());
        Reply::behind(request, echoes.map(|line| Echo::Line(line.to_owned())).collect())
    }

    /// The same on a bus whose lines carry such frames.
    pub(in crate::bus) fn framed(request: &'a Request, frame: &Frame) -> Option<Reply<'a>> {
        let Request::Line { bytes, .. } = request else { return None };
        let payload = frame.open(bytes).unwrap_or_else(|_| bytes.clone());
        Reply::behind(request, VecDeque::from([Echo::Frame(payload)]))
    }

    fn behind(request: &'a Request, echoes: VecDeque<Echo>) -> Option<Reply<'a>> {
        let Request::Line { expect, picture, refuse, until, is_reading, .. } = request else { return None };
        Some(Reply {
            expect: expect.as_ref(),
            picture: picture.as_ref(),
            refuse: refuse.as_ref(),
            until: until.as_ref(),
            is_reading: *is_reading,
            echoes,
            lines: Vec::new(),
            passed: None,
            echoed: false,
            doubted: false,
            overheard: false,
            events_only: false,
            may_be_over: false,
        })
    }

    /// A line that is no part of the reply.
    pub(in crate::bus) fn pass(&mut self, line: &str) {
        self.passed = Some(line.to_owned());
        self.events_only = false;
    }

    /// A line that is an event of a device, and no part of the reply.
    pub(in crate::bus) fn pass_event(&mut self, line: &str) {
        let is_first = self.passed.is_none();
        self.passed = Some(line.to_owned());
        self.events_only |= is_first;
    }

    /// Whether nothing was heard but events.
    pub(in crate::bus) fn is_event_only(&self, rest: &str) -> bool {
        self.events_only && rest.is_empty()
    }

    /// Whether something that was taken for the reply may have been said unasked.
    pub(in crate::bus) fn is_doubted(&self) -> bool {
        self.doubted
    }

    /// Whether something was not taken for the reply, since it may have been said unasked.
    pub(in crate::bus) fn is_overheard(&self) -> bool {
        self.overheard
    }

    /// Whether a line could be a part of the reply, by more than that it came: it confirms or refuses as the command
    /// says, or comes back to it as an echo. Each line of a reply that has several could.
    pub(in crate::bus) fn could_take(&self, line: &[u8]) -> bool {
        let text = &*String::from_utf8_lossy(line);
        self.until.is_some()
            || self.echoes.iter().any(|echo| echo.is(line, text))
            || self.refuse.is_some_and(|refuse| refuse.is_match(text))
            || self.expect.is_some_and(|expect| expect.is_match(text))
            || self.picture.is_some_and(|picture| picture.read(line).is_some())
    }

    /// An event of a device has come that may be the end of the reply, if the command expects just that.
    pub(in crate::bus) fn hear_event(&mut self, line: &[u8]) {
        let text = &*String::from_utf8_lossy(line);
        let is_expected = self.expect.is_some_and(|expect| expect.is_match(text))
            || self.picture.is_some_and(|picture| picture.read(line).is_some());
        self.may_be_over |= self.until.is_none() && (is_expected || self.refused(text).is_some());
    }

    /// Whether a line is what may come back of the command next.
    pub(in crate::bus) fn is_next_echo(&self, line: &[u8]) -> bool {
        self.echoes.front().is_some_and(|echo| echo.is(line, &String::from_utf8_lossy(line)))
    }

    /// Takes a line, which may have been said unasked. Gives the end of the exchange, if the line is that.
    pub(in crate::bus) fn take(&mut self, line: impl AsRef<[u8]>, is_doubtful: bool) -> Option<Wire> {
        let bytes = line.as_ref();
        let line = &*String::from_utf8_lossy(bytes);
        if self.is_next_echo(bytes) {
            self.echoes.pop_front();
            self.echoed = true;
            return None;
        }
        self.pass(line);
        let is_doubtful = is_doubtful || self.may_be_over;
        let refusal = self.refused(line);
        let counts = !is_doubtful || self.is_reading && refusal.is_none();
        *(if counts { &mut self.doubted } else { &mut self.overheard }) |= is_doubtful;
        match (refusal, self.until) {
            (Some(refusal), _) if counts => Some(Wire::Refused(refusal)),
            (_, Some(until)) => self.add(line, counts, until),
            (_, None) if counts => self.answer(bytes, line).map(Wire::Answered),
            (_, None) => None,
        }
    }

    /// What one line answers, as it came and as a text.
    fn answer(&self, bytes: &[u8], line: &str) -> Option<Answer> {
        match self.picture {
            Some(picture) => picture.read(bytes).map(Answer::Value),
            None => self.confirmed(line),
        }
    }

    /// Adds a line to a reply that has several.
    fn add(&mut self, line: &str, counts: bool, until: &Regex) -> Option<Wire> {
        self.lines.push((line.to_owned(), counts));
        // Each with what joins it to the next: an empty line takes room, too.
        if self.lines.iter().map(|(line, _)| line.len() + 1).sum::<usize>() > REPLY_BYTES_MAX {
            let excerpt = self.excerpt("");
            return Some(Wire::BadReply(format!(
                "more than {REPLY_BYTES_MAX} bytes came, and nothing in them ends the reply: {excerpt}"
            )));
        }
        if !counts || !until.is_match(line) {
            return None;
        }
        Some(self.judged())
    }

    /// What a reply of several lines says that has ended. What counts must say it alone, and say the same with the
    /// rest.
    fn judged(&self) -> Wire {
        let joined = |lines: Vec<&str>| lines.join("\n");
        let whole = joined(self.lines.iter().map(|(line, _)| line.as_str()).collect());
        let certain = joined(self.lines.iter().filter(|(_, counts)| *counts).map(|(line, _)| line.as_str()).collect());
        let is_clear = |answer: &Answer| self.expect.is_none() || self.confirmed(&whole).as_ref() == Some(answer);
        let refused = self.lines.iter().find(|(line, _)| self.refused(line).is_some());
        match (refused, self.confirmed(&certain).filter(is_clear)) {
            (Some((line, _)), _) => Wire::BadReply(format!(
                "the reply may refuse the command, or the instrument says that by itself too: {}",
                excerpt_of(line)
            )),
            (None, Some(answer)) => Wire::Answered(answer),
            (None, None) => {
                Wire::BadReply(format!("the reply has ended and does not answer the command: {}", excerpt_of(&whole)))
            }
        }
    }

    fn refused(&self, line: &str) -> Option<Refusal> {
        self.refuse.and_then(|refuse| captured(refuse, line)).map(Refusal::Text)
    }

    fn confirmed(&self, text: &str) -> Option<Answer> {
        let text = match self.expect {
            Some(expect) => captured(expect, text)?,
            None => text.to_owned(),
        };
        Some(Answer::Line(text))
    }

    /// Whether nothing was heard but the command itself.
    pub(in crate::bus) fn is_echo_only(&self, rest: &str) -> bool {
        self.echoed && self.passed.is_none() && rest.is_empty()
    }

    /// What came, for a person: the last line, else what there is of one.
    pub(in crate::bus) fn excerpt(&self, rest: &str) -> String {
        excerpt_of(self.passed.as_deref().unwrap_or(rest))
    }
}

fn excerpt_of(text: &str) -> String {
    let shown: String = text.escape_debug().take(SHOWN_CHARS_MAX).collect();
    format!("\"{shown}\"")
}

/// A line without what may stand around it where it is echoed.
fn bare(line: &str) -> &str {
    line.trim().trim_start_matches(PROMPTS).trim_start()
}

/// Group 1 if there is one and it took part in the match, else the whole text.
fn captured(regex: &Regex, text: &str) -> Option<String> {
    let captures = regex.captures(text)?;
    Some(captures.get(1).map_or(text, |group| group.as_str()).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(pattern: &str) -> Option<Regex> {
        Some(Regex::new(pattern).unwrap())
    }

    fn yes(text: &str) -> Option<Wire> {
        Some(Wire::Answered(Answer::Line(text.into())))
    }

    fn no(text: &str) -> Option<Wire> {
        Some(Wire::Refused(Refusal::Text(text.into())))
    }

    #[test]
    fn a_reply_is_refused_first_then_expected_else_passed_over() {
        let table = [
            ("OK", regex("^OK"), None, yes("OK")),
            ("OK 5", regex("^OK"), None, yes("OK 5")),
            ("W +12.5 kg", regex(r"([+-][\d.]+) kg"), None, yes("+12.5")),
            ("OK", regex("^OK( \\d+)?"), None, yes("OK")),
            ("ERR 5", regex("."), regex("^ERR ?(.*)"), no("5")),
            ("ERR 5", None, regex("^ERR"), no("ERR 5")),
            ("Z", regex("^OK"), regex("^ERR"), None),
            ("anything", None, regex("^ERR"), yes("anything")),
            ("", None, None, yes("")),
        ];
        for (line, expect, refuse, wire) in table {
            let request = Request::line(b"T\r\n".to_vec(), expect, refuse);
            assert_eq!(Reply::to(&request, b"\r\n").unwrap().take(line, false), wire, "{line}");
        }
    }

    #[test]
    fn an_echo_is_one_whatever_ends_a_line() {
        for (delimiter, sent, back) in
            [(&b";"[..], "VOLT 5;", "VOLT 5"), (b"\x03", "\u{2}T\u{3}", "\u{2}T"), (b"", "T", "T")]
        {
            let request = Request::line(sent.as_bytes().to_vec(), None, None);
            let mut reply = Reply::to(&request, delimiter).unwrap();
            assert_eq!(reply.take(back, false), None, "{sent:?}");
            assert!(reply.take("5", false).is_some(), "{sent:?}");
        }
    }

    #[test]
    fn the_echo_of_a_command_is_passed_over_once() {
        let request = Request::line(b"OPEN 5\r\nCLOSE\r\n".to_vec(), regex("^OPEN (.*)|CLOSE"), regex("CLOSE"));
        let mut reply = Reply::to(&request, b"\r\n").unwrap();
        assert_eq!(reply.take("> OPEN 5", false), None);
        assert_eq!(reply.take("CLOSE\r", false), None);
        assert!(reply.is_echo_only("") && !reply.is_echo_only("x"));
        assert_eq!(reply.take("OPEN 5", false), yes("5"));
        assert!(!reply.is_echo_only(""));
    }

    #[test]
    fn a_reply_of_several_lines_is_judged_as_a_whole() {
        let request = Request::Line {
            bytes: b"INFO\r\n".to_vec(),
            expect: regex("(?s)^(.*)\nEND$"),
            picture: None,
            refuse: regex("^ERR (.*)"),
            until: regex("^END"),
            is_reading: false,
        };
        let said = |lines: &[&str]| {
            let mut reply = Reply::to(&request, b"\r\n").unwrap();
            lines.iter().find_map(|line| reply.take(line, false))
        };
        assert_eq!(said(&["INFO", "a", "b"]), None);
        assert_eq!(said(&["INFO", "a", "b", "END", "c"]), yes("a\nb"));
        assert_eq!(said(&["a", "ERR 7", "END"]), no("7"));
        let unclear = said(&["a", "END?"]);
        assert!(matches!(&unclear, Some(Wire::BadReply(why)) if why.contains("\"a\\nEND?\"")), "{unclear:?}");
        let long = "x".repeat(3000);
        let unclear = said(&[&long, &long]);
        assert!(matches!(&unclear, Some(Wire::BadReply(why)) if why.contains("more than 4096")), "{unclear:?}");
        let unclear = said(&[""; 5000]);
        assert!(matches!(&unclear, Some(Wire::BadReply(why)) if why.contains("more than 4096")), "{unclear:?}");
    }

    #[test]
    fn what_may_have_been_said_unasked_is_a_reading_and_nothing_else() {
        let line = |is_reading, until: Option<&str>| Request::Line {
            bytes: b"T\r\n".to_vec(),
            expect: regex("([0-9.]+) kg"),
            picture: None,
            refuse: regex("^ERR"),
            until: until.and_then(regex),
            is_reading,
        };
        // The lines, which of them may have been said unasked, and the end; whether it is doubted.
        let table: [(_, _, &[(&str, bool)], _, _); 9] = [
            (true, None, &[("W 1 kg", true)], yes("1"), true),
            (true, None, &[("ERR", true), ("W 1 kg", false)], yes("1"), false),
            (true, Some("^END"), &[("W 1 kg", true), ("END", false)], yes("1"), true),
            (false, None, &[("W 1 kg", true)], None, false),
            (false, None, &[("ERR", true)], None, false),
            (false, None, &[("W 1 kg", true), ("T 2 kg", false)], yes("2"), false),
            (false, None, &[("W 1 kg", true), ("ERR", false)], no("ERR"), false),
            (false, Some("^END"), &[("T 2 kg", false), ("W 1 kg", true), ("END", false)], yes("2"), false),
            (false, Some("^END"), &[("END", true)], None, false),
        ];
        for (is_reading, until, lines, wire, is_doubted) in table {
            let request = line(is_reading, until);
            let mut reply = Reply::to(&request, b"\r\n").unwrap();
            let end = lines.iter().find_map(|(line, is_doubtful)| reply.take(line, *is_doubtful));
            assert_eq!((end, reply.is_doubted()), (wire, is_doubted), "{is_reading} {until:?} {lines:?}");
        }
        // Only a report says what is expected; a report says another value first; what may refuse may be a report.
        for lines in
            [&[("W 1 kg", true)][..], &[("W 1 kg", true), ("T 2 kg", false)], &[("T 2 kg", false), ("ERR", true)]]
        {
            let request = line(false, Some("^END"));
            let mut reply = Reply::to(&request, b"\r\n").unwrap();
            assert!(lines.iter().all(|(line, is_doubtful)| reply.take(line, *is_doubtful).is_none()));
            assert!(matches!(reply.take("END", false), Some(Wire::BadReply(_))), "{lines:?}");
        }
    }

    #[test]
    fn what_follows_an_event_that_may_have_been_the_reply_is_none() {
        let request = Request::line(b"T 1\r\n".to_vec(), regex("([0-9.]+) kg"), regex("^ERR"));
        for (event, is_over) in [("W 1 kg", true), ("ERR 3", true), ("ALARM 7", false)] {
            for (line, wire) in [("ERR none", no("ERR none")), ("T 2 kg", yes("2"))] {
                let mut reply = Reply::to(&request, b"\r\n").unwrap();
                reply.hear_event(event.as_bytes());
                assert_eq!(reply.take(event, true), None);
                assert_eq!(reply.take(line, false), wire.filter(|_| !is_over), "{line} behind {event}");
                assert!(reply.is_overheard(), "{line} behind {event}");
            }
        }
    }

    #[test]
    fn an_excerpt_is_printable_and_short() {
        let request = Request::line(b"T".to_vec(), None, None);
        let excerpt = Reply::to(&request, b"\r\n").unwrap().excerpt(&"\u{1b}".repeat(300));
        assert!(excerpt.len() <= SHOWN_CHARS_MAX + 2, "{excerpt}");
        assert!(excerpt.starts_with("\"\\u{1b}"), "{excerpt}");
    }
}
