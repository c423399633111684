//! What a packet id means on one connection, when the hub repeats itself. Proves G1, G2, G3 and G6.

use std::time::Duration;

use super::{command, fence, message_ids_of, site, BOTH};
use crate::support::slave::Mood;

#[test]
fn a_repetition_under_a_new_packet_id_while_it_executes_is_completed_and_not_repeated() {
    for settle in BOTH {
        let (site, broker, slave) = site(settle);
        let _daemon = site.start();
        let mut client = broker.serve();
        slave.set_mood(Mood::Held);
        client.deliver(1, "m-1", &command("pulse", 7));
        slave.wait_for_requests(1);
        client.deliver(2, "m-1", &command("pulse", 7));
        client.deliver(3, "m-2", &command("pulse", 8));
        if settle == "after-execution" {
            assert!(client.is_silent_for(Duration::from_millis(100)), "there is no outcome to complete it with");
        }
        slave.set_mood(Mood::Good);
        let (pubacks, events) = client.collect(3, 2);
        assert_eq!(pubacks, [1, 2, 3]);
        assert_eq!(message_ids_of(&events), ["m-1", "m-2"]);
        assert_eq!(slave.writes(), [(2, 7), (2, 8)]);
        fence(&mut client, 4);
    }
}

#[test]
fn a_repetition_under_a_new_packet_id_after_completion_is_completed_and_not_repeated() {
    for settle in BOTH {
        let (site, broker, slave) = site(settle);
        let _daemon = site.start();
        let mut client = broker.serve();
        client.deliver(1, "m-1", &command("pulse", 7));
        assert_eq!(client.collect(1, 1).0, [1]);
        client.deliver(2, "m-1", &command("pulse", 7));
        assert_eq!(client.collect(1, 0).0, [2]);
        fence(&mut client, 3);
        assert_eq!(slave.writes(), [(2, 7)]);
        let status = site.device_status("pump");
        assert_eq!((&status["received"], &status["duplicates"]), (&3.into(), &1.into()));
    }
}

#[test]
fn a_repetition_under_its_own_packet_id_before_the_puback_is_one_delivery() {
    let (site, broker, slave) = site("after-execution");
    let _daemon = site.start();
    let mut client = broker.serve();
    slave.set_mood(Mood::Held);
    client.deliver(1, "m-1", &command("pulse", 7));
    slave.wait_for_requests(1);
    client.deliver(1, "m-1", &command("pulse", 7));
    // Whether the hub sets the DUP flag changes nothing.
    let topic = "devices/pump/messages/devicebound/%24.mid=m-1&%24.to=%2Fdevices%2Fpump";
    let length = (topic.len() as u16).to_be_bytes();
    client.packet(0x3a, &[&length[..], topic.as_bytes(), &[0, 1], command("pulse", 7).as_bytes()].concat());
    client.deliver(2, "m-2", &command("pulse", 8));
    slave.set_mood(Mood::Good);
    assert_eq!(client.collect(2, 2).0, [1, 2]);
    assert_eq!(slave.writes(), [(2, 7), (2, 8)]);
    fence(&mut client, 3);
}

#[test]
fn a_repetition_under_its_own_packet_id_after_the_puback_takes_a_new_connection_to_tell_what_it_means() {
    for settle in BOTH {
        let (site, broker, slave) = site(settle);
        let _daemon = site.start();
        let mut client = broker.serve();
        client.deliver(1, "m-1", &command("pulse", 7));
        assert_eq!(client.collect(1, 1).0, [1]);
        client.deliver(1, "m-1", &command("pulse", 7));
        client.closes();

        let mut client = broker.serve();
        client.deliver(1, "m-1", &command("pulse", 7));
        assert_eq!(client.collect(1, 0).0, [1]);
        assert_eq!(slave.writes(), [(2, 7)]);
        fence(&mut client, 2);
    }
}

#[test]
fn another_message_under_a_packet_id_that_was_acknowledged_is_a_new_delivery() {
    for settle in BOTH {
        let (site, broker, slave) = site(settle);
        let _daemon = site.start();
        let mut client = broker.serve();
        for value in 1..=20 {
            client.deliver(1, &format!("m-{value}"), &command("pulse", value));
            assert_eq!(client.collect(1, 1).0, [1]);
        }
        let expected: Vec<(u16, u16)> = (1..=20).map(|value| (2, value)).collect();
        assert_eq!(slave.writes(), expected);
        fence(&mut client, 1);
    }
}

#[test]
fn two_messages_under_one_packet_id_end_the_connection_and_lose_nothing() {
    let (site, broker, slave) = site("after-execution");
    let _daemon = site.start();
    let mut client = broker.serve();
    slave.set_mood(Mood::Held);
    client.deliver(1, "m-1", &command("pulse", 7));
    slave.wait_for_requests(1);
    client.deliver(1, "m-2", &command("pulse", 8));
    client.closes();

    let mut client = broker.serve();
    client.deliver(1, "m-1", &command("pulse", 7));
    client.deliver(2, "m-2", &command("pulse", 8));
    slave.set_mood(Mood::Good);
    assert_eq!(client.collect(2, 2).0, [1, 2]);
    assert_eq!(slave.writes(), [(2, 7), (2, 8)]);
    fence(&mut client, 3);
}
