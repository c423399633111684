//! MQTT 3.1.1 as a server speaks it, as far as a hub needs it. Written from the standard, with none of the gateway's
//! code.

use super::hub::Event;
use super::wire::Wire;

/// What a client sends.
#[derive(Debug)]
pub enum Packet {
    /// 3.1
    Connect { client: String, host: String, password: String },
    /// 3.8, with its packet id, and what it subscribes to.
    Subscribe(u16, Vec<String>),
    /// 3.4
    PubAck(u16),
    /// 3.3, QoS 1.
    Publish { topic: String, packet_id: u16, body: Vec<u8> },
    /// 3.3, QoS 0.
    Once { topic: String, body: Vec<u8> },
    /// 3.12
    Ping,
    /// 3.14
    Disconnect,
}

/// 3.13
pub const PINGRESP: [u8; 2] = [0xd0, 0];

/// 3.2
pub fn connack(session_present: bool, code: u8) -> [u8; 4] {
    [0x20, 2, u8::from(session_present), code]
}

/// 3.9, QoS 1 granted for the first of so many, and QoS 0 for the second.
pub fn suback(id: u16, filters: usize) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    // Messages, calls, and nothing of twins, which are not modelled.
    let codes = (0..filters).map(|at| [1, 0].get(at).copied().unwrap_or(0x80));
    [0x90, 2 + filters as u8, high, low].into_iter().chain(codes).collect()
}

/// 3.4
pub fn puback(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [0x40, 2, high, low]
}

/// 3.3, QoS 1.
pub fn publish(topic: &str, id: u16, body: &[u8], again: bool) -> Vec<u8> {
    packet(if again { 0x3a } else { 0x32 }, topic, &id.to_be_bytes(), body)
}

/// 3.3, QoS 0.
pub fn publish_once(topic: &str, body: &[u8]) -> Vec<u8> {
    packet(0x30, topic, &[], body)
}

fn packet(first: u8, topic: &str, id: &[u8], body: &[u8]) -> Vec<u8> {
    let mut rest = (topic.len() as u16).to_be_bytes().to_vec();
    rest.extend(topic.as_bytes());
    rest.extend(id);
    rest.extend(body);
    let mut packet = vec![first];
    let mut length = rest.len();
    loop {
        let byte = (length % 128) as u8;
        length /= 128;
        packet.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    packet.extend(rest);
    packet
}

/// Cuts a byte stream into packets.
#[derive(Default)]
pub struct Splitter(Vec<u8>);

impl Splitter {
    /// The packets that are whole now.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Packet> {
        self.0.extend_from_slice(bytes);
        std::iter::from_fn(|| self.next()).collect()
    }

    fn next(&mut self) -> Option<Packet> {
        let (mut length, mut header) = (0, 1);
        loop {
            let byte = *self.0.get(header)?;
            length += usize::from(byte & 0x7f) << (7 * (header - 1));
            header += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        if self.0.len() < header + length {
            return None;
        }
        let packet: Vec<u8> = self.0.drain(..header + length).collect();
        Some(read(packet[0], &packet[header..]))
    }
}

fn read(first: u8, mut rest: &[u8]) -> Packet {
    let number = |rest: &mut &[u8]| {
        let (number, after) = rest.split_at(2);
        *rest = after;
        u16::from_be_bytes([number[0], number[1]])
    };
    let text = |rest: &mut &[u8]| {
        let length = usize::from(number(rest));
        let (text, after) = rest.split_at(length);
        *rest = after;
        String::from_utf8(text.to_vec()).expect("a client sends UTF-8")
    };
    match first >> 4 {
        1 => {
            assert_eq!(text(&mut rest), "MQTT");
            // Level 4, then flags: user name, password, and no clean session.
            assert_eq!(rest[..2], [4, 0xc0]);
            rest = &rest[4..];
            let (client, user) = (text(&mut rest), text(&mut rest));
            let host = user.split('/').next().unwrap_or_default().to_owned();
            Packet::Connect { client, host, password: text(&mut rest) }
        }
        3 if first & 6 == 0 => Packet::Once { topic: text(&mut rest), body: rest.to_vec() },
        3 => {
            let (topic, packet_id) = (text(&mut rest), number(&mut rest));
            Packet::Publish { topic, packet_id, body: rest.to_vec() }
        }
        4 => Packet::PubAck(number(&mut rest)),
        8 => {
            let (id, mut filters) = (number(&mut rest), Vec::new());
            while !rest.is_empty() {
                filters.push(text(&mut rest));
                rest = &rest[1..];
            }
            Packet::Subscribe(id, filters)
        }
        12 => Packet::Ping,
        14 => Packet::Disconnect,
        other => panic!("a client sent a packet of type {other}"),
    }
}

/// The packets that come on a wire.
pub struct Reader {
    wire: Wire,
    splitter: Splitter,
    ready: std::collections::VecDeque<Packet>,
}

impl Reader {
    /// Of a wire.
    pub fn new(wire: Wire) -> Reader {
        Reader { wire, splitter: Splitter::default(), ready: std::collections::VecDeque::new() }
    }

    /// The next packet. `None`: the client is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.ready.pop_front() {
                return Some(packet);
            }
            let (_, bytes) = self.wire.receive().await?;
            self.ready.extend(self.splitter.take(&bytes));
        }
    }
}

/// A result event, from its topic and body.
pub fn event(topic: &str, body: Vec<u8>) -> Event {
    let bag = topic.rsplit('/').next().unwrap_or_default();
    let property = |name: &str| {
        let found = bag.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        found.map(decoded)
    };
    Event {
        id: property("%24.mid").unwrap_or_default(),
        correlation: property("%24.cid"),
        body: String::from_utf8(body).expect("an event is UTF-8"),
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: &u8| (*byte as char).to_digit(16).expect("percent-encoded") as u8;
                bytes.push(digit(high) * 16 + digit(low));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).expect("a property is UTF-8")
}
