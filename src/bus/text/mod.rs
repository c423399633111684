//! One exchange with an instrument that speaks in lines of text, or in frames, on a serial port.
//!
//! Invariants
//! - The line is listened to from the opening to the closing of its port, so that a line that began before a command
//!   was sent is known for what it is: never its answer.
//! - Any reply could be the reply to anything. So after a timeout a different command waits until no late reply can
//!   come any more, and after a reply until its rest, if it has one, is over.
//! - Whether a command may still go out is looked at last, behind every wait.
//! - Where an instrument says by itself what would be the reply, such a line confirms no command and refuses none. It
//!   is a reading, where one is asked for; but the answer may come still, and is owed.
//! - A line that is an event of a device confirms no command and refuses none, and a line that may be an answer is no
//!   event: where a command says what its reply is, and an event fits that, it is neither, but a reading may take it.
//! - What wakes an instrument is no command: what it says to that is over before the command goes out.
//! - A reply takes a bounded amount of memory and of time, whatever else is said meanwhile.

#[cfg(any(test, feature = "proof"))]
pub(in crate::bus) mod any_bytes;
mod cutter;
mod frames;
mod listening;
mod reply;
mod reports;
mod splitter;

use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::time::{timeout_at, Instant};

use crate::bus::call::{Call, Wire};
use crate::bus::debts::{Debts, Question};
use crate::bus::ears::Ears;
use crate::bus::link::{bounded, Ended, Link, Lost, TOO_LATE};
use crate::bus::port;
use crate::bus::port::error::NotOpened;
use crate::bus::port::timing::Timing;
use crate::bus::text::listening::Listening;
use crate::bus::text::reply::Reply;
use crate::bus::text::splitter::{Place, TextLine, LINE_BYTES_MAX};
use crate::config::{Bus, BusKind, Cut, Endpoint, Wake};
use crate::peripheral::exchange::Request;

/// How long the system may take to accept a command, beyond its time on the wire.
const WRITE_SLACK: Duration = Duration::from_secs(1);

/// A line that began before the timeout may take as long as so many characters to end.
const LAST_LINE_CHARS: usize = 256;

/// Most pieces that are read before a command is sent, once the line is free: all that the system keeps of what came.
const PIECES_MAX: usize = 16;

/// A serial line with an instrument at its end.
pub(in crate::bus) struct Text {
    line: port::Line,
    timing: Timing,
    timeout: Duration,
    /// All replies look alike.
    debts: Debts<()>,
    listening: Listening,
    wake: Option<Wake>,
    ears: Ears,
    /// Until when answers may come to what somebody else has asked at the port.
    shared_until: Option<Instant>,
}

/// Why a command was not put on the line.
enum NotFree {
    CalledOff,
    Babble,
    Lost(String),
}

impl Text {
    /// A line that is not open yet.
    pub(in crate::bus) fn new(
        endpoint: Endpoint,
        cut: impl Into<Cut>,
        timeout: Duration,
        turnaround: Duration,
        lines: &Arc<dyn port::Lines>,
    ) -> Self {
        let timing = Timing::of(&endpoint);
        let listening = Listening::new(cut, timing, timeout, turnaround, Instant::now().into_std());
        let (line, debts) = (port::Line::new(endpoint, lines), Debts::default());
        Text { line, timing, timeout, debts, listening, wake: None, ears: Ears::default(), shared_until: None }
    }

    /// The same line, to which these listen.
    pub(in crate::bus) fn heard_by(self, ears: Ears) -> Self {
        Text { ears, ..self }
    }

    pub(in crate::bus) fn attach(&mut self, stream: Box<dyn port::Port>) {
        self.line.stream = Some(stream);
        self.listening.opened(Instant::now().into_std());
    }

    fn hear(&mut self, bytes: &[u8]) -> Vec<TextLine> {
        let now = Instant::now().into_std();
        self.listening.feed(bytes, self.debts.owes(now), now)
    }

