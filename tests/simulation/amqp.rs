//! AMQP 1.0 as a server speaks it, as far as a hub needs it: frames by the project's own codec, and the messages of a
//! hub. What may follow what is not in here.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use fieldbridge::amqp::frame::{decode, encode, written, Body, Frame, Item, FRAME_MAX};
use fieldbridge::amqp::message::{self, text};
use fieldbridge::amqp::primitives::OrderedMap;
use fieldbridge::amqp::types::definitions::{self, ErrorCondition, Handle, Role};
use fieldbridge::amqp::types::messaging::annotations::OwnedKey;
use fieldbridge::amqp::types::messaging::{
    AmqpValue, ApplicationProperties, Data, DeliveryState, Header, MessageAnnotations, MessageId, Properties,
};
use fieldbridge::amqp::types::performatives::{Disposition, Flow, Performative, Transfer};
use fieldbridge::amqp::types::primitives::SimpleValue;
use fieldbridge::amqp::Value;
use fieldbridge::time::Timestamp;

use super::hub::Event;
use super::wire::Wire;

/// Transfers that a session takes.
pub const WINDOW: u32 = 5_000;

/// A header or a frame as bytes.
pub fn bytes(item: &Item) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    encode(item, FRAME_MAX, &mut bytes).expect("what a hub says fits into a frame");
    bytes.to_vec()
}

/// One of AMQP's frames, with a part of a message behind it.
pub fn frame(channel: u16, performative: Performative, payload: &[u8]) -> Vec<u8> {
    let body = Body::Performative(performative);
    bytes(&Item::Frame(Frame { channel, body, payload: Bytes::copy_from_slice(payload) }))
}

/// A message in so many frames at least, but for the last of them, which comes by itself.
pub fn transfers(channel: u16, handle: u32, delivery: u32, message: &[u8], frames: usize) -> (Vec<u8>, Vec<u8>) {
    pieces((channel, handle), (delivery, false), message, frames)
}

/// The same of one that is settled already, or not.
pub fn pieces(
    (channel, handle): (u16, u32),
    (delivery, is_settled): (u32, bool),
    message: &[u8],
    frames: usize,
) -> (Vec<u8>, Vec<u8>) {
    let size = message.len().div_ceil(frames).clamp(1, FRAME_MAX - 512);
    let pieces: Vec<&[u8]> = message.chunks(size).collect();
    let frame_of = |(at, piece): (usize, &&[u8])| {
        let is_first = at == 0;
        let transfer = Transfer {
            handle: Handle(handle),
            delivery_id: is_first.then_some(delivery),
            delivery_tag: is_first.then(|| delivery.to_be_bytes().to_vec().into()),
            message_format: is_first.then_some(0),
            settled: is_first.then_some(is_settled),
            more: at + 1 < pieces.len(),
            rcv_settle_mode: None,
            state: None,
            resume: false,
            aborted: false,
            batchable: false,
        };
        frame(channel, Performative::Transfer(transfer), piece)
    };
    let mut frames: Vec<Vec<u8>> = pieces.iter().enumerate().map(frame_of).collect();
    let last = frames.pop().expect("a message has a section");
    (frames.concat(), last)
}

/// So many messages may come on a link, of which so many came; and so many transfers came on its session.
pub fn credit(handle: u32, came: u32, credit: u32, transfers: u32) -> Performative {
    Performative::Flow(Flow {
        next_incoming_id: Some(transfers),
        incoming_window: WINDOW,
        next_outgoing_id: 0,
        outgoing_window: WINDOW,
        handle: Some(Handle(handle)),
        delivery_count: Some(came),
        link_credit: Some(credit),
        available: None,
        drain: false,
        echo: false,
        properties: None,
    })
}

/// What becomes of a message that came.
pub fn told(delivery: u32, state: DeliveryState) -> Performative {
    let (role, state) = (Role::Receiver, Some(state));
    Performative::Disposition(Disposition { role, first: delivery, last: None, settled: true, state, batchable: false })
}

/// An error.
pub fn error(condition: &'static str) -> definitions::Error {
    let condition = ErrorCondition::Custom(condition.into());
    definitions::Error::new(condition, Some("by the dice".to_owned()), None)
}

/// What a hub says of a message to a device.
pub struct Telling<'a> {
    pub device: &'a str,
    pub id: Option<&'a str>,
    pub body: &'a [u8],
    pub sequence: u64,
    pub given_back: u32,
    pub enqueued_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

