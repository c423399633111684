//! A connection that is cut between PUBLISH and PUBACK, and what the next one sees. Proves G2, G3 and G6.

use std::time::Duration;

use super::{command, event_id, fence, message_ids_of, register, site, wait_for_deliveries, BOTH};
use crate::support::slave::Mood;

const COMMANDS: [&str; 3] = ["set", "pulse", "pulse-verified"];

/// Runs a test with every kind of command in both ways to settle.
fn in_every_way(test: fn(settle: &str, name: &str)) {
    for settle in BOTH {
        for name in COMMANDS {
            println!("{name}, {settle}");
            test(settle, name);
        }
    }
}

#[test]
fn a_message_that_was_cut_off_before_the_wire_is_executed_once_at_its_redelivery() {
    in_every_way(|settle, name| {
        let (site, broker, slave) = site(settle);
        let _daemon = site.start();
        let mut first = broker.serve();
        slave.set_mood(Mood::Held);
        first.deliver(1, "ahead", &command("set", 1));
        first.deliver(2, "m-1", &command(name, 7));
        slave.wait_for_requests(1);
        wait_for_deliveries(&site, 2);
        drop(first);

        let mut second = broker.serve();
        second.deliver(2, "ahead", &command("set", 1));
        second.deliver(1, "m-1", &command(name, 7));
        slave.set_mood(Mood::Good);
        let (pubacks, events) = second.collect(2, 2);
        assert_eq!(pubacks, [2, 1]);
        assert_eq!(message_ids_of(&events), ["ahead", "m-1"]);
        assert_eq!(slave.writes(), [(0, 1), (register(name), 7)]);
        fence(&mut second, 3);
    });
}

#[test]
fn a_message_that_was_cut_off_on_the_wire_is_completed_at_its_redelivery_and_not_repeated() {
    in_every_way(|settle, name| {
        let (site, broker, slave) = site(settle);
        let _daemon = site.start();
        let mut first = broker.serve();
        slave.set_mood(Mood::Held);
        first.deliver(1, "m-1", &command(name, 7));
        slave.wait_for_requests(1);
        drop(first);

        let mut second = broker.serve();
        second.deliver(9, "m-1", &command(name, 7));
        wait_for_deliveries(&site, 2);
        if settle == "after-execution" {
            assert!(second.is_silent_for(Duration::from_millis(100)), "there is no outcome to complete it with");
        }
        slave.set_mood(Mood::Good);
        let (pubacks, events) = second.collect(1, 1);
        assert_eq!(pubacks, [9]);
        assert_eq!(events[0].1["status"], "succeeded");
        assert_eq!(slave.writes(), [(register(name), 7)]);
        fence(&mut second, 10);
    });
}

#[test]
fn a_message_that_was_cut_off_before_its_puback_is_completed_at_its_redelivery_and_not_repeated() {
    in_every_way(|settle, name| {
        let (site, broker, slave) = site(settle);
        let _daemon = site.start();
        let mut first = broker.serve();
        first.deliver(1, "m-1", &command(name, 7));
        site.wait_for_row("m-1", "succeeded");
        drop(first);

        let mut second = broker.serve();
        second.deliver(9, "m-1", &command(name, 7));
        let (pubacks, events) = second.collect(1, 1);
        assert_eq!(pubacks, [9]);
        assert_eq!(events[0].1["status"], "succeeded");
        assert_eq!(slave.writes(), [(register(name), 7)]);
        fence(&mut second, 10);
        assert_eq!(site.rows()[0]["deliveries"], 2);
    });
}

#[test]
fn a_message_that_is_cut_off_again_and_again_is_executed_once() {
    let (site, broker, slave) = site("after-execution");
    let _daemon = site.start();
    slave.set_mood(Mood::Held);
    let mut client = broker.serve();
    client.deliver(1, "m-1", &command("pulse", 7));
    slave.wait_for_requests(1);
    for packet_id in 2..4 {
        drop(client);
        client = broker.serve();
        client.deliver(packet_id, "m-1", &command("pulse", 7));
    }
    wait_for_deliveries(&site, 3);
    slave.set_mood(Mood::Good);
    let (pubacks, _) = client.collect(1, 1);
    assert_eq!(pubacks, [3], "of the three deliveries the live connection's is acknowledged");
    assert_eq!(slave.writes(), [(2, 7)]);
    fence(&mut client, 5);
}

#[test]
fn an_outcome_of_an_earlier_connection_acknowledges_nothing_on_the_next_one() {
    let (site, broker, slave) = site("after-execution");
    let _daemon = site.start();
    let mut first = broker.serve();
    slave.set_mood(Mood::Held);
    for number in 1..=3 {
        first.deliver(number, &format!("old-{number}"), &command("pulse", number));
    }
    slave.wait_for_requests(1);
    wait_for_deliveries(&site, 3);
    drop(first);

    // The same packet ids, for other messages.
    let mut second = broker.serve();
    for number in 1..=3 {
        second.deliver(number, &format!("new-{number}"), &command("pulse", 10 + number));
    }
    wait_for_deliveries(&site, 6);
    slave.let_one_go();
    let (_, event) = second.next_event();
    assert_eq!((&event["messageId"], &event["status"]), (&"old-1".into(), &"succeeded".into()));
    slave.wait_for_requests(2);
    assert!(
        second.is_silent_for(Duration::from_millis(300)),
        "an acknowledgement crossed from one connection to another"
    );

    slave.set_mood(Mood::Good);
    let (pubacks, events) = second.collect(3, 3);
    assert_eq!(pubacks, [1, 2, 3]);
    assert_eq!(message_ids_of(&events), ["new-1", "new-2", "new-3"]);
    assert_eq!(slave.writes(), [(2, 1), (2, 11), (2, 12), (2, 13)], "what was only queued went with its connection");

    for number in 1..=3 {
        second.deliver(3 + number, &format!("old-{number}"), &command("pulse", number));
    }
    let (pubacks, events) = second.collect(3, 2);
    assert_eq!(pubacks, [4, 5, 6]);
    assert_eq!(message_ids_of(&events), ["old-2", "old-3"]);
    assert_eq!(slave.writes()[4..], [(2, 2), (2, 3)]);
    fence(&mut second, 7);
}

#[test]
fn a_result_event_is_published_until_the_hub_acknowledges_it() {
    let (site, broker, slave) = site("after-execution");
    let _daemon = site.start();
    let mut client = broker.serve();
    client.deliver(1, "m-1", &command("pulse", 7));
    let mut ids = Vec::new();
    for _ in 0..2 {
        let (topic, event) = client.next_event_unacknowledged();
        assert_eq!(event["messageId"], "m-1");
        ids.push(event_id(&topic).to_owned());
        drop(client);
        client = broker.serve();
    }
    let (topic, _) = client.next_event();
    ids.push(event_id(&topic).to_owned());
    ids.dedup();
    assert_eq!(ids.len(), 1, "the back end can tell that it is one event: {ids:?}");
    fence(&mut client, 2);
    drop(client);
    fence(&mut broker.serve(), 3);
    assert_eq!(slave.writes(), [(2, 7)]);
}
