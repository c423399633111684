//! MQTT 3.1.1 on one connection: packets in, packets out. The only module that names the MQTT library.
//!
//! rumqttc's packet codec is used, and not its event loop. The loop reconnects by itself with its queues kept, so
//! that an acknowledgement can reach a connection that never delivered its message (G6), and it can't connect to one
//! address under the TLS name of another (`hub.address`). Here a connection is a value: when it is dropped,
//! everything queued on it is gone.
//!
//! Invariants
//! - [`Connection::next`] may be cancelled at any await; a packet is never half consumed.
//! - A PUBLISH is understood even if its topic is not UTF-8: refusing the connection for it, as the standard says,
//!   would make the hub deliver it again for ever (G8).

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use rumqttc::{Connect, Packet, PubAck, Publish, QoS, Subscribe, SubscribeReasonCode};
use tokio_util::codec::{Decoder, Encoder, Framed};

use crate::config::Hub;
use crate::hub::trouble::Trouble;
use crate::net::Stream;
use crate::proof::crash::{self, Point};

/// Largest packet that is read. A C2D message has at most 64 KiB and a topic of at most 64 KiB.
const PACKET_BYTES_MAX: usize = 1024 * 1024;
/// A write that the hub does not take for this long ends the connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The packet id of our SUBSCRIBE; what is published uses others.
pub(super) const SUBSCRIBE_PACKET_ID: u16 = 1;

/// What identifies a client in its CONNECT.
pub struct Login {
    /// The device id.
    pub client_id: String,
    /// `{host}/{device}/?api-version=…`
    pub user_name: String,
    /// A SAS token; empty with a client certificate.
    pub password: String,
    /// Keep-alive in whole seconds.
    pub keepalive: Duration,
}

impl Login {
    /// A device's, with a token or without.
    pub fn of(hub: &Hub, device: &str, password: String) -> Login {
        Login {
            client_id: device.to_owned(),
            user_name: format!("{}/{device}/?api-version={}", hub.host, hub.api_version),
            password,
            keepalive: hub.keepalive,
        }
    }
}

/// What the hub sends.
#[derive(Debug, PartialEq)]
pub enum Received {
    /// The answer to CONNECT: a return code (MQTT 3.1.1, 3.2.2.3) and whether the hub has a session.
    ConnAck {
        /// 0 is accepted.
        code: u8,
        /// Whether the hub kept a session.
        session_present: bool,
    },
    /// A message.
    Publish {
        /// 0, 1 or 2.
        qos: u8,
        /// Not 0 if `qos` is not 0.
        packet_id: u16,
        /// As it came: not necessarily UTF-8.
        topic: Bytes,
        /// The body.
        payload: Bytes,
    },
    /// The hub has one of our messages.
    PubAck(u16),
    /// The answer to SUBSCRIBE.
    SubAck {
        /// QoS 1 was granted for messages.
        granted: bool,
        /// Calls come, too.
        grants_calls: bool,
        /// And so does what there is of the twin.
        grants_twin: bool,
    },
    /// The answer to PINGREQ.
    PingResp,
    /// A packet that a hub has no reason to send.
    Unexpected(&'static str),
}

/// One connection, from CONNECT to its end.
pub struct Connection {
    framed: Framed<Box<dyn Stream>, Codec>,
}

impl Connection {
    /// Takes over a fresh byte stream.
    pub fn new(stream: Box<dyn Stream>) -> Self {
        Connection { framed: Framed::new(stream, Codec) }
    }

    /// The next packet.
    ///
    /// # Errors
    /// The connection is over: closed, or not understood.
    pub async fn next(&mut self) -> Result<Received, Trouble> {
        match self.framed.next().await {
            Some(Ok(received)) => Ok(received),
            Some(Err(CodecError::Io(error))) => Err(Trouble::Broken(error.to_string())),
            Some(Err(CodecError::Protocol(what))) => Err(Trouble::Protocol(what)),
            None => Err(Trouble::Closed),
        }
    }

    /// Says who we are, with a persistent session: without one the hub would throw away the messages that wait.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn connect(&mut self, login: &Login) -> Result<(), Trouble> {
        self.log_in(login, false).await
    }

