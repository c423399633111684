//! The hub's end of a connection, written out: it answers as a hub does.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::DuplexStream;
use tokio_util::codec::Framed;

use crate::amqp::frame::{Body, Codec, Frame, Item, Protocol, Sasl};
use crate::amqp::message::{self, text};
use crate::amqp::types::definitions::{Error, ErrorCondition, Handle, Role, SenderSettleMode};
use crate::amqp::types::messaging::{Accepted, DeliveryState, MessageId, Properties, TargetArchetype};
use crate::amqp::types::performatives::{
    Attach, Begin, Close, Detach, Disposition, End, Flow, Open, Performative, Transfer,
};
use crate::amqp::types::sasl::{SaslCode, SaslMechanisms, SaslOutcome};

/// The hub's end of a connection. It has each session and link under the numbers that it was asked for with.
pub(super) struct Hub {
    pub(super) framed: Framed<DuplexStream, Codec>,
    pub(super) mechanism: &'static str,
    /// Whose tokens it says nothing to.
    pub(super) silent_to: &'static str,
    /// It says nothing to links that bring calls.
    pub(super) is_silent_to_calls: bool,
    /// What it answers to other tokens that are good.
    pub(super) status: &'static str,
    /// Sessions that it takes.
    pub(super) sessions: u16,
    /// Which pair each link for calls says that it is of.
    pub(super) pairs: Vec<String>,
    /// How many messages may go in all on each link, by its channel and its handle.
    pub(super) may_send: HashMap<(u16, u32), u32>,
    is_open: bool,
}

/// What came to the hub that a test may want to know.
#[derive(Debug)]
pub(super) enum Heard {
    Token { of: String, token: String, asked: Asked },
    Link { channel: u16, handle: u32, address: String },
    Credit { channel: u16, credit: u32 },
    Event { channel: u16, handle: u32, id: u32, message: Box<message::Message> },
    Answer { message: Box<message::Message> },
    Told { first: u32, how: &'static str },
    Ended { channel: u16 },
    Closed { why: Option<Error> },
}

/// A request that shows a token.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) channel: u16,
    id: u32,
    request: String,
}

impl Hub {
    pub(super) fn on(stream: DuplexStream) -> Hub {
        let framed = Framed::new(stream, Codec::default());
        let (pairs, may_send) = Default::default();
        let (silent_to, is_silent_to_calls, status, sessions, is_open) = ("", false, "200", 1024, false);
        let mechanism = "ANONYMOUS";
        Hub { framed, mechanism, silent_to, is_silent_to_calls, status, sessions, pairs, may_send, is_open }
    }

    pub(super) async fn say(&mut self, channel: u16, performative: Performative) {
        self.put(Frame::of(channel, performative)).await;
    }

    pub(super) async fn put(&mut self, frame: Frame) {
        self.framed.send(Item::Frame(frame)).await.unwrap();
    }

    pub(super) async fn item(&mut self) -> Item {
        self.framed.next().await.expect("the connection stands").expect("frames are sound")
    }

    pub(super) async fn accept(&mut self) {
        assert!(matches!(self.item().await, Item::Header(Protocol::Sasl)));
        self.framed.send(Item::Header(Protocol::Sasl)).await.unwrap();
        let mechanisms = SaslMechanisms { sasl_server_mechanisms: vec![self.mechanism.into()].into() };
        self.put(Frame::sasl(Sasl::Mechanisms(mechanisms))).await;
        let Item::Frame(Frame { body: Body::Sasl(Sasl::Init(init)), .. }) = self.item().await else { panic!("Init") };
        assert_eq!(init.mechanism.0, self.mechanism);
        self.put(Frame::sasl(Sasl::Outcome(SaslOutcome { code: SaslCode::Ok, additional_data: None }))).await;
        assert!(matches!(self.item().await, Item::Header(Protocol::Amqp)));
        self.framed.send(Item::Header(Protocol::Amqp)).await.unwrap();
        let Item::Frame(Frame { body: Body::Performative(Performative::Open(open)), .. }) = self.item().await else {
            panic!("Open")
        };
        assert_eq!((open.hostname.as_deref(), open.max_frame_size.0), (Some("localhost"), 65_536));
        let channel_max = (self.sessions - 1).into();
        self.say(0, Performative::Open(Open { container_id: "hub".into(), hostname: None, channel_max, ..open })).await;
    }