/// A message to a device.
pub fn to_device(telling: &Telling) -> Vec<u8> {
    let mut bytes = section(&Header { delivery_count: telling.given_back, ..Header::default() });
    let mut annotations = OrderedMap::new();
    for (name, value) in [
        ("x-opt-sequence-number", Value::Long(telling.sequence as i64)),
        ("iothub-enqueuedtime", Value::Timestamp(telling.enqueued_at.0.into())),
        ("iothub-deliverycount", Value::Uint(telling.given_back)),
    ] {
        annotations.insert(OwnedKey::from(name), value);
    }
    bytes.extend(section(&MessageAnnotations(annotations)));
    let properties = Properties {
        message_id: telling.id.map(|id| MessageId::String(id.to_owned())),
        to: Some(format!("/devices/{}/messages/devicebound", telling.device)),
        absolute_expiry_time: telling.expires_at.map(|at| at.0.into()),
        ..Properties::default()
    };
    bytes.extend(section(&properties));
    bytes.extend(section(&Data(telling.body.to_vec().into())));
    bytes
}

/// The answer to a token.
pub fn answer(to: &str, status: i32) -> Vec<u8> {
    let id = Some(MessageId::String(to.to_owned()));
    let mut bytes = section(&Properties { correlation_id: id, ..Properties::default() });
    let mut said = OrderedMap::new();
    said.insert("status-code".to_owned(), SimpleValue::Int(status));
    said.insert("status-description".to_owned(), SimpleValue::String("by the dice".to_owned()));
    bytes.extend(section(&ApplicationProperties(said)));
    bytes.extend(section(&AmqpValue(Value::Null)));
    bytes
}

/// A call of a direct method, under an id that the hub's own have the type of.
pub fn call(request: u64, method: &str, payload: &[u8]) -> Vec<u8> {
    let id = u128::from(request).to_be_bytes();
    let properties = Properties { correlation_id: Some(MessageId::Uuid(id.into())), ..Properties::default() };
    let mut bytes = section(&properties);
    let mut said = OrderedMap::new();
    said.insert("IoThub-methodname".to_owned(), SimpleValue::String(method.to_owned()));
    bytes.extend(section(&ApplicationProperties(said)));
    bytes.extend(section(&Data(payload.to_vec().into())));
    bytes
}

/// Reads the answer to a call: to which, its status, and its body.
pub fn answer_to_a_call(payload: &[u8]) -> Option<(u64, u16, String)> {
    let (read, why) = message::read(payload);
    let Some(Value::Uuid(id)) = read.correlation_id.as_ref().filter(|_| why.is_none()) else { return None };
    let request = u128::from_be_bytes(*id.as_inner()).try_into().ok()?;
    let Some(Value::Int(status)) = read.property("IoThub-status") else { return None };
    Some((request, (*status).try_into().ok()?, String::from_utf8(read.body).ok()?))
}

fn section(value: &impl serde::Serialize) -> Vec<u8> {
    written(value).expect("a hub's own messages can be written")
}

/// A token that is shown.
pub struct PutToken {
    pub id: String,
    /// `HOST/devices/ID`, percent-encoded.
    pub audience: String,
    pub token: String,
}

/// Reads the request that shows a token.
pub fn put_token(payload: &[u8]) -> PutToken {
    let (read, why) = message::read(payload);
    assert_eq!(why, None, "a request is sound");
    let said = |value: Option<&Value>| value.and_then(text).unwrap_or_default();
    assert_eq!(said(read.property("operation")), "put-token");
    PutToken {
        id: said(read.id.as_ref()),
        audience: said(read.property("name")),
        token: String::from_utf8(read.body).expect("a token is text"),
    }
}

/// Reads a result event.
pub fn event(payload: &[u8]) -> Event {
    let (read, why) = message::read(payload);
    assert_eq!(why, None, "an event is sound");
    Event {
        id: read.id.as_ref().and_then(text).unwrap_or_default(),
        correlation: read.correlation_id.as_ref().and_then(text),
        body: String::from_utf8(read.body).expect("an event is UTF-8"),
    }
}

/// Cuts a byte stream into headers and frames.
#[derive(Default)]
pub struct Splitter(BytesMut);

impl Splitter {
    /// Those that are whole now.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Item> {
        self.0.extend_from_slice(bytes);
        std::iter::from_fn(|| decode(&mut self.0, FRAME_MAX).expect("the gateway's own frames are sound")).collect()
    }
}

/// The headers and frames that come on a wire.
pub struct Reader {
    wire: Wire,
    splitter: Splitter,
    ready: VecDeque<Item>,
}

impl Reader {
    /// Of a wire.
    pub fn new(wire: Wire) -> Reader {
        Reader { wire, splitter: Splitter::default(), ready: VecDeque::new() }
    }

    /// The next one. `None`: the client is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            let (_, bytes) = self.wire.receive().await?;
            self.ready.extend(self.splitter.take(&bytes));
        }
    }
}
