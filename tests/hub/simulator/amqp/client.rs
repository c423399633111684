//! A client that does what a test says, frame by frame.

use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::Bytes;
use fieldbridge::amqp::frame::{Body, Codec, Frame, Item, Protocol, Sasl};
use fieldbridge::amqp::shape;
use fieldbridge::amqp::types::definitions::{Handle, ReceiverSettleMode, Role, SenderSettleMode};
use fieldbridge::amqp::types::messaging::annotations::OwnedKey;
use fieldbridge::amqp::types::messaging::{
    AmqpValue, ApplicationProperties, Data, DeliveryState, MessageAnnotations, MessageId, Properties, Source, Target,
    TargetArchetype,
};
use fieldbridge::amqp::types::performatives::{Attach, Begin, Detach, Disposition, Flow, Open, Performative, Transfer};
use fieldbridge::amqp::types::primitives::SimpleValue;
use fieldbridge::amqp::types::sasl::{SaslCode, SaslInit};
use fieldbridge::amqp::Value;
use fieldbridge::demo::hub::{Ack, C2d, SimHub};
use futures_util::{SinkExt, StreamExt};
use serde_amqp::to_vec;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::codec::Framed;

use super::super::{LIMIT, QUIET};

pub trait Bytestream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Bytestream for T {}

pub struct Client {
    framed: Framed<Box<dyn Bytestream>, Codec>,
    /// How many messages came on each link.
    come: BTreeMap<u32, u32>,
    tokens: u64,
    has_cbs: bool,
}

/// A message that came.
#[derive(Debug, Default)]
pub struct Delivered {
    pub id: u32,
    pub tag: Vec<u8>,
    pub body: Vec<u8>,
    pub has_expiry: bool,
    properties: Properties,
    application: Vec<(String, SimpleValue)>,
    annotations: Vec<(OwnedKey, Value)>,
}

impl Delivered {
    pub fn text(&self, name: &str) -> String {
        let id = |id: &Option<MessageId>| match id {
            Some(MessageId::String(text)) => text.clone(),
            Some(MessageId::Uuid(uuid)) => dashed(uuid.as_inner()),
            other => format!("{other:?}"),
        };
        match name {
            "message-id" => id(&self.properties.message_id),
            "correlation-id" => id(&self.properties.correlation_id),
            "to" => self.properties.to.clone().unwrap_or_default(),
            "content-type" => self.properties.content_type.as_ref().map(|s| s.0.clone()).unwrap_or_default(),
            other => panic!("{other}"),
        }
    }

    pub fn application(&self, name: &str) -> Option<String> {
        let found = self.application.iter().find(|(n, _)| n == name)?;
        match &found.1 {
            SimpleValue::String(text) => Some(text.clone()),
            SimpleValue::Int(number) => Some(number.to_string()),
            other => panic!("{other:?}"),
        }
    }

    pub fn annotation(&self, name: &str) -> String {
        let found = self.annotations.iter().find(|(n, _)| *n == OwnedKey::from(name));
        match &found.unwrap().1 {
            Value::Long(number) => number.to_string(),
            Value::Uint(number) => number.to_string(),
            Value::Uuid(uuid) => dashed(uuid.as_inner()),
            other => format!("{other:?}"),
        }
    }

