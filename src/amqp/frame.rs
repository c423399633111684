//! Frames ("Transport", 2.3) and protocol headers (2.2): bytes in, bytes out. Pure.
//!
//! Invariants
//! - Nothing of a frame is taken before it is there as a whole, and at most `most` bytes are waited for.
//! - Any bytes give an item or a sentence (G8); nothing is decoded before [`shape`] has gone over it.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use fe2o3_amqp_types::performatives::Performative;
use fe2o3_amqp_types::sasl::{SaslChallenge, SaslInit, SaslMechanisms, SaslOutcome, SaslResponse};
use serde_amqp::serde::{Deserialize, Serialize};
use tokio_util::codec::{Decoder, Encoder};

use super::shape;

/// The largest frame that is agreed to: what the hub's own packages say.
pub const FRAME_MAX: usize = 65_536;

/// What each peer must take before anything is agreed (2.7.1, MIN-MAX-FRAME-SIZE), as a SASL frame must be (5.3.1).
pub const FRAME_MIN: usize = 512;

/// Bytes of a protocol header, and of a frame before its body.
pub const HEADER: usize = 8;

const TYPE_AMQP: u8 = 0;
const TYPE_SASL: u8 = 1;

/// What a peer says that it speaks, before its first frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// AMQP 1.0.
    Amqp,
    /// SASL, before AMQP.
    Sasl,
}

impl Protocol {
    /// The header that says so.
    pub fn header(self) -> [u8; HEADER] {
        let id = match self {
            Protocol::Amqp => 0,
            Protocol::Sasl => 3,
        };
        [b'A', b'M', b'Q', b'P', id, 1, 0, 0]
    }
}

/// A frame of the SASL exchange.
#[derive(Clone)]
pub enum Sasl {
    /// What the server offers.
    Mechanisms(SaslMechanisms),
    /// What the client takes of it.
    Init(SaslInit),
    /// The server asks.
    Challenge(SaslChallenge),
    /// The client answers.
    Response(SaslResponse),
    /// How it ended.
    Outcome(SaslOutcome),
}

/// What a frame says.
#[derive(Clone)]
pub enum Body {
    /// Nothing: the peer lives.
    Heartbeat,
    /// Something of AMQP's.
    Performative(Performative),
    /// Something of SASL's.
    Sasl(Sasl),
}

/// One frame.
#[derive(Clone)]
pub struct Frame {
    /// The session that it is of; 0 for what is of the connection.
    pub channel: u16,
    /// What it says.
    pub body: Body,
    /// What comes behind it: a message or a part of one, in a transfer.
    pub payload: Bytes,
}

impl Frame {
    /// One that says that the peer lives.
    pub fn heartbeat() -> Frame {
        Frame { channel: 0, body: Body::Heartbeat, payload: Bytes::new() }
    }

    /// One of AMQP's, with nothing behind it.
    pub fn of(channel: u16, performative: Performative) -> Frame {
        Frame { channel, body: Body::Performative(performative), payload: Bytes::new() }
    }

    /// One of SASL's.
    pub fn sasl(sasl: Sasl) -> Frame {
        Frame { channel: 0, body: Body::Sasl(sasl), payload: Bytes::new() }
    }
}

/// What comes on a connection. A header and a frame can't be taken for each other: read as a size, "AMQP" would be a
/// thousand megabytes.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "all but one in a connection's life are frames")]
pub enum Item {
    /// A protocol header.
    Header(Protocol),
    /// A frame.
    Frame(Frame),
}

/// Why bytes are no frame, or a frame can't become bytes.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It is larger than agreed.
    #[error("a frame of {size} bytes, where {most} are agreed")]
    TooLarge {
        /// What it has.
        size: usize,
        /// What it may have.
        most: usize,
    },
    /// Another protocol, or another version.
    #[error("{0}, which is not AMQP 1.0")]
    Foreign(String),
    /// It is not understood.
    #[error("a frame that can't be read: {0}")]
    Malformed(String),
}

fn malformed(why: impl ToString) -> FrameError {
    FrameError::Malformed(why.to_string())
}

