//! Asking units whether they are there. Proves G11 (commands have their turn between two units) and G12 (the answer of
//! a unit that is slower than it is waited for confirms nothing else).

use std::time::Duration;

use crate::peers::{call, patient, read, rtu, Peer as _, Pty, Running};
use fieldbridge::bus::call::Wire;
use fieldbridge::config::BusKind;
use fieldbridge::operate::inspect::scan;
use fieldbridge::peripheral::exchange::Answer;

fn asks(unit: u8) -> Vec<u8> {
    rtu(&[unit, 3, 0, 0, 0, 1])
}

fn tells(unit: u8, value: u8) -> Vec<u8> {
    rtu(&[unit, 3, 2, 0, value])
}

fn words(value: u16) -> Wire {
    Wire::Answered(Answer::Words(vec![value]))
}

#[tokio::test]
async fn commands_have_their_turn_between_two_units() {
    let mut pty = Pty::new();
    let line = Running::with_timeout(BusKind::ModbusRtu(pty.port(115_200)), Duration::from_millis(300));
    let bus = line.bus.clone();
    let scanning = tokio::spawn(async move {
        let mut found = Vec::new();
        for unit in 1..=3 {
            found.push(scan::ask(&bus, unit, Duration::ZERO).await.unwrap().answers);
        }
        found
    });
    pty.peer.hear(&asks(1)).await;
    let command = line.call_meanwhile(call(9, read(7, 1)));
    pty.peer.hear(&rtu(&[9, 3, 0, 7, 0, 1])).await;
    pty.peer.say(&tells(9, 5)).await;
    assert_eq!(patient(command).await.unwrap(), words(5));
    for unit in [2, 3] {
        pty.peer.hear(&asks(unit)).await;
        pty.peer.say(&tells(unit, 0)).await;
    }
    assert_eq!(patient(scanning).await.unwrap(), [false, true, true]);
}

#[tokio::test]
async fn the_answer_of_a_slow_unit_is_no_commands() {
    let mut pty = Pty::new();
    // Waited for it is for half a second; a command would wait for three.
    let line = Running::with_timeout(BusKind::ModbusRtu(pty.port(115_200)), Duration::from_secs(3));
    let found = patient(scan::ask(&line.bus, 7, Duration::ZERO)).await.unwrap();
    assert!(!found.answers && found.owed == 10_000, "{found:?}");
    pty.peer.hear(&asks(7)).await;
    let command = line.call_meanwhile(call(7, read(0, 1)));
    // A timeout of half a second would be owed an answer for two.
    tokio::time::sleep(Duration::from_millis(2_300)).await;
    pty.peer.say(&tells(7, 1)).await;
    pty.peer.hear(&asks(7)).await;
    pty.peer.say(&tells(7, 42)).await;
    assert_eq!(patient(command).await.unwrap(), words(42));
}

#[tokio::test]
async fn a_unit_is_waited_for_as_long_as_the_slowest_command_would_be_owed_its_answer() {
    let pty = Pty::new();
    let line = Running::with_timeout(BusKind::ModbusRtu(pty.port(115_200)), Duration::from_millis(100));
    let found = patient(scan::ask(&line.bus, 7, Duration::from_secs(2))).await.unwrap();
    assert_eq!((found.answers, found.owed), (false, 8_000));
}
