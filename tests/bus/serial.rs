//! Lines of text, against a scripted instrument at the far end of a pseudo-terminal, or of a connection.
//!
//! Proves G3 at the line (a command is sent once; a late reply confirms nothing but its own command) and G8 (whatever
//! an instrument says ends in an outcome, with bounded memory).

use std::time::{Duration, Instant};

use crate::modbus_tcp::Server;
use crate::peers::{self, hasty, listening, patient, Peer, Pty, Running, PATIENCE, SHORT};
use fieldbridge::bus::call::{Call, Wire};
use fieldbridge::config::{BusKind, Endpoint};
use fieldbridge::peripheral::exchange::{Answer, Refusal, Request};
use regex_lite::Regex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn start() -> (Running, Pty) {
    start_at(115_200)
}

fn start_at(baud: u32) -> (Running, Pty) {
    let pty = Pty::new();
    let kind = BusKind::Serial { endpoint: pty.port(baud), cut: b"\r\n".to_vec().into(), wake: None };
    // So that the line counts as quiet soon.
    (Running::with_timeout(kind, SHORT), pty)
}

/// A call that is sure to be answered in time.
fn call(request: Request) -> Call {
    Call { timeout: Some(PATIENCE), ..peers::call(0, request) }
}

/// A command that `OK` confirms, with what follows as its result, and that `ERR` refuses.
fn send(text: &str) -> Call {
    call(line(text, Some("^OK ?(.*)"), Some("^ERR ?(.*)")))
}

fn send_listening(text: &str) -> Call {
    listening(0, line(text, Some("^OK ?(.*)"), Some("^ERR ?(.*)")))
}

fn send_hasty(text: &str) -> Call {
    hasty(0, line(text, Some("^OK ?(.*)"), Some("^ERR ?(.*)")))
}

fn line(text: &str, expect: Option<&str>, refuse: Option<&str>) -> Request {
    let regex = |pattern: &str| Regex::new(pattern).expect("a valid pattern");
    Request::line(text.as_bytes().to_vec(), expect.map(regex), refuse.map(regex))
}

/// A line that is sent for what the reply says.
fn reading(text: &str, expect: &str) -> Request {
    let Request::Line { bytes, expect, picture, refuse, until, .. } = line(text, Some(expect), None) else {
        unreachable!()
    };
    Request::Line { bytes, expect, picture, refuse, until, is_reading: true }
}

fn said(text: &str) -> Wire {
    Wire::Answered(Answer::Line(text.into()))
}

#[tokio::test]
async fn lines_come_over_a_serial_server_too_and_over_its_next_connection() {
    let server = Server::bind().await;
    let endpoint = Endpoint::Tcp(server.address());
    let line = Running::with_timeout(BusKind::Serial { endpoint, cut: b"\r\n".to_vec().into(), wake: None }, SHORT);
    for value in ["1", "2"] {
        let asking = line.call_meanwhile(send("T\r\n"));
        let mut peer = server.accept().await;
        peer.hear(b"T\r\n").await;
        peer.say(format!("OK {value}\r\n").as_bytes()).await;
        assert_eq!(patient(asking).await.unwrap(), said(value));
        drop(peer);
        line.until("closed").await;
    }
}

#[tokio::test]
async fn a_late_reply_on_the_next_connection_of_a_line_that_is_closed_after_each_turn_is_nobodys() {
    let server = Server::bind().await;
    let endpoint = Endpoint::Tcp(server.address());
    let kind = BusKind::Serial { endpoint, cut: b"\r\n".to_vec().into(), wake: None };
    let line = Running::that_closes_after_each_turn(kind, 2 * SHORT);
    // It was tried once.
    server.accept().await.ends().await;
    let asking = line.call_meanwhile(send_hasty("T\r\n"));
    let mut old = server.accept().await;
    old.hear(b"T\r\n").await;
    assert!(matches!(patient(asking).await.unwrap(), Wire::NoAnswer(_)));
    old.ends().await;
    let next = line.call_meanwhile(send("Z\r\n"));
    let mut new = server.accept().await;
    new.hear_nothing().await;
    new.say(b"OK 1\r\n").await;
    new.hear(b"Z\r\n").await;
    new.say(b"OK 2\r\n").await;
    assert_eq!(patient(next).await.unwrap(), said("2"));
}

