//! One exchange on a Modbus line, in either framing (Modbus over Serial Line V1.02).
//!
//! Invariants
//! - A request goes out into silence: what came unasked is discarded first, and what was owed is counted as come.
//! - One request, one sending: whatever else stands on the line is skipped, and the exchange listens on until the
//!   timeout.
//! - The timeout runs from the end of sending, and the answer's own time on the wire does not count. An answer that has
//!   begun by then is heard to its end, where the framing lets its characters come far apart; further apart they are
//!   none.
//! - What goes to all units is answered by none (2.1): nothing is waited for but their time to take it up.
//! - Whether a call is called off is looked at last, behind every wait, and ends each of them.
//! - An adapter's echo of a request is never its answer, once the line has shown that it echoes. Until it has shown
//!   that it doesn't, a request that is answered by its own bytes goes out behind a read, where there is one.

use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::time::{timeout_at, Instant};
use tracing::debug;

use crate::bus::call::{Call, Wire};
use crate::bus::debts::{Debts, Question};
use crate::bus::link::{bounded, Ended, Link, Lost, TOO_LATE};
use crate::bus::modbus::answer;
use crate::bus::modbus::frame::{Framing, Shape};
use crate::bus::modbus::late::Sifted;
use crate::bus::modbus::pdu::Pdu;
use crate::bus::port;
use crate::bus::port::error::NotOpened;
use crate::bus::port::timing::Timing;
use crate::config::{Bus, Endpoint};
use crate::peripheral::exchange::Refusal;
use crate::peripheral::quirks::{Quirk, Quirks};
use crate::time::until;

/// A line on which something stands for longer than this, beside a frame under way, is not ours to write on.
const BABBLE_MAX: Duration = Duration::from_secs(1);

/// How long the system may take to accept a request, beyond its time on the wire.
const WRITE_SLACK: Duration = Duration::from_secs(1);

/// How long an answer that has begun may take to its end.
const ENDING_MAX: Duration = Duration::from_secs(5);

/// How long after its opening a connection may bring what its server has kept of answers that nobody was there to hear.
const KEPT: Duration = Duration::from_secs(1);

/// Bytes that are read at once.
const CHUNK: usize = 256;

/// The unit id that all units hear and none answers (Modbus over Serial Line V1.02, 2.2).
const BROADCAST: u8 = 0;

/// How long units are left to take up what went to all of them: the turnaround delay, typically 100 to 200 ms (2.4.1).
const TAKE_UP: Duration = Duration::from_millis(200);

/// What a person is told of an adapter that hears itself.
const ECHOES: &str =
    "what is sent comes back as an echo, which is not an answer: set the adapter so that it does not receive \
                      while it sends, or write echo = \"strip\" if it can't";

/// And of one that should and doesn't.
const ECHOES_NOT: &str =
    "echo = \"strip\" is set, and what is sent does not come back: remove it, or answers are taken \
                          for echoes";

/// Whether the line echoes what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Echo {
    /// It has shown neither since it was opened.
    Unknown,
    Absent,
    Heard,
}

/// The request that is out.
#[derive(Debug)]
struct Sent {
    frame: Vec<u8>,
    /// Whether its answer consists of the same bytes.
    is_answered_by_itself: bool,
    /// Whether its echo has come.
    echoed: bool,
    /// Bytes that have come and are neither its echo nor known to be owed.
    heard: usize,
    /// The code of an exception that was taken for the one of an earlier request, and may have been its own.
    doubted: Option<u8>,
}

/// A Modbus line.
pub(in crate::bus) struct ModbusLine {
    framing: Framing,
    line: port::Line,
    timing: Timing,
    timeout: Duration,
    /// Kept after an exchange: the silence between frames, or the turnaround if that is longer.
    silence: Duration,
    debts: Debts<Shape>,
    /// What was heard and not understood yet.
    tail: Vec<u8>,
    /// When the last of it came.
    heard_at: Instant,
    /// Nothing is sent before this.
    quiet_until: Instant,
    echo: Echo,
    /// Whether the configuration says that the line echoes.
    strips_echo: bool,
    /// What came in place of the last answer was no intact frame.
    has_garbled: bool,
    sent: Option<Sent>,
}

/// Why a request was not put on the line.
enum NotQuiet {
    CalledOff,
    Babble,
    Lost(String),
}