    /// Opens a session that ends with the connection, and ends an earlier one: with it what waits at the hub is lost.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn connect_and_forget(&mut self, login: &Login) -> Result<(), Trouble> {
        self.log_in(login, true).await
    }

    async fn log_in(&mut self, login: &Login, clean_session: bool) -> Result<(), Trouble> {
        let mut connect = Connect::new(&login.client_id);
        connect.clean_session = clean_session;
        connect.keep_alive = u16::try_from(login.keepalive.as_secs()).unwrap_or(u16::MAX);
        connect.set_login(&login.user_name, &login.password);
        self.send(Packet::Connect(connect)).await
    }

    /// Subscribes to messages with QoS 1, and with QoS 0 to what is sent once: calls, then answers about the twin.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn subscribe(&mut self, messages: &str, once: &[&str]) -> Result<(), Trouble> {
        let mut subscribe = Subscribe::new(messages, QoS::AtLeastOnce);
        for filter in once {
            subscribe.add((*filter).to_owned(), QoS::AtMostOnce);
        }
        subscribe.pkid = SUBSCRIBE_PACKET_ID;
        self.send(Packet::Subscribe(subscribe)).await
    }

    /// Publishes with QoS 1.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn publish(&mut self, topic: String, packet_id: u16, body: String) -> Result<(), Trouble> {
        let mut publish = Publish::from_bytes(topic, QoS::AtLeastOnce, Bytes::from(body));
        publish.pkid = packet_id;
        self.send(Packet::Publish(publish)).await
    }

    /// Publishes with QoS 0.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn publish_once(&mut self, topic: String, body: String) -> Result<(), Trouble> {
        self.send(Packet::Publish(Publish::from_bytes(topic, QoS::AtMostOnce, Bytes::from(body)))).await
    }

    /// Acknowledges messages of this connection, in this order, in one write.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn acknowledge(&mut self, packet_ids: &[u16]) -> Result<(), Trouble> {
        for packet_id in packet_ids {
            self.feed(Packet::PubAck(PubAck::new(*packet_id))).await?;
        }
        crash::point(Point::PubackQueued);
        self.flush().await?;
        crash::point(Point::PubackWritten);
        Ok(())
    }

    /// Asks whether the hub is still there.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn ping(&mut self) -> Result<(), Trouble> {
        self.send(Packet::PingReq).await
    }

    /// Says goodbye. Whether the hub has heard it shows in that it closes.
    ///
    /// # Errors
    /// It could not be said.
    pub async fn disconnect(&mut self) -> Result<(), Trouble> {
        let said = self.send(Packet::Disconnect).await;
        crash::point(Point::GoodbyeSaid);
        said
    }

    /// Closes our end. A WebSocket throws away what comes until the other one is closed.
    pub async fn close(&mut self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.framed.close()).await;
    }

    async fn send(&mut self, packet: Packet) -> Result<(), Trouble> {
        self.feed(packet).await?;
        self.flush().await
    }

    async fn feed(&mut self, packet: Packet) -> Result<(), Trouble> {
        Self::written(tokio::time::timeout(WRITE_TIMEOUT, self.framed.feed(packet)).await)
    }

    async fn flush(&mut self) -> Result<(), Trouble> {
        Self::written(tokio::time::timeout(WRITE_TIMEOUT, self.framed.flush()).await)
    }

    fn written(result: Result<Result<(), CodecError>, tokio::time::error::Elapsed>) -> Result<(), Trouble> {
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(CodecError::Io(error))) => Err(Trouble::Broken(error.to_string())),
            Ok(Err(CodecError::Protocol(what))) => Err(Trouble::Protocol(what)),
            Err(_) => Err(Trouble::Broken(format!("the hub took nothing for {} s", WRITE_TIMEOUT.as_secs()))),
        }
    }
}

/// rumqttc's codec, but for a PUBLISH that it refuses.
pub(in crate::hub) struct Codec;

pub(in crate::hub) enum CodecError {
    Io(std::io::Error),
    Protocol(String),
}

impl From<std::io::Error> for CodecError {
    fn from(error: std::io::Error) -> Self {
        CodecError::Io(error)
    }
}

