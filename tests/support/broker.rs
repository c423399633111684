//! A broker that does just what a test says, packet by packet, and nothing by itself. Its few packets are written out
//! here by hand, so that it shares no code with the daemon (MQTT 3.1.1).

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// A listening broker.
pub struct Broker {
    listener: TcpListener,
    sessions: Sessions,
}

/// Who has a session: whoever was let in before without asking for a clean one.
type Sessions = Arc<Mutex<BTreeSet<String>>>;

/// One connection of a client, after its CONNECT.
pub struct Client {
    stream: TcpStream,
    sessions: Sessions,
    /// What it said in its CONNECT.
    pub connect: Connect,
}

/// A CONNECT.
#[derive(Debug)]
pub struct Connect {
    pub client_id: String,
    pub user_name: String,
    pub password: Option<String>,
    pub clean_session: bool,
    pub keepalive: u16,
}

/// A packet of a client.
#[derive(Debug, PartialEq)]
pub enum Packet {
    Publish {
        packet_id: u16,
        topic: String,
        body: Vec<u8>,
    },
    PubAck(u16),
    Subscribe {
        packet_id: u16,
        filter: String,
        qos: u8,
    },
    PingReq,
    Disconnect,
    /// The client has closed the connection.
    Closed,
}

impl Broker {
    pub fn new() -> Broker {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        listener.set_nonblocking(true).expect("a listener can be nonblocking");
        Broker { listener, sessions: Sessions::default() }
    }

    pub fn address(&self) -> String {
        self.listener.local_addr().expect("a listener has an address").to_string()
    }

    /// The next connection whose CONNECT came whole; it is not answered yet.
    pub fn accept(&self) -> Client {
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match self.listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    assert!(Instant::now() < deadline, "no client connected");
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => panic!("accept: {error}"),
            }
        };
        stream.set_nonblocking(false).expect("a stream can block");
        stream.set_nodelay(true).expect("a stream has no delay");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let mut client = Client {
            stream,
            sessions: self.sessions.clone(),
            connect: Connect {
                client_id: String::new(),
                user_name: String::new(),
                password: None,
                clean_session: true,
                keepalive: 0,
            },
        };
        let (kind, body) = client.read_packet().expect("a CONNECT");
        assert_eq!(kind >> 4, 1, "the first packet is a CONNECT");
        client.connect = parse_connect(&body);
        client
    }

    /// Accepts clients, their subscriptions included, and returns them in the order of these ids.
    pub fn serve_each<const N: usize>(&self, ids: [&str; N]) -> [Client; N] {
        let mut clients: Vec<Client> = ids.iter().map(|_| self.serve()).collect();
        ids.map(|id| {
            let at = clients.iter().position(|client| client.connect.client_id == id);
            clients.swap_remove(at.unwrap_or_else(|| panic!("{id} did not connect")))
        })
    }

    /// Accepts a client, its subscription included.
    pub fn serve(&self) -> Client {
        let mut client = self.accept();
        let has_session = client.sessions.lock().unwrap().contains(&client.connect.client_id);
        client.connack(0, has_session);
        client.grant();
        client
    }
}

impl Client {
    pub fn connack(&mut self, code: u8, session_present: bool) {
        if code == 0 && !self.connect.clean_session {
            self.sessions.lock().unwrap().insert(self.connect.client_id.clone());
        }
        self.write(&[0x20, 2, session_present.into(), code]);
    }

    /// Waits for SUBSCRIBE and grants QoS 1.
    pub fn grant(&mut self) {
        match self.next() {
            Packet::Subscribe { packet_id, qos: 1, .. } => self.suback(packet_id, 1),
            other => panic!("{other:?} where a SUBSCRIBE with QoS 1 was expected"),
        }
    }

    pub fn suback(&mut self, packet_id: u16, code: u8) {
        let id = packet_id.to_be_bytes();
        self.write(&[0x90, 3, id[0], id[1], code]);
    }

    /// Delivers a C2D message of device `pump`: a message id and a JSON body.
    pub fn deliver(&mut self, packet_id: u16, message_id: &str, body: &str) {
        let topic = format!("devices/pump/messages/devicebound/%24.mid={message_id}&%24.to=%2Fdevices%2Fpump");
        self.publish(packet_id, topic.as_bytes(), body.as_bytes());
    }

    /// Publishes with QoS 1, whatever the bytes.
    pub fn publish(&mut self, packet_id: u16, topic: &[u8], body: &[u8]) {
        let mut rest = (topic.len() as u16).to_be_bytes().to_vec();
        rest.extend(topic);
        rest.extend(packet_id.to_be_bytes());
        rest.extend(body);
        self.packet(0x32, &rest);
    }

    /// Any packet: its first byte, then its content.
    pub fn packet(&mut self, first: u8, content: &[u8]) {
        self.write(&[&[first][..], &remaining_length(content.len()), content].concat());
    }

    pub fn puback(&mut self, packet_id: u16) {
        let id = packet_id.to_be_bytes();
        self.write(&[0x40, 2, id[0], id[1]]);
    }

    /// Bytes as they are. A client that is gone already is no error here: the test sees it at its next read.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next packet. PINGREQs are answered and left out.
    pub fn next(&mut self) -> Packet {
        loop {
            match self.next_of_any_kind() {
                Packet::PingReq => self.write(&[0xd0, 0]),
                packet => return packet,
            }
        }
    }

