//! One exchange on a Modbus RTU line (Modbus over Serial Line V1.02).
//!
//! Invariants
//! - A request goes out into silence: what came unasked is discarded first, and what was owed is counted as come.
//! - One request, one sending: whatever else stands on the line is skipped, and the exchange listens on until the
//!   timeout.
//! - The timeout runs from the end of sending, and the answer's own time on the wire does not count.

use std::time::Duration;

use tokio::time::{timeout_at, Instant};
use tracing::debug;

use super::frame::{is_intact, Shape, Timing, FRAME_MAX};
use super::late::{self, Debts, Question, Sifted};
use super::line;
use super::link::{bounded, Ended, Link, Lost};
use super::modbus::Codec;
use super::wire::{Call, Wire};
use crate::config::SerialPort;

/// A line on which something stands for longer than this is not ours to write on.
const BABBLE_MAX: Duration = Duration::from_secs(1);

/// How long the system may take to accept a request, beyond its time on the wire.
const WRITE_SLACK: Duration = Duration::from_secs(1);

/// Bytes kept to find a frame in: the longest frame, and as much garbage in front of it.
const TAIL_MAX: usize = 2 * FRAME_MAX;

/// The unit id that all units hear and none answers (Modbus over Serial Line V1.02, 2.2).
const BROADCAST: u8 = 0;

/// A Modbus RTU line.
pub(super) struct Rtu {
    line: line::Line,
    timing: Timing,
    timeout: Duration,
    /// Kept after an exchange: the silence between frames, or the turnaround if that is longer.
    silence: Duration,
    debts: Debts<Shape>,
    /// What was heard and not understood yet.
    tail: Vec<u8>,
    /// Nothing is sent before this.
    quiet_until: Instant,
}

/// Why a request was not put on the line.
enum NotQuiet {
    Babble,
    Lost(String),
}

impl Rtu {
    /// A line that is not open yet.
    pub(super) fn new(port: SerialPort, timeout: Duration, turnaround: Duration, lines: &dyn line::Lines) -> Self {
        let timing = Timing::of(&port);
        Rtu {
            line: line::Line::new(port, lines),
            timing,
            timeout,
            silence: timing.silence.max(turnaround),
            debts: Debts::default(),
            tail: Vec::new(),
            quiet_until: Instant::now(),
        }
    }

    pub(super) fn attach(&mut self, stream: Box<dyn line::Port>) {
        self.line.stream = Some(stream);
        self.tail.clear();
        self.quiet_until = Instant::now() + self.silence;
    }

    /// Notes what was heard. Gives the frame that answers the question, and counts the bytes that were owed for
    /// another.
    fn heard(&mut self, bytes: &[u8], own: Option<(&Question, &Shape)>) -> (Option<Vec<u8>>, usize) {
        self.tail.extend_from_slice(bytes);
        let now = Instant::now().into_std();
        let mut owed = 0;
        let answer = loop {
            match self.debts.sift(&mut self.tail, own, now) {
                Some(Sifted::Own(frame)) => break Some(frame),
                Some(Sifted::Owed { len, ambiguous }) => {
                    debug!(port = %self.line.port.path.display(), "a late answer was skipped");
                    owed += if ambiguous { 0 } else { len };
                }
                None => break None,
            }
        };
        let surplus = self.tail.len().saturating_sub(TAIL_MAX);
        self.tail.drain(..surplus);
        (answer, owed)
    }

    /// Waits for silence, discarding what breaks it.
    async fn quiet(&mut self) -> Result<(), NotQuiet> {
        let give_up = self.quiet_until.max(Instant::now()) + BABBLE_MAX;
        let mut chunk = [0; FRAME_MAX];
        line::catch_up().await;
        loop {
            let Some(stream) = self.line.stream.as_mut() else {
                return Err(NotQuiet::Lost("is closed".into()));
            };
            let until = self.quiet_until.min(give_up);
            match timeout_at(until, line::read(stream, &mut chunk)).await {
                Err(_) if self.quiet_until <= give_up => break,
                Err(_) => return Err(NotQuiet::Babble),
                Ok(Err(why)) => return Err(NotQuiet::Lost(why)),
                // A stream that always has bytes would never let the time run out.
                Ok(Ok(_)) if Instant::now() >= give_up => return Err(NotQuiet::Babble),
                Ok(Ok(len)) => self.overheard(&chunk[..len]),
            }
        }
        self.tail.clear();
        Ok(())
    }

