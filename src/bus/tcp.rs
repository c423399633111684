//! One exchange on a Modbus TCP connection (Modbus Messaging on TCP/IP V1.0b).
//!
//! Invariants
//! - One request is outstanding on a connection. After a timeout or anything unexpected the connection is given up, so
//!   that what still comes on it is heard by nobody: nothing has to wait.
//! - A connection that its peer has closed, as far as that can be known, is never written to.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::time::{sleep_until, timeout_at, Instant};
use tracing::debug;

use super::line::{self, Lines};
use super::link::{bounded, Ended, Link, Lost};
use super::modbus::Codec;
use super::wire::{Call, Wire};
use crate::net::Stream;

/// How long a connection may take to be made, unless answers may take longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Transaction, protocol and length (Modbus Messaging on TCP/IP V1.0b, 3.1.3): what comes before the counted bytes.
const PREFIX: usize = 6;

/// Unit and function at least, unit and 253 bytes at most (Modbus Application Protocol V1.1b3, 4.1).
const COUNTED: std::ops::RangeInclusive<usize> = 2..=254;

/// A Modbus TCP server.
pub(super) struct Tcp {
    address: String,
    timeout: Duration,
    turnaround: Duration,
    connection: Option<Connection>,
    quiet_until: Instant,
    lines: Arc<dyn Lines>,
}

struct Connection {
    stream: Box<dyn Stream>,
    codec: Codec,
}

impl Tcp {
    /// A server that is not connected yet.
    pub(super) fn new(address: String, timeout: Duration, turnaround: Duration, lines: Arc<dyn Lines>) -> Tcp {
        let quiet_until = Instant::now();
        Tcp { address, timeout, turnaround, connection: None, quiet_until, lines }
    }

    async fn put(&mut self, connection: &mut Connection, call: &Call) -> Result<Wire, Broken> {
        let (frame, asked) = match connection.codec.ask(call.unit, &call.request).await {
            Ok(encoded) => encoded,
            Err(why) => return Err(Broken::before(why)),
        };
        sleep_until(self.quiet_until).await;
        still_open(&mut *connection.stream).await?;
        let timeout = call.timeout.map_or(self.timeout, bounded);
        line::write(&mut *connection.stream, &frame, timeout).await.map_err(|cut| Broken {
            wire: if cut.sent == 0 { Wire::NotSent } else { Wire::NoAnswer },
            why: format!("the connection {}", cut.why),
        })?;
        let deadline = Instant::now() + timeout;
        match timeout_at(deadline, read_frame(&mut *connection.stream)).await {
            Ok(Ok(answer)) => Ok(asked.answer(&answer).await),
            Ok(Err(broken)) => Err(broken),
            Err(_) => Err(Broken {
                wire: Wire::NoAnswer,
                why: format!("unit {} did not answer within {}", call.unit, line::shown(timeout)),
            }),
        }
    }
}

/// How an exchange broke its connection.
pub(super) struct Broken {
    pub(super) wire: fn(String) -> Wire,
    pub(super) why: String,
}

impl Broken {
    fn before(why: impl Into<String>) -> Broken {
        Broken { wire: Wire::NotSent, why: why.into() }
    }
}

/// Makes sure that the peer has neither closed the connection nor said anything unasked.
async fn still_open(stream: &mut dyn Stream) -> Result<(), Broken> {
    line::catch_up().await;
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

/// Reads one frame, and not a byte more.
pub(super) async fn read_frame(stream: &mut dyn Stream) -> Result<Vec<u8>, Broken> {
    let mut frame = vec![0; PREFIX];
    fill(stream, &mut frame, 0).await?;
    let counted = usize::from(u16::from_be_bytes([frame[4], frame[5]]));
    if frame[2..4] != [0, 0] || !COUNTED.contains(&counted) {
        return Err(Broken { wire: Wire::BadReply, why: format!("what came is no Modbus TCP: {}", line::hex(&frame)) });
    }
    frame.resize(PREFIX + counted, 0);
    fill(stream, &mut frame, PREFIX).await?;
    // An exception is unit, function and code. The library would overlook more.
    if frame[PREFIX + 1] >= 0x80 && counted != 3 {
        return Err(Broken {
            wire: Wire::BadReply,
            why: format!("what came is no Modbus exception: {}", line::hex(&frame)),
        });
    }
    Ok(frame)
}

async fn fill(stream: &mut dyn Stream, frame: &mut [u8], from: usize) -> Result<(), Broken> {
    let mut end = from;
    while end < frame.len() {
        match stream.read(&mut frame[end..]).await {
            Ok(len) if len > 0 => end += len,
            ended => {
                let why = match ended {
                    Ok(_) => "closed from the other side".into(),
                    Err(error) => format!("lost: {error}"),
                };
                return Err(Broken {
                    // Half an answer is something that came, but nothing that confirms.
                    wire: if end == 0 { Wire::NoAnswer } else { Wire::BadReply },
                    why: format!("the connection was {why}, after {end} bytes of an answer"),
                });
            }
        }
    }
    Ok(())
}

impl Link for Tcp {
    async fn open(&mut self) -> Result<(), String> {
        let limit = CONNECT_TIMEOUT.max(self.timeout);
        let stream = self.lines.connect(&self.address, limit).await?;
        self.connection = Some(Connection { stream, codec: Codec::tcp() });
        Ok(())
    }

    fn close(&mut self) {
        self.connection = None;
    }

    fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    async fn listen(&mut self) -> Option<Lost> {
        let connection = self.connection.as_mut()?;
        let mut chunk = [0; 64];
        let why = match line::read(&mut *connection.stream, &mut chunk).await {
            Ok(_) => "spoke unasked".into(),
            Err(why) => why,
        };
        // Servers close idle connections, and some close them after each exchange: no error, the next request connects.
        debug!(address = %self.address, reason = %why, "an idle connection ended");
        self.connection = None;
        Some(Lost::Idle)
    }

    fn held_until(&self, _: &Call, _: u64) -> Option<Instant> {
        None
    }

    async fn exchange(&mut self, call: &Call, _: u64) -> Ended {
        let Some(mut connection) = self.connection.take() else {
            let why = "the connection is closed".into();
            return Ended { wire: Wire::NotSent(why), lost: Some(Lost::Idle) };
        };
        let ended = match self.put(&mut connection, call).await {
            // The connection goes with whatever may still come on it.
            Err(Broken { wire, why }) => {
                debug!(address = %self.address, reason = %why, "a connection is given up");
                let wire = wire(format!("{}: {why}", self.address));
                Ended { wire, lost: Some(Lost::Idle) }
            }
            Ok(wire @ Wire::BadReply(_)) => Ended { wire, lost: Some(Lost::Idle) },
            Ok(wire) => {
                self.connection = Some(connection);
                Ended::kept(wire)
            }
        };
        self.quiet_until = Instant::now() + self.turnaround;
        ended
    }
}