#[tokio::test]
async fn a_reply_confirms_refuses_or_is_passed_over() {
    let no = |text: &str| Wire::Refused(Refusal::Text(text.into()));
    let table: [(&str, Wire); 7] = [
        ("OK\r\n", said("")),
        ("OK 12.5\r\n", said("12.5")),
        ("ERR 7\r\n", no("7")),
        // The instrument's echo, its prompt, and news of its own.
        ("T\r\nOK 1\r\n", said("1")),
        ("\r\n> T\r\nOK 2\r\nOK 3\r\n", said("2")),
        ("noise \u{1b}\r\nERR\r\n", no("")),
        ("OK \u{e9}\r\n", said("\u{e9}")),
    ];
    let (line, mut pty) = start();
    for (reply, wire) in table {
        let asking = line.call_meanwhile(send("T\r\n"));
        pty.peer.hear(b"T\r\n").await;
        pty.peer.say(reply.as_bytes()).await;
        assert_eq!(patient(asking).await.unwrap(), wire, "{reply:?}");
    }
    assert_eq!((line.status().kind, line.snapshot().exchanges), ("serial", 7));
}

#[tokio::test]
async fn without_expect_the_first_line_that_is_not_refused_confirms() {
    let (running, mut pty) = start();
    for (reply, wire) in
        [("anything\r\n", said("anything")), ("\r\n", said("")), ("no\r\n", Wire::Refused(Refusal::Text("no".into())))]
    {
        let request = line("T\r\n", None, Some("^no$"));
        let asking = running.call_meanwhile(call(request));
        pty.peer.hear(b"T\r\n").await;
        pty.peer.say(reply.as_bytes()).await;
        assert_eq!(patient(asking).await.unwrap(), wire, "{reply:?}");
    }
}

#[tokio::test]
async fn what_is_no_reply_is_a_bad_reply_and_silence_none() {
    let long = "x".repeat(5000);
    let table = [
        ("another line\r\n", "\"another line\""),
        ("OK without an end", "\"OK without an end\""),
        ("OK\r", "\"OK\\r\""),
        ("\u{7}\u{0}\r\n", "\"\\u{7}\\0\""),
        (&long, "more than 4096 bytes"),
    ];
    for (reply, shown) in table {
        let (line, mut pty) = start();
        let asking = line.call_meanwhile(send_listening("T\r\n"));
        pty.peer.hear(b"T\r\n").await;
        pty.peer.say(reply.as_bytes()).await;
        let wire = patient(asking).await.unwrap();
        assert!(matches!(&wire, Wire::BadReply(why) if why.contains(shown)), "{wire:?}");
    }
    let (line, mut pty) = start();
    let wire = line.call(send_hasty("T\r\n")).await;
    assert!(matches!(wire, Wire::NoAnswer(_)), "{wire:?}");
    pty.peer.hear(b"T\r\n").await;
    pty.peer.hear_nothing().await;
    assert_eq!((line.snapshot().exchanges, line.snapshot().timeouts), (1, 1));
}

