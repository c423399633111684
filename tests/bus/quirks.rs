//! Peripherals that bend the protocol: each is understood where its quirk is named, and nowhere else, and the error
//! names the quirk. Proves G12 as far as a quirk leaves it: what is still owed is waited for, or its connection
//! replaced.

use std::time::{Duration, Instant};

use crate::modbus_tcp::{tcp, Server};
use crate::peers::{ascii, call, hasty, listening, patient, read, rtu, write, Peer, Pty, Running};
use fieldbridge::bus::call::{Call, Wire};
use fieldbridge::config::{BusKind, Endpoint};
use fieldbridge::peripheral::exchange::{Answer, Refusal, Request};
use fieldbridge::peripheral::quirks::{Quirk, Quirks};

fn bent(call: Call, quirks: &[Quirk]) -> Call {
    Call { quirks: quirks.iter().copied().collect(), ..call }
}

fn words(words: &[u16]) -> Wire {
    Wire::Answered(Answer::Words(words.to_vec()))
}

fn exception(code: u8) -> Wire {
    Wire::Refused(Refusal::Exception(code))
}

/// The error names the quirks that would be needed, and no others.
fn names(wire: &Wire, quirks: &[Quirk]) -> bool {
    let (Wire::BadReply(why) | Wire::NoAnswer(why)) = wire else { return false };
    why.ends_with(&quirks.iter().copied().collect::<Quirks>().hint())
}

const WRITTEN: Wire = Wire::Answered(Answer::Written);

/// The answer that a server gives, of which the transaction id is counted from that of the first request.
struct Bent {
    request: Request,
    says: Vec<u8>,
    needs: &'static [Quirk],
    wire: Wire,
    /// Whether the connection is as good as before, so that the next request goes out on it.
    keeps: bool,
}

fn bent_answers() -> Vec<Bent> {
    let (transaction, unit, length, echo) = (Quirk::TransactionId, Quirk::UnitId, Quirk::Length, Quirk::Echo);
    let of = |request, says: &[u8], needs: &[Quirk], wire, keeps| {
        let needs: &'static [Quirk] = needs.to_vec().leak();
        Bent { request, says: says.to_vec(), needs, wire, keeps }
    };
    let value = [3, 4, 0, 0, 0, 42];
    // What the count says, and what comes: an exception behind which nothing comes, and one that is cut by its count.
    let (long, short) = ([0, 0, 0, 0, 0, 6, 7, 0x83, 2], [0, 0, 0, 0, 0, 2, 7, 0x83, 2]);
    vec![
        of(read(16, 2), &tcp(9, 7, &value), &[transaction], words(&[0, 42]), true),
        of(read(16, 2), &tcp(9, 7, &[0x83, 2]), &[transaction], exception(2), true),
        of(read(16, 2), &tcp(0, 1, &value), &[unit], words(&[0, 42]), true),
        of(read(16, 2), &tcp(9, 1, &value), &[transaction, unit], words(&[0, 42]), true),
        of(read(16, 2), &tcp(0, 7, &[3, 4, 0, 0, 0, 42, 0, 0]), &[length], words(&[0, 42]), true),
        of(read(16, 2), &tcp(0, 7, &[0x83, 2, 0, 0]), &[length], exception(2), true),
        of(read(16, 2), &long, &[length], exception(2), false),
        of(read(16, 2), &short, &[length], exception(2), false),
        of(write(16, 5), &tcp(0, 7, &[6, 0, 16, 0, 4]), &[echo], WRITTEN, true),
        of(write(16, 5), &tcp(0, 7, &[6]), &[echo], WRITTEN, true),
        of(write(16, 5), &tcp(0, 7, &[6, 0, 16, 0, 5, 0]), &[length], WRITTEN, true),
        of(write(16, 5), &tcp(9, 7, &[6, 0, 17, 0, 5]), &[transaction, echo], WRITTEN, true),
    ]
}

