//! Modbus RTU against a scripted unit at the far end of a pseudo-terminal, or of a connection. What stands around a PDU
//! is shown in `modbus_line`, for ASCII, too.
//!
//! Proves G3 at the line (a request is sent once; what was sent and what was not is told truly), G8 (whatever the line
//! says ends in an outcome), G11 (a silent unit holds up nobody else), G12 (a late answer confirms nothing but its own
//! request, whatever bus was asked, and an echo confirms nothing) and G13 (nothing goes out too late).

mod echo;
mod over_tcp;

use std::time::{Duration, Instant};

use crate::modbus_line::{words, RTU};
use crate::peers::{self, call, hasty, patient, read, rtu, write, Peer, Pty, Running, PATIENCE};
use fieldbridge::bus::call::{Call, Wire};
use fieldbridge::bus::Owed;
use fieldbridge::config::BusKind;
use fieldbridge::peripheral::exchange::Answer;

/// Fast enough that frames take no time that matters.
const BAUD: u32 = 115_200;

fn start() -> (Running, Pty) {
    RTU.start()
}

fn asks(unit: u8, address: u8) -> Vec<u8> {
    RTU.asks(unit, address)
}

fn tells(unit: u8, value: u8) -> Vec<u8> {
    RTU.tells(unit, value)
}

#[tokio::test]
async fn silence_is_no_answer_and_the_request_is_sent_once() {
    let (line, mut pty) = start();
    let wire = line.call(hasty(7, read(16, 2))).await;
    assert!(matches!(&wire, Wire::NoAnswer(why) if why.contains("unit 7")), "{wire:?}");
    pty.peer.hear(&asks(7, 16)).await;
    pty.peer.hear_nothing().await;
    assert_eq!((line.snapshot().exchanges, line.snapshot().timeouts), (1, 1));
    assert_eq!(line.status().state.as_str(), "open");
}

#[tokio::test]
async fn between_an_answer_and_the_next_request_a_port_is_silent_for_as_long_as_the_specification_says() {
    // Modbus over Serial Line V1.02, 2.5.1.1: 3.5 characters, of 10 bits here; above 19200 baud 1.75 ms.
    for (baud, micros) in [(9600, 3_645), (19_200, 1_822), (BAUD, 1_750)] {
        let mut pty = Pty::new();
        let line = Running::start(BusKind::ModbusRtu(pty.port(baud)));
        let peer = async {
            let mut answered: Option<Instant> = None;
            for value in 0..20 {
                pty.peer.hear(&asks(7, 16)).await;
                let silence = answered.map_or(Duration::MAX, |at| at.elapsed());
                assert!(silence >= Duration::from_micros(micros), "{silence:?} at {baud} baud");
                // Before it is said: the bus may hear it sooner than the peer is told that it was.
                answered = Some(Instant::now());
                pty.peer.say(&tells(7, value)).await;
            }
        };
        let caller = async {
            for value in 0..20 {
                assert_eq!(line.call(call(7, read(16, 2))).await, words(&[0, value]));
            }
        };
        patient(async { tokio::join!(peer, caller) }).await;
    }
}

#[tokio::test]
async fn a_long_answer_on_a_slow_line_does_not_time_out_while_it_arrives() {
    let pty = Pty::new();
    // 45 bytes take 750 ms at 600 baud, twelve times the timeout.
    let line = Running::start(BusKind::ModbusRtu(pty.port(600)));
    let mut peer = pty.peer;
    let asking = line.call_meanwhile(hasty(7, read(0, 20)));
    peer.hear(&rtu(&[7, 3, 0, 0, 0, 20])).await;
    let mut content = vec![7, 3, 40];
    content.resize(43, 0);
    for byte in rtu(&content) {
        peer.say(&[byte]).await;
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    assert_eq!(patient(asking).await.unwrap(), words(&[0; 20]));
}

#[tokio::test]
async fn a_late_answer_that_never_comes_is_waited_for_so_long_and_no_longer() {
    let (line, mut pty) = start();
    let started = Instant::now();
    let wire = line.call(hasty(7, write(16, 5))).await;
    assert!(matches!(wire, Wire::NoAnswer(_)));
    // The same write, but a command of its own: the late echo would confirm it falsely.
    let next = line.call_meanwhile(call(7, write(16, 5)));
    let request = RTU.sets(7, 16, 5);
    pty.peer.hear(&request).await;
    pty.peer.hear(&request).await;
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(2), "{waited:?}");
    pty.peer.say(&request).await;
    assert_eq!(patient(next).await.unwrap(), Wire::Answered(Answer::Written));
}