    /// Notes what came unasked.
    fn overheard(&mut self, bytes: &[u8]) {
        self.heard(bytes, None);
        self.quiet_until = self.quiet_until.max(Instant::now() + self.timing.silence);
    }

    pub(super) async fn put(&mut self, call: &Call, errand: u64) -> Ended {
        let Some(shape) = Shape::of(call.unit, &call.request) else {
            return Ended::not_sent("the request fits no Modbus frame");
        };
        let mut codec = Codec::rtu();
        let (frame, asked) = match codec.ask(call.unit, &call.request).await {
            Ok(encoded) => encoded,
            Err(why) => return Ended::not_sent(why),
        };
        match self.quiet().await {
            Ok(()) => {}
            Err(NotQuiet::Babble) => {
                let name = self.line.port.path.display();
                return Ended::not_sent(format!(
                    "{name} is never silent: is another master on the line, or the baud rate wrong?"
                ));
            }
            Err(NotQuiet::Lost(why)) => return self.line.lost(&why, Wire::NotSent),
        }
        let sending = self.timing.on_wire(frame.len());
        let Some(stream) = self.line.stream.as_mut() else {
            return self.line.lost("is closed", Wire::NotSent);
        };
        if let Err(cut) = line::write(stream, &frame, sending + WRITE_SLACK).await {
            let wire = if cut.sent == 0 { Wire::NotSent } else { Wire::NoAnswer };
            return self.line.lost(&cut.why, wire);
        }
        let sent = Instant::now() + sending;
        let timeout = call.timeout.map_or(self.timeout, bounded);
        let question = Question::of(errand, call);
        if call.unit != BROADCAST {
            let until = (sent + late::window(timeout)).into_std();
            self.debts.asked(question.clone(), shape, until, Instant::now().into_std());
        }
        let deadline = sent + timeout + self.timing.on_wire(shape.len());
        let ended = match self.listen_for(&question, &shape, deadline).await {
            Ok(answer) => Ended::kept(asked.answer(&answer).await),
            Err(Silence::Lost(why)) => self.line.lost(&why, Wire::NoAnswer),
            Err(Silence::Timeout { heard }) => Ended::kept(self.unanswered(call, timeout, heard)),
        };
        self.quiet_until = Instant::now() + self.silence;
        ended
    }

    /// The frame that answers. Everything else is skipped.
    async fn listen_for(&mut self, question: &Question, shape: &Shape, deadline: Instant) -> Result<Vec<u8>, Silence> {
        let mut chunk = [0; FRAME_MAX];
        let mut heard = 0;
        loop {
            let Some(stream) = self.line.stream.as_mut() else {
                return Err(Silence::Lost("is closed".into()));
            };
            match timeout_at(deadline, line::read(stream, &mut chunk)).await {
                Err(_) => return Err(Silence::Timeout { heard }),
                Ok(Err(why)) => return Err(Silence::Lost(why)),
                Ok(Ok(len)) => {
                    let (answer, owed) = self.heard(&chunk[..len], Some((question, shape)));
                    heard = (heard + len).saturating_sub(owed);
                    if let Some(answer) = answer {
                        return Ok(answer);
                    }
                    if Instant::now() >= deadline {
                        return Err(Silence::Timeout { heard });
                    }
                }
            }
        }
    }

    fn unanswered(&self, call: &Call, timeout: Duration, heard: usize) -> Wire {
        let (unit, timeout) = (call.unit, line::shown(timeout));
        if heard == 0 {
            return Wire::NoAnswer(format!("unit {unit} did not answer within {timeout}"));
        }
        let what = match self.tail[..] {
            [unit, function, ..] if is_intact(&self.tail) => {
                format!("a frame of unit {unit} with function {function}")
            }
            _ => "no intact frame that answers the request".into(),
        };
        Wire::BadReply(format!(
            "unit {unit} did not answer within {timeout}; what came was {what}: {}",
            line::hex(&self.tail)
        ))
    }
}

enum Silence {
    Timeout {
        /// Bytes that came and were not known to be owed.
        heard: usize,
    },
    Lost(String),
}

