//! An identity's attachment by MQTT: a connection, its session, its keep-alive, and the packet ids of what was
//! published.
//!
//! Invariants
//! - From its CONNECT on the hub may hold messages for a connection, until it has ended it or has heard of its end. The
//!   next connection takes them over; another transport waits until nothing of it is held any more (G5, [`Left`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{timeout, Instant};

use super::connection::{Connection, Login, Received, SUBSCRIBE_PACKET_ID};
use super::ping::Ping;
use super::session::{self, Incoming, Session};
use super::topic::{self, AboutTwin};
use crate::command::{Message, Method};
use crate::config::{Hub, TransportKind};
use crate::hub::account::Account;
use crate::hub::call::{Answered, CallId};
use crate::hub::dial::Dial;
use crate::hub::left::Left;
use crate::hub::lock::Recipient;
use crate::hub::transport::{
    Attachment, Crash, Entry, Inbound, Pending, Reached, Rest, Transport, TwinAnswer, TwinRequest, TwinWord,
};
use crate::hub::trouble::Trouble;
use crate::hub::{lock, way, Settlement, WINDOW_MAX};
use crate::ledger::row::Event;
use crate::proof::crash::{self, Point};

/// How long the hub may take to close a connection that it is told the end of (MQTT 3.1.1, 3.14.4): an answer like any.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(1);

/// MQTT over streams that are dialled.
pub struct Mqtt {
    dial: Arc<dyn Dial>,
    left: Arc<Left>,
}

impl Mqtt {
    /// Over streams that are dialled so.
    pub fn over(dial: Arc<dyn Dial>) -> Mqtt {
        Mqtt { dial, left: Arc::default() }
    }
}

impl Transport for Mqtt {
    fn reach<'a>(&'a self, account: &'a Account) -> Pending<'a, Result<Box<dyn Reached>, Trouble>> {
        Box::pin(async {
            let stream = way::open(&*self.dial, account).await?;
            let (connection, left) = (Connection::new(stream), self.left.clone());
            Ok(Box::new(AtTheHub { connection, left }) as Box<dyn Reached>)
        })
    }

    /// Its connection may have ended without the hub's hearing of it, as by a power cut.
    fn note_crash(&self, account: &Account, device: &str, crash: Crash) {
        let Hub { host, keepalive, .. } = &account.access.hub;
        self.left.note(&Recipient::of(host, device), Some(crash.begun + lock::until_noticed(*keepalive)));
    }

    fn locked_until(&self, account: &Account, device: &str) -> Option<Instant> {
        match account.transport {
            // The hub ends the connection before for the next one, and frees what it held for it.
            TransportKind::Mqtt | TransportKind::MqttWs => None,
            _ => self.left.until(&Recipient::of(&account.access.hub.host, device)),
        }
    }

    fn rest(&self) -> Rest {
        self.left.rest(Rest::ForOthers)
    }
}

/// The hub is reached.
struct AtTheHub {
    connection: Connection,
    left: Arc<Left>,
}

impl Reached for AtTheHub {
    fn attach<'a>(self: Box<Self>, entry: Entry<'a>) -> Pending<'a, Result<Box<dyn Attachment>, Trouble>> {
        Box::pin(async move {
            let Entry { hub, device, token, is_to_stay, hears_desired, .. } = entry;
            let login = Login::of(hub, device, token.unwrap_or_default());
            let mut attached = Attached::new(*self, hub, device);
            attached.hears_desired = hears_desired;
            attached.enter(&login, is_to_stay).await?;
            crash::point(Point::LoginAccepted);
            Ok(Box::new(attached) as Box<dyn Attachment>)
        })
    }
}

/// A connection on which the hub has let an identity in.
struct Attached {
    device: String,
    connection: Connection,
    was_known: bool,
    session: Session,
    ping: Ping,
    /// The events on the wire, by packet id.
    published: HashMap<u16, i64>,
    last_packet_id: u16,
    keepalive: Duration,
    /// Changes of what is desired are to be told.
    hears_desired: bool,
    /// The hub answers for the device's twin.
    has_twin: bool,
    /// For all that is known the hub has it, and hands out messages to it.
    is_served: bool,
    /// One came that is settled by nobody here.
    leaves_one: bool,
    /// Until when what connections before have left may be held: it need not have come yet.
    inherited: Option<Instant>,
    left: Arc<Left>,
    recipient: Recipient,
}

