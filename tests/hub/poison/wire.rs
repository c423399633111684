//! A Modbus TCP slave that misbehaves: the outcome is the one of the table "What an exchange leads to", the next
//! command succeeds, and an answer that comes too late is taken for nobody's.

use std::time::Duration;

use serde_json::Value as Json;

use super::{assert_readable, command};
use crate::support::broker::{Broker, Client};
use crate::support::puppet::{frame, Act, Puppet};
use crate::support::{eventually, free_address, pump, Site};

const TIMING: &str = "response_timeout = \"300ms\"\nretries = 1\nunreachable_after = 0";
/// Comes when nobody waits for it any more.
const TOO_LATE: Duration = Duration::from_millis(600);

/// A misbehaviour: its name, what comes back, and the outcome of an idempotent command, of one that isn't, and of one
/// that isn't but whose effect can be read back. The code is that of all that did not succeed.
type Case = (&'static str, fn() -> Act, [&'static str; 3], &'static str);

/// A misbehaviour with its name.
type Named = (&'static str, fn() -> Act);

/// No answer, or none that is this request's: an idempotent command has failed, another is in doubt unless it can be
/// read back.
const UNCLEAR: [&str; 3] = ["failed", "in_doubt", "succeeded"];

fn broken_answers() -> Vec<Case> {
    vec![
        ("garbage", || Act::Bytes(|_, _| vec![0xff; 40]), UNCLEAR, "bad-reply"),
        ("text", || Act::Bytes(|_, _| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), UNCLEAR, "bad-reply"),
        ("zeroes", || Act::Bytes(|_, _| vec![0; 12]), UNCLEAR, "bad-reply"),
        ("silence", || Act::Silence, UNCLEAR, "timeout"),
        ("late", || Act::Late(TOO_LATE), UNCLEAR, "timeout"),
        ("half a header", || Act::Bytes(|_, answer| answer[..3].to_vec()), UNCLEAR, "timeout"),
        ("half an answer", || Act::Bytes(|_, answer| answer[..9].to_vec()), UNCLEAR, "timeout"),
        ("half an answer and the end", || Act::BytesAndClose(|_, answer| answer[..9].to_vec()), UNCLEAR, "bad-reply"),
        ("the end", || Act::BytesAndClose(|_, _| vec![]), UNCLEAR, "timeout"),
        ("a foreign transaction", || Act::Bytes(|_, answer| changed(answer, 1, 0x55)), UNCLEAR, "bad-reply"),
        ("a foreign protocol", || Act::Bytes(|_, answer| changed(answer, 3, 0x01)), UNCLEAR, "bad-reply"),
        ("a foreign unit", || Act::Bytes(|_, answer| changed(answer, 6, 0x06)), UNCLEAR, "bad-reply"),
        ("a foreign function", || Act::Bytes(|_, answer| changed(answer, 7, 0x16)), UNCLEAR, "bad-reply"),
        ("a foreign exception", || Act::Bytes(|r, _| frame(&r[..4], r[6], &[0x83, 2])), UNCLEAR, "bad-reply"),
        ("a foreign unit's exception", || Act::Bytes(|r, _| frame(&r[..4], 9, &[0x86, 2])), UNCLEAR, "bad-reply"),
        ("another register", || Act::Bytes(|_, answer| changed(answer, 9, 0x01)), UNCLEAR, "bad-reply"),
        ("another value", || Act::Bytes(|_, answer| changed(answer, 11, 0x01)), UNCLEAR, "bad-reply"),
        ("too long", || Act::Bytes(|r, _| frame(&r[..4], r[6], &[6; 300])), UNCLEAR, "bad-reply"),
        (
            "a little too long",
            || Act::Bytes(|r, a| frame(&r[..4], r[6], &[&a[7..], &[0]].concat())),
            UNCLEAR,
            "bad-reply",
        ),
        ("a little too short", || Act::Bytes(|r, a| frame(&r[..4], r[6], &a[7..11])), UNCLEAR, "bad-reply"),
        ("no data", || Act::Bytes(|r, _| frame(&r[..4], r[6], &[6])), UNCLEAR, "bad-reply"),
        ("a refusal", || Act::Bytes(|r, _| frame(&r[..4], r[6], &[0x86, 2])), ["failed"; 3], "exception"),
        ("an unknown refusal", || Act::Bytes(|r, _| frame(&r[..4], r[6], &[0x86, 0x7f])), ["failed"; 3], "exception"),
        ("twice the answer", || Act::Bytes(|_, answer| [answer, answer].concat()), ["succeeded"; 3], ""),
        ("the answer and garbage", || Act::Bytes(|_, answer| [answer, &[0xff; 9]].concat()), ["succeeded"; 3], ""),
    ]
}

/// The answer with some bits of one byte changed.
fn changed(answer: &[u8], at: usize, bits: u8) -> Vec<u8> {
    let mut answer = answer.to_vec();
    answer[at] ^= bits;
    answer
}

fn stage() -> (Site, Broker, Puppet) {
    let (broker, puppet) = (Broker::new(), Puppet::new());
    let site = Site::new(&broker.address(), &pump(puppet.address(), "after-execution", TIMING));
    (site, broker, puppet)
}

/// Delivers a command and returns its event.
fn run(client: &mut Client, number: &mut u16, body: &str) -> Json {
    *number += 1;
    client.deliver(*number, &format!("m-{number}"), body);
    let (pubacks, mut events) = client.collect(1, 1);
    assert_eq!(pubacks, [*number]);
    let (_, event) = events.remove(0);
    assert_eq!(event["messageId"], format!("m-{number}"));
    event
}

/// The next command reads what stands in register 0 now.
fn read_is_right(client: &mut Client, number: &mut u16, puppet: &Puppet, what: &str) {
    let value = 1000 + *number;
    puppet.set_register(0, value);
    let event = run(client, number, r#"{"command":"read"}"#);
    assert_eq!(
        (&event["status"], &event["value"]),
        (&"succeeded".into(), &value.into()),
        "the next command after {what}"
    );
}

fn every_case_ends_as_in_the_table(name: &str, which: usize, register: u16) {
    let (site, broker, puppet) = stage();
    let _daemon = site.start();
    let mut client = broker.serve();
    let mut number = 0;
    for (what, act, outcomes, code) in broken_answers() {
        let attempts = if which == 0 && outcomes[0] == "failed" && code != "exception" { 2 } else { 1 };
        (0..attempts).for_each(|_| puppet.next(act()));
        let value = number + 1;
        let event = run(&mut client, &mut number, &command(name, value));
        assert_eq!(event["status"], outcomes[which], "{what}: {event}");
        if outcomes[which] != "succeeded" {
            assert_eq!(event["error"]["code"], code, "{what}: {event}");
            assert_readable(&event["error"]);
        }
        assert_eq!(event["attempts"], attempts, "{what}: {event}");
        assert_eq!((puppet.count(register, value), puppet.acts_left()), (attempts, 0), "{what}");
        read_is_right(&mut client, &mut number, &puppet, what);
    }
}

#[test]
fn an_idempotent_command_is_tried_again_and_then_has_failed() {
    every_case_ends_as_in_the_table("set", 0, 0);
}

#[test]
fn a_command_that_must_not_be_repeated_is_sent_once_and_is_in_doubt() {
    every_case_ends_as_in_the_table("pulse", 1, 2);
}

#[test]
fn a_command_whose_effect_can_be_read_back_is_sent_once_and_is_not_in_doubt() {
    every_case_ends_as_in_the_table("pulse-verified", 2, 3);
}

#[test]
fn one_broken_answer_does_not_fail_what_may_be_repeated() {
    let (site, broker, puppet) = stage();
    let _daemon = site.start();
    let mut client = broker.serve();
    let mut number = 0;
    for (what, act, outcomes, code) in broken_answers() {
        if outcomes[0] != "failed" || code == "exception" {
            continue;
        }
        puppet.next(act());
        let event = run(&mut client, &mut number, &command("set", 7));
        assert_eq!((&event["status"], &event["attempts"]), (&"succeeded".into(), &2.into()), "{what}: {event}");
    }
}

#[test]
fn a_read_that_is_answered_with_something_else_gives_no_value() {
    let (site, broker, puppet) = stage();
    let _daemon = site.start();
    let mut client = broker.serve();
    let mut number = 0;
    let acts: [Named; 5] = [
        ("a write's answer", || Act::Bytes(|r, _| frame(&r[..4], r[6], &[6, 0, 0, 0, 9]))),
        ("two registers", || Act::Bytes(|r, _| frame(&r[..4], r[6], &[3, 4, 0, 9, 0, 9]))),
        ("no register", || Act::Bytes(|r, _| frame(&r[..4], r[6], &[3, 0]))),
        ("half a register", || Act::Bytes(|r, _| frame(&r[..4], r[6], &[3, 1, 9]))),
        ("a wrong count", || Act::Bytes(|r, _| frame(&r[..4], r[6], &[3, 200, 0, 9]))),
    ];
    for (what, act) in acts {
        puppet.next(act());
        puppet.next(act());
        let event = run(&mut client, &mut number, r#"{"command":"read"}"#);
        assert_eq!(
            (&event["status"], &event["error"]["code"]),
            (&"failed".into(), &"bad-reply".into()),
            "{what}: {event}"
        );
        assert_eq!(event.get("value"), None, "{what}: {event}");
        assert_readable(&event["error"]);
        read_is_right(&mut client, &mut number, &puppet, what);
    }
}

#[test]
fn a_late_answer_is_never_taken_for_the_next_ones() {
    let (broker, puppet) = (Broker::new(), Puppet::new());
    let patient = "[profile.pump.command.patient]\nread = { table = \"holding\", address = 0 }\ntimeout = \"10s\"";
    let site =
        Site::new(&broker.address(), &format!("{}\n{patient}", pump(puppet.address(), "after-execution", TIMING)));
    let _daemon = site.start();
    let mut client = broker.serve();
    let mut number = 0;
    for round in 1..=3 {
        // Both attempts of a read are answered too late; the next read is on its way by then, and its own answer
        // comes last.
        puppet.set_register(0, 10);
        puppet.next(Act::Late(TOO_LATE));
        puppet.next(Act::Late(TOO_LATE));
        let event = run(&mut client, &mut number, r#"{"command":"read"}"#);
        assert_eq!((&event["status"], &event["error"]["code"]), (&"failed".into(), &"timeout".into()));
        puppet.set_register(0, 100 + round);
        puppet.next(Act::AfterLate(usize::from(round) * 2));
        let event = run(&mut client, &mut number, r#"{"command":"patient"}"#);
        assert_eq!((&event["status"], &event["value"]), (&"succeeded".into(), &(100 + round).into()));
    }
}

#[test]
fn a_late_confirmation_is_never_taken_for_the_next_writes() {
    let (site, broker, puppet) = stage();
    let _daemon = site.start();
    let mut client = broker.serve();
    let mut number = 0;
    for round in 1..=3 {
        // The same register and the same value: only the transaction or the connection tells the two confirmations
        // apart.
        puppet.next(Act::Late(TOO_LATE));
        puppet.next(Act::Silence);
        for _ in 0..2 {
            let event = run(&mut client, &mut number, &command("pulse", 7));
            assert_eq!((&event["status"], &event["error"]["code"]), (&"in_doubt".into(), &"timeout".into()), "{event}");
        }
        puppet.wait_for_late_answers(round);
    }
    assert_eq!(puppet.count(2, 7), 6);
    read_is_right(&mut client, &mut number, &puppet, "late confirmations");
}

#[test]
fn a_peripheral_that_is_away_fails_every_command_and_is_found_when_it_comes() {
    let broker = Broker::new();
    let (host, port) = free_address();
    let address = format!("{host}:{port}");
    let site = Site::new(&broker.address(), &pump(&address, "after-execution", TIMING));
    let _daemon = site.start();
    let mut client = broker.serve();
    let mut number = 0;
    for name in ["set", "pulse", "pulse-verified"] {
        let event = run(&mut client, &mut number, &command(name, 7));
        assert_eq!(
            (&event["status"], &event["error"]["code"]),
            (&"failed".into(), &"bus-unavailable".into()),
            "{event}"
        );
        assert_readable(&event["error"]);
    }
    let puppet = Puppet::at(&address);
    eventually("the bus is opened", || {
        let event = run(&mut client, &mut number, &command("set", 8));
        (event["status"] == "succeeded").then_some(())
    });
    read_is_right(&mut client, &mut number, &puppet, "an absence");
    assert_eq!(puppet.count(2, 7) + puppet.count(3, 7), 0, "what has failed is not made up for");
}
