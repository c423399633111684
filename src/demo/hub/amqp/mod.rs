//! AMQP: for devices, many of them on one connection if they like, and for the back end, which also reads events here.
//!
//! `peer`, `session` and `rules` decide without I/O; the task in here moves the bytes.
//!
//! Not modelled: the links of twins (nothing ever comes on them), file notifications, transactions,
//! resumption of links.

mod events;
mod message;
mod peer;
mod purpose;
mod rules;
mod sasl;
mod service;
mod session;
mod whole;

use std::io;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep_until, timeout, Instant};
use tokio_util::codec::Framed;

use super::device::Line;
use super::state::{Now, State};
use super::stream::{close, Stream, OPEN_TIMEOUT};
use super::wire::End;
use super::{Cut, Shared};
use crate::amqp::frame::{encode, Body, Codec, Frame, FrameError, Item, FRAME_MAX};
use crate::amqp::types::performatives::Performative;
use crate::time::until;
use peer::{Ending, Peer, IDLE_MILLIS};

/// Forgets a connection with its task, however that ends.
struct Known {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.shared.with(|state| state.end_amqp(self.number, &End::Gone, Cut::Fin));
    }
}

struct Connection {
    shared: Arc<Shared>,
    number: u64,
    framed: Framed<Stream, Codec>,
    line: Arc<Line>,
    peer: Peer,
}

/// Serves a connection from its first byte to its last.
pub(super) async fn serve(shared: Arc<Shared>, stream: Stream, thumbprints: Vec<String>) {
    let number = shared.with(State::next_connection);
    let line = shared.with(|state| state.begin_amqp(number));
    let known = Known { shared: shared.clone(), number };
    let mut framed = Framed::new(stream, Codec::default());
    let begun = timeout(OPEN_TIMEOUT, sasl::negotiate(&shared, number, &mut framed)).await;
    if !matches!(begun, Ok(Some(()))) {
        return close(framed.into_inner(), false).await;
    }
    let peer = Peer::new(number, thumbprints);
    let mut connection = Connection { shared, number, framed, line: line.clone(), peer };
    let end = tokio::select! {
        () = line.cut.cancelled() => None,
        end = connection.run() => Some(end),
    };
    if let Some(end) = end {
        connection.shared.with(|state| state.end_amqp(number, &end, Cut::Fin));
    }
    if line.frozen.load(Ordering::Relaxed) {
        // The network between is dead: not even the end of the connection gets through.
        std::future::pending::<()>().await;
    }
    drop(known);
    close(connection.framed.into_inner(), line.reset.load(Ordering::Relaxed)).await;
}

impl Connection {
    async fn run(&mut self) -> End {
        let idle = Duration::from_millis(IDLE_MILLIS.into());
        let mut deadline = Instant::now() + idle;
        let mut heard = Instant::now();
        loop {
            let injected =
                self.shared.with(|state| state.sides.get_mut(&self.number).and_then(|side| side.injected.pop_front()));
            if let Some(bytes) = injected {
                if self.write_raw(&bytes).await.is_err() {
                    return End::Gone;
                }
                continue;
            }
            let frames = self.shared.with(|state| self.peer.work(state, Now::read()));
            if let Err(end) = self.write(frames, &mut heard).await {
                return end;
            }
            let beat = self.peer.idle.map(|idle| Duration::from_millis(u64::from(idle / 2).max(1)));
            let is_frozen = self.line.frozen.load(Ordering::Relaxed);
            let item = tokio::select! {
                () = self.line.wake.notified() => continue,
                () = sleep_until(deadline) => return End::KeepAlive,
                () = sleep_until(heard + beat.unwrap_or(idle)), if beat.is_some() => {
                    if let Err(end) = self.write(vec![Frame::heartbeat()], &mut heard).await {
                        return end;
                    }
                    continue;
                }
                item = self.framed.next(), if !is_frozen => item,
            };
            deadline = Instant::now() + idle;
            let frame = match item {
                None | Some(Err(FrameError::Io(_))) => return End::Gone,
                Some(Err(_)) => return End::Violation("a malformed frame"),
                Some(Ok(Item::Header(_))) => return End::Violation("a second protocol header"),
                Some(Ok(Item::Frame(frame))) => frame,
            };
            until(Instant::now() + self.delay(&frame)).await;
            let frames = self.shared.with(|state| self.peer.received(state, frame, Now::read()));
            if let Err(end) = self.write(frames, &mut heard).await {
                return end;
            }
        }
    }

    /// How the hub throttles: what it is asked for takes its time.
    fn delay(&self, frame: &Frame) -> Duration {
        self.shared.with(|state| match &frame.body {
            Body::Performative(Performative::Open(_)) => state.connack_delay + state.throttle,
            Body::Performative(Performative::Attach(_) | Performative::Transfer(_)) => state.throttle,
            _ => Duration::ZERO,
        })
    }

    /// Writes frames; an error is the end of the connection, which may have been decided before.
    async fn write(&mut self, frames: Vec<Frame>, heard: &mut Instant) -> Result<(), End> {
        let mut bytes = BytesMut::new();
        let mut last = 0;
        for frame in frames {
            last = bytes.len();
            whole::encode(frame, FRAME_MAX, &mut bytes).expect("the hub's own frames are well formed");
        }
        if self.peer.ending == Some(Ending::InFrame) {
            bytes.truncate(last + (bytes.len() - last) / 2);
        }
        if !bytes.is_empty() {
            *heard = Instant::now();
            self.write_raw(&bytes).await.map_err(|_| End::Gone)?;
        }
        match self.peer.ending.take() {
            None => Ok(()),
            Some(Ending::After(end)) => Err(end),
            Some(Ending::InFrame) => Err(End::Fault),
        }
    }

    async fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.line.frozen.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.framed.get_mut().write_all(bytes).await?;
        self.framed.get_mut().flush().await
    }
}

/// Writes what comes before the connection runs.
async fn write(framed: &mut Framed<Stream, Codec>, items: &[Item]) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    for item in items {
        encode(item, FRAME_MAX, &mut bytes).expect("the hub's own frames are well formed");
    }
    framed.get_mut().write_all(&bytes).await?;
    framed.get_mut().flush().await
}