/// Takes the next header or frame of at most `most` bytes from `bytes`, once it is there as a whole.
///
/// # Errors
/// What comes is none. Nothing that follows can be told from it then.
pub fn decode(bytes: &mut BytesMut, most: usize) -> Result<Option<Item>, FrameError> {
    let Some(head) = bytes.first_chunk::<HEADER>().copied() else { return Ok(None) };
    if head.starts_with(b"AMQP") {
        let of = [Protocol::Amqp, Protocol::Sasl].into_iter().find(|protocol| protocol.header() == head);
        let protocol = of.ok_or_else(|| FrameError::Foreign(head.escape_ascii().to_string()))?;
        bytes.advance(HEADER);
        return Ok(Some(Item::Header(protocol)));
    }
    let [s0, s1, s2, s3, offset, kind, c0, c1] = head;
    let size = u32::from_be_bytes([s0, s1, s2, s3]) as usize;
    if matches!(&head, b"HTTP/1.0" | b"HTTP/1.1") {
        return Err(FrameError::Foreign("HTTP".into()));
    }
    if size > most {
        return Err(FrameError::TooLarge { size, most });
    }
    let offset = usize::from(offset) * 4;
    if offset < HEADER || size < offset {
        return Err(malformed("its size and the place of its body don't go together"));
    }
    if bytes.len() < size {
        bytes.reserve(size - bytes.len());
        return Ok(None);
    }
    let mut body = bytes.split_to(size).freeze();
    body.advance(offset);
    let channel = u16::from_be_bytes([c0, c1]);
    match kind {
        TYPE_AMQP => Ok(Some(Item::Frame(amqp(channel, body)?))),
        TYPE_SASL => Ok(Some(Item::Frame(Frame::sasl(sasl(&body)?)))),
        _ => Err(malformed(format!("its type is {kind}"))),
    }
}

fn amqp(channel: u16, mut body: Bytes) -> Result<Frame, FrameError> {
    if body.is_empty() {
        return Ok(Frame { channel, body: Body::Heartbeat, payload: body });
    }
    let payload = body.split_off(shape::length(&body).map_err(malformed)?);
    let performative: Performative = read(&body)?;
    if !payload.is_empty() && !matches!(performative, Performative::Transfer(_)) {
        return Err(malformed("something comes behind what it says"));
    }
    Ok(Frame { channel, body: Body::Performative(performative), payload })
}