    /// The next packet, whatever it is.
    pub fn next_of_any_kind(&mut self) -> Packet {
        let Some((first, body)) = self.read_packet() else { return Packet::Closed };
        match first >> 4 {
            3 => {
                let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let topic = String::from_utf8(body[2..2 + length].to_vec()).expect("a topic is UTF-8");
                let rest = &body[2 + length..];
                assert_eq!(first & 0b110, 0b010, "an event is published with QoS 1");
                let packet_id = u16::from_be_bytes([rest[0], rest[1]]);
                Packet::Publish { packet_id, topic, body: rest[2..].to_vec() }
            }
            4 => Packet::PubAck(u16::from_be_bytes([body[0], body[1]])),
            8 => {
                let length = usize::from(u16::from_be_bytes([body[2], body[3]]));
                let filter = String::from_utf8(body[4..4 + length].to_vec()).expect("a filter is UTF-8");
                Packet::Subscribe { packet_id: u16::from_be_bytes([body[0], body[1]]), filter, qos: body[4 + length] }
            }
            12 => Packet::PingReq,
            14 => Packet::Disconnect,
            other => panic!("a client sent a packet of type {other}"),
        }
    }

    /// The next PUBACK; events that come before it are acknowledged and collected.
    pub fn next_puback(&mut self, events: &mut Vec<(String, serde_json::Value)>) -> u16 {
        loop {
            match self.next() {
                Packet::PubAck(packet_id) => return packet_id,
                Packet::Publish { packet_id, topic, body } => {
                    self.puback(packet_id);
                    events.push((topic, serde_json::from_slice(&body).expect("an event is JSON")));
                }
                other => panic!("{other:?} where a PUBACK was expected"),
            }
        }
    }

    /// Exactly so many PUBACKs, in the order in which they come, and so many events, acknowledged.
    pub fn collect(&mut self, pubacks: usize, events: usize) -> (Vec<u16>, Vec<(String, serde_json::Value)>) {
        let (mut ids, mut bodies) = (Vec::new(), Vec::new());
        while ids.len() < pubacks || bodies.len() < events {
            match self.next() {
                Packet::PubAck(packet_id) => ids.push(packet_id),
                Packet::Publish { packet_id, topic, body } => {
                    self.puback(packet_id);
                    bodies.push((topic, serde_json::from_slice(&body).expect("an event is JSON")));
                }
                other => panic!("{other:?} after the PUBACKs {ids:?} and {} events", bodies.len()),
            }
        }
        assert_eq!((ids.len(), bodies.len()), (pubacks, events), "PUBACKs and events");
        (ids, bodies)
    }

    /// The next event, acknowledged.
    pub fn next_event(&mut self) -> (String, serde_json::Value) {
        match self.next() {
            Packet::Publish { packet_id, topic, body } => {
                self.puback(packet_id);
                (topic, serde_json::from_slice(&body).expect("an event is JSON"))
            }
            other => panic!("{other:?} where an event was expected"),
        }
    }

    /// The next event, which gets no PUBACK. PUBACKs that come before it are left out.
    pub fn next_event_unacknowledged(&mut self) -> (String, serde_json::Value) {
        loop {
            match self.next() {
                Packet::PubAck(_) => {}
                Packet::Publish { topic, body, .. } => {
                    return (topic, serde_json::from_slice(&body).expect("an event is JSON"));
                }
                other => panic!("{other:?} where an event was expected"),
            }
        }
    }

    /// Whether nothing comes for a while: for tests that show that something is *not* sent.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        let peeked = super::uninterrupted(|| {
            let left = end.saturating_duration_since(Instant::now());
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            self.stream.peek(&mut [0])
        });
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        matches!(
            peeked,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
        )
    }

    /// Reads to the client's end of the connection, which acknowledges nothing on the way there.
    pub fn closes(&mut self) {
        loop {
            match self.next() {
                Packet::Closed => return,
                Packet::PubAck(id) => panic!("PUBACK {id} where the connection was to end"),
                _ => {}
            }
        }
    }

    fn read_packet(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.read_byte()?;
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let byte = self.read_byte()?;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        Some((first, body))
    }

    fn read_byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        match super::uninterrupted(|| self.stream.read(&mut byte)) {
            Ok(1) => Some(byte[0]),
            Ok(_) => None,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                panic!("the client sent nothing for {PATIENCE:?}")
            }
            Err(_) => None,
        }
    }
}

/// A remaining length (MQTT 3.1.1, 2.2.3).
pub fn remaining_length(mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let digit = (length % 128) as u8;
        length /= 128;
        if length == 0 {
            bytes.push(digit);
            return bytes;
        }
        bytes.push(digit | 0x80);
    }
}

fn parse_connect(body: &[u8]) -> Connect {
    assert_eq!(&body[..7], b"\x00\x04MQTT\x04", "MQTT 3.1.1");
    let flags = body[7];
    let keepalive = u16::from_be_bytes([body[8], body[9]]);
    let mut rest = &body[10..];
    let mut text = || {
        let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        let text = String::from_utf8(rest[2..2 + length].to_vec()).expect("CONNECT is UTF-8");
        rest = &rest[2 + length..];
        text
    };
    let client_id = text();
    assert_eq!(flags & 0x04, 0, "no Will");
    let user_name = if flags & 0x80 != 0 { text() } else { String::new() };
    let password = (flags & 0x40 != 0).then(text);
    Connect { client_id, user_name, password, clean_session: flags & 0x02 != 0, keepalive }
}
