//! Modbus on a line in either framing, RTU and ASCII, against a scripted unit at the far end of a pseudo-terminal or of
//! a connection.
//!
//! Proves G3 at the line (a request is sent once), G8 (whatever the line says ends in an outcome) and G12 (a late
//! answer, or an echo of another write, confirms nothing).

use crate::modbus_tcp::Server;
use crate::peers::{ascii, call, hasty, listening, patient, read, rtu, write, Peer, Pty, Running};
use fieldbridge::bus::call::Wire;
use fieldbridge::config::{BusKind, Endpoint, LowLatency, Parity, SerialPort};
use fieldbridge::peripheral::exchange::{Answer, Refusal, Request};
use tokio::task::JoinSet;

/// How frames are told apart on a line.
#[derive(Clone, Copy)]
pub struct Framing {
    name: &'static str,
    kind: fn(Endpoint) -> BusKind,
    port: fn(&Pty) -> Endpoint,
    /// A frame around unit and PDU.
    pub sealed: fn(&[u8]) -> Vec<u8>,
    /// What is no answer to `asks(7, 16)` only in this framing.
    no_answers: fn() -> Vec<(&'static str, Vec<u8>)>,
}

pub const RTU: Framing = Framing {
    name: "modbus-rtu",
    kind: BusKind::ModbusRtu,
    // Fast enough that frames take no time that matters.
    port: |pty| pty.port(115_200),
    sealed: rtu,
    no_answers: no_answers_in_rtu,
};

pub const ASCII: Framing = Framing {
    name: "modbus-ascii",
    kind: BusKind::ModbusAscii,
    port: seven_bits_even,
    sealed: ascii,
    no_answers: no_answers_in_ascii,
};

/// As the specification has it for ASCII: 7 data bits, even parity.
fn seven_bits_even(pty: &Pty) -> Endpoint {
    Endpoint::Serial(SerialPort {
        path: pty.path(),
        baud: 115_200,
        parity: Parity::Even,
        data_bits: 7,
        stop_bits: 1,
        rs485: None,
        low_latency: LowLatency::IfPossible,
    })
}

impl Framing {
    pub fn at(&self, pty: &Pty) -> BusKind {
        (self.kind)((self.port)(pty))
    }

    pub fn start(&self) -> (Running, Pty) {
        let pty = Pty::new();
        (Running::start(self.at(&pty)), pty)
    }

    /// A line at a server.
    pub async fn start_at_a_server(&self) -> (Running, Server) {
        let server = Server::bind().await;
        (Running::start((self.kind)(Endpoint::Tcp(server.address()))), server)
    }

    /// The request for two registers, and an answer to it.
    pub fn asks(&self, unit: u8, address: u8) -> Vec<u8> {
        (self.sealed)(&[unit, 3, 0, address, 0, 2])
    }

    pub fn tells(&self, unit: u8, value: u8) -> Vec<u8> {
        (self.sealed)(&[unit, 3, 4, 0, 0, 0, value])
    }

    /// The write of one register, which is also its answer.
    pub fn sets(&self, unit: u8, address: u8, value: u8) -> Vec<u8> {
        (self.sealed)(&[unit, 6, 0, address, 0, value])
    }

    pub fn excepts(&self, unit: u8, function: u8, code: u8) -> Vec<u8> {
        (self.sealed)(&[unit, function | 0x80, code])
    }

    /// What is no answer to `asks(7, 16)`.
    pub fn no_answers(&self) -> Vec<(&'static str, Vec<u8>)> {
        let good = self.tells(7, 42);
        let alike = vec![
            ("half a frame", good[..good.len() / 2].to_vec()),
            ("a foreign unit", self.tells(8, 42)),
            ("a foreign unit's exception", self.excepts(8, 3, 2)),
            ("another function", (self.sealed)(&[7, 4, 4, 0, 0, 0, 42])),
            ("another function's exception", self.excepts(7, 4, 2)),
            ("another length", (self.sealed)(&[7, 3, 2, 0, 42])),
            ("an echo of the request", self.asks(7, 16)),
            ("garbage", (0..=255).collect()),
            ("two foreign frames at once", [self.tells(8, 1), self.tells(9, 1)].concat()),
        ];
        alike.into_iter().chain((self.no_answers)()).collect()
    }

