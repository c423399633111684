//! A stream with AMQP on it: what the engine has written goes out, what comes goes into the engine.
//!
//! Invariants
//! - [`Wire::turn`] may be dropped at any await: nothing is half taken or sent twice then.
//! - It reads while it writes, so that two ends that both write do not wait for each other.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::time::{sleep_until, timeout, Instant};

use crate::amqp::engine::{Engine, Wrong};
use crate::amqp::frame::{decode, FRAME_MAX};
use crate::hub::trouble::Trouble;
use crate::net::Stream;

/// How long the hub may take nothing of what is to be sent.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);

/// How long last words may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A stream.
pub(crate) struct Wire {
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    inbound: BytesMut,
    /// What was written may be in a buffer still.
    unflushed: bool,
    /// Since when the hub has taken nothing of what is to be sent, if anything is.
    stuck: Option<Instant>,
}

impl Wire {
    pub(crate) fn new(stream: Box<dyn Stream>) -> Wire {
        let (reader, writer) = tokio::io::split(stream);
        Wire { reader, writer, inbound: BytesMut::new(), unflushed: false, stuck: None }
    }

    /// Waits until something moves, or time passes.
    ///
    /// # Errors
    /// The connection can't go on.
    pub(crate) async fn turn(&mut self, engine: &mut Engine) -> Result<(), Trouble> {
        let due = Instant::from_std(engine.due());
        let writes = self.unflushed || !engine.bytes().is_empty();
        let stuck = writes.then(|| self.stuck.unwrap_or_else(Instant::now));
        self.stuck = stuck;
        let stuck_at = stuck.unwrap_or(due) + WRITE_PATIENCE;
        let out = Out { unflushed: &mut self.unflushed, stuck: &mut self.stuck };
        tokio::select! {
            read = self.reader.read_buf(&mut self.inbound) => match read {
                Ok(0) => Err(Trouble::Lost("the hub ended it without a word".into())),
                Ok(_) => self.take(engine),
                Err(error) => Err(Trouble::Lost(error.to_string())),
            },
            written = write(&mut self.writer, engine.bytes(), out), if writes => {
                engine.sent(Instant::now().into_std());
                written.map_err(|error| Trouble::Lost(error.to_string()))
            }
            () = sleep_until(due) => engine.on_time(Instant::now().into_std()).map_err(trouble),
            () = sleep_until(stuck_at), if writes => match self.stuck.is_some_and(|since| since > stuck_at - WRITE_PATIENCE) {
                // Something went out meanwhile.
                true => Ok(()),
                false => Err(Trouble::Lost("the hub takes nothing any more".into())),
            },
        }
    }

    fn take(&mut self, engine: &mut Engine) -> Result<(), Trouble> {
        let now = Instant::now().into_std();
        loop {
            match decode(&mut self.inbound, FRAME_MAX) {
                Ok(Some(item)) => engine.receive(item, now).map_err(trouble)?,
                Ok(None) => return Ok(()),
                Err(error) => {
                    engine.give_up(&error.to_string());
                    return Err(Trouble::Protocol(error.to_string()));
                }
            }
        }
    }

    /// Sends what is written still, and ends the stream.
    pub(crate) async fn end(mut self, engine: &mut Engine) {
        let out = Out { unflushed: &mut self.unflushed, stuck: &mut self.stuck };
        let last = async {
            write(&mut self.writer, engine.bytes(), out).await?;
            self.writer.shutdown().await
        };
        let _ = timeout(LAST_WORDS, last).await;
    }
}

struct Out<'a> {
    unflushed: &'a mut bool,
    stuck: &'a mut Option<Instant>,
}

async fn write(writer: &mut WriteHalf<Box<dyn Stream>>, bytes: &mut BytesMut, out: Out<'_>) -> io::Result<()> {
    *out.unflushed = true;
    while !bytes.is_empty() {
        if writer.write_buf(bytes).await? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        *out.stuck = Some(Instant::now());
    }
    writer.flush().await?;
    *out.unflushed = false;
    Ok(())
}

fn trouble(wrong: Wrong) -> Trouble {
    match wrong {
        Wrong::Refused { .. } => Trouble::NotLetIn(wrong.to_string()),
        Wrong::Protocol(why) => Trouble::Protocol(why),
        Wrong::Silent(_) => Trouble::HalfOpen,
    }
}
