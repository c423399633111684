//! One exchange on a Modbus TCP connection (Modbus Messaging on TCP/IP V1.0b).
//!
//! Invariants
//! - One request is outstanding on a connection. After a timeout or anything unexpected the connection is given up, so
//!   that what still comes on it is heard by nobody: nothing has to wait. What comes on the next one instead is told by
//!   its transaction, for no two requests of a bus have the same one soon.
//! - A connection that its peer has closed, as far as that can be known, is never written to.
//! - Whether a call is called off is looked at last, behind every wait, and ends each of them.
//! - Connecting and writing have limits of their own: how long an answer may take says nothing of them.

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
use crate::time::until;

/// How long a request may take to be taken by the system: it waits only behind a peer that has stopped reading.
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);

/// Transaction, protocol and length (Modbus Messaging on TCP/IP V1.0b, 3.1.3): what comes before the counted bytes.
const PREFIX: usize = 6;

/// Unit and function at least, unit and 253 bytes at most (Modbus Application Protocol V1.1b3, 4.1).
const COUNTED: std::ops::RangeInclusive<usize> = 2..=254;

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

    async fn put(&mut self, stream: &mut dyn Stream, call: &Call) -> Result<Wire, Broken> {
        let Some(pdu) = Pdu::of(&call.request) else {
            return Err(Broken::before("this bus speaks Modbus, not lines"));
        };
        let Some(encoded) = pdu.encode() else {
            return Err(Broken::before("the request fits no Modbus frame"));
        };
        select! {
            biased;
            () = call.called_off() => return Ok(Wire::NotSent(TOO_LATE.into())),
            () = until(self.quiet_until) => {}
        }
        still_open(stream).await?;
        let frame = framed(self.transaction, call.unit, &encoded);
        self.transaction = self.transaction.wrapping_add(1);
        let timeout = call.own_timeout().map_or(self.timeout, bounded);
        let limit = timeout.min(WRITE_TIMEOUT);
        port::write_by(stream, &frame, limit, call).await.map_err(|cut| Broken {
            wire: if cut.sent == 0 { Wire::NotSent } else { Wire::NoAnswer },
            why: match cut.sent == 0 && call.is_called_off() {
                true => TOO_LATE.into(),
                false => format!("the connection {}", cut.why),
            },
        })?;
        let deadline = Instant::now() + timeout;
        let mut answer = Answering::default();
        match timeout_at(deadline, answer.read(stream)).await {
            Ok(Ok(())) => match foreign(&frame, &answer.frame) {
                Some(why) => Ok(Wire::BadReply(why)),
                None => Ok(answer::ended(call.unit, &pdu, &answer.frame[PREFIX + 1..])),
            },
            Ok(Err(broken)) => Err(broken),
            Err(_) if answer.filled == 0 => Err(Broken {
                wire: Wire::NoAnswer,
                why: format!("unit {} did not answer within {}", call.unit, port::shown(timeout)),
            }),
            Err(_) => Err(Broken {
                wire: Wire::NoAnswer,
                why: format!(
                    "the answer of unit {} was cut: within {} came {} bytes of it, {}",
                    call.unit,
                    port::shown(timeout),
                    answer.filled,
                    port::hex(&answer.frame[..answer.filled])
                ),
            }),
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

/// Whose a whole frame is, and to what, if it is not the answer to the request: a sentence.
fn foreign(request: &[u8], answer: &[u8]) -> Option<String> {
    let transaction = |frame: &[u8]| u16::from_be_bytes([frame[0], frame[1]]);
    let (asked, answered) = (transaction(request), transaction(answer));
    if asked != answered {
        return Some(format!("what came answers transaction {answered}, and {asked} is under way"));
    }
    let (asked, answered) = (request[PREFIX], answer[PREFIX]);
    (asked != answered).then(|| format!("what came is of unit {answered}, and unit {asked} was asked"))
}

/// How an exchange broke its connection.
pub(in crate::bus) struct Broken {
    pub(in crate::bus) wire: fn(String) -> Wire,
    pub(in crate::bus) why: String,
}

impl Broken {
    fn before(why: impl Into<String>) -> Broken {
        Broken { wire: Wire::NotSent, why: why.into() }
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
        let counted = usize::from(u16::from_be_bytes([self.frame[4], self.frame[5]]));
        if self.frame[2..4] != [0, 0] || !COUNTED.contains(&counted) {
            let why = format!("what came is no Modbus TCP: {}", port::hex(&self.frame));
            return Err(Broken { wire: Wire::BadReply, why });
        }
        self.fill(stream, PREFIX + counted).await
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
                            why: format!("the connection was {how}, before anything of an answer came"),
                        },
                        bytes => Broken {
                            wire: Wire::BadReply,
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
            Err(Broken { wire, why }) => {
                debug!(address = %self.address, reason = %why, "a connection is given up");
                let wire = wire(format!("{}: {why}", self.address));
                Ended { wire, lost: Some(Lost::Idle) }
            }
            Ok(wire @ Wire::BadReply(_)) => Ended { wire, lost: Some(Lost::Idle) },
            Ok(wire) => {
                self.connection = Some(stream);
                Ended::kept(wire)
            }
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