#[tokio::test]
async fn a_retry_in_the_same_turn_may_be_answered_late() {
    let (line, mut pty) = start();
    let started = Instant::now();
    let mut turn = line.bus.turn().await.unwrap();
    let wire = turn.exchange(&hasty(7, read(16, 2))).await;
    assert!(matches!(wire, Wire::NoAnswer(_)));
    pty.peer.hear(&asks(7, 16)).await;
    let retry = tokio::spawn(async move { turn.exchange(&call(7, read(16, 2))).await });
    pty.peer.hear(&asks(7, 16)).await;
    assert!(started.elapsed() < Duration::from_secs(2));
    pty.peer.say(&tells(7, 1)).await;
    assert_eq!(patient(retry).await.unwrap(), words(&[0, 1]));
    // One of the two answers is still owed: another request waits for it.
    let next = line.call_meanwhile(call(7, read(32, 2)));
    pty.peer.hear_nothing().await;
    pty.peer.say(&tells(7, 1)).await;
    pty.peer.hear(&asks(7, 32)).await;
    pty.peer.say(&tells(7, 2)).await;
    assert_eq!(patient(next).await.unwrap(), words(&[0, 2]));
}

#[tokio::test]
async fn what_can_be_told_apart_goes_out_at_once_and_the_late_answer_is_skipped() {
    let (line, mut pty) = start();
    let mut turn = line.bus.turn().await.unwrap();
    let wire = turn.exchange(&hasty(7, write(16, 5))).await;
    assert!(matches!(wire, Wire::NoAnswer(_)));
    pty.peer.hear(&RTU.sets(7, 16, 5)).await;
    // The read-back of a verified write.
    let read_back = tokio::spawn(async move { turn.exchange(&call(7, read(16, 2))).await });
    pty.peer.hear(&asks(7, 16)).await;
    pty.peer.say(&[RTU.sets(7, 16, 5), tells(7, 5)].concat()).await;
    assert_eq!(patient(read_back).await.unwrap(), words(&[0, 5]));
}

#[tokio::test]
async fn a_unit_that_owes_an_answer_holds_up_no_other() {
    let (line, mut pty) = start();
    assert!(matches!(line.call(hasty(7, read(16, 2))).await, Wire::NoAnswer(_)));
    pty.peer.hear(&asks(7, 16)).await;
    let silent = line.call_meanwhile(call(7, read(32, 2)));
    let second = line.call_meanwhile(call(7, read(33, 2)));
    pty.peer.hear_nothing().await;
    for unit in [8, 9] {
        let other = line.call_meanwhile(call(unit, read(16, 2)));
        pty.peer.hear(&asks(unit, 16)).await;
        pty.peer.say(&tells(unit, unit)).await;
        assert_eq!(patient(other).await.unwrap(), words(&[0, unit.into()]));
    }
    // Those that waited keep their order.
    pty.peer.say(&tells(7, 99)).await;
    for (address, waiting) in [(32, silent), (33, second)] {
        pty.peer.hear(&asks(7, address)).await;
        pty.peer.say(&tells(7, address)).await;
        assert_eq!(patient(waiting).await.unwrap(), words(&[0, address.into()]));
    }
}