impl ModbusLine {
    /// A line that is not open yet.
    pub(in crate::bus) fn new(
        framing: Framing,
        endpoint: Endpoint,
        timeout: Duration,
        turnaround: Duration,
        lines: &Arc<dyn port::Lines>,
    ) -> Self {
        let timing = Timing::of(&endpoint);
        ModbusLine {
            framing,
            line: port::Line::new(endpoint, lines),
            timing,
            timeout,
            silence: timing.silence.max(turnaround),
            debts: Debts::default(),
            tail: Vec::new(),
            heard_at: Instant::now(),
            quiet_until: Instant::now(),
            echo: Echo::Unknown,
            strips_echo: false,
            has_garbled: false,
            sent: None,
        }
    }

    pub(in crate::bus) fn attach(&mut self, stream: Box<dyn port::Port>) {
        self.line.stream = Some(stream);
        self.tail.clear();
        // The peripheral that was asked last is left alone all the same.
        let silence = if self.may_be_kept() { self.silence.max(KEPT) } else { self.silence };
        self.quiet_until = self.quiet_until.max(Instant::now() + silence);
        self.echo = Echo::Unknown;
        self.sent = None;
    }

    /// Whether a server may have kept an answer that came while there was no connection, however long that was.
    fn may_be_kept(&self) -> bool {
        matches!(self.line.endpoint, Endpoint::Tcp(_)) && !self.debts.owed.is_empty()
    }

    /// Notes what was heard. Gives the frame that answers the question.
    fn heard(&mut self, bytes: &[u8], own: Option<(&Question, &Shape)>) -> Option<Vec<u8>> {
        let (now, before) = (Instant::now(), self.heard_at);
        if self.framing.apart_max().is_some_and(|most| now > before + most) {
            self.tail.clear();
        }
        self.heard_at = now;
        self.tail.extend_from_slice(bytes);
        if let Some(sent) = &mut self.sent {
            sent.heard += bytes.len();
        }
        match self.is_within_echo() {
            true => None,
            false => self.sift(own),
        }
    }

    /// The frame that answers the question, if it stands in what was heard. What was owed for another is counted as
    /// come.
    fn sift(&mut self, own: Option<(&Question, &Shape)>) -> Option<Vec<u8>> {
        let now = Instant::now().into_std();
        let answer = loop {
            match self.debts.sift(self.framing, &mut self.tail, own, now) {
                Some(Sifted::Own(frame)) => break Some(frame),
                Some(Sifted::Owed { len, ambiguous }) => {
                    debug!(port = %self.line.endpoint, "a late answer was skipped");
                    match (self.sent.as_mut(), ambiguous) {
                        (Some(sent), None) => sent.heard = sent.heard.saturating_sub(len),
                        (Some(sent), Some(_)) => sent.doubted = sent.doubted.or(ambiguous),
                        (None, _) => {}
                    }
                }
                None => break None,
            }
        };
        let surplus = self.tail.len().saturating_sub(self.tail_max());
        self.tail.drain(..surplus);
        answer
    }

    /// Bytes kept to find a frame in: the longest frame, and as much garbage in front of it.
    fn tail_max(&self) -> usize {
        2 * self.framing.frame_max()
    }

    /// Until when the rest of a frame may come that is under way.
    fn rest_until(&self) -> Option<Instant> {
        let most = self.framing.apart_max()?;
        self.framing.is_under_way(&self.tail).then(|| self.heard_at + most)
    }

    /// A line on which something stands for longer than this is not ours to write on.
    fn babble_max(&self) -> Duration {
        BABBLE_MAX + self.framing.apart_max().unwrap_or_default()
    }

    /// Takes the echo of what was sent out of what was heard, where it can be told from the answer. Tells whether the
    /// echo has begun to come, so that what stands in it must not be looked at.
    fn is_within_echo(&mut self) -> bool {
        let expected = self.echoes();
        let Some(sent) = self.sent.as_mut().filter(|sent| !sent.echoed) else { return false };
        let can_be_told = expected || !sent.is_answered_by_itself;
        let at = self.tail.windows(sent.frame.len()).position(|window| window == sent.frame);
        if let Some(at) = at.filter(|_| can_be_told) {
            self.tail.drain(at..at + sent.frame.len());
            sent.heard = sent.heard.saturating_sub(sent.frame.len());
            sent.echoed = true;
            return false;
        }
        let begins = !self.tail.is_empty() && sent.frame.starts_with(&self.tail);
        begins && can_be_told && self.echo != Echo::Absent
    }

