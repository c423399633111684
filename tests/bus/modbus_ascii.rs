//! Modbus ASCII against a scripted unit at the far end of a pseudo-terminal, or of a connection.
//!
//! What is no matter of the framing is shown in `modbus_rtu`, of the same line. Proves here G3 at the line (a request
//! is sent once), G8 (whatever the line says ends in an outcome) and G12 (a late answer, or an echo, confirms nothing).

use std::time::Duration;

use crate::modbus_rtu::over_tcp::is_nobodys_on_the_next_connection;
use crate::modbus_rtu::words;
use crate::modbus_tcp::Server;
use crate::peers::{ascii, call, hasty, listening, patient, read, rtu, write, Peer, Pty, Running};
use fieldbridge::bus::call::{Call, Wire};
use fieldbridge::config::{BusKind, Endpoint, LowLatency, Parity, SerialPort};
use fieldbridge::peripheral::exchange::{Answer, Refusal, Request};

/// As the specification has it: 7 data bits, even parity.
fn at(pty: &Pty) -> BusKind {
    let (baud, parity) = (115_200, Parity::Even);
    BusKind::ModbusAscii(Endpoint::Serial(SerialPort {
        path: pty.path(),
        baud,
        parity,
        data_bits: 7,
        stop_bits: 1,
        rs485: None,
        low_latency: LowLatency::IfPossible,
    }))
}

fn start() -> (Running, Pty) {
    let pty = Pty::new();
    (Running::start(at(&pty)), pty)
}

/// A line at a server.
async fn start_at_a_server() -> (Running, Server) {
    let server = Server::bind().await;
    (Running::start(BusKind::ModbusAscii(Endpoint::Tcp(server.address()))), server)
}

fn asks(unit: u8, address: u8) -> Vec<u8> {
    ascii(&[unit, 3, 0, address, 0, 2])
}

fn tells(unit: u8, value: u8) -> Vec<u8> {
    ascii(&[unit, 3, 4, 0, 0, 0, value])
}

/// The write of one register, which is also its answer.
fn sets(unit: u8, value: u8) -> Vec<u8> {
    ascii(&[unit, 6, 0, 16, 0, value])
}

/// A read, writes and a refusal, by a unit that speaks so.
async fn serves(line: &Running, peer: &mut impl Peer, spoken: fn(&[u8]) -> Vec<u8>) {
    let unit = async {
        peer.hear(b":070300100002E4\r\n").await;
        peer.say(&spoken(b":0703040000002AC8\r\n")).await;
        peer.hear(b":070600100005DE\r\n").await;
        peer.say(&spoken(b":070600100005DE\r\n")).await;
        peer.hear(&ascii(&[7, 15, 0, 1, 0, 3, 1, 0b110])).await;
        peer.say(&spoken(&ascii(&[7, 0x8F, 2]))).await;
    };
    let caller = async {
        let mut turn = line.bus.turn().await.unwrap();
        assert_eq!(turn.exchange(&call(7, read(16, 2))).await, words(&[0, 42]));
        assert_eq!(turn.exchange(&call(7, write(16, 5))).await, Wire::Answered(Answer::Written));
        let coils = Request::WriteBits { address: 1, bits: vec![false, true, true], multiple: false };
        assert_eq!(turn.exchange(&call(7, coils)).await, Wire::Refused(Refusal::Exception(2)));
    };
    patient(async { tokio::join!(unit, caller) }).await;
}

#[tokio::test]
async fn an_answer_is_taken_a_write_confirmed_and_a_refusal_told_in_either_case_of_the_digits() {
    for spoken in [<[u8]>::to_vec, <[u8]>::to_ascii_lowercase] {
        let (line, mut pty) = start();
        serves(&line, &mut pty.peer, spoken).await;
        let status = line.status();
        assert_eq!((status.kind, status.state.as_str(), status.last_error), ("modbus-ascii", "open", None));
        assert_eq!((status.exchanges, status.timeouts), (3, 0));

        let (line, server) = start_at_a_server().await;
        serves(&line, &mut server.accept().await, spoken).await;
    }
}

