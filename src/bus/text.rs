//! One exchange with an instrument that speaks in lines of text on a serial port.
//!
//! Invariants
//! - A reply is judged line by line: what refuses is looked for first, then what confirms. A line that does neither,
//!   such as the instrument's echo of the command, is passed over.
//! - Any reply could be the reply to anything. So after a timeout a different command waits until no late reply can
//!   come any more.
//! - A reply takes a bounded amount of memory and of time.

use std::path::Path;
use std::time::Duration;

use regex_lite::Regex;
use tokio::time::{sleep_until, timeout_at, Instant};

use super::frame::Timing;
use super::late::{Debts, Question};
use super::line;
use super::link::{bounded, Ended, Link, Lost};
use super::wire::{Answer, Call, Refusal, Request, Wire};
use crate::config::{Bus, SerialPort};

/// Most bytes of one exchange's reply, lines that were passed over included.
const REPLY_BYTES_MAX: usize = 4096;

/// How long the system may take to accept a command, beyond its time on the wire.
const WRITE_SLACK: Duration = Duration::from_secs(1);

/// Longest piece of a reply that a message to a person repeats, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// A serial line with an instrument at its end.
pub(super) struct Text {
    line: line::Line,
    delimiter: Vec<u8>,
    timing: Timing,
    timeout: Duration,
    turnaround: Duration,
    /// All replies look alike.
    debts: Debts<()>,
    quiet_until: Instant,
}

impl Text {
    /// A line that is not open yet.
    pub(super) fn new(
        port: SerialPort,
        delimiter: Vec<u8>,
        timeout: Duration,
        turnaround: Duration,
        lines: &dyn line::Lines,
    ) -> Self {
        let timing = Timing::of(&port);
        Text {
            line: line::Line::new(port, lines),
            delimiter,
            timing,
            timeout,
            turnaround,
            debts: Debts::default(),
            quiet_until: Instant::now(),
        }
    }

    pub(super) fn attach(&mut self, stream: Box<dyn line::Port>) {
        self.line.stream = Some(stream);
    }

    /// Waits out the turnaround and discards what is there. An instrument that reports all the time is never silent:
    /// so silence is not waited for.
    async fn discard(&mut self) -> Result<(), String> {
        let mut chunk = [0; 256];
        sleep_until(self.quiet_until).await;
        line::catch_up().await;
        let end = Instant::now();
        for _ in 0..REPLY_BYTES_MAX / chunk.len() {
            let Some(stream) = self.line.stream.as_mut() else {
                return Err("is closed".into());
            };
            match timeout_at(end, line::read(stream, &mut chunk)).await {
                Ok(Ok(_)) => {}
                Ok(Err(why)) => return Err(why),
                Err(_) => break,
            }
        }
        Ok(())
    }

    pub(super) async fn put(&mut self, call: &Call, errand: u64) -> Ended {
        let Request::Line { bytes, expect, refuse } = &call.request else {
            return Ended::not_sent("this bus speaks lines of text, not Modbus");
        };
        if let Err(why) = self.discard().await {
            return self.line.lost(&why, Wire::NotSent);
        }
        let sending = self.timing.on_wire(bytes.len());
        let Some(stream) = self.line.stream.as_mut() else {
            return self.line.lost("is closed", Wire::NotSent);
        };
        if let Err(cut) = line::write(stream, bytes, sending + WRITE_SLACK).await {
            let wire = if cut.sent == 0 { Wire::NotSent } else { Wire::NoAnswer };
            return self.line.lost(&cut.why, wire);
        }
        let sent = Instant::now() + sending;
        let timeout = call.timeout.map_or(self.timeout, bounded);
        let until = (sent + self.debts.window(timeout)).into_std();
        self.debts.asked(Question::of(errand, call), (), until, Instant::now().into_std());
        let judge = |line: &str| judge(line, expect.as_ref(), refuse.as_ref());
        let ended = self.listen_for(judge, sent + timeout, timeout).await;
        if matches!(ended.wire, Wire::Answered(_) | Wire::Refused(_)) {
            self.debts.paid(&());
        }
        self.quiet_until = Instant::now() + self.turnaround;
        ended
    }

    async fn listen_for(
        &mut self,
        judge: impl Fn(&str) -> Option<Wire>,
        mut deadline: Instant,
        timeout: Duration,
    ) -> Ended {
        let mut reply = Reply::default();
        let mut chunk = [0; 256];
        loop {
            let Some(stream) = self.line.stream.as_mut() else {
                return self.line.lost("is closed", Wire::NoAnswer);
            };
            let len = match timeout_at(deadline, line::read(stream, &mut chunk)).await {
                Ok(Ok(len)) => len,
                Ok(Err(why)) => return self.line.lost(&why, Wire::NoAnswer),
                Err(_) => break,
            };
            // The time that a reply itself takes on the wire does not count.
            deadline += self.timing.on_wire(len);
            reply.take(&chunk[..len]);
            while let Some(line) = reply.next_line(&self.delimiter) {
                if let Some(wire) = judge(&line) {
                    return Ended::kept(wire);
                }
            }
            if reply.total > REPLY_BYTES_MAX {
                return Ended::kept(Wire::BadReply(format!(
                    "more than {REPLY_BYTES_MAX} bytes came, and nothing in them answers the command: {}",
                    reply.excerpt()
                )));
            }
        }
        let timeout = line::shown(timeout);
        Ended::kept(if reply.total == 0 {
            Wire::NoAnswer(format!("no reply within {timeout}"))
        } else {
            let excerpt = reply.excerpt();
            Wire::BadReply(format!("no reply within {timeout} that answers the command: {excerpt}"))
        })
    }
}

