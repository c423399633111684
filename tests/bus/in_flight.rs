//! Modbus TCP with several requests under way at once, against a scripted server. Proves G3, G11 and G12 where answers
//! come out of order, late, twice, under ids that nobody asked under, or not at all.

use std::time::Duration;

use crate::modbus_tcp::Server;
use crate::peers::{self, listening, patient, read, write, Peer, Running, PATIENCE, SHORT};
use fieldbridge::bus::call::{Call, Wire};
use fieldbridge::config::BusKind;
use fieldbridge::peripheral::exchange::Answer;
use tokio::net::TcpStream;

async fn start(most: usize) -> (Running, Server) {
    let server = Server::bind().await;
    let kind = BusKind::ModbusTcp { address: server.address() };
    (Running::side_by_side(kind, most, PATIENCE), server)
}

/// A request as the server hears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    transaction: u16,
    unit: u8,
    /// The register that is read or written.
    address: u16,
    function: u8,
}

/// Hears the next request, which reads or writes one register: all of these are of the same length.
async fn hear(peer: &mut TcpStream) -> Asked {
    let mut frame = [0; 12];
    patient(tokio::io::AsyncReadExt::read_exact(peer, &mut frame)).await.unwrap();
    assert_eq!(frame[2..6], [0, 0, 0, 6], "{frame:02x?}");
    let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    Asked { transaction: word(0), unit: frame[6], address: word(8), function: frame[7] }
}

impl Asked {
    /// The answer to a read, under this transaction.
    fn value_under(self, transaction: u16, value: u16) -> Vec<u8> {
        let [high, low] = value.to_be_bytes();
        [&transaction.to_be_bytes()[..], &[0, 0, 0, 5, self.unit, 3, 2, high, low]].concat()
    }

    fn value(self, value: u16) -> Vec<u8> {
        self.value_under(self.transaction, value)
    }
}

fn said(value: u16) -> Wire {
    Wire::Answered(Answer::Words(vec![value]))
}

#[tokio::test]
async fn each_answer_is_its_own_requests_in_whatever_order_they_come() {
    let (line, server) = start(3).await;
    let calls: Vec<_> = (1..=5).map(|unit| line.call_meanwhile(peers::call(unit, read(u16::from(unit), 1)))).collect();
    let mut peer = server.accept().await;
    let mut asked = Vec::new();
    for _ in 0..3 {
        asked.push(hear(&mut peer).await);
    }
    peer.hear_nothing().await;
    // The last one first, and in one go with the first.
    let both = [asked[2].value(30 + u16::from(asked[2].unit)), asked[0].value(30 + u16::from(asked[0].unit))].concat();
    peer.say(&both).await;
    for _ in 0..2 {
        asked.push(hear(&mut peer).await);
    }
    for left in [asked[4], asked[1], asked[3]] {
        peer.say(&left.value(30 + u16::from(left.unit))).await;
    }
    for (unit, call) in (1..).zip(calls) {
        assert_eq!(patient(call).await.unwrap(), said(30 + unit));
    }
    let mut units: Vec<u8> = asked.iter().map(|asked| asked.unit).collect();
    units.sort_unstable();
    assert_eq!(units, [1, 2, 3, 4, 5]);
    assert_eq!(line.snapshot().exchanges, 5);
}

#[tokio::test]
async fn no_unit_is_asked_two_things_at_once_and_nothing_comes_between_two_requests_of_one_turn_to_it() {
    let (line, server) = start(4).await;
    let mut turn = patient(line.bus.turn()).await.unwrap();
    let mut peer = server.accept().await;
    let first = peers::call(1, read(10, 1));
    let second = peers::call(1, write(11, 5));
    let both = async {
        let first = turn.exchange(&first).await;
        let second = turn.exchange(&second).await;
        drop(turn);
        (first, second)
    };
    let script = async {
        let asked = hear(&mut peer).await;
        assert_eq!((asked.unit, asked.address), (1, 10));
        // Somebody else wants the same unit, and a third another one.
        let same = line.call_meanwhile(peers::call(1, read(20, 1)));
        let other = line.call_meanwhile(peers::call(2, read(30, 1)));
        let beside = hear(&mut peer).await;
        assert_eq!((beside.unit, beside.address), (2, 30));
        peer.say(&beside.value(2)).await;
        assert_eq!(patient(other).await.unwrap(), said(2));
        peer.hear_nothing().await;
        peer.say(&asked.value(7)).await;
        let asked = hear(&mut peer).await;
        assert_eq!((asked.unit, asked.address, asked.function), (1, 11, 6));
        let echo = [&asked.transaction.to_be_bytes()[..], &[0, 0, 0, 6, 1, 6, 0, 11, 0, 5]].concat();
        peer.say(&echo).await;
        let asked = hear(&mut peer).await;
        assert_eq!((asked.unit, asked.address), (1, 20));
        peer.say(&asked.value(9)).await;
        assert_eq!(patient(same).await.unwrap(), said(9));
    };
    let ((first, second), ()) = patient(async { tokio::join!(both, script) }).await;
    assert_eq!((first, second), (said(7), Wire::Answered(Answer::Written)));
}