fn sasl(body: &[u8]) -> Result<Sasl, FrameError> {
    shape::length(body).map_err(malformed)?;
    let named = |name: &[u8]| match name {
        b"amqp:sasl-mechanisms:list" => Some(0x40),
        b"amqp:sasl-init:list" => Some(0x41),
        b"amqp:sasl-challenge:list" => Some(0x42),
        b"amqp:sasl-response:list" => Some(0x43),
        b"amqp:sasl-outcome:list" => Some(0x44),
        _ => None,
    };
    match shape::descriptor(body, named) {
        Some(0x40) => read(body).map(Sasl::Mechanisms),
        Some(0x41) => read(body).map(Sasl::Init),
        Some(0x42) => read(body).map(Sasl::Challenge),
        Some(0x43) => read(body).map(Sasl::Response),
        Some(0x44) => read(body).map(Sasl::Outcome),
        _ => Err(malformed("it is not a frame of SASL")),
    }
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, FrameError> {
    serde_amqp::from_slice(bytes).map_err(malformed)
}

/// Writes a header or a frame of at most `most` bytes behind `bytes`.
///
/// # Errors
/// It is longer than that, or has no encoding; `bytes` are as before then.
pub fn encode(item: &Item, most: usize, bytes: &mut BytesMut) -> Result<(), FrameError> {
    let frame = match item {
        Item::Header(protocol) => {
            bytes.put_slice(&protocol.header());
            return Ok(());
        }
        Item::Frame(frame) => frame,
    };
    let (kind, body) = match &frame.body {
        Body::Heartbeat => (TYPE_AMQP, Vec::new()),
        Body::Performative(performative) => (TYPE_AMQP, written(performative)?),
        Body::Sasl(Sasl::Mechanisms(sasl)) => (TYPE_SASL, written(sasl)?),
        Body::Sasl(Sasl::Init(sasl)) => (TYPE_SASL, written(sasl)?),
        Body::Sasl(Sasl::Challenge(sasl)) => (TYPE_SASL, written(sasl)?),
        Body::Sasl(Sasl::Response(sasl)) => (TYPE_SASL, written(sasl)?),
        Body::Sasl(Sasl::Outcome(sasl)) => (TYPE_SASL, written(sasl)?),
    };
    let size = HEADER + body.len() + frame.payload.len();
    let Some(size_sent) = u32::try_from(size).ok().filter(|_| size <= most) else {
        return Err(FrameError::TooLarge { size, most });
    };
    bytes.reserve(size);
    bytes.put_u32(size_sent);
    bytes.put_slice(&[2, kind]);
    bytes.put_u16(frame.channel);
    bytes.put_slice(&body);
    bytes.put_slice(&frame.payload);
    Ok(())
}

/// A value as bytes.
///
/// # Errors
/// It has no encoding.
pub fn written(value: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    serde_amqp::to_vec(value).map_err(malformed)
}

/// Headers and frames on a stream.
pub struct Codec {
    /// The largest frame that is taken.
    pub most_in: usize,
    /// The largest frame that is sent. The peer's Open says it.
    pub most_out: usize,
}

impl Default for Codec {
    fn default() -> Codec {
        Codec { most_in: FRAME_MAX, most_out: FRAME_MAX }
    }
}

impl Decoder for Codec {
    type Item = Item;
    type Error = FrameError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Item>, FrameError> {
        decode(bytes, self.most_in)
    }
}

impl Encoder<Item> for Codec {
    type Error = FrameError;

    fn encode(&mut self, item: Item, bytes: &mut BytesMut) -> Result<(), FrameError> {
        encode(&item, self.most_out, bytes)
    }
}

#[cfg(test)]
mod tests {
    use fe2o3_amqp_types::definitions::{self, AmqpError, Handle, Role};
    use fe2o3_amqp_types::messaging::{Accepted, DeliveryState};
    use fe2o3_amqp_types::performatives::{Begin, Close, Disposition, Open, Transfer};
    use fe2o3_amqp_types::sasl::SaslCode;

    use super::*;

    fn open() -> Performative {
        Performative::Open(Open {
            container_id: "c".into(),
            hostname: Some("hub.example".into()),
            max_frame_size: 65_536.into(),
            channel_max: 0.into(),
            idle_time_out: Some(120_000),
            outgoing_locales: None,
            incoming_locales: None,
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        })
    }

    fn transfer() -> Performative {
        Performative::Transfer(Transfer {
            handle: Handle(3),
            delivery_id: Some(1),
            delivery_tag: Some(b"tag".to_vec().into()),
            message_format: Some(0),
            settled: None,
            more: true,
            rcv_settle_mode: None,
            state: None,
            resume: false,
            aborted: false,
            batchable: false,
        })
    }

    fn bytes_of(frame: Frame) -> BytesMut {
        let mut bytes = BytesMut::new();
        encode(&Item::Frame(frame), FRAME_MAX, &mut bytes).unwrap();
        bytes
    }

    fn frame_of(bytes: &mut BytesMut) -> Frame {
        match decode(bytes, FRAME_MAX) {
            Ok(Some(Item::Frame(frame))) => frame,
            Ok(_) => panic!("no frame"),
            Err(error) => panic!("{error}"),
        }
    }

    fn why(bytes: &[u8]) -> String {
        match decode(&mut BytesMut::from(bytes), FRAME_MAX) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{} is taken", bytes.escape_ascii()),
        }
    }

    #[test]
    fn what_is_written_is_read_and_not_before_it_is_whole() {
        let error = definitions::Error::new(AmqpError::NotFound, Some("no such device".into()), None);
        let state = Some(DeliveryState::Accepted(Accepted {}));
        let (role, first, last) = (Role::Receiver, 4, None);
        let disposition = Disposition { role, first, last, settled: true, state, batchable: false };
        for (performative, payload) in [
            (open(), &b""[..]),
            (transfer(), b"part of a message"),
            (Performative::Disposition(disposition), b""),
            (Performative::Close(Close { error: Some(error) }), b""),
        ] {
            let body = Body::Performative(performative.clone());
            let mut bytes = bytes_of(Frame { channel: 7, body, payload: Bytes::from_static(payload) });
            for end in 0..bytes.len() {
                assert!(matches!(decode(&mut BytesMut::from(&bytes[..end]), FRAME_MAX), Ok(None)));
            }
            bytes.extend_from_slice(b"next");
            let frame = frame_of(&mut bytes);
            assert!(matches!(frame.body, Body::Performative(read) if read == performative));
            assert_eq!((frame.channel, &frame.payload[..], &bytes[..]), (7, payload, &b"next"[..]));
        }
        assert!(matches!(frame_of(&mut bytes_of(Frame::heartbeat())).body, Body::Heartbeat));
    }

    #[test]
    fn sasl_and_headers_are_told_from_frames() {
        let mut bytes = BytesMut::new();
        for protocol in [Protocol::Sasl, Protocol::Amqp] {
            encode(&Item::Header(protocol), FRAME_MAX, &mut bytes).unwrap();
        }
        bytes.extend(bytes_of(Frame::sasl(Sasl::Mechanisms(SaslMechanisms::default()))));
        let init = SaslInit { mechanism: "ANONYMOUS".into(), initial_response: None, hostname: None };
        bytes.extend(bytes_of(Frame::sasl(Sasl::Init(init))));
        let outcome = SaslOutcome { code: SaslCode::Auth, additional_data: None };
        bytes.extend(bytes_of(Frame::sasl(Sasl::Outcome(outcome))));
        for expected in [Protocol::Sasl, Protocol::Amqp] {
            assert!(matches!(decode(&mut bytes, FRAME_MAX), Ok(Some(Item::Header(protocol))) if protocol == expected));
        }
        assert!(matches!(frame_of(&mut bytes).body, Body::Sasl(Sasl::Mechanisms(_))));
        assert!(matches!(frame_of(&mut bytes).body, Body::Sasl(Sasl::Init(init)) if init.mechanism.0 == "ANONYMOUS"));
        let Body::Sasl(Sasl::Outcome(outcome)) = frame_of(&mut bytes).body else { panic!("an outcome") };
        assert_eq!((outcome.code, bytes.len()), (SaslCode::Auth, 0));
    }

    #[test]
    fn what_other_implementations_leave_out_or_spell_out_is_read() {
        // A Begin of which the window sizes are the last that is said, with the descriptor as a symbol.
        let name = b"amqp:begin:list";
        let mut body = vec![0x00, 0xa3, name.len() as u8];
        body.extend(name);
        body.extend([0xc0, 7, 4, 0x40, 0x43, 0x52, 5, 0x52, 6]);
        let mut bytes = BytesMut::from(&[0, 0, 0, 8 + body.len() as u8, 2, 0, 0, 1][..]);
        bytes.extend(body);
        let Body::Performative(Performative::Begin(begin)) = frame_of(&mut bytes).body else { panic!("a Begin") };
        let Begin { incoming_window, outgoing_window, handle_max, .. } = begin;
        assert_eq!((incoming_window, outgoing_window, handle_max), (5, 6, Handle(u32::MAX)));
        // Nulls in place of defaults, and an extended header.
        let disposition = [0x00, 0x53, 0x15, 0xc0, 8, 6, 0x41, 0x52, 9, 0x40, 0x40, 0x40, 0x40];
        let mut bytes = BytesMut::from(&[0, 0, 0, 12 + 13, 3, 0, 0, 1, 9, 9, 9, 9][..]);
        bytes.extend(disposition);
        let Body::Performative(Performative::Disposition(read)) = frame_of(&mut bytes).body else { panic!("one") };
        assert_eq!((read.first, read.settled, read.role), (9, false, Role::Receiver));
    }

    #[test]
    fn what_is_no_frame_ends_in_a_sentence() {
        assert!(why(b"AMQP\x00\x00\x09\x01").contains("not AMQP 1.0"));
        assert!(why(b"HTTP/1.1 407 Proxy").contains("HTTP"));
        assert!(why(&[0, 1, 0, 1, 2, 0, 0, 0]).contains("65537 bytes, where 65536"));
        assert!(why(&[0, 0, 0, 7, 2, 0, 0, 0]).contains("size"));
        assert!(why(&[0, 0, 0, 8, 1, 0, 0, 0]).contains("size"));
        assert!(why(&[0, 0, 0, 8, 2, 7, 0, 0]).contains("type is 7"));
        assert!(why(&[0, 0, 0, 9, 2, 0, 0, 0, 0x20]).contains("begins no value"));
        assert!(why(&[0, 0, 0, 9, 2, 0, 0, 0, 0x40]).contains("can't be read"));
        let mut behind = bytes_of(Frame::of(0, open()));
        behind[3] += 1;
        behind.put_u8(0);
        assert!(why(&behind).contains("behind"));
    }

    #[test]
    fn nothing_longer_than_agreed_is_sent() {
        let mut bytes = BytesMut::new();
        let body = Body::Performative(transfer());
        let frame = Frame { channel: 0, body, payload: vec![0; FRAME_MIN].into() };
        assert!(matches!(encode(&Item::Frame(frame), FRAME_MIN, &mut bytes), Err(FrameError::TooLarge { .. })));
        assert!(bytes.is_empty());
    }
}