impl Attached {
    fn new(reached: AtTheHub, hub: &Hub, device: &str) -> Attached {
        let AtTheHub { connection, left } = reached;
        Attached {
            device: device.to_owned(),
            connection,
            was_known: false,
            session: Session::default(),
            ping: Ping::new(hub.keepalive),
            published: HashMap::new(),
            last_packet_id: SUBSCRIBE_PACKET_ID,
            keepalive: hub.keepalive,
            hears_desired: false,
            has_twin: false,
            is_served: false,
            leaves_one: false,
            inherited: None,
            left,
            recipient: Recipient::of(&hub.host, device),
        }
    }

    /// Shows the identity.
    async fn enter(&mut self, login: &Login, is_to_stay: bool) -> Result<(), Trouble> {
        self.is_served = true;
        match is_to_stay {
            true => self.connection.connect(login).await?,
            false => self.connection.connect_and_forget(login).await?,
        }
        crash::point(Point::LoginSent);
        match self.receive_one().await? {
            Received::ConnAck { code: 0, session_present } => self.was_known = session_present,
            Received::ConnAck { code, .. } => {
                self.is_served = false;
                return Err(Trouble::Refused(code));
            }
            _ => return Err(Trouble::Protocol("something before CONNACK".into())),
        }
        // What the connection before held is this one's.
        self.inherited = self.left.take(&self.recipient);
        self.ping = Ping::new(self.keepalive);
        Ok(())
    }

    /// The next packet. A hub that ends the connection holds nothing for it any more.
    async fn receive_one(&mut self) -> Result<Received, Trouble> {
        let received = self.connection.next().await;
        self.is_served &= received != Err(Trouble::Closed);
        received
    }

    async fn next_inbound(&mut self) -> Result<Inbound, Trouble> {
        loop {
            let received = self.receive_one().await?;
            self.ping.heard();
            if let Some(inbound) = self.on_received(received)? {
                return Ok(inbound);
            }
        }
    }

    /// What a packet is to the identity, if anything.
    fn on_received(&mut self, received: Received) -> Result<Option<Inbound>, Trouble> {
        match received {
            Received::Publish { qos, packet_id, topic, payload } => self.on_publish(qos, packet_id, &topic, &payload),
            Received::PubAck(packet_id) => Ok(self.published.remove(&packet_id).map(Inbound::Published)),
            Received::SubAck { granted: true, grants_calls, grants_twin } => {
                crash::point(Point::SubscriptionGranted);
                self.has_twin = grants_twin;
                if !grants_calls {
                    tracing::debug!(device = %self.device, "the hub passes no calls of direct methods on");
                }
                Ok(Some(Inbound::Ready))
            }
            Received::SubAck { granted: false, .. } => Err(Trouble::NotGranted),
            Received::PingResp => {
                self.ping.answered();
                Ok(None)
            }
            Received::ConnAck { .. } => Err(Trouble::Protocol("a second CONNACK".into())),
            Received::Unexpected(what) => Err(Trouble::Protocol(what.into())),
        }
    }

    fn on_publish(
        &mut self,
        qos: u8,
        packet_id: u16,
        topic: &[u8],
        payload: &[u8],
    ) -> Result<Option<Inbound>, Trouble> {
        crash::point(Point::PublishRead);
        let device = &self.device;
        // With another QoS it is none, and a message of nobody's.
        if let Some(called) = topic::called(topic).filter(|_| qos == 0) {
            let Ok((rid, name)) = called else {
                // Nobody knows whom to answer, and its caller gives up by itself.
                tracing::debug!(device = %device, topic = %topic[..topic.len().min(120)].escape_ascii(), "a call that can't be answered");
                return Ok(None);
            };
            let method = Method { name, payload: payload.to_vec(), unread: None };
            return Ok(Some(Inbound::Call { call: CallId(rid.into()), method }));
        }
        if let Some(about) = topic::about_twin(topic).filter(|_| qos == 0) {
            let body = payload.to_vec();
            return Ok(about.map(|about| {
                Inbound::Twin(match about {
                    AboutTwin::Answer { number, status } => TwinWord::Answer(TwinAnswer { number, status, body }),
                    AboutTwin::Changed => TwinWord::Changed(body),
                })
            }));
        }
        let number = match qos {
            1 => match self.session.on_publish(packet_id, session::digest(topic, payload)) {
                Incoming::New(number) => Some(number),
                Incoming::Repeated => return Ok(None),
                Incoming::Drop(why) => {
                    self.leaves_one = true;
                    return Ok(Some(Inbound::Unclear { message: topic::parse_c2d(device, topic, payload), why }));
                }
            },
            // The hub has forgotten this message already. It is run all the same: nobody else will.
            0 => {
                tracing::error!(device = %device, "the hub delivered a command with QoS 0, and can't be told what became of it");
                None
            }
            _ => return Err(Trouble::Protocol("a PUBLISH with QoS 2".into())),
        };
        Ok(Some(Inbound::Delivery { number, message: topic::parse_c2d(device, topic, payload) }))
    }