#[tokio::test]
async fn a_late_answer_and_one_that_comes_twice_are_nobodys_and_the_others_go_on() {
    let (line, server) = start(2).await;
    let slow = line.call_meanwhile(listening(1, read(1, 1)));
    let mut peer = server.accept().await;
    let late = hear(&mut peer).await;
    let held = line.call_meanwhile(peers::call(2, read(2, 1)));
    let other = hear(&mut peer).await;
    let Wire::NoAnswer(why) = patient(slow).await.unwrap() else { panic!("it was answered") };
    assert!(why.contains("unit 1 did not answer within 1s"), "{why}");
    // It comes now, while another is awaited; and the other's comes twice.
    peer.say(&late.value(99)).await;
    peer.say(&other.value(5)).await;
    assert_eq!(patient(held).await.unwrap(), said(5));
    let next = line.call_meanwhile(peers::call(3, read(3, 1)));
    // Nothing was heard before the first one ended: so a new connection may be made.
    let (mut peer, asked) = next_request(&server, peer).await;
    peer.say(&late.value(98)).await;
    peer.say(&other.value(6)).await;
    peer.say(&asked.value(7)).await;
    assert_eq!(patient(next).await.unwrap(), said(7));
}

/// The next request, on this connection or on the next.
async fn next_request(server: &Server, mut peer: TcpStream) -> (TcpStream, Asked) {
    tokio::select! {
        biased;
        mut next = server.accept() => {
            let asked = hear(&mut next).await;
            (next, asked)
        }
        asked = hear_or_end(&mut peer) => match asked {
            Some(asked) => (peer, asked),
            None => {
                let mut next = server.accept().await;
                let asked = hear(&mut next).await;
                (next, asked)
            }
        },
    }
}

/// The next request; `None` if the connection ends before.
async fn hear_or_end(peer: &mut TcpStream) -> Option<Asked> {
    patient(peer.readable()).await.unwrap();
    let ended = matches!(patient(peer.peek(&mut [0])).await, Ok(0) | Err(_));
    if ended {
        None
    } else {
        Some(hear(peer).await)
    }
}

#[tokio::test]
async fn an_answer_under_an_id_that_nobody_asked_under_confirms_nothing_and_is_told_to_who_waits_in_vain() {
    let (line, server) = start(4).await;
    let waits = line.call_meanwhile(Call { timeout: Some(10 * SHORT), ..peers::call(1, write(1, 7)) });
    let mut peer = server.accept().await;
    let asked = hear(&mut peer).await;
    let other = line.call_meanwhile(peers::call(2, read(2, 1)));
    let beside = hear(&mut peer).await;
    let foreign = asked.transaction.wrapping_sub(100);
    let echo = [&foreign.to_be_bytes()[..], &[0, 0, 0, 6, 1, 6, 0, 1, 0, 7]].concat();
    peer.say(&echo).await;
    peer.say(&beside.value(4)).await;
    assert_eq!(patient(other).await.unwrap(), said(4));
    let Wire::BadReply(why) = patient(waits).await.unwrap() else { panic!("it was confirmed") };
    assert!(why.contains(&format!("answered under transaction id {foreign}")), "{why}");
    assert!(why.contains("transaction-id"), "{why}");
}

