//! The task of an MQTT connection: bytes in and out, as the hub's state says.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use rumqttc::{Codec, Packet};
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep_until, timeout, Instant};
use tokio_util::codec::Framed;

use super::device::Line;
use super::mqtt::Step;
use super::state::{Now, State, Who};
use super::stream::{close, Stream, OPEN_TIMEOUT};
use super::wire::End;
use super::{provisioning, Shared};
use crate::time::until;

/// The hub waits 1.5 times the keep-alive, and never longer than this (29.45 minutes).
const IDLE_MAX: Duration = Duration::from_secs(1767);
/// The largest packet that is read at all.
const PACKET_BYTES_MAX: usize = 512 * 1024;

struct Connection {
    shared: Arc<Shared>,
    framed: Framed<Stream, Codec>,
    who: Who,
    line: Arc<Line>,
    idle: Duration,
}

/// Serves a connection from its first packet to its last.
pub(super) async fn serve(shared: Arc<Shared>, stream: Stream, thumbprints: &[String]) {
    let codec = Codec { max_incoming_size: PACKET_BYTES_MAX, max_outgoing_size: PACKET_BYTES_MAX };
    let mut stream = Framed::new(stream, codec);
    let Ok(Some(Ok(Packet::Connect(connect)))) = timeout(OPEN_TIMEOUT, stream.next()).await else { return };
    if provisioning::mqtt::registrant(&connect).is_some() {
        return provisioning::mqtt::serve(shared, stream, &connect, thumbprints).await;
    }
    // CONNACK comes late when it is throttled, so late that the client may have given up.
    let delay = shared.with(|state| state.connack_delay + state.throttle);
    until(Instant::now() + delay).await;
    let (who, decision) = shared.with(|state| {
        let connection = state.next_connection();
        let who = Who { device: connect.client_id.clone(), connection };
        let decision = state.connect(&who, &connect, thumbprints, Now::read());
        (who, decision)
    });
    let (line, connack) = match decision {
        Ok(accepted) => accepted,
        Err(refusal) => {
            if let Some(bytes) = refusal {
                let _ = stream.get_mut().write_all(&bytes).await;
            }
            return close(stream.into_inner(), false).await;
        }
    };
    let idle = match connect.keep_alive {
        0 => IDLE_MAX,
        seconds => IDLE_MAX.min(Duration::from_millis(u64::from(seconds) * 1500)),
    };
    let mut connection = Connection { shared, framed: stream, who, line: line.clone(), idle };
    let end = tokio::select! {
        () = line.cut.cancelled() => None,
        end = connection.run(connack) => end,
    };
    if let Some(end) = end {
        connection.shared.with(|state| state.end_own(&connection.who, end, Now::read()));
    }
    if line.frozen.load(Ordering::Relaxed) {
        // The network between is dead: not even the end of the connection gets through.
        std::future::pending::<()>().await;
    }
    close(connection.framed.into_inner(), line.reset.load(Ordering::Relaxed)).await;
}

impl Connection {
    /// Runs until the connection is over; `None` where the state knows that already.
    async fn run(&mut self, connack: Bytes) -> Option<End> {
        if self.write(&connack).await.is_err() {
            return Some(End::Gone);
        }
        let mut deadline = Instant::now() + self.idle;
        loop {
            while let Some(step) = self.with_state(|state, who| state.next_step(who, Now::read())) {
                match step {
                    Step::Close => return None,
                    Step::Write(bytes) if self.write(&bytes).await.is_err() => return Some(End::Gone),
                    Step::Write(_) => {}
                }
            }
            let line = self.line.clone();
            let is_frozen = line.frozen.load(Ordering::Relaxed);
            let packet = tokio::select! {
                () = line.wake.notified() => continue,
                () = sleep_until(deadline) => return Some(End::KeepAlive),
                packet = self.framed.next(), if !is_frozen => packet,
            };
            deadline = Instant::now() + self.idle;
            match packet {
                None | Some(Err(rumqttc::mqttbytes::Error::Io(_))) => return Some(End::Gone),
                Some(Err(_)) => return Some(End::Violation("a malformed packet")),
                Some(Ok(packet)) => match self.answer(packet).await {
                    Ok(true) => {}
                    Ok(false) => return None,
                    Err(_) => return Some(End::Gone),
                },
            }
        }
    }

    /// Acts on a packet, and says whether the connection goes on.
    async fn answer(&mut self, packet: Packet) -> io::Result<bool> {
        let is_publish = matches!(packet, Packet::Publish(_));
        let answer = self.with_state(|state, who| state.received(who, packet, Now::read()));
        match answer {
            None => Ok(true),
            Some(Step::Close) => Ok(false),
            Some(Step::Write(bytes)) => {
                if is_publish {
                    until(Instant::now() + self.shared.with(|state| state.throttle)).await;
                }
                self.write(&bytes).await.map(|()| true)
            }
        }
    }

    fn with_state<T>(&self, act: impl FnOnce(&mut State, &Who) -> T) -> T {
        self.shared.with(|state| act(state, &self.who))
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.line.frozen.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.framed.get_mut().write_all(bytes).await?;
        self.framed.get_mut().flush().await
    }
}