    /// The same, and what others say who speak on the line.
    pub fn of_others(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut said = self.no_answers();
        said.push(("another master's request and its answer", [self.asks(8, 16), self.tells(8, 1)].concat()));
        said.push(("another master's write", self.sets(8, 16, 5).repeat(2)));
        said
    }
}

fn no_answers_in_rtu() -> Vec<(&'static str, Vec<u8>)> {
    let good = RTU.tells(7, 42);
    let mut bad_crc = good.clone();
    bad_crc[8] ^= 1;
    vec![
        ("a truncated frame", good[..7].to_vec()),
        ("a bad CRC", bad_crc),
        ("a single byte", vec![7]),
        ("the head of a frame that never comes", vec![7, 3, 0xFF, 1, 2, 3]),
    ]
}

/// Those of RTU that hold no frame.
const GARBLED: [&str; 6] = [
    "half a frame",
    "a truncated frame",
    "a bad CRC",
    "a single byte",
    "garbage",
    "the head of a frame that never comes",
];

fn no_answers_in_ascii() -> Vec<(&'static str, Vec<u8>)> {
    let good = ASCII.tells(7, 42);
    let cut = |from: usize, to: usize| [&good[..from], &good[to..]].concat();
    let mut bad_lrc = good.clone();
    bad_lrc[16] = b'9';
    vec![
        ("a frame without its LF", good[..18].to_vec()),
        ("a bad LRC", bad_lrc),
        ("a frame that lost a digit", cut(9, 10)),
        ("a frame that lost its colon", good[1..].to_vec()),
        ("a frame that ends with LF alone", cut(17, 18)),
        ("a frame with a blank in it", [&good[..5], b" ", &good[5..]].concat()),
        ("an RTU frame", RTU.tells(7, 42)),
        ("a colon", b":".to_vec()),
        ("colons", vec![b':'; 600]),
        ("digits without end", [b":", &[b'0'; 700][..]].concat()),
    ]
}

pub fn words(words: &[u16]) -> Wire {
    Wire::Answered(Answer::Words(words.to_vec()))
}

/// A read, writes and a refusal, by a unit that speaks so.
pub async fn serves(framing: &Framing, line: &Running, peer: &mut impl Peer, spoken: fn(&[u8]) -> Vec<u8>) {
    let unit = async {
        peer.hear(&framing.asks(7, 16)).await;
        peer.say(&spoken(&framing.tells(7, 42))).await;
        peer.hear(&framing.sets(7, 16, 5)).await;
        peer.say(&spoken(&framing.sets(7, 16, 5))).await;
        peer.hear(&(framing.sealed)(&[7, 15, 0, 1, 0, 3, 1, 0b110])).await;
        peer.say(&spoken(&framing.excepts(7, 15, 2))).await;
    };
    let caller = async {
        let mut turn = line.bus.turn().await.unwrap();
        assert_eq!(turn.exchange(&call(7, read(16, 2))).await, words(&[0, 42]));
        assert_eq!(turn.exchange(&call(7, write(16, 5))).await, Wire::Answered(Answer::Written));
        let coils = Request::WriteBits { address: 1, bits: vec![false, true, true], multiple: false };
        assert_eq!(turn.exchange(&call(7, coils)).await, Wire::Refused(Refusal::Exception(2)));
    };
    patient(async { tokio::join!(unit, caller) }).await;
    let status = line.status();
    assert_eq!((status.kind, status.state.as_str(), status.last_error), (framing.name, "open", None));
    let bus = line.snapshot();
    assert_eq!((bus.exchanges, bus.timeouts), (3, 0));
}

#[tokio::test]
async fn an_answer_is_taken_a_write_confirmed_and_a_refusal_told() {
    for framing in [RTU, ASCII] {
        let (line, mut pty) = framing.start();
        serves(&framing, &line, &mut pty.peer, <[u8]>::to_vec).await;
        let (line, server) = framing.start_at_a_server().await;
        serves(&framing, &line, &mut server.accept().await, <[u8]>::to_vec).await;
    }
}

#[tokio::test]
async fn the_answer_is_found_behind_whatever_comes_before_it_in_whatever_pieces() {
    for framing in [RTU, ASCII] {
        let (line, mut pty) = framing.start();
        let (far_line, server) = framing.start_at_a_server().await;
        let mut far = server.accept().await;
        for (what, bytes) in framing.of_others() {
            for piece in [1, 5, bytes.len()] {
                finds(&framing, &line, &mut pty.peer, what, bytes.chunks(piece)).await;
                finds(&framing, &far_line, &mut far, what, bytes.chunks(piece)).await;
            }
        }
        assert_eq!((line.status().state.as_str(), far_line.status().state.as_str()), ("open", "open"));
    }
}

async fn finds(
    framing: &Framing,
    line: &Running,
    peer: &mut impl Peer,
    what: &str,
    pieces: std::slice::Chunks<'_, u8>,
) {
    let asking = line.call_meanwhile(call(7, read(16, 2)));
    peer.hear(&framing.asks(7, 16)).await;
    for piece in pieces {
        peer.say(piece).await;
        tokio::task::yield_now().await;
    }
    peer.say(&framing.tells(7, 42)).await;
    assert_eq!(patient(asking).await.unwrap(), words(&[0, 42]), "{}: behind {what}", framing.name);
}

#[tokio::test]
async fn what_is_not_the_answer_is_a_bad_reply_and_nothing_is_sent_again() {
    // Each waits for its time to be over: side by side.
    let mut lines = JoinSet::new();
    for framing in [RTU, ASCII] {
        for (what, bytes) in framing.of_others() {
            lines.spawn(async move {
                let (line, mut pty) = framing.start();
                let asking = line.call_meanwhile(listening(7, read(16, 2)));
                pty.peer.hear(&framing.asks(7, 16)).await;
                pty.peer.say(&bytes).await;
                let wire = patient(asking).await.unwrap();
                let Wire::BadReply(why) = wire else { panic!("{}: {what}: {wire:?}", framing.name) };
                assert!(!why.contains(char::is_control), "{what}: {why:?}");
                let counted = &line.bus.snapshot().units[0];
                assert_eq!(counted.bad_replies, 1, "{}: {what}", framing.name);
                if framing.name == RTU.name {
                    assert_eq!(counted.checksum_errors, u64::from(GARBLED.contains(&what)), "{what}");
                }
                pty.peer.hear_nothing().await;
            });
        }
    }
    while let Some(shown) = lines.join_next().await {
        shown.unwrap();
    }
}

#[tokio::test]
async fn a_write_that_echoes_another_value_is_not_confirmed() {
    for framing in [RTU, ASCII] {
        for (unit, address, value) in [(7, 16, 6), (7, 17, 5), (8, 16, 5)] {
            let (line, mut pty) = framing.start();
            let asking = line.call_meanwhile(listening(7, write(16, 5)));
            pty.peer.hear(&framing.sets(7, 16, 5)).await;
            pty.peer.say(&framing.sets(unit, address, value)).await;
            let wire = patient(asking).await.unwrap();
            assert!(matches!(wire, Wire::BadReply(_)), "{}: {wire:?}", framing.name);
        }
    }
}

#[tokio::test]
async fn a_late_answer_is_never_the_next_requests_nor_another_units() {
    for framing in [RTU, ASCII] {
        let (line, mut pty) = framing.start();
        assert!(matches!(line.call(hasty(7, read(16, 2))).await, Wire::NoAnswer(_)));
        pty.peer.hear(&framing.asks(7, 16)).await;
        // The same looks: another address, and even the same request of another command.
        let next = line.call_meanwhile(call(7, read(32, 2)));
        pty.peer.hear_nothing().await;
        // Another unit, whose answer can be told apart, is asked meanwhile.
        let other = line.call_meanwhile(call(8, read(16, 2)));
        pty.peer.hear(&framing.asks(8, 16)).await;
        pty.peer.say(&framing.tells(8, 8)).await;
        assert_eq!(patient(other).await.unwrap(), words(&[0, 8]));
        pty.peer.say(&framing.tells(7, 99)).await;
        pty.peer.hear(&framing.asks(7, 32)).await;
        pty.peer.say(&framing.tells(7, 1)).await;
        assert_eq!(patient(next).await.unwrap(), words(&[0, 1]));
        let again = line.call_meanwhile(call(7, read(16, 2)));
        pty.peer.hear(&framing.asks(7, 16)).await;
        pty.peer.say(&framing.tells(7, 2)).await;
        assert_eq!(patient(again).await.unwrap(), words(&[0, 2]));
        assert_eq!(line.snapshot().timeouts, 1);
    }
}

#[tokio::test]
async fn a_late_answer_that_comes_on_the_next_connection_answers_nobody() {
    for framing in [RTU, ASCII] {
        let (line, server) = framing.start_at_a_server().await;
        let mut old = server.accept().await;
        assert!(matches!(line.call(hasty(7, read(16, 2))).await, Wire::NoAnswer(_)));
        old.hear(&framing.asks(7, 16)).await;
        drop(old);
        line.until("closed").await;
        let asking = line.call_meanwhile(call(7, read(32, 2)));
        let mut new = server.accept().await;
        new.say(&framing.tells(7, 99)).await;
        new.hear(&framing.asks(7, 32)).await;
        new.say(&framing.tells(7, 1)).await;
        assert_eq!(patient(asking).await.unwrap(), words(&[0, 1]), "{}", framing.name);
    }
}

#[tokio::test]
async fn a_late_exception_refuses_nothing_but_its_own_request() {
    for framing in [RTU, ASCII] {
        let (line, mut pty) = framing.start();
        assert!(matches!(line.call(hasty(7, write(16, 5))).await, Wire::NoAnswer(_)));
        pty.peer.hear(&framing.sets(7, 16, 5)).await;
        let next = line.call_meanwhile(call(7, write(17, 5)));
        pty.peer.hear(&framing.sets(7, 17, 5)).await;
        pty.peer.say(&[framing.excepts(7, 6, 2), framing.sets(7, 17, 5)].concat()).await;
        assert_eq!(patient(next).await.unwrap(), Wire::Answered(Answer::Written));
    }
}

#[tokio::test]
async fn two_exceptions_that_differ_refuse_nothing_as_one_of_them_is_an_earlier_requests() {
    for (framing, first, second) in [(RTU, 5, 3), (RTU, 3, 5), (RTU, 3, 3), (ASCII, 5, 3), (ASCII, 3, 3)] {
        let (line, mut pty) = framing.start();
        assert!(matches!(line.call(hasty(7, write(16, 5))).await, Wire::NoAnswer(_)));
        pty.peer.hear(&framing.sets(7, 16, 5)).await;
        let next = line.call_meanwhile(call(7, write(17, 5)));
        pty.peer.hear(&framing.sets(7, 17, 5)).await;
        pty.peer.say(&[framing.excepts(7, 6, first), framing.excepts(7, 6, second)].concat()).await;
        let wire = patient(next).await.unwrap();
        let said = format!("exceptions {first} and {second}");
        match first == second {
            true => assert_eq!(wire, Wire::Refused(Refusal::Exception(3))),
            false => assert!(
                matches!(&wire, Wire::BadReply(why) if why.contains("earlier request") && why.contains(&said)),
                "{wire:?}"
            ),
        }
    }
}