    /// What comes next that matters, with what does not answered as a hub does.
    pub(super) async fn hear(&mut self) -> Heard {
        if !self.is_open {
            self.accept().await;
            self.is_open = true;
        }
        loop {
            let Item::Frame(Frame { channel, body, payload }) = self.item().await else { panic!("a header") };
            let Body::Performative(performative) = body else { continue };
            match performative {
                Performative::Begin(begin) => {
                    self.say(channel, Performative::Begin(Begin { remote_channel: Some(channel), ..begin })).await;
                }
                Performative::Attach(attach) => {
                    if let Some(heard) = self.on_attach(channel, attach).await {
                        return heard;
                    }
                }
                Performative::Flow(Flow { handle: Some(of), link_credit: Some(credit), delivery_count, .. }) => {
                    self.may_send.insert((channel, of.0), delivery_count.unwrap_or_default() + credit);
                    return Heard::Credit { channel, credit };
                }
                Performative::Transfer(transfer) => return self.on_transfer(channel, transfer, &payload).await,
                Performative::Disposition(Disposition { first, state, settled, .. }) => {
                    assert!(settled, "at once");
                    let how = match state {
                        Some(DeliveryState::Accepted(_)) => "accepted",
                        Some(DeliveryState::Rejected(_)) => "rejected",
                        Some(DeliveryState::Released(_)) => "released",
                        _ => "something else",
                    };
                    // That of the answers to tokens is not one of a device's.
                    if channel != 0 {
                        return Heard::Told { first, how };
                    }
                }
                Performative::End(_) => {
                    self.say(channel, Performative::End(End { error: None })).await;
                    return Heard::Ended { channel };
                }
                Performative::Close(close) => {
                    self.say(0, Performative::Close(Close { error: None })).await;
                    return Heard::Closed { why: close.error };
                }
                _ => {}
            }
        }
    }

    pub(super) async fn on_attach(&mut self, channel: u16, attach: Attach) -> Option<Heard> {
        let handle = attach.handle.0;
        let theirs = match (&attach.source, &attach.target) {
            (Some(source), _) if attach.role == Role::Receiver => source.address.clone(),
            (_, Some(target)) => match &**target {
                TargetArchetype::Target(target) => target.address.clone(),
            },
            _ => None,
        };
        let address = theirs.expect("an address");
        if address.ends_with("/methods/devicebound") {
            assert_eq!(attach.snd_settle_mode, SenderSettleMode::Settled);
            let properties = attach.properties.as_ref().expect("it says of itself");
            assert!(properties.get("com.microsoft:api-version").is_some());
            let pair = properties.get("com.microsoft:channel-correlation-id").and_then(text);
            self.pairs.push(pair.expect("it is of a pair"));
            if self.is_silent_to_calls && attach.role == Role::Receiver {
                return Some(Heard::Link { channel, handle, address });
            }
        }
        let is_sender = attach.role == Role::Sender;
        let role = if is_sender { Role::Receiver } else { Role::Sender };
        let initial_delivery_count = (!is_sender).then_some(0);
        self.say(channel, Performative::Attach(Attach { role, initial_delivery_count, ..attach })).await;
        if is_sender {
            let mut flow = flow();
            (flow.handle, flow.delivery_count, flow.link_credit) = (Some(Handle(handle)), Some(0), Some(100));
            self.say(channel, Performative::Flow(flow)).await;
        }
        (address != "$cbs").then_some(Heard::Link { channel, handle, address })
    }

