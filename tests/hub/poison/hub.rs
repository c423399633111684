//! Messages that no back end should send: topics, property bags and bodies. Each is rejected with a reason and
//! acknowledged, nothing reaches the wire, and the next command is executed.

use serde_json::Value as Json;

use super::{assert_readable, command};
use crate::support::broker::{Broker, Client};
use crate::support::slave::Slave;
use crate::support::{pump, Site};

const BOTH: [&str; 2] = ["after-execution", "after-accept"];
const PREFIX: &[u8] = b"devices/pump/messages/devicebound/";

struct Stage {
    site: Site,
    slave: Slave,
    broker: Broker,
}

impl Stage {
    fn new(settle: &str) -> Stage {
        let (broker, slave) = (Broker::new(), Slave::new());
        let site = Site::new(&broker.address(), &pump(slave.address(), settle, ""));
        Stage { site, slave, broker }
    }
}

/// Delivers one poisoned message and the next good one; returns the poisoned one's event.
fn swallow(client: &mut Client, number: u16, topic: &[u8], body: &[u8]) -> Json {
    client.publish(number, topic, body);
    let (pubacks, mut events) = client.collect(1, 1);
    assert_eq!(pubacks, [number]);
    let (_, event) = events.remove(0);
    client.deliver(number + 1000, &format!("good-{number}"), &command("set", number));
    let (pubacks, events) = client.collect(1, 1);
    assert_eq!(pubacks, [number + 1000]);
    let good = &events[0].1;
    assert_eq!((&good["messageId"], &good["status"]), (&format!("good-{number}").into(), &"succeeded".into()));
    event
}

fn topic(bag: &[u8]) -> Vec<u8> {
    [PREFIX, bag].concat()
}

/// Sends all of these, and expects each to be rejected with its code.
fn all_are_rejected(settle: &str, poison: &[(Vec<u8>, Vec<u8>, &str)]) {
    let stage = Stage::new(settle);
    let _daemon = stage.site.start();
    let mut client = stage.broker.serve();
    for (number, (topic, body, code)) in (1..).zip(poison) {
        let shown = (String::from_utf8_lossy(topic), String::from_utf8_lossy(body));
        println!("{number}: {:.100} {:.100}", shown.0, shown.1);
        let event = swallow(&mut client, number, topic, body);
        assert_eq!((&event["status"], &event["error"]["code"]), (&"rejected".into(), &(*code).into()), "{event}");
        assert_readable(&event["error"]);
    }
    let good: Vec<(u16, u16)> = (1..).zip(poison).map(|(number, _)| (0, number)).collect();
    assert_eq!(stage.slave.writes(), good);
    let rows = stage.site.rows();
    assert_eq!(rows.len(), poison.len() * 2);
    for row in rows.iter().filter(|row| row["state"] != "succeeded") {
        assert_eq!(row["state"], "rejected");
        assert_readable(&row["error"]);
    }
}

#[test]
fn a_topic_that_is_none_of_the_devices_is_rejected_and_the_next_message_executed() {
    let body = command("pulse", 666).into_bytes();
    let topics: [&[u8]; 16] = [
        b"",
        b"/",
        b"\0",
        b"devices",
        b"devices/pump",
        b"devices/pump/messages/devicebounds/%24.mid=x",
        b"devices/pump/messages/events/%24.mid=x",
        b"devices/pump2/messages/devicebound/%24.mid=x",
        b"devices/other/messages/devicebound/%24.mid=x",
        b"devices/PUMP/messages/devicebound/%24.mid=x",
        b"Devices/pump/messages/devicebound/%24.mid=x",
        b"devices/pump\0/messages/devicebound/%24.mid=x",
        b"devices/pump/messages/device\xffound/%24.mid=x",
        b"\xff\xfe\xfd",
        b"$iothub/methods/POST/reboot/?$rid=1",
        "\u{1b}[31mdevices/\u{202e}pump".as_bytes(),
    ];
    let long = [&b"devices/other/"[..], &[b'x'; 60_000]].concat();
    let poison: Vec<_> = topics
        .iter()
        .map(|topic| topic.to_vec())
        .chain([long])
        .map(|topic| (topic, body.clone(), "unknown-command"))
        .collect();
    for settle in BOTH {
        all_are_rejected(settle, &poison);
    }
}