    /// Tells what came, as far as nobody has asked for it, to whoever listens.
    fn tell(&self, lines: &[TextLine]) {
        if self.ears.are_none() {
            return;
        }
        for line in lines.iter().filter(|line| line.is_whole() && self.ears.want(&line.text)) {
            self.ears.hear(&line.text, &line.bytes, self.may_be_an_answer(line));
        }
    }

    /// Whether a line may be an answer to something that was asked, or belong to one.
    fn may_be_an_answer(&self, line: &TextLine) -> bool {
        let now = Instant::now();
        let mut open = self.debts.questions(now.into_std());
        let is_open = |question: Option<&Question>| question.is_none_or(|of| self.listening.could_answer(of, line));
        self.shared_until.is_some_and(|until| now < until) || open.any(is_open) || self.listening.explains(line)
    }

    /// Listens until the question may go out, or its call is called off.
    async fn free(&mut self, question: &Question, call: &Call) -> Result<(), NotFree> {
        let mut chunk = [0; 4096];
        let mut pieces = 0;
        port::catch_up().await;
        loop {
            let now = Instant::now();
            let free_at = self.listening.free_at(question, now.into_std()).map(Instant::from_std);
            let until = match free_at {
                Some(at) => at,
                None if pieces < PIECES_MAX => now,
                None => return Err(NotFree::Babble),
            };
            pieces += usize::from(free_at.is_none());
            let Some(stream) = self.line.stream.as_mut() else {
                return Err(NotFree::Lost("is closed".into()));
            };
            let read = select! {
                biased;
                () = call.called_off() => return Err(NotFree::CalledOff),
                read = port::read_until(stream, &mut chunk, until) => read,
            };
            match read {
                Some(Ok(len)) => {
                    let lines = self.hear(&chunk[..len]);
                    self.tell(&lines);
                }
                Some(Err(why)) => return Err(NotFree::Lost(why)),
                None if free_at.is_none() => return Ok(()),
                None => {}
            }
        }
    }

    /// Wakes an instrument that may sleep, on a line that is free, and listens until it has said what it says to that.
    async fn rouse(&mut self, question: &Question, call: &Call, caller: u64) -> Result<(), NotFree> {
        let now = Instant::now().into_std();
        let Some(wake) = self.wake.clone().filter(|wake| self.listening.may_sleep(wake.after, now)) else {
            return Ok(());
        };
        let Some(stream) = self.line.stream.as_mut() else { return Err(NotFree::Lost("is closed".into())) };
        // The command itself may be taken back until its own first byte.
        let waking =
            Call { request: Request::line(wake.bytes, None, None), permit: call.permit.to_try(), ..call.clone() };
        let Request::Line { bytes, .. } = &waking.request else { return Ok(()) };
        self.listening.ask(now);
        let sending = self.timing.sending(bytes.len());
        let written = port::write_by(stream, bytes, sending + WRITE_SLACK, &waking).await;
        let woken = Question::of(caller, &waking);
        match written {
            Err(cut) if cut.sent == 0 && call.is_called_off() => {
                self.listening.withdraw();
                return Err(NotFree::CalledOff);
            }
            Err(cut) => return Err(NotFree::Lost(cut.why)),
            // What it says to that is nobody's, as what it says behind an answer.
            Ok(()) => {
                let turnaround = call.own_turnaround().map(bounded);
                // The system takes it at once; the instrument has heard it when it has gone over the line.
                self.listening.end(woken, true, turnaround, (Instant::now() + sending).into_std());
                self.listening.has_woken();
            }
        }
        self.free(question, call).await
    }