    pub(super) async fn on_transfer(&mut self, channel: u16, transfer: Transfer, payload: &[u8]) -> Heard {
        let (message, why) = message::read(payload);
        assert_eq!(why, None);
        let id = transfer.delivery_id.unwrap();
        if message.property("IoThub-status").is_some() {
            assert_eq!(transfer.settled, Some(true));
            return Heard::Answer { message: Box::new(message) };
        }
        let Some(of) = message.property("name").and_then(text) else {
            let handle = transfer.handle.0;
            return Heard::Event { channel, handle, id, message: Box::new(message) };
        };
        let of_device = of.rsplit("%2F").next().unwrap_or_default();
        let asked = Asked { channel, id, request: message.id.as_ref().and_then(text).unwrap() };
        if of_device != self.silent_to {
            let is_bad = of_device.starts_with("bad") || message.body == b"expired";
            self.answer(&asked, if is_bad { "401" } else { self.status }).await;
        }
        let token = String::from_utf8(message.body).unwrap();
        Heard::Token { of, token, asked }
    }

    /// Answers to a token. The answer comes before the disposition of the request.
    pub(super) async fn answer(&mut self, asked: &Asked, status: &str) {
        let Asked { channel, id, request } = asked.clone();
        let properties = Properties { correlation_id: Some(MessageId::String(request)), ..Properties::default() };
        let said = [("status-code", status), ("status-description", "as it is")];
        let answer = message::write(&properties, &said, message::Body::Text("")).unwrap();
        // Numbers are numbers on the wire.
        let answer = with_number(&answer, status);
        self.transfer(channel, 0, id, &answer, 1).await;
        self.tell(channel, id, DeliveryState::Accepted(Accepted {})).await;
    }

    /// A message on a link, in so many frames.
    pub(super) async fn transfer(&mut self, channel: u16, handle: u32, id: u32, message: &[u8], frames: usize) {
        let size = message.len().div_ceil(frames).max(1);
        let pieces: Vec<&[u8]> = message.chunks(size).collect();
        for (at, piece) in pieces.iter().enumerate() {
            let transfer = Transfer {
                handle: Handle(handle),
                delivery_id: (at == 0).then_some(id),
                delivery_tag: (at == 0).then(|| id.to_be_bytes().to_vec().into()),
                message_format: Some(0),
                settled: None,
                more: at + 1 < pieces.len(),
                rcv_settle_mode: None,
                state: None,
                resume: false,
                aborted: false,
                batchable: false,
            };
            let body = Body::Performative(Performative::Transfer(transfer));
            self.put(Frame { channel, body, payload: Bytes::copy_from_slice(piece) }).await;
        }
    }

    /// A message for a device, under an id.
    pub(super) async fn deliver(&mut self, (channel, handle): (u16, u32), id: u32, message_id: &str, frames: usize) {
        let properties = Properties { message_id: Some(MessageId::String(message_id.into())), ..Properties::default() };
        let message = message::write(&properties, &[("command", "set")], message::Body::Data(b"12.5")).unwrap();
        // As the hub has it: a header with the delivery count 0.
        let header = [0x00, 0x53, 0x70, 0xc0, 6, 5, 0x40, 0x40, 0x40, 0x40, 0x43];
        self.transfer(channel, handle, id, &[&header[..], &message].concat(), frames).await;
    }

    /// A message under the number that it has in the device's queue, and an id made of that.
    pub(super) async fn deliver_number(&mut self, (channel, handle): (u16, u32), id: u32, number: u8) {
        let name = b"x-opt-sequence-number";
        let properties =
            Properties { message_id: Some(MessageId::String(format!("m-{number}"))), ..Properties::default() };
        let message = message::write(&properties, &[("command", "set")], message::Body::Data(b"12.5")).unwrap();
        // A map of one symbol and a small long.
        let begin = [0x00, 0x53, 0x72, 0xc1, name.len() as u8 + 5, 2, 0xa3, name.len() as u8];
        let annotations = [&begin[..], name, &[0x55, number]].concat();
        self.transfer(channel, handle, id, &[&annotations[..], &message].concat(), 1).await;
    }

    pub(super) async fn tell(&mut self, channel: u16, first: u32, state: DeliveryState) {
        let (role, last, state) = (Role::Receiver, None, Some(state));
        let told = Disposition { role, first, last, settled: true, state, batchable: false };
        self.say(channel, Performative::Disposition(told)).await;
    }

