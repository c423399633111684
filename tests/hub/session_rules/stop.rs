//! SIGTERM: what is on the wire is finished and completed, what is not begun stays where it is. Proves G1, G2 and G3.

use super::{command, fence, message_ids_of, site, wait_for_deliveries, BOTH};
use crate::support::broker::{Client, Packet};
use crate::support::slave::Mood;
use crate::support::{eventually, signal};

/// Reads to DISCONNECT: the PUBACKs and the events that came before it.
fn last_words(client: &mut Client) -> (Vec<u16>, usize) {
    let (mut pubacks, mut events) = (Vec::new(), 0);
    loop {
        match client.next() {
            Packet::PubAck(packet_id) => pubacks.push(packet_id),
            Packet::Publish { .. } => events += 1,
            Packet::Disconnect => break,
            other => panic!("{other:?} where DISCONNECT was expected"),
        }
    }
    assert_eq!(client.next(), Packet::Closed, "nothing follows a DISCONNECT");
    (pubacks, events)
}

#[test]
fn sigterm_finishes_the_command_on_the_wire_completes_it_and_leaves_the_others() {
    for settle in BOTH {
        let (site, broker, slave) = site(settle);
        let mut daemon = site.start();
        let mut client = broker.serve();
        slave.set_mood(Mood::Held);
        client.deliver(1, "m-1", &command("pulse", 7));
        client.deliver(2, "m-2", &command("pulse", 8));
        slave.wait_for_requests(1);
        wait_for_deliveries(&site, 2);
        if settle == "after-accept" {
            assert_eq!(client.collect(2, 0).0, [1, 2]);
        }
        signal(daemon.pid(), "TERM");
        eventually("the daemon begins to stop", || daemon.log().contains("stopping").then_some(()));
        slave.set_mood(Mood::Good);
        let (pubacks, _) = last_words(&mut client);
        match settle {
            "after-execution" => assert_eq!(pubacks, [1]),
            _ => assert_eq!(pubacks, [] as [u16; 0]),
        }
        assert_eq!(daemon.wait().code(), Some(0));
        assert_eq!(site.rows()[0]["state"], "succeeded");
        assert_eq!(slave.writes(), [(2, 7)]);

        let _daemon = site.start();
        let mut client = broker.serve();
        if settle == "after-execution" {
            client.deliver(1, "m-2", &command("pulse", 8));
            assert_eq!(client.next_puback(&mut Vec::new()), 1);
        }
        site.wait_for_row("m-2", "succeeded");
        assert_eq!(slave.writes(), [(2, 7), (2, 8)]);
    }
}

#[test]
fn sigterm_with_nothing_to_do_says_goodbye_and_ends() {
    let (site, broker, _slave) = site("after-execution");
    let mut daemon = site.start();
    let mut client = broker.serve();
    fence(&mut client, 1);
    signal(daemon.pid(), "TERM");
    assert_eq!(last_words(&mut client), (vec![], 0));
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn an_event_that_a_stop_left_behind_is_published_at_the_next_start() {
    let (site, broker, slave) = site("after-execution");
    let mut daemon = site.start();
    let mut client = broker.serve();
    client.deliver(1, "m-1", &command("pulse", 7));
    let (first, _) = client.next_event_unacknowledged();
    signal(daemon.pid(), "TERM");
    assert_eq!(last_words(&mut client).1, 0, "an event is published once on a connection");
    assert_eq!(daemon.wait().code(), Some(0), "an event without its PUBACK does not hold up a stop");

    let _daemon = site.start();
    let (_, events) = broker.serve().collect(0, 1);
    assert_eq!(message_ids_of(&events), ["m-1"]);
    assert_eq!(events[0].0, first);
    assert_eq!(slave.writes(), [(2, 7)]);
}

#[test]
fn sigterm_does_not_wait_for_a_hub_that_says_nothing() {
    let (site, broker, _slave) = site("after-execution");
    let mut daemon = site.start();
    let mut client = broker.accept();
    signal(daemon.pid(), "TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    assert_eq!(client.next(), Packet::Closed);
}
