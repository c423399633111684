//! MQTT in a WebSocket: the messages' borders mean nothing, and a wrong handshake has its status.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fieldbridge::demo::hub::{Ack, C2d, End, Fault, Options, SimHub, Status, Wire};
use futures_util::{SinkExt, StreamExt};
use rumqttc::{Packet, PubAck, QoS, Subscribe};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use super::{connect_packet, LIMIT};

struct Client {
    socket: WebSocketStream<TcpStream>,
    buffer: BytesMut,
    /// Sizes of the messages that came.
    sizes: VecDeque<usize>,
}

fn encode(packet: &Packet) -> BytesMut {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, usize::MAX).unwrap();
    bytes
}

async fn open(hub: &SimHub, target: &str, protocol: &str) -> Result<WebSocketStream<TcpStream>, String> {
    let tcp = TcpStream::connect(hub.ws_addr()).await.unwrap();
    let builder = ClientBuilder::new().uri(&format!("ws://{}{target}", hub.host())).unwrap();
    let builder = builder.add_header("sec-websocket-protocol".parse().unwrap(), protocol.parse().unwrap()).unwrap();
    let (socket, answer) = builder.connect_on(tcp).await.map_err(|error| error.to_string())?;
    assert_eq!(answer.headers()["sec-websocket-protocol"], protocol);
    Ok(socket)
}

impl Client {
    async fn open(hub: &SimHub) -> Client {
        let socket = open(hub, "/$iothub/websocket?iothub-no-client-cert=true", "mqtt").await.unwrap();
        let mut client = Client { socket, buffer: BytesMut::new(), sizes: VecDeque::new() };
        client.send(encode(&Packet::Connect(connect_packet(hub, "d", false)))).await;
        assert!(matches!(client.next().await, Some(Packet::ConnAck(_))));
        client
    }

    async fn send(&mut self, bytes: impl Into<Bytes>) {
        self.socket.send(Message::binary(bytes.into())).await.unwrap();
    }

    async fn next(&mut self) -> Option<Packet> {
        loop {
            if let Ok(packet) = Packet::read(&mut self.buffer, 1 << 20) {
                return Some(packet);
            }
            let message = timeout(LIMIT, self.socket.next()).await.expect("a message or the end")?.ok()?;
            if message.is_close() {
                return None;
            }
            assert!(message.is_binary());
            self.sizes.push_back(message.as_payload().len());
            self.buffer.extend_from_slice(message.as_payload());
        }
    }

    async fn delivery(&mut self) -> (u16, Bytes) {
        match self.next().await {
            Some(Packet::Publish(publish)) => (publish.pkid, publish.payload),
            other => panic!("{other:?} in place of PUBLISH"),
        }
    }
}

async fn hub(change: impl FnOnce(&mut Options)) -> SimHub {
    super::hub(change).await
}

fn subscribe() -> BytesMut {
    let mut subscribe = Subscribe::new("devices/d/messages/devicebound/#", QoS::AtLeastOnce);
    subscribe.pkid = 9;
    encode(&Packet::Subscribe(subscribe))
}

#[tokio::test]
async fn packets_share_messages_and_span_them_both_ways() {
    let hub = hub(|options| options.websocket_bytes_max = Some(3)).await;
    let mut client = Client::open(&hub).await;
    // Two packets in a message, and then one in many.
    let mut two = subscribe();
    two.extend_from_slice(&encode(&Packet::PingReq));
    client.send(two.freeze()).await;
    assert!(matches!(client.next().await, Some(Packet::SubAck(_))));
    assert_eq!(client.next().await, Some(Packet::PingResp));
    hub.send("d", C2d::new("m", "some body").ack(Ack::Full)).unwrap();
    let (pkid, body) = client.delivery().await;
    assert_eq!(body, "some body");
    assert!(client.sizes.iter().all(|size| *size <= 3), "{:?}", client.sizes);
    for byte in encode(&Packet::PubAck(PubAck::new(pkid))) {
        client.send(vec![byte]).await;
    }
    assert_eq!(hub.wait_feedback(1, LIMIT).await.unwrap()[0].status, Status::Success);
}

#[tokio::test]
async fn pings_and_empty_messages_change_nothing_and_text_ends_it() {
    let hub = hub(|_| {}).await;
    let mut client = Client::open(&hub).await;
    client.socket.send(Message::ping("p")).await.unwrap();
    client.send(Bytes::new()).await;
    client.send(encode(&Packet::PingReq).freeze()).await;
    let pong = timeout(LIMIT, client.socket.next()).await.unwrap().unwrap().unwrap();
    assert!(pong.is_pong());
    assert_eq!(client.next().await, Some(Packet::PingResp));
    client.socket.send(Message::text("MQTT")).await.unwrap();
    assert_eq!(client.next().await, None);
    let gone = |event: &fieldbridge::demo::hub::WireEvent| matches!(event.what, Wire::Closed { end: End::Gone });
    hub.wait_wire(1, LIMIT, gone).await.unwrap();
}

#[tokio::test]
async fn another_path_or_protocol_is_refused_with_its_status() {
    let hub = hub(|_| {}).await;
    assert!(open(&hub, "/mqtt", "mqtt").await.unwrap_err().contains("404"));
    assert!(open(&hub, "/$iothub/websocket", "soap").await.unwrap_err().contains("400"));
}

#[tokio::test]
async fn a_close_frame_ends_the_connection_at_the_hub() {
    let hub = hub(|_| {}).await;
    let mut client = Client::open(&hub).await;
    assert!(hub.is_connected("d"));
    client.socket.close().await.unwrap();
    let closed = |event: &fieldbridge::demo::hub::WireEvent| matches!(event.what, Wire::Closed { .. });
    hub.wait_wire(1, LIMIT, closed).await.unwrap();
    assert!(!hub.is_connected("d"));
}

#[tokio::test]
async fn a_delivery_may_be_cut_in_its_middle_and_comes_again() {
    let hub = hub(|_| {}).await;
    let mut client = Client::open(&hub).await;
    client.send(subscribe().freeze()).await;
    assert!(matches!(client.next().await, Some(Packet::SubAck(_))));
    hub.fault("d", Fault::CutInFrame);
    hub.send("d", C2d::new("m", "x".repeat(100))).unwrap();
    assert_eq!(client.next().await, None);
    assert!((20..150).contains(&client.buffer.len()), "{}", client.buffer.len());
    let mut client = Client::open(&hub).await;
    assert_eq!(client.delivery().await.1.len(), 100);
}

#[tokio::test]
async fn a_websocket_goes_through_tls_too() {
    let hub = SimHub::start(Options::default()).await.unwrap();
    hub.add_key_device("d");
    let tls = super::tls(&hub, hub.ws_addr(), None).await.unwrap();
    let builder = ClientBuilder::new().uri(&format!("wss://{}/$iothub/websocket", hub.host())).unwrap();
    let builder = builder.add_header("sec-websocket-protocol".parse().unwrap(), "mqtt".parse().unwrap()).unwrap();
    let (mut socket, _) = timeout(Duration::from_secs(10), builder.connect_on(tls)).await.unwrap().unwrap();
    let connect = encode(&Packet::Connect(connect_packet(&hub, "d", false)));
    socket.send(Message::binary(connect.freeze())).await.unwrap();
    let connack = timeout(LIMIT, socket.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(&connack.as_payload()[..], [0x20, 2, 0, 0]);
}