#[tokio::test]
async fn a_request_whose_caller_is_gone_before_it_was_sent_is_not_sent() {
    let (line, mut pty) = start();
    assert!(matches!(line.call(hasty(7, read(16, 2))).await, Wire::NoAnswer(_)));
    pty.peer.hear(&asks(7, 16)).await;
    let waiting = line.call_meanwhile(call(7, read(32, 2)));
    pty.peer.hear_nothing().await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    pty.peer.say(&tells(7, 99)).await;
    let next = line.call_meanwhile(call(7, read(48, 2)));
    pty.peer.hear(&asks(7, 48)).await;
    pty.peer.say(&tells(7, 1)).await;
    assert_eq!(patient(next).await.unwrap(), words(&[0, 1]));
}

#[tokio::test]
async fn an_exchange_whose_caller_is_gone_is_ended_by_the_worker() {
    let (line, mut pty) = start();
    let abandoned = line.call_meanwhile(call(7, read(16, 2)));
    pty.peer.hear(&asks(7, 16)).await;
    abandoned.abort();
    let next = line.call_meanwhile(call(7, read(32, 2)));
    pty.peer.hear_nothing().await;
    pty.peer.say(&tells(7, 1)).await;
    pty.peer.hear(&asks(7, 32)).await;
    pty.peer.say(&tells(7, 2)).await;
    assert_eq!(patient(next).await.unwrap(), words(&[0, 2]));
}

#[tokio::test]
async fn turns_are_given_in_the_order_of_asking_and_held_between_exchanges() {
    let (line, mut pty) = start();
    let mut turn = line.bus.turn().await.unwrap();
    let waiting: Vec<_> = (1..4).map(|address| line.call_meanwhile(call(7, read(address, 2)))).collect();
    pty.peer.hear_nothing().await;
    let holder = tokio::spawn(async move { turn.exchange(&call(7, read(99, 2))).await });
    for address in [99, 1, 2, 3] {
        pty.peer.hear(&asks(7, address)).await;
        pty.peer.say(&tells(7, address)).await;
    }
    assert_eq!(patient(holder).await.unwrap(), words(&[0, 99]));
    for (address, waiting) in (1..).zip(waiting) {
        assert_eq!(patient(waiting).await.unwrap(), words(&[0, address]));
    }
}

#[tokio::test]
async fn a_missing_port_is_explained_and_opened_by_the_next_call() {
    let (line, pty) = start();
    line.until("open").await;
    let folder = pty.unplug();
    assert!(line.until("opening").await.last_error.is_some());
    let wire = line.call(call(7, read(16, 2))).await;
    let Wire::NotSent(why) = wire else { panic!("{wire:?}") };
    assert!(why.contains("ttyUSB0") && why.contains("plugged in"), "{why}");
    assert_eq!(line.status().last_error, Some(why));

    let mut pty = Pty::plug(folder);
    let asking = line.call_meanwhile(call(7, read(16, 2)));
    pty.peer.hear(&asks(7, 16)).await;
    pty.peer.say(&tells(7, 42)).await;
    assert_eq!(patient(asking).await.unwrap(), words(&[0, 42]));
    assert_eq!((line.status().state.as_str(), line.status().last_error), ("open", None));
}

#[tokio::test]
async fn a_port_that_goes_in_the_middle_of_an_exchange_leaves_it_in_doubt() {
    let (line, mut pty) = start();
    let asking = line.call_meanwhile(call(7, write(16, 5)));
    pty.peer.hear(&RTU.sets(7, 16, 5)).await;
    let folder = pty.unplug();
    let wire = patient(asking).await.unwrap();
    assert!(matches!(wire, Wire::NoAnswer(_)), "{wire:?}");
    // It is opened again without being asked for, and nothing is repeated on it.
    let mut pty = Pty::plug(folder);
    line.until("open").await;
    pty.peer.hear_nothing().await;
}