#[tokio::test]
async fn a_connection_that_ends_in_the_middle_ends_all_that_is_under_way_and_none_is_sent_again() {
    for rubbish in [&b""[..], b"\x00\x01\xFF\xFFrubbish"] {
        let (line, server) = start(4).await;
        let calls: Vec<_> = (1..=4).map(|unit| line.call_meanwhile(peers::call(unit, write(1, 7)))).collect();
        let mut peer = server.accept().await;
        for _ in 0..4 {
            hear(&mut peer).await;
        }
        peer.say(rubbish).await;
        if rubbish.is_empty() {
            drop(peer);
        } else {
            // It ends, perhaps by a reset: not all was heard.
            let _ = patient(tokio::io::AsyncReadExt::read_to_end(&mut peer, &mut Vec::new())).await;
        }
        for call in calls {
            let wire = patient(call).await.unwrap();
            assert!(matches!(wire, Wire::NoAnswer(_) | Wire::BadReply(_)), "{wire:?}");
        }
        server.is_left_alone().await;
        line.until("closed").await;
        let next = line.call_meanwhile(peers::call(1, read(1, 1)));
        let mut peer = server.accept().await;
        let asked = hear(&mut peer).await;
        assert_eq!((asked.function, asked.unit), (3, 1));
        peer.say(&asked.value(1)).await;
        assert_eq!(patient(next).await.unwrap(), said(1));
    }
}

#[tokio::test]
async fn a_silent_unit_holds_up_no_other() {
    let (line, server) = start(2).await;
    let silent = line.call_meanwhile(Call { timeout: Some(Duration::from_secs(5)), ..peers::call(1, read(1, 1)) });
    let mut peer = server.accept().await;
    hear(&mut peer).await;
    for value in 0..50 {
        let call = line.call_meanwhile(peers::call(2, read(2, 1)));
        let asked = hear(&mut peer).await;
        peer.say(&asked.value(value)).await;
        assert_eq!(patient(call).await.unwrap(), said(value));
    }
    assert!(!silent.is_finished(), "on one connection all along");
    silent.abort();
}

#[tokio::test]
async fn what_is_given_up_before_its_first_byte_is_not_sent_and_a_stop_lets_what_is_under_way_end() {
    let (line, server) = start(1 + 1).await;
    let mut peer = {
        let first = line.call_meanwhile(peers::call(1, read(1, 1)));
        let mut peer = server.accept().await;
        let asked = hear(&mut peer).await;
        // The same unit, so that it waits; and nobody waits for it any more.
        let waits = line.call_meanwhile(peers::call(1, write(2, 2)));
        tokio::task::yield_now().await;
        waits.abort();
        peer.say(&asked.value(3)).await;
        assert_eq!(patient(first).await.unwrap(), said(3));
        peer
    };
    peer.hear_nothing().await;
    let last = line.call_meanwhile(peers::call(1, read(4, 1)));
    let asked = hear(&mut peer).await;
    line.stop.cancel();
    peer.say(&asked.value(5)).await;
    assert_eq!(patient(last).await.unwrap(), said(5));
    peer.ends().await;
    patient(line.worker).await.unwrap();
}

#[tokio::test]
async fn the_number_changes_with_the_settings_and_nobody_who_waits_is_forgotten() {
    let (line, server) = start(1).await;
    let first = line.call_meanwhile(peers::call(1, read(1, 1)));
    let mut peer = server.accept().await;
    let asked = hear(&mut peer).await;
    let waits: Vec<_> = (2..=3).map(|unit| line.call_meanwhile(peers::call(unit, read(1, 1)))).collect();
    for most in [4, 1] {
        let settings = line.bus.settings();
        line.bus.configure(&fieldbridge::config::Bus { max_in_flight: most, ..settings });
    }
    let settings = line.bus.settings();
    line.bus.configure(&fieldbridge::config::Bus { max_in_flight: 4, ..settings });
    peer.say(&asked.value(1)).await;
    assert_eq!(patient(first).await.unwrap(), said(1));
    let mut peer = server.accept().await;
    let (one, other) = (hear(&mut peer).await, hear(&mut peer).await);
    peer.say(&other.value(9)).await;
    peer.say(&one.value(9)).await;
    for call in waits {
        assert_eq!(patient(call).await.unwrap(), said(9));
    }
}