impl Link for Rtu {
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
        let mut chunk = [0; FRAME_MAX];
        let Some(stream) = self.line.stream.as_mut() else {
            return Some(Lost::Idle);
        };
        match line::read(stream, &mut chunk).await {
            Ok(len) => {
                self.overheard(&chunk[..len]);
                None
            }
            Err(why) => self.line.lost(&why, Wire::NotSent).lost,
        }
    }

    fn held_until(&self, call: &Call, errand: u64) -> Option<Instant> {
        let shape = Shape::of(call.unit, &call.request)?;
        let question = Question::of(errand, call);
        let until = self.debts.held_until(&question, &shape, Instant::now().into_std());
        until.map(Instant::from_std)
    }

    async fn exchange(&mut self, call: &Call, errand: u64) -> Ended {
        self.put(call, errand).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{duplex, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::time::{sleep, timeout};

    use super::super::frame::tests::sealed;
    use super::super::wire::{Answer, Request};
    use super::*;
    use crate::config::Parity;

    const TIMEOUT: Duration = Duration::from_millis(500);

    /// A line of 10 ms a character, and its far end.
    fn line() -> (Rtu, DuplexStream) {
        let port = SerialPort { path: "line".into(), baud: 1100, parity: Parity::Even, data_bits: 8, stop_bits: 1 };
        let (near, far) = duplex(4096);
        let mut rtu = Rtu::new(port, TIMEOUT, Duration::ZERO, &line::SystemLines);
        rtu.attach(Box::new(near));
        (rtu, far)
    }

    fn call() -> Call {
        let request = Request::ReadWords { holding: true, address: 0, count: 1 };
        Call { unit: 7, request, timeout: None, not_after: None }
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_is_never_silent_is_not_written_on() {
        let (call, (mut rtu, far)) = (call(), line());
        let (mut hearing, mut saying) = tokio::io::split(far);
        let babble = async {
            loop {
                saying.write_all(b"U").await.unwrap();
                sleep(Duration::from_millis(30)).await;
            }
        };
        let began = Instant::now();
        let ended = tokio::select! {
            ended = rtu.put(&call, 1) => ended,
            () = babble => unreachable!(),
        };
        assert!(matches!(&ended.wire, Wire::NotSent(why) if why.contains("never silent")));
        assert!(began.elapsed() <= BABBLE_MAX + Duration::from_millis(50));
        assert!(timeout(TIMEOUT, hearing.read_u8()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_goes_out_after_three_and_a_half_characters_of_silence() {
        let (call, (mut rtu, mut far)) = (call(), line());
        sleep(TIMEOUT).await;
        far.write_all(b"U").await.unwrap();
        let began = Instant::now();
        let peer = async {
            let mut request = [0; 8];
            far.read_exact(&mut request).await.unwrap();
            assert!(began.elapsed() >= Duration::from_millis(35), "{:?}", began.elapsed());
            assert!(began.elapsed() <= Duration::from_millis(40), "{:?}", began.elapsed());
            far.write_all(&sealed(&[7, 3, 2, 0, 5])).await.unwrap();
        };
        let (ended, ()) = tokio::join!(rtu.put(&call, 1), peer);
        assert_eq!(ended.wire, Wire::Answered(Answer::Words(vec![5])));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_on_the_wire_is_no_part_of_the_timeout() {
        let (mut rtu, _far) = line();
        sleep(TIMEOUT).await;
        let began = Instant::now();
        let ended = rtu.put(&call(), 1).await;
        assert!(matches!(ended.wire, Wire::NoAnswer(_)), "{:?}", ended.wire);
        // 8 characters there, 7 back.
        let expected = TIMEOUT + Duration::from_millis(150);
        let over = began.elapsed().checked_sub(expected).expect("not before");
        assert!(over <= Duration::from_millis(5), "{over:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_full_of_bytes_takes_bounded_memory_and_time() {
        let (call, (mut rtu, mut far)) = (call(), line());
        let flood = async {
            let mut request = [0; 8];
            far.read_exact(&mut request).await.unwrap();
            while far.write_all(&[7; 4096]).await.is_ok() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let ended = tokio::select! {
            ended = rtu.put(&call, 1) => ended,
            () = flood => unreachable!(),
        };
        assert!(matches!(ended.wire, Wire::BadReply(_)), "{:?}", ended.wire);
        assert!(rtu.tail.len() <= TAIL_MAX);
    }
}