#[test]
fn a_bag_that_names_no_command_is_rejected_and_the_next_message_executed() {
    let long_id = [&b"%24.mid="[..], &[b'i'; 60_000]].concat();
    let long_command = [&b"%24.mid=long-command&command="[..], &[b'c'; 60_000]].concat();
    let encoded_command = [b"%24.mid=encoded&command=".to_vec(), b"%E2%82%AC".repeat(6_000)].concat();
    let many = [b"%24.mid=many".to_vec(), b"&a=b".repeat(15_000)].concat();
    let bags: [(&[u8], &[u8], &str); 16] = [
        (b"", b"", "unknown-command"),
        (b"?", b"", "unknown-command"),
        (b"&&&===&", b"", "unknown-command"),
        (b"%24.mid=empty&command=", b"7", "unknown-command"),
        (b"%24.mid=case&command=PULSE", b"7", "unknown-command"),
        (b"%24.mid=space&command=pulse%20", b"7", "unknown-command"),
        (b"%24.mid=nul&command=pulse%00", b"7", "unknown-command"),
        (b"%24.mid=broken&command=%70ulse%", b"7", "unknown-command"),
        (b"%24.mid=not-utf-8&command=pulse%FF", b"7", "unknown-command"),
        (b"%24.mid=raw&command=pulse\xff", b"7", "unknown-command"),
        (b"%24.mid=bell&command=%07%1B%5B31m", b"7", "unknown-command"),
        (b"%24.mid=foreign&command=__proto__", b"7", "unknown-command"),
        (&long_command, b"7", "unknown-command"),
        (&encoded_command, b"7", "unknown-command"),
        (&many, b"", "unknown-command"),
        (&long_id, br#"{"command":"pulse","value":7}"#, "too-large"),
    ];
    let poison: Vec<_> = bags.iter().map(|(bag, body, code)| (topic(bag), body.to_vec(), *code)).collect();
    for settle in BOTH {
        all_are_rejected(settle, &poison);
    }
}

/// Bodies, with and without the property `command`, and the code that each ends in.
fn bodies() -> Vec<(Vec<u8>, Vec<u8>, &'static str)> {
    let max = 64 * 1024;
    let deep = |open: &str| open.repeat(60_000 / open.len()).into_bytes();
    let object = |value: &str| format!(r#"{{"command":"pulse","value":{value}}}"#).into_bytes();
    let alone: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "unknown-command"),
        (b"{".to_vec(), "unknown-command"),
        (b"{\"command\":\"pulse\",\"value\":7".to_vec(), "unknown-command"),
        (b"{\"command\":\"pulse\",\"value\":7}}".to_vec(), "unknown-command"),
        (b"{'command':'pulse'}".to_vec(), "unknown-command"),
        (b"\xff\xfe\x00\x01".to_vec(), "unknown-command"),
        (b"{\"command\":\"pul\xffse\",\"value\":7}".to_vec(), "unknown-command"),
        (b"{\"command\":\"pulse\\u0000\",\"value\":7}".to_vec(), "unknown-command"),
        (b"{\"command\":\"\\ud800\",\"value\":7}".to_vec(), "unknown-command"),
        (b"null".to_vec(), "unknown-command"),
        (b"[{\"command\":\"pulse\",\"value\":7}]".to_vec(), "unknown-command"),
        (b"\"pulse\"".to_vec(), "unknown-command"),
        (b"{\"command\":7}".to_vec(), "unknown-command"),
        (b"{\"command\":null}".to_vec(), "unknown-command"),
        (b"{\"command\":[\"pulse\"]}".to_vec(), "unknown-command"),
        (deep("["), "unknown-command"),
        (deep("{\"command\":"), "unknown-command"),
        (object(&"[".repeat(60_000)), "unknown-command"),
        (object("1e400"), "unknown-command"),
        (object("NaN"), "unknown-command"),
        (vec![b' '; max], "unknown-command"),
        (vec![b'x'; max + 1], "too-large"),
        (vec![0xff; 100_000], "too-large"),
        (object("null"), "bad-value"),
        (object("\"7\""), "bad-value"),
        (object("true"), "bad-value"),
        (object("[7]"), "bad-value"),
        (object("{\"value\":7}"), "bad-value"),
        (object("7.5"), "bad-value"),
        (object(&format!("\"{}\"", "x".repeat(60_000))), "bad-value"),
        (object(&format!("[{}7]", "7,".repeat(30_000))), "bad-value"),
        (object("-1"), "out-of-range"),
        (object("65536"), "out-of-range"),
        (object("1e308"), "out-of-range"),
        (object("18446744073709551616"), "out-of-range"),
        (object(&format!("1{}", "0".repeat(300))), "out-of-range"),
        (b"{\"command\":\"read\",\"value\":7}".to_vec(), "bad-value"),
    ];
    let beside: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "bad-value"),
        (b"{".to_vec(), "bad-value"),
        (b"\xff\xfe\x00\x01".to_vec(), "bad-value"),
        (b"{}".to_vec(), "bad-value"),
        (b"7 8".to_vec(), "bad-value"),
        (deep("["), "bad-value"),
        (vec![b'7'; max], "bad-value"),
        (vec![b'x'; max], "bad-value"),
        (vec![b'7'; max + 1], "too-large"),
        (b"99999".to_vec(), "out-of-range"),
    ];
    let alone = alone
        .into_iter()
        .zip(1..)
        .map(|((body, code), number)| (topic(format!("%24.mid=alone-{number}").as_bytes()), body, code));
    let beside = beside
        .into_iter()
        .zip(1..)
        .map(|((body, code), number)| (topic(format!("%24.mid=beside-{number}&command=pulse").as_bytes()), body, code));
    alone.chain(beside).collect()
}

