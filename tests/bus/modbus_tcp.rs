//! Modbus TCP against a scripted server.
//!
//! Proves G3 at the line (a request is sent once; what was sent and what was not is told truly; nothing that comes
//! late is heard) and G8 (whatever the server says ends in an outcome).

use std::time::{Duration, Instant};

use crate::peers::{call, hasty, listening, patient, read, write, Peer, Running, PATIENCE, SHORT};
use fieldbridge::bus::call::{Call, Wire};
use fieldbridge::config::BusKind;
use fieldbridge::peripheral::exchange::{Answer, Refusal, Request};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Where a bus connects to.
pub struct Server(TcpListener);

impl Server {
    pub async fn start() -> (Running, Server) {
        let server = Server::bind().await;
        (Running::start(BusKind::ModbusTcp { address: server.address() }), server)
    }

    pub async fn bind() -> Server {
        Server(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    pub async fn accept(&self) -> TcpStream {
        let (stream, _) = patient(self.0.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    pub async fn connection(&self) -> Connection {
        Connection { stream: self.accept().await, first: 0, heard: false }
    }

    pub async fn is_left_alone(&self) {
        assert!(timeout(SHORT, self.0.accept()).await.is_err(), "a connection was made");
    }
}

/// A connection of the bus's, whose first transaction goes by 0.
pub struct Connection {
    stream: TcpStream,
    first: u16,
    heard: bool,
}

impl std::ops::Deref for Connection {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl std::ops::DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}

impl Connection {
    /// Hears a request. Gives it as it would be if the connection had begun with 0.
    pub async fn hear_any(&mut self) -> [u8; 12] {
        let mut heard = [0; 12];
        patient(tokio::io::AsyncReadExt::read_exact(&mut self.stream, &mut heard)).await.unwrap();
        let transaction = u16::from_be_bytes([heard[0], heard[1]]);
        if !std::mem::replace(&mut self.heard, true) {
            self.first = transaction;
        }
        heard[..2].copy_from_slice(&transaction.wrapping_sub(self.first).to_be_bytes());
        heard
    }

    async fn hear(&mut self, expected: &[u8]) {
        let heard = self.hear_any().await;
        assert_eq!(heard, expected, "heard {heard:02x?}");
    }

    pub async fn say(&mut self, bytes: &[u8]) {
        let bytes = self.numbered(bytes);
        Peer::say(&mut self.stream, &bytes).await;
    }

    /// As it is on the wire.
    fn numbered(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if let [high, low, ..] = &mut bytes[..] {
            [*high, *low] = u16::from_be_bytes([*high, *low]).wrapping_add(self.first).to_be_bytes();
        }
        bytes
    }
}

/// A frame: transaction, unit, and the rest.
pub fn tcp(transaction: u8, unit: u8, pdu: &[u8]) -> Vec<u8> {
    let len = u8::try_from(pdu.len() + 1).unwrap();
    [&[0, transaction, 0, 0, 0, len, unit], pdu].concat()
}

fn asks(transaction: u8, address: u8) -> Vec<u8> {
    tcp(transaction, 7, &[3, 0, address, 0, 2])
}

fn tells(transaction: u8, value: u8) -> Vec<u8> {
    tcp(transaction, 7, &[3, 4, 0, 0, 0, value])
}

fn words(words: &[u16]) -> Wire {
    Wire::Answered(Answer::Words(words.to_vec()))
}

#[tokio::test]
async fn one_connection_carries_many_exchanges() {
    let (line, server) = Server::start().await;
    let mut peer = server.connection().await;
    for transaction in 0..3 {
        let asking = line.call_meanwhile(call(7, read(16, 2)));
        peer.hear(&asks(transaction, 16)).await;
        peer.say(&tells(transaction, transaction)).await;
        assert_eq!(patient(asking).await.unwrap(), words(&[0, transaction.into()]));
    }
    let asking = line.call_meanwhile(call(7, write(16, 5)));
    peer.hear(&tcp(3, 7, &[6, 0, 16, 0, 5])).await;
    peer.say(&tcp(3, 7, &[6, 0, 16, 0, 5])).await;
    assert_eq!(patient(asking).await.unwrap(), Wire::Answered(Answer::Written));
    server.is_left_alone().await;
    let status = line.status();
    assert_eq!((status.kind, status.state.as_str(), line.snapshot().exchanges), ("modbus-tcp", "open", 4));
}

#[tokio::test]
async fn an_exception_refuses_and_keeps_the_connection() {
    let (line, server) = Server::start().await;
    let mut peer = server.connection().await;
    for (transaction, code) in [(0, 2), (1, 11), (2, 10)] {
        let asking = line.call_meanwhile(call(7, write(16, 5)));
        peer.hear(&tcp(transaction, 7, &[6, 0, 16, 0, 5])).await;
        peer.say(&tcp(transaction, 7, &[0x86, code])).await;
        assert_eq!(patient(asking).await.unwrap(), Wire::Refused(Refusal::Exception(code)));
    }
    server.is_left_alone().await;
}

#[tokio::test]
async fn after_silence_the_connection_is_replaced_and_nothing_late_is_heard() {
    let (line, server) = Server::start().await;
    let mut old = server.connection().await;
    let wire = line.call(hasty(7, read(16, 2))).await;
    assert!(matches!(&wire, Wire::NoAnswer(why) if why.contains("unit 7")), "{wire:?}");
    old.hear(&asks(0, 16)).await;
    // The very same request by another command: nothing waits, and the old answer is no answer.
    let started = Instant::now();
    let asking = line.call_meanwhile(call(7, read(16, 2)));
    let mut new = server.connection().await;
    new.hear(&asks(0, 16)).await;
    assert!(started.elapsed() < Duration::from_secs(2));
    let _ = tokio::io::AsyncWriteExt::write_all(&mut *old, &tells(0, 99)).await;
    new.say(&tells(0, 1)).await;
    assert_eq!(patient(asking).await.unwrap(), words(&[0, 1]));
    assert_eq!((line.snapshot().exchanges, line.snapshot().timeouts), (2, 1));
}

#[tokio::test]
async fn what_a_gateway_says_late_on_the_next_connection_answers_nothing() {
    let (line, server) = Server::start().await;
    let mut old = server.connection().await;
    assert!(matches!(line.call(hasty(7, read(16, 2))).await, Wire::NoAnswer(_)));
    old.hear(&asks(0, 16)).await;
    let asking = line.call_meanwhile(call(7, read(16, 2)));
    let mut new = server.connection().await;
    new.hear(&asks(0, 16)).await;
    // It has one line for all its connections, and passes on to the present one what comes from there.
    new.first = old.first;
    new.say(&tells(0, 99)).await;
    let wire = patient(asking).await.unwrap();
    assert!(matches!(&wire, Wire::BadReply(why) if why.contains("transaction")), "{wire:?}");
}

#[tokio::test]
async fn two_buses_do_not_begin_with_the_same_transaction() {
    let mut firsts = std::collections::HashSet::new();
    for _ in 0..8 {
        let (line, server) = Server::start().await;
        let mut peer = server.connection().await;
        let asking = line.call_meanwhile(call(7, read(16, 2)));
        peer.hear_any().await;
        peer.say(&tells(0, 1)).await;
        assert_eq!(patient(asking).await.unwrap(), words(&[0, 1]));
        firsts.insert(peer.first);
    }
    assert!(firsts.len() > 5, "{firsts:?}");
}

#[tokio::test]
async fn what_is_not_the_answer_is_a_bad_reply_and_ends_the_connection() {
    let table = [
        ("another transaction", tells(1, 42)),
        ("another unit", tcp(0, 8, &[3, 4, 0, 0, 0, 42])),
        ("another function", tcp(0, 7, &[4, 4, 0, 0, 0, 42])),
        ("another function's exception", tcp(0, 7, &[0x84, 2])),
        ("another length", tcp(0, 7, &[3, 2, 0, 42])),
        ("a byte count that lies", tcp(0, 7, &[3, 4, 0, 42])),
        ("surplus in the frame", tcp(0, 7, &[3, 4, 0, 0, 0, 42, 9])),
        ("an exception without a code", tcp(0, 7, &[0x83])),
        ("an exception with more", tcp(0, 7, &[0x83, 2, 0])),
        ("another protocol", vec![0, 0, 0, 1, 0, 7, 7, 3, 4, 0, 0, 0, 42]),
        ("no length", vec![0, 0, 0, 0, 0, 0]),
        ("too short a length", vec![0, 0, 0, 0, 0, 1, 7]),
        ("too long a length", vec![0, 0, 0, 0, 1, 0, 7, 3]),
        ("text", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in table {
        let (line, server) = Server::start().await;
        let mut peer = server.connection().await;
        let asking = line.call_meanwhile(call(7, read(16, 2)));
        peer.hear(&asks(0, 16)).await;
        peer.say(&bytes).await;
        let wire = patient(asking).await.unwrap();
        assert!(matches!(wire, Wire::BadReply(_)), "{what}: {wire:?}");
        // The bus has closed it without another byte, and begins afresh.
        let mut rest = Vec::new();
        let _ = patient(tokio::io::AsyncReadExt::read_to_end(&mut *peer, &mut rest)).await;
        assert!(rest.is_empty(), "{what}: {rest:02x?}");
        let next = line.call_meanwhile(call(7, read(16, 2)));
        let mut peer = server.connection().await;
        peer.hear(&asks(0, 16)).await;
        peer.say(&tells(0, 1)).await;
        assert_eq!(patient(next).await.unwrap(), words(&[0, 1]), "after {what}");
    }
}

#[tokio::test]
async fn half_an_answer_is_a_bad_reply() {
    let (line, server) = Server::start().await;
    let mut peer = server.connection().await;
    let asking = line.call_meanwhile(call(7, read(16, 2)));
    peer.hear(&asks(0, 16)).await;
    peer.say(&tells(0, 42)[..11]).await;
    drop(peer);
    let wire = patient(asking).await.unwrap();
    assert!(matches!(wire, Wire::BadReply(_)), "{wire:?}");
}

#[tokio::test]
async fn an_answer_that_stops_half_way_was_cut_and_is_not_called_silence() {
    let (line, server) = Server::start().await;
    let mut peer = server.connection().await;
    let asking = line.call_meanwhile(listening(7, read(16, 2)));
    peer.hear(&asks(0, 16)).await;
    peer.say(&tells(0, 42)[..11]).await;
    let wire = patient(asking).await.unwrap();
    assert!(matches!(&wire, Wire::NoAnswer(why) if why.contains("cut") && why.contains("11 bytes")), "{wire:?}");
}

#[tokio::test]
async fn what_is_wrong_with_an_answer_is_said_to_a_person() {
    let coil = || Request::WriteBits { address: 3, bits: vec![true], multiple: false };
    let table: [(Request, Vec<u8>, &[&str]); 4] = [
        (read(16, 2), tcp(0, 9, &[3, 4, 0, 0, 0, 42]), &["of unit 9", "unit 7 was asked"]),
        (read(16, 2), tells(5, 42), &["under transaction id", "is under way"]),
        (coil(), tcp(0, 7, &[5, 0, 3, 0x12, 0x34]), &["unit 7", "05 00 03 12 34"]),
        (read(16, 2), tcp(0, 7, &[3, 4, 0, 0, 0, 42, 9]), &["unit 7", "2a 09"]),
    ];
    for (request, answer, parts) in table {
        let (line, server) = Server::start().await;
        let mut peer = server.connection().await;
        let asking = line.call_meanwhile(call(7, request));
        peer.hear_any().await;
        peer.say(&answer).await;
        let Wire::BadReply(why) = patient(asking).await.unwrap() else { panic!("{parts:?}") };
        assert!(parts.iter().all(|part| why.contains(part)), "{why}");
        assert!(!why.contains("{}") && !why.contains("undecoded"), "{why}");
    }
}

#[tokio::test]
async fn what_the_turnaround_has_made_too_late_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let kind = BusKind::ModbusTcp { address: listener.local_addr().unwrap().to_string() };
    let line = Running::with_turnaround(kind, Duration::from_millis(400));
    let server = Server(listener);
    let mut peer = server.connection().await;
    let asking = line.call_meanwhile(call(7, read(16, 2)));
    peer.hear(&asks(0, 16)).await;
    peer.say(&tells(0, 1)).await;
    patient(asking).await.unwrap();
    let soon = tokio::time::Instant::now() + Duration::from_millis(50);
    let wire = line.call(Call { not_after: Some(soon), ..call(7, write(16, 5)) }).await;
    assert!(matches!(&wire, Wire::NotSent(why) if why.contains("in time")), "{wire:?}");
    let asking = line.call_meanwhile(call(7, read(16, 2)));
    peer.hear(&asks(1, 16)).await;
    peer.say(&tells(1, 1)).await;
    assert_eq!(patient(asking).await.unwrap(), words(&[0, 1]), "and nothing of the other went out");
}

#[tokio::test]
async fn an_answer_may_come_byte_by_byte() {
    let (line, server) = Server::start().await;
    let mut peer = server.connection().await;
    let asking = line.call_meanwhile(call(7, read(16, 2)));
    peer.hear(&asks(0, 16)).await;
    for byte in peer.numbered(&tells(0, 42)) {
        Peer::say(&mut *peer, &[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(patient(asking).await.unwrap(), words(&[0, 42]));
}

#[tokio::test]
async fn a_server_that_closes_idle_connections_is_connected_to_anew() {
    let (line, server) = Server::start().await;
    for noticed in [true, false, true] {
        let asking = line.call_meanwhile(call(7, read(16, 2)));
        let mut peer = server.connection().await;
        peer.hear(&asks(0, 16)).await;
        peer.say(&tells(0, 1)).await;
        assert_eq!(patient(asking).await.unwrap(), words(&[0, 1]));
        drop(peer);
        if noticed {
            assert_eq!(line.until("closed").await.last_error, None);
        }
    }
    assert_eq!((line.snapshot().exchanges, line.snapshot().timeouts), (3, 0));
}

#[tokio::test]
async fn a_server_that_takes_one_connection_has_it_for_a_turn_and_is_free_for_others_then() {
    let server = Server::bind().await;
    let kind = BusKind::ModbusTcp { address: server.address() };
    let line = Running::that_closes_after_each_turn(kind, PATIENCE);
    // It was tried once.
    server.accept().await.ends().await;
    for value in 0..3 {
        let asking = line.call_meanwhile(call(7, read(16, 2)));
        let mut peer = server.connection().await;
        peer.hear(&asks(0, 16)).await;
        peer.say(&tells(0, value)).await;
        assert_eq!(patient(asking).await.unwrap(), words(&[0, value.into()]));
        peer.ends().await;
        assert_eq!(line.until("closed").await.last_error, None);
        server.is_left_alone().await;
    }
}

#[tokio::test]
async fn a_server_that_is_deaf_at_first_is_asked_nothing_until_it_hears() {
    let (server, pause) = (Server::bind().await, Duration::from_millis(300));
    let kind = BusKind::ModbusTcp { address: server.address() };
    let line = Running::with_connect_pause(kind, pause);
    for _ in 0..2 {
        let asking = line.call_meanwhile(call(7, read(16, 2)));
        let mut peer = server.connection().await;
        let accepted = Instant::now();
        peer.hear(&asks(0, 16)).await;
        // Whoever connects knows it a little before, or after.
        assert!(accepted.elapsed() > pause / 2, "{:?}", accepted.elapsed());
        peer.say(&tells(0, 1)).await;
        assert_eq!(patient(asking).await.unwrap(), words(&[0, 1]));
        drop(peer);
        line.until("closed").await;
    }
}

#[tokio::test]
async fn a_server_that_speaks_unasked_is_connected_to_anew() {
    let (line, server) = Server::start().await;
    let mut peer = server.connection().await;
    peer.say(&tells(0, 99)).await;
    let asking = line.call_meanwhile(call(7, read(16, 2)));
    let mut peer = server.connection().await;
    peer.hear(&asks(0, 16)).await;
    peer.say(&tells(0, 1)).await;
    assert_eq!(patient(asking).await.unwrap(), words(&[0, 1]));
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_leaves_it_in_doubt_and_is_not_tried_again() {
    let (line, server) = Server::start().await;
    let mut peer = server.connection().await;
    let asking = line.call_meanwhile(call(7, write(16, 5)));
    peer.hear(&tcp(0, 7, &[6, 0, 16, 0, 5])).await;
    drop(peer);
    let wire = patient(asking).await.unwrap();
    assert!(matches!(wire, Wire::NoAnswer(_)), "{wire:?}");
    server.is_left_alone().await;
}

#[tokio::test]
async fn a_server_that_is_away_is_explained_and_found_when_it_is_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    drop(listener);
    let line = Running::start(BusKind::ModbusTcp { address: at.to_string() });
    let wire = line.call(call(7, read(16, 2))).await;
    let Wire::NotSent(why) = wire else { panic!("{wire:?}") };
    assert!(why.contains(&at.to_string()) && why.contains("refuses"), "{why}");
    let status = line.status();
    assert_eq!((status.state.as_str(), status.last_error, line.snapshot().exchanges), ("opening", Some(why), 0));

    // It is looked for all the time, and found without a call.
    let server = Server(TcpListener::bind(at).await.unwrap());
    let mut peer = server.connection().await;
    assert_eq!(line.until("open").await.last_error, None);
    let asking = line.call_meanwhile(call(7, read(16, 2)));
    peer.hear(&asks(0, 16)).await;
    peer.say(&tells(0, 1)).await;
    assert_eq!(patient(asking).await.unwrap(), words(&[0, 1]));
}

#[tokio::test]
async fn a_name_is_looked_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    let _line = Running::start(BusKind::ModbusTcp { address });
    Server(listener).accept().await;
    let nowhere = "no-such-host.invalid:502".to_owned();
    let line = Running::start(BusKind::ModbusTcp { address: nowhere });
    let wire = line.call(call(7, read(16, 2))).await;
    assert!(matches!(&wire, Wire::NotSent(why) if why.contains("no-such-host")), "{wire:?}");
}

#[tokio::test]
async fn any_bytes_end_in_an_outcome() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (line, server) = Server::start().await;
    let mut peer = server.connection().await;
    let mut transaction = 0;
    for _ in 0..200 {
        let mut bytes = tells(transaction, 1);
        for _ in 0..rng.usize(..4) {
            let at = rng.usize(..bytes.len());
            bytes[at] = rng.u8(..);
        }
        bytes.truncate(rng.usize(1..=bytes.len()));
        let asking = line.call_meanwhile(hasty(7, read(16, 2)));
        peer.hear(&asks(transaction, 16)).await;
        peer.say(&bytes).await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut *peer).await;
        let wire = patient(asking).await.unwrap();
        assert!(!matches!(wire, Wire::NotSent(_)), "{bytes:02x?}: {wire:?}");
        // The next call makes a new connection, whatever became of this one.
        let waking = line.call_meanwhile(hasty(7, read(1, 2)));
        peer = server.connection().await;
        peer.hear(&asks(0, 1)).await;
        peer.say(&tells(0, 1)).await;
        patient(waking).await.unwrap();
        transaction = 1;
    }
}