#[tokio::test]
async fn a_reply_that_arrives_slowly_is_waited_for() {
    // 28 characters take 933 ms at 300 baud, far longer than the timeout.
    let (line, mut pty) = start_at(300);
    let asking = line.call_meanwhile(send_hasty("T\r\n"));
    pty.peer.hear(b"T\r\n").await;
    for byte in b"OK 0123456789 0123456789\r\n" {
        pty.peer.say(&[*byte]).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(patient(asking).await.unwrap(), said("0123456789 0123456789"));
}

#[tokio::test]
async fn what_was_said_before_the_command_is_no_reply_to_it() {
    let (line, mut pty) = start();
    line.until("open").await;
    let mut turn = line.bus.turn().await.unwrap();
    pty.peer.say(b"OK stale\r\n").await;
    // The bus discards it while nothing is asked; the pause lets the kernel carry it over.
    pty.peer.hear_nothing().await;
    let asking = tokio::spawn(async move { turn.exchange(&send("T\r\n")).await });
    pty.peer.hear(b"T\r\n").await;
    pty.peer.say(b"OK fresh\r\n").await;
    assert_eq!(patient(asking).await.unwrap(), said("fresh"));
}

#[tokio::test]
async fn a_late_reply_is_never_another_commands() {
    let (line, mut pty) = start();
    let started = Instant::now();
    let wire = line.call(send_hasty("T\r\n")).await;
    assert!(matches!(wire, Wire::NoAnswer(_)));
    pty.peer.hear(b"T\r\n").await;
    let next = line.call_meanwhile(send("Z\r\n"));
    pty.peer.hear_nothing().await;
    // An echo and the reply, both late: the first of them would not prove that nothing more comes.
    pty.peer.say(b"T\r\n").await;
    pty.peer.say(b"OK 1\r\n").await;
    pty.peer.hear(b"Z\r\n").await;
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(2), "{waited:?}");
    pty.peer.say(b"OK 2\r\n").await;
    assert_eq!(patient(next).await.unwrap(), said("2"));
}

#[tokio::test]
async fn a_reply_to_what_an_earlier_life_of_the_daemon_asked_is_not_this_ones() {
    let mut pty = Pty::new();
    let kind = BusKind::Serial { endpoint: pty.port(9600), cut: b"\r\n".to_vec().into(), wake: None };
    let line = Running::after_an_earlier_life(kind, Duration::from_millis(300));
    let asking = line.call_meanwhile(send("Z\r\n"));
    line.until("open").await;
    // The instrument took its time over what it was asked before the daemon was killed.
    pty.peer.say(b"OK stale\r\n").await;
    pty.peer.hear_nothing().await;
    pty.peer.hear(b"Z\r\n").await;
    pty.peer.say(b"OK fresh\r\n").await;
    assert_eq!(patient(asking).await.unwrap(), said("fresh"));
}

#[tokio::test]
async fn a_retry_in_the_same_turn_goes_out_at_once() {
    let (line, mut pty) = start();
    let mut turn = line.bus.turn().await.unwrap();
    assert!(matches!(turn.exchange(&send_hasty("T\r\n")).await, Wire::NoAnswer(_)));
    let started = Instant::now();
    pty.peer.hear(b"T\r\n").await;
    let retry = tokio::spawn(async move { turn.exchange(&send("T\r\n")).await });
    pty.peer.hear(b"T\r\n").await;
    assert!(started.elapsed() < Duration::from_secs(2));
    pty.peer.say(b"OK 1\r\n").await;
    assert_eq!(patient(retry).await.unwrap(), said("1"));
}

#[tokio::test]
async fn the_second_line_of_a_reply_is_nobodys_even_if_the_next_command_waits() {
    let (line, mut pty) = start();
    for delay in [0, 5, 30, 120] {
        let version = line.call_meanwhile(call(self::line("VERS\r\n", Some("^[0-9.]+$"), None)));
        pty.peer.hear(b"VERS\r\n").await;
        let dispense = line.call_meanwhile(send("DISPENSE\r\n"));
        pty.peer.say(b"1999.0\r\n").await;
        tokio::time::sleep(Duration::from_millis(delay)).await;
        pty.peer.say(b"OK\r\n").await;
        assert_eq!(patient(version).await.unwrap(), said("1999.0"));
        pty.peer.hear(b"DISPENSE\r\n").await;
        pty.peer.say(b"ERR interlock\r\n").await;
        let refused = Wire::Refused(Refusal::Text("interlock".into()));
        assert_eq!(patient(dispense).await.unwrap(), refused, "a second line after {delay} ms");
    }
}

