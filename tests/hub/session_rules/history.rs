//! A new ledger knows that it knows nothing (G15): what an earlier one may have executed is not executed again, until
//! the hub shows that nothing of before is left.

use serde_json::{json, Value as Json};

use super::{command, fence, site, BOTH};
use crate::support::broker::{Client, Packet};
use crate::support::slave::Mood;

/// The event that tells of a message. Others may come again before it: of a cut connection's acknowledgements some are
/// lost.
fn end_of(client: &mut Client, message_id: &str) -> Json {
    loop {
        match client.next() {
            Packet::PubAck(_) => {}
            Packet::Publish { packet_id, body, .. } => {
                client.puback(packet_id);
                let event: Json = serde_json::from_slice(&body).expect("an event is JSON");
                if event["messageId"] == message_id {
                    return event;
                }
            }
            other => panic!("{other:?} where an event of {message_id} was expected"),
        }
    }
}

#[test]
fn where_the_hub_knows_a_session_a_new_ledger_calls_in_doubt_what_must_not_be_repeated() {
    for settle in BOTH {
        let (site, broker, slave) = site(settle);
        let daemon = site.start();
        let mut client = broker.accept();
        client.connack(0, true);
        client.grant();
        for (number, name) in (1..).zip(["pulse", "set", "pulse-verified", "read"]) {
            client.deliver(number, name, &command(name, 7));
        }
        let (pubacks, events) = client.collect(4, 4);
        assert_eq!(pubacks, [1, 2, 3, 4]);
        for (_, event) in &events {
            let (state, code) = match event["messageId"].as_str() {
                Some("pulse" | "pulse-verified") => ("in_doubt", json!("unknown-history")),
                // A read takes no value.
                Some("read") => ("rejected", json!("bad-value")),
                _ => ("succeeded", json!(null)),
            };
            assert_eq!((&event["status"], &event["error"]["code"]), (&json!(state), &code), "{event}");
            assert_eq!(event["requested"], 7);
        }
        assert_eq!(slave.writes(), [(0, 7)]);
        assert_eq!(site.device_status("pump")["inDoubt"], 2);
        let told = site.status()["attention"].to_string();
        assert!(told.contains("commands of pump that must not be repeated end in doubt until"), "{told}");
        // Delivered again they are known.
        client.deliver(5, "pulse", &command("pulse", 7));
        assert_eq!(client.collect(1, 0).0, [5]);

        // A later CONNACK without a session shows nothing: somebody else may have ended it.
        drop(client);
        let mut client = broker.accept();
        client.connack(0, false);
        client.grant();
        client.deliver(1, "later", &command("pulse", 8));
        assert_eq!(end_of(&mut client, "later")["error"]["code"], "unknown-history");

        // What is not known stays so over a restart.
        drop(client);
        daemon.kill();
        let _daemon = site.start();
        let mut client = broker.accept();
        client.connack(0, true);
        client.grant();
        client.deliver(1, "latest", &command("pulse", 9));
        assert_eq!(end_of(&mut client, "latest")["error"]["code"], "unknown-history");
        assert_eq!(slave.writes(), [(0, 7)]);
    }
}

#[test]
fn a_first_installation_is_not_troubled_and_what_it_was_shown_is_kept_over_its_death() {
    for settle in BOTH {
        let (site, broker, slave) = site(settle);
        let daemon = site.start();
        let mut client = broker.serve();
        assert_eq!(client.connect.client_id, "pump");
        drop(client);
        daemon.kill();
        let _daemon = site.start();
        client = broker.accept();
        client.connack(0, true);
        client.grant();
        client.deliver(1, "m-1", &command("pulse", 7));
        let (_, events) = client.collect(1, 1);
        assert_eq!(events[0].1["status"], "succeeded");
        assert_eq!(slave.writes(), [(2, 7)]);
        fence(&mut client, 2);
    }
}

#[test]
fn what_another_name_of_the_hub_may_have_brought_is_not_repeated() {
    let (site, broker, slave) = site("after-execution");
    let daemon = site.start();
    let mut client = broker.serve();
    client.deliver(1, "once", &command("pulse", 7));
    client.deliver(2, "again", &command("set", 8));
    assert_eq!(client.collect(2, 2).0, [1, 2]);
    site.settled();
    drop(client);
    assert!(daemon.terminate().success());
    site.configure("hub.example", "other.example");
    let _daemon = site.start();
    client = broker.accept();
    client.connack(0, false);
    client.grant();
    client.deliver(1, "once", &command("pulse", 7));
    client.deliver(2, "again", &command("set", 8));
    client.deliver(3, "once", &command("pulse", 9));
    slave.set_mood(Mood::Good);
    let (pubacks, events) = client.collect(3, 3);
    assert_eq!(pubacks, [1, 2, 3]);
    let ends: Vec<_> = events.iter().map(|(_, event)| (&event["status"], &event["error"]["code"])).collect();
    let (doubt, reused) = (json!("unknown-history"), json!("message-id-reused"));
    assert_eq!(ends, [(&json!("in_doubt"), &doubt), (&json!("succeeded"), &Json::Null), (&json!("rejected"), &reused)]);
    assert_eq!(slave.writes(), [(2, 7), (0, 8), (0, 8)]);
}
