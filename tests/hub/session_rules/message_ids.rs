//! The identity of a message and its time: `$.mid`, its spellings, its absence and its reuse; `$.exp` and the
//! deadline. Proves G2, G3 and G8.

use std::collections::BTreeMap;
use std::time::Duration;

use fieldbridge::time::Timestamp;
use serde_json::{json, Value as Json};

use super::{command, fence, site, site_of_two, site_with, BOTH};
use crate::support::broker::{Broker, Client};
use crate::support::slave::{Mood, Slave};
use crate::support::{pump, Site};

/// Percent-encodes all but the unreserved characters (RFC 3986, 2.3), as the hub does.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn deliver(client: &mut Client, packet_id: u16, bag: &str, body: &str) {
    client.publish(packet_id, format!("devices/pump/messages/devicebound/{bag}").as_bytes(), body.as_bytes());
}

#[test]
fn message_ids_are_opaque_and_compared_byte_by_byte() {
    let long = "x".repeat(128);
    let wide = "\u{1f600}".repeat(128);
    let ids = [
        "My Message ID",
        "my message id",
        "100%",
        "%41",
        "A",
        "a+b",
        "a b",
        "a/b&c=d?e#f",
        "äöü",
        "\u{2028}",
        "1",
        "01",
        &long,
        &wide,
    ];
    let (site, broker, slave) = site("after-execution");
    let _daemon = site.start();
    let mut client = broker.serve();
    for (number, id) in (1..).zip(ids) {
        deliver(&mut client, number, &format!("%24.mid={}", encoded(id)), &command("pulse", number));
        let (pubacks, events) = client.collect(1, 1);
        assert_eq!(pubacks, [number]);
        let (topic, event) = &events[0];
        assert_eq!((&event["messageId"], &event["status"]), (&id.into(), &"succeeded".into()));
        assert!(topic.contains(&format!("&%24.cid={}&", encoded(id))), "{topic}");
    }
    // The same ids, spelled in another way among other properties: each is known.
    for (number, id) in (1..).zip(ids) {
        let bag = format!("?iothub-ack=full&%24.cid&$.mid={}&note=", encoded(id));
        deliver(&mut client, 100 + number, &bag, &command("pulse", number));
        assert_eq!(client.collect(1, 0).0, [100 + number]);
    }
    let expected: Vec<(u16, u16)> = (1..).zip(ids).map(|(number, _)| (2, number)).collect();
    assert_eq!(slave.writes(), expected);
    let rows = site.rows();
    let kept: Vec<&str> = rows.iter().map(|row| row["messageId"].as_str().unwrap()).collect();
    assert_eq!(kept, ids);
    fence(&mut client, 200);
}

#[test]
fn without_a_message_id_only_what_may_be_repeated_is_executed() {
    for settle in BOTH {
        let (site, broker, slave) = site(settle);
        let _daemon = site.start();
        let mut client = broker.serve();
        deliver(&mut client, 1, "", &command("set", 7));
        deliver(&mut client, 2, "%24.mid=&%24.to=x", &command("pulse", 8));
        deliver(&mut client, 3, "%24.mid", &command("pulse-verified", 9));
        let (pubacks, events) = client.collect(3, 3);
        assert_eq!(pubacks, [1, 2, 3]);
        let mut ends: Vec<(Json, Json)> =
            events.iter().map(|(_, event)| (event["status"].clone(), event["error"]["code"].clone())).collect();
        // With after-accept a rejection need not wait for the wire.
        ends.sort_by_key(|(status, _)| status.to_string());
        let rejected = (Json::from("rejected"), Json::from("no-message-id"));
        assert_eq!(ends, [rejected.clone(), rejected, ("succeeded".into(), Json::Null)]);
        for (topic, event) in &events {
            assert_eq!(event["messageId"], Json::Null);
            assert!(!topic.contains("%24.cid"), "there is nothing to correlate with: {topic}");
        }
        assert_eq!(slave.writes(), [(0, 7)]);
        fence(&mut client, 4);
    }
}

#[test]
fn a_message_id_with_another_body_is_rejected_once_and_the_first_stays_known() {
    for settle in BOTH {
        let (site, broker, slave) = site(settle);
        let _daemon = site.start();
        let mut client = broker.serve();
        client.deliver(1, "m-1", &command("pulse", 7));
        assert_eq!(client.collect(1, 1).0, [1]);
        client.deliver(2, "m-1", &command("pulse", 8));
        let (pubacks, events) = client.collect(1, 1);
        assert_eq!((pubacks.as_slice(), &events[0].1["messageId"]), (&[2][..], &"m-1".into()));
        assert_eq!(events[0].1["error"]["code"], "message-id-reused");

        client.deliver(3, "m-1", &command("pulse", 8));
        client.deliver(4, "m-1", &command("pulse", 7));
        assert_eq!(client.collect(2, 0).0, [3, 4]);
        client.deliver(5, "m-1", &command("pulse", 9));
        let (pubacks, events) = client.collect(1, 1);
        assert_eq!((pubacks.as_slice(), &events[0].1["error"]["code"]), (&[5][..], &"message-id-reused".into()));
        assert_eq!(slave.writes(), [(2, 7)]);
        fence(&mut client, 6);
        let deliveries: Vec<Json> = site.rows().iter().map(|row| row["deliveries"].clone()).collect();
        assert_eq!(deliveries, [2, 2, 1, 1]);
    }
}