    pub(in crate::bus) async fn put(&mut self, call: &Call, caller: u64) -> Ended {
        let reply = self.listening.reply_to(&call.request);
        let (Request::Line { bytes, .. }, Some(mut reply)) = (&call.request, reply) else {
            return Ended::not_sent("this bus speaks lines of text, not Modbus");
        };
        let question = Question::of(caller, call);
        let free = match self.free(&question, call).await {
            Ok(()) => self.rouse(&question, call, caller).await,
            not_free => not_free,
        };
        match free {
            Ok(()) => {}
            Err(NotFree::CalledOff) => return Ended::not_sent(TOO_LATE),
            Err(NotFree::Babble) => {
                let name = &self.line.endpoint;
                return Ended::not_sent(format!("{name}: what comes unasked never stops; is the baud rate wrong?"));
            }
            Err(NotFree::Lost(why)) => return self.line.lost(&why, Wire::NotSent),
        }
        let sending = self.timing.sending(bytes.len());
        let Some(stream) = self.line.stream.as_mut() else {
            return self.line.lost("is closed", Wire::NotSent);
        };
        let asked = self.listening.ask(Instant::now().into_std());
        let written = port::write_by(stream, bytes, sending + WRITE_SLACK, call).await;
        let timeout = call.own_timeout().map_or(self.timeout, bounded);
        let sent = Instant::now() + sending;
        let until = (sent + self.debts.window(timeout)).into_std();
        match written {
            Err(cut) if cut.sent == 0 && call.is_called_off() => {
                self.listening.withdraw();
                return Ended::not_sent(TOO_LATE);
            }
            Err(cut) if cut.sent == 0 => return self.line.lost(&cut.why, Wire::NotSent),
            written => {
                self.debts.asked(question.clone(), (), until, Instant::now().into_std());
                if let Err(cut) = written {
                    return self.line.lost(&cut.why, Wire::NoAnswer);
                }
            }
        }
        let ended = self.listen_for(&mut reply, asked, sent + timeout, timeout).await;
        let answered = matches!(ended.wire, Wire::Answered(_) | Wire::Refused(_));
        match answered {
            true if reply.is_doubted() => self.debts.doubted(),
            true => {
                self.debts.paid(&());
                self.listening.paid();
            }
            false => {}
        }
        let turnaround = call.own_turnaround().map(bounded);
        self.listening.end(question, answered, turnaround, Instant::now().into_std());
        ended
    }

    async fn listen_for(&mut self, reply: &mut Reply<'_>, asked: Place, deadline: Instant, timeout: Duration) -> Ended {
        let mut chunk = [0; 256];
        let mut silent = true;
        while let Some(until) = self.patience(asked, deadline) {
            let Some(stream) = self.line.stream.as_mut() else {
                return self.line.lost("is closed", Wire::NoAnswer);
            };
            // A frame may end sooner than what is waited for, by a silence.
            let silence = self.listening.silence_ends_at().map_or(until, Instant::from_std);
            let len = match timeout_at(until.min(silence), port::read(stream, &mut chunk)).await {
                Ok(Ok(len)) => len,
                Ok(Err(why)) => return self.line.lost(&why, Wire::NoAnswer),
                Err(_) => 0,
            };
            silent &= len == 0;
            let mut lines = self.hear(&chunk[..len]).into_iter();
            while let Some(line) = lines.next() {
                if !line.is_since(asked) {
                    reply.pass(&line.text);
                    self.tell(&[line]);
                } else if self.is_event(reply, &line) {
                    reply.pass_event(&line.text);
                    self.tell(&[line]);
                } else if let Some(wire) = self.take(reply, &line) {
                    // What came in one go with it is still to be known, and the question is open until this ends.
                    self.tell(lines.as_slice());
                    return Ended::kept(wire);
                }
            }
            if self.listening.is_overlong_since(asked) {
                return Ended::kept(Wire::BadReply(format!(
                    "more than {LINE_BYTES_MAX} bytes came without the end of a reply: {}",
                    reply.excerpt(&self.listening.rest())
                )));
            }
        }
        Ended::kept(self.unanswered(reply, asked, silent, timeout))
    }