#[tokio::test]
async fn a_server_that_bends_the_protocol_is_understood_only_by_its_quirk_and_the_error_names_it() {
    for Bent { request, says, needs, wire, .. } in bent_answers() {
        for quirks in [&[][..], needs] {
            let (line, server) = Server::start().await;
            let mut peer = server.connection().await;
            let asking = line.call_meanwhile(bent(listening(7, request.clone()), quirks));
            peer.hear_any().await;
            peer.say(&says).await;
            let ended = patient(asking).await.unwrap();
            match quirks.is_empty() {
                true => assert!(names(&ended, needs), "{says:02x?}: {ended:?}"),
                false => assert_eq!(ended, wire, "{says:02x?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_connection_of_which_nobody_knows_where_the_next_frame_begins_is_replaced_and_no_other() {
    for Bent { request, says, needs, wire, keeps } in bent_answers() {
        let (line, server) = Server::start().await;
        let mut peer = server.connection().await;
        let asking = line.call_meanwhile(bent(call(7, request), needs));
        peer.hear_any().await;
        peer.say(&says).await;
        assert_eq!(patient(asking).await.unwrap(), wire);
        let next = line.call_meanwhile(call(7, read(32, 2)));
        let mut kept = peer;
        let mut peer = match keeps {
            true => kept,
            // Whatever it says behind the answer, it is heard by nobody.
            false => {
                let _ = tokio::io::AsyncWriteExt::write_all(&mut *kept, &[0; 9]).await;
                server.connection().await
            }
        };
        let asked = peer.hear_any().await;
        // Behind one that was asked under 0 it is any other.
        let said = [&asked[..2], &tcp(0, 7, &[3, 4, 0, 0, 0, 1])[2..]].concat();
        peer.say(&said).await;
        assert_eq!(patient(next).await.unwrap(), words(&[0, 1]), "behind {says:02x?}");
    }
}

#[tokio::test]
async fn where_any_transaction_or_unit_is_taken_the_connection_is_replaced_after_a_timeout() {
    for quirk in [Quirk::TransactionId, Quirk::UnitId, Quirk::Echo] {
        let (line, server) = Server::start().await;
        let mut old = server.connection().await;
        let wire = line.call(bent(hasty(7, write(16, 5)), &[quirk])).await;
        assert!(matches!(wire, Wire::NoAnswer(_)), "{wire:?}");
        old.hear_any().await;
        let asking = line.call_meanwhile(bent(call(7, write(16, 6)), &[quirk]));
        let mut new = server.connection().await;
        new.hear_any().await;
        let _ = tokio::io::AsyncWriteExt::write_all(&mut *old, &tcp(0, 7, &[6, 0, 16, 0, 5])).await;
        new.say(&tcp(0, 7, &[0x86, 4])).await;
        assert_eq!(patient(asking).await.unwrap(), exception(4));
    }
}

#[tokio::test]
async fn who_answers_under_any_transaction_is_asked_under_0_each_time_for_some_hear_nothing_else() {
    let server = Server::bind().await;
    let line = Running::start(BusKind::ModbusTcp { address: server.address() });
    let mut stream = server.accept().await;
    for value in [42, 43, 44] {
        let asking = line.call_meanwhile(bent(call(7, read(16, 2)), &[Quirk::TransactionId]));
        stream.hear(&tcp(0, 7, &[3, 0, 16, 0, 2])).await;
        stream.say(&tcp(0, 7, &[3, 4, 0, 0, 0, value])).await;
        assert_eq!(patient(asking).await.unwrap(), words(&[0, value.into()]));
    }
}

/// How a frame is made of its content.
type Frame = fn(&[u8]) -> Vec<u8>;

/// A serial line of either framing.
fn lines() -> [(Running, Pty, Frame); 2] {
    let start = |kind: fn(Endpoint) -> BusKind, frame: Frame| {
        let pty = Pty::new();
        (Running::start(kind(pty.port(115_200))), pty, frame)
    };
    [start(BusKind::ModbusRtu, rtu), start(BusKind::ModbusAscii, ascii)]
}

fn several(words: &[u16]) -> Request {
    Request::WriteWords { address: 16, words: words.to_vec(), multiple: true }
}

/// What is asked of unit 7, what comes, the quirk that makes it the answer, and what it says.
fn bent_frames() -> Vec<(Request, Vec<u8>, Quirk, Wire)> {
    vec![
        (read(16, 2), vec![1, 3, 4, 0, 0, 0, 42], Quirk::UnitId, words(&[0, 42])),
        (read(16, 2), vec![1, 0x83, 2], Quirk::UnitId, exception(2)),
        (write(16, 5), vec![0, 6, 0, 16, 0, 5], Quirk::UnitId, WRITTEN),
        (read(16, 2), vec![7, 3, 4, 0, 0, 0, 42, 0, 0], Quirk::Length, words(&[0, 42])),
        (several(&[1, 2]), vec![7, 16, 0, 16, 0, 2, 4], Quirk::Length, WRITTEN),
        (write(16, 5), vec![7, 6, 0, 16, 0, 4], Quirk::Echo, WRITTEN),
        (several(&[1, 2]), vec![7, 16, 0, 0, 0, 1], Quirk::Echo, WRITTEN),
    ]
}

#[tokio::test]
async fn a_unit_on_a_line_that_bends_the_protocol_is_understood_only_by_its_quirk_and_the_error_names_it() {
    for (request, says, quirk, wire) in bent_frames() {
        for is_named in [false, true] {
            for (line, mut pty, frame) in lines() {
                let quirks = if is_named { vec![quirk] } else { vec![] };
                let call = if is_named { call(7, request.clone()) } else { listening(7, request.clone()) };
                let asking = line.call_meanwhile(bent(call, &quirks));
                hear_any(&mut pty, frame).await;
                pty.peer.say(&frame(&says)).await;
                let ended = patient(asking).await.unwrap();
                match is_named {
                    false => assert!(names(&ended, &[quirk]), "{says:02x?}: {ended:?}"),
                    true => assert_eq!(ended, wire, "{says:02x?}"),
                }
            }
        }
    }
}

/// Hears a request, whichever it is.
async fn hear_any(pty: &mut Pty, frame: Frame) {
    let mut heard = vec![0; frame(&[7, 6, 0, 16, 0, 5]).len()];
    patient(tokio::io::AsyncReadExt::read_exact(&mut pty.peer, &mut heard)).await.unwrap();
}

#[tokio::test]
async fn on_a_line_an_answer_that_a_quirk_would_take_is_waited_for_as_long_as_it_is_owed() {
    for (quirk, late) in [(Quirk::Echo, [7, 6, 0, 16, 0, 5]), (Quirk::UnitId, [1, 6, 0, 17, 0, 6])] {
        for (line, mut pty, frame) in lines() {
            let first = if quirk == Quirk::Echo { write(16, 5) } else { write(17, 6) };
            let wire = line.call(bent(hasty(7, first), &[quirk])).await;
            assert!(matches!(wire, Wire::NoAnswer(_)), "{wire:?}");
            hear_any(&mut pty, frame).await;
            let next = line.call_meanwhile(bent(call(7, write(17, 6)), &[quirk]));
            pty.peer.hear_nothing().await;
            pty.peer.say(&frame(&late)).await;
            pty.peer.hear(&frame(&[7, 6, 0, 17, 0, 6])).await;
            pty.peer.say(&frame(&[7, 0x86, 4])).await;
            assert_eq!(patient(next).await.unwrap(), exception(4), "the late answer confirms nothing");
        }
    }
    // And where it never comes, no longer than that.
    for (line, mut pty, frame) in lines() {
        let started = Instant::now();
        line.call(bent(hasty(7, write(16, 5)), &[Quirk::Echo])).await;
        hear_any(&mut pty, frame).await;
        let next = line.call_meanwhile(bent(call(7, write(17, 6)), &[Quirk::Echo]));
        pty.peer.hear(&frame(&[7, 6, 0, 17, 0, 6])).await;
        assert!(started.elapsed() >= Duration::from_secs(2));
        pty.peer.say(&frame(&[7, 6, 0, 17, 0, 6])).await;
        assert_eq!(patient(next).await.unwrap(), WRITTEN);
    }
}

#[tokio::test]
async fn a_write_that_only_a_quirk_would_take_its_echo_for_the_answer_of_goes_out_behind_a_read() {
    // The adapter's echo begins as the answer does.
    for (line, mut pty, frame) in lines() {
        let bus = line.bus.clone();
        let writing = tokio::spawn(async move {
            let caller = bus.caller().with_harmless(Some(read(32, 2)));
            let mut turn = caller.turn().await.unwrap();
            turn.exchange(&bent(listening(7, several(&[1, 2])), &[Quirk::Length])).await
        });
        let (asks, writes) = (frame(&[7, 3, 0, 32, 0, 2]), frame(&[7, 16, 0, 16, 0, 2, 4, 0, 1, 0, 2]));
        pty.peer.hear(&asks).await;
        pty.peer.say(&[asks, frame(&[7, 3, 4, 0, 0, 0, 1])].concat()).await;
        pty.peer.hear(&writes).await;
        pty.peer.say(&writes).await;
        let wire = patient(writing).await.unwrap();
        assert!(matches!(&wire, Wire::BadReply(why) if why.contains("echo")), "{wire:?}");
    }
}

#[tokio::test]
async fn what_stands_behind_a_whole_frame_is_no_echo_and_keeps_no_write_from_going_out() {
    let pty = Pty::new();
    let line = Running::start(BusKind::ModbusRtu(pty.port(115_200)));
    let mut peer = pty.peer;
    let bus = line.bus.clone();
    let writing = tokio::spawn(async move {
        let caller = bus.caller().with_harmless(Some(read(32, 2)));
        let mut turn = caller.turn().await.unwrap();
        turn.exchange(&call(7, write(16, 5))).await
    });
    peer.hear(&rtu(&[7, 3, 0, 32, 0, 2])).await;
    peer.say(&[rtu(&[7, 3, 4, 0, 0, 0, 1]), vec![0]].concat()).await;
    peer.hear(&rtu(&[7, 6, 0, 16, 0, 5])).await;
    peer.say(&rtu(&[7, 6, 0, 16, 0, 5])).await;
    assert_eq!(patient(writing).await.unwrap(), WRITTEN);
}
