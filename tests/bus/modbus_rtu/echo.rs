//! Adapters that echo what is sent: G12, an echo confirms nothing.

use std::time::Duration;

use crate::peers::{call, listening, patient, read, rtu, write, Peer, Pty, Running};
use fieldbridge::bus::call::Wire;
use fieldbridge::config::BusKind;
use fieldbridge::peripheral::exchange::{Answer, Request};

use super::{asks, start, tells, words, BAUD, RTU};

/// The write of one register, which is also its answer.
fn sets(unit: u8, value: u8) -> Vec<u8> {
    RTU.sets(unit, 16, value)
}

const ECHOES: &str = "echo";

#[tokio::test]
async fn an_echo_confirms_nothing_once_the_line_has_shown_that_it_echoes() {
    let (line, mut pty) = start();
    let asking = line.call_meanwhile(call(7, read(16, 2)));
    pty.peer.hear(&asks(7, 16)).await;
    pty.peer.say(&asks(7, 16)).await;
    pty.peer.say(&tells(7, 42)).await;
    assert_eq!(patient(asking).await.unwrap(), words(&[0, 42]));
    let trouble = line.status().last_error.unwrap();
    assert!(trouble.contains(ECHOES) && trouble.contains("strip"), "{trouble}");
    assert_eq!(line.status().state.as_str(), "open");
    // A unit that is switched off, and one that is not.
    let writing = line.call_meanwhile(listening(8, write(16, 5)));
    pty.peer.hear(&sets(8, 5)).await;
    pty.peer.say(&sets(8, 5)).await;
    let wire = patient(writing).await.unwrap();
    assert!(matches!(&wire, Wire::BadReply(why) if why.contains(ECHOES)), "{wire:?}");
    let writing = line.call_meanwhile(call(7, write(16, 5)));
    pty.peer.hear(&sets(7, 5)).await;
    pty.peer.say(&[sets(7, 5), sets(7, 5)].concat()).await;
    assert_eq!(patient(writing).await.unwrap(), Wire::Answered(Answer::Written));
    // Somebody has turned the echo off.
    let asking = line.call_meanwhile(call(7, read(16, 2)));
    pty.peer.hear(&asks(7, 16)).await;
    pty.peer.say(&tells(7, 42)).await;
    assert_eq!(patient(asking).await.unwrap(), words(&[0, 42]));
    assert_eq!(line.status().last_error, None);
}

/// A write in a turn of its own, behind a read if need be.
fn write_behind_a_read(line: &Running, unit: u8) -> tokio::task::JoinHandle<Wire> {
    let bus = line.bus.clone();
    tokio::spawn(async move {
        let caller = bus.caller().with_harmless(Some(read(32, 2)));
        let mut turn = caller.turn().await.unwrap();
        turn.clear(&listening(unit, write(16, 5))).await;
        turn.exchange(&listening(unit, write(16, 5))).await
    })
}

fn said(says: bool, what: Vec<u8>) -> Vec<u8> {
    if says {
        what
    } else {
        Vec::new()
    }
}

#[tokio::test]
async fn the_first_write_goes_out_behind_a_read_that_shows_whether_the_line_echoes() {
    for echoes in [false, true] {
        for is_alive in [false, true] {
            let pty = Pty::new();
            let line = Running::with_timeout(BusKind::ModbusRtu(pty.port(BAUD)), Duration::from_millis(300));
            let mut peer = pty.peer;
            for first in [true, false] {
                let writing = write_behind_a_read(&line, 7);
                if first {
                    peer.hear(&asks(7, 32)).await;
                    peer.say(&said(echoes, asks(7, 32))).await;
                    peer.say(&said(is_alive, tells(7, 1))).await;
                }
                peer.hear(&sets(7, 5)).await;
                for says in [echoes, is_alive] {
                    peer.say(&said(says, sets(7, 5))).await;
                }
                let wire = patient(writing).await.unwrap();
                let confirmed = wire == Wire::Answered(Answer::Written);
                assert_eq!(confirmed, is_alive, "echoes: {echoes}, first: {first}: {wire:?}");
                if !is_alive {
                    // What is owed for the first write must not hold up the second.
                    break;
                }
            }
            assert_eq!(line.status().last_error.is_some(), echoes);
        }
    }
}

#[tokio::test]
async fn an_echo_that_is_to_be_taken_out_is_no_trouble_and_confirms_nothing_from_the_first_write_on() {
    let pty = Pty::new();
    let line = Running::that_strips_echoes(BusKind::ModbusRtu(pty.port(BAUD)));
    let mut peer = pty.peer;
    let writing = write_behind_a_read(&line, 8);
    peer.hear(&sets(8, 5)).await;
    peer.say(&sets(8, 5)).await;
    let wire = patient(writing).await.unwrap();
    assert!(matches!(wire, Wire::NoAnswer(_)), "{wire:?}");
    for echo_in_pieces in [false, true] {
        let writing = line.call_meanwhile(call(7, write(16, 5)));
        peer.hear(&sets(7, 5)).await;
        let (head, tail) = (sets(7, 5)[..3].to_vec(), sets(7, 5)[3..].to_vec());
        peer.say(&head).await;
        if echo_in_pieces {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        peer.say(&tail).await;
        peer.say(&sets(7, 5)).await;
        assert_eq!(patient(writing).await.unwrap(), Wire::Answered(Answer::Written));
    }
    let asking = line.call_meanwhile(call(7, read(16, 2)));
    peer.hear(&asks(7, 16)).await;
    peer.say(&[asks(7, 16), tells(7, 42)].concat()).await;
    assert_eq!(patient(asking).await.unwrap(), words(&[0, 42]));
    assert_eq!(line.status().last_error, None);
    // It does not echo after all: its answers are taken for echoes, and that is said.
    let asking = line.call_meanwhile(call(7, read(16, 2)));
    peer.hear(&asks(7, 16)).await;
    peer.say(&tells(7, 42)).await;
    assert_eq!(patient(asking).await.unwrap(), words(&[0, 42]));
    assert!(line.status().last_error.unwrap().contains("does not come back"));
}

#[tokio::test]
async fn the_echo_of_a_read_that_looks_like_its_answer_is_told_apart_too() {
    let (line, mut pty) = start();
    // Three bytes of bits are asked for, at an address whose first byte is three.
    let bits = || Request::ReadBits { coils: true, address: 0x0300, count: 24 };
    let asks_bits = rtu(&[7, 1, 3, 0, 0, 24]);
    let asking = {
        let bus = line.bus.clone();
        tokio::spawn(async move {
            let caller = bus.caller().with_harmless(Some(read(32, 2)));
            caller.turn().await.unwrap().exchange(&call(7, bits())).await
        })
    };
    pty.peer.hear(&asks(7, 32)).await;
    pty.peer.say(&[asks(7, 32), tells(7, 1)].concat()).await;
    pty.peer.hear(&asks_bits).await;
    pty.peer.say(&[asks_bits, rtu(&[7, 1, 3, 0, 0, 0])].concat()).await;
    assert_eq!(patient(asking).await.unwrap(), Wire::Answered(Answer::Bits(vec![false; 24])));
}