    /// How an exchange has ended to which no answer came.
    fn unanswered(&self, reply: &Reply<'_>, asked: Place, silent: bool, timeout: Duration) -> Wire {
        let timeout = port::shown(timeout);
        let rest = self.listening.rest();
        if silent {
            Wire::NoAnswer(format!("no reply within {timeout}"))
        } else if let Some(flaw) = self.listening.flaw_since(asked) {
            Wire::BadReply(format!(
                "no reply within {timeout} that answers the command, but {flaw}; does the bus's frame say what the \
                 peripheral's manual does, and is the line sound?"
            ))
        } else if reply.is_echo_only(&rest) {
            Wire::BadReply(format!("no reply within {timeout}, only the echo of the command, which says nothing"))
        } else if reply.is_event_only(&rest) {
            let excerpt = reply.excerpt(&rest);
            Wire::BadReply(format!(
                "no reply within {timeout} but what a device's `events` match; give the command an `expect` that matches \
                 its own reply: {excerpt}"
            ))
        } else if reply.is_overheard() {
            let excerpt = reply.excerpt(&rest);
            Wire::BadReply(format!(
                "no reply within {timeout} but what the instrument says by itself too, so that it may mean nothing; give \
                 the command an `expect`, and a `refuse`, that match only its own reply: {excerpt}"
            ))
        } else {
            let excerpt = reply.excerpt(&rest);
            Wire::BadReply(format!("no reply within {timeout} that answers the command: {excerpt}"))
        }
    }

    /// Whether a line is an event of a device, and no part of the reply.
    fn is_event(&self, reply: &Reply<'_>, line: &TextLine) -> bool {
        self.ears.want(&line.text) && !reply.could_take(&line.bytes)
    }

    /// Takes a line for the reply, which may be one that the instrument says by itself.
    fn take(&self, reply: &mut Reply<'_>, line: &TextLine) -> Option<Wire> {
        let likeness = self.listening.likeness(line);
        let is_report = self.listening.may_be_a_report(&likeness, Instant::now().into_std());
        let may_be_an_event = self.ears.want(&line.text);
        let is_echo = reply.is_next_echo(&line.bytes);
        let wire = reply.take(&line.bytes, is_report || may_be_an_event);
        if may_be_an_event && !is_echo {
            self.ears.hear(&line.text, &line.bytes, true);
            reply.hear_event(&line.bytes);
        }
        wire
    }

    /// Until when the reply is waited for; `None`: no longer. What began before the deadline may end.
    fn patience(&self, asked: Place, deadline: Instant) -> Option<Instant> {
        let now = Instant::now();
        if now < deadline {
            return Some(deadline);
        }
        let most = self.timing.on_wire(LAST_LINE_CHARS);
        let until = self.listening.ends_by(asked, deadline.into_std(), most).map(Instant::from_std);
        until.filter(|until| now < *until)
    }
}

impl Link for Text {
    fn take_up(&mut self, settings: &Bus) {
        self.debts.keep_for(settings.late_window);
        if let BusKind::Serial { wake, .. } = &settings.kind {
            self.wake.clone_from(wake);
        }
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        Some(&self.line.endpoint)
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

    fn shared_until(&mut self, until: Instant) {
        self.shared_until = self.shared_until.max(Some(until));
    }

    fn is_listened_to(&self) -> bool {
        !self.ears.are_none()
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
        match port::read(stream, &mut chunk).await {
            Ok(len) => {
                let lines = self.hear(&chunk[..len]);
                self.tell(&lines);
                None
            }
            Err(why) => self.line.lost(&why, Wire::NotSent).lost,
        }
    }

    fn held_until(&self, call: &Call, caller: u64, gives_way: bool) -> Option<Instant> {
        let question = Question::of(caller, call);
        let now = Instant::now().into_std();
        let owed = match gives_way {
            true => self.debts.held_behind_another(&question, &(), now),
            false => self.debts.held_until(&question, &(), now),
        };
        let free = self.is_open().then(|| self.listening.free_at(&question, now)).flatten();
        owed.into_iter().chain(free).max().map(Instant::from_std)
    }

    async fn exchange(&mut self, call: &Call, caller: u64) -> Ended {
        self.put(call, caller).await
    }
}

#[cfg(test)]
mod tests;