#[test]
fn a_message_id_is_a_devices_own() {
    let (site, broker, slave) = site_of_two("after-execution");
    let _daemon = site.start();
    let [mut pump, mut other] = broker.serve_each(["pump", "other"]);
    pump.deliver(1, "m-1", &command("pulse", 7));
    assert_eq!(pump.collect(1, 1).0, [1]);
    other.publish(1, b"devices/other/messages/devicebound/%24.mid=m-1", command("pulse", 8).as_bytes());
    assert_eq!(other.collect(1, 1).0, [1]);
    assert_eq!(slave.writes(), [(2, 7), (2, 8)]);
}

#[test]
fn a_message_that_has_expired_never_reaches_the_wire() {
    for settle in BOTH {
        let (site, broker, slave) = site(settle);
        let _daemon = site.start();
        let mut client = broker.serve();
        let past = ["2020-01-01T00%3A00%3A00.0000000Z", "2020-01-01T00:00:00Z", "2020-01-01T00%3A00%3A00%2B00%3A00"];
        for (number, at) in (1..).zip(past) {
            let bag = format!("%24.mid=m-{number}&%24.exp={at}");
            deliver(&mut client, number, &bag, &command("pulse", number));
            let (pubacks, events) = client.collect(1, 1);
            assert_eq!(pubacks, [number]);
            let event = &events[0].1;
            assert_eq!((&event["status"], &event["error"]["code"]), (&"expired".into(), &"expired".into()), "{at}");
        }
        assert_eq!(slave.requests(), 0);
        // 0 is no expiry, and neither is what can't be read: the hub drops expired messages itself.
        for (number, at) in (4..).zip(["0", "soon", "", "9999-12-31T23%3A59%3A59.9999999Z"]) {
            let bag = format!("%24.mid=m-{number}&%24.exp={at}");
            deliver(&mut client, number, &bag, &command("pulse", number));
            assert_eq!(client.collect(1, 1).1[0].1["status"], "succeeded", "{at}");
        }
        fence(&mut client, 8);
    }
}

#[test]
fn a_command_whose_time_runs_out_in_the_queue_never_reaches_the_wire() {
    for settle in BOTH {
        let (broker, slave) = (Broker::new(), Slave::new());
        let timing = "response_timeout = \"1500ms\"\nretries = 0";
        let hasty = "[profile.pump.command.hasty]\nwrite = { table = \"holding\", address = 2 }\nidempotent = false\ndeadline = \"1s\"";
        let site = Site::new(&broker.address(), &format!("{}\n{hasty}", pump(slave.address(), settle, timing)));
        let _daemon = site.start();
        let mut client = broker.serve();
        slave.set_mood(Mood::Deaf);
        let soon = encoded(&Timestamp::now().plus(Duration::from_secs(1)).to_string());
        client.deliver(1, "ahead", &command("pulse", 1));
        client.deliver(2, "hasty", &command("hasty", 2));
        deliver(&mut client, 3, &format!("%24.mid=expiring&%24.exp={soon}"), &command("pulse", 3));
        client.deliver(4, "patient", r#"{"command":"read"}"#);
        let (pubacks, events) = client.collect(4, 4);
        assert_eq!(pubacks, [1, 2, 3, 4]);
        // Each is told when its time has run out, whatever became of the one ahead.
        let ends = events
            .iter()
            .map(|(_, event)| (event["messageId"].as_str().unwrap(), (&event["status"], &event["attempts"])));
        let ends: BTreeMap<&str, (&Json, &Json)> = ends.collect();
        let (expired, none, one) = (&json!("expired"), &json!(0), &json!(1));
        let expected = [
            ("ahead", (&json!("in_doubt"), one)),
            ("expiring", (expired, none)),
            ("hasty", (expired, none)),
            ("patient", (&json!("succeeded"), one)),
        ];
        assert_eq!(ends, BTreeMap::from(expected));
        assert_eq!(slave.requests(), 2, "the one ahead and the patient one");
    }
}

#[test]
fn a_redelivery_gives_an_expired_message_no_second_life() {
    let (site, broker, slave) = site_with("after-execution", "");
    let _daemon = site.start();
    let mut client = broker.serve();
    let bag = "%24.mid=m-1&%24.exp=2020-01-01T00%3A00%3A00Z";
    deliver(&mut client, 1, bag, &command("pulse", 7));
    assert_eq!(client.collect(1, 1).0, [1]);
    deliver(&mut client, 2, bag, &command("pulse", 7));
    deliver(&mut client, 3, "%24.mid=m-1", &command("pulse", 7));
    assert_eq!(client.collect(2, 0).0, [2, 3]);
    fence(&mut client, 4);
    assert_eq!(slave.writes(), []);
}