    /// Goes on until what is wanted has come.
    pub(super) async fn until<T>(&mut self, mut wanted: impl FnMut(&Heard) -> Option<T>) -> T {
        loop {
            let heard = self.hear().await;
            if let Some(found) = wanted(&heard) {
                return found;
            }
        }
    }

    /// Goes on until something comes, and answers neither to that nor to what comes before.
    pub(super) async fn hear_only(&mut self, mut wanted: impl FnMut(u16, &Performative) -> bool) {
        loop {
            let Item::Frame(Frame { channel, body, .. }) = self.item().await else { panic!("a header") };
            if matches!(body, Body::Performative(performative) if wanted(channel, &performative)) {
                return;
            }
        }
    }

    /// The next token that is shown.
    pub(super) async fn token(&mut self) -> (String, Asked) {
        self.until(|heard| match heard {
            Heard::Token { token, asked, .. } => Some((token.clone(), asked.clone())),
            _ => None,
        })
        .await
    }

    /// The next event that is published: its channel and its number there.
    pub(super) async fn event(&mut self) -> (u16, u32) {
        let ((channel, _), id) = self.event_on().await;
        (channel, id)
    }

    /// The same with the link that it came on.
    pub(super) async fn event_on(&mut self) -> ((u16, u32), u32) {
        self.until(|heard| match heard {
            Heard::Event { channel, handle, id, .. } => Some(((*channel, *handle), *id)),
            _ => None,
        })
        .await
    }

    /// A call of a device's method, under an id.
    pub(super) async fn call(&mut self, link: (u16, u32), id: u32, call: MessageId, name: &str, body: &[u8]) {
        let properties = Properties { correlation_id: Some(call), ..Properties::default() };
        let message = message::write(&properties, &[("IoThub-methodname", name)], message::Body::Data(body)).unwrap();
        self.transfer(link.0, link.1, id, &message, 1).await;
    }

    /// The next answer to a call.
    pub(super) async fn answer_to_a_call(&mut self) -> message::Message {
        self.until(|heard| match heard {
            Heard::Answer { message } => Some((**message).clone()),
            _ => None,
        })
        .await
    }

    /// The link of a device's messages, once it is asked for.
    pub(super) async fn link(&mut self, device: &str) -> (u16, u32) {
        self.link_at(&format!("/devices/{device}/messages/devicebound")).await
    }

    /// One of the links of a device's methods, once it is asked for.
    pub(super) async fn methods(&mut self, device: &str) -> (u16, u32) {
        self.link_at(&format!("/devices/{device}/methods/devicebound")).await
    }

    async fn link_at(&mut self, wanted: &str) -> (u16, u32) {
        self.until(|heard| match heard {
            Heard::Link { channel, handle, address } if *address == wanted => Some((*channel, *handle)),
            _ => None,
        })
        .await
    }

    /// What is told of the next delivery.
    pub(super) async fn told(&mut self) -> (u32, &'static str) {
        self.until(|heard| match heard {
            Heard::Told { first, how, .. } => Some((*first, *how)),
            _ => None,
        })
        .await
    }

    pub(super) async fn detach(&mut self, (channel, handle): (u16, u32), condition: impl Into<ErrorCondition>) {
        let error = Some(Error::new(condition, Some("as it is".to_owned()), None));
        self.say(channel, Performative::Detach(Detach { handle: Handle(handle), closed: true, error })).await;
    }
}

fn flow() -> Flow {
    Flow {
        next_incoming_id: Some(0),
        incoming_window: 5000,
        next_outgoing_id: 0,
        outgoing_window: 5000,
        handle: None,
        delivery_count: None,
        link_credit: None,
        available: None,
        drain: false,
        echo: false,
        properties: None,
    }
}

/// The same message with its text `200` as the number 200.
fn with_number(message: &[u8], status: &str) -> Vec<u8> {
    let text = [&[0xa1, 3][..], status.as_bytes()].concat();
    let number = [&[0x71][..], &status.parse::<i32>().unwrap().to_be_bytes()].concat();
    let at = message.windows(5).position(|window| window == text).unwrap();
    [&message[..at], &number, &message[at + 5..]].concat()
}