impl Decoder for Codec {
    type Item = Received;
    type Error = CodecError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Received>, CodecError> {
        let frame_length = match rumqttc::check(buffer.iter(), PACKET_BYTES_MAX) {
            Ok(header) => header.frame_length(),
            Err(rumqttc::Error::InsufficientBytes(missing)) => {
                buffer.reserve(missing);
                return Ok(None);
            }
            Err(error) => return Err(CodecError::Protocol(error.to_string())),
        };
        let mut frame = buffer.split_to(frame_length);
        if frame[0] >> 4 == PUBLISH {
            return publish(frame.freeze()).map(Some);
        }
        match Packet::read(&mut frame, PACKET_BYTES_MAX) {
            Ok(packet) => Ok(Some(received(packet))),
            Err(error) => Err(CodecError::Protocol(error.to_string())),
        }
    }
}

impl Encoder<Packet> for Codec {
    type Error = CodecError;

    fn encode(&mut self, packet: Packet, buffer: &mut BytesMut) -> Result<(), CodecError> {
        match packet.write(buffer, PACKET_BYTES_MAX) {
            Ok(_) => Ok(()),
            Err(error) => Err(CodecError::Protocol(error.to_string())),
        }
    }
}

/// Packet type of PUBLISH (MQTT 3.1.1, 2.2.1).
const PUBLISH: u8 = 3;

fn received(packet: Packet) -> Received {
    match packet {
        Packet::ConnAck(ack) => Received::ConnAck { code: ack.code as u8, session_present: ack.session_present },
        Packet::PubAck(ack) => Received::PubAck(ack.pkid),
        Packet::SubAck(ack) => {
            let granted = |at: usize, qos: &[QoS]| match ack.return_codes.get(at) {
                Some(SubscribeReasonCode::Success(code)) => qos.contains(code),
                _ => false,
            };
            Received::SubAck {
                granted: granted(0, &[QoS::AtLeastOnce]),
                grants_calls: granted(1, &[QoS::AtMostOnce, QoS::AtLeastOnce]),
                grants_twin: granted(2, &[QoS::AtMostOnce, QoS::AtLeastOnce]),
            }
        }
        Packet::PingResp => Received::PingResp,
        Packet::Disconnect => Received::Unexpected("DISCONNECT"),
        _ => Received::Unexpected("a packet that only a client sends"),
    }
}

/// Reads a PUBLISH (MQTT 3.1.1, 3.3) with its topic as bytes.
fn publish(mut frame: Bytes) -> Result<Received, CodecError> {
    let cut = || CodecError::Protocol("a PUBLISH is shorter than its topic says".into());
    let qos = frame[0] >> 1 & 0b11;
    frame.advance(1);
    // The remaining length, whose value rumqttc has checked: bytes with the top bit, and one without.
    while frame.try_get_u8().map_err(|_| cut())? & 0x80 != 0 {}
    let topic_length = usize::from(frame.try_get_u16().map_err(|_| cut())?);
    if frame.len() < topic_length {
        return Err(cut());
    }
    let topic = frame.split_to(topic_length);
    let packet_id = if qos == 0 { 0 } else { frame.try_get_u16().map_err(|_| cut())? };
    if qos == 3 || (qos != 0 && packet_id == 0) {
        return Err(CodecError::Protocol("a PUBLISH has QoS 3 or the packet id 0".into()));
    }
    Ok(Received::Publish { qos, packet_id, topic, payload: frame })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Option<Received>, String> {
        Codec.decode(&mut BytesMut::from(bytes)).map_err(|error| match error {
            CodecError::Io(error) => error.to_string(),
            CodecError::Protocol(what) => what,
        })
    }

    #[test]
    fn a_publish_whose_topic_is_not_text_is_read_all_the_same() {
        let received = decode(b"\x32\x07\x00\x02\xff\xfe\x00\x07x").unwrap();
        let expected = Received::Publish {
            qos: 1,
            packet_id: 7,
            topic: Bytes::from_static(b"\xff\xfe"),
            payload: Bytes::from_static(b"x"),
        };
        assert_eq!(received, Some(expected));
    }

    #[test]
    fn what_is_not_whole_is_waited_for_and_what_is_malformed_is_an_error() {
        assert_eq!(decode(b"\x32\x07\x00\x02\xff"), Ok(None));
        for bytes in
            [&b"\x32\x01\x00"[..], b"\x32\x03\x00\x09a", b"\x36\x05\x00\x01a\x00\x01", b"\x32\x05\x00\x01a\x00\x00"]
        {
            assert!(decode(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..50_000 {
            let length = random.usize(..40);
            let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
            let _ = decode(&bytes);
        }
    }
}