    /// Whether what is sent comes back.
    fn echoes(&self) -> bool {
        self.strips_echo || self.echo == Echo::Heard
    }

    /// Learns from an exchange whether the line echoes. `answered` is the answer's length; 0: there was none.
    fn learn_of_echo(&mut self, answered: usize) {
        let Some(sent) = self.sent.take() else { return };
        // Noise may have been an echo: of one that lost a byte a half is left. It comes before the answer, not behind.
        let half = sent.frame.len() / 2;
        let is_like = || sent.frame.windows(half).any(|part| self.tail.windows(half).any(|heard| heard == part));
        let behind = if answered == 0 { 0 } else { self.tail.len() };
        let is_none = sent.heard.saturating_sub(behind) == answered || answered == 0 && !is_like();
        match sent.echoed {
            true => self.echo = Echo::Heard,
            false if is_none && !sent.is_answered_by_itself => self.echo = Echo::Absent,
            false => {}
        }
    }

    /// Waits for silence, discarding what breaks it, unless the call that waits is called off.
    async fn quiet(&mut self, call: &Call) -> Result<(), NotQuiet> {
        let give_up = self.quiet_until.max(Instant::now()) + self.babble_max();
        let mut chunk = [0; CHUNK];
        port::catch_up().await;
        loop {
            let Some(stream) = self.line.stream.as_mut() else {
                return Err(NotQuiet::Lost("is closed".into()));
            };
            let until = self.quiet_until.min(give_up);
            let read = select! {
                biased;
                () = call.called_off() => return Err(NotQuiet::CalledOff),
                read = port::read_until(stream, &mut chunk, until) => read,
            };
            match read {
                None if self.quiet_until <= give_up => break,
                None => return Err(NotQuiet::Babble),
                Some(Err(why)) => return Err(NotQuiet::Lost(why)),
                // A stream that always has bytes would never let the time run out.
                Some(Ok(_)) if Instant::now() >= give_up => return Err(NotQuiet::Babble),
                Some(Ok(len)) => self.overheard(&chunk[..len]),
            }
        }
        self.tail.clear();
        Ok(())
    }

    /// Notes what came unasked.
    fn overheard(&mut self, bytes: &[u8]) {
        self.heard(bytes, None);
        let silent = Instant::now() + self.timing.silence;
        self.quiet_until = self.quiet_until.max(silent).max(self.rest_until().unwrap_or(silent));
    }

    pub(in crate::bus) async fn put(&mut self, call: &Call, caller: u64) -> Ended {
        self.has_garbled = false;
        let Some(pdu) = Pdu::of(&call.request) else {
            return Ended::not_sent("this bus speaks Modbus, not lines");
        };
        let (Some(shape), Some(encoded)) = (Shape::of(call.unit, &call.request, call.quirks), pdu.encode()) else {
            return Ended::not_sent("the request fits no Modbus frame");
        };
        if call.unit == BROADCAST && !call.request.is_write() {
            return Ended::not_sent(
                "unit 0 is all units of the line, and none of them answers that: it can only be written",
            );
        }
        let frame = self.framing.sealed(call.unit, &encoded);
        match self.quiet(call).await {
            Ok(()) => {}
            Err(NotQuiet::CalledOff) => return Ended::not_sent(TOO_LATE),
            Err(NotQuiet::Babble) => {
                let name = &self.line.endpoint;
                return Ended::not_sent(format!(
                    "{name} is never silent: is another master on the line, or the baud rate wrong?"
                ));
            }
            Err(NotQuiet::Lost(why)) => return self.line.lost(&why, Wire::NotSent),
        }
        let sending = self.timing.sending(frame.len());
        let Some(stream) = self.line.stream.as_mut() else {
            return self.line.lost("is closed", Wire::NotSent);
        };
        match port::write_by(stream, &frame, sending + WRITE_SLACK, call).await {
            Ok(()) => {}
            Err(cut) if cut.sent == 0 && call.is_called_off() => return Ended::not_sent(TOO_LATE),
            Err(cut) if cut.sent == 0 => return self.line.lost(&cut.why, Wire::NotSent),
            Err(cut) => {
                self.owe(call, caller, shape, Instant::now());
                return self.line.lost(&cut.why, Wire::NoAnswer);
            }
        }
        let sent = Instant::now() + sending;
        if call.unit == BROADCAST {
            return self.told_to_all(call, sent).await;
        }
        let (timeout, question) = self.owe(call, caller, shape, sent);
        let is_answered_by_itself = call.request.is_answered_by_itself(call.quirks);
        self.sent = Some(Sent { frame, is_answered_by_itself, echoed: false, heard: 0, doubted: None });
        let deadline = sent + timeout + self.timing.on_wire(self.framing.len(&shape));
        let heard = self.listen_for(&question, &shape, deadline).await;
        let ended = match &heard {
            Ok(frame) => Ended::kept(self.answered(call, &pdu, frame)),
            Err(Silence::Lost(why)) => self.line.lost(why, Wire::NoAnswer),
            Err(Silence::Timeout) => Ended::kept(self.unanswered(call, timeout)),
        };
        match &heard {
            Ok(answer) => self.learn_of_echo(answer.len()),
            Err(Silence::Timeout) => self.learn_of_echo(0),
            Err(Silence::Lost(_)) => self.sent = None,
        }
        self.quiet_until = Instant::now() + self.silence_after(call);
        ended
    }

