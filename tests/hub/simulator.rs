//! The hub simulator's own rules, seen from a client that is scripted packet by packet.

mod amqp;
mod faults;
mod https;
mod methods;
mod twins;
mod websocket;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fieldbridge::demo::hub::{
    Ack, C2d, ClientCert, Cut, Discarded, Effect, End, Late, Options, OutOfOrder, PacketIds, Redelivery, SendError,
    SimHub, Status, Wire,
};
use futures_util::{SinkExt, StreamExt};
use rumqttc::{Codec, ConnAck, Connect, Packet, PubAck, Publish, QoS, Subscribe, Unsubscribe};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{client::TlsStream, rustls, TlsConnector};
use tokio_util::codec::Framed;
use tokio_util::either::Either;

/// No test waits longer for what must happen.
const LIMIT: Duration = Duration::from_secs(10);
/// What must not happen is given so long; too short could only let a mistake pass.
const QUIET: Duration = Duration::from_millis(80);
/// A lock that runs out within a test.
const SHORT_LOCK: Duration = Duration::from_millis(60);

type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

struct Client(Framed<Stream, Codec>);

fn codec() -> Codec {
    Codec { max_incoming_size: 1 << 20, max_outgoing_size: 1 << 20 }
}

impl Client {
    async fn open(hub: &SimHub) -> Client {
        let tcp = TcpStream::connect(hub.addr()).await.unwrap();
        Client(Framed::new(Either::Left(tcp), codec()))
    }

    async fn open_tls(hub: &SimHub, cert: Option<&ClientCert>) -> io::Result<Client> {
        Ok(Client(Framed::new(Either::Right(Box::new(tls(hub, hub.addr(), cert).await?)), codec())))
    }

    async fn send(&mut self, packet: Packet) {
        self.0.send(packet).await.unwrap();
    }

    async fn send_raw(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).await.unwrap();
        self.0.get_mut().flush().await.unwrap();
    }

    /// The next bytes, whatever they are.
    async fn raw(&mut self, count: usize) -> Vec<u8> {
        let buffered = self.0.read_buffer().len().min(count);
        let mut bytes = self.0.read_buffer_mut().split_to(buffered).to_vec();
        bytes.resize(count, 0);
        let rest = self.0.get_mut().read_exact(&mut bytes[buffered..]);
        timeout(LIMIT, rest).await.expect("so many bytes").unwrap();
        bytes
    }

    async fn next(&mut self) -> Option<Packet> {
        timeout(LIMIT, self.0.next()).await.expect("a packet or the end").and_then(Result::ok)
    }

    async fn is_closed(&mut self) {
        assert_eq!(self.next().await, None);
    }

    async fn is_quiet(&mut self) {
        if let Ok(packet) = timeout(QUIET, self.0.next()).await {
            panic!("{packet:?} in place of silence");
        }
    }

    async fn connack(&mut self) -> ConnAck {
        match self.next().await {
            Some(Packet::ConnAck(connack)) => connack,
            other => panic!("{other:?} in place of CONNACK"),
        }
    }

    /// The next delivery: packet id and body.
    async fn delivery(&mut self) -> (u16, String) {
        let publish = self.publish().await;
        (publish.pkid, String::from_utf8(publish.payload.to_vec()).unwrap())
    }

    async fn publish(&mut self) -> Publish {
        match self.next().await {
            Some(Packet::Publish(publish)) => publish,
            other => panic!("{other:?} in place of PUBLISH"),
        }
    }

    async fn puback(&mut self, pkid: u16) {
        self.send(Packet::PubAck(PubAck::new(pkid))).await;
    }

    async fn subscribe(&mut self, filter: &str, qos: QoS) {
        let mut subscribe = Subscribe::new(filter, qos);
        subscribe.pkid = 9;
        self.send(Packet::Subscribe(subscribe)).await;
    }

    async fn telemetry(&mut self, topic: &str, qos: QoS) {
        let mut publish = Publish::new(topic, qos, "t");
        publish.pkid = 7;
        self.send(Packet::Publish(publish)).await;
    }

    /// Waits until the hub has acted on everything sent so far.
    async fn settled(&mut self) {
        self.send(Packet::PingReq).await;
        assert_eq!(self.next().await, Some(Packet::PingResp));
    }
}

