//! Modbus ASCII against a scripted unit at the far end of a pseudo-terminal: what only its digits bring with them.
//!
//! What holds in either framing is shown in `modbus_line`, what is no matter of the framing in `modbus_rtu`. Proves
//! here G3 at the line, G8 (whatever the line says ends in an outcome) and G12 (a late answer, or an echo, confirms
//! nothing).

use std::time::Duration;

use crate::modbus_line::{serves, words, ASCII};
use crate::peers::{call, hasty, listening, patient, read, write, Peer, Pty, Running};
use fieldbridge::bus::call::{Call, Wire};
use fieldbridge::peripheral::exchange::Answer;

#[tokio::test]
async fn what_is_said_is_what_the_specification_has() {
    let (line, mut pty) = ASCII.start();
    let asking = line.call_meanwhile(call(7, read(16, 2)));
    pty.peer.hear(b":070300100002E4\r\n").await;
    pty.peer.say(b":0703040000002AC8\r\n").await;
    assert_eq!(patient(asking).await.unwrap(), words(&[0, 42]));
    let writing = line.call_meanwhile(call(7, write(16, 5)));
    pty.peer.hear(b":070600100005DE\r\n").await;
    pty.peer.say(b":070600100005DE\r\n").await;
    assert_eq!(patient(writing).await.unwrap(), Wire::Answered(Answer::Written));
}

#[tokio::test]
async fn digits_are_taken_in_either_case() {
    let (line, mut pty) = ASCII.start();
    serves(&ASCII, &line, &mut pty.peer, <[u8]>::to_ascii_lowercase).await;
    let (line, server) = ASCII.start_at_a_server().await;
    serves(&ASCII, &line, &mut server.accept().await, <[u8]>::to_ascii_lowercase).await;
}

#[tokio::test]
async fn a_late_answer_is_known_in_either_case_of_its_digits() {
    let (line, mut pty) = ASCII.start();
    assert!(matches!(line.call(hasty(7, read(16, 2))).await, Wire::NoAnswer(_)));
    pty.peer.hear(&ASCII.asks(7, 16)).await;
    let next = line.call_meanwhile(call(7, read(32, 2)));
    pty.peer.hear_nothing().await;
    pty.peer.say(&ASCII.tells(7, 99).to_ascii_lowercase()).await;
    pty.peer.hear(&ASCII.asks(7, 32)).await;
    pty.peer.say(&ASCII.tells(7, 1)).await;
    assert_eq!(patient(next).await.unwrap(), words(&[0, 1]));
}

#[tokio::test]
async fn a_frame_of_another_unit_is_shown_as_it_was_heard() {
    let (line, mut pty) = ASCII.start();
    let asking = line.call_meanwhile(listening(7, read(16, 2)));
    pty.peer.hear(&ASCII.asks(7, 16)).await;
    pty.peer.say(&ASCII.tells(8, 42)).await;
    let wire = patient(asking).await.unwrap();
    let Wire::BadReply(why) = wire else { panic!("{wire:?}") };
    assert!(why.contains("a frame of unit 8 with function 3: :0803040000002AC7\\r\\n"), "{why}");
}

#[tokio::test]
async fn an_echo_confirms_nothing_and_is_taken_out_where_that_is_said() {
    let (line, pty) = ASCII.start();
    let mut peer = pty.peer;
    let asking = line.call_meanwhile(call(7, read(16, 2)));
    peer.hear(&ASCII.asks(7, 16)).await;
    peer.say(&[ASCII.asks(7, 16), ASCII.tells(7, 42)].concat()).await;
    assert_eq!(patient(asking).await.unwrap(), words(&[0, 42]));
    assert!(line.status().last_error.unwrap().contains("strip"));
    // A unit that is switched off.
    let writing = line.call_meanwhile(listening(8, write(16, 5)));
    peer.hear(&ASCII.sets(8, 16, 5)).await;
    peer.say(&ASCII.sets(8, 16, 5)).await;
    let wire = patient(writing).await.unwrap();
    assert!(matches!(&wire, Wire::BadReply(why) if why.contains("echo")), "{wire:?}");

    let pty = Pty::new();
    let line = Running::that_strips_echoes(ASCII.at(&pty));
    let mut peer = pty.peer;
    let writing = line.call_meanwhile(call(7, write(16, 5)));
    peer.hear(&ASCII.sets(7, 16, 5)).await;
    peer.say(&ASCII.sets(7, 16, 5).repeat(2)).await;
    assert_eq!(patient(writing).await.unwrap(), Wire::Answered(Answer::Written));
    assert_eq!(line.status().last_error, None);
}

#[tokio::test]
async fn any_bytes_end_in_an_outcome() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (line, mut pty) = ASCII.start();
    let mut turn = line.bus.turn().await.unwrap();
    for _ in 0..20 {
        let good = ASCII.tells(7, 42);
        let mut bytes: Vec<u8> = (0..rng.usize(1..600)).map(|_| b":07304aF\r\nx"[rng.usize(0..11)]).collect();
        bytes.extend(&good[rng.usize(0..good.len())..]);
        let asking = Call { timeout: Some(Duration::from_millis(5)), ..call(7, read(16, 2)) };
        let exchange = tokio::spawn(async move { (turn.exchange(&asking).await, turn) });
        pty.peer.hear(&ASCII.asks(7, 16)).await;
        pty.peer.say(&bytes).await;
        let (wire, held) = patient(exchange).await.unwrap();
        turn = held;
        assert!(!matches!(wire, Wire::NotSent(_)), "{wire:?}");
    }
    assert_eq!(line.status().state.as_str(), "open");
}