    pub fn tag_text(&self) -> String {
        hex(&self.tag)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn dashed(bytes: &[u8]) -> String {
    let text = hex(bytes);
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

fn section<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> T {
    serde_amqp::from_slice(bytes).unwrap()
}

fn parse(mut bytes: &[u8]) -> Delivered {
    let mut delivered = Delivered::default();
    while !bytes.is_empty() {
        let (one, rest) = bytes.split_at(shape::length(bytes).unwrap());
        bytes = rest;
        match shape::descriptor(one, |_| None) {
            Some(0x72) => delivered.annotations = section::<MessageAnnotations>(one).0.into_iter().collect(),
            Some(0x73) => delivered.properties = section(one),
            Some(0x74) => delivered.application = section::<ApplicationProperties>(one).0.into_iter().collect(),
            Some(0x75) => delivered.body = section::<Data>(one).0.into_vec(),
            _ => {}
        }
    }
    delivered.has_expiry = delivered.properties.absolute_expiry_time.is_some();
    delivered
}

/// A message's bytes, with an id, a body, and what else the hub looks at.
pub fn message(message: &C2d, to: Option<&str>) -> Vec<u8> {
    let properties = Properties {
        message_id: message.message_id.clone().map(MessageId::String),
        correlation_id: message.correlation_id.clone().map(MessageId::String),
        to: to.map(str::to_owned),
        ..Properties::default()
    };
    let ack = (message.ack != Ack::None).then(|| ("iothub-ack".to_owned(), Some(message.ack.as_str().to_owned())));
    let application = ack.into_iter().chain(message.properties.iter().cloned());
    let application = application.map(|(n, v)| (n, v.map_or(SimpleValue::Null, SimpleValue::String))).collect();
    let sections = [
        to_vec(&properties).unwrap(),
        to_vec(&ApplicationProperties(application)).unwrap(),
        to_vec(&Data(message.body.clone().into())).unwrap(),
    ];
    sections.concat()
}

impl Client {
    /// A connection over TCP, with SASL ANONYMOUS.
    pub async fn open(hub: &SimHub) -> Client {
        Client::with_frames_of(hub, 65_536).await
    }

    pub async fn with_frames_of(hub: &SimHub, frame_max: u32) -> Client {
        let tcp = TcpStream::connect(hub.amqp_addr()).await.unwrap();
        Client::begin(tcp, frame_max, None).await.unwrap()
    }

    /// `None` where the hub does not believe it.
    pub async fn plain(hub: &SimHub, user: &str, password: &str) -> Option<Client> {
        let tcp = TcpStream::connect(hub.amqp_addr()).await.unwrap();
        Client::begin(tcp, 65_536, Some((user, password))).await
    }

    pub async fn begin(
        stream: impl Bytestream + 'static,
        frame_max: u32,
        credentials: Option<(&str, &str)>,
    ) -> Option<Client> {
        let framed = Framed::new(Box::new(stream) as Box<dyn Bytestream>, Codec::default());
        let mut client = Client { framed, come: BTreeMap::new(), tokens: 0, has_cbs: false };
        client.framed.send(Item::Header(Protocol::Sasl)).await.unwrap();
        assert!(matches!(client.item().await, Some(Item::Header(Protocol::Sasl))));
        assert!(matches!(client.body().await, Some(Body::Sasl(Sasl::Mechanisms(_)))));
        let init = match credentials {
            None => SaslInit { mechanism: "ANONYMOUS".into(), initial_response: None, hostname: None },
            Some((user, password)) => {
                let response = format!("\0{user}\0{password}").into_bytes();
                SaslInit { mechanism: "PLAIN".into(), initial_response: Some(response.into()), hostname: None }
            }
        };
        client.framed.send(Item::Frame(Frame::sasl(Sasl::Init(init)))).await.unwrap();
        let Some(Body::Sasl(Sasl::Outcome(outcome))) = client.body().await else { panic!("an outcome") };
        if outcome.code != SaslCode::Ok {
            assert!(client.item().await.is_none());
            return None;
        }
        client.framed.send(Item::Header(Protocol::Amqp)).await.unwrap();
        assert!(matches!(client.item().await, Some(Item::Header(Protocol::Amqp))));
        client.start(frame_max, None).await;
        Some(client)
    }

    /// A connection without SASL, of a client that wants to hear something in so many milliseconds.
    pub async fn without_sasl(hub: &SimHub, idle: u32) -> Client {
        let tcp = TcpStream::connect(hub.amqp_addr()).await.unwrap();
        let framed = Framed::new(Box::new(tcp) as Box<dyn Bytestream>, Codec::default());
        let mut client = Client { framed, come: BTreeMap::new(), tokens: 0, has_cbs: false };
        client.framed.send(Item::Header(Protocol::Amqp)).await.unwrap();
        assert!(matches!(client.item().await, Some(Item::Header(Protocol::Amqp))));
        client.start(65_536, Some(idle)).await;
        client
    }

    pub async fn heartbeat(&mut self) {
        assert!(matches!(self.body().await, Some(Body::Heartbeat)), "no heartbeat");
    }

    async fn start(&mut self, frame_max: u32, idle_time_out: Option<u32>) {
        self.say(Performative::Open(Open {
            container_id: "test".into(),
            hostname: Some("hub".into()),
            max_frame_size: frame_max.into(),
            channel_max: 0.into(),
            idle_time_out,
            outgoing_locales: None,
            incoming_locales: None,
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        }))
        .await;
        self.say(Performative::Begin(Begin {
            remote_channel: None,
            next_outgoing_id: 0,
            incoming_window: 5000,
            outgoing_window: 5000,
            handle_max: Handle::default(),
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        }))
        .await;
        assert!(matches!(self.heard().await, Some(Performative::Open(_))));
        assert!(matches!(self.heard().await, Some(Performative::Begin(_))));
    }

    async fn say(&mut self, performative: Performative) {
        self.say_with(performative, Bytes::new()).await;
    }

    async fn say_with(&mut self, performative: Performative, payload: Bytes) {
        let frame = Frame { channel: 0, body: Body::Performative(performative), payload };
        self.framed.send(Item::Frame(frame)).await.unwrap();
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        self.framed.get_mut().write_all(bytes).await.unwrap();
        self.framed.get_mut().flush().await.unwrap();
    }

    async fn item(&mut self) -> Option<Item> {
        timeout(LIMIT, self.framed.next()).await.expect("something or the end")?.ok()
    }

    async fn frame(&mut self) -> Option<Frame> {
        match self.item().await? {
            Item::Frame(frame) => Some(frame),
            Item::Header(_) => panic!("a header in place of a frame"),
        }
    }

    async fn body(&mut self) -> Option<Body> {
        self.frame().await.map(|frame| frame.body)
    }

    async fn heard(&mut self) -> Option<Performative> {
        match self.body().await? {
            Body::Performative(performative) => Some(performative),
            _ => panic!("no performative"),
        }
    }

    pub async fn is_quiet(&mut self) {
        if let Ok(Some(Ok(Item::Frame(Frame { body: Body::Performative(heard), .. })))) =
            timeout(QUIET, self.framed.next()).await
        {
            panic!("{heard:?} in place of silence");
        }
    }

    async fn attach(&mut self, handle: u32, address: &str, role: Role) -> Option<String> {
        let here = Some(Box::new(TargetArchetype::Target(Target::default())));
        let (source, target) = match role {
            Role::Receiver => (Source::builder().address(address).build(), here),
            Role::Sender => {
                let target = Target::builder().address(address).build();
                (Source::default(), Some(Box::new(TargetArchetype::Target(target))))
            }
        };
        self.come.remove(&handle);
        let initial_delivery_count = (role == Role::Sender).then_some(0);
        self.say(Performative::Attach(Attach {
            name: format!("link-{handle}-{}", fastrand::u64(..)),
            handle: Handle(handle),
            role: role.clone(),
            snd_settle_mode: SenderSettleMode::Mixed,
            rcv_settle_mode: ReceiverSettleMode::First,
            source: Some(Box::new(source)),
            target,
            unsettled: None,
            incomplete_unsettled: false,
            initial_delivery_count,
            max_message_size: None,
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        }))
        .await;
        let Some(Performative::Attach(answer)) = self.heard().await else { panic!("an attach") };
        assert_eq!(answer.handle, Handle(handle));
        let link = self.heard_of_link(handle, role).await;
        link.err()
    }

    /// Whether a link stays: the hub says so to a sender by its credit, and to a receiver by nothing.
    async fn heard_of_link(&mut self, handle: u32, role: Role) -> Result<(), String> {
        if role == Role::Receiver {
            // What the hub sends next for certain: an answer to a flow that asks for one.
            self.say(Performative::Flow(Flow { echo: true, ..flow(None) })).await;
        }
        match self.heard().await {
            Some(Performative::Flow(flow)) if role == Role::Receiver && flow.handle.is_none() => Ok(()),
            Some(Performative::Flow(flow)) if flow.handle == Some(Handle(handle)) => Ok(()),
            Some(Performative::Detach(detach)) => {
                if role == Role::Receiver {
                    assert!(matches!(self.heard().await, Some(Performative::Flow(_))));
                }
                let condition = to_vec(&detach.error.unwrap().condition).unwrap();
                Err(String::from_utf8(condition[2..].to_vec()).unwrap())
            }
            None => Err("the connection ended".into()),
            other => panic!("{other:?} after an attach"),
        }
    }

    /// Attaches a receiver; the condition, if it is detached right after.
    pub async fn receive_from(&mut self, handle: u32, address: &str, credit: u32) -> Option<String> {
        let refused = self.attach(handle, address, Role::Receiver).await;
        if refused.is_none() && credit > 0 {
            self.credit(handle, credit, false).await;
        }
        refused
    }

    pub async fn send_to(&mut self, handle: u32, address: &str) -> Option<String> {
        self.attach(handle, address, Role::Sender).await
    }

    /// Gives so much credit beyond what has come on the link by now.
    pub async fn credit(&mut self, handle: u32, credit: u32, drain: bool) {
        let delivery_count = Some(self.come.get(&handle).copied().unwrap_or(0));
        let link = Flow { delivery_count, link_credit: Some(credit), drain, ..flow(Some(handle)) };
        self.say(Performative::Flow(link)).await;
    }

    pub async fn flow(&mut self) -> Flow {
        match self.heard().await {
            Some(Performative::Flow(flow)) => flow,
            other => panic!("{other:?} in place of a flow"),
        }
    }

    /// The next message on a link; `None` where the connection ends.
    pub async fn delivery(&mut self) -> Option<Delivered> {
        let mut bytes = Vec::new();
        let mut head = None;
        loop {
            let frame = self.frame().await?;
            let Body::Performative(performative) = frame.body else { panic!("no performative") };
            match performative {
                Performative::Transfer(transfer) => {
                    bytes.extend_from_slice(&frame.payload);
                    let more = transfer.more;
                    let first = head.get_or_insert(transfer);
                    if !more {
                        let tag = first.delivery_tag.clone().unwrap().into_vec();
                        let (id, handle) = (first.delivery_id.unwrap(), first.handle.0);
                        *self.come.entry(handle).or_default() += 1;
                        return Some(Delivered { id, tag, ..parse(&bytes) });
                    }
                }
                Performative::Close(_) => {}
                other => panic!("{other:?} in place of a delivery"),
            }
        }
    }

    pub async fn settle(&mut self, id: u32, state: DeliveryState) {
        self.dispose(id, state, true).await;
    }

    async fn dispose(&mut self, id: u32, state: DeliveryState, settled: bool) {
        let (role, last, batchable) = (Role::Receiver, None, false);
        let state = Some(state);
        self.say(Performative::Disposition(Disposition { role, first: id, last, settled, state, batchable })).await;
    }

    /// Settles what the hub is to confirm, and gives what it says.
    pub async fn settle_and_hear(&mut self, id: u32, state: DeliveryState) -> DeliveryState {
        self.dispose(id, state, false).await;
        self.outcome().await
    }

    pub async fn outcome(&mut self) -> DeliveryState {
        loop {
            match self.heard().await {
                Some(Performative::Disposition(disposition)) => return disposition.state.unwrap(),
                Some(Performative::Flow(_)) => {}
                other => panic!("{other:?} in place of a disposition"),
            }
        }
    }

    pub async fn detach(&mut self, handle: u32) {
        self.say(Performative::Detach(Detach { handle: Handle(handle), closed: true, error: None })).await;
        assert!(matches!(self.heard().await, Some(Performative::Detach(_))));
    }

    /// The link that the hub detaches, and with which condition.
    pub async fn detached(&mut self) -> (u32, String) {
        match self.heard().await {
            Some(Performative::Detach(detach)) => {
                let condition = to_vec(&detach.error.unwrap().condition).unwrap();
                (detach.handle.0, String::from_utf8(condition[2..].to_vec()).unwrap())
            }
            other => panic!("{other:?} in place of a detach"),
        }
    }

    pub async fn send_message(&mut self, handle: u32, sent: C2d) {
        self.transfer(handle, message(&sent, None), 1).await;
    }

    pub async fn send_parts(&mut self, handle: u32, sent: C2d, parts: usize) -> DeliveryState {
        self.transfer(handle, message(&sent, None), parts).await;
        self.outcome().await
    }

    pub async fn transfer(&mut self, handle: u32, bytes: Vec<u8>, parts: usize) {
        let id = u32::try_from(self.tokens).unwrap() + 1000;
        self.tokens += 1;
        let size = bytes.len().div_ceil(parts);
        let chunks: Vec<&[u8]> = bytes.chunks(size).collect();
        for (index, chunk) in chunks.iter().enumerate() {
            let transfer = Transfer {
                handle: Handle(handle),
                delivery_id: (index == 0).then_some(id),
                delivery_tag: (index == 0).then(|| id.to_be_bytes().to_vec().into()),
                message_format: Some(0),
                settled: Some(false),
                more: index + 1 < chunks.len(),
                rcv_settle_mode: None,
                state: None,
                resume: false,
                aborted: false,
                batchable: false,
            };
            self.say_with(Performative::Transfer(transfer), Bytes::copy_from_slice(chunk)).await;
        }
    }

    pub async fn ask_token(&mut self, token: &str) {
        if !std::mem::replace(&mut self.has_cbs, true) {
            assert_eq!(self.send_to(CBS_OUT, "$cbs").await, None);
            assert_eq!(self.receive_from(CBS_IN, "$cbs", 0).await, None);
            let credit = Flow { delivery_count: Some(0), link_credit: Some(1000), ..flow(Some(CBS_IN)) };
            self.say(Performative::Flow(credit)).await;
        }
        let properties = Properties {
            message_id: Some(MessageId::String(format!("token-{}", self.tokens))),
            to: Some("$cbs".into()),
            reply_to: Some("cbs".into()),
            ..Properties::default()
        };
        let text = |text: &str| SimpleValue::String(text.to_owned());
        let application = [("operation", "put-token"), ("type", "servicebus.windows.net:sastoken"), ("name", "x")];
        let application = application.into_iter().map(|(name, value)| (name.to_owned(), text(value))).collect();
        let sections = [
            to_vec(&properties).unwrap(),
            to_vec(&ApplicationProperties(application)).unwrap(),
            to_vec(&AmqpValue(Value::String(token.to_owned()))).unwrap(),
        ];
        self.transfer(CBS_OUT, sections.concat(), 1).await;
    }

    /// Shows a token, and gives the status that it leads to.
    pub async fn put_token(&mut self, token: &str) -> u16 {
        let wanted = format!("token-{}", self.tokens);
        self.ask_token(token).await;
        assert!(matches!(self.outcome().await, DeliveryState::Accepted(_)));
        let answer = self.delivery().await.unwrap();
        assert_eq!(answer.text("correlation-id"), wanted);
        answer.application("status-code").unwrap().parse().unwrap()
    }
}

const CBS_OUT: u32 = 1;
const CBS_IN: u32 = 2;

fn flow(handle: Option<u32>) -> Flow {
    Flow {
        next_incoming_id: Some(0),
        incoming_window: 1_000_000,
        next_outgoing_id: 0,
        outgoing_window: 5000,
        handle: handle.map(Handle),
        delivery_count: None,
        link_credit: None,
        available: None,
        drain: false,
        echo: false,
        properties: None,
    }
}