#[tokio::test]
async fn a_scale_that_reports_all_the_time_is_read_in_whole_lines() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for baud in [1200, 9600, 115_200] {
        let (line, pty) = start_at(baud);
        let (mut hear, mut say) = tokio::io::split(pty.peer);
        // What it is asked, it takes and never minds.
        let hearing = tokio::spawn(async move { while hear.read_u8().await.is_ok() {} });
        let mut phases = rng.fork();
        let reporting = tokio::spawn(async move {
            loop {
                for piece in b"W +0012.5 kg\r\n".chunks(phases.usize(1..8)) {
                    patient(say.write_all(piece)).await.unwrap();
                    tokio::time::sleep(Duration::from_secs(10) / baud * piece.len() as u32).await;
                }
            }
        });
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(rng.u64(..200))).await;
            let weighed = line.call(call(reading("S\r\n", r"([0-9.]+) kg"))).await;
            assert_eq!(weighed, said("0012.5"), "{baud} baud");
        }
        hearing.abort();
        reporting.abort();
    }
}

#[tokio::test]
async fn a_command_gets_its_turn_however_often_a_scale_that_reports_is_read() {
    let (running, pty) = start();
    running.until("open").await;
    let (mut hear, mut say) = tokio::io::split(pty.peer);
    let reporting = tokio::spawn(async move {
        loop {
            patient(say.write_all(b"W +0012.5 kg\r\n")).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let weigh = || Call { timeout: Some(Duration::from_millis(500)), ..call(reading("S\r\n", r"([0-9.]+) kg")) };
    let weighing = || async {
        loop {
            running.call(weigh()).await;
        }
    };
    let taring = async {
        // What it says has passed for the answer by now.
        for _ in 0..4 {
            running.call(weigh()).await;
        }
        running.call(hasty(0, line("T\r\n", Some("^OK"), None))).await
    };
    let hearing = async {
        let mut heard = Vec::new();
        while !heard.ends_with(b"T\r\n") {
            heard.push(hear.read_u8().await.unwrap());
        }
    };
    tokio::select! {
        _ = patient(async { tokio::join!(taring, hearing) }) => {}
        _ = async { tokio::join!(weighing(), weighing()) } => unreachable!("it is read for ever"),
    }
    reporting.abort();
}

#[tokio::test]
async fn a_port_that_goes_in_the_middle_of_a_reply_leaves_the_command_in_doubt() {
    let (line, mut pty) = start();
    let asking = line.call_meanwhile(send("T\r\n"));
    pty.peer.hear(b"T\r\n").await;
    pty.peer.say(b"O").await;
    let folder = pty.unplug();
    let wire = patient(asking).await.unwrap();
    assert!(matches!(wire, Wire::NoAnswer(_)), "{wire:?}");
    let mut pty = Pty::plug(folder);
    line.until("open").await;
    pty.peer.hear_nothing().await;
}

#[tokio::test]
async fn a_modbus_request_is_not_sent_on_a_line_of_text() {
    let (line, mut pty) = start();
    let wire = line.call(peers::call(7, peers::read(0, 1))).await;
    assert!(matches!(wire, Wire::NotSent(_)), "{wire:?}");
    pty.peer.hear_nothing().await;
}

#[tokio::test]
async fn any_bytes_end_in_an_outcome() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (line, mut pty) = start();
    let mut turn = line.bus.turn().await.unwrap();
    for _ in 0..40 {
        let pieces: [&[u8]; 6] = [b"OK", b"\r\n", b"ERR", b"\xFF\xFE", b"\r", b"\0\x1b["];
        let bytes: Vec<u8> = (0..rng.usize(1..300)).flat_map(|_| pieces[rng.usize(..6)].to_vec()).collect();
        let mut call = send("T\r\n");
        call.timeout = Some(Duration::from_millis(20));
        let exchange = tokio::spawn(async move { (turn.exchange(&call).await, turn) });
        pty.peer.hear(b"T\r\n").await;
        pty.peer.say(&bytes).await;
        let (wire, held) = patient(exchange).await.unwrap();
        turn = held;
        assert!(!matches!(wire, Wire::NotSent(_)), "{wire:?}");
    }
}
