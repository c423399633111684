//! One exchange on a Modbus TCP connection (Modbus Messaging on TCP/IP V1.0b).
//!
//! Invariants
//! - One request is outstanding on a connection. After a timeout or anything unexpected the connection is given up, so
//!   that what still comes on it is heard by nobody: nothing has to wait. What comes on the next one instead is told by
//!   its transaction, for no two requests of a bus have the same one soon; but not of a unit that answers under any.
//! - A connection that its peer has closed, as far as that can be known, is never written to.
//! - Whether a call is called off is looked at last, behind every wait, and ends each of them.
//! - Connecting and writing have limits of their own: how long an answer may take says nothing of them.

pub(in crate::bus) mod many;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::select;
use tokio::time::{timeout_at, Instant};
use tracing::debug;

use crate::bus::call::{Call, Wire};
use crate::bus::link::{bounded, Ended, Link, Lost, TOO_LATE};
use crate::bus::modbus::answer;
use crate::bus::modbus::pdu::Pdu;
use crate::bus::port::error::NotOpened;
use crate::bus::port::{self, Lines, CONNECT_TIMEOUT};
use crate::net::Stream;
use crate::peripheral::quirks::{Quirk, Quirks};
use crate::time::until;

/// How long a request may take to be taken by the system: it waits only behind a peer that has stopped reading.
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);

/// Transaction, protocol and length (Modbus Messaging on TCP/IP V1.0b, 3.1.3): what comes before the counted bytes.
const PREFIX: usize = 6;

/// Unit and function at least, unit and 253 bytes at most (Modbus Application Protocol V1.1b3, 4.1).
const COUNTED: std::ops::RangeInclusive<usize> = 2..=254;

/// How long the rest of a frame is waited for that says that it is longer than the answer in it.
const REST_MAX: Duration = Duration::from_millis(50);

/// A Modbus TCP server.
pub(in crate::bus) struct Tcp {
    address: String,
    timeout: Duration,
    turnaround: Duration,
    connection: Option<Box<dyn Stream>>,
    /// The transaction of the next request. It outlives connections: a gateway with a line behind it may say on the
    /// next one what it was asked on the last. And it begins anywhere, for the same may be said to the next life of the
    /// daemon.
    transaction: u16,
    quiet_until: Instant,
    lines: Arc<dyn Lines>,
}

impl Tcp {
    /// A server that is not connected yet.
    pub(in crate::bus) fn new(address: String, timeout: Duration, turnaround: Duration, lines: Arc<dyn Lines>) -> Tcp {
        let quiet_until = Instant::now();
        let transaction = fastrand::u16(..);
        Tcp { address, timeout, turnaround, connection: None, transaction, quiet_until, lines }
    }

    /// The transaction that a request goes out under. Who answers under any has, often enough, never looked at it, and
    /// some of these take none but 0.
    fn next_transaction(&mut self, quirks: Quirks) -> u16 {
        if quirks.has(Quirk::TransactionId) {
            return 0;
        }
        let transaction = self.transaction;
        self.transaction = transaction.wrapping_add(1);
        transaction
    }

    /// One exchange. Gives its end, and whether the connection is in step: nothing is to come that was not asked for.
    async fn put(&mut self, stream: &mut dyn Stream, call: &Call) -> Result<(Wire, bool), Broken> {
        let Some(pdu) = Pdu::of(&call.request) else {
            return Err(Broken::before("this bus speaks Modbus, not lines"));
        };
        let Some(encoded) = pdu.encode() else {
            return Err(Broken::before("the request fits no Modbus frame"));
        };
        select! {
            biased;
            () = call.called_off() => return Ok((Wire::NotSent(TOO_LATE.into()), true)),
            () = until(self.quiet_until) => {}
        }
        still_open(stream).await?;
        let frame = framed(self.next_transaction(call.quirks), call.unit, &encoded);
        let timeout = call.own_timeout().map_or(self.timeout, bounded);
        let limit = timeout.min(WRITE_TIMEOUT);
        port::write_by(stream, &frame, limit, call).await.map_err(|cut| Broken {
            wire: if cut.sent == 0 { Wire::NotSent } else { Wire::NoAnswer },
            lost: Lost::Idle,
            why: match cut.sent == 0 && call.is_called_off() {
                true => TOO_LATE.into(),
                false => format!("the connection {}", cut.why),
            },
        })?;
        let deadline = Instant::now() + timeout;
        let mut answer = Answering::default();
        let heard = timeout_at(deadline, async {
            match call.quirks.has(Quirk::Length) {
                true => answer.read_by_content(stream, &pdu, call.quirks).await,
                false => answer.read(stream).await,
            }
        });
        match heard.await {
            Ok(Ok(())) => {
                let in_step = answer.is_as_counted(stream, deadline.min(Instant::now() + REST_MAX)).await;
                Ok((judged(call, &pdu, &frame, &answer.frame[..answer.filled]), in_step))
            }
            Ok(Err(broken)) => Err(broken),
            Err(_) => {
                let lost = Lost::Timeout { heard: answer.filled > 0 };
                Err(Broken { wire: Wire::NoAnswer, why: answer.unfinished(call, &pdu, timeout), lost })
            }
        }
    }
}