#[tokio::test]
async fn a_port_may_be_closed_after_each_turn_and_is_opened_for_the_next() {
    let mut pty = Pty::new();
    let line = Running::that_closes_after_each_turn(BusKind::ModbusRtu(pty.port(BAUD)), PATIENCE);
    for value in 0..2 {
        assert_eq!(line.until("closed").await.last_error, None);
        let asking = line.call_meanwhile(call(7, read(16, 2)));
        pty.peer.hear(&asks(7, 16)).await;
        pty.peer.say(&tells(7, value)).await;
        assert_eq!(patient(asking).await.unwrap(), words(&[0, value.into()]));
    }
    line.until("closed").await;
    // One that is gone meanwhile is told when it is needed.
    let folder = pty.unplug();
    let Wire::NotSent(why) = line.call(call(7, read(16, 2))).await else { panic!("it is gone") };
    assert!(why.contains("is the adapter plugged in?"), "{why}");
    assert_eq!(line.until("opening").await.last_error, Some(why));
    let _pty = Pty::plug(folder);
    assert_eq!(line.until("closed").await.last_error, None);
}

#[tokio::test]
async fn the_turnaround_is_kept_after_each_exchange() {
    let pty = Pty::new();
    let turnaround = Duration::from_millis(150);
    let line = Running::with_turnaround(BusKind::ModbusRtu(pty.port(BAUD)), turnaround);
    let mut peer = pty.peer;
    let mut answered: Option<Instant> = None;
    for address in [1, 2] {
        let asking = line.call_meanwhile(call(7, read(address, 2)));
        peer.hear(&asks(7, address as u8)).await;
        if let Some(answered) = answered {
            assert!(answered.elapsed() >= turnaround);
        }
        answered = Some(Instant::now());
        peer.say(&tells(7, 1)).await;
        patient(asking).await.unwrap();
    }
}

#[tokio::test]
async fn a_stop_waits_for_the_exchange_on_the_wire_and_begins_no_other() {
    let (line, mut pty) = start();
    let mut turn = line.bus.turn().await.unwrap();
    let asking = tokio::spawn(async move {
        let first = turn.exchange(&call(7, read(16, 2))).await;
        (first, turn.exchange(&call(7, read(32, 2))).await)
    });
    pty.peer.hear(&asks(7, 16)).await;
    let queued = tokio::spawn({
        let bus = line.bus.clone();
        async move { bus.turn().await.map(drop) }
    });
    line.stop.cancel();
    pty.peer.hear_nothing().await;
    pty.peer.say(&tells(7, 42)).await;
    let (first, second) = patient(asking).await.unwrap();
    assert_eq!(first, words(&[0, 42]));
    assert!(matches!(second, Wire::NotSent(_)), "{second:?}");
    assert!(patient(queued).await.unwrap().is_err());
    patient(line.worker).await.unwrap();
    assert!(line.bus.turn().await.is_err());
    assert_eq!(line.bus.status().state.as_str(), "closed");
    pty.peer.hear_nothing().await;
}

#[tokio::test]
async fn a_worker_that_is_torn_down_in_an_exchange_leaves_it_in_doubt() {
    let (line, mut pty) = start();
    let asking = line.call_meanwhile(call(7, write(16, 5)));
    pty.peer.hear(&RTU.sets(7, 16, 5)).await;
    line.worker.abort();
    let wire = patient(asking).await.unwrap();
    assert!(matches!(wire, Wire::NoAnswer(_)), "{wire:?}");
}