    /// Acknowledges what is settled in one write. MQTT has no word for leaving a delivery: the connection is dropped.
    async fn tell(&mut self, settlements: Vec<Settlement>) -> Result<bool, Trouble> {
        let mut ready = Vec::new();
        let mut abandoned = false;
        for settlement in settlements {
            match settlement {
                // MQTT can't say that a message is refused: it is completed, and the result event says why.
                Settlement::Complete(number) | Settlement::Reject(number) => {
                    ready.extend(self.session.on_complete(number))
                }
                Settlement::Abandon(_) | Settlement::Leave(_) => abandoned = true,
            }
        }
        if !ready.is_empty() {
            crash::point(Point::SettlementTaken);
            self.connection.acknowledge(&ready).await?;
        }
        if abandoned {
            return Err(Trouble::Abandoned);
        }
        Ok(!ready.is_empty())
    }

    fn free_packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(SUBSCRIBE_PACKET_ID + 1);
            if !self.published.contains_key(&self.last_packet_id) {
                return self.last_packet_id;
            }
        }
    }

    /// Says goodbye, and hears out what comes before the hub closes, which shows that it has heard it. Of one that does
    /// not answer to a ping nothing is waited for.
    async fn say_goodbye(&mut self) -> Vec<Message> {
        let mut came = Vec::new();
        let is_dead = self.ping.is_overdue() && self.ping.next() <= Instant::now();
        let is_said = self.connection.disconnect().await.is_ok();
        if is_said && self.is_served && !is_dead {
            self.hear_out(&mut came).await;
        }
        self.connection.close().await;
        came
    }

    /// Waits until the hub closes, and takes what comes before that.
    async fn hear_out(&mut self, came: &mut Vec<Message>) {
        let end = async {
            while came.len() < WINDOW_MAX {
                match self.connection.next().await {
                    Ok(Received::Publish { topic, payload, .. }) => {
                        let message = topic::parse_c2d(&self.device, &topic, &payload);
                        came.push(Message { came: Some(Instant::now().into_std()), ..message });
                    }
                    Ok(_) => {}
                    // What is between may reset it as well, of which the hub hears nothing.
                    Err(trouble) => return trouble == Trouble::Closed,
                }
            }
            false
        };
        self.is_served = !timeout(FAREWELL_PATIENCE, end).await.unwrap_or(false);
        self.leaves_one |= !came.is_empty();
    }

    /// Until when the hub may keep something locked for other transports, if the connection ends now.
    fn locked_until(&self) -> Option<Instant> {
        let held = match (self.is_served, self.leaves_one || self.session.waiting() > 0) {
            (true, _) => Some(lock::until_noticed(self.keepalive)),
            // The next connection of MQTT's gets it at once. No document says that another transport does. However long
            // ago it came, the hub may have sent it again right now, when its lock had run out.
            (false, true) => Some(lock::time()),
            (false, false) => None,
        };
        held.map(|held| Instant::now() + held).max(self.inherited)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Some(until) = self.locked_until() {
            self.left.note(&self.recipient, Some(until));
        }
    }
}

impl Attachment for Attached {
    fn was_known(&self) -> bool {
        self.was_known
    }