/// What has come of a reply.
#[derive(Debug, Default)]
struct Reply {
    /// Without the lines that were passed over.
    bytes: Vec<u8>,
    /// The last line that was passed over.
    passed: Option<String>,
    total: usize,
}

impl Reply {
    fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.total += bytes.len();
    }

    /// The next complete line, without its delimiter. Bytes that are no UTF-8 are replaced.
    fn next_line(&mut self, delimiter: &[u8]) -> Option<String> {
        let len = delimiter.len().max(1);
        let end = self.bytes.windows(len).position(|window| window == delimiter)?;
        let line = String::from_utf8_lossy(&self.bytes[..end]).into_owned();
        self.bytes.drain(..end + len);
        self.passed = Some(line.clone());
        Some(line)
    }

    /// What came, for a person: the last line, else what there is of one.
    fn excerpt(&self) -> String {
        let text = match &self.passed {
            Some(line) => line.into(),
            None => String::from_utf8_lossy(&self.bytes),
        };
        let shown: String = text.escape_debug().take(SHOWN_CHARS_MAX).collect();
        format!("\"{shown}\"")
    }
}

/// What a line says: no, yes, or neither.
fn judge(line: &str, expect: Option<&Regex>, refuse: Option<&Regex>) -> Option<Wire> {
    if let Some(text) = refuse.and_then(|refuse| captured(refuse, line)) {
        return Some(Wire::Refused(Refusal::Text(text)));
    }
    let text = match expect {
        Some(expect) => captured(expect, line)?,
        None => line.to_owned(),
    };
    Some(Wire::Answered(Answer::Line(text)))
}

/// Group 1 if there is one and it took part in the match, else the whole line.
fn captured(regex: &Regex, line: &str) -> Option<String> {
    let captures = regex.captures(line)?;
    Some(captures.get(1).map_or(line, |group| group.as_str()).to_owned())
}

impl Link for Text {
    fn take_up(&mut self, settings: &Bus) {
        self.debts.keep_for(settings.late_window);
    }

    fn port(&self) -> Option<&Path> {
        Some(&self.line.port.path)
    }

    async fn open(&mut self) -> Result<(), String> {
        let stream = self.line.open().await?;
        self.attach(stream);
        Ok(())
    }

    fn close(&mut self) {
        self.line.close();
    }

    fn suspect(&mut self, until: Instant) {
        self.debts.suspect(until.into_std());
    }

    fn owed_until(&self) -> Option<Instant> {
        self.debts.all_until().map(Instant::from_std)
    }

    fn is_open(&self) -> bool {
        self.line.stream.is_some()
    }

    async fn listen(&mut self) -> Option<Lost> {
        let mut chunk = [0; 256];
        let stream = self.line.stream.as_mut()?;
        match line::read(stream, &mut chunk).await {
            Ok(_) => None,
            Err(why) => self.line.lost(&why, Wire::NotSent).lost,
        }
    }

    fn held_until(&self, call: &Call, errand: u64) -> Option<Instant> {
        let question = Question::of(errand, call);
        let until = self.debts.held_until(&question, &(), Instant::now().into_std());
        until.map(Instant::from_std)
    }

    async fn exchange(&mut self, call: &Call, errand: u64) -> Ended {
        self.put(call, errand).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(pattern: &str) -> Option<Regex> {
        Some(Regex::new(pattern).unwrap())
    }

    #[test]
    fn a_reply_is_refused_first_then_expected_else_passed_over() {
        let yes = |text: &str| Some(Wire::Answered(Answer::Line(text.into())));
        let no = |text: &str| Some(Wire::Refused(Refusal::Text(text.into())));
        let table = [
            ("OK", regex("^OK"), None, yes("OK")),
            ("OK 5", regex("^OK"), None, yes("OK 5")),
            ("W +12.5 kg", regex(r"([+-][\d.]+) kg"), None, yes("+12.5")),
            ("OK", regex("^OK( \\d+)?"), None, yes("OK")),
            ("ERR 5", regex("."), regex("^ERR ?(.*)"), no("5")),
            ("ERR 5", None, regex("^ERR"), no("ERR 5")),
            ("T", regex("^OK"), regex("^ERR"), None),
            ("anything", None, regex("^ERR"), yes("anything")),
            ("", None, None, yes("")),
        ];
        for (line, expect, refuse, wire) in table {
            assert_eq!(judge(line, expect.as_ref(), refuse.as_ref()), wire, "{line}");
        }
    }

    #[test]
    fn lines_end_at_the_delimiter_wherever_the_chunks_end() {
        let mut reply = Reply::default();
        let mut lines = Vec::new();
        for byte in b"T\r\n\r\nOK\xFF\rx\r\nrest" {
            reply.take(&[*byte]);
            lines.extend(reply.next_line(b"\r\n"));
        }
        assert_eq!(lines, ["T", "", "OK\u{FFFD}\rx"]);
        assert_eq!(reply.total, 16);
        assert_eq!(reply.next_line(b""), None);
    }

    #[test]
    fn an_excerpt_is_printable_and_short() {
        let mut reply = Reply::default();
        reply.take(&[b'\x1b'; 300]);
        let excerpt = reply.excerpt();
        assert!(excerpt.len() <= SHOWN_CHARS_MAX + 2, "{excerpt}");
        assert!(excerpt.starts_with("\"\\u{1b}"), "{excerpt}");
    }
}