/// What is no answer to `asks(7, 16)`.
fn no_answers() -> Vec<(&'static str, Vec<u8>)> {
    let good = tells(7, 42);
    let cut = |from: usize, to: usize| [&good[..from], &good[to..]].concat();
    let mut bad_lrc = good.clone();
    bad_lrc[16] = b'9';
    vec![
        ("half a frame", good[..9].to_vec()),
        ("a frame without its LF", good[..18].to_vec()),
        ("a bad LRC", bad_lrc),
        ("a frame that lost a digit", cut(9, 10)),
        ("a frame that lost its colon", good[1..].to_vec()),
        ("a frame that ends with LF alone", cut(17, 18)),
        ("a frame with a blank in it", [&good[..5], b" ", &good[5..]].concat()),
        ("a foreign unit", tells(8, 42)),
        ("a foreign unit's exception", ascii(&[8, 0x83, 2])),
        ("another function", ascii(&[7, 4, 4, 0, 0, 0, 42])),
        ("another length", ascii(&[7, 3, 2, 0, 42])),
        ("an echo of the request", asks(7, 16)),
        ("an RTU frame", rtu(&[7, 3, 4, 0, 0, 0, 42])),
        ("a colon", b":".to_vec()),
        ("colons", vec![b':'; 600]),
        ("digits without end", [b":", &[b'0'; 700][..]].concat()),
        ("garbage", (0..=255).collect()),
        ("another master's request and its answer", [asks(8, 16), tells(8, 1)].concat()),
    ]
}

#[tokio::test]
async fn the_answer_is_found_behind_whatever_comes_before_it_in_whatever_pieces() {
    let (line, mut pty) = start();
    let (far_line, server) = start_at_a_server().await;
    let mut far = server.accept().await;
    for (what, bytes) in no_answers() {
        for piece in [1, 5, bytes.len()] {
            finds(&line, &mut pty.peer, what, bytes.chunks(piece)).await;
            finds(&far_line, &mut far, what, bytes.chunks(piece)).await;
        }
    }
    assert_eq!((line.status().state.as_str(), far_line.status().state.as_str()), ("open", "open"));
}

async fn finds(line: &Running, peer: &mut impl Peer, what: &str, pieces: std::slice::Chunks<'_, u8>) {
    let asking = line.call_meanwhile(call(7, read(16, 2)));
    peer.hear(&asks(7, 16)).await;
    for piece in pieces {
        peer.say(piece).await;
        tokio::task::yield_now().await;
    }
    peer.say(&tells(7, 42)).await;
    assert_eq!(patient(asking).await.unwrap(), words(&[0, 42]), "behind {what}");
}

#[tokio::test]
async fn what_is_not_the_answer_is_a_bad_reply_and_nothing_is_sent_again() {
    for (what, bytes) in no_answers() {
        let (line, mut pty) = start();
        let asking = line.call_meanwhile(listening(7, read(16, 2)));
        pty.peer.hear(&asks(7, 16)).await;
        pty.peer.say(&bytes).await;
        let wire = patient(asking).await.unwrap();
        let Wire::BadReply(why) = wire else { panic!("{what}: {wire:?}") };
        assert!(!why.contains(char::is_control), "{what}: {why:?}");
        if what == "a foreign unit" {
            assert!(why.contains("a frame of unit 8 with function 3: :0803040000002AC7\\r\\n"), "{why}");
        }
        pty.peer.hear_nothing().await;
    }
}

#[tokio::test]
async fn a_write_that_echoes_another_value_is_not_confirmed() {
    for echo in [[7, 6, 0, 16, 0, 6], [7, 6, 0, 17, 0, 5], [8, 6, 0, 16, 0, 5]] {
        let (line, mut pty) = start();
        let asking = line.call_meanwhile(listening(7, write(16, 5)));
        pty.peer.hear(&sets(7, 5)).await;
        pty.peer.say(&ascii(&echo)).await;
        let wire = patient(asking).await.unwrap();
        assert!(matches!(wire, Wire::BadReply(_)), "{wire:?}");
    }
}

#[tokio::test]
async fn silence_is_no_answer_and_a_late_answer_is_never_the_next_requests() {
    let (line, mut pty) = start();
    assert!(matches!(line.call(hasty(7, read(16, 2))).await, Wire::NoAnswer(_)));
    pty.peer.hear(&asks(7, 16)).await;
    let next = line.call_meanwhile(call(7, read(32, 2)));
    pty.peer.hear_nothing().await;
    // Another unit, whose answer can be told apart, is asked meanwhile.
    let other = line.call_meanwhile(call(8, read(16, 2)));
    pty.peer.hear(&asks(8, 16)).await;
    pty.peer.say(&tells(8, 8)).await;
    assert_eq!(patient(other).await.unwrap(), words(&[0, 8]));
    pty.peer.say(&tells(7, 99).to_ascii_lowercase()).await;
    pty.peer.hear(&asks(7, 32)).await;
    pty.peer.say(&tells(7, 1)).await;
    assert_eq!(patient(next).await.unwrap(), words(&[0, 1]));
    assert_eq!(line.status().timeouts, 1);
}

