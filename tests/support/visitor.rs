//! A small client of a real broker, as the back end would be: it publishes, and it reads what devices publish. Its
//! few packets are written out by hand (MQTT 3.1.1), so that it shares no code with the daemon.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value as Json;

use super::{eventually, PATIENCE};

/// A flag of CONNECT.
const CLEAN_SESSION: u8 = 0x02;

/// A client.
pub struct Visitor {
    stream: TcpStream,
    last_packet_id: u16,
}

impl Visitor {
    /// Connects, and tries again as long as the broker does not listen.
    pub fn new(address: &str, client_id: &str) -> Visitor {
        let mut visitor = Visitor::connect(address, client_id, CLEAN_SESSION);
        assert_eq!(visitor.read(), (0x20, vec![0, 0]), "CONNACK");
        visitor
    }

    /// Connects with a session that the broker keeps.
    pub fn with_session(address: &str, client_id: &str) -> Visitor {
        let mut visitor = Visitor::connect(address, client_id, 0);
        let (first, body) = visitor.read();
        assert_eq!((first, body[1]), (0x20, 0), "CONNACK");
        visitor
    }

    fn connect(address: &str, client_id: &str, flags: u8) -> Visitor {
        let stream = eventually("the broker listens", || TcpStream::connect(address).ok());
        stream.set_nodelay(true).expect("a stream has no delay");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let mut visitor = Visitor { stream, last_packet_id: 0 };
        visitor.packet(0x10, &[b"\x00\x04MQTT\x04", &[flags, 0, 0][..], &text(client_id)].concat());
        visitor
    }

    /// Publishes with QoS 1; on return the broker has it.
    pub fn publish(&mut self, topic: &str, body: &str) {
        let id = self.packet_id();
        self.packet(0x32, &[&text(topic)[..], &id, body.as_bytes()].concat());
        assert_eq!(self.read(), (0x40, id.to_vec()), "PUBACK");
    }

    /// Subscribes with QoS 1.
    pub fn subscribe(&mut self, filter: &str) {
        let id = self.packet_id();
        self.packet(0x82, &[&id[..], &text(filter), &[1]].concat());
        assert_eq!(self.read(), (0x90, vec![id[0], id[1], 1]), "SUBACK");
    }

    /// The next message of a subscription: its topic and its JSON.
    pub fn next_message(&mut self) -> (String, Json) {
        let (first, body) = self.read();
        assert_eq!(first & 0xf6, 0x32, "a PUBLISH with QoS 1");
        let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let (topic, rest) = body[2..].split_at(length);
        self.packet(0x40, &rest[..2]);
        let topic = String::from_utf8(topic.to_vec()).expect("a topic is UTF-8");
        (topic, serde_json::from_slice(&rest[2..]).expect("an event is JSON"))
    }

    fn packet_id(&mut self) -> [u8; 2] {
        self.last_packet_id += 1;
        self.last_packet_id.to_be_bytes()
    }

    fn packet(&mut self, first: u8, content: &[u8]) {
        let packet = [&[first][..], &super::broker::remaining_length(content.len()), content].concat();
        self.stream.write_all(&packet).expect("the broker takes a packet");
    }

    fn read(&mut self) -> (u8, Vec<u8>) {
        let mut byte = || {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("the broker answers");
            byte[0]
        };
        let first = byte();
        let (mut length, mut shift) = (0, 0);
        loop {
            let digit = byte();
            length |= usize::from(digit & 0x7f) << shift;
            shift += 7;
            if digit & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("the broker sends whole packets");
        (first, body)
    }
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a short text");
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}