    fn receive(&mut self) -> Pending<'_, Result<(), Trouble>> {
        Box::pin(async {
            let once = [topic::CALLS, topic::TWIN, topic::DESIRED];
            let once = if self.hears_desired { &once[..] } else { &once[..2] };
            self.connection.subscribe(&topic::c2d_filter(&self.device), once).await
        })
    }

    fn next(&mut self) -> Pending<'_, Result<Inbound, Trouble>> {
        Box::pin(self.next_inbound())
    }

    fn keep_alive_at(&self) -> Instant {
        self.ping.next()
    }

    fn keep_alive(&mut self) -> Pending<'_, Result<(), Trouble>> {
        Box::pin(async {
            if self.ping.is_overdue() {
                return Err(Trouble::HalfOpen);
            }
            self.ping.sent();
            self.connection.ping().await
        })
    }

    fn settle(&mut self, settlements: Vec<Settlement>) -> Pending<'_, Result<bool, Trouble>> {
        Box::pin(self.tell(settlements))
    }

    fn answer(&mut self, answered: Answered) -> Pending<'_, Result<(), Trouble>> {
        let Answered { call, answer } = answered;
        Box::pin(self.connection.publish_once(topic::answer(answer.status, &call.0), answer.body))
    }

    fn has_twin(&self) -> bool {
        self.has_twin
    }

    fn ask_twin(&mut self, request: TwinRequest) -> Pending<'_, Result<(), Trouble>> {
        let TwinRequest { number, patch } = request;
        let topic = topic::twin_request(number, patch.is_some());
        Box::pin(self.connection.publish_once(topic, patch.unwrap_or_default()))
    }

    fn publish(&mut self, event: Event) -> Pending<'_, Result<(), Trouble>> {
        let Event { kind, seq, id, message_id, body } = event;
        let packet_id = self.free_packet_id();
        self.published.insert(packet_id, seq);
        let topic = topic::event(&self.device, kind, &id, message_id.as_deref());
        Box::pin(self.connection.publish(topic, packet_id, body))
    }

    fn can_reject(&self) -> bool {
        false
    }

    fn unsettled(&self) -> usize {
        self.session.waiting()
    }

    fn oldest(&self) -> Option<u64> {
        self.session.oldest()
    }

    fn detach(mut self: Box<Self>) -> Pending<'static, Vec<Message>> {
        Box::pin(async move { self.say_goodbye().await })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::super::tests::account;
    use super::*;
    use crate::hub::dial::Dialing;
    use crate::ledger::row::EventKind;
    use crate::net::Stream;

    /// Dials a stream that is no TCP: the near end of a pair of Unix sockets.
    struct Local(std::sync::Mutex<Option<UnixStream>>);

    impl Dial for Local {
        fn dial<'a>(&'a self, _: &'a str) -> Dialing<'a> {
            let stream = self.0.lock().unwrap().take();
            Box::pin(async { Ok(Box::new(stream.ok_or(Trouble::Closed)?) as Box<dyn Stream>) })
        }
    }

    /// The next bytes are these.
    async fn hear(far: &mut UnixStream, expected: &[u8]) {
        let mut heard = vec![0; expected.len()];
        far.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, expected, "{}", heard.escape_ascii());
    }

    /// The next packet, whatever it says.
    async fn hear_any(far: &mut UnixStream) -> u8 {
        let mut head = [0; 2];
        far.read_exact(&mut head).await.unwrap();
        let mut length = usize::from(head[1] & 0x7f);
        if head[1] & 0x80 != 0 {
            length += usize::from(far.read_u8().await.unwrap()) << 7;
        }
        far.read_exact(&mut vec![0; length]).await.unwrap();
        head[0] >> 4
    }

    const C2D_TOPIC: &[u8] = b"devices/d/messages/devicebound/%24.mid=m";

    fn publish(packet_id: u8, body: u8) -> Vec<u8> {
        let length = 2 + C2D_TOPIC.len() + 2 + 1;
        let head = [0x32, length as u8, 0, C2D_TOPIC.len() as u8];
        [&head[..], C2D_TOPIC, &[0, packet_id, body]].concat()
    }

    async fn attach(far: &mut UnixStream, near: UnixStream, was_known: bool) -> Box<dyn Attachment> {
        let (account, transport) = (account(), Mqtt::over(Arc::new(Local(std::sync::Mutex::new(Some(near))))));
        let reached = transport.reach(&account).await.unwrap();
        let entry = Entry {
            hub: &account.access.hub,
            device: "d",
            token: Some("token".into()),
            is_to_stay: true,
            wants_messages: true,
            hears_desired: false,
            settle: account.settle,
            note_late: Arc::new(drop),
        };
        let hub = async {
            assert_eq!(hear_any(far).await, 1, "CONNECT");
            far.write_all(&[0x20, 2, u8::from(was_known), 0]).await.unwrap();
        };
        tokio::join!(reached.attach(entry), hub).0.unwrap()
    }

    #[tokio::test]
    async fn an_identity_lives_on_a_stream_that_is_no_tcp_and_sees_no_packet_id() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut attachment = attach(&mut far, near, true).await;
        assert!(attachment.was_known());
        attachment.receive().await.unwrap();
        assert_eq!(hear_any(&mut far).await, 8, "SUBSCRIBE");
        far.write_all(&[0x90, 3, 0, 1, 1]).await.unwrap();
        assert!(matches!(attachment.next().await, Ok(Inbound::Ready)));

        // Two deliveries, the first of them repeated; the second is settled first, and waits for the other (G5).
        far.write_all(&[publish(9, b'a'), publish(9, b'a'), publish(4, b'b')].concat()).await.unwrap();
        for (expected, body) in [(1, b'a'), (2, b'b')] {
            let Ok(Inbound::Delivery { number, message }) = attachment.next().await else { panic!("a delivery came") };
            assert_eq!((number, message.id.as_deref(), &message.body[..]), (Some(expected), Some("m"), &[body][..]));
        }
        assert_eq!((attachment.unsettled(), attachment.oldest()), (2, Some(1)));
        assert!(!attachment.settle(vec![Settlement::Reject(2)]).await.unwrap());
        assert!(attachment.settle(vec![Settlement::Complete(1)]).await.unwrap());
        hear(&mut far, &[0x40, 2, 0, 9, 0x40, 2, 0, 4]).await;
        assert_eq!((attachment.unsettled(), attachment.oldest()), (0, None));

        for seq in [70_000, 70_001] {
            let event = Event { kind: EventKind::Result, seq, id: "e".into(), message_id: None, body: "{}".into() };
            attachment.publish(event).await.unwrap();
            assert_eq!(hear_any(&mut far).await, 3, "PUBLISH");
        }
        // One that nobody sent, and the second before the first.
        far.write_all(&[0x40, 2, 0, 77, 0x40, 2, 0, 3, 0x40, 2, 0, 2]).await.unwrap();
        for expected in [70_001, 70_000] {
            assert!(matches!(attachment.next().await, Ok(Inbound::Published(seq)) if seq == expected));
        }
        attachment.detach().await;
        hear(&mut far, &[0xe0, 0]).await;
    }

    #[tokio::test]
    async fn a_call_is_answered_under_its_request_id_and_one_that_names_none_is_passed_over() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut attachment = attach(&mut far, near, true).await;
        attachment.receive().await.unwrap();
        let filters =
            b"\0\x20devices/d/messages/devicebound/#\x01\0\x16$iothub/methods/POST/#\0\0\x12$iothub/twin/res/#\0";
        hear(&mut far, &[&[0x82, 2 + filters.len() as u8, 0, 1], &filters[..]].concat()).await;
        // Whoever passes no calls on passes messages on all the same.
        far.write_all(&[0x90, 4, 0, 1, 1, 0x80]).await.unwrap();
        assert!(matches!(attachment.next().await, Ok(Inbound::Ready)));

        let called = |topic: &[u8], payload: &[u8]| {
            let head = [0x30, (2 + topic.len() + payload.len()) as u8, 0, topic.len() as u8];
            [&head[..], topic, payload].concat()
        };
        far.write_all(&called(b"$iothub/methods/POST/set/", b"1")).await.unwrap();
        far.write_all(&called(b"$iothub/methods/POST/set/?$rid=7f", b"42")).await.unwrap();
        let Ok(Inbound::Call { call, method }) = attachment.next().await else { panic!("a call came") };
        assert_eq!(method, Method { name: "set".into(), payload: b"42".to_vec(), unread: None });
        let answer = crate::command::Answer { status: 200, body: "{}".into() };
        attachment.answer(Answered { call, answer }).await.unwrap();
        hear(&mut far, &called(b"$iothub/methods/res/200/?$rid=7f", b"{}")).await;
        assert_eq!(attachment.unsettled(), 0);
    }

    #[tokio::test]
    async fn a_delivery_is_left_with_the_hub_by_ending_the_attachment() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut attachment = attach(&mut far, near, false).await;
        assert!(!attachment.was_known());
        far.write_all(&[publish(1, b'a'), publish(2, b'b')].concat()).await.unwrap();
        for _ in 0..2 {
            assert!(matches!(attachment.next().await, Ok(Inbound::Delivery { .. })));
        }
        // What is settled before is told still.
        let settled = attachment.settle(vec![Settlement::Complete(1), Settlement::Abandon(2)]).await;
        assert_eq!(settled, Err(Trouble::Abandoned));
        hear(&mut far, &[0x40, 2, 0, 1]).await;
    }
}