    /// The silence that is kept after an exchange.
    fn silence_after(&self, call: &Call) -> Duration {
        call.own_turnaround().map_or(self.silence, |own| self.timing.silence.max(bounded(own)))
    }

    /// The end of a request that went to all units, and is on the wire by then: a port that was closed before would not
    /// send it.
    async fn told_to_all(&mut self, call: &Call, sent: Instant) -> Ended {
        until(sent).await;
        self.sent = None;
        self.quiet_until = sent + self.silence_after(call).max(TAKE_UP);
        Ended::kept(Wire::Broadcast)
    }

    /// What an answer comes to. Which of two exceptions belongs to which of two requests can't be told where a gateway
    /// on the way does not keep their order: with different codes neither says what became of this one.
    fn answered(&self, call: &Call, asked: &Pdu, frame: &[u8]) -> Wire {
        let (_, answer) = self.framing.opened(frame).unwrap_or_default();
        let unit = call.unit;
        let wire = answer::ended(unit, call.quirks, asked, &answer);
        match (&wire, self.sent.as_ref().and_then(|sent| sent.doubted)) {
            (Wire::Refused(Refusal::Exception(code)), Some(earlier)) if *code != earlier => Wire::BadReply(format!(
                "unit {unit} answered with the exceptions {earlier} and {code}, and one of them belongs to an earlier request"
            )),
            _ => wire,
        }
    }

    /// Notes that an answer to what was sent by then may come. Gives the time that it is waited for.
    fn owe(&mut self, call: &Call, caller: u64, shape: Shape, sent: Instant) -> (Duration, Question) {
        let timeout = call.own_timeout().map_or(self.timeout, bounded);
        let question = Question::of(caller, call);
        if call.unit != BROADCAST {
            let until = (sent + self.debts.window(bounded(call.slowest(timeout)))).into_std();
            self.debts.asked(question.clone(), shape, until, Instant::now().into_std());
        }
        (timeout, question)
    }

    /// The frame that answers. Everything else is skipped.
    async fn listen_for(&mut self, question: &Question, shape: &Shape, deadline: Instant) -> Result<Vec<u8>, Silence> {
        let mut chunk = [0; CHUNK];
        let mut until = deadline;
        loop {
            let Some(stream) = self.line.stream.as_mut() else {
                return Err(Silence::Lost("is closed".into()));
            };
            match timeout_at(until, port::read(stream, &mut chunk)).await {
                // What looked like the beginning of an echo may have been the answer.
                Err(_) => return self.sift(Some((question, shape))).ok_or(Silence::Timeout),
                Ok(Err(why)) => return Err(Silence::Lost(why)),
                Ok(Ok(len)) => {
                    if let Some(answer) = self.heard(&chunk[..len], Some((question, shape))) {
                        return Ok(answer);
                    }
                    let rest = self.rest_until().map(|rest| rest.min(deadline + ENDING_MAX));
                    until = deadline.max(rest.unwrap_or(deadline));
                    if Instant::now() >= until {
                        return Err(Silence::Timeout);
                    }
                }
            }
        }
    }