/// A PDU in the frame of a transaction.
pub(in crate::bus) fn framed(transaction: u16, unit: u8, pdu: &[u8]) -> Vec<u8> {
    let counted = u16::try_from(1 + pdu.len()).expect("a PDU has at most 253 bytes");
    let mut frame = Vec::with_capacity(PREFIX + 1 + pdu.len());
    frame.extend(transaction.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(counted.to_be_bytes());
    frame.push(unit);
    frame.extend(pdu);
    frame
}

/// What a whole frame comes to: the answer to the request, unless it is of another unit or to another transaction.
fn judged(call: &Call, asked: &Pdu, request: &[u8], answer: &[u8]) -> Wire {
    let mut needed = answer::needed(call.quirks, asked, &answer[PREFIX + 1..]);
    let mut foreign = Vec::new();
    let transaction = |frame: &[u8]| u16::from_be_bytes([frame[0], frame[1]]);
    let (sent, said) = (transaction(request), transaction(answer));
    if sent != said && !call.quirks.has(Quirk::TransactionId) {
        needed = needed.map(|quirks| quirks.and(Quirk::TransactionId));
        foreign.push(format!("what came was answered under transaction id {said}, and {sent} is under way"));
    }
    let (sent, said) = (request[PREFIX], answer[PREFIX]);
    if sent != said && !call.quirks.has(Quirk::UnitId) {
        needed = needed.map(|quirks| quirks.and(Quirk::UnitId));
        foreign.push(format!("what came is of unit {said}, and unit {sent} was asked"));
    }
    match foreign.is_empty() {
        true => answer::ended(call.unit, call.quirks, asked, &answer[PREFIX + 1..]),
        false => Wire::BadReply(foreign.join("; ") + &needed.map_or_else(String::new, Quirks::hint)),
    }
}

/// How an exchange broke its connection.
pub(in crate::bus) struct Broken {
    pub(in crate::bus) wire: fn(String) -> Wire,
    pub(in crate::bus) why: String,
    lost: Lost,
}

impl Broken {
    fn before(why: impl Into<String>) -> Broken {
        Broken { wire: Wire::NotSent, why: why.into(), lost: Lost::Idle }
    }
}

/// Makes sure that the peer has neither closed the connection nor said anything unasked.
async fn still_open(stream: &mut dyn Stream) -> Result<(), Broken> {
    port::catch_up().await;
    let mut byte = [0];
    // Nothing is there yet unless the connection has ended or something was said: a read that has to wait is what is
    // hoped for.
    match stream.read(&mut byte).now_or_never() {
        None => Ok(()),
        Some(Ok(0)) => Err(Broken::before("the connection was closed from the other side")),
        Some(Ok(_)) => Err(Broken::before("the other side speaks unasked")),
        Some(Err(error)) => Err(Broken::before(format!("the connection was lost: {error}"))),
    }
}

/// A frame that is being read.
#[derive(Default)]
pub(in crate::bus) struct Answering {
    pub(in crate::bus) frame: Vec<u8>,
    /// How much of it has come.
    filled: usize,
}

impl Answering {
    /// Reads one frame, and not a byte more. Cancel-safe.
    pub(in crate::bus) async fn read(&mut self, stream: &mut dyn Stream) -> Result<(), Broken> {
        self.fill(stream, PREFIX).await?;
        let counted = self.counted();
        if self.frame[2..4] != [0, 0] || !COUNTED.contains(&counted) {
            return Err(self.no_frame());
        }
        self.fill(stream, PREFIX + counted).await
    }

    /// Reads the answer to what was asked, however many bytes the frame says that it has: as far as it goes by what
    /// stands in it. What is none is read as far as the frame says. Cancel-safe.
    async fn read_by_content(
        &mut self,
        stream: &mut dyn Stream,
        asked: &Pdu<'_>,
        quirks: Quirks,
    ) -> Result<(), Broken> {
        self.fill(stream, PREFIX).await?;
        if self.frame[2..4] != [0, 0] {
            return Err(self.no_frame());
        }
        let (counted, expected) = (self.counted(), asked.expected(quirks));
        self.fill(stream, PREFIX + 1).await?;
        loop {
            let said = &self.frame[PREFIX + 1..self.filled];
            let is_counted = self.filled == PREFIX + counted && asked.understand(said, quirks).is_ok();
            match expected.as_ref().and_then(|expected| expected.lacks(said)) {
                Some(0) => return Ok(()),
                _ if is_counted => return Ok(()),
                Some(more) => self.fill(stream, self.filled + more).await?,
                None if COUNTED.contains(&counted) => {
                    return self.fill(stream, self.filled.max(PREFIX + counted)).await;
                }
                None => return Err(self.no_frame()),
            }
        }
    }

    /// Whether as much has come as the frame says, at the latest by then: else nobody knows where the next one begins.
    async fn is_as_counted(&mut self, stream: &mut dyn Stream, until: Instant) -> bool {
        let whole = PREFIX + self.counted();
        if self.filled < whole && whole <= PREFIX + COUNTED.end() {
            let _ = timeout_at(until, self.fill(stream, whole)).await;
        }
        self.filled == whole
    }

    /// What became of an answer that has not come to its end within the timeout.
    fn unfinished(&self, call: &Call, asked: &Pdu, timeout: Duration) -> String {
        let (unit, timeout) = (call.unit, port::shown(timeout));
        if self.filled == 0 {
            return format!("unit {unit} did not answer within {timeout}");
        }
        let heard = &self.frame[..self.filled];
        let needed = call.quirks.and(Quirk::Length);
        let is_whole = heard
            .get(PREFIX + 1..)
            .zip(asked.expected(needed))
            .is_some_and(|(said, expected)| !call.quirks.has(Quirk::Length) && expected.lacks(said) == Some(0));
        let hint = if is_whole { needed.hint() } else { String::new() };
        let came = heard.len();
        format!(
            "the answer of unit {unit} was cut: within {timeout} came {came} bytes of it, {}{hint}",
            port::hex(heard)
        )
    }

    /// How many bytes the frame says that it has behind its count.
    fn counted(&self) -> usize {
        usize::from(u16::from_be_bytes([self.frame[4], self.frame[5]]))
    }

    fn no_frame(&self) -> Broken {
        let why = format!("what came is no Modbus TCP: {}", port::hex(&self.frame[..self.filled]));
        Broken { wire: Wire::BadReply, why, lost: Lost::Idle }
    }

    async fn fill(&mut self, stream: &mut dyn Stream, len: usize) -> Result<(), Broken> {
        self.frame.resize(len, 0);
        while self.filled < len {
            match stream.read(&mut self.frame[self.filled..]).await {
                Ok(read) if read > 0 => self.filled += read,
                ended => {
                    let how = match ended {
                        Ok(_) => "closed from the other side".into(),
                        Err(error) => format!("lost: {error}"),
                    };
                    // Half an answer is something that came, but nothing that confirms.
                    return Err(match self.filled {
                        0 => Broken {
                            wire: Wire::NoAnswer,
                            lost: Lost::Idle,
                            why: format!("the connection was {how}, before anything of an answer came"),
                        },
                        bytes => Broken {
                            wire: Wire::BadReply,
                            lost: Lost::Idle,
                            why: format!("the answer was cut: the connection was {how}, after {bytes} bytes of it"),
                        },
                    });
                }
            }
        }
        Ok(())
    }
}

impl Link for Tcp {
    async fn open(&mut self) -> Result<(), NotOpened> {
        let stream = self.lines.connect(&self.address, CONNECT_TIMEOUT).await?;
        self.connection = Some(stream);
        Ok(())
    }

    fn slack(&self) -> Duration {
        WRITE_TIMEOUT
    }

    fn close(&mut self) {
        self.connection = None;
    }

    fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    async fn listen(&mut self) -> Option<Lost> {
        let stream = self.connection.as_mut()?;
        let mut chunk = [0; 64];
        let why = match port::read(&mut **stream, &mut chunk).await {
            Ok(_) => "spoke unasked".into(),
            Err(why) => why,
        };
        // Servers close idle connections, and some close them after each exchange: no error, the next request connects.
        debug!(address = %self.address, reason = %why, "an idle connection ended");
        self.connection = None;
        Some(Lost::Idle)
    }

    fn held_until(&self, _: &Call, _: u64, _: bool) -> Option<Instant> {
        None
    }

    async fn exchange(&mut self, call: &Call, _: u64) -> Ended {
        let Some(mut stream) = self.connection.take() else {
            let why = "the connection is closed".into();
            return Ended { wire: Wire::NotSent(why), lost: Some(Lost::Idle) };
        };
        let ended = match self.put(&mut *stream, call).await {
            // The connection goes with whatever may still come on it.
            Err(Broken { wire, why, lost }) => {
                debug!(address = %self.address, reason = %why, "a connection is given up");
                let wire = wire(format!("{}: {why}", self.address));
                Ended { wire, lost: Some(lost) }
            }
            Ok((wire, in_step)) if in_step && !matches!(wire, Wire::BadReply(_)) => {
                self.connection = Some(stream);
                Ended::kept(wire)
            }
            Ok((wire, _)) => Ended { wire, lost: Some(Lost::Idle) },
        };
        if !matches!(ended.wire, Wire::NotSent(_)) {
            self.quiet_until = Instant::now() + call.own_turnaround().map_or(self.turnaround, bounded);
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::bus::port::{Opener, Opening};
    use crate::config::SerialPort;

    /// A way to a server that swallows everything, and what limits it was given.
    #[derive(Debug, Default)]
    struct Swallowing(Mutex<Vec<Duration>>);

    impl Lines for Swallowing {
        fn connect<'a>(&'a self, _: &'a str, limit: Duration) -> Opening<'a, Box<dyn Stream>> {
            self.0.lock().unwrap().push(limit);
            Box::pin(async move {
                tokio::time::sleep(limit).await;
                Err("it swallows everything".into())
            })
        }

        fn opener(&self, _: &SerialPort) -> Box<dyn Opener> {
            unreachable!("it has no serial port")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connecting_has_a_limit_of_its_own_however_long_an_answer_may_take() {
        let lines = Arc::new(Swallowing::default());
        let mut tcp = Tcp::new("h:502".into(), Duration::from_secs(600), Duration::ZERO, lines.clone());
        let began = Instant::now();
        tcp.open().await.unwrap_err();
        assert!(began.elapsed() <= crate::health::pulse::PATIENCE / 2, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_nobody_takes_ends_within_the_time_that_the_watchdog_is_told() {
        let timeout = Duration::from_secs(600);
        let lines = Arc::new(Swallowing::default());
        let mut tcp = Tcp::new("h:502".into(), timeout, Duration::from_secs(60), lines);
        let (near, _far) = tokio::io::duplex(4);
        tcp.connection = Some(Box::new(near));
        let request = crate::peripheral::exchange::Request::ReadWords { holding: true, address: 0, count: 1 };
        let began = Instant::now();
        let ended = tcp.exchange(&Call::new(1, request), 1).await;
        assert!(matches!(ended.wire, Wire::NoAnswer(_)), "{:?}", ended.wire);
        assert!(began.elapsed() <= tcp.slack(), "{:?}", began.elapsed());
    }
}
