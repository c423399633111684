//! What lies below a protocol of the hub's: a proxy that is asked by CONNECT, and a WebSocket. Written from RFC 9110
//! and RFC 6455, with none of the gateway's code.

use std::time::Duration;

use base64::prelude::{Engine as _, BASE64_STANDARD};
use ring::digest;
use tokio::time::sleep;

use super::wire::{End, Wire};
use super::world::World;

/// Where the proxy listens.
pub const PROXY: &str = "127.0.0.1:3128";

/// A frame's first byte: of a message that it ends or not, of the rest of one, and of a ping.
const WHOLE: u8 = 0x82;
const BEGUN: u8 = 0x02;
const REST: u8 = 0x80;
const PING: u8 = 0x89;

/// What a hub puts into a WebSocket: a message in one frame or two, behind a ping perhaps.
pub fn framed(world: &World, bytes: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    if world.strikes("websocket: a ping", 30) {
        frames.extend(frame(PING, b"?"));
    }
    if bytes.len() > 1 && world.strikes("websocket: a message in two frames", 100) {
        let (one, other) = bytes.split_at(world.pick(1..bytes.len() as u64) as usize);
        frames.extend(frame(BEGUN, one));
        frames.extend(frame(REST, other));
    } else {
        frames.extend(frame(WHOLE, bytes));
    }
    frames
}

fn frame(first: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match bytes.len() {
        short @ 0..126 => frame.push(short as u8),
        medium @ 126..0x1_0000 => {
            frame.push(126);
            frame.extend((medium as u16).to_be_bytes());
        }
        long => {
            frame.push(127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(bytes);
    frame
}

/// Makes of a client's frames what they carry.
#[derive(Default)]
pub struct Unframer(Vec<u8>);

impl Unframer {
    /// What whole messages carry now.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.0.extend_from_slice(bytes);
        let mut carried = Vec::new();
        while let Some((first, payload)) = self.next() {
            // All else is pongs and goodbyes.
            if matches!(first & 0x0f, 0 | 2) {
                carried.extend(payload);
            }
        }
        carried
    }

    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, second) = (*self.0.first()?, *self.0.get(1)?);
        assert_ne!(second & 0x80, 0, "a client masks what it sends");
        let (header, length) = match second & 0x7f {
            126 => (4, usize::from(u16::from_be_bytes(self.0.get(2..4)?.try_into().ok()?))),
            127 => (10, u64::from_be_bytes(self.0.get(2..10)?.try_into().ok()?) as usize),
            short => (2, usize::from(short)),
        };
        let mask: [u8; 4] = self.0.get(header..header + 4)?.try_into().ok()?;
        let end = header + 4 + length;
        let mut payload = self.0.get(header + 4..end)?.to_vec();
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        self.0.drain(..end);
        Some((first, payload))
    }
}

/// The head of a request. `None`: the client is gone.
async fn head(wire: &Wire) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(wire.receive().await?.1);
    }
    Some(String::from_utf8(head).expect("a head is text"))
}

/// Opens the tunnel that a client asks a proxy for, and tells to where. `None`: there is none.
pub async fn connect(world: &World, wire: &Wire, refusals: u64) -> Option<String> {
    let head = head(wire).await?;
    let to = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    let to = to.unwrap_or_else(|| panic!("a proxy knows no {head:?}")).to_owned();
    let answer = match world.pick(0..5) {
        0 if world.strikes("proxy: asks who that is", refusals) => "407 Who\r\nProxy-Authenticate: Basic",
        1 if world.strikes("proxy: has no way", refusals) => "503 No way",
        2 if world.strikes("proxy: a page", refusals) => "302 Found\r\nLocation: http://log.in/",
        3 if world.strikes("proxy: says nothing", refusals) => {
            sleep(Duration::from_secs(60)).await;
            wire.cut(End::Closed);
            return None;
        }
        4 if world.strikes("proxy: goes before it answers", refusals) => {
            wire.send(b"HTTP/1.1 2");
            wire.cut(End::Reset);
            return None;
        }
        _ => "200 Connection established",
    };
    world.count("proxy: asked");
    wire.send(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes());
    if !answer.starts_with("200") {
        wire.cut(End::Closed);
        return None;
    }
    Some(to)
}

/// Answers a WebSocket's handshake. `false`: there is none.
pub async fn open(world: &World, wire: &Wire, refusals: u64, protocol: &str) -> bool {
    let Some(head) = head(wire).await else { return false };
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    assert!(head.starts_with("GET /$iothub/websocket"), "{head:?}");
    assert_eq!(field("sec-websocket-protocol").as_deref(), Some(protocol), "{head:?}");
    if world.strikes("websocket: refused", refusals / 2) {
        wire.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
        wire.cut(End::Closed);
        return false;
    }
    let key = field("sec-websocket-key").expect("a key");
    let salted = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = BASE64_STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, salted.as_bytes()));
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    );
    wire.send(answer.as_bytes());
    wire.is_websocket();
    world.count("websocket: opened");
    true
}
