//! Commands that must not follow one another too soon, and those of which only the newest counts. Proves G2, G5 and G13
//! where such keys could break them.

use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::{add_keys, command, fence, message_ids_of, site, site_of_two, wait_for_deliveries, BOTH};
use super::{Broker, Site, Slave};
use crate::support::broker::Client;
use crate::support::slave::Mood;

/// A site whose command has this line.
fn site_with_key(settle: &str, name: &str, key: &str) -> (Site, Broker, Slave) {
    let (site, broker, slave) = site(settle);
    add_keys(&site, name, key);
    (site, broker, slave)
}

/// What happens next is an event that tells of a command in whose place a newer one is done.
fn next_is_superseded(client: &mut Client, message_id: &str) {
    let (_, event) = client.next_event();
    assert_eq!((&event["messageId"], &event["status"]), (&message_id.into(), &"expired".into()));
    assert_eq!((&event["error"]["code"], &event["attempts"]), (&"superseded".into(), &0.into()));
}

#[test]
fn of_those_that_wait_only_the_newest_is_done_and_everything_else_as_ever() {
    for settle in BOTH {
        let (site, broker, slave) = site_with_key(settle, "set", "latest_wins = true");
        let _daemon = site.start();
        let mut client = broker.serve();
        slave.set_mood(Mood::Held);
        client.deliver(1, "slow", &command("pulse", 9));
        slave.wait_for_requests(1);
        client.deliver(2, "set-1", &command("set", 1));
        client.deliver(3, "pulse-1", &command("pulse", 1));
        client.deliver(4, "set-2", &command("set", 2));
        client.deliver(5, "pulse-2", &command("pulse", 2));
        client.deliver(6, "set-3", &command("set", 3));
        // What can't be done ends nothing.
        client.deliver(7, "set-4", r#"{"command":"set","value":70000}"#);
        if settle == "after-accept" {
            let (pubacks, events) = client.collect(7, 3);
            assert_eq!(pubacks, [1, 2, 3, 4, 5, 6, 7]);
            let mut ends: Vec<_> = events.iter().map(|(_, event)| event["error"]["code"].to_string()).collect();
            ends.sort();
            assert_eq!(ends, ["\"out-of-range\"", "\"superseded\"", "\"superseded\""]);
        } else {
            next_is_superseded(&mut client, "set-1");
            next_is_superseded(&mut client, "set-2");
            assert!(client.is_silent_for(Duration::from_millis(200)), "something overtook the slow command");
        }
        slave.set_mood(Mood::Good);
        let (pubacks, left) = if settle == "after-accept" { (vec![], 4) } else { (vec![1, 2, 3, 4, 5, 6, 7], 5) };
        let (acknowledged, events) = client.collect(pubacks.len(), left);
        assert_eq!(acknowledged, pubacks);
        let expected = ["slow", "pulse-1", "pulse-2", "set-3", "set-4"];
        assert_eq!(message_ids_of(&events), expected[..left]);
        assert_eq!(slave.writes(), [(2, 9), (2, 1), (2, 2), (0, 3)], "{settle}");
        fence(&mut client, 8);
    }
}

#[test]
fn one_that_waits_for_its_bus_gives_way_to_a_newer_one_and_one_that_has_begun_does_not() {
    let (site, broker, slave) = site_of_two("after-execution");
    add_keys(&site, "set", "latest_wins = true");
    let _daemon = site.start();
    let [mut client, mut other] = broker.serve_each(["pump", "other"]);
    slave.set_mood(Mood::Held);
    other.publish(1, b"devices/other/messages/devicebound/%24.mid=hold", command("set", 1).as_bytes());
    slave.wait_for_requests(1);
    client.deliver(1, "old", &command("set", 2));
    wait_for_deliveries(&site, 1);
    client.deliver(2, "new", &command("set", 3));
    let (pubacks, events) = client.collect(1, 1);
    assert_eq!((pubacks, &events[0].1["error"]["code"]), (vec![1], &"superseded".into()));
    slave.let_one_go();
    // Now the newer one is on the wire, and is done although a still newer one comes.
    slave.wait_for_requests(2);
    client.deliver(3, "newest", &command("set", 4));
    wait_for_deliveries(&site, 3);
    slave.set_mood(Mood::Good);
    let (pubacks, events) = client.collect(2, 2);
    assert_eq!((pubacks, message_ids_of(&events)), (vec![2, 3], vec!["new", "newest"]));
    assert_eq!(slave.writes(), [(0, 1), (0, 3), (0, 4)]);
    assert_eq!(other.collect(1, 1).0, [1]);
}

#[test]
fn a_redelivery_of_what_was_done_long_ago_is_no_newer_command() {
    let (site, broker, slave) = site_with_key("after-execution", "set", "latest_wins = true");
    let _daemon = site.start();
    let mut client = broker.serve();
    client.deliver(1, "done", &command("set", 1));
    assert_eq!(client.collect(1, 1).0, [1]);
    slave.set_mood(Mood::Held);
    client.deliver(2, "slow", &command("pulse", 9));
    slave.wait_for_requests(2);
    client.deliver(3, "waits", &command("set", 2));
    client.deliver(4, "done", &command("set", 1));
    wait_for_deliveries(&site, 4);
    slave.set_mood(Mood::Good);
    let (pubacks, events) = client.collect(3, 2);
    assert_eq!((pubacks, message_ids_of(&events)), (vec![2, 3, 4], vec!["slow", "waits"]));
    assert_eq!(slave.writes(), [(0, 1), (2, 9), (0, 2)]);
}

#[test]
fn a_command_waits_for_its_interval_in_its_place_and_so_does_an_operators() {
    const INTERVAL: Duration = Duration::from_secs(2);
    for settle in BOTH {
        let (site, broker, slave) = site_with_key(settle, "pulse", "min_interval = \"2s\"");
        let began = Instant::now();
        let _daemon = site.start();
        let mut client = broker.serve();
        client.deliver(1, "m-1", &command("pulse", 1));
        client.deliver(2, "m-2", &command("set", 2));
        client.deliver(3, "m-3", &command("pulse", 3));
        client.deliver(4, "m-4", &command("set", 4));
        let first = slave.wait_for_write(1);
        // The start counts as one.
        assert!(first - began >= INTERVAL, "{:?}", first - began);
        let third = slave.wait_for_write(3);
        assert!(third - first >= INTERVAL, "{:?}", third - first);
        let output = site.command(&["exec", "pump", "pulse", "5"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let fifth = slave.wait_for_write(5);
        assert!(fifth - third >= INTERVAL, "{:?}", fifth - third);
        let (pubacks, events) = client.collect(4, 4);
        assert_eq!((pubacks, message_ids_of(&events)), (vec![1, 2, 3, 4], vec!["m-1", "m-2", "m-3", "m-4"]));
        assert_eq!(slave.writes(), [(2, 1), (0, 2), (2, 3), (0, 4), (2, 5)]);
    }
}

#[test]
fn who_waits_for_an_interval_is_told_at_the_deadline_and_holds_up_no_neighbour() {
    let (site, broker, slave) = site_of_two("after-execution");
    add_keys(&site, "pulse", "min_interval = \"1h\"\ndeadline = \"1s\"");
    let _daemon = site.start();
    let [mut client, mut other] = broker.serve_each(["pump", "other"]);
    client.deliver(1, "too-soon", &command("pulse", 1));
    wait_for_deliveries(&site, 1);
    other.publish(1, b"devices/other/messages/devicebound/%24.mid=free", command("set", 2).as_bytes());
    assert_eq!(other.collect(1, 1).0, [1]);
    let (pubacks, events) = client.collect(1, 1);
    let event: &Json = &events[0].1;
    assert_eq!((pubacks, &event["status"], &event["error"]["code"]), (vec![1], &"expired".into(), &"expired".into()));
    let why = event["error"]["message"].as_str().expect("a sentence");
    assert!(why.contains("its min_interval of 1h"), "{why}");
    assert_eq!(slave.writes(), [(0, 2)]);
    fence(&mut client, 2);
}
