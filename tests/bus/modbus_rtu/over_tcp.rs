//! RTU over TCP: the line is at a server that hands bytes on, others' too. It is one line, whatever becomes of the
//! connection to it.

use std::time::Duration;

use super::{asks, tells, words, RTU};
use crate::modbus_tcp::Server;
use crate::peers::{call, hasty, listening, patient, read, rtu, Peer, Running, SHORT};
use fieldbridge::bus::call::Wire;
use fieldbridge::bus::Owed;
use fieldbridge::config::{BusKind, Endpoint};
use tokio::task::JoinSet;

fn line_at(server: &Server) -> BusKind {
    BusKind::ModbusRtu(Endpoint::Tcp(server.address()))
}

#[tokio::test]
async fn a_server_that_ends_an_idle_connection_gets_a_new_one_with_the_next_request() {
    let server = Server::bind().await;
    let line = Running::start(line_at(&server));
    for value in 0..2 {
        let asking = line.call_meanwhile(call(7, read(16, 2)));
        let mut peer = server.accept().await;
        peer.hear(&asks(7, 16)).await;
        peer.say(&tells(7, value)).await;
        assert_eq!(patient(asking).await.unwrap(), words(&[0, value.into()]));
        drop(peer);
        line.until("closed").await;
        assert_eq!(line.status().last_error, None);
        server.is_left_alone().await;
    }
}

#[tokio::test]
async fn a_line_that_is_closed_after_each_turn_owes_on_its_next_connection_what_it_owed_before() {
    let server = Server::bind().await;
    let line = Running::that_closes_after_each_turn(line_at(&server), Duration::from_secs(15));
    // It was tried once.
    server.accept().await.ends().await;
    let asking = line.call_meanwhile(hasty(7, read(16, 2)));
    let mut old = server.accept().await;
    old.hear(&asks(7, 16)).await;
    assert!(matches!(patient(asking).await.unwrap(), Wire::NoAnswer(_)));
    old.ends().await;
    assert_eq!((line.until("closed").await.last_error, line.snapshot().timeouts), (None, 1));
    // What would be answered alike waits, what wouldn't opens the line, and hears the late answer.
    let alike = line.call_meanwhile(call(7, read(32, 2)));
    let other = line.call_meanwhile(call(7, read(32, 1)));
    let mut new = server.accept().await;
    new.say(&tells(7, 99)).await;
    new.hear(&rtu(&[7, 3, 0, 32, 0, 1])).await;
    new.say(&rtu(&[7, 3, 2, 0, 5])).await;
    assert_eq!(patient(other).await.unwrap(), words(&[5]));
    new.ends().await;
    let mut last = server.accept().await;
    last.hear(&asks(7, 32)).await;
    last.say(&tells(7, 1)).await;
    assert_eq!(patient(alike).await.unwrap(), words(&[0, 1]));
}

#[tokio::test]
async fn what_a_server_has_kept_for_the_next_connection_answers_nobody_however_late_that_is_made() {
    let server = Server::bind().await;
    let window = 2 * SHORT;
    let line = Running::that_closes_after_each_turn(line_at(&server), window);
    server.accept().await.ends().await;
    let asking = line.call_meanwhile(hasty(7, read(16, 2)));
    let mut old = server.accept().await;
    old.hear(&asks(7, 16)).await;
    assert!(matches!(patient(asking).await.unwrap(), Wire::NoAnswer(_)));
    old.ends().await;
    // Nothing is owed by time any more.
    tokio::time::sleep(window).await;
    let asking = line.call_meanwhile(call(7, read(32, 2)));
    let mut new = server.accept().await;
    new.hear_nothing().await;
    new.say(&tells(7, 99)).await;
    new.hear(&asks(7, 32)).await;
    new.say(&tells(7, 1)).await;
    assert_eq!(patient(asking).await.unwrap(), words(&[0, 1]));
}

#[tokio::test]
async fn what_one_bus_has_asked_keeps_another_at_the_same_server_silent_whatever_name_it_has_for_it() {
    let at = |server: &Server, is_by_name: bool| match is_by_name {
        false => line_at(server),
        true => BusKind::ModbusRtu(Endpoint::Tcp(server.address().replace("127.0.0.1", "localhost"))),
    };
    for [first, second] in [[false, false], [true, false], [false, true]] {
        let server = Server::bind().await;
        what_is_owed_is_kept(&server, [at(&server, first), at(&server, second)]).await;
    }
}

async fn what_is_owed_is_kept(server: &Server, [first, second]: [BusKind; 2]) {
    let owed = Owed::default();
    let old = Running::sharing(first, &owed);
    let mut peer = server.accept().await;
    assert!(matches!(old.call(hasty(7, read(16, 2))).await, Wire::NoAnswer(_)));
    peer.hear(&asks(7, 16)).await;
    assert!(owed.is_any());
    old.stop.cancel();
    patient(old.worker).await.unwrap();
    let new = Running::sharing(second, &owed);
    let mut peer = server.accept().await;
    let asking = new.call_meanwhile(call(7, read(32, 2)));
    peer.hear_nothing().await;
    peer.say(&tells(7, 99)).await;
    peer.hear(&asks(7, 32)).await;
    peer.say(&tells(7, 1)).await;
    assert_eq!(patient(asking).await.unwrap(), words(&[0, 1]));
}

#[tokio::test]
async fn what_others_on_the_line_say_answers_nobody_in_whatever_pieces_it_comes() {
    let server = Server::bind().await;
    let line = Running::start(line_at(&server));
    let mut peer = server.accept().await;
    for (what, bytes) in RTU.of_others() {
        for piece in [1, 3, bytes.len()] {
            // Another master has asked this very unit, and has its answer.
            peer.say(&[asks(7, 16), tells(7, 99)].concat()).await;
            let asking = line.call_meanwhile(call(7, read(16, 2)));
            peer.hear(&asks(7, 16)).await;
            for piece in bytes.chunks(piece) {
                peer.say(piece).await;
                tokio::task::yield_now().await;
            }
            peer.say(&tells(7, 42)).await;
            assert_eq!(patient(asking).await.unwrap(), words(&[0, 42]), "behind {what}, {piece} bytes at a time");
        }
    }
    assert_eq!(line.status().state.as_str(), "open");
}

#[tokio::test]
async fn behind_what_others_say_and_silence_the_late_answer_is_nobodys() {
    // Each waits for its time to be over: side by side.
    let mut lines = JoinSet::new();
    for (what, bytes) in RTU.of_others() {
        lines.spawn(async move {
            let server = Server::bind().await;
            let line = Running::start(line_at(&server));
            let mut peer = server.accept().await;
            let asking = line.call_meanwhile(listening(7, read(16, 2)));
            peer.hear(&asks(7, 16)).await;
            peer.say(&bytes).await;
            let wire = patient(asking).await.unwrap();
            assert!(matches!(wire, Wire::BadReply(_)), "{what}: {wire:?}");
            // The unit may still answer: nothing goes out that this would answer. It is sent once, over this one.
            let next = line.call_meanwhile(call(7, read(32, 2)));
            peer.hear_nothing().await;
            peer.say(&bytes).await;
            peer.hear_nothing().await;
            peer.say(&tells(7, 99)).await;
            peer.hear(&asks(7, 32)).await;
            peer.say(&tells(7, 1)).await;
            assert_eq!(patient(next).await.unwrap(), words(&[0, 1]), "behind {what}");
            server.is_left_alone().await;
        });
    }
    while let Some(shown) = lines.join_next().await {
        shown.unwrap();
    }
}