async fn tls(hub: &SimHub, address: SocketAddr, cert: Option<&ClientCert>) -> io::Result<TlsStream<TcpStream>> {
    use rustls::pki_types::{pem::PemObject, CertificateDer, PrivateKeyDer, ServerName};
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(der(&hub.ca_pem())).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots);
    let config = match cert {
        Some(cert) => {
            let key = PrivateKeyDer::from_pem_slice(cert.key_pem.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![der(&cert.cert_pem)], key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from(hub.host()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

async fn hub(change: impl FnOnce(&mut Options)) -> SimHub {
    let mut options = Options { tls: false, ..Options::default() };
    change(&mut options);
    let hub = SimHub::start(options).await.unwrap();
    hub.add_key_device("d");
    hub
}

fn connect_packet(hub: &SimHub, device: &str, clean_session: bool) -> Connect {
    let mut connect = Connect::new(device);
    connect.clean_session = clean_session;
    connect.keep_alive = 60;
    let user = format!("{}/{device}/?api-version=2021-04-12", hub.host());
    connect.set_login(user, hub.token(device, 3600).unwrap_or_default());
    connect
}

async fn connected(hub: &SimHub) -> Client {
    let mut client = Client::open(hub).await;
    client.send(Packet::Connect(connect_packet(hub, "d", false))).await;
    assert_eq!(client.connack().await.code as u8, 0);
    client
}

const FILTER: &str = "devices/d/messages/devicebound/#";

async fn subscribed(hub: &SimHub) -> Client {
    let mut client = connected(hub).await;
    client.subscribe(FILTER, QoS::AtLeastOnce).await;
    assert!(matches!(client.next().await, Some(Packet::SubAck(_))));
    client
}

fn statuses(hub: &SimHub) -> Vec<(String, Status)> {
    let id = |feedback: &fieldbridge::demo::hub::Feedback| feedback.original_message_id.clone().unwrap();
    hub.feedback().iter().map(|feedback| (id(feedback), feedback.status)).collect()
}

fn effects(hub: &SimHub) -> Vec<Effect> {
    let effect = |event: fieldbridge::demo::hub::WireEvent| match event.what {
        Wire::Puback { effect, .. } => Some(effect),
        _ => None,
    };
    hub.wire().into_iter().filter_map(effect).collect()
}

async fn ends_by(hub: &SimHub, end: End) {
    let is_it = |event: &fieldbridge::demo::hub::WireEvent| event.what == Wire::Closed { end: end.clone() };
    hub.wait_wire(1, LIMIT, is_it).await.unwrap();
}

#[tokio::test]
async fn every_failure_at_connect_is_not_authorized_and_the_end() {
    let hub = hub(|_| {}).await;
    hub.add_key_device("disabled");
    hub.set_enabled("disabled", false);
    let good = connect_packet(&hub, "d", false);
    let login = |password: Option<String>| {
        let mut connect = good.clone();
        let user = connect.login.clone().unwrap().username;
        connect.login = None;
        connect.set_login(user, password.unwrap_or_default());
        connect
    };
    let mut foreign = good.clone();
    foreign.client_id = "other".into();
    let mut nameless = good.clone();
    nameless.login = None;
    for wrong in [
        foreign,
        nameless,
        login(None),
        login(hub.token("d", -400)),
        login(hub.token("disabled", 3600)),
        connect_packet(&hub, "unknown", false),
        connect_packet(&hub, "disabled", false),
    ] {
        let mut client = Client::open(&hub).await;
        client.send(Packet::Connect(wrong)).await;
        assert_eq!(client.connack().await.code as u8, 5);
        client.is_closed().await;
    }
    let mut client = Client::open(&hub).await;
    client.send(Packet::Connect(login(hub.token("d", -200)))).await;
    assert_eq!(client.connack().await.code as u8, 0, "the clock may be off by five minutes");
}

#[tokio::test]
async fn a_second_connection_ends_the_first_without_a_word() {
    let hub = hub(|_| {}).await;
    let mut first = subscribed(&hub).await;
    let mut second = connected(&hub).await;
    first.is_closed().await;
    ends_by(&hub, End::Kicked).await;
    hub.send("d", C2d::new("m", "body")).unwrap();
    assert_eq!(second.delivery().await.1, "body");
}

#[tokio::test]
async fn messages_before_the_first_subscription_are_discarded() {
    for (discarded, heard) in [(Discarded::Silently, 0), (Discarded::Rejected, 1)] {
        let hub = hub(|options| options.discarded = discarded).await;
        hub.send("d", C2d::new("early", "").ack(Ack::Full)).unwrap();
        assert_eq!(hub.queue_len("d"), 0);
        let mut client = subscribed(&hub).await;
        client.is_quiet().await;
        assert_eq!(statuses(&hub).len(), heard);
    }
}

#[tokio::test]
async fn a_session_is_served_before_it_subscribes_again() {
    let hub = hub(|_| {}).await;
    drop(subscribed(&hub).await);
    ends_by(&hub, End::Gone).await;
    hub.send("d", C2d::new("m", "offline")).unwrap();
    let mut client = Client::open(&hub).await;
    client.send(Packet::Connect(connect_packet(&hub, "d", false))).await;
    assert!(client.connack().await.session_present);
    assert_eq!(client.delivery().await.1, "offline");
}

#[tokio::test]
async fn a_clean_session_loses_the_queue_and_the_subscription() {
    let hub = hub(|_| {}).await;
    drop(subscribed(&hub).await);
    ends_by(&hub, End::Gone).await;
    hub.send("d", C2d::new("m", "")).unwrap();
    let mut client = Client::open(&hub).await;
    client.send(Packet::Connect(connect_packet(&hub, "d", true))).await;
    assert!(!client.connack().await.session_present);
    assert_eq!(hub.queue_len("d"), 0);
    assert!(!hub.is_subscribed("d"));
    client.subscribe(FILTER, QoS::AtLeastOnce).await;
    client.next().await;
    client.send(Packet::Disconnect).await;
    ends_by(&hub, End::Disconnect).await;
    assert!(!hub.is_subscribed("d"), "a clean session's subscription ends with it");
}

#[tokio::test]
async fn unsubscribing_ends_delivery_and_discards_the_queue() {
    let hub = hub(|_| {}).await;
    let mut client = subscribed(&hub).await;
    hub.send("d", C2d::new("m", "unsettled")).unwrap();
    client.delivery().await;
    let mut unsubscribe = Unsubscribe::new(FILTER);
    unsubscribe.pkid = 3;
    client.send(Packet::Unsubscribe(unsubscribe)).await;
    assert!(matches!(client.next().await, Some(Packet::UnsubAck(_))));
    assert_eq!(hub.queue_len("d"), 0);
    hub.send("d", C2d::new("late", "")).unwrap();
    client.is_quiet().await;
}

#[tokio::test]
async fn a_puback_completes_and_feedback_goes_to_who_asked() {
    let hub = hub(|_| {}).await;
    let mut client = subscribed(&hub).await;
    let acks = [Ack::None, Ack::Positive, Ack::Negative, Ack::Full];
    for ack in acks {
        hub.send("d", C2d::new(ack.as_str(), "").ack(ack)).unwrap();
    }
    for _ in acks {
        let (pkid, _) = client.delivery().await;
        client.puback(pkid).await;
    }
    client.settled().await;
    assert_eq!(hub.queue_len("d"), 0);
    let success = |id: &str| (id.to_owned(), Status::Success);
    assert_eq!(statuses(&hub), [success("positive"), success("full")]);
    for ack in acks {
        hub.send("d", C2d::new(ack.as_str(), "").ack(ack)).unwrap();
    }
    assert_eq!(hub.purge("d"), 4);
    let purged = |id: &str| (id.to_owned(), Status::Purged);
    assert_eq!(statuses(&hub)[2..], [purged("negative"), purged("full")]);
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_on_the_next_connection() {
    for dup in [false, true] {
        let hub = hub(|options| options.dup = dup).await;
        let mut client = subscribed(&hub).await;
        for id in ["1", "2", "3"] {
            hub.send("d", C2d::new(id, id)).unwrap();
        }
        for _ in 0..3 {
            assert!(!client.publish().await.dup);
        }
        client.puback(2).await;
        client.settled().await;
        hub.cut("d", Cut::Fin);
        client.is_closed().await;
        let mut client = connected(&hub).await;
        let again = [client.publish().await, client.publish().await];
        assert_eq!(again.clone().map(|publish| publish.payload), ["1", "3"]);
        assert_eq!(again.clone().map(|publish| publish.pkid), [1, 2], "other ids than before");
        assert_eq!(again.map(|publish| publish.dup), [dup, dup]);
    }
}

#[tokio::test]
async fn a_lock_may_outlive_its_connection() {
    let hub = hub(|options| {
        options.lock_outlives_connection = true;
        options.lock = Duration::from_millis(800);
    })
    .await;
    let mut client = subscribed(&hub).await;
    hub.send("d", C2d::new("m", "m")).unwrap();
    client.delivery().await;
    hub.cut("d", Cut::Reset);
    let mut client = connected(&hub).await;
    client.is_quiet().await;
    assert_eq!(client.delivery().await.1, "m");
}

#[tokio::test]
async fn a_lock_that_ran_out_is_followed_as_the_switch_says() {
    for redelivery in [Redelivery::SameConnection, Redelivery::OnReconnect, Redelivery::Never] {
        let hub = hub(|options| {
            options.redelivery = redelivery;
            options.lock = SHORT_LOCK;
        })
        .await;
        let mut client = subscribed(&hub).await;
        hub.send("d", C2d::new("m", "m")).unwrap();
        client.delivery().await;
        match redelivery {
            Redelivery::SameConnection => assert_eq!(client.delivery().await, (2, "m".into())),
            _ => client.is_quiet().await,
        }
        let mut client = connected(&hub).await;
        match redelivery {
            Redelivery::Never => client.is_quiet().await,
            _ => assert_eq!(client.delivery().await, (1, "m".into())),
        }
        assert_eq!(hub.queue_len("d"), 1);
    }
}

#[tokio::test]
async fn a_late_puback_completes_nothing() {
    for late in [Late::Ignore, Late::Close] {
        let hub = hub(|options| {
            options.late = late;
            options.lock = SHORT_LOCK;
        })
        .await;
        let mut client = subscribed(&hub).await;
        hub.send("d", C2d::new("m", "m")).unwrap();
        let (pkid, _) = client.delivery().await;
        client.is_quiet().await;
        client.puback(pkid).await;
        match late {
            Late::Ignore => client.settled().await,
            Late::Close => client.is_closed().await,
        }
        assert_eq!(effects(&hub), [Effect::Late]);
        assert_eq!(hub.queue_len("d"), 1);
        assert_eq!(connected(&hub).await.delivery().await.1, "m");
    }
}

#[tokio::test]
async fn a_puback_for_the_first_of_two_deliveries_on_one_connection_is_late() {
    let hub = hub(|options| {
        options.redelivery = Redelivery::SameConnection;
        options.lock = Duration::from_millis(600);
    })
    .await;
    let mut client = subscribed(&hub).await;
    hub.send("d", C2d::new("m", "m")).unwrap();
    assert_eq!(client.delivery().await.0, 1);
    assert_eq!(client.delivery().await.0, 2);
    client.puback(1).await;
    client.puback(2).await;
    client.settled().await;
    assert_eq!(effects(&hub), [Effect::Late, Effect::Completed]);
    assert_eq!(hub.queue_len("d"), 0);
}

#[tokio::test]
async fn the_window_bounds_what_is_in_flight() {
    let hub = hub(|options| options.window = 2).await;
    let mut client = subscribed(&hub).await;
    for id in ["1", "2", "3"] {
        hub.send("d", C2d::new(id, id)).unwrap();
    }
    assert_eq!(client.delivery().await, (1, "1".into()));
    assert_eq!(client.delivery().await, (2, "2".into()));
    client.is_quiet().await;
    client.puback(1).await;
    assert_eq!(client.delivery().await, (3, "3".into()));
}

#[tokio::test]
async fn a_puback_out_of_order_is_taken_as_the_switch_says() {
    for switch in [OutOfOrder::Accept, OutOfOrder::Ignore, OutOfOrder::Close] {
        let hub = hub(|options| options.out_of_order = switch).await;
        let mut client = subscribed(&hub).await;
        hub.send("d", C2d::new("1", "")).unwrap();
        hub.send("d", C2d::new("2", "")).unwrap();
        client.delivery().await;
        client.delivery().await;
        client.puback(2).await;
        let left = match switch {
            OutOfOrder::Accept => 1,
            OutOfOrder::Ignore | OutOfOrder::Close => 2,
        };
        match switch {
            OutOfOrder::Close => client.is_closed().await,
            OutOfOrder::Accept | OutOfOrder::Ignore => client.settled().await,
        }
        assert_eq!(hub.queue_len("d"), left);
    }
}

#[tokio::test]
async fn packet_ids_follow_the_scheme() {
    let schemes = [
        (PacketIds::PerConnection, [1, 2, 3, 4]),
        (PacketIds::Sequence, [2, 3, 4, 5]),
        (PacketIds::LowestFree, [1, 2, 3, 2]),
    ];
    for (scheme, expected) in schemes {
        let hub = hub(|options| {
            options.packet_ids = scheme;
            options.window = 3;
        })
        .await;
        let mut client = subscribed(&hub).await;
        let mut seen = [0; 4];
        for id in &mut seen[..3] {
            hub.send("d", C2d::new("m", "")).unwrap();
            *id = client.delivery().await.0;
        }
        hub.send("d", C2d::new("m", "")).unwrap();
        client.puback(seen[1]).await;
        seen[3] = client.delivery().await.0;
        assert_eq!(seen, expected, "{scheme:?}");
    }
}

#[tokio::test]
async fn a_puback_of_an_unknown_packet_is_ignored_and_seen_in_the_log() {
    let hub = hub(|_| {}).await;
    let mut client = subscribed(&hub).await;
    hub.send("d", C2d::new("m", "")).unwrap();
    client.delivery().await;
    client.puback(77).await;
    client.settled().await;
    assert_eq!(effects(&hub), [Effect::Unknown]);
    assert_eq!(hub.queue_len("d"), 1);
}

#[tokio::test]
async fn the_sender_is_told_what_the_hub_does_not_take() {
    let hub = hub(|_| {}).await;
    subscribed(&hub).await;
    let send = |message| hub.send("d", message);
    assert_eq!(hub.send("x", C2d::new("m", "")), Err(SendError::UnknownDevice));
    let large = send(C2d::new("m", vec![0; 64 * 1024]));
    assert_eq!(large, Err(SendError::TooLarge(65_537)));
    let long = send(C2d::new("m", "").property("p", "%".repeat(30_000)));
    assert_eq!(long, Err(SendError::TopicTooLong));
    let eternal = send(C2d::new("m", "").ttl(Duration::from_secs(200_000)));
    assert_eq!(eternal, Err(SendError::TtlTooLong));
    for _ in 0..50 {
        send(C2d::new("m", "")).unwrap();
    }
    assert_eq!(send(C2d::new("m", "")), Err(SendError::QueueFull));
}

#[tokio::test]
async fn a_message_expires_in_the_queue_even_when_it_is_in_flight() {
    let hub = hub(|_| {}).await;
    let mut client = subscribed(&hub).await;
    hub.send("d", C2d::new("m", "").ack(Ack::Full).ttl(Duration::from_millis(600))).unwrap();
    let publish = client.publish().await;
    assert!(publish.topic.contains("%24.exp="), "{}", publish.topic);
    let feedback = hub.wait_feedback(1, LIMIT).await.unwrap();
    assert_eq!(feedback[0].status, Status::Expired);
    assert_eq!(hub.queue_len("d"), 0);
    client.puback(publish.pkid).await;
    client.settled().await;
    assert_eq!(effects(&hub), [Effect::Late]);
}

#[tokio::test]
async fn feedback_is_sent_in_batches_of_64_or_after_the_interval() {
    let hub = hub(|options| {
        options.feedback_interval = Duration::from_secs(3600);
        options.discarded = Discarded::Rejected;
    })
    .await;
    for _ in 0..63 {
        hub.send("d", C2d::new("m", "").ack(Ack::Full)).unwrap();
    }
    assert_eq!(hub.feedback().len(), 0);
    hub.send("d", C2d::new("m", "").ack(Ack::Full)).unwrap();
    assert_eq!(hub.feedback().len(), 64);
    hub.send("d", C2d::new("m", "").ack(Ack::Full)).unwrap();
    assert_eq!(hub.feedback().len(), 64);
    hub.set_options(|options| options.feedback_interval = Duration::ZERO);
    hub.wait_feedback(65, LIMIT).await.unwrap();
}
