//! A deadline counts from the first receipt, holds for the first byte on the wire, and is told when it passes. Proves
//! G13, and G5 and G6 beside it.

use std::time::Duration;

use serde_json::Value as Json;

use super::{add_keys, command, fence, message_ids_of, site, site_of_two, wait_for_deliveries, BOTH};
use super::{Broker, Site, Slave};
use crate::support::broker::Client;
use crate::support::slave::Mood;

/// A site whose pulses must be on the wire within so long.
fn site_with_deadline(settle: &str, deadline: &str) -> (Site, Broker, Slave) {
    let (site, broker, slave) = site(settle);
    add_keys(&site, "pulse", &format!("deadline = \"{deadline}\""));
    (site, broker, slave)
}

/// What happens next is an event that tells of a command that came too late.
fn next_is_expired(client: &mut Client, message_id: &str) -> Json {
    let (_, event) = client.next_event();
    assert_eq!((&event["messageId"], &event["status"]), (&message_id.into(), &"expired".into()));
    assert_eq!((&event["error"]["code"], &event["attempts"]), (&"expired".into(), &0.into()));
    event
}

#[test]
fn a_redelivered_command_is_as_old_as_its_first_receipt() {
    let (site, broker, slave) = site_with_deadline("after-execution", "4s");
    let _daemon = site.start();
    let mut first = broker.serve();
    slave.set_mood(Mood::Held);
    first.deliver(1, "ahead", &command("set", 1));
    first.deliver(2, "old", &command("pulse", 2));
    wait_for_deliveries(&site, 2);
    slave.wait_for_requests(1);
    std::thread::sleep(Duration::from_secs(1));
    drop(first);

    // What comes for the first time now has more time left, although it comes before the redelivery.
    let mut second = broker.serve();
    second.deliver(1, "ahead", &command("set", 1));
    second.deliver(2, "young", &command("pulse", 3));
    second.deliver(3, "old", &command("pulse", 2));
    let old = next_is_expired(&mut second, "old");
    let young = next_is_expired(&mut second, "young");
    let at = |event: &Json, what: &str| event[what].as_str().expect("a time").to_owned();
    assert!(at(&old, "receivedAt") < at(&young, "receivedAt"), "{old} {young}");
    assert_eq!(site.wait_for_row("old", "expired")["receivedAt"], old["receivedAt"]);

    slave.set_mood(Mood::Good);
    let (pubacks, events) = second.collect(3, 1);
    assert_eq!(pubacks, [1, 2, 3]);
    assert_eq!(message_ids_of(&events), ["ahead"]);
    assert_eq!(slave.writes(), [(0, 1)]);
    fence(&mut second, 4);
}

#[test]
fn a_command_that_waits_behind_a_slow_one_is_told_when_its_deadline_passes_and_settled_in_its_turn() {
    for settle in BOTH {
        let (site, broker, slave) = site_with_deadline(settle, "1s");
        let _daemon = site.start();
        let mut client = broker.serve();
        slave.set_mood(Mood::Held);
        client.deliver(1, "slow", &command("set", 1));
        slave.wait_for_requests(1);
        client.deliver(2, "late", &command("pulse", 2));
        client.deliver(3, "patient", &command("set", 3));
        if settle == "after-accept" {
            assert_eq!(client.collect(3, 0).0, [1, 2, 3]);
        }
        next_is_expired(&mut client, "late");
        site.wait_for_row("late", "expired");
        assert!(client.is_silent_for(Duration::from_millis(200)), "something overtook the slow command");

        slave.set_mood(Mood::Good);
        let pubacks = if settle == "after-accept" { &[][..] } else { &[1, 2, 3] };
        let (acknowledged, events) = client.collect(pubacks.len(), 2);
        assert_eq!(acknowledged, pubacks);
        assert_eq!(message_ids_of(&events), ["slow", "patient"]);
        assert_eq!(slave.writes(), [(0, 1), (0, 3)]);
        fence(&mut client, 4);
    }
}

#[test]
fn a_command_that_waits_for_a_bus_is_told_and_settled_when_its_deadline_passes() {
    for settle in BOTH {
        let (site, broker, slave) = site_of_two(settle);
        add_keys(&site, "pulse", "deadline = \"1s\"");
        let _daemon = site.start();
        let [mut client, mut other] = broker.serve_each(["pump", "other"]);
        slave.set_mood(Mood::Held);
        other.publish(1, b"devices/other/messages/devicebound/%24.mid=hold", command("set", 1).as_bytes());
        slave.wait_for_requests(1);

        client.deliver(7, "late", &command("pulse", 2));
        let (pubacks, events) = client.collect(1, 1);
        assert_eq!((pubacks, &events[0].1["status"]), (vec![7], &"expired".into()));
        assert_eq!(slave.requests(), 1);
        slave.set_mood(Mood::Good);
        fence(&mut client, 8);
        assert_eq!(slave.writes(), [(0, 1)]);
    }
}

#[test]
fn a_command_in_time_is_not_called_late_by_its_own_redelivery() {
    for name in ["set", "pulse"] {
        let (site, broker, slave) = site("after-execution");
        add_keys(&site, name, "deadline = \"1s\"");
        let _daemon = site.start();
        let mut first = broker.serve();
        slave.set_mood(Mood::Held);
        first.deliver(1, "m-1", &command(name, 7));
        slave.wait_for_requests(1);
        drop(first);

        let mut second = broker.serve();
        second.deliver(5, "m-1", &command(name, 7));
        // The same id for something else must not be done before it is known what became of the first.
        second.deliver(6, "m-1", &command(name, 8));
        assert!(second.is_silent_for(Duration::from_millis(1500)), "it has no outcome yet");
        slave.set_mood(Mood::Good);
        let (pubacks, events) = second.collect(2, 2);
        assert_eq!(pubacks, [5, 6]);
        let ends: Vec<&Json> = events.iter().map(|(_, event)| &event["status"]).collect();
        assert_eq!(ends, ["succeeded", "rejected"]);
        assert_eq!(events[1].1["error"]["code"], "message-id-reused");
        assert_eq!(slave.writes().len(), 1);
        fence(&mut second, 7);
    }
}

#[test]
fn a_message_that_comes_while_its_device_takes_leave_was_received_then() {
    let (site, broker, slave) = site_with_deadline("after-execution", "2s");
    let _daemon = site.start();
    let mut first = broker.serve();
    first.deliver(1, "ahead", &command("set", 1));
    // The hub does not acknowledge the event, so that the device takes a while to leave.
    first.next_event_unacknowledged();
    site.configure("[device.pump]\nbus = \"plant\"\n", "[device.other]\nbus = \"plant\"\n");
    assert!(site.command(&["reload"]).status.success());
    first.deliver(2, "old", &command("pulse", 2));
    let _other = broker.serve();
    first.closes();

    site.configure("[device.other]\nbus = \"plant\"\n", "[device.pump]\nbus = \"plant\"\n");
    assert!(site.command(&["reload"]).status.success());
    std::thread::sleep(Duration::from_secs(2));
    let mut second = broker.serve();
    second.deliver(1, "old", &command("pulse", 2));
    let (pubacks, events) = second.collect(1, 2);
    assert_eq!((pubacks, message_ids_of(&events)), (vec![1], vec!["ahead", "old"]));
    assert_eq!((&events[1].1["status"], slave.writes()), (&"expired".into(), vec![(0, 1)]));
}