    fn unanswered(&mut self, call: &Call, timeout: Duration) -> Wire {
        let (unit, timeout) = (call.unit, port::shown(timeout));
        match &self.sent {
            Some(Sent { heard: 0, echoed: true, .. }) if !self.strips_echo => {
                return Wire::BadReply(format!(
                    "unit {unit} did not answer within {timeout}; what came was the line's echo of the request"
                ));
            }
            Some(Sent { heard: 0, .. }) => {
                return Wire::NoAnswer(format!("unit {unit} did not answer within {timeout}"));
            }
            _ => {}
        }
        let what = match self.framing.opened(&self.tail) {
            Some((unit, pdu)) => format!("a frame of unit {unit} with function {}", pdu[0]),
            None => {
                let is_intact = |end: usize| self.framing.opened(&self.tail[..end]).is_some();
                self.has_garbled = !(1..self.tail.len()).any(is_intact);
                "no intact frame that answers the request".into()
            }
        };
        Wire::BadReply(format!(
            "unit {unit} did not answer within {timeout}; what came was {what}: {}{}",
            self.framing.shown(&self.tail),
            self.quirk(call).map_or_else(String::new, Quirks::hint)
        ))
    }

    /// The quirks that the unit would have to be said to have, so that what came is its answer.
    fn quirk(&self, call: &Call) -> Option<Quirks> {
        let is_echo = self.sent.as_ref().is_some_and(|sent| self.tail.starts_with(&sent.frame));
        let others = Quirk::ALL.into_iter().filter(|quirk| !is_echo && !call.quirks.has(*quirk));
        let mut more = others.map(|quirk| call.quirks.and(quirk));
        more.find(|quirks| {
            let shape = Shape::of(call.unit, &call.request, *quirks);
            shape.is_some_and(|shape| self.framing.find(&shape, &self.tail).is_some())
        })
    }
}

enum Silence {
    Timeout,
    Lost(String),
}

impl Link for ModbusLine {
    fn take_up(&mut self, settings: &Bus) {
        self.debts.keep_for(settings.late_window);
        self.strips_echo = settings.strips_echo;
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        Some(&self.line.endpoint)
    }

    fn slack(&self) -> Duration {
        // A request and its answer, and what may come before them.
        let ending = self.framing.apart_max().map_or(Duration::ZERO, |_| ENDING_MAX);
        let frames = self.timing.sending(2 * self.framing.frame_max());
        self.silence.max(KEPT).max(TAKE_UP) + frames + ending + self.babble_max() + WRITE_SLACK
    }

    fn is_to_be_tried(&self, call: &Call) -> bool {
        let can_be_echo = call.request.is_answered_by_itself(call.quirks);
        // A line that is opened anew may have another adapter.
        let has_shown = self.is_open() && self.echo != Echo::Unknown;
        !has_shown && !self.strips_echo && call.unit != BROADCAST && can_be_echo
    }

    fn has_garbled(&self) -> bool {
        self.has_garbled
    }

    fn trouble(&self) -> Option<&str> {
        match (self.echo, self.strips_echo) {
            (Echo::Heard, false) => Some(ECHOES),
            (Echo::Absent, true) => Some(ECHOES_NOT),
            _ => None,
        }
    }

    async fn open(&mut self) -> Result<(), NotOpened> {
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
        let mut chunk = [0; CHUNK];
        let Some(stream) = self.line.stream.as_mut() else {
            return Some(Lost::Idle);
        };
        match port::read(stream, &mut chunk).await {
            Ok(len) => {
                self.overheard(&chunk[..len]);
                None
            }
            Err(why) => self.line.lost(&why, Wire::NotSent).lost,
        }
    }

    fn held_until(&self, call: &Call, caller: u64, _: bool) -> Option<Instant> {
        let shape = Shape::of(call.unit, &call.request, call.quirks)?;
        let question = Question::of(caller, call);
        let until = self.debts.held_until(&question, &shape, Instant::now().into_std());
        until.map(Instant::from_std)
    }

    async fn exchange(&mut self, call: &Call, caller: u64) -> Ended {
        self.put(call, caller).await
    }
}

#[cfg(test)]
mod tests;