#[tokio::test]
async fn a_late_answer_that_comes_on_the_next_connection_answers_nobody() {
    is_nobodys_on_the_next_connection(BusKind::ModbusAscii, asks, tells).await;
}

#[tokio::test]
async fn a_late_exception_refuses_nothing_but_its_own_request() {
    let (line, mut pty) = start();
    assert!(matches!(line.call(hasty(7, write(16, 5))).await, Wire::NoAnswer(_)));
    pty.peer.hear(&sets(7, 5)).await;
    let next = line.call_meanwhile(call(7, write(17, 5)));
    let request = ascii(&[7, 6, 0, 17, 0, 5]);
    pty.peer.hear(&request).await;
    pty.peer.say(&[ascii(&[7, 0x86, 2]), request].concat()).await;
    assert_eq!(patient(next).await.unwrap(), Wire::Answered(Answer::Written));
}

#[tokio::test]
async fn two_exceptions_that_differ_refuse_nothing_as_one_of_them_is_an_earlier_requests() {
    let (line, mut pty) = start();
    assert!(matches!(line.call(hasty(7, write(16, 5))).await, Wire::NoAnswer(_)));
    pty.peer.hear(&sets(7, 5)).await;
    let next = line.call_meanwhile(call(7, write(17, 5)));
    pty.peer.hear(&ascii(&[7, 6, 0, 17, 0, 5])).await;
    pty.peer.say(&[ascii(&[7, 0x86, 5]), ascii(&[7, 0x86, 3])].concat()).await;
    let wire = patient(next).await.unwrap();
    assert!(matches!(&wire, Wire::BadReply(why) if why.contains("exceptions 5 and 3")), "{wire:?}");
}

#[tokio::test]
async fn an_echo_confirms_nothing_and_is_taken_out_where_that_is_said() {
    let pty = Pty::new();
    let line = Running::start(at(&pty));
    let mut peer = pty.peer;
    let asking = line.call_meanwhile(call(7, read(16, 2)));
    peer.hear(&asks(7, 16)).await;
    peer.say(&[asks(7, 16), tells(7, 42)].concat()).await;
    assert_eq!(patient(asking).await.unwrap(), words(&[0, 42]));
    assert!(line.status().last_error.unwrap().contains("strip"));
    // A unit that is switched off.
    let writing = line.call_meanwhile(listening(8, write(16, 5)));
    peer.hear(&sets(8, 5)).await;
    peer.say(&sets(8, 5)).await;
    let wire = patient(writing).await.unwrap();
    assert!(matches!(&wire, Wire::BadReply(why) if why.contains("echo")), "{wire:?}");

    let pty = Pty::new();
    let line = Running::that_strips_echoes(at(&pty));
    let mut peer = pty.peer;
    let writing = line.call_meanwhile(call(7, write(16, 5)));
    peer.hear(&sets(7, 5)).await;
    peer.say(&[sets(7, 5), sets(7, 5)].concat()).await;
    assert_eq!(patient(writing).await.unwrap(), Wire::Answered(Answer::Written));
    assert_eq!(line.status().last_error, None);
}

#[tokio::test]
async fn any_bytes_end_in_an_outcome() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (line, mut pty) = start();
    let mut turn = line.bus.turn().await.unwrap();
    for _ in 0..20 {
        let good = tells(7, 42);
        let mut bytes: Vec<u8> = (0..rng.usize(1..600)).map(|_| b":07304aF\r\nx"[rng.usize(0..11)]).collect();
        bytes.extend(&good[rng.usize(0..good.len())..]);
        let asking = Call { timeout: Some(Duration::from_millis(5)), ..call(7, read(16, 2)) };
        let exchange = tokio::spawn(async move { (turn.exchange(&asking).await, turn) });
        pty.peer.hear(&asks(7, 16)).await;
        pty.peer.say(&bytes).await;
        let (wire, held) = patient(exchange).await.unwrap();
        turn = held;
        assert!(!matches!(wire, Wire::NotSent(_)), "{wire:?}");
    }
    assert_eq!(line.status().state.as_str(), "open");
}