#[test]
fn a_body_that_is_no_command_is_rejected_and_the_next_message_executed() {
    all_are_rejected("after-execution", &bodies());
}

#[test]
fn a_body_that_is_no_command_is_rejected_and_the_next_message_executed_when_acceptance_settles() {
    all_are_rejected("after-accept", &bodies());
}

#[test]
fn a_rejected_message_that_comes_again_is_completed_without_a_second_event() {
    let stage = Stage::new("after-execution");
    let _daemon = stage.site.start();
    let mut client = stage.broker.serve();
    let (topic, body) = (topic(b"%24.mid=poison"), vec![0xff; 100_000]);
    swallow(&mut client, 1, &topic, &body);
    for number in 2..5 {
        client.publish(number, &topic, &body);
        assert_eq!(client.collect(1, 0).0, [number]);
    }
    swallow(&mut client, 5, &super::hub::topic(b"%24.mid=other"), b"");
    assert_eq!(stage.slave.writes(), [(0, 1), (0, 5)]);
}

#[test]
fn the_largest_message_that_the_hub_allows_is_executed() {
    let stage = Stage::new("after-execution");
    let _daemon = stage.site.start();
    let mut client = stage.broker.serve();
    let mut body = command("pulse", 7).into_bytes();
    body.resize(64 * 1024, b' ');
    let bag = [b"%24.mid=large&note=".to_vec(), b"%E2%82%AC".repeat(6_500)].concat();
    client.publish(1, &topic(&bag), &body);
    let (pubacks, events) = client.collect(1, 1);
    assert_eq!((pubacks.as_slice(), &events[0].1["status"]), (&[1][..], &"succeeded".into()));
    assert_eq!(stage.slave.writes(), [(2, 7)]);
}

#[test]
fn message_ids_that_are_not_well_encoded_are_told_apart() {
    let stage = Stage::new("after-execution");
    let _daemon = stage.site.start();
    let mut client = stage.broker.serve();
    let ids: [&[u8]; 10] = [b"%zz", b"%", b"%4", b"%FF", b"%FE", b"a\xff", b"a\xfe", b"a\xff\xff", b"\xc3", b"%00"];
    for (number, id) in (1..).zip(ids) {
        client.publish(number, &topic(&[b"%24.mid=", id].concat()), command("pulse", 7).as_bytes());
        let (pubacks, events) = client.collect(1, 1);
        assert_eq!(pubacks, [number]);
        assert_eq!(events[0].1["status"], "succeeded", "{id:x?}");
    }
    assert_eq!(stage.slave.count(2, 7), ids.len(), "each was a message of its own");
}

#[test]
fn random_messages_are_all_acknowledged_in_order_and_none_reaches_the_wire() {
    let seed = std::env::var("FIELDBRIDGE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("FIELDBRIDGE_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let stage = Stage::new(BOTH[random.usize(..2)]);
    let _daemon = stage.site.start();
    let mut client = stage.broker.serve();
    let alphabet = br#"%24.mid=&?/+{}[]":,command value pulse set 0123456789eE-\u0000"#;
    for round in 0..10u16 {
        let numbers: Vec<u16> = (1..=25).map(|number| round * 100 + number).collect();
        for number in &numbers {
            let mut bytes = |most: usize| -> Vec<u8> {
                let plain = random.bool();
                let length = random.usize(..most);
                (0..length).map(|_| if plain { *random.choice(alphabet).unwrap() } else { random.u8(..) }).collect()
            };
            let tail = bytes(60);
            let topic = match number % 3 {
                0 => tail,
                1 => topic(&tail),
                _ => topic(&[format!("%24.mid=m-{number}&").as_bytes(), &tail].concat()),
            };
            client.publish(*number, &topic, &bytes(200));
        }
        let (pubacks, events) = client.collect(numbers.len(), numbers.len());
        assert_eq!(pubacks, numbers);
        for (_, event) in &events {
            assert_eq!(event["status"], "rejected", "{event}");
            assert_readable(&event["error"]);
        }
    }
    assert_eq!(stage.slave.requests(), 0);
    swallow(&mut client, 9_000, b"", b"");
}