#[tokio::test]
async fn what_one_bus_has_asked_keeps_another_on_the_same_port_silent() {
    let owed = Owed::default();
    let mut pty = Pty::new();
    let kind = |path: &std::path::Path| BusKind::ModbusRtu(peers::port(path, BAUD));
    let old = Running::sharing(kind(&pty.path()), &owed);
    assert!(matches!(old.call(hasty(7, read(16, 2))).await, Wire::NoAnswer(_)));
    pty.peer.hear(&asks(7, 16)).await;
    assert!(owed.is_any());
    // Another name, another path, the same port.
    old.stop.cancel();
    patient(old.worker).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("by-another-name");
    std::os::unix::fs::symlink(pty.path().canonicalize().unwrap(), &path).unwrap();
    let new = Running::sharing(kind(&path), &owed);
    let asking = new.call_meanwhile(call(7, read(32, 2)));
    pty.peer.hear_nothing().await;
    pty.peer.say(&tells(7, 99)).await;
    pty.peer.hear(&asks(7, 32)).await;
    pty.peer.say(&tells(7, 1)).await;
    assert_eq!(patient(asking).await.unwrap(), words(&[0, 1]));
    new.until("open").await;
    assert!(!owed.is_any(), "all that was asked is answered, or has lapsed");
}

#[tokio::test]
async fn after_an_earlier_life_nothing_is_asked_for_as_long_as_its_answers_may_come() {
    let mut pty = Pty::new();
    let began = Instant::now();
    let line = Running::after_an_earlier_life(BusKind::ModbusRtu(pty.port(BAUD)), Duration::from_millis(700));
    let asking = line.call_meanwhile(call(7, read(32, 2)));
    tokio::time::sleep(Duration::from_millis(2300)).await;
    pty.peer.say(&tells(7, 99)).await;
    pty.peer.hear(&asks(7, 32)).await;
    assert!(began.elapsed() >= Duration::from_millis(2800), "{:?}", began.elapsed());
    pty.peer.say(&tells(7, 1)).await;
    assert_eq!(patient(asking).await.unwrap(), words(&[0, 1]));
}

#[tokio::test]
async fn what_the_turnaround_has_made_too_late_is_not_sent() {
    let pty = Pty::new();
    let turnaround = Duration::from_millis(400);
    let line = Running::with_turnaround(BusKind::ModbusRtu(pty.port(BAUD)), turnaround);
    let mut peer = pty.peer;
    let asking = line.call_meanwhile(call(7, read(16, 2)));
    peer.hear(&asks(7, 16)).await;
    peer.say(&tells(7, 1)).await;
    patient(asking).await.unwrap();
    let soon = tokio::time::Instant::now() + Duration::from_millis(50);
    let wire = line.call(Call { not_after: Some(soon), ..call(7, write(16, 5)) }).await;
    assert!(matches!(&wire, Wire::NotSent(why) if why.contains("in time")), "{wire:?}");
    peer.hear_nothing().await;
    assert_eq!((line.status().state.as_str(), line.snapshot().exchanges), ("open", 1));
}

#[tokio::test]
async fn any_bytes_end_in_an_outcome() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (line, mut pty) = start();
    let mut turn = line.bus.turn().await.unwrap();
    for _ in 0..60 {
        let mut bytes: Vec<u8> = (0..rng.usize(1..600)).map(|_| rng.u8(..)).collect();
        for _ in 0..rng.usize(..4) {
            // Pieces that look like something.
            let at = rng.usize(..bytes.len());
            let piece = [tells(7, 1), rtu(&[7, 0x83, rng.u8(..)]), vec![7, 3, 250]];
            let piece = &piece[rng.usize(..3)];
            let end = rng.usize(..=piece.len());
            bytes.splice(at..at, piece[..end].iter().copied());
        }
        let short = Duration::from_millis(20);
        let mut asking = call(7, read(16, 2));
        asking.timeout = Some(short);
        let exchange = tokio::spawn(async move { (turn.exchange(&asking).await, turn) });
        pty.peer.hear(&asks(7, 16)).await;
        pty.peer.say(&bytes).await;
        let (wire, held) = patient(exchange).await.unwrap();
        turn = held;
        assert!(!matches!(wire, Wire::NotSent(_)), "{wire:?}");
    }
    assert_eq!(line.status().state.as_str(), "open");
}
